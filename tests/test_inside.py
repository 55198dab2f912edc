"""What agents in the applications tell: kept by process and request, joined, added up, and served as JSON."""
import json
import random

import pytest

from builders import WALL, Worker, a_fleet, a_sender, buckets, fold
from modwsgi_tel.stacks.model import Request
from modwsgi_tel.state import inside, watched
from modwsgi_tel.state.slow import SlowTable
from modwsgi_tel.state.taken import stacks_in
from modwsgi_tel.state.view import process_details, summary
from modwsgi_tel.state.window import SLOW_COMPLETED
from modwsgi_tel.web.guard import Guard
from modwsgi_tel.web.protocol import Parser
from modwsgi_tel.web.routes import Site
from modwsgi_tel.web.statejson import process_stacks, slow_entry
from modwsgi_tel.wire.codec import encode, named
from modwsgi_tel.wire.fields import (AGENT_FLAG, AGENT_STATE, APPLICATION_EXCEPTION, CODE_LOCATIONS, F64, F64S, FIELDS, I32S, KINDS,
                                     LONG_REQUEST, LOOP_LATENESS, MEMORY_GROWTH, OPERATION_TIMER, PRIVATE_KINDS, REQUEST_STACK, TEXT,
                                     THREAD_STACK, U64)

APP, VIEW, QUERY, RENDER, WAIT = (("application", "/srv/wsgi.py", 3), ("report", "/srv/views.py", 42), ("query", "/srv/db.py", 7),
                                  ("render", "/srv/html.py", 9), ("wait", "/srv/lock.py", 1))
PLACES = (APP, VIEW, QUERY, RENDER, WAIT)
NUMBERS = {location: number for number, location in enumerate(PLACES, 1)}


class Agent(Worker):
    """One agent: numbered datagrams with its flag; locations 1 to 5 are PLACES."""

    def __init__(self, pid=7, number=0, **more):
        super().__init__(pid, flags=AGENT_FLAG | number, **more)

    def record(self, kind, **fields):
        return self.datagram(kind, named(**fields))

    def state(self, **more):
        return self.record(AGENT_STATE, **{**dict(
            agent_version="1.0", agent_emits=0, agent_server="mod_wsgi", agent_threshold=2.0, agent_interval=1.0, agent_socket="s",
            agent_signal=12, agent_switches="gc,timers", agent_lost=0, agent_errors=0, agent_begun=10), **more})

    def locations(self, *places, first=1):
        places = places or PLACES
        return self.record(CODE_LOCATIONS, location_first=first, location_lines=[line or 0 for _, _, line in places],
                           location_texts="".join(f"{function}\0{file}\0" for function, file, _ in places))

    def long(self, log_id="a", done=False, **more):
        return self.record(LONG_REQUEST, **{**dict(
            slow_record_state=int(done), slow_start_stamp=WALL, slow_duration=2.0, slow_log_id=log_id, slow_method="GET",
            slow_path_info="/report"), **more})

    def stack(self, number, elapsed, *inner, pivot=None, shared=None, log_id="a", **more):
        """The `number`th stack, `shared` frames of the pivot and `inner`; pivot: locations, only when it is new."""
        if pivot is not None:
            more["stack_pivot"] = [NUMBERS[each] for each in pivot]
            shared = len(pivot) if shared is None else shared
        return self.record(REQUEST_STACK, slow_log_id=log_id, stack_number=number, stack_elapsed=elapsed, stack_shared=shared or 0,
                           stack_frames=[NUMBERS[each] for each in inner], **more)

    def raised(self, place, count, type_="app.Broken", frames=(APP, VIEW), **more):
        return self.record(APPLICATION_EXCEPTION, exception_place=place, exception_type=type_, exception_count=count,
                           exception_frames=[NUMBERS[each] for each in frames], **more)

    def timer(self, name, count, seconds, **more):
        return self.record(OPERATION_TIMER, timer_name=name, timer_count=count, timer_seconds=seconds, **more)

    def thread(self, dump, of, *frames, **more):
        return self.record(THREAD_STACK, dump_number=dump, dump_reason="signal", dump_threads=of, dump_stamp=WALL,
                           stack_frames=[NUMBERS[each] for each in frames], **more)


def shown(*places, interpreter=0):
    """Frames as JSON has them."""
    return [{"function": function, "file": file, "line": line, "interpreter": interpreter} for function, file, line in places]


def the_process(fleet):
    [process] = fleet.processes()
    return process


def entry(fleet, log_id="a", now=10.0):
    [found] = [found["entry"] for found in (slow_entry(fleet.slow.freeze(key, now), now) for key in fleet.slow.keys())
               if found["entry"]["log_id"] == log_id]
    return found


def pivots(fleet, most=20, now=10.0, **more):
    return fleet.inside.pivots.view(fleet.slow, most, now, **more)[0]


def costs(fleet):
    return {row["place"]: (row["seconds"], row["requests"], row["active"]) for row in pivots(fleet)}


def details(fleet, now=10.0):
    return process_details(the_process(fleet), now, WALL + now)["agent"]


