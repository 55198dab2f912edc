"""Where the time of long requests goes: what the stacks of each have in common, ranked by the time it cost lately; Enter opens one.

An agent in the application tells it.  A place has no number that stays: it is known by its frames.
"""
from modwsgi_tel.console.cells import Span, clip, line, safe
from modwsgi_tel.console.draw import Column, table
from modwsgi_tel.console.frames import dicts_of, drawn, frames_of, rows_of, sentence, text_of, whole_of
from modwsgi_tel.console.inside import amount_of, begun, dict_of, makes_wait
from modwsgi_tel.console.keys import Pane, table_of
from modwsgi_tel.console.paging import asked, scrolled, window_of
from modwsgi_tel.console.words import counted, group_name, marked, missing, seconds, whole
from modwsgi_tel.figures import UNKNOWN

MOST = 200                              # that a collector tells
HEAD_LINES = 2                          # of the table: what it is, and the heads of the columns
FOOT_LINES, FOOT_FROM = 3, 12           # what is known of the one under the cursor, in a body of so many rows
WAITS = "waits"                         # a role
NONE = ("No long request with stacks so far: an agent in the application tells of them. `agent.install()` under mod_wsgi, "
        "`application = agent.middleware(application)` under any other server: see man modwsgi-tel.")
OLDER = "This collector does not tell where the time goes."
CUT = "[stacks were cut here: what is further inside may be the same, too]"
_UNKNOWN = "unknown parameter"          # how a collector from before there were agents answers
GONE = ("It is no longer among the most expensive, or its requests have had another part in common since. Esc leads back to those "
        "that are.")


