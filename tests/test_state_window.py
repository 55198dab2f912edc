"""Windows: rates are counts over periods, they forget by receive time, nonsense is refused."""
import random

import pytest

from builders import WALL, Worker, a_fleet, buckets, fold
from modwsgi_tel.state import view
from modwsgi_tel.state.window import PEAKS, SUMS, Histograms, Slot, cover
from modwsgi_tel.wire.buckets import BUCKETS, merge, percentiles
from modwsgi_tel.wire.codec import decode, encode, named
from modwsgi_tel.wire.fields import I32S, PHASES
from modwsgi_tel.wire.shapes import LANES_MAX, Shapes

NAN, INF = float("nan"), float("inf")


def summary(fleet, now):
    return view.summary(fleet, now, WALL + now)


def windows(fleet, now, of="totals"):
    """The three windows of the totals, or of the only group, or the only process."""
    found = summary(fleet, now)
    return (found["totals"] if of == "totals" else found[of][0])["windows"]


def ticking(seconds, workers=1, requests=10, interval=1.0, fleet=None, began=0.0, **fields):
    """A fleet of workers that tick for so many seconds, each at its own moment of the interval."""
    fleet = fleet or a_fleet()
    team = [Worker(pid=7 + number, interval=interval, group=fields.pop("group", "app")) for number in range(workers)]
    events = sorted((began + interval * (turn + (number + 1) / workers), number) for number in range(workers)
                    for turn in range(round(seconds / interval)))
    for now, number in events:
        fold(fleet, team[number].tick(requests, **fields), now=now)
    return fleet


# --- one process -----------------------------------------------------------------------

def test_a_rate_is_the_sum_of_counts_over_the_sum_of_periods():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(10, sample_period=1.0), now=1.0)
    fold(fleet, worker.tick(30, sample_period=2.0), now=3.0)
    fold(fleet, worker.tick(0, sample_period=1.0), now=4.0)
    minute = windows(fleet, 4.5, "processes")["1m"]
    assert (minute["ticks"], minute["requests"], minute["seconds"], minute["throughput"]) == (3, 40, 4.0, 10.0)


def test_means_are_weighted_by_requests_and_shares_by_period():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1, [4.0], capacity_utilization=1.0, cpu_user_utilization=0.5, sample_period=1.0),
         worker.tick(3, [0.0] * 3, capacity_utilization=0.0, cpu_user_utilization=0.0, sample_period=3.0), now=2.0)
    minute = windows(fleet, 2.0, "processes")["1m"]
    assert minute["phases"]["request"]["mean"] == 1.0
    assert (minute["capacity"], minute["cpu_user"], minute["cpu_system"], minute["cpu"]) == (0.25, 0.125, 0.0625, 0.1875)
    assert minute["gil"]["share"] == pytest.approx(0.01 / 0.8)


def test_a_tick_that_covers_a_stall_counts_with_its_whole_period():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(10), now=1.0)
    fold(fleet, worker.tick(170, sample_period=17.0), now=18.0)
    assert windows(fleet, 18.5, "processes")["1m"]["throughput"] == 10.0
    assert windows(fleet, 18.5)["1m"]["throughput"] == 10.0


def test_status_classes_bytes_and_peaks_add_up():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(4, [0.1, 0.2, 0.3, 0.4], status={"2xx": 2, "4xx": 1, "5xx": 1}),
         worker.tick(2, [0.9, 0.1], status={"3xx": 2}), worker.gc_event(duration=0.5), worker.gc_event(duration=0.25), now=2.0)
    for of in ("processes", "groups", "totals"):
        minute = windows(fleet, 3.0, of)["1m"]
        assert minute["status"] == {"1xx": 0, "2xx": 2, "3xx": 2, "4xx": 1, "5xx": 1}
        assert (minute["input_bytes"], minute["output_bytes"], minute["phases"]["request"]["max"]) == (60, 6000, 0.9)
        assert minute["gc"] == {"pauses": 2, "seconds": 0.75, "max": 0.5}


