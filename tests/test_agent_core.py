"""The agent's own rooms, one by one: settings, sender, locations, requests, long requests, the monitor, the log."""
import gc
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import types

import pytest

import interpreters
import running
from modwsgi_tel.agent import core, frames, journal, long, monitor, requests, sender, settings
from modwsgi_tel.agent.locations import MOST, Locations
from modwsgi_tel.agent.timers import Timers
from modwsgi_tel.masking import MASKED
from modwsgi_tel.stacks.model import MOVING
from modwsgi_tel.wire.codec import decode, named
from modwsgi_tel.wire.fields import AGENT_FLAG, AGENT_STATE, CODE_LOCATIONS, LONG_REQUEST, REQUEST_STACK


class Collector:
    """A bound telemetry socket; `read` gives the Samples that have come."""

    def __init__(self, path):
        self.path = path
        self.bind()

    def bind(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.path)

    def read(self):
        found = []
        while True:
            try:
                found.append(decode(self.socket.recv(65536)))
            except BlockingIOError:
                return found

    def restart(self):
        self.close()
        self.bind()

    def close(self):
        self.socket.close()
        os.unlink(self.path)


@pytest.fixture
def collector():
    with running.short_folder() as folder:
        found = Collector(os.path.join(folder, "t.sock"))
        yield found
        found.socket.close()


@pytest.fixture
def eager(monkeypatch):
    """Tries to connect again at once."""
    monkeypatch.setattr(sender, "AGAIN_S", 0.0)


# --- settings ---------------------------------------------------------------------------------

def test_arguments_count_before_the_environment_and_that_before_the_default():
    found = settings.read({"threshold": 3}, {"MODWSGI_TEL_AGENT_THRESHOLD": "4", "MODWSGI_TEL_AGENT_LOCALS": "on"})
    assert (found.threshold, found.locals, found.interval, found.problems) == (3.0, True, 1.0, ())


def test_what_is_no_value_leaves_the_default_and_is_told():
    found = settings.read({"threshold": "soon", "socket": 5, "secret": "short", "colour": 1, "emit": "maybe"},
                          {"MODWSGI_TEL_AGENT_STACKS": "0"})
    assert (found.threshold, found.socket, found.secret, found.emit, found.stacks) == (2.0, settings.SOCKET, "", "auto", 30)
    assert found.problems == (
        "agent: there is no setting 'colour'", "agent: socket: wants a text", "agent: threshold: wants a number from 0.01 to 86400",
        "agent: MODWSGI_TEL_AGENT_STACKS: wants a number from 1 to 1000", "agent: emit: wants one of auto, on, off",
        "agent: secret: wants at least 16 ASCII letters without a slash")


def test_patterns_are_shell_patterns():
    found = settings.read({"ignore": ["/events/*", "/poll"], "ignore_functions": "*/views.py:wait_*"}, {})
    assert [bool(found.ignore.match(path)) for path in ("/events/7", "/poll", "/polling", "/")] == [True, True, False, False]
    assert found.ignore_functions.match("/app/views.py:wait_for")


def test_the_watchdog_is_off_or_slower_than_it_is_pushed_back():
    taken = {given: settings.read({"watchdog": given}, {}).watchdog for given in (0, 2, "0", "2.5", 0.5, 1.9, -1)}
    default = 0.0 if sys.version_info[:2] in settings.FATAL else settings.WATCHDOG_S
    assert taken == {0: 0.0, 2: 2.0, "0": 0.0, "2.5": 2.5, 0.5: default, 1.9: default, -1: default}
    assert settings.read({"watchdog": 1}, {}).problems == ("agent: watchdog: wants 0, or a number from 2 to 3600",)


def test_every_setting_has_a_default_that_it_takes_itself():
    for each in settings.SETTINGS:
        value = "" if each.default is None else each.default
        assert each.type(value) == each.default, each.name


# --- sender -------------------------------------------------------------------------------------

