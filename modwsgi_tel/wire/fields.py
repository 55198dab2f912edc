"""What mod_wsgi sends, as one table: every field, every kind.

Decoder, encoder, simulator, dump, JSON and the tests walk these tables; nothing about a
field is written anywhere else.  Source: mod_wsgi's telemetry format version 1, as its
6.0 and 6.1 releases send it.
"""
from collections import namedtuple

MAGIC = b"WSGI"
VERSION = 1
MAX_DATAGRAM = 8192             # what mod_wsgi sends at most; a receiver takes more

# Types on the wire.
U64, F64, I64, TEXT, I32S, F64S = range(1, 7)
TYPE_NAMES = {U64: "u64", F64: "f64", I64: "i64", TEXT: "bytes", I32S: "i32[]", F64S: "f64[]"}

# How values of several intervals combine.
LAST = "last"                   # the newest one counts
SUM = "sum"
MEAN = "mean"                   # weighted by request_count
TIMED = "timed"                 # weighted by sample_period
MIN = "min"
MAX = "max"
BUCKETS = "buckets"             # element by element
SLOTS = "slots"                 # one entry per worker thread, never combined

Field = namedtuple("Field", "id name type kinds unit merge help")

# Kinds of datagram.  From PRIVATE_KINDS up they are free for a project's own records.
(PROCESS_METRICS, REQUEST_METRICS, SERVER_METRICS, SLOW_REQUEST, PROCESS_STARTED,
 PROCESS_STOPPING, PROCESS_STOPPED, GC_SNAPSHOT, GC_EVENT) = range(1, 10)
KINDS = {
    PROCESS_METRICS: "process_metrics",         # reserved
    REQUEST_METRICS: "request_metrics",
    SERVER_METRICS: "server_metrics",           # reserved
    SLOW_REQUEST: "slow_request",
    PROCESS_STARTED: "process_started",
    PROCESS_STOPPING: "process_stopping",
    PROCESS_STOPPED: "process_stopped",
    GC_SNAPSHOT: "gc_snapshot",
    GC_EVENT: "gc_event",
}
PRIVATE_KINDS = 128

# Phases of a request; PHASE_FIELDS[phase] are the ids of its mean, min, max and histogram.
PHASES = ("server", "queue", "daemon", "application", "request", "gil_wait", "input_read", "output_write")
PHASE_FIELDS = {phase: (60 + i, 70 + i, 80 + i, 90 + i) for i, phase in enumerate(PHASES)}

