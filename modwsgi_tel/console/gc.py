"""Garbage collection: a table of all interpreters, and the pauses of the one that Enter opened."""
from bisect import bisect_right

from modwsgi_tel.console.cells import Span, clip, fit, line, safe, width
from modwsgi_tel.console.draw import Column, chart, meter, table
from modwsgi_tel.console.keys import Pane, table_of
from modwsgi_tel.console.paging import asked, on_page, page_of, row_under, scrolled
from modwsgi_tel.console.words import (WINDOW_WORDS, counted, figure, group_words, marked, missing, seconds, whole)
from modwsgi_tel.figures import UNKNOWN, duration, number, percent

GENERATIONS = 3
HEAD_LINES = 2                          # how many there are, and the heads of the columns
WIDE_HEAD = 80                          # cells: from here on the head names the figures that are a whole process's
METER = 6                               # cells of the fullest generation's bar
DETAIL_ROWS = 6                         # below the table: the interpreter under the cursor
DETAIL_FROM = 15                        # rows of the body from which it is there
NEAR = 140                              # cells: from here on a name takes what it needs, not what is left
NAME_MOST = 127                         # cells of a name: mod_wsgi cuts its own there, escaped it may be longer
TIMELINE_LEAST, LENGTHS_LEAST = 3, 2    # rows of bars, or there are none
CHARTS_LEAST = TIMELINE_LEAST + LENGTHS_LEAST + 4       # with the names above and the axes below
SIDE = 9                                # cells of a chart's scale
SPANS_S = (15, 30, 60, 120, 300, 600, 1800, 3600)       # that a timeline may cover, the least that holds all
# where the bars of pauses begin, but for the first
LENGTHS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BAR_MOST = 12                           # cells of one of them
LASTS_MOST_S = 1e6                      # of one pause
LATE_S = 60.0                           # a stamp may be so much ahead of the collector's clock and still be meant


def _paths(ui, size):
    wanted = {"gc": asked("/api/gc", window=_window(ui), **page_of(table_of(ui).cursor, _rows(size)), group=ui.group)}
    if ui.open is not None:
        wanted["gc_events"] = asked("/api/gc/events", process=ui.open[1], interpreter=ui.open[2])
    return wanted


def _window(ui):
    """Ticks do not tell of pauses: `now` is the last minute here."""
    return "1m" if ui.window == "now" else ui.window


def _rows(size):
    """Rows of the table on a body of this size."""
    return max(1, size.rows - HEAD_LINES - (DETAIL_ROWS if size.rows >= DETAIL_FROM else 0))


def _count(view, ui):
    return view.get("gc", {}).get("matched") or 0


def _row(view, ui):
    answer = view.get("gc") or {}
    row = row_under(ui, answer, answer.get("interpreters") or ())
    return None if row is None else ("gc", row.get("process"), row.get("interpreter") or "")


def _body(view, ui, size):
    lines = _opened(view, ui, size) if ui.open is not None else _table(view, ui, size)
    return [fit(each, size.cols, ui.glyphs) for each in lines[:size.rows]]


def _name(row, glyphs):
    return safe(row.get("interpreter") or "(main)", glyphs)


# --- the table ------------------------------------------------------------------------------

def _table(view, ui, size):
    answer = view.get("gc")
    if answer is None:
        return [missing(view, "gc", ui.glyphs)]
    rows, place = on_page(ui, answer, answer.get("interpreters") or (), _rows(size))
    if not rows:
        return [line(), line(" No interpreter of a process that lives has told of its garbage collector."),
                line(Span(" mod_wsgi sends that at each tick, once an application is loaded.", "dim"))]
    chosen = None if place is None else rows[place]
    columns = _columns(ui, size.cols, chosen)
    of = f"process, {WINDOW_WORDS[_window(ui)]}"
    if size.cols >= WIDE_HEAD:
        of = f"share, time, longest, pauses: whole {of}"
    matched = answer.get("matched")
    number_of = counted(len(rows) if matched is None else matched, "interpreter")
    lines = [line(Span(f" {number_of}", "bold"), Span(f"  {of}", "dim")),
             *table(columns, rows, size.cols, ui.glyphs, selected=place)]
    if size.rows >= DETAIL_FROM and chosen is not None:
        lines += _detail(chosen, size.cols, ui.glyphs)
    return lines


