"""Shapes read a datagram in one step exactly as walking it field by field does, whatever the bytes and the cache.

    WIRE_FUZZ_SEED=17 WIRE_FUZZ_ROUNDS=100000 python -m pytest tests/test_wire_shapes.py
"""
import json
import random
import struct

import pytest

from builders import NAMES, Worker, datagrams
from modwsgi_tel.errors import WireError
from modwsgi_tel.wire.buckets import BUCKETS, merge
from modwsgi_tel.wire.codec import decode, encode
from modwsgi_tel.wire.fields import F64, F64S, I32S, PHASE_FIELDS, PHASES, TEXT, U64
from modwsgi_tel.wire.shapes import LANES_MAX, Shape, Shapes, TextMemo, finite, walk
from test_wire_codec import ROUNDS, SEED, mutated

NAN, INF = float("nan"), float("inf")


def shape_of(datagram):
    return Shape(len(datagram), walk(datagram))


def checked(shapes, datagram):
    """What a cache says of a datagram: its layout, or the reason why it is none."""
    try:
        return shapes.check(datagram)[0].layout
    except WireError as error:
        return error.reason


def walked(datagram):
    try:
        return walk(datagram)
    except WireError as error:
        return error.reason


def sums_of(found):
    """{phase: counts} that the second result of check() stands for."""
    (shape, number), datagram = found
    if number is None:
        return shape.wide_histograms(datagram)
    return {phase: list(row) for phase, row in shape.histograms(number & shape.histogram_mask).items()}


def lists_of(datagram):
    """The same, field by field; negative counts are 0."""
    fields = decode(datagram).fields
    names = {phase: f"{phase}_time_buckets" for phase in PHASES}
    return {phase: [max(0, n) for n in fields[name]] for phase, name in names.items()
            if name in fields and len(fields[name]) == BUCKETS}


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")
    return json.loads(text, parse_constant=refuse)


# --- check agrees with walk ----------------------------------------------------------

@pytest.mark.parametrize("limit", [1 << 20, 60_000, 1])         # roomy, forgetting now and then, forgetting always
def test_check_agrees_with_walk_on_every_capture(limit):
    shapes = Shapes(limit)
    for name in NAMES:
        for datagram in datagrams(name):
            shape, number = shapes.check(datagram)
            assert shape.layout == walk(datagram)
            assert number == int.from_bytes(datagram, "little")


@pytest.mark.parametrize("limit", [1 << 20, 60_000])
def test_check_agrees_with_walk_on_mutated_captures(limit):
    print(f"WIRE_FUZZ_SEED={SEED}")
    rng, shapes = random.Random(SEED), Shapes(limit)
    corpus = datagrams("smoke", "gunk", "subinterp")
    for _ in range(ROUNDS):
        datagram = mutated(rng, corpus)
        assert checked(shapes, datagram) == walked(datagram)
        if rng.random() < .3:                                   # changed values in a known shape
            datagram = bytearray(rng.choice(corpus))
            for _ in range(rng.choice((1, 1, 3))):
                datagram[rng.randrange(len(datagram))] = rng.randrange(256)
            datagram = bytes(datagram)
            assert checked(shapes, datagram) == walked(datagram)
            if isinstance(walked(datagram), tuple):
                assert sums_of((shapes.check(datagram), datagram)) == lists_of(datagram)


def test_a_known_shape_is_found_again_and_not_learned_twice():
    worker, shapes = Worker(), Shapes()
    first, _ = shapes.check(worker.tick(3))
    assert all(shapes.check(worker.tick(3))[0] is first for _ in range(5))


def test_what_the_shapes_hold_stays_below_their_limit():
    shapes = Shapes(200_000)
    for length in range(3000):
        shapes.check(encode(2, 1, 1, 0.0, [(5, TEXT, b"x" * length)]))
    assert sum(4 * shape.size + 2000 for held in shapes._by_size.values() for shape in held) <= 200_000


def test_two_layouts_of_one_length_are_two_shapes():
    shapes = Shapes()
    one, two = encode(2, 1, 1, 0.0, [(20, U64, 5)]), encode(2, 1, 1, 0.0, [(22, F64, 5.0)])
    assert len(one) == len(two)
    for _ in range(3):
        assert shapes.check(one)[0].layout == ((20, U64, 0, 27),)
        assert shapes.check(two)[0].layout == ((22, F64, 0, 27),)


# --- reading ----------------------------------------------------------------------