def get(fleet, path, now=10.0):
    """(status, JSON) of a GET."""
    [request] = Parser().feed(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    response = Site(fleet, Guard({"localhost"}), lambda: (now, WALL + now), dict, list).answer(request)
    body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
    return response.status, json.loads(body)


# --- who tells ----------------------------------------------------------------------------

def test_a_process_without_an_agent_has_none():
    fleet = fold(a_fleet(), Worker().started(), Worker(seq=1).tick(1))
    assert (the_process(fleet).agents, details(fleet), len(fleet.inside.agents)) == (None, None, 0)


def test_each_agent_of_a_process_counts_for_itself():
    fleet, reporter = a_fleet(), Worker()
    fold(fleet, reporter.started(), reporter.tick(1), *(Agent(number=number).state() for number in (0, 5, 9)))
    process = the_process(fleet)
    assert list(process.sources) == ["reporter", "agent", "agent 5", "agent 9"]
    assert (process.agents.numbers, process.agents.states[5]["agent_signal"], process.lost()) == ({0, 5, 9}, 12, 0)


def test_of_too_many_agents_the_one_unheard_longest_goes_and_its_losses_stay():
    fleet, first = a_fleet(), Agent(number=1)
    fold(fleet, first.state(), now=0.0)
    first.seq += 5
    fold(fleet, first.state(), now=1.0)
    for number in range(2, 20):
        fold(fleet, Agent(number=number).state(), now=float(number))
    process = the_process(fleet)
    assert len(process.sources) == len(process.agents.by_number) == inside.NUMBERS_MOST == len(fleet.inside.agents)
    assert (min(process.agents.numbers), process.agents.evicted, process.lost()) == (4, 3, 5)


@pytest.mark.parametrize("number, reporter, processes", [(0, False, 2), (0, True, 1), (3, False, 1), (3, True, 1)])
def test_an_agent_that_is_restarted_makes_a_process_only_where_it_alone_tells_of_it(number, reporter, processes):
    fleet, old = a_fleet(), Agent(number=number)
    if reporter:
        worker = Worker()
        fold(fleet, worker.started(), worker.tick(1))
    fold(fleet, old.state(), old.locations(), old.locations())
    again = Agent(number=number)
    fold(fleet, again.datagram(AGENT_STATE, named(agent_version="2"), stamp=WALL + 50), now=1.0)
    assert len(fleet.processes()) == processes
    newest = fleet.processes()[-1]
    assert newest.agents.by_number[number].locations == {} and newest.agents.states[number]["agent_version"] == "2"
    assert newest.life != "replaced" and newest.lost() == 0


def test_a_process_whose_reporter_has_ended_is_another_one_when_its_agent_starts_over():
    fleet, worker, agent = a_fleet(), Worker(), Agent()
    fold(fleet, worker.started(), worker.tick(1), agent.state(), agent.state(), worker.stopping(), worker.stopped())
    fold(fleet, Agent().datagram(5, Worker().identity(), stamp=WALL + 90), now=5.0)
    assert [process.life for process in fleet.processes()] == ["stopped", "started"]


def test_the_standard_records_of_an_agent_fold_as_mod_wsgis_own():
    told = []
    for flags in (0, AGENT_FLAG):
        fleet, worker = a_fleet(), Worker(flags=flags)
        fold(fleet, worker.started(), worker.tick(3), worker.gc_snapshot(), worker.gc_event(), worker.slow("x"), worker.slow("x", done=True),
             worker.tick(2), now=1.0)
        fold(fleet, worker.stopping(), worker.stopped(requests=5), now=2.0)
        found = process_details(the_process(fleet), 2.0, WALL + 2)
        told.append({name: found[name] for name in ("counters", "windows", "life", "stopped", "versions", "gc", "lost", "process_group")})
    assert told[0] == told[1]
    assert told[0]["counters"]["requests"] == 5 and told[0]["life"] == "stopped"


def test_where_mod_wsgi_reports_itself_what_an_agent_says_of_the_process_is_dropped_and_counted():
    fleet, worker, agent = a_fleet(), Worker(), Agent()
    fold(fleet, worker.started(), worker.tick(3), agent.started(), agent.tick(100), worker.tick(2), agent.tick(50))
    process = the_process(fleet)
    assert (process.counter(2), process.ticks, process.agents.dropped, details(fleet)["standard_dropped"]) == (5, 2, 3, 3)
    assert fleet.groups.get(process.group).started == 1


def test_an_agent_counts_again_once_the_reporter_has_long_been_silent():
    fleet, worker, agent = a_fleet(), Worker(), Agent()
    fold(fleet, worker.started(), worker.tick(3), agent.tick(100))
    fold(fleet, agent.tick(7), now=11.0)
    assert the_process(fleet).counter(2) == 10


def test_a_further_agents_lifecycle_is_not_the_processs():
    fleet, first, second = a_fleet(), Agent(), Agent(number=4)
    fold(fleet, first.started(), first.tick(1), second.started(), second.tick(2), second.stopped())
    process = the_process(fleet)
    assert (process.life, process.counter(2), fleet.groups.get(process.group).started) == ("running", 3, 1)


# --- long requests ------------------------------------------------------------------------

def test_stacks_of_a_long_request_are_put_together_from_its_pivot():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long(request_annotations="user\0ann\0cart\0003\0"),
         agent.stack(1, 2.0, pivot=(APP, VIEW, QUERY), stack_tid=11, stack_thread="T1", stack_state="running", stack_cpu=1.5),
         agent.stack(2, 3.0, RENDER, pivot=(APP, VIEW), stack_tid=11, stack_thread="T1", stack_state="waiting futex", stack_cpu=0.25,
                     stack_waits="rlock", stack_owner_tid=12, stack_owner_log_id="b", stack_values="0\0name\0'x'\0001\0n\0003\0"), now=1.0)
    found = entry(fleet, now=3.0)
    waits = {"kind": "rlock", "owner_tid": 12, "owner_request": "b"}
    assert (found["source"], found["life"], found["path_info"], found["stack"]) == ("agent", "active", "/report", None)
    assert found["agent"] == {
        "annotations": {"user": "ann", "cart": "3"}, "stacks": 2, "exception": None, "pivot": shown(VIEW, APP), "pivot_s": 3.0,
        "last": {"number": 2, "elapsed_s": 3.0, "tid": 11, "thread": "T1", "frames": shown(RENDER, VIEW, APP), "left_out": 0, "cut_at": None,
                 "state": "waiting futex", "cpu_s": 0.25, "waits": waits, "problem": None, "locals": [[0, "name", "'x'"], [1, "n", "3"]]},
        "history": [{"number": 1, "elapsed_s": 2.0, "state": "running", "cpu_s": 1.5, "waits": None, "hot": shown(QUERY)},
                    {"number": 2, "elapsed_s": 3.0, "state": "waiting futex", "cpu_s": 0.25, "waits": waits, "hot": shown(RENDER)}]}


def test_what_is_packed_at_the_end_says_the_same():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long(), agent.stack(1, 2.0, pivot=(APP, VIEW, QUERY), stack_values="0\0a\0b\0"),
         agent.stack(2, 3.0, RENDER, pivot=(APP, VIEW)))
    before = entry(fleet)["agent"]
    fold(fleet, agent.long(done=True, slow_duration=3.5, request_exception="app.Broken", slow_status=500))
    found = entry(fleet)
    assert found["agent"] == {**before, "exception": "app.Broken", "pivot_s": 3.5}
    assert (found["life"], found["status"], the_process(fleet).agents.by_number[0].watches) == ("completed", 500, {})


def test_a_stack_that_was_cut_says_where():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long(), agent.stack(1, 2.0, pivot=(APP,)),
         agent.stack(2, 3.0, VIEW, QUERY, RENDER, shared=1, stack_left_out=70, stack_cut_at=1))
    last = entry(fleet)["agent"]["last"]
    assert (last["left_out"], last["frames"][last["cut_at"]:], last["frames"][:last["cut_at"]]) == (70, shown(VIEW, APP), shown(RENDER, QUERY))


def test_the_first_stack_and_the_newest_sixteen_are_kept():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long(), agent.stack(1, 2.0, pivot=(APP, VIEW)),
         *(agent.stack(number, 1.0 + number, QUERY, shared=2) for number in range(2, 41)))
    found = entry(fleet)["agent"]
    assert ([each["number"] for each in found["history"]], found["stacks"]) == ([1, *range(25, 41)], 40)


def test_a_late_collector_shows_what_it_was_not_told_as_unknown_and_counts_it():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.stack(5, 6.0, QUERY, RENDER, shared=2), now=1.0)
    found = entry(fleet, now=1.0)
    assert (found["life"], found["duration"], found["method"], found["status"]) == ("active", 6.0, "", None)
    assert found["agent"]["last"] == {
        "number": 5, "elapsed_s": 6.0, "tid": None, "thread": "", "frames": shown(*[("?", "?", None)] * 2), "left_out": 2, "cut_at": 2,
        "state": "", "cpu_s": None, "waits": None, "problem": "2 outer frames were told before this collector came", "locals": None}
    assert (found["agent"]["pivot"], found["agent"]["pivot_s"], details(fleet)["unknown_locations"]) == ([], None, 2)
    fold(fleet, agent.locations(), agent.stack(6, 7.0, QUERY, pivot=(APP, VIEW)), now=2.0)
    assert entry(fleet)["agent"]["last"]["frames"] == shown(QUERY, VIEW, APP)
    assert costs(fleet) == {"views.py:42 report, called from wsgi.py:3": (7.0, 1, 1)}