def test_datagrams_are_numbered_and_carry_the_agents_flag(collector):
    one = sender.Sender("unix:" + collector.path, 5)
    assert [one.send(AGENT_STATE, named(agent_begun=number)) for number in (7, 8)] == [True, True]
    assert [(each.kind, each.flags, each.pid, each.seq, each.fields) for each in collector.read()] == [
        (AGENT_STATE, AGENT_FLAG | 5, os.getpid(), 1, {"agent_begun": 7}), (AGENT_STATE, AGENT_FLAG | 5, os.getpid(), 2, {"agent_begun": 8})]


def test_a_collector_that_is_not_there_costs_a_try_a_second_and_is_counted(tmp_path, monkeypatch):
    tries = []
    real = sender.socket.socket
    monkeypatch.setattr(sender.socket, "socket", lambda *kind: tries.append(kind) or real(*kind))
    one = sender.Sender(str(tmp_path / "none.sock"), 0)
    assert [one.send(AGENT_STATE, []) for _ in range(50)] == [False] * 50
    assert (one.lost, len(tries), one.generation) == (50, 1, 0)
    assert one.problem.endswith("none.sock: No such file or directory")


def test_a_collector_that_came_back_is_a_new_generation(collector, eager):
    one = sender.Sender(collector.path, 0)
    assert one.send(AGENT_STATE, []) and one.generation == 1
    collector.restart()
    assert [one.send(AGENT_STATE, []), one.send(AGENT_STATE, [])] == [False, True]
    assert (one.generation, one.lost, [each.seq for each in collector.read()]) == (2, 1, [3])


def test_a_full_queue_loses_a_datagram_and_never_waits(collector):
    one = sender.Sender(collector.path, 0)
    sent = [one.send(AGENT_STATE, []) for _ in range(2000)]
    assert not all(sent) and one.lost == sent.count(False) and one.generation == 1
    assert one.offer(AGENT_STATE, []) is False and one.lost == sent.count(False)         # who offers keeps it
    seqs = [each.seq for each in collector.read()]
    assert seqs == list(range(1, sent.count(True) + 1))
    assert one.send(AGENT_STATE, []) and [each.seq for each in collector.read()] == [len(seqs) + 1]      # no gap: it was never sent


def test_a_path_that_is_too_long_is_a_problem_and_no_exception(tmp_path):
    one = sender.Sender("unix:/" + "x" * 200, 0)
    assert not one.send(AGENT_STATE, []) and "too long" in one.problem


# --- locations -----------------------------------------------------------------------------------

def texts(sample):
    parts = sample.fields["location_texts"].split("\0")[:-1]
    return list(zip(parts[::2], parts[1::2], sample.fields["location_lines"]))


def test_the_text_of_a_location_is_sent_once(collector):
    known = Locations(sender.Sender(collector.path, 0))
    frames_ = [("main", "/a.py", 1), ("work", "/b.py", 22), ("main", "/a.py", None)]
    assert [known.numbers(frames_), known.numbers(frames_[1:])] == [[1, 2, 3], [2, 3]]
    told = collector.read()
    assert [(each.kind, each.fields["location_first"], texts(each)) for each in told] == [
        (CODE_LOCATIONS, 1, [("main", "/a.py", 1), ("work", "/b.py", 22), ("main", "/a.py", 0)])]


def test_all_locations_are_told_again_when_a_collector_returned(collector, eager):
    one = sender.Sender(collector.path, 0)
    known = Locations(one)
    known.numbers([("f", "a.py", 1), ("g", "a.py", 2)])
    collector.restart()
    assert not one.send(AGENT_STATE, [])        # it is seen to have gone
    assert known.numbers([("g", "a.py", 2)]) == [1]
    assert [texts(each) for each in collector.read()] == [[("g", "a.py", 2)]]


def test_many_locations_go_in_several_datagrams_none_too_long(collector):
    known = Locations(sender.Sender(collector.path, 0))
    frames_ = [("f" * 190, "/" + "x" * 390, line) for line in range(1, 101)]
    assert known.numbers(frames_) == list(range(1, 101))
    told = collector.read()
    assert len(told) > 5 and max(len(each.datagram) for each in told) < 8192
    assert [line for each in told for _, _, line in texts(each)] == list(range(1, 101))


