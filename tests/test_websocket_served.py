"""/ws as its readers see it: over real sockets, from a running collector, and by the existing collector's own console."""
import json
import os
import socket
import subprocess
import types
from collections import Counter

import pytest

from builders import NAMES, Worker, a_fleet, a_sender, capture
from modwsgi_tel import simulate
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.state.stream import ENTRY_BYTES, Stream
from modwsgi_tel.web.live import SNAPSHOT_BYTES, Live
from modwsgi_tel.web.server import Timeouts
from modwsgi_tel.web.statejson import Query
from modwsgi_tel.web.talk import PING_S, SILENT_S, Talk
from modwsgi_tel.web.websocket import BINARY, CLOSE, CONTINUED, PING, PONG, TEXT, frame
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.fields import REQUEST_METRICS
from modwsgi_tel.wire.shapes import TextMemo
from running import Collector, clean_environment, wait_until
from terminals import TMUX, Tmux
from test_peer import existing_program
from websockets import WebSocket, masked

DEADLINE_S = 30.0


def sent(name="daemon_mixed"):
    return [datagram for _, _, datagram in capture(name)]


@pytest.fixture(scope="module")
def collector():
    with Collector() as collector:
        yield collector


def last_of(datagrams):
    """Whether a message tells of the last request_metrics of these."""
    last = next(found for found in map(decode, reversed(datagrams)) if found.kind == REQUEST_METRICS)

    def found(message):
        return message["type"] == "sample" and (message["pid"], message["seq"]) == (last.pid, last.seq)

    return found


def samples_in(snapshot):
    return [row for process in snapshot["processes"] for row in process["samples"]]


def timeless(row):
    """A slow request without what grows with each look."""
    return {**row["entry"], "age_s": None, "unheard": None}


def test_a_reader_gets_the_state_and_then_each_record_once_as_the_state_has_it():
    datagrams = [*sent(), Worker(pid=99).tick(requests=1)]
    half = len(datagrams) // 2
    with Collector() as collector:
        collector.send(*datagrams[:half])
        with WebSocket(collector.port) as reader:
            collector.send(*datagrams[half:])           # while the snapshot is under way, or already read: nobody can tell
            snapshot = reader.message()
            messages = reader.messages(last_of(datagrams))
            state = collector.json("/api/state")
            assert set(state) == set(snapshot) and snapshot["type"] == "snapshot"
            # those of a process come in its order; what it had kept, and what came, is what it has now
            told = [row for row in samples_in(snapshot) + [each for each in messages if each["type"] == "sample"]]
            held = samples_in(state)
            assert sorted(told, key=lambda row: (row["pid"], row["seq"])) == sorted(held, key=lambda row: (row["pid"], row["seq"]))
            assert len({(row["pid"], row["seq"]) for row in told}) == len(told) > 100
            for kind in ("gc_snapshot", "gc_event"):
                before = sum(_gc(process, kind) for process in snapshot["processes"])
                assert before + sum(message["type"] == kind for message in messages) == sum(_gc(row, kind) for row in state["processes"])
            by_pid = {row["pid"]: row for row in state["processes"]}
            for message in messages:
                if message["type"] == "gc_event":
                    row = {name: value for name, value in message.items() if name not in ("type", "pid")}
                    assert row in by_pid[message["pid"]]["gc_events"]
                elif message["type"] == "gc_snapshot":
                    row = {name: value for name, value in message.items() if name not in ("type", "pid", "interpreter")}
                    assert row in by_pid[message["pid"]]["gc_snapshots"][message["interpreter"]]
            events = [message["event"] for message in messages if message["type"] == "lifecycle"]
            assert snapshot["lifecycle_events"] + events == state["lifecycle_events"] and events
            slow = {tuple(row["key"]): timeless(row) for row in snapshot["slow_requests"]}
            for message in messages:
                if message["type"] == "slow_request":
                    assert set(message) == {"type", "key", "entry", "stamp"}
                    slow[tuple(message["key"])] = timeless(message)
            assert slow == {tuple(row["key"]): timeless(row) for row in state["slow_requests"]} and slow
            assert Counter(message["type"] for message in messages).keys() == {
                "sample", "gc_snapshot", "gc_event", "lifecycle", "slow_request"}

            answered = collector.post("/api/slow/clear")
            cleared = reader.messages(lambda message: message["type"] == "slow_clear")[-1]
            assert answered[0] == 200 and set(cleared) == {"type", "kept"}
            assert [tuple(row["key"]) for row in cleared["kept"]] == [
                tuple(row["key"]) for row in collector.json("/api/state?samples=0")["slow_requests"]]
            assert collector.json("/api/summary")["collector"]["http"]["websockets"] == 1


