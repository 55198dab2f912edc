"""Who waits for which lock, and who has it: real processes of each Python, read from outside."""

import ast
import contextlib
import textwrap

import pytest

import interpreters
import running
import targets
from modwsgi_tel.stacks import locks, seen
from modwsgi_tel.stacks.holders import GLOBAL, NAME, OBJECT, OWNER, SOURCE
from modwsgi_tel.stacks.locks import LockWait
from modwsgi_tel.stacks.model import Frame, Request, Stacks, ThreadStack
from modwsgi_tel.stacks.reader import Reader
from modwsgi_tel.stacks.sources import Sources
from modwsgi_tel.stacks.spans import Spans

every = pytest.mark.parametrize("version", interpreters.READ)
some = pytest.mark.parametrize("version", ("3.9", "3.11", "3.13"))

# Each thread is named by what it is to the test; TOLD is {name: native id}
HEAD = """
import contextlib, fcntl, os, queue, socket, subprocess, sys, threading, time
TOLD = {}
def starts(*functions):
    for function in functions:
        name, arguments = function.__name__, ()
        if isinstance(function, Named):
            name, function, arguments = function.name, function.function, function.arguments
        thread = threading.Thread(target=function, args=arguments, name=name, daemon=True)
        thread.start()
        TOLD[name] = thread.native_id
class Named:
    def __init__(self, name, function, *arguments):
        self.name, self.function, self.arguments, self.__name__ = name, function, arguments, name
NEVER = threading.Event()
a, b = threading.Lock(), threading.Lock()
both = threading.Barrier(2)
"""


class Looked:
    """A target whose threads have come to rest.  waits: {name: LockWait}; line: its program's line that has a text."""

    def __init__(self, target, names, found):
        self.target = target
        self.names = {tid: name for name, tid in target.told.items()}
        self.waits = {self.names[wait.tid]: wait for wait in found
                      if wait.tid in self.names and self.names[wait.tid] in names and wait.lock not in ("both", "three")}
        self.rings = [[self.names[wait.tid] for wait in ring] for ring in locks.cycles(found)]

    def brief(self):
        """{name: (kind, lock, name of the owner, proof)}"""
        return {name: (wait.kind, wait.lock, self.names.get(wait.owner_tid), wait.proof) for name, wait in self.waits.items()}


@contextlib.contextmanager
def reading(version, program, *names):
    """A Looked of a program once the threads of those names are all told to wait."""
    with targets.of(version, HEAD + textwrap.dedent(program)) as target:
        reader = Reader(target.pid)
        sources = reader.sources()
        try:
            def settled():
                found = Looked(target, names, locks.of(reader.look(), sources, reader))
                return found if set(found.waits) == set(names) else None
            yield running.wait_until(settled, 20, lambda: repr(locks.of(reader.look(), sources, reader)))
        finally:
            sources.close()
            reader.close()


def line_of(program, text):
    """The number of the one line of a program that has this text."""
    found = [number for number, line in enumerate((HEAD + textwrap.dedent(program)).split("\n"), 1) if text in line]
    assert len(found) == 1, (text, found)
    return found[0]


# --- two locks in opposite order ------------------------------------------------------------------

GLOBALS = """
    def one():
        with a:
            both.wait()
            with b:                     # one wants
                pass
    def two():
        with b:                         # two has
            both.wait()
            a.acquire()                 # two wants
            a.release()
    starts(one, two)
    """


@every
def test_two_global_locks_in_opposite_order_are_a_ring_with_its_lines(version):
    with reading(version, GLOBALS, "one", "two") as looked:
        one, two, file = looked.waits["one"], looked.waits["two"], looked.target.file
        assert looked.brief() == {"one": ("lock", "b", "two", OBJECT), "two": ("lock", "a", "one", OBJECT)}
        assert sorted(map(sorted, looked.rings)) == [["one", "two"]]
        wants, has, other = (line_of(GLOBALS, f"# {text}") for text in ("one wants", "two has", "two wants"))
        assert one == LockWait(one.tid, f"{file}:{wants}", "one", "b", "lock", two.tid,
                               f"is inside `with b` ({file}:{has}), now at {file}:{other}", one.address, OBJECT, f"{file}:{other}",
                               f"{file}:{has}", False, True)
        assert one.address != two.address


