"""Tables: rows in the order of what they show, cut to a page; sums read for them are those of the raw ticks."""
import functools
import random
from itertools import accumulate, chain, repeat
from operator import itemgetter

import pytest

from builders import NAMES, WALL, Worker, a_fleet, an_answer, capture, fold, replayed
from modwsgi_tel.state import tables, view
from modwsgi_tel.state.tables import BADNESS, PROCESS_SORTS, SLOW_SORTS, Ask
from modwsgi_tel.state.window import PEAKS, SUMS, Slot
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.fields import PHASES
from modwsgi_tel.web.statejson import slow_entry
from modwsgi_tel.wire.shapes import Shapes

NAN, INF = float("nan"), float("inf")


def everything(_):
    return True


# --- pages ------------------------------------------------------------------------------

def naive_page(found, ask):
    """Items as a reader would put them: ties in the order given, None last whichever way."""
    known = [entry for entry in found if entry[0] is not None]
    keys = sorted({key for key, _ in known}, reverse=ask.descending)
    items = [item for wanted in keys for key, item in known if key == wanted]
    items += [item for key, item in found if key is None]
    offset = min(ask.offset, max(0, len(items) - 1))
    return len(items), offset, items[offset:] if ask.limit is None else items[offset:offset + ask.limit]


@pytest.mark.parametrize("at_once", [1, 7, 1024])
@pytest.mark.parametrize("seed", range(6))
def test_a_page_is_what_sorting_all_of_it_gives_however_many_are_sorted_at_once(monkeypatch, seed, at_once):
    monkeypatch.setattr(tables, "SORTED_AT_ONCE", at_once)
    dice = random.Random(seed)
    for size in (0, 1, 2, 6, 7, 8, 60):
        found = [(dice.choice((None, 1, 2, 3, 4.5, -1)), number) for number in range(size)]
        for offset, limit in ((0, None), (0, 0), (0, 1), (5, 3), (6, 7), (7, 7), (59, 2), (60, 2), (10 ** 12, 5), (3, 10 ** 12)):
            for descending in (False, True):
                ask = Ask("x", descending, offset, limit)
                assert tuple(view.run(tables._page(list(found), ask))) == naive_page(found, ask)


def test_thousands_are_sorted_in_many_turns_and_without_a_limit_none_is_left_out():
    found = [(number * 7919 % 1000, number) for number in range(16384)]
    steps, turns = tables._page(found, Ask("x", False, 0, None)), 0
    while True:
        try:
            next(steps)
            turns += 1
        except StopIteration as end:
            page = end.value
            break
    assert turns >= 32 and page.matched == 16384
    assert page.items == [item for _, item in sorted(found, key=itemgetter(0))]


# --- processes ----------------------------------------------------------------------------

SHOWN = {                               # sort -> what the row of a process shows for it
    "pid": lambda row, window: row["pid"],
    "group": lambda row, window: (row["hostname"], row["process_group"]),
    "life": lambda row, window: BADNESS.index(row["life"]),
    "age": lambda row, window: -row["first_seen"],
    "throughput": lambda row, window: row["windows"][window]["throughput"],
    "busy": lambda row, window: row["windows"][window]["capacity"],
    "cpu": lambda row, window: row["windows"][window]["cpu"],
    "5xx": lambda row, window: row["windows"][window]["status"]["5xx"] if row["windows"][window]["ticks"] else None,
    "p95": lambda row, window: row["windows"][window]["phases"].get("request", {"p95": None})["p95"],
    "threads": lambda row, window: row["threads"]["active"],
    "rss": lambda row, window: row["rss"],
    "slow": lambda row, window: row["slow_active"],
    "lost": lambda row, window: row["lost"],
    "silent": lambda row, window: row["silent_s"]}


