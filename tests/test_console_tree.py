"""The pane of the tree: what is asked for, what folds and unfolds, and that any answer fits on any screen."""
import random

import pytest

from console_answers import HOSTILE, a_view, check_fits, fuzzed, scrambled
from consoles import DESIGN, SMALL, Looking, simulated
from modwsgi_tel.console import tree, views
from modwsgi_tel.console.cells import ASCII, LINUX, UNICODE, Size, plain
from modwsgi_tel.console.keys import Table, Ui, press
from test_routes_tree import a_collector
from trees import a_tree, an_entry, every


def a_ui(glyphs=UNICODE, **more):
    chosen = {name: more.pop(name) for name in Table._fields if name in more}
    return Ui(view="tree", glyphs=glyphs, tables=(("tree", Table(**chosen)),), **more)


def an_answer(**ask):
    return a_tree(entries=[an_entry(log_id="Def")], told=1.0, **ask)


def body(ui=None, answer=None, rows=50, cols=110):
    return plain(tree.body(a_view(tree=an_answer(stacktraces=True) if answer is None else answer), ui or a_ui(), Size(rows, cols))).splitlines()


def pressed(ui, *keys, answer=None, size=Size(60, 100)):
    view = a_view(tree=an_answer(stacktraces=True) if answer is None else answer)
    for key in keys:
        ui = press(ui, key, views.context(view, ui, size))
    return ui


def at(text, ui=None):
    """A Ui whose cursor is on the first row with this text."""
    ui = ui or a_ui()
    place = next(place for place, row in enumerate(tree._rows(a_view(tree=an_answer(stacktraces=True)), ui)) if text in "  ".join(map(str, row[2])))
    return a_ui(folds=ui.folds, cursor=place)


# --- what is asked for ----------------------------------------------------------------------------

def test_whole_stacks_are_asked_for_only_while_one_is_unfolded():
    assert tree.PANE.paths(a_ui(), DESIGN) == {"tree": "/api/processes?tree=1"}
    assert tree.PANE.paths(a_ui(group="shop", filter=1), DESIGN) == {"tree": "/api/processes?tree=1&no_system=1&group=shop"}
    for folded in ("p101.rDef", "p101.unassociated.s0"):
        assert tree.PANE.paths(a_ui(folds=frozenset({folded})), DESIGN) == {"tree": "/api/processes?tree=1&stacktraces=1"}
    assert tree.PANE.paths(a_ui(folds=frozenset({"p101"})), DESIGN) == {"tree": "/api/processes?tree=1"}


# --- what is seen ---------------------------------------------------------------------------------

AT_FIRST = """\
>- apache2 100  Apache's parent  up 2.0 h  cpu 0.00  7.4 MB  1 thread
   - daemon process group shop: 2 processes  5 requests, the oldest for 9.0 s  134 MB
     - 101  up 60 min  cpu 0.25  34.5 MB  6 threads  3 requests, the oldest for 9.0 s  no telemetry
       - interpreter 0 (main)  2 requests
         + GET /pay  for 9.0 s  after 250 ms in the queue  thread 1011  accepted by child 110  request Def
             at shop/app.py:31 pay  waits in futex
         + GET /pay  for 4.0 s  thread 1010  request Abc
             at shop/app.py:31 pay  waits in futex
       - interpreter 1 site-a  1 request
         + GET /stock  for 500 ms  thread 1012  request Ghi
             at shop/app.py:55 stock > readinto (python3.11/socket.py:706)  waits in recvfrom
       - (dead process)  work that goes on after its request has ended
         + GET /order  began 60.0 s ago  thread 1013  request Old
             at shop/app.py:77 mails  waits in clock_nanosleep
             has ended; a thread that it left behind goes on
       + (unassociated)  2 threads that work for no request
         1 thread with nothing to do
     - 102  up 30 min  cpu 1.50  99.0 MB  6 threads  2 requests, the oldest for 2.0 s  no telemetry
       - interpreter 0 (main)  2 requests
         + GET /pay  for 2.0 s  thread 1020  request Jkl
             at shop/app.py:31 pay  waits in futex
         + request (not told which)  age not known  answering  thread 1021
             at shop/app.py:102 export  waits in futex
         104  child process  sleep 1000  up 20.0 s  cpu 0.00  1.7 MB  1 thread
   + children of Apache: 1 process  6.5 MB
   - daemon process group mail: 1 process  34.5 MB
     - 103  up 50 min  cpu 0.25  34.5 MB  4 threads  no telemetry
         interpreter 0 (main)  no request
         1 thread with nothing to do""".splitlines()


