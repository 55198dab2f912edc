"""The built file watches a real Apache: what was done to the server is what the collector tells."""

import grp
import os
import signal
import stat
import subprocess
import sys

import pytest

import apache
import running

pytestmark = [pytest.mark.apache, pytest.mark.pyz]

GROUP = ("--socket-group", apache.USER, "--socket-mode", "0660")


@pytest.fixture(scope="module")
def express():
    try:
        return apache.express()
    except apache.Missing as missing:
        if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
            pytest.fail("no real Apache, and it is required: %s" % missing)
        pytest.skip("no real Apache: %s" % missing)


@pytest.fixture
def watching(pyz, serve):
    """Starts the built file as root, for senders of Apache's group."""
    return lambda *options, **more: serve(*GROUP, *options, program=[sys.executable, pyz], **more)


def requests(summary):
    return summary["totals"]["counters"]["requests"]


def ticks(collector):
    """{pid: how many request_metrics of it are in the state}"""
    return {each["pid"]: len(each["samples"]) for each in collector.json("/api/state")["processes"]}


def wait_for_ticks(collector, pids, more=2):
    """Wait until each of these pids has sent so many further request_metrics."""
    before = ticks(collector)
    running.wait_until(lambda: all(ticks(collector).get(pid, 0) >= before.get(pid, 0) + more for pid in pids), 20,
                       lambda: "no %d ticks more than %s: %s" % (more, before, ticks(collector)), pause=0.1)


def lives(collector, pids):
    """{pid: life} of those of these processes that the collector knows."""
    return {each["pid"]: each["life"] for each in collector.json("/api/processes")["processes"] if each["pid"] in pids}


def wait_for_lives(collector, wanted, timeout=20.0):
    running.wait_until(lambda: lives(collector, wanted) == wanted, timeout,
                       lambda: "wanted %s, is %s" % (wanted, lives(collector, wanted)), pause=0.1)


def slow_entries(answer, path="/slow"):
    entries = [each["entry"] for each in answer["slow_requests"]]
    return [each for each in entries if each["script_name"] + each["path_info"] == path]    # express has it all in the first


def test_requests_made_are_requests_seen_with_their_statuses(express, watching):
    collector = watching()
    with apache.Apache(express, collector.socket, processes=2) as server:
        client = apache.Client(server)
        for _ in range(4):                                         # over several ticks of both processes
            client.start(*["/", "/404", "/err", "/cpu?0.01", "/slow?0.15"] * 10)
        assert sorted(client.wait()) == [200] * 120 + [404] * 40 + [500] * 40
        made = sum(server.made.values())
        collector.wait_for("/api/summary", lambda answer: requests(answer) >= made)
        wait_for_ticks(collector, server.daemons())
        counters = collector.json("/api/summary")["totals"]["counters"]
        wanted = {"requests": made, "status_2xx": server.made[200], "status_4xx": server.made[404],
                  "status_5xx": server.made[500]}
        assert {name: counters[name] for name in wanted} == wanted

        state = collector.json("/api/state")
        assert state["decode_errors"] == 0
        assert {each["pid"]: each["drops"] for each in state["processes"]} == dict.fromkeys(server.daemons(), 0)
        summed = dict.fromkeys(("request_count", "status_2xx_total", "status_4xx_total", "status_5xx_total"), 0)
        for process in state["processes"]:
            for sample in process["samples"]:
                for name in summed:
                    summed[name] += sample["fields"].get(name, 0)
        assert list(summed.values()) == list(wanted.values())
        assert server.stop() == 0
    assert requests(collector.json("/api/summary")) == made        # the last words of the processes add nothing
    assert collector.stop() == 0


def test_a_slow_request_is_active_while_it_runs_and_then_completed(express, watching):
    collector = watching()
    with apache.Apache(express, collector.socket, slow=0.5) as server:
        client = apache.Client(server)
        client.start("/slow?2.5")

        def active(answer):
            return [each for each in slow_entries(answer) if each["life"] == "active"]

        entry, = collector.wait_for("/api/slow", active)
        assert entry["pid"] in server.daemons() and entry["method"] == "GET"
        assert 0.5 <= entry["duration"] <= 2.6 and not entry["status"]
        assert client.results == []                                # it was told while the request ran

        def completed(answer):
            return [each for each in slow_entries(answer) if each["life"] == "completed"]

        assert client.wait() == [200]
        entry, = collector.wait_for("/api/slow", completed)
        assert entry["status"] == 200 and 2.5 <= entry["duration"] < 4.0
        assert len(slow_entries(collector.json("/api/slow"))) == 1
        assert collector.json("/api/summary")["totals"]["counters"]["slow_completed"] == 1
        wait_for_ticks(collector, server.daemons())
        assert active(collector.json("/api/slow")) == []


