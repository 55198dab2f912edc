"""The web page's views of garbage collection, slow requests, stacks, the tree, flame graphs, exceptions, events and the collector.

What they show is compared with what the routes say, as `figures` writes it; hostile names stay text; keys do what they say.
"""
import json

import pytest

import profiles
from builders import Worker, datagrams
from insiders import CELL, CHECK, FETCH, HOLD, PAY, POOL, RENDER, REPORT, WAIT, Agent
from modwsgi_tel.figures import counted, duration, fine, number, percent
from modwsgi_tel.printable import printable
from modwsgi_tel.profile.formats import write
from pages import BIDI, GUNK_GROUP, SCRIPT, SHOP_PID, Fed, settled
from running import Collector
from test_collector_stacks import a_sender, the_slow

CAPTURES = "daemon_mixed", "gunk", "lifecycle"
ROWS = "[...document.querySelectorAll('main .view > .scroll > table > tbody > tr:not(.below)')].map(row => [...row.cells].map(cell => cell.innerText.trim()))"
BOXES = "[...document.querySelectorAll('.box')]"


def agents():
    """Datagrams of an agent: three long requests with stacks, one waiting for another, and exceptions, one with a hostile text."""
    agent = Agent()
    return [
        agent.started(), agent.tick(12), agent.state(), agent.locations(),
        agent.long("0.3", "/report", 5.0, request_annotations="user\0ann\0"), agent.stack("0.3", 1, 2.0, pivot=(*POOL, REPORT, RENDER, CELL)),
        agent.stack("0.3", 2, 3.0, FETCH, pivot=(*POOL, REPORT)),
        agent.stack("0.3", 3, 4.25, RENDER, CELL, shared=5, stack_values="0\0cell\0" + SCRIPT + "\0"),
        agent.long("0.5", "/stock", 4.0), agent.stack("0.5", 1, 2.0, pivot=(*POOL, HOLD), stack_tid=9002),
        agent.long("0.6", "/cart", 3.0), agent.stack("0.6", 1, 2.5, pivot=(*POOL, WAIT), stack_waits="rlock", stack_owner_tid=9002,
                                                     stack_owner_log_id="0.5", stack_tid=9003),
        agent.raised(1, 7, "ValueError", CHECK, slow_path_info="/orders", slow_method="POST", slow_log_id="0.9", exception_text=SCRIPT),
        agent.raised(2, 1, "shop.PaymentError", PAY, slow_path_info="/pay", slow_method="GET", slow_log_id="0.2"),
    ]


@pytest.fixture(scope="module")
def fed():
    with Fed("--stacks", "auto", captures=CAPTURES, more=agents()) as fed, a_sender(fed.collector.socket):
        the_slow(fed.collector)
        yield fed


@pytest.fixture(scope="module")
def tab(fed):
    """One Page for all tests: making one takes longer than most of them."""
    with fed.browser.page() as page:
        yield page


@pytest.fixture
def shown(fed, tab):
    """shown(where, port): the page, loaded anew, at a view; nothing has gone wrong in it by the end of the test."""
    def load(where, port=fed.collector.port):
        tab.goto("about:blank")
        tab.resize(1280, 800)
        tab.goto(f"http://127.0.0.1:{port}/#{where}")
        settled(tab)
        return tab

    tab.errors.clear()
    yield load
    assert tab.errors == []


def rows_of(page):
    return page.value(ROWS)


def columns(rows, *names):
    """The values of some columns, as (name, ...) tuples; rows: the head first."""
    places = [rows[0].index(name) for name in names]
    return [tuple(row[place] for place in places) for row in rows[1:]]


def table(page):
    """All rows of the view's first table, the head first, without the marks of an order."""
    head = page.value("[...document.querySelectorAll('main .view > .scroll > table > thead th')].map(cell => cell.innerText.trim())")
    return [[title.rstrip("▲▼") for title in head], *rows_of(page)]


def cut(text, most):
    text = text if len(text) <= most else text[:most - 1] + "…"
    return printable(text[:-1]) + text[-1:] if text.endswith("…") else printable(text)


# --- garbage collection ---------------------------------------------------------------------------

