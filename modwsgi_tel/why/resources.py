"""Rules about what a process and the machine have: memory, descriptors, CPU, disks, and who else takes them."""
import os
from collections import Counter

from modwsgi_tel.figures import counted, duration, number, percent, size
from modwsgi_tel.proc import roles
from modwsgi_tel.why.judged import Saw, evidence, stack, who
from modwsgi_tel.why.scene import application_frame, place_of, short_place

FILES_SHARE, FILES_GROWN, FILES_SAME = 0.8, 5, 50
LIMIT_SHARE = 0.9
GROWN_BYTES_S = 256 << 10               # a second, of memory and of one container
GROWN_LEAST = 2 << 20
BUSY_SHARE, NEIGHBOUR_CORES = 0.9, 0.55 # of all cores; of all cores, that others take
# cores of one neighbour; of all cores, and of what others take, that can be seen
NEIGHBOUR_LEAST, NEIGHBOUR_SHOWN, NEIGHBOUR_SHOWN_WHOLE = 0.05, 0.15, 0.7
STEAL_SHARE = 0.1
PRESSURE = 20.0                         # percent of the last ten seconds in which something waited for memory
IO_PRESSURE = 40.0
FREE_SHARE, FREE_LEAST = 0.01, 16 << 20
THROTTLED_SHARE = 0.1


