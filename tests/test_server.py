"""HTTP as clients see it: over real sockets, from a running collector."""
import contextlib
import gzip
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
import threading
import time

import pytest

from modwsgi_tel.net.loop import Loop
from modwsgi_tel.web.protocol import Limits, Response
from modwsgi_tel.web.server import Server, Timeouts
from modwsgi_tel.wire import blocks
from modwsgi_tel.wire.codec import encode, named
from modwsgi_tel.wire.fields import PROCESS_STARTED, REQUEST_METRICS
from running import Collector, ROOT, short_folder, wait_until

CAPTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "captures")
DEADLINE_S = 20.0
# path -> parameters that it knows
TABLE = ("sort", "order", "offset", "limit", "search", "life")
ROUTES = {"/": (), "/api": (), "/api/summary": ("window", "parts"), "/api/state": ("group", "pid", "since", "samples"),
          "/api/processes": ("group", "pid", "since", *TABLE, "window", "tree", "stacktraces", "flat", "no_system"),
          "/api/workers": ("group", "pid", "offset", "limit"),
          "/api/slow": ("group", "pid", "since", *TABLE, "id", "pivots", "pivots_sort"),
          "/api/exceptions": ("group", "pid", "since", "sort", "order", "offset", "limit", "search", "id"),
          "/api/stacks": ("group", "pid", "id", "offset", "limit"), "/api/gc": ("group", "pid", "offset", "limit", "window"),
          "/api/series": ("window", "group", "process", "since"), "/api/lifecycle": ("group", "pid", "since", "limit"),
          "/api/histogram": ("phase", "group", "window"), "/metrics": (), "/healthz": (), "/version": ()}
STREAMED = ("/api/summary", "/api/state", "/api/processes", "/api/slow", "/api/lifecycle")


def capture(name):
    """The datagrams of a capture."""
    with open(os.path.join(CAPTURES, f"{name}.cap.gz"), "rb") as handle:
        return [datagram for _, _, datagram in blocks.read(handle, name)]


@pytest.fixture(scope="module")
def full():
    """A collector that knows the processes of a capture."""
    with Collector() as collector:
        datagrams = capture("daemon_mixed")
        collector.send(*datagrams)
        collector.wait_for("/api/state?samples=0", lambda state: state["total_received"] == len(datagrams))
        yield collector


