"""The state: a fold over datagrams.  It knows neither sockets nor clocks.

    fleet.apply(datagram, sender, now, wall)    # a datagram happened
    fleet.expire(now, wall)                     # time happened
    fleet.answer(pid, answer, now, wall)        # /proc was asked
    cut = fleet.cut(now, wall)                  # what a reader gets: see state.view

The same fold serves the live socket and a replay.  `now` is monotonic seconds, for ages,
windows and retention; `wall` is wall seconds, for display and records.
"""
import struct
from collections import Counter, namedtuple
from heapq import heapify, heappop, heapreplace

from modwsgi_tel.bounded import FairMap, Ring
from modwsgi_tel.errors import WireError
from modwsgi_tel.state.chain import Budget, Chain
from modwsgi_tel.state.inside import Inside, source_name
from modwsgi_tel.state.process import (AGENT, INTERVAL_S, OTHER, REPLACED, REPORTER, RUNNING, STARTED,
                                       STOPPED, STOPPING, TEXT_LENGTH, VANISHED, Process, Trust, Who, makes_process)
from modwsgi_tel.state.sampled import Sampling
from modwsgi_tel.state.series import Series
from modwsgi_tel.state.sequence import DUPLICATE, RESTART
from modwsgi_tel.state.slow import SlowTable
from modwsgi_tel.state.taken import Taken
from modwsgi_tel.state.window import COUNTERS, NO_PAUSES, SLOT_S, SLOW_COMPLETED, SUMS, GroupWindows, Histograms
from modwsgi_tel.wire.buckets import merge
from modwsgi_tel.wire.fields import (AGENT_FLAG, AGENT_NUMBER, GC_EVENT, GC_SNAPSHOT, PRIVATE_KINDS, PROCESS_METRICS, PROCESS_STARTED,
                                     PROCESS_STOPPED, PROCESS_STOPPING, REQUEST_METRICS, SERVER_METRICS, SLOW_REQUEST, kind_name)
from modwsgi_tel.wire.shapes import Shapes

_header = struct.Struct("<5xBHIId").unpack_from     # kind, flags, pid, seq, stamp of a checked datagram
CREDENTIALS = struct.Struct("<iII")     # struct ucred: pid, uid, gid
# What tells of a process as a whole: of an agent only where nobody else does.
_OF_PROCESS = frozenset((REQUEST_METRICS, PROCESS_STARTED, PROCESS_STOPPING, PROCESS_STOPPED))

Limits = namedtuple("Limits", "processes slow samples interpreters groups events keep_bytes plain_bytes slow_bytes slow_s gc_s ended_s silent_s")
Limits.__doc__ = """The bounds: numbers of processes, slow requests, samples per process, interpreters per process, groups and
events; bytes of kept datagrams, of those the ones not packed, and of slow requests; seconds that ended slow requests, records of the garbage collector, ended
processes, and silent processes of which nothing can be known, are kept."""

Answer = namedtuple("Answer", "alive start nspids age_s")
Answer.__doc__ = """What /proc said of a pid: whether there is such a process (a zombie is none; None: could not be told), its start
time in clock ticks since boot or None, its pids in its namespaces, outermost first, or (), its age or None."""

_REMEMBERED_WRONG = 8
_VANISH_WAITS_S = (1.0, 2.0, 5.0, 15.0, 30.0)


