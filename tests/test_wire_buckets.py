"""Histograms: where a duration is counted, what percentiles say, how GIL waits end."""
import math
import random

import pytest

from modwsgi_tel.wire.buckets import (BUCKETS, LOWER_S, OVERFLOW_S, UPPER_S, ZERO, gil_coefficient, merge, percentiles,
                                      place)


def row(**places):
    """65 counts: row(b0=1, b64=2)."""
    counts = [0] * BUCKETS
    for name, count in places.items():
        counts[int(name[1:])] = count
    return counts


# --- edges and places ------------------------------------------------------------------

def test_sixteen_octaves_of_four_parts_end_at_65_536_seconds():
    assert UPPER_S[:9] == (0.00125, 0.0015, 0.00175, 0.002, 0.0025, 0.003, 0.0035, 0.004, 0.005)
    assert (len(UPPER_S), UPPER_S[63], OVERFLOW_S) == (64, 65.536, 65.536)
    assert LOWER_S[:3] == (0.0, 0.00125, 0.0015) and len(LOWER_S) == BUCKETS
    assert list(UPPER_S) == sorted(set(UPPER_S))


def test_each_bucket_begins_at_its_lower_edge():
    assert [place(edge) for edge in LOWER_S] == list(range(BUCKETS))


def test_just_below_an_edge_is_the_bucket_before():
    assert [place(edge * (1 - 1e-9)) for edge in UPPER_S] == list(range(BUCKETS - 1))


def test_the_middle_of_each_bucket_is_in_it():
    assert [place((low + high) / 2) for low, high in zip(LOWER_S, UPPER_S)] == list(range(BUCKETS - 1))


@pytest.mark.parametrize("seconds, bucket", [
    (0.0, 0), (-1.0, 0), (1e-9, 0), (0.001, 0), (0.00124, 0), (0.1, 26), (1.0, 39), (65.535, 63), (65.536, 64), (1e300, 64),
    (float("inf"), 64), (float("nan"), 0)])
def test_a_duration_has_its_place(seconds, bucket):
    assert place(seconds) == bucket
    assert not 0 <= seconds < 65.536 or LOWER_S[bucket] <= seconds < UPPER_S[bucket]


def test_merging_adds_bucket_by_bucket():
    assert merge(row(b0=1, b64=2), row(b0=3, b5=1)) == row(b0=4, b5=1, b64=2)
    assert merge(ZERO, row(b1=1)) == row(b1=1) and ZERO == (0,) * BUCKETS


# --- percentiles ---------------------------------------------------------------------

def test_nothing_counted_has_no_percentiles():
    assert percentiles(ZERO) == [None, None, None]
    assert percentiles([], (0.5,)) == [None]


def test_inside_a_bucket_they_are_linear():
    counts = row(b4=100)                                    # 2 to 2.5 ms
    assert percentiles(counts, (0.0, 0.5, 0.95, 1.0)) == pytest.approx([0.002, 0.00225, 0.002475, 0.0025])


def test_they_step_over_empty_buckets():
    counts = row(b0=50, b8=50)                              # up to 1.25 ms, and 4 to 5 ms
    assert percentiles(counts, (0.25, 0.5, 0.75, 0.99)) == pytest.approx([0.000625, 0.00125, 0.0045, 0.00498])


def test_one_request_has_them_all_in_its_bucket():
    low, high = LOWER_S[30], UPPER_S[30]
    assert all(low <= value <= high for value in percentiles(row(b30=1)))


def test_they_are_never_above_the_longest_seen():
    assert percentiles(row(b4=100), (0.5, 0.99), longest_s=0.0022) == [0.0022, 0.0022]
    assert percentiles(row(b4=100), (0.5, 0.99), longest_s=0.0023) == pytest.approx([0.00225, 0.0023])


def test_a_longest_that_contradicts_its_bucket_is_not_believed():
    assert percentiles(row(b4=100), (0.5,), longest_s=0.0001) == pytest.approx([0.00225])


def test_the_open_last_bucket_is_the_longest_or_where_it_begins():
    assert percentiles(row(b64=3)) == [65.536] * 3
    assert percentiles(row(b64=3), longest_s=90.0) == [90.0] * 3
    assert percentiles(row(b64=3), longest_s=1.0) == [65.536] * 3
    assert percentiles(row(b0=98, b64=2), longest_s=90.0) == pytest.approx([0.00125 * 50 / 98, 0.00125 * 95 / 98, 90.0])