def test_locations_beyond_the_bound_have_no_number_and_are_counted(collector):
    known = Locations(sender.Sender(collector.path, 0))
    for start in range(0, MOST, 100):
        known.numbers([("f", "a.py", start + each) for each in range(100)])
        collector.read()
    assert (known.numbers([("g", "b.py", 1)]), known.beyond) == ([0], 1)


# --- requests -------------------------------------------------------------------------------------

def test_a_request_is_in_flight_until_it_ends_and_ends_once():
    held = requests.Requests()
    one = held.begin({"PATH_INFO": "/x", "REQUEST_METHOD": "GET"})
    two = held.begin({})
    assert (held.begun, list(held.active), two.active_at_start, one.log_id) == (2, [1, 2], 2, "0.1")
    assert held.tids == {one.ident: threading.get_native_id()}
    assert [held.end(one), held.end(one), list(held.active), held.begun] == [True, False, [2], 2]


@pytest.mark.parametrize("environ, phases", [
    ({"mod_wsgi.request_start": "1700000000000000", "mod_wsgi.queue_start": "1700000000250000",
      "mod_wsgi.daemon_start": "1700000001000000"}, (0.25, 0.75, 0.5)),
    ({"mod_wsgi.request_start": "1700000000000000"}, (1.5, None, None)),
    ({"mod_wsgi.request_start": 1700000000.0, "mod_wsgi.queue_start": 1700000000.25, "mod_wsgi.daemon_start": 1700000001.25}, (0.25, 1.0, 0.25)),
    ({"HTTP_X_REQUEST_START": "t=1700000001.25"}, (None, 0.25, None)),
    ({"HTTP_X_REQUEST_START": "1700000001250"}, (None, 0.25, None)),
    ({"HTTP_X_REQUEST_START": "1900000001"}, (None, None, None)),
    ({"HTTP_X_REQUEST_START": "nan"}, (None, None, None)),
    ({"HTTP_X_REQUEST_START": "soon"}, (None, None, None)),
    ({}, (None, None, None))])
def test_phases_are_what_environ_tells_and_unknown_otherwise(environ, phases):
    request = requests.Requests().begin(environ)
    request.began_wall = 1700000001.5
    assert request.phases() == phases


def test_annotations_are_bounded_and_call_nothing_of_the_application():
    class Hostile:
        def __str__(self):
            raise AssertionError
        __repr__ = __str__

    request = requests.Requests().begin({})
    request.annotate({"user": "ann", "count": 3, "odd": Hostile(), "long": "x" * 1000})
    request.annotate({f"n{number}": number for number in range(50)})
    assert len(request.annotations) == requests.ANNOTATIONS_MOST
    assert list(request.annotations.values())[:4] == ["ann", "3", "<Hostile>", "x" * requests.VALUE_MOST]


# --- frames -----------------------------------------------------------------------------------------

def test_a_deep_stack_is_cut_in_the_middle_and_says_so():
    def deep(left):
        return frames.stack_of(sys._getframe()) if not left else deep(left - 1)

    found = deep(700)
    assert len(found.frames) == frames.KEPT_MOST and found.cut_at == 200 and found.left_out > 300
    assert found.problem == f"cut: {found.left_out} frames in the middle"
    assert found.frames[-1][0].endswith("deep") and not found.frames[0][0].endswith("deep")


# --- long requests ------------------------------------------------------------------------------------

class Tools:
    def __init__(self):
        self.wait = None

    def stack(self, ident, frame):
        return frames.stack_of(frame)

    def kernel(self, tid):
        return "running", 1.0

    def tids(self):
        return {}

    def waits(self, frame):
        return self.wait

    def values(self, frame):
        return [("name", "'value'")]


class Log(journal.Journal):
    def __init__(self):
        super().__init__("off")
        self.seen = []

    def text(self, head, rest):
        self.seen.append((head, list(rest)))

    def request(self, request, now, state):
        self._where = "here"
        super().request(request, now, state)


