"""Stacks in the answers: /api/stacks, the rows of slow requests, the details of a process; and who may ask for them."""
import json

import pytest

from builders import WALL, Worker, a_sender, an_answer, fold
from modwsgi_tel.stacks.model import stacks_json
from modwsgi_tel.state.taken import COUNTERS, SLOW
from modwsgi_tel.web.guard import Guard
from test_state_json import Asked, strict
from test_taken import A, APP, a_fleet_with, a_take, a_thread

FRAMES = [{"function": name, "file": file, "line": line, "interpreter": 0} for name, file, line, _ in APP]


def taken(*pids, now=100.0, **options):
    """An Asked of processes that each had a slow request "a" and whose stacks were taken a second apart, from 1 s on."""
    workers = [Worker(pid) for pid in pids]
    fleet = a_fleet_with(*workers, **options)
    for at, (worker, process) in enumerate(zip(workers, fleet.processes()), 1):
        fold(fleet, worker.slow("a"), now=0.5)
        fleet.taken.begin(process, SLOW, float(at))
        fleet.taken.add(fleet, process, SLOW, a_take(A, pid=worker.pid), float(at), WALL + at)
    return Asked(fleet, now)


def error(asked, path, method="POST", *headers):
    status, body = asked.body(path, method, *headers)
    return status, strict(body)["error"]


# --- what is told -------------------------------------------------------------------------

def test_all_stacks_are_listed_the_newest_first():
    asked = taken(7, 8, rate=3.0, helper="/run/s")
    answer = asked.get("/api/stacks")
    rows = answer.pop("processes")
    assert answer == {"time": WALL + 100.0, "stacks": "auto", "helper": "/run/s", "rate": 3.0, "post": True, "problem": None,
                      "counters": {**dict.fromkeys(COUNTERS, 0), "taken": 2, "joined": 2}, "matched": 2, "offset": 0,
                      "bytes": asked.fleet.taken.bytes + asked.fleet.slow.stack_bytes, "not_the_kernels": 0}
    assert rows == [{**json.loads(json.dumps(stacks_json(a_take(A, pid=pid)))), "id": process.id, "sender_pid": pid, "hostname": "web1",
                     "process_group": "app", "why": "slow", "taken": WALL + at, "age_s": 100.0 - at, "life": "running"}
                    for pid, at, process in reversed(list(zip((7, 8), (1, 2), asked.fleet.processes())))]
    for name in ("request", "frames"):
        assert name in rows[0]["threads"][0]


@pytest.mark.parametrize("query, pids", [
    ("", [9, 8, 7]), ("?pid=8", [8]), ("?limit=2", [9, 8]), ("?offset=1&limit=1", [8]), ("?limit=0", []), ("?group=app", [9, 8, 7]),
    ("?group=other", []), ("?pid=99", [])])
def test_a_page_of_them_is_what_was_asked_for(query, pids):
    asked = taken(7, 8, 9)
    answer = asked.get("/api/stacks" + query)
    assert [row["pid"] for row in answer["processes"]] == pids
    assert answer["matched"] == {"?pid=8": 1, "?group=other": 0, "?pid=99": 0}.get(query, 3)


def test_one_of_several_processes_with_a_pid_is_named_by_its_id():
    asked = taken(7, 8)
    number = asked.fleet.processes()[0].id
    assert [row["pid"] for row in asked.get(f"/api/stacks?id={number}")["processes"]] == [7]


def test_a_slow_request_has_its_stack_in_its_row_and_in_the_state():
    asked = taken(7)
    fold(asked.fleet, Worker(7, seq=50).slow("b"), now=1.0)
    wanted = {"taken": WALL + 1.0, "age_s": 99.0, "tid": 1, "how": "environ", "whole": True, "problem": None, "frames": FRAMES}
    for path in ("/api/slow", "/api/state", "/api/processes/7"):
        rows = {row["entry"]["log_id"]: row["entry"]["stack"] for row in asked.get(path)["slow_requests"]}
        assert rows == {"a": wanted, "b": None}, path


