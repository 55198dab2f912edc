"""The agent inside of real WSGI servers that report nothing themselves: what was done to the server is what the collector tells."""
import collections
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import apache
import running
import wsgiservers
from modwsgi_tel.agent import server as agent_server
from modwsgi_tel.agent import settings
from modwsgi_tel.agent.core import Agent
from modwsgi_tel.agent.timers import Timers
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.fields import AGENT_STATE, PROCESS_STOPPED, PROCESS_STOPPING

APP = os.path.join(running.ROOT, "tests", "apps", "inside.py")
INTERVAL_S, THRESHOLD_S, SLOW_S, STREAM_S = 0.5, 0.4, 1.2, 1.4
LOAD = ("/", "/404", "/500", "/raise", "/cpu?0.02") * 6
CONNECTIONS = 4

# server: how it is started.  threads: of each process, None where that is not known.  before: phases before the application.
# end: the signal that ends it in order, and its exit status.  breaks_off: an exception leaves the client without an answer.
Case = collections.namedtuple("Case", "server group threads workers before end breaks_off name", defaults=(1, (), (signal.SIGTERM, 0), False, ""))


def case(kind, *options, group, threads, **more):
    named = {name: more.pop(name) for name in ("workers", "before", "end", "breaks_off", "name") if name in more}
    if kind in (wsgiservers.Gunicorn, wsgiservers.Uwsgi):
        more["workers"] = named.get("workers", 1)
    elif kind is wsgiservers.DebianApache:
        more["processes"] = named.get("workers", 1)
    return Case(lambda environment: kind(APP, *options, environment=environment, **more), group, threads, **named)


CASES = {
    "gunicorn sync": case(wsgiservers.Gunicorn, group="gunicorn", threads=1, workers=2),
    "gunicorn gthread": case(wsgiservers.Gunicorn, "--threads", "4", group="gunicorn", threads=4),
    "gunicorn preload": case(wsgiservers.Gunicorn, "--preload", group="gunicorn", threads=1, workers=2),
    "uwsgi": case(wsgiservers.Uwsgi, "--enable-threads", group="uwsgi", threads=1, end=(signal.SIGTERM, 30), breaks_off=True),
    "uwsgi master": case(wsgiservers.Uwsgi, "--master", "--enable-threads", group="uwsgi", threads=1, workers=2, breaks_off=True),
    "uwsgi threads": case(wsgiservers.Uwsgi, "--master", "--threads", "2", group="uwsgi", threads=2, breaks_off=True),
    "uwsgi lazy": case(wsgiservers.Uwsgi, "--master", "--lazy-apps", "--enable-threads", group="uwsgi", threads=1, breaks_off=True),
    "waitress": case(wsgiservers.Waitress, "--threads=3", group="waitress", threads=None, end=(signal.SIGINT, 0)),
    "wsgiref": case(wsgiservers.Wsgiref, group="wsgiserver", threads=None, end=(signal.SIGINT, -signal.SIGINT)),
    "mod_wsgi daemon": case(wsgiservers.DebianApache, group="app", threads=3, workers=2, before=("server", "queue", "daemon")),
    "mod_wsgi embedded": case(wsgiservers.DebianApache, embedded=True, group="", threads=3, before=("server",)),
    "mod_wsgi interpreter": case(wsgiservers.DebianApache, application="%{RESOURCE}", group="app", threads=3,
                                 before=("server", "queue", "daemon")),
}
UNKNOWN = ("gil_wait_time", "gil_wait_count", "input_bytes_total", "input_read_time", "output_write_time", "request_threads_cpu_time")


def environment(collector, where, **more):
    """Of a server whose agent tells `collector`."""
    given = {"socket": "unix:" + (collector if isinstance(collector, str) else collector.socket),
             "telemetry_interval": INTERVAL_S, "threshold": THRESHOLD_S, "interval": 0.2, **more}
    return {"MODWSGI_TEL_TEST_PATH": where, **{"MODWSGI_TEL_AGENT_" + name.upper(): str(value) for name, value in given.items()}}


@contextlib.contextmanager
def started(make):
    """The server that `make()` gives, while it runs; where it is not here the test is skipped, or fails where servers are required."""
    try:
        server = make()
    except apache.Missing as missing:
        if "servers" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
            pytest.fail("no such server, and it is required: %s" % missing)
        pytest.skip("no such server: %s" % missing)
    with server:
        yield server


@pytest.fixture
def collecting(serve):
    """A collector that every user may tell."""
    return lambda *options, **more: serve("--socket-mode", "0666", *options, **more)


