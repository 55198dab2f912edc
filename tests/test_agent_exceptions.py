"""Exceptions that leave an application: counted by place, told to the collector, nothing of the application called or kept."""
import gc
import sys
import threading
import time
import weakref

import pytest

from modwsgi_tel.agent import exceptions
from modwsgi_tel.agent.exceptions import A_TIME_MOST, FRAMES_MOST, PLACES_MOST, Exceptions, last_frames, said, type_text
from modwsgi_tel.agent.requests import Requests
from modwsgi_tel.wire.codec import decode, encode
from modwsgi_tel.wire.fields import AGENT_FLAG, APPLICATION_EXCEPTION

HERE = __file__
QUALIFIED = sys.version_info >= (3, 11)


class Settings:
    exception_texts = False


class WithTexts:
    exception_texts = True


class Locations:
    def __init__(self):
        self.known, self.refuses = [], False

    def numbers(self, frames):
        if self.refuses:
            return []
        for frame in frames:
            if frame not in self.known:
                self.known.append(frame)
        return [self.known.index(frame) + 1 for frame in frames]


class Collector:
    """What was sent, as {field: value}, through the real wire format."""

    def __init__(self):
        self.records, self.refuses = [], False

    def send(self, kind, values):
        if self.refuses:
            return False
        sample = decode(encode(kind, 1, 1, 0.0, values, AGENT_FLAG))
        assert sample.kind == APPLICATION_EXCEPTION
        self.records.append(dict(sample.fields))
        return True

    def take(self):
        taken, self.records = self.records, []
        return taken


class Setup:
    def __init__(self, settings=Settings):
        self.collector, self.locations = Collector(), Locations()
        self.exceptions = Exceptions(self.collector.send, self.locations, settings)
        self.requests = Requests()

    def request(self, path="/report", **environ):
        return self.requests.begin({"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/app", "PATH_INFO": path,
                                    "mod_wsgi.request_id": "abc", **environ})

    def note(self, function, request="a new one", *arguments):
        try:
            function(*arguments)
        except BaseException as error:
            return self.exceptions.note(type(error), error, error.__traceback__, self.request() if request == "a new one" else request)

    def sent(self, now=100.0):
        self.exceptions.run(now)
        return self.collector.take()

    def counts(self, now=100.0):
        return [record["exception_count"] for record in self.sent(now)]


def fails():
    raise ValueError("the secret is 7")


def line_of(function, offset=1):
    return function.__code__.co_firstlineno + offset


def raises(error):
    raise error


def test_an_exception_is_told_with_its_type_its_last_frames_and_the_newest_request():
    setup, before = Setup(), time.time()
    assert setup.note(fails, setup.request("/first")) is True
    assert setup.note(fails, setup.request("/newest", **{"mod_wsgi.request_id": "xyz"})) is False
    [record] = setup.sent()
    frames = [setup.locations.known[number - 1] for number in record.pop("exception_frames")]
    assert frames == [("Setup.note" if QUALIFIED else "note", HERE, line_of(Setup.note, 2)), ("fails", HERE, line_of(fails))]
    assert before <= record.pop("exception_last") <= time.time()
    assert record == {"exception_place": 1, "exception_type": "ValueError", "exception_count": 2, "exception_places_lost": 0,
                      "slow_method": "GET", "slow_script_name": "/app", "slow_path_info": "/newest", "slow_log_id": "xyz"}


def test_only_what_has_changed_is_told():
    setup = Setup()
    setup.note(fails)
    assert (setup.exceptions.due() is not None, setup.counts(), setup.exceptions.due(), setup.counts()) == (True, [1], None, [])
    setup.note(fails)
    setup.note(raises, "a new one", KeyError())
    assert setup.counts() == [2, 1]


def test_at_most_twenty_a_second():
    setup = Setup()
    for number in range(A_TIME_MOST + 5):
        setup.note(raises, "a new one", type(f"E{number}", (Exception,), {})())
    assert len(setup.sent(100.0)) == A_TIME_MOST
    assert setup.exceptions.due() == 101.0
    assert len(setup.sent(101.0)) == 5
    assert setup.exceptions.due() is None


def test_places_are_bounded_and_what_is_beyond_is_counted():
    setup = Setup()
    for number in range(PLACES_MOST + 7):
        setup.note(raises, "a new one", type(f"E{number}", (Exception,), {})())
    records = []
    for second in range(20):
        records += setup.sent(100.0 + second)
    assert (len(records), records[-1]["exception_places_lost"]) == (PLACES_MOST, 7)
    setup.note(raises, "a new one", type("Late", (Exception,), {})())
    [record] = setup.sent(200.0)                    # one that is known carries the count
    assert (record["exception_place"], record["exception_places_lost"]) == (1, 8)
    assert setup.sent(201.0) == []


