"""Asking a collector: where it is, what it answers, and asking it inside a loop that never waits for it."""
import contextlib
import json
import os
import random
import socket
import subprocess
import sys

import pytest

from modwsgi_tel.errors import NoAnswer, Nonsense, NotAllowed, TelError, UsageError
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.report import client
from modwsgi_tel.report.client import Asker, NoHttp, Place, Reader, TooMuch, fetch, is_summary, summary
from running import ROOT, clean_environment, free_port, short_folder

DEADLINE_S = 30.0


# --- where it is ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("url, where, host, prefix", [
    ("http://127.0.0.1:8888", "http://127.0.0.1:8888", "127.0.0.1:8888", ""),
    ("http://127.0.0.1", "http://127.0.0.1", "127.0.0.1", ""),
    ("http://127.0.0.1:", "http://127.0.0.1:", "127.0.0.1", ""),
    ("http://127.0.0.1:80/", "http://127.0.0.1:80", "127.0.0.1", ""),
    ("HTTP://127.0.0.1:8888/one/two/", "http://127.0.0.1:8888/one/two", "127.0.0.1:8888", "/one/two"),
    ("http://127.0.0.1:8888/ws", "http://127.0.0.1:8888/ws", "127.0.0.1:8888", "/ws"),
    ("http://127.0.0.1:8888?a=/b#c", "http://127.0.0.1:8888", "127.0.0.1:8888", ""),
    ("http://[::1]:8888", "http://[::1]:8888", "[::1]:8888", ""),
    ("http://[::1]/x", "http://[::1]/x", "[::1]", "/x"),
    ("http://[fe80::1%lo]:1", "http://[fe80::1%lo]:1", "[fe80::1]:1", ""),
    ("http://b\u00fccher.example:1", "http://b\u00fccher.example:1", "xn--bcher-kva.example:1", ""),
    ("ws://127.0.0.1:8888/ws", "http://127.0.0.1:8888", "127.0.0.1:8888", ""),
    ("ws://127.0.0.1:8888/", "http://127.0.0.1:8888", "127.0.0.1:8888", ""),
    ("ws://127.0.0.1:8888/prefix/ws/", "http://127.0.0.1:8888/prefix", "127.0.0.1:8888", "/prefix"),
    ("ws://127.0.0.1:8888/prefix/ws?x", "http://127.0.0.1:8888/prefix", "127.0.0.1:8888", "/prefix"),
    ("ws://127.0.0.1:8888/wss", "http://127.0.0.1:8888/wss", "127.0.0.1:8888", "/wss"),
    ("127.0.0.1:8888", "http://127.0.0.1:8888", "127.0.0.1:8888", ""),
    ("127.0.0.1:8888/ws", "http://127.0.0.1:8888", "127.0.0.1:8888", ""),
    ("localhost.", "http://localhost.", "localhost.", "")])
def test_a_url_is_understood_with_its_old_habits(url, where, host, prefix):
    place = Place(url)
    assert (place.where, place.host, place.prefix) == (where, host, prefix)


@pytest.mark.parametrize("url", [
    None, "", "http://", "http:///x", "http://:8888", "ftp://x", "://x", "http://[::1", "http://[]", "http://[::1]x",
    "http://[x]", "http://[127.0.0.1]", "http://x:99999", "http://x:0", "http://x:-1", "http://x:1e3",
    "http://x:\u0661", "http://a..b/", "http://" + "x" * 64, "http://me@x", "http://x/a b", "http://x/\u00fc",
    "http://x/\n", "http://x\ny", "http://\u00fc..x", "http://x%y", "unix:/run/x.sock\0"], ids=repr)
def test_what_is_no_url_is_said(url):
    with pytest.raises(UsageError) as caught:
        Place(url)
    assert str(caught.value) == f"--url {url}: like http://127.0.0.1:8888"


@pytest.mark.parametrize("url", ["https://x", "wss://x:8888/ws", "HTTPS://"])
def test_tls_is_a_tunnels_business(url):
    with pytest.raises(UsageError) as caught:
        Place(url)
    assert str(caught.value) == (f"--url {url}: TLS is not spoken here: use an ssh tunnel, as "
                                 "ssh -L 8888:127.0.0.1:8888 HOST, and http://127.0.0.1:8888")


