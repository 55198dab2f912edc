"""Shapes: the order of fields in a datagram, compiled once and then checked in one step.

A process sends the same sequence of fields tick after tick.  The first datagram of a
sequence is walked field by field; what was learned becomes a Shape.  The next one is read
as one little-endian integer and compared with the shape under a mask that covers every
byte which is not a value.  A value is cut out only when somebody asks for it.

The integer has a second use.  Adding up the integers of many datagrams under
`histogram_mask` adds up all their histogram counts at once, one 32-bit lane each.  The
mask of the check also demands that the upper half of each lane is zero, so up to 65,535
datagrams can be added before a lane could run into its neighbour.  And it demands that no
measured float has its sign bit set, so that nobody has to look for that.
"""
import struct
from json import dumps
from operator import itemgetter

from modwsgi_tel.errors import WireError
from modwsgi_tel.wire.buckets import BUCKETS
from modwsgi_tel.wire.fields import (F64, F64S, I32S, I64, LONG_REQUEST, MAGIC, PHASE_FIELDS, PRIVATE_KINDS, TEXT, TYPE_NAMES, TYPE_OF, U64,
                                     VERSION, field_name)

HEADER = struct.Struct("<4sBBHIId")     # magic, version, kind, flags, pid, seq, stamp
PREFIX = MAGIC + bytes([VERSION])
LANES_MAX = 65535                       # datagrams whose histogram lanes may be added up without a carry

_TLV = struct.Struct("<HB")
_COUNT = struct.Struct("<H")
_SCALARS = {U64: "Q", F64: "d", I64: "q"}
_ELEMENTS = {TEXT: 1, I32S: 4, F64S: 8}
_NEVER_NEGATIVE = frozenset(range(10, 90))      # what a tick measures: a sign bit there is nonsense
_LANES = (1 << 32 * BUCKETS) - 1
_PHASE_OF = {ids[3]: phase for phase, ids in PHASE_FIELDS.items()}


def walk(datagram):
    """The fields of a datagram as a tuple of (id, type, elements, offset of the value).

    Scalars have elements 0.  Raises WireError for anything that is not a whole, well-formed
    datagram: wrong magic or version, a value cut short, an unknown type, a field twice, a
    known field with a type that is not its own.  Source: the format's version 1.
    """
    size = len(datagram)
    if size < HEADER.size:
        raise WireError("header", f"{size} bytes, a header has {HEADER.size}")
    if datagram[:4] != MAGIC:
        raise WireError("magic", f"starts with {datagram[:4]!r}, not {MAGIC!r}")
    if datagram[4] != VERSION:
        raise WireError("version", f"version {datagram[4]}, known is {VERSION}")
    at, found, seen = HEADER.size, [], set()
    while at < size:
        if at + 3 > size:
            raise WireError("truncated", f"a field header cut at byte {size}")
        field, kind = _TLV.unpack_from(datagram, at)
        at += 3
        if kind in _SCALARS:
            count, length = 0, 8
        elif kind in _ELEMENTS:
            if at + 2 > size:
                raise WireError("truncated", f"{field_name(field)}: its count is cut")
            count, = _COUNT.unpack_from(datagram, at)
            at += 2
            length = count * _ELEMENTS[kind]
        else:
            raise WireError("type", f"{field_name(field)}: unknown type {kind}")
        if at + length > size:
            raise WireError("truncated", f"{field_name(field)}: {length} bytes, {size - at} are left")
        if TYPE_OF.get(field, kind) != kind:
            raise WireError("wrong_type",
                            f"{field_name(field)}: is {TYPE_NAMES[kind]}, must be {TYPE_NAMES[TYPE_OF[field]]}")
        if field in seen:
            raise WireError("duplicate", f"{field_name(field)}: twice")
        seen.add(field)
        found.append((field, kind, count, at))
        at += length
    return tuple(found)


def unpack_lanes(number):
    """65 counts of an integer of 32-bit lanes."""
    return struct.unpack(f"<{BUCKETS}I", number.to_bytes(4 * BUCKETS, "little"))


