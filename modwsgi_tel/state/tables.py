"""Tables: the rows of a view that a reader shows, sorted, searched and cut to a page here.

With hundreds of processes a reader that comes back every second must not make rows of all of
them: what is sorted by is read of each, a row is made of those on the page alone.

Every *_page is a generator that yields (nothing) between pieces of work, and returns a Page.  A
row is made of an item when it is written: an answer without a limit must not hold the rows of
two thousand processes at once, nor keep alive what has gone.
"""
from collections import namedtuple
from heapq import merge
from itertools import chain, islice
from operator import itemgetter

from modwsgi_tel.state.process import LIVES
from modwsgi_tel.state.slow import ACTIVE, COMPLETED, LOST, STALE
from modwsgi_tel.state.view import BATCH, fresh_tick, newest_fields, process_total
from modwsgi_tel.state.window import CAPACITY, CPU_SYSTEM, CPU_USER, GC_PAUSES, GC_SECONDS, PERIOD, REQUESTS, STATUS
from modwsgi_tel.wire.blocks import records
from modwsgi_tel.wire.buckets import percentiles
from modwsgi_tel.wire.fields import BY_NAME, GC_EVENT, PHASES
from modwsgi_tel.wire.shapes import Wanted, finite

Page = namedtuple("Page", "matched offset items")
Page.__doc__ = "matched: rows in all.  offset: place of the first one here.  items: what the page's rows are made of."

Ask = namedtuple("Ask", "sort descending offset limit search lives", defaults=("", False, 0, None, "", None))
Ask.__doc__ = "What a reader wants of a table; limit None: all rows.  lives: only these, or None for all."

BADNESS = ("silent", "vanished", "stopping", "started", "running", "replaced", "stopped")
assert sorted(BADNESS) == sorted(LIVES)
SLOW_LIVES = (ACTIVE, STALE, LOST, COMPLETED)
_REQUEST = PHASES.index("request")
EVENTS_MOST = 2000                      # collections in one answer
SORTED_AT_ONCE = 1024                   # entries between two turns of the loop
_key = itemgetter(0)


def _page(found, ask):
    """The Page of `found`, (key, item) in the order that equal keys keep both ways; keys of None come last."""
    runs, last = [], []
    for at in range(0, len(found), SORTED_AT_ONCE):
        part = found[at:at + SORTED_AT_ONCE]
        runs.append(sorted((entry for entry in part if entry[0] is not None), key=_key, reverse=ask.descending))
        last += [entry for entry in part if entry[0] is None]
        yield
    offset = max(0, min(ask.offset, len(found) - 1))
    until = len(found) if ask.limit is None else min(len(found), offset + ask.limit)
    ordered, items = chain(merge(*runs, key=_key, reverse=ask.descending), last), []
    for at in range(0, until, SORTED_AT_ONCE):
        part = [item for _, item in islice(ordered, min(SORTED_AT_ONCE, until - at))]
        items += part[max(0, offset - at):]
        yield
    return Page(len(found), offset, items)


# --- processes --------------------------------------------------------------------------------

def _p95(process, now, window):
    total = process_total(process, now, window)
    return None if total.requests is None else percentiles(total.requests, (0.95,), total.peaks[_REQUEST] or None)[0]


def _per(place, by, fields=()):
    def key(process, now, window):
        if window == "now":
            tick = fresh_tick(process, now)
            sums = None if tick is None else tick.sums
        else:
            sums = process.windows.sums(now, window)
        if sums is None or not sums[PERIOD] or not process.present.issuperset(fields):
            return None
        return sum(sums[each] for each in place) / (sums[PERIOD] if by else 1)
    return key


PROCESS_SORTS = {
    "pid": lambda process, now, window: process.pid,
    "group": lambda process, now, window: process.group,
    "life": lambda process, now, window: BADNESS.index(process.life),
    "age": lambda process, now, window: now - process.first_now,
    "throughput": _per((REQUESTS,), True), "busy": _per((CAPACITY,), True, (22,)),
    "cpu": _per((CPU_USER, CPU_SYSTEM), True, (30, 31)),
    "5xx": _per((STATUS + 4,), False), "p95": _p95,
    "threads": lambda process, now, window: newest_fields(process).get("request_threads_active"),
    "rss": lambda process, now, window: process.rss() or None,
    "slow": lambda process, now, window: len(process.slow_active),
    "lost": lambda process, now, window: process.lost(),
    "silent": lambda process, now, window: None if process.silent_now is None else now - process.silent_now,
}


