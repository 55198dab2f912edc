"""Core files as memory: equal to what the living process held, or said to be not there.

    CORE_FUZZ_SEED=17 CORE_FUZZ_ROUNDS=20000 python -m pytest tests/test_corefile.py
"""
import gzip
import os
import random
import shutil
import signal
import struct
import time

import pytest

import cores
import interpreters
from modwsgi_tel.errors import Nonsense, TelError
from modwsgi_tel.stacks.corefile import SEGMENTS_MOST, THREADS_MOST, CoreFile, Signal, Thread
from modwsgi_tel.stacks.elf import modules
from modwsgi_tel.stacks.memory import LONGEST_READ, Mapping, ProcessMemory, Unreadable

SEED = int(os.environ.get("CORE_FUZZ_SEED") or random.randrange(2**32))
ROUNDS = int(os.environ.get("CORE_FUZZ_ROUNDS") or 400)
R, W, X = 4, 2, 1
PAGE = 4096


@pytest.fixture
def written(tmp_path):
    """Writes bytes to a file: written(data, name="core") -> its path."""
    def write(data, name="core"):
        path = str(tmp_path / name)
        with open(path, "wb") as handle:
            handle.write(data)
        return path
    return write


@pytest.fixture
def opened():
    """Opens CoreFiles and closes them: opened(path, ...) -> CoreFile."""
    made = []

    def open_core(*arguments, **named):
        made.append(CoreFile(*arguments, **named))
        return made[-1]

    yield open_core
    for each in made:
        each.close()


def refusal(*arguments, **named):
    """(class, text without the path) of what a CoreFile is refused with; it is one line."""
    with pytest.raises(TelError) as caught:
        CoreFile(*arguments, **named).close()
    assert "\n" not in str(caught.value)
    return type(caught.value), str(caught.value).replace(arguments[0], "FILE")


def why(memory, address, size=1):
    with pytest.raises(Unreadable) as caught:
        memory.read(address, size)
    return str(caught.value)


# --- made of bytes: what is in the core -----------------------------------------------------------


def test_memory_is_read_across_neighbours_and_never_past_them(written, opened):
    core = opened(written(cores.core(loads=[(0x2000, R | W, b"b" * PAGE, None), (0x1000, R, b"a" * PAGE, None),
                                            (0x9000, R | W, b"c" * 16, None)])))
    assert core.read(0x1FFE, 4) == b"aabb"
    assert core.read(0x9000, 16) == b"c" * 16
    assert core.read(0x1000, 2 * PAGE) == b"a" * PAGE + b"b" * PAGE
    assert core.read(0x1000, 0) == b""
    assert why(core, 0x2FFF, 2) == "nothing at 0x3000"
    assert why(core, 0xFFF, 2) == "nothing at 0xfff"
    assert why(core, -8, 8) == "nothing at -0x8"
    assert why(core, 1 << 70, 8) == "nothing at 0x400000000000000000"
    assert why(core, 0x1000, LONGEST_READ + 1) == "1048577 bytes are too many"
    assert why(core, 0x1000, -1) == "-1 bytes are too many"
    assert core.problems() == ["the core file does not tell which files were mapped: what it leaves out is not there"]


def test_what_was_left_out_of_private_memory_is_not_taken_for_zeros(written, opened):
    core = opened(written(cores.core(loads=[(0x1000, R | W, b"a" * PAGE, 3 * PAGE)])))
    left_out = "the core leaves out memory that is in no file (never touched, MADV_DONTDUMP, coredump_filter)"
    assert core.read(0x1FFF, 1) == b"a"
    assert why(core, 0x1FFF, 2) == left_out
    assert why(core, 0x2000, 8) == left_out
    assert core.problems()[1:] == [f"2 reads failed: {left_out}"]


