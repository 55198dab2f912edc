"""Which request a thread of a real mod_wsgi daemon serves: read from its own frames, equal to what Apache logs."""

import os
import re

import pytest

import apache
import running
from modwsgi_tel.stacks.reader import Reader

pytestmark = pytest.mark.apache

APP = os.path.join(running.ROOT, "tests", "apps", "waits.py")
# With the log id of the request in front of what it wrote to wsgi.errors
LOGGED = 'ErrorLogFormat "log=%L %M"'
SAID = re.compile(r"^log=(\S+) .*here (/\S+) (\S+) (\d+)$", re.MULTILINE)
FUNCTIONS = {"/function": "function", "/class": "Application.__call__", "/closure": "closure.<locals>.inner", "/stream": "pieces",
             "/stream-with-environ": "stream_with_environ", "/wrapped": "function"}


@pytest.fixture(scope="module")
def server():
    try:
        program = apache.express()
    except apache.Missing as missing:
        if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
            pytest.fail("no real Apache, and it is required: %s" % missing)
        pytest.skip("no real Apache: %s" % missing)
    with apache.Sites(program, more=LOGGED, threads=12, app=APP) as server:
        client = apache.Client(server)
        for path in FUNCTIONS:
            client.start("/main" + path)
        client.start("/site-a/function")
        running.wait_until(lambda: len(SAID.findall(server.log())) == len(FUNCTIONS) + 1, 20, server.log)
        yield server


def waiting(server):
    """The ThreadStacks of the daemon's threads that are in requests, once all of them wait."""
    pid, = server.daemons()
    reader = Reader(pid)
    try:
        def settled():
            found = reader.look()
            busy = [each for each in found.threads if each.frames]
            return found if len(busy) == len(FUNCTIONS) + 1 and all(each.state == "waiting" for each in busy) else None
        found = running.wait_until(settled, 20, lambda: repr(reader.look()))
    finally:
        reader.close()
    assert [each.problem for each in found.threads if each.problem] == []
    threads = [each for each in found.threads if each.frames]
    for each in threads:
        assert [frame.function.rpartition(".")[2] for frame in each.frames[:3]] == ["wait", "wait", "waits"], each
    return threads


def test_each_request_is_told_by_its_own_environ(server):
    said = {(path, log, thread) for log, path, request, thread in SAID.findall(server.log()) if log == request}
    assert len(said) == len(FUNCTIONS) + 1
    threads = waiting(server)
    joined = {(each.request.path.partition("/")[2].partition("/")[2], each.request.request_id, each.request.thread_id)
              for each in threads if each.request}
    # the body of a response has left the call that had the environ behind: its request cannot be told
    assert joined == {(path[1:], request, thread) for path, request, thread in said if path != "/stream"}
    assert {each.request.method for each in threads if each.request} == {"GET"}
    assert {each.request.how for each in threads if each.request} == {"environ"}
    assert {each.request.path for each in threads if each.request} == {"/main" + path for path in FUNCTIONS if path != "/stream"} | {
        "/site-a/function"}


def test_the_thread_of_a_streamed_response_is_whole_and_its_outermost_frame_is_the_body(server):
    threads = {each.frames[-1].function: each for each in waiting(server)}
    assert [frame.function for frame in threads["pieces"].frames[2:]] == ["waits", "pieces"]
    assert threads["pieces"].request is None
    assert [frame.function for frame in threads["stream_with_environ"].frames[2:]] == ["waits", "stream_with_environ"]


def test_requests_of_two_interpreters_of_one_process_are_told_apart(server):
    threads = [each for each in waiting(server) if each.request and each.request.path.endswith("/function")]
    assert sorted((each.request.path, each.interpreter == 0) for each in threads) == [("/main/function", True), ("/site-a/function", False)]
    assert all(frame.interpreter == each.interpreter for each in threads for frame in each.frames)