@some
@pytest.mark.parametrize("program, locked", [("""
    class Account:
        def __init__(self):
            self.lock = threading.Lock()
    def move(mine, other):
        with mine.lock:
            both.wait()
            with other.lock:
                pass
    x, y = Account(), Account()
    starts(Named("one", move, x, y), Named("two", move, y, x))
    """, ("other.lock", "other.lock")), ("""
    def made():
        p, q = threading.Lock(), threading.Lock()
        def one():
            with p:
                both.wait()
                with q:
                    pass
        def two():
            with q:
                both.wait()
                with p:
                    pass
        return one, two
    starts(*made())
    """, ("q", "p")), ("""
    LOCKS = {"x": [threading.Lock()], "y": [threading.Lock()]}
    def takes(mine, other):
        with LOCKS[mine][0]:
            both.wait()
            with LOCKS[other][0]:
                pass
    starts(Named("one", takes, "x", "y"), Named("two", takes, "y", "x"))
    """, ("LOCKS[other][0]", "LOCKS[other][0]")), ("""
    class Late:
        def __enter__(self):
            both.wait()
        def __exit__(self, *exception):
            pass
    def one():
        with a, Late(), b:
            pass
    def two():
        with b, Late(), a:
            pass
    starts(one, two)
    """, ("b", "a"))], ids=["attributes", "closures", "items", "one line"])
def test_two_locks_in_opposite_order_are_a_ring_wherever_they_are_kept(version, program, locked):
    with reading(version, program, "one", "two") as looked:
        assert looked.brief() == {"one": ("lock", locked[0], "two", OBJECT), "two": ("lock", locked[1], "one", OBJECT)}
        assert sorted(map(sorted, looked.rings)) == [["one", "two"]]


@some
def test_between_acquire_and_release_the_source_and_the_name_tell_who_has_it(version):
    with reading(version, """
            def one():
                a.acquire()
                try:
                    both.wait()
                    b.acquire()
                finally:
                    a.release()
            def two():
                if b.acquire():
                    both.wait()
                    with a:
                        pass
            starts(one, two)
            """, "one", "two") as looked:
        assert looked.brief() == {"one": ("lock", "b", "two", NAME), "two": ("lock", "a", "one", NAME)}
        assert "is between `a.acquire()` (" in looked.waits["two"].how
        assert sorted(map(sorted, looked.rings)) == [["one", "two"]]


@some
def test_rlocks_say_themselves_who_owns_them(version):
    with reading(version, """
            a, b = threading.RLock(), threading.RLock()
            def one():
                with a, a:
                    both.wait()
                    with b:
                        pass
            def two():
                b.acquire()
                both.wait()
                with a:
                    pass
            starts(one, two)
            """, "one", "two") as looked:
        assert looked.brief() == {"one": ("rlock", "b", "two", OWNER), "two": ("rlock", "a", "one", OWNER)}
        assert looked.waits["two"].how.startswith("owns it, is inside `with a` (")
        assert sorted(map(sorted, looked.rings)) == [["one", "two"]]


@some
def test_three_threads_in_a_ring_and_one_that_waits_for_itself_and_one_that_only_waits_for_them(version):
    with reading(version, """
            LOCKS = [threading.Lock() for _ in range(3)]
            three = threading.Barrier(3)
            def turn(n):
                with LOCKS[n]:
                    three.wait()
                    with LOCKS[(n + 1) % 3]:
                        pass
            def twice():
                with a:
                    with a:
                        pass
            def outside():
                while not all(each.locked() for each in LOCKS):
                    time.sleep(0.01)
                with LOCKS[0]:
                    pass
            starts(*(Named("turn%d" % n, turn, n) for n in range(3)), twice, outside)
            """, "turn0", "turn1", "turn2", "twice", "outside") as looked:
        assert {name: wait[2] for name, wait in looked.brief().items()} == {
            "turn0": "turn1", "turn1": "turn2", "turn2": "turn0", "twice": "twice", "outside": "turn0"}
        assert sorted(map(sorted, looked.rings)) == [["turn0", "turn1", "turn2"], ["twice"]]


# --- one lock -------------------------------------------------------------------------------------

SLEEPER = """
    def slow():
        time.sleep(1000)                # here
    def holder():
        with a:                         # taken
            slow()
    def wants():
        a.acquire()                     # wanted
    starts(holder)
    while not a.locked():
        time.sleep(0.01)
    starts(*(Named("wants%d" % n, wants) for n in range(3)))
    """