def test_a_process_has_its_last_stacks_in_its_details():
    asked = taken(7)
    fold(asked.fleet, Worker(8).tick(1))
    [listed] = asked.get("/api/stacks")["processes"]
    assert [asked.get(f"/api/processes/{pid}")["processes"][0]["stacks"] for pid in (7, 8)] == [listed, None]


def test_hostile_names_are_strict_json():
    frames = (APP[0]._replace(function="\ud800\0<script>\x1b[2J", file="\uffff\n"),)
    fleet = a_fleet_with(Worker(7))
    [process] = fleet.processes()
    fleet.taken.begin(process, SLOW, 1.0)
    fleet.taken.add(fleet, process, SLOW, a_take(a_thread(frames=frames)), 1.0, WALL)
    [row] = Asked(fleet, 2.0).get("/api/stacks")["processes"]
    assert row["threads"][0]["frames"][0]["function"] == "?\0<script>\x1b[2J"


def test_the_problem_is_told():
    asked = taken(7)
    [process] = asked.fleet.processes()
    asked.fleet.taken.refuse(process, "cannot read process 7: run as root", 5.0)
    answer = asked.get("/api/stacks")
    assert (answer["problem"], answer["counters"]["refused"]) == ("cannot read process 7: run as root", 1)


def test_who_has_a_recording_has_no_stacks():
    asked = taken(7, mode="off")
    assert asked.get("/api/stacks")["stacks"] == "off"
    for pid in (7, 99):
        assert error(asked, f"/api/stacks?pid={pid}") == (403, "stacks are off here (--stacks off), or this is no running server")
    assert asked.get("/api/stacks")["post"] is False


def test_that_a_process_has_ended_is_said_beside_its_last_stacks():
    asked = taken(7, 8)
    fold(asked.fleet, Worker(8, seq=50).stopped())
    assert {row["pid"]: row["life"] for row in asked.get("/api/stacks")["processes"]} == {7: "running", 8: "stopped"}


def test_where_pids_are_not_the_kernels_it_is_said_how_many_are_in_trouble_and_never_read():
    fleet = a_fleet_with(Worker(7))
    fold(fleet, Worker(7, seq=9).slow("a"))
    for pid in (55, 56, 57):
        fold(fleet, Worker(pid).tick(1), *([Worker(pid, seq=9).slow("a")] if pid < 57 else []), sender=a_sender(50))
    fleet.expire(1.0, WALL)
    assert Asked(fleet, 1.0).get("/api/stacks")["not_the_kernels"] == 0         # /proc has not been asked yet
    fleet.answer(50, an_answer(), 1.0, WALL)
    assert Asked(fleet, 1.0).get("/api/stacks?limit=0")["not_the_kernels"] == 2


def test_why_slow_requests_have_no_stack_stands_beside_them():
    asked = taken(7)
    assert asked.get("/api/slow")["stacks"] == {"mode": "auto", "problem": None}
    [process] = asked.fleet.processes()
    asked.fleet.taken.refuse(process, "cannot read process 7: run as root", 5.0)
    assert asked.get("/api/slow")["stacks"] == {"mode": "auto", "problem": "cannot read process 7: run as root"}


def test_the_finding_of_a_silent_process_says_where_its_gil_is_held():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, worker.slow("a"), now=0.5)
    [process] = fleet.processes()
    for at in range(1, 30):
        fleet.expire(float(at), WALL + at)
    asked = Asked(fleet, 29.0)

    def finding():
        return next(each["text"] for each in asked.get("/api/summary?parts=findings")["findings"] if each["id"] == "silent")

    fleet.answer(7, an_answer(), 29.0, WALL)
    assert finding() == "pid 7 of app silent for 28 s with 1 request inside: GIL held?"
    fleet.taken.begin(process, "silent", 20.0)
    fleet.taken.add(fleet, process, "silent", a_take(a_thread(owns_gil=True), a_thread(2)), 20.0, WALL + 20)
    assert finding() == ("pid 7 of app silent for 28 s with 1 request inside: its GIL is held in threading.py:320 wait, "
                         "called from app.py:12")
    fold(fleet, Worker(7, seq=90).tick(1), now=29.0)    # what was taken is of the silence before
    for at in range(30, 50):
        fleet.expire(float(at), WALL + at)
    asked.now = 49.0
    assert "held in" not in finding()


