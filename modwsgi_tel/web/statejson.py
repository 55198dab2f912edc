"""/api/state: everything that is kept, as JSON text in pieces.

The shape is the existing collector's; our own keys stand beside it.  A generator of bytes:
what it holds is one block of records and one piece, whatever the size of the answer.  The
answer is cut when it is asked for: what arrives later is left out, and what is dropped
meanwhile is skipped, not pinned for a slow reader.
"""
from heapq import merge
from json import JSONEncoder

from modwsgi_tel.state.process import AGENT, REPORTER
from modwsgi_tel.state.slow import ACTIVE, COMPLETED, ENTRY
from modwsgi_tel.state.tables import age_s
from modwsgi_tel.state.taken import is_claimed, stacks_in, unpacked
from modwsgi_tel.state.view import alive, collector
from modwsgi_tel.wire.blocks import records
from modwsgi_tel.wire.fields import BY_NAME, GC_EVENT, GC_SNAPSHOT, TEXT, kind_name
from modwsgi_tel.wire.shapes import HEADER, finite

PIECE = 24 << 10                        # characters after which a piece goes out: about half a millisecond of work

_TEXTS = ("hostname", "process_group", "mod_wsgi_version", "python_version", "apache_version", "mpm_name")
_DEFAULTS = {field: "" if BY_NAME[field].type == TEXT else 0 for _, field in ENTRY}
# of an agent's record: what it does not know is not 0
_ABSENT = {field: "" if BY_NAME[field].type == TEXT else None for _, field in ENTRY}


# made once: making one takes as long as a small row
_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def text(value):
    """Strict, compact JSON; NaN and infinity must be gone already: ValueError."""
    return _encode(value)


def strict(value):
    """As `text`, of a value that may hold NaN or infinity: null in their place."""
    try:
        return text(value)
    except ValueError:
        return text(finite(value))


def encoded(piece):
    """JSON text as bytes; a lone surrogate, which no decoding here makes, would still be no reason to fail."""
    return piece.encode("utf-8", "replace")


class Query:
    """What of the state is wanted: by group, by pid, the newest `samples`, what was received after `since`."""

    def __init__(self, group=None, pid=None, samples=None, since=None):
        self.group, self.pid, self.samples, self.since = group, pid, samples, since
        self.all = group is None and pid is None and since is None

    def wants(self, process):
        return ((self.group is None or process.texts["process_group"] == self.group)
                and (self.pid is None or self.pid in (process.pid, process.who.sender_pid))
                and (self.since is None or max(process.last_wall, process.life_wall) > self.since))

    def wants_slow(self, slow):
        return ((self.group is None or slow.group[1] == self.group)
                and (self.pid is None or self.pid in (slow.pid, slow.sender_pid))
                and (self.since is None or slow.last_wall > self.since))

    def wants_exception(self, row):
        return ((self.group is None or row.group == self.group)
                and (self.pid is None or any(self.pid in pids for pids in row.pids.values()))
                and (self.since is None or row.heard_wall > self.since))

    def wants_event(self, event):
        return ((self.group is None or event["process_group"] == self.group)
                and (self.pid is None or self.pid in (event["pid"], event["sender_pid"]))
                and (self.since is None or event["received"] > self.since))


def state(fleet, memo, now, wall, query=Query(), own=None):
    """The whole answer, as an iterator of bytes; the cut is made by this call."""
    cut = [(process, process.chain.position(),
            [(name, item.chain, item.chain.position()) for name, item in process.interpreters.items()])
           for process in fleet.processes() if query.wants(process)]
    head = {"type": "snapshot", "total_received": fleet.received, "decode_errors": fleet.decode_errors,
            "time": wall, "collector": collector(fleet, own)}
    slow = fleet.slow.keys()
    events = [event for event in fleet.events if query.wants_event(event)]
    return batched(_parts(fleet, memo, now, query, cut, head, slow, events))


def batched(parts):
    """Parts of a text joined into pieces of bytes; a part "" gives the loop a turn."""
    held, size = [], 0
    for part in parts:
        if not part:
            yield b""
        held.append(part)
        size += len(part)
        if size >= PIECE:
            yield encoded("".join(held))
            held, size = [], 0
    yield encoded("".join(held))


