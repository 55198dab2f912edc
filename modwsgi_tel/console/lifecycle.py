"""Lifecycle: processes as bars over time, each with what became of it, and the log of starts and ends.

Bars are of the newest processes (/api/processes by age), the log is newest first
(/api/lifecycle).  `f` gives either of them the whole screen; the cursor moves over the log, over
the processes where they are alone.
"""
from modwsgi_tel.console.cells import Span, clip, fit, line, pad, restyled, safe, width
from modwsgi_tel.console.keys import Pane, table_of
from modwsgi_tel.console.paging import asked, on_page, page_of, window_of
from modwsgi_tel.console.words import (LIFE_STYLES, axis, clock, event_time, event_words, group_name, group_words,
                                       in_life, marked, missing, wrapped)
from modwsgi_tel.figures import UNKNOWN, duration

FILTERS = (("", "bars and events"), ("bars", "bars alone"), ("events", "events alone"))
# What a bar ends with; the word is beside it where there is room.
LETTERS = {"started": "N", "running": "R", "silent": "S", "stopping": "s", "stopped": "x", "vanished": "V",
           "replaced": "r"}
ENDED = ("stopped", "vanished", "replaced")
EVENTS_STEP = 100                       # events are asked for in such steps: one more key does not ask for others
EVENTS_MOST = 2000                      # and in all
_AXIS_MOST_S = 3600.0                   # what began earlier begins at the left edge: short lives should stay visible
_AXIS_LEAST_S = 10.0
EVENT_STYLES = {"process_vanished": "bad", "process_restarted": "warn", "process_stopping": "warn"}


# --- what is asked --------------------------------------------------------------------------

def _shown(ui):
    return FILTERS[table_of(ui).filter % len(FILTERS)][0]


def _bar_rows(size):
    return max(1, size.rows - 1)


