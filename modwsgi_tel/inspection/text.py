"""A process's facts as lines for people.

width: of a terminal, to which lines are wrapped and tables cut; None: a pipe, lines as long as they are.
Everything that came from a process is made printable.
"""
import re
import textwrap
from collections import Counter
from datetime import datetime

from modwsgi_tel.figures import UNKNOWN, counted, duration, moment, number, percent, size
from modwsgi_tel.inspection.network import IN, LISTENS
from modwsgi_tel.inspection.notable import kinds
from modwsgi_tel.printable import printable
from modwsgi_tel.report.text import table

LABEL = 12                              # columns that a label takes
INDENT = "  "
LONGEST = 600                           # letters of a command line or a path that are shown
THREADS, DESCRIPTORS, MAPPED, LARGEST, CONNECTIONS, PACKAGES, PATHS, VARIABLES = 20, 12, 9, 5, 20, 24, 8, 60   # rows that are shown
CUT = "..."
_NUMBERS = re.compile(r"\d+")
_STATES = {"R": "running", "S": "sleeping", "D": "in disk wait", "T": "stopped", "t": "traced", "Z": "zombie", "I": "idle", "X": "dead"}
_ROLES = {"apache-parent": "Apache's parent process", "apache-child": "an Apache child", "daemon": "a mod_wsgi daemon",
          "master": "a master process", "worker": "a worker", "python": "a Python process", "helper": "a server's helper",
          "collector": "a collector"}
_LIMITS = ("open files", "processes", "address space", "stack", "core", "locked memory", "cpu", "file size", "data")
_IN_BYTES = ("address space", "stack", "core", "locked memory", "file size", "data")
_SHOWN_KINDS = ("deleted file", "file", "directory", "memfd", "pipe")     # of descriptors
_SOCKET_STATES = {"CLOSE_WAIT": "closed by the other side (CLOSE_WAIT)", "SYN_SENT": "not answered (SYN_SENT)",
                  "QUEUED": "not accepted yet",
                  "SYN_RECV": "half open (SYN_RECV)"}
# titles of sections: parts that are not read at each look, where that takes long
_READ_SELDOM = {"now": ("stacks",), "memory": ("memory",), "files": ("descriptors",), "network": ("descriptors",),
                "Python": ("interpreter",), "environment": ("environment",)}


# --- pieces -----------------------------------------------------------------------------------------

def clip(text, most):
    """Text of at most `most` letters, cut at its end; None: as long as it is."""
    return text if most is None or len(text) <= most else text[:max(0, most - len(CUT))] + CUT


def middle(text, most):
    """Printable text of at most `most` letters, cut in its middle: both ends of a path tell."""
    text = printable(text[:4 * LONGEST])
    if most is None or len(text) <= most:
        return text
    front = max(0, most - len(CUT)) // 3
    return text[:front] + CUT + text[len(text) - max(0, most - front - len(CUT)):]


def said(label, text, width):
    """Lines of `  label       text`."""
    front = f"{INDENT}{label:<{LABEL}}"
    if width is None:
        return [f"{front}{text}".rstrip()]
    return textwrap.wrap(text, width, initial_indent=front, subsequent_indent=" " * len(front), break_long_words=False,
                         break_on_hyphens=False) or [front.rstrip()]


def _and(parts):
    """The parts that are there, with commas."""
    return ", ".join(part for part in parts if part)


class _Reasons(dict):
    """{part: reason} for one text: a reason is told once in full, since that of one part is mostly that of many."""

    def __init__(self, reasons):
        super().__init__(reasons)
        self._told = set()

    def why(self, parts):
        reason = next((self[part] for part in parts if part in self), None)
        if reason is None or reason in self._told:
            return "unknown" if reason is None else "unknown, as above"
        self._told.add(reason)
        return f"unknown: {printable(reason)}"


def _why(facts, *parts):
    """`unknown: REASON` of the first of these parts that is."""
    return facts["unknown"].why(parts)


