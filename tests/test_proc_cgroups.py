"""What control groups allow and use: made-up ones of version 1, of version 2, of both, as from inside of a container; and our own."""
import os

import pytest

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import cgroups

STAT = b"42 (x) S 1 42 42 0 -1 4194368 1 0 0 0 30 12 0 0 20 0 2 0 987654 1 1 1 1 1 1 0 0"
PRESSURE = (b"some avg10=1.50 avg60=0.20 avg300=0.00 total=2500000\n"
            b"full avg10=0.50 avg60=0.10 avg300=0.00 total=1500000\n")
TOLD = {"some_avg10": 1.5, "some_avg60": 0.2, "some_avg300": 0.0, "some_total_s": 2.5,
        "full_avg10": 0.5, "full_avg60": 0.1, "full_avg300": 0.0, "full_total_s": 1.5}
NO_MEMORY = dict.fromkeys(("used_bytes", "limit_bytes", "reclaimable_bytes", "high_bytes", "swap_used_bytes", "swap_limit_bytes", "oom_kills"))


def a_system(folder, cgroup, mounts, files):
    """A made-up /proc for process 42 with this /proc/PID/cgroup, and cgroup file systems under FOLDER/cg with these files."""
    lines = [f"30 20 0:26 {top} {folder}/cg/{where} rw,relatime shared:4 - {kind} {kind} rw,{options}\n"
             for top, where, kind, options in mounts]
    for name, content in {"proc/self/stat": STAT, "proc/1/stat": STAT, "proc/42/stat": STAT, "proc/42/cgroup": cgroup,
                          "proc/self/mountinfo": ("22 1 0:20 / / rw - ext4 /dev/sda rw\n" + "".join(lines)).encode(),
                          **{f"cg/{name}": content for name, content in files.items()}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder / "proc")


def version_2(folder, files, cgroup=b"0::/system.slice/app.service\n", top="/"):
    return a_system(folder, cgroup, [(top, "", "cgroup2", "nsdelegate")], files)


OWN, SLICE = "system.slice/app.service", "system.slice"


def test_version_2_is_told_with_its_limits_and_pressure(tmp_path):
    root = version_2(tmp_path, {
        f"{OWN}/memory.current": b"600\n", f"{OWN}/memory.max": b"1000\n", f"{OWN}/memory.high": b"900\n",
        f"{OWN}/memory.swap.max": b"0\n", f"{OWN}/memory.swap.current": b"0\n", f"{OWN}/memory.stat": b"anon 5\ninactive_file 150\n",
        f"{OWN}/memory.events": b"low 0\noom 4\noom_kill 3\noom_group_kill 0\n", f"{OWN}/cpu.max": b"150000 100000\n",
        f"{OWN}/cpu.stat": b"usage_usec 7\nnr_periods 10\nnr_throttled 4\nthrottled_usec 2500000\n",
        f"{OWN}/pids.current": b"40\n", f"{OWN}/pids.max": b"50\n", f"{OWN}/cpu.pressure": PRESSURE,
        f"{OWN}/memory.pressure": PRESSURE, f"{OWN}/io.pressure": b"", f"{SLICE}/memory.current": b"700\n", f"{SLICE}/memory.max": b"max\n",
        f"{SLICE}/cpu.max": b"max 100000\n", f"{SLICE}/pids.max": b"max\n"})
    assert cgroups.of(42, root) == {
        "path": "/system.slice/app.service", "version": 2,
        "memory": {"used_bytes": 600, "limit_bytes": 1000, "reclaimable_bytes": 150, "high_bytes": 900, "swap_used_bytes": 0,
                   "swap_limit_bytes": 0, "oom_kills": 3, "at": "/system.slice/app.service"},
        "cpu": {"cores": 1.5, "throttled_s": 2.5, "throttled_periods": 4, "periods": 10, "at": "/system.slice/app.service"},
        "pids": {"used": 40, "limit": 50, "at": "/system.slice/app.service"},
        "pressure": {"cpu": TOLD, "memory": TOLD, "io": {}}, "unknown": {}}


