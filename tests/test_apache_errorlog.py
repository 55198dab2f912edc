"""Error logs: what Apache, mod_wsgi 4.9 and 6.1, gunicorn and uWSGI wrote becomes events with places; a healthy log becomes none.

The samples are lines of staged servers, with other paths.
"""

import gzip
import itertools
import os
import random
import re
import signal
import subprocess
import time

import pytest

import apache
import running
import wsgiservers
from modwsgi_tel.apache import config, errorlog, kinds, logfiles, loglines

AT = time.mktime((2026, 11, 21, 22, 21, 30, 0, 0, -1))     # the first second of all samples


def stamped(text, at=AT):
    """A sample as a log: @ at the beginning of a line is Apache's date, a second later each time."""
    seconds = itertools.count()

    def date(found):
        then = time.localtime(at + next(seconds))
        return time.strftime("[%a %b %d %H:%M:%S.250000 %Y] ", then)
    return re.sub(r"^@", date, text, flags=re.M)


class Logs:
    """Writes logs into a folder and reads them as `why` does."""

    def __init__(self, folder):
        self.folder = str(folder)

    def write(self, text, name="error.log", modified=None):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        if modified is not None:
            os.utime(path, (modified, modified))
        return path

    def read(self, text, since=AT - 60, **more):
        return errorlog.read([logfiles.Log(self.write(text, **more), "error.log", "a test")], since)


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path)


def told(reading):
    """[(id, severity, group, place, function, text, count)] of a Reading."""
    return [(event.id, event.severity, event.group, event.place, event.function, event.text, event.count) for event in reading.events]


CRASH_4 = """\
@[wsgi:error] [pid 80:tid 84] [client 10.0.0.9:34006] Truncated or oversized response headers received from daemon process 'shop': /srv/shop/app.py
@[core:notice] [pid 76:tid 76] AH00052: child pid 77 exit signal Segmentation fault (11)
"""
CRASH_6 = """\
Fatal Python error: Segmentation fault

Current thread 0x00007fc43d6426c0 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/srv/shop/app.py", line 15 in application

Thread 0x00007fc43fe9e780 (most recent call first):
  File "/srv/shop/other.py", line 3 in run
@[wsgi:error] [pid 80:tid 84] [client 10.0.0.9:34006] [script /srv/shop/app.py] WSGI0147: Error reading response headers from daemon process 'shop' (Connection reset by peer).
@[core:notice] [pid 76:tid 76] AH00051: child pid 77 exit signal Segmentation fault (11), possible coredump in /tmp
"""


def test_a_crash_names_the_process_the_group_and_where_faulthandler_saw_it(logs):
    assert told(logs.read(stamped("@[core:notice] [pid 76:tid 76] AH00094: Command line: 'x'\n" + CRASH_6))) == [
        ("no-response", "warning", "shop", "", "", "Error reading response headers from daemon process 'shop' (Connection reset by peer).", 1),
        ("crash", "critical", "shop", "/srv/shop/app.py:15", "application",
         "child pid 77 exit signal Segmentation fault (11), possible coredump in /tmp: Fatal Python error: Segmentation fault", 1)]
    [_, crash] = logs.read(stamped("@[core:notice] [pid 76:tid 76] AH00094: x\n" + CRASH_6)).events
    assert (crash.pid, crash.tid, crash.level, crash.at, crash.first, crash.pids) == (77, 76, "notice", AT + 2.25, AT + 2.25, (77,))
    assert [(event.id, event.group, event.pid) for event in logs.read(stamped(CRASH_4)).events] == [
        ("no-response", "shop", 80), ("crash", "shop", 77)]


def test_the_last_word_of_a_process_on_a_quiet_server_is_not_taken_for_an_old_one(logs):
    old = time.strftime("[%a %b %d %H:%M:%S 2026] ", time.localtime(AT - 7200)) + "[core:notice] [pid 76:tid 76] AH00094: Command line: 'x'\n"
    assert [(event.id, event.place, event.at) for event in logs.read(old + stamped(CRASH_6), modified=AT + 2).events] == [
        ("no-response", "", AT + 0.25), ("crash", "/srv/shop/app.py:15", AT + 1.25)]
    fault = CRASH_6.partition("@")[0]
    assert [(event.id, event.place, event.at) for event in logs.read(old + fault, modified=AT + 2).events] == [
        ("crash", "/srv/shop/app.py:15", AT + 2)]
    assert logs.read(old + fault, modified=AT - 7100).events == []
    late = "Traceback (most recent call last):\n  File \"/srv/shop/app.py\", line 3, in f\nMemoryError\n"
    assert logs.read(old + late + stamped(HEALTHY), modified=AT + 30).counts.keys() == logs.read(stamped(HEALTHY)).counts.keys()


def test_the_same_crash_again_and_again_is_one_event_that_counts(logs):
    text = "".join("@[core:notice] [pid 76:tid 76] AH00052: child pid %d exit signal Abort (6)\n" % pid for pid in range(100, 130))
    reading = logs.read(stamped(text))
    [crash] = reading.events
    assert (crash.count, crash.first, crash.at, crash.pid, crash.pids) == (30, AT + 0.25, AT + 29.25, 129, tuple(range(100, 120)))
    assert reading.counts == {"crash": 30} and reading.lines == 31 and reading.problems == []


