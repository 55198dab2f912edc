"""The standard telemetry, from inside: for servers that do not report themselves.

What ends is noted by the thread that served it, without a lock, and added up at the next tick in the monitor's thread.  What
cannot be known is left out of a record; it is never zero.
"""
import itertools
import sys
import time
from bisect import bisect_right
from collections import deque
from heapq import heappop, heappush

from modwsgi_tel.agent import own
from modwsgi_tel.agent.requests import Request
from modwsgi_tel.wire.buckets import BUCKETS, UPPER_S
from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import PROCESS_STARTED, PROCESS_STOPPED, PROCESS_STOPPING, REQUEST_METRICS, SLOW_REQUEST

SLOTS_MOST = 128                        # worker threads told apart, as mod_wsgi does
ACTIVE_MOST = 16                        # running slow requests told of at each tick, as mod_wsgi does
QUEUE_MOST = 8192                       # requests that ended since the last tick: of more, only the status is counted
SLOW_MOST = 256                         # completed slow requests since the last tick
HELD_S = 30.0                           # ticks that no collector takes are added to the next one for so long
GONE_S = 60.0                           # a request whose end never comes is forgotten after it
LANES_TRIED = 8
NAME_MOST, TEXT_MOST, PATH_MOST = 127, 127, 511         # bytes, as mod_wsgi cuts them

_IDENTITY = ("mod_wsgi_version", "python_version", "apache_version", "mpm_name", "hostname", "process_group",
             "process_parent_pid")
_PLACE = ("hostname", "process_group")
_STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
# What environ says of a request that is wanted after its end: nothing else of it is kept.
_WANTED = ("mod_wsgi.thread_id", "mod_wsgi.request_start", "mod_wsgi.queue_start", "mod_wsgi.daemon_start",
           "HTTP_X_REQUEST_START")
_WANTED_ELSEWHERE = ("uwsgi.core", "HTTP_X_REQUEST_START")
_BEFORE = ("server", "queue", "daemon")                 # phases, as Request.phases has them
_PHASES = (*_BEFORE, "application", "request", "input_read", "output_write")
_ALWAYS = ("application", "request")    # phases that each request has
_TOTALS = ("input_bytes", "input_reads", "output_bytes", "output_writes")

_PYTHON = "%d.%d.%d" % sys.version_info[:3]

_monotonic = time.monotonic


class _Ended:
    """What is kept of a request that has ended, until the next tick."""

    __slots__ = ("number", "ident", "began", "began_wall", "ended", "status", "environ", "totals", "input_s", "output_s", "cpu_s")

    phases = Request.phases
    thread_id = Request.thread_id

    def __init__(self, request):
        environ = request.environ
        self.number, self.ident = request.number, request.ident
        self.began, self.began_wall, self.ended, self.status = request.began, request.began_wall, request.ended, request.status
        wanted = _WANTED if "mod_wsgi.version" in environ else _WANTED_ELSEWHERE
        self.environ = {name: environ[name] for name in wanted if name in environ}
        self.totals = None
        if request.input_bytes is not None or request.output_bytes is not None:
            self.totals = request.input_bytes, request.input_reads, request.output_bytes, request.output_writes
        self.input_s, self.output_s, self.cpu_s = request.input_s, request.output_s, None
        if request.cpu_user_s is not None and request.cpu_system_s is not None:
            self.cpu_s = request.cpu_user_s + request.cpu_system_s


class _Phase:
    """Durations of one phase: how many, their sum, the shortest, the longest, and their histogram."""

    __slots__ = ("count", "total", "low", "high", "row")

    def __init__(self):
        self.count, self.total, self.low, self.high, self.row = 0, 0.0, float("inf"), 0.0, [0] * BUCKETS

    def add(self, durations):
        self.count += len(durations)
        self.total += sum(durations)
        self.low, self.high = min(self.low, min(durations)), max(self.high, max(durations))
        row = self.row
        for seconds in durations:
            row[bisect_right(UPPER_S, seconds)] += 1


class _Slot:
    """One worker thread since the last tick that was sent; elapsed_s: age of what it runs now."""

    __slots__ = ("completed", "busy_s", "cpu_s", "elapsed_s", "longest_s")

    def __init__(self):
        self.completed, self.busy_s, self.cpu_s, self.elapsed_s, self.longest_s = 0, 0.0, 0.0, 0.0, 0.0


