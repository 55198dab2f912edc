"""The simulated fleet: its bytes, its likeness to real traffic, its numbers, its troubles."""
import functools
import glob
import hashlib
import itertools
import os
from collections import Counter, defaultdict
from math import fsum

import pytest

from modwsgi_tel.errors import UsageError
from modwsgi_tel.simulate import PROFILES, stream
from modwsgi_tel.wire import blocks, buckets, codec, shapes
from modwsgi_tel.wire.fields import KINDS, PHASES

CAPTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "captures")

# Field ids as mod_wsgi 6.1.1 sent them in daemon mode: (capture, kind, ids).
_HEAD = "1 2 3 4 5 6 7 10 11 12 13 20 21 22 30 31 32 40 41 50 51 52 60 63 64 65 66 67"
_TAIL = "100 101 102 103 120 121 122 123 124 110 111 112 113 114"
_SLOW = "200 201 202 203 205 230 231 232 233 250 251 220 221 222 223 224 225 234 235 260 261 240 204 210 211 212 213 214 215"
_GC = " ".join(map(str, range(300, 318)))
REAL = (
    ("smoke", 2, f"{_HEAD} 61 62 70 80 73 83 74 84 75 85 76 86 77 87 71 81 72 82 90 93 91 92 94 95 96 97 {_TAIL}"),
    ("smoke", 2, f"{_HEAD} 90 93 94 95 96 97 {_TAIL}"),
    ("gunk", 4, f"{_SLOW} 216 217"),
    ("smoke", 5, "1 2 3 4 5 6 7 13"),
    ("smoke", 6, "5 6 130 133"),
    ("smoke", 7, "5 6 130 131 132 134 135"),
    ("smoke", 8, _GC),
    ("subinterp", 8, f"{_GC} 8"),
    ("smoke", 9, "320 321 322 323 324"),
    ("subinterp", 9, "320 321 322 323 324 8"),
)


@functools.lru_cache(maxsize=None)
def samples(profile="steady", duration=60.0, **options):
    """[(at_s, Sample)] of a stream."""
    known, found = shapes.Shapes(), []      # codec.decode compiles a shape for each datagram: 10 times slower
    for at, datagram in stream(profile, duration=duration, **options):
        _, _, kind, flags, pid, seq, stamp = shapes.HEADER.unpack_from(datagram)
        found.append((at, codec.Sample(kind, flags, pid, seq, stamp, known.check(datagram)[0], datagram)))
    return found


def by_pid(items):
    found = defaultdict(list)
    for at, sample in items:
        found[sample.pid].append((at, sample))
    return found


def of_kind(items, kind):
    return [sample.fields for _, sample in items if KINDS[sample.kind] == kind]


def ids(sample):
    return " ".join(str(field) for field, _, _, _ in sample.shape.layout)


def capture(name):
    with open(os.path.join(CAPTURES, name + ".cap.gz"), "rb") as handle:
        return [codec.decode(datagram) for _, _, datagram in blocks.read(handle, name)]


# --- the same bytes -----------------------------------------------------------

def test_the_same_arguments_give_the_same_bytes_on_every_python():
    digest = hashlib.sha256()
    for profile in PROFILES:
        for at, datagram in stream(profile, processes=3, groups=2, duration=40.0, start=1795247000.0):
            digest.update(repr(at).encode() + datagram)
    # computed with 3.9, 3.10, 3.11, 3.12 and 3.13; a change of the simulator changes it, a change of Python must not
    assert digest.hexdigest() == "3f140e81a82852569767c5653407d927635dbe17290db798b6a0ec206036aeb9"


def test_another_seed_gives_other_requests_of_the_same_processes():
    one, other = samples(seed=1, duration=5.0), samples(seed=2, duration=5.0)
    assert {sample.pid for _, sample in one} == {sample.pid for _, sample in other} == {20000, 20001, 20002, 20003}
    assert of_kind(one, "request_metrics") != of_kind(other, "request_metrics")


