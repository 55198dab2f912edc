"""The middleware is exactly as the application is, whatever that does, and tells when a request begins, ends and fails."""
import gc
import io
import socket
import sys
import tempfile
import threading
import traceback
import weakref
import wsgiref.handlers
import wsgiref.simple_server
import wsgiref.util
from types import SimpleNamespace
from wsgiref.validate import validator

import pytest

import interpreters
from modwsgi_tel.agent.middleware import Middleware

HEADERS = [("Content-Type", "text/plain")]
TIMEOUT_S = 10


class Hooks:
    """Notes what it is told. broken: names of hooks that raise."""

    secret = ""

    def __init__(self, broken=()):
        self.told, self.requests, self.broken = [], [], broken

    def _tell(self, name, *values):
        self.told.append((name, *values))
        if name in self.broken:
            raise RuntimeError(f"{name} is broken")

    def begin(self, environ):
        self._tell("begin")
        if "modwsgi_tel.request" in environ:
            return None
        request = SimpleNamespace(output_bytes=None, output_writes=None)
        environ["modwsgi_tel.request"] = len(self.requests)
        self.requests.append(request)
        return request

    def status(self, request, code):
        self._tell("status", code)

    def failed(self, request, type_, value, trace):
        assert (type_, trace) == (type(value), value.__traceback__)
        self._tell("failed", type_.__name__)

    def end(self, request):
        self._tell("end")

    def secret_dump(self, environ):
        self._tell("secret_dump")
        if environ["PATH_INFO"] != "/secret":
            return None
        return "200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")], b"stacks"


class Own:
    """An iterable of its own; `close` is counted in `closed`."""

    def __init__(self, pieces, fails=None, close_fails=None):
        self.pieces, self.fails, self.close_fails = iter(pieces), fails, close_fails
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        for piece in self.pieces:
            return piece
        if self.fails:
            raise self.fails
        raise StopIteration

    def close(self):
        self.closed += 1
        if self.close_fails:
            raise self.close_fails


class Bodies:
    """One with these methods only, by name."""

    class OnlyNext:
        def __next__(self):
            raise StopIteration

    class Sized:
        def __init__(self, *pieces):
            self.pieces = pieces

        def __iter__(self):
            return iter(self.pieces)

        def __len__(self):
            return len(self.pieces)

    class Sequence(Sized):
        def __getitem__(self, index):
            return self.pieces[index]

    class OldSequence:
        def __getitem__(self, index):
            return (b"one", b"two")[index]

    class BadIter:
        def __iter__(self):
            raise KeyError("iter")

    class Listed(list):
        closed = 0

        def close(self):
            Bodies.Listed.closed += 1


def ok(start_response, status="200 OK", headers=HEADERS, *more):
    return start_response(status, list(headers), *more)


def takes(*args):
    """A server's start_response that takes anything."""
    return bytes


# --- a table of applications -----------------------------------------------------------------------------------------------

def a_list(environ, start_response):
    ok(start_response)
    return [b"hello ", b"", b"world"]


def one_piece(environ, start_response):
    ok(start_response)
    return [b"hello"]


def a_tuple(environ, start_response):
    ok(start_response)
    return (b"a", b"bc")


def nothing(environ, start_response):
    ok(start_response, "204 No Content", ())
    return []


def generator(environ, start_response):
    ok(start_response)
    yield b"one"
    yield b""
    yield b"two"


def start_after_a_yield(environ, start_response):
    """PEP 3333 allows it; the standard library's server does not."""
    yield b""
    ok(start_response, "202 Accepted")
    yield b"late"


def own(environ, start_response):
    ok(start_response)
    return Own([b"a", b"b"])


def sized(environ, start_response):
    ok(start_response)
    return Bodies.Sized(b"sized")


def sequence(environ, start_response):
    ok(start_response)
    return Bodies.Sequence(b"in ", b"order")


def old_sequence(environ, start_response):
    ok(start_response)
    return Bodies.OldSequence()


def listed(environ, start_response):
    ok(start_response)
    return Bodies.Listed([b"a list ", b"of its own"])


def writes(environ, start_response):
    write = ok(start_response)
    write(b"written ")
    write(b"twice ")
    return [b"and returned"]


def writes_only(environ, start_response):
    ok(start_response)(b"all")
    return []


