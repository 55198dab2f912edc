"""Findings: each rule fires on the trouble that it is about, and on nothing else."""
import json
import struct

import pytest

from builders import WALL, Worker, a_fleet, a_sample, a_sender, an_answer, capture, fold
from modwsgi_tel import simulate
from modwsgi_tel.figures import moment
from modwsgi_tel.findings import FINDINGS_MOST, HELD_MOST, RULES, SEVERITIES, Finding, Findings, verdict
from modwsgi_tel.state import view
from modwsgi_tel.state.facts import facts
from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import AGENT_FLAG, AGENT_STATE

FULL = dict(request_threads_active=5, capacity_utilization=1.0)


class Watch:
    """A fleet that is looked at: `at(now)` lets time pass and gives {id: text} of what is wrong."""

    def __init__(self, **limits):
        self.fleet = a_fleet(**limits)
        self.findings = Findings()

    def fold(self, now, *sent):
        fold(self.fleet, *sent, now=now)

    def look(self, now, wall=None, own=()):
        wall = WALL + now if wall is None else wall
        self.fleet.expire(now, wall)
        groups = view.summary(self.fleet, now, wall)["groups"]
        return self.findings.look(facts(self.fleet, groups, now, wall), list(own), now, wall)

    def at(self, now):
        return {found["id"]: found["text"] for found in self.look(now)}

    def one(self, now):
        [found] = self.look(now)
        return found


def told(then):
    """The time of day of monotonic seconds, as a text has it."""
    return moment(WALL + then, WALL)


def ticking(workers, since, until, watch, **fields):
    """Each worker ticks once a second; the last look's {id: text}."""
    for now in range(since, until):
        watch.fold(float(now), *(worker.tick(**{"requests": 1, **fields}) for worker in workers))
        found = watch.at(float(now))
    return found


# --- the table -----------------------------------------------------------------------------------

def test_each_rule_is_one_row_with_sentences():
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.severity in SEVERITIES and callable(rule.check)
        assert rule.help.endswith(".") and rule.advice.endswith(".") and "\n" not in rule.help + rule.advice


def test_a_finding_says_all_about_itself():
    watch, workers = Watch(), [Worker(pid) for pid in (7, 8)]
    watch.fold(1.0, *(worker.tick(1) for worker in workers))
    watch.fold(20.0, workers[1].tick(1))
    found = watch.one(21.0)
    [process] = [process.id for process in watch.fleet.processes() if process.pid == 7]
    assert found == {
        "id": "silent", "severity": "critical", "hostname": "web1", "process_group": "app", "pid": 7,
        "process": process, "since": WALL + 1, "text": "pid 7 of app silent for 20 s", "advice": found["advice"],
        "figures": {"processes": 1, "silent_s": 20.0, "inside": 0, "alive": 0}}
    assert tuple(found) == Finding._fields and watch.findings.last == [found]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


# --- capacity ------------------------------------------------------------------------------------

def test_busy_threads_are_a_finding_once_they_have_lasted():
    watch, workers = Watch(), [Worker(pid) for pid in (7, 8, 9, 10)]
    for now in range(1, 8):
        watch.fold(float(now), *(worker.tick(20, **FULL) for worker in workers[:3]), workers[3].tick(20))
        assert watch.at(float(now)) == ({} if now < 6 else {
            "threads-busy": "3 of 4 processes of app have every thread busy; queue time p95 5.0 ms"})


def test_threads_of_less_than_half_of_the_processes_may_be_busy():
    watch, workers = Watch(), [Worker(pid) for pid in (7, 8, 9)]
    for now in range(1, 20):
        watch.fold(float(now), workers[0].tick(1, **FULL), *(worker.tick(1) for worker in workers[1:]))
        assert watch.at(float(now)) == {}


def test_threads_that_are_busy_now_and_then_are_no_finding():
    watch, worker = Watch(), Worker()
    for now in range(1, 40):
        watch.fold(float(now), worker.tick(1, **(FULL if now % 4 else {})))
        assert watch.at(float(now)) == {}


def test_one_process_alone_has_every_thread_busy():
    assert ticking([Worker()], 1, 8, Watch(), queue_time_buckets=None, **FULL) == {
        "threads-busy": "1 of 1 process of app has every thread busy"}


@pytest.mark.parametrize("queue_s, capacity, requests, found", [
    (0.6, 0.3, 2, True), (0.3, 0.3, 2, False), (0.6, 0.85, 2, False), (0.6, 0.3, 0, False)])
def test_requests_that_queue_though_threads_are_free_are_a_finding(queue_s, capacity, requests, found):
    watch = Watch()
    shown = ticking([Worker()], 1, 15, watch, durations=[queue_s * 20] * requests, capacity_utilization=capacity)
    assert {key for key in shown if key == "queueing"} == ({"queueing"} if found else set())
    if found:
        assert shown["queueing"] == "queue time p95 600 ms in app, though its threads are busy only 30 % of the time"


def test_what_queued_while_all_threads_were_busy_is_not_told_again_as_queueing():
    watch, worker = Watch(), Worker()
    shown = ticking([worker], 1, 20, watch, durations=[20.0] * 3, **FULL)
    assert set(shown) == {"threads-busy"}
    for now in range(20, 90):
        watch.fold(float(now), worker.tick(1))
        assert "queueing" not in watch.at(float(now))


