"""modwsgi_tel.client: what it asks, what it answers, and a stream of events that outlives the collector."""
import ast
import itertools
import os
import signal
import subprocess
import sys
import time

import pytest

import modwsgi_tel
from builders import Worker
from modwsgi_tel import client as api
from modwsgi_tel.client import Client, ClientError, Event, NoAnswer, Nonsense, NotAllowed, UsageError
from modwsgi_tel.errors import TelError
from running import Collector, clean_environment, free_port, short_folder

DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def in_time():
    """A stream that never tells what is waited for ends its test."""
    def late(number, frame):
        raise AssertionError("nothing came")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 2 * DEADLINE_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


# --- what is asked ----------------------------------------------------------------------------------------

@pytest.fixture
def asked(monkeypatch):
    """The (method, path) that a Client asks; each is answered with {"findings": [], "dropped": 3}."""
    found = []

    def fetch(path, method="GET", **where):
        found.append((method, path))
        return {"findings": [], "dropped": 3}

    monkeypatch.setattr(api, "fetch", fetch)
    return found


def test_each_method_asks_one_path(asked):
    client = Client()
    assert [client.findings(), client.clear_slow()] == [[], 3]
    client.state(group="shop & co", pid=7, since=1700000000.5, samples=2)
    client.summary(window=("now", "1m"), parts="totals")
    client.summary()
    client.slow(life=["active"], search="/caf\u00e9?", limit=3)
    client.stacks(id=4)
    client.get("/api/processes", tree=True, flat=False, group=None)
    assert asked == [
        ("GET", "/api/summary?window=1m&parts=findings"), ("POST", "/api/slow/clear"),
        ("GET", "/api/state?group=shop%20%26%20co&pid=7&since=1700000000.5&samples=2"), ("GET", "/api/summary?window=now%2C1m&parts=totals"),
        ("GET", "/api/summary"), ("GET", "/api/slow?life=active&search=%2Fcaf%C3%A9%3F&limit=3"), ("GET", "/api/stacks?id=4"),
        ("GET", "/api/processes?tree=1&flat=0")]


@pytest.mark.parametrize("make", [lambda: Client("ftp://x"), lambda: Client("https://x"), lambda: Client(token="a\nb"),
                                  lambda: Client().get("no slash"), lambda: Client().get("/a b")])
def test_what_cannot_be_meant_is_a_usage_error(make):
    with pytest.raises(UsageError):
        make()


def test_the_errors_are_one_family():
    assert ClientError is TelError
    assert all(issubclass(each, ClientError) for each in (NoAnswer, NotAllowed, Nonsense, UsageError))


@pytest.mark.parametrize("answer", [[], "x", None, 5, {"findings": 5, "dropped": "x"}], ids=repr)
def test_an_answer_of_another_shape_is_nonsense(monkeypatch, answer):
    monkeypatch.setattr(api, "fetch", lambda path, **more: answer)
    for ask in (lambda: Client().findings(), lambda: Client().clear_slow(), lambda: next(Client().events())):
        with pytest.raises(Nonsense, match="another version"):
            ask()


def test_the_names_that_are_promised_have_types():
    with open(api.__file__, encoding="utf-8") as handle:
        tree = ast.parse(handle.read())
    without = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and (
        node.returns is None or any(each.annotation is None for each in (*node.args.args, *node.args.kwonlyargs) if each.arg != "self"))]
    assert without == []
    assert os.path.exists(os.path.join(os.path.dirname(modwsgi_tel.__file__), "py.typed"))


# --- a real collector -------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def collector():
    with short_folder() as folder, Collector("--http-socket", f"{folder}/http") as running:
        running.path = f"{folder}/http"
        worker = Worker(7, interval=600.0)          # neither silent nor stale, however long the tests take
        running.send(worker.started(), worker.tick(requests=30, sample_period=30.0), worker.slow("r1", stamp=time.time()))
        running.wait_for("/api/slow", lambda answer: answer["slow_requests"])
        yield running


def test_what_it_answers_is_what_the_paths_have(collector):
    with Client(f"http://127.0.0.1:{collector.port}") as by_port, Client(http_socket=collector.path) as by_path:
        for client in (by_port, by_path):
            assert client.summary(parts="totals")["totals"]["counters"] == collector.json("/api/summary")["totals"]["counters"]
            assert [row["pid"] for row in client.state(samples=1)["processes"]] == [7]
            assert [row["entry"]["log_id"] for row in client.slow(life="active")["slow_requests"]] == ["r1"]
            assert client.findings() == []
            assert client.stacks(limit=1)["offset"] == 0
            assert client.clear_slow() == 0
            assert client.get("/version")["name"] == "modwsgi-tel"


def test_a_refusal_says_its_reason(collector):
    with pytest.raises(Nonsense) as caught:
        Client(http_socket=collector.path).summary(window="2m")
    assert caught.value.said == "window=2m: one or more of now,1m,10m"


def test_nobody_there_is_no_answer(tmp_path):
    with pytest.raises(NoAnswer, match="No such file or directory"):
        Client(http_socket=str(tmp_path / "http")).summary()


