"""dump: one snapshot of a running collector."""
import csv
import io
import os
import re
import stat
import time

from modwsgi_tel.errors import Nonsense, TelError, UsageError
from modwsgi_tel.figures import counted, duration, fine, moment, number, percent, size
from modwsgi_tel.options import token_in
from modwsgi_tel.printable import printable, printable_json, show
from modwsgi_tel.report.client import summary, where_of
from modwsgi_tel.report.text import table
from modwsgi_tel.report.whole import write_whole

_LISTEN_ONLY = ("count", "duration", "socket_mode", "socket_group")
_TEXT_MOST = 80                         # letters of a place, a path, a type
_EXAMPLE = "dump-%Y%m%d-%H%M%S.json"


# --- a snapshot ---------------------------------------------------------------------------

def dump(values):
    """Ask the collector once; the exit status."""
    values.refuse(_LISTEN_ONLY, "goes with --listen")
    if values.keep and not values.output:
        raise UsageError("--keep: goes with --output")
    if values.keep and "%" not in os.path.basename(values.output).replace("%%", ""):
        raise UsageError(f"--keep: --output needs a name that changes, as {_EXAMPLE}")
    if values.keep and "%" in os.path.dirname(values.output):
        raise UsageError("--keep: the folder of --output must not change with the time, only the name in it")
    if values.keep:
        _check_template(os.path.basename(values.output))
    where = where_of(values)
    found = summary(**where, token=token_in(values.token_file), timeout_s=values.timeout)
    try:
        shown = FORMATS[values.format](found)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError) as error:
        raise Nonsense(f"{where['http_socket'] or where['url']}: /api/summary is not as it should be ({error!r}): another "
                       "version?") from None
    if values.output is None:
        show(shown)
        return 0
    path = time.strftime(values.output)
    write_whole(path, shown)
    if values.keep:
        remove_old(values.output, values.keep)
    return 0


def _check_template(name):
    """UsageError when --keep could not tell its own files by such a name."""
    try:
        time.strptime(time.strftime(name), name)
    except (ValueError, re.error):
        raise UsageError(f"--keep: a time written as {name} cannot be read back: use {_EXAMPLE}") from None


def remove_old(template, keep):
    """Remove the oldest regular files whose names the template makes, all but `keep`.  Raises TelError."""
    folder, name = os.path.split(template)
    folder = folder or "."
    pattern = re.compile("".join(_directive(part) if part.startswith("%") else re.escape(part)
                                 for part in re.split(r"(%.)", name)))
    found = []
    try:
        for entry in os.scandir(folder):
            if not pattern.fullmatch(entry.name):
                continue
            status = entry.stat(follow_symlinks=False)
            try:
                when = time.strptime(entry.name, name)
            except (ValueError, re.error):
                continue                # the pattern fits, but it is no time
            if stat.S_ISREG(status.st_mode):
                found.append((tuple(when), status.st_mtime_ns, entry.path))
        for _, _, path in sorted(found)[:-keep]:
            os.unlink(path)
    except OSError as error:
        raise TelError(f"--keep in {folder}: {error.strerror}") from None


def _directive(part):
    return {"%%": "%", "%Y": "[0-9]{4}", "%j": "[0-9]{3}"}.get(part, "[0-9]{2}" if part in (
        "%m", "%d", "%H", "%M", "%S", "%y", "%I", "%U", "%W") else "[^/]+")


def as_json(found):
    return printable_json(found) + "\n"


def as_jsonl(found):
    """One object a line: the totals, each group, what agents told, each process; `type` and `time` say which and when."""
    head = {"time": found["time"]}
    rows = [{"type": "totals", **head, **found["totals"], "collector": found["collector"]}]
    rows += [{"type": "group", **head, **row} for row in found["groups"]]
    if _agents_told(found):
        rows.append({"type": "agent", **head, **found["agent"]})
    rows += [{"type": "process", **head, **row} for row in found["processes"]]
    return "".join(printable_json(row) + "\n" for row in rows)


def _cores(cpu):
    return number(cpu, 2)               # as the console has it


# The columns of the table of processes: head, from a row of the summary, for csv, for people.
_COLUMNS = (
    ("pid", lambda row: row["pid"], str),
    ("group", lambda row: row["process_group"] or f"({row['role']})", str),
    ("life", lambda row: row["life"], str),
    ("req/s", lambda row: row["windows"]["1m"]["throughput"], number),
    ("p50", lambda row: _request(row, "p50"), duration),
    ("p95", lambda row: _request(row, "p95"), duration),
    ("p99", lambda row: _request(row, "p99"), duration),
    ("busy", lambda row: row["windows"]["1m"]["capacity"], percent),
    ("cpu", lambda row: row["windows"]["1m"]["cpu"], _cores),
    ("rss", lambda row: row["rss"], size),
    ("5xx", lambda row: row["windows"]["1m"]["status"]["5xx"], str),
    ("slow", lambda row: row["slow_active"], str),
    ("lost", lambda row: row["lost"], str),
    ("silent", lambda row: row["silent_s"], duration),
)
_CSV_NAMES = {"req/s": "throughput", "p50": "request_p50_s", "p95": "request_p95_s", "p99": "request_p99_s",
              "busy": "capacity", "rss": "rss_bytes", "5xx": "status_5xx", "slow": "slow_active", "silent": "silent_s"}
_LEFT = ("pid", "group", "life")


def _request(row, name):
    return row["windows"]["1m"]["phases"].get("request", {}).get(name)


