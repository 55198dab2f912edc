"""What one sender can make the state hold in bytes, and lives that its datagrams contradict."""
from builders import Worker, a_fleet, a_sender, fold
from modwsgi_tel.state.fleet import Answer
from modwsgi_tel.state.process import NEWEST_BYTES, SNAPSHOT_BYTES, TEXT_LENGTH
from modwsgi_tel.wire.codec import encode, named
from modwsgi_tel.wire.fields import F64S, GC_SNAPSHOT, REQUEST_METRICS, SLOW_REQUEST, TEXT


def slow(seq, size):
    return encode(SLOW_REQUEST, 7, seq, 0.0, named(slow_record_state=1, slow_start_stamp=0.0, slow_thread_id=1,
                                                   slow_log_id=f"id{seq}") + [(214, TEXT, b"/" * size)])


def test_slow_requests_are_bounded_in_bytes_too():
    fleet = a_fleet(slow_bytes=100_000)
    fold(fleet, Worker(pid=7).tick(), now=1.0)
    for number in range(2, 52):
        fleet.apply(slow(number, 10_000), a_sender(), 1.0, 1.0)
    assert (len(fleet.slow), fleet.slow.evicted) == (9, 41)
    assert fleet.slow.bytes == sum(len(fleet.slow.freeze(key, 1.0).datagram) for key in fleet.slow.keys()) <= 100_000
    assert fleet.slow.clear(1.0) == 9 and fleet.slow.bytes == 0


def test_a_slow_request_that_grows_past_the_bound_makes_others_go():
    fleet = a_fleet(slow_bytes=30_000)
    fold(fleet, Worker(pid=7).tick(), now=1.0)
    for number, size in ((2, 1000), (3, 1000), (4, 29_500)):
        fleet.apply(slow(number, size), a_sender(), 1.0, 1.0)
    assert [fleet.slow.freeze(key, 1.0).datagram for key in fleet.slow.keys()] == [slow(4, 29_500)]


def test_a_request_that_has_ended_keeps_no_process_in_memory():
    fleet = a_fleet(ended_s=5.0)
    worker = Worker(pid=7)
    fold(fleet, worker.started(), worker.tick(), now=1.0)
    fleet.apply(slow(3, 10), a_sender(), 1.0, 1.0)
    (key,) = fleet.slow.keys()
    process_id = fleet.processes()[0].id
    assert fleet.slow._requests.get(key).process is None
    assert fleet.slow.freeze(key, 1.0).process_id == process_id


def test_newest_datagrams_larger_than_any_sender_has_are_not_kept_apart():
    fleet = a_fleet()
    big = [(111, F64S, [0.5] * (NEWEST_BYTES // 8 + 1))]
    fleet.apply(encode(REQUEST_METRICS, 7, 1, 0.0, big), a_sender(), 1.0, 1.0)
    fleet.apply(encode(GC_SNAPSHOT, 7, 2, 0.0, [(8, TEXT, b"x"), (60000, TEXT, b"y" * SNAPSHOT_BYTES)]), a_sender(), 1.0, 1.0)
    (process,) = fleet.processes()
    assert (process.ticks, process.tick, process.interpreters[b"x"].snapshot) == (1, None, None)
    worker = Worker(pid=7, seq=2)
    fold(fleet, worker.tick(), now=2.0)
    assert process.tick is not None


def test_a_process_that_goes_on_after_it_stopped_is_another_one_under_its_pid():
    fleet, worker = a_fleet(), Worker(pid=7)
    fold(fleet, worker.started(), worker.tick(), worker.stopped(), worker.tick(), worker.tick(), now=1.0)
    (process,) = fleet.processes()
    assert (process.life, process.restarts) == ("stopped", 0)
    fold(fleet, worker.tick(), now=2.0)
    assert (process.life, process.restarts, process.stopped) == ("running", 1, None)
    assert [event["kind"] for event in fleet.events] == ["process_started", "process_stopped", "process_restarted"]


def test_a_sender_that_was_gone_before_anyone_could_ask_has_vanished():
    fleet, worker = a_fleet(), Worker(pid=7)
    fold(fleet, worker.started(), worker.tick(), now=1.0)
    fleet.expire(10.0, 10.0)
    fleet.answer(7, Answer(True, 12345, (7,), 2.0), 10.0, 10.0)       # pid 7 is now a process of two seconds
    (process,) = fleet.processes()
    assert (process.life, process.trust.start) == ("vanished", None)


def test_a_group_without_processes_still_shows_its_phases():
    from modwsgi_tel.state import view
    fleet, worker = a_fleet(ended_s=5.0, silent_s=5.0), Worker(pid=7)
    fold(fleet, worker.started(), worker.tick(durations=[0.1]), now=1.0)
    fleet.expire(20.0, 20.0)
    (group,) = view.summary(fleet, 20.0, 20.0)["groups"]
    assert fleet.processes() == [] and group["windows"]["1m"]["requests"] == 1
    assert group["windows"]["1m"]["phases"]["request"]["max"] == 0.1


def test_names_that_are_kept_are_bounded():
    fleet, worker = a_fleet(), Worker(pid=7, hostname="h" * 9000, group="g" * 9000)
    fold(fleet, worker.started(), worker.tick(), worker.tick(), worker.stopped(reason="r" * 9000), now=1.0)
    (process,) = fleet.processes()
    assert (process.texts["hostname"], process.texts["process_group"], process.group) == (
        "h" * TEXT_LENGTH, "g" * TEXT_LENGTH, ("h" * TEXT_LENGTH, "g" * TEXT_LENGTH))
    assert (process.ticks, len(process.identity), process.stopped["reason"]) == (2, 0, "r" * TEXT_LENGTH)
    for event in fleet.events:
        assert max(len(value) for value in event.values() if isinstance(value, str)) <= TEXT_LENGTH
    (group,) = fleet.groups.values()
    assert list(group.reasons) == ["r" * TEXT_LENGTH]
