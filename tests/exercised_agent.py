"""A program of test_architecture: imports the agent, has it do all that it can do, and prints what was imported when.

    python3 exercised_agent.py FOLDER
"""
import sys

BEFORE = set(sys.modules)
from modwsgi_tel import agent                                                               # noqa: E402

print("others:", *sorted({name.partition(".")[0] for name in set(sys.modules) - BEFORE}))
LOADED = {name for name in sys.modules if name.startswith("modwsgi_tel")}
print("ours:", *sorted(name[len("modwsgi_tel."):] for name in LOADED))

import asyncio                                                                              # noqa: E402
import json                                                                                 # noqa: E402
import os                                                                                   # noqa: E402
import signal                                                                               # noqa: E402
import socket                                                                               # noqa: E402
import threading                                                                            # noqa: E402
import time                                                                                 # noqa: E402

FOLDER = sys.argv[1]
SECRET = "a-secret-of-a-test"


class Late:
    """Hears of each module that is looked for."""

    asked = []

    def find_spec(self, name, path=None, target=None):
        if name.startswith("modwsgi_tel"):
            self.asked.append(name)


class Collector:
    """Takes whatever comes at once: what finds the queue full is lost."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._kinds, self._changed = set(), threading.Condition()
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self):
        while True:
            kind = self._socket.recv(65536)[5]
            with self._changed:
                self._kinds.add(kind)
                self._changed.notify()

    def heard(self, *kinds):
        """Wait until a datagram of each of these kinds has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._kinds >= set(kinds), 20), set(kinds) - self._kinds


sys.meta_path.insert(0, Late())
collector = Collector(FOLDER + "/telemetry.sock")
gate = threading.Event()


@agent.timed
def timed():
    with agent.timer("t"):
        pass


def application(environ, start_response):
    timed()
    agent.annotate(step=1)
    if environ["PATH_INFO"] == "/boom":
        raise ValueError("x")
    if environ["PATH_INFO"] == "/long":
        gate.wait(20)
    start_response("200 OK", [])
    return (piece for piece in [b"ok"])


watched = agent.middleware(application, socket="unix:" + FOLDER + "/telemetry.sock", threshold=0.05, interval=0.05, locals=True, emit="on",
                           telemetry_interval=0.5, gc="on", signal="on", secret=SECRET, log=FOLDER + "/log", watchdog_folder=FOLDER)


def call(path):
    body = watched({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, lambda *told: lambda data: None)
    data = b"".join(body)
    getattr(body, "close", lambda: None)()
    return data


def asked(question):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(f"\0modwsgi-tel-agent.{os.getpid()}.0")
        client.sendall(json.dumps(question).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += client.recv(1 << 16)
    return json.loads(answer)


async def late():
    assert agent.watch_loop()
    await asyncio.sleep(0)              # the turn in which it begins is not seen
    time.sleep(0.3)
    await asyncio.sleep(0)


assert call("/") == b"ok"
try:
    call("/boom")
except ValueError:
    pass
thread = threading.Thread(target=call, args=("/long",))
thread.start()
collector.heard(130)
assert b"application" in call("/modwsgi-tel-stacks/" + SECRET)
assert "application" in agent.dump()
os.kill(os.getpid(), signal.SIGUSR2)
for question in ({"do": "stacks", "locals": True}, {"do": "state"}, {"do": "tracemalloc", "what": "start"},
                 {"do": "tracemalloc", "what": "snapshot"}, {"do": "tracemalloc", "what": "stop"}):
    answer = asked(question)
    assert "error" not in answer, (question, answer)
gate.set()
thread.join(20)
collector.heard(2, 4, 5, 8, 128, 129, 131, 132, 133, 135, 136)
child = os.fork()
if not child:
    status = 1
    try:
        status = call("/") != b"ok" or bool(Late.asked)
        agent._agent.stop()
    finally:
        os._exit(status)
assert os.waitpid(child, 0)[1] == 0
asyncio.run(late())
collector.heard(134)
agent._agent.stop()
collector.heard(6, 7)
print("late:", *sorted({name for name in sys.modules if name.startswith("modwsgi_tel")} - LOADED), *Late.asked)
