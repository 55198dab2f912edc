"""Requests that never come back: request-timeout ends the process with all that it does."""

import time


def work():
    time.sleep(3600)                            # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/work":
        work()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
