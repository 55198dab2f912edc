"""One process, as Enter opens it from a table or from the grid: its slots, requests, stacks, GC and history.

It is ("process", pid, id) in Ui.open; `opened_paths` and `opened` serve any pane that opens one.
"""
from collections import namedtuple

from modwsgi_tel.console.cells import Span, clip, fit, line, pad, safe, width
from modwsgi_tel.console.draw import Column, columns_of, meter, spark, stacked, table
from modwsgi_tel.console.paging import asked, scrolled
from modwsgi_tel.console.frames import STATE, gil_line, short
from modwsgi_tel.console.inside import of_process, problems
from modwsgi_tel.console.words import (LIFE_STYLES, LIVE, OVERLAPPING, PARTS, WINDOW_WORDS, ago, busy_style, clock, counted,
                                       errors_style, event_time, event_words, figure, group_words, in_life, missing,
                                       request_words, seconds)
from modwsgi_tel.figures import UNKNOWN, duration, moment, number, percent, size

# States of a process as proc(5) has them; one that is HELD serves nobody.
STATES = {"R": "running", "S": "sleeping", "I": "idle", "D": "uninterruptible", "T": "stopped", "t": "traced", "Z": "a zombie"}
HELD = frozenset("DTtZ")
NEAR_SHARE = 0.8                        # of the limit of open files, from which the rule `descriptors` warns

# --- slots ---------------------------------------------------------------------------------------

# The letter of a slot tells how long its request runs: seconds up to 9, then by these.
AGES = ((10.0, "a", "10 s"), (30.0, "b", "30 s"), (60.0, "c", "1 min"), (300.0, "D", "5 min"))
IDLE, WORKED, UNTOLD = ".", ":", "?"
LEGEND = (("0-9", "seconds"), *((letter, words + "+") for _, letter, words in AGES), (IDLE, "idle"),
          (WORKED, "idle again"), (UNTOLD, "not told"))
WARN_S, BAD_S = 2.0, 30.0

Slot = namedtuple("Slot", "thread age letter busy cpu completed longest")
Slot.__doc__ = """A worker thread as its process's newest tick tells it: `thread` as slow requests name it (from 1),
`age` of its running request (seconds; 0: idle; None: not told), `letter`, `busy` and `cpu` of the tick's period (0 to
1), requests `completed` in it, seconds of the `longest` of them."""


def slot_of(place, told, passed_s=0.0):
    """A Slot from {"elapsed", "busy", "cpu", "completed", "longest"}.

    passed_s: seconds that a running request has aged since the tick.
    """
    age, busy = told.get("elapsed"), told.get("busy")
    if age is not None and age > 0:
        age += passed_s
    return Slot(place + 1, age, _letter(age, busy, told.get("completed")), _share(busy),
                told.get("cpu"), told.get("completed"), told.get("longest"))


def _letter(age, busy, completed):
    """Busy is over the whole tick; only the age tells what is idle now."""
    if age is None:
        return UNTOLD
    if age <= 0:
        return WORKED if busy or completed else IDLE
    if age < AGES[0][0]:
        return str(int(age))
    return [letter for above, letter, _ in AGES if age >= above][-1]


def _share(part):
    """A ratio that a meter can show; a sender may tell any."""
    return None if part is None else min(1.0, max(0.0, part))


def runs(slot):
    """Whether a request is in it, as far as is known."""
    return slot.age is not None and slot.age > 0


def slot_style(slot):
    if not runs(slot):
        return "dim"
    return "bad" if slot.age >= BAD_S else "warn" if slot.age >= WARN_S else "good"


_ARRAYS = (("elapsed", "request_threads_current_elapsed"), ("busy", "request_threads_busy_time"),
           ("cpu", "request_threads_cpu_time"), ("completed", "request_threads_completed"),
           ("longest", "request_threads_max_duration"))


def slots_told(fields):
    """Slots of a newest tick's fields as /api/workers tells them: [{"elapsed", "busy", ...}]."""
    period = fields.get("sample_period")
    rows = {name: fields.get(field) or () for name, field in _ARRAYS}
    out = []
    for place in range(max(map(len, rows.values()))):
        told = {name: values[place] if place < len(values) else None for name, values in rows.items()}
        for name in ("busy", "cpu"):
            told[name] = told[name] / period if told[name] is not None and period else None
        out.append(told)
    return out


# --- one process ---------------------------------------------------------------------------------

