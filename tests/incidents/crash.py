"""A crash loop: each fourth request to /page ends its process, without a word."""

import itertools
import os

NUMBERS = itertools.count(1)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/page" and next(NUMBERS) % 4 == 0:
        os._exit(3)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