def test_now_is_the_newest_tick():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(50), now=1.0)
    fold(fleet, worker.tick(3, [0.5] * 3), now=2.0)
    for of in ("processes", "groups", "totals"):
        now = windows(fleet, 2.5, of)["now"]
        assert (now["ticks"], now["requests"], now["throughput"], now["phases"]["request"]["mean"]) == (1, 3, 3.0, 0.5)


def test_a_newest_tick_that_is_too_old_is_not_now():
    fleet = fold(a_fleet(), Worker().tick(50), now=1.0)
    assert windows(fleet, 4.0, "processes")["now"]["ticks"] == 1
    for of in ("processes", "groups", "totals"):
        now = windows(fleet, 4.1, of)["now"]
        assert (now["ticks"], now["requests"], now["throughput"], now["capacity"]) == (0, 0, None, None)


def test_a_window_without_a_tick_says_null_and_not_nothing():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.started(), now=1.0)
    minute = windows(fleet, 1.0, "processes")["1m"]
    assert (minute["throughput"], minute["capacity"], minute["cpu"], minute["gc"]["max"]) == (None, None, None, None)


# --- forgetting ------------------------------------------------------------------------

@pytest.mark.parametrize("of", ["processes", "groups", "totals"])
def test_the_minute_forgets_after_sixty_seconds_and_the_ten_after_six_hundred(of):
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(7), now=2.0)                        # a burst, then idle ticks
    for now in range(3, 700):
        fold(fleet, worker.tick(0), now=float(now))
        if now % 3:
            continue
        found = windows(fleet, float(now), of)
        age = now - 2.0
        if age <= 50:
            assert found["1m"]["requests"] == 7
        if age >= 60:
            assert found["1m"]["requests"] == 0
        if age <= 530:
            assert found["10m"]["requests"] == 7
        if age >= 600:
            assert found["10m"]["requests"] == 0


@pytest.mark.parametrize("of", ["processes", "groups", "totals"])
def test_they_forget_also_when_nothing_comes_any_more(of):
    fleet = ticking(20)
    for age in range(0, 700, 5):
        found = windows(fleet, 20.0 + age, of)
        if age <= 35:
            assert found["1m"]["requests"] == 200
        if age >= 60:
            assert (found["1m"]["requests"], found["1m"]["throughput"]) == (0, None)
        if age <= 520:
            assert found["10m"]["requests"] == 200
        if age >= 600:
            assert (found["10m"]["requests"], found["10m"]["throughput"]) == (0, None)


def test_the_last_minute_is_never_more_than_a_minute_nor_much_less():
    fleet = a_fleet()
    worker = Worker()
    for number in range(1, 1300):
        fold(fleet, worker.tick(1), now=number * 1.0)
        if number > 700 and number % 3:
            found = windows(fleet, number * 1.0, "processes")
            assert 55 <= found["1m"]["requests"] <= 60
            assert 540 <= found["10m"]["requests"] <= 600


def test_what_is_counted_for_good_is_not_forgotten():
    fleet = ticking(20)
    assert summary(fleet, 5000.0)["totals"]["counters"]["requests"] == 200


# --- many processes --------------------------------------------------------------------

@pytest.mark.parametrize("workers", [1, 2, 8, 50])
def test_a_group_serves_what_its_processes_serve_together(workers):
    found = windows(ticking(40, workers), 40.0, "groups")
    assert found["1m"]["throughput"] == pytest.approx(10 * workers, rel=0.03)
    assert found["now"]["throughput"] == pytest.approx(10 * workers, rel=0.03)
    assert found["1m"]["capacity"] == 0.25
    assert found["1m"]["cpu_user"] == pytest.approx(0.125 * workers, rel=0.03)


@pytest.mark.parametrize("interval", [0.5, 1.5, 2.0, 4.0, 10.0, 30.0])
@pytest.mark.parametrize("workers", [1, 8])
def test_the_rate_of_a_group_does_not_hang_on_its_interval(workers, interval):
    requests = int(10 * interval)
    found = windows(ticking(600, workers, requests, interval), 600.0, "groups")
    assert found["10m"]["throughput"] == pytest.approx(10 * workers, rel=0.05)
    assert found["now"]["throughput"] == pytest.approx(10 * workers, rel=0.05)
    if interval <= 10:
        assert found["1m"]["throughput"] == pytest.approx(10 * workers, rel=0.15)


