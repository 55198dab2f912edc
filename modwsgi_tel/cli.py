"""The command line: which command, its values, and what an error says.  Wires rooms together."""
import os
import sys

from modwsgi_tel.errors import TelError, Unwritable, UsageError
from modwsgi_tel.options import BY_COMMAND, PROGRAM, command_help, program_help, program_version, read
from modwsgi_tel.printable import printable, show


def main(argv=None):
    """Run a command; the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["sample"]:          # what its script raises is not caught here, and the streams are the script's
        return _imported("sample")(argv[1:])
    _open_streams()
    try:
        return _main(argv)
    except TelError as error:
        if isinstance(error, Unwritable):
            _forget_stdout()
        _complain(f"{PROGRAM}: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _forget_stdout()                # its reader has gone
        return 141


def _forget_stdout():
    """Nothing of Python's own may complain at the exit about what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_streams():
    """Standard streams that were closed lead nowhere; else the first socket would be what a log line is written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)          # the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)
    sys.stdout.reconfigure(errors="backslashreplace")       # a terminal that cannot show a letter shows its number


def _main(argv):
    command = argv[0] if argv else "serve"
    if command in ("--help", "-h", "help"):
        wanted = argv[1] if len(argv) > 1 and argv[1] in BY_COMMAND else None
        show(command_help(wanted) if wanted else program_help())
        return 0
    if command in ("--version", "-V"):
        show(program_version())
        return 0
    if command.startswith("-"):
        command, rest = "serve", argv
    elif command in BY_COMMAND:
        rest = argv[1:]
    elif not argv:
        rest = []
    else:
        raise UsageError(f"no command {command!r}; there are {', '.join(BY_COMMAND)}; see {PROGRAM} --help")
    if "--help" in rest or "-h" in rest:
        show(command_help(command))
        return 0
    if "--version" in rest or "-V" in rest:         # as the plugin guidelines want it of check
        show(program_version())
        return 0
    try:
        values = read(command, rest)
    except UsageError as error:
        if command != "check":
            raise
        return _imported("refused")(error)      # who runs it reads stdout, and by the status that this is no state of a server
    # a variable in the environment, which is there for serve, does not make dump bind the socket
    return _imported("tap" if command == "dump" and values.meant("listen") else command)(values)


def _imported(command):
    """The function that runs a command; imports all it needs at once: the archive may be replaced while it runs."""
    if command == "serve":
        from modwsgi_tel.collector import serve as work
    elif command == "demo":
        from modwsgi_tel.demo import demo as work
    elif command == "top":
        from modwsgi_tel.top import top as work
    elif command == "dump":
        from modwsgi_tel.report.dump import dump as work
    elif command == "tap":
        from modwsgi_tel.tap import listen as work
    elif command == "stacks":
        from modwsgi_tel.stackdump import stacks as work
    elif command == "why":
        from modwsgi_tel.why.command import why as work
    elif command == "doctor":
        from modwsgi_tel.doctor.command import doctor as work
    elif command == "check":
        from modwsgi_tel.check.command import check as work
    elif command == "refused":
        from modwsgi_tel.check.command import refused as work
    elif command == "extras":
        from modwsgi_tel.extras.command import extras as work
    elif command == "processes":
        from modwsgi_tel.processes import processes as work
    elif command == "inspect":
        from modwsgi_tel.inspection.command import inspect as work
    elif command == "record":
        from modwsgi_tel.record import record as work
    elif command == "hot":
        from modwsgi_tel.hot import hot as work
    elif command == "sample":
        from modwsgi_tel.sampler import main as work
    elif command == "memory":
        from modwsgi_tel.growth import memory as work
    elif command == "stack-helper":
        from modwsgi_tel.stackhelper import stack_helper as work
    elif command == "simulate":
        from modwsgi_tel.demo import simulate as work
    else:
        from modwsgi_tel.demo import replay_files as work
    return work


def _complain(line):
    try:
        sys.stderr.write(printable(line) + "\n")          # what is quoted in it may be anything
    except OSError:
        pass                            # nobody reads; the exit status still says it
