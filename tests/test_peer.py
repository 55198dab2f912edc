"""The existing collector's answers, folded into a fleet of ours: what it holds is what we show, and nothing twice."""
import copy
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import pytest

from builders import NAMES, WALL, Worker, a_fleet, a_sender, capture
from modwsgi_tel import simulate
from modwsgi_tel.errors import Nonsense
from modwsgi_tel.peer import PeerState, is_peer
from modwsgi_tel.state.fleet import CREDENTIALS
from modwsgi_tel.state.process import ENDED
from modwsgi_tel.state.slow import ENTRY
from modwsgi_tel.state.view import summary
from modwsgi_tel.wire.codec import decode, named
from modwsgi_tel.wire.fields import (BY_NAME, GC_EVENT, GC_SNAPSHOT, PROCESS_STARTED, PROCESS_STOPPED, REQUEST_METRICS,
                                     SLOW_REQUEST, TEXT, kind_name)
from modwsgi_tel.wire.shapes import finite
from running import clean_environment, free_port, short_folder, wait_until

DEADLINE_S = 30.0
NOW = 5000.0                            # monotonic seconds of WALL

EVENT_FIELDS = ("hostname", "process_group", "process_parent_pid", "shutdown_reason", "process_uptime",
                "lifetime_request_count", "active_requests_at_decision", "active_requests_at_exit", "graceful_drain")


class Existing:
    """What the existing collector answers at /api/state behind these datagrams (see its recorded answer below)."""

    def __init__(self, *datagrams):
        self.processes, self.slow, self.events = {}, {}, []
        self.add(*datagrams)

    def add(self, *datagrams):
        for each in datagrams:
            self._add(decode(each))
        return self

    def _add(self, sample):
        fields = finite(sample.fields)
        if sample.kind == SLOW_REQUEST:
            entry = {"pid": sample.pid, **{name: fields.get(field, _empty(field)) for name, field in ENTRY}}
            self.slow[sample.pid, entry["log_id"]] = entry
        elif PROCESS_STARTED <= sample.kind <= PROCESS_STOPPED:
            self.events.append({"kind": kind_name(sample.kind), "pid": sample.pid, "stamp": sample.stamp,
                                **{name: fields.get(name, _empty(name)) for name in EVENT_FIELDS}})
        elif sample.kind in (GC_SNAPSHOT, GC_EVENT):
            row = next(row for (pid, _), row in reversed(self.processes.items()) if pid == sample.pid)
            name = fields.pop("interpreter_name", "")
            item = {"stamp": sample.stamp, "fields": fields}
            if sample.kind == GC_SNAPSHOT:
                row["gc_snapshots"].setdefault(name, []).append(item)
            else:
                row["gc_events"].append({**item, "interpreter": name})
        elif sample.kind == REQUEST_METRICS:
            key = sample.pid, fields["hostname"]
            row = self.processes.setdefault(key, {
                "pid": sample.pid, "hostname": fields["hostname"], "process_group": fields.get("process_group", ""),
                "last_seq": 0, "drops": 99, "samples": [], "gc_snapshots": {}, "gc_events": []})
            row["samples"].append({"type": "sample", "kind": "request_metrics", "pid": sample.pid, "seq": sample.seq,
                                   "stamp": sample.stamp, "fields": fields})

    def answer(self):
        return json.loads(json.dumps({
            "type": "snapshot", "total_received": 1, "decode_errors": 0, "processes": list(self.processes.values()),
            "slow_requests": [{"key": list(key), "entry": entry} for key, entry in self.slow.items()],
            "lifecycle_events": self.events}))


def _empty(field):
    return "" if BY_NAME[field].type == TEXT else 0


def a_peer(**limits):
    return PeerState(a_fleet(**limits).limits)


def took(answer, at=100.0, peer=None, **limits):
    """A PeerState behind an answer that came `at` seconds after WALL."""
    peer = peer or a_peer(**limits)
    peer.take(answer, NOW + at, WALL + at)
    return peer


def shown(fleet, at):
    """What a summary tells of a fleet at a time, but for the ids that it gives and for what it has received."""
    found = summary(fleet, NOW + at, WALL + at)
    for row in found["processes"]:
        del row["id"]
    del found["collector"]
    return found


