"""The web page in a real browser, fed with real captures and hostile records: its numbers are the JSON's, its keys do what the console's do,
what a sender wrote stays text, and it is quiet when nobody looks."""
import contextlib
import json
import re

import pytest

from modwsgi_tel.findings import RULES
from modwsgi_tel.figures import duration, number, percent, size
from modwsgi_tel.printable import printable
from modwsgi_tel.wire.fields import PHASES
from pages import BIDI, GUNK_GROUP, LONG_PATH, SHOP_PID, Fed, settled, visit
from running import ROOT, Collector

VIEWS = ("overview", "processes", "capacity", "latency", "slow", "gc", "exceptions", "stacks", "tree", "flame", "events", "collector", "help")
BUSY = "document.querySelector('#main').getAttribute('aria-busy')"


@pytest.fixture(scope="module")
def fed():
    with Fed() as fed:
        yield fed


@pytest.fixture(scope="module")
def shared(fed):
    with fed.open() as page:
        yield page


@pytest.fixture
def page(shared):
    """The page that most tests share, at the overview; whatever goes wrong in it is an error of the test."""
    visit(shared, "overview?window=10m")
    yield shared
    assert shared.errors == []


def table(page, caption):
    """The rows of a table, each as texts of its cells, without the head."""
    return page.value("(caption => { const found = [...document.querySelectorAll('#main table')].find(each => each.caption.textContent === caption);"
                      " return [...found.tBodies[0].rows].map(row => [...row.cells].map(cell => (cell.innerText || cell.textContent).trim())) })(%s)" % json.dumps(caption))


def cut(text, most):
    """As the page shows a text that anyone may have chosen."""
    return printable(text if len(text) <= most else text[:most - 1] + "…")


def press(page, key, expression, what):
    page.key(key)
    page.wait(expression, what)


# --- numbers ------------------------------------------------------------------------------------

def test_every_view_opens_from_its_tab_without_an_error(page, fed):
    titles = page.texts("#views a")
    assert len(titles) >= len(VIEWS)
    for place, title in enumerate(titles):
        page.click(f"#views li:nth-child({place + 1}) a")
        page.wait(f"document.querySelector('#main h1').innerText === {json.dumps(title)}", "the view " + title)
        settled(page)
        assert page.texts("#views a[aria-current=page]") == [title]
        assert "could not be drawn" not in page.text("#main")


def test_the_totals_are_those_of_the_summary(page, fed):
    totals = fed.json("/api/summary?parts=totals&window=10m")["totals"]
    window = totals["windows"]["10m"]
    shown = {name: page.text("#total-" + name) for name in ("reqs", "p95", "busy", "5xx", "cpu", "rss", "groups")}
    assert {**shown, "reqs": None} == {
        "reqs": None, "p95": duration(window["phases"]["request"]["p95"]), "busy": percent(window["capacity"]), "5xx": number(window["status"]["5xx"], 0),
        "cpu": number(window["cpu"], 2), "rss": size(totals["rss"]), "groups": number(totals["groups"], 0)}
    assert float(shown["reqs"]) == pytest.approx(window["throughput"], abs=0.1)


def test_the_table_of_groups_is_the_summarys(page, fed):
    groups = fed.json("/api/summary?parts=groups&window=10m")["groups"]
    expected = {}
    for row in groups:
        window, request = row["windows"]["10m"], row["windows"]["10m"]["phases"].get("request", {})
        expected[cut(row["process_group"] or "(embedded)", 32)] = [
            *(duration(request.get(name)) for name in ("p50", "p95", "p99", "max")), percent(window["capacity"]), size(row["rss"]),
            number(window["status"]["5xx"], 0), number(row["slow_active"], 0), number(row["lost"], 0)]
    page.wait("document.querySelectorAll('#main tbody tr').length >= %d" % len(groups), "the groups")
    heads = page.texts("#main .scroll:not(details *) thead tr:first-child th")
    places = [heads.index(name) for name in ("p50", "p95", "p99", "longest", "busy", "rss", "5xx", "slow", "lost")]
    assert {row[0]: [row[place] for place in places] for row in table(page, "process groups")} == expected