class Load(apache.Client):
    """Clients of which each path is noted as it was asked for; what breaks off is None."""

    def __init__(self, server):
        super().__init__(server)
        self.asked = collections.Counter()

    def start(self, *paths):
        self.asked.update(path.partition("?")[0] for path in paths)
        super().start(*paths)

    def statuses(self):
        """{"2xx": ..}: what the collector has to tell; a server that answers an exception with nothing counts as 5xx too."""
        classes = {"/404": "4xx", "/500": "5xx", "/raise": "5xx"}
        found = collections.Counter({"2xx": 0, "4xx": 0, "5xx": 0, "1xx": 0, "3xx": 0})
        for path, count in self.asked.items():
            found[classes.get(path, "2xx")] += count
        return dict(found)


def loaded(server, connections=CONNECTIONS, paths=LOAD):
    """A Load that runs, with the requests that the start took in it."""
    load = Load(server)
    load.asked["/"] += sum(server.made.values())
    for _ in range(connections):
        load.start(*paths)
    return load


def rows(collector, group):
    return [each for each in collector.json("/api/summary")["processes"] if each["process_group"] == group]


def counted(collector, group):
    """{"requests", "1xx".."5xx"} added up over the processes of a group."""
    found = collections.Counter()
    for each in rows(collector, group):
        for name, count in each["counters"].items():
            if name == "requests" or name.startswith("status_"):
                found[name.replace("status_", "")] += count
    return dict(found)


def wait_for_counts(collector, group, load, timeout=15.0):
    """Wait until all requests are counted; then everything has to be right at once."""
    wanted = {"requests": sum(load.asked.values()), **load.statuses()}
    running.wait_until(lambda: counted(collector, group).get("requests", 0) >= wanted["requests"], timeout,
                       lambda: "wanted %s, is %s" % (wanted, counted(collector, group)), pause=0.1)
    assert counted(collector, group) == wanted


def slow(collector, path):
    return [each["entry"] for each in collector.json("/api/slow")["slow_requests"] if each["entry"]["path_info"] == path]


def lives(collector, pids):
    return {each["pid"]: each["life"] for each in collector.json("/api/summary")["processes"] if each["pid"] in pids}


def wait_for_lives(collector, wanted, timeout=20.0):
    running.wait_until(lambda: lives(collector, wanted) == wanted, timeout,
                       lambda: "wanted %s, is %s" % (wanted, lives(collector, wanted)), pause=0.1)


def events(collector, pid):
    return [each["kind"] for each in collector.json("/api/lifecycle")["lifecycle_events"] if each["pid"] == pid]


def tool(collector, *command):
    done = subprocess.run([*running.CHECKOUT, *command, "--url", "http://127.0.0.1:%d" % collector.port], cwd=running.ROOT, timeout=30,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                          env=running.clean_environment())
    assert (done.returncode, done.stderr) == (0, ""), (command, done.stdout, done.stderr)
    return done.stdout


def shown(text, pid, column):
    """What stands in a row of a table from its begin to the right end of a column's head."""
    head, row = (next(line for line in text.splitlines() if re.match(pattern, line)) for pattern in (r" *pid +group", r" *%d " % pid))
    return row[:head.index(column) + len(column)].rstrip()


def details(collector, pid):
    return collector.json("/api/processes/%d" % pid)["processes"][0]


def ended(server, number, turns=10):
    """Its exit status."""
    for _ in range(turns):              # wsgiref takes no notice of a KeyboardInterrupt in the middle of a request
        server.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return server.process.wait(20.0 / turns if number == signal.SIGINT else 20.0)
    raise AssertionError("it did not end: " + server.log())


# --- the load that was made is what is told -------------------------------------------------------------