def test_an_agent_that_was_restarted_has_no_locations_but_what_they_told_before_stays():
    fleet, agent = a_fleet(), Agent(number=3)
    fold(fleet, agent.locations(), agent.long(), agent.stack(1, 2.0, pivot=(APP, VIEW)))
    again = Agent(number=3)
    fold(fleet, again.datagram(AGENT_STATE, stamp=WALL + 60), now=1.0)
    assert details(fleet)["locations"] == 0
    assert entry(fleet)["agent"]["last"]["frames"] == shown(VIEW, APP, interpreter=3)
    fold(fleet, again.datagram(LONG_REQUEST, named(slow_record_state=0, slow_start_stamp=WALL, slow_log_id="n", slow_duration=2.0),
                               stamp=WALL + 61),
         again.datagram(REQUEST_STACK, named(slow_log_id="n", stack_number=1, stack_elapsed=2.0, stack_pivot=[1], stack_shared=1,
                                             stack_frames=[]), stamp=WALL + 62), now=2.0)
    assert entry(fleet, "n")["agent"]["pivot"] == shown(("?", "?", None), interpreter=3)


@pytest.mark.parametrize("first", ["reporter", "agent"])
def test_both_tell_of_one_request_whoever_comes_first_and_the_reporters_record_stands(first):
    fleet, worker, agent = a_fleet(), Worker(), Agent()
    fold(fleet, worker.started(), worker.tick(1), agent.locations())
    theirs = [worker.slow("a", slow_gil_wait_time=0.5)]
    ours = [agent.long(), agent.stack(1, 2.0, pivot=(APP, VIEW))]
    fold(fleet, *(theirs + ours if first == "reporter" else ours + theirs), now=1.0)
    found = entry(fleet)
    assert len(fleet.slow) == 1
    assert (found["source"], found["duration"], found["gil_wait_time"], found["path_info"]) == ("reporter", 3.0, 0.5, "/slow")
    assert found["agent"]["last"]["frames"] == shown(VIEW, APP)
    fold(fleet, agent.long(done=True, slow_duration=4.0), now=2.0)
    assert entry(fleet, now=2.0)["life"] == "active"
    fold(fleet, worker.slow("a", done=True, slow_duration=4.5), now=3.0)
    found = entry(fleet)
    assert (found["life"], found["duration"], found["agent"]["pivot_s"]) == ("completed", 4.5, 4.0)
    assert the_process(fleet).windows.open.sums[SLOW_COMPLETED] == 1


def test_an_agent_completes_a_request_that_the_reporter_does_not_know():
    fleet, worker, agent = a_fleet(), Worker(), Agent()
    fold(fleet, worker.started(), worker.tick(1), agent.long())
    assert list(the_process(fleet).slow_active) != []
    fold(fleet, agent.long(done=True))
    assert (entry(fleet)["life"], the_process(fleet).windows.open.sums[SLOW_COMPLETED]) == ("completed", 1)


def test_what_an_agent_does_not_know_of_a_request_is_null_not_zero():
    fleet = fold(a_fleet(), Agent().long())
    found = entry(fleet)
    assert [found[name] for name in ("gil_wait_time", "server_pid", "status", "input_bytes", "duration")] == [None, None, None, None, 2.0]


def test_a_number_of_a_request_that_is_used_again_is_another_request():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.long("0.1"), agent.long("0.1", done=True), now=1.0)
    fold(fleet, agent.long("0.1", slow_start_stamp=WALL + 20, slow_path_info="/other"), now=21.0)
    found = entry(fleet, "0.1", now=21.0)
    assert (found["life"], found["path_info"], found["id"], len(fleet.slow)) == ("active", "/other", 2, 1)


def test_a_request_that_an_agent_watches_ever_more_seldom_does_not_become_stale_and_grows_older():
    fleet, worker, agent = a_fleet(), Worker(), Agent()
    fold(fleet, worker.started(), agent.locations(), agent.long(), agent.stack(1, 2.0, pivot=(APP,)))
    for now in range(1, 61):
        fold(fleet, worker.tick(0), now=float(now))
    fold(fleet, agent.stack(2, 42.0, shared=1), now=40.0)
    found = entry(fleet, now=60.0)
    assert (found["life"], found["age_s"], found["unheard"]) == ("active", 62.0, 20.0)
    for now in range(61, 400):
        fold(fleet, worker.tick(0), now=float(now))
    assert entry(fleet, now=SlowTable.QUIET_AFTER_S + 41)["life"] == "stale"


def test_what_is_known_of_requests_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(SlowTable, "WATCH_BYTES", 60_000)
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations())
    for number in range(40):
        fold(fleet, agent.long(f"r{number}"), agent.stack(1, 2.0, pivot=PLACES, log_id=f"r{number}"))
    held = [fleet.slow.watch(key) for key in fleet.slow._watched]
    assert fleet.slow.watch_bytes == sum(watch.bytes for watch in held) <= 60_000
    assert fleet.slow.watches_evicted == 40 - len(held) > 0
    assert set(the_process(fleet).agents.by_number[0].watches) == {watch.key for watch in held}
    assert entry(fleet, "r0")["agent"] is None and entry(fleet, "r39")["agent"] is not None


def test_a_process_that_is_forgotten_leaves_its_requests_whole_and_nothing_else():
    fleet, agent = a_fleet(ended_s=5.0), Agent()
    fold(fleet, agent.started(), agent.state(), agent.locations(), agent.long(), agent.stack(1, 2.0, pivot=(APP, VIEW)), agent.stopped())
    assert entry(fleet)["life"] == "lost"
    fleet.expire(10.0, WALL + 10)
    assert (len(fleet.processes()), len(fleet.inside.agents), fleet.inside.bytes) == (0, 0, 0)
    assert entry(fleet)["agent"]["last"]["frames"] == shown(VIEW, APP)
    assert entry(fleet)["agent"]["pivot_s"] == 2.0


# --- pivots -------------------------------------------------------------------------------

def test_the_time_of_a_request_counts_for_its_newest_pivot_and_once():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long(), agent.stack(1, 2.0, pivot=(APP, VIEW, QUERY)))
    assert costs(fleet) == {"db.py:7 query, called from views.py:42": (2.0, 1, 1)}
    fold(fleet, agent.stack(2, 3.0, RENDER, pivot=(APP, VIEW)), agent.stack(3, 4.0, QUERY, shared=2))
    assert costs(fleet) == {"views.py:42 report, called from wsgi.py:3": (4.0, 1, 1)}
    fold(fleet, agent.long(done=True, slow_duration=5.5))
    assert costs(fleet) == {"views.py:42 report, called from wsgi.py:3": (5.5, 1, 0)}


