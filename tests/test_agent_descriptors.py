"""The agent's thread and its telemetry socket: what an application does to descriptors, threads and clocks does not hurt either."""
import os
import select
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

import running
from descriptors import another_file_at
from modwsgi_tel.agent import monitor, sender, threads
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.fields import AGENT_STATE


class Part:
    """Is due at `at`; then it does what `does` says, once."""

    def __init__(self, does=lambda: None):
        self.at, self.ran, self._does = None, 0, does

    def due(self):
        return self.at

    def run(self, now):
        self.at = None
        self.ran += 1
        self._does()


@pytest.fixture
def a_monitor():
    made = []

    def start(*parts, each_turn=lambda now: None):
        found = monitor.Monitor(parts, None, [].append, each_turn)
        found.seen = found._errors.__self__
        made.append(found)
        found.start()
        running.wait_until(lambda: found.wakeups or found.wakes_at == monitor.NEVER, 10, "it does not run")
        return found

    yield start
    for found in made:
        found.stop()
        assert not found.alive
        found.close()


def run_now(found, part):
    """Wake it for a part."""
    ran, part.at = part.ran, time.monotonic()
    found.wake()
    running.wait_until(lambda: part.ran > ran, 10, "it does not run the part")


@pytest.fixture
def theirs(tmp_path):
    """A descriptor of the application's file, which says "precious"."""
    number = os.open(str(tmp_path / "precious"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    os.write(number, b"precious")
    os.lseek(number, 0, os.SEEK_SET)
    yield number
    os.close(number)


def untouched(theirs):
    """Whether nobody wrote to it, read from it or cut it."""
    return os.lseek(theirs, 0, os.SEEK_CUR) == 0 and os.pread(theirs, 100, 0) == b"precious"


# --- the pipe -----------------------------------------------------------------------------------

def test_a_pipe_whose_numbers_are_the_applications_is_replaced_and_their_file_is_not_touched(a_monitor, theirs):
    part = Part()
    found = a_monitor(part)
    out, number, _ = found._pipe
    with another_file_at(out, theirs), another_file_at(number, theirs):
        for _ in range(3):
            run_now(found, part)
        assert set(found._pipe[:2]) & {out, number} == set() and found.seen == []
        running.wait_until(lambda: found.wakes_at == monitor.NEVER, 10, "it does not sleep again")
        before = found.wakeups
        found.wake()
        running.wait_until(lambda: found.wakeups > before, 10, "it does not wake")
        assert untouched(theirs) and os.path.sameopenfile(out, theirs) and os.path.sameopenfile(number, theirs)


@pytest.mark.parametrize("end", [0, 1])
def test_where_one_end_of_the_pipe_is_closed_it_makes_a_new_one_and_leaves_no_other_behind(a_monitor, end):
    part = Part()
    found = a_monitor(part)
    before = set(os.listdir("/proc/self/fd"))
    os.close(found._pipe[end])
    for _ in range(3):
        run_now(found, part)
    assert len(set(os.listdir("/proc/self/fd"))) == len(before) and found.seen == []


@pytest.mark.parametrize("end", ["close", "forked"])
def test_at_the_end_a_number_that_is_the_applications_is_not_closed(theirs, end):
    found = monitor.Monitor((), None, [].append, lambda now: None)
    out, number, _ = found._pipe
    with another_file_at(out, theirs), another_file_at(number, theirs):
        found.wake()
        getattr(found, end)()
        found.wake()
        assert untouched(theirs) and os.path.sameopenfile(out, theirs) and os.path.sameopenfile(number, theirs)


# --- the thread ---------------------------------------------------------------------------------

def raises(error):
    def does(*_):
        raise error
    return does


@pytest.mark.parametrize("error", [SystemExit("theirs"), KeyboardInterrupt(), GeneratorExit(), ValueError("x")])
def test_whatever_a_part_raises_is_counted_and_the_thread_and_the_other_parts_go_on(a_monitor, error):
    bad, good = Part(raises(error)), Part()
    found = a_monitor(bad, good)
    for count in (1, 2):
        bad.at = time.monotonic()
        run_now(found, good)
        assert (found.alive, found.seen) == (True, [error] * count)


def test_what_raises_in_each_turn_and_where_errors_are_counted_does_not_end_it(a_monitor):
    part = Part()
    found = a_monitor(part, each_turn=raises(SystemExit()))
    found._errors = raises(SystemExit())
    run_now(found, part)
    assert found.alive


@pytest.mark.parametrize("hook", ["setprofile", "settrace"])
def test_what_an_application_gave_to_threading_to_run_in_each_thread_is_not_run_there(a_monitor, hook):
    getattr(threading, hook)(raises(ZeroDivisionError()))
    try:
        part = Part()
        found = a_monitor(part)
    finally:
        getattr(threading, hook)(None)
    run_now(found, part)
    assert (found.alive, found.seen) == (True, [])


def test_it_says_whether_its_thread_runs(a_monitor):
    found = monitor.Monitor((), None, [].append, lambda now: None)
    assert not found.alive
    found.close()
    found = a_monitor()
    assert found.alive
    found.stop()
    assert not found.alive


def test_it_says_so_where_its_thread_has_ended_unasked(a_monitor):
    found = a_monitor()
    found._poll = raises(SystemExit())          # what waits after a failure fails too
    found.wake()
    running.wait_until(lambda: not found.alive, 10, "its thread runs on")
    assert found.wakes_at == monitor.NEVER


def test_in_a_child_of_a_fork_it_does_not_run(a_monitor):
    found = a_monitor()
    child = os.fork()
    if not child:
        found.forked()
        os._exit(int(found.alive))
    assert os.waitpid(child, 0)[1] == 0 and found.alive


def test_in_a_further_interpreter_it_is_a_thread_that_is_joined(a_monitor, monkeypatch):
    monkeypatch.setattr(threads, "interpreter_id", lambda: 7)
    found = a_monitor()
    thread = found._thread
    assert (type(thread), thread.daemon, found.alive) == (threading.Thread, True, True)
    found.stop()
    assert (thread.is_alive(), found.alive) == (False, False)


def test_where_no_thread_can_be_started_it_is_not_alive_and_its_end_does_not_wait(monkeypatch):
    found = monitor.Monitor((), None, [].append, lambda now: None)
    found._start = raises(RuntimeError("can't start new thread"))
    with pytest.raises(RuntimeError):
        found.start()
    began = time.monotonic()
    found.stop()
    assert not found.alive and time.monotonic() - began < monitor.JOIN_S / 2
    found.close()


def test_who_stops_it_from_its_own_thread_does_not_wait_for_himself(a_monitor):
    took = []

    def stops():
        began = time.monotonic()
        found.stop()
        took.append(time.monotonic() - began)

    part = Part(stops)
    found = a_monitor(part)
    run_now(found, part)
    running.wait_until(lambda: not found.alive, 10, "it does not stop")
    assert took[0] < monitor.JOIN_S / 2


def test_where_the_clock_stands_still_it_does_not_become_a_busy_loop_and_is_woken_at_once(a_monitor, monkeypatch):
    part = Part()
    found = a_monitor(part)
    now = time.monotonic()
    monkeypatch.setattr(monitor, "time", types.SimpleNamespace(monotonic=lambda: now))
    part.at = now + 0.0005
    found.wake()
    running.wait_until(lambda: found.wakes_at == part.at, 10, "it does not wake")
    before, began = found.wakeups, time.monotonic()
    select.select([], [], [], 0.5)
    assert found.wakeups - before <= (time.monotonic() - began) * 1000 / monitor.SHORTEST_MS + 1
    part.at = now
    found.wake()
    running.wait_until(lambda: part.ran, 10, "it does not wake")


def test_a_part_that_stays_due_is_asked_at_most_a_hundred_times_a_second(a_monitor):
    class Stays(Part):
        def run(self, now):
            self.ran += 1

    part = Stays()
    found = a_monitor(part)
    part.at = began = time.monotonic()
    found.wake()
    select.select([], [], [], 0.3)
    assert part.ran <= (time.monotonic() - began) * 1000 / monitor.SHORTEST_MS + 3
    part.at = None


# --- the telemetry socket -----------------------------------------------------------------------

@pytest.fixture
def collector():
    """(path, bound socket)"""
    with running.short_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as found:
        path = os.path.join(folder, "t.sock")
        found.bind(path)
        yield path, found


@pytest.fixture
def a_sender(collector, monkeypatch):
    monkeypatch.setattr(sender, "AGAIN_S", 0.0)
    found = sender.Sender(collector[0], 0)
    assert found.send(AGENT_STATE, []) and decode(collector[1].recv(4096)).seq == 1
    yield found
    found.close()


def fill(found):
    """How many datagrams the collector's queue took."""
    sent = 0
    while found.offer(AGENT_STATE, []):
        sent += 1
    return sent


def test_a_number_that_is_the_applications_file_is_not_written_to_or_closed_and_a_new_connection_is_made(collector, a_sender, theirs):
    number = a_sender._socket.fileno()
    with another_file_at(number, theirs):
        assert a_sender.send(AGENT_STATE, [])
        assert (a_sender.generation, a_sender.lost, decode(collector[1].recv(4096)).seq) == (2, 0, 2)
        assert untouched(theirs) and os.path.sameopenfile(number, theirs)


def test_a_number_that_is_the_applications_socket_gets_no_datagram(collector, a_sender):
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there, another_file_at(a_sender._socket.fileno(), here.fileno()):
        assert a_sender.send(AGENT_STATE, []) and decode(collector[1].recv(4096)).seq == 2
        there.setblocking(False)
        with pytest.raises(BlockingIOError):
            there.recv(100)


def test_a_number_that_becomes_the_applications_while_it_waits_for_room_gets_no_datagram(collector, a_sender, monkeypatch):
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    fill(a_sender)
    number, real = a_sender._socket.fileno(), a_sender._has_room
    with here, there:
        monkeypatch.setattr(a_sender, "_has_room", lambda held: (os.dup2(here.fileno(), number), True)[1])
        a_sender.patience(0.1)
        assert (a_sender.send(AGENT_STATE, []), a_sender.lost) == (False, 1)
        there.setblocking(False)
        with pytest.raises(BlockingIOError):
            there.recv(100)
        monkeypatch.setattr(a_sender, "_has_room", real)
        a_sender.connect()
        os.close(number)


@pytest.mark.parametrize("end", ["close", "forked"])
def test_at_the_end_a_number_that_is_the_applications_stays_open(a_sender, theirs, end):
    number = a_sender._socket.fileno()
    with another_file_at(number, theirs):
        getattr(a_sender, end)()
        assert os.path.sameopenfile(number, theirs) and not a_sender.connected


# --- its patience -------------------------------------------------------------------------------

def test_with_patience_a_burst_of_any_length_arrives_whole_and_without_it_not(collector, a_sender):
    path, bound = collector
    seqs, done = [], threading.Event()

    def reads():
        ready = select.poll()
        ready.register(bound, select.POLLIN)
        while not done.is_set() or ready.poll(0):
            if ready.poll(20):
                seqs.append(decode(bound.recv(4096)).seq)
                time.sleep(0.001)       # slower than it is sent

    fill(a_sender)
    assert not a_sender.send(AGENT_STATE, []) and a_sender.lost == 1
    reader = threading.Thread(target=reads)
    reader.start()
    try:
        a_sender.patience(20.0)
        assert [a_sender.send(AGENT_STATE, []) for _ in range(150)] == [True] * 150
        a_sender.patience(0)
        sent = [a_sender.send(AGENT_STATE, []) for _ in range(400)]
    finally:
        done.set()
        reader.join(20)
    assert not all(sent) and a_sender.lost == 1 + sent.count(False)
    assert seqs == list(range(2, a_sender._seq))


@pytest.mark.parametrize("stands", [False, True])
def test_patience_is_for_all_that_is_sent_together_whatever_the_clock_does(a_sender, monkeypatch, stands):
    fill(a_sender)
    began = now = time.monotonic()
    if stands:
        monkeypatch.setattr(sender, "time", types.SimpleNamespace(monotonic=lambda: now, time=time.time))
    a_sender.patience(0.2)
    assert [a_sender.send(AGENT_STATE, []) for _ in range(30)] == [False] * 30
    assert 0.2 <= time.monotonic() - began < 1.0


# --- all of it ----------------------------------------------------------------------------------

CLOSES = '''
import os, sys, threading, time
sys.path.insert(0, sys.argv[1])
from modwsgi_tel import agent
def application(environ, start_response):
    time.sleep(float(environ["PATH_INFO"][1:]))
    start_response("200 OK", [])
    return [b""]
watched = agent.middleware(application, socket=sys.argv[2] + "/t.sock", watchdog=5, watchdog_folder=sys.argv[2], threshold=0.3,
                           interval=0.1, log="off")
def call(path):
    list(watched({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, lambda status, headers, *more: None))
call("/0")
time.sleep(0.3)
slow = threading.Thread(target=call, args=("/0.6",))
slow.start()
time.sleep(0.1)
os.closerange(3, 4096)
files = [open(f"{sys.argv[2]}/precious{each}", "w+b", buffering=0) for each in range(20)]
for each in files:
    each.write(b"precious")
slow.join()
for _ in range(4):
    call("/0.5")
_agent = agent._agent
print(*sorted({each.tell() for each in files} | {os.path.getsize(each.name) for each in files}), _agent.monitor.alive)
print(_agent.watchdog.problem)
print(_agent.control.problem)
import atexit
@atexit.register                        # before the agent's own
def closes():
    _agent.stop()
    print(sum(each.read() == b"" for each in files if os.fstat(each.fileno()).st_size == 8))
'''


def test_an_application_that_closes_every_descriptor_keeps_its_files_and_is_reported_on(collector, tmp_path):
    path, bound = collector
    folder = os.path.dirname(path)
    with subprocess.Popen([sys.executable, "-c", CLOSES, running.ROOT, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=running.clean_environment()) as process:
        try:
            reader = select.poll()
            reader.register(bound, select.POLLIN)
            seqs = []
            while process.poll() is None or reader.poll(0):
                if reader.poll(50):
                    seqs.append(decode(bound.recv(65536)).seq)
            said, failed = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (said.splitlines(), failed) == (["8 True", "no watchdog for the GIL: the application closed its file",
                                            "no control socket: the application closed it", "20"], "")
    assert seqs == list(range(1, len(seqs) + 1)) and len(seqs) > 20