def paths(ui, size):
    cursor, search = table_of(ui).cursor, table_of(ui).search or None
    wanted = {}
    if _shown(ui) != "events":
        page = page_of(cursor if _shown(ui) else 0, _bar_rows(size))
        wanted["bars"] = asked("/api/processes", window=ui.window, sort="age", order="asc", **page, search=search,
                               group=ui.group)
    if _shown(ui) != "bars":
        # what does not match is left out here, so more has to be looked at
        most = EVENTS_MOST if search else min(EVENTS_MOST, ((cursor + size.rows) // EVENTS_STEP + 1) * EVENTS_STEP)
        wanted["events"] = asked("/api/lifecycle", limit=most, group=ui.group)
    return wanted


def count(view, ui):
    if _shown(ui) == "bars":
        return max(0, (view.get("bars") or {}).get("matched") or 0)
    return len(_events(view, ui))


def _events(view, ui):
    """The events that match the search, newest first."""
    found = ((view.get("events") or {}).get("lifecycle_events") or [])[::-1]
    search = table_of(ui).search.casefold()
    return [event for event in found if search in _searched(event)] if search else found


def _searched(event):
    return " ".join(str(event.get(name) or "") for name in (
        "kind", "pid", "hostname", "process_group", "shutdown_reason")).casefold()


# --- the screen -----------------------------------------------------------------------------

def body(view, ui, size):
    if size.rows <= 0 or size.cols <= 0:
        return []
    shown = _shown(ui)
    processes, events = (view.get("bars") or {}).get("processes") or [], _events(view, ui)
    if shown:
        rows = size.rows if shown == "bars" else 0
    else:
        # both have half of the screen, and what the other one does not need
        need = len(processes) + 1 if processes else 1
        rows = min(need, max(size.rows // 2, size.rows - len(events) - 1)) if size.rows >= 5 else 0
    lines = bar_lines(view, ui, processes, size._replace(rows=rows)) if rows else []
    if shown != "bars":
        lines += event_lines(view, ui, events, size._replace(rows=size.rows - len(lines)))
    return [fit(each, size.cols, ui.glyphs) for each in lines[:size.rows]]


def _absent(view, name, what, ui, size):
    """A Line instead of an answer that is not there."""
    if name in view and name not in (view.get("errors") or {}):
        return line(Span(f" {what}: none", "dim"))
    return fit(missing(view, name, ui.glyphs, what), size.cols, ui.glyphs)


# --- bars -----------------------------------------------------------------------------------

def bar_lines(view, ui, processes, size):
    """A Line for each process, the newest first; below them the time."""
    if not processes:
        return [_absent(view, "bars", "processes", ui, size)]
    wall = view["bars"].get("time")
    if _shown(ui) == "bars":
        rows, selected = on_page(ui, view["bars"], processes, _bar_rows(size))
    else:
        rows, selected = processes[:_bar_rows(size)], None
    begin, end = span(rows, wall)
    glyphs = ui.glyphs
    pid = max(len(str(row.get("pid"))) for row in rows)
    several = size.cols >= 120 and len({row.get("hostname") for row in rows}) > 1
    names = [_name(row, several, glyphs) for row in rows]
    name = min(max(map(width, names)), size.cols // (5 if size.cols >= 60 else 8))
    texts = [_became(row, wall, glyphs, size.cols < 80) for row in rows]
    text = min(max(map(width, texts)), size.cols // 3 if size.cols >= 60 else 0)
    cols = max(0, size.cols - pid - name - text - 5)
    lines = []
    for place, (row, who, became) in enumerate(zip(rows, names, texts)):
        style = "good" if row.get("life") == "running" else LIFE_STYLES.get(row.get("life"), "")
        spans = line(marked(f"{str(row.get('pid')):>{pid}} ", place == selected), pad(who, name, glyphs) + " ",
                     Span(bar(row, begin, end, cols, glyphs), style), Span(" " + clip(became, text, glyphs), style))
        lines.append(restyled(spans, "select") if place == selected else spans)
    more = (view["bars"].get("matched") or 0) - len(rows)
    note = f" {more:,} more (f)" if more > 0 and not _shown(ui) else ""
    left = pid + name + 3                           # cells before the bars
    # where it has no place in front of the times, it goes behind them
    before, behind = (note, "") if width(note) <= left else ("", note)
    times = Span(axis(begin, end, cols, glyphs), "dim")
    return [*lines, line(Span(pad(before, left, glyphs), "dim"), times, Span(behind, "dim"))]


def _name(row, several, glyphs):
    name = group_words(row, glyphs)
    return f"{name}@{safe(row.get('hostname') or UNKNOWN, glyphs)}" if several else name


def _became(row, wall, glyphs, short=False):
    """What became of a process, in words: the end of its bar; `short`: where the letter has to tell the life."""
    life = row.get("life") or UNKNOWN
    if life in ("stopping", "stopped"):
        reason = (row.get(life) or row.get("stopping") or {}).get("reason")
        return safe(reason if reason and short else f"{life}: {reason}" if reason else life, glyphs)
    if life == "vanished":
        return f"vanished {clock(row.get('life_since'), wall)}"
    if life in ("started", "running", "silent"):
        return f"{life} {duration(in_life(row, wall))}"
    return safe(life, glyphs)


def span(rows, wall):
    """(begin, end) of the time axis in wall seconds, (None, None) without any.

    From the earliest process that is shown until now.  When that began long ago, short lives
    would be lost in the first cell: then the axis begins a little before the first one that did not.
    """
    begins = [row["first_seen"] for row in rows if row.get("first_seen") is not None]
    if wall is None or not begins:
        return None, None
    first = min(begins)
    if wall - first > _AXIS_MOST_S:
        newer = min((begin for begin in begins if wall - begin <= _AXIS_MOST_S), default=wall - _AXIS_MOST_S)
        first = max(wall - _AXIS_MOST_S, wall - (wall - newer) * 1.1)
    begin = min(first, wall - _AXIS_LEAST_S)
    return (begin, wall) if begin < wall else (None, None)          # times beyond all reason have no seconds


def bar(row, begin, end, cols, glyphs):
    """One life over `cols` cells: full while it was heard, hollow while silent or stopping, a letter at its end."""
    first, last = row.get("first_seen"), row.get("last_seen")
    if cols <= 0 or begin is None or first is None:
        return " " * max(0, cols)
    life, since = row.get("life"), row.get("life_since")
    over = since if life in ENDED and since is not None else last if life in ENDED else end
    over = end if over is None else over
    heard = last if life == "silent" or life == "vanished" else since if life == "stopping" else over

    def cell(at):
        return int(max(0.0, min(1.0, (at - begin) / (end - begin))) * (cols - 1) + 0.5)

    left, right = cell(first), cell(max(first, over))
    full = max(left, min(right, cell(over if heard is None else heard)))
    drawn = glyphs.full * (full - left) + glyphs.part * (right - full)
    if first < begin and drawn:
        drawn = "<" + drawn[1:]
    return pad(" " * left + drawn + LETTERS.get(life, "?"), cols, glyphs)


# --- the log --------------------------------------------------------------------------------

def event_lines(view, ui, events, size):
    """The log, newest first; a head that says how much of it there is."""
    if size.rows <= 0:
        return []
    if not events:
        return [_absent(view, "events", "starts and ends", ui, size)]
    answer = view["events"]
    wall, glyphs, dropped = answer.get("time"), ui.glyphs, answer.get("dropped")
    groups, hosts = ({event.get(name) for event in events} for name in ("process_group", "hostname"))
    several = (len(groups) > 1, len(hosts) > 1)
    # a name that is the same everywhere is told once: lines are short
    group = "" if several[0] else next(iter(groups))
    of = f" of {clip(safe(group, glyphs), max(8, size.cols // 3), glyphs)}" if group else ""
    gone = f"; {dropped:,} older ones dropped (--max-events)" if dropped else ""
    head = f"starts and ends{of}, newest first{gone}"
    lines = [line(Span(f" {head}", "head"))] if size.rows >= 3 or size.rows > len(events) else []
    rows = size.rows - len(lines)
    cursor = min(table_of(ui).cursor, len(events) - 1)
    first = window_of(cursor, rows)
    page, end = [], rows
    for place, event in enumerate(events[first:first + rows], first):
        head = marked(f"{clock(event_time(event), wall)} ", place == cursor)
        text = sentence(event, several, glyphs)
        if place != cursor:
            page.append(line(Span(head, "dim"), Span(text, _style(event))))
            continue
        # the one under the cursor is shown whole
        for number, part in enumerate(wrapped(text, max(1, size.cols - len(head)), glyphs, max(1, min(4, rows)))):
            page.append(line(Span(" " * len(head) if number else head, "select"), Span(part, "select")))
        end = max(rows, len(page))
    return lines + page[end - rows:end]


def _style(event):
    return EVENT_STYLES.get(event.get("kind"), "bad" if event.get("active_requests_at_exit") else "")


def sentence(event, several, glyphs):
    """An event as a sentence; `several`: whether there is more than one group, and host."""
    # events do not tell what kind of process one without a group is
    group = f" of {group_name(event['process_group'], glyphs)}" if several[0] and event.get("process_group") else ""
    host = f" on {safe(event.get('hostname') or UNKNOWN, glyphs)}" if several[1] else ""
    return f"pid {event.get('pid')}{group}{host} {event_words(event, glyphs)}"


PANE = Pane("lifecycle", ("e", "7"), "lifecycle", paths, body, count, filters=FILTERS, hint="f bars, events")