def test_a_core_that_is_cut_says_so_and_gives_what_it_has(written, opened):
    whole = cores.core(loads=[(0x1000, R | W, b"a" * PAGE, None), (0x5000, R | W, b"b" * PAGE, None)])
    core = opened(written(whole[:-PAGE - 100]))
    assert core.read(0x1000, PAGE - 100) == b"a" * (PAGE - 100)
    assert why(core, 0x1000, PAGE) == "the core file is cut"
    assert why(core, 0x5000) == "the core file is cut"
    assert core.problems()[1:] == [
        f"the core file is cut: {len(whole) - PAGE - 100} of {len(whole)} bytes are there (ulimit -c, or a full disk)",
        "2 reads failed: the core file is cut"]


def test_a_core_file_that_shrinks_while_it_is_read_is_cut(written, opened):
    path = written(cores.core(loads=[(0x1000, R | W, b"a" * PAGE, None)]))
    core = opened(path)
    os.truncate(path, 100)
    assert "is in no file" in why(core, 0x1000)


def test_segments_that_overlap_or_wrap_are_lost_and_counted(written, opened):
    core = opened(written(cores.core(loads=[
        (0x1000, R, b"a" * PAGE, None), (0x1800, R, b"b" * PAGE, None), (0x4000, R, b"c" * 64, 32),
        ((1 << 64) - PAGE, R, b"d" * 8, 2 * PAGE), (0x9000, R, b"e" * 8, 0)])))
    assert core.maps() == [Mapping(0x1000, 0x2000, "r--p", 0, "")]
    assert core.read(0x1800, 8) == b"a" * 8
    assert core.problems()[1:] == ["the core file is damaged: 3 of its mappings make no sense"]


def test_the_real_number_of_very_many_segments_is_taken_from_the_first_section(written, opened):
    core = opened(written(cores.core(loads=[(0x1000 * number, R, b"%d" % number, None) for number in range(1, 40)], many=True)))
    assert len(core.maps()) == 39 and core.read(0x27000, 2) == b"39"


def test_a_core_of_many_gib_costs_neither_memory_nor_time(written, opened):
    """Its one segment of 1 TiB is a hole in the file."""
    path = written(cores.core(loads=[(0x100000, R | W, b"begin", None)]))
    with open(path, "r+b") as handle:
        handle.seek(64 + 56 + 32)
        handle.write(struct.pack("<QQ", 1 << 40, 1 << 40))
        handle.truncate(1 << 41)
    began = time.monotonic()
    core = opened(path)
    assert core.read(0x100000, 5) == b"begin"
    assert core.read((1 << 40) - 8, 8) == bytes(8)
    assert time.monotonic() - began < 1.0


# --- made of bytes: who it was --------------------------------------------------------------------


def test_threads_come_with_the_one_first_that_took_the_signal(written, opened):
    notes = (cores.prstatus(77, 11, fs_base=0x7F0000001000) + cores.prpsinfo(70, b"python app.py")
             + cores.siginfo(11, 1, 0xDEAD0) + cores.prstatus(78, 11, fs_base=0x7F0000002000))
    core = opened(written(cores.core(notes)))
    died = Signal(11, "SIGSEGV", 0xDEAD0, None)
    assert core.threads == [Thread(77, died, 0x7F0000001000), Thread(78, None, 0x7F0000002000)]
    assert (core.pid, core.command, core.signal, core.machine) == (70, "python app.py", died, "x86-64")


@pytest.mark.parametrize("number, code, fields, expected", [
    (11, 0x80, (0,), Signal(11, "SIGSEGV", None, None)),            # a general protection fault: no address is known
    (11, 0, (4242, 33), Signal(11, "SIGSEGV", None, (4242, 33))),   # kill -SEGV
    (6, -6, (70, 33), Signal(6, "SIGABRT", None, (70, 33))),        # abort()
    (7, 2, (0x1000,), Signal(7, "SIGBUS", 0x1000, None)),
    (31, 1, (0x1000,), Signal(31, "SIGSYS", None, None)),
    (50, 0, (1, 0), Signal(50, "signal 50", None, (1, 0))),
])
def test_the_signal_says_an_address_or_a_sender_where_there_is_one(written, opened, number, code, fields, expected):
    core = opened(written(cores.core(cores.prstatus(77, number) + cores.siginfo(number, code, *fields))))
    assert core.signal == core.threads[0].signal == expected


