"""From memory to frames, with memory made of bytes: what is in order is read, what lies is cut, what changes is moving."""

import struct

import pytest

import images
from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks.memory import Limited, Unreadable
from modwsgi_tel.stacks.model import MOVING, Frame
from modwsgi_tel.stacks.objects import Objects
from modwsgi_tel.stacks.offsets import LAYOUTS
from modwsgi_tel.stacks.runtime import Runtime
from modwsgi_tel.stacks.walker import MOST_FRAMES, Walker

RUNTIME, INTERPRETER, THREAD, CHUNK, CFRAME, TYPES, CODES, TEXTS, HEAP = (0x100000 * each for each in range(1, 10))
CIRCLE = "cut: its frames go in a circle"


class Process:
    """A process of Python 3.11 or 3.9 with one thread, in a dictionary of bytes."""

    def __init__(self, version=(3, 11), memory=None):
        self.layout = LAYOUTS[version]
        self.memory = memory or images.Memory()
        for address, size in ((RUNTIME, 4096), (INTERPRETER, 4096), (THREAD, 1024), (CHUNK, 4096), (CFRAME, 64), (TYPES, 8192),
                              (CODES, 65536), (TEXTS, 65536), (HEAP, 65536)):
            self.memory.put(address, bytes(size))
        self.types = {name: self._type(place, name) for place, name in enumerate(("code", "str", "bytes", "tuple", "frame"))}
        self.texts = TEXTS
        self.put(RUNTIME + self.layout.interpreters_head, INTERPRETER)
        self.put(INTERPRETER + self.layout.interp_threads, THREAD)
        self.put(THREAD + self.layout.thread_interp, INTERPRETER)
        self.put(THREAD + self.layout.thread_ident, 77)
        self.top = CHUNK + 32
        if version >= (3, 11):
            self.put(THREAD + self.layout.thread_frame, CFRAME)
            self.put(THREAD + self.layout.thread_chunk, CHUNK, self.top)
            self.put(CHUNK, 0, 4096, 4)

    def put(self, address, *values):
        self.memory.put(address, images.words(*values))

    def _type(self, place, name):
        address = TYPES + 1024 * place
        self.put(address + self.layout.type_name, address + 512)
        self.memory.put(address + 512, name.encode() + b"\0")
        return address

    def text(self, said):
        address, self.texts = self.texts, self.texts + 256
        self.put(address, 1, self.types["str"], len(said))
        self.memory.put(address + 32, struct.pack("<I", 32 | 64 | 1 << 2))
        self.memory.put(address + self.layout.ascii_size, said.encode("ascii"))
        return address

    def code(self, place, name, line):
        """A code object whose instructions are all on one line."""
        address, layout = CODES + 1024 * place, self.layout
        table, self.texts = self.texts, self.texts + 256
        held = bytes([128 | 13 << 3 | 7, 0]) if self.layout.version >= (3, 11) else b""
        self.put(table, 1, self.types["bytes"], len(held))
        self.memory.put(table + 32, held)
        self.put(address, 1, self.types["code"], 8)
        self.put(address + layout.code_file, self.text("/%s.py" % name))
        self.put(address + (layout.code_qualname or layout.code_name), self.text(name))
        self.put(address + layout.code_lines, table)
        self.memory.put(address + layout.code_first_line, struct.pack("<i", line))
        return address

    def frame(self, code, back, owner=0, at=None, entry=0, depth=None):
        """A frame of 3.11 at the top of the data stack, or `at` an address; its own address."""
        address, layout = at or self.top, self.layout
        self.put(address + layout.frame_code, code)
        self.put(address + layout.frame_back, back)
        self.put(address + layout.frame_instruction, code + layout.code_start)
        if depth is None:
            depth = 3
        self.memory.put(address + layout.frame_stack, struct.pack("<i", depth))
        self.memory.put(address + layout.frame_entry, bytes([entry, owner]))
        if at is None:
            self.top = address + 96
            self.put(THREAD + layout.thread_chunk, CHUNK, self.top)
        self.put(CFRAME + layout.cframe_frame, address)
        return address

    def stack(self, count=3):
        """`count` frames, the outermost called by C, the innermost running; their addresses, the outermost first."""
        found = [0]
        for place in range(count):
            found.append(self.frame(self.code(place, "f%d" % place, place + 1), found[-1], entry=place == 0,
                                    depth=-1 if place == count - 1 else 3))
        return found[1:]

    def heap_frame(self, place, code, back):
        """A frame of 3.9, an object of its own."""
        address, layout = HEAP + 512 * place, self.layout
        self.put(address, 1, self.types["frame"])
        self.put(address + layout.frame_code, code)
        self.put(address + layout.frame_back, back)
        self.memory.put(address + layout.frame_live, b"\1")
        return address

    def heap_stack(self, count=3):
        found = [0]
        for place in range(count):
            found.append(self.heap_frame(place, self.code(place, "f%d" % place, place + 1), found[-1]))
        self.put(THREAD + self.layout.thread_frame, found[-1])
        return found[1:]

    def walker(self):
        memory = Limited(self.memory)
        walker = Walker(memory, Runtime(RUNTIME, "3.11", self.layout, "x"), Objects(memory, self.layout))
        walker.new_look()
        return walker

    def look(self):
        """(frames, problem) of its thread."""
        walker = self.walker()
        (state,), problem = walker.threads(walker.interpreters())
        assert problem is None
        return walker.stack(state)[:2]


