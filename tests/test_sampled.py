"""What the collector samples of its processes by /proc: whose turn it is, what is kept, and a real collector that does it."""
import contextlib
import os
import re
import resource
import signal
import subprocess
import sys

import pytest

import interpreters
import running
import builders
from builders import WALL, Worker, a_fleet, a_sample, an_answer, fold
from modwsgi_tel.proc import details, procfs, samples
from modwsgi_tel.state import sampled, view
from modwsgi_tel.state.process import Process
from modwsgi_tel.state.sampled import MOST, POINTS, PSS_REFUSED_S, PSS_S, ROUND_S, SPAN_S, Kernel
from running import ROOT, Collector, copy_of_the_sources, short_folder

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user: needs root")

# Tells telemetry of itself, and holds as many descriptors as the last line of its input says
SENDER = """
import os, socket, sys, threading, time
sys.path[:0] = sys.argv[2:]
from builders import Worker
worker, held = Worker(int(sys.argv[3]) if sys.argv[3].isdigit() else os.getpid()), []
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect(sys.argv[1])
def tell():
    while True:
        sender.send(worker.tick(1, stamp=time.time()))
        time.sleep(0.2)
sender.send(worker.started())
threading.Thread(target=tell, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    while len(held) < int(line):
        held.append(os.open("/dev/null", os.O_RDONLY))
    print(len(os.listdir("/proc/self/fd")) - 1, flush=True)
"""
# The collector, in which a round takes less time, and silence is told sooner
QUICK = ("import sys; from modwsgi_tel import cli, findings; from modwsgi_tel.state import sampled; sampled.ROUND_S = 0.5; "
         "findings.SILENT_S = 3.5; sys.exit(cli.main())")


# --- whose turn it is ---------------------------------------------------------------------------

def known(*pids, now=1.0, **limits):
    """A fleet of processes that were heard at `now`, whose starts are known."""
    fleet = a_fleet(**limits)
    for pid in pids:
        fold(fleet, Worker(pid).tick(1), now=now)
        fleet.answer(pid, an_answer(nspids=(pid,)), now, WALL + now)
    fleet.expire(now, WALL + now)
    return fleet


def the(fleet, pid):
    return next(process for process in fleet.processes() if process.pid == pid)


def due(fleet, now, asked=()):
    """What is to be looked at now; a worker that is quiet for too long is silent by then."""
    return fleet.sampling.due(fleet, now, asked)


def test_each_process_is_looked_at_once_a_round_with_its_pss_once_a_minute():
    fleet = known(7, 8)
    assert due(fleet, 2.0) == [[7, True], [8, True]]
    assert due(fleet, 3.0) == [] == due(fleet, 2.0 + ROUND_S - 0.1)
    for pid in (7, 8):
        fleet.sampling.add(fleet, pid, a_sample(pss_bytes=5), 2.5, WALL)
    assert due(fleet, 2.0 + ROUND_S) == [[7, False], [8, False]]
    assert due(fleet, 2.0 + PSS_S) == [[7, True], [8, True]]


def test_whose_pss_may_not_be_read_is_asked_for_it_seldom():
    fleet = known(7)
    assert due(fleet, 2.0) == [[7, True]]
    fleet.sampling.add(fleet, 7, a_sample(pss_bytes=None, unknown={"pss": "no"}), 2.5, WALL)
    assert due(fleet, 2.0 + PSS_S) == [[7, False]] and due(fleet, 1.0 + PSS_REFUSED_S) == [[7, False]]
    assert due(fleet, 12.0 + PSS_REFUSED_S) == [[7, True]]


def test_of_many_processes_those_that_waited_longest_have_their_turn():
    pids = list(range(100, 100 + 2 * MOST + 5))
    fleet = known(*pids)
    rounds = [[pid for pid, _ in due(fleet, 2.0 + number * ROUND_S)] for number in range(3)]
    assert rounds == [pids[:MOST], pids[MOST:2 * MOST], pids[2 * MOST:] + pids[:MOST - 5]]


