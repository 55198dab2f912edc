"""The metrics without sockets: what is counted, that it never goes back, and that every text follows its format's grammar."""
import itertools
import random
import re

import pytest

from builders import NAMES, WALL, Worker, a_fleet, a_sample, a_sender, an_answer, buckets, capture, datagrams, fold, replayed
from expositions import SUFFIXES, classic, counters, openmetrics
from modwsgi_tel.findings import RULES, Findings
from modwsgi_tel.openmetrics.bounds import PHASE_BOUNDS, phase_counts
from modwsgi_tel.openmetrics.reading import Source
from modwsgi_tel.openmetrics.table import COUNTER, GROUP, HISTOGRAM, INFO, METRICS, PROCESS, labels_of, series_of
from modwsgi_tel.openmetrics.text import CLASSIC_TYPE, OPENMETRICS_TYPE, exposition, wants_openmetrics
from modwsgi_tel.state import view
from modwsgi_tel.state.facts import facts
from modwsgi_tel.state.process import LIVES
from modwsgi_tel.wire.buckets import UPPER_S
from modwsgi_tel.wire.fields import APPLICATION_EXCEPTION, BY_NAME, PHASES
from test_state_json import Asked

OWN = {"version": "1.2.3", "started": WALL, "cpu_s": 1.5, "rss_bytes": 20 << 20, "max_rss_bytes": 21 << 20, "longest_gap_s": 0.001,
       "recent_gap_s": 0.0005, "stalls": 0,
       "http": {"connections": 1, "accepted": 2, "refused": 0, "requests": 3, "errors": 0, "wrong_tokens": 0},
       "helpers": {"started": 4, "failed": 0}, "stacks": {"taken": 1, "problem": "none"}, "samples": {"taken": 2, "problem": None},
       "recording": {"records": 5, "lost_bytes": 0}, "textfile": {"writes": 6, "failures": 0}, "log_lines_lost": 0}


def source(fleet, now=0.0, findings=(), own=OWN, processes=0):
    return Source(fleet, list(findings), own, True, now, WALL + now, processes)


def read(fleet, now=0.0, **more):
    """{family: Family} of the metrics, which both formats tell alike."""
    given = source(fleet, now, **more)
    found = openmetrics(b"".join(exposition(given, openmetrics=True)))
    told = classic(b"".join(exposition(given)))
    assert {key: number for family in found.values() for key, number in family.samples.items()} == {
        key: number for family in told.values() for key, number in family.samples.items()}
    return found


# --- the table -------------------------------------------------------------------------------

