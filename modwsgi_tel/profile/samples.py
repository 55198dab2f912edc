"""A bounded collection of weighted stacks: what `record` gathers, and what all formats are written from."""
import re
from array import array
from collections import namedtuple
from datetime import datetime

from modwsgi_tel import figures
from modwsgi_tel.printable import printable
from modwsgi_tel.stacks.model import MOVING

BY = ("process", "interpreter", "thread")       # outer frames, in this order
NODES = 200000                          # places in stacks, frame by frame, that are kept apart
SAMPLES = 2000000                       # samples kept with their time
THREADS = 10000                         # threads kept apart
FUNCTION_SIZE, FILE_SIZE, COMMAND_SIZE = 300, 1000, 80      # characters of a name
LATE = 1.5                              # a look is late when it comes after that many intervals

# Frames of our own: what could not be read stands in its place, so that the shares stay right.
NOT_READ = "(moving: not read)"
CUT = "(cut: outer frames not read)"
EMPTY = "(no Python frames)"
DROPPED = "(dropped: too many different stacks)"

OTHER_THREADS = "other threads"
GROUP = re.compile(r"(?:pid \d+|interpreter \d+|thread (?:\d+|\?))(?: |$)|" + OTHER_THREADS + "$")
_NUMBERED = re.compile(r"(pid|thread) (?:\d+|\?)")

Key = namedtuple("Key", "function file line")
Key.__doc__ = """A frame of a profile, printable.  file and line: None for frames of our own; line also where it is not known."""


def short(text, size):
    """Printable text of at most `size` characters."""
    text = printable(text[:size + 1])
    return text if len(text) <= size else text[:size - 1] + "…"


def is_group(function):
    """Whether a frame without a file is one of those that `by` adds, not a mark such as NOT_READ."""
    return GROUP.match(function) is not None


def same_group(function):
    """The text of a group's frame less what differs from run to run: its pid or its thread's id."""
    return _NUMBERED.sub(r"\1", function, count=1) if is_group(function) else function


class Thread:
    """One thread that was seen.  name: the last one known.  Its tid is None when it is not known, its pid for OTHER_THREADS."""

    __slots__ = ("pid", "tid", "name", "bases", "frames", "base", "leaf")

    def __init__(self, pid, tid, name):
        self.pid, self.tid, self.name = pid, tid, name
        self.bases = {}                 # (pid, interpreter) -> the node below which its stacks are
        self.frames = self.base = self.leaf = None      # of the look before: most threads have not moved

    def text(self):
        if self.pid is None:
            return OTHER_THREADS
        number = "?" if self.tid is None else self.tid
        return f"thread {number} {short(self.name, FUNCTION_SIZE)}" if self.name else f"thread {number}"


