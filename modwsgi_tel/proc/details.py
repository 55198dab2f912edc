"""All that /proc tells of one process: who it is, what it uses, its limits, its environment.

Every function raises TelError only when there is no such process (any more), in one line that says what to do.  What may not be read
is None, and named with its reason in "unknown".  Amounts are in bytes and seconds, counters count since the process began.
Source: proc(5); Documentation/filesystems/proc.rst; Documentation/scheduler/sched-stats.rst for schedstat.
"""
import grp
import itertools
import os
import pwd
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.masking import MASKED, SECRET, masked
from modwsgi_tel.proc import cgroups, procfs, threads
from modwsgi_tel.proc.access import parse_status
from modwsgi_tel.proc.parts import Parts

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_COUNTED_MOST = 100_000                 # names of a folder that are counted, on a kernel that does not tell their number
_MOST_COMMAND = 64 << 10            # bytes of a command line
_MOST_ENVIRONMENT = 256 << 10
_MOST_VARIABLES = 2000
_MOST_VALUE = 2000                  # letters of a variable's value
_MOST_PARENTS = 64

# usage's names of what /proc/PID/status has in kB
_MEMORY = (("rss_bytes", b"VmRSS"), ("anon_bytes", b"RssAnon"), ("file_bytes", b"RssFile"), ("shmem_bytes", b"RssShmem"),
           ("swap_bytes", b"VmSwap"), ("size_bytes", b"VmSize"), ("peak_rss_bytes", b"VmHWM"))
# and of /proc/PID/io
_IO = (("read_bytes", b"read_bytes"), ("written_bytes", b"write_bytes"), ("read_calls", b"syscr"), ("write_calls", b"syscw"))
# rates' names of usage's counters
_COUNTERS = (("cpu_user", "cpu_user_s"), ("cpu_system", "cpu_system_s"), ("voluntary_switches", "voluntary_switches"),
             ("involuntary_switches", "involuntary_switches"), ("run", "run_s"), ("run_wait", "wait_s"),
             ("minor_faults", "minor_faults"), ("major_faults", "major_faults"), ("read_bytes", "read_bytes"),
             ("written_bytes", "written_bytes"), ("read_calls", "read_calls"), ("write_calls", "write_calls"))
# and of its amounts, which fall as well as rise
_AMOUNTS = ("rss_bytes", "anon_bytes", "swap_bytes", "threads", "files")
# limits' names of /proc/PID/limits' lines
_LIMITS = {b"cpu time": "cpu", b"file size": "file size", b"data size": "data", b"stack size": "stack", b"core file size": "core",
           b"resident set": "resident set", b"processes": "processes", b"open files": "open files",
           b"locked memory": "locked memory", b"address space": "address space", b"file locks": "file locks",
           b"pending signals": "pending signals", b"msgqueue size": "message queues"}


# --- who it is -----------------------------------------------------------------------------------

def identity(pid, root="/proc"):
    """Who a process is.

    {"pid", "inner_pid" (in its own namespace, where that is another, else None), "parent", "name", "state" (a letter),
     "command": [arguments], "program" (path), "cwd", "root", "uid", "gid" (effective), "user", "group_name" (their names, None
     where none is known), "uids", "gids" (real, effective, saved, file system), "start_ticks", "started" (wall s), "age_s",
     "cgroup" (path), "namespace" (whether its pid namespace is another than that of this /proc), "children": [pids],
     "parents": [pids, up to 1], "unknown"}
    """
    parts = Parts(pid, root)
    stat = procfs.parse_stat_line(parts.stat())
    status = parse_status(parts.read("user", "status") or b"")
    uids, gids = _numbers(status.get(b"Uid")), _numbers(status.get(b"Gid"))
    uid, gid = uids[1] if len(uids) > 1 else None, gids[1] if len(gids) > 1 else None
    inner = _numbers(status.get(b"NSpid"))
    command = parts.read("command", "cmdline", _MOST_COMMAND)
    lines = parts.read("cgroup", "cgroup")
    age_s = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - stat.start * _TICK_S)
    return {"pid": pid, "inner_pid": inner[-1] if len(inner) > 1 else None, "parent": stat.parent, "name": stat.name,
            "state": stat.state, "command": None if command is None else _arguments(command),
            "program": parts.link("program", "exe"), "cwd": parts.link("cwd", "cwd"), "root": parts.link("root", "root"),
            "uid": uid, "gid": gid, "user": _name(pwd.getpwuid, uid), "group_name": _name(grp.getgrgid, gid), "uids": uids, "gids": gids,
            "start_ticks": stat.start, "started": time.time() - age_s, "age_s": age_s,
            "cgroup": None if lines is None else cgroups.path_of(cgroups.parse(lines)), "namespace": len(inner) > 1,
            "children": children(pid, root), "parents": parents(pid, root), "unknown": parts.unknown}


