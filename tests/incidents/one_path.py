"""One slow path among fast ones."""

import time


def statistics():
    time.sleep(1.5)                             # HERE
    return b"many\n"


def application(environ, start_response):
    body = statistics() if environ["PATH_INFO"] == "/statistics" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
