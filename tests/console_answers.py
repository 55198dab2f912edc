"""Answers as a collector gives them, small ones with honest defaults, and their like with anything in them.

    view = a_view(bars=bars(a_process(pid=7)))
"""
import os
import time

from modwsgi_tel.console import views
from modwsgi_tel.console.cells import width
from modwsgi_tel.wire.fields import PHASES

WALL = time.mktime((2026, 3, 14, 3, 12, 40, 0, 0, -1))      # 03:12:40, wherever this runs
LIVES = ("started", "running", "silent", "stopping", "stopped", "vanished", "replaced")
HOSTILE = ("", "shop", "\x1b[2J\x1b[31mred", "a\x00b\r\nc\td", "\u202egnp.exe", "漢字かな" * 30,
           "e\u0301\u0301\u0301\u0301" * 40, "x" * 500, "\ud800\udfff", "🦄" * 60, "word " * 90, "\u0301first",
           "(embedded)", "%s{}%n")
NUMBERS = (0, 0.0, 1, -1, -0.5, 0.95, 3.7, 812, 1e-9, 5e-324, 1e9, 2 ** 64, 1e18, 1e308, -1e308, WALL,
           WALL - 86400.0 * 400)
MEANS = dict(zip(PHASES, (0.001, 0.002, 0.003, 0.094, 0.1, 0.012, 0.004, 0.005)))


def a_window(**more):
    phases = {name: {"mean": mean, "p50": mean, "p95": 2 * mean, "p99": 3 * mean, "max": 4 * mean}
              for name, mean in MEANS.items()}
    return {"seconds": 60.0, "ticks": 120, "requests": 600, "throughput": 10.0, "capacity": 0.25, "cpu_user": 0.3,
            "cpu_system": 0.1, "cpu": 0.4, "status": {"1xx": 0, "2xx": 598, "3xx": 0, "4xx": 0, "5xx": 2},
            "phases": phases, "gil": {"share": 0.12, "coefficient": None},
            "gc": {"pauses": 3, "seconds": 0.01, "max": 0.005}, "slow_completed": 1, "input_bytes": 0,
            "output_bytes": 1000, **more}


def lives(**counts):
    return {**dict.fromkeys(LIVES, 0), **counts}


def a_group(process_group="shop", hostname="web1", window=None, **more):
    return {"hostname": hostname, "process_group": process_group, "lives": lives(running=2), "roles": {"daemon": 2},
            "threads": {"maximum": 10, "started": 10, "active": 3}, "rss": 100_000_000, "counters": {}, "lost": 0,
            "started": 2, "stopped": 0, "vanished": 0, "stop_reasons": {}, "slow_active": 1, "slow_lost": 0,
            "switch_interval": 0.005, "windows": {"1m": window or a_window()}, **more}


BUSY = "3 of 4 processes of shop have every thread busy; queue time p95 1.2 s"


def a_finding(text=BUSY, process_group="shop", **more):
    return {"id": "threads-busy", "severity": "critical", "hostname": "web1", "process_group": process_group,
            "pid": None, "process": None, "since": WALL - 40, "text": text,
            "advice": "More threads, or more processes.", "figures": {}, **more}


def a_summary(groups=(), findings=(), window=None, **more):
    totals = {"groups": len(groups), "processes": 4, "lives": lives(running=4), "counters": {}, "lost": 0,
              "lost_uncertain": 0, "slow": {"kept": 0, "active": 0, "lost": 0},
              "windows": {"1m": window or a_window()}}
    return {"type": "summary", "version": 1, "time": WALL, "verdict": "all quiet", "findings": list(findings),
            "totals": {**totals, **more}, "groups": list(groups)}


COLUMNS = ("time", "requests", "throughput", "capacity", "cpu", "rss", "mean", "max", "queue", "gil_share", "errors",
           "slow", "gc_seconds", "gc_pauses")


def a_series(*points, step=5.0):
    """points: {column: value} or None, oldest first; the last one begins a step before WALL."""
    rows = []
    for place, point in enumerate(points):
        began = WALL - step * (len(points) - place)
        rows.append(None if point is None else [began, *(point.get(name, 0) for name in COLUMNS[1:])])
    return {"time": WALL, "window": "1m", "step_s": step, "columns": list(COLUMNS), "points": rows}


