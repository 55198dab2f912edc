"""What threads wait for: real ones of real processes in each call, and system calls as made-up text with made-up memory."""
import os
import random
import shutil
import struct
import sys

import pytest

import running
import targets
from modwsgi_tel.proc import calls, links, mounts, sockets, threads, waits

VERSIONS = ("3.9", "3.11", "3.13")
# Each starts threads by name; `told` is {name: native id}, and "port" and the like.
START = """
import fcntl, os, select, signal, socket, subprocess, sys, threading, time
TOLD = {}
def start(**works):
    for name, work in works.items():
        ready = threading.Event()
        def run(name=name, work=work, ready=ready):
            TOLD[name] = threading.get_native_id()
            ready.set()
            work()
        threading.Thread(target=run, daemon=True).start()
        ready.wait()
listening = socket.socket(); listening.bind(("127.0.0.1", 0)); listening.listen(50)
TOLD["port"] = listening.getsockname()[1]
kept = []
def connected(timeout=None):
    client = socket.create_connection(listening.getsockname())
    client.settimeout(timeout)
    kept.append(listening.accept()[0])
    return client
"""
SOCKETS = START + """
each = {name: connected(30 if name == "limited" else None) for name in ("recv", "recv_into", "recvmsg", "read", "limited", "send", "poll", "select",
                                                                    "epoll")}
udp = socket.socket(type=socket.SOCK_DGRAM); udp.connect(("127.0.0.1", 53))
poll = select.poll(); poll.register(each["poll"], select.POLLIN)
epoll = select.epoll(); epoll.register(each["epoll"], select.EPOLLIN)
start(recv=lambda: each["recv"].recv(1), recv_into=lambda: each["recv_into"].recv_into(bytearray(1)), recvmsg=lambda: each["recvmsg"].recvmsg(1),
      read=lambda: os.read(each["read"].fileno(), 1), limited=lambda: each["limited"].recv(1), send=lambda: each["send"].sendall(bytes(64 << 20)),
      poll=lambda: poll.poll(), select=lambda: select.select([each["select"]], [], [], 600), epoll=lambda: epoll.poll(600),
      accept=lambda: listening.accept(), served=lambda: kept[0].recv(1), udp=lambda: udp.recv(1))
TOLD["client"] = kept[0].getpeername()[1]
many = select.epoll()
for one in (listening, each["recv"], kept[1]):
    many.register(one, select.EPOLLIN)
start(many=lambda: many.poll())
"""
# A listener whose queue is full: whoever connects then gets no answer
CONNECTS = START + """
full = socket.socket(); full.bind(("127.0.0.1", 0)); full.listen(0)
TOLD["full"] = full.getsockname()[1]
for _ in range(4):
    one = socket.socket(); one.setblocking(False); one.connect_ex(full.getsockname()); kept.append(one)
def connect(timeout):
    one = socket.socket(); one.settimeout(timeout); one.connect(full.getsockname())
unix = socket.socket(socket.AF_UNIX); unix.bind(TOLD.setdefault("path", sys.argv[1] + "/full.sock")); unix.listen(0)
one = socket.socket(socket.AF_UNIX); one.connect(unix.getsockname()); kept.append(one)
other = socket.socket(socket.AF_UNIX)
start(plain=lambda: connect(None), limited=lambda: connect(600), unix=lambda: other.connect(unix.getsockname()), queued=lambda: one.recv(1))
"""
OTHERS = START + """
path = TOLD["path"] = sys.argv[1] + "/the lock"
code = "import fcntl, os, sys; f = open(sys.argv[1], 'a'); %s; os.write(1, b'1'); os.read(0, 1)"
def child(*command):
    one = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    kept.append(one)
    return one
flocks = child(sys.executable, "-c", code % "fcntl.flock(f, fcntl.LOCK_EX)", path)
posix = child(sys.executable, "-c", code % "fcntl.lockf(f, fcntl.LOCK_EX)", path + "2")
silent = child(sys.executable, "-c", "import os; os.read(0, 1)", "silent")
flocks.stdout.read(1), posix.stdout.read(1)
TOLD.update(flock_holder=flocks.pid, lockf_holder=posix.pid, silent=silent.pid)
first, second = open(path, "a"), open(path + "2", "a")
near, far = socket.socketpair()
lock = threading.Lock(); lock.acquire()
full = os.pipe()
os.set_blocking(full[1], False)
with open(os.dup(full[1]), "wb", 0) as filler:
    while filler.write(bytes(4096)):
        pass
os.set_blocking(full[1], True)
start(flock=lambda: fcntl.flock(first, fcntl.LOCK_EX), lockf=lambda: fcntl.lockf(second, fcntl.LOCK_EX), wait=silent.wait,
      any=lambda: os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT), pipe=lambda: silent.stdout.read(1), communicate=lambda: select.select([silent.stdout], [], []),
      full=lambda: os.write(full[1], bytes(65536)), pair=lambda: near.recv(1), sleep=lambda: time.sleep(600), lock=lock.acquire,
      wakes=lambda: signal.sigwait([signal.SIGUSR1]))
"""


