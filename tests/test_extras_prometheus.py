"""Prometheus' rules, tried by promtool: each alert fires on its trouble, and none on health."""
import json
import os
import re
import shutil
import struct
import subprocess

import pytest

import running
from builders import WALL, a_fleet, a_sender
from modwsgi_tel import findings, simulate
from modwsgi_tel.extras import prometheus
from modwsgi_tel.openmetrics.bounds import PHASE_BOUNDS, label
from modwsgi_tel.openmetrics.reading import Source
from modwsgi_tel.openmetrics.table import METRICS, labels_of, series_of
from modwsgi_tel.openmetrics.text import exposition
from modwsgi_tel.wire.fields import PHASES

FOLDER = os.path.join(running.ROOT, "modwsgi_tel", "extras", "static", "prometheus")
RECORDING, ALERTS, SCRAPE = (os.path.join(FOLDER, name) for name in ("recording.yml", "alerts.yml", "scrape.yml"))
STEP_S = 60                             # the most seldom that a Prometheus scrapes
AT = 3000                               # seconds, when it is looked at what fires
STEPS = AT // STEP_S
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'


def promtool(*arguments, cwd=None):
    if not shutil.which("promtool"):
        pytest.skip("no promtool (apt-get install prometheus)")
    done = subprocess.run(["promtool", *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=120)
    return done.returncode, done.stdout


# --- series as promtool's tests have them -------------------------------------------------------

def series(name, instance="web1:8888", **labels):
    told = {"instance": instance, "job": prometheus.JOB, **labels}
    return name + "{" + ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(told.items())) + "}"


def of_group(name, group="shop", instance="web1:8888", **labels):
    return series(name, instance, hostname=instance.split(":")[0], process_group=group, **labels)


def counts(step, steps=STEPS, start=0):
    """A counter that gains `step` at each scrape."""
    return f"{start}+{step}x{steps}"


def stays(value, steps=STEPS):
    return f"{value}+0x{steps}"


def histogram(name, a_step, at_s, **more):
    """{series: values} of a histogram into which so many observations of that length come at each scrape.

    Of its buckets there are those around that length; the others are None, in place of what was there.
    """
    bounds = [*PHASE_BOUNDS, float("inf")]
    upper = next(place for place, bound in enumerate(bounds) if bound >= at_s)
    kept = {upper - 1, upper, len(bounds) - 1}
    found = {of_group(name + "_bucket", le="+Inf" if bound == float("inf") else label(bound), **more):
             counts(a_step if place >= upper else 0) if place in kept else None for place, bound in enumerate(bounds)}
    return {**found, of_group(name + "_sum", **more): counts(a_step * at_s), of_group(name + "_count", **more): counts(a_step)}