def test_eight_threads_lose_no_count():
    setup, each = Setup(), 500
    def work():
        for _ in range(each):
            setup.note(fails)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        told = []
        while any(thread.is_alive() for thread in threads):
            told += setup.counts()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    told += setup.counts()
    assert (told[-1], told) == (8 * each, sorted(told))


def test_what_nobody_took_is_told_with_the_next_change_or_when_a_collector_returns():
    setup = Setup()
    setup.note(fails)
    setup.collector.refuses = True
    assert (setup.sent(), setup.exceptions.due()) == ([], None)     # nobody is woken for nothing
    setup.collector.refuses = False
    setup.note(fails)
    assert setup.counts() == [2]
    setup.exceptions.again()
    assert (setup.exceptions.due(), setup.counts(), setup.counts()) == (0.0, [2], [])


def test_frames_that_have_no_numbers_are_not_told_without():
    setup = Setup()
    setup.note(fails)
    setup.locations.refuses = True
    assert setup.sent() == []
    setup.locations.refuses = False
    setup.exceptions.again()
    assert setup.counts() == [1]


# --- what is the application's -------------------------------------------------------------

@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(),
                                   OSError("Apache/mod_wsgi client connection closed."),
                                   OSError("Apache/mod_wsgi request data read error: Partial results are valid but processing is incomplete."),
                                   OSError("mod_wsgi failed to write response data: Broken pipe"),
                                   OSError("error during read(4096) on wsgi.input"), OSError("write error")])
def test_the_end_and_a_client_that_hung_up_are_not_the_applications(error):
    setup = Setup()
    assert (setup.note(raises, "a new one", error), setup.sent()) == (False, [])


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "Connection refused"), BrokenPipeError(32, "Broken pipe"), OSError(2, "No such file"),
                                   OSError(), OSError("write error of ours"), Exception("write error")])
def test_a_service_that_is_gone_is_the_applications(error):
    setup = Setup()
    assert (setup.note(raises, "a new one", error), setup.counts()) == (True, [1])


def test_a_connection_error_out_of_the_servers_own_write_is_the_clients():
    setup, scope = Setup(), {}
    exec(compile("def write(data):\n    raise BrokenPipeError(32, 'Broken pipe')", "/usr/lib/python3/dist-packages/gunicorn/util.py", "exec"), scope)
    assert (setup.note(scope["write"], "a new one", b"x"), setup.sent()) == (False, [])
    exec(compile("def write(data):\n    raise BrokenPipeError(32, 'Broken pipe')", "/srv/gunicorn/app.py", "exec"), scope)
    assert (setup.note(scope["write"], "a new one", b"x"), setup.counts()) == (True, [1])


def test_waitress_says_by_a_type_of_its_own_that_the_client_has_gone():
    setup = Setup()
    gone = type("ClientDisconnected", (Exception,), {"__module__": "waitress.channel"})
    assert (setup.note(raises, "a new one", gone()), setup.sent()) == (False, [])


def test_one_that_a_framework_and_the_middleware_both_tell_of_counts_once():
    setup = Setup()
    def framework(request):
        try:
            fails()
        except ValueError as error:
            setup.exceptions.note(ValueError, error, error.__traceback__, request)
            raise
    for times in (1, 2):
        request = setup.request()
        setup.note(framework, request, request)
        assert setup.counts() == [times]


def test_the_same_object_raised_in_two_requests_counts_twice():
    setup, error = Setup(), ValueError()
    setup.note(raises, "a new one", error)
    error.__traceback__ = None
    setup.note(raises, "a new one", error)
    assert setup.counts() == [2]


# --- frames -----------------------------------------------------------------------------------

def deep(depth):
    if depth:
        deep(depth - 1)
    fails()


def ping(depth):
    pong(depth)


def pong(depth):
    if not depth:
        fails()
    ping(depth - 1)


