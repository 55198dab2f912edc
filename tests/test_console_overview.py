"""The overview: for any answer and any size a screen that fits; what it says for fixed ones and real captures."""
import random

import pytest

from console_answers import (HOSTILE, a_finding, a_group, a_series, a_summary, a_view, a_window, check_fits,
                             fuzzed,
                             lives)
from consoles import DESIGN, Looking, captured, simulated
from modwsgi_tel.console import overview
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.keys import Ui

POINTS = [dict(throughput=5.0 * n, capacity=0.25 * n, mean=0.1, errors=n % 2, cpu=0.5,
               rss=100_000_000) for n in range(5)]


def a_ui(glyphs=ASCII, **more):
    return Ui(view="overview", glyphs=glyphs, **more)


def screen(view, ui=None, rows=20, cols=80):
    return plain(overview.body(view, ui or a_ui(), Size(rows, cols)))


def the_view(*findings, groups=None, points=POINTS, **more):
    groups = [a_group(), a_group("api")] if groups is None else groups
    return a_view(a_summary(groups, findings, **more), series=a_series(*points))


def test_everything_of_a_quiet_collector_is_on_one_screen():
    assert screen(the_view()) == (
        " throughput    10.0 req/s  _______:::::::=======+++++++####### max 20.0\n"
        " busy                25 %  _______:::::::=======+++++++####### max 100 %\n"
        " response      p95 200 ms  ################################### max mean 100 ms\n"
        " 5xx errors             2  _______#######_______#######_______ max 1 in 5 s\n"
        " cpu           0.40 cores  ################################### max 0.50\n"
        " memory            200 MB  ################################### max 200 MB\n"
        "                           03:12:15                   03:12:40\n"
        " a request  sqdaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  mean 100 ms\n"
        "  s server 1.0 ms  q queue 2.0 ms  d daemon 3.0 ms  a application 94.0 ms\n"
        "  of which GIL wait 12.0 ms  input read 4.0 ms  output write 5.0 ms\n"
        " group   procs req/s    p50    p95    p99 queue p95 busy  cpu    rss 5xx slow\n"
        " api         2  10.0 100 ms 200 ms 300 ms    4.0 ms 25 % 0.40 100 MB   2    1\n"
        " shop        2  10.0 100 ms 200 ms 300 ms    4.0 ms 25 % 0.40 100 MB   2    1\n")


def test_the_numbers_are_those_of_the_summary_and_not_of_the_points():
    rows = screen(the_view(window=a_window(throughput=12.5, capacity=0.5))).splitlines()
    assert rows[0].startswith(" throughput    12.5 req/s ") and rows[1].startswith(" busy                50 % ")


def test_findings_are_below_the_lines_with_severity_since_and_advice():
    rows = screen(the_view(a_finding(), a_finding("pid 812 silent for 40 s", severity="warning"))).splitlines()
    assert rows[7:12] == [
        " critical 3 of 4 processes of shop have every thread busy; queue time p95 1.2 s",
        "          since 03:12:00. More threads, or more processes.",
        " warning  pid 812 silent for 40 s",
        "          since 03:12:00.",                 # the same advice is not said again
        rows[11]]
    assert rows[11].startswith(" a request ")


def test_since_when_is_not_said_twice():
    rows = screen(the_view(a_finding("slow since 03:12, all in /reports"))).splitlines()
    assert rows[7:9] == [" critical slow since 03:12, all in /reports", "          More threads, or more processes."]


def test_rather_the_groups_without_scrolling_than_every_advice():
    rows = screen(the_view(*(a_finding(f"finding {n}", advice=f"do {n}") for n in range(5)))).splitlines()
    assert [row[10:32].rstrip() for row in rows[7:14]] == [
        "finding 0", "since 03:12:00. do 0", "finding 1", "since 03:12:00. do 1", "finding 2", "finding 3", "finding 4"]
    assert [row[:6] for row in rows[-2:]] == [" api  ", " shop "]


