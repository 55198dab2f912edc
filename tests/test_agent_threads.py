"""All threads of this process as the agent sees them: the same frames as from outside, and no lock and no code of others."""
import json
import os
import subprocess
import sys
import threading
import time
import types
from _thread import start_new_thread

import pytest

import running
from modwsgi_tel.agent import threads
from modwsgi_tel.agent.frames import KEPT_MOST
from modwsgi_tel.agent.monitor import Monitor
from modwsgi_tel.agent.requests import Requests
from modwsgi_tel.agent.settings import read
from modwsgi_tel.proc import threads as kernel
from modwsgi_tel.stacks.model import MOVING, Frame, Request, stacks_of, stacks_of_table

SETTINGS = read({}, {})
QUALIFIED = sys.version_info >= (3, 11)


@pytest.fixture
def requests():
    return Requests()


@pytest.fixture
def a_thread():
    """Starts threads that run work(wait): `wait` says that they are there, and returns at the end of the test."""
    lock, started = threading.Lock(), []
    lock.acquire()

    def start(work, name="worker", kind=threading.Thread):
        there = threading.Event()

        def wait():
            there.set()
            with lock:
                pass
        found = kind(target=work, args=(wait,), name=name, daemon=True)
        started.append(found)
        found.start()
        assert there.wait(10)
        tid = found.native_id
        running.wait_until(lambda: threads.kernel_of(tid).state == "waiting", 10, "it does not wait")
        return found
    yield start
    lock.release()
    for each in started:
        each.join(10)


def of(stacks, thread):
    [found] = [each for each in stacks.threads if each.tid == thread.native_id]
    return found


def inner(thread):
    """The frames of a thread, innermost first, that are neither of `a_thread` nor of threading."""
    return [(frame.function.rpartition(".")[2], frame.line) for frame in thread.frames
            if frame.file == __file__ and "<locals>.start" not in frame.function and frame.function not in ("wait",)]


def works(wait):
    deeper(wait)


def deeper(wait):
    wait()


def test_where_the_server_does_not_tell_when_a_request_began_the_agent_does_and_the_same_each_time(requests, a_thread):
    def serves(wait):
        requests.begin({"REQUEST_METHOD": "GET", "PATH_INFO": "/x"})
        deeper(wait)
    before = time.time()
    thread = a_thread(serves, "request-8")
    first, second = (of(threads.look(requests, SETTINGS), thread).request for _ in range(2))
    assert first == second and before - 1 < first.started < time.time() + 1
    assert (first.queued_s, first.process_group, first.application_group) == (None, None, None)


def test_a_thread_is_told_with_its_name_tid_frames_state_and_request(requests, a_thread):
    def serves(wait):
        requests.begin({"mod_wsgi.request_id": "abc", "mod_wsgi.thread_id": 3, "REQUEST_METHOD": "GET", "SCRIPT_NAME": "/app",
                        "PATH_INFO": "/x", "mod_wsgi.request_start": "1700000000123456", "mod_wsgi.queue_start": "1700000000200000",
                        "mod_wsgi.daemon_start": "1700000000300000", "mod_wsgi.process_group": "shop", "mod_wsgi.application_group": ""})
        deeper(wait)
    thread = a_thread(serves, "request-7")
    stacks = threads.look(requests, SETTINGS)
    found = of(stacks, thread)
    assert (stacks.pid, stacks.python, stacks.interpreters, stacks.problem) == (os.getpid(), "%d.%d.%d" % sys.version_info[:3], (0,), None)
    assert (found.name, found.interpreter, found.owns_gil, found.state, found.problem, found.values) == (
        "request-7", 0, None, "waiting", None, None)
    assert found.wait.startswith("futex") or "futex" in found.wait
    assert found.request == Request("abc", 3, "GET", "/app/x", "agent", 0, 1700000000.123456, pytest.approx(0.1), "shop", "")
    assert [name for name, _ in inner(found)] == ["deeper", "serves"]
    line = deeper.__code__.co_firstlineno + 1
    assert found.frames[1] == Frame("deeper", __file__, line, 0)
    if QUALIFIED:
        assert found.frames[2].function.endswith("frames_state_and_request.<locals>.serves")