def test_a_core_of_a_process_that_did_not_die_has_no_signal(written, opened):
    core = opened(written(cores.core(cores.prpsinfo(70, b"python") + cores.prstatus(77) + cores.siginfo(0, 0, 0, 0))))
    assert core.signal is None and core.threads == [Thread(77, None, 0)]


def test_a_core_of_aarch64_is_read(written, opened):
    notes = (cores.prstatus(77, 11, cores.AARCH64) + cores.thread_pointer(0xFFFF0001)
             + cores.prstatus(78, 11, cores.AARCH64) + cores.thread_pointer(0xFFFF0002))
    core = opened(written(cores.core(notes, machine=cores.AARCH64)))
    assert core.machine == "aarch64"
    assert core.threads == [Thread(77, Signal(11, "SIGSEGV", None, None), 0xFFFF0001), Thread(78, None, 0xFFFF0002)]


def test_threads_past_the_bound_are_left_out_and_told(written, opened):
    core = opened(written(cores.core(b"".join(cores.prstatus(number) for number in range(1, THREADS_MOST + 10)))))
    assert len(core.threads) == THREADS_MOST
    assert core.problems()[0] == "the core file has more than 4096 threads: the others are left out"


def test_a_stack_that_gcore_could_not_read_is_not_taken_for_zeros(written, opened):
    """What a thread pointer points to is never zero."""
    core = opened(written(cores.core(cores.prstatus(77, fs_base=0x1800) + cores.prstatus(78, fs_base=0x5800), [
        (0x1000, R | W, bytes(0x800) + b"\1" * 16, PAGE), (0x5000, R | W, bytes(PAGE), None)])))
    assert core.read(0x1000, 8) == bytes(8)
    assert why(core, 0x5000) == "gcore could not read this stack"
    assert core.problems()[0] == ("the core file holds zeros for the stacks of 1 of its threads: gcore could not read them, and a "
                                  "core that the kernel writes has them")


def test_notes_that_are_garbage_are_passed_over_and_told(written, opened):
    notes = (cores.prstatus(77) + cores.note(b"CORE", 1, b"short") + cores.note(b"VENDOR WITH A LONG NAME", 1, b"x" * 400)
             + cores.note(b"CORE", 0x46494C45, struct.pack("<QQ", 1 << 60, PAGE)) + cores.prstatus(78)
             + struct.pack("<III", 5, 0xFFFFFFF0, 1))
    core = opened(written(cores.core(notes)))
    assert [each.tid for each in core.threads] == [77, 78]
    assert core.problems() == ["the core file is damaged: one of its notes makes no sense",
                               "the core file is cut in its notes: some threads or files may be missing",
                               "the core file does not tell which files were mapped: what it leaves out is not there"]


# --- made of bytes: what is in mapped files -------------------------------------------------------


def a_core_of(path, page=None, gcore=False, loads=()):
    """A core as the kernel makes it of a process that ran cores.module() at 0x400000 from `path`.

    page: the first page that the core holds; None: none.  gcore: what is left out has no segment.
    """
    notes = (cores.prstatus(77, 11) + cores.auxv(phdr=0x400040, entry=0x401000)
             + cores.files(*((0x400000 + at, 0x400000 + at + PAGE, at, path) for at in range(0, 4 * PAGE, PAGE))))
    mapped = [(0x400000, R, page or b"", PAGE), (0x401000, R | X, b"", PAGE), (0x402000, R, b"", PAGE),
              (0x403000, R | W, b"changed".ljust(PAGE, b"\0"), PAGE)]
    return cores.core(notes, [each for each in mapped if each[2] or not gcore] + list(loads))