def test_the_rate_of_all_is_the_sum_of_groups_with_other_intervals():
    fleet = ticking(120, requests=10, interval=1.0)
    other = Worker(pid=99, group="slowly", interval=30.0)
    for now in (30.0, 60.0, 90.0, 119.5):
        fold(fleet, other.tick(300), now=now)
    found = windows(fleet, 120.0)
    assert found["10m"]["throughput"] == pytest.approx(20, rel=0.1)
    assert found["1m"]["throughput"] == pytest.approx(20, rel=0.1)
    assert found["now"]["throughput"] == pytest.approx(20, rel=0.1)


def test_a_group_whose_processes_come_and_go_has_the_rate_of_those_that_were_there():
    """One after another for ten seconds each: 10 a second all the time, never six times that."""
    fleet = a_fleet()
    for number in range(6):
        worker = Worker(pid=100 + number)
        for second in range(10):
            fold(fleet, worker.tick(10), now=10.0 * number + second + 1)
        fold(fleet, worker.stopped(requests=100), now=10.0 * number + 10)
    found = windows(fleet, 60.0, "groups")
    assert found["1m"]["throughput"] == pytest.approx(10, rel=0.03)
    assert found["1m"]["seconds"] == pytest.approx(found["1m"]["requests"] / 10, rel=0.03)


def test_a_group_that_doubles_has_the_mean_of_both():
    fleet = ticking(60, workers=1)
    second = Worker(pid=50)
    for now in range(31, 61):
        fold(fleet, second.tick(10), now=float(now))
    assert windows(fleet, 60.0, "groups")["10m"]["throughput"] == pytest.approx(15, rel=0.05)


def test_queued_ticks_that_arrive_at_once_cover_the_time_they_were_made_in():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, *(worker.tick(10) for _ in range(19)), now=20.0)
    assert windows(fleet, 20.0, "groups")["1m"]["throughput"] == pytest.approx(10)


def test_a_group_with_one_process_says_the_same_as_the_process():
    fleet = ticking(90)
    one, group, total = (windows(fleet, 90.0, of) for of in ("processes", "groups", "totals"))
    for name in ("now", "1m", "10m"):
        assert group[name] == total[name]
        alike = {key: value for key, value in group[name].items() if key not in ("phases", "gil")}
        assert alike == {key: pytest.approx(value) if isinstance(value, float) else value
                         for key, value in one[name].items() if key not in ("phases", "gil")}
        assert group[name]["phases"]["request"] == pytest.approx(one[name]["phases"]["request"])


def test_percentiles_are_those_of_the_raw_histograms():
    rng, fleet, sent = random.Random(3), a_fleet(), []
    team = [Worker(pid=7 + number, group=rng.choice("ab")) for number in range(6)]
    for now in range(1, 400):
        for worker in team:
            tick = worker.tick(durations=[rng.lognormvariate(-2, 1.5) for _ in range(rng.choice((0, 0, 3, 9)))])
            fold(fleet, tick, now=float(now))
            sent.append((now, worker, decode(tick).fields))
    found = summary(fleet, 399.0)

    def brute(first, phase, wanted=lambda worker: True):
        row, longest = [0] * BUCKETS, 0.0
        for now, worker, fields in sent:
            if now >= first and wanted(worker):
                row = merge(row, fields[f"{phase}_time_buckets"])
                longest = max(longest, fields.get(f"{phase}_time_max", 0.0))
        return percentiles(row, longest_s=longest if sum(row) else None), sum(row)

    for name, first in (("now", 399), ("1m", 340), ("10m", 0)):
        for phase in PHASES:
            wanted, requests = brute(first, phase)
            shown = found["totals"]["windows"][name]["phases"][phase]
            assert [shown["p50"], shown["p95"], shown["p99"]] == wanted and (phase != "request" or requests == found["totals"]["windows"][name]["requests"])
        for group in found["groups"]:
            shown = group["windows"][name]["phases"]["gil_wait"]
            assert [shown["p50"], shown["p95"], shown["p99"]] == brute(
                first, "gil_wait", lambda worker: worker.group == group["process_group"])[0]
        for process in found["processes"]:
            shown = process["windows"][name]["phases"]["request"]
            assert [shown["p50"], shown["p95"], shown["p99"]] == brute(
                first, "request", lambda worker: worker.pid == process["pid"])[0]


