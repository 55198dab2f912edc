"""stack-helper: who may ask, whose stacks are read, and what it survives."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

import interpreters
from modwsgi_tel import onetake, stackhelper
from modwsgi_tel.errors import UsageError
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.proc import access, procfs
from modwsgi_tel.stacks.model import stacks_of_table
from running import ROOT, clean_environment, copy_of_the_sources, short_folder, wait_until

NOBODY = 65534
ME = os.geteuid()
needs_root = pytest.mark.skipif(ME != 0, reason="changes to another user: needs root")
SITS = "import sys; print(1, flush=True); sys.stdin.read()"


class Running:
    """The service in a process of its own."""

    def __init__(self, folder, *options, environment=None, **popen):
        self.path = os.path.join(folder, "s")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modwsgi_tel", "stack-helper", "--listen", "unix:" + self.path, *options],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, env=clean_environment(**(environment or {})), **popen)
        assert b"reads stacks" in self.process.stderr.readline()

    def connect(self):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10.0)
        connection.connect(self.path)
        return connection

    def said(self, data):
        """All that comes back for these bytes."""
        with self.connect() as connection:
            connection.sendall(data)
            out = b""
            while True:
                part = connection.recv(65536)
                if not part:
                    return out
                out += part

    def asked(self, pid, start=None, uid=ME, gid=None):
        question = {"pid": pid, "start": procfs.stat(pid).start if start is None else start, "uid": uid,
                    "gid": os.getegid() if gid is None else gid}
        return json.loads(self.said(json.dumps(question).encode() + b"\n"))

    def close(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stderr.close()


@pytest.fixture
def service():
    """What starts one; all are ended."""
    with contextlib.ExitStack() as stack:
        def start(*options, **more):
            made = Running(stack.enter_context(short_folder()), *options, **more)
            stack.callback(made.close)
            return made
        yield start


@contextlib.contextmanager
def python(program=sys.executable, **popen):
    process = subprocess.Popen([program, "-c", SITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **popen)
    try:
        assert process.stdout.readline() == b"1\n"
        yield process.pid
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def as_nobody(code, *arguments):
    """stdout of a Python of a user without rights."""
    return subprocess.run([interpreters.for_user(NOBODY), "-I", "-c", code, *arguments], user=NOBODY, group=NOBODY, extra_groups=[],
                          cwd="/", timeout=20, check=True, stdout=subprocess.PIPE).stdout


ASK = """
import socket, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
connection.connect(sys.argv[1])
try:
    connection.sendall(sys.argv[2].encode() + b"\\n")
    print(connection.recv(65536).decode())
except ConnectionError:
    print()