def test_a_limit_above_counts_where_it_leaves_less(tmp_path):
    root = version_2(tmp_path, {
        f"{OWN}/memory.current": b"100\n", f"{OWN}/memory.max": b"1000\n", f"{OWN}/memory.events": b"oom_kill 1\n",
        f"{SLICE}/memory.current": b"1950\n", f"{SLICE}/memory.max": b"2000\n", f"{SLICE}/memory.events": b"oom_kill 9\n",
        f"{OWN}/cpu.max": b"200000 100000\n", f"{SLICE}/cpu.max": b"50000 100000\n", f"{SLICE}/cpu.stat": b"nr_throttled 5\n",
        f"{OWN}/pids.current": b"1\n", f"{OWN}/pids.max": b"max\n", f"{SLICE}/pids.current": b"98\n", f"{SLICE}/pids.max": b"100\n"})
    found = cgroups.of(42, root)
    assert found["memory"] == {**NO_MEMORY, "used_bytes": 1950, "limit_bytes": 2000, "oom_kills": 1, "at": "/system.slice"}
    assert found["cpu"] == {"cores": 0.5, "throttled_s": None, "throttled_periods": 5, "periods": None, "at": "/system.slice"}
    assert found["pids"] == {"used": 98, "limit": 100, "at": "/system.slice"}


def test_files_in_the_cache_do_not_make_a_limit_the_tight_one(tmp_path):
    root = version_2(tmp_path, {
        f"{OWN}/memory.current": b"990\n", f"{OWN}/memory.max": b"1000\n", f"{OWN}/memory.stat": b"inactive_file 900\n",
        f"{SLICE}/memory.current": b"1900\n", f"{SLICE}/memory.max": b"2000\n", f"{SLICE}/memory.stat": b"inactive_file 0\n"})
    assert cgroups.of(42, root)["memory"]["at"] == "/system.slice"


def test_version_1_has_a_hierarchy_for_each_controller(tmp_path):
    root = a_system(
        tmp_path, b"9:name=systemd:/x\n4:memory:/app\n3:cpu,cpuacct:/web\n2:pids:/\n",
        [("/", "memory", "cgroup", "memory"), ("/", "cpu", "cgroup", "cpu,cpuacct"), ("/", "pids", "cgroup", "pids")],
        {"memory/app/memory.usage_in_bytes": b"500\n", "memory/app/memory.limit_in_bytes": b"800\n",
         "memory/app/memory.memsw.limit_in_bytes": b"1000\n", "memory/app/memory.oom_control": b"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
         "memory/app/memory.stat": b"cache 1\ntotal_inactive_file 30\ntotal_swap 5\n",
         "memory/memory.limit_in_bytes": b"9223372036854771712\n", "cpu/web/cpu.cfs_quota_us": b"-1\n",
         "cpu/web/cpu.cfs_period_us": b"100000\n", "cpu/cpu.cfs_quota_us": b"25000\n", "cpu/cpu.cfs_period_us": b"100000\n",
         "cpu/cpu.stat": b"nr_periods 8\nnr_throttled 2\nthrottled_time 3000000000\n", "pids/x": b""})
    assert cgroups.of(42, root) == {
        "path": "/app", "version": 1,
        "memory": {"used_bytes": 500, "limit_bytes": 800, "reclaimable_bytes": 30, "high_bytes": None, "swap_used_bytes": 5,
                   "swap_limit_bytes": 200, "oom_kills": 2, "at": "/app"},
        "cpu": {"cores": 0.25, "throttled_s": 3.0, "throttled_periods": 2, "periods": 8, "at": "/"},
        "pids": {"used": None, "limit": None, "at": "/"}, "pressure": None, "unknown": {}}


def test_of_both_versions_each_controller_is_read_where_it_is(tmp_path):
    root = a_system(tmp_path, b"4:memory:/app\n0::/two\n",
                    [("/", "memory", "cgroup", "memory"), ("/", "unified", "cgroup2", "nsdelegate")],
                    {"memory/app/memory.usage_in_bytes": b"500\n", "unified/two/cpu.max": b"100000 100000\n",
                     "unified/two/cpu.pressure": PRESSURE})
    found = cgroups.of(42, root)
    assert (found["version"], found["path"], found["memory"]["used_bytes"], found["cpu"]["cores"], found["pressure"]["cpu"]) == (
        1, "/app", 500, 1.0, TOLD)


