"""The stacks of real Pythons, each that is found: what the reader tells is what the target says of itself."""

import os
import shutil
import subprocess
import sys
import time

import pytest

import images
import interpreters
import running
import targets
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import threads as kernel
from modwsgi_tel.stacks.offsets import LAYOUTS
from modwsgi_tel.stacks.reader import Looker, Reader
from modwsgi_tel.stacks.runtime import Runtime
from modwsgi_tel.stacks.stop import Stopper
from modwsgi_tel.stacks.walker import ThreadState

LIMIT_S = 20
SYSTEM = "/usr/bin/python3"
every = pytest.mark.parametrize("version", interpreters.READ)
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="not root")
PARKED = """
import os, threading
GATE = threading.Lock()
GATE.acquire()
def inner(number):
    os.write(SAY, b"x"), GATE.acquire()
def outer(number):
    inner(number + 1)
HEARD, SAY = os.pipe()
threading.Thread(target=outer, args=(6,), name="parks", daemon=True).start()
os.read(HEARD, 1)
TOLD = {}
"""


def look(pid, **how):
    reader = Reader(pid)
    try:
        return reader.look(**how)
    finally:
        reader.close()


def waits_in_read(pid):
    """Whether a process's main thread waits for its stdin: all of its others have long been parked then."""
    with open(f"/proc/{pid}/syscall") as handle:
        words = handle.read().split()
    return words[:2] == ["63" if os.uname().machine == "aarch64" else "0", "0x0"]


def parked(target):
    running.wait_until(lambda: waits_in_read(target.pid), LIMIT_S, "the target does not wait")
    return look(target.pid)


def told(frames):
    return [[frame.function, frame.file, frame.line] for frame in frames]


def stacks_of(found):
    """{tid: [[function, file, line], ...]}; every one is whole."""
    assert [thread.problem for thread in found.threads if thread.problem] == [] and found.problem is None
    return {thread.tid: told(thread.frames) for thread in found.threads}


# --- what the target says ---------------------------------------------------------------------------


@every
@pytest.mark.parametrize("program", ["mix.py", "more.py"])
def test_every_parked_stack_is_what_the_target_says(version, program):
    with targets.of(version, program) as target:
        found = parked(target)
        assert stacks_of(found) == {int(tid): frames for tid, frames in target.told["frames"].items()}
        assert {thread.tid: thread.name for thread in found.threads} == {
            int(tid): name for tid, name in target.told["names"].items()}
        assert [thread.tid for thread in found.threads if thread.owns_gil] == []
        assert {thread.state for thread in found.threads} == {"waiting"}
        assert (found.pid, found.inner_pid, found.interpreters) == (target.pid, None, (0,))
        assert found.python.startswith(version)


@every
def test_a_thread_that_keeps_the_gil_for_good_is_read_and_named_as_its_holder(version):
    with targets.of(version, "hog.py") as target:
        # in the regular expression, which no call of Python's ends
        found = running.wait_until(lambda: matching(look(target.pid), target), LIMIT_S, "it does not come to the expression")
        assert stacks_of(found) == {int(tid): frames for tid, frames in target.told["frames"].items()}


def matching(found, target):
    holders = [thread.tid for thread in found.threads if thread.owns_gil]
    innermost = target.told["frames"][str(target.told["holder"])][0][0]
    busy = [thread for thread in found.threads if thread.tid == target.told["holder"] and thread.frames]
    return found if holders == [target.told["holder"]] and busy and busy[0].frames[0].function == innermost else None


@every
def test_all_sub_interpreters_are_read_and_a_thread_in_two_is_one(version):
    with targets.of(version, "subs.py") as target:
        found = parked(target)
        assert [thread.problem for thread in found.threads if thread.problem] == [] and found.problem is None
        read = sorted(([thread.tid or 0, [[frame.interpreter, told([frame])[0]] for frame in thread.frames]]
                       for thread in found.threads), key=repr)
        truth = []
        for tid, parts in target.told["parts"].items():
            frames = [[[interpreter, frame] for frame in frames] for interpreter, frames in parts]
            truth.append([int(tid), [each for part in frames for each in part]])
        assert read == sorted(truth, key=repr)
        assert found.interpreters == tuple(sorted({0} | {part[0] for parts in target.told["parts"].values() for part in parts}))


