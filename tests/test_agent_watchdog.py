"""The watchdog: what faulthandler writes while C code holds the GIL is read whole, whatever it says, and it never hurts."""
import faulthandler
import fcntl
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time

import pytest

import interpreters
import running
from descriptors import another_file_at
from modwsgi_tel.agent import watchdog
from modwsgi_tel.agent.control import PREFIX
from modwsgi_tel.agent.requests import Requests
from modwsgi_tel.agent.watchdog import FRAMES_MOST, THREADS_MOST, Watchdog, parse

OWN = faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later


@pytest.fixture
def requests():
    return Requests()


@pytest.fixture
def a_dog(tmp_path, requests):
    """Makes Watchdogs, which are closed at the end."""
    made = []
    OWN[1]()                            # pytest's own, which would be seen
    running.wait_until(lambda: not watchdog._has_timer(), 10, "its thread does not end")

    def make(folder=str(tmp_path), number=0, timeout=60.0):
        made.append(Watchdog(folder, number, timeout, requests))
        return made[-1]
    yield make
    for dog in reversed(made):
        dog.close()
    assert (faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later) == OWN


# --- what faulthandler writes -------------------------------------------------------------------

OLD = '''Timeout (0:00:05)!
Thread 0x00007f13d7fff700 (most recent call first):
  File "/usr/lib/python3.9/sre.py", line 199 in match
  File "/srv/app.py", line 12 in view

Thread 0x00007f13dcbf6740 (most recent call first):
  File "/srv/main.py", line 3 in <module>
'''
NEW = '''Timeout (0:00:05)!
Thread 0x00007f13d7fff700 [request one] (most recent call first):
  File "/srv/a\\xe9.py", line ??? in view
  File ???, line 7 in f...
  ...

Current thread 0x00007f13dcbf6740 [main] (most recent call first):
  Garbage-collecting
  <no Python frame>
'''


@pytest.mark.parametrize("text, wanted", [
    ("", []),
    (OLD, [(0x7f13d7fff700, [("match", "/usr/lib/python3.9/sre.py", 199), ("view", "/srv/app.py", 12)], False, False),
           (0x7f13dcbf6740, [("<module>", "/srv/main.py", 3)], False, False)]),
    (NEW, [(0x7f13d7fff700, [("view", "/srv/a\\xe9.py", None), ("f...", "???", 7)], False, True),
           (0x7f13dcbf6740, [], True, False)]),
    ("Timeout (0:00:05)!\n<Cannot show all threads while the GIL is disabled>\n", []),
    (OLD + NEW, parse(NEW)),                                                    # the last dump counts
    (OLD + "Fatal Python error: x\n", parse(OLD)),
    ('Thread 0x1 (most recent call first):\n  File "a", line 3 in b", line 4 in c\n', [(1, [("c", 'a", line 3 in b', 4)], False, False)]),
    ('  File "a", line 3 in b\n', []),
    ('Thread 0x1 (most recent call first):\n  File "a", line 3333333333 in b\n', [(1, [], False, False)]),
])
def test_the_text_of_every_version_is_read(text, wanted):
    assert parse(text) == wanted


def test_its_bounds_hold():
    frames = '  File "/%s", line 1 in %s\n' % ("f" * 2000, "g" * 2000) * (FRAMES_MOST + 5)
    found = parse("".join("Thread 0x%x (most recent call first):\n%s" % (at, frames if at == 1 else "") for at in range(1, THREADS_MOST + 9)))
    assert (len(found), len(found[0][1]), found[0][3]) == (THREADS_MOST, FRAMES_MOST, True)
    assert {(len(function), len(file)) for function, file, _ in found[0][1]} == {(600, 600)}


def test_any_text_gives_a_list_of_bounded_threads():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    draw = random.Random(seed)
    pieces = re.split(r"(\W)", OLD + NEW)
    for _ in range(300):
        text = "".join(draw.choice(pieces) for _ in range(draw.randrange(300)))
        for ident, frames, current, cut in parse(text):
            assert 0 <= ident < 1 << 64 and all(type(line) in (int, type(None)) for _, _, line in frames)
            assert (type(current), type(cut)) == (bool, bool)


def test_a_dump_becomes_stacks_with_the_outermost_frames_missing_where_it_cut_them():
    stacks = watchdog.stacks_of(NEW, 5.0)
    assert [(thread.problem, [(frame.function, frame.line) for frame in thread.frames]) for thread in stacks.threads] == [
        ("cut: after the innermost 2 frames", [("view", None), ("f...", 7)]), (None, [])]