def gil(app_s, wait_s, requests=5):
    return ticking([Worker()], 1, 10, Watch(), durations=[app_s] * requests, gil_wait_time=wait_s,
                   application_time=app_s)


def test_gil_waits_that_take_a_share_of_the_time_are_a_finding():
    assert gil(0.1, 0.035) == {"gil-contention": "GIL waits 35 % of application time in app"}
    assert gil(1.0, 0.051) == {"gil-contention": "GIL waits 5 % of application time in app"}


def test_gil_waits_just_under_each_threshold_are_none():
    assert gil(0.1, 0.0199) == {}
    assert gil(0.001, 0.0005) == {}                 # half of the time, but of a millisecond
    assert gil(0.9, 0.049) == {}
    assert gil(2.0, 0.09) == {}
    assert gil(0.1, 0.035, requests=2) == {}        # 18 requests


def test_the_shape_of_gil_waits_is_the_first_word():
    waits = [0] * 65
    for bucket, count in ((9, 100), (13, 80), (15, 64)):      # 5, 10 and 15 ms
        waits[bucket] = count
    shown = ticking([Worker()], 1, 10, Watch(), requests=10, application_time=0.1, gil_wait_time=0.05,
                    gil_wait_time_buckets=waits)
    assert shown == {"gil-contention": "convoy: GIL waits 50 % of application time in app"}


# --- requests ------------------------------------------------------------------------------------

def slow_ones(paths, requests=95, done=0):
    watch, worker = Watch(), Worker()
    watch.fold(1.0, worker.tick(requests), *(worker.slow(f"d{number}", done=True) for number in range(done)),
               *(worker.slow(f"a{number}", slow_path_info=path, slow_duration=2.0 + number)
                 for number, path in enumerate(paths)))
    return watch.at(3.0)


def test_slow_requests_name_the_path_when_it_is_one():
    assert slow_ones(["/reports"] * 5) == {
        "slow-requests": f"slow since {told(-5)}, all in /reports: 5 of 100 requests of app"}
    assert slow_ones(["/reports"] * 8 + ["/a", "/b"]) == {
        "slow-requests": f"slow since {told(-10)}, 80 % in /reports: 10 of 105 requests of app"}
    assert slow_ones(["/reports"] * 7 + ["/a", "/b", "/b"]) == {
        "slow-requests": f"slow since {told(-10)}, in 3 paths: 10 of 105 requests of app"}
    assert slow_ones([], done=5) == {"slow-requests": f"slow since {told(3)}: 5 of 95 requests of app"}
    assert slow_ones([""] * 5, requests=0) == {
        "slow-requests": f"slow since {told(-5)}, all in (no path): 5 of 5 requests of app"}


def test_a_few_slow_requests_are_no_finding():
    assert slow_ones(["/reports"] * 4, requests=10) == {}
    assert slow_ones(["/reports"] * 5, requests=96) == {}
    assert slow_ones(["/reports"] * 2, requests=10, done=2) == {}


def test_slow_since_stays_when_the_oldest_of_the_requests_has_ended():
    watch, worker = Watch(), Worker()
    for now in range(1, 40):
        watch.fold(float(now), worker.tick(1), *(worker.slow(f"{now}/{n}", slow_duration=3.0) for n in range(5)))
        found = watch.one(float(now))
        assert (found["id"], found["since"]) == ("slow-requests", WALL - 2)
        watch.fold(now + 0.5, *(worker.slow(f"{now}/{n}", done=True) for n in range(5)))


@pytest.mark.parametrize("seconds, found", [
    (59.0, {}), (61.0, {"stuck-request": "a request of /slow runs for 61 s in pid 7 of app"}),
    (600.0, {"stuck-request": "a request of /slow runs for 10 min in pid 7 of app"})])
def test_a_request_that_runs_for_a_minute_is_stuck(seconds, found):
    watch, worker = Watch(), Worker()
    watch.fold(1.0, worker.tick(1), worker.slow(slow_duration=seconds))
    assert watch.at(1.0) == found


def test_several_stuck_requests_are_one_finding():
    watch, worker = Watch(), Worker()
    watch.fold(1.0, worker.tick(1), *(worker.slow(f"{age}", slow_duration=age, slow_path_info=f"/{age:.0f}")
                                      for age in (30.0, 90.0, 240.0)))
    found = watch.one(1.0)
    assert found["text"] == "2 requests of app run for 60 s or longer, the oldest for 4 min: /240 in pid 7"
    assert (found["since"], found["pid"], found["figures"]) == (
        WALL - 239, None, {"requests": 2, "age_s": 240.0, "path": "/240", "pid": 7})


def test_a_stuck_request_that_ended_is_not_what_the_next_one_is_dated_from():
    watch, worker = Watch(), Worker()
    watch.fold(1.0, worker.tick(1), *(worker.slow(f"{age}", slow_duration=age) for age in (90.0, 240.0)))
    assert watch.one(1.0)["since"] == WALL - 239
    watch.fold(2.0, worker.tick(1), worker.slow("240.0", done=True, slow_duration=241.0))
    watch.fold(2.0, worker.slow("90.0", slow_duration=91.0), worker.slow("x", slow_duration=61.0))
    assert watch.one(2.0)["since"] == WALL - 89


@pytest.mark.parametrize("wrong, right, found", [
    (5, 95, {"errors": "5 % of the responses of app are 5xx: 5 of 100 requests in a minute"}), (5, 96, {}), (4, 16, {}),
    (10, 9, {}), (20, 0, {"errors": "100 % of the responses of app are 5xx: 20 of 20 requests in a minute"})])