class _Sums:
    """What was added up since the last tick that was sent: at `began`, monotonic seconds, when `cpu` was used (own.cpu_s)."""

    def __init__(self, began, cpu):
        self.began, self.cpu = began, cpu
        self.count, self.busy_s = 0, 0.0
        self.statuses = [0] * len(_STATUSES)
        self.phases = {}                # name -> _Phase
        self.totals = [0] * len(_TOTALS)
        self.slots = {}                 # number -> _Slot

    def slot(self, number):
        found = self.slots.get(number)
        if found is None:
            found = self.slots[number] = _Slot()
        return found


class _Places:
    """Which slot a thread has: the server's number of it less one, else one given to each thread that serves.

    The slot of a thread that has gone goes to another one.  Where threads live for one request, are not the operating system's
    (greenlets), or have no Python in them between two requests, a slot is so a lane: of requests that did not overlap.
    """

    def __init__(self):
        self.length = 0                 # slots that there were at once, at most
        self._numbers = set()           # of the server's threads that were seen
        self._held = {}                 # ident -> slot
        self._free = []                 # a heap of slots
        self._free_since = {}           # slot -> monotonic seconds
        self._live = None               # threads that there are, looked up once a tick

    def of(self, ident, number, began):
        """The slot of a request that began then; None where there are SLOTS_MOST.  number: the server's, or None."""
        if number:
            if number > SLOTS_MOST:
                return None
            self._numbers.add(number)
            self.length = max(self.length, number)
            return number - 1
        if self._live is None:
            self._live = own.live_threads()
        slot = self._held.get(ident)
        if slot is None:
            slot = self._lane(began)
            if slot is not None:
                self._held[ident] = slot
        return slot

    def _lane(self, began):
        free, tried, found = self._free, [], None
        while free and found is None and len(tried) < LANES_TRIED:
            slot = heappop(free)
            if self._free_since[slot] <= began:
                found = slot
            else:
                tried.append(slot)
        for slot in tried:
            heappush(free, slot)
        if found is None and self.length < SLOTS_MOST:
            found = self.length
            self.length += 1
        return found

    def known(self, ident):
        """A thread's slot, None where it has none; in any thread."""
        return self._held.get(ident)

    @property
    def threads(self):
        """How many there were at once, at most."""
        return len(self._numbers) + len(self._held) + len(self._free)

    def ended(self, ident, now):
        """A request of this thread ended then: a thread that has gone leaves its slot."""
        if self._live is not None and ident not in self._live and ident in self._held:
            self._leave(ident, now)

    def _leave(self, ident, now):
        slot = self._held.pop(ident)
        self._free_since[slot] = now
        heappush(self._free, slot)

    def ticked(self, serving, now):
        """The tick is over; serving: the idents of requests that run."""
        if self._live is not None:
            for ident in [ident for ident in self._held if ident not in self._live and ident not in serving]:
                self._leave(ident, now)
            self._live = None


