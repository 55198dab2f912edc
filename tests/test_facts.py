"""Facts: what the rules judge is what the processes say, in bounded shape."""
import pytest

from builders import WALL, Worker, a_fleet, a_sample, an_answer, fold
from modwsgi_tel.state import view
from modwsgi_tel.state.facts import (NAME_LENGTH, NOTHING_SLOW, PATH_LENGTH, RUNNING_MOST, SLOW_READ, Files, Rss, Running,
                                     Silent, Slowness, Stop, Stopping, Vanished, facts)

FULL = dict(request_threads_active=5, capacity_utilization=1.0)


def look(fleet, now):
    fleet.expire(now, WALL + now)
    return facts(fleet, view.summary(fleet, now, WALL + now)["groups"], now, WALL + now)


def the_group(fleet, now):
    [group] = look(fleet, now)["groups"]
    return group


def ids(fleet):
    return [process.id for process in fleet.processes()]


def test_a_fleet_of_nothing_has_facts():
    assert look(a_fleet(), 1.0) == {"processes": 0, "reporting": 0, "silent": 0, "live": 0, "ended": 0,
                                    "ended_wall": None, "heard_s": None, "lost": 0, "wrong": 0, "groups": []}


def test_the_facts_of_one_process_are_its_newest_tick_and_the_row_of_its_group():
    fleet = fold(a_fleet(), Worker().tick(3), now=1.0)
    row = view.summary(fleet, 2.0, WALL + 2)["groups"][0]
    group = {
        "hostname": "web1", "process_group": "app", "name": "app", "serves": True, "window": row["windows"]["1m"],
        "gc_dropped": 0, "processes": 1, "reporting": 1, "taking": 1, "full": 0, "process_s": 1.0, "silent": [],
        "stopping": [], "vanished": [], "stops": {}, "slow": NOTHING_SLOW,
        "rss": [Rss(ids(fleet)[0], 7, 50 << 20, 1.0)], "files": [], "server": "", "unseen": 0}
    assert facts(fleet, [row], 2.0, WALL + 2) == {
        "processes": 1, "reporting": 1, "silent": 0, "live": 1, "ended": 0, "ended_wall": None, "heard_s": 1.0, "lost": 0,
        "wrong": 0, "groups": [group]}


@pytest.mark.parametrize("fields, full", [
    (FULL, 1), (dict(FULL, request_threads_active=4), 0), (dict(FULL, capacity_utilization=0.89), 0),
    (dict(FULL, capacity_utilization=None), 1), (dict(FULL, request_threads_maximum=None), 0),
    (dict(FULL, request_threads_active=9), 1), (dict(FULL, capacity_utilization=float("nan")), 0)])
def test_full_is_who_has_all_threads_active_and_nearly_all_of_their_time_busy(fields, full):
    assert the_group(fold(a_fleet(), Worker().tick(1, **fields), now=1.0), 2.0)["full"] == full


def test_who_stops_or_is_silent_takes_no_requests():
    fleet, workers = a_fleet(), [Worker(pid) for pid in (7, 8, 9)]
    fold(fleet, workers[0].tick(1, **FULL), now=1.0)
    fold(fleet, workers[1].tick(1, **FULL), workers[2].tick(1, **FULL), workers[2].stopping(), now=10.0)
    group = the_group(fleet, 10.5)
    assert {key: group[key] for key in ("processes", "reporting", "taking", "full")} == {
        "processes": 3, "reporting": 2, "taking": 1, "full": 1}


def test_a_silent_process_says_what_was_inside_when_it_was_last_heard():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1, request_threads_active=4, request_threads_current_elapsed=[0.5, 2.0, 0.0, 0.0, 0.0]),
         now=1.0)
    assert the_group(fleet, 4.0)["silent"] == []
    assert the_group(fleet, 41.0)["silent"] == [Silent(ids(fleet)[0], 7, 40.0, WALL + 1, 2, None)]
    fold(fleet, *(worker.slow(name) for name in "abc"), now=42.0)
    assert the_group(fleet, 52.0)["silent"] == [Silent(ids(fleet)[0], 7, 10.0, WALL + 42, 3, None)]


def test_what_proc_says_of_a_silent_process_is_told():
    fleet = fold(a_fleet(), Worker().tick(1), now=1.0)
    for now in (2.0, 10.0):
        fleet.expire(now, WALL + now)
        fleet.answer(7, an_answer(), now, WALL + now)
    assert [each.alive for each in the_group(fleet, 11.0)["silent"]] == [True]


