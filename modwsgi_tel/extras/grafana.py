"""A dashboard for Grafana 9 and later, as JSON, out of METRICS.  Imported by docgen alone.

It needs no recording rules.  What a panel shows is said by the help of its metrics; a family that no panel of ROWS has gets one in
the last row, so that all are there.  Its schema is the one of Grafana 9, which later ones bring up to date when they load it.
"""
import json
import re
from collections import namedtuple

from modwsgi_tel.findings import ERROR_SHARE
from modwsgi_tel.openmetrics.table import COLLECTOR, COUNTER, HISTOGRAM, INFO, LABELS, METRICS, series_of
from modwsgi_tel.state.facts import FULL_CAPACITY
from modwsgi_tel.wire.fields import PHASES

UID = "modwsgi-tel"
SCHEMA = 36
WIDTH = 24                              # of Grafana's grid
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# What the variables choose: of a group's series, of a collector's.
OF_GROUP = 'job=~"$job", instance=~"$instance", process_group=~"$process_group"'
OF_COLLECTOR = 'job=~"$job", instance=~"$instance"'
NAME = re.compile(r"\b(?:modwsgi_(?:\$\{phase\}|[a-z0-9_])+|up|ALERTS)\b(?![(:])")

Panel = namedtuple("Panel", "title kind unit wide queries help red", defaults=("", None))
Panel.__doc__ = """kind: of Grafana: timeseries, stat, heatmap or table; `stacked` is a timeseries.  unit: of Grafana.  queries: (expression,
legend), in which every name of a metric gets the variables' choice.  help: before that of its metrics.  red: from this value on."""

_EACH = "{{process_group}} {{instance}}"
_RATE = "$__rate_interval"


def _rate(name):
    return f"rate({name}[{_RATE}])"


def _by(label, expr):
    return f"sum by ({label}) ({expr})"


def _each(expr):
    return _by("process_group, instance", expr)


def _share(above, below, by="process_group, instance"):
    return f"sum by ({by}) ({_rate(above)}) / sum by ({by}) ({_rate(below)})"


def _quantile(quantile, name, by=""):
    return f"histogram_quantile({quantile}, {_by(by + 'le', _rate(name + '_bucket'))})"


def _whole(above, below):
    return f"sum({_rate(above)}) / sum({_rate(below)})"


_FAILED = 'modwsgi_responses_total{status_class="5xx"}'
_CAPACITY = ("modwsgi_capacity_used_seconds_total", "modwsgi_sampled_seconds_total")
_PHASE = "modwsgi_${phase}_seconds"

