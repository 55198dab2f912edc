"""Which processes a command looks at: those named by pid, and those chosen by what they are."""
import sys

from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.options import PROGRAM
from modwsgi_tel.printable import printable
from modwsgi_tel.proc import find
from modwsgi_tel.stacks.reader import Reader
from modwsgi_tel.stacks.runtime import NotRunning

_MOST_PID = 1 << 22                     # the kernel's own limit


def pids(values):
    """(pids that were named, pids that were chosen by what they are), each once, in order.  Raises TelError.

    values: of a command that has PID arguments, --group, --apache, --all-python and --subprocesses.
    """
    named, chosen = [], []
    for word in values.arguments:
        if not (word.isascii() and word.isdigit() and 0 < int(word) <= _MOST_PID):
            raise UsageError(f"{word!r} is no pid; see {PROGRAM} {values.command} --help")
        named.append(int(word))
    if values.group:
        chosen += find.group(values.group)
    if values.apache:
        chosen += find.apache()
    if values.all_python:
        chosen += find.pythons()
    if not named and not chosen:
        raise UsageError(f"which process?  A pid, --group NAME, --apache or --all-python; see {PROGRAM} {values.command} --help")
    if values.subprocesses:
        chosen += find.subprocesses(named + chosen)
    return list(dict.fromkeys(named)), [pid for pid in dict.fromkeys(chosen) if pid not in named]


def readers(values):
    """([Reader], [why one could not be read], how many run no Python) of the processes that are meant.

    One that was not named by its pid, and runs no Python code, is only counted; among subprocesses it may be anything.
    Raises TelError when none can be read.
    """
    named, chosen = pids(values)
    found, problems, resting = [], [], 0
    for pid in named + chosen:
        try:
            found.append(Reader(pid))
        except NotRunning as error:
            if pid in named:
                problems.append(str(error))
            else:
                resting += 1
        except TelError as error:
            if pid in named or not values.subprocesses:
                problems.append(str(error))
    if not found and not problems:
        raise TelError(f"Python code runs in none of these {resting} processes")
    if not found:
        if len(problems) > 1:
            complain(problems)
            problems = [f"none of {len(problems)} processes could be read"]
        raise TelError(problems[0])
    return found, problems, resting


def complain(problems):
    """Tell on stderr what could not be read."""
    for line in problems:
        sys.stderr.write(f"{PROGRAM}: {printable(line)}\n")
