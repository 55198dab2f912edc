"""Which WSGI server this is, and what it says of itself; whether it reports telemetry on its own."""
import os
import sys

UNSEEN_GREENLETS = "requests are timed and counted, but which greenlet serves which is not seen, so no stacks ({} has replaced threads)"
# Where a worker of gunicorn says how many threads it has: a greenlet of others is none.
_GUNICORNS = "/gunicorn/workers/sync.py", "/gunicorn/workers/gthread.py"


def mod_wsgi():
    """mod_wsgi's module inside of its processes, or None; the installed package of that name has no events."""
    found = sys.modules.get("mod_wsgi")
    return found if hasattr(found, "subscribe_events") else None


def reports_itself(module):
    """Whether mod_wsgi sends telemetry: with its reporter on, from 6.0, its own metrics are closed to the application."""
    if module is None or tuple(module.version[:1]) < (6,) or not hasattr(module, "start_recording_metrics"):
        return False
    module.start_recording_metrics()
    return module.request_metrics() is None


def is_worker():
    """Whether this process serves requests: True, or None where that shows with the first one.

    A master that imports the application and forks its workers later must have no thread of ours when it does.
    """
    if mod_wsgi() is not None:
        return True
    uwsgi = sys.modules.get("uwsgi")
    if hasattr(uwsgi, "worker_id"):
        return True if uwsgi.worker_id() > 0 else None
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "init_process" and "/gunicorn/workers/" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return None


def forks_worker():
    """Whether this process, a child in os.fork(), is being made to serve requests: not one that an application makes for itself."""
    frame = sys._getframe()
    while frame is not None and "/gunicorn/workers/" not in frame.f_code.co_filename:
        if frame.f_code.co_name == "spawn_worker" and frame.f_code.co_filename.endswith("/gunicorn/arbiter.py"):
            return True
        frame = frame.f_back
    return False


def on_fork(forked):
    """Call `forked` in a worker of uWSGI, which forks without Python's hooks, a hook of its own apart."""
    uwsgi = sys.modules.get("uwsgi")
    if not hasattr(uwsgi, "worker_id"):
        return
    before = getattr(uwsgi, "post_fork_hook", None)

    def hook():
        if uwsgi.worker_id() > 0:       # else a mule or the spooler
            forked()
        if before is not None:
            before()
    uwsgi.post_fork_hook = hook


def identity(group):
    """{name of a field: value} of what is known before the first request; see Emitter."""
    module, uwsgi = mod_wsgi(), sys.modules.get("uwsgi")
    out = {"process_parent_pid": os.getppid(), "switch_interval": sys.getswitchinterval(), "hostname": os.uname().nodename}
    if module is not None:
        out["mod_wsgi_version"] = ".".join(map(str, module.version))
        out["process_group"] = group or module.process_group
        out["threads_maximum"] = module.threads_per_process
    elif hasattr(uwsgi, "worker_id"):
        out["process_group"] = group or "uwsgi"
        out["threads_maximum"] = getattr(uwsgi, "cores", None)
    else:
        out["process_group"] = group or ("gunicorn" if "gunicorn.workers" in sys.modules else "python")
    return {name: value for name, value in out.items() if value}


def from_request(environ, known, group):
    """What the first request's environ and its thread's frames add to `known`, an identity()."""
    if mod_wsgi() is not None:
        software = environ.get("SERVER_SOFTWARE")
        if isinstance(software, str) and software.startswith("Apache/"):
            known["apache_version"] = software.split()[0][len("Apache/"):][:64]
        return
    software = environ.get("SERVER_SOFTWARE")
    if not group and known.get("process_group") == "python" and isinstance(software, str) and software:
        known["process_group"] = software.split("/")[0].split()[0].lower()[:64]
    frame = sys._getframe()
    while frame is not None and "threads_maximum" not in known:
        if frame.f_code.co_filename.endswith(_GUNICORNS):
            threads = getattr(getattr(frame.f_locals.get("self"), "cfg", None), "threads", None)
            if type(threads) is int:
                known["threads_maximum"] = threads
        frame = frame.f_back


def name():
    """A word for what it runs under."""
    if mod_wsgi() is not None:
        return "mod_wsgi " + ".".join(map(str, mod_wsgi().version))
    if hasattr(sys.modules.get("uwsgi"), "worker_id"):
        version = sys.modules["uwsgi"].version
        return "uWSGI " + (version.decode("ascii", "replace") if isinstance(version, bytes) else str(version))
    found = sys.modules.get("gunicorn")
    return "gunicorn " + str(getattr(found, "__version__", "")) if found is not None and "gunicorn.workers" in sys.modules else ""


def lacks_threads():
    """Why a thread of ours hardly runs here, or ""."""
    uwsgi = sys.modules.get("uwsgi")
    if hasattr(uwsgi, "worker_id") and not uwsgi.has_threads:
        return ("uWSGI lets no thread of Python's run between requests without --enable-threads: no telemetry is sent, and what else the "
                "agent tells comes late, or not at all")
    return ""
