"""The leak in an attribute of a class: rows by a key that never comes twice."""

import itertools

NUMBERS = itertools.count()


class Session:
    known = {}

    def __init__(self, size):
        self.rows = ["row %d" % number for number in range(size // 60)]
        self.known[next(NUMBERS)] = self        # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/page":
        Session(int(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