class Site:
    """A Long over a collector, with a thread that stands at a known line until it is told to go on."""

    def __init__(self, collector, **given):
        self.requests = requests.Requests()
        self.collector = collector
        self.settings = settings.read(given, {})
        self.sender = sender.Sender(collector.path, 0)
        self.log = Log()
        self.tools = Tools()
        self.long = long.Long(self.requests, self.sender, Locations(self.sender), self.settings, self.tools, self.log)
        self.names = {}

    def read(self):
        """(kind, fields) of what came; frames by their functions."""
        out = []
        for sample in self.collector.read():
            fields = sample.fields
            if sample.kind == CODE_LOCATIONS:
                for place, (function, _, line) in enumerate(texts(sample)):
                    self.names[fields["location_first"] + place] = function.rpartition(".")[2]
                continue
            for name in ("stack_pivot", "stack_frames"):
                if name in fields:
                    fields[name] = [self.names[number] for number in fields[name]]
            out.append((sample.kind, fields))
        return out


class Worker:
    """A thread that serves one request through functions that the test chooses."""

    def __init__(self, site, environ=None):
        self.at, self.go = threading.Semaphore(0), threading.Lock()
        self.go.acquire()               # a plain lock: waiting for it has no frames of its own
        self.site = site
        self.wanted = None
        self.thread = threading.Thread(target=self.serve, args=(environ or {"PATH_INFO": "/slow", "REQUEST_METHOD": "GET"},))
        self.thread.start()
        self.wait()

    def wait(self):
        assert self.at.acquire(timeout=10)

    def serve(self, environ):
        self.request = self.site.requests.begin(environ)
        self.view()
        self.site.requests.end(self.request)
        self.site.long.ended(self.request)

    def view(self):
        self.stand()
        if self.wanted:
            getattr(self, self.wanted)()

    def stand(self):
        self.at.release()
        self.go.acquire(timeout=20)

    def query(self):
        self.stand()

    def step(self, wanted):
        """Let it stand inside of `wanted` next."""
        self.wanted = wanted
        self.go.release()
        self.wait()

    def end(self):
        self.wanted = None
        self.go.release()
        self.thread.join(10)


def shown(fields, *names):
    return [fields.get(name) for name in names]


def test_a_request_over_the_threshold_has_its_stack_taken_then_again_and_ends_with_a_record(collector):
    site = Site(collector, threshold=2, interval=1)
    worker = Worker(site)
    try:
        began = worker.request.began
        site.long.run(began + 1.9)
        assert site.read() == [] and site.long.due() == began + 2
        site.long.run(began + 2.0)
        (kind, told), (kind2, stack) = site.read()
        assert (kind, kind2) == (LONG_REQUEST, REQUEST_STACK)
        assert shown(told, "slow_record_state", "slow_log_id", "slow_method", "slow_path_info", "request_stacks") == [0, "0.1", "GET", "/slow", 1]
        assert stack["stack_number"] == 1 and stack["stack_pivot"][-3:] == ["serve", "view", "stand"]
        assert (stack["stack_shared"], stack["stack_frames"]) == (len(stack["stack_pivot"]), [])
        assert abs(site.long.due() - (began + 3.0)) < 1e-6
        site.long.run(began + 3.0)
        _, (_, second) = site.read()
        assert "stack_pivot" not in second and second["stack_shared"] == len(stack["stack_pivot"]) and second["stack_cpu"] == 0.0
    finally:
        worker.end()
    assert abs(site.long.due() - (began + 3.0 + long.PAUSE_S)) < 1e-6
    site.long.run(time.monotonic())
    (kind, closing), = site.read()
    assert kind == LONG_REQUEST and shown(closing, "slow_record_state", "request_stacks") == [1, 2]


def test_the_pivot_is_what_all_stacks_of_a_request_share_and_only_the_rest_is_sent(collector):
    site = Site(collector)
    worker = Worker(site)
    try:
        began = worker.request.began
        site.long.run(began + 2)
        first = site.read()[1][1]
        worker.step("query")
        site.long.run(began + 3.5)
        second = site.read()[1][1]
        site.long.run(began + 6)
        third = site.read()[1][1]
    finally:
        worker.end()
    assert first["stack_pivot"][-3:] == ["serve", "view", "stand"]
    assert second["stack_pivot"][-1] == "serve" and second["stack_shared"] == len(second["stack_pivot"])
    assert second["stack_frames"] == ["view", "query", "stand"]
    assert "stack_pivot" not in third and third["stack_frames"] == second["stack_frames"]


