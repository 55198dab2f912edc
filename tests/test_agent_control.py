"""The agent's own socket: who may ask, what is answered, and what hostile clients cannot do to it."""
import contextlib
import json
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time

import pytest

from descriptors import another_file_at
from modwsgi_tel.agent.control import ANSWER_BYTES, ASKED_BYTES, CONNECTIONS_MOST, LIMIT_S, PREFIX, REST_S, Control
from modwsgi_tel.errors import TelError
from running import wait_until

HINT = {"error": 'ask with a line of JSON, as {"do": "state"}'}
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user: needs root")


def a_name(number=0):
    """A name that no other test has."""
    return f"{PREFIX}.{os.getpid()}.{number}.{os.urandom(4).hex()}"


@contextlib.contextmanager
def a_control(answer=lambda request: {"did": request["do"]}, path="/nonexistent", name=None):
    control = Control(name or a_name(), answer, path)
    try:
        yield control
    finally:
        control.close()


def turn(control, seconds=0.0):
    """One turn of a loop that polls; how many descriptors were ready."""
    poll = select.poll()
    for number, events in control.descriptors().items():
        poll.register(number, events)
    ready = poll.poll(int(seconds * 1000))
    for number, events in ready:
        control.ready(number, events)
    return len(ready)


def settle(control):
    while turn(control):
        pass


def connect(control):
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.settimeout(5.0)
    found.connect("\0" + control.name)
    return found


def said(control, question):
    """All that comes of some bytes."""
    with connect(control) as client:
        client.setblocking(False)
        client.sendall(question)
        found = b""
        for _ in range(10000):
            turn(control, 0.001)
            try:
                part = client.recv(1 << 20)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                break
            if not part:
                break
            found += part
        return found


def ask(control, **request):
    return json.loads(said(control, json.dumps(request).encode() + b"\n"))


def test_a_line_of_json_is_answered_and_the_connection_ends():
    with a_control() as control:
        assert ask(control, do="state") == {"did": "state"}
        assert (control.asked, control.refused, control.dropped, len(control.descriptors())) == (1, 0, 0, 1)


def test_a_question_may_come_in_pieces_and_many_come_one_after_another():
    with a_control() as control, connect(control) as client:
        for byte in b'{"do": "x"}\n':
            client.sendall(bytes([byte]))
            settle(control)
        assert json.loads(client.recv(4096)) == {"did": "x"}
        assert [ask(control, do=str(n)) for n in range(20)] == [{"did": str(n)} for n in range(20)]


@pytest.mark.parametrize("question", [b"\n", b"{\n", b"[]\n", b'"do"\n', b"{}\n", b'{"do": 7}\n', b'{"do": null}\n', b"\xff\xfe\n",
                                      b"[" * 4000 + b"\n", b"9" * 4000 + b"\n", b'{"do": [' + b"[" * 3000 + b"\n"])
def test_nonsense_is_answered_with_how_to_ask(question):
    with a_control() as control:
        assert json.loads(said(control, question)) == HINT


def test_too_long_a_question_gets_nothing():
    with a_control() as control:
        assert said(control, b"x" * (ASKED_BYTES + 1)) == b""
        assert (control.asked, control.dropped, len(control.descriptors())) == (0, 1, 1)


def fails(error):
    def answer(request):
        raise error
    return answer


@pytest.mark.parametrize("answer, wanted, errors", [
    (fails(TelError("the application traces already")), {"error": "the application traces already"}, 0),
    (fails(ValueError("frames: 1 to 25")), {"error": "frames: 1 to 25"}, 0),
    (fails(KeyError("secret")), {"error": "the agent failed: KeyError"}, 1),
    (lambda request: {"x": object()}, {"error": "the agent failed: TypeError"}, 1),
    (lambda request: {"x": "y" * ANSWER_BYTES}, {"error": f"the answer is too long: {ANSWER_BYTES + 10} bytes"}, 0),
])
def test_what_goes_wrong_with_an_answer_is_answered(answer, wanted, errors):
    with a_control(answer) as control:
        assert ask(control, do="x") == wanted
        assert control.errors == errors