def test_a_long_finding_is_wrapped_and_not_cut():
    text = "slow since 03:12, all in /reports: 150 of 1,457 requests of api in a minute, and so it goes on"
    rows = screen(the_view(a_finding(text))).splitlines()
    assert rows[7:9] == [" critical slow since 03:12, all in /reports: 150 of 1,457 requests of api in a",
                         "          minute, and so it goes on"]


def test_with_many_findings_the_first_three_keep_their_advice_and_the_rest_is_below():
    rows = screen(the_view(*(a_finding(f"finding {n}") for n in range(8)))).splitlines()
    assert [row[10:19] for row in rows[7:18]] == [
        "finding 0", "since 03:", "finding 1", "since 03:", "finding 2", "since 03:",
        *(f"finding {n}" for n in range(3, 8))]
    assert rows[19] == " v 5 more lines (Down, PgDn)"


def test_what_is_below_the_screen_is_scrolled_to():
    view = the_view(*(a_finding(f"finding {n}") for n in range(8)))
    assert screen(view, a_ui(scroll=1 << 30)).splitlines()[-2:] == screen(view, rows=60).splitlines()[-2:]


def test_a_small_screen_has_the_worst_finding_whole_and_then_the_numbers():
    view = the_view(a_finding(), a_finding("another"))
    assert screen(view, rows=6, cols=40) == (
        "! critical: 3 of 4 processes of shop\n"
        "  have every thread busy; queue time p95\n"
        "  1.2 s\n"
        " throughput    10.0 req/s  ___:::==+++##\n"
        " busy                25 %  ___:::==+++##\n"
        " v 19 more lines (Down, PgDn)\n")


def test_a_large_screen_has_charts_in_which_nothing_and_unknown_differ():
    view = the_view(points=[dict(errors=0), None, dict(errors=2), dict(errors=1)])
    rows = screen(view, rows=46, cols=200).splitlines()
    assert rows[9][102:].split() == ["5xx", "errors", "2", "max", "2", "in", "5", "s"]
    nothing, unknown, largest, half = "-" * 25, " " * 24, "#" * 25, "#" * 24
    above = " " * 49 + largest
    assert [row[102:] for row in rows[10:18]] == [
        above, above, above, above, above + half, above + half, above + half, nothing + unknown + largest + half]


def test_a_gauge_in_trouble_has_a_mark_of_its_own():
    window = a_window(capacity=0.97, requests=100, status={"5xx": 1})
    rows = screen(the_view(window=window)).splitlines()
    assert [row[:11] for row in rows[:6]] == [
        " throughput", "!busy      ", " response  ", "!5xx errors", " cpu       ", " memory    "]


def test_unknown_is_a_dash_and_never_nothing():
    window = {"requests": 0, "throughput": None, "capacity": None, "cpu": None, "status": None, "phases": {}}
    view = a_view(a_summary([a_group(rss=None, window=window)], window=window), series=a_series(None, None))
    assert [row[:25].split()[-1] for row in screen(view).splitlines()[:6]] == ["-", "-", "-", "-", "-", "-"]
    assert screen(view).splitlines()[7] == " no request in this window"


# --- phases ---------------------------------------------------------------------------------

def test_the_bar_of_a_request_adds_up_and_what_overlaps_is_beside_it():
    assert plain(overview.phase_lines(a_window()["phases"], a_ui(), 80)) == (
        " a request  sqd" + "a" * 52 + "  mean 100 ms\n"
        "  s server 1.0 ms  q queue 2.0 ms  d daemon 3.0 ms  a application 94.0 ms\n"
        "  of which GIL wait 12.0 ms  input read 4.0 ms  output write 5.0 ms\n")


def test_embedded_mode_has_no_queue_and_no_daemon_in_its_bar():
    phases = {"server": {"mean": 0.05}, "application": {"mean": 0.05}, "request": {"mean": 0.1}}
    assert plain(overview.phase_lines(phases, a_ui(), 45)) == (
        " a request  " + "s" * 10 + "a" * 10 + "  mean 100 ms\n"
        "  s server 50.0 ms  a application 50.0 ms\n")


