"""The system call that a thread is in, and what its arguments lead to: descriptors, a path, an address, a child, a time limit.

What they point to is read out of the process's memory, a few bounded pieces of it.  Nothing is stopped, and no link is followed.
Source: proc(5), /proc/pid/syscall; the manual pages of the calls, poll(2) and select(2) for the structures.
"""
import fcntl
import os
import socket
import struct

from modwsgi_tel.proc import links, procfs, sockets, threads

_MEMORY_MOST = 32768                    # bytes of one read of another's memory: 4,096 pollfds
_DESCRIPTORS_MOST = 4096                # that one call may wait for
_SELECT_MOST = 65536                    # the highest descriptor of a select, but for one
_PATH_MOST = 4096
_FDINFO_MOST = 1 << 20
_ADDRESS_MOST = 128                     # struct sockaddr_storage

# Which argument is the descriptor, and what is waited for
_BY_DESCRIPTOR = {
    **dict.fromkeys(("read", "readv", "pread64", "preadv", "recvfrom", "recvmsg", "recvmmsg", "getdents", "getdents64"), (0, "read")),
    **dict.fromkeys(("write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg", "sendmmsg", "sendfile", "fsync", "fdatasync",
                     "ftruncate", "fallocate", "sync_file_range"), (0, "write")),
    **dict.fromkeys(("splice", "copy_file_range"), (2, "write")),
    **dict.fromkeys(("accept", "accept4"), (0, "accept")),
    **dict.fromkeys(("close", "fstat", "ioctl", "io_uring_enter"), (0, "")),
    "connect": (0, "connect"), "flock": (0, "lock"), "fcntl": (0, "lock"),
}
# Which arguments are the folder that a path starts from (None: where the process is) and the path
_BY_PATH = {
    **dict.fromkeys(("open", "stat", "lstat", "access", "truncate", "rename", "mkdir", "rmdir", "unlink", "execve"), (None, 0)),
    **dict.fromkeys(("openat", "openat2", "newfstatat", "statx", "faccessat", "unlinkat", "mkdirat", "renameat", "renameat2"), (0, 1)),
}
# What is waited for is told by the name alone: kind, and how it is said
_PLAIN = {
    "futex": ("futex", "futex (a lock)"), "futex_waitv": ("futex", "futex_waitv (a lock)"),
    **{name: ("sleep", f"{name} (sleeps)") for name in ("nanosleep", "clock_nanosleep")},
    **{name: ("signal", f"{name} (waits for a signal)") for name in ("pause", "rt_sigsuspend", "rt_sigtimedwait")},
    **{name: ("semaphore", f"{name} (a semaphore)") for name in ("semop", "semtimedop")},
    **{name: ("message queue", f"{name} (a message queue)") for name in ("msgsnd", "msgrcv")},
    **{name: ("memory", f"{name} (memory)") for name in ("mmap", "munmap", "brk", "madvise")},
    **{name: ("child", f"{name} (starts a process)") for name in ("fork", "vfork", "clone", "clone3")},
}
# A call that was interrupted by a stop goes on under this name; the kernel's function tells which it was
_RESTARTED = (("poll", "poll"), ("nanosleep", "clock_nanosleep"), ("nsleep", "clock_nanosleep"), ("futex", "futex"))
_LOCKING = (fcntl.F_SETLKW, 38)         # and F_OFD_SETLKW
_AT_FDCWD = -100
_POLLIN, _POLLOUT = 1 | 2 | 64, 4 | 256     # POLLIN, POLLPRI, POLLRDNORM; POLLOUT, POLLWRNORM
_P_PID, _P_PIDFD = 1, 3
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Call:
    """One system call of one thread.

    text: the line of /proc that told it.  name: as "recvfrom"; "" where it is in none and waits for a page of memory.
    wanted: [(fd, direction)] of the descriptors that it waits for; direction: "read", "write", "connect", "accept", "lock" or "".
    kind, said: what is waited for where that is no descriptor, and in words.  timeout_s: after which it gives up, or None.
    path: of a file.  address: (kind, text) of who is to be connected, or to get a datagram.  child: a pid in its own namespace, 0 for any.  is_lock: of a file.
    """

    def __init__(self, text, name, arguments=()):
        self.text, self.name, self.arguments = text, name, arguments
        self.wanted, self.kind, self.said = [], "other", name
        self.timeout_s = self.path = self.address = self.child = None
        self.is_lock = False

    def sleeps(self, does):
        """Says of a call for descriptors that it has none: it is there for its time limit."""
        if does:
            self.kind, self.said = "sleep", f"{self.name} (sleeps)"


