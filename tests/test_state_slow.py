"""Slow requests: every record of one request joined, whatever the order, and bounded."""
import pytest

from builders import WALL, Worker, a_fleet, a_sender, an_answer, datagrams, fold, replayed
from modwsgi_tel.state import view
from modwsgi_tel.wire.codec import decode


def lives(fleet, now=10.0):
    """{log id: life}."""
    return {decode(slow.datagram).fields.get("slow_log_id", ""): slow.life
            for slow in (fleet.slow.freeze(key, now) for key in fleet.slow.keys())}


def only(fleet, now=10.0):
    [key] = fleet.slow.keys()
    return fleet.slow.freeze(key, now)


def a_worker(fleet, **options):
    worker = Worker(**options)
    fold(fleet, worker.started(), worker.tick(1))
    return worker


def completed(fleet):
    return view.summary(fleet, 10.0, WALL)["totals"]["counters"]["slow_completed"]


# --- one request -----------------------------------------------------------------------

def test_records_of_one_request_are_one_request():
    fleet = a_fleet()
    worker = a_worker(fleet)
    for now in (1.0, 2.0, 3.0):
        fold(fleet, worker.slow("a", slow_duration=now), now=now)
    slow = only(fleet, 3.5)
    assert (slow.life, slow.first_wall, slow.last_wall, slow.ended_wall, slow.unheard_s) == (
        "active", WALL + 1.0, WALL + 3.0, None, 0.5)
    assert decode(slow.datagram).fields["slow_duration"] == 3.0
    fold(fleet, worker.slow("a", done=True, slow_duration=4.0), now=4.0)
    slow = only(fleet)
    assert (slow.life, slow.ended_wall, decode(slow.datagram).fields["slow_duration"]) == ("completed", WALL + 4.0, 4.0)
    assert completed(fleet) == 1


def test_one_that_was_never_seen_active_completes_too():
    fleet = a_fleet()
    fold(fleet, a_worker(fleet).slow("a", done=True))
    assert (lives(fleet), completed(fleet)) == ({"a": "completed"}, 1)


def test_an_active_record_that_comes_after_the_completed_one_changes_nothing():
    fleet = a_fleet()
    worker = a_worker(fleet)
    fold(fleet, worker.slow("a", done=True, slow_duration=9.0), now=4.0)
    before = only(fleet)
    fold(fleet, worker.slow("a", slow_duration=8.0), now=5.0)
    assert only(fleet) == before._replace(unheard_s=6.0) and len(next(iter(fleet.processes())).slow_active) == 0


def test_a_completed_record_that_comes_twice_counts_once():
    fleet = a_fleet()
    worker = a_worker(fleet)
    fold(fleet, worker.slow("a", done=True), worker.slow("a", done=True))
    assert (lives(fleet), completed(fleet)) == ({"a": "completed"}, 1)


def test_the_same_log_id_in_two_processes_is_two_requests():
    fleet = a_fleet()
    for pid in (7, 8):
        fold(fleet, a_worker(fleet, pid=pid).slow("a"))
    fold(fleet, Worker(pid=7).tick(1), sender=a_sender(100))
    fold(fleet, Worker(pid=7, seq=1).slow("a"), sender=a_sender(100))
    assert len(fleet.slow) == 3


@pytest.mark.parametrize("log_id", ["", None])
def test_without_a_log_id_thread_and_start_tell(log_id):
    fleet = a_fleet()
    worker = a_worker(fleet)
    fold(fleet, worker.slow(log_id, thread=1, start=5.0), worker.slow(log_id, thread=2, start=5.0),
         worker.slow(log_id, thread=1, start=6.0), worker.slow(log_id, thread=1, start=5.0, done=True))
    assert sorted(fleet.slow.freeze(key, 1.0).life for key in fleet.slow.keys()) == ["active", "active", "completed"]


def test_a_log_id_of_any_bytes_is_a_log_id():
    fleet = a_fleet()
    worker = a_worker(fleet)
    fold(fleet, worker.slow(b"\xff\x00"), worker.slow(b"\xfe\x00"), worker.slow(b"\xff\x00", done=True))
    assert len(fleet.slow) == 2


@pytest.mark.parametrize("fields", [dict(slow_record_state=2**64 - 1), dict(slow_duration=float("nan")),
                                    dict(slow_start_stamp=float("nan")), dict(slow_thread_id=2**64 - 1)])