def a_process(pid=812, life="running", began=-20.0, heard=-0.5, since=0.0, **more):
    """began, heard, since: seconds from WALL, of its first and last datagram and of its life."""
    return {"id": pid, "pid": pid, "hostname": "web1", "process_group": "shop", "role": "daemon", "life": life,
            "life_since": WALL + since, "silent_s": None, "alive": True, "stopping": None, "stopped": None,
            "first_seen": WALL + began, "last_seen": WALL + heard, **more}


def bars(*processes, matched=None, offset=0):
    return {"time": WALL, "matched": len(processes) if matched is None else matched, "offset": offset,
            "processes": list(processes)}


def an_event(kind="process_started", pid=812, at=-10.0, **more):
    """at: seconds from WALL."""
    return {"kind": kind, "pid": pid, "stamp": WALL + at, "hostname": "web1", "process_group": "shop",
            "process_parent_pid": 800, "shutdown_reason": "", "process_uptime": 0.0, "lifetime_request_count": 0,
            "active_requests_at_decision": 0, "active_requests_at_exit": 0, "graceful_drain": 0,
            "received": WALL + at, "sender_pid": pid, **more}


def events(*found, dropped=0):
    """found: oldest first."""
    return {"time": WALL, "dropped": dropped, "lifecycle_events": list(found)}


def a_view(summary=None, **answers):
    source = {"name": "http://127.0.0.1:8888", "trouble": "", "age_s": 0.0, "note": "", "replay": ""}
    return {"source": source, "errors": {}, "summary": summary or a_summary(), **answers}


def fuzzed(random, value, odds=0.15):
    """The same JSON with anything in some of its places; what is text stays text or null, and so on."""
    if random.random() < odds:
        if isinstance(value, str):
            return random.choice((None, *HOSTILE))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return random.choice((None, *NUMBERS))
        if isinstance(value, list):
            return random.choice((None, [], value[:1], value * 30))
        if isinstance(value, dict):
            return random.choice((None, {}, {key: value[key] for key in value if random.random() < 0.5}))
        return None
    if isinstance(value, list):
        # a row may lack everything, but it is one
        return [(fuzzed(random, each, odds) or {}) if isinstance(each, dict) else fuzzed(random, each, odds)
                for each in value]
    if isinstance(value, dict):
        return {key: fuzzed(random, each, odds) for key, each in value.items()}
    return value


def check_fits(lines, size, glyphs):
    """At most as many Lines as there are rows, none too wide, nothing that a terminal takes for more than a letter."""
    assert len(lines) <= size.rows
    for spans in lines:
        text = "".join(span.text for span in spans)
        assert width(text) <= size.cols, text
        assert text.isprintable(), ascii(text)
        assert glyphs.utf8 or text.isascii(), ascii(text)


def check_every_row(looking, glyphs):
    """Go down a table to its end, open each row and leave it again: every screen fits, every answer is one."""
    for _ in range(views.pane_of(looking.ui).count(looking.view, looking.ui) + 1):
        check_fits(looking.lines(), looking.size, glyphs)
        looking.press("enter")
        assert looking.view["errors"] == {}
        if looking.ui.open is not None:
            check_fits(looking.lines(), looking.size, glyphs)
            looking.press("esc")
        looking.press("down")


def scrambled(value, choose):
    """The same JSON with some values gone, huge, negative, empty or hostile, lists empty or repeated."""
    if isinstance(value, dict):
        return {name: scrambled(each, choose) for name, each in value.items() if choose.random() > 0.04}
    if isinstance(value, list):
        return [scrambled(each, choose) for each in value] * choose.choice((1, 1, 1, 0, 3))
    if value is None or isinstance(value, bool) or choose.random() < 0.75:
        return value
    if isinstance(value, str):
        return choose.choice(HOSTILE)
    return choose.choice((None, 0, -1, 2 ** 63, 10 ** 25, *((1e-9, 1e18, 1e300) if isinstance(value, float) else ())))


