"""The existing collector's state, folded into a Fleet of ours: so that every face can show either collector.

    peer = PeerState(limits)
    peer.take(answer, now, wall)        # its /api/state, asked again and again
    summary(peer.fleet, now, wall)      # see state.view

Its answer holds the whole history each time.  What is new since the last one is made into
datagrams again, and those go the way of all datagrams, in the order of their stamps.
Source: GET /api/state of mod_wsgi-telemetry 1.1.0.
"""
import struct
from collections import OrderedDict, namedtuple
from operator import itemgetter

from modwsgi_tel.errors import Nonsense
from modwsgi_tel.state.fleet import CREDENTIALS, Fleet
from modwsgi_tel.state.slow import ENTRY
from modwsgi_tel.wire.buckets import BUCKETS as BUCKET_COUNT
from modwsgi_tel.wire.codec import encode
from modwsgi_tel.wire.fields import (BUCKETS, BY_NAME, FIELDS, GC_EVENT, GC_SNAPSHOT, KINDS, MAX_DATAGRAM,
                                     PROCESS_STARTED, PROCESS_STOPPED, PROCESS_STOPPING, REQUEST_METRICS, SLOW_REQUEST,
                                     TEXT)

YEARS_S = 10 * 365.25 * 86400           # a stamp further from our clock than this is none
LARGEST = 8 * MAX_DATAGRAM              # bytes of a datagram; mod_wsgi's own are an eighth of it
EVENTS_A_SAMPLE = 64                    # gc_events of a process for each sample that is kept: what a tick can have

_HOST = "hostname"
_TICKS = {"request_metrics": REQUEST_METRICS}
_LIFE = {KINDS[kind]: kind for kind in (PROCESS_STARTED, PROCESS_STOPPING, PROCESS_STOPPED)}
_LIFE_FIELDS = {kind: tuple(field.name for field in FIELDS if kind in field.kinds) for kind in _LIFE.values()}
# Of one tick: what makes a process known comes first, what ends it last.
_RANK = {kind: rank for rank, kind in enumerate(
    (PROCESS_STARTED, REQUEST_METRICS, SLOW_REQUEST, GC_SNAPSHOT, GC_EVENT, PROCESS_STOPPING, PROCESS_STOPPED))}
# What a value of the wrong type or size makes encode raise.
_UNFIT = (struct.error, ArithmeticError, TypeError, ValueError, AttributeError)


_Record = namedtuple("_Record", "order rank kind known pid stamp values seq")
_Record.__doc__ = """One that is new: order (a stamp) and rank to sort by; its _Known or None; its stamp and
{field name: value} as told; of a sample the sequence number as told."""


def is_peer(answer):
    """Whether some JSON is the existing collector's state, and not ours, which has its own key as well."""
    return isinstance(answer, dict) and answer.get("type") == "snapshot" and "collector" not in answer


class _Known:
    """A process as the existing collector names it, and the newest of its records that have been folded in.

    sender: the credentials that its datagrams get.  seq: their number, ours alone: its own counter is
    told for the samples only, and gaps between these are no losses.  last: (seq, stamp) of the newest sample, as told.
    oldest, newest: stamps of its ticks.  sample, event, snapshots: marks of the newest of each kind of record.
    """

    __slots__ = ("pid", "sender", "seq", "seen", "oldest", "newest", "last", "sample", "event", "snapshots")

    def __init__(self, pid, group):
        self.pid = pid
        self.sender = CREDENTIALS.pack(pid, 0, group)
        self.seq = 0
        self.seen = 0                   # the last `take` that told of it
        self.oldest = self.newest = self.last = None
        self.sample = self.event = ()
        self.snapshots = {}             # by interpreter


