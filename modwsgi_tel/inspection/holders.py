"""Who has a file or a port: every process that may be looked into, within a time.

    of_file(path) -> Found, of_port(port) -> Found

A row: {"pid", "name", "command", "user", "fd" (None where it is no descriptor), "how", "target"}.  how: "open for reading",
"open for writing", "open for reading and writing", "mapped", "is its program", "is its working directory", "is its root",
"holds a write lock", "listens", "connected", ...; target: what the kernel calls it, with " (deleted)" of a file whose name is gone.
"""
import os
import pwd
import re
import stat as modes
import time
from collections import namedtuple

from modwsgi_tel.errors import TelError
from modwsgi_tel.inspection.network import port_of
from modwsgi_tel.proc import links, procfs, sockets, threads

LIMIT_S = 5.0
ROWS_MOST = 10_000
_MAPS_BYTES = 16 << 20
_LOCKS_BYTES = 4 << 20
_NAMESPACES_MOST = 256
_ACCESS = {os.O_RDONLY: "open for reading", os.O_WRONLY: "open for writing", os.O_RDWR: "open for reading and writing"}
_FOLDERS = (("cwd", "is its working directory"), ("root", "is its root"), ("exe", "is its program"))
_DELETED = " (deleted)"
# Source: proc(5), /proc/locks
_LOCK = re.compile(rb"\d+: (-> )?(\w+)\s+\S+\s+(READ|WRITE|RW|NONE)\s+(-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ")

Found = namedtuple("Found", "what rows processes refused left_out")
Found.__doc__ = """what: text, of what this tells.  rows: see above, by pid.  processes: how many were looked into.  refused: how many may
not be looked into.  left_out: how many were not looked at, since that would have taken longer than LIMIT_S."""


class _Search:
    """Goes over all processes, and counts those that it cannot see into."""

    def __init__(self, root, seconds):
        self.root, self.rows = root, []
        self.processes = self.refused = self.left_out = 0
        self._deadline = time.monotonic() + seconds
        self._said = {}

    def pids(self):
        """Raises TelError where there is no /proc."""
        try:
            found = procfs.pids(self.root)
        except OSError:
            found = []
        if not found or not procfs.is_visible(self.root):
            raise TelError("there is no /proc here: mount it (mount -t proc proc /proc)")
        for place, pid in enumerate(found):
            if self.late or len(self.rows) >= ROWS_MOST:
                self.left_out = len(found) - place
                return
            yield pid

    @property
    def late(self):
        return time.monotonic() > self._deadline

    def add(self, pid, how, target, fd=None):
        said = self._said.get(pid)
        if said is None:
            said = self._said[pid] = _said(pid, self.root)
        if said and len(self.rows) < ROWS_MOST:
            self.rows.append({"pid": pid, **said, "fd": fd, "how": how, "target": target})

    def found(self, what):
        order = {row["pid"]: place for place, row in enumerate(self.rows)}
        return Found(what, sorted(self.rows, key=lambda row: (row["pid"], order[row["pid"]], -1 if row["fd"] is None else row["fd"])),
                     self.processes, self.refused, self.left_out)


def _said(pid, root):
    """{"name", "command", "user"} of a process; {} when it has ended."""
    try:
        uid = os.stat(f"{root}/{pid}").st_uid
        name = procfs.stat(pid, root).name
        command = threads.command(pid, root)
    except (OSError, ValueError, TelError):
        return {}
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return {"name": name, "command": command, "user": user}


# --- a file ---------------------------------------------------------------------------------------

def of_file(path, root="/proc", seconds=LIMIT_S):
    """The Found of who has this file, folder, FIFO or unix socket.  Raises TelError where there is no /proc.

    Files are told by what the kernel calls them, and by device and inode where the name's last part is the same: so is the same file
    under another mount, and one that was replaced since is found by its name and shown as deleted.  No other link is followed: a dead
    network file system would hang.
    """
    search, whole = _Search(root, seconds), os.path.realpath(path)
    try:
        known = os.stat(whole)
    except OSError:
        known = None
    if known is not None and modes.S_ISSOCK(known.st_mode):
        return _of_socket_file(search, whole)
    wanted = _Wanted(whole, known)
    for pid in search.pids():
        _look_at(search, pid, wanted)
    if known is not None:
        _locks(search, known)
    return search.found(whole)


class _Wanted:
    def __init__(self, path, known):
        self.path, self._known = path, None if known is None else (known.st_dev, known.st_ino)
        self.name = os.path.basename(path)

    def is_meant(self, target, link):
        """Whether what a link of /proc says is the file.  link: its own path, to be followed where the names are alike."""
        plain = target[:-len(_DELETED)] if target.endswith(_DELETED) else target
        if plain == self.path:
            return True
        if self._known is None or os.path.basename(plain) != self.name:
            return False
        try:
            seen = os.stat(link)
        except OSError:
            return False
        return (seen.st_dev, seen.st_ino) == self._known


def _look_at(search, pid, wanted):
    folder = f"{search.root}/{pid}"
    try:
        descriptors = os.listdir(f"{folder}/fd")
    except PermissionError:
        search.refused += 1
        return
    except OSError:                                         # it has ended
        return
    search.processes += 1
    for name, how in _FOLDERS:
        target = _link(f"{folder}/{name}")
        if target is not None and wanted.is_meant(target, f"{folder}/{name}"):
            search.add(pid, how, target)
    found = False
    for place, fd in enumerate(descriptors):
        if place % 256 == 255 and search.late:
            break
        target = _link(f"{folder}/fd/{fd}")
        if target is not None and wanted.is_meant(target, f"{folder}/fd/{fd}"):
            search.add(pid, _access(f"{folder}/fdinfo/{fd}"), target, int(fd))
            found = True
    if not found:
        _mapped(search, pid, wanted)


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return None


