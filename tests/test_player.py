"""Playing a recording: the fold is that of the live collector, whichever way one comes to a time."""
import gzip
import itertools
import math
import os
import random
import struct
import time
import tracemalloc
from functools import lru_cache

import pytest

from builders import CAPTURES, NAMES, WALL, Worker, a_fleet, a_sender, capture, replayed
from modwsgi_tel import simulate
from modwsgi_tel.errors import Nonsense, TelError, UsageError
from modwsgi_tel.player import HISTORY_S, NOW_S, QUIET_S, Player, parse_time
from modwsgi_tel.state.fleet import Fleet
from modwsgi_tel.state.view import summary
from modwsgi_tel.wire import blocks

LIMITS = a_fleet().limits
TOO_MANY = 256                          # records between two yields
DAY_S = 86400.0


@pytest.fixture
def play(tmp_path):
    """play(records or bytes, ...): a Player of files with these contents; all are closed at the end."""
    made = []

    def make(*contents, **more):
        paths = []
        for content in contents:
            path = tmp_path / f"{len(made)}.{len(paths)}.cap"
            path.write_bytes(content if isinstance(content, bytes) else raw(content))
            paths.append(str(path))
        made.append(Player(paths, LIMITS, **more))
        return made[-1]

    yield make
    for player in made:
        player.close()


def raw(items):
    """(wall, pid, datagram) items as the bytes of a plain capture file."""
    return b"".join(blocks.record(*item) for item in items)


def ticks(*walls, pid=7):
    """Records of one process, a tick with one request at each of these times after WALL."""
    worker = Worker(pid)
    return [(WALL + at, pid, worker.tick(1)) for at in walls]


@lru_cache(maxsize=None)
def simulated(profile, processes, interval, duration_s):
    """(wall, pid, datagram) of a made-up fleet that starts at WALL."""
    stream = simulate.stream(profile, processes, 2, interval, duration_s, 3, WALL)
    return [(WALL + at, struct.unpack_from("<I", datagram, 8)[0], datagram) for at, datagram in stream]


def run(steps):
    for _ in steps:
        pass


def moved(player, wall):
    run(player.advance(wall))
    return player


def sought(player, wall):
    run(player.seek(wall))
    return player


def shown(player):
    """The summary at the player's time; processes by their place, for ids are never used twice."""
    out = summary(player.fleet, player.now, player.wall)
    for place, row in enumerate(out["processes"]):
        row["id"] = place
    return out


class Counted(Fleet):
    """A Fleet that notes when time happened and when datagrams did."""

    def __init__(self, limits):
        super().__init__(limits)
        self.looked, self.came = [], []

    def expire(self, now, wall):
        self.looked.append((now - NOW_S, wall - WALL))
        super().expire(now, wall)

    def apply(self, datagram, sender, now, wall):
        self.came.append((now - NOW_S, wall - WALL))
        super().apply(datagram, sender, now, wall)


# --- playing ---------------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_a_capture_played_to_its_end_counts_what_it_counts_when_folded_directly(name):
    player = Player([os.path.join(CAPTURES, name + ".cap.gz")], LIMITS)
    moved(player, math.inf)
    direct = replayed(name)
    played, folded = shown(player), summary(direct, 0.0, 0.0)
    assert (player.records, player.ended, player.trouble) == (len(capture(name)), True, "")
    assert (player.begin, player.wall, player.end) == (capture(name)[0][0], capture(name)[-1][0], capture(name)[-1][0])
    assert {key: played["totals"][key] for key in ("groups", "processes", "counters", "lost", "slow")} == {
        key: folded["totals"][key] for key in ("groups", "processes", "counters", "lost", "slow")}
    assert [(row["pid"], row["sender_pid"], row["counters"], row["lost"]) for row in played["processes"]] == [
        (row["pid"], row["sender_pid"], row["counters"], row["lost"]) for row in folded["processes"]]
    assert played["collector"]["kinds"] == folded["collector"]["kinds"]
    player.close()


