"""A fleet that agents told something: long requests with stacks, exceptions, timers, an event loop, memory.

    fleet, now, wall = insiders.told()          # it stands still 10 s after the first datagram
"""
from builders import WALL, Worker, a_fleet, buckets, fold
from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import (AGENT_FLAG, AGENT_STATE, APPLICATION_EXCEPTION, CODE_LOCATIONS, LONG_REQUEST, LOOP_LATENESS, MEMORY_GROWTH,
                                     OPERATION_TIMER, REQUEST_STACK)

APP, SERVER, LIB = "/srv/shop/views", "/usr/lib/python3/dist-packages/gunicorn/workers", "/usr/lib/python3.11"
POOL = (("Thread._bootstrap", f"{LIB}/threading.py", 995), ("ThreadWorker.handle", f"{SERVER}/gthread.py", 271),
        ("Middleware.__call__", "/opt/modwsgi-tel.pyz/site-packages/modwsgi_tel/agent/middleware.py", 49),
        ("application", "/srv/shop/wsgi.py", 12))
REPORT, RENDER, FETCH, CELL = ((name, f"{APP}/report.py", line) for name, line in (
    ("report", 42), ("render", 88), ("fetch", 17), ("format_cell", 131)))
HOLD, WAIT, CHECK, PAY = (("reserve", f"{APP}/stock.py", 301), ("put", f"{APP}/cart.py", 77), ("check", f"{APP}/orders.py", 9),
                          ("charge", f"{APP}/pay.py", 55))
PLACES = (*POOL, REPORT, RENDER, FETCH, CELL, HOLD, WAIT, CHECK, PAY)
NUMBERS = {location: number for number, location in enumerate(PLACES, 1)}


class Agent(Worker):
    """One agent, which is also the emitter; a location's number is its place in PLACES."""

    def __init__(self, pid=811, number=0, group="shop"):
        super().__init__(pid, group=group, flags=AGENT_FLAG | number)

    def record(self, kind, **fields):
        return self.datagram(kind, named(**fields))

    def state(self, **more):
        return self.record(AGENT_STATE, **{**dict(
            agent_version="0.1.0", agent_emits=1, agent_server="gunicorn 20.1.0", agent_threshold=2.0, agent_interval=1.0,
            agent_socket="modwsgi-tel-agent.811.0", agent_signal=0, agent_switches="telemetry,gc,exceptions,watchdog,control",
            agent_watchdog_file="/tmp/modwsgi-tel-agent.811.0.dump", agent_lost=0, agent_errors=0, agent_wakeups=31, agent_begun=940,
            agent_in_flight=3, agent_ignored=0, agent_unwatched=0), **more})

    def locations(self):
        return self.record(CODE_LOCATIONS, location_first=1, location_lines=[line for _, _, line in PLACES],
                           location_texts="".join(f"{function}\0{file}\0" for function, file, _ in PLACES))

    def long(self, log_id, path, seconds, done=False, **more):
        return self.record(LONG_REQUEST, **{**dict(
            slow_record_state=int(done), slow_start_stamp=WALL + 10 - seconds, slow_duration=seconds, slow_log_id=log_id, slow_method="GET",
            slow_scheme="http", slow_hostname="shop.example", slow_path_info=path, slow_thread_id=3, slow_protocol="HTTP/1.1",
            slow_application_time=seconds), **more})

    def stack(self, log_id, number, elapsed, *inner, pivot=None, shared=0, **more):
        """The `number`th stack of a request: `shared` frames of the pivot, or all of a new one, and `inner`, outermost first."""
        if pivot is not None:
            shared, more["stack_pivot"] = len(pivot), [NUMBERS[each] for each in pivot]
        return self.record(REQUEST_STACK, slow_log_id=log_id, stack_number=number, stack_elapsed=elapsed, stack_shared=shared,
                           stack_frames=[NUMBERS[each] for each in inner],
                           **{"stack_tid": 9001, "stack_thread": "pool_1", "stack_state": "running", "stack_cpu": 0.5, **more})

    def raised(self, place, count, type_, *frames, **more):
        return self.record(APPLICATION_EXCEPTION, exception_place=place, exception_type=type_, exception_count=count,
                           exception_frames=[NUMBERS[each] for each in (*POOL[2:], *frames)], **more)


