"""Facts: what the rules of `findings` judge, as plain data.

The rows of the groups have most of it.  What only single processes know is added here and at little
cost, one read of each newest tick: the rules run while nobody asks.

    {"processes", "reporting", "silent",        # not ended, nor silent while they stop; of these with a fresh tick
     "live", "ended", "ended_wall",             # processes; when the last one ended, None without any
     "heard_s",                                 # since the newest datagram of any process, None without any
     "lost", "wrong",                           # datagrams since the start
     "groups": [{
         "hostname", "process_group", "name",   # name: what a sentence calls it
         "serves",                              # False for Apache children that never had a request
         "window", "gc_dropped",                # the row's last minute; events since the start
         "process_s",                           # seconds of its processes that the minute's ticks tell of, in all
         "processes", "reporting", "taking",    # taking: of those that report the ones that do not stop
         "full",                                # of these the ones with every thread busy
         "silent": [Silent], "stopping": [Stopping], "vanished": [Vanished], "stops": {reason: [Stop]},
         "slow": Slowness, "rss": [Rss], "files": [Files],
        "server",                              # as an agent of theirs says, as "gunicorn 20.1.0"; "" where none does
        "unseen"}]}                            # processes whose agents report for mod_wsgi and have not seen a request; see _unseen

Names of groups are at most NAME_LENGTH in "name"; paths at most PATH_LENGTH.  Both are raw text.
"""
import struct
from collections import Counter, namedtuple
from operator import attrgetter

from modwsgi_tel.state.process import SILENT, STOPPING, VANISHED
from modwsgi_tel.state.slow import is_stale
from modwsgi_tel.state.view import alive, is_fresh
from modwsgi_tel.wire.fields import BY_NAME
from modwsgi_tel.wire.shapes import Wanted

RECENT_S = 600.0                        # how far back events count
NAME_LENGTH = 60
PATH_LENGTH = 80
FULL_CAPACITY = 0.9                     # a thread that had one short request in a tick is `active` too
SLOW_READ = 96                          # records of active slow requests that are read in one look, over all groups
RUNNING_MOST = 64                       # of these, the longest of a group are told one by one
SLOW_READ_LEAST = 4                     # of one group all the same
UNSEEN_S = 300.0                        # for so long an agent has seen no request that may see none ever
LATE = "--enable-threads"               # in what an agent says of uWSGI, which then runs no thread between requests
LATE_LENGTH = 200
AGE_MOST_S = 30 * 86400.0               # a longer duration is nonsense
RSS_MOST = 1 << 50
FILES_FRESH_S = 120.0                   # how old a look at a process's descriptors may be
FILES_GROWN_LEAST = 100                 # their numbers over time are told only of who has so many more

Silent = namedtuple("Silent", "process pid silent_s since inside alive held late state wait", defaults=("", "", "", ""))
Silent.__doc__ = """A process that fell silent: its id and pid, for how long (monotonic), since when (wall), requests
inside, what /proc says (True, or None when it cannot say), where it is held by its stacks (see taken.holder), or "", what its agent
has said of why it is heard late, or "", and of a look at it since it is silent its state (a letter) and where the kernel has it wait,
or ""."""

Stopping = namedtuple("Stopping", "process pid seconds since reason")
Stopping.__doc__ = "A process that said it stops and still goes on, `seconds` later."

Vanished = namedtuple("Vanished", "process pid since inside stopping")
Vanished.__doc__ = """A process that /proc says is gone and that never said it stopped: its id (None: forgotten), when
it was last heard (wall), slow requests inside, whether it had said that it stops."""

Stop = namedtuple("Stop", "wall uptime_s")
Stop.__doc__ = "A process_stopped: when, and how long that process had lived."

Slowness = namedtuple("Slowness", "active read paths running")
Slowness.__doc__ = """Slow requests that run in processes that speak: how many, how many of these were read, {path:
number} and [Running] of those that were read, the RUNNING_MOST longest, longest first."""

Running = namedtuple("Running", "age_s path process pid")
Running.__doc__ = "A slow request that runs: for how long by its process's clock, where."

Rss = namedtuple("Rss", "process pid bytes known_s")
Rss.__doc__ = "Resident memory by the newest tick, and for how long the process is known."

Files = namedtuple("Files", "process pid files limit points")
Files.__doc__ = """Open descriptors by the newest look, their limit or None; points: [(now, files)] of those before and this one, oldest first,
[] unless they have grown by FILES_GROWN_LEAST."""

NOTHING_SLOW = Slowness(0, 0, {}, [])

_TICK = Wanted(BY_NAME[name].id for name in (
    "request_threads_maximum", "request_threads_active", "capacity_utilization", "memory_rss"))
