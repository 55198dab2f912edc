"""Starts what is tested as a user would, waits until it says that it is ready, and ends what it started.

Every wait has a deadline; what fails says what the collector wrote to stderr.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CHECKOUT = (sys.executable, "-m", "modwsgi_tel")
SOURCES = ("build.sh", "pyproject.toml", "modwsgi_tel")     # what a build needs
READY = re.compile(r"http://127\.0\.0\.1:(\d+)/")
OPEN = 0o755                    # a folder that processes of other users may search


def wait_until(check, timeout, what, pause=0.02):
    """What `check()` returns, once that is true; AssertionError with `what` (a text, or called for one) at the deadline."""
    deadline = time.monotonic() + timeout
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError("after %g s: %s" % (timeout, what() if callable(what) else what))
        time.sleep(pause)


def is_at_rest(pid):
    """Whether all threads of a process sleep.

    Apache 2.4's event MPM dies at its end, now and then, of a worker that has just closed a connection (in close_worker_sockets, with no
    Python in it): who looks for crashes lets it come to rest first.
    """
    states = set()
    try:
        for tid in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/stat" % (pid, tid), "rb") as file:
                states.add(file.read().rpartition(b")")[2].split()[0])
    except OSError:
        return False                    # one has just ended
    return states == {b"S"}


@contextlib.contextmanager
def short_folder(mode=OPEN):
    """A fresh folder with a path short enough for a socket (107 bytes), searchable by all; removed at the end."""
    folder = tempfile.mkdtemp(prefix="mwt-")
    os.chmod(folder, mode)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy_of_the_sources(source, folder):
    """Copy what is built from into a fresh folder; its path."""
    os.makedirs(folder)
    for name in SOURCES:
        path = os.path.join(source, name)
        if os.path.isdir(path):
            shutil.copytree(path, os.path.join(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder)
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment(**more):
    """This process's environment without what would steer a Python or the tool; a value None takes a name out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MODWSGI_TEL_"))}
    kept.update(more)
    return {name: value for name, value in kept.items() if value is not None}


class Collector:
    """`serve` in a process of its own, on a fresh telemetry socket and on an HTTP port that it chose itself.

        with Collector("--max-slow", "10") as collector:
            collector.json("/api/state")

    program: what to run (the checkout; or [python, "FILE.pyz"]).  socket: where to listen, else a fresh path.
    environment: variables to set, None to unset.  The rest goes to subprocess.Popen (cwd, user, ...).
    """

    def __init__(self, *options, program=CHECKOUT, socket=None, environment=None, command="serve", ready=10.0, **popen):
        self._cleanup = contextlib.ExitStack()
        self.folder = self._cleanup.enter_context(short_folder(popen.pop("folder_mode", OPEN)))
        self.socket = socket or os.path.join(self.folder, "t.sock")
        if popen.get("user") is not None:
            os.chown(self.folder, popen["user"], -1)
        self.command = [*program, command, "--listen", "unix:" + self.socket, "--http-port", "0", *options]
        self.environment = clean_environment(**(environment or {}))
        self.popen = {"cwd": ROOT, **popen}
        self.ready = ready
        self.process = None
        self.port = None

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exception):
        self.close()

    def start(self):
        """Start it (again) and wait until it says where it serves."""
        self._said = self._cleanup.enter_context(tempfile.TemporaryFile())
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said,
                                        env=self.environment, **self.popen)
        self._cleanup.callback(self._kill, self.process)
        found = wait_until(lambda: READY.search(self.said()) or self.process.poll() is not None, self.ready,
                           lambda: "no URL from %s: %s" % (self.command, self.said()), pause=0.005)
        assert found is not True, "%s ended with %s: %s" % (self.command, self.process.returncode, self.said())
        self.port = int(found.group(1))
        return self

    @property
    def pid(self):
        return self.process.pid

    def said(self):
        """All that it wrote to stdout and stderr so far."""
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), size, 0).decode("utf-8", "replace")

    def request(self, method, path, headers=None, body=None, timeout=10.0):
        """(status, headers with lower-case names, body as bytes)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path, headers=None, **more):
        return self.request("GET", path, headers, **more)

    def post(self, path, headers=None, body=b"", **more):
        return self.request("POST", path, headers, body, **more)

    def json(self, path, headers=None):
        status, _, body = self.get(path, headers)
        assert status == 200, "%s answers %s: %s" % (path, status, body[:500])
        return json.loads(body)

    def wait_for(self, path, predicate, timeout=20.0):
        """What `predicate(answer)` returns, once that is true."""
        last = [None]

        def check():
            last[0] = self.json(path)
            return predicate(last[0])

        return wait_until(check, timeout, lambda: "%s never came to it; last: %s\nit said: %s" % (
            path, json.dumps(last[0])[:3000], self.said()[-2000:]), pause=0.05)

    def send(self, *datagrams):
        """Send these to its telemetry socket, from this process."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(10.0)
            for each in datagrams:
                sender.sendto(each, self.socket)

    def stop(self, number=signal.SIGTERM, timeout=10.0):
        """Tell it to stop; its exit status (negative: the signal that ended it)."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10.0)
            raise AssertionError("did not stop within %g s: %s" % (timeout, self.said()[-2000:]))

    @staticmethod
    def _kill(process):
        if process.poll() is None:
            process.kill()
        process.wait(10.0)

    def close(self):
        """End it if it still runs, and remove its folder."""
        self._cleanup.close()
