"""Symbols of the modules in a process, out of its own memory: no file is opened, so that deleted, upgraded and
stripped files, other mount namespaces and chroots are all the same.

Source: the ELF specification, and the GNU hash table as ld.so reads it.
"""
import struct

from modwsgi_tel.stacks.memory import Unreadable

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 4, 5, 6, 0x6FFFFEF5
_SHT_SYMTAB = 2
_MOST_HEADERS, _MOST_DYNAMIC, _MOST_CHAIN = 256, 4096, 4096
_LONGEST_TABLE = 64 << 20
MACHINES = {62: "x86-64", 183: "aarch64"}


class Module:
    """One ELF file in memory: `symbol(name)` is the address that it defines, or None.

    Raises Unreadable when what is at `base` is no 64-bit little-endian ELF file.
    """

    def __init__(self, memory, base, path):
        self.base = base
        self.path = path
        self._memory = memory
        header = memory.read(base, 64)
        if header[:6] != b"\x7fELF\x02\x01":
            raise Unreadable(f"{path or 'a mapping'} is no 64-bit ELF file")
        self.machine = MACHINES.get(struct.unpack_from("<H", header, 18)[0])
        (table,), (size, count) = struct.unpack_from("<Q", header, 32), struct.unpack_from("<HH", header, 54)
        if size != 56 or not count <= _MOST_HEADERS:
            raise Unreadable(f"{path} has program headers of its own kind")
        self.segments = [struct.unpack_from("<IIQQQQQQ", memory.read(base + table, size * count), size * number)
                         for number in range(count)]        # type flags offset vaddr paddr filesz memsz align
        first = [each for each in self.segments if each[0] == _PT_LOAD and each[2] == 0]
        self.bias = base - first[0][3] if first else base
        self._tables = None

    def _dynamic(self):
        if self._tables is None:
            self._tables = {}
            for kind, _, _, address, _, _, size, _ in self.segments:
                if kind == _PT_DYNAMIC:
                    data = self._memory.read(self.bias + address, min(size, _MOST_DYNAMIC * 16))
                    for at in range(0, len(data) - 15, 16):
                        tag, value = struct.unpack_from("<QQ", data, at)
                        if not tag:
                            break
                        # glibc has made addresses of them, musl leaves them as they are
                        self._tables.setdefault(tag, value if value >= self.bias else value + self.bias)
        return self._tables

    def symbol(self, name):
        try:
            tables = self._dynamic()
            if _DT_SYMTAB not in tables or _DT_STRTAB not in tables:
                return None
            if _DT_GNU_HASH in tables:
                return self._by_gnu_hash(tables, name)
            return self._by_hash(tables, name) if _DT_HASH in tables else None
        except Unreadable:
            return None

    def _by_gnu_hash(self, tables, name):
        read, table = self._memory.read, tables[_DT_GNU_HASH]
        buckets, first, words, shift = struct.unpack("<IIII", read(table, 16))
        if not buckets or not words:
            return None
        wanted = 5381
        for letter in name.encode():
            wanted = (wanted * 33 + letter) & 0xFFFFFFFF
        bloom, = struct.unpack("<Q", read(table + 16 + 8 * ((wanted >> 6) % words), 8))
        if not (bloom >> (wanted & 63)) & (bloom >> ((wanted >> shift) & 63)) & 1:
            return None
        start = table + 16 + 8 * words
        index, = struct.unpack("<I", read(start + 4 * (wanted % buckets), 4))
        chain = start + 4 * buckets
        for _ in range(_MOST_CHAIN):
            if index < first:
                return None
            found, = struct.unpack("<I", read(chain + 4 * (index - first), 4))
            if found | 1 == wanted | 1:
                address = self._entry(tables, index, name)
                if address is not None:
                    return address
            if found & 1:
                return None
            index += 1
        return None

    def _by_hash(self, tables, name):
        read, table = self._memory.read, tables[_DT_HASH]
        buckets, chains = struct.unpack("<II", read(table, 8))
        if not buckets:
            return None
        wanted = 0
        for letter in name.encode():
            wanted = (wanted << 4) + letter
            high = wanted & 0xF0000000
            wanted = (wanted ^ (high >> 24)) & ~high & 0xFFFFFFFF
        index, = struct.unpack("<I", read(table + 8 + 4 * (wanted % buckets), 4))
        for _ in range(_MOST_CHAIN):
            if not 0 < index < chains:
                return None
            address = self._entry(tables, index, name)
            if address is not None:
                return address
            index, = struct.unpack("<I", read(table + 8 + 4 * (buckets + index), 4))
        return None

    def _entry(self, tables, index, name):
        """The address of a symbol of that index, if it has that name and is defined here."""
        entry = self._memory.read(tables[_DT_SYMTAB] + 24 * index, 24)
        place, section, value = struct.unpack("<I2xHQ8x", entry)
        told = name.encode() + b"\0"
        if not section or self._memory.read(tables[_DT_STRTAB] + place, len(told)) != told:
            return None
        return self.bias + value


def modules(memory, maps, executable):
    """The Modules that may hold a Python, as they are asked for: the program, then libpython, then all others with code."""
    code = {each.path for each in maps if "x" in each.perms}
    candidates = [each for each in maps if each.offset == 0 and "r" in each.perms and each.path in code
                  and each.path.startswith("/")]
    program, libraries, others, seen = [], [], [], set()
    for each in candidates:
        if each.path in seen:
            continue
        seen.add(each.path)
        name = each.path.rpartition("/")[2]
        where = program if each.path == executable else libraries if name.startswith("libpython") else others
        where.append(each)
    for each in program + libraries + others:
        try:
            yield Module(memory, each.start, each.path)
        except Unreadable:
            pass                        # data that is mapped, no module


def symbols_in_file(handle, names):
    """{name: address without bias} out of a file's .symtab, for a program without a dynamic table.

    Raises Unreadable when it has none.
    """
    header = handle.read(64)
    if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
        raise Unreadable("no 64-bit ELF file")
    place, = struct.unpack_from("<Q", header, 40)
    size, count = struct.unpack_from("<HH", header, 58)
    if size != 64:
        raise Unreadable("no section headers")
    handle.seek(place)
    table = handle.read(size * count)
    sections = [struct.unpack_from("<IIQQQQIIQQ", table, at) for at in range(0, len(table) - 63, 64)]
    wanted, found = {name.encode(): name for name in names}, {}
    for section in sections:
        if section[1] != _SHT_SYMTAB or section[6] >= len(sections) or section[5] > _LONGEST_TABLE:
            continue
        strings = sections[section[6]]
        if strings[5] > _LONGEST_TABLE:
            continue
        handle.seek(strings[4])
        text = handle.read(strings[5])
        starts = {}
        for name in wanted:
            at = text.find(b"\0" + name + b"\0")
            if at >= 0:
                starts[at + 1] = wanted[name]
        handle.seek(section[4])
        entries = handle.read(section[5])
        for at in range(0, len(entries) - 23, 24):
            name = starts.get(struct.unpack_from("<I", entries, at)[0])
            if name and struct.unpack_from("<H", entries, at + 6)[0]:
                found[name] = struct.unpack_from("<Q", entries, at + 8)[0]
    return found