def test_the_view_of_gc_shows_each_interpreter_as_the_route_has_it(shown, fed):
    page = shown("gc")
    told = fed.json("/api/gc?window=1m&limit=50")["interpreters"]
    assert len(told) > 1
    assert sorted(columns(table(page), "pid", "gen 0", "share", "time", "longest", "pauses", "collections")) == sorted(
        (str(row["pid"]), f"{row['count'][0]}/{row['threshold'][0]}", percent(row["window"]["share"]), duration(row["window"]["seconds"]),
         duration(row["window"]["max"]), number(row["window"]["pauses"], 0), number(sum(row["collections"]), 0)) for row in told)


def test_an_opened_interpreter_shows_its_pauses_by_generation(shown, fed):
    row = fed.json("/api/gc?window=1m&limit=50")["interpreters"][0]
    events = fed.json(f"/api/gc/events?process={row['process']}&interpreter={row['interpreter']}")["events"]
    page = shown(f"gc?open={row['process']}:{row['interpreter']}")
    page.wait("document.querySelectorAll('.below table').length > 1", "its pauses")
    told = page.value("[...[...document.querySelectorAll('.below table')].pop().querySelectorAll(':scope > tbody > tr')].map(row => [...row.cells].map(cell => cell.innerText.trim()))")
    lasted = [[event["duration"] for event in events if event["generation"] == generation] for generation in range(3)]
    assert [row[:5] for row in told] == [
        [str(generation), str(len(of)), *([duration(sum(of) / len(of)), duration(max(of)), duration(sum(of))] if of else ["-"] * 3)]
        for generation, of in enumerate(lasted)]


# --- slow requests --------------------------------------------------------------------------------

def test_slow_requests_stand_in_the_order_and_with_the_figures_of_the_route(shown, fed):
    page = shown("slow?sort=age&life=completed%2Clost")
    told = [row["entry"] for row in fed.json("/api/slow?sort=age&order=desc&life=completed,lost&limit=25")["slow_requests"]]
    assert columns(table(page), "state", "age", "pid", "status", "GIL wait") == [
        (("! " if entry["life"] == "lost" else "") + entry["life"], duration(entry["age_s"]), str(entry["pid"]), str(entry["status"] or "-"),
         duration(entry["gil_wait_time"])) for entry in told]
    page.click("main .pager button:last-child")
    page.wait("document.querySelector('main .pager').innerText.includes('26 to')", "the second page")


def test_what_was_searched_for_stands_in_the_address_and_what_is_hostile_is_text(shown, fed):
    page = shown("slow")
    page.key("/")
    page.type("title='run'")
    page.wait(f"{ROWS}.length === 3", "the three requests of the hostile process")
    assert page.value("location.hash") == "#slow?search=title%3D%27run%27"
    urls = [url for url, in columns(table(page), "url")]
    assert sorted(urls) == sorted(cut(url, 46) for url in (BIDI + "/" + SCRIPT, "example/" + BIDI, "example/\"'><img src=x onerror=alert(1)>"))
    assert page.value("document.querySelectorAll('main img, main script').length") == 0
    assert "run" != page.value("document.title")


def test_an_opened_request_has_all_its_figures_its_phases_and_keeps_the_address(shown, fed):
    entry = next(row["entry"] for row in fed.json("/api/slow?life=completed")["slow_requests"] if row["entry"]["gil_wait_count"])
    page = shown(f"slow?open={entry['id']}")
    page.wait("document.querySelector('main article.request') !== null", "the request")
    text = page.text("main article.request").replace("\n", " ")
    for said in (f"completed after {duration(entry['age_s'])}", f"application {duration(entry['application_time'])}", f"queue {duration(entry['queue_time'])}",
                 f"{duration(entry['gil_wait_time'])} in {counted(entry['gil_wait_count'], 'wait')}", f"log id {entry['log_id']}",
                 f"CPU user {duration(entry['cpu_user_time'])}", f"Apache child {entry['server_pid']}", f"peer {entry['peer_ip']}"):
        assert said in text
    widths = page.value("[...document.querySelectorAll('article.request .stacked span')].map(part => part.getBoundingClientRect().width)")
    assert widths and max(widths) > 50


