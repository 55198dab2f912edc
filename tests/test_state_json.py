"""/api/state and its neighbours without sockets: the existing collector's shape, strict, streamed, cut when asked."""
import json
import tracemalloc
import zlib

import pytest

from builders import NAMES, WALL, Worker, a_fleet, a_sender, capture, datagrams, fold, replayed
from modwsgi_tel.state import view
from modwsgi_tel.web.guard import Guard
from modwsgi_tel.web.protocol import Parser, pieces
from modwsgi_tel.web.routes import ROUTES, Site
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.shapes import finite


def strict(data):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")
    return json.loads(data, parse_constant=refuse)


class Asked:
    """A Site about a fleet, asked by requests as they come over a connection; the clock stands at `now`."""

    def __init__(self, fleet, now=0.0, wall=None, health=()):
        self.fleet, self.now = fleet, now
        self.site = Site(fleet, Guard({"localhost"}), lambda: (self.now, WALL + self.now if wall is None else wall),
                         lambda: {"version": "x"}, lambda: list(health))

    def response(self, path, method="GET", *headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        [request] = Parser().feed("\r\n".join(lines).encode() + b"\r\n\r\n")
        return request, self.site.answer(request)

    def body(self, path, method="GET", *headers):
        """(status, bytes of the body)."""
        request, response = self.response(path, method, *headers)
        return response.status, response.body if isinstance(response.body, bytes) else b"".join(response.body)

    def get(self, path, method="GET"):
        status, body = self.body(path, method)
        assert status == 200, body
        return strict(body)


def at_the_end(name, **limits):
    return Asked(replayed(name, a_fleet(**limits)), capture(name)[-1][0] - capture(name)[0][0], capture(name)[-1][0])


# --- shape -------------------------------------------------------------------------------

PROCESS = {"pid", "hostname", "process_group", "mod_wsgi_version", "python_version", "apache_version", "mpm_name",
           "process_parent_pid", "last_seq", "drops", "samples", "gc_snapshots", "gc_events"}
ENTRY = {"pid", "thread_id", "server_pid", "log_id", "method", "scheme", "hostname", "script_name", "path_info", "peer_ip",
         "protocol", "user_agent", "start_stamp", "duration", "state", "input_bytes", "input_reads", "output_bytes", "output_writes",
         "cpu_user_time", "cpu_system_time", "server_time", "queue_time", "daemon_time", "application_time", "gil_wait_time",
         "gil_wait_count", "input_read_time", "output_write_time", "active_at_start", "active_at_completion", "status"}
EVENT = {"kind", "pid", "stamp", "hostname", "process_group", "process_parent_pid", "shutdown_reason", "process_uptime",
         "lifetime_request_count", "active_requests_at_decision", "active_requests_at_exit", "graceful_drain"}


@pytest.mark.parametrize("name", NAMES)
def test_the_state_has_the_existing_collectors_shape(name):
    found = at_the_end(name).get("/api/state")
    assert {"type", "total_received", "decode_errors", "processes", "slow_requests", "lifecycle_events"} <= set(found)
    assert (found["type"], found["total_received"], found["decode_errors"]) == ("snapshot", len(capture(name)), 0)
    for process in found["processes"]:
        assert PROCESS <= set(process)
        for sample in process["samples"]:
            assert {"type", "kind", "pid", "seq", "stamp", "fields"} <= set(sample)
            assert (sample["type"], sample["kind"], sample["pid"]) == ("sample", "request_metrics", process["pid"])
        for snapshots in process["gc_snapshots"].values():
            assert all({"stamp", "fields"} <= set(snapshot) for snapshot in snapshots)
        assert all({"stamp", "interpreter", "fields"} <= set(event) for event in process["gc_events"])
    for slow in found["slow_requests"]:
        assert set(slow) == {"key", "entry"} and ENTRY <= set(slow["entry"])
    assert all(EVENT <= set(event) for event in found["lifecycle_events"])


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_what_was_sent(name):
    found, truth = at_the_end(name).get("/api/state"), {}
    for wall, pid, datagram in capture(name):
        sample = decode(datagram)
        held = truth.setdefault(pid, {"samples": [], "gc_snapshots": {}, "gc_events": [], "last_seq": 0})
        held["last_seq"] = sample.seq
        interpreter = sample.fields.get("interpreter_name", "")
        if sample.kind == 2:
            held["samples"].append({"type": "sample", "kind": "request_metrics", "pid": pid, "seq": sample.seq,
                                    "stamp": sample.stamp, "received": wall, "fields": finite(sample.fields)})
        elif sample.kind == 8:
            held["gc_snapshots"].setdefault(interpreter, []).append(
                {"stamp": sample.stamp, "received": wall, "fields": finite(sample.fields)})
        elif sample.kind == 9:
            held["gc_events"].append({"stamp": sample.stamp, "received": wall, "interpreter": interpreter,
                                      "fields": finite(sample.fields)})
    assert {process["pid"] for process in found["processes"]} == set(truth)
    for process in found["processes"]:
        wanted = truth[process["pid"]]
        for key in ("samples", "gc_snapshots", "last_seq"):
            assert process[key] == wanted[key]
        for event in (*process["gc_events"], *wanted["gc_events"]):
            event.pop("interpreter")
        assert sorted(process["gc_events"], key=json.dumps) == sorted(wanted["gc_events"], key=json.dumps)
        assert [event["received"] for event in process["gc_events"]] == sorted(event["received"] for event in process["gc_events"])
        assert process["drops"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_each_collection_is_shown_with_its_interpreter(name):
    wanted = {}
    for _, pid, datagram in capture(name):
        if datagram[5] == 9:
            fields = decode(datagram).fields
            wanted.setdefault(pid, []).append((fields["gc_event_start_stamp"], fields.get("interpreter_name", "")))
    for process in at_the_end(name).get("/api/state")["processes"]:
        assert sorted((event["fields"]["gc_event_start_stamp"], event["interpreter"]) for event in process["gc_events"]) == sorted(
            wanted.get(process["pid"], []))


def test_a_slow_request_is_shown_by_the_existing_names():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.slow("Zx1", done=True, slow_user_agent="curl", slow_input_bytes=7, slow_queue_time=0.5), now=1.0)
    fold(fleet, worker.slow("", thread=4, start=2.5), now=2.0)
    first, second = Asked(fleet, 3.0).get("/api/state")["slow_requests"]
    assert first["key"] == [7, "Zx1"] and second["key"] == [7, 4, 2.5]
    assert {key: first["entry"][key] for key in ("pid", "thread_id", "server_pid", "log_id", "method", "path_info", "user_agent",
                                                "script_name", "input_bytes", "queue_time", "state", "status", "duration")} == {
        "pid": 7, "thread_id": 1, "server_pid": 900, "log_id": "Zx1", "method": "GET", "path_info": "/slow", "user_agent": "curl",
        "script_name": "", "input_bytes": 7, "queue_time": 0.5, "state": 1, "status": 200, "duration": 3.0}
    assert (second["entry"]["state"], second["entry"]["life"], second["entry"]["unheard"]) == (0, "active", 1.0)


# --- what is wanted of it ------------------------------------------------------------------

@pytest.mark.parametrize("wanted", [0, 1, 2, 3, 10, 600, 601, 1000])
@pytest.mark.parametrize("plain_bytes", [0, 6 << 20])
def test_samples_gives_exactly_so_many(wanted, plain_bytes):
    fleet, worker = a_fleet(plain_bytes=plain_bytes), Worker()
    for now in range(700):
        fold(fleet, worker.tick(now % 3), worker.gc_snapshot(), worker.gc_snapshot("sub"), now=float(now))
    [process] = Asked(fleet, 700.0).get(f"/api/state?samples={wanted}")["processes"]
    most = min(wanted, 600)
    assert [sample["seq"] for sample in process["samples"]] == [1 + 3 * now for now in range(700)][700 - most:]
    for snapshots in process["gc_snapshots"].values():
        assert [snapshot["received"] for snapshot in snapshots] == [WALL + now for now in range(700)][700 - most:]


def test_without_samples_it_is_what_the_limit_keeps():
    fleet, worker = a_fleet(samples=20), Worker()
    for now in range(100):
        fold(fleet, worker.tick(1), now=float(now))
    [process] = Asked(fleet, 100.0).get("/api/state")["processes"]
    assert [sample["seq"] for sample in process["samples"]] == list(range(81, 101))


@pytest.mark.parametrize("since, first", [(0.0, 0), (WALL + 49.5, 50), (WALL + 50.0, 51), (WALL + 99.0, 100), (WALL + 1e6, 100)])
def test_since_gives_what_was_received_later(since, first):
    fleet, worker = a_fleet(plain_bytes=0), Worker()
    for now in range(100):
        fold(fleet, worker.tick(1), worker.gc_event(), worker.slow(f"s{now}", done=True), now=float(now))
    found = Asked(fleet, 100.0).get(f"/api/state?since={since!r}")
    wanted = [WALL + now for now in range(first, 100)]
    assert len(found["processes"]) == (first < 100)             # not heard since: left out
    for process in found["processes"]:
        assert [sample["received"] for sample in process["samples"]] == wanted
        assert [event["received"] for event in process["gc_events"]] == wanted
    assert [slow["entry"]["received"] for slow in found["slow_requests"]] == wanted


def test_group_and_pid_select():
    fleet = a_fleet()
    for pid, group in ((7, "a b"), (8, "a b"), (9, "other")):
        worker = Worker(pid=pid, group=group)
        fold(fleet, worker.started(), worker.tick(1), worker.slow("x", done=True), sender=a_sender(pid + 100))
    asked = Asked(fleet)

    def pids(query):
        found = asked.get("/api/state" + query)
        return ([process["pid"] for process in found["processes"]], [slow["entry"]["pid"] for slow in found["slow_requests"]],
                [event["pid"] for event in found["lifecycle_events"]])

    assert pids("") == ([7, 8, 9],) * 3
    assert pids("?group=a%20b") == ([7, 8],) * 3
    assert pids("?pid=9") == ([9],) * 3
    assert pids("?pid=108") == ([8],) * 3                   # the sender's pid
    assert pids("?group=other&pid=7") == ([],) * 3


@pytest.mark.parametrize("query", ["samples=x", "samples=-1", "pid=1.5", "since=nan", "since=inf", "since=x", "samples=" + "9" * 13,
                                   "unknown=1", "pid=%E2%91%A0"])
def test_a_query_that_means_nothing_is_400(query):
    status, body = Asked(a_fleet()).body("/api/state?" + query)
    assert status == 400 and set(strict(body)) == {"error", "status"}


# --- strictness --------------------------------------------------------------------------

def test_hostile_text_is_strict_json_and_utf_8():
    fleet, worker = a_fleet(), Worker(hostname=b"\xff\xed\xa0\x80\x00\x1b", group=b"g\xc3\x28</script>\xe2\x80\xa8")
    fold(fleet, worker.started(), worker.tick(1, request_throughput=float("nan"), request_threads_busy_time=[float("inf")]),
         worker.slow(b"\xff", slow_path_info=b"\x00\x7f\xff\xfe", slow_duration=float("-inf")),
         worker.stopping(b"\xf0\x28"), worker.datagram(2, stamp=float("nan")), worker.gc_event(duration=float("nan")))
    asked = Asked(fleet)
    for route in ROUTES:
        if route.method == "GET" and route.path.startswith("/api/"):
            [process] = fleet.processes()
            status, body = asked.body(route.path.replace("PID", "7") + (
                f"?process={process.id}" if "process" in route.parameters else ""))
            assert status == 200
            strict(body.decode("utf-8"))
    [process] = asked.get("/api/state")["processes"]
    assert process["hostname"] == "\ufffd\ufffd\ufffd\ufffd\x00\x1b" and process["samples"][1]["stamp"] is None


def test_interpreters_that_look_the_same_stay_two():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), *(worker.gc_snapshot(name, gc_count0=number) for number, name in enumerate(
        (None, b"a\xff", b"a\xfe", "caf\u00e9|/x", "\x1b[31m"))))
    body = Asked(fleet).body("/api/state")[1].decode("utf-8")
    pairs = []
    json.loads(body, object_pairs_hook=lambda found: pairs.append(found) or dict(found))
    [snapshots] = [dict(found)["gc_snapshots"] for found in pairs if "gc_snapshots" in dict(found)]
    assert {name: held[0]["fields"]["gc_count0"] for name, held in snapshots.items()} == {
        "": 0, "a\ufffd": 1, "a\ufffd\ufffd": 2, "caf\u00e9|/x": 3, "\x1b[31m": 4}
    assert all(len(found) == len(dict(found)) for found in pairs)           # no key twice