def test_names_units_and_suffixes_follow_the_conventions():
    for metric in METRICS:
        family = metric.name[:-len("_total")] if metric.type == COUNTER else metric.name
        assert re.fullmatch("modwsgi(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.type == COUNTER)
        assert not metric.unit or family.endswith("_" + metric.unit), metric
        assert metric.unit in ("", "seconds", "bytes", "ratio")
        assert ("_seconds" in metric.name or "_bytes" in metric.name or "_ratio" in metric.name) == bool(metric.unit), metric
        assert metric.help == " ".join(metric.help.split()) and metric.help.endswith("."), metric.help
        assert not set(labels_of(metric)) & {"le", "quantile", "instance", "job"}
    names = [name for metric in METRICS for name in (metric.name, *series_of(metric))]
    assert len(set(names)) == len(names) - sum(metric.type in (COUNTER, "gauge") for metric in METRICS)


def test_what_is_a_field_is_told_in_the_words_of_the_table_of_fields():
    for metric in METRICS:
        if metric.field:
            field = BY_NAME[metric.field[:-len("_buckets")]] if metric.type == HISTOGRAM else BY_NAME[metric.field]
            assert metric.help.startswith(field.help.replace("Mean time", "Time")), metric
            assert not metric.unit or field.unit in (metric.unit, "ratio"), metric


def test_every_family_of_the_table_is_shown_once_its_senders_tell_it():
    fleet = a_busy_fleet()
    shown = read(fleet, now=20.0, processes=1)
    family = {metric.name[:-len("_total")] if metric.type == COUNTER else metric.name: metric for metric in METRICS}
    assert set(family) - set(shown) == {"modwsgi_exceptions"}           # no agent is in there
    for name, found in shown.items():
        metric = family[name]
        assert (found.type, found.unit, found.help) == (metric.type, metric.unit, metric.help)
        for _, own in found.samples:
            assert tuple(label for label, _ in own if label != "le") == labels_of(metric)


def a_busy_fleet():
    """One process that tells all that mod_wsgi can tell, and what the kernel says of it."""
    fleet, worker = a_fleet(), Worker(pid=7)
    fold(fleet, worker.started(), worker.gc_snapshot(), now=9.0)
    fleet.answer(7, an_answer(), 9.0, WALL + 9.0)
    fleet.sampling.add(fleet, 7, a_sample(files=512), 9.5, WALL + 9.5)
    for now in range(10, 20):
        waits = buckets(*[0.006] * 300, *[0.011] * 60, *[0.016] * 20)
        fold(fleet, worker.tick(requests=10, gil_wait_time=0.01, gil_wait_time_buckets=waits), worker.gc_event(), now=now)
    return fold(fleet, worker.slow("a"), now=20.0)


# --- what is counted ---------------------------------------------------------------------------

def test_a_group_tells_what_its_processes_sent():
    fleet, one, two = a_fleet(), Worker(pid=7), Worker(pid=8)
    fold(fleet, one.started(), one.tick(durations=[0.1, 0.3], status={"2xx": 1, "5xx": 1}), now=1.0)
    fold(fleet, two.started(), two.tick(requests=1, memory_rss=30 << 20, capacity_utilization=0.75), two.slow("a"), now=1.5)
    found = read(fleet, now=2.0)
    assert {name: found[name].value() for name in (
        "modwsgi_requests", "modwsgi_input_bytes", "modwsgi_output_bytes", "modwsgi_output_writes", "modwsgi_memory_rss_bytes",
        "modwsgi_memory_rss_largest_bytes", "modwsgi_capacity_utilization_ratio", "modwsgi_capacity_used_seconds",
        "modwsgi_sampled_seconds", "modwsgi_threads_maximum", "modwsgi_threads_active", "modwsgi_slow_requests_active",
        "modwsgi_slow_requests_threshold_seconds", "modwsgi_gil_switch_interval_seconds", "modwsgi_process_starts",
        "modwsgi_processes_silent", "modwsgi_datagrams_lost")} == {
        "modwsgi_requests": 3, "modwsgi_input_bytes": 30, "modwsgi_output_bytes": 3000, "modwsgi_output_writes": 6,
        "modwsgi_memory_rss_bytes": 80 << 20, "modwsgi_memory_rss_largest_bytes": 50 << 20,
        "modwsgi_capacity_utilization_ratio": 0.5, "modwsgi_capacity_used_seconds": 1.0, "modwsgi_sampled_seconds": 2.0,
        "modwsgi_threads_maximum": 10, "modwsgi_threads_active": 2, "modwsgi_slow_requests_active": 1,
        "modwsgi_slow_requests_threshold_seconds": 2.0, "modwsgi_gil_switch_interval_seconds": 0.005, "modwsgi_process_starts": 2,
        "modwsgi_processes_silent": 0, "modwsgi_datagrams_lost": 0}
    where = (("hostname", "web1"), ("process_group", "app"))
    assert found["modwsgi_responses"].series() == {
        (*where, ("status_class", name)): number for name, number in (("1xx", 0), ("2xx", 2), ("3xx", 0), ("4xx", 0), ("5xx", 1))}
    assert found["modwsgi_cpu_seconds"].series() == {(*where, ("mode", "user")): 0.25, (*where, ("mode", "system")): 0.125}
    assert found["modwsgi_processes"].series() == {(*where, ("state", life)): 2 * (life == "running") for life in LIVES}
    request = found["modwsgi_request_seconds"]
    assert request.value("_sum") == 0.5 and request.value("_count") == 3
    assert [number for own, number in request.series("_bucket").items()] == [
        3 if bound >= 0.384 else 2 if bound >= 0.128 else 0 for bound in PHASE_BOUNDS] + [3]


def test_what_no_sender_tells_is_absent_and_never_0():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(requests=1, memory_rss=None, memory_max_rss=None, cpu_user_utilization=None, capacity_utilization=None,
                            switch_interval=None, slow_requests_threshold=None, queue_time=None, queue_time_buckets=None,
                            request_threads_maximum=None, input_bytes_total=None, status_2xx_total=None, gil_wait_time=None,
                            gil_wait_time_buckets=None), now=1.0)
    found = read(fleet, now=1.0, own={})
    absent = {"modwsgi_memory_rss_bytes", "modwsgi_memory_rss_largest_bytes", "modwsgi_capacity_utilization_ratio",
              "modwsgi_capacity_used_seconds", "modwsgi_gil_switch_interval_seconds", "modwsgi_slow_requests_threshold_seconds",
              "modwsgi_queue_seconds", "modwsgi_threads_maximum", "modwsgi_input_bytes", "modwsgi_responses", "modwsgi_gc_pause_seconds",
              "modwsgi_gc_events_dropped", "modwsgi_descriptors_largest", "modwsgi_exceptions", "modwsgi_gil_coefficient_ratio",
              "modwsgi_gil_contention_ratio", "modwsgi_gil_wait_seconds",
              "modwsgi_collector_cpu_seconds", "modwsgi_collector_build", "modwsgi_collector_stacks", "modwsgi_collector_textfile_writes"}
    assert absent & set(found) == set()
    assert [own[-1] for own in found["modwsgi_cpu_seconds"].series()] == [("mode", "system")]


