"""A program to be looked at again and again, which does what it is told to."""
import contextlib
import subprocess
import sys

from running import clean_environment

PROGRAM = """
import subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

def spin():
    while True:
        pass

def parked():
    threading.Event().wait()

def start(function):
    threading.Thread(target=function, name=function.__name__, daemon=True).start()

def child():
    return subprocess.Popen([sys.executable, "-c", "import time\\ndef in_the_child(): time.sleep(60)\\nin_the_child()"])

def obey():
    print("ready", flush=True)
    for line in sys.stdin:
        exec(line, globals())
        print("done", flush=True)

pool = ThreadPoolExecutor(1)
pool.submit(int).result()
start(parked)
obey()
"""


class Target:
    """The program above, started; `do(line)` has it run a line of Python."""

    def __init__(self, python=sys.executable):
        self.process = subprocess.Popen([python, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=clean_environment(), universal_newlines=True)
        self.pid = self.process.pid
        assert self.process.stdout.readline() == "ready\n"

    def do(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


@contextlib.contextmanager
def target(python=sys.executable):
    started = Target(python)
    try:
        yield started
    finally:
        started.end()
