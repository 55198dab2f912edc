"""Every request runs a full garbage collection over a large heap."""

import gc

CACHE = [{"id": number, "tags": [number]} for number in range(400000)]


def clean():
    gc.collect()                                # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/page":
        clean()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