def test_of_two_requests_with_one_pivot_the_one_that_leaves_takes_its_time_along():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations())
    for log_id, seconds in (("a", 2.0), ("b", 5.0)):
        fold(fleet, agent.long(log_id), agent.stack(1, seconds, pivot=(APP, VIEW, QUERY), log_id=log_id, stack_waits="lock"))
    fold(fleet, agent.stack(2, 6.0, pivot=(APP, VIEW), log_id="b"), agent.stack(3, 7.0, shared=2, log_id="b"))
    assert costs(fleet) == {"db.py:7 query, called from views.py:42": (2.0, 1, 1), "views.py:42 report, called from wsgi.py:3": (7.0, 1, 1)}
    assert [(row["role"], row["paths"]) for row in pivots(fleet)] == [("unknown", {"/report": 1}), ("waits", {"/report": 1})]


def test_pivots_are_added_up_over_requests_and_processes_of_a_group_the_most_expensive_first():
    fleet = a_fleet()
    for pid, place, seconds, path in ((7, VIEW, 3.0, "/a"), (8, VIEW, 4.0, "/b"), (9, QUERY, 20.0, "/c")):
        agent = Agent(pid)
        fold(fleet, agent.started(), agent.locations(), agent.long(slow_path_info=path),
             agent.stack(1, seconds, pivot=(APP, place), stack_state="running"))
    works = {"cut": False, "paths_other": 0, "process_group": "app", "role": "works", "waits": None, "waits_for": None,
             "how_known": "its thread runs, or waits in a system call of its own", "waited": 0, "blocked_requests": 0, "blocked_s": 0.0,
             "blocked_recent_s": 0.0}
    assert pivots(fleet) == [
        {**works, "place": "db.py:7 query, called from wsgi.py:3", "frames": shown(QUERY, APP), "seconds": 20.0, "recent_s": 20.0,
         "requests": 1, "active": 1, "paths": {"/c": 1}, "stacks": 1},
        {**works, "place": "views.py:42 report, called from wsgi.py:3", "frames": shown(VIEW, APP), "seconds": 7.0, "recent_s": 7.0,
         "requests": 2, "active": 2, "paths": {"/a": 1, "/b": 1}, "stacks": 2}]


def test_paths_of_a_pivot_beyond_four_are_counted_together():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations())
    for number in range(6):
        fold(fleet, agent.long(f"r{number}", slow_path_info=f"/{number}"), agent.stack(1, 2.0, pivot=(APP,), log_id=f"r{number}"))
    [row] = pivots(fleet)
    assert (row["paths"], row["paths_other"]) == ({"/0": 1, "/1": 1, "/2": 1, "/3": 1}, 2)


def waiting(fleet, agent, log_id, seconds, **waits):
    fold(fleet, agent.long(log_id), agent.stack(1, seconds, pivot=(APP, WAIT), log_id=log_id, stack_state="waiting futex", **waits))


def test_who_waits_for_another_is_told_from_whom_he_waits_for_and_stands_behind_him():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long("owner"))
    waiting(fleet, agent, "w1", 9.0, stack_waits="rlock", stack_owner_log_id="owner")
    waiting(fleet, agent, "w2", 8.0, stack_waits="rlock", stack_owner_log_id="owner")
    fold(fleet, agent.stack(1, 10.0, pivot=(APP, QUERY), log_id="owner", stack_state="running"))
    assert [(row["place"][:9], row["role"], row["waits"], row["waits_for"], row["how_known"]) for row in pivots(fleet)] == [
        ("db.py:7 q", "works", None, None, "its thread runs, or waits in a system call of its own"),
        ("lock.py:1", "waits", "rlock", "db.py:7 query, called from wsgi.py:3", "the rlock says its owner: request owner")]
    assert [row["seconds"] for row in pivots(fleet)] == [10.0, 17.0]
    assert [(row["blocked_requests"], row["blocked_s"], row["blocked_recent_s"]) for row in pivots(fleet)] == [(2, 17.0, 17.0), (0, 0.0, 0.0)]


def test_the_owner_that_stacks_told_of_goes_along_when_the_pivot_of_a_request_shrinks():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long("owner"), agent.stack(1, 10.0, pivot=(APP, QUERY), log_id="owner", stack_state="running"))
    fold(fleet, agent.long("w"), *(agent.stack(number, 2.0 + number, pivot=(APP, VIEW, WAIT) if number == 1 else None, shared=3, log_id="w",
         stack_state="waiting futex", stack_waits="rlock", stack_owner_log_id="owner", stack_owner_tid=4) for number in (1, 2, 3)))
    fold(fleet, agent.long("owner", done=True), agent.stack(4, 6.0, QUERY, pivot=(APP, VIEW), log_id="w", stack_state="running"))
    [waits] = [row for row in pivots(fleet) if row["place"].startswith("views.py")]
    assert {name: waits[name] for name in ("role", "waits", "waits_for", "how_known", "waited", "stacks")} == {
        "role": "waits", "waits": "rlock", "waits_for": "db.py:7 query, called from wsgi.py:3", "how_known": "the rlock says its owner: request owner",
        "waited": 3, "stacks": 4}


def test_an_owner_of_whom_less_is_known_does_not_take_the_place_of_one_that_is_known():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long("owner"), agent.stack(1, 9.0, pivot=(APP, QUERY), log_id="owner"))
    waiting(fleet, agent, "w", 3.0, stack_waits="rlock", stack_owner_log_id="owner")
    fold(fleet, agent.stack(2, 4.0, shared=2, log_id="w", stack_waits="rlock"),
         agent.stack(3, 5.0, shared=2, log_id="w", stack_waits="rlock", stack_owner_tid=77))
    assert pivots(fleet)[1]["waits_for"] == "db.py:7 query, called from wsgi.py:3"
    waiting(fleet, agent, "other", 3.0, stack_waits="rlock", stack_owner_tid=78)            # of another request, at the same place
    assert pivots(fleet)[1]["waits_for"] == "db.py:7 query, called from wsgi.py:3"
    fold(fleet, agent.stack(4, 6.0, RENDER, pivot=(APP,), log_id="w", stack_waits="rlock"))
    [moved] = [row for row in pivots(fleet) if row["place"] == "wsgi.py:3 application"]
    assert (moved["waits_for"], moved["waited"]) == ("db.py:7 query, called from wsgi.py:3", 4)


@pytest.mark.parametrize("told, role, waits, waited, how", [
    (["rlock", None], "works", None, 1, "its thread runs, or waits in a system call of its own"),
    (["rlock", "rlock", None], "waits", "rlock", 2, "who would end its wait is not known: rlock"),
    ([None, None, "rlock"], "works", None, 1, "its thread runs, or waits in a system call of its own"),
    (["sleep", "sleep", "rlock"], "works", "sleep", 1, "its thread waits in sleep, for nobody in its process"),
    (["rlock", "sleep", "lock"], "waits", "rlock", 2, "who would end its wait is not known: rlock"),
    (["rlock", "sleep", None, None], "works", None, 1, "its thread runs, or waits in a system call of its own"),
])
def test_what_most_stacks_do_is_what_is_said_of_all_and_how_many_waited_for_others(told, role, waits, waited, how):
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long())
    for number, kind in enumerate(told, 1):
        more = {"stack_waits": kind, "stack_state": "waiting futex"} if kind else {"stack_state": "running"}
        fold(fleet, agent.stack(number, 1.0 + number, pivot=(APP,) if number == 1 else None, shared=1, **more))
    [row] = pivots(fleet)
    assert (row["role"], row["waits"], row["waited"], row["stacks"], row["how_known"]) == (role, waits, waited, len(told), how)