def test_details_of_interpreters_that_look_the_same_stay_two():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.gc_snapshot(b"a\xff", gc_count0=1), worker.gc_snapshot(b"a\xfe", gc_count0=2))
    [process] = Asked(fleet).get("/api/processes/7")["processes"]
    assert sorted(held["gc_count0"] for held in process["gc"].values()) == [1, 2]


# --- streaming ---------------------------------------------------------------------------

def large(processes=12, ticks=300):
    fleet = a_fleet(plain_bytes=0)
    team = [Worker(pid=100 + number) for number in range(processes)]
    for now in range(ticks):
        for worker in team:
            fold(fleet, worker.tick(3), worker.gc_snapshot(), worker.gc_event(), now=float(now))
    return fleet


def test_memory_does_not_grow_with_the_answer():
    asked, sizes = Asked(large(), 300.0), []
    _, response = asked.response("/api/state")
    for piece in response.body:                             # once to warm what is remembered
        pass
    tracemalloc.start()
    try:
        _, response = asked.response("/api/state")
        for piece in response.body:
            sizes.append(len(piece))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 10 << 20 and max(sizes) < 100_000
    assert peak < 1 << 20


def test_what_arrives_after_the_cut_is_left_out():
    fleet = large(3, 60)
    before = strict(Asked(fleet, 60.0).body("/api/state")[1])
    _, response = Asked(fleet, 60.0).response("/api/state")
    out, late = [next(response.body)], Worker(pid=101, seq=180)
    for piece in response.body:
        fold(fleet, late.tick(1), late.gc_snapshot(), late.started(), late.slow(f"s{late.seq}"), now=61.0)
        fold(fleet, Worker(pid=900 + late.seq).tick(1), now=61.0)
        out.append(piece)
    after = strict(b"".join(out))
    for found in (before, after):               # a process's own line is as it is when its turn comes
        for process in found["processes"]:
            assert process.pop("last_seq") >= 180
    assert after == before and late.seq > 250


