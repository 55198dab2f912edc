"""The agent within a real mod_wsgi 6: beside its own reporter, instead of it, and when nothing else answers any more."""
import contextlib
import http.client
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

import apache
import running
import wsgiservers
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.fields import AGENT_FLAG, CODE_LOCATIONS, LONG_REQUEST, REQUEST_STACK

pytestmark = [pytest.mark.apache, pytest.mark.pyz]

HELD = os.path.join(running.ROOT, "tests", "apps", "held.py")
SECRET = "open-sesame-open-sesame"
# Any word of our files is a complaint, but for the frames of a stack that the agent writes where the collector's queue was full.
CRASHES = re.compile(r"Fatal Python error|exit signal|[Ss]egmentation|core dump|SystemError|Exception ignored|Traceback|"
                     r"modwsgi_tel(?!/agent/\w+\.py:\d+ [\w.<>]+$)", re.MULTILINE)
AWAITED = 15.0
OTHER = pwd.getpwnam("daemon")          # a user who is not Apache's


@pytest.fixture(scope="module")
def express():
    try:
        return apache.express()
    except apache.Missing as missing:
        if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
            pytest.fail("no real Apache, and it is required: %s" % missing)
        pytest.skip("no real Apache: %s" % missing)


def install(pyz, how="agent.install()"):
    """The lines that an application needs."""
    return "import sys; sys.path.insert(0, %r); from modwsgi_tel import agent; %s\n" % (pyz + "/site-packages", how)


def variables(collector, **more):
    """Apache's environment: settings of all agents.  Watchdogs' files of processes that are killed go with the collector's folder."""
    folder = os.path.join(os.path.dirname(collector.socket), "dumps")
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o1777)
    settings = {"socket": "unix:" + collector.socket, "threshold": "0.3", "interval": "0.2", "watchdog_folder": folder, **more}
    return {"MODWSGI_TEL_AGENT_" + name.upper(): str(value) for name, value in settings.items()}


@contextlib.contextmanager
def collecting(*options, **more):
    """A collector to which Apache's user may send."""
    with running.Collector("--stacks-rate", "20", *options, **more) as collector:
        os.chmod(collector.socket, 0o666)
        yield collector


def slow_entries(collector):
    """{path: [entries]} of /api/slow."""
    found = {}
    for row in collector.json("/api/slow")["slow_requests"]:
        found.setdefault(row["entry"]["script_name"] + row["entry"]["path_info"], []).append(row["entry"])
    return found


def wait_for_entry(collector, path, check=lambda entry: True):
    """The entry of a slow request, the only one of its path, once `check(entry)` is true."""
    def found():
        entries = slow_entries(collector).get(path, ())
        return [entry for entry in entries if check(entry)]
    running.wait_until(found, AWAITED, lambda: "%s: %s" % (path, json.dumps(slow_entries(collector).get(path))[:3000]), pause=0.05)
    [entry] = slow_entries(collector)[path]
    return entry


def has_stack(entry):
    return entry["agent"] and entry["agent"]["last"]


def is_over(entry):
    return entry["life"] == "completed"


def functions(frames):
    return [frame["function"] for frame in frames]


def bare(frames):
    return [(frame["function"], frame["file"], frame["line"]) for frame in frames]


def agents_of(collector, pid):
    """{interpreter: what its agent says of itself}, once the collector knows all that there are."""
    rows = collector.json("/api/processes/%d" % pid)["processes"]
    return {each["interpreter"]: each for row in rows if row["agent"] for each in row["agent"]["agents"]}


def run(*arguments, program=running.CHECKOUT, user=None, timeout=20):
    more = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    return subprocess.run([*program, *arguments], cwd="/" if user else running.ROOT, timeout=timeout, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=running.clean_environment(), **more)


