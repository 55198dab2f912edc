"""The loop: one descriptor first, timers, signals, and how long nobody looked."""
import os
import signal
import socket
import threading
from types import SimpleNamespace

import pytest

from modwsgi_tel.net import loop as loop_module
from modwsgi_tel.net.loop import Loop

DEADLINE_S = 20.0


class Clock:
    """Monotonic seconds that pass only when told to."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def pairs():
    """Makes connected sockets; each first one is readable and writable at once."""
    made = []

    def make(count):
        for _ in range(count):
            left, right = socket.socketpair()
            right.send(b"x")
            made.extend((left, right))
        return [made[place] for place in range(0, len(made), 2)]

    yield make
    for each in made:
        each.close()




def test_between_any_two_pieces_of_work_the_first_descriptor_is_looked_at(pairs):
    happened = []
    loop = Loop(Clock())
    one, two, three, mine = pairs(4)
    loop.set_first(mine.fileno(), lambda: happened.append("look"))
    for name, each in (("read one", one), ("read two", two)):
        loop.readers[each.fileno()] = lambda name=name: happened.append(name)
    for name, each in (("write two", two), ("write three", three)):
        loop.writers[each.fileno()] = lambda name=name: happened.append(name)
    loop.after(0.0, lambda: happened.append("timer one"))
    loop.after(0.0, lambda: happened.append("timer two"))
    loop.after(0.0, loop.stop)
    loop.run()
    assert happened == ["look", "read one", "look", "read two", "look", "write two", "look", "write three", "look",
                        "timer one", "look", "timer two", "look", "look"]


def test_what_is_left_unread_is_looked_at_again_without_waiting(monkeypatch):
    waits, answers = [], [True, True, False, False]
    loop = Loop(Clock())

    def select(reading, writing, _, wait):
        waits.append(wait)
        return [], [], []

    def first():
        if len(answers) == 1:
            loop.stop()
        return answers.pop(0)

    monkeypatch.setattr(loop_module, "select", SimpleNamespace(select=select))
    loop.set_first(3, first)
    loop.after(7.0, lambda: None)
    loop.run()
    assert waits == [7.0, 0.0, 0.0, 7.0]


def test_a_look_between_two_pieces_that_leaves_something_unread_also_does_not_wait(monkeypatch):
    waits, answers = [], [False, True, False]
    loop = Loop(Clock())

    def select(reading, writing, _, wait):
        waits.append(wait)
        return [5] if len(waits) == 1 else [], [], []

    def first():
        more = answers.pop(0)
        if not answers:
            loop.stop()
        return more

    monkeypatch.setattr(loop_module, "select", SimpleNamespace(select=select))
    loop.set_first(3, first)
    loop.readers[5] = lambda: None
    loop.run()
    assert waits == [None, 0.0]


def test_a_callback_that_removes_another_descriptor_keeps_it_from_being_called(pairs):
    happened = []
    loop = Loop(Clock())
    one, two, three = pairs(3)

    def remove_the_others():
        happened.append("one")
        for each in (two, three):
            loop.readers.pop(each.fileno(), None)
            loop.writers.pop(each.fileno(), None)
            each.close()

    loop.readers[one.fileno()] = remove_the_others
    loop.readers[two.fileno()] = lambda: happened.append("two")
    loop.writers[three.fileno()] = lambda: happened.append("three")
    loop.after(0.0, loop.stop)
    loop.run()
    assert happened == ["one"]


def test_timers_run_in_order_of_their_time_and_a_periodic_one_again_and_again():
    clock, happened = Clock(), []
    loop = Loop(clock)
    loop.after(3.0, lambda: happened.append((clock.now, "after 3")))
    loop.after(1.0, lambda: happened.append((clock.now, "after 1")))
    loop.every(2.0, lambda: happened.append((clock.now, "every 2")))
    loop.after(6.5, loop.stop)
    with_passing_time(loop, clock)
    assert happened == [(1001.0, "after 1"), (1002.0, "every 2"), (1003.0, "after 3"), (1004.0, "every 2"),
                        (1006.0, "every 2")]


def with_passing_time(loop, clock):
    """Run with a select() in which exactly the time passes that it was told to wait."""
    def select(reading, writing, _, wait):
        clock.now += wait
        return [], [], []
    original, loop_module.select = loop_module.select, SimpleNamespace(select=select)
    try:
        loop.run()
    finally:
        loop_module.select = original


def test_between_two_runs_of_a_timer_that_sets_itself_anew_descriptors_are_served(pairs):
    loop, order = Loop(Clock()), []
    (readable,) = pairs(1)
    loop.readers[readable.fileno()] = lambda: order.append("read")

    def again():
        order.append("timer")
        if order.count("timer") == 3:
            loop.stop()
        loop.after(0.0, again)

    loop.after(0.0, again)
    loop.run()
    assert order == ["read", "timer"] * 3


def test_a_periodic_timer_that_is_late_runs_once_and_not_once_for_each_time_it_missed():
    clock, happened = Clock(), []
    loop = Loop(clock)
    loop.every(1.0, lambda: happened.append(clock.now))

    def hang():
        clock.now += 10.0

    loop.after(0.5, hang)
    loop.after(12.7, loop.stop)
    with_passing_time(loop, clock)
    assert happened == [1010.5, 1011.5, 1012.5]


def test_a_signal_wakes_a_select_that_would_wait_for_ever():
    happened = []
    loop = Loop()
    try:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            loop.on_signal(number, lambda number=number: (happened.append(number), len(happened) == 2 and loop.stop()))

        def send():
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                os.kill(os.getpid(), number)

        thread = threading.Thread(target=send)
        thread.start()
        loop.run()
        thread.join(DEADLINE_S)
    finally:
        loop.close()
    assert sorted(happened) == [signal.SIGUSR1, signal.SIGUSR2]


def test_closing_gives_the_signals_and_the_wake_up_descriptor_back():
    before = len(os.listdir("/proc/self/fd"))
    loop = Loop()
    loop.on_signal(signal.SIGUSR1, lambda: None)
    assert signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, signal.SIG_IGN)
    loop.close()
    assert (signal.getsignal(signal.SIGUSR1), signal.set_wakeup_fd(-1), len(os.listdir("/proc/self/fd"))) == (
        signal.SIG_DFL, -1, before)


def test_the_longest_time_between_two_looks_is_measured(pairs):
    clock, stalls = Clock(), []
    loop = Loop(clock)
    loop.on_stall = stalls.append
    one, two, mine = pairs(3)

    def work(seconds):
        def callback():
            clock.now += seconds
        return callback

    loop.set_first(mine.fileno(), lambda: False)
    loop.readers[one.fileno()] = work(0.5)
    loop.readers[two.fileno()] = work(0.25)
    loop.after(0.0, loop.stop)
    loop.run()
    assert (loop.longest_gap_s, loop.recent_gap_s, loop.stalls, stalls) == (0.5, 0.5, 0, [])
    loop.readers[two.fileno()] = work(3.0)
    loop.after(0.0, loop.stop)
    loop.run()
    assert (loop.longest_gap_s, loop.recent_gap_s, loop.stalls, stalls) == (3.0, 3.0, 1, [3.0])


def test_waiting_is_no_gap_but_being_stopped_while_waiting_is(monkeypatch):
    clock, stalls, late = Clock(), [], [0.0, 0.2, 4.0]
    loop = Loop(clock)
    loop.on_stall = stalls.append

    def select(reading, writing, _, wait):
        clock.now += wait + late.pop(0)
        if not late:
            loop.stop()
        return [], [], []

    monkeypatch.setattr(loop_module, "select", SimpleNamespace(select=select))
    loop.every(30.0, lambda: None)
    loop.run()
    assert (loop.longest_gap_s, loop.stalls, stalls) == (4.0, 1, [4.0])


def test_the_recent_gap_forgets_what_was_longer_than_a_minute_or_two_ago():
    clock = Clock()
    loop = Loop(clock)

    def hang():
        clock.now += 0.75

    loop.after(1.0, hang)
    loop.every(5.0, lambda: None)
    loop.after(30.0, loop.stop)
    with_passing_time(loop, clock)
    assert (loop.longest_gap_s, loop.recent_gap_s) == (0.75, 0.75)
    loop.after(150.0, loop.stop)
    with_passing_time(loop, clock)
    assert (loop.longest_gap_s, loop.recent_gap_s) == (0.75, 0.0)