def test_the_monitor_is_left_out_and_the_caller_is_shown_from_outside_of_the_agent(requests, a_thread, monkeypatch):
    assert threads._MONITOR is Monitor._run.__code__
    monkeypatch.setattr(threads, "_MONITOR", works.__code__)
    thread = a_thread(works)
    stacks = threads.look(requests, SETTINGS)
    assert thread.native_id not in [each.tid for each in stacks.threads]
    assert of(stacks, threading.current_thread()).frames[0].function == (
        "test_the_monitor_is_left_out_and_the_caller_is_shown_from_outside_of_the_agent")


def test_a_thread_that_only_looks_is_left_out(requests, monkeypatch):
    found, lacking = [], threads._lacking
    monkeypatch.setattr(threads, "_lacking", lambda stacks, *more: found.append((threading.get_native_id(), stacks)) or lacking(stacks, *more))
    start_new_thread(threads.look, (requests, SETTINGS))
    running.wait_until(lambda: len(found) == 2, 10, "it did not look")
    tid, stacks = found[-1]
    seen = [each.tid for each in stacks.threads]
    assert threading.get_native_id() in seen and tid not in seen and None not in seen


def test_the_monitor_of_another_interpreter_is_no_thread_without_an_agent(requests, a_thread, monkeypatch):
    """It has a code object of its own, of the same file."""
    monkeypatch.setattr(threads, "_OURS", {})
    before = threads.answer(requests, SETTINGS, False)["elsewhere"]
    monkeypatch.setattr(threads, "_MONITOR", works.__code__.replace(co_consts=(*works.__code__.co_consts, 7)))
    a_thread(works)
    assert threads.answer(requests, SETTINGS, False)["elsewhere"] == before


def test_no_lock_of_threadings_is_needed(requests, a_thread):
    thread, found = a_thread(works), []
    with threading._active_limbo_lock:
        start_new_thread(lambda: found.append(threads.look(requests, SETTINGS)), ())
        running.wait_until(lambda: found, 10, "it waits for a lock")
    assert of(found[0], thread).name == "worker"


def test_nothing_of_the_applications_own_classes_is_called(requests, a_thread):
    class Hostile(threading.Thread):
        def __getattribute__(self, name):
            if hostile:
                raise SystemExit("called")
            return super().__getattribute__(name)

        def __repr__(self):
            raise SystemExit("called")

    class Text(str):
        def __getitem__(self, place):
            raise SystemExit("called")

    hostile = []
    thread = a_thread(works, kind=Hostile)
    other = a_thread(works)
    other._name = Text("hostile")
    tid = thread.native_id
    hostile.append(True)
    try:
        stacks = threads.look(requests, SETTINGS)
    finally:
        hostile.clear()
    assert [each.name for each in stacks.threads if each.tid in (tid, other.native_id)] in (["worker", None], [None, "worker"])


def test_variables_are_told_when_they_are_asked_for_and_secrets_are_masked(requests, a_thread):
    def has_variables(wait):
        number, password = 7, "swordfish"
        deeper(wait)
        return number, password
    thread = a_thread(has_variables)
    found = of(threads.look(requests, SETTINGS, variables=True), thread)
    shown = dict(found.values[[frame.function.rpartition(".")[2] for frame in found.frames].index("has_variables")])
    assert (shown["number"], "swordfish" in str(found.values), len(found.values)) == ("7", False, len(found.frames))


def test_a_deep_stack_is_cut_in_the_middle_and_says_so(requests, a_thread):
    def recurses(depth, wait):
        if depth:
            return recurses(depth - 1, wait)
        return wait()
    thread = a_thread(lambda wait: recurses(600, wait))
    found = of(threads.look(requests, SETTINGS, variables=True), thread)
    assert (len(found.frames), len(found.values)) == (KEPT_MOST, KEPT_MOST)
    assert found.problem.startswith("cut: ") and found.problem.endswith(" frames in the middle")
    assert found.frames[0].function.endswith("wait") and found.frames[-1].function.endswith("_bootstrap")


