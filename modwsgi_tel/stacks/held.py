"""Locks in foreign memory: what a name stands for in a frame, which locks a frame keeps on its own stack, who owns an RLock.

While a frame is inside of `with X`, what is called at its end stands on the frame's stack: the bound `__exit__` of X, or from
3.14 that method and X.  Source: Modules/_threadmodule.c, Objects/methodobject.c, Python/ceval.c and bytecodes.c of each version.
"""
import ast
import struct
from collections import namedtuple

from modwsgi_tel.stacks.memory import Unreadable
from modwsgi_tel.stacks.walker import Cut

Lock = namedtuple("Lock", "address kind locked owner futex")
Lock.__doc__ = """kind: "lock" or "rlock".  locked: whether somebody has it.  owner: of an RLock the ident of the thread that has it, else
0.  futex: the address that who waits for it tells the kernel, None where that is another (from 3.14)."""

_KINDS = {"_thread.lock": "lock", "_thread.RLock": "rlock"}
_GIL = 512                              # bytes of a GIL with its conditions, or more
_SEMAPHORE = 16                         # bytes at the beginning of a sem_t in which who waits does so; the next one is 32 away or more
_RLOCK_OWNER, _RLOCK_COUNT = 24, 32
_METHODS, _SELF = 16, 24                # of a builtin or bound method: what it calls, and of what
_DESCRIPTOR_NAME, _FUNCTION_NAME = 24, 32
_TYPE_DICT, _TYPE_MRO, _IS_TYPE = 264, 344, 1 << 31
_MOST_LOCALS = 256                      # beyond, not all names are read: then it is not known where a frame's stack begins
_STACK_MOST = 256                       # words of a frame's own stack
_NAMES_MOST = 4096                      # of a module or a class
_MRO_MOST = 32

ENTER, EXIT, PLAIN = "enter", "exit", "plain"