def process_page(fleet, wants, ask, window, now):
    """Ids of the processes that `wants`, for view.process_view; sorted by what `window` has."""
    key = PROCESS_SORTS.get(ask.sort)
    word, found = ask.search.lower(), []
    for place, process in enumerate(fleet.processes()):
        if place % BATCH == BATCH - 1:
            yield
        if wants(process) and (ask.lives is None or process.life in ask.lives) and (not word or word in _words(process)):
            found.append((0 if key is None else key(process, now, window), process.id))
    return (yield from _page(found, ask))


def _words(process):
    return f"{process.pid} {process.who.sender_pid} {' '.join(process.group)} {process.life} {process.role}".lower()


# --- workers ----------------------------------------------------------------------------------

_SLOTS = {name: BY_NAME[field].id for name, field in (
    ("elapsed", "request_threads_current_elapsed"), ("busy", "request_threads_busy_time"), ("cpu", "request_threads_cpu_time"),
    ("completed", "request_threads_completed"), ("longest", "request_threads_max_duration"))}
_PERIOD = Wanted((BY_NAME["sample_period"].id, BY_NAME["telemetry_interval"].id))
_THREAD = Wanted(BY_NAME[name].id for name in ("slow_thread_id", "slow_server_pid", "slow_duration", "slow_method",
                                               "slow_script_name", "slow_path_info"))


def worker_page(fleet, wants, ask, now):
    """Ids for worker_row, the process with the longest running request first; those that ended are left out."""
    found = []
    for place, process in enumerate(fleet.processes()):
        if place % BATCH == BATCH - 1:
            yield
        if wants(process) and not process.ended and process.tick is not None:
            _, shape, datagram, _ = process.tick
            elapsed = shape.array(_SLOTS["elapsed"], datagram)
            longest = max((age for age in elapsed if age < 1e9), default=0.0)
            unheard_s = now - process.tick[0] if longest and process.silent_now is not None else 0.0
            found.append((-longest - unheard_s, process.id))
    return (yield from _page(found, ask))


def worker_row(fleet, number, now):
    """A process with the slots of its newest tick and its slow requests; None when it has ended meanwhile."""
    process = fleet.process(number)
    if process is None or process.ended or process.tick is None:
        return None
    at, shape, datagram, _ = process.tick
    period = shape.read(_PERIOD, datagram)[0]
    arrays = {name: shape.array(field, datagram) for name, field in _SLOTS.items()}
    slots = []
    for number in range(max(map(len, arrays.values()))):
        slot = {name: row[number] if number < len(row) else None for name, row in arrays.items()}
        for name in ("busy", "cpu"):
            slot[name] = slot[name] / period if slot[name] is not None and period > 0 else None
        slots.append(slot)
    requests = []
    for key in list(process.slow_active):
        request = fleet.slow.freeze(key, now)
        thread, server, duration, method, script, path = request.shape.read(_THREAD, request.datagram)
        requests.append({"id": request.number, "slot": thread - 1 if thread else None, "age_s": age_s(request.life, request.record_s, duration),
                         "method": _text(method), "path": _text(script) + _text(path), "process": process.id,
                         "pid": process.pid, "server_pid": server})
    fields = newest_fields(process)
    return finite({
        "id": process.id, "pid": process.pid, "hostname": process.group[0], "process_group": process.group[1],
        "role": process.role, "life": process.life,
        "silent_s": None if process.silent_now is None else max(0.0, now - process.silent_now), "age_s": max(0.0, now - at),
        "threads": {name: fields.get(f"request_threads_{name}") for name in ("maximum", "started", "active")},
        "period": period, "slots": slots, "requests": requests})


def _text(raw):
    return raw.decode("utf-8", "replace") if raw else ""


# --- slow requests ----------------------------------------------------------------------------

def _wanted(*names):
    return Wanted(BY_NAME[name].id for name in names)


_SEARCHED = _wanted("slow_method", "slow_hostname", "slow_script_name", "slow_path_info", "slow_peer_ip", "slow_user_agent", "slow_log_id",
                    "slow_status")
