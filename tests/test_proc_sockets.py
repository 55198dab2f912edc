"""Sockets as the kernel tells of them: made-up tables, and real sockets of this process and of others."""
import contextlib
import os
import random
import shutil
import socket
import struct
import subprocess
import sys

import pytest

import running
import targets
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import services, sockdiag, sockets
from modwsgi_tel.proc.sockets import Socket

STAT = b"%d (x) %b 7 42 42 0 -1 0 1 0 0 0 30 12 0 0 20 0 2 0 987654 1 1 1 1 1 1 0 0"
TCP = b"""  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 101 1 0 100 0 0 10 0
   1: 0100007F:0050 0200007F:8001 01 00000010:00000020 00:00000000 00000000    33        0 102 1 0 100 0 0 10 0
   2: 0100007F:8002 0500000A:1538 08 00000000:00000001 00:00000000 00000000    33        0 103 1 0 100 0 0 10 0
   3: 0100007F:8003 0100007F:0050 01 00000000:00000000 00:00000000 00000000    33        0 104 1 0 100 0 0 10 0
   4: 0100007F:0050 0100007F:8003 01 00000000:00000000 00:00000000 00000000    33        0 0 1 0 100 0 0 10 0
   5: 0100007F:8004 0100007F:0050 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
   6: 0200007F:8001 0100007F:0050 01 00000000:00000000 00:00000000 00000000    34        0 105 1 0 100 0 0 10 0
   7: 0100007F:8005 0600000A:18EB 02 00000001:00000000 01:00000000 00000000    33        0 106 2 0 100 0 0 10 0
   8: 0100007F:8006 0100007F:1F90 01 00000000:00000000 00:00000000 00000000    33        0 107 1 0 100 0 0 10 0
   9: 0100007F:80
"""
TCP6 = b"""  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0  0  0 201 1 0
   1: 0000000000000000FFFF00000500000A:9000 0000000000000000FFFF00000700000A:01BB 01 00000000:00000000 00:0 0 33  0 202 1 0
   2: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:8006 01 00000000:00000000 00:0 0 33  0 203 1 0
"""
UDP = b"""   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  1: 0500000A:9001 0200000A:0035 01 00000000:00000080 00:00000000 00000000    33        0 301 2 0 0
  2: 00000000:00A1 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 302 2 0 0
"""
UNIX = b"""Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 401 /run/a b
c: 1.sock
0000000000000000: 00000003 00000000 00000000 0001 03 402 /run/a b
c: 1.sock
0000000000000000: 00000003 00000000 00000000 0001 03   403
0000000000000000: 00000002 00000000 00000000 0001 02     0 /run/a b
c: 1.sock
0000000000000000: 00000002 00000000 00000000 0001 02     0 /run/a b
c: 1.sock
0000000000000000: 00000002 00000000 00000000 0002 01 404 @abstract
"""
NETLINK = b"sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n0000000000000000 4 0 00000000 0 0 0 2 0 501\n"