def test_pauses_between_stacks_grow_and_their_number_is_bounded(collector):
    site = Site(collector, stacks=4)
    worker = Worker(site)
    try:
        began, taken = worker.request.began, []
        while site.long.due() < began + 30:
            now = site.long.due()
            site.long.run(now)
            taken += [now - began for kind, _ in site.read() if kind == REQUEST_STACK]
    finally:
        worker.end()
    assert taken == pytest.approx([2.0, 3.0, 4.25, 5.8125])


def test_a_request_that_goes_on_is_told_of_although_its_stacks_are_enough(collector):
    site = Site(collector, stacks=1)
    worker = Worker(site)
    try:
        began = worker.request.began
        site.long.run(began + 2)
        site.read()
        assert site.long.due() == began + 2 + long.TOLD_AGAIN_S
        site.long.run(began + 5.1)
        assert [kind for kind, _ in site.read()] == [LONG_REQUEST]
    finally:
        worker.end()


@pytest.mark.parametrize("given", [{"ignore": "/slow"}, {"ignore_functions": "*query"}])
def test_what_is_ignored_is_not_told_and_counted(collector, given):
    site = Site(collector, **given)
    worker = Worker(site)
    worker.step("query")
    try:
        site.long.run(worker.request.began + 2)
        site.long.run(worker.request.began + 20)
    finally:
        worker.end()
    site.long.run(time.monotonic())
    assert site.read() == [] and site.long.ignored == 1


def test_a_request_that_was_never_seen_running_has_its_closing_record(collector):
    site = Site(collector, threshold=0.01)
    request = site.requests.begin({"PATH_INFO": "/regex"})
    request.began -= 5
    site.requests.end(request)
    assert site.long.ended(request)
    assert [each.path for each in site.requests.at(time.time() - 2.0).values()] == ["/regex"]
    site.long.run(time.monotonic())
    (kind, told), = site.read()
    assert kind == LONG_REQUEST and shown(told, "slow_record_state", "slow_path_info", "request_stacks") == [1, "/regex", 0]


def test_many_long_requests_are_told_of_a_few_at_a_time_and_none_is_always_the_last(collector):
    """The collector's queue holds ten datagrams."""
    site = Site(collector)
    workers = [Worker(site) for _ in range(3 * long.TURN_MOST)]
    now, told, stacks = workers[-1].request.began + 2.0, [], []
    try:
        for turn in range(6):
            assert site.long.due() <= now
            site.long.run(now)
            found = site.read()
            assert len(found) <= 2 * long.TURN_MOST
            told.append({fields["slow_log_id"] for kind, fields in found if kind == REQUEST_STACK})
            assert site.long.due() >= now + long.PAUSE_S
            now = max(now + long.PAUSE_S, site.long.due())
    finally:
        for each in workers:
            each.end()
    everyone = {each.request.log_id for each in workers}
    assert [len(each) for each in told] == [long.TURN_MOST] * 6
    assert told[0] | told[1] | told[2] == told[3] | told[4] | told[5] == everyone
    for turn in range(3):
        site.long.run(now)
        stacks += [fields["slow_log_id"] for kind, fields in site.read() if kind == LONG_REQUEST and fields["slow_record_state"]]
    assert set(stacks) == everyone and len(stacks) == len(workers) and site.long.due() is None


def test_a_closing_record_waits_for_room_in_the_collectors_queue_and_then_goes_to_the_log(collector):
    site = Site(collector, threshold=0.01)
    while site.sender.send(AGENT_STATE, []):
        pass
    lost = site.sender.lost
    request = site.requests.begin({"PATH_INFO": "/x"})
    request.began -= 1
    site.requests.end(request)
    site.long.ended(request)
    now = time.monotonic()
    site.long.run(now)
    assert site.long.due() == now + long.FULL_S and site.log.seen == []
    assert {kind for kind, _ in site.read()} == {AGENT_STATE}
    site.long.run(now + long.FULL_S)
    (kind, told), = site.read()
    assert kind == LONG_REQUEST and shown(told, "slow_record_state", "slow_path_info") == [1, "/x"] and site.long.due() is None
    while site.sender.send(AGENT_STATE, []):
        pass
    site.long.ended(request)
    request.ended -= long.CLOSED_WITHIN_S
    site.long.run(now + 1.0)
    (head, _), = site.log.seen
    assert "/x ended" in head and site.long.due() is None and site.sender.lost == lost + 2


