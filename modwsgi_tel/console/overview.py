"""The overview: how it goes over the chosen window, what is wrong since when, where a request's time goes, each group.

The numbers are those of the summary's window, as in the totals line; the lines are drawn from
points of five seconds (/api/series).  Of a chosen group everything is about that group, but for
the table, which marks it.
"""
from collections import namedtuple

from modwsgi_tel.console.cells import Span, apart, clip, fit, line, line_width, pad, restyled, safe
from modwsgi_tel.console.draw import Column, chart, spark, stacked, table
from modwsgi_tel.console.inside import overview as told_inside
from modwsgi_tel.console.keys import FAR, Pane
from modwsgi_tel.console.paging import asked, shortened
from modwsgi_tel.console.words import (LIVE, OVERLAPPING, PARTS, SEVERITIES, axis, busy_style, clock, errors_style, group_words,
                                       marked, missing, wrapped)
from modwsgi_tel.figures import UNKNOWN, duration, moment, number, percent, size as bytes_text
from modwsgi_tel.wire.fields import PHASES

_NAME_MOST = 20                         # cells of a group's or host's name in the table
_LINES_MOST = 6                         # of one finding's text
_CHART_MOST = 8                         # Lines of one chart, on a very large screen more
_REASON = 1e15                          # no rate, size, time or amount is larger
FINDINGS_SHOWN = 3                      # with their advice, when the screen is short of lines

assert {name for name, *_ in PARTS + OVERLAPPING} | {"request"} == set(PHASES)


def _unit(text, unit):
    return text if text == UNKNOWN else text + unit


def _count(value):
    return number(value, 0)


Gauge = namedtuple("Gauge", "name column shown peak top bad", defaults=(None, lambda now: ""))
Gauge.__doc__ = """One line over time: `name`, its `column` in the series, `shown(now)` the number as text and
`peak(value, step_s)` that of the largest point, `top` what the whole height stands for (None: the largest
point), `bad(now)` its style, "" without trouble."""

GAUGES = (
    Gauge("throughput", "throughput", lambda now: _unit(number(now["throughput"]), " req/s"),
          lambda value, step: number(value)),
    Gauge("busy", "capacity", lambda now: percent(now["capacity"]), lambda value, step: percent(value), 1.0,
          lambda now: busy_style(now["capacity"])),
    Gauge("response", "mean", lambda now: "p95 " + duration(now["p95"]), lambda value, step: "mean " + duration(value)),
    Gauge("5xx errors", "errors", lambda now: _count(now["5xx"]),
          lambda value, step: f"{_count(value)} in {step:.0f} s", None,
          lambda now: errors_style(now["5xx"], now["requests"])),
    Gauge("cpu", "cpu", lambda now: _unit(number(now["cpu"], 2), " cores"), lambda value, step: number(value, 2)),
    Gauge("memory", "rss", lambda now: bytes_text(now["rss"]), lambda value, step: bytes_text(value)),
)


def paths(ui, size):
    wanted = {"series": asked("/api/series", window=ui.window, group=ui.group), "inside": asked("/api/summary", parts="agent")}
    if ui.group is not None:
        # of a group on several hosts nothing else tells its percentiles
        wanted["latency"] = asked("/api/histogram", phase="request", window=ui.window, group=ui.group)
    return wanted


