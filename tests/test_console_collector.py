"""The collector's own view: for any answer and size a screen that fits; what it says, and that trouble comes first."""
import random

import pytest

from console_answers import HOSTILE, WALL, a_summary, a_view, check_fits, fuzzed
from consoles import Looking, captured
from modwsgi_tel.console import collector as own
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.keys import Ui

BOUNDS = ("processes_evicted", "processes_forgotten", "slow_evicted", "slow_forgotten", "events_dropped",
          "groups_evicted", "interpreters_evicted", "records_dropped")


def a_collector(**more):
    return {"received": 120_000, "received_bytes": 345_000_000, "decode_errors": 0, "wrong": {}, "wrong_last": [],
            "kinds": {"request_metrics": 20_000, "gc_event": 100_000}, "without_process": 0, "kept_bytes": 12_000_000,
            "bounds": dict.fromkeys(BOUNDS, 0), "version": "1.0", "pid": 4711, "uptime_s": 2400.0, "cpu_s": 12.0,
            "max_rss_bytes": 45_000_000, "socket": "/run/telemetry.sock", "socket_trouble": None,
            "longest_gap_s": 0.012, "recent_gap_s": 0.003, "stalls": 0,
            "http": {"connections": 2, "accepted": 17, "refused": 0, "requests": 3000, "errors": 0, "wrong_tokens": 0},
            "helpers": {"started": 3, "failed": 0}, "recording": None, "log_lines_lost": 0, **more}


def a_wrong(**more):
    return {"received": WALL - 5.0, "sender_pid": 99, "sender_uid": 33, "reason": "version",
            "detail": "version 2, not 1", "bytes": 2048, "head": "57534749" * 16, **more}


def the_view(summary=None, at=WALL, **more):
    return a_view(summary, collector={"time": at, "collector": a_collector(**more)})


def screen(view, rows=24, cols=80, **more):
    return plain(own.body(view, Ui(view="collector", glyphs=ASCII, **more), Size(rows, cols)))


def the_row(view, name):
    """The text of one row, its lines joined."""
    rows = screen(view, rows=60, cols=200).splitlines()
    (place,) = [place for place, row in enumerate(rows) if row[2:15].rstrip() == name]
    return rows[place][0], rows[place][15:]


def test_a_collector_in_order_is_on_one_screen():
    assert screen(the_view()) == (
        "  collector    modwsgi-tel 1.0, pid 4711, up 40 min\n"
        "  socket       /run/telemetry.sock\n"
        "  received     120,000 datagrams, 345 MB; 50.0 a second on average\n"
        "  by kind      gc_event 100,000, request_metrics 20,000\n"
        "  lost         none\n"
        "  wrong        none\n"
        "  bounds       nothing went for want of room\n"
        "  stood still  never; longest gap 12.0 ms, in the last minute 3.0 ms\n"
        "  cpu          0.5 % since the start, 12.0 s in all\n"
        "  memory       at most 45.0 MB, kept datagrams 12.0 MB\n"
        "  http         2 connections now, 17 in all, 3,000 requests\n"
        "  helpers      3 started\n")


def test_trouble_comes_first_and_has_a_mark():
    rows = screen(the_view(a_summary(lost=12, lost_uncertain=3), stalls=1, longest_gap_s=4.2, log_lines_lost=5,
                           socket_trouble="it was removed")).splitlines()
    assert rows[:5] == [
        "! socket       it was removed",
        "! lost         12 datagrams; 3 of these may be an unseen restart instead",
        "! stood still  1 time for a second or longer; longest gap 4.2 s, in the last",
        "               minute 3.0 ms",
        "! log          5 lines lost: see its --log-file"]
    assert rows[5] == "  collector    modwsgi-tel 1.0, pid 4711, up 40 min"


@pytest.mark.parametrize("bound, text", [
    ("processes_evicted", "no room for more processes, 7 times: raise --max-processes"),
    ("groups_evicted", "no room for more process groups, 7 times: raise --max-groups"),
    ("interpreters_evicted", "no room for more interpreters, 7 times: raise --max-interpreters"),
    ("slow_evicted", "no room for more slow requests, 7 times: raise --max-slow or --slow-bytes"),
    ("records_dropped", "no room for more kept datagrams, 7 times: raise --keep-bytes"),
])
def test_what_had_no_room_is_told_with_the_option_to_raise(bound, text):
    assert the_row(the_view(bounds={**dict.fromkeys(BOUNDS, 0), bound: 7}), "bounds") == ("!", text)


def test_what_went_when_its_time_was_over_is_no_trouble():
    bounds = {**dict.fromkeys(BOUNDS, 0), "processes_forgotten": 3, "slow_forgotten": 1, "events_dropped": 20}
    assert the_row(the_view(bounds=bounds), "bounds") == (" ", (
        "their time was over: processes 3 (--process-retention, --silent-retention), slow requests 1 "
        "(--slow-retention), starts and ends 20 (--max-events)"))


def test_every_bound_of_a_collector_is_one_that_is_told():
    looking = Looking(*captured("smoke"), glyphs=ASCII, view="collector")
    told = {name for name, *_ in own.LOST_TO + own.GONE}
    assert told == set(looking.view["collector"]["collector"]["bounds"]) == set(BOUNDS)


def test_rates_are_since_the_look_before_when_there_was_one():
    view = the_view()
    view["previous"] = {"collector": {"time": WALL - 2.0, "collector": a_collector(received=119_900, cpu_s=11.9)}}
    assert the_row(view, "received") == (" ", (
        "120,000 datagrams, 345 MB; 50.0 a second now, 50.0 a second on average"))
    assert the_row(view, "cpu") == (" ", "5.0 % of a core now, 0.5 % since the start, 12.0 s in all")


