"""/report computes in plain Python for long: others get the GIL, but late, each time they want it."""

import json

ROWS = [{"id": number, "name": "name %d" % number} for number in range(300)]


def squares(most):
    return sum(number * number for number in range(most))       # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/report":
        body = b"%d\n" % squares(600000000)
    else:
        body = json.dumps([dict(row, more=len(row["name"])) for row in ROWS]).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
