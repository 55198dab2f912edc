"""Stages an incident of tests/incidents on a real server and asks `why` about it: the first command, as an operator types it.

    python tests/staging.py                         the incidents there are
    python tests/staging.py locks 4.9.4             stage it, and show what `why` says
    python tests/staging.py locks collector --json -- --duration 5

Server, load, collector and `why` live in namespaces of their own (unshare, so root): `why` sees no other server, a collector is
where it is by default, and all of it ends with the first process, whatever happens.
"""

import argparse
import collections
import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time

import apache
import running
import wsgiservers
from incidents import table

APPS = os.path.dirname(os.path.abspath(table.__file__))
WHY_S = 90.0                    # the longest that `why` may take
STAGED_S = 150.0                # and all of it
INTERVAL_S = 0.5                # of telemetry
CONFIGURATION = """
ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/httpd.pid
ErrorLog {folder}/error.log
LogLevel warn
User {user}
Group {user}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
{module}
WSGISocketPrefix {folder}/wsgi
{how}
<Directory {folder}>
Require all granted
</Directory>
{scripts}
{telemetry}
"""
DAEMON = "WSGIDaemonProcess {group} processes={processes} threads={threads} {title} python-path={folder} {options}"
SCRIPT = "WSGIScriptAlias {path} {folder}/{app}.py process-group={group} {application}"
EMBEDDED = """StartServers {processes}
ServerLimit {processes}
ThreadsPerChild {threads}
ThreadLimit {threads}
MaxRequestWorkers {most}
MinSpareThreads 1
MaxSpareThreads {most}
WSGIScriptAlias / {folder}/{app}.py application-group=%{{GLOBAL}}"""
TELEMETRY = "WSGITelemetryService unix:{socket} interval={interval}\nWSGISlowRequests 0.5"


class Staged(apache.Server):
    """An Apache with the incident's applications: mod_wsgi 4.9.4 of the distribution, or 6.1.1 with or without telemetry.

    4.9.4 has what it has by default: an interpreter for each script, and daemons whose titles are those of Apache's children.
    """

    def __init__(self, incident, mode, telemetry, variables):
        super().__init__(os.path.join(APPS, incident.app + ".py"), incident.processes)
        self.ready, self.variables, self.error_log = incident.ready, variables, os.path.join(self.folder, "error.log")
        for name in (*incident.files, *(group.app for group in incident.others)):
            os.chmod(shutil.copy(os.path.join(APPS, name + ".py"), self.folder), 0o644)
        if mode == table.DEBIAN:
            if not os.path.exists(wsgiservers.MOD_WSGI):
                raise apache.Missing("no %s (apt-get install libapache2-mod-wsgi-py3)" % wsgiservers.MOD_WSGI)
            module = "LoadModule wsgi_module " + wsgiservers.MOD_WSGI
        else:
            module = subprocess.run([apache.express(), "module-config"], stdout=subprocess.PIPE, check=True, timeout=30,
                                    env=apache.environment(), universal_newlines=True).stdout
        groups = [table.Group("app", "/", incident.app, incident.processes, incident.threads, incident.options), *incident.others]
        title, application = "display-name=%{GROUP}", "application-group=%{GLOBAL}"
        if mode == table.DEBIAN:
            title = application = ""
        if mode == table.DEBIAN or incident.kind == "embedded":
            self.titled = b""
        if incident.kind == "embedded":
            how = EMBEDDED.format(folder=self.folder, app=incident.app, processes=incident.processes, threads=incident.threads,
                                  most=incident.processes * incident.threads)
            scripts = ""
        else:
            self.processes = sum(group.processes for group in groups)
            how = "\n".join(["WSGIRestrictEmbedded On", *(DAEMON.format(
                group=group.name, processes=group.processes, threads=group.threads, folder=self.folder, options=group.options, title=title)
                for group in groups)])
            scripts = "\n".join(SCRIPT.format(path=group.path, folder=self.folder, app=group.app, group=group.name,
                                                  application=application) for group in reversed(groups))
        path = os.path.join(self.folder, "httpd.conf")
        with open(path, "w") as file:
            file.write(CONFIGURATION.format(
                folder=self.folder, port=self.port, user=apache.USER, module=module, how=how, scripts=scripts,
                telemetry=TELEMETRY.format(socket=telemetry, interval=INTERVAL_S) if telemetry else ""))
        self.command = [shutil.which("apache2", path=apache.PATH), "-f", path, "-DFOREGROUND", "-k", "start"]
        if incident.nofile:
            self.command = ["/bin/sh", "-c", 'ulimit -n %d && exec "$@"' % incident.nofile, "sh", *self.command]

    def _answers(self):
        if self.ready is None:                      # its application never will
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port), 5.0):
                return True
            return False
        return super()._answers()

    @property
    def processes(self):
        """Those that are there: who waits for them has waited for an answer already."""
        return len(self.daemons()) if self.ready is None or not self.titled else self._processes

    @processes.setter
    def processes(self, number):
        self._processes = number

    def _end(self, process):
        """At once: some of the incidents cannot stop in order."""
        children = self.daemons()
        process.kill()
        process.wait(10.0)
        for each in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    def log(self, most=3000):
        with contextlib.suppress(OSError), open(self.error_log, "rb") as file:
            return file.read(8 << 20).decode("utf-8", "replace")[-most:] + super().log(most)
        return super().log(most)


