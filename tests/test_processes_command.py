"""The command `processes`: on servers that run, with and without a collector, and what is said when it cannot be done."""
import contextlib
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

import apache
import wsgiservers
from running import CHECKOUT, ROOT, Collector, clean_environment, wait_until
from trees import by_id, every

APP = '''
import subprocess, threading, time
NEVER = threading.Event()
def behind(environ):
    NEVER.wait()
def helps(environ):
    NEVER.wait()
def housekeeping():
    time.sleep(3600.0)
def streams():
    yield b"first"
    NEVER.wait()
def application(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    for wanted, target, arguments in (("/left", behind, (environ,)), ("/helped", helps, (environ,)), ("/house", housekeeping, ())):
        if path == wanted:
            threading.Thread(target=target, args=arguments, name=wanted[1:], daemon=True).start()
    if path == "/child":
        subprocess.Popen(["sleep", "1000"])
    if path in ("/sleep", "/helped"):
        time.sleep(3600.0)
    if path == "/stream":
        return streams()
    return [b"ok"]
'''
SLEEPS = APP.splitlines().index("        time.sleep(3600.0)") + 1
GROUP = "left-%d" % os.getpid()         # others may test here at the same time
REQUIRED = os.environ.get("MODWSGI_TEL_TEST_REQUIRE", "")


def run(*arguments, program=CHECKOUT, **more):
    more.setdefault("env", clean_environment())
    return subprocess.run([*program, "processes", *map(str, arguments)], cwd=ROOT, stdin=subprocess.DEVNULL, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, **more)


def tree(*arguments, status=0):
    told = run("--json", *arguments)
    assert told.returncode == status, (told.stdout[-2000:], told.stderr)
    return json.loads(told.stdout)


@pytest.fixture
def app(tmp_path):
    path = tmp_path / "left.py"
    path.write_text(APP)
    return str(path)


def missing(reason):
    if "apache" in REQUIRED:
        pytest.fail("no real server, and it is required: %s" % reason)
    pytest.skip("no real server: %s" % reason)


@contextlib.contextmanager
def serving(app, **more):
    """A real Apache with requests of every kind under way: (server, pid of its daemon)."""
    try:
        server = apache.Sites(None if "module" in more else apache.express(), app=app, group=GROUP, sites={"main": "%{GLOBAL}", "site-a": "site-a"}, **more)
    except apache.Missing as reason:
        missing(reason)
    with server:
        for path in ("/main/left", "/main/house", "/main/child"):
            assert server.get(path) == 200
        client = apache.Client(server)
        for path in ("/main/sleep", "/site-a/sleep", "/site-a/helped"):
            client.start(path)
        [daemon] = server.daemons()
        try:
            yield server, daemon
        finally:
            for node in every(tree("--pid", daemon)["nodes"]):
                if node.get("role") == "helper":        # what the application started outlives Apache
                    os.kill(node["pid"], signal.SIGKILL)


def requests(answer):
    """{path: node} of the requests that are served."""
    return {node["path"]: node for node in every(answer["nodes"]) if node["kind"] == "request" and not node["ended"]}


def settled(daemon, *arguments):
    """The tree of a daemon, once all its requests are where they stay, and it is sure which one has ended."""
    def looked():
        found = tree("--pid", daemon, *arguments)
        served = requests(found).values()
        there = len(served) == 3 and {node["function"] for node in served} == {"application"} and f"p{daemon}.dead" in by_id(found)
        return found if there else None
    return wait_until(looked, 20, lambda: run("--pid", daemon, *arguments).stdout)