def healthy(group="shop", instance="web1:8888"):
    """{series: values} of a group that serves ten requests a second, and of its collector."""
    def one(name, values, **labels):
        return {of_group(name, group, instance, **labels): values}

    who = {"group": group, "instance": instance}
    found = {series("up", instance): stays(1), series("modwsgi_collector_healthy", instance): stays(1),
             series("modwsgi_collector_datagrams_received_total", instance): counts(4 * STEP_S),
             series("modwsgi_collector_stalls_total", instance): stays(1), series("modwsgi_collector_gap_recent_seconds", instance): stays(0.02),
             series("modwsgi_collector_decode_errors_total", instance, reason="magic"): stays(2),
             series("modwsgi_collector_textfile_failures_total", instance): stays(0),
             series("modwsgi_collector_records_lost_bytes_total", instance): stays(0),
             'node_textfile_mtime_seconds{file="/var/lib/node/modwsgi.prom", instance="web1:9100", job="node"}': counts(STEP_S)}
    for rule in findings.RULES:
        found[series("modwsgi_collector_findings", instance, rule=rule.id, severity=rule.severity)] = stays(0)
    for name, a_step in (("requests_total", 600), ("slow_requests_completed_total", 0.8), ("exceptions_total", 2),
                         ("capacity_used_seconds_total", 0.4 * 240), ("sampled_seconds_total", 240), ("process_starts_total", 0.1),
                         ("datagrams_lost_total", 0.05)):
        found.update(one("modwsgi_" + name, counts(a_step)))
    for name, value in (("slow_requests_active", 1), ("processes_silent", 0), ("processes_vanished_total", 1), ("silence_longest_seconds", 0),
                        ("memory_rss_largest_bytes", 120e6), ("descriptors_used_ratio", 0.2)):
        found.update(one("modwsgi_" + name, stays(value)))
    for status, a_step in (("2xx", 590), ("3xx", 0), ("4xx", 6), ("5xx", 4)):
        found.update(one("modwsgi_responses_total", counts(a_step), status_class=status))
    for reason, a_step in (("graceful_signal", 0), ("maximum_requests", 0.8), ("request_timeout", 0), ("shutdown_signal", 0.4)):
        found.update(one("modwsgi_process_stops_total", counts(a_step), reason=reason))
    for name, at_s in (("request", 0.12), ("queue", 0.001), ("application", 0.1), ("gil_wait", 0.0004)):
        found.update(histogram(f"modwsgi_{name}_seconds", 600, at_s, **who))
    found.update(histogram("modwsgi_gc_pause_seconds", 120, 0.002, **who))
    return {each: values for each, values in found.items() if values is not None}


def as_tests(cases, at_s=AT):
    """promtool's verdict on {name: ({series: values}, expected)}; expected: alert names, or {expression: {labels: value}}."""
    tests = []
    for name, (given, expected) in cases.items():
        if not isinstance(expected, dict):
            expected = {FIRING: {f'{{alertname="{alert}"}}': 1 for alert in expected}}
        tests.append({"name": name, "interval": f"{STEP_S}s", "input_series": [{"series": each, "values": values} for each, values in given.items()],
                      "promql_expr_test": [{"expr": expr, "eval_time": f"{at_s}s", "exp_samples": [
                          {"labels": labels, "value": value} for labels, value in samples.items()]} for expr, samples in expected.items()]})
    return tests


def passes(folder, tests, rules=ALERTS):
    path = folder / "tests.json"            # JSON is YAML
    path.write_text(json.dumps({"rule_files": [rules], "evaluation_interval": f"{STEP_S}s", "tests": tests}))
    status, said = promtool("test", "rules", str(path))
    assert status == 0, said[-6000:]


# --- the files ------------------------------------------------------------------------------------

def test_promtool_finds_no_fault_in_the_rules():
    status, said = promtool("check", "rules", "--lint=all", "--lint-fatal", RECORDING, ALERTS)
    assert (status, re.findall(r"SUCCESS: (\d+) rules", said)) == (0, [str(len(prometheus.recordings())), str(len(prometheus.ALERTS))]), said


def test_promtool_finds_no_fault_in_the_configuration(tmp_path):
    with open(SCRAPE, encoding="utf-8") as handle:
        text = handle.read()
    assert text.count("/etc/prometheus/rules/modwsgi-tel-recording.yml") == text.count("/etc/prometheus/rules/modwsgi-tel-alerts.yml") == 1
    (tmp_path / "modwsgi-tel.token").write_text("secret\n")
    for name, path in (("recording", RECORDING), ("alerts", ALERTS)):
        shutil.copy(path, tmp_path / f"modwsgi-tel-{name}.yml")
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/rules", str(tmp_path)).replace(
        "credentials_file: /etc/prometheus", f"credentials_file: {tmp_path}"))
    status, said = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert status == 0 and f"job_name: {prometheus.JOB}\n" in text, said


