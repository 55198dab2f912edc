"""The service behind a client library with a timeout, which waits in poll()."""

import os
import urllib.request

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
URL = "http://127.0.0.1:%s/price" % os.environ["STAGE_BACKEND"]


def price():
    with OPENER.open(URL, timeout=30.0) as answer:      # HERE
        return answer.read()


def application(environ, start_response):
    body = price() if environ["PATH_INFO"] == "/price" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
