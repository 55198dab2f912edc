"""serve reads the stacks of processes in trouble: when, of whom, through whom, and what it says when it may not."""
import contextlib
import json
import os
import re
import subprocess
import sys
import time

import pytest

import interpreters
import running
import stuck_sender
from builders import WALL, Worker, fold
from modwsgi_tel import onetake, takers
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.proc import procfs
from modwsgi_tel.state.taken import Taken
from modwsgi_tel.stacks.model import Frame, Stacks, ThreadStack, stacks_of_table, table_json
from running import ROOT, Collector, copy_of_the_sources, short_folder, wait_until
from test_taken import APP, a_fleet_with, a_take, a_thread

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user: needs root")
LINES = ["waits_for_a_lock", "application"]


@contextlib.contextmanager
def a_sender(path, pid=0, slow="yes", **popen):
    """A process that is stuck in a request and tells of it."""
    process = subprocess.Popen([sys.executable, stuck_sender.__file__, path, str(pid), slow], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, **popen)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait(10.0)
        process.stdin.close()
        process.stdout.close()


def own_functions(stack):
    """The functions of stuck_sender's own frames, innermost first."""
    return [frame["function"] for frame in stack["frames"] if frame["file"].endswith("stuck_sender.py")]


def the_slow(collector, timeout=15.0):
    """The stack of the one slow request, once it has one."""
    return collector.wait_for("/api/slow", lambda answer: next(
        (row["entry"]["stack"] for row in answer["slow_requests"] if row["entry"]["stack"] and row["entry"]["stack"]["frames"]), None),
        timeout)


def counters(collector):
    return {name: count for name, count in collector.json("/api/stacks?limit=0")["counters"].items() if count}


# --- the collector ------------------------------------------------------------------------------

def test_the_stack_of_a_slow_request_is_found_by_the_collector_on_its_own():
    with Collector() as collector, a_sender(collector.socket) as process:
        stack = the_slow(collector)
        assert (own_functions(stack), stack["how"], stack["whole"], stack["problem"]) == (LINES, "environ", True, None)
        answer = collector.json("/api/stacks?pid=%d" % process.pid)
        [row] = answer["processes"]
        assert (answer["stacks"], answer["helper"], answer["problem"], answer["matched"]) == ("auto", None, None, 1)
        assert (row["pid"], row["why"], row["process_group"]) == (process.pid, "slow", "stuck")
        assert row["start"] == procfs.stat(process.pid).start
        [thread] = [thread for thread in row["threads"] if thread["tid"] == stack["tid"]]
        assert (thread["name"], thread["request"]["request_id"]) == ("request", "id-1")
        [details] = collector.json("/api/processes/%d" % process.pid)["processes"]
        assert {**details["stacks"], "age_s": 0} == {**row, "age_s": 0}
        [slow] = collector.json("/api/state?samples=0")["slow_requests"]
        assert own_functions(slow["entry"]["stack"]) == LINES
        everything = json.dumps([row, slow, details])
        assert "swordfish" not in everything
        assert '"locals":' not in everything
        assert "no stacks" not in collector.said()
        process.kill()
        collector.wait_for("/api/slow", lambda found: found["slow_requests"][0]["entry"]["life"] == "lost")
        assert own_functions(the_slow(collector)) == LINES


def test_nothing_is_read_where_nobody_is_slow_until_somebody_asks():
    with Collector() as collector, a_sender(collector.socket, slow="no") as process:
        path = "/api/stacks?pid=%d" % process.pid
        collector.wait_for("/api/processes", lambda found: found["processes"])
        wait_until(lambda: collector.post(path)[0] == 202, 10, "never 202", 0.1)        # once /proc has told its start
        [row] = collector.wait_for(path, lambda found: found["processes"])
        assert row["why"] == "asked"
        assert counters(collector) == {"taken": 1}
        status, headers, body = collector.post(path)
        assert (status, headers["retry-after"], "not again within" in json.loads(body)["error"]) == (429, "1", True)
        time.sleep(1.2)                 # nobody asks, nobody is slow
        assert counters(collector) == {"taken": 1}