def test_a_token_is_given(tmp_path):
    path = tmp_path / "token"
    path.write_text("s3cret-of-this-test\n")
    with Collector("--token-file", str(path)) as running:
        url = f"http://127.0.0.1:{running.port}"
        assert Client(url, token="s3cret-of-this-test").findings() == []
        for ask in (lambda: Client(url).findings(), lambda: next(Client(url, token="another").events(0.1))):
            with pytest.raises(NotAllowed):
                ask()


# --- events -----------------------------------------------------------------------------------------------

def told(stream, count):
    """The next so many events: (kind, what tells it)."""
    return [(event.kind, event.data.get("log_id") or event.data.get("id") or event.data.get("pid") or event.data.get("restarted"))
            for event in itertools.islice(stream, count)]


def quiet(client, turns=3):
    """What a stream tells in some turns of nothing new: a client that closes itself."""
    left = iter(range(turns))
    ask = client.summary

    def counted(**more):
        if next(left, None) is None:
            client.close()
        return ask(**more)

    client.summary = counted
    return list(client.events(0.05))


def test_events_are_told_once_and_in_their_order_through_a_restart_of_the_collector():
    with short_folder() as folder, Collector("--http-socket", f"{folder}/http") as running:
        client = Client(http_socket=f"{folder}/http")
        worker, other = Worker(7, interval=600.0), Worker(8, group="api", interval=600.0)
        running.send(worker.started(), worker.tick(requests=1), worker.slow("before"), worker.slow("ended", done=True))
        running.wait_for("/api/slow", lambda answer: answer["matched"] == 2)
        stream = client.events(0.05)
        # what runs at the beginning is told, what is over is not
        assert told(stream, 1) == [("slow_request", "before")]
        running.send(other.started(), other.tick(requests=1), worker.slow("r2"), worker.slow("before", done=True, slow_duration=9.0))
        assert told(stream, 3) == [("process_started", 8), ("slow_request", "r2"), ("slow_request_ended", "before")]
        assert running.stop() == 0
        assert [kind for kind, _ in told(stream, 1)] == ["collector_lost"]
        running.start()
        assert told(stream, 1) == [("collector_back", True)]
        running.send(worker.tick(requests=1), worker.slow("r2"), worker.slow("r3"))      # r2 runs on: known
        assert told(stream, 1) == [("slow_request", "r3")]
        running.send(worker.slow("r2", done=True, slow_duration=9.0), worker.stopping(), worker.stopped())
        assert told(stream, 4) == [("slow_request_ended", "r2"), ("process_stopping", 7), ("process_stopped", 7), ("slow_request_ended", "r3")]
        stream.close()
        assert list(stream) == []


@pytest.mark.parametrize("refresh", [0, -1.0, float("nan")])
def test_no_refresh_asks_without_a_pause(monkeypatch, refresh):
    client, done = Client(), []
    monkeypatch.setattr(api._Stream, "turn", lambda stream: done.append("turn") or (client.close() if len(done) > 6 else None) or [])
    monkeypatch.setattr(api.time, "sleep", lambda seconds: done.append("pause") or client.close())
    assert list(client.events(refresh)) == [] and done == ["turn", "pause"]


def test_findings_come_and_go():
    with Collector() as running:
        client, worker = Client(f"http://127.0.0.1:{running.port}"), Worker(7, interval=600.0)
        stream = client.events(0.05, since=0)
        running.send(worker.started(), worker.tick(requests=30, status={"5xx": 30}))
        assert told(stream, 2) == [("process_started", 7), ("finding", "errors")]
        running.send(worker.tick(requests=2000))
        assert told(stream, 1) == [("finding_ended", "errors")]
        assert told(client.events(0.05, since=0), 1) == [("process_started", 7)]
        assert quiet(client) == []


def test_only_what_is_about_a_group_is_told(collector):
    client = Client(http_socket=collector.path)
    assert told(client.events(0.05, since=0, group="app"), 2) == [("process_started", 7), ("slow_request", "r1")]
    ask, left = client.summary, iter(range(3))

    def counted(**more):
        if next(left, None) is None:
            client.close()
        return ask(**more)

    client.summary = counted
    assert list(client.events(0.05, since=0, group="another")) == []


def test_a_first_turn_without_an_answer_is_an_error_and_not_a_wait():
    port = free_port()
    with pytest.raises(NoAnswer, match=f"http://127.0.0.1:{port} does not answer"):
        next(Client(f"http://127.0.0.1:{port}").events())


class Told:
    """A collector as plain data: what it answers next, by path."""

    def __init__(self, monkeypatch):
        self.wall, self.uptime, self.pid, self.lives, self.slow, self.findings, self.asked = 1000.0, 50.0, 1, [], [], [], []
        monkeypatch.setattr(api, "fetch", self.fetch)

    def fetch(self, path, method="GET", **where):
        self.asked.append(path)
        if path.startswith("/api/summary"):
            return {"time": self.wall, "collector": {"pid": self.pid, "uptime_s": self.uptime}, "findings": self.findings}
        if path.startswith("/api/lifecycle"):
            since = float(path.partition("since=")[2])
            return {"lifecycle_events": [row for row in self.lives if row["received"] > since]}
        number = path.partition("id=")[2].partition("&")[0]
        return {"slow_requests": [row for row in self.slow if not number or row["entry"]["id"] == int(number)]}