def _parts(fleet, memo, now, query, cut, head, slow, events):
    yield text(head)[:-1] + ',"processes":['
    comma = ""
    for process, position, interpreters in cut:
        yield comma + _process_head(process) + ',"samples":['
        comma = ","
        yield from _samples(fleet.shapes, memo, process, position, query)
        yield '],"gc_snapshots":{'
        yield from _gc_snapshots(fleet.shapes, memo, process, interpreters, query)
        yield '},"gc_events":['
        yield from _gc_events(fleet.shapes, memo, interpreters, query)
        yield "]}"
    yield '],"slow_requests":['
    yield from slow_parts(fleet, slow, now, query)
    yield '],"lifecycle_events":['
    for place, event in enumerate(events):
        yield ("," if place else "") + text(finite(event))
    yield "]}\n"


def _process_head(process):
    sources = process.sources           # the existing collector knows of mod_wsgi's own count alone
    newest = sources[REPORTER].newest if REPORTER in sources else max((held.newest for held in sources.values()), default=0)
    out = {"pid": process.pid, **{name: process.texts[name] for name in _TEXTS},
           "process_parent_pid": process.parent_pid, "last_seq": newest, "drops": process.lost(),
           "id": process.id, "sender_pid": process.who.sender_pid, "life": process.life, "alive": alive(process),
           "drops_uncertain": sum(sequence.uncertain for sequence in process.sources.values())}
    return text(out)[:-1]


def _number(value):
    return repr(value) if value - value == 0 else "null"


def _after(chain, position, query):
    """The index of the first counted record that is wanted."""
    wanted = chain.keep if query.samples is None else min(chain.keep, query.samples)
    return position.counted - wanted


def _walk(chain, position, query, counts):
    """Yield (wall, datagram, whether it counts) of what a query wants of a chain."""
    first = _after(chain, position, query)
    for stretch in chain.read(position, first, query.since):
        index = stretch.counted_first
        for wall, _, datagram in records(stretch.raw, stretch.records):
            counted = counts(datagram)
            index += counted
            if index > first and (query.since is None or wall > query.since):
                yield wall, datagram, counted


def _samples(shapes, memo, process, position, query):
    comma = ""
    for wall, datagram, _ in _walk(process.chain, position, query, lambda datagram: True):
        yield comma + sample(shapes.check(datagram)[0], datagram, wall, memo)
        comma = ","


def sample(shape, datagram, wall, memo):
    """A datagram about a process."""
    _, _, kind, _, pid, seq, stamp = HEADER.unpack_from(datagram)
    return (f'{{"type":"sample","kind":"{kind_name(kind)}","pid":{pid},"seq":{seq},"stamp":{_number(stamp)},'
            f'"received":{wall!r},"fields":{shape.json(datagram, memo)}}}')


def gc_record(shape, datagram, wall, memo, head=""):
    """A gc_snapshot or gc_event; `head`: members that stand before its own."""
    return f'{{{head}"stamp":{_number(HEADER.unpack_from(datagram)[6])},"received":{wall!r},"fields":{shape.json(datagram, memo)}}}'


def _is_snapshot(datagram):
    return datagram[5] == GC_SNAPSHOT


def _gc_snapshots(shapes, memo, process, interpreters, query):
    names = set()
    for name, chain, position in interpreters:
        shown = name.decode("utf-8", "replace")
        while shown in names:           # cut at 127 bytes, or not UTF-8: two names may look the same
            shown += "\ufffd"
        yield ("," if names else "") + text(shown) + ":["
        names.add(shown)
        comma = ""
        for wall, datagram, counted in _walk(chain, position, query, _is_snapshot):
            if counted:
                yield comma + gc_record(shapes.check(datagram)[0], datagram, wall, memo)
                comma = ","
        yield "]"


def _gc_events(shapes, memo, interpreters, query):
    comma = ""
    found = merge(*(_events(chain, position, query, name) for name, chain, position in interpreters))
    for wall, name, datagram in found:
        yield comma + gc_record(shapes.check(datagram)[0], datagram, wall, memo, interpreter_head(name))
        comma = ","