def test_the_findings_are_shown_with_their_advice(page, fed):
    found = page.wait("document.querySelector('.findings') && [...document.querySelectorAll('.findings .said')].map(each => each.innerText)", "findings")
    told = [each["text"] for each in fed.json("/api/summary?parts=findings&window=10m")["findings"]]
    assert [re.sub(r"[\d.,]+", "#", each) for each in found] == [re.sub(r"[\d.,]+", "#", cut(each, 400)) for each in told]


def test_each_finding_leads_to_the_view_in_which_its_cause_is_to_be_seen(page):
    with open(f"{ROOT}/modwsgi_tel/web/page/static/85-frame.js", encoding="utf-8") as file:
        table = file.read().partition("const SEEN_IN = {")[2].partition("};")[0]
    leads = dict(re.findall(r'[{\s"]([a-z-]+)"?: \["([a-z]+)"', " " + table))
    assert set(leads) == {rule.id for rule in RULES} - {"heard-late", "no-request-seen"} and set(leads.values()) <= set(VIEWS)
    links = page.value("[...document.querySelectorAll('.findings a')].map(each => each.getAttribute('href'))")
    assert links != [] and {link.partition("?")[0] for link in links} <= {"#" + view for view in VIEWS}
    assert all("window=10m" in link for link in links)


def test_small_amounts_do_not_fill_their_chart(page):
    visit(page, "overview?group=shop&window=10m")
    page.wait("document.querySelector('#main .chart .peak').innerText.startsWith('max')", "points")
    charts = page.value("[...document.querySelectorAll('#main .chart')].map(each => ['.name', '.peak', '.scale'].map(part => each.querySelector(part)?.innerText))")
    shown = {name: (float(peak.split()[1]), scale) for name, peak, scale in charts if peak.startswith("max ") and name in ("cpu", "GIL wait")}
    assert 0 < shown["cpu"][0] < 0.25 and {name: scale for name, (_, scale) in shown.items()} == {"cpu": "0.25 cores", "GIL wait": "20 %"}


def test_a_slot_tells_its_request_to_the_pointer_and_to_the_keyboard(page, fed):
    visit(page, "capacity?group=shop&window=10m")
    worker = fed.json("/api/workers?group=shop")["workers"][0]
    # its process is silent by and by: what runs grows older
    assert re.fullmatch("[ab]·[0-9ab]:[cD]", "".join(page.texts(".worker .slot"))) and len(worker["slots"]) == 5
    page.hover("[data-at$=':0']")
    page.wait("document.querySelector('#under')?.innerText.includes('GET /cart/checkout')", "the request under the pointer")
    page.focus("[data-at$=':0']")
    page.key("End")
    page.wait("document.querySelector('#under').innerText.includes('thread 5 of pid %d')" % SHOP_PID, "the last thread's request")
    assert "GET /long/xxx" in page.text("#under") and len(page.text("#under")) < 600
    assert page.value("document.querySelector('#under [title]').title") == LONG_PATH


def test_the_table_of_processes_is_the_collectors_sorted_and_searched(page, fed):
    visit(page, "processes?window=10m&sort=rss")
    expected = [[str(row["pid"]), cut(row["process_group"] or "(embedded)", 28), size(row["rss"]), number(row["lost"], 0)]
                for row in fed.json("/api/processes?window=10m&sort=rss&order=desc&limit=25")["processes"]]
    heads = page.texts("#main .scroll thead tr:first-child th")[:17]
    places = [0, 1, *(place for place, head in enumerate(heads) if head.strip("▲▼") in ("rss", "lost"))]
    assert [[row[place] for place in places] for row in table(page, "processes")] == expected
    page.key("/")
    page.type("shop")
    page.wait("location.hash.includes('search=shop') && document.querySelectorAll('#main .scroll tbody')[0].rows.length === 1", "the one that matches")
    assert table(page, "processes")[0][:2] == [str(SHOP_PID), "shop"]
    press(page, "Escape", "!location.hash.includes('search')", "the end of the search")


