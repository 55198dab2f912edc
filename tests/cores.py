"""Core files: real ones of live Pythons, made by the kernel and by gcore, and small ones made of bytes."""
import contextlib
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import time

import pytest

TIMEOUT_S = 30
READ = ("0", "63")              # its number on x86-64 and on aarch64
CORE_PATTERN = "/proc/sys/kernel/core_pattern"

# Parks threads in named functions, says in one JSON line who it is and what their frames are ([function, file, line],
# innermost first), and ends as it is told on stdin.
TARGET = '''
import ctypes, json, os, resource, sys, threading, time

def parked(depth, ready):
    if depth:
        return parked(depth - 1, ready)
    ready.wait()
    FOREVER.wait()

class Pool:
    def worker(self, depth, ready):
        parked(depth, ready)

def frames_of(frame):
    found = []
    while frame is not None:
        name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
        found.append([name, frame.f_code.co_filename, frame.f_lineno])
        frame = frame.f_back
    return found

def settled(idents):
    """The frames by ident, when two looks in a row agree."""
    before = None
    while True:
        now = {ident: frames_of(frame) for ident, frame in sys._current_frames().items() if ident in idents}
        if now == before and all(frames[0][0].endswith("wait") for frames in now.values()):
            return now
        before = now
        time.sleep(0.02)

def die(how):
    if how == "touch":
        ctypes.string_at(0x10)
    elif how == "abort":
        os.abort()
    os.kill(os.getpid(), int(how))

def main():
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    threading.stack_size(256 << 10)
    ready = threading.Barrier(4)
    threads = [threading.Thread(target=Pool().worker, args=(depth, ready), daemon=True) for depth in (1, 5, 40)]
    for thread in threads:
        thread.start()
    ready.wait()
    truth = settled({thread.ident for thread in threads})
    sys.stdout.write(json.dumps({"pid": os.getpid(), "idents": [thread.ident for thread in threads],
                                 "threads": {str(thread.native_id): truth[thread.ident] for thread in threads}}) + "\\n")
    sys.stdout.flush()
    die(sys.stdin.readline().strip())

FOREVER = threading.Event()
main()
'''


class Target:
    """A Python that waits in main() with three parked threads.

    pid; idents: threading's, of the parked ones; threads: {native id: [[function, file, line], ...]}, innermost first;
    arguments: its command line.
    """

    def __init__(self, python, folder):
        script = os.path.join(folder, "target.py")
        with open(script, "w") as handle:
            handle.write(TARGET)
        self.arguments = [python, "-I", "-S", script]
        self.folder = folder
        self.process = subprocess.Popen(self.arguments, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, env={"MALLOC_ARENA_MAX": "1", "PATH": os.environ["PATH"]})
        self.pid = self.process.pid
        try:
            if not select.select([self.process.stdout], [], [], TIMEOUT_S)[0]:
                raise AssertionError("the target is not ready after %d s" % TIMEOUT_S)
            told = json.loads(self.process.stdout.readline())
        except BaseException:
            self.end()
            raise
        self.idents = told["idents"]
        self.threads = {int(tid): frames for tid, frames in told["threads"].items()}

    def waits(self):
        """Return when its main thread is in the read() of what it is told."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with open("/proc/%d/syscall" % self.pid) as handle:
                words = handle.read().split()
            if words[0] in READ and words[1] == "0x0":
                return
            assert time.monotonic() < deadline, "the target does not wait: %r" % words
            time.sleep(0.01)

    def die(self, how):
        """The path of the core file that the kernel writes when it ends by `how`; skips the test where there is none."""
        pattern = kernel_pattern()
        before = set(os.listdir(self.folder))
        self.process.stdin.write(how.encode() + b"\n")
        self.process.stdin.flush()
        self.process.wait(TIMEOUT_S)
        found = sorted(set(os.listdir(self.folder)) - before)
        if not found:
            pytest.skip("the kernel wrote no core file (core_pattern is %r)" % pattern)
        return os.path.join(self.folder, found[0])

    def end(self):
        with contextlib.suppress(OSError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(TIMEOUT_S)
        self.process.stdin.close()
        self.process.stdout.close()


def kernel_pattern():
    """The system's core_pattern, if it writes a file into the folder of the process; else skips the test."""
    try:
        with open(CORE_PATTERN) as handle:
            pattern = handle.read().strip()
    except OSError:
        pytest.skip("no %s here" % CORE_PATTERN)
    if pattern.startswith("|"):
        pytest.skip("core files go to a program here: core_pattern is %r" % pattern)
    if not pattern or "/" in pattern:
        pytest.skip("core files go elsewhere: core_pattern is %r" % pattern)
    return pattern


