"""The console's latency: the histogram of a phase with its percentiles marked.

Invariant of the last test: for any answer and size at most so many Lines, none wider than the
screen, nothing in them that a terminal could take for more than a letter.
"""
import random

import pytest

from builders import Worker, a_fleet, buckets, fold
from console_answers import HOSTILE, check_fits
from consoles import NOW, Looking, captured, simulated
from modwsgi_tel.console import latency
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.keys import WINDOWS, Ui
from modwsgi_tel.wire.buckets import percentiles
from modwsgi_tel.wire.fields import PHASES

TIME = 1_700_000_000.0


def an_answer(*durations_s, **more):
    counts = buckets(*durations_s)
    p50, p95, p99 = percentiles(counts, longest_s=max(durations_s, default=None))
    return {**dict(time=TIME, phase="request", window="1m", group=None, counts=counts, requests=sum(counts),
                   p50=p50, p95=p95, p99=p99, max=max(durations_s, default=None)), **more}


def a_summary(**windows):
    phases = {phase: {"mean": 0.01 * (place + 1), "p50": 0.02, "p95": 0.1 * (place + 1), "p99": 2.0, "max": 3.0}
              for place, phase in enumerate(PHASES)}
    held = {"windows": {"1m": {"phases": phases}}}
    return {"time": TIME, "totals": held, "groups": [dict(held, process_group="shop")], **windows}


def drawn(view, rows=20, cols=80, glyphs=UNICODE, **ui):
    return plain(latency.PANE.body(view, Ui(view="latency", glyphs=glyphs, **ui), Size(rows, cols))).splitlines()


MIXED = (0.012,) * 60 + (0.02,) * 30 + (0.05,) * 6 + (0.4,) * 3 + (1.5,)


def test_the_histogram_stands_on_a_log_axis_with_its_percentiles_marked():
    view = {"summary": a_summary(), "histogram": an_answer(*MIXED)}
    assert drawn(view, rows=13) == [
        "    server  queue   daemon  application>request gil_wait input_read output_write",
        "p95 100 ms  200 ms  300 ms  400 ms      500 ms  600 ms   700 ms     800 ms",
        " request: 100 requests of all groups, last minute",
        " p50 13.7 ms  p95 54.7 ms  p99 448 ms  max 1.5 s",
        " 60│     ███",
        "   │     ███",
        "   │     ███",
        "   │     ███    ███",
        "   │     ███    ███",
        "   │     ███    ███         ▅▅▅                          ▂▂              ▁▁▁",
        "    ──────▲──────────────────▲────────────────────────────▲───────────────▲─────",
        "         p50                p95                          p99             max",
        "      10 ms    20 ms        50 ms    100 ms    200 ms       500 ms    1 s"]
    assert drawn(view, rows=13, glyphs=ASCII)[8:] == [
        "   |     ###    ###",
        "   |     ###    ###         ===                          ..              ___",
        "    ------^------------------^----------------------------^---------------^-----",
        "         p50                p95                          p99             max",
        "      10 ms    20 ms        50 ms    100 ms    200 ms       500 ms    1 s"]
    assert drawn(view, rows=13, cols=90)[2] == (
        " request: 100 requests of all groups, last minute  (server + queue + daemon + application)")


def test_a_small_screen_has_the_numbers_and_a_line_of_bars():
    assert drawn({"summary": a_summary(), "histogram": an_answer(*MIXED)}, rows=6, cols=40, glyphs=ASCII) == [
        " >request  5 of 8: [ ]",
        " 100 requests of all groups, last minute",
        " p50 13.7 ms  p95 54.7 ms",
        " p99 448 ms  max 1.5 s",
        " 60|   #  -     _            _       _",
        "     10 ms          100 ms         1 s"]