def test_capacity_of_a_process_that_fell_silent_is_not_told_on():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(), now=1.0)
    assert "modwsgi_capacity_utilization_ratio" in read(fleet, now=2.0)
    fleet.expire(61.0, WALL + 61)
    found = read(fleet, now=61.0)
    assert "modwsgi_capacity_utilization_ratio" not in found
    assert found["modwsgi_processes_silent"].value() == 1 and found["modwsgi_silence_longest_seconds"].value() == 60.0


@pytest.mark.parametrize("name", ["daemon_gil", "lifecycle", "gc_storm", "subinterp", "embedded"])
def test_a_capture_counts_as_in_the_summary(name):
    fleet, now = replayed(name), capture(name)[-1][0] - capture(name)[0][0]
    found, told = read(fleet, now), view.summary(fleet, now, WALL)
    for row in told["groups"]:
        where = dict(hostname=row["hostname"], process_group=row["process_group"])
        if not row["counters"]["requests"]:
            continue
        for family, counter in (("requests", "requests"), ("output_bytes", "output_bytes"), ("slow_requests_completed", "slow_completed")):
            assert found["modwsgi_" + family].value(**where) == row["counters"][counter]
        assert found["modwsgi_processes"].series(**where) == {
            (*where.items(), ("state", life)): number for life, number in row["lives"].items()}
        if row["counters"]["gc_pauses"]:
            pauses = found["modwsgi_gc_pause_seconds"]
            assert pauses.value("_count", **where) == row["counters"]["gc_pauses"]
            assert pauses.value("_sum", **where) == pytest.approx(row["counters"]["gc_seconds"])
        long, share = row["windows"]["1m"], row["windows"]["1m"]["gil"]["share"]
        assert share is None or found["modwsgi_gil_contention_ratio"].value(**where) == pytest.approx(share)
        assert (long["gil"]["coefficient"] is not None) == bool(
            "modwsgi_gil_coefficient_ratio" in found and found["modwsgi_gil_coefficient_ratio"].series(**where))