# --- groups ---------------------------------------------------------------------------------

def test_the_table_of_groups_fits_the_design_size():
    groups = [a_group("shop", window=a_window(capacity=0.97), lives=lives(running=3, silent=1)),
              a_group("api", rss=None)]
    assert plain(overview.group_lines(overview.sorted_groups(a_summary(groups)), a_ui(), 80)) == (
        " group   procs req/s    p50    p95    p99 queue p95 busy  cpu    rss 5xx slow\n"
        " api         2  10.0 100 ms 200 ms 300 ms    4.0 ms 25 % 0.40      -   2    1\n"
        " shop      3/4  10.0 100 ms 200 ms 300 ms    4.0 ms 97 % 0.40 100 MB   2    1\n")


def test_hosts_are_told_where_there_are_several_and_groups_that_ended_come_last():
    groups = [a_group("shop", "web2"), a_group("shop", "web0", lives=lives(stopped=3)), a_group("", "web1"),
              a_group("", "web1", roles={"apache-child": 3})]
    rows = plain(overview.group_lines(overview.sorted_groups(a_summary(groups)), a_ui(), 120)).splitlines()
    assert [row[:32] for row in rows] == [
        " group          host procs req/s", " (embedded)     web1     2  10.0", " (Apache child) web1     2  10.0",
        " shop           web2     2  10.0", " shop           web0     0  10.0"]


@pytest.mark.parametrize("scroll, first", [(0, None), (10, 0), (11, 1), (57, 47), (1 << 30, 101)])
def test_of_many_groups_those_on_the_screen_are_the_same_as_if_all_were_drawn(scroll, first):
    view = the_view(groups=[a_group(f"group{n:03}") for n in range(120)])
    whole = plain(overview.group_lines(overview.sorted_groups(view["summary"]), a_ui(), 80)).splitlines()
    page = screen(view, a_ui(scroll=scroll)).splitlines()
    if first is None:
        assert page[10:19] == whole[:9] and page[19] == " v 112 more lines (Down, PgDn)"
    elif first + 20 < len(whole):
        assert page == whole[first:first + 19] + [f" v {len(whole) - first - 19} more lines (Down, PgDn)"]
    else:
        assert page == whole[first:]


# --- one group ------------------------------------------------------------------------------

def test_of_a_chosen_group_everything_is_about_that_group_and_the_table_marks_it():
    groups = [a_group("shop", window=a_window(throughput=3.0)), a_group("api")]
    view = the_view(a_finding("of shop"), a_finding("of api", "api"), a_finding("of all", None), groups=groups)
    rows = screen(view, a_ui(group="shop"), rows=30).splitlines()
    assert rows[0].startswith(" throughput     3.0 req/s ") and rows[5].startswith(" memory            100 MB ")
    assert [row for row in rows if "critical" in row] == [" critical of shop", " critical of all"]
    assert " 1 more about other groups (G)" in rows
    assert [row[:6] for row in rows[-2:]] == [" api  ", ">shop "]


def test_a_group_on_two_hosts_is_added_up_and_its_percentile_is_asked_for():
    windows = [a_window(throughput=10.0, cpu=0.4, requests=600, capacity=0.2, ticks=60),
               a_window(throughput=5.0, cpu=0.1, requests=200, capacity=0.8, ticks=20, status={"5xx": 5})]
    windows[1]["phases"] = {"request": {"mean": 0.5, "p95": 9.0}}
    view = the_view(groups=[a_group(hostname=f"web{n}", window=window) for n, window in enumerate(windows)])
    view["latency"] = {"p95": 0.75}
    found = overview.numbers(view, a_ui(group="shop"), overview.group_rows(view["summary"], a_ui(group="shop")))
    phases = found.pop("phases")
    assert found == {"throughput": 15.0, "capacity": pytest.approx(0.35), "cpu": 0.5, "rss": 200_000_000, "p95": 0.75,
                     "5xx": 7,
                     "requests": 800}
    assert phases["request"] == {"mean": pytest.approx(0.2)} and phases["queue"] == {"mean": pytest.approx(0.002)}