def test_a_header_with_the_pid_of_another_leads_to_no_read():
    with Collector() as collector, a_sender(collector.socket, slow="no") as victim:
        with a_sender(collector.socket, victim.pid) as process:
            collector.wait_for("/api/slow", lambda found: found["slow_requests"])
            found = collector.wait_for("/api/processes", lambda found: [
                row["id"] for row in found["processes"] if row["sender_pid"] == process.pid])
            time.sleep(2.5)             # for two turns
            status, _, body = collector.post("/api/stacks?id=%d" % found[0])
            assert (status, "not what the kernel says" in json.loads(body)["error"]) == (409, True)
            assert counters(collector) == {}
            assert collector.json("/api/stacks")["processes"] == []


def test_with_stacks_off_nothing_is_read():
    with Collector("--stacks", "off", "--stacks-post", "on") as collector, a_sender(collector.socket) as process:
        collector.wait_for("/api/slow", lambda found: found["slow_requests"])
        time.sleep(1.5)
        answer = collector.json("/api/stacks")
        assert (counters(collector), answer["stacks"], answer["post"]) == ({}, "off", False)
        for pid in (process.pid, 4194305):
            status, _, body = collector.post("/api/stacks?pid=%d" % pid)
            assert (status, "(--stacks off)" in json.loads(body)["error"]) == (403, True)


@contextlib.contextmanager
def as_nobody(*options):
    """A collector of a user without any rights, from sources that it may read."""
    with short_folder() as folder:
        sources = copy_of_the_sources(ROOT, os.path.join(folder, "sources"))
        with Collector("--socket-mode", "0666", *options, program=(interpreters.for_user(NOBODY), "-m", "modwsgi_tel"),
                       user=NOBODY, group=NOBODY, extra_groups=[], cwd=sources) as collector:
            yield collector


@needs_root
def test_a_collector_that_may_not_read_says_once_how_it_could_and_tries_seldom():
    with as_nobody() as collector, a_sender(collector.socket) as process:
        problem = collector.wait_for("/api/stacks", lambda found: found["problem"])
        assert problem == (f"cannot read process {process.pid}: it belongs to root, this is nobody; run as root, or with "
                           "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; or let stack-helper read it (--stacks-helper)")
        time.sleep(2.5)
        assert counters(collector) == {"refused": 1}
        status, _, body = collector.post("/api/stacks?pid=%d" % process.pid)
        assert (status, json.loads(body)["error"]) == (409, problem)
        wait_until(lambda: counters(collector) == {"refused": 2}, 5, "it was not tried again", 0.1)
        assert collector.json("/api/summary?parts=collector")["collector"]["stacks"]["refused"] == 2
        assert collector.said().count("no stacks: ") == 1 and problem in collector.said()
        [row] = collector.json("/api/slow")["slow_requests"]
        assert row["entry"]["stack"] is None


@needs_root
def test_a_collector_that_may_not_read_has_the_helper_service_do_it():
    with short_folder() as folder, as_nobody("--stacks-helper", folder + "/s") as collector:
        service = subprocess.Popen([sys.executable, "-m", "modwsgi_tel", "stack-helper", "--listen", "unix:" + folder + "/s",
                                    "--socket-mode", "0666", "--allow-uid", str(NOBODY), "--for-uid", "0"],
                                   stderr=subprocess.PIPE, cwd=ROOT)
        try:
            assert b"reads stacks" in service.stderr.readline()
            with a_sender(collector.socket):
                stack = the_slow(collector)
                assert (own_functions(stack), stack["how"]) == (LINES, "environ")
                assert collector.json("/api/stacks")["helper"] == folder + "/s"
            service.terminate()
            assert service.wait(10) == 0 and not os.path.exists(folder + "/s")
        finally:
            service.kill()
            service.wait(10)
            service.stderr.close()


def test_a_helper_service_that_is_not_there_is_a_problem_in_words():
    with Collector("--stacks-helper", "/nowhere/s") as collector, a_sender(collector.socket):
        problem = collector.wait_for("/api/stacks", lambda found: found["problem"])
        assert problem.startswith("the helper service does not answer at /nowhere/s: ") and "stack-helper runs" in problem
        assert collector.json("/api/slow")["stacks"] == {"mode": "auto", "problem": problem}


