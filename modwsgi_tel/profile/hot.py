"""Functions by own and total share, over the last seconds and since the start: what `hot` shows."""
from collections import deque, namedtuple

from modwsgi_tel.profile.samples import CUT, EMPTY, FILE_SIZE, FUNCTION_SIZE, NOT_READ, THREADS, short
from modwsgi_tel.stacks.model import MOVING

KEEP_S = 120                            # seconds that a window can reach back
FUNCTIONS = 5000                        # functions kept apart, in a second and since the start
OTHERS = ("(other functions)", None)

# Whose time is looked at: that of threads which are not idle, of those that hold the GIL, of all.
WORKING, GIL, ALL = "working", "gil", "all"

Row = namedtuple("Row", "function file own total gil own_s total_s")
Row.__doc__ = """A function.  file: None for what is no function (NOT_READ, CUT, EMPTY).  own, total: its share (0 to 1) of the
threads' time in the window: as the innermost frame, and anywhere in the stack, once however often.  gil: its share, as the
innermost frame, of the time in the window for which the GIL was held.  own_s, total_s: seconds since the start."""

Totals = namedtuple("Totals", "looks seen_s time_s gil_s moving_s cut_s idle_s")
Totals.__doc__ = """What the shares are of.  seen_s: for which processes were looked at.  time_s: of all threads that are not idle;
gil_s: of those holding the GIL; moving_s, cut_s: of those not read whole; idle_s: of idle threads, which are not in time_s."""
_NOTHING = (0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

_OWN, _TOTAL, _GIL_OWN, _GIL_TOTAL, _IDLE_OWN, _IDLE_TOTAL = range(6)
_COLUMNS = {WORKING: (_OWN, None), GIL: (_GIL_OWN, None), ALL: (_OWN, _IDLE_OWN)}       # a total stands behind its own


class _Slot:
    """A span of time.  functions: (function, file) -> seconds, own and total, of working, GIL holding and idle threads."""

    __slots__ = ("at", "functions", "totals")

    def __init__(self, at):
        self.at = at
        self.functions = {}
        self.totals = list(_NOTHING)    # as Totals

    def row(self, key):
        found = self.functions.get(key)
        if found is None:
            key = key if len(self.functions) < FUNCTIONS else OTHERS
            found = self.functions.setdefault(key, [0.0] * 6)
        return found

    def count(self, thread, keys, weight_s):
        totals = self.totals
        if thread.idle:
            totals[6] += weight_s
        else:
            totals[2] += weight_s
            if thread.owns_gil:
                totals[3] += weight_s
            if thread.problem is not None:
                totals[4 if thread.problem == MOVING else 5] += weight_s
        own = _IDLE_OWN if thread.idle else _OWN
        rows = [self.row(key) for key in keys]
        innermost = rows[0]
        if len(self.functions) > FUNCTIONS:
            rows = {id(row): row for row in rows}.values()      # OTHERS once
        innermost[own] += weight_s
        for row in rows:
            row[own + 1] += weight_s
        if thread.owns_gil:
            innermost[_GIL_OWN] += weight_s
            for row in rows:
                row[_GIL_TOTAL] += weight_s


class Functions:
    """A rolling table."""

    def __init__(self):
        self.reset()

    def reset(self):
        self._all = _Slot(0)
        self._slots = deque(maxlen=KEEP_S + 1)          # one for each second in which a look was taken
        self._keys = {}                 # (pid, tid) -> (frames, problem, keys) of the look before: most threads have not moved

    def add(self, stacks, weight_s, now):
        """Take a look (a Stacks); weight_s: the time it stands for, since the look before at that process; now: monotonic
        seconds."""
        if not self._slots or self._slots[-1].at != int(now):
            self._slots.append(_Slot(int(now)))
        slots = (self._slots[-1], self._all)
        for slot in slots:
            slot.totals[0] += 1
            slot.totals[1] += weight_s
        for thread in stacks.threads:
            keys = self._keys_of(stacks.pid, thread)
            for slot in slots:
                slot.count(thread, keys, weight_s)

    def _keys_of(self, pid, thread):
        known = self._keys.get((pid, thread.tid))
        if known is not None and known[0] == thread.frames and known[1] == thread.problem:
            return known[2]
        if len(self._keys) >= THREADS:
            self._keys.clear()
        keys = _keys(thread)
        self._keys[pid, thread.tid] = (thread.frames, thread.problem, keys)
        return keys

    def rows(self, now, window_s=None, of=WORKING):
        """Rows, the largest own share first; of the last window_s whole seconds and the one that runs (KEEP_S at most), or since
        the start."""
        recent = self._summed(now, window_s)
        totals = self.totals(now, window_s)
        time_s = {WORKING: totals.time_s, GIL: totals.gil_s, ALL: totals.time_s + totals.idle_s}[of] or 1.0
        gil_s = totals.gil_s or 1.0
        rows = []
        for (function, file), amounts in self._all.functions.items():
            own_s, total_s = _seconds(amounts, of)
            if total_s > 0:
                own, total, held = (*_seconds(recent[function, file], of), recent[function, file][_GIL_OWN]) if (
                    function, file) in recent else (0.0, 0.0, 0.0)
                rows.append(Row(function, file, own / time_s, total / time_s, held / gil_s, own_s, total_s))
        return sorted(rows, key=lambda row: (-row.own, -row.total, -row.own_s, -row.total_s, row.function, row.file or ""))

    def totals(self, now, window_s=None):
        slots = [self._all] if window_s is None else self._within(now, window_s)
        return Totals(*(sum(values) for values in zip(_NOTHING, *(slot.totals for slot in slots))))

    def _within(self, now, window_s):
        return [slot for slot in self._slots if slot.at > now - window_s - 1 and slot.at <= now]

    def _summed(self, now, window_s):
        if window_s is None:
            return self._all.functions
        summed = {}
        for slot in self._within(now, window_s):
            for key, amounts in slot.functions.items():
                known = summed.setdefault(key if key in self._all.functions else OTHERS, [0.0] * 6)
                for index, amount in enumerate(amounts):
                    known[index] += amount
        return summed


def _seconds(amounts, of):
    """(own, total) of a function."""
    first, second = _COLUMNS[of]
    own, total = amounts[first], amounts[first + 1]
    return (own, total) if second is None else (own + amounts[second], total + amounts[second + 1])


def _keys(thread):
    """(function, file) of a thread's frames, each once, the innermost first; what was not read stands in its place."""
    if thread.problem == MOVING:
        return [(NOT_READ, None)]
    keys = [(short(frame.function, FUNCTION_SIZE) or "?", short(frame.file, FILE_SIZE)) for frame in thread.frames]
    if thread.problem is not None:
        keys.append((CUT, None))
    return list(dict.fromkeys(keys)) or [(EMPTY, None)]