def test_they_rise_and_lie_in_the_bucket_that_holds_the_rank():
    rng = random.Random(5)
    for _ in range(200):
        durations = sorted(rng.lognormvariate(-3, 2) for _ in range(rng.randint(1, 300)))
        counts = [0] * BUCKETS
        for seconds in durations:
            counts[place(seconds)] += 1
        shares = (0.05, 0.5, 0.95, 0.99, 1.0)
        found = percentiles(counts, shares, longest_s=durations[-1])
        assert found == sorted(found) and found[-1] <= durations[-1] * (1 + 1e-12)
        for share, value in zip(shares, found):
            true = durations[max(0, math.ceil(share * len(durations)) - 1)]
            bucket = place(true)
            upper = UPPER_S[bucket] if bucket < 64 else math.inf
            assert LOWER_S[bucket] <= value <= upper


# --- the GIL coefficient --------------------------------------------------------------

def bands(*counts, interval=0.005):
    """A histogram with so many waits in the bands below 0.8, to 1.8, to 2.8, to 3.8 intervals, and above."""
    out = [0] * BUCKETS
    for reach, count in zip((0.4, 1.3, 2.3, 3.3, 8.0), counts):
        out[place(reach * interval)] += count
    return out


def test_a_wait_that_ends_with_each_interval_by_the_same_chance_has_that_as_its_coefficient():
    found = gil_coefficient(bands(5, 800, 200, 50, 9), 0.005)         # a quarter goes on: q is three quarters
    assert found == {"q": pytest.approx(0.75), "reading": "transient", "waits": 1050}


@pytest.mark.parametrize("counts, q, reading", [
    ((0, 810, 270, 90, 0), 2 / 3, "compounding"),
    ((0, 400, 200, 100, 0), 0.5, "compounding"),
    ((0, 1000, 900, 810, 0), 0.1, "convoy"),
    ((0, 1000, 100, 10, 0), 0.9, "transient"),
    ((0, 1000, 250, 0, 0), 0.75, "transient"),              # an empty band has no logarithm and no weight
])
def test_the_reading_goes_by_the_chance(counts, q, reading):
    found = gil_coefficient(bands(*counts), 0.005)
    assert (found["q"], found["reading"]) == (pytest.approx(q), reading)


def test_it_is_a_weighted_fit():
    # by hand, k = 1 2 3, weights the counts: means k 290/190 and y 834.105/190, slope -42.3888 / 67.3684
    found = gil_coefficient(bands(0, 100, 80, 10, 0), 0.005)
    assert found["q"] == pytest.approx(1 - math.exp(-42.3888 / 67.3684), abs=1e-5)


def test_a_first_band_smaller_than_the_second_is_left_out():
    # the three next: 600, 300, 150
    found = gil_coefficient(bands(0, 50, 600, 300, 150), 0.005)
    assert (found["q"], found["waits"]) == (pytest.approx(0.5), 1050)


def test_an_interval_of_a_millisecond_is_lost_in_the_first_bucket_and_fitted_behind_it():
    counts = [0] * BUCKETS
    counts[0] = 5000                    # to 1.25 ms, midpoint 0.625: band 0
    counts[place(0.0022)] = 400         # midpoint 2.25: band 2
    counts[place(0.0032)] = 200         # midpoint 3.25: band 3
    counts[place(0.006)] = 100          # above
    found = gil_coefficient(counts, 0.001)
    assert (found["q"], found["waits"]) == (pytest.approx(0.5), 700)


@pytest.mark.parametrize("why, counts, interval", [
    ("too few waits", bands(10000, 60, 30, 9, 10000), 0.005),
    ("nothing counted", ZERO, 0.005),
    ("slope not negative", bands(0, 100, 100, 100, 0), 0.005),
    ("slope positive", bands(0, 100, 100, 400, 0), 0.005),
    ("no line fits", bands(0, 400, 60, 350, 0), 0.005),
    ("one band only", bands(0, 1000, 0, 0, 0), 0.005),
    ("interval unknown", bands(0, 800, 200, 50, 0), 0.0),
    ("interval unknown", bands(0, 800, 200, 50, 0), None),
    ("interval negative", bands(0, 800, 200, 50, 0), -1.0),
    ("interval not a number", bands(0, 800, 200, 50, 0), float("nan")),
])
def test_there_is_no_answer_when_the_counts_do_not_tell(why, counts, interval):
    assert gil_coefficient(counts, interval) is None


def test_a_hundred_waits_in_the_fitted_bands_are_enough():
    assert gil_coefficient(bands(0, 64, 27, 9, 0), 0.005) is not None
    assert gil_coefficient(bands(0, 64, 26, 9, 0), 0.005) is None
