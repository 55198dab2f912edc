"""Behind a real Apache with a password: the shipped snippet, curl's way and a browser's; by TCP and by a unix socket."""
import base64
import contextlib
import hashlib
import http.client
import json
import os
import shutil

import pytest

import apache
from browser import Browser
from builders import capture
from running import ROOT, Collector, short_folder
from websockets import WebSocket

SNIPPET = os.path.join(ROOT, "modwsgi_tel", "extras", "static", "apache", "proxy.conf")
MODULES = "/usr/lib/apache2/modules"
NEEDED = ("mpm_event", "authz_core", "authz_user", "authn_core", "authn_file", "auth_basic", "alias", "headers", "proxy", "proxy_http")
CONFIGURATION = """
ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/httpd.pid
ErrorLog /dev/stderr
User {user}
Group {user}
{modules}
{sites}
"""
USER, PASSWORD = "ops", "open sesame"
BASIC = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


def site(place, backend, prefix=True):
    """The snippet as an operator would change it: shown at `place`, with that backend."""
    with open(SNIPPET) as file:
        text = file.read()
    changes = [("/telemetry", place), ("http://127.0.0.1:8888/", backend), ("/etc/apache2/modwsgi-tel.htpasswd", "htpasswd")]
    if not prefix:
        changes.append(("    RequestHeader set X-Forwarded-Prefix", "    #"))
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


