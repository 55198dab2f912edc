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

# Kinds of datagram.  From PRIVATE_KINDS up they are free for a project's own records: here those of our agent.
(PROCESS_METRICS, REQUEST_METRICS, SERVER_METRICS, SLOW_REQUEST, PROCESS_STARTED,
 PROCESS_STOPPING, PROCESS_STOPPED, GC_SNAPSHOT, GC_EVENT) = range(1, 10)
PRIVATE_KINDS = 128
(AGENT_STATE, LONG_REQUEST, REQUEST_STACK, CODE_LOCATIONS, APPLICATION_EXCEPTION, OPERATION_TIMER, LOOP_LATENESS, THREAD_STACK,
 MEMORY_GROWTH) = range(PRIVATE_KINDS, PRIVATE_KINDS + 9)
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
    AGENT_STATE: "agent_state",
    LONG_REQUEST: "long_request",               # with fields of slow_request
    REQUEST_STACK: "request_stack",
    CODE_LOCATIONS: "code_locations",
    APPLICATION_EXCEPTION: "application_exception",
    OPERATION_TIMER: "operation_timer",
    LOOP_LATENESS: "loop_lateness",
    THREAD_STACK: "thread_stack",
    MEMORY_GROWTH: "memory_growth",
}

# The header's flags, which mod_wsgi leaves at 0: what our agent sends has AGENT_FLAG, and below it the number of the agent,
# which is 0 for the first one of a process, and any other for agents in further interpreters.
AGENT_FLAG = 0x8000
AGENT_NUMBER = 0x7FFF

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

    # What our agent sends.  A code location is a number for (function, file, line), told by code_locations.
    Field(1000, "agent_version", TEXT, (128,), "text", LAST, "Version of the agent."),
    Field(1001, "agent_emits", U64, (128,), "flag", LAST, "1 where it sends the standard records too, since nobody else does."),
    Field(1002, "agent_server", TEXT, (128,), "text", LAST, "WSGI server that it runs under, as far as it can tell."),
    Field(1003, "agent_threshold", F64, (128,), "seconds", LAST, "A request that takes longer has its stacks taken."),
    Field(1004, "agent_interval", F64, (128,), "seconds", LAST, "Between two stacks of one request, at first."),
    Field(1005, "agent_socket", TEXT, (128,), "text", LAST, "Abstract unix socket on which it answers, without the NUL."),
    Field(1006, "agent_signal", U64, (128,), "signal", LAST, "Signal upon which it sends the stacks of all threads; 0 for none."),
    Field(1007, "agent_switches", TEXT, (128,), "text", LAST, "What is switched on, with commas between."),
    Field(1008, "agent_watchdog_file", TEXT, (128,), "text", LAST, "Where stacks are written while the GIL is held."),
    Field(1009, "agent_problem", TEXT, (128,), "text", LAST, "What it does not see, in words."),
    Field(1010, "agent_lost", U64, (128,), "datagrams", LAST, "Datagrams that could not be sent, cumulative."),
    Field(1011, "agent_errors", U64, (128,), "errors", LAST, "Its own errors, cumulative."),
    Field(1012, "agent_wakeups", U64, (128,), "wakeups", LAST, "How often its thread woke up, cumulative."),
    Field(1013, "agent_begun", U64, (128,), "requests", LAST, "Requests that began, cumulative."),
    Field(1014, "agent_in_flight", U64, (128,), "requests", LAST, "Requests that are being served."),
    Field(1015, "agent_ignored", U64, (128,), "requests", LAST, "Long requests that were left alone by a pattern, cumulative."),
    Field(1016, "agent_unwatched", U64, (128,), "requests", LAST, "Long requests beyond the bound, whose stacks were not taken, cumulative."),
    Field(1020, "request_annotations", TEXT, (129,), "text", LAST, "What the application adds: name, NUL, value, NUL, and so on."),
    Field(1021, "request_stacks", U64, (129,), "stacks", LAST, "Stacks taken of it so far."),
    Field(1022, "request_exception", TEXT, (129,), "text", LAST, "Type of the exception that ended it."),
    Field(1030, "stack_number", U64, (130,), "stacks", LAST, "The first of its request is 1."),
    Field(1031, "stack_elapsed", F64, (130,), "seconds", LAST, "How long the request had run."),
    Field(1032, "stack_pivot", I32S, (130,), "locations", LAST, "The outer part that its stacks have in common, outermost first; only when it is new."),
    Field(1033, "stack_shared", U64, (130,), "frames", LAST, "So many frames of the pivot stand outside of this stack's own."),
    Field(1034, "stack_frames", I32S, (130, 134, 135), "locations", LAST, "The frames inside of the shared ones, outermost first."),
    Field(1035, "stack_left_out", U64, (130, 134, 135), "frames", LAST, "Frames that were cut out of the middle."),
    Field(1036, "stack_cut_at", U64, (130, 134, 135), "frames", LAST, "How many of stack_frames stand outside of the cut."),
    Field(1037, "stack_tid", U64, (130, 134, 135), "tid", LAST, "The kernel's number of the thread, in its own namespace."),
    Field(1038, "stack_thread", TEXT, (130, 134, 135), "text", LAST, "The thread's name."),
    Field(1039, "stack_state", TEXT, (130, 135), "text", LAST, "What the kernel says of the thread: running, waiting, disk, and in what."),
    Field(1040, "stack_cpu", F64, (130,), "seconds", LAST, "CPU time of the thread since the request's stack before, or since its start."),
    Field(1041, "stack_waits", TEXT, (130, 135), "text", LAST, "What it waits for, as rlock or queue."),
    Field(1042, "stack_owner_tid", U64, (130, 135), "tid", LAST, "The thread that has what it waits for."),
    Field(1043, "stack_owner_log_id", TEXT, (130, 135), "text", LAST, "The request that has what it waits for."),
    Field(1044, "stack_values", TEXT, (130, 135), "text", LAST,
          "Variables: frame counted from the innermost, name, value, each followed by NUL."),
    Field(1045, "stack_problem", TEXT, (130, 134, 135), "text", LAST, "Why it is not whole."),
    Field(1050, "location_first", U64, (131,), "locations", LAST, "Number of the first location told here; the others follow."),
    Field(1051, "location_lines", I32S, (131,), "lines", LAST, "Their lines; 0 where there is none."),
    Field(1052, "location_texts", TEXT, (131,), "text", LAST, "Function, NUL, file, NUL, of each."),
    Field(1060, "exception_place", U64, (132,), "places", LAST, "Number of the place in this agent: type and frames."),
    Field(1061, "exception_type", TEXT, (132,), "text", LAST, "Module and name of the exception's type."),
    Field(1062, "exception_text", TEXT, (132,), "text", LAST, "What the newest one says; only where that is allowed."),
    Field(1063, "exception_frames", I32S, (132,), "locations", LAST, "The last frames that it came through, outermost first."),
    Field(1064, "exception_count", U64, (132,), "exceptions", LAST, "Exceptions at this place, cumulative."),
    Field(1065, "exception_places_lost", U64, (132,), "exceptions", LAST, "Exceptions at places beyond the bound, cumulative."),
    Field(1070, "timer_name", TEXT, (133,), "text", LAST, "Name of the operation."),
    Field(1071, "timer_count", U64, (133,), "operations", LAST, "Operations, cumulative."),
    Field(1072, "timer_seconds", F64, (133,), "seconds", LAST, "Time spent in them, cumulative."),
    Field(1073, "timer_max", F64, (133,), "seconds", LAST, "The longest of all."),
    Field(1074, "timer_buckets", I32S, (133,), "operations", LAST, "Histogram of all, in buckets as those of the phases."),
    Field(1075, "timer_errors", U64, (133,), "operations", LAST, "Operations that an exception ended, cumulative."),
    Field(1076, "timer_names_lost", U64, (133,), "operations", LAST, "Operations under names beyond the bound, cumulative."),
    Field(1080, "loop_name", TEXT, (134,), "text", LAST, "The event loop: its type, and a number."),
    Field(1081, "loop_late_count", U64, (134,), "callbacks", LAST, "How often it was held longer than the limit, cumulative."),
    Field(1082, "loop_late_seconds", F64, (134,), "seconds", LAST, "How long altogether, cumulative."),
    Field(1083, "loop_late_max", F64, (134,), "seconds", LAST, "The longest of all."),
    Field(1084, "loop_limit", F64, (134,), "seconds", LAST, "The limit."),
    Field(1085, "loop_duration", F64, (134,), "seconds", LAST, "How long it was held this time; the frames are of that."),
    Field(1090, "dump_number", U64, (135,), "dumps", LAST, "Which dump of all threads of this agent."),
    Field(1091, "dump_reason", TEXT, (135,), "text", LAST, "signal, watchdog, application or secret URL."),
    Field(1092, "dump_threads", U64, (135,), "threads", LAST, "Threads in this dump: so many records."),
    Field(1093, "dump_stamp", F64, (135,), "epoch", LAST, "When it was taken."),
    Field(1100, "memory_state", TEXT, (136,), "text", LAST, "started, growing or stopped."),
    Field(1101, "memory_locations", I32S, (136,), "locations", LAST, "Lines that allocated what grew most, most first."),
    Field(1102, "memory_growth", F64S, (136,), "bytes", LAST, "How much more each holds than at the start."),
    Field(1103, "memory_held", F64S, (136,), "bytes", LAST, "How much each holds now."),
    Field(1104, "memory_blocks", I32S, (136,), "blocks", LAST, "How many more blocks each holds."),
    Field(1105, "memory_seconds", F64, (136,), "seconds", LAST, "Time since the start of tracing."),
    Field(1106, "memory_traced", U64, (136,), "bytes", LAST, "Memory that is traced now."),
    Field(1107, "memory_peak", U64, (136,), "bytes", LAST, "The most that was traced at once."),
    Field(1108, "memory_overhead", U64, (136,), "bytes", LAST, "Memory that tracing itself takes."),
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
