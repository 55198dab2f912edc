"""What a console asks each second, as requests and JSON: parts of the summary, pages of tables, series, collections."""
import json
import random
import tracemalloc
from urllib.parse import quote

import pytest

from builders import NAMES, WALL, Worker, a_fleet, fold
from modwsgi_tel.errors import BadRequest
from modwsgi_tel.state import tables, view
from modwsgi_tel.state.process import LIVES
from modwsgi_tel.state.series import COLUMNS
from modwsgi_tel.state.tables import PROCESS_SORTS, SLOW_LIVES, SLOW_SORTS
from modwsgi_tel.web.routes import ROUTES
from modwsgi_tel.web.statejson import PIECE
from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import GC_EVENT, TEXT
from test_state_json import Asked, at_the_end, strict

NAN, INF = float("nan"), float("inf")
PARTS = ("collector", "totals", "groups", "agent", "processes", "findings")
PAGED = {"/api/processes": "processes", "/api/workers": "workers", "/api/slow": "slow_requests",
         "/api/gc": "interpreters"}
PIECE_MOST = 3 * PIECE                  # characters are up to four bytes, a row comes whole


def pieces_of(asked, path):
    _, response = asked.response(path)
    assert response.status == 200
    return list(response.body)


def error(asked, path):
    status, body = asked.body(path)
    return status, strict(body)["error"]


# --- the summary -----------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_each_part_of_the_summary_is_that_part_of_the_whole(name):
    asked = at_the_end(name)
    whole = asked.get("/api/summary")
    assert set(whole) == {"type", "version", "time", *PARTS, "verdict"}
    for part in PARTS:
        assert asked.get("/api/summary?parts=" + part) == {
            key: whole[key] for key in ("type", "version", "time", part, *(("verdict",) if part == "findings" else ()))}
    assert asked.get("/api/summary?parts=" + ",".join(PARTS)) == whole
    assert asked.get("/api/summary?parts=totals,processes,totals") == {
        key: whole[key] for key in ("type", "version", "time", "totals", "processes")}


@pytest.mark.parametrize("window", view.WINDOWS)
def test_a_window_of_the_summary_is_that_window_of_the_whole(window):
    asked = at_the_end("daemon_mixed")
    whole, found = asked.get("/api/summary"), asked.get("/api/summary?window=" + window)
    for row in (whole["totals"], *whole["groups"], *whole["processes"]):
        row["windows"] = {window: row["windows"][window]}
    for answer in (found, whole):
        assert isinstance(answer.pop("verdict"), str)       # "all quiet" tells the rate of a window that is there
    assert found == whole


def a_fleet_in_trouble():
    """Two groups: one has every thread busy, one process of it silent with a request inside; it is 60 s."""
    fleet, stuck, busy, calm = a_fleet(), Worker(7), Worker(8), Worker(9, group="calm")
    fold(fleet, stuck.tick(1), stuck.slow("s"), now=1.0)
    for at in range(1, 61):
        fleet.expire(float(at), WALL + at)
        fold(fleet, busy.tick(5, request_threads_active=5, capacity_utilization=1.0), calm.tick(1), now=float(at))
    return fleet


def test_findings_are_in_the_summary_with_a_verdict_and_look_at_the_last_minute_alone():
    asked = Asked(a_fleet_in_trouble(), 60.0)
    found = asked.get("/api/summary?parts=findings")
    rules = [(finding["id"], finding["process_group"], finding["pid"]) for finding in found["findings"]]
    assert ("silent", "app", 7) in rules and {group for _, group, _ in rules} == {"app"}
    for finding in found["findings"]:
        assert set(finding) == {"id", "severity", "hostname", "process_group", "pid", "process", "since", "text",
                                "advice",
                                "figures"}
    assert found["verdict"].startswith(found["findings"][0]["text"])
    for window in view.WINDOWS:             # what they said last
        assert asked.get(f"/api/summary?parts=findings&window={window}") == found
    assert Asked(a_fleet_in_trouble(), 60.0).get("/api/summary?parts=findings&window=10m")["findings"] == []


@pytest.mark.parametrize("query", [
    "parts=x", "parts=", "parts=totals,", "parts=totals,x", "window=", "window=2m", "window=1m,x", "parts=TOTALS", "window=%00"])