def test_a_player_stands_at_the_first_record_and_has_folded_none(play):
    player = play(ticks(0, 1, 2.5))
    assert (player.begin, player.wall, player.now, player.end) == (WALL, WALL, NOW_S, None)
    assert (player.records, player.skipped, player.seeks, player.ended, player.trouble) == (0, 0, 0, False, "")


def test_advancing_folds_in_what_was_recorded_up_to_that_time_and_no_more(play):
    player = play(ticks(0, 1, 2.5))
    at = [(moved(player, WALL + wall).records, player.wall - WALL, player.now - NOW_S, player.ended)
          for wall in (0, 0.5, 1, 2, 1, math.nan, 2.5, 9)]
    assert at == [(1, 0, 0, False), (1, 0.5, 0.5, False), (2, 1, 1, False), (2, 2, 2, False), (2, 2, 2, False),
                  (2, 2, 2, False), (3, 2.5, 2.5, True), (3, 2.5, 2.5, True)]
    assert player.end == WALL + 2.5


def test_files_are_merged_by_time_in_whatever_order_they_are_named(play):
    one, other = ticks(0, 2, 4, pid=7), ticks(1, 3, 5, pid=8)
    for files in ((one, other), (other, one), (raw(one), blocks.pack(raw(other)))):
        player = moved(play(*files, fold=Counted), math.inf)
        assert player.fleet.came == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]
        assert [row["sender_pid"] for row in shown(player)["processes"]] == [7, 8]


def test_time_happens_to_the_fleet_once_a_second_and_before_what_came_then(play):
    seconds = []
    player = play(ticks(0, 0.5, 2, 2.25, 4.5), fold=Counted)
    player.each_second = lambda now, wall: seconds.append((now - NOW_S, wall - WALL, player.records, player.now - now))
    moved(player, math.inf)
    assert player.fleet.looked == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert seconds == [(1, 1, 2, 0), (2, 2, 2, 0), (3, 3, 4, 0), (4, 4, 4, 0)]


def test_time_happens_where_nothing_was_recorded(play):
    player = play(ticks(0, 60), fold=Counted)
    for tenth in range(51):
        moved(player, WALL + tenth / 10)
    assert player.fleet.looked == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]
    assert [row["life"] for row in shown(player)["processes"]] == ["silent"]


def test_of_a_silence_of_hours_the_first_minutes_and_the_last_second_are_looked_at(play):
    player = moved(play(ticks(0, 36000), fold=Counted), math.inf)
    assert player.fleet.looked == [(second, second) for second in range(1, int(QUIET_S) + 1)] + [(36000, 36000)]
    assert player.fleet.forgotten == 1 and player.now == NOW_S + 36000


def test_a_silence_of_days_or_a_clock_set_back_takes_no_time(play):
    player = moved(play(ticks(0, 2, 2 + 3 * DAY_S, 3 + 3 * DAY_S, -5000, -4998.5), fold=Counted), math.inf)
    assert player.fleet.came == [(0, 0), (2, 2), (2, 2 + 3 * DAY_S), (3, 3 + 3 * DAY_S), (3, -5000), (4.5, -4998.5)]
    assert player.fleet.looked == [(1, 1), (2, 2), (3, 3 + 3 * DAY_S), (4, -4999)]
    assert (player.wall, player.now) == (WALL - 4998.5, NOW_S + 4.5)


def test_playing_on_goes_at_its_pace_over_a_clock_that_was_set(play):
    player = play(ticks(0, 1, -3600, -3599, -3590, DAY_S, DAY_S + 10))
    seen = [(moved(player, player.wall + 2).records, player.wall - WALL) for _ in range(3)]
    assert seen == [(4, -3599), (4, -3597), (4, -3595)]
    run(player.advance(player.wall + 6))
    assert (player.records, player.wall) == (6, WALL + DAY_S + 1)


# --- seeking ---------------------------------------------------------------------------------