def test_a_share_of_server_errors_is_a_finding(wrong, right, found):
    watch = Watch()
    watch.fold(1.0, Worker().tick(wrong + right, status={"5xx": wrong, "4xx": right}))
    assert watch.at(1.0) == found


# --- lives ---------------------------------------------------------------------------------------

def silent_watch(*pids, alive=True, **fields):
    """Processes that are heard at 1 s for the last time, beside one that goes on."""
    watch, other = Watch(), Worker(6)
    watch.fold(1.0, *(Worker(pid).tick(1, **fields) for pid in pids), other.tick(1))
    for now in (2.0, 5.0):
        watch.fold(now, other.tick(1))
        watch.fleet.expire(now, WALL + now)
        for pid in pids:
            if alive:
                watch.fleet.answer(pid, an_answer(nspids=(pid,)), now, WALL + now)
    watch.fold(41.0, other.tick(1))
    return watch


INSIDE = dict(request_threads_current_elapsed=[3.0, 0.5, 0.0, 0.0, 0.0])


def test_a_silent_process_with_requests_inside_may_hold_the_gil():
    found = silent_watch(7, **INSIDE).one(41.0)
    assert (found["text"], found["since"]) == (
        "pid 7 of app silent for 40 s with 2 requests inside: GIL held?", WALL + 1)
    assert silent_watch(7, alive=False, **INSIDE).at(41.0) == {
        "silent": "pid 7 of app silent for 40 s with 2 requests inside: gone, or GIL held?"}
    assert silent_watch(7).at(41.0) == {"silent": "pid 7 of app silent for 40 s"}


@pytest.mark.parametrize("state, wait, alive, why", [
    ("T", "do_signal_stop", True, ": stopped by a signal (state T)"), ("t", None, True, ": stopped by a debugger (state t)"),
    ("Z", None, True, ": it has ended, and its parent has not taken notice (a zombie, state Z)"),
    ("D", "fsync (jbd2_log_wait_commit)", True,
     ": a thread waits in the kernel and cannot be interrupted (state D), in fsync (jbd2_log_wait_commit)"),
    ("S", "futex", True, ": GIL held?"), ("R", None, True, ": GIL held?"), ("T", None, False, ": gone, or GIL held?")])
def test_a_silent_process_is_told_with_what_the_kernel_says_of_it(state, wait, alive, why):
    watch = silent_watch(7, alive=alive, **INSIDE)
    watch.fleet.sampling.add(watch.fleet, 7, a_sample(at=5.0, state=state, wait=wait), 5.0, WALL + 5)
    assert watch.one(41.0)["text"] == f"pid 7 of app silent for 40 s with 2 requests inside{why}"


def test_one_of_several_silent_processes_is_told_with_what_the_kernel_says_of_it():
    watch = silent_watch(7, 8)
    watch.fleet.sampling.add(watch.fleet, 8, a_sample(at=5.0, state="T"), 5.0, WALL + 5)
    assert watch.at(42.0) == {"silent": "2 processes of app silent for 41 s or longer; pid 8: stopped by a signal (state T)"}


def test_several_silent_processes_are_one_finding():
    found = silent_watch(7, 8, 9, **INSIDE).one(42.0)
    assert found["text"] == "3 processes of app silent for 41 s or longer, 6 requests inside"
    assert (found["pid"], found["process"], found["figures"]) == (
        None, None, {"processes": 3, "silent_s": 41.0, "inside": 6, "alive": 3})


def test_a_short_silence_is_none():
    watch, other = Watch(), Worker(6)
    watch.fold(1.0, Worker(7).tick(1), other.tick(1))
    watch.fold(10.9, other.tick(1))
    assert watch.at(10.9) == {}
    assert set(watch.at(11.0)) == {"silent"}


def test_when_all_are_silent_and_none_is_known_to_live_nothing_arrives():
    watch = Watch()
    watch.fold(1.0, *(Worker(pid).tick(1, **INSIDE) for pid in (7, 8)))
    watch.fold(2.0, Worker(9, group="api").tick(1))
    assert watch.at(11.9) == {"silent": "2 processes of app silent for 11 s or longer, 4 requests inside"}
    found = watch.one(41.0)
    assert (found["text"], found["since"], found["hostname"]) == (
        f"nothing arrives since {told(2)}: 3 processes silent with 4 requests inside", WALL + 2, None)


def test_nothing_arrives_though_another_one_had_said_that_it_stops():
    watch, worker = Watch(), Worker(8)
    watch.fold(1.0, Worker(7).tick(1), worker.tick(1), worker.stopping())
    assert watch.at(41.0) == {"silent": f"nothing arrives since {told(1)}: 1 process silent"}


def test_something_arrives_as_long_as_one_that_stops_is_heard():
    watch, worker = Watch(), Worker(8)
    watch.fold(1.0, Worker(7).tick(1), worker.tick(1), worker.stopping())
    watch.fold(35.0, worker.tick(1))
    assert watch.at(41.0) == {"silent": "pid 7 of app silent for 40 s"}


