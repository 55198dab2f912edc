"""Latency: the histogram of one phase of the requests, its percentiles marked, beside the p95 of all phases."""
from modwsgi_tel.console.cells import Span, clip, fit, line, line_width, safe, width
from modwsgi_tel.console.draw import Column, chart, table
from modwsgi_tel.console.keys import Pane
from modwsgi_tel.console.paging import asked
from modwsgi_tel.console.words import WINDOW_WORDS, counted, figure, group_name, marked, missing, seconds, whole
from modwsgi_tel.figures import UNKNOWN, duration, number, percent
from modwsgi_tel.wire.buckets import BUCKETS, LOWER_S, OVERFLOW_S, UPPER_S
from modwsgi_tel.wire.fields import PHASES

MEANINGS = {
    "server": "in Apache, until it passes the request on",
    "queue": "until a daemon process takes it",
    "daemon": "in the daemon process, until a thread has it",
    "application": "in the application",
    "request": "server + queue + daemon + application",
    "gil_wait": "waits for the GIL, in application",
    "input_read": "reads of the body, in application",
    "output_write": "writes of the response, in application",
}
DAEMON_ONLY = frozenset(("queue", "daemon"))
READINGS = {
    "transient": "waits are short",
    "compounding": "waits add up",
    "convoy": "threads wait in line",
}
MARKS = ("p50", "p95", "p99", "max")
# what is labelled on the axis when there is room for all, or for the coarser ones only
TICKS_S = tuple(tuple(step * 10 ** power / 1000 for power in range(5) for step in steps)
                for steps in ((1, 2, 5), (1,)))
LEAST_BUCKETS = 16                      # 4 octaves: one full bucket alone is no picture
SIDE_GAP = 2
WIDE_PHASES = 80                        # cells that the line of all phases takes
LEAST_CHART = 3                         # rows of bars that have marks below them
LEAST_COLS = 24                         # cells: with fewer there are the numbers alone
SHORT, TALL = 8, 26                     # rows: from here on notes, and a table of all phases, stand below


def _paths(ui, size):
    return {"histogram": asked("/api/histogram", phase=ui.phase, window=ui.window, group=ui.group)}


def _body(view, ui, size):
    lines = _phases_line(view, ui, size.cols)
    answer = view.get("histogram")
    failed = "histogram" in (view.get("errors") or {})
    if answer is None or not _is_of(answer, ui):
        lines.append(missing(view if failed and answer is None else {}, "histogram", ui.glyphs))
    else:
        lines += _histogram(answer, view, ui, size.rows - len(lines), size.cols)
    return [fit(each, size.cols, ui.glyphs) for each in lines[:size.rows]]


def _is_of(answer, ui):
    """Whether an answer is to what is chosen now, not to what was before the last key."""
    return (answer.get("phase"), answer.get("window"), answer.get("group")) == (ui.phase, ui.window, ui.group)


# --- the phases -----------------------------------------------------------------------------

def _figures(view, ui):
    """{phase: its figures} of the window and the group chosen; {} when several hosts have a group of that name."""
    summary = view.get("summary", {})
    held = [summary["totals"]] if ui.group is None and "totals" in summary else [
        group for group in summary.get("groups", ()) if group.get("process_group") == ui.group]
    return held[0].get("windows", {}).get(ui.window, {}).get("phases") or {} if len(held) == 1 else {}


def _phases_line(view, ui, cols):
    """All phases, the chosen one marked, each with its p95 below."""
    if cols < WIDE_PHASES:
        place = PHASES.index(ui.phase) + 1
        return [line(Span(" >", "accent"), Span(ui.phase, "select"), Span(f"  {place} of {len(PHASES)}: [ ]", "dim"))]
    figures = _figures(view, ui)
    names, below = [Span("   ")], [Span("p95", "dim")]
    for phase in PHASES:
        chosen = phase == ui.phase
        wide = max(len(phase), 7)
        text = clip(duration((figures.get(phase) or {}).get("p95")), wide, ui.glyphs)
        names += [Span(">" if chosen else " ", "accent"), Span(phase, "select" if chosen else ""),
                  Span(" " * (wide - len(phase)))]
        below += [Span(" "), Span(text.ljust(wide), "bold" if chosen else "")]
    return [line(*names), line(*below)]


