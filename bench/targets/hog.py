"""The GIL held for good: one thread is in a regular expression that does not end, the others wait.  Runs on Python 3.8
and later.

    python hog.py

The first line on stdout is the truth: {"frames": {native thread id: [[function, file, line], ...]}, "holder": tid}, innermost
first.  Nothing of Python runs after it.  It is ended by a signal, and ends after ten minutes.
"""
import re
import signal
import sys
import threading
import time

from truth import function_of, lines_of, parked, settle, tell


def waits_for_a_lock(lock):
    lock.acquire()


def waits_for_the_gil():
    while True: time.sleep(0.01)            # noqa: E701  one line, wherever it is found


def truth(own):
    """What is told of all frames, with the one that is about to come: `re.match` is written in Python."""
    frames = parked(own)
    code = re.match.__code__
    here = threading.get_native_id()
    frames[here].insert(0, [function_of(code), code.co_filename, lines_of(code)[-1]])
    return {"frames": frames, "holder": here}


def holds_the_gil(threads, but):
    settle(threads, but)
    tell(**truth(sys._getframe())), re.match(r"(a+)+b", "a" * 40)


def main():
    lock = threading.Lock()
    lock.acquire()
    waking = threading.Thread(target=waits_for_the_gil, name="wakes up")
    parkers = [threading.Thread(target=waits_for_a_lock, args=(lock,), name="parked %d" % each) for each in range(3)]
    for each in [waking] + parkers:
        each.start()
    holder = threading.Thread(target=holds_the_gil, args=(len(parkers) + 2, (waking.native_id,)), name="holder")
    holder.start()
    lock.acquire()


if __name__ == "__main__":
    signal.alarm(600)
    main()
