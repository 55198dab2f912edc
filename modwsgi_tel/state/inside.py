"""What agents in the applications tell: the records of the private kinds, kept by process, and added up over all.

    agent = inside.meet(fleet, process, number, now)                            # a datagram of this agent came
    inside.begin_again(fleet, process, agent, now, wall)                        # its count starts over: it was restarted
    inside.take(fleet, key, process, agent, shape, datagram, now, wall)         # fold one record
    inside.expire(fleet, now, wall)                                             # time happened
    inside.leave(fleet, process)                                                # the process is forgotten

Counters in these records are cumulative: what is added up here are their differences, so that they outlive processes.
Whatever a record holds, nothing is raised: what is nonsense is left out and counted as odd.
"""
from array import array
from collections import Counter, OrderedDict

from modwsgi_tel.bounded import FairMap
from modwsgi_tel.stacks.model import RUNNING, UNKNOWN, WAITING, DISK, STOPPED, Frame, Request, Stacks, ThreadStack, frame_json
from modwsgi_tel.state.process import REPORTER
from modwsgi_tel.state.taken import place
from modwsgi_tel.state.watched import FRAMES_MOST, NOWHERE, Pivots, Stack, Waits, Watch, cost
from modwsgi_tel.wire.buckets import BUCKETS, percentiles
from modwsgi_tel.wire.codec import decode, encode, named
from modwsgi_tel.wire.fields import (AGENT_STATE, APPLICATION_EXCEPTION, BY_NAME, CODE_LOCATIONS, LONG_REQUEST, LOOP_LATENESS,
                                     MEMORY_GROWTH, OPERATION_TIMER, REQUEST_STACK, TEXT, THREAD_STACK)
from modwsgi_tel.wire.shapes import HEADER

AGENTS_MOST = 4096                      # of all processes
NUMBERS_MOST = 16                       # agents of one process
LOCATIONS_MOST = 16384                  # of one process
TEXTS_MOST = 8192                       # that are kept but once
BYTES_MOST = 64 << 20                   # of what agents told, over all processes
PLACES_MOST, TIMERS_MOST, LOOPS_MOST = 512, 256, 32         # of one agent
LINES_MOST = 50                         # of a look at memory
EXCEPTIONS_MOST, EXCEPTION_BYTES, EXCEPTION_FRAMES = 1000, 8 << 20, 64
PROCESSES_MOST = 64                     # of one exception that are told apart
RAISED_S, STAMP_S = 30 * 86400.0, 3600.0    # an exception that is older, a datagram that was longer under way, is nonsense
NAMES_MOST = 1000                       # timers over all processes
ANNOTATIONS_MOST = 32
DUMPS_MOST, DUMP_BYTES, DUMP_S = 64, 16 << 20, 2.0          # dumps that are being put together
THREADS_MOST = 1024
REPORTER_S, REPORTER_INTERVALS = 10.0, 5                    # mod_wsgi's own reporter is alive that was heard so lately
TEXT_MOST, NAME_MOST, FILE_MOST, SAID_MOST, VALUES_MOST = 255, 127, 1024, 512, 16384
NUMBER_MOST, SECONDS_MOST, BYTES_SAID_MOST = 1 << 53, 1e12, 1e18
PROBLEMS_MOST, SUMMARY_ROWS = 8, 5

_LOG_ID = BY_NAME["slow_log_id"].id
_STATES = frozenset((RUNNING, WAITING, DISK, STOPPED))
_STATE_NUMBERS = tuple(name for name in BY_NAME if BY_NAME[name].kinds == (AGENT_STATE,) and BY_NAME[name].type != TEXT)
_STATE_TEXTS = ("interpreter_name", *(name for name in BY_NAME if BY_NAME[name].kinds == (AGENT_STATE,) and BY_NAME[name].type == TEXT))


class Agent:
    """One agent: what it told last, and its cumulative counters as they were then."""

    __slots__ = ("number", "process_id", "uid", "owner", "heard_now", "state", "state_now", "locations", "bytes", "location_bytes", "places",
                 "places_lost", "timers", "timers_lost", "loops", "memory", "dumped", "watches")

    def __init__(self, number, process, owner, now):
        self.number, self.process_id, self.uid, self.owner, self.heard_now = number, process.id, process.who.uid, owner, now
        self.clear()

    def clear(self):
        self.state, self.state_now = {}, None
        self.locations = {}             # number -> (function, file, line)
        self.bytes = self.location_bytes = 0
        self.places = {}                # number -> [key of its Raised, count]
        self.timers = {}                # name -> Timer
        self.loops = {}                 # name -> Loop
        self.places_lost = self.timers_lost = 0
        self.memory = None              # (now, the newest look at memory as JSON carries it)
        self.dumped = 0                 # number of the newest dump that is done
        self.watches = {}               # key -> Watch of requests whose frames are this agent's numbers