def test_a_new_process_is_looked_at_with_the_question_who_it_is():
    fleet = a_fleet()
    fold(fleet, Worker().tick(1), now=1.0)
    asked = fleet.questions(1.0)
    assert asked == [7] and due(fleet, 1.0, asked) == [[7, False]]
    fleet.answer(7, an_answer(), 1.1, WALL)
    fleet.sampling.add(fleet, 7, a_sample(), 1.1, WALL)
    assert the(fleet, 7).kernel.newest.files == 20 and due(fleet, 2.0, [7]) == []
    assert due(fleet, 1.0 + ROUND_S) == [[7, True]]


def test_one_that_falls_silent_is_looked_at_once_at_that_moment():
    fleet = known(7)
    due(fleet, 2.0)
    fleet.expire(3.9, WALL)
    assert due(fleet, 3.9) == []
    fleet.expire(4.5, WALL)
    assert due(fleet, 4.5) == [[7, False]] and due(fleet, 5.5) == []


@pytest.mark.parametrize("answer, sender_pid", [
    (None, 7), (an_answer(alive=False), 7), (an_answer(nspids=(9, 7)), 9), (an_answer(nspids=(9,)), 9), (an_answer(), 0)])
def test_only_who_is_known_by_the_kernel_and_by_its_start_is_looked_at(answer, sender_pid):
    fleet = a_fleet()
    fold(fleet, Worker(7).tick(1), now=1.0, sender=builders.a_sender(sender_pid))
    if answer is not None:
        fleet.answer(sender_pid, answer, 1.0, WALL)
    inside = answer is not None and answer.nspids == (9, 7)         # in a container its own pid is another
    assert due(fleet, 2.0) == ([[9, True]] if inside else [])
    fleet.sampling.add(fleet, sender_pid, a_sample(), 2.0, WALL)
    assert (the(fleet, 7).kernel is not None) == inside


def test_what_is_said_of_another_start_is_dropped():
    fleet = known(7)
    fleet.sampling.add(fleet, 7, a_sample(start=1001), 2.0, WALL)
    fleet.sampling.add(fleet, 8, a_sample(), 2.0, WALL)
    assert the(fleet, 7).kernel is None and fleet.sampling.samples == 0


# --- what is kept ----------------------------------------------------------------------------------

def test_the_newest_look_is_kept_and_told():
    fleet = known(7)
    process = the(fleet, 7)
    assert sampled.view(process) is None and view.process_view(process, 1.0, WALL)["kernel"] is None
    fleet.sampling.add(fleet, 7, a_sample(at=10.0, voluntary_switches=100, involuntary_switches=50, pss_bytes=7), 10.0, WALL + 10)
    fleet.sampling.add(fleet, 7, a_sample(at=20.0, voluntary_switches=300, involuntary_switches=40, files=50, state="D", wait="fsync"),
                       20.0, WALL + 20)
    short = {"sampled_at": WALL + 20, "state": "D", "threads": 4, "files": 50, "files_limit": 1024}
    assert view.process_view(process, 21.0, WALL)["kernel"] == short
    assert view.process_details(process, 21.0, WALL)["kernel"] == {
        **short, "wait": "fsync", "files_grown": 30, "files_grown_s": 10.0, "voluntary_switches_per_s": 20.0,
        "involuntary_switches_per_s": None, "pss_bytes": 7, "unknown": {}}


def test_what_may_not_be_read_is_null_with_its_reason_until_it_may():
    fleet, kernel = known(7), Kernel()
    kernel.add(a_sample(files=None, pss_bytes=None, unknown={"files": "no files", "pss": "no pss"}), 10.0, WALL)
    assert (kernel.unknown, kernel.grown(), kernel.files()) == ({"files": "no files", "pss": "no pss"}, (None, None), [])
    kernel.add(a_sample(), 20.0, WALL)
    assert kernel.unknown == {"pss": "no pss"}
    kernel.add(a_sample(pss_bytes=9), 30.0, WALL)
    assert (kernel.unknown, kernel.pss_bytes) == ({}, 9)
    fleet.sampling.add(fleet, 7, a_sample(unknown={"files": "no files"}), 10.0, WALL)
    assert fleet.sampling.problem == "no files"


