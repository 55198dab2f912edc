"""What the control groups of a process allow it, and what they use: memory, CPU, pids, pressure.

    of(pid) -> {"path", "version": 1 or 2,
        "memory": {"used_bytes", "limit_bytes", "reclaimable_bytes", "high_bytes", "swap_used_bytes", "swap_limit_bytes",
                   "oom_kills", "at"} or None,
        "cpu": {"cores", "throttled_s", "throttled_periods", "periods", "at"} or None, "pids": {"used", "limit", "at"} or None,
        "pressure": {"cpu": {"some_avg10", "some_avg60", "some_total_s", "full_avg10", ...}, "memory", "io"} or None, "unknown"}

A limit counts for all that is below it.  So each of memory, cpu and pids is told of one path, "at": of its own cgroup and those above
it, the one that has the least left (of cpu: the fewest cores), its own where nothing limits.  used_bytes is of that path, and holds
reclaimable_bytes: files in the cache that the kernel gives up first.  None: no limit, or not told.  oom_kills are of its own cgroup.
"unknown": {part: one-line reason}.  Raises TelError when there is no such process.

Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; Documentation/accounting/psi.rst; cgroups(7);
/proc/PID/mountinfo in proc(5).
"""
import os
import re

from modwsgi_tel.proc import procfs
from modwsgi_tel.proc.parts import Parts

_UNLIMITED = 1 << 60                # version 1 writes "none" as the largest number of whole pages
_MOST_LEVELS = 64
_MOST_MOUNTS = 4 << 20              # bytes of a mountinfo
_DELETED = " (deleted)"
_OCTAL = re.compile(r"\\([0-7]{3})")
_CONTROLLERS = ("memory", "cpu", "pids")
_SERVICE = re.compile(r"/([\w@.:\\-]{1,200}\.service)(?:/|$)", re.M)


def parse(text):
    """{controller: path} of a /proc/PID/cgroup; "" is version 2's, "name=..." are hierarchies without a controller."""
    found = {}
    for line in text.decode("utf-8", "surrogateescape").splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and number.isdecimal() and path.startswith("/"):
            for controller in controllers.split(","):
                found[controller] = path
    return found


def path_of(paths):
    """The one path to show for a process, of parse's: version 2's, or where version 1 limits it that of its memory."""
    return paths.get("memory") or paths.get("cpu") or paths.get("") or next(iter(paths.values()), None)


def service(pid, root="/proc"):
    """The unit of systemd that a process is of, as "apache2.service", or ""."""
    try:
        found = _SERVICE.findall(procfs.read(f"{root}/{pid}/cgroup", 65536).decode("utf-8", "replace"))
    except OSError:
        return ""
    return found[-1] if found else ""


class _Folder:
    """One cgroup as files: numbers out of them, None where they are not there."""

    def __init__(self, folder, path):
        self.folder, self.path = folder, path

    def text(self, name):
        try:
            return procfs.read(f"{self.folder}/{name}", 65536)
        except OSError:
            return None

    def number(self, name):
        """None also for "max" and for version 1's largest number."""
        text = (self.text(name) or b"").strip()
        return int(text) if text.isdigit() and int(text) < _UNLIMITED else None

    def table(self, name):
        """{key: number} of lines "key number"."""
        found = {}
        for line in (self.text(name) or b"").splitlines():
            key, _, value = line.partition(b" ")
            if value.strip().isdigit():
                found[key.decode("ascii", "replace")] = int(value)
        return found


def of(pid, root="/proc"):
    """See above."""
    parts = Parts(pid, root)
    parts.stat()
    found = {"path": None, "version": None, **dict.fromkeys((*_CONTROLLERS, "pressure"))}
    text = parts.read("cgroup", "cgroup")
    if text is not None:
        paths = parse(text)
        found["path"] = path_of(paths)
        found["version"] = 1 if any(name in paths for name in _CONTROLLERS) else 2 if "" in paths else None
        mounts = _mounts(root)
        for controller, one, two in (("memory", _memory_1, _memory_2), ("cpu", _cpu_1, _cpu_2), ("pids", _pids, _pids)):
            levels = _levels(paths, controller if controller in paths else "", mounts, controller, parts.unknown)
            if levels:
                found[controller] = (one if controller in paths else two)(levels)
        levels = _levels(paths, "", mounts, "pressure", parts.unknown) if "" in paths else ()
        found["pressure"] = _pressure(levels[0]) if levels else None
    found["unknown"] = parts.unknown
    return found


# --- where they are -------------------------------------------------------------------------------

def _mounts(root):
    """[(controller, "" for version 2; the path that is mounted; where)] as this process sees them."""
    found = []
    try:
        text = os.fsdecode(procfs.read(f"{root}/self/mountinfo", _MOST_MOUNTS))
    except OSError:
        return found
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        words, kind = before.split(" "), after.split(" ")
        if dash and len(words) > 5 and kind[0] in ("cgroup", "cgroup2"):
            names = [""] if kind[0] == "cgroup2" else kind[-1].split(",")
            found += [(name, _plain(words[3]), _plain(words[4])) for name in names]
    return found