def test_an_endless_stream_begins_like_one_with_an_end():
    endless = list(itertools.islice(stream(seed=5), 100))
    assert endless == list(stream(seed=5, duration=60.0))[:100]


@pytest.mark.parametrize("options, line", [
    ({"profile": "fast"}, "profile 'fast': there is no such profile, only steady, busy, gil, slow, leak, gc-storm, "
                          "crash-loop, deploy"),
    ({"processes": 0}, "processes 0: must be a whole number from 1 to 100000"),
    ({"processes": 2.5}, "processes 2.5: must be a whole number from 1 to 100000"),
    ({"processes": 2, "groups": 3}, "groups 3: must be a whole number from 1 to 2"),
    ({"groups": 0}, "groups 0: must be a whole number from 1 to 4"),
    ({"interval": 0.4}, "interval 0.4: must be 0.5 to 3600 seconds"),
    ({"interval": float("nan")}, "interval nan: must be 0.5 to 3600 seconds"),
    ({"duration": 0}, "duration 0: must be more than 0 seconds"),
    ({"duration": float("inf")}, "duration inf: must be more than 0 seconds"),
    ({"first_pid": 3}, "first_pid 3: must be a whole number from 4 to 4194300"),
])
def test_what_is_out_of_range_is_refused_at_once_with_what_is_allowed(options, line):
    with pytest.raises(UsageError) as caught:
        stream(**options)
    assert str(caught.value) == line


# --- close to real traffic ------------------------------------------------------

@pytest.mark.parametrize("name", sorted({name for name, _, _ in REAL}))
def test_the_expected_order_of_fields_is_that_of_a_real_capture(name):
    found = {(sample.kind, ids(sample)) for sample in capture(name)}
    assert {(kind, order) for where, kind, order in REAL if where == name} <= found


def test_every_datagram_has_the_fields_of_a_real_one_in_the_same_order():
    seen = {(sample.kind, ids(sample)) for profile in PROFILES for _, sample in samples(profile, groups=3, duration=20.0)}
    idle = {(sample.kind, ids(sample)) for _, sample in samples(PROFILES["steady"]._replace(rate_per_s=0.5))}
    assert seen | idle == {(kind, order) for _, kind, order in REAL}


def test_every_datagram_encodes_back_to_the_same_bytes():
    for profile in PROFILES:
        for _, datagram in stream(profile, duration=20.0):
            sample = codec.decode(datagram)
            again = codec.encode(sample.kind, sample.pid, sample.seq, sample.stamp, sample.shape.values(datagram))
            assert again == datagram


def test_the_mean_sizes_are_within_a_third_of_those_of_real_captures():
    def means(found):
        sizes = defaultdict(list)
        for sample in found:
            sizes[KINDS[sample.kind]].append(len(sample.datagram))
        return {kind: sum(each) / len(each) for kind, each in sizes.items()}
    real = [sample for path in glob.glob(os.path.join(CAPTURES, "*.cap.gz"))
            for sample in capture(os.path.basename(path)[:-len(".cap.gz")])]
    real, ours = means(real), means([sample for _, sample in samples(groups=3)])
    assert set(ours) == set(real)
    assert {kind: (round(ours[kind]), round(real[kind])) for kind in real if not 2 / 3 < ours[kind] / real[kind] < 4 / 3} == {}