def test_a_killed_process_has_vanished_and_its_request_is_lost(express, watching):
    collector = watching()
    with apache.Apache(express, collector.socket, processes=2, slow=0.5) as server:
        client = apache.Client(server)
        client.start("/slow?60")
        entry = collector.wait_for("/api/slow", slow_entries)[0]
        victim, = [pid for pid in server.daemons() if pid == entry["pid"]]
        other, = [pid for pid in server.daemons() if pid != victim]
        os.kill(victim, signal.SIGKILL)
        wait_for_lives(collector, {victim: "vanished", other: "running"})
        lost = collector.wait_for("/api/slow", lambda answer: [
            each for each in slow_entries(answer) if each["life"] == "lost"])
        assert [(each["pid"], each["log_id"]) for each in lost] == [(victim, entry["log_id"])]
        assert client.wait() != [200]
        successor, = running.wait_until(lambda: set(server.daemons()) - {other, victim}, 20, "Apache started no other")
        wait_for_lives(collector, {victim: "vanished", other: "running", successor: "running"})


def test_a_collector_that_comes_late_leaves_and_returns_picks_up_again(express, pyz):
    with running.short_folder() as folder:
        path = os.path.join(folder, "t.sock")
        with apache.Apache(express, path, processes=2) as server:
            pids = server.daemons()
            client = apache.Client(server)
            client.start("/", "/", "/")                            # nobody is there to see these
            assert client.wait() == [200] * 3
            with running.Collector(*GROUP, program=[sys.executable, pyz], socket=path) as collector:
                for _ in range(2):
                    wait_for_lives(collector, dict.fromkeys(pids, "running"))
                    wait_for_ticks(collector, pids)
                    before = requests(collector.json("/api/summary"))
                    assert [server.get("/") for _ in range(7)] == [200] * 7
                    collector.wait_for("/api/summary", lambda answer: requests(answer) == before + 7)
                    assert collector.stop() == 0
                    assert not os.path.lexists(path)
                    assert [server.get("/") for _ in range(5)] == [200] * 5
                    collector.start()
                wait_for_lives(collector, dict.fromkeys(pids, "running"))
            assert server.daemons() == pids                        # nothing of Apache was restarted


def test_the_socket_is_for_one_group_and_senders_of_another_uid_get_through(express, watching):
    collector = watching()
    seen = os.lstat(collector.socket)
    assert stat.S_ISSOCK(seen.st_mode) and stat.S_IMODE(seen.st_mode) == 0o660
    assert (seen.st_uid, seen.st_gid) == (0, grp.getgrnam(apache.USER).gr_gid)
    stranger = subprocess.run(
        [apache.SYSTEM_PYTHON, "-I", "-c", "import socket, sys\n"
         "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', sys.argv[1])", collector.socket],
        user=65534, group=65534, extra_groups=[], cwd="/", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=20)
    assert b"PermissionError" in stranger.stderr
    with apache.Apache(express, collector.socket, processes=2) as server:
        uids = {os.stat("/proc/%d" % pid).st_uid for pid in server.daemons()}
        assert 0 not in uids and len(uids) == 1
        wait_for_lives(collector, dict.fromkeys(server.daemons(), "running"))
    state = collector.json("/api/state")
    assert state["decode_errors"] == 0 and state["total_received"] > 0


def test_a_graceful_restart_and_a_stop_are_told_as_events(express, watching):
    collector = watching()

    def kinds(pids):
        events = collector.json("/api/lifecycle")["lifecycle_events"]
        return {pid: [each["kind"] for each in sorted(events, key=lambda each: each["stamp"]) if each["pid"] == pid]
                for pid in pids}

    whole = ["process_started", "process_stopping", "process_stopped"]
    with apache.Apache(express, collector.socket, processes=2) as server:
        first = server.daemons()
        wait_for_lives(collector, dict.fromkeys(first, "running"))
        assert kinds(first) == dict.fromkeys(first, ["process_started"])
        server.graceful()
        second = running.wait_until(lambda: len(set(server.daemons()) - set(first)) == 2 and
                                    sorted(set(server.daemons()) - set(first)), 20, "no new processes")
        running.wait_until(lambda: kinds(first) == dict.fromkeys(first, whole), 20, lambda: kinds(first), pause=0.1)
        wait_for_lives(collector, {**dict.fromkeys(first, "stopped"), **dict.fromkeys(second, "running")})
        assert server.get("/") == 200
        assert server.stop() == 0
        running.wait_until(lambda: kinds(second) == dict.fromkeys(second, whole), 20, lambda: kinds(second), pause=0.1)
        wait_for_lives(collector, dict.fromkeys(first + second, "stopped"))
    events = collector.json("/api/lifecycle")["lifecycle_events"]
    assert all(each["shutdown_reason"] for each in events if each["kind"] == "process_stopping")


def test_a_collector_that_ends_while_apache_sends_holds_nothing_up(express, watching):
    collector = watching()
    with apache.Apache(express, collector.socket, processes=2, slow=0.5) as server:
        wait_for_lives(collector, dict.fromkeys(server.daemons(), "running"))
        client = apache.Client(server)
        for _ in range(4):
            client.start("/slow?0.7", *["/", "/404"] * 50, "/slow?0.7")
        collector.wait_for("/api/slow", slow_entries)              # in the middle of it
        assert collector.stop() == 0
        assert not os.path.lexists(collector.socket)
        assert sorted(client.wait()) == [200] * 208 + [404] * 200
        assert server.stop(timeout=10.0) == 0