def test_what_is_dropped_while_it_is_read_is_skipped():
    fleet = large(4, 120)
    _, response = Asked(fleet, 120.0).response("/api/state")
    out = [next(response.body)]
    for process in fleet.processes()[2:]:
        for chain in (process.chain, *(item.chain for item in process.interpreters.values())):
            chain.drop_oldest(WALL, 120.0)
    fleet._processes.pop(fleet.processes()[-1].id).discard()
    fleet.slow.clear(1e9)
    found = strict(b"".join(out + list(response.body)))
    lengths = [len(process["samples"]) for process in found["processes"]]
    assert lengths[:2] == [120, 120] and 0 < lengths[2] < 120 and lengths[3] == 0
    assert fleet.processes()[2].chain.position().counted == 120


def test_a_reader_pins_nothing():
    tracemalloc.start()
    try:
        fleet = large(6, 200)
        _, response = Asked(fleet, 200.0).response("/api/state")
        next(response.body)
        kept, before = fleet.budget.held, tracemalloc.get_traced_memory()[0]
        for process in fleet.processes():
            process.discard()
        assert fleet.budget.held == 0
        freed = before - tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert freed > kept - 50_000 and kept > 100_000


def test_over_the_wire_it_is_chunked_and_packed_when_asked():
    asked = at_the_end("smoke")
    request, response = asked.response("/api/state", "GET", "Accept-Encoding: gzip")
    sent = b"".join(pieces(request, response))
    head, _, rest = sent.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head and b"Content-Encoding: gzip" in head
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[:int(size, 16)], rest[int(size, 16) + 2:]
    found = strict(zlib.decompress(body, 31))
    plain = asked.get("/api/state")
    assert found == plain and found["total_received"] == 44