def as_csv(found):
    """A row a process, over the last minute; times in seconds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["time", "host", *(_CSV_NAMES.get(head, head) for head, _, _ in _COLUMNS)])
    for row in found["processes"]:
        cells = [row["hostname"], *(value(row) for _, value, _ in _COLUMNS)]
        writer.writerow([f"{found['time']:.3f}", *map(_csv_cell, cells)])
    return out.getvalue()


def _csv_cell(value):
    if value is None:
        return ""
    if isinstance(value, str):
        value = printable(value)
        return "'" + value if value[:1] in ("=", "+", "-", "@") else value    # no formula for a spreadsheet
    return value


def as_text(found):
    """Tables for people, over the last minute."""
    totals, own = found["totals"], found["collector"]
    window = totals["windows"]["1m"]
    lives = ", ".join(f"{count} {life}" for life, count in totals["lives"].items() if count) or "none yet"
    lines = [
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["time"])) + f"  processes: {lives}",
        f"last minute: {number(window['throughput'])} requests/s, busy {percent(window['capacity'])}, CPU "
        f"{number(window['cpu'], 2)} cores, {window['status']['5xx']} errors (5xx), {totals['slow']['active']} slow active",
        f"datagrams: {own['received']} received, {totals['lost']} lost ({totals['lost_uncertain']} uncertain), "
        f"{own['decode_errors']} wrong", ""]
    heads = ["group", "host", "processes", "req/s", "p50", "p95", "p99", "queue p95", "busy", "cpu", "rss", "5xx", "slow"]
    rows = []
    for group in found["groups"]:
        window = group["windows"]["1m"]
        request, queue = window["phases"].get("request", {}), window["phases"].get("queue", {})
        rows.append([group["process_group"] or "(embedded)", group["hostname"],
                     sum(count for life, count in group["lives"].items() if life not in ("stopped", "vanished", "replaced")),
                     number(window["throughput"]), *(duration(request.get(name)) for name in ("p50", "p95", "p99")),
                     duration(queue.get("p95")), percent(window["capacity"]), _cores(window["cpu"]), size(group["rss"]),
                     window["status"]["5xx"], group["slow_active"]])
    lines += table(heads, rows, heads[2:]) + [""]
    lines += table([head for head, _, _ in _COLUMNS],
                   [[shown(value(row)) for _, value, shown in _COLUMNS] for row in found["processes"]],
                   [head for head, _, _ in _COLUMNS if head not in _LEFT])
    return "\n".join(lines + _agents(found)) + "\n"


# --- what agents told ---------------------------------------------------------------------

def _agents_told(found):
    """Whether an agent has told anything."""
    told = found.get("agent") or {}
    return any(told.get(name) for name in ("processes", "exceptions", "pivots", "timers", "problems"))


def _agents(found):
    """Lines of what the agents in the applications told, since the collector runs."""
    if not _agents_told(found):
        return []
    told = found["agent"]
    lines = ["", f"agents: in {counted(told['processes'], 'process', 'processes')}, standard telemetry by those of {told['emitting']}; "
                 f"{told['lost']} of their datagrams could not be sent (before a collector came, too); {told['errors']} errors of their own"]
    lines += [f"an agent says: {printable(problem)}" for problem in told["problems"]]
    late = told["lateness"]
    if late["count"]:
        lines.append(f"event loops were held {counted(late['count'], 'time')}: {duration(late['seconds'])} in all, "
                     f"{duration(late['max'])} the longest")
    if told["pivots"]:
        heads = ["10 min", "in all", "requests", "active", "thread", "where long requests have their time", "waits for", "paths"]
        rows = [[duration(row["recent_s"]), duration(row["seconds"]), row["requests"], row["active"], _role(row), _short(row["place"]),
                 _waits_for(row), _paths(row)] for row in told["pivots"]]
        lines += ["", *table(heads, rows, heads[:4])]
    if told["exceptions"]:
        rows = [[row["count"], moment(row["last"], found["time"]), _short(row["type"]), _short(row["place"]), _short(row["path"] or "-"),
                 row["process_group"] or "(embedded)"] for row in told["top_exceptions"]]
        most = f", the {len(rows)} most frequent" if told["exception_places"] > len(rows) else ""
        lines += ["", f"exceptions that left the applications: {told['exceptions']} at {counted(told['exception_places'], 'place')}{most}",
                  *table(["count", "last", "type", "at", "path", "group"], rows, ["count"])]
    if told["timers"]:
        names = ("seconds", "mean", "p50", "p95", "p99", "max")
        rows = [[row["name"], row["count"], *(fine(row[name]) for name in names), row["errors"]] for row in told["timers"]]
        lines += ["", *table(["operation", "count", *names, "errors"], rows, ["count", *names, "errors"])]
    return lines


def _short(text):
    """A text of an application, so short that a table stays one."""
    return text if len(text) <= _TEXT_MOST else text[:_TEXT_MOST - 3] + "..."


def _role(row):
    """`waits: rlock 3/4`: three of its four stacks waited for others."""
    some = f" {row['waited']}/{row['stacks']}" if row["role"] == "waits" and row["waited"] < row["stacks"] else ""
    return f"{row['role']}: {row['waits']}{some}" if row["waits"] else row["role"]


def _waits_for(row):
    if row["waits_for"] or row["role"] == "waits":
        return _short(row["waits_for"] or row["how_known"])
    if row["blocked_requests"]:
        return f"makes {counted(row['blocked_requests'], 'request')} wait {duration(row['blocked_s'])}"
    return "-"


def _paths(row):
    told = [f"{_short(path)} {count}" for path, count in sorted(row["paths"].items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join(told + ([f"and {row['paths_other']} elsewhere"] if row["paths_other"] else [])) or "-"


FORMATS = {"text": as_text, "json": as_json, "jsonl": as_jsonl, "csv": as_csv}
