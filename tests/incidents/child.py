"""A request waits for a program that it has started."""

import subprocess


def render():
    return subprocess.run(["/bin/sleep", "8"], stdout=subprocess.PIPE).stdout       # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/render":
        render()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