def interpreter_head(name):
    """The member that names an interpreter, for `gc_record`."""
    return f'"interpreter":{text(name.decode("utf-8", "replace"))},'


def _events(chain, position, query, name):
    """(wall, name, datagram) of the gc_events of one interpreter, in order of arrival."""
    for wall, datagram, counted in _walk(chain, position, query, _is_snapshot):
        if not counted and datagram[5] == GC_EVENT:
            yield wall, name, datagram


def slow_entry(slow, now):
    """{"key", "entry"} of a frozen slow request: the existing collector's names, then our own."""
    fields = {**(_ABSENT if slow.inside else _DEFAULTS), **slow.shape.fields(slow.datagram)}
    key = ([slow.pid, fields["slow_log_id"]] if fields["slow_log_id"] else
           [slow.pid, fields["slow_thread_id"], fields["slow_start_stamp"]])
    entry = {"pid": slow.pid, **{name: fields[field] for name, field in ENTRY}}
    entry["state"] = 1 if slow.life == COMPLETED else 0
    entry.update(life=slow.life, sender_pid=slow.sender_pid, process=slow.process_id, process_group=slow.group[1],
                 first_received=slow.first_wall, received=slow.last_wall, ended=slow.ended_wall,
                 unheard=slow.unheard_s if slow.life == ACTIVE or slow.ended_wall is None else None, id=slow.number,
                 age_s=age_s(slow.life, slow.record_s, fields["slow_duration"] or 0), phase=_phase(slow, fields), stack=_stack(slow.stack, now),
                 source=AGENT if slow.inside else REPORTER, agent=slow.watch and slow.watch.view())
    return finite({"key": key, "entry": entry})


def _stack(stack, now):
    """The stack of a request as JSON carries it, or None."""
    return stack and {"taken": stack.wall, "age_s": max(0.0, now - stack.now), **unpacked(stack.packed)}


def process_stacks(fleet, process, now):
    """The last stacks of a process as JSON carries them, or None."""
    take = fleet.taken.get(process.id)
    if take is None:
        return None
    return {**stacks_in(take), "pid": process.pid, "id": process.id, "sender_pid": process.who.sender_pid,
            "hostname": process.group[0], "process_group": process.group[1], "taken": take.wall,
            "age_s": max(0.0, now - take.now), "why": take.why, "life": process.life}


def taken_state(fleet):
    """Whether stacks are taken at all, beside rows that may have one."""
    return {"mode": fleet.taken.mode, "problem": fleet.taken.problem}


def taken_head(fleet):
    """What is said of taking stacks at all."""
    taken = fleet.taken
    return {"stacks": taken.mode, "helper": taken.helper, "rate": taken.rate, "post": not taken.closed,
            "counters": {**taken.counters, "evicted": taken.counters["evicted"] + fleet.slow.stacks_evicted},
            "bytes": taken.bytes + fleet.slow.stack_bytes, "problem": taken.problem,
            "not_the_kernels": sum(map(is_claimed, fleet.troubled))}


def _phase(slow, fields):
    """Where an active request is, as far as its record tells: mod_wsgi speaks of it once the application has it."""
    if slow.life != ACTIVE:
        return None
    return "response" if fields["slow_status"] else "application"


def pivots_head(fleet, most, query, sort, now):
    """What the pivots of long requests cost, beside the requests: of all, or of a group."""
    pivots, rows, matched, problem = fleet.inside.pivots, [], 0, None
    if query.pid is not None:
        problem = "what long requests have in common is kept by group, not by process: ask without pid"
    else:
        rows, matched = pivots.view(fleet.slow, most, now, group=query.group, sort=sort)
    return finite({"pivots": rows, "pivots_matched": matched, "pivots_problem": problem, "pivots_evicted": pivots.evicted,
                   "watches_evicted": fleet.slow.watches_evicted})


def slow_parts(fleet, keys, now, query):
    """The members of a JSON array of slow requests, comma before each but the first."""
    comma = ""
    for place, key in enumerate(keys):
        if place % 128 == 127:
            yield ""                    # however few of them are wanted
        slow = fleet.slow.look(key, now)
        if slow is not None and query.wants_slow(slow[0]):
            yield comma + text(slow_entry(fleet.slow.freeze(key, now), now))
            comma = ","
