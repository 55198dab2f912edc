"""Any bytes give a Sample or WireError, never another exception and never a value cut short; what decodes encodes back.

    WIRE_FUZZ_SEED=17 WIRE_FUZZ_ROUNDS=100000 python -m pytest tests/test_wire_codec.py
"""
import os
import random
import struct

import pytest

import builders
from builders import CORPUS, NAMES, Worker, datagrams
from modwsgi_tel.errors import WireError
from modwsgi_tel.wire.codec import decode, encode, named
from modwsgi_tel.wire.fields import F64, F64S, I32S, I64, KINDS, TEXT, U64
from modwsgi_tel.wire.shapes import HEADER, walk

SEED = int(os.environ.get("WIRE_FUZZ_SEED") or random.randrange(2**32))
ROUNDS = int(os.environ.get("WIRE_FUZZ_ROUNDS") or 6000)
NAN, INF = float("nan"), float("inf")


def header(kind=2, pid=6001, seq=1, stamp=1.5, magic=b"WSGI", version=1, flags=0):
    return HEADER.pack(magic, version, kind, flags, pid, seq, stamp)


def tlv(field, type_, body):
    return struct.pack("<HB", field, type_) + body


def text(field, value):
    return tlv(field, TEXT, struct.pack("<H", len(value)) + value)


def u64(field, value):
    return tlv(field, U64, struct.pack("<Q", value))


def f64(field, value):
    return tlv(field, F64, struct.pack("<d", value))


def i32s(field, values):
    return tlv(field, I32S, struct.pack(f"<H{len(values)}i", len(values), *values))


def f64s(field, values):
    return tlv(field, F64S, struct.pack(f"<H{len(values)}d", len(values), *values))


def reason_of(datagram):
    with pytest.raises(WireError) as caught:
        decode(datagram)
    assert caught.value.reason in WireError.REASONS
    assert "\n" not in str(caught.value)
    return caught.value.reason


# --- captures -------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_every_captured_datagram_decodes_and_encodes_back_to_the_same_bytes(name):
    for datagram in datagrams(name):
        sample = decode(datagram)
        assert sample.kind in KINDS
        assert encode(sample.kind, sample.pid, sample.seq, sample.stamp, sample.shape.values(datagram), sample.flags) == datagram


def test_captured_fields_have_only_known_names():
    unknown = {name for datagram in datagrams() for name in decode(datagram).fields if name.startswith("id")}
    assert unknown == set()


# --- one datagram ------------------------------------------------------------------

def test_a_datagram_reads_as_its_header_and_its_fields():
    sent = encode(4, 7, 9, 12.5, [(200, U64, 1), (202, F64, 2.5), (214, TEXT, "/caf\u00e9"), (42, I64, -3),
                                  (110, I32S, [1, -2]), (111, F64S, [0.5])], flags=3)
    sample = decode(sent)
    assert (sample.kind, sample.pid, sample.seq, sample.stamp, sample.flags) == (4, 7, 9, 12.5, 3)
    assert sample.fields == {"slow_record_state": 1, "slow_duration": 2.5, "slow_path_info": "/caf\u00e9", "id42": -3,
                             "request_threads_completed": [1, -2], "request_threads_busy_time": [0.5]}
    assert sent == (header(4, 7, 9, 12.5, flags=3) + u64(200, 1) + f64(202, 2.5) + text(214, b"/caf\xc3\xa9")
                    + tlv(42, I64, struct.pack("<q", -3)) + i32s(110, [1, -2]) + f64s(111, [0.5]))


def test_fields_by_name_take_their_id_and_type_from_the_table():
    assert named(hostname="a", request_count=1) == [(5, TEXT, "a"), (20, U64, 1)]


def test_empty_values_are_values():
    assert decode(header() + text(5, b"") + i32s(110, []) + f64s(111, [])).fields == {
        "hostname": "", "request_threads_completed": [], "request_threads_busy_time": []}


def test_text_that_is_not_utf8_keeps_its_bytes_and_shows_replacement_characters():
    sample = decode(header() + text(5, b"a\xff\xed\xa0\x80"))
    assert sample.fields == {"hostname": "a\ufffd\ufffd\ufffd\ufffd"}
    assert sample.shape.values(sample.datagram) == [(5, TEXT, b"a\xff\xed\xa0\x80")]


