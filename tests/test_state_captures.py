"""Every capture, folded: loss none, and the sums are what the processes themselves say of their lives.

The rule: `lifetime_request_count` of process_stopped counts the requests that were completed when it was sent.
The last tick comes before it and has them all, unless one completes between the two, or in a last tick that
follows process_stopped.  In these captures neither happened, so the sums are equal; were they not, the difference
would have to be the requests of the ticks after process_stopped.
"""
from collections import Counter, defaultdict

import pytest

from builders import NAMES, capture, replayed
from modwsgi_tel.state import view
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.fields import PHASES

STATUSES = ("status_1xx", "status_2xx", "status_3xx", "status_4xx", "status_5xx")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost_nor_late_nor_doubled_nor_wrong(name):
    fleet = replayed(name)
    assert fleet.decode_errors == 0 and fleet.received == len(capture(name))
    for process in fleet.processes():
        assert {source: (sequence.lost, sequence.late, sequence.duplicates, sequence.first)
                for source, sequence in process.sources.items()} == {"reporter": (0, 0, 0, 1)}
        assert process.odd == 0
    kinds = Counter(decode(datagram).kind for _, _, datagram in capture(name))
    assert {kind: count for kind, count in enumerate(fleet.kinds) if count} == kinds


@pytest.mark.parametrize("name", NAMES)
def test_the_requests_of_the_ticks_are_those_of_the_life(name):
    fleet, compared = replayed(name), 0
    for process in fleet.processes():
        shown = view.process_view(process, 0.0, 0.0)
        assert sum(shown["counters"][status] for status in STATUSES) == shown["counters"]["requests"]
        if shown["stopped"]:
            assert shown["counters"]["requests"] == shown["stopped"]["requests"]
            compared += 1
    assert compared >= len(fleet.processes()) - 2       # of lifecycle two end without a process_stopped, of daemon_mixed one


@pytest.mark.parametrize("name", NAMES)
def test_the_counters_are_the_sums_of_the_raw_fields(name):
    fleet, truth = replayed(name), defaultdict(Counter)
    for _, pid, datagram in capture(name):
        sample = decode(datagram)
        fields, held = sample.fields, truth[pid]
        if sample.kind == 2:
            held["requests"] += fields["request_count"]
            for status in STATUSES:
                held[status] += fields[status + "_total"]
            if fields["request_count"]:
                for name_ in ("input_bytes", "input_reads", "output_bytes", "output_writes"):
                    held[name_] += fields[name_ + "_total"]
        elif sample.kind == 9:
            held["gc_pauses"] += 1
            held["gc_seconds"] += fields["gc_event_duration"]
        elif sample.kind == 8:
            held["gc_dropped_events"] += fields["gc_dropped_events"]
        elif sample.kind == 4 and fields["slow_record_state"]:
            held["slow_completed"] += 1
    for process in fleet.processes():
        shown = view.process_view(process, 0.0, 0.0)["counters"]
        assert shown == {key: pytest.approx(truth[process.pid][key]) for key in shown}
    totals = view.summary(fleet, 1e6, 0.0)["totals"]["counters"]
    assert totals == {key: pytest.approx(sum(held[key] for held in truth.values())) for key in totals}


def test_the_lives_of_the_lifecycle_capture_are_those_of_its_timeline():
    fleet = replayed("lifecycle")
    began = capture("lifecycle")[0][0]
    last = capture("lifecycle")[-1][0] - began
    fleet.expire(last + 60, began + last + 60)
    shown = {process.pid: (process.life, (process.stopped or process.stopping or {"reason": None})["reason"])
             for process in fleet.processes()}
    assert shown == {
        8928: ("stopped", "shutdown_signal"), 8929: ("stopping", "shutdown_signal"), 9298: ("stopped", "graceful_signal"),
        9299: ("stopped", "shutdown_signal"), 9443: ("silent", None), 9485: ("stopped", "shutdown_signal"),
        9516: ("stopped", "shutdown_signal"), 9551: ("stopped", "shutdown_signal"), 9583: ("stopped", "shutdown_signal"),
        9584: ("stopped", "shutdown_signal"), 9703: ("stopped", "maximum_requests"), 9704: ("stopped", "maximum_requests"),
        9776: ("stopped", "maximum_requests"), 9777: ("stopped", "maximum_requests"), 9857: ("stopped", "request_timeout"),
        9896: ("stopped", "shutdown_signal"), 9982: ("stopped", "shutdown_signal"), 10052: ("stopped", "script_reload"),
        10104: ("stopped", "restart_interval"), 10381: ("stopped", "shutdown_signal")}


def test_apache_children_that_serve_no_python_are_shown_apart():
    rows = view.summary(replayed("subinterp"), 0.0, 0.0)["processes"]
    assert Counter((row["process_group"], row["role"]) for row in rows) == {
        ("grp", "daemon"): 1, ("other", "daemon"): 2, ("", "apache-child"): 4}


@pytest.mark.parametrize("name", NAMES)
def test_windows_of_a_capture_add_up_to_its_raw_histograms(name):
    """All of it lies in ten minutes, so the long window holds everything."""
    fleet = replayed(name)
    rows = defaultdict(lambda: [0] * 65)
    for _, _, datagram in capture(name):
        sample = decode(datagram)
        for phase in PHASES if sample.kind == 2 else ():
            if sample.fields["request_count"] and f"{phase}_time_buckets" in sample.fields:
                rows[phase] = [a + b for a, b in zip(rows[phase], sample.fields[f"{phase}_time_buckets"])]
    end = capture(name)[-1][0] - capture(name)[0][0]
    for phase in PHASES:
        found = view.run(view.histogram_steps(fleet, phase, "10m", None, end))
        assert (found["counts"] or [0] * 65) == rows[phase]
