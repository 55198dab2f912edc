"""Whatever lies in the memory of a process, who waits for which lock is told in bounded time, or less is told: no error.

What a parked target's memory holds is changed where it is read, as in test_stacks_fuzz; the kernel's word and the source stay as
they are.  MODWSGI_TEL_TEST_FUZZ is the number of rounds for each Python.
"""

import os
import random
import time

import pytest

import targets
from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks import locks, runtime
from modwsgi_tel.stacks.held import Held
from modwsgi_tel.stacks.memory import ProcessMemory
from modwsgi_tel.stacks.model import Stacks
from modwsgi_tel.stacks.reader import Looker, Reader
from test_stacks_fuzz import LONGEST_S, Image, mutate
from test_stacks_locks import HEAD

ROUNDS = int(os.environ.get("MODWSGI_TEL_TEST_FUZZ", "40"))
PROGRAM = HEAD + """
class Store:
    shared = threading.Lock()
    def __init__(self):
        self.lock, self.locks, self.again = threading.Lock(), {"x": [threading.Lock()]}, threading.RLock()
    def waits(self, key):
        with self.locks[key][0]:
            pass
    def holds(self, key):
        with self.again, self.locks[key][0], guarded():
            NEVER.wait()
@contextlib.contextmanager
def guarded():
    a.acquire()
    try:
        yield
    finally:
        a.release()
def by_function():
    with guarded():
        pass
def one():
    with b:
        store.again.acquire()
store = Store()
starts(Named("holds", store.holds, "x"))
while not a.locked():
    time.sleep(0.01)
starts(Named("waits", store.waits, "x"), by_function, one, Named("joins", threading.enumerate()[-1].join))
time.sleep(0.2)
"""


class Looked:
    """What locks.of asks of a reader."""

    def __init__(self, looker):
        self._looker = looker

    def held(self):
        return Held(self._looker, {})


@pytest.mark.parametrize("version", ("3.9", "3.11", "3.13"))
def test_memory_that_lies_gives_less_and_no_error(version):
    with targets.of(version, PROGRAM) as target:
        memory = ProcessMemory(target.pid)
        maps, program = memory.maps(), memory.executable()
        reader = Reader(target.pid)
        sources, kernel = reader.sources(), {each.tid: each for each in reader.look().threads}
        reader.close()
        image = Image(memory)
        located = runtime.locate(image, maps, program)

        def told(image):
            looker = Looker(image, located)
            found, _, _, _ = looker.look(tids=lambda: set(kernel))
            threads = tuple(each._replace(tid=tid, state="waiting", wait=kernel[tid].wait) for tid, each in found if tid in kernel)
            return locks.of(Stacks(target.pid, threads=threads), sources, Looked(looker))
        image.reads.clear()
        true = told(image)
        reads = list(image.reads)
        assert {(wait.kind, wait.lock, wait.owner_tid) for wait in true if wait.kind.endswith("lock")} == {
            (kind, lock, target.told["holds"]) for kind, lock in (("lock", "self.locks[key][0]"), ("lock", "a"), ("rlock", "store.again"))}
        assert len([wait for wait in true if wait.kind == "join" and wait.owner_tid]) == 1
        start = random.SystemRandom().randrange(1 << 40)
        for seed in range(start, start + ROUNDS):
            rng = random.Random(seed)
            changed = Image(memory)
            for _ in range(rng.choice((1, 1, 2, 4, 16))):
                mutate(changed, reads, rng)
            began = time.monotonic()
            try:
                waits = told(changed)
                locks.cycles(waits)
                assert len(waits) <= len(kernel) and all(type(each) is str for wait in waits for each in (wait.place, wait.lock, wait.how))
            except TelError as error:
                assert "\n" not in str(error), seed
            except Exception as error:
                raise AssertionError("Python %s, seed %d: %r" % (version, seed, error)) from error
            assert time.monotonic() - began < LONGEST_S, seed
        sources.close()
        memory.close()