class Calls:
    """The system calls of the threads of one process, at one moment."""

    def __init__(self, pid, root="/proc"):
        self.folder = f"{root}/{pid}"
        self._memory, self._links, self._infos = None, {}, {}

    def close(self):
        if self._memory is not None and self._memory >= 0:
            os.close(self._memory)

    def _text(self, tid):
        try:
            return procfs.read(f"{self.folder}/task/{tid}/syscall", 256)
        except OSError:
            return b""

    def is_still(self, tid, call):
        """Whether a thread is in that call still: one that went on meanwhile may have had other descriptors."""
        return self._text(tid) == call.text

    def of(self, tid):
        """The Call of a thread; None where it is in none, and where that may not be known."""
        text = self._text(tid)
        words = text.split()
        if len(words) == 3 and words[0] == b"-1":
            return self._page(tid, text)
        parsed = threads.parse_syscall(text)
        if parsed is None or len(words) < 7:
            return None
        try:
            arguments = [int(word, 16) for word in words[1:7]]
        except ValueError:
            return None
        call = Call(text, self._restarted(tid) if parsed[1] == "restart_syscall" else parsed[1], arguments)
        self._read_arguments(call)
        return call

    def _page(self, tid, text):
        """Outside of any call a thread waits for nothing but memory that has to be read from the disk."""
        try:
            stat = procfs.parse_stat_line(procfs.read(f"{self.folder}/task/{tid}/stat", 4096))
        except (OSError, ValueError):
            return None
        if stat.state != "D":
            return None
        call = Call(text, "")
        call.kind, call.said = "page", "a page of memory (from swap or a file)"
        return call

    def _restarted(self, tid):
        try:
            where = procfs.read(f"{self.folder}/task/{tid}/wchan", 256).decode("ascii", "replace")
        except OSError:
            where = ""
        return next((name for part, name in _RESTARTED if part in where), "restart_syscall")

    def _read_arguments(self, call):
        name, first = call.name, call.arguments
        if name in _PLAIN:
            call.kind, call.said = _PLAIN[name]
        elif name in _BY_DESCRIPTOR:
            place, direction = _BY_DESCRIPTOR[name]
            if direction == "lock":
                call.is_lock = name == "flock" or first[1] in _LOCKING
                direction = "lock" if call.is_lock else ""
            call.wanted = [(_signed(first[place]), direction)]
            if name == "connect":
                call.address = self._socket_address(first[1], first[2])
            elif name == "sendto" and first[4]:
                call.address = self._socket_address(first[4], first[5])
        elif name in _BY_PATH:
            folder, path = _BY_PATH[name]
            call.kind, call.path = "file", self._path(None if folder is None else _signed(first[folder]), first[path])
        elif name in ("poll", "ppoll"):
            call.wanted = self._pollfds(first[0], first[1])
            call.timeout_s = _milliseconds(first[2]) if name == "poll" else self._timespec(first[2])
            call.sleeps(not first[1])
        elif name in ("select", "pselect6"):
            call.wanted = self._select(first[0], first[1:4])
            call.timeout_s = self._timespec(first[4], 1e-6 if name == "select" else 1e-9)
            call.sleeps(not first[0] or not any(first[1:4]))
        elif name in ("epoll_wait", "epoll_pwait", "epoll_pwait2"):
            call.wanted = self._epoll(_signed(first[0])) or [(_signed(first[0]), "read")]
            call.timeout_s = self._timespec(first[3]) if name == "epoll_pwait2" else _milliseconds(first[3])
        elif name == "wait4":
            call.kind, call.child = "child", max(0, _signed(first[0]))
        elif name == "waitid":
            call.kind, call.child = "child", self._waitid(first[0], first[1] & 0xFFFFFFFF)

    def _waitid(self, kind, given):
        """A pid in the process's own namespace, or 0."""
        if kind == _P_PIDFD:
            return number((self.info(given).get(b"NSpid") or self.info(given).get(b"Pid", b"")).rpartition(b"\t")[2]) or 0
        return given if kind == _P_PID else 0

    # another's memory

    def _read(self, address, size):
        """At most `size` bytes at an address; b"" where nothing can be read."""
        if self._memory is None:
            try:
                self._memory = os.open(f"{self.folder}/mem", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._memory = -1
        try:
            return os.pread(self._memory, min(size, _MEMORY_MOST), address) if self._memory >= 0 and address else b""
        except (OSError, OverflowError):
            return b""

    def _text_at(self, address):
        """The bytes up to a NUL; what can be read of them."""
        found = b""
        while len(found) < _PATH_MOST:                      # a read across the end of a mapping gives nothing at all
            piece = self._read(address + len(found), _PAGE - (address + len(found)) % _PAGE)
            found += piece.partition(b"\0")[0]
            if not piece or b"\0" in piece:
                break
        return found[:_PATH_MOST]

    def _timespec(self, address, unit=1e-9):
        data = self._read(address, 16)
        if len(data) < 16:
            return None
        whole, parts = struct.unpack("=qq", data)
        return whole + parts * unit if 0 <= whole < 1 << 40 and 0 <= parts * unit < 1 else None

    def _pollfds(self, address, count):
        data = self._read(address, 8 * min(count, _DESCRIPTORS_MOST))
        return [(fd, _direction(events)) for fd, events, _ in struct.iter_unpack("=iHH", data[:len(data) // 8 * 8]) if fd >= 0]

    def _select(self, count, addresses):
        found = {}
        for address, bit in zip(addresses, (_POLLIN, _POLLOUT, _POLLIN)):
            data = self._read(address, (min(count, _SELECT_MOST) + 63) // 64 * 8)
            for row, (word,) in enumerate(struct.iter_unpack("=Q", data[:len(data) // 8 * 8])):
                for fd in (64 * row + place for place in range(64) if word >> place & 1):
                    if fd < count:
                        found[fd] = found.get(fd, 0) | bit
        return [(fd, _direction(events)) for fd, events in list(found.items())[:_DESCRIPTORS_MOST]]

    def _epoll(self, fd):
        return [(each, _direction(events)) for each, events in self.info(fd)[b"tfd"][:_DESCRIPTORS_MOST]]

    def _socket_address(self, address, size):
        """("tcp" or "unix", text) of a struct sockaddr; None where it is neither."""
        data = self._read(address, min(size, _ADDRESS_MOST))
        family = struct.unpack_from("=H", data)[0] if len(data) >= 4 else 0
        port = int.from_bytes(data[2:4], "big")
        if family == socket.AF_INET and len(data) >= 8:
            return "tcp", sockets.address_text(data[4:8], port)
        if family == socket.AF_INET6 and len(data) >= 24:
            return "tcp", sockets.address_text(data[8:24], port)
        if family == socket.AF_UNIX:
            return "unix", sockets.path_text(data[2:]) or ""
        return None

    # descriptors and paths

    def link(self, fd):
        """The Link of a descriptor; None of one that is not open (any more)."""
        if fd not in self._links:
            try:
                self._links[fd] = links.read(self.folder, fd)
            except OSError:
                self._links[fd] = None
        return self._links[fd]

    def info(self, fd):
        """Its fdinfo as links.parse_fdinfo has it; {b"tfd": []} of one that is not open."""
        if fd not in self._infos:
            try:
                self._infos[fd] = links.parse_fdinfo(procfs.read(f"{self.folder}/fdinfo/{fd}", _FDINFO_MOST))
            except OSError:
                self._infos[fd] = links.parse_fdinfo(b"")
        return self._infos[fd]

    def _path(self, folder, address):
        path = os.fsdecode(self._text_at(address))
        if path.startswith("/") or not path:
            return path
        link = self.link(folder) if folder not in (None, _AT_FDCWD) else None
        if link is not None:
            return f"{link.target}/{path}"
        try:
            return os.path.join(os.fsdecode(os.readlink(f"{self.folder}/cwd")), path)
        except OSError:
            return path


def number(value):
    """An int of bytes that are one, else None."""
    return int(value) if value and value.isdigit() else None


def _signed(word):
    """An int of a register."""
    return (word & 0xFFFFFFFF) - ((word & 0x80000000) << 1)


def _milliseconds(word):
    return _signed(word) / 1000 if _signed(word) >= 0 else None


def _direction(events):
    return "read" if events & _POLLIN or not events & _POLLOUT else "write"