def test_a_part_or_a_window_that_there_is_not_is_refused(query):
    status, said = error(Asked(a_fleet()), "/api/summary?" + query)
    assert status == 400 and "one or more of" in said and "\n" not in said


# --- pages -----------------------------------------------------------------------------------

def a_busy_fleet(processes=30):
    """Processes of three groups with slots, slow requests in all lives and collectors; it is 20 s."""
    dice, fleet = random.Random(8), a_fleet()
    for pid in range(100, 100 + processes):
        worker = Worker(pid, group=("app", "api", "")[pid % 3])
        fold(fleet, worker.started(), now=float(pid % 7))
        for at in range(8, 20):
            if pid % 10 or at < 12:
                fold(fleet, worker.tick(dice.randrange(4), request_threads_current_elapsed=[dice.random()] * 5),
                     now=float(at))
                fold(fleet, worker.gc_snapshot("sub" if at % 2 else None),
                     worker.gc_event(duration=dice.random() / 100),
                     now=float(at))
        fold(fleet, *(worker.slow(f"{pid}-{number}", done=number == 1, thread=number, slow_duration=dice.random() * 20)
                      for number in range(pid % 4)), now=11.0 if pid % 10 == 0 else 19.5)
        if pid % 11 == 0:
            fold(fleet, worker.stopped(), now=19.9)
    fleet.expire(20.0, WALL + 20.0)
    return fleet


def keyed(rows):
    """What tells rows of any table from one another."""
    return [(row.get("id"), row.get("process"), row.get("interpreter"), row.get("entry", {}).get("id")) for row in rows]


@pytest.mark.parametrize("path", sorted(PAGED))
def test_pages_one_after_another_are_the_whole_table(path):
    asked = Asked(a_busy_fleet(), 20.0)
    whole = asked.get(path)
    rows = whole[PAGED[path]]
    assert (whole["matched"], whole["offset"], len(set(keyed(rows)))) == (len(rows), 0, len(rows)) and len(rows) > 20
    cut = []
    for offset in range(0, len(rows), 7):
        page = asked.get(f"{path}?offset={offset}&limit=7")
        assert (page["matched"], page["offset"]) == (len(rows), offset)
        cut += page[PAGED[path]]
    assert cut == rows
    assert asked.get(path + "?limit=0") == {**whole, PAGED[path]: []}
    assert asked.get(f"{path}?offset={10 ** 11}&limit={10 ** 11}") == {**whole, "offset": len(rows) - 1,
                                                                       PAGED[path]: rows[-1:]}
    assert asked.get(f"{path}?offset={len(rows)}&limit=0") == {**whole, "offset": len(rows) - 1, PAGED[path]: []}


@pytest.mark.parametrize("path", sorted(PAGED))
def test_a_table_of_nothing_is_a_table(path):
    for asked in (Asked(a_fleet()), Asked(fold(a_fleet(), Worker(group="x").started()))):
        for query in ("", "?offset=5", "?limit=0", "?offset=3&limit=4"):
            found = asked.get(path + query + ("&" if query else "?") + "group=none")
            assert {key: found[key] for key in ("matched", "offset", PAGED[path])} == {"matched": 0, "offset": 0, PAGED[path]: []}


def test_rows_of_processes_are_those_of_the_summary_and_say_what_was_lost_of_each_source():
    fleet = a_busy_fleet()
    asked = Asked(fleet, 20.0)
    summary = asked.get("/api/summary")["processes"]
    rows = asked.get("/api/processes")["processes"]
    assert [row.pop("sources") for row in rows] == [view.sources_view(process) for process in fleet.processes()]
    assert rows == summary
    for window in view.WINDOWS:
        for row, whole in zip(asked.get("/api/processes?window=" + window)["processes"], summary):
            assert {**row, "sources": 0} == {**whole, "windows": {window: whole["windows"][window]}, "sources": 0}


@pytest.mark.parametrize("window", ("",) + view.WINDOWS)
@pytest.mark.parametrize("sort", sorted(PROCESS_SORTS))
def test_processes_are_sorted_both_ways_by_what_was_asked(sort, window):
    fleet = a_busy_fleet()
    asked = Asked(fleet, 20.0)
    for order in ("asc", "desc"):
        more = f"&window={window}" if window else ""
        found = asked.get(f"/api/processes?sort={sort}&order={order}{more}")["processes"]
        steps = tables.process_page(fleet, lambda process: True, tables.Ask(sort, order == "desc"), window or "1m",
                                    20.0)
        assert [row["id"] for row in found] == view.run(steps).items
        assert [row["id"] for row in asked.get(f"/api/processes?sort={sort}&order={order}{more}&search=api&limit=3")["processes"]
                ] == [row["id"] for row in found if row["process_group"] == "api"][:3]