def body(view, ui, size):
    summary = view["summary"]
    wall, rows = summary.get("time"), group_rows(summary, ui)
    now = numbers(view, ui, rows)
    findings = finding_blocks(summary, ui, size.cols, wall)
    inside = told_inside((view.get("inside") or {}).get("agent"), ui.group, size.cols, ui.glyphs)
    phases, groups = phase_lines(now["phases"], ui, size.cols), sorted_groups(summary)
    below = len(inside) + len(phases) + (len(groups) + 1 if groups else 0)
    room = max(size.rows - sum(map(len, findings)) - below, size.rows * 9 // 20)
    gauges = gauge_lines(view, ui, now, size, room)
    first = []
    if size.rows < 2 * len(GAUGES):
        # few lines, and the first of the screen has cut the worst finding: whole, it is worth more than a
        # course; below it comes again with what to do
        first = finding_blocks(summary, ui, size.cols, wall, 0)[:1]
    elif len(gauges) + sum(map(len, findings)) + below > size.rows:
        for advised in (3, 2, 1, FINDINGS_SHOWN):
            # rather the groups without scrolling than every advice; where that cannot be, some of it
            findings = finding_blocks(summary, ui, size.cols, wall, advised)
            if len(gauges) + sum(map(len, findings)) + below <= size.rows:
                break
    lines = [*sum(first, []), *gauges, *sum(findings, []), *inside, *phases]
    if groups:
        start = max(0, min(ui.scroll, len(lines) + len(groups) + 1 - size.rows)) - len(lines) - 1
        lines += group_lines(groups, ui, size.cols, max(0, start), max(0, start + size.rows))
    return shortened(lines, ui, size)


# --- numbers --------------------------------------------------------------------------------

def group_rows(summary, ui):
    """The summary's rows of the chosen group, one for each host; all without one."""
    return [row for row in summary.get("groups") or () if ui.group is None or row.get("process_group") == ui.group]


def numbers(view, ui, rows):
    """What the gauges and the phases show: {"throughput", "capacity", "cpu", "rss", "p95", "5xx", "requests",
    "phases"}.
    """
    if ui.group is None:
        window = window_of(view["summary"].get("totals"), ui)
    elif len(rows) == 1:
        window = window_of(rows[0], ui)
    else:
        window = together([window_of(row, ui) for row in rows])
    phases = window.get("phases") or {}
    request = phases.get("request") or {}
    p95 = request.get("p95")
    if p95 is None and len(rows) > 1:
        p95 = (view.get("latency") or {}).get("p95")
    return {"throughput": window.get("throughput"), "capacity": window.get("capacity"), "cpu": window.get("cpu"),
            "rss": _sum(row.get("rss") for row in rows), "p95": p95, "5xx": (window.get("status") or {}).get("5xx"),
            "requests": window.get("requests"), "phases": phases}


def window_of(row, ui):
    return ((row or {}).get("windows") or {}).get(ui.window) or {}


def _sum(values):
    values = [value for value in values if value is not None]
    return sum(values) if values else None


def _mean(pairs):
    """The mean of (value, weight), None without any."""
    pairs = [(value, weight) for value, weight in pairs if value is not None and weight]
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs) if pairs else None


def together(windows):
    """Windows of one group on several hosts as one: sums; means by requests, capacity by ticks; no percentiles."""
    out = {name: _sum(window.get(name) for window in windows) for name in ("throughput", "cpu", "requests")}
    out["capacity"] = _mean((window.get("capacity"), window.get("ticks")) for window in windows)
    out["status"] = {"5xx": _sum((window.get("status") or {}).get("5xx") for window in windows)}
    out["phases"] = {}
    for phase in PHASES:
        held = [((window.get("phases") or {}).get(phase) or {}, window.get("requests")) for window in windows]
        if any(told for told, _ in held):
            out["phases"][phase] = {"mean": _mean((told.get("mean"), requests) for told, requests in held)}
    return out


# --- over time ------------------------------------------------------------------------------

def columns(series):
    """(begin in wall seconds, step in seconds, {column: values}) of a /api/series; None where nothing was received."""
    points, step = series.get("points") or [], series.get("step_s") or 5.0
    places = {name: place for place, name in enumerate(series.get("columns") or ())}
    values = {}
    for name in ("time", *(gauge.column for gauge in GAUGES)):
        place = places.get(name, FAR)
        # nothing that is drawn is below 0, and what is beyond all reason would overflow
        values[name] = [None if point is None or place >= len(point) or point[place] is None
                        else max(0.0, min(_REASON, point[place])) for point in points]
    told = [(place, at) for place, at in enumerate(values["time"]) if at is not None]
    end = series.get("time")
    begin = told[0][1] - told[0][0] * step if told else None if end is None else end - len(points) * step
    return begin, step, values


