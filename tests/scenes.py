"""What `why` judges, small and with honest defaults: a healthy Apache with one daemon group, and what can be wrong with it.

    scene = a_scene(a_process(looks(10, a_thread(11, WAITS, a_request("/price", 4.0)), waits={11: BACKEND})))
"""
from modwsgi_tel.apache import kinds
from modwsgi_tel.apache.config import Config, Daemon
from modwsgi_tel.apache.errorlog import Event, Reading
from modwsgi_tel.proc.roles import DAEMON, PARENT, Member
from modwsgi_tel.proc.sockets import Socket
from modwsgi_tel.stacks.containers import Container
from modwsgi_tel.stacks.locks import LockWait
from modwsgi_tel.stacks.model import Frame, Request, Stacks, ThreadStack, frame_json
from modwsgi_tel.why.scene import Look, Process, Scene
from modwsgi_tel.why.telemetry import Telemetry

WALL = 1_700_000_000.0
LOOK_S = 0.25                           # between two looks
LIB, APP, SITE = "/usr/lib/python3.11", "/srv/shop/app.py", "/usr/lib/python3/dist-packages"
ENTRY = Frame("application", APP, 12)
WAITS = (Frame("SocketIO.readinto", f"{LIB}/socket.py", 706), Frame("price", APP, 55), ENTRY)
SLEEPS = (Frame("nap", APP, 40), ENTRY)
COMPUTES = (Frame("report", APP, 70), ENTRY)
LOCKED = (Frame("pay", APP, 31), ENTRY)
STREAM = (Frame("export", APP, 102),)
BEHIND = (Frame("mails", APP, 77), Frame("Thread.run", f"{LIB}/threading.py", 975), Frame("Thread._bootstrap_inner", f"{LIB}/threading.py", 1038),
          Frame("Thread._bootstrap", f"{LIB}/threading.py", 995))


def a_wait(kind="tcp", **more):
    """What a system call waits for, as proc.waits tells it."""
    return {"call": "recvfrom", "kind": kind, "target": "10.0.0.5:5432", "service": "", "direction": "read", "text": "recvfrom on tcp 10.0.0.5:5432",
            **more}


BACKEND = a_wait(service="postgres")
SLEEPING = a_wait("sleep", call="clock_nanosleep", target="", text="clock_nanosleep")
FUTEX = a_wait("futex", call="futex", target="", text="futex")


def a_member(pid=101, **more):
    return Member(**{"pid": pid, "parent": 100, "start": 5000, "role": DAEMON, "group": "shop", "server": "apache", "name": "apache2",
                     "command": "(wsgi:shop) -k start", "title": "(wsgi:shop)", "uid": 33, "state": "S", "threads": 6, "cpu_ticks": 1250,
                     "rss_bytes": 34_500_000, **more})


PARENT_MEMBER = a_member(100, parent=1, role=PARENT, group="", command="/usr/sbin/apache2 -k start", title="", uid=0, threads=1)


def a_request(path="/pay", age_s=4.0, request_id="Abc", **more):
    """age_s: at WALL, the last look."""
    return Request(**{"request_id": request_id, "thread_id": "1", "method": "GET", "path": path, "how": "environ",
                      "started": None if age_s is None else WALL - age_s, "process_group": "shop", **more})


def a_thread(tid, frames=(), request=None, **more):
    return ThreadStack(tid, **{"state": "waiting", "wait": "futex (futex_do_wait)", "owns_gil": False, "frames": tuple(frames), "request": request, **more})


IDLE = a_thread(19, idle=True)


def a_look(*threads, before_s=0.0, waits=None, switches=None, writers=None, wanting=frozenset(), collecting=()):
    """One look, so many seconds before the last one."""
    return Look(-before_s, Stacks(101, python="3.11.2", interpreters=(0,), threads=threads or (IDLE,), at=WALL - before_s, collecting=collecting),
                waits or {}, switches or {}, writers or {}, wanting)


def looks(number, *threads, **more):
    """The same at so many looks."""
    return [a_look(*threads, before_s=LOOK_S * left, **more) for left in reversed(range(number))]


def usage(**more):
    return {"state": "S", "threads": 6, "size_bytes": 300_000_000, "anon_bytes": 20_000_000, "rss_bytes": 34_500_000, **more}


def rates(**more):
    return {"cpu": 0.05, "run_wait": 0.0, **more}