# --- its file -----------------------------------------------------------------------------------

def test_its_file_is_for_its_user_and_group_alone_and_goes_with_it(a_dog, tmp_path):
    dog = a_dog()
    found = os.lstat(dog.path)
    assert dog.path == str(tmp_path / f"{PREFIX}.{os.getpid()}.0.dump")
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, dog.problem) == (0o640, os.geteuid(), os.getegid(), "")
    dog.close()
    assert os.listdir(tmp_path) == []


def test_a_stale_file_of_a_former_process_is_replaced(a_dog, tmp_path):
    path = tmp_path / f"{PREFIX}.{os.getpid()}.0.dump"
    path.write_text("of long ago")
    dog = a_dog()
    assert (dog.path, dog.problem, path.read_text()) == (str(path), "", "")


def test_what_killed_processes_left_is_swept_up_and_nothing_else(a_dog, tmp_path):
    names = [f"{PREFIX}.{number}.0.dump" for number in range(1, 5)]
    for name in (*names, "another.dump"):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (1.0, 1.0))
    os.utime(tmp_path / names[0])       # young: it may not be locked yet
    os.unlink(tmp_path / names[3])
    (tmp_path / names[3]).symlink_to("another.dump")
    os.utime(tmp_path / names[3], (1.0, 1.0), follow_symlinks=False)
    with open(tmp_path / names[1], encoding="ascii") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        own = os.path.basename(a_dog().path)
        assert sorted(os.listdir(tmp_path)) == sorted([names[0], names[1], names[3], "another.dump", own])


@pytest.mark.parametrize("what", ["link", "folder", "fifo", "used"])
def test_what_else_has_its_name_is_left_alone(a_dog, tmp_path, what):
    path, precious = tmp_path / f"{PREFIX}.{os.getpid()}.0.dump", tmp_path / "precious"
    precious.write_text("precious")
    if what == "link":
        path.symlink_to(precious)
    elif what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        a_dog()                         # alive, in another container with the same pid
    before = os.lstat(path)
    dog = a_dog()
    assert re.fullmatch(re.escape(f"{tmp_path}/{PREFIX}.{os.getpid()}.0") + r"\.[0-9a-f]{8}\.dump", dog.path)
    assert dog.problem == f"{path} is another's: the watchdog's file has another name"
    assert (os.lstat(path).st_ino, precious.read_text()) == (before.st_ino, "precious")


def test_without_any_folder_it_works_without_a_path(a_dog):
    dog = a_dog("/nonexistent", timeout=0.1)
    assert (dog.path, "No such file" in dog.problem) == ("", True)
    assert dog.arm(0.0)
    running.wait_until(dog.picked, 10, "it does not fire")


def test_switched_off_it_does_nothing(a_dog):
    dog = a_dog(timeout=0)
    assert (dog.path, dog.arm(0.0), dog.due(True), dog.picked()) == ("", False, None, None)
    dog.run(1.0, True)
    dog.cancel()


# --- armed --------------------------------------------------------------------------------------

def test_it_is_armed_once_a_second_at_most_pushed_back_while_requests_run_and_then_taken_away(a_dog):
    dog = a_dog()
    assert dog.due(False) is None
    assert [dog.arm(now) for now in (10.0, 10.1, 11.5)] == [True, False, False]     # armed: the monitor pushes it back
    assert (dog.arm_at, dog.due(True), dog.due(False)) == (11.0, 11.0, 11.0)
    dog.run(11.0, True)
    assert dog.due(True) == 12.0
    dog.run(12.0, False)
    assert (dog.due(False), dog.due(True)) == (None, 12.0)
    assert [dog.arm(now) for now in (11.9, 12.0)] == [False, True]


def test_it_fires_once_and_what_it_wrote_has_names_and_requests(a_dog, requests):
    request = requests.begin({"PATH_INFO": "/x", "mod_wsgi.request_id": "abc"})
    dog = a_dog(timeout=0.05)
    dog.arm(time.monotonic())
    stacks = running.wait_until(dog.picked, 10, "it does not fire")
    [thread] = [thread for thread in stacks.threads if thread.request]
    assert (thread.tid, thread.name, thread.request.request_id, thread.request.how) == (
        threading.get_native_id(), "MainThread", "abc", "agent")
    assert any(frame.function == "test_it_fires_once_and_what_it_wrote_has_names_and_requests" for frame in thread.frames)
    assert (dog.picked(), dog.fired, os.path.getsize(dog.path)) == (None, 1, 0)
    requests.end(request)
    later = requests.begin({})          # by this very thread, after the dump
    later.began_wall = stacks.at + 10
    again = a_dog(number=1, timeout=0.05)
    again.arm(time.monotonic())
    assert [thread.request for thread in running.wait_until(again.picked, 10, "it does not fire").threads if thread.request] == []


