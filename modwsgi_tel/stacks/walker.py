"""From memory and a Layout to interpreters, threads and frames.

A thread may run on while it is read.  So what is read is read twice, and only what agrees is taken; the instruction of the
innermost frame alone may differ.  Every chain is bounded, and checked for circles and for objects that are not what they
should be: what is wrong is `moving` or `cut`, never a plausible half.
"""
import struct
from collections import namedtuple

from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks import lines
from modwsgi_tel.stacks.memory import Exhausted, Unreadable
from modwsgi_tel.stacks.model import MOVING, Frame

MOST_INTERPRETERS = 1024
MOST_THREADS = 4096
MOST_FRAMES = 20000
_DEEP = f"cut: more than {MOST_FRAMES:,} frames"
TRIES = 250                             # of a thread that moves: each takes some twenty microseconds
HURRIED_TRIES = 60                      # for who looks many times a second
_ENDLESS_TRIES = 3                      # one after another: each takes long
_LONG = 1000                            # frames: what takes no longer is tried as often as anything else
_CODE_TRIES = 3                         # of a thread whose frames agree but whose code does not
_HEAP_TRIES = 30                        # of its innermost frames, for each of these
_JOINT = 3                              # frames that are as they were, until those further out are taken to be so
_SLACK = 1024                           # of a data stack, behind where it ended a moment ago
_LONGEST_CHUNK = 1 << 20
_LARGEST_STATE = 1024                   # bytes of a PyThreadState, or more
_MOST_CHUNKS = 4096
_MOST_CODES = 50000
_GENERATOR, _GENERATOR_FRAME = 1, 72    # owner of a frame; place of the frame in its generator, from 3.12
_GENERATOR_FRAME_3_11 = 80
_NEAR = 4                               # frames that the one that runs is looked for in
_FIRST_FRAME = 32                       # place of a thread's first frame in its data stack: behind three words and one unused
_SHIM = 3                               # owner of a frame: from this on it is none of Python's

ThreadState = namedtuple("ThreadState", "address interpreter ident native owns_gil")
ThreadState.__doc__ = """address: of the PyThreadState.  interpreter: its id.  ident: threading's, a pthread_t.  native: its thread id in
its own namespace, or None before 3.11.  owns_gil: whether it holds the GIL that its interpreter uses."""

Interpreter = namedtuple("Interpreter", "address id gil")
Raw = namedtuple("Raw", "frames depth rooted more", defaults=(False,))
Raw.__doc__ = """frames: ((address, code, instruction, owner), ...), innermost first, without shims.
depth: where the innermost lies on the C stack, or 0: the smaller, the further in.  rooted: whether the first frame of its
data stack is among them, so that nothing is missing further out.  more: whether there are more than MOST_FRAMES."""


class Code:
    """What is known of a code object, with what was read to know it: the next look reads that again and compares."""

    __slots__ = ("words", "held", "function", "file", "first", "table", "start", "names", "size", "room")


class Cut(Exception):
    """A stack that ends where it should not; the text says why."""


class Endless(Cut):
    """A long chain in a circle."""


class Moved(Cut):
    """What was read is not of one moment."""