def test_when_all_have_ended_nothing_runs_and_that_comes_first():
    watch, workers = Watch(), [Worker(7), Worker(8)]
    watch.fold(1.0, *(worker.tick(10, [3.0] * 10, status={"5xx": 10}) for worker in workers), workers[0].stopped())
    watch.fold(2.0, workers[1].stopped())
    assert "nothing-runs" not in watch.at(6.9)
    found = watch.look(7.0)
    assert [(each["id"], each["severity"]) for each in found] == [("nothing-runs", "critical"), ("errors", "warning")]
    assert (found[0]["text"], found[0]["since"]) == (f"no process runs since {told(2)}: 2 ended", WALL + 2)
    watch.fold(8.0, Worker(9).tick(1))
    assert "nothing-runs" not in watch.at(8.0)


def test_when_all_are_silent_and_live_each_group_is_named():
    watch = Watch()
    watch.fold(1.0, Worker(7).tick(1, **INSIDE))
    for now in (2.0, 10.0):
        watch.fleet.expire(now, WALL + now)
        watch.fleet.answer(7, an_answer(), now, WALL + now)
    assert watch.at(41.0) == {"silent": "pid 7 of app silent for 40 s with 2 requests inside: GIL held?"}


def test_who_falls_silent_while_it_stops_is_no_finding():
    watch, worker = Watch(), Worker()
    watch.fold(1.0, worker.tick(1), worker.stopping())
    assert watch.at(100.0) == {}


def gone(*pids, stopping=False, slow=0):
    watch, other = Watch(), Worker(6)
    for pid in pids:
        worker = Worker(pid)
        watch.fold(1.0, worker.tick(1), *(worker.slow(str(number)) for number in range(slow)),
                   *([worker.stopping()] if stopping else []))
        watch.fleet.answer(pid, an_answer(nspids=(pid,)), 1.0, WALL + 1)
    watch.fleet.expire(10.0, WALL + 10)
    for pid in pids:
        watch.fleet.answer(pid, an_answer(alive=False), 10.0, WALL + 10)
    watch.fold(10.0, other.tick(1))
    return watch


def test_a_process_that_vanished_is_a_finding_for_ten_minutes():
    found = gone(7, slow=2).one(11.0)
    assert (found["text"], found["since"], found["pid"]) == (
        f"pid 7 of app vanished at {told(1)} with 2 requests inside: killed?", WALL + 1, 7)
    watch = gone(7)
    assert watch.at(11.0) == {"vanished": f"pid 7 of app vanished at {told(1)}: killed?"}
    watch.fold(609.0, Worker(6, seq=1).tick(1))
    assert set(watch.at(610.0)) == {"vanished"} and watch.at(611.0) == {}


def by_an_agent(pid=7, **more):
    """An Agent's datagrams, where nobody else tells of the process."""
    worker = Worker(pid, flags=AGENT_FLAG)
    return worker, worker.datagram(AGENT_STATE, named(**{"agent_version": "1", "agent_emits": 1, "agent_begun": 9, **more}))


@pytest.mark.parametrize("server, says", [
    ("gunicorn 20.1.0", "WORKER TIMEOUT in gunicorn's log"), ("uWSGI 2.0.21", "HARAKIRI in uWSGI's log"),
    ("mod_wsgi 4.9.4", "a segmentation fault in Apache's"), ("", "a segmentation fault in Apache's")])
def test_what_kills_a_process_is_looked_for_where_its_server_says_it(server, says):
    watch, (worker, state) = Watch(), by_an_agent(agent_server=server)
    watch.fold(1.0, worker.started(), state, worker.tick(1), Worker(6).tick(1))
    for pid in (6, 7):
        watch.fleet.answer(pid, an_answer(nspids=(pid,)), 1.0, WALL + 1)
    watch.fleet.expire(10.0, WALL + 10)
    watch.fleet.answer(7, an_answer(alive=False), 10.0, WALL + 10)
    watch.fold(10.0, Worker(6, seq=1).tick(1))
    found = watch.one(11.0)
    assert (found["id"], says in found["advice"]) == ("vanished", True)


def test_a_process_whose_agent_said_that_it_is_heard_late_is_no_critical_finding():
    said = "uWSGI lets no thread of Python's run between requests without --enable-threads: what the agent tells comes late"
    watch, (worker, state) = Watch(), by_an_agent(agent_server="uWSGI 2.0.21", agent_problem=said)
    watch.fold(1.0, worker.started(), state, worker.tick(1))
    watch.fold(1.0, worker.slow("a"))
    watch.fold(39.0, Worker(6).tick(1))
    found = watch.one(40.0)
    assert (found["id"], found["severity"], found["text"], found["since"]) == (
        "heard-late", "info", f"1 process of app silent for 39 s: {said}", WALL + 1)
    watch.fold(52.0, worker.tick(1), Worker(6, seq=1).tick(1))
    assert watch.at(53.0) == {}


@pytest.mark.parametrize("begun, server, after_s, found", [
    (0, "mod_wsgi 4.9.4", 302, True), (0, "mod_wsgi 4.9.4", 290, False), (3, "mod_wsgi 4.9.4", 302, False), (0, "gunicorn 20", 302, False)])
def test_an_agent_that_sees_no_request_may_be_in_the_wrong_interpreter(begun, server, after_s, found):
    watch, (worker, state) = Watch(), by_an_agent(agent_server=server, agent_begun=begun)
    watch.fold(1.0, worker.started(), state)
    for now in range(2, after_s):
        watch.fold(float(now), worker.tick(0))
    assert watch.at(float(after_s)) == ({
        "no-request-seen": "the agent in 1 process of app has seen no request for 5 min: is it in the interpreter of the application?"} if found else {})


