"""Of what a process's memory consists: its mappings by kind, out of /proc/PID/smaps.

    memory(pid) -> {"rss_bytes", "pss_bytes", "swap_bytes", "private_bytes", "mappings",
        "kinds": [{"kind", "count", "rss_bytes", "pss_bytes", "swap_bytes", "size_bytes"}],                   # most pss first
        "largest": [{"kind", "name", "count", "rss_bytes", "pss_bytes", "swap_bytes", "size_bytes"}], "unknown"}

Private: pages that no other process has.  pss: those, and of the shared ones its part.  A file's mappings are one row of "largest",
an anonymous one is its own, named by its addresses.  What may not be read is None, with its reason in "unknown".

To count pages the kernel holds the memory's lock for reading, one mapping after another: what the process itself maps waits that long.
So a look ends after MOST_S, and MOST mappings.  `quick` is one such walk over everything, in a tenth of the time.
Source: proc(5), smaps and smaps_rollup; Documentation/filesystems/proc.rst.
"""
import os
import re
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc.access import parse_status
from modwsgi_tel.proc.parts import Parts

MOST_S = 2.0                        # of one look
MOST = 65536                        # mappings
LARGEST = 20
KINDS = ("heap", "stacks", "anonymous", "python", "extensions", "libraries", "files", "shared memory", "kernel")

_CHUNK = 1 << 16
_GUARD = 64 << 10                   # a thread's stack ends in a guard of one page, of up to 64 kB
_STACK_LEAST = 64 << 10
_ARENA = 64 << 20                   # malloc's further arenas begin at multiples of this (HEAP_MAX_SIZE)
_LINE = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) ([r-][w-][x-][ps]) [0-9a-f]+ \S+ (\d+) *(.*)")
_FIGURES = {b"Rss:": "rss_bytes", b"Pss:": "pss_bytes", b"Swap:": "swap_bytes", b"Size:": "size_bytes"}
_PRIVATE = (b"Private_Clean:", b"Private_Dirty:", b"Private_Hugetlb:")
_SUMS = ("rss_bytes", "pss_bytes", "swap_bytes", "size_bytes")
_PYTHON = re.compile(r"/(python\d*(\.\d+)?[a-z]*|libpython[^/]*)$|/lib/python\d[^/]*/(?!(site|dist)-packages/)|/lib-dynload/")
_PACKAGES = re.compile(r"/(site|dist)-packages/|\.(cpython-[^/]*|abi3)\.so$")
_LIBRARY = re.compile(r"\.so(\.[^/]*)?$|/s?bin/[^/]*$|/(httpd|apache2)$")
_SHARED = re.compile(r"/dev/shm/|/SYSV|/dev/zero|/memfd:|\[anon_shmem")


def kind(name, is_stack=False):
    """One of KINDS by a mapping's name, text; is_stack: it looks like that of a thread."""
    name = name[:-len(" (deleted)")] if name.endswith(" (deleted)") else name
    if name == "[heap]":
        return "heap"
    if is_stack or name.startswith(("[stack", "[anon: glibc: pthread stack")):
        return "stacks"
    if _SHARED.match(name):
        return "shared memory"
    if name.startswith("/"):
        for of, found in (("extensions", _PACKAGES.search(name) and _LIBRARY.search(name) and "/lib-dynload/" not in name),
                          ("python", _PYTHON.search(name)), ("libraries", _LIBRARY.search(name))):
            if found:
                return of
        return "files"
    return "kernel" if name.startswith("[v") else "anonymous"


class _Mapping:
    """One mapping: a kind, a name, and its figures."""

    __slots__ = ("kind", "name", "sums", "private")

    def __init__(self, kind_of, name):
        self.kind, self.name, self.sums, self.private = kind_of, name, dict.fromkeys(_SUMS, 0), 0


class _Reader:
    """Takes the lines of an smaps, and makes `mappings` of them."""

    def __init__(self):
        self.mappings = []
        self._before = (0, 0, b"")          # begin, end and rights of the mapping before
        self._now = None

    def line(self, line):
        key, _, value = line.partition(b" ")
        if not key.endswith(b":"):
            self._mapping(line)
        elif self._now is not None:
            name = _FIGURES.get(key)
            if name is not None:
                self._now.sums[name] += _bytes(value)
            elif key in _PRIVATE:
                self._now.private += _bytes(value)

    def _mapping(self, line):
        match = _LINE.fullmatch(line)
        if match is None:                   # a name that holds a newline is escaped by the kernel: no line of an smaps
            self._now = None
            return
        begin, end, rights = int(match.group(1), 16), int(match.group(2), 16), match.group(3)
        name = os.fsdecode(match.group(5))
        last_begin, last_end, last_rights = self._before
        is_stack = (name == "" and rights == b"rw-p" and last_rights == b"---p" and last_end == begin and begin % _ARENA
                    and last_end - last_begin <= _GUARD and end - begin >= _STACK_LEAST)
        self._before = (begin, end, rights)
        self._now = _Mapping(kind(name, is_stack), name or f"{begin:x}-{end:x}")
        self.mappings.append(self._now)


