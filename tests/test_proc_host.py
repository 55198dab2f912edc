"""The machine around a server: a made-up /proc looked at twice, this machine's own, and records of the kernel's log."""
import os
import subprocess
import sys
import time

import pytest

import running
from modwsgi_tel.proc import host, kernellog

STAT = b"%d (%b) S 7 42 42 0 -1 %d 1 0 0 0 %d 0 0 0 20 0 2 0 %d 1 %d 1 1 1 1 0 0"
KERNEL = 0x200000
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
PRESSURE = b"some avg10=%.2f avg60=2.00 avg300=3.00 total=%d\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=%d\n"
MEMINFO = b"MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    400 kB\nSwapTotal:     200 kB\nSwapFree:      50 kB\nHugePages_Total:       0\n"
MOUNTINFO = b"20 1 254:0 / / rw - ext4 /dev/vda rw\n21 20 0:40 / /tmp rw - nfs4 server:/x rw\n22 20 0:41 / /var/log ro - ext4 /dev/vdb ro\n"


def a_root(folder, files):
    for name, content in {"self/stat": b"1 (x) S", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


def a_process(pid, name=b"x", ticks=0, start=100, pages=1, flags=0, command=b"x\0-y\0", moved=None):
    files = {"%d/stat" % pid: STAT % (pid, name, flags, ticks, start, pages), "%d/cmdline" % pid: command}
    if moved is not None:
        files["%d/io" % pid] = b"rchar: 1\nwchar: 1\nread_bytes: %d\nwrite_bytes: %d\ncancelled_write_bytes: 0\n" % moved
    return files


def a_machine(folder, cpu=(0, 0, 0, 0, 0, 0, 0, 0), total=0, kills=0, forks=0, processes=()):
    files = {"loadavg": b"1.50 0.75 0.25 2/345 678\n", "meminfo": MEMINFO, "vmstat": b"nr_free_pages 1\noom_kill %d\n" % kills,
             "stat": b"cpu  %b 0 0\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 5 6\nctxt 7\nprocesses %d\nprocs_running 3\nprocs_blocked 1\n" % (
                 b" ".join(b"%d" % (each * TICKS) for each in cpu), forks),
             "self/mountinfo": MOUNTINFO, **{"pressure/" + part: PRESSURE % (1.0, total, total // 2) for part in ("cpu", "memory", "io")}}
    for each in processes:
        files.update(each)
    return a_root(folder, files)


def test_a_look_at_a_made_up_machine(tmp_path):
    root = a_machine(tmp_path, (10, 1, 5, 80, 2, 0, 1, 1), 4000000, 7, 99, [
        a_process(10, b"py (thon) 3\n", 250, 900, 3, command=b"python3\0app.py\0--password=x\0", moved=(4096, 8192)),
        a_process(11, b"kthreadd", flags=KERNEL, command=b"", pages=0)])
    found = host.look(root)
    disk = os.statvfs("/")
    pressure = {"some_avg10": 1.0, "some_avg60": 2.0, "some_avg300": 3.0, "some_total_s": 4.0, "full_avg10": 0.5, "full_avg60": 0.0,
                "full_avg300": 0.0, "full_total_s": 2.0}
    free = found["disks"][0]["free_bytes"]
    assert found == {
        "at": found["at"], "load": [1.5, 0.75, 0.25], "cpus": 2, "forks": 99, "running": 3, "blocked": 1, "oom_kills": 7, "left_out": 0,
        "cpu": {"user": 10.0, "nice": 1.0, "system": 5.0, "idle": 80.0, "iowait": 2.0, "irq": 0.0, "softirq": 1.0, "steal": 1.0, "guest": 0.0,
                "guest_nice": 0.0},
        "pressure": {"cpu": pressure, "memory": pressure, "io": pressure},
        "memory": {"total_bytes": 1024000, "available_bytes": 409600, "swap_total_bytes": 204800, "swap_free_bytes": 51200},
        "disks": [{"path": "/", "mount": "/", "type": "ext4", "free_bytes": free, "size_bytes": disk.f_blocks * disk.f_frsize,
                   "free_inodes": found["disks"][0]["free_inodes"]}],
        "processes": {10: host.Process("py (thon) 3\n", "python3 app.py --password=x", 900, 250, 3 * PAGE, 4096, 8192),
                      11: host.Process("kthreadd", "[kthreadd]", 100, 0, 0, None, None)},
        "unknown": {"disk /tmp": "nfs4 is not asked: that can hang"}}
    assert 0 <= free <= disk.f_blocks * disk.f_frsize


def test_what_happened_between_two_looks(tmp_path):
    own, hog, grown, gone = 10, 11, 12, 13
    one = host.look(a_machine(tmp_path / "1", (10, 0, 5, 80, 2, 1, 1, 1), 4000000, 7, 99, [
        a_process(own, ticks=100, pages=5, moved=(100, 100)), a_process(hog, b"hog", 1000, moved=(0, 0)), a_process(grown, b"grown", pages=10, moved=(0, 0)),
        a_process(gone, b"gone", 77), a_process(15, b"reused", 5000, start=1, moved=(5, 5))]))
    two = host.look(a_machine(tmp_path / "2", (14, 0, 6, 82, 4, 1, 1, 2), 5000000, 9, 104, [
        a_process(own, ticks=100, pages=5, moved=(100, 100)), a_process(hog, b"hog", 1000 + 3 * TICKS, command=b"x\0--password=y\0", moved=(0, 4000)),
        a_process(grown, b"grown", pages=1000, moved=(0, 0)), a_process(14, b"new", TICKS, start=500, pages=2, moved=(6000, 0)),
        a_process(15, b"reused", TICKS // 2, start=2, moved=(0, 0))]))
    one["at"], two["at"] = 50.0, 52.0
    found = host.between(one, two)

    def named(pid, name, **more):
        return {"pid": pid, "name": name, "command": "x --password=***" if pid == hog else "x -y", **more}

    assert found["neighbours"] == {
        "cpu": [named(hog, "hog", cores=1.5), named(14, "new", cores=0.5), named(15, "reused", cores=0.25)],
        "memory": [named(grown, "grown", rss_bytes=1000 * PAGE, grown_bytes=990 * PAGE), named(own, "x", rss_bytes=5 * PAGE, grown_bytes=0),
                   named(14, "new", rss_bytes=2 * PAGE, grown_bytes=2 * PAGE), named(hog, "hog", rss_bytes=PAGE, grown_bytes=0),
                   named(15, "reused", rss_bytes=PAGE, grown_bytes=PAGE)],
        "io": [named(14, "new", read_bytes_per_s=3000.0, written_bytes_per_s=0.0), named(hog, "hog", read_bytes_per_s=0.0, written_bytes_per_s=2000.0)]}
    assert {name: found[name] for name in ("seconds", "cpus", "load", "busy", "user", "system", "iowait", "steal", "oom_kills", "forks", "blocked",
                                           "running", "memory", "unknown")} == {
        "seconds": 2.0, "cpus": 2, "load": [1.5, 0.75, 0.25], "busy": 0.5, "user": 0.4, "system": 0.1, "iowait": 0.2, "steal": 0.1, "oom_kills": 2,
        "forks": 5, "blocked": 1, "running": 3, "memory": two["memory"], "unknown": two["unknown"]}
    assert found["pressure"]["io"] == {**two["pressure"]["io"], "some": 0.5, "full": 0.25}


def test_without_pressure_or_proc_at_all_what_is_missing_is_said_and_the_rest_goes_on(tmp_path):
    no_pressure = host.look(a_root(tmp_path / "1", {"loadavg": b"1 2 3\n"}))
    assert no_pressure["pressure"] == {} and no_pressure["load"] == [1.0, 2.0, 3.0]
    assert no_pressure["unknown"]["pressure"] == "this kernel does not tell of pressure (PSI): it is not built in, or off at boot (psi=1 turns it on)"
    nothing = host.look(str(tmp_path / "none"))
    assert (nothing["load"], nothing["cpu"], nothing["processes"], nothing["disks"], nothing["oom_kills"]) == (None, {}, {}, [], None)
    assert nothing["memory"] == dict.fromkeys(("total_bytes", "available_bytes", "swap_total_bytes", "swap_free_bytes"))
    assert nothing["unknown"]["processes"] == "%s: No such file or directory" % (tmp_path / "none")
    found = host.between(nothing, nothing)
    assert (found["busy"], found["steal"], found["pressure"], found["oom_kills"], found["neighbours"]) == (
        None, None, {}, None, {"cpu": [], "memory": [], "io": None})


def test_nonsense_in_proc_is_no_error(tmp_path):
    found = host.look(a_root(tmp_path, {"loadavg": b"a b c", "stat": b"cpu x y\ncpu\n\nprocesses\n", "meminfo": b"MemTotal: x kB\n:\n", "vmstat": b"oom_kill",
                                        "pressure/cpu": b"some avg10=x total=\nfull\n", "7/stat": b"7 (", "self/mountinfo": b"\n- - -\n"}))
    assert (found["load"], found["cpu"], found["oom_kills"], found["pressure"], found["processes"], found["disks"]) == (None, {}, None, {"cpu": {}}, {}, [])


def test_who_may_not_know_what_others_read_says_so_and_asks_no_more(tmp_path, monkeypatch):
    root = a_machine(tmp_path, processes=[a_process(10), a_process(11, moved=(1, 2))])
    read = host.procfs.read

    def refuse(path, most):
        if path.endswith("/10/io"):
            raise PermissionError(13, "Permission denied")
        return read(path, most)

    monkeypatch.setattr(host.procfs, "read", refuse)
    found = host.look(root)
    assert found["unknown"]["io"] == "what 1 of 2 processes read and write is not for this user to know; run as root"
    assert [each[-2:] for each in found["processes"].values()] == [(None, None), (1, 2)]


SPIN = "import os, sys\nos.write(1, b'1')\nwhile True:\n    pass\n"


def test_a_neighbour_that_takes_a_core_is_found_on_this_machine():
    child = subprocess.Popen([sys.executable, "-c", SPIN, "a neighbour"], stdout=subprocess.PIPE)
    try:
        child.stdout.read(1)
        before = host.look()

        def takes_a_part():
            found = host.between(before, host.look())
            if found["seconds"] < 0.5:                      # a clock tick would be more than a core of a shorter span
                return None
            return found if any(each["pid"] == child.pid and each["cores"] > 0.05 for each in found["neighbours"]["cpu"]) else None

        found = running.wait_until(takes_a_part, 20, "the neighbour was never seen", pause=0.2)
        entry = next(each for each in found["neighbours"]["cpu"] if each["pid"] == child.pid)
        assert entry["command"].startswith(sys.executable + " -c import os, sys") and entry["cores"] < 1.5
        assert 0 < found["busy"] <= 1 and found["seconds"] > 0 and 0 <= found["steal"] <= 1
        assert found["memory"]["total_bytes"] > found["memory"]["available_bytes"] > 0
    finally:
        child.kill()
        child.wait(20)


def test_a_look_at_this_machine_is_cheap_and_leaves_nothing_open():
    open_before = len(os.listdir("/proc/self/fd"))
    began = time.process_time()
    found = host.look()
    spent = time.process_time() - began
    assert spent < 0.05 + 0.0005 * len(found["processes"])
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert os.getpid() in found["processes"] and found["processes"][os.getpid()].rss_bytes > 1 << 20


# --- the kernel's log ----------------------------------------------------------------------------

@pytest.mark.parametrize("text, kind, pid, name", [
    (b"Out of memory: Killed process 4242 (python3) total-vm:1kB, anon-rss:2kB, UID:33 pgtables:1kB oom_score_adj:0", "oom", 4242, "python3"),
    (b"Memory cgroup out of memory: Killed process 7 (a (b) c), UID 33, total-vm:1kB", "oom", 7, "a (b) c"),
    (b"Out of memory: Kill process 9 (httpd) score 900 or sacrifice child", "oom", 9, "httpd"),
    (b"python3[31]: segfault at 10 ip 00007 sp 00007 error 4 in libc.so.6[1,2+3] likely on CPU 0", "segfault", 31, "python3"),
    (b"a [1] b[32]: segfault at 0 ip 0 sp 0 error 14", "segfault", 32, "a [1] b"),
    (b"traps: apache2[33] general protection fault ip:7f sp:7f error:0 in libx.so[1+2]", "segfault", 33, "apache2"),
    (b"traps: apache2[34] trap invalid opcode ip:7f sp:7f error:0 in libx.so[1+2]", "segfault", 34, "apache2"),
    (b"httpd[35]: unhandled exception: DABT (lower EL), ESR 0x92000006, level 2 translation fault in x[1+2]", "segfault", 35, "httpd"),
    (b"INFO: task python3:36 blocked for more than 120 seconds.", "other", 36, "python3"),
    (b"nfs: server files not responding, still trying", "other", None, None),
    (b"TCP: request_sock_TCP: Possible SYN flooding on port 80. Sending cookies.", "other", None, None),
    (b"blk_update_request: I/O error, dev sda, sector 1", "other", None, None),
    (b"EXT4-fs (vda): Remounting filesystem read-only", "other", None, None),
])
def test_records_of_the_kernels_log_tell_what_happened_to_whom(text, kind, pid, name):
    assert kernellog.parse(b"6,422,23283168171,-;" + text + b"\n SUBSYSTEM=x\n", boot=1000.0) == {
        "at": 1000.0 + 23283.168171, "text": text.decode(), "kind": kind, "pid": pid, "name": name}


@pytest.mark.parametrize("record", [
    b"6,422,1,-;eth0: link up", b"6,1,2,-;oom-kill:constraint=CONSTRAINT_NONE,task=python3,pid=7", b"6,1,2,-;python3 invoked oom-killer: gfp_mask=0x1",
    b"6,1,2,-;oom_reaper: reaped process 7 (python3), now anon-rss:0kB", b"", b"nonsense", b"6,1,x,-;python3[1]: segfault at 1", b"6,1;x[1]: segfault at 1",
    b"6,1,2,-;\xff\xfe",
])
def test_other_records_are_left_out(record):
    assert kernellog.parse(record, 0.0) is None


def test_a_log_that_cannot_be_read_is_said(tmp_path):
    missing = str(tmp_path / "kmsg")
    assert kernellog.read(0, missing) == ([], missing + ": No such file or directory")


def test_this_machines_log_is_read_without_waiting_or_it_is_said_why_not(monkeypatch):
    found, reason = host.kernel_log(0)
    if reason:
        assert found == [] and "/dev/kmsg" in reason
    assert all(set(each) == {"at", "text", "kind", "pid", "name"} and each["kind"] in ("oom", "segfault", "other") for each in found)
    assert [each["at"] for each in found] == sorted(each["at"] for each in found)
    assert host.kernel_log(time.time() + 1000)[0] == []


def test_what_was_overwritten_while_it_was_read_is_skipped_and_who_may_not_is_told_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "kmsg"
    path.write_bytes(b"")
    answers = [BrokenPipeError(32, "Broken pipe"), b"6,1,1000000,-;x[3]: segfault at 1\n", b"6,2,2000000,-;y[4]: segfault at 1\n", BlockingIOError()]

    def read(_handle, _most):
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(kernellog.os, "read", read)
    boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    found, reason = kernellog.read(boot + 1.5, str(path))
    assert ([each["pid"] for each in found], reason, answers) == ([4], "", [])
    monkeypatch.setattr(kernellog.os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    assert kernellog.read(0) == ([], "/dev/kmsg: Operation not permitted; run as root, or with CAP_SYSLOG")
