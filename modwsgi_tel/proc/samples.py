"""A cheap look at each of many processes: what telemetry does not carry.  Runs in a helper: another's /proc may block.

    look([[pid, whether to ask for its pss], ...]) -> {pid as text: {
        "start" (clock ticks since boot), "at" (monotonic s), "state" (a letter), "wait", "threads", "voluntary_switches",
        "involuntary_switches", "files", "files_limit", "pss_bytes" (where it was asked for), "unknown": {"files" or "pss": reason}}}

state: T or Z where the whole process is stopped or ended, else D where one of its threads is, else R where one is, else its main
thread's; wait: where that thread waits, as `proc.threads.wait` has it.  Of a process with more than THREADS_MOST threads only the
main one is looked at, and its switches are not known.  What may not be read is None; a process that has gone is left out.
"""
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import details, mappings, procfs, threads
from modwsgi_tel.proc.parts import Parts

THREADS_MOST = 128
PSS_MOST = 512 << 20                # bytes resident: to count them takes the kernel 5 ms, in which it holds the memory's lock
_LIMIT = b"\nMax open files "


def look(wanted, root="/proc"):
    found = {}
    for pid, with_pss in wanted:
        try:
            found[str(pid)] = _sample(Parts(pid, root), with_pss)
        except (TelError, ValueError, IndexError):          # it has gone
            continue
    return found


def _sample(parts, with_pss):
    words = parts.stat().rpartition(b")")[2].split()
    letter, count = words[0].decode("ascii", "replace"), int(words[17])
    status = parts.read("status", "status") or b""
    told = details.scheduled(parts, count, status, run_queue=False) if count <= THREADS_MOST else {}
    states, tid = told.get("states", {}), parts.pid
    if letter not in "TtZXx":
        letter = "D" if "D" in states else "R" if "R" in states else letter
        tid = told.get("disk") or tid
    files = parts.attempt("files", "fd", details.count_files)
    found = {"start": int(words[19]), "at": time.monotonic(), "state": letter, "wait": _wait(parts, tid, letter), "threads": count,
             "voluntary_switches": told.get("voluntary_switches"), "involuntary_switches": told.get("involuntary_switches"),
             "files": files, "files_limit": _limit(parts.read("limits", "limits") or b"")}
    if with_pss:
        found["pss_bytes"] = _pss(parts, status)
    found["unknown"] = {part: parts.unknown[part] for part in ("files", "pss") if part in parts.unknown}
    return found


def _wait(parts, tid, letter):
    """Who may not know reads "0" and nothing."""
    folder, told = f"{parts.folder}/task/{tid}", []
    for name in ("wchan", "syscall"):
        try:
            told.append(procfs.read(f"{folder}/{name}", 256))
        except OSError:
            told.append(b"")
    where = told[0].decode("ascii", "replace").strip()
    return threads.wait(threads.Task(tid, tid, "", letter, 0, where if where != "0" else None, threads.parse_syscall(told[1])))


def _limit(text):
    """The soft limit of open files; None: unlimited, or not told."""
    at = text.find(_LIMIT)
    word = text[at + len(_LIMIT):].split(None, 1)[:1] if at >= 0 else []
    return int(word[0]) if word and word[0].isdigit() else None


def _pss(parts, status):
    at = status.find(b"\nVmRSS:")
    if at < 0 or int(status[at + 7:].split(None, 1)[0]) * 1024 > PSS_MOST:
        return None
    found = mappings.quick(parts.pid, parts.root)
    if found["pss_bytes"] is None:
        parts.unknown["pss"] = found["unknown"].get("mappings", "")
    return found["pss_bytes"]