def settled(child, name, text):
    """What a thread waits for, once its text is that: "{call}" in it stands for whichever call that is here."""
    last = [None]

    def check():
        last[0] = waits.waits_on(child.pid, child.told.get(name, child.pid))
        return last[0] and last[0]["text"] == text.replace("{call}", last[0]["call"]) and last[0]
    return running.wait_until(check, 20, lambda: "%s is %r, not %r" % (name, last[0], text))


def command_of(pid):
    with open("/proc/%d/cmdline" % pid) as file:
        return " ".join(file.read().replace("\0", " ").split())[:80]


def short(wait, *names):
    return {name: wait[name] for name in names}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_thread_that_waits_for_a_socket_is_told_with_its_peer(version):
    with targets.of(version, SOCKETS) as child:
        backend = "127.0.0.1:%d" % child.told["port"]
        for name, call in (("recv", "recvfrom"), ("recv_into", "recvfrom"), ("recvmsg", "recvmsg"), ("read", "read"), ("limited", "poll"),
                           ("send", "sendto"), ("poll", "poll"), ("epoll", "epoll_wait")):
            if os.uname().machine != "x86_64" and call in ("poll", "epoll_wait"):
                call = {"poll": "ppoll", "epoll_wait": "epoll_pwait"}[call]
            wait = settled(child, name, "{call} on tcp " + backend)
            assert short(wait, "call", "kind", "target", "direction", "service", "state", "incoming", "others", "timeout_s", "filesystem", "pids") == {
                "call": call, "kind": "tcp", "target": backend, "direction": "write" if name == "send" else "read", "service": "",
                "state": "ESTABLISHED", "incoming": False, "others": 0, "timeout_s": {"limited": 30.0, "epoll": 600.0}.get(name),
                "filesystem": "", "pids": []}
            assert wait["local"].startswith("127.0.0.1:") and wait["fd"] > 2 and wait["peer"] > 0
        assert settled(child, "select", "{call} on tcp " + backend)["timeout_s"] == 600.0
        assert short(settled(child, "udp", "recvfrom on udp 127.0.0.1:53 (dns)"), "kind", "service", "direction") == {
            "kind": "udp", "service": "dns", "direction": "read"}
        accept = settled(child, "accept", "accept4 on tcp " + backend)
        assert short(accept, "direction", "state", "target") == {"direction": "accept", "state": "LISTEN", "target": backend}
        served = settled(child, "served", "recvfrom on tcp from 127.0.0.1:%d" % child.told["client"])
        assert short(served, "incoming", "local", "target") == {"incoming": True, "local": backend, "target": "127.0.0.1:%d" % child.told["client"]}
        assert settled(child, "many", "{call} on listening tcp %s and 2 more" % backend)["others"] == 2
        # all threads in one look
        settled(child, "main", "read on pipe from pid %d (%s)" % (os.getpid(), command_of(os.getpid())))
        everything = waits.waits(child.pid)
        assert set(everything) == {child.pid, *(tid for name, tid in child.told.items() if name not in ("port", "client"))}
        assert everything[child.told["recv"]] == waits.waits_on(child.pid, child.told["recv"])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_thread_that_connects_is_told_with_whom(version):
    with running.short_folder() as folder, targets.of(version, CONNECTS, folder) as child:
        whom = "127.0.0.1:%d" % child.told["full"]
        plain = settled(child, "plain", "connect to tcp " + whom)
        assert short(plain, "call", "state", "direction", "incoming", "timeout_s") == {
            "call": "connect", "state": "SYN_SENT", "direction": "connect", "incoming": False, "timeout_s": None}
        limited = settled(child, "limited", "{call} while it connects to tcp " + whom)
        assert short(limited, "state", "direction", "timeout_s") == {"state": "SYN_SENT", "direction": "connect", "timeout_s": 600.0}
        path = folder + "/full.sock"
        unix = settled(child, "unix", "connect to unix " + path)
        assert short(unix, "kind", "target", "direction") == {"kind": "unix", "target": path, "direction": "connect"}
        queued = settled(child, "queued", "recvfrom on unix %s, not accepted yet" % path)
        assert short(queued, "state", "target") == {"state": "QUEUED", "target": path}