@every
def test_a_lock_with_three_waiters_is_held_by_the_one_that_sleeps_inside_of_its_block(version):
    with reading(version, SLEEPER, "holder", "wants0", "wants1", "wants2") as looked:
        file, lines = looked.target.file, {text: line_of(SLEEPER, f"# {text}") for text in ("here", "taken", "wanted")}
        holder = looked.waits.pop("holder")
        assert (holder.kind, holder.lock, holder.place) == ("sleep", "time.sleep", f"{file}:{lines['here']}")
        assert {(wait.place, wait.owner_tid, wait.owner_place, wait.block) for wait in looked.waits.values()} == {
            (f"{file}:{lines['wanted']}", holder.tid, f"{file}:{lines['taken'] + 1}", f"{file}:{lines['taken']}")}
        assert len({wait.address for wait in looked.waits.values()}) == 1 and looked.rings == []


@some
def test_a_lock_that_was_never_given_back_is_held_by_nobody_who_can_be_seen(version):
    with reading(version, """
            def forgets():
                a.acquire()
            forgets()
            def wants():
                with a:
                    pass
            starts(wants)
            """, "wants") as looked:
        assert looked.brief() == {"wants": ("lock", "a", None, None)}
        assert looked.waits["wants"].how == "it is taken, but no thread is seen inside of a block that takes it"


@some
def test_a_name_that_stands_for_another_lock_by_now_deceives_nobody(version):
    with reading(version, """
            def holder():
                with a:
                    NEVER.wait()
            def other(a):
                with a:
                    NEVER.wait()
            def wants():
                with a:
                    pass
            starts(Named("other", other, threading.Lock()), holder)
            while not a.locked():
                time.sleep(0.01)
            starts(wants)
            def rebinds():
                global a
                time.sleep(0.3)
                a = threading.Lock()
                NEVER.wait()
            starts(rebinds)
            """, "holder", "other", "wants", "rebinds") as looked:
        assert looked.brief()["wants"] == ("lock", "a", "holder", OBJECT)


@some
def test_a_lock_inside_of_a_context_manager_is_held_by_who_is_inside_of_that(version):
    with reading(version, """
            class Guard:
                def __init__(self):
                    self.lock = threading.Lock()
                def __enter__(self):
                    self.lock.acquire()
                def __exit__(self, *exception):
                    self.lock.release()
            guard = Guard()
            @contextlib.contextmanager
            def guarded():
                with a:
                    yield
            def by_class():
                with guard:
                    NEVER.wait()
            def by_function():
                with guarded():
                    NEVER.wait()
            starts(Named("class", by_class), Named("function", by_function))
            while not (a.locked() and guard.lock.locked()):
                time.sleep(0.01)
            starts(Named("class2", by_class), Named("function2", by_function))
            """, "class2", "function2") as looked:
        assert looked.brief() == {"class2": ("lock", "self.lock", "class", NAME), "function2": ("lock", "a", "function", NAME)}


@some
def test_who_waits_for_a_condition_does_not_hold_its_lock(version):
    with reading(version, """
            c = threading.Condition(threading.Lock())
            asked = threading.Event()
            def sleeps():
                with c:
                    asked.set()
                    c.wait()
            def holder():
                with c:
                    c.notify()
                    NEVER.wait()
            def wants():
                with c:
                    pass
            starts(sleeps)
            asked.wait()
            starts(holder)
            while not c._lock.locked() or c._waiters:
                time.sleep(0.01)
            starts(wants)
            d = threading.Condition()
            def alone():
                with d:
                    d.wait()
            starts(alone)
            """, "sleeps", "holder", "wants", "alone") as looked:
        assert looked.brief() == {
            "sleeps": ("lock", "c", "holder", OBJECT),      # it was notified, and wants the lock again
            "holder": ("event", "NEVER", None, None), "wants": ("lock", "c", "holder", OBJECT), "alone": ("condition", "d", None, None)}