def test_seeking_back_and_forth_shows_what_playing_to_that_time_shows(play):
    items = simulated("crash-loop", 4, 1.0, 120.0)
    player, draw = play(items), random.Random(5)
    assert max(wall for wall, _, _ in items) - WALL < HISTORY_S
    for wall in [WALL + 60, WALL, items[40][0], items[30][0]] + [WALL + 125 * draw.random() for _ in range(12)]:
        sought(player, wall)
        assert shown(player) == shown(moved(play(items), wall))


def test_a_seek_ahead_goes_on_with_the_same_fleet_and_one_back_with_another(play):
    player = play(ticks(0, 1, 2, 3, 4))
    fleet = player.fleet
    assert (sought(player, WALL + 3).records, player.fleet is fleet, player.seeks) == (4, True, 0)
    assert (sought(player, WALL + 3).records, player.fleet is fleet, player.seeks) == (4, True, 0)
    assert (sought(player, WALL + 1).records, player.fleet is fleet, player.seeks) == (2, False, 1)
    assert (player.wall, player.now) == (WALL + 1, NOW_S + 1)


@pytest.mark.parametrize("wall, there", [(-1e12, 0), (-math.inf, 0), (WALL - 1, 0), (WALL + 99, 4), (1e300, 4),
                                         (math.inf, 4)])
def test_a_seek_goes_no_further_than_the_recording(play, wall, there):
    for before in (0, 2, 9):
        player = moved(play(ticks(0, 1, 2, 3, 4)), WALL + before)
        sought(player, wall)
        assert (player.wall, player.now) == (WALL + there, NOW_S + there)
        assert (player.records, player.ended) == (there + 1, there == 4)
    assert sought(player, math.nan).wall == WALL + there


def folded_since(items, since, wall):
    """A Fleet of what came from `since` to `wall`, as a collector that was started then would have it."""
    fleet, second = Fleet(LIMITS), math.floor(since - WALL)
    for at, pid, datagram in items:
        if since <= at <= wall:
            while second < at - WALL:
                second += 1
                if second <= at - WALL:
                    fleet.expire(NOW_S + second, WALL + second)
            second = math.floor(at - WALL)
            fleet.apply(datagram, a_sender(pid, 0, 0), NOW_S + (at - WALL), at)
    while second + 1 <= wall - WALL:
        second += 1
        fleet.expire(NOW_S + second, WALL + second)
    return fleet


class Standing:
    """A fleet at a time, as `shown` reads it."""

    def __init__(self, fleet, wall):
        self.fleet, self.wall, self.now = fleet, wall, NOW_S + (wall - WALL)


@pytest.mark.parametrize("before", [WALL, WALL + 1500, WALL + 7000])
def test_a_far_seek_leaves_out_what_is_older_than_any_window_and_begins_as_a_collector_does(play, before):
    items, wall = simulated("steady", 3, 20.0, 7200.0), WALL + 4000
    player = sought(moved(play(items), before), wall)
    since = wall - HISTORY_S
    assert player.skipped + player.records == sum(1 for at, _, _ in items if at <= wall)
    assert player.records == sum(1 for at, _, _ in items if since <= at <= wall)
    assert shown(player) == shown(Standing(folded_since(items, since, wall), wall))
    assert shown(player)["totals"]["lost"] == 0 and player.seeks == 1


def test_a_seek_beyond_an_end_that_is_not_known_yet_finds_the_end(play):
    items = simulated("steady", 3, 20.0, 7200.0)
    last = items[-1][0]
    player = sought(play(items), WALL + 1e6)
    assert (player.wall, player.end, player.ended) == (last, last, True)
    assert shown(player) == shown(Standing(folded_since(items, last - HISTORY_S, last), last))


def test_in_a_silence_of_days_nobody_can_stand(play):
    player = sought(play(ticks(0, 1, 3 * DAY_S, 3 * DAY_S + 1)), WALL + DAY_S)
    assert (player.wall, player.now) == (WALL + 1, NOW_S + 1)
    assert sought(player, WALL + 3 * DAY_S).wall == WALL + 3 * DAY_S
    assert (moved(player, math.inf).wall, player.now) == (WALL + 3 * DAY_S + 1, NOW_S + 2)


