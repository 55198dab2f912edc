"""Lives of processes as their datagrams and /proc tell them."""
import pytest

from builders import WALL, Worker, a_fleet, a_sender, an_answer, fold
from modwsgi_tel.net.datagram import _NOBODY as NOBODY
from modwsgi_tel.state import view

GONE = an_answer(alive=False)
UNKNOWN = an_answer()._replace(alive=None, start=None, nspids=(), age_s=None)


def only(fleet):
    [process] = fleet.processes()
    return process


def lives(fleet):
    return [process.life for process in fleet.processes()]


def ask(fleet, now, answer, pid=7):
    """What the collector does once a second: time passes, /proc is asked what it should be asked."""
    fleet.expire(now, WALL + now)
    if pid in fleet.questions(now):
        fleet.answer(pid, answer, now, WALL + now)
        return True
    return False


def events(fleet):
    return [event["kind"] for event in fleet.events]


def running(now=1.0, answer=None, **worker):
    """(fleet, worker) of one process that has started, ticked and been looked up in /proc."""
    fleet, worker = a_fleet(), Worker(**worker)
    fold(fleet, worker.started(), worker.tick(1), now=now)
    ask(fleet, now, answer or an_answer())
    return fleet, worker


# --- a life ----------------------------------------------------------------------------

def test_a_process_starts_runs_stops():
    fleet, worker = a_fleet(), Worker()
    assert lives(fold(fleet, worker.started())) == ["started"]
    assert lives(fold(fleet, worker.tick(2))) == ["running"]
    assert lives(fold(fleet, worker.stopping("maximum_requests", active=2))) == ["stopping"]
    assert lives(fold(fleet, worker.tick(1))) == ["stopping"]
    assert lives(fold(fleet, worker.stopped("maximum_requests", requests=3, drained=0, active=1))) == ["stopped"]
    shown = view.process_view(only(fleet), 1.0, WALL)
    assert shown["stopping"] == {"reason": "maximum_requests", "active": 2}
    assert shown["stopped"] == {"reason": "maximum_requests", "drained": False, "active": 1, "uptime": 12.5, "requests": 3}
    assert events(fleet) == ["process_started", "process_stopping", "process_stopped"]


def test_a_process_is_known_by_its_texts_and_its_group():
    process = only(fold(a_fleet(), Worker(hostname="web2", group="shop").tick(1)))
    assert process.texts == {"hostname": "web2", "process_group": "shop", "mod_wsgi_version": "6.1.1", "python_version": "3.11.2",
                             "apache_version": "Apache/2.4.62", "mpm_name": "event"}
    assert (process.parent_pid, process.group, process.role) == (1000, ("web2", "shop"), "daemon")


def test_roles_tell_apache_children_that_serve_nothing_apart():
    fleet, worker = a_fleet(), Worker(group="")
    fold(fleet, worker.tick(0))
    assert only(fleet).role == "apache-child"
    assert only(fold(fleet, worker.tick(1))).role == "embedded"


def test_a_process_that_joins_another_group_is_in_that_one_alone():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.tick(1))
    worker.group = "other"
    fold(fleet, worker.tick(1))
    assert [(group.name, list(group.processes.values())) for group in fleet.groups.values()] == [
        (("web1", "app"), []), (("web1", "other"), [only(fleet)])]


def test_a_last_tick_after_stopped_is_counted_and_wakes_nobody():
    fleet, worker = running()
    fold(fleet, worker.stopping(), worker.stopped(requests=3), worker.tick(2), now=2.0)
    assert (lives(fleet), only(fleet).counter(2)) == (["stopped"], 3)


# --- silence ---------------------------------------------------------------------------

@pytest.mark.parametrize("interval, limit", [(1.0, 3.0), (0.5, 3.0), (2.0, 6.0), (10.0, 30.0)])
def test_a_process_is_silent_after_three_intervals_and_three_seconds(interval, limit):
    fleet, worker = a_fleet(), Worker(interval=interval)
    fold(fleet, worker.started(), worker.tick(1), now=100.0)
    fleet.expire(100.0 + limit, WALL)
    assert lives(fleet) == ["running"]
    fleet.expire(100.1 + limit, WALL + 100.1 + limit)
    shown = view.process_view(only(fleet), 101.0 + limit, WALL)
    assert (shown["life"], shown["silent_s"]) == ("silent", 1.0 + limit)


def test_a_process_that_only_said_it_started_can_be_silent():
    fleet = fold(a_fleet(), Worker().started(), now=1.0)
    fleet.expire(5.0, WALL)
    assert lives(fleet) == ["silent"]


def test_a_silent_process_that_speaks_is_running_again():
    fleet, worker = running()
    ask(fleet, 10.0, an_answer())
    fold(fleet, worker.tick(1), now=11.0)
    assert (lives(fleet), only(fleet).silent_now) == (["running"], None)


