"""The memory of a process that is dead: a core file, as the kernel or gcore wrote it, read as ProcessMemory reads a living one.

What the core leaves out, as kernels do with pages that are in a file anyway, is read from that file, if it is the one
that ran.  Nothing in a core file is believed: it may be cut, damaged or forged.

Source: core(5), elf(5), Linux fs/binfmt_elf.c and include/uapi/linux/elfcore.h.
"""
import errno
import os
import shlex
import signal
import stat
import struct
from bisect import bisect_right
from collections import namedtuple

from modwsgi_tel.errors import Nonsense, TelError
from modwsgi_tel.stacks.elf import MACHINES
from modwsgi_tel.stacks.memory import LONGEST_READ, Mapping, Unreadable

SEGMENTS_MOST = 1 << 18                 # mappings: the kernel's own limit is 65,530 where nobody has raised it
THREADS_MOST = 4096
_NOTES_MOST = 200000
_HEADERS_MOST = 64                      # program headers of a mapped file
_BUILD_ID_NOTES_MOST = 4096             # bytes of notes in which a build id is sought
_OPEN_MOST = 64                         # mapped files open at one time
_LINKS_MOST = 40                        # symbolic links in a path, as the kernel
_LINES_MOST = 8                         # problems of one sort that are told one by one

_ELF_64 = b"\x7fELF\x02\x01"
_ET_CORE, _PN_XNUM = 4, 0xFFFF
_ET_NAMES = {1: "an object file", 2: "a program", 3: "a program or a library"}
_PT_LOAD, _PT_NOTE = 1, 4
_PF_X, _PF_W, _PF_R = 1, 2, 4
_NT_GNU_BUILD_ID = 3
_AT_PHDR, _AT_PAGESZ, _AT_ENTRY = 3, 6, 9
_PAGES = (4096, 16384, 65536)           # bytes; what kernels are built with
_CUT, _BLANK = "the core file is cut", "gcore could not read this stack"
_DELETED = " (deleted)"                 # what the kernel adds to the name of a file that has none any more
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")   # type flags offset vaddr paddr filesz memsz align
_NOTE = struct.Struct("<III")

# What a struct elf_prstatus looks like: its size, and where the thread pointer is in it, if it is among the registers.
_PRSTATUS = {"x86-64": (336, 112 + 8 * 21), "aarch64": (392, None)}
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP)
_SI_KERNEL, _SENT = 0x80, (0, -1, -6)   # si_code: no address is known; kill(), sigqueue(), tgkill()