def a_file(environ, start_response):
    ok(start_response)
    return environ["wsgi.file_wrapper"](io.BytesIO(b"from a file" * 1000), 100)


def reads(environ, start_response):
    ok(start_response)
    return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))]


def twice(environ, start_response):
    ok(start_response)
    try:
        raise ValueError("found out before anything was sent")
    except ValueError:
        start_response("500 Changed", [("Content-Type", "text/html")], sys.exc_info())
    return [b"changed"]


def twice_without_exc_info(environ, start_response):
    ok(start_response)
    ok(start_response)
    return [b"never"]


def too_late(environ, start_response):
    write = ok(start_response)
    write(b"sent")
    try:
        raise LookupError("after the headers")
    except LookupError:
        start_response("500 Late", list(HEADERS), sys.exc_info())
    return [b"never"]


def raises(environ, start_response):
    raise KeyError("application")


def raises_after_start(environ, start_response):
    ok(start_response)
    raise OSError("after start_response")


def raises_in_next(environ, start_response):
    ok(start_response)
    yield b"first"
    raise ZeroDivisionError("second")


def raises_stop_iteration(environ, start_response):
    raise StopIteration("not an end")


def raises_in_close(environ, start_response):
    ok(start_response)
    return Own([b"x"], close_fails=RuntimeError("close"))


def raises_in_iter(environ, start_response):
    ok(start_response)
    return Bodies.BadIter()


def exits(environ, start_response):
    raise SystemExit(3)


def generator_exit(environ, start_response):
    ok(start_response)
    return Own([b"x"], fails=GeneratorExit())


def never_starts(environ, start_response):
    return [b"no status"]


def returns_none(environ, start_response):
    ok(start_response)


def returns_a_number(environ, start_response):
    ok(start_response)
    return 42


def returns_text(environ, start_response):
    ok(start_response)
    return "text"


def returns_bytes(environ, start_response):
    ok(start_response)
    return b"bytes"


def returns_texts(environ, start_response):
    ok(start_response)
    return ["a text", "and another"]


def returns_only_next(environ, start_response):
    ok(start_response)
    return Bodies.OnlyNext()


async def is_a_coroutine(environ, start_response):
    return [b"never"]


def bad_status(environ, start_response):
    start_response(200, list(HEADERS))
    return [b"x"]


def asks_for_what_is_not_there(environ, start_response):
    start_response("200 OK")


# (application, what hooks are told between begin and end, bytes, pieces). None: not known.
FINE = (
    (a_list, [("status", 200)], 11, 2),
    (one_piece, [("status", 200)], 5, 1),
    (a_tuple, [("status", 200)], 3, 2),
    (nothing, [("status", 204)], 0, 0),
    (generator, [("status", 200)], 6, 2),
    (own, [("status", 200)], 2, 2),
    (sized, [("status", 200)], 5, 1),
    (sequence, [("status", 200)], 8, 2),
    (old_sequence, [("status", 200)], 6, 2),
    (listed, [("status", 200)], 17, 2),
    (writes, [("status", 200)], 26, 3),
    (writes_only, [("status", 200)], 3, 1),
    (a_file, [("status", 200)], None, None),
    (reads, [("status", 200)], 4, 1),
    (twice, [("status", 200), ("status", 500)], 7, 1),
)
WRONG = (
    (twice_without_exc_info, [("status", 200), ("failed", "AssertionError")], None, None),
    (too_late, [("status", 200), ("failed", "LookupError")], 4, 1),
    (raises, [("failed", "KeyError")], None, None),
    (raises_after_start, [("status", 200), ("failed", "OSError")], None, None),
    (raises_in_next, [("status", 200), ("failed", "ZeroDivisionError")], 5, 1),
    (raises_stop_iteration, [("failed", "StopIteration")], None, None),
    (raises_in_close, [("status", 200), ("failed", "RuntimeError")], 1, 1),
    (raises_in_iter, [("status", 200), ("failed", "KeyError")], 0, 0),
    (exits, [("failed", "SystemExit")], None, None),
    (generator_exit, [("status", 200), ("failed", "GeneratorExit")], 1, 1),
    (never_starts, [], 9, 1),
    (start_after_a_yield, [], 0, 0),
    (returns_none, [("status", 200)], None, None),
    (returns_a_number, [("status", 200)], None, None),
    (returns_text, [("status", 200)], None, None),
    (returns_bytes, [("status", 200)], None, None),
    (returns_texts, [("status", 200)], None, None),
    (returns_only_next, [("status", 200), ("failed", "TypeError")], 0, 0),
    (is_a_coroutine, [], None, None),
    (bad_status, [("failed", "AssertionError")], None, None),
    (asks_for_what_is_not_there, [("failed", "TypeError")], None, None),
)


