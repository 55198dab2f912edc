"""The standard telemetry from inside: what is told is what was done, and what cannot be known is absent."""
import gc
import os
import sys
import threading
import time
from collections import Counter, namedtuple
from types import SimpleNamespace

import pytest

from builders import WALL, Worker, a_fleet, buckets, fold
from modwsgi_tel.agent import emitter as module
from modwsgi_tel.agent import own
from modwsgi_tel.agent.emitter import Emitter, slow_fields
from modwsgi_tel.agent.pauses import EVENTS_MOST, Pauses
from modwsgi_tel.agent.requests import Requests
from modwsgi_tel.state.view import process_details, process_view
from modwsgi_tel.wire.codec import decode, encode
from modwsgi_tel.wire.fields import (AGENT_FLAG, BY_ID, GC_EVENT, GC_SNAPSHOT, MAX_DATAGRAM, PROCESS_STARTED,
                                     PROCESS_STOPPED, PROCESS_STOPPING, REQUEST_METRICS, SLOW_REQUEST)

Settings = namedtuple("Settings", "telemetry_interval threshold user_agents ignore", defaults=(1.0, 2.0, False, None))
IDENTITY = dict(python_version="3.11.2", hostname="web1", process_group="gunicorn", process_parent_pid=1000,
                switch_interval=0.005)
ENVIRON = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/report", "SERVER_PROTOCOL": "HTTP/1.1",
           "REMOTE_ADDR": "192.0.2.1", "HTTP_HOST": "example:8000", "HTTP_USER_AGENT": "curl",
           "wsgi.url_scheme": "http", "QUERY_STRING": "password=x"}


def close(value):
    return pytest.approx(value, abs=1e-5)


def mod_wsgi_environ(began, server_s=0.01, queue_s=0.02, daemon_s=0.03, thread="1", **more):
    """As mod_wsgi 4.9 has it in daemon mode: stamps in microseconds, of a request whose application began at WALL + began."""
    daemon = WALL + began - daemon_s
    queue = daemon - queue_s
    return {**ENVIRON, "mod_wsgi.version": (4, 9, 4), "mod_wsgi.thread_id": thread, "mod_wsgi.request_id": "abc",
            "mod_wsgi.request_start": "%d" % round((queue - server_s) * 1e6), "mod_wsgi.queue_start": "%d" % round(queue * 1e6),
            "mod_wsgi.daemon_start": "%d" % round(daemon * 1e6), "mod_wsgi.script_start": "0", **more}


class Application:
    """A process with an Emitter whose datagrams are kept, and folded into a fleet; times are seconds since it started."""

    def __init__(self, number=0, identity=IDENTITY, fleet=None, pid=7, pauses=None, **settings):
        self.requests = Requests(number)
        self.taken = True                       # whether a collector takes what is sent
        self.sent = []                          # (kind, {field: value})
        self.sizes = []
        self.fleet = a_fleet() if fleet is None else fleet
        self.pid, self.number, self.seq, self.at = pid, number, 0, 0.0
        self.emitter = Emitter(self.requests, self.send, Settings(**settings), identity, number, pauses)
        self.emitter.started()
        self.base = self.emitter.due() - self.emitter._settings.telemetry_interval

    def send(self, kind, values):
        if not self.taken:
            return False
        self.seq += 1
        datagram = encode(kind, self.pid, self.seq, WALL + self.at, values, AGENT_FLAG | self.number)
        self.sizes.append(len(datagram))
        self.sent.append((kind, decode(datagram).fields))
        fold(self.fleet, datagram, now=100.0 + self.at)
        return True

    def begin(self, began=0.0, environ=ENVIRON, ident=None):
        request = self.requests.begin(environ)
        request.began, request.began_wall = self.base + began, WALL + began
        if ident is not None:
            del self.requests.of_thread[request.ident]
            request.ident = ident
        return request

    def end(self, request, at, status=200, **told):
        self.requests.end(request)
        request.ended, request.status = self.base + at, status
        for name, value in told.items():
            setattr(request, name, value)
        self.emitter.finished(request)

    def served(self, began, seconds, status=200, environ=ENVIRON, ident=None, **told):
        self.end(self.begin(began, environ, ident), began + seconds, status, **told)

    def tick(self, at):
        """The fields of the request_metrics of the tick at that time."""
        self.at = at
        already = len(self.sent)
        self.emitter.run(self.base + at)
        assert self.emitter.errors == 0
        ticks = [fields for kind, fields in self.sent[already:] if kind == REQUEST_METRICS]
        return ticks[0] if ticks else None

    def told(self, kind):
        return [fields for each, fields in self.sent if each == kind]

    def stopped(self, at):
        self.at = at
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_monotonic", lambda: self.base + at)
            self.emitter.stopped()

    @property
    def process(self):
        return self.fleet.processes()[0]

    def view(self):
        return process_view(self.process, 100.0 + self.at, WALL + self.at)