def test_at_first_all_is_unfolded_but_stacks_and_what_serves_no_requests():
    assert body() == AT_FIRST


def test_enter_and_plus_and_minus_and_arrows_fold_and_unfold_what_is_under_the_cursor():
    first = at("GET /pay  for 9.0 s")
    unfolded = pressed(first, "enter")
    assert unfolded.folds == {"p101.rDef"} and body(unfolded)[4:10] == [
        ">        - GET /pay  for 9.0 s  after 250 ms in the queue  thread 1011  accepted by child 110  request Def",
        "             at shop/app.py:31 pay  waits in futex",
        "             3 have this stack: GET /pay, thread 1011 of 101; GET /pay, thread 1010 of 101; GET /pay, thread …",
        "             application (/srv/shop/app.py:12)", "             pay (/srv/shop/app.py:31)",
        "         + GET /pay  for 4.0 s  thread 1010  request Abc"]
    for keys, folds in ((("+",), {"p101.rDef"}), (("right",), {"p101.rDef"}), (("+", "+"), {"p101.rDef"}), (("-",), set()), (("left",), set()),
                        (("enter", "enter"), set()), (("+", "-"), set()), (("right", "left"), set())):
        assert pressed(first, *keys).folds == folds, keys
    # a line below a node is that node's
    assert pressed(first, "down", "enter").folds == {"p101.rDef"}
    folded = pressed(at("daemon process group shop"), "-")
    assert body(folded)[1:3] == [">  + daemon process group shop: 2 processes  5 requests, the oldest for 9.0 s  134 MB", "   + children of Apache: 1 process  6.5 MB"]
    assert ("look",) in pressed(first, "enter").asked


def test_a_stack_that_hangs_below_another_request_is_shown_with_its_own():
    shown = body(pressed(at("GET /pay  for 2.0 s"), "enter"))
    place = next(place for place, text in enumerate(shown) if text.startswith(">"))
    assert shown[place + 3:place + 5] == ["             application (/srv/shop/app.py:12)", "             pay (/srv/shop/app.py:31)"]


def test_stacks_of_nobody_unfold_twice():
    once = pressed(at("(unassociated)"), "enter")
    assert any(text.endswith('+ housekeeping  2 threads: 1014 "Thread-1", 1015 "Thread-2"') for text in body(once))
    twice = pressed(at("housekeeping  2 threads", once), "enter")
    assert any(text.strip() == "housekeeping (/srv/shop/app.py:90)" for text in body(twice))
    # the frames come with the next answer
    assert any(text.strip() == "its frames are on their way" for text in body(twice, an_answer()))


def test_a_search_shows_the_rows_that_have_it_folded_or_not():
    shown = body(a_ui(search="HOUSEKEEPING"))
    assert [text.strip("> -+").split("  ")[0] for text in shown] == ["housekeeping", "at shop/app.py:90 housekeeping", "housekeeping (/srv/shop/app.py:90)"]
    assert body(a_ui(search="nowhere")) == [" nothing to show"]


def test_the_page_goes_with_the_cursor_and_what_is_missing_is_above():
    answer = an_answer(missing=["stacks: run as root"])
    for cursor in (0, 10, 28, 99):
        shown = body(a_ui(cursor=cursor), answer, rows=8, cols=60)
        assert len(shown) == 8 and shown[0] == " missing: stacks: run as root" and sum(text.startswith(">") for text in shown) == 1
    assert body(a_ui(cursor=99), answer, rows=8)[-1].startswith(">")