def test_several_that_vanished_are_one_finding():
    assert gone(7, 8, slow=1).at(11.0) == {
        "vanished": f"2 processes of app vanished since {told(1)} with 2 requests inside: killed?"}


def test_one_that_was_killed_in_the_end_while_it_stopped_is_a_finding_only_with_requests_inside():
    assert gone(7, stopping=True).at(11.0) == {}
    assert gone(7, stopping=True, slow=1).at(11.0) == {
        "vanished": f"pid 7 of app vanished at {told(1)} while it stopped with 1 request inside: killed?"}


def stops(*times, reason="request_timeout"):
    watch, other = Watch(), Worker(6)
    for number, now in enumerate(times):
        worker = Worker(10 + number)
        watch.fold(now, worker.tick(1), worker.stopped(reason), other.tick(1))
    return watch


def test_a_process_that_is_stopped_again_and_again_for_one_reason_restarts():
    found = stops(1.0, 21.0, 41.0).one(42.0)
    assert (found["text"], found["since"], found["figures"]) == (
        "restarting every 20 s: request_timeout in app", WALL + 1,
        {"reason": "request_timeout", "stops": 3, "every_s": 20.0})
    assert stops(1.0, 21.0).at(22.0) == {}
    assert stops(1.0, 1.1, 1.2, 1.3).at(2.0) == {"restarting": "restarting 4 times within 1 s: request_timeout in app"}


def test_restarts_that_an_operator_asked_for_are_none_and_limits_count_while_processes_are_young():
    for reason in ("shutdown_signal", "graceful_signal", "eviction_signal", "script_reload"):
        assert stops(1.0, 21.0, 41.0, reason=reason).at(42.0) == {}
    assert set(stops(1.0, 21.0, 41.0, reason="maximum_requests").at(42.0)) == {"restarting"}
    watch = Watch()
    for number in range(5):
        worker = Worker(10 + number)
        old = worker.stopped("maximum_requests").replace(struct.pack("<d", 12.5), struct.pack("<d", 61.0))
        watch.fold(1.0 + number, worker.tick(1), old)
    assert watch.at(6.0) == {}


def test_restarts_that_came_to_rest_are_none():
    watch = stops(1.0, 2.0, 3.0)
    other = Worker(6, seq=10)
    watch.fold(62.0, other.tick(1))
    assert watch.at(62.9) == {"restarting": "restarting every 1 s: request_timeout in app"}
    assert watch.at(63.1) == {}


def test_one_that_stops_for_more_than_a_minute_is_a_finding():
    watch, worker = Watch(), Worker()
    watch.fold(1.0, worker.tick(1), worker.stopping("graceful_signal"))
    watch.fold(60.0, worker.tick(1))
    assert watch.at(60.9) == {}
    found = watch.one(61.0)
    assert (found["text"], found["since"]) == (
        "pid 7 of app stops for 60 s (graceful_signal) and still goes on", WALL + 1)


def test_several_that_stop_for_long_are_one_finding():
    watch, workers = Watch(), [Worker(pid) for pid in (7, 8)]
    for worker in workers:
        watch.fold(1.0, worker.tick(1), worker.stopping("graceful_signal"))
    watch.fold(99.0, *(worker.tick(1) for worker in workers))
    assert watch.at(100.0) == {
        "stopping-long": "2 processes of app stop for up to 99 s (graceful_signal) and still go on"}


# --- memory --------------------------------------------------------------------------------------

def growing(rss, until=200, pids=(7,)):
    """{id: text} of every look, at each second, where rss(now) are the megabytes of each process."""
    watch, workers, found = Watch(), [Worker(pid) for pid in pids], {}
    for now in range(1, until):
        watch.fold(float(now), *(worker.tick(1, memory_rss=int(rss(now) * 1e6)) for worker in workers))
        found.update(watch.at(float(now)))
    return found


def test_memory_that_grows_within_a_minute_is_a_finding():
    assert growing(lambda now: 70 + now, until=92) == {
        "memory-growth": "pid 7 of app grew by 60.0 MB in 60 s, to 161 MB"}
    assert growing(lambda now: 70 + now * 0.54, until=92)
    assert growing(lambda now: 70 + now * 0.53, until=92) == {}


def test_memory_that_grows_within_ten_minutes_is_a_finding():
    assert growing(lambda now: 70 + now * 0.11, until=640) == {
        "memory-growth": "pid 7 of app grew by 66.0 MB in 10 min, to 140 MB"}
    assert growing(lambda now: 70 + now * 0.1, until=640) == {}


def test_memory_that_is_taken_at_once_or_while_the_application_loads_is_none():
    assert growing(lambda now: 70 if now < 60 else 400) == {}
    assert growing(lambda now: 70 + 10 * min(now, 29)) == {}
    assert growing(lambda now: 70 + min(now, 62)) == {}
    assert growing(lambda now: 100 + now % 40) == {}


def test_several_processes_that_grow_are_one_finding():
    assert growing(lambda now: 70 + now, until=92, pids=(7, 8)) == {
        "memory-growth": "2 processes of app grow, pid 8 by 60.0 MB in 60 s, to 161 MB"}