def test_a_process_opens_by_a_click_and_by_its_address(page, fed):
    visit(page, "processes?window=10m&search=shop")
    (row,) = fed.json("/api/processes?search=shop")["processes"]
    page.click("#main .opener")
    page.wait(f"location.hash.includes('open={row['id']}') && !!document.querySelector('tr.below .facts')", "its details")
    assert {tuple(cells[1:4]) for cells in table(page, "slow requests of this process")} == {
        ("active", "1", "GET /cart/checkout"), ("active", "5", cut("GET " + LONG_PATH, 120))}
    with fed.open(f"processes?open={row['id']}&search=gunk-that-is-not-there&window=10m") as other:
        other.wait("document.querySelector('.opened')?.innerText.includes('pid %d')" % SHOP_PID, "the process that is not in the table")
        assert size(row["rss"]) in other.text(".opened") and other.errors == []


@pytest.mark.parametrize("phase", PHASES)
def test_the_histogram_has_the_counts_of_the_json(page, fed, phase):
    visit(page, f"latency?window=10m&phase={phase}")
    told = fed.json(f"/api/histogram?phase={phase}&window=10m")
    assert [int(row[1].replace(",", "")) for row in table(page, "buckets of the histogram")] == [count for count in told["counts"] if count]
    assert page.texts(".facts dd") == [duration(told[name]) for name in ("p50", "p95", "p99", "max")]
    assert f"{told['requests']:,} requests of all groups" in page.text("#main")


def test_the_points_of_the_lines_are_those_of_the_series_though_only_the_newest_are_asked_for_again(page, fed):
    # the second of such looks begins once the first is drawn
    page.until(lambda: sum("/api/series" in url and "since=" in url for url in page.requests) >= 2, "no looks with since")
    answer = fed.json("/api/series?window=10m")
    place = answer["columns"].index("errors")
    shown = page.value("[...document.querySelectorAll('details table tbody tr')].map(row => row.cells[6].innerText || row.cells[6].textContent)")
    assert len(shown) == 120
    assert sum(int(each.split()[0]) for each in shown if each != "-") == sum(point[place] for point in answer["points"] if point)


def test_help_lists_all_that_the_collector_answers(page, fed):
    visit(page, "help")
    routes = json.loads(fed.collector.get("/api", {"Accept": "application/json"})[2])["routes"]
    assert [row[0] for row in table(page, "routes")] == [f"{route['method']} {route['path']}" for route in routes]


# --- hostile text ---------------------------------------------------------------------------------

@pytest.mark.parametrize("view", VIEWS)
def test_what_a_sender_wrote_stays_text(page, fed, view):
    visit(page, f"{view}?window=10m")
    assert "run" != page.value("document.title")
    assert page.value("[document.scripts.length, document.images.length, document.querySelectorAll('#main script, #main img, #main iframe').length]") == [1, 0, 0]
    shown = page.value("document.body.innerText + [...document.querySelectorAll('[title], [aria-label]')].map(each => each.title + each.ariaLabel).join('')")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", shown)
    assert page.errors == []


def test_hostile_names_are_shown_as_they_are_written(page, fed):
    visit(page, "processes?window=10m&search=%3Cscript")
    row = table(page, "processes")[0]
    assert row[1:3] == [cut(GUNK_GROUP, 28), cut(BIDI, 20)]
    visit(page, "overview?window=10m")
    # a group of any name can be chosen, and its address leads back to it
    place = page.value("[...document.querySelectorAll('#group option')].findIndex(each => each.title.includes('<script>'))")
    page.value(f"(field => {{ field.selectedIndex = {place}; field.dispatchEvent(new Event('change')) }})(document.querySelector('#group'))")
    page.wait("location.hash.includes('group=') && !!document.querySelector('#main a[aria-current=true]')", "the group that was chosen")
    assert page.value("new URLSearchParams(location.hash.split('?')[1]).get('group')") == GUNK_GROUP


# --- use --------------------------------------------------------------------------------------------

def test_keys_lead_where_they_lead_in_the_console(page):
    for key, title in (("p", "Processes"), ("w", "Capacity"), ("l", "Latency"), ("?", "Help"), ("o", "Overview")):
        press(page, key, f"document.querySelector('#main h1').innerText === {json.dumps(title)}", title)
    press(page, "l", "location.hash.startsWith('#latency')", "Latency")
    press(page, "]", "location.hash.includes('phase=gil_wait')", "the phase behind")
    press(page, "n", "document.querySelector('.segments [aria-pressed=true]').innerText === 'now'", "the next window")
    press(page, "<", "document.querySelector('.segments [aria-pressed=true]').innerText === '10m'", "the window before")
    press(page, "G", "location.hash.includes('group=')", "a group")
    page.value("history.back()")
    page.wait("document.querySelector('#main h1').innerText === 'Overview'", "the view before")