def test_what_the_kernel_says_of_a_process_since_it_is_silent_is_told():
    fleet = fold(a_fleet(), Worker().tick(1), now=1.0)
    fleet.answer(7, an_answer(), 1.0, WALL + 1)
    for at, state in ((0.9, "T"), (5.0, "D")):
        fleet.sampling.add(fleet, 7, a_sample(at=at, state=state, wait="fsync"), at, WALL + at)
        told = [(each.state, each.wait) for each in the_group(fleet, 11.0)["silent"]]
        assert told == [("", "") if at < 1.0 else ("D", "fsync")]


def test_descriptors_are_told_while_they_are_known_with_their_numbers_once_they_have_grown():
    fleet = fold(a_fleet(), Worker().tick(1), now=1.0)
    fleet.answer(7, an_answer(), 1.0, WALL + 1)
    assert the_group(fleet, 1.0)["files"] == []
    for at, count in ((2.0, 10), (12.0, 109), (22.0, 110)):
        fleet.sampling.add(fleet, 7, a_sample(at=at, files=count), at, WALL + at)
        points = [(2.0, 10), (12.0, 109), (22.0, 110)] if count == 110 else []
        assert the_group(fleet, at)["files"] == [Files(ids(fleet)[0], 7, count, 1024, points)]
    assert the_group(fleet, 142.0)["files"] and the_group(fleet, 142.5)["files"] == []
    fleet.sampling.add(fleet, 7, a_sample(at=143.0, files=None), 143.0, WALL + 143)
    assert the_group(fleet, 143.0)["files"] == []


def vanish(fleet, now):
    """The process with pid 7 is asked about, falls silent and is gone at `now`."""
    fleet.answer(7, an_answer(), 1.0, WALL + 1)
    fleet.expire(now, WALL + now)
    fleet.answer(7, an_answer(alive=False), now, WALL + now)


def test_a_vanished_process_is_told_for_ten_minutes():
    fleet, worker = a_fleet(ended_s=60.0), Worker()
    fold(fleet, worker.tick(1), worker.slow("a"), now=1.0)
    vanish(fleet, 10.0)
    assert the_group(fleet, 11.0)["vanished"] == [Vanished(ids(fleet)[0], 7, WALL + 1, 1, False)]
    assert the_group(fleet, 100.0)["vanished"] == [Vanished(None, 7, WALL + 1, 1, False)]
    assert the_group(fleet, 610.0)["vanished"] == [Vanished(None, 7, WALL + 1, 1, False)]
    assert the_group(fleet, 610.5)["vanished"] == []


def test_one_that_vanished_while_it_stopped_is_marked_and_one_that_was_heard_again_is_not_told():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.stopping(), now=1.0)
    vanish(fleet, 10.0)
    assert [each.stopping for each in the_group(fleet, 11.0)["vanished"]] == [True]
    fold(fleet, worker.tick(1), now=12.0)
    assert the_group(fleet, 13.0)["vanished"] == []


def test_stops_are_told_by_reason_for_ten_minutes():
    fleet = a_fleet()
    for number, reason in enumerate(("request_timeout", "shutdown_signal", "request_timeout")):
        worker = Worker(pid=7 + number)
        fold(fleet, worker.tick(1), worker.stopped(reason), now=1.0 + number)
    assert the_group(fleet, 5.0)["stops"] == {
        "request_timeout": [Stop(WALL + 1, 12.5), Stop(WALL + 3, 12.5)], "shutdown_signal": [Stop(WALL + 2, 12.5)]}
    assert the_group(fleet, 602.5)["stops"] == {"request_timeout": [Stop(WALL + 3, 12.5)]}


def test_after_a_replay_has_gone_back_events_of_its_future_do_not_count():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.stopped("request_timeout"), now=100.0)
    group = facts(fleet, view.summary(fleet, 100.0, WALL + 50)["groups"], 100.0, WALL + 50)["groups"][0]
    assert group["stops"] == {}