def slow_lives(fleet, at):
    """{log id: life}"""
    slows = [fleet.slow.freeze(key, NOW + at) for key in fleet.slow.keys()]
    return {slow.shape.fields(slow.datagram)["slow_log_id"]: slow.life for slow in slows}


def applied(peer):
    """The list to which every (datagram, sender, now, wall) goes that the peer's fleet gets from now on."""
    calls, plain = [], peer.fleet.apply

    def apply(datagram, sender, now, wall):
        calls.append((decode(datagram), sender, now, wall))
        plain(datagram, sender, now, wall)

    peer.fleet.apply = apply
    return calls


# --- the same, by another way -----------------------------------------------------------------------------

def one_life(worker, ticks):
    """A process from its start on: ticks, one slow request, and collections, in order of their stamps."""
    yield worker.started()
    for number in range(ticks):
        yield worker.tick(requests=number % 4)
        yield worker.slow("a", done=number == ticks - 1, slow_duration=worker.seq + 1.0)
        yield worker.gc_snapshot()
        yield worker.gc_snapshot("sub|/x")
        yield worker.gc_event()
        yield worker.gc_event("sub|/x", duration=0.1)


def folded(*sent):
    """A fleet that the same datagrams went to directly, each at its stamp."""
    fleet = a_fleet()
    for each in sent:
        sample = decode(each)
        fleet.apply(each, CREDENTIALS.pack(sample.pid, 0, 0), NOW + sample.stamp - WALL, sample.stamp)
    return fleet


def test_what_it_tells_is_shown_as_if_we_had_received_it():
    sent = [*one_life(Worker(pid=7), 12), *one_life(Worker(pid=8, group="other"), 12)]
    sent.sort(key=lambda each: decode(each).stamp)
    peer = took(Existing(*sent).answer())
    wanted = shown(folded(*sent), 100.0)
    found = shown(peer.fleet, 100.0)
    assert [row["windows"]["10m"]["requests"] for row in found["processes"]] == [18, 18]
    assert found == wanted
    assert (peer.skipped, peer.fleet.wrong, peer.fleet.orphans) == (0, {}, 0)
    assert [event["kind"] for event in peer.fleet.events] == ["process_started"] * 2


def test_many_answers_make_the_same_as_one():
    sent = list(one_life(Worker(pid=7), 30))
    existing, peer = Existing(), a_peer()
    for at, each in enumerate(sent, 1):
        took(existing.add(each).answer(), at, peer)
    assert shown(peer.fleet, 300.0) == shown(folded(*sent), 300.0)
    assert (peer.skipped, peer.fleet.received) == (0, len(sent))


def test_an_answer_cut_between_two_events_of_one_tick_loses_none():
    worker = Worker()
    existing = Existing(worker.tick(stamp=WALL))
    calls, peer = [], a_peer()
    for number in range(5):
        existing.add(worker.datagram(GC_EVENT, named(gc_event_start_stamp=WALL + number, gc_event_duration=0.1), WALL))
        calls = applied(peer) if not calls else calls
        took(existing.answer(), number, peer)
    starts = [call[0].fields["gc_event_start_stamp"] for call in calls if call[0].kind == GC_EVENT]
    assert starts == [WALL + number for number in range(5)]


def ticks_of(row):
    """The requests of a process in an answer."""
    return sum(item["fields"].get("request_count", 0) for item in row["samples"])


def by_pid(rows, count):
    sums = Counter()
    for row in rows:
        sums[row["pid"]] += count(row)
    return sums


@pytest.mark.parametrize("name", NAMES)
def test_a_real_capture_is_told_in_full(name):
    sent = [datagram for _, _, datagram in capture(name)]
    seen = [decode(each) for each in sent]
    ticking = {sample.pid for sample in seen if sample.kind == REQUEST_METRICS}
    first = [sample.kind for sample in seen].index(REQUEST_METRICS)
    existing = Existing(*[each for each, sample in zip(sent[first:], seen[first:]) if sample.pid in ticking])
    wall, peer = max(sample.stamp for sample in seen), a_peer()
    peer.take(existing.answer(), NOW, wall)
    rows = summary(peer.fleet, NOW, wall)["processes"]
    assert (+by_pid(rows, lambda row: row["counters"]["requests"])) == +by_pid(existing.processes.values(), ticks_of)
    assert len(peer.fleet.slow) == len(existing.slow)
    assert (sum(row["lost"] for row in rows), peer.fleet.wrong) == (0, {})
    before = peer.fleet.received
    peer.take(existing.answer(), NOW + 1, wall + 1)
    assert peer.fleet.received == before