def opening(files, until=700, pids=(7,), limit=100_000, every=10):
    """{id: text} of the looks at processes that have files(now) files open, of `limit`, looked at every 10 s."""
    watch, workers, found = Watch(), [Worker(pid) for pid in pids], {}
    for now in range(1, until, every):
        watch.fold(float(now), *(worker.tick(1) for worker in workers))
        for pid in pids:
            watch.fleet.answer(pid, an_answer(nspids=(pid,)), float(now), WALL + now)
            watch.fleet.sampling.add(watch.fleet, pid, a_sample(at=float(now), files=int(files(now)), files_limit=limit), float(now), WALL + now)
        found.update(watch.at(float(now)))
    return found


def test_a_process_near_its_limit_of_open_files_is_a_finding():
    assert opening(lambda now: 1010, 2, limit=1024) == {"descriptors": "pid 7 of app has 1,010 of 1,024 files open"}
    assert opening(lambda now: 820, 2, limit=1024) == {"descriptors": "pid 7 of app has 820 of 1,024 files open"}
    assert opening(lambda now: 819, 2, limit=1024) == {}
    assert opening(lambda now: 1010, 2, limit=None) == {}
    assert opening(lambda now: 1010, 2, limit=1024, pids=(7, 8)) == {
        "descriptors": "2 processes of app have 80 % or more of the files open that they may, pid 7 1,010 of 1,024"}


def test_a_process_that_opens_ever_more_files_is_a_finding():
    assert opening(lambda now: 20 + now, 122) == {"descriptors": "pid 7 of app opens ever more files: 120 in 2 min, 141 of 100,000 files open"}
    assert opening(lambda now: 20 + now * 0.8, 122, limit=None) == {}
    assert opening(lambda now: 20 + now * 0.4, limit=None) == {
        "descriptors": "pid 7 of app opens ever more files: 216 in 9 min, 296 files open"}
    assert opening(lambda now: 20 + now * 0.35) == {}
    assert opening(lambda now: 20 + now, 122, pids=(7, 8)) == {
        "descriptors": "2 processes of app open ever more files, pid 7 120 in 2 min: 141 of 100,000 files open"}
    assert opening(lambda now: 820 + now, 122, limit=1024) == {
        "descriptors": "pid 7 of app has 941 of 1,024 files open, 120 more in 2 min"}


def test_files_that_are_opened_at_once_or_opened_and_closed_are_none():
    assert opening(lambda now: 20 if now < 60 else 900) == {}
    assert opening(lambda now: 20 + min(now, 99) * 4) == {}
    assert opening(lambda now: 20 + now % 100 * 5) == {}


def test_a_finding_about_descriptors_has_its_figures():
    watch, worker = Watch(), Worker()
    watch.fold(1.0, worker.tick(1))
    watch.fleet.answer(7, an_answer(), 1.0, WALL + 1)
    watch.fleet.sampling.add(watch.fleet, 7, a_sample(at=1.0, files=1010), 1.0, WALL + 1)
    found = watch.one(1.5)
    assert (found["severity"], found["pid"], found["figures"]) == ("warning", 7, {
        "processes": 1, "files": 1010, "limit": 1024, "grown": None, "seconds": None, "pid": 7})


def collecting(pause_s=0.0, dropped=0, until=12):
    watch, worker = Watch(), Worker()
    for now in range(1, until):
        watch.fold(float(now), worker.tick(1), worker.gc_snapshot(gc_dropped_events=dropped),
                   worker.gc_event(duration=pause_s))
        found = watch.at(float(now))
    return found


def test_collections_that_take_a_share_of_the_time_are_a_finding():
    assert collecting(0.1) == {"gc-pauses": "GC pauses take 10 % of the time in app, the longest 100 ms"}
    assert collecting(0.099) == {}
    assert collecting(0.5, until=4) == {}               # too early to tell


def test_collections_that_were_not_told_are_a_finding():
    assert collecting(dropped=10) == {"gc-pauses": "100 GC events of app lost in a minute"}
    assert collecting(dropped=9) == {}
    assert collecting(0.2, dropped=100) == {
        "gc-pauses": "GC pauses take 20 % of the time in app, the longest 200 ms; 1,000 events lost in a minute"}


# --- what reaches us -----------------------------------------------------------------------------

def test_datagrams_lost_within_the_minute_are_a_finding_and_older_ones_are_none():
    for lost, expected in ((10, {"losing": "10 datagrams lost in a minute"}), (9, {})):
        watch, worker = Watch(), Worker()
        for now in range(1, 100):
            if now == 20:
                worker.seq += lost
            watch.fold(float(now), worker.tick(1))
            found = watch.at(float(now))
            if now in (20, 79):
                assert found == expected
        assert found == {}


def test_datagrams_that_are_none_are_a_finding():
    watch, worker = Watch(), Worker()
    for now in range(1, 100):
        watch.fold(float(now), worker.tick(1))
        if now in (20, 21, 22, 23, 24):
            watch.fold(float(now), b"no telemetry, but long enough")
        found = watch.at(float(now))
        assert found == ({"wrong-datagrams": "5 datagrams in a minute were no telemetry"} if 24 <= now <= 81 else {})


def test_what_is_wrong_with_the_collector_comes_first():
    watch = silent_watch(7)
    found = watch.look(41.0, own=["the socket was removed: restart the collector", "x" * 5000])
    assert [(each["id"], each["severity"], each["text"]) for each in found] == [
        ("collector", "critical", "the socket was removed: restart the collector"),
        ("collector", "critical", "x" * 200),
        ("silent", "critical", "pid 7 of app silent for 40 s")]
    assert [found[0][key] for key in ("hostname", "process_group", "pid", "process", "figures")] == [None] * 4 + [{}]