def test_a_slow_request_is_three_keys_away_and_a_click_anywhere_in_its_row_opens_it_too(page, fed):
    press(page, "s", "document.querySelector('#main h1').innerText === 'Slow requests' && !!document.querySelector('#main .opener')", "the slow requests")
    page.key("j")
    page.key("j")
    page.key("k")
    page.key("Enter")
    first = page.wait("document.querySelector('tr.open + tr.below article.request') && document.querySelector('tr.open .opener') === document.activeElement"
                      " && location.hash", "the first of them, open, with the focus")
    press(page, "Escape", "!location.hash.includes('open')", "its end")
    page.click("#main tr.opens td:nth-child(3)")
    page.wait(f"location.hash === {json.dumps(first)} && !!document.querySelector('article.request')", "the same by the mouse")
    page.value("history.back()")
    page.wait("!document.querySelector('article.request')", "the list, by the browser's back")


def test_a_page_at_rest_asks_nothing_and_goes_on_at_once(page):
    press(page, " ", "document.querySelector('#pause').getAttribute('aria-pressed') === 'true'", "the pause")
    page.wait(f"{BUSY} === 'false'", "the end of a look")
    before = len(page.requests)
    page.value("new Promise(done => setTimeout(done, 1500))")
    assert len(page.requests) == before
    press(page, " ", "document.querySelector('#pause').getAttribute('aria-pressed') === 'false'", "the end of the pause")
    page.until(lambda: len(page.requests) > before, "no look after the pause")
    for answered in (0, 300):           # it is hidden while it asks, and while it waits for the next look
        page.value(f"new Promise(done => setTimeout(done, {answered}))")
        page.emulate(hidden=True)
        before = len(page.requests)
        page.value("new Promise(done => setTimeout(done, 1300))")
        assert len(page.requests) == before
        page.emulate(hidden=False)
        page.until(lambda: len(page.requests) > before, "no look once it is seen again")


def test_looks_go_on_without_taking_the_focus_the_selection_or_what_is_unfolded(page):
    visit(page, "overview?window=10m")
    page.click("details > summary")
    page.focus("#main tbody a")
    page.value("getSelection().selectAllChildren(document.querySelector('#main h1'))")
    before = len(page.requests)
    page.until(lambda: len(page.requests) >= before + 3, "no further looks")
    assert page.value("[document.activeElement.matches('#main tbody a'), getSelection().toString(), document.querySelector('details').open]") == [True, "Overview", True]


def test_a_view_is_copied_as_text_and_as_json(page, fed):
    visit(page, "processes?window=10m&search=shop")
    page.click("#copy-text")
    text = page.wait("navigator.clipboard.readText().then(text => text.includes('Processes') && text)", "text in the clipboard")
    assert re.search(r"(?m)^ *pid +group +host +life", text) and re.search(rf"(?m)^ *{SHOP_PID} +shop +web1", text)
    page.click("#copy-json")
    told = json.loads(page.wait("navigator.clipboard.readText().then(text => text.startsWith('{') && text)", "JSON in the clipboard"))
    assert [row["pid"] for row in told["processes"]["processes"]] == [SHOP_PID]


def test_a_copied_chart_is_its_name_and_figure_and_what_is_folded_is_left_out(page):
    page.click("#copy-text")
    text = page.wait("navigator.clipboard.readText().then(text => text.startsWith('modwsgi-tel Overview') && text)", "text in the clipboard")
    (line,) = re.findall("(?m)^throughput.*", text)
    assert re.fullmatch(r"throughput  [\d.,]+ req/s(  max .*)?", line) and "from  throughput" not in text