def test_processes_are_chosen_by_group_pid_life_and_when_they_were_last_heard():
    asked = Asked(a_busy_fleet(), 20.0)
    rows = asked.get("/api/processes")["processes"]

    def pids(query):
        return [row["pid"] for row in asked.get("/api/processes?" + query)["processes"]]

    assert pids("group=api") == [row["pid"] for row in rows if row["process_group"] == "api"]
    assert pids("group=") == [row["pid"] for row in rows if row["process_group"] == ""]
    assert pids("pid=104") == [104] and pids("pid=9") == []
    for lives in ("stopped", "silent", "silent,stopped", "running"):
        assert pids("life=" + lives) == [row["pid"] for row in rows if row["life"] in lives.split(",")] != []
    assert pids(f"since={WALL + 15}") == [row["pid"] for row in rows if max(row["last_seen"],
                                                                            row["life_since"]) > WALL + 15]


def test_one_process_of_a_pid_is_named_by_its_id():
    fleet = a_fleet()
    fold(fleet, Worker(7).started(), Worker(7, seq=1).tick(1), now=1.0)
    fold(fleet, Worker(7).started(stamp=WALL + 5), now=5.0)
    asked, (old, new) = Asked(fleet, 6.0), fleet.processes()
    assert [row["id"] for row in asked.get("/api/processes/7")["processes"]] == [old.id, new.id]
    for process in (old, new):
        [row] = asked.get(f"/api/processes/7?id={process.id}")["processes"]
        assert row == {**strict(json.dumps(view.process_details(process, 6.0, WALL + 6.0))), "stacks": None}
    assert [asked.body(f"/api/processes/{rest}")[0] for rest in (
        f"7?id={new.id + 1}", "8", f"8?id={new.id}", "7?id=x", "7?id=-1", "7?id=", "x", "7.0", "%C2%B2")] == [
        404, 404, 404, 400, 400, 400, 404, 404, 404]


# --- workers -------------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_workers_over_http_are_the_rows_of_their_table(name):
    asked = at_the_end(name)
    found = asked.get("/api/workers")
    page = view.run(tables.worker_page(asked.fleet, lambda process: True, tables.Ask(), asked.now))
    assert found["workers"] == [tables.worker_row(asked.fleet, number, asked.now) for number in page.items]
    assert found["matched"] == sum(not process.ended and process.ticks > 0 for process in asked.fleet.processes())


def test_a_request_has_the_same_id_and_age_in_its_slot_and_among_the_slow_ones():
    asked = Asked(a_busy_fleet(), 20.0)
    slow = {row["entry"]["id"]: row["entry"] for row in asked.get("/api/slow?life=active,stale")["slow_requests"]}
    seen = [request for row in asked.get("/api/workers")["workers"] for request in row["requests"]]
    assert {request["id"] for request in seen} == set(slow) and len(seen) > 10
    for request in seen:
        entry = slow[request["id"]]
        assert (request["age_s"], request["process"], request["pid"], request["method"]) == (
            entry["age_s"], entry["process"], entry["pid"], entry["method"])
        assert request["slot"] == (entry["thread_id"] - 1 if entry["thread_id"] else None)


# --- slow requests ----------------------------------------------------------------------------

def test_a_slow_request_has_an_age_a_phase_and_an_id():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.slow("stale", slow_duration=6.0), now=1.0)
    fold(fleet, worker.slow("done", done=True, slow_duration=4.0), now=8.0)
    fold(fleet, worker.tick(1), worker.slow("app", slow_duration=5.0), worker.slow("out", slow_duration=3.0, slow_status=200),
         worker.slow("odd", slow_duration=NAN), now=9.0)
    gone = Worker(8)
    fold(fleet, gone.tick(1), gone.slow("lost", slow_duration=2.0), gone.stopped(), now=9.0)
    asked = Asked(fleet, 10.0)
    rows = asked.get("/api/slow")["slow_requests"]
    assert [(entry["log_id"], entry["life"], entry["age_s"], entry["phase"], entry["id"])
            for entry in (row["entry"] for row in rows)] == [
        ("stale", "stale", 6.0, None, 1), ("done", "completed", 4.0, None, 2), ("app", "active", 6.0, "application", 3),
        ("out", "active", 4.0, "response", 4), ("odd", "active", None, "application", 5), ("lost", "lost", 2.0, None, 6)]
    for row in rows:
        [one] = asked.get(f"/api/slow?id={row['entry']['id']}")["slow_requests"]
        assert one == row
    assert asked.get("/api/slow?id=7")["slow_requests"] == []
    assert asked.get("/api/state")["slow_requests"] == rows