def test_the_coefficient_of_gil_waits_is_that_of_the_added_histograms():
    fleet, worker = a_fleet(), Worker()
    row = [a + b for a, b in zip(buckets(*[0.0065] * 200), buckets(*[0.0115] * 100))]
    fold(fleet, worker.tick(300, gil_wait_time_buckets=row), now=1.0)
    assert windows(fleet, 2.0)["1m"]["gil"]["coefficient"] == {"q": pytest.approx(0.5), "reading": "compounding", "waits": 300}


# --- nonsense --------------------------------------------------------------------------

@pytest.mark.parametrize("fields", [
    dict(sample_period=NAN), dict(sample_period=INF), dict(sample_period=-1.0), dict(request_count=2**64 - 1),
    dict(capacity_utilization=NAN), dict(cpu_user_utilization=-0.5), dict(cpu_system_utilization=INF),
    dict(request_time=NAN), dict(request_time=-INF), dict(gil_wait_time=1e300), dict(status_2xx_total=2**63),
    dict(input_bytes_total=2**64 - 1), dict(request_time_max=NAN), dict(request_time_max=INF),
    dict(cpu_user_utilization=INF, cpu_system_utilization=-INF),
])
def test_a_tick_of_nonsense_is_counted_and_not_added(fields):
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(3), worker.tick(5, **fields), worker.tick(4), now=1.0)
    found = summary(fleet, 1.5)
    [process] = found["processes"]
    assert process["implausible"] == 1
    for minute in (process["windows"]["1m"], found["groups"][0]["windows"]["1m"], found["totals"]["windows"]["1m"]):
        assert (minute["ticks"], minute["requests"]) == (2, 7)
    assert found["totals"]["counters"]["requests"] == 7


@pytest.mark.parametrize("fields", [
    dict(sample_period=5e-324, request_count=2**40), dict(sample_period=0.0), dict(application_time=5e-324, gil_wait_time=1e9),
    dict(sample_period=5e-324, cpu_user_utilization=2.0**40, cpu_system_utilization=2.0**40), dict(switch_interval=5e-324),
    dict(telemetry_interval=NAN), dict(telemetry_interval=-1.0), dict(telemetry_interval=1e300), dict(switch_interval=NAN),
    dict(slow_requests_threshold=NAN), dict(sample_period=None, telemetry_interval=None),
    dict(memory_rss=2**64 - 1, request_threads_maximum=2**64 - 1), dict(process_group="x" * 60000),
])
def test_numbers_that_are_possible_but_absurd_give_finite_figures(fields):
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(5, **fields), worker.gc_event(duration=5e-324), now=1.0)
    from modwsgi_tel.web.statejson import text
    for now in (1.5, 7.0, 100.0):
        text(summary(fleet, now))                               # strict: raises for NaN and infinity


@pytest.mark.parametrize("duration", [NAN, INF, -1.0, 1e300])
def test_a_collection_of_nonsense_is_counted_and_not_added(duration):
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.gc_event(duration=duration), worker.gc_event(duration=0.5), now=1.0)
    found = summary(fleet, 1.5)
    assert found["processes"][0]["implausible"] == 1
    assert found["totals"]["windows"]["1m"]["gc"] == {"pauses": 1, "seconds": 0.5, "max": 0.5}


