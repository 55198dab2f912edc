"""Keys: what each of them makes of a Ui, in every view; typing; the keys that the existing console has.

The old keys: o p w l s and 1 to 5, [ ], space, + -, < >, f, /, r, ? and h, q and Esc.
"""
import itertools
import random

import pytest

from modwsgi_tel.console import views
from modwsgi_tel.console.cells import UNICODE
from modwsgi_tel.console.keys import (FAR, KEYS, REFRESHES_S, SPEEDS, TYPED_MOST, WHERE, WINDOWS, Context, Table, Ui,
                                      press, table_of, with_table)
from modwsgi_tel.wire.fields import PHASES

LOOK = ("look",)
NAMES = tuple(pane.name for pane in views.PANES)


def a_context(view="overview", count=0, row=None, page=18, groups=("api", "shop"), replay=False, process=None):
    return Context(views.BY_NAME[view], views.PANES, count, row, page, list(groups), replay, process)


def a_ui(view="overview", **more):
    chosen = {name: more.pop(name) for name in Table._fields if name in more}
    return Ui(view=view, glyphs=UNICODE, tables=((view, Table(**chosen)),) if chosen else (), **more)


def pressed(ui, *keys, **context):
    """(the Ui after these keys, what they asked for)."""
    asked = ()
    for key in keys:
        ui = press(ui, key, a_context(ui.view, **context))
        asked, ui = asked + ui.asked, ui._replace(asked=())
    return ui, asked


def changed(before, after):
    """{field: value} of what differs."""
    return {name: new for name, old, new in zip(Ui._fields, before, after) if old != new}


def does(before, key, context=None, asked=(), **changes):
    """Whether a key changes this and no more, and asks for that."""
    after, what = pressed(before, key, **(context or {}))
    assert (changed(before, after), what) == (changes, asked)
    return True


# --- the table -----------------------------------------------------------------------------------

def applying(key, where):
    """The rows of KEYS that a key can mean where all of `where` holds."""
    return [entry for entry in KEYS if key in entry.keys and (not entry.where or entry.where in where)]


def test_no_key_means_two_things_in_one_place():
    either = {"sorts": ("sorts",), "windows": ("windows",)}
    keys = {key for entry in KEYS for key in entry.keys}
    for sorts, live, more in itertools.product(("sorts", "windows"), ("live", "replay"), range(8)):
        where = [*either[sorts], live]
        where += [name for bit, name in enumerate(("rows", "filters", "phases")) if more >> bit & 1]
        for key in keys:
            assert len(applying(key, where)) <= 1, (key, where)


def test_keys_of_views_are_their_own():
    taken = [key for entry in KEYS for key in set(entry.keys)]
    keys = [key for pane in views.PANES for key in pane.keys]
    assert len(set(keys)) == len(keys) and not set(keys) & set(taken)
    assert [pane.keys[-1] for pane in views.PANES] == [*"1234567890", "x", "P"]


def test_every_key_is_in_the_help_and_every_row_of_it_says_something():
    for entry in KEYS:
        assert entry.where in ("", *WHERE) and entry.keys and bool(entry.shown) == bool(entry.help)
    # what is not shown is the other way of the row before it
    for before, entry in zip(KEYS, KEYS[1:]):
        assert entry.shown or entry.where == before.where or before.shown == ""
    shown = " ".join(entry.shown + " " + entry.help for entry in KEYS).lower()
    spoken = {"backtab": "shift-tab", " ": "space", "ctrl-l": "ctrl-l", "backspace": "backspace"}
    for key in {key for entry in KEYS for key in entry.keys} - {"ctrl-c", "="}:
        assert spoken.get(key, key.lower()) in shown, key


def test_the_help_shows_all_keys_and_all_views():
    console = {"source": {"name": "http://127.0.0.1:8888"}}
    text = "\n".join("".join(span.text for span in each) for each in views.help_lines(console, a_ui()))
    for entry in KEYS:
        assert not entry.shown or f" {entry.shown:<12}{entry.help}\n" in text
    for pane in views.PANES:
        assert f" {' '.join(pane.keys):<12}view: {pane.title}\n" in text


# --- what every key does -------------------------------------------------------------------------

