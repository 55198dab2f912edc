"""The memory of another process, read only, through /proc/PID/mem: nothing in it is stopped, written or told."""
import os
from collections import namedtuple

from modwsgi_tel.errors import TelError

LONGEST_READ = 1 << 20
_LONGEST_MAPS = 32 << 20                # the kernel's own limit of 65,530 mappings takes a third of it

Mapping = namedtuple("Mapping", "start end perms offset path")


class Unreadable(TelError):
    """These bytes are not there, or are not what they should be."""


def parse_maps(text):
    """[Mapping] of a /proc/PID/maps; lines that are none are left out.  Source: proc(5)."""
    found = []
    for line in text.split(b"\n"):
        words = line.split(None, 5)
        if len(words) < 5:
            continue
        try:
            start, end = (int(word, 16) for word in words[0].split(b"-"))
            offset = int(words[2], 16)
        except ValueError:
            continue
        path = os.fsdecode(words[5]) if len(words) == 6 else ""
        found.append(Mapping(start, end, words[1].decode("ascii", "replace"), offset, path))
    return found


class Exhausted(Unreadable):
    """There is more to be read than may be."""


class Limited:
    """`memory`, of which no more than `most` units are read until `anew`: what lies there may lead anywhere, without an end.

    A unit is a read, or 128 bytes of it (they may hold one more frame to walk over), or what the reader says that its own
    work takes: about a microsecond.
    """

    def __init__(self, memory, most=1 << 20):
        self._memory_read = memory.read
        self._memory_burst = getattr(memory, "burst", None) or (lambda wanted: [memory.read(*each) for each in wanted])
        self._most = most
        self._left = most

    def anew(self):
        self._left = self._most

    def takes(self, units):
        """Says of work that it takes as much as so many units of reading."""
        self._left -= units

    def burst(self, wanted):
        """[bytes] of several (address, size), read one right after the other, or Unreadable."""
        self._left -= sum(1 + (size >> 7) for _, size in wanted)
        if self._left < 0:
            raise Exhausted("there is more to be read than one look may read")
        return self._memory_burst(wanted)

    def read(self, address, size):
        """Exactly `size` bytes, or Unreadable."""
        self._left -= 1 + (size >> 7)
        if self._left < 0:
            raise Exhausted("there is more to be read than one look may read")
        return self._memory_read(address, size)


class ProcessMemory:
    """`read(address, size)` of a running process, or Unreadable.  Raises OSError when it may not be opened."""

    def __init__(self, pid):
        self.pid = pid
        self._fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)

    def read(self, address, size):
        """Exactly `size` bytes, LONGEST_READ at most."""
        if size > LONGEST_READ:
            raise Unreadable(f"{size} bytes are too many")
        try:
            data = os.pread(self._fd, size, address)
        except (OSError, OverflowError, ValueError):
            raise Unreadable(f"nothing at {address:#x}") from None
        if len(data) != size:
            raise Unreadable(f"less than {size} bytes at {address:#x}")
        return data

    def burst(self, wanted):
        """[bytes] of several (address, size), read one right after the other: as nearly at one moment as can be."""
        pread, fd = os.pread, self._fd
        try:
            found = [pread(fd, size, address) for address, size in wanted]
        except (OSError, OverflowError, ValueError):
            raise Unreadable("some of it is not there") from None
        for data, (address, size) in zip(found, wanted):
            if len(data) != size or size > LONGEST_READ:
                raise Unreadable(f"less than {size} bytes at {address:#x}")
        return found

    def maps(self):
        """[Mapping], as of now.  Raises OSError."""
        with open(f"/proc/{self.pid}/maps", "rb") as handle:
            return parse_maps(handle.read(_LONGEST_MAPS))

    def executable(self):
        """The path of its program, as maps names it, or ""."""
        try:
            return os.readlink(f"/proc/{self.pid}/exe")
        except OSError:
            return ""

    def close(self):
        os.close(self._fd)