class Walker:
    """Reads the interpreters, threads and stacks of one process.

    memory: memory.Limited.  objects: objects.Objects of the same.
    """

    def __init__(self, memory, runtime, objects):
        self._read, self._burst, self._takes = memory.read, memory.burst, memory.takes
        self.tries = TRIES
        self._runtime = runtime
        self._layout = layout = runtime.layout
        self._objects = objects
        self._codes = {}
        self._fresh = {}                # codes that this look has compared or read: {address: Code}
        self._checked = {}              # those that were compared or read for this thread
        self._texts = {}                # text that was read for this thread: {address: text}
        self._made = False              # whether a code of this thread is new
        self._structs = layout.version >= (3, 11)
        self._mask = ~3 if layout.version >= (3, 14) else ~0
        self._decode = lines.decoder(layout.version)
        self._frame_type = None
        self._frame_size = layout.frame_size
        if self._structs:
            self._head_size = max(layout.thread_chunk + 16, layout.thread_frame + 8)
            self._parse = _parser(layout)

    def new_look(self):
        """Forget what was known of this moment only."""
        self._fresh.clear()
        self._objects.forget()
        if len(self._codes) > _MOST_CODES:
            self._codes.clear()

    # --- interpreters and threads -----------------------------------------------------------------

    def interpreters(self):
        """[Interpreter], the oldest first.  Raises Unreadable."""
        layout, word = self._layout, self._objects.word
        found, seen = [], set()
        address = word(self._runtime.address + layout.interpreters_head)
        while address:
            if address in seen or len(found) == MOST_INTERPRETERS:
                raise Unreadable("the list of interpreters goes in a circle, or has no end")
            seen.add(address)
            gil = (self._runtime.address + layout.gil_of_runtime if layout.interp_gil is None
                   else word(address + layout.interp_gil))
            number, = struct.unpack("<q", self._read(address + layout.interp_id, 8))
            found.append(Interpreter(address, number, gil))
            address = word(address + layout.interp_next)
        return found[::-1]

    def threads(self, interpreters):
        """([ThreadState], None or why some are missing)."""
        layout, found, seen, problem = self._layout, [], set(), None
        size = max(offset + 8 for offset in (layout.thread_next, layout.thread_interp, layout.thread_ident,
                                             layout.thread_native or 0))
        for interpreter in interpreters:
            holder = 0
            try:
                if interpreter.gil:
                    held, = struct.unpack("<i", self._read(interpreter.gil + layout.gil_locked, 4))
                    holder = self._objects.word(interpreter.gil + layout.gil_holder) if held == 1 else 0
                address = self._objects.word(interpreter.address + layout.interp_threads)
                while address:
                    if address in seen or len(found) == MOST_THREADS:
                        raise Unreadable("the list of threads goes in a circle, or has no end")
                    seen.add(address)
                    data = self._read(address, size)
                    back, = struct.unpack_from("<Q", data, layout.thread_interp)
                    if back != interpreter.address:
                        raise Unreadable("the list of threads changed while it was read")
                    ident, = struct.unpack_from("<Q", data, layout.thread_ident)
                    native = None
                    if layout.thread_native is not None:
                        native, = struct.unpack_from("<Q", data, layout.thread_native)
                    found.append(ThreadState(address, interpreter.id, ident, native, address == holder))
                    address, = struct.unpack_from("<Q", data, layout.thread_next)
            except Unreadable as error:
                problem = f"interpreter {interpreter.id}: {error}"
        return found, problem

    def collecting(self, interpreters, states):
        """The ids of the interpreters that collect garbage now, as a tuple; None where that cannot be told.

        In 3.8 all interpreters have one collector: it works for the one whose thread has the GIL.
        """
        layout, found = self._layout, []
        shared = layout.interp_collecting is None
        for interpreter in interpreters:
            at = self._runtime.address + layout.collecting_of_runtime if shared else interpreter.address + layout.interp_collecting
            try:
                now, = struct.unpack("<i", self._read(at, 4))
            except Unreadable:
                return None
            if now not in (0, 1):
                return None             # this is not what it should be
            if now and (not shared or any(state.owns_gil and state.interpreter == interpreter.id for state in states)):
                found.append(interpreter.id)
        return tuple(found)

    # --- stacks ---------------------------------------------------------------------------------------

    def stack(self, state):
        """(frames, problem, raw) of a thread: Frames innermost first, None or MOVING or "cut: why", the Raw.

        Of one that is too deep the innermost frames are given, of any other that is cut none.
        """
        before = None
        for _ in range(_CODE_TRIES):
            raw = None
            self._checked.clear()
            self._texts.clear()
            try:
                raw = self._settled(state)
                if raw is None:
                    break
                self._made = False
                frames = self._frames(raw, state.interpreter)
                if not self._made or self.still(state, raw):
                    return frames, _DEEP if raw.more else None, raw
            except (Cut, Unreadable) as error:
                if raw is None or raw == before:
                    return (), f"cut: {error}", None
                before = raw
        return (), MOVING, None

    def _settled(self, state):
        """The Raw of one moment, or None when there is none to be had.  Raises Cut when all tries end the same way."""
        once = self._once_struct if self._structs else self._once_heap
        ends, plan, endless = set(), [0, 0, (), None, 0], 0
        for _ in range(self.tries):
            try:
                raw = once(state.address, plan)
            except Exhausted:
                raise
            except Moved:
                ends.add(None)
            except (Unreadable, Cut) as error:
                endless = endless + 1 if isinstance(error, Endless) else 0
                if endless == _ENDLESS_TRIES:
                    raise
                ends.add(str(error))
            else:
                if raw is not None and raw.rooted:
                    return raw
                ends.add(None)
        if len(ends) > 1 or None in ends:
            return None                 # another end each time: it runs
        raise Cut(ends.pop())

    # from 3.11: structs in the thread's data stack, in generators, and shims on the C stack

    def _once_struct(self, address, plan):
        """A Raw, or None when what was read is not of one moment.

        One read of the data stack is of one moment, or nearly; what is known from before may be of another.  So where the
        innermost frame has ended, or has called another meanwhile, the one that runs is looked for in the same bytes.
        plan: [address of the data stack, bytes of it, addresses of frames elsewhere, all that was read, address of the cframe
        or 0], as the try before saw them: with these, all reads are done one right after the other, and only then looked at.
        Where all is the same as then, the thread stands still, maybe in the middle of a call or a return, in which its frames
        look as if it ran.
        """
        layout, size = self._layout, self._frame_size
        chunk, length, apart, before, cframe = plan
        stack, frames = [(chunk, length)] * bool(length), [(each, size) for each in apart]
        try:
            got = iter(self._burst([(address, self._head_size), *([(cframe + layout.cframe_frame, 8)] if cframe else ()), *stack,
                                    *frames, *stack * bool(apart), *frames]))
        except Unreadable:
            if not (cframe or apart):
                raise
            plan[2:] = (), None, 0
            raise Moved from None
        head = next(got)
        current = next(got) if cframe else b""
        region = next(got) if length else b""
        held = dict(zip(apart, got))
        second = next(got) if apart and length else region
        later = dict(zip(apart, got))
        now, end = struct.unpack_from("<QQ", head, layout.thread_chunk)
        needed = min(max(end - now, 0), _LONGEST_CHUNK) if now else 0
        innermost, = struct.unpack_from("<Q", head, layout.thread_frame)
        depth = 0
        if layout.cframe_frame is not None and innermost:
            depth = plan[4] = innermost
            innermost, = struct.unpack("<Q", current if cframe == depth else self._read(depth + layout.cframe_frame, 8))
        if not innermost:
            if layout.cframe_frame is not None and not address <= depth < address + _LARGEST_STATE:
                raise Moved             # only the first cframe, which lies in the thread's own state, has no frame at all
            return Raw((), depth, True)
        if now != chunk or needed > length:
            plan[:2] = now, min(needed + _SLACK, _LONGEST_CHUNK)
            if needed:
                try:
                    self._read(now, plan[1])
                except Unreadable:
                    plan[1] = needed    # it ends where its memory does
            return self._once_struct(address, plan) if not length or now != chunk else None
        plan[3] = innermost, head, region, held
        still = plan[3] == before
        raw, missing = self._chain(innermost, chunk, region, end, depth, held, still)
        plan[2] = missing
        if missing:
            # generators lie elsewhere: all must have been as it was before and after they were read
            if any(each not in held for each in missing):
                second, *found = self._burst([(chunk, length), *((each, size) for each in missing)])
                later = dict(zip(missing, found))
            again, _ = self._chain(raw.frames[0][0], chunk, second, end, depth, later, still)
            return raw if _agree(raw.frames, again.frames) else None
        return raw

    def _called(self, caller, slot, generator, chunk, region):
        """(raw frames that a frame has called since, innermost first; addresses of those elsewhere).

        slot: where in the data stack what it called would be.  generator: the generator that it would be otherwise, or 0.
        Raises Moved where it is neither.
        """
        found, apart, entered = [], [], self._layout.frame_entry is not None
        for _ in range(_NEAR):
            code, back, instruction, stack, entry, owner = (
                self._parse(region, slot - chunk) if 0 <= slot - chunk <= len(region) - self._frame_size else (0, 0, 0, 0, 0, _SHIM))
            if back == caller and owner < _SHIM and not (entered and entry == 1):
                caller = slot
                slot += self._room(code)
            elif generator:
                caller, wanted = generator + _GENERATOR_FRAME, caller
                code, back, instruction, stack, _, owner = self._parse(self._read(caller, self._frame_size), 0)
                if back != wanted or owner != _GENERATOR:
                    break
                apart.append(caller)
            else:
                break
            generator = 0
            found.insert(0, (caller, code, instruction, owner))
            if stack == -1:
                return found, apart
        raise Moved

    def _iterated(self, address, stack, chunk, region):
        """The generator that is on top of the own stack of a frame in the data stack, or 0."""
        at = address - chunk + self._layout.frame_locals + 8 * (stack - 1)
        if self._layout.version < (3, 12) or not 0 <= at <= len(region) - 8:
            return 0                    # up to 3.11 they are called by way of C
        return struct.unpack_from("<Q", region, at)[0]

    def _room(self, code):
        """Bytes that a frame of a code object takes in the data stack."""
        code = self._codes.get(code) or self._code(code)
        return 8 * code.room

    def _chain(self, address, chunk, region, end, depth, held, still):
        """(Raw, addresses of the generators' frames in it), from the innermost on.

        end: where the data stack ends.  held: {address: bytes} of frames that lie elsewhere; any other is read now.  still:
        whether it stands still.  Raises Cut for what cannot be a stack.
        """
        size, mask, parse, shim = self._frame_size, self._mask, self._parse, _SHIM
        pointers, entered = self._layout.version >= (3, 14), self._layout.frame_entry is not None
        older = [(chunk, region)]
        found, seen, apart = [], set(), []
        last = len(region) - size
        owner, through_c, unsure = shim, True, False
        while address:
            if address in seen:
                raise (Endless if len(seen) > _LONG else Cut)("its frames go in a circle")
            if len(seen) == MOST_FRAMES:
                return Raw(tuple(found), depth, True, True), tuple(apart)
            seen.add(address)
            at, elsewhere = address - chunk, False
            if 0 <= at <= last:
                code, back, instruction, stack, entry, owner = parse(region, at)
            else:
                data, at = self._elsewhere(address, older)
                if data is None:
                    data, at, elsewhere = held.get(address), 0, True
                    if data is None:
                        data = self._read(address, size)
                code, back, instruction, stack, entry, owner = parse(data, at)
            if owner < shim:
                code &= mask
                if still:
                    pass
                elif pointers:
                    # one that has ended holds no code, one that runs Python code itself holds no stack: all inside has ended
                    if not code or not stack:
                        found, apart = [], []
                    if not code:
                        address = back
                        continue
                elif stack == -1:
                    if not through_c:
                        found, apart, unsure = [], [], False        # it runs itself: what it called has ended
                elif through_c:
                    found, apart, unsure = [], [], True
                if unsure and 0 <= at <= last and not elsewhere:
                    # it has called another since, or has ended: then one further out runs
                    try:
                        caller = found[0][0] if found else address
                        inner, others = self._called(caller, address + self._room(code), 0 if found else self._iterated(
                            address, stack, chunk, region), chunk, region)
                        found, apart, unsure = inner + found, others + apart, False
                    except Moved:
                        pass
                through_c = entered and entry == 1
                found.append((address, code, instruction, owner))
                if elsewhere:
                    apart.append(address)
            elif owner > 8:
                raise Cut(f"no frame at {address:#x}")
            else:
                through_c = True
                if not depth:
                    depth = address
            address = back
        if unsure or (owner < shim and (self._layout.version >= (3, 12) or not through_c)):
            raise Moved                 # the frame of a generator that is just coming or going
        start, data = older[-1]
        first = start + _FIRST_FRAME
        rooted = not data or (not struct.unpack_from("<Q", data)[0] and (first in seen or (start == chunk and end == first)))
        return Raw(tuple(found), depth, rooted), tuple(apart)

    def _elsewhere(self, address, older):
        """(bytes, place) of a frame in an older part of the data stack, which `older` grows by; (None, 0) elsewhere."""
        for start, data in (older[-1], *older[1:-1]) if len(older) > 1 else ():
            if 0 <= address - start <= len(data) - self._frame_size:
                return data, address - start
        while len(older) < _MOST_CHUNKS:
            start, = struct.unpack_from("<Q", older[-1][1] or bytes(8), 0)
            if not start:
                break
            _, size, top = struct.unpack("<QQQ", self._read(start, 24))
            if not 64 <= size <= _LONGEST_CHUNK or top > size:
                raise Cut(f"no data stack at {start:#x}")
            data = self._read(start, min(size, 24 + 8 * top + 64))
            older.append((start, data))
            if 0 <= address - start <= len(data) - self._frame_size:
                return data, address - start
        return None, 0

    # up to 3.10: objects in the heap

    def _once_heap(self, address, _):
        """A Raw, or None when what was read is not of one moment.

        The outer part seldom changes: it is read before and after.  The inner part is read twice in between, down to frames
        of the outer part that are as they were; so the stack is that of the moment between these two.
        """
        top = address + self._layout.thread_frame
        word = self._objects.word
        depth = word(address + self._layout.thread_depth) if self._layout.thread_depth is not None else 0
        chain, _ = self._heap_chain(word(top), {}, ())
        for _ in range(_HEAP_TRIES):
            places = {frame[0]: place for place, frame in enumerate(chain)}
            try:
                inner, count = self._heap_chain(word(top), places, chain)
                agree = inner and _agree(inner, self._heap_chain(inner[0][0], places, chain)[0])
                chain, _ = self._heap_chain(word(top), {}, ())
                if not inner and not chain:
                    return Raw((), depth, True)
                if agree and inner[count:] == chain[len(chain) - len(inner) + count:] and len(chain) + count >= len(inner):
                    return Raw(inner[:MOST_FRAMES], depth, True, len(inner) >= MOST_FRAMES)
            except Exhausted:
                raise
            except (Unreadable, Moved):
                continue
        return None

    def _heap_chain(self, address, known, tail):
        """(frames, how many of them are surely of now) from an address on.

        known: {address: place} of the frames in `tail`, which were read before: where _JOINT of these follow one another as
        they were, the others are taken from there.
        """
        layout, size, read = self._layout, self._frame_size, self._read
        unpack = struct.Struct("<Q").unpack_from
        back_at, code_at, instruction_at, live_at = (layout.frame_back, layout.frame_code, layout.frame_instruction,
                                                     layout.frame_live)
        living = (0, 2) if layout.version >= (3, 10) else (1,)
        found, seen, same = [], set(), 0
        while address:
            if address in seen:
                raise (Endless if len(seen) > _LONG else Cut)("its frames go in a circle")
            if len(seen) == MOST_FRAMES:
                break
            seen.add(address)
            data = read(address, size)
            kind, = unpack(data, 8)
            if kind != self._frame_type:
                self._learn_frame(address, kind)
            if data[live_at] not in living:
                raise Moved
            instruction, = struct.unpack_from("<i", data, instruction_at)
            frame = (address, unpack(data, code_at)[0], instruction, 0)
            place = known.get(address)
            address, = unpack(data, back_at)
            found.append(frame)
            same = same + 1 if place and tail[place] == frame else 0
            if same == _JOINT and place + 1 < len(tail) and address == tail[place + 1][0]:
                return tuple(found) + tail[place + 1:], len(found) - 1
        return tuple(found), len(found) - 1

    def _learn_frame(self, address, kind):
        if self._frame_type is not None or self._objects.type_name(address) != ("frame", False):
            raise Cut(f"no frame at {address:#x}")
        self._frame_type = kind

    def still(self, state, raw, exactly=False):
        """Whether a thread's stack is as it was; the instruction of its innermost frame may have gone on, unless `exactly`."""
        try:
            now = self._settled(state)
        except (Cut, Unreadable):
            return False
        return now is not None and (raw.frames == now.frames if exactly else _agree(raw.frames, now.frames))

    def suspended(self, generator, interpreter):
        """(Frame, raw frame) of a generator that does not run.  Raises Cut or Unreadable."""
        if self._structs:
            address = generator + (_GENERATOR_FRAME if self._layout.version >= (3, 12) else _GENERATOR_FRAME_3_11)
            code, _, instruction, _, _, owner = self._parse(self._read(address, self._frame_size), 0)
            raw = address, code & self._mask, instruction, owner
        else:
            address = self._objects.word(generator + 16)
            if self._objects.type_name(address) != ("frame", False):
                raise Cut("a generator without a frame")
            raw = (address, self._objects.word(address + self._layout.frame_code),
                   *struct.unpack("<i", self._read(address + self._layout.frame_instruction, 4)), 0)
        self._checked.clear()
        self._texts.clear()
        return self._frames(Raw((raw,), 0, True), interpreter)[0], raw

    # --- code objects -----------------------------------------------------------------------------

    def _frames(self, raw, interpreter):
        """The Frames of a Raw.  Raises Cut or Unreadable where one of its code objects is not there any more."""
        found = []
        for _, address, instruction, _ in raw.frames:
            code = self._checked.get(address)
            if code is None:
                code = self._checked[address] = self._fresh[address] = self._code(address)
            found.append(Frame(code.function, code.file, self._line(code, instruction), interpreter))
        return tuple(found)

    def _line(self, code, instruction):
        if code.start is None:
            at = instruction * 2 if self._layout.version >= (3, 10) else instruction
        else:
            at = instruction - code.start
            if not -2 <= at <= code.size:
                raise Cut(f"an instruction that is none of {code.function}")
        line = lines.line_at(code.table, at, code.first)
        return line if line is not None and line > 0 else None

    def _code(self, address):
        """The Code at an address: what is remembered, when all that it was made of is still the same; else read.

        Other threads run meanwhile: what was compared for one of them may be another's code by now.
        """
        layout = self._layout
        data = self._read(address, layout.code_size)
        words = self._words(data)
        _, size, file, name, table, first, *_ = words
        code = self._codes.get(address)
        if code is not None and code.words == words and self._fresh.get(address) is code:
            return code
        texts = [self._text(file), self._text(name)]
        if code is not None and code.words == words and [code.file, code.function] == texts:
            if self._read(table + 32, len(code.held)) == code.held:
                return code
        if self._objects.type_name(address) != ("code", False):
            raise Unreadable(f"no code at {address:#x}")
        if size > 1 << 28:
            raise Unreadable(f"no code at {address:#x}")
        code = Code()
        code.words = words
        code.file, code.function = texts
        code.held = self._objects.raw_bytes(table, lines.LONGEST)
        code.first = first
        self._takes(len(code.held) >> 2)
        code.table = self._decode(code.held, first)
        code.start = None if layout.code_start is None else address + layout.code_start
        code.size = 2 * size
        room, = struct.unpack_from("<i", data, layout.code_room) if self._structs else (0,)
        code.room = room + 9 + struct.unpack_from("<i", data, layout.code_nlocals)[0] if layout.version == (3, 11) else room
        code.names = None
        if self._words(self._read(address, layout.code_size)) != words:
            raise Unreadable(f"no code at {address:#x} any more")
        self._made = True
        self._codes[address] = code
        return code

    def _words(self, data):
        """What tells one code object from another: its type, size, file, name, table, first line, flags, names of variables."""
        layout, unpack = self._layout, struct.Struct("<Q").unpack_from
        size, = unpack(data, 16) if self._structs else (0,)        # of its instructions, which lie behind, in words of theirs
        return (unpack(data, 8)[0], size,
                unpack(data, layout.code_file)[0], unpack(data, layout.code_qualname or layout.code_name)[0],
                unpack(data, layout.code_lines)[0], struct.unpack_from("<i", data, layout.code_first_line)[0],
                struct.unpack_from("<I", data, layout.code_flags)[0], unpack(data, layout.code_varnames)[0])

    def _text(self, address):
        found = self._texts.get(address)
        if found is None:
            found = self._texts[address] = self._objects.string(address)
        return found

    # --- variables --------------------------------------------------------------------------------

    def variables(self, raw_frame):
        """[(name, address of the value)] of a frame's arguments and locals that have one.  Raises Unreadable."""
        address, code, _, _ = raw_frame
        names = self.names(code)
        count = len(names)
        data = self._read(address + self._layout.frame_locals, 8 * count) if count else b""
        return [(name, value) for name, value in zip(names, struct.unpack(f"<{count}Q", data))
                if value & self._mask or (self._objects.tagged and value & 2)]          # from 3.14 NULL and small numbers have tags

    def names(self, code):
        """The names of a code object's arguments, locals and cells, in the order in which its frames hold them.  Raises Unreadable."""
        layout, known = self._layout, self._fresh[code]
        if known.names is None:
            names = []
            for place in (layout.code_varnames, *layout.code_cells):
                held = self._objects.word(code + place)
                if not self._objects.is_a(held, "tuple"):
                    raise Unreadable("no names of variables")
                names += [self._objects.string(each, 256) for each in self._objects.items(held, 256)[0]]
            known.names = names
        return known.names


def _parser(layout):
    """A function of (bytes, place): (code, back, instruction, stack, entry, owner) of the frame there.

    Raises TelError when they do not follow one another in this order, as they do in every version that is known: what a process tells
    of itself may be anything.
    """
    entry = layout.frame_owner - 1 if layout.frame_entry is None else layout.frame_entry       # before an owner is no other field
    form, at = "<", 0
    for offset, kind in ((layout.frame_code, "Q"), (layout.frame_back, "Q"), (layout.frame_instruction, "Q"),
                         (layout.frame_stack, "Q" if layout.version >= (3, 14) else "i"), (entry, "B"), (layout.frame_owner, "B")):
        form += "x" * (offset - at) + kind
        at = struct.calcsize(form)
        if at - struct.calcsize(kind) != offset:
            raise TelError("the offsets that this Python tells make no sense (a frame's fields are in another order)")
    return struct.Struct(form).unpack_from


def _agree(first, second):
    """Whether two chains of raw frames are the same; the instruction of the innermost may have gone on."""
    if len(first) != len(second):
        return False
    if not first:
        return True
    return first[1:] == second[1:] and first[0][:2] == second[0][:2] and first[0][3] == second[0][3]
