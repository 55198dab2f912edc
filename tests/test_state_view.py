"""The summary is versioned plain data, and every face shows the same numbers."""
import json

import pytest

from builders import NAMES, WALL, Worker, a_fleet, a_sender, an_answer, capture, fold, replayed
from modwsgi_tel.state import view
from modwsgi_tel.state.process import LIVES
from modwsgi_tel.state.window import COUNTERS
from modwsgi_tel.wire.fields import PHASES

WINDOW = {"seconds", "ticks", "requests", "throughput", "capacity", "cpu_user", "cpu_system", "cpu", "status", "phases", "gil",
          "gc", "slow_completed", "input_bytes", "output_bytes"}


def at_the_end(name):
    """(fleet, summary) when the last datagram of a capture has come."""
    fleet, end = replayed(name), capture(name)[-1][0] - capture(name)[0][0]
    return fleet, view.summary(fleet, end, capture(name)[-1][0]), end


def strict(value):
    return json.loads(json.dumps(value, allow_nan=False))


@pytest.mark.parametrize("name", NAMES)
def test_the_summary_has_its_keys_and_is_strict_json(name):
    _, found, _ = at_the_end(name)
    assert strict(found) == found and (found["type"], found["version"]) == ("summary", 1)
    assert set(found) == {"type", "version", "time", "collector", "totals", "groups", "agent", "processes"}
    assert set(found["totals"]) == {"groups", "process_groups", "processes", "lives", "rss", "counters", "lost",
                                    "lost_uncertain", "slow", "windows"}
    for group in found["groups"]:
        assert set(group) == {"hostname", "process_group", "lives", "roles", "threads", "rss", "counters", "lost", "started",
                              "stopped", "vanished", "stop_reasons", "slow_active", "slow_lost", "switch_interval", "windows"}
    for process in found["processes"]:
        assert set(process) == {
            "id", "pid", "sender_pid", "sender_uid", "hostname", "process_group", "role", "life", "life_since", "silent_s", "alive",
            "stopping", "stopped", "first_seen", "last_seen", "interval", "parent_pid", "start_ticks", "namespace_pids",
            "restarts_unseen", "threads", "rss", "max_rss", "slow_threshold", "slow_active", "interpreters", "lost",
            "lost_uncertain", "implausible", "kernel", "counters", "windows"}
        assert process["life"] in LIVES
    for row in (found["totals"], *found["groups"], *found["processes"]):
        assert set(row["windows"]) == {"now", "1m", "10m"} and set(row["counters"]) == set(COUNTERS)
        for window in row["windows"].values():
            assert set(window) == WINDOW and set(window["gil"]) == {"share", "coefficient"}
            assert set(window["gc"]) == {"pauses", "seconds", "max"} and len(window["status"]) == 5
            for phase, shown in window["phases"].items():
                assert set(shown) == {"mean", "p50", "p95", "p99", "max"}


@pytest.mark.parametrize("name", NAMES)
def test_totals_are_the_sums_of_the_groups_and_groups_those_of_their_processes(name):
    _, found, _ = at_the_end(name)
    totals, groups, processes = found["totals"], found["groups"], found["processes"]
    assert totals["counters"] == {key: pytest.approx(sum(group["counters"][key] for group in groups)) for key in COUNTERS}
    assert totals["lost"] == sum(group["lost"] for group in groups)
    assert totals["lives"] == {life: sum(row["life"] == life for row in processes) for life in LIVES}
    for window in ("now", "1m", "10m"):
        for key in ("ticks", "requests", "slow_completed", "input_bytes", "output_bytes"):
            assert totals["windows"][window][key] == sum(group["windows"][window][key] for group in groups)
    for group in groups:
        members = [row for row in processes if (row["hostname"], row["process_group"]) == (
            group["hostname"], group["process_group"])]
        assert group["lives"] == {life: sum(row["life"] == life for row in members) for life in LIVES}
        assert group["counters"] == {key: pytest.approx(sum(row["counters"][key] for row in members)) for key in COUNTERS}
        assert group["slow_active"] == sum(row["slow_active"] for row in members)
        for window in ("now", "1m", "10m"):
            assert group["windows"][window]["requests"] == sum(row["windows"][window]["requests"] for row in members)


@pytest.mark.parametrize("name", NAMES)
def test_the_histogram_says_what_the_summary_says(name):
    fleet, found, end = at_the_end(name)
    for window in view.WINDOWS:
        for phase in PHASES:
            one = view.run(view.histogram_steps(fleet, phase, window, None, end))
            shown = found["totals"]["windows"][window]["phases"].get(phase, {"p50": None, "p95": None, "p99": None, "max": None})
            assert {key: one[key] for key in ("p50", "p95", "p99", "max")} == {
                key: shown[key] for key in ("p50", "p95", "p99", "max")}
            if phase == "request":
                assert one["requests"] == found["totals"]["windows"][window]["requests"]
            if phase == "gil_wait":
                assert one["coefficient"] == found["totals"]["windows"][window]["gil"]["coefficient"]