@pytest.mark.parametrize("gcore", [False, True])
def test_what_the_core_leaves_out_is_read_from_the_file_that_ran(written, opened, gcore):
    program = cores.module()
    path = written(program, "program")
    core = opened(written(a_core_of(path, program[:PAGE], gcore)))
    assert core.executable() == path
    assert core.maps() == [Mapping(0x400000, 0x401000, "r--p", 0, path), Mapping(0x401000, 0x402000, "r-xp", PAGE, path),
                           Mapping(0x402000, 0x403000, "r--p", 2 * PAGE, path), Mapping(0x403000, 0x404000, "rw-p", 3 * PAGE, path)]
    assert core.read(0x400000, 4 * PAGE) == program[:3 * PAGE] + b"changed".ljust(PAGE, b"\0")
    with core.open_executable() as handle:
        assert handle.read() == program
    assert core.problems() == []


def test_another_build_of_the_file_is_not_read(written, opened):
    path = written(cores.module(b"\x22" * 20), "program")
    core = opened(written(a_core_of(path, cores.module()[:PAGE])))
    assert core.read(0x400000, 4) == b"\x7fELF"
    line = (f"the core leaves out what is in {path}, and {path} is another build than the one that ran; "
            "name the program that ran by --executable")
    assert why(core, 0x401000) == line and core.problems() == [f"1 reads failed: {line}"]
    with pytest.raises(OSError):
        core.open_executable()


def test_without_a_build_id_the_first_page_has_to_be_the_same(written, opened):
    program = cores.module(build_id=None)
    path = written(program, "program")
    assert opened(written(a_core_of(path, program[:PAGE]))).read(0x401000, 4) == b"code"
    changed = bytearray(program[:PAGE])
    changed[PAGE - 1] = 1
    assert "is another build" in why(opened(written(a_core_of(path, bytes(changed)))), 0x401000)


def test_a_file_of_which_the_core_tells_nothing_is_a_guess_and_said_to_be_one(written, opened):
    path = written(cores.module(), "program")
    core = opened(written(a_core_of(path)))
    assert core.read(0x401000, 4) == b"code"
    assert core.problems() == [f"a guess: {path} is read for what the core leaves out, and the core does not tell whether it is the "
                               "same file"]


def test_a_file_that_is_gone_is_counted_and_told(written, opened):
    core = opened(written(a_core_of("/nowhere/program", cores.module()[:PAGE])))
    line = ("the core leaves out what is in /nowhere/program, and /nowhere/program cannot be read: No such file or directory; "
            "name the program that ran by --executable")
    assert why(core, 0x401000) == why(core, 0x402000) == line
    assert core.problems() == [f"2 reads failed: {line}"]


def test_a_file_that_was_upgraded_is_read_where_it_is_still_the_same_build(written, opened):
    program = cores.module()
    path = written(program, "program")
    assert opened(written(a_core_of(path + " (deleted)", program[:PAGE]))).read(0x401000, 4) == b"code"
    assert "was deleted or upgraded while the process ran" in why(opened(written(a_core_of(path + " (deleted)"))), 0x401000)


def test_the_program_can_be_named(written, opened):
    program = cores.module()
    path = written(program, "program")
    core = opened(written(a_core_of("/gone/python (deleted)", program[:PAGE])), executable=path)
    assert core.read(0x401000, 4) == b"code"
    assert core.executable() == "/gone/python (deleted)"
    assert core.maps()[0].path == "/gone/python (deleted)"