# --- the neighbours ------------------------------------------------------------------------

def test_the_summary_over_http_is_the_summary():
    for name in NAMES:
        asked = at_the_end(name)
        found = asked.get("/api/summary")
        assert isinstance(found.pop("findings"), list) and isinstance(found.pop("verdict"), str)
        assert found == json.loads(json.dumps(view.summary(
            asked.fleet, asked.now, capture(name)[-1][0], {"version": "x"})))


def test_the_processes_are_the_rows_of_the_summary_with_their_losses():
    asked = at_the_end("subinterp")
    rows = asked.get("/api/processes")["processes"]
    assert all(row.pop("sources")["reporter"]["lost"] == 0 for row in rows)
    assert rows == asked.get("/api/summary")["processes"]
    assert [row["pid"] for row in asked.get("/api/processes?pid=10167")["processes"]] == [10167]


def test_one_process_has_its_newest_tick_its_slow_requests_and_its_events():
    asked = at_the_end("daemon_mixed")
    found = asked.get("/api/processes/8906")
    [process] = found["processes"]
    newest = [decode(datagram) for datagram in datagrams("daemon_mixed") if decode(datagram).pid == 8906 and datagram[5] == 2][-1]
    assert process["newest"]["fields"] == finite(newest.fields) and process["newest"]["age_s"] >= 0
    assert {slow["entry"]["pid"] for slow in found["slow_requests"]} == {8906}
    assert [event["kind"] for event in found["lifecycle_events"]] == ["process_started", "process_stopping", "process_stopped"]
    assert set(process["gc"]) == {""}


