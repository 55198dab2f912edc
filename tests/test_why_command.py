"""The command `why` as an operator types it: on a server that is well, where there is none, and where hardly anything may be seen."""
import contextlib
import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile

import pytest

import apache
import interpreters
import running
import staging

NOBODY = 65534
GUNICORN = "/usr/bin/gunicorn"
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
PARKED = "import time\nprint('ready', flush=True)\ntime.sleep(600)\n"
KEYS = {"id": str, "severity": str, "group": (str, type(None)), "pid": (int, type(None)), "since": (float, type(None)), "text": str, "evidence": list, "advice": str}


def run(*options, before=(), program=running.CHECKOUT, cwd=running.ROOT, **more):
    """`why`, for a short look and with no collector; before: what starts it."""
    nobody = ["--url", f"http://127.0.0.1:{running.free_port()}"] if "--url" not in options and "--http-socket" not in options else []
    look = ["--duration", "0.6"] if "--duration" not in options else []
    done = subprocess.run([*before, "env", f"--chdir={cwd}", *program, "why", *map(str, options), *nobody, *look], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, env=running.clean_environment(PATH=apache.PATH), encoding="utf-8", **more)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert "mistake of modwsgi-tel" not in done.stderr + done.stdout, done.stdout
    return done


def is_one_line(done, said):
    assert (done.returncode, done.stdout) == (2, ""), done
    assert re.fullmatch(f"modwsgi-tel: {said}\n", done.stderr), done.stderr
    return True


def strict(text):
    def refuse(word):
        raise ValueError(word)
    return json.loads(text, parse_constant=refuse)