def descriptors(scene):
    for process in scene.processes:
        counts = process.files
        limit = ((process.limits or {}).get("open files") or {}).get("soft")
        if not counts:
            continue
        now, grown = counts[-1][1], counts[-1][1] - counts[0][1]
        full = bool(limit) and now >= FILES_SHARE * limit
        numbers = [each for _, each in counts]
        climbs = grown >= FILES_GROWN and len(numbers) >= 4 and all(b >= a for a, b in zip(numbers, numbers[1:])) and sum(
            b > a for a, b in zip(numbers, numbers[1:])) >= len(numbers) / 2
        told = process.descriptors or {}
        same = [each for each in told.get("same", ()) if each["count"] >= 2]
        # a connection of its own for each thread is opened once, after a start
        threads = (process.after or {}).get("threads") or process.member.threads
        leaks = climbs and (now >= FILES_SAME and (not same or same[0]["count"] > threads)
                            or bool(same) and same[0]["count"] >= max(10, threads + 1))
        if not full and not leaks:
            continue
        of = f" of {number(limit, 0)}" if limit else ""
        what = f", {number(min(now, same[0]['count']), 0)} of them {_on(same[0])}" if same and same[0]["count"] >= 3 else ""
        climbing = f", {grown} more within {duration(counts[-1][0] - counts[0][0])}" if grown > 0 else ""
        shown = [evidence("proc", f"{counted(each['count'], 'descriptor')} on {_on(each)}") for each in same[:5]]
        shown += _grown(process)
        place = next((each["place"] for each in shown if each["place"]), None)
        yield Saw(f"{who(process)}: {number(now, 0)}{of} files are open{what}{climbing}", process.group, process.pid, None,
                  [evidence("proc", "open descriptors at each count: " +
                            ", ".join(str(each) for each in numbers[:: -(-len(numbers) // 8)])), *shown],
                  severity="critical" if limit and now >= 0.95 * limit else None, place=place, same=("descriptors",),
                  advice="A descriptor leak: find where what is open many times is opened without being closed (use `with`); a higher "
                         f"limit (LimitNOFILE=, ulimit -n) only buys time. modwsgi-tel inspect {process.pid} lists them all."
                  if leaks or what else
                  f"Raise the limit (LimitNOFILE= of Apache's unit, ulimit -n), or see with modwsgi-tel inspect {process.pid} what holds "
                  "them.")


def _on(each):
    """What a row of `same` has open; the target of some kinds is but the kind again."""
    return each["kind"] if each["target"] in ("", each["kind"]) else f"{each['kind']} {each['target']}"


def _grown(process):
    """Evidence of containers that grew while it was looked at."""
    out = []
    for before, after in process.grown[:5]:
        where = f", filled at {', '.join(map(_short, after.grows_at[:3]))}" if after.grows_at else ""
        holds = f" of {after.holds}" if after.holds else ""
        out.append(evidence("memory", f"{after.kind} {after.name}{holds} of {_short(after.file or after.module)} grew from "
                            f"{number(before.length, 0)} to {number(after.length, 0)} entries, about {size(after.bytes)}{where}",
                            after.grows_at[0] if after.grows_at else None))
    return out


def held(process):
    """Evidence of the containers that hold most, where its memory is limited."""
    return [evidence("memory", f"{row.kind} {row.name} of {_short(row.file or row.module)} holds about {size(row.bytes)} in "
                     f"{number(row.length, 0)} entries" +
                     (f", filled at {', '.join(map(_short, row.grows_at[:3]))}" if row.grows_at else ""),
                     row.grows_at[0] if row.grows_at else None)
            for row in process.largest]


def _short(place):
    return place.rpartition("/")[2]


def memory_growth(scene):
    for process in scene.processes:
        if len(process.rss) < 3:
            continue
        (first, before), (last, after) = process.rss[0], process.rss[-1]
        seconds, grown = last - first, after - before
        steps = [b[1] - a[1] for a, b in zip(process.rss, process.rss[1:])]
        containers = [(a, b) for a, b in process.grown if b.bytes - a.bytes >= max(GROWN_BYTES_S * seconds / 4, 64 << 10)]
        fast = grown >= max(GROWN_LEAST, GROWN_BYTES_S * seconds) and sum(step > 0 for step in steps) >= 0.6 * len(steps)
        if not (fast and containers):
            continue
        a, b = containers[0]
        at = b.grows_at[0] if b.grows_at else None
        where = f", filled at {_short(at)}" if at else ""
        yield Saw(f"{who(process)}: memory grows by {size(grown / seconds)} a second, to {size(after)}; {b.kind} {b.name} of "
                  f"{_short(b.file or b.module)} holds about {size(b.bytes)} in {number(b.length, 0)} entries, "
                  f"{number(b.length - a.length, 0)} more within {duration(seconds)}{where}",
                  process.group, process.pid, None,
                  [*_grown(process), evidence("proc", "resident memory: " + ", ".join(
                      size(each) for _, each in process.rss[:: -(-len(process.rss) // 8)])), *_limits(process)],
                  place=at, same=("memory-growth",),
                  advice=f"Bound {b.name}{' (' + _short(at) + ')' if at else ''}: a cache needs a limit (functools.lru_cache(maxsize=...)) "
                         "and what a request collects should end with it. Until then maximum-requests or restart-interval of "
                         "WSGIDaemonProcess bounds the process.")


def _limits(process):
    return [evidence("proc", text) for _, text in near(process, 0.5)]


def near(process, share):
    """[(part, text)] of memory limits of which a process uses at least `share`."""
    out, usage = [], process.after or {}
    space = ((process.limits or {}).get("address space") or {}).get("soft")
    if space and usage.get("size_bytes") and usage["size_bytes"] >= share * space:
        out.append((usage["size_bytes"] / space,
                    f"address space {size(usage['size_bytes'])} of {size(space)} (virtual-memory-limit, ulimit -v)"))
    data = ((process.limits or {}).get("data") or {}).get("soft")
    if data and usage.get("anon_bytes") and usage["anon_bytes"] >= share * data:
        out.append((usage["anon_bytes"] / data, f"data {size(usage['anon_bytes'])} of {size(data)} (memory-limit, ulimit -d)"))
    memory = (process.cgroup or {}).get("memory") or {}
    if memory.get("limit_bytes") and memory.get("used_bytes") and memory["used_bytes"] >= share * memory["limit_bytes"]:
        out.append((memory["used_bytes"] / memory["limit_bytes"],
                    f"its cgroup uses {size(memory['used_bytes'])} of {size(memory['limit_bytes'])}"))
    return sorted(out, reverse=True)


def memory_limit(scene):
    seen = set()
    for process in scene.processes:
        for part, text in near(process, LIMIT_SHARE):
            # a cgroup's page cache fills it up and is given back: that alone is no trouble
            if text.startswith("its cgroup"):
                if not _pressed(process) or process.cgroup.get("path") in seen:
                    continue
                seen.add(process.cgroup.get("path"))
            yield Saw(f"{who(process)} is near its memory limit: {text}, {percent(part)}", process.group, process.pid, None,
                      [*_grown(process), *held(process), evidence("proc", text)], same=("memory-growth",), about=text.partition(" ")[0],
                      place=next((each["place"] for each in (*_grown(process), *held(process)) if each["place"]), None))
            break


def _pressed(process):
    memory, pressure = (process.cgroup or {}).get("memory") or {}, ((process.cgroup or {}).get("pressure") or {}).get("memory") or {}
    return (pressure.get("some_avg10") or 0) >= PRESSURE / 2 or bool(memory.get("oom_kills"))


def throttled(scene):
    seen = set()
    for process in scene.processes:
        cpu = (process.cgroup or {}).get("cpu") or {}
        path = (process.cgroup or {}).get("path")
        periods, hit = cpu.get("periods"), cpu.get("throttled_periods")
        if (not periods or not hit or hit < THROTTLED_SHARE * periods or path in seen or not process.rates
                or (process.rates.get("cpu") or 0) < 0.5 * (cpu.get("cores") or 1e9)):
            continue
        seen.add(path)
        yield Saw(f"the cgroup {path} of {who(process)} is throttled: in {percent(hit / periods)} of its periods, limit "
                  f"{cpu.get('cores')} cores", process.group, process.pid, None,
                  [evidence("proc", f"throttled for {duration(cpu['throttled_s'])} in all" if cpu.get("throttled_s") is not None
                            else "throttled")])


THREADS_GROWN, ZOMBIES_LEAST = 5, 5


def threads(scene):
    """More and more threads, most of them in one place."""
    for process in scene.processes:
        before, after = (process.before or {}).get("threads"), (process.after or {}).get("threads")
        if before is None or after is None or after - before < THREADS_GROWN or not process.looks:
            continue
        counts = [len(look.stacks.threads) for look in process.looks]
        if counts[-1] - counts[0] < THREADS_GROWN:
            continue
        frames = [(application_frame(thread.frames), thread) for thread in process.looks[-1].stacks.threads if thread.frames]
        [(frame, most)] = Counter(frame for frame, _ in frames).most_common(1) or [(None, 0)]
        where = "" if frame is None else f"; {number(most, 0)} of them are in {frame.function} ({short_place(frame)})"
        example = next((thread for at, thread in frames if at == frame), None)
        yield Saw(f"{who(process)}: ever more threads: {number(after, 0)} now, {number(after - before, 0)} more within "
                  f"{duration(scene.seconds)}{where}", process.group, process.pid, None,
                  [evidence("proc", "threads with Python frames at each look: " + ", ".join(map(str, counts[:: -(-len(counts) // 12)]))),
                   *([stack(process, example)] if example else [])], place=None if frame is None else place_of(frame),
                  advice="Requests start threads that do not end: use a pool of bounded size (concurrent.futures.ThreadPoolExecutor), or "
                         "end them with the request.")


def zombies(scene):
    """Children that have ended and that nobody has waited for."""
    left = Counter()
    for member in scene.members:
        if member.state == "Z" and member.role == roles.HELPER:
            left[member.parent] += 1
    for process in scene.processes:
        if left[process.pid] >= ZOMBIES_LEAST:
            yield Saw(f"{who(process)} has {number(left[process.pid], 0)} zombies: children that have ended and that it has not waited "
                      "for", process.group, process.pid, None,
                      [evidence("proc", f"{counted(left[process.pid], 'child', 'children')} in state Z (defunct)")],
                      advice="Wait for each child (subprocess.run, Popen.wait() or with Popen(...)): each one takes a pid until its "
                             "parent has taken notice.")


# --- the machine --------------------------------------------------------------------------------

def neighbour(scene):
    host = scene.host or {}
    busy = host.get("busy")
    if busy is None or busy < BUSY_SHARE:
        return
    cpus = host.get("cpus") or os.cpu_count() or 1
    own = {process.pid for process in scene.processes} | {member.pid for member in scene.members}
    others = [each for each in (host.get("neighbours") or {}).get("cpu", ()) if each["pid"] not in own and each["pid"] != os.getpid()
              and not each.get("client")]
    used = sum(process.rates["cpu"] for process in scene.processes if process.rates and process.rates.get("cpu"))
    shown = sum(each["cores"] for each in others)
    taken = max(shown, busy * cpus - used - sum(each["cores"] for each in host["neighbours"]["cpu"] if each.get("client")))
    several = sum(each["cores"] >= NEIGHBOUR_LEAST for each in others) >= 2 and shown >= NEIGHBOUR_SHOWN * cpus
    if shown < NEIGHBOUR_CORES * cpus and not (several and taken >= NEIGHBOUR_CORES * cpus):
        return                          # one alone may be who asks the server, on the same machine
    names = ", ".join(f"{each['name']} (pid {each['pid']}, {each['cores']:.1f} cores)" for each in others[:3])
    if shown < NEIGHBOUR_SHOWN_WHOLE * taken:
        names += ", and others that cannot be seen from here"
    waits = [(process, process.rates["run_wait"]) for process in scene.processes if process.rates and process.rates.get("run_wait")]
    worst = max(waits, key=lambda each: each[1], default=None)
    told = [evidence("host", f"{each['name']} (pid {each['pid']}): {each['cores']:.2f} cores: {each['command'][:120]}")
            for each in others[:5]]
    if worst and worst[1] > 0.05:
        told.append(evidence("proc", f"{who(worst[0])} waited {percent(worst[1])} of the time for a core"))
    yield Saw(f"the machine's cores are {percent(busy)} busy, and other processes than this server take {taken:.1f} of "
              f"{counted(cpus, 'core')}: {names}", None, others[0]["pid"], None, told, about="cpu")


def stolen(scene):
    steal = (scene.host or {}).get("steal")
    if steal is not None and steal >= STEAL_SHARE:
        yield Saw(f"{percent(steal)} of this virtual machine's CPU time is taken by its host (steal)", None, None, None,
                  [evidence("host", f"steal {percent(steal)} over {duration(scene.seconds)}")])


def pressed(scene):
    pressure = (scene.host or {}).get("pressure") or {}
    for part, least, what in (("memory", PRESSURE, "memory"), ("io", IO_PRESSURE, "I/O")):
        told = pressure.get(part) or {}
        full = told.get("full_avg10") or 0
        some = told.get("some_avg10") or 0
        if some >= least and full >= least / 2:
            takers = (scene.host.get("neighbours") or {}).get("memory" if part == "memory" else "io") or []
            shown = ", ".join(f"{each['name']} (pid {each['pid']})" for each in takers[:3])
            yield Saw(f"the machine is short of {what}: something waited for it {some:.0f} % of the last ten seconds"
                      f"{'; most is used by ' + shown if shown else ''}", None, None, None,
                      [evidence("host", f"/proc/pressure/{part}: some {some:.1f} %, full {full:.1f} %")], about=part)


def out_of_memory(scene):
    kills = [event for event in scene.kernel if event["kind"] == "oom"]
    if kills:
        last = kills[-1]
        own = {process.name for process in scene.processes}
        yield Saw(f"the kernel's OOM killer ended {counted(len(kills), 'process', 'processes')}, the last one {last.get('name') or '?'} "
                  f"(pid {last.get('pid') or '?'})", None, last.get("pid"), kills[0]["at"],
                  [evidence("log", event["text"]) for event in kills[-4:]], about="oom" if own else None)


def disk_full(scene):
    for disk in (scene.host or {}).get("disks") or ():
        if disk["size_bytes"] and (disk["free_bytes"] < FREE_LEAST
                                   or disk["free_bytes"] < FREE_SHARE * disk["size_bytes"] and disk["free_bytes"] < 1 << 30):
            yield Saw(f"the disk at {disk['path']} is full: {size(disk['free_bytes'])} of {size(disk['size_bytes'])} free",
                      None, None, None,
                      [evidence("host", f"{disk['path']}: {size(disk['free_bytes'])} free")], about=disk["path"])
        elif disk.get("free_inodes") == 0:
            yield Saw(f"the file system at {disk['path']} has no inodes left", None, None, None,
                      [evidence("host", f"{disk['path']}: 0 inodes free")], about=disk["path"])


def state(scene):
    """Processes that are stopped, or hang in the kernel."""
    for process in scene.processes:
        letter = (process.after or {}).get("state")
        if letter in ("T", "t"):
            yield Saw(f"{who(process)} is stopped (state {letter}): a signal or a debugger holds it", process.group, process.pid, None,
                      [evidence("proc", f"state {letter}")], advice="If no debugger is meant to hold it: kill -CONT " + str(process.pid),
                      same=("silent",))
        elif letter == "D" and (process.before or {}).get("state") == "D":
            yield Saw(f"{who(process)} hangs in the kernel (state D): it waits for a disk or a network file system",
                      process.group, process.pid, None,
                      [evidence("proc", "state D at both ends of the look")], same=("silent",))