def _signed(value, shown):
    return f"{'+' if value >= 0 else '-'}{shown(abs(value))}"


# --- one process ------------------------------------------------------------------------------------

def lines(facts, width=None, moving=False):
    """All of a process; moving: what may be another at the next look, alone."""
    facts = {**facts, "unknown": _Reasons(facts["unknown"])}
    out = _head(facts, width)
    for title, section, moves in (("who", _who, False), ("now", _now, True), ("memory", _memory, True), ("files", _files, True),
                                  ("network", _network, True), ("I/O", _io, True), ("limits", _limits, False), ("cgroup", _cgroup, True),
                                  ("Python", _python, False), ("environment", _environment, False)):
        if moving and not moves:
            continue
        age = max((facts["ages"].get(part, 0.0) for part in _READ_SELDOM.get(title, ())), default=0.0)
        what = "stacks read" if title == "now" else "read"
        out += ["", f"{title}  ({what} {duration(age)} ago)" if age else title, *section(facts, width)]
    return out


def _head(facts, width):
    who, role = facts["identity"], _ROLES.get(facts["role"], "")
    group = f" of group {printable(facts['group'])}" if facts["group"] else ""
    over = f"over {duration(facts['seconds'])}" if facts["seconds"] else ""
    title = f"pid {facts['pid']}  {printable(who['name'])}  {_and([role + group, over])}  at {datetime.fromtimestamp(facts['at']):%H:%M:%S}"
    out = [clip(title, width)]
    for row in facts["notable"]:
        out += wrapped(f"! {printable(row['text'])}", width, INDENT, INDENT * 2)
    said_already = {row["text"] for row in facts["notable"]}
    for why in kinds(facts).values():
        if why not in said_already:
            out += wrapped(f"- {printable(why)}", width, INDENT, INDENT * 2)
    return out


def wrapped(text, width, front="", further=""):
    """Lines of a text, `front` before the first and `further` before the others; a word is never broken."""
    if width is None:
        return [front + text]
    return textwrap.wrap(text, width, initial_indent=front, subsequent_indent=further, break_long_words=False, break_on_hyphens=False)


def _who(facts, width):
    who = facts["identity"]
    command = " ".join(who["command"]) if who["command"] else f"[{who['name']}]"
    out = said("command", clip(printable(command[:2 * LONGEST]), LONGEST) if who["command"] is not None else _why(facts, "command"), width)
    out += said("program", middle(who["program"], LONGEST) if who["program"] else _why(facts, "program"), width)
    user = who["user"] or str(who["uid"])
    real = f"started by uid {who['uids'][0]}" if who["uids"] and who["uids"][0] != who["uid"] else ""
    out += said("user", _and([f"{printable(user)} (uid {who['uid']})",
                              f"group {printable(who['group_name'] or str(who['gid']))}", real]), width)
    out += said("started", f"{moment(who['started'], facts['at'])}, {duration(who['age_s'])} ago", width)
    above = " < ".join(str(pid) for pid in who["parents"]) or "none that is shown"
    below = ", ".join(str(pid) for pid in who["children"][:PATHS]) + (
        f" and {len(who['children']) - PATHS:,} more" if len(who["children"]) > PATHS else "")
    out += said("parents", f"{above};  children: {below or 'none'}", width)
    out += said("folder", middle(who["cwd"], LONGEST) +
                (f"  (its root is {middle(who['root'], LONGEST)})" if who["root"] not in (None, "/") else "")
                if who["cwd"] else _why(facts, "cwd"), width)
    if who["inner_pid"] is not None:
        out += said("namespace", f"another pid namespace, in which it is pid {who['inner_pid']}", width)
    return out


