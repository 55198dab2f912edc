"""Sending recordings and made-up streams: targets, pace, senders of their own, and a clean end."""
import contextlib
import json
import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import pytest

from modwsgi_tel.errors import Nonsense, TelError
from modwsgi_tel.net.replay import Target, describe, paced, replay, simulate_to
from modwsgi_tel.wire import blocks

HERE = os.path.dirname(os.path.abspath(__file__))
MIXED = os.path.join(HERE, "captures", "daemon_mixed.cap.gz")
DEADLINE_S = 30.0
CREDENTIALS = struct.Struct("3i")

# What a user's shell would run; its last line is what replay returned.
DRIVER = """
import json, os, sys
root, path, *files = sys.argv[1:]
sys.path.insert(0, root)
from modwsgi_tel.net.replay import replay
os.set_inheritable(os.dup(1), True)     # a descriptor that no child needs
print(json.dumps(replay(files, path, None, say=lambda line: print(line, flush=True))))
"""


@pytest.fixture
def folder():
    made = tempfile.mkdtemp(prefix="mwt-")          # short: a socket's path has 107 bytes
    yield made
    shutil.rmtree(made)


@contextlib.contextmanager
def listening(path):
    """A collector's socket that asks for credentials."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        receiver.bind(path)
        receiver.settimeout(DEADLINE_S)
        yield receiver


def take(receiver):
    """(true pid of the sender, datagram)."""
    datagram, ancillary, _, _ = receiver.recvmsg(1 << 19, socket.CMSG_SPACE(CREDENTIALS.size))
    return CREDENTIALS.unpack(ancillary[0][2])[0], datagram


def drain(receiver):
    """All that is in the queue now."""
    receiver.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(take(receiver))
    receiver.settimeout(DEADLINE_S)
    return found


def write(path, records):
    with open(path, "wb") as handle:
        for record in records:
            handle.write(blocks.record(*record))
    return path


@contextlib.contextmanager
def driver(target, *files):
    running = subprocess.Popen([sys.executable, "-c", DRIVER, os.path.dirname(HERE), target, *files],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate(timeout=DEADLINE_S)


def state(pid):
    """The letter of /proc: S sleeps, Z is dead and waits to be reaped; None for no process."""
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_gone(pid):
    return state(pid) in (None, "Z")


def test_a_target_drops_while_nobody_listens_and_sends_again_with_the_next_datagram(folder):
    path = os.path.join(folder, "s")
    target = Target(path)
    outcomes = [target.send(b"1")]
    with listening(path) as receiver:
        outcomes.append(target.send(b"2"))
        assert take(receiver) == (os.getpid(), b"2")
    outcomes.append(target.send(b"3"))
    os.unlink(path)
    with listening(path) as receiver:
        outcomes.append(target.send(b"4"))
        assert drain(receiver) == [(os.getpid(), b"4")]
    target.close()
    assert outcomes == ["No such file or directory", None, "Connection refused", None]
    assert target.waited_s == 0.0


def test_a_full_queue_is_waited_for_and_the_time_is_counted(folder):
    path = os.path.join(folder, "s")
    with listening(path) as receiver:
        times = []

        def clock():                    # read first when the queue is found full: make room then
            if not times:
                assert receiver.recv(100) == b"0"
            times.append(2.5 * len(times))
            return times[-1]
        target = Target(path, clock=clock)
        number, began = 0, time.monotonic()
        while not times:
            assert target.send(str(number).encode()) is None
            number += 1
        assert [datagram for _, datagram in drain(receiver)] == [str(each).encode() for each in range(1, number)]
        assert target.waited_s == 2.5
        assert time.monotonic() - began < 4.0           # the clock was read when the queue was full, not 5 s later
        target.close()


def test_a_collector_that_hangs_costs_a_bounded_time(folder):
    path = os.path.join(folder, "s")
    with listening(path):
        target = Target(path, patience_s=0.05)
        outcomes = {target.send(b"x") for _ in range(2000) if not target.waited_s}
        assert outcomes == {None, "no room in its queue for 0.05 s"}
        assert 0.04 < target.waited_s < 5
        target.close()


# --- pace ---------------------------------------------------------------------

def pace(times, speed):
    """[(time, when it was given)] with a clock that only sleeping moves."""
    now = [1000.0]

    def sleep(seconds):
        assert seconds > 0
        now[0] += seconds
    return [(at, round(now[0] - 1000.0, 6)) for at, in paced([(at,) for at in times], speed, lambda: now[0], sleep)]


def test_items_come_at_their_time_or_that_many_times_faster_or_at_once():
    assert pace([5.0, 5.0, 6.5, 9.0], 1.0) == [(5.0, 0.0), (5.0, 0.0), (6.5, 1.5), (9.0, 4.0)]
    assert pace([5.0, 5.0, 6.5, 9.0], 4.0) == [(5.0, 0.0), (5.0, 0.0), (6.5, 0.375), (9.0, 1.0)]
    assert pace([5.0, 5.0, 6.5, 9.0], None) == [(5.0, 0.0), (5.0, 0.0), (6.5, 0.0), (9.0, 0.0)]


def test_a_clock_that_was_set_while_recording_takes_no_time():
    assert pace([10.0, 11.0, 4.0, 5.0, 1e9, 1e9 + 1], 1.0) == [
        (10.0, 0.0), (11.0, 1.0), (4.0, 1.0), (5.0, 2.0), (1e9, 2.0), (1e9 + 1, 3.0)]
    odd = pace([math.nan, 1.0, math.inf, 2.0], 1.0)
    assert [when for _, when in odd] == [0.0, 0.0, 0.0, 1.0]


def test_who_is_late_catches_up_without_waiting():
    now = [0.0]
    given = []
    for at, in paced([(0.0,), (1.0,), (2.0,), (6.0,)], 1.0, lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds)):
        given.append((at, now[0]))
        now[0] += 3.5 if at == 0.0 else 0.0             # the first send took that long
    assert given == [(0.0, 0.0), (1.0, 3.5), (2.0, 3.5), (6.0, 6.0)]


# --- streams from one process ---------------------------------------------------

def test_a_stream_is_sent_in_order_and_counted(folder):
    path = os.path.join(folder, "s")
    with listening(path) as receiver:
        said = []
        counts = simulate_to(path, [(0.0, b"a"), (0.0, b"b"), (1.0, b"c")], None, say=said.append, clock=lambda: 7.0)
        assert drain(receiver) == [(os.getpid(), b"a"), (os.getpid(), b"b"), (os.getpid(), b"c")]
    assert counts == {"sent": 3, "dropped": 0, "waited_s": 0.0, "senders": 1, "seconds": 0.0}
    assert said == []
    assert describe(counts) == ("3 datagrams sent in 0.0 s by 1 process, 0 dropped, "
                                "0.0 s spent waiting for the collector")


def test_an_absent_collector_is_one_line_that_says_what_to_start(folder):
    path = os.path.join(folder, "s")
    for send in (lambda: simulate_to(path, iter([])), lambda: replay([MIXED], path)):
        with pytest.raises(TelError) as caught:
            send()
        assert str(caught.value) == (f"cannot send to unix:{path}: No such file or directory: start the collector first "
                                     f"(modwsgi-tel serve --listen unix:{path})")
        assert caught.value.exit_status == 2


def test_a_stream_socket_in_the_place_of_the_collector_is_named(folder):
    path = os.path.join(folder, "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(TelError) as caught:
            simulate_to(path, iter([]))
    assert str(caught.value) == (f"cannot send to unix:{path}: Protocol wrong type for socket: a datagram socket is needed")


def test_a_collector_is_waited_for_when_told_to(folder):
    path = os.path.join(folder, "s")
    with contextlib.ExitStack() as stack:
        slept, said, receivers = [], [], []

        def sleep(seconds):
            slept.append(seconds)
            if len(slept) == 3:
                receivers.append(stack.enter_context(listening(path)))
        counts = simulate_to(path, [(0.0, b"a")], wait=True, say=said.append, sleep=sleep)
        assert drain(receivers[0]) == [(os.getpid(), b"a")]
    assert counts["sent"] == 1
    assert slept == [0.2, 0.2, 0.2]
    assert said == [f"waiting for a collector on unix:{path}: No such file or directory"]


def test_a_collector_that_leaves_and_returns_costs_only_what_was_sent_in_between(folder):
    path = os.path.join(folder, "s")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(listening(path))
        second = []

        def items():
            yield 0.0, b"a"
            first.close()
            os.unlink(path)
            yield 1.0, b"b"
            yield 2.0, b"c"
            second.append(stack.enter_context(listening(path)))
            yield 3.0, b"d"
        said = []
        counts = simulate_to(path, items(), None, say=said.append)
        assert drain(second[0]) == [(os.getpid(), b"d")]
    assert (counts["sent"], counts["dropped"]) == (2, 2)
    assert said == [f"cannot send to unix:{path}: No such file or directory: such datagrams are dropped and counted"]


def test_progress_comes_every_10_seconds_and_the_counts_are_said_when_interrupted(folder):
    path = os.path.join(folder, "s")
    now = [0.0]

    def items():
        for at in range(0, 28, 4):
            yield float(at), b"x"
        raise KeyboardInterrupt
    said, shown = [], []
    with listening(path), pytest.raises(KeyboardInterrupt):
        simulate_to(path, items(), say=said.append, progress=shown.append, clock=lambda: now[0],
                    sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    tail = "by 1 process, 0 dropped, 0.0 s spent waiting for the collector"
    assert shown == [f"4 datagrams sent in 12.0 s {tail}", f"7 datagrams sent in 24.0 s {tail}"]
    assert said == [f"7 datagrams sent in 24.0 s {tail}"]


# --- recordings -----------------------------------------------------------------

def test_a_capture_arrives_in_its_order_with_a_process_for_each_sender(folder):
    path = os.path.join(folder, "s")
    with open(MIXED, "rb") as handle:
        captured = [(pid, datagram) for _, pid, datagram in blocks.read(handle, MIXED)]
    with listening(path) as receiver, driver(path, MIXED) as running:
        arrived = [take(receiver) for _ in captured]
        output, errors = running.communicate(timeout=DEADLINE_S)
        assert drain(receiver) == []
    assert errors == ""
    assert [datagram for _, datagram in arrived] == [datagram for _, datagram in captured]
    pairs = {(pid, true) for (pid, _), (true, _) in zip(captured, arrived)}
    assert len(pairs) == len({pid for pid, _ in pairs}) == len({true for _, true in pairs}) == 2
    assert running.pid not in {true for _, true in pairs}
    assert [true for _, true in pairs if not is_gone(true)] == []
    counts = json.loads(output)
    assert (counts["sent"], counts["dropped"], counts["senders"]) == (len(captured), 0, 2)


def test_records_are_sent_as_they_are_even_if_they_are_no_datagrams(folder):
    path = os.path.join(folder, "s")
    odd = [b"", b"\0", b"WSGI", os.urandom(100), b"x" * 200000]
    capture = write(os.path.join(folder, "c"), [(1.0, 0, each) for each in odd])
    with listening(path) as receiver:
        counts = replay([capture], path, None)
        assert [datagram for _, datagram in drain(receiver)] == odd
    assert (counts["sent"], counts["dropped"], counts["senders"]) == (5, 0, 1)


def test_files_are_merged_by_receive_time_and_one_pid_in_both_is_one_sender(folder):
    path = os.path.join(folder, "s")
    one = write(os.path.join(folder, "one"), [(1.0, 7, b"a"), (4.0, 8, b"d"), (3.5, 7, b"e")])
    two = write(os.path.join(folder, "two"), [(2.0, 7, b"b"), (3.0, 9, b"c"), (5.0, 9, b"f")])
    with listening(path) as receiver:
        counts = replay([one, two], path, None)
        arrived = drain(receiver)
    assert [datagram for _, datagram in arrived] == [b"a", b"b", b"c", b"d", b"e", b"f"]
    true = [pid for pid, _ in arrived]
    assert true[0] == true[1] == true[4] and true[2] == true[5] and len(set(true)) == 3
    assert counts["senders"] == 3


def test_a_file_cut_short_is_sent_as_far_as_it_goes_with_all_of_the_others_and_said(folder):
    path = os.path.join(folder, "s")
    cut = write(os.path.join(folder, "cut"), [(1.0, 7, b"a"), (2.0, 7, b"b"), (4.0, 7, b"lost")])
    with open(cut, "r+b") as handle:
        handle.truncate(os.path.getsize(cut) - 1)
    other = write(os.path.join(folder, "other"), [(3.0, 8, b"c"), (5.0, 8, b"d")])
    said = []
    with listening(path) as receiver, pytest.raises(Nonsense) as caught:
        try:
            replay([cut, other], path, None, say=said.append, clock=lambda: 0.0)
        finally:
            assert [datagram for _, datagram in drain(receiver)] == [b"a", b"b", b"c", b"d"]
    assert str(caught.value) == f"{cut}: ends in the middle of a record (19 bytes over); the 2 records before that were sent"
    assert said == ["4 datagrams sent in 0.0 s by 2 processes, 0 dropped, 0.0 s spent waiting for the collector"]


def test_a_missing_file_is_found_before_anything_is_sent(folder):
    path, missing = os.path.join(folder, "s"), os.path.join(folder, "missing")
    good = write(os.path.join(folder, "good"), [(1.0, 7, b"a")])
    with listening(path) as receiver:
        for name, why in ((missing, "No such file or directory"), (folder, "Is a directory")):
            with pytest.raises(TelError) as caught:
                replay([good, name], path, None)
            assert str(caught.value) == f"cannot read {name}: {why}"
        assert drain(receiver) == []


def test_senders_beyond_the_bound_share_processes_and_that_is_said_once(folder):
    path = os.path.join(folder, "s")
    capture = write(os.path.join(folder, "c"), [(1.0, pid, b"%d" % pid) for pid in (10, 11, 12, 13, 10)])
    said = []
    with listening(path) as receiver:
        counts = replay([capture], path, None, say=said.append, most=2)
        arrived = drain(receiver)
    assert [datagram for _, datagram in arrived] == [b"10", b"11", b"12", b"13", b"10"]
    assert len({true for true, _ in arrived}) == counts["senders"] == 2
    assert arrived[0][0] == arrived[4][0] != arrived[1][0]
    assert said == ["more than 2 senders: pid 12 of the recording and further ones share the processes of others"]


def test_a_sender_that_somebody_kills_loses_one_datagram_and_is_replaced(folder):
    path = os.path.join(folder, "s")
    capture = write(os.path.join(folder, "c"), [(float(at), 7, b"%d" % at) for at in range(3)])
    with listening(path) as receiver:
        arrived = []

        def sleep(seconds):             # between two records
            if not arrived:
                arrived.extend(drain(receiver))
                os.kill(arrived[0][0], signal.SIGKILL)
        said = []
        counts = replay([capture], path, 1.0, say=said.append, clock=lambda: 0.0, sleep=sleep)
        arrived.extend(drain(receiver))
    assert [datagram for _, datagram in arrived] == [b"0", b"2"]
    assert arrived[0][0] != arrived[1][0]
    assert (counts["sent"], counts["dropped"], counts["senders"]) == (2, 1, 1)
    assert said == [f"cannot send to unix:{path}: its sending process was ended from outside: "
                    "such datagrams are dropped and counted"]


def test_a_sender_leaves_ctrl_c_to_its_parent(folder):
    path = os.path.join(folder, "s")
    capture = write(os.path.join(folder, "c"), [(float(at), 7, b"%d" % at) for at in range(3)])
    with listening(path) as receiver:
        arrived = []

        def sleep(seconds):             # between two records
            arrived.extend(drain(receiver))
            os.kill(arrived[0][0], signal.SIGINT)
        counts = replay([capture], path, 1.0, clock=lambda: 0.0, sleep=sleep)
        arrived.extend(drain(receiver))
    assert [datagram for _, datagram in arrived] == [b"0", b"1", b"2"]
    assert len({true for true, _ in arrived}) == 1
    assert counts["dropped"] == 0


# --- a clean end ------------------------------------------------------------------

def endless(folder):
    """A capture of two senders that is longer than any queue (10, or 512 with systemd)."""
    return write(os.path.join(folder, "endless"), [(float(at), 7 + at % 2, b"x") for at in range(5000)])


def blocked(receiver, running):
    """Receive until both senders are known, then fill the queue until all stand still; their true pids."""
    pids = set()
    while len(pids) < 2:
        pids.add(take(receiver)[0])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe, contextlib.suppress(BlockingIOError):
        while True:
            probe.sendto(b"probe", socket.MSG_DONTWAIT, receiver.getsockname())
    deadline, asleep = time.monotonic() + DEADLINE_S, 0
    while asleep < 5:                   # with a full queue they come to rest, one of them in its send
        asleep = asleep + 1 if all(state(pid) == "S" for pid in (running.pid, *pids)) else 0
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert running.poll() is None
    return pids


@pytest.mark.parametrize("number, to_all, status", [
    (signal.SIGINT, False, -signal.SIGINT), (signal.SIGINT, True, -signal.SIGINT), (signal.SIGTERM, False, 143),
    (signal.SIGKILL, False, -signal.SIGKILL)])
def test_no_child_outlives_the_parent_however_it_ends(folder, number, to_all, status):
    path = os.path.join(folder, "s")
    with listening(path) as receiver, driver(path, endless(folder)) as running:
        pids = blocked(receiver, running)
        (os.killpg if to_all else os.kill)(running.pid, number)
        began = time.monotonic()
        assert running.wait(timeout=DEADLINE_S) == status
        assert time.monotonic() - began < 4.0           # less than a child would wait for room
        if number != signal.SIGKILL:    # the parent has reaped them before it went
            assert [pid for pid in pids if not is_gone(pid)] == []
            assert "datagrams sent in" in running.stdout.read()
        deadline = time.monotonic() + DEADLINE_S
        while not all(map(is_gone, pids)):
            drain(receiver)             # a killed parent's children first finish the datagram that waits for room
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_children_hold_no_descriptor_but_their_own(folder):
    path = os.path.join(folder, "s")
    with listening(path) as receiver, driver(path, endless(folder)) as running:
        for pid in blocked(receiver, running):
            held = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
            assert [held.pop(name) for name in "012"] == [os.devnull] * 3
            assert [link.partition(":")[0] for link in held.values()] == ["socket", "socket"]


def children():
    """The pids of this process's children: other tests' fixtures may have some that run."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as handle:
            found.update(map(int, handle.read().split()))
    return found


def test_a_replay_in_this_process_leaves_no_child_no_descriptor_and_no_handler(folder):
    path = os.path.join(folder, "s")
    capture = write(os.path.join(folder, "c"), [(1.0, pid, b"x") for pid in range(5)])

    def things():
        return (sorted(os.listdir("/proc/self/fd")), signal.getsignal(signal.SIGTERM),
                signal.pthread_sigmask(signal.SIG_BLOCK, ()), children())

    before = things()
    with listening(path):
        assert replay([capture], path, None)["senders"] == 5
    assert things() == before and before[1] == signal.SIG_DFL