def test_seq_is_taken_modulo_2_to_the_32():
    assert decode(encode(2, 1, 2**32 + 5, 0.0, [])).seq == 5


@pytest.mark.parametrize("type_, value", [(U64, -1), (U64, 2**64), (I64, 2**63), (I32S, [2**31])])
def test_encoding_a_value_that_its_type_cannot_hold_fails(type_, value):
    with pytest.raises((struct.error, OverflowError)):
        encode(2, 1, 1, 0.0, [(42, type_, value)])


def test_encoding_an_unknown_type_fails():
    with pytest.raises(ValueError):
        encode(2, 1, 1, 0.0, [(42, 7, 1)])


# --- what is wrong, and why ------------------------------------------------------------

@pytest.mark.parametrize("reason, datagram", [
    ("header", b""),
    ("header", b"WSGI"),
    ("header", header()[:23]),
    ("magic", header(magic=b"IGSW")),
    ("magic", header(magic=b"wsgi") + u64(20, 1)),
    ("version", header(version=0)),
    ("version", header(version=2)),
    ("version", header(version=255)),
    ("truncated", header() + b"\x05"),
    ("truncated", header() + b"\x05\x00"),
    ("truncated", header() + u64(20, 1)[:-1]),
    ("truncated", header() + u64(20, 1)[:3]),
    ("truncated", header() + f64(22, 1.0)[:-7]),
    ("truncated", header() + text(5, b"abc")[:4]),
    ("truncated", header() + text(5, b"abc")[:-1]),
    ("truncated", header() + tlv(5, TEXT, b"\xff\xffabc")),
    ("truncated", header() + tlv(110, I32S, b"\xff\xffabc")),
    ("truncated", header() + i32s(110, [1, 2])[:-1]),
    ("truncated", header() + tlv(111, F64S, b"\xff\xffabc")),
    ("type", header() + tlv(20, 0x99, b"12345678")),
    ("type", header() + tlv(20, 0, b"12345678")),
    ("type", header() + tlv(40000, 7, b"12345678")),
    ("duplicate", header() + u64(20, 1) + u64(20, 1)),
    ("duplicate", header() + u64(40000, 1) + text(40000, b"x")),
    ("wrong_type", header() + text(20, b"many")),
    ("wrong_type", header() + text(10, b"x")),
    ("wrong_type", header() + f64s(40, [1.0])),
    ("wrong_type", header() + u64(5, 7)),
    ("wrong_type", header() + i32s(6, [1])),
    ("wrong_type", header() + text(90, b"no")),
    ("wrong_type", header(4) + text(203, b"abc")),
    ("wrong_type", header(4) + i32s(240, [200])),
    ("wrong_type", header(4) + f64(203, NAN)),
    ("wrong_type", header(5) + f64(7, NAN)),
    ("wrong_type", header(7) + text(131, b"abc")),
    ("wrong_type", header(9) + text(321, b"abc")),
    ("wrong_type", header() + tlv(20, I64, b"12345678")),
    ("wrong_type", header() + f64s(110, [1.0])),
])
def test_what_is_no_datagram_is_refused_with_its_reason(reason, datagram):
    assert reason_of(datagram) == reason


@pytest.mark.parametrize("datagram, fields", [
    (header(), {}),
    (header(77) + u64(40, 1), {"memory_rss": 1}),
    (header(1) + u64(40, 1), {"memory_rss": 1}),
    (header(3) + u64(40, 1), {"memory_rss": 1}),
    (header(255), {}),
    (header() + u64(40000, 1) + text(65535, b"x") + u64(0, 3), {"id40000": 1, "id65535": "x", "id0": 3}),
    (header(flags=0xFFFF, pid=0, seq=0), {}),
    (header(pid=2**32 - 1, seq=2**32 - 1), {}),
    (header() + f64(60, INF) + f64s(111, [-INF, 1.0]), {"server_time": INF, "request_threads_busy_time": [-INF, 1.0]}),
    (header() + u64(20, 2**64 - 1), {"request_count": 2**64 - 1}),
    (header(8) + text(8, b"www.example.com|/app"), {"interpreter_name": "www.example.com|/app"}),
    (header(9) + u64(20, 1), {"request_count": 1}),                         # the kinds column never rejects
    (header() + text(5, b"\x1b]0;x\x07</script>\0"), {"hostname": "\x1b]0;x\x07</script>\0"}),
])
def test_what_is_strange_but_whole_is_kept(datagram, fields):
    assert decode(datagram).fields == fields


