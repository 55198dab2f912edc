"""What happens, in order, for readers who want each record: one bounded journal that all of them share.

    fleet.stream = Stream()                 # None while nobody listens: the fold makes one test and goes on
    reader = stream.join()
    entry = stream.next(reader)             # or None: all is read

The fold only notes what came.  A reader that is too slow loses the oldest entries, which is counted; what all have read is let go.
"""
from modwsgi_tel.wire.fields import GC_EVENT, GC_SNAPSHOT, PROCESS_METRICS, REQUEST_METRICS, SERVER_METRICS

SAMPLE, GC, SLOW, EVENT, CLEARED = "sample", "gc", "slow", "event", "cleared"
BYTES = 8 << 20                         # of all entries: some seconds of a large fleet
ENTRY_BYTES = 400                       # that an entry takes besides

_NOTED = {REQUEST_METRICS: SAMPLE, PROCESS_METRICS: SAMPLE, SERVER_METRICS: SAMPLE, GC_SNAPSHOT: GC, GC_EVENT: GC}


class Entry:
    """One thing that happened, by `what`: SAMPLE and GC with `shape` and `datagram`; SLOW with the key of the request and its
    datagram; EVENT with an entry of the event log; CLEARED with the keys of the requests that stayed.

    `shown` is for who reads it: what it was made into, once for all readers; weighed by `Stream.weigh`.
    """

    __slots__ = ("what", "wall", "shape", "datagram", "about", "size", "shown")

    def __init__(self, what, wall, shape, datagram, about, size):
        self.what, self.wall, self.shape, self.datagram, self.about = what, wall, shape, datagram, about
        self.size = ENTRY_BYTES + size
        self.shown = None


class Reader:
    """Who reads: `place` is the number of the entry that is next."""

    def __init__(self, place):
        self.place = place
        self.wake = None                # called once with the next entry


class Stream:
    """The journal; at most `limit` bytes."""

    def __init__(self, limit=BYTES):
        self.limit = limit
        self._dropped = 0
        self.bytes = 0
        self._readers = {}              # Reader -> None
        self._entries = {}              # number -> Entry, in order
        self._first = self._end = 0     # numbers of the oldest entry, and of the next one to come
        self._waiting = False           # somebody wants to be woken

    # --- the fold --------------------------------------------------------------------------

    def record(self, kind, shape, datagram, wall):
        """A datagram of a process was folded in."""
        what = _NOTED.get(kind)
        if what is not None:
            self._note(Entry(what, wall, shape, datagram, None, len(datagram)))

    def slow(self, key, datagram, wall):
        """A record of a slow request was."""
        self._note(Entry(SLOW, wall, None, datagram, key, len(datagram)))

    def event(self, event):
        """An entry of the event log was made."""
        self._note(Entry(EVENT, event["received"], None, None, event, ENTRY_BYTES))

    def cleared(self, keys, wall):
        """Slow requests were dropped but for those with these keys."""
        self._note(Entry(CLEARED, wall, None, None, keys, 100 * len(keys)))

    def _note(self, entry):
        self._entries[self._end] = entry
        self._end += 1
        self.bytes += entry.size
        while self.bytes > self.limit:
            self._let_go()
        if self._waiting:
            self._waiting = False
            for reader in list(self._readers):
                wake, reader.wake = reader.wake, None
                if wake is not None:
                    wake()

    def _let_go(self):
        entry = self._entries.pop(self._first)
        self.bytes -= entry.size
        entry.size = 0
        self._first += 1

    # --- readers ---------------------------------------------------------------------------

    @property
    def dropped(self):
        """Entries that were let go before a reader had them, of all readers so far."""
        return self._dropped + sum(max(0, self._first - reader.place) for reader in self._readers)

    def join(self):
        """A Reader of all that happens from now on."""
        reader = Reader(self._end)
        self._readers[reader] = None
        return reader

    def leave(self, reader):
        """It reads no more; whether nobody is left."""
        if reader in self._readers:
            self._catch_up(reader)
            del self._readers[reader]
            self._tidy()
        return not self._readers

    def next(self, reader):
        """The next Entry, or None."""
        self._catch_up(reader)
        entry = self._entries.get(reader.place)
        if entry is None:
            return None
        reader.place += 1
        if reader.place - 1 == self._first:
            self._tidy()
        return entry

    def _catch_up(self, reader):
        """Go on behind what was let go."""
        if reader.place < self._first:
            self._dropped += self._first - reader.place
            reader.place = self._first

    def when_more(self, reader, wake):
        """Call `wake()` once there is something to read: at once, or with the next entry."""
        if reader.place < self._end:
            wake()
        else:
            reader.wake = wake
            self._waiting = True

    def weigh(self, entry, size):
        """What was made of an entry takes so many bytes, for as long as it is held for others."""
        if entry.size:
            entry.size += size
            self.bytes += size

    def _tidy(self):
        """Let go what all have read."""
        first = min((reader.place for reader in self._readers), default=self._end)
        while self._first < first:
            self._let_go()