@every
def test_what_is_no_lock_is_told_by_its_kind_and_what_the_source_calls(version):
    with reading(version, """
            q, sq, full = queue.Queue(), queue.SimpleQueue(), queue.Queue(1)
            full.put(1)
            none, ended = threading.Semaphore(0), threading.Event()
            def get(): q.get()
            def simple(): sq.get()
            def put(): full.put(2)
            def semaphore():
                with none:
                    pass
            def event(): ended.wait(500)
            def joins(): thread.join()
            def sleeps(): time.sleep(1000)
            left, right = socket.socketpair()
            def reads(): left.recv(1)
            held = open(__file__)
            fcntl.flock(held, fcntl.LOCK_EX)
            again = open(__file__)
            def locks(): fcntl.flock(again, fcntl.LOCK_EX)
            waited = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
            def child(): waited.wait()
            def timed(): a.acquire(timeout=500)
            a.acquire()
            thread = threading.Thread(target=ended.wait, name="joined", daemon=True)
            thread.start()
            TOLD["joined"] = thread.native_id
            starts(get, simple, put, semaphore, event, joins, sleeps, reads, locks, child, timed)
            """, "get", "simple", "put", "semaphore", "event", "joins", "sleeps", "reads", "locks", "child", "timed") as looked:
        assert {name: (wait.kind, wait.lock, looked.names.get(wait.owner_tid), wait.timed) for name, wait in looked.waits.items()} == {
            "get": ("queue", "q", None, False), "simple": ("queue", "sq", None, False), "put": ("queue", "full", None, False),
            "semaphore": ("semaphore", "none", None, False), "event": ("event", "ended", None, True),
            "joins": ("join", "thread", "joined", False), "sleeps": ("sleep", "time.sleep", None, None),
            "reads": ("socket", "left.recv", None, None), "locks": ("file lock", "fcntl.flock", None, None),
            "child": ("subprocess", "waited.wait", None, None), "timed": ("lock", "a", None, True)}


# --- healthy programs -----------------------------------------------------------------------------

HEALTHY = """
    import random
    class Account:
        def __init__(self, number):
            self.number, self.lock = number, threading.Lock()
    accounts = [Account(number) for number in range(3)]
    again = threading.RLock()
    def moves():
        while True:
            first, second = sorted(random.sample(accounts, 2), key=lambda each: each.number)
            with first.lock:
                time.sleep(0.0005)
                with second.lock, again:
                    time.sleep(0.0005)
    def spins():
        while True:
            with a:
                with b:
                    sum(range(300))
            with b:
                sum(range(300))
    def patient(first, second):
        while True:
            with first:
                if second.acquire(timeout=0.01):
                    try:
                        time.sleep(0.001)
                    finally:
                        second.release()
    c, d = threading.Lock(), threading.Lock()
    starts(*(Named("moves%d" % n, moves) for n in range(5)), *(Named("spins%d" % n, spins) for n in range(3)),
           Named("p", patient, c, d), Named("q", patient, d, c))
    """


@some
def test_a_healthy_program_whose_locks_are_contended_has_no_ring(version):
    with targets.of(version, HEAD + textwrap.dedent(HEALTHY)) as target:
        reader = Reader(target.pid)
        sources = reader.sources()
        try:
            seen, owned = [], 0
            for _ in range(40):
                found = locks.of(reader.look(), sources, reader)
                seen += locks.cycles(found)
                owned += sum(wait.owner_tid is not None for wait in found)
        finally:
            sources.close()
            reader.close()
    assert seen == []
    assert owned > 5                    # there was something to be mistaken for one


@pytest.mark.parametrize("version", ("3.9", "3.12", "3.14"))
def test_who_waits_for_the_gil_waits_for_no_lock(version):
    with targets.of(version, HEAD + textwrap.dedent("""
            GIVEN = dict.fromkeys(range(1000))
            def spins():
                while True:
                    GIVEN.get(5), GIVEN.get(6), GIVEN.get(7)
            starts(*(Named("spins%d" % n, spins) for n in range(4)))
            """)) as target:
        reader = Reader(target.pid)
        sources = reader.sources()
        try:
            looks = [reader.look() for _ in range(20)]
            found = [locks.of(reader.look(), sources, reader) for _ in range(20)]
        finally:
            sources.close()
            reader.close()
    assert any("futex" in (thread.wait or "") and thread.tid in target.told.values() for stacks in looks for thread in stacks.threads)
    assert [wait for waits in found for wait in waits if wait.tid in target.told.values()] == []


def test_a_program_that_ends_meanwhile_raises_nothing(tmp_path):
    with targets.of("3.11", HEAD + textwrap.dedent(GLOBALS)) as target:
        reader = Reader(target.pid)
        sources = reader.sources()
        stacks = reader.look()
        target.process.kill()
        target.process.wait(20)
        found = locks.of(stacks, sources, reader)
        assert locks.cycles(found) == [] and {wait.address for wait in found} <= {None}
        sources.close()
        reader.close()


# --- the source alone -----------------------------------------------------------------------------