class PeerState:
    """`fleet`: what the answers told so far.  `skipped`: records and values of them that could not be used.

    What is remembered of the answers is bounded as the fleet is: `limits.processes` processes,
    `limits.interpreters` of each, `limits.slow` slow requests.
    """

    def __init__(self, limits):
        self.fleet = Fleet(limits)
        self.skipped = 0
        self._limits = limits
        self._known = OrderedDict()     # (pid, hostname) -> _Known, the one seen longest ago first
        self._of_pid = {}               # pid -> {hostname: _Known}
        self._slow = {}                 # key -> (state, duration) as they were folded in
        self._event = ()                # mark of the newest lifecycle event
        self._takes = 0
        self._now = float("-inf")       # of the newest datagram

    def take(self, answer, now, wall):
        """Fold in what is new in an answer: `now` monotonic, `wall` wall seconds of its receipt.

        A record's time is its stamp, seen from `wall`: where the clocks of the two machines
        differ, its age is wrong by as much, but never less than nothing.
        Raises Nonsense when it is no state at all; everything else that cannot be used is skipped.
        """
        good = isinstance(answer, dict) and answer.get("type") == "snapshot"
        if not good or not isinstance(answer.get("processes"), list):
            raise Nonsense("/api/state is no state of a telemetry collector")
        self._takes += 1
        found = []
        for row in answer["processes"]:
            self._process(row, wall, found)
        self._life(self._list(answer, "lifecycle_events"), wall, found)
        self._slow_requests(self._list(answer, "slow_requests"), wall, found)
        found.sort(key=itemgetter(0, 1))
        for record in found:
            self._apply(record, now, wall)

    def _list(self, row, name):
        held = row.get(name)
        if isinstance(held, list):
            return held
        self.skipped += held is not None
        return []

    # --- which process --------------------------------------------------------------

    def _know(self, pid, hostname):
        """The _Known of a process, or None when there is no room beside those that this very answer tells of."""
        if not _is_pid(pid) or not isinstance(hostname, str):
            return None
        known = self._known.get((pid, hostname))
        if known is None:
            if len(self._known) >= self._limits.processes and not self._forget():
                return None
            # hosts may have the same pids: the group tells them apart, since nothing here looks at that
            hosts = self._of_pid.setdefault(pid, {})
            taken = {CREDENTIALS.unpack(other.sender)[2] for other in hosts.values()}
            known = _Known(pid, next(group for group in range(len(taken) + 1) if group not in taken))
            self._known[pid, hostname] = hosts[hostname] = known
        known.seen = self._takes
        self._known.move_to_end((pid, hostname))
        return known

    def _forget(self):
        """Make room; False when all are of this answer."""
        (pid, hostname), known = next(iter(self._known.items()))
        if known.seen == self._takes:
            return False
        del self._known[pid, hostname]
        hosts = self._of_pid[pid]
        del hosts[hostname]
        if not hosts:
            del self._of_pid[pid]
        return True

    # --- what is new ----------------------------------------------------------------

    def _process(self, row, wall, found):
        known = self._know(row.get("pid"), row.get(_HOST)) if isinstance(row, dict) else None
        if known is None:
            self.skipped += 1
            return
        samples = self._list(row, "samples")
        for item in self._behind(samples, known.sample, _sample_mark, self._limits.samples):
            kind = _TICKS.get(item.get("kind")) if _is_text(item.get("kind")) else None
            self._found(found, kind, known, item, wall, item.get("seq"))
        known.sample = _mark_of(samples, _sample_mark, known.sample)
        self._collections(row, known, wall, found)

    def _collections(self, row, known, wall, found):
        """The garbage collector's records of a process."""
        snapshots = row.get("gc_snapshots")
        if not isinstance(snapshots, dict):
            self.skipped += snapshots is not None
            snapshots = {}
        marks = {}
        for name, items in snapshots.items():
            if len(marks) >= self._limits.interpreters or not isinstance(items, list):
                self.skipped += 1
                continue
            mark = known.snapshots.get(name, ())
            for item in self._behind(items, mark, _snapshot_mark, self._limits.samples):
                self._found(found, GC_SNAPSHOT, known, item, wall, interpreter=name)
            marks[name] = _mark_of(items, _snapshot_mark, mark)
        known.snapshots = marks
        events = self._list(row, "gc_events")
        for item in self._behind(events, known.event, _gc_mark, EVENTS_A_SAMPLE * self._limits.samples):
            self._found(found, GC_EVENT, known, item, wall, interpreter=item.get("interpreter"))
        known.event = _mark_of(events, _gc_mark, known.event)

    def _behind(self, items, mark, mark_of, most):
        """What came behind the record with this mark, oldest first: the newest `most` when it is not there any more.

        Walks from the end, so the old costs nothing.
        """
        fresh = []
        for item in reversed(items):
            if mark_of(item) == mark:
                break
            if len(fresh) == most:
                self.skipped += len(items) - most
                break
            fresh.append(item)
        fresh.reverse()
        good = [item for item in fresh if isinstance(item, dict)]
        self.skipped += len(fresh) - len(good)
        return good

    def _found(self, found, kind, known, item, wall, seq=None, interpreter=""):
        stamp, values = item.get("stamp"), item.get("fields")
        good = kind is not None and isinstance(values, dict) and _is_text(interpreter)
        if not good or not _is_stamp(stamp, wall):
            self.skipped += 1
            return
        if interpreter:
            values = {"interpreter_name": interpreter, **values}
        if kind == REQUEST_METRICS:
            known.oldest = stamp if known.oldest is None else known.oldest
            known.newest = stamp
        found.append(_Record(stamp, _RANK[kind], kind, known, known.pid, stamp, values, seq))

    def _life(self, events, wall, found):
        for item in self._behind(events, self._event, _life_mark, self._limits.events):
            kind = _LIFE.get(item.get("kind")) if _is_text(item.get("kind")) else None
            known = self._know(item.get("pid"), item.get(_HOST)) if kind else None
            if known is None or not _is_stamp(item.get("stamp"), wall):
                self.skipped += 1
                continue
            # it tells an empty text for each that was absent
            values = {name: item[name] for name in _LIFE_FIELDS[kind] if item.get(name, "") != ""}
            found.append(_Record(item["stamp"], _RANK[kind], kind, known, known.pid, item["stamp"], values, None))
        self._event = _mark_of(events, _life_mark, self._event)

    def _slow_requests(self, rows, wall, found):
        """New and changed slow requests; the time of one is its start and its duration until then."""
        remembered = {}
        for row in rows:
            entry = row.get("entry") if isinstance(row, dict) else None
            key = _slow_key(row) if isinstance(entry, dict) else None
            if key is None or not _is_pid(entry.get("pid")) or len(remembered) >= self._limits.slow:
                self.skipped += 1
                continue
            remembered[key] = told = (entry.get("state"), entry.get("duration"))
            if self._slow.get(key) == told:
                continue
            start, duration = entry.get("start_stamp"), entry.get("duration")
            stamp = start + duration if _is_number(start) and _is_number(duration) else None
            if not _is_stamp(stamp, wall):
                self.skipped += 1
                continue
            # an entry does not name its server: of several processes with its pid, one that was heard of last is taken
            hosts = self._of_pid.get(entry["pid"])
            known = max(hosts.values(), key=lambda each: each.seen) if hosts else None
            order = stamp
            if known and known.oldest is not None:
                # one that ended before the oldest tick still belongs to its process, which must be known before;
                # and the newest tick brought it, before the end of its process
                order = max(known.oldest, min(stamp, known.newest))
            values = {field: entry[name] for name, field in ENTRY if entry.get(name, "") != ""}
            found.append(_Record(order, _RANK[SLOW_REQUEST], SLOW_REQUEST, known, entry["pid"], stamp, values, None))
        self._slow = remembered

    # --- into the fleet -------------------------------------------------------------

    def _apply(self, record, now, wall):
        known = record.known
        sender = known.sender if known else CREDENTIALS.pack(record.pid, 0, 0)
        number = self._number(known, record) if known else 1
        datagram = self._datagram(record.kind, record.pid, number, record.stamp, record.values)
        if datagram is None:
            self.skipped += 1
            return
        # what comes late, or from a clock that is ahead, is no earlier than what came before it, and no later than now
        self._now = max(self._now, min(now, now - (wall - record.stamp)))
        self.fleet.apply(datagram, sender, self._now, record.stamp)

    def _number(self, known, record):
        """The next sequence number; 1 for another process under the same pid, which the fleet knows by that."""
        seq, stamp = record.seq, record.stamp
        if record.kind == PROCESS_STARTED and known.last is not None:
            known.seq, known.last = 0, None
        elif record.kind == REQUEST_METRICS and isinstance(seq, int):
            # lower although it was sent later: it counts from its own start (one that is only late is older)
            if known.last is not None and (seq - known.last[0]) & 0xFFFFFFFF >= 1 << 31 and stamp > known.last[1]:
                known.seq = 0
            known.last = (seq, stamp)
        known.seq += 1
        return known.seq

    def _datagram(self, kind, pid, seq, stamp, values):
        """The datagram of what can be used of {field name: value}, or None."""
        fields = []
        for name, value in values.items():
            field = BY_NAME.get(name)
            if field is None or field.merge == BUCKETS and (not isinstance(value, list) or len(value) != BUCKET_COUNT):
                self.skipped += 1
            else:
                fields.append((field.id, field.type, value.encode("utf-8", "replace")
                               if field.type == TEXT and isinstance(value, str) else value))
        try:
            datagram = encode(kind, pid, seq, stamp, fields)
        except _UNFIT:
            good = [field for field in fields if _fits(field)]
            self.skipped += len(fields) - len(good)
            datagram = encode(kind, pid, seq, stamp, good)
        return datagram if len(datagram) <= LARGEST else None