class Profile:
    """Looks at processes, added up.

    by: of BY, what gets an outer frame of its own.  gil: only threads that hold the GIL.  cpu: CPU time (a thread's `cpu_s`)
    in place of wall time.  idle: pool threads with nothing to do are taken too.  rate: looks a second that were meant.

    looks: of one process each; gil_looks: those in which a thread held the GIL; late: those that came late against the rate.
    taken: threads' samples, of which moving and cut ones; dropped: past NODES; untimed: past SAMPLES (counted, but left out
    where there is a time axis).  idle_seen: left out as idle.  unknown: left out because the CPU time is not known.
    start: wall seconds, None before the first look.  duration_s: from there to the last look.

    nodes: `parent` and `frame` (an index into `frames`, Keys) of every place in a stack, parents first, 0 the root; `own_s`
    its weight in seconds.  samples in order of time: `times` (seconds since start), `owners` (indexes into `threads`),
    `leaves` (nodes), `weights` (seconds).
    """

    def __init__(self, by=(), gil=False, cpu=False, idle=False, rate=50, nodes=NODES, samples=SAMPLES, threads=THREADS):
        self.by = tuple(each for each in BY if each in by)
        self.gil, self.cpu, self.idle, self.rate = gil, cpu, idle, rate
        self.looks = self.gil_looks = self.late = 0
        self.taken = self.moving = self.cut = self.dropped = self.untimed = self.idle_seen = self.unknown = 0
        self.start, self.duration_s = None, 0.0
        self.processes = {}             # pid -> (command, Python's version)
        self.threads = [Thread(None, None, None)]
        self.frames = []
        self.parent, self.frame, self.own_s = array("i", [-1]), array("i", [-1]), array("d", [0.0])
        self.times, self.owners, self.leaves, self.weights = array("d"), array("i"), array("i"), array("d")
        self._nodes, self._samples, self._threads = nodes, samples, threads
        self._thread_at = {}            # (pid, tid, name when there is no tid) -> index into threads
        self._frame_at = {}             # (function, file, line) as read -> index into frames
        self._child = {}                # (node, frame) -> node

    def add(self, stacks, weight_s):
        """Take one look (a Stacks that has its `at`); weight_s: the time it stands for, since the look before at that process."""
        at = stacks.at
        if self.start is None:
            self.start = at - weight_s
        self.duration_s = max(self.duration_s, at - self.start)
        self.looks += 1
        self.gil_looks += any(thread.owns_gil for thread in stacks.threads)
        self.late += weight_s * self.rate > LATE
        if stacks.pid not in self.processes and len(self.processes) < self._threads:
            self.processes[stacks.pid] = (short(stacks.command, COMMAND_SIZE), short(stacks.python, COMMAND_SIZE))
        for thread in stacks.threads:
            if thread.idle and not self.idle:
                self.idle_seen += 1
            elif self.gil and not thread.owns_gil:
                continue
            elif not self.cpu:
                self._take(stacks.pid, thread, weight_s)
            elif thread.cpu_s is None:
                self.unknown += 1
            elif thread.cpu_s > 0:
                self._take(stacks.pid, thread, thread.cpu_s)

    def _take(self, pid, thread, weight_s):
        owner = self._owner(pid, thread)
        known = self.threads[owner]
        base = known.bases.get((pid, thread.interpreter))
        if base is None:
            base = known.bases[pid, thread.interpreter] = self._base(pid, thread.interpreter, owner)
        self.taken += 1
        if thread.problem is None:
            if known.frames != thread.frames or known.base != base:
                known.leaf = self._leaf(base, thread.frames)
                known.frames, known.base = thread.frames, base
            leaf = known.leaf
        elif thread.problem == MOVING:
            self.moving += 1
            leaf = self._below(base, NOT_READ)
        else:
            self.cut += 1
            top = self._below(base, CUT)
            leaf = self._leaf(top, thread.frames) if thread.frames and top is not None else top
        if leaf is None:
            self.dropped += 1
            leaf = self._below(0, DROPPED)
        self.own_s[leaf] += weight_s
        if len(self.times) == self._samples:
            self.untimed += 1
            return
        self.times.append(self.duration_s)
        self.owners.append(owner)
        self.leaves.append(leaf)
        self.weights.append(weight_s)

    def _owner(self, pid, thread):
        """The index of a thread; 0, OTHER_THREADS, for those past the bound."""
        key = (pid, thread.tid, thread.name if thread.tid is None else None)
        owner = self._thread_at.get(key)
        if owner is None:
            if len(self.threads) > self._threads:
                return 0
            owner = self._thread_at[key] = len(self.threads)
            self.threads.append(Thread(pid, thread.tid, thread.name))
        elif thread.name and self.threads[owner].name != thread.name:       # a name is often told only after the start
            known = self.threads[owner]
            known.name = thread.name
            named = self._frame_at.get(("thread", owner))
            if named is not None:
                self.frames[named] = Key(known.text(), None, None)
        return owner

    def _base(self, pid, interpreter, owner):
        """The node of the outer frames that `by` asks for; None when there is no room."""
        command = self.processes.get(pid, ("",))[0]
        outer = {"process": (("process", pid), f"pid {pid} {command}".rstrip()),
                 "interpreter": (("interpreter", interpreter), f"interpreter {interpreter}"),
                 "thread": (("thread", owner), self.threads[owner].text())}
        node = 0
        for each in self.by:
            name, text = outer[each]
            node = self._step(node, name, Key(text, None, None))
            if node is None:
                return None
        return node

    def _leaf(self, base, frames):
        """The node of frames (innermost first) below a node; None when there is no room."""
        if not frames:
            return self._below(base, EMPTY)
        node = base
        for frame in reversed(frames):
            if node is None:
                return None
            node = self._step(node, frame[:3], None)
        return node

    def _below(self, node, text):
        return None if node is None else self._step(node, text, Key(text, None, None))

    def _step(self, node, name, key):
        """The child of a node, made when there is room; None when there is not.  key: None for a frame as it was read."""
        frame = self._frame_at.get(name)
        if frame is not None:
            child = self._child.get((node, frame))
            if child is not None:
                return child
        if len(self.parent) > self._nodes and name != DROPPED:
            return None
        if frame is None:
            frame = self._frame_at[name] = len(self.frames)
            self.frames.append(key or Key(short(name[0], FUNCTION_SIZE) or "?", short(name[1], FILE_SIZE), name[2]))
        child = self._child[node, frame] = len(self.parent)
        self.parent.append(node)
        self.frame.append(frame)
        self.own_s.append(0.0)
        return child

    def path(self, node):
        """The Keys from the outermost to this node."""
        keys = []
        while node:
            keys.append(self.frames[self.frame[node]])
            node = self.parent[node]
        return keys[::-1]

    def stacks(self):
        """(path, seconds) of every place where time was spent."""
        for node, seconds in enumerate(self.own_s):
            if seconds > 0:
                yield self.path(node), seconds

    def counts(self):
        """{name: number} of all that was counted."""
        return {each: getattr(self, each) for each in ("looks", "gil_looks", "late", "taken", "moving", "cut", "dropped",
                                                       "untimed", "idle_seen", "unknown")}

    def told(self):
        """Lines that say what was recorded and what was not."""
        return [_processes(self.processes), self._how(), self._counted()]

    def _how(self):
        parts = ["CPU time" if self.cpu else "wall time"]
        if self.gil:
            parts.append("only threads that hold the GIL")
        if self.by:
            parts.append("by " + ", ".join(self.by))
        if self.start is not None:
            parts.insert(0, _clock(self.start))
            parts.insert(1, figures.duration(self.duration_s))
        return ", ".join(parts + [f"{figures.counted(self.rate, 'look')} a second"])

    def _counted(self):
        taken, looks = max(self.taken, 1), max(self.looks, 1)
        parts = [figures.counted(self.looks, "look"), figures.counted(self.taken, "sample"), f"GIL held in {figures.percent(self.gil_looks / looks)} of looks",
                 f"moving {self.moving:,} ({self.moving / taken * 100:.1f} %)", f"cut {self.cut:,}", f"late {self.late:,}",
                 f"dropped {self.dropped:,}"]
        for amount, said in ((self.untimed, "without their time"), (self.idle_seen, "of idle threads left out"),
                             (self.unknown, "of unknown CPU time left out")):
            if amount:
                parts.append(f"{amount:,} {said}")
        return ", ".join(parts)


def _processes(processes):
    """`pid 7 python app.py (Python 3.11.7)`, and how many more there are."""
    named = [f"pid {pid} {command} (Python {python})".replace("  ", " ") if python else f"pid {pid} {command}".rstrip()
             for pid, (command, python) in list(processes.items())[:3]]
    more = [f"{len(processes) - 3} more"] if len(processes) > 3 else []
    return ", ".join(named + more) or "no process"


def _clock(wall):
    try:
        return datetime.fromtimestamp(wall).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return figures.UNKNOWN
