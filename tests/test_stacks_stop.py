"""Whatever happens to the reader or to the thread while it stands still, the target goes on as if nothing had been."""
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

import interpreters
from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks import stop
from modwsgi_tel.stacks.stop import Stopper
from running import ROOT, wait_until

TARGETS = os.path.join(ROOT, "bench", "targets")
LIMIT_S = 20
# Stops a thread, says so, does what its second argument says, and at the end that it lived to the end.
READER = """
import os, signal, sys
sys.path.insert(0, {root!r})
from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks.stop import Stopper
pid, tid, then = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
try:
    with Stopper(pid) as stopper:
        with stopper.stopped(tid) as held:
            print(held, flush=True)
            if then == "wait":
                sys.stdin.read()
            elif then == "raise":
                raise ValueError("in the middle of a read")
            else:
                os.kill(os.getpid(), int(then))
except TelError as error:
    print(error, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.read()
except ValueError as error:
    print(error, flush=True)
    sys.stdin.read()
"""


class Target:
    """A target of bench/targets, or a program text, that has told that it is ready."""

    def __init__(self, *command):
        self.process = subprocess.Popen([sys.executable, *command], cwd=TARGETS, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        bufsize=0)
        self.told = self.line()
        self.pid = self.told["pid"]

    def line(self):
        assert select.select([self.process.stdout], [], [], LIMIT_S)[0], "the target says nothing"
        return json.loads(self.process.stdout.readline())

    def ask(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.line()

    def goes_on(self):
        before = self.ask()["done"]
        return wait_until(lambda: self.ask()["done"] > before, LIMIT_S, "the target does not go on")

    def close(self):
        # by pid: what a Stopper in this process has waited for, Popen takes for ended
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(LIMIT_S)


@pytest.fixture
def start():
    started = []

    def begin(*command):
        started.append(Target(*command))
        return started[-1]
    yield begin
    for each in reversed(started):
        each.close()


@pytest.fixture
def busy(start):
    return start("busy.py", "2")


@pytest.fixture
def reader():
    """Starts another process that stops a thread: `reader(pid, tid, then, **Popen's)`."""
    started = []

    def begin(pid, tid, then, python=sys.executable, **more):
        started.append(subprocess.Popen([python, "-c", READER.format(root=ROOT), str(pid), str(tid), str(then)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True, **more))
        return started[-1]
    yield begin
    for each in started:
        each.kill()
        each.communicate(timeout=LIMIT_S)


def state(pid, tid):
    with open(f"/proc/{pid}/task/{tid}/stat") as handle:
        return handle.read().rpartition(")")[2].split()[0]


def tracer(pid, tid):
    with open(f"/proc/{pid}/task/{tid}/status") as handle:
        return int(re.search(r"^TracerPid:\t(\d+)$", handle.read(), re.M).group(1))


def free(pid):
    """Whether no thread of a process stands still, is traced, or is a zombie."""
    return all(state(pid, tid) not in "tTZ" and not tracer(pid, tid) for tid in os.listdir(f"/proc/{pid}/task"))


def worker(target):
    return next(int(tid) for tid, names in target.told["outermost"].items() if names == ["worker_0"])


def test_a_thread_stands_still_while_it_is_read_and_no_other_does(busy):
    with Stopper(busy.pid) as stopper:
        with stopper.stopped(worker(busy)) as held:
            assert held
            others = [int(tid) for tid in os.listdir(f"/proc/{busy.pid}/task") if int(tid) != worker(busy)]
            assert state(busy.pid, worker(busy)) == "t"
            assert len(others) == 2 and all(state(busy.pid, tid) in "RS" for tid in others)
        assert free(busy.pid)
        busy.goes_on()


def test_each_of_many_stops_is_let_go_again(busy):
    tids = [int(tid) for tid in busy.told["outermost"]]
    with Stopper(busy.pid) as stopper:
        for turn in range(300):
            with stopper.stopped(tids[turn % len(tids)]) as held:
                assert held and state(busy.pid, tids[turn % len(tids)]) == "t"
        assert free(busy.pid)
    busy.goes_on()


def test_an_error_in_the_reader_lets_go(busy, reader):
    other = reader(busy.pid, worker(busy), "raise")
    assert [other.stdout.readline(), other.stdout.readline()] == ["True\n", "in the middle of a read\n"]
    assert other.poll() is None and free(busy.pid)
    busy.goes_on()


def test_ctrl_c_in_the_reader_lets_go(busy, reader):
    other = reader(busy.pid, worker(busy), signal.SIGINT.value)
    assert [other.stdout.readline(), other.stdout.readline()] == ["True\n", "interrupted\n"]
    assert other.poll() is None and free(busy.pid)
    busy.goes_on()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_that_ends_the_reader_lets_go(busy, reader, number):
    other = reader(busy.pid, worker(busy), number.value)
    assert other.wait(LIMIT_S) == -number
    wait_until(lambda: free(busy.pid), LIMIT_S, "the target is not let go")
    busy.goes_on()


def test_a_reader_killed_while_it_waits_lets_go(busy, reader):
    other = reader(busy.pid, worker(busy), "wait")
    assert other.stdout.readline() == "True\n" and state(busy.pid, worker(busy)) == "t"
    other.kill()
    assert other.wait(LIMIT_S) == -signal.SIGKILL
    wait_until(lambda: free(busy.pid), LIMIT_S, "the target is not let go")
    busy.goes_on()


def test_the_callers_own_signals_come_again_once_it_has_let_go(busy):
    def mask():
        return signal.pthread_sigmask(signal.SIG_BLOCK, ())
    before = mask()
    with Stopper(busy.pid) as stopper:
        with stopper.stopped(worker(busy)):
            assert mask() == before | set(stop.ENDING)
        assert mask() == before
        with stopper.stopped(2 ** 22 + 1):
            assert mask() == before
        with pytest.raises(KeyError), stopper.stopped(worker(busy)):
            raise KeyError
        assert mask() == before


# Starts another target, passes on what it says, and at last how it ended: what a Stopper waits for is nobody's child then.
GRANDCHILD = """
import json, os, subprocess, sys
child = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE)
os.write(1, (json.dumps({"status": child.wait()}) + "\\n").encode())
sys.stdin.read()
"""


def test_a_target_killed_while_it_stands_leaves_no_zombie(start):
    target = start("-c", GRANDCHILD, "busy.py", "2")
    with Stopper(target.pid) as stopper:
        with stopper.stopped(worker(target)) as held:
            assert held
            os.kill(target.pid, signal.SIGKILL)
    try:
        assert target.line() == {"status": -signal.SIGKILL}
        assert not os.path.exists(f"/proc/{target.pid}")
    finally:
        target.pid = target.process.pid


# Counts each signal that its C handler gets; a realtime signal is not merged with another of its kind.
COUNTS = """
import json, os, select, signal, sys, threading
from truth import tell
reading, writing = os.pipe()
os.set_blocking(reading, False), os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)
for number in (signal.SIGUSR1, signal.SIGRTMIN):
    signal.signal(number, lambda *_: None)
tell()
got = {}
while True:
    for each in select.select([reading, 0], [], [])[0]:
        data = os.read(each, 65536)
        if each == reading:
            for number in data:
                got[number] = got.get(number, 0) + 1
        elif data:
            tell(got=got)
        else:
            sys.exit()
"""


def test_a_signal_that_comes_before_the_stop_is_passed_on(start):
    target = start("-c", COUNTS)

    class SignalFirst(Stopper):
        """A thread that a signal reaches just when it is told to stop: it stands with that signal on its way."""

        def _ptrace(self, request, tid, data=0):
            if request == stop.INTERRUPT:
                return os.kill(self._pid, signal.SIGUSR1)
            return super()._ptrace(request, tid, data)
    with SignalFirst(target.pid) as stopper:
        for turn in range(1, 6):
            with stopper.stopped(target.pid) as held:
                assert held and stopper._held == {target.pid: signal.SIGUSR1}
            wait_until(lambda: target.ask()["got"] == {str(signal.SIGUSR1.value): turn}, LIMIT_S, lambda: str(target.ask()))
    assert free(target.pid)


def test_no_signal_is_lost_or_doubled_by_many_stops(start):
    target = start("-c", COUNTS)
    sent = 2000
    threading.Thread(target=lambda: [os.kill(target.pid, signal.SIGRTMIN) for _ in range(sent)]).start()
    stops = 0
    with Stopper(target.pid) as stopper:
        deadline = time.monotonic() + LIMIT_S
        got = {}
        while got != {str(int(signal.SIGRTMIN)): sent} and time.monotonic() < deadline:
            for _ in range(100):
                with stopper.stopped(target.pid) as held:
                    stops += held
            got = target.ask()["got"]
    assert got == {str(int(signal.SIGRTMIN)): sent} and stops >= 100


def test_a_stopped_process_stays_stopped(busy):
    os.kill(busy.pid, signal.SIGSTOP)
    wait_until(lambda: state(busy.pid, worker(busy)) == "T", LIMIT_S, "it does not stop")
    with Stopper(busy.pid) as stopper:
        with stopper.stopped(worker(busy)) as held:
            assert held and state(busy.pid, worker(busy)) == "t"
        wait_until(lambda: state(busy.pid, worker(busy)) == "T", LIMIT_S, "it does not stay stopped")
    os.kill(busy.pid, signal.SIGCONT)
    wait_until(lambda: free(busy.pid), LIMIT_S, "it does not go on")
    busy.goes_on()


# Its main thread is in an uninterruptible wait, for a child that opens a FIFO before it calls exec().
SPAWNS = """
import os, sys
from truth import tell
tell()
os.waitpid(os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)]), 0)
while os.read(0, 1):
    tell()
"""


def test_a_thread_that_does_not_stop_is_given_up_in_time_and_let_go_later(start, tmp_path):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    target = start("-c", SPAWNS, fifo)
    wait_until(lambda: state(target.pid, target.pid) == "D", LIMIT_S, "it does not wait for its child")
    try:
        with Stopper(target.pid) as stopper:
            began = time.monotonic()
            with stopper.stopped(target.pid) as held:
                assert not held
            assert stop.PATIENCE_S <= time.monotonic() - began < 10 * stop.PATIENCE_S
            with stopper.stopped(target.pid) as held:       # nor is it asked twice
                assert not held
    finally:
        with open(fifo, "w"):
            pass
    wait_until(lambda: state(target.pid, target.pid) == "t", LIMIT_S, "its wait is over, it stops")
    stopper.tend()
    assert free(target.pid) and target.ask()["pid"] == target.pid


def test_a_thread_of_another_process_is_left_alone(busy):
    with Stopper(os.getppid()) as stopper:
        assert not stopper.stop(worker(busy))
    assert free(busy.pid)


def test_a_process_that_is_gone_is_no_error(busy):
    with Stopper(busy.pid) as stopper:
        busy.close()
        assert not stopper.stop(busy.pid)


# Threads other than the first replace the whole process, 25 times over.
EXECS = """
import json, os, sys, threading, time
left = int(sys.argv[1]) - 1
if left == 24:
    os.write(1, (json.dumps({"pid": os.getpid()}) + "\\n").encode())
if not left:
    os.write(1, b"0\\n")
    os.read(0, 1)
    os._exit(0)
command = open("/proc/self/cmdline").read().split(chr(0))[:-2]
threading.Thread(target=lambda: os.execv(sys.executable, command + [str(left)])).start()
time.sleep(60)
"""


def test_a_process_that_calls_exec_in_the_middle_goes_on(start):
    target = start("-c", GRANDCHILD, "-S", "-c", EXECS, "25")
    done = []
    ends = threading.Thread(target=lambda: done.append(target.line()))
    ends.start()
    deadline = time.monotonic() + LIMIT_S
    try:
        with Stopper(target.pid) as stopper:
            while not done and time.monotonic() < deadline:
                for tid in os.listdir(f"/proc/{target.pid}/task"):
                    with stopper.stopped(int(tid)):
                        pass
        ends.join(1)
        assert done == [0] and free(target.pid)
    finally:
        os.kill(target.pid, signal.SIGKILL)
        assert target.line() == {"status": -signal.SIGKILL}
        target.pid = target.process.pid


def test_who_traces_already_is_told(busy, reader):
    other = reader(busy.pid, worker(busy), "wait")
    assert other.stdout.readline() == "True\n"
    with open(f"/proc/{other.pid}/comm") as handle:
        name = handle.read().rstrip("\n")
    with Stopper(busy.pid) as stopper, pytest.raises(TelError) as caught:
        stopper.stop(worker(busy))
    assert str(caught.value) == (f"cannot stop thread {worker(busy)} of pid {busy.pid}: {name} (pid {other.pid}) traces it, "
                                 "and one alone can: end that, or leave out --stop")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_without_permission_it_says_what_to_do(busy, reader):
    python = interpreters.for_user(65534)
    other = reader(busy.pid, worker(busy), "wait", python=python, user=65534, group=65534, extra_groups=[], cwd="/")
    assert re.sub(r" \(kernel\.yama\.ptrace_scope is \d\)", "", other.communicate(timeout=LIMIT_S)[0]) == (
        f"cannot stop thread {worker(busy)} of pid {busy.pid} (Operation not permitted): run as root, or grant CAP_SYS_PTRACE, "
        "or leave out --stop\n")


@pytest.mark.parametrize("fields, scope, advice", [
    ({"CapEff": "0", "Seccomp": "0"}, 1, "run as root, or grant CAP_SYS_PTRACE (kernel.yama.ptrace_scope is 1), or leave out --stop"),
    ({"CapEff": "1ffffffffff", "Seccomp": "0"}, 3,
     "kernel.yama.ptrace_scope is 3, which forbids it to all until the next boot: leave out --stop"),
    ({"CapEff": "1ffffffffff", "Seccomp": "2"}, 0, "a seccomp filter forbids ptrace here: run it outside of the container, or start "
     "that with --cap-add SYS_PTRACE, or leave out --stop"),
    ({"CapEff": "1ffffffffff", "Seccomp": "0"}, 0,
     "a security module forbids ptrace here: run it outside of the container, or leave out --stop"),
    ({}, 0, "run as root, or grant CAP_SYS_PTRACE, or leave out --stop"),
])
def test_what_forbids_it_is_told(monkeypatch, fields, scope, advice):
    monkeypatch.setattr(stop, "_status", lambda path: fields)
    monkeypatch.setattr(stop, "_yama", lambda: scope)
    assert stop._refused(7, 8, PermissionError(1, "Operation not permitted")) == (
        f"cannot stop thread 8 of pid 7 (Operation not permitted): {advice}")


def test_its_own_process_is_refused():
    with pytest.raises(TelError, match="it is this process; leave out --stop"):
        Stopper(os.getpid())


def test_a_python_without_ctypes_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctypes", None)
    with pytest.raises(TelError, match="^--stop needs ctypes, which this Python cannot load .*: use another Python, or leave out --stop$"):
        Stopper(1)
