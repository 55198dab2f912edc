"""An application that writes its answer slowly: a generator that waits between pieces."""

import time


def rows():
    for number in range(200):
        time.sleep(0.2)                         # HERE
        yield b"row %d\n" % number


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return rows() if environ["PATH_INFO"] == "/export" else [b"ok\n"]