@pytest.mark.parametrize("name", CASES)
def test_the_load_that_was_made_is_what_is_told(name, sources, collecting):
    wanted = CASES[name]
    collector = collecting()
    with started(lambda: wanted.server(environment(collector, sources))) as server:
        pids = server.pids()
        began = time.monotonic()
        load = loaded(server)
        load.start("/slow?%s" % SLOW_S)
        load.start("/stream?%s" % STREAM_S)

        entry, = collector.wait_for("/api/slow", lambda answer: [
            each["entry"] for each in answer["slow_requests"]
            if each["entry"]["path_info"] == "/slow" and each["entry"]["life"] == "active" and each["entry"]["agent"]])
        assert entry["pid"] in pids and entry["method"] == "GET" and THRESHOLD_S <= entry["duration"] < SLOW_S + 1.0
        load.wait()
        took_s = time.monotonic() - began
        wait_for_counts(collector, wanted.group, load)

        # slow requests: one entry each, with stacks
        def completed(answer):
            return len([each for each in answer["slow_requests"] if each["entry"]["life"] == "completed"]) == 2

        collector.wait_for("/api/slow", completed)
        for path, least_s in (("/slow", SLOW_S), ("/stream", STREAM_S)):
            entry, = slow(collector, path)
            assert least_s <= entry["duration"] < least_s + 1.0 and entry["status"] == 200, entry
            # between two pieces of a stream its thread may have no frame
            assert entry["agent"]["stacks"] >= (2 if path == "/slow" else 1), entry["agent"]
            assert entry["agent"]["last"]["frames"] and entry["agent"]["pivot"], entry["agent"]
            if path == "/slow":         # between two pieces of a stream the server sends
                stack = entry["agent"]["last"]["frames"]
                assert (stack[0]["function"], stack[0]["file"]) == ("sleeps", server.app), stack

        # what the application did, and what is known of before
        group, = [each for each in collector.json("/api/summary")["groups"] if each["process_group"] == wanted.group]
        window = group["windows"]["1m"]
        assert sorted(window["phases"]) == sorted((*wanted.before, "application", "request"))
        least_s = load.asked["/cpu"] * 0.02 + SLOW_S + STREAM_S
        spent_s = window["phases"]["application"]["mean"] * window["requests"]
        assert least_s <= spent_s <= took_s * (CONNECTIONS + 2)
        assert 0 < window["cpu"] < os.cpu_count()
        assert window["gil"] == {"share": None, "coefficient": None}
        assert (window["capacity"] is None) == (wanted.threads is None)
        if wanted.threads:
            assert 0.01 < window["capacity"] <= 1.0

        # each process
        assert lives(collector, pids) == dict.fromkeys(pids, "running")
        for each in rows(collector, wanted.group):
            assert each["threads"]["maximum"] == wanted.threads and each["threads"]["started"] >= 1
            assert each["rss"] > 5 << 20 and each["max_rss"] > 5 << 20 and each["slow_active"] == 0
            assert each["implausible"] == 0, each
            found = details(collector, each["pid"])
            fields = found["newest"]["fields"]
            assert [field for field in UNKNOWN if field in fields] == []
            agent, = found["agent"]["agents"]
            assert (agent["number"], agent["emits"], agent["problem"], agent["errors"]) == (0, True, None, 0), agent
            assert agent["server"] is None or agent["server"].lower().startswith(name.split()[0])
        assert len(rows(collector, wanted.group)) == wanted.workers

        # exceptions
        found, = collector.wait_for("/api/exceptions", lambda answer: [
            each for each in answer["exceptions"] if each["count"] >= load.asked["/raise"]])
        assert (found["type"], found["count"], found["path"]) == ("LookupError", load.asked["/raise"], "/raise")
        assert [each["function"] for each in found["frames"]][0] == "raises"

        # every face: what is not known is no figure
        for command in (["dump"], ["top", "--once"]):
            assert shown(tool(collector, *command), pids[0], "busy").endswith("-" if wanted.threads is None else "%"), command
        assert "Fatal" not in server.log() and ended(server, wanted.end[0]) == wanted.end[1], server.log()
    wait_for_lives(collector, dict.fromkeys(pids, "stopped"))
    for pid in pids:
        assert events(collector, pid) == ["process_started", "process_stopping", "process_stopped"]
    wait_for_counts(collector, wanted.group, load)             # the last words add nothing


