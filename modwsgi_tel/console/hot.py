"""The screen of `hot`, and its keys: functions by their share of the threads' time.

    lines = render(view, ui, Size(rows=24, cols=80))
    ui = press(ui, "n", view, size)

As in `views`: at most `rows` Lines, none wider than `cols` cells, no control character.  `view` is plain data: "name" (of what is
looked at), "trouble" ("" or why there is nothing new), "rows" and "totals" (profile.hot's Row and Totals, of the Ui's window and
filter), "processes" (how many are left), "rate" (looks a second), "late",
"window" (its name).
"""
from modwsgi_tel.console.cells import Size, Span, apart, clip, fit, line, line_width, path_end, safe, width
from modwsgi_tel.console.draw import Column, Sorted, table
from modwsgi_tel.console.keys import KEYS as ALL_KEYS
from modwsgi_tel.console.keys import Context, Key, Pane, ask, table_of, with_table
from modwsgi_tel.console.keys import press as press_in
from modwsgi_tel.console.paging import place_of, scrolled, window_of
from modwsgi_tel.figures import number, percent

WINDOWS = {"5s": 5, "15s": 15, "1m": 60, "2m": 120}
SORTS = {                               # by what; the largest first but for text
    "own": lambda row: (-row.own, -row.total, -row.own_s), "total": lambda row: (-row.total, -row.own, -row.total_s),
    "gil": lambda row: (-row.gil, -row.own), "own_s": lambda row: (-row.own_s, -row.total_s),
    "total_s": lambda row: (-row.total_s, -row.own_s), "function": lambda row: row.function, "file": lambda row: row.file or ""}
FILTERS = (("working", "threads at work"), ("gil", "GIL holders"), ("all", "idle threads too"))
HOT, WARM = 0.5, 0.1                    # shares that are marked
HEAD_LINES = 2
_WIDE = 66                              # cells, from where there is room for seconds and files
_FIGURES = 41                           # cells of all columns but the last two, with the gaps


# --- keys -------------------------------------------------------------------------------------

def _window(ui, context):
    names = list(WINDOWS)
    return ask(ui._replace(window=names[(names.index(ui.window) + 1) % len(names)]), "look")


def _shown(name):
    """Only, or no longer only, this one of FILTERS."""
    wanted = [each for each, _ in FILTERS].index(name)

    def toggle(ui, context):
        found = 0 if table_of(ui).filter == wanted else wanted
        return ask(with_table(ui, filter=found, cursor=0)._replace(message=f"shown: {FILTERS[found][1]}"), "look")
    return toggle


def _by(name):
    return lambda ui, context: ask(with_table(ui, sort=name, cursor=0), "look")


def _reset(ui, context):
    return ask(ui._replace(message="counted anew from now on"), "reset")


# of the console's keys those that mean something here
_SHARED = {"?", "q", "esc", "up", "down", "pgup", "pgdn", "home", "end", " ", "<", ">", "r", "f", "/", "+", "-", "c", "ctrl-l"}
_WORDS = {"+": "draw more often, less often", " ": "pause: no looks are taken until space again", "f": "filter: threads that work, "
          "that hold the GIL, all", "<": "sort by the column before, behind", "esc": "shows all after a search, else quits"}
KEYS = (
    Key(("1",), "", _by("own"), "1 2 3", "sort by own share, total share, share of the GIL"),
    Key(("2",), "", _by("total"), "", ""),
    Key(("3",), "", _by("gil"), "", ""),
    Key(("4",), "", _by("own_s"), "4 5", "sort by own and total seconds since the start"),
    Key(("5",), "", _by("total_s"), "", ""),
    Key(("g",), "", _shown("gil"), "g", "only threads that hold the GIL, or all again"),
    Key(("i",), "", _shown("all"), "i", "idle threads too, or not"),
    Key(("n", "w"), "", _window, "n", "the next window: " + ", ".join(WINDOWS)),
    Key(("z",), "", _reset, "z", "zero: count anew from now on"),
    *(key._replace(help=_WORDS.get(key.keys[0], key.help) if key.shown else "") for key in ALL_KEYS
      if key.keys[0] in _SHARED and key.where in ("", "sorts", "filters", "searches", "live")),
)
PANE = Pane("hot", (), "hot", None, None, sorts=tuple(SORTS), filters=FILTERS)


def press(ui, key, view, size):
    """The Ui after a key."""
    rows = rows_of(view, ui)
    context = Context(PANE, (), len(rows), None, max(1, body_rows(size)), (), False)
    ui = press_in(ui, key, context, KEYS)
    return ui._replace(scroll=max(0, min(ui.scroll, len(help_lines()) - _inside(size).rows)))


def _inside(size):
    """The screen without its head and the line of keys."""
    return Size(max(0, size.rows - HEAD_LINES - 1), size.cols)


# --- the screen -------------------------------------------------------------------------------

def body_rows(size):
    """Functions that fit: beside the head, the table's own head and the line of keys."""
    return max(0, size.rows - HEAD_LINES - 2)


def rows_of(view, ui):
    """The rows that match the search, sorted."""
    found, wanted = view.get("rows") or (), table_of(ui).search.casefold()
    if wanted:
        found = [row for row in found if wanted in row.function.casefold() or wanted in (row.file or "").casefold()]
    return sorted(found, key=SORTS[sort_of(ui)], reverse=table_of(ui).reverse)


def sort_of(ui):
    return table_of(ui).sort or "own"