def _gc(process, kind):
    return len(process["gc_events"]) if kind == "gc_event" else sum(map(len, process["gc_snapshots"].values()))


def test_a_snapshot_can_be_asked_for_with_few_samples(collector):
    collector.send(*sent()[:100])
    collector.wait_for("/api/state?samples=0", lambda state: state["total_received"] >= 100)
    with WebSocket(collector.port, "/ws?samples=1") as reader:
        assert {len(process["samples"]) for process in reader.message()["processes"]} == {1}
    with WebSocket(collector.port, "/ws?samples=x") as refused:
        assert (refused.status, json.loads(refused.body)["status"]) == (400, 400)


# --- the handshake ------------------------------------------------------------------------

def test_what_is_no_handshake_is_refused_and_the_connection_goes_on(collector):
    for headers, status in (({"Upgrade": None}, 426), ({"Sec-WebSocket-Version": "12"}, 426), ({"Sec-WebSocket-Key": "short"}, 400)):
        with WebSocket(collector.port, **headers) as refused:
            assert (refused.status, refused.headers["sec-websocket-version"]) == (status, "13"), headers
    status, headers, body = collector.get("/ws")
    assert (status, headers["upgrade"], headers["connection"]) == (426, "websocket", "keep-alive, upgrade")
    assert "Upgrade: websocket" in json.loads(body)["error"]
    assert collector.request("HEAD", "/ws")[0] == 426 and collector.post("/ws")[0] == 405
    with WebSocket(collector.port, "/version") as other:        # elsewhere an Upgrade is passed over, as the standard has it
        assert other.status == 200 and json.loads(other.body)["name"] == "modwsgi-tel"


def test_a_page_of_another_site_gets_nothing(collector):
    own = f"http://127.0.0.1:{collector.port}"
    for headers in ({"Origin": "http://evil.example"}, {"Origin": f"http://127.0.0.1:{collector.port + 1}"}, {"Origin": "null"},
                    {"Sec-Fetch-Site": "cross-site"}):
        with WebSocket(collector.port, **headers) as refused:
            assert refused.status == 403, headers
    with WebSocket(collector.port, Host="evil.example") as refused:
        assert refused.status == 421
    for headers in ({"Origin": own}, {}):
        with WebSocket(collector.port, **headers) as reader:
            assert reader.status == 101 and reader.message()["type"] == "snapshot"


def test_token_and_root_path_hold_for_it_too(tmp_path):
    (tmp_path / "token").write_text("secret\n")
    os.chmod(tmp_path / "token", 0o600)
    with Collector("--token-file", str(tmp_path / "token"), "--root-path", "/telemetry") as collector:
        for path in ("/ws", "/telemetry/ws"):
            with WebSocket(collector.port, path) as refused:
                assert refused.status == 401
            with WebSocket(collector.port, path, Authorization="Bearer secret") as reader:
                assert reader.status == 101 and reader.message()["type"] == "snapshot"


# --- what a client says -------------------------------------------------------------------

def test_pings_are_answered_and_the_end_is_said_on_both_sides(collector):
    with WebSocket(collector.port, rest=masked(PING, b"at once")) as reader:
        events = [reader.event(), reader.event()]
        assert (PONG, b"at once") in events and {opcode for opcode, _ in events} == {PONG, TEXT}
        reader.send(TEXT, b"{}")
        reader.send(PING, b"1")
        assert reader.event() == (PONG, b"1")
        reader.send(CLOSE, b"\x03\xe8")
        assert (reader.event(), reader.event()) == ((CLOSE, b"\x03\xe8"), None)


