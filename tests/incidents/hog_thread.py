"""A thread of the application's own computes all the time; no request is to blame for it."""

import json
import threading

ROWS = [{"id": number, "name": "name %d" % number} for number in range(300)]


def statistics():
    while True:
        sum(number * number for number in range(1000000))       # HERE


threading.Thread(target=statistics, name="statistics", daemon=True).start()


def application(environ, start_response):
    body = json.dumps([dict(row, more=len(row["name"])) for row in ROWS]).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