def _columns(ui, cols, chosen):
    """The columns of the table; `chosen`: the row under the cursor."""
    glyphs = ui.glyphs

    def window(name, make):
        return lambda row: figure(make((row.get("window") or {}).get(name)), glyphs)

    def total(name):
        return lambda row: whole(_sum(row.get(name)), glyphs)

    def name(row):
        return clip(_name(row, glyphs), NAME_MOST, glyphs)

    def lost_style(row):
        return "bad" if row.get("dropped_events") else ""

    # on a wide terminal the figures shall stand near the name that they belong to
    near = cols >= NEAR
    return [
        Column("pid", "pid", lambda row: marked(str(row.get("pid") or UNKNOWN), row is chosen), width=6, keep=9),
        Column("group", "group", lambda row: clip(group_words(row, glyphs), 12, glyphs), right=False,
               keep=4 if ui.group is None else 0),
        Column("interpreter", "interpreter", name, width=11, right=False, keep=9, flex=not near),
        Column("enabled", "gc", _enabled, _enabled_style, 3, False, 7),
        Column("pressure", "gen 0 1 2", lambda row: _pressures(row, glyphs), right=False, keep=6 if near else 3),
        Column("fullest", "fullest", lambda row: _fullest_meter(row, glyphs), _fullest_style, right=False, keep=4),
        Column("share", "share", window("share", percent), _share_style, 5, keep=9),
        Column("seconds", "time", window("seconds", duration), width=7, keep=8),
        Column("max", "longest", window("max", duration), width=7, keep=8),
        Column("pauses", "pauses", window("pauses", lambda value: number(value, 0)), keep=6),
        Column("lost", "lost", lambda row: whole(row.get("dropped_events"), glyphs), lost_style, 4, keep=5),
        Column("collections", "collections", total("collections"), keep=1),
        Column("uncollectable", "uncoll", total("uncollectable"), keep=1),
    ]


def _sum(values):
    known = [value for value in values or () if value is not None]
    return sum(known) if known else None


def _enabled(row):
    return {True: "on", False: "OFF", None: UNKNOWN}[row.get("enabled")]


def _enabled_style(row):
    return "warn" if row.get("enabled") is False else ""


def _share_style(row):
    share = (row.get("window") or {}).get("share") or 0
    return "bad" if share >= 0.2 else "warn" if share >= 0.05 else ""


def _of(row, name, generation):
    """A figure of one generation, or None."""
    values = row.get(name) or ()
    return values[generation] if generation < len(values) else None


def _ratio(row, generation):
    """How full a generation is, 0 to 1; None without a threshold (0: it is not collected by itself)."""
    count, threshold = _of(row, "count", generation), _of(row, "threshold", generation)
    return None if count is None or not threshold else max(0.0, min(1.0, count / threshold))


def _pressure(row, generation, glyphs):
    count, threshold = _of(row, "count", generation), _of(row, "threshold", generation)
    return f"{_told(count, glyphs)}/{_told(threshold, glyphs)}"


def _told(value, glyphs):
    return UNKNOWN if value is None else figure(str(value), glyphs)


def _pressures(row, glyphs):
    if not row.get("count"):
        return UNKNOWN
    return " ".join(_pressure(row, generation, glyphs) for generation in range(GENERATIONS))


def _fullest(row):
    ratios = [_ratio(row, generation) for generation in range(GENERATIONS)]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _fullest_meter(row, glyphs):
    return meter(_fullest(row), METER, glyphs) if _fullest(row) is not None else UNKNOWN


def _fullest_style(row):
    return "warn" if (_fullest(row) or 0) >= 1 else ""


# --- the interpreter under the cursor -------------------------------------------------------

def _detail(row, cols, glyphs):
    """DETAIL_ROWS Lines: what its generations hold."""
    title = f" {_told(row.get('pid'), glyphs)} {group_words(row, glyphs)} {_name(row, glyphs)} "
    room = max(1, cols - 2)
    title = clip(title, room, glyphs)
    lines = [line(Span(glyphs.line, "dim"), Span(title, "bold"), Span(glyphs.line * (room + 1 - width(title)), "dim"))]
    lines += _generations(row, cols, glyphs)
    return [*lines, _state(row, glyphs)]