HISTORY = (("req/s", "throughput", number), ("busy", "capacity", percent),
           ("cpu", "cpu", lambda cores: number(cores, 2)), ("rss", "rss", size), ("mean", "mean", duration),
           ("longest", "max", duration), ("5xx", "errors", lambda amount: number(amount, 0)))
ENDED_SHOWN = 5                         # slow requests that have ended


def opened_paths(ui):
    _, pid, number_of = ui.open
    return {"process": asked(f"/api/processes/{pid}", id=number_of),
            "process_series": asked("/api/series", process=number_of, window=ui.window),
            "stacks_state": STATE}


def running(view, ui):
    """(pid, id) of the process in Ui.open while it lives."""
    if ui.open is None:
        return None
    found = _found(view, ui)
    return None if found is not None and found.get("life") not in LIVE else ui.open[1:]


def subject(view, ui):
    """(pid, id) of the process in Ui.open, whether it lives or not."""
    return None if ui.open is None else ui.open[1:]


def _found(view, ui):
    rows = (view.get("process") or {}).get("processes") or ()
    return next((row for row in rows if row.get("id") == ui.open[2]), None)


def opened(view, ui, inside):
    """Lines of the process in Ui.open, from Ui.scroll on."""
    answer, glyphs = view.get("process") or {}, ui.glyphs
    found = _found(view, ui)
    if found is None or "process" in (view.get("errors") or {}):
        return [fit(missing(view, "process", glyphs), inside.cols, glyphs)][:inside.rows]
    now, lines = answer.get("time"), []
    slots = _slots(found)
    requests = [each.get("entry") or {} for each in answer.get("slow_requests") or ()]
    # another process may have had its pid
    requests = [each for each in requests if each.get("process") in (None, found.get("id"))]
    named = by_thread((each for each in requests if each.get("life") in ("active", "stale")), slots)
    for section in (_head(found, now, glyphs), _kernel(found, now, glyphs), gil_line(found.get("stacks"), glyphs),
                    problems(found.get("agent"), inside.cols, glyphs), _figures(found, ui, inside.cols),
                    _threads(found, slots, named, inside.cols, glyphs),
                    _slow(requests, [id(each) for each in named.values()], now, inside.cols, glyphs),
                    short(found.get("stacks"), view, inside.cols, glyphs), of_process(found.get("agent"), inside.cols, glyphs), _phases(found, inside.cols, glyphs),
                    _history(view, ui, inside.cols), _interpreters(found, inside.cols, glyphs), _events(answer, now, glyphs),
                    _losses(found, glyphs)):
        lines += section
    return [fit(each, inside.cols, glyphs) for each in scrolled(lines, ui.scroll, inside.rows)]


def used(threads):
    """`3/5`: threads that worked in the newest tick, of all."""
    threads = threads or {}
    if threads.get("maximum") is None and threads.get("active") is None:
        return UNKNOWN
    return f"{number(threads.get('active'), 0)}/{number(threads.get('maximum'), 0)}"


def _told(number_of):
    """A number that is a name, as text; UNKNOWN for none, and for 0."""
    return str(number_of or UNKNOWN)


def _title(text, more=""):
    return line(Span(text, "head"), Span("  " + more if more else "", "dim"))


def _head(row, now, glyphs):
    where = f" of {group_words(row, glyphs)} on {safe(row.get('hostname') or UNKNOWN, glyphs)}"
    lines = [line(Span(f"pid {row.get('pid')}", "bold"), where),
             line(Span(_life_words(row, now, glyphs), LIFE_STYLES.get(row.get("life"), "good")))]
    more = [safe(row.get("role") or UNKNOWN, glyphs), f"parent {row.get('parent_pid') or UNKNOWN}"]
    if row.get("sender_pid") not in (None, row.get("pid")):
        more.append(f"sends as pid {row['sender_pid']}" if row["sender_pid"] else "sends from outside our pids")
    if row.get("sender_uid") is not None:
        more.append(f"uid {row['sender_uid']}")
    more += [f"known for {duration(ago(row.get('first_seen'), now))}",
             f"heard {duration(ago(row.get('last_seen'), now))} ago"]
    versions = row.get("versions") or {}
    known = [(name, safe(versions.get(key) or "", glyphs)) for name, key in (
        ("mod_wsgi ", "mod_wsgi_version"), ("Python ", "python_version"), ("", "apache_version"), ("MPM ", "mpm_name"))]
    lines.append(line(Span(", ".join(more), "dim")))
    lines.append(line(Span(", ".join(name + text for name, text in known if text) or "versions not told", "dim")))
    if row.get("restarts_unseen"):
        lines.append(line(Span(counted(row["restarts_unseen"], "restart") + " that nobody saw", "warn")))
    return lines