def a_life(received, kind="process_started"):
    return {"kind": kind, "pid": 7, "sender_pid": 7, "stamp": received, "received": received}


def a_slow(log_id, life="active", id=1, **more):
    return {"key": [7, log_id], "entry": {"pid": 7, "sender_pid": 7, "process_group": "app", "life": life, "id": id, "log_id": log_id, "ended": None,
                                          "first_received": 1000.0, **more}}


@pytest.fixture
def turns(monkeypatch):
    """(Told, turn()): turn gives the events of one turn as (kind, log_id or received or text)."""
    source = Told(monkeypatch)
    stream = api._Stream(Client(), 0.05, None, None)

    def turn():
        source.uptime += 0.001
        return [(event.kind, event.data.get("log_id") or event.data.get("received") or event.data.get("text")) for event in stream.turn()]

    return source, turn


def test_an_event_that_is_asked_for_again_is_not_told_again_even_when_the_clock_is_set_back(turns):
    source, turn = turns
    source.lives.append(a_life(999.0))
    assert turn() == []
    source.lives.append(a_life(1000.5))
    source.wall = 1001.0
    assert (turn(), turn()) == ([("process_started", 1000.5)], [])
    source.wall = 500.0                 # and what was received by the former clock is no news
    source.lives.append(a_life(499.9))
    assert (turn(), turn()) == ([("process_started", 499.9)], [])


def test_a_request_that_the_newest_answers_leave_out_is_asked_for_by_its_number(turns):
    source, turn = turns
    source.slow = [a_slow("a", id=5)]
    assert turn() == [("slow_request", "a")]
    real, source.fetch = source.fetch, None
    lost = a_slow("a", "lost", id=5, ended=1002.0)

    def fetch(path, **more):            # the list of what was heard lately has it no more
        return {"slow_requests": [lost] if "id=5" in path else []} if path.startswith("/api/slow") else real(path, **more)

    api.fetch = fetch
    assert (turn(), turn()) == ([("slow_request_ended", "a")], [])


def test_a_request_that_the_collector_forgot_ends_as_forgotten(turns, monkeypatch):
    source, turn = turns
    source.slow = [a_slow("a", id=5)]
    assert turn() == [("slow_request", "a")]
    source.slow = []
    assert turn() == []
    monkeypatch.setattr(api, "FORGOTTEN_S", 0.0)
    assert (turn(), turn()) == ([("slow_request_ended", "a")], [])


def test_findings_of_one_rule_are_told_from_one_another(turns):
    source, turn = turns
    source.findings = [{"id": "restarting", "hostname": "h", "process_group": "app", "process": None, "text": text} for text in ("a", "b")]
    assert (turn(), turn()) == ([("finding", "a"), ("finding", "b")], [])
    source.findings = source.findings[:1]
    assert (turn(), turn()) == ([("finding_ended", "b")], [])


def test_what_is_remembered_is_bounded(turns, monkeypatch):
    source, turn = turns
    monkeypatch.setattr(api, "REMEMBERED", 10)
    turn()
    source.lives = [a_life(1000.0 + number / 1000) for number in range(50)]
    source.slow = [a_slow(f"r{number}", id=number) for number in range(50)]
    assert len(turn()) == 100
    stream = turn.__closure__
    held = next(cell.cell_contents for cell in stream if isinstance(cell.cell_contents, api._Stream))
    assert (len(held._told._keys), len(held._slow)) == (10, 10)


def test_a_collector_with_the_same_pid_that_runs_for_less_long_is_another_one(turns):
    source, turn = turns
    turn()
    source.uptime = 3.0
    assert [kind for kind, _ in turn()] == ["collector_back"]


# --- where it can be imported from --------------------------------------------------------------------------

def test_an_event_is_a_named_tuple():
    assert Event("a", 1.0, {})._fields == ("kind", "time", "data")


def test_nothing_that_only_a_collector_needs_is_imported():
    code = ("import sys; import modwsgi_tel.client; print([name for name in sys.modules if name in ('http', 'urllib.request', 'ssl', 'threading', "
            "'argparse') or name.startswith('modwsgi_tel.') and name.split('.')[1] not in ('client', 'errors', 'report')])")
    root = os.path.dirname(os.path.dirname(modwsgi_tel.__file__))
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=clean_environment(), stdout=subprocess.PIPE, timeout=DEADLINE_S)
    assert done.stdout == b"[]\n"


@pytest.mark.pyz
def test_it_is_imported_out_of_the_archive_too(pyz, tmp_path):
    code = ("from modwsgi_tel.client import Client, NoAnswer\n"
            "try: Client(http_socket='/nowhere').summary()\n"
            "except NoAnswer as error: print(error)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean_environment(PYTHONPATH=f"{pyz}/site-packages"),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE_S)
    assert (done.stdout, done.stderr) == (b"/nowhere does not answer: No such file or directory; is the collector running?\n", b"")