EXCEPTION_4 = """\
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240] mod_wsgi (pid=77): Exception occurred processing WSGI script '/srv/shop/app.py'.
@[wsgi:error] [pid 78:tid 91] [remote 10.0.0.9:38241] something that another thread says
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240] Traceback (most recent call last):
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240]   File "/srv/shop/app.py", line 20, in application
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240]     return deep(environ)
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240]            ^^^^^^^^^^^^^
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240]   File "/srv/shop/deep.py", line 6, in deep
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240]     raise json.loads(text)
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240]   File "/usr/lib/python3.11/json/__init__.py", line 346, in loads
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240] ValueError: token=abcdefgh12345 is wrong
"""


def test_an_exception_has_its_place_in_the_application_and_no_secrets(logs):
    [event] = logs.read(stamped(EXCEPTION_4)).events
    assert told(logs.read(stamped(EXCEPTION_4))) == [
        ("exception", "warning", "", "/srv/shop/deep.py:6", "deep", "ValueError: token=*** is wrong", 1)]
    assert (event.pid, event.tid, event.level, event.script, event.places) == (77, 90, "error", "/srv/shop/app.py", {"/srv/shop/deep.py:6": 1})


@pytest.mark.parametrize("written, name", [
    (r"/srv/sh\xc3\xb6p/deep.py", "/srv/shöp/deep.py"), (r"/srv/sh\xc3p/deep.py", r"/srv/sh\xc3p/deep.py"), (r"/srv/\xc2\x9b1m/deep.py", r"/srv/\xc2\x9b1m/deep.py"),
    (r"/srv/sh\\xc3\xb6p/deep.py", r"/srv/sh\\xc3\xb6p/deep.py")], ids=["letters", "no UTF-8", "a control code", "a backslash in the name"])
def test_letters_outside_of_ascii_are_read_as_they_were_before_apache_wrote_them(logs, written, name):
    [event] = logs.read(stamped(EXCEPTION_4.replace("/srv/shop/deep.py", written))).events
    assert event.place == f"{name}:6"


def test_of_exceptions_in_a_chain_the_last_is_told(logs):
    text = EXCEPTION_4 + """\
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240]\x20
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240] The above exception was the direct cause of the following exception:
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240]\x20
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240] Traceback (most recent call last):
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240]   File "/srv/shop/app.py", line 23, in application
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240] RuntimeError: while serving
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:38240] more of what it says
"""
    assert told(logs.read(stamped(text))) == [
        ("exception", "warning", "", "/srv/shop/app.py:23", "application", "RuntimeError: while serving", 1)]


def test_mod_wsgi_6_tells_the_group_and_no_traceback(logs):
    text = """\
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:5] WSGI0174: [script /srv/shop/app.py] KeyError exception raised processing WSGI script '/srv/shop/app.py' for main interpreter of daemon process 'shop'.
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:5] KeyError: 'user'
"""
    [event] = logs.read(stamped(text)).events
    assert told(logs.read(stamped(text))) == [("exception", "warning", "shop", "", "", "KeyError: 'user'", 1)]
    assert event.script == "/srv/shop/app.py"


@pytest.mark.parametrize("said, kind", [
    ("MemoryError", "memory-error"), ("OSError: [Errno 24] Too many open files: '/srv/x'", "too-many-files"),
    ("OSError: [Errno 28] No space left on device: '/tmp/x'", "no-space"),
    ("OSError: Apache/mod_wsgi failed to write response data: Broken pipe", "client-closed"),
    ("BrokenPipeError: [Errno 32] Broken pipe", "exception"), ("ZeroDivisionError: division by zero", "exception")])
def test_what_an_exception_lacks_is_what_it_is_called_by(logs, said, kind):
    text = EXCEPTION_4.replace("ValueError: token=abcdefgh12345 is wrong", said)
    assert [(event.id, event.place, event.text) for event in logs.read(stamped(text)).events] == [(kind, "/srv/shop/deep.py:6", said)]


TIMEOUT_4 = """\
@[wsgi:info] [pid 77:tid 99] mod_wsgi (pid=77): Daemon process request time limit exceeded, stopping process 'shop'.
@[wsgi:info] [pid 77:tid 77] mod_wsgi (pid=77): Shutdown requested 'shop'.
@[wsgi:info] [pid 77:tid 77] mod_wsgi (pid=77): Dumping stack trace for active Python threads.
@[wsgi:info] [pid 77:tid 77] mod_wsgi (pid=77): Thread 139731896039104 executing file "/usr/lib/python3.11/socket.py", line 706, in readinto
@[wsgi:info] [pid 77:tid 77] mod_wsgi (pid=77): called from file "/srv/shop/backend.py", line 28, in ask,
@[wsgi:info] [pid 77:tid 77] mod_wsgi (pid=77): called from file "/srv/shop/app.py", line 9, in application.
@[wsgi:info] [pid 77:tid 77] mod_wsgi (pid=77): Thread 139731904431808 executing file "/srv/shop/backend.py", line 28, in ask
@[wsgi:info] [pid 77:tid 77] mod_wsgi (pid=77): Thread 139731912824512 executing file "/srv/shop/pool.py", line 4, in work
@[wsgi:info] [pid 77:tid 97] mod_wsgi (pid=77): Aborting process 'shop'.
@[wsgi:error] [pid 80:tid 81] [client 10.0.0.9:5] Truncated or oversized response headers received from daemon process 'shop': /srv/shop/app.py
@[wsgi:info] [pid 76:tid 76] mod_wsgi (pid=77): Process 'shop' has died, deregister and restart it.
@[wsgi:info] [pid 76:tid 76] mod_wsgi (pid=77): Process 'shop' terminated normally, exit code 0
"""
TIMEOUT_6 = """\
@[wsgi:info] [pid 77:tid 99] Dumping stack trace for thread 0 of daemon process 'shop' which has exceeded request-timeout of 1 seconds, before injecting RequestTimeout to unwind it.
@[wsgi:info] [pid 77:tid 99] Thread 140381355394752 executing file "/srv/shop/backend.py", line 28, in ask
@[wsgi:info] [pid 77:tid 99] Injected RequestTimeout into thread 0 of daemon process 'shop'.
@[wsgi:info] [pid 77:tid 99] Daemon process request time limit exceeded, stopping daemon process 'shop'.
@[wsgi:info] [pid 77:tid 77] Dumping stack trace for active Python threads of main interpreter in daemon process 'shop'.
@[wsgi:info] [pid 77:tid 77] Thread 140381338601152 executing file "/srv/shop/backend.py", line 28, in ask
"""


