"""The command `stacks`: what a user types, what he gets, and what he is told when it cannot be done."""
import contextlib
import json
import os
import pwd
import re
import signal
import subprocess
import sys

import pytest

import cores
import interpreters
from running import CHECKOUT, ROOT, clean_environment, short_folder, wait_until

TARGET = '''
import os, sys, threading
def outer(n):
    secret_token = "hunter2"
    middle(n)
def middle(count):
    park()
def park():
    forever.acquire()
forever = threading.Lock(); forever.acquire()
for name in ("one", "two", "three"):
    threading.Thread(target=outer, args=(5,), name=name, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
'''


def run(*arguments, program=CHECKOUT, **more):
    more.setdefault("env", clean_environment())
    return subprocess.run([*program, "stacks", *map(str, arguments)], cwd=ROOT, stdin=subprocess.DEVNULL, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, **more)


@contextlib.contextmanager
def target(tmp_path, python=sys.executable, source=TARGET, ready=3):
    """A running program whose threads are parked; its Popen."""
    path = tmp_path / "app.py"
    path.write_text(source)
    with subprocess.Popen([python, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment()) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            wait_until(lambda: parked(process.pid) >= ready, 20, "its threads do not park")
            yield process
        finally:
            process.kill()


def parked(pid):
    """How many threads wait in the function `park`."""
    told = run(pid, "--json")
    return sum(bool(thread["frames"]) and thread["frames"][0]["function"] == "park" and thread["state"] == "waiting"
               for each in json.loads(told.stdout or "[]") for thread in each["threads"])


@pytest.fixture
def folder():
    """A folder that all may search."""
    with short_folder() as path:
        yield path


@pytest.fixture(scope="module")
def parking(tmp_path_factory):
    with target(tmp_path_factory.mktemp("parking")) as process:
        yield process


# --- what it shows --------------------------------------------------------------------------------

def test_threads_with_the_same_stack_are_shown_once_with_source_lines(parking):
    told = run(parking.pid)
    assert told.returncode == 0 and told.stderr == ""
    block = told.stdout.partition("\n\nThread ")[2].partition("\n\n")[0].splitlines()
    assert re.fullmatch(r'\d+ "one"  \(and 2 more: \d+, \d+\)  waiting in futex \(\w+\)', block[0])
    file = re.search(r'File "(.*app.py)"', told.stdout).group(1)
    assert block[2:] == [f'  File "{file}", line 5, in outer', "    middle(n)",
                         f'  File "{file}", line 7, in middle', "    park()",
                         f'  File "{file}", line 9, in park', "    forever.acquire()"]


def test_json_has_the_frames_innermost_first(parking):
    found, = json.loads(run(parking.pid, "--json").stdout)
    assert found["pid"] == parking.pid and ("%d.%d.%d" % sys.version_info[:3]).startswith(found["python"])
    thread, = [each for each in found["threads"] if each["name"] == "two"]
    assert [(frame["function"], frame["line"]) for frame in thread["frames"][:3]] == [("park", 9), ("middle", 7), ("outer", 5)]
    assert {name: thread[name] for name in ("owns_gil", "state", "whole", "problem", "interpreter", "idle")} == {
        "owns_gil": False, "state": "waiting", "whole": True, "problem": None, "interpreter": 0, "idle": False}
    assert str(thread["tid"]) in os.listdir(f"/proc/{parking.pid}/task")


def test_flat_is_a_line_for_each_thread(parking):
    lines = run(parking.pid, "--flat").stdout.splitlines()
    assert sorted(line.split()[2] for line in lines) == ["MainThread", "one", "three", "two"]
    assert all(line.startswith(f"{parking.pid}  ") for line in lines)
    assert sum("park " in line and "<- middle" in line for line in lines) == 3


def test_locals_are_shown_and_secrets_are_not(parking):
    told = run(parking.pid, "--locals").stdout
    assert "      n = 5\n      secret_token = <masked>\n" in told and "      count = 5\n" in told
    assert "hunter2" not in told
    assert "n = 5" not in run(parking.pid).stdout
    threads = json.loads(run(parking.pid, "--locals", "--json").stdout)[0]["threads"]
    assert [each["frames"][2]["locals"] for each in threads if each["name"] == "one"] == [{"n": "5", "secret_token": "<masked>"}]


def test_several_looks_tell_what_stayed(parking):
    told = run(parking.pid, "--interval", "0.05", "--count", "3").stdout
    assert "the last of 3 looks" in told
    assert "the same place at all 3 looks, no CPU used: waits there or is stuck" in told
    looks = json.loads(run(parking.pid, "--interval", "0.05", "--json").stdout)
    assert [look["pid"] for look in looks] == [parking.pid] * 2 and looks[0]["at"] < looks[1]["at"]


def test_ctrl_c_between_looks_shows_what_was_seen(parking):
    with subprocess.Popen([*CHECKOUT, "stacks", str(parking.pid), "--interval", "30", "--count", "100"], cwd=ROOT,
                          env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: waits(process.pid), 20, "it never waits for its next look")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, b"modwsgi-tel: ended early by Ctrl-C, 1 of 100 looks: what there is is whole\n")
    assert b"  1 of 100 looks\n" in out and b'"one"' in out