def looked(*arguments):
    """The one look of `stacks --json`."""
    done = run("stacks", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    [look] = json.loads(done.stdout)
    return look


def asked(collector, pid):
    """POST /api/stacks?pid=&agent=1, and what came of it."""
    since = time.time()
    posted = []

    def accepted():                     # it may have been read just now, by itself, or not be known well enough yet
        posted[:] = collector.post("/api/stacks?pid=%d&agent=1" % pid)
        return posted[0] != 429 and b"ask again in a second" not in posted[2]
    running.wait_until(accepted, AWAITED, lambda: str(posted), pause=0.1)
    assert posted[0] == 202, posted

    def taken():
        [row] = collector.json("/api/stacks?pid=%d" % pid)["processes"] or [None]
        return row and row["why"] == "agent" and row["taken"] >= since - 0.5 and row
    return running.wait_until(taken, AWAITED, lambda: "%s\n%s" % (collector.json("/api/stacks?pid=%d" % pid), collector.said()), pause=0.05)


# --- beside mod_wsgi's own reporter -----------------------------------------------------------

@pytest.fixture(scope="module")
def beside(pyz, express):
    """(server, collector): three interpreters; mod_wsgi tells of requests of half a second, the agents a little earlier or later.

    The main one is none of them: what is for it mod_wsgi runs in another, in a thread that has served that other one first.
    """
    how = ("import mod_wsgi; agent.install(**{'main': dict(threshold=0.25), 'site-a': dict(threshold=0.8), "
           "'site-b': dict(locals=True)}[mod_wsgi.application_group])")
    with collecting() as collector:
        settings = variables(collector, secret=SECRET, ignore="*/ignored/*")
        with apache.Sites(express, app=HELD, head=install(pyz, how), socket=collector.socket, threads=20, slow=0.5,
                          variables=settings, sites={site: site for site in apache.SITES}) as server:
            yield server, collector


def test_there_is_an_agent_in_each_interpreter_and_none_of_them_emits(beside):
    server, collector = beside
    for site in apache.SITES:
        assert server.get("/%s/ok" % site) == 200
    process, = server.daemons()
    running.wait_until(lambda: len(agents_of(collector, process)) == 3, AWAITED, lambda: "%s\n%s" % (agents_of(collector, process), server.log()))
    found = agents_of(collector, process)
    assert {name: (each["threshold"], each["emits"], each["server"], each["signal"], each["problem"]) for name, each in found.items()} == {
        "main": (0.25, False, "mod_wsgi 6.1.1", signal.SIGUSR2, None), "site-a": (0.8, False, "mod_wsgi 6.1.1", signal.SIGUSR2, None),
        "site-b": (0.3, False, "mod_wsgi 6.1.1", signal.SIGUSR2, None)}
    assert min(each["number"] for each in found.values()) == 0 and len({each["number"] for each in found.values()}) == 3
    assert ["locals" in found[name]["switches"] for name in ("main", "site-a", "site-b")] == [False, False, True]


@pytest.mark.parametrize("site", ["main", "site-a"])
def test_a_slow_request_of_both_is_one_entry_whichever_comes_first(beside, site):
    server, collector = beside
    path = "/%s/slow" % site
    client = apache.Client(server)
    client.start(path + "?s=1.4")
    active = wait_for_entry(collector, path, lambda entry: has_stack(entry) and entry["source"] == "reporter")
    assert (active["life"], active["agent"]["annotations"]) == ("active", {"customer": "Ann", "items": "7"})
    assert client.wait() == [200]
    entry = wait_for_entry(collector, path, is_over)
    agent = entry["agent"]
    assert (entry["source"], entry["status"], agent["annotations"], agent["exception"]) == (
        "reporter", 200, {"customer": "Ann", "items": "7"}, None)
    assert functions(agent["pivot"])[:2] == ["sleeps", "slow"] and agent["pivot"] == agent["last"]["frames"]
    assert 1.4 <= agent["pivot_s"] <= entry["duration"] + 0.05
    assert [each["number"] for each in agent["history"]] == list(range(1, agent["stacks"] + 1))
    assert {(each["waits"]["kind"], tuple(each["hot"])) for each in agent["history"]} == {("sleep", ())}
    if entry["stack"] and entry["stack"]["frames"]:     # from outside, where the collector was quick enough
        assert bare(entry["stack"]["frames"]) == bare(agent["last"]["frames"])


def test_a_request_lasts_until_its_body_is_closed(beside):
    server, collector = beside
    client = apache.Client(server)
    client.start("/main/stream")
    entry = wait_for_entry(collector, "/main/stream", has_stack)
    assert functions(entry["agent"]["last"]["frames"])[2:] == ["stream_waits", "stream", "_Body.__next__"]
    assert (entry["life"], entry["agent"]["last"]["waits"]["kind"]) == ("active", "event")
    assert server.get("/main/go", timeout=5) == 200
    assert client.wait() == [200]
    entry = wait_for_entry(collector, "/main/stream", is_over)
    assert entry["agent"]["annotations"] == {"kind": "stream"}


def test_paths_that_are_ignored_are_mod_wsgis_alone(beside):
    server, collector = beside
    assert server.get("/main/ignored/slow?s=1.2") == 200
    entry = wait_for_entry(collector, "/main/ignored/slow", is_over)
    assert (entry["source"], entry["agent"]) == ("reporter", None)


def test_an_exception_is_counted_at_its_place_once_for_each_time(beside):
    server, collector = beside
    assert [server.get("/main/error") for _ in range(3)] == [500, 500, 500]
    found = collector.wait_for("/api/exceptions", lambda answer: answer["counted"] == 3 and answer["exceptions"])
    [row] = found
    assert (row["type"], row["count"], row["path"], row["text"]) == ("KeyError", 3, "/main/error", None)
    assert functions(row["frames"])[:3] == ["fails", "answer", "application"]
    assert row["frames"][0]["file"] == server.app


def test_values_are_shown_where_the_application_allows_it_and_secrets_are_not(beside):
    server, collector = beside
    client = apache.Client(server)
    for site in ("site-b", "main"):
        client.start("/%s/secrets" % site)
    assert client.wait() == [200, 200]
    shown, hidden = (wait_for_entry(collector, "/%s/secrets" % site, is_over) for site in ("site-b", "main"))
    assert hidden["agent"]["last"]["locals"] is None
    values = {name: text for depth, name, text in shown["agent"]["last"]["locals"] if depth == 1}
    assert values == {"shown": "'visible'", "password": "<masked>", "token": "<masked>", "card": "{'api_key': <masked>, 'number': 4711}"}
    said = json.dumps([shown, hidden])
    assert not [word for word in ("panther", "tiger", "leopard") if word in said]


def test_the_one_for_which_others_wait_comes_before_them(beside):
    server, collector = beside
    client = apache.Client(server)
    client.start("/main/convoy")
    holder = wait_for_entry(collector, "/main/convoy", has_stack)
    for _ in range(3):
        client.start("/main/convoy")

    def pivots(answer):
        rows = [row for row in answer["pivots"] if "/main/convoy" in row["paths"]]
        return [row["requests"] for row in rows] == [1, 3] and rows
    holds, waits = collector.wait_for("/api/slow", pivots)
    assert (holds["role"], holds["waits"], functions(holds["frames"])[0]) == ("works", "sleep", "holds_while_others_wait")
    assert (waits["role"], waits["waits"], functions(waits["frames"])[0]) == ("waits", "rlock", "convoy")
    assert waits["waits_for"] == holds["place"]
    waiters = [entry for entry in slow_entries(collector)["/main/convoy"] if entry["log_id"] != holder["log_id"]]
    assert {entry["agent"]["last"]["waits"]["owner_request"] for entry in waiters} == {holder["log_id"]}
    assert server.get("/main/go", timeout=5) == 200
    assert client.wait() == [200] * 4


def test_rlocks_tell_who_waits_for_whom(beside):
    server, collector = beside
    client = apache.Client(server)
    client.start("/site-b/rlock/a")
    client.start("/site-b/rlock/b")
    one, other = (wait_for_entry(collector, "/site-b/rlock/" + name, has_stack) for name in "ab")
    waits = [each["agent"]["last"]["waits"] for each in (one, other)]
    assert waits == [{"kind": "rlock", "owner_tid": other["agent"]["last"]["tid"], "owner_request": other["log_id"]},
                     {"kind": "rlock", "owner_tid": one["agent"]["last"]["tid"], "owner_request": one["log_id"]}]


def test_the_secret_url_answers_whoever_has_the_secret(beside):
    server, _ = beside
    status, body = server.fetch("/main/modwsgi-tel-stacks/" + SECRET)
    assert status == 200 and b"/main/modwsgi-tel-stacks" not in body and b"rlock" not in body    # of this interpreter alone
    status, body = server.fetch("/site-b/modwsgi-tel-stacks/" + SECRET)
    assert status == 200 and b"serves GET /site-b/rlock/a" in body and b"rlock_a_wants_b" in body
    for other in ("x" * len(SECRET), SECRET[:-1], SECRET + "x", ""):
        assert server.fetch("/main/modwsgi-tel-stacks/" + other) == (404, b"no such path\n")


@pytest.fixture
def holding(pyz, express):
    """(server, collector): an agent in one interpreter; the collector's user may read no process of Apache's, but is in its group."""
    group = pwd.getpwnam(apache.USER).pw_gid
    with collecting(program=[apache.SYSTEM_PYTHON, pyz], cwd="/", user=OTHER.pw_uid, group=OTHER.pw_gid, extra_groups=[group]) as collector:
        imports = "WSGIImportScript {folder}/watch.py process-group=stuck application-group=%{GLOBAL}"
        with apache.Sites(express, app=HELD, more=imports, files={"watch.py": install(pyz)}, socket=collector.socket, threads=4,
                          variables=variables(collector, watchdog=2)) as server:
            yield server, collector


def test_what_holds_the_gil_is_named_while_it_does_and_told_afterwards(holding):
    server, collector = holding
    process, = server.daemons()
    running.wait_until(lambda: agents_of(collector, process), AWAITED, lambda: server.log())
    path = agents_of(collector, process)[""]["watchdog_file"]
    client = apache.Client(server)
    client.start("/main/regex?s=7")
    running.wait_until(lambda: os.path.getsize(path), AWAITED, "the watchdog wrote nothing", pause=0.01)
    by_root = []
    other = threading.Thread(target=lambda: by_root.append(run("stacks", str(process), "--agent")))
    other.start()
    row = asked(collector, process)
    other.join()
    assert os.path.getsize(path), "it does not hold any more: what was asked says nothing"
    assert "its watchdog wrote" in row["problem"]
    [thread] = [each for each in row["threads"] if "matched" in functions(each["frames"])]
    with open(server.app) as source:
        lines = source.read().splitlines()
    assert lines[thread["frames"][0]["line"] - 1].strip() == "compiled.match(text)"
    assert functions(thread["frames"])[:2] == ["matched", "catastrophe"] and thread["frames"][0]["file"] == server.app
    [done] = by_root
    assert (done.returncode, done.stderr) == (0, "")
    assert "its watchdog wrote" in done.stdout and "in matched\n    compiled.match(text)\n" in done.stdout
    assert client.wait() == [200]
    row = collector.wait_for("/api/stacks?pid=%d" % process, lambda answer: next(
        (each for each in answer["processes"] if each["why"] == "agent: watchdog"), None))
    [thread] = [each for each in row["threads"] if "matched" in functions(each["frames"])]
    assert (thread["request"]["path"], thread["request"]["how"], functions(thread["frames"])[:2]) == (
        "/main/regex", "agent", ["matched", "catastrophe"])
    running.wait_until(lambda: slow_entries(collector)["/main/regex"][0]["agent"], AWAITED, lambda: "%s\n%s" % (
        agents_of(collector, process), server.log()))
    entry = wait_for_entry(collector, "/main/regex", is_over)
    assert entry["duration"] > 3.0
    assert not os.path.getsize(path)


# --- the application as it was, and by the script of WSGIImportScript alone ---------------------

IMPORTS = "\n".join("WSGIImportScript {folder}/watch.py process-group=stuck application-group=%s" % name for name in apache.SITES.values())


def imported(express, pyz, settings, more="", **options):
    """tests/apps/stuck.py, watched without a change to it."""
    return apache.Sites(express, more=IMPORTS + "\n" + more, files={"watch.py": install(pyz).replace("; ", "\n")}, variables=settings, **options)


@pytest.fixture(scope="module")
def stuck(pyz, express):
    """(server, collector): six workers, all of which get stuck for good."""
    with collecting() as collector:
        with imported(express, pyz, variables(collector, interval="0.3"), socket=collector.socket, threads=6, more="Timeout 2") as server:
            process, = server.daemons()
            running.wait_until(lambda: len(agents_of(collector, process)) == 3, AWAITED, lambda: server.log())
            client = apache.Client(server)
            for path in STUCK:
                client.start(path)
            for path in STUCK:
                wait_for_entry(collector, path, has_stack)
            yield server, collector


STUCK = ("/main/deadlock/a", "/main/deadlock/b", "/site-a/socket", "/site-b/sleep", "/site-a/stream", "/main/sleep")


def by_thread(look):
    """{tid: frames} of the threads of a look that run Python code, but those of the agents themselves."""
    found = {thread["tid"]: bare(thread["frames"]) for thread in look["threads"] if thread["frames"]}
    return {tid: frames for tid, frames in found.items()
            if frames[-1][1] != THREADING and not frames[-1][1].endswith("modwsgi_tel/agent/monitor.py")}


THREADING = subprocess.run([apache.SYSTEM_PYTHON, "-I", "-c", "import threading; print(threading.__file__)"], stdout=subprocess.PIPE,
                           universal_newlines=True, timeout=30).stdout.strip()


def test_the_agent_sees_the_same_frames_as_who_reads_from_outside(stuck):
    server, collector = stuck
    process, = server.daemons()
    from_outside, inside = looked(str(process)), looked(str(process), "--agent")
    assert [look["problem"] for look in (from_outside, inside)] == [None, None]
    assert by_thread(inside) == by_thread(from_outside) and len(by_thread(inside)) == len(STUCK)
    paths = {thread["request"]["path"]: bare(thread["frames"]) for thread in inside["threads"]}
    told = {path: bare(entry["agent"]["last"]["frames"]) for path, [entry] in slow_entries(collector).items()}
    assert paths == told
    assert set(told) == set(STUCK)
    assert {path: [function for function, _, _ in frames][0] for path, frames in told.items()} == {
        "/main/deadlock/a": "deadlock_a_wants_b", "/main/deadlock/b": "deadlock_b_wants_a", "/site-a/socket": "socket_receives",
        "/site-b/sleep": "sleep_inner", "/site-a/stream": "Condition.wait", "/main/sleep": "sleep_inner"}
    assert {path: entry["agent"]["last"]["waits"]["kind"] for path, [entry] in slow_entries(collector).items()} == {
        "/main/deadlock/a": "lock", "/main/deadlock/b": "lock", "/site-a/socket": "socket", "/site-b/sleep": "sleep",
        "/site-a/stream": "event", "/main/sleep": "sleep"}
    served = [{thread["tid"]: (thread["request"]["request_id"], thread["request"]["path"], thread["interpreter"])
               for thread in look["threads"] if thread["request"]} for look in (from_outside, inside)]
    # a body that is a generator has no environ: from outside its request is not known
    assert served[0] == {tid: known for tid, known in served[1].items() if known[1] != "/site-a/stream"}


def test_when_all_workers_are_stuck_the_agents_answer(stuck):
    server, collector = stuck
    process, = server.daemons()
    with pytest.raises(socket.timeout):     # Apache itself gives up later
        server.get("/main/ok", timeout=0.5)
    done = run("stacks", str(process), "--agent")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("request ") == len(STUCK)
    row = asked(collector, process)
    assert {thread["request"]["path"] for thread in row["threads"] if thread["request"]} == set(STUCK)
    assert row["problem"] is None


def test_sigusr2_sends_the_stacks_of_all_threads(stuck):
    server, collector = stuck
    process, = server.daemons()
    os.kill(process, signal.SIGUSR2)

    # mod_wsgi calls a sub-interpreter's agent twice, instead of the main one's, where the sub-interpreter's turn comes first
    expected = {path for path in STUCK if not path.startswith("/main/")}

    def told(answer):
        return any(row["why"] == "agent: signal" and {thread["request"] and thread["request"]["path"] for thread in row["threads"]} >= expected
                   for row in answer["processes"])
    assert collector.wait_for("/api/stacks?pid=%d" % process, told)
    running.wait_until(lambda: server.log(100000).count("threads (signal)") == 3, AWAITED, lambda: server.log(100000))
    assert all("serves GET %s (" % path in server.log(100000) for path in expected)
    assert server.daemons() == [process]


@pytest.mark.parametrize("user", ["www-data", "collector", "nobody"])
def test_who_may_ask_an_agent(stuck, pyz, user):
    server, collector = stuck
    process, = server.daemons()
    os.chown(collector.socket, OTHER.pw_uid, -1)        # as when the collector is that user's
    done = run("stacks", str(process), "--agent", program=[apache.SYSTEM_PYTHON, pyz], user=OTHER.pw_name if user == "collector" else user)
    if user != "nobody":
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert all(path in done.stdout for path in STUCK)
    else:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == ("modwsgi-tel: the agent in process %d hangs up on nobody: it answers root, its own user and the owner of "
                               "its telemetry socket\n" % process)


class Ear:
    """Listens on a telemetry socket; `samples` are what came."""

    def __init__(self):
        self._cleanup = contextlib.ExitStack()
        self.socket = os.path.join(self._cleanup.enter_context(running.short_folder()), "t.sock")
        self.samples = []
        self._socket = self._cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._socket.bind(self.socket)
        os.chmod(self.socket, 0o666)
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self):
        while True:
            datagram = self._socket.recv(65536)
            if not datagram:            # closed
                return
            self.samples.append(decode(datagram))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._cleanup.close()