def at_greenwich():
    """Times of day are those of UTC until the generator goes on: the body of a fixture."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


# --- stacks ---------------------------------------------------------------------------------------

LIB, APP = "/usr/lib/python3.11", "/srv/shop/releases/2026-03-13/site-packages/shop"
_POOL = (("wait", f"{LIB}/threading.py", 320), ("get", f"{LIB}/queue.py", 171), ("worker", f"{APP}/jobs.py", 44))
_CALLED = (("orders", f"{APP}/views/orders.py", 88), ("dispatch", f"{APP}/routing.py", 31), ("__call__", f"{APP}/wsgi.py", 12))


def some_frames(*calls, interpreter=0):
    """Calls as (function, file, line), innermost first."""
    return [{"function": function, "file": file, "line": number, "interpreter": interpreter} for function, file, number in calls]


def a_thread(tid=8101, *calls, interpreter=0, problem=None, **more):
    return {"tid": tid, "name": None, "interpreter": interpreter, "owns_gil": False, "state": "waiting",
            "wait": "futex (futex_do_wait)", "cpu_s": None, "idle": False, "whole": problem is None, "problem": problem, "request": None,
            "frames": some_frames(*calls, interpreter=interpreter), **more}


def a_served(request_id="Abc123", path="/orders", how="environ", method="GET"):
    return {"request_id": request_id, "thread_id": "3", "method": method, "path": path, "how": how}


def daemon_threads():
    """Threads of a daemon process: one keeps the GIL, three wait for the same lock, one is cut, one moved, six are idle."""
    return [
        a_thread(8100, name="MainThread", wait="poll (do_sys_poll)"),
        a_thread(8101, ("match", f"{LIB}/re/__init__.py", 166), ("clean", f"{APP}/text/markup.py", 210),
                 ("render", f"{APP}/text/markup.py", 57), *_CALLED, owns_gil=True, state="running", wait=None, cpu_s=0.98,
                 request=a_served("Zk9Q1", "/orders/7")),
        *(a_thread(tid, ("reserve", f"{APP}/stock.py", 301), ("put", f"{APP}/cart.py", 77), *_CALLED,
                   request=a_served(f"Q{tid}", f"/cart/{tid}", method="POST")) for tid in (8102, 8103, 8105)),
        a_thread(8104, ("load", f"{APP}/models.py", 12), problem="cut: the memory of its next frame is not there"),
        a_thread(8106, problem="moving", state="running", wait=None),
        *(a_thread(tid, idle=True) for tid in range(8110, 8114)),
        *(a_thread(tid, *_POOL, idle=True, name=f"pool-{tid}") for tid in (8120, 8121))]


def taken(*threads, pid=8095, age=2.0, **more):
    """What /api/stacks has of a process whose stacks were taken `age` seconds ago."""
    return {"pid": pid, "id": pid - 8000, "sender_pid": pid, "hostname": "web1", "process_group": "shop",
            "taken": WALL - age, "age_s": age,
            "why": "slow", "inner_pid": None, "start": 5000, "command": "(wsgi:shop)      -k start", "python": "3.11.2",
            "interpreters": sorted({each["interpreter"] for each in threads}), "problem": None, "at": WALL - age,
            "threads": list(threads), **more}


def stacks(*processes, matched=None, offset=0, **more):
    """What /api/stacks answers."""
    return {"time": WALL, "stacks": "auto", "helper": None, "rate": 2.0, "post": True,
            "counters": {"taken": 41, "failed": 0, "refused": 0, "gone": 1, "moving": 3, "cut": 0, "joined": 12, "guessed": 0,
                         "evicted": 0},
            "bytes": 90_000, "problem": None, "matched": len(processes) if matched is None else matched, "offset": offset,
            "processes": list(processes), **more}


def some_stacks():
    """Three processes: a daemon whose GIL is held, one with two interpreters, and one that waits."""
    return stacks(
        taken(*daemon_threads()),
        taken(a_thread(8201, ("recv_into", f"{LIB}/ssl.py", 1167), ("fetch", f"{APP}/rates.py", 19), interpreter=1, owns_gil=True,
                       state="running", wait=None),
              a_thread(8202, ("execute", f"{APP}/db.py", 66), *_CALLED, wait="poll (do_sys_poll)"), a_thread(8203, idle=True),
              pid=8200, age=9.0, why="asked", process_group="reports"),
        taken(a_thread(8301, ("recv", f"{APP}/queue.py", 5), wait="recvfrom (sk_wait_data)"), pid=8300, age=75.0, why="silent",
              process_group=""))
