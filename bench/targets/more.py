"""Threads that are parked in what the standard library waits with.  Runs on Python 3.8 and later.

    python more.py

The first line on stdout is the truth: {"frames": {native thread id: [[function, file, line], ...]}, "names": {id: name}},
innermost first.  It ends with its stdin, and after ten minutes.
"""
import asyncio
import collections
import concurrent.futures
import importlib.util
import os
import queue
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import unittest.mock

from truth import parked, settle, tell

GATE = threading.Lock()
KINDS = []


def kind(function):
    KINDS.append(function)
    return function


def park(*_, **__):
    GATE.acquire()


@kind
def sleep():
    time.sleep(3600)


@kind
def lock_acquired():
    with GATE:
        pass


@kind
def event_wait():
    threading.Event().wait()


@kind
def event_wait_with_timeout():
    threading.Event().wait(3600)


@kind
def condition_wait():
    condition = threading.Condition()
    with condition:
        condition.wait_for(lambda: False)


@kind
def barrier_wait():
    threading.Barrier(2).wait()


@kind
def semaphore():
    threading.Semaphore(0).acquire()


@kind
def queue_get():
    queue.Queue().get()


@kind
def queue_put():
    full = queue.Queue(maxsize=1)
    for each in range(2):
        full.put(each)


@kind
def simple_queue():
    queue.SimpleQueue().get()


@kind
def socket_recv():
    one, other = socket.socketpair()
    one.recv(1)
    other.close()


@kind
def socket_file():
    one, other = socket.socketpair()
    one.makefile("rb").readline()
    other.close()


@kind
def socket_accept():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.accept()


@kind
def selected():
    one, other = socket.socketpair()
    select.select([one], [], [])
    other.close()


@kind
def polled():
    one, other = socket.socketpair()
    poll = select.poll()
    poll.register(one, select.POLLIN)
    poll.poll()
    other.close()


@kind
def pipe_read():
    reading, writing = os.pipe()
    os.read(reading, 1)
    os.close(writing)


@kind
def child_waited_for():
    # it ends with this process: then its stdin does
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    child.wait()


@kind
def event_loop_idle():
    async def idle():
        await asyncio.sleep(3600)
    asyncio.new_event_loop().run_until_complete(idle())


@kind
def event_loop_blocked():
    async def inner():
        park()

    async def outer():
        await asyncio.gather(inner(), asyncio.sleep(0))
    asyncio.new_event_loop().run_until_complete(outer())


@kind
def event_loop_asynchronous_generator():
    async def yields():
        for each in range(2):
            await asyncio.sleep(0)
            yield each
        park()

    async def uses():
        return [each async for each in yields()]
    asyncio.new_event_loop().run_until_complete(uses())


@kind
def future_result():
    concurrent.futures.Future().result()


@kind
def thread_joined():
    threading.enumerate()[0].join()


@kind
def database_callback():
    base = sqlite3.connect(":memory:")
    base.create_function("parks", 1, park)
    base.execute("select parks(1)").fetchall()


@kind
def substitution_callback():
    re.sub("b", park, "abc")


@kind
def mock_called():
    unittest.mock.Mock(side_effect=park)(1)


@kind
def named_tuple_made():
    class Pair(collections.namedtuple("Pair", "one other")):
        def __new__(cls, one):
            park()
    Pair(1)


class Parking:
    """A finder and loader of one module that parks while it is imported."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_loader(name, Parking) if name == "parks_on_import" else None

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        park()


@kind
def module_imported():
    sys.meta_path.insert(0, Parking)
    import parks_on_import
    return parks_on_import


def pool_threads(pool):
    """Two threads of a pool: one works for good, one is idle."""
    both = threading.Barrier(2)
    ends = [pool.submit(both.wait) for _ in range(2)]
    for each in ends:
        each.result()
    pool.submit(park)
    return 2


def main():
    GATE.acquire()
    for each in KINDS:
        threading.Thread(target=each, name=each.__name__, daemon=True).start()
    pool = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="pool")
    settle(len(KINDS) + pool_threads(pool))
    names = {each.native_id: each.name for each in threading.enumerate()}
    tell(frames=parked(sys._getframe()), names=names), os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(600)
    main()
