"""What /proc says of a process, as parsed text.  Runs in a helper: another's /proc may block."""
import os
import time

_TICKS = os.sysconf("SC_CLK_TCK")


def parse_stat(text):
    """{"state": letter, "start": clock ticks since boot} of a /proc/PID/stat; the name may hold any bytes.

    Raises ValueError for anything else.  Source: proc(5), fields 3 and 22.
    """
    _, paren, rest = text.rpartition(b")")
    words = rest.split()
    if not paren or len(words) < 20:
        raise ValueError("not a stat line")
    return {"state": words[0].decode("ascii", "replace"), "start": int(words[19])}


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
