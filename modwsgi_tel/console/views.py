"""The whole screen as Lines: verdict, totals, tabs, the view's own part, a line of hints.

    lines = render(view, ui, Size(rows=24, cols=80))

For any view and size: at most `rows` Lines, none wider than `cols` cells, no control character.
`view` is plain data: {"summary": ..., and the answers to the pane's paths by their names,
"source": {"name", "trouble", "age_s", "note", "replay", "no_stacks"}}.  What is not there yet is shown as such.
"""
from modwsgi_tel.console import collector, exceptions, gc, latency, lifecycle, overview, pivots, processes, slow, stacks, tree, workers
from modwsgi_tel.console.cells import Size, Span, apart, fit, line, line_width, restyled, safe
from modwsgi_tel.console.frames import refuses
from modwsgi_tel.console.keys import KEYS, Context, table_of
from modwsgi_tel.console.paging import asked, scrolled
from modwsgi_tel.console.words import SEVERITIES, clock
from modwsgi_tel.figures import UNKNOWN, duration, number, percent, size

PANES = (overview.PANE, processes.PANE, workers.PANE, latency.PANE, slow.PANE, gc.PANE, lifecycle.PANE, collector.PANE,
         stacks.PANE, pivots.PANE, exceptions.PANE, tree.PANE)
BY_NAME = {pane.name: pane for pane in PANES}
SCROLL_MOST = 1 << 14                   # lines of what is opened
HEAD_LINES = 3                          # verdict, totals, tabs
TAB_LETTERS = (20, 4, 3, 2, 0)          # of a view that is not shown, as many as there is room for


def pane_of(ui):
    return BY_NAME[ui.view]


def paths(ui, screen):
    """{name: path} of all that the screen shows; the summary first."""
    # rows of groups cost the collector more than all the rest of the head
    groups = "groups," if ui.view == "overview" or ui.group is not None else ""
    wanted = {"summary": f"/api/summary?window={ui.window}&parts=totals,{groups}findings"}
    wanted.update(pane_of(ui).paths(ui, body_size(screen)))
    return wanted


def stacks_asked(view, ui):
    """(path, again): what asks for the stacks of what is shown, to be posted to, and whether to ask more than once.

    The path is None when there is nothing to ask for.
    """
    process = pane_of(ui).process(view, ui)
    path = None if process is None else asked("/api/stacks", pid=process[0], id=process[1])
    return path, not refuses(view)


def body_size(screen):
    return Size(max(0, screen.rows - HEAD_LINES - 1), screen.cols)


def context(view, ui, screen):
    """What `keys.press` needs to know of the screen that the user saw."""
    pane = pane_of(ui)
    groups = [name for name in (view.get("summary", {}).get("totals") or {}).get("process_groups") or () if name is not None]
    return Context(pane, PANES, pane.count(view, ui), pane.row(view, ui), max(1, screen.rows - HEAD_LINES - 3), groups,
                   bool(view.get("source", {}).get("replay")), pane.process(view, ui), subject_of(view, ui))


def subject_of(view, ui):
    """(pid, id) of the process to whose stacks S leads, or None."""
    pane = pane_of(ui)
    return (pane.subject or pane.process)(view, ui)


def render(view, ui, screen):
    """The screen as a list of Lines."""
    glyphs, inside = ui.glyphs, body_size(screen)
    source = view.get("source", {})
    if ui.help:
        body = scrolled(help_lines(view, ui), ui.scroll, inside.rows)
    elif "summary" not in view:
        body = [line(), line(Span("  waiting for the first answer", "dim"))] if not source.get("trouble") else []
    else:
        body = pane_of(ui).body(view, ui, inside)
        if source.get("trouble"):
            body = [restyled(each, "dim") for each in body]
    body = body[:inside.rows]
    body += [line()] * (inside.rows - len(body))
    lines = [verdict_line(view, ui, screen.cols), totals_line(view, ui, screen.cols), tabs_line(view, ui, screen.cols), *body,
             bottom_line(view, ui, screen.cols)]
    return [fit(each, screen.cols, glyphs) for each in lines[:screen.rows]]


def settled(view, ui, screen):
    """The Ui with its scroll where the screen truly is: keys may have gone beyond the last line."""
    if not ui.scroll:
        return ui
    if "summary" not in view and not ui.help:
        return ui._replace(scroll=0)    # nothing is drawn yet that could be scrolled

    def drawn(scroll):
        moved = ui._replace(scroll=scroll)
        inside = body_size(screen)
        return scrolled(help_lines(view, ui), scroll, inside.rows) if ui.help else pane_of(ui).body(view, moved, inside)

    shown, low, high = drawn(ui.scroll), 0, min(ui.scroll, SCROLL_MOST)
    while low < high:
        middle = (low + high) // 2
        if drawn(middle) == shown:
            high = middle
        else:
            low = middle + 1
    return ui._replace(scroll=low)


# --- the frame ------------------------------------------------------------------------------

def verdict_line(view, ui, cols):
    source, summary = view.get("source", {}), view.get("summary")
    if source.get("trouble"):
        since = "" if summary is None else f" for {duration(source.get('age_s'))}, below is what was"
        return line(Span(safe(f"NO ANSWER{since}: {source['trouble']}", ui.glyphs), "bad"))
    if summary is None:
        return line(Span(safe(f"modwsgi-tel: {source.get('name', '')}", ui.glyphs), "bold"))
    findings = summary.get("findings") or []
    if not findings:
        return line(Span(safe(summary.get("verdict") or UNKNOWN, ui.glyphs), "good"))
    style = SEVERITIES.get(findings[0].get("severity"), "warn")
    more = line(Span(f"+{len(findings) - 1} more", style)) if len(findings) > 1 else ()
    return apart(line(Span(safe(findings[0].get("text") or UNKNOWN, ui.glyphs), style)), more, cols, ui.glyphs)