def test_a_percentile_of_the_buckets_is_in_the_same_bucket_as_that_of_the_summary():
    fleet, now = replayed("daemon_mixed"), capture("daemon_mixed")[-1][0] - capture("daemon_mixed")[0][0]
    found, phases = read(fleet, now), view.summary(fleet, now, WALL)["totals"]["windows"]["10m"]["phases"]
    for phase in PHASES:
        counts = list(found[f"modwsgi_{phase}_seconds"].series("_bucket").values())
        place = next(place for place, count in enumerate(counts) if count >= 0.95 * counts[-1])
        assert (0.0, *PHASE_BOUNDS)[place] <= phases[phase]["p95"] <= (*PHASE_BOUNDS, float("inf"))[place]


def test_bounds_are_edges_of_mod_wsgi_so_no_count_is_made_up():
    row = list(range(65))
    assert set(PHASE_BOUNDS) <= set(UPPER_S) and 16 <= len(PHASE_BOUNDS) <= 20
    assert phase_counts(row) == [*(sum(row[:UPPER_S.index(bound) + 1]) for bound in PHASE_BOUNDS), sum(row)]


def test_collections_are_counted_by_their_length():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(), now=1.0)
    lengths = (0.00005, 0.0001, 0.0003, 0.002, 0.002, 3.0)
    fold(fleet, *(worker.gc_event(duration=seconds) for seconds in lengths), now=2.0)
    fold(fleet, worker.tick(), now=9.0)                 # the slot closes
    fold(fleet, worker.gc_event(duration=0.02), now=9.0)
    pauses = read(fleet, now=9.0)["modwsgi_gc_pause_seconds"]
    bounds = [dict(own)["le"] for own in pauses.series("_bucket")]
    counts = list(pauses.series("_bucket").values())
    assert counts == [sum(seconds <= float(bound) for seconds in (*lengths, 0.02)) for bound in bounds]
    assert pauses.value("_sum") == pytest.approx(sum(lengths) + 0.02)
    assert read(fleet, now=9.0)["modwsgi_gc_pause_longest_seconds"].value() == 3.0


def test_findings_are_told_by_rule_and_by_group_with_0_for_all_quiet():
    fleet, worker, findings = a_fleet(), Worker(), Findings()
    for now in range(60):
        fold(fleet, worker.tick(requests=10, status={"2xx": 2, "5xx": 8}), now=now)
    groups = view.summary(fleet, 60.0, WALL, None, ("1m",), ("groups",))["groups"]
    found = read(fleet, now=60.0, findings=findings.look(facts(fleet, groups, 60.0, WALL), [], 60.0, WALL))
    assert found["modwsgi_collector_findings"].series() == {
        (("rule", rule.id), ("severity", rule.severity)): int(rule.id == "errors") for rule in RULES}
    assert {own[-1][1]: number for own, number in found["modwsgi_findings_by_group"].series(process_group="app").items()} == {
        "critical": 0, "warning": 1, "info": 0}


def test_descriptors_are_those_of_the_process_that_is_nearest_to_its_limit():
    fleet = a_fleet()
    for pid, files, limit in ((7, 900, 4096), (8, 512, 1024)):
        worker = Worker(pid=pid)
        fold(fleet, worker.tick(), now=1.0)
        fleet.answer(pid, an_answer(nspids=(pid,)), 1.0, WALL)
        fleet.sampling.add(fleet, pid, a_sample(files=files, files_limit=limit), 1.0, WALL)
    found = read(fleet, now=2.0)
    assert (found["modwsgi_descriptors_largest"].value(), found["modwsgi_descriptors_used_ratio"].value()) == (900, 0.5)


