"""A seeded fleet of mod_wsgi processes: what they would send, without any process, clock or socket.

Each process really queues: requests arrive, wait for one of its threads, run and end, and a
tick reports what happened since the last one.  So every number of a tick agrees with every
other because all are read off the same requests.  Kinds, fields and their order are those of
mod_wsgi 6.1 in daemon mode.

The bytes depend on the arguments alone.  Distributions are tables of quantiles, read with
plain arithmetic from random.Random.random(): `choices` and others have changed between
Python versions, as has the sum() of floats (hence fsum), and logarithms differ between C
libraries.
"""
import heapq
import random
from collections import namedtuple
from itertools import count
from math import fsum

from modwsgi_tel.errors import UsageError
from modwsgi_tel.wire.buckets import BUCKETS, UPPER_S, place
from modwsgi_tel.wire.codec import encode, named
from modwsgi_tel.wire.fields import (GC_EVENT, GC_SNAPSHOT, PHASES, PROCESS_STARTED, PROCESS_STOPPED, PROCESS_STOPPING,
                                     REQUEST_METRICS, SLOW_REQUEST)

# --- what a fleet can be like -------------------------------------------------

Profile = namedtuple(
    "Profile",
    "name help only_first threads rate_per_s wave app_s cpu_share patience_s slow_share hang_share main_path_share"
    " convoy storm_per_s stuck_every_s leak_bytes_per_s life_s reason deploy_s",
    defaults=(False, 5, 14.0, 0.35, 0.045, 0.4, 5.0, 0.0015, 0.0, 0.2, False, 0.0, None, 0, None, None, None))
Profile.__doc__ = """How the processes of a fleet behave.

only_first: only the first process of the first group does, the others are steady.
rate_per_s: requests offered to one process, with a swing of `wave` of it around.
app_s: median of the application time; cpu_share: the part of it on the CPU.
patience_s: a client who would wait for a thread longer than some part of this is gone.
slow_share, hang_share: requests of seconds, of minutes; main_path_share: those of them on SLOW_PATHS[0].
convoy: requests wait for the GIL in steps of the switch interval.
storm_per_s: garbage collections a second beyond what allocations cause.
stuck_every_s: seconds after which another request never returns.
life_s, reason: a process ends after this time for this shutdown_reason, and is started anew.
deploy_s: all processes are restarted, one after another with this many seconds between.
"""

PROFILES = {profile.name: profile for profile in (
    Profile("steady", "a healthy fleet with a gentle wave of load and now and then a slow request"),
    Profile("busy", "more requests than threads: every thread is active, requests queue for seconds",
            threads=10, rate_per_s=62.0, wave=0.1, app_s=0.15, cpu_share=0.07, patience_s=4.0),
    Profile("gil", "threads fight for the interpreter lock and wait in steps of the switch interval",
            threads=10, rate_per_s=45.0, wave=0.1, app_s=0.012, cpu_share=1.0, convoy=True),
    Profile("slow", "many slow requests, most of them on one path, some running for minutes",
            threads=20, rate_per_s=12.0, wave=0.1, app_s=0.06, slow_share=0.1, hang_share=0.003, main_path_share=0.85),
    Profile("leak", "the memory of one process grows without end",
            only_first=True, leak_bytes_per_s=1 << 20, life_s=1500.0, reason="restart_interval"),
    Profile("gc-storm", "long garbage collections all the time, more of them than can be reported",
            storm_per_s=240.0, app_s=0.06),
    Profile("crash-loop", "requests of one process never return: it is killed every 20 seconds",
            only_first=True, stuck_every_s=4.0, life_s=16.0, reason="request_timeout"),
    Profile("deploy", "after 10 seconds all processes are restarted in turn, then all is well",
            reason="graceful_signal", deploy_s=5.0),
)}

GROUPS = (                              # name, interpreters ("" is the main one), host, mount point
    ("shop", ("", "www.example.org|/shop"), "www.example.org", "/shop"),
    ("api", ("",), "api.example.org", "/v1"),
    ("intranet", ("", "intranet.example.org|/wiki", "intranet.example.org|/crm"), "intranet.example.org", "/wiki"),
    ("accounts", ("", "accounts.example.org"), "accounts.example.org", "/login"),
)
SLOW_PATHS = (("/reports", "GET"), ("/search", "GET"), ("/checkout", "POST"), ("/export/orders.csv", "GET"), ("/upload", "POST"))
AGENTS = ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "curl/8.14.1", "python-requests/2.32.3",
          "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15")