def test_beside_mod_wsgi_an_agent_sends_private_kinds_alone(pyz, express):
    with Ear() as ear, imported(express, pyz, variables(ear), socket=ear.socket) as server:
        assert [server.get("/%s/ok" % site) for site in apache.SITES for _ in range(5)] == [200] * 15
        apache.Client(server).start("/main/sleep")
        wanted = {LONG_REQUEST, REQUEST_STACK, CODE_LOCATIONS}
        running.wait_until(lambda: wanted <= {each.kind for each in ear.samples}, AWAITED, lambda: server.log())
        kinds = {bool(each.flags & AGENT_FLAG): set() for each in ear.samples}
        for each in list(ear.samples):
            kinds[bool(each.flags & AGENT_FLAG)].add(each.kind)
    assert min(kinds[True]) >= 128 and max(kinds[False]) < 128


# --- instead of mod_wsgi's own reporter, and the life of processes ------------------------------

@pytest.fixture(params=["6.1.1", "6.1.1 that reports", "4.9"])
def a_module(request, express):
    """(how a Sites is made with this mod_wsgi, whether that is to report itself)."""
    if request.param == "4.9" and not os.path.exists(wsgiservers.MOD_WSGI):
        if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
            pytest.fail("no libapache2-mod-wsgi-py3, and it is required")
        pytest.skip("no libapache2-mod-wsgi-py3")
    return {"program": None, "module": wsgiservers.MOD_WSGI} if request.param == "4.9" else {"program": express}, "reports" in request.param