def test_exceptions_of_a_process_that_is_forgotten_stay_counted():
    fleet, worker = a_fleet(ended_s=1.0, silent_s=1.0), Worker(flags=0x8000)
    fold(fleet, worker.tick(requests=1), worker.datagram(APPLICATION_EXCEPTION, [
        (BY_NAME["exception_place"].id, BY_NAME["exception_place"].type, 1),
        (BY_NAME["exception_type"].id, BY_NAME["exception_type"].type, b"builtins.ValueError"),
        (BY_NAME["exception_count"].id, BY_NAME["exception_count"].type, 5)]), now=1.0)
    assert read(fleet, now=1.0)["modwsgi_exceptions"].value() == 5
    fleet.expire(100.0, WALL + 100)
    assert not fleet.processes() and read(fleet, now=100.0)["modwsgi_exceptions"].value() == 5


def test_the_collector_tells_of_itself():
    fleet = fold(a_fleet(), b"nonsense", Worker().tick(), sender=a_sender())
    found = read(fleet, now=1.0)
    assert found["modwsgi_collector_datagrams_received"].value() == 2
    assert {own[0][1]: number for own, number in found["modwsgi_collector_decode_errors"].series().items() if number} == {"header": 1}
    assert {name: found["modwsgi_collector_" + name].value() for name in (
        "healthy", "start_time_seconds", "cpu_seconds", "memory_rss_bytes", "stalls", "http_requests", "helpers_started", "samples",
        "textfile_writes", "records_written", "processes", "groups")} == {
        "healthy": 1, "start_time_seconds": WALL, "cpu_seconds": 1.5, "memory_rss_bytes": 20 << 20, "stalls": 0, "http_requests": 3,
        "helpers_started": 4, "samples": 2, "textfile_writes": 6, "records_written": 5, "processes": 1, "groups": 1}
    assert found["modwsgi_collector_stacks"].series() == {(("what", "taken"),): 1}
    [build] = found["modwsgi_collector_build"].series()
    assert build[0] == ("version", "1.2.3")


# --- never back ----------------------------------------------------------------------------------

def less(before, after):
    """The counters that are less than they were, or gone."""
    return [(key, number, after.get(key)) for key, number in before.items() if after.get(key, -1.0) < number]


def test_counters_never_go_back_while_slots_close_and_processes_come_and_go():
    """Sums of floats in another order may differ in the last digit: to Prometheus that would be a restart, and all counted twice."""
    chance, fleet = random.Random(8), a_fleet(ended_s=7.0, silent_s=9.0)
    workers, pids = [], itertools.count(100)
    before, sent, now = {}, 0, 1000.0
    for turn in range(90):
        now += chance.uniform(0.05, 1.1)
        while len(workers) < 6:
            workers.append(Worker(pid=next(pids)))
            fold(fleet, workers[-1].started(), now=now)
        idle = chance.random() < 0.5        # then slots close, and nothing new hides what that changes
        for worker in chance.sample(workers, len(workers)):
            requests = 0 if idle else chance.choice((0, 1, 3))
            sent += requests
            fold(fleet, worker.tick(durations=[chance.uniform(0.001, 1.7) for _ in range(requests)], sample_period=chance.uniform(0.3, 1.3),
                                    cpu_user_utilization=0.0 if idle else chance.random(),
                                    capacity_utilization=0.0 if idle else chance.random()), now=now)
            if not idle:
                fold(fleet, worker.gc_event(duration=chance.uniform(0, 0.01)), now=now)
        if chance.random() < 0.3:
            leaving = workers.pop(chance.randrange(len(workers)))
            if chance.random() < 0.7:
                fold(fleet, leaving.stopping(), leaving.stopped(), now=now)
        if turn % 2:
            fleet.expire(now, WALL + now)
        after = counters(openmetrics(b"".join(exposition(source(fleet, now), True))))
        assert less(before, after) == [], f"turn {turn}"
        before = after
    assert fleet.forgotten > 10
    found = read(fleet, now)
    assert found["modwsgi_requests"].value() == sent == found["modwsgi_request_seconds"].value("_count")


