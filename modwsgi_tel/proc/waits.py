"""What a thread waits for: the peer of a connection, the file, the child, the holder of a file lock, the other end of a pipe."""
from modwsgi_tel.errors import TelError
from modwsgi_tel.masking import masked
from modwsgi_tel.proc import links, mounts, procfs, services, sockets, threads
from modwsgi_tel.proc.calls import Calls, number

_COMMAND_MOST, _TOLD_MOST = 400, 80     # letters of a command, and of one in a line
_TASKS_MOST = 512                       # whose children are asked for
_SEEK_S = 0.1                           # in search of who has the other end of a pipe
_LOCKS_MOST = 1 << 20
_INTERNET = ("tcp", "udp")
_SOCKETS = ("tcp", "udp", "unix", "netlink", "packet")


def waits_on(pid, tid, root="/proc"):
    """What one thread waits for, as waits has it; None where it waits in no system call, or may not be looked at."""
    return waits(pid, [tid], root).get(tid)


def waits(pid, tids=None, root="/proc"):
    """{tid: what it waits for} of these threads of a process, or of all; without those that wait in no system call, and those that
    may not be looked at.  Raises nothing: of a process that has ended there is nothing.

    Each is a dictionary of
    "call": the system call, as "recvfrom"; "" while it waits for a page of memory.
    "kind": "tcp", "udp", "unix", "netlink", "packet", "pipe", "file", "device" and so on, as descriptors.look has it; or "futex",
        "sleep", "child", "signal", "semaphore", "message queue", "memory", "page", "other".
    "fd": a number or None.  "target": the peer, the path, or "".  "direction": "read", "write", "connect", "accept", "lock" or "".
    "service", "local", "state", "incoming", "inode", "peer": of a socket, as a sockets.Socket has them.
    "others": how many more descriptors it waits for at the same time.
    "timeout_s": after which the call gives up; None where it does not, or that is not told.
    "filesystem": the type of the file's, as "nfs4", or "".
    "pids": the processes that it waits for: a child, who has the file lock or the other end of a pipe.  "command": the first one's.
    "text": all of it in a few words, as "recvfrom on tcp 127.0.0.1:9999".
    """
    calls = Calls(pid, root)
    try:
        found = {tid: calls.of(tid) for tid in (sorted(threads.tids(pid, root)) if tids is None else tids)}
        found = {tid: call for tid, call in found.items() if call is not None}
        told = _Told(pid, root, calls, found.values())
        return {tid: wait for tid, wait in ((tid, told.of(call)) for tid, call in found.items()) if calls.is_still(tid, found[tid])}
    finally:
        calls.close()


