"""A regular expression that backtracks: /match?id=7 keeps the GIL for minutes, and everything else stands still."""

import re


def is_list_of_names(text):
    return re.match(r"(\w+,?)+;", text)         # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/match":
        is_list_of_names("a" * 40 + environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