def test_a_reading_in_pieces_counts_each_slot_once_whatever_closes_meanwhile(monkeypatch):
    monkeypatch.setattr("modwsgi_tel.openmetrics.reading.BATCH", 2)
    fleet, workers = a_fleet(), [Worker(pid=pid) for pid in range(7, 17)]
    sent, now, before = 0, 1000.0, {}
    for _ in range(12):
        steps, data = exposition(source(fleet, now), True), []
        least = sent
        for piece in steps:
            data.append(piece)
            now += 0.9
            for worker in workers[::3]:
                fold(fleet, worker.tick(requests=1), now=now)
                sent += 1
        for worker in workers:
            fold(fleet, worker.tick(requests=2), now=now)
            sent += 2
        families = openmetrics(b"".join(data))
        if families.get("modwsgi_requests"):
            assert least <= families["modwsgi_requests"].value() <= sent
        assert less(before, counters(families)) == []
        before = counters(families)


def test_a_process_that_changes_its_group_leaves_what_it_counted():
    fleet, worker = a_fleet(), Worker(group="old")
    fold(fleet, worker.tick(requests=5), worker.gc_event(), now=1.0)
    worker.group = "new"
    fold(fleet, worker.tick(requests=1), now=2.0)
    found = read(fleet, now=2.0)
    assert {own[1][1]: number for own, number in found["modwsgi_requests"].series().items()} == {"old": 5, "new": 1}
    assert found["modwsgi_request_seconds"].value("_count", process_group="old") == 5
    assert found["modwsgi_gc_pause_seconds"].value("_count", process_group="old") == 1


def test_a_group_that_was_evicted_and_comes_back_counts_from_0():
    fleet, one = a_fleet(groups=2, ended_s=1.0, silent_s=1.0), Worker(pid=7, group="one")
    fold(fleet, one.tick(requests=5), now=1.0)
    fleet.expire(100.0, WALL + 100)
    for pid, group in ((8, "two"), (9, "three")):
        fold(fleet, Worker(pid=pid, group=group).tick(requests=1), now=100.0)
    assert read(fleet, now=100.0)["modwsgi_requests"].series(process_group="one") == {}
    fold(fleet, Worker(pid=10, group="one").tick(requests=2), now=101.0)
    assert read(fleet, now=101.0)["modwsgi_requests"].value(process_group="one") == 2


def test_lost_datagrams_that_arrive_late_take_nothing_back():
    fleet, worker = a_fleet(), Worker()
    ticks = [worker.tick() for _ in range(6)]
    fold(fleet, ticks[0], ticks[4], now=1.0)
    assert read(fleet, now=1.0)["modwsgi_datagrams_lost"].value() == 3
    fold(fleet, ticks[2], ticks[5], now=1.1)
    assert read(fleet, now=1.1)["modwsgi_datagrams_lost"].value() == 3


def test_a_record_whose_interval_is_no_number_spoils_no_counter():
    fleet, worker = a_fleet(), Worker(flags=0x8000)
    for interval in (float("nan"), float("inf"), -5.0):
        fold(fleet, worker.tick(sample_period=None, telemetry_interval=interval), now=1.0)
    fold(fleet, worker.tick(requests=1), now=9.0)
    assert read(fleet, now=9.0)["modwsgi_capacity_used_seconds"].value() >= 0.25


def test_each_reason_that_mod_wsgi_has_is_there_before_the_first_stop_so_that_it_is_an_increase():
    worker = Worker(pid=7)
    fleet = fold(a_fleet(), worker.started(), worker.tick(requests=1), now=1.0)
    assert {dict(own)["reason"]: number for own, number in read(fleet, now=1.0)["modwsgi_process_stops"].series().items()} == dict.fromkeys((
        "cpu_time_limit", "deadlock_timeout", "eviction_signal", "graceful_signal", "inactivity_timeout", "maximum_requests", "request_timeout",
        "restart_interval", "script_reload", "shutdown_signal", "startup_timeout"), 0)