PEERS = ("192.0.2.7", "192.0.2.81", "198.51.100.23", "203.0.113.140", "2001:db8::1f")

SERVER = {"mod_wsgi_version": "6.1.1", "python_version": "3.11.2", "apache_version": "Apache/2.4.62", "mpm_name": "event",
          "hostname": "web1"}
LOG_ID = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@-"

SWITCH_S = 0.005
SLOW_S = 1.0                            # WSGISlowRequests
ACTIVE_SLOW = 16                        # active slow requests that mod_wsgi sends a tick
GC_EVENTS = 64                          # gc events that it sends of one interpreter a tick
GC_RING = 256                           # gc events that it holds
GC_THRESHOLDS = (700, 10, 10)
GC_PAUSES_S = (0.00005, 0.0006, 0.015)  # by generation
OBJECTS_PER_REQUEST = 150               # net of what is freed by counting
WAVE_S = 600.0                          # a "day"
GRACE_S, DRAIN_S = 15.0, 3.0            # graceful-timeout, shutdown-timeout
RESPAWN_S = 1.0                         # Apache starts a new process this long after one has gone
DEPLOY_AT_S, DEPLOY_MOST_S = 10.0, 60.0
NEVER = float("inf")

# Quantiles in equal steps from 0 to 1.  GAP: exponential with mean 1.  SPREAD: skewed, median 1, mean 1.46.
GAP = (0, .0645, .1335, .2076, .2877, .3747, .47, .5754, .6931, .8267, .9808, 1.1632, 1.3863, 1.674, 2.0794, 2.7726, 4.5)
SPREAD = (.15, .3, .42, .52, .62, .72, .82, .92, 1.0, 1.12, 1.27, 1.45, 1.7, 2.0, 2.6, 3.8, 8.0)
SLOW = (1.05, 1.2, 1.3, 1.5, 1.7, 2.0, 2.3, 2.7, 3.2, 3.8, 4.6, 5.5, 7.0, 9.0, 12.0, 16.0, 25.0)
HANG = (45.0, 60.0, 90.0, 150.0, 300.0)

# The order in which request_metrics has the phases; an idle tick has only the first six.
_ALWAYS = ("server", "application", "request", "gil_wait", "input_read", "output_write")
_MEANS = _ALWAYS + ("queue", "daemon")
_HISTOGRAMS = ("server", "application", "queue", "daemon", "request", "gil_wait", "input_read", "output_write")
_PLACE = {phase: number for number, phase in enumerate(PHASES)}
_EMPTY = (0,) * BUCKETS


def quantile(table, share):
    """The value below which this share (0 to less than 1) of the draws from a table lies."""
    at = share * (len(table) - 1)
    step = int(at)
    return table[step] + (table[step + 1] - table[step]) * (at - step)


def _wave(turn):
    """Nearly a sine, -1 to 1, made of two parabolas."""
    part = turn % 1.0
    half = part * 2 % 1.0
    return 4 * half * (1 - half) * (1 if part < 0.5 else -1)


# --- one process --------------------------------------------------------------

class _Request:
    """One request; `times` in seconds in the order of PHASES, `end` is NEVER for one that hangs."""

    __slots__ = ("slot", "begin", "end", "times", "cpu_s", "sizes", "status", "slow")

    def __init__(self, slot, begin, end, times, cpu_s, sizes, status, slow):
        self.slot, self.begin, self.end, self.times = slot, begin, end, times
        self.cpu_s, self.sizes, self.status, self.slow = cpu_s, sizes, status, slow