def asked(server, path, headers=None, timeout=60.0):
    """(status, body) of a request, which is counted as the server's own are."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    server.made[answer.status] += 1
    return answer.status, body


@pytest.mark.parametrize("name", ["gunicorn sync", "gunicorn preload", "uwsgi master"])
def test_workers_are_known_before_their_first_request_and_their_masters_are_not(name, sources, collecting):
    collector = collecting()
    with started(lambda: CASES[name].server(environment(collector, sources))) as server:
        wait_for_lives(collector, dict.fromkeys(server.pids(), "running"))
        assert sorted(each["pid"] for each in collector.json("/api/summary")["processes"]) == server.pids()
        assert sum(server.made.values()) == 1


def test_a_proxys_stamp_tells_how_long_a_request_waited(sources, collecting):
    collector = collecting()
    with started(lambda: wsgiservers.Gunicorn(APP, environment=environment(collector, sources))) as server:
        asked(server, "/", {"X-Request-Start": "t=%.3f" % (time.time() - 2.0)})
        window = collector.wait_for("/api/summary", lambda answer: [
            each["windows"]["1m"] for each in answer["groups"] if each["windows"]["1m"]["requests"] == 2])[0]
        assert 2.0 <= window["phases"]["queue"]["max"] < 3.0 and window["phases"]["request"]["max"] >= 2.0
        assert sorted(window["phases"]) == ["application", "queue", "request"]


def test_a_worker_that_was_killed_has_vanished_and_its_request_is_lost(sources, collecting):
    collector = collecting()
    with started(lambda: wsgiservers.Gunicorn(APP, "--timeout", "60", workers=2, environment=environment(collector, sources))) as server:
        load = apache.Client(server)
        load.start("/slow?50")
        entry, = collector.wait_for("/api/slow", lambda answer: [each["entry"] for each in answer["slow_requests"]])
        os.kill(entry["pid"], signal.SIGKILL)
        wait_for_lives(collector, {entry["pid"]: "vanished"})
        assert [each["life"] for each in slow(collector, "/slow")] == ["lost"]
        assert isinstance(load.wait()[0], Exception)
        running.wait_until(lambda: len(lives(collector, server.pids())) == 2, 20, "the new worker is known", pause=0.1)
        assert lives(collector, server.pids()) == dict.fromkeys(server.pids(), "running")


RECYCLED = {
    "gunicorn": lambda given: wsgiservers.Gunicorn(APP, "--max-requests", "40", "--threads", "2", environment=given),
    "uwsgi": lambda given: wsgiservers.Uwsgi(APP, "--master", "--enable-threads", "--max-requests", "40", "--min-worker-lifetime", "0",
                                        environment=given),
    "mod_wsgi": lambda given: wsgiservers.DebianApache(APP, options="maximum-requests=40", environment=given),
    "mod_wsgi interpreter": lambda given: wsgiservers.DebianApache(APP, options="maximum-requests=40 shutdown-timeout=2",
                                                                   application="%{RESOURCE}", environment=given),
}


@pytest.mark.parametrize("name", RECYCLED)
def test_workers_that_are_recycled_lose_no_counts(name, sources, collecting):
    collector = collecting()
    with started(lambda: RECYCLED[name](environment(collector, sources))) as server:
        load = loaded(server, 2, ("/", "/404", "/cpu?0.005") * 20)
        answers = load.wait()
        assert not [each for each in answers if isinstance(each, Exception)], (answers, server.log())
        group = "app" if name.startswith("mod_wsgi") else name
        wait_for_counts(collector, group, load)
        gone = {each["pid"] for each in rows(collector, group)} - set(server.pids())
        assert len(gone) >= 2
        wait_for_lives(collector, dict.fromkeys(gone, "stopped"))
        assert not re.search("Fatal Python error|exit signal|Traceback", server.log()), server.log()


def test_two_interpreters_of_a_process_are_counted_together_and_its_cpu_and_memory_once(sources, collecting):
    collector = collecting()
    second = "WSGIScriptAlias /second {app} process-group=app application-group=second"
    with started(lambda: wsgiservers.DebianApache(APP, first=second, environment=environment(collector, sources))) as server:
        load = loaded(server, 3, ("/", "/second/", "/404", "/second/404", "/second/cpu?0.02") * 10)
        load.asked["/404"] += load.asked.pop("/second/404")
        load.wait()
        wait_for_counts(collector, "app", load)
        pid, = server.pids()
        found = collector.wait_for("/api/processes/%d" % pid, lambda answer: (
            answer["processes"][0] if len(answer["processes"][0]["agent"]["agents"]) == 2 else None))
        assert sorted(each["interpreter"] for each in found["agent"]["agents"]) == ["", "second"]
        numbers = sorted(each["number"] for each in found["agent"]["agents"])
        assert numbers[0] == 0 < numbers[1] and sorted(found["sources"]) == sorted(["agent", "agent %d" % numbers[1]])
        assert events(collector, pid) == ["process_started"]
        with open("/proc/%d/statm" % pid) as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert abs(found["rss"] - resident) < 4 << 20 and found["interpreters"] == 2
        summary = collector.json("/api/summary")
        assert abs(summary["totals"]["rss"] - resident) < 4 << 20
        collector.wait_for("/api/processes/%d" % pid, lambda answer: answer["processes"][0]["windows"]["1m"]["ticks"] >= 4)
        window = details(collector, pid)["windows"]["1m"]
        assert window["seconds"] <= window["ticks"] * INTERVAL_S * 1.5          # the second agent tells no time of its own
        assert ended(server, signal.SIGTERM) == 0
    wait_for_lives(collector, {pid: "stopped"})
    wait_for_counts(collector, "app", load)
    assert events(collector, pid) == ["process_started", "process_stopping", "process_stopped"]


# --- what is not seen is said ---------------------------------------------------------------------------

def test_uwsgi_without_threads_is_said_and_breaks_nothing(sources, collecting):
    collector = collecting()
    with started(lambda: wsgiservers.Uwsgi(APP, environment=environment(collector, sources))) as server:
        said = "uWSGI lets no thread of Python's run between requests without --enable-threads"
        assert asked(server, "/slow?1")[0] == 200
        assert said in server.log()
        problem = collector.wait_for("/api/processes/%d" % server.pids()[0], lambda answer: [
            each["problem"] for each in answer["processes"][0]["agent"]["agents"] if each["problem"]])
        assert problem[0].startswith(said)
        began = time.monotonic()
        assert ended(server, signal.SIGTERM) == 30 and time.monotonic() - began < 4.0


def test_gevents_workers_are_counted_and_what_is_not_seen_is_said(sources, collecting):
    collector = collecting()
    with started(lambda: wsgiservers.Gevent(APP, environment=environment(collector, sources))) as server:
        pid, = server.pids()
        said = "requests are timed and counted, but which greenlet serves which is not seen, so no stacks (gevent has replaced threads)"
        assert said in server.log()
        load = loaded(server, 8)
        load.start("/slow?%s" % SLOW_S)
        load.wait()
        load.start("/cpu?1.5")                          # no other greenlet runs meanwhile
        collector.wait_for("/api/slow", lambda answer: [
            each for each in answer["slow_requests"] if each["entry"]["path_info"] == "/cpu" and each["entry"]["life"] == "active"])
        load.wait()
        wait_for_counts(collector, "gunicorn", load)
        found = details(collector, pid)
        agent, = found["agent"]["agents"]
        assert agent["problem"] == said
        assert agent["errors"] == 0
        assert found["threads"]["maximum"] is None and found["windows"]["1m"]["capacity"] is None
        entry, = slow(collector, "/slow")
        assert SLOW_S <= entry["duration"] < SLOW_S + 1.0
        # what has no stack now is not looked for again at once
        assert found["kinds"]["long_request"] < 20 and control(pid, {"do": "state"})["state"]["agent_wakeups"] < 100
        assert ended(server, signal.SIGTERM) == 0
    wait_for_lives(collector, {pid: "stopped"})


# --- a collector that is away ---------------------------------------------------------------------------

def test_a_collector_that_comes_late_goes_and_returns_loses_no_counts_and_knows_all_stacks(sources):
    with running.short_folder() as folder:
        path = os.path.join(folder, "t.sock")

        def collector():
            return running.Collector("--socket-mode", "0666", socket=path)

        with started(lambda: wsgiservers.Gunicorn(APP, "--threads", "4", environment=environment(path, sources))) as server:
            load = loaded(server, 2)
            assert collections.Counter(load.wait()) == {200: 24, 404: 12, 500: 24}     # nobody is there to see these
            with collector() as first:
                load.start("/slow?%s" % SLOW_S)
                first.wait_for("/api/slow", lambda answer: [
                    each for each in answer["slow_requests"] if each["entry"]["life"] == "completed"])
                wait_for_counts(first, "gunicorn", load)
                assert [each["count"] for each in first.json("/api/exceptions")["exceptions"]] == [load.asked["/raise"]]
                assert first.stop() == 0
            later = Load(server)
            for paths in (LOAD, LOAD, ("/slow?4",)):
                later.start(*paths)
            time.sleep(INTERVAL_S * 2)                          # ticks that nobody takes
            with collector() as second:
                assert [each for each in later.wait() if isinstance(each, Exception)] == []
                wait_for_counts(second, "gunicorn", later)
                entry, = second.wait_for("/api/slow", lambda answer: [
                    each["entry"] for each in answer["slow_requests"] if each["entry"]["life"] == "completed"])
                frames = entry["agent"]["last"]["frames"]
                assert (frames[0]["function"], frames[0]["file"]) == ("sleeps", server.app)
                found = details(second, server.pids()[0])
                assert found["agent"]["unknown_locations"] == 0 and found["agent"]["agents"][0]["errors"] == 0


def test_without_any_collector_long_requests_are_in_the_servers_log_and_bounded(sources):
    with running.short_folder() as folder:
        given = environment(os.path.join(folder, "none.sock"), sources, interval=0.05)
        with started(lambda: wsgiservers.Gunicorn(APP, "--threads", "4", environment=given)) as server:
            load = apache.Client(server)
            for _ in range(4):
                load.start("/slow?%s" % SLOW_S)
            assert load.wait() == [200] * 4
            said = running.wait_until(lambda: os.pread(server._log.fileno(), 1 << 20, 0).decode().count(" ended after ") == 4 and
                                      os.pread(server._log.fileno(), 1 << 20, 0).decode(), 10, server.log)
        pattern = r"modwsgi-tel agent pid \d+: request 0\.\d+ GET /slow has run for \d\.\d s: stack (\d+), outermost first\n((?:    .*\n)+)"
        found = re.findall(pattern, said)
        assert 8 <= len(found) <= 60 and len(re.findall("modwsgi-tel agent pid", said)) <= 120
        for _, lines in found:
            assert lines.rstrip().endswith("inside.py:%d sleeps" % line_of("time.sleep(duration)"))


def line_of(text):
    with open(APP) as file:
        return next(number for number, line in enumerate(file, 1) if text in line)


# --- forks of the application ---------------------------------------------------------------------------

FORKING = {
    "gunicorn": lambda given: wsgiservers.Gunicorn(APP, "--threads", "4", environment=given),
    "gunicorn preload": lambda given: wsgiservers.Gunicorn(APP, "--preload", "--threads", "4", environment=given),
    "uwsgi": lambda given: wsgiservers.Uwsgi(APP, "--master", "--threads", "4", environment=given),
    "mod_wsgi": lambda given: wsgiservers.DebianApache(APP, threads=4, environment=given),
}


@pytest.mark.parametrize("name", FORKING)
def test_forks_of_the_application_end_as_they_would_and_nobody_else_is_reported(name, sources, collecting):
    # uWSGI's threads but the first are none of Python's own: a child of such a one cannot end as a program, whoever forks
    ways = ("/fork", *(("/fork-exits", "/multiprocessing") if name != "uwsgi" else ()), "/subprocess")
    with started(lambda: FORKING[name]({})) as server:
        wanted = {path: asked(server, path) for path in ways}
        assert (wanted["/fork"], wanted["/subprocess"]) == ((200, "2"), (200, "5"))
    collector = collecting()
    with started(lambda: FORKING[name](environment(collector, sources, threshold=0.05, interval=0.05))) as server:
        pid, = server.pids()
        assert {path: asked(server, path) for path in ways} == wanted
        results = []
        threads = [threading.Thread(target=lambda: results.append(asked(server, "/forks?50"))) for _ in range(2)]
        load = apache.Client(server)
        load.start(*["/", "/cpu?0.01", "/slow?0.1"] * 20)
        for each in threads:
            each.start()
        for each in threads:
            each.join(90)
        assert results == [(200, " ".join(["0"] * 50))] * 2, (results, server.log())
        assert load.wait() == [200] * 60
        assert asked(server, "/slow?0.2")[0] == 200             # the agent of the parent goes on
        group = {"gunicorn preload": "gunicorn", "mod_wsgi": "app"}.get(name, name)
        collector.wait_for("/api/summary", lambda answer: answer["totals"]["counters"].get("requests") == sum(server.made.values()))
        assert {each["pid"]: each["life"] for each in collector.json("/api/summary")["processes"]} == {pid: "running"}
        assert [each["process_group"] for each in collector.json("/api/summary")["processes"]] == [group]
        assert events(collector, pid) == ["process_started"]
        agent, = details(collector, pid)["agent"]["agents"]
        assert (agent["errors"], agent["problem"]) == (0, None)
        assert server.pids() == [pid] and not re.search("Fatal Python error|exit signal|Traceback", server.log()), server.log()


# --- the end --------------------------------------------------------------------------------------------

ENDING = {**{name: (each.server, each.end[0]) for name, each in CASES.items() if name not in ("uwsgi threads", "uwsgi lazy")},
          "gunicorn gevent": (lambda given: wsgiservers.Gevent(APP, environment=given), signal.SIGTERM),
          "uwsgi alone": (lambda given: wsgiservers.Uwsgi(APP, environment=given), signal.SIGTERM),
          "waitress at once": (lambda given: wsgiservers.Waitress(APP, environment=given), signal.SIGTERM),
          "wsgiref at once": (lambda given: wsgiservers.Wsgiref(APP, environment=given), signal.SIGTERM)}


@pytest.mark.parametrize("name", ENDING)
def test_a_server_ends_as_it_does_without_the_agent(name, sources, collecting):
    collector = collecting()
    make, number = ENDING[name]
    found = {}
    for inside in (False, True):
        with started(lambda: make(environment(collector, sources, threshold=0.1) if inside else {})) as server:
            load = apache.Client(server)
            load.start(*["/", "/cpu?0.01"] * 4)
            load.start("/slow?0.3")             # a long one: the watchdog, the sockets, everything is in use
            load.wait()
            pids = server.pids()
            running.wait_until(lambda: all(running.is_at_rest(pid) for pid in pids), 5, "its threads do not come to rest")
            began = time.monotonic()
            status = ended(server, number)
            took_s = time.monotonic() - began
            words = {line for line in server.log().splitlines() if re.search("Fatal|exit signal|Segm|modwsgi_tel", line)}
            found[inside] = status, words, took_s
    assert found[True][:2] == found[False][:2]
    assert found[True][2] < found[False][2] + 1.0, found
    # where no function of Python's runs at the end (SIGTERM without a handler; uWSGI in the middle of a request) a file is left
    stopped = [pid for pid in pids if "process_stopped" in events(collector, pid)]
    assert [each for each in os.listdir("/tmp") if each.startswith(tuple("modwsgi-tel-agent.%d." % pid for pid in stopped))] == []


def test_a_graceful_restart_under_load_loses_no_counts(sources, collecting):
    collector = collecting()
    with started(lambda: wsgiservers.DebianApache(APP, processes=2, environment=environment(collector, sources))) as server:
        before = server.pids()
        load = loaded(server, 3, ("/", "/cpu?0.02", "/404") * 40)
        time.sleep(0.3)
        server.graceful()
        running.wait_until(lambda: len(server.pids()) == 2 and not set(server.pids()) & set(before), 20, "new processes")
        answers = load.wait()
        assert [each for each in answers if isinstance(each, Exception)] == [], server.log()
        wait_for_lives(collector, {**dict.fromkeys(before, "stopped"), **dict.fromkeys(server.pids(), "running")})
        # 503: Apache's own, where it finds the socket of a daemon that has gone
        wanted = {"requests": server.made[200] + server.made[404], "2xx": server.made[200], "4xx": server.made[404], "5xx": 0, "1xx": 0,
                  "3xx": 0}
        running.wait_until(lambda: counted(collector, "app") == wanted, 15,
                           lambda: "wanted %s, is %s" % (wanted, counted(collector, "app")), pause=0.1)
        assert not re.search("Fatal Python error|exit signal|Traceback|Segmentation", server.log()), server.log()
        assert ended(server, signal.SIGTERM) == 0


@pytest.fixture
def an_agent():
    """(Agent that runs in this process, the socket that it tells)."""
    with running.short_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telemetry:
        telemetry.bind(os.path.join(folder, "t.sock"))
        telemetry.settimeout(10.0)
        agent = Agent(settings.read({"socket": telemetry.getsockname(), "watchdog": 0, "log": "off"}, {}))
        agent.timers = Timers()
        assert agent.start()
        yield agent, telemetry
        agent.stop()


def told(telemetry, kind):
    """The next datagram of a kind."""
    while True:
        found = decode(telemetry.recv(65536))
        if found.kind == kind:
            return found.fields


def test_a_process_that_is_told_to_stop_counts_the_requests_that_run_on(an_agent):
    agent, telemetry = an_agent
    request = agent.begin({})
    ending = threading.Thread(target=agent.stop, args=("graceful_signal", 30.0))
    ending.start()
    assert told(telemetry, PROCESS_STOPPING)["active_requests_at_decision"] == 1
    assert ending.is_alive() and agent.running
    agent.end(request)
    ending.join(10)
    assert not ending.is_alive()
    last = told(telemetry, PROCESS_STOPPED)
    assert (last["lifetime_request_count"], last.get("active_requests_at_exit", 0), last["shutdown_reason"]) == (1, 0, "graceful_signal")


def test_the_last_words_wait_a_moment_where_the_collectors_queue_is_full(an_agent):
    agent, telemetry = an_agent
    request = agent.begin({})
    agent.end(request)
    while agent.sender.send(AGENT_STATE, []):
        pass
    ending = threading.Thread(target=agent.stop)
    ending.start()
    running.wait_until(lambda: not agent.running, 10, "it ends")
    assert told(telemetry, PROCESS_STOPPED)["lifetime_request_count"] == 1
    ending.join(10)


def test_a_full_queue_that_nobody_reads_keeps_no_process_from_its_end(an_agent):
    agent, telemetry = an_agent
    while agent.sender.send(AGENT_STATE, []):
        pass
    began = time.monotonic()
    agent.stop()
    assert time.monotonic() - began < 1.0


def test_a_request_after_the_end_begins_nothing_anew(an_agent):
    agent, _ = an_agent
    agent.stop()
    request = agent.begin({})
    agent.status(request, 200)
    agent.end(request)
    assert not agent.running and not agent.start() and (agent.errors, agent.requests.active) == (0, {})


# --- the built file -------------------------------------------------------------------------------------

@pytest.mark.pyz
@pytest.mark.parametrize("how", ["exchanged", "overwritten", "removed"])
def test_it_goes_on_when_the_built_file_is_replaced(how, pyz, collecting):
    collector = collecting()
    with running.short_folder() as folder:
        mine = shutil.copy(pyz, os.path.join(folder, "modwsgi-tel.pyz"))
        os.chmod(mine, 0o644)
        given = environment(collector, os.path.join(mine, "site-packages"), locals="on", secret="0123456789abcdef")
        with started(lambda: wsgiservers.Gunicorn(APP, "--threads", "4", environment=given)) as server:
            pid, = server.pids()
            before = json.loads(asked(server, "/modules")[1])
            ours = [each for each in before if each.startswith("modwsgi_tel")]
            assert "modwsgi_tel.agent.core" in ours
            if how == "exchanged":
                with open(mine + ".new", "wb") as file:
                    file.write(b"garbage")
                os.replace(mine + ".new", mine)
            elif how == "overwritten":
                with open(mine, "r+b") as file:
                    file.write(b"garbage " * (os.path.getsize(mine) // 8 + 1))
            else:
                os.unlink(mine)
            load = apache.Client(server)
            load.start("/slow?%s" % SLOW_S, "/stream?%s" % STREAM_S, "/raise", "/404")
            load.wait()
            assert "inside.py" in asked(server, "/dump")[1]
            assert asked(server, "/modwsgi-tel-stacks/0123456789abcdef")[0] == 200
            assert '"threads"' in json.dumps(control(pid, {"do": "stacks", "locals": True}))
            assert [control(pid, {"do": "tracemalloc", "what": what}).get("error") for what in ("start", "snapshot", "stop")] == [None] * 3
            entry, = collector.wait_for("/api/slow", lambda answer: [
                each["entry"] for each in answer["slow_requests"]
                if each["entry"]["path_info"] == "/slow" and each["entry"]["life"] == "completed"])
            assert entry["agent"]["last"]["frames"][0]["function"] == "sleeps"
            found, = collector.wait_for("/api/exceptions", lambda answer: answer["exceptions"])
            assert found["frames"][0]["function"] == "raises"
            after = json.loads(asked(server, "/modules")[1])
            assert [each for each in after if each.startswith("modwsgi_tel")] == ours
            agent, = details(collector, pid)["agent"]["agents"]
            assert (agent["errors"], agent["problem"]) == (0, None)
            assert ended(server, signal.SIGTERM) == 0
        wait_for_lives(collector, {pid: "stopped"})


def control(pid, question):
    """What the agent of a process answers on its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asks:
        asks.settimeout(10.0)
        asks.connect("\0modwsgi-tel-agent.%d.0" % pid)
        asks.sendall(json.dumps(question).encode() + b"\n")
        said = b""
        while not said.endswith(b"\n"):
            part = asks.recv(1 << 20)
            assert part, "no answer"
            said += part
    return json.loads(said)