def test_an_agents_stack_shows_what_all_have_in_common_and_its_values_as_text(shown, fed):
    entry = next(row["entry"] for row in fed.json("/api/slow?search=0.3")["slow_requests"] if row["entry"]["log_id"] == "0.3")
    page = shown(f"slow?open={entry['id']}")
    page.wait("document.querySelectorAll('article.request .frames li').length > 3", "its stack")
    assert page.texts("article.request .frames li")[:4] == [
        "format_cell /srv/shop/views/report.py:131", "render /srv/shop/views/report.py:88", "below: in all of its 3 stacks; 5.0 s go here",
        "report /srv/shop/views/report.py:42"]
    assert page.value("[...document.querySelectorAll('article.request .frames .own .function')].map(each => each.textContent)") == [
        "format_cell", "render", "report", "application"]
    assert "cell = " + SCRIPT in page.text("article.request")


def test_a_request_that_a_thread_serves_has_the_stack_that_was_read_from_outside(shown, fed):
    stack = the_slow(fed.collector)
    number_of = next(row["entry"]["id"] for row in fed.json("/api/slow?search=id-1")["slow_requests"] if row["entry"]["stack"])
    page = shown(f"slow?open={number_of}")
    page.wait("document.querySelectorAll('article.request .frames li').length > 1", "its stack")
    assert page.texts("article.request .frames li") == [f"{frame['function']} {frame['file']}:{frame['line']}" for frame in stack["frames"]]


def test_ended_requests_are_dropped_once_somebody_has_confirmed_it(shown):
    with Collector("--stacks", "off") as own:
        own.send(*datagrams("daemon_mixed"), Worker(71).slow("running"))
        page = shown("slow", own.port)
        before = own.json("/api/slow?limit=0")["kept"]
        running = own.json("/api/slow?limit=0&life=active,stale")["matched"]
        page.click("#clear")
        page.click("#clear-no")
        assert own.json("/api/slow?limit=0")["kept"] == before > running
        page.click("#clear")
        page.key("Enter")                                       # the question has the focus
        page.wait("document.querySelector('.tools').innerText.includes('dropped')", "what came of it")
        assert counted(before - running, "record") + " dropped" in page.text(".tools")
        assert own.json("/api/slow?limit=0")["kept"] == running
        page.wait("document.querySelectorAll('.tools button[disabled]').length === 0", "the button")
        page.goto("about:blank")        # before its collector ends


def test_where_the_time_goes_is_ranked_as_the_route_ranks_it(shown, fed):
    page = shown("time")
    told = fed.json("/api/slow?limit=0&pivots=50")["pivots"]
    assert columns(table(page), "in all", "requests", "now", "thread", "in") == [
        (duration(row["seconds"]), str(row["requests"]), str(row["active"]), f"{row['role']}: {row['waits']}" if row["waits"] else row["role"], row["place"])
        for row in told]
    page.click("main .opener")
    page.wait("document.querySelectorAll('.below .frames li').length > 0", "the frames")
    assert page.texts(".below .frames li")[0] == "{function} {file}:{line}".format(**told[0]["frames"][0])


# --- stacks ---------------------------------------------------------------------------------------

def test_stacks_of_a_process_are_shown_thread_by_thread(shown, fed):
    [row] = fed.json("/api/stacks")["processes"]
    page = shown(f"stacks?open={row['id']}&idle=1")
    page.wait("document.querySelectorAll('article.stacks .frames').length > 1", "its threads")
    assert columns(table(page), "pid", "group", "why") == [(str(row["pid"]), "stuck", "slow")]
    assert sorted(page.texts("article.stacks .frames")) == sorted(
        "\n".join(f"{frame['function']} {frame['file']}:{frame['line']}" for frame in thread["frames"]) for thread in row["threads"])


def test_what_the_collector_says_to_a_question_for_stacks_is_shown_in_words(shown, fed):
    page = shown("stacks")
    page.focus("#stacks-pid")
    page.type(str(SHOP_PID))        # what the datagrams say, not what the kernel says of their sender
    page.wait("document.querySelector('form.ask button') !== null", "the button")
    page.click("form.ask button")
    page.wait("document.querySelector('form.ask [role=status]').innerText.length > 10", "an answer")
    status, _, body = fed.collector.post(f"/api/stacks?pid={SHOP_PID}")
    assert (status, page.text("form.ask [role=status]")) == (409, json.loads(body)["error"])
    page.errors.clear()             # the browser's own line about the 409


# --- the tree -------------------------------------------------------------------------------------

LINES = "[...document.querySelectorAll('[role=treeitem]')].map(each => each.dataset.id)"
FOCUSED = "document.activeElement.dataset.id"


def ids(nodes):
    for node in nodes:
        yield node["id"]
        if node["kind"] != "request" and (node["kind"] != "group" or node["what"]):
            yield from ids(node["children"])


