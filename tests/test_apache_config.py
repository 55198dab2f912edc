"""Apache's configuration: read as the server would read it, asked of the server's own program where that is safe."""

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys

import pytest

import apache
import running
import wsgiservers
from modwsgi_tel.apache import config, directives, dumps, logfiles
from modwsgi_tel.errors import TelError


class Files:
    """Configuration files in a folder, and what a parser makes of them."""

    def __init__(self, folder):
        self.folder = str(folder)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        return path

    def parse(self, text, defines=(), environment=None, version=(2, 4, 57)):
        parser = directives.Parser(lambda path: path, self.folder, defines, environment, version)
        parser.read(self.write("httpd.conf", text))
        return parser

    def names(self, text, **more):
        """The first words of the directives that are kept."""
        return [each.args[0] for each in self.parse(text, **more).directives]


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.mark.parametrize("text, words", [
    ("", []), ("a  b\tc", ["a", "b", "c"]), ("'a b' \"c d\"", ["a b", "c d"]), (r'"a \"b\" c" d', ['a "b" c', "d"]),
    ("g python-path='/a b:/c' x=\"1 2\"", ["g", "python-path=/a b:/c", "x=1 2"]), ("it's 'open", ["it's", "open"]), ("''", [""]),
    ("display-name=%{GROUP}", ["display-name=%{GROUP}"]), (r"C:\x", [r"C:\x"])])
def test_words_and_quotes_are_read_as_apache_reads_them(text, words):
    assert directives.words(text) == words


def test_lines_that_go_on_are_one_directive_at_its_first_line(files):
    parser = files.parse("# comment \\\nWSGISocketPrefix /a\n\n  WSGIDaemonProcess shop \\\n   processes=2 \\\n   threads=5\r\nTimeout 60\n")
    path = files.folder + "/httpd.conf"
    assert parser.directives == [("WSGIDaemonProcess", ["shop", "processes=2", "threads=5"], path + ":4"), ("Timeout", ["60"], path + ":7")]


def test_conditions_hold_as_they_would_in_the_server(files):
    text = """
LoadModule ssl_module mods/mod_ssl.so
LoadModule mpm_event_module mods/mod_mpm_event.so
Define HERE
<IfDefine HERE>
  WSGISocketPrefix 1
  <IfDefine !THERE>
    WSGISocketPrefix 2
  </IfDefine>
  <IfDefine THERE>
    <IfDefine HERE>
      WSGISocketPrefix no
    </IfDefine>
  </IfDefine>
</IfDefine>
UnDefine HERE
<IfDefine HERE>
  WSGISocketPrefix no
</IfDefine>
<IfDefine COMMAND>
  WSGISocketPrefix 3
</IfDefine>
<IfModule mod_ssl.c>
  WSGISocketPrefix 4
</IfModule>
<IfModule event.c>
  WSGISocketPrefix 5
</IfModule>
<IfModule mpm_prefork_module>
  WSGISocketPrefix no
</IfModule>
<IfModule !mpm_prefork_module>
  WSGISocketPrefix 6
</IfModule>
<IfVersion >= 2.4>
  WSGISocketPrefix 7
</IfVersion>
<IfVersion < 2.4.57>
  WSGISocketPrefix no
</IfVersion>
<ifversion !< 2.4.10>
  WSGISocketPrefix 8
</ifversion>
<VirtualHost *:80>
  <Directory "/srv">
  wsgisocketprefix 9
  </Directory>
</VirtualHost>
<IfFile httpd.conf>
  WSGISocketPrefix 10
</IfFile>
"""
    parser = files.parse(text, defines=["COMMAND"])
    assert [each.args[0] for each in parser.directives if each.name == "WSGISocketPrefix"] == [str(number) for number in range(1, 11)]
    assert parser.modules == {"ssl_module": files.folder + "/mods/mod_ssl.so", "mpm_event_module": files.folder + "/mods/mod_mpm_event.so"}
    assert parser.problems == []