def test_a_tick_is_one_request_metrics_then_slow_ones_then_each_interpreter_with_its_events():
    for profile in ("slow", "gc-storm"):
        for pid, items in by_pid(samples(profile, processes=3, groups=3, duration=30.0)).items():
            ticks = itertools.groupby(items[1:-1], key=lambda item: item[0])
            for _, tick in ticks:
                tick = [sample for _, sample in tick]
                kinds = "".join(KINDS[sample.kind][0] + str(sample.fields.get("slow_record_state", "")) for sample in tick
                                if KINDS[sample.kind] in ("request_metrics", "slow_request"))
                assert kinds in ("", "r" + "s1" * kinds.count("s1") + "s0" * kinds.count("s0"))
                names = [sample.fields.get("interpreter_name", "") for sample in tick if KINDS[sample.kind].startswith("gc_")]
                heads = [sample.fields.get("interpreter_name", "") for sample in tick if KINDS[sample.kind] == "gc_snapshot"]
                assert [name for name, _ in itertools.groupby(names)] == heads
                assert len(set(heads)) == len(heads)
                ends = [sample.fields["slow_start_stamp"] + sample.fields["slow_duration"] for sample in tick
                        if sample.fields.get("slow_record_state") == 1]
                assert ends == sorted(ends)


def test_a_process_begins_with_started_ends_with_stopping_and_stopped_and_counts_its_seq_from_1():
    for profile in PROFILES:
        for pid, items in by_pid(samples(profile, groups=2)).items():
            kinds = [KINDS[sample.kind] for _, sample in items]
            assert [sample.seq for _, sample in items] == list(range(1, len(items) + 1))
            assert (kinds[0], kinds[-1]) == ("process_started", "process_stopped")
            assert Counter(kind for kind in kinds if kind.startswith("process_")) == {
                "process_started": 1, "process_stopping": 1, "process_stopped": 1}


def test_everything_comes_in_order_of_time_until_the_duration_with_stamps_of_the_wall_clock():
    for profile in PROFILES:
        for interval, duration in ((1.0, 25.0), (0.5, 0.3), (10.0, 45.0)):
            items = samples(profile, interval=interval, duration=duration, start=1795247000.0)
            times = [at for at, _ in items]
            assert times == sorted(times) and times[0] == 0.0 and times[-1] <= duration
            assert [sample.stamp for _, sample in items] == [1795247000.0 + at for at in times]


def test_processes_are_dealt_out_to_groups_and_a_fifth_group_gets_a_name_of_its_own():
    groups = Counter(fields["process_group"] for fields in of_kind(samples(processes=11, groups=5, duration=3.0),
                                                                   "process_started"))
    assert groups == {"shop": 3, "api": 2, "intranet": 2, "accounts": 2, "shop2": 2}


# --- numbers that agree ---------------------------------------------------------