def named(table):
    return pytest.mark.parametrize("application, between, size, pieces", table, ids=[row[0].__name__ for row in table])


class Handler(wsgiref.handlers.SimpleHandler):
    """The standard library's server, which keeps the last line of what it would log, and does not end with SystemExit."""

    logged = ""

    def log_exception(self, exc_info):
        self.logged = traceback.format_exception_only(*exc_info[:2])[-1]

    def run(self, application):
        try:
            super().run(application)
        except BaseException as error:
            self.logged = f"left the server: {type(error).__name__}: {error}"


def an_environ(path="/x", body=b"body", **more):
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "", "SERVER_NAME": "localhost",
               "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": str(len(body)),
               "wsgi.input": io.BytesIO(body)}
    environ.update(more)
    return environ


def answer(application, **more):
    """(bytes, what is logged) of the standard library's server for one request."""
    sent = io.BytesIO()
    environ = an_environ(**more)
    handler = Handler(environ.pop("wsgi.input"), sent, io.StringIO(), environ, multithread=True, multiprocess=False)
    handler.http_version = "1.1"
    handler.run(application)
    return without_date(sent.getvalue()), handler.logged


def without_date(received):
    return b"\r\n".join(line for line in received.split(b"\r\n") if not line.startswith(b"Date:"))


# --- exactly as the application is -----------------------------------------------------------------------------------------

@named(FINE + WRONG)
@pytest.mark.filterwarnings("ignore:coroutine")
def test_the_answer_is_the_same_with_and_without_the_middleware(application, between, size, pieces):
    hooks = Hooks()
    assert answer(Middleware(application, hooks)) == answer(application)
    assert hooks.told == [("begin",), *between, ("end",)]
    assert (hooks.requests[0].output_bytes, hooks.requests[0].output_writes) == (size, pieces)


@named(FINE)
def test_a_validator_on_both_sides_finds_nothing(application, between, size, pieces):
    if application is old_sequence:     # the validator wants __iter__
        pytest.skip("not valid by itself")
    wrapped = Middleware(validator(application), Hooks())
    assert answer(validator(wrapped)) == answer(validator(validator(application)))
    assert answer(validator(Middleware(application, Hooks()))) == answer(validator(application))
    assert wrapped.errors == 0


@named(FINE + WRONG)
@pytest.mark.parametrize("broken", (("begin",), ("status", "end"), ("status", "failed", "end"), ("secret_dump",)), ids=",".join)
@pytest.mark.filterwarnings("ignore:coroutine")
def test_what_hooks_raise_reaches_nobody_and_is_counted(application, between, size, pieces, broken):
    hooks = Hooks(broken)
    hooks.secret = "on" if "secret_dump" in broken else ""
    wrapped = Middleware(application, hooks)
    assert answer(wrapped) == answer(application)
    assert wrapped.errors == sum(each[0] in broken for each in hooks.told) > 0


def over_tcp(application, server_class=wsgiref.simple_server.WSGIServer):
    """The bytes that a real server sends for one GET, without its Date."""
    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *values):
            pass

        def get_stderr(self):
            return io.StringIO()

    with wsgiref.simple_server.make_server("127.0.0.1", 0, application, server_class, Quiet) as server:
        server.timeout = TIMEOUT_S
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        received = get(server.server_port)
        thread.join(TIMEOUT_S)
    return received