def frames(*places):
    return tuple(Frame("f%d" % place, "/f%d.py" % place, place + 1, 0) for place in places)


def test_a_thread_s_frames_are_read_innermost_first():
    process = Process()
    process.stack()
    assert process.look() == (frames(2, 1, 0), None)
    process = Process((3, 9))
    process.heap_stack()
    assert process.look() == (frames(2, 1, 0), None)


def test_a_python_that_tells_a_frame_s_fields_in_another_order_is_refused_in_one_line():
    memory, layout = Limited(Process().memory), LAYOUTS[3, 11]._replace(frame_code=200)
    with pytest.raises(TelError, match="in another order"):
        Walker(memory, Runtime(RUNTIME, "3.11.7", layout, "/lib/libpython3.11.so"), Objects(memory, layout))


def test_a_thread_without_frames_is_whole():
    process = Process()
    process.put(THREAD + process.layout.thread_frame, THREAD + 512)         # its first cframe is a part of its state
    assert process.look() == ((), None)
    process.put(THREAD + process.layout.thread_frame, CFRAME)               # one that is just coming or going
    assert process.look() == ((), MOVING)
    assert Process((3, 9)).look() == ((), None)


def test_frames_in_a_circle_are_cut():
    process = Process()
    addresses = process.stack()
    process.put(addresses[0] + process.layout.frame_back, addresses[2])
    assert process.look() == ((), CIRCLE)
    process = Process((3, 9))
    addresses = process.heap_stack()
    process.put(addresses[0] + process.layout.frame_back, addresses[1])
    assert process.look() == ((), CIRCLE)


@pytest.mark.parametrize("pointer, said", [
    (8, "cut: nothing at 0x8"), ((1 << 64) - 8, "cut: nothing at 0xfffffffffffffff8"), (HEAP + 0xFFF0, "cut: nothing at 0x90fff0")])
def test_a_pointer_to_nothing_is_cut_and_says_where(pointer, said):
    process = Process()
    addresses = process.stack()
    process.put(addresses[0] + process.layout.frame_back, pointer)
    process.memory.put(addresses[0] + process.layout.frame_entry, b"\0")
    assert process.look() == ((), said)


def test_a_line_that_cannot_be_is_none():
    process = Process()
    process.frame(process.code(0, "f0", -5), 0, entry=1, depth=-1)
    assert process.look() == ((Frame("f0", "/f0.py", None, 0),), None)


def test_code_that_is_none_is_cut():
    process = Process()
    process.stack()
    process.put(CODES + 1024 + 8, process.types["str"])
    assert process.look() == ((), "cut: no code at 0x%x" % (CODES + 1024))


def test_an_instruction_that_is_none_of_its_code_is_cut():
    process = Process()
    addresses = process.stack()
    process.put(addresses[1] + process.layout.frame_instruction, CODES)
    assert process.look() == ((), "cut: an instruction that is none of f1")


def test_a_stack_whose_outer_frames_are_missing_is_not_whole():
    """A frame says that C called it, but the first frame of the thread's data stack is not in the chain."""
    process = Process()
    addresses = process.stack(4)
    process.put(addresses[2] + process.layout.frame_back, 0)
    process.memory.put(addresses[2] + process.layout.frame_entry, b"\1")
    assert process.look() == ((), MOVING)


def test_a_generator_that_c_calls_is_outermost_only_while_the_data_stack_holds_nothing_outside_of_it():
    process = Process()
    generator = process.frame(process.code(0, "f0", 1), 0, owner=1, at=HEAP, entry=1, depth=-1)
    assert process.look() == (frames(0), None)                              # nothing is in the data stack
    process.memory.put(HEAP + process.layout.frame_stack, struct.pack("<i", 3))
    process.frame(process.code(1, "f1", 2), generator, depth=-1)
    assert process.look() == (frames(1, 0), None)                           # what is, it called
    process = Process()
    process.stack(2)
    process.frame(process.code(3, "f3", 4), 0, owner=1, at=HEAP, entry=1, depth=-1)
    assert process.look() == ((), MOVING)                                   # what called it has been lost


