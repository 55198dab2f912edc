"""Requests wait for the lock of a file, which another process has and keeps."""

import fcntl
import os


def count():
    with open(os.environ["STAGE_FILE"], "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)        # HERE
        return file.read().encode()


def application(environ, start_response):
    body = count() if environ["PATH_INFO"] == "/count" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
