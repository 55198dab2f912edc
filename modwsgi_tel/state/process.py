"""One process as its datagrams tell it: identity, life, loss, windows, and its raw records."""
import itertools
from bisect import bisect_left
from collections import OrderedDict, namedtuple

from modwsgi_tel.state.chain import SMALL_BLOCK_BYTES, Chain
from modwsgi_tel.state.sequence import Sequence
from modwsgi_tel.state.window import (GC_BOUNDS, GC_DROPPED, GC_PAUSES, GC_PEAK, GC_SECONDS, NO_PAUSES, PERIOD_ID, SLOT_S,
                                      ProcessWindows)
from modwsgi_tel.wire.fields import KINDS, PRIVATE_KINDS
from modwsgi_tel.wire.shapes import Wanted

# How a life goes.  A process is in exactly one of these; ENDED ones stay a while to be seen.
STARTED, RUNNING, SILENT, STOPPING, STOPPED, VANISHED, REPLACED = LIVES = (
    "started", "running", "silent", "stopping", "stopped", "vanished", "replaced")
ENDED = frozenset((STOPPED, VANISHED, REPLACED))

SILENT_AFTER_S = 3.0                    # and three intervals
SILENT_INTERVALS = 3
TICKS_BEHIND = 2                        # ticks that may follow process_stopped
INTERVAL_S = 1.0                        # until a tick says how long it is

# The newest datagrams are kept apart, outside of the byte bound of all: larger ones than any sender has are not.
NEWEST_BYTES = 32 << 10
IDENTITY_BYTES = 4 << 10
TEXT_LENGTH = 255                       # of a name that is kept; mod_wsgi cuts its own at 127 bytes
SNAPSHOT_BYTES = 1 << 10

# Several counters may speak for one process: mod_wsgi's reporter, and agents inside the application, the others by their numbers.
REPORTER, AGENT, OTHER = "reporter", "agent", "other"

Who = namedtuple("Who", "sender_pid uid gid pid")
Who.__doc__ = "Whose datagrams: the sender's pid, uid and gid from the kernel, and the pid that the header claims."

Trust = namedtuple("Trust", "known start nspids")
Trust.__doc__ = """What /proc said of the sender: whether it was asked, the start time (clock ticks since boot, None when it
could not be read) and the pids of the sender in its namespaces, outermost first."""

_ids = itertools.count(1)
# Processes of one server send the same fields: one set for all of them is quickly added up over a group.
_PRESENT, _PRESENT_MOST = {}, 256
_MEMORY = Wanted((40, 41))              # memory_rss, memory_max_rss
_GC_EVENT = Wanted((321, 322))          # gc_event_duration, gc_event_generation
_GC_SNAPSHOT = Wanted((317, 315))       # gc_dropped_events, gc_is_enabled
_GC_NAME = Wanted((8, 317))             # interpreter_name, gc_dropped_events
_IDENTITY_TEXTS = ("hostname", "process_group", "mod_wsgi_version", "python_version", "apache_version", "mpm_name")


class Interpreter:
    """The garbage collector's records of one interpreter; `snapshot` is the newest (shape, datagram)."""

    __slots__ = ("chain", "snapshot")

    def __init__(self, chain):
        self.chain = chain
        self.snapshot = None