def gcore(pid, folder):
    """The path of a core file that gcore makes of a live process."""
    if shutil.which("gcore") is None:
        pytest.skip("no gcore here (gdb)")
    done = subprocess.run(["gcore", "-o", os.path.join(folder, "gcore"), str(pid)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    path = os.path.join(folder, "gcore.%d" % pid)
    if not os.path.exists(path):
        pytest.skip("gcore made no core file: %s" % done.stdout.decode(errors="replace").strip()[-200:])
    return path


# --- made of bytes ------------------------------------------------------------------------------

X86_64, AARCH64 = 62, 183
_PAGE = 4096


def note(owner, kind, data):
    owner += b"\0"
    return (struct.pack("<III", len(owner), len(data), kind) + owner + bytes(-len(owner) % 4) + data + bytes(-len(data) % 4))


def prstatus(tid, number=0, machine=X86_64, fs_base=0):
    data = bytearray(336 if machine == X86_64 else 392)
    struct.pack_into("<h", data, 12, number)
    struct.pack_into("<i", data, 32, tid)
    if machine == X86_64:
        struct.pack_into("<Q", data, 112 + 8 * 21, fs_base)
    return note(b"CORE", 1, bytes(data))


def prpsinfo(pid, command):
    return note(b"CORE", 3, struct.pack("<4B4xQIIiiii16s80s", 0, 0, 0, 0, 0, 33, 33, pid, 1, 1, 1, b"python", command))


def siginfo(number, code, *fields):
    """fields: an address, or a pid and a uid."""
    rest = struct.pack("<Q", *fields) if len(fields) == 1 else struct.pack("<iI", *fields)
    return note(b"CORE", 0x53494749, (struct.pack("<iii4x", number, 0, code) + rest).ljust(128, b"\0"))


def auxv(**values):
    kinds = {"phdr": 3, "entry": 9}
    return note(b"CORE", 6, b"".join(struct.pack("<QQ", kinds[name], value) for name, value in values.items()) + bytes(16))


def files(*entries, page=_PAGE):
    """entries: (start, end, offset in bytes, path)."""
    return note(b"CORE", 0x46494C45, struct.pack("<QQ", len(entries), page)
                + b"".join(struct.pack("<QQQ", start, end, offset // page) for start, end, offset, _ in entries)
                + b"".join(os.fsencode(path) + b"\0" for *_, path in entries))


def thread_pointer(value):
    return note(b"LINUX", 0x401, struct.pack("<Q", value))


def core(notes=None, loads=(), machine=X86_64, kind=4, many=False):
    """A core file as bytes.  loads: (start, flags, data, size in memory, or None for that of the data).

    many: the number of segments stands in section header 0, as when there are 65,535 or more.
    """
    notes = prstatus(77) if notes is None else notes
    count = 1 + len(loads)
    at = 64 + 56 * count + (64 if many else 0)
    table = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(notes), 0, 4)
    at += len(notes)
    held = b""
    for start, flags, data, size in loads:
        table += struct.pack("<IIQQQQQQ", 1, flags, at + len(held), start, 0, len(data), len(data) if size is None else size, _PAGE)
        held += data
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 1, 0, count, 0, 0) if many else b""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", kind, machine, 1, 0, 64, 64 + 56 * count if many else 0, 0, 64,
                         56, 0xFFFF if many else count, 64 if many else 0, 1 if many else 0, 0)
    return header + table + section + notes + held


def module(build_id=b"\x11" * 20, code=b"code", rodata=b"rodata"):
    """A small ELF program as bytes: page 0 its headers, page 1 code, page 2 constants, page 3 data, each mapped at 0x400000 and on."""
    marked = b"" if build_id is None else note(b"GNU", 3, build_id)
    table = b"".join(struct.pack("<IIQQQQQQ", kind, flags, offset, 0x400000 + offset, 0, size, size, _PAGE)
                     for kind, flags, offset, size in ((1, 4, 0, _PAGE), (1, 5, _PAGE, _PAGE), (1, 4, 2 * _PAGE, _PAGE),
                                                       (1, 6, 3 * _PAGE, _PAGE), (4, 4, 64 + 5 * 56, len(marked))))
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, X86_64, 1, 0, 64, 0, 0, 64, 56, 5, 0, 0, 0)
    return b"".join(part.ljust(_PAGE, b"\0") for part in (header + table + marked, code, rodata, b"data"))
