"""Threads that are parked in sub-interpreters: with a GIL of their own where Python knows that (3.12), and without.  Runs
on Python 3.8 and later.

    python subs.py

The first line on stdout is the truth: {"parts": {native thread id: [[interpreter, [[function, file, line], ...]], ...]}},
innermost first: a thread that calls into a sub-interpreter has frames in both.  It ends with its stdin, and after ten minutes.
"""
import json
import os
import signal
import sys
import threading

from truth import frames_of, settle, tell

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

FOLDER = os.path.dirname(os.path.abspath(__file__))
INSIDE = """
import json, os, sys
sys.path.insert(0, %(folder)r)
from truth import frames_of

def told(own):
    return (json.dumps([%(number)d, %(interpreter)d, frames_of(own)]) + "\\n").encode()

def inside(depth):
    if depth:
        return inside(depth - 1)
    os.write(%(say)d, told(sys._getframe())), os.read(%(wait)d, 1)

def parts(depth):
    yield inside(depth)

for each in parts(%(depth)d):
    pass
"""


def created(own_gil):
    """The id of a new interpreter.  Before Python 3.12 all have one GIL."""
    if sys.version_info >= (3, 13):
        return interpreters.create("isolated" if own_gil else "legacy")
    if sys.version_info >= (3, 12):
        return interpreters.create(isolated=own_gil)
    return interpreters.create()


def runs(number, say, wait, said):
    # created in the thread that runs it: up to 3.12 the frames count as the creator's, for Python itself as well
    interpreter = created(own_gil=number == 0)
    script = INSIDE % {"folder": FOLDER, "number": number, "interpreter": int(interpreter), "say": say, "wait": wait,
                       "depth": 3 * number + 2}
    said[number] = [threading.get_native_id(), frames_of(sys._getframe())]; interpreters.run_string(interpreter, script)    # noqa: E702


def main():
    heard, say = os.pipe()
    wait, _ = os.pipe()
    said = {}
    threads = [threading.Thread(target=runs, args=(number, say, wait, said), name="runs %d" % number) for number in range(2)]
    for each in threads:
        each.start()
    parts = {}
    with os.fdopen(heard) as lines:
        for _ in threads:
            number, interpreter, frames = json.loads(lines.readline())
            tid, outer = said[number]
            parts[tid] = [[interpreter, frames], [0, outer]]
    settle(len(threads))
    parts[threading.get_native_id()] = [[0, frames_of(sys._getframe())]]; tell(parts=parts), os.read(0, 1)      # noqa: E702
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(600)
    main()
