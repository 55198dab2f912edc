"""Exceptions that left the applications, by type and place, as agents in them tell; Enter opens one."""
from modwsgi_tel.console.cells import Span, clip, line, safe
from modwsgi_tel.console.draw import Column, Sorted, table
from modwsgi_tel.console.frames import dicts_of, drawn, frames_of, rows_of, sentence, text_of, whole_of
from modwsgi_tel.console.inside import amount_of, begun
from modwsgi_tel.console.keys import Pane, table_of
from modwsgi_tel.console.paging import asked, on_page, page_of, row_under, scrolled
from modwsgi_tel.console.words import ago, clock, counted, figure, group_name, marked, missing, seconds, whole
from modwsgi_tel.figures import UNKNOWN, number

HEAD_LINES = 2                          # how many, and the heads of the columns
SORTS = ("last", "count", "type")
LARGE_FIRST = frozenset(("last", "count"))      # until `r`
NONE = ("None has left an application, as far as is known: an agent in the application tells of them. `agent.install()` under mod_wsgi, "
        "`application = agent.middleware(application)` under any other server: see man modwsgi-tel.")
OLDER = "This collector does not tell of exceptions."
GONE = "It is gone: there was no room for all, or the collector has begun anew. Esc leads back to those that are kept."
_UNKNOWN_PATH = "no such path"          # how a collector from before there were agents answers


def _paths(ui, size):
    if ui.open is not None:
        return {"exceptions_one": asked("/api/exceptions", id=ui.open[1])}
    shown = table_of(ui)
    sort, descending = _order(shown)
    return {"exceptions": asked("/api/exceptions", sort=sort, order="desc" if descending else "asc",
                                **page_of(shown.cursor, _room(size)), search=shown.search or None, group=ui.group)}


def _order(shown):
    """(sort, whether large ones come first) of a Table."""
    sort = shown.sort if shown.sort in SORTS else SORTS[0]
    return sort, shown.reverse != (sort in LARGE_FIRST)


def _room(size):
    return max(1, size.rows - HEAD_LINES)


def _found(view, name="exceptions"):
    return dicts_of((view.get(name) or {}).get("exceptions"))


def _count(view, ui):
    return whole_of((view.get("exceptions") or {}).get("matched")) or 0


def _row(view, ui):
    under = row_under(ui, view.get("exceptions") or {}, _found(view))
    return None if under is None or whole_of(under.get("id")) is None else ("exception", under["id"])


def _body(view, ui, size):
    lines = _opened(view, ui, size) if ui.open is not None else _table(view, ui, size)
    return [drawn(each, size.cols, ui.glyphs) for each in lines[:size.rows]]


def _missing(view, name, cols, glyphs):
    said = str((view.get("errors") or {}).get(name) or "")
    return sentence(OLDER, cols, "", glyphs) if _UNKNOWN_PATH in said else [missing(view, name, glyphs)]


# --- the table ------------------------------------------------------------------------------------

def _table(view, ui, size):
    glyphs, cols = ui.glyphs, size.cols
    answer, shown = view.get("exceptions"), table_of(ui)
    if answer is None:
        return _missing(view, "exceptions", cols, glyphs)
    rows, place = on_page(ui, answer, _found(view), _room(size))
    head = _head(answer, shown, glyphs)
    if not rows:
        some = shown.search or ui.group is not None
        return [head, line(), *sentence("None of them is meant: / searches anew, G shows other groups." if some else NONE, cols, "", glyphs)]
    chosen = None if place is None else rows[place]
    columns = _columns(ui, chosen, amount_of(answer.get("time")), cols)
    return [head, *table(columns, rows, cols, glyphs, Sorted(*_order(shown)), place)]


def _head(answer, shown, glyphs):
    matched, lost, evicted = (whole_of(answer.get(name)) for name in ("matched", "lost", "evicted"))
    parts = [Span(f" {counted(whole_of(answer.get('counted')), 'exception')}, {counted(matched, 'place')}", "bold")]
    if lost:
        parts.append(Span(f"  {lost:,} at places that were too many", "warn"))
    if evicted:
        parts.append(Span(f"  {counted(evicted, 'place')} forgotten for want of room", "warn"))
    if shown.search:
        parts.append(Span(f"  with {safe(shown.search, glyphs)}", "accent"))
    return line(*parts)


def _type(row, cols, glyphs):
    """Of the type's name its end, where there is no room: `…DoesNotExist`."""
    name = safe(text_of(row.get("type")), glyphs) or UNKNOWN
    return clip(name if len(name) <= cols else name.rpartition(".")[2], cols, glyphs)


def _columns(ui, chosen, now, cols):
    glyphs = ui.glyphs

    def told(name):
        return lambda row: safe(text_of(row.get(name)), glyphs) or UNKNOWN

    return [
        Column("count", "   count", lambda row: marked(f"{figure(number(whole_of(row.get('count')), 0), glyphs):>7}", row is chosen), width=8,
               keep=9),
        Column("last", "last", lambda row: clock(amount_of(row.get("last")), now), width=8, keep=8),
        Column("type", "type", lambda row: _type(row, max(12, cols // 4), glyphs), right=False, width=8, keep=9),
        Column("", "at", told("place"), width=min(30, max(8, cols // 3)), right=False, keep=9, flex=True),
        Column("", "path", lambda row: clip(told("path")(row), max(8, cols // 6), glyphs), right=False, keep=6),
        Column("", "procs", lambda row: whole(whole_of(row.get("processes")), glyphs), width=5, keep=3),
        Column("", "group", lambda row: clip(group_name(text_of(row.get("process_group")), glyphs), 16, glyphs), right=False,
               keep=2 if ui.group is None else 0)]


# --- one of them ----------------------------------------------------------------------------------

def _opened(view, ui, size):
    glyphs, cols = ui.glyphs, size.cols
    name = "exceptions_one" if "exceptions_one" in view else "exceptions"
    row = next((each for each in _found(view, name) if each.get("id") == ui.open[1]), None)
    if row is None and name == "exceptions":
        return _missing(view, "exceptions_one", cols, glyphs)
    if row is None:
        return sentence(GONE, cols, "warn", glyphs)
    now = amount_of(view[name].get("time"))
    rows = sentence(safe(text_of(row.get("type")), glyphs) or UNKNOWN, cols, "bold", glyphs)
    if begun(row.get("text")):
        rows += sentence(safe(begun(row["text"]), glyphs), cols, "warn", glyphs)
    first, last = amount_of(row.get("first")), amount_of(row.get("last"))
    rows += sentence(f"{counted(whole_of(row.get('count')), 'time')} in {counted(whole_of(row.get('processes')), 'process', 'processes')} of "
                     f"{group_name(text_of(row.get('process_group')), glyphs)}: first {clock(first, now)}, last {clock(last, now)}, "
                     f"{seconds(ago(last, now), glyphs)} ago", cols, "", glyphs)
    path, request_id = safe(text_of(row.get("path")), glyphs), safe(text_of(row.get("request_id")), glyphs)
    asked_for = " ".join(filter(None, (safe(text_of(row.get("method")), glyphs), path, f"(log id {request_id})" if request_id else "")))
    if asked_for:
        rows += sentence(f"last by {asked_for}", cols, "accent", glyphs)
    frames = frames_of(row)
    rows += [line(), *(rows_of(frames, cols) if frames else [line(Span("   (no Python frames)", "dim"))])]
    return scrolled(rows, ui.scroll, size.rows)


PANE = Pane("exceptions", ("x",), "exceptions", _paths, _body, _count, _row, SORTS, hint="Enter opens  < > sort  r reverse  / search")