@pytest.mark.parametrize("version", VERSIONS)
def test_locks_children_pipes_and_sleeps_are_told_with_the_process_that_is_waited_for(version):
    with running.short_folder() as folder, targets.of(version, OTHERS, folder) as child:
        told = child.told

        def of(pid):
            return "pid %d (%s)" % (pid, command_of(pid))

        for name, suffix, call in (("flock", "", "flock"), ("lockf", "2", "fcntl")):
            wait = settled(child, name, "%s on %s/the lock%s, held by %s" % (call, folder, suffix, of(told[name + "_holder"])))
            assert short(wait, "kind", "target", "direction", "pids") == {
                "kind": "file", "target": "%s/the lock%s" % (folder, suffix), "direction": "lock", "pids": [told[name + "_holder"]]}
            assert wait["filesystem"]
        wait = settled(child, "wait", "wait4 for " + of(told["silent"]))
        assert short(wait, "kind", "fd", "pids", "command") == {
            "kind": "child", "fd": None, "pids": [told["silent"]], "command": "%s -c import os; os.read(0, 1) silent" % child.process.args[0]}
        assert settled(child, "any", "waitid for %s and 2 more" % of(min(told["flock_holder"], told["lockf_holder"], told["silent"])))
        assert settled(child, "pipe", "read on pipe from " + of(told["silent"]))["pids"] == [told["silent"]]
        assert settled(child, "communicate", "{call} on pipe from " + of(told["silent"]))["kind"] == "pipe"
        full = settled(child, "full", "write on pipe to this process")
        assert short(full, "kind", "direction", "pids") == {"kind": "pipe", "direction": "write", "pids": [child.pid]}
        assert settled(child, "pair", "recvfrom on unix of this process")["pids"] == [child.pid]
        assert settled(child, "sleep", "{call} (sleeps)")["kind"] == "sleep"
        assert settled(child, "lock", "futex (a lock)")["kind"] == "futex"
        assert settled(child, "wakes", "rt_sigtimedwait (waits for a signal)")["kind"] == "signal"
        assert short(settled(child, "main", "read on pipe from " + of(os.getpid())), "fd", "kind", "pids") == {"fd": 0, "kind": "pipe", "pids": [os.getpid()]}


def test_a_busy_thread_waits_for_nothing_and_neither_does_one_that_is_gone():
    with targets.Target([sys.executable], START + "def spin():\n    while True:\n        pass\nstart(spin=spin)\n") as child:
        running.wait_until(lambda: waits.waits_on(child.pid, child.told["spin"]) is None, 20, "it never ran")
        assert waits.waits_on(child.pid, 1 << 22) is None
    assert waits.waits(child.pid) == {} and waits.waits(1 << 22, [1 << 22]) == {}


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="makes namespaces: needs root and unshare (util-linux)")
def test_a_child_in_another_pid_namespace_and_a_socket_of_another_network_are_told_too():
    program = START + """
another, child = (subprocess.Popen([sys.executable, "-c", "import os; os.read(0, 1)"], stdin=subprocess.PIPE) for _ in range(2))
TOLD["child"] = child.pid
near, far = socket.socketpair()
start(wait=child.wait, pair=lambda: near.recv(1))
"""
    with targets.Target([sys.executable], program, wrapper=("unshare", "--pid", "--net", "--fork", "--kill-child")) as wrapped:
        inside, = _children(wrapped.pid)
        grandchild = max(_children(inside))
        assert wrapped.told["child"] != grandchild          # its pid in there
        found = running.wait_until(lambda: by_call(inside, "wait4", "recvfrom"), 20, "no thread waits for a child, or none for a socket")
        assert found["wait4"]["pids"] == [grandchild]
        assert short(found["recvfrom"], "kind", "state", "text") == {"kind": "unix", "state": "ESTABLISHED", "text": "recvfrom on unix"}