class Express(Staged):
    """What mod_wsgi-express makes of it, with the log where its own --server-root has it."""

    def __init__(self, incident, mode, telemetry, variables):
        super().__init__(incident, mode, telemetry, variables)
        root = os.path.join(self.folder, "root")
        self.error_log = os.path.join(root, "error_log")
        self.command = [apache.express(), "start-server", self.app, "--server-root", root, "--host", "127.0.0.1", "--port", str(self.port),
                        "--user", apache.USER, "--group", apache.USER, "--processes", str(incident.processes),
                        "--threads", str(incident.threads), "--locale", "C.UTF-8"]
        if telemetry:
            self.command += ["--telemetry-service", "unix:" + telemetry, "--telemetry-interval", str(INTERVAL_S), "--slow-requests", "0.5"]


def served_by(incident, mode, telemetry, variables):
    """The server that the incident asks for."""
    if incident.kind == "gunicorn":
        return wsgiservers.Gunicorn(os.path.join(APPS, incident.app + ".py"), "--worker-class", "gthread", "--threads",
                                    str(incident.threads), workers=incident.processes, environment=variables)
    return (Express if incident.kind == "express" else Staged)(incident, mode, telemetry, variables)


# --- the load ----------------------------------------------------------------------------------

class Load:
    """Clients in threads, each asking for its path again and again; `made`: how often which status or error."""

    def __init__(self, port, rows):
        self.port, self.made, self._stop = port, collections.Counter(), threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(row,), daemon=True) for row in rows for _ in range(row.clients)]

    def start(self):
        for each in self._threads:
            each.start()

    def stop(self):
        self._stop.set()

    def _client(self, row):
        ask = {"": self._ask, "reads slowly": self._reads_slowly, "sends slowly": self._sends_slowly}[row.manner]
        while not self._stop.is_set():
            try:
                self.made["%s %s" % (row.path.partition("?")[0], ask(row.path))] += 1
            except (OSError, http.client.HTTPException) as error:
                self.made["%s %s" % (row.path.partition("?")[0], type(error).__name__)] += 1
                self._stop.wait(0.2)
            self._stop.wait(row.pause_s)

    def _ask(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STAGED_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def _sends_slowly(self, path):
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"POST %s HTTP/1.0\r\nContent-Length: 100000\r\n\r\n" % path.encode())
            for _ in range(500):
                if self._stop.wait(0.5):
                    break
                connection.sendall(200 * b"x")
            return "sent"

    def _reads_slowly(self, path):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", self.port))
            connection.sendall(b"GET %s HTTP/1.0\r\n\r\n" % path.encode())
            while not self._stop.wait(0.2):
                if not connection.recv(2048):
                    return "read"


# --- what an incident has around it -------------------------------------------------------------

@contextlib.contextmanager
def _backend():
    """A service that answers each question after four seconds; raw bytes that HTTP clients understand too."""
    def answer(connection):
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            time.sleep(4.0)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n5\n")

    def accept():
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 9321)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield {"STAGE_BACKEND": "9321"}


@contextlib.contextmanager
def _file_lock():
    """A file whose lock another process has."""
    with running.short_folder() as folder:
        path = os.path.join(folder, "count")
        with open(path, "w") as file:
            file.write("0")
        os.chmod(path, 0o666)
        keeper = subprocess.Popen(["flock", path, "sleep", "600"])
        try:
            running.wait_until(lambda: _is_locked(path), 10, "flock did not get it")
            yield {"STAGE_FILE": path}
        finally:
            keeper.kill()
            keeper.wait(10)