def test_where_mod_wsgi_does_not_report_the_agents_do_and_count_right(pyz, express):
    with collecting() as collector:
        with apache.Sites(express, app=HELD, head=install(pyz), threads=4, processes=2, variables=variables(collector)) as server:
            for site in apache.SITES:
                assert [server.get("/%s/%s" % (site, path)) for path in ("ok", "ok", "none", "error")] == [200, 200, 404, 500]
            assert server.get("/main/slow?s=0.8") == 200
            made = server.made

            def totals(answer):
                return answer["totals"]["counters"]["requests"] >= sum(made.values()) and answer["totals"]
            found = collector.wait_for("/api/summary?parts=totals", totals)
            assert {name: found["counters"][name] for name in ("requests", "status_2xx", "status_4xx", "status_5xx", "slow_completed")} == {
                "requests": sum(made.values()), "status_2xx": made[200], "status_4xx": made[404], "status_5xx": made[500], "slow_completed": 1}
            assert (found["processes"], found["process_groups"], found["lost"]) == (2, ["stuck"], 0)
            assert {name for name, phase in found["windows"]["1m"]["phases"].items() if phase} == {
                "server", "queue", "daemon", "application", "request"}
            entry = wait_for_entry(collector, "/main/slow", is_over)
            assert (entry["source"], entry["status"], functions(entry["agent"]["pivot"])[:2]) == ("agent", 200, ["sleeps", "slow"])
            for process in server.daemons():
                assert {each["emits"] for each in agents_of(collector, process).values()} <= {True}
            assert {row["life"] for row in collector.json("/api/processes")["processes"]} == {"running"}


