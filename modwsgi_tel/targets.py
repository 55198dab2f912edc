"""Which processes a command looks at: those named by pid, and those chosen by what they are."""
import sys

from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.options import PROGRAM
from modwsgi_tel.printable import printable
from modwsgi_tel.proc import find
from modwsgi_tel.stacks.reader import Reader

_MOST_PID = 1 << 22                     # the kernel's own limit


def pids(values):
    """The pids that a command's arguments and options mean, each once, in order.  Raises TelError.

    values: of a command that has PID arguments, --group, --apache, --all-python and --subprocesses.
    """
    chosen = []
    for word in values.arguments:
        if not (word.isascii() and word.isdigit() and 0 < int(word) <= _MOST_PID):
            raise UsageError(f"{word!r} is no pid; see {PROGRAM} {values.command} --help")
        chosen.append(int(word))
    if values.group:
        chosen += find.group(values.group)
    if values.apache:
        chosen += find.apache()
    if values.all_python:
        chosen += find.pythons()
    if not chosen:
        raise UsageError(f"which process?  A pid, --group NAME, --apache or --all-python; see {PROGRAM} {values.command} --help")
    return list(dict.fromkeys(chosen))


def readers(values):
    """([Reader], [why one could not be read]) of the processes that are meant.  Raises TelError when none can be read.

    A process that descends from one that was named, and is no Python, is left out in silence.
    """
    named = pids(values)
    found, problems = [], []
    for pid in named:
        _open(pid, found, problems)
    if values.subprocesses:
        for pid in find.subprocesses(named):
            _open(pid, found, [])
    if not found:
        raise TelError(problems[0] if len(problems) == 1 else f"none of {len(problems)} processes could be read; the first: "
                       f"{problems[0]}")
    return found, problems


def _open(pid, found, problems):
    try:
        found.append(Reader(pid))
    except TelError as error:
        problems.append(str(error))


def complain(problems):
    """Tell on stderr what could not be read."""
    for line in problems:
        sys.stderr.write(f"{PROGRAM}: {printable(line)}\n")
