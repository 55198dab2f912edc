"""Builders with honest defaults: what one real process sends, and a fleet to fold it into.

    worker = Worker(pid=7)
    fold(fleet, worker.started(), worker.tick(requests=3), now=100.0)

Every default is what mod_wsgi would send; a test names only what it is about.
"""
import os
import struct

from modwsgi_tel.state.fleet import CREDENTIALS, Answer, Fleet, Limits
from modwsgi_tel.wire import blocks
from modwsgi_tel.wire.buckets import BUCKETS, place
from modwsgi_tel.wire.codec import encode, named
from modwsgi_tel.wire.fields import (GC_EVENT, GC_SNAPSHOT, PHASES, PROCESS_STARTED, PROCESS_STOPPED, PROCESS_STOPPING,
                                     REQUEST_METRICS, SLOW_REQUEST)

CAPTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "captures")
CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
NAMES = ("daemon_gil", "daemon_mixed", "embedded", "embedded_prefork", "gc_storm", "gunk", "lifecycle", "smoke", "subinterp")
WALL = 1_700_000_000.0                  # wall seconds of the monotonic zero of every test

_captures = {}


def capture(name):
    """[(wall, sender's pid, datagram)] of a capture in tests/captures."""
    if name not in _captures:
        path = os.path.join(CAPTURES, name + ".cap.gz")
        with open(path, "rb") as handle:
            _captures[name] = list(blocks.read(handle, path))
    return _captures[name]


def datagrams(*names):
    """All datagrams of these captures, of all without names."""
    return [datagram for name in names or NAMES for _, _, datagram in capture(name)]


def a_sender(pid=7, uid=33, gid=33):
    """The kernel's struct ucred of a sender."""
    return CREDENTIALS.pack(pid, uid, gid)


def a_fleet(**limits):
    """A Fleet with the limits that `serve` has by default."""
    given = dict(processes=2000, slow=16384, samples=600, interpreters=64, groups=256, events=500, keep_bytes=256 << 20,
                 plain_bytes=6 << 20, slow_bytes=64 << 20, slow_s=600.0, gc_s=300.0, ended_s=600.0, silent_s=3600.0)
    return Fleet(Limits(**{**given, **limits}))


def buckets(*durations_s):
    """The histogram of these durations."""
    row = [0] * BUCKETS
    for seconds in durations_s:
        row[place(seconds)] += 1
    return row


