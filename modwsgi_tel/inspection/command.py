"""inspect: looks at processes once, or again and again; or tells who has a file or a port.  Joins proc, stacks and their text."""
import os
import sys

from modwsgi_tel import targets
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.figures import duration
from modwsgi_tel.inspection import further, holders, lists, text
from modwsgi_tel.inspection.gather import Subject
from modwsgi_tel.inspection.notable import kinds
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.printable import columns, printable_json, show
from modwsgi_tel.proc import roles

_OF_PROCESSES = ("group", "apache", "all_python", "subprocesses", "watch", "interval", "next")
_CLEAR = "\x1b[H\x1b[2J"
_NARROWEST = 40


def inspect(values):
    """The command; its exit status: 0, 1 when some process could not be looked at (of --file, --port: nobody has it), 2 when none could."""
    if values.file is not None or values.port is not None:
        return _who_has(values)
    try:
        members = {member.pid: member for member in roles.members()}
    except TelError:                    # too many to say what each is for; without a /proc every look says so
        members = {}
    watched = _Watched([Subject(pid, members.get(pid)) for pid in _pids(values, members)], values)
    try:
        return watched.run()
    finally:
        watched.close()


def _pids(values, members):
    """As targets.pids, in one list; a group may also be what gunicorn or uWSGI serves."""
    try:
        named, chosen = targets.pids(values)
    except UsageError:
        raise
    except TelError:
        found = [member.pid for member in members.values() if values.group and member.group == values.group]
        if not found or values.arguments or values.apache or values.all_python:
            raise
        return found
    return named + chosen


class _Watched:
    """The processes that are looked at; one that has ended is left out from then on, and said."""

    def __init__(self, subjects, values):
        self._subjects, self._values = subjects, values
        self._problems, self._shown = [], False
        self._host = further.Host()
        self._loop = Loop()
        self._early = None

    def close(self):
        self._loop.close()
        for subject in self._subjects:
            subject.close()

    def run(self):
        self._each(Subject.look)
        if self._subjects:
            self._progress(f"looking for {duration(self._values.interval)}...")
            for number, name in targets.ENDINGS.items():
                self._loop.on_signal(number, lambda name=name: self._end(name))
            self._loop.after(self._values.interval, self._again if self._values.watch else self._loop.stop)
            self._loop.run()
            self._progress("")
            if self._values.watch and self._early and sys.stdout.isatty():
                show("\n")              # the terminal has shown ^C
        if not self._values.watch and self._subjects:
            self._show(self._facts())
        if self._early and not self._values.watch:
            targets.say(f"ended early by {self._early}: the rates are of a shorter time")
        if not self._shown:
            raise TelError(self._problems[0] if len(self._problems) == 1 else
                           f"none of {len(self._problems):,} processes could be looked at: {self._problems[0]}")
        targets.complain(self._problems)
        return 1 if self._problems else 0

    def _end(self, name):
        self._early = name
        self._loop.stop()

    def _again(self):
        self._show(self._facts())
        if self._subjects:
            self._loop.after(self._values.interval, self._again)
        else:
            self._loop.stop()

    def _each(self, work):
        """[what work(subject) gives] of all that are there."""
        found = []
        for subject in list(self._subjects):
            try:
                found.append(work(subject))
            except TelError as error:
                self._problems.append(str(error))
                self._subjects.remove(subject)
                subject.close()
        return found

    def _facts(self):
        return self._each(Subject.facts)

    def _show(self, rows):
        if not rows:
            return
        self._progress("")
        found = [(facts, further.commands(facts, self._host) if self._values.next else None) for facts in rows]
        if self._values.json:
            show(printable_json({"at": rows[0]["at"], "processes": [
                {**facts, **({"next": more} if more is not None else {})} for facts, more in found], "problems": self._problems}) + "\n")
        else:
            width, live = columns(_NARROWEST), self._values.watch and sys.stdout.isatty()
            blocks = [[*text.lines(facts, width, moving=self._values.watch),
                       *(lists.further_lines(more, kinds(facts), width) if more is not None else ()), ""] for facts, more in found]
            page = [line for block in blocks for line in block][:-1]
            if live:
                page = page[:_rows() - 1]
            show((_CLEAR if live else "\n" if self._shown else "") + "\n".join(page) + "\n")
        self._shown = True

    def _progress(self, said):
        """On stderr, where that is a terminal: one line, that is gone when there is something to show."""
        if sys.stderr.isatty() and not self._values.watch:
            sys.stderr.write(f"\r\x1b[K{said}")
            sys.stderr.flush()


def _rows():
    try:
        return max(2, os.get_terminal_size(1).lines)
    except OSError:
        return 24


def _who_has(values):
    if values.file is not None and values.port is not None:
        raise UsageError("--file or --port, not both")
    if values.arguments:
        raise UsageError("--file and --port look at all processes: no pid goes with them")
    values.refuse(_OF_PROCESSES, "--file and --port look at all processes")
    found = holders.of_port(values.port) if values.file is None else holders.of_file(values.file)
    if values.json:
        show(printable_json(found._asdict()) + "\n")
    else:
        show("\n".join(lists.holder_lines(found, columns(_NARROWEST))) + "\n")
    if not found.rows and found.refused and not found.processes:
        raise TelError("no process could be looked into: run as root")
    return 0 if found.rows else 1