@needs_root
def test_a_program_of_another_user_that_its_user_may_not_read_is_not_read_for_him_either():
    """As after the exec of a setuid program: the real ids are the user's, and its telemetry comes from them."""
    with Collector() as collector:
        os.chmod(collector.socket, 0o666)
        with a_sender(collector.socket, preexec_fn=lambda: os.setresuid(NOBODY, 0, 0)) as process:
            problem = collector.wait_for("/api/stacks", lambda found: found["problem"])
            assert problem.startswith(f"process {process.pid} is not wholly of the user and group who sent its telemetry"), problem
            assert counters(collector) == {"refused": 1}


@pytest.mark.parametrize("options, status", [
    (("--http-host", "0.0.0.0"), 403), (("--http-host", "0.0.0.0", "--stacks-post", "on"), 404), (("--stacks-post", "off"), 403),
    ((), 404)])
def test_who_may_ask_is_who_is_on_this_machine_unless_told_otherwise(options, status, monkeypatch):
    monkeypatch.setattr(running, "READY", re.compile(r"http://[\d.]+:(\d+)/"))
    with Collector(*options) as collector:
        assert collector.post("/api/stacks?pid=1")[0] == status
        assert collector.json("/api/stacks")["post"] == (status == 404)


# --- one read -----------------------------------------------------------------------------------

