"""Loss is exact: what Sequence counts equals what a brute-force truth counts, for any stream within its bounds.

    SEQUENCE_SEED=17 SEQUENCE_ROUNDS=5000 python -m pytest tests/test_state_sequence.py
"""
import os
import random

import pytest

from builders import Worker, a_fleet, a_sender, fold
from modwsgi_tel.state.sequence import DUPLICATE, GAPS, LATE, NEW, RECENT, RESTART, Sequence
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.fields import GC_SNAPSHOT, REQUEST_METRICS, SLOW_REQUEST

SEED = int(os.environ.get("SEQUENCE_SEED") or random.randrange(2**32))
ROUNDS = int(os.environ.get("SEQUENCE_ROUNDS") or 300)
WRAP = 2**32


def take(sequence, seq, stamp):
    """As a Fleet does it: the short way first."""
    return NEW if sequence.follows(seq, stamp) else sequence.take(seq, stamp)


def taken(*numbers):
    """A Sequence that took these numbers, each stamped with its place in the unwrapped count."""
    first = numbers[0]
    sequence = Sequence(first % WRAP, float(first))
    verdicts = [take(sequence, seq % WRAP, float(seq)) for seq in numbers[1:]]
    return sequence, verdicts


# --- one sequence -------------------------------------------------------------------

def test_numbers_in_order_lose_nothing():
    sequence, verdicts = taken(1, 2, 3)
    assert (verdicts, sequence.received, sequence.lost, sequence.newest) == ([NEW, NEW], 3, 0, 3)


def test_a_gap_is_lost():
    sequence, verdicts = taken(1, 2, 6)
    assert (verdicts, sequence.lost, sequence.received) == ([NEW, NEW], 3, 3)


def test_late_ones_fill_their_gap_one_by_one():
    sequence, verdicts = taken(1, 6, 3, 5, 2, 4)
    assert (verdicts, sequence.lost, sequence.late, sequence.received, sequence.gaps) == (
        [NEW, LATE, LATE, LATE, LATE], 0, 4, 6, [])


def test_the_same_number_with_the_same_stamp_is_a_duplicate():
    sequence, verdicts = taken(1, 2, 3, 3, 2, 1)
    assert (verdicts[2:], sequence.duplicates, sequence.lost, sequence.received) == ([DUPLICATE] * 3, 3, 0, 3)


def test_a_late_one_that_comes_again_is_a_duplicate():
    sequence, verdicts = taken(1, 2, 4, 3, 3)
    assert (verdicts[-2:], sequence.lost, sequence.late, sequence.duplicates) == ([LATE, DUPLICATE], 0, 1, 1)


def test_the_same_number_with_another_stamp_is_another_process():
    sequence = Sequence(1, 1.0)
    sequence.take(2, 2.0)
    assert sequence.take(1, 9.0) == RESTART and sequence.take(2, 9.0) == RESTART
    assert (sequence.newest, sequence.received, sequence.duplicates) == (2, 2, 0)


def test_a_count_that_starts_over_is_another_process_also_far_behind():
    sequence, _ = taken(*range(5000, 5400))
    assert [sequence.take(seq, 6000.0) for seq in (1, 2, 400)] == [RESTART] * 3


def test_one_sent_before_the_first_that_came_counts_from_there():
    sequence, verdicts = taken(10, 11, 7)
    assert (verdicts[-1], sequence.lost, sequence.late, sequence.first) == (LATE, 2, 1, 7)
    assert [sequence.take(seq, float(seq)) for seq in (9, 8)] == [LATE, LATE] and sequence.lost == 0


def test_what_a_new_process_sends_fills_no_gap_of_the_old_one():
    sequence, _ = taken(*range(1, 5), *range(8, 40))            # 5 to 7 are missing
    assert sequence.take(6, 100.0) == RESTART                   # sent after all that came: its own first five are missing
    assert sequence.take(6, 6.0) == LATE


def test_the_rest_of_a_gap_stays_open():
    sequence, _ = taken(1, 7, 4)
    assert sequence.gaps == [[2, 3], [5, 6]]
    sequence, _ = taken(1, 7, 2, 6)
    assert sequence.gaps == [[3, 5]]