class Process:
    """All that is known of one process; `id` is unique for the life of the collector.

    Times named *_now are monotonic seconds, *_wall wall seconds, both of receipt.
    """

    __slots__ = ("id", "who", "identity", "texts", "parent_pid", "chain", "interpreters", "interpreters_lost", "sources", "agents",
                 "windows", "interval", "first_now", "first_wall", "last_now", "last_wall", "tick", "ticks", "life",
                 "life_wall", "stopping", "stopped", "silent_now", "trust", "vanish_checked_now", "slow_active",
                 "doubts", "restarts", "kinds", "odd", "switch_interval", "present", "group", "vanish_wait", "ticks_behind", "shape",
                 "kernel")

    def __init__(self, who, now, wall, budget, limits):
        self.id = next(_ids)
        self.who = who
        self.identity = None                # raw bytes of the identity fields, to see that they have not changed
        self.texts = dict.fromkeys(_IDENTITY_TEXTS, "")
        self.parent_pid = 0
        self.chain = Chain(budget, limits.samples)
        self.interpreters = OrderedDict()   # name -> Interpreter
        self.interpreters_lost = 0
        self.sources = {}                   # REPORTER, AGENT, f"{AGENT} {number}" or OTHER -> Sequence
        self.agents = None                  # inside.Agents, once one speaks
        self.windows = ProcessWindows(now)
        self.interval = INTERVAL_S
        self.first_now = self.last_now = now
        self.first_wall = self.last_wall = wall
        self.tick = None                    # the newest request_metrics: (now, shape, datagram, whether it fits the lanes)
        self.ticks = 0
        self.life = STARTED
        self.life_wall = wall
        self.stopping = None                # {"reason", "active"} once it said so
        self.stopped = None
        self.silent_now = None              # since when, while it is silent
        self.trust = Trust(False, None, ())
        self.vanish_checked_now = 0.0
        self.vanish_wait = 0.0
        self.ticks_behind = 0               # since it said that it had stopped
        self.slow_active = {}
        self.doubts = 0                     # datagrams whose loss hangs on an answer about the start time
        self.restarts = 0                   # that nobody saw: known by the start time alone
        self.kinds = {}
        self.odd = 0
        self.switch_interval = 0.0
        self.present = frozenset()          # ids of all fields that its ticks have had
        self.shape = None                   # of the tick that `identity` was last compared with
        self.group = ("", "")
        self.kernel = None                  # a sampled.Kernel, once /proc was asked

    # --- identity -----------------------------------------------------------------

    @property
    def pid(self):
        return self.who.pid

    @property
    def checkable(self):
        """Whether /proc can speak of it: the header's pid is the sender's, outside or inside its namespace."""
        return self.who.sender_pid > 0 and (
            self.who.pid == self.who.sender_pid or (bool(self.trust.nspids) and self.trust.nspids[-1] == self.who.pid))

    @property
    def role(self):
        """`daemon`, or without a process group `embedded`; `apache-child` when that has served nothing yet."""
        if self.texts["process_group"]:
            return "daemon"
        return "embedded" if self.counter(2) else "apache-child"

    def identify(self, shape, datagram):
        """Take over the identity fields; True when the group is another than before."""
        identity = datagram[shape.identity]
        self.identity = identity if len(identity) <= IDENTITY_BYTES else b""
        fields = shape.fields(datagram)
        for name in _IDENTITY_TEXTS:
            if name in fields:
                self.texts[name] = fields[name][:TEXT_LENGTH]
        self.parent_pid = fields.get("process_parent_pid", self.parent_pid)
        self.interval = _sane(fields.get("telemetry_interval"), self.interval)
        self.switch_interval = _sane(fields.get("switch_interval"), self.switch_interval)
        self.present = _PRESENT.setdefault(self.present | shape.ids, self.present | shape.ids)
        if len(_PRESENT) > _PRESENT_MOST:
            _PRESENT.clear()
        group = (self.texts["hostname"], self.texts["process_group"])
        changed = group != self.group
        self.group = group
        return changed

    # --- datagrams ------------------------------------------------------------------

    def take_seq(self, source, seq, stamp, now):
        """Count a sequence number; what Sequence.take says of it."""
        sequence = self.sources.get(source)
        if sequence is None:
            self.sources[source] = Sequence(seq, stamp)
            return "new"
        lost = sequence.lost
        verdict = sequence.take(seq, stamp)
        if sequence.lost > lost and now - self.last_now > 2 * self.interval:
            # long enough for another process to have counted past the old one unseen
            sequence.uncertain += sequence.lost - lost
            self.doubts += 1
        return verdict

    def add_tick(self, shape, datagram, number, now, wall, closed):
        """A request_metrics datagram; `closed(slot)` is called with a slot that this one ends.

        One without sample_period is of a further agent of the process: it adds what that counted, and tells nothing of the
        whole process.
        """
        index = int(now // SLOT_S)
        windows = self.windows
        if windows.open.index != index:
            slot = windows.roll(index)
            if slot is not None:
                closed(self, slot)
        whole = PERIOD_ID in shape.ids
        if not windows.open.tick(shape, datagram, number):
            self.odd += 1
        elif whole:
            windows.open.ended = now
        self.chain.append(wall, now, self.who.sender_pid, datagram)
        if not whole and self.tick is not None and PERIOD_ID in self.tick[1].ids:
            return
        # not the integer itself: it would hold three kilobytes of each process, and is quickly made again
        self.tick = (now, shape, datagram, number is not None) if len(datagram) <= NEWEST_BYTES else None
        self.ticks += 1

    def interpreter(self, name, budget, limits):
        found = self.interpreters.get(name)
        if found is None:
            if len(self.interpreters) >= limits.interpreters:
                _, oldest = self.interpreters.popitem(last=False)
                oldest.chain.discard()
                self.interpreters_lost += 1
            found = self.interpreters[name] = Interpreter(
                Chain(budget, limits.samples, limits.gc_s, SMALL_BLOCK_BYTES))
        return found

    def add_gc(self, shape, datagram, snapshot, now, wall, budget, limits):
        """A gc_snapshot or gc_event datagram of the interpreter that it names."""
        name = shape.read(_GC_NAME, datagram)[0] if 8 in shape.ids else b""
        interpreter = self.interpreter(name, budget, limits)
        sums = self.windows.open.sums
        if snapshot:
            interpreter.snapshot = (shape, datagram) if len(datagram) <= SNAPSHOT_BYTES else None
            if 317 in shape.ids:
                dropped = shape.read(_GC_SNAPSHOT, datagram)[0]
                if dropped < 1 << 50:
                    sums[GC_DROPPED] += dropped
        else:
            seconds, _ = shape.read(_GC_EVENT, datagram)
            if 0 <= seconds < 1e9:
                sums[GC_PAUSES] += 1
                sums[GC_SECONDS] += seconds
                if self.windows.open.pauses is None:
                    self.windows.open.pauses = list(NO_PAUSES)
                self.windows.open.pauses[bisect_left(GC_BOUNDS, seconds)] += 1
                if seconds > self.windows.open.peaks[GC_PEAK]:
                    self.windows.open.peaks[GC_PEAK] = seconds
            else:
                self.odd += 1
        interpreter.chain.append(wall, now, self.who.sender_pid, datagram, snapshot)

    # --- life -------------------------------------------------------------------------

    @property
    def ended(self):
        return self.life in ENDED

    def become(self, life, wall):
        if life != self.life:
            self.life = life
            self.life_wall = wall

    def speaks_again(self, wall):
        """A datagram came while it was silent."""
        self.silent_now = None
        self.vanish_wait = 0.0
        if self.life in (SILENT, VANISHED):
            self.become(STOPPING if self.stopping else RUNNING if self.ticks else STARTED, wall)

    def goes_on(self, wall):
        """A tick came of a process that said it had stopped; True when it is plainly another one under its pid.

        The last tick can follow `process_stopped`, so it takes TICKS_BEHIND more to tell.
        """
        self.ticks_behind += 1
        if self.ticks_behind <= TICKS_BEHIND:
            return False
        self.stopping = self.stopped = None
        self.ticks_behind = 0
        self.restarts += 1
        self.become(RUNNING, wall)
        return True

    def silence_limit(self):
        return max(SILENT_AFTER_S, SILENT_INTERVALS * self.interval)

    def quiet(self, now, wall):
        """Time passed; True when it has just fallen silent."""
        if self.silent_now is not None or self.ended or now - self.last_now <= self.silence_limit():
            return False
        self.silent_now = self.last_now
        if self.life in (STARTED, RUNNING):
            self.become(SILENT, wall)
        return True

    # --- figures ----------------------------------------------------------------------

    def counter(self, place):
        """One of window.SUMS over all the time it is known."""
        return self.windows.total[place] + self.windows.open.sums[place]

    def lost(self):
        return self.losses()[0]

    def rss(self):
        """Bytes, as its newest tick says; 0 when it does not."""
        return self.tick[1].read(_MEMORY, self.tick[2])[0] if self.tick is not None else 0

    def losses(self):
        """(datagrams lost, those of them that may have been an unseen restart instead)."""
        lost = uncertain = 0
        if self.agents is not None:
            lost = self.agents.lost
        for sequence in self.sources.values():
            lost += sequence.lost
            uncertain += sequence.uncertain
        return lost, uncertain

    def discard(self):
        self.chain.discard()
        for interpreter in self.interpreters.values():
            interpreter.chain.discard()

    def bytes_held(self):
        return self.chain.size_held() + sum(item.chain.size_held() for item in self.interpreters.values())


def makes_process(kind):
    """Whether a datagram of this kind proves that a process lives: what comes once a tick, or at the start.

    A late `process_stopping`, `process_stopped` or `slow_request` does not.
    """
    return kind >= PRIVATE_KINDS or KINDS.get(kind) not in ("process_stopping", "process_stopped", "slow_request", None)


def _sane(value, otherwise):
    return value if isinstance(value, float) and 0 < value < 86400 else otherwise