def test_who_said_that_it_stops_and_is_heard_is_told():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.stopping("graceful_signal"), now=1.0)
    fold(fleet, worker.tick(1), now=70.0)
    assert the_group(fleet, 71.0)["stopping"] == [Stopping(ids(fleet)[0], 7, 70.0, WALL + 1, "graceful_signal")]
    assert the_group(fleet, 80.0)["stopping"] == []         # silent: nobody knows whether it goes on


def test_slow_requests_are_told_with_their_ages_by_the_clock_of_their_process():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.slow("a", slow_duration=30.0, slow_start_stamp=12.0, slow_script_name="/shop"),
         worker.slow("b", slow_duration=3.0), worker.slow("c", done=True), now=1.0)
    [process] = ids(fleet)
    assert the_group(fleet, 2.0)["slow"] == Slowness(2, 2, {"/shop/slow": 1, "/slow": 1}, [
        Running(31.0, "/shop/slow", process, 7), Running(4.0, "/slow", process, 7)])


def test_slow_requests_without_a_word_and_those_of_silent_processes_are_left_out():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.slow("a"), now=1.0)
    fold(fleet, worker.tick(1), now=7.0)
    assert the_group(fleet, 7.5)["slow"] == Slowness(0, 0, {}, [])
    fold(fleet, worker.slow("a"), now=8.0)
    assert the_group(fleet, 9.0)["slow"].active == 1
    assert the_group(fleet, 12.0)["slow"] == NOTHING_SLOW


def test_of_very_many_slow_requests_the_oldest_and_some_of_the_others_are_read():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), now=100.0)
    for number in range(1000):
        fold(fleet, worker.slow(f"r{number}", slow_duration=1000.0 - number, slow_path_info=f"/{number // 500}"),
             now=100.0 + number / 1000)
    fold(fleet, worker.tick(1), now=101.0)
    slow = the_group(fleet, 101.0)["slow"]
    assert slow.active == 1000 and SLOW_READ * 0.9 <= slow.read <= SLOW_READ and len(slow.running) == RUNNING_MOST
    assert [running.age_s for running in slow.running[:3]] == pytest.approx([1001.0, 999.999, 998.998])
    assert set(slow.paths) == {"/0", "/1"} and sum(slow.paths.values()) == slow.read


@pytest.mark.parametrize("told", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_duration_that_cannot_be_is_replaced_by_the_time_that_we_know_it(told):
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.slow("a", slow_duration=told), now=1.0)
    assert [running.age_s for running in the_group(fleet, 3.0)["slow"].running] == [2.0]


def test_text_from_clients_is_cut_and_left_raw():
    fleet, worker = a_fleet(), Worker(group="\x1b[2J" + "g" * 500)
    fold(fleet, worker.tick(1), worker.slow("a", slow_path_info=b"/\xff\x1b]0;" + b"x" * 5000), now=1.0)
    group = the_group(fleet, 2.0)
    assert group["name"] == ("\x1b[2J" + "g" * 500)[:NAME_LENGTH]
    assert list(group["slow"].paths) == [("/\ufffd\x1b]0;" + "x" * 5000)[:PATH_LENGTH]]


def test_embedded_mode_has_a_name_and_of_two_hosts_each_is_named():
    fleet = fold(a_fleet(), Worker(7, group="").tick(1), Worker(8, hostname="web2").tick(1), now=1.0)
    assert [group["name"] for group in look(fleet, 2.0)["groups"]] == ["(embedded) on web1", "app on web2"]


def test_apache_children_that_never_serve_are_marked():
    assert the_group(fold(a_fleet(), Worker(group="").tick(0), now=1.0), 2.0)["serves"] is False
    assert the_group(fold(a_fleet(), Worker(group="").tick(1), now=1.0), 2.0)["serves"] is True


def test_a_group_that_came_after_its_row_was_made_is_left_for_the_next_look():
    fleet = fold(a_fleet(), Worker(7).tick(1), now=1.0)
    rows = view.summary(fleet, 1.0, WALL + 1)["groups"]
    fold(fleet, Worker(8, group="other").tick(1), now=1.0)
    assert [group["name"] for group in facts(fleet, rows, 1.0, WALL + 1)["groups"]] == ["app"]


def test_what_was_lost_and_what_was_wrong_is_counted():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), now=1.0)
    worker.seq += 3
    fold(fleet, worker.tick(1), b"no telemetry, but long enough", now=1.5)
    found = look(fleet, 2.0)
    assert (found["lost"], found["wrong"]) == (3, 1)