def test_what_pivots_cost_lately_is_told_and_ranked_running_ones_first():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations())
    for log_id, place, seconds, now in (("old", VIEW, 500.0, 1000.0), ("new", QUERY, 50.0, 2000.0), ("runs", RENDER, 3.0, 2000.0)):
        fold(fleet, agent.long(log_id, slow_duration=seconds), agent.stack(1, seconds, pivot=(APP, place), log_id=log_id), now=now)
        if log_id != "runs":
            fold(fleet, agent.long(log_id, done=True, slow_duration=seconds), now=now)
    assert [(row["place"][:7], row["seconds"], row["recent_s"], row["active"]) for row in pivots(fleet, now=2000.0)] == [
        ("html.py", 3.0, 3.0, 1), ("db.py:7", 50.0, 50.0, 0), ("views.p", 500.0, 0.0, 0)]
    assert [row["seconds"] for row in pivots(fleet, now=2000.0, sort="total")] == [500.0, 50.0, 3.0]
    assert [round(row["recent_s"], 6) for row in pivots(fleet, now=2510.0)] == [3.0, 50.0, 0.0]     # its minute is the last that counts
    assert [row["recent_s"] for row in pivots(fleet, now=2580.0)] == [0.0, 0.0, 0.0]


def test_of_a_request_that_runs_for_long_the_last_ten_minutes_count_and_go_along_with_its_pivot():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long(), agent.stack(1, 3000.0, pivot=(APP, VIEW)), now=5970.0)
    [row] = pivots(fleet, now=5970.0)
    assert (row["seconds"], row["recent_s"]) == (3000.0, 570.0)         # nine minutes, and half of this one
    fold(fleet, agent.stack(2, 3020.0, pivot=(APP,)), now=5990.0)
    [row] = pivots(fleet, now=5990.0)
    assert (row["place"], row["seconds"], row["recent_s"]) == ("wsgi.py:3 application", 3020.0, 590.0)
    fold(fleet, agent.long("b"), agent.stack(1, 40.0, pivot=(APP,), log_id="b"), agent.stack(3, 3025.0, pivot=(), log_id="a"), now=5995.0)
    assert [(row["place"], row["seconds"], row["recent_s"]) for row in pivots(fleet, now=5995.0)] == [
        ("nothing in common", 3025.0, 595.0), ("wsgi.py:3 application", 40.0, 40.0)]


def test_a_request_whose_stacks_are_no_longer_taken_goes_on_to_cost_time():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long(), agent.stack(1, 2.0, pivot=(APP, VIEW)), agent.long(slow_duration=300.0), now=400.0)
    assert costs(fleet) == {"views.py:42 report, called from wsgi.py:3": (300.0, 1, 1)}


def test_the_place_of_a_pivot_that_ends_where_stacks_were_cut_is_not_said_as_if_it_were_known():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long("cut"), agent.stack(1, 2.0, RENDER, pivot=(APP, VIEW), log_id="cut", stack_left_out=70,
                                                                  stack_cut_at=0),
         agent.long("w"), agent.stack(1, 1.0, pivot=(APP, WAIT), log_id="w", stack_waits="rlock", stack_owner_log_id="cut"),
         agent.long("before"), agent.stack(1, 0.5, VIEW, RENDER, pivot=(APP,), log_id="before", stack_left_out=70, stack_cut_at=1))
    assert [(row["place"], row["cut"], row["waits_for"]) for row in pivots(fleet)] == [
        ("inside of views.py:42 report, called from wsgi.py:3", True, None),
        ("lock.py:1 wait, called from wsgi.py:3", False, "inside of views.py:42 report, called from wsgi.py:3"),
        ("wsgi.py:3 application", False, None)]


def test_a_plain_lock_does_not_know_its_owner():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations())
    waiting(fleet, agent, "w", 9.0, stack_waits="lock")
    [row] = pivots(fleet)
    assert (row["role"], row["waits"], row["waits_for"], row["how_known"]) == ("waits", "lock", None, "a plain lock does not know its owner")


@pytest.mark.parametrize("more, role, how", [
    (dict(), "unknown", "what its thread does was not told"),
    (dict(stack_state="waiting futex (futex_wait)"), "unknown", "its thread waits for another one: which one is not told"),
    (dict(stack_state="waiting poll"), "works", "its thread runs, or waits in a system call of its own"),
    (dict(stack_waits="sleep"), "works", "its thread waits in sleep, for nobody in its process"),
    (dict(stack_waits="queue"), "waits", "who would end its wait is not known: queue"),
    (dict(stack_waits="join", stack_owner_tid=5), "waits", "the join says its owner: thread 5, of which no long request is known"),
])
def test_what_can_be_said_of_a_pivot(more, role, how):
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long(), agent.stack(1, 2.0, pivot=(APP,), **more))
    [row] = pivots(fleet)
    assert (row["role"], row["how_known"]) == (role, how)


def test_of_too_many_pivots_the_cheapest_goes_and_its_requests_go_on(monkeypatch):
    monkeypatch.setattr(watched, "PIVOTS_MOST", 2)
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations())
    for seconds, place in ((5.0, VIEW), (3.0, QUERY), (4.0, RENDER)):
        fold(fleet, agent.long(place[0]), agent.stack(1, seconds, pivot=(APP, place), log_id=place[0]))
    assert ([row["seconds"] for row in pivots(fleet)], fleet.inside.pivots.evicted) == ([5.0, 4.0], 1)
    fold(fleet, agent.stack(2, 13.0, shared=2, log_id="query"))
    assert sorted(row["seconds"] for row in pivots(fleet)) == [5.0, 10.0]


# --- dumps --------------------------------------------------------------------------------

def test_a_dump_is_shown_when_all_its_threads_have_come():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.started(), agent.locations(), agent.thread(1, 2, APP, VIEW, stack_tid=11, stack_thread="T1",
         stack_state="waiting futex (futex_wait)", slow_log_id="a", slow_method="GET", slow_path_info="/report"))
    assert process_stacks(fleet, the_process(fleet), 1.0) is None
    fold(fleet, agent.thread(1, 2, APP, stack_tid=12, stack_left_out=4, stack_cut_at=1), now=1.0)
    found = process_stacks(fleet, the_process(fleet), 2.0)
    assert (found["why"], found["problem"], found["python"], found["at"], found["age_s"]) == ("agent: signal", None, "3.11.2", WALL, 1.0)
    one, two = found["threads"]
    assert (one["tid"], one["name"], one["state"], one["wait"], one["frames"]) == (11, "T1", "waiting", "futex (futex_wait)", shown(VIEW, APP))
    assert one["request"] == Request("a", None, "GET", "/report", "agent")._asdict()
    assert (two["request"], two["whole"], two["problem"]) == (None, False, "cut: 4 frames left out after the innermost 0")


