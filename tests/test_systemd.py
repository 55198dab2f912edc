"""What a service manager is told and hands in: by its datagrams and descriptors, as sd_notify(3) and sd_listen_fds(3) have them."""
import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import time

import pytest

import running
from builders import Worker
from managers import Manager
from modwsgi_tel.collector import standing
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.net import systemd

ENDS_S = 20.0


@contextlib.contextmanager
def a_manager():
    """(address, socket): where a Notifier sends to."""
    with running.short_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(folder + "/n")
        manager.settimeout(10.0)
        yield folder + "/n", manager


def got(manager):
    return manager.recv(65536).decode()


# --- telling --------------------------------------------------------------------------------

def test_what_is_told_is_one_datagram_of_lines_and_no_child_can_speak_for_it():
    with a_manager() as (address, manager):
        environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
        notifier = systemd.Notifier(environ)
        assert (environ, notifier.watchdog_s, notifier.listens) == ({"HOME": "/"}, 3.0, True)
        notifier.tell(READY="1", ERRNO=98)
        notifier.alive()
        assert [got(manager), got(manager)] == ["READY=1\nERRNO=98\n", "WATCHDOG=1\n"]


def test_an_abstract_address_is_told_too():
    with running.short_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + folder)
        manager.settimeout(10.0)
        systemd.Notifier({"NOTIFY_SOCKET": "@" + folder}).tell(READY="1")
        assert got(manager) == "READY=1\n"


@pytest.mark.parametrize("address", ["", "@", "/", "relative", "vsock:2:1234", "/" + 120 * "x", "/nul\0", "/nobody/listens/here"])
def test_where_nobody_listens_telling_does_nothing(address):
    notifier = systemd.Notifier({"NOTIFY_SOCKET": address})
    for _ in range(3):
        notifier.tell(READY="1")
        notifier.status("all quiet")
        notifier.again()


def test_without_a_manager_nothing_is_told():
    notifier = systemd.Notifier({"WATCHDOG_USEC": "1000000"})
    assert not notifier.listens and notifier.watchdog_s is None


@pytest.mark.parametrize("usec, pid, seconds", [
    ("500000", "", 0.5), ("0", "", None), ("-5", "", None), ("x", "", None), ("", "", None), ("9" * 30, "", None),
    ("1000000", "1", None), ("1000000", str(os.getpid()), 1.0)])
def test_a_sign_of_life_is_wanted_of_this_process_alone(usec, pid, seconds):
    assert systemd.Notifier({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}).watchdog_s == seconds


def test_a_full_queue_is_not_waited_for_and_the_newest_of_each_name_is_sent_later():
    with a_manager() as (address, manager):
        notifier = systemd.Notifier({"NOTIFY_SOCKET": address})
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"X=1\n", address)
        notifier.tell(READY="1")
        notifier.status("first")
        notifier.status("second")
        notifier.alive()
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                assert manager.recv(100) == b"X=1\n"
        notifier.again()
        assert got(manager) == "READY=1\nSTATUS=second\nWATCHDOG=1\n"
        notifier.again()
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_a_status_is_one_line_of_any_text_and_told_once():
    with a_manager() as (address, manager):
        notifier = systemd.Notifier({"NOTIFY_SOCKET": address})
        notifier.status("group\nSTOPPING=1 \x1b[31m \udcff")
        notifier.status("group\nSTOPPING=1 \x1b[31m \udcff")
        notifier.status("x" * 10_000)
        first, second = got(manager), got(manager)
        assert first.count("\n") == 1 and "\x1b" not in first and first.startswith("STATUS=group")
        assert second == "STATUS=" + "x" * systemd.STATUS_BYTES + "\n"
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_why_it_does_not_start_is_told_with_the_number_of_the_error():
    with a_manager() as (address, manager):
        notifier = systemd.Notifier({"NOTIFY_SOCKET": address})
        try:
            try:
                raise OSError(98, "Address already in use")
            except OSError:
                raise TelError("cannot serve") from None
        except TelError as error:
            notifier.failed(error)
        assert got(manager) == "ERRNO=98\nSTATUS=cannot serve\n"


# --- handed in ------------------------------------------------------------------------------

TAKES = """
import json, os, sys
from modwsgi_tel.collector import standing
from modwsgi_tel.errors import TelError
from modwsgi_tel.net import systemd
try:
    found = systemd.listeners()
    print(json.dumps([[systemd.place(each), each.getblocking(), os.get_inheritable(each.fileno())] for each in found]
                     + sorted(name for name in os.environ if name.startswith("LISTEN"))))
except TelError as error:
    print(json.dumps(str(error)))
"""


def taken(*handed, **environment):
    with Manager() as manager, manager.start(program=(sys.executable, "-c", TAKES), handed=handed, environment=environment) as process:
        assert process.wait(ENDS_S) == 0, process.log()
        return json.loads(process.log())


