"""Prometheus' recording and alerting rules, as YAML, out of METRICS and the thresholds of `findings`.  Imported by docgen alone.

Alerts rest on the metrics themselves, not on the recording rules, so that each file works without the other.  Rates are over five
minutes: four scrapes of a Prometheus that scrapes once a minute.
"""
import json
from collections import namedtuple

from modwsgi_tel import findings
from modwsgi_tel.figures import duration, percent, size
from modwsgi_tel.openmetrics.table import COUNTER, GROUP, HISTOGRAM, METRICS
from modwsgi_tel.state.facts import FULL_CAPACITY

JOB = "modwsgi-tel"                     # of the scrape configuration
WINDOW = "5m"
QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
LEVELS = (("group", ()), ("fleet", ("instance", "hostname")))          # and the labels that a level is without; others stay, whatever they are

CAPACITY_HIGH = 0.8
ERRORS_MANY = 0.25
LATENCY_S = 2.048                       # a bound of the buckets, so that nothing is interpolated
GROWTH_BYTES_HOUR = 200_000_000         # of the largest process, steadily
BEHIND_S = 5.0
TEXTFILE_OLD_S = 300

Recording = namedtuple("Recording", "name expr")

Alert = namedtuple("Alert", "name rules severity lasting expr summary advice look", defaults=("", "why"))
Alert.__doc__ = """rules: the ids in `findings` that it mirrors.  severity: a label.  lasting: for how long expr holds before it fires.  summary: a
template, in one line.  advice: what to do, where the first of the rules does not say it.  look: the command that tells more."""


# --- recording rules ---------------------------------------------------------------------------

def _rate(series):
    return f"rate({series}[{WINDOW}])"


def _increase(series, window=WINDOW):
    return f"increase({series}[{window}])"


def _sum(expr, without):
    return f"sum without ({', '.join(without)}) ({expr})" if without else expr


def _share(above, below, without=()):
    return f"{_sum(_rate(above), without)} / {_sum(_rate(below), without)}"


def _quantile(name, quantile, without=()):
    return f"histogram_quantile({quantile}, {_sum(_rate(name + '_bucket'), without)})"


_SHARES = (("capacity", "modwsgi_capacity_used_seconds_total", "modwsgi_sampled_seconds_total"),
           ("gil_contention", "modwsgi_gil_wait_seconds_sum", "modwsgi_application_seconds_sum"),
           ("gc_pauses", "modwsgi_gc_pause_seconds_sum", "modwsgi_sampled_seconds_total"))
_FAILED, _RESPONSES = 'modwsgi_responses_total{status_class="5xx"}', "modwsgi_responses_total"
_SUMS = ("modwsgi_memory_rss_bytes", "modwsgi_threads_active", "modwsgi_threads_maximum", "modwsgi_slow_requests_active",
         "modwsgi_processes_silent")


def recordings():
    """Each Recording.  Its name is level:metric:operation, as Prometheus' conventions have it; group: a process group of one host,
    fleet: those of that name on all hosts."""
    found = []
    for level, without in LEVELS:
        for metric in METRICS:
            if metric.scope == GROUP and metric.type == COUNTER:
                found.append(Recording(f"{level}:{metric.name[:-len('_total')]}:rate{WINDOW}", _sum(_rate(metric.name), without)))
        for metric in METRICS:
            if metric.scope == GROUP and metric.type == HISTOGRAM:
                found += [Recording(f"{level}:{metric.name}:{label}_{WINDOW}", _quantile(metric.name, quantile, without))
                          for label, quantile in QUANTILES]
                found.append(Recording(f"{level}:{metric.name}:mean_{WINDOW}", _share(metric.name + "_sum", metric.name + "_count", without)))
        found += [Recording(f"{level}:modwsgi_{name}:share_{WINDOW}", _share(above, below, without)) for name, above, below in _SHARES]
        found.append(Recording(f"{level}:modwsgi_errors:share_{WINDOW}", _share(_FAILED, _RESPONSES, (*without, "status_class"))))
    return found + [Recording(f"fleet:{name}:sum", _sum(name, dict(LEVELS)["fleet"])) for name in _SUMS]


# --- alerts --------------------------------------------------------------------------------------