class Agents:
    """The agents of one process.  numbers: theirs.  states: {number: fields of its newest agent_state}."""

    __slots__ = ("by_number", "odd", "unknown", "exceptions", "lost", "evicted", "dropped", "locations_lost", "_reporter")

    def __init__(self):
        self.by_number = {}
        self.odd = 0                    # values that were nonsense
        self.unknown = 0                # frames of locations that were not told
        self.exceptions = 0
        self.lost = 0                   # datagrams, of counts that are forgotten
        self.evicted = 0                # agents that went for want of room
        self.dropped = 0                # standard records that mod_wsgi's own reporter tells better
        self.locations_lost = 0
        self._reporter = 0, 0.0

    @property
    def numbers(self):
        return set(self.by_number)

    @property
    def states(self):
        return {number: agent.state for number, agent in self.by_number.items() if agent.state_now is not None}

    def beside_reporter(self, process, now):
        """Whether mod_wsgi's own reporter tells of this process, and was heard lately."""
        reporter = process.sources.get(REPORTER)
        if reporter is None:
            return False
        if reporter.received != self._reporter[0]:
            self._reporter = reporter.received, now
        return now - self._reporter[1] <= max(REPORTER_S, REPORTER_INTERVALS * process.interval)

    def amount(self, fields, name, most=SECONDS_MOST):
        """A number from 0 up to `most`; None where it is absent, or odd."""
        value = fields.get(name)
        if value is None or 0 <= value < most:
            return value
        self.odd += 1
        return None

    def whole(self, fields, name):
        return self.amount(fields, name, NUMBER_MOST)


class Timer:
    """An operation: cumulative, of one agent, or over all of them."""

    __slots__ = ("count", "seconds", "longest", "errors", "buckets")

    def __init__(self):
        self.count = self.errors = 0
        self.seconds = self.longest = 0.0
        self.buckets = None             # an array of BUCKETS

    def add(self, before, after):
        """Add what is between two of an agent's."""
        self.count += max(0, after.count - before.count)
        self.errors += max(0, after.errors - before.errors)
        self.seconds += max(0.0, after.seconds - before.seconds)
        self.longest = max(self.longest, after.longest)
        if after.buckets is not None:
            old = before.buckets or bytes(BUCKETS)
            self.buckets = array("q", (held + max(0, new - was) for held, new, was in zip(self.buckets or bytes(BUCKETS), after.buckets, old)))

    def view(self, name):
        p50, p95, p99 = percentiles(self.buckets or (), longest_s=self.longest or None)
        return {"name": name, "count": self.count, "seconds": self.seconds, "mean": self.seconds / self.count if self.count else None,
                "p50": p50, "p95": p95, "p99": p99, "max": self.longest if self.count else None, "errors": self.errors}


class Loop:
    """An event loop of one agent, or all: how often and long it was held; last: (now, duration, frames, problem) of the newest time."""

    __slots__ = ("count", "seconds", "longest", "limit", "last")

    def __init__(self):
        self.count, self.seconds, self.longest, self.limit, self.last = 0, 0.0, 0.0, None, None


class Raised:
    """Exceptions of one type that came out at one place, over the processes of a group.

    first_wall, last_wall: between these they were, as far as it was told; heard_wall: when the newest was told of."""

    __slots__ = ("key", "number", "agent", "count", "path", "method", "request_id", "text", "pids", "first_wall", "last_wall",
                 "heard_wall", "bytes")

    def __init__(self, key, number, agent, wall):
        self.key, self.number, self.agent, self.count = key, number, agent, 0
        self.path = self.method = self.request_id = self.text = None
        self.pids = {}                  # process's id -> (pid, sender's pid)
        self.first_wall = self.last_wall = self.heard_wall = wall
        self.bytes = 1000 + sum(map(cost, key[2]))

    group = property(lambda self: self.key[0])
    type = property(lambda self: self.key[1])

    def view(self):
        inner = [Frame(*location, self.agent) for location in reversed(self.key[2])]
        return {"id": self.number, "type": self.type, "place": place(inner) if inner else "?", "frames": [frame_json(frame) for frame in inner],
                "count": self.count, "path": self.path, "method": self.method, "request_id": self.request_id, "text": self.text,
                "process_group": self.group, "processes": len(self.pids), "first": self.first_wall, "last": self.last_wall,
                "received": self.heard_wall}

    def brief(self):
        return {name: value for name, value in self.view().items() if name in ("id", "type", "place", "count", "path", "process_group", "last")}


class _Dump:
    """The stacks of all threads, as they come in: one datagram for each."""

    __slots__ = ("process_id", "began_now", "reason", "stamp", "expected", "records", "bytes")

    def __init__(self, process, now):
        self.process_id, self.began_now = process.id, now
        self.reason, self.stamp, self.expected = "", None, None
        self.records = []               # fields
        self.bytes = 0