ROWS = (
    ("What is wrong", (
        Panel("Collectors", "stat", "none", 3, (("sum(up)", "answer"), ("count(up)", "of")),
              "How many collectors answered Prometheus, of those that it asks."),
        Panel("Healthy", "stat", "bool_yes_no", 3, (("min(modwsgi_collector_healthy)", ""),)),
        Panel("Critical findings", "stat", "none", 3, (('sum(modwsgi_collector_findings{severity="critical"})', ""),), red=1),
        Panel("Warnings", "stat", "none", 3, (('sum(modwsgi_collector_findings{severity="warning"})', ""),), red=1),
        Panel("Requests", "stat", "reqps", 3, ((f"sum({_rate('modwsgi_requests_total')})", ""),)),
        Panel("Response time p95", "stat", "s", 3, ((_quantile(0.95, "modwsgi_request_seconds"), ""),)),
        Panel("Errors", "stat", "percentunit", 3, ((_whole(_FAILED, "modwsgi_responses_total"), ""),), red=ERROR_SHARE),
        Panel("Threads busy", "stat", "percentunit", 3, ((_whole(*_CAPACITY), ""),), red=FULL_CAPACITY),
        Panel("Firing alerts", "table", "none", 12, (('ALERTS{alertname=~"Modwsgi.*", alertstate="firing"}', ""),),
              "By the rules in modwsgi-tel-alerts.yml."),
        Panel("Findings", "stacked", "none", 12, ((_by("rule", "modwsgi_collector_findings") + " > 0", "{{rule}}"),)))),
    ("Traffic", (
        Panel("Requests by group", "timeseries", "reqps", 12, ((_each(_rate("modwsgi_requests_total")), _EACH),)),
        Panel("Responses by class", "stacked", "reqps", 6, ((_by("status_class", _rate("modwsgi_responses_total")), "{{status_class}}"),)),
        Panel("Bytes", "timeseries", "Bps", 6, ((f"sum({_rate('modwsgi_input_bytes_total')})", "read"),
                                                (f"sum({_rate('modwsgi_output_bytes_total')})", "written"))))),
    ("Latency: $phase", (
        Panel("How long it took", "heatmap", "s", 12, ((_by("le", f"increase({_PHASE}_bucket[{_RATE}])"), "{{le}}"),)),
        Panel("Percentiles", "timeseries", "s", 6, tuple((_quantile(quantile, _PHASE), label)
                                                          for label, quantile in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)))),
        Panel("p95 by group", "timeseries", "s", 6, ((_quantile(0.95, _PHASE, "process_group, instance, "), _EACH),)),
        Panel("Mean time of a request, by phase", "stacked", "s", 12, tuple(
            (f"sum({_rate(f'modwsgi_{name}_seconds_sum')}) / sum({_rate('modwsgi_requests_total')})", name)
            for name in ("server", "queue", "daemon", "application"))),
        Panel("p95 of each phase", "timeseries", "s", 12, tuple((_quantile(0.95, f"modwsgi_{name}_seconds"), name) for name in PHASES)))),
    ("Capacity", (
        Panel("Threads busy, by group", "timeseries", "percentunit", 12, ((_share(*_CAPACITY), _EACH),)),
        Panel("Threads", "timeseries", "none", 6, (("sum(modwsgi_threads_active)", "active"), ("sum(modwsgi_threads_started)", "started"),
                                                   ("sum(modwsgi_threads_maximum)", "maximum"))),
        Panel("Queue time p95, by group", "timeseries", "s", 6, ((_quantile(0.95, "modwsgi_queue_seconds", "process_group, instance, "), _EACH),)))),
    ("CPU, memory, files", (
        Panel("CPU by group", "stacked", "none", 6, ((_each(_rate("modwsgi_cpu_seconds_total")), _EACH),), "In cores."),
        Panel("Resident memory by group", "timeseries", "bytes", 6, ((_each("modwsgi_memory_rss_bytes"), _EACH),)),
        Panel("Largest process of a group", "timeseries", "bytes", 6, (("modwsgi_memory_rss_largest_bytes", _EACH),)),
        Panel("Open files over their limit", "timeseries", "percentunit", 6, (("modwsgi_descriptors_used_ratio", _EACH),)))),
    ("The GIL and the garbage collector", (
        Panel("GIL waits over time in the application", "timeseries", "percentunit", 8, (("modwsgi_gil_contention_ratio", _EACH),)),
        Panel("How waits for the GIL end", "timeseries", "percentunit", 8, (("modwsgi_gil_coefficient_ratio", _EACH),)),
        Panel("Garbage collection over all time", "timeseries", "percentunit", 8,
              ((_share("modwsgi_gc_pause_seconds_sum", "modwsgi_sampled_seconds_total"), _EACH),)),
        Panel("Collections", "timeseries", "ops", 12, ((_each(_rate("modwsgi_gc_pause_seconds_count")), _EACH),)),
        Panel("Longest collection", "timeseries", "s", 12, (("modwsgi_gc_pause_longest_seconds", _EACH),)))),
    ("Processes", (
        Panel("Processes by state", "stacked", "none", 8, ((_by("state", "modwsgi_processes"), "{{state}}"),)),
        Panel("Stops by reason", "stacked", "none", 8, ((_by("reason", f"increase(modwsgi_process_stops_total[{_RATE}])"), "{{reason}}"),)),
        Panel("Starts, and who went without a word", "timeseries", "none", 8,
              ((f"sum(increase(modwsgi_process_starts_total[{_RATE}]))", "starts"),
               (f"sum(increase(modwsgi_processes_vanished_total[{_RATE}]))", "vanished"))),
        Panel("Silent processes", "timeseries", "none", 12, (("modwsgi_processes_silent > 0", _EACH),)),
        Panel("Longest silence", "timeseries", "s", 12, (("modwsgi_silence_longest_seconds", _EACH),)))),
    ("Errors and slow requests", (
        Panel("Responses with 5xx", "timeseries", "percentunit", 6, ((_share(_FAILED, "modwsgi_responses_total"), _EACH),)),
        Panel("Exceptions", "timeseries", "ops", 6, ((_each(_rate("modwsgi_exceptions_total")), _EACH),)),
        Panel("Slow requests that run", "timeseries", "none", 6, (("modwsgi_slow_requests_active", _EACH),)),
        Panel("Slow requests that ended", "timeseries", "none", 6, (
            (f"sum(increase(modwsgi_slow_requests_completed_total[{_RATE}]))", "completed"),
            (f"sum(increase(modwsgi_slow_requests_lost_total[{_RATE}]))", "lost with their process"))))),
    ("The collectors", (
        Panel("Datagrams", "timeseries", "pps", 6, ((_by("instance", _rate("modwsgi_collector_datagrams_received_total")), "{{instance}}"),)),
        Panel("Lost, or no telemetry", "timeseries", "none", 6, (
            (f"sum by (instance) (increase(modwsgi_datagrams_lost_total[{_RATE}]))", "{{instance}} lost"),
            (f"sum by (instance) (increase(modwsgi_collector_decode_errors_total[{_RATE}]))", "{{instance}} no telemetry"))),
        Panel("Lost to bounds", "timeseries", "none", 6, ((_by("what", f"increase(modwsgi_collector_losses_total[{_RATE}])"), "{{what}}"),)),
        Panel("Away from the socket", "timeseries", "s", 6, (("modwsgi_collector_gap_recent_seconds", "{{instance}}"),)),
        Panel("CPU", "timeseries", "percentunit", 8, ((_by("instance", _rate("modwsgi_collector_cpu_seconds_total")), "{{instance}}"),)),
        Panel("Resident memory", "timeseries", "bytes", 8, (("modwsgi_collector_memory_rss_bytes", "{{instance}}"),)),
        Panel("HTTP requests", "timeseries", "reqps", 8, ((_by("instance", _rate("modwsgi_collector_http_requests_total")), "{{instance}}"),)))),
)
_UNITS = {"seconds": "s", "bytes": "bytes", "ratio": "percentunit", "": "none"}
_A_SECOND = {"seconds": "percentunit", "bytes": "Bps", "": "ops"}
_SINCE = ("_time_seconds", "_timestamp_seconds")         # wall seconds of when something was
_HEIGHTS = {"stat": 4, "heatmap": 9}


