"""The log goes to a pipe that nobody empties: one thread is in write(), the others want the lock that it has."""

import logging
import os

logging.getLogger().addHandler(logging.StreamHandler(open(os.environ["STAGE_PIPE"], "w")))


def note(text):
    logging.warning("%s", text)                 # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/page":
        for _ in range(100):
            note("x" * 2000)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
