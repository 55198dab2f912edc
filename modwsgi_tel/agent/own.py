"""What a process can say of itself: CPU, memory, age, host, threads.  None where it cannot be told."""
import os
import sys
import time

try:
    from resource import RUSAGE_SELF, getrusage
except ImportError:                     # a Python built without it
    getrusage = None

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_S = os.sysconf("SC_CLK_TCK")
_READ_MOST = 4096


def cpu_s():
    """(user, system): CPU seconds of all threads of the process so far."""
    used = getrusage(RUSAGE_SELF) if getrusage is not None else None
    return (used.ru_utime, used.ru_stime) if used is not None else os.times()[:2]


def rss_bytes():
    """Resident memory.  Source: /proc/self/statm, whose second number counts pages."""
    try:
        return int(_proc("statm").split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def max_rss_bytes():
    """The most that was resident at once; of a forked process, its parent's at the fork counts too."""
    return getrusage(RUSAGE_SELF).ru_maxrss * 1024 if getrusage is not None else None


def uptime_s():
    """Seconds since the process began.  Source: /proc/self/stat, field 22: clock ticks since the machine started."""
    try:
        began = int(_proc("stat").rpartition(b")")[2].split()[19]) / _TICKS_S
    except (OSError, ValueError, IndexError):
        return None
    passed = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    return passed if passed >= 0 else None


def hostname():
    return os.uname().nodename


def live_threads():
    """Numbers, as threading has them, of the operating system's threads that have a Python frame in this interpreter.

    A server's own thread, made by C, has none while it waits for a request.
    """
    return frozenset(sys._current_frames())


def _proc(name):
    """Opened anew each time: after a fork, /proc/self is another folder."""
    file = os.open("/proc/self/" + name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, _READ_MOST)
    finally:
        os.close(file)