def test_findings_of_one_severity_come_in_the_order_of_rules_and_names():
    watch = Watch()
    for pid, name in ((7, "zoo"), (8, "api")):
        worker = Worker(pid, group=name)
        watch.fold(1.0, worker.tick(20, status={"5xx": 20}), worker.slow(slow_duration=90.0))
    found = watch.look(2.0, own=["gone"])
    assert [(each["id"], each["process_group"]) for each in found] == [
        ("collector", None), ("errors", "api"), ("errors", "zoo"), ("stuck-request", "api"), ("stuck-request", "zoo")]


# --- the memory of findings ------------------------------------------------------------------------

def test_a_finding_that_comes_back_within_thirty_seconds_has_held_all_the_time():
    watch = Watch()
    for now, own, since in ((1.0, True, 1), (5.0, True, 1), (6.0, False, None), (34.9, True, 1), (64.0, True, 1),
                            (65.0, False, None), (94.1, True, 94.1)):
        found = watch.look(now, own=["gone"] if own else [])
        assert [each["since"] for each in found] == ([] if since is None else [WALL + since])


def test_when_time_goes_back_everything_is_forgotten():
    watch, worker = Watch(), Worker()
    for now in (11.0, 12.0, 13.0):
        worker.seq += 100
        watch.fold(now, worker.tick(1))
        watch.at(now)
    assert [each["id"] for each in watch.look(13.0, own=["gone"])] == ["collector", "losing"]
    found = watch.look(7.0, own=["gone"])
    assert [(each["id"], each["since"]) for each in found] == [("collector", WALL + 7)]


def test_a_look_that_began_before_another_one_forgets_nothing():
    watch = Watch()
    for now, since in ((11.0, 11), (20.0, 11), (16.0, 11), (40.0, 11)):
        assert [each["since"] for each in watch.look(now, own=["gone"])] == [WALL + since]


def test_no_finding_begins_in_the_future():
    watch = Watch()
    watch.look(11.0, own=["gone"])
    assert [each["since"] for each in watch.look(9.0, own=["gone"])] == [WALL + 9]


def test_a_look_may_be_repeated_at_the_same_time():
    watch = silent_watch(7, **INSIDE)
    assert watch.look(41.0) == watch.look(41.0) != []


def test_after_a_long_pause_nobody_knows_when_something_was_lost():
    watch, worker = Watch(), Worker()
    watch.fold(1.0, worker.tick(1))
    watch.at(1.0)
    worker.seq += 100
    watch.fold(500.0, worker.tick(1))
    assert watch.at(500.0) == {}


def test_what_is_remembered_is_bounded_and_what_has_no_room_is_counted():
    watch = Watch()
    for turn in range(20):
        found = watch.look(1.0 + turn / 10, own=[f"{turn}/{number}" for number in range(FINDINGS_MOST + 5)])
        assert (len(found), watch.findings.left_out) == (FINDINGS_MOST, 5)
    assert len(watch.findings._memory._held) == HELD_MOST
    watch.look(200.0)
    assert (watch.findings.left_out, len(watch.findings._memory._held)) == (0, 0)


def test_processes_that_are_gone_are_forgotten():
    watch = Watch(ended_s=10.0)
    for number in range(20):
        worker = Worker(10 + number)
        watch.fold(40.0 * number, worker.tick(1))
        watch.fold(40.0 * number + 35, worker.tick(1, memory_rss=80 << 20))
        watch.at(40.0 * number + 35)
        watch.fold(40.0 * number + 36, worker.stopped())
    watch.at(900.0)
    assert (watch.findings._memory._rss, watch.findings._memory._lasting) == ({}, {})


# --- hostile, odd, none ------------------------------------------------------------------------------

def test_hostile_names_and_paths_stay_raw_and_short():
    watch, worker = Watch(), Worker(hostname="\x1b]0;h" * 50, group="\x1b[2J" * 60)
    watch.fold(1.0, worker.tick(5), *(worker.slow(str(number), slow_path_info="/\x1b[1m" + "y" * 400, slow_duration=1e4)
                                      for number in range(9)))
    found = watch.look(2.0) + watch.look(20.0)
    assert {each["id"] for each in found} == {"silent", "slow-requests", "stuck-request"}
    assert all(len(each["text"]) < 300 and "\x1b[2J" in each["text"] for each in found if each["hostname"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1.0, 1e300])
def test_nonsense_in_every_number_gives_finite_findings(odd):
    watch, worker = Watch(), Worker()
    names = ("queue_time", "application_time", "gil_wait_time", "capacity_utilization", "sample_period",
             "telemetry_interval")
    for now in range(1, 100, 7):
        for name in names:
            watch.fold(float(now), worker.tick(30, **{name: odd}), worker.gc_event(duration=odd),
                       worker.slow(name, slow_duration=odd), worker.stopped("request_timeout"))
        json.dumps(watch.look(float(now)), allow_nan=False)


def test_apache_children_that_never_serve_have_no_findings():
    watch = Watch()
    watch.fold(1.0, *(Worker(pid, group="").tick(0, **FULL) for pid in (7, 8)), Worker(9).tick(1))
    watch.fold(30.0, Worker(9, seq=1).tick(1))
    assert watch.at(30.0) == {}


def test_nothing_yet_is_no_finding():
    assert Watch().look(1.0) == []


