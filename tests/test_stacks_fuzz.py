"""Whatever lies in the memory of a process, a look at it gives marked stacks or one line that says why not: no other error,
in bounded time, with bounded reads.

What a live parked target's memory holds is changed where a look reads it: bits, words, pointers into circles, pages that are
gone.  MODWSGI_TEL_TEST_FUZZ is the number of rounds for each Python; seeds that failed once are in corpus/stacks-fuzz.txt.
"""

import os
import random
import struct
import time

import pytest

import interpreters
import targets
from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks import runtime
from modwsgi_tel.stacks.memory import Limited, ProcessMemory, Unreadable
from modwsgi_tel.stacks.model import MOVING, Frame, Stacks, stacks_json
from modwsgi_tel.stacks.objects import LONGEST_VALUE
from modwsgi_tel.stacks.reader import Looker

ROUNDS = int(os.environ.get("MODWSGI_TEL_TEST_FUZZ", "120"))
LONGEST_S = 20.0                        # of a round: two looks, each of at most a second or two on a machine at rest
PAGE = 4096
CORPUS = os.path.join(os.path.dirname(__file__), "corpus", "stacks-fuzz.txt")
PROGRAM = """
import threading, _thread
DATA = {"number": 12345678901234567890, "text": "gr\\xf6\\xdfe \\u6e2c \\U0001f600", "nested": [{"a": (1, b"x", 2.5)}], None: True}
GATE = threading.Lock()
GATE.acquire()
def deep(left, data):
    if left:
        return deep(left - 1, data)
    GATE.acquire()
def generates(data):
    def inner():
        GATE.acquire(), data
        yield data
    yield from inner()
class Server:
    def __call__(self, environ, start_response):
        for each in generates(environ):
            pass
ENVIRON = {"wsgi.version": (1, 0), "mod_wsgi.request_id": "abc", "PATH_INFO": "/x", "REQUEST_METHOD": "GET"}
for work in (lambda: deep(20, DATA), lambda: Server()(ENVIRON, None), lambda: [deep(3, each) for each in (DATA,)]):
    threading.Thread(target=work, daemon=True).start()
_thread.start_new_thread(generates(DATA).__next__, ())
import time
while len([each for each in __import__("sys")._current_frames().values() if "GATE.acquire" or each]) < 5:
    time.sleep(0.01)
time.sleep(0.1)
TOLD = {}
"""


class Image:
    """A live process's memory with other things at some places: {page: its bytes, None for none}.  reads: (address, size)."""

    def __init__(self, memory):
        self._memory = memory
        self._pages = {}
        self.changed = {}
        self.reads = []

    def page(self, number):
        if number in self.changed:
            return self.changed[number]
        if number not in self._pages:
            try:
                self._pages[number] = self._memory.read(number * PAGE, PAGE)
            except Unreadable:
                self._pages[number] = None
        return self._pages[number]

    def read(self, address, size):
        self.reads.append((address, size))
        first, last = address // PAGE, (address + max(size, 1) - 1) // PAGE
        if not 0 <= size <= 1 << 20 or address < 0 or last >= 1 << 52:
            raise Unreadable("nothing there")
        pages = [self.page(number) for number in range(first, last + 1)]
        if None in pages:
            raise Unreadable("nothing there")
        return b"".join(pages)[address - first * PAGE:][:size]

    def write(self, address, data):
        number, at = divmod(address, PAGE)
        page = self.page(number)
        if page is not None:
            self.changed[number] = (page[:at] + data + page[at + len(data):])[:PAGE]