class Held:
    """Reads what frames hold.  looker: a reader.Looker, after a look; what it saw may have gone on since.

    outer: {tid in the process's namespace: tid in ours}, {} where these are the same.
    """

    def __init__(self, looker, outer):
        looker.anew()
        self._walker, self._objects, self._layout = looker.walker, looker.objects, looker.runtime.layout
        self._threads = {outer.get(native, native): parts for native, parts in looker.held.items()}
        self._idents = {ident: outer.get(native, native) for ident, native in looker.idents.items()}
        self._read = looker.read
        self._mask = ~3 if self._layout.version >= (3, 14) else ~0

    # --- threads ----------------------------------------------------------------------------------------

    def frames(self, tid):
        """The raw frames of a thread, innermost first, one for each Frame of its ThreadStack; () where they are not known."""
        return [frame for _, raw in self._threads.get(tid, ()) for frame in raw.frames]

    def tid(self, ident):
        """The tid of the thread that has this ident, or None."""
        return self._idents.get(ident)

    def still(self, tid):
        """Whether a thread stands where it stood at the look, at the same instruction."""
        return bool(self._threads.get(tid)) and all(self._walker.still(state, raw, True) for state, raw in self._threads[tid])

    def of_gil(self, address):
        """Whether this is where who waits for a GIL waits."""
        try:
            gils = [each.gil for each in self._walker.interpreters()]
        except Unreadable:
            return False
        return any(gil and gil <= address < gil + _GIL for gil in gils)

    # --- locks ------------------------------------------------------------------------------------------

    def lock(self, address):
        """The Lock that is, or is inside of, an object: of a Condition its lock.  None for any other."""
        try:
            kind = _KINDS.get(self._objects.type_name(address)[0])
            if kind is None:
                address = self._of_condition(address)
                kind = address and _KINDS.get(self._objects.type_name(address)[0])
            return self._lock(address, kind) if kind else None
        except (Unreadable, struct.error):
            return None

    def _lock(self, address, kind):
        locked, layout = 0, self._layout
        futex = None if layout.version >= (3, 14) else self._objects.word(address + 16)
        if kind == "lock":
            locked = self._read(address + layout.lock_locked, 1)[0] & 1
            return Lock(address, kind, bool(locked), 0, futex)
        owner = self._objects.word(address + _RLOCK_OWNER)
        has = owner and (layout.version >= (3, 14) or self._objects.word(address + _RLOCK_COUNT))
        return Lock(address, kind, bool(has), owner if has else 0, futex)

    def _of_condition(self, address):
        named = self.attributes(address)
        return named["_lock"] if "_lock" in named and "_waiters" in named else 0

    def attributes(self, address):
        """{name: value's address} of an instance; {} where it has none that can be read."""
        objects, found = self._objects, {}
        try:
            for label, value in objects.attributes(address)[:_NAMES_MOST]:
                if objects.is_a(label, "str"):
                    found[objects.text(label, 64)[0]] = value
        except (Unreadable, struct.error):
            pass
        return found

    def generator(self, address):
        """(Frame, raw frame) of the generator that a context manager of contextlib was made of; None for any other object."""
        of = self.attributes(address).get("gen")
        try:
            return self._walker.suspended(of, 0) if of and self._objects.is_a(of, "generator") else None
        except (Unreadable, Cut, struct.error):
            return None

    def number(self, address):
        """The value of an int, or None."""
        try:
            return int(self._objects.value(address)) if self._objects.is_a(address, "int") else None
        except (Unreadable, struct.error, ValueError):
            return None

    # --- what a name stands for -----------------------------------------------------------------------

    def local(self, frame, name):
        """The address of a variable's value, or 0."""
        try:
            return self._local(frame, name)
        except (Unreadable, struct.error):
            return 0

    def first(self, frame):
        """The address of a frame's first argument, or 0."""
        try:
            names = self._walker.names(frame[1])
            return self._local(frame, names[0]) if names else 0
        except (Unreadable, struct.error):
            return 0

    def _local(self, frame, name):
        for each, value in self._walker.variables(frame):
            if each == name:
                if value & 3 == 3 and self._objects.tagged:
                    return 0            # a small number
                value &= self._mask
                return self._objects.word(value + 16) if self._objects.is_a(value, "cell") else value
        return 0

    def value(self, frame, node):
        """The address of what an expression (of ast) stands for in a raw frame, or 0: names, attributes and items alone."""
        try:
            return self._value(frame, node, 0)
        except (Unreadable, struct.error):
            return 0

    def _value(self, frame, node, depth):
        if depth > 8:
            return 0
        if isinstance(node, ast.Name):
            return self._local(frame, node.id) or self._in(self._objects.word(frame[0] + self._layout.frame_globals), node.id)
        if isinstance(node, ast.Attribute):
            of = self._value(frame, node.value, depth + 1)
            return self._attribute(of, node.attr) if of else 0
        if isinstance(node, ast.Subscript):
            of = self._value(frame, node.value, depth + 1)
            return self._item(frame, of, node.slice) if of else 0
        return 0

    def _in(self, space, name):
        """A value in a dictionary of names, or 0."""
        if not name.isascii() or not self._objects.is_a(space, "dict"):
            return 0
        return self._objects.lookup(space, (name,), _NAMES_MOST).get(name, 0)

    def _attribute(self, address, name):
        objects = self._objects
        if objects.is_a(address, "module"):
            return self._in(objects.word(address + 16), name)
        kind = objects.word(address + 8)
        if struct.unpack("<Q", self._read(kind + self._layout.type_flags, 8))[0] & _IS_TYPE:
            return self._of_class(address, name)
        return self.attributes(address).get(name) or self._of_class(kind, name)

    def _of_class(self, kind, name):
        objects = self._objects
        for each in objects.items(objects.word(kind + _TYPE_MRO), _MRO_MOST)[0]:
            space = objects.word(each + _TYPE_DICT)
            if space:
                found = self._in(space, name)
                if found:
                    return found
        return 0

    def _item(self, frame, of, node):
        node = getattr(node, "value", node) if type(node).__name__ == "Index" else node         # 3.8 wraps it
        if isinstance(node, ast.Constant):
            key = repr(node.value)
        elif isinstance(node, ast.Name):
            at = self._local(frame, node.id)
            key = self._objects.value(at) if at else ""
        else:
            return 0
        objects = self._objects
        if objects.is_a(of, "dict"):
            return next((value for label, value in objects.entries(of, _NAMES_MOST) if objects.value(label) == key), 0)
        if not key.lstrip("-").isdigit():
            return 0
        if objects.is_a(of, "list"):
            size, start = objects.word(of + 16), objects.word(of + 24)
        elif objects.is_a(of, "tuple"):
            size, start = objects.word(of + 16), of + self._layout.tuple_items
        else:
            return 0
        place = int(key) + (size if key.startswith("-") else 0)
        return objects.word(start + 8 * place) if 0 <= place < size <= 1 << 32 else 0

    # --- what stands on a frame's own stack -----------------------------------------------------------

    def stack(self, frame):
        """[(role, address of an object)] of a frame's own stack, the lowest first; nothing but what may be of a lock.

        role: EXIT, for a `with` of that object that is entered (up to 3.11 and from 3.14: or is just being); ENTER, while it is
        (from 3.14); PLAIN: the object itself, or any other method of it.  Behind these may be what has been left there.
        """
        try:
            return self._stack(frame)
        except (Unreadable, struct.error):
            return []

    def _stack(self, frame):
        address, code, _, _ = frame
        layout = self._layout
        count = len(self._walker.names(code))
        depth, = struct.unpack("<i", self._read(code + layout.code_stack, 4))
        if not 0 < depth <= _STACK_MOST or count >= _MOST_LOCALS:
            return []
        words = struct.unpack(f"<{depth}Q", self._read(address + layout.frame_locals + 8 * count, 8 * depth))
        found, before = [], None
        for word in words:
            role = None
            if word & self._mask and not (word & 3 and self._mask == ~0):
                try:
                    role, of = self._entry(word & self._mask)
                except (Unreadable, struct.error):
                    role = None
            if role in (EXIT, ENTER) and not of:
                before = role           # from 3.14: a method alone, what it is of comes next
                continue
            if before is not None:
                found.append((before, word & self._mask))
            elif role is not None:
                found.append((role, of))
            before = None
        return found

    def _entry(self, address):
        """(role, object) of what a word on a stack points to; the object is 0 for a method that is not bound; (None, 0) else."""
        objects = self._objects
        kind, made = objects.type_name(address)
        if kind in _KINDS or made:
            return (PLAIN, address)
        if kind == "builtin_function_or_method":
            name, of = objects.cstring(objects.word(objects.word(address + _METHODS))), objects.word(address + _SELF)
        elif kind == "method":
            name, of = self._function_name(objects.word(address + _METHODS)), objects.word(address + _SELF)
        elif kind == "method_descriptor":
            name, of = objects.string(objects.word(address + _DESCRIPTOR_NAME), 32), 0
        elif kind == "function":
            name, of = self._function_name(address), 0
        else:
            return (None, 0)
        if name in ("__exit__", "__aexit__"):
            return (EXIT, of)
        if name == "__enter__":
            return (ENTER, of)
        return (PLAIN, of) if of else (None, 0)

    def _function_name(self, address):
        if not self._objects.is_a(address, "function"):
            return ""
        return self._objects.string(self._objects.word(address + (_FUNCTION_NAME if self._layout.version >= (3, 10) else 64)), 32)


def waits_on(lock, uaddr):
    """Whether who waits at that address in the kernel waits for that Lock; None where that cannot be told."""
    return None if uaddr is None or lock.futex is None else lock.futex <= uaddr < lock.futex + _SEMAPHORE