def test_a_dump_that_is_not_whole_is_shown_after_two_seconds_and_says_so():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.thread(1, 3, APP), agent.thread(1, 3, VIEW), now=1.0)
    fleet.expire(2.9, WALL)
    assert len(fleet.taken) == 0
    fleet.expire(3.0, WALL)
    found = stacks_in(fleet.taken.get(the_process(fleet).id))
    assert (found["problem"], len(found["threads"])) == ("1 of 3 threads did not arrive", 2)
    fold(fleet, agent.thread(1, 3, QUERY), now=3.1)
    fleet.expire(9.0, WALL)
    assert len(stacks_in(fleet.taken.get(the_process(fleet).id))["threads"]) == 2


def test_a_dump_never_has_variables():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.thread(1, 1, APP, stack_values="0\0token\0'secret'\0"))
    assert "secret" not in str(stacks_in(fleet.taken.get(the_process(fleet).id)))


def test_dumps_that_are_put_together_are_bounded(monkeypatch):
    monkeypatch.setattr(inside, "DUMPS_MOST", 3)
    fleet, agent = a_fleet(), Agent()
    fold(fleet, *(agent.thread(number, 5, APP) for number in range(1, 9)))
    assert (len(fleet.inside._dumps), fleet.inside.dumps_cut) == (3, 5)


# --- exceptions ---------------------------------------------------------------------------

def test_exceptions_are_added_up_by_type_and_place_over_processes_and_outlive_them():
    fleet = a_fleet(ended_s=5.0)
    for pid, count in ((7, 3), (8, 4)):
        agent = Agent(pid)
        fold(fleet, agent.started(), agent.locations(), agent.raised(1, 1), agent.raised(
            1, count, slow_path_info=f"/{pid}", slow_method="POST", slow_log_id=f"r{pid}", exception_text="no such row"), now=float(pid))
    fold(fleet, agent.raised(2, 9, "app.Other", (APP,)), agent.stopped(), now=9.0)
    fleet.expire(100.0, WALL)
    status, found = get(fleet, "/api/exceptions?sort=count")
    assert (status, found["counted"], found["lost"], found["evicted"], found["matched"]) == (200, 16, 0, 0, 2)
    assert found["exceptions"][0] == {
        "id": 1, "type": "app.Broken", "place": "views.py:42 report, called from wsgi.py:3", "frames": shown(VIEW, APP), "count": 7,
        "path": "/8", "method": "POST", "request_id": "r8", "text": "no such row", "process_group": "app", "processes": 2,
        "first": WALL + 3, "last": WALL + 4, "received": WALL + 8}
    assert [row["count"] for row in get(fleet, "/api/exceptions")[1]["exceptions"]] == [9, 7]


@pytest.mark.parametrize("query, ids", [
    ("sort=count&order=desc", [2, 1]), ("sort=type", [1, 2]), ("search=OTHER", [2]), ("search=views.py", [1]), ("pid=7", [1, 2]), ("pid=8", []),
    ("group=app", [1, 2]), ("group=b", []), ("limit=1&sort=type", [1]), ("limit=1&offset=1&sort=type", [2]), ("id=2", [2]),
])
def test_exceptions_are_searched_sorted_and_cut_to_a_page(query, ids):
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.started(), agent.locations(), agent.raised(1, 1), agent.raised(2, 9, "app.Other", (APP,)))
    assert sorted(row["id"] for row in get(fleet, f"/api/exceptions?{query}")[1]["exceptions"]) == sorted(ids)
    if "sort" in query:
        assert [row["id"] for row in get(fleet, f"/api/exceptions?{query}")[1]["exceptions"]] == ids


def test_a_count_of_exceptions_that_comes_late_or_again_adds_nothing():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.raised(1, 5), agent.raised(1, 3), agent.raised(1, 5), agent.raised(1, 6, exception_places_lost=4))
    assert (fleet.inside.exceptions_counted, fleet.inside.exceptions_lost, details(fleet)["exceptions"]) == (10, 4, 10)


@pytest.mark.parametrize("last, stamp, at", [
    (WALL + 100, WALL + 9000, WALL + 100),              # it was told after an outage: when it was is told apart
    (WALL + 9999, WALL + 9000, WALL + 9000),            # not later than it was told of
    (WALL - 9e6, WALL + 8999, WALL + 8999),             # nonsense
    (None, WALL + 8999, WALL + 8999), (None, WALL + 9001, WALL + 9000), (None, WALL + 5000, WALL + 9000),
])
def test_an_exception_is_dated_by_when_it_was_as_far_as_that_is_told(last, stamp, at):
    fleet, agent = a_fleet(), Agent()
    told = {} if last is None else {"exception_last": last}
    fold(fleet, agent.locations(), agent.datagram(APPLICATION_EXCEPTION, named(
        exception_place=1, exception_type="E", exception_count=2, exception_frames=[1], **told), stamp=stamp), now=9000.0)
    [row] = get(fleet, "/api/exceptions", 9000.0)[1]["exceptions"]
    assert (row["first"], row["last"], row["received"]) == (at, at, WALL + 9000)
    assert [len(get(fleet, f"/api/exceptions?since={WALL + since}", 9000.0)[1]["exceptions"]) for since in (8999, 9000)] == [1, 0]


def test_exceptions_that_are_told_again_do_not_become_newer():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.raised(1, 5), agent.raised(1, 5), now=50.0)
    before = get(fleet, "/api/exceptions")[1]["exceptions"]
    fold(fleet, agent.raised(1, 5), now=60.0)
    assert get(fleet, "/api/exceptions")[1]["exceptions"] == before


def test_exceptions_are_bounded(monkeypatch):
    monkeypatch.setattr(inside, "PLACES_MOST", 10)
    fleet, agent = a_fleet(), Agent()
    fleet.inside.exceptions.limit = 4
    fold(fleet, agent.locations(), *(agent.raised(number, 1, f"E{number}") for number in range(1, 13)))
    assert (len(fleet.inside.exceptions), fleet.inside.exceptions.evicted, fleet.inside.exceptions_lost,
            fleet.inside.exceptions_counted) == (4, 6, 2, 12)
    assert fleet.inside.exception_bytes == sum(row.bytes for row in fleet.inside.exceptions.values())


# --- measurements -------------------------------------------------------------------------

def test_timers_are_added_up_by_name_over_agents_and_processes_and_outlive_them():
    fleet = a_fleet(ended_s=5.0)
    for pid, number in ((7, 0), (7, 3), (8, 0)):
        agent = Agent(pid, number)
        fold(fleet, agent.state(), agent.timer("db.query", 1, 0.1, timer_max=0.1, timer_buckets=buckets(0.1)),
             agent.timer("db.query", 2, 0.4, timer_max=0.3, timer_errors=1, timer_buckets=buckets(0.1, 0.3)), agent.timer("cheap", 5, 0.001))
    one = process_details(fleet.processes()[0], 1.0, WALL)["agent"]["timers"]
    assert [(timer["name"], timer["count"], timer["seconds"], timer["mean"], timer["max"], timer["errors"]) for timer in one] == [
        ("db.query", 4, 0.8, 0.2, 0.3, 2), ("cheap", 10, 0.002, 0.0002, 0.0, 0)]
    assert 0.09 < one[0]["p50"] < 0.12 and 0.29 < one[0]["p99"] <= 0.3 and one[1]["p50"] is None
    for process in fleet.processes():
        process.become("stopped", WALL)
    fleet.expire(100.0, WALL)
    [db, cheap] = summary(fleet, 100.0, WALL)["agent"]["timers"]
    assert (db["count"], round(db["seconds"], 9), db["errors"], cheap["count"], len(fleet.processes())) == (6, 1.2, 3, 15, 0)