class Apache(apache.Server):
    """In front of two collectors: one by TCP at /telemetry and at /kept (with the browser's Host), one by its socket and with
    --root-path at /deep/in.  url: without a path."""

    def __init__(self, plain, rooted):
        super().__init__(apache.APP, 0)         # which it does not run
        self.url = f"http://127.0.0.1:{self.port}"
        with open(os.path.join(self.folder, "htpasswd"), "w") as file:
            file.write(f"{USER}:{{SHA}}{base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()}\n")
        tcp = f"http://127.0.0.1:{plain.port}/"
        kept = site("/kept", tcp).replace("    ProxyPass", "    ProxyPreserveHost On\n    ProxyPass", 1)
        sites = [site("/telemetry", tcp), kept, site("/deep/in", f"unix:{rooted}|http://localhost/", prefix=False)]
        path = os.path.join(self.folder, "httpd.conf")
        with open(path, "w") as file:
            file.write(CONFIGURATION.format(
                folder=self.folder, port=self.port, user=apache.USER, sites="\n".join(sites),
                modules="\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in NEEDED)))
        for name in os.listdir(self.folder):
            os.chmod(os.path.join(self.folder, name), 0o644)
        self.command = [shutil.which("apache2", path=apache.PATH), "-f", path, "-DFOREGROUND", "-k", "start"]

    def _answers(self):
        assert self.process.poll() is None, self.log()
        try:
            return self.get("/telemetry/", {})[0] == 401
        except ConnectionRefusedError:
            return False

    def request(self, method, path, headers=None):
        """(status, headers with lower-case names, body); with the password unless there are other headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers=BASIC if headers is None else headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path, headers=None):
        return self.request("GET", path, headers)


@pytest.fixture(scope="module")
def collectors():
    """Two that know the same: one by TCP, that answers to `ops.example.org` too; one by its unix socket, with --root-path."""
    datagrams = [datagram for _, _, datagram in capture("daemon_mixed")]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        rooted = os.path.join(folder, "http")
        started = [stack.enter_context(Collector("--allow-host", "ops.example.org")),
                   stack.enter_context(Collector("--http-socket", rooted, "--http-socket-mode", "0666", "--root-path", "/deep/in"))]
        for each in started:
            each.send(*datagrams)
            each.wait_for("/api/state?samples=0", lambda state: state["total_received"] == len(datagrams))
        yield started[0], started[1], rooted


@pytest.fixture(scope="module")
def server(collectors):
    if os.geteuid() != 0:
        pytest.skip("not root (Apache starts its processes as %s)" % apache.USER)
    if not shutil.which("apache2", path=apache.PATH):
        pytest.skip("no apache2 (apt-get install apache2)")
    with Apache(collectors[0], collectors[2]) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


PLACES = ("/telemetry", "/kept", "/deep/in")


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_told_without_the_password(server, place):
    wrong = {"Authorization": "Basic " + base64.b64encode(b"ops:guessed").decode()}
    for path in ("/", "/api/summary", "/metrics", "/ws"):
        for headers in ({}, wrong):
            assert server.get(place + path, headers)[0] == 401, path
    with WebSocket(server.port, place + "/ws") as refused:
        assert refused.status == 401


@pytest.mark.parametrize("place", PLACES)
def test_with_it_all_paths_answer_and_links_lead_back(server, collectors, place):
    own = collectors[PLACES.index(place) // 2]
    assert server.get(place)[1]["location"] == f"{server.url}{place}/"
    status, headers, body = server.get(place + "/api", {**BASIC, "Accept": "text/plain"})
    assert status == 200 and f"GET  {place}/api/summary" in body.decode()
    status, headers, body = server.get(place + "/metrics")
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain") and b"modwsgi_" in body
    found, direct = json.loads(server.get(place + "/api/summary")[2]), own.json("/api/summary")
    assert [row["pid"] for row in found["processes"]] == [row["pid"] for row in direct["processes"]] != []
    status, headers, _ = server.get(place + "/api/state", {**BASIC, "Accept-Encoding": "gzip"})
    assert (status, headers["content-encoding"]) == (200, "gzip")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["127.0.0.1", "ops.example.org"])
def test_its_own_page_may_post_and_that_of_another_site_may_not(server, place, name):
    host = f"{name}:{server.port}"
    for origin, status in ((f"http://{host}", 200), (None, 200), ("http://evil.example", 403), ("null", 403), (f"http://{name}:1", 403)):
        headers = {**BASIC, "Host": host, **({} if origin is None else {"Origin": origin})}
        assert server.request("POST", place + "/api/slow/clear", headers)[0] == status, origin
        with WebSocket(server.port, place + "/ws", **headers) as reader:
            assert reader.status == (101 if status == 200 else 403), origin
            if status == 200:
                assert reader.message()["type"] == "snapshot"


def test_a_host_that_the_collector_does_not_know_is_told_what_to_do(server):
    """Only with ProxyPreserveHost, and not by the unix socket."""
    headers = {**BASIC, "Host": "other.example"}
    status, _, body = server.get("/kept/api/summary", headers)
    assert status == 421 and "--allow-host" in json.loads(body)["error"]
    assert [server.get(place + "/api/summary", headers)[0] for place in ("/telemetry", "/deep/in")] == [200, 200]


def test_records_come_through_as_they_happen(server, collectors):
    with WebSocket(server.port, "/telemetry/ws", **BASIC) as reader:
        assert len(reader.message()["processes"]) == len(collectors[0].json("/api/processes")["processes"])
        collectors[0].send(*[datagram for _, _, datagram in capture("daemon_gil")][:50])
        assert reader.message()["type"] in ("sample", "lifecycle", "gc_event", "gc_snapshot", "slow_request")
    collectors[0].wait_for("/api/summary", lambda found: found["collector"]["http"]["websockets"] == 0)


@pytest.mark.parametrize("place", PLACES)
def test_a_browser_shows_the_page_polls_and_listens(server, collectors, browser, place):
    with browser.page(f"{server.url}{place}/", user=USER, password=PASSWORD) as page:
        pids = [str(row["pid"]) for row in collectors[PLACES.index(place) // 2].json("/api/summary")["processes"]]
        summaries = f"{server.url}{place}/api/summary"
        page.until(lambda: sum(url.startswith(summaries) for url in page.requests) > 1, "a second poll")
        page.goto(f"{server.url}{place}/#processes")
        page.wait(f"{json.dumps(pids)}.every(pid => document.body.innerText.includes(pid))", "the processes")
        told = page.value("new Promise((done, failed) => { const socket = new WebSocket(location.href.replace(/^http/, 'ws')"
                          ".replace(/#.*/, '') + 'ws'); socket.onmessage = event => { done(JSON.parse(event.data).type); socket.close() };"
                          " socket.onerror = () => failed(new Error('no WebSocket')) })")
        assert told == "snapshot"
        assert page.value("fetch('api/slow/clear', {method: 'POST'}).then(answer => answer.json())")["ok"]
        assert page.errors == []
        assert {url.split("/", 3)[2] for url in page.requests} == {f"127.0.0.1:{server.port}"}