def test_an_address_needs_no_name_server_and_a_unix_socket_is_its_path():
    assert Place("http://127.0.0.1:81").addresses() == [(socket.AF_INET, ("127.0.0.1", 81))]
    assert Place("http://[::1]").addresses() == [(socket.AF_INET6, ("::1", 80, 0, 0))]
    place = Place("http://ignored", "/run/x.sock")
    assert (place.where, place.host, place.prefix) == ("/run/x.sock", "localhost", "")
    assert place.addresses() == [(socket.AF_UNIX, "/run/x.sock")]
    with pytest.raises(UsageError):
        Place(None, "/run/\0x")


def test_a_request_is_these_lines():
    assert Place("http://127.0.0.1:81/p/").request("/api/summary?x=1", "secret") == (
        b"GET /p/api/summary?x=1 HTTP/1.1\r\nHost: 127.0.0.1:81\r\nAccept: application/json\r\n"
        b"Accept-Encoding: identity\r\nAuthorization: Bearer secret\r\n\r\n")
    assert b"Authorization" not in Place("http://127.0.0.1").request("/")
    assert Place("http://127.0.0.1:81").request("/api/stacks?pid=1", method="POST") == (
        b"POST /api/stacks?pid=1 HTTP/1.1\r\nHost: 127.0.0.1:81\r\nAccept: application/json\r\n"
        b"Accept-Encoding: identity\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("path", ["", "api", "/a b", "/a\r\nX: y", "/\u00fc"])
def test_what_is_no_path_is_not_sent(path):
    with pytest.raises(ValueError):
        Place("http://127.0.0.1").request(path)


def test_a_token_that_would_end_its_line_is_not_sent():
    with pytest.raises(UsageError):
        Place("http://127.0.0.1").request("/", "one\r\nX: y")
    with pytest.raises(UsageError):
        Asker(Loop(), Place("http://127.0.0.1"), token="one\ntwo")


# --- what it answers ------------------------------------------------------------------------------------

def read(*pieces):
    """(status, body, keeps) of an answer that came in these pieces; None when it is not whole behind them."""
    reader = Reader()
    for place, piece in enumerate(pieces):
        if reader.feed(piece):
            assert place == len(pieces) - 1
            return reader.status, bytes(reader.body), reader.keeps
    return None


def three_ways(raw):
    """Whole, byte by byte, and in two parts at every place: the pieces of each way."""
    yield [raw] if raw else []
    yield [raw[place:place + 1] for place in range(len(raw))]
    for place in range(1, len(raw), max(1, len(raw) // 50)):
        yield [raw[:place], raw[place:]]


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ANSWERS = [
    (OK + b"Content-Length: 2\r\n\r\n{}", (200, b"{}", True)),
    (OK + b"content-length:2\t\r\nX:\r\n\r\n{}", (200, b"{}", True)),
    (OK + b"Content-Length: 0\r\n\r\n", (200, b"", True)),
    (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", (200, b"{}", True)),
    (OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}", (200, b"{}", False)),
    (OK + b"Content-Length: 2\r\nConnection: x, Close\r\n\r\n{}", (200, b"{}", False)),
    (OK + b"Content-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", (200, b"{}", True)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", (200, b"{}", False)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}", (200, b"{}", True)),
    (b"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\n{}", (404, b"{}", True)),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nA: b\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
     (200, b"{}", True)),
    (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (200, b"", True)),
    (OK + b"Transfer-Encoding: Chunked\r\n\r\n1\r\n{\r\n00A;x=y\r\n         }\r\n0\r\n\r\n",
     (200, b"{         }", True)),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n2 ;x\r\n{}\r\n0\r\nTrailer: x\r\n\r\n", (200, b"{}", True))]


@pytest.mark.parametrize("raw, wanted", ANSWERS, ids=lambda value: repr(value)[:60])
def test_an_answer_is_the_same_however_it_is_cut(raw, wanted):
    assert [read(*pieces) for pieces in three_ways(raw)] == [wanted] * len(list(three_ways(raw)))
    assert [read(raw[:place]) for place in range(1, len(raw))] == [None] * (len(raw) - 1)


@pytest.mark.parametrize("raw, wanted", ANSWERS, ids=lambda value: repr(value)[:60])
def test_what_nobody_asked_for_behind_an_answer_ends_the_connection(raw, wanted):
    assert read(raw + b"H") == (*wanted[:2], False)


def test_an_answer_without_a_length_ends_with_its_connection():
    for pieces in three_ways(OK + b"\r\n{}"):
        assert read(*pieces) is None
        assert read(*pieces, b"") == (200, b"{}", False)


@pytest.mark.parametrize("raw, said", [
    (b"SSH-2.0-OpenSSH_9.2\r\n", "it does not begin with HTTP/1.1"),
    (b"\x15\x03\x03", "it does not begin with HTTP/1.1"),
    (b"HTTP/2 200\r\n", "it does not begin with HTTP/1.1"), (b"HTTP/1.2 200 OK\r\n", "the status line is none"),
    (b"HTTP/1.1 abc\r\n", "the status line is none"), (b"HTTP/1.1 099 X\r\n", "the status line is none"),
    (b"HTTP/1.1 2000 X\r\n", "the status line is none"), (b"HTTP/1.1 101 X\r\n\r\n", "it changes the protocol"),
    (b"HTTP/1.1 " + b"2" * 70000, "the status line is too long"), (OK + b"X: " + b"y" * 70000, "the head is too long"),
    (OK + b"X: y\r\n" * 101, "more than 100 headers"), (OK + b"no header\r\n", "a header is none"),
    (OK + b"X : y\r\n", "a header is none"), (OK + b" folded: y\r\n", "a header is none"),
    (OK + b": y\r\n", "a header is none"),
    (OK + b"Content-Encoding: gzip\r\n\r\n", "a Content-Encoding that was not asked for"),
    (OK + b"Content-Length: -1\r\n\r\n", "Content-Length is not a number"),
    (OK + b"Content-Length: 1_0\r\n\r\n", "Content-Length is not a number"),
    (OK + b"Content-Length: " + b"1" * 20 + b"\r\n\r\n", "Content-Length is not a number"),
    (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "Content-Length is not a number"),
    (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "a Transfer-Encoding that is not just chunked"),
    (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", "a Transfer-Encoding that is not just chunked"),
    (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "the size of a chunk is no number"),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n", "the size of a chunk is no number"),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 300, "the size of a chunk is too long"),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}", "a chunk is longer than its size says"),
    (CHUNKED + b"0\r\n" + b"X: y\r\n" * 101, "more than 100 headers")], ids=lambda raw: repr(raw)[:60])
def test_what_can_be_no_answer_is_known_at_once(raw, said):
    for pieces in list(three_ways(raw)) if len(raw) < 2000 else [[raw]]:
        with pytest.raises(NoHttp) as caught:
            read(*pieces)
        assert str(caught.value) == said


@pytest.mark.parametrize("raw", [
    OK + b"Content-Length: 99999999\r\n\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    OK + b"\r\n" + b" " * 2000, OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b" " * 1000 + b"\r\n19\r\n"],
    ids=lambda raw: repr(raw)[:60])
def test_what_is_too_much_is_known_before_it_is_held(raw, monkeypatch):
    monkeypatch.setattr(client, "LARGEST", 1024)
    with pytest.raises(TooMuch):
        read(raw)


def test_an_answer_cut_short_is_none():
    for raw, _ in ANSWERS:
        for place in range(len(raw)):
            with pytest.raises(NoHttp) as caught:
                read(raw[:place], b"")
            assert str(caught.value) == ("IncompleteRead" if place else "closed without an answer")


def test_any_bytes_give_an_answer_or_are_refused():
    """Whatever comes, and however it is cut: the same answer, the same refusal, or the wish for more."""
    seed = 20240612
    print("seed", seed)
    chance = random.Random(seed)
    wild = [b"", b"\r\n", b"0", b"\xff", b":", b" ", b"9"]
    for _ in range(3000):
        raw = bytearray(chance.choice(ANSWERS)[0])
        for _ in range(chance.randrange(4)):
            place = chance.randrange(len(raw))
            raw[place:place + chance.randrange(3)] = chance.choice(wild)
        outcomes = set()
        for size in (len(raw) or 1, 1, 7):
            reader, outcome = Reader(), None
            try:
                for place in range(0, len(raw), size):
                    if reader.feed(bytes(raw[place:place + size])):
                        outcome = reader.status, bytes(reader.body)
                        break
            except (NoHttp, TooMuch) as error:
                outcome = str(error)
            outcomes.add(outcome)
        assert len(outcomes) == 1, (raw, outcomes)


# --- a server and an Asker in one loop ------------------------------------------------------------------

class Server:
    """A server in the loop of a test: `answer(connection, number)` deals with each request, numbered from 1.

    `answer` returns the bytes to send, or None for nothing; it may close the connection after it.
    """

    def __init__(self, loop, answer, path=None):
        self.loop, self.answer = loop, answer
        self.requests, self.connections = [], []
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.place = Place("http://127.0.0.1:%d" % self.listener.getsockname()[1])
        else:
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listener.bind(path)
            self.listener.listen(16)
            self.place = Place(None, path)
        loop.readers[self.listener.fileno()] = self._accept

    def _accept(self):
        connection, _ = self.listener.accept()
        self.connections.append(connection)
        self.loop.readers[connection.fileno()] = lambda: self._receive(connection)

    def _receive(self, connection):
        descriptor = connection.fileno()
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.drop(connection)
            return
        assert data.endswith(b"\r\n\r\n")
        self.requests.append(data.split()[1].decode())
        raw = self.answer(connection, len(self.requests))
        if connection.fileno() < 0:
            self.loop.readers.pop(descriptor, None)
        elif raw:
            self.write(connection, raw)

    def write(self, connection, raw):
        connection.setblocking(False)
        left = [raw]

        def writable():
            try:
                left[0] = left[0][connection.send(left[0]):]
            except BlockingIOError:
                return
            except OSError:
                left[0] = b""
            if not left[0]:
                self.loop.writers.pop(descriptor, None)

        descriptor = connection.fileno()
        self.loop.writers[descriptor] = writable

    def drop(self, connection):
        self.loop.readers.pop(connection.fileno(), None)
        self.loop.writers.pop(connection.fileno(), None)
        connection.close()

    def close(self):
        for each in [self.listener, *self.connections]:
            if each.fileno() >= 0:
                self.drop(each)


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def serving(loop):
    """serving(answer): a Server in the loop, closed when the test is over."""
    with contextlib.ExitStack() as stack:
        def start(answer, path=None):
            server = Server(loop, answer, path)
            stack.callback(server.close)
            return server
        yield start


def run_until(loop, check):
    """Run the loop until `check()` is true, asked after each turn."""
    late = []

    def look():
        if check() or late:
            loop.stop()
        return False

    loop.set_first(quiet, look)
    loop.after(DEADLINE_S, lambda: late.append(True))
    loop.run()
    assert not late, "it never came to it"


quiet = os.pipe()[0]                    # a descriptor that is never ready


def answers(loop, asker, *paths):
    """What the asker says to each path, asked one after another."""
    said = []
    for path in paths:
        asker.ask(path, said.append)
        wanted = len(said) + 1
        run_until(loop, lambda: len(said) >= wanted)
    assert len(said) == len(paths)
    return said


def outcome(answer):
    return (type(answer), str(answer)) if isinstance(answer, TelError) else answer


def chunked(value, size=24 << 10):
    raw = json.dumps(value).encode()
    parts = [raw[place:place + size] for place in range(0, len(raw), size)]
    return (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            + b"0\r\n\r\n")


def with_length(value, status=b"200 OK"):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(raw), raw)


def test_requests_one_after_another_share_one_connection(loop, serving):
    server = serving(lambda connection, number: (chunked if number % 2 else with_length)({"number": number}))
    asker = Asker(loop, server.place)
    assert answers(loop, asker, "/a", "/b?c", "/d") == [{"number": 1}, {"number": 2}, {"number": 3}]
    assert (server.requests, len(server.connections), asker.busy) == (["/a", "/b?c", "/d"], 1, False)
    asker.close()
    run_until(loop, lambda: server.connections[0].fileno() < 0)
    assert (set(loop.readers), loop.writers) == ({server.listener.fileno()}, {})


def test_a_unix_socket_is_asked_as_well(loop, serving):
    with short_folder() as folder:
        server = serving(lambda connection, number: with_length([number]), os.path.join(folder, "http"))
        assert answers(loop, Asker(loop, server.place), "/a", "/b") == [[1], [2]]


def test_an_answer_is_never_given_from_within_ask(loop, serving):
    said = []
    asker = Asker(loop, Place("http://127.0.0.1:%d" % free_port()))
    asker.ask("/", said.append)
    assert (said, asker.busy) == ([], True)
    with pytest.raises(RuntimeError, match="one request at a time"):
        asker.ask("/", said.append)
    run_until(loop, lambda: said)
    assert asker.busy is False and [type(each) for each in said] == [NoAnswer]


def test_the_next_request_may_be_made_from_within_an_answer(loop, serving):
    server = serving(lambda connection, number: with_length(number))
    asker, said = Asker(loop, server.place), []

    def done(answer):
        said.append(answer)
        if len(said) < 3:
            asker.ask("/", done)

    asker.ask("/", done)
    run_until(loop, lambda: len(said) == 3)
    assert (said, len(server.connections)) == ([1, 2, 3], 1)


def closing(server_of):
    """Answers the first request of each connection, and closes at the second."""
    def answer(connection, number):
        seen.append(connection)
        if seen.count(connection) == 1:
            return with_length(number)
        server_of[0].drop(connection)
        return None

    seen = []
    return answer


def test_a_kept_connection_that_turns_out_closed_is_made_anew(loop, serving):
    servers = []
    servers.append(serving(closing(servers)))
    asker = Asker(loop, servers[0].place)
    assert answers(loop, asker, "/a", "/b") == [1, 3]
    assert (servers[0].requests, len(servers[0].connections)) == (["/a", "/b", "/b"], 2)


def test_a_connection_that_closes_while_nothing_is_asked_is_noticed_then(loop, serving):
    server = serving(lambda connection, number: with_length(number))
    asker = Asker(loop, server.place)
    assert answers(loop, asker, "/a") == [1]
    before = set(loop.readers)
    server.drop(server.connections[0])
    run_until(loop, lambda: set(loop.readers) == {server.listener.fileno()})
    assert len(before) == 3
    assert answers(loop, asker, "/b") == [2]


def test_one_that_closes_between_asking_and_sending_is_made_anew(loop, serving):
    server = serving(lambda connection, number: with_length(number))
    asker = Asker(loop, server.place)
    assert answers(loop, asker, "/a") == [1]
    server.drop(server.connections[0])
    assert answers(loop, asker, "/b") == [2]
    assert server.requests == ["/a", "/b"]


def test_bytes_that_nobody_asked_for_are_not_the_next_answer(loop, serving):
    server = serving(lambda connection, number: with_length(number))
    asker = Asker(loop, server.place)
    assert answers(loop, asker, "/a") == [1]
    server.connections[0].sendall(with_length("a lie"))
    assert answers(loop, asker, "/b", "/c") == [2, 3]


def test_a_fresh_connection_that_closes_is_not_tried_again(loop, serving):
    servers = []
    servers.append(serving(lambda connection, number: servers[0].drop(connection)))
    said, = answers(loop, Asker(loop, servers[0].place), "/")
    assert outcome(said) == (Nonsense, f"{servers[0].place.where}: no HTTP answer: closed without an answer")
    assert servers[0].requests == ["/"]


def test_a_connection_that_the_server_ends_is_not_kept(loop, serving):
    server = serving(lambda connection, number: with_length(number, b"200 OK\r\nConnection: close"))
    assert answers(loop, Asker(loop, server.place), "/a", "/b") == [1, 2]
    assert len(server.connections) == 2


def test_nothing_is_told_after_cancel_or_close(loop, serving):
    server = serving(lambda connection, number: with_length(number))
    asker, said = Asker(loop, server.place), []
    asker.ask("/cancelled", said.append)
    asker.cancel()
    assert not asker.busy
    asker.ask("/seen", said.append)
    run_until(loop, lambda: said)
    asker.ask("/underway", said.append)
    run_until(loop, lambda: "/underway" in server.requests)
    asker.cancel()
    assert answers(loop, asker, "/again") == [3]
    asker.ask("/late", said.append)
    asker.close()
    with pytest.raises(RuntimeError, match="closed"):
        asker.ask("/", said.append)
    run_until(loop, lambda: set(loop.readers) == {server.listener.fileno()})
    assert (said, server.requests) == ([1], ["/seen", "/underway", "/again"])


def test_a_request_that_was_cancelled_does_not_end_the_next_in_its_time(loop, serving):
    """The time is counted from each request's own start."""
    clock = [100.0]
    stepped = Loop(clock=lambda: clock[0])
    said = []
    asker = Asker(stepped, Place("http://127.0.0.1:1"), timeout_s=10.0)
    timers = []
    stepped.after = lambda seconds, callback: timers.append((clock[0] + seconds, callback))

    def pass_time(until):
        clock[0] = until
        for due, callback in [timer for timer in timers if timer[0] <= until]:
            timers.remove((due, callback))
            if callback == asker._watch:
                callback()              # the others would connect

    asker.ask("/", said.append)
    clock[0] = 104.0
    asker.cancel()
    asker.ask("/", said.append)
    pass_time(110.0)
    assert said == [] and asker.busy
    pass_time(113.9)
    assert said == [] and asker.busy
    pass_time(114.0)
    assert [outcome(each) for each in said] == [(NoAnswer, "http://127.0.0.1:1 did not answer within 10 s")]
    assert [timer for timer in timers if timer[1] == asker._watch] == []


def test_fifty_answers_leave_one_timer_behind(loop, serving):
    server = serving(lambda connection, number: with_length(number))
    asker = Asker(loop, server.place, timeout_s=DEADLINE_S)
    timers = []
    after = loop.after

    def counted(seconds, callback):
        if callback == asker._watch:
            timers.append(seconds)
        after(seconds, callback)

    loop.after = counted
    assert answers(loop, asker, *["/"] * 50) == list(range(1, 51))
    assert timers == [DEADLINE_S]


# --- trouble --------------------------------------------------------------------------------------------

BAD = [
    (b"SSH-2.0-OpenSSH_9.2\r\n", Nonsense, "{}: no HTTP answer: it does not begin with HTTP/1.1"),
    (OK + b"Content-Length: 100\r\n\r\n{}", Nonsense, "{}: no HTTP answer: IncompleteRead"),
    (CHUNKED + b"zz\r\n", Nonsense, "{}: no HTTP answer: the size of a chunk is no number"),
    (OK + b"Content-Length: 99999999999\r\n\r\n", Nonsense, "{}/x: more than 64 MiB"),
    (with_length(b"<html>", b"404 Not Found"), Nonsense, "{}/x: answers 404 and no JSON"),
    (with_length(b"", b"204 No Content"), Nonsense, "{}/x: answers 204 and no JSON"),
    (with_length({"error": "no such path"}, b"404 Not Found"), Nonsense, "{}/x: answers 404: no such path"),
    (with_length([], b"500 X"), Nonsense, "{}/x: answers 500"),
    (with_length(b"", b"401 X"), NotAllowed, "{} asks for a token: give --token-file"),
    (with_length(b'{"a": NaN}'), Nonsense, "{}/x: answers 200 and no JSON"),
    (with_length(b"[" * 200000), Nonsense, "{}/x: answers 200 and no JSON"),
    (with_length(b"\xff\xfe\xfd"), Nonsense, "{}/x: answers 200 and no JSON"),
    (with_length(b"{}"), dict, {}),
    (OK + b"\r\n[1]", list, [1])]


@pytest.mark.parametrize("raw, kind, said", BAD, ids=lambda value: repr(value)[:60])
def test_waiting_or_not_the_same_answer_is_understood_the_same(loop, serving, raw, kind, said):
    servers = []

    def answer(connection, number):
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)

    servers.append(serving(answer))
    where = servers[0].place.where
    wanted = (kind, said.format(where)) if isinstance(said, str) else said
    assert outcome(answers(loop, Asker(loop, servers[0].place), "/x")[0]) == wanted
    # and fetch, in a process of its own, since the server needs this one's loop
    code = ("import sys; from modwsgi_tel.report.client import fetch; from modwsgi_tel.errors import TelError\n"
            "try: print(fetch('/x', url=sys.argv[1]))\n"
            "except TelError as error: print((type(error).__name__, str(error)))")
    with subprocess.Popen([sys.executable, "-c", code, where], cwd=ROOT, env=clean_environment(),
                          stdout=subprocess.PIPE) as child:
        run_until(loop, lambda: len(servers[0].requests) == 2)
        printed = child.stdout.read().decode().strip()
    assert printed == str((kind.__name__, wanted[1]) if isinstance(said, str) else said)


@pytest.mark.parametrize("begin", [b"", b"H", OK, OK + b"Content-Length: 9\r\n\r\n{", OK + b"\r\n{}",
                                   OK + b"Transfer-Encoding: chunked\r\n\r\n1;"], ids=repr)
def test_an_answer_that_does_not_go_on_is_given_up_in_time(loop, serving, begin):
    server = serving(lambda connection, number: begin if number == 1 else with_length(number))
    asker = Asker(loop, server.place, timeout_s=0.2)
    said, = answers(loop, asker, "/")
    assert outcome(said) == (NoAnswer, f"{server.place.where} did not answer within 0.2 s")
    asker._timeout_s = DEADLINE_S
    assert answers(loop, asker, "/") == [2]


@pytest.mark.parametrize("begin, drop", [
    (OK + b"X: ", b"y"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), (OK + b"\r\n", b" "),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n")], ids=repr)
def test_an_answer_that_drips_is_given_up_in_time_and_holds_nothing_up(loop, serving, begin, drop):
    beats = []

    def answer(connection, number):
        connection.sendall(begin)
        more()

    def more():
        with contextlib.suppress(OSError):
            server.connections[-1].sendall(drop)
        loop.after(0.005, more)

    server = serving(answer)
    loop.every(0.01, lambda: beats.append(True))
    said, = answers(loop, Asker(loop, server.place, timeout_s=0.3), "/")
    assert outcome(said) == (NoAnswer, f"{server.place.where} did not answer within 0.3 s")
    assert beats


def test_an_answer_without_bound_is_given_up_at_a_size(loop, serving, monkeypatch):
    monkeypatch.setattr(client, "LARGEST", 1 << 20)
    server = serving(lambda connection, number: OK + b"\r\n" + b" " * (4 << 20))
    said, = answers(loop, Asker(loop, server.place), "/x")
    assert outcome(said) == (Nonsense, f"{server.place.where}/x: more than 1 MiB")


def test_a_large_answer_leaves_the_loop_its_turns(loop, serving):
    """No callback reads more than a piece, so in between others have their turns."""
    value = {"rows": ["x" * 1000] * 5000}
    raw = chunked(value)
    server = serving(lambda connection, number: raw)
    asker, said, reads = Asker(loop, server.place), [], []
    plain = asker._readable

    def counted():
        reads.append(True)
        plain()

    asker._readable = counted
    asker.ask("/", said.append)
    run_until(loop, lambda: said)
    assert said == [value] and len(reads) >= len(raw) // client.PIECE


def test_nobody_there_is_said_and_asked_again_later(loop, serving):
    with short_folder() as folder:
        path = os.path.join(folder, "http")
        asker = Asker(loop, Place(None, path))
        assert [outcome(each) for each in answers(loop, asker, "/", "/")] == [
            (NoAnswer, f"{path} does not answer: No such file or directory; is the collector running?")] * 2
        server = serving(lambda connection, number: with_length("back"), path)
        assert answers(loop, asker, "/") == ["back"]
        server.close()
        os.unlink(path)
        assert [type(each) for each in answers(loop, asker, "/")] == [NoAnswer]
    port = free_port()
    assert outcome(answers(loop, Asker(loop, Place(f"127.0.0.1:{port}")), "/")[0]) == (
        NoAnswer, f"http://127.0.0.1:{port} does not answer: Connection refused; is the collector running?")
    assert outcome(answers(loop, Asker(loop, Place(None, "/" + "x" * 200)), "/")[0]) == (
        NoAnswer, "/" + "x" * 200 + " does not answer: AF_UNIX path too long; is the collector running?")


def test_a_name_that_is_not_known_is_said_at_once(loop, monkeypatch):
    def unknown(*arguments, **more):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for ask in (lambda: Asker(loop, Place("nowhere:1")), lambda: fetch("/", url="nowhere:1")):
        with pytest.raises(TelError) as caught:
            ask()
        assert str(caught.value) == (
            "http://nowhere:1 does not answer: Name or service not known; is the collector running?")


def test_the_addresses_of_a_name_are_tried_in_turn(loop, serving, monkeypatch):
    server = serving(lambda connection, number: with_length(number))
    there = server.listener.getsockname()
    closed = ("127.0.0.1", free_port())
    monkeypatch.setattr(Place, "addresses", lambda self: [(socket.AF_INET, closed), (socket.AF_INET, there)])
    asker = Asker(loop, Place("x"))
    assert answers(loop, asker, "/", "/") == [1, 2]
    assert asker._at == 1                               # remembered: the first is not asked each time
    monkeypatch.setattr(Place, "addresses", lambda self: [(socket.AF_INET, closed), (socket.AF_INET, closed)])
    assert [type(each) for each in answers(loop, Asker(loop, Place("x")), "/")] == [NoAnswer]


def test_a_unix_socket_with_a_full_queue_is_tried_until_it_has_room(loop):
    with short_folder() as folder, contextlib.ExitStack() as stack:
        path = os.path.join(folder, "http")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(path)
        listener.listen(0)
        queued = []
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                waiting.setblocking(False)
                waiting.connect(path)
                queued.append(waiting)
        asker = Asker(loop, Place(None, path), timeout_s=0.2)
        assert outcome(answers(loop, asker, "/")[0]) == (NoAnswer, f"{path} did not answer within 0.2 s")
        asker, said = Asker(loop, Place(None, path)), []
        asker.ask("/", said.append)

        def accept():
            connection = stack.enter_context(listener.accept()[0])
            connection.setblocking(False)
            loop.readers[connection.fileno()] = lambda: serve_it(connection)

        def serve_it(connection):
            if connection.recv(65536):
                connection.sendall(with_length("at last"))
            else:
                loop.readers.pop(connection.fileno())

        run_until(loop, lambda: asker._socket is None)  # refused once, for want of room
        loop.readers[listener.fileno()] = accept
        run_until(loop, lambda: said)
        assert said == ["at last"]


# --- a real collector -----------------------------------------------------------------------------------

def test_a_running_collector_answers_over_tcp_and_over_its_socket(loop, serve):
    with short_folder() as folder:
        path = os.path.join(folder, "http")
        collector = serve("--http-socket", path)
        for place in (Place(f"ws://127.0.0.1:{collector.port}/ws"), Place(None, path)):
            asker = Asker(loop, place)
            found, state, missing = answers(loop, asker, "/api/summary", "/api/state?samples=0", "/nothing")
            assert is_summary(found) and state["type"] == "snapshot" and type(missing) is Nonsense
            asker.close()
        assert is_summary(summary(url=f"127.0.0.1:{collector.port}")) and is_summary(summary(http_socket=path))


def test_a_collector_that_asks_for_a_token_gets_it(loop, serve, tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef0123456789abcdef\n")
    collector = serve("--token-file", str(tmp_path / "token"))
    place = Place(f"127.0.0.1:{collector.port}")
    assert outcome(answers(loop, Asker(loop, place), "/api/summary")[0]) == (
        NotAllowed, f"http://127.0.0.1:{collector.port} asks for a token: give --token-file")
    assert is_summary(answers(loop, Asker(loop, place, "0123456789abcdef0123456789abcdef"), "/api/summary")[0])


def test_a_collector_that_comes_back_is_asked_again(loop, serve):
    with short_folder() as folder:
        path = os.path.join(folder, "http")
        collector = serve("--http-socket", path)
        asker = Asker(loop, Place(None, path))
        assert is_summary(answers(loop, asker, "/api/summary")[0])
        collector.stop()
        assert [type(each) for each in answers(loop, asker, "/api/summary")] == [NoAnswer]
        collector.start()
        assert is_summary(answers(loop, asker, "/api/summary")[0])


def test_what_is_no_summary_is_told_from_one():
    whole = {"type": "summary", "totals": {}, "groups": [], "processes": [], "collector": {}}
    assert is_summary(whole)
    for wrong in ([], None, {}, {**whole, "type": "snapshot"}, {**whole, "totals": []}, {**whole, "groups": None}):
        assert not is_summary(wrong)


def test_asking_imports_no_http_and_no_urllib():
    code = ("import sys, modwsgi_tel.report.client as client; client.Place('127.0.0.1:80').addresses()\n"
            "heavy = {'http.client', 'urllib.parse', 'email', 'ssl', 'encodings.idna'}\n"
            "sys.exit(' '.join(heavy & set(sys.modules)) or 0)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean_environment(), timeout=DEADLINE_S,
                          stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