def gauge_lines(view, ui, now, size, room):
    """All gauges: as charts where `room` Lines are enough for them, else a line each; the time below."""
    begin, step, values = columns(view.get("series") or {})
    end = None if begin is None else begin + step * len(values["time"])
    failed = "series" in (view.get("errors") or {})
    note = [fit(missing(view, "series", ui.glyphs, "no lines"), size.cols, ui.glyphs)] if failed else []
    across = 3 if size.cols >= 240 else 2 if size.cols >= 120 else 1
    rows = min(max(_CHART_MOST, size.rows // 6), (room - 1) // (len(GAUGES) // across) - 1)
    if rows >= 3 and size.cols >= 60:
        return note + charts(values, step, begin, end, now, across, rows, ui.glyphs, size.cols)
    return note + sparks(values, step, begin, end, now, ui.glyphs, size)


def _peak(gauge, values, step, now):
    """The largest point as text; the number of now counts as one, for it may be newer than all points."""
    top = max((value for value in (*values, now.get(gauge.column)) if value is not None), default=None)
    return UNKNOWN if top is None else gauge.peak(top, step)


def sparks(values, step, begin, end, now, glyphs, size):
    """A Line for each gauge: name, number, its course, the largest point; below them the time, unless lines are few."""
    wide = 18 if size.cols >= 64 else 0
    cols = max(0, size.cols - 27 - wide)
    lines = []
    for gauge in GAUGES:
        course = values[gauge.column]
        bad = gauge.bad(now)
        lines.append(line(Span(("!" if bad == "bad" else " ") + f"{gauge.name:<11}", bad or "dim"),
                          Span(pad(gauge.shown(now), 13, glyphs, right=True) + "  ", bad or "bold"),
                          Span(spark(course, cols, glyphs, gauge.top), bad or "accent"),
                          Span(f" max {_peak(gauge, course, step, now)}" if wide else "", "dim")))
    if size.rows >= 14 and cols >= 8:
        lines.append(line(" " * 27, Span(axis(begin, end, cols, glyphs), "dim")))
    return [fit(each, size.cols, glyphs) for each in lines]


def charts(values, step, begin, end, now, across, rows, glyphs, size_cols):
    """The gauges as charts of `rows` Lines, `across` of them side by side."""
    cols = (size_cols - 1 - 3 * (across - 1)) // across
    lines = []
    for first in range(0, len(GAUGES), across):
        blocks = [_panel(gauge, values[gauge.column], step, now, rows, cols, glyphs)
                  for gauge in GAUGES[first:first + across]]
        for parts in zip(*blocks):
            spans = (Span(" "),)
            for place, part in enumerate(parts):
                spans += ((Span("   "),) if place else ()) + part + (Span(" " * (cols - line_width(part))),)
            lines.append(spans)
    times = axis(begin, end, cols, glyphs)
    return [*lines, line(Span(" " + "   ".join([times] * across), "dim"))]


def _panel(gauge, course, step, now, rows, cols, glyphs):
    """A head and a chart; a line at the bottom is "nothing", a gap is "not known"."""
    bad = gauge.bad(now)
    name = Span(("!" if bad == "bad" else " ") + gauge.name + " ", bad or "dim")
    head = apart(line(name, Span(gauge.shown(now), bad or "bold")),
                 line(Span(f"max {_peak(gauge, course, step, now)}", "dim")), cols, glyphs)
    drawn = course
    if 0 < len(course) < cols:
        drawn = [course[place * len(course) // cols] for place in range(cols)]
    lines = chart(drawn, rows, cols, glyphs, gauge.top, bad or "accent")
    if lines and len(drawn) == cols:
        bottom = lines[-1][0]
        text = "".join(glyphs.line if char == " " and value is not None else char
                       for char, value in zip(bottom.text, drawn))
        lines[-1] = line(Span(text, bottom.style))
    return [head, *lines]


# --- what is wrong --------------------------------------------------------------------------

def finding_blocks(summary, ui, cols, wall, advised=None):
    """Lines of every finding that is about what is shown, a list for each: severity, text, since when, what to do.

    `advised`: only so many of them with the last two.
    """
    found = summary.get("findings") or []
    here = [each for each in found if ui.group is None or each.get("process_group") in (None, ui.group)]
    blocks, told = [], set()
    for place, each in enumerate(here):
        said = advised is None or place < advised
        # what was advised above need not be said again
        blocks.append(_finding(each, wall, cols, ui.glyphs, said, each.get("advice") not in told))
        told.update((each.get("advice"),) if said else ())
    if len(found) > len(here):
        blocks.append([line(Span(f" {len(found) - len(here)} more about other groups (G)", "dim"))])
    return blocks


def _finding(finding, wall, cols, glyphs, advised, new):
    """Lines of one; `advised`: with since when and what to do, the latter only where it is `new`."""
    severity = safe(str(finding.get("severity") or UNKNOWN), glyphs)[:8]
    style = SEVERITIES.get(severity, "warn")
    text = safe(finding.get("text") or UNKNOWN, glyphs)
    indent, head = (10, f" {severity:<9}") if cols >= 60 else (2, "! ")
    told = wrapped(text if indent > 2 else f"{severity}: {text}", cols - indent, glyphs, _LINES_MOST)
    lines = [line(Span(" " * indent if number else head, style), Span(part, style)) for number, part in enumerate(told)]
    if not advised:
        return lines
    below = " ".join(part for part in (_since(finding, text, wall), finding.get("advice") if new else "") if part)
    return lines + [line(Span(" " * indent + part, "dim"))
                    for part in wrapped(safe(below, glyphs), cols - indent, glyphs, _LINES_MOST) if part]


def _since(finding, text, wall):
    """`since 03:12:40.`; "" where that is not known, or its text has said so."""
    since = finding.get("since")
    if since is None or wall is None or f"since {moment(since, wall)}" in text:
        return ""
    told = clock(since, wall)
    return "" if told == UNKNOWN else f"since {told}."


# --- where the time goes --------------------------------------------------------------------

def phase_lines(phases, ui, cols):
    """The mean of a request as a bar of its phases, with a legend, and what overlaps the application."""
    told = [(name, letter, style, (phases.get(name) or {}).get("mean")) for name, letter, style in PARTS]
    shares = [(None if value is None else max(0.0, min(_REASON, value)), letter, style)
              for _, letter, style, value in told]
    total = (phases.get("request") or {}).get("mean")
    if total is None or not any(share for share, _, _ in shares):
        return [line(Span(" no request in this window", "dim"))]
    mean = f"mean {duration(total)}"
    room = max(0, cols - 12 - 2 - len(mean))
    bar = stacked(shares, min(room, 120))
    lines = [line(Span(" a request ", "dim"), " ", *bar, "  ", Span(mean, "bold"))]
    parts = [(letter, f" {name} {duration(value)}", style) for name, letter, style, value in told if value is not None]
    lines += _flowed([line(Span(letter, style), text) for letter, text, style in parts], cols, 12)
    beside = [f"{shown} {duration(phases[name]['mean'])}" for name, shown in OVERLAPPING
              if (phases.get(name) or {}).get("mean") is not None]
    if beside:
        lines += _flowed([line(Span("" if place else "of which ", "dim"), text) for place, text in enumerate(beside)],
                         cols, 12)
    return [fit(each, cols, ui.glyphs) for each in lines]


def _flowed(parts, cols, indent):
    """Lines of Lines one behind another, as many as fit."""
    indent = indent if cols >= 100 else 2
    lines, now = [], ()
    for part in parts:
        if now and line_width(now) + 2 + line_width(part) > cols:
            lines.append(now)
            now = ()
        now += ((Span("  ") if now else Span(" " * indent)),) + part
    return lines + ([now] if now else [])


# --- groups ---------------------------------------------------------------------------------

def sorted_groups(summary):
    """The summary's groups, those that live first, by their names."""
    return sorted(summary.get("groups") or (), key=lambda row: (
        not _alive(row), row.get("process_group") or "", row.get("hostname") or ""))


def group_lines(groups, ui, cols, first=0, last=None):
    """The table of groups; only those from `first` to `last` are drawn, the others are blank: there may be hundreds."""
    several = len({row.get("hostname") for row in groups}) > 1
    shown = [column for column in group_columns(ui) if several or column.name != "host"]
    drawn = groups[first:last]
    lines = table(shown, drawn, cols, ui.glyphs)
    rows = [each if _alive(row) else restyled(each, "dim") for each, row in zip(lines[1:], drawn)]
    return [lines[0], *[line()] * min(first, len(groups)), *rows, *[line()] * (len(groups) - first - len(rows))]


def _lives(row):
    return row.get("lives") or {}


def _alive(row):
    return sum(_lives(row).get(life) or 0 for life in LIVE)


def _processes(row):
    """`4`, or `3/4` when one of four is not running."""
    alive, fine = _alive(row), sum(_lives(row).get(life) or 0 for life in ("started", "running"))
    return str(alive) if fine == alive else f"{fine}/{alive}"


def _threads(row):
    threads = row.get("threads") or {}
    return f"{_count(threads.get('active'))}/{_count(threads.get('maximum'))}" if threads else UNKNOWN


def group_columns(ui):
    glyphs = ui.glyphs

    def window(row):
        return window_of(row, ui)

    def phase(name, figure):
        return lambda row: duration(((window(row).get("phases") or {}).get(name) or {}).get(figure))

    def name(row):
        return marked(clip(group_words(row, glyphs), _NAME_MOST, glyphs), chosen(row))

    def chosen(row):
        return ui.group is not None and row.get("process_group") == ui.group

    def host(row):
        return clip(safe(row.get("hostname") or UNKNOWN, glyphs), _NAME_MOST, glyphs)

    def errors(row):
        return (window(row).get("status") or {}).get("5xx")

    def busy(row):
        return window(row).get("capacity")

    return (
        Column("group", " group", name, lambda row: "accent" if chosen(row) else "", 8, False, 9),
        Column("host", "host", host, right=False, keep=6),
        Column("processes", "procs", _processes, lambda row: "warn" if "/" in _processes(row) else "", keep=8),
        Column("throughput", "req/s", lambda row: number(window(row).get("throughput")), keep=9),
        Column("p50", "p50", phase("request", "p50"), keep=4),
        Column("p95", "p95", phase("request", "p95"), keep=9),
        Column("p99", "p99", phase("request", "p99"), keep=3),
        Column("max", "longest", phase("request", "max"), keep=1),
        Column("queue", "queue p95", phase("queue", "p95"), keep=6),
        Column("busy", "busy", lambda row: percent(busy(row)), lambda row: busy_style(busy(row)), keep=8),
        Column("threads", "used", _threads, keep=1),
        Column("cpu", "cpu", lambda row: number(window(row).get("cpu"), 2), keep=5),
        Column("rss", "rss", lambda row: bytes_text(row.get("rss")), keep=5),
        Column("5xx", "5xx", lambda row: _count(errors(row)),
               lambda row: errors_style(errors(row), window(row).get("requests")), keep=8),
        Column("slow", "slow", lambda row: _count(row.get("slow_active")),
               lambda row: "warn" if row.get("slow_active") else "", keep=7),
        Column("gil", "GIL wait", lambda row: percent((window(row).get("gil") or {}).get("share")), keep=2),
        Column("lost", "lost", lambda row: _count(row.get("lost")), keep=2),
        Column("ended", "stopped", lambda row: _count(row.get("stopped")), keep=1),
        Column("vanished", "vanished", lambda row: _count(row.get("vanished")), keep=1),
    )


PANE = Pane("overview", ("o", "1"), "overview", paths, body, hint="G group  < > window")