class _Told:
    """What is known of the descriptors of these calls of one process."""

    def __init__(self, pid, root, calls, found):
        self._pid, self._root, self._calls = pid, root, calls
        self._mounts = self._children = None
        opened = [(calls.link(fd), direction) for call in found for fd, direction in call.wanted]
        opened = [(link, direction) for link, direction in opened if link is not None]
        inodes = {link.inode for link, _ in opened if link.kind == "socket"}
        try:
            self._sockets = sockets.table(pid, root, inodes) if inodes else {}
        except TelError:
            self._sockets = {}
        pipes = [(link.inode, direction == "write") for link, direction in opened if link.kind == "pipe"]
        self._writers = self._holders({inode for inode, writes in pipes if not writes}, sockets.WRITES)
        self._readers = self._holders({inode for inode, writes in pipes if writes}, sockets.READS)
        self._peers = self._holders({each.peer for each in self._sockets.values()
                                     if each.kind == "unix" and each.peer and not each.remote and not each.path}, None)

    def of(self, call):
        """What a call waits for, as waits has it."""
        found = [self._of_descriptor(call, fd, direction) for fd, direction in call.wanted]
        wait = min(found, key=_rank) if found else self._of_call(call)
        wait["others"], wait["timeout_s"] = max(0, len(found) - 1), call.timeout_s
        wait["command"] = self._command(wait["pids"])
        wait["text"] = _text(wait, call.said, self._pid)
        return wait

    def _of_call(self, call):
        """Of a call without a descriptor."""
        wait = _blank(call.name, call.kind)
        if call.path is not None:
            wait.update(target=call.path, filesystem=self._filesystem(call.path))
        if call.child is not None:
            wait["pids"] = self._waited_for(call.child)
        return wait

    def _of_descriptor(self, call, fd, direction):
        link = self._calls.link(fd)
        wait = {**_blank(call.name, "other"), "fd": fd, "direction": direction}
        if link is None:
            return wait
        wait.update(kind=link.kind, inode=link.inode, target=link.target)
        if link.kind == "socket":
            self._add_socket(wait, self._sockets.get(link.inode), call.address)
        elif link.kind == "pipe":
            wait["pids"] = (self._readers if direction == "write" else self._writers).get(link.inode, [])
        elif link.kind in ("file", "deleted file"):
            wait["filesystem"] = self._filesystem(link.target, fd)
            if call.is_lock:
                wait["pids"] = self._lock_holders(fd)
        return wait

    def _add_socket(self, wait, told, address):
        if told is None:
            kind = address[0] if address else links.family(links.protocol(self._calls.folder, wait["fd"]))
            wait.update(kind=kind, state="CLOSE")
        else:
            wait.update(kind=links.family(told.kind), service=told.service, local=told.local, state=told.state, incoming=told.incoming,
                        peer=told.peer, target=told.remote or told.path or told.local or wait["target"],
                        pids=self._peers.get(told.peer, []))
            if told.state == sockets.LISTEN:
                wait["direction"] = "accept"
            elif told.state == "SYN_SENT":
                wait["direction"] = "connect"
        if address is not None and (told is None or not told.remote):
            wait["target"] = address[1]
            wait["service"] = services.of_path(address[1]) if address[0] == "unix" else services.of_addresses(None, address[1], False)

    def _filesystem(self, path, fd=None):
        """The type of the file system that a path or a descriptor is on, or ""."""
        if self._mounts is None:
            try:
                self._mounts = mounts.parse(procfs.read(f"{self._calls.folder}/mountinfo", 1 << 20))
            except OSError:
                self._mounts = []
        of = number(self._calls.info(fd).get(b"mnt_id")) if fd is not None else None
        mount = next((each for each in self._mounts if each.id == of), None) or mounts.of_path(path, self._mounts)
        return mount.type if mount else ""

    # other processes

    def _command(self, pids):
        try:
            return " ".join(masked(threads.command(pids[0], self._root)).split())[:_COMMAND_MOST] if pids else ""
        except TelError:
            return ""

    def _own_children(self):
        if self._children is None:
            self._children = _children(self._pid, self._root)
        return self._children

    def _waited_for(self, pid):
        """[pid] of the child that has such a pid in this process's namespace; of all for 0."""
        if not pid or pid in self._own_children():
            return [pid] if pid else self._own_children()
        return [each for each in self._own_children() if _inner_pid(each, self._root) == pid]

    def _holders(self, inodes, pipe_end):
        """{inode: [pid]}: of the children, where one of them has it; else of all processes, this one only if no other has."""
        found = sockets.holders(inodes, self._root, _SEEK_S, self._own_children(), pipe_end) if inodes else {}
        left = set(inodes) - set(found)
        if left:
            found = {**found, **sockets.holders(left, self._root, _SEEK_S, None, pipe_end)}
        return {inode: [pid for pid in pids if pid != self._pid] or pids for inode, pids in found.items()}

    def _lock_holders(self, fd):
        try:
            text = procfs.read(f"{self._root}/locks", _LOCKS_MOST)
        except OSError:
            return []
        return lock_holders(text, self._pid, number(self._calls.info(fd).get(b"ino")))