def a_root(folder, files):
    for name, content in {"self/stat": STAT % (1, b"S"), "42/stat": STAT % (42, b"S"), **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


def a_socket(**more):
    return Socket(**{"kind": "tcp", "inode": 1, "local": None, "remote": None, "state": "ESTABLISHED", "received_queue": 0, "send_queue": 0,
                     "path": None, "peer": None, "backlog": None, "uid": None, "service": "", "incoming": None, **more})


def inode(one):
    return os.fstat(one.fileno()).st_ino


@pytest.fixture
def opened():
    """Closes what is given to it."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


@pytest.mark.skipif(sys.byteorder != "little", reason="the text is that of a little-endian machine")
def test_the_kernels_tables_are_read_as_text_with_the_other_ends_of_what_is_connected_here(tmp_path):
    root = a_root(tmp_path, {"42/net/tcp": TCP, "42/net/tcp6": TCP6, "42/net/udp": UDP, "42/net/netlink": NETLINK})
    found = sockets.table(42, root)
    assert found == {each.inode: each for each in (
        a_socket(inode=101, local="0.0.0.0:80", state="LISTEN", received_queue=3, send_queue=None, uid=0, service="http"),
        a_socket(inode=102, local="127.0.0.1:80", remote="127.0.0.2:32769", received_queue=32, send_queue=16, peer=105, uid=33,
                 service="http", incoming=True),
        a_socket(inode=103, local="127.0.0.1:32770", remote="10.0.0.5:5432", state="CLOSE_WAIT", received_queue=1, uid=33, service="postgres",
                 incoming=False),
        a_socket(inode=104, local="127.0.0.1:32771", remote="127.0.0.1:80", state="QUEUED", peer=101, uid=33, service="http", incoming=False),
        a_socket(inode=105, local="127.0.0.2:32769", remote="127.0.0.1:80", peer=102, uid=34, service="http", incoming=False),
        a_socket(inode=106, local="127.0.0.1:32773", remote="10.0.0.6:6379", state="SYN_SENT", send_queue=1, uid=33, service="redis",
                 incoming=False),
        a_socket(inode=107, local="127.0.0.1:32774", remote="127.0.0.1:8080", peer=203, uid=33, service="http", incoming=False),
        a_socket(kind="tcp6", inode=203, local="127.0.0.1:8080", remote="127.0.0.1:32774", peer=107, uid=33, service="http", incoming=True),
        a_socket(kind="tcp6", inode=201, local="[::1]:8080", state="LISTEN", send_queue=None, uid=0, service="http"),
        a_socket(kind="tcp6", inode=202, local="10.0.0.5:36864", remote="10.0.0.7:443", uid=33, service="https", incoming=False),
        a_socket(kind="udp", inode=301, local="10.0.0.5:36865", remote="10.0.0.2:53", received_queue=128, uid=33, service="dns"),
        a_socket(kind="udp", inode=302, local="0.0.0.0:161", state="UNCONNECTED", uid=0, service="snmp"),
        a_socket(kind="netlink", inode=501, state="UNCONNECTED", received_queue=None, send_queue=None))}
    assert found.unknown == {"unix peers": "the peers of unix sockets are not known: the process is in another network namespace"}
    # without the connection that is over, and the line that was cut
    assert [each.inode for each in sockets.parse_internet(TCP.splitlines()[1:], "tcp")] == [101, 102, 103, 104, 0, 105, 106, 107]
    assert sockets.table(42, root, {103, 501, 999}) == {number: found[number] for number in (103, 501)}


def test_unix_sockets_as_text_keep_names_with_line_ends_and_count_who_waits(tmp_path):
    root = a_root(tmp_path, {"42/net/unix": UNIX})
    path = "/run/a b\nc: 1.sock"
    nothing = {"kind": "unix", "received_queue": None, "send_queue": None}
    wanted = [a_socket(inode=401, path=path, state="LISTEN", **{**nothing, "received_queue": 2}), a_socket(inode=402, path=path, incoming=True, **nothing),
              a_socket(inode=403, **nothing), a_socket(inode=404, path="@abstract", state="UNCONNECTED", **nothing)]
    assert list(sockets.table(42, root).values()) == wanted
    assert sockets.listeners(root, 42) == wanted[:1]


def test_no_such_process_no_proc_and_a_process_that_has_ended_are_told_apart(tmp_path):
    root = a_root(tmp_path, {"43/stat": STAT % (43, b"Z"), "44/stat": b"nonsense"})
    with pytest.raises(TelError, match="^there is no process 4194304: it has ended"):
        sockets.table(4194304, root)
    with pytest.raises(TelError, match="there is no /proc here"):
        sockets.table(42, str(tmp_path / "none"))
    with pytest.raises(TelError):
        sockets.table(44, root)
    ended = sockets.table(43, root)
    assert (ended, ended.unknown) == ({}, {"sockets": "process 43 has ended"})
    assert sockets.listeners(root, 4194304) == [] and sockets.holders([1], str(tmp_path / "none")) == {}


def a_connection(opened, family, address):
    """(listening, client, accepted) TCP sockets."""
    listening = opened(socket.socket(family))
    listening.bind((address, 0))
    listening.listen(5)
    client = opened(socket.create_connection(listening.getsockname()[:2]))
    return listening, client, opened(listening.accept()[0])


def test_real_connections_have_queues_peers_and_limits(opened):
    listening, client, accepted = a_connection(opened, socket.AF_INET, "127.0.0.1")
    waiting = opened(socket.create_connection(listening.getsockname()))
    client.sendall(b"x" * 10)
    here, there = ("127.0.0.1:%d" % each.getsockname()[1] for each in (listening, client))
    uid = os.geteuid()
    found = sockets.table(os.getpid(), wanted={inode(each) for each in (listening, client, accepted, waiting)})
    assert found == {
        inode(listening): a_socket(inode=inode(listening), local=here, state="LISTEN", received_queue=1, send_queue=None, backlog=5, uid=uid),
        inode(client): a_socket(inode=inode(client), local=there, remote=here, peer=inode(accepted), uid=uid, incoming=False),
        inode(accepted): a_socket(inode=inode(accepted), local=here, remote=there, received_queue=10, peer=inode(client), uid=uid, incoming=True),
        inode(waiting): a_socket(inode=inode(waiting), local="127.0.0.1:%d" % waiting.getsockname()[1], remote=here, state="QUEUED",
                                 peer=inode(listening), uid=uid, incoming=False)}
    assert found.unknown == {}
    client.close()
    assert sockets.table(os.getpid(), wanted={inode(accepted)})[inode(accepted)].state == "CLOSE_WAIT"


@pytest.mark.parametrize("address, shown", [("::1", "[::1]"), ("::ffff:127.0.0.1", "127.0.0.1")])
def test_ipv6_has_brackets_and_ipv4_within_it_is_shown_as_such(opened, address, shown):
    try:
        listening, client, accepted = a_connection(opened, socket.AF_INET6, address)
    except OSError as error:
        pytest.skip("no IPv6 here: %s" % error)
    found = sockets.table(os.getpid(), wanted={inode(client), inode(accepted)})
    here, there = ("%s:%d" % (shown, each.getsockname()[1]) for each in (listening, client))
    assert [found[inode(each)][2:5] + (found[inode(each)].peer,) for each in (client, accepted)] == [
        (there, here, "ESTABLISHED", inode(accepted)), (here, there, "ESTABLISHED", inode(client))]


def without_netlink(monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")
    for name in ("unix", "unix_listeners", "tcp"):
        monkeypatch.setattr(sockdiag, name, refuse)


def test_where_netlink_does_not_answer_the_text_tells_the_same_but_for_unix_peers_and_limits(opened, monkeypatch):
    listening, client, accepted = a_connection(opened, socket.AF_INET, "127.0.0.1")
    waiting = opened(socket.create_connection(listening.getsockname()))
    wanted = {inode(each) for each in (listening, client, accepted, waiting)}
    asked = sockets.table(os.getpid(), wanted=wanted)
    without_netlink(monkeypatch)
    read = sockets.table(os.getpid(), wanted=wanted)
    assert read == {number: each._replace(backlog=None) for number, each in asked.items()}
    assert read.unknown == {"unix peers": "the peers of unix sockets are not known: Operation not permitted",
                            "backlogs": "how many connections may wait to be accepted is not known: Operation not permitted"}


def unix_sockets(opened, path):
    """(listening, client, accepted, [two that wait])."""
    listening = opened(socket.socket(socket.AF_UNIX))
    listening.bind(path)
    listening.listen(7)
    clients = [opened(socket.socket(socket.AF_UNIX)) for _ in range(3)]
    for each in clients:
        each.connect(path)
    return listening, clients[0], opened(listening.accept()[0]), clients[1:]


@pytest.mark.parametrize("name, service", [("wsgi.12.0.1.sock", "mod_wsgi"), ("a b\nc.sock", ""), ("@abstract", "")])
def test_a_unix_listener_shows_who_waits_and_how_many_may(opened, monkeypatch, name, service):
    folder = opened(running.short_folder())
    path = "%s/%s" % (folder, name) if name[0] != "@" else "@" + os.path.basename(folder)
    listening, client, accepted, waiting = unix_sockets(opened, path.replace("@", "\0"))
    client.sendall(b"x" * 10)
    pair = [opened(each) for each in socket.socketpair()]
    uid = os.geteuid()
    wanted = {"kind": "unix", "uid": uid, "service": service}
    listens = a_socket(inode=inode(listening), state="LISTEN", path=path, received_queue=2, send_queue=None, backlog=7, **wanted)
    rows = {each.inode: each for each in sockets.table(os.getpid()).values()}
    assert rows[inode(listening)] == listens
    assert rows[inode(client)] == a_socket(inode=inode(client), remote=path, peer=inode(accepted), incoming=False, **wanted)._replace(
        send_queue=rows[inode(client)].send_queue)
    assert rows[inode(client)].send_queue >= 10             # the kernel counts what it takes to keep them
    assert rows[inode(accepted)] == a_socket(inode=inode(accepted), path=path, received_queue=10, peer=inode(client), incoming=True, **wanted)
    assert [rows[inode(each)] for each in waiting] == [
        a_socket(inode=inode(each), remote=path, state="QUEUED", peer=inode(listening), incoming=False, **wanted) for each in waiting]
    assert [rows[inode(each)].peer for each in pair] == [inode(pair[1]), inode(pair[0])]
    assert [each for each in sockets.listeners() if each.path == path] == [listens]
    without_netlink(monkeypatch)
    assert [each for each in sockets.listeners() if each.path == path] == [listens._replace(backlog=None, send_queue=None, uid=None)]


NEIGHBOUR = """
import socket
listening = socket.socket(socket.AF_UNIX); listening.bind("\\0%s"); listening.listen(7)
clients = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for each in clients:
    each.connect("\\0%s")
TOLD = [each.fileno() for each in (listening, *clients)]
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="makes a network namespace: needs root and unshare (util-linux)")
def test_a_listener_in_another_network_namespace_shows_who_waits_too():
    name = "mwt-%d" % os.getpid()
    with targets.Target([sys.executable], NEIGHBOUR % (name, name), wrapper=("unshare", "--net")) as child:
        found = sockets.listeners(pid=child.pid)
        assert [(each.path, each.received_queue, each.backlog) for each in found] == [("@" + name, 2, None)]
        assert [each for each in sockets.listeners() if each.path == "@" + name] == []
        assert sockets.is_our_namespace(child.pid) is False and sockets.is_our_namespace(os.getpid()) is True
        assert len(sockets.table(child.pid)) >= 3


