"""Blocks of raw records: packed, read back, and what is said of a file that is not whole."""
import gzip
import io
import os
import struct
import tracemalloc
import zlib

import pytest

from builders import CAPTURES, NAMES, capture
from modwsgi_tel.errors import Nonsense
from modwsgi_tel.wire import blocks

RECORDS = [(1.5, 7, b"one"), (2.5, 0, b""), (float(2**31), 2**32 - 1, b"\x00" * 70000)]
RAW = b"".join(blocks.record(*each) for each in RECORDS)


class Dribble(io.BytesIO):
    """A file that gives a few bytes at a time."""

    def __init__(self, data, most):
        super().__init__(data)
        self.most = most

    def read(self, size=-1):
        return super().read(min(size, self.most))


def read(data, most=1 << 20):
    """(records, what was said at the end or None) of a file with these bytes."""
    found = []
    try:
        for record in blocks.read(Dribble(data, most), "FILE"):
            found.append(record)
    except Nonsense as error:
        return found, str(error)
    return found, None


def test_a_record_is_the_head_of_a_capture_and_the_datagram():
    assert blocks.record(1.5, 7, b"one") == struct.pack("<dII", 1.5, 7, 3) + b"one"


def test_what_is_packed_unpacks_and_is_gzip():
    assert blocks.unpack(blocks.pack(RAW)) == RAW == gzip.decompress(blocks.pack(RAW))


def test_records_come_back_in_order_and_no_more_than_asked():
    assert list(blocks.records(RAW, 3)) == RECORDS
    assert list(blocks.records(RAW, 1)) == RECORDS[:1] and list(blocks.records(RAW, 0)) == []


@pytest.mark.parametrize("data", [
    RAW, gzip.compress(RAW), blocks.pack(RAW),
    b"".join(blocks.pack(blocks.record(*each)) for each in RECORDS),            # a member for each record
    gzip.compress(RAW[:10]) + gzip.compress(RAW[10:]),                          # cut inside a record
    gzip.compress(b"") + gzip.compress(RAW) + gzip.compress(b""),
], ids=["plain", "gzip", "packed", "members", "cut members", "empty members"])
@pytest.mark.parametrize("most", [1 << 20, 1000, 7])
def test_a_file_reads_the_same_plain_or_gzip_in_one_member_or_many(data, most):
    assert read(data, most) == (RECORDS, None)


@pytest.mark.parametrize("data", [b"", gzip.compress(b"")])
def test_an_empty_file_has_no_records(data):
    assert read(data) == ([], None)


@pytest.mark.parametrize("cut", [1, 15, 16, 18, 20, 34, 40, 60000, len(RAW) - 1])
def test_a_plain_file_cut_short_gives_what_came_before_and_says_so(cut):
    whole = [record for record, end in zip(RECORDS, (19, 35, len(RAW))) if end <= cut]
    found, said = read(RAW[:cut])
    assert found == whole
    left = cut - (0, 19, 35)[len(whole)]
    assert said == (None if not left else f"FILE: ends in the middle of a record ({left} bytes over)")


def test_a_gzip_file_cut_short_gives_what_came_before_and_says_so():
    packed = blocks.pack(blocks.record(*RECORDS[0])) + blocks.pack(blocks.record(*RECORDS[1]))
    assert read(packed[:-1]) == (RECORDS[:2], "FILE: a gzip file cut short")
    for cut in range(3, len(packed) - 1):
        found, said = read(packed[:cut])
        assert found == RECORDS[:len(found)]
        assert said is not None or cut == len(blocks.pack(blocks.record(*RECORDS[0])))


@pytest.mark.parametrize("damage", [b"\0" * 40, b"garbage"])
def test_what_stands_behind_a_gzip_member_and_is_none_is_said(damage):
    found, said = read(gzip.compress(RAW) + damage)
    assert found == RECORDS and said.startswith("FILE: not a whole gzip file")


def test_a_damaged_gzip_file_is_said():
    packed = bytearray(gzip.compress(os.urandom(5000)))
    packed[100] ^= 0xFF
    assert read(bytes(packed))[1].startswith("FILE: ")


@pytest.mark.parametrize("length", [blocks.MAX_DATAGRAM + 1, 2**32 - 1])
def test_a_length_that_no_datagram_has_is_refused_at_once(length):
    data = blocks.record(*RECORDS[0]) + struct.pack("<dII", 1.0, 7, length) + b"x" * 1000
    assert read(data) == (RECORDS[:1], f"FILE: no capture: a record of {length} bytes")


def test_the_longest_datagram_is_read():
    longest = (1.0, 7, b"x" * blocks.MAX_DATAGRAM)
    assert read(blocks.record(*longest) * 2) == ([longest] * 2, None)


def test_a_bomb_is_not_held_in_memory():
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(bomb.compress(blocks.record(1.0, 7, b"\0" * 100_000)) for _ in range(500)) + bomb.flush()
    assert len(packed) < 100_000                    # for 50 MB
    tracemalloc.start()
    try:
        assert sum(1 for _ in blocks.read(io.BytesIO(packed), "FILE")) == 500
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20


@pytest.mark.parametrize("name", NAMES)
def test_every_capture_reads_as_its_description_says(name):
    import json
    with open(os.path.join(CAPTURES, name + ".json")) as handle:
        said = json.load(handle)
    assert len(capture(name)) == said["datagrams"]
    with gzip.open(os.path.join(CAPTURES, name + ".cap.gz")) as handle:
        raw = handle.read()
    assert b"".join(blocks.record(*each) for each in capture(name)) == raw
    assert list(blocks.records(raw, len(capture(name)))) == capture(name)
