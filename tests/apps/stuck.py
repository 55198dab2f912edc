"""A WSGI application that gets stuck in known ways, for the tests that read stacks:

/ok  /regex  /deadlock/a  /deadlock/b  /socket  /sleep  /stream

/regex holds the GIL for good.  /deadlock/a and /deadlock/b of one interpreter wait for each other, once both are there.
/socket, /sleep and /stream (after its first piece) wait without the GIL.  None of them ends by itself.
Each is stuck a few calls deep: the functions' names tell which it is.
"""

import os
import re
import socket
import threading
import time

LOCK_A, LOCK_B = threading.Lock(), threading.Lock()
HAS_A, HAS_B = threading.Event(), threading.Event()
NEVER = threading.Event()
NEAR, FAR = socket.socketpair()


def regex_outer(identity):
    return regex_inner("a" * 40 + identity)


def regex_inner(text):
    return re.match(r"(a+)+\Z", text)


def deadlock_a():
    with LOCK_A:
        HAS_A.set()
        HAS_B.wait()
        return deadlock_a_wants_b()


def deadlock_a_wants_b():
    with LOCK_B:
        return b"a\n"


def deadlock_b():
    with LOCK_B:
        HAS_B.set()
        HAS_A.wait()
        return deadlock_b_wants_a()


def deadlock_b_wants_a():
    with LOCK_A:
        return b"b\n"


def socket_outer():
    return socket_receives(NEAR)


def socket_receives(connection):
    return connection.recv(100)


def sleep_outer():
    return sleep_inner(3600.0)


def sleep_inner(seconds):
    time.sleep(seconds)
    return b"slept\n"


def stream_outer():
    yield b"first\n"
    yield from stream_inner()


def stream_inner():
    stream_waits()
    yield b"last\n"


def stream_waits():
    NEVER.wait()


def answer(environ):
    """The body, an iterable of bytes; None for a path that is not there."""
    path = environ.get("PATH_INFO", "/")
    if path == "/regex":
        regex_outer(environ.get("QUERY_STRING", "").partition("id=")[2] + "!")
        return [b"matched\n"]
    if path == "/stream":
        return stream_outer()
    work = {"/ok": lambda: b"%d\n" % os.getpid(), "/deadlock/a": deadlock_a, "/deadlock/b": deadlock_b,
            "/socket": socket_outer, "/sleep": sleep_outer}.get(path)
    return work and [work()]


def application(environ, start_response):
    body = answer(environ)
    start_response("200 OK" if body else "404 Not Found", [("Content-Type", "text/plain")])
    return body or [b"no such path\n"]