def test_times_are_those_of_the_collector_where_the_browsers_clock_is_wrong(fed):
    with fed.browser.page() as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source="Date.now = () => 1e12")
        page.goto(f"http://127.0.0.1:{fed.collector.port}/#overview")
        settled(page)
        assert re.fullmatch(r"(\d\d:\d\d:\d\d\s+){3}", page.text(".times") + "\n")
        assert re.search(r"collector's time \d\d:\d\d:\d\d UTC ", page.text("#foot"))


def test_without_a_clipboard_the_text_is_there_to_be_copied_by_hand(page):
    page.value("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    try:
        page.click("#copy-text")
        assert "modwsgi-tel Overview" in page.wait("document.querySelector('.copied textarea')?.value", "the text")
        press(page, "Escape", "!document.querySelector('.copied')", "the end of the copy")
    finally:
        page.value("delete navigator.clipboard")


def test_the_colours_follow_the_system_and_the_switch_stays(page):
    dark, light = "rgb(15, 20, 25)", "rgb(255, 255, 255)"
    back = "getComputedStyle(document.body).backgroundColor"
    assert page.value(back) == light
    page.emulate(dark=True)
    assert page.value(back) == dark
    page.click("#theme")
    page.click("#theme")
    page.wait(f"{back} === '{light}'", "light by choice")
    page.reload()
    settled(page)
    assert page.value(back) == light
    page.click("#theme")
    page.emulate(dark=False)
    assert page.value(back) == light


@pytest.mark.parametrize("width", [320, 1280])
def test_no_view_is_wider_than_the_window(page, width):
    page.resize(width, 800)
    try:
        for view in VIEWS:
            visit(page, f"{view}?window=10m")
            assert (view, page.value("document.documentElement.scrollWidth")) == (view, width)
    finally:
        page.resize(1280, 800)


def test_a_screen_reader_finds_landmarks_the_verdict_and_named_figures(page):
    nodes = page.accessibility()
    roles = {node.role for node in nodes}
    assert {"navigation", "main", "banner", "status", "table", "columnheader", "rowheader"} <= roles
    assert any(node.role == "image" and node.name.startswith("throughput: ") and "highest" in node.name for node in nodes)
    assert [node.name for node in nodes if node.role in ("button", "combobox", "link", "searchbox") and not node.name.strip()] == []
    assert [node.name for node in nodes if node.role == "heading"][0] == "Overview"


# --- around it ----------------------------------------------------------------------------------------

def test_a_collector_that_is_gone_is_said_and_what_was_then_stays(fed):
    with fed.open("overview?window=10m") as page:
        page.offline(True)
        page.wait("/No answer from the collector since \\d\\d:\\d\\d:\\d\\d/.test(document.querySelector('#banner').innerText)", "the banner")
        assert table(page, "process groups") != []
        page.offline(False)
        page.click("#banner button")
        page.wait("document.querySelector('#banner').innerText === ''", "the collector is back")


def test_below_a_root_path_and_with_a_token(fed):
    with contextlib.ExitStack() as cleanup:
        collector = Collector("--root-path", "/telemetry", "--token-file", "token", "--stacks", "off")
        with open(f"{collector.folder}/token", "w", encoding="ascii") as file:
            file.write("sesame\n")
        collector.command[collector.command.index("token")] = f"{collector.folder}/token"
        cleanup.enter_context(collector)
        page = cleanup.enter_context(fed.browser.page(f"http://127.0.0.1:{collector.port}/telemetry#events?window=10m"))
        page.focus("input[name=token]")
        page.type("sesame")
        page.key("Enter")
        page.wait(f"{BUSY} === 'false'", "the page behind the login")
        assert page.value("location.pathname + location.hash") == "/telemetry/#events?window=10m"
        # that nothing arrives is not fine: no mark says so, and the first view says what to do
        assert page.text(".verdict.unknown").strip() == "no process has reported yet"
        visit(page, "overview")
        assert "modwsgi-tel.pyz doctor" in page.text("#main") and page.texts("#main figcaption .value") == ["-"] * 5 + ["0"] + ["-"] * 3
        del page.errors[:]
        page.call("Network.clearBrowserCookies")
        page.wait("document.querySelector('#banner a')?.getAttribute('href') === 'login#overview'", "the way to log in again, and back")
        page.click("#banner a")
        page.wait("!!document.querySelector('input[name=token]')", "the login form")