def test_every_rule_asks_for_metrics_that_there_are_with_labels_that_they_have():
    known = {name: metric for metric in METRICS for name in series_of(metric)}
    for expr in [each.expr for each in prometheus.recordings()] + [alert.expr for alert in prometheus.ALERTS]:
        names = re.findall(r"\b(modwsgi_\w+)(?:\{(\w+))?", re.sub(r'"[^"]*"', '""', expr))
        assert names or re.match(r"up\{|time\(\)", expr), expr
        for name, asked in names:
            assert name in known, (name, expr)
            assert not asked or asked in (*labels_of(known[name]), "le"), (asked, expr)


def test_the_names_of_recording_rules_follow_the_conventions():
    names = [each.name for each in prometheus.recordings()]
    assert len(names) == len(set(names))
    assert [name for name in names if not re.fullmatch(r"(group|fleet):modwsgi_[a-z0-9_]+:[a-z0-9_]+", name) or "_total" in name] == []
    for phase in PHASES:
        assert {f"{level}:modwsgi_{phase}_seconds:{label}_5m" for level in ("group", "fleet") for label in ("p50", "p95", "p99", "mean")} <= set(names)


def test_an_alert_mirrors_each_finding_that_is_more_than_worth_knowing_and_says_what_to_do():
    assert {rule for alert in prometheus.ALERTS for rule in alert.rules} == {rule.id for rule in findings.RULES if rule.severity != findings.INFO}
    for alert in prometheus.ALERTS:
        told = prometheus.annotations(alert)
        assert sorted(told) == ["description", "runbook", "summary"] and all(told.values())
        assert "$labels" in told["summary"] or alert.name == "ModwsgiCollectorAbsent"
        assert alert.severity in ("critical", "warning") and re.fullmatch(r"\d+[sm]", alert.lasting)
    names = [alert.name for alert in prometheus.ALERTS]
    assert len(set(names)) == len(names)


def test_the_commands_in_the_runbooks_are_taken_as_they_stand():
    from modwsgi_tel.options import read
    for alert in prometheus.ALERTS:
        command, *words = alert.look.split()
        read(command, words, {})


# --- alerts ---------------------------------------------------------------------------------------

def finding(rule):
    severity = next(each.severity for each in findings.RULES if each.id == rule)
    return {series("modwsgi_collector_findings", rule=rule, severity=severity): stays(1)}


def burst(name, times, **labels):
    """A counter that has gained so much within the last minutes."""
    return {of_group("modwsgi_" + name, **labels): f"0+0x{STEPS - 3} {times}+0x3"}


