"""Two locks taken in opposite order: /pay and /refund, at the same time, wait for each other for ever."""

import threading
import time

accounts, journal = threading.Lock(), threading.Lock()


def pay():
    with accounts:
        time.sleep(0.2)
        with journal:                           # HERE
            return b"paid\n"


def refund():
    with journal:
        time.sleep(0.2)
        with accounts:                          # HERE
            return b"refunded\n"


def application(environ, start_response):
    body = {"/pay": pay, "/refund": refund}.get(environ["PATH_INFO"], lambda: b"ok\n")()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
