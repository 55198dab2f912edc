"""What /proc tells of one process: as made-up text, of real processes, and for a reader who may not know."""
import json
import os
import resource
import subprocess
import sys
import time

import pytest

import running
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import details, procfs

NOBODY = 65534
STAT = (b"%d (%b) %b %d 42 42 0 -1 4194368 11 0 22 0 300 120 0 0 20 0 %d 0 5000 89804800 2206 18446744073709551615 4321280 7148169 "
        b"140728493920800 0 0")
STATUS = (b"Name:\tx\nState:\tS (sleeping)\nUid:\t33\t0\t33\t33\nGid:\t4\t0\t4\t4\nNSpid:\t42\t7\nVmSize:\t  900 kB\nVmHWM:\t  800 kB\nVmRSS:\t  700 kB\n"
          b"RssAnon:\t  400 kB\nRssFile:\t  290 kB\nRssShmem:\t   10 kB\nVmSwap:\t    3 kB\n"
          b"voluntary_ctxt_switches:\t50\nnonvoluntary_ctxt_switches:\t6\nx86_Thread_features:\n")
IO = b"rchar: 1\nwchar: 2\nsyscr: 30\nsyscw: 40\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n"
LIMITS = (b"Limit                     Soft Limit           Hard Limit           Units     \n"
          b"Max cpu time              unlimited            unlimited            seconds   \n"
          b"Max core file size        0                    unlimited            bytes     \n"
          b"Max open files            1024                 4096                 files     \n"
          b"Max nice priority         0                    0                    \n")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes processes of others")

# Says what `details` tells of the pids that it is given, as one JSON text
TELLS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from modwsgi_tel.proc import details
def told(pid):
    environment = details.environment(pid)
    return [details.identity(pid), details.usage(pid), dict(environment), environment.unknown, details.limits(pid), details.oom(pid)]
print(json.dumps([told(int(word)) for word in sys.argv[2:]]))
"""
# Threads that switch and one that works, then: "ready"
BUSY = """
import sys, threading, time
end = threading.Event()
def work():
    while not end.is_set():
        sum(range(1000))
def sleep():
    while not end.wait(0.001):
        pass