def mutate(image, reads, rng):
    """Change something that a look reads.  reads: the (address, size) of a look at what is unchanged."""
    address, size = rng.choice(reads)
    word = address + rng.randrange(max(size // 8, 1)) * 8
    other, _ = rng.choice(reads)
    kind = rng.randrange(9)
    if kind == 0:
        at = address + rng.randrange(max(size, 1))
        page = image.page(at // PAGE)
        if page is not None:
            image.write(at, bytes([page[at % PAGE] ^ 1 << rng.randrange(8)]))
    elif kind == 1:
        image.write(word, bytes(8))
    elif kind == 2:
        image.write(word, rng.randbytes(8))
    elif kind == 3:
        image.write(word, struct.pack("<Q", other))                         # into a circle, or something of another kind
    elif kind == 4:
        image.write(word, struct.pack("<Q", address))
    elif kind == 5:
        image.write(word, struct.pack("<q", rng.choice((-1, 1, 2, 3, 255, 1 << 16, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63)))))
    elif kind == 6:
        image.changed[address // PAGE] = None
    elif kind == 7:
        image.changed[address // PAGE] = rng.choice((bytes(PAGE), b"\xff" * PAGE, bytes(rng.getrandbits(8) for _ in range(PAGE))))
    else:
        image.write(word + rng.randrange(8), bytes([rng.getrandbits(8)]))


def check_marked(found):
    """Each thread is whole, or says that it is not; what it tells is of the right kind and length."""
    threads, numbers, problem, collecting = found
    assert problem is None or type(problem) is str
    assert collecting is None or set(collecting) <= set(numbers)
    for _, thread in threads:
        assert thread.problem is None or thread.problem == MOVING or thread.problem.startswith("cut: "), thread
        assert thread.problem is None or (thread.frames, thread.values, thread.request) == ((), None, None), thread
        for frame in thread.frames:
            assert type(frame) is Frame and type(frame.function) is str and type(frame.file) is str
            assert frame.line is None or frame.line > 0, frame
        for values in thread.values or ():
            for name, value in values:
                assert type(name) is str and len(value) <= LONGEST_VALUE, (name, value)
    stacks_json(Stacks(1, None, None, interpreters=tuple(numbers), threads=tuple(thread for _, thread in threads),
                       collecting=collecting))


class Subject:
    """A parked target of one Python, and what a look at it reads."""

    def __init__(self, version):
        self.target = targets.of(version, PROGRAM)
        self.memory = ProcessMemory(self.target.pid)
        self.maps, self.program = self.memory.maps(), self.memory.executable()
        self.version = version
        self.tids = {int(name) for name in os.listdir("/proc/%d/task" % self.target.pid)}
        image = Image(self.memory)
        self.located = runtime.locate(image, self.maps, self.program)
        self.attach = list(image.reads)
        image.reads.clear()
        found = Looker(image, self.located).look(values=True, tids=lambda: self.tids)
        assert [thread.problem for _, thread in found[0]] == [None] * 5, found
        self.reads = list(image.reads)

    def round(self, seed):
        rng = random.Random(seed)
        image = Image(self.memory)
        attach = rng.random() < 0.3
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            mutate(image, self.attach if attach else self.reads, rng)
        image.reads.clear()
        began = time.monotonic()
        try:
            located = runtime.locate(Limited(image), self.maps, self.program) if attach else self.located
            looker = Looker(image, located)
            for _ in range(2):
                check_marked(looker.look(values=True, tids=lambda: self.tids))
        except TelError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, error
        took = time.monotonic() - began
        assert took < LONGEST_S, "round %d took %.1f s and %d reads" % (seed, took, len(image.reads))
        return len(image.reads)

    def close(self):
        self.memory.close()
        self.target.__exit__()


@pytest.fixture(scope="module", params=interpreters.READ)
def subject(request):
    found = Subject(request.param)
    yield found
    found.close()


def kept(version):
    with open(CORPUS, encoding="ascii") as handle:
        return [int(line.split()[1]) for line in handle if line.split() and line.split()[0] == version]


def test_memory_that_lies_gives_marked_stacks_or_one_line(subject):
    start = random.SystemRandom().randrange(1 << 40)
    for seed in [*kept(subject.version), *range(start, start + ROUNDS)]:
        try:
            subject.round(seed)
        except Exception as error:
            raise AssertionError("Python %s, seed %d: %r" % (subject.version, seed, error)) from error