def _numbers(value):
    try:
        return [int(word) for word in (value or b"").split()]
    except ValueError:
        return []


def _name(look_up, number):
    try:
        return None if number is None else look_up(number)[0]
    except (KeyError, OverflowError, ValueError):
        return None


def _arguments(command):
    """A title that a process wrote over its command line (setproctitle) is filled up with NULs: those are no arguments."""
    return [word.decode("utf-8", "replace") for word in command.rstrip(b"\0").split(b"\0")] if command.strip(b"\0") else []


def children(pid, root="/proc"):
    """[pids] of a process's children, sorted."""
    try:
        found = [procfs.read(f"{root}/{pid}/task/{tid}/children", 1 << 20)
                 for tid in sorted(threads.tids(pid, root))[:threads.MOST]]
        return sorted(int(word) for text in found for word in text.split())
    except (OSError, ValueError):
        return _children_by_parent(pid, root)               # a thread has ended, or a kernel that has no such file


def _children_by_parent(pid, root):
    found = []
    try:
        for other in procfs.pids(root):
            try:
                if procfs.stat(other, root).parent == pid:
                    found.append(other)
            except (OSError, ValueError):                   # it has ended
                continue
    except OSError:
        pass
    return found


def parents(pid, root="/proc"):
    """[pids]: its parent, that one's parent and so on up to 1, as far as /proc shows them."""
    found = []
    while len(found) < _MOST_PARENTS:
        try:
            pid = procfs.stat(pid, root).parent
        except (OSError, ValueError):
            break
        if pid <= 0 or pid in found:
            break
        found.append(pid)
    return found


# --- what it uses ----------------------------------------------------------------------------------

def usage(pid, root="/proc"):
    """What a process uses at a moment; two of them make `rates`.

    {"at" (monotonic s), "start_ticks", "state" (a letter, of the main thread), "states" ({letter: threads}), "cpu_user_s",
     "cpu_system_s", "threads", "minor_faults", "major_faults", "voluntary_switches", "involuntary_switches", "run_s", "wait_s" (on a
     CPU and waiting for one), "rss_bytes", "anon_bytes",
     "file_bytes", "shmem_bytes", "swap_bytes", "size_bytes", "peak_rss_bytes", "read_bytes", "written_bytes" (of storage),
     "read_calls", "write_calls", "files" (open descriptors), "unknown"}
    The states, the switches, run_s and wait_s are of its threads that live, of 4,096 at most.
    """
    parts = Parts(pid, root)
    words = parts.stat().rpartition(b")")[2].split()
    if len(words) < 20:
        raise TelError(f"cannot read process {pid}: its /proc/{pid}/stat is no stat line")
    found = {"at": time.monotonic(), "start_ticks": int(words[19]), "state": words[0].decode("ascii", "replace"),
             "cpu_user_s": int(words[11]) * _TICK_S, "cpu_system_s": int(words[12]) * _TICK_S, "threads": int(words[17]),
             "minor_faults": int(words[7]), "major_faults": int(words[9])}
    status = parts.read("memory", "status")
    told = scheduled(parts, found["threads"], status)
    del told["disk"]
    found.update(told)
    found.update(_memory(parts, found["state"], status))
    io = parse_status(parts.read("io", "io") or b"")
    found.update({name: int(io[key]) if key in io else None for name, key in _IO})
    found["files"] = parts.attempt("files", "fd", count_files)
    found["unknown"] = parts.unknown
    return found


