"""A WSGI application whose requests wait for good, each kind of callable once; it says in the error log who it is:

/function  /class  /closure  /stream  /stream-with-environ  /wrapped  /ok
"""

import threading

NEVER = threading.Event()


def waits():
    NEVER.wait()


def says(environ):
    environ["wsgi.errors"].write("here %s %s %s\n" % (environ["PATH_INFO"], environ["mod_wsgi.request_id"], environ["mod_wsgi.thread_id"]))
    environ["wsgi.errors"].flush()


def function(these, start):
    says(these)
    waits()


class Application:
    def __call__(self, e, s):
        says(e)
        waits()


def closure(these, start_response):
    def inner():
        says(these)
        waits()
    inner()


def stream(environ, start_response):
    says(environ)
    start_response("200 OK", [])
    return pieces()


def pieces():
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/of-another-kind"}
    yield environ and b"first\n"
    waits()


def stream_with_environ(environ, start_response):
    says(environ)
    start_response("200 OK", [])
    yield b"first\n"
    waits()


def wrapped(environ, start_response):
    def middleware(application):
        def wrapper(*args, **kwargs):
            return application(*args, **kwargs)
        return wrapper
    return middleware(middleware(function))(environ, start_response)


KINDS = {"/function": function, "/class": Application(), "/closure": closure, "/stream": stream,
         "/stream-with-environ": stream_with_environ, "/wrapped": wrapped}


class Dispatch:
    def __call__(self, its, start):
        kind = KINDS.get(its["PATH_INFO"])
        if kind is None:
            start("200 OK", [])
            return [b"ok\n"]
        return kind(its, start)


application = Dispatch()