class Group:
    """What outlives the processes of a (hostname, process_group): counters and windows.

    `counters`, `histograms` and `pauses` are of all closed slots, since the group is known.
    """

    __slots__ = ("name", "counters", "histograms", "pauses", "windows", "series", "lost", "uncertain", "exceptions", "started",
                 "stopped", "vanished", "reasons", "processes", "slow_lost", "present", "_highest")

    def __init__(self, name):
        self.name = name
        self.counters = [0] * len(SUMS)
        self.histograms = Histograms()
        self.pauses = None                  # collections by GC_BOUNDS, once there are any
        self.windows = GroupWindows()
        self.series = Series()
        self.lost = self.uncertain = 0      # datagrams, of processes that are forgotten
        self.exceptions = 0                 # of these too
        self.started = self.stopped = self.vanished = 0
        self.reasons = Counter()            # shutdown_reason -> processes; bounded by _count_reason
        self.slow_lost = 0
        self.present = frozenset()          # ids of the fields that forgotten processes have sent
        self.processes = {}                 # id -> Process
        self._highest = {}

    def close(self, slot):
        """Add a closed slot to all that is kept for good."""
        self.counters = merge(self.counters, slot.sums)
        self.histograms.merge(slot.histograms)
        if slot.pauses is not None:
            self.pauses = merge(self.pauses or NO_PAUSES, slot.pauses)

    def highest(self, name, amount):
        """The largest amount that this was asked with, by name: a counter out of what can also be taken back, or of seconds,
        which as floats make a little less in another order."""
        amount = self._highest[name] = max(amount, self._highest.get(name, 0))
        return amount


