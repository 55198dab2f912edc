"""Why another process cannot be read, and what to do about it, in one line."""
import errno
import os
import pwd
from collections import namedtuple

from modwsgi_tel.proc import procfs

CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE = 1, 2, 19
_TRACE = "run as root, or with CAP_SYS_PTRACE"
_READ = _TRACE + " and CAP_DAC_READ_SEARCH"     # the file of its memory is another's, with mode 0600
_ANY_READ = 1 << CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH
_WHOLE = [[0, 0, 4294967295]]       # the uid_map of the first user namespace

Target = namedtuple("Target", "stat uids gids caps owner")
Target.__doc__ = """A process to read.  stat: a procfs.Stat.  uids, gids: real, effective, saved, file system.  caps: permitted.
owner: the uid that the kernel shows as the owner of its memory: another than its own when it is non-dumpable."""

Reader = namedtuple("Reader", "uid gid caps uid_map yama")
Reader.__doc__ = """Who reads.  uid, gid: the file system's.  caps: effective.  uid_map: lists of inside, outside, count.
yama: kernel.yama.ptrace_scope, 0 where there is no Yama."""


def parse_status(text):
    """{name: value} of a /proc/PID/status, both bytes."""
    return {name: value.strip() for name, _, value in (line.partition(b":") for line in text.splitlines())}


def _target(pid, root):
    status = parse_status(procfs.read(f"{root}/{pid}/status", 65536))
    return Target(procfs.stat(pid, root), [int(word) for word in status[b"Uid"].split()],
                  [int(word) for word in status[b"Gid"].split()], int(status[b"CapPrm"], 16),
                  os.stat(f"{root}/{pid}/mem").st_uid)


def _yama(root):
    try:
        return int(procfs.read(f"{root}/sys/kernel/yama/ptrace_scope", 64))
    except (OSError, ValueError):
        return 0


def _reader(root):
    status = parse_status(procfs.read(f"{root}/self/status", 65536))
    try:
        mapped = [[int(word) for word in line.split()] for line in procfs.read(f"{root}/self/uid_map", 65536).splitlines()]
    except FileNotFoundError:                               # a kernel without user namespaces
        mapped = _WHOLE
    return Reader(int(status[b"Uid"].split()[3]), int(status[b"Gid"].split()[3]), int(status[b"CapEff"], 16), mapped,
                  _yama(root))


def effective(pid="self", root="/proc"):
    """The capabilities that a process has in effect, as bits.  Raises OSError, and KeyError or ValueError where /proc does not tell."""
    return int(parse_status(procfs.read(f"{root}/{pid}/status", 65536))[b"CapEff"], 16)


def lacking(root="/proc"):
    """What this process lacks to read other users' processes, as `no CAP_SYS_PTRACE`; "" where it has all.  Raises OSError."""
    caps = effective(root=root)
    names = [name for name, bits in (("CAP_SYS_PTRACE", 1 << CAP_SYS_PTRACE), ("CAP_DAC_READ_SEARCH", _ANY_READ)) if not caps & bits]
    return f"neither {names[0]} nor {names[1]}" if len(names) == 2 else f"no {names[0]}" if names else ""


def explain(pid, error, root="/proc"):
    """One line on why the process cannot be read, and what to do.  error: the OSError that came of it.

    Where /proc does not tell why, it is the error's own text.
    """
    try:
        target = _target(pid, root)
    except (FileNotFoundError, ProcessLookupError):
        return _absent(pid, root)
    except PermissionError:
        return f"process {pid} is hidden: /proc is mounted with hidepid={procfs.hidden(root)}; {_READ}"
    except (OSError, ValueError, KeyError):
        return _plain(pid, error)
    try:
        return _of_target(pid, error, target) or refused(pid, target, _reader(root))
    except (OSError, ValueError, KeyError, IndexError):
        return _plain(pid, error)


def _plain(pid, error):
    return f"cannot read process {pid}: {error.strerror or error}"


def _absent(pid, root):
    if not procfs.is_visible(root):
        return f"cannot read process {pid}: there is no /proc here; mount it (mount -t proc proc /proc)"
    how = procfs.hidden(root)
    if how and exists(pid):
        return f"process {pid} is hidden: /proc is mounted with hidepid={how}; {_READ}"
    return f"there is no process {pid}: it has ended, or that is its pid in another container"


def exists(pid):
    """Whether there is such a process, also where /proc does not show it."""
    try:
        os.kill(pid, 0)                                     # signal 0 only asks
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _of_target(pid, error, target):
    """What is wrong with the process itself, or None when the kernel refused."""
    if target.stat.kernel:
        return f"process {pid} ({target.stat.name}) is a thread of the kernel: it runs no Python"
    if target.stat.state in "ZXx":
        return (f"process {pid} has ended and waits for its parent {target.stat.parent} to take notice (a zombie): "
                "nothing of it is left to read")
    if error.errno in (errno.ENOENT, errno.ESRCH):
        return f"process {pid} has ended meanwhile"
    return None if error.errno in (errno.EACCES, errno.EPERM) else _plain(pid, error)


def refused(pid, target, reader):
    """Why the kernel does not let this reader read this process, and what to do.

    Source: ptrace(2), "Ptrace access mode checking"; Documentation/admin-guide/LSM/Yama.rst; fs/proc/base.c for the mode.
    """
    cannot = f"cannot read process {pid}: "
    if reader.yama >= 3:
        return cannot + "kernel.yama.ptrace_scope is 3, with which nobody may; change it in /etc/sysctl.d and boot anew"
    if reader.caps >> CAP_SYS_PTRACE & 1:
        if reader.uid_map != _WHOLE:
            return cannot + ("this is root in a user namespace alone (a rootless container), and the process is of another; "
                             "run as the host's root")
        if target.owner != reader.uid and not reader.caps & _ANY_READ:
            return cannot + "CAP_SYS_PTRACE is there, but another's memory takes CAP_DAC_READ_SEARCH as well; add it"
        return cannot + "not even CAP_SYS_PTRACE helps; look what SELinux or AppArmor logged"
    if reader.uid == 0:
        return cannot + ("this is root without CAP_SYS_PTRACE, as in most containers; "
                         "start the container with --cap-add SYS_PTRACE, or run on the host")
    if set(target.uids[:3]) != {reader.uid}:
        return cannot + f"it belongs to {_user(target.uids)}, this is {_named(reader.uid)}; {_READ}"
    if set(target.gids[:3]) != {reader.gid}:
        return cannot + f"it runs with group {target.gids[0]}, this with {reader.gid}; {_TRACE}"
    if target.owner != reader.uid:
        return cannot + ("it changed its user at its start, as mod_wsgi's daemons do, and that closes it (non-dumpable) even to "
                         f"its own user; {_READ}. "
                         "CoreDumpDirectory in Apache's configuration opens it too, except in mod_wsgi 6.0.0 to 6.1.1")
    if target.caps & ~reader.caps:
        return cannot + f"it has capabilities that this has not; {_TRACE}"
    if reader.yama == 2:
        return cannot + f"kernel.yama.ptrace_scope is 2; {_TRACE}"
    if reader.yama == 1:
        return cannot + (f"kernel.yama.ptrace_scope is 1, so only its parents may; {_TRACE}, or set it to 0 "
                         "(sysctl kernel.yama.ptrace_scope=0)")
    return cannot + f"the kernel does not say why, maybe SELinux or AppArmor; {_TRACE}"


def _named(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _user(uids):
    """The user of a process; two where it has changed but one of them."""
    return " and ".join(_named(uid) for uid in dict.fromkeys(uids[:3]))