# {what is wrong: (series in place of the healthy ones, None without one; the alerts that fire)}
TROUBLES = {
    "the collector is down": ({series("up"): f"1+0x{STEPS - 8} 0+0x8"}, {"ModwsgiCollectorDown"}),
    "a collector that was there is gone, and no other there": ({each: None for each in healthy() if "modwsgi_" in each or "up" in each},
                                                               {"ModwsgiCollectorAbsent"}),
    "the collector cannot do its work": ({series("modwsgi_collector_healthy"): f"1+0x{STEPS - 8} 0+0x8"}, {"ModwsgiCollectorUnhealthy"}),
    "the collector stands still again and again": ({series("modwsgi_collector_stalls_total"): f"1+0x{STEPS - 30} 1+1x30"}, {"ModwsgiCollectorBehind"}),
    "the collector stood still for long": ({series("modwsgi_collector_gap_recent_seconds"): f"0+0x{STEPS - 2} 7+0x2"}, {"ModwsgiCollectorBehind"}),
    "the disk is full": ({series("modwsgi_collector_records_lost_bytes_total"): f"0+0x{STEPS - 4} 0+5000x4"}, {"ModwsgiCollectorCannotWrite"}),
    "the file of metrics cannot be written": ({series("modwsgi_collector_textfile_failures_total"): f"0+0x{STEPS - 4} 0+1x4"},
                                              {"ModwsgiCollectorCannotWrite"}),
    "nobody writes the file any more": ({'node_textfile_mtime_seconds{file="/var/lib/node/modwsgi.prom", instance="web1:9100", job="node"}':
                                         f"0+{STEP_S}x{STEPS - 30} {AT - 450}+0x30"}, {"ModwsgiTextfileStale"}),
    "Apache has ended": ({series("modwsgi_collector_datagrams_received_total"): f"0+240x{STEPS - 12} {240 * (STEPS - 12)}+0x12"},
                         {"ModwsgiNothingArrives"}),
    "datagrams are lost": ({of_group("modwsgi_datagrams_lost_total"): f"0+0x{STEPS - 8} 0+4x8"}, {"ModwsgiDatagramsLost"}),
    "somebody sends nonsense": ({series("modwsgi_collector_decode_errors_total", reason="magic"): f"0+0x{STEPS - 8} 0+2x8"},
                                {"ModwsgiDatagramsWrong"}),
    "a process is silent": ({of_group("modwsgi_processes_silent"): f"0+0x{STEPS - 4} 1+0x4"}, {"ModwsgiProcessesSilent"}),
    "a process was killed": (burst("processes_vanished_total", 1), {"ModwsgiProcessVanished"}),
    "one process after the other dies": (burst("processes_vanished_total", 4), {"ModwsgiProcessVanished", "ModwsgiCrashLoop"}),
    "one process after the other is ended by its timeout": (burst("process_stops_total", 4, reason="request_timeout"), {"ModwsgiCrashLoop"}),
    "all threads are busy": ({of_group("modwsgi_capacity_used_seconds_total"): f"0+96x{STEPS - 9} {96 * (STEPS - 9)}+236x9"},
                             {"ModwsgiCapacityExhausted"}),
    "threads are busy for long": ({of_group("modwsgi_capacity_used_seconds_total"): counts(204)}, {"ModwsgiCapacityHigh"}),
    "requests wait for a thread": (histogram("modwsgi_queue_seconds", 600, 0.7), {"ModwsgiQueueing"}),
    "some responses are errors": ({of_group("modwsgi_responses_total", status_class="5xx"): counts(60)}, {"ModwsgiErrors"}),
    "most responses are errors": ({of_group("modwsgi_responses_total", status_class="5xx"): counts(600)}, {"ModwsgiErrors", "ModwsgiErrorsMany"}),
    "the application raises": ({of_group("modwsgi_exceptions_total"): counts(80)}, {"ModwsgiExceptions"}),
    "requests take long": (histogram("modwsgi_request_seconds", 600, 3.0), {"ModwsgiLatencyHigh"}),
    "requests are slow": ({of_group("modwsgi_slow_requests_completed_total"): counts(48)}, {"ModwsgiSlowRequests"}),
    "a request is stuck": (finding("stuck-request"), {"ModwsgiRequestStuck"}),
    "a process does not stop": (finding("stopping-long"), {"ModwsgiStoppingLong"}),
    "threads fight for the GIL": (histogram("modwsgi_gil_wait_seconds", 600, 0.03), {"ModwsgiGilContention"}),
    "some long waits for the GIL": ({**histogram("modwsgi_gil_wait_seconds", 600, 0.06), **histogram("modwsgi_application_seconds", 600, 0.9)},
                                    {"ModwsgiGilContention"}),
    "garbage collections all the time": (histogram("modwsgi_gc_pause_seconds", 400, 0.09), {"ModwsgiGarbageCollection"}),
    "more garbage collections than can be told": ({of_group("modwsgi_gc_events_dropped_total"): counts(150)}, {"ModwsgiGarbageCollection"}),
    "a leak": ({of_group("modwsgi_memory_rss_largest_bytes"): f"120000000+6000000x{STEPS}"}, {"ModwsgiMemoryGrowth"}),
    "nearly no descriptors are left": ({of_group("modwsgi_descriptors_used_ratio"): stays(0.85)}, {"ModwsgiDescriptors"}),
}

