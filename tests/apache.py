"""A real Apache with mod_wsgi, started by the tests on a free port, in the foreground, and ended by its pid.

mod_wsgi is compiled once, with the system's Python (Apache's user has to be able to read it, which a Python in
root's home is not), into a folder that outlives the run: MODWSGI_TEL_TEST_CACHE, else one of our own below /var/tmp.
"""

import collections
import contextlib
import fcntl
import http.client
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading

import running

MOD_WSGI = "6.1.1"
SYSTEM_PYTHON = "/usr/bin/python3"
USER = "www-data"
APP = os.path.join(running.ROOT, "tests", "apps", "app.py")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Missing(Exception):
    """What is not here, so that the real server cannot be tested."""


def environment():
    return running.clean_environment(PATH=PATH, LC_ALL="C.UTF-8")


def check_machine():
    """Raises Missing when this machine cannot run the server at all."""
    if os.geteuid() != 0:
        raise Missing("not root (Apache starts its processes as %s)" % USER)
    for name, package in (("apache2", "apache2"), ("apxs", "apache2-dev"), ("gcc", "gcc"), (SYSTEM_PYTHON, "python3")):
        if not shutil.which(name, path=PATH):
            raise Missing("no %s (apt-get install %s)" % (name, package))
    for module, package in (("ensurepip", "python3-venv"), ("sysconfig", "python3-dev")):
        code = "import os, sysconfig, %s; sys_h = os.path.join(sysconfig.get_path('include'), 'Python.h')" % module
        if module == "sysconfig":
            code += "; assert os.path.exists(sys_h)"
        if subprocess.run([SYSTEM_PYTHON, "-I", "-c", code], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          timeout=30).returncode:
            raise Missing("%s lacks %s (apt-get install %s)" % (SYSTEM_PYTHON, module, package))


def cache():
    """A folder that is ours, that nobody else can write to, and that Apache's user may search."""
    folder = os.environ.get("MODWSGI_TEL_TEST_CACHE") or "/var/tmp/modwsgi-tel-tests-%d" % os.geteuid()
    with contextlib.suppress(FileExistsError):
        os.makedirs(folder, mode=0o755)
    seen = os.lstat(folder)
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
        raise Missing("%s is not a folder that only we can write to: remove it" % folder)
    os.chmod(folder, 0o755)
    return folder


def express(flags=None):
    """The path of mod_wsgi-express, made if it is not there yet, with these flags for the compiler.  Raises Missing."""
    check_machine()
    folder = cache()
    told = subprocess.run([SYSTEM_PYTHON, "-I", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"],
                          stdout=subprocess.PIPE, check=True, timeout=30, universal_newlines=True)
    venv = os.path.join(folder, "mod_wsgi-%s-python-%s" % (MOD_WSGI, told.stdout.strip()))
    uncached = []
    if flags:                                               # a wheel in pip's cache knows nothing of them
        venv, uncached = venv + re.sub(r"\W+", "-", flags), ["--no-cache-dir"]
    program, whole = os.path.join(venv, "bin", "mod_wsgi-express"), os.path.join(venv, "whole")
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(whole):
            shutil.rmtree(venv, ignore_errors=True)
            for command in ([SYSTEM_PYTHON, "-m", "venv", venv],
                            [os.path.join(venv, "bin", "python"), "-m", "pip", "--quiet", "--disable-pip-version-check",
                             "install", *uncached, "mod_wsgi==" + MOD_WSGI]):
                done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=400,
                                      stderr=subprocess.STDOUT, umask=0o022, universal_newlines=True,
                                      env=dict(environment(), CFLAGS=flags) if flags else environment())
                if done.returncode:
                    raise Missing("cannot make mod_wsgi %s: %s" % (MOD_WSGI, " / ".join(done.stdout.splitlines()[-3:])))
            with open(whole, "w"):
                pass
    finally:
        os.close(lock)
    return program