ROWS = {"count": 5, "row": ("process", 812, 3), "page": 2}
IN_ROWS = {"count": 5, "page": 2}
PLAYING = {"replay": True}
OPENED = {"process": (812, 3)}


def cursor(view, at, **more):
    return ((view, Table(cursor=at, **more)),)


SORTS, FILTERS = views.BY_NAME["slow"].sorts, views.BY_NAME["slow"].filters

# key, before, context, what it asks for, what changes
CASES = (
    ("?", a_ui(scroll=7), {}, (), dict(help=True, scroll=0)),
    ("h", a_ui(), {}, (), dict(help=True)),
    ("q", a_ui(), {}, (("quit",),), {}),
    ("ctrl-c", a_ui(), {}, (("quit",),), {}),
    ("esc", a_ui(), {}, (("quit",),), {}),
    ("esc", a_ui("slow", open=("slow", 3), scroll=4), {}, (LOOK,), dict(open=None, scroll=0)),
    ("esc", a_ui("slow", search="x", cursor=3), {}, (LOOK,), dict(tables=(("slow", Table()),))),
    ("tab", a_ui(), {}, (LOOK,), dict(view="processes")),
    ("tab", a_ui(NAMES[-1]), {}, (LOOK,), dict(view="overview")),
    ("backtab", a_ui(), {}, (LOOK,), dict(view=NAMES[-1])),
    ("enter", a_ui("slow", scroll=3), ROWS, (LOOK,), dict(open=("process", 812, 3), scroll=0)),
    ("enter", a_ui("slow"), {}, (), {}),
    ("enter", a_ui("slow"), IN_ROWS, (), {}),                       # its row is not there yet
    ("enter", a_ui("slow", open=("slow", 1)), ROWS, (), {}),        # is open already
    ("down", a_ui("slow"), IN_ROWS, (LOOK,), dict(tables=cursor("slow", 1))),
    ("j", a_ui("slow"), IN_ROWS, (LOOK,), dict(tables=cursor("slow", 1))),
    ("up", a_ui("slow", cursor=4), IN_ROWS, (LOOK,), dict(tables=cursor("slow", 3))),
    ("k", a_ui("slow", cursor=4), IN_ROWS, (LOOK,), dict(tables=cursor("slow", 3))),
    ("pgdn", a_ui("slow"), IN_ROWS, (LOOK,), dict(tables=cursor("slow", 2))),
    ("pgup", a_ui("slow", cursor=4), IN_ROWS, (LOOK,), dict(tables=cursor("slow", 2))),
    ("end", a_ui("slow"), IN_ROWS, (LOOK,), dict(tables=cursor("slow", 4))),
    ("home", a_ui("slow", cursor=4), IN_ROWS, (LOOK,), dict(tables=cursor("slow", 0))),
    ("down", a_ui(), {}, (), dict(scroll=1)),                       # no rows: the page moves
    ("up", a_ui(scroll=3), {}, (), dict(scroll=2)),
    ("up", a_ui(), {}, (), {}),
    ("pgdn", a_ui(), {"page": 9}, (), dict(scroll=9)),
    ("pgup", a_ui(scroll=20), {"page": 9}, (), dict(scroll=11)),
    ("end", a_ui(), {}, (), dict(scroll=FAR)),
    ("home", a_ui(scroll=FAR), {}, (), dict(scroll=0)),
    ("down", a_ui("slow", open=("slow", 1)), IN_ROWS, (), dict(scroll=1)),
    ("a", a_ui("processes", open=("process", 812, 3)), OPENED, (("stacks",),), dict(message="stacks asked for")),
    ("a", a_ui("processes", open=("process", 812, 3), paused=True), OPENED, (),
     dict(message="paused: space goes on, then a asks for stacks")),
    ("a", a_ui("processes"), {}, (), {}),                           # nothing is open
    ("a", a_ui("stacks", open=("stacks", 812, 3)), {**OPENED, **PLAYING}, (), {}),
    ("z", a_ui("stacks"), {}, (), dict(idle=True, message="idle threads are shown")),
    ("z", a_ui("stacks", idle=True), {}, (), dict(idle=False, message="idle threads are counted")),
    ("z", a_ui("stacks"), PLAYING, (), dict(idle=True, message="idle threads are shown")),
    ("z", a_ui("slow"), {}, (), {}),
    (" ", a_ui(), {}, (LOOK,), dict(paused=True)),
    (" ", a_ui(paused=True), {}, (LOOK,), dict(paused=False)),
    (">", a_ui("slow", cursor=4), {}, (LOOK,), dict(tables=cursor("slow", 0, sort=SORTS[1]))),
    ("<", a_ui("slow", sort=SORTS[1]), {}, (LOOK,), dict(tables=cursor("slow", 0, sort=SORTS[0]))),
    ("<", a_ui("slow"), {}, (LOOK,), dict(tables=cursor("slow", 0, sort=SORTS[-1]))),
    (">", a_ui("slow", sort="gone"), {}, (LOOK,), dict(tables=cursor("slow", 0, sort=SORTS[0]))),
    (">", a_ui(), {}, (LOOK,), dict(window="10m")),
    (">", a_ui(window="10m"), {}, (LOOK,), dict(window="now")),
    ("<", a_ui(), {}, (LOOK,), dict(window="now")),
    ("<", a_ui(window="now"), {}, (LOOK,), dict(window="10m")),
    ("n", a_ui("slow"), {}, (LOOK,), dict(window="10m")),
    ("r", a_ui("slow", cursor=4), {}, (LOOK,), dict(tables=cursor("slow", 0, reverse=True))),
    ("r", a_ui("slow", reverse=True), {}, (LOOK,), dict(tables=cursor("slow", 0))),
    ("r", a_ui(), {}, (), {}),
    ("f", a_ui("slow", cursor=4), {}, (LOOK,),
     dict(tables=cursor("slow", 0, filter=1), message=f"shown: {FILTERS[1][1]}")),
    ("f", a_ui("slow", filter=len(FILTERS) - 1), {}, (LOOK,),
     dict(tables=cursor("slow", 0), message=f"shown: {FILTERS[0][1]}")),
    ("f", a_ui(), {}, (), {}),
    ("/", a_ui("slow", search="a"), {}, (), dict(typing=("search", "a"))),
    ("/", a_ui("exceptions", search="a"), {}, (), dict(typing=("search", "a"))),
    ("/", a_ui(), {}, (), {}),
    ("G", a_ui("slow", cursor=4, open=("slow", 1), scroll=3), {}, (LOOK,),
     dict(tables=cursor("slow", 0), group="api", open=None, scroll=0)),
    ("G", a_ui(group="api"), {}, (LOOK,), dict(group="shop", tables=cursor("overview", 0))),
    ("G", a_ui(group="shop"), {}, (LOOK,), dict(group=None, message="all groups", tables=cursor("overview", 0))),
    ("G", a_ui(group="gone"), {}, (LOOK,), dict(group=None, message="all groups", tables=cursor("overview", 0))),
    ("]", a_ui("latency"), {}, (LOOK,), dict(phase=PHASES[PHASES.index("request") + 1])),
    ("[", a_ui("latency"), {}, (LOOK,), dict(phase=PHASES[PHASES.index("request") - 1])),
    ("]", a_ui("latency", phase=PHASES[-1]), {}, (LOOK,), dict(phase=PHASES[0])),
    ("]", a_ui(), {}, (), {}),
    ("+", a_ui(), {}, (LOOK,), dict(refresh_s=0.5, message="a look every 0.5 s")),
    ("=", a_ui(), {}, (LOOK,), dict(refresh_s=0.5, message="a look every 0.5 s")),
    ("-", a_ui(), {}, (LOOK,), dict(refresh_s=2.0, message="a look every 2 s")),
    ("+", a_ui(refresh_s=0.5), {}, (LOOK,), dict(message="a look every 0.5 s")),
    ("-", a_ui(refresh_s=60.0), {}, (LOOK,), dict(message="a look every 60 s")),
    ("-", a_ui(refresh_s=3.0), {}, (LOOK,), dict(refresh_s=5.0, message="a look every 5 s")),
    ("+", a_ui(refresh_s=3.0), {}, (LOOK,), dict(refresh_s=2.0, message="a look every 2 s")),
    ("+", a_ui(), PLAYING, (), dict(speed=2.0, message="2 times real time")),
    ("=", a_ui(), PLAYING, (), dict(speed=2.0, message="2 times real time")),
    ("-", a_ui(), PLAYING, (), dict(speed=0.5, message="0.5 times real time")),
    ("-", a_ui(speed=0.1), PLAYING, (), dict(message="0.1 times real time")),
    (".", a_ui(), PLAYING, (("step",),), {}),
    ("right", a_ui(), PLAYING, (("seek", 10.0),), {}),
    ("left", a_ui(), PLAYING, (("seek", -10.0),), {}),
    ("}", a_ui(), PLAYING, (("seek", 60.0),), {}),
    ("{", a_ui(), PLAYING, (("seek", -60.0),), {}),
    ("t", a_ui(), PLAYING, (), dict(typing=("time", ""))),
    *((key, a_ui(), {}, (), {}) for key in (".", "right", "left", "}", "{", "t")),     # nothing is played
    ("c", a_ui(), {}, (("copy",),), {}),
    ("ctrl-l", a_ui(), {}, (("redraw",),), {}),
)


