"""Who waits for which lock, and who has it: out of memory, the kernel's word and the source.

An RLock knows its owner.  A plain lock does not: who has it is the one inside of a block that takes it (`holders`).  Two names
are the same lock where they are the same object (`held`); the source alone (`spans`) never proves that.
"""
import os
import re
from collections import namedtuple

from modwsgi_tel.proc import procfs
from modwsgi_tel.proc.access import parse_status
from modwsgi_tel.stacks.held import ENTER, EXIT, waits_on
from modwsgi_tel.stacks.holders import GLOBAL, OBJECT, OWNER, SOURCE, Holders, said
from modwsgi_tel.stacks.model import UNKNOWN, WAITING
from modwsgi_tel.stacks.seen import LIBRARY, Seen, in_threading, short_name, where

LockWait = namedtuple("LockWait", "tid place function lock kind owner_tid how address proof owner_place block timed steady",
                      defaults=(None, None, None, None, None, None))
LockWait.__doc__ = """What one thread waits for.

tid: its own.  place: "file:line" of the innermost frame outside of Python's own library.  function: that frame's.
lock: what it waits for, as the source writes it, "" where that is not known.
kind: lock, rlock, condition, queue, event, join, semaphore, sleep, socket, subprocess or file lock.
owner_tid: the thread that has it, or that is joined; None where that is not known.  how: why that one, in words; "" without.
address: of the lock object, or None.  proof: of holders, OWNER to SOURCE; None without an owner.
owner_place: "file:line" where the owner is now.  block: "file:line" where it has taken it.
timed: whether it waits for a limited time, None where that is not known.  steady: for threads that wait for one another,
whether all of them were seen asleep at one moment; else None."""

# Functions that wait on behalf of who called them, by the end of their file's name; None: any function of it.
_WAITERS = (
    ("/threading.py", ("wait", "wait_for", "acquire", "__enter__", "join", "_wait_for_tstate_lock", "start", "_wait", "_enter",
                       "_acquire_restore"), None),
    ("/queue.py", ("get", "put", "join"), "queue"),
    ("/concurrent/futures/_base.py", ("result", "exception", "wait", "as_completed", "result_iterator", "_result_or_cancel"),
     "condition"),
    ("/multiprocessing/queues.py", ("get", "put"), "queue"),
    ("/multiprocessing/synchronize.py", ("__enter__", "acquire"), "lock"),
    ("/multiprocessing/pool.py", ("get", "wait", "map", "apply"), "condition"),
    ("/multiprocessing/connection.py", None, "socket"),
    ("/subprocess.py", None, "subprocess"),
    ("/socket.py", None, "socket"),
    ("/ssl.py", None, "socket"),
    ("/selectors.py", None, "socket"),
)
_OF_THREADING = {"acquire": "semaphore", "join": "join", "_wait_for_tstate_lock": "join", "start": "event"}
# By the system call that it is in
_CALLS = {**dict.fromkeys(("nanosleep", "clock_nanosleep"), "sleep"), **dict.fromkeys(("flock", "fcntl"), "file lock"),
          **dict.fromkeys(("wait4", "waitid"), "subprocess"),
          **dict.fromkeys(("recvfrom", "recvmsg", "sendto", "sendmsg", "connect", "accept", "accept4", "poll", "ppoll", "select",
                           "pselect6", "epoll_wait", "epoll_pwait"), "socket")}
# Methods that wait, by kind; functions that do
_METHODS = {"lock": ("acquire", "acquire_lock", "__enter__"),
            "condition": ("wait", "wait_for", "result", "exception", "get", "map", "apply"),
            "queue": ("get", "put", "join"), "event": ("wait", "start"), "join": ("join",), "semaphore": ("acquire",)}
_FUNCTIONS = {"sleep": ("sleep",), "file lock": ("flock", "lockf")}
_LOCKS = ("lock", "rlock")
_NAMED_SO = re.compile(r"lock|mutex|mtx|cond|sem", re.IGNORECASE)
_AGENT = re.compile(r", for (\w+)(?: that (request|thread) (\S+) has)?$")       # agent.waits.said

_Futex = namedtuple("_Futex", "address timed")


def of(stacks, sources, reader=None, root="/proc"):
    """[LockWait] of the threads of a Stacks that wait, the lowest tid first; idle ones and those that run are left out.

    sources: sources.Sources of its files.  reader: the reader.Reader that has just looked; without it, as for what an agent
    told, locks are matched by their source alone.  Raises nothing for what cannot be read: then less is told.
    """
    return _Look(stacks, sources, reader, root).waits()