def test_a_request_that_is_over_when_the_dump_is_read_is_named_all_the_same(a_dog, requests):
    """What held the GIL ends its request before any other thread runs."""
    request = requests.begin({"PATH_INFO": "/x", "mod_wsgi.request_id": "abc"})
    request.began_wall = time.time() - 1.0
    dog = a_dog(timeout=0.05)
    dog.arm(time.monotonic())
    running.wait_until(lambda: os.path.getsize(dog.path), 10, "it does not fire")
    at = os.stat(dog.path).st_mtime
    requests.end(request)
    request.ended = request.began + 2.0
    requests.was_long(request)
    requests.begin({"mod_wsgi.request_id": "later"}).began_wall = at + 1.0
    assert [thread.request.request_id for thread in dog.picked().threads if thread.request] == ["abc"]
    assert [{ident: each.log_id for ident, each in requests.at(wall).items()} for wall in (at - 2.0, at + 2.0)] == [
        {}, {threading.get_ident(): "later"}]


def test_where_it_has_written_it_is_not_pushed_back_before_that_is_picked(a_dog):
    dog = a_dog(timeout=0.05)
    dog.arm(0.0)
    running.wait_until(lambda: os.path.getsize(dog.path), 10, "it does not fire")
    dog.run(5.0, True)
    assert dog.due(True) == 1.0 and dog.picked() and dog.due(True) == 1.0
    dog.run(6.0, True)
    assert dog.due(True) == 7.0


def test_it_stands_back_where_the_application_uses_faulthandler_itself(a_dog, tmp_path):
    dog = a_dog(timeout=0.1)
    assert dog.arm(1.0)
    with open(tmp_path / "theirs", "w+", encoding="ascii") as theirs:
        faulthandler.dump_traceback_later(0.3, file=theirs)
        assert dog.problem.endswith("the application uses faulthandler.dump_traceback_later itself")
        dog.run(5.0, True)
        assert (dog.arm(9.0), dog.due(True)) == (False, None)
        dog.cancel()
        running.wait_until(lambda: os.path.getsize(tmp_path / "theirs"), 10, "their timer was taken away")
        assert os.path.getsize(dog.path) == 0
        faulthandler.cancel_dump_traceback_later()
    assert (dog.problem, dog.arm(9.0)) == ("", True)


def test_a_timer_of_before_is_seen(a_dog, tmp_path):
    with open(tmp_path / "theirs", "w", encoding="ascii") as theirs:
        faulthandler.dump_traceback_later(60, file=theirs)
        try:
            assert "itself" in a_dog().problem
        finally:
            OWN[1]()


def test_threads_that_begin_requests_at_once_do_no_harm(a_dog):
    dog, errors = a_dog(), []

    def arms():
        try:
            for now in range(200):
                dog._arm(float(now))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=arms) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (errors, dog.problem, any(thread.is_alive() for thread in threads)) == ([], "", False)


def precious(tmp_path):
    """(descriptor, path) of a file of the application's."""
    path = str(tmp_path / "precious")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC), path


CLOSED = "no watchdog for the GIL: the application closed its file"


@pytest.mark.parametrize("use", [lambda dog: dog.run(5.0, True), lambda dog: dog.picked(), lambda dog: dog._arm(9.0)])
def test_where_its_number_is_the_applications_file_it_takes_its_timer_away_and_touches_nothing(a_dog, tmp_path, use):
    dog = a_dog(timeout=60.0)
    path, number = dog.path, dog._file
    assert dog.arm(1.0)
    theirs, name = precious(tmp_path)
    try:
        os.write(theirs, OLD.encode())
        with another_file_at(number, theirs):
            use(dog)
            assert (dog.problem, dog.path, dog.arm(99.0), dog.due(True), dog.picked()) == (CLOSED, "", False, None, None)
            dog.close()
            assert os.path.sameopenfile(number, theirs)
        running.wait_until(lambda: not watchdog._has_timer(), 10, "the timer runs on")
        with open(name, encoding="ascii") as handle:
            assert (handle.read(), os.path.exists(path)) == (OLD, False)
    finally:
        os.close(theirs)
    assert (faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later) == OWN