@pytest.mark.parametrize("name", ["subinterp", "lifecycle"])
def test_the_histogram_of_a_group_says_what_its_row_says(name):
    fleet, found, end = at_the_end(name)
    for group in found["groups"]:
        one = view.run(view.histogram_steps(fleet, "request", "10m", group["process_group"], end))
        shown = group["windows"]["10m"]["phases"].get("request", {"p50": None, "p95": None, "p99": None})
        assert [one[key] for key in ("p50", "p95", "p99")] == [shown[key] for key in ("p50", "p95", "p99")]


def test_the_row_of_a_process_is_the_same_everywhere():
    fleet, found, end = at_the_end("daemon_mixed")
    for process, row in zip(fleet.processes(), found["processes"]):
        details = view.process_details(process, end, capture("daemon_mixed")[-1][0])
        assert {key: details[key] for key in row} == row
        assert set(details) - set(row) == {"versions", "sources", "kinds", "interpreters_evicted", "newest", "gc", "agent"}


def test_a_fleet_of_nothing_has_a_summary():
    found = view.summary(a_fleet(), 1.0, WALL)
    assert strict(found) == found
    assert (found["groups"], found["processes"], found["totals"]["processes"], found["totals"]["lost"]) == ([], [], 0, 0)
    assert found["totals"]["windows"]["1m"]["throughput"] is None


def test_what_is_not_told_is_null_and_not_nothing():
    fleet, worker = a_fleet(), Worker(group="")
    leave = dict.fromkeys(("queue_time", "daemon_time", "queue_time_buckets", "daemon_time_buckets", "memory_rss",
                           "cpu_user_utilization", "capacity_utilization", "request_threads_maximum", "switch_interval",
                           "queue_time_min", "queue_time_max", "daemon_time_min", "daemon_time_max"))
    fold(fleet, worker.tick(2, **leave), now=1.0)
    found = view.summary(fleet, 1.0, WALL)
    [row] = found["processes"]
    minute = found["totals"]["windows"]["1m"]
    assert (row["rss"], row["threads"]["maximum"], row["windows"]["1m"]["cpu_user"], row["windows"]["1m"]["cpu"]) == (None,) * 4
    assert (minute["capacity"], minute["cpu_user"], minute["cpu"], found["groups"][0]["rss"]) == (None,) * 4
    assert "queue" not in minute["phases"] and "application" in minute["phases"]


def test_a_process_without_a_tick_is_in_the_totals():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.gc_snapshot())
    worker.seq += 3
    fold(fleet, worker.gc_snapshot())
    found = view.summary(fleet, 1.0, WALL)
    assert (found["totals"]["processes"], found["totals"]["lost"], found["totals"]["lives"]["started"]) == (1, 3, 1)


def test_a_group_is_a_host_and_a_name():
    fleet = a_fleet()
    for pid, host in ((7, "web1"), (8, "web2")):
        fold(fleet, Worker(pid=pid, hostname=host).tick(1))
    assert [(group["hostname"], group["process_group"]) for group in view.summary(fleet, 1.0, WALL)["groups"]] == [
        ("web1", "app"), ("web2", "app")]


@pytest.mark.parametrize("answers, shown", [
    ([], None), ([an_answer()], True), ([an_answer()._replace(alive=None, start=None)], None),
    ([an_answer(), an_answer(alive=False)], False)])
def test_alive_is_what_proc_says_and_null_where_it_does_not(answers, shown):
    fleet = fold(a_fleet(), Worker().tick(1), now=1.0)
    for now, answer in zip((1.5, 10.0), answers):
        fleet.expire(now, WALL + now)
        fleet.answer(7, answer, now, WALL + now)
    assert view.summary(fleet, 11.0, WALL)["processes"][0]["alive"] is shown


def test_what_was_lost_to_bounds_is_shown():
    fleet = a_fleet(processes=2, slow=2, events=2, interpreters=1, groups=1)
    for pid in range(10, 15):
        worker = Worker(pid=pid, group=f"g{pid}")
        fold(fleet, worker.started(), worker.tick(1), worker.slow("a"), worker.gc_snapshot("x"), worker.gc_snapshot("y"))
    assert view.collector(fleet)["bounds"] == {
        "processes_evicted": 3, "processes_forgotten": 0, "slow_evicted": 3, "slow_forgotten": 0, "events_dropped": 3,
        "groups_evicted": view.collector(fleet)["bounds"]["groups_evicted"], "interpreters_evicted": 5, "records_dropped": 0}
    assert view.collector(fleet)["bounds"]["groups_evicted"] >= 4


def test_the_summary_in_steps_is_the_same_however_others_take_turns():
    """What happens between two steps may be in or not, but nothing is counted twice and nothing raises."""
    fleet = a_fleet(processes=40)
    for pid in range(100, 140):
        worker = Worker(pid=pid, group=f"g{pid % 3}")
        fold(fleet, worker.tick(1), now=1.0)
        worker.seq += 2
        fold(fleet, worker.tick(1), now=1.0)
    steps, pid = view.summary_steps(fleet, 1.0, WALL), 1000
    before = view.summary(fleet, 1.0, WALL)["totals"]
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found = end.value
            break
        for _ in range(5):
            pid += 1
            fold(fleet, Worker(pid=pid, group="g1").started(), now=1.0, sender=a_sender(pid))
    assert strict(found) == found
    assert found["totals"]["lost"] == before["lost"] == 80
    assert found["totals"]["counters"]["requests"] == 80
