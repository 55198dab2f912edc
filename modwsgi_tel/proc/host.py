"""The machine around a server: load, pressure, memory, disks, who else uses it, and what the kernel's log tells.

Two looks make a span: `between(look(), look())`.  All of a look but its processes is a dozen small files.
Source: proc(5); Documentation/accounting/psi.rst; Documentation/admin-guide/iostats.rst.
"""
import errno
import os
import time
from collections import namedtuple

from modwsgi_tel.masking import masked
from modwsgi_tel.proc import kernellog, mounts, procfs

Process = namedtuple("Process", "name command start cpu_ticks rss_bytes read_bytes written_bytes")
Process.__doc__ = """One process at one look.  command: text, at most 200 bytes, not masked.  start: clock ticks since boot.
cpu_ticks: used since then.  read_bytes, written_bytes: from and to disks, None for who may not know (those of others only root does)."""

PROCESSES_MOST = 20_000
NEIGHBOURS = 20                         # in each list of between
_COMMAND_MOST = 200
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CPU = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
_PLACES = ("/", "/tmp", "/var", "/var/log", "/var/tmp", "/dev/shm")
_PRESSURES = ("cpu", "memory", "io")
_LEAST_CORES = 0.005                    # of a neighbour that is worth a line


def look(root="/proc"):
    """The machine at this moment.

    {"at": monotonic seconds, "load": [1, 5 and 15 minutes], "cpus", "cpu": {"user", "system", "idle", "iowait", "steal", ...: seconds},
     "pressure": {"cpu", "memory", "io": {"some_avg10", "some_avg60", "some_avg300": percent, "some_total_s", and the same of "full"}},
     "memory": {"total_bytes", "available_bytes", "swap_total_bytes", "swap_free_bytes"}, "oom_kills", "forks": since boot,
     "running", "blocked": threads that run or want to, and that wait for a disk,
     "disks": [{"path", "mount", "type", "free_bytes", "size_bytes", "free_inodes"}] of local ones that can be written to,
     "processes": {pid: Process}, "left_out": how many beyond PROCESSES_MOST, "unknown": {part: reason}}
    What is not known is None.  Raises nothing: without /proc nearly all is unknown.
    """
    unknown = {}
    found = {"at": time.monotonic(), "load": _load(root, unknown)}
    found.update(_stat(root, unknown))
    found["pressure"] = _pressure(root, unknown)
    found["memory"] = _memory(root, unknown)
    found["oom_kills"] = _kilobytes_or_counts(root, "vmstat", unknown).get(b"oom_kill")
    found["disks"] = _disks(root, unknown)
    found["processes"], found["left_out"] = _processes(root, unknown)
    found["unknown"] = unknown
    return found


def between(before, after):
    """What happened from one look to the next.

    {"seconds", "cpus", "load", "busy": share of all CPUs, "user", "system", "iowait", "steal": the same,
     "pressure": as in the later look, with "some" and "full": shares of this span; "memory", "disks": the later look's; "running", "blocked": the later look's;
     "oom_kills", "forks": in this span; "neighbours": {
        "cpu": [{"pid", "name", "command", "cores"}], "memory": [{..., "rss_bytes", "grown_bytes"}],
        "io": [{..., "read_bytes_per_s", "written_bytes_per_s"}] or None where that is not known}, each the NEIGHBOURS biggest first,
     "unknown": {part: reason}}
    """
    seconds = after["at"] - before["at"]
    cpu = _shares(before["cpu"], after["cpu"])
    return {"seconds": seconds, "cpus": after["cpus"], "load": after["load"], **cpu,
            "pressure": {part: _pressed(before["pressure"].get(part) or {}, told, seconds) for part, told in after["pressure"].items()},
            "memory": after["memory"], "disks": after["disks"], "running": after["running"], "blocked": after["blocked"],
            "oom_kills": _grown(before, after, "oom_kills"), "forks": _grown(before, after, "forks"),
            "neighbours": _neighbours(before["processes"], after["processes"], seconds), "unknown": after["unknown"]}


def kernel_log(since):
    """([event], why it cannot be read or "") of the kernel's log since wall seconds: as kernellog.read."""
    return kernellog.read(since)


