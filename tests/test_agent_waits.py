"""What a thread waits for is told from its innermost frame: never a wrong owner, and no code of the application's runs for it."""
import concurrent.futures
import os
import queue
import select
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from modwsgi_tel.agent.waits import Wait, waits

PLAIN = "a plain lock does not know its owner"
PATIENCE_S = 10.0

A, B = threading.RLock(), threading.RLock()
MODULE_LOCK = threading.Lock()
HELD = types.SimpleNamespace(lock=threading.RLock())


def state_of(thread):
    """The kernel's letter for a thread, "" once it is gone."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def parked(thread):
    """The innermost frame of a thread, once that stands still, asleep in the kernel, at one instruction."""
    until, before, looks = time.monotonic() + PATIENCE_S, None, 0
    while looks < 3:
        assert time.monotonic() < until, "the thread does not come to rest"
        frame = sys._current_frames().get(thread.ident)
        now = (frame, frame and frame.f_lasti)
        looks = looks + 1 if frame is not None and now == before and state_of(thread) == "S" else 0
        before = now
        time.sleep(0.005)
    return frame


@pytest.fixture
def start():
    """start(function, *arguments, undo=...) -> a thread that runs it; at the end undo() lets it go on, and it is waited for."""
    started = []

    def begin(function, *arguments, undo=None):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        started.append((thread, undo))
        thread.start()
        return thread

    yield begin
    for _, undo in started:
        if undo is not None:
            undo()
    for thread, _ in started:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def told(thread):
    return waits(parked(thread))


# --- RLocks know their owner ----------------------------------------------------------------------------------------------

class Held:
    """The ways in which code names a lock."""

    of_class = threading.RLock()
    __slots__ = ("of_slot", "__dict__")

    def __init__(self):
        self.of_slot = threading.RLock()
        self.own = threading.RLock()
        self.table = {"a": threading.RLock(), 7: threading.RLock()}
        self.row = [None, threading.RLock()]

    def with_own(self):
        with self.own:
            pass

    def with_slot(self):
        with self.of_slot:
            pass

    def with_class(self):
        with Held.of_class:
            pass

    def with_item(self):
        with self.table["a"]:
            pass

    def with_named_item(self):
        table, key = self.table, 7
        with table[key]:
            pass

    def with_row(self):
        with self.row[1]:
            pass

    def with_two(self):
        free = threading.Lock()
        with free, self.own as got:
            assert got

    def with_global(self):
        with A:
            A.release()
            A.acquire()

    def acquire(self):
        self.own.acquire()
        self.own.release()

    def acquire_with_timeout(self):
        wait_s = 30
        if self.own.acquire(True, wait_s * 2 - 1):
            self.own.release()

    def acquire_named(self):
        if self.own.acquire(timeout=float("30")):
            self.own.release()

    def acquire_bound(self):
        take = self.own.acquire
        take()
        self.own.release()

    def closure(self):
        lock = self.own

        def inner():
            with lock:
                pass
        inner()

    def condition(self):
        condition = threading.Condition(self.own)
        with condition:
            pass

    def condition_acquire(self):
        condition = threading.Condition(self.own)
        condition.acquire()
        condition.release()

    def module(self):
        with THE_MODULE.HELD.lock:
            pass


THE_MODULE = sys.modules[__name__]

WAYS = (
    ("with_own", "own", "self.own"), ("with_slot", "of_slot", "self.of_slot"), ("with_class", "of_class", "Held.of_class"),
    ("with_item", "table a", "self.table[...]"), ("with_named_item", "table 7", "table[...]"),
    ("with_row", "row", "self.row[...]"),
    ("with_two", "own", "self.own"), ("with_global", "A", "A"), ("acquire", "own", "self.own"),
    ("acquire_with_timeout", "own", "self.own"), ("acquire_named", "own", "self.own"), ("acquire_bound", "own", "take"),
    ("closure", "own", "lock"), ("condition", "own", "self._lock"), ("condition_acquire", "own", "condition.acquire"),
)


@pytest.mark.parametrize("way, name, text", WAYS, ids=[way[0] for way in WAYS])
def test_who_owns_an_rlock_is_told_however_it_is_named(start, way, name, text):
    held = Held()
    lock = {"table a": held.table["a"], "table 7": held.table[7], "row": held.row[1], "A": A}.get(name) or getattr(held, name)
    lock.acquire()
    thread = start(getattr(held, way), undo=lock.release)
    assert told(thread) == Wait("rlock", threading.get_ident(), f"RLock {text}")


def test_a_lock_in_a_module_is_found_through_plain_attributes(start):
    HELD.lock.acquire()
    thread = start(Held().module, undo=HELD.lock.release)
    assert told(thread) == Wait("rlock", threading.get_ident(), "RLock THE_MODULE.HELD.lock")


def test_two_threads_in_a_deadlock_name_each_other(start):
    first, second = threading.RLock(), threading.RLock()
    both, let_go = threading.Barrier(2), threading.Event()

    def take(mine, other):
        with mine:
            both.wait(PATIENCE_S)
            while not let_go.is_set():
                if other.acquire(timeout=1):
                    other.release()
                    break

    one, two = start(take, first, second, undo=let_go.set), start(take, second, first)
    assert [told(one), told(two)] == [Wait("rlock", two.ident, "RLock other"), Wait("rlock", one.ident, "RLock other")]


def test_a_convoy_of_five_waits_for_one(start):
    lock, go_on, has = threading.RLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            has.set()
            go_on.wait(PATIENCE_S)

    owner = start(hold, undo=go_on.set)
    assert has.wait(PATIENCE_S)

    def follow():
        with lock:
            pass

    convoy = [start(follow) for _ in range(5)]
    assert [told(each) for each in convoy] == [Wait("rlock", owner.ident, "RLock lock")] * 5
    assert told(owner) == Wait("event", None, "Event.wait")


def test_an_rlock_in_python_knows_its_owner_too(start):
    lock = threading._PyRLock()
    lock.acquire()

    def take():
        with lock:
            pass

    assert told(start(take, undo=lock.release)) == Wait("rlock", threading.get_ident(), "RLock in Python")


def test_who_has_an_rlock_does_not_wait_for_it(start):
    """The frame may still stand at the call that has got it."""
    lock = threading.RLock()
    lock.acquire()

    def take():
        with lock:
            pass

    thread = start(take, undo=lock.release)
    frame = parked(thread)
    assert waits(frame, {threading.get_ident(): frame, thread.ident: sys._getframe()}) is None
    assert waits(frame, {thread.ident: frame}) == Wait("rlock", threading.get_ident(), "RLock lock")


def test_a_thread_that_goes_on_while_it_is_looked_at_does_not_wait(start):
    lock, event = threading.RLock(), threading.Event()
    lock.acquire()

    def take():
        lock.acquire()
        event.wait(PATIENCE_S)
        lock.release()

    frame = parked(start(take, undo=event.set))

    class GoesOn(dict):
        def items(self):
            at, until = frame.f_lasti, time.monotonic() + PATIENCE_S
            lock.release()
            while frame.f_lasti == at and time.monotonic() < until:
                time.sleep(0.001)
            return ()

    assert waits(frame, {}) == Wait("rlock", threading.get_ident(), "RLock lock")
    assert waits(frame, GoesOn()) is None


def test_a_name_that_stands_for_a_free_lock_by_now_is_not_told(start):
    held, taken = types.SimpleNamespace(lock=threading.Lock()), threading.Lock()
    taken.acquire()
    held.lock = taken

    def take():
        held.lock.acquire()

    frame = parked(start(take, undo=taken.release))
    assert waits(frame) == Wait("lock", None, f"held.lock: {PLAIN}")
    held.lock = threading.Lock()
    assert waits(frame) is None


@pytest.mark.parametrize("chosen", (True, False))
def test_of_an_expression_with_a_choice_no_wrong_owner_is_told(start, chosen):
    taken, other = threading.RLock(), threading.RLock()
    go_on, has = threading.Event(), threading.Event()

    def hold_other():
        with other:
            has.set()
            go_on.wait(PATIENCE_S)

    start(hold_other, undo=go_on.set)
    assert has.wait(PATIENCE_S)
    taken.acquire()
    first, second = (taken, other) if chosen else (other, taken)

    def chooses():
        (first if chosen else second).acquire()
        taken.release()

    def enters():
        with (first if chosen else second):
            pass

    def either():
        with (chosen and first) or second:
            pass

    for function in (chooses, enters, either):
        found = told(start(function, undo=None))
        assert found is None or found.owner_ident == threading.get_ident(), function
    taken.release()


# --- what knows nobody ----------------------------------------------------------------------------------------------------

def in_a_function():
    with MODULE_LOCK:
        pass


def test_a_plain_lock_says_that_it_does_not_know(start):
    MODULE_LOCK.acquire()
    assert told(start(in_a_function, undo=MODULE_LOCK.release)) == Wait("lock", None, f"MODULE_LOCK: {PLAIN}")


def test_a_lock_of_module_code_is_found_by_name(start):
    lock = threading.Lock()
    lock.acquire()
    code = compile("with LOCK:\n    pass\n", "script.py", "exec")
    assert told(start(exec, code, {"LOCK": lock}, undo=lock.release)) == Wait("lock", None, f"LOCK: {PLAIN}")


def test_one_that_waits_to_be_notified_waits_for_nobody_it_knows(start):
    condition = threading.Condition()

    def wait():
        with condition:
            condition.wait()

    def undo():
        with condition:
            condition.notify_all()

    assert told(start(wait, undo=undo)) == Wait("condition", None, "Condition.wait")


def test_one_that_was_notified_waits_for_who_has_the_rlock(start):
    condition = threading.Condition()

    def wait():
        with condition:
            condition.wait()

    thread = start(wait)
    parked(thread)
    with condition:
        condition.notify()
        # asleep either way: it stands at another instruction once it wants the lock
        until = time.monotonic() + PATIENCE_S
        while told(thread).kind != "condition" or told(thread).owner_ident is None:
            assert time.monotonic() < until
        assert told(thread) == Wait("condition", threading.get_ident(), "notified, wants the RLock of its Condition again")


def test_waits_of_the_standard_library_are_told_by_their_kind(start):
    event, items, full, simple = threading.Event(), queue.Queue(), queue.Queue(1), queue.SimpleQueue()
    semaphore, barrier, future = threading.Semaphore(0), threading.Barrier(2), Future()
    full.put(1)
    one, other = socket.socketpair()
    selected, its_other = socket.socketpair()
    child = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
    cases = (
        (event.wait, event.set, Wait("event", None, "Event.wait")),
        (lambda: event.wait(60), None, Wait("event", None, "Event.wait")),
        (items.get, lambda: items.put(1), Wait("queue", None, "Queue.get")),
        (lambda: full.put(2, timeout=60), full.get, Wait("queue", None, "Queue.put")),
        (lambda: simple.get(timeout=60), lambda: simple.put(1), Wait("queue", None, "simple.get")),
        (semaphore.acquire, semaphore.release, Wait("semaphore", None, "Semaphore.acquire")),
        (barrier.wait, barrier.wait, Wait("barrier", None, "Barrier.wait")),
        (future.result, lambda: future.set_result(1), Wait("future", None, "Future.result")),
        (lambda: concurrent.futures.wait([future]), None, Wait("future", None, "wait")),
        (lambda: one.recv(1), lambda: other.send(b"x"), Wait("socket", None, "one.recv")),
        (lambda: select.select([selected], [], []), lambda: its_other.send(b"x"), Wait("socket", None, "select.select")),
        (child.wait, child.kill, Wait("subprocess", None, "Popen.wait")),
    )
    threads = [start(function, undo=undo) for function, undo, _ in cases]
    assert [told(thread) for thread in threads] == [want for _, _, want in cases]


def test_sleep_is_told_with_an_event_that_ends_it(start):
    ended = threading.Event()

    def sleeper():
        while not ended.is_set():
            time.sleep(1)

    assert told(start(sleeper, undo=ended.set)) == Wait("sleep", None, "time.sleep")


def test_a_join_waits_for_the_thread_that_is_joined(start):
    event = threading.Event()
    joined = start(event.wait, undo=event.set)
    assert told(start(joined.join)) == Wait("join", joined.ident, "Thread.join")
    assert told(start(joined.join, 60)) == Wait("join", joined.ident, "Thread.join")


def test_the_thread_that_runs_a_future_is_told():
    event = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(event.wait, PATIENCE_S)
        thread = threading.Thread(target=future.result, daemon=True)
        thread.start()
        try:
            worker = next(iter(pool._threads))
            parked(worker)
            assert told(thread) == Wait("future", worker.ident, "Future.result")
            assert waits(parked(thread), {}) == Wait("future", None, "Future.result")
        finally:
            event.set()
            thread.join(PATIENCE_S)


def test_a_wait_inside_of_a_pools_file_is_for_the_pool(start):
    """As sqlalchemy's QueuePool, urllib3's and psycopg's wait for a free connection."""
    waiting, space = queue.Queue(), {}
    exec(compile("def take(items):\n    return items.get(timeout=60)\n", "/srv/sqlalchemy/pool/impl.py", "exec"), space)
    thread = start(space["take"], waiting, undo=lambda: waiting.put(1))
    assert told(thread) == Wait("pool", None, "Queue.get in pool/impl.py")