def test_a_timer_that_comes_late_changes_nothing():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.timer("q", 5, 1.0), agent.timer("q", 3, 0.5), agent.timer("q", 6, 1.25))
    assert [(timer["count"], timer["seconds"]) for timer in summary(fleet, 1.0, WALL)["agent"]["timers"]] == [(6, 1.25)]


def test_how_an_event_loop_was_held():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.record(LOOP_LATENESS, loop_name="asyncio 1", loop_late_count=3, loop_late_seconds=1.5, loop_late_max=0.75,
         loop_limit=0.1, loop_duration=0.5, stack_frames=[1, 2], stack_problem="cut: 1"), now=4.0)
    assert details(fleet, 6.0)["lateness"] == [{"loop": "asyncio 1", "count": 3, "seconds": 1.5, "max": 0.75, "limit": 0.1, "last": {
        "duration": 0.5, "age_s": 2.0, "frames": shown(VIEW, APP), "problem": "cut: 1"}}]
    assert summary(fleet, 6.0, WALL)["agent"]["lateness"] == {"count": 3, "seconds": 1.5, "max": 0.75}


def test_what_memory_grew():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.record(MEMORY_GROWTH, memory_state="growing", memory_locations=[2, 99], memory_growth=[10.0, -2.0],
         memory_held=[20.0, 0.0], memory_blocks=[3, -1], memory_seconds=60.0, memory_traced=5000, memory_peak=6000, memory_overhead=700), now=4.0)
    assert details(fleet, 6.0)["memory"] == {
        "state": "growing", "seconds": 60.0, "traced": 5000, "peak": 6000, "overhead": 700, "age_s": 2.0, "lines": [
            {"file": "/srv/views.py", "line": 42, "function": "report", "growth": 10.0, "held": 20.0, "blocks": 3},
            {"file": "?", "line": None, "function": "?", "growth": -2.0, "held": 0.0, "blocks": -1}]}


def test_what_an_agent_says_of_itself():
    fleet, agent = a_fleet(), Agent(number=2)
    fold(fleet, agent.state(interpreter_name="site", agent_problem="gevent"), now=4.0)
    assert details(fleet, 6.0)["agents"] == [{
        "number": 2, "interpreter": "site", "version": "1.0", "emits": False, "server": "mod_wsgi", "threshold": 2.0, "interval": 1.0,
        "socket": "s", "signal": 12, "switches": ["gc", "timers"], "watchdog_file": None, "problem": "gevent", "lost": 0, "errors": 0,
        "wakeups": None, "begun": 10, "in_flight": None, "ignored": None, "unwatched": None, "age_s": 2.0}]


def test_the_summary_says_what_all_agents_told():
    fleet = a_fleet()
    for pid in (7, 8):
        agent = Agent(pid)
        fold(fleet, agent.started(), agent.state(agent_emits=8 - pid, agent_lost=2, agent_errors=1, agent_problem="gevent"), agent.locations(),
             agent.long(), agent.stack(1, 2.0, pivot=(APP, VIEW)), agent.raised(1, 3), agent.timer("q", 1, 1.0))
        fold(fleet, agent.state(agent_lost=3, agent_errors=1))
    status, found = get(fleet, "/api/summary?parts=agent")
    found = found["agent"]
    assert (status, found["processes"], found["emitting"], found["exceptions"], found["exception_places"], found["lost"], found["errors"]) == (
        200, 2, 0, 6, 1, 6, 2)
    assert found["top_exceptions"] == [{"id": 1, "type": "app.Broken", "place": "views.py:42 report, called from wsgi.py:3", "count": 6,
                                        "path": None, "process_group": "app", "last": WALL}]
    assert [(row["place"], row["seconds"], "frames" in row) for row in found["pivots"]] == [
        ("views.py:42 report, called from wsgi.py:3", 4.0, False)]
    assert (found["problems"], [timer["count"] for timer in found["timers"]]) == ([], [2])


def test_the_pivots_are_in_the_answer_about_slow_requests():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.long(), agent.stack(1, 2.0, pivot=(APP, VIEW)), agent.long("b"),
         agent.stack(1, 2.0, pivot=(APP,), log_id="b"))
    answers = {most: get(fleet, f"/api/slow?pivots={most}") for most in (0, 1, 200, 201)}
    assert [len(answers[most][1]["pivots"]) for most in (0, 1, 200)] == [0, 1, 2] and answers[201][0] == 400
    assert [(answers[most][1]["pivots_matched"], answers[most][1]["pivots_problem"]) for most in (0, 1)] == [(2, None)] * 2
    assert answers[1][1]["pivots_evicted"] == 0 and answers[1][1]["slow_requests"][0]["entry"]["agent"]["stacks"] == 1


def test_pivots_of_one_group_alone_and_in_the_order_that_is_asked_for():
    fleet = a_fleet()
    for pid, group, seconds, done in ((7, "a", 90.0, True), (8, "b", 50.0, True), (9, "a", 2.0, False)):
        agent = Agent(pid, group=group)
        fold(fleet, agent.started(), agent.locations(), agent.long(slow_duration=seconds),
             agent.stack(1, seconds, pivot=(APP, PLACES[pid - 6])), *([agent.long(done=True, slow_duration=seconds)] if done else ()))

    def asked(query):
        told = get(fleet, f"/api/slow?limit=0&{query}")[1]
        return [row["seconds"] for row in told["pivots"]], told["pivots_matched"], told["pivots_problem"]

    assert asked("group=a") == asked("group=a&pivots_sort=recent") == ([2.0, 90.0], 2, None)
    assert asked("group=a&pivots_sort=total") == ([90.0, 2.0], 2, None)
    assert asked("group=b&pivots=1") == ([50.0], 1, None) and asked("group=c") == ([], 0, None)
    assert asked("pivots=1") == ([2.0], 3, None)
    assert asked("pid=7") == ([], 0, "what long requests have in common is kept by group, not by process: ask without pid")
    assert get(fleet, "/api/slow?pivots_sort=x") == (400, {"error": "pivots_sort=x: one of recent, total", "status": 400})


# --- bounds and nonsense ------------------------------------------------------------------

def test_locations_are_bounded_by_process_and_those_beyond_are_counted(monkeypatch):
    monkeypatch.setattr(inside, "LOCATIONS_MOST", 7)
    fleet, one, two = a_fleet(), Agent(), Agent(number=1)
    fold(fleet, one.locations(), two.locations(), one.locations())
    found = details(fleet)
    assert (found["locations"], found["locations_lost"], found["unknown_locations"]) == (7, 3, 0)


def test_a_location_that_is_told_anew_takes_the_place_of_the_old_one():
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(APP, VIEW), agent.locations(("other", "/srv/other.py" * 9, 5), VIEW), agent.locations(QUERY, VIEW))
    [held] = fleet.inside.agents.values()
    assert (held.locations, held.location_bytes, fleet.inside.bytes) == (
        {1: QUERY, 2: VIEW}, held.bytes, watched.cost(QUERY) + watched.cost(VIEW))