def test_a_request_timeout_has_the_places_of_the_stacks_that_mod_wsgi_dumps(logs):
    events = {event.id: event for event in logs.read(stamped(TIMEOUT_4)).events}
    assert list(events) == ["request-timeout", "shutdown-timeout", "no-response", "daemon-restarted"]
    late = events["request-timeout"]
    assert (late.severity, late.pid, late.group, late.place, late.function, late.places) == (
        "warning", 77, "shop", "/srv/shop/backend.py:28", "ask", {"/srv/shop/backend.py:28": 2, "/srv/shop/pool.py:4": 1})
    assert [(event.id, event.severity, event.group, event.place, event.pid) for event in logs.read(stamped(TIMEOUT_6)).events] == [
        ("request-timeout", "warning", "shop", "/srv/shop/backend.py:28", 77)] * 2


def test_a_daemon_that_exits_is_told_and_one_that_crashed_is_told_once(logs):
    text = """\
@[wsgi:info] [pid 76:tid 76] mod_wsgi (pid=77): Process 'shop' terminated by signal 3
@[core:notice] [pid 76:tid 76] AH00052: child pid 78 exit signal Segmentation fault (11)
@[wsgi:info] [pid 76:tid 76] Process 'blog' (pid=78) terminated by signal 11
@[wsgi:info] [pid 76:tid 76] Process 'blog' (pid=79) terminated normally, exit code 0
"""
    assert [(event.id, event.group, event.pid) for event in logs.read(stamped(text)).events] == [
        ("daemon-died", "shop", 77), ("crash", "blog", 78)]


def test_a_killed_daemon_is_told_but_not_one_that_was_killed_for_its_time():
    lines = [loglines.parse(line, loglines.Dates(2026)) for line in (
        "[Sat Nov 21 22:21:30 2026] [wsgi:info] [pid 4:tid 4] Exceeded CPU time limit; waiting for in-flight requests to complete in daemon process 'shop'.",
        "[Sat Nov 21 22:21:32 2026] [wsgi:info] [pid 1:tid 1] Process 'shop' (pid=4) terminated by signal 9",
        "[Sat Nov 21 22:21:33 2026] [wsgi:info] [pid 1:tid 1] mod_wsgi (pid=5): Process 'shop' terminated by signal 9")]
    gatherer = errorlog._Gatherer()
    for line in lines:
        gatherer.take(line, line.at)
    gatherer.end()
    assert [(event.id, event.pid, event.group) for event in gatherer.events()[0]] == [("cpu-limit", 4, "shop"), ("killed", 5, "shop")]


def test_a_script_that_cannot_be_loaded_is_one_event_with_its_line(logs):
    syntax = """\
@[wsgi:error] [pid 77:tid 77] mod_wsgi (pid=77, process='shop', application=''): Could not read/compile source file '/srv/shop/app.py'.
@[wsgi:error] [pid 77:tid 77] mod_wsgi (pid=77): Exception occurred processing WSGI script '/srv/shop/app.py'.
@[wsgi:error] [pid 77:tid 77]   File "/srv/shop/app.py", line 2
@[wsgi:error] [pid 77:tid 77]     return [b"x"
@[wsgi:error] [pid 77:tid 77]            ^
@[wsgi:error] [pid 77:tid 77] SyntaxError: '[' was never closed
"""
    imported = """\
@[wsgi:error] [pid 78:tid 78] [remote 10.0.0.9:5] mod_wsgi (pid=78): Failed to exec Python script file '/srv/shop/app.py'.
@[wsgi:error] [pid 78:tid 78] [remote 10.0.0.9:5] mod_wsgi (pid=78): Exception occurred processing WSGI script '/srv/shop/app.py'.
@[wsgi:error] [pid 78:tid 78] [remote 10.0.0.9:5] Traceback (most recent call last):
@[wsgi:error] [pid 78:tid 78] [remote 10.0.0.9:5]   File "/srv/shop/app.py", line 1, in <module>
@[wsgi:error] [pid 78:tid 78] [remote 10.0.0.9:5]     import nosuch
@[wsgi:error] [pid 78:tid 78] [remote 10.0.0.9:5] ModuleNotFoundError: No module named 'nosuch'
"""
    assert told(logs.read(stamped(syntax + imported))) == [
        ("script-failed", "critical", "shop", "/srv/shop/app.py:2", "", "SyntaxError: '[' was never closed", 1),
        ("script-failed", "critical", "", "/srv/shop/app.py:1", "<module>", "ModuleNotFoundError: No module named 'nosuch'", 1)]


