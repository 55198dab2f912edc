"""Lateness of real event loops: what held them is counted with its stack, and a loop that sleeps wakes nobody."""
import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager

import pytest

import interpreters
from modwsgi_tel.agent import lateness as module
from modwsgi_tel.agent.lateness import LOOPS_MOST, UNSEEN, Lateness
from modwsgi_tel.wire.codec import decode, encode
from modwsgi_tel.wire.fields import AGENT_FLAG, LOOP_LATENESS

LIMIT = 0.05


class Settings:
    loop_limit = LIMIT


class Monitor:
    """The monitor's thread, as the agent's does it: sleeps until a part is due or somebody wakes it."""

    def __init__(self):
        self.lateness = Lateness(self.send, self, Settings, self.wake)
        self.records, self.known, self.refuses = [], [], False
        self.wakeups = 0
        self._woken, self._ends = threading.Event(), False
        self.held = threading.Event()               # set: it cannot run, as while C code holds the GIL
        self.held.set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def wake(self):
        self._woken.set()

    def send(self, kind, values):
        sample = decode(encode(kind, 1, 1, 0.0, values, AGENT_FLAG))
        assert sample.kind == LOOP_LATENESS
        if not self.refuses:
            self.records.append(dict(sample.fields))
        return not self.refuses

    def numbers(self, frames):
        for frame in frames:
            if frame not in self.known:
                self.known.append(frame)
        return [self.known.index(frame) + 1 for frame in frames]

    def functions(self, record):
        """Names of a record's frames, outermost first."""
        return [self.known[number - 1][0].rpartition(".")[2] for number in record["stack_frames"]]

    def _run(self):
        while not self._ends:
            due = self.lateness.due()
            self._woken.wait(None if due is None else max(0.0, due - time.monotonic()))
            self._woken.clear()
            self.held.wait(10)
            self.wakeups += 1
            now, due = time.monotonic(), self.lateness.due()
            if due is not None and due <= now:
                self.lateness.run(now)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ends = True
        self.held.set()
        self.wake()
        self._thread.join(10)
        self.lateness.close()
        assert not self._thread.is_alive()

    def rest(self, within=10.0):
        """Wait until nothing is due."""
        ends = time.monotonic() + within
        while self.lateness.due() is not None or self._woken.is_set():
            assert time.monotonic() < ends
            time.sleep(0.005)


@pytest.fixture
def monitor():
    with Monitor() as monitor:
        yield monitor


def hold(seconds):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(0.001)


def busy_callback(seconds=0.2):
    hold(seconds)


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0.001)


def test_a_callback_that_holds_the_loop_is_told_with_its_stack(monitor):
    names = []
    async def main():
        names.append(type(asyncio.get_running_loop()).__name__)
        assert monitor.lateness.watch() == ""
        await turns()
        asyncio.get_running_loop().call_soon(busy_callback)
        await turns()
    asyncio.run(main())
    monitor.rest()
    [record] = monitor.records
    functions = monitor.functions(record)
    assert functions[functions.index("busy_callback"):][:2] == ["busy_callback", "hold"]
    assert functions.index("_run_once") < functions.index("busy_callback")
    assert functions.count("_run_once") == 1        # without the frame that observes
    assert 0.2 <= record["loop_duration"] == record["loop_late_max"] == record["loop_late_seconds"] < 2.0
    assert (record["loop_name"], record["loop_late_count"], record["loop_limit"]) == (f"{names[0]} 1", 1, LIMIT)
    assert "stack_problem" not in record


def test_turns_below_the_limit_are_not_late(monitor):
    async def main():
        monitor.lateness.watch()
        for _ in range(5):
            hold(LIMIT / 10)
            await asyncio.sleep(0)
    asyncio.run(main())
    monitor.rest()
    assert monitor.records == []


def test_a_loop_that_sleeps_wakes_nobody(monitor):
    ends, started = [], threading.Event()
    async def main():
        monitor.lateness.watch()
        ends.extend((asyncio.get_running_loop(), asyncio.Event()))
        await turns()
        started.set()
        await ends[1].wait()
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert started.wait(10)
        monitor.rest()
        before = monitor.wakeups
        time.sleep(8 * LIMIT)
        assert monitor.wakeups == before > 0
    finally:
        ends[0].call_soon_threadsafe(ends[1].set)
        thread.join(10)


def test_a_busy_loop_wakes_the_monitor_at_most_once_in_the_limit(monitor):
    async def main():
        monitor.lateness.watch()
        before, began = monitor.wakeups, time.monotonic()
        while time.monotonic() - began < 20 * LIMIT:
            await asyncio.sleep(0.0005)
        return monitor.wakeups - before, time.monotonic() - began
    wakeups, took = asyncio.run(main())
    assert 1 <= wakeups <= took / LIMIT + 2
    assert monitor.records == []