def _bytes(value):
    number = value.split()[:1]
    return int(number[0]) * 1024 if number and number[0].isdigit() else 0


def memory(pid, root="/proc"):
    """See above.  Raises TelError when there is no such process."""
    parts = Parts(pid, root)
    parts.stat()
    found = dict.fromkeys(("rss_bytes", "pss_bytes", "swap_bytes", "private_bytes", "mappings", "kinds", "largest"))
    found["unknown"] = parts.unknown
    reader = _Reader()
    left_out = parts.attempt("mappings", "smaps", _read, reader)
    rows = reader.mappings
    if left_out is None or not rows:
        parts.unknown.setdefault("mappings", "it has no memory of its own: it has ended, or is a thread of the kernel")
        found["rss_bytes"], found["swap_bytes"] = _of_status(parts)
        return found
    if left_out:
        parts.unknown["mappings"] = left_out
    for name in ("rss_bytes", "pss_bytes", "swap_bytes"):
        found[name] = sum(row.sums[name] for row in rows)
    found.update(private_bytes=sum(row.private for row in rows), mappings=len(rows), kinds=_kinds(rows), largest=_largest(rows))
    return found


def _read(path, reader):
    """Why some of it was left out, or ""."""
    deadline, rest = time.monotonic() + MOST_S, b""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            part = os.read(handle, _CHUNK)
            if not part:
                if rest:
                    reader.line(rest)
                return ""
            lines = (rest + part).split(b"\n")
            rest = lines.pop()
            for line in lines:
                reader.line(line)
            if len(reader.mappings) > MOST:
                del reader.mappings[MOST:]
                return f"only the first {MOST:,} mappings were looked at"
            if time.monotonic() > deadline:
                del reader.mappings[-1:]    # it may be cut
                return f"to look at all would have taken more than {MOST_S:g} s: these are the first {len(reader.mappings):,} mappings"
    finally:
        os.close(handle)


def _of_status(parts):
    """(rss, swap) where the mappings may not be read."""
    told = parse_status(parts.read("memory", "status") or b"")
    return tuple(_bytes(told[key]) if key in told else None for key in (b"VmRSS", b"VmSwap"))


def _kinds(rows):
    sums = {}
    for row in rows:
        row_of = sums.setdefault(row.kind, {"kind": row.kind, "count": 0, **dict.fromkeys(_SUMS, 0)})
        _add(row_of, row)
    return sorted(sums.values(), key=lambda each: (-each["pss_bytes"], KINDS.index(each["kind"])))


def _largest(rows):
    named = {}
    for row in rows:
        row_of = named.setdefault((row.kind, row.name), {"kind": row.kind, "name": row.name, "count": 0, **dict.fromkeys(_SUMS, 0)})
        _add(row_of, row)
    return sorted(named.values(), key=lambda each: (-each["pss_bytes"], -each["size_bytes"]))[:LARGEST]


def _add(sums, row):
    sums["count"] += 1
    for name in _SUMS:
        sums[name] += row.sums[name]


def quick(pid, root="/proc"):
    """{"rss_bytes", "pss_bytes", "private_bytes", "swap_bytes", "unknown"} out of smaps_rollup (since Linux 4.14).

    Takes a millisecond for each 100 MB or so.  Raises TelError when there is no such process.
    """
    parts = Parts(pid, root)
    text = parts.read("mappings", "smaps_rollup")
    if text is None:
        return {"rss_bytes": None, "pss_bytes": None, "private_bytes": None, "swap_bytes": None, "unknown": parts.unknown}
    told = dict(line.split(None, 1) for line in text.splitlines()[1:] if b":" in line)
    if b"Rss:" not in told:
        raise TelError(f"cannot read process {pid}: its smaps_rollup is none")
    return {"rss_bytes": _bytes(told[b"Rss:"]), "pss_bytes": _bytes(told.get(b"Pss:", b"")),
            "private_bytes": sum(_bytes(told.get(key, b"")) for key in _PRIVATE), "swap_bytes": _bytes(told.get(b"Swap:", b"")),
            "unknown": parts.unknown}
