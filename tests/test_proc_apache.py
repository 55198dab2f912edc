"""What /proc and the kernel tell of a real Apache whose daemon has one thread, which is blocked, while twenty requests wait."""
import collections
import contextlib
import os
import signal
import socket

import pytest

import apache
import running
import wsgiservers
from modwsgi_tel.proc import descriptors, sockets, waits

pytestmark = pytest.mark.apache
WAITING = 20


@pytest.fixture(params=[apache.MOD_WSGI, "of Debian"])
def server(request):
    try:
        apache.check_machine()
        program = apache.express() if request.param == apache.MOD_WSGI else None
        module = None if program else wsgiservers.MOD_WSGI
        if module and not os.path.exists(module):
            raise apache.Missing("no %s (apt-get install libapache2-mod-wsgi-py3)" % module)
        server = apache.Sites(program, app=apache.APP, threads=1, sites={"main": "%{GLOBAL}"}, group="shop", module=module)
    except apache.Missing as missing:
        if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
            pytest.fail("no real Apache, and it is required: %s" % missing)
        pytest.skip("no real Apache: %s" % missing)
    with server:
        yield server


def queue(server):
    """The listening socket of the server's one daemon group."""
    found = [each for each in sockets.listeners() if each.path and each.path.startswith(server.folder + "/")]
    assert len(found) == 1, found
    return found[0]


def children(server):
    with open("/proc/%d/task/%d/children" % (server.process.pid, server.process.pid)) as file:
        return [int(word) for word in file.read().split()]


def test_the_requests_that_wait_for_a_daemon_are_seen_at_its_socket_and_in_apaches_children(server):
    assert (queue(server).received_queue, queue(server).backlog, queue(server).service) == (0, 100, "mod_wsgi")
    clients = []
    try:
        for _ in range(1 + WAITING):
            clients.append(socket.create_connection(("127.0.0.1", server.port), 20))
            clients[-1].sendall(b"GET /main/hang HTTP/1.0\r\n\r\n")
        running.wait_until(lambda: queue(server).received_queue == WAITING, 20, lambda: "%s" % (queue(server),))
        path = queue(server).path
        texts = collections.Counter(wait["text"].replace("ppoll", "poll") for pid in children(server) for wait in waits.waits(pid).values())
        assert texts["poll on unix %s (mod_wsgi), not accepted yet" % path] == WAITING
        assert texts["poll on unix %s (mod_wsgi)" % path] == 1         # that of the request which is served
        serving = server.daemons()
        assert sockets.holders([queue(server).inode])[queue(server).inode] == sorted([server.process.pid, *serving])
        rows = [row for row in descriptors.look(serving[0])["rows"] if row["kind"] == "unix"]
        assert collections.Counter(row["target"] for row in rows) == {"listening on " + path: 1, path: 1}
        opened = collections.Counter()
        for pid in children(server):
            for each in descriptors.look(pid)["rows"]:
                if each["kind"] == "tcp" and each["socket"]["incoming"]:
                    opened[each["socket"]["local"], each["socket"]["service"]] += 1
        assert opened == {("127.0.0.1:%d" % server.port, ""): 1 + WAITING}
    finally:
        for each in clients:
            each.close()
        # Apache's children would wait for the daemon for as long as it lets them
        for pid in (server.process.pid, *children(server)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