# {what is no trouble: series in place of the healthy ones, None without one}
HEALTH = {
    "an ordinary hour": {},
    "a collector that has just been started, with processes that fill their caches": {
        **{each: f"_x{STEPS - 12} {values.rpartition('x')[0]}x12" for each, values in healthy().items() if "modwsgi_" in each and "{" in each},
        of_group("modwsgi_memory_rss_largest_bytes"): f"_x{STEPS - 12} 50000000+20000000x12",
        series("modwsgi_collector_healthy", "web2:8888"): stays(1)},
    "the collector was restarted": {each: f"{values.rpartition('x')[0]}x{STEPS // 2} {values.rpartition('x')[0]}x{STEPS // 2 - 1}"
                                    for each, values in healthy().items() if "_total" in each or "_bucket" in each or "_sum" in each or "_count" in each},
    "Apache was reloaded": {**burst("process_stops_total", 8, reason="graceful_signal"), **burst("process_starts_total", 8)},
    "nobody asks for anything": {each: stays(0) for each in healthy() if re.match(
        "modwsgi_(requests|responses|exceptions|slow_requests_completed)_total|modwsgi_[a-z_]+_seconds_(bucket|sum|count)", each)},
    "one request failed": {**{each: stays(0) for each in healthy() if re.search("(responses|requests|completed)_total", each)},
                           **burst("responses_total", 1, status_class="5xx"), **burst("requests_total", 1)},
    "an application without agents and files": {each: None for each in healthy() if re.match("modwsgi_(exceptions|gc_pause|descriptors)|node_", each)},
    "memory that has found its size": {of_group("modwsgi_memory_rss_largest_bytes"): "50000000+8000000x15 170000000+0x34"},
    "memory that goes up and down": {of_group("modwsgi_memory_rss_largest_bytes"): " ".join(["50000000+8000000x9"] * 5)},
    "a scrape now and then fails": {series("up"): " ".join(["1+0x5", "0", "1+0x5"] * 4)},
    "a pause of the collector": {series("modwsgi_collector_stalls_total"): f"1+0x{STEPS - 10} 2+0x10",
                                 series("modwsgi_collector_gap_recent_seconds"): f"0+0x{STEPS - 5} 1.4+0x5"},
}


def changed(changes):
    given = {**healthy(), **changes}
    return {each: values for each, values in given.items() if values is not None}


def test_each_alert_fires_on_its_trouble_alone(tmp_path):
    assert {name for _, alerts in TROUBLES.values() for name in alerts} == {alert.name for alert in prometheus.ALERTS}
    passes(tmp_path, as_tests({name: (changed(changes), alerts) for name, (changes, alerts) in TROUBLES.items()}))


def test_no_alert_fires_on_health(tmp_path):
    tests = as_tests({name: (changed(changes), ()) for name, changes in HEALTH.items()})
    for test in tests:                      # nor at any minute before
        asked = [{"expr": FIRING, "eval_time": f"{at}s", "exp_samples": []} for at in range(0, AT, 60)]
        test["promql_expr_test"] += asked
    passes(tmp_path, tests)


def test_the_trouble_of_one_group_is_not_the_others_and_says_whose_it_is(tmp_path):
    given = {**healthy(), **healthy("", "web2:8888"), of_group("modwsgi_responses_total", "", "web2:8888", status_class="5xx"): counts(600)}
    alert = next(each for each in prometheus.ALERTS if each.name == "ModwsgiErrorsMany")
    told = {**prometheus.annotations(alert), "summary": "50.17% of the responses of embedded mode on web2:8888 are 5xx"}
    fired = {"exp_labels": {"severity": "critical", "job": prometheus.JOB, "instance": "web2:8888", "hostname": "web2"}, "exp_annotations": told}
    test, = as_tests({"one of two": (given, {"ModwsgiErrors", "ModwsgiErrorsMany"})})
    passes(tmp_path, [{**test, "alert_rule_test": [{"eval_time": f"{AT}s", "alertname": alert.name, "exp_alerts": [fired]}]}])


# --- recording rules --------------------------------------------------------------------------------