@pytest.mark.parametrize("key, before, context, asked, changes", CASES)
def test_a_key_does_what_its_help_says_and_nothing_else(key, before, context, asked, changes):
    assert does(before, key, context, asked, **changes)


def test_every_key_is_tried_above():
    tried = {(key, context.get("replay", False)) for key, _, context, _, _ in CASES}
    meant = {(key, entry.where == "replay") for entry in KEYS for key in entry.keys}
    assert meant <= tried


def test_from_what_is_open_the_key_of_the_stacks_leads_to_those_of_its_process():
    for before in (a_ui("processes", open=("process", 812, 3)), a_ui("slow", open=("slow", 9))):
        for key in ("S", "9"):
            assert does(before, key, OPENED, (LOOK,), view="stacks", open=("stacks", 812, 3))
    assert does(a_ui("slow", open=("slow", 9)), "p", OPENED, (LOOK,), view="processes", open=None)


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_of_a_view_lead_to_it_from_everywhere(name):
    for before in NAMES:
        for key in views.BY_NAME[name].keys:
            ui = a_ui(before, open=("slow", 3), scroll=4, message="old", window="10m", group="api")
            after, asked = pressed(ui, key)
            assert (after, asked) == (ui._replace(view=name, open=None, scroll=0, message=""), (LOOK,))