def _now(facts, width):
    usage, rates = facts["usage"], facts["rates"]
    cpu = "" if rates["cpu"] is None else (f"{number(rates['cpu'], 2)} cores (user {number(rates['cpu_user'], 2)}, "
                                           f"system {number(rates['cpu_system'], 2)})")
    states = Counter(row["state"] for row in facts["threads"])
    doing = ", ".join(f"{count:,} {_STATES.get(state, state)}" for state, count in sorted(states.items())) or \
        _STATES.get(usage["state"], usage["state"])
    out = said("process", _and([cpu, counted(usage["threads"], "thread"), _growth(facts, "threads", _whole)]) + f":  {doing}", width)
    out += said("CPU time", f"{duration(usage['cpu_user_s'])} user, {duration(usage['cpu_system_s'])} system, since it began", width)
    waited = "" if facts["run_wait"] is None else f"waited for a CPU {duration(facts['run_wait'])} in each second"
    switches = "" if rates["voluntary_switches"] is None else (f"{number(rates['voluntary_switches'], 0)} voluntary, "
                                                              f"{number(rates['involuntary_switches'], 0)} involuntary a second")
    out += said("switches", _and([switches, waited]) or _why(facts, "switches"), width)
    return out + _threads(facts, width)


def _thread_groups(rows):
    """[[row, ...]]: threads that do the same, without CPU time, together; in the order of their first."""
    groups = {}
    for row in rows:
        key = ((row["tid"],) if (row["cpu"] or 0.0) >= 0.005 or row["request"] else
               (_NUMBERS.sub("#", row["name"]), row["state"], _waits(row), row["at"], row["called_at"], row["idle"]))
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _waits(row):
    told = row["waits_on"]
    return told["text"] if told and told.get("text") else row["wait"] or ""


def _threads(facts, width):
    groups, cells, places = _thread_groups(facts["threads"]), [], []
    for group in groups[:THREADS]:
        row = group[0]
        state = "idle" if row["idle"] else _STATES.get(row["state"], row["state"])
        many = f"{row['tid']} +{len(group) - 1:,}" if len(group) > 1 else str(row["tid"])
        cells.append((many, clip(row["python_name"] or row["name"], 20), UNKNOWN if row["cpu"] is None else percent(row["cpu"]),
                      state, _waits(row)))
        places.append([row["at"] and f"in {row['at']}", row["called_at"] and f"called at {row['called_at']}",
                       row["request"] and f"serves {row['request']}"])
    out, rows = [], table(("thread", "name", "CPU", "state", "waits on"), cells, right=("CPU",))
    for line, cell, more in zip(rows, [None, *cells], [[], *places]):
        if cell and width is not None and len(INDENT + line) > width:
            line, more = line[:-len(printable(cell[-1]))].rstrip(), [cell[-1], *more]
        out.append(clip(INDENT + line, width))
        out += [INDENT * 3 + middle(text, None if width is None else width - 6) for text in more if text]
    left = sum(len(group) for group in groups[THREADS:]) + facts["threads_left_out"]
    if left:
        out.append(f"{INDENT}and {counted(left, 'more thread')}")
    if "stacks" in facts["unknown"]:
        out += said("stacks", _why(facts, "stacks"), width)
    return out


def _growth(facts, name, shown):
    grown = (facts["growth"] or {}).get(name)
    return f"{_signed(grown, shown)} in {duration(facts['growth']['seconds'])}" if grown else ""


def _whole(value):
    return number(value, 0)