@every
def test_a_thread_has_the_name_that_the_main_interpreter_knows(version):
    program = """
import os, threading
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
HEARD, SAY = os.pipe()
NEVER, _ = os.pipe()
def runs():
    interpreters.run_string(interpreters.create(), INSIDE % (SAY, NEVER))
INSIDE = "import os, threading; threading.current_thread(); os.write(%d, threading.current_thread().name.encode()), os.read(%d, 1)"
threading.Thread(target=runs, name="worker 7", daemon=True).start()
TOLD = {"inside": os.read(HEARD, 100).decode()}
"""
    with targets.of(version, program) as target:
        found = parked(target)
        assert target.told["inside"] in ("MainThread", "Dummy-1")
        assert "worker 7" in {thread.name for thread in found.threads if thread.frames}
        assert target.told["inside"] == "MainThread" or target.told["inside"] not in {thread.name for thread in found.threads}


@every
def test_a_generator_that_c_calls_first_in_a_thread_is_whole(version):
    program = """
import _thread, os, sys
HEARD, SAY = os.pipe()
GATE = _thread.allocate_lock()
GATE.acquire()
def parks():
    os.write(SAY, str(_thread.get_native_id()).encode()), GATE.acquire()
def alone():
    yield os.write(SAY, str(_thread.get_native_id()).encode()), GATE.acquire()
def outer():
    yield from inner()
def inner():
    parks()
    yield
first = alone()
_thread.start_new_thread(first.__next__, ())
one = int(os.read(HEARD, 20))
_thread.start_new_thread(outer().__next__, ())
TOLD = {"alone": one, "outer": int(os.read(HEARD, 20))}
"""
    with targets.of(version, program) as target:
        read = stacks_of(parked(target))
        names = [[function.rpartition(".")[2] for function, _, _ in read[target.told[name]]] for name in ("alone", "outer")]
        assert names == [["alone"], ["parks", "inner", "outer"]]


def test_a_stack_of_many_thousand_frames_is_whole_and_one_beyond_the_limit_is_cut():
    program = """
import sys, threading, os
sys.setrecursionlimit(10 ** 6)
HEARD, SAY = os.pipe()
GATE = threading.Lock()
GATE.acquire()
def deep(left):
    if left:
        return deep(left - 1)
    os.write(SAY, b"x"), GATE.acquire()
for depth in (15000, 25000):
    threading.Thread(target=deep, args=(depth,), name="%d" % depth, daemon=True).start()
    os.read(HEARD, 1)
TOLD = {}
"""
    with targets.of("3.12", program) as target:
        found = {thread.name: thread for thread in parked(target).threads}
        assert (found["15000"].problem, len(found["15000"].frames)) == (None, 15004)
        assert (found["25000"].problem, len(found["25000"].frames)) == ("cut: more than 20,000 frames", 20000)


# --- where a Python comes from -----------------------------------------------------------------------


def names_of(found):
    """Functions of the thread "parks" of PARKED, which must be whole."""
    thread, = [each for each in found.threads if each.name == "parks"]
    assert thread.problem is None
    return [frame.function for frame in thread.frames][:2]


def test_a_program_that_was_stripped_and_then_deleted_or_replaced_is_read_all_the_same():
    strip = shutil.which("strip")
    if not strip or not os.path.exists(SYSTEM):
        pytest.skip("no strip, or no %s" % SYSTEM)
    with running.short_folder() as folder:
        program = os.path.join(folder, "python3")
        shutil.copy(SYSTEM, program)
        subprocess.run([strip, program], check=True, timeout=LIMIT_S)
        with targets.Target([program], PARKED) as target:
            os.remove(program)
            assert names_of(parked(target)) == ["inner", "outer"]
            shutil.copy("/bin/true", program)
            assert names_of(parked(target)) == ["inner", "outer"]


def test_a_program_that_lies_at_a_fixed_place_is_read():
    with open(SYSTEM, "rb") as handle:
        fixed = handle.read(18)[16:] == b"\x02\0"           # ET_EXEC
    if not fixed:
        pytest.skip("%s lies anywhere" % SYSTEM)
    with targets.Target([SYSTEM], PARKED) as target:
        assert names_of(parked(target)) == ["inner", "outer"]


EMBED = """
#include <Python.h>
int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
"""


@pytest.mark.parametrize("flags, stripped, problem", [
    (("-static",), False, None), (("-static-pie",), False, None), (("-static",), True, "no Python is in it")])