def test_numbers_of_descriptors_are_kept_for_ten_minutes_in_a_bounded_series():
    kernel = Kernel()
    for number in range(1000):
        kernel.add(a_sample(files=number), number * ROUND_S, WALL)
    newest = 999 * ROUND_S
    assert kernel.files() == [(newest - back * ROUND_S, 999 - back) for back in range(round(SPAN_S / ROUND_S), -1, -1)]
    assert kernel.grown() == (60, SPAN_S)
    for number in range(1000):
        kernel.add(a_sample(files=number), newest + number * 0.1, WALL)
    assert len(kernel.files()) == POINTS


def test_a_process_that_nobody_looked_at_costs_nothing():
    fleet = known(7)
    assert the(fleet, 7).kernel is None and "kernel" in Process.__slots__


# --- a look, for real --------------------------------------------------------------------------------

@contextlib.contextmanager
def a_sender(path, claims="own", **popen):
    """A process that sends telemetry to a collector."""
    folders = [os.path.join(ROOT, "tests"), ROOT]
    process = subprocess.Popen([sys.executable, "-c", SENDER.replace("sys.argv[2:]", repr(folders)), path, "-", claims],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **popen)
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait(10.0)
        process.stdin.close()
        process.stdout.close()


def holds(process, count):
    """Have it hold so many descriptors more; how many it has open."""
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@contextlib.contextmanager
def quick(**more):
    with Collector("--stacks", "off", program=(sys.executable, "-c", QUICK), **more) as collector:
        yield collector


def kernel_of(collector, process, check=bool, timeout=20.0):
    """What /api/processes/PID tells of it, once that passes the check."""
    return collector.wait_for(f"/api/processes/{process.pid}", lambda answer: next(
        (row["kernel"] for row in answer["processes"] if row["kernel"] and check(row["kernel"])), None), timeout)