@pytest.fixture
def target():
    process = subprocess.Popen([sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.wait(10)
    process.stdin.close()
    process.stdout.close()


def test_a_process_is_read_by_its_pid_start_and_user(target):
    start = procfs.stat(target).start
    uid, gid = os.getuid(), os.getgid()
    answer = onetake.take((target, start, uid, gid))
    assert (answer["stacks"]["pid"], answer["stacks"]["start"]) == (target, start)
    [thread] = stacks_of_table(answer["stacks"]).threads
    assert thread.frames[-1].function == "<module>"
    assert onetake.take((target, start + 1, uid, gid)) == {
        "error": f"process {target} has ended; its pid is another process's now", "kind": "gone"}
    for others in ((uid + 1, gid), (uid, gid + 1)):
        assert onetake.take((target, start, *others)) == {
            "error": f"process {target} is not wholly of the user and group who sent its telemetry (uids {uid}, gids {gid}): "
                     "it is not read", "kind": "denied"}
    assert onetake.take((4194305, 1, 0, 0)) == {"error": "process 4194305 has ended", "kind": "gone"}


@pytest.mark.parametrize("name", ("Uid", "Gid"))
@pytest.mark.parametrize("place", range(4), ids=("real", "effective", "saved", "fs"))
def test_each_of_its_ids_has_to_be_the_senders(target, monkeypatch, name, place):
    ids = [0, 0, 0, 0]
    ids[place] = 4711
    read = procfs.read
    mine = {"Uid": os.getuid(), "Gid": os.getgid()}
    said = "\t".join(str(mine[name] + each) for each in ids)
    monkeypatch.setattr(onetake.procfs, "read", lambda path, most: re.sub(
        rb"(?m)^%s:.*$" % name.encode(), f"{name}:\t{said}".encode(), read(path, most)))
    answer = onetake.take((target, procfs.stat(target).start, os.getuid(), os.getgid()))
    assert (answer["kind"], "not wholly of" in answer["error"]) == ("denied", True)


def test_one_that_becomes_another_process_while_it_is_read_is_thrown_away(target, monkeypatch):
    start, look = procfs.stat(target).start, onetake._best_look
    seen = []

    def looks(pid):
        seen.append(look(pid))
        monkeypatch.setattr(onetake.procfs, "stat", lambda pid: real(pid)._replace(start=start + 5))
        return seen[0]

    real = procfs.stat
    monkeypatch.setattr(onetake, "_best_look", looks)
    assert onetake.take((target, start, os.getuid(), os.getgid()))["kind"] == "gone" and len(seen) == 1


def test_what_is_no_python_is_one_line():
    process = subprocess.Popen(["sleep", "100"])
    try:
        wait_until(lambda: open(f"/proc/{process.pid}/comm").read() == "sleep\n", 5, "no exec")
        answer = onetake.take((process.pid, procfs.stat(process.pid).start, os.getuid(), os.getgid()))
        assert answer["kind"] == "failed" and "\n" not in answer["error"] and str(process.pid) in answer["error"]
    finally:
        process.kill()
        process.wait(10)


def frames_of(name, count, length=60):
    return tuple(Frame(f"{name}{place}", f"/srv/{name}{place}".ljust(length, "x"), place) for place in range(count))


def bounded(*threads, **more):
    """The Stacks of what is left of these threads; its answer is within the bounds."""
    data = onetake.bounded(a_take(*threads, **more))
    assert len(json.dumps({"stacks": data})) < onetake.ANSWER_BYTES + 100 < 1 << 20
    found = stacks_of_table(data)
    assert sum(len(thread.frames) for thread in found.threads) <= onetake.FRAMES_MOST
    return found


def test_what_fits_is_whole_and_a_frame_of_many_threads_counts_once():
    outer = frames_of("middleware", 80)
    threads = [ThreadStack(tid=tid, frames=(*frames_of(f"view{tid}", 3), *outer)) for tid in range(150)]
    deep = ThreadStack(tid=1, frames=APP[:1] * 900)
    assert bounded(deep, *threads) == a_take(deep, *threads)
    assert bounded() == a_take()


def test_what_is_left_out_is_taken_from_the_middle_and_said():
    frames = frames_of("f", 30_000, 4)
    [thread] = bounded(ThreadStack(tid=1, frames=frames)).threads
    assert thread.frames == frames[:1500] + frames[-500:]
    assert thread.problem == "cut: 28000 of 30000 frames left out after the innermost 1500"


def test_idle_and_equal_threads_lose_first_and_those_with_a_request_last():
    def own(name, tid, **more):
        return ThreadStack(tid=tid, frames=frames_of(name, 400, 300), **more)

    def kept(requests):
        served = [a_thread(tid, "id", frames_of(f"served{tid}", 400, 300)) for tid in range(requests)]
        found = bounded(*[own(f"idle{tid}", tid, idle=True) for tid in (20, 21)], own("busy", 10), own("busy", 11), *served)
        return {thread.tid: len(thread.frames) for thread in found.threads}

    assert kept(1) == {0: 400, 10: 400, 11: 400, 20: 100, 21: 100}
    assert kept(2) == {0: 400, 1: 400, 10: 400, 11: 400, 20: 100, 21: 100}
    assert kept(3) == {0: 400, 1: 400, 2: 400, 10: 100, 11: 10, 20: 10, 21: 10}
    assert kept(4) == {**dict.fromkeys(range(4), 100), **dict.fromkeys((10, 11, 20, 21), 10)}


def test_of_too_many_threads_those_with_a_request_or_the_gil_are_kept():
    owner, served = ThreadStack(tid=10_000, owns_gil=True), a_thread(10_001, "a")
    found = bounded(*[ThreadStack(tid=tid, idle=tid % 2 == 0) for tid in range(2000)], owner, served)
    assert (len(found.threads), found.problem) == (512, "cut: 512 of 2002 threads kept")
    assert {thread.tid for thread in found.threads} >= {10_000, 10_001} and not any(thread.idle for thread in found.threads)
    assert bounded(*[owner] * 600, problem="x").problem == "x; cut: 512 of 600 threads kept"


def test_something_is_left_whatever_there_is():
    evil = Frame("\U0001f600" * 4096, "\ud800" * 4096, 1)
    found = bounded(*[ThreadStack(tid=tid, name="\U0001f600" * 100, wait="\ud800" * 300,
                                  frames=tuple(evil._replace(line=tid * 100 + each) for each in range(60))) for tid in range(300)])
    assert len(found.threads) > 5 and {len(thread.frames) for thread in found.threads} == {10}
    assert found.problem.endswith("of 300 threads kept")


# --- one after another --------------------------------------------------------------------------

class Now(Loop):
    """A loop whose time the test sets."""

    def __init__(self):
        self.now, self.later = 100.0, []
        super().__init__(lambda: self.now)

    def after(self, seconds, callback):
        self.later.append((self.now + seconds, callback))

    def pass_(self, seconds):
        until = self.now + seconds
        while True:
            due = [each for each in self.later if each[0] <= until]
            if not due:
                break
            first = min(due, key=lambda each: each[0])
            self.later.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = until


class AtOnce:
    """A Helper that answers after 10 ms."""

    busy, started, failed = False, 0, 0

    def __init__(self, loop, answer):
        self._loop, self._answer, self.asked = loop, answer, []

    def ask(self, work, question, done):
        assert not self.busy
        self.busy = True
        self.asked.append((round(self._loop.now - 100.0, 3), work, question))

        def ends():
            self.busy = False
            done(self._answer)
        self._loop.after(0.01, ends)


class Lines(list):
    def warning(self, line):
        self.append(line)


def a_taker(answer, workers=5, **options):
    fleet = a_fleet_with(*[Worker(pid) for pid in range(1, workers + 1)], **options)
    for process in fleet.processes():
        fold(fleet, Worker(process.pid, seq=9).slow("a"))
    fleet.expire(1.0, WALL)
    loop, log = Now(), Lines()
    taker = takers.Taker(loop, fleet, log)
    taker._imports = []
    taker.helper = AtOnce(loop, answer)
    return taker, fleet, loop, log


def test_no_more_are_read_a_second_than_the_rate_allows():
    taker, fleet, loop, _ = a_taker({"stacks": table_json(a_take())}, rate=4.0)
    taker.second()
    loop.pass_(0.9)
    assert [at for at, _, _ in taker.helper.asked] == [0.0, 0.25, 0.5, 0.75]
    assert [question[0] for _, _, question in taker.helper.asked] == [1, 2, 3, 4]
    loop.pass_(0.3)
    assert [at for at, _, _ in taker.helper.asked][4:] == [1.0]
    loop.pass_(1.0)                     # again and again, as long as they are slow
    times = [at for at, _, _ in taker.helper.asked]
    assert all(after - before >= 0.25 for before, after in zip(times, times[1:])) and fleet.taken.counters["taken"] == 9
    fleet.troubled = []
    loop.pass_(5.0)
    assert (len(taker.helper.asked), loop.later) == (9, [])


def test_a_question_to_the_service_has_its_path():
    taker, _, loop, _ = a_taker(None, workers=1, helper="/run/s")
    taker.second()
    assert taker.helper.asked == [(0.0, takers.take_by_service, ("/run/s", 1, 1000, 33, 33))]


@pytest.mark.parametrize("answer, counted, said", [
    (None, "failed", "no stacks: a helper that read process 1 died, or took longer than 5 s"),
    ({"error": "no", "kind": "failed"}, "failed", "no stacks: no"), ({"error": "no", "kind": "away"}, "failed", "no stacks: no"),
    ({"error": "no", "kind": "refused"}, "refused", "no stacks: no; or let stack-helper read it (--stacks-helper)"),
    ({"error": "no", "kind": "denied"}, "refused", "no stacks: no"),
    ({"error": "over", "kind": "gone"}, "gone", None), ({"stacks": {"pid": 7}}, "failed", "no stacks: the stacks of process 1 are not "),
    ({"stacks": {**table_json(Stacks(1)), "threads": [7]}}, "failed", "no stacks: the stacks of process 1 are not "),
    ({"stacks": {**table_json(a_take()), "table": []}}, "failed", "no stacks: the stacks of process 1 are not "),
])
def test_what_goes_wrong_is_counted_and_said_once_whichever_process_it_is(answer, counted, said):
    taker, fleet, loop, log = a_taker(answer, workers=3)
    for process in fleet.processes():
        fleet.taken.ask(process, 0.0)
    for _ in range(3):
        taker.second()
        loop.pass_(1.0)
    assert {name: count for name, count in fleet.taken.counters.items() if count} == {counted: 3}
    assert len(log) == (said is not None) and all(line.startswith(said) for line in log)
    assert bool(fleet.taken.problem) == (counted != "gone")


def test_what_the_service_may_not_read_is_said_to_be_its_trouble():
    taker, fleet, _, log = a_taker({"error": "cannot read process 1: run as root", "kind": "refused"}, workers=1, helper="/run/s")
    taker.second()
    taker._loop.pass_(0.1)
    assert fleet.taken.problem == "stack-helper: cannot read process 1: run as root" and len(log) == 1


def test_a_day_without_trouble_costs_no_helper():
    taker, fleet, loop, _ = a_taker(None)
    fleet.troubled = []
    for _ in range(100):
        taker.second()
        loop.pass_(1.0)
    assert (taker.helper.asked, loop.later) == ([], [])
    assert isinstance(fleet.taken, Taken)