def test_a_stamp_and_a_field_may_be_nan():
    sample = decode(header(stamp=NAN) + f64(22, NAN))
    assert sample.stamp != sample.stamp and sample.fields["capacity_utilization"] != sample.fields["capacity_utilization"]


@pytest.mark.parametrize("size", [60000, 65535])
def test_long_texts_and_arrays_are_kept(size):
    assert decode(header() + text(5, b"h" * size)).fields == {"hostname": "h" * size}
    assert decode(header() + i32s(110, [1] * 16000)).fields == {"request_threads_completed": [1] * 16000}


def test_every_way_to_cut_a_datagram_short_is_refused_or_ends_between_fields():
    datagram = Worker().tick(requests=2)
    ends = {at + (8 if count == 0 and type_ in (U64, F64, I64) else count * {TEXT: 1, I32S: 4, F64S: 8}[type_])
            for _, type_, count, at in walk(datagram)} | {HEADER.size}
    for size in range(len(datagram)):
        if size in ends:
            decode(datagram[:size])
        else:
            assert reason_of(datagram[:size]) in ("header", "truncated")


# --- fuzz --------------------------------------------------------------------------

SCRAPS = (b"WSGI", b"\0", b"\xff", b"\xff\xff", b"\x01\x00", b"\x05\x00\x04\xff\xff", b"\x14\x00\x01" + b"\0" * 8, b"\x5a\x00\x05\x41\x00",
          b"\x00\x00\x00\x00\x00\x00\xf8\x7f", b"\x00\x00\x00\x00\x00\x00\xf0\x7f", b"\x05\x00\x04\x00\x00", b"\x99")


def mutated(rng, corpus):
    """A captured datagram with some of it changed, cut, doubled, or another's in its place; or plain noise."""
    data = bytearray(rng.choice(corpus))
    if rng.random() < .05:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((0, 1, 2, 3, 8, 50)))
        how = rng.randrange(6)
        if how == 0:
            data[at:at + 1] = bytes((rng.randrange(256),))
        elif how == 1:
            data[at:end] = rng.choice(SCRAPS)
        elif how == 2:
            del data[at:end]
        elif how == 3:
            data[at:at] = data[at:end]
        elif how == 4:
            del data[at:]
        else:
            data += rng.choice(corpus)[24:][:rng.choice((11, 20, 60, 5000))]
    return bytes(data)


def holds(datagram):
    """The invariant of this file's first line."""
    try:
        sample = decode(datagram)
    except WireError as error:
        assert error.reason in WireError.REASONS and "\n" not in str(error)
        return False
    values = sample.shape.values(datagram)
    assert encode(sample.kind, sample.pid, sample.seq, 0.0, values, sample.flags)[24:] == datagram[24:]
    assert len(sample.fields) == len(values)
    return True


def test_any_bytes_give_a_sample_or_a_wire_error():
    print(f"WIRE_FUZZ_SEED={SEED}")
    rng, corpus = random.Random(SEED), datagrams("smoke", "gunk", "subinterp")
    whole = sum(holds(mutated(rng, corpus)) for _ in range(ROUNDS))
    assert ROUNDS / 20 < whole < ROUNDS * 19 / 20           # else it looks at one side only


def test_what_once_failed_holds():
    for name in sorted(os.listdir(CORPUS)):
        if name.endswith(".datagram"):
            with open(os.path.join(CORPUS, name), "rb") as handle:
                holds(handle.read())


def test_the_builders_send_what_mod_wsgi_sends():
    worker = Worker()
    real = {}
    for datagram in datagrams():
        sample = decode(datagram)
        real.setdefault(sample.kind, set()).update(sample.fields)
    for made in (worker.started(), worker.tick(3), worker.slow(), worker.gc_snapshot("x"), worker.gc_event("x"),
                 worker.stopping(), worker.stopped()):
        sample = decode(made)
        assert set(sample.fields) <= real[sample.kind]
    assert builders.buckets(0.001, 0.5, 100.0)[0] == builders.buckets(0.001, 0.5, 100.0)[64] == 1