@pytest.mark.parametrize("sort", SLOW_SORTS)
def test_slow_requests_over_http_are_in_the_order_of_their_table(sort):
    fleet = a_busy_fleet()
    asked = Asked(fleet, 20.0)
    for order in ("asc", "desc"):
        for lives in (None, "active", "lost,completed", ",".join(SLOW_LIVES)):
            wanted = None if lives is None else frozenset(lives.split(","))
            page = view.run(tables.slow_page(fleet, lambda slow: True, tables.Ask(sort, order == "desc", lives=wanted), 20.0))
            found = asked.get(f"/api/slow?sort={sort}&order={order}" + ("" if lives is None else "&life=" + lives))
            assert [row["entry"]["id"] for row in found["slow_requests"]] == [
                fleet.slow.freeze(key, 20.0).number for key in page.items]
            assert (found["kept"], found["matched"]) == (len(fleet.slow), len(page.items))


def test_requests_that_go_while_the_answer_is_written_are_left_out_and_it_stays_json():
    for stop in (0, 1, 3, 10):
        fleet, worker = a_fleet(), Worker()
        fold(fleet, worker.tick(1), now=1.0)
        fold(fleet, *(worker.slow(f"r{number}", done=True, slow_path_info="/" + "x" * 500) for number in range(600)),
             now=1.0)
        _, response = Asked(fleet, 2.0).response("/api/slow?sort=age&order=desc")
        body, said = iter(response.body), b""
        for _ in range(stop):
            said += next(body)
        assert fleet.slow.clear(2.0) == 600
        found = strict(said + b"".join(body))
        assert found["kept"] == 600 and len(found["slow_requests"]) < 600
    assert found["matched"] == 600 and found["slow_requests"][0]["entry"]["log_id"] == "r0"


@pytest.mark.parametrize("path", ["/api/processes", "/api/workers", "/api/gc", "/api/summary", "/api/series"])
def test_processes_that_come_and_go_while_an_answer_is_written_leave_it_json(path):
    """Every second one is gone at the end, others are in their place."""
    fleet, pid = a_busy_fleet(200), 5000
    fleet.limits = fleet.limits._replace(processes=200)
    fleet._processes.limit = 200
    body = b""
    for piece in Asked(fleet, 20.0).response(path)[1].body:
        body += piece
        for _ in range(3):
            pid += 1
            fold(fleet, Worker(pid, group=f"g{pid % 5}").tick(1), now=20.0)
    found = strict(body)
    assert fleet.evicted > 0
    if path in PAGED:
        assert 0 < len(found[PAGED[path]]) <= found["matched"]


