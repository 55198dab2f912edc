"""A recording played into a Fleet, with seeking: what a console shows of last night.

    player = Player(["tel.cap.1", "tel.cap"], limits)
    for _ in player.seek(player.parse_time("03:12", player.wall)):
        ...                                     # a turn for whoever else has something to do
    view = summary(player.fleet, player.now, player.wall)

The recording has its own two clocks.  `wall` is what its records say; `now` is the monotonic
counterpart that a Fleet wants: it starts at NOW_S and goes as `wall` does, but for what takes
no time: a step back of the recording's clock, and one ahead of more than LONGEST_GAP_S.
No clock of this machine is read: who calls decides how fast time goes.
"""
import heapq
import math
import os
import re
import stat
import time

from modwsgi_tel.errors import Nonsense, TelError, UsageError
from modwsgi_tel.options import seconds
from modwsgi_tel.state.fleet import CREDENTIALS, Fleet
from modwsgi_tel.wire import blocks

HISTORY_S = 1200.0                      # folded in before a time that is sought: twice the longest window and retention
LONGEST_GAP_S = 86400.0                 # a longer one is a clock that was set, as for net.replay
QUIET_S = 700.0                         # of a silence each second is looked at so long, then only its last one
LATEST_S = 32503680000.0                # the year 3000: what is later, or before 1970, is no time
NOW_S = 1e6
STEP = 128                              # work between two yields, in records: one to three milliseconds
PROCESSES_A_RECORD = 32                 # fleet.expire looks at so many in the time that one record takes
LARGE = 13                              # a datagram counts once more for each 2**13 bytes
SKIPPED_MOST, SKIPPED_BYTES = 2048, 1 << 20     # records and bytes left out between two yields
PID_MOST = (1 << 31) - 1                # of a struct ucred