# How a file begins that is no core but has one in it, and what gets that out.
_PACKED = (
    (b"\x1f\x8b", "gzip", "gzip -dc {} > core"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -d {} -o core"),
    (b"\xfd7zXZ\0", "xz", "xz -dc {} > core"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -d {} core"),
    (b"BZh", "bzip2", "bzip2 -dc {} > core"),
    (b"ProblemType:", "apport", "apport-unpack {} FOLDER, which makes FOLDER/CoreDump"),
)

Thread = namedtuple("Thread", "tid signal pointer")
Thread.__doc__ = """A thread of a core.  tid: as it was in the process's own pid namespace (gcore: in gcore's).  signal: the Signal
that ended the process, if this thread took it, else None.  pointer: its thread pointer, which with glibc on x86-64 is its
pthread_t, or None."""

Signal = namedtuple("Signal", "number name address sender")
Signal.__doc__ = """What ended a process.  name: "SIGSEGV".  address: where memory was touched in vain, or the instruction was wrong, or
None.  sender: the (pid, uid) that sent it, or None when it was no kill()."""

_Segment = namedtuple("_Segment", "start end flags offset held lost")   # held: bytes that are in the file; lost: why no more
_File = namedtuple("_File", "start end offset path")                    # offset: in bytes


class CoreFile:
    """`read(address, size)` of a process that is dead, or Unreadable; the interface of ProcessMemory.

    path: the core file, opened once, read piece by piece, however large.  executable: the program that ran, where it is
    not to be found below `root` by the name that the core gives.  root: the top of the file system of which that is.

    pid: in the process's own pid namespace, or None.  command: its arguments, cut at 79 bytes.  machine: as MACHINES has it.
    threads: Threads, the one first that took the signal; THREADS_MOST.  signal: its Signal; None when none is known.
    at: wall seconds when the file was last written.  owner: the uid that the file belongs to.

    Raises TelError in one line for what cannot be read, and Nonsense for what is no core file or ends in the middle of
    what tells of threads and mappings.
    """

    def __init__(self, path, executable=None, root="/"):
        self.path = path
        self.pid = self.signal = None
        self.command = ""
        self.threads = []
        self._troubles = []
        self._lost = 0                  # mappings that make no sense
        self._needs = 0                 # bytes that the file should have
        self._missed = {}               # why -> reads that failed
        self._auxv = {}
        self._segments, self._files = _Ranges(()), _Ranges(())
        self._mapped = None
        try:
            self._fd = _open_regular(path)
        except OSError as error:
            raise TelError(f"cannot read {path}: {error.strerror}") from None
        try:
            found = os.fstat(self._fd)
            self.size, self.at, self.owner = found.st_size, found.st_mtime, found.st_uid
            self._load()
            page = self._auxv.get(_AT_PAGESZ)
            self._mapped = _MappedFiles(self._files, page if page in _PAGES else _PAGES[0], self._held, self._program(), executable,
                                        root)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise TelError(f"cannot read {path}: {error.strerror}") from None
            raise

    def close(self):
        if self._mapped is not None:
            self._mapped.close()
        os.close(self._fd)

    # --- memory -----------------------------------------------------------------------------

    def read(self, address, size):
        """Exactly `size` bytes, LONGEST_READ at most."""
        if not 0 <= size <= LONGEST_READ:
            raise Unreadable(f"{size} bytes are too many")
        parts, end = [], address + size
        while address < end:
            parts.append(self._some(address, end - address))
            address += len(parts[-1])
        return b"".join(parts)

    def maps(self):
        """[Mapping], by address.  Only what is in a file has a path; shared ones are not told apart."""
        found = [Mapping(each.start, each.end, _perms(each.flags), *self._place(each.start)) for each in self._segments]
        for file in self._files:
            at = file.start
            while at < file.end:
                segment, limit = self._segments.around(at)
                if segment is None:
                    found.append(Mapping(at, min(limit, file.end), _perms(self._mapped.flags(file)), *self._place(at)))
                at = limit
        return sorted(found)

    def executable(self):
        """The path of its program, as maps names it, or ""."""
        return self._mapped.program

    def open_executable(self):
        """Its program's file, if it is the one that ran.  Raises OSError."""
        return self._mapped.open_program()

    def problems(self):
        """Lines on what is not there or not certain, up to now, with paths as they were found."""
        lines = list(self._troubles)
        if self._needs > self.size:
            lines.append(f"the core file is cut: {self.size} of {self._needs} bytes are there (ulimit -c, or a full disk)")
        if self._lost:
            lines.append(f"the core file is damaged: {self._lost} of its mappings make no sense")
        for path in list(self._mapped.guessed)[:_LINES_MOST]:
            lines.append(f"a guess: {path} is read for what the core leaves out, and the core does not tell whether it is the same file")
        missed = sorted(self._missed.items(), key=lambda item: -item[1])
        lines += [f"{count} reads failed: {why}" for why, count in missed[:_LINES_MOST]]
        if len(missed) > _LINES_MOST:
            lines.append(f"{sum(count for _, count in missed[_LINES_MOST:])} reads failed for {len(missed) - _LINES_MOST} other reasons")
        return lines

    def _some(self, address, most):
        """One byte or more, `most` at most: what the core holds, else what the mapped file holds."""
        segment, limit = self._segments.around(address)
        if segment is not None:
            held = segment.start + segment.held - address
            try:
                data = os.pread(self._fd, min(most, held), segment.offset + address - segment.start) if held > 0 else b""
            except OSError as error:
                raise self._miss(f"the core file cannot be read: {error.strerror}") from None
            if data:
                return data
        file, _ = self._files.around(address)
        if segment is None and file is None:
            raise Unreadable(f"nothing at {address:#x}")
        # What is left out: p_memsz beyond p_filesz, or with gcore no segment at all.  gdb takes the mapped file, whether it
        # could be written to or not, and where there is none, zeros.  Zeros are right for memory that was never touched, in
        # which nothing can be found, and a lie for all else (MADV_DONTDUMP, coredump_filter, a cut file): pages of zeros are
        # within p_filesz, as holes.  And a file is not what was written to its private mapping.
        if segment is not None and segment.lost and (file is None or segment.flags & _PF_W):
            raise self._miss(segment.lost)
        if file is None or (self._mapped.flags(file) if segment is None else segment.flags) & _PF_W:
            raise self._miss("the core leaves out memory that is in no file (never touched, MADV_DONTDUMP, coredump_filter)")
        try:
            return self._mapped.read(file, address, min(most, limit - address, file.end - address))
        except (Unreadable, OSError) as error:
            raise self._miss(f"the core leaves out what is in {file.path}, and {error}") from None

    def _miss(self, why):
        self._missed[why] = self._missed.get(why, 0) + 1
        return Unreadable(why)

    def _held(self, address, size):
        """`size` bytes that are in the core file itself, or None."""
        segment, _ = self._segments.around(address)
        if segment is None or address + size > segment.start + segment.held:
            return None
        return _pread(self._fd, segment.offset + address - segment.start, size)

    def _place(self, address):
        """(offset, path) of the file that is mapped at an address; (0, "") of none."""
        file, _ = self._files.around(address)
        return (0, "") if file is None else (file.offset + address - file.start, file.path)

    def _program(self):
        """The path of what the kernel started, or ""."""
        places = (self._place(self._auxv.get(kind, 0))[1] for kind in (_AT_PHDR, _AT_ENTRY))
        return next(filter(None, places), "")

    # --- loading ----------------------------------------------------------------------------

    def _load(self):
        notes, loads = [], []
        for kind, flags, offset, start, _, in_file, size, _ in self._table():
            if kind == _PT_NOTE:
                notes.append((offset, in_file))
            elif kind != _PT_LOAD or not size:
                continue
            elif start + size > 1 << 64 or in_file > size or offset + in_file >= 1 << 63:
                self._lost += 1
            else:
                held = max(0, min(in_file, self.size - offset))
                self._needs = max(self._needs, offset + in_file if in_file else 0)
                loads.append(_Segment(start, start + size, flags, offset, held, _CUT if held < in_file else ""))
        self._segments = self._apart(loads)
        left, taken = _NOTES_MOST, set()
        for offset, size in notes:
            self._needs = max(self._needs, min(offset + size, (1 << 63) - 1))
            left = self._read_notes(offset, size, left, taken)
        if not self.threads:
            cut = f", for it is cut: {self.size} of {self._needs} bytes are there" if self._needs > self.size else ""
            raise Nonsense(f"cannot read {self.path}: it tells of no Linux thread{cut}")
        # gdb stops at a page that it cannot read and leaves zeros: so with a thread's stack since glibc has guards within it
        blank = [self._segments.around(each.pointer)[0].start for each in self.threads
                 if each.pointer and self._held(each.pointer, 16) == bytes(16)]
        if blank:
            self._trouble(f"the core file holds zeros for the stacks of {len(blank)} of its threads: gcore could not read them, "
                          "and a core that the kernel writes has them")
            starts = set(blank)
            self._segments = _Ranges([each._replace(held=0, lost=_BLANK) if each.start in starts else each for each in self._segments])
        if not self._files:
            self._trouble("the core file does not tell which files were mapped: what it leaves out is not there")

    def _table(self):
        """The program headers, each as _SEGMENT has it."""
        head = os.pread(self._fd, _HEADER.size, 0)
        cannot = f"cannot read {self.path}: "
        if not head:
            raise Nonsense(cannot + "it is empty (ulimit -c, or a full disk)")
        for magic, packer, command in _PACKED:
            if head.startswith(magic):
                raise TelError(cannot + f"it is packed by {packer}: first run {command.format(shlex.quote(self.path))}")
        if head[:4] != b"\x7fELF":
            raise Nonsense(cannot + "it is no core file")
        if len(head) < _HEADER.size:
            raise Nonsense(cannot + f"it is cut: {self.size} bytes are there")
        ident, kind, machine, _, _, place, sections, _, _, size, count, section_size, _, _ = _HEADER.unpack(head)
        bits, order = {1: "32-bit", 2: "64-bit"}.get(ident[4]), {1: "little", 2: "big"}.get(ident[5])
        if (bits, order) != ("64-bit", "little"):
            raise TelError(cannot + f"it is a {bits} {order}-endian ELF file, and only 64-bit little-endian cores can be read"
                           if bits and order else cannot + "it is no core file")
        if kind != _ET_CORE:
            raise Nonsense(cannot + f"it is {_ET_NAMES.get(kind, 'an ELF file')}, no core file")
        self.machine = MACHINES.get(machine)
        if self.machine is None:
            raise TelError(cannot + f"it is of a machine with the ELF number {machine}, and only {' and '.join(MACHINES.values())} "
                           "can be read")
        if count == _PN_XNUM:           # the real number is in sh_info of section 0
            section = _pread(self._fd, sections, 64)
            if section is None or section_size != 64:
                raise Nonsense(cannot + "it has more than 65,534 mappings, and does not tell how many")
            count, = struct.unpack_from("<I", section, 44)
        if size != _SEGMENT.size or not count:
            raise Nonsense(cannot + "it has no segments")
        if count > SEGMENTS_MOST:
            raise TelError(cannot + f"it has {count} mappings, and no more than {SEGMENTS_MOST} are read")
        table = _pread(self._fd, place, count * size)
        if table is None:
            raise Nonsense(cannot + f"it is cut: its {self.size} bytes do not hold the list of its mappings")
        return _SEGMENT.iter_unpack(table)

    def _apart(self, ranges):
        """_Ranges of those that do not overlap another before them; the others are lost."""
        found, end = [], 0
        for each in sorted(ranges):
            if each.start < end:
                self._lost += 1
            else:
                found.append(each)
                end = each.end
        return _Ranges(found)

    def _read_notes(self, offset, size, left, taken):
        """Take what the notes of one segment tell, of what is `taken` only the first; `left`: how many notes may be read.

        Returns how many may then be.
        """
        at, end = offset, min(offset + size, self.size)
        while at + _NOTE.size <= end and left:
            left -= 1
            head = os.pread(self._fd, _NOTE.size + 8, at)
            if len(head) < _NOTE.size:
                break
            name_size, data_size, kind = _NOTE.unpack_from(head)
            data_at = at + _NOTE.size + (name_size + 3 & ~3)
            if data_at + data_size > end:
                break
            at = data_at + (data_size + 3 & ~3)
            owner = head[_NOTE.size:_NOTE.size + name_size].rstrip(b"\0") if name_size <= 8 else b""
            take, most, once = _NOTES.get((owner, kind), (None, 0, False))
            if take is None or take in taken:
                continue
            if once:
                taken.add(take)
            data = _pread(self._fd, data_at, data_size) if data_size <= most else None
            if data is None or not take(self, data):
                self._trouble("the core file is damaged: one of its notes makes no sense")
        if at < offset + size:
            self._trouble("the core file is cut in its notes: some threads or files may be missing")
        return left

    def _trouble(self, line):
        if line not in self._troubles:
            self._troubles.append(line)

    # Each takes the data of a note and returns whether it made sense.

    def _take_status(self, data):
        size, pointer_at = _PRSTATUS[self.machine]
        if len(data) != size:
            return False
        if len(self.threads) == THREADS_MOST:
            self._trouble(f"the core file has more than {THREADS_MOST} threads: the others are left out")
            return True
        number, = struct.unpack_from("<h", data, 12)
        tid, = struct.unpack_from("<i", data, 32)
        pointer = struct.unpack_from("<Q", data, pointer_at)[0] if pointer_at else None
        if not self.threads and number > 0:     # the kernel writes the same number for all threads
            self.signal = Signal(number, _signal_name(number), None, None)
        self.threads.append(Thread(tid, None if self.threads else self.signal, pointer))
        return True

    def _take_pointer(self, data):
        """NT_ARM_TLS, which stands behind its thread's status."""
        if len(data) < 8 or not self.threads:
            return False
        if self.threads[-1].pointer is None:
            self.threads[-1] = self.threads[-1]._replace(pointer=struct.unpack_from("<Q", data)[0])
        return True

    def _take_info(self, data):
        if len(data) != 136:
            return False
        self.pid, = struct.unpack_from("<i", data, 24)
        self.command = os.fsdecode(data[56:].split(b"\0")[0]).strip()
        return True

    def _take_signal(self, data):
        """The siginfo of the first thread; gcore writes one for each."""
        if len(data) != 128 or len(self.threads) != 1:
            return False
        number, _, code = struct.unpack_from("<iii", data)
        if self.signal is not None and number == self.signal.number:
            if code in _SENT:
                self.signal = self.signal._replace(sender=struct.unpack_from("<iI", data, 16))
            elif number in _FAULTS and code > 0 and code != _SI_KERNEL:
                self.signal = self.signal._replace(address=struct.unpack_from("<Q", data, 16)[0])
            self.threads[0] = self.threads[0]._replace(signal=self.signal)
        return True

    def _take_auxv(self, data):
        self._auxv = dict(struct.iter_unpack("<QQ", data[:len(data) // 16 * 16]))
        return True

    def _take_files(self, data):
        if len(data) < 16:
            return False
        count, unit = struct.unpack_from("<QQ", data)           # of offsets: the kernel's is a page, gcore's 1
        names = data[16 + 24 * count:].split(b"\0") if count <= SEGMENTS_MOST else ()
        if len(names) <= count or unit not in (1, *_PAGES):
            return False
        found = []
        for (start, end, offset), name in zip(struct.iter_unpack("<QQQ", data[16:16 + 24 * count]), names):
            if start < end and offset * unit + end - start < 1 << 63:
                found.append(_File(start, end, offset * unit, os.fsdecode(name)))
            else:
                self._lost += 1
        self._files = self._apart(found)
        return True


# (owner, type): what takes it, bytes at most, whether only the first one counts
_NOTES = {
    (b"CORE", 1): (CoreFile._take_status, 1024, False),                 # NT_PRSTATUS
    (b"CORE", 3): (CoreFile._take_info, 1024, True),                    # NT_PRPSINFO
    (b"CORE", 6): (CoreFile._take_auxv, 4096, True),                    # NT_AUXV
    (b"CORE", 0x46494C45): (CoreFile._take_files, 16 << 20, True),      # NT_FILE; the kernel writes 4 MiB, 16 where that was raised
    (b"CORE", 0x53494749): (CoreFile._take_signal, 1024, True),         # NT_SIGINFO
    (b"LINUX", 0x401): (CoreFile._take_pointer, 64, False),             # NT_ARM_TLS
}


class _Ranges:
    """Things with a start and an end that do not overlap, by address."""

    def __init__(self, items):
        self._items = items
        self._starts = [each.start for each in items]

    def __iter__(self):
        return iter(self._items)

    def __bool__(self):
        return bool(self._items)

    def around(self, address):
        """(the one in which an address is, its end); (None, where the next one begins) between them."""
        index = bisect_right(self._starts, address)
        if index and address < self._items[index - 1].end:
            return self._items[index - 1], self._items[index - 1].end
        return None, self._starts[index] if index < len(self._starts) else 1 << 64


class _MappedFiles:
    """The programs and libraries that were mapped: opened as they are needed, and only if they are those that ran.

    held(address, size): bytes that are in the core, or None.  given: what to open for `program`, or None.
    guessed: {path: None} of those of which the core does not tell whether they are the same.

    The constructor raises TelError for a program that is given and is not the one that ran.
    """

    def __init__(self, files, page, held, program, given, root):
        self.program = program
        self.guessed = {}
        self._page = page
        self._held = held
        self._given = given
        self._root = root
        self._bases = {}                # path -> address of its first byte
        for each in files:
            if not each.offset:
                self._bases.setdefault(each.path, each.start)
        self._opened = {}               # path -> fd, the one used last at the end
        self._refused = {}              # path -> why it is not read
        self._headers = ("", ())        # of the path asked for last
        if given is not None:
            if not program:
                raise TelError(f"cannot use {given}: the core file does not tell where its program was mapped")
            if self._open(program) is None:
                raise TelError(f"cannot use {given}: {self._refused[program]}")

    def close(self):
        for fd in self._opened.values():
            os.close(fd)
        self._opened = {}

    def read(self, file, address, most):
        """One byte or more, `most` at most, at an address in a _File; zeros between its end and that of a page.

        Raises Unreadable.
        """
        fd = self._open(file.path)
        if fd is None:
            raise Unreadable(self._refused[file.path])
        offset = file.offset + address - file.start
        data = os.pread(fd, most, offset)
        if not data:
            size = os.fstat(fd).st_size
            data = bytes(max(0, min(most, size + -size % self._page - offset)))
        if not data:
            raise Unreadable("that file is shorter than it was")
        return data

    def open_program(self):
        """A binary file to read.  Raises OSError."""
        fd = self._open(self.program) if self.program else None
        if fd is None:
            raise OSError(errno.ENOENT, self._refused.get(self.program, "its program is not known"))
        return open(os.dup(fd), "rb")

    def flags(self, file):
        """How the ELF file that is mapped at a _File wants it mapped; readable where it says nothing.

        gcore has no segment for what it leaves out, so that nothing else tells where the code of a module is.
        """
        base = self._bases.get(file.path)
        if base is None:
            return _PF_R
        if self._headers[0] != file.path:
            self._headers = (file.path, self._read_headers(file.path, base))
        loads = [each for each in self._headers[1] if each[0] == _PT_LOAD]
        bias = next((base - each[3] for each in loads if not each[2]), None)
        for _, flags, _, start, _, _, size, _ in loads:
            if bias is not None and start - start % self._page <= file.start - bias < start + size:
                return flags
        return _PF_R

    def _read_headers(self, path, base):
        found = _headers(lambda offset, size: self._held(base + offset, size))
        if not found:
            fd = self._open(path)
            found = () if fd is None else _headers(lambda offset, size: _pread(fd, offset, size))
        return found

    def _open(self, path):
        """The descriptor of a mapped file; None when it is not to be read, and why is in `_refused`."""
        fd = self._opened.pop(path, None)
        if fd is None and path not in self._refused:
            if len(self._opened) == _OPEN_MOST:
                os.close(self._opened.pop(next(iter(self._opened))))
            try:
                fd = self._find(path)
            except TelError as error:
                self._refused[path] = str(error)
        if fd is not None:
            self._opened[path] = fd
        return fd

    def _find(self, path):
        """As `_open`.  Raises TelError with why it is not to be read."""
        own = self._given is not None and path == self.program
        gone = path.endswith(_DELETED)
        hint = "; name the program that ran by --executable" if path == self.program and not own else ""
        name = self._given if own else _below(self._root, path[:-len(_DELETED)] if gone else path)
        if not path.startswith("/"):
            raise TelError("that is no file")
        try:
            fd = _open_regular(name)
        except OSError as error:
            raise TelError(f"{name} cannot be read: {error.strerror}{hint}") from None
        try:
            if _pread(fd, 0, 6) != _ELF_64:     # no secret file is shown because a core says that it was mapped
                raise TelError(f"{name} is no program or library{hint}")
            same = self._is_same(path, fd)
            if same is None and gone and not own:
                raise TelError(f"that was deleted or upgraded while the process ran{hint}")
            if same is False:
                raise TelError(f"{name} is another build than the one that ran{hint}")
        except BaseException:
            os.close(fd)
            raise
        if same is None:
            self.guessed[path] = None
        return fd

    def _is_same(self, path, fd):
        """Whether a file has the build id, or else the first page, of what was mapped; None when the core does not hold that."""
        base = self._bases.get(path)
        page = None if base is None else self._held(base, self._page)
        if page is None:
            return None
        ran = _build_id(lambda offset, size: self._held(base + offset, size))
        here = _build_id(lambda offset, size: _pread(fd, offset, size))
        if ran is not None and here is not None:
            return ran == here
        return _pread(fd, 0, self._page) == page


def _perms(flags):
    return "".join(letter if flags & bit else "-" for letter, bit in (("r", _PF_R), ("w", _PF_W), ("x", _PF_X))) + "p"


def _signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _pread(fd, offset, size):
    """Exactly `size` bytes, or None; a size that the file cannot have takes no memory."""
    if offset + size > os.fstat(fd).st_size:
        return None
    data = os.pread(fd, size, offset)
    return data if len(data) == size else None


def _headers(read):
    """The program headers of an ELF file, each as _SEGMENT has it; () of none.  read(offset, size): bytes or None."""
    head = read(0, _HEADER.size)
    if head is None or head[:6] != _ELF_64:
        return ()
    _, _, _, _, _, place, _, _, _, size, count, _, _, _ = _HEADER.unpack(head)
    if size != _SEGMENT.size or count > _HEADERS_MOST:
        return ()
    table = read(place, size * count)
    return () if table is None else tuple(_SEGMENT.iter_unpack(table))


def _build_id(read):
    """The GNU build id of an ELF file, or None.  read(offset, size): bytes or None."""
    for kind, _, place, _, _, size, _, _ in _headers(read):
        data = read(place, size) if kind == _PT_NOTE and size <= _BUILD_ID_NOTES_MOST else None
        at = 0
        while data is not None and at + _NOTE.size <= len(data):
            name_size, data_size, sort = _NOTE.unpack_from(data, at)
            start = at + _NOTE.size + (name_size + 3 & ~3)
            if sort == _NT_GNU_BUILD_ID and data[at + _NOTE.size:at + _NOTE.size + name_size] == b"GNU\0" and data_size:
                return data[start:start + data_size]
            at = start + (data_size + 3 & ~3)
    return None


def _below(root, path):
    """Where an absolute `path` is when `root` is the top: symbolic links are followed, and never lead out of it."""
    root = root.rstrip("/")
    if not root:
        return path
    done, left, links = [], path.split("/"), 0
    while left:
        part = left.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        try:
            target = os.readlink("/".join((root, *done, part)))
        except (OSError, ValueError):
            done.append(part)
            continue
        links += 1
        if links > _LINKS_MOST:
            raise TelError(f"cannot read {root}{path}: it has too many symbolic links")
        if target.startswith("/"):
            done = []
        left = target.split("/") + left
    return "/".join((root, *done))


def _open_regular(path):
    """The descriptor of a regular file; nothing else is opened: some devices do something when they are.  Raises OSError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError:                  # a NUL in the name
        raise OSError(errno.ENOENT, "no file has such a name") from None