def _is_locked(path):
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def _name_server():
    """A name server that hears and does not answer, in place of this machine's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, tempfile.NamedTemporaryFile("w") as file:
        silent.bind(("127.0.0.200", 53))
        file.write("nameserver 127.0.0.200\noptions timeout:20 attempts:2\n")
        file.flush()
        os.chmod(file.name, 0o644)
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True, timeout=10)
        yield {}


@contextlib.contextmanager
def _closer():
    """A service that says a word to each who connects, and closes."""
    def accept():
        while True:
            with listener.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(b"5\n")

    with socket.create_server(("127.0.0.1", 9322)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield {"STAGE_CLOSER": "9322"}


@contextlib.contextmanager
def _full_pipe():
    """A named pipe that is held open and never read."""
    with running.short_folder() as folder:
        path = os.path.join(folder, "log")
        os.mkfifo(path)
        os.chmod(path, 0o666)
        held = os.open(path, os.O_RDWR)
        try:
            yield {"STAGE_PIPE": path}
        finally:
            os.close(held)


@contextlib.contextmanager
def _database():
    """An SQLite database in which a transaction of this process has begun to write."""
    with running.short_folder(0o777) as folder:
        path = os.path.join(folder, "visits.db")
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        database.execute("CREATE TABLE visits (number)")
        os.chmod(path, 0o666)
        database.execute("BEGIN EXCLUSIVE")
        try:
            yield {"STAGE_DATABASE": path}
        finally:
            database.close()


AROUND = {"backend": _backend, "closer": _closer, "database": _database, "file lock": _file_lock, "full pipe": _full_pipe,
          "name server": _name_server}


@contextlib.contextmanager
def _neighbours(_server, _collector):
    """Processes that have nothing to do with the server, and take all processors."""
    busy = [subprocess.Popen(["nice", "-n", "-5", "/bin/sh", "-c", "while :; do :; done"]) for _ in range(2 * os.cpu_count())]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait(10)


@contextlib.contextmanager
def _away(server, collector):
    """The collector is away for some seconds, and back when `why` is asked."""
    sent = time.monotonic()
    collector.stop()
    running.wait_until(lambda: time.monotonic() - sent > 12 * INTERVAL_S, 20, "time stands still", pause=0.2)
    collector.start()
    os.chmod(collector.socket, 0o666)
    yield


@contextlib.contextmanager
def _stopped(_server, collector):
    """The collector is stopped, and does not know it."""
    os.kill(collector.pid, signal.SIGSTOP)
    yield
    os.kill(collector.pid, signal.SIGCONT)


@contextlib.contextmanager
def _graceful(server, _collector):
    """The server has just been restarted."""
    before = server.daemons()
    server.graceful()
    running.wait_until(lambda: not set(before) & set(server.daemons()), 30, "old processes stay")
    yield


@contextlib.contextmanager
def _graceful_meanwhile(server, _collector):
    """The server is restarted while `why` looks."""
    restart = threading.Timer(1.5, server.graceful)
    restart.start()
    yield
    restart.cancel()


MEANWHILE = {"": lambda *_: contextlib.nullcontext(), "neighbours": _neighbours, "collector away": _away, "collector stopped": _stopped, "graceful": _graceful,
             "graceful meanwhile": _graceful_meanwhile}


# --- one incident, from its start to what `why` says -----------------------------------------------

def why(*options):
    """`modwsgi-tel why` as it is in the checkout: (exit status, stdout, stderr, seconds)."""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "modwsgi_tel", "why", *options], cwd=running.ROOT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WHY_S, env=running.clean_environment(PATH=apache.PATH),
                          encoding="utf-8", errors="replace")
    return done.returncode, done.stdout, done.stderr, time.monotonic() - begun


def stage(incident, mode, *options):
    """A dict: status, said (stdout), complained (stderr), took_s of `why`; made (requests), log (of the server)."""
    with contextlib.ExitStack() as stack:
        variables = {}
        for name in incident.around:
            variables.update(stack.enter_context(AROUND[name]()))
        collector = telemetry = None
        if mode == table.COLLECTOR:
            collector = stack.enter_context(running.Collector("--http-port", str(table.HTTP_PORT)))
            os.chmod(collector.socket, 0o666)
            telemetry = collector.socket
        elif mode == table.UNHEARD:
            telemetry = os.path.join(stack.enter_context(running.short_folder()), "t.sock")
        server = stack.enter_context(served_by(incident, mode, telemetry, variables))
        load = Load(server.port, incident.load)
        stack.callback(load.stop)
        load.start()
        begun = time.monotonic()
        running.wait_until(lambda: time.monotonic() - begun > incident.warm_s, incident.warm_s + 5, "time stands still", pause=0.1)
        with MEANWHILE[incident.meanwhile](server, collector):
            status, said, complained, took_s = why(*options)
        return {"status": status, "said": said, "complained": complained, "took_s": took_s, "made": dict(load.made), "log": server.log()}


# --- in namespaces of its own --------------------------------------------------------------------

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--net", "--kill-child")


def check_machine():
    """Raises apache.Missing where nothing can be staged."""
    apache.check_machine()
    done = subprocess.run([*UNSHARE, "true"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    if done.returncode:
        raise apache.Missing("no namespaces here: " + done.stdout.decode("utf-8", "replace").strip())


class Stage:
    """An incident being staged, in a process.

    told(): None while it goes on, then the dict of `stage`, or {"missing"}; AssertionError where it could not be staged.
    """

    def __init__(self, name, mode, *options):
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self._until = time.monotonic() + STAGED_S
        self._process = subprocess.Popen([*UNSHARE, sys.executable, os.path.abspath(__file__), "--inside", name, mode, "--", *options],
                                         stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err)

    def told(self):
        if self._process.poll() is None and time.monotonic() < self._until:
            return None
        self.close()
        out, err = (os.pread(file.fileno(), 8 << 20, 0).decode("utf-8", "replace") for file in (self._out, self._err))
        assert self._process.returncode == 0, "not staged (%s): %s" % (self._process.returncode, err[-3000:])
        return json.loads(out)

    def close(self):
        """End it; all that it started ends with it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(30.0)


