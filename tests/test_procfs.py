"""What /proc says of processes, as text and for real."""
import os
import subprocess
import time

import pytest

from modwsgi_tel.proc.procfs import parse_nspids, parse_stat, sender, senders

STAT = b"42 (%b) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1 18446744073709551615 0 0"
UNKNOWN = {"alive": None, "start": None, "nspids": [], "age_s": None}


@pytest.mark.parametrize("name", [b"python3", b"a b", b") R 1 2 3 4 (", b"\xff\n)", b""])
def test_a_stat_line_is_read_whatever_the_name_of_the_process(name):
    assert parse_stat(STAT % name) == {"state": "S", "start": 987654}


@pytest.mark.parametrize("text", [b"", b"42", b"42 (x", b"42 (x) S 1 2", STAT % b"x" and b"a" * 4096,
                                  b"42 (x) S " + b"x " * 30])
def test_what_is_no_stat_line_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_stat(text)


def test_the_pids_in_the_namespaces_are_read_outermost_first():
    assert parse_nspids(b"Name:\tx\nNSpid:\t4711\t17\t1\nNSpgid:\t1\n") == (4711, 17, 1)
    assert parse_nspids(b"Name:\tx\n") == ()


def a_root(folder, **files):
    """A made-up /proc: stat and status of pid 42, and who else is visible."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("pid", "")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return str(folder)


def test_a_process_is_alive_a_zombie_is_not(tmp_path):
    root = a_root(tmp_path, pid42__stat=STAT % b"x", pid42__status=b"NSpid:\t42\n")
    found = sender(42, root)
    assert (found["alive"], found["start"], found["nspids"]) == (True, 987654, [42]) and found["age_s"] is not None
    for letter in (b"Z", b"X"):
        a_root(tmp_path, pid42__stat=(STAT % b"x").replace(b") S", b") " + letter))
        assert sender(42, root)["alive"] is False


def test_nobody_is_gone_where_proc_shows_nothing_of_others(tmp_path):
    assert sender(42, str(tmp_path / "none")) == UNKNOWN                        # no /proc at all
    root = a_root(tmp_path, pidself__stat=STAT % b"x")
    assert sender(42, root) == UNKNOWN                                          # hidepid: only ourselves
    a_root(tmp_path, pid1__stat=STAT % b"init")
    assert sender(42, root) == {**UNKNOWN, "alive": False}


def test_what_cannot_be_read_is_unknown(tmp_path):
    root = a_root(tmp_path, pid1__stat=STAT % b"init", pidself__stat=STAT % b"x", pid42__stat=b"nonsense",
                  pid42__status=b"")
    assert sender(42, root) == UNKNOWN
    os.unlink(os.path.join(root, "42/stat"))
    os.mkdir(os.path.join(root, "42/stat"))
    assert sender(42, root) == UNKNOWN


def test_real_processes_are_told_apart():
    began = time.monotonic()
    child = subprocess.Popen(["sleep", "60"])
    try:
        dead = subprocess.Popen(["true"])
        dead.wait()
        found = senders([os.getpid(), child.pid, dead.pid])
        again = senders([child.pid])
    finally:
        child.kill()
    assert {pid: said["alive"] for pid, said in found.items()} == {
        str(os.getpid()): True, str(child.pid): True, str(dead.pid): False}
    assert found[str(child.pid)]["start"] == again[str(child.pid)]["start"] > found[str(os.getpid())]["start"]
    assert -0.1 < found[str(child.pid)]["age_s"] < time.monotonic() - began + 0.1
    assert found[str(child.pid)]["nspids"][0] == child.pid
    zombie = senders([child.pid])[str(child.pid)]               # killed and not waited for
    deadline = time.monotonic() + 20
    while zombie["alive"] and time.monotonic() < deadline:
        zombie = senders([child.pid])[str(child.pid)]
    assert zombie["alive"] is False
    child.wait()
