"""The table of fields holds the facts: copied from the description of the format, not from the code."""
from modwsgi_tel.wire.fields import (BY_ID, BY_NAME, FIELDS, KINDS, PHASE_FIELDS, PHASES, PRIVATE_KINDS, TYPE_NAMES, field_name,
                                     kind_name)

# id, name, type, kinds that carry it: as mod_wsgi 6.0.5 and 6.1.1 define them
FACTS = """
1 mod_wsgi_version bytes 2 5
2 python_version bytes 2 5
3 apache_version bytes 2 5
4 mpm_name bytes 2 5
5 hostname bytes 2 5 6 7
6 process_group bytes 2 5 6 7
7 process_parent_pid u64 2 5
8 interpreter_name bytes 8 9
10 sample_period f64 2
11 telemetry_interval f64 2
12 slow_requests_threshold f64 2
13 switch_interval f64 2 5
20 request_count u64 2
21 request_throughput f64 2
22 capacity_utilization f64 2
30 cpu_user_utilization f64 2
31 cpu_system_utilization f64 2
32 cpu_utilization f64 2
35 cpu_user_time f64
36 cpu_system_time f64
37 cpu_time f64
40 memory_rss u64 2
41 memory_max_rss u64 2
50 request_threads_maximum u64 2
51 request_threads_started u64 2
52 request_threads_active u64 2
60 server_time f64 2
61 queue_time f64 2
62 daemon_time f64 2
63 application_time f64 2
64 request_time f64 2
65 gil_wait_time f64 2
66 input_read_time f64 2
67 output_write_time f64 2
70 server_time_min f64 2
71 queue_time_min f64 2
72 daemon_time_min f64 2
73 application_time_min f64 2
74 request_time_min f64 2
75 gil_wait_time_min f64 2
76 input_read_time_min f64 2
77 output_write_time_min f64 2
80 server_time_max f64 2
81 queue_time_max f64 2
82 daemon_time_max f64 2
83 application_time_max f64 2
84 request_time_max f64 2
85 gil_wait_time_max f64 2
86 input_read_time_max f64 2
87 output_write_time_max f64 2
90 server_time_buckets i32[] 2
91 queue_time_buckets i32[] 2
92 daemon_time_buckets i32[] 2
93 application_time_buckets i32[] 2
94 request_time_buckets i32[] 2
95 gil_wait_time_buckets i32[] 2
96 input_read_time_buckets i32[] 2
97 output_write_time_buckets i32[] 2
100 input_bytes_total u64 2
101 input_reads_total u64 2
102 output_bytes_total u64 2
103 output_writes_total u64 2
110 request_threads_completed i32[] 2
111 request_threads_busy_time f64[] 2
112 request_threads_cpu_time f64[] 2
113 request_threads_current_elapsed f64[] 2
114 request_threads_max_duration f64[] 2
120 status_1xx_total u64 2
121 status_2xx_total u64 2
122 status_3xx_total u64 2
123 status_4xx_total u64 2
124 status_5xx_total u64 2
130 shutdown_reason bytes 6 7
131 process_uptime f64 7
132 lifetime_request_count u64 7
133 active_requests_at_decision u64 6
134 active_requests_at_exit u64 7
135 graceful_drain u64 7
200 slow_record_state u64 4
201 slow_start_stamp f64 4
202 slow_duration f64 4
203 slow_thread_id u64 4
204 slow_log_id bytes 4
205 slow_server_pid u64 4
210 slow_method bytes 4
211 slow_scheme bytes 4
212 slow_hostname bytes 4
213 slow_script_name bytes 4
214 slow_path_info bytes 4
215 slow_protocol bytes 4
216 slow_peer_ip bytes 4
217 slow_user_agent bytes 4
220 slow_server_time f64 4
221 slow_queue_time f64 4
222 slow_daemon_time f64 4
223 slow_application_time f64 4
224 slow_gil_wait_time f64 4
225 slow_gil_wait_count u64 4
230 slow_input_bytes u64 4
231 slow_input_reads u64 4
232 slow_output_bytes u64 4
233 slow_output_writes u64 4
234 slow_input_read_time f64 4
235 slow_output_write_time f64 4
240 slow_status u64 4
250 slow_cpu_user_time f64 4
251 slow_cpu_system_time f64 4
260 slow_active_at_start u64 4
261 slow_active_at_completion u64 4
300 gc_count0 u64 8
301 gc_count1 u64 8
302 gc_count2 u64 8
303 gc_threshold0 u64 8
304 gc_threshold1 u64 8
305 gc_threshold2 u64 8
306 gc_collections0 u64 8
307 gc_collections1 u64 8
308 gc_collections2 u64 8
309 gc_collected0 u64 8
310 gc_collected1 u64 8
311 gc_collected2 u64 8
312 gc_uncollectable0 u64 8
313 gc_uncollectable1 u64 8
314 gc_uncollectable2 u64 8
315 gc_is_enabled u64 8
316 gc_freeze_count u64 8
317 gc_dropped_events u64 8
320 gc_event_start_stamp f64 9
321 gc_event_duration f64 9
322 gc_event_generation u64 9
323 gc_event_collected u64 9
324 gc_event_uncollectable u64 9
"""


def test_every_field_is_in_the_table_with_its_type_and_kinds():
    facts = [line.split() for line in FACTS.split("\n") if line]
    assert [(field.id, field.name, TYPE_NAMES[field.type], field.kinds) for field in FIELDS if field.id < 1000] == [
        (int(number), name, type_, tuple(map(int, kinds))) for number, name, type_, *kinds in facts]


def test_what_an_agent_adds_has_its_own_numbers_and_kinds():
    own = [field for field in FIELDS if field.id >= 1000]
    assert [field.name for field in own if not field.kinds or min(field.kinds) < PRIVATE_KINDS] == []
    assert {kind for field in own for kind in field.kinds} == {kind for kind in KINDS if kind >= PRIVATE_KINDS}
    assert [field.id for field in own] == sorted(field.id for field in own)


def test_ids_and_names_are_unique():
    assert len(BY_ID) == len(BY_NAME) == len(FIELDS)


def test_the_kinds_have_their_numbers():
    assert [(number, kind_name(number)) for number in KINDS] == [
        (1, "process_metrics"), (2, "request_metrics"), (3, "server_metrics"), (4, "slow_request"), (5, "process_started"),
        (6, "process_stopping"), (7, "process_stopped"), (8, "gc_snapshot"), (9, "gc_event"),
        (128, "agent_state"), (129, "long_request"), (130, "request_stack"), (131, "code_locations"), (132, "application_exception"),
        (133, "operation_timer"), (134, "loop_lateness"), (135, "thread_stack"), (136, "memory_growth")]


def test_what_has_no_name_is_shown_by_its_number():
    assert (kind_name(77), kind_name(0), field_name(42), field_name(20)) == ("kind77", "kind0", "id42", "request_count")


def test_each_phase_has_its_mean_min_max_and_histogram():
    assert {phase: [BY_ID[number].name for number in ids] for phase, ids in PHASE_FIELDS.items()} == {
        phase: [f"{phase}_time", f"{phase}_time_min", f"{phase}_time_max", f"{phase}_time_buckets"] for phase in PHASES}


def test_every_field_says_its_unit_and_what_it_is():
    assert [field.name for field in FIELDS if not field.unit or not field.help.endswith(".")] == []