# --- a look --------------------------------------------------------------------------------------

def _text(root, name, unknown, most=1 << 20):
    try:
        return procfs.read(f"{root}/{name}", most)
    except OSError as error:
        unknown[name] = f"{root}/{name}: {error.strerror}"
        return b""


def _load(root, unknown):
    try:
        return [float(word) for word in _text(root, "loadavg", unknown).split()[:3]] or None
    except ValueError:
        return None


def _stat(root, unknown):
    """"cpus", "cpu", "forks", "running" and "blocked" out of /proc/stat."""
    found = {"cpus": os.cpu_count(), "cpu": {}, "forks": None, "running": None, "blocked": None}
    names = {b"processes": "forks", b"procs_running": "running", b"procs_blocked": "blocked"}
    cpus = 0
    for line in _text(root, "stat", unknown).splitlines():
        words = line.split()
        try:
            if words and words[0] == b"cpu":
                found["cpu"] = {name: int(word) * _TICK_S for name, word in zip(_CPU, words[1:])}
            elif words and words[0].startswith(b"cpu"):
                cpus += 1
            elif words and words[0] in names:
                found[names[words[0]]] = int(words[1])
        except (ValueError, IndexError):
            continue
    if cpus:
        found["cpus"] = cpus
    return found


def parse_pressure(text):
    """{"some_avg10", ..., "some_total_s", "full_..."} of a /proc/pressure file or a cgroup's; percent and seconds."""
    found = {}
    for line in text.splitlines():
        words = line.decode("ascii", "replace").split()
        for name, _, value in (word.partition("=") for word in words[1:]):
            try:
                if name == "total":
                    found[f"{words[0]}_total_s"] = int(value) / 1e6
                else:
                    found[f"{words[0]}_{name}"] = float(value)
            except ValueError:
                continue
    return found


def _pressure(root, unknown):
    found = {}
    for part in _PRESSURES:
        try:
            found[part] = parse_pressure(procfs.read(f"{root}/pressure/{part}", 4096))
        except OSError as error:
            unknown["pressure"] = ("this kernel does not tell of pressure (PSI): it is not built in, or off at boot (psi=1 turns it on)"
                                   if error.errno in (errno.ENOENT, errno.EOPNOTSUPP) else f"{root}/pressure/{part}: {error.strerror}")
    return found


def _kilobytes_or_counts(root, name, unknown):
    """{name: number} of a file of such lines; kB are bytes then."""
    found = {}
    for line in _text(root, name, unknown).splitlines():
        words = line.replace(b":", b" ").split()
        if len(words) > 1 and words[1].isdigit():
            found[words[0]] = int(words[1]) * (1024 if words[2:] == [b"kB"] else 1)
    return found


def _memory(root, unknown):
    told = _kilobytes_or_counts(root, "meminfo", unknown)
    return {"total_bytes": told.get(b"MemTotal"), "available_bytes": told.get(b"MemAvailable"),
            "swap_total_bytes": told.get(b"SwapTotal"), "swap_free_bytes": told.get(b"SwapFree")}


def _disks(root, unknown):
    """Those of _PLACES, each file system once.  One of the network is not asked: it may hang."""
    mounted = mounts.parse(_text(root, "self/mountinfo", unknown))
    found, seen = [], set()
    for path in _PLACES:
        mount = mounts.of_path(path, mounted)
        if mount is None or mount.point in seen or not mount.writable:
            continue
        seen.add(mount.point)
        if not mounts.is_local(mount.type):
            unknown[f"disk {path}"] = f"{mount.type} is not asked: that can hang"
            continue
        try:
            told = os.statvfs(path)
        except OSError as error:
            unknown[f"disk {path}"] = f"{path}: {error.strerror}"
            continue
        found.append({"path": path, "mount": mount.point, "type": mount.type, "free_bytes": told.f_bavail * told.f_frsize,
                      "size_bytes": told.f_blocks * told.f_frsize, "free_inodes": told.f_favail if told.f_files else None})
    return found