@pytest.mark.parametrize("previous", [
    {"time": WALL - 2.0, "collector": a_collector(received=200_000, cpu_s=99.0)},     # started anew
    {"time": WALL, "collector": a_collector(received=1)},
    {"time": WALL - 0.1, "collector": a_collector(received=1)},                         # a key was pressed
    {"time": WALL + 9.0, "collector": a_collector(received=1)},                        # wound back
    {"time": WALL - 2.0, "collector": {}}, {}, None])
def test_without_a_look_before_that_fits_there_is_no_rate_of_now(previous):
    view = the_view()
    view["previous"] = {"collector": previous}
    assert " now" not in the_row(view, "received")[1]


def test_wrong_datagrams_are_told_by_reason_with_the_last_of_them():
    view = the_view(decode_errors=3, wrong={"version": 2, "magic": 1}, wrong_last=[a_wrong(), a_wrong(
        received=WALL - 1.0, reason="magic", detail="begins with\x1b[2J", sender_pid=100)])
    rows = screen(view).splitlines()
    assert rows[0] == "! wrong        3 datagrams were refused: version 2, magic 1"
    assert rows[-3:] == [
        " refused last",
        " 03:12:39 pid 100 uid 33  magic: begins with\\x1b[2J     2,048 B 5753474957534749",
        " 03:12:35 pid 99 uid 33  version: version 2, not 1      2,048 B 5753474957534749"]


def test_a_recording_in_trouble_is_told():
    recording = {"records": 5000, "lost_blocks": 2, "lost_bytes": 131_072, "trouble": "disk full"}
    assert the_row(the_view(recording=recording), "recording") == (
        "!", "5,000 records written, 2 blocks lost (131 kB); disk full")
    recording = {"records": 1, "lost_blocks": 0, "lost_bytes": 0, "trouble": None}
    assert the_row(the_view(recording=recording), "recording") == (" ", "1 record written")


def test_connections_refused_are_trouble_and_wrong_paths_are_not():
    http = {"connections": 256, "accepted": 300, "refused": 9, "requests": 1, "errors": 4, "wrong_tokens": 2}
    assert the_row(the_view(http=http), "http") == ("!", (
        "256 connections now, 300 in all, 1 request; 4 requests answered with an error; "
        "9 connections refused (--max-connections); 2 wrong tokens"))
    assert the_row(the_view(http={**http, "refused": 0}), "http")[0] == " "


def test_of_a_collector_that_tells_little_only_that_is_shown():
    view = a_view(collector={"time": WALL, "collector": {"received": 332, "decode_errors": 1}})
    view["summary"]["totals"]["lost"] = None
    assert screen(view) == ("! wrong        1 datagram was refused\n"
                            "  received     332 datagrams\n")


def test_an_answer_that_is_an_error_or_not_there_is_told():
    view = a_view(a_summary(lost=None))
    assert screen(view) == " asking the collector\n"
    view["errors"]["collector"] = "no such path\x1b"
    assert screen(view) == "! no answer    no such path\\x1b\n"
    assert screen(a_view(a_summary(lost=None), collector={"time": WALL})) == " the collector says nothing of itself\n"


def test_its_log_is_below_the_newest_line_last_and_escaped():
    view = {**the_view(), "log": [f"line {n}\x1b[2J" for n in range(300)]}
    rows = screen(view, rows=20).splitlines()
    assert rows[12:] == [" its log", *(f" line {n}\\x1b[2J" for n in range(293, 300))]
    assert screen(view, rows=6, cols=40, scroll=1 << 30).splitlines()[-1] == " line 299\\x1b[2J"


def test_a_real_answer_is_shown():
    looking = Looking(*captured("gunk"), glyphs=ASCII, view="collector")
    assert looking.view["errors"] == {}
    assert "  received     165 datagrams, 132 kB" in looking.screen().splitlines()


# --- anything -------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(150))
def test_any_answer_fits_any_screen(seed):
    pick = random.Random(seed)

    def answer():
        return {"time": WALL - pick.choice((0.0, 1.0, 2.0)), "collector": a_collector(
            wrong_last=[a_wrong(detail=pick.choice(HOSTILE), reason=pick.choice(HOSTILE))
                        for _ in range(pick.randrange(9))],
            decode_errors=pick.randrange(3), wrong={text: 5 for text in HOSTILE}, kinds={text: 5 for text in HOSTILE},
            socket=pick.choice(HOSTILE), socket_trouble=pick.choice(HOSTILE), stalls=pick.randrange(3),
            bounds={name: pick.randrange(2) for name in BOUNDS},
            recording={"records": 5, "lost_blocks": 2, "lost_bytes": 9, "trouble": pick.choice(HOSTILE)})}

    odds = pick.choice((0.0, 0.02, 0.2))
    view = a_view(a_summary(lost=pick.randrange(3)), collector=fuzzed(pick, answer(), odds) or {}, log=list(HOSTILE),
                  previous=fuzzed(pick, {"collector": answer()}, odds))
    if pick.random() < 0.1:
        view["errors"]["collector"] = pick.choice(HOSTILE)
    glyphs = pick.choice((ASCII, UNICODE))
    for _ in range(4):
        size = Size(pick.randrange(61), pick.randrange(1, 301))
        ui = Ui(view="collector", glyphs=glyphs, scroll=pick.choice((0, 0, 7, 1 << 30)))
        check_fits(own.body(view, ui, size), size, glyphs)
