"""From memory and a Layout to interpreters, threads and frames.

A thread may run on while it is read.  So what is read is read twice, and only what agrees is taken; the instruction of the
innermost frame alone may differ.  Every chain is bounded, and checked for circles and for objects that are not what they
should be: what is wrong is `moving` or `cut`, never a plausible half.
"""
import struct
from collections import namedtuple

from modwsgi_tel.stacks import lines
from modwsgi_tel.stacks.memory import Unreadable
from modwsgi_tel.stacks.model import MOVING, Frame

MOST_INTERPRETERS = 1024
MOST_THREADS = 4096
MOST_FRAMES = 20000
_TRIES = 60                             # of a thread that moves: each takes some ten microseconds
_ENDLESS_TRIES = 3                      # one after another: each takes long
_LONG = 1000                            # frames: what takes no longer is tried as often as anything else
_CODE_TRIES = 3                         # of a thread whose frames agree but whose code does not
_HEAP_TRIES = 30                        # of its innermost frames, for each of these
_SLACK = 1024                           # of a data stack, behind where it ended a moment ago
_LONGEST_CHUNK = 1 << 20
_LARGEST_STATE = 1024                   # bytes of a PyThreadState, or more
_MOST_CHUNKS = 4096
_MOST_CODES = 50000
_NEAR = 4                               # frames that the one that runs is looked for in
_FIRST_FRAME = 32                       # place of a thread's first frame in its data stack: behind three words and one unused
_SHIM = 3                               # owner of a frame: from this on it is none of Python's

ThreadState = namedtuple("ThreadState", "address interpreter ident native owns_gil")
ThreadState.__doc__ = """address: of the PyThreadState.  interpreter: its id.  ident: threading's, a pthread_t.  native: its thread id in
its own namespace, or None before 3.11.  owns_gil: whether it holds the GIL that its interpreter uses."""

Interpreter = namedtuple("Interpreter", "address id gil")
Raw = namedtuple("Raw", "frames depth rooted")
Raw.__doc__ = """frames: ((address, code, instruction, owner), ...), innermost first, without shims.
depth: where the innermost lies on the C stack, or 0: the smaller, the further in.  rooted: whether the first frame of its
data stack is among them, so that nothing is missing further out."""


class Code:
    """What is known of a code object, with what was read to know it: the next look reads that again and compares."""

    __slots__ = ("words", "held", "function", "file", "first", "table", "start", "names", "size", "room")


class Cut(Exception):
    """A stack that ends where it should not; the text says why."""


class Endless(Cut):
    """A chain in a circle, or one that is too long."""


class Moved(Cut):
    """What was read is not of one moment."""