def _paths(ui, size):
    most = MOST
    if ui.open is None:
        room = _room(size)
        most = min(MOST, (window_of(table_of(ui).cursor, room) // room + 2) * room)     # the page behind it too
    return {"time": asked("/api/slow", limit=0, group=ui.group, pivots=most)}


def _room(size):
    return max(1, size.rows - HEAD_LINES - (FOOT_LINES if size.rows >= FOOT_FROM else 0))


def _found(view, ui):
    rows = dicts_of((view.get("time") or {}).get("pivots"))
    return [row for row in rows if ui.group is None or row.get("process_group") == ui.group]


def _count(view, ui):
    return len(_found(view, ui))


def _matched(answer, found):
    """How many there are, as far as a collector tells."""
    return max(whole_of(answer.get("pivots_matched")) or 0, len(found))


def _row(view, ui):
    """("pivot", process group, (Frame, ...)) of the row under the cursor, or None."""
    found = _found(view, ui)
    place = min(table_of(ui).cursor, len(found) - 1)
    return None if place < 0 else _name(found[place])


def _name(row):
    return "pivot", text_of(row.get("process_group")), frames_of(row)


def _body(view, ui, size):
    lines = _opened(view, ui, size) if ui.open is not None else _table(view, ui, size)
    return [drawn(each, size.cols, ui.glyphs) for each in lines[:size.rows]]


def _missing(view, cols, glyphs):
    said = str((view.get("errors") or {}).get("time") or "")
    return sentence(OLDER, cols, "", glyphs) if _UNKNOWN in said else [missing(view, "time", glyphs)]


# --- the table ------------------------------------------------------------------------------------

def _table(view, ui, size):
    glyphs, cols = ui.glyphs, size.cols
    answer = view.get("time")
    if answer is None:
        return _missing(view, cols, glyphs)
    found = _found(view, ui)
    if not found:
        why = OLDER if "pivots" not in answer else NONE if ui.group is None else "None in this process group: G shows others."
        return sentence(why, cols, "", glyphs)
    place, room = min(table_of(ui).cursor, len(found) - 1), _room(size)
    start = window_of(place, room)
    rows, chosen = found[start:start + room], None if place < 0 else found[place]
    lines = [_head(answer, found, glyphs),
             *table(_columns(ui, chosen, found, cols), rows, cols, glyphs, None, None if place < 0 else place - start)]
    if chosen is not None and size.rows >= FOOT_FROM:
        lines += [line()] * (room - len(rows))
        lines += [line(), *_known(chosen, cols, glyphs)][:FOOT_LINES]
    return lines


def _head(answer, found, glyphs):
    evicted = whole_of(answer.get("pivots_evicted"))
    many = _matched(answer, found)
    return line(Span(f" Where the time of long requests goes: {counted(many, 'place')}", "bold"),
                Span(f"  {evicted:,} cheaper ones forgotten" if evicted else "", "dim"))


def role_words(row, glyphs):
    """`works`, `works: sleep`, `waits: rlock`."""
    role, waits = safe(text_of(row.get("role")), glyphs) or UNKNOWN, safe(text_of(row.get("waits")), glyphs)
    return clip(f"{role}: {waits}" if waits and role != waits else role, 18, glyphs)


def _role_style(row):
    return "dim" if row.get("role") == WAITS and text_of(row.get("waits_for")) else "warn" if row.get("role") == WAITS else ""


def _columns(ui, chosen, found, cols):
    glyphs, groups = ui.glyphs, len({row.get("process_group") for row in found})

    def path(row):
        paths = [(amount_of(count) or 0, path) for path, count in dict_of(row.get("paths")).items()]
        return safe(max(paths)[1], glyphs) if paths else UNKNOWN

    return [
        Column("", " 10 min", lambda row: marked(f"{seconds(amount_of(row.get('recent_s')), glyphs):>6}", row is chosen), width=7, keep=9),
        Column("", "in all", lambda row: seconds(amount_of(row.get("seconds")), glyphs), width=6, keep=3),
        Column("", "reqs", lambda row: whole(whole_of(row.get("requests")), glyphs), width=4, keep=8),
        Column("", "now", lambda row: whole(whole_of(row.get("active")), glyphs),
               lambda row: "warn" if whole_of(row.get("active")) else "", 3, keep=7),
        Column("", "thread", lambda row: role_words(row, glyphs), _role_style, 6, False, 8),
        Column("", "in", lambda row: safe(text_of(row.get("place")), glyphs) or UNKNOWN, width=min(36, max(8, cols // 2)), right=False, keep=9,
               flex=True),
        Column("", "path", lambda row: clip(path(row), max(8, cols // 6), glyphs), right=False, keep=4),
        *([Column("", "group", lambda row: clip(group_name(text_of(row.get("process_group")), glyphs), 16, glyphs), right=False, keep=5)]
          if groups > 1 else [])]


def _known(row, cols, glyphs):
    """Lines of what is known of one besides its place: whom it waits for, its paths."""
    how, waits_for = safe(begun(row.get("how_known")), glyphs), safe(text_of(row.get("waits_for")), glyphs)
    # what it waits for comes first: that is what has to be seen; as does who waits for it
    told = f"waits for {waits_for}: {how}" if waits_for else how or UNKNOWN
    waited, stacks = whole_of(row.get("waited")), whole_of(row.get("stacks"))
    if waited and stacks and waited < stacks:
        told += f" ({waited:,} of its {stacks:,} stacks waited for others)"
    told = makes_wait(row, glyphs) + "; " * bool(makes_wait(row, glyphs)) + told
    return [*sentence(told, cols, _role_style(row) and "warn", glyphs)[:2], *sentence(_path_words(row, glyphs), cols, "", glyphs)[:1]]


def _path_words(row, glyphs):
    """`/report 3, /other 2, and 4 elsewhere`."""
    paths = sorted(((amount_of(count) or 0, path) for path, count in dict_of(row.get("paths")).items()), reverse=True)
    told = [f"{safe(begun(path), glyphs)} {whole(count, glyphs)}" for count, path in paths]
    other = whole_of(row.get("paths_other"))
    return ", ".join(told + ([f"and {whole(other, glyphs)} on other paths"] if other else [])) or "its paths are not known"


# --- one place ------------------------------------------------------------------------------------

def _opened(view, ui, size):
    glyphs, cols = ui.glyphs, size.cols
    answer = view.get("time")
    if answer is None:
        return _missing(view, cols, glyphs)
    row = next((each for each in dicts_of(answer.get("pivots")) if _name(each) == ui.open), None)
    if row is None:
        frames = ui.open[2]
        lines = sentence(GONE, cols, "warn", glyphs)
        return scrolled([*lines, line(), *rows_of(frames, cols)], ui.scroll, size.rows)
    frames = frames_of(row)
    requests, active = whole_of(row.get("requests")), whole_of(row.get("active"))
    head = (f"{seconds(amount_of(row.get('seconds')), glyphs)} ({seconds(amount_of(row.get('recent_s')), glyphs)} in the last 10 min) of "
            f"{counted(requests, 'long request')}"
            + (f", {whole(active, glyphs)} of them running" if active else "")
            + f", of {group_name(text_of(row.get('process_group')), glyphs)}")
    rows = [line(Span(f" {safe(text_of(row.get('place')), glyphs) or UNKNOWN}", "bold")), *sentence(head, cols, "", glyphs),
            *([] if row.get("role") == WAITS else sentence(role_words(row, glyphs), cols, "", glyphs)), *_known(row, cols, glyphs), line(),
            line(Span(" What the stacks of each of these requests have in common", "accent")),
            *(sentence(CUT, cols, "warn", glyphs, "   ") if row.get("cut") is True else []), *rows_of(frames, cols)]
    if not frames:
        rows.append(line(Span("   (nothing)", "dim")))
    return scrolled(rows, ui.scroll, size.rows)


PANE = Pane("time", ("T", "0"), "time", _paths, _body, _count, _row, hint="Enter opens  G group")
