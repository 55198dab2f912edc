"""What the user sees by: the Ui, the table KEYS, and `press`: a key in, a new Ui out.

Nothing here draws or does anything: what has to be done outside (quit, write a file, seek in a
recording) is left in `Ui.asked`, for the one who runs the loop.
"""
from collections import namedtuple

from modwsgi_tel.wire.fields import PHASES

WINDOWS = ("now", "1m", "10m")
REFRESHES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
TYPED_MOST = 80                         # characters of a search

Table = namedtuple("Table", "sort reverse filter search cursor", defaults=("", False, 0, "", 0))
Table.__doc__ = """How one view's table is shown: column, order, place of its filter in Pane.filters, text searched for, row under the
cursor (of all that match)."""

Ui = namedtuple("Ui", "view window group phase tables open scroll help paused refresh_s speed typing message asked glyphs idle folds",
                defaults=("overview", "1m", None, "request", (), None, 0, False, False, 1.0, 1.0, None, "", (), None, False, frozenset()))
Ui.__doc__ = """All that the user has chosen.

view: name of a Pane.  window: of WINDOWS.  group: a process_group, or None for all.  phase: of PHASES.  tables: ((view, Table),
...).  open: what Enter opened in this view, as its pane names it, or None.  scroll: lines above the screen, in what has no rows.
refresh_s, speed: seconds between two looks; of a recording's time.  typing: (what for, text so far) or None.  message: one line
for the bottom, until the next key.  asked: what the loop has to do, as ("quit",), ("copy",), ("seek", seconds), ("step",),
("time", text), ("look",), ("stacks",).  glyphs: see cells.  idle: whether stacks are shown also of threads with nothing to do.  folds: ids of those nodes of the tree that are
folded or unfolded other than they are at first."""

Pane = namedtuple("Pane", "name keys title paths body count row sorts filters hint phases process subject",
                  defaults=(lambda view, ui: 0, lambda view, ui: None, (), (), "", False, lambda view, ui: None, None))
Pane.__doc__ = """One view.

name, title: for the Ui, for people.  keys: that lead to it.  paths(ui, size): {name: path} of what it shows, asked of the
collector in this order; the answers are in `view` by these names.  body(view, ui, size): its Lines.  count(view, ui): rows
that match, for the cursor.  row(view, ui): what Enter would open.  sorts: names of columns.  filters: (name, text) of each state
of `f`.  hint: its own part of the bottom line.  phases: whether `[` and `]` mean something.  process(view, ui): (pid, id) of
the running process whose stacks are shown, or None; its id may be None.  subject(view, ui): the same of one that may have
ended, where S leads to its last stacks; without it that is `process`."""

Key = namedtuple("Key", "keys where action shown help")
Key.__doc__ = """keys: names, a letter or a name as "pgup".  where: "" everywhere, or one of WHERE.  action(ui, context) -> Ui."""
WHERE = ("rows", "sorts", "filters", "searches", "phases", "windows", "replay", "live", "stacks", "idle", "folds")
FOLDS_MOST = 4096                       # nodes whose folding is remembered
TREE = "tree"                           # the pane whose rows fold
STACKS = "stacks"                       # the pane that shows those of the process which is opened in another one

Context = namedtuple("Context", "pane panes count row page groups replay process subject", defaults=(None, None))
Context.__doc__ = """What a key may need to know: the Pane and all of them, the rows it has, what is under the cursor, rows of a page,
names of all groups, whether a recording is played, what Pane.process and Pane.subject say."""


def table_of(ui, view=None):
    """The Table of a view, of the one that is shown without one."""
    return dict(ui.tables).get(view or ui.view, Table())


def with_table(ui, **changes):
    tables = dict(ui.tables)
    tables[ui.view] = tables.get(ui.view, Table())._replace(**changes)
    return ui._replace(tables=tuple(tables.items()))


def ask(ui, *what):
    return ui._replace(asked=(*ui.asked, what))


def press(ui, key, context, keys=None):
    """The Ui after a key; one that means nothing here changes nothing but the message.  keys: a table in place of KEYS."""
    ui = ui._replace(message="")
    if ui.typing is not None:
        return _type(ui, key)
    if ui.help:
        return ui._replace(help=False) if key in ("?", "h", "q", "esc", "enter") else _scrolled(ui, key, context)
    for entry in keys or KEYS:
        if key in entry.keys and _applies(entry.where, context):
            return entry.action(ui, context)
    for pane in context.panes:
        if key in pane.keys:
            subject = context.subject or context.process
            return to_view(ui, pane.name, (STACKS, *subject) if pane.name == STACKS and subject is not None else None)
    return ui