@functools.lru_cache(maxsize=None)      # only looked at
def a_motley_fleet(seed=1):
    """45 processes in all states, with equal values, missing fields and numbers out of the ordinary; it is 130 s."""
    dice, fleet = random.Random(seed), a_fleet()
    for pid in dice.sample(range(100, 999), 45):
        worker = Worker(pid, hostname=dice.choice(("web1", "web2")), group=dice.choice(("app", "api", "")))
        born, quiet = dice.choice((0, 40, 124)), dice.choice((False, False, True))
        if pid % 9 == 0:
            fold(fleet, worker.gc_snapshot(), now=float(born))          # no tick ever
            continue
        fold(fleet, worker.started(), now=float(born))
        more = dice.choice(({}, {}, {"memory_rss": None}, {"cpu_user_utilization": None},
                            {"capacity_utilization": None},
                            {"request_threads_active": None}))
        for at in range(born + 1, 90 if quiet and born < 90 else 130):
            requests = dice.choice((0, 1, 3))
            fold(fleet, worker.tick(requests, [dice.choice((0.01, 0.4, 3.0)) for _ in range(requests)],
                                    {"5xx": dice.choice((0, 1))} if requests else None,
                                    **{"memory_rss": dice.choice((1, 2)) << 25, "capacity_utilization": dice.random(),
                                       "cpu_user_utilization": dice.random(), "request_threads_active": dice.randrange(5),
                                       **more}), now=at + 0.5)
        worker.seq += dice.choice((0, 0, 4))
        for number in range(dice.choice((0, 0, 2))):
            fold(fleet, worker.slow(f"s{number}"), now=129.6)
        if dice.random() < 0.2:
            fold(fleet, worker.stopping(), now=129.7)
        elif dice.random() < 0.2:
            fold(fleet, worker.stopped(), now=129.7)
    fleet.expire(130.0, WALL + 130.0)
    return fleet


def sorted_ids(fleet, sort, window, descending, **more):
    ask = Ask(sort, descending, **more)
    return view.run(tables.process_page(fleet, everything, ask, window, 130.0)).items


@pytest.mark.parametrize("window", view.WINDOWS)
@pytest.mark.parametrize("sort", sorted(PROCESS_SORTS))
def test_processes_are_in_the_order_of_what_their_rows_show_and_what_is_not_told_comes_last(sort, window):
    fleet = a_motley_fleet()
    rows = [view.process_view(process, 130.0, WALL + 130.0) for process in fleet.processes()]
    found = [(SHOWN[sort](row, window), row["id"]) for row in rows]
    assert len({key for key, _ in found}) > 1, "nothing to sort by"
    for descending in (False, True):
        assert sorted_ids(fleet, sort, window, descending) == naive_page(found, Ask(sort, descending))[2]
        assert sorted_ids(fleet, sort, window, descending, offset=7, limit=5) == naive_page(
            found, Ask(sort, descending, 7, 5))[2]


def test_every_sort_of_processes_has_something_that_its_row_shows():
    assert set(SHOWN) == set(PROCESS_SORTS)


def test_processes_are_searched_by_what_names_them():
    fleet = a_fleet()
    for pid, group in ((7, "shop"), (17, "Api"), (70, "")):
        fold(fleet, Worker(pid, group=group).tick(1), now=1.0)

    def pids(search, **more):
        found = view.run(tables.process_page(fleet, everything, Ask(search=search, **more), "1m", 2.0)).items
        return [fleet.process(number).pid for number in found]

    assert (pids("7"), pids("API"), pids("embedded"), pids("web1 sh"), pids("running"), pids("no such")) == (
        [7, 17, 70], [17], [70], [7], [7, 17, 70], [])
    assert pids("7", lives=frozenset(("silent",))) == []


# --- workers ------------------------------------------------------------------------------

def workers(fleet, now, **ask):
    page = view.run(tables.worker_page(fleet, everything, Ask(**ask), now))
    return [tables.worker_row(fleet, number, now) for number in page.items]


def slots(**arrays):
    """Arrays of the slots by their short names."""
    return {f"request_threads_{name}": values for name, values in arrays.items()}