def test_a_low_number_sent_after_all_that_came_is_another_process():
    sequence, _ = taken(10, 11)
    assert sequence.take(1, 50.0) == RESTART


@pytest.mark.parametrize("numbers, lost", [
    ((WRAP - 2, WRAP - 1, WRAP, WRAP + 1), 0),
    ((WRAP - 3, WRAP + 4), 6),
    ((WRAP - 2, WRAP, WRAP - 1, WRAP + 1), 0),                  # swapped across the wrap
    ((WRAP - 2, WRAP + 3, WRAP - 1, WRAP + 1), 2),
    ((WRAP + 1, WRAP - 2), 2),                                   # the first that came was not the first sent
    ((WRAP - 1, WRAP, WRAP, WRAP - 1), 0),
])
def test_numbers_wrap_at_2_to_the_32(numbers, lost):
    sequence, verdicts = taken(*numbers)
    assert sequence.lost == lost and RESTART not in verdicts


def test_a_stamp_that_is_no_number_makes_no_restart():
    nan = float("nan")
    sequence = Sequence(1, nan)
    assert [sequence.take(seq, nan) for seq in (2, 5, 3, 3, 1)] == [NEW, NEW, LATE, DUPLICATE, DUPLICATE]


def test_the_open_gaps_are_bounded():
    sequence, _ = taken(*range(1, 2 * GAPS + 21, 2))                  # every second one: ten gaps too many
    assert (len(sequence.gaps), sequence.lost) == (GAPS, GAPS + 9)
    assert sequence.gaps[-1] == [2 * GAPS + 18, 2 * GAPS + 18]


def test_one_whose_gap_is_forgotten_is_still_a_late_one_and_no_other_process():
    sequence, _ = taken(*range(1, 2 * GAPS + 21, 2))
    assert [sequence.take(2, 2.0), sequence.take(2, 2.0)] == [LATE, DUPLICATE]
    assert (sequence.lost, sequence.late, sequence.newest) == (GAPS + 8, 1, 2 * GAPS + 19)


def test_one_that_comes_after_more_than_it_remembers_stays_lost():
    sequence, _ = taken(*range(1, 8 * GAPS, 2))
    lost = sequence.lost
    sequence.take(2, 2.0)
    assert sequence.lost == lost


def test_one_before_the_first_does_not_push_out_the_newest_gap():
    sequence, _ = taken(*range(11, 11 + 2 * GAPS + 1, 2))             # as many gaps as it remembers
    assert sequence.take(8, 8.0) == LATE                        # a gap before them all
    newest = 11 + 2 * GAPS
    assert sequence.gaps[-1] == [newest - 1, newest - 1]
    assert take(sequence, newest - 1, float(newest - 1)) == LATE
    assert len(sequence.gaps) <= GAPS


def test_filling_the_middle_of_a_gap_keeps_the_bound():
    sequence, _ = taken(*range(1, 4 * GAPS + 2, 4))
    for low in range(1, 4 * GAPS, 4):
        sequence.take(low + 2, float(low + 2))                  # each gap becomes two
        assert len(sequence.gaps) <= GAPS
    assert sequence.lost == 2 * GAPS


def test_a_loss_that_was_filled_is_no_longer_uncertain():
    sequence, _ = taken(1, 5)
    sequence.uncertain = 3
    for seq in (2, 3, 4):
        sequence.take(seq, float(seq))
    assert (sequence.lost, sequence.uncertain) == (0, 0)


def test_forgiving_takes_back_a_loss_but_never_below_nothing():
    sequence, _ = taken(1, 5)
    sequence.uncertain = 3
    sequence.take(3, 3.0)
    sequence.forgive(sequence.uncertain)
    assert (sequence.lost, sequence.uncertain) == (0, 0)


# --- against the truth ----------------------------------------------------------------