def test_a_short_request_is_nothing_to_the_monitor(collector):
    site = Site(collector)
    request = site.requests.begin({})
    site.requests.end(request)
    assert not site.long.ended(request) and site.long.due() is None


def test_long_requests_beyond_the_bound_are_told_of_without_stacks(collector):
    site = Site(collector, watched=1)
    workers = [Worker(site), Worker(site)]
    try:
        site.long.run(workers[1].request.began + 2)
        kinds = [kind for kind, _ in site.read()]
    finally:
        for worker in workers:
            worker.end()
    assert sorted(kinds) == [LONG_REQUEST, LONG_REQUEST, REQUEST_STACK] and site.long.unwatched == 1


def test_values_and_waits_go_with_a_stack_where_they_are_known(collector):
    site = Site(collector, locals=True)

    class Wait:
        kind, owner_ident, how = "rlock", None, ""

    site.tools.wait = Wait
    worker, owner = Worker(site), Worker(site)
    Wait.owner_ident = owner.request.ident
    try:
        site.long.run(worker.request.began + 2)
        found = [fields for kind, fields in site.read() if kind == REQUEST_STACK]
    finally:
        worker.end()
        owner.end()
    assert shown(found[0], "stack_waits", "stack_owner_log_id") == ["rlock", "0.2"]
    assert found[0]["stack_values"].startswith("0\0name\0'value'\0001\0name\0'value'\0")


def test_what_no_collector_takes_is_in_the_log(tmp_path):
    class Nobody:
        path = str(tmp_path / "none")

    site = Site(Nobody())
    worker = Worker(site)
    try:
        site.long.run(worker.request.began + 2.0)
    finally:
        worker.end()
    site.long.run(time.monotonic())
    (head, lines), (closing, none) = site.log.seen
    assert head == "request 0.1 GET /slow has run for 2.0 s: stack 1, outermost first"
    assert any(line.endswith((" Worker.view", " view")) for line in lines) and none == []
    assert closing.startswith("request 0.1 GET /slow ended after 0.")


# --- the log --------------------------------------------------------------------------------------------

