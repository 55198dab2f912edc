"""Which Python is in a process, and what is said when there is none that can be read: one line each."""

import os
import struct
import subprocess
import sys

import pytest

import images
import interpreters
import running
from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks import elf, runtime
from modwsgi_tel.stacks.memory import LONGEST_READ, Limited, ProcessMemory, Unreadable, parse_maps
from modwsgi_tel.stacks.offsets import COOKIE
from modwsgi_tel.stacks.reader import Reader

LIMIT_S = 20
BASE, DATA = 0x7F0000000000, 0x7F1000000000
KNOWN = "which is not known; 3.8 to 3.15 are"


def refusal(pid):
    """The one line that is said of a process."""
    with pytest.raises(TelError) as caught:
        Reader(pid).look()
    said = str(caught.value)
    assert "\n" not in said and said
    return said


def located(symbols, data, path="/usr/bin/python3", **module):
    memory = images.Memory({BASE: images.module(symbols, BASE, **module), DATA: data + bytes(4096)})
    return runtime.locate(memory, images.maps(BASE, path), path)


def refused(*args, **more):
    with pytest.raises(TelError) as caught:
        located(*args, **more)
    return str(caught.value)


# --- real processes --------------------------------------------------------------------------------------


@pytest.fixture
def start():
    """Starts a process that waits for its stdin; says when it is there."""
    started = []

    def begin(*command, **more):
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more))
        return started[-1]
    yield begin
    for each in started:
        each.kill()
        each.wait(LIMIT_S)
        each.stdin.close()
        each.stdout.close()


SAYS = "import os; os.write(1, b'x'); os.read(0, 1)"


@pytest.mark.parametrize("version, said", [
    ("2.7", "process %d: {} is a Python older than 3.7, whose stacks cannot be read; 3.8 to 3.15 can"),
    ("3.6", "process %d: {} is a Python older than 3.7, whose stacks cannot be read; 3.8 to 3.15 can"),
    ("3.7", "process %d: this is Python 3.7 or older ({}), which is not known; 3.8 to 3.15 are")])
def test_a_python_that_is_too_old_is_refused_with_what_it_is(start, version, said):
    process = start(interpreters.of(version), "-c", SAYS)
    process.stdout.read(1)
    with open(f"/proc/{process.pid}/maps") as handle:
        library = next((line.split()[5] for line in handle if "libpython" in line), os.readlink(f"/proc/{process.pid}/exe"))
    assert refusal(process.pid) == said.format(library) % process.pid


def test_a_program_that_is_no_python_is_refused(start):
    process = start("sleep", "60")
    running.wait_until(lambda: os.path.basename(os.readlink(f"/proc/{process.pid}/exe")) != os.path.basename(
        os.path.realpath(sys.executable)), LIMIT_S, "no exec")
    assert refusal(process.pid) == "process %d: no Python is in it (its program is %s)" % (
        process.pid, os.readlink(f"/proc/{process.pid}/exe"))


@pytest.mark.parametrize("name", ["python3.14-dbg", "python3.15-dbg"])
def test_a_debug_build_is_refused(start, name):
    command = interpreters.in_chroot(name)
    process = start(*command, "-c", SAYS)
    process.stdout.read(1)
    said = refusal(process.pid)
    assert said.startswith("process %d: this is a debug build of Python %s." % (process.pid, name[6:10])), said
    assert said.endswith("whose stacks cannot be read")


@pytest.mark.parametrize("pid, said", [
    (0, "there is no process 0: it has ended, or that is its pid in another container"),
    (-1, "there is no process -1: it has ended, or that is its pid in another container"),
    (1 << 70, "there is no process 1180591620717411303424: it has ended, or that is its pid in another container")])
def test_no_such_process_is_said(pid, said):
    assert refusal(pid) == said


