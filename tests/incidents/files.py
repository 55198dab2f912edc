"""Descriptors leak: each request opens a file, and nobody closes it."""

LOGS = []


def note(text):
    LOGS.append(open(__file__, "rb"))           # HERE
    return LOGS[-1].read(len(text))


def application(environ, start_response):
    body = note("a page") if environ["PATH_INFO"] == "/page" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