# what the existing console's keys do, in its views
OLD = (
    *((key, dict(view=view)) for keys, view in (
        ("o1", "overview"), ("p2", "processes"), ("w3", "workers"), ("l4", "latency"), ("s5", "slow")) for key in keys),
    (" ", dict(paused=True)), ("?", dict(help=True)), ("h", dict(help=True)))


@pytest.mark.parametrize("key, changes", OLD)
def test_fingers_that_know_the_existing_console_find_its_views_pause_and_help(key, changes):
    before = a_ui("lifecycle")
    after, _ = pressed(before, key)
    assert changed(before, after) == changes


def test_fingers_that_know_the_existing_console_find_its_other_keys():
    assert [pressed(a_ui("latency"), key)[0].phase != "request" for key in "[]"] == [True, True]
    assert [pressed(a_ui(), key)[0].refresh_s for key in "+-"] == [0.5, 2.0]
    assert [pressed(a_ui(view), ">")[0].window for view in ("overview", "latency", "workers")] == ["10m"] * 3
    for view in ("processes", "slow"):
        tables = [table_of(pressed(a_ui(view), *keys)[0]) for keys in ("<", ">", "f", "r", "/x")]
        pane = views.BY_NAME[view]
        assert tables == [Table(sort=pane.sorts[-1]), Table(sort=pane.sorts[1]), Table(filter=1), Table(reverse=True),
                          Table(search="x")]
    assert [pressed(a_ui(), key)[1] for key in ("q", "esc")] == [(("quit",),)] * 2


@pytest.mark.parametrize("key", (
    "", "y", "Q", "é", "漢", "\x00", "\x1b", "f1", "delete", "backspace", "ctrl-u", "f10", "mouse"))
def test_a_key_that_means_nothing_takes_the_message_away_and_does_nothing(key):
    for name in NAMES:
        assert does(a_ui(name, message="written: /tmp/x"), key, ROWS, message="")


# --- round and round -----------------------------------------------------------------------------

