"""WSGI servers that send no telemetry themselves, started by the tests on a free port and ended by their pid.

    with Gunicorn(APP, "--threads", "4", workers=2, environment={"MODWSGI_TEL_AGENT_SOCKET": "unix:" + path}) as server:
        server.get("/"), server.made, server.pids(), server.log()

All run the system's Python.  APP is the path of a file with `application` in it; it is copied to where any user can read it.
"""
import contextlib
import http.client
import os
import shutil
import subprocess
import tempfile

import apache
import running

MOD_WSGI = "/usr/lib/apache2/modules/mod_wsgi.so"       # of libapache2-mod-wsgi-py3


class WsgiServer(apache.Server):
    """What the servers below have in common; `pids()` are the processes that serve, `expected` so many of them."""

    needs = ()                      # (path of a program or a file, its package)
    module = None                   # of the system's Python, with its package

    def __init__(self, app, expected, environment, ready):
        for path, package in self.needs:
            if not shutil.which(path, path=apache.PATH) and not os.path.exists(path):
                raise apache.Missing("no %s (apt-get install %s)" % (path, package))
        if self.module and subprocess.run([apache.SYSTEM_PYTHON, "-I", "-c", "import " + self.module[0]], timeout=30,
                                          stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            raise apache.Missing("no %s (apt-get install %s)" % self.module)
        super().__init__(app, expected)
        self.ready = ready
        self.name = os.path.splitext(os.path.basename(self.app))[0]
        self.environment = dict(apache.environment(), PYTHONDONTWRITEBYTECODE="1", **(environment or {}))

    def start(self):
        self._log = self._cleanup.enter_context(tempfile.TemporaryFile())
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                                        env=self.environment, cwd=self.folder, umask=0o022)
        self._cleanup.callback(self._end, self.process)
        running.wait_until(self._answers, 20, lambda: "it did not start: " + self.log())
        running.wait_until(lambda: len(self.pids()) == self.processes, 20, lambda: "other processes: " + self.log())
        return self

    def _answers(self):
        try:
            return super()._answers()
        except (ConnectionError, http.client.HTTPException):        # it listens, and its workers are not there yet
            return False

    def children(self):
        """{pid: its title} of the processes that the first one has made."""
        found = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open("/proc/%s/stat" % name, "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
                if parent == self.process.pid:
                    with open("/proc/%s/cmdline" % name, "rb") as file:
                        found[int(name)] = file.read().replace(b"\0", b" ")
        return found

    def pids(self):
        return sorted(self.children())

    def daemons(self):
        """What has to be ended with the first process, should that not end by itself."""
        return list(self.children())


class Gunicorn(WsgiServer):
    """options: as --threads 4 (gthread), --preload, --worker-class."""

    needs = (("gunicorn", "gunicorn"),)

    def __init__(self, app, *options, workers=1, environment=None, ready="/"):
        super().__init__(app, workers, environment, ready)
        self.command = [shutil.which("gunicorn", path=apache.PATH), "--bind", "127.0.0.1:%d" % self.port, "--workers", str(workers),
                        "--chdir", self.folder, "--log-level", "warning", *options, self.name + ":application"]


class Gevent(Gunicorn):
    """gunicorn with greenlets."""

    module = ("gevent", "python3-gevent")

    def __init__(self, app, *options, **more):
        super().__init__(app, "--worker-class", "gevent", *options, **more)


class Uwsgi(WsgiServer):
    """options: as --master, --lazy-apps, --enable-threads, --threads 4.  Without a master one process serves."""

    needs = (("uwsgi", "uwsgi-core"), ("/usr/lib/uwsgi/plugins/python3_plugin.so", "uwsgi-plugin-python3"))

    def __init__(self, app, *options, workers=1, environment=None, ready="/"):
        super().__init__(app, workers, environment, ready)
        self.is_alone = "--master" not in options
        self.command = [shutil.which("uwsgi", path=apache.PATH), "--plugin", "python3", "--http-socket", "127.0.0.1:%d" % self.port,
                        "--wsgi-file", self.app, "--processes", str(workers), "--die-on-term", "--need-app", *options]

    def pids(self):
        return sorted([self.process.pid, *self.children()]) if self.is_alone else super().pids()


class Waitress(WsgiServer):
    """options: as --threads=4."""

    module = ("waitress", "python3-waitress")

    def __init__(self, app, *options, environment=None, ready="/"):
        super().__init__(app, 1, environment, ready)
        self.command = [apache.SYSTEM_PYTHON, "-m", "waitress", "--listen", "127.0.0.1:%d" % self.port, *options,
                        self.name + ":application"]

    def pids(self):
        return [self.process.pid]


class Wsgiref(Waitress):
    """The standard library's own server: one thread."""

    module = None

    def __init__(self, app, environment=None, ready="/"):
        super().__init__(app, environment=environment, ready=ready)
        self.command = [apache.SYSTEM_PYTHON, "-c", "import sys; sys.path.insert(0, '')\n"
                        "from wsgiref.simple_server import make_server\n"
                        "from %s import application\n"
                        "make_server('127.0.0.1', %d, application).serve_forever()" % (self.name, self.port)]


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
LoadModule wsgi_module {module}
WSGISocketPrefix {folder}/wsgi
<Directory {folder}>
Require all granted
</Directory>
{how}
{first}
WSGIScriptAlias / {app}
{more}
"""
DAEMON = """WSGIRestrictEmbedded On
WSGIDaemonProcess {group} processes={processes} threads={threads} display-name=%{{GROUP}} {options}
WSGIProcessGroup {group}
WSGIApplicationGroup {application}"""
EMBEDDED = """StartServers {processes}
ServerLimit {processes}
ThreadsPerChild {threads}
ThreadLimit {threads}
MaxRequestWorkers {most}
MinSpareThreads 1
MaxSpareThreads {most}
WSGIApplicationGroup {application}"""


class DebianApache(WsgiServer):
    """Apache with the distribution's mod_wsgi (4.9), in daemon mode or embedded in Apache's children.

    application: the interpreter, as %{GLOBAL} (the main one) or %{RESOURCE}.  options: of WSGIDaemonProcess.  more: lines for the
    configuration; {folder} and {app} in them are the server's own.  first: the same, before all paths go to the application.
    """

    needs = (("apache2", "apache2"), (MOD_WSGI, "libapache2-mod-wsgi-py3"))

    def __init__(self, app, more="", embedded=False, group="app", application="%{GLOBAL}", processes=1, threads=3, environment=None,
                 ready="/", options="", first=""):
        if os.geteuid():
            raise apache.Missing("not root (Apache starts its processes as %s)" % apache.USER)
        super().__init__(app, processes, environment, ready)
        self.is_embedded = embedded
        known = dict(folder=self.folder, port=self.port, user=apache.USER, module=MOD_WSGI, app=self.app, group=group,
                     application=application, processes=processes, threads=threads, most=processes * threads, options=options)
        known["more"], known["first"] = (each.replace("{folder}", self.folder).replace("{app}", self.app) for each in (more, first))
        known["how"] = (EMBEDDED if embedded else DAEMON).format(**known)
        path = os.path.join(self.folder, "httpd.conf")
        with open(path, "w") as file:
            file.write(CONFIGURATION.format(**known))
        self.command = [shutil.which("apache2", path=apache.PATH), "-f", path, "-DFOREGROUND", "-k", "start"]

    def pids(self):
        return sorted(pid for pid, title in self.children().items() if self.is_embedded or title.startswith(b"(wsgi:"))