def full_table(limit=16384):
    """As many slow requests as are kept, each of another shape: nothing of one serves another."""
    fleet, worker = a_fleet(slow=limit), Worker()
    fold(fleet, worker.tick(1), now=1.0)
    for number in range(limit + 10):
        fold(fleet, worker.slow(f"id{number}", done=number % 2 == 0, slow_path_info="/" + "p" * (number % 128),
                                slow_user_agent="a" * (number // 128), slow_duration=float(number * 7919 % 1000)), now=1.5)
    return fleet


@pytest.fixture(scope="module")
def kept():
    """Asked about a full table, once read."""
    asked = Asked(full_table(), 2.0)
    asked.body("/api/slow?sort=state&limit=1")
    return asked


@pytest.mark.parametrize("query", ["limit=30&sort=state", "limit=30&sort=age&order=desc", "sort=url",
                                   "search=nothing", "life=lost"])
def test_a_page_of_sixteen_thousand_slow_requests_comes_in_small_pieces_from_little_memory(kept, query):
    tracemalloc.start()
    try:
        peak, turns, size = 0, 0, 0
        for piece in kept.response("/api/slow?" + query)[1].body:
            turns += 1
            size += len(piece)
            assert len(piece) <= PIECE_MOST
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert turns > 100 and peak < 12 << 20, (turns, size, peak)
    found = kept.get("/api/slow?" + query)
    ages = [row["entry"]["age_s"] for row in found["slow_requests"]]
    assert (found["kept"], found["evicted"]) == (16384, 10)
    assert len(ages) == {"limit=": 30, "sort=u": 16384}.get(query[:6], 0)
    assert "age" not in query or ages == sorted(ages, reverse=True)


@pytest.mark.parametrize("path", ["/api/processes", "/api/workers", "/api/gc", "/api/summary",
                                  "/api/processes?sort=p95&limit=40",
                                  "/api/summary?parts=groups"])
def test_two_hundred_processes_are_looked_at_a_few_at_a_time(path):
    """A turn for others after a few dozen processes or a piece of text, whichever comes first."""
    found = pieces_of(Asked(a_busy_fleet(200), 20.0), path)
    assert len(found) >= 200 // view.BATCH and max(map(len, found)) <= PIECE_MOST


def test_rows_of_wide_servers_are_made_one_by_one():
    """A table without a limit: what it holds at once does not grow with the number of processes."""
    fleet = a_fleet()
    for pid in range(100, 300):
        fold(fleet, Worker(pid).tick(1, request_threads_completed=[1] * 128, **{
            f"request_threads_{name}": [0.25] * 128 for name in ("busy_time", "cpu_time", "current_elapsed",
                                                                 "max_duration")}),
            now=1.0)
    asked = Asked(fleet, 2.0)
    asked.body("/api/workers?limit=1")
    tracemalloc.start()
    try:
        size = sum(map(len, asked.response("/api/workers")[1].body))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 1 << 20 and peak < 1 << 20


# --- garbage collection -------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_collectors_and_their_collections_are_those_of_the_state(name):
    asked = at_the_end(name)
    found = asked.get("/api/gc")["interpreters"]
    state = {row["id"]: row for row in asked.get("/api/state")["processes"] if row["life"] not in ("stopped", "replaced")}
    assert sorted((row["process"], row["interpreter"]) for row in found) == sorted(
        (number, interpreter) for number, row in state.items() for interpreter in row["gc_snapshots"])
    for row in found:
        newest = state[row["process"]]["gc_snapshots"][row["interpreter"]][-1]["fields"]
        assert (row["collections"], row["enabled"], row["dropped_events"]) == (
            [newest[f"gc_collections{n}"] for n in range(3)], bool(newest["gc_is_enabled"]), newest["gc_dropped_events"])
    for number, row in state.items():
        for interpreter in row["gc_snapshots"]:
            events = asked.get(f"/api/gc/events?process={number}&interpreter={quote(interpreter)}")
            wanted = [event["fields"] for event in row["gc_events"] if event["interpreter"] == interpreter]
            assert (events["process"], events["interpreter"], events["earlier"]) == (
                number, interpreter, max(0, len(wanted) - tables.EVENTS_MOST))
            assert events["events"] == [
                {"start": each["gc_event_start_stamp"], "duration": each["gc_event_duration"],
                 "generation": each["gc_event_generation"], "collected": each["gc_event_collected"],
                 "uncollectable": each["gc_event_uncollectable"]} for each in wanted][-tables.EVENTS_MOST:]


def test_an_interpreter_whose_name_is_no_text_is_found_by_how_it_is_shown():
    fleet, worker = fold(a_fleet(), Worker().tick(1)), Worker(seq=1)
    raw = [(8, TEXT, b"a\xff|/b")]
    values = named(gc_event_start_stamp=WALL, gc_event_duration=0.5, gc_event_generation=1, gc_event_collected=2,
                   gc_event_uncollectable=0)
    fold(fleet, worker.datagram(GC_EVENT, raw + values), worker.gc_event(duration=0.25), worker.gc_event("x", NAN),
         now=1.0)
    asked, [process] = Asked(fleet, 2.0), fleet.processes()

    def durations(query):
        return [event["duration"] for event in asked.get(f"/api/gc/events?process={process.id}{query}")["events"]]

    assert [row["interpreter"] for row in asked.get("/api/gc")["interpreters"]] == ["a\ufffd|/b", "", "x"]
    assert durations("&interpreter=" + quote("a\ufffd|/b")) == [0.5]
    assert (durations(""), durations("&interpreter="), durations("&interpreter=x")) == ([0.25], [0.25], [None])
    assert durations("&interpreter=nobody") == []           # not those of the main one
    assert durations("&interpreter=%FF") == []


def test_collections_since_a_moment_and_no_more_than_the_newest_two_thousand_in_small_pieces():
    fleet, worker = a_fleet(), Worker()
    for at in range(40):
        fold(fleet, worker.tick(1), worker.gc_snapshot(), *(worker.gc_event(duration=at / 1000) for _ in range(64)),
             now=float(at))
    asked, [process] = Asked(fleet, 40.0), fleet.processes()
    path = f"/api/gc/events?process={process.id}"
    found = asked.get(path)
    assert (len(found["events"]), found["earlier"]) == (2000, 40 * 64 - 2000)
    assert found["events"][-1]["duration"] == 0.039
    assert max(map(len, pieces_of(asked, path))) <= PIECE_MOST
    assert {event["duration"] for event in asked.get(f"{path}&since={WALL + 37}")["events"]} == {0.038, 0.039}
    assert asked.get(f"{path}&since={WALL + 39}") == {**found, "events": [], "earlier": 0}


def test_collections_of_a_process_that_there_is_not_are_not_found():
    asked = Asked(fold(a_fleet(), Worker().tick(1)), 1.0)
    assert [asked.body("/api/gc/events" + query)[0] for query in (
        "", "?process=999999999999", "?process=x", "?process=", "?process=1e3", "?interpreter=x", "?process=1234567890123")] == [
        404, 404, 400, 400, 400, 404, 400]


# --- series -------------------------------------------------------------------------------------

def test_the_series_over_http_has_its_columns_named_and_a_point_for_each_five_seconds():
    fleet, worker = a_fleet(), Worker()
    for at in range(20):
        fold(fleet, worker.tick(2), now=float(at))
    asked, [process] = Asked(fleet, 22.0), fleet.processes()
    found = asked.get("/api/series")
    assert {key: found[key] for key in ("time", "window", "step_s", "columns")} == {
        "time": WALL + 22.0, "window": "1m", "step_s": 5.0, "columns": list(COLUMNS)}
    assert found["points"][:8] == [None] * 8
    assert [dict(zip(COLUMNS, point)) for point in found["points"][-1:]] == [
        {"time": WALL + 15.0, "requests": 10, "throughput": 2.0, "capacity": 0.25, "cpu": 0.1875, "rss": 50 << 20,
         "mean": 0.1, "max": 0.1, "queue": pytest.approx(0.005), "gil_share": pytest.approx(0.0125), "errors": 0, "slow": 0,
         "gc_seconds": 0.0, "gc_pauses": 0}]
    assert asked.get("/api/series?group=app") == found
    slow = COLUMNS.index("slow")
    assert asked.get(f"/api/series?process={process.id}")["points"] == [
        point and [*point[:slow], None, *point[slow + 1:]] for point in found["points"]]
    assert asked.get("/api/series?group=none")["points"] == [None] * 12
    assert len(asked.get("/api/series?window=10m")["points"]) == 120
    assert [asked.body("/api/series?" + query)[0] for query in ("process=99999999", "process=x", "since=x",
                                                                "window=2m")] == [404, 400, 400, 400]


def test_who_has_the_older_points_asks_for_those_that_began_since():
    fleet, worker = a_fleet(), Worker()
    for at in range(60):
        fold(fleet, worker.tick(2), now=float(at))
    asked, [process] = Asked(fleet, 62.0), fleet.processes()
    for of in ("", "&group=app", f"&process={process.id}"):
        for window, points in (("1m", 12), ("10m", 120)):
            whole = asked.get(f"/api/series?window={window}{of}")
            assert (whole["first"], len(whole["points"])) == (12 - points, points)     # a point is of 5 seconds of the collector's clock
            for since, first in ((WALL + 44.9, 9), (WALL + 45.0, 10), (WALL - 1e12, 12 - points), (WALL + 1e12, 12)):
                newer = asked.get(f"/api/series?window={window}{of}&since={since!r}")
                assert newer == {**whole, "first": first, "points": whole["points"][points - 12 + first:]}


def test_a_process_is_told_by_its_id_alone():
    fleet = a_fleet()
    for pid in (7, 8):
        fold(fleet, Worker(pid).tick(2), now=1.0)
    asked, second = Asked(fleet, 2.0), fleet.processes()[1]
    assert asked.get(f"/api/processes/any?id={second.id}") == asked.get("/api/processes/8")
    assert [asked.body("/api/processes/any" + query)[0] for query in ("", "?id=99999", "?id=x")] == [404, 404, 400]


@pytest.mark.parametrize("name", NAMES)
def test_the_requests_of_the_series_are_those_of_the_summary(name):
    asked = at_the_end(name)
    asked.now += 5.0
    asked.fleet.expire(asked.now, WALL)
    totals = asked.get("/api/summary?window=10m&parts=totals")["totals"]["windows"]["10m"]
    points = [dict(zip(COLUMNS, point)) for point in asked.get("/api/series?window=10m")["points"] if point]
    assert sum(point["requests"] for point in points) == totals["requests"]
    assert sum(point["errors"] for point in points) == totals["status"]["5xx"]
    assert sum(point["gc_pauses"] for point in points) == totals["gc"]["pauses"]
    assert max(point["max"] or 0.0 for point in points) == (totals["phases"]["request"]["max"] or 0.0)


# --- the event log --------------------------------------------------------------------------------

def test_the_event_log_is_cut_to_its_newest():
    asked = at_the_end("lifecycle")
    events = asked.get("/api/lifecycle")["lifecycle_events"]
    for limit in (0, 1, 5, len(events), 10 ** 11):
        assert asked.get(f"/api/lifecycle?limit={limit}")["lifecycle_events"] == events[max(0, len(events) - limit):]
    one = events[3]["pid"]
    assert asked.get(f"/api/lifecycle?pid={one}&limit=1")["lifecycle_events"] == [
        event for event in events if event["pid"] == one][-1:]
    assert asked.body("/api/lifecycle?limit=-1")[0] == 400


# --- anything at all ----------------------------------------------------------------------------

def paths_of(fleet):
    """All that can be asked of a fleet with plain parameters."""
    for route in ROUTES:
        if route.method != "GET" or not route.path.startswith("/api/"):
            continue
        processes = fleet.processes()[:3] if route.path.endswith("PID") or "process" in route.parameters else [None]
        for process in processes:
            path = route.path.replace("PID", str(process.pid if process else ""))
            yield path + (f"?process={process.id}" if "process" in route.parameters else "")
            for window in view.WINDOWS if "window" in route.parameters else ():
                yield f"{path}?window={window}" + (f"&process={process.id}" if "process" in route.parameters else "")
        for sort in {"/api/processes": PROCESS_SORTS, "/api/slow": SLOW_SORTS}.get(route.path, ()):
            yield f"{route.path}?sort={sort}&order=desc&limit=3&offset=1"


@pytest.mark.parametrize("name", NAMES)
def test_all_captures_through_all_paths_are_strict_json(name):
    asked = at_the_end(name)
    for path in paths_of(asked.fleet):
        strict(asked.body(path)[1].decode("utf-8"))
        assert asked.body(path)[0] == 200, path


def test_numbers_that_json_has_not_and_hostile_texts_are_strict_json_on_all_paths():
    fleet, dice = a_fleet(), random.Random(9)
    odd = (NAN, INF, -INF, -1.0, 1e308, -1e308, 5e-324, 0.0)
    texts = ("\x1b[2J", "\x00", "\ud7ff\u202e\U0001f984", '"\\</script>', "", "x" * 2000)
    arrays = ("busy_time", "cpu_time", "current_elapsed", "max_duration")
    for pid in range(10, 60):
        worker = Worker(pid, group=dice.choice(texts), hostname=dice.choice(texts), interval=dice.choice(odd[:-1]))
        values = dict(sample_period=dice.choice(odd), request_time=dice.choice(odd), request_time_max=dice.choice(odd),
                      capacity_utilization=dice.choice(odd), cpu_user_utilization=dice.choice(odd), memory_rss=2 ** 64 - 1,
                      request_threads_active=2 ** 64 - 1, request_threads_maximum=2 ** 63, switch_interval=dice.choice(odd),
                      slow_requests_threshold=dice.choice(odd),
                      **{f"request_threads_{name}": [dice.choice(odd) for _ in range(dice.randrange(4))] for name in arrays})
        fold(fleet, worker.started(), now=0.5)
        for _ in range(3):
            fold(fleet, worker.tick(1, [0.5], **dict(dice.sample(sorted(values.items()), 6))), now=dice.random() * 20)
        fold(fleet, worker.slow(dice.choice(texts)[:100], slow_duration=dice.choice(odd),
                                slow_start_stamp=dice.choice(odd),
                                slow_thread_id=dice.choice((0, 1, 2 ** 64 - 1)), slow_path_info=dice.choice(texts)),
             worker.gc_event(dice.choice(texts), dice.choice(odd), stamp=dice.choice(odd)),
             worker.gc_snapshot(dice.choice(texts)), worker.stopping() if pid % 7 == 0 else worker.tick(0), now=20.0)
    fleet.expire(22.0, WALL + 22.0)
    asked = Asked(fleet, 22.0)
    for path in paths_of(fleet):
        status, body = asked.body(path)
        assert status == 200, path
        strict(body.decode("utf-8"))


HOSTILE = ("", "0", "-1", "1e400", "nan", "inf", "9" * 12, "9" * 13, "9" * 5000, "%00", "%0d%0aX:1", "%ff%fe", "%zz",
           "%", "\\",
           "%C2%B2", "%D9%A3", "+1", "0x10", "1_000", " 1", "asc,desc", ",", "%2C" * 50, "a" * 3000, "%f0%9f%a6%84", "'--", "__class__",
           "<script>", "%1b[2J", "None", "True")


@pytest.mark.parametrize("route",
                         [route for route in ROUTES if route.path.startswith("/api/") and route.method == "GET"],
                         ids=lambda route: route.path)
def test_whatever_stands_in_a_parameter_it_is_answered_or_refused_in_one_line(route):
    asked = Asked(a_busy_fleet(12), 20.0)
    path = route.path.replace("PID", "104")
    for name in (*route.parameters, "unknown"):
        for value in HOSTILE:
            for query in (f"{name}={value}", f"{name}={value}&{name}=1m", f"{name}=1&{name}={value}"):
                try:
                    _, response = asked.response(f"{path}?{query.replace(' ', '%20')}")
                except BadRequest:          # no request at all: the parser refuses the bytes of it
                    continue
                body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
                found = strict(body.decode("utf-8"))
                assert response.status in (200, 400, 404), (query, found)
                if response.status != 200:
                    assert isinstance(found["error"], str) and found["error"] and "\n" not in found["error"], query


def test_of_a_parameter_given_twice_the_last_one_counts():
    asked = Asked(a_busy_fleet(), 20.0)
    assert asked.get("/api/processes?limit=9&limit=2&sort=pid&order=asc&order=desc") == asked.get(
        "/api/processes?limit=2&sort=pid&order=desc")
    assert error(asked, "/api/processes?limit=2&limit=x")[0] == 400


@pytest.mark.parametrize("path, said", [
    ("/api/processes?sort=colour", "sort=colour: one of pid"), ("/api/slow?sort=rss", "sort=rss: one of state"),
    ("/api/processes?order=up", "order=up: asc or desc"), ("/api/processes?life=dead",
                                                           "life=dead: one or more of started"),
    ("/api/slow?life=running", "life=running: one or more of active"), ("/api/slow?limit=1.5",
                                                                        "limit=1.5: a whole number"),
    ("/api/workers?sort=pid", "unknown parameter 'sort'"), ("/api/gc?window=1h", "window=1h: one of now"),
    ("/api/processes?window=1m,10m", "window=1m,10m: one of now"), ("/api/series?window=", "window=: one of now"),
    ("/api/histogram?window=x", "window=x: one of now"), ("/api/slow?sort=a%0Ab", "sort=a\\nb: one of state")])
def test_what_is_refused_says_what_there_is(path, said):
    status, found = error(Asked(a_fleet()), path)
    assert status == 400 and found.startswith(said)


def test_lives_and_parts_that_are_asked_for_are_those_of_the_tables():
    asked = Asked(a_fleet())
    assert asked.get("/api/processes?life=" + ",".join(LIVES))["processes"] == []
    assert asked.get("/api/slow?life=" + ",".join(SLOW_LIVES))["slow_requests"] == []