# --- a tick ------------------------------------------------------------------------------

def test_a_tick_tells_what_was_done():
    app = Application(identity={**IDENTITY, "threads_maximum": 4})
    for place, status in enumerate((200, 204, 302, 404, 500, 0, 101)):
        app.served(0.1 * place, 0.05, status)
    tick = app.tick(1.0)
    assert {name: tick[name] for name in tick if name.startswith("status")} == {
        "status_1xx_total": 1, "status_2xx_total": 2, "status_3xx_total": 1, "status_4xx_total": 1, "status_5xx_total": 2}
    assert (tick["request_count"], tick["request_throughput"], tick["sample_period"]) == (7, close(7.0), close(1.0))
    assert tick["capacity_utilization"] == close(7 * 0.05 / 4)
    assert tick["application_time"] == tick["request_time"] == close(0.05)
    assert (tick["application_time_min"], tick["application_time_max"]) == (close(0.05), close(0.05))
    assert sum(tick["application_time_buckets"]) == sum(tick["request_time_buckets"]) == 7
    assert (tick["request_threads_maximum"], tick["request_threads_started"], tick["request_threads_active"]) == (4, 1, 1)
    assert tick["request_threads_completed"] == [7, 0, 0, 0]
    assert tick["request_threads_busy_time"] == [close(0.35), 0.0, 0.0, 0.0]
    assert tick["request_threads_max_duration"] == [close(0.05), 0.0, 0.0, 0.0]
    assert tick["memory_rss"] > 1 << 20 and tick["memory_max_rss"] > 1 << 20 and tick["cpu_utilization"] >= 0.0


def test_what_cannot_be_known_is_absent():
    app = Application(identity={"hostname": "web1"})
    app.served(0.0, 0.5)
    tick = app.tick(1.0)
    assert set(tick) == {
        "python_version", "hostname", "sample_period", "telemetry_interval", "slow_requests_threshold", "switch_interval",
        "request_count", "request_throughput", "cpu_user_utilization", "cpu_system_utilization", "cpu_utilization",
        "memory_rss", "memory_max_rss", "request_threads_started", "request_threads_active",
        *(f"{phase}_time{part}" for phase in ("application", "request") for part in ("", "_min", "_max", "_buckets")),
        *(f"status_{name}_total" for name in ("1xx", "2xx", "3xx", "4xx", "5xx")),
        "request_threads_completed", "request_threads_busy_time", "request_threads_current_elapsed",
        "request_threads_max_duration"}
    window = app.view()["windows"]["1m"]
    assert (window["capacity"], window["requests"]) == (None, 1)


def test_a_tick_without_a_request_has_no_shortest_and_longest():
    tick = Application().tick(1.0)
    assert [name for name in tick if name.endswith(("_min", "_max"))] == []
    assert (tick["request_count"], tick["request_time"], tick["request_time_buckets"]) == (0, 0.0, [0] * 65)
    assert "queue_time" not in tick and "input_bytes_total" not in tick


def test_memory_that_cannot_be_read_is_absent(monkeypatch):
    def unreadable(name):
        raise PermissionError(13, name)
    monkeypatch.setattr(own, "_proc", unreadable)
    app = Application()
    tick = app.tick(1.0)
    assert "memory_rss" not in tick and "memory_max_rss" in tick
    app.stopped(2.0)
    assert "process_uptime" not in app.told(PROCESS_STOPPED)[0]


def test_environ_of_mod_wsgi_4_gives_the_phases():
    app = Application(identity={**IDENTITY, "threads_maximum": 3})
    app.served(0.2, 0.1, environ=mod_wsgi_environ(0.2, 0.011, 0.021, 0.031, thread="2"))
    app.served(0.4, 0.3, environ=mod_wsgi_environ(0.4, 0.021, 0.041, 0.051, thread="3"))
    tick = app.tick(1.0)
    expected = {"server": (0.011, 0.021), "queue": (0.021, 0.041), "daemon": (0.031, 0.051), "application": (0.1, 0.3),
                "request": (0.163, 0.413)}
    for phase, both in expected.items():
        assert [tick[f"{phase}_time{part}"] for part in ("", "_min", "_max")] == [
            close(sum(both) / 2), close(min(both)), close(max(both))]
        assert tick[f"{phase}_time_buckets"] == buckets(*both), phase
    assert tick["request_threads_completed"] == [0, 1, 1]
    assert tick["request_threads_busy_time"] == [0.0, close(0.1), close(0.3)]
    assert "input_read_time" not in tick and "gil_wait_time" not in tick