def _memory(facts, width):
    usage, told = facts["usage"], facts["memory"]
    if usage["rss_bytes"] is None:
        return said("resident", _why(facts, "memory"), width)
    own = "" if told["pss_bytes"] is None else f"its own part {size(told['pss_bytes'])} (pss), private {size(told['private_bytes'])}"
    out = said("resident", _and([size(usage["rss_bytes"]), _growth(facts, "rss_bytes", size),
                                 f"most so far {size(usage['peak_rss_bytes'])}", own]), width)
    out += said("of it", f"anonymous {size(usage['anon_bytes'])}, files {size(usage['file_bytes'])}, "
                         f"shared memory {size(usage['shmem_bytes'])};  swap {size(usage['swap_bytes'])};  "
                         f"addresses {size(usage['size_bytes'])}", width)
    rates = facts["rates"]
    if rates["minor_faults"] is not None:
        out += said("faults", f"{number(rates['minor_faults'], 0)} a second, {number(rates['major_faults'], 0)} of them from a disk", width)
    score, adjust = (_whole(facts["oom"][name]) for name in ("score", "adjust"))
    out += said("OOM", f"score {score} of 2,000, adjusted by {adjust}", width)
    if told["kinds"] is None:
        return out + said("by kind", _why(facts, "mappings"), width)
    grown = (facts["growth"] or {}).get("mappings") or {}
    heads = ("kind", "mappings", "resident", *(("growth",) if grown else ()), "pss", "swap", "addresses")
    rows = [(row["kind"], f"{row['count']:,}", size(row["rss_bytes"]), *((_signed(grown.get(row["kind"], 0), size),) if grown else ()),
             size(row["pss_bytes"]), size(row["swap_bytes"]), size(row["size_bytes"])) for row in told["kinds"][:MAPPED]]
    out += [clip(INDENT + line, width) for line in table(heads, rows, right=heads[1:])]
    largest = [f"{middle(row['name'], 60)} {size(row['pss_bytes'])}" for row in told["largest"][:LARGEST] if row["pss_bytes"]]
    return out + (said("largest", _and(largest), width) if largest else [])


def _files(facts, width):
    told, limit = facts["descriptors"], (facts["limits"].get("open files") or {}).get("soft")
    count = facts["usage"]["files"] if told["count"] is None else told["count"]
    if count is None:
        return said("open", _why(facts, "files", "descriptors"), width)
    of = f"{count:,} of {limit:,} files" if limit else f"{count:,} files"
    of_kinds = _and(f"{amount:,} {kind}" for kind, amount in sorted(told["kinds"].items(), key=lambda item: -item[1]))
    out = said("open", _and([of, _growth(facts, "files", _whole)]) + (f":  {of_kinds}" if of_kinds else ""), width)
    if "descriptors" in told["unknown"]:
        return out + said("which", _why(facts, "descriptors"), width)
    grown = [(target, more) for target, more in ((facts["growth"] or {}).get("same") or {}).items() if more > 0]
    if grown:
        out += said("more of", _and(f"{middle(target, 60)} +{more:,}" for target, more in
                                    sorted(grown, key=lambda item: -item[1])[:LARGEST]), width)
    same = [row for row in told["same"] if row["count"] > 1][:DESCRIPTORS]
    if same:
        out += said("most often", _and(f"{row['count']:,} times {middle(row['target'], 60)}" for row in same[:LARGEST]), width)
    shown, left = _rows(told["rows"]), told["left_out"]
    for (kind, target), (mode, fds) in shown[:DESCRIPTORS]:
        many = f"{fds[0]} +{len(fds) - 1:,}" if len(fds) > 1 else str(fds[0])
        out.append(f"{INDENT}{many:<{LABEL}}{kind:<12}  {mode or '':<2}  "
                   f"{middle(target or '', None if width is None else max(8, width - 32))}")
    left += sum(len(fds) for _, (_, fds) in shown[DESCRIPTORS:])
    if left:
        out.append(f"{INDENT}and {counted(left, 'more file')}, --json has {'them' if not told['left_out'] else 'most of them'}")
    return out


def _rows(rows):
    """[((kind, target), (mode, [fd, ...]))] of the descriptors that tell most, deleted files first; sockets are told of under network."""
    groups = {}
    for row in rows:
        if row["kind"] in _SHOWN_KINDS:
            groups.setdefault((row["kind"], row["target"]), (row["mode"], []))[1].append(row["fd"])
    return sorted(groups.items(), key=lambda item: (_SHOWN_KINDS.index(item[0][0]), item[1][1][0]))


