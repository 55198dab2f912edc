"""The sockets of a process's network namespace: what they are connected to, what waits in them, and who has them open."""
import collections
import functools
import os
import re
import socket
import sys
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import procfs, services, sockdiag
from modwsgi_tel.proc.access import explain

Socket = collections.namedtuple("Socket", "kind inode local remote state received_queue send_queue path peer backlog uid service "
                                          "incoming")
Socket.__doc__ = """One socket.

kind: "tcp", "tcp6", "udp", "udp6", "unix", "netlink", "packet" or "other".  local, remote: "10.0.0.5:5432", "[::1]:80" or None; an IPv4
address that an IPv6 socket has is shown as such.  remote of a unix socket: its peer's path.  path: its own, "@NAME" of an abstract one.
state: as "ESTABLISHED", "LISTEN", "SYN_SENT", "CLOSE_WAIT", "UNCONNECTED"; "QUEUED": the other side has not accepted it yet.
received_queue, send_queue: bytes that nobody has read yet, or that the other side has not taken; None where that is not told.
Of one that listens received_queue are connections that wait to be accepted, and backlog how many may.
peer: the inode of its other end on this machine; of a queued one that of the socket that listens.
uid: its owner's.  service: as "postgres", by port or path, or "".
incoming: True where the other side has connected, False where this side has, None where that is not known."""

_MOST_BYTES = 32 << 20                  # of one table: 200,000 connections
_LIMIT_S = 1.0                          # to read one table
_DESCRIPTORS_MOST = 100_000             # of one process, in search of a socket
_TCP = ("tcp", "tcp6")
LISTEN, QUEUED = "LISTEN", "QUEUED"
READS, WRITES = 0o400, 0o200            # the mode of a descriptor's link in /proc/PID/fd
_LISTENS = 10                           # TCP_LISTEN
_OVER = b"06"                           # TCP_TIME_WAIT in /proc/net/tcp: no process has it any more, and there may be very many

# Source: include/net/tcp_states.h
_STATES = {1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT", 7: "CLOSE", 8: "CLOSE_WAIT",
           9: "LAST_ACK", 10: LISTEN, 11: "CLOSING", 12: "SYN_RECV"}
_TABLES = (("tcp", "tcp"), ("tcp6", "tcp6"), ("udp", "udp"), ("udp6", "udp6"), ("udplite", "udp"), ("udplite6", "udp6"), ("raw", "other"),
           ("raw6", "other"), ("icmp", "other"), ("icmp6", "other"))

# Source: net/unix/af_unix.c, unix_seq_show
_UNIX_LINE = re.compile(rb"\S+: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) ([0-9A-F]{4}) ([0-9A-F]{2}) +(\d{1,20})(?: (.*))?", re.S)
_ACCEPTS = 0x10000                      # __SO_ACCEPTCON
_CONNECTING, _CONNECTED = 2, 3          # SS_CONNECTING, SS_CONNECTED
_STREAMS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)


class Table(dict):
    """{inode: Socket}.  unknown: {part: one line on why it is not there}."""

    def __init__(self):
        super().__init__()
        self.unknown = {}


class Holders(dict):
    """{inode: [pid, ...]}.  whole: whether all processes that may be read were, before the time was over."""

    whole = True


def table(pid, root="/proc", wanted=None):
    """The Table of all sockets in the network namespace of a process.  wanted: a set of inodes, when no others are.

    Raises TelError when there is no such process.
    """
    try:
        stat = procfs.stat(pid, root)
    except (OSError, ValueError) as error:
        raise TelError(explain(pid, error if isinstance(error, OSError) else OSError(str(error)), root)) from None
    found = Table()
    if stat.state in "ZXx":
        found.unknown["sockets"] = f"process {pid} has ended"
        return found
    folder, own = f"{root}/{pid}/net", is_our_namespace(pid, root)
    for part in (_unix, _internet, _others):
        left = None if wanted is None else wanted - found.keys()
        if left is None or left:
            found.update((each.inode, each) for each in part(folder, left, own, found.unknown))
    return found


def listeners(root="/proc", pid="self"):
    """[Socket] of the unix sockets that listen, in the network namespace of a process: who waits in their queues, and how many may.

    Empty where there is no such process.
    """
    if is_our_namespace(pid, root):
        try:
            return _of_diag(sockdiag.unix_listeners(), None)
        except OSError:
            pass
    return [each for each in _unix(f"{root}/{pid}/net", None, False, {}) if each.state == LISTEN]