class Inside:
    """All agents."""

    def __init__(self):
        self.agents = FairMap(AGENTS_MOST, keep=lambda agent: agent.watches)
        self.bytes = 0                  # of what they told
        self.pivots = Pivots()
        self.exceptions = FairMap(EXCEPTIONS_MOST)      # (group, type, frames) -> Raised
        self.exception_bytes = 0
        self.exceptions_counted = self.exceptions_lost = self.places_seen = 0
        self.timers = {}                # name -> Timer
        self.timers_lost = 0            # operations under names beyond a bound
        self.lateness = Loop()
        self.lost = self.errors = 0     # that agents counted
        self.locations_evicted = self.dumps_cut = 0
        self._dumps = OrderedDict()     # (process's id, agent, number) -> _Dump
        self._dump_bytes = 0
        self._texts = {}                # names of files and functions: the same in all processes of a group
        self._take = {AGENT_STATE: self._state, LONG_REQUEST: self._long_request, REQUEST_STACK: self._request_stack,
                      CODE_LOCATIONS: self._code_locations, APPLICATION_EXCEPTION: self._exception, OPERATION_TIMER: self._timer,
                      LOOP_LATENESS: self._lateness, THREAD_STACK: self._thread_stack, MEMORY_GROWTH: self._memory}

    # --- who tells ------------------------------------------------------------------------

    def meet(self, fleet, process, number, now):
        """The Agent of this number, made when it is new; of too many in one process the one unheard longest goes."""
        if process.agents is None:
            process.agents = Agents()
        agents = process.agents
        agent = agents.by_number.get(number)
        if agent is None:
            while len(agents.by_number) >= NUMBERS_MOST:
                oldest = min(agents.by_number.values(), key=lambda each: each.heard_now)
                self._forget(fleet, process, oldest)
                agents.evicted += 1
            agent = Agent(number, process, agents, now)
            for gone in self.agents.put((process.id, number), (process.who.uid, process.id), agent):
                self._forget(fleet, fleet.process(gone.process_id), gone)
                gone.owner.evicted += 1
            agents.by_number[number] = agent
        agent.heard_now = now
        return agent

    def begin_again(self, fleet, process, agent, now, wall):
        """An agent starts its count over: it was restarted, and so were its numbers and counters."""
        for name in [name for name in self._dumps if name[:2] == (process.id, agent.number)]:
            self._finish(fleet, name, now, wall)
        self._unlink(fleet, agent)
        agent.clear()
        sequence = process.sources.pop(source_name(agent.number), None)
        if sequence is not None:
            process.agents.lost += sequence.lost

    def leave(self, fleet, process):
        """The process is forgotten."""
        if process.agents is not None:
            for agent in list(process.agents.by_number.values()):
                self._forget(fleet, process, agent)

    def _forget(self, fleet, process, agent):
        self._unlink(fleet, agent)
        self.agents.pop((agent.process_id, agent.number))
        agent.owner.by_number.pop(agent.number, None)
        sequence = process and process.sources.pop(source_name(agent.number), None)
        if sequence is not None:
            agent.owner.lost += sequence.lost

    def _unlink(self, fleet, agent):
        """What others hold of an agent's numbers is made independent of it."""
        for watch in list(agent.watches.values()):
            watch.release()
            fleet.slow.reweigh(watch.key)
        self.bytes -= agent.bytes
        agent.bytes = agent.location_bytes = 0

    # --- a record came --------------------------------------------------------------------

    def take(self, fleet, key, process, agent, shape, datagram, now, wall):
        """Fold a record of a private kind in."""
        handler = self._take.get(datagram[5])
        if handler is not None:
            handler(fleet, key, process, agent, shape, datagram, now, wall)

    def _room(self, fleet, agent, size):
        """Count bytes of an agent; False when there is no room.  Locations of who has most make room."""
        while self.bytes + size > BYTES_MOST:
            held = Counter()
            for each in self.agents.values():
                held[each.uid] += each.location_bytes
            uid, most = max(held.items(), key=lambda item: item[1])
            if not most:
                return False
            heaviest = max((each for each in self.agents.values() if each.uid == uid), key=lambda each: each.location_bytes)
            self._drop_locations(fleet, heaviest)
        self.bytes += size
        agent.bytes += size
        return True

    def _drop_locations(self, fleet, agent):
        for watch in list(agent.watches.values()):
            watch.release()
            fleet.slow.reweigh(watch.key)
        self.locations_evicted += len(agent.locations)
        self.bytes -= agent.location_bytes
        agent.bytes -= agent.location_bytes
        agent.location_bytes = 0
        agent.locations = {}

    def _state(self, fleet, key, process, agent, shape, datagram, now, wall):
        fields, agents, before = shape.fields(datagram), agent.owner, agent.state
        state = {name: fields[name][:SAID_MOST] for name in _STATE_TEXTS if name in fields}
        for name in _STATE_NUMBERS:
            value = agents.amount(fields, name, NUMBER_MOST)
            if value is not None:
                state[name] = value
        self.lost += max(0, state.get("agent_lost", 0) - before.get("agent_lost", 0))
        self.errors += max(0, state.get("agent_errors", 0) - before.get("agent_errors", 0))
        agent.state, agent.state_now = state, now

    def _code_locations(self, fleet, key, process, agent, shape, datagram, now, wall):
        fields, agents = shape.fields(datagram), agent.owner
        first, lines = fields.get("location_first", 0), fields.get("location_lines", ())
        texts = fields.get("location_texts", "").split("\0")
        if not 0 < first < (1 << 31) - len(lines) or len(texts) < 2 * len(lines):
            agents.odd += 1
            return
        room = LOCATIONS_MOST - sum(len(each.locations) for each in agents.by_number.values())
        for number, line, function, file in zip(range(first, first + len(lines)), lines, texts[0::2], texts[1::2]):
            if line < 0:
                agents.odd += 1
            location = self._text(function[:TEXT_MOST]), self._text(file[:FILE_MOST]), line if line > 0 else None
            before = agent.locations.get(number)
            if before == location:
                continue
            if before is None and room <= 0 or not self._room(fleet, agent, cost(location)):
                agents.locations_lost += 1
                continue
            room -= before is None
            if number in agent.locations:       # what made room may have been its own
                self.bytes -= cost(before)
                agent.bytes -= cost(before)
                agent.location_bytes -= cost(before)
            agent.location_bytes += cost(location)
            agent.locations[number] = location

    def _text(self, text):
        """The same text for the same text."""
        if len(self._texts) > TEXTS_MOST:
            self._texts.clear()
        return self._texts.setdefault(text, text)

    def _located(self, agent, numbers):
        """[(function, file, line)] of location numbers; those that were not told are counted."""
        found = [agent.locations.get(number, NOWHERE) for number in numbers]
        agent.owner.unknown += sum(location is NOWHERE for location in found)
        return found

    def _frames(self, agent, fields, name="stack_frames"):
        """Location numbers of a field, None for too many."""
        found = fields.get(name, ())
        if len(found) > FRAMES_MOST:
            agent.owner.odd += 1
            return None
        return list(found)

    # --- long requests --------------------------------------------------------------------

    def _long_request(self, fleet, key, process, agent, shape, datagram, now, wall):
        fields, agents = shape.fields(datagram), agent.owner
        fleet.slow_record(key, process, shape, datagram, now, wall)
        log_id = _raw(shape, datagram, _LOG_ID)
        if not log_id or key + log_id not in fleet.slow:
            agents.odd += not log_id
            return
        watch = self._watch(fleet, process, agent, key + log_id)
        if watch.done or watch.number != agent.number:
            return
        if "request_annotations" in fields:
            watch.annotations = _pairs(fields["request_annotations"])
        watch.exception = fields.get("request_exception", watch.exception or "")[:TEXT_MOST] or None
        watch.stacks = max(watch.stacks, min(agents.whole(fields, "request_stacks") or 0, 1 << 31))
        self.pivots.told(watch, (fields.get("slow_script_name", "") + fields.get("slow_path_info", ""))[:SAID_MOST])
        seconds = agents.amount(fields, "slow_duration", 1e9)
        if seconds is not None:
            watch.elapsed_s = max(watch.elapsed_s, seconds)
            self.pivots.charge(watch, now)
        if fields.get("slow_record_state"):
            watch.done = True
            watch.release()
        watch.weigh()
        fleet.slow.weigh(key + log_id, watch, now, wall)

    def _watch(self, fleet, process, agent, key):
        """The Watch that an agent's record is about."""
        return fleet.slow.watch(key) or Watch(agent, key, process.group[1])

    def _request_stack(self, fleet, key, process, agent, shape, datagram, now, wall):
        fields, agents = shape.fields(datagram), agent.owner
        log_id = _raw(shape, datagram, _LOG_ID)
        number, elapsed_s = agents.amount(fields, "stack_number", 1 << 31), agents.amount(fields, "stack_elapsed", 1e9)
        inner, pivot = self._frames(agent, fields), self._frames(agent, fields, "stack_pivot")
        if not log_id or not number or elapsed_s is None or inner is None or pivot is None:
            agents.odd += not log_id or number == 0
            return
        if key + log_id not in fleet.slow:
            self._stand_in(fleet, key, process, datagram, log_id, elapsed_s, now, wall)
            if key + log_id not in fleet.slow:
                return
        watch = self._watch(fleet, process, agent, key + log_id)
        if watch.agent is not agent or number <= watch.newest:
            return                      # it is over, or this one came late
        changed = "stack_pivot" in fields and pivot != watch.pivot
        if changed:
            watch.pivot = pivot
        watch.add(self._stack(agents, watch, fields, number, elapsed_s, inner), fields.get("stack_values", "")[:VALUES_MOST])
        if changed:
            self.pivots.move(watch, self._located(agent, pivot))
        stack = watch.history[-1] if watch.history else watch.first
        agents.unknown += sum(number not in agent.locations for number in inner)
        self.pivots.charge(watch, now)
        owner = key + stack.waits.owner_request.encode() if stack.waits and stack.waits.owner_request else None
        self.pivots.note(watch, stack, owner, fleet.slow)
        fleet.slow.weigh(key + log_id, watch, now, wall)

    @staticmethod
    def _stack(agents, watch, fields, number, elapsed_s, inner):
        shared = agents.amount(fields, "stack_shared", 1 << 31) or 0
        outer = (watch.pivot or [])[:shared]
        left_out, cut_at = min(agents.whole(fields, "stack_left_out") or 0, 1 << 31), agents.whole(fields, "stack_cut_at") or 0
        cut_at = len(outer) + min(cut_at, len(inner))
        problem = fields.get("stack_problem", "")[:TEXT_MOST] or None
        missing = shared - len(outer)
        if missing and watch.pivot is None:
            left_out, cut_at, problem = left_out + missing, 0, problem or f"{missing} outer frames were told before this collector came"
        elif missing:
            agents.odd += 1
        waits = fields.get("stack_waits", "")[:NAME_MOST]
        return Stack(number, elapsed_s, array("i", outer + inner).tobytes(), len(outer), left_out, cut_at,
                     fields.get("stack_state", "")[:NAME_MOST], agents.amount(fields, "stack_cpu"),
                     Waits(waits, agents.whole(fields, "stack_owner_tid") or None, fields.get("stack_owner_log_id", "")[:NAME_MOST] or None)
                     if waits else None, agents.whole(fields, "stack_tid") or None, fields.get("stack_thread", "")[:NAME_MOST], problem)

    @staticmethod
    def _stand_in(fleet, key, process, datagram, log_id, elapsed_s, now, wall):
        """A stack of a request whose first record did not come: a record with what the stack tells."""
        sample = decode(datagram)
        made = decode(encode(LONG_REQUEST, sample.pid, sample.seq, sample.stamp, named(
            slow_record_state=0, slow_start_stamp=sample.stamp - elapsed_s, slow_duration=elapsed_s, slow_log_id=log_id), sample.flags))
        fleet.slow_record(key, process, made.shape, made.datagram, now, wall)

    # --- exceptions -----------------------------------------------------------------------

    def _exception(self, fleet, key, process, agent, shape, datagram, now, wall):
        fields, agents = shape.fields(datagram), agent.owner
        lost = agents.whole(fields, "exception_places_lost")
        if lost is not None:
            self._count_exceptions(agents, max(0, lost - agent.places_lost))
            self.exceptions_lost += max(0, lost - agent.places_lost)
            agent.places_lost = max(lost, agent.places_lost)
        number, count = agents.amount(fields, "exception_place", 1 << 31), agents.whole(fields, "exception_count")
        frames = self._frames(agent, fields, "exception_frames")
        if number is None or count is None or frames is None:
            agents.odd += ("exception_place" in fields) != ("exception_count" in fields)
            return
        known = agent.places.get(number)
        if "exception_type" in fields:
            name = process.group[1], fields["exception_type"][:TEXT_MOST], tuple(self._located(agent, frames[-EXCEPTION_FRAMES:]))
        elif known is not None:
            name = known[0]
        else:
            agents.odd += 1
            return
        if known is None or known[0] != name:
            if known is None and (len(agent.places) >= PLACES_MOST or not self._room(fleet, agent, 300)):
                self.exceptions_lost += count
                self._count_exceptions(agents, count)
                return
            known = agent.places[number] = [name, known[1] if known is not None and known[0][1] == name[1] else 0]
        more = max(0, count - known[1])
        known[1] = max(count, known[1])
        self._count_exceptions(agents, more)
        at = _raised_at(agents, fields, datagram, wall)
        row = self._raised(name, process, agent, at)
        row.count += more
        if more:
            row.first_wall, row.last_wall, row.heard_wall = min(row.first_wall, at), max(row.last_wall, at), wall
        row.path = (fields.get("slow_script_name", "") + fields.get("slow_path_info", ""))[:SAID_MOST] or row.path
        row.method = fields.get("slow_method", "")[:32] or row.method
        row.request_id = fields.get("slow_log_id", "")[:NAME_MOST] or row.request_id
        row.text = fields.get("exception_text", "")[:SAID_MOST] or row.text
        if process.id in row.pids or len(row.pids) < PROCESSES_MOST:
            row.pids[process.id] = process.pid, process.who.sender_pid

    def _count_exceptions(self, agents, more):
        self.exceptions_counted += more
        agents.exceptions += more

    def _raised(self, name, process, agent, wall):
        row = self.exceptions.get(name)
        if row is None:
            self.places_seen += 1
            row = Raised(name, self.places_seen, agent.number, wall)
            gone = self.exceptions.put(name, (process.who.uid, process.group), row)
            self.exception_bytes += row.bytes
            while self.exception_bytes - sum(each.bytes for each in gone) > EXCEPTION_BYTES and len(self.exceptions) > 1:
                gone.append(self.exceptions.evict())
            self.exception_bytes -= sum(each.bytes for each in gone)
        return row

    # --- measurements ---------------------------------------------------------------------

    def _timer(self, fleet, key, process, agent, shape, datagram, now, wall):
        fields, agents = shape.fields(datagram), agent.owner
        lost = agents.whole(fields, "timer_names_lost")
        if lost is not None:
            self.timers_lost += max(0, lost - agent.timers_lost)
            agent.timers_lost = max(lost, agent.timers_lost)
        name, told = fields.get("timer_name", "")[:NAME_MOST], Timer()
        told.count, told.seconds = agents.whole(fields, "timer_count"), agents.amount(fields, "timer_seconds")
        if not name or told.count is None or told.seconds is None:
            agents.odd += "timer_name" in fields
            return
        before = agent.timers.get(name)
        if before is None:
            if len(agent.timers) >= TIMERS_MOST or not self._room(fleet, agent, 900):
                self.timers_lost += told.count
                return
            before = Timer()
        elif told.count < before.count:
            return                      # an older one that came late
        told.errors = agents.whole(fields, "timer_errors") or 0
        told.longest = agents.amount(fields, "timer_max") or 0.0
        buckets = fields.get("timer_buckets")
        if buckets is not None:
            if len(buckets) == BUCKETS and min(buckets) >= 0:
                told.buckets = array("q", buckets)
            else:
                agents.odd += 1
        agent.timers[name] = told
        if name in self.timers or len(self.timers) < NAMES_MOST:
            self.timers.setdefault(name, Timer()).add(before, told)
        else:
            self.timers_lost += told.count - before.count

    def _lateness(self, fleet, key, process, agent, shape, datagram, now, wall):
        fields, agents = shape.fields(datagram), agent.owner
        name, frames = fields.get("loop_name", "")[:NAME_MOST], self._frames(agent, fields)
        count, seconds = agents.whole(fields, "loop_late_count"), agents.amount(fields, "loop_late_seconds")
        if not name or count is None or seconds is None or frames is None:
            agents.odd += not name
            return
        loop = agent.loops.get(name)
        if loop is None:
            if len(agent.loops) >= LOOPS_MOST or not self._room(fleet, agent, 20000):
                agents.odd += 1
                return
            loop = agent.loops[name] = Loop()
        if count < loop.count:
            return                      # an older one that came late
        longest = agents.amount(fields, "loop_late_max") or 0.0
        self.lateness.count += count - loop.count
        self.lateness.seconds += max(0.0, seconds - loop.seconds)
        self.lateness.longest = max(self.lateness.longest, longest)
        loop.count, loop.seconds, loop.longest = count, max(seconds, loop.seconds), max(longest, loop.longest)
        loop.limit = agents.amount(fields, "loop_limit")
        duration = agents.amount(fields, "loop_duration")
        if duration is not None:
            told = self._told_frames(agent, frames[-100:])
            loop.last = now, duration, told, fields.get("stack_problem", "")[:TEXT_MOST] or None

    def _told_frames(self, agent, numbers):
        """Frames, innermost first."""
        return tuple(Frame(*location, agent.number) for location in reversed(self._located(agent, numbers)))

    def _memory(self, fleet, key, process, agent, shape, datagram, now, wall):
        fields, agents = shape.fields(datagram), agent.owner
        if agent.memory is None and not self._room(fleet, agent, 20000):
            return
        rows = [fields.get(f"memory_{name}", ()) for name in ("locations", "growth", "held", "blocks")]
        agents.odd += len(set(map(len, rows))) > 1
        lines = []
        for number, growth, held, blocks in list(zip(*rows))[:LINES_MOST]:
            if abs(growth) < BYTES_SAID_MOST and 0 <= held < BYTES_SAID_MOST:
                function, file, line = self._located(agent, (number,))[0]
                lines.append({"file": file, "line": line, "function": function, "growth": growth, "held": held, "blocks": blocks})
            else:
                agents.odd += 1
        told = {name: agents.amount(fields, f"memory_{name}", BYTES_SAID_MOST) for name in ("seconds", "traced", "peak", "overhead")}
        agent.memory = now, {"state": fields.get("memory_state", "")[:NAME_MOST], **told, "lines": lines}

    # --- dumps of all threads -------------------------------------------------------------

    def _thread_stack(self, fleet, key, process, agent, shape, datagram, now, wall):
        fields, agents = shape.fields(datagram), agent.owner
        number, frames = agents.whole(fields, "dump_number"), self._frames(agent, fields)
        if number is None or frames is None:
            agents.odd += "dump_number" not in fields
            return
        name = process.id, agent.number, number
        dump = self._dumps.get(name)
        if number <= agent.dumped:
            return                      # it is shown already, without this one
        if dump is None:
            dump = self._dumps[name] = _Dump(process, now)
            dump.reason = fields.get("dump_reason", "")[:NAME_MOST]
            dump.stamp = agents.amount(fields, "dump_stamp")
            dump.expected = agents.whole(fields, "dump_threads")
        dump.records.append((self._told_frames(agent, frames), {each: value for each, value in fields.items() if each != "stack_values"}))
        size = 4 * len(datagram) + 1000
        dump.bytes += size
        self._dump_bytes += size
        if len(dump.records) >= min(dump.expected or THREADS_MOST, THREADS_MOST):
            self._finish(fleet, name, now, wall)
        while len(self._dumps) > DUMPS_MOST or self._dump_bytes > DUMP_BYTES:
            self.dumps_cut += 1
            self._finish(fleet, next(iter(self._dumps)), now, wall)

    def expire(self, fleet, now, wall):
        """Dumps whose threads did not all come within DUMP_S are shown as they are."""
        for name in [name for name, dump in self._dumps.items() if now - dump.began_now >= DUMP_S]:
            self._finish(fleet, name, now, wall)

    def _finish(self, fleet, name, now, wall):
        dump = self._dumps.pop(name)
        self._dump_bytes -= dump.bytes
        process = fleet.process(dump.process_id)
        if process is None:
            return
        agent = process.agents.by_number.get(name[1])
        if agent is not None:
            agent.dumped = max(agent.dumped, name[2])
        outside = process.checkable and process.pid != process.who.sender_pid
        missing = (dump.expected or len(dump.records)) - len(dump.records)
        problem = f"{missing} of {dump.expected} threads did not arrive" if missing > 0 else None
        stacks = Stacks(process.who.sender_pid if outside else process.pid, process.pid if outside else None, process.trust.start, "", process.texts["python_version"], (name[1],),
                        tuple(_thread(process.agents, name[1], frames, fields) for frames, fields in dump.records), problem,
                        wall if dump.stamp is None else dump.stamp)
        fleet.taken.told(process, f"agent: {dump.reason}" if dump.reason else "agent", stacks, now, wall)


