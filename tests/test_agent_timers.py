"""Timers: every operation counts once, at its own time, whoever takes turns with whom; and nothing wakes an idle process."""
import asyncio
import contextlib
import functools
import inspect
import os
import random
import signal
import sys
import threading
import time

import pytest

from modwsgi_tel.agent import timers as module
from modwsgi_tel.agent.timers import A_TIME_MOST, FOLDED, NAMES_MOST, PAUSE_S, SUMS_MOST, Timers
from modwsgi_tel.wire import buckets
from modwsgi_tel.wire.codec import decode, encode
from modwsgi_tel.wire.fields import AGENT_FLAG, OPERATION_TIMER


class Clock:
    """Stands for perf_counter where spans are compared: __enter__ and __exit__ have it as their default."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module._Use.__enter__, "__defaults__", (clock,))
    monkeypatch.setattr(module._Use.__exit__, "__defaults__", (clock,))
    return clock


class Told:
    """Timers with a collector; `run` gives what was sent, by name."""

    def __init__(self, attached=True):
        self.timers, self.wakes, self.refuses, self.bytes = Timers(), 0, False, 0
        if attached:
            self.attach()
            self.run()

    def attach(self):
        self.timers.attach(self.send, self.wake)

    def wake(self):
        self.wakes += 1

    def send(self, kind, values):
        if self.refuses:
            return False
        datagram = encode(kind, 1, 1, 0.0, values, AGENT_FLAG)
        sample = decode(datagram)
        assert sample.kind == OPERATION_TIMER
        self.records.append(dict(sample.fields))
        self.bytes = max(self.bytes, len(datagram))
        return True

    def run(self, now=100.0):
        self.records = []
        self.timers.run(now)
        return {record["timer_name"]: record for record in self.records}

    def counts(self, now=100.0):
        return {name: record["timer_count"] for name, record in self.run(now).items()}


def histogram(**counts):
    """65 buckets; b3=7: 7 in the fourth."""
    out = [0] * 65
    for name, count in counts.items():
        out[int(name[1:])] = count
    return out


def spans_of(record):
    return record["timer_count"], record["timer_seconds"], record["timer_max"]


def test_an_operation_is_told_with_its_count_times_and_histogram(clock):
    told = Told()
    for span in (0.001, 0.25, 100.0):
        with told.timers.timer("db.query"):
            clock.now += span
    [record] = told.run().values()
    assert record == {"timer_name": "db.query", "timer_count": 3, "timer_seconds": pytest.approx(100.251), "timer_max": pytest.approx(100.0),
                      "timer_buckets": histogram(b0=1, b31=1, b64=1), "timer_errors": 0, "timer_names_lost": 0}


def test_buckets_are_those_of_the_phases():
    draw = random.Random(7)
    found = module._Sum()
    spans = [draw.uniform(0, 70) * draw.choice((1, 1e-1, 1e-2, 1e-3)) for _ in range(5000)] + [0.0, 65.536, 1e9]
    found.add_all(spans)
    wanted = [0] * 65
    for span in spans:
        wanted[buckets.place(span)] += 1
    assert (found.buckets, found.count, found.longest) == (wanted, len(spans), 1e9)


def test_an_exception_is_an_error_and_goes_on(clock):
    told = Told()
    with pytest.raises(KeyError):
        with told.timers.timer("x"):
            clock.now += 2.0
            raise KeyError("x")
    with contextlib.suppress(GeneratorExit, asyncio.CancelledError, KeyboardInterrupt):
        with told.timers.timer("x"):
            raise KeyboardInterrupt()               # it was stopped, it has not failed
    [record] = told.run().values()
    assert (spans_of(record), record["timer_errors"]) == ((2, 2.0, 2.0), 1)


def test_nested_and_recursive_uses_count_each_by_itself(clock):
    told = Told()
    timer = told.timers.timer
    def recursive(depth):
        with timer("r"):
            clock.now += 1.0
            if depth:
                recursive(depth - 1)
    recursive(2)
    [record] = told.run().values()
    assert spans_of(record) == (3, 6.0, 3.0)


def test_one_that_is_kept_may_be_entered_again_and_within_itself(clock):
    told = Told()
    kept = told.timers.timer("k")
    for span in (1.0, 2.0):
        with kept:
            clock.now += span
    with kept:
        clock.now += 4.0
        with kept:
            clock.now += 8.0
    with told.timers.timer("k"):
        clock.now += 16.0
    [record] = told.run().values()
    assert spans_of(record) == (5, 1 + 2 + 12 + 8 + 16.0, 16.0)


def test_one_that_is_kept_and_one_that_is_made_do_not_mix_up_their_times(clock):
    told = Told()
    kept = told.timers.timer("k")
    with kept:
        with kept:
            clock.now += 1.0
            with told.timers.timer("k"):
                clock.now += 2.0
            clock.now += 4.0
    [record] = told.run().values()
    assert spans_of(record) == (3, 7 + 7 + 2.0, 7.0)


def test_one_that_is_kept_is_each_threads_own(clock):
    told = Told()
    kept = told.timers.timer("k")
    entered, leave = threading.Event(), threading.Event()
    def other():
        with kept:
            entered.set()
            leave.wait(10)
    with kept:
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
        clock.now += 1.0
        with kept:
            clock.now += 2.0
    clock.now += 4.0
    leave.set()
    thread.join(10)
    [record] = told.run().values()
    assert spans_of(record) == (3, 3 + 2 + 7.0, 7.0)


def test_one_that_is_kept_is_each_tasks_own(clock):
    told = Told()
    kept = told.timers.timer("k")
    async def main():
        first, second = asyncio.Event(), asyncio.Event()
        async def one():
            with kept:
                await first.wait()
        async def two():
            with kept:
                await second.wait()
        with kept:
            tasks = [asyncio.ensure_future(one()), asyncio.ensure_future(two())]
            await asyncio.sleep(0)
            clock.now += 1.0
            first.set()
            await tasks[0]
            clock.now += 2.0
            second.set()
            await tasks[1]
            clock.now += 4.0
    asyncio.run(main())
    [record] = told.run().values()
    assert spans_of(record) == (3, 1 + 3 + 7.0, 7.0)


def test_generators_that_take_turns_do_not_mix_up_their_times(clock):
    told = Told()
    def generator():
        with told.timers.timer("g"):
            yield
    one, two = generator(), generator()
    next(one)
    clock.now += 1.0
    next(two)
    clock.now += 2.0
    next(one, None)                                 # entered first, left first
    clock.now += 4.0
    two.close()
    [record] = told.run().values()
    assert (spans_of(record), record["timer_errors"]) == ((2, 3 + 6.0, 6.0), 0)


def test_one_that_is_left_without_having_been_entered_raises_nothing():
    told = Told()
    before = Timers.errors
    told.timers.timer("x").__exit__(None, None, None)
    assert (told.run(), Timers.errors - before) == ({}, 1)


# --- exact --------------------------------------------------------------------------------------

@pytest.mark.parametrize("attached", [True, False])
def test_eight_threads_that_race_lose_nothing(attached):
    told, each = Told(attached), 3000
    kept = told.timers.timer("kept")
    @told.timers.timed("timed")
    def function():
        pass
    def work():
        for number in range(each):
            with told.timers.timer("made"):
                pass
            with kept:
                pass
            with told.timers.timer(f"of {number % 7}"), contextlib.suppress(ValueError), told.timers.timer("errors"):
                raise ValueError()
            function()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    seen = []
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if attached:
                seen.append(told.counts().get("made"))
            else:
                time.sleep(0.01)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    if not attached:
        told.attach()
    told.timers.again()
    records = told.run()
    assert {name: record["timer_count"] for name, record in records.items()} == {
        "made": 8 * each, "kept": 8 * each, "timed": 8 * each, "errors": 8 * each,
        **{f"of {number}": 8 * len(range(number, each, 7)) for number in range(7)}}
    assert records["errors"]["timer_errors"] == 8 * each
    assert all(sum(record["timer_buckets"]) == record["timer_count"] for record in records.values())
    seen = [count for count in seen if count]
    assert seen == sorted(seen)                     # a count never falls


def test_what_waits_for_a_collector_that_never_comes_is_bounded():
    timers = Timers()
    for _ in range(20 * FOLDED):
        with timers.timer("x"):
            pass
    timer = timers._timers["x"]
    assert (len(timer.pending) <= FOLDED + 1, len(timer.sums) <= SUMS_MOST) == (True, True)
    told = Told(attached=False)
    told.timers = timers
    told.attach()
    assert told.counts() == {"x": 20 * FOLDED}


def test_names_are_bounded_and_what_is_beyond_is_counted():
    told = Told()
    for number in range(NAMES_MOST + 5):
        for _ in range(3):
            with told.timers.timer(f"n{number}"):
                pass
    with told.timers.timer(7), told.timers.timer(None), told.timers.timer([]):
        pass
    counts, now = {}, 100.0
    while len(counts) < NAMES_MOST:
        records = told.run(now)
        assert 0 < len(records) <= A_TIME_MOST
        counts.update((name, record["timer_count"]) for name, record in records.items())
        assert [record["timer_names_lost"] for record in records.values()] == [18] * len(records)
        assert told.timers.due() == pytest.approx(now + (PAUSE_S if len(counts) < NAMES_MOST else 1.0))
        now += 1
    assert counts == {f"n{number}": 3 for number in range(NAMES_MOST)}
    assert len(told.timers._uses) == NAMES_MOST
    with told.timers.timer("one more"):
        pass
    assert [(record["timer_name"], record["timer_names_lost"]) for record in told.run(now).values()] == [("n0", 19)]


def test_any_text_is_a_name_and_a_record_is_small():
    told = Told()
    class Name(str):
        __hash__ = None
    for name in ("\ud800", "é" * 500, "", Name("plain")):
        for _ in range(2):
            with told.timers.timer(name):
                pass
    assert told.counts() == {"?": 2, "é" * 100: 2, "": 2, "plain": 2}
    assert told.bytes < 700


# --- when it is told ------------------------------------------------------------------------------

def test_nothing_wakes_the_monitor_while_there_is_no_operation():
    told = Told()
    assert (told.timers.due(), told.wakes) == (None, 0)


def test_a_thousand_operations_wake_it_once():
    told = Told()
    for number in range(1000):
        with told.timers.timer(f"n{number % 10}"):
            pass
    assert told.wakes == 1
    due = told.timers.due()
    assert due is not None and len(told.run(due)) == 10
    assert told.timers.due() == due + 1.0           # it looks once more, since they may go on
    with told.timers.timer("n1"):
        pass
    assert (told.counts(due + 1.0), told.wakes) == ({"n1": 101}, 1)
    assert (told.counts(due + 2.0), told.timers.due()) == ({}, None)
    with told.timers.timer("n1"):
        pass
    assert (told.wakes, told.timers.due()) == (2, due + 3.0)


def test_not_more_than_once_an_interval_even_when_it_is_woken():
    told = Told()
    with told.timers.timer("x"):
        pass
    told.run(200.0)
    told.run(201.0)
    with told.timers.timer("x"):
        pass
    assert told.timers.due() == 202.0


def test_an_operation_that_nobody_took_waits_for_the_next_or_for_a_collector():
    told = Told()
    with told.timers.timer("x"):
        pass
    told.refuses = True
    assert (told.run(200.0), told.timers.due()) == ({}, None)       # no wake-ups for nobody
    told.refuses = False
    with told.timers.timer("x"):
        pass
    assert (told.timers.due(), told.counts(201.0)) == (201.0, {"x": 2})
    told.timers.again()
    assert (told.timers.due(), told.counts(202.0)) == (0.0, {"x": 2})


def test_an_operation_while_the_monitor_gives_up_is_not_forgotten():
    told = Told()
    def send(kind, values):
        with told.timers.timer("x"):
            pass
        return False
    with told.timers.timer("x"):
        pass
    told.timers.attach(send, told.wake)
    told.timers.run(200.0)
    assert told.timers.due() == 201.0


def test_operations_before_the_agent_is_installed_are_told_too(clock):
    told = Told(attached=False)
    with told.timers.timer("early"):
        clock.now += 1.0
    assert told.timers.due() is None
    told.attach()
    assert (told.timers.due(), told.counts(), told.wakes) == (0.0, {"early": 1}, 0)


def test_a_child_of_a_fork_begins_at_zero():
    told = Told()
    @told.timers.timed("f")
    def function():
        pass
    function()
    told.run()
    function()
    told.timers.forked()
    assert told.timers.due() is None
    function()
    told.attach()
    assert told.counts() == {"f": 1}


def test_a_fork_while_others_time_leaves_a_child_that_counts():
    told, ends = Told(), threading.Event()
    def work():
        while not ends.is_set():
            with told.timers.timer("x"):
                pass
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if not child:
                try:
                    signal.alarm(20)
                    told.timers.forked()
                    for _ in range(3 * FOLDED):
                        with told.timers.timer("x"):
                            pass
                    told.attach()
                    os._exit(0 if told.counts() == {"x": 3 * FOLDED} else 1)
                finally:
                    os._exit(2)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        ends.set()
        for thread in threads:
            thread.join()


# --- @timed ------------------------------------------------------------------------------------------

def test_a_function_is_timed_under_its_own_name_or_a_given_one(clock):
    told = Told()
    @told.timers.timed
    def plain(a, *, b):
        """What it says."""
        clock.now += 1.0
        return a + b
    @told.timers.timed("given")
    def other():
        clock.now += 2.0
        raise KeyError()
    @told.timers.timed()
    def third():
        pass
    assert (plain(1, b=2), plain.__name__, plain.__doc__) == (3, "plain", "What it says.")
    with pytest.raises(KeyError):
        other()
    third()
    here = f"{__name__}.test_a_function_is_timed_under_its_own_name_or_a_given_one.<locals>."
    assert {name: (spans_of(record), record["timer_errors"]) for name, record in told.run().items()} == {
        here + "plain": ((1, 1.0, 1.0), 0), "given": ((1, 2.0, 2.0), 1), here + "third": ((1, 0.0, 0.0), 0)}


def test_a_coroutine_function_is_timed_until_it_is_done(clock):
    told = Told()
    @told.timers.timed("c")
    async def work(span):
        clock.now += span
        await asyncio.sleep(0)
        clock.now += span
        return span
    async def cancelled():
        with told.timers.timer("cancelled"):
            await asyncio.sleep(3600)
    async def main():
        assert await work(1.0) == 1.0
        task = asyncio.ensure_future(cancelled())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    asyncio.run(main())
    assert inspect.iscoroutinefunction(work)
    assert {name: (spans_of(record), record["timer_errors"]) for name, record in told.run().items()} == {
        "c": ((1, 2.0, 2.0), 0), "cancelled": ((1, 0.0, 0.0), 0)}


def test_a_generator_function_is_timed_from_its_first_step_to_its_end(clock):
    told = Told()
    @told.timers.timed("g")
    def steps():
        clock.now += 1.0
        got = yield 1
        try:
            yield got
        except KeyError:
            yield "caught"
        return "end"
    generator = steps()
    clock.now += 100.0                              # not begun
    assert (next(generator), generator.send("sent"), generator.throw(KeyError())) == (1, "sent", "caught")
    clock.now += 2.0
    with pytest.raises(StopIteration) as ended:
        next(generator)
    assert (ended.value.value, inspect.isgeneratorfunction(steps)) == ("end", True)
    closed = steps()
    next(closed)
    closed.close()
    [record] = told.run().values()
    assert (spans_of(record), record["timer_errors"]) == ((2, 3 + 1.0, 3.0), 0)


def test_an_asynchronous_generator_function_is_the_same_as_without(clock):
    told = Told()
    async def steps(closed):
        try:
            clock.now += 1.0
            got = yield 1
            try:
                yield got
            except KeyError:
                yield "caught"
        finally:
            closed.append(True)
    async def through(function):
        out, closed = [], []
        generator = function(closed)
        out += [await generator.asend(None), await generator.asend("sent"), await generator.athrow(KeyError())]
        out += [each async for each in generator]
        early = function(closed)
        out.append(await early.asend(None))
        await early.aclose()
        failing = function(closed)
        await failing.asend(None)
        try:
            await failing.athrow(ValueError("x"))
        except ValueError as error:
            out.append(str(error))
        return out, closed
    timed = told.timers.timed("a")(steps)
    assert asyncio.run(through(timed)) == asyncio.run(through(steps)) == ([1, "sent", "caught", 1, "x"], [True] * 3)
    assert inspect.isasyncgenfunction(timed)
    [record] = told.run().values()
    assert (record["timer_count"], record["timer_errors"]) == (3, 1)


def test_methods_are_timed_and_what_is_no_function_is_left_as_it_is():
    told = Told()
    class View:
        @told.timers.timed("m")
        def method(self):
            return self
        @told.timers.timed("s")
        @staticmethod
        def static():
            return 1
        @classmethod
        @told.timers.timed("c")
        def of_class(cls):
            return cls
        @told.timers.timed("d")
        @classmethod
        def decorated(cls):
            return cls
    view = View()
    assert (view.method(), view.static(), view.of_class(), view.decorated()) == (view, 1, View, View)
    assert told.counts() == {"m": 1, "s": 1, "c": 1, "d": 1}
    for each in (View, functools.lru_cache(maxsize=1)(lambda: 1), functools.partial(print), len):
        assert told.timers.timed(each) is each