# One line each, as it was seen, and what it is
ONE_LINE = [
    ("@[wsgi:error] [pid 1:tid 2] [client 1.2.3.4:5] Timeout when reading response headers from daemon process 'g': /srv/a.py", "response-timeout", "g"),
    ("@[wsgi:error] [pid 1:tid 2] [client 1.2.3.4:5] [script /srv/a.py] WSGI0145: Timeout when reading response headers from daemon process 'g'.",
     "response-timeout", "g"),
    ("@[wsgi:error] [pid 1:tid 2] (11)Resource temporarily unavailable: [client 1.2.3.4:5] mod_wsgi (pid=1): Unable to connect to WSGI daemon process 'g' "
     "on '/run/wsgi.1.0.1.sock' after multiple attempts as listener backlog limit was exceeded or the socket does not exist.", "backlog-full", "g"),
    ("@[wsgi:error] [pid 1:tid 2] (11)Resource temporarily unavailable: [client 1.2.3.4:5] [script /srv/a.py] WSGI0116: Unable to connect to WSGI daemon "
     "process 'g' on '/run/wsgi.1.0.1.sock' after multiple attempts as listener backlog limit was exceeded or the socket does not exist.", "backlog-full", "g"),
    ("@[wsgi:error] [pid 1:tid 2] (13)Permission denied: [client 1.2.3.4:5] mod_wsgi (pid=1): Unable to connect to WSGI daemon process 'g' on "
     "'/run/wsgi.1.0.1.sock' as user with uid=33.", "connect-failed", "g"),
    ("@[wsgi:error] [pid 1:tid 2] [remote 1.2.3.4:5] [script /srv/a.py] WSGI0084: Queue timeout expired for WSGI daemon process 'g'.", "queue-timeout", "g"),
    ("@[wsgi:info] [pid 1:tid 2] mod_wsgi (pid=1): Daemon process deadlock timer expired, stopping process 'g'.", "deadlock-timeout", "g"),
    ("@[wsgi:info] [pid 1:tid 2] Application startup timer expired, stopping daemon process 'g'.", "startup-timeout", "g"),
    ("@[wsgi:info] [pid 1:tid 2] mod_wsgi (pid=1): Exceeded CPU time limit, waiting for requests to complete 'g'.", "cpu-limit", "g"),
    ("@[wsgi:info] [pid 1:tid 2] Maximum requests reached; triggering immediate shutdown of daemon process 'g'.", "maximum-requests", "g"),
    ("@[mpm_event:error] [pid 1:tid 1] AH00484: server reached MaxRequestWorkers setting, consider raising the MaxRequestWorkers setting", "workers-full", ""),
    ("@[mpm_prefork:error] [pid 1] AH00161: server reached MaxRequestWorkers setting, consider raising the MaxRequestWorkers setting", "workers-full", ""),
    ("@[mpm_event:error] [pid 1:tid 1] AH03490: scoreboard is full, not at MaxRequestWorkers.Increase ServerLimit.", "scoreboard-full", ""),
    ("@[wsgi:error] [pid 1:tid 2] [client 1.2.3.4:5] Target WSGI script not found or unable to stat: /srv/a.py", "script-missing", ""),
    ("@[wsgi:error] [pid 1:tid 2] [client 1.2.3.4:5] WSGI0135: Target WSGI script not found or unable to stat.", "script-missing", ""),
    ("@[wsgi:error] [pid 1:tid 2] [client 1.2.3.4:5] [script /srv/a.py] WSGI0150: No WSGI daemon process called 'g' has been configured.", "script-refused", "g"),
    ("@[wsgi:warn] [pid 1:tid 1] (2)No such file or directory: WSGI0100: Unable to stat Python home '/none' for daemon process 'g'; Python interpreter may "
     "not initialise correctly. Verify the path and the access permissions on every component of it.", "python-home", "g"),
    ("Fatal Python error: init_fs_encoding: failed to get the Python codec of the filesystem encoding", "python-failed", ""),
    ("@[wsgi:warn] [pid 1:tid 1] (2)No such file or directory: WSGI0132: Telemetry reporter could not open target 'unix:/x'; metrics will not be sent.",
     "telemetry", ""),
    ("@[wsgi:alert] [pid 1:tid 1] (13)Permission denied: WSGI0009: Unable to change working directory to '/srv'. Daemon process will exit.", "daemon-setup", ""),
    ("@[wsgi:crit] [pid 1:tid 2] (9)Bad file descriptor: mod_wsgi (pid=1): Unable to read WSGI request.", "request-unread", ""),
    ("@[wsgi:error] [pid 1:tid 2] (104)Connection reset by peer: [client 1.2.3.4:5] mod_wsgi (pid=1): Failed to proxy response from daemon.", "response-cut", ""),
    ("@[core:error] [pid 1:tid 2] (24)Too many open files: [client 1.2.3.4:5] AH00132: file permissions deny server access: /x", "too-many-files", ""),
    ("@[core:emerg] [pid 1:tid 2] (28)No space left on device: AH00023: Couldn't create the proxy mutex", "no-space", ""),
    ("@[wsgi:error] [pid 1:tid 2] [remote 1.2.3.4:5] [2026-11-21 22:21:30,123] ERROR in app: Exception on /cart [GET]", "exception", ""),
    ("@[wsgi:error] [pid 1:tid 2] [remote 1.2.3.4:5] Internal Server Error: /cart", "exception", ""),
    ("@[wsgi:error] [pid 1:tid 2] WSGI0999: Something that is not known.", "mod_wsgi", ""),
    ("[2026-11-21 22:45:20 +0000] [5204] [CRITICAL] WORKER TIMEOUT (pid:5215)", "worker-timeout", ""),
    ("[2026-11-21 22:45:20 +0000] [5204] [ERROR] Worker (pid:5413) was sent SIGKILL! Perhaps out of memory?", "killed", ""),
    ("[2026-11-21 22:45:20 +0000] [5204] [WARNING] Worker with pid 5423 was terminated due to signal 11", "crash", ""),
    ("[2026-11-21 22:45:20 +0000] [5215] [INFO] Worker exiting (pid: 5215)", "worker-exit", ""),
    ("Sat Nov 21 22:45:27 2026 - *** HARAKIRI ON WORKER 1 (pid: 5478, try: 1) ***", "worker-timeout", ""),
    ("Sat Nov 21 22:45:27 2026 - DAMN ! worker 1 (pid: 5739) died, killed by signal 9 :( trying respawn ...", "killed", ""),
    ("Sat Nov 21 22:45:27 2026 - *** uWSGI listen queue of socket \"127.0.0.1:3031\" (fd: 3) full !!! (101/100) ***", "backlog-full", ""),
]