def _kernel(row, now, glyphs):
    """What the kernel says of it, as it was sampled; nothing where it was not."""
    told = row.get("kernel")
    if not told:
        return []
    files, limit, grown = told.get("files"), told.get("files_limit"), told.get("files_grown")
    near = files is not None and bool(limit) and files >= NEAR_SHARE * limit
    said = []
    if files is not None:
        said.append(f"{number(files, 0)} of {number(limit, 0)} files open" if limit else f"{counted(files, 'file')} open")
        if grown and told.get("files_grown_s"):
            said[-1] += f" ({'+' if grown > 0 else ''}{number(grown, 0)} in {duration(told['files_grown_s'])})"
    said.append(counted(told.get("threads"), "thread"))
    wait = safe(told.get("wait") or "", glyphs)
    said.append(STATES.get(told.get("state"), UNKNOWN) + (f" in {wait}" if wait else ""))
    for name, words in (("voluntary", "waits/s"), ("involuntary", "preemptions/s")):
        if told.get(f"{name}_switches_per_s") is not None:
            said.append(f"{number(told[f'{name}_switches_per_s'], 0)} {words}")
    if told.get("pss_bytes") is not None:
        said.append(f"pss {size(told['pss_bytes'])}")
    said.append(f"looked at {duration(ago(told.get('sampled_at'), now))} ago")
    return [line(Span("kernel: " + ", ".join(said), "warn" if near or told.get("state") in HELD else "dim"))]


def _life_words(row, now, glyphs):
    """What is known of its life, and since when."""
    life, spent = row.get("life"), duration(in_life(row, now))
    since = UNKNOWN if row.get("life_since") is None or now is None else moment(row["life_since"], now)
    alive = {True: "; its pid is alive", False: "; its pid is gone"}.get(row.get("alive"), "")
    stopping, stopped = row.get("stopping"), row.get("stopped")
    if life == "silent":
        return f"silent for {spent}{alive}"
    if life == "stopping" and stopping:
        return (f"stopping for {spent}: {safe(stopping.get('reason') or 'no reason told', glyphs)}, "
                f"{counted(stopping.get('active'), 'request')} inside when it was decided{alive}")
    if life == "stopped" and stopped:
        return (f"stopped {spent} ago: {safe(stopped.get('reason') or 'no reason told', glyphs)}, "
                f"{'drained' if stopped.get('drained') else 'not drained'}, "
                f"{number(stopped.get('active'), 0)} inside at the end; up {duration(stopped.get('uptime'))}, "
                f"{counted(stopped.get('requests'), 'request')} in its life")
    if life == "vanished":
        return f"vanished {spent} ago: its pid is gone, and it said nothing of an end"
    if life == "replaced":
        return f"replaced {spent} ago: another process has its pid"
    return f"{safe(life or UNKNOWN, glyphs)} since {since} ({spent}){alive}"


def _figures(row, ui, cols):
    held = (row.get("windows") or {}).get(ui.window) or {}
    request, status = (held.get("phases") or {}).get("request") or {}, held.get("status") or {}
    gc, gil = held.get("gc") or {}, held.get("gil") or {}
    pairs = [("req/s", number(held.get("throughput"))),
             ("busy", percent(held.get("capacity")), busy_style(held.get("capacity"))),
             ("used", used(row.get("threads"))), ("slow now", number(row.get("slow_active"), 0)),
             ("mean", duration(request.get("mean"))), ("p50", duration(request.get("p50"))),
             ("p95", duration(request.get("p95"))), ("p99", duration(request.get("p99"))),
             ("longest", duration(request.get("max"))), ("requests", number(held.get("requests"), 0)),
             ("5xx", number(status.get("5xx"), 0), errors_style(status.get("5xx"), held.get("requests"))),
             ("4xx", number(status.get("4xx"), 0)),
             ("cpu", number(held.get("cpu"), 2)), ("rss", size(row.get("rss"))), ("rss most", size(row.get("max_rss"))),
             ("GIL wait", percent(gil.get("share"))), ("GC", duration(gc.get("seconds"))),
             ("GC most", duration(gc.get("max"))),
             ("in", size(held.get("input_bytes"))), ("out", size(held.get("output_bytes")))]
    cells = [(name, figure(text, ui.glyphs), style[0] if style else "") for name, text, *style in pairs]
    return [_title(WINDOW_WORDS[ui.window]), *columns_of(cells, cols, ui.glyphs)]


