"""Running sums over the last minute and the last ten: what a rate or a percentile is made of.

Time is cut into slots of 5 s and of 60 s by receive time.  A tick is added to the open
5-second slot of its process; when that closes it is added, as one, to the process's and to
its group's windows.  So a tick costs the same whatever is watched, and a reader adds up a
few dozen slots, never the history.
"""
from array import array
from collections import deque, namedtuple

from modwsgi_tel.wire.buckets import ZERO, merge
from modwsgi_tel.wire.fields import MAX_DATAGRAM, PHASES, PHASE_FIELDS
from modwsgi_tel.wire.shapes import LANES_MAX, Wanted, unpack_lanes

SLOT_S = 5.0
MINUTE_S = 60.0
SLOTS_IN_MINUTE = int(MINUTE_S / SLOT_S)

# What a slot adds up.  *_x_* are products: dividing by the second factor's sum gives a mean.
SUMS = ("ticks", "period", "requests", "capacity_x_period", "cpu_user_x_period", "cpu_system_x_period",
        *(f"{phase}_x_requests" for phase in PHASES),
        "input_bytes", "input_reads", "output_bytes", "output_writes",
        "status_1xx", "status_2xx", "status_3xx", "status_4xx", "status_5xx",
        "gc_pauses", "gc_seconds", "slow_completed", "gc_dropped_events")
(TICKS, PERIOD, REQUESTS, CAPACITY, CPU_USER, CPU_SYSTEM) = range(6)
PHASE = 6                               # PHASE + PHASES.index(phase)
INPUT_BYTES = PHASE + len(PHASES)
STATUS = INPUT_BYTES + 4
GC_PAUSES = STATUS + 5
GC_SECONDS, SLOW_COMPLETED, GC_DROPPED = GC_PAUSES + 1, GC_PAUSES + 2, GC_PAUSES + 3
# The fields of a tick that are added up, in the order that Slot.tick takes them apart.
TICK_FIELDS = Wanted((10, 20, 22, 30, 31, *(PHASE_FIELDS[phase][0] for phase in PHASES), 100, 101, 102, 103,
               120, 121, 122, 123, 124, *(PHASE_FIELDS[phase][2] for phase in PHASES)))
PERIOD_ID = 10                          # sample_period: a record without it is of a further agent of its process, and no tick
_INTERVAL = Wanted((11, PERIOD_ID))     # telemetry_interval: what the capacity of such a record is a share of
PLAUSIBLE = 2.0 ** 50                   # one tick's numbers, added up: beyond it is nonsense, not load

SHORT, LONG = SLOTS_IN_MINUTE + 1, 11   # entries of a group: 5-second ones, and older ones by the minute
SPANS_MAX = 16                          # stretches of time told apart in one slot of a group
PERIOD_MAX = 10 * MINUTE_S              # a longer period is a mistake, or what a window does not show anyway

# What a slot keeps the largest of: the longest time of each phase, then the longest collection.
PEAKS = (*(f"{phase}_time_max" for phase in PHASES), "gc_pause_max")
GC_PEAK = len(PHASES)
# Collections are counted by their length too, up to and with each of these seconds, and beyond.
GC_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
NO_PAUSES = (0,) * (len(GC_BOUNDS) + 1)
_NO_PEAKS = [0.0] * len(PEAKS)
_NOTHING = [0] * len(SUMS)

# The counters that are kept for good: those of SUMS that count something, by the name in the JSON.
COUNTERS = {name: SUMS.index(name) for name in SUMS if "_x_" not in name and name not in ("ticks", "period")}


LANES_FEW = 256 // 4                    # datagrams of one shape: the lanes of so few can be added up over all slots
SHAPES_MAX = 4                          # a process has one or two; a group's processes share them


