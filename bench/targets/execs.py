"""Code objects that are made, run and freed all the time, so that one takes another's place in memory.  Runs on
Python 3.8 and later.

    python execs.py [THREADS]

Each function made is called `made_NUMBER`, its code's file is `<NUMBER>` and its lines are from NUMBER * 10 + 1 on: names
that do not agree are a mixture of two.  `truth.made_wrong` says so.  The first line on stdout tells which functions may be
outermost in which thread.  Each newline on stdin is answered with the work done so far.  It ends with its stdin, and after
ten minutes.
"""
import _thread
import os
import signal
import sys
import time

from truth import tell

NUMBERS = 97


def made(number):
    """A function of this number, new."""
    space = {}
    exec(compile("\n" * (number * 10) + "def made_%d(call):\n    call()\n    return %d\n" % (number, number),
                 "<%d>" % number, "exec"), space)
    return space["made_%d" % number]


def rest():
    """Lets other threads run, so that a stack can be read while it holds still."""
    time.sleep(0.0005)


def worker(number, ids, done):
    ids[_thread.get_native_id()] = ["worker"]
    turn = number
    while True:
        turn = (turn * 31 + 7) % NUMBERS
        made(turn)(lambda: made((turn + 1) % NUMBERS)(rest))
        done[number] += 1


def main(threads):
    done, outermost = [0] * threads, {_thread.get_native_id(): ["<module>"]}
    for number in range(threads):
        _thread.start_new_thread(worker, (number, outermost, done))
    while len(outermost) <= threads:
        time.sleep(0.001)
    tell(outermost=outermost)
    while os.read(0, 1):
        tell(done=sum(done))
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(600)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
