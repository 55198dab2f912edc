"""What /proc says of a process, as parsed text.  Runs in a helper: another's /proc may block."""
import os
import time
from collections import namedtuple

_TICKS = os.sysconf("SC_CLK_TCK")
_KERNEL = 0x00200000                # PF_KTHREAD

Stat = namedtuple("Stat", "name state parent kernel cpu_ticks start stack threads rss_pages", defaults=(0, 0))
Stat.__doc__ = """One process or thread.  name: text, at most 15 bytes.  state: a letter.  parent: a pid.  kernel: whether it is
the kernel's own.  cpu_ticks: used, user and system, in clock ticks.  start: in clock ticks since boot.
stack: where its stack begins, which each exec makes anew; 0 for who may not know.  threads: of the whole process.
rss_pages: its resident memory, in pages."""


def parse_stat_line(text):
    """The Stat of a /proc/PID/stat or /proc/PID/task/TID/stat; the name may hold any bytes.

    Raises ValueError for anything else.  Source: proc(5), fields 2, 3, 4, 9, 14, 15, 20, 22, 24 and 28.
    """
    before, paren, rest = text.rpartition(b")")
    words = rest.split()
    if not paren or len(words) < 20:
        raise ValueError("not a stat line")
    return Stat(before.partition(b"(")[2].decode("utf-8", "replace"), words[0].decode("ascii", "replace"), int(words[1]),
                bool(int(words[6]) & _KERNEL), int(words[11]) + int(words[12]), int(words[19]),
                int(words[25]) if len(words) > 25 else 0, int(words[17]), int(words[21]) if len(words) > 21 else 0)


def parse_stat(text):
    """{"state": letter, "start": clock ticks since boot} of a /proc/PID/stat.  Raises ValueError for anything else."""
    stat = parse_stat_line(text)
    return {"state": stat.state, "start": stat.start}


def read(path, most):
    """At most `most` bytes of a file.  Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts, left = [], most
        while left:                                         # seq files come in pages
            part = os.read(handle, left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
    finally:
        os.close(handle)
    return b"".join(parts)


def stat(pid, root="/proc"):
    """The Stat of a process.  Raises OSError, and ValueError where it is no stat line."""
    return parse_stat_line(read(f"{root}/{pid}/stat", 4096))


def pids(root="/proc"):
    """The pids that /proc shows, sorted.  Raises OSError."""
    return sorted(int(name) for name in os.listdir(root) if name.isdecimal() and name.isascii())


def is_visible(root="/proc"):
    """Whether there is a /proc at all."""
    return os.path.exists(f"{root}/self/stat")


def hides(text, place="/proc"):
    """The value of hidepid with which a /proc is mounted, as text; "" when it hides nothing.  text: a /proc/PID/mounts."""
    found = ""
    for line in text.splitlines():                          # the last mount on a place covers those before
        words = line.split()
        if len(words) >= 4 and words[1] == place.encode() and words[2] == b"proc":
            values = [word[8:] for word in words[3].split(b",") if word.startswith(b"hidepid=")]
            found = values[0].decode("ascii", "replace") if values and values[0] not in (b"0", b"off") else ""
    return found


def hidden(root="/proc"):
    """hides() for the /proc in use; "" where that cannot be told."""
    try:
        return hides(read(f"{root}/self/mounts", 1 << 20), root)
    except OSError:
        return ""


def parse_nspids(text):
    """The pids of a process in its namespaces, outermost first, out of a /proc/PID/status; () when it has none."""
    for line in text.splitlines():
        if line.startswith(b"NSpid:"):
            return tuple(int(word) for word in line[6:].split())
    return ()


def sender(pid, root="/proc"):
    """{"alive", "start", "nspids", "age_s"} of a pid; alive None and the rest empty where /proc cannot tell."""
    unknown = {"alive": None, "start": None, "nspids": [], "age_s": None}
    try:
        with open(f"{root}/{pid}/stat", "rb") as handle:
            stat = parse_stat(handle.read(4096))
        with open(f"{root}/{pid}/status", "rb") as handle:
            nspids = parse_nspids(handle.read(65536))
    except (FileNotFoundError, ProcessLookupError):
        # hidepid shows nothing of others, and no /proc nothing at all: then nobody is gone
        visible = os.path.exists(f"{root}/1/stat") and os.path.exists(f"{root}/self/stat")
        return {**unknown, "alive": False} if visible else unknown
    except (OSError, ValueError):
        return unknown
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - stat["start"] / _TICKS
    return {"alive": stat["state"] not in "ZX", "start": stat["start"], "nspids": list(nspids), "age_s": age}


def senders(pids):
    """{pid as text: sender(pid)}."""
    return {str(pid): sender(pid) for pid in pids}
