"""A process for the tests of the collector: it tells telemetry of itself and is stuck in a request, as mod_wsgi's daemons are.

    python stuck_sender.py SOCKET PID SLOW

PID: what its datagrams say, 0 for its own.  SLOW: yes sends a slow_request with the log id "id-1".  It ends at the end of stdin.
"""

import os
import socket
import sys
import threading
import time
from _thread import start_new_thread

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

from builders import Worker             # noqa: E402


def waits_for_a_lock(event):
    event.wait()


def application(environ, start_response):
    threading.current_thread().name = "request"
    waits_for_a_lock(environ["never"])


def main(path, pid, slow):
    worker = Worker(int(pid) or os.getpid(), group="stuck")
    environ = {"mod_wsgi.request_id": "id-1", "mod_wsgi.thread_id": 1, "wsgi.version": (1, 0), "REQUEST_METHOD": "GET",
               "SCRIPT_NAME": "", "PATH_INFO": "/slow", "never": threading.Event(), "secret": "swordfish"}
    start_new_thread(application, (environ, None))      # as mod_wsgi calls it: with nothing around it
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        def tell():
            while True:
                sender.sendto(worker.tick(1, stamp=time.time()), path)
                if slow == "yes":
                    sender.sendto(worker.slow("id-1", stamp=time.time()), path)
                time.sleep(0.3)

        sender.sendto(worker.started(), path)
        threading.Thread(target=tell, daemon=True).start()
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