def test_stream_sockets_of_each_family_are_taken_closed_on_exec_and_out_of_the_environment():
    with running.short_folder() as folder, socket.create_server(("127.0.0.1", 0)) as four, socket.socket(socket.AF_UNIX) as unix, \
            socket.socket(socket.AF_UNIX) as abstract:
        unix.bind(folder + "/s")
        abstract.bind("\0" + folder)
        for each in (unix, abstract):
            each.listen()
        assert taken(four, unix, abstract) == [
            [f"http://127.0.0.1:{four.getsockname()[1]}", False, False], [f"unix:{folder}/s", False, False], [f"unix:@{folder}", False, False]]


def test_a_telemetry_socket_is_refused_and_said_why():
    with running.short_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(folder + "/t.sock")
        said = taken(datagrams)
        assert said == (f"a datagram socket is handed in (unix:{folder}/t.sock): the telemetry socket is never taken from the service manager, "
                        "since while it holds the socket and this is down, everybody who sends waits as soon as the queue is full; take "
                        "ListenDatagram= out of the .socket unit, --listen binds it")


def test_what_cannot_be_served_is_refused():
    with open(os.devnull) as file:
        assert taken(file).startswith("descriptor 3, handed in by the service manager, is no socket (Socket operation on non-socket)")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert taken(ours).startswith("a connection is handed in (unix:), not a listening socket: set Accept=no")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets:
        assert "is no stream socket: name it as ListenStream=" in taken(packets)


@pytest.mark.parametrize("variables", [
    {}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "x"}, {"LISTEN_FDS": "", "LISTEN_PID": str(os.getpid())}])
def test_what_is_for_another_process_is_left_alone(variables):
    environ = dict(variables)
    assert systemd.listeners(environ) == [] and environ == {}


