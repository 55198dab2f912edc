"""Where the error log of a server is, and the end of a log, read backwards.

Never more than asked for: a log of many gigabytes is read from its end, in blocks, only as far as the time that is asked for.
"""
import os
import re
import stat
import time
from collections import namedtuple

from modwsgi_tel.apache import loglines
from modwsgi_tel.proc import cgroups, procfs
from modwsgi_tel.proc.access import explain
from modwsgi_tel.proc.find import base_name, is_apache

Log = namedtuple("Log", "path shown how")
Log.__doc__ = "path: what to open.  shown: its name.  how: how it was found, as text."

Tail = namedtuple("Tail", "data dated modified shift skipped_bytes problems")
Tail.__doc__ = """data: bytes, whole lines but for the last.  dated: whether any line has a date.  modified: wall seconds.
shift: what to add to its local times, in seconds (the server's time zone is another than ours)."""

_BLOCK = 256 << 10
_MOST_LOGS, _MOST_DESCRIPTORS = 16, 4096
_MOST_LINKS = 40
_SEARCH_S = 0.3
_LOOKS_LIKE = re.compile(r"err|(?<!access)[._-]log(?:[.-]\d+)*$", re.IGNORECASE)
_IS_NOT = re.compile(r"access|forensic|ssl_request|rewrite|referer|agent|other_vhosts|transfer", re.IGNORECASE)
_LOGGERS = frozenset(("containerd-shim", "containerd-shim-runc-v2", "conmon", "dockerd", "runsv", "svlogd", "s6-log", "multilog", "logger",
                      "systemd-cat", "supervisord"))
_ZONE_STEP_S, _ZONE_SURE_S, _ZONE_MOST_S = 900, 3.0, 14 * 3600 + 60
_BY_DESCRIPTOR = re.compile(r".{0,100}/\d+/fd/\d+$")


# --- where it is -----------------------------------------------------------------------------

def of(parent_pid, config=None, root="/proc"):
    """([Log], [reasons]) of a server by its parent or master process; config: a config.Config, for its error_logs.

    reasons: lines of text, on logs that are there but cannot be read, or that are none.  Raises nothing.
    """
    finder = _Finder(parent_pid, root)
    finder.by_descriptors()
    for place in config.error_logs if config is not None else ():
        finder.by_configuration(place, config.root)
    return finder.logs[:_MOST_LOGS], list(dict.fromkeys(finder.reasons))