def traceback_of(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        return error.__traceback__


def names(frames):
    return [function.rpartition(".")[2] for function, _, _ in frames]


def test_of_a_recursion_one_round_is_left():
    assert names(last_frames(traceback_of(deep, 300))) == ["traceback_of", "deep", "deep", "fails"]      # two lines of it: within, and last
    assert names(last_frames(traceback_of(ping, 300))) == ["traceback_of", "ping", "pong", "ping", "pong", "fails"]


def test_an_endless_recursion_is_one_place_whatever_its_depth():
    def endless():
        endless()
    setup = Setup()
    setup.note(endless)
    sys.setrecursionlimit(sys.getrecursionlimit() + 50)
    try:
        setup.note(endless)
    finally:
        sys.setrecursionlimit(sys.getrecursionlimit() - 50)
    assert setup.counts() == [2]


def test_the_innermost_frames_are_kept():
    scope = {}
    source = "".join(f"def f{number}():\n    f{number + 1}()\n" for number in range(40)) + "def f40():\n    raise ValueError()\n"
    exec(compile(source, "/srv/long.py", "exec"), scope)
    frames = last_frames(traceback_of(scope["f0"]))
    assert frames == tuple((f"f{number}", "/srv/long.py", number * 2 + 2) for number in range(41 - FRAMES_MOST, 41))


def test_an_exception_without_a_traceback_is_counted_too():
    setup = Setup()
    assert setup.exceptions.note(ValueError, ValueError(), None, None) is True
    [record] = setup.sent()
    assert record.pop("exception_last") > 1e9
    assert record == {"exception_place": 1, "exception_type": "ValueError", "exception_frames": [], "exception_count": 1,
                      "exception_places_lost": 0}


def test_what_is_no_exception_at_all_is_left_alone():
    setup = Setup()
    for nonsense in (None, 7, "ValueError", object, int):
        assert setup.exceptions.note(nonsense, None, None, None) is False
    assert setup.sent() == []


# --- nothing of the application is called, or kept ----------------------------------------------

def hostile(called):
    """A type that notes in `called` what of it, or of its type, is called."""
    def noting(name, real):
        def method(*arguments):
            called.append(name)
            return real(*arguments)
        return method
    meta = type("Meta", (type,), {name: noting("type's " + name, getattr(type, name)) for name in (
        "__getattribute__", "__instancecheck__", "__subclasscheck__", "__eq__", "__hash__", "__repr__")})
    methods = {name: noting(name, getattr(OSError, name)) for name in ("__str__", "__repr__", "__getattribute__", "__eq__", "__hash__")}
    return meta("Hostile", (OSError,), {**methods, "args": property(noting("args", lambda _: ())),
                                        "__class__": property(noting("__class__", lambda _: OSError))})


def test_a_hostile_exception_has_none_of_its_code_called():
    setup = Setup(WithTexts)
    called = []
    type_ = hostile(called)
    error = OSError.__new__(type_)
    BaseException.__dict__["args"].__set__(error, (error, "plain"))
    try:
        raise error
    except OSError:
        traceback = sys.exc_info()[2]
    request = setup.request()
    called.clear()                      # Python itself calls some to raise it
    assert (setup.exceptions.note(type_, error, traceback, request), called) == (True, [])
    [record] = setup.sent()
    assert (record["exception_type"], record["exception_text"]) == (f"{__name__}.Hostile", f"<{__name__}.Hostile>, plain")


def test_a_type_whose_names_are_no_texts_has_a_name_all_the_same():
    assert type_text(type("T", (Exception,), {"__module__": 7})) == "T"
    assert type_text(ValueError) == "ValueError"
    assert type_text(type("T" * 500, (Exception,), {"__module__": "m"})) == "T" * 200


def test_neither_the_exception_nor_a_frame_is_kept():
    class Local:
        pass
    setup = Setup()
    def fails_with_a_local():
        local = Local()
        kept.append(weakref.ref(local))
        raise ValueError()
    kept = []
    setup.note(fails_with_a_local)
    gc.collect()
    assert [reference() for reference in kept] == [None]


def test_texts_are_sent_only_where_that_is_allowed_and_only_of_plain_types():
    setup = Setup(WithTexts)
    setup.note(fails)
    assert setup.sent()[0]["exception_text"] == "the secret is 7"
    assert said(ValueError(1, None, 2.5, b"x")) == "1, None, 2.5, <bytes>"
    assert said(ValueError("x" * 9999)) == "x" * exceptions.TEXT_MOST
    assert said(ValueError(10 ** 5000)) == "<int>"


def test_a_surrogate_in_a_path_is_no_error():
    setup = Setup(WithTexts)
    setup.note(raises, setup.request("/\udc80\ud800"), ValueError("\ud800"))
    [record] = setup.sent()
    assert (record["exception_text"], record["exception_count"]) == ("?", 1)
