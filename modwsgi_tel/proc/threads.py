"""What /proc says of the threads of a process, and which process it is."""
import os
from collections import namedtuple

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import procfs
from modwsgi_tel.proc.access import explain, parse_status

MOST = 4096                         # threads of one process
_MOST_COMMAND = 4096                # bytes of a command line

Task = namedtuple("Task", "tid inner_tid name state cpu_ticks wchan syscall")
Task.__doc__ = """One thread, as the kernel sees it.

tid: in the reader's pid namespace.  inner_tid: in the thread's own.  name: text, at most 15 bytes.  state: a letter.
cpu_ticks: used, in clock ticks.  wchan: the kernel's function it waits in.  syscall: (number, name) of the call that it is in.
wchan and syscall are None where it is in none, and for a reader that may not know."""

Identity = namedtuple("Identity", "start exe stack")
Identity.__doc__ = """Equal as long as a pid is the same program of the same process.

start: in clock ticks since boot.  exe: "DEVICE:INODE", or None for who may not know.  stack: where it begins (an exec of the
same program moves it), 0 for who may not know."""

# stacks.model's words, by proc(5)'s letters
_STATES = {"R": "running", "S": "waiting", "I": "waiting", "D": "disk", "T": "stopped", "t": "stopped", "Z": "gone", "X": "gone",
           "x": "gone"}

# Where a Python server may be found waiting.  Source: asm/unistd_64.h; aarch64 has asm-generic/unistd.h.
_SYSCALLS = {
    "x86_64": {
        0: "read", 1: "write", 2: "open", 3: "close", 4: "stat", 5: "fstat", 6: "lstat", 7: "poll", 9: "mmap", 11: "munmap",
        12: "brk", 16: "ioctl", 17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev", 21: "access", 23: "select",
        24: "sched_yield", 28: "madvise", 34: "pause", 35: "nanosleep", 40: "sendfile", 42: "connect", 43: "accept", 44: "sendto",
        45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 56: "clone", 57: "fork", 58: "vfork", 59: "execve", 60: "exit", 61: "wait4",
        65: "semop", 69: "msgsnd", 70: "msgrcv", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 76: "truncate",
        77: "ftruncate", 78: "getdents", 82: "rename", 83: "mkdir", 84: "rmdir", 87: "unlink", 128: "rt_sigtimedwait",
        130: "rt_sigsuspend", 202: "futex", 208: "io_getevents", 217: "getdents64", 219: "restart_syscall", 220: "semtimedop", 230: "clock_nanosleep",
        231: "exit_group", 232: "epoll_wait", 247: "waitid", 257: "openat", 262: "newfstatat", 263: "unlinkat", 264: "renameat",
        270: "pselect6", 271: "ppoll", 275: "splice", 277: "sync_file_range", 281: "epoll_pwait", 285: "fallocate",
        288: "accept4", 295: "preadv", 296: "pwritev", 299: "recvmmsg", 307: "sendmmsg", 316: "renameat2", 318: "getrandom",
        326: "copy_file_range", 332: "statx", 426: "io_uring_enter", 435: "clone3", 437: "openat2", 441: "epoll_pwait2",
        449: "futex_waitv"},
    "aarch64": {
        4: "io_getevents", 22: "epoll_pwait", 25: "fcntl", 29: "ioctl", 32: "flock", 34: "mkdirat", 35: "unlinkat",
        38: "renameat", 45: "truncate", 46: "ftruncate", 47: "fallocate", 48: "faccessat", 56: "openat", 57: "close",
        61: "getdents64", 63: "read", 64: "write", 65: "readv", 66: "writev", 67: "pread64", 68: "pwrite64", 69: "preadv",
        70: "pwritev", 71: "sendfile", 72: "pselect6", 73: "ppoll", 76: "splice", 79: "newfstatat", 80: "fstat", 82: "fsync",
        83: "fdatasync", 93: "exit", 94: "exit_group", 95: "waitid", 98: "futex", 101: "nanosleep", 115: "clock_nanosleep",
        124: "sched_yield", 128: "restart_syscall", 133: "rt_sigsuspend", 137: "rt_sigtimedwait", 188: "msgrcv", 189: "msgsnd", 192: "semtimedop",
        193: "semop", 202: "accept", 203: "connect", 206: "sendto", 207: "recvfrom", 211: "sendmsg", 212: "recvmsg", 214: "brk",
        215: "munmap", 220: "clone", 221: "execve", 222: "mmap", 233: "madvise", 242: "accept4", 243: "recvmmsg", 260: "wait4",
        269: "sendmmsg", 276: "renameat2", 278: "getrandom", 285: "copy_file_range", 291: "statx", 426: "io_uring_enter",
        435: "clone3", 437: "openat2", 441: "epoll_pwait2", 449: "futex_waitv"},
}


class Tasks(dict):
    """{tid: Task} of one process, by tid.  dropped: how many more threads it has than MOST."""

    dropped = 0


def syscall_name(number, machine=os.uname().machine):
    """The name of a system call, else "syscall 123"."""
    return _SYSCALLS.get(machine, {}).get(number, f"syscall {number}")


def parse_syscall(text, machine=os.uname().machine):
    """(number, name) of a /proc/PID/task/TID/syscall; None where the thread is in no call."""
    first = text.split(None, 1)[:1]
    if not first or not first[0].isdigit():                 # "running", or -1: stopped outside of any
        return None
    number = int(first[0])
    return number, syscall_name(number, machine)


