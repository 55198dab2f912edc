"""The telemetry socket: what may be bound, for whom, and what is left behind."""
import array
import contextlib
import os
import signal
import socket
import stat
import struct
import subprocess

import pytest

import interpreters
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.net import datagram as datagram_module
from modwsgi_tel.net.datagram import BUFFER, BoundPath, Receiver, group_id, may_bind, unix_path
from running import short_folder

NOBODY = 65534
CREDENTIALS = struct.Struct("iII")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user: needs root")


@contextlib.contextmanager
def as_nobody():
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def within(seconds):
    """TimeoutError in the middle of what blocks for longer."""
    def late(*_):
        raise TimeoutError(f"blocked for {seconds} s")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder():
    with short_folder() as made:
        yield made


@pytest.fixture
def path(folder):
    return os.path.join(folder, "t.sock")


def leave_dead(path, kind=socket.SOCK_DGRAM):
    """A socket file that nobody has open."""
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(path)


def tree(folder):
    """Everything in a folder: {name: (type and mode, what it holds or leads to)}."""
    found = {}
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as handle:
                held = handle.read()
        else:
            held = os.readlink(path) if stat.S_ISLNK(status.st_mode) else status.st_ino
        found[name] = (status.st_mode, held)
    return found


def refusal(path, kind=socket.SOCK_DGRAM):
    """What binding says, which must be one line and leave the folder as it was."""
    folder = os.path.dirname(path)
    before = tree(folder) if os.path.isdir(folder) else None
    with pytest.raises(TelError) as caught:
        BoundPath(path, 0o660, type_=kind).close()
    assert (tree(folder) if os.path.isdir(folder) else None) == before
    assert "\n" not in str(caught.value) and caught.value.exit_status == 2
    return str(caught.value).replace(path, "PATH").replace(folder, "FOLDER")


# --- what is at the path ----------------------------------------------------------------------

def test_a_regular_file_is_left_alone(path):
    with open(path, "w") as handle:
        handle.write("precious")
    assert refusal(path) == "cannot bind PATH: it is a regular file, which is left alone; choose another path"


def test_a_folder_is_left_alone(path):
    os.mkdir(path)
    assert refusal(path) == "cannot bind PATH: it is a folder, which is left alone; choose another path"


@pytest.mark.parametrize("what", ["nothing", "a dead socket", "a live socket", "a file", "itself"])
def test_a_symbolic_link_is_left_alone_wherever_it_leads(path, folder, what):
    target = os.path.join(folder, "target")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as live:
        if what == "a live socket":
            live.bind(target)
        elif what == "a dead socket":
            leave_dead(target)
        elif what == "a file":
            with open(target, "w") as handle:
                handle.write("precious")
        os.symlink(path if what == "itself" else target, path)
        assert refusal(path) == "cannot bind PATH: it is a symbolic link, which is left alone; choose another path"


def test_a_fifo_is_left_alone(path):
    os.mkfifo(path)
    assert refusal(path) == "cannot bind PATH: it is no socket, which is left alone; choose another path"