@pytest.mark.parametrize("data, code", [(b"\x81\x05Hello", 1002), (masked(TEXT, b"x" * 5000), 1009), (masked(TEXT, b"\xff"), 1007),
                                        (masked(CONTINUED, b"x"), 1002), (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 1002)])
def test_who_breaks_the_protocol_is_told_and_let_go(collector, data, code):
    with WebSocket(collector.port) as reader:
        assert reader.message()["type"] == "snapshot"
        reader.socket.sendall(data)
        assert (reader.event(), reader.event()) == ((CLOSE, code.to_bytes(2, "big")), None)
    collector.wait_for("/api/summary", lambda found: found["collector"]["http"]["websockets"] == 0)


def test_when_the_collector_stops_its_readers_are_told():
    with Collector() as collector:
        with WebSocket(collector.port) as reader:
            assert reader.message()["type"] == "snapshot"
            assert collector.stop() == 0
            assert (reader.event(), reader.event()) == ((CLOSE, (1001).to_bytes(2, "big")), None)


def test_they_are_half_of_the_connections_at_most():
    with Collector("--max-connections", "4") as collector, WebSocket(collector.port) as one, WebSocket(collector.port) as two:
        assert (one.status, two.status) == (101, 101)
        with WebSocket(collector.port) as three:
            assert (three.status, three.headers["retry-after"]) == (503, "10")
            assert "--max-connections" in json.loads(three.body)["error"]
        assert collector.json("/api/summary")["collector"]["http"]["websockets"] == 2


# --- slow ones, and those that are gone ---------------------------------------------------

def numbered(datagram, count):
    """So many datagrams like this one, with the numbers that follow its own."""
    head, seq, rest = datagram[:12], int.from_bytes(datagram[12:16], "little"), datagram[16:]
    return [head + (seq + number).to_bytes(4, "little") + rest for number in range(count)]


def test_a_slow_reader_loses_the_oldest_messages_which_is_counted_and_others_lose_none():
    datagrams = numbered(Worker(pid=7).tick(requests=1), 6000)
    assert sum(ENTRY_BYTES + len(each) for each in datagrams) > 1.5 * Stream().limit
    with Collector() as collector:
        with WebSocket(collector.port, receive_bytes=1 << 16) as slow, WebSocket(collector.port) as quick:
            assert (slow.status, quick.message()["type"]) == (101, "snapshot")
            read = []
            for at in range(0, len(datagrams), 1500):
                part = datagrams[at:at + 1500]
                collector.send(*part)
                read += quick.messages(last_of(part))
            assert len(read) == len(datagrams)
            assert slow.message()["type"] == "snapshot"
            late = slow.messages(last_of(datagrams))
            # what the kernel had taken for it, then the newest: those in between are the oldest of what waited
            lost = len(read) - len(late)
            begin = next(at for at, row in enumerate(late) if row != read[at])
            assert lost > 0 and late[begin:] == read[begin + lost:]
            found = collector.json("/api/summary")["collector"]["http"]
            assert (found["websockets"], found["messages_dropped"]) == (2, lost)


def test_the_journal_holds_its_bound_and_lets_go_what_all_have_read():
    stream = Stream(limit=10 * (ENTRY_BYTES + 100))
    quick, slow = stream.join(), stream.join()
    woken = []
    stream.when_more(quick, lambda: woken.append("quick"))
    for number in range(30):
        stream.slow(number, bytes(100), 0.0)
        assert stream.bytes <= stream.limit
        if number < 5:
            entry = stream.next(quick)
            stream.weigh(entry, 1000 if number == 4 else 0)
    assert woken == ["quick"]
    assert stream.dropped == 20 + 15            # as soon as they are gone, whoever reads on
    assert [stream.next(slow).about for _ in range(10)] == list(range(20, 30)) and stream.next(slow) is None
    assert (stream.next(quick).about, stream.dropped) == (20, 35)
    assert not stream.leave(quick)
    assert stream.bytes == 0                    # the other one has read all
    assert stream.leave(slow) and stream.leave(slow)
    assert stream.dropped == 35