class Fleet:
    """All processes that send to one socket."""

    def __init__(self, limits):
        self.limits = limits
        self.budget = Budget(limits.plain_bytes)
        self.shapes = Shapes()
        self.received = 0
        self.received_bytes = 0
        self.wrong = Counter()              # reason -> datagrams
        self.wrong_last = Ring(_REMEMBERED_WRONG)
        self.kinds = [0] * 256
        self.orphans = 0                    # of a process that is not known, and by their kind do not make one
        self.forgotten = 0                  # processes that had their time
        self.slow = SlowTable(limits.slow, limits.slow_s, limits.slow_bytes)
        self.slow_lost = 0
        self.taken = Taken()                # stacks; off unless whoever has this reads some
        self.sampling = Sampling()          # what the kernel says of the processes, now and then
        self.inside = Inside()              # what agents in the applications tell
        self.stream = None                  # a state.stream.Stream while somebody wants each record
        self.troubled = []                  # processes with active slow requests, and silent ones, at the last `expire`
        self.interpreters_lost = 0          # of processes that are forgotten
        self.events = Ring(limits.events)
        self.groups = FairMap(limits.groups, keep=lambda group: group.processes)
        self.started_wall = None
        self._processes = FairMap(limits.processes, keep=self._useful)
        self._current = {}                  # sender's credentials + header's pid -> Process
        self._starts = {}                   # sender pid -> Trust, for the processes known now
        self._of_sender = {}                # sender pid -> {id: Process}
        self._check = self.shapes.check
        self._now = 0.0

    # --- a datagram happened --------------------------------------------------------

    def apply(self, datagram, sender, now, wall):
        """Fold one datagram in: `sender` is the kernel's struct ucred.  Never raises, whatever the bytes."""
        self.received += 1
        self.received_bytes += len(datagram)
        try:
            shape, number = self._check(datagram)
        except WireError as error:
            self.reject(error.reason, str(error), datagram, sender, wall)
            return
        kind, flags, pid, seq, stamp = _header(datagram)
        self.kinds[kind] += 1
        key = sender + datagram[8:12]
        process = self._current.get(key)
        if process is None:
            if not makes_process(kind):
                self.orphans += 1
                self._without_process(kind, key, pid, sender, shape, datagram, now, wall)
                return
            process = self._add(key, pid, sender, now, wall)
        source, agent = REPORTER, None
        if flags >= AGENT_FLAG:
            source = source_name(flags & AGENT_NUMBER)
            agent = self.inside.meet(self, process, flags & AGENT_NUMBER, now)
        elif kind >= PRIVATE_KINDS:
            source = OTHER
        sequence = process.sources.get(source)
        if sequence is None or not sequence.follows(seq, stamp):
            verdict = process.take_seq(source, seq, stamp, now)
            if verdict == DUPLICATE:
                return                      # it has been folded in already
            if verdict == RESTART and source != REPORTER and (
                    source != AGENT or not process.ended and agent.owner.beside_reporter(process, now)):
                if agent is None:
                    del process.sources[source]
                else:
                    self.inside.begin_again(self, process, agent, now, wall)
                process.take_seq(source, seq, stamp, now)
            elif verdict == RESTART:
                if not makes_process(kind):
                    self.orphans += 1
                    self._without_process(kind, key, pid, sender, shape, datagram, now, wall)
                    return
                process = self._replace(key, process, pid, sender, now, wall)
                process.take_seq(source, seq, stamp, now)
                if agent is not None:
                    agent = self.inside.meet(self, process, agent.number, now)
        process.last_now = now
        process.last_wall = wall
        if process.silent_now is not None and (process.life != VANISHED or makes_process(kind)):
            process.speaks_again(wall)
        if agent is not None and self._inside(kind, key, process, agent, shape, datagram, now, wall):
            kind = PRIVATE_KINDS            # no record of mod_wsgi's, or another one stands for it
        elif kind == REQUEST_METRICS:
            if shape is not process.shape or datagram[shape.identity] != process.identity:
                # a further agent says who the process is as the first one does, or not at all
                if agent is None or not agent.number or process.identity is None or not shape.ids <= process.present:
                    self._identify(process, shape, datagram)
            process.add_tick(shape, datagram, number, now, wall, self._closed)
            if process.life == STARTED:
                process.become(RUNNING, wall)
            elif process.life == STOPPED and process.goes_on(wall):
                self._event("process_restarted", pid, stamp, wall, dict(process.texts), process.who, unseen=True)
        elif kind == GC_SNAPSHOT or kind == GC_EVENT:
            process.add_gc(shape, datagram, kind == GC_SNAPSHOT, now, wall, self.budget, self.limits)
        elif kind == SLOW_REQUEST:
            self.slow_record(key, process, shape, datagram, now, wall)
        elif PROCESS_STARTED <= kind <= PROCESS_STOPPED:
            self._lifecycle(kind, process, pid, stamp, shape, datagram, now, wall)
        elif kind == PROCESS_METRICS or kind == SERVER_METRICS:
            process.chain.append(wall, now, process.who.sender_pid, datagram)
        else:
            self._count_kind(process, kind)
        if self.stream is not None:
            self.stream.record(kind, shape, datagram, wall)
        if self.budget.held > self.limits.keep_bytes:
            self._trim(now, wall)

    def _inside(self, kind, key, process, agent, shape, datagram, now, wall):
        """A datagram of an agent; True unless it is to be folded as mod_wsgi's own would."""
        if kind >= PRIVATE_KINDS:
            self._count_kind(process, kind)
            self.inside.take(self, key, process, agent, shape, datagram, now, wall)
            return True
        if kind in _OF_PROCESS and (agent.owner.beside_reporter(process, now) or agent.number and kind != REQUEST_METRICS):
            agent.owner.dropped += 1
            return True
        return False

    def slow_record(self, key, process, shape, datagram, now, wall):
        """A slow_request of a known process, or an agent's long_request."""
        if self.slow.take(key, process.who, process, shape, datagram, now, wall):
            process.windows.open.sums[SLOW_COMPLETED] += 1
        elif process.ended and process.slow_active:
            self._lose_requests(process, now, wall)         # its last tick may follow process_stopped
        if self.stream is not None:
            self.stream.slow(self.slow.newest, datagram, wall)

    @staticmethod
    def _count_kind(process, kind):
        if kind in process.kinds or len(process.kinds) < 16:
            process.kinds[kind] = process.kinds.get(kind, 0) + 1

    def reject(self, reason, detail, datagram, sender, wall):
        """Count bytes that are no datagram, and keep the last few to look at."""
        pid, uid, _ = CREDENTIALS.unpack(sender)
        self.wrong[reason] += 1
        self.wrong_last.append({"received": wall, "sender_pid": pid, "sender_uid": uid, "reason": reason,
                                "detail": detail, "bytes": len(datagram), "head": datagram[:64].hex()})

    def _without_process(self, kind, key, pid, sender, shape, datagram, now, wall):
        who = Who(*CREDENTIALS.unpack(sender), pid)
        if kind == SLOW_REQUEST:
            self.slow.take(key, who, None, shape, datagram, now, wall)
            if self.stream is not None:
                self.stream.slow(self.slow.newest, datagram, wall)
        elif PROCESS_STARTED <= kind <= PROCESS_STOPPED:
            self._event(kind_name(kind), pid, _header(datagram)[4], wall, shape.fields(datagram), who)

    def _add(self, key, pid, sender, now, wall):
        self._now = now
        who = Who(*CREDENTIALS.unpack(sender), pid)
        process = Process(who, now, wall, self.budget, self.limits)
        if all(held.ended for held in self._of_sender.get(who.sender_pid, {}).values()):
            self._starts.pop(who.sender_pid, None)      # the pid's owner may be another one now
        process.trust = self._starts.get(who.sender_pid, process.trust)
        for gone in self._processes.put(process.id, (who.uid, who.sender_pid), process):
            self._unlink(gone, now)
        self._current[key] = process
        self._of_sender.setdefault(who.sender_pid, {})[process.id] = process
        return process

    def _replace(self, key, old, pid, sender, now, wall):
        """The same pids, but a counter that starts over: another process."""
        if not old.ended:
            old.become(REPLACED, wall)
            self._lose_requests(old, now, wall)
        self._starts.pop(old.who.sender_pid, None)
        return self._add(key, pid, sender, now, wall)

    def _identify(self, process, shape, datagram):
        process.shape = shape
        if datagram[shape.identity] == process.identity and shape.ids <= process.present:
            return
        before, present = self.groups.get(process.group), process.present
        if process.identify(shape, datagram) and before is not None and before.processes.pop(process.id, None) is not None:
            slot = process.windows.close(process.windows.open.index)
            if slot is not None:            # what it did until now stays with the group that it was in
                self._close(before, process, slot)
            before.present |= present
        self._group(process).processes[process.id] = process

    def _group(self, process):
        group = self.groups.get(process.group)
        if group is None:
            group = Group(process.group)
            for gone in self.groups.put(group.name, (process.who.uid, process.who.sender_pid), group):
                for member in gone.processes.values():
                    member.shape = member.identity = None       # its next tick makes its group anew
        return group

    def _closed(self, process, slot):
        self._close(self._group(process), process, slot)

    @staticmethod
    def _close(group, process, slot):
        group.close(slot)
        group.windows.add(slot)
        group.series.add(slot, process.rss())

    def _lifecycle(self, kind, process, pid, stamp, shape, datagram, now, wall):
        fields = shape.fields(datagram)
        if process.identity is None or kind == PROCESS_STARTED:
            self._identify(process, shape, datagram)
        group = self._group(process)
        if kind == PROCESS_STARTED:
            group.started += 1
        elif kind == PROCESS_STOPPING:
            process.stopping = {"reason": fields.get("shutdown_reason", "")[:TEXT_LENGTH],
                                "active": fields.get("active_requests_at_decision")}
            if not process.ended:
                process.become(STOPPING, wall)
        else:
            if not process.ended:
                process.become(STOPPED, wall)
                self._lose_requests(process, now, wall)
            process.stopped = {"reason": fields.get("shutdown_reason", "")[:TEXT_LENGTH],
                               "drained": None if "graceful_drain" not in fields else bool(fields["graceful_drain"]),
                               "active": fields.get("active_requests_at_exit"),
                               "uptime": fields.get("process_uptime"),
                               "requests": fields.get("lifetime_request_count")}
            group.stopped += 1
            self._count_reason(group, process.stopped["reason"])
        self._event(kind_name(kind), pid, stamp, wall, fields, process.who)

    @staticmethod
    def _count_reason(group, reason):
        group.reasons[reason if reason in group.reasons or len(group.reasons) < 16 else "other"] += 1

    def _event(self, kind, pid, stamp, wall, fields, who, **more):
        """One entry of the event log, in the existing collector's shape."""
        event = {
            "kind": kind, "pid": pid, "stamp": stamp, "hostname": fields.get("hostname", "")[:TEXT_LENGTH],
            "process_group": fields.get("process_group", "")[:TEXT_LENGTH],
            "process_parent_pid": fields.get("process_parent_pid", 0),
            "shutdown_reason": fields.get("shutdown_reason", "")[:TEXT_LENGTH], "process_uptime": fields.get("process_uptime", 0.0),
            "lifetime_request_count": fields.get("lifetime_request_count", 0),
            "active_requests_at_decision": fields.get("active_requests_at_decision", 0),
            "active_requests_at_exit": fields.get("active_requests_at_exit", 0),
            "graceful_drain": fields.get("graceful_drain", 0), "received": wall, "sender_pid": who.sender_pid, **more}
        self.events.append(event)
        if self.stream is not None:
            self.stream.event(event)

    # --- time happened ----------------------------------------------------------------

    def expire(self, now, wall):
        """Lives, silences and retentions; call it about once a second."""
        self._now = now
        troubled = []
        for process in self._processes.values():
            process.quiet(now, wall)
            if process.slow_active or process.silent_now is not None:
                troubled.append(process)
            if now - process.last_now > self._kept_s(process):
                self._processes.pop(process.id)
                self._unlink(process, now)
                self.forgotten += 1
            elif process.silent_now is not None:
                slot = process.windows.roll(int(now // SLOT_S))         # no tick will close it
                if slot is not None:
                    self._closed(process, slot)
                for interpreter in process.interpreters.values():
                    interpreter.chain.expire(now, process.last_now)
        self.troubled = troubled
        self.slow.expire(now)
        self.inside.expire(self, now, wall)

    def _kept_s(self, process):
        if process.ended:
            return self.limits.ended_s
        if process.checkable and process.trust.start is not None:
            return float("inf")             # it lives, or /proc will say that it does not
        return self.limits.silent_s

    def stalled(self, seconds):
        """We ourselves did not look for so long: nobody was silent for it."""
        for process in self._processes.values():
            process.last_now += seconds

    def _useful(self, process):
        """Whether another process should go first when there are too many."""
        return not process.ended and process.silent_now is None and self._now - process.last_now < 3 * INTERVAL_S

    def _unlink(self, process, now):
        """A process leaves for good; its group keeps what it counted."""
        slot = process.windows.roll(process.windows.open.index + 1)
        if slot is not None:
            self._closed(process, slot)
        group = self._group(process)
        lost, uncertain = process.losses()
        group.lost += lost
        group.uncertain += uncertain
        if process.agents is not None:
            group.exceptions += process.agents.exceptions
        group.present |= process.present
        self.interpreters_lost += process.interpreters_lost
        group.processes.pop(process.id, None)
        for request in list(process.slow_active.values()):
            request.process = None
        process.discard()
        self.inside.leave(self, process)
        self.taken.forget(process.id)
        members = self._of_sender[process.who.sender_pid]
        del members[process.id]
        if not members:
            del self._of_sender[process.who.sender_pid]
            self._starts.pop(process.who.sender_pid, None)
        key = CREDENTIALS.pack(*process.who[:3]) + struct.pack("<I", process.who.pid)
        if self._current.get(key) is process:
            del self._current[key]

    def _lose_requests(self, process, now, wall):
        lost = self.slow.lose(process, now, wall)
        self.slow_lost += lost
        self._group(process).slow_lost += lost
        return lost

    def _trim(self, now, wall):
        """Kept datagrams passed their bound: the heaviest process, of the heaviest sender of the heaviest user, gives
        up its oldest, until a little more than the bound asks for is free.
        """
        bound = self.limits.keep_bytes
        goal = bound - max(bound // 128, min(bound // 4, 256 << 10))
        held = {}
        for process in self._processes.values():
            who = process.who
            held.setdefault(who.uid, {}).setdefault(who.sender_pid, []).append([-process.bytes_held(), process.id])
        # heaps of [minus bytes, name, heap of what these bytes are made of]
        users = _weighed((uid, _weighed((sender, _heap(rows)) for sender, rows in senders.items()))
                         for uid, senders in held.items())
        while self.budget.held > goal and users:
            user = users[0]
            sender = user[2][0]
            row = sender[2][0]
            process = self._processes.get(row[1])
            chains = (process.chain, *(item.chain for item in process.interpreters.values()))
            freed = max(chains, key=Chain.size_held).drop_oldest(wall, now)
            for heap, entry in ((sender[2], row), (user[2], sender), (users, user)):
                entry[0] += freed
                if not freed and (entry is row or not entry[2]):
                    heappop(heap)
                else:
                    heapreplace(heap, entry)

    # --- /proc was asked --------------------------------------------------------------

    def questions(self, now, most=256):
        """The senders' pids that /proc should be asked about now: new ones, doubtful ones, silent ones."""
        asked = {}
        for process in self._processes.values():
            if len(asked) >= most:
                break
            pid = process.who.sender_pid
            if pid <= 0 or process.ended:
                continue
            if not process.trust.known or process.doubts:
                asked[pid] = None
            elif process.silent_now is not None and process.checkable and (
                    now - process.vanish_checked_now >= process.vanish_wait):
                asked[pid] = None
        return list(asked)

    def answer(self, pid, answer, now, wall):
        """What /proc said of a sender's pid."""
        known = self._starts.get(pid)
        members = self._of_sender.get(pid, {})
        for process in list(members.values()):
            if process.ended:
                continue
            young = False
            if not process.trust.known:
                # one that is younger than our first datagram from it is another one
                young = answer.age_s is not None and answer.age_s + 0.1 < now - process.first_now
                process.trust = known if known is not None else Trust(
                    True, answer.start if answer.alive and not young else None, answer.nspids if not young else ())
                self._starts[pid] = process.trust
            gone = young or answer.alive is False or (
                answer.start is not None and process.trust.start is not None and answer.start != process.trust.start)
            if process.doubts:
                self._settle(process, answer, gone, wall)
                gone = gone and process.silent_now is not None
            if process.silent_now is not None:
                waits = [wait for wait in _VANISH_WAITS_S if wait > process.vanish_wait]
                process.vanish_checked_now, process.vanish_wait = now, waits[0] if waits else _VANISH_WAITS_S[-1]
                if gone and process.checkable:
                    self._vanish(process, now, wall)
        if all(process.ended for process in members.values()):
            self._starts.pop(pid, None)

    def _settle(self, process, answer, gone, wall):
        """A gap after a pause: loss, or another process under the same pid."""
        process.doubts = 0
        if not process.checkable or answer.start is None or process.trust.start is None:
            return                          # it stays uncertain
        for sequence in process.sources.values():
            if gone and sequence.uncertain:
                sequence.forgive(sequence.uncertain)
                process.restarts += 1
            sequence.uncertain = 0
        if gone:
            process.trust = Trust(True, answer.start, answer.nspids)
            self._starts[process.who.sender_pid] = process.trust
            self._event("process_restarted", process.pid, wall, wall, dict(process.texts), process.who, unseen=True)

    def _vanish(self, process, now, wall):
        process.become(VANISHED, wall)
        lost = self._lose_requests(process, now, wall)
        group = self._group(process)
        group.vanished += 1
        self._event("process_vanished", process.pid, wall, wall, dict(process.texts), process.who, lost_requests=lost,
                    last_seen=process.last_wall)

    # --- for readers --------------------------------------------------------------------

    def processes(self):
        """All processes that are kept, in order of their first datagram."""
        return self._processes.values()

    def process(self, process_id):
        return self._processes.get(process_id)

    def of_sender(self, pid):
        """All that are kept of what this pid sends, as the kernel says."""
        return list(self._of_sender.get(pid, {}).values())

    @property
    def decode_errors(self):
        return sum(self.wrong.values())

    @property
    def evicted(self):
        return self._processes.evicted

    def counters(self, group):
        """{name: count} of a group since the collector runs, of forgotten processes too."""
        sums = list(map(sum, zip(group.counters, *(process.windows.open.sums for process in group.processes.values()))))
        return {name: sums[place] for name, place in COUNTERS.items()}


def _heap(entries):
    heap = list(entries)
    heapify(heap)
    return heap


def _weighed(named):
    """A heap of [weight, name, heap] of (name, heap): the weight is that of what the heap holds."""
    return _heap([sum(part[0] for part in heap), name, heap] for name, heap in named)