def test_a_time_that_the_clock_showed_twice_is_found_where_it_was_first(play):
    player = moved(play(ticks(0, 100, 200, 50, 150, 250)), math.inf)
    assert sought(player, WALL + 120).records == 2
    assert sought(player, WALL + 240).records == 5
    assert sought(player, WALL + 250).ended
    player = moved(play(ticks(0, 100, 200, 50, 60)), math.inf)
    assert (player.end, sought(player, WALL + 50).records, sought(player, WALL + 150).records) == (WALL + 60, 1, 2)


def test_at_the_end_a_seek_beyond_it_changes_nothing(play):
    player = moved(play(ticks(0, 1, 2)), math.inf)
    fleet = player.fleet
    assert sought(player, WALL + 1e6).fleet is fleet and player.records == 3


def test_what_is_skipped_takes_the_time_that_playing_it_takes_and_nobody_looks_at_it(play):
    player = play(ticks(0, 10, 3 * DAY_S, 3 * DAY_S + 700, 3 * DAY_S + 2000.5), fold=Counted)
    sought(player, WALL + 3 * DAY_S + 2002)
    assert player.fleet.came == [(2010.5, 3 * DAY_S + 2000.5)] and player.skipped == 4
    assert player.fleet.looked == [(second, second - 10 + 3 * DAY_S) for second in [*range(711, 1411), 2010]]


def test_a_seek_that_a_newer_one_ended_leaves_no_hours_to_catch_up(play):
    player = play(ticks(*range(0, 40000, 4)), fold=Counted)
    steps = player.seek(WALL + 39000)
    next(steps)
    between = player.wall
    assert WALL + 1000 < between < WALL + 37000
    moved(player, between + 10)
    assert player.wall == between + 10 and len(player.fleet.looked) == 10


# --- turns for others --------------------------------------------------------------------------

def between_turns(player, steps):
    """The most records folded and left out, and seconds passed, between two yields."""
    most, before = [0, 0, 0], _done(player)
    for _ in itertools.chain(steps, [None]):
        after = _done(player)
        most = [max(held, new - old) for held, new, old in zip(most, after, before)]
        before = after
    return most


def _done(player):
    return player.records, player.skipped, len(getattr(player.fleet, "looked", ()))


def test_folding_and_skipping_and_silences_leave_turns_to_others(play):
    items = ticks(*[number / 1000 for number in range(3000)], *[5000 + number / 1000 for number in range(3000)])
    player = play(items, fold=Counted)
    folded, _, looked = between_turns(player, player.advance(math.inf))
    assert 0 < folded <= TOO_MANY and 0 < looked <= TOO_MANY and player.records == 6000
    player = play(items, fold=Counted)
    moved(player, WALL)
    _, skipped, _ = between_turns(player, player.seek(WALL + 5003))
    assert 0 < skipped <= 8 * TOO_MANY and player.records == 3000
    player = moved(play([(WALL, 7, b"")] * 10000 + [(WALL + 5000, 7, b"")]), WALL - 1)
    assert 0 < between_turns(player, player.seek(WALL + 5000))[1] <= 8 * TOO_MANY


def test_a_look_each_second_is_a_turn_of_its_own(play):
    looks = []
    player = play(ticks(0, 10), each_second=lambda now, wall: looks.append(now))
    turns = [len(looks) for _ in player.advance(math.inf)]
    assert turns[:10] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_many_processes_make_a_second_longer_so_its_turns_come_sooner(play):
    items = [record for pid in range(1, 1001) for record in ticks(0, pid=pid)] + ticks(100, pid=1)
    player = moved(play(items, fold=Counted), WALL)
    assert between_turns(player, player.advance(WALL + 99))[2] <= 8