# --- only what is new -------------------------------------------------------------------------------------

def test_the_same_answer_again_adds_nothing_and_one_more_tick_adds_one():
    worker = Worker()
    existing = Existing(*one_life(worker, 10))
    peer = took(existing.answer())
    calls = applied(peer)
    took(existing.answer(), 101.0, peer)
    assert calls == []
    took(existing.add(worker.tick(requests=5)).answer(), 102.0, peer)
    assert [(call[0].kind, call[0].fields["request_count"]) for call in calls] == [(REQUEST_METRICS, 5)]


def test_the_old_is_not_even_looked_at():
    class Counted(list):
        def __reversed__(self):
            for item in super().__reversed__():
                looked.append(item)
                yield item

    looked, existing = [], Existing(*[each for each in one_life(Worker(), 300)])
    answer = existing.answer()
    peer = took(answer)
    for row in answer["processes"]:
        row["samples"] = Counted(row["samples"])
        row["gc_events"] = Counted(row["gc_events"])
        row["gc_snapshots"] = {name: Counted(items) for name, items in row["gc_snapshots"].items()}
    took(answer, 101.0, peer)
    assert len(looked) <= 2 * 4         # the newest of each list, to compare and to remember


def test_what_it_has_dropped_from_its_front_is_not_missed():
    worker = Worker()
    answer = Existing(*[worker.tick(requests=1) for _ in range(20)]).answer()
    samples = answer["processes"][0]["samples"]
    peer = a_peer()
    for first in range(0, 16):
        answer["processes"][0]["samples"] = samples[first:first + 5]
        took(answer, first + 6.0, peer)
    assert summary(peer.fleet, NOW + 30, WALL + 30)["processes"][0]["counters"]["requests"] == 20


def test_a_process_that_is_left_out_for_a_while_is_the_same_when_it_is_back():
    worker = Worker()
    existing = Existing(*[worker.tick(requests=1) for _ in range(5)])
    peer = took(existing.answer(), 5.0)
    took({"type": "snapshot", "processes": []}, 6.0, peer)
    took(existing.add(worker.tick(requests=1)).answer(), 7.0, peer)
    rows = summary(peer.fleet, NOW + 7, WALL + 7)["processes"]
    assert [(row["pid"], row["counters"]["requests"], row["lost"]) for row in rows] == [(7, 6, 0)]


def test_one_that_it_has_forgotten_expires_with_us():
    worker = Worker()
    peer = took(Existing(worker.tick()).answer(), 1.0)
    took({"type": "snapshot", "processes": []}, 10.0, peer)
    peer.fleet.expire(NOW + 10, WALL + 10)
    assert [process.life for process in peer.fleet.processes()] == ["silent"]
    peer.fleet.expire(NOW + 5000, WALL + 5000)
    assert (list(peer.fleet.processes()), peer.fleet.forgotten) == ([], 1)


# --- which process ----------------------------------------------------------------------------------------

def test_a_gap_in_its_numbers_is_no_loss():
    worker = Worker()
    sent = [worker.tick(requests=1, seq=number, stamp=WALL + number) for number in (1, 50, 51, 4000)]
    assert [row["lost"] for row in shown(took(Existing(*sent).answer()).fleet, 100.0)["processes"]] == [0]


def lives(peer):
    return [(process.pid, process.life, process.counter(2)) for process in peer.fleet.processes()]


@pytest.mark.parametrize("seq", [0, 500])
def test_a_pid_that_starts_again_is_another_process(seq):
    """Also when its numbers are higher than the old one's by the time that its first tick is there."""
    first, second = Worker(pid=7), Worker(pid=7, seq=seq)
    sent = [first.started(stamp=WALL), first.tick(requests=1, stamp=WALL + 1), first.tick(requests=1, stamp=WALL + 2),
            second.started(stamp=WALL + 10), second.tick(requests=4, stamp=WALL + 11)]
    assert lives(took(Existing(*sent).answer())) == [(7, "replaced", 2), (7, "running", 4)]
    existing, peer = Existing(), a_peer()
    for at, each in enumerate(sent):
        took(existing.add(each).answer(), 20.0 + at, peer)
    assert lives(peer) == [(7, "replaced", 2), (7, "running", 4)]