@pytest.mark.parametrize("line, kind, group", ONE_LINE, ids=[each[1] for each in ONE_LINE])
def test_one_line_is_what_it_is(logs, line, kind, group):
    before = "@[core:notice] [pid 1:tid 1] AH00094: Command line: 'apache2'\n"
    [event] = logs.read(stamped(before + line + "\n"), since=0).events
    assert (event.id, event.severity, event.group) == (kind, kinds.BY_ID[kind].severity, group)


HEALTHY = """\
@[mpm_event:notice] [pid 76:tid 76] AH00489: Apache/2.4.71 (Debian) mod_wsgi/6.1.1 Python/3.11 configured -- resuming normal operations
@[core:notice] [pid 76:tid 76] AH00094: Command line: '/usr/sbin/apache2 -D FOREGROUND'
@[wsgi:info] [pid 77:tid 77] Starting daemon process 'shop' with uid=33, gid=33 and threads=3.
@[wsgi:warn] [pid 77:tid 77] mod_wsgi: Compiled for Python/3.11.1.
@[wsgi:info] [pid 77:tid 90] Maximum requests reached; triggering immediate shutdown of daemon process 'shop'.
@[wsgi:info] [pid 76:tid 76] Process 'shop' (pid=77) has died; deregistering and restarting it.
@[wsgi:info] [pid 76:tid 76] Process 'shop' (pid=77) terminated normally, exit code 0
@[authz_core:error] [pid 80:tid 81] [client 10.0.0.9:5] AH01630: client denied by server configuration: /var/www/.env
@[core:info] [pid 80:tid 81] [client 10.0.0.9:5] AH00128: File does not exist: /var/www/favicon.ico
@[core:error] [pid 80:tid 81] [client 10.0.0.9:5] AH00126: Invalid URI in request 'GET /../../etc/passwd HTTP/1.1'
@[core:error] [pid 80:tid 81] (36)File name too long: [client 10.0.0.9:5] AH00036: access to /x failed (filesystem path '/var/www/x')
@[ssl:warn] [pid 76:tid 76] AH01909: www.example.com:443:0 server certificate does NOT include an ID which matches the server name
@[ssl:info] [pid 80:tid 81] (70014)End of file found: [client 10.0.0.9:5] AH01991: SSL input filter read failed.
@[php:notice] [pid 80:tid 81] [client 10.0.0.9:5] PHP Notice:  Undefined variable: x in /var/www/x.php on line 3
@[reqtimeout:info] [pid 80:tid 81] [client 10.0.0.9:5] AH01382: Request header read timeout
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:5] mod_wsgi (pid=77): Failed to proxy response to client.
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:5] INFO:root:retry after timeout, 3 errors, killed 2 stale sessions
@[wsgi:error] [pid 77:tid 90] [remote 10.0.0.9:5] WARNING Not Found: /old
@[mpm_event:notice] [pid 76:tid 76] AH00493: SIGUSR1 received.  Doing graceful restart
@[core:warn] [pid 76:tid 76] AH00045: child process 80 still did not exit, sending a SIGTERM
@[mpm_event:notice] [pid 76:tid 76] AH00489: Apache/2.4.71 (Debian) mod_wsgi/6.1.1 Python/3.11 configured -- resuming normal operations
@[mpm_event:notice] [pid 76:tid 76] AH00491: caught SIGTERM, shutting down
"""


def test_a_healthy_log_says_nothing_that_alarms(logs):
    reading = logs.read(stamped(HEALTHY))
    assert {event.severity for event in reading.events} == {"info"} and reading.problems == []
    assert reading.counts == {"started": 2, "version": 1, "maximum-requests": 1, "daemon-restarted": 1, "client-closed": 1, "graceful": 1,
                              "slow-stop": 1, "stopped": 1}