def cycles(waits):
    """[[LockWait, ...]] of threads that wait for one another for good, each for the next and the last for the first.

    A thread that waits for itself is a list of one.  Left out: where the time is limited, where only the same text in the
    source says that it is the same lock, and where not all were asleep at one moment.
    """
    edges = {wait.tid: wait for wait in waits if wait.owner_tid is not None and not wait.timed and wait.proof != SOURCE and
             wait.steady is not False and wait.tid is not None}
    found, done = [], set()
    for start in sorted(edges):
        way, tid = [], start
        while tid in edges and tid not in done:
            done.add(tid)
            way.append(tid)
            tid = edges[tid].owner_tid
        if tid in way:
            found.append([edges[each] for each in way[way.index(tid):]])
    return found


def steady(earlier, later):
    """Those of the later LockWaits that the same threads were in before: at the same place, for the same lock of the same owner."""
    def same(wait):
        return (wait.tid, wait.place, wait.kind, wait.lock, wait.address, wait.owner_tid)
    before = set(map(same, earlier))
    return [wait for wait in later if same(wait) in before]


class _Look:
    def __init__(self, stacks, sources, reader, root):
        self._held = None if reader is None else reader.held()
        self._seen = Seen(stacks, sources, self._held)
        self._root = root
        self._futexes = {}              # {tid: _Futex} as it was when the lock was found

    def waits(self):
        threads = sorted(self._seen.threads, key=lambda each: each.tid or 0)
        found = [(wait, thread) for wait, thread in zip(map(self._wait, threads), threads) if wait is not None]
        holders = Holders(self._seen, {(wait.tid, wait.address) for wait, _ in found if wait.address is not None})
        waits = [self._owned(wait, thread, holders) for wait, thread in found]
        asleep = {wait.tid: self._asleep(ring) for ring in cycles(waits) for wait in ring} if self._held is not None else {}
        return [wait._replace(steady=asleep.get(wait.tid)) for wait in waits]

    # --- what a thread waits for ----------------------------------------------------------------------

    def _wait(self, thread):
        if thread.idle or thread.state not in (WAITING, UNKNOWN):
            return None
        futex = self._futex(thread.tid)
        if futex is not None and futex.address is not None and self._held.of_gil(futex.address):
            return None                 # it runs, as soon as it is its turn
        inner = _inner(thread.frames)
        call = min(inner, len(thread.frames) - 1)
        place = next((at for at in range(call, len(thread.frames)) if not LIBRARY.search(thread.frames[at].file)), call)
        kind, within = self._kind(thread, inner)
        if kind is None or kind in _LOCKS and futex == _Futex(None, None):
            return None
        text, address = "", None
        if kind in _LOCKS:
            lock, text, surely = self._lock(thread, within, call, futex)
            if lock is not None:
                if not lock.locked or lock.kind == "rlock" and self._tid(lock.owner) == thread.tid:
                    return None         # it has got it meanwhile
                if not self._held.still(thread.tid):
                    return None         # what was read of it may be of two moments
                kind, address = lock.kind, lock.address
                self._futexes[thread.tid] = futex
            elif inner == 0 and surely != "lock":
                if not surely:
                    return None
                kind = surely
        else:
            text = self._written(thread.frames[call], kind)
        at = thread.frames[place]
        return LockWait(thread.tid, where(at), at.function, text, kind, None, "", address,
                        timed=None if futex is None else futex.timed)

    def _kind(self, thread, inner):
        """(kind or None, place of the frame in which a lock is taken)."""
        frames, call = thread.frames, _call(thread.wait)
        if not inner:
            if call == "futex" or call is None and thread.wait is None:
                return "lock", 0
            if call in ("select", "pselect6", "poll") and self._written(frames[0], "sleep").endswith("sleep"):
                return "sleep", 0
            return _CALLS.get(call), 0
        first, name = frames[0], short_name(frames[0])
        if in_threading(first):
            if name in ("__enter__", "_acquire_restore") or inner == 1 and name == "acquire":
                return "lock", 0        # of a Condition, or an RLock in Python
            if name == "wait" and "_acquire_restore" in self._seen.line(first):
                return "lock", 0        # notified, wants the lock of its Condition again
        outer = frames[inner - 1]
        kind = next(kind for end, _, kind in _WAITERS if outer.file.endswith(end))
        if kind is None:
            names = [short_name(each) for each in frames[:inner]]
            kind = _OF_THREADING.get(names[-1])
            if kind is None:            # an Event waits by way of a Condition's wait
                kind = "condition" if names.count("wait") == 1 or {"_wait", "_enter", "wait_for"} & set(names) else "event"
        return kind, inner - 1

    # --- which lock -------------------------------------------------------------------------------------

    def _lock(self, thread, within, call, futex):
        """(held.Lock or None, its text, the kind that the source alone speaks for, or None).

        within: the place of the frame that takes it; call: of that which wants it.
        """
        frame = thread.frames[call]
        spans = self._seen.spans(frame.file)
        calls = spans.calls(frame.function, frame.line)
        taken = [each for each in calls if each.method in (*_METHODS["lock"], "wait", "wait_for")]
        named = [(each.text, each.node) for each in [*spans.entered(frame.function, frame.line), *taken]]
        text = named[0][0] if len({told for told, _ in named}) == 1 else ""
        held, raws = self._held, self._seen.raws(thread)
        surely = "lock" if _AGENT.search(thread.wait or "") or _NAMED_SO.search(text) else None
        if not raws:
            return None, text, surely
        if any(each.method == "acquire" for each in taken):
            surely = "lock"
        elif surely is None and not named:
            queue = next((each for each in calls if each.method in _METHODS["queue"]), None)
            text, surely = (queue.text, "queue") if queue is not None else (text, None)
        known = [(told, held.lock(held.value(raws[call], node))) for told, node in named]
        if call:                        # a method of threading takes it
            of = held.local(raws[within], "self")
            lock = held.lock(of) if of else None
        else:
            inside = spans.inside(frame.function, frame.line)
            likely = bool(named) or spans.scope(frame.function, frame.line) is None
            lock = _waited([each for _, each in known if each], self._seen.kept(raws[0]), len(inside), futex, likely)
        return lock, next((told for told, each in known if lock and each and each.address == lock.address), text), surely

    def _written(self, frame, kind):
        """What is called on a frame's line, as it is written: X of X.wait() where that is a method of this kind, else all of it."""
        calls = self._seen.spans(frame.file).calls(frame.function, frame.line)
        wanted = next((each for each in calls if each.method in _METHODS.get(kind, ())), None)
        if wanted is not None:
            return wanted.text
        named = [each.whole for each in calls if each.whole.rpartition(".")[2] in _FUNCTIONS.get(kind, ())]
        entered = [each.text for each in self._seen.spans(frame.file).entered(frame.function, frame.line)]
        return (named or (entered if kind in _METHODS else ()) or [each.whole for each in calls] or [""])[0]

    # --- who has it -------------------------------------------------------------------------------------

    def _owned(self, wait, thread, holders):
        """The LockWait with who has what it waits for, as far as that is known."""
        if wait.kind == "join":
            tid = self._joined(thread)
            return wait if tid is None else wait._replace(owner_tid=tid, how="has to end first", proof=OWNER,
                                                          owner_place=self._seen.place_of(tid))
        if wait.kind not in _LOCKS:
            return wait
        if wait.address is None:
            return self._told(wait, thread) or self._by_text(wait, thread, holders)
        lock = self._held.lock(wait.address)
        holds = holders.of(wait.address, self._through(thread))
        if lock is not None and lock.kind == "rlock":
            tid = self._tid(lock.owner)
            hold = next((each for each in holds if each.tid == tid), None)
            if tid is None:
                return wait._replace(how="the thread that owns it is not there: it may have ended" if lock.owner else
                                     "nobody owns it any more")
            return wait._replace(owner_tid=tid, how="owns it" + (f", {said(hold)}" if hold else ""), proof=OWNER,
                                 owner_place=hold.place if hold else self._seen.place_of(tid), block=hold.block if hold else None)
        best = [each for each in holds if each.proof == OBJECT] or holds
        if len({each.tid for each in best}) != 1:
            return wait._replace(how="several threads seem to have it" if best else
                                 "it is taken, but no thread is seen inside of a block that takes it")
        return _held_by(wait, best[0])

    def _through(self, thread):
        """The address of the object of whose `__enter__` a thread waits for its lock, or 0."""
        for frame, raw in list(zip(thread.frames, self._seen.raws(thread)))[_inner(thread.frames):][:1]:
            return self._held.first(raw) if short_name(frame) == "__enter__" else 0
        return 0

    def _joined(self, thread):
        for frame, raw in zip(thread.frames, self._seen.raws(thread)):
            if short_name(frame) == "join" and in_threading(frame):
                number = self._held.attributes(self._held.local(raw, "self")).get("_ident")
                return self._tid(self._held.number(number)) if number else None
        return None

    def _told(self, wait, thread):
        """The LockWait with the owner that an agent has told, or None."""
        told = _AGENT.search(thread.wait or "")
        if told is None:
            return None
        kind, of, which = told.groups()
        tids = [each.tid for each in self._seen.threads if (str(each.tid) if of == "thread" else
                                                            each.request and each.request.request_id) == which] if of else []
        if len(tids) != 1 or kind not in _LOCKS:
            return None
        return wait._replace(kind=kind, owner_tid=tids[0], how="owns it", proof=OWNER, owner_place=self._seen.place_of(tids[0]))

    def _by_text(self, wait, thread, holders):
        found = holders.by_text(wait.tid, thread.frames[_inner(thread.frames)], wait.lock) if wait.lock else []
        if len(found) != 1:
            return wait
        held = _held_by(wait, found[0])
        return held if held.proof == GLOBAL else held._replace(how=f"{held.how}; likely: the source has the same name there")

    def _tid(self, ident):
        return self._held.tid(ident) if ident else None

    # --- the kernel's word ----------------------------------------------------------------------

    def _futex(self, tid):
        """The _Futex that a thread waits for, with Nones where it is in another call; None where that is not told.

        Source: proc(5), syscall; futex(2).
        """
        if tid is None or self._held is None:
            return None
        try:
            words = procfs.read(f"{self._root}/{self._seen.pid}/task/{tid}/syscall", 256).split()
            return _Futex(int(words[1], 16), bool(int(words[4], 16))) if words[0] in _FUTEX else _Futex(None, None)
        except (OSError, ValueError, IndexError):
            return None

    def _asleep(self, ring):
        """Whether all threads of a ring sleep, have slept all along, and stand where they stood: at one moment, then."""
        before = [self._sleeps(wait.tid) for wait in ring]
        if None in before or not all(self._held.still(wait.tid) for wait in ring):
            return False
        for wait in ring:
            if self._futex(wait.tid) != self._futexes.get(wait.tid, self._futex(wait.tid)):
                return False
            lock = wait.address and self._held.lock(wait.address)
            if wait.address and (lock is None or not lock.locked or lock.kind == "rlock" and self._tid(lock.owner) != wait.owner_tid):
                return False
        return before == [self._sleeps(wait.tid) for wait in ring]

    def _sleeps(self, tid):
        """How often a thread that sleeps now has gone to sleep; None for one that does not, or of which that is not known."""
        try:
            status = parse_status(procfs.read(f"{self._root}/{self._seen.pid}/task/{tid}/status", 65536))
            return int(status[b"voluntary_ctxt_switches"]) if status[b"State"][:1] == b"S" else None
        except (OSError, ValueError, KeyError):
            return None