def test_where_its_file_is_closed_it_says_so_and_is_not_armed(a_dog):
    dog = a_dog()
    os.close(dog._file)
    assert (dog.arm(1.0), dog.problem, dog.due(True)) == (False, CLOSED, None)


@pytest.mark.parametrize("end", [lambda dog: dog.close(), lambda dog: dog.forked()])
def test_at_the_end_a_number_that_is_the_applications_is_not_closed(a_dog, tmp_path, end):
    dog = a_dog()
    number, (theirs, _) = dog._file, precious(tmp_path)
    try:
        with another_file_at(number, theirs):
            end(dog)
            assert os.path.sameopenfile(number, theirs)
    finally:
        os.close(theirs)


# --- in processes of their own ------------------------------------------------------------------

FORKS = '''
import os, sys, time
sys.path.insert(0, sys.argv[1])
from modwsgi_tel.agent.requests import Requests
from modwsgi_tel.agent.watchdog import Watchdog
dog = Watchdog(sys.argv[2], 0, 60.0, Requests())
assert dog.arm(time.monotonic())
child = os.fork()
if not child:
    dog.forked()
    sys.exit(0 if (dog.arm(9e9), dog.picked(), os.path.exists(dog.path)) == (False, None, True) else 7)
deadline = time.monotonic() + 10
while time.monotonic() < deadline:
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        break
    time.sleep(0.01)
else:
    os.kill(child, 9)
    status = "the child hangs"
print(status, dog.arm(time.monotonic()), os.path.exists(dog.path))
'''
HELD = '''
import json, os, re, sys, threading, time
sys.path.insert(0, sys.argv[1])
from modwsgi_tel.agent.requests import Requests
from modwsgi_tel.agent.watchdog import Watchdog
requests = Requests()
dog = Watchdog(sys.argv[2], 0, 0.3, requests)
def holds_the_gil():
    requests.begin({})
    assert dog.arm(time.monotonic())
    print(json.dumps(dog.path), flush=True)
    re.match(r"(a+)+$", "a" * 60 + "b")                         # takes years
threading.Thread(target=holds_the_gil).start()
'''
VERSIONS = ("3.9", "3.11", "3.13", "3.14")


@pytest.fixture
def place(request):
    """(command, folder with our sources, folder for files, root) of a version; folders as that one sees them."""
    command, root = interpreters.to_read(request.param)
    folder = tempfile.mkdtemp(prefix="mwt-", dir=os.path.join(root, "tmp"))
    try:
        own = running.ROOT
        if root != "/":
            running.copy_of_the_sources(running.ROOT, os.path.join(folder, "sources"))
            own = "/" + os.path.relpath(os.path.join(folder, "sources"), root)
        yield command, own, "/" + os.path.relpath(folder, root), root
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("place", VERSIONS, indirect=True)
def test_a_child_of_an_armed_parent_ends_and_leaves_the_parents_file(place):
    command, own, folder, _ = place
    told = subprocess.run([*command, "-c", FORKS, own, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, text=True,
                          env=running.clean_environment(PYTHONWARNINGS="ignore"))
    assert (told.stdout, told.stderr) == ("0 True True\n", "")


@pytest.mark.parametrize("place", VERSIONS, indirect=True)
def test_a_catastrophic_regular_expression_is_named_while_it_still_holds_the_gil(place):
    command, own, folder, root = place
    with subprocess.Popen([*command, "-c", HELD, own, folder], stdout=subprocess.PIPE, env=running.clean_environment()) as process:
        try:
            path = os.path.join(root, json.loads(process.stdout.readline()).lstrip("/"))

            def written():
                with open(path, encoding="ascii") as handle:
                    return next((frames for _, frames, _, _ in parse(handle.read()) if any(
                        function == "holds_the_gil" for function, _, _ in frames)), None)

            frames = running.wait_until(written, 15, "it writes nothing")
            assert [(function, line) for function, _, line in frames if function == "holds_the_gil"] == [("holds_the_gil", 12)]
            assert frames[0][0] == "match" and "/re" in frames[0][1]
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(10)


def test_at_the_end_of_the_process_with_the_timer_armed_nothing_hangs(tmp_path):
    text = HELD.replace('re.match(r"(a+)+$", "a" * 60 + "b")', "dog.close") + "import atexit; atexit.register(dog.close)\n"
    told = subprocess.run([sys.executable, "-c", text, running.ROOT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=20, env=running.clean_environment())
    assert (told.returncode, told.stderr, os.listdir(tmp_path)) == (0, b"", [])