def test_a_pid_whose_numbers_start_over_is_another_process_and_one_that_came_late_is_not():
    worker = Worker(pid=7)
    sent = [worker.tick(requests=1, seq=seq, stamp=WALL + at)
            for seq, at in ((100, 1), (103, 3), (102, 2), (2, 10), (3, 11))]
    assert lives(took(Existing(*sent).answer())) == [(7, "replaced", 3), (7, "running", 2)]
    existing, peer = Existing(), a_peer()
    for each in sent[:3]:
        took(existing.add(each).answer(), 20.0, peer)
    assert lives(peer) == [(7, "running", 3)]
    assert lives(took(Existing(*[worker.tick(requests=1, seq=seq, stamp=WALL + at) for at, seq in enumerate(
        (0xFFFFFFFE, 0xFFFFFFFF, 0, 1))]).answer())) == [(7, "running", 4)]


def test_two_hosts_may_have_the_same_pid():
    one, two = Worker(pid=7, hostname="web1"), Worker(pid=7, hostname="web2")
    existing = Existing()
    peer = a_peer()
    for at in range(5):
        took(existing.add(one.tick(requests=1), two.tick(requests=2)).answer(), 10.0 + at, peer)
    rows = summary(peer.fleet, NOW + 20, WALL + 20)["processes"]
    assert [(row["pid"], row["sender_pid"], row["hostname"], row["counters"]["requests"]) for row in rows] == [
        (7, 7, "web1", 5), (7, 7, "web2", 10)]
    assert [row["life"] for row in rows] == ["running", "running"]


def test_the_end_of_a_process_is_told_after_its_last_tick():
    worker = Worker()
    sent = [worker.started(stamp=WALL), worker.tick(requests=1, stamp=WALL + 5), worker.stopping(stamp=WALL + 5),
            worker.stopped(stamp=WALL + 5, requests=1)]
    peer = took(Existing(*sent).answer())
    row, = shown(peer.fleet, 100.0)["processes"]
    assert (row["life"], row["stopping"], row["stopped"]) == (
        "stopped", {"reason": "graceful_signal", "active": 1},
        {"reason": "graceful_signal", "drained": True, "active": 0, "uptime": row["stopped"]["uptime"], "requests": 1})
    assert [event["kind"] for event in peer.fleet.events] == ["process_started", "process_stopping", "process_stopped"]


# --- slow requests ----------------------------------------------------------------------------------------

def test_a_slow_request_is_told_again_only_when_it_has_changed():
    worker = Worker()
    existing = Existing(worker.tick(), worker.slow("a", start=WALL, slow_duration=1.0))
    peer = took(existing.answer(), 2.0)
    calls = applied(peer)
    took(existing.answer(), 3.0, peer)
    assert (calls, slow_lives(peer.fleet, 3.0)) == ([], {"a": "active"})
    took(existing.add(worker.slow("a", start=WALL, slow_duration=2.5)).answer(), 4.0, peer)
    assert ([(call[0].fields["slow_duration"], call[3]) for call in calls], slow_lives(peer.fleet, 4.0)) == (
        [(2.5, WALL + 2.5)], {"a": "active"})
    took(existing.add(worker.slow("a", done=True, start=WALL, slow_duration=2.5)).answer(), 5.0, peer)
    assert slow_lives(peer.fleet, 5.0) == {"a": "completed"}
    assert shown(peer.fleet, 5.0)["processes"][0]["slow_active"] == 0


def test_one_that_it_drops_because_nothing_comes_becomes_stale_by_itself():
    worker = Worker()
    existing = Existing(worker.tick(), worker.slow("a", start=WALL, slow_duration=1.0))
    peer = took(existing.answer(), 2.0)
    existing.slow.clear()
    for at in range(3, 12):
        took(existing.add(worker.tick(stamp=WALL + at)).answer(), float(at), peer)
        peer.fleet.expire(NOW + at, WALL + at)
    assert slow_lives(peer.fleet, 12.0) == {"a": "stale"}