class Histograms:
    """Histograms of all phases, added up as long integers, one per shape (see wire.shapes).

    `wide` takes what does not fit the integers' lanes, and what is of more shapes than
    SHAPES_MAX, as {phase: 65 counts}.
    """

    __slots__ = ("sums", "wide")

    def __init__(self):
        self.sums = {}                  # shape -> [integer, datagrams in it]
        self.wide = None

    def add(self, shape, number, datagrams=1):
        """Add `datagrams` histograms of a shape, already summed under its histogram_mask."""
        held = self.sums.get(shape)
        if held is None:
            if len(self.sums) < SHAPES_MAX and shape.size <= MAX_DATAGRAM:
                self.sums[shape] = [number, datagrams]
            elif number:
                self.add_wide(shape.histograms(number))
        elif held[1] + datagrams <= LANES_MAX:
            held[0] += number
            held[1] += datagrams
        else:
            self.add_wide(shape.histograms(held[0]))
            held[:] = number, datagrams

    def add_wide(self, counts):
        if self.wide is None:
            self.wide = {}
        for phase, row in counts.items():
            self.wide[phase] = merge(self.wide.get(phase, ZERO), row)

    def merge(self, other):
        for shape, (number, datagrams) in other.sums.items():
            self.add(shape, number, datagrams)
        if other.wide:
            self.add_wide(other.wide)

    def merge_all(self, others):
        """As `merge` of each: of a shape, the integers are added up first."""
        shapes = {}
        for other in others:
            for shape, (number, datagrams) in other.sums.items():
                held = shapes.get(shape)
                if held is None:
                    shapes[shape] = [number, datagrams]
                elif held[1] + datagrams <= LANES_MAX:
                    held[0] += number
                    held[1] += datagrams
                else:
                    self.add(shape, *held)
                    held[:] = number, datagrams
            if other.wide:
                self.add_wide(other.wide)
        for shape, held in shapes.items():
            self.add(shape, *held)

    def copy(self):
        out = Histograms()
        out.merge(self)
        return out

    def phase(self, phase):
        """65 counts of one phase, or None when it was not seen."""
        out = (self.wide or {}).get(phase)
        for shape, (number, _) in self.sums.items():
            row = shape.histogram(number, phase)
            if row is not None:
                out = row if out is None else merge(out, row)
        return out

    def lanes(self, phase):
        """Counts of one phase as an integer of 32-bit lanes; None when they may be too large to add up many of these."""
        if self.wide:
            return None
        out = 0
        for shape, (number, datagrams) in self.sums.items():
            if datagrams > LANES_FEW:
                return None
            out += shape.lanes(number, phase)
        return out

    def counts(self):
        """{phase: 65 counts}, for the phases that were seen."""
        out = {phase: list(row) for phase, row in (self.wide or {}).items()}
        for shape, (number, _) in self.sums.items():
            for phase, row in shape.histograms(number).items():
                out[phase] = merge(out[phase], row) if phase in out else list(row)
        return out


def cover(spans, begin, end):
    """Add a stretch of time to `spans`, disjoint [begin, end] in order, at most SPANS_MAX of them."""
    if spans and begin >= spans[-1][0]:
        if begin > spans[-1][1]:
            spans.append([begin, end])
        elif end > spans[-1][1]:
            spans[-1][1] = end
    else:
        touched = [span for span in spans if span[0] <= end and span[1] >= begin]
        rest = [span for span in spans if not (span[0] <= end and span[1] >= begin)]
        spans[:] = sorted(rest + [[min([begin, *(span[0] for span in touched)]), max([end, *(span[1] for span in touched)])]])
    if len(spans) > SPANS_MAX:
        spans[0][1] = spans.pop(1)[1]


class Slot:
    """The sums of a stretch of time; `index` is its start divided by its length.

    Of one process, so its ticks tell of the time from `ended` back over the sum of their periods.  `pauses` are its
    collections by GC_BOUNDS, or None; slots that are merged have none.
    """

    __slots__ = ("index", "sums", "peaks", "histograms", "ended", "pauses")

    def __init__(self, index):
        self.index = index
        self.ended = 0.0                # when the newest tick came, monotonic seconds
        self.sums = _NOTHING[:]
        self.peaks = _NO_PEAKS[:]
        self.histograms = Histograms()
        self.pauses = None

    def tick(self, shape, datagram, number):
        """Add one request_metrics datagram; False, and nothing added, when its numbers are nonsense.

        `number` is what Shapes.check gave for it.
        """
        values = shape.read(TICK_FIELDS, datagram)
        (period, requests, capacity, cpu_user, cpu_system,
         server, queue, daemon, application, request, gil_wait, input_read, output_write,
         input_bytes, input_reads, output_bytes, output_writes,
         status_1xx, status_2xx, status_3xx, status_4xx, status_5xx, *longest) = values
        if not 0 <= sum(values) < PLAUSIBLE or number is None and min(values) < 0:
            return False
        sums = self.sums
        whole = PERIOD_ID in shape.ids
        sums[0] += whole
        sums[1] += period
        sums[3] += capacity * (period if whole else max(0.0, min(PERIOD_MAX, shape.read(_INTERVAL, datagram)[0])))
        sums[4] += cpu_user * period
        sums[5] += cpu_system * period
        if requests:
            sums[2] += requests
            sums[6] += server * requests
            sums[7] += queue * requests
            sums[8] += daemon * requests
            sums[9] += application * requests
            sums[10] += request * requests
            sums[11] += gil_wait * requests
            sums[12] += input_read * requests
            sums[13] += output_write * requests
            sums[14] += input_bytes
            sums[15] += input_reads
            sums[16] += output_bytes
            sums[17] += output_writes
            sums[18] += status_1xx
            sums[19] += status_2xx
            sums[20] += status_3xx
            sums[21] += status_4xx
            sums[22] += status_5xx
            self.peaks[:GC_PEAK] = map(max, self.peaks, longest)
            if number is None:
                self.histograms.add_wide(shape.wide_histograms(datagram))
            else:
                self.histograms.add(shape, number & shape.histogram_mask)
        return True

    def merge(self, other):
        self.sums = merge(self.sums, other.sums)
        self.peaks = list(map(max, self.peaks, other.peaks))
        self.histograms.merge(other.histograms)

    def merge_all(self, others):
        """As `merge` of each, in a third of the time."""
        self.sums = list(map(sum, zip(self.sums, *(other.sums for other in others))))
        self.peaks = list(map(max, zip(self.peaks, *(other.peaks for other in others))))
        self.histograms.merge_all([other.histograms for other in others])


