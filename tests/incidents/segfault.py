"""C code that is called wrongly: /image ends the process by a segmentation fault; Apache answers 500 for all requests inside."""

import ctypes
import faulthandler
import time

faulthandler.enable(2)                  # Apache's error log


def thumbnail():
    return ctypes.string_at(0)                  # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/image":
        time.sleep(0.1)
        thumbnail()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
