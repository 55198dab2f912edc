"""record: where running processes spend their time, as a file; joins proc, stacks, profile and the loop."""
import os
import select
import sys

from modwsgi_tel import targets
from modwsgi_tel.errors import TelError
from modwsgi_tel.figures import counted, duration, percent
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.printable import show
from modwsgi_tel.profile.formats import check_comparing, format_of, former, write
from modwsgi_tel.profile.samples import Profile
from modwsgi_tel.report.whole import check_writable, write_whole
from modwsgi_tel.sampling import Sampler
from modwsgi_tel.targets import ENDINGS, say

PROGRESS_S = 0.25                       # between two rewritings of the line that tells how far it is
_MOST_SAID = 20                         # processes whose end is told


def record(values):
    """The command; its exit status: 0, 1 when some process could not be read at all, 2 when none could."""
    if values.output == "-":
        values["output"] = None         # stdout, as where nothing is named
    form = format_of(values.output, values.format)
    before = None
    if values.diff:
        check_comparing(form)
        before = former(values.diff)
    if values.output:
        check_writable(values.output)
    readers, problems, _ = targets.readers(values)
    targets.complain(problems)
    if values.stop:
        targets.say_stops()
    profile = Profile(values.by or (), values.gil, values.cpu, values.idle, values.rate)
    loop = Loop()
    try:
        ended, said, missed = _recorded(values, loop, readers, profile)
        if not profile.looks:
            raise TelError(said[-1] if said else f"{ended or 'the end'} came before the first look: nothing was recorded")
        # a Ctrl-C while it is written changes nothing: the loop's handlers are still there
        pieces = write(profile, form, before)
        if values.output:
            write_whole(values.output, pieces)
        else:
            show("".join(pieces))
    finally:
        loop.close()
    _tell(values, profile, ended, missed)
    return 1 if problems else 0


def _recorded(values, loop, readers, profile):
    """(what ended it early or None, [what was said of processes that could not be read any more], how often --stop held
    nobody): until then looks go on."""
    early, said = [], []
    line = _Line()

    def end(why):
        early.append(why)
        loop.stop()

    def gone(why):
        said.append(why)
        if len(said) <= _MOST_SAID:
            line.say(why if len(said) < _MOST_SAID else f"{why}; more are not told")

    began = loop.clock()
    sampler = Sampler(loop, readers, values.rate, lambda stacks, weight_s, now: profile.add(stacks, weight_s), gone,
                      lambda: end("the end of all processes"), values.stop, values.cpu, values.subprocesses)

    def progress():
        line.write(f"{duration(loop.clock() - began)} of {duration(values.duration)}, "
                   f"{counted(len(sampler.processes), 'process', 'processes')}, {counted(profile.looks, 'look')}, "
                   f"{counted(profile.taken, 'sample')}, moving {percent(profile.moving / max(1, profile.taken))}, "
                   f"late {profile.late:,}")

    for number, name in ENDINGS.items():
        loop.on_signal(number, lambda name=name: end(name))
    if line.shown:
        loop.every(PROGRESS_S, progress)
    loop.after(values.duration, loop.stop)
    try:
        loop.run()
    finally:
        sampler.close()
        line.clear()
    return (early[0] if early else None), said, sampler.missed


def _tell(values, profile, ended, missed):
    if ended:
        targets.say_ended(ended, duration(profile.duration_s), duration(values.duration))
    targets.say_missed(missed)
    if not profile.taken:
        say("no samples: " + ("no thread held the GIL" if profile.gil and profile.looks else
                               "all threads were idle; --idle counts them too" if profile.idle_seen else
                               "no thread used CPU time" if profile.cpu else "no process had a thread with Python in it"))
    say(f"{values.output or 'stdout'}: {profile.told()[-1]}")


class _Line:
    """One line on stderr, written over and over; nothing where that is no terminal."""

    def __init__(self):
        self.shown = sys.stderr.isatty()
        self._wide = 0                  # cells to write over

    def write(self, text):
        # a terminal that was stopped (Ctrl-S) must not hold up the looks
        if not self.shown or not select.select([], [sys.stderr], [], 0)[1]:
            return
        try:
            cols = os.get_terminal_size(2).columns
        except OSError:
            cols = 80
        text = text[:max(0, cols - 1)]
        self._put("\r" + text.ljust(min(self._wide, cols - 1)))
        self._wide = len(text)

    def clear(self):
        if self._wide:
            self.write("")
            self._put("\r")
            self._wide = 0

    def say(self, text):
        self.clear()
        say(text)

    def _put(self, text):
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self.shown = False