def test_an_idle_worker_of_an_executor_waits_for_its_queue_and_no_pool():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result(PATIENCE_S)
        worker = next(iter(pool._threads))
        assert told(worker)._replace(how="") == Wait("queue", None, "")


# --- what does not wait, and what must not be called ----------------------------------------------------------------------

def test_a_thread_that_runs_waits_for_nothing(start):
    stop = []

    def busy():
        number = 0
        while not stop:
            number += 1

    thread = start(busy, undo=lambda: stop.append(1))
    found = []
    for _ in range(50):
        found.append(waits(sys._current_frames()[thread.ident]))
        time.sleep(0.001)
    assert found == [None] * 50
    assert waits(sys._getframe()) is None


def test_what_is_not_known_is_not_guessed(start):
    reader, writer = os.pipe()
    lock = threading.RLock()
    lock.acquire()

    def read():
        os.read(reader, 1)              # until the other end is closed
        os.close(reader)

    def get_lock():
        return lock

    def of_a_call():
        with get_lock():
            pass

    try:
        assert told(start(read)) is None
        assert told(start(of_a_call, undo=lock.release)) is None
    finally:
        os.close(writer)


class Tricky:
    """Everything that would run when it is looked at in the ordinary way; `ran` counts."""

    ran = []

    def __init__(self, lock):
        self.__dict__["lock"] = lock

    def __getattr__(self, name):
        Tricky.ran.append(name)
        raise AttributeError(name)

    def __repr__(self):
        Tricky.ran.append("repr")
        return "x"

    def __eq__(self, other):
        Tricky.ran.append("eq")
        return True

    def __hash__(self):
        Tricky.ran.append("hash")
        return hash("lock")

    @property
    def through(self):
        Tricky.ran.append("property")
        return self.__dict__["lock"]