class Server:
    """An Apache in daemon mode, with an application of tests/apps; what starts it is for the classes below to say.

    made: how many requests got which status, as the client saw them.  Nothing else asks this server anything, so
    these are all the requests there are.
    """

    command = ()                    # what runs Apache in the foreground
    ready = "/"                     # a path that is answered with 200 as soon as the server runs
    variables = {}                  # of its environment, besides environment()
    titled = b"(wsgi:"              # how the titles of the processes begin that run the application

    def __init__(self, app, processes):
        self._cleanup = contextlib.ExitStack()
        self.folder = self._cleanup.enter_context(running.short_folder())
        self.port = running.free_port()
        self.made = collections.Counter()
        self._lock = threading.Lock()
        self.app = shutil.copy(app, self.folder)        # the checkout may lie where Apache's user cannot look
        os.chmod(self.app, 0o644)
        self.processes = processes
        self.process = None

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exception):
        self.close()

    def start(self):
        self._log = self._cleanup.enter_context(tempfile.TemporaryFile())
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                                        env=dict(environment(), **self.variables), cwd="/", umask=0o022)
        self._cleanup.callback(self._end, self.process)
        running.wait_until(self._answers, 20, lambda: "Apache did not start: " + self.log())
        running.wait_until(lambda: len(self.daemons()) == self.processes, 20, lambda: "no daemons: " + self.log())
        return self

    def _answers(self):
        assert self.process.poll() is None, self.log()
        try:
            return self.get(self.ready) == 200
        except ConnectionRefusedError:
            return False

    def log(self, most=3000):
        return os.pread(self._log.fileno(), 8 << 20, 0).decode("utf-8", "replace")[-most:]

    def get(self, path, timeout=30.0):
        """The status of one request, each on a connection of its own; raises what http.client raises."""
        return self.fetch(path, timeout)[0]

    def fetch(self, path, timeout=30.0):
        """As get: (status, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        with self._lock:
            self.made[answer.status] += 1
        return answer.status, body

    def daemons(self):
        """The pids of the processes that run the application: children of httpd with such a title."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open("/proc/%s/stat" % name, "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
                with open("/proc/%s/cmdline" % name, "rb") as file:
                    if parent == self.process.pid and file.read().startswith(self.titled):
                        found.append(int(name))
        return sorted(found)

    def graceful(self):
        """`apachectl graceful`: new daemon processes; the old ones may finish what they do."""
        self.process.send_signal(signal.SIGUSR1)

    def stop(self, timeout=15.0):
        """Tell it to stop; its exit status.  AssertionError when it takes longer."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError("Apache did not stop within %g s: %s" % (timeout, self.log()))

    def _end(self, process):
        if process.poll() is not None:
            return
        children = self.daemons()
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10.0)
            for each in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)

    def close(self):
        self._cleanup.close()


class Apache(Server):
    """What mod_wsgi-express starts, telling its telemetry to `unix:SOCKET`."""

    def __init__(self, program, socket, *options, processes=1, threads=4, interval=0.5, slow=0.5):
        super().__init__(APP, processes)
        self.command = [program, "start-server", self.app, "--server-root", os.path.join(self.folder, "root"),
                        "--host", "127.0.0.1", "--port", str(self.port), "--user", USER, "--group", USER,
                        "--processes", str(processes), "--threads", str(threads), "--locale", "C.UTF-8",
                        "--telemetry-service", "unix:" + socket, "--telemetry-interval", str(interval),
                        "--slow-requests", str(slow), "--telemetry-options", "All", "--log-to-terminal", *options]


STUCK = os.path.join(running.ROOT, "tests", "apps", "stuck.py")
SITES = {"main": "%{GLOBAL}", "site-a": "site-a", "site-b": "site-b"}
CONFIGURATION = """
ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/httpd.pid
ErrorLog /dev/stderr
LogLevel warn
User {user}
Group {user}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
{modules}
WSGISocketPrefix {folder}/wsgi
{where}
<Directory {folder}>
Require all granted
</Directory>
{sites}
{more}
"""


DAEMONS = """WSGIRestrictEmbedded On
WSGIDaemonProcess {group} processes={processes} threads={threads} display-name=%{{GROUP}} {options}"""
EMBEDDED = """StartServers {processes}
ServerLimit {processes}
ThreadsPerChild {threads}
ThreadLimit {threads}
MaxRequestWorkers {most}
MinSpareThreads 1
MaxSpareThreads {most}"""


class Sites(Server):
    """tests/apps/stuck.py as three sites of one process group: in the main interpreter and in two sub-interpreters.

        with Sites(apache.express()) as server:
            server.get("/site-a/ok"), server.url["site-a"] + "/ok", server.process.pid (Apache's root), server.daemons()

    more: lines for the configuration; {folder} in them is the server's own.
    socket: where to tell telemetry, if anywhere.  At the end its processes are killed: a stuck one does not stop by itself.
    app: another file instead; head: text before it.  files: {name: text} beside it.  variables: of Apache's environment.
    options: of WSGIDaemonProcess.  sites: {name: application group}.  embedded: within Apache's children.  module: instead of program, the path of a mod_wsgi.so.
    """

    ready = "/main/ok"

    def __init__(self, program, more="", group="stuck", processes=1, threads=8, socket=None, interval=0.5, slow=0.5, app=STUCK, head="",
                 files=None, variables=None, options="", embedded=False, module=None, sites=SITES):
        super().__init__(app, processes)
        self.variables = variables or {}
        if embedded:
            self.titled = b""
        if head:
            with open(self.app) as source:
                text = source.read()
            with open(self.app, "w") as script:
                script.write(head + text)
        for name, text in (files or {}).items():
            with open(os.path.join(self.folder, name), "w") as file:
                file.write(text)
            os.chmod(os.path.join(self.folder, name), 0o644)
        self.url = {site: "http://127.0.0.1:%d/%s" % (self.port, site) for site in sites}
        modules = "LoadModule wsgi_module %s" % module if module else subprocess.run(
            [program, "module-config"], stdout=subprocess.PIPE, check=True, timeout=30, env=environment(), universal_newlines=True).stdout
        if socket is not None:
            more += ("\nWSGITelemetryService unix:%s interval=%s\nWSGISlowRequests %s\nWSGITelemetryOptions +CaptureUserAgent"
                     % (socket, interval, slow))
        sites = "\n".join("WSGIScriptAlias /%s %s %sapplication-group=%s" % (
            site, self.app, "" if embedded else "process-group=%s " % group, name) for site, name in sites.items())
        where = (EMBEDDED if embedded else DAEMONS).format(group=group, processes=processes, threads=threads, options=options,
                                                           most=processes * threads)
        path = os.path.join(self.folder, "httpd.conf")
        with open(path, "w") as file:
            file.write(CONFIGURATION.format(folder=self.folder, port=self.port, user=USER, modules=modules, where=where, sites=sites,
                                            more=more.replace("{folder}", self.folder)))
        self.command = [shutil.which("apache2", path=PATH), "-f", path, "-DFOREGROUND", "-k", "start"]

    def _end(self, process):
        if process.poll() is None:
            children = self.daemons()
            process.terminate()
            for each in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
        super()._end(process)


class Client:
    """Requests in the background: `start(path)` returns at once, `results` tells statuses or exceptions at the end."""

    def __init__(self, server):
        self.server = server
        self.results = []
        self._threads = []

    def start(self, *paths):
        """One more connection that asks for these, one after another."""
        def work():
            for path in paths:
                try:
                    self.results.append(self.server.get(path))
                except (OSError, http.client.HTTPException) as error:
                    self.results.append(error)
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self, timeout=60.0):
        for each in self._threads:
            each.join(timeout)
            assert not each.is_alive(), "a request took longer than %g s" % timeout
        return self.results