def count_files(folder):
    """How many descriptors a /proc/PID/fd shows.  Raises OSError.

    Since Linux 6.2 its size tells it, to whoever sees the process; before that it is 0, and the folder is read.
    """
    told = os.stat(folder).st_size
    if told:
        return told
    with os.scandir(folder) as entries:
        return sum(1 for _ in itertools.islice(entries, _COUNTED_MOST))


def _memory(parts, state, status):
    found = dict.fromkeys(name for name, _ in _MEMORY)
    if status is None:
        return found
    told = parse_status(status)
    if b"VmRSS" not in told:
        parts.unknown["memory"] = ("it has ended: nothing of its memory is left" if state in "ZXx" else
                                   "a thread of the kernel has no memory of its own")
    for name, key in _MEMORY:
        if key in told:
            found[name] = int(told[key].split()[0]) * 1024
    return found


def scheduled(parts, count, status, run_queue=True):
    """Sums over the threads of a process: /proc/PID's own status and schedstat are the main thread's alone.

    {"states": {letter: threads}, "disk": a tid in state D or None, "voluntary_switches", "involuntary_switches", "run_s", "wait_s"}
    count, status: how many threads it has, and its /proc/PID/status, as they were read.  run_queue: whether run_s and wait_s are asked for.
    """
    folders = [(parts.pid, parts.folder)]
    if count != 1:
        tids = sorted(threads.tids(parts.pid, parts.root))
        if len(tids) > threads.MOST:
            parts.unknown["threads"] = f"{len(tids) - threads.MOST:,} of {len(tids):,} threads were not looked at"
        folders = [(tid, f"{parts.folder}/task/{tid}") for tid in tids[:threads.MOST]]
    switches, ran = [0, 0, 0], [0, 0, 0]                    # the first of each: how many threads told
    states, disk = {}, None
    for tid, folder in folders:
        try:
            text = status if folder is parts.folder and status else procfs.read(f"{folder}/status", 65536)
            letter = _letter(text)
            states[letter] = states.get(letter, 0) + 1
            disk = tid if letter == "D" and disk is None else disk
            _add(switches, _switches(text))
            if run_queue:
                _add(ran, procfs.read(f"{folder}/schedstat", 256).split())
        except (OSError, ValueError):                       # it has ended, or a kernel without schedstat
            continue
    for part, told in (("switches", switches), ("run queue", ran)):
        if not told[0] and (run_queue or told is switches):
            parts.unknown[part] = "the kernel does not tell it"
    return {"states": states, "disk": disk, "voluntary_switches": switches[1] if switches[0] else None,
            "involuntary_switches": switches[2] if switches[0] else None,
            "run_s": ran[1] / 1e9 if ran[0] else None, "wait_s": ran[2] / 1e9 if ran[0] else None}


def _add(sums, words):
    if len(words) >= 2:
        one, other = int(words[0]), int(words[1])
        sums[:] = sums[0] + 1, sums[1] + one, sums[2] + other


def _letter(status):
    at = status.find(b"\nState:\t")
    return status[at + 8:at + 9].decode("ascii", "replace") if at >= 0 else "?"


def _switches(status):
    """(voluntary, involuntary) of a status, near whose end they stand; () where they are not told."""
    at = status.rfind(b"\nvoluntary_ctxt_switches:")
    words = status[at:].split() if at >= 0 else ()
    return (int(words[1]), int(words[3])) if len(words) >= 4 else ()


def rates(before, after):
    """What two usages of the same process differ by, per second; None where either does not know it, or it is another process.

    {"seconds", "cpu" (cores, user and system), "cpu_user", "cpu_system", "voluntary_switches", "involuntary_switches", "run",
     "run_wait" (seconds per second, summed over threads), "minor_faults", "major_faults", "read_bytes", "written_bytes", "read_calls",
     "write_calls", and the growth of "rss_bytes", "anon_bytes", "swap_bytes", "threads", "files"}
    """
    seconds = after["at"] - before["at"]
    same = seconds > 0 and before["start_ticks"] == after["start_ticks"]
    found = {"seconds": max(0.0, seconds), "cpu": None}
    for name, key in (*_COUNTERS, *((name, name) for name in _AMOUNTS)):
        one, other = before[key], after[key]
        found[name] = (other - one) / seconds if same and one is not None and other is not None else None
    for name, _ in _COUNTERS:
        if found[name] is not None and found[name] < 0:     # threads have ended, and took with them what they had
            found[name] = None
    if found["cpu_user"] is not None and found["cpu_system"] is not None:
        found["cpu"] = found["cpu_user"] + found["cpu_system"]
    return found