@pytest.mark.parametrize("made, life", [("started", "started"), ("stopping", "stopping")])
def test_what_it_was_it_is_again(made, life):
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.started(), now=1.0)
    if made == "stopping":
        fold(fleet, worker.tick(1), worker.stopping(), now=1.0)
    fleet.expire(20.0, WALL)
    assert only(fleet).silent_now == 1.0
    fold(fleet, worker.gc_snapshot(), now=21.0)
    assert lives(fleet) == [life]


def test_while_we_stood_still_nobody_was_silent():
    fleet, _ = running(now=1.0)
    fleet.stalled(60.0)
    fleet.expire(62.0, WALL)
    assert lives(fleet) == ["running"]
    fleet.expire(64.5, WALL)
    assert lives(fleet) == ["silent"]


def test_a_process_whose_gil_is_stuck_is_never_forgotten_while_it_lives():
    fleet, _ = running()
    for now in range(2, 200_000, 500):
        ask(fleet, float(now), an_answer())
    shown = view.process_view(only(fleet), 200_000.0, WALL)
    assert (shown["life"], shown["alive"], shown["silent_s"]) == ("silent", True, 199_999.0)


def test_a_silent_process_of_which_nothing_is_known_is_forgotten_in_time():
    fleet = fold(a_fleet(silent_s=3600.0), Worker().tick(1), now=1.0)
    ask(fleet, 2.0, UNKNOWN)
    fleet.expire(3600.0, WALL)
    assert lives(fleet) == ["silent"] and view.alive(only(fleet)) is None
    fleet.expire(3602.0, WALL)
    assert (lives(fleet), fleet.forgotten) == ([], 1)


# --- vanishing ---------------------------------------------------------------------------

def test_a_killed_process_has_vanished_with_its_requests():
    fleet, worker = running()
    fold(fleet, worker.slow("a"), worker.slow("b"), worker.slow("c", done=True), now=2.0)
    assert ask(fleet, 10.0, GONE)
    assert lives(fleet) == ["vanished"]
    [event] = [event for event in fleet.events if event["kind"] == "process_vanished"]
    assert (event["pid"], event["lost_requests"], event["last_seen"], event["process_group"]) == (7, 2, WALL + 2.0, "app")
    assert fleet.groups.get(("web1", "app")).vanished == 1 and fleet.slow_lost == 2


def test_only_silent_ones_are_asked_about_again_and_ever_less_often():
    fleet, worker = running()
    asked = [now for now in range(2, 200) if ask(fleet, float(now), an_answer())]
    assert asked[0] == 5 and [b - a for a, b in zip(asked, asked[1:])] == [1, 2, 5, 15] + [30] * (len(asked) - 5)
    assert fold(fleet, worker.tick(1), now=200.0) and not ask(fleet, 201.0, GONE)


def test_a_pid_that_another_process_has_now_means_the_silent_one_is_gone():
    fleet, _ = running(answer=an_answer(start=1000))
    ask(fleet, 10.0, an_answer(start=2000))
    assert lives(fleet) == ["vanished"]


def test_a_process_gone_before_it_could_be_looked_up_vanishes():
    fleet = fold(a_fleet(), Worker().tick(1), now=1.0)
    ask(fleet, 2.0, GONE)
    assert lives(fleet) == ["running"]                  # it may have sent more
    for now in (5.0, 7.0):
        ask(fleet, now, GONE)
    assert lives(fleet) == ["vanished"]


@pytest.mark.parametrize("header, nspids, life", [
    (7, (7,), "vanished"),
    (3, (7, 3), "vanished"),                    # the pid inside a container
    (3, (7, 12, 3), "vanished"),
    (3, (7, 3, 12), "silent"),                  # of a namespace between is nobody's own pid
    (99, (7,), "silent"),                       # a simulator, a replay
    (99, (), "silent"),
])
def test_proc_speaks_only_for_a_sender_that_claims_its_own_pid(header, nspids, life):
    fleet, worker = a_fleet(), Worker(pid=header)
    fold(fleet, worker.tick(1), now=1.0, sender=a_sender(7))
    ask(fleet, 2.0, an_answer(nspids=nspids))
    for now in (10.0, 20.0):
        ask(fleet, now, GONE)
    assert lives(fleet) == [life]


def test_a_sender_outside_our_pids_is_never_looked_up_nor_called_gone():
    fleet, worker = a_fleet(), Worker(pid=7)
    for sender in (a_sender(0), NOBODY):
        fold(fleet, worker.tick(1), now=1.0, sender=sender)
    fleet.expire(50.0, WALL)
    assert (fleet.questions(50.0), lives(fleet)) == ([], ["silent", "silent"])
    fleet.answer(0, GONE, 50.0, WALL)
    assert lives(fleet) == ["silent", "silent"]