@pytest.mark.parametrize("rest", ["1", "x", "-1", "", "8906x", "%D9%A1"])
def test_a_process_that_is_none_is_404(rest):
    assert at_the_end("daemon_mixed").body("/api/processes/" + rest)[0] == 404


def test_a_pid_of_thousands_of_digits_is_404():
    assert at_the_end("smoke").body("/api/processes/" + "9" * 5000)[0] == 404


def test_slow_requests_by_life_and_cleared():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.slow("runs"), worker.slow("done", done=True), now=1.0)
    asked = Asked(fleet, 2.0)

    def ids(query=""):
        return [slow["entry"]["log_id"] for slow in asked.get("/api/slow" + query)["slow_requests"]]

    assert (ids(), ids("?life=active"), ids("?life=completed,lost"), ids("?pid=9")) == (["runs", "done"], ["runs"], ["done"], [])
    assert asked.body("/api/slow?life=dead")[0] == 400
    assert asked.body("/api/slow/clear", "POST") == (200, b'{"ok": true, "dropped": 1}\n') and ids() == ["runs"]
    assert asked.body("/api/slow/clear")[0] == 405


def test_the_histogram_over_http():
    asked = at_the_end("smoke")
    found = asked.get("/api/histogram?phase=request&window=10m")
    assert (len(found["counts"]), len(found["upper_bounds"]), found["upper_bounds"][-1], found["requests"]) == (65, 65, None, 4)
    assert asked.get("/api/histogram?phase=gil_wait")["coefficient"] is None
    assert [asked.body("/api/histogram?" + query)[0] for query in ("phase=x", "window=2m", "group=nobody")] == [400, 400, 404]


def test_the_event_log_over_http():
    asked = at_the_end("lifecycle")
    events = asked.get("/api/lifecycle")["lifecycle_events"]
    assert len(events) == sum(datagram[5] in (5, 6, 7) for datagram in datagrams("lifecycle"))
    assert events == asked.get("/api/state")["lifecycle_events"]
    assert [event["kind"] for event in asked.get("/api/lifecycle?pid=9443")["lifecycle_events"]] == ["process_started"]


def test_health_index_and_version():
    assert Asked(a_fleet()).get("/healthz") == {"status": "ok", "wrong": [], "received": 0}
    status, body = Asked(a_fleet(), health=["the disk is full"]).body("/healthz")
    assert (status, strict(body)["wrong"]) == (503, ["the disk is full"])
    index = Asked(a_fleet()).body("/")[1].decode()
    assert all(route.path in index for route in ROUTES)
    for path, wanted in (("/", b"<main"), ("/api", b"<table>")):
        assert wanted in Asked(a_fleet()).body(path, "GET", "Accept: text/html")[1]
    assert Asked(a_fleet()).get("/version")["summary_version"] == 1
    assert Asked(a_fleet()).body("/nothing")[0] == 404