# --- churn -----------------------------------------------------------------------------------------

def test_a_thousand_short_lived_processes_leave_no_thousand_series():
    fleet = a_fleet(ended_s=5.0)
    fold(fleet, Worker(pid=99).tick(requests=1), Worker(pid=99).gc_snapshot(), now=999.0)
    shape = {key for family in read(fleet, now=999.0, processes=5).values() for key in family.samples}
    for number in range(1000):
        worker, now = Worker(pid=1000 + number), 1000.0 + number
        fold(fleet, worker.started(), worker.tick(requests=1), worker.stopping(), worker.stopped(requests=1), now=now)
        fleet.expire(now, WALL + now)
    found = read(fleet, now=2000.0, processes=5)
    series = {key for family in found.values() for key in family.samples}
    assert found["modwsgi_requests"].value() == 1001 and found["modwsgi_process_stops"].value(reason="graceful_signal") == 1000
    assert len(series) <= len(shape) and not any("pid" in dict(own) for _, own in series - shape)


def test_single_processes_have_series_only_where_that_is_asked_for_and_the_oldest_first():
    fleet, workers = a_fleet(), [Worker(pid=pid) for pid in (11, 12, 13, 14)]
    for now, worker in enumerate(workers):
        fold(fleet, worker.tick(requests=worker.pid), now=now)
    fold(fleet, workers[0].stopping(), workers[0].stopped(), now=4.0)
    own = {metric.name.replace("_total", "") for metric in METRICS if metric.scope == PROCESS}
    assert not own & set(read(fleet, now=4.0))
    found = read(fleet, now=4.0, processes=2)
    assert {dict(labels)["pid"]: number for labels, number in found["modwsgi_process_requests"].series().items()} == {"12": 12, "13": 13}
    assert found["modwsgi_process_memory_rss_bytes"].value(pid="12") == 50 << 20
    assert found["modwsgi_collector_processes_left_out"].value() == 1


# --- texts of others ---------------------------------------------------------------------------------

HOSTILE = ('a"b', "back\\slash", "two\nlines", "\x00\x07\x1b[31m", '"} 1\nmodwsgi_requests_total 99', "{}", "%s%n", "\u202ereverse", "ü\U0001f600",
           " ", "#", "a,b=\"c\"", "\x85\u2028", "x" * 300)


def test_names_of_senders_are_labels_and_nothing_else():
    fleet = a_fleet()
    for pid, name in enumerate(HOSTILE, 100):
        worker = Worker(pid=pid, hostname=name, group=name)
        fold(fleet, worker.tick(requests=1), worker.stopping(name), worker.stopped(name), now=1.0)
    found = read(fleet, now=1.0, processes=100)
    groups = {dict(own)["process_group"] for own in found["modwsgi_requests"].series()}
    assert groups == {'a"b', "back\\slash", "two\nlines", "\\x00\\x07\\x1b[31m", '"} 1\nmodwsgi_requests_total 99', "{}", "%s%n",
                      "\\u202ereverse", "ü\U0001f600", " ", "#", "a,b=\"c\"", "\\x85\\u2028", "x" * 255}
    assert set(found["modwsgi_requests"].series().values()) == {1}


def test_groups_that_look_the_same_are_told_apart():
    fleet = a_fleet()
    for pid, name in ((7, "\x1b"), (8, "\\x1b"), (9, b"\xff"), (10, b"\xfe")):
        worker = Worker(pid=pid, group="g")
        fold(fleet, worker.tick(requests=pid).replace(b"\x01\x00g", len(name).to_bytes(2, "little") + (
            name if isinstance(name, bytes) else name.encode()), 1), now=1.0)
    found = read(fleet, now=1.0)["modwsgi_requests"].series()
    assert {dict(own)["process_group"]: number for own, number in found.items()} == {"\\x1b": 7, "\\x1b\ufffd": 8, "\ufffd": 19}