def test_one_that_ended_before_the_oldest_sample_still_belongs_to_its_process():
    worker = Worker()
    peer = took(Existing(worker.tick(stamp=WALL + 50),
                         worker.slow("a", done=True, start=WALL, slow_duration=3.0)).answer())
    key, = peer.fleet.slow.keys()
    slow = peer.fleet.slow.freeze(key, NOW)
    assert (slow.group, slow.last_wall, peer.fleet.orphans) == (("web1", "app"), WALL + 3.0, 0)


def test_one_of_a_process_that_it_does_not_list_is_kept_without_one():
    worker = Worker()
    peer = took(Existing(worker.slow("a", done=True)).answer())
    assert (len(peer.fleet.slow), peer.fleet.orphans, list(peer.fleet.processes())) == (1, 1, [])


def test_one_without_a_log_id_is_told_by_its_thread_and_start():
    worker = Worker()
    answer = Existing(worker.tick(), worker.slow("", thread=3)).answer()
    answer["slow_requests"][0]["key"] = [7, 3, WALL]
    peer = took(answer, 4.0)
    took(answer, 5.0, peer)
    assert (len(peer.fleet.slow), peer.fleet.received, peer.skipped) == (1, 2, 0)


# --- time -------------------------------------------------------------------------------------------------

def test_a_record_is_as_old_as_its_stamp_says_and_never_from_the_future_or_before_the_last():
    worker = Worker()
    existing = Existing(*[worker.tick(stamp=WALL + at) for at in (1.0, 2.0)])
    peer = a_peer()
    calls = applied(peer)
    took(existing.answer(), 10.0, peer)
    took(existing.add(worker.tick(stamp=WALL + 1.5), worker.tick(stamp=WALL + 99.0)).answer(), 11.0, peer)
    took(existing.add(worker.tick(stamp=WALL + 5.0)).answer(), 12.0, peer)
    assert [(now - NOW, wall - WALL) for _, _, now, wall in calls] == [
        (1.0, 1.0), (2.0, 2.0), (2.0, 1.5), (11.0, 99.0), (11.0, 5.0)]


def test_the_newest_ticks_are_now_and_the_old_ones_are_in_their_windows():
    worker = Worker()
    sent = [worker.tick(requests=10, stamp=WALL + at) for at in range(1, 301)]
    windows = shown(took(Existing(*sent).answer(), 300.0).fleet, 300.0)["totals"]["windows"]
    assert (windows["now"]["requests"], windows["now"]["throughput"]) == (10, 10.0)
    assert windows["10m"]["requests"] == 3000
    assert 550 <= windows["1m"]["requests"] <= 650      # in steps of five seconds


# --- nonsense ---------------------------------------------------------------------------------------------

OURS = {"type": "snapshot", "collector": {}, "processes": []}


@pytest.mark.parametrize("answer, wanted", [
    ({"type": "snapshot"}, True), (OURS, False), ({"type": "summary"}, False), ([], False), (None, False),
    ("snapshot", False)], ids=repr)
def test_which_collector_it_is_is_seen_by_its_answer(answer, wanted):
    assert is_peer(answer) is wanted


def test_our_own_state_is_not_taken_for_its(serve):
    assert not is_peer(serve().json("/api/state"))


@pytest.mark.parametrize("answer", [None, [], 1, "x", {}, {"type": "summary", "processes": []}, {"type": "snapshot"},
                                    {"type": "snapshot", "processes": {}}], ids=repr)
def test_what_is_no_state_is_nonsense(answer):
    with pytest.raises(Nonsense) as caught:
        took(answer)
    assert str(caught.value) == "/api/state is no state of a telemetry collector"


def whole():
    worker = Worker()
    return Existing(worker.started(), worker.tick(requests=1), worker.slow("a"), worker.gc_snapshot("x"),
                    worker.gc_event("x"), worker.stopping()).answer()


def put(answer, path, value):
    """Put a value where a path of keys leads to; Ellipsis takes out what is there."""
    held = answer
    for part in path[:-1]:
        held = held[part]
    if value is ...:
        del held[path[-1]]
    else:
        held[path[-1]] = value
    return answer


SAMPLE = ("processes", 0, "samples", 0)
ENTRY_AT = ("slow_requests", 0, "entry")