def test_a_program_that_is_named_and_did_not_run_is_refused(written):
    path = written(a_core_of("/gone/python", cores.module()[:PAGE]))
    other = written(cores.module(b"\x22" * 20), "other")
    text = written(b"no program", "text")
    assert refusal(path, executable=other) == (TelError, f"cannot use {other}: {other} is another build than the one that ran")
    assert refusal(path, executable=text) == (TelError, f"cannot use {text}: {text} is no program or library")
    assert refusal(path, executable="/gone/too") == (
        TelError, "cannot use /gone/too: /gone/too cannot be read: No such file or directory")
    assert refusal(written(cores.core()), executable=other) == (
        TelError, f"cannot use {other}: the core file does not tell where its program was mapped")


def test_a_file_is_never_read_for_memory_that_could_be_written(written, opened):
    """Its first content is not what the process made of it."""
    program = cores.module()
    path = written(program, "program")
    notes = (cores.prstatus(77) + cores.files(*((0x400000 + at, 0x400000 + at + PAGE, at, path) for at in range(0, 4 * PAGE, PAGE))))
    for loads in ([(0x400000, R, program[:PAGE], PAGE), (0x403000, R | W, b"", PAGE)], [(0x400000, R, program[:PAGE], PAGE)]):
        core = opened(written(cores.core(notes, loads)))
        assert core.maps()[-1] == Mapping(0x403000, 0x404000, "rw-p", 3 * PAGE, path)
        assert "is in no file" in why(core, 0x403000)


def test_a_file_that_is_no_program_is_not_read_because_a_core_names_it(written, opened):
    path = written(b"root:secret\n".ljust(4 * PAGE), "shadow")
    core = opened(written(a_core_of(path)))
    assert f"{path} is no program or library" in why(core, 0x401000)
    for name in ("/dev/zero", "relative", "/tmp", "/no\0name"):
        assert "no" in why(opened(written(a_core_of(name))), 0x401000).replace(name, "")


def test_the_last_page_of_a_file_is_filled_with_zeros_and_no_more(written, opened):
    program = cores.module()
    path = written(program[:2 * PAGE + 6], "program")
    core = opened(written(a_core_of(path, program[:PAGE])))
    assert core.read(0x402000, PAGE) == b"rodata".ljust(PAGE, b"\0")
    os.truncate(path, 2 * PAGE)
    assert why(core, 0x402000).endswith("and that file is shorter than it was")


def test_files_are_found_below_another_root_and_never_outside_of_it(written, opened, tmp_path):
    program = cores.module()
    outside = written(cores.module(code=b"outside"), "python")
    inside = tmp_path / "root" / "opt"
    inside.mkdir(parents=True)
    (inside / "real").write_bytes(program)
    os.symlink("/opt/near", str(inside / "python"))                 # leads to root/opt/near
    os.symlink("../opt/./real", str(inside / "near"))
    os.symlink("../../../../../../.." + outside, str(inside / "leak"))
    os.symlink("circle", str(inside / "circle"))
    root = str(tmp_path / "root")
    assert opened(written(a_core_of("/opt/python", program[:PAGE])), root=root).read(0x401000, 4) == b"code"
    assert "No such file" in why(opened(written(a_core_of("/opt/leak", program[:PAGE])), root=root), 0x401000)
    assert "too many symbolic links" in why(opened(written(a_core_of("/opt/circle", program[:PAGE])), root=root), 0x401000)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("data, expected", [
    (b"", (Nonsense, "cannot read FILE: it is empty (ulimit -c, or a full disk)")),
    (b"hello", (Nonsense, "cannot read FILE: it is no core file")),
    (b"\x7fELF\x02\x01", (Nonsense, "cannot read FILE: it is cut: 6 bytes are there")),
    (cores.module(), (Nonsense, "cannot read FILE: it is a program, no core file")),
    (cores.core(kind=3), (Nonsense, "cannot read FILE: it is a program or a library, no core file")),
    (cores.core(machine=21), (TelError, "cannot read FILE: it is of a machine with the ELF number 21, and only x86-64 and aarch64 can "
                              "be read")),
    (b"\x7fELF\x01\x01" + cores.core()[6:], (TelError, "cannot read FILE: it is a 32-bit little-endian ELF file, and only 64-bit "
                                             "little-endian cores can be read")),
    (b"\x7fELF\x02\x02" + cores.core()[6:], (TelError, "cannot read FILE: it is a 64-bit big-endian ELF file, and only 64-bit "
                                             "little-endian cores can be read")),
    (b"\x7fELF\x07\x09" + cores.core()[6:], (TelError, "cannot read FILE: it is no core file")),
    (cores.core()[:100], (Nonsense, "cannot read FILE: it is cut: its 100 bytes do not hold the list of its mappings")),
    (cores.core(b""), (Nonsense, "cannot read FILE: it tells of no Linux thread")),
    (cores.core()[:-350], (Nonsense, "cannot read FILE: it tells of no Linux thread, for it is cut: 126 of 476 bytes are there")),
    (gzip.compress(b"core"), (TelError, "cannot read FILE: it is packed by gzip: first run gzip -dc FILE > core")),
    (b"\x28\xb5\x2f\xfd....", (TelError, "cannot read FILE: it is packed by zstd: first run zstd -d FILE -o core")),
    (b"\xfd7zXZ\0....", (TelError, "cannot read FILE: it is packed by xz: first run xz -dc FILE > core")),
    (b"\x04\x22\x4d\x18....", (TelError, "cannot read FILE: it is packed by lz4: first run lz4 -d FILE core")),
    (b"ProblemType: Crash\n", (TelError, "cannot read FILE: it is packed by apport: first run apport-unpack FILE FOLDER, which makes "
                               "FOLDER/CoreDump")),
])
def test_what_is_no_core_file_is_refused_in_one_line(written, data, expected):
    assert refusal(written(data)) == expected