def _slots(row):
    newest = row.get("newest") or {}
    passed = newest.get("age_s") or 0.0 if row.get("life") == "silent" else 0.0
    return [slot_of(place, told, passed) for place, told in enumerate(slots_told(newest.get("fields") or {}))]


def age_words(slot):
    return duration(slot.age) if slot.age is None or runs(slot) else "idle"


def longest_words(slot):
    """The longest request that ended in the tick."""
    return duration(slot.longest if slot.completed else None)


def by_thread(requests, slots):
    """{thread: the active slow request that runs in it}; of two, the one whose age fits its slot's."""
    ages = {slot.thread: slot.age for slot in slots if runs(slot)}
    out, distance = {}, {}
    for request in requests:
        thread = request.get("thread_id") if "slot" not in request else (
            None if request["slot"] is None else request["slot"] + 1)
        if thread in ages:
            away = abs((request.get("age_s") or 0.0) - ages[thread])
            if thread not in out or away < distance[thread]:
                out[thread], distance[thread] = request, away
    return out


def _threads(row, slots, named, cols, glyphs):
    """A Line for each thread that works or has worked in the newest tick."""
    newest = row.get("newest")
    if newest is None:
        return [_title("threads", "no tick yet")]
    # what runs comes first, the oldest of it on top
    shown = sorted((slot for slot in slots if slot.letter != IDLE),
                   key=lambda slot: (-max(0.0, slot.age or 0.0), slot.thread))
    running = sum(map(runs, slots))
    told = f"{running} of {len(slots)} run a request; newest tick {duration(newest.get('age_s'))} old"
    if row.get("life") == "silent" and running:
        told += ", ages count on since"
    lines = [_title("threads", told)]
    if shown:
        lines += table(_thread_columns(named, glyphs), shown, cols, glyphs)
    idle = len(slots) - len(shown)
    if idle:
        lines.append(line(Span(f" {counted(idle, 'thread')} idle for the whole tick", "dim")))
    return lines


def _thread_columns(named, glyphs):
    def told(show):
        return lambda slot: figure(show(slot), glyphs)
    return [Column("", "thread", lambda slot: str(slot.thread), width=6, keep=9),
            Column("", "", lambda slot: slot.letter, slot_style, 1, keep=9),
            Column("", "runs for", told(age_words), width=8, keep=9),
            Column("", "busy", told(lambda slot: percent(slot.busy)), width=5, keep=7),
            Column("", "", lambda slot: meter(slot.busy, 8, glyphs), width=8, keep=2),
            Column("", "cpu", told(lambda slot: percent(slot.cpu)), width=5, keep=4),
            Column("", "done", told(lambda slot: number(slot.completed, 0)), width=4, keep=5),
            Column("", "longest", told(longest_words), width=7, keep=3),
            Column("", "request", lambda slot: request_words(named.get(slot.thread), glyphs), width=12, right=False,
                   keep=8, flex=True)]


def _slow(requests, named, now, cols, glyphs):
    """Slow requests that are not in a thread's line: those that run, then the newest that have ended."""
    running = [each for each in requests if each.get("life") in ("active", "stale") and id(each) not in named]
    ended = [each for each in requests if each.get("life") not in ("active", "stale")]
    ended.sort(key=lambda each: each.get("ended") or 0.0, reverse=True)
    shown = [*running, *ended[:ENDED_SHOWN]]
    if not shown:
        return []
    more = f"the newest {ENDED_SHOWN} of {len(ended)} that have ended" if len(ended) > ENDED_SHOWN else ""
    return [_title("slow requests", more), *table([
        Column("", "thread", lambda each: figure(_told(each.get("thread_id")), glyphs), width=6, keep=5),
        Column("", "state", lambda each: safe(each.get("life") or UNKNOWN, glyphs), width=9, right=False, keep=8),
        Column("", "took", lambda each: seconds(each.get("age_s", each.get("duration")), glyphs), width=8, keep=9),
        Column("", "ended", lambda each: clock(each.get("ended"), now), width=8, keep=4),
        Column("", "status", lambda each: figure(_told(each.get("status")), glyphs), width=6, keep=6),
        Column("", "request", lambda each: request_words(each, glyphs), width=12, right=False, keep=9, flex=True)],
        shown, cols, glyphs)]