# --- asking ---------------------------------------------------------------------------------

def test_asking_is_answered_at_once_and_says_how_long_it_may_take():
    asked = taken(7, 8, rate=4.0)
    assert [asked.body(f"/api/stacks?pid={pid}", "POST") for pid in (7, 8)] == [
        (202, b'{"asked": true, "wait_s": 0.25}\n'), (202, b'{"asked": true, "wait_s": 0.5}\n')]
    assert [asked.fleet.taken.next(asked.fleet, 100.0) for _ in range(3)] == [
        *((process, "asked") for process in asked.fleet.processes()), None]


def test_asking_again_too_soon_is_too_many():
    asked = taken(7, now=1.5)
    _, response = asked.response("/api/stacks?pid=7", "POST")
    assert response.status == 429 and ("Retry-After", "1") in response.headers
    assert error(asked, "/api/stacks?pid=7") == (429, "its stacks were taken 0.5 s ago: not again within 1 s")


@pytest.mark.parametrize("path, status, said", [
    ("/api/stacks", 400, "pid=N: of which process?"),
    ("/api/stacks?pid=x", 400, "pid=x: a whole number"),
    ("/api/stacks?pid=99", 404, "no process 99 is known; /api/processes lists them"),
    ("/api/stacks?id=999999", 404, "no process 999999 is known; /api/processes lists them"),
    ("/api/stacks?pid=7&locals=1", 400, "unknown parameter 'locals'; /api/stacks knows: pid, id, agent"),
])
def test_what_cannot_be_asked_for_is_refused_in_one_line(path, status, said):
    assert error(taken(7), path) == (status, said)


def test_one_that_is_not_what_the_kernel_says_is_a_conflict():
    asked = taken(7)
    fold(asked.fleet, Worker(55).tick(1), sender=a_sender(56))
    asked.fleet.answer(56, an_answer(), 1.0, WALL)
    status, said = error(asked, "/api/stacks?pid=55")
    assert status == 409 and said.startswith("pid 55 is what its datagrams say, not what the kernel says")
    assert asked.fleet.taken.next(asked.fleet, 100.0) is None


def test_of_two_processes_with_one_pid_the_one_that_lives_is_read():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fold(fleet, worker.stopped())
    fold(fleet, Worker(7).started(), sender=a_sender(7, uid=44))
    fleet.answer(7, an_answer(), 1.0, WALL)
    asked = Asked(fleet, 5.0)
    assert asked.body("/api/stacks?pid=7", "POST")[0] == 202
    assert fleet.taken.next(fleet, 5.0)[0].who.uid == 44


def test_asking_can_be_shut():
    asked = taken(7, closed="nobody may ask")
    assert error(asked, "/api/stacks?pid=7") == (403, "nobody may ask")
    assert asked.get("/api/stacks")["post"] is False


def test_asking_is_guarded_as_every_post_is():
    asked = taken(7)
    assert error(asked, "/api/stacks?pid=7", "POST", "Origin: http://evil.example")[0] == 403
    assert error(asked, "/api/stacks?pid=7", "POST", "Sec-Fetch-Site: cross-site")[0] == 403
    asked.site.guard = Guard({"localhost"}, "sesame")
    assert error(asked, "/api/stacks?pid=7")[0] == 401
    assert error(asked, "/api/stacks?pid=7", "GET")[0] == 401
    assert asked.body("/api/stacks?pid=7", "POST", "Authorization: Bearer sesame")[0] == 202
    asked.site.guard = Guard({"elsewhere"})
    assert error(asked, "/api/stacks?pid=7")[0] == 421
    assert asked.fleet.taken.next(asked.fleet, 100.0) is not None and asked.fleet.taken.next(asked.fleet, 100.0) is None