def test_a_newer_way_ends_an_older_one(play):
    items = ticks(*[number / 100 for number in range(3000)])
    player = play(items)
    older = player.advance(math.inf)
    next(older)
    newer = player.seek(WALL + 20)
    next(newer)
    folded = player.records
    assert list(older) == [] and player.records == folded
    run(newer)
    assert (player.wall, player.records) == (WALL + 20, 2001)


def test_closing_ends_what_is_under_way_and_keeps_what_was_folded_in(play):
    player = play(ticks(*[number / 100 for number in range(3000)]))
    steps = player.advance(math.inf)
    next(steps)
    held = shown(player)
    player.close()
    player.close()
    assert list(steps) == [] and list(player.advance(math.inf)) == [] and list(player.seek(WALL)) == []
    assert shown(player) == held and player.ended


# --- files that are not what they should be ------------------------------------------------------

def test_what_cannot_be_opened_is_said_in_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, says in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory"),
                       (tmp_path / "pipe", "no regular file, and a recording is read again and again"),
                       ("/dev/null", "no regular file, and a recording is read again and again")):
        with pytest.raises(TelError) as error:
            Player([str(name)], LIMITS)
        assert str(error.value) == f"cannot read {name}: {says}" and error.value.exit_status == 2
    with pytest.raises(TelError, match="^cannot read -: a recording is read again and again: give it as a file$"):
        Player(["-"], LIMITS)
    with pytest.raises(TelError, match="no file has such a name"):
        Player(["a\0b"], LIMITS)


def test_a_file_that_may_not_be_read_is_said(tmp_path):
    path = tmp_path / "secret.cap"
    path.write_bytes(raw(ticks(0)))
    path.chmod(0)
    user = os.geteuid()
    try:
        if not user:
            os.seteuid(65534)           # root may read everything
        with pytest.raises(TelError) as error:
            Player([str(path)], LIMITS)
    finally:
        os.seteuid(user)
    assert str(error.value) == f"cannot read {path}: Permission denied"


def test_what_holds_no_record_is_nonsense(play):
    cases = ((b"", "holds no record; name a file that serve --record wrote"),
             (b"x" * 40, "no capture: a record of 2021161080 bytes; the 0 records before that count"),
             (b"abc", "ends in the middle of a record (3 bytes over); the 0 records before that count"),
             (b"\x1f\x8bnonsense", "not a whole gzip file: "),
             (gzip.compress(b""), "holds no record; name a file that serve --record wrote"),
             (raw([(math.nan, 7, b"x"), (-1.0, 7, b"x")]), "holds no record; name a file that serve --record wrote"))
    for content, says in cases:
        with pytest.raises(Nonsense) as error:
            play(content)
        assert says in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(Nonsense, match="holds no record"):
        play()


def test_an_empty_file_beside_a_good_one_is_no_trouble(play):
    player = moved(play(ticks(0, 1), b""), math.inf)
    assert (player.records, player.trouble) == (2, "")


def test_of_a_file_cut_short_what_came_before_counts(play, tmp_path):
    whole = raw(ticks(0, 1, 2, 3))
    player = moved(play(whole[:-5]), math.inf)
    assert (player.records, player.ended, player.end) == (3, True, WALL + 2)
    left = len(whole) - 5 - len(raw(ticks(0, 1, 2)))
    assert player.trouble == (f"{tmp_path}/0.0.cap: ends in the middle of a record ({left} bytes over); "
                              "the 3 records before that count")
    said = player.trouble
    assert (sought(player, WALL + 1).records, sought(player, math.inf).records, player.trouble) == (2, 3, said)


def test_of_a_packed_file_cut_short_what_came_before_counts(play):
    first, second = blocks.pack(raw(ticks(0, 1, 2))), blocks.pack(raw(ticks(3, 4, 5)))
    for cut in range(1, len(second)):
        player = moved(play(first + second[:cut]), math.inf)
        assert 3 <= player.records <= 6 and player.ended and player.trouble