class _Heap:
    """The garbage collection of one interpreter, counted as CPython 3.11 does."""

    def __init__(self, name):
        self.name = name
        self.counts, self.collections, self.collected = [0, 0, 0], [14, 1, 0], [123, 28, 0]     # imports before the first tick
        self.ring, self.dropped = [], 0

    def run(self, objects, storm, since, until, draw):
        """Allocate between two times (seconds) and do `storm` collections more; returns seconds of pause."""
        counts, done = self.counts, []
        for number in range(storm):
            done.append(self._collect(2 if number % 40 == 39 else 0, draw, heavy=True))
        counts[0] += objects
        while counts[0] > GC_THRESHOLDS[0]:
            rest = counts[0] - GC_THRESHOLDS[0] - 1
            generation = 2 if counts[2] > GC_THRESHOLDS[2] else 1 if counts[1] > GC_THRESHOLDS[1] else 0
            done.append(self._collect(generation, draw, heavy=False))
            counts[0] = rest
        paused = fsum(pause for _, pause, _ in done)
        between = max(0.0, until - since - paused) / max(1, len(done))
        begin = since
        for number, (generation, pause, collected) in enumerate(done):
            self.ring.append((begin + between * draw(), pause, generation, collected))
            begin += between + pause
        over = max(0, len(self.ring) - GC_RING)
        self.dropped += over
        del self.ring[:over]
        return paused

    def _collect(self, generation, draw, heavy):
        pause = GC_PAUSES_S[generation] * quantile(SPREAD, draw())
        if heavy and generation == 2:
            pause = 0.04 + 0.08 * draw()
        collected = int((60, 300, 700)[generation] * draw() * draw())
        self.collections[generation] += 1
        self.collected[generation] += collected
        if generation < 2:
            self.counts[generation + 1] += 1
        self.counts[:generation + 1] = [0] * (generation + 1)
        return generation, pause, collected