def _fits(field):
    try:
        encode(0, 0, 0, 0.0, [field])
    except _UNFIT:
        return False
    return True


def _is_pid(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _is_text(value):
    return isinstance(value, str)


def _is_number(value):
    """Whether it is a number that a float can be: JSON has integers without end."""
    return isinstance(value, (int, float)) and -1e300 < value < 1e300


def _is_stamp(value, wall):
    return _is_number(value) and abs(value - wall) < YEARS_S


# A mark is what tells a record from those before it; None of what is no record, () before any.

def _sample_mark(item):
    return (item.get("seq"), item.get("stamp")) if isinstance(item, dict) else None


def _snapshot_mark(item):
    return (item.get("stamp"),) if isinstance(item, dict) else None


def _gc_mark(item):
    """All the events of a tick have its stamp: the start tells them apart."""
    fields = item.get("fields") if isinstance(item, dict) else None
    if not isinstance(fields, dict):
        return None
    return item.get("stamp"), item.get("interpreter"), fields.get("gc_event_start_stamp")


def _life_mark(item):
    return tuple(map(item.get, ("kind", "pid", "stamp", _HOST))) if isinstance(item, dict) else None


def _mark_of(items, mark_of, before):
    """The mark of the newest record among items; `before` when there is none."""
    return next((mark for mark in map(mark_of, reversed(items)) if mark is not None), before)


def _slow_key(row):
    """The key of a slow request as something to look up; None for what is none."""
    key = row.get("key")
    if not isinstance(key, list) or len(key) > 3 or not all(isinstance(part, (str, int, float)) for part in key):
        return None
    return tuple(key)