def test_a_static_program_is_read_by_its_own_table_of_symbols(flags, stripped, problem):
    """A program without a dynamic table; with its table gone, up to 3.12 nothing tells that it is a Python."""
    config = "/usr/lib/python3.11/config-3.11-x86_64-linux-gnu/libpython3.11.a"
    if not shutil.which("gcc") or not os.path.exists(config) or not os.path.exists("/usr/include/python3.11/Python.h"):
        pytest.skip("no gcc, or no libpython3.11.a")
    with running.short_folder() as folder:
        source, program = os.path.join(folder, "embed.c"), os.path.join(folder, "embed")
        with open(source, "w") as handle:
            handle.write(EMBED)
        done = subprocess.run(["gcc", *flags, source, "-o", program, "-I/usr/include/python3.11", config.replace(".a", "-pic.a"), "-lexpat",
                               "-lz", "-lm", "-ldl", "-lutil", "-lpthread"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=120, universal_newlines=True)
        if done.returncode:
            pytest.skip("cannot be linked: %s" % done.stdout[-300:])
        if stripped:
            subprocess.run(["strip", program], check=True, timeout=LIMIT_S)
        with targets.Target([program], PARKED) as target:
            if problem:
                with pytest.raises(TelError, match=problem):
                    parked(target)
            else:
                assert names_of(parked(target)) == ["inner", "outer"]


@root_only
@every
def test_threads_of_another_pid_namespace_have_the_ids_that_they_have_here(version):
    command, root = interpreters.to_read(version)
    with targets.Target(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *command], PARKED, root=root) as target:
        child, = [int(each) for each in open(f"/proc/{target.pid}/task/{target.pid}/children").read().split()]
        target.pid = child
        found = parked(target)
        assert names_of(found) == ["inner", "outer"]
        assert found.inner_pid == 1
        assert {thread.tid for thread in found.threads} == {int(name) for name in os.listdir(f"/proc/{child}/task")}


@root_only
def test_a_python_in_a_root_of_its_own_is_read():
    command = interpreters.in_chroot("python3.14")
    with targets.Target(command, PARKED, root=interpreters.CHROOT) as target:
        assert names_of(parked(target)) == ["inner", "outer"]


def test_a_process_that_is_just_ending_has_not_become_another_program(monkeypatch):
    with targets.Target([sys.executable], PARKED) as target:
        reader = Reader(target.pid)
        was = kernel.identity(target.pid)
        target.process.kill()
        target.process.wait(LIMIT_S)
        monkeypatch.setattr(kernel, "has_ended", lambda pid: False)
        try:
            for now, said in ((was._replace(exe=None, stack=0), "has ended"), (was._replace(stack=was.stack + 16), "has become another"),
                              (was._replace(start=was.start + 1, exe=None, stack=0), "has become another")):
                monkeypatch.setattr(kernel, "identity", lambda pid, now=now: now)
                with pytest.raises(TelError, match=f"^process {target.pid} {said}"):
                    reader.look()
        finally:
            reader.close()


# --- threads whose id the kernel does not know ---------------------------------------------------------

# As uWSGI forks: Python is not told, so that the thread's state keeps the id that it had in the parent
FORKED = """
import ctypes, os, threading
if ctypes.PyDLL(None).fork():
    os.read(0, 1)
    os._exit(0)
def spin():
    while os.path is not None:
        pass
""" + PARKED.replace("TOLD = {}", """
if SPINS:
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
    os.write(1, b'{"pid": %d}\\n' % os.getpid())
    spin()
TOLD = {"pid": os.getpid()}
""")


@every
def test_a_thread_that_was_forked_behind_python_s_back_has_the_id_that_it_has_now(version):
    with targets.of(version, "SPINS = False" + FORKED) as target:
        target.pid = target.told["pid"]
        assert target.pid != target.process.pid
        found = parked(target)
        assert {thread.tid for thread in found.threads} == {int(name) for name in os.listdir(f"/proc/{target.pid}/task")}
        main, = [thread for thread in found.threads if thread.frames and thread.frames[-1].function == "<module>"]
        assert (main.tid, main.state) == (target.pid, "waiting")


@every
def test_a_forked_thread_is_held_and_its_cpu_time_is_known(version):
    pytest.importorskip("ctypes")
    with targets.of(version, "SPINS = True" + FORKED) as target:
        pid = target.told["pid"]
        reader, stopper = Reader(pid), Stopper(pid)
        try:
            reader.look(detail=False, cpu=True)
            found = running.wait_until(
                lambda: [thread for thread in reader.look(detail=False, cpu=True, stopper=stopper).threads
                         if thread.owns_gil and thread.cpu_s], LIMIT_S, "its main thread uses no CPU time")
        finally:
            stopper.close()
            reader.close()
        assert [thread.tid for thread in found] == [pid] and stopper.missed == 0


