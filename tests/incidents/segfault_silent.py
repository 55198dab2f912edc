"""A segmentation fault, and nothing that would say where: what is left is Apache's own line in its log."""

import ctypes
import time


def application(environ, start_response):
    if environ["PATH_INFO"] == "/image":
        time.sleep(0.1)
        ctypes.string_at(0)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
