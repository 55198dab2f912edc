"""One lock, many that want it: the request that has it asks something that takes seconds."""

import threading
import time

cache_lock = threading.Lock()
CACHE = {}


def rates_of_today():
    time.sleep(3.0)
    return {"EUR": 1.0}


def rates():
    with cache_lock:                            # WAITS
        CACHE["rates"] = rates_of_today()       # HOLDS
        return CACHE["rates"]


def application(environ, start_response):
    if environ["PATH_INFO"] == "/rates":
        rates()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