class _Process:
    """One process from its start to its end; times are seconds since the start of the stream."""

    def __init__(self, fleet, number, life, born):
        first = number == 0
        self.profile = fleet.profile if first or not fleet.profile.only_first else PROFILES["steady"]
        self.fleet, self.born, self.now = fleet, born, born
        self.pid = fleet.first_pid + number + life * fleet.processes
        self.draw = random.Random(f"{fleet.seed}/{number}/{life}").random
        name, interpreters, self.host, self.mount = fleet.groups[number % len(fleet.groups)]
        self.who = {"hostname": SERVER["hostname"], "process_group": name}
        self.identity = dict(SERVER, process_group=name, process_parent_pid=fleet.parent_pid)
        self.heaps = [_Heap(interpreter) for interpreter in interpreters]
        for heap in self.heaps:
            heap.run(9 * (GC_THRESHOLDS[0] + 1), 0, born, born + 0.03, self.draw)
        self.seq = self.requests = 0
        self.rss = self.peak = (34 << 20) + (7 << 20) * len(self.heaps)
        self.warm = self.rss + (24 << 20)
        self.spare_s = [0.0, 0.0]       # CPU not yet shown: the system counts it in steps of 10 ms
        self.free = [born] * self.profile.threads
        self.pending = []               # accepted and not reported as completed, in order of arrival
        self.next_arrival = born + 0.2 * self.draw()
        self.next_stuck = born + self.profile.stuck_every_s if self.profile.stuck_every_s else NEVER
        self.ending = self._plan(number, life)
        self.stopping = None            # (reason, when it is gone at the latest)

    def _plan(self, number, life):
        """(when the end begins, reason, seconds of grace before it counts as stopping)."""
        profile = self.profile
        if profile.life_s:
            return self.born + profile.life_s, profile.reason, 0.0
        if profile.deploy_s and life == 0:
            return (DEPLOY_AT_S + number * min(profile.deploy_s, DEPLOY_MOST_S / self.fleet.processes), profile.reason,
                    GRACE_S)
        return NEVER, "shutdown_signal", 0.0

    # - its life -

    def live(self):
        """Yield (seconds, [datagram]) from process_started to process_stopped."""
        yield self.born, [self._datagram(PROCESS_STARTED, self.born, dict(self.identity, switch_interval=SWITCH_S))]
        stop_at = NEVER
        while True:
            tick_at = min(self.now + self.fleet.interval + 0.0003 + 0.0015 * self.draw(), self.fleet.duration)
            begins, reason, grace = self.ending
            if begins <= tick_at and stop_at == NEVER and not self.stopping:
                self._close(begins)
                stop_at = min(begins + grace, max([begins] + [request.end for request in self.pending]))
            if min(stop_at, self.fleet.halt) <= tick_at and not self.stopping:
                if self.fleet.halt < stop_at:
                    stop_at, reason = self.fleet.halt, "shutdown_signal"
                self._close(stop_at)
                running = self._running(stop_at)
                self.stopping = reason, min(stop_at + DRAIN_S, max([stop_at] + [request.end for request in running]))
                yield stop_at, [self._datagram(PROCESS_STOPPING, stop_at, dict(
                    self.who, shutdown_reason=reason, active_requests_at_decision=len(running)))]
            datagrams = self._tick(tick_at)
            if self.stopping and (tick_at >= self.stopping[1] or tick_at >= self.fleet.duration):
                left = len(self._running(tick_at))
                datagrams.append(self._datagram(PROCESS_STOPPED, tick_at, dict(
                    self.who, shutdown_reason=self.stopping[0], process_uptime=tick_at - self.born,
                    lifetime_request_count=self.requests, active_requests_at_exit=left, graceful_drain=0 if left else 1)))
                yield tick_at, datagrams
                return
            yield tick_at, datagrams

    def _close(self, at):
        """Accept no more; who has no thread yet goes to another process."""
        self._accept(at)
        self.next_arrival = NEVER
        self.pending = [request for request in self.pending if request.begin <= at]

    def _running(self, at):
        return [request for request in self.pending if request.begin <= at < request.end]

    # - its requests -

    def _accept(self, until):
        """Give a thread to every request that arrives before `until`."""
        profile, draw, free = self.profile, self.draw, self.free
        while self.next_arrival < until:
            arrival = self.next_arrival
            rate = profile.rate_per_s * (1 + profile.wave * _wave(arrival / WAVE_S))
            self.next_arrival = arrival + quantile(GAP, draw()) / rate
            for slot, free_at in enumerate(free):
                if free_at <= arrival:
                    start = arrival
                    break
            else:
                start = min(free)
                slot = free.index(start)
                if start - arrival > profile.patience_s * (0.4 + 0.6 * draw()):
                    continue
            self.pending.append(self._request(slot, arrival, start))

    def _request(self, slot, arrival, start):
        profile, draw = self.profile, self.draw
        server = 0.00006 * quantile(SPREAD, draw())
        queue = start - arrival + 0.0001 * quantile(SPREAD, draw())
        daemon = 0.00018 * quantile(SPREAD, draw())
        app = profile.app_s * quantile(SPREAD, draw())
        lot, kind, body = draw(), draw(), draw()
        cpu = app * profile.cpu_share
        if lot < profile.slow_share:
            app += quantile(SLOW, draw())
        elif lot < profile.slow_share + profile.hang_share:
            app += quantile(HANG, draw())
        if profile.convoy:
            gil = self._convoy_s()
            daemon += self._convoy_s() if draw() < 0.5 else 0.0
            app += gil
        else:
            gil = 0.000004 * quantile(SPREAD, draw())
        if profile.storm_per_s and draw() < 0.5:
            app += 0.04 + 0.08 * draw()                 # a collection of the oldest generation fell into it
        status = 2 if kind >= 0.05 else 3 if kind >= 0.0102 else 4 if kind >= 0.0002 else 5
        upload = body < 0.08
        sizes = (int(body * 5e5), 1 + int(body * 100), 40, 1) if upload else (0, 0, int(800 + body * 24000), 1 + int(body * 2))
        read = sizes[0] * 2e-8 * (1 + body) if upload else 0.0
        write = 0.00002 + sizes[2] * 5e-9
        begin = start + daemon
        end = begin + app
        if start >= self.next_stuck:
            self.next_stuck = start + profile.stuck_every_s
            end = NEVER
        slow = self._slow_details(slot, begin, stuck=end == NEVER) if end - begin >= SLOW_S else None
        self.free[slot] = end
        return _Request(slot, begin, end, (server, queue, daemon, app, server + queue + daemon + app, gil, read, write),
                        cpu, sizes, status, slow)

    def _convoy_s(self):
        """Threads that take turns: after each switch interval three in four must wait for another one."""
        turn, steps, share = self.draw(), 1, 0.75
        while turn < share and steps < 12:
            steps, share = steps + 1, share * 0.75
        return SWITCH_S * steps * (1 + 0.06 * self.draw())

    def _slow_details(self, slot, begin, stuck):
        draw = self.draw
        log_id = "".join([LOG_ID[int(64 * draw())] for _ in range(11)])
        path, method = SLOW_PATHS[2 if stuck else 0 if draw() < self.profile.main_path_share
                                  else 1 + int(draw() * (len(SLOW_PATHS) - 1))]
        return {"server_pid": self.fleet.parent_pid + 1 + int(2 * draw()), "log_id": log_id, "method": method, "path": path,
                "peer": PEERS[int(len(PEERS) * draw())], "agent": AGENTS[int(len(AGENTS) * draw())],
                "active": 1 + sum(1 for other, free_at in enumerate(self.free) if other != slot and free_at > begin)}

    # - its ticks -

    def _tick(self, now):
        """The datagrams of one tick, in mod_wsgi's order."""
        since, period = self.now, now - self.now
        self._accept(now)
        done, running, waiting = [], [], []
        for request in self.pending:
            (done if request.end <= now else running if request.begin <= now else waiting).append(request)
        done.sort(key=lambda request: request.end)
        self.pending = running + waiting
        self.now = now
        paused = self._collect_garbage(len(done), since, now)
        out = [self._request_metrics(now, period, done, running, paused)]
        slow = [request for request in done if request.slow]
        everyone = done + running
        for request in slow:
            active = 1 + sum(1 for other in everyone if other.begin <= request.end < other.end)
            out.append(self._slow_request(now, request, request.end - request.begin, active))
        slow = [request for request in running if request.slow and now - request.begin >= SLOW_S]
        slow.sort(key=lambda request: request.slot)
        for request in slow[:ACTIVE_SLOW]:
            out.append(self._slow_request(now, request, now - request.begin, 0))
        for heap in self.heaps:
            out += self._gc(now, heap)
        return out

    def _collect_garbage(self, requests, since, now):
        serving = self.heaps[1:] or self.heaps
        objects = int(OBJECTS_PER_REQUEST * requests * (0.8 + 0.4 * self.draw())) // len(serving) + 3
        storm = int(self.profile.storm_per_s * (now - since)) // len(serving)
        return fsum(heap.run(objects, storm, since, now, self.draw) for heap in serving)

    def _request_metrics(self, now, period, done, running, paused):
        threads = self.profile.threads
        completed, busy, cpu = [0] * threads, [0.0] * threads, [0.0] * threads
        elapsed, longest = [0.0] * threads, [0.0] * threads
        since, on_cpu = now - period, paused
        statuses, sizes = [0] * 6, [0] * 4
        for request in done:
            slot, took = request.slot, request.end - request.begin
            spent = request.end - max(request.begin, since)
            completed[slot] += 1
            busy[slot] += spent
            cpu[slot] += request.cpu_s
            on_cpu += request.cpu_s * spent / took
            longest[slot] = max(longest[slot], int(took * 1000) / 1000)
            statuses[request.status] += 1
            for number, size in enumerate(request.sizes):
                sizes[number] += size
        for request in running:
            spent = now - max(request.begin, since)
            busy[request.slot] += spent
            on_cpu += request.cpu_s * spent / (request.end - request.begin)
            elapsed[request.slot] = int((now - request.begin) * 1000) / 1000
        self.requests += len(done)
        user, system = self._cpu(on_cpu, period)
        self._memory(period)
        values = dict(
            self.identity, sample_period=period, telemetry_interval=self.fleet.interval, slow_requests_threshold=SLOW_S,
            switch_interval=SWITCH_S, request_count=len(done), request_throughput=len(done) / period,
            capacity_utilization=fsum(busy) / (threads * period), cpu_user_utilization=user, cpu_system_utilization=system,
            cpu_utilization=user + system, memory_rss=self.rss, memory_max_rss=self.peak, request_threads_maximum=threads,
            request_threads_started=threads + 1, request_threads_active=sum(1 for spent in busy if spent))
        values.update(_phases([request.times for request in done]))
        values.update(
            input_bytes_total=sizes[0], input_reads_total=sizes[1], output_bytes_total=sizes[2],
            output_writes_total=sizes[3], status_1xx_total=statuses[1], status_2xx_total=statuses[2],
            status_3xx_total=statuses[3], status_4xx_total=statuses[4], status_5xx_total=statuses[5],
            request_threads_completed=completed, request_threads_busy_time=busy, request_threads_cpu_time=cpu,
            request_threads_current_elapsed=elapsed, request_threads_max_duration=longest)
        return self._datagram(REQUEST_METRICS, now, values)

    def _cpu(self, seconds, period):
        """(user, system) shares of one core, of seconds of work: whole steps of 10 ms, the rest is kept for later."""
        out = []
        for number, share in enumerate((0.9, 0.1)):
            self.spare_s[number] += seconds * share + 0.0004 * period
            steps = int(self.spare_s[number] * 100)
            self.spare_s[number] -= steps / 100
            out.append(steps / 100 / period)
        return out

    def _memory(self, period):
        grown = self.profile.leak_bytes_per_s * period
        self.warm += int(grown)
        away = (self.warm - self.rss) * min(1.0, 0.04 * period) if self.warm > self.rss else 0
        self.rss += int(grown + away + (self.draw() - 0.5) * 65536) >> 12 << 12
        self.peak = max(self.peak, self.rss)

    def _slow_request(self, now, request, elapsed, active_at_completion):
        slow, over = request.slow, active_at_completion > 0
        server, queue, daemon, app, _, gil, read, write = request.times
        gil = gil if over else gil * min(1.0, elapsed / (request.end - request.begin))
        sizes = request.sizes if over else (0, 0, 0, 0)
        return self._datagram(SLOW_REQUEST, now, dict(
            slow_record_state=1 if over else 0, slow_start_stamp=self.fleet.start + request.begin,
            slow_duration=elapsed + 0.00003, slow_thread_id=request.slot + 1, slow_server_pid=slow["server_pid"],
            slow_input_bytes=sizes[0], slow_input_reads=sizes[1], slow_output_bytes=sizes[2], slow_output_writes=sizes[3],
            slow_cpu_user_time=request.cpu_s * 0.9 if over else 0.0,
            slow_cpu_system_time=request.cpu_s * 0.1 if over else 0.0,
            slow_server_time=server, slow_queue_time=queue, slow_daemon_time=daemon,
            slow_application_time=app if over else elapsed, slow_gil_wait_time=gil,
            slow_gil_wait_count=3 + int(gil / SWITCH_S), slow_input_read_time=read if over else 0.0,
            slow_output_write_time=write if over else 0.0, slow_active_at_start=slow["active"],
            slow_active_at_completion=active_at_completion, slow_status=(200, 302, 404, 500)[request.status - 2] if over else 0,
            slow_log_id=slow["log_id"], slow_method=slow["method"], slow_scheme="https", slow_hostname=self.host,
            slow_script_name=self.mount, slow_path_info=slow["path"], slow_protocol="HTTP/1.1", slow_peer_ip=slow["peer"],
            slow_user_agent=slow["agent"]))

    def _gc(self, now, heap):
        """The gc_snapshot of one interpreter and its gc_events, the oldest first."""
        values = {}
        for name, numbers in (("count", heap.counts), ("threshold", GC_THRESHOLDS), ("collections", heap.collections),
                              ("collected", heap.collected), ("uncollectable", (0, 0, 0))):
            for generation, number in enumerate(numbers):
                values[f"gc_{name}{generation}"] = number
        values.update(gc_is_enabled=1, gc_freeze_count=0, gc_dropped_events=heap.dropped)
        interpreter = {"interpreter_name": heap.name} if heap.name else {}
        out = [self._datagram(GC_SNAPSHOT, now, dict(values, **interpreter))]
        for begin, pause, generation, collected in heap.ring[:GC_EVENTS]:
            out.append(self._datagram(GC_EVENT, now, dict(
                gc_event_start_stamp=self.fleet.start + begin, gc_event_duration=pause, gc_event_generation=generation,
                gc_event_collected=collected, gc_event_uncollectable=0, **interpreter)))
        del heap.ring[:GC_EVENTS]
        heap.dropped = 0
        return out

    def _datagram(self, kind, at, values):
        self.seq += 1
        return encode(kind, self.pid, self.seq, self.fleet.start + at, named(**values))


