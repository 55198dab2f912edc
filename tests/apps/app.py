"""The WSGI application that the Apache of the tests serves: / /slow?S /cpu?S /err /404 /hang

S is seconds.  /hang never ends by itself.
"""

import os
import threading
import time


def seconds(environ, default):
    try:
        return float(environ.get("QUERY_STRING") or default)
    except ValueError:
        return default


def burn(duration):
    end = time.thread_time() + duration
    value = 0
    while time.thread_time() < end:
        for _ in range(1000):
            value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return value


def application(environ, start_response):
    path = environ.get("PATH_INFO", "/")
    status = "200 OK"
    if path == "/slow":
        time.sleep(seconds(environ, 1.0))
    elif path == "/cpu":
        burn(seconds(environ, 0.05))
    elif path == "/err":
        raise RuntimeError("deliberate")
    elif path == "/hang":
        threading.Event().wait()
    elif path == "/404":
        status = "404 Not Found"
    body = b"%s from %d\n" % (status.encode(), os.getpid())
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