def test_any_state_is_a_text_that_follows_the_grammar():
    """Whatever arrives, both formats follow their grammar, no series is there twice, and no number is none."""
    chance, fleet = random.Random(5), a_fleet(groups=20, processes=40)
    known = datagrams(*NAMES)
    fields = [field for field in BY_NAME.values() if field.id < 300]
    for number in range(1500):
        data = bytearray(chance.choice(known))
        if chance.random() < 0.7:
            for _ in range(chance.choice((1, 2, 8))):
                data[chance.randrange(24, len(data))] = chance.choice((0, 1, 0x7F, 0xF0, 0xFF, chance.randrange(256)))
        now = number / 20
        fleet.apply(bytes(data), a_sender(chance.randrange(50)), now, WALL + now)
        if number % 100 == 99:
            fleet.expire(now, WALL + now)
            read(fleet, now, processes=10)
    for kind, value in itertools.product(fields, (float("nan"), float("inf"), -1.0, 1e300)):
        if kind.type == BY_NAME["sample_period"].type:
            fold(fleet, Worker(pid=7, group="odd").tick(requests=1, **{kind.name: value}), now=200.0)
    assert "modwsgi_requests" in read(fleet, now=200.0, processes=10)


def test_nothing_received_is_a_text_too():
    found = read(a_fleet(), own={})
    assert not any(metric.scope == GROUP and metric.name in found for metric in METRICS)
    assert found["modwsgi_collector_datagrams_received"].value() == 0


# --- asked for by HTTP ---------------------------------------------------------------------------------

@pytest.mark.parametrize("accept, wanted", [
    ("", False), ("*/*", False), ("text/plain", False), ("text/html,*/*;q=0.8", False), ("application/json", False),
    ("application/openmetrics-text", True), ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
    ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
    ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
     "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", True),
    ("application/openmetrics-text;version=0.0.1", False), ("application/openmetrics-text;version=2.0.0,text/plain", False),
    ("application/openmetrics-text;q=0.4,text/plain;q=0.5", False), ("application/openmetrics-text;q=0.5,text/plain;q=0.5", True),
    ("application/openmetrics-text;q=0", False), ("application/openmetrics-text;q=nan", False), ("Application/OpenMetrics-Text", True),
    (";;,=,q=", False), ('application/openmetrics-text; version="1.0.0"', True),
])
def test_the_format_is_what_the_client_likes_best(accept, wanted):
    assert wants_openmetrics(accept) == wanted


def test_the_route_answers_in_pieces_with_the_type_of_the_format():
    asked = Asked(a_busy_fleet(), now=20.0)
    request, response = asked.response("/metrics")
    assert (response.status, response.content_type) == (200, CLASSIC_TYPE)
    pieces = list(response.body)
    assert len(pieces) > 4 and all(len(piece) < 40_000 for piece in pieces)
    assert classic(b"".join(pieces))["modwsgi_requests_total"].value() == 100
    _, response = asked.response("/metrics", "GET", "Accept: application/openmetrics-text")
    assert response.content_type == OPENMETRICS_TYPE and openmetrics(b"".join(response.body))
    assert asked.body("/metrics", "POST")[0] == 405 and asked.body("/metrics?x=1")[0] == 400


def test_a_scrape_changes_nothing_that_others_see():
    fleet = a_busy_fleet()
    before = view.summary(fleet, 20.0, WALL)
    read(fleet, now=20.0, processes=5)
    assert view.summary(fleet, 20.0, WALL) == before


def test_the_suffixes_of_the_table_are_those_of_the_format():
    for metric in METRICS:
        family = metric.name[:-len("_total")] if metric.type == COUNTER else metric.name
        assert {name[len(family):] for name in series_of(metric)} == SUFFIXES[metric.type]
    assert {metric.type for metric in METRICS} == {COUNTER, "gauge", HISTOGRAM, INFO}
