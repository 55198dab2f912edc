"""Processes: a table of them; Enter opens one."""
from collections import namedtuple

from modwsgi_tel.console.cells import Span, clip, fit, line, safe
from modwsgi_tel.console.draw import Column, Sorted, meter, table
from modwsgi_tel.console.keys import Pane, table_of
from modwsgi_tel.console.paging import asked, on_page, page_of, row_under
from modwsgi_tel.console.process import opened, opened_paths, running, subject, used
from modwsgi_tel.console.words import (LIFE_STYLES, LIVE, WINDOW_WORDS, ago, busy_style, counted, ends, errors_style,
                                       figure, group_words, in_life, marked, missing)
from modwsgi_tel.figures import UNKNOWN, duration, number, percent, size

FILTERS = (("", "all"), (",".join(LIVE), "live"), ("silent,stopping,vanished", "trouble"),
           ("stopped,vanished,replaced", "ended"))
METER = 10                              # cells of a bar
NAME_LEAST = 8                          # cells of a name; on a wide screen a fifth of it
FOOT_FROM = 6                           # rows of a body that has one for the foot


# --- the table -----------------------------------------------------------------------------------

Look = namedtuple("Look", "window now glyphs chosen most", defaults=(None, NAME_LEAST))
Look.__doc__ = """What a cell depends on besides its row: the window's name, wall seconds, Glyphs, the row under the
cursor, the most cells of a name."""


def _plain(row, look):
    return ""


Field = namedtuple("Field", "name title value style width keep falls right",
                   defaults=(_plain, 0, 5, None, True))
Field.__doc__ = """A column: `name` as /api/processes sorts by it, value(row, look), style(row, look), least width,
`keep` as draw.Column has it, `falls` whether the largest come first (None: not sorted by), whether it is aligned to the
right."""


def _window(row, look):
    return (row.get("windows") or {}).get(look.window) or {}


def _request(row, look):
    return (_window(row, look).get("phases") or {}).get("request") or {}


def _busy(row, look):
    return _window(row, look).get("capacity")


def _busy_style(row, look):
    return busy_style(_busy(row, look))


def _meter(row, look):
    busy = _busy(row, look)
    return meter(None if busy is None else min(1.0, max(0.0, busy)), METER, look.glyphs)


def _warns(value):
    return lambda row, look: "warn" if value(row, look) else ""


def _errors(row, look):
    return (_window(row, look).get("status") or {}).get("5xx")


def _errors_style(row, look):
    return errors_style(_errors(row, look), _window(row, look).get("requests"))


def _told(name):
    """value(row, look) of what a row tells as it is."""
    return lambda row, look: row.get(name)


def _counts(value):
    return lambda row, look: number(value(row, look), 0)


def _measures(name, show):
    """The text of a figure of the chosen window."""
    return lambda row, look: show(_window(row, look).get(name))


def _pid(row, look):
    return marked(str(row.get("pid") or UNKNOWN), row is look.chosen)


def _name(text, look):
    return clip(text, look.most, look.glyphs)


COLUMNS = (
    Field("pid", "pid", _pid, width=6, keep=9, falls=False),
    Field("group", "group", lambda row, look: _name(group_words(row, look.glyphs), look), width=5, keep=8, falls=False,
          right=False),
    Field("", "host", lambda row, look: _name(safe(row.get("hostname") or UNKNOWN, look.glyphs), look), keep=2,
          right=False),
    Field("life", "life", lambda row, look: safe(row.get("life") or UNKNOWN, look.glyphs),
          lambda row, look: LIFE_STYLES.get(row.get("life"), ""), 8, 9, False, False),
    Field("", "for", lambda row, look: duration(in_life(row, look.now)), width=6, keep=7),
    Field("age", "age", lambda row, look: duration(ago(row.get("first_seen"), look.now)), _plain, 6, 3, True),
    Field("throughput", "req/s", _measures("throughput", number), _plain, 5, 7, True),
    Field("p95", "p95", lambda row, look: duration(_request(row, look).get("p95")), _plain, 7, 7, True),
    Field("busy", "busy", _measures("capacity", percent), _busy_style, 5, 8, True),
    Field("", "", _meter, _busy_style, METER, 1, right=False),
    Field("threads", "used", lambda row, look: used(row.get("threads")), _plain, 5, 6, True),
    Field("cpu", "cpu", _measures("cpu", lambda cores: number(cores, 2)), _plain, 4, 5, True),
    Field("rss", "rss", lambda row, look: size(row.get("rss")), _plain, 7, 5, True),
    Field("5xx", "5xx", _counts(_errors), _errors_style, 3, 6, True),
    Field("slow", "slow", _counts(_told("slow_active")), _warns(_told("slow_active")), 4, 6, True),
    Field("lost", "lost", _counts(_told("lost")), _warns(_told("lost")), 4, 4, True),
    Field("silent", "silent", lambda row, look: duration(row.get("silent_s")), _warns(_told("silent_s")), 6, 3, True),
    Field("", "unseen", _counts(_told("restarts_unseen")), _warns(_told("restarts_unseen")), 6, 2),
)
_NAMES = tuple(field.name for field in COLUMNS if field.falls is not None)
# trouble comes first: life, by how bad it is; `>` then goes through the columns as they stand
SORTS = _NAMES[_NAMES.index("life"):] + _NAMES[:_NAMES.index("life")]
_FALLS = {field.name: field.falls for field in COLUMNS if field.name}