def _phases_table(view, ui, cols):
    figures = _figures(view, ui)

    def told(name):
        return lambda phase: seconds((figures.get(phase) or {}).get(name), ui.glyphs)

    columns = [Column("phase", " phase", lambda phase: marked(phase, phase == ui.phase), right=False, keep=9)]
    columns += [Column(name, name, told(name), width=8, right=True) for name in ("mean", *MARKS)]
    columns.append(Column("meaning", "time", MEANINGS.get, right=False, keep=1))
    return [line(), *table(columns, PHASES, cols, ui.glyphs, gap=2)] if figures else []


# --- the histogram --------------------------------------------------------------------------

def _histogram(answer, view, ui, rows, cols):
    glyphs, counts = ui.glyphs, _counts(answer)
    where = "of all groups" if ui.group is None else f"of {group_name(ui.group, glyphs)}"
    named = f" {ui.phase}: " if cols >= WIDE_PHASES else " "
    requests = counted(answer.get("requests") or 0, "request")
    head = line(Span(named, "bold"), f"{requests} {where}, {WINDOW_WORDS[ui.window]}")
    meaning = line(Span(f"  ({MEANINGS[ui.phase]})", "dim"))
    if line_width(head) + line_width(meaning) <= cols:
        head += meaning
    if not any(counts):
        return [head, line(), *(line(f" {each}") for each in _why_none(answer, ui))]
    lines = [head, *_numbers(answer, cols, glyphs)]
    notes = _notes(answer, counts, ui) if rows >= SHORT else []
    below = _phases_table(view, ui, cols) if rows >= TALL else []
    left = rows - len(lines) - len(notes) - len(below)
    if left >= 2 and cols >= LEAST_COLS:
        lines += _picture(answer, counts, left, cols, glyphs)
    return lines + notes + below


def _counts(answer):
    counts = [max(0, count or 0) for count in (answer.get("counts") or ())][:BUCKETS]
    return counts + [0] * (BUCKETS - len(counts))


def _numbers(answer, cols, glyphs):
    parts = [line(Span(f" {name} ", "dim"), Span(seconds(answer.get(name), glyphs), "bold"), " ")
             for name in MARKS]
    whole = sum(parts, ())
    return [whole] if line_width(whole) <= cols else [sum(parts[:2], ()), sum(parts[2:], ())]


def _why_none(answer, ui):
    """Why there may be no figures."""
    if answer.get("counts") is None:
        said = [f"No process has sent {ui.phase} times in this window."]
        if ui.phase in DAEMON_ONLY:
            said.append("Only daemon mode has a queue and a daemon process, embedded mode has none.")
        return said
    said = ["No request has ended in this window."]
    if ui.window == "now":
        said.append("now is the newest tick of each process: < > or n choose a longer window.")
    return said


def _notes(answer, counts, ui):
    """What a reader of the picture must know."""
    said = []
    if counts[0]:
        said.append(f"the first bar is all below {UPPER_S[0] * 1000:g} ms")
    if counts[-1]:
        said.append(f"the last bar is all above {duration(OVERFLOW_S)}")
    lines = [line(Span(" " + ", ".join(said), "dim"))] if said else []
    if ui.phase == "gil_wait":
        lines.append(_coefficient(answer.get("coefficient"), ui.glyphs))
    return lines


def _coefficient(found, glyphs):
    """How GIL waits end, in words (see wire.buckets.gil_coefficient)."""
    if not found:
        return line(Span(" GIL: the waits do not tell how they end (too few long ones, or no clear fall)", "dim"))
    reading = found.get("reading") or UNKNOWN
    style = {"convoy": "bad", "compounding": "warn"}.get(reading, "good")
    chance = figure(percent(found.get("q")), glyphs)
    said = READINGS.get(reading, "not a reading that is known here")
    ends = f"{chance} of {whole(found.get('waits'), glyphs)} waits end in each interval"
    return line(" GIL ", Span(safe(reading, glyphs), style), f", {said}: {ends}")