def test_embedded_mode_has_no_queue_and_a_proxy_tells_the_queue_alone():
    embedded = mod_wsgi_environ(0.5)
    del embedded["mod_wsgi.queue_start"], embedded["mod_wsgi.daemon_start"]
    app = Application()
    app.served(0.5, 0.1, environ=embedded)
    tick = app.tick(1.0)
    assert tick["server_time"] == close(0.06) and tick["request_time"] == close(0.16) and "queue_time" not in tick
    app = Application()
    app.served(0.5, 0.1, environ={**ENVIRON, "HTTP_X_REQUEST_START": "t=%.6f" % (WALL + 0.3)})
    app.served(0.5, 0.1)                        # asked directly: of this one nobody tells
    tick = app.tick(1.0)
    assert tick["queue_time"] == close(0.2) and sum(tick["queue_time_buckets"]) == 1
    assert tick["request_time"] == close(0.2) and "server_time" not in tick


def test_input_output_and_cpu_are_told_where_the_server_told_them():
    app = Application()
    app.served(0.0, 0.1, input_bytes=10, input_reads=1, input_s=0.01, output_bytes=100, output_writes=2, output_s=0.02,
               cpu_user_s=0.03, cpu_system_s=0.01)
    app.served(0.1, 0.1)
    tick = app.tick(1.0)
    assert [tick[f"{name}_total"] for name in ("input_bytes", "input_reads", "output_bytes", "output_writes")] == [10, 1, 100, 2]
    assert (tick["input_read_time"], tick["output_write_time"]) == (close(0.01), close(0.02))
    assert tick["request_threads_cpu_time"] == [close(0.04)]
    later = app.tick(2.0)                       # nothing was read: that is known
    assert later["input_bytes_total"] == 0 and "input_read_time" not in later


# --- over several ticks ---------------------------------------------------------------------

def test_a_request_over_several_ticks_is_busy_in_each():
    app = Application(identity={**IDENTITY, "threads_maximum": 2})
    request = app.begin(0.5)
    ticks = [app.tick(1.0), app.tick(2.0)]
    app.end(request, 2.25)
    ticks += [app.tick(3.0), app.tick(4.0)]
    assert [tick["request_threads_busy_time"][0] for tick in ticks] == [close(0.5), close(1.0), close(0.25), 0.0]
    assert [tick["request_threads_current_elapsed"][0] for tick in ticks] == [close(0.5), close(1.5), 0.0, 0.0]
    assert [tick["capacity_utilization"] for tick in ticks] == [close(0.25), close(0.5), close(0.125), 0.0]
    assert [tick["request_count"] for tick in ticks] == [0, 0, 1, 0]
    assert [tick["request_threads_active"] for tick in ticks] == [1, 1, 1, 0]
    assert ticks[2]["request_threads_max_duration"][0] == close(1.75)


def test_a_request_that_left_the_running_ones_and_is_not_noted_yet_is_charged_once():
    app = Application()
    request = app.begin(0.5)
    first = app.tick(1.0)
    app.requests.end(request)
    second = app.tick(2.0)                      # its thread stands between the two steps
    request.ended = app.base + 1.25
    app.emitter.finished(request)
    third = app.tick(3.0)
    busy = [tick["request_threads_busy_time"][0] for tick in (first, second, third)]
    assert busy == [close(0.5), 0.0, close(0.25)]


def test_a_late_tick_covers_the_whole_gap():
    app = Application()
    app.served(0.5, 0.1)
    app.served(4.5, 0.1)
    tick = app.tick(5.5)
    assert (tick["sample_period"], tick["request_count"], tick["request_throughput"]) == (close(5.5), 2, close(2 / 5.5))
    assert app.emitter.due() == close(app.base + 6.5)
    assert app.tick(6.0) is None


def test_a_tick_that_nobody_takes_is_added_to_the_next():
    app = Application(identity={**IDENTITY, "threads_maximum": 1})
    app.served(0.5, 0.1)
    request = app.begin(0.8)
    app.taken = False
    assert app.tick(1.0) is None
    app.taken = True
    app.end(request, 1.1)
    tick = app.tick(2.0)
    assert (tick["request_count"], tick["sample_period"], tick["application_time"]) == (2, close(2.0), close(0.2))
    assert (tick["capacity_utilization"], sum(tick["request_time_buckets"])) == (close(0.2), 2)
    assert tick["request_threads_busy_time"] == [close(0.4)] and tick["request_threads_current_elapsed"] == [0.0]


