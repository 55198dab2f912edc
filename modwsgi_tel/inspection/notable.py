"""What of a process's facts an operator should see first, in words; and of what kind its trouble is, for the choice of tools.

    notable(facts) -> [{"what": one of the names below, "text"}], the gravest first; [] where all is well
    kinds(facts) -> {kind: why, as text}, of KINDS: what the process is found to do, bad or not
"""
from collections import Counter

from modwsgi_tel.figures import counted, duration, number, percent, size

NEAR = 0.8                              # of a limit, from here up
NEAR_MEMORY = 0.9
CLOSE_WAITS = 10                        # connections the other side has closed: a pool may hold some for a while
DELETED_BYTES = 100_000_000             # on a disk, held by files without a name
THROTTLED, WAITS_FOR_CPU = 0.01, 0.2
SWAPPED_BYTES = 10_000_000
FAULTS = 50                             # pages read from a disk, a second
SWITCHES = 10_000                       # a second
BUSY = 0.5                              # cores
CLIMBED = {"rss_bytes": 10_000_000, "swap_bytes": 10_000_000, "files": 10, "threads": 5}     # from here up a climb is told
PRESSURE = 10.0                         # percent of the time that something stood still for it

CPU, PEER, LOCK, DISK, MEMORY, FILES, CLOSED, SWITCHED, CHILD, NAMES = KINDS = (
    "cpu", "peer", "lock", "disk", "memory", "files", "closed", "switches", "child", "names")
_STATES = {"D": "waits for a disk or another device, and cannot be interrupted", "T": "is stopped (SIGSTOP, or a debugger)",
           "t": "is held by a debugger", "Z": "has ended, and its parent has not taken notice (a zombie)"}
_ON_DISK = ("file", "deleted file", "directory")
_NAMELESS = ("/dev/", "/memfd:", "/SYSV", "/tmp/.", "/run/", "/var/run/", "/var/lock/")
_NAME_SERVICE = ":53"


def _row(what, text):
    return {"what": what, "text": text}


def notable(facts):
    found = []
    for rule in _RULES:
        found += rule(facts)
    return found


# --- the rules, the gravest first -------------------------------------------------------------------

def _state(facts):
    told = _STATES.get(facts["usage"]["state"])
    return [_row("state", f"the process {told}")] if told else []


def _memory(facts):
    found, told = [], facts["cgroup"]["memory"] or {}
    limit, used = told.get("limit_bytes"), told.get("used_bytes")
    if limit and used is not None:
        held = max(0, used - (told.get("reclaimable_bytes") or 0))
        if held >= NEAR_MEMORY * limit:
            found.append(_row("memory limit", f"near its memory limit: {size(held)} of {size(limit)} used in the cgroup {told['at']}"))
    space, in_use = _soft(facts, "address space"), facts["usage"]["size_bytes"]
    if space and in_use is not None and in_use >= NEAR_MEMORY * space:
        found.append(_row("address space", f"near its limit of address space: {size(in_use)} of {size(space)}"))
    if told.get("oom_kills"):
        found.append(_row("oom kills", f"the kernel has killed {counted(told['oom_kills'], 'process', 'processes')} of its cgroup for "
                                       "want of memory"))
    swapped = facts["usage"]["swap_bytes"]
    if swapped and swapped >= SWAPPED_BYTES:
        found.append(_row("swap", f"swap: {size(swapped)} of its memory is on a disk"))
    faults = facts["rates"]["major_faults"]
    if faults and faults >= FAULTS:
        found.append(_row("faults", f"{number(faults, 0)} pages a second are read from a disk (major faults)"))
    return found


def _files(facts):
    told = facts["descriptors"]
    count = facts["usage"]["files"] if told["count"] is None else told["count"]
    limit = _soft(facts, "open files")
    found = []
    if count is not None and limit and count >= NEAR * limit:
        found.append(_row("open files", f"{count:,} of {limit:,} files open"))
    deleted = [row for row in told["rows"] if row["kind"] == "deleted file" and not _made_to_be_nameless(row["target"])]
    if deleted:
        names = Counter(row["target"] for row in deleted).most_common(2)
        found.append(_row("deleted files", f"deleted files open: {len(deleted):,} ({names[0][0]}{', ...' if len(names) > 1 else ''}); "
                          "their space is free only when they are closed"))
    return found


def _made_to_be_nameless(target):
    """Whether a file without a name is meant to have none: temporary ones (O_TMPFILE shows as /tmp/#123), shared memory, Apache's locks."""
    return target.rpartition("/")[2].startswith(("#", "tmp")) or target.startswith(_NAMELESS)


def _connections(facts):
    found, states, unanswered = [], Counter(), Counter()
    for group in facts["network"] or ():
        if group["kind"] == "tcp":
            states.update(group["states"])
            unanswered[group["place"]] += group["states"].get("SYN_SENT", 0)
        if group["direction"] == "listens" and group["queued"] and group["queued"] >= max(2, NEAR * (group["backlog"] or 1)):
            most = f" of {group['backlog']:,} that may" if group["backlog"] else ""
            found.append(_row("backlog", f"{counted(group['queued'], 'connection')}{most} wait to be accepted on {group['place']}"))
    if states["CLOSE_WAIT"] >= CLOSE_WAITS:
        found.append(_row("CLOSE_WAIT",
                          f"CLOSE_WAIT: {counted(states['CLOSE_WAIT'], 'connection')} the other side has closed, and this has not"))
    for place, count in unanswered.most_common(3):
        if count:
            found.append(_row("SYN_SENT", f"SYN_SENT: {place} does not answer {counted(count, 'connection')}"))
    return found