def _generations(row, cols, glyphs):
    def told(name):
        return lambda generation: whole(_of(row, name, generation), glyphs)

    def full(generation):
        ratio = _ratio(row, generation)
        return UNKNOWN if ratio is None else f"{meter(ratio, METER, glyphs)} {percent(ratio)}"

    def pressure(generation):
        return _pressure(row, generation, glyphs)

    columns = [
        Column("generation", " gen", lambda generation: f" {generation}", right=False, keep=9),
        Column("pressure", "count/threshold", pressure, right=False, keep=9),
        Column("full", "full", full, width=METER + 6, right=False, keep=8),
        *(Column(name, name, told(name), keep=7) for name in ("collections", "collected", "uncollectable"))]
    return table(columns, range(GENERATIONS), cols, glyphs, gap=2)


def _state(row, glyphs):
    """What must be known of it, in words."""
    lost = row.get("dropped_events")
    disabled = "Disabled: only gc.collect() collects.  " if row.get("enabled") is False else ""
    told = Span(f"pauses lost at its last tick {whole(lost, glyphs)}", "bad" if lost else "")
    return line(" ", Span(disabled, "warn"), told, f"  frozen {whole(row.get('frozen'), glyphs)}")


# --- one interpreter ------------------------------------------------------------------------

def _opened(view, ui, size):
    glyphs, answer = ui.glyphs, view.get("gc_events")
    row = next((row for row in view.get("gc", {}).get("interpreters", ())
                if (row.get("process"), row.get("interpreter") or "") == ui.open[1:]), None)
    lines = [_title(row, ui, glyphs)]
    if answer is None or (answer.get("process"), answer.get("interpreter") or "") != ui.open[1:]:
        return [*lines, missing(view, "gc_events", glyphs)]
    events, unusable = _usable(answer)
    if not events:
        lines += [line(), line(" No pause of it is known."),
                  line(Span(" Either it has not collected of late, or its pauses are not sent (gc_event).", "dim"))]
        return lines if row is None else [*lines, _state(row, glyphs)]
    lines.append(_told_pauses(events, answer, unusable, glyphs))
    below = _by_generation(events, size.cols, glyphs) + ([] if row is None else [_state(row, glyphs)])
    spare = size.rows - len(lines) - len(below) - CHARTS_LEAST
    if spare >= 0:
        lines += _timeline(events, answer, TIMELINE_LEAST + spare - spare * 2 // 5, size.cols, glyphs)
        lines += _lengths(events, LENGTHS_LEAST + spare * 2 // 5, size.cols, glyphs)
    return scrolled(lines + below, ui.scroll, size.rows)


def _title(row, ui, glyphs):
    named = safe(ui.open[2] or "(main)", glyphs)
    if row is None:
        return line(" interpreter ", Span(named, "bold"), Span("  (its row is not on this page any more)", "dim"))
    window = row.get("window") or {}
    share = figure(percent(window.get("share")), glyphs)
    told = (f"  {share} of the time, {seconds(window.get('seconds'), glyphs)} in "
            f"{whole(window.get('pauses'), glyphs)} pauses (process, {WINDOW_WORDS[_window(ui)]})")
    return line(Span(f" {_told(row.get('pid'), glyphs)} {group_words(row, glyphs)} {named}", "bold"), told)


def _usable(answer):
    """(events with a start and a duration that can be drawn, how many had none)."""
    now, events = answer.get("time") or 0.0, []
    for event in answer.get("events", ()):
        start, lasted = event.get("start"), event.get("duration")
        told = start is not None and lasted is not None
        if told and 0 <= lasted < LASTS_MOST_S and now - SPANS_S[-1] <= start <= now + LATE_S:
            events.append(event)
    return events, len(answer.get("events", ())) - len(events)


def _told_pauses(events, answer, unusable, glyphs):
    longest = max(event["duration"] for event in events)
    parts = [f" {counted(len(events), 'pause')}, {duration(_in_all(events))} in all, ",
             Span(f"the longest {duration(longest)}", "bold")]
    if answer.get("earlier"):
        parts.append(Span(f"  {whole(answer['earlier'], glyphs)} older ones not shown", "dim"))
    if unusable:
        parts.append(Span(f"  {unusable:,} with no usable time", "warn"))
    return line(*parts)


def _timeline(events, answer, rows, cols, glyphs):
    """Seconds of pause in each cell of time, now at the right end; `rows` Lines and two for the axis and its name."""
    now = answer.get("time") or 0.0
    age = max(now - event["start"] for event in events)
    # where older ones were left out the time before is not without pauses, but unknown
    span = max(1.0, age) if answer.get("earlier") else next(each for each in SPANS_S if each >= age)
    wide = max(1, min(600, cols - SIDE - 1))
    sums = [0.0] * wide
    for event in events:
        place = int((event["start"] - now + span) / span * wide)
        sums[max(0, min(wide - 1, place))] += event["duration"]
    name = f"pauses in each {duration(span / wide)}"
    return _scaled(sums, rows, wide, duration(max(sums)), name, glyphs) + [
        _below(f"{duration(span)} ago", "now", wide)]


def _scaled(values, rows, wide, highest, name, glyphs):
    """A chart behind its scale: its name above it, the highest value at its top."""
    lines = [line(Span(f" {name}", "accent"))]
    for place, drawn in enumerate(chart(values, rows, wide, glyphs, style="accent")):
        scale = clip(highest, SIDE - 1, glyphs) if not place else ""
        lines.append(line(Span(f"{scale:>{SIDE - 1}}{glyphs.bar}", "dim"), *drawn))
    return lines


def _below(left, right, wide):
    """A Line below a chart: what both its ends are."""
    return line(Span(" " * SIDE + left + " " * max(1, wide - len(left) - len(right)) + right, "dim"))


def _lengths(events, rows, cols, glyphs):
    """How many pauses were how long: a bar for each step of LENGTHS_S; `rows` Lines and two."""
    counts = [0] * (len(LENGTHS_S) + 1)
    for event in events:
        counts[bisect_right(LENGTHS_S, event["duration"])] += 1
    each = max(1, min(BAR_MOST, (cols - SIDE) // len(counts)))
    bar = max(1, each - 1)
    values = [value for count in counts for value in [count] * bar + [0] * (each - bar)]
    # what is said below a bar is where it begins
    named = ["<0.1", *(f"{edge * 1000:g}" if edge < 1 else ">1 s" for edge in LENGTHS_S)]
    labels = "".join(f"{label:<{each}}" for label in named) if each >= 5 else ""
    name = "pauses by length, each bar from so many ms"
    return _scaled(values, rows, len(values), f"{max(counts):,}", name, glyphs) + [
        line(Span(" " * SIDE + labels.rstrip(), "dim"))]


def _by_generation(events, cols, glyphs):
    rows = [(generation, [event for event in events if event.get("generation") == generation])
            for generation in range(GENERATIONS)]

    def told(make):
        return lambda row: figure(make(row[1]), glyphs) if row[1] else UNKNOWN

    def summed(name):
        return told(lambda of: number(_sum([event.get(name) for event in of]), 0))

    columns = [
        Column("generation", " gen", lambda row: f" {row[0]}", right=False, keep=9),
        Column("pauses", "pauses", lambda row: f"{len(row[1]):,}", keep=9),
        Column("mean", "mean", told(lambda of: duration(_in_all(of) / len(of))), width=8, keep=8),
        Column("max", "longest", told(lambda of: duration(max(event["duration"] for event in of))), width=8, keep=8),
        Column("seconds", "in all", told(lambda of: duration(_in_all(of))), width=8, keep=7),
        *(Column(name, name, summed(name), keep=6) for name in ("collected", "uncollectable"))]
    return table(columns, rows, cols, glyphs, gap=2)


def _in_all(events):
    return sum(event["duration"] for event in events)


PANE = Pane("gc", ("g", "6"), "gc", _paths, _body, _count, _row, hint="Enter its pauses  < > window  G group")