@pytest.mark.parametrize("profile", PROFILES)
def test_the_numbers_of_a_tick_agree_with_each_other(profile):
    close = pytest.approx
    for items in by_pid(samples(profile, groups=2)).values():
        before = items[0][0]
        for at, sample in items:
            if KINDS[sample.kind] != "request_metrics":
                continue
            tick = sample.fields
            number, threads = tick["request_count"], tick["request_threads_maximum"]
            assert tick["sample_period"] == close(at - before, abs=1e-9)
            before = at
            assert sum(tick[f"status_{family}xx_total"] for family in range(1, 6)) == number
            assert tick["request_throughput"] == close(number / tick["sample_period"])
            assert tick["cpu_utilization"] == close(tick["cpu_user_utilization"] + tick["cpu_system_utilization"])
            busy, elapsed = tick["request_threads_busy_time"], tick["request_threads_current_elapsed"]
            assert tick["capacity_utilization"] == close(fsum(busy) / (threads * tick["sample_period"]))
            assert tick["request_threads_active"] == sum(1 for spent in busy if spent)
            assert sum(tick["request_threads_completed"]) == number
            for slot in range(threads):
                assert busy[slot] <= tick["sample_period"] + 1e-9
                assert busy[slot] >= min(elapsed[slot], tick["sample_period"]) - 1e-9
                assert bool(tick["request_threads_max_duration"][slot]) <= bool(tick["request_threads_completed"][slot])
            for phase in PHASES:
                counts = tick.get(f"{phase}_time_buckets", [])
                assert sum(counts) == (number if counts else 0)
                if not number:
                    assert tick.get(f"{phase}_time", 0.0) == 0.0 and f"{phase}_time_min" not in tick
                    continue
                mean, low, high = (tick[f"{phase}_time{end}"] for end in ("", "_min", "_max"))
                filled = [place for place, count in enumerate(counts) if count]
                assert low <= mean <= high
                assert (filled[0], filled[-1]) == (buckets.place(low), buckets.place(high))
                floor = fsum(count * buckets.LOWER_S[place] for place, count in enumerate(counts))
                ceiling = fsum(count * (buckets.UPPER_S + (high,))[place] for place, count in enumerate(counts))
                assert floor <= mean * number * (1 + 1e-9) and mean * number <= ceiling * (1 + 1e-9)
            if number:
                parts = fsum(tick[f"{phase}_time"] for phase in ("server", "queue", "daemon", "application"))
                assert tick["request_time"] == close(parts)
                assert tick["gil_wait_time"] <= tick["application_time"]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_last_words_of_a_process_agree_with_its_life(profile):
    for items in by_pid(samples(profile, groups=2)).values():
        stopping, = of_kind(items, "process_stopping")
        stopped, = of_kind(items, "process_stopped")
        assert stopped["lifetime_request_count"] == sum(tick["request_count"] for tick in of_kind(items, "request_metrics"))
        assert stopped["process_uptime"] == pytest.approx(items[-1][0] - items[0][0])
        assert stopped["shutdown_reason"] == stopping["shutdown_reason"]
        assert stopped["active_requests_at_exit"] <= stopping["active_requests_at_decision"]
        assert stopped["graceful_drain"] == (0 if stopped["active_requests_at_exit"] else 1)


@pytest.mark.parametrize("profile", ["slow", "busy", "crash-loop"])
def test_a_slow_request_keeps_its_slot_busy_until_one_record_completes_it(profile):
    for pid, items in by_pid(samples(profile, processes=2)).items():
        over, known = set(), {}
        for at, tick in itertools.groupby(items, key=lambda item: item[0]):
            tick = [sample for _, sample in tick]
            slots = [sample.fields for sample in tick if KINDS[sample.kind] == "request_metrics"]
            for slow in [sample.fields for sample in tick if KINDS[sample.kind] == "slow_request"]:
                slot, log_id = slow["slow_thread_id"] - 1, slow["slow_log_id"]
                assert log_id not in over
                assert known.setdefault(log_id, (slow["slow_start_stamp"], slot)) == (slow["slow_start_stamp"], slot)
                assert slow["slow_duration"] == pytest.approx(slow["slow_application_time"], abs=1e-4)
                assert slow["slow_duration"] >= 1.0
                if slow["slow_record_state"]:
                    over.add(log_id)
                    assert slots[0]["request_threads_max_duration"][slot] >= int(slow["slow_application_time"] * 1000) / 1000
                    assert slow["slow_active_at_completion"] >= 1 and slow["slow_status"] >= 200
                else:
                    assert slots[0]["request_threads_current_elapsed"][slot] == pytest.approx(slow["slow_duration"], abs=2e-3)
                    assert slow["slow_active_at_completion"] == slow["slow_status"] == 0
                assert 1 <= slow["slow_active_at_start"] <= slots[0]["request_threads_maximum"]
        assert over or profile == "crash-loop"


def test_at_most_16_active_slow_requests_are_sent_a_tick_although_more_run():
    crowd = PROFILES["slow"]._replace(threads=40, hang_share=0.5, name="crowd")
    active, running = Counter(), Counter()
    for at, sample in samples(crowd, processes=1, duration=30.0):
        if sample.fields.get("slow_record_state") == 0:
            active[at] += 1
        if KINDS[sample.kind] == "request_metrics":
            running[at] = sum(1 for elapsed in sample.fields["request_threads_current_elapsed"] if elapsed >= 1.1)
    assert max(active.values()) == 16 and max(running.values()) == 40
    assert all(active[at] == 16 for at in running if running[at] >= 16)


