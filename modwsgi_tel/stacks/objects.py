"""Python objects in foreign memory: text, dictionaries, and short safe values.  Nothing is ever called or followed far.

Every size, depth and count is bounded, since any of it may be garbage: then Unreadable, or a value that says so.
Source: Include/cpython/unicodeobject.h, longintrepr.h, Objects/dict-common.h and pycore_dict.h of each version.
"""
import struct

from modwsgi_tel.masking import BEYOND, MASKED, SECRET, quoted
from modwsgi_tel.stacks.memory import LONGEST_READ, Unreadable

LONGEST_TEXT = 4096
LONGEST_VALUE = 100
_MOST_ENTRIES = LONGEST_READ // 24
_MOST_SHOWN = 6                         # members of a container
_DEEPEST = 2
_MOST_DIGITS = 64                       # of 30 bits: numbers beyond are told by their size

_HEAP_TYPE = 1 << 9
_EXACT = ("NoneType", "bool", "int", "float", "str", "bytes", "tuple", "list", "dict", "cell")

_WORD = struct.Struct("<Q").unpack
_KINDS = {1: (1, "latin-1"), 2: (2, "utf-16-le"), 4: (4, "utf-32-le")}


class Objects:
    """Reads objects out of `memory` by a Layout.  What it remembers of types is forgotten by `forget`."""

    def __init__(self, memory, layout):
        self._read = memory.read
        self._layout = layout
        self._types = {}
        self.tagged = layout.version >= (3, 14)

    def forget(self):
        self._types.clear()

    def word(self, address):
        return _WORD(self._read(address, 8))[0]

    # --- types and text -------------------------------------------------------------------------

    def type_name(self, address):
        """(name, whether it is a class made at run time) of an object's type."""
        kind = self.word(address + 8)
        found = self._types.get(kind)
        if found is None:
            name = self.cstring(self.word(kind + self._layout.type_name))
            found = name, bool(self.word(kind + self._layout.type_flags) & _HEAP_TYPE)
            self._types[kind] = found
        return found

    def is_a(self, address, name):
        """Whether an object is of that built-in type exactly."""
        return self.type_name(address) == (name, False)

    def cstring(self, address):
        try:
            data = self._read(address, 128)
        except Unreadable:
            data = self._read(address, 16)          # at the very end of a mapping
        return data.partition(b"\0")[0].decode("utf-8", "replace")

    def text(self, address, longest=LONGEST_TEXT):
        """(text, whether it was cut) of a str.  Raises Unreadable for what cannot be one."""
        layout = self._layout
        try:
            head = self._read(address, 128)
        except Unreadable:
            head = self._read(address, layout.compact_size)
        length, = _WORD(head[16:24])
        state, = struct.unpack_from("<I", head, 32)
        size, encoding = _KINDS.get(state >> 2 & 7, (0, ""))
        if not size or length > 1 << 40:
            raise Unreadable(f"no text at {address:#x}")
        taken = min(length, longest)
        if not state & 32:              # not compact: its letters are elsewhere
            start = self.word(address + layout.compact_size)
            data = self._read(start, taken * size)
        else:
            start = layout.ascii_size if state & 64 else layout.compact_size
            data = head[start:start + taken * size]
            if len(data) < taken * size:
                data = self._read(address + start, taken * size)
        try:
            return data.decode(encoding, "surrogatepass"), length > longest
        except UnicodeDecodeError:
            raise Unreadable(f"no text at {address:#x}") from None

    def string(self, address, longest=LONGEST_TEXT):
        """The text of what must be a str."""
        name, made = self.type_name(address)
        if name != "str" or made:
            raise Unreadable(f"no text at {address:#x} but a {name[:40]!r}")
        return self.text(address, longest)[0]

    def raw_bytes(self, address, longest):
        """The content of a bytes object.  Raises Unreadable when it is none, or longer."""
        size = self.word(address + 16)
        if size > longest or not self.is_a(address, "bytes"):
            raise Unreadable(f"no bytes at {address:#x}")
        return self._read(address + 32, size) if size else b""

    def items(self, address, most):
        """The addresses of a tuple's first members."""
        size = self.word(address + 16)
        count = min(size, most)
        return struct.unpack(f"<{count}Q", self._read(address + self._layout.tuple_items, 8 * count)) if count else (), size

    # --- dictionaries ---------------------------------------------------------------------------

    def entries(self, address, most=_MOST_ENTRIES):
        """[(key's address, value's address)] of a dict, in order, `most` at most."""
        keys, values = struct.unpack("<QQ", self._read(address + 32, 16))
        return self._entries(keys, values, most)

    def _entries(self, keys, values, most):
        head = self._read(keys, 40)
        if self._layout.version < (3, 11):
            size, used = struct.unpack_from("<q", head, 8)[0], struct.unpack_from("<q", head, 32)[0]
            wide = 1 if size <= 0xFF else 2 if size <= 0xFFFF else 4 if size <= 0xFFFFFFFF else 8
            start, step, at = keys + 40 + size * wide, 24, 8
        else:
            used, = struct.unpack_from("<q", head, 24)
            size = 1 << min(head[9], 40)
            start = keys + 32 + size
            step, at = (24, 8) if head[10] == 0 else (16, 0)
        if not 0 <= used <= 1 << 32 or not 0 < size <= 1 << 40:
            raise Unreadable(f"no dict with keys at {keys:#x}")
        used = min(used, most)
        data = self._read(start, used * step) if used else b""
        found = [struct.unpack_from("<QQ", data, place + at) for place in range(0, len(data), step)]
        if values:
            skip = 0 if self._layout.version < (3, 13) else 8
            apart = struct.unpack(f"<{used}Q", self._read(values + skip, 8 * used)) if used else ()
            found = [(key, value) for (key, _), value in zip(found, apart)]
        return [(key, value) for key, value in found if key and value]

    def lookup(self, address, names, most=_MOST_ENTRIES):
        """{name: value's address} of those names that are keys of a dict."""
        found, start = {}, self._layout.ascii_size
        wanted = {name.encode("ascii"): name for name in names}
        size = start + max(map(len, wanted))
        for key, value in self.entries(address, most):
            try:
                data = self._read(key, size)
                length = _WORD(data[16:24])[0]
                name = wanted.get(data[start:start + length]) if length <= size - start else None
                if name is not None and self.is_a(key, "str"):
                    found[name] = value
                    if len(found) == len(names):
                        break
            except Unreadable:
                pass                    # a key that has gone meanwhile, or that is short and lies at the end of its memory
        return found

    def attributes(self, address):
        """[(name's address, value's address)] of an instance of a plain class.  Raises Unreadable where it has none."""
        version = self._layout.version
        kind = self.word(address + 8)
        flags = self.word(kind + self._layout.type_flags)
        if version < (3, 11):
            place, = struct.unpack("<q", self._read(kind + 288, 8))
            if not 0 < place < 4096:
                raise Unreadable("no attributes")
            return self.entries(self.word(address + place))
        if not flags & 16:              # Py_TPFLAGS_MANAGED_DICT
            raise Unreadable("no attributes")
        held = self.word(address - 24)
        shared = self.word(kind + self._layout.type_keys)
        if version < (3, 12):
            values = self.word(address - 32)
            return self._entries(shared, values, 256) if values else self.entries(held)
        if version < (3, 13):
            return self._entries(shared, held + 1, 256) if held & 1 else self.entries(held)
        if held:
            return self.entries(held)
        if not flags & 4:               # Py_TPFLAGS_INLINE_VALUES
            raise Unreadable("no attributes")
        basic = self.word(kind + 32)    # tp_basicsize: the values lie behind the object
        return self._entries(shared, address + basic, 256)

    # --- values ---------------------------------------------------------------------------------

    def value(self, address, longest=LONGEST_VALUE, depth=0):
        """A short text of any object, never longer than `longest`; nothing in the other process is called."""
        if self.tagged and address & 3 == 3:
            number = address >> 2
            return str(number - (1 << 62) if number >> 61 else number)
        try:
            shown = self._value(address & ~3 if self.tagged else address, longest, depth)
        except (Unreadable, struct.error):
            return "<unreadable>"
        return shown if len(shown) <= longest else shown[:longest - 3] + "..."

    def _value(self, address, longest, depth):
        name, made = self.type_name(address)
        if made or name not in _EXACT:
            return f"<{name.rpartition('.')[2][:60] or '?'} at {address:#x}>"
        if name == "NoneType":
            return "None"
        if name in ("int", "bool"):
            number = self._int(address)
            return str(bool(number)) if name == "bool" else str(number)
        if name == "float":
            return repr(struct.unpack("<d", self._read(address + 16, 8))[0])
        if name == "str":
            told, cut = self.text(address, longest + BEYOND)
            return quoted(told, cut, longest, repr)
        if name == "bytes":
            size = self.word(address + 16)
            told = self._read(address + 32, min(size, longest + BEYOND)).decode("latin-1")
            return quoted(told, size > len(told), longest, lambda text: repr(text.encode("latin-1")))
        if name == "cell":
            held = self.word(address + 16)
            return self.value(held, longest, depth + 1) if held and depth <= _DEEPEST else "<empty cell>"
        return self._container(address, name, longest, depth)

    def _int(self, address):
        head, = struct.unpack("<q", self._read(address + 16, 8))
        if self._layout.version < (3, 12):
            count, negative = abs(head), head < 0
        else:
            count, negative = head >> 3, head & 3 == 2
        if not 0 <= count < 1 << 32:
            raise Unreadable(f"no number at {address:#x}")
        if count > _MOST_DIGITS:
            return f"<int of some {count * 30} bits>"
        value = 0
        for digit in reversed(struct.unpack(f"<{count}I", self._read(address + 24, 4 * count))):
            value = value << 30 | digit
        return -value if negative else value

    def _is_secret(self, address):
        """Whether a key is a text that tells of a secret."""
        try:
            name, _ = self.type_name(address)
            told = (self.text(address)[0] if name == "str" else
                    self.raw_bytes(address, LONGEST_TEXT).decode("latin-1") if name == "bytes" else "")
        except Unreadable:
            return True
        return bool(SECRET.search(told))

    def _container(self, address, name, longest, depth):
        left, right = {"tuple": "()", "list": "[]", "dict": "{}"}[name]
        if depth > _DEEPEST:
            return f"{left}...{right}"
        if name == "dict":
            size = self.word(address + 16)
            members = []
            for key, value in self.entries(address, _MOST_SHOWN):
                label = self.value(key, longest // 2, depth + 1)
                members.append(f"{label}: {MASKED if self._is_secret(key) else self.value(value, longest // 2, depth + 1)}")
        else:
            size = self.word(address + 16)
            if name == "tuple":
                found, _ = self.items(address, _MOST_SHOWN)
            else:
                start = self.word(address + 24)
                count = min(size, _MOST_SHOWN)
                found = struct.unpack(f"<{count}Q", self._read(start, 8 * count)) if count else ()
            members = [self.value(each, longest // 2, depth + 1) for each in found]
            if size == 2 and self._is_secret(found[0]):             # a header, an item of a dict
                members[1] = MASKED
        if size > 1 << 48:
            raise Unreadable(f"no {name} at {address:#x}")
        more = [f"and {size - len(members):,} more"] if size > len(members) else []
        tail = "," if name == "tuple" and size == 1 else ""
        return f"{left}{', '.join(members + more)}{tail}{right}"


def shown_value(objects, name, address):
    """What is shown of a variable: masked when its name tells of a secret."""
    return MASKED if SECRET.search(name) else objects.value(address)