def lock_holders(text, pid, inode=None):
    """[pid] of who has the file locks that a process waits for, out of a /proc/locks.  inode: of the file, where it is known.

    An open file description's lock (OFD) tells no pid.
    Source: proc(5), /proc/locks: those who wait stand below the lock that they wait for, with an arrow.
    """
    found, holder = set(), 0
    for line in text.splitlines():
        words = line.split()
        waits_here = len(words) > 1 and words[1] == b"->"
        if waits_here:
            del words[1]
        if len(words) < 6 or not words[4].lstrip(b"-").isdigit():
            continue
        if not waits_here:
            holder = int(words[4])
        elif int(words[4]) == pid and (inode is None or words[5].rpartition(b":")[2] == b"%d" % inode) and holder > 0:
            found.add(holder)
    return sorted(found)


def _blank(call, kind):
    return {"call": call, "kind": kind, "fd": None, "target": "", "direction": "", "service": "", "local": None, "state": "",
            "incoming": None, "inode": None, "peer": None, "others": 0, "timeout_s": None, "filesystem": "", "pids": [], "command": "",
            "text": ""}


def _rank(wait):
    """Which of several descriptors says most: where the next client comes from; then whom this process asks."""
    if wait["state"] == sockets.LISTEN:
        return 0
    if wait["kind"] in _SOCKETS and not wait["incoming"] and (wait["kind"] in _INTERNET or not wait["target"].startswith("socket:[")):
        return 1
    if wait["kind"] == "pipe" and wait["pids"]:
        return 2
    return 3 if wait["kind"] in _SOCKETS else 4 if wait["kind"] in ("file", "device") else 5


def _text(wait, said, own):
    """All of it in a few words.  own: the pid of the process that waits."""
    if wait["fd"] is None:
        return _of_call_text(wait, said)
    call, kind, process = wait["call"], wait["kind"], _process(wait, own)
    target = wait["target"] + _remote(wait["filesystem"])
    if kind in _SOCKETS:
        text = _socket_text(wait, process)
    elif kind == "pipe":
        text = f"{call} on pipe" + (f" {'to' if wait['direction'] == 'write' else 'from'} {process}" if process else "")
    elif wait["direction"] == "lock":
        text = f"{call} on {target}" + (f", held by {process}" if process else "")
    else:
        text = f"{call} on {target}" if target else call
    return text + (f" and {wait['others']:,} more" if wait["others"] else "")


def _of_call_text(wait, said):
    if wait["kind"] == "child":
        return f"{wait['call']} for {_process(wait, None) or 'a child'}" if wait["call"].startswith("wait") else said
    return f"{wait['call']} of {wait['target']}{_remote(wait['filesystem'])}" if wait["target"] else said


def _socket_text(wait, process):
    call, state = wait["call"], wait["state"]
    name = wait["kind"] + ("" if wait["target"].startswith("socket:[") else " " + wait["target"])
    if call == "connect":
        text = f"connect to {name}"
    elif state == sockets.LISTEN and not call.startswith("accept"):
        text = f"{call} on listening {name}"
    elif wait["direction"] == "connect":
        text = f"{call} while it connects to {name}"
    elif wait["incoming"] and wait["kind"] in _INTERNET:
        text = f"{call} on {wait['kind']} from {wait['target']}"
    else:
        text = f"{call} on {name}"
    return (text + (f" ({wait['service']})" if wait["service"] else "") + (f" of {process}" if process else "")
            + (", not accepted yet" if state == sockets.QUEUED else ""))


def _process(wait, own):
    """`pid 12 (its command) and 2 more`, "" where there is none."""
    pids = wait["pids"]
    if not pids:
        return ""
    first = "this process" if pids[0] == own else f"pid {pids[0]} ({wait['command'][:_TOLD_MOST]})"
    return first + (f" and {len(pids) - 1:,} more" if len(pids) > 1 else "")


def _remote(filesystem):
    return f" ({filesystem})" if filesystem and not mounts.is_local(filesystem) else ""


def _children(pid, root):
    """[pid] of the children of a process, of its first threads at least."""
    found = set()
    for tid in sorted(threads.tids(pid, root))[:_TASKS_MOST]:
        try:
            found.update(int(word) for word in procfs.read(f"{root}/{pid}/task/{tid}/children", 65536).split())
        except (OSError, ValueError):
            continue
    return sorted(found)


def _inner_pid(pid, root):
    try:
        return threads.inner_pid(pid, root)
    except TelError:
        return None