def test_numbers_of_segments_that_cannot_be_are_refused(written):
    whole = bytearray(cores.core(many=True))
    struct.pack_into("<I", whole, 64 + 56 + 44, SEGMENTS_MOST + 1)
    assert refusal(written(whole)) == (TelError, "cannot read FILE: it has 262145 mappings, and no more than 262144 are read")
    struct.pack_into("<I", whole, 64 + 56 + 44, SEGMENTS_MOST)
    assert refusal(written(whole))[1] == f"cannot read FILE: it is cut: its {len(whole)} bytes do not hold the list of its mappings"
    struct.pack_into("<Q", whole, 40, 1 << 63)
    assert refusal(written(whole))[1] == "cannot read FILE: it has more than 65,534 mappings, and does not tell how many"


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    assert refusal(pipe) == (TelError, "cannot read FILE: no regular file")
    assert refusal(str(tmp_path)) == (TelError, "cannot read FILE: no regular file")
    assert refusal(str(tmp_path / "none")) == (TelError, "cannot read FILE: No such file or directory")
    assert refusal("a\0b") == (TelError, "cannot read FILE: no file has such a name")


def test_no_descriptor_is_left_open(written):
    before = os.listdir("/proc/self/fd")
    program = cores.module()
    path = written(a_core_of(written(program, "program"), program[:PAGE]))
    core = CoreFile(path)
    core.read(0x401000, 4)
    core.close()
    refusal(written(b"hello", "text"))
    refusal(path, executable=written(cores.module(b"\x22" * 20), "other"))
    assert os.listdir("/proc/self/fd") == before


# --- fuzz -----------------------------------------------------------------------------------------


def look(path):
    """Everything that a CoreFile can be asked; only Unreadable comes back."""
    core = CoreFile(path)
    try:
        places = [0, 0x400000, 0x401000, 0x403000, 0x7000, (1 << 64) - 8]
        for each in core.maps()[:50]:
            assert each.start < each.end and isinstance(each.path, str)
            places += [each.start, each.end - 8]
        for place in places:
            for size in (1, 64, 3 * PAGE):
                try:
                    assert len(core.read(place, size)) == size
                except Unreadable:
                    pass
        assert core.threads and isinstance(core.problems(), list)
    finally:
        core.close()