def _phases(times):
    """Fields 60 to 97 by name, in the order sent, of the times of the requests (seconds, in the order of PHASES)."""
    values, number = {}, len(times)
    if not number:
        values.update((f"{phase}_time", 0.0) for phase in _ALWAYS)
        values.update((f"{phase}_time_buckets", _EMPTY) for phase in _HISTOGRAMS if phase in _ALWAYS)
        return values
    columns = list(zip(*times))
    ranges = {}
    for phase in _MEANS:
        column = columns[_PLACE[phase]]
        low, high = min(column), max(column)
        ranges[f"{phase}_time_min"], ranges[f"{phase}_time_max"] = low, high
        values[f"{phase}_time"] = min(max(fsum(column) / number, low), high)    # the division rounds, and may leave the range
    values.update(ranges)
    for phase in _HISTOGRAMS:
        buckets = [0] * BUCKETS
        for seconds in columns[_PLACE[phase]]:
            buckets[place(seconds) if seconds >= UPPER_S[0] else 0] += 1
        values[f"{phase}_time_buckets"] = buckets
    return values


# --- all of them --------------------------------------------------------------

_Fleet = namedtuple("_Fleet", "profile processes groups interval duration halt seed start first_pid parent_pid")


def stream(profile="steady", processes=4, groups=1, interval=1.0, duration=None, seed=1, start=0.0, first_pid=20000):
    """Iterate over (at_s, datagram) of a fleet, in order of time.

    at_s: seconds since the start; a header's stamp is start + at_s, so `start` is a wall clock
    time.  profile: a name of PROFILES, or a Profile.  processes: in all, dealt out to `groups`
    process groups in turn.  duration: the fleet is stopped in time for its last datagram to
    come by then; None goes on for ever.  first_pid: pid of the first process, the next ones
    follow; Apache's own three are the numbers before it.

    The same arguments give the same bytes.  Raises UsageError for what is out of range.
    """
    if isinstance(profile, str):
        if profile not in PROFILES:
            raise UsageError(f"profile {profile!r}: there is no such profile, only {', '.join(PROFILES)}")
        profile = PROFILES[profile]
    _whole("processes", processes, 1, 100000)
    _whole("groups", groups, 1, processes)
    _whole("first_pid", first_pid, 4, (1 << 22) - processes)
    if not 0.5 <= interval <= 3600:
        raise UsageError(f"interval {interval}: must be 0.5 to 3600 seconds")
    if duration is not None and not 0 < duration < NEVER:
        raise UsageError(f"duration {duration}: must be more than 0 seconds")
    halt = NEVER if duration is None else duration - min(interval, duration / 2)
    fleet = _Fleet(profile, processes, [_group(number) for number in range(groups)], interval,
                   NEVER if duration is None else duration, halt, seed, start, first_pid, first_pid - 3)
    return _merged([_seat(fleet, number) for number in range(processes)])


def _whole(name, value, least, most):
    if not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{name} {value}: must be a whole number from {least} to {most}")


def _group(number):
    name, interpreters, host, mount = GROUPS[number % len(GROUPS)]
    again = number // len(GROUPS)
    return (f"{name}{again + 1}" if again else name), interpreters, host, mount


def _seat(fleet, number):
    """One process after another in the same place of its group: yield (at_s, number, [datagram])."""
    born = number * min(0.006, fleet.interval / fleet.processes)
    for life in count():
        if born >= fleet.halt:
            return
        process = _Process(fleet, number, life, born)
        for at, datagrams in process.live():
            yield at, number, datagrams
        born = process.now + RESPAWN_S


def _merged(seats):
    for at, _, datagrams in heapq.merge(*seats):
        for datagram in datagrams:
            yield at, datagram