class _Finder:
    def __init__(self, pid, root):
        self.pid, self.root, self.logs, self.reasons = pid, root, [], []
        self._seen = set()

    def _put(self, path, shown, how):
        """Takes a log, once.  path: what opens it."""
        try:
            seen = os.stat(path)
        except OSError as error:
            self.reasons.append(f"the error log {shown} cannot be read: {error.strerror}")
            return
        if not stat.S_ISREG(seen.st_mode):
            return
        if (seen.st_dev, seen.st_ino) in self._seen:
            return
        self._seen.add((seen.st_dev, seen.st_ino))
        if not os.access(path, os.R_OK):
            self.reasons.append(f"the error log {shown} may not be read: run as root, or as a member of the group that may "
                                "(adm on Debian)")
            return
        self.logs.append(Log(path, shown, how))

    def _link(self, pid, descriptor):
        return os.fsdecode(os.readlink(os.fsencode(f"{self.root}/{pid}/fd/{descriptor}")))

    def by_descriptors(self):
        try:
            names = sorted(os.listdir(f"{self.root}/{self.pid}/fd"), key=lambda name: (len(name), name))[:_MOST_DESCRIPTORS]
            target = self._link(self.pid, 2)
        except FileNotFoundError:
            if not os.path.exists(f"{self.root}/{self.pid}"):
                self.reasons.append(f"there is no process {self.pid}")
                return
            target = ""
        except OSError as error:
            self.reasons.append("which files the server writes to is not known: " + explain(self.pid, error, self.root))
            return
        self._stderr(2, target)
        try:
            program = base_name(os.fsdecode(os.readlink(f"{self.root}/{self.pid}/exe")))
        except OSError:
            program = ""
        if not is_apache(program):                              # gunicorn and uWSGI may log to stdout
            self._quietly(1)
        for name in names:
            if name not in ("0", "1", "2"):
                self._open_for_writing(self.pid, name, "the server has it open for writing")

    def _quietly(self, descriptor):
        try:
            target = self._link(self.pid, descriptor)
        except OSError:
            return
        if target.startswith("/") and not target.startswith("/dev/"):
            self._file(self.pid, descriptor, target, "the server's stdout")

    def _open_for_writing(self, pid, name, how):
        try:
            target = self._link(pid, name)
            bare = os.path.basename(target[:-len(" (deleted)")] if target.endswith(" (deleted)") else target)
            if not target.startswith("/") or not _LOOKS_LIKE.search(bare) or _IS_NOT.search(bare):
                return
            flags = re.search(rb"^flags:\s*([0-7]+)", procfs.read(f"{self.root}/{pid}/fdinfo/{name}", 4096), re.M)
            if flags and int(flags.group(1), 8) & os.O_ACCMODE != os.O_RDONLY:
                self._file(pid, name, target, how)
        except (OSError, ValueError):                           # closed meanwhile
            return

    def _file(self, pid, descriptor, target, how):
        """A file that is open there.  By its path where that still leads to it: a link of /proc takes more rights."""
        link = f"{self.root}/{pid}/fd/{descriptor}"
        if not target.endswith(" (deleted)"):
            for path in (reach(self.pid, target, self.root), target):
                try:
                    if os.path.samestat(os.stat(path), os.stat(link)):
                        self._put(path, target, how)
                        return
                except OSError:
                    continue
        self._put(link, target, how)

    def _stderr(self, descriptor, target):
        if target.startswith("pipe:"):
            self._pipe(target)
        elif target.startswith("socket:"):
            unit = self._unit()
            self.reasons.append("the server's stderr goes to the journal or to another program by a socket, which is not read here: "
                                f"journalctl -u {unit or 'apache2'} --since -10min")
        elif target.startswith(("/dev/pts/", "/dev/tty", "/dev/console")):
            self.reasons.append(f"the server's stderr is a terminal ({target}), which cannot be read")
        elif target.startswith("/dev/null"):
            self.reasons.append("the server's stderr is /dev/null: what is not logged elsewhere is lost")
        elif target.startswith("/"):
            self._file(self.pid, descriptor, target, "the server's stderr")

    def _unit(self):
        name = cgroups.service(self.pid, self.root)
        return name[:-len(".service")] if name and re.fullmatch(r"[\w@.:-]+", name) else None

    def _pipe(self, target):
        reader = self._reader(target)
        if reader is None:
            self.reasons.append("the server's stderr is a pipe; who reads it was not found")
            return
        pid, name = reader
        if name in _LOGGERS:
            self.reasons.append(f"the server's stderr goes to {name} (pid {pid}), which keeps it elsewhere: docker logs, podman logs, "
                                "or that program's own files")
        before = len(self.logs)
        try:
            names = os.listdir(f"{self.root}/{pid}/fd")[:_MOST_DESCRIPTORS]
            for each in names:
                link = self._link(pid, each)
                flags = re.search(rb"^flags:\s*([0-7]+)", procfs.read(f"{self.root}/{pid}/fdinfo/{each}", 4096), re.M)
                if link.startswith("/") and not link.startswith("/dev/") and int(flags.group(1), 8) & os.O_ACCMODE != os.O_RDONLY:
                    self._file(pid, each, link, f"{name} (pid {pid}) writes it for the server")
        except (OSError, ValueError, AttributeError):
            pass
        if len(self.logs) == before and name not in _LOGGERS:
            self.reasons.append(f"the server's stderr is a pipe to {name} (pid {pid}), which has no log open for writing")

    def _reader(self, target):
        """(pid, name) of another process that has this pipe as its stdin, or among its first descriptors; its children first."""
        deadline = time.monotonic() + _SEARCH_S
        try:
            pids = procfs.pids(self.root)
        except OSError:
            return None
        behind, before = [pid for pid in pids if pid > self.pid], [pid for pid in pids if pid < self.pid]
        for highest in (1, 64):                                 # descriptors to look at
            for pid in behind + before:
                if time.monotonic() > deadline:
                    return None
                if pid == os.getpid():
                    continue
                for descriptor in ([0] if highest == 1 else range(3, highest)):
                    try:
                        if self._link(pid, descriptor) != target:
                            continue
                        flags = re.search(rb"^flags:\s*([0-7]+)", procfs.read(f"{self.root}/{pid}/fdinfo/{descriptor}", 4096), re.M)
                        if int(flags.group(1), 8) & os.O_ACCMODE == os.O_RDONLY:
                            return pid, procfs.stat(pid, self.root).name
                    except (OSError, ValueError, AttributeError):
                        if descriptor == 0:
                            continue
                        break
        return None

    def by_configuration(self, place, server_root):
        """place: what ErrorLog says."""
        word = place.strip().strip('"')
        if word.startswith("|"):
            if not any(log.how.endswith("for the server") for log in self.logs):
                self.reasons.append(f"an error log goes to a program: {word[:200]}")
        elif word.startswith("syslog"):
            self.reasons.append("an error log goes to syslog, which is not read here: /var/log/syslog or journalctl -t apache2 "
                                "--since -10min")
        elif word.startswith("journald"):
            self.reasons.append(f"an error log goes to the journal, which is not read here: journalctl -u {self._unit() or 'apache2'} "
                                "--since -10min")
        elif word:
            path = os.path.join(server_root or "/", word)
            reached = reach(self.pid, path, self.root)
            if not _leaves(reached):                            # else it is stderr, which was looked at
                self._put(reached, path, "ErrorLog of the configuration")