def test_any_bytes_give_a_core_or_one_error_in_bounded_time(written):
    """Any damage to a core file gives a CoreFile that answers with bytes or Unreadable, or a TelError, at once."""
    rng = random.Random(SEED)
    print(f"CORE_FUZZ_SEED={SEED}")
    program = cores.module()
    whole = a_core_of(written(program, "program"), program[:PAGE], loads=[(0x7000, R | W, b"heap" * 16, PAGE)])
    many = cores.core(cores.prstatus(1) + cores.prpsinfo(1, b"x"), [(PAGE * number, R, b"x", PAGE) for number in range(1, 9)], many=True)
    numbers = [struct.pack(form, value & (256 ** struct.calcsize(form) - 1)) for form in ("<H", "<I", "<Q")
               for value in (0, 1, -1, 0x7FFFFFFF, 1 << 63, (1 << 63) - 1, PAGE, 0xFFFF, 0x46494C45)]
    heads = 64 + 6 * 56 + 700               # what matters is at the front: headers and notes
    for _ in range(ROUNDS):
        data = bytearray(rng.choice((whole, whole, many)))
        for _ in range(rng.choice((0, 1, 1, 2, 4, 16))):
            at = rng.randrange(min(len(data), heads if rng.random() < .9 else len(data)))
            change = rng.choice((bytes((rng.randrange(256),)), rng.choice(numbers)))
            data[at:at + len(change)] = change
        if rng.random() < .3:
            del data[rng.randrange(len(data)):]
        began = time.monotonic()
        try:
            look(written(data))
        except TelError as error:
            assert "\n" not in str(error)
        assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("empty", [0, 50000])
def test_the_worst_that_can_be_forged_is_over_soon(written, opened, empty):
    """Every note segment is the same notes once more, and they are all there are."""
    notes = cores.prstatus(1) + cores.note(b"CORE", 0x46494C45, struct.pack("<QQ", 60000, PAGE) + bytes(24 * 60000 + 60001)) * 2
    notes += struct.pack("<III", 0, 0, 0) * empty
    whole = bytearray(cores.core(notes, [(0, 0, b"", 0)] * 2000))
    for number in range(2000):
        whole[64 + 56 * (number + 1):64 + 56 * (number + 2)] = whole[64:64 + 56]
    began = time.monotonic()
    core = opened(written(whole))
    assert core.maps() == [] and time.monotonic() - began < 5.0


# --- of real processes ----------------------------------------------------------------------------


@pytest.fixture
def target(tmp_path):
    """Starts a cores.Target; it is ended when the test is over."""
    started = []

    def start(python):
        folder = tmp_path / "target"
        folder.mkdir()
        started.append(cores.Target(python, str(folder)))
        started[-1].waits()
        return started[-1]

    yield start
    for each in started:
        each.end()


def in_parts(memory, maps):
    """{(address, size): bytes, or why they are not there} of all that can be read there, but for the kernel's own pages."""
    found = {}
    for each in maps:
        for at in range(each.start, each.end, 16 * PAGE) if "r" in each.perms and not each.path.startswith("[v") else ():
            size = min(16 * PAGE, each.end - at)
            try:
                found[at, size] = memory.read(at, size)
            except Unreadable as error:
                found[at, size] = str(error)
    return found


def runtime_of(memory, maps, executable):
    """The address of _PyRuntime."""
    return next(filter(None, (module.symbol("_PyRuntime") for module in modules(memory, maps, executable))), None)


