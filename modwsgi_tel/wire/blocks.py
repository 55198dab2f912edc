"""Blocks of raw records: the one format for what is kept, recorded and replayed.

A record is a datagram as it arrived, behind a head of receive time (f64, wall seconds),
sender's pid (u32, from the kernel's credentials, 0 unknown) and length (u32).  A packed
block is a gzip member of records, so packed blocks one after another are a capture file.
"""
import struct
import zlib

from modwsgi_tel.errors import Nonsense

RECORD = struct.Struct("<dII")
LEVEL = 3                               # a third slower than 1, a tenth smaller; 6 takes twice the time for 3 %
MAX_DATAGRAM = 1 << 18                  # a longer one is no record: what no socket here would have taken

_GZIP = 31                              # zlib's number for "with a gzip head, 32 KiB window"


def record(wall, pid, datagram):
    """One record as bytes."""
    return RECORD.pack(wall, pid, len(datagram)) + datagram


def pack(raw):
    """A gzip member of records."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP, 9)
    return packer.compress(raw) + packer.flush()


def unpack(packed):
    """The records of `pack`."""
    return zlib.decompress(packed, _GZIP)


def records(raw, most):
    """Yield (wall seconds, pid, datagram) of the first `most` of whole records."""
    at = 0
    for _ in range(most):
        wall, pid, length = RECORD.unpack_from(raw, at)
        at += RECORD.size + length
        yield wall, pid, raw[at - length:at]


def read(handle, name):
    """Yield (wall seconds, pid, datagram) from an open binary file, plain or gzip, of any size.

    Raises Nonsense where the file is not whole: what came before has been yielded.
    """
    chunks = _plain(handle, name)
    held = b""
    for chunk in chunks:
        held += chunk
        at = 0
        while len(held) - at >= RECORD.size:
            wall, pid, length = RECORD.unpack_from(held, at)
            if length > MAX_DATAGRAM:
                raise Nonsense(f"{name}: no capture: a record of {length} bytes")
            if len(held) - at - RECORD.size < length:
                break
            at += RECORD.size + length
            yield wall, pid, held[at - length:at]
        held = held[at:]
    if held:
        raise Nonsense(f"{name}: ends in the middle of a record ({len(held)} bytes over)")


def _plain(handle, name):
    head = handle.read(1 << 16)
    if head[:2] != b"\x1f\x8b":
        while head:
            yield head
            head = handle.read(1 << 16)
        return
    unpacker = zlib.decompressobj(_GZIP)
    try:
        while head:
            yield unpacker.decompress(head, 1 << 20)
            if unpacker.eof:
                head = unpacker.unused_data or handle.read(1 << 16)
                if head:
                    unpacker = zlib.decompressobj(_GZIP)
            else:
                head = unpacker.unconsumed_tail or handle.read(1 << 16)
    except zlib.error as error:
        raise Nonsense(f"{name}: not a whole gzip file: {error}") from None
    if not unpacker.eof:
        raise Nonsense(f"{name}: a gzip file cut short")
