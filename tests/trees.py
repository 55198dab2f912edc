"""What the tree is made of, small and with honest defaults: two daemon groups of one Apache, with all that can be in them.

    answer = a_tree(sort="age")
"""
from modwsgi_tel.stacks.model import Frame, Request, Stacks, ThreadStack
from modwsgi_tel.tree import build, model

WALL = 1_700_000_000.0
LIB, APP = "/usr/lib/python3.11", "/srv/shop/app.py"
LOCKED = (Frame("pay", APP, 31), Frame("application", APP, 12))
SOCKET = (Frame("readinto", f"{LIB}/socket.py", 706), Frame("stock", APP, 55), Frame("application", APP, 14))
THREAD = (Frame("Thread.run", f"{LIB}/threading.py", 975), Frame("Thread._bootstrap_inner", f"{LIB}/threading.py", 1038),
          Frame("Thread._bootstrap", f"{LIB}/threading.py", 995))
BEHIND = (Frame("mails", APP, 77), *THREAD)
KEEPS = (Frame("housekeeping", APP, 90), *THREAD)
STREAM = (Frame("export", APP, 102),)


def a_request(request_id="Abc", path="/pay", age_s=4.0, thread_id="1", **more):
    """One that mod_wsgi's environ tells; age_s: before WALL."""
    return Request(**{"request_id": request_id, "thread_id": thread_id, "method": "GET", "path": path, "how": "environ",
                      "started": None if age_s is None else WALL - age_s, **more})


def a_thread(tid, frames=(), request=None, **more):
    return ThreadStack(tid, **{"state": "waiting", "wait": "futex (futex_do_wait)", "owns_gil": False, "frames": tuple(frames),
                               "request": request, **more})


def a_look(pid, *threads, interpreters=(0,), at=WALL - 0.1, **more):
    return Stacks(pid, python="3.11.2", interpreters=interpreters, threads=threads, at=at, **more)


def a_process(pid, role=model.DAEMON, group="shop", parent=100, looks=(), age_s=3600.0, **more):
    return model.Process(pid, **{"parent": parent, "role": role, "group": group, "server": "apache", "name": "apache2", "started": WALL - age_s,
                                 "command": "apache2 -k start", "uid": 33, "state": "S", "threads": 6, "cpu_s": 12.5, "cpu": 0.25,
                                 "rss_bytes": 34_500_000, "looks": looks, "looked_age_s": 0.1 if looks else None,
                                 "source": model.MEMORY if looks else None, **more})


def a_row(pid=101, **more):
    """A row of /api/processes."""
    return {"id": pid - 100, "pid": pid, "sender_pid": pid, "hostname": "web1", "process_group": "shop", "role": "daemon", "life": "running",
            "silent_s": None, "interval": 1.0, "slow_threshold": 0.5, "slow_active": 1, "parent_pid": 100, "start_ticks": None, "namespace_pids": [pid],
            "lost": 0, "implausible": 0, "rss": 1_000_000, "threads": {"maximum": 5, "started": 5, "active": 1},
            "windows": {"1m": {"throughput": 9.25, "capacity": 0.4, "cpu": 0.1, "requests": 555}}, **more}


def an_entry(pid=101, log_id="Abc", path="/pay", **more):
    """An entry of /api/slow, of the process with this pid."""
    return {"tree_pid": pid, "pid": pid, "process": pid - 100, "log_id": log_id, "thread_id": 1, "server_pid": 110, "method": "GET", "script_name": "",
            "path_info": path, "life": "active", "age_s": 4.0, "received": WALL - 0.5, "phase": "application", "start_stamp": WALL - 4.0,
            "queue_time": 0.25, "id": 9, **more}


PARENT = a_process(100, model.PARENT, "", 1, name="apache2", age_s=7200.0, threads=1, rss_bytes=7_400_000, cpu=0.0)
CHILD = a_process(110, model.CHILD, "", threads=27, rss_bytes=6_500_000, cpu=0.0, age_s=3500.0)


def a_server():
    """The processes of an Apache: two requests in one stack, one in another, one left behind, one that is streamed, and threads of nobody's."""
    one = a_process(101, looks=(a_look(
        101, a_thread(1010, LOCKED, a_request("Abc", "/pay", 4.0, application_group="")),
        a_thread(1011, LOCKED, a_request("Def", "/pay", 9.0, "2", application_group="")),
        a_thread(1012, SOCKET, a_request("Ghi", "/stock", 0.5, "3", application_group="site-a"), interpreter=1, wait="recvfrom (sk_wait_data)"),
        a_thread(1013, BEHIND, a_request("Old", "/order", 60.0, "3"), name="mailer", wait="clock_nanosleep (hrtimer_nanosleep)"),
        a_thread(1014, KEEPS, name="Thread-1", wait="clock_nanosleep (hrtimer_nanosleep)"),
        a_thread(1015, KEEPS, name="Thread-2", wait="clock_nanosleep (hrtimer_nanosleep)"),
        a_thread(1016, idle=True), a_thread(101, wait="poll (do_sys_poll)"), interpreters=(0, 1)),) * 3)
    two = a_process(102, looks=(a_look(102, a_thread(1020, LOCKED, a_request("Jkl", "/pay", 2.0)), a_thread(1021, STREAM)),), cpu=1.5,
                    rss_bytes=99_000_000, age_s=1800.0)
    mail = a_process(103, group="mail", looks=(a_look(103, a_thread(1030, idle=True)),), age_s=3000.0, threads=4)
    sleep = a_process(104, model.HELPER, "shop", 102, name="sleep", command="sleep 1000", threads=1, rss_bytes=1_700_000, cpu=0.0, age_s=20.0)
    return [PARENT, one, two, mail, sleep, CHILD]


def a_tree(processes=None, entries=(), told=None, missing=(), **ask):
    return build.tree(a_server() if processes is None else processes, entries, WALL, model.Ask(**ask), missing, told)


def every(nodes):
    """All nodes, nested ones after what they are in."""
    for node in nodes:
        yield node
        yield from every(node.get("children", ()))


def by_id(answer):
    return {node["id"]: node for node in every(answer["nodes"])}