class Wanted(tuple):
    """Field ids for Shape.read, told apart by identity: hashing thirty numbers takes longer than reading them."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Shape:
    """One sequence of fields.  Made from a checked layout; every reader trusts the check.

    `ids` are the ids of the known fields; `identity` is the slice of the leading text and number fields
    1 to 7, which are the same bytes in every tick of a process.
    """

    __slots__ = ("size", "layout", "ids", "mask", "pattern", "histogram_mask", "identity", "_readers", "_json")

    def __init__(self, size, layout):
        self.size = size
        self.layout = layout
        self.ids = frozenset(field for field, _, _, _ in layout if field in TYPE_OF)
        mask, pattern, lanes = bytearray(size), bytearray(size), bytearray(size)
        mask[:len(PREFIX)] = b"\xff" * len(PREFIX)
        pattern[:len(PREFIX)] = PREFIX
        identity_end = HEADER.size
        for field, kind, count, at in layout:
            head = _TLV.pack(field, kind) + (_COUNT.pack(count) if kind in _ELEMENTS else b"")
            mask[at - len(head):at] = b"\xff" * len(head)
            pattern[at - len(head):at] = head
            if field in _PHASE_OF and count == BUCKETS:
                mask[at:at + 4 * count] = b"\0\0\xff\xff" * count
                lanes[at:at + 4 * count] = b"\xff" * (4 * count)
            if kind == F64 and field in _NEVER_NEGATIVE:
                mask[at + 7] = 0x80
            if field <= 7 and at - len(head) == identity_end:
                identity_end = at + (count if kind == TEXT else 8)
        self.mask = int.from_bytes(mask, "little")
        self.pattern = int.from_bytes(pattern, "little")
        self.histogram_mask = int.from_bytes(lanes, "little")
        self.identity = slice(HEADER.size, identity_end)
        self._readers = {}
        self._json = None

    def read(self, ids, datagram):
        """The values of these scalar or text fields, in the order of `ids`; 0 where one is absent.

        Text comes as bytes.  `ids` is a tuple of two or more, on the hot path a Wanted; the reader for
        it is compiled once.
        """
        try:
            unpack, order = self._readers[ids]
        except KeyError:
            unpack, order = self._readers[ids] = self._reader(ids)
        return order(unpack(datagram) + (0,))

    def _reader(self, ids):
        code, at, places = ["<"], 0, {}
        for field, kind, count, offset in self.layout:
            if field in ids:
                places[field] = len(places)
                code.append(f"{offset - at}x{_SCALARS.get(kind) or f'{count * _ELEMENTS[kind]}s'}")
                at = offset + (count * _ELEMENTS[kind] if kind in _ELEMENTS else 8)
        code.append(f"{self.size - at}x")
        return struct.Struct("".join(code)).unpack, itemgetter(*(places.get(field, len(places)) for field in ids))

    def fields(self, datagram):
        """All fields as {name: int, float, str or list}; text that is not UTF-8 has U+FFFD in its place."""
        return {field_name(field): self._value(kind, count, at, datagram) for field, kind, count, at in self.layout}

    def values(self, datagram):
        """All fields as [(id, type, value)] with text as bytes: what `encode` takes."""
        return [(field, kind, datagram[at:at + count] if kind == TEXT else self._value(kind, count, at, datagram))
                for field, kind, count, at in self.layout]

    @staticmethod
    def _value(kind, count, at, datagram):
        if kind in _SCALARS:
            return struct.unpack_from("<" + _SCALARS[kind], datagram, at)[0]
        if kind == TEXT:
            return datagram[at:at + count].decode("utf-8", "replace")
        return list(struct.unpack_from(f"<{count}{'i' if kind == I32S else 'd'}", datagram, at))

    def array(self, field, datagram):
        """The elements of an array field, () when this shape has it not."""
        for number, kind, count, at in self.layout:
            if number == field:
                return struct.unpack_from(f"<{count}{'i' if kind == I32S else 'd'}", datagram, at)
        return ()

    def histograms(self, total):
        """Split a sum of integers under `histogram_mask` into {phase: 65 counts}."""
        data = total.to_bytes(self.size + 4, "little")
        return {_PHASE_OF[field]: struct.unpack_from(f"<{BUCKETS}I", data, at)
                for field, _, count, at in self.layout if field in _PHASE_OF and count == BUCKETS}

    def histogram(self, total, phase):
        """65 counts of one phase out of such a sum, or None when this shape has it not."""
        for field, _, count, at in self.layout:
            if _PHASE_OF.get(field) == phase and count == BUCKETS:
                return struct.unpack_from(f"<{BUCKETS}I", total.to_bytes(self.size + 4, "little"), at)
        return None

    def lanes(self, total, phase):
        """The lanes of one phase in such a sum, as an integer; 0 when this shape has it not."""
        for field, _, count, at in self.layout:
            if _PHASE_OF.get(field) == phase and count == BUCKETS:
                return total >> 8 * at & _LANES
        return 0

    def wide_histograms(self, datagram):
        """{phase: 65 counts} of one datagram whose counts do not fit the lanes; negative ones are 0."""
        return {_PHASE_OF[field]: [max(0, n) for n in struct.unpack_from(f"<{BUCKETS}i", datagram, at)]
                for field, _, count, at in self.layout if field in _PHASE_OF and count == BUCKETS}

    def json(self, datagram, memo):
        """The object of `fields` as strict JSON text (NaN and infinity are null).

        `memo` is a TextMemo: the same identity texts and histograms come tick after tick.
        """
        if self._json is None:
            self._json = self._compile_json()
        unpack, template, converted = self._json
        values = list(unpack(datagram))
        for place, convert in converted:
            raw = values[place]
            values[place] = memo.get((convert, raw)) or memo.add((convert, raw), convert(raw))
        text = template % tuple(values)
        if "nan" in text or "inf" in text:      # a number that JSON has not, or a text that looks like one
            return dumps(finite(self.fields(datagram)), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text

    def _compile_json(self):
        code, parts, converted, place = [f"<{HEADER.size}x"], [], [], 0
        for field, kind, count, _ in self.layout:
            head = dumps(field_name(field)) + ":"
            code.append("5x" if kind in _ELEMENTS else "3x")
            if kind in _SCALARS:
                code.append(_SCALARS[kind])
                parts.append(head + "%r")
                place += 1
            elif kind == F64S:
                code.append(f"{count}d" if count else "")
                parts.append(head + "[" + ",".join(["%r"] * count) + "]")
                place += count
            else:
                code.append(f"{count * _ELEMENTS[kind]}s")
                parts.append(head + "%s")
                converted.append((place, text_json if kind == TEXT else counts_json))
                place += 1
        return struct.Struct("".join(code)).unpack, "{" + ",".join(parts) + "}", converted


def text_json(raw):
    """Bytes as a JSON string; what is not UTF-8 becomes U+FFFD."""
    return dumps(raw.decode("utf-8", "replace"), ensure_ascii=False)


def counts_json(raw):
    """An array of i32 as JSON."""
    return str(list(struct.unpack(f"<{len(raw) // 4}i", raw))).replace(" ", "")


def finite(value):
    """The same plain data with None in the place of NaN and infinity, at any depth."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


