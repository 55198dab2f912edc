"""Asking the agents of a process: the command `stacks --agent`, the collector for it, and whoever is in the way."""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import agent_target
import interpreters
import running
from modwsgi_tel import agentclient, takers
from modwsgi_tel.agent.control import PREFIX
from modwsgi_tel.errors import Nonsense, TelError
from modwsgi_tel.proc import procfs
from modwsgi_tel.stacks.model import Frame, Request, ThreadStack
from modwsgi_tel.stacks.reader import Reader
from builders import Worker
from running import ROOT, Collector, wait_until

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user: needs root")
SERVING = ["waits_for_the_lock", "application"]


class Target:
    """A running agent_target."""

    def __init__(self, folder, *arguments, **popen):
        self.process = subprocess.Popen([popen.pop("python", sys.executable), agent_target.__file__, str(folder), *map(str, arguments)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=running.clean_environment(), **popen)
        self.pid = self.process.pid
        try:
            self.told = json.loads(self.process.stdout.readline())
        except ValueError:
            self.close()
            raise

    def hold_the_gil(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        wait_until(lambda: os.path.getsize(self.told["file"]), 15, "its watchdog writes nothing")

    def close(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


@contextlib.contextmanager
def a_target(*arguments, **popen):
    with contextlib.closing(Target(*arguments, **popen)) as found:
        yield found


@pytest.fixture(scope="module")
def stuck(tmp_path_factory):
    with a_target(tmp_path_factory.mktemp("stuck"), 60, "stuck") as found:
        yield found


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A process whose GIL is held by a regular expression."""
    with a_target(tmp_path_factory.mktemp("held"), 0.3, "regex") as found:
        found.hold_the_gil()
        yield found


@contextlib.contextmanager
def an_impostor(name, answer=None, pid=None):
    """Listens under a name, in this process; answers with these bytes, or not at all."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind("\0" + name)
        listener.listen(8)

        def serves():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    got.append(client.recv(4096))
                    client.sendall(answer)
                    client.close()
        got = []
        thread = threading.Thread(target=serves, daemon=True)
        if answer is not None:
            thread.start()
        try:
            yield got
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            if answer is not None:
                thread.join(10)


def run(*arguments, **more):
    return subprocess.run([*more.pop("program", running.CHECKOUT), "stacks", *map(str, arguments)], cwd=more.pop("cwd", ROOT), timeout=60,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=running.clean_environment(), **more)


def own(thread):
    return [frame.function for frame in thread.frames if frame.file == agent_target.__file__ and frame.function in SERVING]


# --- asking -------------------------------------------------------------------------------------

def test_an_agent_tells_its_threads_with_their_requests(stuck):
    stacks = agentclient.stacks(stuck.pid)
    assert (stacks.pid, stacks.inner_pid, stacks.start, stacks.interpreters, stacks.problem) == (
        stuck.pid, None, procfs.stat(stuck.pid).start, (0,), None)
    assert agent_target.__file__ in stacks.command and stacks.python == "%d.%d.%d" % sys.version_info[:3]
    serving = sorted((thread for thread in stacks.threads if thread.request), key=lambda thread: thread.name)
    now = time.time()
    assert all(now - 100 < thread.request.started < now for thread in serving)
    assert [(thread.name, own(thread), thread.state, thread.request._replace(started=None)) for thread in serving] == [
        (f"request-{n}", SERVING, "waiting", Request(f"id-{n}", None, "GET", f"/slow/{n}", "agent")) for n in range(3)]


@needs_root
def test_its_frames_are_those_that_are_read_from_outside(stuck):
    inside = {thread.tid: thread.frames for thread in agentclient.stacks(stuck.pid).threads if thread.request}
    reader = Reader(stuck.pid)
    try:
        outside = {thread.tid: thread.frames for thread in reader.look().threads}
    finally:
        reader.close()
    assert len(inside) == 3 and inside == {tid: outside[tid] for tid in inside}


def test_variables_are_told_on_request(stuck):
    for wanted in (False, True):
        shown = [name for thread in agentclient.stacks(stuck.pid, wanted).threads for each in thread.values or () for name, _ in each]
        assert ("password" in shown) is wanted


def test_an_error_of_the_agent_is_told(stuck):
    with pytest.raises(TelError, match=f"process {stuck.pid}: its agent says: no such question"):
        agentclient.ask(stuck.pid, {"do": "nothing"})


def test_the_agents_of_all_interpreters_are_asked_and_put_together(tmp_path):
    with a_target(tmp_path, 60, "stuck", 7, 300) as target:
        assert agentclient.find(target.pid) == [f"{PREFIX}.{target.pid}.{number}" for number in (0, 7, 300)]
        assert len(agentclient.ask(target.pid, {"do": "state"})) == 3
        assert len([thread for thread in agentclient.stacks(target.pid).threads if thread.request]) == 9


# --- who is in the way --------------------------------------------------------------------------

def test_a_process_without_an_agent_is_told_of_with_what_to_do():
    with pytest.raises(agentclient.NoAgent, match=re.escape(
            f"no agent listens in process {os.getpid()}: its application needs agent.install()")):
        agentclient.stacks(os.getpid())


def test_a_process_that_has_ended_is_told_of():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(20)
    with pytest.raises(TelError, match=f"{process.pid}"):
        agentclient.stacks(process.pid)


def test_who_took_the_name_of_an_agent_is_asked_nothing():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with an_impostor(f"{PREFIX}.{process.pid}.0", b'{"stacks": 1}') as got, pytest.raises(agentclient.NoAgent):
            agentclient.stacks(process.pid)
        assert got in ([], [b""])


def test_a_squatter_does_not_hide_the_agent(tmp_path):
    # whose child's pid nobody knows before; so every name but the first is taken while it runs
    with a_target(tmp_path, 60, "stuck", 5) as target, contextlib.ExitStack() as squatters:
        for number in range(1, 40):
            if number != 5:
                squatters.enter_context(an_impostor(f"{PREFIX}.{target.pid}.{number}"))
        assert len(agentclient.ask(target.pid, {"do": "state"})) == 2


def good(**more):
    """An answer as an agent gives it, but for some of its values."""
    thread = {"tid": 1, "name": "t", "interpreter": 0, "owns_gil": None, "state": "waiting", "wait": None, "cpu_s": None, "idle": False,
              "problem": None, "request": None, "frames": [0], **more.pop("thread", {})}
    stacks = {"pid": 1, "inner_pid": None, "start": None, "command": "", "python": "3.11.7", "interpreters": [0], "problem": None, "at": 1.0,
              "threads": [thread], "table": [["f", "a.py", 1, 0]], **more.pop("stacks", {})}
    return {"stacks": stacks, "elsewhere": 0, **more}


def test_an_answer_as_it_should_be_is_taken():
    [thread] = agentclient._merged(7, [good()], None).threads
    assert thread == ThreadStack(1, "t", 0, None, "waiting", frames=(Frame("f", "a.py", 1, 0),))


@pytest.mark.parametrize("answer", [
    {}, {"stacks": 7, "elsewhere": 0}, good(elsewhere=None), good(elsewhere=-1), good(stacks={"python": 3}), good(stacks={"interpreters": ["x"]}),
    good(stacks={"at": None}), good(stacks={"at": 1e300}), good(stacks={"at": float("nan")}), good(stacks={"problem": 7}),
    good(stacks={"threads": 7}), good(stacks={"threads": [None]}), good(stacks={"table": [["f"]]}), good(stacks={"table": [[1, "a", 1, 0]]}),
    good(stacks={"table": [["f", None, 1, 0]]}), good(stacks={"table": [["f", "a", "1", 0]]}), good(stacks={"table": [["f", "a", -1, 0]]}),
    good(stacks={"table": [["f", "a", 1, True]]}), good(thread={"tid": "1"}), good(thread={"name": 1}), good(thread={"frames": [9]}),
    good(thread={"frames": [0.5]}), good(thread={"request": {"x": 1}}), good(thread={"problem": 7}), good(thread={"wait": 7}),
    good(thread={"request": {"request_id": 7, "thread_id": 1, "method": "GET", "path": "", "how": "x"}}),
    good(thread={"interpreter": 1 << 70}), *(good(thread={"request": {
        **dict.fromkeys(("request_id", "thread_id", "method", "path")), "how": "x", **each}}) for each in (
            {"started": "now"}, {"started": 1e300}, {"started": True}, {"queued_s": -1.0}, {"queued_s": float("nan")}, {"process_group": 7},
            {"application_group": []})),
])
def test_an_answer_of_anything_else_is_nonsense(answer):
    with pytest.raises(Nonsense, match="the agent in process 7 answers with what are no stacks"):
        agentclient._merged(7, [answer], None)


def test_what_an_agent_claims_beyond_what_it_knows_is_not_believed():
    [thread] = agentclient._merged(7, [good(thread={"owns_gil": True, "idle": True, "state": "x\x1b", "cpu_s": 1e9, "name": "\ud800" * 5000})],
                                   None).threads
    assert (thread.owns_gil, thread.idle, thread.state, thread.cpu_s, thread.name) == (None, False, "unknown", None, "?" * 2000)


@pytest.mark.parametrize("data", [b"nonsense\n", b"[1]\n", b"[" * 100000, b'{"stacks": ' + b"[" * 100000])
def test_an_answer_that_is_no_json_is_nonsense(data):
    with pytest.raises(Nonsense, match="is no agent of modwsgi-tel"):
        agentclient._answer(7, data)


def test_threads_of_interpreters_without_an_agent_are_told_of():
    assert agentclient._merged(7, [good(elsewhere=3)], None).problem == "threads in interpreters without an agent: 3"
    assert agentclient._merged(7, [good(elsewhere=1), good(elsewhere=1)], None).problem is None


def test_a_process_that_stands_still_is_not_waited_for(tmp_path):
    with a_target(tmp_path, 60, "stuck") as target:
        target.process.send_signal(signal.SIGSTOP)
        with pytest.raises(agentclient.NoAnswer, match="does not answer within 0.2 s: C code may hold its GIL.*written nothing"):
            agentclient.stacks(target.pid, timeout=0.2)
        with contextlib.ExitStack() as clients:
            for _ in range(20):         # until nobody can connect any more
                client = clients.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                with contextlib.suppress(BlockingIOError):
                    client.connect("\0" + target.told["names"][0])
            with pytest.raises(agentclient.NoAnswer, match="does not answer: C code"):
                agentclient.stacks(target.pid, timeout=0.2)


@needs_root
def test_another_user_is_hung_up_on_and_told_who_may_ask(stuck):
    python = interpreters.for_user(NOBODY)
    with running.short_folder() as folder:
        sources = running.copy_of_the_sources(ROOT, os.path.join(folder, "sources"))
        told = run(stuck.pid, "--agent", program=(python, "-m", "modwsgi_tel"), user=NOBODY, group=NOBODY, extra_groups=[], cwd=sources)
    assert (told.returncode, told.stdout) == (2, "")
    assert f"the agent in process {stuck.pid} hangs up on nobody: it answers root, its own user and the owner" in told.stderr


# --- while the GIL is held ----------------------------------------------------------------------

def test_while_the_gil_is_held_what_the_watchdog_wrote_is_told_and_names_the_regular_expression(held):
    stacks = agentclient.stacks(held.pid, timeout=0.2)
    assert re.fullmatch("the agent does not answer, so C code may hold the GIL: this is what its watchdog wrote [0-9]+ s ago, without "
                        "names and requests", stacks.problem)
    [thread] = [thread for thread in stacks.threads if any(frame.function == "holds_the_gil" for frame in thread.frames)]
    line = agent_target.holds_the_gil.__code__.co_firstlineno + 1
    assert (thread.frames[0].function, Frame("holds_the_gil", agent_target.__file__, line) in thread.frames) == ("match", True)


def test_a_file_that_is_no_watchdogs_of_this_process_is_not_read(held, tmp_path):
    name = os.path.basename(held.told["file"])
    text = 'Timeout (0:00:05)!\nThread 0x1 (most recent call first):\n  File "a", line 3 in forged\n'
    precious = tmp_path / "precious"
    precious.write_text(text)
    (tmp_path / name).symlink_to(precious)
    (tmp_path / f"{PREFIX}.1.0.dump").write_text(text)
    old = tmp_path / f"{PREFIX}.{held.pid}.1.dump"
    old.write_text(text)
    os.utime(old, (1.0, 1.0))           # of a former process with this pid
    paths = [str(path) for path in tmp_path.iterdir()]
    assert [list(agentclient._dump(path, held.pid, os.O_NOFOLLOW)) for path in paths if not path.endswith(("precious", f"{PREFIX}.1.0.dump"))] == [
        [], []]
    assert all("forged" not in str(thread.frames) for thread in agentclient.dumped(held.pid, paths).threads)


def test_the_command_says_that_it_is_the_watchdogs(held):
    told = run(held.pid, "--agent")
    assert told.returncode == 0 and "this is what its watchdog wrote" in told.stdout
    assert "in holds_the_gil\n    return re.match(r\"(a+)+$\", CATASTROPHE)\n" in told.stdout


# --- the command --------------------------------------------------------------------------------

def test_the_command_shows_what_the_agent_tells_as_text_and_as_json(stuck):
    told = run(stuck.pid, "--agent")
    assert (told.returncode, told.stderr) == (0, "")
    assert "in waits_for_the_lock\n    with LOCK:\n" in told.stdout and "request id-1 GET /slow/1" in told.stdout
    [found] = json.loads(run(stuck.pid, "--agent", "--json", "--locals").stdout)
    assert found["pid"] == stuck.pid
    assert {thread["request"]["request_id"] for thread in found["threads"] if thread["request"]} == {"id-0", "id-1", "id-2"}
    assert "swordfish" not in json.dumps(found) and '"password"' in json.dumps(found)


def test_several_looks_show_what_stayed(stuck):
    told = run(stuck.pid, "--agent", "--interval", "0.1", "--count", "2")
    assert told.returncode == 0 and "2 looks" in told.stdout


@pytest.mark.parametrize("arguments, said", [
    (("--stop",), "--agent asks: nothing is held"), (("--core", "x"), "--core reads a file"), ((), "no agent listens in process")])
def test_what_does_not_go_together_or_is_not_there_is_told_in_one_line(arguments, said):
    told = run(*([] if "--core" in arguments else [os.getpid()]), "--agent", *arguments)
    assert (told.returncode, told.stdout, told.stderr.count("\n")) == (2, "", 1) and said in told.stderr


# --- the collector ------------------------------------------------------------------------------

def question(pid, files=()):
    return [list(files), pid, procfs.stat(pid).start, os.geteuid(), os.getegid()]


def test_a_helper_process_of_the_collector_asks_the_agent(stuck):
    data = takers.take_by_agent(question(stuck.pid))["stacks"]
    assert sorted(thread["request"]["path"] for thread in data["threads"] if thread["request"]) == ["/slow/0", "/slow/1", "/slow/2"]
    assert takers.take_by_agent(question(os.getpid()))["kind"] == "failed"
    wrong = question(stuck.pid)
    wrong[2] -= 1
    assert takers.take_by_agent(wrong)["kind"] == "gone"


def test_the_collector_asks_the_agent_when_somebody_wants_that(tmp_path):
    with Collector("--stacks-post", "on") as collector, a_target(tmp_path, 60, "stuck", collector.socket) as target:
        path = f"/api/stacks?pid={target.pid}"
        collector.wait_for("/api/processes", lambda found: found["processes"])
        wait_until(lambda: collector.post(path + "&agent=1")[0] == 202, 15, "never 202", 0.1)
        [row] = collector.wait_for(path, lambda found: found["processes"])
        assert (row["why"], row["pid"]) == ("agent", target.pid)
        assert sorted(thread["request"]["path"] for thread in row["threads"] if thread["request"]) == ["/slow/0", "/slow/1", "/slow/2"]


def test_who_has_not_announced_an_agent_is_not_asked(tmp_path):
    with Collector("--stacks-post", "on") as collector:
        worker = Worker(os.getpid())
        collector.send(worker.started(), worker.tick(1))
        collector.wait_for("/api/processes", lambda found: found["processes"])

        def refused():
            status, _, body = collector.post(f"/api/stacks?pid={os.getpid()}&agent=1")
            return status == 409 and "ask again in a second" not in json.loads(body)["error"] and json.loads(body)["error"]
        assert wait_until(refused, 15, "never refused", 0.1) == (
            f"no agent in pid {os.getpid()} has announced itself: its application needs agent.install() or agent.middleware()")