@pytest.mark.parametrize("view, key, values, read", [
    ("overview", ">", WINDOWS, lambda ui: ui.window), ("overview", "<", WINDOWS[::-1], lambda ui: ui.window),
    ("slow", "n", WINDOWS, lambda ui: ui.window), ("latency", "]", PHASES, lambda ui: ui.phase),
    ("latency", "[", PHASES[::-1], lambda ui: ui.phase), ("overview", "G", (None, "api", "shop"), lambda ui: ui.group),
    ("overview", "tab", NAMES, lambda ui: ui.view), ("overview", "backtab", NAMES[::-1], lambda ui: ui.view),
    *((name, ">", views.BY_NAME[name].sorts, lambda ui: table_of(ui).sort) for name in ("processes", "slow")),
    *((name, "f", range(len(views.BY_NAME[name].filters)), lambda ui: table_of(ui).filter)
      for name in ("processes", "slow", "lifecycle"))])
def test_what_can_be_chosen_goes_round_in_a_circle(view, key, values, read):
    ui, seen = a_ui(view), []
    for _ in range(2 * len(values)):
        ui, _ = pressed(ui, key)
        seen.append(read(ui))
    start = list(values).index(seen[0])
    assert seen == [values[(start + step) % len(values)] for step in range(2 * len(values))]


@pytest.mark.parametrize("replay, plus, values, read", [
    (False, -1, REFRESHES_S, lambda ui: ui.refresh_s), (True, 1, SPEEDS, lambda ui: ui.speed)])
def test_refresh_and_speed_stop_at_their_ends(replay, plus, values, read):
    ui, seen = a_ui(), []
    for key in "+" * 12 + "-" * 12:
        ui, _ = pressed(ui, key, replay=replay)
        seen.append(read(ui))
    assert (seen[11], seen[23]) == (values[-1], values[0])[::plus]
    assert set(values) == set(seen)


def test_the_cursor_of_each_view_is_its_own():
    ui, _ = pressed(a_ui("slow"), "down", "down", count=5)
    ui, _ = pressed(ui, "p", "down", count=5)
    assert dict(ui.tables) == {"slow": Table(cursor=2), "processes": Table(cursor=1)}
    assert table_of(pressed(ui, "s", count=5)[0]) == Table(cursor=2)
    assert (table_of(ui, "slow"), table_of(ui, "gc")) == (Table(cursor=2), Table())
    assert table_of(with_table(ui, search="x")) == Table(cursor=1, search="x")


@pytest.mark.parametrize("seed", range(20))
def test_the_cursor_is_never_outside_of_the_table(seed):
    print("seed", seed)
    choose = random.Random(seed)
    ui, keys = a_ui("slow"), ("up", "down", "pgup", "pgdn", "home", "end", "j", "k")
    for _ in range(200):
        count = choose.randrange(1, 40)
        before = table_of(ui).cursor
        ui, _ = pressed(ui, choose.choice(keys), count=count, page=choose.randrange(1, 60))
        assert 0 <= table_of(ui).cursor < count, (before, count)


def test_of_a_table_that_has_become_shorter_the_cursor_is_on_the_last_row():
    tables = [table_of(pressed(a_ui("slow", cursor=30), key, count=3)[0]) for key in ("down", "up", "end", "home")]
    assert [table.cursor for table in tables] == [2, 2, 2, 0]


# --- help ----------------------------------------------------------------------------------------

HELP = a_ui("slow", help=True, scroll=5)


@pytest.mark.parametrize("key", ("?", "h", "q", "esc", "enter"))
def test_help_is_left_without_quitting(key):
    assert does(HELP, key, ROWS, help=False)


@pytest.mark.parametrize("key, scroll", [
    ("down", 6), ("j", 6), ("up", 4), ("k", 4), ("pgdn", 7), ("pgup", 3), ("home", 0), ("end", 5 + FAR)])
def test_help_is_read_with_the_keys_that_move(key, scroll):
    assert does(HELP, key, ROWS, scroll=scroll)


@pytest.mark.parametrize("key", ("p", " ", "f", "/", "G", "+", "r", "tab", "n", "c", "x"))
def test_other_keys_do_nothing_in_the_help(key):
    assert does(HELP, key, ROWS)


# --- typing --------------------------------------------------------------------------------------

def typed(*keys, ui=None):
    return pressed(ui or a_ui("slow", cursor=3), "/", *keys)