def test_variables_are_of_define_then_of_the_environment_and_else_named(files):
    parser = files.parse("Define GROUP shop\nWSGIProcessGroup ${GROUP}\nUser ${RUN_USER}\nGroup ${NONE}\nPidFile ${NONE}/x\n",
                         environment={"RUN_USER": "www", "GROUP": "no"})
    assert [(each.name, each.args) for each in parser.directives] == [
        ("WSGIProcessGroup", ["shop"]), ("User", ["www"]), ("Group", ["${NONE}"]), ("PidFile", ["${NONE}/x"])]
    assert parser.wanted == {"RUN_USER", "NONE"}
    assert parser.unknown() == ["variables of the server's environment that are not known here: ${NONE} (%s/httpd.conf:4)" % files.folder]


def test_includes_are_followed_with_wildcards_and_folders_and_each_place_is_told(files):
    files.write("sites/b.conf", "WSGIDaemonProcess b\n")
    files.write("sites/a.conf", "\nWSGIDaemonProcess a\n")
    files.write("sites/.hidden.conf", "WSGIDaemonProcess no\n")
    files.write("sites/notes.txt", "WSGIDaemonProcess no\n")
    files.write("whole/x/1", "WSGIDaemonProcess c\n")
    parser = files.parse("IncludeOptional sites/*.conf\nInclude whole\nIncludeOptional none/*.conf\nIncludeOptional none.conf\nInclude missing.conf\n")
    assert [(each.args, each.place) for each in parser.directives] == [
        (["a"], files.folder + "/sites/a.conf:2"), (["b"], files.folder + "/sites/b.conf:1"), (["c"], files.folder + "/whole/x/1:1")]
    assert parser.problems == ["%s/missing.conf cannot be read: No such file or directory" % files.folder]


def test_what_is_not_understood_is_told(files):
    parser = files.parse("<Macro Site $name>\nWSGIDaemonProcess $name\n</Macro>\nUse Site shop\n<IfDirective X>\nTimeout 1\n</IfDirective>\n"
                         "<IfVersion ~ ^2>\nTimeout 2\n</IfVersion>\n")
    assert [each.args for each in parser.directives] == [["1"], ["2"]]
    assert [problem.partition(": ")[2] for problem in parser.problems] == [
        "what the macro Site stands for was not read", "<ifdirective> is not understood; what it holds was read",
        "a pattern in <IfVersion> is not understood; what it holds was read"]