HOLDER = "import os, socket\npair = socket.socketpair()\npipe = os.pipe()\nTOLD = [os.fstat(each).st_ino for each in (pair[0].fileno(), pipe[0])]\n"


def test_who_has_a_socket_or_an_end_of_a_pipe_open_is_found():
    with targets.Target([sys.executable], HOLDER) as child:
        of_socket, of_pipe = child.told
        assert sockets.holders([of_socket, 1]) == {of_socket: [child.pid]}
        assert sockets.holders([of_pipe], pipe_end=sockets.WRITES) == {of_pipe: [child.pid]}
        assert sockets.holders([of_pipe]) == {} and sockets.holders([of_socket], pids=[os.getpid()]) == {}
        stdin = os.fstat(child.process.stdin.fileno()).st_ino
        assert sockets.holders([stdin], pids=[os.getpid(), child.pid], pipe_end=sockets.READS) == {stdin: [child.pid]}
        assert sockets.holders([stdin], pids=[os.getpid(), child.pid], pipe_end=sockets.WRITES) == {stdin: [os.getpid()]}
        late = sockets.holders([of_socket], seconds=-1.0)
        assert (late, late.whole) == ({}, False)


def test_services_are_told_by_the_port_of_who_serves_and_by_path():
    assert [services.of_addresses(*each) for each in (
        ("10.0.0.1:40000", "10.0.0.5:5432", False), ("10.0.0.1:80", "10.0.0.5:5432", True), ("[::]:6379", None, None),
        ("10.0.0.1:40000", "10.0.0.5:9999", False), (None, None, None))] == ["postgres", "http", "redis", "", ""]
    assert [services.of_path(each) for each in ("/var/run/postgresql/.s.PGSQL.5432", "/run/mysqld/mysqld.sock", "/run/redis/redis-server.sock",
                                                "/run/memcached/memcached.sock", "/run/dbus/system_bus_socket", "/dev/log",
                                                "/var/run/apache2/wsgi.12.0.1.sock", "/srv/app.sock", None)] == [
        "postgres", "mysql", "redis", "memcached", "dbus", "syslog", "mod_wsgi", "", ""]