_TIMES, _TOLD = _wanted("slow_duration", "slow_start_stamp"), _wanted("slow_status", "slow_method")
_URL = _wanted("slow_hostname", "slow_script_name", "slow_path_info")
SLOW_SORTS = ("state", "age", "process", "method", "status", "url", "start")


def _slow_key(sort, slow, life, now):
    """What the rows are ordered by; reads no more of the newest record than that."""
    read, datagram = slow.shape.read, slow.datagram
    if sort == "process":
        return (slow.pid, slow.process_id or 0)
    if sort == "url":
        return b"".join(value or b"" for value in read(_URL, datagram))
    if sort in ("status", "method"):
        return read(_TOLD, datagram)[sort == "method"] or None
    if not sort:
        return 0
    duration, start = read(_TIMES, datagram)
    if sort == "start":
        return start if abs(start) < 1e18 else None
    age = age_s(life, now - slow.record_now, duration)
    if sort == "age":
        return age
    # what runs, the oldest first; then what ended, the newest first
    return SLOW_LIVES.index(life), -(age or 0) if slow.ended_wall is None else -slow.ended_wall


def age_s(life, record_s, duration):
    """How old a request was at its end, or is now, by what a record that is `record_s` seconds old says; None for nonsense."""
    if life == ACTIVE:
        duration += record_s
    return duration if 0 <= duration < 1e9 else None


def slow_page(fleet, wants, ask, now, keys=None):
    """Keys of slow requests, for SlowTable.freeze: of all, or of these; `wants` is None when all are wanted."""
    if wants is None and keys is None and ask.sort == "state" and not ask.descending and not ask.search and ask.limit is not None:
        return (yield from _newest_slow(fleet.slow, ask, now))
    word, found = ask.search.lower(), []
    for place, key in enumerate(fleet.slow.keys() if keys is None else keys):
        if place % (4 * BATCH) == 4 * BATCH - 1:
            yield
        slow, life = fleet.slow.look(key, now) or (None, None)
        if slow is None or not (wants is None or wants(slow)) or not (ask.lives is None or life in ask.lives):
            continue
        if word and word not in _slow_words(slow, life):
            continue
        found.append((_slow_key(ask.sort, slow, life, now), key))
    return (yield from _page(found, ask))


def _newest_slow(table, ask, now):
    """`slow_page` in the order of "state", of the page's own requests and those that run: what ended is kept in that order."""
    running = []
    for place, key in enumerate(table.running()):
        if place % (2 * BATCH) == 2 * BATCH - 1:
            yield
        slow, life = table.look(key, now) or (None, None)
        if slow is not None and (ask.lives is None or life in ask.lives):
            running.append((_slow_key("state", slow, life, now), key))
    page = yield from _page(running, ask._replace(offset=0, limit=None))
    ended = [table.ended(life) for life in (LOST, COMPLETED) if ask.lives is None or life in ask.lives]
    matched = len(page.items) + sum(count for count, _ in ended)
    offset = max(0, min(ask.offset, matched - 1))
    keys = chain(page.items, *(keys for _, keys in ended))
    return Page(matched, offset, list(islice(keys, offset, offset + ask.limit)))


def _slow_words(slow, life):
    method, host, script, path, peer, agent, log_id, status = slow.shape.read(_SEARCHED, slow.datagram)
    texts = " ".join(map(_text, (method, host)))
    url = "".join(map(_text, (host, script, path)))
    more = " ".join(map(_text, (peer, agent, log_id)))
    return f"{texts} {url} {more} {status} {slow.pid} {slow.group[1]} {life}".lower()


# --- exceptions -------------------------------------------------------------------------------

EXCEPTION_SORTS = {"count": lambda row: row.count, "last": lambda row: row.last_wall, "type": lambda row: row.type}


def exception_page(fleet, wants, ask):
    """Keys of exceptions, for Inside.exceptions; the newest first, unless `ask` says otherwise."""
    key, word, found = EXCEPTION_SORTS.get(ask.sort), ask.search.lower(), []
    for place, row in enumerate(fleet.inside.exceptions.values()):
        if place % (4 * BATCH) == 4 * BATCH - 1:
            yield
        if wants(row) and (not word or word in _exception_words(row)):
            found.append((-row.last_wall if key is None else key(row), row.key))
    return (yield from _page(found, ask))


