"""Nothing is wrong: most requests are quick, some ask something that takes 0.3 s; /poll waits 5 s, for that is what it is for.

/stream sends 4 MB in pieces.
"""

import time


def query():
    time.sleep(0.3)


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/query":
        query()
    elif path == "/poll":
        time.sleep(5.0)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"x" * 16384 for _ in range(256)) if path == "/stream" else [b"ok\n"]