def test_the_fold_notes_nothing_while_nobody_listens():
    fleet = a_fleet()
    live = Live(fleet, TextMemo(), lambda: (100.0, 100.0))
    assert fleet.stream is None
    one, two = (live.join(Query(), {}) for _ in range(2))
    one.close()
    one.close()
    assert fleet.stream is live.stream
    two.close()
    assert (fleet.stream, live.stream.bytes) == (None, 0)


def test_a_snapshot_is_small_enough_for_the_existing_console():
    """Its library breaks off at a message of 4 MiB; with the newest samples alone it works."""
    fleet, senders = a_fleet(), {}
    for at, datagram in simulate.stream("steady", processes=20, groups=1, duration=60.0):
        pid = decode(datagram).pid
        fleet.apply(datagram, senders.setdefault(pid, a_sender(pid)), at, at)
    live = Live(fleet, TextMemo(), lambda: (120.0, 120.0))
    told = live.join(Query(), {})
    size = sum(map(len, iter(told.piece, None)))
    assert SNAPSHOT_BYTES * 0.7 < size < SNAPSHOT_BYTES * 1.2
    told.close()
    whole = live.join(Query(samples=600), {})
    assert sum(map(len, iter(whole.piece, None))) > 1.5 * SNAPSHOT_BYTES
    whole.close()


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_sent_is_told_as_strict_json(name):
    fleet = a_fleet()
    live = Live(fleet, TextMemo(), lambda: (100.0, 100.0))
    told = live.join(Query(), {})
    hostile = Worker(hostname=b"\xff\xed\xa0\x80\x00\x1b", group=b"g\xc3\x28</script>\xe2\x80\xa8")
    datagrams = [*sent(name), hostile.started(), hostile.tick(1, request_throughput=float("nan")), hostile.gc_event(duration=float("nan")),
                 hostile.slow(b"\xff", slow_path_info=b"\x00\x7f\xff\xfe", slow_duration=float("-inf")), hostile.datagram(2, stamp=float("nan")),
                 *(hostile.gc_snapshot(named) for named in (None, b"a\xff", b"\x1b[31m"))]
    for datagram in datagrams:
        fleet.apply(datagram, a_sender(), 100.0, 100.0)
    data, kinds, message = b"".join(iter(told.piece, None)), set(), b""
    while data:
        size, at = data[1], 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        message += data[at:at + size]
        if data[0] & 0x80:
            found = json.loads(message.decode("utf-8"), parse_constant=pytest.fail)
            kinds.add(found["type"])
            message = b""
        data = data[at + size:]
    assert kinds == {"snapshot", "sample", "lifecycle", "slow_request", "gc_event", "gc_snapshot"}
    told.close()


class Told:
    """A telling of so many pieces."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)
        self.closed = False

    def piece(self):
        return self.pieces.pop(0) if self.pieces else None

    def when_more(self, wake):
        pass

    def close(self):
        self.closed = True


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def talk():
    """(talk, its clock, the other end, a function that lets it write) of a Talk that stands alone."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    clock = Clock()
    gone = []
    server = types.SimpleNamespace(loop=Loop(clock), timeouts=Timeouts(), failed=pytest.fail, gone=gone.append)
    talk = Talk(server, ours, Told(), b"")

    def write():
        while talk.fd in server.loop.writers:
            server.loop.writers[talk.fd]()

    write()
    theirs.setblocking(False)
    yield talk, clock, theirs, write
    talk.close()
    assert gone == [talk]
    theirs.close()


