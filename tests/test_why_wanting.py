"""Threads that want the GIL, as the kernel tells of them: in each Python that is here."""

import pytest

import interpreters
import running
import targets
from modwsgi_tel.stacks.reader import Reader
from modwsgi_tel.why.reading import wanting

COMPUTE = """
import threading

def compute():
    while True:
        pass

for each in range(3):
    threading.Thread(target=compute, daemon=True).start()
TOLD = {}
"""
WAIT = """
import queue, threading, time

LOCK, STARTED = threading.Lock(), threading.Barrier(5)
LOCK.acquire()

def begin(wait):
    STARTED.wait()
    wait()

for wait in (LOCK.acquire, lambda: LOCK.acquire(timeout=600), lambda: queue.Queue().get(timeout=600), lambda: time.sleep(600)):
    threading.Thread(target=begin, args=(wait,), daemon=True).start()
STARTED.wait()
TOLD = {}
"""


def seen(target):
    reader = Reader(target.pid)
    try:
        return wanting(target.pid, reader.address)
    finally:
        reader.close()


@pytest.mark.parametrize("version", interpreters.READ)
def test_threads_that_compute_are_seen_to_want_the_gil_and_the_one_that_reads_is_not(version):
    with targets.of(version, COMPUTE) as target:
        found = running.wait_until(lambda: (lambda wanted: target.pid not in wanted and wanted)(seen(target)), 20,
                                   "nobody wants the GIL, or the main thread does, which reads")
        assert len(found) in (1, 2, 3)


@pytest.mark.parametrize("version", interpreters.READ)
def test_threads_that_wait_for_locks_queues_or_time_do_not_want_the_gil(version):
    with targets.of(version, WAIT) as target:
        running.wait_until(lambda: not seen(target), 20, "they still start")
        assert [seen(target) for _ in range(20)] == [set()] * 20