def reach(pid, path, root="/proc"):
    """An absolute path of that process as this one may open it: in its mount namespace and its root, with its links followed there.

    The path itself where that is not allowed.
    """
    inside = f"{root}/{pid}/root"
    try:
        os.stat(inside + "/")
    except OSError:
        return path
    left, done = [part for part in reversed(path.split("/")) if part], ""
    links = _MOST_LINKS
    while left:
        part = left.pop()
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        try:
            if done.startswith("/proc"):                        # there a link is another for each reader
                raise OSError
            target = os.readlink(f"{inside}{done}/{part}")
        except OSError:                                         # no link
            done += "/" + part
            continue
        links -= 1
        if links < 0:
            return path
        done = "" if target.startswith("/") else done
        left += [each for each in reversed(target.split("/")) if each not in ("", ".")]
    return inside + (done or "/")


def _leaves(path):
    """Whether a path leads to a device or into /proc, as /dev/stderr does: to what this process has there."""
    real = re.sub(r"^.{1,200}/\d+/root(?=/)", "", path)
    return real.startswith(("/dev/", "/proc/")) or os.path.realpath(real).startswith(("/dev/", "/proc/"))


# --- its end -----------------------------------------------------------------------------------

def tail(log, since_wall, most_bytes):
    """The Tail of a Log: whole lines back to the first before that time, at most `most_bytes`.

    Where the file begins after that time, what was rotated away (FILE.1, or the newest FILE-*) is put before it.
    """
    problems = []
    try:
        data, whole, seen, skipped = _end_of(log.path, since_wall, most_bytes)
    except OSError as error:
        return Tail(b"", False, time.time(), 0.0, 0, [f"{log.shown}: {error.strerror}"])
    shift = _shift(data, seen.st_mtime)
    first = _first_date(data, seen.st_mtime, shift)
    if whole and (first is None or first > since_wall) and not _BY_DESCRIPTOR.match(log.path):
        former = _former(log.path, since_wall)
        if former and former.endswith((".gz", ".xz", ".bz2", ".zst")):
            problems.append(f"{log.shown} was rotated meanwhile; {os.path.basename(former)} is compressed and was not read")
        elif former:
            try:
                before, _, _, more = _end_of(former, since_wall, most_bytes - len(data))
                data, skipped = before + data, skipped + more
                first = _first_date(data, seen.st_mtime, shift)
            except OSError as error:
                problems.append(f"{former}: {error.strerror}")
    if skipped:
        problems.append(f"{log.shown}: more was logged since then than is read; {len(data):,} bytes of its end were")
    if data and first is None:
        problems.append(f"{log.shown}: its lines have no dates, so some may be older")
    return Tail(data, first is not None, seen.st_mtime, shift, skipped, problems)