def test_strange_numbers_are_kept(fields):
    fleet = a_fleet()
    worker = a_worker(fleet)
    fold(fleet, worker.slow(None, **{"start": 1.0, **{}} if "slow_start_stamp" not in fields else {}, **fields))
    assert len(fleet.slow) == 1


# --- its process -------------------------------------------------------------------------

def test_one_is_lost_with_its_process_and_what_completed_is_not():
    fleet = a_fleet()
    worker = a_worker(fleet)
    fold(fleet, worker.slow("a"), worker.slow("b", done=True), worker.stopped(), now=2.0)
    assert (lives(fleet), fleet.slow_lost, only_group(fleet).slow_lost) == ({"a": "lost", "b": "completed"}, 1, 1)


def only_group(fleet):
    [group] = fleet.groups.values()
    return group


def test_one_in_the_last_tick_after_stopped_is_lost():
    fleet = a_fleet()
    worker = a_worker(fleet)
    fold(fleet, worker.slow("a"), worker.stopped(), worker.tick(1), worker.slow("a"), worker.slow("b"), now=2.0)
    assert (lives(fleet), fleet.slow_lost) == ({"a": "lost", "b": "lost"}, 2)
    fold(fleet, worker.slow("b", done=True), now=2.0)
    assert lives(fleet) == {"a": "lost", "b": "completed"}


def test_one_that_was_believed_lost_is_active_when_its_process_lives_on():
    fleet = a_fleet()
    worker = a_worker(fleet)
    fold(fleet, worker.slow("a"), now=1.0)
    for now in (2.0, 9.0):
        fleet.expire(now, WALL)
        for pid in fleet.questions(now):
            fleet.answer(pid, an_answer(alive=now < 5), now, WALL)
    assert lives(fleet) == {"a": "lost"}
    fold(fleet, worker.tick(1), worker.slow("a"), now=10.0)
    assert lives(fleet) == {"a": "active"} and list(next(iter(fleet.processes())).slow_active) == fleet.slow.keys()


def test_one_without_a_new_record_is_stale_after_five_seconds_or_three_intervals():
    fleet = a_fleet()
    fast, slow = a_worker(fleet, pid=7), a_worker(fleet, pid=8, interval=4.0)
    fold(fleet, fast.slow("fast"), slow.slow("slow"), now=1.0)
    for now in range(1, 20):                        # both go on ticking
        fold(fleet, fast.tick(0), slow.tick(0), now=float(now))
    assert lives(fleet, 6.0) == {"fast": "active", "slow": "active"}
    assert lives(fleet, 6.1) == {"fast": "stale", "slow": "active"}
    assert lives(fleet, 13.1) == {"fast": "stale", "slow": "stale"}


def test_one_in_a_silent_process_still_runs_for_all_we_know():
    fleet = a_fleet()
    worker = a_worker(fleet)
    fold(fleet, worker.slow("a"), now=1.0)
    fleet.expire(2.0, WALL)
    fleet.answer(7, an_answer(), 2.0, WALL)
    for now in range(10, 5000, 100):
        fleet.expire(float(now), WALL + now)
    assert lives(fleet, 5000.0) == {"a": "active"}


def test_one_that_came_before_its_process_is_joined_with_it():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.slow("a"), now=1.0)
    assert only(fleet).process_id is None
    fold(fleet, worker.tick(1), worker.slow("a"), now=1.0)
    [process] = fleet.processes()
    assert (only(fleet).process_id, only(fleet).group) == (process.id, ("web1", "app"))
    fold(fleet, worker.stopped(), now=2.0)
    assert lives(fleet) == {"a": "lost"}


# --- bounds ------------------------------------------------------------------------------

def test_what_has_ended_is_kept_for_its_time():
    fleet = a_fleet(slow_s=100.0)
    worker = a_worker(fleet)
    fold(fleet, worker.slow("a", done=True), now=1.0)
    fold(fleet, worker.slow("b", done=True), now=50.0)
    fleet.slow.expire(101.0)
    assert set(lives(fleet)) == {"a", "b"}
    fleet.slow.expire(101.5)
    assert (set(lives(fleet)), fleet.slow.forgotten) == ({"b"}, 1)
    fleet.slow.expire(151.0)
    assert (len(fleet.slow), fleet.slow.forgotten) == (0, 2)