def threads(pid, root="/proc"):
    """Tasks of a process; empty when it has ended.  Raises TelError when /proc does not show it."""
    found = Tasks()
    try:
        tids, found.dropped = _tids(pid, root)
        nested = len(procfs.parse_nspids(procfs.read(f"{root}/{pid}/status", 65536))) > 1
    except (FileNotFoundError, ProcessLookupError):
        return found
    except OSError as error:
        raise TelError(explain(pid, error, root)) from None
    for tid in tids:
        try:
            found[tid] = _task(f"{root}/{pid}/task/{tid}", tid, nested)
        except (OSError, ValueError):                       # it has ended in between
            continue
    return found


def _tids(pid, root):
    tids = sorted(_all_tids(pid, root))
    return tids[:MOST], max(0, len(tids) - MOST)


def _all_tids(pid, root):
    return {int(name) for name in os.listdir(f"{root}/{pid}/task") if name.isdecimal() and name.isascii()}


def _task(folder, tid, nested):
    stat = procfs.parse_stat_line(procfs.read(f"{folder}/stat", 4096))
    inner = procfs.parse_nspids(procfs.read(f"{folder}/status", 65536)) if nested else ()
    wchan = _secret(f"{folder}/wchan").decode("ascii", "replace").strip()
    return Task(tid, inner[-1] if inner else tid, stat.name, stat.state, stat.cpu_ticks,
                wchan if wchan not in ("", "0") else None, parse_syscall(_secret(f"{folder}/syscall")))


def _secret(path):
    """What only those see who may trace the thread; b"" for others."""
    try:
        return procfs.read(path, 256)
    except (PermissionError, FileNotFoundError, ProcessLookupError):     # FileNotFoundError: a kernel built without it
        return b""


def tids(pid, root="/proc"):
    """The ids of all of a process's threads, as a set; empty when it has ended."""
    try:
        return _all_tids(pid, root)
    except OSError:
        return set()


def cpu_ticks(pid, tids, root="/proc"):
    """{tid: clock ticks of CPU used} of these threads; without those that have ended."""
    found = {}
    for tid in tids:
        try:
            found[tid] = procfs.parse_stat_line(procfs.read(f"{root}/{pid}/task/{tid}/stat", 4096)).cpu_ticks
        except (OSError, ValueError):
            continue
    return found


def state(task):
    """stacks.model's word for what a thread does."""
    return _STATES.get(task.state, "unknown")


def wait(task):
    """In what a thread waits, as `futex (futex_wait_queue)`; None when it runs or that is not known."""
    if task.state == "R":
        return None
    call, where = task.syscall and task.syscall[1], task.wchan and f"({task.wchan})"
    return " ".join(filter(None, (call, where))) or None


def identity(pid, root="/proc"):
    """The Identity of a process.  Raises TelError when there is none."""
    try:
        stat = procfs.stat(pid, root)
    except (OSError, ValueError) as error:
        raise TelError(_why(pid, error, root)) from None
    try:
        seen = os.stat(f"{root}/{pid}/exe")
    except OSError:
        return Identity(stat.start, None, stat.stack)
    return Identity(stat.start, f"{seen.st_dev}:{seen.st_ino}", stat.stack)


def executable(pid, root="/proc"):
    """The path of its program, with " (deleted)" behind it when the file is gone or another; None for who may not know."""
    try:
        return os.fsdecode(os.readlink(os.fsencode(f"{root}/{pid}/exe")))
    except OSError:
        return None


def command(pid, root="/proc"):
    """Its command line, at most 4096 bytes as they are, with spaces for NULs; "[name]" where it has none.

    Raises TelError when there is no such process.
    """
    try:
        line = procfs.read(f"{root}/{pid}/cmdline", _MOST_COMMAND).replace(b"\0", b" ").strip()
        return line.decode("utf-8", "replace") if line else f"[{procfs.stat(pid, root).name}]"
    except (OSError, ValueError) as error:
        raise TelError(_why(pid, error, root)) from None


def inner_pid(pid, root="/proc"):
    """Its pid in its own namespace, where that is another; else None.  Raises TelError when there is no such process."""
    try:
        pids = procfs.parse_nspids(procfs.read(f"{root}/{pid}/status", 65536))
    except (OSError, ValueError) as error:
        raise TelError(_why(pid, error, root)) from None
    return pids[-1] if pids and pids[-1] != pid else None


def rights(pid, root="/proc"):
    """(uid, [gid, ...]) that count where it opens a file.  Raises TelError when there is no such process."""
    try:
        status = parse_status(procfs.read(f"{root}/{pid}/status", 65536))
        return int(status[b"Uid"].split()[3]), [int(word) for word in (status[b"Gid"].split()[3], *status[b"Groups"].split())]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise TelError(_why(pid, error, root)) from None


def has_ended(pid, root="/proc"):
    """Whether nothing of a process runs any more (its main thread may end before the others)."""
    try:
        tids, _ = _tids(pid, root)
    except OSError:
        return True
    for tid in tids:
        try:
            if procfs.parse_stat_line(procfs.read(f"{root}/{pid}/task/{tid}/stat", 4096)).state not in "ZXx":
                return False
        except (OSError, ValueError):
            continue
    return True


def _why(pid, error, root):
    return explain(pid, error, root) if isinstance(error, OSError) else f"cannot read process {pid}: {error}"
