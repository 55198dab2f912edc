"""What a process has open: how many of which kind, what each one is, and what is open again and again.

No descriptor's link is followed, as that may hang: all is told by the link's text, /proc/PID/fdinfo and the tables of sockets.
"""
import collections
import itertools
import os
import re

from modwsgi_tel.proc import links, procfs, sockets
from modwsgi_tel.proc.details import count_files
from modwsgi_tel.proc.parts import Parts

MOST = 10_000                           # descriptors of one look
_INFOS_MOST = 2_000                     # files of which position and mode are asked for
_SAME_MOST = 50                         # groups of what is open several times
_DIRECTORY = {"x86_64": 0o200000, "aarch64": 0o40000}.get(os.uname().machine, 0)    # O_DIRECTORY
_MODES = ("r", "w", "rw", "")           # by O_ACCMODE
_FILES = ("file", "deleted file")
# What differs between files of one purpose: tempfile's names, hexadecimal digests, numbers
_TEMPORARY = re.compile(r"\btmp[a-z0-9_]{8}(?![a-z0-9_])")
_NUMBERS = re.compile(r"#?(?:(?=[a-f]*\d)[0-9a-f]{8,}|\d+)")


def look(pid, most=MOST, root="/proc"):
    """What a process has open.  Raises TelError when there is no such process.

    {"count": all, "soft_limit": how many it may have, both None where that is not known; "kinds": {kind: how many};
     "rows": [{"fd", "kind", "target", "deleted", "mode", "position", "inode", "socket": a sockets.Socket as a dictionary, or None}];
     "same": [{"target", "kind", "count"}] of what is open several times, most first; "left_out": how many beyond `most`;
     "unknown": {part: one line on why it is not there}}
    kind: "file", "deleted file", "directory", "tcp", "udp", "unix", "netlink", "packet", "pipe", "eventfd", "epoll", "device", "memfd",
    "inotify" or "other".  mode: "r", "w", "rw"; position: in bytes; both None for what was not asked for.
    """
    parts = Parts(pid, root)
    parts.stat()
    limits = parts.read("limits", "limits")
    names, total = parts.attempt("descriptors", "fd", _names, most) or ([], count(pid, root))
    opened = _links(parts.folder, names)
    inodes = {link.inode for _, link in opened if link.kind == "socket"}
    known = {}
    if inodes:
        known = sockets.table(pid, root, inodes)
        parts.unknown.update(known.unknown)
    rows, asked = [], 0
    for fd, link in opened:
        if link.kind == "socket":
            rows.append(_socket_row(parts.folder, fd, link, known.get(link.inode)))
        else:
            asked += 1
            rows.append(_row(parts.folder, fd, link, asked <= _INFOS_MOST))
    if asked > _INFOS_MOST:
        parts.unknown["position"] = f"asked of the first {_INFOS_MOST:,} files alone"
    kinds = dict(collections.Counter(row["kind"] for row in rows).most_common())
    return {"count": total, "soft_limit": soft_limit(limits or b""), "kinds": kinds, "rows": rows,
            "same": same(rows), "left_out": max(0, (total or 0) - len(names)), "unknown": parts.unknown}


def count(pid, root="/proc"):
    """How many descriptors a process has open; None where that may not be known."""
    try:
        return count_files(f"{root}/{pid}/fd")
    except OSError:
        return None


def _names(folder, most):
    """([fd as text] by number, how many there are).  Raises OSError."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in itertools.islice(entries, most)]
    total = len(names) if len(names) < most else max(count_files(folder), most)
    return sorted((name for name in names if name.isdecimal()), key=int), total


def _links(folder, names):
    """[(fd, Link)] of those that are still open."""
    found = []
    try:
        handle = os.open(f"{folder}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return found
    try:
        for name in names:
            try:
                found.append((int(name), links.parse(os.fsdecode(os.readlink(name, dir_fd=handle)))))
            except OSError:
                continue
    finally:
        os.close(handle)
    return found


def _row(folder, fd, link, ask):
    kind, mode, position = link.kind, None, None
    if ask:
        try:
            told = links.parse_fdinfo(procfs.read(f"{folder}/fdinfo/{fd}", 4096))
            flags, position = int(told.get(b"flags", b"0"), 8), int(told.get(b"pos", b"0"))
            mode = _MODES[flags & 3]
            kind = "directory" if kind == "file" and flags & _DIRECTORY else kind
        except (OSError, ValueError):                       # closed meanwhile
            pass
    return {"fd": fd, "kind": kind, "target": link.target, "deleted": link.deleted, "mode": mode,
            "position": position if kind in _FILES else None, "inode": link.inode, "socket": None}


def _socket_row(folder, fd, link, told):
    """A socket that no table shows is not bound, or of another namespace."""
    kind = told.kind if told else links.protocol(folder, fd)
    target = link.target if told is None else socket_target(told) or link.target
    return {"fd": fd, "kind": links.family(kind), "target": target, "deleted": False, "mode": "rw", "position": None, "inode": link.inode,
            "socket": told._asdict() if told else None}


def socket_target(told):
    """What a socket is for, in a few words: its peer, from where it was called, or where it listens; "" where it has no name."""
    if told.state == sockets.LISTEN:
        return f"listening on {told.local or told.path or ''}".rstrip()
    if told.kind == "unix":
        return told.remote or told.path or ""
    if told.incoming:
        return f"{told.local} from {told.remote}"
    return told.remote or told.local or ""


def soft_limit(text):
    """How many files a process may have open, out of a /proc/PID/limits; None where that is unlimited or not told."""
    for line in text.splitlines():
        if line.startswith(b"Max open files"):
            first = line[len(b"Max open files"):].split()[:1]
            return int(first[0]) if first and first[0].isdigit() else None
    return None


def same(rows):
    """[{"target", "kind", "count"}] of the rows that are for the same, most first: numbers in the names of files folded to #."""
    groups = collections.Counter((row["kind"], _purpose(row)) for row in rows)
    return [{"target": target, "kind": kind, "count": number} for (kind, target), number in
            sorted(groups.items(), key=lambda each: (-each[1], each[0]))[:_SAME_MOST] if number > 1]


def _purpose(row):
    """What is the same of two descriptors of one purpose."""
    told = row["socket"]
    if told is not None and told["kind"] in ("tcp", "tcp6", "udp", "udp6"):
        shown = f"clients of {told['local']}" if told["incoming"] else told["remote"] or row["target"]
        return f"{shown}, {told['state']}" if told["state"] in ("CLOSE_WAIT", "SYN_SENT") else shown
    if row["kind"] in _FILES or row["kind"] in ("directory", "memfd"):
        return _NUMBERS.sub("#", _TEMPORARY.sub("tmp#", row["target"]))
    if row["target"].startswith(("pipe:[", "socket:[")):
        return row["kind"]
    return row["target"]