@pytest.mark.parametrize("count", ["-1", "x", "17", "99999999999", "1 "])
def test_a_number_that_is_none_is_an_error(count):
    with pytest.raises(UsageError, match="a whole number, at most 16"):
        systemd.listeners({"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())})


# --- the collector --------------------------------------------------------------------------

def ask(where, path="/healthz", host="localhost"):
    """(status, body) from a port or a unix socket."""
    connection = http.client.HTTPConnection("localhost", timeout=10.0)
    connection.sock = socket.socket(socket.AF_UNIX) if isinstance(where, str) else socket.create_connection(("127.0.0.1", where), 10.0)
    try:
        if isinstance(where, str):
            connection.sock.settimeout(10.0)
            connection.sock.connect(where)
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_collector_says_that_it_is_ready_lives_reloads_and_stops():
    with Manager(watchdog_s=0.2) as manager:
        path = manager.folder + "/t.sock"
        with manager.start("serve", "--listen", "unix:" + path, "--no-http-port", "--http-socket", manager.folder + "/h.sock") as process:
            assert manager.next("READY") == "1" and manager.said[-1]["STATUS"] == "waits for telemetry"
            assert ask(manager.folder + "/h.sock")[0] == 200            # by then all is bound
            assert [manager.next("WATCHDOG") for _ in range(3)] == ["1"] * 3
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(Worker().tick(3, stamp=time.time()), path)
            said = manager.next("STATUS")
            summary = ask(manager.folder + "/h.sock", "/api/summary")[1]
            assert summary["totals"]["processes"] == 1 and said.startswith(summary["verdict"].split(",")[0]), (said, summary["verdict"])
            process.send_signal(signal.SIGHUP)
            assert manager.next("RELOADING") == "1" and int(manager.said[-1]["MONOTONIC_USEC"]) > 0
            assert manager.next("READY") == "1"
            process.terminate()
            assert manager.next("STOPPING") == "1"
            assert process.wait(ENDS_S) == 0
        assert not os.path.exists(path)


def test_the_status_says_what_is_wrong_and_how_much_there_is():
    totals = {"processes": 3, "lives": {"active": 2, "vanished": 1}, "windows": {"1m": {"throughput": 1234.56, "capacity": 0.5}}}
    assert standing([], totals) == "all quiet: 2 processes, 1,234.6 requests/s, busy 50 %"
    found = [{"text": "all threads of shop are busy"}, {"text": "slow"}]
    assert standing(found, totals) == "all threads of shop are busy (+1 more); 2 processes, 1,234.6 requests/s"


def test_a_collector_that_hangs_gives_no_sign_of_life():
    with Manager(watchdog_s=0.1) as manager:
        with manager.start("serve", "--listen", "unix:" + manager.folder + "/t.sock", "--http-port", "0") as process:
            manager.next("WATCHDOG")
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            manager.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    manager.socket.recv(1000)
            with pytest.raises(TimeoutError):
                manager.next("WATCHDOG", timeout=0.5)
            process.send_signal(signal.SIGCONT)
            assert manager.next("WATCHDOG") == "1"


def test_a_collector_that_cannot_start_says_why():
    with Manager() as manager, socket.create_server(("127.0.0.1", 0)) as taken_already:
        port = taken_already.getsockname()[1]
        with manager.start("serve", "--listen", "unix:" + manager.folder + "/t.sock", "--http-port", str(port)) as process:
            assert process.wait(ENDS_S) == 2
            assert manager.next("STATUS").startswith(f"cannot serve HTTP on 127.0.0.1 port {port}: Address already in use")
            assert manager.said == [{"ERRNO": "98", "STATUS": manager.said[0]["STATUS"]}]


def test_handed_in_sockets_are_served_instead_of_a_port_and_their_paths_stay():
    with Manager() as manager, socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(manager.folder + "/h.sock")
        unix.listen()
        port = tcp.getsockname()[1]
        with manager.start("serve", "--listen", "unix:" + manager.folder + "/t.sock", handed=[tcp, unix]) as process:
            manager.next("READY")
            assert ask(port)[0] == ask(port, host=f"127.0.0.1:{port}")[0] == ask(manager.folder + "/h.sock", host="anything.example")[0] == 200
            assert ask(port, host="evil.example")[0] == 421
            said = process.log()
            assert f"serves http://127.0.0.1:{port}, handed in" in said and f"serves unix:{manager.folder}/h.sock, handed in" in said
            assert ":8888" not in said and "whoever reaches" not in said
            process.terminate()
            assert process.wait(ENDS_S) == 0
        assert os.path.exists(manager.folder + "/h.sock") and not os.path.exists(manager.folder + "/t.sock")


def test_handed_in_sockets_come_besides_a_port_that_was_asked_for_and_others_are_warned_of():
    with Manager() as manager, socket.create_server(("0.0.0.0", 0)) as tcp:
        with manager.start("serve", "--listen", "unix:" + manager.folder + "/t.sock", "--http-port", "0", handed=[tcp]) as process:
            manager.next("READY")
            own = int(running.READY.search(process.log()).group(1))
            assert ask(own)[0] == ask(tcp.getsockname()[1])[0] == 200
            assert "whoever reaches 0.0.0.0 can read everything here" in process.log()
            connection = http.client.HTTPConnection("127.0.0.1", own, timeout=10)
            connection.request("POST", "/api/stacks?pid=1")
            assert "nobody may ask for stacks here: other machines reach this" in connection.getresponse().read().decode()
            connection.close()


def test_a_collector_refuses_the_telemetry_socket_of_a_manager():
    with Manager() as manager, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(manager.folder + "/t.sock")
        with manager.start("serve", "--listen", "unix:" + manager.folder + "/u.sock", handed=[datagrams]) as process:
            assert process.wait(ENDS_S) == 2
            assert "the telemetry socket is never taken from the service manager" in process.log() and process.log().count("\n") == 1
            assert "the telemetry socket is never taken" in manager.next("STATUS")
        assert os.path.exists(manager.folder + "/t.sock")


def test_no_helper_of_the_collector_has_the_managers_variables():
    look = "import os; print(sorted(name for name in os.environ if name.startswith(('NOTIFY', 'WATCHDOG', 'LISTEN'))))"
    code = ("import subprocess, sys; from modwsgi_tel.net import systemd; systemd.Notifier(); systemd.listeners(); "
            f"sys.exit(subprocess.run([sys.executable, '-c', {look!r}], timeout=20).returncode)")
    with Manager(watchdog_s=1) as manager, socket.create_server(("127.0.0.1", 0)) as tcp:
        with manager.start(program=(sys.executable, "-c", code), handed=[tcp]) as process:
            assert process.wait(ENDS_S) == 0 and process.log() == "[]\n"


# --- the stack helper -----------------------------------------------------------------------

def test_the_stack_helper_says_that_it_is_ready_lives_and_stops():
    with Manager(watchdog_s=0.2, abstract=True) as manager:
        with manager.start("stack-helper", "--listen", "unix:" + manager.folder + "/s") as process:
            assert manager.next("READY") == "1" and os.path.exists(manager.folder + "/s")
            manager.next("WATCHDOG")
            process.terminate()
            assert manager.next("STOPPING") == "1" and process.wait(ENDS_S) == 0
        assert not os.path.exists(manager.folder + "/s")


def test_the_stack_helper_serves_a_unix_socket_that_is_handed_in_and_no_other():
    with Manager() as manager, socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(manager.folder + "/s")
        unix.listen()
        with manager.start("stack-helper", handed=[unix]) as process, socket.socket(socket.AF_UNIX) as asks:
            manager.next("READY")
            asks.settimeout(10)
            asks.connect(manager.folder + "/s")
            asks.sendall(b"{}\n")
            assert json.loads(asks.recv(65536))["error"].startswith("not a question")
            process.terminate()
            assert process.wait(ENDS_S) == 0 and os.path.exists(manager.folder + "/s")
        with manager.start("stack-helper", handed=[tcp]) as process:
            assert process.wait(ENDS_S) == 2 and "is to hand in one unix socket" in process.log()