def _cpu(facts):
    found = []
    if facts["throttled"] is not None and facts["throttled"] >= THROTTLED:
        cores = (facts["cgroup"]["cpu"] or {}).get("cores")
        found.append(_row("throttled", f"its cgroup throttled it {percent(facts['throttled'])} of the time"
                                       + (f" (it may use {number(cores, 2)} cores)" if cores else "")))
    waited = facts["run_wait"]
    if waited is not None and waited >= WAITS_FOR_CPU:
        found.append(_row("run queue",
                          f"its threads were ready to run, and waited for a CPU: {duration(waited)} in each second, all together"))
    limit, used = _soft(facts, "cpu"), facts["usage"]["cpu_user_s"] + facts["usage"]["cpu_system_s"]
    if limit and used >= NEAR * limit:
        found.append(_row("cpu limit", f"{duration(used)} of the {duration(limit)} of CPU time that it may use in all"))
    for what, pressed in ((facts["cgroup"]["pressure"] or {}).items()):
        stood = pressed.get("full_avg10", 0.0) if what != "cpu" else 0.0
        if stood >= PRESSURE:
            found.append(_row("pressure", f"pressure: all of its cgroup stood still for {what} {stood:.0f} % of the last 10 s"))
    return found


def _tasks(facts):
    told = facts["cgroup"]["pids"] or {}
    if told.get("limit") and told.get("used") is not None and told["used"] >= NEAR * told["limit"]:
        return [_row("pids", f"{told['used']:,} of {told['limit']:,} processes and threads in the cgroup {told['at']}")]
    return []


def _replaced(facts):
    program = facts["identity"]["program"]
    if program and program.endswith(" (deleted)"):
        return [_row("replaced", f"its program was replaced or removed since it began: {program[:-len(' (deleted)')]}")]
    return []


def _growing(facts):
    told = facts["growth"] or {"climbing": ()}
    words = {"rss_bytes": ("memory", size), "swap_bytes": ("swap", size), "files": ("open files", lambda grown: number(grown, 0)),
             "threads": ("threads", lambda grown: number(grown, 0))}
    return [_row("growth", f"{words[name][0]} climb at each look: {words[name][1](told[name])} more in {duration(told['seconds'])}")
            for name in told["climbing"] if told[name] >= CLIMBED[name]]


_RULES = (_state, _files, _memory, _connections, _cpu, _tasks, _growing, _replaced)


def _soft(facts, name):
    return (facts["limits"].get(name) or {}).get("soft")


# --- what it does -----------------------------------------------------------------------------------

def kinds(facts):
    """{kind: why} in the order of what weighs most."""
    found, rates = {}, facts["rates"]
    if rates["cpu"] is not None and rates["cpu"] >= BUSY:
        found[CPU] = f"it uses {number(rates['cpu'], 2)} cores"
    busy = [row for row in facts["threads"] if row["idle"] is not True]
    peers = Counter(row["waits_on"]["target"] for row in busy if waits_for_peer(row))
    for target, count in peers.most_common(1):
        served = Counter(row["request"] for row in busy if row["request"] and waits_for_peer(row) and row["waits_on"]["target"] == target)
        what = next((f" ({request})" for request, _ in served.most_common(1)), "")
        found[PEER] = f"{_waiting(count)} for {target}{what}"
        if target.endswith(_NAME_SERVICE):
            found[NAMES] = f"the name service at {target} is waited for"
    if any(row["what"] == "SYN_SENT" for row in facts["notable"]):
        found.setdefault(PEER, "connections are not answered")
    children = [row for row in busy if (row["waits_on"] or {}).get("call") in ("wait4", "waitid")]
    if children:
        found[CHILD] = f"{_waiting(len(children))} for a child process"
    on_disk = [row for row in busy if row["state"] == "D" or (row["waits_on"] or {}).get("kind") in _ON_DISK]
    if on_disk or (rates["major_faults"] or 0) >= FAULTS:
        found[DISK] = f"{_waiting(len(on_disk))} for a disk" if on_disk else "pages are read from a disk"
    locked = [row for row in busy if (row["waits_on"] or {}).get("kind") == "futex" and (row["request"] or row["at"])]
    if locked:
        found[LOCK] = f"{_waiting(len(locked))} for a lock (futex)"
    told = {row["what"]: row["text"] for row in facts["notable"]}
    for kind, names in ((MEMORY, ("memory limit", "address space", "swap", "oom kills")), (FILES, ("open files", "deleted files")),
                        (CLOSED, ("CLOSE_WAIT",))):
        for name in names:
            if name in told:
                found.setdefault(kind, told[name])
    for row in facts["notable"]:
        if row["what"] == "growth":
            found.setdefault(FILES if row["text"].startswith("open files") else MEMORY, row["text"])
    switches = (rates["voluntary_switches"] or 0) + (rates["involuntary_switches"] or 0)
    if switches >= SWITCHES or (facts["run_wait"] or 0) >= WAITS_FOR_CPU:
        found[SWITCHED] = f"{number(switches, 0)} context switches a second, {duration(facts['run_wait'])} a second waited for a CPU"
    return found


def _waiting(count):
    return f"{counted(count, 'thread')} {'waits' if count == 1 else 'wait'}"


def waits_for_peer(row):
    """Whether a thread waits for the other end of a connection that this process has opened."""
    waits = row["waits_on"] or {}
    return (waits.get("kind") in ("tcp", "tcp6", "udp", "udp6", "unix") and waits.get("direction") in ("read", "write", "connect")
            and not waits.get("incoming") and waits.get("state") != "LISTEN" and bool(waits.get("target")))