def test_a_search_is_looked_for_with_each_letter_and_ended_with_enter():
    ui, asked = typed(*"rep")
    assert (ui.typing, table_of(ui), asked) == (("search", "rep"), Table(search="rep"), (LOOK,) * 3)
    ui, asked = pressed(ui, "enter")
    assert (ui.typing, table_of(ui), asked) == (None, Table(search="rep"), ())


def test_while_typing_keys_are_letters():
    ui, asked = typed(*"q? pf/G[]-+<>", "h", ".")
    assert table_of(ui).search == "q? pf/G[]-+<>h." and ("quit",) not in asked
    assert table_of(typed("é", "漢", "🦄")[0]).search == "é漢🦄"


@pytest.mark.parametrize("key", (
    "up", "pgdn", "tab", "left", "ctrl-l", "ctrl-c", "", "\x00", "\x1b", "\n", "\u200b", "\ud800"))
def test_while_typing_what_is_no_letter_is_nothing(key):
    ui, _ = typed(*"ab")
    assert does(ui, key, ROWS)


def test_backspace_takes_the_last_letter_and_ctrl_u_all():
    ui, _ = typed(*"abc")
    assert [table_of(pressed(ui, *keys)[0]).search for keys in (
        ("backspace",), ("backspace",) * 9, ("ctrl-u",), ("ctrl-u", "x"))] == ["ab", "", "", "x"]
    assert pressed(ui, "backspace")[1] == (LOOK,)


def test_esc_ends_a_search_and_shows_all_again():
    ui, _ = typed(*"abc")
    ui, asked = pressed(ui._replace(tables=(("slow", Table("age", True, 1, "abc", 7)),)), "esc")
    assert (ui.typing, table_of(ui), asked) == (None, Table("age", True, 1, "", 0), (LOOK,))


def test_a_search_goes_on_from_what_was_searched_for():
    ui, _ = typed(*"abc", "enter", "/", "d")
    assert (ui.typing, table_of(ui).search) == (("search", "abcd"), "abcd")


def test_what_is_typed_has_a_most():
    ui, _ = typed(*"x" * (TYPED_MOST + 30))
    assert (len(table_of(ui).search), len(ui.typing[1])) == (TYPED_MOST, TYPED_MOST)
    assert table_of(pressed(ui, "backspace", "y")[0]).search == "x" * (TYPED_MOST - 1) + "y"


def test_a_time_is_asked_for_with_enter_only():
    ui, asked = pressed(a_ui("slow", search="kept"), "t", *"-5m", replay=True)
    assert (ui.typing, table_of(ui).search, asked) == (("time", "-5m"), "kept", ())
    assert pressed(ui, "enter") == (ui._replace(typing=None), (("time", "-5m"),))
    assert pressed(ui, "esc") == (ui._replace(typing=None), ())
    assert pressed(ui, "ctrl-u", "enter") == (ui._replace(typing=None), ())


# --- any keys ------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(20))
def test_any_keys_leave_a_ui_that_makes_sense(seed):
    print("seed", seed)
    choose = random.Random(seed)
    keys = sorted({key for each in (*KEYS, *views.PANES) for key in each.keys})
    keys += ["x", "é", "backspace", "ctrl-u", "f1"]
    ui = a_ui()
    for _ in range(400):
        count = choose.choice((0, 1, 30))
        row = ("process", 7, 7) if count and choose.random() < 0.8 else None
        ui, asked = pressed(ui, choose.choice(keys), count=count, row=row, replay=choose.random() < 0.3)
        assert ui.view in NAMES and ui.window in WINDOWS and ui.phase in PHASES and ui.group in (None, "api", "shop")
        assert ui.refresh_s in REFRESHES_S and ui.speed in SPEEDS and ui.scroll >= 0 and ui.asked == ()
        assert ui.typing is None or (ui.typing[0] in ("search", "time") and len(ui.typing[1]) <= TYPED_MOST)
        assert {name for name, _ in ui.tables} <= set(NAMES) and len(ui.tables) == len(dict(ui.tables))
        assert all(table.cursor >= 0 and len(table.search) <= TYPED_MOST for _, table in ui.tables)
        assert {what[0] for what in asked} <= {"quit", "look", "copy", "redraw", "step", "seek", "time"}
        views.pane_of(ui)