def _sorted(ui):
    """The column that rows are sorted by, and whether the largest come first."""
    chosen = table_of(ui)
    name = chosen.sort if chosen.sort in SORTS else SORTS[0]
    return Sorted(name, _FALLS[name] != chosen.reverse)


def _rows(inside):
    """Rows of the table that a body has room for."""
    return max(1, inside.rows - (2 if inside.rows >= FOOT_FROM else 1))


def paths(ui, inside):
    if ui.open is not None:
        return opened_paths(ui)
    chosen, order, rows = table_of(ui), _sorted(ui), _rows(inside)
    lives = FILTERS[chosen.filter % len(FILTERS)][0]
    return {"processes": asked("/api/processes", window=ui.window, sort=order.name,
                               order="desc" if order.reverse else "asc", **page_of(chosen.cursor, rows),
                               life=lives or None, search=chosen.search or None, group=ui.group)}


def count(view, ui):
    return (view.get("processes") or {}).get("matched") or 0


def row(view, ui):
    """("process", pid, id) of the row under the cursor, or None."""
    answer = view.get("processes") or {}
    found = row_under(ui, answer, answer.get("processes") or ())
    return None if found is None else ("process", found.get("pid"), found.get("id"))


def body(view, ui, inside):
    if ui.open is not None:
        return opened(view, ui, inside)
    answer, glyphs = view.get("processes"), ui.glyphs
    if answer is None or "processes" in (view.get("errors") or {}):
        return [fit(missing(view, "processes", glyphs), inside.cols, glyphs)][:inside.rows]
    rows, place = on_page(ui, answer, answer.get("processes") or (), _rows(inside))
    look = Look(ui.window, answer.get("time"), glyphs, None if place is None else rows[place],
                max(NAME_LEAST, inside.cols // 5))
    lines = table(_columns(look, _sorted(ui).name), rows, inside.cols, glyphs, _sorted(ui), place)
    if not rows:
        lines.append(line(Span(_nothing(answer, ui), "dim")))
    if inside.rows >= FOOT_FROM:
        lines += [line()] * (inside.rows - 1 - len(lines))
        lines.append(_foot(answer, rows, ui, inside.cols))
    return [fit(each, inside.cols, glyphs) for each in lines[:inside.rows]]


def _columns(look, sort):
    def column(field):
        def value(row):
            text = field.value(row, look)
            return figure(text, look.glyphs) if field.right else text
        # what is sorted by stays on the narrowest screen
        keep = 9 if field.name == sort else field.keep
        return Column(field.name, field.title, value, lambda row: _style(field, row, look), field.width, field.right,
                      keep)
    return [column(field) for field in COLUMNS]


def _style(field, row, look):
    return field.style(row, look) or ("dim" if row.get("life") in ("stopped", "replaced") else "")


def _nothing(answer, ui):
    if answer.get("matched"):
        return " the list has become shorter: Up goes to its end"
    chosen = table_of(ui)
    if chosen.search or chosen.filter % len(FILTERS):
        return " no process matches: Esc ends the search, f shows others"
    return " no process has sent anything yet"


def _foot(answer, rows, ui, cols):
    matched, first = answer.get("matched") or 0, (answer.get("offset") or 0) + 1
    shown = f", {first} to {first + len(rows) - 1} here" if rows and len(rows) < matched else ""
    left = line(Span(f" {counted(matched, 'process', 'processes')}{shown}", "dim"))
    return ends(left, line(Span(f"by {_sorted(ui).name}, {WINDOW_WORDS[ui.window]}", "dim")), cols, ui.glyphs)


PANE = Pane("processes", ("p", "2"), "processes", paths, body, count, row, SORTS, FILTERS,
            "Enter opens  < > sort  r reverse  f filter  / find", process=running, subject=subject)