class Worker:
    """One WSGI process: its datagrams, numbered in the order in which they are made.

    `stamp` of a datagram is WALL plus its number, unless given.
    """

    def __init__(self, pid=7, seq=0, hostname="web1", group="app", interval=1.0, flags=0):
        self.pid, self.seq, self.hostname, self.group, self.interval, self.flags = pid, seq, hostname, group, interval, flags

    def datagram(self, kind, values=(), stamp=None, seq=None):
        """Fields as [(id, type, value)] behind the next number, or the one given."""
        if seq is None:
            self.seq = seq = (self.seq + 1) & 0xFFFFFFFF
        return encode(kind, self.pid, seq, WALL + seq if stamp is None else stamp, list(values), self.flags)

    def identity(self):
        return named(mod_wsgi_version="6.1.1", python_version="3.11.2", apache_version="Apache/2.4.62", mpm_name="event",
                     hostname=self.hostname, process_group=self.group, process_parent_pid=1000)

    def started(self, **more):
        return self.datagram(PROCESS_STARTED, self.identity() + named(switch_interval=0.005), **more)

    def tick(self, requests=0, durations=None, status=None, stamp=None, seq=None, **fields):
        """A request_metrics datagram; `durations` are the request times in seconds, one for each request.

        Other fields by their names: they replace those that are there, None leaves one out.
        """
        durations = [0.1] * requests if durations is None else durations
        count = len(durations)
        values = dict(sample_period=self.interval, telemetry_interval=self.interval, slow_requests_threshold=2.0,
                      switch_interval=0.005, request_count=count, request_throughput=count / self.interval,
                      capacity_utilization=0.25, cpu_user_utilization=0.125, cpu_system_utilization=0.0625,
                      cpu_utilization=0.1875, memory_rss=50 << 20, memory_max_rss=60 << 20, request_threads_maximum=5,
                      request_threads_started=5, request_threads_active=1)
        mean = sum(durations) / count if count else 0.0
        share = {"server": 0.05, "queue": 0.05, "daemon": 0.1, "application": 0.8, "request": 1.0, "gil_wait": 0.01,
                 "input_read": 0.02, "output_write": 0.03}
        values.update((f"{phase}_time", mean * share[phase]) for phase in PHASES)
        if count:
            values.update((f"{phase}_time_min", min(durations) * share[phase]) for phase in PHASES)
            values.update((f"{phase}_time_max", max(durations) * share[phase]) for phase in PHASES)
        values.update((f"{phase}_time_buckets", buckets(*(seconds * share[phase] for seconds in durations)))
                      for phase in PHASES)
        values.update(input_bytes_total=10 * count, input_reads_total=count, output_bytes_total=1000 * count,
                      output_writes_total=2 * count)
        values.update((f"status_{name}_total", 0) for name in ("1xx", "2xx", "3xx", "4xx", "5xx"))
        values.update({"status_2xx_total": count} if status is None else
                      {f"status_{name}_total": number for name, number in status.items()})
        values.update(request_threads_completed=[count, 0, 0, 0, 0], request_threads_busy_time=[0.5, 0.0, 0.0, 0.0, 0.0],
                      request_threads_cpu_time=[0.1, 0.0, 0.0, 0.0, 0.0],
                      request_threads_current_elapsed=[0.0] * 5, request_threads_max_duration=[0.0] * 5)
        values.update(fields)
        return self.datagram(REQUEST_METRICS, self.identity() + named(
            **{name: value for name, value in values.items() if value is not None}), stamp, seq)

    def slow(self, log_id="a", done=False, thread=1, start=WALL, stamp=None, seq=None, **fields):
        """A slow_request datagram, active or completed; log_id "" as a server without log ids sends it."""
        values = dict(slow_record_state=int(done), slow_start_stamp=start, slow_duration=3.0, slow_thread_id=thread,
                      slow_server_pid=900, slow_log_id=log_id, slow_method="GET", slow_scheme="http", slow_hostname="example",
                      slow_path_info="/slow", slow_protocol="HTTP/1.1", slow_peer_ip="192.0.2.1",
                      slow_status=200 if done else 0)
        values.update(fields)
        return self.datagram(SLOW_REQUEST, named(**{name: value for name, value in values.items() if value is not None}),
                             stamp, seq)

    def gc_snapshot(self, interpreter=None, **fields):
        values = {**{f"gc_collections{n}": 10 - n for n in range(3)}, "gc_is_enabled": 1, "gc_dropped_events": 0, **fields}
        if interpreter is not None:
            values["interpreter_name"] = interpreter
        return self.datagram(GC_SNAPSHOT, named(**values))

    def gc_event(self, interpreter=None, duration=0.002, **more):
        values = dict(gc_event_start_stamp=WALL, gc_event_duration=duration, gc_event_generation=0, gc_event_collected=5,
                      gc_event_uncollectable=0)
        if interpreter is not None:
            values["interpreter_name"] = interpreter
        return self.datagram(GC_EVENT, named(**values), **more)

    def stopping(self, reason="graceful_signal", active=1, **more):
        return self.datagram(PROCESS_STOPPING, self._end(reason) + named(active_requests_at_decision=active), **more)

    def stopped(self, reason="graceful_signal", requests=0, drained=1, active=0, **more):
        return self.datagram(PROCESS_STOPPED, self._end(reason) + named(
            process_uptime=12.5, lifetime_request_count=requests, active_requests_at_exit=active, graceful_drain=drained),
            **more)

    def _end(self, reason):
        return named(hostname=self.hostname, process_group=self.group, shutdown_reason=reason)


def fold(fleet, *sent, now=0.0, sender=None):
    """Apply datagrams that arrive at `now`; without a sender it is the process that the header names.  Returns the fleet."""
    for datagram in sent:
        fleet.apply(datagram, sender or a_sender(struct.unpack_from("<I", datagram, 8)[0]), now, WALL + now)
    return fleet


def replayed(name, fleet=None):
    """A fleet that a capture was folded into; monotonic zero is its first record."""
    fleet = fleet or a_fleet()
    began = capture(name)[0][0]
    for wall, pid, datagram in capture(name):
        fleet.apply(datagram, a_sender(pid), wall - began, wall)
    return fleet


def a_sample(at=100.0, start=1000, unknown=(), **more):
    """What proc.samples says of a process: four threads that sleep, 20 of 1,024 files; pss_bytes only where it is given."""
    return {"start": start, "at": at, "state": "S", "wait": None, "threads": 4, "voluntary_switches": 0, "involuntary_switches": 0,
            "files": 20, "files_limit": 1024, "unknown": dict(unknown), **more}


def an_answer(alive=True, start=1000, nspids=(7,), age_s=100.0):
    """What /proc says of a process that has run for long."""
    return Answer(alive, start if alive else None, nspids if alive else (), age_s if alive else None)