def test_a_time_that_is_none_is_that_of_the_record_before(play):
    wrong = (math.nan, math.inf, -math.inf, -5.0, 1e300, 1e12)
    worker = Worker()
    items = [(wall, 7, worker.tick(1)) for wall in (math.nan, WALL, *wrong, WALL + 1, *wrong, WALL + 2)]
    player = moved(play(items, fold=Counted), math.inf)
    assert player.fleet.came == [(0, 0)] * 7 + [(1, 1)] * 7 + [(2, 2)]
    assert (player.begin, player.end, player.timeless) == (WALL, WALL + 2, 1)
    assert (sought(player, WALL + 1).records, player.timeless) == (14, 1)


def test_a_pid_that_no_kernel_has_is_unknown(play):
    player = moved(play([(WALL, 0xFFFFFFFF, Worker(7).tick(1)), (WALL, 0, Worker(8).tick(1))]), math.inf)
    assert [(row["pid"], row["sender_pid"]) for row in shown(player)["processes"]] == [(7, 0), (8, 0)]


def test_a_file_that_was_emptied_meanwhile_ends_where_it_is_read_again(play, tmp_path):
    for before in (2, 9):
        player = moved(play(ticks(0, 1, 2, 3)), WALL + before)
        for path in tmp_path.iterdir():
            path.write_bytes(b"")
        assert (sought(player, WALL + 1).records, player.ended, player.wall) == (0, True, WALL)


def test_what_is_appended_meanwhile_is_found_by_a_later_seek(play, tmp_path):
    items = ticks(0, 1, 2, 3)
    player = moved(play(raw(items)[:-1]), math.inf)
    assert (player.records, player.end, bool(player.trouble)) == (3, WALL + 2, True)
    (tmp_path / "0.0.cap").write_bytes(raw(items))
    sought(player, WALL)
    assert (moved(player, math.inf).records, player.end, player.trouble) == (4, WALL + 3, "")


def test_of_a_file_of_any_size_little_is_held_in_memory(play):
    player = play(raw([(WALL + number / 1000, 7, b"\0" * 5000) for number in range(4000)]))
    tracemalloc.start()
    try:
        moved(player, math.inf)
        sought(player, WALL + 1)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def _damaged(draw):
    """A capture file with some of its bytes, lengths or times changed."""
    items = capture(draw.choice(NAMES))
    start = draw.randrange(max(1, len(items) - 60))
    data = bytearray()
    for wall, pid, datagram in items[start:start + 60]:
        at = draw.choice((wall, wall, wall, draw.uniform(0, 4e9), -wall, math.nan, math.inf, 1e308))
        data += blocks.record(at, pid, datagram)
    for _ in range(draw.choice((0, 1, 5, 50))):
        data[draw.randrange(len(data))] = draw.randrange(256)
    if draw.random() < 0.3:
        data = bytearray(blocks.pack(bytes(data)))
        for _ in range(draw.choice((0, 1, 5))):
            data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data[:draw.randrange(1, len(data) + 1)] if draw.random() < 0.3 else data)


@pytest.mark.parametrize("seed", range(60))
def test_any_bytes_whatever_are_refused_or_played_to_an_end(play, seed):
    """Invariant: Nonsense from the constructor, or the player ends, and within one fleet its time never falls."""
    draw = random.Random(seed)
    try:
        player = play(*(_damaged(draw) for _ in range(draw.choice((1, 1, 2)))), fold=Counted)
    except Nonsense:
        return
    for _ in range(6):
        wall = draw.choice((player.wall + draw.uniform(-100, 100), player.wall + draw.uniform(-1e9, 1e9),
                            draw.uniform(0, 4e9)))
        run(draw.choice((player.advance, player.seek))(wall))
        times = [now for now, _ in player.fleet.came]
        assert times == sorted(times) and times[-1:] <= [player.now - NOW_S]
        looked = [now for now, _ in player.fleet.looked]
        assert looked == sorted(set(looked)) and player.records == len(times)
    run(player.advance(math.inf))
    assert player.ended and player.end == player.wall
    summary(player.fleet, player.now, player.wall)