def _access(path):
    """How a descriptor is open, by its fdinfo."""
    try:
        flags = int(links.parse_fdinfo(procfs.read(path, 4096)).get(b"flags", b""), 8)
    except (OSError, ValueError):
        return "open"
    return "held by its path alone (O_PATH)" if flags & os.O_PATH else _ACCESS.get(flags & os.O_ACCMODE, "open")


def _mapped(search, pid, wanted):
    """A mapping is told by its name alone, which is what the kernel wrote: a line end in it is \\012."""
    try:
        maps = procfs.read(f"{search.root}/{pid}/maps", _MAPS_BYTES)
    except OSError:
        return
    name = os.fsencode(wanted.path).replace(b"\n", b"\\012")
    if name not in maps:
        return
    for line in maps.splitlines():
        place = line.find(b"/")
        if place > 0 and line[place:] in (name, name + _DELETED.encode()):
            search.add(pid, "mapped", os.fsdecode(line[place:]))
            return


def _locks(search, known):
    """Locks on a file, of flock and fcntl; who waits for one stands below it."""
    try:
        lines = procfs.read(f"{search.root}/locks", _LOCKS_BYTES).splitlines()
    except OSError:
        return
    wanted = os.major(known.st_dev), os.minor(known.st_dev), known.st_ino
    for line in lines:
        match = _LOCK.match(line)
        if match and (int(match.group(5), 16), int(match.group(6), 16), int(match.group(7))) == wanted and int(match.group(4)) > 0:
            kind = match.group(3).decode().lower()
            search.add(int(match.group(4)), f"waits for a {kind} lock" if match.group(1) else f"holds a {kind} lock",
                       match.group(2).decode())


# --- sockets --------------------------------------------------------------------------------------

def _of_socket_file(search, path):
    def is_meant(name):
        return name == path or name is not None and os.path.basename(name) == os.path.basename(path) and os.path.realpath(name) == path

    rows = []
    for each in sockets.table("self", search.root).values():
        if each.kind == "unix" and is_meant(each.path):
            rows.append((each, "listens" if each.state == sockets.LISTEN else
                         "has it open" if each.state == "UNCONNECTED" else "accepted on it"))
        elif each.kind == "unix" and is_meant(each.remote):
            rows.append((each, "waits to be accepted" if each.state == sockets.QUEUED else "connected to it"))
    _holders(search, rows)
    return search.found(path)


def of_port(port, root="/proc", seconds=LIMIT_S):
    """The Found of who listens on a port of TCP or UDP, in any network namespace, or is connected from or to it."""
    search, rows, seen = _Search(root, seconds), [], set()
    for pid in ["self", *search.pids()]:
        if len(seen) >= _NAMESPACES_MOST:
            break
        try:
            told = os.stat(f"{root}/{pid}/net/unix")        # one inode for each network namespace
            place = told.st_dev, told.st_ino
        except OSError:
            continue
        if place not in seen:
            seen.add(place)
            try:
                rows += [(each, _on_port(each, port)) for each in sockets.table(pid, root).values() if _on_port(each, port)]
            except TelError:                                # it has ended
                continue
    search.left_out = 0
    _holders(search, rows)
    return search.found(f"port {port}")


def _on_port(each, port):
    """What a socket does on a port; "" for nothing."""
    if each.kind not in ("tcp", "tcp6", "udp", "udp6"):
        return ""
    if port_of(each.local) == str(port):
        return (f"listens on {each.local}" if each.state == sockets.LISTEN or not each.remote else
                f"connected: {each.local} from {each.remote}")
    return f"connected to {each.remote}" if port_of(each.remote) == str(port) else ""


def _holders(search, rows):
    """Adds rows of (Socket, how): one for each descriptor that has it; without a process where none of those that may be seen does."""
    wanted, held = {each.inode: (each, how) for each, how in rows}, set()
    for pid in search.pids() if wanted else ():
        folder = f"{search.root}/{pid}/fd"
        try:
            descriptors = os.listdir(folder)
        except PermissionError:
            search.refused += 1
            continue
        except OSError:                                     # it has ended
            continue
        search.processes += 1
        for place, fd in enumerate(descriptors):
            if place % 256 == 255 and search.late:
                break
            link = links.parse(_link(f"{folder}/{fd}") or "")
            if link.kind == "socket" and link.inode in wanted:
                held.add(link.inode)
                each, how = wanted[link.inode]
                search.add(pid, how, _target(each), int(fd))
    for inode in sorted(set(wanted) - held):
        each, how = wanted[inode]
        search.rows.append({"pid": None, "name": None, "command": None, "user": _owner(each.uid), "fd": None,
                            "how": how, "target": _target(each)})


def _target(each):
    return f"{each.kind} {each.state}" + (
        f", {each.received_queue:,} B to read" if each.received_queue and each.state != sockets.LISTEN else
        f", {each.received_queue:,} wait to be accepted" if each.received_queue else "")


def _owner(uid):
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