def test_s_leads_to_the_stacks_of_the_process_that_the_row_is_of():
    for text, pid in (("GET /pay  for 9.0 s", 101), ("interpreter 1", 101), ("GET /pay  for 2.0 s", 102), ("104  child", 104)):
        ui = pressed(at(text), "S")
        assert (ui.view, ui.open) == ("stacks", ("stacks", pid, None))
    assert pressed(at("daemon process group shop"), "S").open is None
    assert tree.PANE.process(a_view(tree=an_answer()), a_ui()) is None


def test_a_console_on_a_collector_folds_and_unfolds_what_that_has():
    asked = a_collector()
    looking = Looking(asked.fleet, asked.now, asked.site._clocks()[1], view="tree", size=Size(40, 120))
    assert [text.strip("> -+").split("  ")[0] for text in looking.screen().splitlines()[3:8]] == [
        "Apache 1000", "daemon process group app: 1 process", "7", "interpreter 0 (main)", "GET /slow"]
    looking.press("down", "down", "down", "down", "enter")
    assert looking.view["tree"]["stacktraces"] and any("app.py:" in text and "(" in text for text in looking.screen().splitlines())
    looking.press("f")
    assert "Apache 1000" not in looking.screen() and "shown: what serves requests" in looking.screen()


# --- whatever comes -------------------------------------------------------------------------------

def test_nothing_there_yet_nothing_at_all_and_refused():
    assert plain(tree.body(a_view(), a_ui(), DESIGN)).strip()
    assert body(answer={"nodes": []}) == [" nothing to show"]
    assert body(answer={"nodes": [{"kind": "nonsense", "id": "x"}, 7, {"kind": "process"}]}) == [" nothing to show"]
    view = a_view(errors={"tree": "unknown parameter 'tree'"})
    assert "unknown parameter" in plain(tree.body(view, a_ui(), DESIGN))


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII, LINUX], ids=["utf8", "ascii", "linux"])
def test_any_answer_fits_on_any_screen(glyphs):
    seed = "tree/1"
    print("seed", seed)
    choose = random.Random(seed)
    answer = an_answer(stacktraces=True)
    folds = [node["id"] for node in every(answer["nodes"])]
    for turn in range(150):
        some = scrambled(answer, choose) if turn % 2 else fuzzed(choose, answer, choose.choice((0.02, 0.1, 0.4)))
        size = choose.choice((DESIGN, SMALL, Size(1, 1), Size(50, 200), Size(3, 300), Size(0, 80), Size(24, 0)))
        ui = a_ui(glyphs, cursor=choose.randrange(60), search=choose.choice(("", "", "a", HOSTILE[2])),
                  folds=frozenset(choose.sample(folds, choose.randrange(len(folds)))))
        view = a_view(tree=some)
        check_fits(tree.body(view, ui, size), size, glyphs)
        check_fits(views.render(view, ui, size), size, glyphs)
        for key in ("enter", "left", "right", "+", "-", "down", "S", "f"):
            press(ui, key, views.context(view, ui, size))


def test_a_deep_and_a_wide_answer_are_bounded():
    deep = node = {"kind": "group", "id": "0", "what": "x", "children": []}
    for depth in range(200):
        node["children"] = [{"kind": "group", "id": str(depth + 1), "what": "x", "children": []}]
        node = node["children"][0]
    assert len(body(answer={"nodes": [deep]}, rows=100)) == tree.DEEP_MOST
    wide = {"nodes": [{"kind": "interpreter", "id": str(place), "label": "i", "children": []} for place in range(30_000)]}
    assert tree.count(a_view(tree=wide), a_ui()) == tree.ROWS_MOST


def test_a_recording_has_a_tree_too():
    looking = Looking(*simulated("slow", 30.0), view="tree", size=DESIGN)
    assert looking.view["errors"] == {} and "daemon process group" in looking.screen()