def _open(path):
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(handle).st_mode):              # it is another since it was found
        os.close(handle)
        raise OSError(0, "is no file")
    return handle


def _end_of(path, since_wall, most_bytes):
    """(bytes, whether it is all of the file, its stat, bytes left out).  Raises OSError."""
    handle = _open(path)
    try:
        seen = os.fstat(handle)
        start = size = seen.st_size
        if seen.st_mtime < since_wall:                          # nothing was written since
            return b"", False, seen, 0
        blocks, shift = [], None
        while start > 0 and size - start < most_bytes:
            step = min(_BLOCK, start, most_bytes - (size - start))
            start -= step
            blocks.append(os.pread(handle, step, start))
            if shift is None:
                shift = _shift(blocks[-1], seen.st_mtime)
            first = _first_date(blocks[-1], seen.st_mtime, shift)
            if first is not None and first < since_wall:
                break
        else:
            first = None
        data = b"".join(reversed(blocks))
        if start > 0:
            data = data.partition(b"\n")[2]                     # the line that was cut
        skipped = start if start > 0 and first is None else 0
        return data, start == 0, seen, skipped
    finally:
        os.close(handle)


def _first_date(data, modified, shift):
    """Wall seconds of the first line with a date; None where none of the first 2,000 has one."""
    dates = loglines.Dates(time.localtime(modified).tm_year, shift)
    for raw in data.split(b"\n", 2000)[:2000]:
        at, _ = dates.find(raw[:400].decode("utf-8", "replace"))
        if at is not None:
            return at
    return None


def _shift(data, modified):
    """Seconds to add to a log's local times: where its last line is dated some quarters of an hour off the file's own time."""
    last = data.rstrip(b"\n").rpartition(b"\n")[2][:400]
    at, _ = loglines.Dates(time.localtime(modified).tm_year).find(last.decode("utf-8", "replace"))
    if at is None or b"Z" in last[:40] or re.match(rb".{0,40}[+-]\d\d:?\d\d\b", last):
        return 0.0
    off = modified - at
    steps = round(off / _ZONE_STEP_S)
    return float(steps * _ZONE_STEP_S) if abs(off) <= _ZONE_MOST_S and abs(off - steps * _ZONE_STEP_S) <= _ZONE_SURE_S else 0.0


def _former(path, since_wall):
    """The path of what was rotated away last, if it was written to since then; None where there is none."""
    folder, name = os.path.split(path)
    try:
        with os.scandir(folder) as entries:
            found = [(entry.stat().st_mtime, entry.path) for entry in entries
                     if re.fullmatch(re.escape(name) + r"(?:[.-]\d{1,14}){1,2}(?:\.(?:gz|xz|bz2|zst))?", entry.name)]
    except OSError:
        return None
    newest = max(found, default=None)
    return newest[1] if newest and newest[0] >= since_wall else None