def test_what_nobody_takes_for_long_is_forgotten():
    app = Application()
    app.served(0.5, 0.1)
    app.taken = False
    app.tick(module.HELD_S + 1)
    app.taken = True
    assert app.tick(module.HELD_S + 3)["request_count"] == 0


def test_the_sum_of_the_ticks_is_what_the_fleet_counts():
    app = Application(identity={**IDENTITY, "threads_maximum": 5})
    expected, seconds = Counter(), 0.0
    for place in range(300):
        status, took = (200, 201, 304, 404, 503)[place % 5], 0.001 * (place % 40)
        app.served(place / 100, took, status, environ=mod_wsgi_environ(place / 100, thread=str(place % 5 + 1)))
        expected[f"status_{status // 100}xx"] += 1
        seconds += took
        if place % 50 == 49:
            app.tick(place / 100 + 1.0)         # each other one comes before it is due
    app.tick(5.0)
    view = app.view()
    assert {name: view["counters"][name] for name in expected} == expected
    assert (view["counters"]["requests"], app.emitter.counted) == (300, 300)
    window = process_details(app.process, 100.0 + app.at, WALL)["windows"]["1m"]
    assert window["phases"]["request"]["mean"] == close(seconds / 300 + 0.06)
    assert window["phases"]["request"]["max"] == close(0.099)
    assert window["capacity"] == close(seconds / 5 / window["seconds"])


def test_eight_threads_lose_no_count():
    app = Application()
    most, each, left = 8, 900, []              # together fewer than are kept between two ticks
    statuses = (200, 404, 500)

    def work(number):
        took = 0.0
        for place in range(each):
            request = app.requests.begin(ENVIRON)
            request.status = statuses[(number + place) % 3]
            app.requests.end(request)
            app.emitter.finished(request)
            took += request.ended - request.began
        left.append(took)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(most)]
        for thread in threads:
            thread.start()
        at = 0.0
        while any(thread.is_alive() for thread in threads):
            at += 1.0
            app.tick(at)
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(before)
    app.tick(at + 1.0)
    ticks = app.told(REQUEST_METRICS)
    assert sum(tick["request_count"] for tick in ticks) == most * each
    for field, status in (("status_2xx_total", 200), ("status_4xx_total", 404), ("status_5xx_total", 500)):
        assert sum(tick[field] for tick in ticks) == most * each // 3, status
    assert sum(sum(tick["application_time_buckets"]) for tick in ticks) == most * each
    assert sum(sum(tick["request_threads_completed"]) for tick in ticks) == most * each
    assert sum(tick["application_time"] * tick["request_count"] for tick in ticks) == pytest.approx(sum(left))


def test_requests_beyond_the_bound_are_still_counted(monkeypatch):
    monkeypatch.setattr(module, "QUEUE_MOST", 10)
    app = Application()
    for _ in range(2):
        for place in range(25):
            app.served(0.0, 0.01, 404 if place % 2 else 200)
        tick = app.tick(app.at + 1.0)
        assert (tick["request_count"], tick["status_2xx_total"], tick["status_4xx_total"]) == (25, 13, 12)
        assert sum(tick["application_time_buckets"]) == 10
    assert app.emitter.queue_lost == 30


# --- slots ------------------------------------------------------------------------------------

def test_each_thread_keeps_its_slot():
    app = Application()
    ready, go = threading.Barrier(4), threading.Event()

    def work(number):
        for _ in range(number + 1):
            app.served(0.0, 0.01)
        ready.wait(10)
        go.wait(10)
        app.served(1.5, 0.1 * (number + 1))

    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
    try:
        ready.wait(10)
        first = app.tick(1.0)
    finally:
        go.set()
        for thread in threads:
            thread.join(10)
    second = app.tick(2.0)
    assert sorted(first["request_threads_completed"]) == [1, 2, 3] and second["request_threads_completed"] == [1, 1, 1]
    assert second["request_threads_busy_time"] == [close(0.1 * done) for done in first["request_threads_completed"]]