def test_recording_rules_give_rates_percentiles_and_shares_by_group_and_by_fleet(tmp_path):
    given = {**healthy(), **healthy(instance="web2:8888"), of_group("modwsgi_requests_total", instance="web2:8888"): counts(1200)}
    for instance in ("web1:8888", "web2:8888"):
        given[of_group("modwsgi_memory_rss_bytes", instance=instance)] = stays(400e6)
    one, two = ('hostname="%s", instance="%s:8888", job="modwsgi-tel", process_group="shop"' % (name, name) for name in ("web1", "web2"))
    fleet = 'job="modwsgi-tel", process_group="shop"'

    def said(name, *samples):
        return {name: {"%s{%s}" % (name, labels): value for labels, value in samples}}

    expected = {}
    for name, samples in (
            ("group:modwsgi_requests:rate5m", [(one, 10), (two, 20)]), ("fleet:modwsgi_requests:rate5m", [(fleet, 30)]),
            ("group:modwsgi_capacity:share_5m", [(one, 0.4), (two, 0.4)]), ("fleet:modwsgi_capacity:share_5m", [(fleet, 0.4)]),
            ("fleet:modwsgi_memory_rss_bytes:sum", [(fleet, 800e6)])):
        expected.update(said(name, *samples))
    expected["round(fleet:modwsgi_errors:share_5m, 0.0001)"] = {"{%s}" % fleet: 0.0067}
    for level in ("group", "fleet"):        # all in the bucket from 96 to 128 ms
        expected[f"round({level}:modwsgi_request_seconds:p95_5m, 0.0001)"] = {
            "{%s}" % labels: 0.1264 for labels in ((one, two) if level == "group" else (fleet,))}
        expected[f"round({level}:modwsgi_request_seconds:mean_5m, 0.0001)"] = {
            "{%s}" % labels: 0.12 for labels in ((one, two) if level == "group" else (fleet,))}
    passes(tmp_path, as_tests({"two hosts": (given, expected)}), RECORDING)


# --- out of a real fold -------------------------------------------------------------------------------

FOLDED_S = 780


def scraped(profile, processes):
    """{series: values} of a collector to which a made-up fleet has sent, scraped each STEP_S."""
    fleet, found, due = a_fleet(), {}, 0.0
    for at, datagram in simulate.stream(profile, processes, 1, 2.0, FOLDED_S + 1.0, "1", WALL):
        while at >= due:
            fleet.expire(due, WALL + due)
            for line in b"".join(exposition(Source(fleet, [], {}, True, due, WALL + due))).decode().splitlines():
                if not line.startswith("#"):
                    name, value = line.rsplit(" ", 1)
                    _, more = labelled = name.rstrip("}").partition("{")[::2]
                    place = series("", **{}).strip("{}") + (", " + more if more else "")
                    found.setdefault(f"{labelled[0]}{{{place}}}", {})[round(due / STEP_S)] = value
            due += STEP_S
        fleet.apply(datagram, a_sender(struct.unpack_from("<I", datagram, 8)[0]), at, WALL + at)
    steps = FOLDED_S // STEP_S
    return {name: " ".join(values.get(step, "_") for step in range(steps + 1)) for name, values in found.items()}


@pytest.mark.parametrize("profile, alerts", [
    ("steady", set()), ("deploy", set()), ("gil", {"ModwsgiGilContention"}), ("gc-storm", {"ModwsgiGarbageCollection"}),
    ("crash-loop", {"ModwsgiCrashLoop"}), ("busy", {"ModwsgiCapacityExhausted", "ModwsgiQueueing", "ModwsgiLatencyHigh"}),
    ("slow", {"ModwsgiSlowRequests", "ModwsgiLatencyHigh"})])
def test_alerts_say_of_a_simulated_fleet_what_is_wrong_with_it(profile, alerts, tmp_path):
    given = {**scraped(profile, 1 if alerts else 2), series("up"): stays(1)}
    assert series("modwsgi_collector_healthy") in given and len(given) > 200
    passes(tmp_path, as_tests({profile: (given, alerts)}, FOLDED_S))