@pytest.mark.parametrize("late", ["slow", "stopping", "stopped"])
def test_what_comes_late_does_not_bring_one_back(late):
    fleet, worker = running()
    fold(fleet, worker.slow("a"), now=2.0)
    ask(fleet, 10.0, GONE)
    fold(fleet, {"slow": worker.slow, "stopping": worker.stopping, "stopped": worker.stopped}[late](), now=11.0)
    fleet.expire(12.0, WALL)
    assert lives(fleet) in (["vanished"], ["stopped"]) and len(only(fleet).slow_active) == 0
    assert [fleet.slow.freeze(key, 12.0).life for key in fleet.slow.keys()] == ["lost"]


@pytest.mark.parametrize("made", ["slow", "stopping", "stopped"])
def test_what_comes_late_makes_no_process(made):
    fleet, worker = a_fleet(), Worker()
    fold(fleet, {"slow": worker.slow, "stopping": worker.stopping, "stopped": worker.stopped}[made]())
    assert (lives(fleet), fleet.orphans) == ([], 1)
    assert (events(fleet), len(fleet.slow)) == (([], 1) if made == "slow" else ([f"process_{made}"], 0))


@pytest.mark.parametrize("kind, makes", [(1, 1), (2, 1), (3, 1), (4, 0), (5, 1), (6, 0), (7, 0), (8, 1), (9, 1), (0, 0), (77, 0),
                                         (127, 0), (128, 1), (255, 1)])
def test_which_kinds_make_a_process(kind, makes):
    assert len(fold(a_fleet(), Worker().datagram(kind)).processes()) == makes


def test_a_kind_without_a_name_is_no_event():
    fleet, worker = a_fleet(), Worker()
    fold(fleet, worker.datagram(77), worker.datagram(0))
    assert (events(fleet), fleet.orphans, view.collector(fleet)["kinds"]) == ([], 2, {"kind0": 1, "kind77": 1})


def test_stopped_ones_are_kept_for_a_while():
    fleet, worker = running()
    fold(fleet, worker.stopped(), now=2.0)
    fleet.expire(601.0, WALL)
    assert lives(fleet) == ["stopped"]
    fleet.expire(603.0, WALL)
    assert (lives(fleet), fleet.forgotten, len(fleet._starts), len(fleet._of_sender), len(fleet._current)) == ([], 1, 0, 0, 0)


# --- the same pid again --------------------------------------------------------------------

def test_two_senders_with_the_same_pid_in_their_headers_are_two_processes():
    fleet = a_fleet()
    fold(fleet, Worker(pid=7).tick(1), sender=a_sender(100))
    fold(fleet, Worker(pid=7).tick(1), sender=a_sender(200))
    assert [(process.pid, process.who.sender_pid, process.lost()) for process in fleet.processes()] == [(7, 100, 0), (7, 200, 0)]


def test_a_pid_that_comes_back_is_another_process():
    fleet, worker = running()
    for _ in range(9):
        fold(fleet, worker.tick(2), now=2.0)
    fold(fleet, worker.slow("a"), now=2.0)
    again = Worker()
    again.datagram = lambda kind, values=(), stamp=None, seq=None: Worker.datagram(
        again, kind, values, WALL + 100 + again.seq if stamp is None else stamp, seq)
    fold(fleet, again.started(), again.tick(3), now=3.0)
    assert [(process.life, process.counter(2), process.lost()) for process in fleet.processes()] == [
        ("replaced", 19, 0), ("running", 3, 0)]
    assert [fleet.slow.freeze(key, 3.0).life for key in fleet.slow.keys()] == ["lost"]
    assert 7 in fleet.questions(3.0)                    # its start time is another


def test_a_stopped_process_whose_pid_comes_back_stays_stopped():
    fleet, worker = running()
    fold(fleet, worker.tick(1), worker.stopped(), now=2.0)
    fold(fleet, Worker().started(stamp=WALL + 500), now=3.0)
    assert lives(fleet) == ["stopped", "started"]


def test_a_forgotten_process_leaves_no_start_time_to_its_pids_next_owner():
    fleet, worker = running(answer=an_answer(start=1000))
    fold(fleet, worker.stopped(), now=2.0)
    fleet.expire(700.0, WALL)
    fold(fleet, Worker(seq=5000).tick(1), now=701.0)
    ask(fleet, 702.0, an_answer(start=2000, age_s=5.0))
    ask(fleet, 710.0, an_answer(start=2000, age_s=13.0))
    assert lives(fleet) == ["silent"]                   # and not vanished