def check_apache(server, daemon, answer):
    nodes, served = by_id(answer), requests(answer)
    process, group = nodes[f"p{daemon}"], nodes[f"p{server.process.pid}.g:{GROUP}"]
    assert (process["role"], process["parent"], group["label"], group["parent"]) == ("daemon", group["id"], GROUP, f"p{server.process.pid}")
    assert (nodes[f"p{server.process.pid}"]["kind"], process["requests"], answer["unread"]) == ("server", 3, 0)
    assert {path: (nodes[node["parent"]]["interpreter"], nodes[node["parent"]]["application_group"], node["phase"]) for path, node in served.items()} == {
        "/main/sleep": (0, "", "in the application"), "/site-a/sleep": (1, "site-a", "in the application"), "/site-a/helped": (1, "site-a", "in the application")}
    assert all(0 <= node["age_s"] < 60 and node["request_id"] and node["line"] == SLEEPS for node in served.values())
    helped = [node for node in served["/site-a/helped"]["children"] if node["how"]]
    assert [(node["label"], node["count"], node["how"]) for node in helped] == [("helps", 1, "in the background")]
    [left] = nodes[f"p{daemon}.dead"]["children"]
    assert (left["path"], left["thread"], left["function"], left["ended"]) == ("/main/left", "left", "behind", True)
    unassociated = nodes[f"p{daemon}.unassociated"]["children"]
    assert [(node["label"], node["count"]) for node in unassociated] == [("housekeeping", 1)]
    [child] = [node for node in nodes.values() if node.get("role") == "helper"]
    assert (child["name"] if "name" in child else child["label"], child["parent"], child["outlives"]) == ("sleep", process["id"], False)


@pytest.mark.apache
@pytest.mark.parametrize("more", [{}, {"module": wsgiservers.MOD_WSGI}], ids=["6.1.1", "4.9.4"])
def test_a_real_apache_without_a_collector(app, more):
    if "module" in more and not os.path.exists(more["module"]):
        missing("no libapache2-mod-wsgi-py3")
    with serving(app, **more) as (server, daemon):
        answer = settled(daemon)
        check_apache(server, daemon, answer)
        assert [text.partition(":")[0] for text in answer["missing"]] == ["what telemetry tells"]
        whole = tree("--group", GROUP, "--stacktraces", "--flat", "--no-system", "--sort", "age")
        # totals are of all that there is, at whatever time: others may be started meanwhile
        assert whole["totals"]["requests"] >= 3 and not any("children" in node or node["system"] for node in whole["nodes"])
        stack = next(node for node in whole["nodes"] if node["kind"] == "stack" and node["count"] == 2)
        assert stack["label"] == "application" and [frame["line"] for frame in stack["frames"]] == [SLEEPS]
        ages = [node["age_s"] for node in whole["nodes"] if node["kind"] in ("process", "request") and node["age_s"] is not None]
        assert ages == sorted(ages, reverse=True)
        text = run("--pid", daemon).stdout
        for pattern in (rf"^  daemon process group {GROUP}: 1 process  3 requests, the oldest for ", rf"^    {daemon}  up .*  3 requests",
                        r"^        GET /main/sleep  for \S+ \S+  thread \d+  request \S+\n          at \S+left\.py:\d+ application  waits in ",
                        r"^      \(dead process\)  work that goes on after its request has ended\n        GET /main/left ", r"^      \(unassociated\)  1 thread "):
            assert re.search(pattern, text, re.M), (pattern, text)


class Untitled(apache.Sites):
    """With a second daemon process group, and without display-name: its daemons look like Apache's children."""

    titled = b""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, more="WSGIDaemonProcess second-%s threads=2" % GROUP, **more)
        path = os.path.join(self.folder, "httpd.conf")
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(text.replace("display-name=%{GROUP}", ""))

    @property
    def processes(self):
        """Those that are there: who waits for them has waited for an answer already."""
        return len(self.daemons())

    @processes.setter
    def processes(self, number):
        pass


@pytest.mark.apache
def test_daemons_without_a_display_name_are_named_by_the_configuration_and_the_socket_that_they_keep(app):
    if not os.path.exists(wsgiservers.MOD_WSGI):
        missing("no libapache2-mod-wsgi-py3")
    with Untitled(None, app=app, group=GROUP, sites={"main": "%{GLOBAL}"}, module=wsgiservers.MOD_WSGI) as server:
        apache.Client(server).start("/main/sleep")

        def daemons(*arguments):
            """{pid: (group, how many requests it serves)}, as the command has it."""
            told = run("--json", *(arguments or ("--pid", server.process.pid)))
            found = every(json.loads(told.stdout)["nodes"]) if told.returncode == 0 else ()
            return {node["pid"]: (node["group"], node["requests"]) for node in found if node.get("role") == "daemon"}

        # others' sockets that come and go may hide a daemon for a moment
        wanted = [(GROUP, 1), ("second-" + GROUP, 0)]
        seen = wait_until(lambda: (lambda found: sorted(found.values()) == wanted and found)(daemons()), 20, lambda: str(daemons()))
        for pid, (group, requests_of_it) in seen.items():
            wait_until(lambda: daemons("--group", group) == {pid: (group, requests_of_it)}, 20, lambda: str(daemons("--group", group)))