_FORMS = re.compile(r"(?:(\d{4})-(\d\d?)-(\d\d?)[ T]+)?(\d\d?):(\d\d)(?::(\d\d))?", re.ASCII)
_WANTED = "03:12, 03:12:30, 2026-11-20 03:12, or +30s, -5m from where it stands"
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Player:
    """Capture files merged by time, folded into `fleet` up to `wall`.

    paths: files as `serve --record` writes them, packed or not; what comes later in time may come
    first here.  limits: a state.fleet.Limits.  fold(limits): makes an empty Fleet.
    each_second(now, wall): called after each second of the recording's time; may be set later.

    fleet, now, wall: what was folded in and until when; another Fleet after a seek that cannot go
    on with this one, and `seeks` counts those.  begin, end: wall seconds of the first and of the
    last record, `end` None until the files have once been read to their end.  ended: nothing is
    left to fold in.  skipped: records of the files that are not in this fleet because they are older.
    timeless: records left out because no record before them in their file has a time.

    Memory is that of the Fleet and of some megabytes per file.  The constructor raises
    TelError for a file that cannot be opened and Nonsense when there is no record in any; moving
    in time raises nothing, whatever the files hold.
    """

    def __init__(self, paths, limits, fold=None, each_second=None):
        self.each_second = each_second
        self.seeks = -1                 # the first Fleet is none
        self.begin = 0.0
        self.end = None
        self.timeless = 0
        self._fold = fold or Fleet
        self._limits = limits
        self._broken = {}               # name -> line
        self._latest = None             # the highest time, once the end was seen
        self._steps = None              # the generator that may go on
        self._files = []                # (name, open file)
        try:
            for name in paths:
                self._files.append((name, _open(name)))
            self._rewind()
            if self._next is None:
                raise Nonsense(self.trouble or f"{', '.join(paths) or 'no file'}: holds no record; name a file that "
                               "serve --record wrote")
        except BaseException:
            self.close()
            raise

    @property
    def ended(self):
        return self._next is None

    @property
    def records(self):
        """Records folded into this fleet."""
        return self.fleet.received

    @property
    def trouble(self):
        """Where files are not whole, as one line; "" while all that was read is."""
        return "; ".join(self._broken.values())

    def close(self):
        """Close the files; a generator that is under way ends.  What was folded in stays."""
        self._steps = self._next = None
        self._items = iter(())
        for _, handle in self._files:
            handle.close()
        self._files = []

    # --- moving in time: generators that yield nothing, every few milliseconds -------------
    #
    # A newer one ends an older one, so that a key pressed during a long seek counts at once.

    def advance(self, wall):
        """Play on to `wall`; over a clock that was set, for as long as it was from `self.wall` to there.

        So afterwards `self.wall` may be another time, and the next advance counts from it.  Ends at
        the last record; a time that is past does nothing.
        """
        return self._alone(self._advance(wall))

    def seek(self, wall):
        """Go to the time `wall`, ahead or, counted from the first record, back.

        No further than the first and the last record, and of a silence that takes no time only to
        its beginning.  Within HISTORY_S ahead it plays on; else a new Fleet gets what was recorded
        from HISTORY_S before, as a collector that was started then.
        """
        return self._alone(self._seek(wall))

    def _alone(self, steps):
        self._steps = steps             # at its first turn, as the others
        for _ in steps:
            yield
            if self._steps is not steps:
                return

    def _advance(self, wall):
        if wall >= self.wall:           # not so for NaN
            yield from self._play(wall, carried=True)

    def _seek(self, wall):
        if math.isnan(wall) or not self._files:
            return
        wall = max(wall, self.begin)
        if self._latest is not None:
            wall = min(wall, self._latest)
        if not self.wall <= wall <= self.wall + HISTORY_S:
            if wall < self.wall:
                self._rewind()
            else:
                self.skipped += self.records
                self._begin_anew()
            yield from self._skip(wall - HISTORY_S)
            if self._next is None and self._latest is not None:     # the end came sooner than was known
                wall = self._latest
                self._rewind()
                yield from self._skip(wall - HISTORY_S)
        yield from self._play(wall, carried=False)

    def _play(self, wall, carried):
        """Fold in what comes up to `wall`; `carried`: when the recording's clock is set, that is set with it."""
        while self._next is not None:
            at, pid, datagram = self._next
            was_set = not 0 <= at - self._last <= LONGEST_GAP_S
            if was_set and carried:
                wall += at - self.wall
            if at > wall:
                break
            if was_set:
                self._origin = at - self.now
            now = max(self.now, at - self._origin)
            if now >= self._second:
                yield from self._seconds(now)
            self.now, self.wall = now, at
            self._last, self._last_now, self._highest = at, now, max(at, self._highest)
            self.fleet.apply(datagram, CREDENTIALS.pack(pid if pid <= PID_MOST else 0, 0, 0), now, at)
            self._comes(next(self._items, None))
            self._work += 1 + (len(datagram) >> LARGE)
            if self._work >= STEP:
                self._work = 0
                yield
        if self.wall < wall and self._next is not None and self._next[0] - self._last <= LONGEST_GAP_S:
            now = max(self.now, wall - self._origin)
            yield from self._seconds(now)       # time passes, though no record came
            self.now, self.wall = now, wall

    def _seconds(self, now):
        """Let the seconds up to `now` pass, one by one; in a long silence its last one stands for the rest."""
        while self._second <= now:
            if self._second - self._last_now > QUIET_S:
                self._second = float(math.floor(now))
            self.now, self.wall = self._second, self._second + self._origin
            self._second += 1.0
            self.fleet.expire(self.now, self.wall)
            self._work += 1 + len(self.fleet.processes()) // PROCESSES_A_RECORD
            if self.each_second is not None:
                self.each_second(self.now, self.wall)
                self._work = STEP       # nobody knows how long that took
            if self._work >= STEP:
                self._work = 0
                yield

    def _skip(self, since):
        """Leave out what was recorded before `since`; the clocks go on as if it had been played."""
        while self._next is not None and self._next[0] < since:
            self._skip_some(since)
            yield

    def _skip_some(self, since):
        """A few milliseconds of `_skip`: all in local names, which halves its time."""
        item, last, now, origin, highest = self._next, self._last, self.now, self._origin, self._highest
        count = size = 0
        while item is not None and item[0] < since and count < SKIPPED_MOST and size < SKIPPED_BYTES:
            at = item[0]
            if not 0 <= at - last <= LONGEST_GAP_S:
                origin = at - now
            elif at - origin > now:
                now = at - origin
            if at > highest:
                highest = at
            last = at
            count += 1
            size += len(item[2])
            item = next(self._items, None)
        self._last, self.now, self._last_now, self._origin, self._highest = last, now, now, origin, highest
        self.wall, self._second = last, math.floor(now) + 1.0
        self.skipped += count
        self._comes(item)

    # --- reading ----------------------------------------------------------------------------

    def _rewind(self):
        """An empty Fleet, at the first record of all."""
        self.timeless = self.skipped = 0
        for _, handle in self._files:
            handle.seek(0)
        self._items = heapq.merge(*(self._records(*each) for each in self._files), key=_time)
        self._next = next(self._items, None)
        if self._next is not None:      # else somebody has emptied the files: it stays the end of what was there
            self.begin = self._next[0]
        self.wall = self._last = self._highest = self.begin
        self.now = self._last_now = NOW_S
        self._origin = self.wall - NOW_S
        self._second = NOW_S + 1.0
        self._begin_anew()

    def _begin_anew(self):
        """An empty Fleet, where it stands."""
        self.fleet = self._fold(self._limits)
        self._work = 0                  # since the last yield, in records
        self.seeks += 1

    def _comes(self, item):
        """Note the next record, or None at the end, and where that was."""
        self._next = item
        if item is None:
            self.end, self._latest = self._last, self._highest

    def _records(self, name, handle):
        """The records of one file, each with a time: one that has none comes with the one before it.

        Where the file is not whole it ends, and `trouble` says so.
        """
        last, number = None, 0
        self._broken.pop(name, None)
        try:
            for wall, pid, datagram in blocks.read(handle, name):
                number += 1
                if 0.0 <= wall < LATEST_S:
                    last = wall
                elif last is None:
                    self.timeless += 1
                    continue
                yield last, pid, datagram
        except Nonsense as error:
            self._broken[name] = f"{error}; the {number} records before that count"
        except OSError as error:
            self._broken[name] = f"cannot read {name}: {error.strerror}; the {number} records before that count"

    # --- times as people write them ---------------------------------------------------------

    def parse_time(self, text, wall):
        """As the function, where a time of day is one of the recording's days if it can be."""
        return parse_time(text, wall, self.begin, math.inf if self.end is None else self._latest)