def test_over_all_processes_who_has_most_locations_gives_them_up(monkeypatch):
    monkeypatch.setattr(inside, "BYTES_MOST", 3000)
    fleet, small, large = a_fleet(), Agent(8), Agent(7)
    fold(fleet, small.locations(), large.long(), large.locations(), large.stack(1, 2.0, pivot=(APP, VIEW)))
    fold(fleet, *(large.locations(*PLACES, first=5 * number + 1) for number in range(1, 8)))
    assert fleet.inside.bytes <= 3000 and fleet.inside.locations_evicted > 0
    assert fleet.inside.bytes == sum(agent.bytes for agent in fleet.inside.agents.values())
    assert len(fleet.inside.agents.get((fleet.processes()[0].id, 0)).locations) == 5
    assert entry(fleet)["agent"]["last"]["frames"] == shown(VIEW, APP)


def test_private_records_do_not_push_the_shapes_of_ticks_out():
    fleet, worker, agent = a_fleet(), Worker(), Agent()
    fold(fleet, worker.tick(1))
    before = fleet.shapes._held
    fold(fleet, *(agent.stack(length + 1, 2.0, *(APP,) * length) for length in range(200)))
    assert fleet.shapes._held == before


def test_private_kinds_of_others_are_counted_and_nothing_else():
    fleet, other = a_fleet(), Worker()
    fold(fleet, other.datagram(AGENT_STATE), other.datagram(200), Worker().datagram(AGENT_STATE, stamp=WALL + 9))
    process = the_process(fleet)
    assert (process.agents, list(process.sources), process.kinds) == (None, ["other"], {AGENT_STATE: 2, 200: 1})


@pytest.mark.parametrize("made", [
    dict(stack_elapsed=float("nan")), dict(stack_elapsed=-1.0), dict(stack_elapsed=float("inf")), dict(stack_number=0),
    dict(stack_number=1 << 63), dict(slow_log_id=""), dict(stack_frames=[1] * 3000), dict(stack_pivot=[1] * 3000),
    dict(stack_cpu=-1.0), dict(stack_cpu=float("nan")), dict(stack_shared=1 << 60), dict(stack_left_out=1 << 60),
])
def test_nonsense_in_a_stack_is_odd(made):
    fleet, agent = a_fleet(), Agent()
    fold(fleet, agent.locations(), agent.record(REQUEST_STACK, **{**dict(
        slow_log_id="a", stack_number=1, stack_elapsed=2.0, stack_pivot=[1], stack_shared=1, stack_frames=[2]), **made}))
    assert details(fleet)["odd"] >= 1
    json.dumps([slow_entry(fleet.slow.freeze(key, 1.0), 1.0) for key in fleet.slow.keys()], allow_nan=False)


def test_whatever_a_private_record_holds_nothing_is_raised_the_bounds_hold_and_json_can_be_made(monkeypatch):
    """Any values in any fields of any private kind: no exception, every bound holds, every answer is JSON."""
    monkeypatch.setattr(SlowTable, "WATCH_BYTES", 200_000)
    for name, bound in (("BYTES_MOST", 150_000), ("EXCEPTION_BYTES", 50_000), ("DUMP_BYTES", 100_000), ("DUMPS_MOST", 5), ("AGENTS_MOST", 40)):
        monkeypatch.setattr(inside, name, bound)
    monkeypatch.setattr(watched, "PIVOTS_MOST", 20)
    monkeypatch.setattr(watched, "PIVOT_BYTES", 40_000)
    seed = random.randrange(1 << 32)
    print("seed", seed)
    pick = random.Random(seed)
    fleet = a_fleet(slow=60, processes=20)
    fleet.inside.exceptions.limit = 25
    whole = (0, 1, 2, 3, 5, 17, 1 << 31, 1 << 53, (1 << 64) - 1)
    real = (0.0, 1.0, 2.5, 1e300, float("nan"), float("inf"), -1.0)
    texts = (b"", b"a", b"b", b"\0", b"0\0n\0v\0", b"\xff\xfe\0x", b"f\0g.py\0" * 5, "ü".encode() * 300, b"1\0" * 200, b"x" * 3000)

    def value(field):
        if field.type == U64:
            return pick.choice(whole)
        if field.type == F64:
            return pick.choice(real)
        if field.type == TEXT:
            return pick.choice(texts)
        if field.type == I32S:
            return [pick.choice((-5, 0, 1, 2, 3, 4, 5, 9, (1 << 31) - 1)) for _ in range(pick.choice((0, 1, 3, 5, 65, 200)))]
        assert field.type == F64S
        return [pick.choice(real) for _ in range(pick.choice((0, 1, 3, 5)))]

    log_id = next(field for field in FIELDS if field.name == "slow_log_id")
    kinds = [kind for kind in KINDS if kind >= PRIVATE_KINDS]
    seqs = {}
    for at in range(6000):
        kind, pid, number = pick.choice(kinds), pick.randrange(1, 25), pick.choice((0, 0, 0, *range(1, 20)))
        fields = [field for field in FIELDS if kind in field.kinds or field.id in (200, 201, 202, 204, 210, 214) and kind in (129, 130, 132, 135)]
        values = [(field.id, field.type, value(field)) for field in fields if pick.random() < 0.85 and field is not log_id]
        if log_id in fields:
            values.append((log_id.id, log_id.type, pick.choice((b"", b"a", b"b", b"c", b"\xff"))))
        seq = seqs[pid, number] = 1 if pick.random() < 0.02 else seqs.get((pid, number), 0) + 1
        fleet.apply(encode(kind, pid, seq, WALL + at, values, AGENT_FLAG | number), a_sender(pid), at / 20, WALL + at / 20)
        if not at % 50:
            fleet.expire(at / 20, WALL + at / 20)
        if not at % 300:
            for path in ("/api/slow?pivots=200", "/api/exceptions", "/api/summary", "/api/stacks", "/api/processes",
                         f"/api/processes/{fleet.processes()[0].pid}"):
                assert get(fleet, path, at / 20)[0] == 200, path
    assert len(fleet.slow) == 60 or len(fleet.slow) > 20
    told = fleet.inside
    assert told.bytes == sum(agent.bytes for agent in told.agents.values()) <= 150_000
    assert len(told.agents) == sum(len(process.agents.by_number) for process in fleet.processes() if process.agents) <= 40
    assert all(len(process.sources) <= inside.NUMBERS_MOST for process in fleet.processes())
    held = [fleet.slow.watch(key) for key in fleet.slow._watched]
    assert fleet.slow.watch_bytes == sum(watch.bytes for watch in held) <= 200_000
    assert all(watch in held for agent in told.agents.values() for watch in agent.watches.values())
    assert len(told.pivots) <= 20 and told.pivots.bytes == sum(row.bytes for row in told.pivots._rows.values()) <= 40_000
    assert len(told.exceptions) <= 25 and told.exception_bytes == sum(row.bytes for row in told.exceptions.values())
    assert len(told._dumps) <= 5 and told._dump_bytes == sum(dump.bytes for dump in told._dumps.values()) <= 100_000
    assert told.exceptions_counted > 0 and told.timers and told.lateness.count and told.dumps_cut