def is_our_namespace(pid, root="/proc"):
    """Whether a process has the network namespace that this one has: then both see the same files of it."""
    try:
        theirs, ours = os.stat(f"{root}/{pid}/net/unix"), os.stat(f"{root}/self/net/unix")
    except OSError:
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def holders(inodes, root="/proc", seconds=0.3, pids=None, pipe_end=None):
    """Holders of sockets: which processes have them open, of these pids or of all.  pipe_end: READS or WRITES, for who has a pipe so.

    Looks for so many seconds.  A process that may not be read has nothing.
    """
    found, kind = Holders(), "socket" if pipe_end is None else "pipe"
    names = {f"{kind}:[{inode}]": inode for inode in inodes}
    try:
        pids = (procfs.pids(root) if pids is None else pids) if names else ()
    except OSError:
        pids = ()
    deadline = time.monotonic() + seconds
    for pid in pids:
        if time.monotonic() > deadline:
            break
        for inode in sorted({names[target] for target in _targets(pid, root, deadline, names, pipe_end)}):
            found.setdefault(inode, []).append(pid)
    found.whole = time.monotonic() <= deadline
    return found


def _targets(pid, root, deadline, wanted, mode):
    """Yields those of the texts `wanted` that descriptors of a process link to; mode: what the link has to allow, or None."""
    try:
        folder = os.open(f"{root}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for number, name in enumerate(os.listdir(folder)[:_DESCRIPTORS_MOST]):
            if number % 256 == 255 and time.monotonic() > deadline:
                return
            try:
                target = os.readlink(name, dir_fd=folder)
                if target in wanted and (mode is None or os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode & mode):
                    yield target
            except OSError:                                 # closed meanwhile
                continue
    except OSError:                                         # the process has ended
        return
    finally:
        os.close(folder)


def _lines(path):
    """The lines of a table as bytes, without its title; [] where it is not there.  Raises OSError for another reason."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    parts, size, deadline = [], 0, time.monotonic() + _LIMIT_S
    try:
        while size < _MOST_BYTES and time.monotonic() < deadline:
            part = os.read(handle, 1 << 16)
            if not part:
                break
            parts.append(part)
            size += len(part)
    finally:
        os.close(handle)
    return b"".join(parts).split(b"\n")[1:]


def _internet(folder, wanted, own, unknown):
    """[Socket] of TCP, UDP and raw."""
    rows, tables = [], _TABLES
    if own:
        try:
            rows, tables = sockdiag.tcp(), [each for each in _TABLES if each[1] not in _TCP]
        except OSError as error:
            unknown["backlogs"] = f"how many connections may wait to be accepted is not known: {error.strerror or error}"
    for name, kind in tables:
        try:
            rows += parse_internet(_lines(f"{folder}/{name}"), kind)
        except OSError as error:
            unknown[name] = f"{folder}/{name}: {error.strerror}"
    chosen = [each for each in rows if each.inode and (wanted is None or each.inode in wanted)]
    ends = _Ends(chosen, rows)
    return [_internet_socket(each, ends) for each in chosen]


def parse_internet(lines, kind):
    """[sockdiag.Internet] of the lines of a /proc/net/tcp, udp, raw and so on; those that are none are left out, and those of TCP
    connections that are over.  Source: proc(5), /proc/net/tcp.
    """
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 10 or words[3] == _OVER:
            continue
        try:
            sent, queued = words[4].split(b":")
            state = int(words[3], 16)
            found.append(sockdiag.Internet(kind, int(words[9]), state, _packed(words[1]), _packed(words[2]), int(queued, 16),
                                           int(sent, 16) if state != _LISTENS else None, int(words[7])))
        except (ValueError, KeyError):                      # the last line of a table that was cut
            continue
    return found


def _packed(text):
    """An address of /proc/net/tcp, 0100007F:1F90, as sockdiag.Internet has it.  Raises ValueError."""
    address, _, port = text.decode("ascii").partition(":")
    data = bytes.fromhex(address)
    if len(data) not in (4, 16) or len(port) != 4:
        raise ValueError("not an address")
    if sys.byteorder == "little":                           # words of 4 bytes, as this machine has them
        data = b"".join(data[place:place + 4][::-1] for place in range(0, len(data), 4))
    return sockdiag.plain(data) + bytes.fromhex(port)


class _Ends:
    """The other ends of TCP connections, where they are on this machine.  chosen: for which they are wanted, out of rows."""

    def __init__(self, chosen, rows):
        self._listening, self._inodes = {}, {}
        reverse = {(each.remote, each.local) for each in chosen if each.kind in _TCP}
        if reverse:
            for each in rows:
                if each.kind in _TCP:
                    if each.state == _LISTENS:
                        self._listening.setdefault(each.local[-2:], each.inode)
                    elif (each.local, each.remote) in reverse:
                        self._inodes[each.local, each.remote] = each.inode

    def of(self, row):
        """(incoming, inode of the other end or None, whether that end still waits to be accepted)."""
        peer = self._inodes.get((row.remote, row.local))
        incoming = row.local[-2:] in self._listening
        if peer == 0 and not incoming and row.remote[-2:] in self._listening:
            return False, self._listening[row.remote[-2:]], True
        return incoming, peer or None, False


def _internet_socket(row, ends):
    local, remote, state = _address(row.local), _address(row.remote), _STATES.get(row.state, "UNKNOWN")
    peer = incoming = None
    listens = state == LISTEN
    if row.kind not in _TCP:
        state = "UNCONNECTED" if state == "CLOSE" else state
    elif not listens and state != "CLOSE":
        incoming, peer, waits = ends.of(row)
        state = QUEUED if waits and state == "ESTABLISHED" else state
    return Socket(row.kind, row.inode, local, remote, state, row.queued, None if listens else row.sent, None, peer,
                  row.sent if listens else None, row.uid, services.of_addresses(local, remote, incoming), incoming)


@functools.lru_cache(maxsize=16384)
def _address(packed):
    """Text of an address and its port; None for a port of 0, which is none."""
    port = int.from_bytes(packed[-2:], "big")
    return address_text(packed[:-2], port) if port else None


def address_text(packed, port):
    """`10.0.0.5:5432` or `[::1]:80` of an address in network order (4 or 16 bytes)."""
    packed = sockdiag.plain(packed)
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{port}"


def path_text(name):
    """A unix socket's name as text: the kernel writes the NULs of an abstract one as @."""
    if not name.startswith(b"\0"):
        name = name.partition(b"\0")[0]
    return os.fsdecode(name.replace(b"\0", b"@")) or None


def _unix(folder, wanted, own, unknown):
    """[Socket] of unix sockets: by netlink, and where that does not tell of them by /proc/net/unix."""
    if own:
        try:
            return _of_diag(sockdiag.unix(), wanted)
        except OSError as error:
            unknown["unix peers"] = f"the peers of unix sockets are not known: {error.strerror or error}"
    else:
        unknown["unix peers"] = "the peers of unix sockets are not known: the process is in another network namespace"
    try:
        lines = _lines(f"{folder}/unix")
    except OSError as error:
        unknown["unix"] = f"{folder}/unix: {error.strerror}"
        return []
    return _of_lines(lines, wanted)


def _of_diag(rows, wanted):
    """[Socket] of sockdiag's answer."""
    listening = {client: each for each in rows.values() for client in each.waiting}
    found = []
    for each in rows.values():
        if wanted is None or each.inode in wanted:
            listens = _STATES.get(each.state) == LISTEN
            waits_at = listening.get(each.inode)
            peer = waits_at or rows.get(each.peer)
            path, remote = path_text(each.path), path_text(peer.path) if peer else None
            state = (QUEUED if waits_at else LISTEN if listens else
                     _STATES.get(each.state, "UNKNOWN") if each.type in _STREAMS and (each.peer or each.state != 7) else
                     "ESTABLISHED" if each.peer else "UNCONNECTED")
            found.append(Socket("unix", each.inode, None, remote, state, each.queued, None if listens else each.sent, path,
                                waits_at.inode if waits_at else each.peer, each.sent if listens else None, each.uid,
                                services.of_path(remote or path), None if listens else _is_incoming(path, remote)))
    return found


def _is_incoming(path, remote):
    """Whoever has connected to a name has mostly none itself; who was connected to has that of the socket that listens."""
    return False if remote and not path else True if path and not remote else None


def _of_lines(lines, wanted):
    """[Socket] of the lines of a /proc/net/unix; a line that is none is the rest of a name with a line end in it."""
    rows = []
    for line in lines:
        parsed = _UNIX_LINE.fullmatch(line)
        if parsed:
            flags, kind, state, inode, name = parsed.groups()
            rows.append([int(flags, 16) & _ACCEPTS, int(kind, 16), int(state, 16), int(inode), name or b""])
        elif rows and line:
            rows[-1][4] += b"\n" + line
    waiting = collections.Counter(name for _, _, state, inode, name in rows if state == _CONNECTING and not inode)
    found = []
    for listens, kind, state, inode, name in rows:
        if inode and (wanted is None or inode in wanted):
            path = os.fsdecode(name) or None
            told = LISTEN if listens else "ESTABLISHED" if state == _CONNECTED else "UNCONNECTED"
            found.append(Socket("unix", inode, None, None, told, waiting[name] if listens else None, None, path, None, None, None,
                                services.of_path(path), True if path and told == "ESTABLISHED" and kind in _STREAMS else None))
    return found


def _others(folder, wanted, _own, _unknown):
    """[Socket] of netlink and packet sockets.  Source: net/netlink/af_netlink.c, net/packet/af_packet.c."""
    found = []
    for kind, most in (("netlink", 10), ("packet", 9)):
        try:
            rows = [line.split() for line in _lines(f"{folder}/{kind}")]
        except OSError:
            continue
        for words in rows:
            if len(words) >= most and words[most - 1].isdigit():
                inode = int(words[most - 1])
                if inode and (wanted is None or inode in wanted):
                    found.append(Socket(kind, inode, None, None, "UNCONNECTED", None, None, None, None, None, None, "", None))
    return found