@pytest.mark.parametrize("held, tasks, natives", [
    ({1: 0, 2: 0}, {71, 72}, {1: 71, 2: 72}),                   # all are the process's own: nothing is looked up
    ({1: 80, 2: 72}, {80, 72}, {1: 80, 2: 72}),
    ({1: 80, 2: 80}, {80, 81}, {}),                             # two claim the same one
    ({1: 0, 2: 72}, {80, 72}, {2: 72}),                         # it has ended
    ({1: 80, 2: 99}, {80}, {1: 80}),                            # it was left behind in the parent, by the fork
    ({1: 81, 2: 72}, {80, 72}, {2: 72}),                        # nor is that one of the process's
    ({1: 80, 2: 81}, {80, 72, 81}, {2: 72}),                    # where the other's id does not lie, none is found
    ({1: 80, 2: 72}, set(), {1: 71, 2: 72}),                    # nobody knows better
])
def test_an_id_that_is_no_task_of_the_process_is_not_believed(held, tasks, natives):
    told = {}
    for ident, tid in held.items():
        told[ident << 20] = bytes(720) + tid.to_bytes(4, "little") + bytes(2048)
    runtime = Runtime(0x1000, "3.11.7", LAYOUTS[3, 11], "")
    looker = Looker(images.Memory(told), runtime)
    states = [ThreadState(0, 0, ident << 20, 70 + ident, False) for ident in held]
    assert looker.natives(states, lambda: tasks) == {ident << 20: tid for ident, tid in natives.items()}


# --- while it runs ---------------------------------------------------------------------------------------

LOOKS = 250
sys.path.insert(0, targets.PROGRAMS)
import truth            # noqa: E402  what the targets say of themselves, and whether a stack can be true


def looks(target, count=LOOKS):
    """Stacks of a target that works, every millisecond or so."""
    reader = Reader(target.pid)
    try:
        for _ in range(count):
            time.sleep(0.0005)
            yield reader.look(detail=False, requests=False)
    finally:
        reader.close()


def impossible(target, check=truth.check):
    """(what is wrong with stacks that are said to be whole, how many of these there are, how many are cut)."""
    wrong, whole, cut = [], 0, 0
    for stacks in looks(target):
        assert stacks.problem is None
        for thread in stacks.threads:
            if thread.problem is None and thread.frames:
                whole += 1
                wrong += filter(None, [check(target.told, thread.frames, thread.tid)])
            cut += thread.problem is not None and thread.problem != "moving"
    return wrong, whole, cut


@every
def test_what_is_said_to_be_whole_of_threads_that_never_rest_is_possible(version):
    with targets.of(version, "busy.py", "5") as target:
        wrong, whole, cut = impossible(target)
        assert len(wrong) <= whole // 1000 and cut <= 2, (wrong, whole, cut)
        assert whole >= LOOKS * 4               # all but the one that runs, whatever the machine has to do meanwhile


@every
def test_no_stack_of_real_work_ends_too_early(version):
    with targets.of(version, "work.py", "5") as target:
        wrong, whole, cut = impossible(target)
        assert len(wrong) <= whole // 1000 and cut <= 2, (wrong, whole, cut)
        assert whole >= LOOKS * 4


@every
def test_the_names_of_code_that_is_made_and_freed_all_the_time_are_never_of_another(version):
    def check(told, frames, tid):
        return truth.made_wrong(frames) or truth.check(told, frames, tid)
    with targets.of(version, "execs.py", "5") as target:
        wrong, whole, _ = impossible(target, check)
        assert wrong == [] and whole >= LOOKS * 4


@every
def test_work_done_is_the_same_program_after_many_looks(version):
    """Nothing in the target is stopped or written."""
    with targets.of(version, "work.py", "2") as target:
        def done():
            target.process.stdin.write(b"\n")
            target.process.stdin.flush()
            return target.line()["done"]
        before = done()
        for _ in looks(target, 100):
            pass
        running.wait_until(lambda: done() > before, LIMIT_S, "it does not go on")
        with open(f"/proc/{target.pid}/status") as handle:
            assert "TracerPid:\t0\n" in handle.read()