def test_embedded_it_works_without_a_signal(pyz, express):
    with collecting() as collector:
        with apache.Sites(express, app=HELD, head=install(pyz), threads=8, embedded=True, socket=collector.socket,
                          variables=variables(collector)) as server:
            client = apache.Client(server)
            client.start("/main/slow?s=1.2")
            client.start("/site-a/slow?s=1.2")
            for path in ("/main/slow", "/site-a/slow"):
                assert functions(wait_for_entry(collector, path, has_stack)["agent"]["pivot"])[:2] == ["sleeps", "slow"]
            process, = server.daemons()
            assert {(each["signal"], each["emits"]) for each in agents_of(collector, process).values()} == {(0, False)}
            done = run("stacks", str(process), "--agent")
            assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("in sleeps\n") == 2
            assert client.wait() == [200, 200]
            running.wait_until(lambda: running.is_at_rest(process), 5, "its threads do not come to rest")
            assert server.stop() == 0
            assert not CRASHES.search(server.log(1 << 20)), server.log()


class Load:
    """Four clients that ask without a pause, until the end."""

    PATHS = ("/main/ok", "/site-a/ok", "/site-b/ok", "/main/none", "/main/slow?s=0.05")

    def __init__(self, server):
        self.server, self.answers, self.ended = server, [], threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(4)]

    def _ask(self, number):
        while not self.ended.is_set():
            number += 1
            try:
                self.answers.append(self.server.get(self.PATHS[number % len(self.PATHS)], timeout=10.0))
            except (OSError, http.client.HTTPException) as error:
                self.answers.append(error)
                self.ended.wait(0.05)   # it is stopping

    def __enter__(self):
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *exception):
        self.ended.set()
        for each in self._threads:
            each.join(15.0)

    def wait(self, more):
        """Until so many more were answered."""
        before = len(self.answers)
        running.wait_until(lambda: len(self.answers) >= before + more, 20, lambda: "%s %s" % (len(self.answers), self.server.log()))