def _picture(answer, counts, rows, cols, glyphs):
    """Bars over an axis, `rows` Lines in all; where there are few the marks have no room."""
    marked = rows >= LEAST_CHART + 3
    first, last = _range(counts)
    side = width(number(max(counts), 0)) + SIDE_GAP
    groups = -(-(last - first) // max(1, cols - side))         # buckets that share a bar
    bars = [sum(counts[at:at + groups]) for at in range(first, last, groups)]
    highest = number(max(bars), 0)
    side = width(highest) + SIDE_GAP
    wide = max(len(bars), cols - side)
    drawn = chart([bars[place * len(bars) // wide] for place in range(wide)],
                  rows - (3 if marked else 1), wide, glyphs, style="accent")
    scales = [f"{highest:>{side - 1}}"] + [" " * (side - 1)] * len(drawn)
    lines = [line(Span(scale + glyphs.bar, "dim"), *bar) for scale, bar in zip(scales, drawn)]

    def cell(at_s):
        return int((_position(at_s) - first) / groups / len(bars) * wide)

    blank = Span(" " * side)
    if marked:
        marks = [(name, cell(answer[name])) for name in MARKS if answer.get(name) is not None]
        marks = [(name, min(wide - 1, max(0, place))) for name, place in marks]
        rule = [glyphs.line] * wide
        for _, place in marks:
            rule[place] = glyphs.mark
        lines += [line(blank, Span("".join(rule), "dim")), line(blank, Span(_labels(marks, wide), "bold"))]
    return [*lines, line(blank, Span(_ticks(cell, wide), "dim"))]


def _range(counts):
    """(first, last + 1) bucket in use, by whole octaves, at least LEAST_BUCKETS."""
    used = [place for place, count in enumerate(counts) if count]
    first, last = used[0] // 4 * 4, min(BUCKETS, -(-(used[-1] + 1) // 4) * 4)
    while last - first < LEAST_BUCKETS:
        first = max(0, first - 4)
        last = min(BUCKETS, last + 4)
    return first, last


def _position(at_s):
    """Where a duration lies on the axis, in buckets and parts of one."""
    if at_s >= OVERFLOW_S:
        return BUCKETS - 0.5
    place = next(bucket for bucket, upper in enumerate(UPPER_S) if at_s < upper)
    return place + max(0.0, at_s - LOWER_S[place]) / (UPPER_S[place] - LOWER_S[place])


def _labels(marks, cols):
    """One line of the marks' names, each as near below its mark as the others let it."""
    starts = []
    for name, place in marks:
        least = starts[-1] + 4 if starts else 0
        starts.append(max(least, place - 1))
    most = cols - 3
    for place in range(len(starts) - 1, -1, -1):
        starts[place] = min(starts[place], most)
        most = starts[place] - 4
    out = ""
    for (name, _), start in zip(marks, starts):
        out = out.ljust(max(start, 0)) + name
    return out if not starts or starts[0] >= 0 else ""


def _ticks(cell, cols):
    """One line of durations where they lie on the axis; the finest of TICKS_S for which there is room."""
    for ticks in TICKS_S:
        out, room = "", True
        for edge in ticks:
            text, start = _tick(edge), cell(edge)
            if start < 0 or start + len(text) > cols:
                continue
            room = room and (not out or start >= len(out) + 2)
            out = out.ljust(start) + text
        if room:
            break
    return out


def _tick(edge):
    return f"{edge:g} s" if edge >= 1 else f"{edge * 1000:g} ms"


PANE = Pane("latency", ("l", "4"), "latency", _paths, _body, hint="[ ] phase  < > window  G group", phases=True)