FIELDS = (
    Field(1, "mod_wsgi_version", TEXT, (2, 5), "text", LAST, "Version of mod_wsgi."),
    Field(2, "python_version", TEXT, (2, 5), "text", LAST, "Version of Python."),
    Field(3, "apache_version", TEXT, (2, 5), "text", LAST, "Apache server version."),
    Field(4, "mpm_name", TEXT, (2, 5), "text", LAST, "Apache MPM: event, worker or prefork."),
    Field(5, "hostname", TEXT, (2, 5, 6, 7), "text", LAST, "Host name."),
    Field(6, "process_group", TEXT, (2, 5, 6, 7), "text", LAST, "WSGIDaemonProcess name; empty or absent in embedded mode."),
    Field(7, "process_parent_pid", U64, (2, 5), "pid", LAST, "Pid of the Apache parent."),
    Field(8, "interpreter_name", TEXT, (8, 9), "text", LAST, "Application group of the sub-interpreter; absent for the main interpreter."),
    Field(10, "sample_period", F64, (2,), "seconds", SUM, "Measured time since the previous tick."),
    Field(11, "telemetry_interval", F64, (2,), "seconds", LAST, "Configured interval, at least 0.5 s."),
    Field(12, "slow_requests_threshold", F64, (2,), "seconds", LAST, "Configured WSGISlowRequests; 0 when off."),
    Field(13, "switch_interval", F64, (2, 5), "seconds", LAST, "sys.getswitchinterval() of the process; may be absent."),
    Field(20, "request_count", U64, (2,), "requests", SUM, "Requests completed in the interval."),
    Field(21, "request_throughput", F64, (2,), "per_second", TIMED, "Requests completed per second."),
    Field(22, "capacity_utilization", F64, (2,), "ratio", TIMED, "Share of worker-thread time that was busy; rounding can take it above 1."),
    Field(30, "cpu_user_utilization", F64, (2,), "ratio", TIMED, "User CPU, of one core; more than 1 is possible."),
    Field(31, "cpu_system_utilization", F64, (2,), "ratio", TIMED, "System CPU, of one core; more than 1 is possible."),
    Field(32, "cpu_utilization", F64, (2,), "ratio", TIMED, "User and system CPU, of one core."),
    Field(35, "cpu_user_time", F64, (), "seconds", LAST, "Cumulative user CPU; reserved, no release sends it yet."),
    Field(36, "cpu_system_time", F64, (), "seconds", LAST, "Cumulative system CPU; reserved, no release sends it yet."),
    Field(37, "cpu_time", F64, (), "seconds", LAST, "Cumulative CPU; reserved, no release sends it yet."),
    Field(40, "memory_rss", U64, (2,), "bytes", LAST, "Resident memory."),
    Field(41, "memory_max_rss", U64, (2,), "bytes", LAST, "Peak resident memory; may be less than memory_rss."),
    Field(50, "request_threads_maximum", U64, (2,), "threads", LAST, "Worker threads configured."),
    Field(51, "request_threads_started", U64, (2,), "threads", LAST, "Worker threads started."),
    Field(52, "request_threads_active", U64, (2,), "threads", LAST, "Worker threads active."),
    Field(60, "server_time", F64, (2,), "seconds", MEAN, "Mean time, from Apache accepting the request to handing it on."),
    Field(61, "queue_time", F64, (2,), "seconds", MEAN, "Mean time waiting for a daemon thread."),
    Field(62, "daemon_time", F64, (2,), "seconds", MEAN, "Mean time inside the daemon before the application."),
    Field(63, "application_time", F64, (2,), "seconds", MEAN, "Mean time inside the application."),
    Field(64, "request_time", F64, (2,), "seconds", MEAN, "Mean time of the whole request: server + queue + daemon + application."),
    Field(65, "gil_wait_time", F64, (2,), "seconds", MEAN, "Mean time waiting for the GIL (overlaps application time)."),
    Field(66, "input_read_time", F64, (2,), "seconds", MEAN, "Mean time reading the request body (overlaps application time)."),
    Field(67, "output_write_time", F64, (2,), "seconds", MEAN, "Mean time writing the response (overlaps application time)."),
    Field(70, "server_time_min", F64, (2,), "seconds", MIN, "Shortest server time of the interval."),
    Field(71, "queue_time_min", F64, (2,), "seconds", MIN, "Shortest queue time of the interval."),
    Field(72, "daemon_time_min", F64, (2,), "seconds", MIN, "Shortest daemon time of the interval."),
    Field(73, "application_time_min", F64, (2,), "seconds", MIN, "Shortest application time of the interval."),
    Field(74, "request_time_min", F64, (2,), "seconds", MIN, "Shortest request time of the interval."),
    Field(75, "gil_wait_time_min", F64, (2,), "seconds", MIN, "Shortest gil_wait time of the interval."),
    Field(76, "input_read_time_min", F64, (2,), "seconds", MIN, "Shortest input_read time of the interval."),
    Field(77, "output_write_time_min", F64, (2,), "seconds", MIN, "Shortest output_write time of the interval."),
    Field(80, "server_time_max", F64, (2,), "seconds", MAX, "Longest server time of the interval."),
    Field(81, "queue_time_max", F64, (2,), "seconds", MAX, "Longest queue time of the interval."),
    Field(82, "daemon_time_max", F64, (2,), "seconds", MAX, "Longest daemon time of the interval."),
    Field(83, "application_time_max", F64, (2,), "seconds", MAX, "Longest application time of the interval."),
    Field(84, "request_time_max", F64, (2,), "seconds", MAX, "Longest request time of the interval."),
    Field(85, "gil_wait_time_max", F64, (2,), "seconds", MAX, "Longest gil_wait time of the interval."),
    Field(86, "input_read_time_max", F64, (2,), "seconds", MAX, "Longest input_read time of the interval."),
    Field(87, "output_write_time_max", F64, (2,), "seconds", MAX, "Longest output_write time of the interval."),
    Field(90, "server_time_buckets", I32S, (2,), "requests", BUCKETS, "Histogram of server time."),
    Field(91, "queue_time_buckets", I32S, (2,), "requests", BUCKETS, "Histogram of queue time."),
    Field(92, "daemon_time_buckets", I32S, (2,), "requests", BUCKETS, "Histogram of daemon time."),
    Field(93, "application_time_buckets", I32S, (2,), "requests", BUCKETS, "Histogram of application time."),
    Field(94, "request_time_buckets", I32S, (2,), "requests", BUCKETS, "Histogram of request time."),
    Field(95, "gil_wait_time_buckets", I32S, (2,), "requests", BUCKETS, "Histogram of gil_wait time."),
    Field(96, "input_read_time_buckets", I32S, (2,), "requests", BUCKETS, "Histogram of input_read time."),
    Field(97, "output_write_time_buckets", I32S, (2,), "requests", BUCKETS, "Histogram of output_write time."),
    Field(100, "input_bytes_total", U64, (2,), "bytes", SUM, "Request body bytes of the completed requests."),
    Field(101, "input_reads_total", U64, (2,), "calls", SUM, "Reads of the request body."),
    Field(102, "output_bytes_total", U64, (2,), "bytes", SUM, "Response bytes of the completed requests."),
    Field(103, "output_writes_total", U64, (2,), "calls", SUM, "Writes of the response."),
    Field(110, "request_threads_completed", I32S, (2,), "requests", SLOTS, "Requests completed, per worker-thread slot."),
    Field(111, "request_threads_busy_time", F64S, (2,), "seconds", SLOTS, "Busy time, per worker-thread slot."),
    Field(112, "request_threads_cpu_time", F64S, (2,), "seconds", SLOTS, "CPU time, per worker-thread slot."),
    Field(113, "request_threads_current_elapsed", F64S, (2,), "seconds", SLOTS, "Age of the running request, per worker-thread slot."),
    Field(114, "request_threads_max_duration", F64S, (2,), "seconds", SLOTS, "Longest request, per worker-thread slot."),
    Field(120, "status_1xx_total", U64, (2,), "responses", SUM, "Responses with status 1xx."),
    Field(121, "status_2xx_total", U64, (2,), "responses", SUM, "Responses with status 2xx."),
    Field(122, "status_3xx_total", U64, (2,), "responses", SUM, "Responses with status 3xx."),
    Field(123, "status_4xx_total", U64, (2,), "responses", SUM, "Responses with status 4xx."),
    Field(124, "status_5xx_total", U64, (2,), "responses", SUM, "Responses with status 5xx. No status at all counts here."),
    Field(130, "shutdown_reason", TEXT, (6, 7), "text", LAST, "Why the process stops; absent in embedded mode; unknown reasons are kept as they are."),
    Field(131, "process_uptime", F64, (7,), "seconds", LAST, "Time since the start of the process."),
    Field(132, "lifetime_request_count", U64, (7,), "requests", LAST, "Requests completed in the life of the process."),
    Field(133, "active_requests_at_decision", U64, (6,), "requests", LAST, "Requests running when the stop was decided."),
    Field(134, "active_requests_at_exit", U64, (7,), "requests", LAST, "Requests running at the exit."),
    Field(135, "graceful_drain", U64, (7,), "flag", LAST, "1 drained cleanly, 0 killed by the reaper."),
    Field(200, "slow_record_state", U64, (4,), "flag", LAST, "0 still active, 1 completed."),
    Field(201, "slow_start_stamp", F64, (4,), "epoch", LAST, "When the request started."),
    Field(202, "slow_duration", F64, (4,), "seconds", LAST, "About the application time, so far for an active one."),
    Field(203, "slow_thread_id", U64, (4,), "id", LAST, "mod_wsgi's own thread number, not a kernel tid."),
    Field(204, "slow_log_id", TEXT, (4,), "text", LAST, "Apache's request log id: joins the records of one request."),
    Field(205, "slow_server_pid", U64, (4,), "pid", LAST, "Apache child that accepted the request."),
    Field(210, "slow_method", TEXT, (4,), "text", LAST, "Request method."),
    Field(211, "slow_scheme", TEXT, (4,), "text", LAST, "URL scheme."),
    Field(212, "slow_hostname", TEXT, (4,), "text", LAST, "Host of the request."),
    Field(213, "slow_script_name", TEXT, (4,), "text", LAST, "Mount point of the application."),
    Field(214, "slow_path_info", TEXT, (4,), "text", LAST, "Path below the mount point, at most 511 bytes; the query string is never sent."),
    Field(215, "slow_protocol", TEXT, (4,), "text", LAST, "HTTP protocol version."),
    Field(216, "slow_peer_ip", TEXT, (4,), "text", LAST, "Address of the client."),
    Field(217, "slow_user_agent", TEXT, (4,), "text", LAST, "User agent; only with WSGITelemetryOptions +CaptureUserAgent."),
    Field(220, "slow_server_time", F64, (4,), "seconds", LAST, "Time from accept to hand-over."),
    Field(221, "slow_queue_time", F64, (4,), "seconds", LAST, "Time waiting for a daemon thread; 0 in embedded mode."),
    Field(222, "slow_daemon_time", F64, (4,), "seconds", LAST, "Time in the daemon before the application; 0 in embedded mode."),
    Field(223, "slow_application_time", F64, (4,), "seconds", LAST, "Time inside the application, so far for an active one."),
    Field(224, "slow_gil_wait_time", F64, (4,), "seconds", LAST, "Time waiting for the GIL, so far for an active one."),
    Field(225, "slow_gil_wait_count", U64, (4,), "waits", LAST, "Waits for the GIL."),
    Field(230, "slow_input_bytes", U64, (4,), "bytes", LAST, "Request body bytes read."),
    Field(231, "slow_input_reads", U64, (4,), "calls", LAST, "Reads of the request body."),
    Field(232, "slow_output_bytes", U64, (4,), "bytes", LAST, "Response bytes written."),
    Field(233, "slow_output_writes", U64, (4,), "calls", LAST, "Writes of the response."),
    Field(234, "slow_input_read_time", F64, (4,), "seconds", LAST, "Time reading the request body."),
    Field(235, "slow_output_write_time", F64, (4,), "seconds", LAST, "Time writing the response."),
    Field(240, "slow_status", U64, (4,), "status", LAST, "HTTP status; 0 not known yet."),
    Field(250, "slow_cpu_user_time", F64, (4,), "seconds", LAST, "User CPU of the request."),
    Field(251, "slow_cpu_system_time", F64, (4,), "seconds", LAST, "System CPU of the request."),
    Field(260, "slow_active_at_start", U64, (4,), "requests", LAST, "Requests in flight in the process at the start, this one included."),
    Field(261, "slow_active_at_completion", U64, (4,), "requests", LAST, "Requests in flight at completion; 0 for an active one."),
    Field(300, "gc_count0", U64, (8,), "objects", LAST, "Objects counted towards a collection of generation 0."),
    Field(301, "gc_count1", U64, (8,), "objects", LAST, "Objects counted towards a collection of generation 1."),
    Field(302, "gc_count2", U64, (8,), "objects", LAST, "Objects counted towards a collection of generation 2."),
    Field(303, "gc_threshold0", U64, (8,), "objects", LAST, "Threshold of generation 0."),
    Field(304, "gc_threshold1", U64, (8,), "objects", LAST, "Threshold of generation 1."),
    Field(305, "gc_threshold2", U64, (8,), "objects", LAST, "Threshold of generation 2."),
    Field(306, "gc_collections0", U64, (8,), "collections", LAST, "Collections of generation 0, cumulative."),
    Field(307, "gc_collections1", U64, (8,), "collections", LAST, "Collections of generation 1, cumulative."),
    Field(308, "gc_collections2", U64, (8,), "collections", LAST, "Collections of generation 2, cumulative."),
    Field(309, "gc_collected0", U64, (8,), "objects", LAST, "Objects collected in generation 0, cumulative."),
    Field(310, "gc_collected1", U64, (8,), "objects", LAST, "Objects collected in generation 1, cumulative."),
    Field(311, "gc_collected2", U64, (8,), "objects", LAST, "Objects collected in generation 2, cumulative."),
    Field(312, "gc_uncollectable0", U64, (8,), "objects", LAST, "Uncollectable objects of generation 0, cumulative."),
    Field(313, "gc_uncollectable1", U64, (8,), "objects", LAST, "Uncollectable objects of generation 1, cumulative."),
    Field(314, "gc_uncollectable2", U64, (8,), "objects", LAST, "Uncollectable objects of generation 2, cumulative."),
    Field(315, "gc_is_enabled", U64, (8,), "flag", LAST, "Whether automatic collection is on."),
    Field(316, "gc_freeze_count", U64, (8,), "objects", LAST, "Objects frozen by gc.freeze()."),
    Field(317, "gc_dropped_events", U64, (8,), "events", LAST, "Events lost in the emitter's own ring since the last tick."),
    Field(320, "gc_event_start_stamp", F64, (9,), "epoch", LAST, "When the collection started."),
    Field(321, "gc_event_duration", F64, (9,), "seconds", LAST, "Pause of the collection."),
    Field(322, "gc_event_generation", U64, (9,), "generation", LAST, "Generation collected."),
    Field(323, "gc_event_collected", U64, (9,), "objects", LAST, "Objects collected."),
    Field(324, "gc_event_uncollectable", U64, (9,), "objects", LAST, "Objects found uncollectable."),
)
BY_ID = {field.id: field for field in FIELDS}
BY_NAME = {field.name: field for field in FIELDS}
TYPE_OF = {field.id: field.type for field in FIELDS}


def kind_name(kind):
    """The name of a kind, `kind77` for one without."""
    return KINDS.get(kind) or f"kind{kind}"


def field_name(field_id):
    """The name of a field id, `id42` for one without."""
    field = BY_ID.get(field_id)
    return field.name if field else f"id{field_id}"
