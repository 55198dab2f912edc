"""Functions by own and total share, over the last seconds and since the start: what `hot` shows."""
from collections import deque, namedtuple

from modwsgi_tel.profile.samples import CUT, EMPTY, FILE_SIZE, FUNCTION_SIZE, NOT_READ, THREADS, short
from modwsgi_tel.stacks.model import MOVING

KEEP_S = 120                            # seconds that a window can reach back
FUNCTIONS = 20000                       # functions kept apart, in a second and since the start
GAP_S = 5.0                             # a longer silence between two looks is not a function's doing
OTHERS = ("(other functions)", None)

Row = namedtuple("Row", "function file own total own_s total_s gil")
Row.__doc__ = """A function.  file: None for what is no function (NOT_READ, CUT, EMPTY).  own, total: its share (0 to 1) of all
threads' time: as the innermost frame, and anywhere in the stack, once however often.  own_s, total_s: the same in seconds.
gil: its share, as the innermost frame, of the time for which the GIL was held."""

Totals = namedtuple("Totals", "looks time_s gil_s moving_s cut_s idle_s")
Totals.__doc__ = """What the shares are of.  time_s: of all threads taken; gil_s: of those holding the GIL; moving_s, cut_s: of those
not read whole; idle_s: of idle threads, which are not in time_s."""


class _Slot:
    """A span of time.  functions: (function, file) -> [own_s, total_s, gil_s]."""

    __slots__ = ("at", "functions", "totals")

    def __init__(self, at):
        self.at = at
        self.functions = {}
        self.totals = [0, 0.0, 0.0, 0.0, 0.0, 0.0]      # as Totals

    def row(self, key):
        found = self.functions.get(key)
        if found is None:
            key = key if len(self.functions) < FUNCTIONS else OTHERS
            found = self.functions.setdefault(key, [0.0, 0.0, 0.0])
        return found


class Functions:
    """A rolling table.  idle: pool threads with nothing to do count too."""

    def __init__(self, idle=False):
        self.idle = idle
        self.reset()

    def reset(self):
        self._all = _Slot(0)
        self._slots = deque(maxlen=KEEP_S + 1)          # one for each second in which a look was taken
        self._last = {}                 # pid -> when its look before was taken
        self._keys = {}                 # (pid, tid) -> (frames, problem, keys) of the look before: most threads have not moved

    def add(self, stacks, now):
        """Take a look (a Stacks); now: monotonic seconds.  It stands for the time since the look before at that process, so that
        the first one counts nothing; and for GAP_S at most."""
        last = self._last.get(stacks.pid, now)
        self._last[stacks.pid] = now
        weight_s = min(max(now - last, 0.0), GAP_S)
        if not self._slots or self._slots[-1].at != int(now):
            self._slots.append(_Slot(int(now)))
        slots = (self._slots[-1], self._all)
        for slot in slots:
            slot.totals[0] += 1
        for thread in stacks.threads:
            if thread.idle and not self.idle:
                for slot in slots:
                    slot.totals[5] += weight_s
            else:
                keys = self._keys_of(stacks.pid, thread)
                for slot in slots:
                    _count(slot, thread, keys, weight_s)

    def _keys_of(self, pid, thread):
        known = self._keys.get((pid, thread.tid))
        if known is not None and known[0] == thread.frames and known[1] == thread.problem:
            return known[2]
        if len(self._keys) >= THREADS:
            self._keys.clear()
        keys = _keys(thread)
        self._keys[pid, thread.tid] = (thread.frames, thread.problem, keys)
        return keys

    def rows(self, now, window_s=None):
        """Rows, the largest own share first; of the last window_s whole seconds and the one that runs (KEEP_S at most), or since
        the start."""
        functions = self._summed(now, window_s)
        totals = self.totals(now, window_s)
        time_s, gil_s = totals.time_s or 1.0, totals.gil_s or 1.0
        rows = [Row(function, file, own_s / time_s, total_s / time_s, own_s, total_s, held_s / gil_s)
                for (function, file), (own_s, total_s, held_s) in functions.items() if total_s > 0]
        return sorted(rows, key=lambda row: (-row.own_s, -row.total_s, row.function, row.file or ""))

    def totals(self, now, window_s=None):
        slots = [self._all] if window_s is None else self._within(now, window_s)
        return Totals(*(sum(values) for values in zip([0, 0.0, 0.0, 0.0, 0.0, 0.0], *(slot.totals for slot in slots))))

    def _within(self, now, window_s):
        return [slot for slot in self._slots if slot.at > now - window_s - 1 and slot.at <= now]

    def _summed(self, now, window_s):
        if window_s is None:
            return self._all.functions
        summed = {}
        for slot in self._within(now, window_s):
            for key, amounts in slot.functions.items():
                known = summed.setdefault(key, [0.0, 0.0, 0.0])
                for index, amount in enumerate(amounts):
                    known[index] += amount
        return summed


def _keys(thread):
    """(function, file) of a thread's frames, each once, the innermost first; what was not read stands in its place."""
    if thread.problem == MOVING:
        return [(NOT_READ, None)]
    keys = [(short(frame.function, FUNCTION_SIZE) or "?", short(frame.file, FILE_SIZE)) for frame in thread.frames]
    if thread.problem is not None:
        keys.append((CUT, None))
    return list(dict.fromkeys(keys)) or [(EMPTY, None)]


def _count(slot, thread, keys, weight_s):
    totals = slot.totals
    totals[1] += weight_s
    if thread.owns_gil:
        totals[2] += weight_s
        slot.row(keys[0])[2] += weight_s
    if thread.problem == MOVING:
        totals[3] += weight_s
    elif thread.problem is not None:
        totals[4] += weight_s
    slot.row(keys[0])[0] += weight_s
    for key in keys:
        slot.row(key)[1] += weight_s