def test_whatever_comes_over_netlink_is_rows_or_an_error(monkeypatch):
    """Any bytes give rows or OSError."""
    seed = 20
    print("seed", seed)
    chance = random.Random(seed)
    rows = [struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body for kind, body in (
        (20, bytes([1, 1, 10, 0]) + struct.pack("=III", 7, 0, 0) + struct.pack("=HH", 6, 0) + b"\0a" + bytes(2) + struct.pack("=HHII", 12, 4, 1, 2)),
        (20, bytes(72)), (3, bytes(4)), (2, struct.pack("=i", -2)))]
    answer = [b""]

    class Asker:
        def __init__(self, *_):
            self.left = 3
        __enter__ = lambda self: self
        __exit__ = lambda self, *_: None
        settimeout = sendto = lambda self, *_: None

        def recvfrom(self, _):
            self.left -= 1
            if not self.left:
                raise OSError(110, "timed out")
            return answer[0], (0, 0)

    monkeypatch.setattr(sockdiag.socket, "socket", Asker)
    answer[0] = rows[0] + rows[2]
    assert sockdiag.unix() == {7: sockdiag.Unix(7, 1, 10, b"\0a", None, 1, 2, (), None)}
    answer[0] = rows[0] + rows[3]
    with pytest.raises(OSError, match="does not tell of sockets") as refused:
        sockdiag.unix()
    assert refused.value.errno == 2
    for _ in range(3000):
        data = bytearray(b"".join(chance.choices(rows, k=3)))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        answer[0] = bytes(data[:chance.randrange(len(data) + 1)])
        for ask in (sockdiag.unix, sockdiag.tcp):
            with contextlib.suppress(OSError):
                ask()


def test_reading_the_sockets_leaves_nothing_open():
    before = len(os.listdir("/proc/self/fd"))
    sockets.table(os.getpid())
    sockets.listeners()
    sockets.holders([1])
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_ends_in_between_raises_no_other_error():
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait(20)
    with pytest.raises(TelError, match="there is no process"):
        sockets.table(child.pid)
    assert sockets.holders([1], pids=[child.pid]) == {}
