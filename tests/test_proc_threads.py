"""What /proc says of threads: as made-up text, and of a real process that waits in known calls."""
import os
import re
import signal
import subprocess
import sys

import pytest

import running
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import procfs, threads
from modwsgi_tel.proc.procfs import Stat, parse_stat_line
from modwsgi_tel.proc.threads import Identity, Task, parse_syscall, syscall_name
from modwsgi_tel.stacks import model

STAT = (b"%d (%b) %b 7 42 42 0 -1 4194368 1 0 0 0 30 12 0 0 20 0 2 0 987654 89804800 2206 18446744073709551615 4321280 7148169 "
        b"140728493920800 0 0")
PROGRAM = """
import os, socket, sys, threading, time
near, far = socket.socketpair()
lock = threading.Lock(); lock.acquire()
read, write = os.pipe()
for name, work in (("sleep", lambda: time.sleep(600)), ("receive", lambda: near.recv(1)), ("lock", lock.acquire),
                   ("pipe", lambda: os.read(read, 1))):
    threading.Thread(target=work, name=name, daemon=True).start()
    time.sleep(0)
print(*[each.native_id for each in threading.enumerate()], flush=True)
sys.stdin.read()
"""


def a_root(folder, files):
    """A made-up /proc with these files, {path: bytes}."""
    for name, content in {"self/stat": STAT % (1, b"x", b"S"), **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


def a_task(**more):
    return Task(**{"tid": 42, "inner_tid": 42, "name": "x", "state": "S", "cpu_ticks": 0, "wchan": None, "syscall": None, **more})


@pytest.fixture
def waiting():
    """(pid, [tids]) of a process that sleeps, receives, waits for a lock and reads a pipe, in this order, behind the main one."""
    with subprocess.Popen([sys.executable, "-I", "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            tids = [int(word) for word in child.stdout.readline().split()]
            yield child.pid, tids
        finally:
            child.kill()


def test_a_stat_line_tells_name_state_parent_cpu_start_and_stack_whatever_the_name():
    for name in (b"python3", b"a b", b") R 1 2 3 4 (", b""):
        assert parse_stat_line(STAT % (42, name, b"S")) == Stat(name.decode(), "S", 7, False, 42, 987654, 140728493920800, 2, 2206)
    assert parse_stat_line((STAT % (42, b"kthreadd", b"S")).replace(b"4194368", b"2129984")).kernel
    for text in (b"", b"42 (x", b"42 (x) S 1 2"):
        with pytest.raises(ValueError):
            parse_stat_line(text)


def test_a_system_call_has_its_number_and_name_or_its_number_alone():
    assert parse_syscall(b"230 0x1 0x1 0x7ffd 0x0 0x0 0x0 0x7ffd 0x7fe2\n", "x86_64") == (230, "clock_nanosleep")
    assert parse_syscall(b"98 0x1\n", "aarch64") == (98, "futex")
    assert parse_syscall(b"999 0x1\n", "x86_64") == (999, "syscall 999")
    assert parse_syscall(b"7 0x1\n", "riscv64") == (7, "syscall 7")
    for text in (b"running\n", b"-1 0x7ffd 0x7fe2\n", b"", b"\n"):
        assert parse_syscall(text, "x86_64") is None


@pytest.mark.parametrize("machine, header", [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
                                             ("aarch64", "/usr/include/asm-generic/unistd.h")])
def test_the_numbers_are_the_kernels(machine, header):
    if not os.path.exists(header):
        pytest.skip("no headers of the kernel (apt-get install linux-libc-dev)")
    with open(header) as file:
        told = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", file.read(), re.M))
    other = {"fstatat": "newfstatat"}                       # the name in the generic table
    told = {int(number): other.get(name, name) for name, number in reversed(list(told.items()))}
    table = threads._SYSCALLS[machine]
    assert {number: told.get(number) for number in table} == table
    for name in "read write ppoll pselect6 epoll_pwait futex nanosleep accept4 recvfrom recvmsg sendto connect wait4".split():
        assert name in table.values()


def test_states_are_the_models_words():
    assert {letter: threads.state(a_task(state=letter)) for letter in "RSDTtZXI?"} == {
        "R": model.RUNNING, "S": model.WAITING, "D": model.DISK, "T": model.STOPPED, "t": model.STOPPED, "Z": model.GONE,
        "X": model.GONE, "I": model.WAITING, "?": model.UNKNOWN}


def test_a_wait_is_told_by_its_call_and_the_kernels_function_as_far_as_they_are_known():
    assert threads.wait(a_task(syscall=(202, "futex"), wchan="futex_do_wait")) == "futex (futex_do_wait)"
    assert threads.wait(a_task(syscall=(202, "futex"))) == "futex"
    assert threads.wait(a_task(wchan="futex_do_wait")) == "(futex_do_wait)"
    assert threads.wait(a_task()) is None
    assert threads.wait(a_task(state="R", syscall=(202, "futex"), wchan="futex_do_wait")) is None


def test_the_threads_of_a_made_up_process(tmp_path):
    root = a_root(tmp_path, {
        "42/status": b"Name:\tx\nNSpid:\t42\t7\n",
        "42/task/42/stat": STAT % (42, b"main", b"S"), "42/task/42/status": b"NSpid:\t42\t7\n",
        "42/task/42/wchan": b"futex_do_wait",
        "42/task/42/syscall": b"999 0x1\n",
        "42/task/50/stat": STAT % (50, b"pool", b"R"), "42/task/50/status": b"NSpid:\t50\t9\n", "42/task/50/wchan": b"0",
        "42/task/50/syscall": b"running\n",
        "42/task/51/status": b"NSpid:\t51\t10\n",                  # it has ended in between
        "42/task/52/stat": b"nonsense"})
    found = threads.threads(42, root)
    assert found == {42: Task(42, 7, "main", "S", 42, "futex_do_wait", (999, "syscall 999")),
                     50: Task(50, 9, "pool", "R", 42, None, None)}
    assert found.dropped == 0
    assert threads.cpu_ticks(42, [42, 50, 51, 52], root) == {42: 42, 50: 42}
    assert threads.inner_pid(42, root) == 7


def test_the_rights_with_which_a_process_opens_files_are_those_of_its_file_system_ids(tmp_path):
    root = a_root(tmp_path, {"42/status": b"Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n",
                             "43/status": b"Uid:\t1\t1\t1\t1\nGid:\t5\t5\t5\t5\nGroups:\t\n", "44/status": b"Name:\tx\n"})
    assert threads.rights(42, root) == (4, [8, 9, 10]) and threads.rights(43, root) == (1, [5])
    for pid in (44, 45):
        with pytest.raises(TelError):
            threads.rights(pid, root)
    assert threads.rights(os.getpid()) == (os.geteuid(), [os.getegid(), *os.getgroups()])


def test_more_threads_than_the_bound_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "MOST", 2)
    root = a_root(tmp_path, {"42/status": b"NSpid:\t42\n", **{
        "42/task/%d/stat" % tid: STAT % (tid, b"x", b"S") for tid in (42, 100, 43, 44, 45)}})
    found = threads.threads(42, root)
    assert list(found) == [42, 43] and found.dropped == 3


def test_real_threads_are_told_with_what_they_wait_in(waiting):
    pid, tids = waiting

    def calls():
        found = threads.threads(pid)
        return [found[tid].syscall and found[tid].syscall[1] for tid in tids]

    # some C libraries sleep by the one, some by the other
    running.wait_until(lambda: [re.sub("^(clock_)?nanosleep$|^p?select6?$", "sleep", each or "") for each in calls()] == [
        "read", "sleep", "recvfrom", "futex", "read"], 10, calls)
    found = threads.threads(pid)
    assert sorted(found) == sorted(tids)
    assert [threads.state(found[tid]) for tid in tids] == [model.WAITING] * 5
    assert re.fullmatch(r"futex \(futex_\w+\)", threads.wait(found[tids[3]]))
    assert [found[tid].inner_tid for tid in tids] == tids
    assert sorted(threads.cpu_ticks(pid, tids + [1 << 22])) == sorted(tids)


def test_a_process_is_the_same_until_it_executes_another_program_or_the_same_again():
    again = "import os, sys; print('ready', flush=True); sys.stdin.readline(); os.execv(sys.executable, [sys.executable, '-I'," \
            " '-c', 'import sys; print(1, flush=True); sys.stdin.readline()'])"
    child = subprocess.Popen([sys.executable, "-I", "-c", again], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        before = threads.identity(child.pid)
        program = os.stat(sys.executable)
        assert threads.identity(child.pid) == before == Identity(
            procfs.sender(child.pid)["start"], "%d:%d" % (program.st_dev, program.st_ino), before.stack)
        assert threads.executable(child.pid) == os.path.realpath(sys.executable)
        assert threads.command(child.pid) == "%s -I -c %s" % (sys.executable, again)
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        after = threads.identity(child.pid)
        assert after != before and after._replace(stack=before.stack) == before
    finally:
        child.kill()
        child.communicate(timeout=10)


def test_a_process_whose_program_may_not_be_known_is_told_by_its_start_and_stack(tmp_path):
    root = a_root(tmp_path, {"42/stat": STAT % (42, b"x", b"S")})
    assert threads.identity(42, root) == Identity(987654, None, 140728493920800)


def test_a_process_has_ended_when_nothing_of_it_runs():
    child = subprocess.Popen([sys.executable, "-I", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        assert not threads.has_ended(child.pid)
        child.send_signal(signal.SIGKILL)
        running.wait_until(lambda: threads.has_ended(child.pid), 10, "still runs")      # a zombie
        os.stat("/proc/%d" % child.pid)
    finally:
        child.kill()
        child.communicate(timeout=10)
    assert threads.has_ended(child.pid)
    assert threads.threads(child.pid) == {}
    for ask in (threads.identity, threads.command, threads.inner_pid):
        with pytest.raises(TelError, match="^there is no process %d: it has ended, or" % child.pid):
            ask(child.pid)


def test_a_process_whose_main_thread_alone_has_ended_runs_on(tmp_path):
    root = a_root(tmp_path, {"42/task/42/stat": STAT % (42, b"x", b"Z"), "42/task/43/stat": STAT % (43, b"x", b"S")})
    assert not threads.has_ended(42, root)
    os.unlink(tmp_path / "42/task/43/stat")
    assert threads.has_ended(42, root)


def test_a_process_without_a_command_line_is_told_by_its_name(tmp_path):
    root = a_root(tmp_path, {"2/cmdline": b"", "2/stat": STAT % (2, b"kthreadd", b"S"), "3/cmdline": b"a\0b c\0\0",
                             "4/cmdline": b"x" * 9999})
    assert [threads.command(pid, root) for pid in (2, 3, 4)] == ["[kthreadd]", "a b c", "x" * 4096]


def test_a_deleted_program_is_said_to_be(tmp_path):
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "exe").symlink_to("/usr/bin/python3.11 (deleted)")
    assert threads.executable(42, str(tmp_path)) == "/usr/bin/python3.11 (deleted)"
    assert threads.executable(43, str(tmp_path)) is None


def test_a_name_for_each_number():
    assert syscall_name(-5, "x86_64") == "syscall -5"