def test_a_reader_that_does_not_answer_pings_is_gone(talk):
    talk, clock, theirs, write = talk
    clock.now += PING_S - 1
    talk.check_time(clock.now)
    assert talk.fd not in talk.server.loop.writers
    clock.now += 1
    talk.check_time(clock.now)
    write()
    assert theirs.recv(100) == frame(PING, b"")
    theirs.send(masked(PONG))
    talk.server.loop.readers[talk.fd]()
    clock.now += SILENT_S - 1
    talk.check_time(clock.now)
    assert not talk.closed
    clock.now += 2
    talk.check_time(clock.now)
    assert talk.closed and talk._telling.closed


def test_one_that_takes_nothing_is_gone_after_the_time_of_a_piece_and_one_that_is_slow_is_not(talk):
    talk, clock, theirs, write = talk
    talk._telling.pieces = [frame(BINARY, bytes(1 << 20))] * 4
    talk._write()
    for _ in range(10):
        talk._writable()
    for _ in range(8):                          # slowly: always something of it within the time
        clock.now += 25.0
        theirs.recv(1 << 17)
        talk._writable()
        talk.check_time(clock.now)
        assert not talk.closed
    clock.now += talk.server.timeouts.write + 1
    talk.check_time(clock.now)
    assert talk.closed


def test_a_flood_of_pings_does_not_pile_up(talk):
    talk, clock, theirs, write = talk
    talk._telling.pieces = [frame(BINARY, bytes(1 << 20))]
    talk._write()
    talk._writable()
    for number in range(1000):
        theirs.send(masked(PING, b"%d" % number))
        talk.server.loop.readers[talk.fd]()
    assert talk._control == [frame(PONG, b"999")]


# --- the existing collector's own console -------------------------------------------------

@pytest.fixture(scope="module")
def console():
    program = existing_program()
    if program is None:
        pytest.skip("mod_wsgi-telemetry is not installed beside this Python")
    return program


@pytest.fixture(scope="module")
def filled():
    with Collector() as collector:
        collector.send(*sent())
        collector.wait_for("/api/state?samples=0", lambda state: state["total_received"] == len(sent()))
        yield collector


def test_the_existing_console_shows_our_processes_once(console, filled):
    done = subprocess.run([console, "top", "--once", "--url", f"ws://127.0.0.1:{filled.port}/ws"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE_S, env=clean_environment(), universal_newlines=True)
    state = filled.json("/api/state")
    rows = [line.split() for line in done.stdout.split("processes:\n")[1].splitlines()[1:] if line.strip()]
    assert done.returncode == 0, done.stdout
    assert sorted(row[:3] for row in rows) == sorted(
        [str(process["pid"]), process["process_group"], "{request_threads_active}/{request_threads_maximum}".format(
            **process["samples"][-1]["fields"])] for process in state["processes"])
    total = len(state["slow_requests"])
    assert f"/ {total} total" in done.stdout, (total, done.stdout)


@pytest.mark.skipif(TMUX is None, reason="tmux is not installed (apt-get install tmux)")
def test_the_existing_console_follows_ours_in_a_terminal(console):
    datagrams = sent()
    with Collector() as collector, Tmux(rows=40, cols=120) as terminal:
        terminal.run("top", "--url", f"ws://127.0.0.1:{collector.port}/ws", program=(console,))
        collector.wait_for("/api/summary", lambda found: found["collector"]["http"]["websockets"] == 1)
        collector.send(*datagrams)                  # all that it sees has come as messages
        terminal.keys("p")
        state = collector.wait_for("/api/state", lambda state: state["total_received"] == len(datagrams) and state)
        terminal.wait_for(lambda screen: all(str(process["pid"]) in screen for process in state["processes"]))
        terminal.keys("s")
        longest = max(state["slow_requests"], key=lambda slow: slow["entry"]["duration"])["entry"]
        terminal.wait_for(lambda screen: longest["log_id"] in screen)
        terminal.keys("q")
        assert terminal.ended() == 0
        wait_until(lambda: collector.json("/api/summary")["collector"]["http"]["websockets"] == 0, DEADLINE_S, "it is still there")
