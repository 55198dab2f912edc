"""Which request a thread of a real mod_wsgi daemon serves: read from its own frames, equal to what Apache logs."""

import os
import re
import time

import pytest

import apache
import interpreters
import running
import targets
from modwsgi_tel.stacks.model import Request
from modwsgi_tel.stacks.reader import Reader

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


@pytest.mark.apache
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


@pytest.mark.apache
def test_each_request_tells_when_it_began_how_long_it_was_queued_and_in_which_groups_it_runs(server):
    requests = [each.request for each in waiting(server) if each.request]
    now = time.time()
    assert all(now - 120 < each.started <= now and 0 <= each.queued_s < 60 for each in requests), requests
    assert len({each.process_group for each in requests}) == 1 and requests[0].process_group
    assert {each.path.startswith("/main"): each.application_group == "" for each in requests} == {True: True, False: False}


@pytest.mark.apache
def test_the_thread_of_a_streamed_response_is_whole_and_its_outermost_frame_is_the_body(server):
    threads = {each.frames[-1].function: each for each in waiting(server)}
    assert [frame.function for frame in threads["pieces"].frames[2:]] == ["waits", "pieces"]
    assert threads["pieces"].request is None
    assert [frame.function for frame in threads["stream_with_environ"].frames[2:]] == ["waits", "stream_with_environ"]


@pytest.mark.apache
def test_requests_of_two_interpreters_of_one_process_are_told_apart(server):
    threads = [each for each in waiting(server) if each.request and each.request.path.endswith("/function")]
    assert sorted((each.request.path, each.interpreter == 0) for each in threads) == [("/main/function", True), ("/site-a/function", False)]
    assert all(frame.interpreter == each.interpreter for each in threads for frame in each.frames)


# --- wherever the environ is ------------------------------------------------------------------------

# Each thread parks with an environ in another place; TOLD is {native id: its path}
PLACES = r"""
import os, threading
GATE, (HEARD, SAY) = threading.Lock(), os.pipe()
GATE.acquire()
TOLD = {}
def environ(path, **more):
    return {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/app", "PATH_INFO": path, "wsgi.version": (1, 0), "HTTP_HOST": "x", **more}
def parks():
    os.write(SAY, b"x"), GATE.acquire()
def started(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    os.read(HEARD, 1)
    TOLD[str(thread.native_id)] = function.__name__
def argument(environ, start):
    parks()
def copied(env):
    environ = dict(env)
    del env
    parks()
class Holder:
    def __init__(self, name, value):
        self.first = 1
        setattr(self, name, value)
    def method(self):
        parks()
    def generates(self):
        yield parks()
def view(request):
    parks()
def body(chunks):
    for _ in chunks:
        pass
def nothing(one, two):
    parks()
MOD_WSGI = {"mod_wsgi.%s" % name: value for name, value in {
    "request_id": "id", "thread_id": 3, "request_start": "1700000000123456", "queue_start": "1700000000200000",
    "daemon_start": "1700000000450000", "process_group": "shop", "application_group": "site|/x"}.items()}
def four(environ):
    parks()
def six(environ):
    parks()
def embedded(environ):
    parks()
def senseless(environ):
    parks()
def method(holder):
    holder.method()
started(argument, environ("/argument"), None)
started(copied, environ("/copied"))
started(method, Holder("environ", environ("/method")))
started(view, Holder("META", environ("/view")))
started(body, Holder("environ", environ("/body")).generates())
started(nothing, Holder("environ", {"PATH_INFO": "/no"}), {"PATH_INFO": "/no"})
started(four, environ("/four", **MOD_WSGI))
started(six, environ("/s\xc3\xadx", **{**MOD_WSGI, "mod_wsgi.request_start": 1700000000.5, "mod_wsgi.queue_start": 1700000001.0,
                                "mod_wsgi.daemon_start": 1700000003.25}))
started(embedded, environ("/embedded", **{**MOD_WSGI, "mod_wsgi.request_start": 1700000000.5, "mod_wsgi.queue_start": 0.0,
                                          "mod_wsgi.daemon_start": 0.0, "mod_wsgi.process_group": "", "mod_wsgi.application_group": ""}))
started(senseless, environ("/senseless", **{**MOD_WSGI, "mod_wsgi.request_start": "x" * 1000, "mod_wsgi.queue_start": "1" * 400,
                                            "mod_wsgi.daemon_start": [1], "mod_wsgi.process_group": None}))
"""


def told(path, *more):
    return Request(None, None, "GET", "/app" + path, "environ", *more)


@pytest.fixture(scope="module", params=interpreters.READ)
def parked(request):
    """(the target, {function: its thread's Request without its place} of two looks, as a function of whether it hurries)."""
    with targets.of(request.param, PLACES) as target:
        def looked(hurries):
            reader = Reader(target.pid)
            try:
                if hurries:
                    reader.hurry()
                def settled():
                    found = [reader.look(), reader.look()]
                    threads = {target.told.get(str(each.tid)): each for each in found[1].threads}
                    whole = all(threads[name].frames and not threads[name].problem for name in target.told.values())
                    return [{target.told[str(each.tid)]: each.request and each.request._replace(place=0) for each in stacks.threads
                             if str(each.tid) in target.told} for stacks in found] if whole else None
                first, second = running.wait_until(settled, 20, "the target does not park")
            finally:
                reader.close()
            assert first == second
            return first
        yield looked


def test_the_environ_is_found_as_an_argument_as_a_copy_and_as_an_attribute(parked):
    found = parked(False)
    assert {name: found[name] for name in ("argument", "copied", "method", "view", "body", "nothing")} == {
        "argument": told("/argument"), "copied": told("/copied"), "method": told("/method"), "view": told("/view"), "body": told("/body"),
        "nothing": None}


def test_who_looks_many_times_a_second_finds_it_where_that_is_cheap(parked):
    found = parked(True)
    assert {name: found[name] and found[name].path for name in ("argument", "copied", "method", "view", "four")} == {
        "argument": "/app/argument", "copied": "/app/copied", "method": None, "view": None, "four": "/app/four"}


def test_times_and_groups_are_told_as_each_mod_wsgi_has_them_and_never_what_makes_no_sense(parked):
    found = parked(False)
    assert found["four"] == Request("id", "3", "GET", "/app/four", "environ", 0, 1700000000.123456, 0.25, "shop", "site|/x")
    # the path is latin-1 in an environ, and UTF-8 for whom it is meant
    assert found["six"] == Request("id", "3", "GET", "/app/s\xedx", "environ", 0, 1700000000.5, 2.25, "shop", "site|/x")
    assert found["embedded"] == Request("id", "3", "GET", "/app/embedded", "environ", 0, 1700000000.5, None, "", "")
    assert found["senseless"] == Request("id", "3", "GET", "/app/senseless", "environ", 0, None, None, "None", "site|/x")