def loopback():
    """Put this namespace's 127.0.0.1 up.  Source: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0x1 | 0x40)             # IFF_UP, IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, request)                        # SIOCSIFFLAGS


def _inside(name, mode, options):
    loopback()
    try:
        told = stage(table.BY_NAME[name], mode, *options)
    except apache.Missing as missing:
        told = {"missing": str(missing)}
    sys.stdout.write(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)                                 # the namespace ends with it: nothing has to stop in order


# --- what is to be said --------------------------------------------------------------------------

def place(name):
    """"FILE.py:LINE" of each marker "name.MARK", a comment at the end of a line, of any file in tests/incidents."""
    app, _, mark = name.partition(".")
    with open(os.path.join(APPS, app + ".py")) as file:
        lines = [number for number, line in enumerate(file, 1) if line.rstrip().endswith("# " + mark)]
    assert lines, "no line of %s.py ends in # %s" % (app, mark)
    return ["%s.py:%d" % (app, line) for line in lines]


def all_of(finding):
    """The words of a finding, in one text; of a stack the line where it stands, not all its frames."""
    return "\n".join([finding["text"], *("%s %s" % (each["text"], each["place"]) for each in finding["evidence"]), finding["advice"] or ""])


def lacks(finding, wanted):
    """What a finding lacks of what is wanted, as texts; [] is the right one."""
    words, lacking = all_of(finding), []
    if wanted.ids and finding["id"] not in wanted.ids:
        lacking.append("id %s is none of %s" % (finding["id"], ", ".join(wanted.ids)))
    if table.SEVERITIES.index(finding["severity"]) > table.SEVERITIES.index(wanted.severity):
        lacking.append("severity %s" % finding["severity"])
    lacking += ["no " + pattern for pattern in wanted.words if not re.search(pattern, words, re.I)]
    for mark in wanted.places:
        for each in place(mark):
            if not re.search(r"(?<![\w.])%s(?!\d)" % re.escape(each), words):
                lacking.append("not " + each)
    return lacking


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=sorted(table.BY_NAME), metavar="NAME")
    parser.add_argument("mode", nargs="?", choices=table.MODES, default=table.ALONE, metavar="MODE")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("options", nargs="*", help="of why")
    given = parser.parse_args()
    if not given.name:
        for incident in table.INCIDENTS:
            print("%-22s %s" % (incident.name, ", ".join(incident.modes)))
        return
    if given.inside:
        _inside(given.name, given.mode, given.options)
    stage = Stage(given.name, given.mode, *(["--json"] if given.json else []), *given.options)
    try:
        told = running.wait_until(stage.told, STAGED_S + 10, "it does not end")
    finally:
        stage.close()
    if "missing" in told:
        sys.exit(told["missing"])
    print(told["said"], end="")
    print("-- exit status %(status)s after %(took_s).1f s; requests: %(made)s\n%(complained)s" % told, file=sys.stderr)


if __name__ == "__main__":
    main()