# --- the verdict -----------------------------------------------------------------------------------

def totals(fleet, now=2.0, **more):
    return view.summary(fleet, now, WALL + now, **more)["totals"]


def test_the_verdict_is_the_worst_finding_and_how_many_more():
    found = silent_watch(7).look(41.0, own=["the socket was removed"])
    assert verdict(found, {}) == "the socket was removed (+1 more)"
    assert verdict(found[1:], {}) == "pid 7 of app silent for 40 s"


def test_the_verdict_without_findings_says_what_goes_on():
    fleet = fold(a_fleet(), *(Worker(pid).tick(20) for pid in range(7, 11)), now=1.0)
    assert verdict([], totals(fleet)) == "all quiet: 4 processes, 80.0 requests/s, busy 25 %"
    one = totals(fold(a_fleet(), Worker().started(), now=1.0))
    assert verdict([], one) == "all quiet: 1 process"
    one["windows"] = {}
    assert verdict([], one) == "all quiet: 1 process"


def test_the_verdict_is_not_quiet_before_it_is_known_whether_trouble_lasts():
    fleet = fold(a_fleet(), Worker(7).tick(1, capacity_utilization=0.95), Worker(8).tick(1, capacity_utilization=0.9),
                 now=1.0)
    assert verdict([], totals(fleet)).startswith("busy, for how long is not known yet: 2 processes, ")
    fleet.expire(5.0, WALL + 5)
    assert verdict([], view.summary(fleet, 5.0, WALL + 5)["totals"]) == "just now silent: 2 of 2 processes"


def test_the_verdict_of_nothing_says_so():
    assert verdict([], totals(a_fleet())) == "no process has reported yet"
    worker = Worker()
    assert verdict([], totals(fold(a_fleet(), worker.tick(1), worker.stopped(), now=1.0))) == "no process runs: 1 ended"


def test_a_time_of_day_has_its_date_when_it_is_long_ago():
    assert len(moment(WALL, WALL + 3600)) == 5
    assert moment(WALL, WALL + 86400).endswith(moment(WALL, WALL)) and len(moment(WALL, WALL + 86400)) == 16
    assert moment(1e300, WALL) == moment(float("nan"), WALL) == "-"


# --- on data -----------------------------------------------------------------------------------------

def captured(name):
    began = capture(name)[0][0]
    return [(wall - began, a_sender(pid), datagram, wall) for wall, pid, datagram in capture(name)]


def simulated(profile, processes=4, groups=2, duration=120.0, seed="1"):
    for at, datagram in simulate.stream(profile, processes, groups, 1.0, duration, seed, WALL):
        yield at, a_sender(struct.unpack_from("<I", datagram, 8)[0]), datagram, WALL + at


def fired(stream):
    """{rule id: {group}} of all findings of a warning or worse in looks at each second, the first 5 s left out."""
    watch, second, found = Watch(), 1.0, {}
    for at, sender, datagram, wall in stream:
        while at >= second:
            _look(watch, second, wall - at + second, found)
            second += 1.0
        watch.fleet.apply(datagram, sender, at, wall)
    _look(watch, second, wall - at + second, found)
    return found


def _look(watch, now, wall, found):
    watch.fleet.expire(now, wall)
    groups = view.summary(watch.fleet, now, wall)["groups"]
    for each in watch.findings.look(facts(watch.fleet, groups, now, wall), [], now, wall):
        if now > 5.0 and each["severity"] != "info":
            found.setdefault(each["id"], set()).add(each["process_group"])


@pytest.mark.parametrize("name", ["daemon_mixed", "smoke", "embedded", "embedded_prefork", "subinterp"])
def test_a_healthy_capture_has_no_findings(name):
    assert fired(captured(name)) == {}


@pytest.mark.parametrize("name, rules", [
    # ten threads that compute: each request takes seconds
    ("daemon_gil", {"gil-contention", "slow-requests"}),
    # then 600 requests over a threshold of 50 ms, with four threads
    ("gc_storm", {"gc-pauses", "slow-requests", "threads-busy"}),
    # hardly any other requests are in it
    ("gunk", {"slow-requests"}),
    # a SIGKILL, maximum-requests 60, long requests with three threads
    ("lifecycle", {"slow-requests", "restarting", "silent", "threads-busy"})])
def test_a_troubled_capture_has_the_findings_of_its_trouble(name, rules):
    assert set(fired(captured(name))) == rules


@pytest.mark.parametrize("profile, found", [
    ("steady", {}), ("deploy", {}),
    ("busy", {"threads-busy": {"api", "shop"}}),
    ("gil", {"gil-contention": {"api", "shop"}}),
    ("slow", {"slow-requests": {"api", "shop"}, "stuck-request": {"api", "shop"}}),
    ("leak", {"memory-growth": {"shop"}}),
    ("gc-storm", {"gc-pauses": {"api", "shop"}}),
    ("crash-loop", {"restarting": {"shop"}})])
def test_each_profile_has_the_findings_of_its_trouble_and_no_others(profile, found):
    assert fired(simulated(profile)) == found


@pytest.mark.parametrize("seed", ["2", "3", "4", "5"])
def test_a_steady_fleet_has_no_findings_whatever_its_seed(seed):
    assert fired(simulated("steady", duration=70.0, seed=seed)) == {}


def test_a_large_steady_fleet_has_no_findings():
    assert fired(simulated("steady", processes=200, groups=4, duration=12.0)) == {}
