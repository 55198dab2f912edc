"""Requests that are stuck in a real Apache: the collector, on its own, shows the line of each and joins it to its request."""

import os

import pytest

import apache
import running

pytestmark = pytest.mark.apache


@pytest.fixture(scope="module")
def stuck():
    """(server, collector): requests hang in two locks and on a socket, then one in a regular expression, which keeps the GIL."""
    try:
        program = apache.express()
    except apache.Missing as missing:
        if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
            pytest.fail("no real Apache, and it is required: %s" % missing)
        pytest.skip("no real Apache: %s" % missing)
    with running.Collector("--stacks-rate", "20") as collector:
        os.chmod(collector.socket, 0o666)
        with apache.Sites(program, processes=1, threads=10, socket=collector.socket, interval=0.5, slow=0.5) as server:
            yield server, collector


def function_names(stack):
    return [frame["function"] for frame in stack["frames"]]


def slow_stacks(collector):
    """{path: stack} of the slow requests that have one with frames."""
    found = [row["entry"] for row in collector.json("/api/slow")["slow_requests"]]
    return {entry["script_name"] + entry["path_info"]: entry["stack"] for entry in found
            if entry["stack"] and entry["stack"]["frames"]}


def test_each_slow_request_has_its_own_stack_in_each_interpreter(stuck):
    server, collector = stuck
    client = apache.Client(server)
    for path in ("/main/deadlock/a", "/main/deadlock/b", "/site-a/socket", "/site-b/sleep"):
        client.start(path)
    wanted = {"/main/deadlock/a": ["deadlock_a_wants_b", "deadlock_a"], "/main/deadlock/b": ["deadlock_b_wants_a", "deadlock_b"],
              "/site-a/socket": ["socket_receives", "socket_outer"], "/site-b/sleep": ["sleep_inner", "sleep_outer"]}
    found = running.wait_until(lambda: set(slow_stacks(collector)) == set(wanted) and slow_stacks(collector), 20,
                               lambda: "%s\n%s" % (slow_stacks(collector), collector.said()))
    assert {path: function_names(stack)[:2] for path, stack in found.items()} == wanted
    assert {(stack["how"], stack["whole"], stack["problem"]) for stack in found.values()} == {("environ", True, None)}
    assert {frame["file"] for stack in found.values() for frame in stack["frames"]} == {server.app}
    with open(server.app) as source:
        lines = source.read().splitlines()
    assert {path: lines[stack["frames"][0]["line"] - 1].strip() for path, stack in found.items()} == {
        "/main/deadlock/a": "with LOCK_B:", "/main/deadlock/b": "with LOCK_A:", "/site-a/socket": "return connection.recv(100)",
        "/site-b/sleep": "time.sleep(seconds)"}
    process, = server.daemons()
    [row] = collector.json("/api/stacks?pid=%d" % process)["processes"]
    assert (row["pid"], row["why"]) == (process, "slow")
    requests = {thread["request"]["path"] for thread in row["threads"] if thread["request"]}
    assert requests == set(wanted)


def test_a_regular_expression_that_keeps_the_gil_is_named_though_no_record_of_it_comes(stuck):
    server, collector = stuck
    process, = server.daemons()
    apache.Client(server).start("/site-b/regex?id=7")

    def held(answer):
        stacks = answer["processes"][0]["stacks"]
        return stacks and stacks["why"] == "silent" and [thread for thread in stacks["threads"] if thread["owns_gil"]]

    [thread] = collector.wait_for("/api/processes/%d" % process, held, 30)
    assert [frame["function"] for frame in thread["frames"]][:4] == ["match", "regex_inner", "regex_outer", "answer"]
    assert thread["frames"][1]["file"] == server.app
    assert (thread["request"]["path"], thread["request"]["how"]) == ("/site-b/regex", "environ")
    assert not any(row["entry"]["path_info"] == "/regex" for row in collector.json("/api/slow")["slow_requests"])
    finding = collector.wait_for("/api/summary?parts=findings", lambda answer: next(
        (each for each in answer["findings"] if each["id"] == "silent" and "GIL is held" in each["text"]), None), 30)
    inner, caller = thread["frames"][:2]
    name = "re/__init__.py" if inner["file"].endswith("__init__.py") else "re.py"
    assert finding["text"].endswith(": its GIL is held in %s:%d match, called from %s:%d" % (
        name, inner["line"], os.path.basename(server.app), caller["line"])), finding["text"]
    assert finding["pid"] == process