def _applies(where, context):
    return {"": True, "rows": context.count > 0, "sorts": bool(context.pane.sorts), "filters": bool(context.pane.filters),
            "searches": bool(context.pane.sorts or context.pane.filters), "phases": context.pane.phases, "windows": not context.pane.sorts, "replay": context.replay,
            "live": not context.replay, "stacks": context.process is not None and not context.replay,
            "idle": context.pane.name == STACKS, "folds": context.pane.name == TREE}[where]


def to_view(ui, name, opened=None):
    return ask(ui._replace(view=name, open=opened, scroll=0, help=False), "look")


# --- actions --------------------------------------------------------------------------------

def _quit(ui, context):
    return ask(ui, "quit")


def _back(ui, context):
    if ui.open is not None:
        return ask(ui._replace(open=None, scroll=0), "look")
    if table_of(ui).search:
        return ask(with_table(ui, search="", cursor=0), "look")
    return ask(ui, "quit")


def _neighbour(step):
    def go(ui, context):
        names = [pane.name for pane in context.panes]
        return to_view(ui, names[(names.index(ui.view) + step) % len(names)])
    return go


def _cycled(values, now, step):
    """The next of some values, round in a circle; the first when `now` is none of them."""
    return values[(values.index(now) + step) % len(values)] if now in values else values[0]


def _beside(values, now, step):
    """The next of some values in order, at the ends the same; `now` may lie between two."""
    higher = [value for value in values if value > now]
    lower = [value for value in values if value < now]
    found = higher if step > 0 else lower[::-1]
    return found[0] if found else now


def _window(step):
    return lambda ui, context: ask(ui._replace(window=_cycled(WINDOWS, ui.window, step)), "look")


def _phase(step):
    return lambda ui, context: ask(ui._replace(phase=_cycled(PHASES, ui.phase, step)), "look")


def _group(step):
    def go(ui, context):
        group = _cycled((None, *context.groups), ui.group, step)
        ui = ui._replace(group=group, open=None, scroll=0, message="all groups" if group is None else "")
        return ask(with_table(ui, cursor=0), "look")
    return go


def _sort(step):
    def go(ui, context):
        sort = _cycled(context.pane.sorts, table_of(ui).sort or context.pane.sorts[0], step)
        return ask(with_table(ui, sort=sort, cursor=0), "look")
    return go


def _reverse(ui, context):
    return ask(with_table(ui, reverse=not table_of(ui).reverse, cursor=0), "look")


def _filter(ui, context):
    number = (table_of(ui).filter + 1) % len(context.pane.filters)
    ui = with_table(ui, filter=number, cursor=0)
    return ask(ui._replace(message=f"shown: {context.pane.filters[number][1]}"), "look")


def _search(ui, context):
    return ui._replace(typing=("search", table_of(ui).search))


def _time(ui, context):
    return ui._replace(typing=("time", ""))


def _move(step):
    """step: rows, or a function of the rows of a page."""
    def go(ui, context):
        by = step(context.page) if callable(step) else step
        return moved(ui, context.count, by) if context.count and ui.open is None else _scroll(ui, by)
    return go


def moved(ui, count, by):
    """The cursor moved by so many rows, inside of the table."""
    cursor = max(0, min(count - 1, table_of(ui).cursor + by))
    return ask(with_table(ui, cursor=cursor), "look")


def _scroll(ui, by):
    return ui._replace(scroll=max(0, ui.scroll + by))


def _scrolled(ui, key, context):
    """In the help: the keys that move do, others nothing."""
    by = {"up": -1, "down": 1, "k": -1, "j": 1, "pgup": -context.page, "pgdn": context.page, "home": -FAR, "end": FAR}
    return _scroll(ui, by.get(key, 0))


def _enter(ui, context):
    if context.row is None or ui.open is not None:
        return ui
    return ask(ui._replace(open=context.row, scroll=0), "look")


def _fold(wanted):
    """wanted: True folds, False unfolds, None does what changes something."""
    def go(ui, context):
        if context.row is None or wanted is not None and context.row[2] == wanted:
            return ui
        folds = ui.folds ^ {context.row[1]}
        return ask(ui._replace(folds=folds if len(folds) <= FOLDS_MOST else frozenset()), "look")
    return go


def _pause(ui, context):
    return ask(ui._replace(paused=not ui.paused), "look")


def _take(ui, context):
    if ui.paused:
        return ui._replace(message="paused: space goes on, then a asks for stacks")
    return ask(ui._replace(message="stacks asked for"), "stacks")


def _idle(ui, context):
    return ui._replace(idle=not ui.idle, message="idle threads are " + ("counted" if ui.idle else "shown"))


def _refresh(step):
    def go(ui, context):
        seconds = _beside(REFRESHES_S, ui.refresh_s, step)
        return ask(ui._replace(refresh_s=seconds, message=f"a look every {seconds:g} s"), "look")
    return go