def test_a_slot_whose_thread_has_gone_serves_the_next():
    app = Application()
    for place in range(500):                    # a thread for each request, or a greenlet: no thread has such a number
        app.served(place / 1000, 0.0005, ident=-1 - place)
    tick = app.tick(1.0)
    assert tick["request_threads_completed"] == [500]
    for place in range(6):                      # three at once
        app.served(1.0 + 0.1 * (place // 3), 0.09, ident=-1000 - place)
    tick = app.tick(2.0)
    assert tick["request_threads_completed"] == [2, 2, 2]
    assert tick["request_threads_busy_time"] == [close(0.18)] * 3


def test_a_running_greenlet_has_its_slot_over_ticks():
    app = Application()
    slow = app.begin(0.0, ident=-5)
    app.served(0.1, 0.1, ident=-6)
    assert sorted(app.tick(1.0)["request_threads_busy_time"]) == [close(0.1), close(1.0)]
    app.end(slow, 1.5)
    assert sorted(app.tick(2.0)["request_threads_busy_time"]) == [0.0, close(0.5)]


def test_cores_of_uwsgi_are_slots():
    app = Application()
    for core in (2, 0, 2):
        app.served(0.1, 0.1, environ={**ENVIRON, "uwsgi.core": core}, ident=-7)
    request = app.begin(0.5, {**ENVIRON, "uwsgi.core": 1})
    tick = app.tick(1.0)
    assert tick["request_threads_completed"] == [1, 0, 2] and tick["request_threads_current_elapsed"] == [0.0, close(0.5), 0.0]
    assert (slow_fields(request, request.began)["slow_thread_id"], tick["request_threads_started"]) == (2, 3)


def test_more_than_128_threads_are_counted_without_a_slot():
    app = Application()
    running = [app.begin(0.5, ident=-1 - place) for place in range(200)]
    tick = app.tick(1.0)
    assert tick["request_threads_busy_time"] == [close(0.5)] * 128
    for request in running:
        app.end(request, 1.5)
    assert app.tick(2.0)["request_count"] == 200
    app.served(2.1, 0.1, environ=mod_wsgi_environ(2.1, thread="129"))
    assert app.tick(3.0)["request_count"] == 1


def test_the_largest_tick_fits_a_datagram():
    names = ("mod_wsgi_version", "python_version", "apache_version", "mpm_name", "hostname", "process_group")
    app = Application(identity={**dict.fromkeys(names, "\u00e9" * 300), "process_parent_pid": 1, "threads_maximum": 500})
    for place in range(128):
        app.served(0.5, 0.1, environ=mod_wsgi_environ(0.5, thread=str(place + 1)), input_bytes=1, input_reads=1, input_s=0.1,
                   output_bytes=1, output_writes=1, output_s=0.1, cpu_user_s=0.1, cpu_system_s=0.1)
    tick = app.tick(1.0)
    assert len(tick["request_threads_cpu_time"]) == 128 and "output_write_time_buckets" in tick and "queue_time_min" in tick
    assert max(app.sizes) <= MAX_DATAGRAM


# --- further agents of a process ---------------------------------------------------------------

def test_a_further_agent_adds_its_requests_and_replaces_no_tick():
    fleet = a_fleet()
    first = Application(fleet=fleet, identity={**IDENTITY, "threads_maximum": 4})
    # its datagrams come as the second source of the process; its own numbers and stamps are beside the matter here
    further = Application(number=9, fleet=a_fleet(), identity={**IDENTITY, "threads_maximum": 4})
    first.served(0.0, 0.4, environ=mod_wsgi_environ(0.0))
    for place in range(3):
        further.served(0.1 * place, 0.1, 404, environ=mod_wsgi_environ(0.1 * place))
    told = first.tick(1.0)
    alone = first.view()
    tick = further.tick(1.0)
    worker = Worker(pid=7, seq=first.seq, flags=AGENT_FLAG)
    values = [(field.id, field.type, tick[field.name]) for field in BY_ID.values() if field.name in tick]
    fold(fleet, worker.datagram(REQUEST_METRICS, values), now=101.2)
    process, view = first.process, first.view()
    assert [kind for kind, _ in further.sent] == [REQUEST_METRICS]
    assert not set(tick) & {"sample_period", "request_throughput", "cpu_utilization", "memory_rss", "request_threads_maximum",
                            "request_threads_busy_time"}
    assert process.tick[1].fields(process.tick[2]) == told and process.windows.open.ended == 101.0
    assert (view["counters"]["requests"], view["counters"]["status_4xx"]) == (4, 3)
    before, after = alone["windows"]["1m"], view["windows"]["1m"]
    assert (after["requests"], after["ticks"], after["seconds"]) == (4, 1, before["seconds"])
    assert after["phases"]["request"]["mean"] == close((0.46 + 3 * 0.16) / 4)
    assert (before["capacity"], after["capacity"]) == (close(0.4 / 4), close((0.4 + 0.3) / 4))
    assert (after["throughput"], view["rss"]) == (close(4.0), alone["rss"])
    assert view["life"] == "running"


def test_a_further_agent_says_nothing_of_the_process():
    app = Application(number=9)
    app.served(0.1, 0.1)
    app.emitter.stopping("shutdown_signal")
    app.stopped(1.0)
    assert [kind for kind, _ in app.sent] == [REQUEST_METRICS] and app.sent[0][1]["request_count"] == 1


# --- slow requests -----------------------------------------------------------------------------

def test_a_slow_request_is_told_while_it_runs_and_once_when_it_ends():
    app = Application(threshold=1.0)
    request = app.begin(0.5, mod_wsgi_environ(0.5, thread="3"))
    for at in (1.0, 2.0, 3.0):
        app.tick(at)
    app.end(request, 3.25, 503, server_pid=900, output_bytes=12)
    app.tick(4.0)
    app.tick(5.0)
    told = app.told(SLOW_REQUEST)
    assert [(fields["slow_record_state"], fields["slow_duration"], fields["slow_status"]) for fields in told] == [
        (0, close(1.5), 0), (0, close(2.5), 0), (1, close(2.75), 503)]
    assert told[2] == {
        "slow_record_state": 1, "slow_start_stamp": WALL + 0.5, "slow_duration": close(2.75), "slow_thread_id": 3,
        "slow_log_id": "abc", "slow_server_pid": 900,
        "slow_method": "GET", "slow_scheme": "http", "slow_hostname": "example", "slow_path_info": "/report",
        "slow_protocol": "HTTP/1.1", "slow_peer_ip": "192.0.2.1", "slow_server_time": close(0.01), "slow_queue_time": close(0.02),
        "slow_daemon_time": close(0.03), "slow_application_time": close(2.75), "slow_output_bytes": 12, "slow_status": 503,
        "slow_active_at_start": 1, "slow_active_at_completion": 1}
    slow, = [app.fleet.slow.freeze(key, 105.0) for key in app.fleet.slow.keys()]
    assert (slow.life, app.view()["counters"]["slow_completed"]) == ("completed", 1)


def test_a_slow_request_between_two_ticks_and_one_at_the_end_are_told_too():
    app = Application(threshold=0.2)
    app.served(0.1, 0.5)
    app.served(0.6, 0.1)
    app.tick(1.0)
    app.served(1.1, 0.3)
    app.stopped(1.5)
    assert [fields["slow_duration"] for fields in app.told(SLOW_REQUEST)] == [close(0.5), close(0.3)]
    assert app.told(SLOW_REQUEST)[1]["slow_thread_id"] == 1         # its thread's slot, counted from 1


def test_a_completed_slow_request_that_nobody_took_is_told_again():
    app = Application(threshold=0.2)
    app.served(0.1, 0.5)
    app.taken = False
    app.tick(1.0)
    app.taken = True
    app.tick(2.0)
    app.tick(3.0)
    assert [fields["slow_duration"] for fields in app.told(SLOW_REQUEST)] == [close(0.5)]


def test_the_sixteen_oldest_running_requests_are_told():
    app = Application(threshold=0.2)
    for place in range(20):
        app.begin(0.01 * place, ident=-1 - place)
    app.tick(1.0)
    assert [fields["slow_duration"] for fields in app.told(SLOW_REQUEST)] == [close(1.0 - 0.01 * place) for place in range(16)]


def test_no_threshold_tells_no_slow_request():
    app = Application(threshold=0.0)
    app.begin(0.0)
    app.served(0.0, 0.9)
    assert app.tick(1.0)["slow_requests_threshold"] == 0.0 and app.told(SLOW_REQUEST) == []


def test_the_user_agent_is_told_only_where_that_is_allowed():
    request = Application().begin()
    assert slow_fields(request, request.began)["slow_user_agent"] is None
    assert slow_fields(request, request.began, user_agents=True)["slow_user_agent"] == b"curl"


def test_whatever_is_in_environ_is_told_safely():
    class Evil(str):
        def encode(self, *given):
            raise AssertionError("called")
    environ = {"PATH_INFO": "/\xff\x1b" + "x" * 1000, "SCRIPT_NAME": "\u20ac", "REQUEST_METHOD": Evil("GET"), "HTTP_HOST": 7,
               "SERVER_NAME": "[::1]:80", "wsgi.url_scheme": None, "REMOTE_ADDR": "", "HTTP_X_REQUEST_START": "nan"}
    request = Application().begin(0.0, environ)
    told = {name: value for name, value in slow_fields(request, request.began + 1.0).items() if isinstance(value, bytes)}
    assert told.pop("slow_log_id") == b"0.1"
    assert told == {"slow_path_info": b"/\xff\x1b" + b"x" * 505 + b"...", "slow_script_name": "\u20ac".encode(),
                    "slow_hostname": b"[::1]"}


# --- life --------------------------------------------------------------------------------------

def test_a_life_is_told_from_start_to_end():
    app = Application(identity={**IDENTITY, "threads_maximum": 2})
    app.served(0.1, 0.1)
    app.tick(1.0)
    running = app.begin(1.5)
    app.emitter.stopping("shutdown_signal")
    app.end(running, 1.7)
    app.stopped(1.8)
    assert [kind for kind, _ in app.sent] == [
        PROCESS_STARTED, REQUEST_METRICS, PROCESS_STOPPING, REQUEST_METRICS, PROCESS_STOPPED]
    assert app.told(PROCESS_STARTED) == [IDENTITY]
    assert app.told(PROCESS_STOPPING) == [{"hostname": "web1", "process_group": "gunicorn", "shutdown_reason": "shutdown_signal",
                                           "active_requests_at_decision": 1}]
    stopped, = app.told(PROCESS_STOPPED)
    assert 0 < stopped.pop("process_uptime") < 86400
    assert stopped == {"hostname": "web1", "process_group": "gunicorn", "shutdown_reason": "shutdown_signal",
                       "lifetime_request_count": 2, "active_requests_at_exit": 0, "graceful_drain": 1}
    view = app.view()
    assert (view["life"], view["counters"]["requests"], view["role"]) == ("stopped", 2, "daemon")


def test_requests_that_run_at_the_end_leave_open_whether_it_was_graceful():
    app = Application()
    app.begin(0.5)
    app.emitter.stopping()
    app.stopped(1.0)
    assert app.told(PROCESS_STOPPED)[0]["active_requests_at_exit"] == 1
    assert not {"graceful_drain", "shutdown_reason"} & set(app.told(PROCESS_STOPPED)[0])


def test_nothing_is_due_before_the_start():
    requests = Requests()
    emitter = Emitter(requests, lambda kind, values: True, Settings(), {})
    emitter.run(time.monotonic())
    assert emitter.due() is None and emitter.errors == 0


def test_errors_of_its_own_are_counted_and_go_nowhere():
    def broken(kind, values):
        raise RuntimeError
    app = Application()
    app.emitter._send = broken
    app.emitter.finished(SimpleNamespace())
    app.emitter.run(app.base + 1.0)
    app.emitter.stopping()
    app.emitter.stopped()
    assert app.emitter.errors == 5 and app.emitter.due() > app.base + 1.5


def test_nonsense_that_a_server_tells_ends_with_its_tick():
    app = Application()
    app.served(0.1, 0.1, "200 OK", output_bytes=-5)
    app.emitter.run(app.base + 1.0)
    assert (app.emitter.errors, app.told(REQUEST_METRICS)) == (1, [])
    app.emitter.errors = 0
    app.served(1.1, 0.1, "200 OK", output_bytes=5)
    tick = app.tick(2.0)
    assert (tick["request_count"], tick["status_5xx_total"], tick["output_bytes_total"]) == (1, 1, 5)


def test_a_request_costs_microseconds():
    app = Application()
    requests = []
    for _ in range(4000):
        request = app.requests.begin(mod_wsgi_environ(0.0))
        app.requests.end(request)
        requests.append(request)
    best = float("inf")
    for part in range(0, 4000, 500):
        began = time.perf_counter()
        for request in requests[part:part + 500]:
            app.emitter.finished(request)
        best = min(best, (time.perf_counter() - began) / 500)
    assert best < 20e-6


# --- garbage collections ------------------------------------------------------------------------

def collecting(name="", **more):
    sent = []

    def send(kind, values):
        sent.append((kind, {BY_ID[field].name: value for field, _, value in values}))
        return True
    return Pauses(send, name, **more), sent


def test_collections_are_told_with_their_pauses():
    pauses, sent = collecting("site-a")
    gc.disable()
    pauses.install()
    pauses.install()
    try:
        before = time.time()
        gc.collect(1)
        circle = []
        circle.append(circle)
        del circle
        gc.collect()
        pauses.tell()
    finally:
        pauses.close()
        gc.enable()
    gc.collect()
    kinds = [kind for kind, _ in sent]
    assert kinds == [GC_SNAPSHOT, GC_EVENT, GC_EVENT]
    snapshot, first, second = (fields for _, fields in sent)
    assert {fields["interpreter_name"] for _, fields in sent} == {b"site-a"}
    assert (snapshot["gc_is_enabled"], snapshot["gc_dropped_events"]) == (0, 0)
    assert snapshot["gc_collections2"] >= 1 and snapshot["gc_threshold0"] == gc.get_threshold()[0] and "gc_count0" in snapshot
    assert (first["gc_event_generation"], second["gc_event_generation"]) == (1, 2)
    assert second["gc_event_collected"] >= 1 and second["gc_event_uncollectable"] == 0
    for fields in (first, second):
        assert before - 1 <= fields["gc_event_start_stamp"] <= time.time() and 0 <= fields["gc_event_duration"] < 60
    pauses.tell()
    assert [kind for kind, _ in sent[3:]] == [GC_SNAPSHOT] and pauses.errors == 0


def test_collections_beyond_the_bound_are_counted_until_that_was_told():
    pauses, sent = collecting()
    answers = [False, True]
    pauses._send = lambda kind, values, send=pauses._send: (answers.pop(0) if answers else True) and send(kind, values)
    gc.disable()
    pauses.install()
    try:
        for _ in range(EVENTS_MOST + 6):
            gc.collect(0)
        pauses.tell()
        pauses.tell()
    finally:
        pauses.close()
        gc.enable()
    assert len(sent) == 1 + EVENTS_MOST and sent[0][1]["gc_dropped_events"] == 6
    pauses.tell()
    assert sent[-1][1]["gc_dropped_events"] == 0


def test_closing_asks_nobody_whether_it_is_equal():
    class Other:
        def __call__(self, phase, info):
            pass

        def __eq__(self, other):
            raise AssertionError("called")
    other = Other()
    pauses, _ = collecting()
    before = list(map(id, gc.callbacks))
    gc.callbacks.append(other)
    try:
        pauses.install()
        pauses.close()
        pauses.close()
        assert list(map(id, gc.callbacks)) == [*before, id(other)]
    finally:
        del gc.callbacks[-1]


def test_a_fork_leaves_no_listener_in_the_child():
    pauses, _ = collecting()
    pauses.install()
    before = len(gc.callbacks)
    pauses.forked()
    assert len(gc.callbacks) == before - 1


def test_pauses_have_a_tick_of_their_own_where_nobody_else_has():
    pauses, sent = collecting(interval_s=2.0)
    due = pauses.due()
    pauses.run(due - 0.1)
    assert sent == []
    pauses.run(due)
    assert [kind for kind, _ in sent] == [GC_SNAPSHOT] and pauses.due() == due + 2.0


def test_counting_frozen_objects_takes_a_thousandth_of_the_time_at_most(monkeypatch):
    asked = []

    def slow():
        asked.append(1)
        until = time.monotonic() + 0.01
        while time.monotonic() < until:
            pass
        return 5
    monkeypatch.setattr(gc, "get_freeze_count", slow)
    pauses, sent = collecting()
    for _ in range(20):
        pauses.tell()
    assert len(asked) == 1 and {fields["gc_freeze_count"] for _, fields in sent} == {5}


def test_the_tick_tells_collections_last():
    pauses, _ = collecting()
    app = Application(pauses=pauses, threshold=0.1)
    pauses._send = app.send
    app.served(0.0, 0.5)
    app.tick(1.0)
    assert [kind for kind, _ in app.sent] == [PROCESS_STARTED, REQUEST_METRICS, SLOW_REQUEST, GC_SNAPSHOT]
    assert app.process.interpreters[b""].snapshot is not None


# --- what the process says of itself ----------------------------------------------------------------

def test_own_figures_are_those_of_the_kernel():
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    assert abs(own.rss_bytes() - int(status["VmRSS"].split()[0]) * 1024) < 8 << 20
    assert abs(own.max_rss_bytes() - int(status["VmHWM"].split()[0]) * 1024) < 64 << 20
    user, system = own.cpu_s()
    assert user + system == pytest.approx(time.process_time(), abs=0.5)
    assert own.hostname() == os.uname().nodename and 0 < own.uptime_s() < 86400 * 30
    assert threading.get_ident() in own.live_threads()


def test_cpu_of_a_tick_is_that_of_its_time():
    app = Application()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert 0.15 < app.tick(1.0)["cpu_utilization"] < 1.0
    assert app.tick(2.0)["cpu_utilization"] < 0.15