def test_a_tall_screen_has_a_table_of_all_phases():
    lines = drawn({"summary": a_summary(), "histogram": an_answer(*MIXED)}, rows=46, cols=120)
    assert lines[-9:] == [
        " phase             mean       p50       p95       p99       max  time",
        " server         10.0 ms   20.0 ms    100 ms     2.0 s     3.0 s  in Apache, until it passes the request on",
        " queue          20.0 ms   20.0 ms    200 ms     2.0 s     3.0 s  until a daemon process takes it",
        " daemon         30.0 ms   20.0 ms    300 ms     2.0 s     3.0 s  in the daemon process, until a thread has it",
        " application    40.0 ms   20.0 ms    400 ms     2.0 s     3.0 s  in the application",
        ">request        50.0 ms   20.0 ms    500 ms     2.0 s     3.0 s  server + queue + daemon + application",
        " gil_wait       60.0 ms   20.0 ms    600 ms     2.0 s     3.0 s  waits for the GIL, in application",
        " input_read     70.0 ms   20.0 ms    700 ms     2.0 s     3.0 s  reads of the body, in application",
        " output_write   80.0 ms   20.0 ms    800 ms     2.0 s     3.0 s  writes of the response, in application"]


def test_the_first_bar_and_the_last_say_what_they_hold():
    assert drawn({"histogram": an_answer(0.0001, 99.0)})[-1] == (
        " the first bar is all below 1.25 ms, the last bar is all above 65.5 s")


def test_one_bucket_alone_is_shown_among_its_neighbours():
    assert drawn({"histogram": an_answer(0.02)}, rows=10, glyphs=ASCII)[4:] == [
        " 1|                                   ####",
        "  |                                   ####",
        "  |                                   ####",
        "   ----------------------------------^------------------------------------------",
        "                                    p50 p95 p99 max",
        "      5 ms            10 ms          20 ms               50 ms           100 ms"]


def test_a_figure_out_of_all_bounds_leaves_room_for_the_others():
    assert drawn({"histogram": an_answer(*MIXED, p50=1e308)})[3] == (
        " p50 11574074074…  p95 54.7 ms  p99 448 ms  max 1.5 s")


def test_marks_that_meet_keep_their_names_apart():
    assert latency._labels([("p50", 3), ("p95", 3), ("p99", 4), ("max", 4)], 30) == "  p50 p95 p99 max"
    assert latency._labels([("p50", 9), ("p95", 29), ("p99", 29), ("max", 29)], 30) == "        p50        p95 p99 max"
    assert latency._labels([("p50", 0), ("p95", 1), ("p99", 2), ("max", 3)], 12) == ""
    assert latency._labels([], 12) == ""


@pytest.mark.parametrize("seconds, position", [
    (0.0, 0.0), (0.001, 0.8), (0.00125, 1.0), (0.002, 4.0), (0.01, 13.0), (0.1, 26.25), (65.536, 64.5),
    (1e308, 64.5), (-1.0, 0.0)])
def test_a_duration_lies_where_its_bucket_is(seconds, position):
    assert latency._position(seconds) == pytest.approx(position)


@pytest.mark.parametrize("found, said", [
    ({"q": 0.83, "reading": "transient", "waits": 1234},
     " GIL transient, waits are short: 83 % of 1,234 waits end in each interval"),
    ({"q": 0.5, "reading": "compounding", "waits": 1234},
     " GIL compounding, waits add up: 50 % of 1,234 waits end in each interval"),
    ({"q": 0.2, "reading": "convoy", "waits": 123},
     " GIL convoy, threads wait in line: 20 % of 123 waits end in each interval"),
    (None, " GIL: the waits do not tell how they end (too few long ones, or no clear fall)")])
def test_the_shape_of_gil_waits_is_said_in_words(found, said):
    answer = an_answer(0.02, phase="gil_wait", coefficient=found)
    assert drawn({"histogram": answer}, phase="gil_wait")[-1] == said


def test_a_phase_that_nobody_has_is_explained():
    none = an_answer(phase="queue", counts=None)
    assert drawn({"histogram": none}, phase="queue")[2:] == [
        " queue: 0 requests of all groups, last minute  (until a daemon process takes it)", "",
        " No process has sent queue times in this window.",
        " Only daemon mode has a queue and a daemon process, embedded mode has none."]
    assert drawn({"histogram": an_answer(window="now", group="")}, window="now", group="")[2:] == [
        " request: 0 requests of (embedded), newest tick", "",
        " No request has ended in this window.",
        " now is the newest tick of each process: < > or n choose a longer window."]