def test_a_long_answer_comes_whole():
    text = "x" * (ANSWER_BYTES - 100)
    with a_control(lambda request: {"x": text}) as control:
        assert ask(control, do="x") == {"x": text}


def test_a_client_that_takes_nothing_holds_nobody_up_and_loses_its_connection():
    with a_control(lambda request: {"x": "y" * (1 << 20)}) as control, connect(control) as client:
        client.sendall(b'{"do": "x"}\n')
        settle(control)
        [until] = [control.due()]
        assert 0 < until - time.monotonic() <= LIMIT_S
        assert len(ask(control, do="x")["x"]) == 1 << 20
        control.run(until - 0.01)
        assert control.dropped == 0
        control.run(until)
        assert (control.dropped, control.due()) == (1, None)


def test_no_more_than_a_few_are_connected_and_who_waits_is_served_when_their_time_is_up():
    with a_control() as control, contextlib.ExitStack() as clients:
        for _ in range(CONNECTIONS_MOST):
            clients.enter_context(connect(control))
        settle(control)
        late = clients.enter_context(connect(control))
        late.sendall(b'{"do": "late"}\n')
        settle(control)
        assert len(control.descriptors()) == CONNECTIONS_MOST and control.asked == 0
        control.run(time.monotonic() + LIMIT_S + 0.1)
        settle(control)
        assert (json.loads(late.recv(4096)), control.dropped) == ({"did": "late"}, CONNECTIONS_MOST)


def test_who_hangs_up_at_any_moment_leaves_nothing_behind():
    with a_control(lambda request: {"x": "y" * (1 << 20)}) as control:
        for question in (b"", b'{"do"', b'{"do": "x"}\n'):
            client = connect(control)
            client.sendall(question)
            settle(control)
            client.close()
            settle(control)
        client = connect(control)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        settle(control)
        assert len(control.descriptors()) == 1


def test_where_the_name_is_taken_it_listens_under_another_one():
    name = a_name()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as squatter:
        squatter.bind("\0" + name)
        squatter.listen()
        with a_control(name=name) as control:
            assert control.name.startswith(name + ".") and len(control.name) == len(name) + 17
            assert ask(control, do="x") == {"did": "x"}


def test_where_it_cannot_listen_it_says_why_and_does_nothing():
    with a_control(name="x" * 200) as control:
        assert (control.name, control.descriptors(), control.due()) == ("", {}, None)
        assert control.problem.startswith("no control socket: ")


def test_the_name_is_free_once_it_is_closed_and_events_of_before_do_nothing():
    name = a_name()
    with a_control(name=name) as control:
        [listener] = control.descriptors()
        control.close()
        control.ready(listener, select.POLLIN)
        assert control.descriptors() == {}
    with a_control(name=name) as control:
        assert control.name == name


def test_a_child_of_a_fork_lets_go_of_it_and_its_parent_answers_on():
    with a_control() as control:
        child = os.fork()
        if not child:
            control.forked()
            os._exit(len(control.descriptors()))
        assert os.waitpid(child, 0)[1] == 0
        assert ask(control, do="x") == {"did": "x"}


# --- what the application does to it ------------------------------------------------------------

CLOSED = ("", "no control socket: the application closed it", {}, None)


def state(control):
    polled = control.descriptors()
    return control.name, control.problem, polled, control.due()


@pytest.mark.parametrize("polled", [False, True])
def test_where_its_number_is_the_applications_listener_it_accepts_nobody_there(polled):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as theirs, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        theirs.bind("\0" + a_name())
        theirs.listen()
        theirs.setblocking(False)
        client.connect(theirs.getsockname())
        with a_control() as control:
            [listener] = control.descriptors()
            with another_file_at(listener, theirs.fileno()):
                if polled:
                    control.ready(listener, select.POLLIN)
                assert state(control) == CLOSED
                control.close()
                assert os.path.sameopenfile(listener, theirs.fileno())
        theirs.accept()[0].close()