def waits(pid):
    """Whether a process waits in select(), as it does between two looks."""
    with open(f"/proc/{pid}/wchan") as handle, open(f"/proc/{pid}/maps") as maps:
        return "select" in maps.read() and handle.read().startswith(("do_select", "poll_schedule"))


def test_no_idle_leaves_out_a_pool_that_has_nothing_to_do(tmp_path):
    source = TARGET.replace("print(", """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
[each.result() for each in [pool.submit(int) for _ in range(2)]]
print(""")
    with target(tmp_path, source=source) as process:
        def idle():
            return [each for each in json.loads(run(process.pid, "--json").stdout)[0]["threads"] if each["idle"]]
        wait_until(idle, 20, "no thread of the pool is idle")
        assert all("_worker" in each["frames"][0]["function"] for each in idle())
        count = len(idle())
        assert f"{count} idle thread" in run(process.pid, "--no-idle").stdout
        assert "concurrent/futures/thread.py" not in run(process.pid, "--no-idle").stdout


def test_subprocesses_are_read_too(tmp_path):
    source = TARGET.replace("print(", """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
child.stdout.readline()
print(""")
    with target(tmp_path, source=source) as process:
        found = json.loads(run(process.pid, "--subprocesses", "--json").stdout)
        assert [each["pid"] for each in found][0] == process.pid and len(found) == 2
        assert found[1]["threads"][0]["frames"][-1] == {"function": "<module>", "file": "<string>", "line": 1, "interpreter": 0}


# --- other Pythons ------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", interpreters.SUPPORTED)
def test_the_self_check_of_each_python_finds_no_difference(version):
    told = run("--self-check", program=(interpreters.of(version), "-m", "modwsgi_tel"))
    assert (told.returncode, told.stderr) == (0, "")
    assert re.fullmatch(rf"Python {re.escape(version)}[.\d]*: (\d+) of \1 frames read from outside are what sys._current_frames\(\) "
                        r"says inside\n", told.stdout)


# --- core files ---------------------------------------------------------------------------------------

def test_a_core_shows_the_thread_that_crashed_first_and_why(tmp_path):
    crashed = cores.Target(sys.executable, tmp_path)
    try:
        path = crashed.die("touch")
    finally:
        crashed.end()
    told = run("--core", path)
    assert told.returncode == 0
    assert told.stdout.startswith(f"ended by SIGSEGV at address 0x10, in thread {crashed.pid}, which comes first\n")
    assert ", in die\n" in told.stdout.partition("\n\nThread ")[2].partition("\n\nThread ")[0]
    found, = json.loads(run("--core", path, "--json").stdout)
    assert found["signal"] == {"number": 11, "name": "SIGSEGV", "address": 16, "tid": crashed.pid}
    read = {each["tid"]: [[frame["function"], frame["file"], frame["line"]] for frame in each["frames"]] for each in found["threads"]}
    assert list(read)[0] == crashed.pid
    assert {tid: read[tid] for tid in crashed.threads} == crashed.threads


# --- what is refused ------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, status, said", [
    ((), 2, "which process?  A pid, --group NAME, --apache or --all-python; see modwsgi-tel stacks --help"),
    (("12x",), 2, "'12x' is no pid; see modwsgi-tel stacks --help"),
    (("0",), 2, "'0' is no pid; see modwsgi-tel stacks --help"),
    (("4194304",), 2, "there is no process 4194304: it has ended, or that is its pid in another container"),
    (("--core", "/etc/passwd"), 3, "cannot read /etc/passwd: it is no core file"),
    (("--core", "/none"), 2, "cannot read /none: No such file or directory"),
    (("--core", "/etc/passwd", "12"), 2, "--core reads a file: no pid goes with it"),
    (("--core", "/etc/passwd", "--apache"), 2, "--apache: --core reads a file, which does not run; see modwsgi-tel stacks --help"),
    (("--root", "/", "12"), 2, "--root: these belong to --core; see modwsgi-tel stacks --help"),
    (("--flat", "--count", "2", "12"), 2, "--flat is a line for each thread at one look: it goes without --interval and --count"),
    (("--self-check", "12"), 2, "--self-check reads a child of its own: no pid goes with it"),
    (("--self-check", "--apache"), 2, "--apache: --self-check reads a child of its own; see modwsgi-tel stacks --help"),
    (("--interval", "0", "12"), 2, "--interval '0': seconds, at least 0.01, as 0.5, 10m or 2h"),
])
def test_what_cannot_be_done_is_one_line(arguments, status, said):
    told = run(*arguments)
    assert (told.returncode, told.stdout, told.stderr) == (status, "", f"modwsgi-tel: {said}\n")