_WHO = '{{ or $labels.process_group "embedded mode" }} on {{ $labels.instance }}'
_HOST = "{{ $labels.instance }}"
_ENOUGH = f"{_increase('modwsgi_requests_total')} >= {findings.REQUESTS_LEAST}"
_NOT_ASKED = "|".join(sorted(findings.ASKED_FOR | findings.LIMITS))
_PERCENT = "{{ $value | humanizePercentage }}"
_SECONDS = "{{ $value | humanizeDuration }}"
_NUMBER = '{{ $value | printf "%.0f" }}'

_CAPACITY, _GIL, _GC = (_share(above, below) for _, above, below in _SHARES)
_GIL_MEAN = _share("modwsgi_gil_wait_seconds_sum", "modwsgi_gil_wait_seconds_count")
_ERRORS = _share(_FAILED, _RESPONSES, ("status_class",))
_SLOW = f"({_increase('modwsgi_slow_requests_completed_total')} + modwsgi_slow_requests_active)"

ALERTS = (
    # --- the collector
    Alert("ModwsgiCollectorDown", (), "critical", "1m", f'up{{job="{JOB}"}} == 0',
          f"the collector of {_HOST} does not answer",
          "See on the host whether it runs, and why it ended: systemctl status modwsgi-tel.  Until it runs again nothing is known of the "
          "host's processes; they themselves go on.", "doctor"),
    Alert("ModwsgiCollectorAbsent", (), "critical", "5m", "absent(modwsgi_collector_healthy)",
          "no collector tells anything to this Prometheus",
          f"See in Prometheus' targets whether job {JOB} is there, and what it says.", "doctor"),
    Alert("ModwsgiCollectorUnhealthy", ("collector",), "critical", "1m", "modwsgi_collector_healthy == 0",
          f"the collector of {_HOST} cannot do its work",
          "Its /healthz says what is wrong, as does its log: its socket was removed, or what it writes cannot be written.", "doctor"),
    Alert("ModwsgiCollectorBehind", ("collector",), "warning", "0s",
          f"{_increase('modwsgi_collector_stalls_total', '10m')} >= 2 or modwsgi_collector_gap_recent_seconds >= {BEHIND_S:g}",
          f"the collector of {_HOST} stood still",
          "The machine has too little CPU, swaps, or the collector was stopped: meanwhile datagrams wait in the socket's queue, and "
          "the reporters of the processes with them.  See its load, and what the collector's own view shows.", "top --view collector"),
    Alert("ModwsgiCollectorCannotWrite", ("collector",), "warning", "0s",
          f"{_increase('modwsgi_collector_textfile_failures_total', '10m')} > 0 or {_increase('modwsgi_collector_records_lost_bytes_total', '10m')} > 0",
          f"the collector of {_HOST} cannot write its files",
          "Its log names the file: see whether the disk is full, or the folder gone."),
    Alert("ModwsgiTextfileStale", (), "critical", "0s",
          f'time() - node_textfile_mtime_seconds{{file=~".*modwsgi.*"}} > {TEXTFILE_OLD_S}',
          f"the metrics in {{{{ $labels.file }}}} on {_HOST} are {_SECONDS} old",
          "serve --textfile writes them no more, and node_exporter goes on to show the last: see whether the collector runs.", "doctor"),
    Alert("ModwsgiNothingArrives", ("nothing-runs", "silent"), "critical", "2m",
          f"{_rate('modwsgi_collector_datagrams_received_total')} == 0",
          f"nothing arrives at the collector of {_HOST}",
          "See whether Apache runs there, and whether it may write to the collector's socket.", "doctor"),
    Alert("ModwsgiDatagramsLost", ("losing",), "warning", "0s",
          f"sum without (hostname, process_group) ({_increase('modwsgi_datagrams_lost_total')}) >= {findings.LOST_LEAST}",
          f"{_NUMBER} datagrams to the collector of {_HOST} were lost in {WINDOW}", look="top --view collector"),
    Alert("ModwsgiDatagramsWrong", ("wrong-datagrams",), "warning", "0s",
          f"sum without (reason) ({_increase('modwsgi_collector_decode_errors_total')}) >= {findings.WRONG_LEAST}",
          f"{_NUMBER} datagrams to the collector of {_HOST} were no telemetry in {WINDOW}", look="top --view collector"),
    # --- processes
    Alert("ModwsgiProcessesSilent", ("silent",), "critical", "30s", "modwsgi_processes_silent > 0",
          f"{_NUMBER} processes of {_WHO} are silent", look="stacks --apache"),
    Alert("ModwsgiProcessVanished", ("vanished",), "warning", "0s", f"{_increase('modwsgi_processes_vanished_total', '10m')} > 0",
          f"{_NUMBER} processes of {_WHO} went without a word", look="why --since 1h"),
    Alert("ModwsgiCrashLoop", ("restarting", "vanished"), "critical", "0s",
          f"sum without (reason) (\n  {_increase(f'modwsgi_process_stops_total{{reason!~{json.dumps(_NOT_ASKED)}}}', '10m')}\n"
          f"  or {_increase('modwsgi_processes_vanished_total', '10m')}\n) >= {findings.RESTARTS}",
          f"{_NUMBER} processes of {_WHO} ended in 10m though nobody had asked for it", look="why --since 1h"),
    # --- capacity
    Alert("ModwsgiCapacityExhausted", ("threads-busy",), "critical", "2m",
          f"{_CAPACITY} >= {FULL_CAPACITY}",
          f"the threads of {_WHO} are busy {_PERCENT} of the time"),
    Alert("ModwsgiCapacityHigh", ("threads-busy",), "warning", "15m",
          f"{_CAPACITY} >= {CAPACITY_HIGH}",
          f"the threads of {_WHO} are busy {_PERCENT} of the time"),
    Alert("ModwsgiQueueing", ("queueing",), "warning", "2m",
          f"{_quantile('modwsgi_queue_seconds', 0.95)} >= {findings.QUEUE_P95_S}\nand {_ENOUGH}",
          f"requests of {_WHO} wait for a thread: queue time p95 {_SECONDS}"),
    # --- requests
    Alert("ModwsgiErrors", ("errors",), "warning", "2m",
          f"{_ERRORS} >= {findings.ERROR_SHARE}\nand sum without (status_class) ({_increase(_FAILED)}) >= {findings.ERRORS_LEAST}\n"
          f"and {_ENOUGH}",
          f"{_PERCENT} of the responses of {_WHO} are 5xx", look="why --since 1h"),
    Alert("ModwsgiErrorsMany", ("errors",), "critical", "2m",
          f"{_ERRORS} >= {ERRORS_MANY}\nand {_ENOUGH}",
          f"{_PERCENT} of the responses of {_WHO} are 5xx", look="why --since 1h"),
    Alert("ModwsgiExceptions", (), "warning", "2m",
          f"{_share('modwsgi_exceptions_total', 'modwsgi_requests_total')} >= {findings.ERROR_SHARE}\nand {_ENOUGH}",
          f"exceptions leave the application of {_WHO} in {_PERCENT} of its requests",
          "The view of exceptions shows each kind once, with its place.", "top --view exceptions"),
    Alert("ModwsgiLatencyHigh", (), "warning", "10m",
          f"{_quantile('modwsgi_request_seconds', 0.95)} > {LATENCY_S}\nand {_ENOUGH}",
          f"requests of {_WHO} take long: p95 {_SECONDS}",
          "See in which phase the time goes: queue, application, or a client that reads slowly.  What is long is for the application to say: "
          "set the number in this rule.", "top --view latency"),
    Alert("ModwsgiSlowRequests", ("slow-requests",), "warning", "2m",
          f"{_SLOW} >= {findings.SLOW_LEAST}\n"
          f"and {_SLOW} / ({_increase('modwsgi_requests_total')} + modwsgi_slow_requests_active) >= {findings.SLOW_SHARE}",
          f"{_NUMBER} requests of {_WHO} are slow, {percent(findings.SLOW_SHARE)} or more of all", look="top --view slow"),
    Alert("ModwsgiRequestStuck", ("stuck-request",), "warning", "1m", 'modwsgi_collector_findings{rule="stuck-request"} > 0',
          f"a request on {_HOST} runs for {duration(findings.STUCK_S)} or longer", look="top --view slow"),
    # --- inside of a process
    Alert("ModwsgiGilContention", ("gil-contention",), "warning", "5m",
          f"({_GIL} >= {findings.GIL_SHARE} and {_GIL_MEAN} >= {findings.GIL_LEAST_S})\n"
          f"or ({_GIL} >= {findings.GIL_SHARE_LONG} and {_GIL_MEAN} >= {findings.GIL_LONG_S})",
          f"requests of {_WHO} wait for the GIL for {_PERCENT} of their time in the application", look="hot --apache --gil"),
    Alert("ModwsgiGarbageCollection", ("gc-pauses",), "warning", "5m",
          f"{_GC} >= {findings.GC_SHARE}\nor rate(modwsgi_gc_events_dropped_total[{WINDOW}]) * 60 >= {findings.GC_LOST_LEAST}",
          f"garbage collections take {percent(findings.GC_SHARE)} or more of the time of {_WHO}, or are more than can be told", look="top --view gc"),
    Alert("ModwsgiMemoryGrowth", ("memory-growth",), "warning", "15m",
          f"deriv(modwsgi_memory_rss_largest_bytes[30m]) * 3600 >= {GROWTH_BYTES_HOUR}\n"
          "and modwsgi_memory_rss_largest_bytes >= 0.98 * max_over_time(modwsgi_memory_rss_largest_bytes[30m])\n"
          "and modwsgi_memory_rss_largest_bytes > modwsgi_memory_rss_largest_bytes offset 30m",
          f"the largest process of {_WHO} grows by {{{{ $value | humanize }}}}B an hour (steadily, {size(GROWTH_BYTES_HOUR)} or more)"),
    Alert("ModwsgiDescriptors", ("descriptors",), "warning", "2m", f"modwsgi_descriptors_used_ratio >= {findings.FILES_SHARE}",
          f"a process of {_WHO} has {_PERCENT} of the files open that it may", look="why"),
)
# What the collector finds and no alert above mirrors, but for what is only worth knowing.
_MIRRORED = {rule for alert in ALERTS for rule in alert.rules}
_OTHERS = [rule for rule in findings.RULES if rule.severity != findings.INFO and rule.id not in _MIRRORED]
ALERTS += tuple(Alert("Modwsgi" + rule.id.title().replace("-", ""), (rule.id,), rule.severity, "2m",
                      f'modwsgi_collector_findings{{rule="{rule.id}"}} > 0', f"on {_HOST}: the collector finds {rule.id}") for rule in _OTHERS)