def totals_line(view, ui, cols):
    summary = view.get("summary")
    if summary is None:
        return line()
    totals, rows = totals_of(summary, ui)
    if not rows and ui.group is not None:
        return line(Span(safe(f"no group {ui.group or '(embedded)'}", ui.glyphs), "warn"), "  G: the next one")
    window = (totals.get("windows") or {}).get(ui.window) or {}
    alive = (f"{count} {life}" for life, count in (totals.get("lives") or {}).items() if count)
    lives = safe(", ".join(alive), ui.glyphs) or "no process yet"
    request, status = (window.get("phases") or {}).get("request") or {}, window.get("status") or {}
    figures = [("req/s", number(window.get("throughput"))), ("busy", percent(window.get("capacity"))),
               ("p95", duration(request.get("p95"))), ("5xx", number(status.get("5xx"), 0)),
               ("slow", number((totals.get("slow") or {}).get("active"), 0)), ("lost", number(totals.get("lost"), 0)),
               ("cpu", number(window.get("cpu"), 2)),
               ("memory", size(totals.get("rss")))]
    told = line(Span(clock(summary.get("time"), summary.get("time")), "dim"))
    spans = line(Span(lives, "bold"))
    for name, text in figures:
        more = line(Span(f"  {name} ", "dim"), text)
        if line_width(spans + more) + 1 + line_width(told) > cols:
            break                       # the last ones go first
        spans += more
    return apart(spans, told, cols, ui.glyphs)


def totals_of(summary, ui):
    """(totals as the summary has them, rows of groups): of the chosen group where it has one row, else of all."""
    rows = summary.get("groups") or ()
    if ui.group is not None:
        rows = [row for row in rows if row.get("process_group") == ui.group]
        if len(rows) == 1:
            return {**rows[0], "slow": {"active": rows[0].get("slow_active")}}, rows
    return summary.get("totals") or {}, rows


def tabs_line(view, ui, cols):
    state = ["PAUSED"] if ui.paused else []
    state.append(ui.window)
    if ui.group is not None:
        state.append(safe(ui.group or "(embedded)", ui.glyphs)[:20])
    told = line(Span(" ".join(state), "accent"))
    for letters in TAB_LETTERS:
        left = _tabs(ui, letters)
        if line_width(left) + 1 + line_width(told) <= cols:
            break
    return apart(left, told, cols, ui.glyphs)


def _tabs(ui, letters):
    """All tabs; of those that are not shown at most so many letters."""
    left = []
    for pane in PANES:
        here = pane.name == ui.view
        words = f" {pane.keys[-1]} {pane.title}" if here else f" {pane.keys[-1]} {pane.title[:letters]}"
        left.append(Span(words + " " if here else words.rstrip(), "select" if here else "dim"))
    return tuple(left)


def bottom_line(view, ui, cols):
    if ui.typing is not None:
        what, text = ui.typing
        return line(Span({"search": "/", "time": "to the time: "}[what], "accent"), safe(text, ui.glyphs), Span("_", "accent"))
    if ui.message:
        return line(Span(safe(ui.message, ui.glyphs), "accent"))
    if ui.help:
        return line(Span("Esc back  Up Down PgUp PgDn Home End move", "dim"))      # q does not quit here
    pane, table = pane_of(ui), table_of(ui)
    hints = ["q quit", "? help"]
    if ui.open is not None:
        stacks_too = subject_of(view, ui) is not None and not view.get("source", {}).get("no_stacks")
        again = ["a again"] if pane.process(view, ui) is not None else []
        more = [*again, "z idle"] if pane is stacks.PANE else ["S stacks"]
        hints = ["Esc back", *(more if stacks_too else ()), *hints]
    elif pane.hint:
        hints = [pane.hint, *hints]
    if pane.filters and ui.open is None:
        shown = pane.filters[table.filter % len(pane.filters)][1]
        found = f" /{safe(table.search, ui.glyphs)}" if table.search else ""
        hints = [f"[{shown}{found}]", *hints]
    elif pane.sorts and table.search and ui.open is None:
        hints = [f"/{safe(table.search, ui.glyphs)}", *hints]
    source = view.get("source", {})
    note = safe(source.get("replay") or source.get("note") or "", ui.glyphs)
    return apart(line(Span("  ".join(hints), "dim")), line(Span(note, "accent")), cols, ui.glyphs)


def help_lines(view, ui):
    """All keys; those of the views from PANES, the others from KEYS."""
    rows = [(" ".join(pane.keys), f"view: {pane.title}") for pane in PANES]
    rows += [(key.shown, key.help) for key in KEYS if key.shown]
    source = safe(view.get("source", {}).get("name", ""), ui.glyphs)
    lines = [line(Span(f" modwsgi-tel top  {source}", "bold")), line()]
    lines += [line(Span(f" {shown:<12}", "accent"), what) for shown, what in rows]
    return [*lines, line(), line(Span(" Letters in the grid of workers, and all figures: man modwsgi-tel", "dim"))]