def _plain(text):
    """mountinfo writes spaces, tabs, newlines and backslashes as \\040."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def _levels(paths, hierarchy, mounts, part, unknown):
    """[_Folder] of a process's cgroup and those above it, as far up as is mounted; [] with a reason in unknown."""
    path = paths.get(hierarchy)
    if path is None:
        unknown[part] = "no cgroup of the process counts it"
        return []
    if path.endswith(_DELETED):
        unknown[part] = f"the cgroup {path[:-len(_DELETED)]} of the process has been removed"
        return []
    places = [(top, where) for name, top, where in mounts if name == hierarchy]
    inside = [(top, where) for top, where in places if _is_below(path, top)]
    if not inside:
        unknown[part] = (f"the cgroup {path} of the process lies outside of what is mounted here, as in a container" if places else
                         "no cgroup file system is mounted here" if hierarchy == "" else f"the cgroups of {hierarchy} are not mounted here")
        return []
    top, where = max(inside, key=lambda place: len(place[0]))
    names = [name for name in path[len(top.rstrip("/")):].split("/") if name]
    levels = [_Folder("/".join([where.rstrip("/"), *names[:count]]), "/".join([top.rstrip("/"), *names[:count]]) or "/")
              for count in range(len(names), -1, -1)]
    if not os.path.isdir(levels[0].folder):
        unknown[part] = f"the cgroup {path} of the process is not to be seen under {where}"
        return []
    return levels[:_MOST_LEVELS]


def _is_below(path, top):
    return ".." not in path.split("/") and (path + "/").startswith(top.rstrip("/") + "/")


# --- what they say ----------------------------------------------------------------------------------

def _tightest(rows, left):
    """Of rows, its own cgroup's first, the one with the least left; its own where nothing limits."""
    limited = [row for row in rows if left(row) is not None]
    return min(limited, key=left) if limited else rows[0]


def _left_bytes(row):
    if row["limit_bytes"] is None:
        return None
    return row["limit_bytes"] - max(0, (row["used_bytes"] or 0) - (row["reclaimable_bytes"] or 0))


def _memory_2(levels):
    rows = [{"used_bytes": level.number("memory.current"), "limit_bytes": level.number("memory.max"),
             "reclaimable_bytes": level.table("memory.stat").get("inactive_file"), "high_bytes": level.number("memory.high"),
             "swap_used_bytes": level.number("memory.swap.current"), "swap_limit_bytes": level.number("memory.swap.max"),
             "at": level.path} for level in levels]
    return {**_tightest(rows, _left_bytes), "oom_kills": levels[0].table("memory.events").get("oom_kill")}


def _memory_1(levels):
    rows = []
    for level in levels:
        stat, limit, both = level.table("memory.stat"), level.number("memory.limit_in_bytes"), level.number("memory.memsw.limit_in_bytes")
        rows.append({"used_bytes": level.number("memory.usage_in_bytes"), "limit_bytes": limit,
                     "reclaimable_bytes": stat.get("total_inactive_file"), "high_bytes": None, "swap_used_bytes": stat.get("total_swap"),
                     # it counts memory and swap together
                     "swap_limit_bytes": None if both is None or limit is None else max(0, both - limit), "at": level.path})
    return {**_tightest(rows, _left_bytes), "oom_kills": levels[0].table("memory.oom_control").get("oom_kill")}


def _cpu_2(levels):
    return _cpu([(level, *_quota(*(level.text("cpu.max") or b"").split()[:2])) for level in levels], "throttled_usec", 1e6)


def _cpu_1(levels):
    return _cpu([(level, *_quota(level.text("cpu.cfs_quota_us"), level.text("cpu.cfs_period_us"))) for level in levels],
                "throttled_time", 1e9)


def _quota(quota=None, period=None):
    """(cores,), None where there is no quota: "max" or -1."""
    try:
        return (int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None,)
    except (TypeError, ValueError):
        return (None,)


def _cpu(rows, throttled, per_second):
    level, cores = _tightest(rows, lambda row: row[1])
    stat = level.table("cpu.stat")
    return {"cores": cores, "throttled_s": stat[throttled] / per_second if throttled in stat else None,
            "throttled_periods": stat.get("nr_throttled"), "periods": stat.get("nr_periods"), "at": level.path}


def _pids(levels):
    rows = [{"used": level.number("pids.current"), "limit": level.number("pids.max"), "at": level.path} for level in levels]
    return _tightest(rows, lambda row: None if row["limit"] is None else row["limit"] - (row["used"] or 0))


def parse_pressure(text):
    """{"some_avg10", "some_avg60", "some_avg300" (percent of the time), "some_total_s", "full_...": the same} of a pressure file."""
    found = {}
    for line in text.decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] in (["some"], ["full"]):
            for word in words[1:]:
                key, _, value = word.partition("=")
                try:
                    found[f"{words[0]}_{key}" + ("_s" if key == "total" else "")] = float(value) / (1e6 if key == "total" else 1)
                except ValueError:
                    continue
    return found


def _pressure(level):
    """None where the kernel keeps no pressure."""
    found = {name: parse_pressure(level.text(f"{name}.pressure") or b"") for name in ("cpu", "memory", "io")}
    return found if any(found.values()) else None