def test_in_a_container_whose_own_cgroup_is_mounted_the_path_is_followed_from_there(tmp_path):
    root = version_2(tmp_path, {"memory.current": b"7\n", "sub/memory.current": b"6\n", "sub/memory.max": b"8\n"}, b"0::/docker/ab/sub\n", "/docker/ab")
    assert cgroups.of(42, root)["memory"] == {**NO_MEMORY, "used_bytes": 6, "limit_bytes": 8, "at": "/docker/ab/sub"}


@pytest.mark.parametrize("path, top, files, reason", [
    ("/docker/other", "/docker/ab", {"x": b""}, "the cgroup /docker/other of the process lies outside of what is mounted here, as in a container"),
    ("/../other", "/", {"x": b""}, "the cgroup /../other of the process lies outside of what is mounted here, as in a container"),
    ("/app", "/", {"x": b""}, "the cgroup /app of the process is not to be seen under {cg}"),
    ("/app (deleted)", "/", {"x": b""}, "the cgroup /app of the process has been removed")])
def test_a_cgroup_that_cannot_be_seen_is_unknown_with_the_reason(tmp_path, path, top, files, reason):
    root = version_2(tmp_path, files, f"0::{path}\n".encode(), top)
    reason = reason.format(cg=f"{tmp_path}/cg/")
    assert cgroups.of(42, root) == {"path": path, "version": 2, "memory": None, "cpu": None, "pids": None, "pressure": None,
                                    "unknown": dict.fromkeys(("memory", "cpu", "pids", "pressure"), reason)}


def test_without_cgroups_all_is_unknown(tmp_path):
    root = a_system(tmp_path, b"0::/app\n", [], {})
    assert cgroups.of(42, root)["unknown"]["memory"] == "no cgroup file system is mounted here"
    os.remove(tmp_path / "proc/42/cgroup")
    assert cgroups.of(42, root) == {**dict.fromkeys(("path", "version", "memory", "cpu", "pids", "pressure")),
                                    "unknown": {"cgroup": "this kernel has no /proc/42/cgroup"}}
    (tmp_path / "proc/42/cgroup").write_bytes(b"")
    assert cgroups.of(42, root)["unknown"]["memory"] == "no cgroup of the process counts it"
    with pytest.raises(TelError, match="there is no process 43"):
        cgroups.of(43, root)


def test_nonsense_in_the_files_is_no_number(tmp_path):
    root = version_2(tmp_path, {f"{OWN}/memory.current": b"-5\n", f"{OWN}/memory.max": b"\xff\n", f"{OWN}/memory.stat": b"a\nb c d\n\n",
                                f"{OWN}/cpu.max": b"many\n", f"{OWN}/cpu.stat": b"nr_periods x\n", f"{OWN}/pids.max": b"",
                                f"{OWN}/cpu.pressure": b"some avg10=x total\nfull\nother avg10=1\n"})
    found = cgroups.of(42, root)
    assert found["memory"] == {**NO_MEMORY, "at": "/system.slice/app.service"} and found["pressure"] is None
    assert found["cpu"] == {**dict.fromkeys(("cores", "throttled_s", "throttled_periods", "periods")), "at": "/system.slice/app.service"}


def test_names_with_spaces_backslashes_and_colons_are_followed(tmp_path):
    name = "a b\\x2d:c"
    root = a_system(tmp_path, f"0::/{name}\n".encode(), [("/", "with\\040space", "cgroup2", "rw")],
                    {f"with space/{name}/memory.current": b"9\n"})
    found = cgroups.of(42, root)
    assert (found["path"], found["memory"]["used_bytes"], found["unknown"]) == (f"/{name}", 9, {})


def test_paths_of_a_process_are_told_by_controller():
    assert cgroups.parse(b"9:name=systemd:/x\n4:cpu,cpuacct:/a:b\n0::/\n\nnonsense\n1:x:relative\n") == {
        "name=systemd": "/x", "cpu": "/a:b", "cpuacct": "/a:b", "": "/"}
    assert cgroups.path_of({"": "/two", "name=systemd": "/one"}) == "/two"
    assert cgroups.path_of({"": "/", "memory": "/app"}) == "/app" and cgroups.path_of({}) is None


def test_our_own_cgroup_is_told():
    found = cgroups.of(os.getpid())
    assert set(found) == {"path", "version", "memory", "cpu", "pids", "pressure", "unknown"}
    for part in ("memory", "cpu", "pids"):
        assert (found[part] is None) == (part in found["unknown"])