def test_the_slots_are_those_of_the_newest_tick():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(9, **slots(current_elapsed=[9.0] * 5)), now=1.0)
    fold(fleet, worker.tick(3, sample_period=2.0, **slots(
        completed=[2, 1, 0, 0, 0], busy_time=[1.0, 0.5, 0.0, 0.0, 0.0], cpu_time=[0.5, 0.0, 0.0, 0.0, 0.0],
        current_elapsed=[0.0, 4.5, 0.0, 0.0, 0.0], max_duration=[0.75, 0.25, 0.0, 0.0, 0.0])), now=3.0)
    [row] = workers(fleet, 3.5)
    idle = {"elapsed": 0.0, "busy": 0.0, "cpu": 0.0, "completed": 0, "longest": 0.0}
    assert row == {
        "id": fleet.processes()[0].id, "pid": 7, "hostname": "web1", "process_group": "app", "role": "daemon", "life": "running",
        "silent_s": None, "age_s": 0.5, "threads": {"maximum": 5, "started": 5,
                                                    "active": 1}, "period": 2.0, "requests": [],
        "slots": [{"elapsed": 0.0, "busy": 0.5, "cpu": 0.25, "completed": 2, "longest": 0.75},
                  {"elapsed": 4.5, "busy": 0.25, "cpu": 0.0, "completed": 1, "longest": 0.25}, idle, idle, idle]}


def test_slow_requests_are_joined_to_their_slot_by_the_thread():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.slow("a", thread=3, slow_duration=2.5, slow_script_name="/app"),
         worker.slow("b", thread=0), worker.slow("c", done=True), now=1.0)
    [row] = workers(fleet, 2.0)
    process, = fleet.processes()
    assert row["requests"] == [
        {"id": 1, "slot": 2, "age_s": 3.5, "method": "GET", "path": "/app/slow", "process": process.id, "pid": 7,
         "server_pid": 900},
        {"id": 2, "slot": None, "age_s": 4.0, "method": "GET", "path": "/slow", "process": process.id, "pid": 7,
         "server_pid": 900}]


@pytest.mark.parametrize("duration, age", [(NAN, None), (INF, None), (-1.0, 0.0), (1e300, None)])
def test_the_age_of_a_request_is_the_same_in_its_slot_and_in_its_row(duration, age):
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1), worker.slow("a", slow_duration=duration), now=1.0)
    [key] = fleet.slow.keys()
    for now in (2.0, 9.0):              # the second one: stale
        fold(fleet, worker.tick(1), now=now - 0.5)
        [[request]] = [row["requests"] for row in workers(fleet, now)]
        assert request["age_s"] == slow_entry(fleet.slow.freeze(key, now), now)["entry"]["age_s"]
        assert now == 9.0 or request["age_s"] == age


def test_processes_that_ended_have_no_slots_and_the_longest_running_request_comes_first():
    fleet = a_fleet()
    for pid, elapsed in ((7, 1.0), (8, 30.0), (9, 5.0), (10, 99.0)):
        fold(fleet, Worker(pid).tick(1, **slots(current_elapsed=[0.0, elapsed])), now=1.0)
    fold(fleet, Worker(10, seq=1).stopped(), now=1.5)
    fold(fleet, Worker(11).gc_snapshot(), now=1.5)
    assert [row["pid"] for row in workers(fleet, 2.0)] == [8, 9, 7]
    assert [row["pid"] for row in workers(fleet, 2.0, offset=1, limit=1)] == [9]


def test_a_silent_process_with_a_request_inside_grows_older_and_moves_up():
    fleet, stuck, busy = a_fleet(), Worker(7), Worker(8)
    fold(fleet, stuck.tick(1, **slots(current_elapsed=[2.0])), now=1.0)
    for now in range(1, 60):
        fold(fleet, busy.tick(1, **slots(current_elapsed=[20.0])), now=float(now))
        fleet.expire(float(now), WALL + now)
    rows = workers(fleet, 60.0)
    assert [(row["pid"], row["life"], row["silent_s"], row["age_s"]) for row in rows] == [
        (7, "silent", 59.0, 59.0), (8, "running", None, 1.0)]