def test_threads_beyond_the_bound_are_counted_and_those_with_requests_stay(requests, a_thread, monkeypatch):
    monkeypatch.setattr(threads, "MOST", 1)

    def serves(wait):
        requests.begin({})
        wait()
    a_thread(works)
    thread = a_thread(serves)
    stacks = threads.look(requests, SETTINGS)
    assert [each.tid for each in stacks.threads] == [thread.native_id]
    assert stacks.problem == "threads beyond the bound: 2"


def test_a_thread_that_runs_on_all_the_time_is_whole_or_said_to_move(requests):
    ends = []

    def spins():
        while not ends:
            for _ in range(100):
                one()

    def one():
        return two()

    def two():
        return 2
    thread = threading.Thread(target=spins)
    thread.start()
    try:
        for _ in range(100):
            found = of(threads.look(requests, SETTINGS), thread)
            names = [name for name, _ in inner(found)]
            assert found.problem == MOVING or names in (["two", "one", "spins"], ["one", "spins"], ["spins"])
            time.sleep(0.001)
    finally:
        ends.append(True)
        thread.join(10)


def test_who_moves_at_every_try_has_no_frames(requests, a_thread, monkeypatch):
    thread = a_thread(works)
    monkeypatch.setattr(threads, "_stands", lambda *_: False)
    found = of(threads.look(requests, SETTINGS), thread)
    assert (found.problem, found.frames) == (MOVING, ())


def test_threads_in_another_interpreter_are_counted(requests, a_thread, monkeypatch):
    a_thread(works)
    monkeypatch.setattr(threads, "_OURS", {})
    stacks = threads.look(requests, SETTINGS)
    assert (stacks.threads, stacks.problem) == ((), f"threads in other interpreters: {len(sys._current_frames())}")
    assert threads.answer(requests, SETTINGS, False)["elsewhere"] == len(sys._current_frames())


INTERPRETERS = """
import os, sys, threading
sys.path[:0] = [sys.argv[1]]
from modwsgi_tel.agent import threads
from modwsgi_tel.agent.requests import Requests
from modwsgi_tel.agent.settings import read
interpreters = __import__("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
number = interpreters.create("legacy") if sys.version_info >= (3, 13) else interpreters.create(isolated=False)
told, out = os.pipe()
text = '''
import os, sys, threading
sys.path[:0] = [%r]
from modwsgi_tel.agent import threads
from modwsgi_tel.agent.requests import Requests
from modwsgi_tel.agent.settings import read
def parks():
    stacks = threads.look(Requests(), read(dict(), dict()))
    told = stacks.interpreters == (%d,), [frame.function for thread in stacks.threads for frame in thread.frames][:1], stacks.problem
    os.write(%d, repr(told).encode())
    threading.Event().wait()
thread = threading.Thread(target=parks)
thread.start()
thread.join()
''' % (sys.argv[1], int(number), out)
runs = interpreters.exec if sys.version_info >= (3, 13) else interpreters.run_string
threading.Thread(target=lambda: runs(number, text)).start()
print(os.read(told, 4096).decode())
stacks = threads.look(Requests(), read({}, {}))
print(stacks.interpreters, len(stacks.threads), stacks.problem, flush=True)
os._exit(0)
"""


def test_of_a_real_further_interpreter_only_its_own_threads_are_told_and_the_others_counted():
    pytest.importorskip("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    told = subprocess.run([sys.executable, "-c", INTERPRETERS, running.ROOT], stdout=subprocess.PIPE, timeout=20, text=True,
                          env=running.clean_environment())
    # the thread that runs the other interpreter's code has frames in both
    assert told.stdout.splitlines() == ["(True, ['parks'], 'threads in other interpreters: 2')",
                                        "(0,) 2 threads in other interpreters: 1"]