def render(view, ui, size):
    """The screen as a list of Lines."""
    inside = _inside(size)
    body = scrolled(help_lines(), ui.scroll, inside.rows) if ui.help else body_lines(view, ui, inside)
    body = body[:inside.rows] + [line()] * (inside.rows - len(body))
    lines = [*head_lines(view, ui, size.cols), *body, bottom_line(ui)]
    return [fit(each, size.cols, ui.glyphs) for each in lines[:size.rows]]


def head_lines(view, ui, cols):
    state = line(Span(" ".join(["PAUSED"] * ui.paused + [view.get("window", ui.window)]), "accent"))
    if view.get("trouble"):
        first = line(Span(safe(view["trouble"], ui.glyphs), "bad"))
    else:
        first = line(Span(safe(view.get("name", ""), ui.glyphs), "bold"))
    totals = view.get("totals")
    if totals is None:
        return [apart(first, state, cols, ui.glyphs), line(Span("waiting for the first look", "dim"))]
    whole = (totals.time_s + totals.idle_s) or 1.0
    held = min(1.0, totals.gil_s / (totals.seen_s or 1.0))
    figures = [("looks/s", number(view.get("rate"), 0), ""), ("GIL held", percent(held), "warn" if held >= 0.9 else ""),
               ("moving", percent(totals.moving_s / (totals.time_s or 1.0)), ""), ("idle", percent(totals.idle_s / whole), ""),
               ("processes", number(view.get("processes"), 0), ""), ("cut", percent(totals.cut_s / (totals.time_s or 1.0)), ""),
               ("late", number(view.get("late"), 0), ""), ("looks", number(totals.looks, 0), "")]
    second = ()
    for name, shown, style in figures:
        more = line(Span(f"{'  ' if second else ''}{name} ", "dim"), Span(shown, style))
        if line_width(second + more) > cols:
            break                       # the last ones go first
        second += more
    return [apart(first, state, cols, ui.glyphs), second]


def body_lines(view, ui, size):
    found = rows_of(view, ui)
    cursor, most = table_of(ui).cursor, max(0, size.rows - 1)
    start = window_of(cursor, most)
    chosen = place_of(cursor, {"matched": len(found), "offset": start}, found[start:start + most])
    if chosen is None and cursor >= 0 and found:        # the table has become shorter
        start = window_of(len(found) - 1, most)
        chosen = len(found) - 1 - start
    sort = sort_of(ui)
    shown = found[start:start + most]
    lines = table(_columns(shown, ui.glyphs, size.cols), shown, size.cols, ui.glyphs,
                  Sorted(sort, (sort in ("function", "file")) == table_of(ui).reverse), chosen)
    if not found:
        lines.append(line(Span(_why_empty(view, ui), "dim")))
    return lines


def _why_empty(view, ui):
    totals = view.get("totals")
    if table_of(ui).search:
        return " no function matches; Esc shows all"
    if totals is None or not totals.looks:
        return " no look yet"
    return {"working": " all threads are idle; i shows them too", "gil": " no thread held the GIL"}.get(
        FILTERS[table_of(ui).filter][0], " no threads with Python in them")


def _columns(rows, glyphs, cols):
    """The Columns for these rows: names as wide as they are, files with what is left."""
    wide = cols >= _WIDE
    share = 7 if wide else 5
    longest = max((width(safe(row.function, glyphs)) for row in rows), default=0)
    left = cols - _FIGURES
    name = min(longest, max(12, left * 2 // 3)) if wide else max(8, cols - 3 * (share + 1))
    room = max(12, left - name)

    def shares(name):
        return lambda row: f"{getattr(row, name) * 100:.1f} %" if wide else percent(getattr(row, name))

    def style(name):
        return lambda row: "bad" if getattr(row, name) >= HOT else "warn" if getattr(row, name) >= WARM else ""

    columns = (Column("own", "own", shares("own"), style("own"), width=share, keep=9),
               Column("total", "total", shares("total"), width=share, keep=8),
               Column("gil", "GIL", shares("gil"), width=share, keep=6),
               Column("own_s", "own s", lambda row: number(row.own_s), lambda row: "dim", width=7, keep=2),
               Column("total_s", "total s", lambda row: number(row.total_s), lambda row: "dim", width=7, keep=3),
               Column("function", "function", lambda row: clip(safe(row.function, glyphs), name, glyphs), width=12, right=False,
                      keep=9),
               Column("file", "file", lambda row: path_end(safe(row.file or "", glyphs), room, glyphs), lambda row: "dim",
                      right=False, keep=5, flex=True))
    return columns if wide else (*columns[:3], columns[5]._replace(flex=True))


def bottom_line(ui):
    if ui.typing is not None:
        return line(Span("/", "accent"), safe(ui.typing[1], ui.glyphs), Span("_", "accent"))
    if ui.message:
        return line(Span(safe(ui.message, ui.glyphs), "accent"))
    if ui.help:
        return line(Span("Esc back  Up Down PgUp PgDn Home End move", "dim"))
    found = table_of(ui)
    search = f" /{safe(found.search, ui.glyphs)}" if found.search else ""
    return line(Span(f"[{FILTERS[found.filter][1]}{search}]  q quit  ? help  < > sort  / search  n window  z zero", "dim"))


def help_lines():
    """All keys."""
    lines = [line(Span(" modwsgi-tel hot", "bold")), line()]
    lines += [line(Span(f" {key.shown:<12}", "accent"), key.help) for key in KEYS if key.shown]
    return [*lines, line(),
            line(Span(" own: as the innermost function; total: anywhere in the stack; GIL: own, of the time it was held", "dim"))]
