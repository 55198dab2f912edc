"""What the kernel says of sockets when it is asked over netlink, beyond /proc/net: who is whose peer, how long queues may be.

It answers for the network namespace of who asks, and asks for no right.
Source: linux/sock_diag.h, linux/unix_diag.h, linux/inet_diag.h, linux/netlink.h; sock_diag(7), netlink(7).
"""
import socket
import struct
import time
from collections import namedtuple

Unix = namedtuple("Unix", "inode type state path peer queued sent waiting uid")
Unix.__doc__ = """One unix socket.  type: SOCK_STREAM, ... .  state: a number as in tcp_states.h.  path: bytes, b"" without a name.
peer: an inode, or None.  queued, sent: bytes; of a listener how many connections wait, and how many may.
waiting: the inodes of the clients whose connections wait at a listener.  uid: None on a kernel that does not tell."""

Internet = namedtuple("Internet", "kind inode state local remote queued sent uid")
Internet.__doc__ = """One TCP, UDP or raw socket.  kind: as sockets.Socket.  inode: 0 of one that no process has (yet, or any more).
state: a number as in tcp_states.h.  local, remote: an address (4 bytes where it is IPv4's, else 16) and behind it the port (2 bytes),
in network order.  queued, sent: bytes; of a listener how many connections wait, and how many may (None where that is not told)."""

_SOCK_DIAG = 4                          # NETLINK_SOCK_DIAG
_BY_FAMILY = 20                         # SOCK_DIAG_BY_FAMILY
_ERROR, _DONE = 2, 3                    # NLMSG_ERROR, NLMSG_DONE
_REQUEST_DUMP = 0x001 | 0x300           # NLM_F_REQUEST | NLM_F_DUMP
_MESSAGE = struct.Struct("=IHHII")      # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")       # rtattr
_UNIX_ASK = struct.Struct("=BBHIIIII")  # unix_diag_req
_UNIX_TOLD = struct.Struct("=BBBBIII")  # unix_diag_msg
_NAME, _PEER, _ICONS, _QUEUES, _UID = 0, 2, 3, 4, 7
_SHOW = 1 | 4 | 8 | 16 | 64             # UDIAG_SHOW_NAME, PEER, ICONS, RQLEN, UID
_INET_ASK = struct.Struct("=BBBBI48x")  # inet_diag_req_v2 with an inet_diag_sockid of zeros
_INET_TOLD = struct.Struct("=xBxx2s2s16s16s16xIIII")    # inet_diag_msg: state, ports, addresses, rqueue, wqueue, uid, inode
_LISTEN = 1 << 10                       # TCP_LISTEN
_NOT_OVER = 0xFFFFFFFF & ~(1 << 6)      # all states but TCP_TIME_WAIT, of which there may be very many
_MAPPED = bytes(10) + b"\xff\xff"
_ALL = 0xFFFFFFFF
_PIECE = 1 << 18                        # the kernel sends at most 32 kB at once
_MOST_BYTES = 64 << 20
_LIMIT_S = 2.0


def unix(states=_ALL):
    """{inode: Unix} of the unix sockets here.  Raises OSError where this kernel or container does not answer."""
    found = {}
    for payload in _dump(_UNIX_ASK.pack(socket.AF_UNIX, 0, 0, states, 0, _SHOW, _ALL, _ALL)):
        if len(payload) >= _UNIX_TOLD.size:
            each = _unix(payload)
            if each.inode:
                found[each.inode] = each
    return found


def unix_listeners():
    """As unix, of those that listen."""
    return unix(_LISTEN)


def tcp():
    """[Internet] of the TCP sockets here, without those that are over (TIME_WAIT).  Raises OSError."""
    found = []
    for family, kind in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for payload in _dump(_INET_ASK.pack(family, socket.IPPROTO_TCP, 0, 0, _NOT_OVER)):
            if len(payload) >= _INET_TOLD.size:
                state, local_port, remote_port, local, remote, queued, sent, uid, inode = _INET_TOLD.unpack_from(payload)
                if kind == "tcp":
                    local, remote = local[:4], remote[:4]
                found.append(Internet(kind, inode, state, plain(local) + local_port, plain(remote) + remote_port, queued, sent, uid))
    return found


def plain(address):
    """An IPv6 address as IPv4's, where it is one."""
    return address[12:] if len(address) == 16 and address.startswith(_MAPPED) else address


def _unix(payload):
    _, kind, state, _, inode, _, _ = _UNIX_TOLD.unpack_from(payload)
    told = _attributes(payload[_UNIX_TOLD.size:])
    queued, sent = struct.unpack_from("=II", told[_QUEUES]) if len(told.get(_QUEUES, b"")) >= 8 else (None, None)
    waiting = told.get(_ICONS, b"")
    return Unix(inode, kind, state, told.get(_NAME, b""), _number(told.get(_PEER)) or None, queued, sent,
                struct.unpack(f"={len(waiting) // 4}I", waiting[:len(waiting) // 4 * 4]), _number(told.get(_UID)))


def _number(data):
    return struct.unpack_from("=I", data)[0] if data and len(data) >= 4 else None


def _attributes(data):
    """{type: bytes} of a row of rtattr."""
    found, place = {}, 0
    while place + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, place)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[place + _ATTRIBUTE.size:place + length]
        place += length + 3 & ~3
    return found


def _dump(ask):
    """The payloads of all answers to one question.  Raises OSError; a dump that is too long or too slow ends early."""
    deadline, size = time.monotonic() + _LIMIT_S, 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _SOCK_DIAG) as asker:
        asker.settimeout(_LIMIT_S)
        asker.sendto(_MESSAGE.pack(_MESSAGE.size + len(ask), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + ask, (0, 0))
        while size < _MOST_BYTES and time.monotonic() < deadline:
            data, (port, _) = asker.recvfrom(_PIECE)
            if port:                                        # not the kernel
                continue
            size += len(data)
            place = 0
            while place + _MESSAGE.size <= len(data):
                length, kind, _, _, _ = _MESSAGE.unpack_from(data, place)
                if kind == _DONE or length < _MESSAGE.size:
                    return
                payload = data[place + _MESSAGE.size:place + length]
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                    raise OSError(number, "the kernel does not tell of sockets")
                if kind == _BY_FAMILY:
                    yield payload
                place += length + 3 & ~3
