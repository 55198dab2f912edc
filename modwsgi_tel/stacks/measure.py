"""What an object in foreign memory is, how long it is and about how many bytes it holds: containers first of all.

Every figure is checked for sense: a length beyond what is allocated, a table that is no power of two, a type that is none
is Unreadable, never a plausible number.  Offsets are of 64-bit CPython with a GIL, 3.8 to 3.15, where they are the same.
Source: Include/cpython/listobject.h, dictobject.h, setobject.h, bytearrayobject.h, object.h, Objects/dict-common.h and
pycore_dict.h (offsetof, each version); Modules/_collectionsmodule.c, _functoolsmodule.c, arraymodule.c (read).
"""
import struct
from collections import namedtuple

from modwsgi_tel.stacks.memory import Exhausted, Unreadable

Kind = namedtuple("Kind", "name role made basic own")
Kind.__doc__ = """A type.  name: as it names itself, "collections.deque".  role: what it is read as, a key of ROLES, "instance" (of
a class made at run time, or of one that is made of such) or "" (nothing that is looked into).  made: whether at run time.
basic: bytes of an instance.  own: the addresses of its dict and of those of its bases that are made at run time."""

Extent = namedtuple("Extent", "length bytes limit", defaults=(None,))
Extent.__doc__ = """length: members, letters or bytes.  bytes: what it has allocated itself, without its members.  limit: of the
length, where it keeps one itself (a deque's maxlen, lru_cache's maxsize), or None."""

# What types are read as.  Those made at run time in C say their module too; a bare name counts for a built-in type alone
ROLES = {"list": "list", "dict": "dict", "set": "set", "frozenset": "set", "tuple": "tuple", "bytearray": "bytearray", "str": "str",
         "bytes": "bytes", "collections.deque": "deque", "array.array": "array", "functools._lru_cache_wrapper": "lru_cache",
         "type": "type", "module": "module", "function": "function", "staticmethod": "wrapper", "classmethod": "wrapper",
         "property": "wrapper", "cell": "wrapper", "method": "method"}
CONTAINERS = frozenset(("list", "dict", "set", "deque", "bytearray", "array", "lru_cache"))
TEXTS = frozenset(("str", "bytes"))
LONGEST = 1 << 40
WRAPPED = 16                            # what a staticmethod, classmethod, property (its getter) or cell holds
METHOD_OF = 24                          # the object of a bound method
CACHED = 88                             # the function of an lru_cache
CLASS_DICT = 264                        # a type's own dict

_TYPE, _MADE, _BASES = 1 << 31, 1 << 9, 16
_SET_SIZE, _SET_SMALL = 200, 64
_DEQUE_SIZE, _BLOCK, _BLOCK_SIZE = 232, 64, 528     # a block: the one before, 64 members, the one behind
_LRU_CACHE, _LRU_MOST, _LRU_LINK = 72, 96, 72       # of lru_cache; a link's size
_HEADER = 16                            # the collector's, before what it tracks
_LONGEST_NAME = 200
_MOST_SLOTS, _AN_OBJECT = 1024, 16      # Py_T_OBJECT_EX, of a PyMemberDef
_PAGE, _SMALL_PAGE = 1 << 14, 1 << 12
_TRIES = 2                              # of what was being changed

_WORD = struct.Struct("<Q")


class Pages:
    """`memory` by pages that are kept: objects lie close together.  What is read twice is of the same moment.

    most: bytes that are read in all; then Exhausted.
    """

    def __init__(self, memory, most):
        self._memory = memory
        self._left = most
        self._pages, self._small_pages = {}, {}

    def fresh(self, address, size):
        """Exactly `size` bytes as they are now."""
        self._left -= size
        if self._left < 0:
            raise Exhausted("there is more to be read than one look may read")
        return self._memory.read(address, size)

    def read(self, address, size):
        """Exactly `size` bytes, as they were when their page was read."""
        number = address >> 14
        at = address & _PAGE - 1
        if at + size > _PAGE:
            return self.fresh(address, size)
        page = self._pages.get(number)
        if page is None:
            try:
                page = self.fresh(number << 14, _PAGE)
            except Exhausted:
                raise
            except Unreadable:
                page = b""              # it ends within
            self._pages[number] = page
        return page[at:at + size] if page else self._small(address, size)

    def _small(self, address, size):
        at = address & _SMALL_PAGE - 1
        if at + size > _SMALL_PAGE:
            return self.fresh(address, size)
        page = self._small_pages.get(address >> 12)
        if page is None:
            page = self._small_pages[address >> 12] = self.fresh(address - at, _SMALL_PAGE)
        return page[at:at + size]