def _processes(root, unknown):
    """({pid: Process}, how many were left out).  Kernel threads have no command, and no memory."""
    try:
        pids = procfs.pids(root)
    except OSError as error:
        unknown["processes"] = f"{root}: {error.strerror}"
        return {}, 0
    found, hidden = {}, 0
    for pid in pids[:PROCESSES_MOST]:
        try:
            stat = procfs.stat(pid, root)
            command, read, written = "", None, None
            if not stat.kernel:
                command = procfs.read(f"{root}/{pid}/cmdline", _COMMAND_MOST).replace(b"\0", b" ").decode("utf-8", "replace").strip()
                try:
                    read, written = _parse_io(procfs.read(f"{root}/{pid}/io", 4096))
                except PermissionError:
                    hidden += 1
        except (OSError, ValueError):                       # it has ended
            continue
        found[pid] = Process(stat.name, command or f"[{stat.name}]", stat.start, stat.cpu_ticks, stat.rss_pages * _PAGE, read, written)
    if hidden:
        unknown["io"] = f"what {hidden:,} of {len(found):,} processes read and write is not for this user to know; run as root"
    return found, max(0, len(pids) - PROCESSES_MOST)


def _parse_io(text):
    """(read, written) bytes of a /proc/PID/io.  Source: proc(5); what was written and then cancelled counts as well."""
    told = dict(line.partition(b": ")[::2] for line in text.splitlines())
    return int(told.get(b"read_bytes", b"0")), int(told.get(b"write_bytes", b"0"))


# --- two looks -----------------------------------------------------------------------------------

def _shares(before, after):
    """{"busy", "user", "system", "iowait", "steal"}: shares of the time of all CPUs; None where that is not known."""
    spent = {name: max(0.0, after.get(name, 0.0) - before.get(name, 0.0)) for name in _CPU[:8]}    # guest is in user
    whole = sum(spent.values())
    if not whole or not before:
        return dict.fromkeys(("busy", "user", "system", "iowait", "steal"))
    found = {"user": spent["user"] + spent["nice"], "system": spent["system"] + spent["irq"] + spent["softirq"]}
    found["busy"] = found["user"] + found["system"]
    found.update(iowait=spent["iowait"], steal=spent["steal"])
    return {name: value / whole for name, value in found.items()}


def _pressed(before, after, seconds):
    found = dict(after)
    for part in ("some", "full"):
        name = f"{part}_total_s"
        is_known = seconds > 0 and name in after and name in before
        found[part] = min(1.0, max(0.0, after[name] - before[name]) / seconds) if is_known else None
    return found


def _grown(before, after, name):
    return after[name] - before[name] if before[name] is not None and after[name] is not None else None


def _neighbours(before, after, seconds):
    """One that began in between has used all that it shows in this span."""
    if seconds <= 0:
        return {"cpu": [], "memory": [], "io": None}
    cpu, memory, moved, is_known = [], [], [], False
    for pid, each in after.items():
        old = before.get(pid)
        old = old if old and old.start == each.start else Process(each.name, "", each.start, 0, 0, 0, 0)
        cores = (each.cpu_ticks - old.cpu_ticks) * _TICK_S / seconds
        if cores >= _LEAST_CORES:
            cpu.append((cores, pid, {"cores": cores}))
        if each.rss_bytes:
            memory.append((each.rss_bytes, pid, {"rss_bytes": each.rss_bytes, "grown_bytes": each.rss_bytes - old.rss_bytes}))
        if each.read_bytes is not None and old.read_bytes is not None:
            is_known = True
            read, written = ((max(0, new - last) / seconds) for new, last in zip(each[-2:], old[-2:]))
            if read + written:
                moved.append((read + written, pid, {"read_bytes_per_s": read, "written_bytes_per_s": written}))
    return {"cpu": _biggest(cpu, after), "memory": _biggest(memory, after), "io": _biggest(moved, after) if is_known else None}


def _biggest(rows, processes):
    """The first NEIGHBOURS of [(amount, pid, figures)] with their names, the same amounts by pid."""
    return [{"pid": pid, "name": processes[pid].name, "command": masked(processes[pid].command), **figures}
            for _, pid, figures in sorted(rows, key=lambda row: (-row[0], row[1]))[:NEIGHBOURS]]
