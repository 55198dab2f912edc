"""What the link of a descriptor in /proc/PID/fd says: of which kind it is, and of what.  No link is followed: that may hang."""
import os
from collections import namedtuple

Link = namedtuple("Link", "kind target inode deleted")
Link.__doc__ = """kind: "file", "deleted file", "socket", "pipe", "eventfd", "epoll", "device", "memfd", "inotify" or "other".
target: text; of what has no name the link itself.  inode: of a socket or a pipe, else None."""

_DELETED = " (deleted)"
_ANONYMOUS = {"eventpoll": "epoll", "eventfd": "eventfd", "inotify": "inotify"}
_FILES_IN_DEV = ("/dev/shm/", "/dev/mqueue/", "/dev/hugepages/")

# Of the last word of a socket's protocol, by the kernel's name for it (struct proto); "UNIX-STREAM" since 5.15
_PROTOCOLS = {"TCP": "tcp", "TCPv6": "tcp6", "MPTCP": "tcp", "MPTCPv6": "tcp6", "UDP": "udp", "UDPv6": "udp6", "UNIX": "unix",
              "UNIX-STREAM": "unix", "NETLINK": "netlink", "PACKET": "packet"}


def parse(target):
    """The Link that such a text is.  Source: proc(5), /proc/pid/fd."""
    if target.startswith(("socket:[", "pipe:[")):
        kind, _, inode = target[:-1].partition(":[")
        return Link(kind, target, int(inode) if inode.isdecimal() else None, False)
    if target.startswith("anon_inode:"):
        return Link(_ANONYMOUS.get(target[11:].strip("[]"), "other"), target, None, False)
    if not target.startswith("/"):
        return Link("other", target, None, False)
    deleted = target.endswith(_DELETED)
    path = target[:-len(_DELETED)] if deleted else target
    if path.startswith("/memfd:"):
        return Link("memfd", path, None, False)
    if path.startswith("/dev/") and not path.startswith(_FILES_IN_DEV):
        return Link("device", path, None, deleted)
    return Link("deleted file" if deleted else "file", path, None, deleted)


def read(folder, fd):
    """The Link of a descriptor.  folder: /proc/PID.  Raises OSError."""
    return parse(os.fsdecode(os.readlink(f"{folder}/fd/{fd}")))


def protocol(folder, fd):
    """A sockets.Socket's kind, of a socket that no table of the kernel shows: not bound, or of another namespace."""
    try:
        name = os.getxattr(f"{folder}/fd/{fd}", "system.sockprotoname").rstrip(b"\0").decode("ascii", "replace")
    except OSError:
        return "other"
    return _PROTOCOLS.get(name, "other")


def family(kind):
    """A sockets.Socket's kind, the same for IPv4 and IPv6."""
    return kind[:-1] if kind in ("tcp6", "udp6") else kind


def parse_fdinfo(text):
    """{name: value} of a /proc/PID/fdinfo/FD, both bytes, of each name the first; b"tfd" is [(fd, events)] of an epoll's descriptors.

    Source: proc(5), /proc/pid/fdinfo.
    """
    found = {b"tfd": []}
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        if name == b"tfd":
            words = value.split(None, 3)
            try:
                found[b"tfd"].append((int(words[0]), int(words[2], 16)))
            except (ValueError, IndexError):
                continue
        else:
            found.setdefault(name, value.strip())
    return found