def test_an_ended_process_leaves_no_start_time_to_its_pids_next_owner_of_another_user():
    fleet, worker = running(answer=an_answer(start=1000))
    fold(fleet, worker.stopped(), now=2.0)
    fold(fleet, Worker().tick(1), now=3.0, sender=a_sender(7, uid=1000))
    ask(fleet, 4.0, an_answer(start=2000, age_s=2.0))
    ask(fleet, 20.0, an_answer(start=2000, age_s=18.0))
    assert lives(fleet) == ["stopped", "silent"]


def paused(gap=4, start=1000):
    """A process that is heard again after a pause, with datagrams missing; /proc was asked before it."""
    fleet, worker = running(answer=an_answer(start=start))
    for now in range(2, 5):
        fold(fleet, worker.tick(1), now=float(now))
    worker.seq += gap
    fold(fleet, worker.tick(1), now=30.0)
    return fleet, worker


def losses(fleet):
    process = only(fleet)
    return process.lost(), sum(sequence.uncertain for sequence in process.sources.values()), process.restarts


def test_a_gap_after_a_pause_is_counted_and_uncertain_until_proc_was_asked():
    fleet, _ = paused()
    assert losses(fleet) == (4, 4, 0) and fleet.questions(30.0) == [7]


def test_the_same_start_time_makes_it_loss():
    fleet, _ = paused()
    ask(fleet, 30.0, an_answer(start=1000))
    assert losses(fleet) == (4, 0, 0) and fleet.questions(30.0) == []


def test_another_start_time_makes_it_an_unseen_restart():
    fleet, worker = paused()
    ask(fleet, 30.0, an_answer(start=2000))
    assert (losses(fleet), events(fleet)[-1], lives(fleet)) == ((0, 0, 1), "process_restarted", ["running"])
    ask(fleet, 50.0, an_answer(start=2000))
    assert lives(fleet) == ["silent"]                   # it is looked for by its new start time


def test_without_an_answer_it_stays_uncertain():
    fleet, _ = paused()
    ask(fleet, 30.0, UNKNOWN)
    assert losses(fleet) == (4, 4, 0)


def test_a_gap_without_a_pause_is_loss_at_once():
    fleet, worker = running()
    worker.seq += 5
    fold(fleet, worker.tick(1), now=2.0)
    assert losses(fleet) == (5, 0, 0)


def test_a_replay_after_a_pause_stays_uncertain_whatever_proc_says():
    fleet, worker = a_fleet(), Worker(pid=99)
    fold(fleet, worker.tick(1), now=1.0, sender=a_sender(7))
    ask(fleet, 1.0, an_answer())
    worker.seq += 4
    fold(fleet, worker.tick(1), now=30.0, sender=a_sender(7))
    ask(fleet, 30.0, an_answer(start=2000))
    assert losses(fleet) == (4, 4, 0)


def test_late_ones_that_fill_an_uncertain_gap_take_it_back():
    fleet, worker = paused(gap=2)
    fold(fleet, Worker(seq=worker.seq - 2).tick(1), now=30.0)
    assert losses(fleet)[:2] == (1, 1)


# --- what is wrong -------------------------------------------------------------------------

def test_what_is_no_datagram_is_counted_by_reason_with_the_last_few():
    fleet = a_fleet()
    for number in range(20):
        fold(fleet, b"WSGX" + bytes([number]) * 40, sender=a_sender(5, 1000))
    fold(fleet, Worker().tick(1)[:-1], sender=a_sender(5, 1000), now=2.0)
    shown = view.collector(fleet)
    assert (shown["received"], shown["decode_errors"], shown["wrong"]) == (21, 21, {"magic": 20, "truncated": 1})
    assert len(shown["wrong_last"]) == 8
    last = shown["wrong_last"][-1]
    assert (last["received"], last["sender_pid"], last["sender_uid"], last["reason"], last["bytes"], last["head"]) == (
        WALL + 2.0, 5, 1000, "truncated", len(Worker().tick(1)) - 1, Worker().tick(1)[:64].hex())
    assert fleet.processes() == []


def test_the_event_log_has_the_existing_collectors_shape_and_is_a_ring():
    fleet, worker = a_fleet(events=3), Worker()
    fold(fleet, worker.started(), worker.stopping("graceful_signal", 2), worker.stopped("graceful_signal", 9, 1), now=5.0)
    fold(fleet, Worker(pid=8).started(), now=6.0)
    assert (len(fleet.events), fleet.events.dropped) == (3, 1)
    assert list(fleet.events)[1] == {
        "kind": "process_stopped", "pid": 7, "stamp": WALL + 3, "hostname": "web1", "process_group": "app",
        "process_parent_pid": 0, "shutdown_reason": "graceful_signal", "process_uptime": 12.5, "lifetime_request_count": 9,
        "active_requests_at_decision": 0, "active_requests_at_exit": 0, "graceful_drain": 1, "received": WALL + 5.0,
        "sender_pid": 7}
