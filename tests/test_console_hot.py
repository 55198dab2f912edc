"""The screen of `hot` and its keys, on figures that stand still.

Whole screens are in tests/screens_of_hot; after a change that is meant, write them anew and look at the difference:

    MODWSGI_TEL_WRITE_SCREENS=1 python -m pytest tests/test_console_hot.py
"""
import os
import random

import pytest
from console_answers import HOSTILE
from consoles import DESIGN, SMALL, WIDE
from test_console_screens import WRITE, check, some_size

from modwsgi_tel.console import hot
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, path_end, plain
from modwsgi_tel.console.keys import Ui, table_of, with_table
from modwsgi_tel.profile.hot import Row, Totals

SCREENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "screens_of_hot")
NAME = "pid 4711  Python 3.11.7  (wsgi:shop) -k start"
ROWS = [
    Row("pattern_match", "/usr/lib/python3.11/re/__init__.py", 0.614, 0.614, 0.92, 312.4, 312.4),
    Row("Cursor.execute", "/usr/lib/python3.11/sqlite3/dbapi2.py", 0.2, 0.2, 0.0, 88.1, 88.1),
    Row("(moving: not read)", None, 0.051, 0.051, 0.05, 20.0, 20.0),
    Row("QuerySet._fetch_all", "/srv/shop/vendor/django/db/models/query.py", 0.0012, 0.206, 0.001, 0.4, 90.2),
    Row("application", "/srv/shop/wsgi.py", 0.0, 0.949, 0.0, 0.0, 1480.0),
    Row("login", "/srv/shop/views.py", 0.0, 0.0, 0.0, 3.5, 4.0)]
TOTALS = Totals(looks=100, seen_s=5.0, time_s=60.0, gil_s=4.9, moving_s=1.8, cut_s=0.0, idle_s=20.0)


def a_view(rows=tuple(ROWS), **more):
    return {"name": NAME, "trouble": "", "rows": rows, "totals": TOTALS, "processes": 1, "rate": 20.0, "late": 2,
            "window": "5s", **more}


def a_ui(glyphs=UNICODE, **more):
    return with_table(Ui(view="hot", window="5s", glyphs=glyphs), **more)


def pressed(*keys, ui=None, view=None, size=DESIGN):
    ui, view = ui or a_ui(), view or a_view()
    for key in keys:
        ui = hot.press(ui, key, view, size)
    return ui


def screen(ui=None, size=WIDE, **view):
    return plain(hot.render(a_view(**view), ui or a_ui(), size))


def functions(ui, size=WIDE, **view):
    """The names in the table that is shown."""
    names = [row.function for row in ROWS]
    lines = screen(ui, size, **view).splitlines()[hot.HEAD_LINES + 1:]
    return [name for line in lines for name in names if f" {name}" in line]


# --- whole screens ----------------------------------------------------------------------------

SCENES = {
    "usual-80x24": (DESIGN, a_ui(), {}), "usual-200x50": (WIDE, a_ui(), {}), "usual-40x10": (SMALL, a_ui(), {}),
    "ascii-80x24": (DESIGN, a_ui(ASCII), {}), "no-look-80x24": (DESIGN, a_ui(), {"rows": (), "totals": None}),
    "all-idle-80x24": (DESIGN, a_ui(), {"rows": (), "totals": Totals(9, 0.5, 0.0, 0.0, 0.0, 0.0, 5.0)}),
    "ended-80x24": (DESIGN, a_ui(), {"trouble": "process 4711 has ended"}),
    "searching-80x24": (DESIGN, a_ui(search="shop")._replace(typing=("search", "shop")), {}),
    "paused-by-total-80x24": (DESIGN, a_ui(sort="total", filter=1, cursor=2)._replace(paused=True), {}),
    "help-80x24": (DESIGN, a_ui()._replace(help=True), {})}


@pytest.mark.parametrize("name", SCENES)
def test_the_screen_is_the_one_in_its_file(name):
    size, ui, view = SCENES[name]
    drawn, path = screen(ui, size, **view), os.path.join(SCREENS, f"{name}.txt")
    if os.environ.get(WRITE):
        os.makedirs(SCREENS, exist_ok=True)
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(drawn)
    with open(path, encoding="utf-8") as handle:
        assert drawn == handle.read()


def test_each_file_belongs_to_a_screen():
    assert sorted(os.listdir(SCREENS)) == sorted(f"{name}.txt" for name in SCENES)


def test_any_screen_fits_whatever_it_is_told():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    choose = random.Random(seed)
    for _ in range(300):
        shares = [choose.choice((0.0, 1.0, 0.5, 1e9, choose.random())) for _ in range(5)]
        rows = [Row(choose.choice(HOSTILE), choose.choice((None, *HOSTILE)), *shares) for _ in range(choose.choice((0, 1, 5, 200)))]
        glyphs, size = choose.choice((UNICODE, ASCII)), some_size(choose)
        ui = a_ui(glyphs, sort=choose.choice(("", *hot.SORTS)), reverse=choose.random() < 0.5, filter=choose.randrange(3),
                  search=choose.choice(("", "", *HOSTILE)), cursor=choose.choice((-1, 0, 3, 1 << 30)))
        ui = ui._replace(help=choose.random() < 0.1, message=choose.choice(("", *HOSTILE)), paused=choose.random() < 0.2,
                         typing=choose.choice((None, None, ("search", choose.choice(HOSTILE)))))
        view = a_view(rows=tuple(rows), name=choose.choice(HOSTILE), trouble=choose.choice(("", *HOSTILE)),
                      totals=choose.choice((None, TOTALS, Totals(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))))
        check(hot.render(view, ui, size), size, glyphs)
        for key in [key for entry in hot.KEYS for key in entry.keys]:
            hot.press(ui, key, view, size)


