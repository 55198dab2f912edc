"""Nothing is wrong: requests that compute for some 10 ms, on several processes, half of the time."""

import hashlib
import json


def page():
    rows = [{"id": number, "hash": hashlib.sha256(b"%d" % number).hexdigest()} for number in range(2000)]
    return json.dumps(rows).encode()


def application(environ, start_response):
    body = page() if environ["PATH_INFO"] == "/page" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