class Room:
    """Namespaces with no process but what is started there.  `enter`: what runs a command in them."""

    def __init__(self):
        if os.geteuid():
            pytest.skip("only root can make namespaces")
        self._init = subprocess.Popen([*UNSHARE, "sh", "-c", "echo ready; exec sleep 600"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE)
        self._others = []

    def __enter__(self):
        if self._init.stdout.readline() != b"ready\n":
            pytest.skip("no namespaces here: " + self._init.stderr.read().decode("utf-8", "replace"))
        with open(f"/proc/{self._init.pid}/task/{self._init.pid}/children") as file:
            [inner] = file.read().split()
        self.enter = ("nsenter", "--target", inner, "--pid", "--mount", "--")
        return self

    def start(self, *command, **more):
        self._others.append(subprocess.Popen([*self.enter, *command], stdin=subprocess.DEVNULL, **{"stderr": subprocess.DEVNULL, **more}))
        return self._others[-1]

    def __exit__(self, *_):
        self._init.kill()               # and with it all that runs there
        for each in (self._init, *self._others):
            each.wait(20)
            for stream in (each.stdout, each.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture(scope="module")
def served():
    """A Room in which a gunicorn with two workers has answered; `group`: its name."""
    if not os.path.exists(GUNICORN):
        pytest.skip("no gunicorn (apt-get install gunicorn)")
    with Room() as room:
        room.port, room.group = running.free_port(), "hello:application"
        room.log = tempfile.TemporaryFile()
        room.start(GUNICORN, "--bind", f"127.0.0.1:{room.port}", "--workers", "2", "--threads", "2", "--worker-class", "gthread", "--chdir", staging.APPS,
                   room.group, stdout=subprocess.DEVNULL, stderr=room.log, env={**apache.environment(), "PYTHONDONTWRITEBYTECODE": "1"})
        running.wait_until(lambda: answers(room.port), 20, "gunicorn does not answer")
        running.wait_until(lambda: len(json.loads(run("--json", before=room.enter).stdout or '{"processes": []}')["processes"]) == 2, 20, "no two workers")
        yield room
        room.log.close()


def answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture
def parked():
    """A Python process that waits."""
    process = subprocess.Popen([sys.executable, "-c", PARKED], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="module")
def for_all():
    """(a Python, a folder with the package) that any user may run."""
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    python = interpreters.for_user(NOBODY)
    with running.short_folder() as folder:
        yield (python, "-m", "modwsgi_tel"), running.copy_of_the_sources(running.ROOT, os.path.join(folder, "sources"))


def as_nobody(for_all, enter=()):
    program, folder = for_all
    return {"before": (*enter, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"), "program": program, "cwd": folder}


# --- a server that is well --------------------------------------------------------------------------

def test_a_healthy_server_is_quiet_in_a_few_lines(served):
    done = run(before=served.enter)
    assert (done.returncode, done.stderr) == (0, "")
    head, servers, *rest = done.stdout.splitlines()
    assert re.fullmatch(r"all quiet on \S+, \d\d:\d\d:\d\d; looked for \d+ ms at 2 processes with \d threads|all quiet on \S+, .* at 2 processes with \d threads", head), head
    assert servers == "servers: hello:application (2 processes)"
    assert rest[:2] == ["", "not known:"] and rest[2].startswith("  - no telemetry (http://127.0.0.1:") and len(rest) <= 5, rest


def test_json_is_strict_and_has_the_keys_that_scripts_rely_on(served):
    done = run("--json", before=served.enter)
    said = strict(done.stdout)
    assert (done.returncode, done.stdout.isascii(), done.stdout.count("\n")) == (0, True, 1)
    assert (said["type"], said["version"], said["findings"], said["notes"]) == ("why", 1, [], [])
    assert all(isinstance(line, str) for line in said["unknown"])
    assert {(each["group"], each["role"], each["server"]) for each in said["processes"]} == {(served.group, "worker", "gunicorn")}
    assert all(each["looks"] >= 2 for each in said["processes"])


def test_one_group_or_one_process_can_be_asked_for(served):
    assert "at 2 processes" in run("--group", served.group, before=served.enter).stdout
    pid = strict(run("--json", before=served.enter).stdout)["processes"][0]["pid"]
    said = strict(run("--json", "--pid", pid, before=served.enter).stdout)
    assert [each["pid"] for each in said["processes"]] == [pid]


def test_a_group_that_is_not_there_is_answered_with_those_that_are(served):
    assert is_one_line(run("--group", "shop", before=served.enter), "no process of group shop; there are: hello:application")


def test_a_finding_has_the_keys_that_scripts_rely_on(served, tmp_path):
    path = tmp_path / "error.log"
    path.write_text("[2099-01-01 00:00:00 +0000] [7] [ERROR] Worker (pid:9) was sent SIGSEGV!\n")
    done = run("--json", "--log", path, before=served.enter)
    said = strict(done.stdout)
    [finding] = said["findings"]
    assert done.returncode == 1 and (finding["id"], finding["severity"]) == ("crash", "critical")
    assert all(isinstance(finding[name], kind) for name, kind in KEYS.items()), finding
    shown = run("--log", path, before=served.enter)
    assert shown.returncode == 1 and shown.stdout.startswith("1 finding on ") and "\nCRITICAL [crash] " in shown.stdout and "\n  what to do: " in shown.stdout


# --- a user who may not see all ------------------------------------------------------------------------

def test_an_ordinary_user_is_told_what_could_not_be_seen_and_it_is_not_called_quiet(for_all):
    with Room() as room:
        process = room.start(apache.SYSTEM_PYTHON, "-c", PARKED, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        done = run(**as_nobody(for_all, room.enter))
        said = strict(run("--json", **as_nobody(for_all, room.enter)).stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("nothing found, but nothing of the code could be seen: ") and "quiet" not in done.stdout
    shown = " ".join(done.stdout.split())
    assert "at 1 process with 1 thread, as a user who may not see all servers: python (1 process) not known: " in shown
    assert re.search(r" - stacks of pid \d+: cannot read process \d+: it belongs to root, this is nobody; run as root, or with CAP_SYS_PTRACE ", shown), shown
    assert said["findings"] == [] and [each["looks"] for each in said["processes"]] == [0]
    assert [line for line in said["unknown"] if line.startswith("stacks of pid")]


def test_where_proc_is_hidden_from_a_user_it_is_one_line(served, for_all):
    hide = ("unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh")
    if subprocess.run([*served.enter, *hide, "true"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30).returncode:
        pytest.skip("/proc cannot be mounted here")
    assert is_one_line(run(**as_nobody(for_all, (*served.enter, *hide))), "no Apache, gunicorn, uWSGI or other Python server runs here.*; run as root.*")
    assert run(before=(*served.enter, *hide)).returncode == 0


def test_without_proc_it_is_one_line(served):
    cover = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
    assert is_one_line(run(before=(*served.enter, *cover)), r"there is no /proc here: mount it \(mount -t proc proc /proc\)")
    assert is_one_line(run("--pid", 1, before=(*served.enter, *cover)), "there is no /proc here.*")


def test_where_there_is_no_server_it_is_one_line():
    with Room() as room:
        for options in ((), ("--json",)):
            assert is_one_line(run(*options, before=room.enter), "no Apache, gunicorn, uWSGI or other Python server runs here")
        assert is_one_line(run("--pid", 1, before=room.enter), "process 1 is none of a Python server, or there is none of that pid; see modwsgi-tel processes")
        assert is_one_line(run("--group", "shop", before=room.enter), "no process of group shop")


# --- what cannot be meant ------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong", (["--duration", "0"], ["--duration", "soon"], ["--duration", "nan"], ["--duration", "-1"], ["--duration", "1e300"],
                                   ["--since", "0"], ["--since", "x"], ["--since", "inf"], ["--since", ""], ["--pid", "x"], ["--pid", "0"], ["--pid", "-5"],
                                   ["4711"], ["--no-such"]), ids=" ".join)
def test_what_cannot_be_meant_is_one_line(wrong):
    assert is_one_line(run(*wrong, *([] if "--duration" in wrong else ["--duration", "0.2"])), "[^\n]+")


def test_a_process_that_is_none_is_one_line():
    assert is_one_line(run("--pid", 4194303), "process 4194303 is none of a Python server, or there is none of that pid; see modwsgi-tel processes")


# --- collectors that are none ------------------------------------------------------------------------------

ANSWERS = """import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
held = []
while True:
    connection, _ = listener.accept()
    held.append(connection)
    connection.recv(65536)
    if sys.argv[1] != "silence":
        connection.sendall(bytes.fromhex(sys.argv[1]))
        connection.close()
"""


@contextlib.contextmanager
def answering(answer):
    """The URL of a port where each who asks is answered with these bytes; None: with nothing.  In a process of its own: who listens is a server."""
    process = subprocess.Popen([sys.executable, "-c", ANSWERS, "silence" if answer is None else answer.hex()], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def as_http(value, status="200 OK"):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status.encode(), len(body), body)


SUMMARY = {"type": "summary", "totals": {}, "groups": [], "collector": {}, "findings": []}
NONSENSE = {"no HTTP": b"\x00\x01 SSH-2.0-OpenSSH\r\n", "nothing": b"", "silence": None, "no JSON": as_http(b"<html>hello</html>"), "a list": as_http([]), "null": as_http(None),
            "another JSON": as_http({"status": "ok"}), "groups that are none": as_http({**SUMMARY, "groups": [1, None]}),
            "findings that are none": as_http({**SUMMARY, "findings": {"id": 7}}), "findings without keys": as_http({**SUMMARY, "findings": [{"id": "x"}]}),
            "refusal": as_http({"error": "token"}, "401 Unauthorized"), "failure": as_http(b"x", "500 Oops"), "cut": as_http(SUMMARY)[:-20]}


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_collector_that_is_none_is_said_and_the_rest_goes_on(parked, kind):
    with answering(NONSENSE[kind]) as url:
        done = run("--json", "--pid", parked.pid, "--url", url, "--timeout", "0.5", "--duration", "0.2")
    assert done.stderr == ""
    said = strict(done.stdout)
    assert [(each["pid"], each["looks"] > 0) for each in said["processes"]] == [(parked.pid, True)]
    lines = [line for line in said["unknown"] if "telemetry" in line]
    assert len(lines) == 1 and lines[0].startswith("no telemetry (") and lines[0].endswith("): response times, queue times and what was before are not known from it"), said
    assert url.partition("//")[2] in lines[0] or kind == "refusal", lines


@pytest.mark.parametrize("options", (["--url", "https://x"], ["--url", "no url at all"], ["--http-socket", "/none/such.sock"], ["--token-file", "/none/such"]),
                         ids=" ".join)
def test_a_collector_that_cannot_be_asked_is_said_and_the_rest_goes_on(parked, options):
    said = strict(run("--json", "--pid", parked.pid, *options, "--duration", "0.2").stdout)
    assert len([line for line in said["unknown"] if line.startswith("no telemetry (")]) == 1 and said["processes"][0]["looks"] > 0, said


# --- what happens meanwhile ------------------------------------------------------------------------------------

@contextlib.contextmanager
def on_a_terminal(*options):
    """`why` whose stderr is a terminal, once it looks: (the process, what reads that terminal)."""
    ours, theirs = os.openpty()
    process = subprocess.Popen([*running.CHECKOUT, "why", *map(str, options), "--url", f"http://127.0.0.1:{running.free_port()}"], cwd=running.ROOT,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, env=running.clean_environment(), start_new_session=True)
    os.close(theirs)
    said = bytearray()

    def read():
        while select.select([ours], [], [], 0)[0]:
            try:
                more = os.read(ours, 65536)
            except OSError:             # EIO: nobody has its other end any more
                break
            if not more:
                break
            said.extend(more)
        return said.decode()

    try:
        running.wait_until(lambda: "looking for " in read(), 20, lambda: "it does not look: " + read())
        yield process, read
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdout.close()
        os.close(ours)


@pytest.mark.parametrize("number, name", ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")))
def test_an_early_end_judges_what_was_seen(parked, number, name):
    with on_a_terminal("--pid", parked.pid, "--duration", "10m") as (process, read):
        process.send_signal(number)
        shown, _ = process.communicate(timeout=30)
        said = read()
    assert said.replace("\r\n", "\n") == f"modwsgi-tel: looking for 10 min at 1 process ...\nmodwsgi-tel: ended early by {name}: what was seen until then is judged\n" or (
        said.endswith(f"modwsgi-tel: ended by {name} before anything was seen\r\n") and process.returncode == 2)
    assert process.returncode in (0, 1, 2) and b"Traceback" not in shown and "Traceback" not in said


def test_a_process_that_ends_meanwhile_is_said(parked):
    with on_a_terminal("--pid", parked.pid, "--duration", "1") as (process, read):
        parked.kill()
        parked.wait(10)
        shown, _ = process.communicate(timeout=30)
    said = " ".join(shown.decode().split())
    assert process.returncode in (0, 1, 2) and f"process {parked.pid} ended while it was looked at" in said and "mistake" not in said, said


def test_processes_that_come_and_go_are_no_trouble(served):
    churn = "import subprocess, sys\nprint('ready', flush=True)\nwhile True: subprocess.run([sys.executable, '-S', '-c', 'pass'])\n"
    process = served.start(apache.SYSTEM_PYTHON, "-c", churn, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    try:
        done = run("--json", "--duration", "1.5", before=served.enter)
    finally:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            os.kill(int(file.read().split()[0]), signal.SIGKILL)
    said = strict(done.stdout)
    assert not [each for each in said["findings"] if each["severity"] != "info"] or {each["id"] for each in said["findings"]} == {"neighbour"}, said
    assert [line for line in said["unknown"] if not line.startswith(("no telemetry", "the kernel's log"))] == []


def test_a_reader_that_has_gone_is_no_mess(parked):
    command = '"$@" | true; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(["bash", "-c", command, "bash", *running.CHECKOUT, "why", "--pid", str(parked.pid), "--duration", "0.2"], cwd=running.ROOT,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, env=running.clean_environment(), encoding="utf-8")
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_a_process_that_a_server_has_started_is_not_one_that_serves():
    listens = "import socket, subprocess\nlistener = socket.create_server(('127.0.0.1', 0))\nchild = subprocess.Popen(['sleep', '600'])\nprint(child.pid, flush=True)\nchild.wait()\n"
    with Room() as room:
        child = int(room.start(apache.SYSTEM_PYTHON, "-c", listens, stdout=subprocess.PIPE).stdout.readline())
        assert is_one_line(run("--pid", child, before=room.enter), rf"process {child} serves nothing itself: process \d+ has started it; see modwsgi-tel inspect {child}")
        assert run(before=room.enter).stdout.splitlines()[1] == "servers: python (1 process)"