def test_the_answer_carries_the_same_as_json(requests, a_thread):
    thread = a_thread(works)
    for variables, read_back in ((False, stacks_of_table), (True, stacks_of)):
        data = json.loads(json.dumps(threads.answer(requests, SETTINGS, variables)))
        found, wanted = read_back(data["stacks"]), threads.look(requests, SETTINGS, variables)
        assert of(found, thread) == of(wanted, thread) and data["elsewhere"] == 0


def test_an_answer_that_is_too_long_loses_variables_first_and_then_frames(requests, a_thread, monkeypatch):
    def recurses(depth, wait):
        return recurses(depth - 1, wait) if depth else wait()
    thread = a_thread(lambda wait: recurses(300, wait))
    whole = len(json.dumps(threads.answer(requests, SETTINGS, False)))
    monkeypatch.setattr(threads, "ANSWER_BYTES", whole + 200)
    answer = threads.answer(requests, SETTINGS, True)
    found = stacks_of_table(answer["stacks"])
    assert (found.problem, of(found, thread).problem, of(found, thread).values) == ("variables are left out: too much", None, None)
    monkeypatch.setattr(threads, "FRAMES_MOST", 250)
    found = stacks_of_table(threads.answer(requests, SETTINGS, False)["stacks"])
    assert (len(of(found, thread).frames), of(found, thread).problem.endswith("frames left out after the innermost 75")) == (100, True)


def test_hostile_names_are_bounded_and_can_be_sent(requests, a_thread):
    code = works.__code__.replace(co_name="\ud800" + "f" * 5000, co_filename="g" * 5000 + "\udfff")
    thread = a_thread(types.FunctionType(code, globals()))
    found = [frame for frame in of(threads.look(requests, SETTINGS), thread).frames if frame.file.endswith("g?")]
    assert [len(frame.file) for frame in found] == [400] and len(found[0].function) <= 200
    json.dumps(threads.answer(requests, SETTINGS, True)).encode("ascii")


def test_what_the_kernel_says_is_what_it_says_from_outside(a_thread):
    thread = a_thread(works)
    told = threads.kernel_of(thread.native_id)
    task = kernel.threads(os.getpid())[thread.native_id]
    assert (told.state, told.wait) == (kernel.state(task), kernel.wait(task))
    assert threads.kernel(thread.native_id) == (f"waiting {told.wait}", told.cpu_s)
    for tid in (None, 4194305, -1):
        assert threads.kernel(tid) == ("", None)


def test_its_table_of_calls_is_a_part_of_the_whole_one():
    assert threads._CALLS and threads._CALLS.items() <= kernel._SYSCALLS[os.uname().machine].items()


def test_a_tid_that_this_process_does_not_have_is_not_told(requests):
    thread = threading.current_thread()
    before, thread._native_id = thread._native_id, 1    # as in a child that was forked behind Python's back
    try:
        assert threads.tids(requests)[thread.ident] == (None, thread.name)
    finally:
        thread._native_id = before


def test_a_look_at_many_threads_is_quick(requests, a_thread):
    for _ in range(50):
        a_thread(works)
    before = time.perf_counter()
    for _ in range(5):
        threads.answer(requests, SETTINGS, False)
    assert (time.perf_counter() - before) / 5 < 0.25


def test_who_has_what_a_thread_waits_for_is_told(requests, a_thread):
    lock = threading.RLock()

    def holds(wait):
        requests.begin({"mod_wsgi.request_id": "holder"})
        with lock:
            wait()

    def wants(wait):
        requests.begin({"mod_wsgi.request_id": "waiter"})
        with lock:
            wait()
    a_thread(holds)
    thread = threading.Thread(target=wants, args=(lambda: None,), daemon=True)
    thread.start()

    def told():
        found = [each for each in threads.look(requests, SETTINGS).threads if each.tid == thread.native_id]
        return found and found[0].wait and "rlock that request holder has" in found[0].wait and found[0].wait
    assert running.wait_until(told, 10, "it waits").endswith(", for rlock that request holder has")
