"""The collector as a service of a real mod_wsgi: it comes and goes with the server, and fights with nobody."""
import contextlib
import http.client
import json
import os
import shutil
import socket

import pytest

import apache
import running
import wsgiservers
from modwsgi_tel.extras.command import content
from modwsgi_tel.extras.table import named

SCRIPT = "modwsgi_tel_service.py"


@contextlib.contextmanager
def a_folder(pyz=None):
    """A folder that Apache's user may write to, with the script in it, and the program beside it."""
    with running.short_folder(0o777) as folder:
        extra, = named("express/" + SCRIPT)
        with open(os.path.join(folder, SCRIPT), "w") as file:
            file.write(content(extra, "/nowhere/modwsgi-tel.pyz"))
        os.chmod(os.path.join(folder, SCRIPT), 0o644)
        if pyz:
            os.chmod(shutil.copy(pyz, folder), 0o644)
        yield folder


class Served:
    """A Server with the service in it; `daemons` are the others."""

    def daemons(self):
        return [pid for pid in super().daemons() if pid not in self.services()]

    def services(self):
        found = []
        for pid in super().daemons():
            with contextlib.suppress(OSError):
                with open("/proc/%d/cmdline" % pid, "rb") as file:
                    if b"(wsgi:service:" in file.read():
                        found.append(pid)
        return found


class Express(Served, apache.Apache):
    def start(self):
        with pytest.MonkeyPatch.context() as patch:
            made = dict(apache.environment(), **self.variables)
            patch.setattr(apache, "environment", lambda: made)
            return super().start()


class Daemon(Served, apache.Sites):
    """Debian's own mod_wsgi, by its directives."""


def environment(folder):
    return {"MODWSGI_TEL_LISTEN": f"unix:{folder}/t.sock", "MODWSGI_TEL_NO_HTTP_PORT": "yes", "MODWSGI_TEL_HTTP_SOCKET": f"{folder}/h.sock",
            # of the server's own manager, for which the service must not speak
            "NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "1000000"}


def summary(folder):
    """What the collector says, or None while it is not there."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.settimeout(10)
        try:
            connection.sock.connect(folder + "/h.sock")
            connection.request("GET", "/api/summary")
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None


def started(make):
    try:
        return make()
    except apache.Missing as missing:
        if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
            raise
        pytest.skip(str(missing))


def test_an_express_server_brings_its_collector_along(pyz):
    with a_folder(pyz) as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(folder + "/notify")
        os.chmod(folder + "/notify", 0o666)
        manager.setblocking(False)
        server = started(lambda: Express(apache.express(), folder + "/t.sock", "--service-script", "telemetry", os.path.join(folder, SCRIPT)))
        server.variables = environment(folder)
        with server:
            service, = server.services()
            for _ in range(20):
                assert server.get("/") == 200

            def seen():
                found = summary(folder)
                groups = found["groups"] if found else []
                return found if sum(group["windows"]["1m"]["requests"] for group in groups) >= 20 else None
            found = running.wait_until(seen, 20, lambda: server.log() + json.dumps(summary(folder))[:2000])
            assert found["collector"]["pid"] == service and found["totals"]["processes"] == 1
            # as the program is replaced by its next version, what runs goes on out of memory
            with open(folder + "/modwsgi-tel.pyz", "wb") as file:
                file.write(b"replaced")
            assert summary(folder)["collector"]["helpers"]["failed"] == 0
            shutil.copy(pyz, folder)
            os.chmod(folder + "/modwsgi-tel.pyz", 0o644)
            server.graceful()
            running.wait_until(lambda: (summary(folder) or found)["collector"]["pid"] != service, 20, server.log)
            assert server.stop() == 0
            log = server.log(100_000)
        assert sorted(os.listdir(folder)) == ["modwsgi-tel.pyz", SCRIPT, "notify"]
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        assert "receives on unix:" in log and "Traceback" not in log and "still did not exit" not in log, log


def test_a_service_without_the_program_says_so_and_ends_with_the_server():
    with a_folder() as folder:
        server = started(lambda: Express(apache.express(), folder + "/t.sock", "--service-script", "telemetry", os.path.join(folder, SCRIPT)))
        server.variables = environment(folder)
        with server:
            assert server.get("/") == 200
            said = "modwsgi-tel: there is no %s/modwsgi-tel.pyz and no /nowhere/modwsgi-tel.pyz: name the file in MODWSGI_TEL_PYZ" % folder
            running.wait_until(lambda: said in server.log(10_000), 10, server.log)
            assert server.stop() == 0
            assert server.log(100_000).count(said) == 1 and "Traceback" not in server.log(100_000)


def test_debians_mod_wsgi_4_runs_it_too(pyz):
    if not os.path.exists(wsgiservers.MOD_WSGI):
        pytest.skip("no %s (apt-get install libapache2-mod-wsgi-py3)" % wsgiservers.MOD_WSGI)
    with a_folder(pyz) as folder:
        more = "\n".join(("WSGIDaemonProcess service:telemetry threads=0 display-name=%{GROUP}",
                          "WSGIImportScript " + os.path.join(folder, SCRIPT) + " process-group=service:telemetry application-group=%{GLOBAL}"))
        server = started(lambda: Daemon(None, more=more, module=wsgiservers.MOD_WSGI, variables=environment(folder)))
        with server:
            found = running.wait_until(lambda: summary(folder), 20, server.log)
            assert [found["collector"]["pid"]] == server.services()
            assert server.stop() == 0
            log = server.log(100_000)
        assert sorted(os.listdir(folder)) == ["modwsgi-tel.pyz", SCRIPT]
        assert "Traceback" not in log and "still did not exit" not in log, log
