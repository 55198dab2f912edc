"""GET /api/processes?tree=1: the tree of what the collector has, with the stacks that it has taken and their age."""
import time

import pytest

from builders import WALL, Worker, a_fleet, a_sample, an_answer, fold
from consoles import simulated
from modwsgi_tel.state.taken import SLOW
from modwsgi_tel.web import treejson
from test_state_json import Asked, strict
from test_taken import a_fleet_with, a_take, a_thread
from trees import BEHIND, by_id, every


def a_collector(now=20.0):
    """An Asked of two processes; the stacks of the first were taken 2 s before, with a request, one left behind and one that has ended since."""
    workers = Worker(7), Worker(8, group="mail")
    fleet = a_fleet_with(*workers)
    one, _ = fleet.processes()
    fold(fleet, workers[0].slow("a", start=WALL + 10.0), now=12.0)
    fleet.taken.begin(one, SLOW, now - 2.0)
    taken = a_take(
        a_thread(70, "a"), a_thread(71, frames=BEHIND, request="old")._replace(
            request=a_thread(71, "old").request._replace(request_id="old", path="/order", started=WALL + 1.0)),
        a_thread(72, "gone")._replace(request=a_thread(72, "gone").request._replace(started=WALL + 2.0)),
        a_thread(73, frames=BEHIND))
    fleet.taken.add(fleet, one, SLOW, taken._replace(at=WALL + now - 2.0), now - 2.0, WALL + now - 2.0)
    for worker in workers:
        fold(fleet, worker.tick(1), now=now - 0.5)
    fold(fleet, workers[0].slow("a", start=WALL + 10.0), now=now - 0.5)
    return Asked(fleet, now)


def test_the_tree_is_made_of_telemetry_and_the_stacks_that_were_taken():
    asked = a_collector()
    answer = asked.get("/api/processes?tree=1")
    nodes = by_id(answer)
    assert {name: node["parent"] for name, node in nodes.items() if node["kind"] in ("server", "group", "process", "request", "dead")} == {
        "p1000": None, "p1000.g:app": "p1000", "p1000.g:mail": "p1000", "p7": "p1000.g:app", "p8": "p1000.g:mail", "p7.ra": "p7.i0", "p7.dead": "p7",
        "p7.dead.rold": "p7.dead", "p1000.children": "p1000", "p900": "p1000.children"}
    assert (answer["type"], answer["version"], answer["time"], answer["missing"]) == ("tree", 1, WALL + 20.0, [])
    assert answer["totals"]["requests"] == 1 and answer["totals"]["dead"] == 1
    one = nodes["p7"]
    assert (one["stacks_from"], one["stacks_age_s"], one["life"], one["role"], one["rss_bytes"]) == ("collector", 2.0, "running", "daemon", 50 << 20)
    request = nodes["p7.ra"]
    assert (request["age_s"], request["tid"], request["told_by"], request["accepted_by"]) == (10.0, 70, ["stacks", "telemetry"], 900)
    assert nodes["p900"]["accepted"] == [{"request": "p7.ra", "label": "GET /slow", "pid": 7}]
    # what telemetry does not tell any more has ended since
    assert not any(node.get("request_id") == "gone" for node in every(answer["nodes"]))
    assert not any("frames" in node for node in nodes.values())


def test_whole_stacks_flat_sorted_and_without_what_serves_no_requests():
    asked = a_collector()
    stacks = [node for node in every(asked.get("/api/processes?tree=1&stacktraces=1")["nodes"]) if node["kind"] == "stack"]
    assert [frame["function"] for frame in stacks[0]["frames"]] and all("frames" in node for node in stacks)
    flat = asked.get("/api/processes?tree=1&flat=1&no_system=1&sort=age&group=app")
    assert [node["id"] for node in flat["nodes"] if node["kind"] in ("group", "process", "request", "dead")] == [
        "p1000.g:app", "p7", "p7.dead", "p7.dead.rold", "p7.ra"]
    assert (flat["flat"], flat["sort"]) == (True, "age") and not any("children" in node for node in flat["nodes"])
    assert [node["id"] for node in asked.get("/api/processes?tree=1&pid=8")["nodes"][0]["children"][0]["children"]] == ["p8"]
    assert asked.get("/api/processes?tree=1&pid=77")["nodes"] == []