# --- which server it is ---------------------------------------------------------------------------------

class Uwsgi:
    """The module that uWSGI has in its processes."""

    version, cores, has_threads, worker = b"2.0.21", 4, 1, 0

    def worker_id(self):
        return self.worker


@pytest.fixture
def uwsgi(monkeypatch):
    found = Uwsgi()
    monkeypatch.setitem(sys.modules, "uwsgi", found)
    return found


def test_a_fork_of_uwsgis_is_told_where_it_makes_a_worker_and_others_hooks_are_kept(uwsgi):
    seen = []
    uwsgi.post_fork_hook = lambda: seen.append("theirs")
    agent_server.on_fork(lambda: seen.append("ours"))
    uwsgi.post_fork_hook()
    uwsgi.worker = 2
    uwsgi.post_fork_hook()
    assert seen == ["theirs", "ours", "theirs"]


def test_uwsgis_threads_are_its_cores_and_where_none_run_that_is_a_problem(uwsgi):
    assert agent_server.identity("")["threads_maximum"] == 4 and agent_server.lacks_threads() == ""
    uwsgi.has_threads = 0
    assert "--enable-threads" in agent_server.lacks_threads()


def called_in(file, name):
    """A function that calls another, by default server.forks_worker, from one of this name and file."""
    names = {}
    exec(compile("def %s(inner):\n    return inner()\n" % name, file, "exec"), names)
    return lambda inner=agent_server.forks_worker: names[name](inner)


def test_a_fork_makes_a_worker_where_gunicorns_master_does_it_and_nowhere_else():
    master, worker = called_in("/x/gunicorn/arbiter.py", "spawn_worker"), called_in("/x/gunicorn/workers/sync.py", "handle")
    assert [master(), worker(), master(worker), agent_server.forks_worker()] == [True, False, False, False]


@pytest.mark.parametrize("file, told", [("sync", 3), ("gthread", 3), ("ggevent", None), ("base_async", None)])
def test_gunicorns_threads_are_those_of_workers_that_have_threads(file, told):
    known = {"process_group": "gunicorn"}

    class Worker:
        class cfg:
            threads = 3

    names = {}
    exec(compile("def handle(self, inner):\n    return inner()\n", "/x/gunicorn/workers/%s.py" % file, "exec"), names)
    names["handle"](Worker(), lambda: agent_server.from_request({}, known, ""))
    assert known.get("threads_maximum") == told