def _network(facts, width):
    groups = facts["network"]
    if groups is None:
        return said("sockets", _why(facts, "descriptors", "sockets", "files"), width)
    out = []
    for title, chosen in (("listens on", [each for each in groups if each["direction"] == LISTENS]),
                          ("talks to", [each for each in groups if each["direction"] not in (LISTENS, IN)]),
                          ("serves", [each for each in groups if each["direction"] == IN])):
        for place, group in enumerate(chosen[:CONNECTIONS]):
            out += said(title if not place else "", connection(group), width)
        left = sum(group["connections"] for group in chosen[CONNECTIONS:])
        if left:
            out += said("", f"and {counted(left, 'more connection')} in {counted(len(chosen) - CONNECTIONS, 'place')}", width)
    return out or said("sockets", "none", width)


def connection(group):
    """`postgres 10.0.0.5:5432, 3 connections, 12 kB waiting to be read`."""
    name = " ".join(filter(None, (group["service"], f"{group['kind']}" if not group["service"] else "", middle(group["place"], 200))))
    if group["held_by"]:
        name += " (" + ", ".join(f"pid {row['pid']} {printable(row['name'])}" for row in group["held_by"]) + ")"
    if group["direction"] == LISTENS:
        most = f" of {group['backlog']:,} that may" if group["backlog"] is not None else ""
        if group["queued"] is None:
            return name
        waits = (f"{counted(group['queued'], 'connection')} {'waits' if group['queued'] == 1 else 'wait'}" if group["queued"] else
                 "nobody waits")
        return f"{name}, {waits}{most}"
    states = {state: count for state, count in group["states"].items() if state not in ("ESTABLISHED", "UNCONNECTED")}
    if set(group["states"]) == {"UNCONNECTED"}:
        return _and([name, f"{counted(group['connections'], 'socket')} without a connection"])
    return _and([name, counted(group["connections"], "connection"),
                 f"from {counted(group['addresses'], 'address', 'addresses')}"
                 if group["direction"] == IN and group["kind"] != "unix" else "",
                 *(f"{count:,} {_SOCKET_STATES.get(state, f'in {state}')}" for state, count in sorted(states.items())),
                 f"{size(group['to_read_bytes'])} waiting to be read" if group["to_read_bytes"] else "",
                 f"{size(group['to_send_bytes'])} not taken by the other side" if group["to_send_bytes"] else ""])


def _io(facts, width):
    usage, rates = facts["usage"], facts["rates"]
    if usage["read_bytes"] is None:
        return said("disk", _why(facts, "io"), width)
    out = []
    for label, amount, calls in (("read", "read_bytes", "read_calls"), ("written", "written_bytes", "write_calls")):
        now = "" if rates[amount] is None else f"{size(rates[amount])} of a disk and {number(rates[calls], 0)} calls a second;  "
        out += said(label, f"{now}{size(usage[amount])} and {number(usage[calls], 0)} calls since it began", width)
    return out


def _limits(facts, width):
    if not facts["limits"]:
        return said("limits", _why(facts, "limits"), width)
    used = {"open files": facts["usage"]["files"], "address space": facts["usage"]["size_bytes"],
            "cpu": facts["usage"]["cpu_user_s"] + facts["usage"]["cpu_system_s"]}
    rows = []
    for name in _LIMITS:
        limit = facts["limits"].get(name)
        if limit is None or limit["soft"] is None and limit["hard"] is None:
            continue
        shown = size if name in _IN_BYTES else duration if name == "cpu" else _whole
        rows.append(f"{name} " + (f"{shown(used[name])} of " if used.get(name) is not None else "") + _limit(limit, shown))
    free = [name for name in _LIMITS if name in facts["limits"]
            and facts["limits"][name]["soft"] is None and facts["limits"][name]["hard"] is None]
    out = []
    for place, row in enumerate(rows):
        out += said("" if place else "limited", row, width)
    return out + (said("unlimited", ", ".join(free), width) if free else [])


def _limit(limit, shown):
    soft = "unlimited" if limit["soft"] is None else shown(limit["soft"])
    hard = "unlimited" if limit["hard"] is None else shown(limit["hard"])
    return soft if soft == hard else f"{soft} (it may raise that to {hard})"