@pytest.mark.parametrize("there", [socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("wanted", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_live_socket_of_any_kind_is_left_alone(path, there, wanted):
    with socket.socket(socket.AF_UNIX, there) as live:
        live.bind(path)
        if there != socket.SOCK_DGRAM:
            live.listen(1)
        assert refusal(path, wanted) == (
            "cannot bind PATH: another process listens there; stop it first, or choose another path")
        assert os.path.exists(path)


def test_a_live_server_whose_backlog_is_full_is_alive_and_does_not_hold_us(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as live:
        live.bind(path)
        live.listen(0)
        waiting = []
        try:
            while True:
                each = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                waiting.append(each)
                each.setblocking(False)
                each.connect(path)
        except BlockingIOError:
            pass
        with within(20):
            assert "another process listens there" in refusal(path, socket.SOCK_STREAM)
        for each in waiting:
            each.close()


def test_a_live_datagram_socket_whose_queue_is_full_is_alive(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as live, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        live.bind(path)
        sender.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                sender.sendto(b"x", path)
        with within(20):
            assert "another process listens there" in refusal(path)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_dead_socket_is_taken_over(path, kind):
    leave_dead(path, kind)
    dead = os.lstat(path).st_ino
    bound = BoundPath(path, 0o660)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", path)
        assert bound.socket.recv(100) == b"hello"
    bound.close()
    assert not os.path.lexists(path) and dead


def test_a_socket_that_came_alive_in_the_place_of_the_dead_one_is_left_alone(path, monkeypatch):
    leave_dead(path)
    real = may_bind

    def then_another_is_faster(*arguments):
        answer = real(*arguments)
        os.unlink(path)
        live.bind(path)                 # the file system may give it the same inode number again
        return answer

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as live:
        monkeypatch.setattr(datagram_module, "may_bind", then_another_is_faster)
        with pytest.raises(TelError, match="it has just been taken"):
            BoundPath(path, 0o660)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", path)
            assert live.recv(100) == b"hello"


def test_a_missing_folder_is_named(folder):
    assert refusal(os.path.join(folder, "none", "t.sock")) == (
        "cannot bind PATH: there is no folder FOLDER; create it first")


def test_a_file_in_the_place_of_the_folder_is_said(folder):
    with open(os.path.join(folder, "file"), "w"):
        pass
    assert refusal(os.path.join(folder, "file", "t.sock")) == "cannot bind PATH: Not a directory"


@needs_root
@pytest.mark.parametrize("there", ["nothing", "a live socket"])
def test_an_ordinary_user_is_told_what_the_kernel_forbids(folder, path, there):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as live:
        if there == "a live socket":
            live.bind(path)
            os.chmod(path, 0o600)
        with as_nobody():
            said = refusal(path)
    assert said == {"nothing": "cannot bind PATH: Permission denied; the folder is not writable for this user",
                    "a live socket": "cannot bind PATH: a socket is there and cannot be asked whether it lives: "
                                     "Permission denied"}[there]


# --- addresses ----------------------------------------------------------------------------------

def test_a_path_of_107_bytes_is_bound_and_one_of_108_is_refused(folder):
    longest = os.path.join(folder, "x" * (107 - len(folder) - 1))
    assert len(longest) == 107
    BoundPath(unix_path("unix:" + longest), 0o660).close()
    with pytest.raises(UsageError, match="108 bytes, a unix socket's path has at most 107; choose a shorter"):
        unix_path("unix:" + longest + "x")
    with pytest.raises(UsageError, match="108 bytes"):          # bytes, not characters
        unix_path("unix:" + longest[:-1] + "\u00e9")


@pytest.mark.parametrize("address", ["udp:127.0.0.1:5000", "UDP:127.0.0.1:5000", "tcp:5000", "http://x/"])
def test_an_address_that_is_no_path_is_refused_by_name(address):
    with pytest.raises(UsageError) as caught:
        unix_path(address)
    assert str(caught.value) == (
        f"--listen {address}: {address.split(':')[0].lower()} is not possible: mod_wsgi's datagrams are told apart by the "
        "kernel's credentials, which only a unix socket carries; use unix:/path")


@pytest.mark.parametrize("address", ["unix:", "", "unix:/a\0b"])
def test_an_address_without_a_usable_path_is_refused(address):
    with pytest.raises(UsageError):
        unix_path(address)


@pytest.mark.parametrize("name", ["no-such-group", "\u00b2", "99999999999", "4294967295", "-1"])
def test_a_group_that_cannot_be_is_refused(name):
    with pytest.raises(UsageError) as caught:
        group_id(name)
    assert str(caught.value) == f"--socket-group {name}: no such group; getent group lists them"


def test_a_group_is_known_by_name_and_by_number():
    assert [group_id("root"), group_id("0"), group_id("54321")] == [0, 0, 54321]


# --- mode and group -----------------------------------------------------------------------------

@pytest.fixture
def watched(monkeypatch):
    """The mode that the socket has right after bind() and at each step until it has its own."""
    seen = []

    class Watched(socket.socket):
        def bind(self, path):
            super().bind(path)
            seen.append(("bind", stat.S_IMODE(os.lstat(path).st_mode)))

    real_chown = os.chown

    def chown(path, *arguments, **more):
        real_chown(path, *arguments, **more)
        seen.append(("chown", stat.S_IMODE(os.stat(path).st_mode)))

    monkeypatch.setattr(datagram_module.socket, "socket", Watched)
    monkeypatch.setattr(datagram_module.os, "chown", chown)
    return seen


@needs_root
def test_nobody_can_connect_before_mode_and_group_are_set(path, watched):
    before = os.umask(0)                # the most careless one
    try:
        bound = BoundPath(path, 0o660, group=54321)
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    status = os.lstat(path)
    bound.close()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, 54321)
    assert watched == [("bind", 0), ("chown", 0)]


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777, 0o200])
@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_the_mode_is_as_asked_whatever_the_umask_and_that_is_put_back(path, mode, umask):
    before = os.umask(umask)
    try:
        bound = BoundPath(path, mode)
        assert (stat.S_IMODE(os.lstat(path).st_mode), os.umask(umask)) == (mode, umask)
        bound.close()
        os.mkdir(path)
        with pytest.raises(TelError):
            BoundPath(path, mode)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


@needs_root
def test_a_group_that_may_not_be_given_leaves_nothing_behind(path):
    os.chmod(os.path.dirname(path), 0o777)
    with as_nobody():
        BoundPath(path, 0o660).close()              # binding itself is allowed
        with pytest.raises(TelError) as caught:
            BoundPath(path, 0o660, group=54321)
    assert str(caught.value) == (
        f"cannot bind {path}: Operation not permitted; only root, or a member, may give it to that group")
    assert not os.path.lexists(path)


@needs_root
def test_a_link_put_in_the_place_of_the_socket_does_not_open_what_it_leads_to(folder, path, monkeypatch):
    """Whoever may write to the folder could swap the path between bind() and chmod()."""
    victim = os.path.join(folder, "victim")
    with open(victim, "w"):
        pass
    os.chmod(victim, 0o600)
    real_umask, calls = os.umask, []

    def umask(mask):
        calls.append(mask)
        if len(calls) == 2:             # bound, not yet given its mode
            os.unlink(path)
            os.symlink(victim, path)
        return real_umask(mask)

    monkeypatch.setattr(datagram_module.os, "umask", umask)
    with pytest.raises(TelError):
        BoundPath(path, 0o666, group=54321)
    status = os.stat(victim)
    assert (len(calls), stat.S_IMODE(status.st_mode), status.st_gid) == (2, 0o600, 0)
    assert os.path.islink(path)         # not ours to remove


# --- the end ------------------------------------------------------------------------------------

def test_its_own_socket_is_removed_and_closing_twice_is_fine(path):
    bound = BoundPath(path, 0o660)
    bound.close()
    bound.close()
    assert not os.path.lexists(path)


@pytest.mark.parametrize("other", ["socket", "file", "nothing"])
def test_a_path_that_was_replaced_is_left(path, other):
    bound = BoundPath(path, 0o660)
    os.unlink(path)
    if other == "socket":
        leave_dead(path)
    elif other == "file":
        with open(path, "w"):
            pass
    bound.close()
    assert os.path.lexists(path) == (other != "nothing")


# --- receiving ----------------------------------------------------------------------------------

@pytest.fixture
def receiving(path):
    """(path, took, too_long, drain): a bound socket and what arrived there."""
    bound = BoundPath(path, 0o666)
    took, too_long = [], []
    receiver = Receiver(bound, lambda *each: took.append(each), lambda *each: too_long.append(each))
    yield path, took, too_long, lambda: receiver.drain(lambda: 5.0, lambda: 9.0)
    bound.close()


def us():
    return CREDENTIALS.pack(os.getpid(), os.geteuid(), os.getegid())


def test_datagrams_come_in_order_with_the_credentials_and_the_time_of_receipt(receiving):
    path, took, too_long, drain = receiving
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for data in (b"one", b"", b"three"):
            sender.sendto(data, path)
        assert drain() is False
    assert (took, too_long) == ([(data, us(), 5.0, 9.0) for data in (b"one", b"", b"three")], [])


@needs_root
def test_the_credentials_are_those_of_the_sender_whatever_it_claims(receiving):
    path, took, _, drain = receiving
    code = ("import os, socket, sys\nsender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "sender.sendto(b'I am pid 1', sys.argv[1])\n"
            "import struct\n"
            "try: sender.sendmsg([b'really'], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack('3i', 1, 0, 0))],"
            " 0, sys.argv[1])\n"
            "except PermissionError: print(os.getpid())\n")
    told = subprocess.run([interpreters.for_user(NOBODY), "-c", code, path], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
                          stdout=subprocess.PIPE, timeout=20, check=True)
    drain()
    assert took == [(b"I am pid 1", CREDENTIALS.pack(int(told.stdout), NOBODY, NOBODY), 5.0, 9.0)]


def test_descriptors_that_a_sender_passes_are_not_taken(receiving):
    path, took, _, drain = receiving
    before = sorted(os.listdir("/proc/self/fd"))
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for _ in range(20):
            sender.sendmsg([b"have these"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing] * 5))], 0,
                           path)
            drain()
    os.close(writing)
    assert os.read(reading, 1) == b""               # nobody holds the other end
    os.close(reading)
    assert (took, sorted(os.listdir("/proc/self/fd"))) == ([(b"have these", us(), 5.0, 9.0)] * 20, before)


def test_what_does_not_fit_the_buffer_is_told_apart(receiving):
    path, took, too_long, drain = receiving
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for force in (32, socket.SO_SNDBUF):        # SO_SNDBUFFORCE is for root
            try:
                sender.setsockopt(socket.SOL_SOCKET, force, 2 * BUFFER)
            except PermissionError:
                continue
        sender.sendto(b"x" * BUFFER, path)
        try:
            sender.sendto(b"y" * (BUFFER + 1), path)
        except OSError:
            pytest.skip("this kernel lets nobody here send more than the buffer has")
        sender.sendto(b"z", path)
        drain()
    assert [each[0] for each in took] == [b"x" * BUFFER, b"z"]
    assert too_long == [(b"y" * 64, us(), 9.0)]


def test_a_flood_ends_a_turn_after_so_many_datagrams(path):
    bound = BoundPath(path, 0o600)
    took = []
    receiver = Receiver(bound, lambda *each: took.append(each[0]), None, most=4)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for number in range(6):
            sender.sendto(b"%d" % number, path)
        assert (receiver.drain(), took) == (True, [b"0", b"1", b"2", b"3"])
        assert (receiver.drain(), took) == (False, [b"0", b"1", b"2", b"3", b"4", b"5"])
    bound.close()
