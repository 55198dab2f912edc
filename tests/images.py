"""Memory made of bytes: a dictionary of them, and ELF modules with the symbols that a test wants."""

import struct

from modwsgi_tel.stacks.memory import Mapping, Unreadable


class Memory:
    """{address: bytes} with `read`, as another process's memory."""

    def __init__(self, parts=()):
        self.parts = dict(parts)

    def read(self, address, size):
        for start, data in self.parts.items():
            if start <= address and address + size <= start + len(data):
                return bytes(data[address - start:address - start + size])
        raise Unreadable("nothing at %#x" % address)

    def put(self, address, data):
        """Lay bytes over what is there, or as a part of its own."""
        for start, held in self.parts.items():
            if start <= address and address + len(data) <= start + len(held):
                self.parts[start] = held[:address - start] + data + held[address - start + len(data):]
                return
        self.parts[address] = data


def words(*values):
    return struct.pack("<%dQ" % len(values), *(value & (1 << 64) - 1 for value in values))


def gnu_hash(name):
    value = 5381
    for letter in name.encode():
        value = (value * 33 + letter) & 0xFFFFFFFF
    return value


def old_hash(name):
    value = 0
    for letter in name.encode():
        value = (value << 4) + letter
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high & 0xFFFFFFFF
    return value


def module(symbols, base, vaddr=0, relocated=True, gnu=True, machine=62, size=16384):
    """The bytes of a module that lies at `base`, with {name: address there} in its dynamic table.

    vaddr: the address that it was linked for.  relocated: whether the table holds addresses (glibc) or offsets (musl).
    """
    bias = base - vaddr
    names = list(symbols)
    if gnu:
        names.sort(key=lambda name: gnu_hash(name) % 3)
    texts, places = b"\0", {}
    for name in names:
        places[name] = len(texts)
        texts += name.encode() + b"\0"
    entries = bytes(24) + b"".join(struct.pack("<IBBHQQ", places[name], 0, 0, 1 if symbols[name] else 0,
                                               symbols[name] - bias if symbols[name] else 0, 8) for name in names)
    if gnu:
        buckets = [next((number for number, name in enumerate(names, 1) if gnu_hash(name) % 3 == each), 0) for each in range(3)]
        hashes = [gnu_hash(name) & ~1 | (number == len(names) or gnu_hash(names[number]) % 3 != gnu_hash(name) % 3)
                  for number, name in enumerate(names, 1)]
        table = struct.pack("<IIIIQ3I", 3, 1, 1, 6, (1 << 64) - 1, *buckets) + struct.pack("<%dI" % len(hashes), *hashes)
    else:
        chains = [0] * (len(names) + 1)
        buckets = [0, 0]
        for number, name in enumerate(names, 1):
            place = old_hash(name) % 2
            chains[number], buckets[place] = buckets[place], number
        table = struct.pack("<II2I", 2, len(chains), *buckets) + struct.pack("<%dI" % len(chains), *chains)
    at = {"dynamic": 1024, "entries": 2048, "texts": 8192, "table": 12288}
    shift = base if relocated else vaddr
    dynamic = words(5, shift + at["texts"], 6, shift + at["entries"], 0x6FFFFEF5 if gnu else 4, shift + at["table"], 0, 0)
    image = bytearray(size)
    image[:64] = struct.pack("<6s10xHHIQQQIHHHHHH", b"\x7fELF\x02\x01", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    image[64:64 + 112] = (struct.pack("<IIQQQQQQ", 1, 5, 0, vaddr, 0, size, size, 4096)
                          + struct.pack("<IIQQQQQQ", 2, 4, at["dynamic"], vaddr + at["dynamic"], 0, len(dynamic), len(dynamic), 8))
    for name, data in (("dynamic", dynamic), ("entries", entries), ("texts", texts), ("table", table)):
        image[at[name]:at[name] + len(data)] = data
    return bytes(image)


def maps(base, path, size=16384, perms="r-xp"):
    return [Mapping(base, base + size, perms, 0, path)]