def test_read_gives_values_in_the_order_asked_and_zero_for_what_is_absent():
    datagram = encode(2, 1, 1, 0.0, [(5, TEXT, b"web\xff"), (20, U64, 3), (111, F64S, [1.0, 2.0]), (22, F64, 0.5)])
    shape = shape_of(datagram)
    assert shape.read((22, 20, 5), datagram) == (0.5, 3, b"web\xff")
    assert shape.read((20, 30), datagram) == (3, 0)
    assert shape.read((31, 30), datagram) == (0, 0)
    assert shape_of(encode(2, 1, 1, 0.0, [])).read((20, 22), encode(2, 1, 1, 0.0, [])) == (0, 0)


def test_read_agrees_with_the_fields_on_every_capture():
    shapes, ids = Shapes(), (64, 10, 20, 5, 124)
    for datagram in datagrams():
        shape, _ = shapes.check(datagram)
        values = {number: value for number, _, value in shape.values(datagram)}
        assert shape.read(ids, datagram) == tuple(values.get(number, 0) for number in ids)


def test_identity_is_the_leading_text_and_number_fields():
    worker = Worker()
    tick, again = worker.tick(1), worker.tick(1)
    assert tick[shape_of(tick).identity] == again[shape_of(again).identity] != Worker(group="x").tick(1)[shape_of(tick).identity]
    assert tick[shape_of(tick).identity].endswith((1000).to_bytes(8, "little"))         # the parent's pid is the last of it
    assert encode(2, 1, 1, 0.0, [(20, U64, 1)])[shape_of(encode(2, 1, 1, 0.0, [(20, U64, 1)])).identity] == b""


# --- JSON --------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_the_json_of_every_captured_datagram_is_that_of_its_fields(name):
    shapes, memo = Shapes(), TextMemo()
    for datagram in datagrams(name):
        shape, _ = shapes.check(datagram)
        said = shape.json(datagram, memo)
        assert said == json.dumps(finite(shape.fields(datagram)), ensure_ascii=False, separators=(",", ":"))
        assert strict(said) == shape.fields(datagram)


@pytest.mark.parametrize("values, fields", [
    ([], {}),
    ([(22, F64, NAN), (60, F64, INF), (61, F64, -INF)], {"capacity_utilization": None, "server_time": None, "queue_time": None}),
    ([(111, F64S, [NAN, 1.0, -INF])], {"request_threads_busy_time": [None, 1.0, None]}),
    ([(111, F64S, []), (110, I32S, []), (5, TEXT, b"")],
     {"request_threads_busy_time": [], "request_threads_completed": [], "hostname": ""}),
    ([(5, TEXT, b"banana infinity"), (22, F64, 0.5)], {"hostname": "banana infinity", "capacity_utilization": 0.5}),
    ([(5, TEXT, b'%s"\\\x00\x1f\xe2\x80\xa8\xff')], {"hostname": '%s"\\\x00\x1f\u2028\ufffd'}),
    ([(20, U64, 2**64 - 1), (42, 3, -2**63), (43, F64, 1e308), (44, F64, 5e-324), (45, F64, -0.0)],
     {"request_count": 2**64 - 1, "id42": -2**63, "id43": 1e308, "id44": 5e-324, "id45": -0.0}),
    ([(110, I32S, [-2**31, 2**31 - 1])], {"request_threads_completed": [-2**31, 2**31 - 1]}),
])
def test_the_json_is_strict_whatever_the_values(values, fields):
    datagram = encode(2, 1, 1, 0.0, values)
    memo = TextMemo()
    for _ in range(2):                                          # compiled, then from the memo
        assert strict(shape_of(datagram).json(datagram, memo)) == fields


