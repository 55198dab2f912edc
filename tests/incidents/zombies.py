"""Programs that are started and never waited for."""

import subprocess

STARTED = []


def thumbnail():
    STARTED.append(subprocess.Popen(["/bin/true"]))         # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/page":
        thumbnail()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
