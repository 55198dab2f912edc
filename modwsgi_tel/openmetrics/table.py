"""Every metric, as one table: exposition, rules, dashboards, the manual and the tests walk METRICS.

A row says what a family is called (as Prometheus queries it: a counter with _total), its type, its unit (of OpenMetrics' base
units, and then part of its name), which labels it has beside those of its scope, the field of mod_wsgi it is made of, what it
is, and how it is read out of the state.  A family's samples are of its scope:

    group       each (hostname, process_group) that is known: see reading.GroupReading
    process     at most so many single processes as serve --metrics-processes asks for: reading.ProcessReading
    collector   the collector itself: reading.CollectorReading

`read(reading)` gives a number; with labels of its own an iterable of (label values, number); of a histogram (cumulative counts
at its bounds and of all, sum); None where nobody tells it: then there is no sample, never a 0.  A family whose field nobody
in a group sends has no sample there either.

Counters count from the start of the collector, whatever processes come and go.  A group that had to make room for others
(--max-groups) and comes back counts from 0 again, as Prometheus expects of what was restarted.
"""
from collections import namedtuple

from modwsgi_tel.openmetrics.bounds import PHASE_BOUNDS
from modwsgi_tel.state.window import CAPACITY, GC_BOUNDS, GC_DROPPED, INPUT_BYTES, PERIOD, REQUESTS, SLOW_COMPLETED
from modwsgi_tel.wire.fields import BY_NAME, PHASES

COUNTER, GAUGE, HISTOGRAM, INFO = "counter", "gauge", "histogram", "info"
GROUP, PROCESS, COLLECTOR = "group", "process", "collector"
SECONDS, BYTES, RATIO = "seconds", "bytes", "ratio"

# The labels that every sample of a scope has.  `hostname` is what the processes call their host (in a container: the container),
# `instance`, which Prometheus adds, is the collector.  Both groups' labels are always there: one that came and went with the
# number of hosts would end all series.  process_group "" is mod_wsgi's embedded mode.
LABELS = {GROUP: ("hostname", "process_group"), PROCESS: ("hostname", "process_group", "pid"), COLLECTOR: ()}

Metric = namedtuple("Metric", "name type unit scope labels field help read bounds", defaults=((),))
Metric.__doc__ = """A family.  unit, field: "" where there is none.  labels: those beside LABELS[scope].  help: whole, in one line.
bounds: of a histogram's buckets, +Inf left out."""

_HOW = {COUNTER: "Added up over all processes since the collector was started.", HISTOGRAM: "Of all processes since the collector was started.",
        GAUGE: "By the newest record of each process."}


def _metric(name, type_, unit, scope, read, help_="", labels=(), field="", bounds=()):
    if field:
        help_ = f"{BY_NAME[field].help} {help_ or _HOW[type_]}"
    return Metric("modwsgi_" + name, type_, unit, scope, labels, field, " ".join(help_.split()), read, bounds)


def _group(name, type_, unit, read, help_="", labels=(), field="", bounds=()):
    return _metric(name, type_, unit, GROUP, read, help_, labels, field, bounds)


def _process(name, type_, unit, read, help_="", labels=(), field=""):
    return _metric("process_" + name, type_, unit, PROCESS, read, help_, labels, field)


def _collector(name, type_, unit, read, help_, labels=()):
    return _metric("collector_" + name, type_, unit, COLLECTOR, read, help_, labels)


def _phase(name):
    help_ = BY_NAME[f"{name}_time"].help.replace("Mean time", "Time")
    return Metric(f"modwsgi_{name}_seconds", HISTOGRAM, SECONDS, GROUP, (), f"{name}_time_buckets", f"{help_} {_HOW[HISTOGRAM]}",
                  lambda group: group.phase(name), PHASE_BOUNDS)


def _own(*path):
    """Reads a number of what the collector says of itself."""
    def read(collector):
        found = collector.own
        for name in path:
            found = None if found is None else found.get(name)
        return found
    return read


def _rows(*path):
    """Reads a {name: number} of what the collector says of itself, as labelled samples."""
    read = _own(*path)
    return lambda collector: [((name,), number) for name, number in (read(collector) or {}).items() if type(number) is int]


