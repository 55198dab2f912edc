"""A lock that a thread takes a second time while it has it: it waits for itself, and all others for it."""

import threading

stock_lock = threading.Lock()
STOCK = {"tea": 1000000}


def left(name):
    with stock_lock:                            # HERE
        return STOCK[name]


def sell(name):
    with stock_lock:
        STOCK[name] -= 1
        return left(name)


def application(environ, start_response):
    body = b"%d\n" % sell("tea") if environ["PATH_INFO"] == "/sell" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