def test_a_loop_that_is_held_for_good_is_told_of_before_it_ends(monitor, monkeypatch):
    monkeypatch.setattr(module, "TOLD_S", 4 * LIMIT)
    leave = threading.Event()
    def stuck():
        leave.wait(20)
    async def main():
        monitor.lateness.watch()
        await turns()
        asyncio.get_running_loop().call_soon(stuck)
        await turns()
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        ends = time.monotonic() + 10
        while not monitor.records and time.monotonic() < ends:
            time.sleep(0.01)
    finally:
        leave.set()
        thread.join(10)
    first = monitor.records[0]
    assert "stuck" in monitor.functions(first)
    assert first["loop_late_count"] == 1 and first["loop_duration"] >= 4 * LIMIT
    monitor.rest()
    last = monitor.records[-1]
    assert last["loop_late_count"] == 1             # the same one, not one more
    assert last["loop_late_seconds"] == last["loop_late_max"] >= first["loop_late_seconds"]
    assert len(monitor.records) >= 2


def test_of_several_the_longest_is_told_and_all_are_counted(monitor):
    def longest():
        hold(4 * LIMIT)
    async def main():
        monitor.lateness.watch()
        await turns()
        monitor.lateness._watches[0].next = time.monotonic() + 1.0      # as if it had just told one
        for callback in (lambda: hold(1.5 * LIMIT), longest, lambda: hold(1.5 * LIMIT)):
            asyncio.get_running_loop().call_soon(callback)
            await turns(1)
    asyncio.run(main())
    monitor.rest()
    [record] = monitor.records
    assert (record["loop_late_count"], "longest" in monitor.functions(record)) == (3, True)
    assert record["loop_duration"] == record["loop_late_max"] < record["loop_late_seconds"]


def test_where_the_monitor_could_not_look_there_is_a_duration_and_why_there_is_no_stack(monitor):
    async def main():
        monitor.lateness.watch()
        await turns()
        monitor.held.clear()
        hold(3 * LIMIT)
        await turns()
        monitor.held.set()
    asyncio.run(main())
    monitor.rest()
    [record] = monitor.records
    assert (record["loop_late_count"], record["stack_problem"], "stack_frames" in record) == (1, UNSEEN, False)


def test_what_lies_between_two_runs_of_a_loop_is_not_late(monitor):
    loop = asyncio.new_event_loop()
    try:
        assert monitor.lateness.watch(loop) == ""
        loop.run_until_complete(turns())
        hold(3 * LIMIT)
        loop.run_until_complete(turns())
        def stops():
            loop.stop()
        loop.call_soon(stops)
        loop.run_forever()
        hold(3 * LIMIT)
        loop.run_until_complete(turns())
    finally:
        loop.close()
    monitor.rest()
    assert monitor.records == []


def test_an_exception_that_ends_the_loop_in_a_late_turn_goes_on_and_is_counted(monitor):
    loop = asyncio.new_event_loop()
    def interrupts():
        hold(3 * LIMIT)
        raise KeyboardInterrupt()
    try:
        monitor.lateness.watch(loop)
        loop.call_soon(interrupts)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        hold(2 * LIMIT)
        loop.run_until_complete(turns())
    finally:
        loop.close()
    monitor.rest()
    assert [record["loop_late_count"] for record in monitor.records] == [1]


def test_a_loop_behaves_as_without_and_is_as_before_afterwards():
    with Monitor() as monitor:
        async def main():
            loop = asyncio.get_running_loop()
            monitor.lateness.watch()
            assert monitor.lateness.watch(loop) == ""                   # twice is once
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(7)", stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            number = await loop.run_in_executor(None, lambda: 8)
            try:
                await asyncio.wait_for(asyncio.sleep(10), 0.01)
            except asyncio.TimeoutError:
                return loop, int(out), number
        loop, *got = asyncio.run(main())
        assert (got, set(vars(loop)) & {"_run_once", "_process_events"}) == ([7, 8], {"_run_once", "_process_events"})
    assert set(vars(loop)) & {"_run_once", "_process_events"} == set()


def test_loops_come_and_go_without_being_kept(monitor, monkeypatch):
    monkeypatch.setattr(module, "LOOPS_MOST", 2)
    gone = []
    async def main():
        gone.append(weakref.ref(asyncio.get_running_loop()))
        assert monitor.lateness.watch() == ""
        await turns(1)
    for _ in range(4):
        asyncio.run(main())
        monitor.rest()
    gc.collect()
    assert [reference() for reference in gone] == [None] * 4
    assert monitor.lateness.watched <= 2


def test_loops_are_bounded():
    lateness, loops = Lateness(None, None, Settings, lambda: None), [asyncio.new_event_loop() for _ in range(LOOPS_MOST + 1)]
    try:
        problems = [lateness.watch(loop) for loop in loops]
        assert problems == [""] * LOOPS_MOST + [f"more than {LOOPS_MOST} event loops: the others are not watched"] == [
            *problems[:-1], lateness.problem]
    finally:
        lateness.close()
        for loop in loops:
            loop.close()