def test_a_look_tells_descriptors_threads_switches_and_state():
    with subprocess.Popen([sys.executable, "-I", "-c", "import sys; print(1, flush=True); sys.stdin.read()"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as child:
        try:
            child.stdout.readline()
            running.wait_until(lambda: procfs.stat(child.pid).state == "S", 10, "it does not wait")
            told = samples.look([[child.pid, True], [4194303, True]])
            assert list(told) == [str(child.pid)]
            found = told[str(child.pid)]
            usage = details.usage(child.pid)
            assert found == {
                "start": usage["start_ticks"], "at": found["at"], "state": "S", "wait": found["wait"], "threads": 1,
                "voluntary_switches": usage["voluntary_switches"], "involuntary_switches": usage["involuntary_switches"], "files": 3,
                "files_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0], "pss_bytes": found["pss_bytes"], "unknown": {}}
            assert found["wait"].startswith("read") and 1 << 20 < found["pss_bytes"] <= usage["rss_bytes"]
            assert "pss_bytes" not in samples.look([[child.pid, False]])[str(child.pid)]
            child.send_signal(signal.SIGSTOP)
            running.wait_until(lambda: samples.look([[child.pid, False]])[str(child.pid)]["state"] == "T", 10, "it is not told as stopped")
        finally:
            child.kill()


def test_of_a_process_with_very_many_threads_or_much_memory_less_is_asked(monkeypatch):
    monkeypatch.setattr(samples, "THREADS_MOST", 0)
    monkeypatch.setattr(samples, "PSS_MOST", 0)
    [found] = samples.look([[os.getpid(), True]]).values()
    assert (found["voluntary_switches"], found["pss_bytes"], found["unknown"]) == (None, None, {}) and found["files"] > 2


def test_a_thread_that_cannot_be_interrupted_makes_the_state_of_its_process(tmp_path):
    stat = b"42 (x) S 1 42 42 0 -1 4194368 1 0 0 0 30 12 0 0 20 0 2 0 987654 1 1 1 1 1 1 0 0"
    for name, content in {"42/stat": stat, "42/status": b"Name:\tx\nState:\tS\n", "42/fd/0": b"", "42/limits": b"nonsense",
                          "42/task/42/status": b"Name:\tx\nState:\tS (sleeping)\n", "42/task/43/status": b"Name:\tx\nState:\tD (disk sleep)\n",
                          "42/task/43/wchan": b"nfs_wait_bit_killable", "42/task/43/syscall": b"74 0x3\n"}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    [found] = samples.look([[42, True]], str(tmp_path)).values()
    assert (found["state"], found["wait"].split()[-1], found["files_limit"], found["pss_bytes"], found["unknown"]) == (
        "D", "(nfs_wait_bit_killable)", None, None, {})


def test_a_collector_sees_descriptors_climb_and_says_when_they_near_their_limit():
    with quick() as collector, a_sender(collector.socket, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))) as process:
        before = kernel_of(collector, process, lambda kernel: kernel["voluntary_switches_per_s"])
        assert (before["files_limit"], before["threads"], before["state"], before["unknown"]) == (64, 2, "S", {})
        assert before["pss_bytes"] is None or before["pss_bytes"] > 1 << 20
        count = holds(process, 50)
        after = kernel_of(collector, process, lambda kernel: kernel["files"] == count)
        assert after["files_grown"] == 50 and after["files_grown_s"] > 0
        [row] = collector.json("/api/processes")["processes"]
        assert {name: row["kernel"][name] for name in ("state", "threads", "files", "files_limit")} == {
            "state": "S", "threads": 2, "files": count, "files_limit": 64}
        found = collector.wait_for("/api/summary", lambda answer: next(
            (each for each in answer["findings"] if each["id"] == "descriptors"), None))
        assert found["text"] == f"pid {process.pid} of app has {count} of 64 files open" and found["pid"] == process.pid
        assert collector.json("/api/summary?parts=collector")["collector"]["samples"]["problem"] is None


def test_a_process_that_is_stopped_is_silent_and_said_to_be_stopped():
    with quick() as collector, a_sender(collector.socket) as process:
        kernel_of(collector, process)
        process.send_signal(signal.SIGSTOP)
        kernel_of(collector, process, lambda kernel: kernel["state"] == "T")
        # as long as /proc has not said that it lives nothing arrives from anybody
        found = collector.wait_for("/api/summary", lambda answer: next(
            (each for each in answer["findings"] if each["id"] == "silent" and each["pid"] == process.pid), None), 30.0)
        assert re.fullmatch(rf"pid {process.pid} of app silent for \d+ s: stopped by a signal \(state T\)", found["text"])


def test_a_pid_that_only_the_datagrams_claim_is_not_looked_at():
    with quick() as collector, a_sender(collector.socket, str(os.getpid())) as process, a_sender(collector.socket) as honest:
        kernel_of(collector, honest, lambda kernel: kernel["voluntary_switches_per_s"] is not None)
        told = {row["pid"]: (row["sender_pid"], row["kernel"] is None) for row in collector.json("/api/processes")["processes"]}
        assert told == {os.getpid(): (process.pid, True), honest.pid: (honest.pid, False)}


@needs_root
def test_a_collector_that_may_not_read_tells_what_it_may_and_says_the_reason_once():
    with short_folder() as folder:
        sources = copy_of_the_sources(ROOT, os.path.join(folder, "sources"))
        with Collector("--socket-mode", "0666", "--stacks", "off", program=(interpreters.for_user(NOBODY), "-c", QUICK), user=NOBODY,
                       group=NOBODY, extra_groups=[], cwd=sources) as collector, a_sender(collector.socket) as process:
            kernel = kernel_of(collector, process, lambda kernel: "pss" in kernel["unknown"] and kernel["files_grown_s"] != 0.0)
            reason = (f"cannot read process {process.pid}: it belongs to root, this is nobody; run as root, or with CAP_SYS_PTRACE and "
                      "CAP_DAC_READ_SEARCH")
            assert (kernel["pss_bytes"], kernel["wait"], kernel["unknown"]["pss"], kernel["threads"]) == (None, None, reason, 2)
            if kernel["files"] is None:                     # before Linux 6.2
                assert kernel["unknown"]["files"] == reason
            assert collector.json("/api/summary?parts=collector")["collector"]["samples"]["problem"] == reason
            taken = collector.json("/api/summary?parts=collector")["collector"]["samples"]["taken"]
            collector.wait_for("/api/summary?parts=collector", lambda answer: answer["collector"]["samples"]["taken"] > taken + 2)
            assert collector.said().count("not all is known of the processes: " + reason) == 1
