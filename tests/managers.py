"""A service manager for one process: takes what it notifies, and hands sockets in, as systemd does.

    with Manager() as manager, manager.start("serve", "--listen", ..., handed=[listener]) as process:
        manager.next("READY")

Source: sd_notify(3), sd_listen_fds(3).
"""
import contextlib
import os
import socket
import subprocess
import sys
import time

import running

LAUNCHER = """
import fcntl, os, sys
count = int(sys.argv[1])
# out of the way first, as one may lie where another belongs
fds = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in sys.argv[2:2 + count]]
for place, each in enumerate(fds):
    os.dup2(each, 3 + place)
if count:
    os.environ.update(LISTEN_FDS=str(count), LISTEN_PID=str(os.getpid()))
os.closerange(3 + count, 200)
os.execvp(sys.argv[2 + count], sys.argv[2 + count:])
"""


class Manager:
    """said: all that was notified so far, each a {name: value}, oldest first."""

    def __init__(self, watchdog_s=None, abstract=False):
        self._cleanup = contextlib.ExitStack()
        self.folder = self._cleanup.enter_context(running.short_folder(0o777))
        self.socket = self._cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.address = "@%s" % self.folder if abstract else os.path.join(self.folder, "notify")
        self.socket.bind("\0" + self.folder if abstract else self.address)
        if not abstract:
            os.chmod(self.address, 0o666)
        self.variables = {"NOTIFY_SOCKET": self.address}
        if watchdog_s:
            self.variables["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        self.said = []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._cleanup.close()

    @contextlib.contextmanager
    def start(self, *arguments, handed=(), program=running.CHECKOUT, environment=None, python=sys.executable, **popen):
        """The process, with what it says on stderr in `process.log()`; killed at the end if it still runs.

        python: what starts it, one that its user may run.
        """
        fds = [each.fileno() for each in handed]
        with open(os.path.join(self.folder, "said.txt"), "w+b") as log:
            process = subprocess.Popen(
                [python, "-c", LAUNCHER, str(len(fds)), *map(str, fds), *program, *arguments], pass_fds=fds, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=running.clean_environment(**self.variables, **(environment or {})),
                **{"cwd": running.ROOT, **popen})
            process.log = lambda: os.pread(log.fileno(), 1 << 20, 0).decode("utf-8", "replace")
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait(10)

    def next(self, name, timeout=20.0, like=""):
        """The value of the next of that name that begins so; what comes before it is passed over.  Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(name)
            self.socket.settimeout(left)
            try:
                told = self.socket.recv(65536).decode()
            except socket.timeout:              # of Python 3.9, no TimeoutError
                raise TimeoutError(name) from None
            said = dict(line.split("=", 1) for line in told.splitlines())
            self.said.append(said)
            if said.get(name, "").startswith(like) and name in said:
                return said[name]