def test_negative_and_huge_histogram_counts_go_their_own_way():
    fleet, worker = a_fleet(), Worker()
    odd = [-5, 70000] + [0] * 63
    fold(fleet, worker.tick(2), worker.tick(2, request_time_buckets=odd), worker.tick(2), now=1.0)
    slot = next(iter(fleet.processes())).windows.open
    assert slot.histograms.phase("request") == merge(merge(buckets(0.1, 0.1), buckets(0.1, 0.1)), [0, 70000] + [0] * 63)
    assert slot.histograms.phase("server") == buckets(*[0.1 * 0.05] * 6)


def test_stretches_of_time_are_joined_and_bounded():
    spans = []
    for begin, end in ((5, 6), (1, 2), (8, 9), (2, 3), (5.5, 7), (0, 0.5), (2.5, 5)):
        cover(spans, begin, end)
    assert spans == [[0, 0.5], [1, 7], [8, 9]]
    cover(spans, 0, 10)
    assert spans == [[0, 10]]
    for number in range(100):
        cover(spans, 100 + 2 * number, 101 + 2 * number)
        assert len(spans) <= 16 and spans[-1] == [100 + 2 * number, 101 + 2 * number]
    assert spans == sorted(spans) and all(a[1] < b[0] for a, b in zip(spans, spans[1:]))


# --- the pieces -------------------------------------------------------------------------

def test_histograms_of_more_datagrams_than_the_lanes_hold_do_not_overflow():
    row = [65535, 0, 65535] + [0] * 61 + [65535]
    shape, number = Shapes().check(encode(2, 1, 1, 0.0, [(94, I32S, row)]))
    held, part = Histograms(), number & shape.histogram_mask
    held.add(shape, part * LANES_MAX, LANES_MAX)
    held.add(shape, part)
    held.add(shape, part * 10, 10)
    assert held.phase("request") == [n * (LANES_MAX + 11) for n in row]
    assert held.counts() == {"request": held.phase("request")}
    twice = held.copy()
    twice.merge(held)
    assert twice.phase("request") == [2 * n * (LANES_MAX + 11) for n in row]
    assert held.phase("server") is None and Histograms().counts() == {}


def test_a_slot_takes_every_sum_from_its_own_field():
    """Each field alone, so that none can stand in another's place."""
    names = ["sample_period", "request_count", "capacity_utilization", "cpu_user_utilization", "cpu_system_utilization",
             *(f"{phase}_time" for phase in PHASES), "input_bytes_total", "input_reads_total", "output_bytes_total",
             "output_writes_total", *(f"status_{n}xx_total" for n in range(1, 6)), *(f"{phase}_time_max" for phase in PHASES)]
    base = {"sample_period": 2.0, "request_count": 3}
    wanted = {"sample_period": ("period", 5.0), "request_count": ("requests", 5), "capacity_utilization": ("capacity_x_period", 10.0),
              "cpu_user_utilization": ("cpu_user_x_period", 10.0), "cpu_system_utilization": ("cpu_system_x_period", 10.0),
              **{f"{phase}_time": (f"{phase}_x_requests", 15.0) for phase in PHASES},
              "input_bytes_total": ("input_bytes", 5), "input_reads_total": ("input_reads", 5),
              "output_bytes_total": ("output_bytes", 5), "output_writes_total": ("output_writes", 5),
              **{f"status_{n}xx_total": (f"status_{n}xx", 5) for n in range(1, 6)}}
    for name in names:
        value = 5 if "count" in name or "total" in name else 5.0
        datagram = encode(2, 1, 1, 0.0, named(**{**base, name: value}))
        slot = Slot(0)
        assert slot.tick(*Shapes().check(datagram)[:1], datagram, Shapes().check(datagram)[1])
        expected = dict.fromkeys(SUMS, 0)
        expected.update(ticks=1, period=2.0, requests=3)
        if name.endswith("_time_max"):
            assert dict(zip(PEAKS, slot.peaks)) == {**dict.fromkeys(PEAKS, 0.0), name: 5.0}
        else:
            expected[wanted[name][0]] = wanted[name][1]
        assert dict(zip(SUMS, slot.sums)) == expected, name
