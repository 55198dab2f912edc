"""A WSGI application for the tests of the agent under mod_wsgi 6:

/ok  /error  /slow  /stream  /rlock/a  /rlock/b  /convoy  /regex  /secrets  /ignored/slow  /go

/slow?s=SECONDS sleeps; it and /stream are annotated.  /stream waits after its first piece until somebody asks for /go.
/rlock/a and /rlock/b of one interpreter wait for each other, once both are there, and never end.  The first /convoy holds a
lock until /go, further ones wait for it.  /regex?s=SECONDS holds the GIL at least so long.
"""
import os
import re
import threading
import time

try:
    from modwsgi_tel import agent
except ImportError:                     # the same without it
    agent = None

LOCK_A, LOCK_B, CONVOY = threading.RLock(), threading.RLock(), threading.RLock()
HAS_A, HAS_B, GO = threading.Event(), threading.Event(), threading.Event()
PATTERN = r"(?!(?:a+)+\Z)"


def annotate(**values):
    if agent is not None:
        agent.annotate(**values)


def rlock_a():
    with LOCK_A:
        HAS_A.set()
        HAS_B.wait()
        return rlock_a_wants_b()


def rlock_a_wants_b():
    with LOCK_B:
        return b"a\n"


def rlock_b():
    with LOCK_B:
        HAS_B.set()
        HAS_A.wait()
        return rlock_b_wants_a()


def rlock_b_wants_a():
    with LOCK_A:
        return b"b\n"


def convoy():
    with CONVOY:
        return holds_while_others_wait()


def holds_while_others_wait():
    while not GO.is_set():
        time.sleep(0.05)
    return b"through\n"


def catastrophe(seconds):
    """Hold the GIL: each letter more takes twice as long, and so does the pattern twice."""
    letters, took_s = 14, 0.0
    while took_s < 0.1:
        letters += 1
        took_s = matched(PATTERN, "a" * letters + "b")
    matched(PATTERN * int(seconds / took_s + 1), "a" * letters + "b")
    return b"matched\n"


def matched(pattern, text):
    """CPU seconds that it took."""
    compiled = re.compile(pattern)
    began = time.thread_time()
    compiled.match(text)
    return time.thread_time() - began


def slow(seconds):
    annotate(customer="Ann", items=7)
    sleeps(seconds)
    return b"slept\n"


def sleeps(seconds):
    time.sleep(seconds)


def secrets(shown, password):
    token = "tiger" + shown
    card = {"api_key": "leopard", "number": 4711}
    sleeps(1.0)
    return b"%d\n" % len(token + password + str(card))


def stream():
    annotate(kind="stream")
    yield b"first\n"
    stream_waits()
    yield b"last\n"


def stream_waits():
    GO.wait(20.0)


def fails():
    return {}["nothing of this name"]


def answer(path, seconds):
    """The body, an iterable of bytes; None for a path that is not there."""
    if path in ("/stream", "/convoy"):
        GO.clear()
    if path == "/stream":
        return stream()
    if path == "/go":
        GO.set()
    work = {"/ok": lambda: b"%d\n" % os.getpid(), "/go": lambda: b"went\n", "/slow": lambda: slow(seconds), "/error": fails,
            "/rlock/a": rlock_a, "/rlock/b": rlock_b, "/convoy": convoy, "/regex": lambda: catastrophe(seconds),
            "/secrets": lambda: secrets("visible", "panther"), "/ignored/slow": lambda: slow(seconds)}.get(path)
    return work and [work()]


def application(environ, start_response):
    seconds = float(environ.get("QUERY_STRING", "").partition("s=")[2] or 1.0)
    body = answer(environ.get("PATH_INFO", "/"), seconds)
    start_response("200 OK" if body else "404 Not Found", [("Content-Type", "text/plain")])
    return body or [b"no such path\n"]
