"""What is slow is three calls below the application, in another file."""

import deep_work


def page(environ):
    return deep_work.front(environ["PATH_INFO"])


def application(environ, start_response):
    body = page(environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