def _speed(step):
    def go(ui, context):
        speed = _beside(SPEEDS, ui.speed, step)
        return ui._replace(speed=speed, message=f"{speed:g} times real time")
    return go


def _help(ui, context):
    return ui._replace(help=True, scroll=0)


def _asks(*what):
    return lambda ui, context: ask(ui, *what)


FAR = 1 << 30
KEYS = (
    Key(("enter",), "folds", _fold(None), "", ""),
    Key(("right",), "folds", _fold(False), "Right Left", "in the tree: unfold, fold (also + -)"),
    Key(("left",), "folds", _fold(True), "", ""),
    Key(("+", "="), "folds", _fold(False), "", ""),
    Key(("-",), "folds", _fold(True), "", ""),
    Key(("?", "h"), "", _help, "? h", "this help"),
    Key(("q", "ctrl-c"), "", _quit, "q", "quit"),
    Key(("esc",), "", _back, "Esc", "back; quits where there is nothing to go back from"),
    Key(("tab",), "", _neighbour(1), "Tab", "the next view (Shift-Tab: the one before)"),
    Key(("backtab",), "", _neighbour(-1), "", ""),
    Key(("enter",), "rows", _enter, "Enter", "open what is under the cursor"),
    Key(("up", "k"), "", _move(-1), "Up Down", "move the cursor, or the page (also k j)"),
    Key(("down", "j"), "", _move(1), "", ""),
    Key(("pgup",), "", _move(lambda page: -page), "PgUp PgDn", "move by a page"),
    Key(("pgdn",), "", _move(lambda page: page), "", ""),
    Key(("home",), "", _move(-FAR), "Home End", "to the first, to the last"),
    Key(("end",), "", _move(FAR), "", ""),
    Key((" ",), "", _pause, "space", "pause: nothing moves until space again"),
    Key(("<",), "sorts", _sort(-1), "< >", "in a table: sort by the column before, behind"),
    Key((">",), "sorts", _sort(1), "", ""),
    Key(("<",), "windows", _window(-1), "< >", "elsewhere: window now, 1m, 10m"),
    Key((">",), "windows", _window(1), "", ""),
    Key(("n",), "", _window(1), "n", "the next window, in tables too"),
    Key(("r",), "sorts", _reverse, "r", "reverse the order"),
    Key(("f",), "filters", _filter, "f", "filter by state"),
    Key(("/",), "searches", _search, "/", "search; empty, or Esc, shows all again"),
    Key(("G",), "", _group(1), "G", "the next process group, or all"),
    Key(("[",), "phases", _phase(-1), "[ ]", "the phase of the request before, behind"),
    Key(("]",), "phases", _phase(1), "", ""),
    Key(("a",), "stacks", _take, "a", "ask for the stacks of what is open now; while it is open they are asked for all the time"),
    Key(("z",), "idle", _idle, "z", "stacks: threads with nothing to do shown, or counted"),
    Key(("+", "="), "live", _refresh(-1), "+ -", "look more often, less often"),
    Key(("-",), "live", _refresh(1), "", ""),
    Key(("+", "="), "replay", _speed(1), "+ -", "a recording: faster, slower"),
    Key(("-",), "replay", _speed(-1), "", ""),
    Key((".",), "replay", _asks("step"), ".", "a recording: one second on, and pause"),
    Key(("right",), "replay", _asks("seek", 10.0), "Left Right", "a recording: 10 s back, on"),
    Key(("left",), "replay", _asks("seek", -10.0), "", ""),
    Key(("}",), "replay", _asks("seek", 60.0), "{ }", "a recording: a minute back, on"),
    Key(("{",), "replay", _asks("seek", -60.0), "", ""),
    Key(("t",), "replay", _time, "t", "a recording: to a time, as 03:12:30, -5m or +30s"),
    Key(("c",), "", _asks("copy"), "c", "write this screen as text to a file"),
    Key(("ctrl-l",), "", _asks("redraw"), "Ctrl-L", "draw the screen anew"),
)


# --- typing ---------------------------------------------------------------------------------

def _type(ui, key):
    what, text = ui.typing
    if key == "esc":
        ui = ui._replace(typing=None)
        return ask(with_table(ui, search="", cursor=0), "look") if what == "search" else ui
    if key == "enter":
        ui = ui._replace(typing=None)
        return ask(ui, "time", text) if what == "time" and text else ui
    if key == "backspace":
        text = text[:-1]
    elif key == "ctrl-u":
        text = ""
    elif len(key) == 1 and key.isprintable() and len(text) < TYPED_MOST:
        text += key
    else:
        return ui
    ui = ui._replace(typing=(what, text))
    return ask(with_table(ui, search=text, cursor=0), "look") if what == "search" else ui
