"""A memory leak: what each request makes stays in a list for ever."""

HISTORY = []


def remember(environ):
    HISTORY.append(bytearray(int(environ["QUERY_STRING"])))     # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/page":
        remember(environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
