"""dump: one snapshot of a running collector, or every datagram as it comes."""
import csv
import io
import json
import os
import re
import signal
import stat
import sys
import time

from modwsgi_tel.collector import token_of
from modwsgi_tel.errors import Nonsense, TelError, Unwritable, UsageError, WireError
from modwsgi_tel.net.datagram import BoundPath, Receiver, group_id, unix_path
from modwsgi_tel.net.log import printable
from modwsgi_tel.net.loop import Loop
from modwsgi_tel.report.client import summary
from modwsgi_tel.report.text import duration, number, percent, size, table
from modwsgi_tel.state.fleet import CREDENTIALS
from modwsgi_tel.wire.codec import decode
from modwsgi_tel.wire.fields import kind_name
from modwsgi_tel.wire.shapes import finite

_LISTEN_ONLY = ("count", "duration", "socket_mode", "socket_group")
_SNAPSHOT_ONLY = ("output", "keep")
_EXAMPLE = "dump-%Y%m%d-%H%M%S.json"


# --- a snapshot ---------------------------------------------------------------------------

def dump(values):
    """Ask the collector once or, with --listen, print every datagram; the exit status.

    A variable in the environment does not make it bind a socket: it is there for serve.
    """
    if _meant(values, "listen"):
        return listen(values)
    _refuse(values, _LISTEN_ONLY, "goes with --listen")
    if values.keep and not values.output:
        raise UsageError("--keep: goes with --output")
    if values.keep and "%" not in os.path.basename(values.output).replace("%%", ""):
        raise UsageError(f"--keep: --output needs a name that changes, as {_EXAMPLE}")
    if values.keep and "%" in os.path.dirname(values.output):
        raise UsageError("--keep: the folder of --output must not change with the time, only the name in it")
    if values.keep:
        _check_template(os.path.basename(values.output))
    found = summary(url=values.url, http_socket=values.http_socket, token=token_of(values.token_file),
                    timeout_s=values.timeout)
    try:
        shown = FORMATS[values.format](found)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError) as error:
        raise Nonsense(f"{values.http_socket or values.url}: /api/summary is not as it should be ({error!r}): another "
                       "version?") from None
    if values.output is None:
        try:
            sys.stdout.write(shown)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unwritable(error) from None
        return 0
    path = time.strftime(values.output)
    write_whole(path, shown)
    if values.keep:
        remove_old(values.output, values.keep)
    return 0


def _refuse(values, names, why):
    for name in names:
        if _meant(values, name):
            raise UsageError(f"{values.given[name]}: {why}; see modwsgi-tel dump --help")


def _meant(values, name):
    """Whether an option was given for dump: variables are shared with serve."""
    return values.given[name] != "default" and not values.given[name].startswith("MODWSGI_TEL_")


def _check_template(name):
    """UsageError when --keep could not tell its own files by such a name."""
    try:
        time.strptime(time.strftime(name), name)
    except (ValueError, re.error):
        raise UsageError(f"--keep: a time written as {name} cannot be read back: use {_EXAMPLE}") from None


def write_whole(path, shown):
    """Write a file so that nobody ever sees half of it; what is there must be a file.  Raises TelError."""
    aside = f"{path}.{os.getpid()}.tmp"
    try:
        there = os.lstat(path).st_mode if os.path.lexists(path) else stat.S_IFREG
        if not stat.S_ISREG(there):     # /dev/null, as root, would be gone
            what = "a symbolic link" if stat.S_ISLNK(there) else "a folder" if stat.S_ISDIR(there) else "no regular file"
            raise TelError(f"--output {path}: is {what}, which is left alone")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
                handle.write(shown)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:
        raise TelError(f"--output {path}: {error.strerror}") from None


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