# --- what is drawn -----------------------------------------------------------------------------

def families(expr):
    """The Metrics that an expression names, with each phase for $phase."""
    by_series = {series: metric for metric in METRICS for series in series_of(metric)}
    names = [name.replace("${phase}", phase) for name in NAME.findall(expr) for phase in (PHASES if "$" in name else PHASES[:1])]
    return list(dict.fromkeys(by_series[name] for name in names if name.startswith("modwsgi_")))


def rows():
    """(title, panels) of each row: ROWS, and what is in none of them."""
    shown = {metric.name for _, panels in ROWS for panel in panels for expr, _ in panel.queries for metric in families(expr)}
    rest = [metric for metric in METRICS if metric.name not in shown]
    return (*ROWS, ("Everything else", tuple(_plain(metric) for metric in rest)))


def _plain(metric):
    """A Panel of one family."""
    labels = (*metric.labels, *LABELS[metric.scope], "instance")
    legend = " ".join("{{%s}}" % label for label in labels)
    series = series_of(metric)[0]
    title = re.sub(f"(_total|_{metric.unit or 'total'}(_total)?)$", "", metric.name)[len("modwsgi_"):].replace("_", " ").capitalize()
    if metric.type == HISTOGRAM:
        return Panel(title + ", p95", "timeseries", "s", 6, ((_quantile(0.95, metric.name, "process_group, instance, "), _EACH),))
    if metric.type == COUNTER:
        return Panel(title + " a second", "timeseries", _A_SECOND[metric.unit], 6, ((_rate(series), legend),))
    if metric.type == INFO:
        return Panel(title, "table", "none", 12, ((series, ""),))
    if metric.name.endswith(_SINCE):
        return Panel(title + ": how long ago", "timeseries", "s", 6, ((f"time() - {series}", legend),))
    return Panel(title, "timeseries", _UNITS[metric.unit], 6, ((series, legend),))