def test_the_log_is_for_its_owner_alone_bounded_and_shows_no_control_letters(tmp_path):
    path = tmp_path / "agent.log"
    log = journal.Journal(str(path))
    log.text("a\x1b[2Jb", ["f.py:1 g\n"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().split(f"pid {os.getpid()}: ")[1] == "a?[2Jb\n    f.py:1 g?\n"
    for _ in range(200):
        log.text("x", ())
    assert path.read_text().count("\n") <= 2 + 2 * journal.ENTRIES_A_MINUTE and log.lost >= 201 - 2 * journal.ENTRIES_A_MINUTE


def test_the_log_becomes_another_file_at_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "FILE_BYTES", 50)
    path = tmp_path / "agent.log"
    log = journal.Journal(str(path))
    for word in ("one", "two"):
        log.text(word, ())
    assert (tmp_path / "agent.log.1").read_text().endswith("one\n") and path.read_text().endswith("two\n")
    assert path.read_text().count("\n") == 1


def test_a_log_that_is_a_link_or_cannot_be_written_is_no_exception(tmp_path):
    target = tmp_path / "victim"
    target.write_text("kept")
    (tmp_path / "link").symlink_to(target)
    log = journal.Journal(str(tmp_path / "link"))
    log.text("x", ())
    assert (target.read_text(), log.lost) == ("kept", 1)


# --- the monitor ----------------------------------------------------------------------------------------

class Part:
    def __init__(self):
        self.at, self.ran = None, []

    def due(self):
        return self.at

    def run(self, now):
        self.at = None
        self.ran.append(now)


@pytest.fixture
def watching():
    made = []

    def start(*parts):
        errors = []
        found = monitor.Monitor(parts, None, errors.append, lambda now: None)
        found.seen = errors
        found.start()
        made.append(found)
        running.wait_until(lambda: found.wakes_at == monitor.NEVER or found.wakeups, 10, "the monitor sleeps")
        return found

    yield start
    for found in made:
        found.stop()
        assert not found.alive
        found.close()


def test_the_monitor_sleeps_without_waking_until_it_is_woken(watching):
    part = Part()
    found = watching(part)
    before = found.wakeups
    part.at = time.monotonic() + 0.05
    found.wake()
    running.wait_until(lambda: part.ran, 10, "the part ran")
    running.wait_until(lambda: found.wakes_at == monitor.NEVER, 10, "it sleeps again")
    assert found.wakeups - before == 2 and part.ran[0] >= 0


def test_a_part_that_fails_does_not_stop_the_others(watching):
    class Broken(Part):
        def due(self):
            raise ValueError("broken")

    part = Part()
    found = watching(Broken(), part)
    part.at = time.monotonic()
    found.wake()
    running.wait_until(lambda: part.ran, 10, "the part ran")
    assert found.seen and all(isinstance(error, ValueError) for error in found.seen)


# --- all of it, on each Python ----------------------------------------------------------------------------

@pytest.mark.parametrize("version", interpreters.SUPPORTED + ("3.15",))
def test_all_of_the_agent_works_on_each_python(version):
    """requests, exceptions, dumps, questions, tracing, a fork, an event loop, the end: as the program says that it tries."""
    command, root = interpreters.to_read(version)
    with tempfile.TemporaryDirectory(dir=os.path.join(root, "tmp")) as folder:
        shutil.copytree(os.path.join(running.ROOT, "modwsgi_tel"), os.path.join(folder, "modwsgi_tel"),
                        ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(os.path.join(running.ROOT, "tests", "exercised_agent.py"), folder)
        inside = "/" + os.path.relpath(folder, root)
        done = subprocess.run([*command, "-W", "ignore", inside + "/exercised_agent.py", inside], timeout=60, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=running.clean_environment())
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", "late:")


# --- what must not hurt --------------------------------------------------------------------------------------

def an_agent(tmp_path, **given):
    """A core.Agent of this very interpreter that reports to nobody, and starts with its first request."""
    found = core.Agent(settings.read({"socket": str(tmp_path / "none.sock"), "log": str(tmp_path / "log"), **given}, {}))
    found.timers = Timers()
    return found


def test_an_agent_that_cannot_begin_leaves_nothing_behind_and_does_not_try_at_each_request(tmp_path, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(monitor.Monitor, "start", no_thread)
    agent = an_agent(tmp_path, emit="on", watchdog_folder=str(tmp_path), signal="off")
    before, callbacks = os.listdir("/proc/self/fd"), len(gc.callbacks)
    for _ in range(50):
        request = agent.begin({})
        agent.end(request)
    assert (agent.running, agent.errors, len(gc.callbacks)) == (False, 1, callbacks)
    assert len(os.listdir("/proc/self/fd")) == len(before) and agent.requests.active == {}
    assert sorted(os.listdir(tmp_path)) == ["log"]
    assert (tmp_path / "log").read_text().rstrip().endswith("the agent cannot begin: can't start new thread: the application goes on without")
    monkeypatch.undo()
    agent._again_at = 0.0
    try:
        agent.begin({})
        assert agent.running
    finally:
        agent.stop()


def test_the_last_descriptors_are_left_to_the_application(tmp_path, monkeypatch):
    monkeypatch.setattr(core.resource, "getrlimit", lambda which: (len(os.listdir("/proc/self/fd")) + 20, 1024))
    agent = an_agent(tmp_path)
    agent.begin({})
    assert (agent.running, agent.error.partition(" ")[0]) == (False, "OSError")


def test_an_environ_that_is_no_dictionary_leaves_no_request_behind(tmp_path):
    agent = an_agent(tmp_path)
    with pytest.raises(TypeError):
        agent.begin(types.MappingProxyType({}))
    assert agent.requests.active == {}


def test_a_socket_that_cannot_be_reached_is_told_once_with_the_reason(tmp_path):
    agent = an_agent(tmp_path, emit="on", signal="off")
    try:
        agent.begin({})
        seen = agent.monitor.wakeups
        for more in (1, 2, 3):
            agent.wake()
            running.wait_until(lambda: agent.monitor.wakeups >= seen + more and agent.monitor.wakes_at, 10, "it wakes")
        lines = (tmp_path / "log").read_text().splitlines()
        assert len(lines) == 1 and f"no collector takes what this tells: {tmp_path}/none.sock: No such file or directory: start" in lines[0]
    finally:
        agent.stop()


def test_a_secret_among_the_annotations_is_masked(tmp_path):
    agent = an_agent(tmp_path, secrets="pin")
    request = agent.requests.begin({})
    agent.annotate({"password": "hunter2", "pin": "1234", "user": "ann"})
    assert request.annotations == {"password": MASKED, "pin": MASKED, "user": "ann"}


def test_a_stack_that_may_be_torn_does_not_cut_the_pivot_and_is_taken_again(collector):
    site = Site(collector)
    worker = Worker(site)
    try:
        began = worker.request.began
        site.long.run(began + 2)
        first = [fields for kind, fields in site.read() if kind == REQUEST_STACK][0]
        whole, site.tools.stack = site.tools.stack, lambda ident, frame: frames.Stack([], 0, 0, MOVING)
        site.long.run(began + 3.1)
        assert site.long.due() == pytest.approx(began + 3.1 + long.MOVING_S)
        site.tools.stack = whole
        site.long.run(began + 3.3)
        last = [fields for kind, fields in site.read() if kind == REQUEST_STACK]
        assert len(last) == 1 and "stack_pivot" not in last[0] and last[0]["stack_shared"] == len(first["stack_pivot"])
    finally:
        worker.end()


def test_no_stack_is_taken_of_a_thread_that_serves_another_request_by_now(collector):
    site = Site(collector)
    worker = Worker(site)
    try:
        handed = site.requests.begin({"PATH_INFO": "/handed"})
        handed.ident, handed.began, handed.returned = worker.request.ident, worker.request.began, True
        later = site.requests.begin({"PATH_INFO": "/later"})
        later.ident, later.began = worker.request.ident, worker.request.began
        site.long.run(worker.request.began + 2)
        told = [(fields.get("slow_log_id"), kind) for kind, fields in site.read()]
    finally:
        worker.end()
    assert (handed.log_id, REQUEST_STACK) not in told and (later.log_id, REQUEST_STACK) in told


def test_a_misspelled_variable_is_told():
    assert settings.read({}, {"MODWSGI_TEL_AGENT_THRESHHOLD": "3"}).problems == (
        "agent: there is no setting 'MODWSGI_TEL_AGENT_THRESHHOLD'",)


def test_a_monitor_that_the_application_has_killed_is_seen_and_the_agent_begins_anew(tmp_path):
    agent = an_agent(tmp_path, emit="on", signal="off")

    class Fatal(Part):
        def due(self):
            return 0.0

        def run(self, now):
            thread = agent.monitor          # what no except clause sees: the thread ends
            thread._stopping = True

    try:
        agent.end(agent.begin({}))
        first = agent.monitor
        running.wait_until(lambda: first.alive, 10, "it lives")
        first._parts.append(Fatal())
        first.wake()
        running.wait_until(lambda: not first.alive, 10, "it has ended")
        agent.look(time.monotonic())
        assert not agent.running and "its thread has ended" in (tmp_path / "log").read_text()
        agent._again_at = 0.0
        agent.end(agent.begin({}))
        assert agent.running and agent.monitor is not first
    finally:
        agent.stop()


def test_a_stack_that_finds_the_queue_full_does_not_count_and_another_is_taken_soon(collector):
    site = Site(collector)
    worker = Worker(site)
    try:
        began = worker.request.began
        while site.sender.send(AGENT_STATE, []):
            pass
        site.long.run(began + 2)
        assert worker.request.watch.taken == 0 and site.long.due() == pytest.approx(began + 2 + long.FULL_S)
        site.read()
        site.long.run(began + 2.1)
        found = [fields for kind, fields in site.read() if kind == REQUEST_STACK]
        assert [each["stack_number"] for each in found] == [1] and found[0]["stack_pivot"][-1] == "stand"
    finally:
        worker.end()
