"""Threads that wait, each so many frames deep.  Runs on Python 3.8 and later.

    python parked.py [THREADS [FRAMES]]

The first line on stdout is the truth: {"frames": {native thread id: [[function, file, line], ...]}}, innermost first; the
main thread's come on top.  It ends with its stdin, and after ten minutes.
"""
import os
import signal
import sys
import threading

from truth import parked, settle, tell

GATE = threading.Lock()


def deeper(left):
    if left:
        return deeper(left - 1)
    GATE.acquire()


def main(threads, frames):
    GATE.acquire()
    for _ in range(threads):
        # three frames are threading's own, and one is the last call of `deeper`
        threading.Thread(target=deeper, args=(frames - 4,), daemon=True).start()
    settle(threads)
    tell(frames=parked(sys._getframe())), os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(600)
    main(*map(int, sys.argv[1:] + ["10", "18"][len(sys.argv) - 1:]))