"""


# --- what is read -------------------------------------------------------------------------

@needs_root
def test_a_process_of_a_user_it_was_told_of_is_read_and_of_no_other(service):
    helper = service("--for-uid", "nobody", "--stacks-rate", "100")
    place = dict(user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
    with python(interpreters.for_user(NOBODY), **place) as theirs, python() as roots:
        answer = helper.asked(theirs, uid=NOBODY, gid=NOBODY)
        assert stacks_of_table(answer["stacks"]).threads[0].frames[-1].function == "<module>" and answer["stacks"]["pid"] == theirs
        assert "locals" not in json.dumps(answer)
        assert helper.asked(roots) == {"kind": "denied", "error": f"process {roots} is root's: stack-helper reads it with --for-uid 0 alone"}
        for ids in ({}, {"uid": NOBODY}, {"gid": NOBODY}):
            assert helper.asked(theirs, **ids) == {
                "kind": "denied", "error": f"process {theirs} is not wholly of the user and group who sent its telemetry "
                                           f"(uids {NOBODY}, gids {NOBODY}): it is not read"}
        assert helper.asked(theirs, start=1, uid=NOBODY, gid=NOBODY)["kind"] == "gone"
    assert helper.asked(theirs, start=1)["kind"] == "gone"
    with python(interpreters.for_user(NOBODY), **{**place, "user": 65533}) as other:
        assert helper.asked(other, uid=65533, gid=NOBODY) == {
            "kind": "denied", "error": f"process {other} is not Apache's: stack-helper reads it with --for-uid 65533 alone"}


@needs_root
def test_without_being_told_it_reads_apaches_processes_alone(service):
    real = interpreters.for_user(NOBODY)
    prefix = subprocess.run([real, "-c", "import sys; print(sys.base_prefix)"], stdout=subprocess.PIPE, check=True,
                            timeout=20, universal_newlines=True).stdout.strip()
    helper, place = service("--stacks-rate", "100"), dict(user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
    with short_folder() as folder:
        apache = shutil.copy(real, os.path.join(folder, "apache2"))     # what counts is which program runs, and that it is not root
        os.chmod(apache, 0o755)
        with python(apache, env={"PYTHONHOME": prefix, "LD_LIBRARY_PATH": prefix + "/lib"}, **place) as pid:
            assert helper.asked(pid, uid=NOBODY, gid=NOBODY)["stacks"]["pid"] == pid
    with python(real, **place) as pid:
        assert "is not Apache's" in helper.asked(pid, uid=NOBODY, gid=NOBODY)["error"]


# --- who may ask --------------------------------------------------------------------------

@needs_root
def test_only_those_who_were_named_may_ask(service):
    question = json.dumps({"pid": os.getpid(), "start": procfs.stat(os.getpid()).start, "uid": 0, "gid": os.getegid()})
    closed = service("--socket-mode", "0666", "--for-uid", "0")
    assert as_nobody(ASK, closed.path, question).strip() == b""
    assert closed.asked(os.getpid())["stacks"]["pid"] == os.getpid()
    closed.process.send_signal(signal.SIGTERM)
    assert closed.process.wait(10) == 0 and not os.path.exists(closed.path)
    said = closed.process.stderr.read().decode()
    assert f"uid {NOBODY} may not ask: start this with --allow-uid {NOBODY}" in said and "answered 1, turned away 1" in said
    opened = service("--socket-mode", "0666", "--for-uid", "0", "--allow-uid", "nobody")
    assert b'"stacks"' in as_nobody(ASK, opened.path, question)


def test_its_socket_has_its_mode_and_is_not_the_telemetry_socket_of_the_environment(service):
    helper = service("--socket-mode", "0600", environment={"MODWSGI_TEL_LISTEN": "unix:/nowhere/t.sock"})
    assert os.stat(helper.path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("options, said", [
    (("--for-uid", "nobody-of-this-name"), "--for-uid nobody-of-this-name: no such user; getent passwd lists them"),
    (("--listen", "unix:/nowhere/s"), "cannot bind /nowhere/s: there is no folder /nowhere; create it first"),
    (("--stacks-rate", "0"), "--stacks-rate '0': a number from 0.01 to 100"),
])
def test_a_mistake_is_one_line(options, said):
    done = subprocess.run([sys.executable, "-m", "modwsgi_tel", "stack-helper", *options], cwd=ROOT, env=clean_environment(), timeout=20,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"modwsgi-tel: {said}\n")


def test_a_user_is_named_or_numbered():
    assert (stackhelper.uid_of("root", "--x"), stackhelper.uid_of("4711", "--x")) == (0, 4711)
    with pytest.raises(UsageError):
        stackhelper.uid_of("no such", "--x")


@needs_root
def test_one_that_cannot_read_others_says_so_at_its_start_and_in_its_answers():
    with short_folder() as folder, python() as roots:
        sources = copy_of_the_sources(ROOT, os.path.join(folder, "sources"))
        os.chmod(folder, 0o777)
        process = subprocess.Popen(
            [interpreters.for_user(NOBODY), "-m", "modwsgi_tel", "stack-helper", "--listen", f"unix:{folder}/s", "--for-uid", "0"],
            user=NOBODY, group=NOBODY, extra_groups=[], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=sources,
            env=clean_environment())
        try:
            assert b"reads stacks" in process.stderr.readline()
            assert process.stderr.readline().decode().strip().endswith(
                "this has neither CAP_SYS_PTRACE nor CAP_DAC_READ_SEARCH: at most processes of its own user can be read; in its unit "
                "add AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ours:
                ours.settimeout(10)
                ours.connect(f"{folder}/s")
                ours.sendall(json.dumps({"pid": roots, "start": procfs.stat(roots).start, "uid": 0, "gid": 0}).encode() + b"\n")
                answer = json.loads(ours.recv(65536))
            assert (answer["kind"], f"cannot read process {roots}: it belongs to root" in answer["error"]) == ("refused", True)
        finally:
            process.kill()
            process.wait(10)
            process.stderr.close()


def test_what_it_may_not_look_at_is_refused_by_the_kernel_in_words(monkeypatch):
    """_not_allowed reads what takes as much access as the memory does."""
    def closed(path, most):
        if path.endswith("/maps"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, most)

    real = procfs.read
    monkeypatch.setattr(onetake.procfs, "read", closed)
    monkeypatch.setattr(onetake, "explain", lambda pid, error: f"explained {pid}")
    with python(user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", program=interpreters.for_user(NOBODY)) as pid:
        assert onetake.take((pid, procfs.stat(pid).start, NOBODY, NOBODY), (4711,)) == {"error": f"explained {pid}", "kind": "refused"}


@pytest.mark.parametrize("caps, said", [
    (1 << 19 | 1 << 2, ""), (1 << 19 | 1 << 1, ""), (1 << 40, "neither CAP_SYS_PTRACE nor CAP_DAC_READ_SEARCH"),
    (1 << 19, "no CAP_DAC_READ_SEARCH"), (1 << 2, "no CAP_SYS_PTRACE"), (0, "neither CAP_SYS_PTRACE nor CAP_DAC_READ_SEARCH")])
def test_what_it_takes_to_read_another_is_known(tmp_path, caps, said):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text(f"Name:\tx\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nCapEff:\t{caps:016x}\n")
    assert access.lacking(str(tmp_path)) == said


# --- what it survives ---------------------------------------------------------------------

@pytest.mark.parametrize("line", [
    b"\n", b"{}\n", b"[]\n", b"7\n", b'{"pid": 1}\n', b'{"pid": "1", "start": 1, "uid": 0, "gid": 0}\n', b'{"pid": 0, "start": 1, "uid": 0, "gid": 0}\n',
    b'{"pid": -1, "start": 1, "uid": 0, "gid": 0}\n', b'{"pid": true, "start": 1, "uid": 0, "gid": 0}\n', b'{"pid": 1e3, "start": 1, "uid": 0, "gid": 0}\n',
    b'{"pid": 99999999999999999999999, "start": 1, "uid": 0, "gid": 0}\n', b"\xff\xfe\n", b"[" * 200 + b"\n", b"x" * 5000, b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_question_is_answered_by_an_error(line):
    if line.endswith(b"\n"):
        with pytest.raises(ValueError):
            stackhelper.question_of(line)
    with short_folder() as folder:
        loop, log = Loop(), []
        made = stackhelper.Service(loop, log, os.path.join(folder, "s"))
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            ours.connect(os.path.join(folder, "s"))
            ours.sendall(line)
            ours.setblocking(False)
            out = []

            def read():
                with contextlib.suppress(BlockingIOError):
                    out.append(ours.recv(65536))
                    loop.stop()

            loop.readers[ours.fileno()] = read
            loop.after(5.0, loop.stop)
            loop.run()
            answer = json.loads(b"".join(out))
            assert (answer["kind"], set(answer)) == ("failed", {"error", "kind"}) and made.connections == set()
        finally:
            ours.close()
            made.close()
            loop.close()


def test_those_who_say_nothing_hold_no_more_than_the_bound_and_more_reads_than_the_rate_are_refused(service):
    helper = service("--stacks-rate", "2", "--for-uid", str(ME))
    held = [helper.connect() for _ in range(stackhelper.CONNECTIONS)]
    assert helper.said(b"") == b""                          # turned away
    for each in held:
        each.close()
    wait_until(lambda: len(os.listdir(f"/proc/{helper.process.pid}/fd")) < 10, 5, "descriptors stay open")
    kinds = [helper.asked(os.getpid()).get("kind", "read") for _ in range(6)]
    assert kinds[:2] == ["read", "read"] and "away" in kinds[2:]
    answer = next(each for each in iter(lambda: helper.asked(os.getpid()), None) if "error" in each)
    assert answer["error"] == "more than 2 reads a second: --stacks-rate bounds them"


def test_a_read_that_dies_hurts_nobody_else(monkeypatch):
    with short_folder() as folder:
        loop = Loop()
        made = stackhelper.Service(loop, [], os.path.join(folder, "s"), read_of=(ME,))
        monkeypatch.setattr(stackhelper, "take", lambda *_: os.abort())
        answers = []
        try:
            for work in (None, onetake.take):
                if work:
                    monkeypatch.setattr(stackhelper, "take", work)
                ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                ours.connect(os.path.join(folder, "s"))
                ours.sendall(json.dumps({"pid": os.getpid(), "start": procfs.stat(os.getpid()).start, "uid": ME,
                                         "gid": os.getegid()}).encode() + b"\n")
                out = []

                def read():
                    part = ours.recv(1 << 20)
                    out.append(part)
                    if not part:
                        loop.stop()

                loop.readers[ours.fileno()] = read
                loop.after(8.0, loop.stop)
                loop.run()
                del loop.readers[ours.fileno()]
                ours.close()
                answers.append(json.loads(b"".join(out)))
            assert answers[0] == {"error": "the process that read died, or took longer than 5 s", "kind": "failed"}
            assert answers[1]["stacks"]["pid"] == os.getpid()
        finally:
            made.close()
            loop.close()


# --- as systemd runs it -------------------------------------------------------------------

with open(os.path.join(ROOT, "modwsgi_tel", "extras", "static", "systemd", "modwsgi-tel-stacks.service"), encoding="utf-8") as unit:
    UNIT = unit.read()


@needs_root
def test_the_two_capabilities_of_the_unit_are_enough_and_both_are_needed(service):
    """What AmbientCapabilities= does, by setpriv: an ordinary user with these reads another's process."""
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv (apt-get install util-linux)")
    names = re.search(r"^AmbientCapabilities=(.*)$", UNIT, re.MULTILINE).group(1).lower().replace("cap_", "").split()
    with short_folder() as folder, python(interpreters.for_user(NOBODY), user=NOBODY, group=NOBODY, extra_groups=[], cwd="/") as pid:
        question = json.dumps([pid, procfs.stat(pid).start, NOBODY, NOBODY])
        shutil.copytree(os.path.join(ROOT, "modwsgi_tel"), folder + "/modwsgi_tel", ignore=shutil.ignore_patterns("__pycache__"))
        found = {}
        for left_out in (None, *names):
            caps = ",".join("+" + name for name in names if name != left_out)
            done = subprocess.run(
                ["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups", "--inh-caps", caps, "--ambient-caps", caps,
                 "--no-new-privs", interpreters.for_user(NOBODY), "-c", "import json, sys; from modwsgi_tel.onetake import take; "
                 "print(json.dumps(take(json.loads(sys.argv[1]))))", question],
                cwd=folder, timeout=20, stdout=subprocess.PIPE, check=True, env=clean_environment())
            found[left_out] = sorted(json.loads(done.stdout))
        assert found == {None: ["stacks"], **dict.fromkeys(names, ["error", "kind"])}