class Looked(Tricky):
    def __getattribute__(self, name):
        Tricky.ran.append("getattribute")
        return object.__getattribute__(self, name)


def test_no_code_of_the_application_runs_to_find_a_lock(start):
    lock = threading.RLock()
    lock.acquire()
    plain, looked = Tricky(lock), Looked(lock)
    table = {plain: lock, "lock": lock}

    def of_property():
        with plain.through:
            pass

    def of_lookup():
        with looked.lock:
            pass

    def of_table():
        with table["lock"]:
            pass

    def of_attribute():
        with plain.lock:
            pass

    frames = [parked(start(each)) for each in (of_property, of_lookup, of_table, of_attribute)]
    Tricky.ran.clear()
    try:
        assert [waits(frame) for frame in frames] == [None, None, None, Wait("rlock", threading.get_ident(), "RLock plain.lock")]
        assert Tricky.ran == []
    finally:
        lock.release()


def test_a_lock_that_only_looks_like_one_is_no_lock(start):
    event = threading.Event()

    class RLock:
        def acquire(self):
            event.wait()

        def __repr__(self):
            return f"<locked _thread.RLock object owner={threading.get_ident()} count=1>"

    lookalike = RLock()
    assert told(start(lookalike.acquire, undo=event.set)) == Wait("event", None, "Event.wait")


def test_a_look_takes_less_than_a_millisecond_even_in_a_long_function(start):
    """Jumps of the whole function are looked at."""
    lock, space = threading.RLock(), {}
    body = "".join(f"    if x == {number}:\n        x = x + {number}\n" for number in range(1500))
    exec(f"def long(lock, x):\n    for _ in range(1):\n        with lock:\n            pass\n{body}", space)
    lock.acquire()
    frame = parked(start(space["long"], lock, 1, undo=lock.release))
    took = []
    for _ in range(20):
        began = time.perf_counter()
        found = waits(frame)
        took.append(time.perf_counter() - began)
    assert found == Wait("rlock", threading.get_ident(), "RLock lock")
    assert min(took) < 1e-3