def test_the_tree_has_the_nodes_of_the_route_and_its_keys_fold_and_move(shown, fed):
    page = shown("tree")
    answer = fed.json("/api/processes?tree=1")
    seen = page.value(LINES)
    assert len(seen) > 8
    assert seen == [printable(each) for each in ids(answer["nodes"]) if ".unassociated." not in each and not each.endswith(".idle")]
    page.focus("[role=treeitem]")
    page.key("ArrowDown")
    assert page.value(FOCUSED) == seen[1]
    page.key("ArrowLeft")           # folds it
    assert page.value("document.activeElement.getAttribute('aria-expanded')") == "false"
    page.key("ArrowLeft")           # goes to what it stands below
    assert page.value(FOCUSED) == seen[0]
    page.key("ArrowDown")
    page.key("ArrowRight")
    assert page.value("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.key("ArrowRight")
    assert page.value(FOCUSED) == seen[2]
    page.key("End")
    assert page.value(FOCUSED) == page.value(LINES)[-1]
    page.key("Home")
    assert page.value(FOCUSED) == seen[0]


def test_an_unfolded_request_of_the_tree_shows_its_stack(shown, fed):
    page = shown("tree?search=id-1")
    page.wait(f"{LINES}.length > 1", "the request and what leads to it")
    found = page.value("[...document.querySelectorAll('[role=treeitem]')].map(each => each.getAttribute('aria-label')).filter(each => each.includes('id-1'))")
    assert len(found) == 1 and found[0].startswith("GET /slow")
    page = shown("tree")
    page.value("[...document.querySelectorAll('[role=treeitem]')].find(each => each.getAttribute('aria-label').includes('request id-1')).querySelector('.line').click()")
    page.wait("document.querySelectorAll('.tree .frames li').length > 1", "the frames")
    assert any("stuck_sender.py" in text for text in page.texts(".tree .frames li"))


# --- flame graphs ---------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def recording():
    return profiles.busy(looks=200, deep=2)


def recorded(tmp_path, recording, form, ending):
    path = tmp_path / ("busy" + ending)
    path.write_text("".join(write(recording, form)), encoding="utf-8")
    return str(path)


def seconds_of(recording):
    """{(function, file): (seconds of its own, in all)}."""
    found = {}
    for path, seconds in recording.stacks():
        names = [(key[0], key[1]) for key in path]
        for name in set(names):
            own, total = found.get(name, (0.0, 0.0))
            found[name] = own + seconds * (names[-1] == name), total + seconds
    return found


@pytest.mark.parametrize("form, ending", [("folded", ".folded"), ("speedscope", ".speedscope.json")])
def test_a_recording_of_either_format_gives_the_functions_their_own_time_and_all_of_it(shown, fed, tmp_path, recording, form, ending):
    page = shown("flame")
    asked = len(page.requests)
    page.files("#flame-file", [recorded(tmp_path, recording, form, ending)])
    page.wait(f"{BOXES}.length > 20", "the boxes")
    told = columns([["own", "%", "in all", "% ", "function", "file"], *page.value(
        "[...document.querySelectorAll('main section table tbody tr')].map(row => [...row.cells].map(cell => cell.innerText.trim()))")], "own", "in all", "function", "file")
    wanted = {(printable(function), printable(file)): times for (function, file), times in seconds_of(recording).items() if file is not None}
    assert len(told) >= 20
    for own, total, function, file in told:
        if file != "-":
            expected = wanted[function, file]
            assert (own, total) == tuple(map(fine, expected)), (function, file)
    assert all("/api/" in url for url in page.requests[asked:])         # sent nowhere


def test_a_box_zooms_by_key_and_mouse_and_a_search_tells_its_share(shown, fed, tmp_path, recording):
    total = sum(seconds for _, seconds in recording.stacks())
    page = shown("flame")
    page.files("#flame-file", [recorded(tmp_path, recording, "folded", ".folded")])
    page.wait(f"{BOXES}.length > 20", "the boxes")
    page.focus(".box")
    for _ in range(3):
        page.key("ArrowDown")
    at = page.value("document.activeElement.getAttribute('aria-label')")
    page.wait(f"document.querySelector('.tells').textContent === {json.dumps(at)}", "what is known of it")
    page.key("Enter")
    page.wait("document.querySelectorAll('.box.up').length > 0", "the zoom")
    assert page.value("document.activeElement.getAttribute('aria-label')") == at
    assert page.value("document.activeElement.getAttribute('width')") == "100.0000%"
    page.key("Escape")
    page.wait("document.querySelectorAll('.box.up').length === 0", "the whole graph")
    page.key("/")
    page.type("srv/shop/")
    page.wait("document.querySelector('#matched').innerText !== ''", "the share")
    matched = sum(seconds for path, seconds in recording.stacks() if any("srv/shop/" in str(key[1]) for key in path))
    assert page.text("#matched").endswith(f"found, {number(matched / total * 100, 2)} % of the whole")
    assert page.value("document.querySelectorAll('.box.found').length") > 0


def test_hostile_names_of_a_recording_are_text(shown, fed):
    page = shown("flame")
    page.value("document.querySelector('details').open = true")
    page.value(f"document.querySelector('#flame-paste').value = {json.dumps('main;' + SCRIPT + BIDI + ' (a.py) 7')}")
    page.click("#flame-draw")
    page.wait(f"{BOXES}.length === 3", "the boxes")
    assert page.value(f"{BOXES}.pop().getAttribute('aria-label')") == printable(
        f"{SCRIPT + BIDI} (a.py): 100.00 %, 7 samples; itself 100.00 %, 7 samples")
    assert page.value("document.querySelectorAll('.flame script').length") == 0


REFUSED = (
    ("<svg></svg>", "is a picture: open it in the browser by itself. Here: .folded or .speedscope.json."),
    ("no stack", "is no recording: line 1 is no folded stack (outer;inner 12)."),
    ("(modwsgi-tel record: x) 0\n", "holds no samples: record it anew."),
    ("(modwsgi-tel record --diff: x) 0 0\n", "is a comparison of two recordings: open one of the two."),
    ('{"a": 1}', "is no recording: its JSON has no frames and profiles as speedscope's has."),
    ('{"shared": {"frames": [{"name": "f"}]}, "profiles": [{"type": "sampled", "unit": "seconds", "samples": [[4]], "weights": [1]}]}',
     "is damaged: its frames, samples and weights do not fit together."),
    ("{", "is damaged: it is no JSON."),
)


def test_what_is_no_recording_is_refused_with_a_sentence(shown):
    page = shown("flame")
    page.value("document.querySelector('details').open = true")
    for text, said in REFUSED:
        page.value(f"document.querySelector('#flame-paste').value = {json.dumps(text)}")
        page.click("#flame-draw")
        page.wait(f"document.querySelector('#flame-said').innerText === {json.dumps('what was pasted ' + said)}", said)


def test_a_file_of_many_stacks_is_drawn_without_holding_the_page_up(shown, fed, tmp_path):
    path = tmp_path / "many.folded"
    path.write_text("(modwsgi-tel record: many) 0\n" + "".join(
        f"main (m.py);f{place % 10} (m.py);g{place % 1000} (n.py);leaf{place} (o.py) 1000\n" for place in sorted(range(100_000), key=lambda each: (each % 1000, each))))
    page = shown("flame")
    page.value("window.longest = 0, (function tick(last) { setTimeout(() => { const now = performance.now();"
               " longest = Math.max(longest, now - last); tick(now) }) })(performance.now())")
    page.files("#flame-file", [str(path)])
    page.wait(f"{BOXES}.length > 10", "the boxes")
    assert "100 s in 100,000 stacks" in page.text("main").replace("2 min", "100 s")
    assert page.value(f"{BOXES}.length") < 3001
    assert page.value("longest") < 3000, "the longest task, in ms: seconds of it would be a page that does not answer"


def test_the_flame_graph_of_the_stacks_that_were_taken_says_how_few_looks_that_is(shown, fed):
    page = shown("flame?src=stacks")
    page.wait(f"{BOXES}.length > 4", "the boxes")
    text = page.text("main")
    assert "One look at each of 1 process" in text and "not how long they were there" in text
    assert any("stuck_sender.py" in label for label in page.value(f"{BOXES}.map(each => each.getAttribute('aria-label'))"))


# --- exceptions, events, the collector --------------------------------------------------------------

def test_exceptions_are_those_of_the_route_with_their_frames(shown, fed):
    told = fed.json("/api/exceptions?sort=count&order=desc")["exceptions"]
    page = shown(f"exceptions?sort=count&open={told[0]['id']}")
    assert columns(table(page), "count", "type", "at", "path") == [(str(row["count"]), row["type"], row["place"], row["path"]) for row in told]
    assert (told[0]["type"], told[0]["text"]) == ("ValueError", SCRIPT)
    page.wait("document.querySelectorAll('main article .frames li').length > 0", "its frames")
    assert SCRIPT in page.text("main article")
    assert page.texts("main article .frames li") == ["{function} {file}:{line}".format(**frame) for frame in told[0]["frames"]]


def test_the_overview_has_what_agents_tell_in_short(shown, fed):
    page = shown("overview")
    told = fed.json("/api/summary?parts=agent")["agent"]
    most, cost = told["top_exceptions"][0], told["pivots"][0]
    assert page.texts("#inside dt") == ["exceptions", "time goes"] and page.value(
        "[...document.querySelectorAll('#inside a')].map(each => each.getAttribute('href'))") == ["#exceptions", "#time"]
    raised, goes = page.texts("#inside dd")
    assert raised == (f"{told['exceptions']} from {counted(told['exception_places'], 'place')}; most: {most['count']} {most['type']} "
                      f"at {most['place']}")
    assert goes.startswith(f"{duration(cost['recent_s'])} in 10 min, of {counted(cost['requests'], 'long request')} in {cost['place']}")


def test_events_are_those_of_the_route_the_newest_first(shown, fed):
    page = shown("events")
    told = fed.json("/api/lifecycle?limit=100")["lifecycle_events"][::-1]
    assert columns(table(page), "pid", "host") == [(str(event["pid"]), cut(event["hostname"], 30)) for event in told]
    words = [text for text, in columns(table(page), "what")]
    assert any("maximum_requests" in each for each in words) and any(each.startswith("+ started") for each in words)
    page.key("/")
    page.type("shutdown_signal")
    page.wait(f"{ROWS}.length < {len(told)}", "those that match")
    assert all("shutdown_signal" in text for text, in columns(table(page), "what"))


def test_the_collector_shows_what_it_received_and_what_is_wrong_with_it_first(shown):
    with Collector("--stacks", "off") as own:
        own.send(*datagrams("daemon_mixed"), b"no datagram", SCRIPT.encode())
        page = shown("collector", own.port)
        told = own.json("/api/summary?window=now&parts=collector")["collector"]
        rows = dict(rows_of(page))
        assert next(iter(rows)) == "! wrong"
        assert rows["! wrong"].startswith("2 datagrams were refused: ")
        assert rows["received"].startswith(f"{counted(told['received'], 'datagram')}, ")
        assert rows["bounds"] == "nothing went for want of room"
        assert f"slow_request {number(told['kinds']['slow_request'], 0)}" in rows["by kind"]
        assert len(page.value("[...document.querySelectorAll('main section tbody tr')].map(row => row.cells.length)")) == 2
        page.goto("about:blank")        # before its collector ends


# --- all of them ----------------------------------------------------------------------------------

VIEWS = "gc", "slow", "time", "stacks", "tree", "flame", "exceptions", "events", "collector"


def test_no_view_is_wider_than_a_narrow_window_and_each_can_be_copied(shown, fed):
    page = shown("gc")
    page.resize(320, 700)
    for name in VIEWS:
        page.value(f"location.hash = '#{name}'")
        page.wait(f"document.querySelector('#views [aria-current]').getAttribute('href').startsWith('#{name}')", "the view")
        settled(page)
        assert page.value("document.documentElement.scrollWidth") <= 320, name
        page.click("#copy-text")
        page.wait(f"navigator.clipboard.readText().then(text => text.startsWith('modwsgi-tel {page.text('h1')}'))", "the copy")
        text = page.value("navigator.clipboard.readText()")
        assert "\x1b" not in text and "\u202e" not in text and "idle ones too" not in text


def test_a_hostile_group_is_text_in_each_view(shown, fed):
    for name in ("slow", "events", "tree"):
        page = shown(name)
        page.value(f"[...document.querySelector('#group').options].find(each => each.title === {json.dumps(printable(GUNK_GROUP))}).selected = true, "
                   "document.querySelector('#group').dispatchEvent(new Event('change'))")
        page.wait("document.querySelector('main').innerText.includes('<script>')", "the name as text")
        assert page.value("document.querySelectorAll('main script').length") == 0