def _raised_at(agents, fields, datagram, wall):
    """When the newest of these exceptions was, wall seconds; never later than it was told of.

    An agent tells again what it had counted, when a collector comes late or comes back.  One from before exception_last does not tell
    when that was: then it is as of the datagram, whose stamp counts where it is of the last hour.
    """
    last = agents.amount(fields, "exception_last")
    if last and last >= wall - RAISED_S:
        return min(last, wall)
    stamp = HEADER.unpack_from(datagram)[6]
    return stamp if wall - STAMP_S <= stamp <= wall else wall


def source_name(number):
    """The name of an agent among the sources of its process."""
    return f"agent {number}" if number else "agent"


def _thread(agents, interpreter, frames, fields):
    """The ThreadStack of a thread_stack record; frames innermost first."""
    state, _, wait = fields.get("stack_state", "")[:NAME_MOST].partition(" ")
    state = state.rstrip(",:")
    left_out = agents.whole(fields, "stack_left_out")
    problem = fields.get("stack_problem", "")[:TEXT_MOST] or None
    if left_out and not problem:
        inner = max(0, len(frames) - (agents.whole(fields, "stack_cut_at") or 0))
        problem = f"cut: {left_out} frames left out after the innermost {inner}"
    waits = fields.get("stack_waits", "")[:NAME_MOST]
    log_id = fields.get("slow_log_id", "")[:NAME_MOST]
    request = Request(log_id, agents.whole(fields, "slow_thread_id") or None, fields.get("slow_method", "")[:32] or None,
                      (fields.get("slow_script_name", "") + fields.get("slow_path_info", ""))[:SAID_MOST] or None, "agent") if log_id else None
    return ThreadStack(agents.whole(fields, "stack_tid") or None, fields.get("stack_thread", "")[:NAME_MOST] or None, interpreter, False,
                       state if state in _STATES else UNKNOWN, wait or waits or None, None, False, problem, frames, None, request)


