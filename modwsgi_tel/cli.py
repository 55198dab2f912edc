"""The command line: which command, its values, and what an error says.  Wires rooms together."""
import os
import sys

from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.options import BY_COMMAND, PROGRAM, command_help, program_help, program_version, read


def main(argv=None):
    """Run a command; the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _main(argv)
    except TelError as error:
        _complain(f"{PROGRAM}: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of our output has gone; nothing of Python's own may complain about that at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _main(argv):
    command = argv[0] if argv else "serve"
    if command in ("--help", "-h", "help"):
        wanted = argv[1] if len(argv) > 1 and argv[1] in BY_COMMAND else None
        sys.stdout.write(command_help(wanted) if wanted else program_help())
        return 0
    if command in ("--version", "-V"):
        sys.stdout.write(program_version())
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
        sys.stdout.write(command_help(command))
        return 0
    values = read(command, rest)
    return _imported(command)(values)


def _imported(command):
    """The function that runs a command; imports all it needs at once: the archive may be replaced while it runs."""
    if command == "serve":
        from modwsgi_tel.collector import serve as work
    elif command == "demo":
        from modwsgi_tel.demo import demo as work
    elif command == "dump":
        from modwsgi_tel.report.dump import dump as work
    elif command == "simulate":
        from modwsgi_tel.demo import simulate as work
    else:
        from modwsgi_tel.demo import replay_files as work
    return work


def _complain(line):
    try:
        sys.stderr.write(line + "\n")
    except OSError:
        pass                            # nobody reads; the exit status still says it