def test_a_core_by_gcore_holds_what_the_process_holds(target, opened):
    process = target(interpreters.of("3.11"))
    live = ProcessMemory(process.pid)
    try:
        maps = live.maps()
        there = in_parts(live, maps)
        address = runtime_of(live, maps, live.executable())
    finally:
        live.close()
    core = opened(cores.gcore(process.pid, process.folder))
    found = in_parts(core, maps)
    left_out = {place: data for place, data in found.items() if isinstance(data, str)}
    assert {place: data for place, data in there.items() if place not in left_out} == {
        place: data for place, data in found.items() if place not in left_out}
    # of the locale and of gconv's cache, which are data in files
    assert all(data.endswith("is no program or library") for data in left_out.values())
    assert sum(size for _, size in left_out) < 1 << 20 < sum(size for _, size in there)
    assert runtime_of(core, core.maps(), core.executable()) == address is not None
    named = {each for each in maps if each.path.startswith("/") and each.perms[3] == "p"}
    assert {each for each in core.maps() if each.path.startswith("/")} >= named
    assert core.command and " ".join(process.arguments).startswith(core.command)    # gdb 13 tells the program alone
    assert (core.pid, core.signal) == (process.pid, None)
    assert sorted(each.tid for each in core.threads) == sorted([process.pid, *process.threads])
    if core.machine == "x86-64":
        assert {each.pointer for each in core.threads} > set(process.idents)


@pytest.mark.parametrize("version", interpreters.TOO_OLD[-1:] + interpreters.SUPPORTED)
def test_a_core_by_the_kernel_holds_what_the_process_held(target, opened, version):
    process = target(interpreters.of(version))
    live = ProcessMemory(process.pid)
    try:
        maps = live.maps()
        fixed = {(each.start, each.end): live.read(each.start, min(each.end - each.start, LONGEST_READ))
                 for each in maps if each.perms.startswith("r-") and each.path.startswith("/") and "/locale/" not in each.path
                 and "gconv" not in each.path}
        address = runtime_of(live, maps, live.executable())
        head = live.read(address, 8)
    finally:
        live.close()
    core = opened(process.die("touch"))
    assert {(start, end): core.read(start, min(end - start, LONGEST_READ)) for start, end in fixed} == fixed
    assert runtime_of(core, core.maps(), core.executable()) == address is not None
    assert core.read(address, 8) == head
    assert set(core.maps()) >= {each for each in maps if each.path.startswith("/") and each.perms[3] == "p"}
    died = Signal(11, "SIGSEGV", 0x10, None)
    assert (core.pid, core.command, core.signal) == (process.pid, " ".join(process.arguments)[:79], died)
    assert core.threads[0][:2] == (process.pid, died)
    assert sorted(each.tid for each in core.threads[1:]) == sorted(process.threads)
    assert core.problems() == []


@pytest.mark.parametrize("how, expected", [("abort", ("SIGABRT", None)), (str(int(signal.SIGBUS)), ("SIGBUS", None))])
def test_a_core_by_the_kernel_tells_who_sent_the_signal(target, opened, how, expected):
    process = target(interpreters.of("3.11"))
    core = opened(process.die(how))
    assert core.signal == Signal(getattr(signal, expected[0]), *expected, (process.pid, os.getuid()))


def test_a_core_by_the_kernel_that_is_cut_gives_what_is_left_or_says_so(target, tmp_path, opened):
    process = target(interpreters.of("3.11"))
    whole = process.die("touch")
    size = os.path.getsize(whole)
    half = str(tmp_path / "half")
    shutil.copy(whole, half)
    os.truncate(half, size // 2)
    core, cut = opened(whole), opened(half)
    assert (cut.threads, cut.maps()) == (core.threads, core.maps())
    assert cut.problems() == [f"the core file is cut: {size // 2} of {size} bytes are there (ulimit -c, or a full disk)"]
    stack = next(each for each in core.maps() if each.start <= core.threads[0].pointer < each.end)
    assert len(core.read(stack.start, 4096)) == 4096
    last = [each for each in core.maps() if each.perms.startswith("rw") and not each.path][-1]
    assert why(cut, last.start) == "the core file is cut"
    for share in (64, 4000, 20000):
        os.truncate(half, share)
        refusal(half)