def tasks(pid, root="/proc"):
    """[{"tid", "name", "state" (a letter), "wait", "syscall" (a name), "cpu_s", "run_wait_s", "voluntary_switches",
    "involuntary_switches"}] of its threads, by tid: of proc.threads.MOST at most; [] when it has ended meanwhile."""
    found = []
    for task in threads.threads(pid, root).values():
        folder = f"{root}/{pid}/task/{task.tid}"
        switches = _of(folder, "status", _switches) or (None, None)
        wait_s = _of(folder, "schedstat", lambda text: int(text.split()[1]) / 1e9)
        found.append({"tid": task.tid, "name": task.name, "state": task.state, "wait": threads.wait(task),
                      "syscall": task.syscall and task.syscall[1], "cpu_s": task.cpu_ticks * _TICK_S, "run_wait_s": wait_s,
                      "voluntary_switches": switches[0], "involuntary_switches": switches[1]})
    return found


def _of(folder, name, parse):
    try:
        return parse(procfs.read(f"{folder}/{name}", 65536))
    except (OSError, ValueError, IndexError):
        return None


# --- what it may use, and what it was given ----------------------------------------------------------

def limits(pid, root="/proc"):
    """{name: {"soft", "hard"}} of its limits, in bytes, seconds or numbers; None: unlimited.  {} where that may not be read.

    Names: "open files", "address space", "processes", "core", "stack", "cpu", "locked memory", "data", "file size",
    "resident set", "file locks", "pending signals", "message queues".
    """
    found = {}
    for line in (Parts(pid, root).read("limits", "limits") or b"").splitlines():
        for name, key in _LIMITS.items():
            if line.startswith(b"Max " + name + b" "):
                words = line[4 + len(name):].split()
                if len(words) >= 2:
                    found[key] = {"soft": _limit(words[0]), "hard": _limit(words[1])}
    return found


def _limit(word):
    return int(word) if word.isdigit() else None


_FOLDERS = ("PWD", "OLDPWD")            # of the shell that started it: no passwords


class Environment(dict):
    """{name: text} of a process's environment.  unknown: why it may not be read, or ""; dropped: variables that are left out."""

    unknown = ""
    dropped = 0


def environment(pid, root="/proc"):
    """The Environment that a process was started with, with what is a secret by its name or its looks masked."""
    found, parts = Environment(), Parts(pid, root)
    text = parts.read("environment", "environ", _MOST_ENVIRONMENT + 1)
    if text is None:
        found.unknown = parts.unknown["environment"]
        return found
    lines = [line for line in text[:_MOST_ENVIRONMENT].split(b"\0") if b"=" in line]
    found.dropped = max(0, len(lines) - _MOST_VARIABLES)
    for line in lines[:_MOST_VARIABLES]:
        name, _, value = line.decode("utf-8", "replace").partition("=")
        found[name] = MASKED if value and name not in _FOLDERS and SECRET.search(name) else _shown(value)
    if len(text) > _MOST_ENVIRONMENT:
        found.unknown = f"only the first {_MOST_ENVIRONMENT // 1024} kB were read"
    return found


def _shown(value):
    cut = len(value) > _MOST_VALUE
    return masked(value, cut=cut)[:_MOST_VALUE] + ("..." if cut else "")


def oom(pid, root="/proc"):
    """{"score", "adjust"}: whom the kernel kills when memory ends (0 to 2,000), and what was added for it (-1,000 to 1,000)."""
    parts, found = Parts(pid, root), {}
    for key, name in (("score", "oom_score"), ("adjust", "oom_score_adj")):
        try:
            found[key] = int(parts.read(key, name, 64) or b"")
        except ValueError:
            found[key] = None
    return found