def by_call(pid, *names):
    """{call: what a thread waits for}, once there is one for each of these names."""
    found = {wait["call"]: wait for wait in waits.waits(pid).values()}
    return found if set(names) <= set(found) else None


def _children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
        return [int(word) for word in file.read().split()]


# --- as text -------------------------------------------------------------------------------------

def a_root(folder, syscall, memory=b"", files=None, found=None, wchan=b"0", state=b"S"):
    """A made-up /proc with process 42, one thread, its memory from address 0 on and its descriptors {fd: link}."""
    stat = b"42 (x) %b 7 42 42 0 -1 0 1 0 0 0 30 12 0 0 20 0 2 0 987654 1 1 1 1 1 1 0 0" % state
    for name, content in {"self/stat": stat, "42/stat": stat, "42/mem": bytes(4096) + memory, "42/task/42/syscall": syscall,
                          "42/task/42/stat": stat, "42/task/42/wchan": wchan, **(found or {})}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "42/fd").mkdir()
    for fd, link in (files or {}).items():
        os.symlink(link, os.fsencode(str(folder / "42/fd" / str(fd))))
    os.symlink("/srv/app", str(folder / "42/cwd"))
    return str(folder)


def number(name):
    return next(key for key, value in threads._SYSCALLS[os.uname().machine].items() if value == name)