@pytest.mark.parametrize("profile", ["steady", "gc-storm"])
def test_the_collections_of_an_interpreter_grow_by_its_events_and_those_that_were_dropped(profile):
    for items in by_pid(samples(profile, processes=3, groups=3)).values():
        held, before = Counter(), {}
        for _, sample in items:
            fields, name = sample.fields, sample.fields.get("interpreter_name", "")
            if KINDS[sample.kind] == "gc_snapshot":
                totals = [fields[f"gc_collections{generation}"] for generation in range(3)]
                if name in before:
                    held[name] += sum(totals) - sum(before[name]) - fields["gc_dropped_events"]
                    assert all(now >= then for now, then in zip(totals, before[name]))
                else:
                    held[name] += 9 - fields["gc_dropped_events"] + sum(totals) - 24     # 15 before the first event, 9 at start
                before[name] = totals
            if KINDS[sample.kind] == "gc_event":
                held[name] -= 1
                assert 0 < fields["gc_event_start_stamp"] <= sample.stamp
            assert 0 <= held[name] <= 256
        assert set(before) == {fields.get("interpreter_name", "") for fields in of_kind(items, "gc_snapshot")}
        if profile == "steady":
            assert set(held.values()) == {0}


# --- troubles that show -----------------------------------------------------------

def totals(items):
    """Weighted means over all ticks of: request_count, means by phase, capacity; and merged histograms."""
    ticks = of_kind(items, "request_metrics")
    number = sum(tick["request_count"] for tick in ticks)
    means = {phase: fsum(tick.get(f"{phase}_time", 0.0) * tick["request_count"] for tick in ticks) / number for phase in PHASES}
    merged = {phase: [sum(column) for column in zip(*[tick[f"{phase}_time_buckets"] for tick in ticks
                                                      if f"{phase}_time_buckets" in tick])] for phase in PHASES}
    return number, means, merged, [tick["capacity_utilization"] for tick in ticks]


def test_steady_is_healthy():
    items = samples("steady", duration=1200.0, processes=1)
    number, means, merged, capacity = totals(items)
    ticks = of_kind(items, "request_metrics")
    shares = {family: sum(tick[f"status_{family}xx_total"] for tick in ticks) / number for family in (2, 4, 5)}
    assert 0.93 < shares[2] < 0.97 and 0.005 < shares[4] < 0.015 and shares[5] < 0.001
    assert 0.05 < fsum(capacity) / len(capacity) < 0.4
    assert buckets.percentiles(merged["queue"], (0.95,))[0] < 0.01
    completed = [slow for slow in of_kind(items, "slow_request") if slow["slow_record_state"]]
    assert 0 < len(completed) < number / 300
    # the wave: the first half of its 600 s is above the second
    rates = [sum(tick["request_count"] for at, tick in ((at, sample.fields) for at, sample in items
             if KINDS[sample.kind] == "request_metrics") if low <= at % 600 < low + 300) for low in (0, 300)]
    assert 1.3 < rates[0] / rates[1] < 2.2


def test_busy_has_no_thread_free_and_requests_queue_for_seconds():
    items = samples("busy", processes=2, duration=120.0)
    late = [(at, sample) for at, sample in items if 10.0 < at < 118.0]
    _, _, merged, capacity = totals(late)
    assert min(capacity) > 0.97
    assert buckets.percentiles(merged["queue"], (0.95,))[0] > 1.0
    assert {(tick["request_threads_active"], tick["request_threads_maximum"]) for tick in of_kind(late, "request_metrics")} == {
        (10, 10)}


