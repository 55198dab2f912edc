"""Which processes a command looks at: those named by pid, and those chosen by what they are."""
import re
import signal
import sys

from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.figures import counted
from modwsgi_tel.options import PROGRAM
from modwsgi_tel.printable import printable
from modwsgi_tel.proc import find
from modwsgi_tel.stacks.reader import Reader
from modwsgi_tel.stacks.runtime import NotRunning

ENDINGS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}     # end looking, and keep what was seen
_MOST_PID = 1 << 22                     # the kernel's own limit
_NAMED = 5                              # processes that are named where one reason is that of many
_PROCESS = re.compile(r"\bprocess (\d+)\b")


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
        raise TelError(f"Python code runs in none of {counted(resting, 'process', 'processes')}")
    if not found:
        if len(problems) > 1:
            complain(problems)
            problems = [f"none of {counted(len(problems), 'process', 'processes')} could be read"]
        raise TelError(problems[0])
    return found, problems, resting


def complain(problems):
    """Tell on stderr what could not be read: one reason once, with whom else it is that of."""
    alike = {}
    for line in problems:
        alike.setdefault(_PROCESS.sub("process", line, count=1), []).append(line)
    for first, *others in alike.values():
        named = [found.group(1) for found in map(_PROCESS.search, others[:_NAMED]) if found]
        more = ["..."] if len(others) > _NAMED else []
        say(first + (f" ({len(others) + 1:,} processes: also {', '.join(named + more)})" if named else ""))


def say(text):
    """Tell something on stderr, in one line."""
    try:
        sys.stderr.write(f"{PROGRAM}: {printable(text)}\n")
        sys.stderr.flush()
    except OSError:
        pass                            # nobody reads it


def say_ended(by, done, meant):
    """Tell on stderr that looking ended before it was meant to.  done, meant: how far it came, as text."""
    say(f"ended early by {by}, {done} of {meant}: what there is is whole")


def say_stops():
    """Tell on stderr what --stop does."""
    say("--stop: the thread that holds the GIL stands still for a moment at each look")


def say_missed(missed):
    """Tell on stderr how often --stop held nobody, if ever."""
    if missed:
        say(f"--stop: {counted(missed, 'time')} the thread that holds the GIL could not be held: it was ending, in a wait that cannot "
            "be interrupted, or its id is not known")