def _phases(row, cols, glyphs):
    """Where the newest tick's requests spent their time: what adds up as a bar, the rest in words."""
    fields = (row.get("newest") or {}).get("fields") or {}
    done = fields.get("request_count")
    if not done:
        return []
    parts = [(max(0.0, fields.get(f"{phase}_time") or 0.0), letter, style) for phase, letter, style in PARTS]
    legend = [f"{letter} {phase} {duration(fields.get(f'{phase}_time'))}" for phase, letter, _ in PARTS]
    within = [f"{words} {duration(fields.get(f'{phase}_time'))}" for phase, words in OVERLAPPING]
    told = f"of {counted(done, 'request')} in the newest tick, {duration(fields.get('request_time'))}"
    return [_title("mean request", told),
            line(Span(" "), *stacked(parts, max(0, cols - 2))), line(" " + "  ".join(legend)),
            line(Span(" of which " + ", ".join(within), "dim"))]


def _history(view, ui, cols):
    answer = view.get("process_series")
    if answer is None or answer.get("process", ui.open[2]) != ui.open[2]:
        return [_title("history"), missing(view, "process_series", ui.glyphs)]
    points, names = answer.get("points") or (), answer.get("columns") or ()
    span = (answer.get("step_s") or 0.0) * len(points)
    lines = [_title("history", f"of {duration(span)}, newest at the right; gaps: nothing was received")]
    for title, name, show in HISTORY:
        place = names.index(name) if name in names else None
        values = [None if point is None or place is None or place >= len(point) else point[place] for point in points]
        most = figure(show(max((value for value in values if value is not None), default=None)), ui.glyphs)
        head, tail = f" {title:<8}", f" max {most:>9}"
        drawn = spark(values, cols - len(head) - width(tail), ui.glyphs)
        lines.append(line(Span(head, "dim"), drawn, Span(tail, "dim")))
    return lines


def _interpreters(row, cols, glyphs):
    found = sorted((row.get("gc") or {}).items())
    if not found:
        return []

    def three(name):
        return lambda item: clip("  ".join(number(value, 0) for value in _generations(item[1], name)), 40, glyphs)

    def pressure(item):
        pairs = zip(_generations(item[1], "count"), _generations(item[1], "threshold"))
        return clip("  ".join(f"{number(value, 0)}/{number(limit, 0)}" for value, limit in pairs), 40, glyphs)

    def name(item):
        return clip(safe(item[0], glyphs) or "(main)", max(12, cols // 3), glyphs)

    enabled = {None: UNKNOWN, 0: "off"}
    return [_title("garbage collection", "pressure and collections by generation"), *table([
        Column("", "interpreter", name, width=12, right=False, keep=9),
        Column("", "gc", lambda item: enabled.get(item[1].get("gc_is_enabled"), "on"), width=3, keep=8),
        Column("", "count/threshold", pressure, width=15, keep=7),
        Column("", "collections", three("collections"), width=11, keep=6),
        Column("", "uncollectable", three("uncollectable"), width=13, keep=5)], found, cols, glyphs)]


def _generations(fields, name):
    return [fields.get(f"gc_{name}{generation}") for generation in range(3)]


def _events(answer, now, glyphs):
    events = answer.get("lifecycle_events") or ()
    if not events:
        return []
    return [_title("events", "newest first"), *(
        line(Span(f" {clock(event_time(event), now)} ", "dim"), event_words(event, glyphs))
        for event in reversed(events))]


def _losses(row, glyphs):
    sources = row.get("sources") or {}
    newest = (row.get("newest") or {}).get("fields") or {}
    lines = [_title("datagrams", f"a tick every {duration(row.get('interval'))}, requests are slow from "
                                 f"{duration(row.get('slow_threshold'))}, GIL switch interval "
                                 f"{duration(newest.get('switch_interval'))}")]
    for name, told in sources.items():
        words = [f"{number(told.get(key), 0)} {key}" for key in ("received", "lost", "uncertain", "late", "duplicates")]
        lines.append(line(Span(" " + pad(safe(name, glyphs), 9, glyphs), "dim"),
                          Span(", ".join(words), "warn" if told.get("lost") else "")))
    if row.get("implausible"):
        told = f" {counted(row['implausible'], 'record')} left out of the sums: nonsense in them"
        lines.append(line(Span(told, "warn")))
    return lines