def chosen(expr):
    """An expression with the variables' choice in the braces of each metric."""
    def choose(found):
        name = found.group(0)
        if name == "ALERTS":
            return name                 # it has the labels of whatever fires
        return name + "{" + (OF_GROUP if any(metric.scope != COLLECTOR for metric in families(name)) else OF_COLLECTOR) + "}"
    return NAME.sub(choose, expr).replace("}{", ", ")


# --- as JSON -----------------------------------------------------------------------------------

def dashboard():
    """modwsgi-tel.json."""
    panels, top, number = [], 0, 0
    drawn = rows()
    for title, members in drawn:
        number += 1
        row = {"id": number, "type": "row", "title": title, "collapsed": title == drawn[-1][0], "panels": [],
               "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}}
        panels.append(row)
        into = row["panels"] if row["collapsed"] else panels
        left, top, height = 0, top + 1, 0
        for panel in members:
            if left + panel.wide > WIDTH:
                left, top, height = 0, top + height, 0
            number += 1
            into.append(_panel(panel, number, {"x": left, "y": top, "w": panel.wide, "h": _HEIGHTS.get(panel.kind, 8)}))
            left, height = left + panel.wide, max(height, _HEIGHTS.get(panel.kind, 8))
        top += height
    return json.dumps({
        "title": "mod_wsgi", "uid": UID, "tags": ["mod_wsgi", "wsgi", "python"], "schemaVersion": SCHEMA, "version": 1, "editable": True,
        "graphTooltip": 1, "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "description": "Python web processes, as modwsgi-tel's collectors tell of them.",
        "annotations": {"list": []}, "links": [], "templating": {"list": _variables()}, "panels": panels}, indent=1) + "\n"


def _variables():
    def query(name, label, asked):
        return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "definition": asked,
                "query": {"query": asked, "refId": name}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
                "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "hide": 0, "options": [], "regex": "", "skipUrlSync": False}

    phases = [{"selected": name == "request", "text": name, "value": name} for name in PHASES]
    return [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0, "options": [],
             "refresh": 1, "regex": "", "multi": False, "includeAll": False, "skipUrlSync": False},
            query("job", "Job", "label_values(modwsgi_collector_healthy, job)"),
            query("instance", "Collector", 'label_values(modwsgi_collector_healthy{job=~"$job"}, instance)'),
            query("process_group", "Process group", f"label_values(modwsgi_requests_total{{{OF_COLLECTOR}}}, process_group)"),
            {"name": "phase", "label": "Phase", "type": "custom", "query": ",".join(PHASES), "options": phases, "multi": False,
             "includeAll": False, "hide": 0, "skipUrlSync": False, "current": next(each for each in phases if each["selected"])}]


def _panel(panel, number, place):
    # of whatever phase is chosen there is no one help
    told = [metric.help for expr, _ in panel.queries if "${phase}" not in expr for metric in families(expr)]
    kind = "timeseries" if panel.kind == "stacked" else panel.kind
    table = kind == "table"
    defaults = {"unit": panel.unit, "min": 0}
    if panel.red is not None:
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": "green", "value": None}, {"color": "red", "value": panel.red}]}
    options = {}
    if kind == "timeseries":
        stacked = panel.kind == "stacked"
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 40 if stacked else 8, "showPoints": "never", "spanNulls": False,
                              "stacking": {"mode": "normal" if stacked else "none", "group": "A"}}
        options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}}
    elif kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value", "graphMode": "area",
                   "textMode": "auto", "justifyMode": "auto", "orientation": "auto"}
    elif kind == "heatmap":
        options = {"calculate": False, "yAxis": {"unit": panel.unit}, "cellGap": 0, "legend": {"show": True}, "tooltip": {"show": True},
                   "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64}, "rowsFrame": {"layout": "auto"}}
    targets = [{"refId": chr(ord("A") + place), "datasource": DATASOURCE, "expr": chosen(expr), "legendFormat": legend or "__auto",
                "format": "table" if table else "heatmap" if kind == "heatmap" else "time_series", "instant": table, "range": not table}
               for place, (expr, legend) in enumerate(panel.queries)]
    return {"id": number, "type": kind, "title": panel.title, "description": " ".join(dict.fromkeys([*filter(None, [panel.help]), *told])),
            "gridPos": place, "datasource": DATASOURCE, "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
            "targets": targets}
