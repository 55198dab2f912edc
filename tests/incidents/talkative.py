"""Nothing is wrong: an application that says much in its log, of errors that are its business, and of what its users write."""

import sys
import threading

LOCK = threading.Lock()
SEEN = {}


def application(environ, start_response):
    with LOCK:
        SEEN[environ["PATH_INFO"]] = SEEN.get(environ["PATH_INFO"], 0) + 1
    print("WARNING: payment was refused, error 51: timeout of the bank, tried again", file=sys.stderr)
    print("search for %r: nothing" % environ["PATH_INFO"], file=sys.stderr)
    status = "404 Not Found" if environ["PATH_INFO"] == "/nowhere" else "200 OK"
    start_response(status, [("Content-Type", "text/plain")])
    return [b"ok\n"]
