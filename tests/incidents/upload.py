"""Clients that send what they have to send slowly: the threads wait for the rest of a request."""


def save(environ):
    return environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))       # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/upload":
        save(environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