@pytest.mark.apache
def test_a_real_apache_with_a_collector(app):
    with Collector("--stacks-rate", "20") as collector:
        os.chmod(collector.socket, 0o666)
        where = "--url", f"http://127.0.0.1:{collector.port}"
        with serving(app, socket=collector.socket) as (server, daemon):
            def all_told():
                found = settled(daemon, *where)
                return found if all(node["told_by"] == ["stacks", "telemetry"] for node in requests(found).values()) else None
            answer = wait_until(all_told, 20, "no telemetry of the requests")
            check_apache(server, daemon, answer)
            nodes = by_id(tree(*where, "--pid", server.process.pid))
            assert answer["missing"] == [] and nodes[f"p{daemon}"]["telemetry"]["life"] in ("started", "running")
            for node in requests(answer).values():
                child = nodes[f"p{node['accepted_by']}"]
                assert child["role"] == "apache-child" and node["label"] in [each["label"] for each in child["accepted"]]
            assert "Apache child" in run(*where).stdout and "no telemetry: the Apache child" in run(*where).stdout
            # what is streamed does not tell its request; telemetry does
            apache.Client(server).start("/main/stream")
            found = wait_until(lambda: requests(tree(*where, "--pid", daemon)).get("/main/stream"), 20, "the stream is not told")
            assert (found["function"], found["phase"]) == ("streams", "answering")
            # the same in the collector, of the stacks that it has taken
            told = collector.wait_for(f"/api/processes?tree=1&stacktraces=1&pid={daemon}",
                                      lambda answer: requests(answer).get("/main/stream", {}).get("function") == "streams" and answer, 30)
            own = by_id(told)
            assert {node["path"] for node in requests(told).values()} == {"/main/sleep", "/site-a/sleep", "/site-a/helped", "/main/stream"}
            assert [node["path"] for node in own[f"p{daemon}.dead"]["children"]] == ["/main/left"]
            assert own[f"p{daemon}"]["stacks_from"] == "collector" and own[f"p{daemon}"]["stacks_age_s"] >= 0
            assert own[f"p{daemon}"]["parent"] == f"p{server.process.pid}.g:{GROUP}" and "frames" in next(
                node for node in own.values() if node["kind"] == "stack")


@pytest.mark.apache
def test_gunicorn_whose_threads_are_threading_s_own(app):
    try:
        server = wsgiservers.Gunicorn(app, "--threads", "4", workers=1)
    except apache.Missing as reason:
        missing(reason)
    with server:
        assert server.get("/left") == 200
        apache.Client(server).start("/sleep")
        [worker] = server.pids()
        def looked():
            found = by_id(tree("--pid", worker))
            return found if f"p{worker}.dead" in found and any(node.get("path") == "/sleep" and node["function"] for node in found.values()) else None

        nodes = wait_until(looked, 20, "no request is told")
        assert (nodes[f"p{worker}"]["role"], nodes[f"p{server.process.pid}"]["kind"], nodes[f"p{server.process.pid}"]["label"]) == ("worker", "server", "gunicorn")
        assert [node["path"] for node in nodes[f"p{worker}.dead"]["children"]] == ["/left"]


# --- without a server -----------------------------------------------------------------------------

PARKED = '''
import sys, threading
def park():
    forever.acquire()
forever = threading.Lock(); forever.acquire()
for name in ("one", "two"):
    threading.Thread(target=park, name=name, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
'''