def test_a_process_that_has_ended_or_is_a_zombie_is_said(start):
    process = start(sys.executable, "-c", SAYS)
    process.stdout.read(1)
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert refusal(process.pid) == ("process %d has ended and waits for its parent %d to take notice (a zombie): nothing of it "
                                    "is left to read" % (process.pid, os.getpid()))
    process.wait(LIMIT_S)
    assert refusal(process.pid) == ("there is no process %d: it has ended, or that is its pid in another container" % process.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_a_thread_of_the_kernel_is_said():
    with open("/proc/2/comm") as handle:
        if handle.read() != "kthreadd\n":
            pytest.skip("the kernel's threads are not to be seen here")
    assert refusal(2) == "process 2 (kthreadd) is a thread of the kernel: it runs no Python"


BECOMES = "import os, sys; os.write(1, b'x'); os.read(0, 1); os.execv(sys.executable, [sys.executable, '-c', %r])" % SAYS


def test_an_exec_and_an_end_between_two_looks_are_said_in_one_line(start):
    process = start(sys.executable, "-c", BECOMES)
    process.stdout.read(1)
    reader = Reader(process.pid)
    assert reader.look().threads
    process.stdin.write(b"x")
    process.stdin.flush()
    process.stdout.read(1)
    with pytest.raises(TelError, match="^process %d has become another program .exec., or is another process now$" % process.pid):
        reader.look()
    reader.close()
    reader = Reader(process.pid)
    assert reader.look().threads
    process.stdin.close()
    process.wait(LIMIT_S)
    with pytest.raises(TelError, match="^process %d has ended$" % process.pid):
        reader.look()
    reader.close()


def test_a_process_that_ends_and_execs_all_the_time_gives_stacks_or_one_line(start):
    """Each look is at whatever a process is at that moment: starting, running, becoming another, ending."""
    again = ("import os, sys; left = int(sys.argv[1]); "
             "left and os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', sys.argv[2], str(left - 1), sys.argv[2]])")
    process = start(sys.executable, "-I", "-S", "-c", again, "25", again)
    looks, said = 0, []
    while process.poll() is None:
        try:
            reader = Reader(process.pid)
            try:
                for _ in range(50):
                    looks += bool(reader.look().threads)
            finally:
                reader.close()
        except TelError as error:
            said.append(str(error))
    assert looks and said
    assert [each for each in said if "\n" in each] == []


# --- made of bytes ---------------------------------------------------------------------------------------


def debug(version, free_threaded=0):
    return COOKIE + struct.pack("<QQ", version, free_threaded)


def test_a_minor_version_that_is_not_known_yet_is_refused_with_its_number():
    assert refused({"_PyRuntime": DATA}, debug(0x031000F0)) == "this is Python 3.16.0 (/usr/bin/python3), " + KNOWN
    assert refused({"_PyRuntime": DATA}, debug(0x031000A3)) == "this is Python 3.16.0a3 (/usr/bin/python3), " + KNOWN
    assert refused({"_PyRuntime": DATA}, debug(0x04000000)) == "this is Python 4.0.0 (/usr/bin/python3), " + KNOWN


def test_a_free_threaded_and_a_debug_build_are_refused():
    assert refused({"_PyRuntime": DATA}, debug(0x030D01F0, 1)) == (
        "this is a free-threaded Python 3.13.1 (/usr/bin/python3), whose stacks cannot be read")
    assert refused({"_PyRuntime": DATA, "_Py_NegativeRefcount": DATA, "PyFrame_GetCode": BASE}, bytes(64)) == (
        "this is a debug build of Python 3.9 (/usr/bin/python3), whose stacks cannot be read")


def test_offsets_that_make_no_sense_are_refused():
    said = refused({"_PyRuntime": DATA}, debug(0x030D00F0) + b"\xff" * 1000)
    assert said.startswith("the offsets that this Python 3.13 tells make no sense ("), said


def test_pypy_is_refused_by_its_name():
    assert refused({}, b"", path="/opt/pypy/bin/libpypy3.10-c.so") == (
        "this is PyPy (/opt/pypy/bin/libpypy3.10-c.so), not CPython; its stacks cannot be read")


def test_a_machine_that_is_not_known_is_refused():
    assert refused({"_PyRuntime": DATA}, bytes(64), machine=243) == (
        "/usr/bin/python3 is for a machine that is not known; x86-64 and aarch64 are")


def test_a_python_that_has_not_started_is_said():
    assert refused({"_PyRuntime": DATA, "PyFrame_GetCode": BASE}, bytes(64)) == (
        "no Python code runs in it (/usr/bin/python3 is there, but has not started, or has ended)")


@pytest.mark.parametrize("symbols, python, version", [
    ({"PyModule_AddObjectRef": BASE, "PyFrame_GetCode": BASE, "PyCode_NewWithPosOnlyArgs": BASE}, "3.10", (3, 10)),
    ({"PyFrame_GetCode": BASE, "PyCode_NewWithPosOnlyArgs": BASE}, "3.9", (3, 9)),
    ({"PyCode_NewWithPosOnlyArgs": BASE}, "3.8", (3, 8)),
    ({"Py_Version": DATA + 512}, "3.11.7", (3, 11))])
@pytest.mark.parametrize("how", [{}, {"gnu": False}, {"relocated": False}, {"vaddr": 0x400000}])
def test_the_version_is_told_by_what_is_exported(symbols, python, version, how):
    data = bytearray(1024)
    data[32:48] = images.words(DATA, DATA)
    data[512:520] = images.words(0x030B07F0)
    found = located(dict(symbols, _PyRuntime=DATA), bytes(data), **how)
    assert (found.address, found.python, found.layout.version, found.module) == (DATA, python, version, "/usr/bin/python3")


def test_a_symbol_that_is_only_used_and_one_that_is_not_there_are_none():
    memory = images.Memory({BASE: images.module({"used": 0, "defined": DATA}, BASE)})
    module = elf.Module(memory, BASE, "/lib/x")
    assert (module.symbol("used"), module.symbol("defined"), module.symbol("absent")) == (None, DATA, None)


@pytest.mark.parametrize("gnu", [True, False])
def test_tables_of_a_module_that_lie_end_in_no_symbol(gnu):
    whole = images.module({"one": DATA, "two": DATA + 8, "three": DATA + 16}, BASE, gnu=gnu)
    for at in [*range(0, 200, 4), *range(1024, 1100, 4), *range(12288, 12350, 2)]:
        for value in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\0\0\0", b"\0\0\0\x80"):
            image = images.Memory({BASE: whole[:at] + value + whole[at + 4:]})
            try:
                found = elf.Module(Limited(image), BASE, "/lib/x").symbol("two")
            except Unreadable:
                continue
            assert found is None or found % (1 << 64) >= 0


def test_a_file_whose_table_of_symbols_lies_gives_no_symbols_and_no_other_error(tmp_path):
    whole = bytearray(4096)
    whole[:6] = b"\x7fELF\x02\x01"
    for place in (0, 64, 1 << 40, 1 << 63, (1 << 64) - 1):
        struct.pack_into("<Q", whole, 40, place)
        struct.pack_into("<HH", whole, 58, 64, 65535)
        (tmp_path / "x").write_bytes(bytes(whole))
        memory = images.Memory({BASE: images.module({}, BASE)})
        with pytest.raises(TelError, match="^no Python is in it .its program is /x.$"):
            runtime.locate(memory, images.maps(BASE, "/x"), "/x", lambda: open(tmp_path / "x", "rb"))


def test_mappings_are_parsed_with_spaces_in_names_and_without_any():
    text = (b"00400000-00401000 r-xp 00001000 08:01 12  /a b (deleted)\nffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [v]\n"
            b"7f-80 rw-p 0 0:0 0\nnonsense\nx-y r 0 0 0\n")
    assert [tuple(each) for each in parse_maps(text)] == [
        (0x400000, 0x401000, "r-xp", 0x1000, "/a b (deleted)"), (0xffffffffff600000, 0xffffffffff601000, "--xp", 0, "[v]"),
        (0x7F, 0x80, "rw-p", 0, "")]


def test_memory_reads_exactly_what_is_asked_for_or_says_that_it_cannot(start):
    process = start(sys.executable, "-c", SAYS)
    process.stdout.read(1)
    memory = ProcessMemory(process.pid)
    base = memory.maps()[0].start
    assert memory.read(base, 4) == b"\x7fELF" and memory.read(base, 0) == b""
    for address, size in ((0, 8), (-8, 8), (1 << 63, 8), (1 << 64, 8), (1 << 80, 1), (base, LONGEST_READ + 1), (base, -1), (base - 1, 8)):
        with pytest.raises(Unreadable):
            memory.read(address, size)
    memory.close()


def test_a_look_reads_no_more_than_it_may():
    memory = Limited(images.Memory({0: bytes(1 << 20)}), most=100)
    for _ in range(100):
        memory.read(0, 8)
    with pytest.raises(Unreadable, match="more to be read than one look may read"):
        memory.read(0, 8)
    memory.anew()
    memory.read(0, 99 << 7)
    with pytest.raises(Unreadable):
        memory.read(0, 8)