_CAPACITY = BY_NAME["capacity_utilization"].id
_ELAPSED = "request_threads_current_elapsed"
_SCRIPT, _PATH, _DURATION = (BY_NAME[name].id for name in ("slow_script_name", "slow_path_info", "slow_duration"))
_f64 = struct.Struct("<d").unpack_from


def facts(fleet, groups, now, wall):
    """Plain data for the rules; `groups` are rows of the summary, with at least the window "1m"."""
    rows = {(row["hostname"], row["process_group"]): row for row in groups}
    held = [group for group in fleet.groups.values() if group.name in rows]
    hosts = {hostname for hostname, _ in rows}
    stops, vanished = _events(fleet.events, wall)
    most = max(SLOW_READ_LEAST, SLOW_READ // max(1, len(held)))
    out = [_group(group, rows[group.name], len(hosts) > 1, stops.get(group.name, {}),
                  vanished.get(group.name, ()), fleet.taken, most, now, wall) for group in held]
    return {"processes": sum(group["processes"] for group in out),
            "reporting": sum(group["reporting"] for group in out),
            "silent": sum(len(group["silent"]) for group in out),
            **_lives(fleet, now), "lost": sum(row["lost"] for row in groups), "wrong": fleet.decode_errors, "groups": out}


def _lives(fleet, now):
    live, heard, ended = 0, None, []
    for process in fleet.processes():
        heard = process.last_now if heard is None else max(heard, process.last_now)
        if process.ended:
            ended.append(process.life_wall)
        else:
            live += 1
    return {"live": live, "ended": len(ended), "ended_wall": max(ended, default=None),
            "heard_s": None if heard is None else max(0.0, now - heard)}


def _group(group, row, many_hosts, stops, vanished, taken, most, now, wall):
    serves = set(row["roles"]) != {"apache-child"}
    processes = reporting = taking = full = 0
    silent, stopping, rss, slow, files = [], [], [], [], []
    gone = {}                           # (pid, sender's pid) -> its processes
    for process in group.processes.values():
        if vanished:
            gone.setdefault((process.who.pid, process.who.sender_pid), []).append(process)
        if process.ended:
            continue
        life = process.life
        processes += life != STOPPING or process.silent_now is None
        tick = process.tick
        fresh = is_fresh(process, now)
        if fresh:
            reporting += 1
            taking += life != STOPPING
            maximum, active, capacity, memory = tick[1].read(_TICK, tick[2])
            if 0 < maximum <= active and life != STOPPING:
                full += capacity >= FULL_CAPACITY or _CAPACITY not in tick[1].ids
            if 0 < memory < RSS_MOST:
                rss.append(Rss(process.id, process.pid, memory, now - process.first_now))
        if life == SILENT:
            silent.append(_silent(process, taken.get(process.id), now))
        elif life == STOPPING and (fresh or alive(process)):
            stopping.append(_stopping(process, wall))
        if process.kernel is not None:
            files += _files(process, now)
        if process.slow_active and process.silent_now is None:
            slow += process.slow_active.values()
    name = group.name[1][:NAME_LENGTH] or "(embedded)"
    minute = row["windows"]["1m"]
    interval = max([process.interval for process in group.processes.values()], default=1.0)
    server, unseen = _agents(group.processes.values(), now)
    return {"hostname": group.name[0], "process_group": group.name[1],
            "name": f"{name} on {group.name[0][:NAME_LENGTH]}" if many_hosts else name,
            "serves": serves, "window": minute, "gc_dropped": row["counters"]["gc_dropped_events"],
            "processes": processes, "reporting": reporting, "taking": taking, "full": full,
            "process_s": minute["ticks"] * interval,
            "silent": silent, "stopping": stopping, "vanished": _vanished(vanished, gone), "stops": stops,
            "slow": _slow(slow, most, now) if slow else NOTHING_SLOW,
            "rss": rss, "files": files, "server": server, "unseen": unseen}


def _silent(process, take, now):
    held = take.held if take is not None and take.now >= process.last_now else ""
    newest = process.kernel and process.kernel.newest
    state, wait = (newest.state, newest.wait or "") if newest and newest.now >= process.last_now else ("", "")
    return Silent(process.id, process.pid, max(0.0, now - process.last_now), process.last_wall, _inside(process),
                  alive(process), held, _late(process), state, wait[:NAME_LENGTH])


def _files(process, now):
    """[Files] of a process, [] where its descriptors are not known."""
    newest = process.kernel.newest
    if newest is None or newest.files is None or now - newest.now > FILES_FRESH_S:
        return []
    grown, _ = process.kernel.grown()
    points = process.kernel.files() if grown is not None and grown >= FILES_GROWN_LEAST else []
    return [Files(process.id, process.pid, newest.files, newest.files_limit, points)]


def _late(process):
    found = (state.get("agent_problem", "") for state in (process.agents.states.values() if process.agents else ()))
    return next((problem[:LATE_LENGTH] for problem in found if LATE in problem), "")


def _agents(processes, now):
    """(the WSGI server of a group's processes, how many of them have agents that report and have not seen a request).

    None has where any agent of the group saw one, or nobody but mod_wsgi serves: then it is not known which interpreters serve.
    """
    server, unseen, seen = "", 0, False
    for process in processes:
        states = list(process.agents.states.values()) if process.agents else ()
        server = next((state["agent_server"] for state in states if state.get("agent_server")), server)
        begun = [state.get("agent_begun", 0) for state in states]
        seen = seen or any(begun)
        unseen += (not process.ended and now - process.first_now > UNSEEN_S and any(state.get("agent_emits") for state in states)
                   and is_fresh(process, now))
    return server, unseen if server.startswith("mod_wsgi") and not seen else 0


def _stopping(process, wall):
    reason = (process.stopping or {}).get("reason", "")[:NAME_LENGTH]
    return Stopping(process.id, process.pid, max(0.0, wall - process.life_wall), process.life_wall, reason)


def _inside(process):
    """Requests that a process had when it was last heard: the slow ones, and those that its newest tick saw running."""
    running = 0
    if process.tick is not None:
        _, shape, datagram, _ = process.tick
        running = sum(1 for seconds in shape.fields(datagram).get(_ELAPSED, ()) if seconds > 0)
    return max(len(process.slow_active), running)


# --- events ------------------------------------------------------------------------------

def _events(events, wall):
    """({group: {reason: [Stop]}}, {group: [event]}) of the stops and the vanished of the last RECENT_S."""
    stops, vanished = {}, {}
    for event in events:
        kind = event["kind"]
        if kind == "process_stopped":
            if wall - RECENT_S <= event["received"] <= wall:
                reasons = stops.setdefault((event["hostname"], event["process_group"]), {})
                reasons.setdefault(event["shutdown_reason"][:NAME_LENGTH], []).append(
                    Stop(event["received"], event["process_uptime"]))
        elif kind == "process_vanished" and wall - RECENT_S <= event["received"] <= wall:
            vanished.setdefault((event["hostname"], event["process_group"]), []).append(event)
    return stops, vanished


def _vanished(events, held):
    """[Vanished] of events, less those that were heard again; `held` are processes by their pids."""
    out = []
    for event in events:
        same = [process for process in held.get((event["pid"], event["sender_pid"]), ())
                if process.first_wall <= event["last_seen"]]
        found = next((process for process in same if process.life == VANISHED), None)
        if found is not None or not same:
            out.append(Vanished(found.id if found else None, event["pid"], event["last_seen"], event["lost_requests"],
                                bool(found and found.stopping)))
    return out


# --- slow requests -----------------------------------------------------------------------

def _slow(requests, most, now):
    """Slowness of active requests; of more than `most` the oldest half of that is read, and some of all the others."""
    count = len(requests)
    if count > most:
        requests.sort(key=attrgetter("first_wall"))
        oldest = most // 2
        requests = requests[:oldest] + requests[oldest::-(-(count - oldest) // (most - oldest))]
    stale, paths, running = 0, Counter(), []
    for request in requests:
        process = request.process
        if is_stale(request, now):
            stale += 1
            continue
        unheard_s = now - request.record_now
        where, age_s = _read(request.shape, request.datagram)
        if not 0 <= age_s <= AGE_MOST_S:
            age_s = request.last_wall - request.first_wall
        paths[where] += 1
        running.append((max(0.0, age_s + unheard_s), where, process.id, process.pid))
    running.sort(reverse=True)
    shown = Counter()
    for where, number in paths.items():
        shown[_path(where)] += number
    return Slowness(count - stale, len(running), dict(shown),
                    [Running(age_s, _path(where), *whose) for age_s, where, *whose in running[:RUNNING_MOST]])


def _read(shape, datagram):
    """(path as bytes, duration) of a slow request; by hand: to compile a reader for each shape takes far longer."""
    script = path = b""
    age_s = 0.0
    for field, _, count, at in shape.layout:
        if field == _SCRIPT:
            script = datagram[at:at + count]
        elif field == _PATH:
            path = datagram[at:at + count]
        elif field == _DURATION:
            [age_s] = _f64(datagram, at)
    return script + path, age_s


def _path(raw):
    return raw[:4 * PATH_LENGTH].decode("utf-8", "replace")[:PATH_LENGTH] or "(no path)"