def test_an_answer_to_what_was_chosen_before_is_not_shown():
    view = {"histogram": an_answer(0.1)}
    for ui in ({"phase": "queue"}, {"window": "10m"}, {"group": "shop"}):
        assert drawn(view, **ui)[2:] == [" asking the collector"]
    assert drawn({"errors": {"histogram": "no group 'x\x07'"}})[2:] == [" no group 'x\\x07'"]


def test_the_figures_of_all_phases_are_of_the_group_chosen():
    summary = a_summary()
    summary["groups"].append(dict(process_group="api", windows={"1m": {"phases": {"request": {"p95": 9.0}}}}))
    assert drawn({"summary": summary}, group="api")[1].split() == ["p95", "-", "-", "-", "-", "9.0", "s", "-", "-", "-"]
    # two hosts have a group of that name: their percentiles cannot be added up
    summary["groups"].append(summary["groups"][-1])
    assert drawn({"summary": summary}, group="api")[1].split() == ["p95", *"--------"]


def test_the_collector_is_asked_for_phase_window_and_group():
    ui = Ui(view="latency", phase="queue", window="10m", group="a&b\ud800", glyphs=UNICODE)
    assert latency.PANE.paths(ui, Size(20, 80)) == {"histogram": "/api/histogram?phase=queue&window=10m&group=a%26b%3F"}
    assert latency.PANE.paths(ui._replace(group=None), Size(20, 80)) == {
        "histogram": "/api/histogram?phase=queue&window=10m"}


def test_the_numbers_are_those_of_the_collector():
    worker = Worker()
    fleet = fold(a_fleet(), worker.started(), worker.tick(durations=[0.02] * 99 + [3.0]), now=NOW)
    looking = Looking(fleet, NOW + 0.5, TIME, view="latency")
    assert looking.screen().splitlines()[5:7] == [
        " request: 100 requests of all groups, last minute",
        " p50 22.0 ms  p95 23.8 ms  p99 24.0 ms  max 3.0 s"]


def test_all_phases_of_all_captures_are_drawn():
    looking = Looking(*captured("daemon_gil"), view="latency")
    for _ in PHASES:
        looking.press("]")
        assert looking.view["errors"] == {}
        assert looking.screen().splitlines()[5].startswith(f" {looking.ui.phase}: ")
    assert looking.ui.phase == "request"


def test_a_convoy_is_read_from_a_fleet_in_trouble():
    looking = Looking(*simulated("gil", 30.0), view="latency", phase="gil_wait")
    assert looking.screen().splitlines()[-2].startswith(" GIL convoy, threads wait in line: ")


@pytest.mark.parametrize("glyphs", (UNICODE, ASCII), ids=("unicode", "ascii"))
def test_any_answer_fits_any_screen(glyphs):
    rng = random.Random(4)
    for _ in range(300):
        size = Size(rng.randrange(61), rng.randrange(1, 301) if rng.random() < 0.7 else rng.randrange(1, 30))
        group = rng.choice((None, *HOSTILE))
        ui = Ui(view="latency", glyphs=glyphs, phase=rng.choice(PHASES), window=rng.choice(WINDOWS), group=group)
        counts = [rng.choice((0, 0, 1, 7, 2 ** 63)) if rng.random() < rng.random() else 0 for _ in range(65)]
        answer = an_answer(phase=ui.phase, window=ui.window, group=group, counts=rng.choice((counts, counts, None, [])),
                           requests=sum(counts))
        for name in latency.MARKS:
            answer[name] = rng.choice((None, -1, 0, 0.02, 70, 1e308))
        if rng.random() < 0.5:
            answer["coefficient"] = rng.choice((None, {"q": 1e308, "reading": rng.choice(HOSTILE), "waits": 2 ** 64}))
        view = {"summary": a_summary()} if rng.random() < 0.7 else {}
        told = {"histogram": answer}
        view.update(rng.choice((told, told, {}, {"errors": {"histogram": HOSTILE[0]}})))
        latency.PANE.paths(ui, size)
        check_fits(latency.PANE.body(view, ui, size), size, glyphs)