class Emitter:
    """Sends the standard records of the requests in `requests`.

    settings: telemetry_interval (seconds), threshold (seconds; 0: no slow requests), user_agents.  identity: {name: value} of
    _IDENTITY, switch_interval and threads_maximum, as far as known; read anew at each tick.  pauses: a Pauses, or None.
    number: of the agent; any but 0 is a further one of its process, and tells of its own requests alone.
    All but `finished` is called in the monitor's thread, or when that has ended.
    """

    def __init__(self, requests, send, settings, identity, number=0, pauses=None):
        self._requests, self._send, self._settings, self._identity = requests, send, settings, identity
        self._number, self._pauses = number, pauses
        self.errors = self.slow_lost = self.queue_lost = 0
        self.counted = 0                # requests that have ended
        self._queue = deque()
        self._slow = deque()            # what is told of each that has ended
        self._beyond = [itertools.count().__next__ for _ in _STATUSES]      # steps of C: no two threads get the same
        self._beyond_read = [0] * len(_STATUSES)
        self._places = _Places()
        self._charged = {}              # number of a running request -> until when its time has been added up
        self._told = set()              # of _TOTALS and "cpu": what the server has told once
        self._sums = None
        self._next = None
        self._reason = ""

    # --- in the request's thread ------------------------------------------------------------------

    def finished(self, request):
        """A request has ended.  Never raises."""
        try:
            seconds = request.ended - request.began
            if len(self._queue) < QUEUE_MOST:
                self._queue.append(_Ended(request))
            else:
                self._beyond[_status_class(request.status)]()
            if 0 < self._settings.threshold <= seconds and not is_ignored(request, self._settings):
                if len(self._slow) < SLOW_MOST:
                    self._slow.append(self._slow_fields(request, request.ended, len(self._requests.active) + 1))
                else:
                    self.slow_lost += 1
        except Exception:
            self.errors += 1

    # --- in the monitor's thread ------------------------------------------------------------------

    def started(self):
        """Tell that the process has started; ticks come from now on."""
        now = _monotonic()
        self._sums = _Sums(now, own.cpu_s())
        self._next = now + self._settings.telemetry_interval
        self._tell_life(PROCESS_STARTED, lambda: self._who() + self._switch())

    def due(self):
        """Monotonic seconds of the next tick; None before `started`."""
        return self._next

    def run(self, now):
        """The tick, when it is time.  Never raises."""
        if self._next is None or now < self._next:
            return
        interval = self._settings.telemetry_interval
        self._next += interval
        if self._next <= now:           # late by more than one: those in between are in this one
            self._next = now + interval
        self._tick(now)

    def stopping(self, reason=""):
        """Tell that the process is going to stop; reason: as mod_wsgi names it, "" where that is not known."""
        self._reason = reason
        self._tell_life(PROCESS_STOPPING, lambda: self._who(_PLACE) + [
            ("shutdown_reason", reason or None), ("active_requests_at_decision", len(self._requests.active))])

    def stopped(self):
        """The last tick, and that the process has stopped."""
        if self._sums is not None:
            self._tick(_monotonic())
        active = len(self._requests.active)
        self._tell_life(PROCESS_STOPPED, lambda: self._who(_PLACE) + [
            ("shutdown_reason", self._reason or None), ("process_uptime", own.uptime_s()),
            ("lifetime_request_count", self.counted), ("active_requests_at_exit", active),
            ("graceful_drain", None if active else 1)])

    def _tell_life(self, kind, told):
        """Send what `told()` says of the process, whose first agent alone speaks for it."""
        try:
            if not self._number:
                self._send(kind, _fields(told()))
        except Exception:
            self.errors += 1

    def _tick(self, now):
        try:
            sums, cpu = self._sums, own.cpu_s()
            self._add_up(now)
            if self._send(REQUEST_METRICS, _fields(self._metrics(sums, now, cpu))) or now - sums.began > HELD_S:
                self._sums = _Sums(now, cpu)
            self._tell_slow(now)
            if self._pauses is not None:
                self._pauses.tell()
        except Exception:
            self.errors += 1
            self._sums = _Sums(now, own.cpu_s())        # what cannot be told now cannot be told later

    # --- adding up ---------------------------------------------------------------------------------

    def _add_up(self, now):
        """Everything that ended since the last tick, and what runs, up to now."""
        sums, queue = self._sums, self._queue
        before = sums.count
        durations = {phase: [] for phase in _PHASES}
        for _ in range(len(queue)):
            self._add(sums, queue.popleft(), durations)
        for phase, seconds in durations.items():
            if seconds:
                sums.phases.setdefault(phase, _Phase()).add(seconds)
        for place, step in enumerate(self._beyond):
            steps = step()              # how often it was called before
            beyond = steps - self._beyond_read[place]
            self._beyond_read[place] = steps + 1
            sums.count += beyond
            sums.statuses[place] += beyond
            self.queue_lost += beyond
        self.counted += sums.count - before
        self._add_running(sums, now)

    def _add(self, sums, ended, durations):
        seconds = ended.ended - ended.began
        sums.count += 1
        sums.statuses[_status_class(ended.status)] += 1
        whole = seconds
        if ended.environ:
            for phase, told in zip(_BEFORE, ended.phases()):
                if told is not None:
                    durations[phase].append(told)
                    whole += told
        durations["application"].append(seconds)
        durations["request"].append(whole)
        if ended.input_s is not None:
            durations["input_read"].append(ended.input_s)
        if ended.output_s is not None:
            durations["output_write"].append(ended.output_s)
        if ended.totals is not None:
            for place, told in enumerate(ended.totals):
                if told is not None:
                    self._told.add(_TOTALS[place])
                    sums.totals[place] += told
        slot = self._charge(sums, ended, ended.ended, self._charged.pop(ended.number, ended.began))
        self._places.ended(ended.ident, ended.ended)
        if slot is not None:
            slot.completed += 1
            slot.longest_s = max(slot.longest_s, seconds)
            if ended.cpu_s is not None:
                self._told.add("cpu")
                slot.cpu_s += ended.cpu_s

    def _charge(self, sums, request, until, since):
        """Add the time of a request to its slot; the _Slot, or None where it has none."""
        busy_s = max(0.0, until - since)
        sums.busy_s += busy_s
        place = self._places.of(request.ident, _thread_number(request), request.began)
        if place is None:
            return None
        slot = sums.slot(place)
        slot.busy_s += busy_s
        return slot

    def _add_running(self, sums, now):
        charged = {}
        for slot in sums.slots.values():
            slot.elapsed_s = 0.0        # of a tick that was not sent
        running = list(self._requests.active.values())
        for request in running:
            until = max(request.began, now)
            slot = self._charge(sums, request, until, self._charged.get(request.number, request.began))
            charged[request.number] = until
            if slot is not None:
                slot.elapsed_s = max(slot.elapsed_s, until - request.began)
        for number, until in self._charged.items():
            if number not in charged and now - until < GONE_S:
                charged[number] = until         # it has ended, and is not in the queue yet
        self._charged = charged
        self._places.ticked({request.ident for request in running}, now)

    # --- what is told ------------------------------------------------------------------------------

    def _who(self, names=_IDENTITY):
        identity = {"python_version": _PYTHON, "hostname": own.hostname(), **self._identity}
        return [(name, _text(identity.get(name), NAME_MOST) or None) for name in names]

    def _switch(self):
        return [("switch_interval", self._identity.get("switch_interval") or sys.getswitchinterval())]

    def _metrics(self, sums, now, cpu):
        """[(name, value)] of a request_metrics record, None for what is not known."""
        period_s = max(0.0, now - sums.began)
        settings, first, maximum = self._settings, not self._number, self._identity.get("threads_maximum")
        out = self._who()
        if first:
            out += [("sample_period", period_s)]
        out += [("telemetry_interval", settings.telemetry_interval), ("slow_requests_threshold", settings.threshold)]
        out += self._switch() + [("request_count", sums.count)]
        if first and period_s > 0:
            out += [("request_throughput", sums.count / period_s),
                    ("capacity_utilization", sums.busy_s / (maximum * period_s) if maximum else None)]
            user, system = (max(0.0, after - before) / period_s for before, after in zip(sums.cpu, cpu))
            out += [("cpu_user_utilization", user), ("cpu_system_utilization", system), ("cpu_utilization", user + system)]
        elif maximum and not first:     # of the process's threads, in an interval: its period is told by the first agent alone
            out += [("capacity_utilization", sums.busy_s / (maximum * settings.telemetry_interval))]
        if first:
            out += [("memory_rss", own.rss_bytes()), ("memory_max_rss", own.max_rss_bytes()),
                    ("request_threads_maximum", maximum), ("request_threads_started", self._places.threads),
                    ("request_threads_active", sum(1 for slot in sums.slots.values() if slot.busy_s or slot.completed))]
        for phase in _PHASES:
            held = sums.phases.get(phase)
            if held is not None:
                out += [(f"{phase}_time", held.total / held.count), (f"{phase}_time_min", held.low),
                        (f"{phase}_time_max", held.high), (f"{phase}_time_buckets", held.row)]
            elif phase in _ALWAYS:
                out += [(f"{phase}_time", 0.0), (f"{phase}_time_buckets", [0] * BUCKETS)]
        out += [(f"{name}_total", sums.totals[place]) for place, name in enumerate(_TOTALS) if name in self._told]
        out += [(f"status_{name}_total", sums.statuses[place]) for place, name in enumerate(_STATUSES)]
        length = min(SLOTS_MOST, max(self._places.length, maximum or 0))
        return out + self._slots(sums, length) if first and length else out

    def _slots(self, sums, length):
        nothing = _Slot()
        slots = [sums.slots.get(number, nothing) for number in range(length)]
        return [("request_threads_completed", [slot.completed for slot in slots]),
                ("request_threads_busy_time", [slot.busy_s for slot in slots]),
                ("request_threads_cpu_time", [slot.cpu_s for slot in slots] if "cpu" in self._told else None),
                ("request_threads_current_elapsed", [slot.elapsed_s for slot in slots]),
                ("request_threads_max_duration", [slot.longest_s for slot in slots])]

    def _tell_slow(self, now):
        while self._slow:
            if not self._send(SLOW_REQUEST, _fields(self._slow[0].items())):
                return                  # again at the next tick
            self._slow.popleft()
        threshold = self._settings.threshold
        if not threshold > 0:
            return
        told = 0
        for request in list(self._requests.active.values()):
            if now - request.began < threshold or told == ACTIVE_MOST:
                break                   # those behind it began later
            fields = self._slow_fields(request, now)
            if request.ended is None and not is_ignored(request, self._settings):       # else its completed record follows
                self._send(SLOW_REQUEST, _fields(fields.items()))
                told += 1

    def _slow_fields(self, request, now, in_flight=None):
        fields = slow_fields(request, now, self._settings.user_agents, in_flight)
        if fields["slow_thread_id"] is None:
            slot = self._places.known(request.ident)
            fields["slow_thread_id"] = None if slot is None else slot + 1
        return fields


