"""Who may read the processes of a real Apache with mod_wsgi, and which of them are found."""

import os
import socket
import subprocess

import pytest

import apache
import running
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import find, threads

pytestmark = pytest.mark.apache

TRY = """
import os, sys
sys.path.insert(0, sys.argv[2])
from modwsgi_tel.proc.access import explain
try:
    os.close(os.open("/proc/%s/mem" % sys.argv[1], os.O_RDONLY))
    print("open")
except OSError as error:
    print(explain(int(sys.argv[1]), error))
"""
CORES = "CoreDumpDirectory {folder}"
# wsgi_daemon.c of mod_wsgi 6.0.0 to 6.1.1 asks for PR_SET_DUMPABLE but does not include the header that has it
WITH_PRCTL = "-include sys/prctl.h"


def express(flags=None):
    try:
        return apache.express(flags)
    except apache.Missing as missing:
        if "apache" in os.environ.get("MODWSGI_TEL_TEST_REQUIRE", ""):
            pytest.fail("no real Apache, and it is required: %s" % missing)
        pytest.skip("no real Apache: %s" % missing)


@pytest.fixture(scope="module")
def package():
    """A copy of the package that Apache's user may read."""
    with running.short_folder() as folder:
        yield running.copy_of_the_sources(running.ROOT, os.path.join(folder, "sources"))


@pytest.fixture(scope="module")
def sites():
    with apache.Sites(express(), group="shopping-cart") as server:
        yield server


def tried(package, pid, user=None):
    """What a process of this user, else of root, says of a try to open the memory of this pid."""
    more = {"user": user, "group": user, "extra_groups": []} if user else {}
    done = subprocess.run([apache.SYSTEM_PYTHON, "-I", "-c", TRY, str(pid), package], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", timeout=20, universal_newlines=True, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def closed(pid):
    return ("cannot read process %d: it changed its user at its start, as mod_wsgi's daemons do, and that closes it "
            "(non-dumpable) even to its own user; run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH. "
            "CoreDumpDirectory in Apache's configuration opens it too, except in mod_wsgi 6.0.0 to 6.1.1" % pid)


def test_a_daemon_is_closed_to_its_own_user_and_open_to_root(sites, package):
    pid, = sites.daemons()
    assert tried(package, pid, apache.USER) == closed(pid)
    assert tried(package, pid) == "open"
    assert tried(package, sites.process.pid, apache.USER) == (
        "cannot read process %d: it belongs to root, this is %s; run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
        % (sites.process.pid, apache.USER))


@pytest.mark.parametrize("flags, opened", [(None, False), (WITH_PRCTL, True)])
def test_a_core_dump_directory_opens_a_daemon_where_mod_wsgi_was_built_with_prctl(package, flags, opened):
    with apache.Sites(express(flags), more=CORES) as server:
        pid, = server.daemons()
        assert tried(package, pid, apache.USER) == ("open" if opened else closed(pid))


def test_a_daemon_built_with_prctl_stays_closed_without_a_core_dump_directory(package):
    with apache.Sites(express(WITH_PRCTL)) as server:
        pid, = server.daemons()
        assert tried(package, pid, apache.USER) == closed(pid)


def test_the_processes_of_apache_and_of_one_group_are_found(sites):
    daemon, = sites.daemons()
    assert threads.command(daemon).startswith("(wsgi:shopping-ca ")         # Apache's own name leaves room for 17 characters
    assert daemon in find.group("shopping-cart")
    assert {daemon, sites.process.pid} < set(find.apache()) <= set(find.pythons())
    assert daemon in find.subprocesses([sites.process.pid])
    assert set(find.subprocesses([sites.process.pid])) < set(find.apache())
    with pytest.raises(TelError, match=r"^no process of group shop; there are: .*shopping-ca"):
        find.group("shop")


def test_a_group_of_mod_wsgi_express_is_found_by_host_and_port():
    with running.short_folder() as folder, apache.Apache(express(), os.path.join(folder, "t.sock")) as server:
        assert find.group("127.0.0.1:%d" % server.port) == find.group("127.0.0.1:%d:0" % server.port) == server.daemons()


def test_the_application_gets_stuck_in_each_interpreter_in_the_ways_it_says():
    """What the tests that read stacks rely on: the threads wait where they should, the other sites answer meanwhile."""
    with apache.Sites(express(), threads=20) as server:
        pid, = server.daemons()

        def waits():
            said = [threads.wait(task) or threads.state(task) for task in threads.threads(pid).values()]
            return {call: sum(each.split()[0] == call for each in said) for call in ("recvfrom", "clock_nanosleep", "running")}

        client = apache.Client(server)
        quiet = waits()
        for site in apache.SITES:
            client.start("/%s/socket" % site)
            client.start("/%s/deadlock/a" % site)
            client.start("/%s/deadlock/b" % site)
            client.start("/%s/sleep" % site)
            stream = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            with stream:
                stream.sendall(b"GET /%s/stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % site.encode())
                said = b""
                while b"first\n" not in said:
                    said += stream.recv(1000)
                assert said.startswith(b"HTTP/1.1 200 ") and b"last" not in said
            assert server.get("/%s/ok" % site) == 200
        wanted = {**quiet, "recvfrom": quiet["recvfrom"] + 3, "clock_nanosleep": quiet["clock_nanosleep"] + 3}
        running.wait_until(lambda: waits() == wanted, 10, lambda: "wanted %s, is %s" % (wanted, waits()))
        assert client.results == []

        client.start("/site-a/regex?id=7")
        before = {}

        def burning():
            """The GIL's holder: the one thread that uses CPU."""
            now = threads.cpu_ticks(pid, threads.threads(pid))
            used = [tid for tid in now if now[tid] - before.setdefault(tid, now[tid]) >= 20]
            return used

        holder, = running.wait_until(burning, 20, "nothing burns", pause=0.1)
        assert holder != pid
        with pytest.raises(OSError):
            server.get("/main/ok", timeout=1.0)                     # nobody gets the GIL any more
        assert client.results == []