def _exception_words(row):
    frames = " ".join(f"{function} {file}" for function, file, _ in row.key[2])
    return f"{row.type} {row.path} {row.text} {row.group} {row.method} {row.request_id} {frames}".lower()


# --- stacks -----------------------------------------------------------------------------------

def stacks_page(numbers, ask):
    """Ids of processes with stacks, in the order given, for the page that is asked for."""
    return (yield from _page([(0, number) for number in numbers], ask))


# --- garbage collection -----------------------------------------------------------------------

_GENERATIONS = {name: Wanted(BY_NAME[f"gc_{name}{generation}"].id for generation in range(3))
                for name in ("count", "threshold", "collections", "collected", "uncollectable")}
_GC_REST = Wanted(BY_NAME[name].id for name in ("gc_is_enabled", "gc_freeze_count", "gc_dropped_events"))
_EVENT = Wanted(BY_NAME[name].id for name in ("gc_event_start_stamp", "gc_event_duration", "gc_event_generation",
                                              "gc_event_collected", "gc_event_uncollectable"))


def gc_page(fleet, wants, ask, window, now):
    """(process's id, name) of interpreters for gc_row, of the processes with the longest pauses first."""
    found = []
    for place, process in enumerate(fleet.processes()):
        if place % BATCH == BATCH - 1:
            yield
        if wants(process) and not process.ended:
            sums = process.windows.sums(now, "1m" if window == "now" else window)
            found += [(-sums[GC_SECONDS], (process.id, name)) for name in process.interpreters]
    return (yield from _page(found, ask))


def gc_row(fleet, number, name, window, now):
    """The collector of an interpreter, its process's pauses in `window`; None when it has gone meanwhile."""
    process = fleet.process(number)
    if process is None or process.ended or name not in process.interpreters:
        return None
    interpreter = process.interpreters[name]
    sums, peaks, _ = process.windows.read(now, "1m" if window == "now" else window)
    row = {"process": process.id, "pid": process.pid, "hostname": process.group[0], "process_group": process.group[1],
           "role": process.role, "life": process.life, "interpreter": _text(name), "enabled": None, "frozen": None,
           "dropped_events": None, **dict.fromkeys(_GENERATIONS)}
    if interpreter.snapshot is not None:
        shape, datagram = interpreter.snapshot
        row.update((key, list(shape.read(wanted, datagram))) for key, wanted in _GENERATIONS.items()
                   if all(field in shape.ids for field in wanted))
        enabled, frozen, dropped = shape.read(_GC_REST, datagram)
        row.update(enabled=bool(enabled) if _GC_REST[0] in shape.ids else None,
                   frozen=frozen if _GC_REST[1] in shape.ids else None,
                   dropped_events=dropped if _GC_REST[2] in shape.ids else None)
    row["window"] = {"pauses": int(sums[GC_PAUSES]), "seconds": sums[GC_SECONDS],
                     "max": peaks[-1] if sums[GC_PAUSES] else None,
                     "share": sums[GC_SECONDS] / sums[PERIOD] if sums[PERIOD] else None}
    return row


def gc_events(shapes, process, name, since):
    """The newest EVENTS_MOST collections of one interpreter that were received after `since` (wall seconds).

    A generator that yields between blocks and returns (events, how many older ones are left out).
    """
    events, earlier = [], 0
    interpreter = process.interpreters.get(name)
    if interpreter is None:
        return events, earlier
    chain = interpreter.chain
    for stretch in chain.read(chain.position(), since_wall=since):
        yield
        for received, _, datagram in records(stretch.raw, stretch.records):
            if datagram[5] == GC_EVENT and received > since:
                shape, _ = shapes.check(datagram)
                start, duration, generation, collected, uncollectable = shape.read(_EVENT, datagram)
                events.append({"start": start, "duration": duration, "generation": generation, "collected": collected,
                               "uncollectable": uncollectable})
        if len(events) > 2 * EVENTS_MOST:
            earlier += len(events) - EVENTS_MOST
            del events[:-EVENTS_MOST]
    earlier += max(0, len(events) - EVENTS_MOST)
    return events[-EVENTS_MOST:], earlier