_FUTEX = {"x86_64": (b"202",), "aarch64": (b"98",)}.get(os.uname().machine, ())


def _waited(named, kept, entered, futex, likely):
    """The held.Lock that a frame waits for, or None.

    named: those that the names on its line stand for.  kept: _Kept of its own stack.  entered: of how many `with` it is
    inside: their ends come first.  likely: whether its line takes a lock, as far as that is known.
    """
    exits = [at for at, each in enumerate(kept) if each.role == EXIT]
    first = exits[entered - 1] + 1 if 0 < entered <= len(exits) else 0
    later = [each for each in kept[first:] if each.lock is not None]
    if futex is not None:
        told = [(lock, waits_on(lock, futex.address)) for lock in (
            *named, *(each.lock for each in later), *(each.lock for each in kept if each.lock is not None))]
        exact = next((lock for lock, same in told if same), None)
        if exact is not None or any(same is False for _, same in told):
            return exact
    if not likely:
        return None
    entering = [each.lock for each in later if each.role == ENTER]
    there = {each.lock.address for each in later}
    found = entering[-1:] or [lock for lock in named if lock.address in there] or [each.lock for each in later] or named
    return next((lock for lock in found if lock.locked), None)


def _inner(frames):
    """How many of the innermost frames wait on behalf of who called them."""
    for at, frame in enumerate(frames):
        if not LIBRARY.search(frame.file) or not any(frame.file.endswith(end) and (names is None or short_name(frame) in names)
                                                      for end, names, _ in _WAITERS):
            return at
    return max(0, len(frames) - 1)


def _call(wait):
    """The name of the system call in a ThreadStack's wait, or None: "futex" also where only the kernel's function is told."""
    if not wait:
        return None
    first = wait.split(None, 1)[0].rstrip(",")
    return "futex" if "futex" in wait else first


def _held_by(wait, hold):
    return wait._replace(owner_tid=hold.tid, how=said(hold), proof=hold.proof, owner_place=hold.place, block=hold.block)
