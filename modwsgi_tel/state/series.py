"""Series: what a sparkline is drawn from, a point for every five seconds.

A group adds up the closed slots of its processes, so that a point costs a tick nothing; what
its processes have not closed yet is added when somebody asks.  One process's series is read
from its kept ticks.
"""
from array import array
from collections import deque

from modwsgi_tel.state.window import (CAPACITY, CPU_SYSTEM, CPU_USER, GC_PAUSES, GC_SECONDS, PERIOD, PHASE, REQUESTS,
                                      SLOT_S, SLOW_COMPLETED, STATUS, SUMS, TICKS, Slot)
from modwsgi_tel.wire.blocks import records
from modwsgi_tel.wire.buckets import merge
from modwsgi_tel.wire.fields import GC_EVENT, PHASES, REQUEST_METRICS
from modwsgi_tel.wire.shapes import Wanted

POINTS = {"now": 12, "1m": 12, "10m": 120}
COLUMNS = ("time", "requests", "throughput", "capacity", "cpu", "rss", "mean", "max", "queue", "gil_share", "errors", "slow",
           "gc_seconds", "gc_pauses")
_REQUEST, _APPLICATION, _GIL, _QUEUE = (PHASES.index(name) for name in ("request", "application", "gil_wait", "queue"))
_RSS = Wanted((40, 20))                 # memory_rss, and another, since a Wanted has two
_GC = Wanted((321, 322))
_NOTHING = array("d", bytes(8 * len(SUMS)))


class _Point:
    """Slots of the same five seconds, each of one process; `rate` is requests per second, `cores` CPU, of all."""

    __slots__ = ("index", "sums", "longest", "rss", "rate", "cores")

    def __init__(self, index):
        self.index, self.sums = index, _NOTHING
        self.longest, self.rss, self.rate, self.cores = 0.0, 0, 0.0, 0.0

    def add(self, slot, rss):
        """A slot of one process; `rss` in bytes, of its newest tick."""
        sums = slot.sums
        self._add(sums, slot.peaks[_REQUEST], rss)
        if sums[TICKS]:
            # each by its own periods: they end at different moments.  One that came or went counts for its part.
            told = max(sums[PERIOD], SLOT_S - sums[PERIOD] / sums[TICKS])
            self.rate += sums[REQUESTS] / told
            self.cores += (sums[CPU_USER] + sums[CPU_SYSTEM]) / told

    def merge(self, other):
        """Another point of the same time."""
        self._add(other.sums, other.longest, other.rss)
        self.rate += other.rate
        self.cores += other.cores

    def _add(self, sums, longest, rss):
        self.sums = array("d", merge(self.sums, sums))
        self.longest = max(self.longest, longest)
        self.rss += rss

    def row(self, wall):
        """The point as in COLUMNS; `wall` is when it began."""
        sums = self.sums
        requests, period, told = sums[REQUESTS], sums[PERIOD], sums[TICKS]
        return [wall, int(requests), self.rate if told else None, _ratio(sums[CAPACITY], period),
                self.cores if told else None, self.rss or None, _ratio(sums[PHASE + _REQUEST], requests),
                self.longest if requests else None, _ratio(sums[PHASE + _QUEUE], requests),
                _ratio(sums[PHASE + _GIL], sums[PHASE + _APPLICATION]), int(sums[STATUS + 4]),
                int(sums[SLOW_COMPLETED]), sums[GC_SECONDS], int(sums[GC_PAUSES])]


def _ratio(part, whole):
    ratio = part / whole if whole else None
    return ratio if ratio is not None and ratio < float("inf") else None


class Series:
    """The newest points of a group: those of POINTS["10m"], and of the slot that is open."""

    __slots__ = ("_points",)

    def __init__(self):
        self._points = deque(maxlen=POINTS["10m"] + 1)

    def add(self, slot, rss):
        """A closed slot of one process, seldom older than the newest point; `rss` in bytes, of its newest tick."""
        points = self._points
        place = len(points)
        while place and points[place - 1].index > slot.index:
            place -= 1
        if not place or points[place - 1].index != slot.index:
            if len(points) == points.maxlen:
                if not place:
                    return              # no window has it any more
                points.popleft()
                place -= 1
            points.insert(place, _Point(slot.index))
            place += 1
        points[place - 1].add(slot, rss)

    def __iter__(self):
        return iter(self._points)


def group_series(groups, name, now, wall, since=None):
    """Points of some groups added up: a list of rows as in COLUMNS, None where nothing was received; those of `indexes`.

    A generator that yields between groups: within one, what closes must not be in it twice.
    """
    wanted = indexes(name, now, wall, since)
    points = {}
    for group in groups:
        for point in group.series:
            if point.index in wanted:
                _at(points, point.index).merge(point)
        for process in group.processes.values():
            slot = process.windows.open
            if slot.index in wanted and any(slot.sums):        # it closes with the next tick
                _at(points, slot.index).add(slot, process.rss())
        yield
    return _rows(points, wanted, now, wall)


def _at(points, index):
    point = points.get(index)
    if point is None:
        point = points[index] = _Point(index)
    return point


def indexes(name, now, wall, since=None):
    """The slots of a window, as a range: the newest is the one that has just passed; only those that began after `since`."""
    end = int(now // SLOT_S)
    begin = end - POINTS[name]
    if since is not None:
        begin = max(begin, min(end, int((since - wall + now) // SLOT_S) + 1))
    return range(begin, end)


def _rows(points, wanted, now, wall):
    return [points[index].row(wall - (now - index * SLOT_S)) if index in points else None for index in wanted]


def process_series(shapes, process, name, now, wall, since=None):
    """As group_series, of one process, read from its kept ticks; a generator that yields between their blocks."""
    wanted = indexes(name, now, wall, since)
    since = wall - (now - wanted.start * SLOT_S)
    slots, rss = {}, {}
    for chain in (process.chain, *(item.chain for item in process.interpreters.values())):
        for stretch in chain.read(chain.position(), since_wall=since):
            yield
            for received, _, datagram in records(stretch.raw, stretch.records):
                index = int((now - (wall - received)) // SLOT_S) if abs(wall - received) < 1e6 else -1
                if index in wanted:
                    slot = slots.get(index)
                    if slot is None:
                        slot = slots[index] = Slot(index)
                    rss[index] = _add_record(slot, shapes, datagram, rss.get(index, 0))
    points = {}
    for index, slot in slots.items():
        points[index] = _Point(index)
        points[index].add(slot, rss[index])
    rows = _rows(points, wanted, now, wall)
    for row in rows:
        if row is not None:
            row[COLUMNS.index("slow")] = None           # its ticks do not tell
    return rows


def _add_record(slot, shapes, datagram, rss):
    """Add a kept record to its slot; the resident memory that it tells, else `rss`."""
    shape, number = shapes.check(datagram)
    if datagram[5] == REQUEST_METRICS:
        slot.tick(shape, datagram, number)
        return shape.read(_RSS, datagram)[0] or rss         # a further agent of the process tells none
    if datagram[5] == GC_EVENT:
        seconds = shape.read(_GC, datagram)[0]
        if 0 <= seconds < 1e9:
            slot.sums[GC_SECONDS] += seconds
            slot.sums[GC_PAUSES] += 1
    return rss