for run in (work, sleep, sleep):
    threading.Thread(target=run, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def a_root(folder, files):
    """A made-up /proc with these files, {path: bytes}; a path that ends in / is a folder."""
    for name, content in {"self/stat": STAT % (1, b"x", b"S", 1, 1), "1/stat": STAT % (1, b"init", b"S", 0, 1), **files}.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


@pytest.fixture
def started():
    """started(program, ...): a Python that runs it and has said its first line; ended at the end."""
    children = []

    def start(program, *arguments, **more):
        child = subprocess.Popen([sys.executable, "-I", "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more)
        children.append(child)
        assert child.stdout.readline()
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def seen_by_nobody(*pids):
    """What `details` tells an ordinary user of these pids."""
    with running.short_folder() as folder:
        sources = running.copy_of_the_sources(running.ROOT, os.path.join(folder, "sources"))
        told = subprocess.run(["/usr/bin/python3", "-I", "-c", TELLS, sources, *map(str, pids)], user=NOBODY, group=NOBODY,
                              extra_groups=[], cwd="/", stdout=subprocess.PIPE, timeout=60, check=True).stdout
    return json.loads(told)


# --- who it is -----------------------------------------------------------------------------------

def test_the_identity_of_a_made_up_process(tmp_path):
    root = a_root(tmp_path, {
        "42/stat": STAT % (42, b"a) S 1 (b\n", b"S", 9, 1), "9/stat": STAT % (9, b"parent", b"S", 1, 1), "42/status": STATUS,
        "42/cmdline": b"/usr/sbin/apache2\0-k\0with space\0line\nend\0\xff\0\0\0\0", "42/cgroup": b"0::/system.slice/apache2.service\n",
        "50/stat": STAT % (50, b"child", b"S", 42, 1), "51/stat": b"nonsense", "42/task/42/stat": b""})
    os.symlink("/usr/sbin/apache2 (deleted)", tmp_path / "42" / "exe")
    os.symlink("/srv", tmp_path / "42" / "cwd")
    os.symlink("/", tmp_path / "42" / "root")
    found = details.identity(42, root)
    started, age_s = found.pop("started"), found.pop("age_s")
    assert abs(started + age_s - time.time()) < 5
    assert found == {
        "pid": 42, "inner_pid": 7, "parent": 9, "name": "a) S 1 (b\n", "state": "S",
        "command": ["/usr/sbin/apache2", "-k", "with space", "line\nend", "\ufffd"], "program": "/usr/sbin/apache2 (deleted)",
        "cwd": "/srv", "root": "/", "uid": 0, "gid": 0, "user": "root", "group_name": "root", "uids": [33, 0, 33, 33],
        "gids": [4, 0, 4, 4], "start_ticks": 5000, "cgroup": "/system.slice/apache2.service", "namespace": True,
        "children": [50], "parents": [9, 1], "unknown": {}}


def test_the_identity_of_a_real_process_with_a_name_of_brackets_and_newlines(started):
    child = started("import sys\nopen('/proc/self/comm', 'w').write('a) (b\\nc d')\nprint(1, flush=True)\nsys.stdin.read()", "ar g")
    found = details.identity(child.pid)
    assert (found["name"], found["parent"], found["command"][-1], found["uids"], found["cwd"], found["unknown"]) == (
        "a) (b\nc d", os.getpid(), "ar g", [os.getuid()] * 4, os.getcwd(), {})
    assert found["parents"][0] == os.getpid() and child.pid in details.identity(os.getpid())["children"]
    assert 0 <= found["age_s"] < 60 and not found["namespace"] and found["inner_pid"] is None


def test_parents_that_go_round_in_a_circle_end(tmp_path):
    root = a_root(tmp_path, {f"{pid}/stat": STAT % (pid, b"x", b"S", parent, 1) for pid, parent in ((5, 6), (6, 7), (7, 5))})
    assert details.parents(5, root) == [6, 7, 5]
    assert details.parents(99, root) == []


# --- what it uses ----------------------------------------------------------------------------------

def test_the_usage_of_a_made_up_process_adds_up_its_threads(tmp_path):
    root = a_root(tmp_path, {
        "42/stat": STAT % (42, b"x", b"S", 9, 3), "42/status": STATUS, "42/io": IO, "42/fd/0": b"", "42/fd/1": b"",
        "42/task/42/status": STATUS, "42/task/42/schedstat": b"1000000000 500000000 9\n",
        "42/task/43/status": b"Name:\tx\nState:\tD (disk sleep)\nvoluntary_ctxt_switches:\t1\nnonvoluntary_ctxt_switches:\t2\n",
        "42/task/43/schedstat": b"250000000 0 9\n",
        "42/task/44/stat": b""})                                        # it has ended in between
    found = details.usage(42, root)
    at, files = found.pop("at"), found.pop("files")
    assert 0 <= time.monotonic() - at < 60 and files == os.stat(tmp_path / "42" / "fd").st_size
    assert found == {
        "start_ticks": 5000, "state": "S", "states": {"S": 1, "D": 1}, "cpu_user_s": 3.0, "cpu_system_s": 1.2, "threads": 3, "minor_faults": 11, "major_faults": 22,
        "voluntary_switches": 51, "involuntary_switches": 8, "run_s": 1.25, "wait_s": 0.5, "rss_bytes": 716800, "anon_bytes": 409600,
        "file_bytes": 296960, "shmem_bytes": 10240, "swap_bytes": 3072, "size_bytes": 921600, "peak_rss_bytes": 819200,
        "read_bytes": 4096, "written_bytes": 8192, "read_calls": 30, "write_calls": 40, "unknown": {}}


def test_what_a_kernel_does_not_keep_is_unknown_and_the_rest_is_told(tmp_path):
    root = a_root(tmp_path, {"42/stat": STAT % (42, b"x", b"S", 9, 1), "42/status": b"Name:\tx\nVmRSS:\t8 kB\n", "42/fd/": b""})
    found = details.usage(42, root)
    assert (found["rss_bytes"], found["cpu_user_s"], found["swap_bytes"], found["run_s"], found["voluntary_switches"],
            found["read_bytes"]) == (8192, 3.0, None, None, None, None)
    assert found["unknown"] == {"switches": "the kernel does not tell it", "run queue": "the kernel does not tell it",
                                "io": "this kernel has no /proc/42/io"}


def test_two_usages_make_rates():
    before = {**dict.fromkeys([key for _, key in details._COUNTERS] + list(details._AMOUNTS), 10), "at": 100.0, "start_ticks": 5}
    after = {**before, "at": 102.0, "cpu_user_s": 11.0, "cpu_system_s": 10.5, "voluntary_switches": 30, "wait_s": None,
             "involuntary_switches": 8, "files": 4, "rss_bytes": 2010}
    assert details.rates(before, after) == {
        "seconds": 2.0, "cpu": 0.75, "cpu_user": 0.5, "cpu_system": 0.25, "voluntary_switches": 10.0, "involuntary_switches": None,
        "run": 0.0, "run_wait": None, "minor_faults": 0.0, "major_faults": 0.0, "read_bytes": 0.0, "written_bytes": 0.0,
        "read_calls": 0.0, "write_calls": 0.0, "rss_bytes": 1000.0, "anon_bytes": 0.0, "swap_bytes": 0.0, "threads": 0.0, "files": -3.0}
    other = details.rates(before, {**after, "start_ticks": 6})
    assert other.pop("seconds") == 2.0 and set(other.values()) == {None}
    assert details.rates(after, after)["cpu"] is None


def test_a_busy_process_is_told_with_its_rates_and_its_threads(started):
    child = started(BUSY)
    before = details.usage(child.pid)

    def worked():
        after = details.usage(child.pid)
        found = details.rates(before, after)
        return found if found["cpu"] and found["voluntary_switches"] and found["run"] and found["seconds"] > 0.2 else None

    found = running.wait_until(worked, 20, "no CPU, no switches")
    assert before["threads"] == 4 == sum(before["states"].values()) and set(before["states"]) <= set("RSD") and before["unknown"] == {} and before["files"] == 3
    assert 0 < found["cpu"] < 4 and found["voluntary_switches"] > 10
    rows = details.tasks(child.pid)
    assert len(rows) == 4 and rows[0]["tid"] == child.pid
    assert max(row["cpu_s"] for row in rows) > 0 and sum(row["voluntary_switches"] for row in rows) >= before["voluntary_switches"]
    assert rows[0]["syscall"] == "read" and rows[0]["wait"].startswith("read") and rows[0]["run_wait_s"] >= 0


def test_descriptors_are_counted_as_they_are_opened(started):
    child = started("import os, sys\nprint(1, flush=True)\nheld = [os.open('/dev/null', 0) for _ in range(int(sys.stdin.readline()))]\n"
                    "print(2, flush=True)\nsys.stdin.read()")
    before = details.usage(child.pid)["files"]
    child.stdin.write(b"500\n")
    child.stdin.flush()
    child.stdout.readline()
    assert details.usage(child.pid)["files"] == before + 500
    assert len(os.listdir(f"/proc/{child.pid}/fd")) == before + 500


def test_before_linux_6_2_the_folder_of_the_descriptors_is_read(tmp_path, monkeypatch):
    for name in ("0", "1", "5"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(details.os, "stat", lambda path: os.stat_result([0] * 10))
    assert details.count_files(str(tmp_path)) == 3


def test_hundreds_of_threads_are_all_counted_and_more_than_the_bound_are_said_to_be_left_out(started, monkeypatch):
    child = started("import sys, threading\nthreading.stack_size(65536)\nend = threading.Event()\n"
                    "for _ in range(300): threading.Thread(target=end.wait, daemon=True).start()\nprint(1, flush=True)\nsys.stdin.read()")
    found = details.usage(child.pid)
    assert (found["threads"], found["unknown"], len(details.tasks(child.pid))) == (301, {}, 301)
    monkeypatch.setattr(details.threads, "MOST", 100)
    assert details.usage(child.pid)["unknown"] == {"threads": "201 of 301 threads were not looked at"}


# --- those of whom there is little to tell -----------------------------------------------------------

def test_a_zombie_is_told_as_far_as_it_goes():
    child = subprocess.Popen([sys.executable, "-I", "-c", ""], stdin=subprocess.DEVNULL)
    try:
        running.wait_until(lambda: procfs.stat(child.pid).state == "Z", 20, "it does not end")
        found = details.usage(child.pid)
        assert (found["state"], found["rss_bytes"], found["unknown"]["memory"]) == (
            "Z", None, "it has ended: nothing of its memory is left")
        found = details.identity(child.pid)
        assert (found["state"], found["command"], found["program"]) == ("Z", [], None)
        assert found["unknown"]["program"].startswith(f"process {child.pid} has ended and waits for its parent {os.getpid()} to take")
        assert details.environment(child.pid) == {}
    finally:
        child.wait(timeout=20)
    for call in (details.identity, details.usage, details.limits, details.environment, details.oom):
        with pytest.raises(TelError, match=f"there is no process {child.pid}: it has ended, or that is its pid in another container"):
            call(child.pid)
    assert details.tasks(child.pid) == []


def test_a_thread_of_the_kernel_has_no_memory(tmp_path):
    root = a_root(tmp_path, {"2/stat": (STAT % (2, b"kthreadd", b"S", 0, 1)).replace(b"4194368", b"2129984"),
                             "2/status": b"Name:\tkthreadd\nUid:\t0\nGid:\t0\nCapPrm:\t0\n", "2/mem": b"", "2/fd/": b""})
    assert details.usage(2, root)["unknown"]["memory"] == "a thread of the kernel has no memory of its own"
    assert details.identity(2, root)["unknown"]["program"] == "process 2 (kthreadd) is a thread of the kernel: it runs no Python"


def test_a_process_that_goes_between_two_reads_is_no_process(tmp_path):
    root = a_root(tmp_path, {"42/stat": STAT % (42, b"x", b"S", 9, 1)})
    parts = details.Parts(42, root)
    os.remove(tmp_path / "42" / "stat")
    with pytest.raises(TelError, match="there is no process 42"):
        parts.read("io", "io")


def test_no_proc_at_all_is_said(tmp_path):
    for call in (details.identity, details.usage, details.limits, details.environment, details.oom):
        with pytest.raises(TelError, match="there is no /proc here; mount it"):
            call(42, str(tmp_path))


@needs_root
def test_an_ordinary_user_sees_less_of_anothers_process_with_the_reason(started):
    other = started("import sys; print(1, flush=True); sys.stdin.read()")
    [[identity, usage, environment, unknown, limits, oom]] = seen_by_nobody(other.pid)
    reason = (f"cannot read process {other.pid}: it belongs to root, this is nobody; run as root, or with CAP_SYS_PTRACE and "
              "CAP_DAC_READ_SEARCH")
    assert identity["unknown"] == {"program": reason, "cwd": reason, "root": reason}
    assert (identity["parent"], identity["user"], identity["command"][1]) == (os.getpid(), "root", "-I")
    assert {name for name, value in usage.items() if value is None} - {"files"} == {"read_bytes", "written_bytes", "read_calls", "write_calls"}
    assert usage["unknown"] == {**({} if usage["files"] else {"files": reason}), "io": reason}
    assert (environment, unknown) == ({}, reason)
    assert limits == details.limits(other.pid) and oom == details.oom(other.pid)


# --- what it may use, and what it was given ----------------------------------------------------------

def test_limits_are_numbers_or_none_for_unlimited(tmp_path):
    root = a_root(tmp_path, {"42/stat": STAT % (42, b"x", b"S", 9, 1), "42/limits": LIMITS})
    assert details.limits(42, root) == {"cpu": {"soft": None, "hard": None}, "core": {"soft": 0, "hard": None},
                                        "open files": {"soft": 1024, "hard": 4096}}
    assert details.limits(os.getpid())["open files"]["soft"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert {"open files", "address space", "processes", "core", "stack", "cpu", "locked memory"} <= set(details.limits(os.getpid()))


def test_the_environment_is_masked_and_bounded(tmp_path):
    root = a_root(tmp_path, {"42/stat": STAT % (42, b"x", b"S", 9, 1), "42/environ": b"\0".join((
        b"LANG=C", b"DB_PASSWORD=hunter2", b"DATABASE_URL=postgres://app:hunter2@db/x", b"AWS=AKIAIOSFODNN7EXAMPLE", b"EMPTY=", b"PWD=/srv",
        b"no name", b"ODD=\xff\n", b"LONG=" + b"x" * 5000)) + b"\0"})
    assert details.environment(42, root) == {
        "LANG": "C", "DB_PASSWORD": "<masked>", "DATABASE_URL": "postgres://app:***@db/x", "AWS": "AKIA***", "EMPTY": "", "PWD": "/srv",
        "ODD": "\ufffd\n", "LONG": "x" * 2000 + "..."}
    (tmp_path / "42" / "environ").write_bytes(b"".join(b"A%d=1\0" % number for number in range(100_000)))
    found = details.environment(42, root)
    assert (len(found), found.unknown) == (2000, "only the first 256 kB were read") and found.dropped > 10_000


def test_who_is_killed_first_is_told(tmp_path):
    root = a_root(tmp_path, {"42/stat": STAT % (42, b"x", b"S", 9, 1), "42/oom_score": b"666\n", "42/oom_score_adj": b"-17\n"})
    assert details.oom(42, root) == {"score": 666, "adjust": -17}
    assert set(details.oom(os.getpid())) == {"score", "adjust"}
