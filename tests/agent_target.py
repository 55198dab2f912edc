"""A process for the tests of who asks agents: requests that are stuck, and an agent's socket and watchdog, without its other parts.

    python agent_target.py FOLDER TIMEOUT HOW [NUMBER...]

FOLDER: of the watchdog's file.  TIMEOUT: of the watchdog.  HOW: stuck (requests that wait for a lock), or regex: what holds the GIL
from the first line of stdin on.  NUMBER: of agents that answer as if in further interpreters; a path is the telemetry socket on which
the first agent announces itself.  It says a line of JSON when it is ready, and ends at the end of stdin.
"""
import json
import os
import re
import select
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from modwsgi_tel.agent import threads                       # noqa: E402
from modwsgi_tel.agent.control import PREFIX, Control       # noqa: E402
from modwsgi_tel.agent.requests import Requests             # noqa: E402
from modwsgi_tel.agent.settings import read                 # noqa: E402
from modwsgi_tel.agent.watchdog import Watchdog             # noqa: E402
from modwsgi_tel.wire.codec import encode, named            # noqa: E402
from modwsgi_tel.wire.fields import AGENT_FLAG, AGENT_STATE     # noqa: E402

LIMIT_S = 60                            # then it ends, whatever its parent does
LOCK = threading.Lock()
CATASTROPHE = "a" * 40 + "b"


def waits_for_the_lock(number):
    password = "swordfish" + str(number)
    with LOCK:
        return password


def application(environ):
    return waits_for_the_lock(environ["number"])


def holds_the_gil():
    return re.match(r"(a+)+$", CATASTROPHE)


def announce(path, file):
    from builders import Worker
    worker = Worker(os.getpid(), group="inside")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for datagram in (worker.started(), worker.tick(1), encode(AGENT_STATE, os.getpid(), 1, time.time(), named(
                agent_version="1", agent_watchdog_file=file), AGENT_FLAG)):
            sender.sendto(datagram, path)


def main(folder, timeout, how, *more):
    numbers = [each for each in more if each.isdigit()]
    requests, settings = Requests(), read({"locals": True}, {})
    watchdog = Watchdog(folder, 0, float(timeout), requests)

    def answer(request):
        if request["do"] == "stacks":
            return threads.answer(requests, settings, request.get("locals") is True)
        if request["do"] == "state":
            return {"state": {"agent_watchdog_file": watchdog.path}}
        raise ValueError("no such question")

    controls = [Control(f"{PREFIX}.{os.getpid()}.{number}", answer, "/nonexistent") for number in (0, *numbers)]

    def monitors():
        while True:
            poll = select.poll()
            owner = {}
            for control in controls:
                for number, events in control.descriptors().items():
                    poll.register(number, events)
                    owner[number] = control
            for number, events in poll.poll(200):
                owner[number].ready(number, events)
            for control in controls:
                control.run(time.monotonic())
            watchdog.run(time.monotonic(), bool(requests.active))
            watchdog.picked()

    def serves(number):
        requests.begin({"REQUEST_METHOD": "GET", "PATH_INFO": f"/slow/{number}", "number": number, "mod_wsgi.request_id": f"id-{number}"})
        ready.release()
        application({"number": number})

    ready = threading.Semaphore(0)
    LOCK.acquire()
    for number in range(3):
        threading.Thread(target=serves, args=(number,), name=f"request-{number}", daemon=True).start()
        ready.acquire()
    threading.Thread(target=monitors, name="monitor", daemon=True).start()
    for path in set(more) - set(numbers):
        announce(path, watchdog.path)
    print(json.dumps({"names": [control.name for control in controls], "file": watchdog.path}), flush=True)
    threading.Timer(LIMIT_S, os._exit, (1,)).start()
    if how == "regex":
        sys.stdin.readline()
        watchdog.arm(time.monotonic())
        holds_the_gil()
    sys.stdin.read()
    watchdog.close()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