class Walker:
    """Reads the interpreters, threads and stacks of one process.

    memory: memory.Limited.  objects: objects.Objects of the same.
    """

    def __init__(self, memory, runtime, objects):
        self._read, self._takes = memory.read, memory.takes
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

    # --- stacks ---------------------------------------------------------------------------------------

    def stack(self, state):
        """(frames, problem, raw) of a thread: Frames innermost first, None or MOVING or "cut: why", the Raw."""
        before = None
        for _ in range(_CODE_TRIES):
            raw, self._made = None, False
            self._checked.clear()
            self._texts.clear()
            try:
                raw = self._settled(state)
                if raw is None:
                    break
                frames = self._frames(raw, state.interpreter)
                if not self._made or self.still(state, raw):
                    return frames, None, raw
            except (Cut, Unreadable) as error:
                if raw is None or raw == before:
                    return (), f"cut: {error}", None
                before = raw
        return (), MOVING, None

    def _settled(self, state):
        """The Raw of one moment, or None when there is none to be had.  Raises Cut when all tries end the same way."""
        once = self._once_struct if self._structs else self._once_heap
        ends, plan, endless = set(), [0, 0, (), None, 0], 0
        for _ in range(_TRIES):
            try:
                raw = once(state.address, plan)
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
        layout, read, size = self._layout, self._read, self._frame_size
        chunk, length, apart, before, cframe = plan
        head = read(address, self._head_size)
        try:
            current = read(cframe + layout.cframe_frame, 8) if cframe else b""
        except Unreadable:
            plan[4] = 0
            raise Moved from None
        region = read(chunk, length) if length else b""
        try:
            held = {each: read(each, size) for each in apart}
            second = read(chunk, length) if apart and length else region
            later = {each: read(each, size) for each in apart}
        except Unreadable:
            plan[2:4] = (), None
            raise Moved from None
        now, end = struct.unpack_from("<QQ", head, layout.thread_chunk)
        needed = min(max(end - now, 0), _LONGEST_CHUNK) if now else 0
        innermost, = struct.unpack_from("<Q", head, layout.thread_frame)
        depth = 0
        if layout.cframe_frame is not None and innermost:
            depth = plan[4] = innermost
            innermost, = struct.unpack("<Q", current if cframe == depth else read(depth + layout.cframe_frame, 8))
        if not innermost:
            if layout.cframe_frame is not None and not address <= depth < address + _LARGEST_STATE:
                raise Moved             # only the first cframe, which lies in the thread's own state, has no frame at all
            return Raw((), depth, True)
        if now != chunk or needed > length:
            plan[:2] = now, min(needed + _SLACK, _LONGEST_CHUNK)
            if needed:
                try:
                    read(now, plan[1])
                except Unreadable:
                    plan[1] = needed    # it ends where its memory does
            return self._once_struct(address, plan) if not length or now != chunk else None
        plan[3] = innermost, head, region, held
        still = plan[3] == before
        if not still:
            innermost = self._running(innermost, chunk, region)
        raw, missing = self._chain(innermost, chunk, region, end, depth, held, still)
        plan[2] = missing
        if any(each not in held for each in missing):
            raise Moved                 # it is read together with the others, at the next try
        if missing:
            # generators lie elsewhere: all must have been as it was before and after they were read
            again, _ = self._chain(raw.frames[0][0], chunk, second, end, depth, later, still)
            return raw if _agree(raw.frames, again.frames) else None
        return raw

    def _running(self, address, chunk, region):
        """The address of the frame that runs, by the bytes of the data stack: the one that was innermost, or one near it."""
        layout = self._layout
        last = len(region) - self._frame_size
        if layout.version >= (3, 14):
            return address              # it is checked when it is walked over
        word, depth_of = struct.Struct("<Q").unpack_from, struct.Struct("<i").unpack_from
        wanted = address
        for _ in range(_NEAR):
            at = wanted - chunk
            if not 0 <= at <= last:
                return address          # a generator's, or a shim: nothing to be seen here
            if depth_of(region, at + layout.frame_stack)[0] == -1:
                return wanted
            above = at + self._room(word(region, at + layout.frame_code)[0])
            if above <= last and word(region, above + layout.frame_back)[0] == wanted:
                if depth_of(region, above + layout.frame_stack)[0] == -1 and region[above + layout.frame_owner] < _SHIM:
                    return chunk + above
            wanted = word(region, at + layout.frame_back)[0]
        return address

    def _room(self, code):
        """Bytes that a frame of a code object takes in the data stack."""
        code = self._codes.get(code) or self._code(code)
        return 8 * code.room

    def _chain(self, address, chunk, region, end, depth, held, still):
        """(Raw, addresses of the generators' frames in it), from the innermost on.

        end: where the data stack ends.  held: {address: bytes} of frames that lie elsewhere; any other is read now.  still:
        whether it stands still.  Raises Cut for what cannot be a stack.
        """
        layout, size, mask = self._layout, self._frame_size, self._mask
        unpack, depth_of = struct.Struct("<Q").unpack_from, struct.Struct("<i").unpack_from
        code_at, back_at, instruction_at = layout.frame_code, layout.frame_back, layout.frame_instruction
        owner_at, stack_at, entry_at = layout.frame_owner, layout.frame_stack, layout.frame_entry
        pointers = layout.version >= (3, 14)
        older = [(chunk, region)]
        found, seen, apart = [], set(), []
        last = len(region) - size
        owner, through_c, innermost = _SHIM, True, True
        while address:
            if address in seen or len(seen) > MOST_FRAMES:
                raise (Endless if len(seen) > _LONG else Cut)("its frames go in a circle, or have no end")
            seen.add(address)
            at = address - chunk
            if 0 <= at <= last:
                data = region
            else:
                data, at = self._elsewhere(address, older)
                if data is None:
                    data, at = held.get(address), 0
                    if data is None:
                        data = self._read(address, size)
                    if data[owner_at] < _SHIM:
                        apart.append(address)
            owner = data[at + owner_at]
            if owner < _SHIM:
                code = unpack(data, at + code_at)[0] & mask
                if pointers:
                    # a frame that has ended holds no code; one that runs Python code itself holds no stack
                    if not code or not (still or innermost or unpack(data, at + stack_at)[0]):
                        raise Moved
                elif not still and (depth_of(data, at + stack_at)[0] == -1) is not through_c:
                    raise Moved
                innermost = False
                through_c = entry_at is not None and data[at + entry_at] == 1
                found.append((address, code, unpack(data, at + instruction_at)[0], owner))
            elif owner > 8:
                raise Cut(f"no frame at {address:#x}")
            else:
                through_c = True
                if not depth:
                    depth = address
            address, = unpack(data, at + back_at)
        if owner < _SHIM and (layout.version >= (3, 12) or not through_c):
            raise Moved                 # the frame of a generator that is just coming or going
        start, data = older[-1]
        first = start + _FIRST_FRAME
        rooted = not data or (not unpack(data, 0)[0] and (first in seen or (start == chunk and end == first)))
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
        """A Raw, or None when what was read is not of one moment."""
        top = address + self._layout.thread_frame
        word = self._objects.word
        chain = self._heap_chain(word(top), {}, ())
        places = {frame[0]: place for place, frame in enumerate(chain)}
        depth = word(address + self._layout.thread_depth) if self._layout.thread_depth is not None else 0
        for _ in range(_HEAP_TRIES):
            # what lies further out is as it was a moment ago: only what is inside of that is read, and read again; then the rest
            try:
                inner = self._heap_chain(word(top), places, chain)
                if not inner or (_agree(inner, self._heap_chain(inner[0][0], places, chain))
                                 and _agree(inner, self._heap_chain(inner[0][0], {}, ())) and self._is_of(word(top), inner)):
                    return Raw(inner, depth, True)
            except (Unreadable, Cut):
                continue
            chain = inner
            places = {frame[0]: place for place, frame in enumerate(chain)}
        return None

    def _is_of(self, address, frames):
        """Whether frames are of the thread whose innermost frame is at an address: each code object has one frame that is
        used anew, by any thread, and may be another's by now."""
        if address == frames[0][0]:
            return True
        now = self._heap_chain(address, {frame[0]: place for place, frame in enumerate(frames)}, frames)
        return bool(now) and now[-1][:2] == frames[-1][:2]

    def _heap_chain(self, address, known, tail):
        """The frames from an address on; from where they are as `tail` has them, those."""
        layout, size, read = self._layout, self._frame_size, self._read
        unpack = struct.Struct("<Q").unpack_from
        back_at, code_at, instruction_at, live_at = (layout.frame_back, layout.frame_code, layout.frame_instruction,
                                                     layout.frame_live)
        living = (0, 2) if layout.version >= (3, 10) else (1,)
        found, seen = [], set()
        while address:
            if address in seen or len(seen) > MOST_FRAMES:
                raise (Endless if len(seen) > _LONG else Cut)("its frames go in a circle, or have no end")
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
            if place and tail[place] == frame and address == (tail[place + 1][0] if place + 1 < len(tail) else 0):
                return tuple(found) + tail[place:]      # from here on out it is as it was
            found.append(frame)
        return tuple(found)

    def _learn_frame(self, address, kind):
        if self._frame_type is not None or self._objects.type_name(address) != ("frame", False):
            raise Cut(f"no frame at {address:#x}")
        self._frame_type = kind

    def still(self, state, raw):
        """Whether a thread's stack is as it was; the instruction of its innermost frame may have gone on."""
        try:
            now = self._settled(state)
        except (Cut, Unreadable):
            return False
        return now is not None and _agree(raw.frames, now.frames)

    # --- code objects -----------------------------------------------------------------------------

    def _frames(self, raw, interpreter):
        """The Frames of a Raw; None when a code object in it was not there to be read, so that the stack has moved on."""
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
        layout, known = self._layout, self._fresh[code]
        if known.names is None:
            names = []
            for place in (layout.code_varnames, *layout.code_cells):
                held = self._objects.word(code + place)
                if not self._objects.is_a(held, "tuple"):
                    raise Unreadable("no names of variables")
                names += [self._objects.string(each, 256) for each in self._objects.items(held, 256)[0]]
            known.names = names
        count = len(known.names)
        data = self._read(address + layout.frame_locals, 8 * count) if count else b""
        return [(name, value) for name, value in zip(known.names, struct.unpack(f"<{count}Q", data))
                if value & self._mask or (self._objects.tagged and value & 2)]          # from 3.14 NULL and small numbers have tags


def _agree(first, second):
    """Whether two chains of raw frames are the same; the instruction of the innermost may have gone on."""
    if len(first) != len(second):
        return False
    if not first:
        return True
    return first[1:] == second[1:] and first[0][:2] == second[0][:2] and first[0][3] == second[0][3]