@pytest.mark.parametrize("path, value, skipped, received", [
    (("total_received",), ..., 0, 6), (("new",), [1], 0, 6), (("lifecycle_events",), ..., 0, 4),
    (("slow_requests",), {}, 1, 5), (("processes", 0), None, 1, 3), (("processes", 0, "pid"), "7", 1, 3),
    (("processes", 0, "pid"), -1, 1, 3), (("processes", 0, "pid"), 1 << 31, 1, 3),
    (("processes", 0, "pid"), True, 1, 3), (("processes", 0, "hostname"), ..., 1, 3),
    (("processes", 0, "samples"), None, 0, 5), (("processes", 0, "samples"), "x", 1, 5), (SAMPLE, [], 1, 5),
    ((*SAMPLE, "kind"), "slow_request", 1, 5), ((*SAMPLE, "kind"), [], 1, 5), ((*SAMPLE, "seq"), "x", 0, 6),
    ((*SAMPLE, "seq"), 10 ** 400, 0, 6), ((*SAMPLE, "stamp"), ..., 1, 5),
    ((*SAMPLE, "stamp"), float("inf"), 1, 5), ((*SAMPLE, "stamp"), 10 ** 400, 1, 5),
    ((*SAMPLE, "stamp"), 1.0, 1, 5), ((*SAMPLE, "stamp"), "x", 1, 5), ((*SAMPLE, "fields"), [], 1, 5),
    ((*SAMPLE, "fields", "id42"), 1, 1, 6), ((*SAMPLE, "fields", "hostname"), 5, 1, 6),
    ((*SAMPLE, "fields", "hostname"), "\ud800\x1b", 0, 6), ((*SAMPLE, "fields", "hostname"), "x" * 70000, 1, 6),
    ((*SAMPLE, "fields", "hostname"), "x" * 65535, 1, 5), ((*SAMPLE, "fields", "request_count"), -1, 1, 6),
    ((*SAMPLE, "fields", "request_count"), 1.5, 1, 6), ((*SAMPLE, "fields", "request_count"), None, 1, 6),
    ((*SAMPLE, "fields", "request_count"), 1 << 64, 1, 6),
    ((*SAMPLE, "fields", "request_time"), 10 ** 400, 1, 6),
    ((*SAMPLE, "fields", "request_time"), float("inf"), 0, 6),
    ((*SAMPLE, "fields", "request_time_buckets"), [1] * 64, 1, 6),
    ((*SAMPLE, "fields", "request_time_buckets"), 5, 1, 6),
    ((*SAMPLE, "fields", "request_time_buckets"), [1.5] * 65, 1, 6),
    ((*SAMPLE, "fields", "request_time_buckets"), [1 << 31] * 65, 1, 6),
    ((*SAMPLE, "fields", "request_threads_busy_time"), {"a": 1}, 1, 6),
    ((*SAMPLE, "fields", "request_threads_busy_time"), [0.0] * 9000, 1, 5),
    ((*SAMPLE, "fields", "request_threads_busy_time"), [0.0] * 90000, 1, 6),
    (("processes", 0, "gc_snapshots"), [], 1, 5), (("processes", 0, "gc_snapshots", "x"), {}, 1, 5),
    (("processes", 0, "gc_snapshots", "x", 0), "x", 1, 5),
    (("processes", 0, "gc_events", 0, "interpreter"), 5, 1, 5),
    (("processes", 0, "gc_events", 0, "interpreter"), ..., 1, 5),
    (("processes", 0, "gc_events", 0, "fields"), 5, 1, 5), (("lifecycle_events", 0), 1, 1, 5),
    (("lifecycle_events", 0, "kind"), {}, 1, 5), (("lifecycle_events", 0, "pid"), None, 1, 5),
    (("lifecycle_events", 0, "stamp"), "x", 1, 5), (("lifecycle_events", 0, "process_parent_pid"), "x", 1, 6),
    (("slow_requests", 0), [], 1, 5), (("slow_requests", 0, "key"), 1, 1, 5),
    (("slow_requests", 0, "key"), [[]], 1, 5), (ENTRY_AT, None, 1, 5), ((*ENTRY_AT, "pid"), "x", 1, 5),
    ((*ENTRY_AT, "pid"), 8, 0, 6), ((*ENTRY_AT, "start_stamp"), None, 1, 5),
    ((*ENTRY_AT, "duration"), "x", 1, 5), ((*ENTRY_AT, "state"), "x", 1, 6), ((*ENTRY_AT, "state"), ..., 0, 6),
    ((*ENTRY_AT, "path_info"), ["x"], 1, 6), ((*ENTRY_AT, "new"), 1, 0, 6)], ids=lambda value: repr(value)[:50])