def _whole_json(value):
    """JSON in ASCII: a control character of any kind is an escape in it."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f")


def as_json(found):
    return _whole_json(found) + "\n"


def as_jsonl(found):
    """One object a line: the totals, each group, each process; `type` and `time` say which and when."""
    head = {"time": found["time"]}
    rows = [{"type": "totals", **head, **found["totals"], "collector": found["collector"]}]
    rows += [{"type": "group", **head, **row} for row in found["groups"]]
    rows += [{"type": "process", **head, **row} for row in found["processes"]]
    return "".join(_whole_json(row) + "\n" for row in rows)


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
    ("cpu", lambda row: row["windows"]["1m"]["cpu"], percent),
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
                     duration(queue.get("p95")), percent(window["capacity"]), percent(window["cpu"]), size(group["rss"]),
                     window["status"]["5xx"], group["slow_active"]])
    lines += table(heads, rows, heads[2:]) + [""]
    lines += table([head for head, _, _ in _COLUMNS],
                   [[shown(value(row)) for _, value, shown in _COLUMNS] for row in found["processes"]],
                   [head for head, _, _ in _COLUMNS if head not in _LEFT])
    return "\n".join(lines) + "\n"


FORMATS = {"text": as_text, "json": as_json, "jsonl": as_jsonl, "csv": as_csv}


# --- every datagram -------------------------------------------------------------------------

class _Out:
    """Lines to stdout from inside the loop: what its reader does not take in time is dropped and counted."""

    HELD = 4 << 20
    PIECE = 4096                        # a pipe that select() finds writable takes so much without blocking

    def __init__(self, loop, descriptor):
        self.loop, self.descriptor, self.lost, self._held = loop, descriptor, 0, bytearray()

    def line(self, shown):
        if len(self._held) > self.HELD:
            self.lost += 1
            return
        self._held += shown.encode("utf-8", "replace") + b"\n"
        self.loop.writers[self.descriptor] = self._write

    def _write(self, most=PIECE):
        try:
            del self._held[:os.write(self.descriptor, self._held[:most])]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unwritable(error) from None
        if not self._held:
            self.loop.writers.pop(self.descriptor, None)

    def finish(self):
        while self._held:
            self._write(len(self._held))


def listen(values):
    """Bind the socket and print each datagram; the exit status."""
    _refuse(values, _SNAPSHOT_ONLY, "goes without --listen")
    shown = {"text": _datagram_text, "json": _datagram_json, "jsonl": _datagram_json}.get(values.format)
    if shown is None:
        raise UsageError(f"--format {values.format}: with --listen it is text, json or jsonl")
    bound = BoundPath(unix_path(values.listen), values.socket_mode,
                      group_id(values.socket_group) if values.socket_group else None)
    loop = Loop()
    try:
        out, seen = _Out(loop, sys.stdout.fileno()), [0]

        def take(datagram, sender, now, wall, read=decode):
            if values.count is not None and seen[0] >= values.count:
                return
            seen[0] += 1
            out.line(shown(datagram, CREDENTIALS.unpack(sender)[0], wall, read))
            if seen[0] == values.count:
                loop.stop()

        def too_long(head, sender, wall):
            take(head, sender, None, wall, _refuse_long)

        loop.set_first(bound.socket.fileno(), Receiver(bound, take, too_long).drain)
        for number_ in (signal.SIGTERM, signal.SIGINT):
            loop.on_signal(number_, loop.stop)
        if values.duration is not None:
            loop.after(values.duration, loop.stop)
        loop.run()
        bound.close()                   # first, so that no emitter waits for our reader
        out.finish()
        if out.lost:
            sys.stderr.write(f"modwsgi-tel: {out.lost} datagrams not shown: stdout was not read fast enough\n")
    finally:
        bound.close()
        loop.close()
    return 0


def _refuse_long(head):
    raise WireError("too_long", "more bytes than the buffer has")


def _datagram_text(datagram, sender, wall, read):
    head = time.strftime("%H:%M:%S", time.localtime(wall)) + f".{int(wall % 1 * 1000):03d} from {sender}"
    try:
        sample = read(datagram)
    except WireError as error:
        return f"{head} WRONG ({error.reason}): {printable(str(error))} {datagram[:64].hex()}"
    fields = " ".join(f"{name}={_shown(value)}" for name, value in sample.fields.items())
    return f"{head} {kind_name(sample.kind)} pid={sample.pid} seq={sample.seq} {fields}"


def _shown(value):
    if isinstance(value, str):
        return printable(json.dumps(value, ensure_ascii=False)) if not value.isalnum() else value
    if isinstance(value, list):
        return "[" + ",".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in value) + "]"
    return f"{value:.6g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)


def _datagram_json(datagram, sender, wall, read):
    row = {"received": wall, "sender_pid": sender}
    try:
        sample = read(datagram)
    except WireError as error:
        return _whole_json({**row, "error": error.reason, "detail": str(error), "bytes": datagram.hex()})
    return _whole_json(finite({**row, "kind": kind_name(sample.kind), "pid": sample.pid, "seq": sample.seq,
                               "stamp": sample.stamp, "fields": sample.fields}))