def _raw(shape, datagram, wanted):
    """The bytes of a text field, b"" where it is absent."""
    for field, _, count, at in shape.layout:
        if field == wanted:
            return datagram[at:at + count]
    return b""


def _pairs(text):
    """{name: value} of texts that follow one another, NUL behind each."""
    parts = text.split("\0")
    return {name[:NAME_MOST]: value[:SAID_MOST] for name, value in list(zip(parts[0::2], parts[1::2]))[:ANNOTATIONS_MOST]}


# --- for readers ------------------------------------------------------------------------------

def process_view(process, now):
    """What the agents of a process told, None where there is none."""
    agents = process.agents
    if agents is None:
        return None
    held = list(agents.by_number.values())
    timers, memory = {}, max((agent.memory for agent in held if agent.memory), key=lambda told: told[0], default=None)
    for agent in held:
        for name, timer in agent.timers.items():
            timers.setdefault(name, Timer()).add(Timer(), timer)
    return {
        "agents": [_agent_view(agent, process, now) for agent in held],
        "timers": [timer.view(name) for name, timer in sorted(timers.items(), key=lambda item: (-item[1].seconds, item[0]))],
        "timer_names_lost": sum(agent.timers_lost for agent in held),
        "lateness": [_loop_view(name, loop, now) for agent in held for name, loop in agent.loops.items()],
        "memory": None if memory is None else {**memory[1], "age_s": max(0.0, now - memory[0])},
        "exceptions": agents.exceptions, "locations": sum(len(agent.locations) for agent in held), "odd": agents.odd,
        "unknown_locations": agents.unknown, "locations_lost": agents.locations_lost, "standard_dropped": agents.dropped,
        "agents_evicted": agents.evicted}