SOURCE_TEXT = """\
import threading
lock_a = threading.Lock()
def holds():
    with lock_a:
        work()
def wants():
    with lock_a:
        pass
class Store:
    def holds(self):
        self.lock.acquire()
        try:
            work()
        finally:
            self.lock.release()
    def wants(self):
        self.lock.acquire()
def given(lock_a):
    with lock_a:
        work()
"""


def a_thread(tid, *frames, wait="futex (futex_wait_queue)", **more):
    return ThreadStack(tid, state="waiting", wait=wait, frames=tuple(Frame(*each) for each in frames), **more)


@pytest.fixture
def written(tmp_path):
    """(file, a function of threads that gives their LockWaits by the source alone)."""
    file = tmp_path / "app.py"
    file.write_text(SOURCE_TEXT)
    sources = Sources("/", str(tmp_path))
    yield str(file), lambda *threads: locks.of(Stacks(1 << 22, threads=threads), sources)
    sources.close()


def test_without_memory_the_same_global_name_in_the_same_file_is_the_same_lock(written):
    file, of = written
    [wait, _] = of(a_thread(1, ("wants", file, 7)), a_thread(2, ("work", file, 5), ("holds", file, 5), wait="clock_nanosleep"))
    assert wait == LockWait(1, f"{file}:7", "wants", "lock_a", "lock", 2, f"is inside `with lock_a` ({file}:4), now at {file}:5",
                            None, GLOBAL, f"{file}:5", f"{file}:4")


def test_without_memory_the_same_text_is_likely_the_same_lock_and_never_a_ring(written):
    file, of = written
    attribute, _ = of(a_thread(1, ("Store.wants", file, 17)), a_thread(2, ("Store.holds", file, 13), wait="clock_nanosleep"))
    assert (attribute.lock, attribute.owner_tid, attribute.proof) == ("self.lock", 2, SOURCE)
    assert attribute.how.endswith("; likely: the source has the same name there")
    argument, _ = of(a_thread(1, ("wants", file, 7)), a_thread(2, ("given", file, 20), wait="clock_nanosleep"))
    assert (argument.owner_tid, argument.proof) == (2, SOURCE)


def test_without_memory_two_that_may_have_it_are_none(written):
    file, of = written
    found = of(a_thread(1, ("wants", file, 7)), *(a_thread(tid, ("holds", file, 5), wait="clock_nanosleep") for tid in (2, 3)))
    assert (found[0].owner_tid, found[0].lock) == (None, "lock_a")


@pytest.mark.parametrize("wait, owner, kind", [("futex, for rlock that thread 2 has", 2, "rlock"), ("futex, for lock that request r has", 2, "lock"),
                                               ("futex, for lock", None, "lock"), ("futex, for rlock that thread 9 has", None, "lock")])
def test_what_an_agent_told_of_the_owner_is_taken(written, wait, owner, kind):
    file, of = written
    found = of(a_thread(1, ("wants", file, 7), wait=wait), a_thread(2, ("elsewhere", file, 1), wait="clock_nanosleep",
                                                                       request=Request("r", None, "GET", "/", "agent")))
    assert (found[0].owner_tid, found[0].kind) == (owner, kind)


@pytest.mark.parametrize("function", ["another", "wants.<locals>.<listcomp>"])
def test_a_file_that_is_another_by_now_tells_the_place_alone(written, function):
    file, of = written
    assert of(a_thread(1, (function, file, 7)), a_thread(2, ("holds", file, 5), wait="clock_nanosleep"))[1:] == []


def test_idle_threads_those_that_run_and_those_that_were_not_read_are_left_out(written):
    file, of = written
    assert of(a_thread(1, ("wants", file, 7))._replace(idle=True), a_thread(2, ("wants", file, 7))._replace(state="running"),
              a_thread(3, ("wants", file, 7))._replace(problem="moving"), a_thread(4)) == []


# --- rings ------------------------------------------------------------------------------------------

def a_wait(tid, owner, **more):
    return LockWait(tid, f"app.py:{tid}", "f", "lock", "lock", owner, "", **{"proof": OBJECT, **more})


def rings(*waits):
    return [[each.tid for each in ring] for ring in locks.cycles(waits)]


def test_rings_are_found_once_each_whoever_waits_for_them_besides():
    assert rings(a_wait(1, 2), a_wait(2, 3), a_wait(3, 2), a_wait(4, 4), a_wait(5, 6), a_wait(7, None)) == [[2, 3], [4]]
    assert rings(*(a_wait(tid, tid % 400 + 1) for tid in range(1, 401))) == [list(range(1, 401))]


