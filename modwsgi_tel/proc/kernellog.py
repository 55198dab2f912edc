"""What the kernel's log tells of processes that died, hung or were refused something.

Source: Documentation/ABI/testing/dev-kmsg; the texts are those of mm/oom_kill.c, arch/*/mm/fault.c, kernel/hung_task.c and others.
"""
import errno
import os
import re
import time

from modwsgi_tel.masking import masked

_PATH = "/dev/kmsg"
_RECORD_MOST = 8192                     # the kernel's own limit, else a read fails
_RECORDS_MOST = 50_000
_EVENTS_MOST = 500                      # the last ones are kept
_TEXT_MOST = 400
_LIMIT_S = 1.0

_OOM = re.compile(r"(?:out of memory|oom).*?kill(?:ed)? process (?P<pid>\d+) \((?P<name>.*?)\)(?=,? (?:UID|total-vm|score)|$)",
                  re.IGNORECASE)
_DIED = (
    re.compile(r"(?P<name>.*)\[(?P<pid>\d+)\]: segfault at "),
    re.compile(r"traps: (?P<name>.*)\[(?P<pid>\d+)\] (?:general protection|trap [a-z ]+)"),
    re.compile(r"(?P<name>.*)\[(?P<pid>\d+)\]: unhandled (?:exception|level \d|signal)"),          # aarch64
)
# What else of it may be why a server is slow or dies
_OTHER = re.compile(r"task (?P<name>.*):(?P<pid>\d+) blocked for more than|soft lockup|hung_task|page allocation failure|"
                    r"I/O error|(?:EXT4|XFS|BTRFS)[^:]*: (?:.*error|.*corrupt|.*[Rr]emounting)|nfs: server .* not responding|"
                    r"[Pp]ossible SYN flooding|nf_conntrack: .*table full|TCP: out of memory|neighbour: .* table overflow|"
                    r"Out of memory|out of memory|cgroup: fork rejected|segfault")
_ENDS_OOM = re.compile(r"oom-kill:|oom_reaper: |invoked oom-killer")    # lines around the one that names the victim


def read(since, path=_PATH, event_of=None):
    """([{"at": wall seconds, "text", "kind": "oom", "segfault" or "other", "pid", "name"}] of what the kernel logged since then, oldest
    first, one line on why that cannot be read or "").  pid and name are None where the line has none; the pid is that of the host.

    At most the last 500; what has nothing to do with processes, memory, disks and the network is left out.  Never waits.
    event_of: makes other events of a record, as parse does.
    """
    found, reason = [], ""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return [], (f"{path}: {error.strerror}; run as root, or with CAP_SYSLOG" if error.errno in (errno.EPERM, errno.EACCES)
                    else f"{path}: {error.strerror}")
    boot, deadline = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC), time.monotonic() + _LIMIT_S
    try:
        for _ in range(_RECORDS_MOST):
            if time.monotonic() > deadline:
                reason = f"{path} has more than could be read in {_LIMIT_S:.0f} s"
                break
            try:
                record = os.read(handle, _RECORD_MOST)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:              # overwritten while this read: goes on with the oldest
                    continue
                reason = f"{path}: {error.strerror}"
                break
            if not record:
                break
            event = (event_of or parse)(record, boot)
            if event is not None and event["at"] >= since:
                found.append(event)
    finally:
        os.close(handle)
    return found[-_EVENTS_MOST:], reason


def line(record, boot):
    """(wall seconds, text) of one record of /dev/kmsg; None of one that is none.  boot: wall seconds."""
    head, _, rest = record.partition(b";")
    words = head.split(b",")
    if len(words) < 3 or not words[2].isdigit():
        return None
    return boot + int(words[2]) / 1e6, rest.partition(b"\n")[0].decode("utf-8", "replace")


def parse(record, boot):
    """The event of one record, as read has it; None of one that is none, and of one that is left out."""
    found = line(record, boot)
    told = found and _told(found[1])
    return told and {"at": found[0], "text": masked(found[1])[:_TEXT_MOST], **told}


def _told(text):
    """{"kind", "pid", "name"} of a line; None of one that is left out."""
    found = _OOM.search(text)
    if found:
        return {"kind": "oom", "pid": int(found.group("pid")), "name": found.group("name")}
    for each in _DIED:
        found = each.match(text)
        if found:
            return {"kind": "segfault", "pid": int(found.group("pid")), "name": found.group("name")}
    found = None if _ENDS_OOM.search(text) else _OTHER.search(text)
    if not found:
        return None
    pid = found.group("pid")
    return {"kind": "other", "pid": int(pid) if pid else None, "name": found.group("name")}