def test_mutated_datagrams_give_strict_json():
    rng, shapes, memo = random.Random(SEED), Shapes(), TextMemo(limit=50_000)
    corpus, seen = datagrams("smoke", "gunk"), 0
    for _ in range(ROUNDS // 4):
        datagram = mutated(rng, corpus)
        if isinstance(walked(datagram), tuple):
            shape, _ = shapes.check(datagram)
            assert strict(shape.json(datagram, memo)) == finite(shape.fields(datagram))
            seen += 1
    assert seen > ROUNDS // 80


def test_the_memo_holds_no_more_than_its_limit():
    memo = TextMemo(limit=10_000)
    for number in range(1000):
        memo.add((str, b"k" * number), "t" * number)
        assert sum(len(text) + len(key[1]) + 200 for key, text in memo.items()) == memo.held
        assert memo.held <= 10_000 or len(memo) == 1
    assert memo[(str, b"k" * 999)] == "t" * 999


@pytest.mark.parametrize("given, wanted", [
    (NAN, None), (-INF, None), (1.5, 1.5), (3, 3), ("nan", "nan"), (None, None), (True, True),
    ({"a": [1, INF, {"b": (NAN,)}]}, {"a": [1, None, {"b": [None]}]}),
])
def test_finite_takes_out_what_json_has_not_at_any_depth(given, wanted):
    assert finite(given) == wanted


# --- histogram lanes -----------------------------------------------------------------

def row_with(**places):
    row = [0] * BUCKETS
    for place, count in places.items():
        row[int(place[1:])] = count
    return row


def hist(server, gil=None):
    """A datagram with one or two histograms and numbers around them."""
    fields = [(20, U64, 2**64 - 1), (PHASE_FIELDS["server"][3], I32S, server), (22, F64, 1.5)]
    if gil is not None:
        fields.append((PHASE_FIELDS["gil_wait"][3], I32S, gil))
    return encode(2, 1, 1, 0.0, fields)


@pytest.mark.parametrize("value, fits", [(0.0, True), (1.5, True), (float("inf"), True), (-1.5, False), (-0.0, False),
                                         (float("-inf"), False)])
def test_a_negative_measurement_takes_the_slow_way(value, fits):
    shapes = Shapes()
    shapes.check(encode(2, 1, 1, 0.0, [(22, F64, 2.0)]))
    shape, number = shapes.check(encode(2, 1, 1, 0.0, [(22, F64, value)]))
    assert (number is not None, shape.read((22, 20), encode(2, 1, 1, 0.0, [(22, F64, value)]))) == (fits, (value, 0))


def test_sums_under_the_mask_are_the_sums_of_the_lists():
    rng, shapes = random.Random(SEED), Shapes()
    print(f"WIRE_FUZZ_SEED={SEED}")
    total, server, gil = 0, [0] * BUCKETS, [0] * BUCKETS
    for _ in range(500):
        one = [rng.choice((0, 1, 7, 65535)) for _ in range(BUCKETS)]
        two = [rng.choice((0, 3, 65535)) for _ in range(BUCKETS)]
        shape, number = shapes.check(hist(one, two))
        total += number & shape.histogram_mask
        server, gil = merge(server, one), merge(gil, two)
    assert {phase: list(row) for phase, row in shape.histograms(total).items()} == {"server": server, "gil_wait": gil}
    assert list(shape.histogram(total, "gil_wait")) == gil
    assert shape.histogram(total, "request") is None


def test_the_most_datagrams_with_the_largest_counts_do_not_run_into_a_neighbour():
    row = row_with(b0=65535, b1=0, b2=65535, b64=65535)
    shape, number = Shapes().check(hist(row))
    total = (number & shape.histogram_mask) * LANES_MAX
    assert shape.histograms(total)["server"] == tuple(n * LANES_MAX for n in row)


@pytest.mark.parametrize("row", [row_with(b3=65536), row_with(b64=2**31 - 1), row_with(b0=-1), row_with(b7=-2**31, b8=5)])
def test_counts_that_do_not_fit_a_lane_go_the_wide_way(row):
    shapes = Shapes()
    for _ in range(2):                  # unknown shape, then a known one
        shape, number = shapes.check(hist(row))
        assert number is None
        assert shape.wide_histograms(hist(row)) == {"server": [max(0, n) for n in row]}
    assert shapes.check(hist(row_with(b3=65535)))[0] is shape
    assert shapes.check(hist(row_with(b3=65535)))[1] is not None


def test_a_histogram_of_another_length_is_none():
    datagram = encode(2, 1, 1, 0.0, [(90, I32S, [70000] * 64), (94, I32S, [-1] * 66)])
    shape, number = Shapes().check(datagram)
    assert shape.histogram_mask == 0 and shape.histograms(number & 0) == {} and shape.wide_histograms(datagram) == {}


def test_the_histograms_of_captures_add_up():
    shapes, totals, truth = Shapes(), {}, {}
    for datagram in datagrams():
        shape, number = shapes.check(datagram)
        totals[shape] = totals.get(shape, 0) + (number & shape.histogram_mask)
        for phase, row in lists_of(datagram).items():
            truth[phase] = merge(truth.get(phase, [0] * BUCKETS), row)
    found = {}
    for shape, total in totals.items():
        for phase, row in shape.histograms(total).items():
            found[phase] = merge(found.get(phase, [0] * BUCKETS), row)
    assert found == truth and sum(truth["request"]) > 1000


def test_a_datagram_is_read_the_same_whatever_came_before_it():
    """The order in which shapes are learned changes nothing: every two datagrams, in both orders."""
    some = [Worker().tick(0), Worker().tick(1), hist([1] * BUCKETS), hist([70000] * BUCKETS),
            encode(2, 1, 1, 0.0, [(5, TEXT, b"\x01" * 200)]), struct.pack("<4sBBHIId", b"WSGI", 1, 2, 0, 1, 1, 0.0)]
    for one in some:
        for two in some:
            shapes = Shapes()
            shapes.check(one)
            assert checked(shapes, two) == walked(two)
            assert sums_of((shapes.check(two), two)) == lists_of(two)
