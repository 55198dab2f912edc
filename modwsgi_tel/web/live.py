"""What /ws tells: the whole state as one message, then a message for each record that comes.

The shape is the existing collector's; our own keys stand beside it.  The journal is joined in the moment in which the snapshot is
cut: of samples, collections and events none is lost in between and none told twice.  A slow request is read when it is told, so
the snapshot may have it newer than its record behind it says: what comes later is never older.

A message is written when the first reader is there to take it, and once for all of them.
"""
from modwsgi_tel.state.stream import CLEARED, EVENT, GC, SAMPLE, Stream
from modwsgi_tel.web.statejson import Query, batched, encoded, gc_record, interpreter_head, sample, slow_entry, slow_parts, state, text
from modwsgi_tel.web.websocket import TEXT, fragments, frame
from modwsgi_tel.wire.fields import BY_NAME, kind_name
from modwsgi_tel.wire.shapes import HEADER, Wanted, finite

TOGETHER = 16 << 10                     # bytes of messages that go out at once: about half a millisecond of work
# The existing console's WebSocket (aiohttp's, as it comes) breaks off at a message of 4 MiB, also with the existing collector.
SNAPSHOT_BYTES = 3 << 20
_FEW, _MORE = 1, 3                      # samples of each process, to see how large a message will be

_INTERPRETER = BY_NAME["interpreter_name"].id
_NAME = Wanted((_INTERPRETER,))
_STAMP = 6                              # of a header's parts


class Live:
    """What is told of one Fleet, to any number of Tellings."""

    def __init__(self, fleet, memo, clocks):
        self.fleet = fleet
        self.memo = memo
        self.clocks = clocks
        self.stream = Stream()

    @property
    def dropped(self):
        """Messages that slow readers did not get."""
        return self.stream.dropped

    def join(self, query, own):
        """A Telling that begins with what is kept now, as /api/state has it for a Query.

        Unless it says how many samples, these are as many of the newest as fit into SNAPSHOT_BYTES.
        """
        self.fleet.stream = self.stream
        now, wall = self.clocks()

        def cut(query):
            return state(self.fleet, self.memo, now, wall, query, own)

        snapshot = cut(query)
        return Telling(self, self.stream.join(), snapshot if query.samples is not None else _fitting(query, cut, snapshot))

    def leave(self, reader):
        if self.stream.leave(reader):
            self.fleet.stream = None    # from here on the fold notes nothing

    def cleared(self):
        """Slow requests have just been dropped: say which are left."""
        if self.fleet.stream is not None:
            self.stream.cleared(self.fleet.slow.keys(), self.clocks()[1])

    def frames(self, entry):
        """What tells an Entry: the bytes of a frame, or an iterator of frames for one that may be long; None for nothing to tell."""
        if entry.what == CLEARED:
            return fragments(self._kept(entry.about))
        if entry.shown is None:
            message = self._message(entry)
            if message is None:
                return None
            entry.shown = frame(TEXT, encoded(message))
            self.stream.weigh(entry, len(entry.shown))
        return entry.shown

    def _message(self, entry):
        if entry.what == SAMPLE:
            return sample(entry.shape, entry.datagram, entry.wall, self.memo)
        if entry.what == GC:
            _, _, kind, _, pid, _, _ = HEADER.unpack_from(entry.datagram)
            name = entry.shape.read(_NAME, entry.datagram) if _INTERPRETER in entry.shape.ids else b""
            head = f'"type":"{kind_name(kind)}","pid":{pid},{interpreter_head(name)}'
            return gc_record(entry.shape, entry.datagram, entry.wall, self.memo, head)
        if entry.what == EVENT:
            return text({"type": "lifecycle", "event": finite(entry.about)})
        now, _ = self.clocks()
        slow = self.fleet.slow.freeze(entry.about, now)
        if slow is None:
            return None                 # it has been dropped meanwhile
        stamp = finite(HEADER.unpack_from(entry.datagram)[_STAMP])
        return text({"type": "slow_request", **slow_entry(slow, now), "stamp": stamp})

    def _kept(self, keys):
        now, _ = self.clocks()
        return batched(self._kept_parts(keys, now))

    def _kept_parts(self, keys, now):
        yield '{"type":"slow_clear","kept":['
        yield from slow_parts(self.fleet, keys, now, Query())
        yield "]}"


def _fitting(query, cut, snapshot):
    """`snapshot`, of that query, with as many samples as fit; a turn for others after each step."""
    sizes = []
    for samples in (_FEW, _MORE):
        size = 0
        for piece in cut(Query(query.group, query.pid, samples, query.since)):
            size += len(piece)
            yield b""
        sizes.append(size)
    each = (sizes[1] - sizes[0]) / (_MORE - _FEW)
    if each:
        query.samples = max(0, _FEW + int((SNAPSHOT_BYTES - sizes[0]) / each))      # nothing of it has been read yet
    yield from snapshot


class Telling:
    """All that one reader is told, as frames."""

    def __init__(self, live, reader, snapshot):
        self._live = live
        self._reader = reader
        self._long = fragments(snapshot)        # the message under way that is told in pieces

    def piece(self):
        """The next bytes, always whole frames; b"" means "nothing yet, give the loop a turn", None that all is told."""
        if self._long is not None:
            piece = next(self._long, None)
            if piece is not None:
                return piece
            self._long = None
        frames, size = [], 0
        while size < TOGETHER:
            entry = self._live.stream.next(self._reader)
            if entry is None:
                break
            told = self._live.frames(entry)
            if told is None:
                continue
            if not isinstance(told, bytes):
                self._long = told
                break
            frames.append(told)
            size += len(told)
        if frames:
            return b"".join(frames)
        return None if self._long is None else b""

    def when_more(self, wake):
        """Call `wake()` once there is more, at once if there is."""
        self._live.stream.when_more(self._reader, wake)

    def close(self):
        if self._long is not None:
            self._long.close()
            self._long = None
        self._live.leave(self._reader)