def parse_time(text, wall, begin=-math.inf, end=math.inf):
    """The wall seconds that a user's text means, seen from `wall`.

    "03:12" and "03:12:30" are the nearest such local time, within `begin` and `end` if there is
    one; "2026-11-20 03:12", with a T as well, is that one; "+30s" and "-5m" count from `wall`.
    A time that a change to summer time leaves out is one beside it.

    Raises UsageError for anything else.
    """
    text = text.strip()
    try:
        if text[:1] in ("+", "-"):
            step = seconds(0.0)(text[1:])
            return wall + step if text[0] == "+" else wall - step
        found = _FORMS.fullmatch(text)
        if not found:
            raise ValueError
        year, month, day, hour, minute, second = (None if part is None else int(part) for part in found.groups())
        second = second or 0
        if hour > 23 or minute > 59 or second > 59:
            raise ValueError
        if year is not None:
            if not (1 <= month <= 12 and 1 <= day <= _DAYS[month - 1] + (month == 2 and _leap(year))):
                raise ValueError
            return _local(year, month, day, hour, minute, second)
        today = time.localtime(wall)[:3]
        near = [_local(today[0], today[1], today[2] + days, hour, minute, second) for days in (-1, 0, 1)]
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"time {text[:40]!r}: give it as {_WANTED}") from None
    within = [at for at in near if begin <= at <= end]
    return min(within or near, key=lambda at: abs(at - wall))


def _local(*parts):
    return time.mktime((*parts, 0, 0, -1))


def _leap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _time(item):
    return item[0]


def _open(name):
    """A regular file, for a seek reads it again; a pipe is refused without waiting for its other end."""
    if name == "-":
        raise TelError("cannot read -: a recording is read again and again: give it as a file")
    try:
        handle = open(name, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))
    except OSError as error:
        raise TelError(f"cannot read {name}: {error.strerror}") from None
    except ValueError:                  # a NUL in the name
        raise TelError(f"cannot read {name!r}: no file has such a name") from None
    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
        handle.close()
        raise TelError(f"cannot read {name}: no regular file, and a recording is read again and again")
    return handle