def test_gunicorns_late_worker_has_the_place_where_it_was_when_it_was_aborted(logs):
    text = """\
[2026-11-21 22:45:20 +0000] [5204] [CRITICAL] WORKER TIMEOUT (pid:5215)
[2026-11-21 22:45:20 +0000] [5215] [ERROR] Error handling request /slow
Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/gunicorn/workers/sync.py", line 136, in handle
    self.handle_request(listener, req, client, addr)
  File "/srv/shop/app.py", line 3, in application
    time.sleep(30)
  File "/usr/lib/python3/dist-packages/gunicorn/workers/base.py", line 203, in handle_abort
    sys.exit(1)
SystemExit: 1
[2026-11-21 22:45:20 +0000] [5215] [INFO] Worker exiting (pid: 5215)
[2026-11-21 22:45:21 +0000] [5204] [ERROR] Worker (pid:5215) was sent SIGKILL! Perhaps out of memory?
"""
    reading = logs.read(text, since=0)
    assert told(reading) == [("worker-timeout", "warning", "", "/srv/shop/app.py:3", "application", "WORKER TIMEOUT (pid:5215)", 1),
                             ("worker-exit", "info", "", "", "", "Worker exiting (pid: 5215)", 1)]


# --- lines -------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, at", [
    ("[Sat Nov 21 22:21:30.500000 2026] [core:error] [pid 5:tid 6] x", AT + 0.5), ("[Sat Nov 21 22:21:30 2026] [core:error] [pid 5:tid 6] x", AT),
    ("[2026-11-21 22:21:30.500] [core:error] [pid 5:tid 6] x", AT + 0.5), ("2026-11-21T22:21:30.500 [core:error] [pid 5:tid 6] x", AT + 0.5),
    ("[core:error] [pid 5:tid 6] [2026-11-21 22:21:30] x", AT), ("[2026/11/21 22:21:30] [core:error] [pid 5:tid 6] x", AT),
    ("Nov 21 22:21:30 www apache2[9]: [core:error] [pid 5:tid 6] x", AT), ("2026-11-21T22:21:30+00:00 [core:error] [pid 5:tid 6] x", 1795299690.0),
    ("2026-11-21T22:21:30Z [core:error] [pid 5:tid 6] x", 1795299690.0), ("2026-11-21T22:21:30.250+0230 [core:error] [pid 5:tid 6] x", 1795290690.25),
    ("[21/Nov/2026:22:21:30 +0000] [core:error] [pid 5:tid 6] x", 1795299690.0)])
def test_dates_of_all_usual_kinds_are_read(text, at):
    line = loglines.parse(text, loglines.Dates(2026))
    assert line == loglines.Line(at, "error", "core", 5, 6, "", "", "", "", "x")


def test_what_is_no_date_or_no_line_of_a_log_is_left_as_it_is():
    for text in ("", "[", "[[[", "x", "  File \"/x\", line 3, in f", "[Sat Nov 99 99:99:99 2026] x", "[2026-99-99 22:21:30] x", "\ufffd\x01\x00"):
        line = loglines.parse(text, loglines.Dates(2026))
        assert line.at is None and (line.text == text or text.startswith("["))


def test_any_bytes_whatever_are_a_reading(logs):
    """Invariant: whatever a log holds, read gives a Reading, within its bounds, and raises nothing."""
    seed = 20261121
    dice = random.Random(seed)
    whole = stamped(HEALTHY + CRASH_6 + EXCEPTION_4 + TIMEOUT_4 + TIMEOUT_6 + "".join(each[0] + "\n" for each in ONE_LINE)).encode()
    for turn in range(150):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 60)):
            at = dice.randrange(len(data))
            data[at:at + dice.randrange(0, 40)] = bytes(dice.randrange(256) for _ in range(dice.randrange(0, 40)))
        reading = logs.read(bytes(data), since=0)
        assert sum(event.count for event in reading.events) <= sum(reading.counts.values()), (seed, turn)