def is_ignored(request, settings):
    """Whether a long request is left alone: by its path, or by a function that a stack of it had."""
    return settings.ignore is not None and settings.ignore.match(request.path) or request.watch is not None and request.watch.ignored


def slow_fields(request, now, user_agents=False, in_flight=None):
    """{field: value} of a Request as slow_request tells it, None for what is not known.

    Texts are bytes.  user_agents: whether to tell the client's.  in_flight: requests at its end, itself included.
    """
    environ = request.environ
    server_s, queue_s, daemon_s = request.phases()
    seconds = request.duration_s(now)
    return {
        "slow_record_state": int(request.ended is not None), "slow_start_stamp": request.began_wall, "slow_duration": seconds,
        "slow_thread_id": _thread_number(request), "slow_log_id": request.log_id.encode("utf-8", "replace")[:TEXT_MOST],
        "slow_server_pid": request.server_pid,
        "slow_method": _raw(environ.get("REQUEST_METHOD"), 32), "slow_scheme": _raw(environ.get("wsgi.url_scheme"), 32),
        "slow_hostname": _host(environ), "slow_script_name": _raw(environ.get("SCRIPT_NAME"), PATH_MOST),
        "slow_path_info": _raw(environ.get("PATH_INFO"), PATH_MOST), "slow_protocol": _raw(environ.get("SERVER_PROTOCOL"), 32),
        "slow_peer_ip": _raw(environ.get("REMOTE_ADDR"), TEXT_MOST),
        "slow_user_agent": _raw(environ.get("HTTP_USER_AGENT"), PATH_MOST) if user_agents else None,
        "slow_server_time": server_s, "slow_queue_time": queue_s, "slow_daemon_time": daemon_s, "slow_application_time": seconds,
        "slow_input_bytes": request.input_bytes, "slow_input_reads": request.input_reads,
        "slow_output_bytes": request.output_bytes, "slow_output_writes": request.output_writes,
        "slow_input_read_time": request.input_s, "slow_output_write_time": request.output_s,
        "slow_status": request.status, "slow_cpu_user_time": request.cpu_user_s, "slow_cpu_system_time": request.cpu_system_s,
        "slow_active_at_start": request.active_at_start or None, "slow_active_at_completion": in_flight}