@pytest.fixture
def parked(tmp_path):
    """A Python program with two threads in the same place, that is no server; its Popen."""
    path = tmp_path / "parked.py"
    path.write_text(PARKED)
    with subprocess.Popen([sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment()) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            wait_until(lambda: by_id(tree("--pid", process.pid)).get(f"p{process.pid}.unassociated", {}).get("count") == 3, 20, "its threads do not park")
            yield process
        finally:
            process.kill()


def test_a_program_that_is_no_server_has_stacks_that_belong_to_no_request(parked):
    answer = tree("--pid", parked.pid)
    nodes = by_id(answer)
    found = {node["label"]: (node["count"], node["at"]) for node in nodes[f"p{parked.pid}.unassociated"]["children"]}
    assert found == {"park": (2, found["park"][1]), "<module>": (1, found["<module>"][1])} and found["park"][1].endswith("/parked.py:4")
    assert run("--pid", parked.pid).stdout.count("park  2 threads: ") == 1


def test_of_what_may_not_be_read_the_reason_is_told_and_the_rest_goes_on(parked, tmp_path):
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    nobody = pwd.getpwnam("nobody")
    program = subprocess.run([apache.SYSTEM_PYTHON, "-c", "import sys; print(sys.executable)"], stdout=subprocess.PIPE, universal_newlines=True,
                             timeout=30).stdout.strip()
    told = run("--pid", parked.pid, "--json", program=[program, *CHECKOUT[1:]], user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=())
    if told.returncode not in (0, 1):
        pytest.skip("the checkout cannot be read by another user: " + told.stderr)
    answer = json.loads(told.stdout)
    assert (told.returncode, answer["unread"]) == (1, 1)
    assert answer["missing"][-1].startswith(f"stacks of {parked.pid}: cannot read process {parked.pid}: it belongs to ")
    assert by_id(answer)[f"p{parked.pid}"]["notes"] == ["its stacks could not be read"]


def test_a_pid_or_a_group_that_is_not_there_is_said(parked):
    for arguments, wanted in ((("--pid", 1 << 22), "no process 4194304 of a server or of Python is here; without --pid all are shown"),
                              (("--group", "no-such"), "no process of group no-such")):
        told = run(*arguments)
        assert (told.returncode, told.stdout) == (2, "") and told.stderr.startswith(f"modwsgi-tel: {wanted}"), told.stderr
        assert told.stderr.count("\n") == 1


@pytest.mark.parametrize("wrong", (["--sort", "name"], ["--pid", "x"], ["4711"], ["--url", "https://x"]), ids=" ".join)
def test_what_cannot_be_meant_is_one_line(wrong):
    told = run(*wrong)
    assert (told.returncode, told.stdout) == (2, "") and told.stderr.startswith("modwsgi-tel: ") and told.stderr.count("\n") == 1


@contextlib.contextmanager
def answering(body):
    """A listening socket whose clients get this as JSON; its port."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)

    def work():
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as connection:
                    connection.recv(65536)
                    connection.sendall(head + body)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(4)
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)         # wakes it
            thread.join(10.0)


@pytest.mark.parametrize("body, status, said", [
    (b'{"nonsense": 1}', 0, "answers /api/processes, but is no modwsgi-tel"),
    (b'{"processes": [{"pid": 1}, 3, {"pid": "x"}, {"pid": 999999999, "life": "running", "windows": 7}]}', 3, "is not as it should be")], ids=["no list", "rows of nonsense"])
def test_a_collector_that_answers_nonsense_is_no_traceback(parked, body, status, said):
    with answering(body) as port:
        told = run("--json", *(() if status else ("--pid", parked.pid)), "--url", f"http://127.0.0.1:{port}")
    assert told.returncode == status and "Traceback" not in told.stderr
    assert said in (told.stderr if status else " ".join(json.loads(told.stdout)["missing"]))


def test_without_a_collector_what_is_missing_is_said_and_a_url_that_was_given_says_why(parked):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        told = tree("--pid", parked.pid, "--url", url)["missing"]
        assert len(told) == 1 and told[0].startswith(f"what telemetry tells: {url}") and "refused" in told[0]
        told = run("--pid", parked.pid, "--json", env=clean_environment(MODWSGI_TEL_URL=url))
        assert json.loads(told.stdout)["missing"] == [f"what telemetry tells: no collector at {url} (modwsgi-tel serve is one)"]