METRICS = (
    # --- requests
    _group("requests_total", COUNTER, "", lambda group: group.count(REQUESTS), field="request_count"),
    _group("responses_total", COUNTER, "", lambda group: group.responses(), "Responses by class of status.  A request without any status "
           "counts as 5xx.", ("status_class",)),
    _group("input_bytes_total", COUNTER, BYTES, lambda group: group.count(INPUT_BYTES), field="input_bytes_total"),
    _group("input_reads_total", COUNTER, "", lambda group: group.count(INPUT_BYTES + 1), field="input_reads_total"),
    _group("output_bytes_total", COUNTER, BYTES, lambda group: group.count(INPUT_BYTES + 2), field="output_bytes_total"),
    _group("output_writes_total", COUNTER, "", lambda group: group.count(INPUT_BYTES + 3), field="output_writes_total"),
    *(_phase(name) for name in ("request", *(name for name in PHASES if name != "request"))),
    _group("slow_requests_active", GAUGE, "", lambda group: group.slow_active, "Slow requests that are running."),
    _group("slow_requests_completed_total", COUNTER, "", lambda group: group.count(SLOW_COMPLETED), "Slow requests that were completed."),
    _group("slow_requests_lost_total", COUNTER, "", lambda group: group.slow_lost, "Slow requests that were running when their process ended."),
    _group("slow_requests_threshold_seconds", GAUGE, SECONDS, lambda group: group.threshold_s, "The largest of the processes.",
           field="slow_requests_threshold"),
    _group("exceptions_total", COUNTER, "", lambda group: group.exceptions, "Exceptions that left the application, as agents in it tell."),
    # --- capacity
    _group("capacity_utilization_ratio", GAUGE, RATIO, lambda group: group.capacity, "Mean over the newest record of each process.",
           field="capacity_utilization"),
    _group("capacity_used_seconds_total", COUNTER, SECONDS, lambda group: group.seconds(CAPACITY),
           "Each interval of each process times this share, added up: its rate over that of modwsgi_sampled_seconds_total is the mean share of "
           "busy threads over any time.", field="capacity_utilization"),
    _group("sampled_seconds_total", COUNTER, SECONDS, lambda group: group.seconds(PERIOD), field="sample_period"),
    _group("threads_maximum", GAUGE, "", lambda group: group.newest("request_threads_maximum"), field="request_threads_maximum"),
    _group("threads_started", GAUGE, "", lambda group: group.newest("request_threads_started"), field="request_threads_started"),
    _group("threads_active", GAUGE, "", lambda group: group.newest("request_threads_active"), field="request_threads_active"),
    _group("cpu_seconds_total", COUNTER, SECONDS, lambda group: group.cpu(), "CPU time that the processes used, in user and in system mode.",
           ("mode",)),
    _group("memory_rss_bytes", GAUGE, BYTES, lambda group: group.newest("memory_rss"),
           "Added up over the processes; what they share is counted more than once.", field="memory_rss"),
    _group("memory_rss_largest_bytes", GAUGE, BYTES, lambda group: group.rss_largest, "Of the process that has most.", field="memory_rss"),
    _group("descriptors_largest", GAUGE, "", lambda group: group.files_largest, "Open file descriptors of the process that has most, as the kernel "
           "was asked last."),
    _group("descriptors_used_ratio", GAUGE, RATIO, lambda group: group.files_share, "Open file descriptors over their limit, of the process "
           "that is nearest to it."),
    # --- the GIL and the garbage collector
    _group("gil_contention_ratio", GAUGE, RATIO, lambda group: group.gil_share, "Time waiting for the GIL over time inside the application, in the "
           "last minute."),
    _group("gil_coefficient_ratio", GAUGE, RATIO, lambda group: group.gil_q, "Chance that a wait for the GIL ends within one more switch interval, "
           "in the last minute; below 0.4 it is a convoy; absent where too few waits tell."),
    _group("gil_switch_interval_seconds", GAUGE, SECONDS, lambda group: group.switch_interval_s, "The largest of the processes.",
           field="switch_interval"),
    _group("gc_pause_seconds", HISTOGRAM, SECONDS, lambda group: group.pauses(), "Collections of Python's garbage collector: how often, how long.  "
           "Absent while none was told.", bounds=GC_BOUNDS),
    _group("gc_pause_longest_seconds", GAUGE, SECONDS, lambda group: group.gc_longest_s, "The longest collection of the last minute; absent "
           "where there was none."),
    _group("gc_events_dropped_total", COUNTER, "", lambda group: group.count(GC_DROPPED) if group.tells_gc else None,
           "Collections that the senders could not tell one by one."),
    # --- processes
    _group("processes", GAUGE, "", lambda group: [((life,), number) for life, number in group.lives.items()],
           "Processes that are known, by how their life goes; those that ended stay a while.", ("state",)),
    _group("processes_silent", GAUGE, "", lambda group: group.silent, "Processes that have not ended and send nothing for three intervals."),
    _group("silence_longest_seconds", GAUGE, SECONDS, lambda group: group.silence_s, "For how long the one of them has been silent that was heard "
           "longest ago; 0 without any."),
    _group("process_starts_total", COUNTER, "", lambda group: group.starts, "Starts of processes that were told."),
    _group("process_stops_total", COUNTER, "", lambda group: group.stops(), "Stops of processes that were told, by their reason; embedded mode "
           "tells none.", ("reason",)),
    _group("processes_vanished_total", COUNTER, "", lambda group: group.vanished, "Processes that went without a word."),
    _group("datagrams_lost_total", COUNTER, "", lambda group: group.lost, "Datagrams that were sent and did not arrive.  Counted late where "
           "some of these arrive after all, or where it has to be found out whether the process is still the same."),
    _group("findings_by_group", GAUGE, "", lambda group: group.findings, "What is wrong now, by severity: see /api/summary.", ("severity",)),
    _group("software", INFO, "", lambda group: group.software, "What the newest process of the group runs.",
           ("mod_wsgi_version", "python_version", "apache_version", "mpm_name")),

    # --- single processes
    _process("requests_total", COUNTER, "", lambda process: process.count(REQUESTS), "Of this process.", field="request_count"),
    _process("cpu_seconds_total", COUNTER, SECONDS, lambda process: process.cpu(), "CPU time of this process since the collector knows it.",
             ("mode",)),
    _process("capacity_utilization_ratio", GAUGE, RATIO, lambda process: process.capacity, "By its newest record.", field="capacity_utilization"),
    _process("threads_active", GAUGE, "", lambda process: process.newest("request_threads_active"), "By its newest record.",
             field="request_threads_active"),
    _process("memory_rss_bytes", GAUGE, BYTES, lambda process: process.newest("memory_rss"), "By its newest record.", field="memory_rss"),
    _process("descriptors", GAUGE, "", lambda process: process.files, "Open file descriptors, as the kernel was asked last."),
    _process("slow_requests_active", GAUGE, "", lambda process: process.slow_active, "Slow requests that are running in it."),
    _process("silence_seconds", GAUGE, SECONDS, lambda process: process.silence_s, "For how long it has been silent; 0 while it is not."),
    _process("first_heard_time_seconds", GAUGE, SECONDS, lambda process: process.first_wall, "When the collector first heard of it."),

    # --- the collector
    _collector("build", INFO, "", lambda collector: collector.build, "What the collector is.", ("version", "python_version")),
    _collector("healthy", GAUGE, "", lambda collector: int(collector.healthy), "1 while the collector does its work, 0 while /healthz says why not."),
    _collector("start_time_seconds", GAUGE, SECONDS, lambda collector: collector.started_wall, "When the collector was started."),
    _collector("cpu_seconds_total", COUNTER, SECONDS, _own("cpu_s"), "CPU time of the collector."),
    _collector("memory_rss_bytes", GAUGE, BYTES, _own("rss_bytes"), "Resident memory of the collector."),
    _collector("memory_rss_peak_bytes", GAUGE, BYTES, _own("max_rss_bytes"), "The most that it ever had."),
    _collector("kept_bytes", GAUGE, BYTES, lambda collector: collector.fleet.budget.held, "Datagrams that are kept."),
    _collector("groups", GAUGE, "", lambda collector: len(collector.fleet.groups), "Process groups that are known."),
    _collector("processes", GAUGE, "", lambda collector: collector.processes, "Processes that are known, of all groups."),
    _collector("processes_left_out", GAUGE, "", lambda collector: collector.left_out, "Living processes that have no series of their own "
               "(serve --metrics-processes)."),
    _collector("slow_requests_kept", GAUGE, "", lambda collector: len(collector.fleet.slow), "Slow requests that are kept."),
    _collector("datagrams_received_total", COUNTER, "", lambda collector: collector.fleet.received, "Datagrams that arrived."),
    _collector("received_bytes_total", COUNTER, BYTES, lambda collector: collector.fleet.received_bytes, "Bytes of these."),
    _collector("decode_errors_total", COUNTER, "", lambda collector: collector.wrong(), "Datagrams that are none, by what is wrong with them.",
               ("reason",)),
    _collector("datagrams_without_process_total", COUNTER, "", lambda collector: collector.fleet.orphans, "Datagrams of processes that are not "
               "known, and that do not prove that there is one."),
    _collector("losses_total", COUNTER, "", lambda collector: collector.losses(), "What was lost to a bound of the collector, by what it was.",
               ("what",)),
    _collector("forgotten_total", COUNTER, "", lambda collector: collector.forgotten(), "What had its time and was forgotten, as it should be.",
               ("what",)),
    _collector("stalls_total", COUNTER, "", _own("stalls"), "How often the collector itself stood still for a second or more."),
    _collector("gap_longest_seconds", GAUGE, SECONDS, _own("longest_gap_s"), "The longest time that the telemetry socket was not looked at, "
               "since the start."),
    _collector("gap_recent_seconds", GAUGE, SECONDS, _own("recent_gap_s"), "The same, of the last minute or two."),
    _collector("http_connections", GAUGE, "", _own("http", "connections"), "HTTP connections that are open."),
    _collector("http_connections_accepted_total", COUNTER, "", _own("http", "accepted"), "HTTP connections that were accepted."),
    _collector("http_connections_refused_total", COUNTER, "", _own("http", "refused"), "HTTP connections that were refused, or closed to make room."),
    _collector("http_requests_total", COUNTER, "", _own("http", "requests"), "HTTP requests."),
    _collector("http_errors_total", COUNTER, "", _own("http", "errors"), "HTTP requests that were answered with an error."),
    _collector("http_wrong_tokens_total", COUNTER, "", _own("http", "wrong_tokens"), "HTTP requests with a wrong token."),
    _collector("stacks_total", COUNTER, "", _rows("stacks"), "Python stacks of processes: taken, and what became of them.", ("what",)),
    _collector("samples_total", COUNTER, "", _own("samples", "taken"), "Looks at processes in /proc."),
    _collector("helpers_started_total", COUNTER, "", _own("helpers", "started"), "Helper processes that were started."),
    _collector("helpers_failed_total", COUNTER, "", _own("helpers", "failed"), "Helper processes that gave no answer."),
    _collector("records_written_total", COUNTER, "", _own("recording", "records"), "Datagrams that went to the recording (serve --record)."),
    _collector("records_lost_bytes_total", COUNTER, BYTES, _own("recording", "lost_bytes"), "Bytes that the recording lost."),
    _collector("log_lines_lost_total", COUNTER, "", _own("log_lines_lost"), "Log lines that nobody took."),
    _collector("textfile_writes_total", COUNTER, "", _own("textfile", "writes"), "How often the metrics were written to a file (serve --textfile)."),
    _collector("textfile_failures_total", COUNTER, "", _own("textfile", "failures"), "How often they could not be."),
    _collector("findings", GAUGE, "", lambda collector: collector.findings(), "What is wrong now, by rule, over all groups; 0 while a rule "
               "finds nothing: see /api/summary.", ("rule", "severity")),
)

BY_METRIC = {metric.name: metric for metric in METRICS}


def labels_of(metric):
    """The names of all labels of a family's samples, without `le`."""
    return (*LABELS[metric.scope], *metric.labels)


def series_of(metric):
    """The names under which a family's samples are queried."""
    if metric.type == HISTOGRAM:
        return tuple(metric.name + ending for ending in ("_bucket", "_sum", "_count"))
    return (metric.name + "_info",) if metric.type == INFO else (metric.name,)