def test_files_depth_bytes_and_what_is_no_file_are_bounded(files):
    parser = files.parse("Include httpd.conf\n")
    assert len(parser.files) == directives.MOST_DEPTH + 1 and "included more than 16 deep" in parser.problems[-1]
    for number in range(250):
        files.write("many/%03d.conf" % number, "Timeout 1\n")
    parser = files.parse("Include many/*.conf\n")
    assert len(parser.files) == directives.MOST_FILES and "more than 200 files" in parser.problems[-1]
    os.mkfifo(os.path.join(files.folder, "fifo"))
    files.write("large.conf", b"Timeout 3\n" * (directives.MOST_BYTES // 10 + 10))
    parser = files.parse("Include fifo\nInclude large.conf\nTimeout 4\n")
    assert parser.problems == [files.folder + "/fifo cannot be read: it is no file",
                               files.folder + "/large.conf is larger than 4 MiB; only its beginning was read",
                               "more than 20,000 directives; the rest was not read"]
    assert len(parser.directives) == 20_000
    files.parse(b"\xff\x00<\n</x>\n<<>>\n${\n\\\n<IfModule\n<IfVersion>\nDefine\nUse\n" + bytes(range(256)) * 50)


def test_the_command_line_is_read_as_getopt_reads_it():
    given = ["httpd", "-f", "/srv/httpd.conf", "-DFOREGROUND", "-D", "NAME=value", "-Xd/srv", "-k", "start", "-C", "Timeout 5", "-cTimeout 6", "-e", "info"]
    assert config.parse_command(given, "/usr/sbin/httpd") == config.Started(
        "/usr/sbin/httpd", "/srv/httpd.conf", "/srv", ["FOREGROUND", "NAME=value", "DEBUG", "ONE_PROCESS", "NO_DETACH"], ["Timeout 5"], ["Timeout 6"])
    for odd in ([], [""], ["x", "-"], ["x", "-f"], ["x", "-?", "-D"]):
        assert config.parse_command(odd, None).file in (None, "")


DUMP = """\
Included configuration files:
  (*) /etc/apache2/apache2.conf
    (146) /etc/apache2/mods-enabled/wsgi.load
VirtualHost configuration:
*:80                   127.0.0.1 (/etc/apache2/sites-enabled/000-default.conf:1)
ServerRoot: "/etc/apache2"
Main DocumentRoot: "/var/www/html"
Main ErrorLog: "/var/log/apache2/error.log"
Mutex default: dir="/run/apache2/" mechanism=default
Define: DUMP_INCLUDES
Define: SITE=shop
User: name="www-data" id=33
Loaded Modules:
 core_module (static)
 wsgi_module (shared)
"""


def test_what_the_server_prints_of_its_configuration_is_understood():
    assert dumps.parse(DUMP) == dumps.Told(["/etc/apache2/apache2.conf", "/etc/apache2/mods-enabled/wsgi.load"], "/etc/apache2",
                                           "/var/log/apache2/error.log", {"SITE": "shop"}, {"core_module": "static", "wsgi_module": "shared"})
    assert dumps.parse("") == dumps.parse("\n<>\0") == dumps.Told([], None, None, {}, {})


def test_a_process_that_is_not_there_is_an_error_of_one_line():
    with pytest.raises(TelError, match="^there is no process 4194305: "):
        config.of(2 ** 22 + 1)
    with pytest.raises(TelError, match="^process %d is no Apache: it runs /" % os.getpid()):
        config.of(os.getpid())


# --- real servers ------------------------------------------------------------------------------

def missing(why):
    if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
        pytest.fail("no real Apache, and it is required: %s" % why)
    pytest.skip("no real Apache: %s" % why)


@pytest.fixture(scope="module")
def express():
    """What mod_wsgi-express starts, as root."""
    try:
        program = apache.express()
    except apache.Missing as why:
        missing(why)
    with apache.Apache(program, "/run/modwsgi-tel-nobody.sock", "--request-timeout", "17", processes=2, threads=3) as server:
        yield server


def as_user(name, pid):
    """What config.of tells a user without rights: {field: its repr}."""
    code = ("import sys; sys.path.insert(0, %r)\nfrom modwsgi_tel.apache import config, logfiles\nfound = config.of(%d)\n"
            "print(repr((found.version, found.asked, [(each.group, each.threads) for each in found.daemons], found.problems,"
            " logfiles.of(%d, found))))")
    with running.short_folder() as folder:                  # the checkout may lie where others cannot look
        shutil.copytree(os.path.join(running.ROOT, "modwsgi_tel"), os.path.join(folder, "modwsgi_tel"),
                        ignore=shutil.ignore_patterns("__pycache__"))
        user = pwd.getpwnam(name)
        done = subprocess.run([apache.SYSTEM_PYTHON, "-B", "-c", code % (folder, pid, pid)], user=user.pw_uid, group=user.pw_gid, extra_groups=[],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, cwd="/")
    assert done.returncode == 0, done.stderr
    return eval(done.stdout)


@pytest.mark.apache
def test_a_real_express_server_tells_all_of_its_configuration(express):
    found = config.of(express.process.pid)
    root = os.path.join(express.folder, "root")
    assert found.problems == [] and found.asked
    assert (found.root, found.file, found.mpm, found.changed) == (root, root + "/httpd.conf", "event", [])
    assert found.version == subprocess.run(["apache2", "-v"], stdout=subprocess.PIPE, env=apache.environment(), timeout=30,
                                           universal_newlines=True).stdout.split("/")[1].split()[0]
    assert found.mod_wsgi["version"] == apache.MOD_WSGI and os.path.exists(found.mod_wsgi["path"])
    [daemon] = found.daemons
    assert (daemon.group, daemon.processes, daemon.threads) == ("127.0.0.1:%d" % express.port, 2, 3)
    assert {name: daemon.options[name] for name in ("request-timeout", "display-name", "locale")} == {
        "request-timeout": "17", "display-name": "(wsgi:127.0.0.1:%d:0)" % express.port, "locale": "C.UTF-8"}
    file, _, line = daemon.place.rpartition(":")
    assert open(file).read().splitlines()[int(line) - 1].startswith("WSGIDaemonProcess ")
    assert found.telemetry == {"socket": "/run/modwsgi-tel-nobody.sock", "interval": 0.5, "slow": 0.5}
    assert dict((name, args) for name, args, _ in found.directives)["User"] == [apache.USER]
    assert found.includes == [root + "/httpd.conf", root + "/rewrite.conf"] and "MOD_WSGI_MULTIPROCESS" in found.defines


@pytest.mark.apache
def test_another_user_is_told_what_the_files_say_and_what_is_missing(express):
    version, asked, daemons, problems, (logs, reasons) = as_user("nobody", express.process.pid)
    assert (asked, daemons) == (False, [("127.0.0.1:%d" % express.port, 3)]) and version == config.of(express.process.pid).version
    assert problems[:2] == ["its environment cannot be read; the variables of /etc/apache2/envvars were taken, where it is there",
                            "the server's own program was not asked: it belongs to another user"]
    assert logs == [] and reasons[0].startswith("which files the server writes to is not known: cannot read process %d: it belongs to root, "
                                                "this is nobody" % express.process.pid)


@contextlib.contextmanager
def debian_like(folder, more=""):
    """A running Apache with Debian's layout of /etc/apache2, in a folder of ours."""
    if os.geteuid() or not os.path.exists(wsgiservers.MOD_WSGI) or not os.path.exists("/etc/apache2/apache2.conf"):
        missing("not root, or no /etc/apache2 with libapache2-mod-wsgi-py3")
    etc, port = os.path.join(folder, "etc"), running.free_port()
    shutil.copytree("/etc/apache2", etc, symlinks=True)
    with open(etc + "/ports.conf", "w") as file:
        file.write("Listen 127.0.0.1:%d\n" % port)
    with open(etc + "/sites-available/shop.conf", "w") as file:
        file.write("<VirtualHost 127.0.0.1:%d>\n  ErrorLog ${APACHE_LOG_DIR}/shop.err\n  <IfModule mod_wsgi.c>\n"
                   "  WSGIDaemonProcess shop processes=2 threads=4 display-name=%%{GROUP} \\\n    python-path='/srv/a b'\n  </IfModule>\n"
                   "  WSGIDaemonProcess ${APACHE_RUN_USER}-blog\n%s</VirtualHost>\n" % (port, more))
    os.symlink("../sites-available/shop.conf", etc + "/sites-enabled/shop.conf")
    environment = dict(apache.environment(), APACHE_RUN_USER="www-data", APACHE_RUN_GROUP="www-data", APACHE_PID_FILE=folder + "/pid",
                       APACHE_RUN_DIR=folder, APACHE_LOCK_DIR=folder, APACHE_LOG_DIR=folder)
    with open(folder + "/said", "w") as said:
        process = subprocess.Popen(["/usr/sbin/apache2", "-d", etc, "-DFOREGROUND"], stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                   env=environment, cwd="/")
    try:
        running.wait_until(lambda: os.path.exists(folder + "/pid") or process.poll() is not None, 20, "Apache did not start")
        assert process.poll() is None, open(folder + "/said").read() + open(folder + "/error.log").read()
        yield process, etc
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.mark.apache
def test_debians_layout_is_read_with_its_links_variables_and_sites():
    with running.short_folder() as folder, debian_like(folder) as (process, etc):
        found = config.of(process.pid)
        assert (found.asked, found.problems, found.root, found.file, found.mpm) == (True, [], etc, etc + "/apache2.conf", "event")
        place = etc + "/sites-enabled/shop.conf:"
        assert found.daemons == [
            config.Daemon("shop", {"processes": "2", "threads": "4", "display-name": "%{GROUP}", "python-path": "/srv/a b"}, 2, 4, place + "4"),
            config.Daemon("www-data-blog", {}, 1, 15, place + "7")]
        assert found.error_logs == [folder + "/error.log", folder + "/shop.err"] and found.telemetry is None
        assert found.mod_wsgi == {"version": "4.9.4", "path": wsgiservers.MOD_WSGI}
        assert dict((name, args) for name, args, _ in found.directives)["MaxRequestWorkers"] == ["150"]
        assert set(found.includes) >= {etc + "/mods-enabled/wsgi.load", etc + "/mods-enabled/mpm_event.conf", etc + "/sites-enabled/shop.conf"}
        logs, reasons = logfiles.of(process.pid, found)
        assert [log.shown for log in logs] == [folder + "/error.log", folder + "/shop.err"] and reasons == []
        # what was changed since is told, and an error in it, which a restart would fail on
        os.utime(etc + "/ports.conf")
        with open(etc + "/sites-available/shop.conf", "a") as file:
            file.write("Nonsense\n")
        found = config.of(process.pid)
        assert found.asked is False and [path for path in found.changed if path.endswith("ports.conf")]
        [problem] = found.problems
        assert problem.startswith("the configuration has an error now, so that a restart would fail: ") and "Invalid command 'Nonsense'" in problem


@pytest.mark.apache
def test_root_never_runs_what_another_user_may_have_changed():
    with running.short_folder() as folder, debian_like(folder) as (process, etc):
        site = etc + "/sites-available/shop.conf"
        for path, change in ((site, lambda path: os.chown(path, 65534, -1)), (site, lambda path: os.chmod(path, 0o666)),
                             (etc + "/mods-enabled", lambda path: os.chmod(path, 0o775))):
            before = os.stat(path)
            change(path)
            found = config.of(process.pid)
            assert (found.asked, found.problems) == (False, ["the server's own program was not asked: another user may change %s" % path])
            assert len(found.daemons) == 2
            os.chown(path, before.st_uid, before.st_gid)
            os.chmod(path, stat.S_IMODE(before.st_mode))
        assert config.of(process.pid).asked
        with open(etc + "/conf-enabled/macro.conf", "w") as file:
            file.write("Use Something\n")                   # which may load anything
        assert config.of(process.pid).problems[0] == "the server's own program was not asked: its files could not be read whole"


@pytest.mark.apache
def test_a_log_that_goes_to_rotatelogs_is_found(tmp_path):
    with running.short_folder() as folder:
        try:
            server = wsgiservers.DebianApache(running.ROOT + "/tests/apps/stuck.py", ready="/ok",
                                              more='ErrorLog "|/usr/bin/rotatelogs %s/rotated.log 86400"' % folder)
        except apache.Missing as why:
            missing(why)
        with server:
            logs, reasons = logfiles.of(server.process.pid, config.of(server.process.pid))
            found = [log for log in logs if os.path.basename(log.shown).startswith("rotated.log")]
            assert len(found) == 1 and found[0].how.startswith("rotatelogs (pid "), (logs, reasons)


def test_the_imports_are_few():
    """They run as root on a server that is in trouble."""
    code = "import sys\nfrom modwsgi_tel.apache import config, errorlog\nprint([name for name in sys.modules if name.split('.')[0] in sys.argv[1:]])"
    done = subprocess.run([sys.executable, "-c", code, "socket", "http", "urllib", "ctypes", "asyncio", "selectors2"], cwd=running.ROOT, timeout=30,
                          stdout=subprocess.PIPE, universal_newlines=True, stdin=subprocess.DEVNULL)
    assert done.stdout == "[]\n"