class Changing(images.Memory):
    """Memory in which `change(number of the read)` is called before each read of `watched`."""

    watched, change, count = None, None, 0

    def read(self, address, size):
        if self.change is not None and address == self.watched:
            self.count += 1
            self.change(self.count)
        return super().read(address, size)


def test_a_thread_that_is_elsewhere_at_each_read_is_moving():
    memory = Changing()
    process = Process(memory=memory)
    addresses = process.stack(3)
    memory.watched = CHUNK

    def change(count):
        process.put(addresses[1] + process.layout.frame_back, 8 * count)
        process.put(addresses[2] + process.layout.frame_instruction, CODES + 2048 + process.layout.code_start + 2 * (count % 7))
    memory.change = change
    assert process.look() == ((), MOVING)


def test_a_thread_that_stands_still_in_the_middle_of_a_return_is_read():
    """Its innermost frame has the depth of one that has called another: the thread was put aside just then."""
    process = Process()
    addresses = process.stack(3)
    process.memory.put(addresses[2] + process.layout.frame_stack, struct.pack("<i", 3))
    assert process.look() == (frames(2, 1, 0), None)


def test_a_frame_that_another_thread_uses_by_now_is_not_taken_for_this_one_s():
    memory = Changing()
    process = Process((3, 9), memory)
    other = process.heap_frame(5, process.code(5, "f5", 6), 0)
    process.put(THREAD + process.layout.thread_frame, other)
    walker = process.walker()
    (state,), _ = walker.threads(walker.interpreters())
    assert walker.stack(state)[:2] == (frames(5), None)                     # all code is known from here on
    addresses = process.heap_stack(3)
    assert walker.stack(state)[:2] == (frames(2, 1, 0), None)
    memory.watched = addresses[2]

    def change(count):
        if count == 2:
            # it has returned, and another thread has called the same function
            process.put(THREAD + process.layout.thread_frame, addresses[1])
            process.put(addresses[2] + process.layout.frame_back, other)
    memory.change = change
    assert walker.stack(state)[:2] == (frames(1, 0), None)


def test_the_lists_of_interpreters_and_threads_are_bounded():
    process = Process()
    process.put(INTERPRETER + process.layout.interp_next, INTERPRETER)
    with pytest.raises(Unreadable, match="the list of interpreters goes in a circle, or has no end"):
        process.walker().interpreters()
    process = Process()
    process.put(THREAD + process.layout.thread_next, THREAD)
    walker = process.walker()
    states, problem = walker.threads(walker.interpreters())
    assert (len(states), problem) == (1, "interpreter 0: the list of threads goes in a circle, or has no end")
    process.put(THREAD + process.layout.thread_interp, RUNTIME)
    assert walker.threads(walker.interpreters()) == ([], "interpreter 0: the list of threads changed while it was read")


def test_more_frames_than_the_limit_are_cut():
    process = Process((3, 9))
    code = process.code(0, "f0", 1)
    size = 512 * (MOST_FRAMES + 10)
    process.memory.put(HEAP * 16, bytes(size))
    data = bytearray(size)
    layout = process.layout
    for place in range(MOST_FRAMES + 8):
        at = 512 * place
        struct.pack_into("<QQ", data, at, 1, process.types["frame"])
        struct.pack_into("<Q", data, at + layout.frame_code, code)
        struct.pack_into("<Q", data, at + layout.frame_back, HEAP * 16 + at + 512)
        data[at + layout.frame_live] = 1
    process.memory.parts[HEAP * 16] = bytes(data)
    process.put(THREAD + layout.thread_frame, HEAP * 16)
    walker = process.walker()
    (state,), _ = walker.threads(walker.interpreters())
    found, problem, _ = walker.stack(state)
    assert (set(found), len(found), problem) == (set(frames(0)), MOST_FRAMES, "cut: more than 20,000 frames")


def test_what_a_frame_that_runs_itself_has_called_before_is_not_shown():
    process = Process()
    addresses = process.stack(3)
    memory, count = process.memory, [0]
    read = memory.read

    def moving(address, size):
        count[0] += 1
        memory.put(addresses[2] + process.layout.frame_locals, struct.pack("<Q", count[0]))        # it does not stand still
        return read(address, size)
    memory.read = moving
    memory.put(addresses[1] + process.layout.frame_stack, struct.pack("<i", -1))
    assert process.look() == (frames(1, 0), None)
