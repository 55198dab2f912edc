"""Series: each point is the sum of the raw ticks that came in its five seconds, whatever has closed by then."""
import random
import sys

import pytest

from builders import NAMES, WALL, Worker, a_fleet, capture, fold, replayed
from modwsgi_tel.simulate import stream
from modwsgi_tel.state import view
from modwsgi_tel.state.series import COLUMNS, POINTS, Series, group_series, process_series
from modwsgi_tel.state.window import SLOT_S, Slot
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.fields import AGENT_FLAG


def rows_of(fleet, now, name="1m", of=None, wall=None):
    """Rows as {column: value} or None, of all groups, of the group with a name, or of a Process."""
    wall = WALL + now if wall is None else wall
    if of is not None and not isinstance(of, str):
        steps = process_series(fleet.shapes, of, name, now, wall)
    else:
        steps = group_series([group for group in fleet.groups.values() if of in (None, group.name[1])], name, now, wall)
    return [None if row is None else dict(zip(COLUMNS, row)) for row in view.run(steps)]


def column(fleet, now, name, **more):
    return [row and row[name] for row in rows_of(fleet, now, **more)]


# --- against the raw ticks ---------------------------------------------------------------

def raw_points(ticks, now, name, wall):
    """The rows that [(received, pid, fields)] make, without what only one kind of series tells."""
    out = []
    for index in range(int(now // 5) - POINTS[name], int(now // 5)):
        held = [(pid, fields) for at, pid, fields in ticks if int(at // 5) == index]
        if not held:
            out.append(None)
            continue
        requests = sum(fields["request_count"] for _, fields in held)
        period = sum(fields["sample_period"] for _, fields in held)
        served = [fields for _, fields in held if fields["request_count"]]
        time = {phase: sum(fields.get(phase + "_time", 0.0) * fields["request_count"] for fields in served)
                for phase in ("request", "queue", "application", "gil_wait")}
        rate = cores = 0.0
        for pid in {pid for pid, _ in held}:
            own = [fields for other, fields in held if other == pid]
            told = sum(fields["sample_period"] for fields in own)
            told = max(told, 5.0 - told / len(own))
            rate += sum(fields["request_count"] for fields in own) / told
            cores += sum((fields["cpu_user_utilization"] + fields["cpu_system_utilization"]) * fields["sample_period"]
                         for fields in own) / told
        out.append({
            "time": pytest.approx(wall - now + 5 * index,
                                  abs=1e-5), "requests": requests, "throughput": pytest.approx(rate),
            "capacity": pytest.approx(sum(fields["capacity_utilization"] * fields["sample_period"] for _,
                                          fields in held) / period),
            "cpu": pytest.approx(cores), "rss": sum({pid: fields["memory_rss"] for pid, fields in held}.values()),
            "mean": pytest.approx(time["request"] / requests) if requests else None,
            "max": max(fields["request_time_max"] for fields in served) if served else None,
            "queue": pytest.approx(time["queue"] / requests) if requests else None,
            "gil_share": pytest.approx(time["gil_wait"] / time["application"]) if time["application"] else None,
            "errors": sum(fields["status_5xx_total"] for fields in served)})
    return out


def without(rows, *names):
    """Rows without some columns; one in which nothing else was received is None."""
    return [None if row is None or row["throughput"] is None else {key: row[key] for key in row if key not in names}
            for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_the_series_of_all_of_a_group_and_of_a_process_are_the_sums_of_the_raw_ticks(name):
    records, fleet, ticks, second = capture(name), a_fleet(), [], 0
    began, dice, compared = records[0][0], random.Random(2), 0
    groups = {}
    for place, (wall, pid, datagram) in enumerate(records):
        now = wall - began
        while now > second + 1:
            second += 1
            fleet.expire(float(second), began + second)
        fold(fleet, datagram, now=now)
        if datagram[5] == 2:
            fields = decode(datagram).fields
            ticks.append((now, pid, fields))
            groups[pid] = fields.get("process_group", "")
        if dice.random() > 12 / len(records) and place != len(records) - 1:
            continue
        at = now + dice.choice((0.0, 2.0))
        for window in ("1m", "10m"):
            more = ("slow", "gc_seconds", "gc_pauses")
            assert without(rows_of(fleet, at, window), *more) == raw_points(ticks, at, window, WALL + at)
            for group in set(groups.values()):
                assert without(rows_of(fleet, at, window, group), *more) == raw_points(
                    [tick for tick in ticks if groups[tick[1]] == group], at, window, WALL + at)
            for process in fleet.processes():
                assert without(rows_of(fleet, at, window, process), *more) == raw_points(
                    [tick for tick in ticks if tick[1] == process.pid], at, window, WALL + at)
        compared += 1
    assert compared > 3


@pytest.mark.parametrize("name", NAMES)
def test_collections_and_slow_requests_of_the_series_are_those_of_the_capture(name):
    fleet, end = replayed(name), capture(name)[-1][0] - capture(name)[0][0] + 5.0
    rows = [row for row in rows_of(fleet, end, "10m", wall=capture(name)[-1][0] + 5.0) if row]
    counters = [fleet.counters(group) for group in fleet.groups.values()]
    for key, counter in (("gc_pauses", "gc_pauses"), ("slow", "slow_completed"), ("gc_seconds", "gc_seconds")):
        assert sum(row[key] for row in rows) == pytest.approx(sum(counts[counter] for counts in counters))
    per_process = [row for process in fleet.processes()
                   for row in rows_of(fleet, end, "10m", process, capture(name)[-1][0] + 5.0) if row]
    assert sum(row["gc_pauses"] for row in per_process) == sum(counts["gc_pauses"] for counts in counters)
    assert {row["slow"] for row in per_process} == {None}               # its ticks do not tell


# --- rates -------------------------------------------------------------------------------

@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("now", [60.0, 60.05, 60.5, 61.0, 64.99])
def test_the_rate_of_many_is_the_sum_of_theirs_whenever_in_the_interval_each_one_ticks(workers, now):
    """Also in the newest point, whose slots most of them have not closed when the next one has just begun."""
    fleet = a_fleet()
    team = [Worker(7 + number) for number in range(workers)]
    for at, number in sorted((turn + (number + 0.5) / workers,
                              number) for turn in range(70) for number in range(workers)):
        if at <= now:
            fold(fleet, team[number].tick(10), now=at)
    assert column(fleet, now, "throughput") == [10.0 * workers] * 12
    assert column(fleet, now, "cpu") == [pytest.approx(0.1875 * workers)] * 12
    assert column(fleet, now, "rss") == [workers * 50 << 20] * 12


def test_one_that_came_or_went_within_the_five_seconds_counts_for_its_part():
    fleet, first, second = a_fleet(), Worker(7), Worker(8)
    for at in range(1, 11):
        fold(fleet, first.tick(10), now=at + 0.5)
    fold(fleet, first.stopped(), now=11.6)
    for at in range(13, 21):
        fold(fleet, second.tick(10), now=at + 0.5)
    assert column(fleet, 20.9, "throughput")[-4:] == [10.0, 10.0, 2.5 + 5.0, 10.0]
    assert column(fleet, 20.9, "requests")[-4:] == [40, 50, 30, 50]


def test_a_tick_that_covers_a_stall_has_the_rate_of_its_whole_period():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(10), now=1.0)
    fold(fleet, worker.tick(170, sample_period=17.0), now=18.0)
    assert column(fleet, 20.0, "throughput")[-4:] == [2.5, None, None, 10.0]


def test_groups_are_added_up_and_the_same_name_on_two_hosts_is_one():
    fleet = a_fleet()
    for pid, host, group, requests in ((7, "web1", "app", 10), (8, "web2", "app", 20), (9, "web1", "api", 40)):
        worker = Worker(pid, hostname=host, group=group)
        for at in range(11):
            fold(fleet, worker.tick(requests), now=at + pid / 100)
    assert [column(fleet, 10.5, "throughput", of=of)[-2:] for of in (None, "app", "api", "none")] == [
        [70.0] * 2, [30.0] * 2, [40.0] * 2, [None] * 2]


# --- gaps, late and silent ones ------------------------------------------------------------

def test_a_point_is_five_seconds_of_the_clock_and_the_one_that_runs_is_left_out():
    fleet, worker = a_fleet(), Worker()
    for at in (3.0, 4.0, 5.0, 9.9, 10.0, 12.0):
        fold(fleet, worker.tick(1), now=at)
    rows = rows_of(fleet, 13.0)
    assert [row and (row["time"], row["requests"]) for row in rows] == [None] * 10 + [(WALL, 2), (WALL + 5.0, 2)]
    assert len(rows_of(fleet, 13.0, "now")) == 12 and len(rows_of(fleet, 13.0, "10m")) == 120


def test_where_nothing_was_received_there_is_no_point():
    fleet, worker = a_fleet(), Worker()
    assert rows_of(fleet, 100.0) == [None] * 12
    for at in (41.0, 56.0, 57.0, 91.0):
        fold(fleet, worker.tick(2), now=at)
    expected = [2 if at == 40 else 4 if at == 55 else 2 if at == 90 else None for at in range(40, 100, 5)]
    assert column(fleet, 100.0, "requests") == expected
    assert column(fleet, 100.0, "requests", of=fleet.processes()[0]) == expected
    assert column(fleet, 102.0, "requests") == expected[:]


@pytest.mark.parametrize("looks", [False, True])
def test_the_last_ticks_of_one_that_falls_silent_or_ends_are_in_it(looks):
    """The others go on: their points are many when its slot closes, or it never does."""
    fleet, silent, ended, other = a_fleet(), Worker(7), Worker(8), Worker(9)
    for at in range(0, 57):
        if looks:
            fleet.expire(float(at), WALL + at)
        fold(fleet, other.tick(1), now=at + 0.5)
        if at < 22:
            fold(fleet, silent.tick(10), ended.tick(100), now=at + 0.6)
        if at == 22:
            fold(fleet, ended.stopped(), now=at + 0.6)
    assert column(fleet, 57.0, "requests") == [None] + [555] * 4 + [225] + [5] * 6


def test_intervals_of_thirty_seconds_give_a_point_where_a_tick_came():
    fleet, team = a_fleet(), [Worker(7, interval=30.0), Worker(8, interval=30.0)]
    for turn in range(4):
        for number, worker in enumerate(team):
            fold(fleet, worker.tick(300), now=1.0 + 30.0 * turn + 12 * number)
    assert column(fleet, 110.0, "throughput") == [None] * 2 + [10.0] + [None] + [10.0] + [None] * 3 + [10.0, None, 10.0, None]


def test_slots_that_close_in_another_order_are_in_their_place():
    """With long intervals an older slot may close after a newer one of another process."""
    fleet, slow, fast = a_fleet(), Worker(7, interval=20.0), Worker(8, interval=20.0)
    fold(fleet, slow.tick(1), now=4.0)
    fold(fleet, fast.tick(10), now=6.0)
    fold(fleet, fast.tick(10), now=25.0)        # closes its slot of 5 s
    fold(fleet, slow.tick(1), now=26.0)         # and only now the other one that of 0 s
    fold(fleet, slow.tick(1), fast.tick(10), now=46.0)
    assert column(fleet, 60.0, "requests") == [1, 10, None, None, None, 11, None, None, None, 11, None, None]


def test_a_clock_that_stands_still_or_goes_back_loses_nothing():
    fleet, worker = a_fleet(), Worker()
    for at in (7.0, 7.0, 7.0, 3.0, 7.0, 12.0):
        fold(fleet, worker.tick(1), now=at)
        fleet.expire(at, WALL + at)
    assert column(fleet, 15.0, "requests")[-2:] == [5, 1]


def test_what_closes_while_it_is_added_up_is_in_it_once():
    fleet = a_fleet()
    team = [Worker(pid, group=f"g{pid % 5}") for pid in range(100, 140)]
    for at in range(12):
        for worker in team[:20] if at == 10 else team:
            if at < 11:
                fold(fleet, worker.tick(1), now=float(at))
    now, steps = 10.5, group_series(list(fleet.groups.values()), "1m", 10.5, WALL)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            rows = end.value
            break
        for worker in team:
            fold(fleet, worker.tick(1), now=now)
    assert [row and row[COLUMNS.index("requests")] for row in rows][-3:] == [None, 200, 200]


# --- bounds --------------------------------------------------------------------------------

def a_slot(index, requests=1):
    slot = Slot(index)
    slot.sums[:3] = 1, 1.0, requests
    return slot


def test_a_group_keeps_the_points_of_ten_minutes_and_no_more_memory_than_that():
    series, sizes = Series(), []
    for index in range(2000):
        for _ in range(3):
            series.add(a_slot(index), 1 << 20)
        points = list(series)
        sizes.append(sum(map(sys.getsizeof, points)) + sum(sys.getsizeof(point.sums) for point in points))
    assert [point.index for point in series] == list(range(2000 - POINTS["10m"] - 1, 2000))
    assert max(sizes) == sizes[121] and max(sizes) < 64 << 10


def test_points_stay_in_order_whatever_the_order_of_slots_and_what_is_too_old_is_left_out():
    dice, series, truth = random.Random(4), Series(), {}
    indexes = [max(0, base + dice.randrange(-30, 1)) for base in range(400)]
    for index in indexes:
        series.add(a_slot(index), 0)
        truth[index] = truth.get(index, 0) + 1
    found = {point.index: point.sums[2] for point in series}
    assert list(found) == sorted(found) and len(found) == POINTS["10m"] + 1
    assert all(found[index] == truth[index] for index in found)
    series.add(a_slot(1), 0)
    assert {point.index: point.sums[2] for point in series} == found


def test_nonsense_numbers_make_no_point_that_json_has_not():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1, sample_period=float("nan")), worker.tick(3, sample_period=0.0),
         worker.tick(2, sample_period=1e15), worker.gc_event(duration=float("inf")), now=1.0)
    for of in (None, fleet.processes()[0]):
        [row] = [row for row in rows_of(fleet, 5.0, of=of) if row]
        assert (row["requests"], row["throughput"], row["gc_pauses"]) == (5, pytest.approx(5e-15), 0)
    fold(fleet, worker.tick(1, sample_period=0.0, memory_rss=None), now=6.0)
    assert column(fleet, 10.0, "throughput")[-1] == 0.2 and column(fleet, 10.0, "rss")[-1] is None


def test_a_made_up_fleet_of_many_has_the_requests_that_its_counters_have():
    fleet, second = a_fleet(), 0
    for at, datagram in stream("deploy", 12, 3, 1.0, None, "1", WALL):
        if at > 120:
            break
        while at > second + 1:
            second += 1
            fleet.expire(float(second), WALL + second)
        fold(fleet, datagram, now=at)
    end = (int(120 // SLOT_S) + 1) * SLOT_S
    requests = sum(fleet.counters(group)["requests"] for group in fleet.groups.values())
    assert sum(row["requests"] for row in rows_of(fleet, end, "10m") if row) == requests > 10000
    assert sum(row["requests"] for process in fleet.processes() for row in rows_of(fleet, end, "10m", process) if row) == requests


def test_a_further_agents_record_leaves_the_memory_of_the_process_as_it_was():
    fleet, first, further = a_fleet(), Worker(flags=AGENT_FLAG), Worker(flags=AGENT_FLAG | 5)
    apart = dict.fromkeys(("sample_period", "memory_rss", "memory_max_rss", "capacity_utilization", "cpu_user_utilization",
                           "cpu_system_utilization", "cpu_utilization"))
    fold(fleet, first.started(), first.tick(requests=1), further.tick(requests=2, **apart), now=101.0)
    row = rows_of(fleet, 106.0, of=fleet.processes()[0])[-1]
    assert (row["requests"], row["rss"]) == (3, 50 << 20)