def _fields(pairs):
    """Those that are known, as wire.codec.encode takes them."""
    return named(**{name: value for name, value in pairs if value is not None})


def _status_class(status):
    """The place in _STATUSES; what is no HTTP status counts as 5xx, as mod_wsgi does."""
    return status // 100 - 1 if type(status) is int and 100 <= status < 600 else 4


def _thread_number(request):
    """The server's number of the thread, from 1, or None: mod_wsgi's, or uWSGI's core."""
    number = request.thread_id
    if number is None:
        core = request.environ.get("uwsgi.core")
        if type(core) is int and 0 <= core < SLOTS_MOST:
            number = core + 1
    return number


def _text(value, most):
    return value.encode("utf-8", "replace")[:most] if isinstance(value, str) else value


def _raw(value, most):
    """A text of environ (latin-1, as WSGI has it) as the bytes that it stands for; None for no or an empty text."""
    if type(value) is not str or not value:
        return None
    try:
        raw = value.encode("latin-1")
    except UnicodeError:
        raw = value.encode("utf-8", "replace")
    return raw if len(raw) <= most else raw[:most - 3] + b"..."


def _host(environ):
    """The host that was asked for, without its port."""
    raw = _raw(environ.get("HTTP_HOST"), TEXT_MOST) or _raw(environ.get("SERVER_NAME"), TEXT_MOST)
    if raw is None:
        return None
    host, _, port = raw.rpartition(b":")
    return host if host and port.isdigit() else raw