def _cgroup(facts, width):
    told, rates = facts["cgroup"], facts["throttled"]
    if told["path"] is None:
        return said("path", _why(facts, "cgroup"), width)
    out = said("path", f"{middle(told['path'], LONGEST)}  (version {told['version'] or UNKNOWN})", width)
    memory, cpu, pids = told["memory"], told["cpu"], told["pids"]
    if memory:
        at = f"in {middle(memory['at'], 100)}" if memory["at"] != told["path"] else ""
        limit = f" of {size(memory['limit_bytes'])}" if memory["limit_bytes"] is not None else ", no limit"
        cache = f"{size(memory['reclaimable_bytes'])} of it file cache" if memory["reclaimable_bytes"] else ""
        out += said("memory", _and([f"{size(memory['used_bytes'])}{limit}", cache, at,
                                    f"high at {size(memory['high_bytes'])}" if memory["high_bytes"] else "",
                                    f"swap at most {size(memory['swap_limit_bytes'])}" if memory["swap_limit_bytes"] is not None else "",
                                    f"{memory['oom_kills']:,} killed for want of memory" if memory["oom_kills"] else ""]), width)
    else:
        out += said("memory", _why(facts, "memory"), width)
    if cpu:
        quota = f"at most {number(cpu['cores'], 2)} cores" if cpu["cores"] else "no limit"
        out += said("CPU", _and([quota, f"throttled {percent(rates)} of the time" if cpu["cores"] and rates is not None else "",
                                 f"{duration(cpu['throttled_s'])} since it began" if cpu["throttled_s"] else ""]), width)
    else:
        out += said("CPU", _why(facts, "cpu"), width)
    if pids and pids["used"] is not None:
        out += said("tasks", f"{number(pids['used'], 0)}" +
                    (f" of {number(pids['limit'], 0)}" if pids["limit"] is not None else ", no limit"), width)
    pressure = _and(f"{what} {row['some_avg10']:.0f} %" for what, row in (told["pressure"] or {}).items()
                    if row.get("some_avg10") is not None)
    if pressure:
        out += said("pressure", f"{pressure} of the last 10 s something waited", width)
    return out


def _python(facts, width):
    told = facts["interpreter"]
    if not told.get("python"):
        return said("version", _why(facts, "interpreter", "python"), width)
    out = said("version", _and([told["python"], middle(told["executable"], LONGEST) if told.get("executable") else "",
                                f"prefix {middle(told['prefix'], LONGEST)}" if told.get("prefix") else ""]), width)
    for place, path in enumerate((told.get("site_packages") or ())[:PATHS]):
        out += said("" if place else "packages in", middle(path, LONGEST), width)
    top = told.get("top") or ()
    named = [" ".join(filter(None, (printable(row["name"]), printable(row["version"] or "")))) for row in top[:PACKAGES]]
    if named:
        out += said("packages", _and(named) + (f" and {len(top) - PACKAGES:,} more" if len(top) > PACKAGES else ""), width)
    if told.get("modules") is not None:
        out += said("modules", f"{told['modules']:,} are loaded", width)
    if told.get("paths"):
        shown = [middle(path, 80) for path in told["paths"][:PATHS]]
        out += said("sys.path", _and(shown) + (f" and {len(told['paths']) - PATHS:,} more" if len(told["paths"]) > PATHS else ""), width)
    return out


def _environment(facts, width):
    told = facts["environment"]
    if not told:
        return said("variables", _why(facts, "environment") if "environment" in facts["unknown"] else "none", width)
    out = [clip(INDENT + printable(f"{name}={value}"[:4 * LONGEST]), width or LONGEST) for name, value in sorted(told.items())[:VARIABLES]]
    if len(told) > VARIABLES:
        out.append(f"{INDENT}and {counted(len(told) - VARIABLES, 'more variable')}")
    return out