def _agent_view(agent, process, now):
    told = {name: agent.state.get(f"agent_{name}") for name in (
        "version", "emits", "server", "threshold", "interval", "socket", "signal", "switches", "watchdog_file", "problem", "lost", "errors",
        "wakeups", "begun", "in_flight", "ignored", "unwatched")}
    told["emits"] = None if told["emits"] is None else bool(told["emits"])
    told["switches"] = [name for name in (told["switches"] or "").split(",") if name]
    return {"number": agent.number, "interpreter": agent.state.get("interpreter_name", ""), **told,
            "age_s": None if agent.state_now is None else max(0.0, now - agent.state_now)}


def _loop_view(name, loop, now):
    last = None
    if loop.last is not None:
        at, duration, frames, problem = loop.last
        last = {"duration": duration, "age_s": max(0.0, now - at), "frames": [frame_json(frame) for frame in frames], "problem": problem}
    return {"loop": name, "count": loop.count, "seconds": loop.seconds, "max": loop.longest if loop.count else None, "limit": loop.limit,
            "last": last}


def summary(fleet, now):
    """What all agents told, together, as JSON carries it."""
    inside, with_agent, emitting, problems = fleet.inside, 0, 0, {}
    for process in fleet.processes():
        if process.agents is not None and not process.ended:
            states = process.agents.states.values()
            with_agent += bool(process.agents.by_number)
            emitting += any(state.get("agent_emits") for state in states)
            for problem in (state.get("agent_problem") for state in states):
                if problem and len(problems) < PROBLEMS_MOST:
                    problems[problem] = None
    raised = sorted(inside.exceptions.values(), key=lambda row: (-row.count, row.number))
    timers = sorted(inside.timers.items(), key=lambda item: (-item[1].seconds, item[0]))
    pivots, _ = inside.pivots.view(fleet.slow, SUMMARY_ROWS, now, frames=False)
    return {"processes": with_agent, "emitting": emitting, "exceptions": inside.exceptions_counted, "exception_places": len(raised),
            "top_exceptions": [row.brief() for row in raised[:SUMMARY_ROWS]],
            "pivots": [{name: value for name, value in row.items() if name != "frames"} for row in pivots],
            "timers": [timer.view(name) for name, timer in timers[:10]],
            "lateness": {"count": inside.lateness.count, "seconds": inside.lateness.seconds,
                         "max": inside.lateness.longest if inside.lateness.count else None},
            "lost": inside.lost, "errors": inside.errors, "problems": list(problems),
            "bounds": {"agents_evicted": inside.agents.evicted, "locations_evicted": inside.locations_evicted,
                       "exceptions_lost": inside.exceptions_lost, "exceptions_evicted": inside.exceptions.evicted,
                       "pivots_evicted": inside.pivots.evicted, "requests_evicted": fleet.slow.watches_evicted,
                       "timers_lost": inside.timers_lost, "dumps_cut": inside.dumps_cut}}