def lived(module, head="", variables=None, socket=None):
    """Load on an Apache that is told to renew itself in every way, then to end: (seconds to end, its log, answers, processes seen)."""
    with apache.Sites(**module, head=head, app=HELD, variables=variables, processes=2, threads=3, options="maximum-requests=60",
                      socket=socket) as server:
        seen = set(server.daemons())
        with Load(server) as load:
            load.wait(200)              # processes end after 60 requests
            os.utime(server.app)
            load.wait(50)               # the script is loaded again: the process ends
            for _ in range(2):
                seen.update(server.daemons())
                server.graceful()
                load.wait(50)
            seen.update(server.daemons())
            made = server.made.copy()
            began = time.monotonic()
            assert server.stop(30.0) == 0
            took_s = time.monotonic() - began
        return took_s, server.log(8 << 20), made, seen


def test_processes_come_and_go_under_load_as_without_an_agent(a_module, pyz):
    module, reports = a_module
    with collecting() as collector:
        socket = collector.socket if reports else None
        without_s, _, plain, _ = lived(module, socket=socket)
    with collecting() as collector:
        socket = collector.socket if reports else None
        with_s, log, made, seen = lived(module, install(pyz), variables(collector), socket)
        assert not CRASHES.search(log), CRASHES.findall(log)
        assert {200, 404} <= set(made) and set(made) | set(plain) <= {200, 404, 500, 502, 503}      # mod_wsgi cuts some off
        assert with_s < without_s + 1.0, (with_s, without_s)

        def stopped(answer):
            lives = {row["pid"]: row["life"] for row in answer["processes"]}
            return seen <= set(lives) and set(lives.values()) == {"stopped"} and lives
        lives = collector.wait_for("/api/processes", stopped)
        assert len(lives) >= 6
        requests = collector.json("/api/summary?parts=totals")["totals"]["counters"]["requests"]
        # of each process that ends those are not counted that it was serving when it was told to, three at most
        answered = made[200] + made[404]
        assert answered - 3 * len(lives) <= requests <= answered + 3 * len(lives)