def a_stream(rng):
    """(numbers in order of arrival, true loss, duplicates): swaps by less than RECENT, gaps fewer than GAPS."""
    first = rng.choice((1, 5000, WRAP - 100, WRAP - 3))
    sent = list(range(first, first + rng.randint(2, 600)))
    share = rng.choice((0, 0.01, 0.05))
    lost = {seq for seq in sent[1:-1] if rng.random() < share}
    if rng.random() < .3 and len(sent) > 100:
        at = rng.randrange(1, len(sent) - 60)
        lost |= set(sent[at:at + rng.randint(1, 50)])
    kept = [seq for seq in sent if seq not in lost]
    reach = rng.choice((0, 1, 3, 40))
    late_share = rng.choice((0.02, 0.1, 1.0 if reach < 4 else 0.1))
    order = [(place + (rng.uniform(0, reach) if rng.random() < late_share else 0), seq) for place, seq in enumerate(kept)]
    again = [(place + rng.choice((0.5, 1.5, 20)), seq) for place, seq in order if rng.random() < rng.choice((0, 0.05))]
    arrived = [seq for _, seq in sorted(order + again)]
    return arrived, len(range(min(kept), max(kept) + 1)) - len(kept), len(again)


def test_any_stream_is_counted_as_the_truth_counts_it():
    print(f"SEQUENCE_SEED={SEED}")
    for round_ in range(ROUNDS):
        arrived, lost, again = a_stream(random.Random(f"{SEED}/{round_}"))
        sequence, verdicts = taken(*arrived)
        assert (sequence.lost, sequence.duplicates, sequence.received, RESTART in verdicts) == (
            lost, again, len(arrived) - again, False), f"round {round_}"