def get(port):
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
        client.sendall(b"GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(65536), b""))
    return without_date(received)


@pytest.mark.parametrize("application", [row[0] for row in FINE + WRONG if row[0] not in (exits, generator_exit, is_a_coroutine)],
                         ids=lambda each: each.__name__)
def test_a_real_server_sends_the_same_bytes(application):
    assert over_tcp(Middleware(application, Hooks())) == over_tcp(application)


def test_waitress_sends_the_same_bytes():
    waitress = interpreters.installed("waitress")

    def through(application):
        server = waitress.create_server(application, host="127.0.0.1", port=0, threads=1)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            return get(server.effective_port)
        finally:
            server.close()

    assert [through(Middleware(row[0], Hooks())) for row in FINE] == [through(row[0]) for row in FINE]


def test_a_list_and_a_tuple_are_handed_on_as_they_are_and_end_at_the_return():
    hooks = Hooks()
    for body in ([b"a"], (b"a",), []):
        assert Middleware(lambda environ, start: body, hooks)({}, takes) is body
    assert hooks.told == [("begin",), ("end",)] * 3


def test_a_servers_file_wrapper_is_handed_on_as_it_is():
    """A class as wsgiref's and gunicorn's, or a function as uWSGI's, which gives the file itself back."""
    class Delegates:                    # as tempfile's files
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

    hooks, held = Hooks(), io.BytesIO(b"x")
    for wrapper in (wsgiref.util.FileWrapper, lambda file, size=8192: file, lambda file, size=8192: Delegates(file)):
        made = []

        def application(environ, start_response):
            made.append(environ["wsgi.file_wrapper"](held))
            return made[0]

        assert Middleware(application, hooks)({"wsgi.file_wrapper": wrapper}, takes) is made[0]
    assert hooks.told == [("begin",), ("end",)] * 3
    with tempfile.TemporaryFile() as file:      # no server's: its lines are the body, and its end is seen
        body = Middleware(lambda environ, start: file, hooks)({"wsgi.file_wrapper": wsgiref.util.FileWrapper}, takes)
        assert body is not file and hooks.told[6:] == [("begin",)]
        body.close()
        assert file.closed and hooks.told[6:] == [("begin",), ("end",)]


def test_a_length_is_there_where_the_application_has_one_and_only_there():
    def wrapped(body):
        return Middleware(lambda environ, start: body, Hooks())({}, takes)

    with pytest.raises(TypeError):
        len(wrapped(Own([])))
    assert len(wrapped(Bodies.Sized(b"a", b"b"))) == 2 and not hasattr(wrapped(Bodies.Sized(b"a")), "__getitem__")
    assert wrapped(Bodies.Sequence(b"a", b"b"))[1] == b"b"
    assert len(wrapped(Bodies.Listed([b"a"]))) == 1


def test_start_response_and_write_get_what_they_were_given_and_nothing_else():
    seen = []

    def start_response(*args, **named):
        seen.append((args, named))
        return lambda *args, **named: seen.append(("write", args, named)) or "given"

    def application(environ, start):
        assert start("200 OK", []) and start("200 OK", [], None)
        write = start(status="201 Made", headers=[], exc_info=None)
        assert write(data=b"abc") == "given" and write(b"d") == "given"
        return []

    hooks = Hooks()
    Middleware(application, hooks)({}, start_response)
    assert seen == [(("200 OK", []), {}), (("200 OK", [], None), {}),
                    ((), {"status": "201 Made", "headers": [], "exc_info": None}),
                    ("write", (), {"data": b"abc"}), ("write", (b"d",), {})]
    assert hooks.told == [("begin",), ("status", 200), ("status", 200), ("status", 201), ("end",)]
    assert (hooks.requests[0].output_bytes, hooks.requests[0].output_writes) == (4, 2)
    assert Middleware(lambda environ, start: [start("200 OK", [])], Hooks())({}, lambda *args: None) == [None]


def test_headers_after_the_first_next_are_noted():
    hooks = Hooks()
    wrapped = Middleware(start_after_a_yield, hooks)({}, takes)
    assert next(wrapped) == b"" and hooks.told == [("begin",)]
    assert next(wrapped) == b"late" and hooks.told == [("begin",), ("status", 202)]


def test_an_exception_keeps_its_traceback_and_its_cause():
    def application(environ, start_response):
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise ValueError("effect") from error

    with pytest.raises(ValueError) as caught:
        Middleware(application, Hooks(("failed", "end")))({}, takes)
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][1:] == ["__call__", "application"]
    assert repr(caught.value.__cause__) == repr(caught.value.__context__) == "KeyError('cause')"


# --- from when to when -----------------------------------------------------------------------------------------------------

def test_a_streamed_request_lasts_until_it_is_closed_once():
    hooks, body = Hooks(), Own([b"a"])
    wrapped = Middleware(lambda environ, start: body, hooks)({}, takes)
    assert list(wrapped) == [b"a"] and hooks.told == [("begin",)]
    wrapped.close()
    wrapped.close()
    assert body.closed == 1 and hooks.told == [("begin",), ("end",)]


