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

Field = namedtuple("Field", "id name type kinds unit merge help")        # kinds: numbers

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

# One line a field: id, name, type, kinds that carry it (- for none), unit, how it combines, what it is.  As text, since the agent reads this
# file in other people's processes: compiling as many calls takes two megabytes, which the process then keeps.
_TABLE = """
1    mod_wsgi_version                bytes 2,5         text        last    Version of mod_wsgi.
2    python_version                  bytes 2,5         text        last    Version of Python.
3    apache_version                  bytes 2,5         text        last    Apache server version.
4    mpm_name                        bytes 2,5         text        last    Apache MPM: event, worker or prefork.
5    hostname                        bytes 2,5,6,7     text        last    Host name.
6    process_group                   bytes 2,5,6,7     text        last    WSGIDaemonProcess name; empty or absent in embedded mode.
7    process_parent_pid              u64   2,5         pid         last    Pid of the Apache parent.
8    interpreter_name                bytes 8,9         text        last    Application group of the sub-interpreter; absent for the main interpreter.
10   sample_period                   f64   2           seconds     sum     Measured time since the previous tick.
11   telemetry_interval              f64   2           seconds     last    Configured interval, at least 0.5 s.
12   slow_requests_threshold         f64   2           seconds     last    Configured WSGISlowRequests; 0 when off.
13   switch_interval                 f64   2,5         seconds     last    sys.getswitchinterval() of the process; may be absent.
20   request_count                   u64   2           requests    sum     Requests completed in the interval.
21   request_throughput              f64   2           per_second  timed   Requests completed per second.
22   capacity_utilization            f64   2           ratio       timed   Share of worker-thread time that was busy; rounding can take it above 1.
30   cpu_user_utilization            f64   2           ratio       timed   User CPU, of one core; more than 1 is possible.
31   cpu_system_utilization          f64   2           ratio       timed   System CPU, of one core; more than 1 is possible.
32   cpu_utilization                 f64   2           ratio       timed   User and system CPU, of one core.
35   cpu_user_time                   f64   -           seconds     last    Cumulative user CPU; reserved, no release sends it yet.
36   cpu_system_time                 f64   -           seconds     last    Cumulative system CPU; reserved, no release sends it yet.
37   cpu_time                        f64   -           seconds     last    Cumulative CPU; reserved, no release sends it yet.
40   memory_rss                      u64   2           bytes       last    Resident memory.
41   memory_max_rss                  u64   2           bytes       last    Peak resident memory; may be less than memory_rss.
50   request_threads_maximum         u64   2           threads     last    Worker threads configured.
51   request_threads_started         u64   2           threads     last    Worker threads started.
52   request_threads_active          u64   2           threads     last    Worker threads active.
60   server_time                     f64   2           seconds     mean    Mean time, from Apache accepting the request to handing it on.
61   queue_time                      f64   2           seconds     mean    Mean time waiting for a daemon thread.
62   daemon_time                     f64   2           seconds     mean    Mean time inside the daemon before the application.
63   application_time                f64   2           seconds     mean    Mean time inside the application.
64   request_time                    f64   2           seconds     mean    Mean time of the whole request: server + queue + daemon + application.
65   gil_wait_time                   f64   2           seconds     mean    Mean time waiting for the GIL (overlaps application time).
66   input_read_time                 f64   2           seconds     mean    Mean time reading the request body (overlaps application time).
67   output_write_time               f64   2           seconds     mean    Mean time writing the response (overlaps application time).
70   server_time_min                 f64   2           seconds     min     Shortest server time of the interval.
71   queue_time_min                  f64   2           seconds     min     Shortest queue time of the interval.
72   daemon_time_min                 f64   2           seconds     min     Shortest daemon time of the interval.
73   application_time_min            f64   2           seconds     min     Shortest application time of the interval.
74   request_time_min                f64   2           seconds     min     Shortest request time of the interval.
75   gil_wait_time_min               f64   2           seconds     min     Shortest gil_wait time of the interval.
76   input_read_time_min             f64   2           seconds     min     Shortest input_read time of the interval.
77   output_write_time_min           f64   2           seconds     min     Shortest output_write time of the interval.
80   server_time_max                 f64   2           seconds     max     Longest server time of the interval.
81   queue_time_max                  f64   2           seconds     max     Longest queue time of the interval.
82   daemon_time_max                 f64   2           seconds     max     Longest daemon time of the interval.
83   application_time_max            f64   2           seconds     max     Longest application time of the interval.
84   request_time_max                f64   2           seconds     max     Longest request time of the interval.
85   gil_wait_time_max               f64   2           seconds     max     Longest gil_wait time of the interval.
86   input_read_time_max             f64   2           seconds     max     Longest input_read time of the interval.
87   output_write_time_max           f64   2           seconds     max     Longest output_write time of the interval.
90   server_time_buckets             i32[] 2           requests    buckets Histogram of server time.
91   queue_time_buckets              i32[] 2           requests    buckets Histogram of queue time.
92   daemon_time_buckets             i32[] 2           requests    buckets Histogram of daemon time.
93   application_time_buckets        i32[] 2           requests    buckets Histogram of application time.
94   request_time_buckets            i32[] 2           requests    buckets Histogram of request time.
95   gil_wait_time_buckets           i32[] 2           requests    buckets Histogram of gil_wait time.
96   input_read_time_buckets         i32[] 2           requests    buckets Histogram of input_read time.
97   output_write_time_buckets       i32[] 2           requests    buckets Histogram of output_write time.
100  input_bytes_total               u64   2           bytes       sum     Request body bytes of the completed requests.
101  input_reads_total               u64   2           calls       sum     Reads of the request body.
102  output_bytes_total              u64   2           bytes       sum     Response bytes of the completed requests.
103  output_writes_total             u64   2           calls       sum     Writes of the response.
110  request_threads_completed       i32[] 2           requests    slots   Requests completed, per worker-thread slot.
111  request_threads_busy_time       f64[] 2           seconds     slots   Busy time, per worker-thread slot.
112  request_threads_cpu_time        f64[] 2           seconds     slots   CPU time, per worker-thread slot.
113  request_threads_current_elapsed f64[] 2           seconds     slots   Age of the running request, per worker-thread slot.
114  request_threads_max_duration    f64[] 2           seconds     slots   Longest request, per worker-thread slot.
120  status_1xx_total                u64   2           responses   sum     Responses with status 1xx.
121  status_2xx_total                u64   2           responses   sum     Responses with status 2xx.
122  status_3xx_total                u64   2           responses   sum     Responses with status 3xx.
123  status_4xx_total                u64   2           responses   sum     Responses with status 4xx.
124  status_5xx_total                u64   2           responses   sum     Responses with status 5xx. No status at all counts here.
130  shutdown_reason                 bytes 6,7         text        last    Why the process stops; absent in embedded mode; unknown reasons are kept as they are.
131  process_uptime                  f64   7           seconds     last    Time since the start of the process.
132  lifetime_request_count          u64   7           requests    last    Requests completed in the life of the process.
133  active_requests_at_decision     u64   6           requests    last    Requests running when the stop was decided.
134  active_requests_at_exit         u64   7           requests    last    Requests running at the exit.
135  graceful_drain                  u64   7           flag        last    1 drained cleanly, 0 killed by the reaper.
200  slow_record_state               u64   4           flag        last    0 still active, 1 completed.
201  slow_start_stamp                f64   4           epoch       last    When the request started.
202  slow_duration                   f64   4           seconds     last    About the application time, so far for an active one.
203  slow_thread_id                  u64   4           id          last    mod_wsgi's own thread number, not a kernel tid.
204  slow_log_id                     bytes 4           text        last    Apache's request log id: joins the records of one request.
205  slow_server_pid                 u64   4           pid         last    Apache child that accepted the request.
210  slow_method                     bytes 4           text        last    Request method.
211  slow_scheme                     bytes 4           text        last    URL scheme.
212  slow_hostname                   bytes 4           text        last    Host of the request.
213  slow_script_name                bytes 4           text        last    Mount point of the application.
214  slow_path_info                  bytes 4           text        last    Path below the mount point, at most 511 bytes; the query string is never sent.
215  slow_protocol                   bytes 4           text        last    HTTP protocol version.
216  slow_peer_ip                    bytes 4           text        last    Address of the client.
217  slow_user_agent                 bytes 4           text        last    User agent; only with WSGITelemetryOptions +CaptureUserAgent.
220  slow_server_time                f64   4           seconds     last    Time from accept to hand-over.
221  slow_queue_time                 f64   4           seconds     last    Time waiting for a daemon thread; 0 in embedded mode.
222  slow_daemon_time                f64   4           seconds     last    Time in the daemon before the application; 0 in embedded mode.
223  slow_application_time           f64   4           seconds     last    Time inside the application, so far for an active one.
224  slow_gil_wait_time              f64   4           seconds     last    Time waiting for the GIL, so far for an active one.
225  slow_gil_wait_count             u64   4           waits       last    Waits for the GIL.
230  slow_input_bytes                u64   4           bytes       last    Request body bytes read.
231  slow_input_reads                u64   4           calls       last    Reads of the request body.
232  slow_output_bytes               u64   4           bytes       last    Response bytes written.
233  slow_output_writes              u64   4           calls       last    Writes of the response.
234  slow_input_read_time            f64   4           seconds     last    Time reading the request body.
235  slow_output_write_time          f64   4           seconds     last    Time writing the response.
240  slow_status                     u64   4           status      last    HTTP status; 0 not known yet.
250  slow_cpu_user_time              f64   4           seconds     last    User CPU of the request.
251  slow_cpu_system_time            f64   4           seconds     last    System CPU of the request.
260  slow_active_at_start            u64   4           requests    last    Requests in flight in the process at the start, this one included.
261  slow_active_at_completion       u64   4           requests    last    Requests in flight at completion; 0 for an active one.
300  gc_count0                       u64   8           objects     last    Objects counted towards a collection of generation 0.
301  gc_count1                       u64   8           objects     last    Objects counted towards a collection of generation 1.
302  gc_count2                       u64   8           objects     last    Objects counted towards a collection of generation 2.
303  gc_threshold0                   u64   8           objects     last    Threshold of generation 0.
304  gc_threshold1                   u64   8           objects     last    Threshold of generation 1.
305  gc_threshold2                   u64   8           objects     last    Threshold of generation 2.
306  gc_collections0                 u64   8           collections last    Collections of generation 0, cumulative.
307  gc_collections1                 u64   8           collections last    Collections of generation 1, cumulative.
308  gc_collections2                 u64   8           collections last    Collections of generation 2, cumulative.
309  gc_collected0                   u64   8           objects     last    Objects collected in generation 0, cumulative.
310  gc_collected1                   u64   8           objects     last    Objects collected in generation 1, cumulative.
311  gc_collected2                   u64   8           objects     last    Objects collected in generation 2, cumulative.
312  gc_uncollectable0               u64   8           objects     last    Uncollectable objects of generation 0, cumulative.
313  gc_uncollectable1               u64   8           objects     last    Uncollectable objects of generation 1, cumulative.
314  gc_uncollectable2               u64   8           objects     last    Uncollectable objects of generation 2, cumulative.
315  gc_is_enabled                   u64   8           flag        last    Whether automatic collection is on.
316  gc_freeze_count                 u64   8           objects     last    Objects frozen by gc.freeze().
317  gc_dropped_events               u64   8           events      last    Events lost in the emitter's own ring since the last tick.
320  gc_event_start_stamp            f64   9           epoch       last    When the collection started.
321  gc_event_duration               f64   9           seconds     last    Pause of the collection.
322  gc_event_generation             u64   9           generation  last    Generation collected.
323  gc_event_collected              u64   9           objects     last    Objects collected.
324  gc_event_uncollectable          u64   9           objects     last    Objects found uncollectable.

# What our agent sends.  A code location is a number for (function, file, line), told by code_locations.
1000 agent_version                   bytes 128         text        last    Version of the agent.
1001 agent_emits                     u64   128         flag        last    1 where it sends the standard records too, since nobody else does.
1002 agent_server                    bytes 128         text        last    WSGI server that it runs under, as far as it can tell.
1003 agent_threshold                 f64   128         seconds     last    A request that takes longer has its stacks taken.
1004 agent_interval                  f64   128         seconds     last    Between two stacks of one request, at first.
1005 agent_socket                    bytes 128         text        last    Abstract unix socket on which it answers, without the NUL.
1006 agent_signal                    u64   128         signal      last    Signal upon which it sends the stacks of all threads; 0 for none.
1007 agent_switches                  bytes 128         text        last    What is switched on, with commas between.
1008 agent_watchdog_file             bytes 128         text        last    Where stacks are written while the GIL is held.
1009 agent_problem                   bytes 128         text        last    What it does not see, in words.
1010 agent_lost                      u64   128         datagrams   last    Datagrams that could not be sent, cumulative.
1011 agent_errors                    u64   128         errors      last    Its own errors, cumulative.
1012 agent_wakeups                   u64   128         wakeups     last    How often its thread woke up, cumulative.
1013 agent_begun                     u64   128         requests    last    Requests that began, cumulative.
1014 agent_in_flight                 u64   128         requests    last    Requests that are being served.
1015 agent_ignored                   u64   128         requests    last    Long requests that were left alone by a pattern, cumulative.
1016 agent_unwatched                 u64   128         requests    last    Long requests beyond the bound, whose stacks were not taken, cumulative.
1020 request_annotations             bytes 129         text        last    What the application adds: name, NUL, value, NUL, and so on.
1021 request_stacks                  u64   129         stacks      last    Stacks taken of it so far.
1022 request_exception               bytes 129         text        last    Type of the exception that ended it.
1030 stack_number                    u64   130         stacks      last    The first of its request is 1.
1031 stack_elapsed                   f64   130         seconds     last    How long the request had run.
1032 stack_pivot                     i32[] 130         locations   last    The outer part that its stacks have in common, outermost first; only when it is new.
1033 stack_shared                    u64   130         frames      last    So many frames of the pivot stand outside of this stack's own.
1034 stack_frames                    i32[] 130,134,135 locations   last    The frames inside of the shared ones, outermost first.
1035 stack_left_out                  u64   130,134,135 frames      last    Frames that were cut out of the middle.
1036 stack_cut_at                    u64   130,134,135 frames      last    How many of stack_frames stand outside of the cut.
1037 stack_tid                       u64   130,134,135 tid         last    The kernel's number of the thread, in its own namespace.
1038 stack_thread                    bytes 130,134,135 text        last    The thread's name.
1039 stack_state                     bytes 130,135     text        last    What the kernel says of the thread: running, waiting, disk, and in what.
1040 stack_cpu                       f64   130         seconds     last    CPU time of the thread since the request's stack before, or since its start.
1041 stack_waits                     bytes 130,135     text        last    What it waits for, as rlock or queue.
1042 stack_owner_tid                 u64   130,135     tid         last    The thread that has what it waits for.
1043 stack_owner_log_id              bytes 130,135     text        last    The request that has what it waits for.
1044 stack_values                    bytes 130,135     text        last    Variables: frame counted from the innermost, name, value, each followed by NUL.
1045 stack_problem                   bytes 130,134,135 text        last    Why it is not whole.
1050 location_first                  u64   131         locations   last    Number of the first location told here; the others follow.
1051 location_lines                  i32[] 131         lines       last    Their lines; 0 where there is none.
1052 location_texts                  bytes 131         text        last    Function, NUL, file, NUL, of each.
1060 exception_place                 u64   132         places      last    Number of the place in this agent: type and frames.
1061 exception_type                  bytes 132         text        last    Module and name of the exception's type.
1062 exception_text                  bytes 132         text        last    What the newest one says; only where that is allowed.
1063 exception_frames                i32[] 132         locations   last    The last frames that it came through, outermost first.
1064 exception_count                 u64   132         exceptions  last    Exceptions at this place, cumulative.
1065 exception_places_lost           u64   132         exceptions  last    Exceptions at places beyond the bound, cumulative.
1067 exception_last                  f64   132         epoch       last    When the newest one left the application.
1070 timer_name                      bytes 133         text        last    Name of the operation.
1071 timer_count                     u64   133         operations  last    Operations, cumulative.
1072 timer_seconds                   f64   133         seconds     last    Time spent in them, cumulative.
1073 timer_max                       f64   133         seconds     last    The longest of all.
1074 timer_buckets                   i32[] 133         operations  last    Histogram of all, in buckets as those of the phases.
1075 timer_errors                    u64   133         operations  last    Operations that an exception ended, cumulative.
1076 timer_names_lost                u64   133         operations  last    Operations under names beyond the bound, cumulative.
1080 loop_name                       bytes 134         text        last    The event loop: its type, and a number.
1081 loop_late_count                 u64   134         callbacks   last    How often it was held longer than the limit, cumulative.
1082 loop_late_seconds               f64   134         seconds     last    How long altogether, cumulative.
1083 loop_late_max                   f64   134         seconds     last    The longest of all.
1084 loop_limit                      f64   134         seconds     last    The limit.
1085 loop_duration                   f64   134         seconds     last    How long it was held this time; the frames are of that.
1090 dump_number                     u64   135         dumps       last    Which dump of all threads of this agent.
1091 dump_reason                     bytes 135         text        last    signal, watchdog, application or secret URL.
1092 dump_threads                    u64   135         threads     last    Threads in this dump: so many records.
1093 dump_stamp                      f64   135         epoch       last    When it was taken.
1100 memory_state                    bytes 136         text        last    started, growing or stopped.
1101 memory_locations                i32[] 136         locations   last    Lines that allocated what grew most, most first.
1102 memory_growth                   f64[] 136         bytes       last    How much more each holds than at the start.
1103 memory_held                     f64[] 136         bytes       last    How much each holds now.
1104 memory_blocks                   i32[] 136         blocks      last    How many more blocks each holds.
1105 memory_seconds                  f64   136         seconds     last    Time since the start of tracing.
1106 memory_traced                   u64   136         bytes       last    Memory that is traced now.
1107 memory_peak                     u64   136         bytes       last    The most that was traced at once.
1108 memory_overhead                 u64   136         bytes       last    Memory that tracing itself takes.
"""


def _fields(table):
    types = {name: type_ for type_, name in TYPE_NAMES.items()}
    for line in table.splitlines():
        if line and not line.startswith("#"):
            number, name, type_, kinds, unit, merge, told = line.split(None, 6)
            yield Field(int(number), name, types[type_], () if kinds == "-" else tuple(map(int, kinds.split(","))), unit, merge, told)


FIELDS = tuple(_fields(_TABLE))
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