def test_a_collector_that_returns_is_told_all_counts(monitor):
    monitor.refuses = True
    async def main():
        monitor.lateness.watch()
        await turns()
        hold(3 * LIMIT)
        await turns()
        monitor_rests = asyncio.get_running_loop().run_in_executor(None, monitor.rest)
        await monitor_rests
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
        assert monitor.records == []
        monitor.refuses = False
        monitor.lateness.again()
        monitor.wake()
        monitor.rest()
    finally:
        loop.close()
    assert [(record["loop_late_count"], record["loop_duration"] >= 3 * LIMIT) for record in monitor.records] == [(1, True)]


@pytest.fixture
def watch():
    """(monitor, the _Watch of a loop that does not run): for what lies between two steps of its thread."""
    monitor, loop = Monitor(), asyncio.new_event_loop()
    monitor.lateness.watch(loop)
    [watch] = monitor.lateness._watches
    yield monitor, watch
    monitor.lateness.close()
    loop.close()


def test_a_turn_that_ends_while_it_is_told_is_not_counted_twice(watch):
    monitor, watch = watch
    watch.began = 10.0
    monitor.lateness._late(watch, 10.0, 0.5)        # and `began` is still set
    monitor.lateness.run(10.6)
    assert [(record["loop_late_count"], record["loop_late_seconds"]) for record in monitor.records] == [(1, 0.5)]


def test_a_loop_is_told_of_at_most_once_a_second(watch):
    monitor, watch = watch
    for now in (10.0, 10.2, 10.4):
        monitor.lateness._late(watch, now, 0.1)
        monitor.lateness.run(now + 0.1)
    assert ([record["loop_late_count"] for record in monitor.records], monitor.lateness.due()) == ([1], 11.1)
    monitor.lateness.run(11.1)
    assert ([record["loop_late_count"] for record in monitor.records], monitor.lateness.due()) == ([1, 3], None)


# --- loops that cannot be watched -------------------------------------------------------------

@contextmanager
def nothing_watched():
    lateness = Lateness(None, None, Settings, lambda: None)
    yield lateness
    assert (lateness.watched, lateness.due()) == (0, None)


def test_a_loop_whose_turns_are_not_pythons_is_said_to_be_unseen():
    class Loop:
        __slots__ = ("__weakref__",)                # as uvloop's: no dictionary, none of asyncio's inner methods
    Loop.__module__ = "uvloop"
    with nothing_watched() as lateness:
        assert lateness.watch(Loop()) == lateness.problem == (
            "Loop of uvloop: the turns of this event loop are not Python's, its lateness is not measured")


def test_without_a_running_loop_it_says_what_to_do():
    with nothing_watched() as lateness:
        assert lateness.watch() == lateness.problem == "no event loop runs here: call watch_loop in a coroutine, or give it the loop"


def test_nonsense_for_a_loop_raises_nothing():
    class Hostile:
        def __getattr__(self, name):
            raise AssertionError("code of the application was called")
    with nothing_watched() as lateness:
        for nonsense in (7, "loop", Hostile(), Hostile):
            assert "not measured" in lateness.watch(nonsense)


def test_what_wakes_the_monitor_never_ends_a_loop():
    def fails():
        raise OSError()
    lateness = Lateness(None, None, Settings, fails)
    async def main():
        lateness.watch()
        await turns()
        return 7
    assert (asyncio.run(main()), lateness.errors) == (7, 1)


def test_asyncio_is_not_loaded_by_the_agent():
    code = "import sys, modwsgi_tel.agent.lateness as m; m.Lateness(None, None, type('S', (), {'loop_limit': 1}), None).watch(); "\
           "print(sorted({'asyncio', 'tracemalloc', 'inspect', 'traceback', 'typing', 'logging'} & set(sys.modules)))"
    root = module.__file__.rpartition("/modwsgi_tel/")[0]
    out = subprocess.run([sys.executable, "-S", "-c", code], cwd=root, stdout=subprocess.PIPE, timeout=30, check=True,
                         stdin=subprocess.DEVNULL).stdout
    assert out == b"[]\n"


# --- tornado ----------------------------------------------------------------------------------

def test_tornado_runs_on_asyncios_loop_and_is_watched_as_such(monitor):
    ioloop = interpreters.installed("tornado.ioloop")
    asyncio.set_event_loop(asyncio.new_event_loop())
    loop = ioloop.IOLoop.current()
    def tornado_callback():
        busy_callback()
        loop.call_later(0.01, loop.stop)
    assert monitor.lateness.watch(loop) == ""
    loop.add_callback(tornado_callback)
    loop.start()
    loop.close(all_fds=True)
    monitor.rest()
    [record] = monitor.records
    assert (record["loop_late_count"], "tornado_callback" in monitor.functions(record)) == (1, True)