@pytest.mark.parametrize("more", [{"timed": True}, {"proof": SOURCE}, {"steady": False}])
def test_what_passes_or_is_not_known_for_sure_makes_no_ring(more):
    assert rings(a_wait(1, 2, timed=False, steady=True), a_wait(2, 1)) == [[1, 2]]
    assert rings(a_wait(1, 2), a_wait(2, 1, **more)) == []


def test_waits_that_last_are_those_of_both_looks():
    first = [a_wait(1, 2), a_wait(2, 1), a_wait(3, None)]
    second = [a_wait(1, 2, steady=True), a_wait(2, 3), a_wait(4, None)]
    assert locks.steady(first, second) == [second[0]]


# --- the source ---------------------------------------------------------------------------------------

SPANNED = """\
def f(x):
    with one, two as t:
        inside(
            x)
    after()
    lock.acquire()
    if x:
        between()
    lock.release()
    free()
    if not other.acquire(timeout=5):
        return failed()
    held()
    def inner():
        unrelated()
    try:
        third.acquire()
        body()
    except KeyError:
        third.release()
        handled()
    while fourth.acquire(False):
        again()
    with three: same()
async def g():
    async with \\
            four:
        await five
"""


def test_lines_inside_of_blocks_and_between_acquire_and_release():
    spans = Spans(SPANNED.encode())
    lines = range(1, SPANNED.count("\n") + 1)
    assert {line: [each.text for each in spans.inside("f", line)] for line in lines if spans.inside("f", line)} == {
        3: ["one", "two"], 4: ["one", "two"], 24: ["three"]}
    assert {line: [each.text for each in spans.between("f", line)] for line in lines if spans.between("f", line)} == {
        7: ["lock"], 8: ["lock"], **{line: ["other"] for line in (13, 16, 17, 19, 20, 21, 22, 24)}, 18: ["other", "third"],
        23: ["other", "fourth"]}
    assert [each.text for each in spans.entered("f", 2)] == ["one", "two"]
    assert [each.text for each in spans.inside("module.g", 28)] == ["four"]
    assert spans.inside("inner", 15) == spans.between("inner", 15) == []
    assert [each.whole for each in spans.calls("f", 11)] == ["other.acquire"] and spans.calls("f", 11)[0].timed
    assert spans.is_global("lock", 6) and not spans.is_global("x", 6) and not spans.is_global("t", 3)


@pytest.mark.parametrize("data", [b"", b"\0", b"def f(:\n", b"\xff\xfe", b"x = " + b"(" * 500, b"-" * 90_000 + b"1", b"a" + b".b" * 49_000,
                                  b"a" + b"()" * 49_000, b"1" + b"+1" * 49_000, b"x" * (1 << 20), b"# coding: zip\nx = 1\n",
                                  b"match x:\n  case [1, *_]: pass\n", b"with a:\n  '\\d'\n", b"lambda: (yield)\n",
                                  b"if a:\n pass\n" + b"elif b:\n pass\n" * 4000])
def test_no_source_raises_whatever_it_is(data, recwarn):
    spans = Spans(data)
    assert [spans.inside("<module>", 1), spans.between("f", 1), spans.scope("f", 1)] == [[], [], None] or spans.scope("<module>", 1)
    assert len(recwarn) == 0


def test_files_are_parsed_within_bounds(tmp_path):
    names = []
    for number in range(seen.FILES_MOST + 5):
        names.append(str(tmp_path / f"m{number}.py"))
        with open(names[-1], "w", encoding="ascii") as handle:
            handle.write("def wants():\n    with lock_a:\n        pass\n" + "#" * (40_000 if number % 2 else 0))
    sources = Sources("/", str(tmp_path))
    look = locks._Look(Stacks(1, threads=tuple(a_thread(n, ("wants", name, 2)) for n, name in enumerate(names))), sources, None, "/proc")
    found = look.waits()
    assert 0 < len(found) <= seen.FILES_MOST and 0 < look._seen.parsed_bytes <= seen.BYTES_MOST
    sources.close()


def test_expressions_keep_their_own_nodes():
    [item] = Spans(b"def f():\n    with self.locks[key]:\n        pass\n").inside("f", 3)
    assert (item.text, type(item.node), item.first, item.body_first) == ("self.locks[key]", ast.Subscript, 2, 3)