def test_what_is_asked_is_of_the_window_and_the_group():
    told = {"inside": "/api/summary?parts=agent"}
    assert overview.paths(a_ui(), DESIGN) == {"series": "/api/series?window=1m", **told}
    assert overview.paths(a_ui(group="a&b", window="10m"), DESIGN) == {
        "series": "/api/series?window=10m&group=a%26b", **told,
        "latency": "/api/histogram?phase=request&window=10m&group=a%26b"}


def test_an_answer_that_is_an_error_is_told():
    view = a_view(a_summary([a_group()]))
    view["errors"]["series"] = "no such path\x1b[2J"
    assert screen(view).splitlines()[0] == " no lines: no such path\\x1b[2J"


# --- on a collector -------------------------------------------------------------------------

def test_a_real_collector_is_shown_without_an_error():
    looking = Looking(*captured("daemon_mixed", 30.0), glyphs=ASCII, size=DESIGN)
    assert looking.view["errors"] == {}
    rows = looking.screen().splitlines()
    window = looking.view["summary"]["totals"]["windows"]["1m"]
    assert rows[3].startswith(f" throughput {window['throughput']:>7,.1f} req/s ")
    (group,) = [row["process_group"] for row in looking.view["summary"]["groups"]]
    assert sum(row.startswith(f" {group} ") for row in rows) == 1


def test_findings_of_a_troubled_fleet_are_on_the_screen():
    looking = Looking(*simulated("crash-loop"), glyphs=ASCII, size=DESIGN)
    assert " critical restarting every 20 s: request_timeout in shop" in looking.screen().splitlines()
    looking.press("G")
    assert looking.view["errors"] == {} and looking.ui.group == "shop"
    assert any(row.startswith(">shop ") for row in looking.screen().splitlines())


# --- anything -------------------------------------------------------------------------------

def random_view(pick):
    groups = [a_group(
        pick.choice(HOSTILE), pick.choice(HOSTILE[:3]),
        lives=lives(running=pick.randrange(3), silent=pick.randrange(2)))
        for _ in range(pick.randrange(9))]
    findings = [a_finding(
        pick.choice(HOSTILE), pick.choice((None, *HOSTILE)), advice=pick.choice(HOSTILE),
        severity=pick.choice(("critical", "warning", "info", "\x1b"))) for _ in range(pick.randrange(6))]
    points = [None if pick.random() < 0.2 else dict(
        throughput=pick.random(), errors=pick.randrange(3), mean=10 ** pick.uniform(-5, 3))
        for _ in range(pick.choice((0, 1, 12, 120)))]
    odds = pick.choice((0.0, 0.02, 0.2))
    view = a_view(fuzzed(pick, a_summary(groups, findings), odds), series=fuzzed(pick, a_series(*points), odds),
                  latency=fuzzed(pick, {"p95": 0.5}, odds))
    if pick.random() < 0.1:
        del view["series"]
        view["errors"]["series"] = pick.choice(HOSTILE)
    return view


@pytest.mark.parametrize("seed", range(150))
def test_any_answer_fits_any_screen(seed):
    pick = random.Random(seed)
    view, glyphs = random_view(pick), pick.choice((ASCII, UNICODE))
    ui = a_ui(glyphs, group=pick.choice((None, *HOSTILE)), scroll=pick.choice((0, 0, 5, 1 << 30)),
              window=pick.choice(("1m", "1m", "now")))
    for _ in range(4):
        size = Size(pick.randrange(61), pick.randrange(1, 301))
        check_fits(overview.body(view, ui, size), size, glyphs)