def test_restarts_in_a_stream_are_found_and_each_life_is_counted_for_itself():
    print(f"SEQUENCE_SEED={SEED}")
    for round_ in range(ROUNDS // 3):
        rng = random.Random(f"{SEED}/lives/{round_}")
        clock, sequence, truth, found, restarts = 0.0, None, 0, 0, 0
        lives = rng.randint(2, 5)
        for _ in range(lives):
            numbers = list(range(1, rng.randint(9, 700)))
            gone = {seq for seq in numbers[8:-1] if rng.random() < 0.02}
            truth += len(gone)
            for seq in numbers:
                clock += 1
                if seq in gone:
                    continue
                if sequence is None or take(sequence, seq, clock) == RESTART:
                    found += sequence.lost if sequence else 0
                    restarts += sequence is not None
                    sequence = Sequence(seq, clock)
        assert (found + sequence.lost, restarts) == (truth, lives - 1), f"round {round_}"


# --- the same through a fleet: the cases of check_drops --------------------------------

def stream(ticks=100, first=0, started=True, pid=7001, stamp=1000.0):
    """What one process sends in so many ticks: metrics, now and then a slow request, a snapshot, a collection."""
    worker = Worker(pid=pid, seq=first)
    out = [worker.started(stamp=stamp)] if started else []
    for number in range(ticks):
        at = stamp + number
        out.append(worker.tick(2, stamp=at))
        if number % 3 == 0:
            out.append(worker.slow(f"s{number}", done=True, stamp=at))
        out.append(worker.gc_snapshot())
        if number % 4 == 0:
            out.append(worker.gc_event())
    return out


def without(sent, kind, count):
    places = [place for place, datagram in enumerate(sent) if datagram[5] == kind][5:]
    gone = set(places[:count * 2:2])
    assert len(gone) == count
    return [datagram for place, datagram in enumerate(sent) if place not in gone]


def later(sent, places, distance, again=False):
    out = list(sent)
    for place in sorted(places, reverse=True):
        out.insert(place + distance, out[place] if again else out.pop(place))
    return out


def renumbered(sent):
    return [datagram[:12] + (place + 1).to_bytes(4, "little") + datagram[16:] for place, datagram in enumerate(sent)]


FULL = stream()
WRAPS = stream(first=2**32 - 50)
SECOND = stream(stamp=1100.5)
UNSEEN = stream(started=False, stamp=1100.5)
TWICE = without(FULL, REQUEST_METRICS, 7)


@pytest.mark.parametrize("lost, sent", [
    pytest.param(0, renumbered(d for d in FULL if d[5] == REQUEST_METRICS), id="no loss, request_metrics only"),
    pytest.param(0, FULL, id="no loss, all kinds"),
    pytest.param(7, without(FULL, REQUEST_METRICS, 7), id="7 request_metrics lost"),
    pytest.param(7, without(FULL, GC_SNAPSHOT, 7), id="7 gc_snapshot lost"),
    pytest.param(7, without(FULL, SLOW_REQUEST, 7), id="7 slow_request lost"),
    pytest.param(50, FULL[:120] + FULL[170:], id="burst of 50 lost"),
    pytest.param(0, stream(first=4999), id="joined late"),
    pytest.param(0, FULL + SECOND, id="pid reused"),
    pytest.param(0, FULL + UNSEEN, id="restart without process_started"),
    pytest.param(5, FULL + without(UNSEEN, REQUEST_METRICS, 5), id="the same, then 5 lost"),
    pytest.param(0, WRAPS, id="seq wraps"),
    pytest.param(6, WRAPS[:46] + WRAPS[52:], id="6 lost across the wrap"),
    pytest.param(0, later(WRAPS, [48], 1), id="swapped across the wrap"),
    pytest.param(0, later(FULL, range(10, len(FULL) - 2, 20), 1), id="neighbours swapped"),
    pytest.param(0, later(FULL, [100], 40), id="one 40 late"),
    pytest.param(3, later(without(FULL, GC_SNAPSHOT, 3), [200], 40), id="one 40 late, 3 lost"),
    pytest.param(0, later(FULL, range(5, 250, 20), 1, again=True), id="sent twice"),
    pytest.param(7, later(TWICE, range(5, 250, 20), 1, again=True), id="sent twice, 7 lost"),
    pytest.param(0, later(FULL, range(5, 230, 20), 20, again=True), id="sent again 20 later"),
    pytest.param(7, later(TWICE, range(5, 220, 20), 20, again=True), id="sent again 20 later, 7 lost"),
    pytest.param(0, stream(ticks=4) + stream(ticks=4, stamp=1004.5), id="short life, then the pid reused"),
    pytest.param(0, FULL + stream(stamp=900.0), id="pid reused, clock set back"),
])
def test_loss_as_a_fleet_counts_it(lost, sent):
    fleet = a_fleet()
    for place, datagram in enumerate(sent):
        fold(fleet, datagram, now=place * 0.25)
    assert sum(process.lost() for process in fleet.processes()) == lost
    assert sum(len(process.sources) for process in fleet.processes()) == len(fleet.processes())


@pytest.mark.parametrize("lost, first, second", [
    (0, stream(ticks=60), stream(ticks=60, first=500, started=False)),
    (0, stream(ticks=60), stream(ticks=60)),
    (5, stream(ticks=60), without(stream(ticks=60), REQUEST_METRICS, 5)),
])
def test_one_header_pid_from_two_senders_is_two_counts(lost, first, second):
    fleet = a_fleet()
    for one, two in zip(first, second):
        fold(fold(fleet, one, sender=a_sender(8001)), two, sender=a_sender(8002))
    assert sorted(process.who[:] for process in fleet.processes()) == [(8001, 33, 33, 7001), (8002, 33, 33, 7001)]
    assert sum(process.lost() for process in fleet.processes()) == lost


def test_an_agent_in_the_same_process_counts_for_itself():
    fleet, reporter, agent = a_fleet(), Worker(pid=7), Worker(pid=7, seq=900, flags=0x8000)
    for _ in range(20):
        fold(fleet, reporter.tick(1), agent.datagram(130))
    del agent, reporter
    [process] = fleet.processes()
    assert {name: (held.received, held.lost) for name, held in process.sources.items()} == {
        "reporter": (20, 0), "agent": (20, 0)}


def test_a_duplicate_is_counted_as_one_and_folded_in_once():
    fleet, worker = a_fleet(), Worker()
    tick = worker.tick(3)
    fold(fleet, worker.started(), tick, tick, worker.tick(2))
    [process] = fleet.processes()
    assert (process.sources["reporter"].duplicates, process.counter(2), process.ticks) == (1, 5, 2)


def test_the_builders_number_as_mod_wsgi_does():
    assert [decode(datagram).seq for datagram in stream(ticks=2)] == [1, 2, 3, 4, 5, 6, 7]
    assert RECENT > 40                   # what the streams above swap by
