"""The rules of `why` on made-up scenes: what each says, when it is silent, and how what they say is put together."""
import json
import os
import socket
import time

import pytest

from modwsgi_tel.findings import SEVERITIES
from modwsgi_tel.stacks.model import Frame
from modwsgi_tel.why import judged, rules
from modwsgi_tel.why.rules import FINDINGS_MOST, RULES, judge
from running import short_folder
from scenes import (APP, BACKEND, BEHIND, ENTRY, FUTEX, IDLE, LIB, LOCKED, LOOK_S, PARENT_MEMBER, SLEEPING, SLEEPS, STREAM, WAITS, WALL, a_config, a_container,
                    a_daemon, a_finding, a_host, a_lock_wait, a_log, a_look, a_member, a_process, a_request, a_scene, a_socket, a_thread, a_wait, an_event,
                    evidence, looks, rates, telemetry, usage)



@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """What is compared does not depend on the machine that runs it."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def finding(id, severity, group, pid, since, text, evidence, advice, place=None):
    return {"id": id, "severity": severity, "group": group, "pid": pid, "since": since, "text": text, "evidence": evidence, "advice": advice, "place": place}


def running(tid, frames, request, **more):
    return a_thread(tid, frames, request, **{"state": "running", "wait": None, **more})


# --- the scenes: each with what makes it one ----------------------------------------------------

def gil_held(number=10, held=None, ended=False):
    held = number if held is None else held
    match, other = (Frame("match", APP, 20), ENTRY), a_request("/", 3.0, "Def")
    found = [a_look(running(11, match, a_request("/match", 4.0), owns_gil=place < held),
                    a_thread(12, LOCKED, a_request("/", 0.1, f"R{place}") if ended else other),
                    before_s=LOOK_S * (number - 1 - place), wanting=frozenset((12,))) for place in range(number)]
    return a_scene(a_process(found, rates=rates(cpu=0.98)))


def deadlock(cycles=1):
    ring = [a_lock_wait(11, owner_tid=12, how="owns it"),
            a_lock_wait(12, place=f"{APP}:36", function="refund", lock="journal", owner_tid=11, how="is inside of it since line 30")]
    both = a_thread(11, LOCKED, a_request("/pay", 4.0)), a_thread(12, (Frame("refund", APP, 36), ENTRY), a_request("/refund", 0.9, "Def"))
    return a_scene(a_process(looks(10, *both, waits={11: FUTEX, 12: FUTEX}), locks=ring if cycles else [], cycles=[ring] * cycles))


GUNICORN = a_member(100, parent=1, role="master", group="", server="gunicorn", command="/usr/bin/gunicorn --max-requests 50 app", title="")


def crash_loop(gone=(a_member(102), a_member(103, start=6000)), born=(a_member(103, start=6000), a_member(101)), **more):
    return a_scene(gone=list(gone), born=list(born), **more)


def request_timeout(age_s):
    return a_scene(a_process(looks(10, a_thread(11, SLEEPS, a_request("/work", age_s)), waits={11: SLEEPING}), daemon=a_daemon(request_timeout="10")))


def memory_limit(limit):
    return a_scene(a_process(limits={"address space": {"soft": limit}, "data": {"soft": None}, "open files": {"soft": 1024}}, largest=[a_container()]))


def kernel(kind="oom", text="Out of memory: Killed process 4711 (apache2)"):
    return a_scene(kernel=[{"at": WALL - 30, "text": text, "kind": kind, "pid": 4711, "name": "apache2"}])


def disks(*rows):
    return a_scene(host=a_host(disks=[{"path": path, "free_bytes": free, "size_bytes": whole, "free_inodes": inodes} for path, free, whole, inodes in rows]))


def capacity(busy=4, waiting=3, queued_s=0.6, late=4):
    threads = [running(11 + n, (Frame(f"view{n}", APP, 20 + n), ENTRY), a_request(f"/{n}", 0.9, f"R{n}", queued_s=queued_s if n < late else 0.0))
               for n in range(busy)]
    return a_scene(a_process(looks(10, *threads), rates=rates(cpu=0.5)), listeners=[[a_socket(waiting=waiting)]] * 10)


def backend(*ages, wait=BACKEND):
    threads = [a_thread(11 + n, WAITS, a_request("/price", age_s, f"R{n}")) for n, age_s in enumerate(ages)]
    return a_scene(a_process(looks(10, *threads, waits={each.tid: wait for each in threads})))


def lock(*ages):
    held = [a_lock_wait(11 + n, owner_tid=13, how="is inside of the block at app.py:60") for n in range(len(ages))]
    threads = [a_thread(11 + n, LOCKED, a_request("/pay", age_s, f"R{n}")) for n, age_s in enumerate(ages)]
    owner = a_thread(13, (Frame("settle", APP, 61), ENTRY), a_request("/settle", 0.7, "C"))
    return a_scene(a_process(looks(2, *threads, owner, waits={**{each.tid: FUTEX for each in threads}, 13: BACKEND}), locks=held))


WAITRESS = (Frame("Condition.wait", f"{LIB}/threading.py", 320), Frame("ThreadedTaskDispatcher.handler_thread", "/usr/lib/python3/dist-packages/waitress/task.py", 72))


def gil_contention(cpu=0.95, wanting=10, frames=None):
    found = [a_look(running(11, frames or (Frame("report", APP, 70 + place), ENTRY), None if frames else a_request("/report", 3.0), owns_gil=True),
                    a_thread(12, LOCKED, a_request("/", 0.1, f"D{place}")), before_s=LOOK_S * (9 - place),
                    wanting=frozenset((12,)) if place >= 10 - wanting else frozenset()) for place in range(10)]
    return a_scene(a_process(found, rates=rates(cpu=cpu)))


def gc_storm(during, number=10):
    collects = running(11, (Frame("collects", APP, 80), ENTRY), a_request("/page", 0.1), owns_gil=True)
    return a_scene(a_process(looks(number - during) + looks(during, collects, collecting=(0,)), rates=rates(cpu=0.3)))


def slow_path(*ages):
    threads = [a_thread(11 + n, SLEEPS, a_request("/nap", age_s, f"R{n}")) for n, age_s in enumerate(ages)]
    return a_scene(a_process(looks(3, *threads, waits={each.tid: SLEEPING for each in threads})))


def slow_response(threads, switches=5):
    found = [a_look(*(a_thread(11 + n, STREAM) for n in range(threads)), before_s=LOOK_S * (9 - place), waits={11: SLEEPING, 12: SLEEPING},
                    switches={11: place * switches, 12: 9}) for place in range(10)]
    return a_scene(a_process(found))


def slow_takers(writers):
    wait = a_wait("unix", direction="write", service="mod_wsgi", text="write on unix")
    return a_scene(a_process(looks(10, IDLE, writers={11 + n: wait for n in range(writers)})))


def memory_growth(step, grown=4_000_000):
    return a_scene(a_process(rss=[(n, 30_000_000 + step * n) for n in range(4)], grown=[(a_container(500, 1_000_000), a_container(2000, grown))]))


def descriptors(first, step, same=40, threads=6):
    return a_scene(a_process(after=usage(threads=threads), files=[(0.5 * n, first + step * n) for n in range(6)], descriptors={"same": [{"target": "/tmp/x", "kind": "file", "count": same}]}))


def threads(more):
    found = [a_look(IDLE, *(a_thread(20 + n, BEHIND) for n in range(place * more // 9)), before_s=LOOK_S * (9 - place)) for place in range(10)]
    return a_scene(a_process(found, before=usage(threads=6), after=usage(threads=6 + more)))


def zombies(number, state="Z"):
    return a_scene(members=[PARENT_MEMBER, a_member(), *(a_member(200 + n, parent=101, role="helper", state=state) for n in range(number))])


def states(before, after):
    return a_scene(a_process(before=usage(state=before), after=usage(state=after)))


def collector_late(newest, uptime_s=30.0, lived_s=5.1):
    """A process that had lived so long when the collector began, a day after the machine."""
    ticks = None if lived_s is None else int((86400.0 - uptime_s - lived_s) * os.sysconf("SC_CLK_TCK"))
    row = {"pid": 101, "process_group": "shop", "start_ticks": ticks, "sources": {"1": {"newest_seq": newest, "received": 10, "lost": 0, "duplicates": 0}}}
    return a_scene(telemetry=telemetry(summary={"collector": {"uptime_s": uptime_s}}, processes=[row]))


def neighbours(busy=0.99, cores=0.9, **more):
    rows = [{"pid": 900 + n, "name": "sh", "command": "/bin/sh -c while", "cores": cores, **more} for n in range(2)]
    return a_scene(a_process(rates=rates(cpu=0.1, run_wait=0.5)), host=a_host(busy=busy, neighbours={"cpu": rows, "memory": [], "io": []}))


def throttled(hit, cpu=0.4):
    cgroup = {"path": "/shop", "cpu": {"cores": 0.5, "periods": 100, "throttled_periods": hit, "throttled_s": 12.0}}
    return a_scene(a_process(rates=rates(cpu=cpu), cgroup=cgroup))


def pressure(some, full, part="memory"):
    return a_scene(host=a_host(pressure={part: {"some_avg10": some, "full_avg10": full}},
                               neighbours={"cpu": [], "memory": [{"pid": 7, "name": "db"}], "io": [{"pid": 8, "name": "backup"}]}))


CLIENT = a_wait("unix", target="", service="mod_wsgi", text="read on unix")
NO_COLLECTOR = {"socket": "unix:/run/none/t.sock", "interval": 1.0, "slow": None}
RAISED = {"place": f"{APP}:22", "places": {f"{APP}:22": 3}}
FIRES = {
    "gil-held": gil_held(),
    "deadlock": deadlock(),
    "crash-loop": crash_loop(),
    "request-timeout": request_timeout(9.5),
    "memory-limit": memory_limit(330_000_000),
    "out-of-memory": kernel(),
    "disk-full": disks(("/var", 5 << 20, 10 << 30, 10), ("/tmp", 5 << 30, 10 << 30, 0)),
    "capacity": capacity(),
    "backend": backend(4.0, 3.0),
    "lock": lock(5.0, 4.0),
    "gil-contention": gil_contention(),
    "gc-storm": gc_storm(3),
    "slow-path": slow_path(3.0, 4.0),
    "slow-response": slow_response(2, switches=1),
    "slow-clients": backend(3.0, 4.0, wait=CLIENT),
    "slow-clients that take": slow_takers(2),
    "memory-growth": memory_growth(1_000_000),
    "descriptors": descriptors(60, 2),
    "descriptors, all": descriptors(980, 0, same=2),
    "threads": threads(9),
    "zombies": zombies(5),
    "stopped": states("S", "T"),
    "stopped in the kernel": states("D", "D"),
    "fewer-processes": a_scene(configs={100: a_config(a_daemon(processes=2))}),
    "collector-away": a_scene(configs={100: a_config(telemetry=NO_COLLECTOR)}),
    "collector-late": collector_late(40),
    "neighbour": neighbours(),
    "throttled": throttled(40),
    "steal": a_scene(host=a_host(steal=0.15)),
    "pressure": pressure(30.0, 12.0),
    "log": a_scene(logs=a_log(an_event(count=3, first=WALL - 90))),
    "log of an exception": a_scene(logs=a_log(an_event("exception", "KeyError: 'coffee'", count=3, **RAISED))),
}
SILENT = {
    "gil-held": [gil_held(number=4), gil_held(held=7), gil_held(ended=True)],
    "deadlock": [deadlock(cycles=0)],
    "crash-loop": [crash_loop(gone=[a_member(103, start=6000)]), crash_loop(gone=[a_member(102), a_member(103)], born=[a_member(104), a_member(105)]),
                   crash_loop(parents=[]), crash_loop(configs={100: a_config(a_daemon(maximum_requests="50"))}), crash_loop(parents=[GUNICORN]),
                   crash_loop(logs=a_log(an_event("graceful", "Graceful restart requested, doing restart", at=WALL - 2)))],
    "request-timeout": [request_timeout(8.9), a_scene(a_process(looks(10, a_thread(11, SLEEPS, a_request("/work", 9.5))), daemon=a_daemon()))],
    "memory-limit": [memory_limit(340_000_000), memory_limit(None)],
    "out-of-memory": [kernel("segfault", "apache2[4711]: segfault at 0")],
    "disk-full": [disks(("/var", 200 << 20, 10 << 30, 10)), disks(("/var", 2 << 30, 400 << 30, None))],
    "capacity": [capacity(busy=3, waiting=0), capacity(waiting=0, late=2), capacity(waiting=0, queued_s=0.4)],
    "backend": [a_scene(a_process(looks(2, *(a_thread(11 + n, WAITS, a_request("/price", 0.9, f"R{n}")) for n in range(2)),
                                                             waits={11: BACKEND, 12: BACKEND}))), backend(3.9)],
    "lock": [lock(0.7, 0.7), lock(5.0)],
    "gil-contention": [gil_contention(cpu=0.7), gil_contention(wanting=1), gil_contention(frames=WAITRESS)],
    "gc-storm": [gc_storm(2), gc_storm(3, number=20)],
    "slow-path": [slow_path(0.9, 0.9), slow_path(29.0)],
    "slow-response": [slow_response(1, switches=1)],
    "slow-clients": [backend(29.0, wait=CLIENT), slow_takers(1)],
    "memory-growth": [memory_growth(600_000), memory_growth(1_000_000, grown=1_050_000)],
    "descriptors": [descriptors(60, 0), descriptors(12, 1, same=9), descriptors(819, 0),
                    descriptors(25, 5, same=30, threads=30)],
    "threads": [threads(4)],
    "zombies": [zombies(4), zombies(5, "S")],
    "stopped": [states("S", "D"), states("D", "S")],
    "fewer-processes": [a_scene(configs={100: a_config(a_daemon(processes=1))}), a_scene(configs={100: a_config(a_daemon(processes=2))}, alone=True)],
    "collector-away": [a_scene(configs={100: a_config()})],
    "collector-late": [collector_late(17), collector_late(40, uptime_s=3600.0), collector_late(40, lived_s=4.9)],
    "neighbour": [neighbours(busy=0.89), neighbours(cores=0.1), neighbours(client=True)],
    "throttled": [throttled(9), throttled(40, cpu=0.2)],
    "steal": [a_scene(host=a_host(steal=0.09))],
    "pressure": [pressure(19.0, 12.0), pressure(30.0, 9.0), pressure(39.0, 30.0, "io")],
    "log": [a_scene(logs=a_log(an_event("graceful", "Graceful restart requested, doing restart"))),
            a_scene(logs=a_log(an_event("exception", "KeyError: 'coffee'", count=2)))],
}
SAID = {
    "gil-held": [
        finding("gil-held", "critical", "shop", 101, WALL - 4,
                "pid 101 of shop: the GIL is held by C code in a call at app.py:20 for 4.0 s or longer, serving GET /match; 1 other "
                "thread cannot go on",
                [evidence("stack", "thread 11 has the GIL at every look, at the same line (10 looks)", f"{APP}:20", (Frame("match", APP, 20), ENTRY)),
                 evidence("proc", "pid 101 uses 0.98 cores")],
                "C code called at app.py:20 does not let go of the GIL: do less in one call, use a library that releases it, or do it "
                "in another process. Nothing else runs in this process meanwhile; restart the process to go on now.", f"{APP}:20"),
    ],
    "deadlock": [
        finding("deadlock", "critical", "shop", 101, WALL - 4,
                "pid 101 of shop: deadlock of 2 threads for 4.0 s or longer: thread 11 waits for accounts at app.py:31 and thread 12 "
                "waits for journal at app.py:36; each has what the other wants",
                [evidence("lock", f"thread 11 waits for accounts in pay at {APP}:31: thread 12 owns it", f"{APP}:31"),
                 evidence("lock", f"thread 12 waits for journal in refund at {APP}:36: thread 11 is inside of it since line 30", f"{APP}:36"),
                 evidence("stack", "thread 11", f"{APP}:31", LOCKED),
                 evidence("stack", "thread 12", f"{APP}:36", (Frame("refund", APP, 36), ENTRY))],
                "Take these locks in one order everywhere, or use one lock; only a restart of the process frees these threads now.", f"{APP}:31"),
    ],
    "crash-loop": [
        finding("crash-loop", "critical", "shop", None, None,
                "2 processes of shop ended within 3.0 s, and 2 processes began: it crashes or is ended again and again",
                [evidence("proc", "ended: pid 102, 103; new: pid 103, 101")],
                "See in the error log what ended them: a signal, os._exit, a limit, request-timeout; a failed import ends each new one too."),
    ],
    "request-timeout": [
        finding("request-timeout", "critical", "shop", 101, WALL - 9.5,
                "1 request of shop runs into request-timeout=10: GET /work is 9.5 s old in nap (app.py:40); mod_wsgi ends the process 101 for it",
                [evidence("config", "request-timeout=10 of WSGIDaemonProcess shop", "/etc/apache2/shop.conf:3"),
                 evidence("stack", "thread 11 runs too long", f"{APP}:40", SLEEPS)],
                "See what nap at app.py:40 waits for. All requests of a process are cut off when it ends: raise request-timeout only if "
                "requests may take that long.", f"{APP}:40"),
    ],
    "memory-limit": [
        finding("memory-limit", "critical", "shop", 101, None,
                "pid 101 of shop is near its memory limit: address space 300 MB of 330 MB (virtual-memory-limit, ulimit -v), 91 %",
                [evidence("memory", "dict CACHE of app.py holds about 4.0 MB in 1,000 entries, filled at app.py:88", f"{APP}:88"),
                 evidence("proc", "address space 300 MB of 330 MB (virtual-memory-limit, ulimit -v)")],
                "Bound what grows, which the evidence names where it is known; a higher limit (virtual-memory-limit, memory-limit of "
                "WSGIDaemonProcess, MemoryMax=) only buys time.", f"{APP}:88"),
    ],
    "out-of-memory": [
        finding("out-of-memory", "critical", None, 4711, WALL - 30,
                "the kernel's OOM killer ended 1 process, the last one apache2 (pid 4711)",
                [evidence("log", "Out of memory: Killed process 4711 (apache2)")],
                "See who takes the memory (modwsgi-tel inspect PID), and give the server a limit of its own so that the right process is ended."),
    ],
    "disk-full": [
        finding("disk-full", "critical", None, None, None,
                "the disk at /var is full: 5.2 MB of 10.7 GB free",
                [evidence("host", "/var: 5.2 MB free")],
                "Make room: df -h, df -i, and deleted files that are still open (modwsgi-tel inspect PID)."),
        finding("disk-full", "critical", None, None, None,
                "the file system at /tmp has no inodes left",
                [evidence("host", "/tmp: 0 inodes free")],
                "Make room: df -h, df -i, and deleted files that are still open (modwsgi-tel inspect PID)."),
    ],
    "capacity": [
        finding("capacity", "critical", "shop", None, WALL - 2.25,
                "shop: capacity, not code: 4 of 4 threads busy, 3 more requests wait, 27 % of the time in queue",
                [evidence("proc", "threads that serve at each look: 4, 4, 4, 4, 4, 4, 4, 4, 4, 4 of 4"),
                 evidence("socket", "connections that wait for the group's processes at each look: 3, 3, 3, 3, 3, 3, 3, 3, 3, 3"),
                 evidence("request", "4 requests that were seen had waited 600 ms for a thread"),
                 evidence("proc", "its processes use 0.50 of 2 cores"),
                 evidence("stack", "where the threads are, over all looks: view0 (app.py:20) 25 %, view1 (app.py:21) 25 %, view2 (app.py:22) 25 %, view3 "
                          "(app.py:23) 25 %")],
                "Raise threads or processes of shop (WSGIDaemonProcess threads=, processes=; gunicorn --workers, --threads); the "
                "requests themselves are not stuck."),
    ],
    "backend": [
        finding("backend", "warning", "shop", 101, WALL - 4,
                "2 requests of GET /price wait for an answer from postgres at 10.0.0.5:5432 in price (app.py:55) for up to 4.0 s; up to "
                "2 of 4 threads at once in shop",
                [evidence("request", f"GET /price: served for 4.0 s, thread 11 of pid 101, at {APP}:55", f"{APP}:55"),
                 evidence("request", f"GET /price: served for 3.0 s, thread 12 of pid 101, at {APP}:55", f"{APP}:55"),
                 evidence("stack", "thread 11 is in recvfrom on tcp 10.0.0.5:5432", f"{APP}:55", WAITS)],
                "The time is not spent in this code but in postgres at 10.0.0.5:5432: look there why it answers late; give the call at "
                "app.py:55 a timeout, so that a slow backend does not take all threads.", f"{APP}:55"),
    ],
    "lock": [
        finding("lock", "warning", "shop", 101, WALL - 5,
                "pid 101 of shop: one lock: 2 requests wait for accounts at app.py:31 for up to 5.0 s, likely held by thread 13, which "
                "is inside of the block at app.py:60 (recvfrom on tcp 10.0.0.5:5432)",
                [evidence("request", f"GET /pay waits for accounts in pay at {APP}:31 for 5.0 s", f"{APP}:31"),
                 evidence("request", f"GET /pay waits for accounts in pay at {APP}:31 for 4.0 s", f"{APP}:31"),
                 evidence("stack", "thread 13", f"{APP}:61", (Frame("settle", APP, 61), ENTRY)),
                 evidence("request", "who holds it serves GET /settle for 700 ms"),
                 evidence("stack", "thread 11", f"{APP}:31", LOCKED),
                 evidence("proc", "2 requests of GET /pay wait for a lock (accounts) in pay (app.py:31) for up to 5.0 s; up to 2 of 4 threads at once in shop", f"{APP}:31")],
                "Hold that lock for less time: nothing that waits (a backend, a file, sleep) belongs inside of it.", f"{APP}:61"),
    ],
    "gil-contention": [
        finding("gil-contention", "warning", "shop", 101, None,
                "pid 101 of shop: GIL contention: thread 11 computes in report (app.py:70) 100 % of the time, serving GET /report; 1.0 "
                "other threads want the GIL at any moment",
                [evidence("stack", "thread 11 runs: report at 10 of 10 looks", f"{APP}:70", (Frame("report", APP, 70), ENTRY)),
                 evidence("proc", "pid 101 uses 0.95 cores"),
                 evidence("stack", "thread 12 wants the GIL", f"{APP}:31", LOCKED)],
                "Python code runs one thread at a time: make report at app.py:70 do less, move it to another process, or serve with "
                "fewer threads and more processes.", f"{APP}:70"),
    ],
    "gc-storm": [
        finding("gc-storm", "warning", "shop", 101, None,
                "pid 101 of shop: garbage is collected 30 % of the time, most often in collects (app.py:80)",
                [evidence("memory", "a garbage collection runs at 3 of 10 looks"),
                 evidence("stack", "thread 11 collects", f"{APP}:80", (Frame("collects", APP, 80), ENTRY)),
                 evidence("proc", "pid 101 uses 0.30 cores")],
                "Remove calls of gc.collect() from requests; else gc.freeze() after loading, and a higher gc.set_threshold().", f"{APP}:80"),
    ],
    "slow-path": [
        finding("slow-path", "warning", "shop", 101, WALL - 4,
                "2 requests of GET /nap sleep in nap (app.py:40) for up to 4.0 s; up to 2 of 4 threads at once in shop",
                [evidence("request", f"GET /nap: served for 4.0 s, thread 12 of pid 101, at {APP}:40", f"{APP}:40"),
                 evidence("request", f"GET /nap: served for 3.0 s, thread 11 of pid 101, at {APP}:40", f"{APP}:40"),
                 evidence("stack", "thread 12 is in clock_nanosleep", f"{APP}:40", SLEEPS)],
                "The code at app.py:40 sleeps on purpose while it holds a thread of the server: let the client come back instead, or "
                "move that wait out of the request.", f"{APP}:40"),
    ],
    "slow-response": [
        finding("slow-response", "warning", "shop", 101, WALL - 2.25,
                "2 responses of shop are written slowly, for 2.2 s or longer so far: export (app.py:102) makes their pieces, and they "
                "sleep between them; up to 2 of 4 threads at once",
                [evidence("request", f"a request whose path is not known: served for 2.2 s, thread 11 of pid 101, at {APP}:102", f"{APP}:102"),
                 evidence("request", f"a request whose path is not known: served for 2.2 s, thread 12 of pid 101, at {APP}:102", f"{APP}:102"),
                 evidence("stack", "thread 11 is in clock_nanosleep", f"{APP}:102", STREAM)],
                "The code at app.py:102 sleeps on purpose while it holds a thread of the server: let the client come back instead, or "
                "move that wait out of the request.", f"{APP}:102"),
    ],
    "slow-clients": [
        finding("slow-clients", "warning", "shop", 101, WALL - 4,
                "2 requests of GET /price wait for clients that send slowly in price (app.py:55) for up to 4.0 s; up to 2 of 4 threads "
                "at once in shop",
                [evidence("request", f"GET /price: served for 4.0 s, thread 12 of pid 101, at {APP}:55", f"{APP}:55"),
                 evidence("request", f"GET /price: served for 3.0 s, thread 11 of pid 101, at {APP}:55", f"{APP}:55"),
                 evidence("stack", "thread 12 is in read on unix", f"{APP}:55", WAITS)],
                "Not this code but its clients (or the proxy in front of them) are slow: have something in front buffer requests and "
                "responses, and bound both (RequestReadTimeout of mod_reqtimeout, Timeout, response-socket-timeout).", f"{APP}:55"),
    ],
    "slow-clients that take": [
        finding("slow-clients", "warning", "shop", None, None,
                "slow clients: 2 of 4 threads of shop wait to hand a response on: clients, or a proxy, read slowly",
                [evidence("proc", "threads that wait to write at each look: 2, 2, 2, 2, 2, 2, 2, 2, 2, 2"),
                 evidence("socket", "thread 11 of pid 101: write on unix"),
                 evidence("socket", "thread 12 of pid 101: write on unix")],
                "Let something in front buffer the responses (a proxy, a larger response-buffer-size), and bound it with "
                "response-socket-timeout."),
    ],
    "memory-growth": [
        finding("memory-growth", "warning", "shop", 101, None,
                "pid 101 of shop: memory grows by 1.0 MB a second, to 33.0 MB; dict CACHE of app.py holds about 4.0 MB in 2,000 "
                "entries, 1,500 more within 3.0 s, filled at app.py:88",
                [evidence("memory", "dict CACHE of app.py grew from 500 to 2,000 entries, about 4.0 MB, filled at app.py:88", f"{APP}:88"),
                 evidence("proc", "resident memory: 30.0 MB, 31.0 MB, 32.0 MB, 33.0 MB")],
                "Bound CACHE (app.py:88): a cache needs a limit (functools.lru_cache(maxsize=...)) and what a request collects should "
                "end with it. Until then maximum-requests or restart-interval of WSGIDaemonProcess bounds the process.", f"{APP}:88"),
    ],
    "descriptors": [
        finding("descriptors", "warning", "shop", 101, None,
                "pid 101 of shop: 70 of 1,024 files are open, 40 of them file /tmp/x, 10 more within 2.5 s",
                [evidence("proc", "open descriptors at each count: 60, 62, 64, 66, 68, 70"),
                 evidence("proc", "40 descriptors on file /tmp/x")],
                "A descriptor leak: find where what is open many times is opened without being closed (use `with`); a higher limit "
                "(LimitNOFILE=, ulimit -n) only buys time. modwsgi-tel inspect 101 lists them all."),
    ],
    "descriptors, all": [
        finding("descriptors", "critical", "shop", 101, None,
                "pid 101 of shop: 980 of 1,024 files are open",
                [evidence("proc", "open descriptors at each count: 980, 980, 980, 980, 980, 980"),
                 evidence("proc", "2 descriptors on file /tmp/x")],
                "Raise the limit (LimitNOFILE= of Apache's unit, ulimit -n), or see with modwsgi-tel inspect 101 what holds them."),
    ],
    "threads": [
        finding("threads", "warning", "shop", 101, None,
                "pid 101 of shop: ever more threads: 15 now, 9 more within 3.0 s; 9 of them are in mails (app.py:77)",
                [evidence("proc", "threads with Python frames at each look: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
                 evidence("stack", "thread 20", f"{APP}:77", BEHIND)],
                "Requests start threads that do not end: use a pool of bounded size (concurrent.futures.ThreadPoolExecutor), or end "
                "them with the request.", f"{APP}:77"),
    ],
    "zombies": [
        finding("zombies", "warning", "shop", 101, None,
                "pid 101 of shop has 5 zombies: children that have ended and that it has not waited for",
                [evidence("proc", "5 children in state Z (defunct)")],
                "Wait for each child (subprocess.run, Popen.wait() or with Popen(...)): each one takes a pid until its parent has taken notice."),
    ],
    "stopped": [
        finding("stopped", "critical", "shop", 101, None,
                "pid 101 of shop is stopped (state T): a signal or a debugger holds it",
                [evidence("proc", "state T")],
                "If no debugger is meant to hold it: kill -CONT 101"),
    ],
    "stopped in the kernel": [
        finding("stopped", "critical", "shop", 101, None,
                "pid 101 of shop hangs in the kernel (state D): it waits for a disk or a network file system",
                [evidence("proc", "state D at both ends of the look")],
                "See which disk or network file system it waits for (modwsgi-tel inspect PID)."),
    ],
    "fewer-processes": [
        finding("fewer-processes", "warning", "shop", None, None,
                "1 of 2 processes of shop runs",
                [evidence("config", "WSGIDaemonProcess shop processes=2", "/etc/apache2/shop.conf:3")],
                "The others have ended and are not there again yet: see the error log for why."),
    ],
    "collector-away": [
        finding("collector-away", "warning", None, 100, None,
                "Apache (pid 100) sends its telemetry to /run/none/t.sock, where no collector listens: there is no such socket; what it "
                "sends meanwhile is lost",
                [evidence("config", "WSGITelemetryService unix:/run/none/t.sock"),
                 evidence("socket", "/run/none/t.sock: there is no such socket")],
                "Start the collector: modwsgi-tel serve --listen unix:/run/none/t.sock; Apache's user must be allowed to write to it "
                "(--socket-group)."),
    ],
    "collector-late": [
        finding("collector-late", "warning", None, None, WALL - 30,
                "the collector was away, or not started, until 22:12 (30.0 s ago): 1 process had sent up to 30 datagrams of telemetry "
                "by then, which are lost",
                [evidence("telemetry", "pid 101 of shop: 30 datagrams before the first that came")],
                "What was before is not in its figures. Have systemd restart the collector (Restart=always), and see its log for why it "
                "was away."),
    ],
    "neighbour": [
        finding("neighbour", "warning", None, 900, None,
                "the machine's cores are 99 % busy, and other processes than this server take 1.9 of 2 cores: sh (pid 900, 0.9 cores), "
                "sh (pid 901, 0.9 cores)",
                [evidence("host", "sh (pid 900): 0.90 cores: /bin/sh -c while"),
                 evidence("host", "sh (pid 901): 0.90 cores: /bin/sh -c while"),
                 evidence("proc", "pid 101 of shop waited 50 % of the time for a core")],
                "Stop or renice what takes them (CPUWeight=, nice); this server's own code is not the cause."),
    ],
    "throttled": [
        finding("throttled", "warning", "shop", 101, None,
                "the cgroup /shop of pid 101 of shop is throttled: in 40 % of its periods, limit 0.5 cores",
                [evidence("proc", "throttled for 12.0 s in all")],
                "Raise CPUQuota= (or the container's limit)."),
    ],
    "steal": [
        finding("steal", "warning", None, None, None,
                "15 % of this virtual machine's CPU time is taken by its host (steal)",
                [evidence("host", "steal 15 % over 3.0 s")],
                "Ask who runs the host, or take a larger machine."),
    ],
    "pressure": [
        finding("pressure", "warning", None, None, None,
                "the machine is short of memory: something waited for it 30 % of the last ten seconds; most is used by db (pid 7)",
                [evidence("host", "/proc/pressure/memory: some 30.0 %, full 12.0 %")],
                "See the neighbours named; add memory, or move what writes elsewhere."),
    ],
    "log": [
        finding("crash", "critical", "shop", 101, WALL - 90,
                "a process of the server died of a signal: a crash in C code, of Python, an extension or a library: child pid 101 exit "
                "signal Segmentation fault (11), 3 times, last at 22:12",
                [evidence("log", "child pid 101 exit signal Segmentation fault (11) (3 times)")],
                "Set PYTHONFAULTHANDLER=1 in the server's environment to have the Python stack of the next crash in the error log; "
                "CoreDumpDirectory keeps its memory."),
    ],
    "log of an exception": [
        finding("exception", "warning", "shop", 101, WALL - 60,
                "an exception left the application; the client got a 500: KeyError: 'coffee' at app.py:22, 3 times, last at 22:12",
                [evidence("log", "KeyError: 'coffee' (3 times)", f"{APP}:22")],
                "Mend it at app.py:22.", f"{APP}:22"),
    ],
}


@pytest.mark.parametrize("name", SAID)
def test_a_rule_says_what_it_saw(name):
    scene = FIRES[name]
    assert judge(scene) == (SAID[name], [])
    assert scene.unknown == []


@pytest.mark.parametrize("name", SILENT)
def test_a_rule_is_silent_below_its_threshold(name):
    for scene in SILENT[name]:
        said = [each["id"] for each in judge(scene)[0]]
        # a GIL that is let go of now and then is contended
        assert said == (["gil-contention"] if name == "gil-held" and len(scene.processes[0].looks) > 4 else []) and scene.unknown == []


def test_each_rule_has_a_scene_on_which_it_says_something():
    assert {name.partition(",")[0].partition(" ")[0] for name in SAID} == {rule.id for rule in RULES} == set(SILENT)
    assert all(rule.severity in SEVERITIES and rule.help.endswith(".") for rule in RULES)
    assert len({(rule.id, rule.help) for rule in RULES}) == len(RULES)


def test_nothing_is_said_of_a_healthy_server():
    assert judge(a_scene()) == ([], [])
    assert judge(a_scene(telemetry=telemetry(), logs=a_log(), configs={100: a_config()}, listeners=[[a_socket()]] * 10)) == ([], [])


def test_nothing_is_said_where_nothing_could_be_read():
    nothing = a_process([], before=None, after=None, rates=None, limits=None, files=[], rss=[], threads=None)
    assert judge(a_scene(nothing, host={}, parents=[], members=[], listeners=[])) == ([], [])


# --- one trouble is said once -------------------------------------------------------------------

def together(*scenes, **more):
    """One scene with the processes, logs and all of several."""
    first = scenes[0]
    return a_scene(*(process for scene in scenes for process in scene.processes), **{
        "logs": {number: log for number, scene in enumerate(scenes) for log in scene.logs.values()},
        "listeners": [found for scene in scenes for found in scene.listeners], "gone": [each for scene in scenes for each in scene.gone],
        "born": [each for scene in scenes for each in scene.born], "host": first.host, "configs": first.configs, **more})


def ids(scene):
    return [each["id"] for each in judge(scene)[0]]


def test_what_another_finding_explains_is_evidence_of_it():
    refused = an_event("no-response", "Truncated or oversized response headers received from daemon process 'shop'", pid=110)
    crashed = an_event("crash", count=3)
    found, _ = judge(a_scene(logs=a_log(crashed, refused), gone=crash_loop().gone, born=crash_loop().born))
    assert [each["id"] for each in found] == ["crash"]
    assert [each["text"].partition(":")[0] for each in found[0]["evidence"]] == [
        "child pid 101 exit signal Segmentation fault (11) (3 times)", "2 processes of shop ended within 3.0 s, and 2 processes began",
        "a daemon took a request and gave no whole answer"]


def test_what_another_groups_finding_explains_stays():
    refused = an_event("no-response", "Truncated or oversized response headers received from daemon process 'mail'", group="mail")
    assert ids(a_scene(logs=a_log(an_event("crash"), refused))) == ["crash", "no-response"]


def test_a_slow_path_that_only_wants_the_gil_is_part_of_the_contention():
    threads = [running(11 + n, (Frame("report", APP, 70), ENTRY), a_request("/report", 3.0, f"R{n}"), owns_gil=n == 0) for n in range(2)]
    scene = a_scene(a_process(looks(10, *threads, wanting=frozenset((12,))), rates=rates(cpu=0.95)))
    scene.processes[0].looks = [look._replace(stacks=look.stacks._replace(threads=(
        threads[place % 2]._replace(owns_gil=True), threads[1 - place % 2]._replace(owns_gil=False)))) for place, look in enumerate(scene.processes[0].looks)]
    [found], _ = judge(scene)
    assert found["id"] == "gil-contention" and "2 requests of GET /report compute in report (app.py:70)" in found["evidence"][-1]["text"]


def test_what_explains_it_may_be_explained_itself():
    threads = [running(11 + n, (Frame("report", APP, 70), ENTRY), a_request("/report", 3.0, f"R{n}")) for n in range(2)]
    found = [a_look(threads[0]._replace(owns_gil=place % 2 == 0), threads[1]._replace(owns_gil=place % 2 == 1), before_s=LOOK_S * (9 - place),
                    wanting=frozenset((12 - place % 2,)), collecting=(0,)) for place in range(10)]
    [gc], _ = judge(a_scene(a_process(found, rates=rates(cpu=0.95))))
    assert gc["id"] == "gc-storm"
    assert [each["text"][:30] for each in gc["evidence"][-2:]] == ["pid 101 of shop: GIL contentio", "2 requests of GET /report comp"]


def test_two_troubles_are_two_findings_the_worse_one_first():
    other = backend(4.0, 3.0)
    other.processes[0].member = a_member(102, group="mail")
    scene = together(other, deadlock(), members=[PARENT_MEMBER])
    assert ids(scene) == ["deadlock", "backend"]


def in_turn(*lives, path="/nap"):
    """One thread that serves one request after the other; lives: (age at its last look, looks)."""
    found, left = [], sum(number for _, number in lives)
    for name, (age_s, number) in enumerate(lives):
        left -= number
        found += [a_look(a_thread(11, SLEEPS, a_request(path, age_s + LOOK_S * left, f"R{name}")), before_s=LOOK_S * (left + each), waits={11: SLEEPING})
                  for each in reversed(range(number))]
    return a_scene(a_process(found))


def test_a_long_request_that_a_shorter_one_of_its_path_follows_is_slow_but_not_where_most_are_quick():
    [found], _ = judge(in_turn((3.0, 8), (0.5, 2)))
    assert found["id"] == "slow-path" and found["text"].startswith("2 requests of GET /nap sleep in nap (app.py:40) for up to 3.0 s")
    assert ids(in_turn((2.1, 8), *[(0.1, 1)] * 4)) == []
    assert ids(in_turn((1.9, 8), (0.5, 2))) == []


def test_one_request_that_waits_long_for_a_backend_counts_where_threads_are_few():
    assert ids(backend(4.0)) == ["backend"]
    many = backend(29.0)
    many.processes[0].threads = 8
    assert ids(many) == []


def test_short_requests_one_after_another_at_one_line_do_not_hold_the_gil_for_good():
    inner = Frame("digest", APP, 20), ENTRY
    found = [a_look(running(11, inner, a_request("/", 0.1 + LOOK_S * (9 - place), f"R{place}"), owns_gil=True), before_s=LOOK_S * (9 - place)) for place in range(10)]
    assert ids(a_scene(a_process(found, rates=rates(cpu=0.98)))) == []


def test_who_waits_for_a_future_is_told_with_what_the_pool_behind_it_waits_for():
    threads = [a_thread(11 + n, (Frame("Condition.wait", f"{LIB}/threading.py", 320), Frame("Future.result", f"{LIB}/concurrent/futures/_base.py", 451), *SLEEPS),
                        a_request("/mail", 4.0, f"R{n}")) for n in range(2)]
    waits = [a_lock_wait(each.tid, place=f"{APP}:40", function="nap", lock="sent", kind="condition") for each in threads]
    scene = a_scene(a_process(looks(10, *threads, a_thread(21, BEHIND), waits={11: FUTEX, 12: FUTEX, 21: BACKEND}), locks=waits))
    [found], _ = judge(scene)
    assert (found["id"], found["place"]) == ("slow-path", f"{APP}:40")
    assert found["text"].endswith("; behind it 1 thread waits for an answer from postgres at 10.0.0.5:5432 in mails (app.py:77)")
    assert found["evidence"][-1]["place"] == f"{APP}:77"


def test_an_application_that_is_installed_as_a_package_is_told_by_its_line_not_by_that_of_pythons_library():
    own = Frame("ask", "/srv/env/lib/python3.11/site-packages/acme/prices.py", 8)
    threads = [a_thread(11 + n, (WAITS[0], own, Frame("application", "/srv/env/lib/python3.11/site-packages/acme/wsgi.py", 3)),
                        a_request("/price", 3.0, f"R{n}")) for n in range(2)]
    [found], _ = judge(a_scene(a_process(looks(10, *threads, waits={11: BACKEND, 12: BACKEND}))))
    assert (found["id"], found["place"]) == ("backend", "/srv/env/lib/python3.11/site-packages/acme/prices.py:8")


def full(threads, **more):
    """All threads of a group busy with these, and requests that wait."""
    return a_scene(a_process(looks(10, *threads, **more), rates=rates(cpu=0.1)), listeners=[[a_socket(waiting=3)]] * 10)


def test_what_all_threads_wait_for_comes_before_that_they_are_all_busy():
    threads = [a_thread(11 + n, WAITS, a_request("/price", 3.0, f"R{n}")) for n in range(4)]
    found, _ = judge(full(threads, waits={each.tid: BACKEND for each in threads}))
    assert [(each["id"], each["severity"], each["place"]) for each in found] == [("backend", "critical", f"{APP}:55"), ("capacity", "critical", f"{APP}:55")]


def test_daemons_that_die_before_they_show_what_they_are_are_a_crash_loop_where_there_are_daemons():
    dead = [a_member(pid, start=6000, role="apache-child", group="", state="Z") for pid in (103, 104)]
    scene = crash_loop(gone=dead, born=dead, configs={100: a_config(a_daemon())})
    [found], _ = judge(scene)
    assert (found["id"], found["group"]) == ("crash-loop", "shop")
    assert ids(crash_loop(gone=dead, born=dead, configs={100: a_config()._replace(daemons=[])})) == []


def test_one_daemon_that_ended_is_a_crash_loop_where_requests_are_lost_again_and_again():
    for count, expected in ((5, ["crash-loop"]), (4, ["no-response"])):
        lost = an_event("no-response", "Error reading response headers from daemon process 'shop'", count=count)
        lost = lost._replace(at=WALL - 0.5)
        assert ids(crash_loop(gone=[a_member(102)], born=[a_member(103, start=6000)], logs=a_log(lost))) == expected


def test_threads_that_are_all_deadlocked_are_no_lack_of_threads():
    scene = deadlock()
    scene.processes[0].threads = 2
    [found], _ = judge(scene._replace(listeners=[[a_socket(waiting=1)]] * 10))
    assert found["id"] == "deadlock" and "2 of 2 threads busy, 1 more request waits" in found["evidence"][-1]["text"]


def test_a_group_whose_processes_compute_all_the_time_is_told_where():
    found = [a_look(running(11, (Frame("report", APP, 70 + place % 3), ENTRY), a_request("/report", 0.2 + LOOK_S * (9 - place), f"R{place}"), owns_gil=True),
                    before_s=LOOK_S * (9 - place)) for place in range(10)]
    scene = a_scene(a_process(found, rates=rates(cpu=0.95), threads=1), listeners=[[a_socket(waiting=3)]] * 10)
    [said], _ = judge(scene)
    assert (said["id"], said["place"]) == ("capacity", f"{APP}:70")
    assert said["text"] == "shop: 1 of 1 thread busy, 3 more requests wait: its processes compute, 0.9 cores of 1 that they can use, 100 % of it in report (app.py:70)"


def test_what_the_collector_alone_knows_explains_what_the_log_says():
    refused = an_event("no-response", "Error reading response headers from daemon process 'shop'")
    scene = a_scene(logs=a_log(refused))._replace(telemetry=telemetry(a_finding("vanished", severity="critical")))
    [found], _ = judge(scene)
    assert found["id"] == "vanished" and found["evidence"][-1]["text"].startswith("a daemon took a request and gave no whole answer")


# --- what a collector says --------------------------------------------------------------------------

def test_a_collectors_finding_of_the_same_trouble_is_evidence_and_its_beginning_counts():
    scene = backend(4.0, 3.0)._replace(telemetry=telemetry(a_finding("slow-requests")))
    expected = dict(SAID["backend"][0], since=WALL - 300)
    expected["evidence"] = [*expected["evidence"], evidence("telemetry", "slow-requests of shop")]
    assert judge(scene) == ([expected], [])


def test_a_collectors_finding_of_another_trouble_or_group_is_one_of_its_own():
    for alone in (a_finding("gc-pauses"), a_finding("slow-requests", process_group="mail")):
        found, notes = judge(backend(4.0, 3.0)._replace(telemetry=telemetry(alone)))
        assert [each["id"] for each in found] == ["backend", alone["id"]] and notes == []
        told = [evidence("telemetry", "slow requests 7")]
        assert found[1] == finding(alone["id"], "warning", alone["process_group"], None, WALL - 300, f"{alone['id']} of shop", told, "see slow")


def test_each_of_a_collectors_findings_is_said():
    scene = a_scene(telemetry=telemetry(a_finding("gc-pauses"), a_finding("losing", process_group=None), a_finding("errors", severity="critical")))
    assert ids(scene) == ["errors", "gc-pauses", "losing"] and scene.unknown == []


def test_a_collectors_finding_has_the_slow_requests_and_phases_that_it_rests_on():
    frames = [{"function": "price", "file": APP, "line": 55, "interpreter": 0}]
    entries = [{"process_group": "shop", "script_name": "", "path_info": "/price", "age_s": age_s, "stack": {"frames": frames}} for age_s in (2.0, 9.0)]
    window = {"phases": {"application": {"mean": 2.0, "p95": 9.0}, "queue": {"mean": 0.1, "p95": None}, "input": None}}
    said = telemetry(a_finding(), slow=entries, groups={"shop": {"windows": {"1m": window}}},
                     pivots=[{"requests": 5, "frames": frames}, {"requests": 1, "frames": []}])
    place = f"{APP}:55"
    stack = [dict(evidence("stack", said_of, place), frames=frames) for said_of in ("the stack of one of them", "5 long requests have this in common")]
    assert judge(a_scene(telemetry=said)) == ([finding("slow-requests", "warning", "shop", None, WALL - 300, "slow-requests of shop; most often at app.py:55", [
        evidence("telemetry", "slow requests 7"), evidence("request", "2 slow requests of /price, the longest 9.0 s"), *stack,
        evidence("telemetry", "mean times in the last minute: application 2.0 s (p95 9.0 s), queue 100 ms")], "see slow", place)], [])


def test_what_a_collector_only_notes_is_a_note():
    assert judge(a_scene(telemetry=telemetry(a_finding("young", severity="info")))) == ([], ["young of shop"])


def test_a_collector_of_another_version_does_not_end_the_judgement():
    scene = backend(4.0, 3.0)._replace(telemetry=telemetry(a_finding(severity="fatal"), {"id": "new"}))
    assert judge(scene) == (SAID["backend"], [])
    assert len(scene.unknown) == 1 and scene.unknown[0].startswith("the findings of the collector: this is a mistake of modwsgi-tel: KeyError: 'severity' at rules.py:")


# --- one group, bounds, mistakes ----------------------------------------------------------------------

def test_of_one_group_nothing_is_said_about_others_but_what_is_about_all():
    scene = a_scene(*deadlock().processes, host=a_host(steal=0.5), group="mail", logs=a_log(an_event("crash", group="shop"), an_event("no-space", "disk", group="")),
                    telemetry=telemetry(a_finding("gc-pauses"), a_finding("losing", process_group=None)))
    assert [(each["id"], each["group"]) for each in judge(scene)[0]] == [("no-space", None), ("steal", None), ("losing", None)]


def test_a_rule_that_fails_is_named_and_the_others_go_on(monkeypatch):
    def fails(scene):
        yield judged.Saw("first", "shop")
        raise TypeError("'NoneType' object is not subscriptable")
    monkeypatch.setattr(rules, "RULES", (judged.Rule("one", "critical", fails, "", "do"), *RULES))
    scene = backend(4.0, 3.0)
    found, notes = judge(scene)
    assert found == [finding("one", "critical", "shop", None, None, "first", [], "do"), *SAID["backend"]] and notes == []
    assert len(scene.unknown) == 1 and scene.unknown[0].startswith(
        "the rule one: this is a mistake of modwsgi-tel: TypeError: 'NoneType' object is not subscriptable at test_why_rules.py:")


def test_findings_evidence_and_texts_are_bounded():
    long = "x" * 10_000
    many = [an_event("exception", f"KeyError: {number} {long}", group=f"g{number}", count=3) for number in range(FINDINGS_MOST + 10)]
    found, _ = judge(a_scene(logs=a_log(*many)))
    assert len(found) == FINDINGS_MOST
    assert {(len(each["text"]), len(each["evidence"][0]["text"])) for each in found} == {(judged.TEXT_MOST, judged.TEXT_MOST)}
    lost = [an_event("no-response", f"Truncated {number}", script=f"/srv/{number}.wsgi") for number in range(40)]
    [crash], _ = judge(a_scene(logs=a_log(an_event("crash"), *lost)))
    assert len(crash["evidence"]) == judged.EVIDENCE_MOST
    deep = tuple(Frame(f"f{number}", APP, number) for number in range(500))
    [slow], _ = judge(a_scene(a_process(looks(3, *(a_thread(11 + n, deep, a_request("/", 4.0, f"R{n}")) for n in range(2)), waits={11: SLEEPING, 12: SLEEPING}))))
    assert len(slow["evidence"][-1]["frames"]) == judged.FRAMES_MOST


HOSTILE = "\x1b[2J\u202e{0}%s\n\x00\udcff'\"" + "{place}" * 3


@pytest.mark.parametrize("wait", [BACKEND, SLEEPING, FUTEX, a_wait("child", target="", command=HOSTILE), a_wait("pipe", target=HOSTILE, pids=[7], command=HOSTILE),
                                  a_wait("unix", target=HOSTILE), a_wait("file", target=HOSTILE, filesystem=HOSTILE), a_wait("tcp", target=HOSTILE, service=HOSTILE),
                                  a_wait("file", direction="lock", target=HOSTILE, pids=[7]), None], ids=lambda wait: wait and wait["kind"])
def test_hostile_names_paths_and_words_are_data(wait):
    frames = (Frame(HOSTILE, f"/srv/{HOSTILE}.py", None), Frame("{what}", "%s", 0))
    threads = [a_thread(11 + n, frames, a_request(HOSTILE, 40.0, HOSTILE + str(n), method=HOSTILE, process_group=HOSTILE), name=HOSTILE) for n in range(2)]
    scene = a_scene(a_process(looks(6, *threads, waits={11: wait, 12: wait}), member=a_member(group=HOSTILE, name=HOSTILE, command=HOSTILE),
                              locks=[a_lock_wait(11, lock=HOSTILE, place=HOSTILE, function=HOSTILE)], largest=[a_container(name=HOSTILE, file=None, module=HOSTILE)],
                              limits={"address space": {"soft": 1}}, daemon=a_daemon(HOSTILE, request_timeout=HOSTILE)),
                    logs=a_log(an_event("exception", HOSTILE, count=9, group=HOSTILE, place=HOSTILE, places={HOSTILE: 1}, script=HOSTILE)),
                    configs={100: a_config(a_daemon(HOSTILE, processes=3), telemetry={"socket": "unix:" + HOSTILE.replace("\0", "")})},
                    kernel=[{"at": WALL, "text": HOSTILE, "kind": "oom", "pid": None, "name": None}])
    found, notes = judge(scene)
    assert scene.unknown == [] and notes == []
    assert {"out-of-memory", "memory-limit", "exception", "fewer-processes"} <= {each["id"] for each in found}
    json.dumps(found, allow_nan=False)


def test_a_collector_that_listens_is_not_away():
    with short_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = os.path.join(folder, "t.sock")
        scene = a_scene(configs={100: a_config(telemetry={"socket": f"unix:{path}", "interval": 1.0, "slow": None})})
        listener.bind(path)
        assert judge(scene) == ([], [])
        listener.close()
        [found], _ = judge(scene)
        assert (found["id"], found["evidence"][1]["text"]) == ("collector-away", f"{path}: the socket is there, but nobody listens on it")


def test_a_socket_path_that_cannot_be_one_is_no_collector():
    scene = a_scene(configs={100: a_config(telemetry={"socket": "unix:/" + "x" * 300, "interval": 1.0, "slow": None})})
    assert judge(scene) == ([], []) and scene.unknown == []


def test_where_the_start_of_a_process_is_not_known_what_it_has_sent_counts():
    assert [each["id"] for each in judge(collector_late(40, lived_s=None))[0]] == ["collector-late"]


# --- restarts, and what a collector alone says of the GIL ------------------------------------------

def cut_off(after_s, count=1, again_s=0.0):
    """A request that a daemon left unanswered so long after a graceful restart, which was asked for again later."""
    return a_scene(logs=a_log(an_event("graceful", "Graceful restart requested", at=WALL - 60 + again_s, first=WALL - 60, severity="info"),
                                    an_event("no-response", "Truncated or oversized response headers", at=WALL - 60 + after_s, first=WALL - 60 + after_s,
                                             count=count, severity="warning")))


def test_a_few_requests_that_a_restart_has_cut_off_are_no_trouble():
    assert judge(cut_off(3.0)) == judge(cut_off(3.0, again_s=3.5)) == ([], [])


@pytest.mark.parametrize("after_s, count", [(6.0, 1), (-1.0, 1), (3.0, 5)])
def test_requests_that_are_lost_at_another_time_or_in_number_are_told(after_s, count):
    assert [each["id"] for each in judge(cut_off(after_s, count))[0]] == ["no-response"]


@pytest.mark.parametrize("cpu, told", [(0.1, False), (0.6, True)])
def test_a_collectors_gil_contention_is_a_finding_only_where_a_process_computes(cpu, told):
    found, notes = judge(a_scene(a_process(looks(10, a_thread(12)), rates=rates(cpu=cpu)), telemetry=telemetry(a_finding("gil-contention"))))
    assert [[each["id"] for each in found], len(notes)] == [["gil-contention"] * told, int(not told)]