class Client:
    """One connection, by hand: what is sent and read is exactly what the test says."""

    def __init__(self, where, timeout=DEADLINE_S):
        """where: a Collector (by TCP), or the path of a unix socket."""
        if isinstance(where, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(timeout)
            self.socket.connect(where)
        else:
            self.socket = socket.create_connection(("127.0.0.1", where.port), timeout)
        self._file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self):
        """Close so that the other side gets a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.__exit__()

    def get(self, path, **headers):
        return self.send(get(path, **headers)).answer()

    def answer(self, bodiless=False):
        """(status, headers with lower-case names, body) of the next one; None at the end of the connection."""
        line = self._file.readline()
        if not line:
            return None
        version, status, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1" and line.endswith(b"\r\n"), line
        headers = {}
        for line in iter(self._file.readline, b"\r\n"):
            assert line.endswith(b"\r\n"), line
            name, _, value = line.decode("latin-1").rstrip("\r\n").partition(": ")
            headers[name.lower()] = value
        if bodiless or int(status) in (100, 204, 304):
            body = b""
        elif "content-length" in headers:
            body = self._file.read(int(headers["content-length"]))
            assert len(body) == int(headers["content-length"])
        elif headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size = int(self._file.readline(), 16)   # ValueError: cut in the middle
                body += self._file.read(size)
                assert self._file.read(2) == b"\r\n"
                if not size:
                    break
        else:
            body = self._file.read()
        return int(status), headers, body

    def rest(self):
        """All bytes to the end of the connection."""
        return self._file.read()


def get(path, method="GET", version="1.1", **headers):
    """A request as bytes."""
    headers.setdefault("Host", "127.0.0.1")
    lines = [f"{method} {path} HTTP/{version}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def own(collector):
    """What the collector says of itself."""
    return collector.json("/api/summary")["collector"]


def a_process(pid=77, seq=1, group="shop", **values):
    return encode(REQUEST_METRICS, pid, seq, time.time(), named(hostname="web1", process_group=group, sample_period=1.0,
                                                                **values))


def patched(patch):
    """A program that runs serve with something in it changed."""
    return [sys.executable, "-c", f"import sys\nsys.path.insert(0, {ROOT!r})\n{patch}\n"
            "from modwsgi_tel.cli import main\nsys.exit(main())"]


# --- connections --------------------------------------------------------------------------------

def test_a_connection_is_kept_for_further_requests(full):
    before = own(full)["http"]["accepted"]
    with Client(full) as client:
        answers = [client.get("/version") for _ in range(3)]
        assert [(status, json.loads(body)["name"], headers["connection"]) for status, headers, body in answers] == [
            (200, "modwsgi-tel", "keep-alive")] * 3
    assert own(full)["http"]["accepted"] == before + 2          # this one, and the second question


def test_requests_sent_ahead_are_answered_in_their_order(full):
    paths = ["/version", "/healthz", "/nope", "/api/state?samples=1", "/api/histogram?phase=none", "/api/slow", "/version"]
    with Client(full) as client:
        client.send(b"".join(get(path) for path in paths * 10))
        answers = [client.answer() for _ in paths * 10]
    assert [status for status, _, _ in answers] == [200, 200, 404, 200, 400, 200, 200] * 10
    assert [sorted(json.loads(body))[0] for _, _, body in answers] == [
        "name", "received", "error", "collector", "error", "evicted", "name"] * 10


@pytest.mark.parametrize("path", ROUTES)
def test_head_answers_the_head_of_get_and_nothing_else(full, path):
    with Client(full) as client:
        status, headers, body = client.get(path)
        client.send(get(path, "HEAD") + get("/version"))
        again = client.answer(bodiless=True)
        assert (status, again[0]) == (200, 200) and body
        for each in (headers, again[1]):
            each.pop("content-length", None)        # its figures have grown meanwhile
        assert again[1:] == (headers, b"")
        assert json.loads(client.answer()[2])["name"] == "modwsgi-tel"


@pytest.mark.parametrize("path", ["/version", "/api/state", "/api/summary"])
def test_http_1_0_gets_a_plain_body_and_the_end_of_the_connection(full, path):
    with Client(full) as client:
        status, headers, body = client.send(get(path, version="1.0", Host=None)).answer()
        assert (status, headers["connection"], "transfer-encoding" in headers, client.rest()) == (200, "close", False, b"")
        json.loads(body)


def test_a_client_that_has_closed_its_side_gets_its_answers_and_the_end(full):
    with Client(full) as client:
        client.send(get("/api/state") + get("/version")).half_close()
        assert [client.answer()[0], client.answer()[0], client.rest()] == [200, 200, b""]


def test_a_client_that_closes_in_the_middle_of_a_request_is_told(full):
    with Client(full) as client:
        status, _, body = client.send(b"GET /version HT").half_close().answer()
        assert (status, json.loads(body)["status"], client.rest()) == (400, 400, b"")


def test_a_request_byte_by_byte_is_a_request(full):
    with Client(full) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in get("/version"):
            client.send(bytes((byte,)))
        assert client.answer()[0] == 200


def test_who_asks_whether_to_send_a_body_is_told_to_go_on_first(full):
    with Client(full) as client:
        head = get("/api/slow/clear", "POST", Content_Length=5, Expect="100-continue")
        assert client.send(head).answer() == (100, {}, b"")
        status, _, body = client.send(b"hello").answer()
        assert (status, json.loads(body)["ok"]) == (200, True)
        assert client.get("/version")[0] == 200
        # sent behind another request the permission comes behind its answer
        client.send(get("/version") + head)
        assert [client.answer()[0], client.answer()[0]] == [200, 100]
        assert client.send(b"hello").answer()[0] == 200


@pytest.mark.parametrize("body, more", [(b"5\r\nhello\r\n0\r\n\r\n", {"Transfer_Encoding": "chunked"}),
                                        (b"hello", {"Content_Length": 5})])
def test_a_body_that_nobody_needs_is_read_and_the_connection_goes_on(full, body, more):
    with Client(full) as client:
        assert client.send(get("/api/slow/clear", "POST", **more) + body + get("/version")).answer()[0] == 200
        assert client.answer()[0] == 200


@pytest.mark.parametrize("path", STREAMED)
def test_a_packed_answer_is_the_plain_one(full, path):
    with Client(full) as client:
        _, plain, body = client.get(path)
        _, packed, zipped = client.get(path, Accept_Encoding="gzip")
    assert ("content-encoding" in plain, packed["content-encoding"], packed["vary"]) == (False, "gzip", "Accept-Encoding")
    assert len(zipped) < len(body) / 2 or len(body) < 2000
    one, two = (json.loads(text) for text in (body, gzip.decompress(zipped)))
    for answer in (one, two):           # what moves with time
        for name in ("time", "collector", "totals", "groups"):
            answer.pop(name, None)
        for row in answer.get("processes", []):
            for name in ("windows", "silent_s", "life", "life_since", "alive", "start_ticks", "namespace_pids"):
                row.pop(name, None)
        for row in answer.get("slow_requests", []):
            for name in ("life", "unheard", "age_s"):
                row["entry"].pop(name, None)
    assert one == two


# --- what goes wrong --------------------------------------------------------------------------

def error_of(answer):
    """The status of an error and that its JSON says the same, in one line."""
    status, headers, body = answer
    said = json.loads(body)
    assert headers["content-type"] == "application/json" and sorted(said) == ["error", "status"]
    assert said["status"] == status and said["error"] and said["error"].isprintable(), said
    return status


@pytest.mark.parametrize("request_, status", [
    (get("/nope"), 404), (get("/api/"), 404), (get("/api/state/"), 404), (get("//version"), 404),
    (get("/../etc/passwd"), 404), (get("/%2e%2e/etc/passwd"), 404), (get("/api/processes/"), 404),
    (get("/api/processes/0"), 404), (get("/api/processes/any"), 404), (get("/api/processes/any?id=999999"), 404), (get("/api/processes/x"), 404), (get("/api/processes/PID"), 404),
    (get("/api/processes/" + "9" * 5000), 404), (get("/api/processes/%C2%B2"), 404), (get("/api/processes/-1"), 404),
    (get("/version", "POST", Content_Length=0), 405), (get("/api/slow/clear"), 405), (get("/version", "DELETE"), 405),
    (get("/version", "OPTIONS"), 405), (get("/api/processes/1", "POST", Content_Length=0), 405),
    (get("/api/state?pid=abc"), 400), (get("/api/state?pid=" + "9" * 5000), 400), (get("/api/state?samples=-1"), 400),
    (get("/api/state?since=nan"), 400), (get("/api/state?since=" + "9" * 5000), 400), (get("/api/slow?life=gone"), 400),
    (get("/api/histogram?phase=x"), 400), (get("/api/histogram?window=1h"), 400), (get("/api/histogram?group=none"), 404),
    (get("/%"), 400), (get("/a%0ab"), 400), (get("/version", Host="a b"), 400), (get("/version", Host=None), 400),
    (b"\x16\x03\x01\x02\x00\x01\x00", 400), (b"GET /\r\n\r\n", 400), (get("/" + "a" * 9000), 414),
    (get("/", X="a" * 17000), 431), (get("/version", version="2.0"), 505),
    (get("/api/slow/clear", "POST", Content_Length=70000), 413), (get("/api/slow/clear", "POST", Transfer_Encoding="gzip"), 501),
    (get("/version", Expect="a miracle"), 417), (get("/version", Host="evil.example"), 421),
    (get("/api/slow/clear", "POST", Content_Length=0, Origin="http://evil.example"), 403),
    (get("/api/slow/clear", "POST", Content_Length=0, Origin="null"), 403)], ids=lambda value: repr(value)[:60])
def test_what_cannot_be_answered_gets_its_status_and_a_json_body(full, request_, status):
    with Client(full) as client:
        assert error_of(client.send(request_).answer()) == status
    assert full.get("/version")[0] == 200


@pytest.mark.parametrize("path", ROUTES)
def test_a_parameter_that_is_not_known_is_named(full, path):
    with Client(full) as client:
        answer = client.get(path + "?nonsense=1")
        assert error_of(answer) == 400
        known = ", ".join(ROUTES[path]) or "none"
        assert json.loads(answer[2])["error"] == f"unknown parameter 'nonsense'; {path} knows: {known}"
        assert client.get("/version")[0] == 200         # the connection is fit for more


def test_an_error_does_not_end_the_requests_behind_it(full):
    with Client(full) as client:
        client.send(get("/nope") + get("/version", "PUT", Content_Length=3) + b"abc" + get("/version"))
        assert [client.answer()[0] for _ in range(3)] == [404, 405, 200]


def test_a_body_far_too_long_is_answered_and_the_answer_is_not_lost_to_a_reset(full):
    with Client(full) as client:
        client.send(get("/api/slow/clear", "POST", Content_Length=1 << 20))
        with contextlib.suppress(ConnectionError):
            client.send(b"x" * (1 << 20))
        assert client.answer()[0] == 413


def test_a_handler_that_fails_answers_500_and_the_collector_goes_on(serve):
    collector = serve(program=patched("from modwsgi_tel.web import routes\n"
                                      "def _ask(*args): raise RuntimeError('sp\u00f6iled \\x1b[31m')\n"
                                      "routes._ask = _ask"))
    with Client(collector) as client:
        assert error_of(client.get("/api/workers")) == 500
        assert client.get("/version")[0] == 200
    assert collector.json("/api/state")["collector"]["http"]["errors"] == 1
    said = [line for line in collector.said().splitlines() if " ERROR " in line]
    assert len(said) == 1 and "RuntimeError: sp\u00f6iled \\x1b[31m" in said[0]
    collector.send(a_process())
    collector.wait_for("/api/state", lambda state: state["total_received"] == 1)
    assert collector.stop() == 0


def test_an_answer_that_fails_in_the_middle_is_seen_to_be_cut(serve):
    collector = serve(program=patched("from modwsgi_tel.web import statejson\n"
                                      "def broken(*args):\n"
                                      "    yield ''\n"
                                      "    raise RuntimeError('spoiled')\n"
                                      "statejson._gc_events = broken"))
    collector.send(a_process())
    collector.wait_for("/api/summary", lambda summary: summary["collector"]["received"] == 1)
    for version in ("1.1", "1.0"):
        with Client(collector) as client:
            everything = client.send(get("/api/state", version=version)).rest()
        assert not everything.endswith((b"0\r\n\r\n", b"}\n")), everything[-100:]
    assert "RuntimeError: spoiled" in collector.said()
    assert collector.get("/version")[0] == 200 and collector.stop() == 0


# --- time -----------------------------------------------------------------------------------------

def test_a_request_that_takes_too_long_is_answered_408_and_closed(serve):
    collector = serve("--request-timeout", "0.3s")
    parts = (b"GET /version HT", get("/version")[:-2], get("/api/slow/clear", "POST", Content_Length=10) + b"abc")
    with contextlib.ExitStack() as stack:
        for client in [stack.enter_context(Client(collector)).send(part) for part in parts]:
            assert error_of(client.answer()) == 408
            assert client.rest() == b""


def test_a_kept_connection_without_a_request_is_closed_after_its_time(serve):
    collector = serve("--idle-timeout", "0.3s")
    with Client(collector) as fresh, Client(collector) as used:
        assert used.get("/version")[0] == 200
        assert (fresh.answer(), used.answer()) == (None, None)


def big_state(collector, processes=20, ticks=40):
    """Feed it until /api/state has MBs, more than all buffers of a unix socket; its size."""
    from modwsgi_tel import simulate
    for at, datagram in simulate.stream("steady", processes, 2, 1.0, ticks, "1", time.time()):
        collector.send(datagram)
    size = len(collector.get("/api/state", timeout=60.0)[2])
    assert size > 2e6, size
    return size


@pytest.fixture
def with_big_state(serve):
    """Starts a collector with a big state; it serves on the unix socket `http` too, where buffers are small."""
    def start(*options):
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(short_folder())
            folders.append(stack.pop_all())
        collector = serve("--http-socket", os.path.join(folder, "http"), *options)
        collector.http = os.path.join(folder, "http")
        collector.size = big_state(collector)
        return collector

    folders = []
    yield start
    for each in folders:
        each.close()


def hold(collector, count):
    """Clients that ask for the whole state and read none of it; each answer has begun."""
    clients = [Client(collector.http).send(get("/api/state")) for _ in range(count)]
    for client in clients:
        client.socket.recv(1, socket.MSG_PEEK)
    return clients


def rss(pid):
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/statm") as handle:
        return int(handle.read().split()[1]) * resource.getpagesize()


def test_readers_that_do_not_read_cost_a_bounded_memory_hold_nobody_up_and_are_ended(with_big_state):
    collector = with_big_state("--write-timeout", "2s")
    before = rss(collector.pid)
    holding = hold(collector, 30)
    assert collector.get("/version")[0] == 200
    received = own(collector)["received"]
    collector.send(*[a_process(seq=seq) for seq in range(1, 101)])
    collector.wait_for("/api/summary", lambda summary: summary["collector"]["received"] == received + 100)
    assert len(collector.get("/api/state", timeout=60.0)[2]) >= collector.size
    grown = rss(collector.pid) - before
    assert grown < 30 * (1 << 18), grown            # a quarter of a MB each at the most, not 30 answers of 2 MB
    collector.wait_for("/api/summary", lambda summary: summary["collector"]["http"]["connections"] == 1)
    for client in holding:
        with client, pytest.raises((ValueError, AssertionError, ConnectionError)):
            client.answer()                         # it was cut, and one can see that


# --- many of them -----------------------------------------------------------------------------------

def test_the_connection_idle_longest_makes_room_for_a_new_one(serve):
    collector = serve("--max-connections", "3")
    with contextlib.ExitStack() as stack:
        one, two, three = (stack.enter_context(Client(collector)) for _ in range(3))
        for client in (two, three, one):            # so "two" has been idle longest
            assert client.get("/version")[0] == 200
        four = stack.enter_context(Client(collector))
        assert four.get("/version")[0] == 200
        assert two.answer() is None
        assert [client.get("/version")[0] for client in (one, three, four)] == [200] * 3


def test_requests_that_come_all_at_once_are_all_answered_however_few_connections_there_may_be(serve):
    collector = serve("--max-connections", "2")
    for _ in range(10):
        os.kill(collector.pid, signal.SIGSTOP)      # so that all have arrived when it looks
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(collector)).send(get("/version")) for _ in range(8)]
            os.kill(collector.pid, signal.SIGCONT)
            assert [client.answer()[0] for client in clients] == [200] * 8


def test_when_all_are_at_work_a_new_one_waits_and_is_served_when_one_is_done(with_big_state):
    collector = with_big_state("--max-connections", "2", "--idle-timeout", "1h")
    first, second = hold(collector, 2)
    with first, second, Client(collector) as waiting:
        waiting.send(get("/version"))
        waiting.socket.settimeout(0.3)
        with pytest.raises(socket.timeout):
            waiting.socket.recv(1, socket.MSG_PEEK)
        waiting.socket.settimeout(DEADLINE_S)
        assert first.answer()[0] == 200             # done, and kept: it is idle now
        assert waiting.answer()[0] == 200
        assert second.answer()[0] == 200


def test_a_waiting_one_is_served_when_another_goes_away(with_big_state):
    collector = with_big_state("--max-connections", "1", "--write-timeout", "1h")
    busy, = hold(collector, 1)
    with Client(collector) as waiting:
        waiting.send(get("/version"))
        busy.__exit__()
        assert waiting.answer()[0] == 200


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this user may not have 4,096 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limited(descriptors):
    """How to start something that may have so many descriptors."""
    return dict(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)))


@pytest.mark.parametrize("options, descriptors", [((), 4096), (("--max-connections", "900"), 4096),
                                                  (("--max-connections", "900"), 40)],
                         ids=["by default", "as many as it takes", "few descriptors"])
def test_1100_idle_connections_do_not_keep_anyone_out(serve, many_descriptors, options, descriptors):
    collector = serve(*options, **limited(descriptors))
    clients = []
    try:
        for _ in range(1100):
            clients.append(socket.create_connection(("127.0.0.1", collector.port), DEADLINE_S))
        clients[-1].sendall(get("/version"))
        assert clients[-1].recv(100).startswith(b"HTTP/1.1 200 ")
        collector.send(a_process())
        found = collector.wait_for("/api/summary", lambda summary: summary["collector"]["received"] and summary)
        http = found["collector"]["http"]
        assert http["accepted"] >= 1100 and http["refused"] >= 200
        assert http["connections"] <= (256 if not options else 900)
    finally:
        for each in clients:
            each.close()
    collector.wait_for("/api/summary", lambda summary: summary["collector"]["http"]["connections"] == 1)
    assert collector.stop() == 0


def test_with_more_descriptors_than_select_takes_it_refuses_and_goes_on(serve, many_descriptors):
    """Descriptors that it inherits use up the low numbers."""
    kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(950)]
    try:
        collector = serve(pass_fds=kept, **limited(4096))
    finally:
        for each in kept:
            os.close(each)
    clients = [Client(collector) for _ in range(120)]

    def summary():
        return json.loads(clients[0].get("/api/summary")[2])["collector"]

    try:
        wait_until(lambda: summary()["http"]["refused"] > 0, DEADLINE_S, "none is refused")
        collector.send(a_process())
        wait_until(lambda: summary()["received"] == 1, DEADLINE_S, "it receives no more")
    finally:
        for each in clients:
            each.__exit__()


def test_resets_in_the_middle_of_everything_are_survived(full):
    for part in (b"", b"GET /ver", get("/version"), get("/api/state"), get("/api/state") * 20,
                 get("/api/slow/clear", "POST", Content_Length=100) + b"x" * 50):
        for read in (0, 1, 5000):
            client = Client(full).send(part)
            if read and part in (get("/api/state"), get("/api/state") * 20):
                client.socket.recv(read)
            client.reset()
    full.wait_for("/api/summary", lambda summary: summary["collector"]["http"]["connections"] == 1)
    assert full.get("/version")[0] == 200 and " ERROR " not in full.said()


# --- who comes first ----------------------------------------------------------------------------------

def test_between_any_two_pieces_of_any_answer_the_telemetry_socket_is_looked_at():
    happened = []

    def answer(request, guard):
        def body():
            for number in range(5):
                happened.append(f"{request.path} {number}")
                yield b"x" * 1000
        happened.append(f"{request.path} asked")
        return Response(200, body())

    loop = Loop()
    server = Server(loop, answer, limits=Limits(), timeouts=Timeouts())
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener, socket.socketpair()[0] as telemetry:
        listener.bind(os.path.join(folder, "h"))
        listener.listen(10)
        listener.setblocking(False)
        server.listen(listener, None)
        loop.set_first(telemetry.fileno(), lambda: happened.append("look"))
        clients = [Client(os.path.join(folder, "h")).send(get("/one") + get("/two")) for _ in range(3)]
        loop.every(0.001, lambda: server.requests == 6 and all(each.waits for each in server.connections) and loop.stop())
        loop.after(DEADLINE_S, loop.stop)
        loop.run()
        for client in clients:
            assert [len(client.answer()[2]), len(client.answer()[2])] == [5000, 5000]
            client.__exit__()
        server.close()
    work = [what for what in happened if what != "look"]
    assert len(work) == 6 * 6
    # a question and the first piece of its answer may be one step, nothing else is
    for before, after in zip(happened, happened[1:]):
        assert "look" in (before, after) or before.endswith("asked") and after.endswith("0"), (before, after)


def test_a_connection_that_has_been_answered_makes_room_at_once():
    """Not only when the clock ticks: here it does not."""
    loop = Loop()
    server = Server(loop, lambda request, guard: Response(200, b"ok"), connections=1)
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.join(folder, "h"))
        listener.listen(10)
        listener.setblocking(False)
        server.listen(listener, None)
        clients = [Client(os.path.join(folder, "h")).send(get("/")) for _ in range(5)]
        loop.every(0.001, lambda: server.requests == 5 and loop.stop())
        loop.after(DEADLINE_S, loop.stop)
        loop.run()
        for client in clients:
            assert client.answer()[0] == 200
            client.__exit__()
        server.close()


def test_what_is_sent_ahead_of_a_slow_reader_waits_in_the_kernel_and_is_answered_later(with_big_state):
    collector = with_big_state()
    with Client(collector.http) as client:
        ahead = get("/api/state") + get("/version") * 4000      # more than a connection may make a parser hold
        sending = threading.Thread(target=client.send, args=(ahead,))
        sending.start()
        client.socket.recv(1, socket.MSG_PEEK)
        assert len(collector.get("/api/state", timeout=60.0)[2]) >= collector.size - 1000     # it had many turns meanwhile
        assert {client.answer()[0] for _ in range(4001)} == {200}
        sending.join(DEADLINE_S)


def test_a_flood_of_datagrams_does_not_keep_http_waiting():
    served = []

    def answer(request, guard):
        served.append(request.path)
        return Response(200, b"ok")

    looks = [0]

    def first():
        looks[0] += 1
        if looks[0] > 1000:
            loop.stop()
        return True                     # there is always more

    loop = Loop()
    server = Server(loop, answer)
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener, socket.socketpair()[0] as telemetry:
        listener.bind(os.path.join(folder, "h"))
        listener.listen(10)
        listener.setblocking(False)
        server.listen(listener, None)
        loop.set_first(telemetry.fileno(), first)
        with Client(os.path.join(folder, "h")) as client:
            client.send(get("/one") + get("/two"))
            loop.run()
            assert [client.answer()[0], client.answer()[0], served] == [200, 200, ["/one", "/two"]]
        server.close()


# --- who may ask ----------------------------------------------------------------------------------------

def test_a_unix_socket_serves_the_same_with_its_mode_and_is_removed_at_the_end(serve):
    with short_folder() as folder:
        path = os.path.join(folder, "http.sock")
        collector = serve("--http-socket", path)
        status = os.lstat(path)
        assert stat.S_ISSOCK(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o660
        with Client(path) as client:
            for host in ("localhost", "whatever.example"):
                assert json.loads(client.get("/version", Host=host)[2])["name"] == "modwsgi-tel"
            assert client.get("/api/state")[0] == 200
        assert f"serves HTTP on unix:{path}" in collector.said()
        assert collector.stop() == 0 and not os.path.lexists(path)


def test_other_hosts_are_misdirected_unless_they_are_allowed(serve):
    collector = serve("--allow-host", "telemetry.example", "--allow-host", "10.1.2.3")
    for host, status in (("telemetry.example", 200), ("TELEMETRY.example:9999", 200), ("10.1.2.3", 200), ("localhost", 200),
                         ("[::1]:80", 200), ("evil.example", 421), ("10.1.2.4", 421), ("127.0.0.1.evil.example", 421)):
        with Client(collector) as client:
            assert client.get("/version", Host=host)[0] == status, host


def test_a_page_of_another_site_may_not_clear_and_gets_no_leave_to_read(full):
    own_origin = f"http://127.0.0.1:{full.port}"
    for origin, status in ((own_origin, 200), ("http://evil.example", 403), ("null", 403), (None, 200),
                           (f"http://127.0.0.1:{full.port + 1}", 403)):
        headers = {"Host": f"127.0.0.1:{full.port}", **({"Origin": origin} if origin else {})}
        assert full.post("/api/slow/clear", headers)[0] == status, origin
    status, headers, _ = full.get("/api/summary", {"Origin": "http://evil.example"})
    assert status == 200 and not [name for name in headers if name.startswith("access-control")]


@pytest.fixture
def guarded(serve, tmp_path):
    """A collector that asks for a token, with something in it to hide."""
    (tmp_path / "token").write_text("s3cret-token\n")
    collector = serve("--token-file", str(tmp_path / "token"))
    collector.send(a_process(group="hidden-group"))
    bearer = {"Authorization": "Bearer s3cret-token"}
    wait_until(lambda: b"hidden-group" in collector.get("/api/summary", bearer)[2], DEADLINE_S, "it does not arrive")
    return collector


def test_without_the_token_every_path_says_nothing_but_that(guarded):
    wanted = (*ROUTES, "/api/processes/77", "/nope", "/static/x", "/api/state?group=hidden-group", "/login/", "/LOGIN")
    for path in wanted:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}, {"Cookie": "modwsgi_tel=x"},
                        {"Authorization": "Basic czNjcmV0LXRva2Vu"}, {"Accept": "text/html"}):
            status, answered, body = guarded.get(path, headers)
            assert status == 401 and answered["www-authenticate"] == 'Bearer realm="modwsgi-tel"', (path, headers)
            assert b"hidden" not in body and b"s3cret" not in body
    assert guarded.post("/api/slow/clear")[0] == 401
    assert guarded.request("HEAD", "/api/state")[0] == 401


def test_with_the_token_every_path_answers(guarded):
    for path in (*ROUTES, "/api/processes/77"):
        assert guarded.get(path, {"Authorization": "Bearer s3cret-token"})[0] == 200, path
    found = json.loads(guarded.get("/api/summary", {"Authorization": "Bearer s3cret-token"})[2])
    assert found["collector"]["http"]["wrong_tokens"] == 0
    guarded.get("/version", {"Authorization": "Bearer wrong"})
    found = json.loads(guarded.get("/api/summary", {"Authorization": "Bearer s3cret-token"})[2])
    assert found["collector"]["http"]["wrong_tokens"] == 1


def test_a_browser_gives_the_token_once_and_gets_a_cookie(guarded):
    status, headers, body = guarded.get("/", {"Accept": "text/html"})
    assert (status, headers["content-type"], b'type="password"' in body) == (401, "text/html; charset=utf-8", True)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert guarded.get("/login", {"Accept": "text/html"})[0] == 200
    assert guarded.post("/login", form, b"token=wrong")[0] == 401
    status, headers, _ = guarded.post("/login", form, b"token=s3cret-token")
    assert (status, headers["location"]) == (303, "/")
    cookie, *rules = headers["set-cookie"].split("; ")
    assert "s3cret" not in cookie and {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(rules)
    for path in ROUTES:
        assert guarded.get(path, {"Cookie": cookie})[0] == 200, path


def test_the_unix_socket_asks_for_the_token_too(serve, tmp_path):
    (tmp_path / "token").write_text("s3cret-token\n")
    with short_folder() as folder:
        path = os.path.join(folder, "h")
        serve("--token-file", str(tmp_path / "token"), "--http-socket", path)
        with Client(path) as client:
            assert client.get("/version")[0] == 401
            assert client.get("/version", Authorization="Bearer s3cret-token")[0] == 200


# --- behind a proxy ---------------------------------------------------------------------------------------

def links(collector, path, **headers):
    """What the page at a path links to."""
    status, _, body = collector.get(path, {"Accept": "text/html", **{name.replace("_", "-"): value
                                                                       for name, value in headers.items()}})
    assert status == 200
    return [part.split('"')[0] for part in body.decode().split('href="')[1:]]


def test_a_root_path_is_served_with_and_without_it(serve):
    collector = serve("--root-path", "/telemetry")
    assert f"http://127.0.0.1:{collector.port}/telemetry/" in collector.said()
    for prefix in ("", "/telemetry"):
        for path in ROUTES:
            assert collector.get(prefix + path)[0] == 200, prefix + path
        assert collector.post(prefix + "/api/slow/clear")[0] == 200
    assert collector.get("/telemetry")[0] == 200
    for path in ("/telemetryversion", "/telemetry/telemetry/version", "/other/version"):
        assert collector.get(path)[0] == 404, path
    wanted = ["/telemetry" + path for path in ROUTES]
    assert links(collector, "/api") == links(collector, "/telemetry/api") == wanted
    assert links(collector, "/api", X_Forwarded_Prefix="/other") == wanted


def test_a_forwarded_prefix_is_in_the_links_when_it_is_a_plain_path(full):
    assert links(full, "/api") == list(ROUTES)
    assert links(full, "/api", X_Forwarded_Prefix="/a/b") == ["/a/b" + path for path in ROUTES]
    for wrong in ('"><script>', "//evil.example", "javascript:x", "/a/../b", "/a b"):
        assert links(full, "/api", X_Forwarded_Prefix=wrong) == list(ROUTES)
    text = full.get("/", {"X-Forwarded-Prefix": "/a"})[2].decode()
    assert "GET  /a/version\n" in text and "POST /a/api/slow/clear\n" in text


def test_the_list_of_paths_names_all_for_curl_and_for_a_browser(full):
    status, headers, body = full.get("/")
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    for path in ROUTES:
        assert f"GET  {path}" in body.decode()
    for path in ("/", "/api"):
        status, headers, body = full.get(path, {"Accept": "text/html,*/*"})
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert headers["content-security-policy"].startswith("default-src 'none'")


# --- what it answers -----------------------------------------------------------------------------------------

def started(pid, group):
    return encode(PROCESS_STARTED, pid, 1, time.time(), named(hostname="web1", process_group=group))


def test_the_parameters_make_an_answer_small(serve):
    collector = serve()
    collector.send(started(1, "one"), started(2, "two"), *[a_process(1, seq, "one") for seq in (2, 3, 4)],
                   a_process(2, 2, "two"))
    collector.wait_for("/api/state", lambda state: state["total_received"] == 6)

    def pids(path, name="processes"):
        return [row["pid"] for row in collector.json(path)[name]]

    assert pids("/api/state") == pids("/api/processes") == [1, 2]
    assert pids("/api/state?group=two") == pids("/api/processes?group=two") == [2]
    assert pids("/api/state?pid=1") == pids("/api/processes?pid=1") == pids("/api/processes/1") == [1]
    assert pids("/api/lifecycle", "lifecycle_events") == [1, 2] and pids("/api/lifecycle?pid=2", "lifecycle_events") == [2]
    rows = collector.json("/api/state?samples=2&pid=1")["processes"]
    assert [sample["seq"] for sample in rows[0]["samples"]] == [3, 4]
    received = collector.json("/api/state?pid=1")["processes"][0]["samples"]
    rows = collector.json(f"/api/state?pid=1&since={received[1]['received']!r}")["processes"]
    assert [sample["seq"] for sample in rows[0]["samples"]] == [4]


def test_health_says_ok(full):
    assert full.json("/healthz") == {"status": "ok", "wrong": [], "received": len(capture("daemon_mixed"))}