@pytest.mark.parametrize("question", [b"", b'{"do": "x"}\n'])
def test_where_a_connections_number_is_the_applications_nothing_is_read_sent_or_closed(question):
    here, there = socket.socketpair()
    with here, there, a_control(lambda request: {"x": "y" * (1 << 20)}) as control, connect(control) as client:
        name = control.name
        client.sendall(question)
        settle(control)
        _, number = control.descriptors()
        there.sendall(b"theirs")
        with another_file_at(number, here.fileno()):
            control.ready(number, select.POLLIN)
            assert state(control) == CLOSED
            assert os.path.sameopenfile(number, here.fileno())
        assert here.recv(100) == b"theirs"
        there.setblocking(False)
        with pytest.raises(BlockingIOError):
            there.recv(100)
    with a_control(name=name) as control:
        assert control.name == name     # its own ones are closed


def test_what_the_application_closes_while_a_question_is_answered_is_not_sent_to():
    here, there = socket.socketpair()
    taken = contextlib.ExitStack()

    def answer(request):
        taken.enter_context(another_file_at(max(control.descriptors()), here.fileno()))
        return {}

    with here, there, taken, a_control(answer) as control, connect(control) as client:
        client.sendall(b'{"do": "x"}\n')
        settle(control)
        assert state(control) == CLOSED
        there.setblocking(False)
        with pytest.raises(BlockingIOError):
            there.recv(100)


def test_who_cannot_be_accepted_for_want_of_descriptors_is_accepted_a_second_later():
    with a_control() as control, connect(control) as client:
        client.sendall(b'{"do": "x"}\n')
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            assert [turn(control), turn(control), turn(control)] == [1, 0, 0]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        until = control.due()
        assert 0 < until - time.monotonic() <= REST_S
        control.run(until - 0.01)
        assert turn(control) == 0
        control.run(until)
        assert control.due() is None
        settle(control)
        assert (json.loads(client.recv(4096)), control.dropped) == ({"did": "x"}, 0)


# --- who may ask --------------------------------------------------------------------------------

ASKS = """import socket, sys
asks = socket.socket(socket.AF_UNIX)
asks.connect(chr(0) + sys.argv[1])
try:
    asks.sendall(b'{"do": "x"}\\n')
    print(asks.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""


def asked_by(uid, control):
    with subprocess.Popen(["/usr/bin/python3", "-I", "-S", "-c", ASKS, control.name], user=uid, group=uid, extra_groups=[], cwd="/",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            wait_until(lambda: turn(control, 0.05) < 0 or process.poll() is not None, 20, "it gets no answer", 0)
            return process.stdout.read().strip()
        finally:
            process.kill()


@needs_root
@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="no Python that all may start")
def test_only_root_its_own_user_and_the_owner_of_the_telemetry_socket_get_an_answer(tmp_path):
    path = str(tmp_path / "t.sock")
    with a_control(path=path) as control, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telemetry:
        assert asked_by(NOBODY, control) == b"b''" and control.refused == 1
        telemetry.bind(path)
        assert asked_by(NOBODY, control) == b"b''" and control.refused == 2
        os.chown(path, NOBODY, -1)      # looked up when somebody asks
        assert b"did" in asked_by(NOBODY, control) and control.refused == 2
        os.unlink(path)
        with open(path, "w", encoding="ascii"):
            os.chown(path, NOBODY, -1)
        assert asked_by(NOBODY, control) == b"b''" and control.refused == 3     # a file is no socket
        assert b"did" in asked_by(0, control)


def test_it_imports_little():
    heavy = subprocess.run([sys.executable, "-I", "-S", "-c", "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
                            "import modwsgi_tel.agent.control\nprint(' '.join(sorted({'argparse', 'http', 'asyncio', 'inspect',"
                            " 'traceback', 'dataclasses', 'typing', 'logging'} & (set(sys.modules) - before))))",
                            os.path.dirname(os.path.dirname(os.path.abspath(__file__)))], stdout=subprocess.PIPE, check=True, timeout=20)
    assert heavy.stdout.strip() == b""
