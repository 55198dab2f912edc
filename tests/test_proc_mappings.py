"""Of what memory consists: made-up mappings, and a process that has known ones."""
import json
import os
import subprocess
import sys

import pytest

import running
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import mappings

NOBODY = 65534
STAT = b"42 (x) %b 1 42 42 0 -1 4194368 1 0 0 0 30 12 0 0 20 0 2 0 987654 1 1 1 1 1 1 0 0"
HELD = """
import mmap, os, sys, threading
block = bytearray(64 << 20)
shared = mmap.mmap(-1, 8 << 20)
shared.write(b"x" * (8 << 20))
with open(sys.argv[1], "wb+") as file:
    file.truncate(4 << 20)
    mapped = mmap.mmap(file.fileno(), 0)
read = mapped[:]
end = threading.Event()
for _ in range(4):
    threading.Thread(target=end.wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def a_mapping(addresses, rights, name, rss=0, pss=0, swap=0, size=4, private=0):
    return (b"%b %b 00000000 00:00 0 %27b\nSize: %17d kB\nKernelPageSize:        4 kB\nRss: %18d kB\nPss: %18d kB\nPss_Dirty:  0 kB\n"
            b"Private_Clean: 0 kB\nPrivate_Dirty: %8d kB\nSwap: %17d kB\nSwapPss: 0 kB\nTHPeligible:           0\nVmFlags: rd ex\n" % (
                addresses, rights, name, size, rss, pss, private, swap))


def a_root(folder, files):
    for name, content in {"self/stat": STAT % b"S", "1/stat": STAT % b"S", "42/stat": STAT % b"S", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


@pytest.fixture
def held(tmp_path):
    """A process with 64 MB of its own, 8 MB that it shares with nobody yet, a file of 4 MB, four threads; ended at the end."""
    with subprocess.Popen([sys.executable, "-I", "-c", HELD, str(tmp_path / "data.bin")], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"ready\n"
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("name, kind", [
    ("[heap]", "heap"), ("[stack]", "stacks"), ("[stack:77]", "stacks"), ("[anon: glibc: pthread stack: 9]", "stacks"), ("", "anonymous"),
    ("[anon:libc_malloc]", "anonymous"), ("[anon: glibc: malloc arena]", "anonymous"), ("[vdso]", "kernel"), ("[vvar]", "kernel"), ("[vsyscall]", "kernel"),
    ("/usr/bin/python3.11", "python"), ("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", "python"),
    ("/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", "python"),
    ("/usr/local/lib/python3.13t/encodings/x.py", "python"), ("/srv/venv/bin/python", "python"),
    ("/usr/lib/python3/dist-packages/lxml/etree.cpython-311-x86_64-linux-gnu.so", "extensions"),
    ("/srv/venv/lib/python3.11/site-packages/numpy.libs/libopenblas64-1.so", "extensions"), ("/srv/app/fast.abi3.so", "extensions"),
    ("/srv/app/fast.cpython-311-x86_64-linux-gnu.so (deleted)", "extensions"), ("/srv/venv/lib/python3.11/site-packages/x/data.bin", "files"),
    ("/usr/lib/apache2/modules/mod_wsgi.so", "libraries"), ("/lib/ld-2.31.so", "libraries"), ("/usr/lib/libc.so.6", "libraries"),
    ("/usr/sbin/apache2", "libraries"), ("/usr/lib/locale/locale-archive", "files"), ("/srv/x.db (deleted)", "files"),
    ("/dev/shm/x", "shared memory"), ("/SYSV00000000 (deleted)", "shared memory"), ("/dev/zero (deleted)", "shared memory"),
    ("/memfd:name (deleted)", "shared memory"), ("[anon_shmem:x]", "shared memory")])
def test_a_mapping_is_of_a_kind_by_its_name(name, kind):
    assert mappings.kind(name) == kind


def test_made_up_mappings_add_up_by_kind_and_by_name(tmp_path):
    root = a_root(tmp_path, {"42/smaps": b"".join((
        a_mapping(b"1000-2000", b"r--p", b"/usr/bin/python3", 4, 1), a_mapping(b"2000-3000", b"r-xp", b"/usr/bin/python3", 8, 2),
        a_mapping(b"5000-9000", b"rw-p", b"[heap]", 100, 90, 7, 200, private=80),
        a_mapping(b"7f0000001000-7f0000002000", b"---p", b""), a_mapping(b"7f0000002000-7f0000802000", b"rw-p", b"", 16, 16, 0, 8192, private=16),
        a_mapping(b"7f0010000000-7f0010021000", b"rw-p", b"", 40, 40, 0, 132), a_mapping(b"7f0010021000-7f0014000000", b"---p", b"", 0, 0, 0, 65404),
        # an arena of malloc behind the short rest of another: it is no stack
        a_mapping(b"7f0017ff8000-7f0018000000", b"---p", b""), a_mapping(b"7f0018000000-7f0018021000", b"rw-p", b"", 5, 5, 0, 132)))})
    assert mappings.memory(42, root) == {
        "rss_bytes": 173 * 1024, "pss_bytes": 154 * 1024, "swap_bytes": 7168, "private_bytes": 96 * 1024, "mappings": 9,
        "kinds": [
            {"kind": "heap", "count": 1, "rss_bytes": 102400, "pss_bytes": 92160, "swap_bytes": 7168, "size_bytes": 204800},
            {"kind": "anonymous", "count": 5, "rss_bytes": 46080, "pss_bytes": 46080, "swap_bytes": 0, "size_bytes": (132 + 65404 + 4 + 132 + 4) * 1024},
            {"kind": "stacks", "count": 1, "rss_bytes": 16384, "pss_bytes": 16384, "swap_bytes": 0, "size_bytes": 8388608},
            {"kind": "python", "count": 2, "rss_bytes": 12288, "pss_bytes": 3072, "swap_bytes": 0, "size_bytes": 8192}],
        "largest": [
            {"kind": "heap", "name": "[heap]", "count": 1, "rss_bytes": 102400, "pss_bytes": 92160, "swap_bytes": 7168, "size_bytes": 204800},
            {"kind": "anonymous", "name": "7f0010000000-7f0010021000", "count": 1, "rss_bytes": 40960, "pss_bytes": 40960, "swap_bytes": 0,
             "size_bytes": 135168},
            {"kind": "stacks", "name": "7f0000002000-7f0000802000", "count": 1, "rss_bytes": 16384, "pss_bytes": 16384, "swap_bytes": 0,
             "size_bytes": 8388608},
            {"kind": "anonymous", "name": "7f0018000000-7f0018021000", "count": 1, "rss_bytes": 5120, "pss_bytes": 5120, "swap_bytes": 0,
             "size_bytes": 135168},
            {"kind": "python", "name": "/usr/bin/python3", "count": 2, "rss_bytes": 12288, "pss_bytes": 3072, "swap_bytes": 0, "size_bytes": 8192},
            {"kind": "anonymous", "name": "7f0010021000-7f0014000000", "count": 1, "rss_bytes": 0, "pss_bytes": 0, "swap_bytes": 0,
             "size_bytes": 65404 * 1024},
            {"kind": "anonymous", "name": "7f0000001000-7f0000002000", "count": 1, "rss_bytes": 0, "pss_bytes": 0, "swap_bytes": 0,
             "size_bytes": 4096},
            {"kind": "anonymous", "name": "7f0017ff8000-7f0018000000", "count": 1, "rss_bytes": 0, "pss_bytes": 0, "swap_bytes": 0,
             "size_bytes": 4096}],
        "unknown": {}}


def test_nonsense_between_mappings_counts_for_none_of_them(tmp_path):
    root = a_root(tmp_path, {"42/smaps": b"Rss: 7 kB\nnonsense\nRss: 9 kB\n" + a_mapping(b"5000-9000", b"rw-p", b"[heap]", 4, 4)
                             + b"\xff\xff\nPss: x kB\nSwap:\nRss: 11 kB\n"})
    found = mappings.memory(42, root)
    assert (found["mappings"], found["rss_bytes"], found["pss_bytes"]) == (1, 4096, 4096)


def test_a_process_without_memory_says_so(tmp_path):
    root = a_root(tmp_path, {"42/stat": STAT % b"Z", "42/smaps": b"", "42/status": b"Name:\tx\n"})
    found = mappings.memory(42, root)
    assert found.pop("unknown") == {"mappings": "it has no memory of its own: it has ended, or is a thread of the kernel"}
    assert set(found.values()) == {None}
    with pytest.raises(TelError, match="there is no process 43"):
        mappings.memory(43, root)
    with pytest.raises(TelError, match="there is no process 43"):
        mappings.quick(43, root)


def test_a_look_at_endless_mappings_ends(tmp_path, monkeypatch):
    root = a_root(tmp_path, {"42/smaps": b"".join(a_mapping(b"%x000-%x000" % (at, at + 1), b"rw-p", b"", 4, 4, private=4)
                                                  for at in range(1, 3001))})
    monkeypatch.setattr(mappings, "MOST", 1000)
    found = mappings.memory(42, root)
    assert found["unknown"] == {"mappings": "only the first 1,000 mappings were looked at"} and found["mappings"] == 1000
    monkeypatch.setattr(mappings, "MOST_S", 0.0)
    monkeypatch.setattr(mappings, "MOST", 10_000)
    found = mappings.memory(42, root)
    assert found["unknown"]["mappings"].startswith("to look at all would have taken more than 0 s: these are the first ")
    assert found["pss_bytes"] == 4096 * found["mappings"] > 0


def test_a_real_process_is_told_by_kind(held):
    found = mappings.memory(held.pid)
    kinds = {row["kind"]: row for row in found["kinds"]}
    assert found["unknown"] == {} and set(kinds) <= set(mappings.KINDS)
    assert kinds["anonymous"]["rss_bytes"] >= 64 << 20 and kinds["shared memory"]["rss_bytes"] == 8 << 20
    assert kinds["stacks"]["count"] == 5 and kinds["python"]["rss_bytes"] > 1 << 20 and kinds["files"]["size_bytes"] >= 4 << 20
    assert found["rss_bytes"] == sum(row["rss_bytes"] for row in found["kinds"])
    assert found["largest"][0]["kind"] == "anonymous" and found["largest"][0]["rss_bytes"] >= 64 << 20
    assert "data.bin" in [os.path.basename(row["name"]) for row in found["largest"]]
    quick = mappings.quick(held.pid)
    assert quick["unknown"] == {} and quick["private_bytes"] >= 64 << 20
    assert abs(quick["pss_bytes"] - found["pss_bytes"]) < 4 << 20 and abs(quick["rss_bytes"] - found["rss_bytes"]) < 4 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes processes of others")
def test_an_ordinary_user_gets_what_everybody_may_know_and_the_reason(held):
    program = ("import json, sys; sys.path.insert(0, sys.argv[1]); from modwsgi_tel.proc import mappings; pid = int(sys.argv[2]); "
               "print(json.dumps([mappings.memory(pid), mappings.quick(pid)]))")
    with running.short_folder() as folder:
        sources = running.copy_of_the_sources(running.ROOT, os.path.join(folder, "sources"))
        told = subprocess.run(["/usr/bin/python3", "-I", "-c", program, sources, str(held.pid)], user=NOBODY, group=NOBODY, extra_groups=[],
                              cwd="/", stdout=subprocess.PIPE, timeout=60, check=True, text=True).stdout
    memory, quick = json.loads(told)
    reason = {"mappings": f"cannot read process {held.pid}: it belongs to root, this is nobody; run as root, or with CAP_SYS_PTRACE and "
                          "CAP_DAC_READ_SEARCH"}
    assert memory.pop("rss_bytes") >= 72 << 20 and memory.pop("swap_bytes") == 0
    assert memory == {"pss_bytes": None, "private_bytes": None, "mappings": None, "kinds": None, "largest": None, "unknown": reason}
    assert quick == {"rss_bytes": None, "pss_bytes": None, "private_bytes": None, "swap_bytes": None, "unknown": reason}


def test_a_kernel_without_smaps_rollup_says_so(tmp_path):
    root = a_root(tmp_path, {})
    assert mappings.quick(42, root)["unknown"] == {"mappings": "this kernel has no /proc/42/smaps_rollup"}
    root = a_root(tmp_path, {"42/smaps_rollup": b"1000-2000 ---p 00000000 00:00 0   [rollup]\nRss:  12 kB\nPss:  8 kB\nPrivate_Clean: 1 kB\n"
                                                b"Private_Dirty:  2 kB\nSwap:  3 kB\n"})
    assert mappings.quick(42, root) == {"rss_bytes": 12288, "pss_bytes": 8192, "private_bytes": 3072, "swap_bytes": 3072, "unknown": {}}


def test_ten_thousand_mappings_are_read_within_the_time_of_a_look(tmp_path):
    root = a_root(tmp_path, {"42/smaps": b"".join(a_mapping(b"%x000-%x000" % (at, at + 1), b"rw-p", b"", 4, 4, private=4)
                                                  for at in range(1, 10_001))})
    found = mappings.memory(42, root)
    assert (found["mappings"], found["unknown"]) == (10_000, {})