def told():
    """(fleet, now, wall)."""
    agent, fleet = Agent(), a_fleet()
    fold(fleet, agent.started(), agent.tick(12, server_time=0.004), agent.state(), agent.locations(), now=0.0)
    sleeps = {"stack_state": "waiting clock_nanosleep", "stack_waits": "sleep", "stack_cpu": 0.0}
    fold(fleet, agent.long("0.3", "/report", 5.0, request_annotations="user\0ann\0rows\x0084000\0"),
         agent.stack("0.3", 1, 2.0, pivot=(*POOL, REPORT, RENDER, CELL)),
         agent.stack("0.3", 2, 3.0, FETCH, pivot=(*POOL, REPORT), **sleeps),
         agent.stack("0.3", 3, 4.25, RENDER, CELL, shared=5, stack_cpu=1.25, stack_values="0\0cell\0'12.50'\x000\0self\0<Table at 0x7f00>\0"
                     "1\0password\0(masked)\x001\0rows\0[1, 2, 3]\0"),
         agent.long("0.5", "/stock", 4.0), agent.stack("0.5", 1, 2.0, pivot=(*POOL, HOLD), **sleeps, stack_tid=9002),
         agent.stack("0.5", 2, 3.5, shared=5, **sleeps, stack_tid=9002),
         agent.long("0.6", "/cart", 3.0), agent.stack("0.6", 1, 2.5, pivot=(*POOL, WAIT), stack_state="waiting futex", stack_waits="rlock",
                                                      stack_owner_tid=9002, stack_owner_log_id="0.5", stack_tid=9003, stack_cpu=0.0),
         agent.long("0.2", "/pay", 2.5), agent.stack("0.2", 1, 2.0, pivot=(*POOL, PAY), stack_tid=9004),
         agent.long("0.2", "/pay", 2.5, True, request_exception="shop.PaymentError", slow_status=500), now=8.5)
    fold(fleet, agent.raised(1, 7, "ValueError", CHECK, slow_path_info="/orders", slow_method="POST", slow_log_id="0.9",
                             exception_text="quantity must be positive"),
         agent.raised(2, 1, "shop.PaymentError", PAY, slow_path_info="/pay", slow_method="GET", slow_log_id="0.2"), now=9.0)
    spent = [0.002] * 30 + [0.011] * 9 + [0.25]
    fold(fleet, agent.record(OPERATION_TIMER, timer_name="db.query", timer_count=len(spent), timer_seconds=sum(spent), timer_max=0.25,
                             timer_errors=2, timer_buckets=buckets(*spent)),
         agent.record(OPERATION_TIMER, timer_name="cache.get", timer_count=9000, timer_seconds=0.0081, timer_max=4e-6, timer_errors=0,
                      timer_buckets=buckets(*[9e-7] * 9000)),
         agent.record(LOOP_LATENESS, loop_name="asyncio 1", loop_late_count=4, loop_late_seconds=1.5, loop_late_max=0.75, loop_limit=0.1,
                      loop_duration=0.5, stack_frames=[NUMBERS[each] for each in (POOL[0], REPORT, FETCH)]),
         agent.record(MEMORY_GROWTH, memory_state="growing", memory_locations=[NUMBERS[CELL], NUMBERS[FETCH]], memory_growth=[3.2e6, -1500.0],
                      memory_held=[4.0e6, 0.0], memory_blocks=[81000, -3], memory_seconds=60.0, memory_traced=5_000_000, memory_peak=6_000_000,
                      memory_overhead=700_000), agent.state(agent_lost=3, agent_problem="locals=maybe: wants on or off"), now=9.5)
    return fleet, 10.0, WALL + 10.0