# --- times as people write them ------------------------------------------------------------------

@pytest.fixture
def berlin(monkeypatch):
    """Local time with summer time: ahead on 29 March 2026 at 02:00, back on 25 October at 03:00."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def local(year, month, day, hour):
    return time.mktime((year, month, day, hour, 0, 0, 0, 0, -1))


def said(wall):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))


@pytest.mark.parametrize("text, means", [
    ("03:12", "2026-11-20 03:12:00"), ("3:12", "2026-11-20 03:12:00"), ("03:12:30", "2026-11-20 03:12:30"),
    ("22:30", "2026-11-19 22:30:00"), (" 14:00 ", "2026-11-20 14:00:00"), ("15:01", "2026-11-19 15:01:00"),
    ("2026-11-20 03:12", "2026-11-20 03:12:00"), ("2026-11-20T03:12:30", "2026-11-20 03:12:30"),
    ("2024-02-29 00:00", "2024-02-29 00:00:00"), ("+30s", "2026-11-20 03:00:30"), ("-5m", "2026-11-20 02:55:00"),
    ("+90", "2026-11-20 03:01:30"), ("-1.5h", "2026-11-20 01:30:00"), ("+1d", "2026-11-21 03:00:00"),
    ("-0s", "2026-11-20 03:00:00"),
])
def test_a_time_is_understood_as_people_write_it(berlin, text, means):
    assert said(parse_time(text, local(2026, 11, 20, 3))) == means


@pytest.mark.parametrize("text", [
    "", "x", "3", "24:00", "12:60", "12:00:60", "2026-02-29 12:00", "2026-13-01 12:00", "2026-11-00 12:00",
    "2026-11-20", "+", "-", "+x", "--5s", "+inf", "-nan", "50%", "\u0660\u0663:\u0661\u0662", "0" * 1000,
    "12:00\n12:00", "2026-11-20  T", "99999-01-01 00:00",
])
def test_what_is_no_time_is_refused_in_one_line_that_says_what_is_wanted(berlin, text):
    with pytest.raises(UsageError) as error:
        parse_time(text, local(2026, 11, 20, 3))
    assert str(error.value) == (f"time {text.strip()[:40]!r}: give it as 03:12, 03:12:30, 2026-11-20 03:12, or "
                                "+30s, -5m from where it stands")


def test_a_time_of_day_is_one_of_the_recording_where_that_has_it(berlin):
    begin, end = local(2026, 11, 19, 22), local(2026, 11, 20, 4)
    for now in (begin, end, local(2026, 11, 20, 0)):
        assert [said(parse_time(text, now, begin, end)) for text in ("03:12", "22:30", "00:00")] == [
            "2026-11-20 03:12:00", "2026-11-19 22:30:00", "2026-11-20 00:00:00"]
    assert said(parse_time("04:30", end, begin, end)) == "2026-11-20 04:30:00"     # none of it is: the nearest


def test_a_player_knows_its_days(berlin, play):
    begin = local(2026, 11, 19, 22)
    player = play([(begin + at, 7, Worker().tick(1)) for at in (0, 6 * 3600)])
    assert said(player.parse_time("21:00", player.wall)) == "2026-11-20 21:00:00"   # it may go on so long
    sought(player, math.inf)
    assert [said(player.parse_time(text, player.wall)) for text in ("03:12", "22:00", "-5m")] == [
        "2026-11-20 03:12:00", "2026-11-19 22:00:00", "2026-11-20 03:55:00"]


def test_an_hour_that_summer_time_leaves_out_is_one_beside_it(berlin):
    noon = local(2026, 3, 29, 12)
    for text in ("02:30", "2026-03-29 02:30"):
        assert said(parse_time(text, noon)) in ("2026-03-29 01:30:00", "2026-03-29 03:30:00")
    for text in ("02:30", "2026-10-25 02:30"):
        assert said(parse_time(text, local(2026, 10, 25, 12))) == "2026-10-25 02:30:00"