def test_what_cannot_be_used_is_counted_and_the_rest_is_folded_in(path, value, skipped, received):
    peer = took(put(whole(), path, value))
    assert (peer.skipped, peer.fleet.received, peer.fleet.wrong) == (skipped, received, {})
    summary(peer.fleet, NOW + 100, WALL + 100)


def places(value, path=()):
    """The paths of everything in an answer."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def test_whatever_an_answer_holds_take_never_raises_and_every_face_can_be_shown():
    """Any part of an answer replaced by anything: no other error than Nonsense, and a summary that is strict JSON."""
    seed = 20240611
    print("seed", seed)
    chance = random.Random(seed)
    values = [None, True, 0, -1, 1.5, float("inf"), 10 ** 30, "", "x", "\x1b\ud800", [], [1], [None] * 65, {}, {"a": 1},
              ...]
    every, peer = list(places(whole())), a_peer()
    for turn in range(1500):
        answer = whole()
        for _ in range(chance.randrange(1, 4)):
            try:
                put(answer, chance.choice(every), copy.deepcopy(chance.choice(values)))
            except (LookupError, TypeError):
                pass                    # an earlier one took the place away
        if chance.random() < 0.05:
            peer = a_peer()
        try:
            took(answer, 100.0 + turn, peer)
        except Nonsense:
            continue
        if turn % 20 == 0:
            json.dumps(summary(peer.fleet, NOW + turn, WALL + turn), allow_nan=False)
    assert peer.fleet.wrong == {}


# --- bounds -----------------------------------------------------------------------------------------------

def test_more_processes_than_the_limit_are_counted_and_those_that_are_known_stay():
    existing = Existing(*[Worker(pid=pid).tick(requests=1) for pid in range(10, 16)])
    peer = took(existing.answer(), processes=4)
    assert ([process.pid for process in peer.fleet.processes()], peer.skipped) == ([10, 11, 12, 13], 2)
    calls = applied(peer)
    took(existing.answer(), 101.0, peer)
    assert (calls, peer.skipped) == ([], 4)


def test_one_that_is_gone_makes_room_for_the_next():
    peer = a_peer(processes=2)
    for turn in range(200):
        took(Existing(Worker(pid=100 + turn).tick(stamp=WALL + turn)).answer(), float(turn), peer)
    assert (peer.skipped, len(peer._known), len(peer._of_pid), len(peer.fleet.processes())) == (0, 2, 2, 2)


def test_interpreters_and_slow_requests_beyond_their_limits_are_counted():
    worker = Worker()
    existing = Existing(worker.tick(), *[worker.gc_snapshot(f"i{number}") for number in range(5)],
                        *[worker.slow(f"s{number}") for number in range(7)])
    peer = took(existing.answer(), interpreters=3, slow=4)
    assert (peer.skipped, len(peer.fleet.slow)) == (2 + 3, 4)
    assert [len(process.interpreters) for process in peer.fleet.processes()] == [3]


def test_more_samples_than_are_kept_are_not_folded_in():
    worker = Worker()
    existing = Existing(*[worker.tick(requests=1) for _ in range(50)])
    peer = took(existing.answer(), samples=20)
    assert (peer.skipped, shown(peer.fleet, 100.0)["processes"][0]["counters"]["requests"]) == (30, 20)


# --- the real one -----------------------------------------------------------------------------------------

QUIET = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)


def existing_program():
    beside = os.path.join(os.path.dirname(sys.executable), "mod_wsgi-telemetry")
    return beside if os.path.exists(beside) else shutil.which("mod_wsgi-telemetry")


@pytest.fixture
def existing():
    """(socket's path, get()): a real mod_wsgi-telemetry, and what it answers at /api/state now."""
    program = existing_program()
    if program is None:
        pytest.skip("mod_wsgi-telemetry is not installed beside this Python")
    with short_folder() as folder:
        path, port = os.path.join(folder, "t"), free_port()
        process = subprocess.Popen([program, "serve", "--listen", f"unix:{path}", "--http-port", str(port)],
                                   env=clean_environment(), **QUIET)

        def get():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/state", timeout=DEADLINE_S) as answer:
                return json.load(answer)

        def ready():
            assert process.poll() is None
            try:
                return os.path.exists(path) and get()
            except OSError:
                return None

        try:
            wait_until(ready, DEADLINE_S, "it does not start")
            yield path, get
        finally:
            process.kill()
            process.wait()


def send(path, datagrams):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(DEADLINE_S)
        for each in datagrams:
            sender.sendto(each, path)


def slow_entries(fleet):
    """The slow requests with the existing collector's names."""
    for key in fleet.slow.keys():
        slow = fleet.slow.freeze(key, NOW)
        fields = slow.shape.fields(slow.datagram)
        yield {"pid": slow.pid, **{name: fields.get(field) for name, field in ENTRY}}


def without_names(items):
    """The datagrams without those of a named interpreter: behind one of these it answers 500 for good."""
    return [each for _, each in items if BY_NAME["interpreter_name"].id not in decode(each).shape.ids]


@pytest.mark.parametrize("profile, seconds", [("steady", 40), ("slow", 60), ("crash-loop", 60)])
def test_what_the_real_one_holds_is_what_we_show(existing, profile, seconds):
    path, get = existing
    wall = time.time()
    sent = without_names(simulate.stream(profile, processes=4, groups=2, duration=float(seconds), start=wall - seconds))
    half = len(sent) // 2
    peer, received = a_peer(), 0
    for part in (sent[:half], sent[half:]):
        send(path, part)
        received += len(part)
        wait_until(lambda: get()["total_received"] >= received, DEADLINE_S, "not received")
        answer = get()
        assert is_peer(answer)
        peer.take(answer, NOW, wall)
    found = summary(peer.fleet, NOW, wall)
    assert (peer.skipped, peer.fleet.wrong, peer.fleet.orphans, found["totals"]["lost"]) == (0, {}, 0, 0)
    # request by request, as it holds them
    assert by_pid(found["processes"], lambda row: row["counters"]["requests"]) == by_pid(answer["processes"], ticks_of)
    names = ("pid", "state", "duration", "path_info", "log_id")
    held = [[row["entry"][name] for name in names] for row in answer["slow_requests"]]
    ours = [[entry[name] for name in names] for entry in slow_entries(peer.fleet)]
    assert len(held) > 0 and sorted(ours) == sorted(held)
    # and as a collector of ours shows what it received itself
    direct = a_fleet()
    for each in sent:
        sample = decode(each)
        direct.apply(each, a_sender(sample.pid, 0, 0), NOW - (wall - sample.stamp), sample.stamp)
    wanted = summary(direct, NOW, wall)
    names = ("requests", "throughput", "status", "phases", "input_bytes", "gil")
    # it does not tell with which tick a slow request ended: that may be the one before the window
    for window, more in (("1m", ()), ("10m", ("slow_completed",))):
        assert {name: found["totals"]["windows"][window][name] for name in names + more} == approximately(
            {name: wanted["totals"]["windows"][window][name] for name in names + more}), window
    assert [(event["kind"], event["pid"]) for event in peer.fleet.events] == [
        (event["kind"], event["pid"]) for event in direct.events]
    assert [row["life"] in ENDED for row in found["processes"]].count(True) == [
        row["life"] in ENDED for row in wanted["processes"]].count(True)


def approximately(value):
    """Compared with floats that were added up in another order."""
    if isinstance(value, dict):
        return {key: approximately(item) for key, item in value.items()}
    return pytest.approx(value) if isinstance(value, float) else value


def test_its_own_simulator_is_shown_as_well(existing):
    path, get = existing
    program = existing_program()
    subprocess.run([program, "simulate", "--target", f"unix:{path}", "--processes", "3", "--interval", "0.1",
                    "--duration", "1"], timeout=DEADLINE_S, check=True, **QUIET)
    answer, wall, peer = get(), time.time(), a_peer()
    peer.take(answer, NOW, wall)
    rows = summary(peer.fleet, NOW, wall)["processes"]
    assert len(rows) >= 3 and peer.fleet.wrong == {}
    assert by_pid(rows, lambda row: row["counters"]["requests"]) == by_pid(answer["processes"], ticks_of)