class TextMemo(dict):
    """JSON text by its raw bytes; emptied when it holds `limit` characters and bytes."""

    __slots__ = ("limit", "held")

    def __init__(self, limit=1 << 20):
        super().__init__()
        self.limit = limit
        self.held = 0

    def add(self, key, text):
        self.held += len(text) + len(key[1]) + 200      # about what an entry costs beside its text
        if self.held > self.limit:
            self.clear()
            self.held = len(text) + len(key[1]) + 200
        self[key] = text
        return text


class Shapes:
    """The shapes seen lately, found by a datagram's length; `limit` bounds the bytes of all patterns.

    A datagram of a known shape costs two integer operations, any other one a walk.  When the
    limit is passed all are forgotten and learned again: senders with many shapes cost time,
    never memory.
    """

    def __init__(self, limit=1 << 20):
        self._by_size = {}
        self._limit = limit
        self._held = 0

    def check(self, datagram):
        """(shape, integer) of a datagram; integer is None when its histograms do not fit the lanes,
        or a measured float is negative: then it takes a slower way.

        Raises WireError as `walk` does.
        """
        number = int.from_bytes(datagram, "little")
        known = self._by_size.get(len(datagram), ())
        for shape in known:
            if number & shape.mask == shape.pattern:
                return shape, number
        layout = walk(datagram)
        for shape in known:
            if shape.layout == layout:
                return shape, None
        if datagram[5] >= PRIVATE_KINDS and datagram[5] != LONG_REQUEST:    # as many shapes as records: to learn one gains nothing
            return Shape(len(datagram), layout), None
        shape = self._learn(len(datagram), layout)
        return shape, number if number & shape.mask == shape.pattern else None

    def _learn(self, size, layout):
        shape = Shape(size, layout)
        cost = 4 * size + 2000
        self._held += cost
        if self._held > self._limit:
            self._by_size.clear()
            self._held = cost
        self._by_size.setdefault(size, []).insert(0, shape)
        return shape