class Measure:
    """Kinds and extents of objects.  pages: Pages.  objects: objects.Objects that reads by these.

    changing: how many were being changed at each try.
    """

    def __init__(self, pages, objects, layout):
        self._read, self._fresh = pages.read, pages.fresh
        self._objects = objects
        self._layout = layout
        self._kinds, self._slots = {}, {}
        self._by_role = {"list": self._list, "tuple": self._tuple, "dict": self._dict, "set": self._set, "deque": self._deque,
                         "bytearray": self._bytearray, "array": self._array, "lru_cache": self._lru_cache, "str": self._str,
                         "bytes": self._bytes}
        self.changing = 0
        self._last = 0, None            # the dict that was measured last, and what its keys are

    def kind(self, address, read=None):
        """The Kind of an object; read: other than by pages.  Raises Unreadable for what has no type."""
        place, = _WORD.unpack((read or self._read)(address + 8, 8))
        found = self._kinds.get(place)
        if found is None:
            found = self._kinds[place] = self._type(place)
        return found

    def _type(self, place):
        layout, read = self._layout, self._read
        name, basic, made, own = "", 0, False, []
        for step in range(_BASES):
            head = read(place, 296)
            meta, = _WORD.unpack_from(head, 8)
            flags, = _WORD.unpack_from(head, layout.type_flags)
            if not _WORD.unpack(read(meta + layout.type_flags, 8))[0] & _TYPE:
                raise Unreadable(f"no type at {place:#x}")
            told = self._objects.cstring(_WORD.unpack_from(head, layout.type_name)[0])
            if not step:
                name, made = told, bool(flags & _MADE)
                basic, = struct.unpack_from("<q", head, 32)
                if not 0 < basic < 1 << 20:
                    raise Unreadable(f"no type at {place:#x}")
            if flags & _MADE:
                own.append(_WORD.unpack_from(head, CLASS_DICT)[0])
            role = ROLES.get(told)
            if role is not None and ("." in told or not flags & _MADE):
                return Kind(name, role, made, basic, tuple(own))
            place, = _WORD.unpack_from(head, 256)
            if not place:
                break
        return Kind(name, "instance" if made else "", made, basic, tuple(own))

    def extent(self, address, role):
        """The Extent of a container or a text.  Raises Unreadable; for one that is being changed after a second try."""
        for left in reversed(range(_TRIES)):
            try:
                return self._by_role[role](address)
            except Exhausted:
                raise
            except Unreadable:
                if not left:
                    self.changing += 1
                    raise

    def _checked(self, right, address, role):
        if not right:
            raise Unreadable(f"no {role} at {address:#x}, or it is being changed")

    def _list(self, address):
        size, items, allocated = struct.unpack("<qQq", self._fresh(address + 16, 24))
        self._checked(0 <= size <= allocated < LONGEST and (items or not allocated), address, "list")
        if size:
            self._fresh(items + 8 * (size - 1), 8)
        return Extent(size, _HEADER + 40 + 8 * allocated)

    def _tuple(self, address):
        size, = struct.unpack("<q", self._fresh(address + 16, 8))
        self._checked(0 <= size < LONGEST, address, "tuple")
        return Extent(size, _HEADER + self._layout.tuple_items + 8 * size)

    def _keys(self, address):
        """(a dict's keys, values or 0, members, places used, bytes of the keys, the head of these), checked."""
        used, _, keys, values = struct.unpack("<qQQQ", self._fresh(address + 16, 32))
        head = self._fresh(keys, 40)
        if self._layout.version < (3, 11):
            room, usable, entries = (struct.unpack_from("<q", head, at)[0] for at in (8, 24, 32))
            index = room * (1 if room <= 0xFF else 2 if room <= 0xFFFF else 4 if room <= 0xFFFFFFFF else 8)
            size, step = 40, 24
            right = 0 < room <= LONGEST and not room & room - 1
        else:
            usable, entries = struct.unpack_from("<qq", head, 16)
            room, index = 1 << min(head[8], 62), 1 << min(head[9], 62)
            size, step = 32, 24 if head[10] == 0 else 16
            right = head[8] <= 40 and head[8] <= head[9] <= head[8] + 3 and head[10] <= 2
        # one that shares its keys has another number of its own; an empty one shares keys without any room
        most = max((room << 1) // 3, 0)
        right = (right and 0 <= used < LONGEST and 0 <= entries and 0 <= usable and entries + usable <= most
                 and used <= max(entries, 0))
        if right:
            again = struct.unpack("<Q", self._fresh(address + 32, 8))[0]
            right = again == keys
        self._checked(right, address, "dict")
        # without any room they are those that all empty ones share
        self._last = address, (keys, values, used, entries, size + index + step * most if most else 0, head)
        return self._last[1]

    def _known_keys(self, address):
        """As `_keys`, as of a moment ago where that was this dict."""
        return self._last[1] if self._last[0] == address else self._keys(address)

    def _dict(self, address):
        _, values, used, entries, held, _ = self._keys(address)
        return Extent(used, _HEADER + 48 + (8 * entries if values else held))

    def _set(self, address):
        fill, used, mask, table = struct.unpack("<qqqQ", self._fresh(address + 16, 32))
        self._checked(0 <= used <= fill <= mask + 1 <= LONGEST and not mask & mask + 1 and table, address, "set")
        if table != address + _SET_SMALL:
            self._fresh(table + 16 * mask, 16)
        return Extent(used, _HEADER + _SET_SIZE + (16 * (mask + 1) if table != address + _SET_SMALL else 0))

    def _deque(self, address):
        size, first, last, left, right, _, most = struct.unpack("<qQQqqQq", self._fresh(address + 16, 56))
        self._checked(0 <= size < LONGEST and first and last and 0 <= left <= _BLOCK and -1 <= right < _BLOCK and most >= -1
                      and (first != last or right - left + 1 in (size, 0)), address, "deque")
        return Extent(size, _HEADER + _DEQUE_SIZE + _BLOCK_SIZE * (size // _BLOCK + 1), most if most >= 0 else None)

    def _bytearray(self, address):
        size, allocated = struct.unpack("<qq", self._fresh(address + 16, 16))
        self._checked(0 <= size <= allocated < LONGEST or size == allocated == 0, address, "bytearray")
        return Extent(size, 56 + allocated)

    def _array(self, address):
        size, items, allocated, about = struct.unpack("<qQqQ", self._fresh(address + 16, 32))
        each, = struct.unpack("<i", self._fresh(about + 4, 4))
        self._checked(0 <= size <= allocated < LONGEST and 0 < each <= 16, address, "array")
        return Extent(size, 64 + each * allocated)

    def _lru_cache(self, address):
        cache, = _WORD.unpack(self._fresh(address + _LRU_CACHE, 8))
        most, = struct.unpack("<q", self._fresh(address + _LRU_MOST, 8))
        self._checked(cache and -1 <= most < LONGEST and self.kind(cache).name == "dict", address, "lru_cache")
        found = self._dict(cache)
        return Extent(found.length, found.bytes + found.length * (_LRU_LINK if most >= 0 else 0), most if most >= 0 else None)

    def _str(self, address):
        head = self._fresh(address + 16, 24)
        size, = struct.unpack_from("<q", head, 0)
        state, = struct.unpack_from("<I", head, 16)
        wide = state >> 2 & 7
        self._checked(0 <= size < LONGEST and wide in (1, 2, 4), address, "str")
        return Extent(size, (self._layout.ascii_size if state & 64 else self._layout.compact_size) + (size + 1) * wide)

    def _bytes(self, address):
        size, = struct.unpack("<q", self._fresh(address + 16, 8))
        self._checked(0 <= size < LONGEST, address, "bytes")
        return Extent(size, 33 + size)

    def attributes(self, address, kind):
        """[(name, value's address)] of what an object has in its slots and in its __dict__, without what is unset.

        Raises Unreadable where its class cannot be read.
        """
        slots = self._slots.get(kind)
        if slots is None:
            slots = self._slots[kind] = [each for own in kind.own if own for each in self._slots_of(own, kind.basic)]
        found = [(name, self._objects.word(address + place)) for name, place in slots]
        try:
            for key, value in self._objects.attributes(address):
                found.append((self._objects.string(key, _LONGEST_NAME), value))
        except Exhausted:
            raise
        except (Unreadable, struct.error):
            pass                        # it has slots alone, or its __dict__ is not made yet
        return [(name, value) for name, value in found if value]

    def _slots_of(self, own, basic):
        """[(name, place in the object)] of the slots that a class's own dict declares."""
        found = []
        for _, value in self._objects.entries(own, _MOST_SLOTS):
            if self._objects.is_a(value, "member_descriptor"):
                name, what, _, place = struct.unpack("<QiiQ", self._read(_WORD.unpack(self._read(value + 40, 8))[0], 24))
                if what == _AN_OBJECT and 16 <= place < basic:
                    found.append((self._objects.cstring(name), place))
        return found

    # --- members -------------------------------------------------------------------------------------

    def members(self, address, role, places):
        """[(key's address or the place, member's address)] of a container, of those places alone (sorted, from 0).

        A dict's and a set's places are those of their tables: not each holds a member.  A deque's are those of its first
        and its last block.  Raises Unreadable.
        """
        if not places:
            return []
        if role == "lru_cache":
            return self.members(_WORD.unpack(self._fresh(address + _LRU_CACHE, 8))[0], "dict", places)
        if role == "tuple":
            return self._at(address + self._layout.tuple_items, 8, 0, places)
        if role == "list":
            return self._at(_WORD.unpack(self._fresh(address + 24, 8))[0], 8, 0, places)
        if role == "set":
            mask, table = struct.unpack("<qQ", self._fresh(address + 32, 16))
            # a member that was taken out leaves a mark: its hash is -1
            return [(place, key) for place, key in self._at(table, 16, 0, places) if key]
        if role == "deque":
            return self._ends(address, len(places))
        if role != "dict":
            return []
        keys, values, _, entries, _, head = self._known_keys(address)
        if values:
            return self._objects.entries(address, len(places))
        if self._layout.version < (3, 11):
            room, = struct.unpack_from("<q", head, 8)
            start, step, at = keys + 40 + room * (1 if room <= 0xFF else 2 if room <= 0xFFFF else 4), 24, 8
        else:
            start = keys + 32 + (1 << min(head[9], 62))
            step, at = (24, 8) if head[10] == 0 else (16, 0)
        found = []
        places = [place for place in places if place < entries]
        for place, data in self._rows(start, step, places):
            key, value = struct.unpack_from("<QQ", data, at)
            if key and value:
                found.append((key, value))
        return found

    def _at(self, start, step, at, places):
        found = ((place, _WORD.unpack_from(data, at)[0]) for place, data in self._rows(start, step, places))
        return [(place, member) for place, member in found if member]

    def _rows(self, start, step, places):
        """(place, its bytes) of a table; those in front of it in one read."""
        near = [place for index, place in enumerate(places) if place == index]
        data = self._fresh(start, step * len(near)) if near else b""
        for place in near:
            yield place, data[step * place:step * (place + 1)]
        for place in places[len(near):]:
            yield place, self._fresh(start + step * place, step)

    def _ends(self, address, most):
        size, first, last, left, right = struct.unpack("<qQQqq", self._fresh(address + 16, 40))
        if not 0 <= left <= _BLOCK or not -1 <= right < _BLOCK or not size:
            return []
        once = first == last
        front = self._fresh(first + 8, 8 * _BLOCK)
        words = list(struct.unpack(f"<{_BLOCK}Q", front))[left:right + 1 if once else _BLOCK][:max(most // 2, 1)]
        if not once:
            back = struct.unpack(f"<{_BLOCK}Q", self._fresh(last + 8, 8 * _BLOCK))
            words += back[:right + 1][-max(most // 2, 1):]
        return [(place, word) for place, word in enumerate(words) if word]

    def room(self, address, role):
        """How many places the table has that `members` takes places of: not each holds a member."""
        if role == "lru_cache":
            return self.room(_WORD.unpack(self._fresh(address + _LRU_CACHE, 8))[0], "dict")
        if role == "dict":
            return self._known_keys(address)[3]
        if role == "set":
            return min(struct.unpack("<q", self._fresh(address + 32, 8))[0] + 1, LONGEST)
        return self.extent(address, role).length

    def weight(self, address, kind):
        """About how many bytes an object of a Kind takes by itself.  Raises Unreadable."""
        return self._by_role[kind.role](address).bytes if kind.role in self._by_role else kind.basic + _HEADER
