"""serve as a process: how it starts, what it refuses, what it survives, and what it leaves behind."""
import gzip
import json
import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

import interpreters
from modwsgi_tel.net.datagram import BUFFER
from modwsgi_tel.wire import blocks
from modwsgi_tel.wire.codec import encode, named
from modwsgi_tel.wire.fields import PROCESS_STARTED, REQUEST_METRICS, SLOW_REQUEST
from running import CHECKOUT, ROOT, clean_environment, free_port, short_folder, wait_until

CAPTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "captures")
NOBODY = 65534
DEADLINE_S = 30.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user: needs root")


@pytest.fixture
def folder():
    with short_folder() as made:
        yield made


def a_process(pid=77, seq=1, group="shop", **values):
    return encode(REQUEST_METRICS, pid, seq, time.time(), named(hostname="web1", process_group=group, sample_period=1.0,
                                                                **values))


def run(*arguments, environment=None, **more):
    """(exit status, stdout, stderr) of a command that should end by itself."""
    more.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run([*CHECKOUT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
                          env=clean_environment(**(environment or {})), timeout=DEADLINE_S, **more)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def one_line(outcome):
    """The one line on stderr of what could not be done."""
    status, out, err = outcome
    assert (status, out) == (2, ""), outcome
    assert err.endswith("\n") and err.count("\n") == 1 and err.startswith("modwsgi-tel: "), err
    return err[len("modwsgi-tel: "):-1]


def leave_dead(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(path)
    return os.lstat(path).st_ino


def refused(path):
    """Whether whoever sends there is told at once that nobody receives."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(b"x", path)
        except ConnectionRefusedError:
            return True
    return False


def is_dead(pid):
    """Gone, or a zombie that nobody has waited for."""
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def children_of(pid):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as handle:
                    if int(handle.read().rpartition(")")[2].split()[1]) == pid:
                        found.append(int(name))
            except OSError:
                pass
    return found


def received(collector, count):
    """Wait until it has taken so many datagrams."""
    collector.wait_for("/api/state?samples=0", lambda state: state["total_received"] >= count)


# --- how it starts ------------------------------------------------------------------------------

def test_every_flag_of_the_existing_collector_is_accepted(serve):
    collector = serve("--socket-mode", "0666", "--socket-group", str(os.getegid()), "--http-host", "127.0.0.1",
                      "--root-path", "/prefix", "--log-level", "debug")
    assert stat.S_IMODE(os.lstat(collector.socket).st_mode) == 0o666
    assert collector.get("/prefix/api/state")[0] == 200


def test_without_flags_its_defaults_hold():
    """Bound for real nowhere: port 8888 and the path in /tmp may be somebody's here."""
    status, out, err = run("serve", "--check-config", "--http-port", "0", "--listen", "unix:/tmp/mod_wsgi-telemetry.sock-")
    assert (status, err) == (0, "")
    from modwsgi_tel.options import read
    values = read("serve", [], {})
    assert (values.listen, values.http_host, values.http_port) == ("unix:/tmp/mod_wsgi-telemetry.sock", "127.0.0.1", 8888)


def test_serve_is_what_runs_without_a_command(folder):
    """As the existing collector's manual shows it: `mod_wsgi-telemetry --listen ...`."""
    path, port = os.path.join(folder, "t"), free_port()
    process = subprocess.Popen([*CHECKOUT, "--listen", f"unix:{path}", "--http-port", str(port)], cwd=ROOT,
                               env=clean_environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with process:
        lines = [process.stderr.readline().decode() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    assert [line.split(" ", 1)[1] for line in lines] == [
        f"INFO modwsgi-tel 0.1.0 receives on unix:{path}\n", f"INFO serves http://127.0.0.1:{port}/\n"]


def test_a_unix_socket_alone_needs_no_port(folder):
    path, http = os.path.join(folder, "t"), os.path.join(folder, "h")
    process = subprocess.Popen([*CHECKOUT, "serve", "--listen", f"unix:{path}", "--no-http-port", "--http-socket", http,
                                "--http-socket-mode", "0600"], cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    with process:
        lines = [process.stderr.readline().decode() for _ in range(2)]
        assert stat.S_IMODE(os.lstat(http).st_mode) == 0o600
        with open("/proc/%d/net/tcp" % process.pid) as handle:
            inodes = {line.split()[9] for line in handle.readlines()[1:]}
        held = {os.readlink(f"/proc/{process.pid}/fd/{name}") for name in os.listdir(f"/proc/{process.pid}/fd")}
        assert not held & {f"socket:[{inode}]" for inode in inodes}
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    assert lines[1].endswith(f"INFO serves HTTP on unix:{http}\n") and os.listdir(folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_on_a_signal_and_removes_its_sockets(serve, number):
    collector = serve()
    assert (collector.stop(number), os.path.lexists(collector.socket)) == (0, False)
    assert collector.said().splitlines()[-1].endswith(" INFO stopped") and "Traceback" not in collector.said()


def test_what_is_queued_when_it_stops_is_taken_in(serve, tmp_path):
    collector = serve("--record", str(tmp_path / "cap"))
    os.kill(collector.pid, signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for seq in range(1, 6):
            sender.sendto(a_process(seq=seq), collector.socket)
    collector.process.send_signal(signal.SIGTERM)
    os.kill(collector.pid, signal.SIGCONT)
    assert collector.stop() == 0 and len(records_of(tmp_path / "cap")) == 5


def test_two_of_it_on_one_path_the_second_refuses_and_the_first_goes_on(serve):
    collector = serve()
    inode = os.lstat(collector.socket).st_ino
    line = one_line(run("serve", "--listen", f"unix:{collector.socket}", "--http-port", "0"))
    assert line == f"cannot bind {collector.socket}: another process listens there; stop it first, or choose another path"
    assert os.lstat(collector.socket).st_ino == inode
    collector.send(a_process())
    received(collector, 1)


def test_a_dead_socket_is_taken_over(serve, folder):
    path = os.path.join(folder, "t")
    leave_dead(path)
    collector = serve(socket=path)
    collector.send(a_process())
    received(collector, 1)
    assert collector.stop() == 0 and os.listdir(folder) == []


def test_a_socket_that_is_no_longer_its_own_is_left(serve):
    collector = serve()
    os.unlink(collector.socket)
    inode = leave_dead(collector.socket)
    assert collector.stop() == 0 and os.lstat(collector.socket).st_ino == inode


def test_a_taken_port_is_one_line_and_the_telemetry_socket_stays_as_it_was(folder):
    path = os.path.join(folder, "t")
    inode = leave_dead(path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(run("serve", "--listen", f"unix:{path}", "--http-port", str(port)))
        assert line == (f"cannot serve HTTP on 127.0.0.1 port {port}: Address already in use; another program serves there, "
                        "choose another --http-port, or 0 for a free one")
    assert (os.listdir(folder), os.lstat(path).st_ino) == (["t"], inode)


@pytest.mark.parametrize("arguments, said", [
    (["--socket-group", "no-such-group"], "--socket-group no-such-group: no such group; getent group lists them"),
    (["--socket-mode", "9999"], "--socket-mode '9999': an octal mode, as 0660"),
    (["--listen", "udp:127.0.0.1:5"], "--listen udp:127.0.0.1:5: udp is not possible: mod_wsgi's datagrams are told apart by "
     "the kernel's credentials, which only a unix socket carries; use unix:/path"),
    (["--listen", "unix:/none/t"], "cannot bind /none/t: there is no folder /none; create it first"),
    (["--http-host", "no-such-host.invalid"], None), (["--http-host", "a..b"], None), (["--http-host", "x" * 70], None),
    (["--http-host", "192.0.2.1"], "cannot serve HTTP on 192.0.2.1 port 0: Cannot assign requested address"),
    (["--http-socket", "/none/h"], "cannot bind /none/h: there is no folder /none; create it first"),
    (["--no-http-port"], "--no-http-port: then --http-socket PATH is needed"),
    (["--token-file", "/none"], "--token-file /none: No such file or directory"),
    (["--token-file", "/dev/null"], "--token-file /dev/null: holds no token; its first line should be one"),
    (["--allow-host", "a b"], "--allow-host 'a b': give a host name or an address"),
    (["--root-path", "no/slash"], "--root-path 'no/slash': give a path like /telemetry, of letters, digits and ._~-"),
    (["--record", "/none/x"], "--record /none/x: No such file or directory"),
    (["--log-file", "/none/x"], "--log-file /none/x: No such file or directory"),
    (["--config", "/none"], "--config /none: No such file or directory")])
def test_what_cannot_be_is_one_line_and_leaves_nothing(folder, arguments, said):
    before = ["serve", "--listen", f"unix:{folder}/t", "--http-port", "0"]
    line = one_line(run(*before, *arguments))
    assert said is None or line == said
    assert os.listdir(folder) == []
    # the same by --check-config, except for files that only a start opens
    assert one_line(run(*before, *arguments, "--check-config")) == line


def test_a_wrong_variable_is_named():
    line = one_line(run("serve", environment={"MODWSGI_TEL_MAX_SLOW": "lots"}))
    assert line == "MODWSGI_TEL_MAX_SLOW 'lots': a whole number from 1 to 1000000"


def test_options_come_from_everywhere_and_the_nearest_counts(serve, tmp_path):
    (tmp_path / "ini").write_text("[serve]\nmax-slow = 5\nroot-path = /from-file\nlog-level = WARNING\n")
    collector = serve("--config", str(tmp_path / "ini"), "--log-level", "DEBUG",
                      environment={"MODWSGI_TEL_ROOT_PATH": "/from-environment", "MODWSGI_TEL_LOG_LEVEL": "ERROR"})
    assert f":{collector.port}/from-environment/" in collector.said()
    collector.send(*[encode(SLOW_REQUEST, 1, seq, 1.0, named(slow_log_id=f"r{seq}")) for seq in range(1, 21)])
    collector.wait_for("/api/slow", lambda slow: (slow["kept"], slow["evicted"]) == (5, 15))


def test_check_config_says_what_would_happen_and_changes_nothing(folder, tmp_path):
    path, http, record, log = (os.path.join(folder, name) for name in ("t", "h", "r", "l"))
    (tmp_path / "token").write_text("x\n")
    inode = leave_dead(path)
    status, out, err = run("serve", "--listen", f"unix:{path}", "--socket-group", "root", "--http-port", "0", "--http-socket",
                           http, "--record", record, "--log-file", log, "--token-file", str(tmp_path / "token"),
                           "--check-config", environment={"MODWSGI_TEL_MAX_SLOW": "5"})
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:4] == [f"telemetry socket   {path}, mode 0660, group root (0): takes over a dead socket",
                         "HTTP               127.0.0.1 port any free one", f"HTTP               {http}, mode 0660",
                         "token              asked for"]
    assert "max-slow           5 from MODWSGI_TEL_MAX_SLOW" in lines
    assert (os.listdir(folder), os.lstat(path).st_ino) == (["t"], inode)


def test_check_config_tells_whether_the_helper_service_is_there(folder):
    def said(path):
        return run("serve", "--check-config", "--http-port", "0", "--listen", f"unix:{folder}/t", "--stacks-helper", path)

    status, out, err = said(f"{folder}/s")
    assert (status, err) == (0, "")
    assert f"stacks             read by {folder}/s: nothing is there now; start modwsgi-tel stack-helper" in out.splitlines()
    leave_dead(f"{folder}/s")
    assert f"stacks             read by {folder}/s" in said(f"{folder}/s")[1].splitlines()
    with open(f"{folder}/f", "w"):
        pass
    assert f"stacks             read by {folder}/f: that is no socket; start modwsgi-tel stack-helper" in said(f"{folder}/f")[1].splitlines()
    assert one_line(said("unix:run/s")) == "--stacks-helper run/s: a path from /, as /run/modwsgi-tel-stacks/stacks.sock"


def test_check_config_finds_what_would_fail(serve, folder):
    collector = serve()
    assert "another process listens there" in one_line(run("serve", "--check-config", "--listen", f"unix:{collector.socket}"))
    assert "another program serves there" in one_line(run("serve", "--check-config", "--listen", f"unix:{folder}/t",
                                                          "--http-port", str(collector.port)))


@needs_root
def test_an_ordinary_user_without_a_home_may_run_it(serve, folder):
    python = interpreters.for_user(NOBODY)
    script = f"import sys; sys.path.insert(0, {folder!r}); from modwsgi_tel.cli import main; sys.exit(main())"
    subprocess.run(["cp", "-r", os.path.join(ROOT, "modwsgi_tel"), folder], check=True)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    collector = serve(program=[python, "-I", "-c", script], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
                      environment={"HOME": None})
    collector.send(a_process())
    received(collector, 1)
    assert os.lstat(collector.socket).st_uid == NOBODY
    assert collector.stop() == 0 and not os.path.lexists(collector.socket)


@pytest.mark.parametrize("which", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_at_the_start_are_no_matter(folder, which):
    """Else a socket would get number 2, and log lines would go to whoever is connected there."""
    path, port = os.path.join(folder, "t"), free_port()
    command = f'exec "$0" -m modwsgi_tel serve --listen unix:{path} --http-port {port} {which}'
    process = subprocess.Popen(["sh", "-c", command, sys.executable], cwd=ROOT, env=clean_environment(),
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def answers():
            try:
                with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
                    client.sendall(b"GET /version HTTP/1.0\r\n\r\n")
                    return b"".join(iter(lambda: client.recv(65536), b""))
            except OSError:
                return b""
        assert wait_until(answers, DEADLINE_S, "it does not answer").startswith(b"HTTP/1.1 200 OK\r\n")
        held = {name: os.readlink(f"/proc/{process.pid}/fd/{name}") for name in "012"}
        assert not [what for what in held.values() if what.startswith("socket:")], held
        process.send_signal(signal.SIGHUP)          # says a line
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
            client.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0 and os.listdir(folder) == []
    finally:
        process.kill()
        process.wait()


def test_a_warning_is_given_beyond_loopback_without_a_token(serve, tmp_path):
    (tmp_path / "token").write_text("x\n")
    wanted = "whoever reaches 0.0.0.0 can read everything here: bind 127.0.0.1, or give --token-file"

    def says(*options):
        path, port = str(tmp_path / "t"), free_port()
        with subprocess.Popen([*CHECKOUT, "serve", "--listen", f"unix:{path}", "--http-port", str(port), "--http-host", "0.0.0.0",
                               *options], cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE) as process:
            for line in iter(process.stderr.readline, b""):
                if b"serves http://" in line:
                    break
            process.send_signal(signal.SIGTERM)
            return process.stderr.read().decode()

    assert wanted in says() and wanted not in says("--token-file", str(tmp_path / "token"))


# --- its socket while it runs ----------------------------------------------------------------------

# How it is started when the looks at its path should come soon.
QUICK_LOOKS = [sys.executable, "-c", f"import sys\nsys.path.insert(0, {ROOT!r})\nimport modwsgi_tel.collector as c\n"
               "c.PATH_CHECK_S = 0.1\nfrom modwsgi_tel.cli import main\nsys.exit(main())"]


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_socket_that_was_taken_away_is_noticed_and_said(serve, how):
    collector = serve(program=QUICK_LOOKS)
    assert collector.get("/healthz")[0] == 200
    os.unlink(collector.socket)
    if how == "replaced":
        leave_dead(collector.socket)
    wait_until(lambda: collector.get("/healthz")[0] == 503, DEADLINE_S, "not noticed")
    wrong, = json.loads(collector.get("/healthz")[2])["wrong"]
    assert wrong == (f"{collector.socket} is no longer the socket of this collector: it was removed or replaced, so nothing "
                     "arrives; start the collector anew")
    assert collector.said().count(wrong) == 1
    assert collector.json("/api/summary")["collector"]["socket_trouble"] == wrong


def test_an_idle_collector_whose_helpers_fail_is_not_said_to_have_lost_its_socket(serve):
    """A helper that dies, or takes too long, says nothing about the path."""
    program = QUICK_LOOKS[:2] + [QUICK_LOOKS[2].replace("c.PATH_CHECK_S = 0.1\n", "c.PATH_CHECK_S = 0.1\nimport os\n"
                                                        "c._look = lambda wanted: os._exit(1)\n")]
    collector = serve(program=program)
    collector.wait_for("/api/summary", lambda summary: summary["collector"]["helpers"]["failed"] >= 2)
    assert json.loads(collector.get("/healthz")[2]) == {"status": "ok", "wrong": [], "received": 0}


def test_a_helper_that_failed_once_does_not_leave_its_processes_unknown(serve, tmp_path):
    """Whether they live is asked again."""
    flag = tmp_path / "fail"
    flag.write_text("")
    program = QUICK_LOOKS[:2] + [QUICK_LOOKS[2].replace("c.PATH_CHECK_S = 0.1\n", (
        "import os\nlook = c._look\n"
        f"c._look = lambda wanted: os._exit(1) if os.path.exists({str(flag)!r}) else look(wanted)\n"))]
    collector = serve(program=program)
    collector.send(a_process(pid=os.getpid()))
    collector.wait_for("/api/summary", lambda summary: summary["collector"]["helpers"]["failed"])
    flag.unlink()
    collector.send(a_process(pid=os.getpid(), seq=2))
    collector.wait_for("/api/summary", lambda summary: summary["processes"][0]["start_ticks"])


def test_descriptors_that_a_sender_passes_do_not_stay(serve):
    import array
    collector = serve()

    def held():
        return len(os.listdir(f"/proc/{collector.pid}/fd"))

    collector.get("/version")
    collector.wait_for("/api/summary", lambda summary: summary["collector"]["http"]["connections"] == 1)
    before = held()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for seq in range(50):
            sender.sendmsg([a_process(seq=seq)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))], 0,
                           collector.socket)
    received(collector, 50)
    wait_until(lambda: held() <= before, DEADLINE_S, lambda: f"{before} became {held()}")
    found, = collector.json("/api/summary")["processes"]
    assert (found["sender_pid"], found["pid"]) == (os.getpid(), 77)


def test_datagrams_of_every_size_are_survived(serve):
    collector = serve()
    sent = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for size in (0, 1, 23, 24, 8192, BUFFER - 1, BUFFER, BUFFER + 1, 200 << 10, 400000):
            try:
                sender.sendto(a_process()[:size].ljust(size, b"\0"), collector.socket)
                sent.append(size)
            except OSError:
                pass                    # more than this kernel lets anyone send
    received(collector, len(sent))
    wrong = collector.json("/api/state")["collector"]["wrong"]
    assert wrong["header"] == 3 and wrong.get("too_long", 0) == sum(size > BUFFER for size in sent)
    assert collector.get("/healthz")[0] == 200


# --- killed ----------------------------------------------------------------------------------------

def test_killed_it_leaves_no_process_and_the_socket_refuses_at_once(serve, tmp_path):
    collector = serve("--record", str(tmp_path / "r"), "--log-file", "/dev/stderr")
    collector.send(a_process())
    collector.wait_for("/api/summary", lambda summary: summary["collector"]["helpers"]["started"])
    children = children_of(collector.pid)
    assert children                     # the one that writes the files
    collector.process.kill()
    collector.process.wait()
    assert refused(collector.socket)
    wait_until(lambda: all(map(is_dead, children)), DEADLINE_S, "a helper lives on")


def test_killed_in_the_middle_of_a_look_at_proc_its_helper_holds_nothing(serve, tmp_path):
    program = QUICK_LOOKS[:2] + [QUICK_LOOKS[2].replace("c.PATH_CHECK_S = 0.1\n", (
        "c.PATH_CHECK_S = 0.1\nimport os, signal\n"
        f"c._look = lambda wanted: (open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())), signal.alarm(60), "
        "signal.pause())\n"))]
    collector = serve(program=program)
    pid = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), DEADLINE_S, "no helper"))
    try:
        folder = f"/proc/{pid}/fd"
        held = sorted(os.readlink(f"{folder}/{name}").split(":")[0] for name in os.listdir(folder) if int(name) > 2)
        assert held in (["pipe"], ["pipe", str(tmp_path / "pid")], [str(tmp_path / "pid"), "pipe"]), held
        collector.process.kill()
        collector.process.wait()
        assert refused(collector.socket)
    finally:
        os.kill(pid, signal.SIGKILL)


# --- recording and logging ----------------------------------------------------------------------------

def records_of(path):
    with open(path, "rb") as handle:
        return list(blocks.read(handle, str(path)))


SENDER = """
import socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for line in sys.stdin:
    sender.sendto(bytes.fromhex(line), sys.argv[1])
    print("sent", flush=True)
"""


class Sender:
    """Another process that sends what it is told."""

    def __init__(self, path):
        self.process = subprocess.Popen([sys.executable, "-c", SENDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        universal_newlines=True)
        self.pid = self.process.pid

    def send(self, *datagrams):
        for each in datagrams:
            self.process.stdin.write(each.hex() + "\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "sent\n"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def test_a_recording_is_what_was_sent_and_can_be_replayed_and_goes_on_after_a_restart(serve, tmp_path):
    path = tmp_path / "r.cap.gz"
    collector = serve("--record", str(path))
    sent = []
    for place in range(2):              # two runs
        with Sender(collector.socket) as one, Sender(collector.socket) as two:
            for seq in range(1, 31):
                for sender in (one, two) if seq % 3 else (two,):
                    datagram = b"wrong" if seq == 7 else a_process(pid=sender.pid, seq=seq)
                    sender.send(datagram)
                    sent.append((sender.pid, datagram))
        received(collector, len(sent) / (place + 1))
        assert collector.stop() == 0
        assert [(pid, datagram) for _, pid, datagram in records_of(path)] == sent
        if not place:
            collector.start()
    times = [wall for wall, _, _ in records_of(path)]
    assert times == sorted(times) and time.time() - 100 < times[0] <= times[-1] <= time.time()
    with gzip.open(path) as handle:
        assert len(handle.read()) == sum(16 + len(datagram) for _, datagram in sent)
    other = serve()
    status, out, err = run("replay", "--speed", "max", "--target", f"unix:{other.socket}", str(path))
    assert (status, out) == (0, ""), err
    found = other.wait_for("/api/state", lambda state: state["total_received"] == len(sent) and state)
    assert len(found["processes"]) == 4 and found["decode_errors"] == sent.count((sent[0][0], b"wrong")) * 4
    assert {process["drops"] for process in found["processes"]} <= {1, 10 + 1, 10}


def test_a_recording_is_bounded(serve, tmp_path):
    path, chance = tmp_path / "r", random.Random(1)
    collector = serve("--record", str(path), "--record-size", "1M")
    sent = [bytes(chance.getrandbits(8) for _ in range(8000)) for _ in range(250)]
    collector.send(*sent)
    received(collector, len(sent))
    assert collector.stop() == 0
    sizes = {name: os.stat(tmp_path / name).st_size for name in os.listdir(tmp_path)}
    assert sorted(sizes) == ["r", "r.1"] and sum(sizes.values()) <= 1 << 20
    kept = [datagram for name in ("r.1", "r") for _, _, datagram in records_of(tmp_path / name)]
    assert kept == sent[-len(kept):] and len(kept) > 40


def test_a_file_that_is_no_capture_is_not_written_over(folder, tmp_path):
    (tmp_path / "notes").write_text("precious")
    line = one_line(run("serve", "--listen", f"unix:{folder}/t", "--http-port", "0", "--record", str(tmp_path / "notes")))
    assert line.startswith(f"--record {tmp_path}/notes: is there and no packed capture")
    assert (tmp_path / "notes").read_text() == "precious" and os.listdir(folder) == []


@pytest.mark.parametrize("flag", ["--record", "--log-file"])
def test_a_disk_that_is_full_is_said_in_healthz_and_it_goes_on(serve, tmp_path, flag, folder):
    port = free_port()
    collector = serve(flag, "/dev/full") if flag == "--record" else None
    if collector is None:               # its URL goes to the log, which nobody can read
        http = os.path.join(folder, "h")
        process = subprocess.Popen([*CHECKOUT, "serve", "--listen", f"unix:{folder}/t", "--http-port", str(port), "--http-socket",
                                    http, flag, "/dev/full"], cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL)
        try:
            assert health_over(http, folder) == ["--log-file /dev/full: No space left on device"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
            process.wait()
        return
    collector.send(a_process())
    wait_until(lambda: collector.get("/healthz")[0] == 503, DEADLINE_S, "not said")
    assert json.loads(collector.get("/healthz")[2])["wrong"] == ["--record /dev/full: No space left on device"]
    found = collector.json("/api/summary")["collector"]["recording"]
    assert found["lost_blocks"] == 1 and found["trouble"] == "--record /dev/full: No space left on device"
    collector.send(a_process(seq=2))
    received(collector, 2)
    assert collector.stop() == 0


def health_over(http, folder):
    """What /healthz says over a unix socket, once it says that something is wrong."""
    def ask():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            try:
                client.connect(http)
            except OSError:
                return None
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")[2]
            return json.loads(body)["wrong"]
    return wait_until(ask, DEADLINE_S, "nothing is wrong")


def test_a_log_is_opened_anew_on_sighup(serve, tmp_path):
    path = tmp_path / "log"
    port = free_port()
    with short_folder() as folder:
        process = subprocess.Popen([*CHECKOUT, "serve", "--listen", f"unix:{folder}/t", "--http-port", str(port), "--log-file",
                                    str(path)], cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE)
        with process:
            wait_until(lambda: path.exists() and f":{port}/" in path.read_text(), DEADLINE_S, "no log")
            os.rename(path, tmp_path / "log.1")
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: path.exists() and "SIGHUP" in path.read_text(), DEADLINE_S, "not opened anew")
            process.send_signal(signal.SIGTERM)
            assert (process.wait(DEADLINE_S), process.stderr.read()) == (0, b"")
    lines = [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
    assert lines == ["INFO SIGHUP: log opened anew", "INFO stopped"]
    assert "SIGHUP" not in (tmp_path / "log.1").read_text()


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_stderr_that_nobody_reads_holds_nothing_up(folder, kind):
    reading, writing = os.pipe() if kind == "pipe" else os.openpty()
    filler = os.open(f"/proc/self/fd/{writing}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)     # writing itself blocks

    def fill():
        try:
            while True:
                os.write(filler, b"x" * 100 + b"\n")
        except BlockingIOError:
            pass

    fill()
    http = os.path.join(folder, "h")
    process = subprocess.Popen([*CHECKOUT, "serve", "--listen", f"unix:{folder}/t", "--no-http-port", "--http-socket", http],
                               cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL, stderr=writing)
    try:
        def lost():
            fill()                      # a terminal's buffers are shifted by and by
            process.send_signal(signal.SIGHUP)      # says a line
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(DEADLINE_S)
                client.connect(http)
                client.sendall(b"GET /api/summary HTTP/1.0\r\n\r\n")
                body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")[2]
                return json.loads(body)["collector"]["log_lines_lost"] > 5
        wait_until(lambda: os.path.exists(http) and not refused_stream(http), DEADLINE_S, "it does not start")
        wait_until(lost, DEADLINE_S, "no line is lost")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        for each in (reading, writing, filler):
            os.close(each)


def refused_stream(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return bool(probe.connect_ex(path))


# --- lives, by the real /proc -----------------------------------------------------------------------------

def started(pid, seq):
    return encode(PROCESS_STARTED, pid, seq, time.time(), named(hostname="web1", process_group="shop"))


def slow(pid, seq, **values):
    return encode(SLOW_REQUEST, pid, seq, time.time(), named(slow_log_id="one", slow_duration=1.0, slow_thread_id=1,
                                                             slow_start_stamp=time.time(), **values))


def alive_known(collector, count):
    """Wait until /proc was asked about so many senders; the time until then is over."""
    collector.wait_for("/api/summary", lambda summary: sum(1 for row in summary["processes"] if row["start_ticks"]) == count)


def test_a_killed_process_vanishes_with_its_request_a_stopped_one_falls_silent_and_lives(serve):
    collector = serve()
    with Sender(collector.socket) as killed, Sender(collector.socket) as stopped, Sender(collector.socket) as liar:
        for sender, pid in ((killed, killed.pid), (stopped, stopped.pid), (liar, 2 ** 22 + 17)):
            sender.send(started(pid, 1), a_process(pid, 2, request_threads_maximum=5), slow(pid, 3))
        alive_known(collector, 3)
        killed.process.kill()
        killed.process.wait()
        liar.process.kill()
        liar.process.wait()
        os.kill(stopped.pid, signal.SIGSTOP)

        def rows():
            return {row["sender_pid"]: row for row in collector.json("/api/summary")["processes"]}

        def settled():
            found = rows()
            return [found[each.pid]["life"] for each in (killed, stopped, liar)] == ["vanished", "silent", "silent"] and (
                found[stopped.pid]["alive"] and found)

        found = wait_until(settled, DEADLINE_S, lambda: json.dumps(rows())[:3000])
        assert [found[each.pid]["alive"] for each in (killed, stopped, liar)] == [False, True, None]
        assert 3.0 <= found[stopped.pid]["silent_s"] < 60
        entries = [request["entry"] for request in collector.json("/api/slow")["slow_requests"]]
        lives = {entry["sender_pid"]: entry["life"] for entry in entries}
        assert lives == {killed.pid: "lost", stopped.pid: "active", liar.pid: "active"}
        totals = collector.json("/api/summary")["totals"]
        assert (totals["lives"]["vanished"], totals["slow"]["lost"]) == (1, 1)
        event, = [event for event in collector.json("/api/lifecycle")["lifecycle_events"] if event["kind"] == "process_vanished"]
        assert (event["pid"], event["lost_requests"], event["process_group"]) == (killed.pid, 1, "shop")
        # it stays so, however often /proc is asked again, until it speaks
        asked = collector.json("/api/summary")["collector"]["helpers"]["started"]
        collector.wait_for("/api/summary", lambda summary: summary["collector"]["helpers"]["started"] > asked)
        assert {each: rows()[each]["life"] for each in (stopped.pid, liar.pid)} == dict.fromkeys((stopped.pid, liar.pid), "silent")
        os.kill(stopped.pid, signal.SIGCONT)
        stopped.send(a_process(stopped.pid, 4))
        wait_until(lambda: rows()[stopped.pid]["life"] == "running", DEADLINE_S, "it stays silent")


def test_a_collector_that_was_stopped_itself_says_so_and_nobody_is_silent_for_it(serve):
    collector = serve()
    with Sender(collector.socket) as sender:
        sender.send(started(sender.pid, 1), a_process(sender.pid, 2))
        alive_known(collector, 1)
        os.kill(collector.pid, signal.SIGSTOP)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 4, DEADLINE_S, "time stands still")
        os.kill(collector.pid, signal.SIGCONT)
        found = collector.json("/api/summary")
    assert found["processes"][0]["life"] == "running" and found["collector"]["stalls"] >= 1
    assert found["collector"]["longest_gap_s"] > 2         # what it would have waited anyway is not counted
    assert re.search(r"WARNING the collector itself stood still for \d\.\d s", collector.said())


@pytest.mark.parametrize("quiet", ["--log-level=ERROR", "--log-file"])
def test_a_port_that_was_picked_is_told_however_quiet_the_log_is(folder, quiet, tmp_path):
    more = [quiet] if "=" in quiet else [quiet, str(tmp_path / "log")]
    process = subprocess.Popen([*CHECKOUT, "serve", "--listen", f"unix:{folder}/t", "--http-port", "0", *more], cwd=ROOT,
                               env=clean_environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        line = process.stderr.readline().decode()
        port = int(line.rpartition("http://127.0.0.1:")[2].strip().rstrip("/"))
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
        process.send_signal(signal.SIGTERM)
        assert (process.wait(DEADLINE_S), process.stderr.read()) == (0, b"")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