def test_close_without_iterating_closes_the_application():
    hooks, closed = Hooks(), []

    def application(environ, start_response):
        try:
            yield b"a"
        finally:
            closed.append(True)

    wrapped = Middleware(application, hooks)({}, takes)
    assert next(wrapped) == b"a"        # a server that does without iter()
    wrapped.close()
    never = Middleware(lambda environ, start: Own([b"never"]), hooks)({}, takes)
    never.close()
    assert closed == [True] and never._body.closed == 1 and hooks.told == [("begin",), ("end",)] * 2


def test_of_a_server_that_never_closes_a_request_ends_with_its_body():
    hooks, body = Hooks(), Own([b"a"])
    wrapped = Middleware(lambda environ, start: body, hooks)({}, takes)
    assert list(wrapped) == [b"a"]
    del wrapped
    gc.collect()
    assert hooks.told == [("begin",), ("end",)] and body.closed == 0


def test_a_middleware_twice_in_the_chain_counts_once():
    hooks = Hooks()
    assert answer(Middleware(Middleware(generator, hooks), hooks)) == answer(generator)
    assert hooks.told == [("begin",), ("begin",), ("status", 200), ("end",)] and len(hooks.requests) == 1


def test_what_is_not_to_be_noted_goes_straight_through():
    class Never(Hooks):
        def begin(self, environ):
            return None

    environ, body, seen = {}, Own([]), []
    assert Middleware(lambda *args: seen.append(args) or body, Never())(environ, takes) is body
    assert seen == [(environ, takes)] and seen[0][0] is environ and environ == {}


def test_the_application_gets_the_same_environ():
    environ, seen = an_environ(), []
    before = dict(environ)
    Middleware(lambda environ, start: seen.append(environ) or [], Hooks())(environ, takes)
    assert seen[0] is environ and environ == dict(before, **{"modwsgi_tel.request": 0})


def test_what_the_middleware_has_not_is_asked_of_the_application():
    class Application:
        name = "app"

        def __call__(self, environ, start_response):
            body = Own([])
            body.status_code = 404
            return body

    wrapped = Middleware(Application(), Hooks())
    assert wrapped.name == "app" and wrapped({}, takes).status_code == 404
    with pytest.raises(AttributeError):
        wrapped.other
    with pytest.raises(AttributeError):
        wrapped({}, takes).other


@named(FINE + WRONG)
@pytest.mark.filterwarnings("ignore:coroutine")
def test_nothing_of_a_request_is_kept_after_its_end(application, between, size, pieces):
    class Request:
        output_bytes = output_writes = None

    kept, held, ended = [], [Request()], []

    def keeping(environ, start_response):
        kept.append(start_response)     # as one does that holds its request in a cycle
        return application(environ, start_response)

    hooks = SimpleNamespace(secret="", begin=lambda environ: held[0], end=lambda request: ended.append(weakref.ref(request)),
                            status=lambda request, code: None, failed=lambda *values: None)
    wrapped = Middleware(keeping, hooks)
    gc.collect()
    gc.disable()
    try:
        answer(wrapped)
        held.clear()
        assert [each() for each in ended] == [None]
    finally:
        gc.enable()


def test_many_pieces_of_a_list_are_not_added_up():
    for body in ([b"a"] * 1000, [b"a", bytearray(b"b")]):
        hooks = Hooks()
        Middleware(lambda environ, start: body, hooks)({}, takes)
        assert (hooks.requests[0].output_bytes, hooks.requests[0].output_writes) == (None, None)


# --- the secret URL --------------------------------------------------------------------------------------------------------

def test_the_secret_url_is_answered_before_anything_of_the_application_runs():
    hooks = Hooks()
    wrapped = Middleware(raises, hooks)
    assert b"500" in answer(wrapped, path="/secret")[0] and ("secret_dump",) not in hooks.told
    hooks.secret = "configured"
    hooks.told.clear()
    assert answer(wrapped, path="/secret") == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nstacks", "")
    assert hooks.told == [("secret_dump",)]
    assert answer(Middleware(one_piece, hooks), path="/other") == answer(one_piece)
    assert hooks.told == [("secret_dump",), ("secret_dump",), ("begin",), ("status", 200), ("end",)]