def test_the_smallest_screens_hold_the_name_and_no_more():
    assert screen(size=Size(1, 1)) == "…\n"
    assert screen(size=Size(1, 10)) == "pid 47… 5s\n"
    assert hot.render(a_view(), a_ui(), Size(0, 0)) == []


def test_of_a_long_path_the_end_is_shown():
    assert path_end("/srv/shop/views.py", 12, UNICODE) == "…/views.py"
    assert path_end("/srv/shop/views.py", 12, ASCII) == ".../views.py"
    assert path_end("/srv/shop/an_endless_name_of_a_module.py", 12, UNICODE) == "…a_module.py"
    assert path_end("/srv/語語語.py", 8, UNICODE) == "…語語.py"
    assert path_end("views.py", 12, UNICODE) == "views.py"
    assert [path_end("/srv/a.py", cols, UNICODE) for cols in (2, 1, 0)] == ["…y", "…", ""]


# --- keys -------------------------------------------------------------------------------------

@pytest.mark.parametrize("key, first", [("1", "pattern_match"), ("2", "application"), ("3", "pattern_match"), ("4", "pattern_match"),
                                        ("5", "application")])
def test_a_digit_sorts_by_a_column(key, first):
    assert functions(pressed(key))[0] == first


def test_the_arrows_go_through_the_columns_and_r_turns_the_order_round():
    assert [table_of(pressed(*">" * times)).sort for times in range(1, 8)] == [
        "total", "gil", "own_s", "total_s", "function", "file", "own"]
    assert table_of(pressed("<")).sort == "file"
    assert functions(pressed("2", "r")) == functions(pressed("2"))[::-1]
    assert "total▼" in screen(pressed("2")) and "total▲" in screen(pressed("2", "r"))
    assert "function▲" in screen(pressed(*">" * 5))


def test_a_search_finds_functions_and_files_in_whatever_case():
    assert functions(pressed("/", *"FETCH", "enter")) == ["QuerySet._fetch_all"]
    assert functions(pressed("/", *"srv/shop", "enter")) == ["QuerySet._fetch_all", "application", "login"]
    assert functions(pressed("/", *"nothing")) == [] and "no function matches" in screen(pressed("/", *"nothing"))
    assert len(functions(pressed("/", *"fetch", "esc"))) == len(functions(pressed("/", *"fetch", "enter", "esc"))) == len(ROWS)


def test_g_i_and_f_choose_whose_time_is_counted():
    names = [name for name, _ in hot.FILTERS]

    def shown(*keys):
        return names[table_of(pressed(*keys)).filter]

    assert [shown(), shown("g"), shown("i"), shown("g", "g"), shown("i", "i"), shown("g", "i")] == [
        "working", "gil", "all", "working", "working", "all"]
    assert [shown(*"f" * times) for times in range(4)] == [*names, "working"]


def test_n_goes_through_the_windows():
    assert [pressed(*"n" * times).window for times in range(5)] == ["5s", "15s", "1m", "2m", "5s"]


@pytest.mark.parametrize("key, asked", [("q", "quit"), ("ctrl-c", "quit"), ("esc", "quit"), ("z", "reset"), ("c", "copy")])
def test_what_has_to_be_done_outside_is_asked_for(key, asked):
    assert pressed(key).asked == ((asked,),)


def test_space_pauses_and_goes_on():
    assert (pressed(" ").paused, pressed(" ", " ").paused) == (True, False)
    assert "PAUSED 5s" in screen(pressed(" "))


def test_the_cursor_moves_inside_of_the_table_and_the_page_follows_it():
    many = tuple(Row(f"f{number:03}", "a.py", 0.0, 0.0, 0.0, 1000.0 - number, 0.0) for number in range(100))
    view = a_view(rows=many)

    def first(*keys):
        return plain(hot.render(view, pressed(*keys, view=view), DESIGN)).splitlines()[3].split()[-2]

    assert [first(), first("down"), first("pgdn"), first("end"), first("end", "home"), first("up")] == [
        "f000", "f000", "f020", "f080", "f000", "f000"]


def test_a_cursor_behind_the_last_row_is_on_the_last_page():
    assert functions(a_ui(cursor=1000), DESIGN) == [row.function for row in sorted(ROWS, key=hot.SORTS["own"])]


def test_every_key_is_in_the_help_and_no_two_are_the_same():
    shown = plain(hot.help_lines())
    for entry in hot.KEYS:
        assert entry.help in shown
    keys = [key for entry in hot.KEYS for key in entry.keys]
    assert len(keys) == len(set(keys))


def test_in_the_help_keys_scroll_and_leave():
    help_open = pressed("?", size=SMALL)
    assert help_open.help and pressed("down", ui=help_open).scroll == 1
    last = len(hot.help_lines()) - (SMALL.rows - hot.HEAD_LINES - 1)
    assert [pressed(*keys, ui=help_open, size=SMALL).scroll for keys in (("end",), ("end", "up"), ("end", "home"))] == [last, last - 1, 0]
    assert [pressed(key, ui=help_open).help for key in ("?", "q", "esc")] == [False] * 3
    assert pressed("z", ui=help_open).asked == ()