def test_many_different_events_are_bounded_and_the_rest_is_counted(logs):
    text = "".join("[Sat Nov 21 22:21:30.5 2026] [wsgi:error] [pid 1:tid 2] mod_wsgi (pid=1): No WSGI daemon process called '%s' has been configured\n"
                   % ("g" * (number % 150 + 1) + "abcdefghij"[number % 10] + "klmnopqrst"[number // 150 % 10]) for number in range(3000))
    reading = logs.read(text)
    assert len(reading.events) == 1000 and reading.counts == {"script-refused": 3000}
    assert reading.problems == ["%d events were left out: there are too many of different kinds" % (3000 - sum(event.count for event in reading.events))]


# --- reading backwards -------------------------------------------------------------------------

def line_at(at, text="child pid 7 exit signal Abort (6)"):
    return time.strftime("[%a %b %d %H:%M:%S.000000 %Y] ", time.localtime(at)) + "[core:notice] [pid 76:tid 76] AH00052: " + text + "\n"


def test_only_what_was_written_since_then_is_told(logs):
    text = line_at(AT - 3600) * 3 + line_at(AT) * 2
    assert logs.read(text, since=AT - 1, modified=AT).counts == {"crash": 2}
    assert logs.read(text, since=AT + 1, modified=AT) == errorlog.Reading([], {}, 1, 0, [])


def test_of_a_huge_log_only_the_end_is_read(logs, monkeypatch):
    path = os.path.join(logs.folder, "error.log")
    with open(path, "wb") as file:
        file.truncate(1 << 40)                              # a terabyte, sparse
        file.seek(0, 2)
        file.write(("\n" + line_at(AT - 600) + (line_at(AT) * 20_000)).encode())
    os.utime(path, (AT, AT))
    sizes, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda handle, size, at: sizes.append(size) or pread(handle, size, at))
    reading = errorlog.read([logfiles.Log(path, "error.log", "a test")], AT - 60)
    assert reading.counts == {"crash": 20_000} and reading.skipped_bytes == 0 and sum(sizes) < 3 << 20
    del sizes[:]
    reading = errorlog.read([logfiles.Log(path, "error.log", "a test")], AT - 6000, most_bytes=1 << 20)
    whole_lines = ((1 << 20) - 1) // len(line_at(AT)) * len(line_at(AT))
    assert sum(sizes) == 1 << 20 and reading.skipped_bytes == os.stat(path).st_size - (1 << 20)
    assert (reading.counts, reading.problems) == ({"crash": whole_lines // len(line_at(AT))}, [
        "error.log: more was logged since then than is read; %s bytes of its end were" % format(whole_lines, ",")])


def test_a_log_that_was_rotated_meanwhile_is_read_with_what_was_before(logs):
    logs.write(line_at(AT - 3600) + line_at(AT - 50) * 2, name="error.log.1", modified=AT - 50)
    assert logs.read(line_at(AT) * 3, modified=AT).counts == {"crash": 5}
    os.unlink(os.path.join(logs.folder, "error.log.1"))
    logs.write(gzip.compress(line_at(AT - 50).encode()), name="error.log-20261121.gz", modified=AT - 50)
    reading = logs.read(line_at(AT) * 3, modified=AT)
    assert (reading.counts, reading.problems) == (
        {"crash": 3}, ["error.log was rotated meanwhile; error.log-20261121.gz is compressed and was not read"])
    logs.write(line_at(AT - 7200), name="error.log.1", modified=AT - 7200)     # rotated away long before
    assert logs.read(line_at(AT), modified=AT, since=AT - 10).counts == {"crash": 1}


def test_a_server_in_another_time_zone_is_understood_by_the_time_of_its_file(logs):
    text = line_at(AT - 7200) * 2                                              # two hours behind, written now
    assert [(event.at, event.count) for event in logs.read(text, modified=AT + 1).events] == [(AT, 2)]
    text = line_at(AT - 7000)                                                  # no quarter of an hour: it is old
    assert logs.read(text, modified=AT).events == []


def test_a_log_without_dates_says_so_and_its_events_have_no_time(logs):
    reading = logs.read("DAMN ! worker 1 (pid: 57) died :( trying respawn ...\n", modified=AT)
    assert [(event.id, event.at, event.first) for event in reading.events] == [("daemon-died", None, None)]
    assert reading.problems == ["error.log: its lines have no dates, so some may be older"]


def test_a_log_that_is_gone_or_no_file_is_a_problem_and_no_error(logs):
    os.mkfifo(os.path.join(logs.folder, "fifo"))
    found = [logfiles.Log(os.path.join(logs.folder, name), name, "a test") for name in ("none", "fifo", "")]
    assert errorlog.read(found, 0).problems == ["none: No such file or directory", "fifo: is no file", ": is no file"]


# --- where logs are ----------------------------------------------------------------------------

def started(command, **more):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, **more)


def ended(*processes):
    for process in processes:
        process.kill()
        process.wait(10)


def test_stderr_of_a_server_that_logs_to_a_file_is_found_also_when_it_is_deleted(tmp_path):
    path = str(tmp_path / "server.err")
    with open(path, "w") as file:
        process = started(["/bin/sleep", "60"], stdout=subprocess.DEVNULL, stderr=file)
    try:
        [log], reasons = logfiles.of(process.pid)
        assert (log.shown, log.how, reasons) == (path, "the server's stderr", [])
        assert os.path.samestat(os.stat(log.path), os.stat(path))
        with open(path, "w") as file:
            file.write(line_at(AT))
        os.unlink(path)
        [log], reasons = logfiles.of(process.pid)
        assert log == logfiles.Log("/proc/%d/fd/2" % process.pid, path + " (deleted)", "the server's stderr")
        assert errorlog.read([log], AT - 10).counts == {"crash": 1}
    finally:
        ended(process)


def test_stderr_that_goes_to_another_program_leads_to_what_that_writes(tmp_path):
    path = str(tmp_path / "copied.log")
    read, write = os.pipe()
    with open(path, "w") as file:
        cat = subprocess.Popen(["/bin/cat"], stdin=read, stdout=file, stderr=subprocess.DEVNULL)
    server = started(["/bin/sleep", "60"], stdout=subprocess.DEVNULL, stderr=write)
    os.close(read)
    os.close(write)
    try:
        [log], reasons = logfiles.of(server.pid)
        assert (log.shown, log.how, reasons) == (path, "cat (pid %d) writes it for the server" % cat.pid, [])
    finally:
        ended(server, cat)


def test_a_terminal_a_socket_and_the_null_device_are_told():
    import pty
    import socket
    ours, terminal = pty.openpty()
    one, other = socket.socketpair()
    try:
        for descriptor, said in ((terminal, r"the server's stderr is a terminal \(/dev/pts/\d+\), which cannot be read"),
                                 (one.fileno(), r"the server's stderr goes to the journal .*: journalctl -u [\w@.:-]+ --since -10min"),
                                 (subprocess.DEVNULL, r"the server's stderr is /dev/null: what is not logged elsewhere is lost")):
            process = started(["/bin/sleep", "60"], stdout=subprocess.DEVNULL, stderr=descriptor)
            try:
                found, [reason] = logfiles.of(process.pid)
                assert found == [] and re.fullmatch(said, reason), reason
            finally:
                ended(process)
    finally:
        for each in (ours, terminal):
            os.close(each)
        one.close()
        other.close()
    assert logfiles.of(2 ** 22 + 1) == ([], ["there is no process 4194305"])


def test_only_error_logs_among_the_open_files_are_taken(tmp_path):
    names = ("access.log", "site-error.log", "other_vhosts_access.log", "error_log", "notes.txt", "ssl_request.log", "shop.log", "dir.err/x.db")
    os.mkdir(str(tmp_path / "dir.err"))
    files = [open(str(tmp_path / name), "w") for name in names]
    read_only = open(str(tmp_path / "error_log"))
    process = started(["/bin/sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                      pass_fds=[file.fileno() for file in (*files, read_only)])
    try:
        found, _ = logfiles.of(process.pid)
        assert sorted(os.path.basename(log.shown) for log in found) == ["error_log", "shop.log", "site-error.log"]
    finally:
        ended(process)
        for file in (*files, read_only):
            file.close()


# --- real servers ------------------------------------------------------------------------------

APP = """
import ctypes, faulthandler, time
def inner():
    raise ValueError("wrong")                   # EXCEPTION
def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path.endswith("/exception"):
        inner()
    if path.endswith("/crash"):
        faulthandler.enable(2)
        ctypes.string_at(0)                     # CRASH
    if path.endswith("/late"):
        time.sleep(60)                          # LATE
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
LINES = {mark: number for number, line in enumerate(APP.splitlines(), 1) for mark in re.findall(r"# ([A-Z]+)$", line)}
OPTIONS = "request-timeout=1 shutdown-timeout=1"


@pytest.fixture(scope="module", params=["6.1", "4.9"])
def server(request, tmp_path_factory):
    """A real Apache with mod_wsgi of that version, at `LogLevel info`."""
    path = str(tmp_path_factory.mktemp("app") / "shop.py")
    with open(path, "w") as file:
        file.write(APP)
    more = "LogLevel info\nErrorLog {folder}/error.log"
    try:
        if request.param == "6.1":
            made = apache.Sites(apache.express(), more=more, group="shop", app=path, options=OPTIONS, threads=1)
        else:
            made = wsgiservers.DebianApache(path, more=more, group="shop", options=OPTIONS, threads=1)
    except apache.Missing as missing:
        if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
            pytest.fail("no real Apache, and it is required: %s" % missing)
        pytest.skip("no real Apache: %s" % missing)
    made.site = "/main" if request.param == "6.1" else ""
    with made:
        yield made


def events_since(server, since, wanted):
    """{id: Event} of a real server's log, once it has these ids."""
    def look():
        found, reasons = logfiles.of(server.process.pid, config.of(server.process.pid))
        assert reasons == [] and [log.shown for log in found] == [server.folder + "/error.log"]
        events = {event.id: event for event in errorlog.read(found, since).events}
        return wanted <= set(events) and events
    return running.wait_until(look, 20, lambda: "%s in %s" % (wanted, open(server.folder + "/error.log").read()[-3000:]))


@pytest.mark.apache
def test_what_goes_wrong_in_a_real_server_is_in_its_log_with_the_line_where_the_server_tells_it(server):
    since, app = time.time() - 0.01, server.app
    daemon = server.daemons()[0] if hasattr(server, "daemons") else server.pids()[0]
    assert server.get(server.site + "/exception") == 500
    event = events_since(server, since, {"exception"})["exception"]
    # mod_wsgi 6.1.1 writes no traceback of an exception that has no cause
    place = "%s:%d" % (app, LINES["EXCEPTION"]) if not server.site else ""
    assert (event.severity, event.pid, event.group, event.place, event.text, event.script) == (
        "warning", daemon, "shop", place, "ValueError: wrong", app)
    assert server.get(server.site + "/crash") in (500, 502)
    event = events_since(server, since, {"crash", "no-response", "daemon-restarted"})["crash"]
    assert (event.severity, event.pid, event.group, event.place) == ("critical", daemon, "shop", "%s:%d" % (app, LINES["CRASH"]))
    assert server.get(server.site + "/ok") == 200
    since = time.time() - 0.01
    assert server.get(server.site + "/late") in (500, 502)
    event = events_since(server, since, {"request-timeout", "no-response"})["request-timeout"]
    assert (event.severity, event.level, event.group, event.places) == ("warning", "info", "shop", {"%s:%d" % (app, LINES["LATE"]): 1})


@pytest.mark.apache
def test_a_real_servers_graceful_restart_and_its_requests_alarm_nobody(server):
    running.wait_until(lambda: server.get(server.site + "/ok") == 200, 20, "it does not answer")
    since = time.time() - 0.01
    server.process.send_signal(signal.SIGUSR1)
    running.wait_until(lambda: "started" in events_since(server, since, {"graceful"}), 20, "no restart")
    running.wait_until(lambda: server.get(server.site + "/ok") == 200, 20, "it does not answer")
    assert {event.severity for event in events_since(server, since, {"graceful", "started"}).values()} == {"info"}
