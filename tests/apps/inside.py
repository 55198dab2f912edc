"""A WSGI application with the agent inside, for any server.  A path, and what it does:

/  /404  /500  /raise  /slow?S  /cpu?S  /stream?S  /read  /fork  /fork-exits  /multiprocessing  /subprocess  /forks?N
/modules  /dump  /group

MODWSGI_TEL_TEST_PATH is where modwsgi_tel is: a folder, or that in the built file; without it there is no agent.  S is seconds.
"""
import os
import sys
import time

if "MODWSGI_TEL_TEST_PATH" in os.environ:
    sys.path.insert(0, os.environ["MODWSGI_TEL_TEST_PATH"])
    from modwsgi_tel import agent
else:
    agent = None


def seconds(environ, default):
    return float(environ.get("QUERY_STRING") or default)


def sleeps(duration):
    time.sleep(duration)


def burns(duration):
    end = time.thread_time() + duration
    while time.thread_time() < end:
        pass


def raises():
    raise LookupError("deliberate")


def streams(duration):
    for _ in range(4):
        sleeps(duration / 4)
        yield b"x" * 1000


def child(work):
    """Run `work` in a fork of this process, which ends by os._exit; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            status = work() or 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finalizes():
    """What a child does that ends as a program of its own."""
    import atexit
    import threading
    threading._shutdown()
    atexit._run_exitfuncs()
    return 3


def of_multiprocessing():
    import multiprocessing
    process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(4,))
    process.start()
    process.join(20)
    return process.exitcode


def of_subprocess():
    import subprocess
    return subprocess.run([sys.executable if "python" in sys.executable else "/usr/bin/python3", "-c", "raise SystemExit(5)"],
                          timeout=20).returncode


def forks(environ):
    return " ".join(str(child(lambda: None)) for _ in range(int(seconds(environ, 1))))


def modules(environ):
    import json
    return json.dumps(sorted(sys.modules))


TEXTS = {
    "/fork": lambda environ: child(lambda: 2),
    "/fork-exits": lambda environ: child(finalizes),
    "/multiprocessing": lambda environ: of_multiprocessing(),
    "/subprocess": lambda environ: of_subprocess(),
    "/forks": forks,
    "/modules": modules,
    "/dump": lambda environ: agent.dump(),
    "/slow": lambda environ: sleeps(seconds(environ, 1)),
    "/cpu": lambda environ: burns(seconds(environ, 0.05)),
    "/raise": lambda environ: raises(),
    "/read": lambda environ: len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))),
}
STATUSES = {"/404": "404 Not Found", "/500": "500 Internal Server Error"}


def answer(environ, start_response):
    path = environ["PATH_INFO"]
    body = ("%s" % TEXTS.get(path, lambda environ: "pid %d" % os.getpid())(environ)).encode()
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return streams(seconds(environ, 1))
    start_response(STATUSES.get(path, "200 OK"), [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


application = answer if agent is None else agent.middleware(answer)