Total = namedtuple("Total", "sums peaks requests")
Total.__doc__ = "Slots added up: SUMS, PEAKS, and the 65 counts of request times, or None where there were none."


class _Packed:
    """A closed slot of a process: its sums as doubles, of its histograms only the requests'.

    `requests` is an integer of 65 lanes of 32 bits, a list when that has no room, None when
    there was no request.
    """

    __slots__ = ("index", "sums", "peaks", "requests")

    def __init__(self, index, sums, peaks, requests):
        self.index = index
        self.sums = array("d", sums)
        self.peaks = tuple(peaks)
        self.requests = requests


def _packed_row(slot):
    if not slot.sums[REQUESTS]:
        return None
    lanes = slot.histograms.lanes("request")
    return slot.histograms.phase("request") if lanes is None else lanes


def _row(packed):
    """65 counts of what _Packed.requests holds."""
    return unpack_lanes(packed) if isinstance(packed, int) else packed


def _merged_rows(one, other):
    if one is None or other is None:
        return one if other is None else other
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return merge(_row(one), _row(other))


class ProcessWindows:
    """The windows of one process; `total` are its sums since it is known, the open slot left out."""

    __slots__ = ("open", "total", "_short", "_minute", "_long", "_read_key", "_read")

    def __init__(self, now):
        self.open = Slot(int(now // SLOT_S))
        self.total = _NOTHING[:]
        self._short = deque(maxlen=SLOTS_IN_MINUTE)
        self._minute = None
        self._long = deque(maxlen=9)
        self._read_key = None
        self._read = {}

    def roll(self, index):
        """Close the open slot and open the one with this index; returns what was closed, or None."""
        if self.open.index >= index:    # the clock of a replay may stand still
            return None
        return self.close(index)

    def close(self, index):
        """As `roll`, whatever the index: what came so far belongs to another group than what comes."""
        slot = self.open
        self.open = Slot(index)
        if not any(slot.sums):
            return None
        self.total = merge(self.total, slot.sums)
        row = _packed_row(slot)
        self._short.append(_Packed(slot.index, slot.sums, slot.peaks, row))
        minute = slot.index // SLOTS_IN_MINUTE
        held = self._minute
        if held is not None and held.index == minute:
            held.sums = array("d", merge(held.sums, slot.sums))
            held.peaks = tuple(map(max, held.peaks, slot.peaks))
            held.requests = _merged_rows(held.requests, row)
        else:
            if held is not None:
                self._long.append(held)
            self._minute = _Packed(minute, slot.sums, slot.peaks, row)
        return slot

    def read(self, now, name):
        """The Total of window "1m" or "10m"; what the open slot holds is in both.

        What is closed is added up once and remembered until a slot closes or becomes too old.
        """
        closed, opened = self._closed(now, name)
        return closed if opened is None else _added((closed, Total(opened.sums, opened.peaks, _packed_row(opened))))

    def sums(self, now, name):
        """The sums alone of `read`, at a quarter of its cost: to sort by."""
        closed, opened = self._closed(now, name)
        return closed.sums if opened is None else merge(closed.sums, opened.sums)

    def _closed(self, now, name):
        """(Total of the closed slots, the open slot when that counts too)."""
        first, minute = firsts(now)
        key = (first, minute, self.open.index)
        if key != self._read_key:
            self._read_key, self._read = key, {}
        if name not in self._read:
            self._read[name] = _added(held for held in self._short if held.index >= first) if name == "1m" else _added(
                held for held in (*self._long, self._minute) if held is not None and held.index >= minute)
        slot = self.open
        fresh = slot.index >= first if name == "1m" else slot.index // SLOTS_IN_MINUTE >= minute
        return self._read[name], slot if fresh and any(slot.sums) else None


NO_TOTAL = Total(_NOTHING, _NO_PEAKS, None)


def _added(totals):
    sums, peaks, row = _NOTHING, _NO_PEAKS, None
    for total in totals:
        sums = merge(sums, total.sums)
        peaks = tuple(map(max, peaks, total.peaks))
        row = _merged_rows(row, total.requests)
    return Total(sums, peaks, None if row is None else _row(row))


def cover_slot(spans, slot):
    """Add the time that the ticks in a slot of one process tell of."""
    if slot.sums[PERIOD]:
        cover(spans, slot.ended - min(slot.sums[PERIOD], PERIOD_MAX), slot.ended)


class GroupWindows:
    """The windows of many processes together.

    Each entry is (Slot, spans): `spans` are the stretches of time that the ticks of any process
    tell of, by `cover`.  The requests of all divided by the length of these are the group's
    rate, whatever the number of processes, whenever they came and went, and however long
    their intervals are.
    """

    __slots__ = ("_short", "_long", "_read_key", "_read")

    def __init__(self):
        self._short = []                # entries in order of their index, at most SHORT
        self._long = []                 # at most LONG
        self._read_key = None
        self._read = {}                 # what `read` has added up

    def add(self, slot):
        """Add a closed slot of one process."""
        self._read_key = None
        short = self._short
        if len(short) == SHORT and slot.index < short[0][0].index:
            entry = _entry(self._long, slot.index // SLOTS_IN_MINUTE, LONG)     # of one that was silent for long
        else:
            if len(short) == SHORT and slot.index > short[-1][0].index:
                self._to_long(short.pop(0))
            entry = _entry(short, slot.index, SHORT)
        if entry is not None:
            entry[0].merge(slot)
            cover_slot(entry[1], slot)

    def _to_long(self, old):
        """A slot that is older than a minute becomes part of its minute."""
        entry = _entry(self._long, old[0].index // SLOTS_IN_MINUTE, LONG)
        if entry is not None:
            entry[0].merge(old[0])
            for begin, end in old[1]:
                cover(entry[1], begin, end)

    def read(self, now, name):
        """(Slot, spans) of window "1m" or "10m": all that is closed and not yet too old, added up; not to be changed.

        Remembered until a slot closes or becomes too old: processes close theirs at about the same moment.
        """
        first, minute = firsts(now)
        if (first, minute) != self._read_key:
            self._read_key, self._read = (first, minute), {}
        if name not in self._read:
            held, spans = Slot(0), []
            entries = self._entries(name, first, minute)
            held.merge_all([slot for slot, _ in entries])
            for _, covered in entries:
                for begin, end in covered:
                    cover(spans, begin, end)
            self._read[name] = held, spans
        return self._read[name]

    def _entries(self, name, first, minute):
        if name == "1m":
            return [entry for entry in self._short if entry[0].index >= first]
        return ([entry for entry in self._long if entry[0].index >= minute]
                + [entry for entry in self._short if entry[0].index // SLOTS_IN_MINUTE >= minute])


def _entry(entries, index, most):
    """The (Slot, spans) with an index, made in its place if there is none; None for one older than all of `most`."""
    for place in range(len(entries), 0, -1):
        found = entries[place - 1][0].index
        if found == index:
            return entries[place - 1]
        if found < index:
            break
    else:
        place = 0
    if len(entries) == most:
        if not place:
            return None
        del entries[0]
        place -= 1
    entries.insert(place, (Slot(index), []))
    return entries[place]


def firsts(now):
    """The oldest 5-second and 60-second index that still belong to the windows at `now`."""
    return int((now - MINUTE_S) // SLOT_S) + 1, int((now - 10 * MINUTE_S) // MINUTE_S) + 1