@pytest.mark.parametrize("name", NAMES)
def test_the_slots_of_a_capture_are_the_arrays_of_the_newest_ticks(name):
    fleet, newest, records = a_fleet(), {}, capture(name)
    for wall, pid, datagram in records[:len(records) * 2 // 3]:
        now = wall - records[0][0]
        fold(fleet, datagram, now=now)
        if datagram[5] == 2:
            newest[pid] = decode(datagram).fields
    rows = workers(fleet, now)
    assert {row["pid"] for row in rows} == {process.pid for process in fleet.processes()
                                            if process.pid in newest and not process.ended} != set()
    for row in rows:
        fields = newest[row["pid"]]
        for short, field in (("elapsed", "current_elapsed"), ("completed", "completed"), ("longest", "max_duration")):
            assert [slot[short] for slot in row["slots"]] == fields.get("request_threads_" + field, [])
        assert [slot["busy"] * row["period"] for slot in row["slots"]] == pytest.approx(fields["request_threads_busy_time"])


def test_prefork_has_one_slot_of_nothing_and_wide_servers_have_all_of_theirs():
    fleet = fold(a_fleet(), next(datagram for _, _, datagram in capture("embedded_prefork") if datagram[5] == 2),
                 now=1.0)
    [row] = workers(fleet, 1.0)
    assert row["slots"] == [{"elapsed": 0.0, "busy": 0.0, "cpu": 0.0, "completed": 0, "longest": 0.0}]
    fleet = fold(a_fleet(), Worker().tick(1, **slots(**{name: [1.0] * 128 for name in (
        "busy_time", "cpu_time", "current_elapsed", "max_duration")}, completed=[1] * 128)), now=1.0)
    assert workers(fleet, 1.0)[0]["slots"] == [{"elapsed": 1.0, "busy": 1.0, "cpu": 1.0, "completed": 1,
                                                "longest": 1.0}] * 128


def test_arrays_of_different_lengths_and_numbers_that_json_has_not_are_null():
    fleet = fold(a_fleet(), Worker().tick(1, **slots(completed=[1], busy_time=[NAN, INF, 0.5], cpu_time=[],
                                                      current_elapsed=[NAN, -INF], max_duration=None)), now=1.0)
    [row] = workers(fleet, 1.0)
    assert row["slots"] == [
        {"elapsed": None, "busy": None, "cpu": None, "completed": 1, "longest": None},
        {"elapsed": None, "busy": None, "cpu": None, "completed": None, "longest": None},
        {"elapsed": None, "busy": 0.5, "cpu": None, "completed": None, "longest": None}]
    fleet = fold(a_fleet(), Worker().tick(1, sample_period=0.0), now=1.0)
    assert {slot["busy"] for slot in workers(fleet, 1.0)[0]["slots"]} == {None}


def test_a_process_that_ends_or_goes_while_the_page_is_written_has_no_row():
    fleet = a_fleet(processes=2)
    for pid in (7, 8):
        fold(fleet, Worker(pid).tick(1), Worker(pid, seq=1).gc_snapshot(), now=1.0)
    numbers = view.run(tables.worker_page(fleet, everything, Ask(), 1.0)).items
    collectors = view.run(tables.gc_page(fleet, everything, Ask(), "1m", 1.0)).items
    fold(fleet, Worker(8, seq=2).stopped(), Worker(9).started(), now=2.0)           # one ends, one is evicted
    assert [tables.worker_row(fleet, number, 2.0) for number in numbers] == [None, None]
    assert [tables.gc_row(fleet, *item, "1m", 2.0) for item in collectors] == [None, None]


# --- slow requests ------------------------------------------------------------------------

def slow_fleet():
    """Requests in all lives; it is 30 s."""
    fleet, first, second = a_fleet(), Worker(7), Worker(8)
    fold(fleet, first.tick(1), first.slow("done", done=True, slow_duration=4.0, slow_status=500, slow_method="POST"),
         now=1.0)
    fold(fleet, second.tick(1), second.slow("lost", slow_duration=2.0), second.stopped(), now=2.0)
    fold(fleet, first.slow("stale", slow_duration=6.0, slow_path_info="/b"), now=10.0)
    fold(fleet, first.slow("late", done=True, slow_duration=1.0, slow_path_info="/a"), now=20.0)
    fold(fleet, first.tick(1), first.slow("old", slow_duration=25.0, slow_start_stamp=WALL + 4),
         first.slow("new", slow_duration=3.0, slow_start_stamp=NAN, slow_method=None), now=29.0)
    return fleet


def log_ids(fleet, now=30.0, **ask):
    page = view.run(tables.slow_page(fleet, everything, Ask(**ask), now))
    return [decode(fleet.slow.freeze(key, now).datagram).fields["slow_log_id"] for key in page.items]


@pytest.mark.parametrize("sort, ascending, descending", [
    ("", "done lost stale late old new", "done lost stale late old new"),
    ("state", "old new stale lost late done", "done late lost stale new old"),
    ("age", "late lost done new stale old", "old stale done new lost late"),
    ("process", "done stale late old new lost", "lost done stale late old new"),
    ("method", "lost stale late old done new", "done lost stale late old new"),
    ("status", "late done lost stale old new", "done late lost stale old new"),
    ("url", "late stale done lost old new", "done lost old new stale late"),
    ("start", "done lost stale late old new", "old done lost stale late new")])
def test_slow_requests_are_sorted_with_equal_ones_in_the_order_they_came(sort, ascending, descending):
    fleet = slow_fleet()
    assert " ".join(log_ids(fleet, sort=sort)) == ascending
    assert " ".join(log_ids(fleet, sort=sort, descending=True)) == descending


@pytest.mark.parametrize("lives", [None, ("active",), ("stale", "lost"), ("completed",), ("lost", "completed")])
def test_a_page_by_state_is_that_of_the_whole_table_whether_or_not_it_is_made_of_what_is_kept_in_that_order(lives):
    fleet = slow_fleet()
    for limit in range(8):
        for offset in range(8):
            ask = Ask("state", offset=offset, limit=limit, lives=lives and frozenset(lives))
            assert view.run(tables.slow_page(fleet, None, ask, 30.0)) == view.run(tables.slow_page(fleet, everything, ask, 30.0))


def test_every_sort_of_slow_requests_is_tested():
    marks = test_slow_requests_are_sorted_with_equal_ones_in_the_order_they_came.pytestmark
    assert {row[0] for row in marks[0].args[1]} - {""} == set(SLOW_SORTS)


def test_slow_requests_are_searched_in_all_that_a_row_shows():
    fleet = slow_fleet()
    assert [log_ids(fleet, search=word) for word in ("POST", "example/b", "500", "192.0.2.1", "STALE", "nothing")] == [
        ["done"], ["stale"], ["done"], ["done", "lost", "stale", "late", "old", "new"], ["stale"], []]
    assert log_ids(fleet, lives=frozenset(("lost", "active"))) == ["lost", "old", "new"]


# --- garbage collection -------------------------------------------------------------------

def test_collectors_are_rows_with_their_newest_snapshot_those_of_long_pauses_first():
    fleet, calm, busy = a_fleet(), Worker(7), Worker(8)
    fold(fleet, calm.tick(1), calm.gc_snapshot(), calm.gc_event(duration=0.25), now=1.0)
    fold(fleet, busy.tick(1), busy.gc_snapshot("sub", gc_dropped_events=3, gc_is_enabled=0, gc_freeze_count=4,
                                               **{f"gc_threshold{n}": 700 - n for n in range(3)}),
         busy.gc_event("sub", 0.5), busy.gc_event("sub",
                                                  0.25), busy.gc_snapshot("\x9f".encode("latin-1").decode("latin-1")),
         now=1.0)
    page = view.run(tables.gc_page(fleet, everything, Ask(), "1m", 1.0))
    rows = [tables.gc_row(fleet, *item, "1m", 1.0) for item in page.items]
    assert [(row["pid"], row["interpreter"]) for row in rows] == [(8, "sub"), (8, "\x9f"), (7, "")]
    assert rows[0] == {
        "process": fleet.processes()[1].id, "pid": 8, "hostname": "web1", "process_group": "app",
        "role": "daemon", "life": "running",
        "interpreter": "sub", "enabled": False, "frozen": 4, "dropped_events": 3, "count": None, "threshold": [700, 699, 698],
        "collections": [10, 9, 8], "collected": None, "uncollectable": None,
        "window": {"pauses": 2, "seconds": 0.75, "max": 0.5, "share": 0.75}}
    assert rows[2]["window"] == {"pauses": 1, "seconds": 0.25, "max": 0.25, "share": 0.25}


def test_collections_of_one_interpreter_are_the_newest_and_the_others_are_counted(monkeypatch):
    monkeypatch.setattr(tables, "EVENTS_MOST", 3)
    fleet, worker = a_fleet(), Worker()
    for now in range(8):
        fold(fleet, worker.gc_snapshot("x"), worker.gc_event("x", duration=now + 0.5), worker.gc_event("y"),
             now=float(now))
    [process] = fleet.processes()

    def found(since, name=b"x"):
        events, earlier = view.run(tables.gc_events(fleet.shapes, process, name, since))
        return [event["duration"] for event in events], earlier

    assert found(-1e18) == ([5.5, 6.5, 7.5], 5)
    assert found(WALL + 5.0) == ([6.5, 7.5], 0)                      # what was received later than that
    assert found(WALL + 4.9) == ([5.5, 6.5, 7.5], 0)
    assert (found(WALL + 7.0), found(-1e18, b"z"), found(-1e18, None)) == (([], 0),) * 3


# --- sums ---------------------------------------------------------------------------------

def ticks_of(names=NAMES):
    return [datagram for name in names for _, _, datagram in capture(name) if datagram[5] == 2]


def test_merging_all_at_once_is_merging_one_after_another():
    shapes, dice = Shapes(), random.Random(5)
    slots_ = []
    for datagram in ticks_of():
        shape, number = shapes.check(datagram)
        if not slots_ or dice.random() < 0.3:
            slots_.append(Slot(0))
        slots_[-1].tick(shape, datagram, None if dice.random() < 0.1 else number)
    for size in (0, 1, 2, 32):
        for _ in range(10):
            part = dice.sample(slots_, size)
            one, all_ = Slot(0), Slot(0)
            for held in (one, all_):
                held.merge(slots_[0])
            for slot in part:
                one.merge(slot)
            all_.merge_all(part)
            assert (all_.sums, all_.peaks, all_.histograms.counts()) == (
                pytest.approx(one.sums), one.peaks, one.histograms.counts())


def raw_sums(ticks):
    """Sums and peaks of decoded ticks, by the names in SUMS and PEAKS."""
    sums, peaks, row = dict.fromkeys(SUMS, 0), dict.fromkeys(PEAKS, 0.0), [0] * 65
    for fields in ticks:
        count, period = fields["request_count"], fields["sample_period"]
        sums["ticks"] += 1
        sums["period"] += period
        sums["requests"] += count
        for name in ("capacity", "cpu_user", "cpu_system"):
            sums[name + "_x_period"] += fields[name + "_utilization"] * period
        for phase in PHASES if count else ():
            sums[phase + "_x_requests"] += fields.get(phase + "_time", 0.0) * count
            peaks[phase + "_time_max"] = max(peaks[phase + "_time_max"], fields.get(phase + "_time_max", 0.0))
        for name in ("input_bytes", "input_reads", "output_bytes", "output_writes",
                     *(f"status_{n}xx" for n in range(1, 6))):
            sums[name] += fields.get(name + "_total", 0) if count else 0
        if count:
            row = [a + b for a, b in zip(row, fields["request_time_buckets"])]
    return sums, peaks, row


@pytest.mark.parametrize("name", ["daemon_mixed", "lifecycle", "embedded_prefork"])
def test_a_window_of_a_process_holds_the_raw_ticks_of_its_stretch_of_time_at_every_moment(name):
    records, fleet, ticks = capture(name), a_fleet(), {}
    began, dice = records[0][0], random.Random(3)
    for wall, pid, datagram in records:
        now = wall - began
        fold(fleet, datagram, now=now)
        if datagram[5] == 2:
            ticks.setdefault(pid, []).append((now, decode(datagram).fields))
        if dice.random() > 0.02:
            continue
        if dice.random() < 0.5:
            fleet.expire(now, wall)
        for process in fleet.processes():
            held = ticks.get(process.pid, [])
            for window, wanted in (("1m", [fields for at, fields in held if int(at // 5) > int((now - 60) // 5)]),
                                   ("10m", [fields for at, fields in held if int(at // 60) > int((now - 600) // 60)])):
                total, (sums, peaks, row) = process.windows.read(now, window), raw_sums(wanted)
                found = dict(zip(SUMS, total.sums))
                assert {key: found[key] for key in SUMS if not key.startswith(("gc_", "slow_"))} == {
                    key: pytest.approx(value) for key, value in sums.items() if not key.startswith(("gc_", "slow_"))}
                assert dict(zip(PEAKS, total.peaks)) == {**peaks, "gc_pause_max": total.peaks[-1]}
                assert list(total.requests or [0] * 65) == row
                assert list(process.windows.sums(now, window)) == list(total.sums)


@pytest.mark.parametrize("name", NAMES)
def test_time_that_passes_closes_slots_but_counts_nothing_twice(name):
    """The same capture, once with a look each second, until long after its end: counters, windows and losses agree."""
    plain, looked = replayed(name), a_fleet()
    began, second = capture(name)[0][0], 0
    for wall, _, datagram in capture(name):
        while wall - began > second + 1:
            second += 1
            looked.expire(float(second), began + second)
        fold(looked, datagram, now=wall - began)
    now = wall - began
    for more in chain((0.0,), accumulate(repeat(7.0, 8))):
        if more:
            looked.expire(now + more, wall + more)
        was, found = (view.summary(fleet, now + more, wall + more)["totals"] for fleet in (plain, looked))
        assert found["counters"] == pytest.approx(was["counters"]) and found["lost"] == was["lost"]
        for key in ("ticks", "requests", "status", "slow_completed", "input_bytes"):
            assert found["windows"]["10m"][key] == was["windows"]["10m"][key]
            assert found["windows"]["1m"][key] == was["windows"]["1m"][key]


def test_a_process_that_falls_silent_and_speaks_again_is_counted_once():
    fleet, worker = a_fleet(), Worker()
    for now in (1.0, 2.0, 30.0, 31.0):
        while fleet._now < now - 1:
            fleet.expire(fleet._now + 1, WALL)
            fleet.answer(7, an_answer(), fleet._now, WALL)
        fold(fleet, worker.tick(2), worker.gc_event(), now=now)
    for now in (32.0, 36.0, 41.0, 62.0):
        fleet.expire(now, WALL + now)
        totals = view.summary(fleet, now, WALL + now)["totals"]
        assert (totals["counters"]["requests"], totals["counters"]["gc_pauses"], totals["windows"]["10m"]["requests"],
                totals["windows"]["10m"]["gc"]["pauses"]) == (8, 4, 8, 4)
