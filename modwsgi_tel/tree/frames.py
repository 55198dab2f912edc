"""Of a stack what people look for: where the application is, and whether a server's own code leads to it."""

LIBRARIES = ("/lib/python", "/lib64/python", "/site-packages/", "/dist-packages/", "modwsgi_tel/agent/")
# Files in which a WSGI server calls the application, in a thread that it made itself with Python's threading.
SERVERS = ("gunicorn/workers/sync.py", "gunicorn/workers/gthread.py", "gunicorn/workers/base_async.py", "waitress/task.py",
           "cheroot/wsgi.py", "cheroot/server.py", "wsgiref/handlers.py", "werkzeug/serving.py", "socketserver.py",
           "gevent/pywsgi.py", "eventlet/wsgi.py", "tornado/wsgi.py", "a2wsgi/wsgi.py", "asgiref/wsgi.py", "paste/httpserver.py",
           "hypercorn/app_wrappers.py", "twisted/web/wsgi.py")
PLACE_MOST = 100                        # letters of the end of a file's name, and of a function's


def is_application(frame):
    """Whether a frame is of no library: neither Python's, nor one that is installed."""
    return not frame.file.startswith("<frozen ") and not any(part in frame.file for part in LIBRARIES)


def of_application(frames):
    """The innermost frame of the application, or without any the innermost one; None of no frames.  frames: innermost first."""
    return next(filter(is_application, frames), frames[0] if frames else None)


def outermost(frames):
    """The outermost frame of the application, or without any the outermost one; None of no frames."""
    return next(filter(is_application, reversed(frames)), frames[-1] if frames else None)


def is_background(frames):
    """Whether threading made the thread: who runs a server that is written in C makes its own."""
    return bool(frames) and frames[-1].function.rpartition(".")[2] == "_bootstrap" and _ends(frames[-1].file, "threading.py")


def is_server(frame):
    return any(_ends(frame.file, end) for end in SERVERS)


def _ends(path, end):
    return path == end or path.endswith("/" + end)


def place(frame):
    """`shop/views.py:31`: the end of the file's name, and the line."""
    file = "/".join(frame.file.split("/")[-2:])[-PLACE_MOST:]
    return f"{file}:{'?' if frame.line is None else frame.line}"