def line(name, *arguments):
    words = [hex(each & (1 << 64) - 1) for each in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    return " ".join([str(name if isinstance(name, int) else number(name)), *words, "0x7ffd", "0x7fe2"]).encode() + b"\n"


MOUNTS = b"""20 1 254:0 / / rw,relatime - ext4 /dev/vda rw
21 20 0:40 / /mnt/a\\040b rw - nfs4 server:/x rw
22 20 0:41 / /mnt/a\\040b/local ro - tmpfs tmpfs rw
nonsense
"""


@pytest.mark.parametrize("syscall, memory, wanted", [
    (line("openat", -100, 4096), b"/mnt/a b/file\0rest", ("file", "/mnt/a b/file", "nfs4", "openat of /mnt/a b/file (nfs4)")),
    (line("openat", -100, 4096), b"relative\0", ("file", "/srv/app/relative", "ext4", "openat of /srv/app/relative")),
    (line("openat", 5, 4096), b"relative\0", ("file", "/mnt/a b/local/relative", "tmpfs", "openat of /mnt/a b/local/relative")),
    (line("openat", -100, 99999999), b"", ("file", "", "", "openat")),
    (line("fsync", 4), b"", ("file", "/mnt/a b/data", "nfs4", "fsync on /mnt/a b/data (nfs4)")),
    (line("read", 6), b"", ("device", "/dev/null", "", "read on /dev/null")),
    (line("read", 77), b"", ("other", "", "", "read")),
    (line("fcntl", 4, 3), b"", ("file", "/mnt/a b/data", "nfs4", "fcntl on /mnt/a b/data (nfs4)")),
    (line("munmap", 1, 2), b"", ("memory", "", "", "munmap (memory)")),
    (line(9999), b"", ("other", "", "", "syscall 9999")),
    (line("ppoll", 4096, 0, 0), b"", ("sleep", "", "", "ppoll (sleeps)")),
    (line("ppoll", 4096, 2, 0), struct.pack("=iHHiHH", -1, 1, 0, 6, 1, 0), ("device", "/dev/null", "", "ppoll on /dev/null")),
    (line("ppoll", 99999999, 2, 0), b"", ("other", "", "", "ppoll")),
    (line("pselect6", 7, 4096, 0, 0, 0), struct.pack("=Q", 1 << 6), ("device", "/dev/null", "", "pselect6 on /dev/null")),
    (line("pselect6", 7, 0, 4096, 0, 0), struct.pack("=Q", 1 << 6 | 1 << 7), ("device", "/dev/null", "", "pselect6 on /dev/null")),
    (line("pselect6", 0, 0, 0, 0, 0), b"", ("sleep", "", "", "pselect6 (sleeps)")),
    (line("waitid", 1, 999), b"", ("child", "", "", "waitid for a child")),
    (line("connect", 7, 4096, 16), struct.pack("=H", 2) + b"\x15\x38\x0a\0\0\5" + bytes(8), (
        "tcp", "10.0.0.5:5432", "", "connect to tcp 10.0.0.5:5432 (postgres)")),
    (line("connect", 7, 4096, 28), struct.pack("=H", 10) + b"\0\x50" + bytes(4) + bytes(15) + b"\1" + bytes(4), (
        "tcp", "[::1]:80", "", "connect to tcp [::1]:80 (http)")),
    (line("connect", 7, 4096, 110), struct.pack("=H", 1) + b"\0name" + bytes(4), ("unix", "@name@@@@", "", "connect to unix @name@@@@")),
    (line("connect", 7, 4096, 16), struct.pack("=H", 99) + bytes(14), ("other", "socket:[12]", "", "connect on socket:[12]")),
])
def test_arguments_are_read_out_of_the_other_processs_memory(tmp_path, syscall, memory, wanted):
    root = a_root(tmp_path, syscall, memory, {4: "/mnt/a b/data", 5: "/mnt/a b/local", 6: "/dev/null", 7: "socket:[12]"}, {"42/mountinfo": MOUNTS})
    wait = waits.waits_on(42, 42, root)
    assert (wait["kind"], wait["target"], wait["filesystem"], wait["text"]) == wanted


@pytest.mark.parametrize("text, state, wanted", [
    (b"running\n", b"R", None), (b"", b"S", None), (b"-1 0x7ffd 0x7fe2\n", b"S", None), (b"0 0x1 0xzz 0 0 0 0 0 0\n", b"S", None), (b"7\n", b"S", None),
    (b"-1 0x7ffd 0x7fe2\n", b"D", ("", "page", "a page of memory (from swap or a file)")),
])
def test_who_is_in_no_system_call_waits_for_nothing_but_a_page_of_memory(tmp_path, text, state, wanted):
    wait = waits.waits_on(42, 42, a_root(tmp_path, text, state=state))
    assert (wait and (wait["call"], wait["kind"], wait["text"])) == wanted


@pytest.mark.parametrize("wchan, wanted", [
    (b"poll_schedule_timeout.constprop.0", "poll on /dev/null"), (b"hrtimer_nanosleep", "clock_nanosleep (sleeps)"),
    (b"futex_wait_queue", "futex (a lock)"), (b"0", "restart_syscall"),
])
def test_a_call_that_goes_on_after_a_stop_is_told_by_where_it_waits(tmp_path, wchan, wanted):
    root = a_root(tmp_path, line("restart_syscall", 4096, 1, 5000), struct.pack("=iHH", 6, 1, 0), {6: "/dev/null"}, wchan=wchan)
    wait = waits.waits_on(42, 42, root)
    assert (wait["text"], wait["timeout_s"]) == (wanted, 5.0 if "poll" in wanted else None)


@pytest.mark.parametrize("held, wanted", [([42, 50], [50]), ([42], [42])])
def test_the_other_end_of_a_pipe_is_that_of_this_process_only_if_no_other_has_it(tmp_path, monkeypatch, held, wanted):
    root = a_root(tmp_path, line("read", 6), files={6: "pipe:[7]"})
    monkeypatch.setattr(waits.sockets, "holders", lambda inodes, *_: {inode: held for inode in inodes})
    assert waits.waits_on(42, 42, root)["pids"] == wanted


def test_a_thread_that_went_on_meanwhile_is_not_told(tmp_path, monkeypatch):
    root = a_root(tmp_path, line("read", 6), files={6: "/dev/null"})
    monkeypatch.setattr(calls.Calls, "link", lambda self, fd: (tmp_path / "42/task/42/syscall").write_bytes(line("read", 7)) and links.parse("/dev/null"))
    assert waits.waits(42, [42], root) == {}


LOCKS = b"""1: POSIX  ADVISORY  WRITE 11 fe:00:100 0 EOF
2: FLOCK  ADVISORY  WRITE 12 fe:00:200 0 EOF
2: -> FLOCK  ADVISORY  WRITE 42 fe:00:200 0 EOF
2: -> FLOCK  ADVISORY  WRITE 43 fe:00:200 0 EOF
3: POSIX  ADVISORY  WRITE 13 fe:00:300 0 0
3: -> POSIX  ADVISORY  WRITE 42 fe:00:300 0 EOF
4: OFDLCK ADVISORY  WRITE -1 fe:00:400 0 EOF
4: -> OFDLCK ADVISORY  WRITE 42 fe:00:400 0 EOF
nonsense
5: -> FLOCK
"""


def test_who_holds_a_file_lock_is_read_from_the_kernels_list():
    assert waits.lock_holders(LOCKS, 42, 200) == [12] and waits.lock_holders(LOCKS, 42, 300) == [13]
    assert waits.lock_holders(LOCKS, 42) == [12, 13] and waits.lock_holders(LOCKS, 43) == [12]
    assert waits.lock_holders(LOCKS, 42, 400) == [] and waits.lock_holders(LOCKS, 44) == [] and waits.lock_holders(b"", 42) == []


def test_the_mount_that_covers_a_path_is_the_innermost_and_the_latest():
    found = mounts.parse(MOUNTS + b"23 20 0:42 / /mnt/a\\040b/local rw - xfs /dev/vdb rw\n24 20 0:43 / /mnt ro - ext4 /dev/vdc rw\n")
    assert [(path, each and each.id) for path, each in ((path, mounts.of_path(path, found)) for path in (
        "/", "/etc", "/mnt", "/mnt/a b", "/mnt/a bc", "/mnt/a b/local/x", "relative"))] == [
        ("/", 20), ("/etc", 20), ("/mnt", 24), ("/mnt/a b", 21), ("/mnt/a bc", 24), ("/mnt/a b/local/x", 23), ("relative", None)]
    assert [each.writable for each in found] == [True, True, False, True, False]
    assert [mounts.is_local(kind) for kind in ("ext4", "tmpfs", "overlay", "nfs4", "cifs", "fuse.sshfs", "fuse", "9p", "autofs")] == (
        [True] * 3 + [False] * 6)


def test_looking_leaves_nothing_open():
    with targets.Target([sys.executable], "TOLD = {}\n") as child:
        before = len(os.listdir("/proc/self/fd"))
        settled(child, "main", "read on pipe from pid %d (%s)" % (os.getpid(), command_of(os.getpid())))
        assert len(os.listdir("/proc/self/fd")) == before


def test_whatever_the_call_and_the_memory_a_wait_is_told_or_none(tmp_path):
    """Any arguments and any memory give None or a wait with each of its keys, and raise nothing."""
    seed = 7
    print("seed", seed)
    chance = random.Random(seed)
    root = a_root(tmp_path, b"", chance.randbytes(8192) if hasattr(chance, "randbytes") else bytes(8192),
                  {4: "/mnt/a b/data", 6: "/dev/null", 7: "socket:[12]", 8: "pipe:[9]", 9: "anon_inode:[eventpoll]"},
                  {"42/mountinfo": MOUNTS, "42/fdinfo/9": b"tfd: 7 events: 1 data\ntfd: 99 events: 4 data\n"})
    keys = set(waits._blank("", ""))
    numbers = list(threads._SYSCALLS[os.uname().machine])
    for _ in range(400):
        arguments = [chance.choice((chance.randrange(12), chance.randrange(4096, 12288), chance.getrandbits(64), -1, -100)) for _ in range(6)]
        (tmp_path / "42/task/42/syscall").write_bytes(line(chance.choice(numbers), *arguments))
        wait = waits.waits_on(42, 42, root)
        assert wait is None or set(wait) == keys and wait["text"]


def test_whatever_is_read_as_a_table_gives_rows_and_raises_nothing():
    """Any bytes give rows."""
    seed = 8
    print("seed", seed)
    chance = random.Random(seed)
    whole = MOUNTS + LOCKS + b"   1: 0100007F:0050 0200007F:8001 01 00000010:00000020 00:0 0 33 0 102 1\ntfd: 5 events: 19 data\npos: 0\n" + (
        b"0000000000000000: 00000002 00000000 00010000 0001 01 401 /run/a b\n")
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 40)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        data = bytes(data)
        mounts.parse(data)
        waits.lock_holders(data, 42)
        links.parse(os.fsdecode(data[:40]))
        links.parse_fdinfo(data)
        for parse in (lambda lines: sockets.parse_internet(lines, "tcp"), lambda lines: sockets._of_lines(lines, None)):
            assert isinstance(parse(data.split(b"\n")), list)