def a_process(found=None, member=None, **more):
    """A Process with these looks, else with ten at an idle thread; more: its attributes."""
    process = Process(member or a_member())
    process.looks = looks(10) if found is None else found
    process.before, process.after, process.rates = usage(), usage(), rates()
    process.limits = {"open files": {"soft": 1024, "hard": 4096}, "address space": {"soft": None}, "data": {"soft": None}}
    process.files, process.rss = [(0.5 * n, 12) for n in range(6)], [(0.5 * n, 34_500_000) for n in range(6)]
    process.threads = 4
    for name, value in more.items():
        assert hasattr(process, name), name
        setattr(process, name, value)
    return process


def a_daemon(group="shop", processes=1, threads=4, **options):
    return Daemon(group, {name.replace("_", "-"): text for name, text in options.items()}, processes, threads, "/etc/apache2/shop.conf:3")


def a_config(*daemons, **more):
    return Config(**{"version": "2.4.57", "root": "/etc/apache2", "file": "apache2.conf", "mpm": "event", "defines": [], "includes": [], "error_logs": [],
                     "mod_wsgi": None, "daemons": list(daemons) or [a_daemon()], "directives": [], "telemetry": None, "changed": [], "asked": True,
                     "problems": [], **more})


def a_socket(path="/run/apache2/wsgi.100.0.1.sock", waiting=0, **more):
    return Socket(**{"kind": "unix", "inode": 7, "local": None, "remote": None, "state": "LISTEN", "received_queue": waiting, "send_queue": 0,
                     "path": path, "peer": None, "backlog": 100, "uid": 0, "service": "", "incoming": None, **more})


def an_event(id="crash", text="child pid 101 exit signal Segmentation fault (11)", **more):
    return Event(**{"at": WALL - 60, "id": id, "severity": kinds.BY_ID[id].severity, "level": "error", "pid": 101, "tid": None,
                    "source": "/var/log/apache2/error.log", "group": "shop", "place": "", "function": "", "text": text, "count": 1,
                    "first": more.get("at", WALL - 60), "pids": [101], "places": {}, "script": "", **more})


def a_log(*events):
    return {100: Reading(list(events), {event.id: event.count for event in events}, 1000, 0, [])}


def a_host(**more):
    return {"busy": 0.2, "cpus": 2, "steal": 0.0, "pressure": {}, "neighbours": {"cpu": [], "memory": [], "io": []},
            "disks": [{"path": "/", "free_bytes": 50 << 30, "size_bytes": 100 << 30, "free_inodes": 10**6}], **more}


def a_lock_wait(tid=11, **more):
    return LockWait(**{"tid": tid, "place": f"{APP}:31", "function": "pay", "lock": "accounts", "kind": "lock", "owner_tid": None, "how": "", **more})


def a_container(length=1000, amount=4_000_000, **more):
    return Container(**{"module": "app", "file": APP, "name": "CACHE", "kind": "dict", "length": length, "bytes": amount, "address": 1,
                        "grows_at": (f"{APP}:88",), **more})


def a_finding(id="slow-requests", **more):
    """One of a collector's."""
    return {"id": id, "severity": "warning", "hostname": "web1", "process_group": "shop", "pid": None, "process": None, "since": WALL - 300,
            "text": f"{id} of shop", "advice": "see slow", "figures": {"slow_requests": 7}, **more}


def telemetry(*findings, **more):
    return Telemetry(**{"where": "http://127.0.0.1:8888", "summary": {"collector": {"uptime_s": 86400.0}}, "groups": {}, "findings": list(findings),
                        "slow": [], "pivots": [], "exceptions": [], "events": [], "processes": [], "booted": WALL - 86400.0, **more})


def a_scene(*processes, **more):
    found = list(processes) if processes else [a_process()]
    return Scene(**{"at": WALL, "seconds": 3.0, "since": WALL - 600, "processes": found, "parents": [PARENT_MEMBER],
                    "members": [PARENT_MEMBER, *(process.member for process in found)], "host": a_host(), "logs": {}, "configs": {}, "listeners": [],
                    "telemetry": None, "kernel": [], "looked": 10, "gone": [], "born": [], "unknown": [], "root": True, "group": "", "imports": {}, "collectors": [], **more})


def evidence(kind, text, place=None, frames=None):
    """As JSON carries it; frames: Frames, of a stack."""
    return {"kind": kind, "text": text, "place": place, "frames": None if frames is None else [{**frame_json(each), "source": ""} for each in frames]}