@pytest.mark.parametrize("query, said", [
    ("tree=2", "tree=2: 1 or 0"), ("tree=1&sort=pid", "sort=pid: one of start, cpu, rss, age"), ("tree=1&limit=3", "limit: does not go with tree=1"),
    ("tree=1&pid=x", "pid=x: a whole number"), ("flat=1", "flat: goes with tree=1"), ("stacktraces=1&tree=0", "stacktraces: goes with tree=1"),
    ("tree=1&flat=yes", "flat=yes: 1 or 0"), ("tree=1&window=1m", "window: does not go with tree=1")])
def test_what_cannot_be_meant_is_refused(query, said):
    status, body = a_collector().body("/api/processes?" + query)
    assert (status, strict(body)["error"]) == (400, said)


def test_without_the_tree_processes_are_what_they_were():
    answer = a_collector().get("/api/processes?tree=0&limit=1")
    assert (answer["matched"], len(answer["processes"])) == (2, 1)


def test_an_empty_fleet_and_one_that_takes_no_stacks_say_so():
    assert Asked(a_fleet()).get("/api/processes?tree=1")["missing"] == [
        "no process has told anything yet", "the collector takes no stacks: serve --stacks auto lets it"]
    refused = a_fleet_with(Worker(7))
    refused.taken.problem = "cannot read the memory of pid 7: run as root"
    assert Asked(refused).get("/api/processes?tree=1")["missing"] == ["stacks: cannot read the memory of pid 7: run as root"]


def test_a_vanished_process_stays_a_while_and_one_that_stopped_is_gone():
    worker, other = Worker(7), Worker(8)
    fleet = a_fleet_with(worker, other)
    fold(fleet, worker.stopped(), now=1.0)
    fleet.answer(8, an_answer(alive=False), 9.0, WALL + 9.0)
    fleet.expire(10.0, WALL + 10.0)
    fleet.answer(8, an_answer(alive=False), 11.0, WALL + 11.0)
    processes = [node for node in every(Asked(fleet, 12.0).get("/api/processes?tree=1")["nodes"]) if node["kind"] == "process"]
    assert [(node["pid"], node["life"], node["notes"]) for node in processes] == [(8, "vanished", ["vanished: telemetry knows it, /proc does not"])]


def test_what_the_kernel_was_asked_is_in_the_tree():
    worker = Worker(7)
    fleet = a_fleet_with(worker)
    fleet.sampling.add(fleet, 7, a_sample(), 1.0, WALL + 1.0)
    node = by_id(Asked(fleet, 2.0).get("/api/processes?tree=1"))["p7"]
    assert (node["threads"], node["state"]) == (4, "S")


def test_processes_of_several_hosts_stand_below_their_host_each():
    fleet = a_fleet_with(Worker(7, hostname="web1"), Worker(8, hostname="web2"))
    roots = Asked(fleet, 1.0).get("/api/processes?tree=1")["nodes"]
    assert [(node["kind"], node["label"], node["children"][0]["kind"]) for node in roots] == [("host", "web1", "server"), ("host", "web2", "server")]


def test_more_processes_than_an_answer_holds_are_counted_and_those_that_were_asked_for_are_there(monkeypatch):
    monkeypatch.setattr(treejson, "PROCESSES_MOST", 3)
    fleet = a_fleet_with(*(Worker(pid) for pid in range(10, 20)))
    answer = Asked(fleet, 1.0).get("/api/processes?tree=1&pid=19")
    assert answer["missing"] == ["7 more processes: ask with group= or pid="] and "p19" in by_id(answer)


def test_a_large_fleet_is_answered_in_small_turns():
    fleet, now, wall = simulated("slow", 30.0, processes=200)
    asked = Asked(fleet, now, wall)
    _, response = asked.response("/api/processes?tree=1&stacktraces=1")
    longest, began, size = 0.0, time.thread_time(), 0
    for piece in response.body:
        ended = time.thread_time()
        longest, began, size = max(longest, ended - began), time.thread_time(), size + len(piece)
    assert size > 100_000 and longest < 0.1


def test_names_from_anywhere_are_strict_json():
    worker = Worker(7, group="\x1b[2J\u202e")
    fleet = a_fleet_with(worker)
    fold(fleet, worker.slow("\x00\xff", slow_path_info="/\ud7ff\n"), now=1.0)
    answer = Asked(fleet, 2.0).get("/api/processes?tree=1")
    assert [node["label"] for node in every(answer["nodes"]) if node["kind"] == "request"] == ["GET /\ud7ff\n"]
