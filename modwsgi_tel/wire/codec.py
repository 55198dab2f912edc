"""Datagrams to samples and back, one at a time and without any I/O.

The collector's hot path uses `shapes` directly; this is the plain way for everything else.
"""
import struct
from collections import namedtuple

from modwsgi_tel.wire.fields import BY_NAME, F64, F64S, I32S, I64, MAGIC, TEXT, U64, VERSION
from modwsgi_tel.wire.shapes import HEADER, Shape, walk

Sample = namedtuple("Sample", "kind flags pid seq stamp shape datagram")
Sample.__doc__ = """A checked datagram: its header (stamp: wall seconds) and, by `shape`, its fields."""
Sample.fields = property(lambda self: self.shape.fields(self.datagram))


def decode(datagram):
    """The Sample of a datagram.

    Any bytes whatever give a Sample or WireError, never a value cut short.  Unknown ids are
    kept as `id42`.
    """
    layout = walk(datagram)
    _, _, kind, flags, pid, seq, stamp = HEADER.unpack_from(datagram)
    return Sample(kind, flags, pid, seq, stamp, Shape(len(datagram), layout), datagram)


def encode(kind, pid, seq, stamp, values, flags=0):
    """The datagram of `values`: [(id, type, value)], in this order; text as bytes or str.

    Raises struct.error or OverflowError for a value that its type cannot hold.
    """
    parts = [HEADER.pack(MAGIC, VERSION, kind, flags, pid, seq & 0xFFFFFFFF, stamp)]
    for field, type_, value in values:
        if type_ == U64:
            parts.append(struct.pack("<HBQ", field, type_, value))
        elif type_ == F64:
            parts.append(struct.pack("<HBd", field, type_, value))
        elif type_ == I64:
            parts.append(struct.pack("<HBq", field, type_, value))
        elif type_ == TEXT:
            raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            parts.append(struct.pack("<HBH", field, type_, len(raw)) + raw)
        elif type_ == I32S:
            parts.append(struct.pack(f"<HBH{len(value)}i", field, type_, len(value), *value))
        elif type_ == F64S:
            parts.append(struct.pack(f"<HBH{len(value)}d", field, type_, len(value), *value))
        else:
            raise ValueError(f"field {field}: no such type {type_}")
    return b"".join(parts)


def named(**values):
    """Fields by their names as `encode` takes them, with the types of the table, in the order given."""
    return [(BY_NAME[name].id, BY_NAME[name].type, value) for name, value in values.items()]