def test_gil_waits_are_a_third_of_the_application_time_and_have_the_shape_of_a_convoy():
    number, means, merged, _ = totals(samples("gil", processes=2))
    assert means["gil_wait"] > means["application"] / 3
    found = buckets.gil_coefficient(merged["gil_wait"], 0.005)
    assert found["reading"] == "convoy" and found["waits"] > number / 3


def test_slow_has_many_slow_requests_mostly_on_one_path_and_some_run_for_minutes():
    items = samples("slow", processes=1, duration=400.0)
    slow = {fields["slow_log_id"]: fields for fields in of_kind(items, "slow_request")}
    paths = Counter(fields["slow_path_info"] for fields in slow.values())
    assert len(slow) > 300
    assert paths.most_common(1)[0][0] == "/reports" and 0.8 < paths["/reports"] / len(slow) < 0.95
    assert max(fields["slow_duration"] for fields in of_kind(items, "slow_request") if not fields["slow_record_state"]) > 120


def test_leak_grows_one_process_by_a_mebibyte_a_second_and_no_other():
    grown = {}
    for pid, items in by_pid(samples("leak", duration=200.0)).items():
        rss = [tick["memory_rss"] for tick in of_kind(items, "request_metrics")]
        grown[pid] = (rss[-1] - rss[99]) >> 20
    assert 90 <= grown.pop(20000) <= 105
    assert max(grown.values()) <= 2


def test_gc_storm_pauses_for_long_and_loses_events():
    for pid, items in by_pid(samples("gc-storm", duration=30.0)).items():
        ticks = len(of_kind(items, "request_metrics"))
        events, snapshots = of_kind(items, "gc_event"), of_kind(items, "gc_snapshot")
        pauses = [event["gc_event_duration"] for event in events if event["gc_event_generation"] == 2]
        assert len(events) > 60 * ticks
        assert len(pauses) >= ticks and min(sorted(pauses)[len(pauses) // 2:]) > 0.05
        assert sum(snapshot["gc_dropped_events"] for snapshot in snapshots) > 100 * ticks


def test_crash_loop_kills_one_process_every_20_seconds_with_its_stuck_requests():
    items = samples("crash-loop", duration=95.0)
    lives = {pid: (found[0][0], of_kind(found, "process_stopped")[0], found[0][1].fields["process_group"])
             for pid, found in by_pid(items).items()}
    looping = [pid for pid in lives if pid % 4 == 20000 % 4]
    assert sorted(lives) == sorted(set(range(20000, 20004)) | set(looping)) and len(looping) == 5
    starts = [lives[pid][0] for pid in looping]
    assert all(20.0 <= later - earlier <= 21.5 for earlier, later in zip(starts, starts[1:]))
    for pid in looping[:-1]:
        stopped = lives[pid][1]
        assert (stopped["shutdown_reason"], stopped["graceful_drain"]) == ("request_timeout", 0)
        assert stopped["active_requests_at_exit"] >= 2
    assert {lives[pid][1]["shutdown_reason"] for pid in lives if pid not in looping[:-1]} == {"shutdown_signal"}


def test_deploy_restarts_all_in_turn_by_a_graceful_stop_and_goes_on():
    lives = by_pid(samples("deploy", duration=120.0))
    assert sorted(lives) == list(range(20000, 20008))
    ends = []
    for pid in range(20000, 20004):
        stopping, stopped = of_kind(lives[pid], "process_stopping")[0], of_kind(lives[pid], "process_stopped")[0]
        assert (stopped["shutdown_reason"], stopped["graceful_drain"]) == ("graceful_signal", 1)
        assert stopping["active_requests_at_decision"] == 0
        ends.append(lives[pid][-1][0])
        assert lives[pid + 4][0][0] == pytest.approx(ends[-1] + 1.0)
        assert sum(tick["request_count"] for tick in of_kind(lives[pid + 4], "request_metrics")) > 500
    assert all(10.0 + 5.0 * number <= end <= 30.0 + 5.0 * number for number, end in enumerate(ends))