_BY_RULE = {rule.id: rule for rule in findings.RULES}


def annotations(alert):
    """{name: template} of an alert."""
    told = alert.advice or _BY_RULE[alert.rules[0]].advice
    return {"summary": alert.summary, "description": told, "runbook": f"On the host, as root: modwsgi-tel.pyz {alert.look}"}


# --- as YAML -------------------------------------------------------------------------------------

def recording_yaml():
    """recording.yml."""
    rules = [_yaml((("record", each.name), ("expr", each.expr))) for each in recordings()]
    return _file("recording rules of modwsgi-tel: group:... of a process group on one host, fleet:... of the process groups of that name on "
                 "all hosts", "modwsgi-tel-recording", rules)


def alerts_yaml():
    """alerts.yml."""
    rules = [_yaml((("alert", each.name), ("expr", each.expr), ("for", each.lasting), ("labels", {"severity": each.severity}),
                    ("annotations", annotations(each)))) for each in ALERTS]
    return _file("alerting rules of modwsgi-tel; thresholds are those of its own findings, where there is one", "modwsgi-tel-alerts", rules)


def _file(what, name, rules):
    return "\n".join([f"# {what[0].upper()}{what[1:]}.",
                      "# Generated from the tables of metrics and findings; do not edit: put what you change into a file of your own.",
                      "groups:", f"  - name: {name}", "    rules:", *rules]) + "\n"


def _yaml(pairs):
    """A rule as lines; JSON's strings are YAML's."""
    lines = []
    for name, value in pairs:
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {key}: {json.dumps(text)}" for key, text in value.items())]
        elif "\n" in value:
            lines += [f"{name}: |-", *("  " + line for line in value.split("\n"))]
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(("      - " if not place else "        ") + line for place, line in enumerate(lines))