def test_a_process_that_is_no_python_is_named_with_its_program():
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            told = run(process.pid)
            program = os.readlink(f"/proc/{process.pid}/exe")
        finally:
            process.kill()
    assert (told.returncode, told.stderr) == (2, f"modwsgi-tel: process {process.pid}: no Python is in it (its program is {program})\n")


def test_one_of_several_that_cannot_be_read_is_told_and_the_others_are_shown(parking):
    told = run(parking.pid, 4194304)
    assert told.returncode == 1 and '"one"' in told.stdout
    assert told.stderr == "modwsgi-tel: there is no process 4194304: it has ended, or that is its pid in another container\n"


def test_one_reason_of_many_processes_is_told_once(parking):
    pids = range(4194297, 4194305)
    why = "it has ended, or that is its pid in another container (8 processes: also 4194298, 4194299, 4194300, 4194301, 4194302, ...)"
    assert run(parking.pid, *pids).stderr == f"modwsgi-tel: there is no process 4194297: {why}\n"
    assert run(*pids).stderr == (f"modwsgi-tel: there is no process 4194297: {why}\n"
                                 "modwsgi-tel: none of 8 processes could be read\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: cannot become another user")
def test_root_shows_no_line_of_a_file_that_the_target_could_not_read(folder):
    nobody = pwd.getpwnam("nobody")
    own, others = os.path.join(folder, "own.txt"), os.path.join(folder, "others.txt")
    for path in (own, others):
        with open(path, "w") as handle:
            handle.write("hunter2\n")
        os.chmod(path, 0o600)
    os.chown(own, nobody.pw_uid, nobody.pw_gid)
    code = f"""
import sys
def g():
    print('ready', flush=True), sys.stdin.read()
exec(compile('def f1(): g()', {own!r}, 'exec'))
exec(compile('def f2(): f1()', {others!r}, 'exec'))
f2()
"""
    with subprocess.Popen([interpreters.for_user(nobody.pw_uid), "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
                          user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], env=clean_environment()) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            shown = run(process.pid).stdout.splitlines()
        finally:
            process.kill()
    at = shown.index(f'  File "{others}", line 1, in f2')
    assert shown[at + 1:at + 3] == [f'  File "{own}", line 1, in f1', "    hunter2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: cannot give a file away")
def test_of_a_core_only_lines_are_shown_that_its_owner_or_all_may_read(folder):
    crashed = cores.Target(sys.executable, folder)
    try:
        path = crashed.die("touch")
    finally:
        crashed.end()

    def shown():
        lines = run("--core", path).stdout.splitlines()
        return any(before.startswith(f'  File "{program}"') and line.startswith("    ") for before, line in zip(lines, lines[1:]))
    program, = {frame[1] for frames in crashed.threads.values() for frame in frames if frame[1].startswith(folder)}
    os.chmod(program, 0o644)
    assert shown()
    os.chmod(program, 0o600)
    os.chown(program, 1, 1)
    assert not shown()
    os.chown(path, 1, -1)
    assert shown()
    os.chown(path, 2, -1)
    assert not shown()


def test_a_process_that_ends_between_two_looks_is_told_and_what_was_seen_is_shown(tmp_path):
    with target(tmp_path) as process, subprocess.Popen(
            [*CHECKOUT, "stacks", str(process.pid), "--interval", "2", "--count", "3"], cwd=ROOT, env=clean_environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True) as looking:
        try:
            wait_until(lambda: waits(looking.pid), 20, "it never waits for its next look")
            process.kill()
            process.wait()
            out, err = looking.communicate(timeout=30)
        finally:
            looking.kill()
    assert looking.returncode == 1 and '"one"' in out and "  1 of 3 looks\n" in out
    assert "    forever.acquire()\n" in out            # its files outlive it
    assert err == f"modwsgi-tel: process {process.pid} has ended\n"


def test_stop_says_so_and_lets_everything_go_on(parking):
    told = run(parking.pid, "--stop")
    assert told.returncode == 0 and '"one"' in told.stdout
    assert told.stderr == "modwsgi-tel: --stop: the thread that holds the GIL stands still for a moment at each look\n"
    with open(f"/proc/{parking.pid}/stat") as handle:
        assert handle.read().rpartition(")")[2].split()[0] in "SR"