def test_an_active_one_without_a_word_is_forgotten_in_time_unless_its_process_is_silent():
    fleet = a_fleet(slow_s=100.0)
    worker, silent = a_worker(fleet, pid=7), a_worker(fleet, pid=8)
    fold(fleet, worker.slow("a"), silent.slow("b"), Worker(pid=9).slow("c"), now=1.0)
    for now in range(2, 103):
        fold(fleet, worker.tick(0), now=float(now))
        fleet.expire(float(now), WALL)
    assert set(lives(fleet)) == {"b"}


def test_past_the_limit_the_process_that_holds_most_gives_up_its_oldest_ended_one():
    fleet = a_fleet(slow=10)
    few, many = a_worker(fleet, pid=7), a_worker(fleet, pid=8)
    fold(fleet, few.slow("mine", done=True))
    for number in range(30):
        fold(fleet, many.slow(f"m{number}", done=number != 0))
    assert (len(fleet.slow), fleet.slow.evicted) == (10, 21)
    assert set(lives(fleet)) == {"mine", "m0", *(f"m{number}" for number in range(22, 30))}
    assert list(next(process for process in fleet.processes() if process.pid == 8).slow_active) == [
        key for key in fleet.slow.keys() if key.endswith(b"m0")]


def test_clearing_keeps_what_still_runs():
    fleet = a_fleet()
    worker, gone, stale = a_worker(fleet, pid=7), a_worker(fleet, pid=8), a_worker(fleet, pid=9)
    fold(fleet, stale.slow("stale"), now=1.0)
    fold(fleet, worker.slow("runs"), worker.slow("done", done=True), gone.slow("lost"), gone.stopped(), now=9.0)
    assert lives(fleet, 10.0) == {"stale": "stale", "runs": "active", "done": "completed", "lost": "lost"}
    assert fleet.slow.clear(10.0) == 3
    assert lives(fleet, 10.0) == {"runs": "active"}
    fold(fleet, worker.slow("runs", done=True), now=11.0)
    assert lives(fleet, 11.0) == {"runs": "completed"} and fleet.slow.clear(11.0) == 1
    fleet.slow.expire(1e9)
    assert len(fleet.slow) == 0


def test_nothing_of_a_request_stays_behind():
    fleet = a_fleet(slow=50, slow_s=10.0, processes=3)
    for number in range(400):
        worker = Worker(pid=number % 7, seq=1000 * number)
        fold(fleet, worker.tick(1), worker.slow(f"{number}"), now=float(number))
        if number % 3 == 0:
            fold(fleet, worker.slow(f"{number}", done=True), now=float(number))
        if number % 5 == 0:
            fleet.expire(float(number), WALL)
        table = fleet.slow
        lists = [table._running, *table._ended.values()]
        assert sorted(key for each in lists for key in each) == sorted(table.keys()) == sorted(table._numbers.values())     # each in one of them
        assert all(table._requests.get(key).life == life for life, keys in table._ended.items() for key in keys)
        for process in fleet.processes():
            assert all(table._requests.get(key) is request for key, request in process.slow_active.items())
    fleet.expire(1e6, WALL)
    assert [len(fleet.slow), len(fleet.slow._running), *map(len, fleet.slow._ended.values()), len(fleet.slow._numbers)] == [0, 0, 0, 0, 0]


# --- captures ------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["daemon_mixed", "gunk", "lifecycle", "subinterp", "gc_storm"])
def test_the_requests_of_a_capture_are_joined_as_sent(name):
    fleet, truth = replayed(name), {}
    stopped = set()
    for datagram in datagrams(name):
        sample = decode(datagram)
        if sample.kind == 7:
            stopped.add(sample.pid)
        if sample.kind == 4:
            key = (sample.pid, sample.fields["slow_log_id"])
            truth[key] = max(truth.get(key, 0), sample.fields["slow_record_state"])
    found = {}
    for key in fleet.slow.keys():
        slow = fleet.slow.freeze(key, 0.0)
        found[(slow.pid, decode(slow.datagram).fields["slow_log_id"])] = slow.life
    assert found == {key: "completed" if state else "lost" if key[0] in stopped else "active" for key, state in truth.items()}
