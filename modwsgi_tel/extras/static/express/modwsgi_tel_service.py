"""The collector as a service of mod_wsgi: it starts and ends with the server.

    mod_wsgi-express start-server app.wsgi --telemetry-service unix:/run/modwsgi-tel/telemetry.sock \
        --service-script telemetry modwsgi_tel_service.py

mod_wsgi runs this in a process of its own (WSGIDaemonProcess with threads=0), in that process's main thread, and lets it handle signals.
Settings, in the server's environment:

    MODWSGI_TEL_PYZ     where modwsgi-tel.pyz lies; without it: beside this file, else @PROGRAM@
    MODWSGI_TEL_LISTEN  the telemetry socket, as unix:/path: the same path as --telemetry-service (default unix:/tmp/mod_wsgi-telemetry.sock)
    MODWSGI_TEL_...     any other option of `serve`, as MODWSGI_TEL_HTTP_PORT=0

The collector runs as the server's user; --service-user and --service-group choose another, who has to be able to make the socket.
"""
import os
import signal
import sys
import time
import zipimport

AGAIN_S = 10.0                          # mod_wsgi starts a service that ends anew at once: not faster than this


def complain(line):
    os.write(2, f"modwsgi-tel: {line}\n".encode("utf-8", "backslashreplace"))      # the server's error log


def program():
    """Where modwsgi-tel.pyz lies, or None."""
    given = os.environ.get("MODWSGI_TEL_PYZ")
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "modwsgi-tel.pyz")
    places = [given] if given else [beside, "@PROGRAM@"]
    found = [os.path.abspath(place) for place in places if os.path.isfile(place)]
    if not found:
        complain(f"there is no {' and no '.join(places)}: name the file in MODWSGI_TEL_PYZ, in the server's environment")
    return found[0] if found else None


def load(path):
    """Make its modules importable out of memory, as the file does itself when it is started: it may be replaced meanwhile."""
    start = {"__name__": "modwsgi_tel_start", "__file__": path}
    exec(zipimport.zipimporter(path).get_code("__main__"), start)
    with open(path, "rb") as file:
        sys.meta_path.insert(0, start["Archive"](path, file.read()))


def serve():
    """Collect until SIGTERM; the exit status."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)      # these are between systemd and the server
    from modwsgi_tel.collector import serve as collect
    from modwsgi_tel.errors import TelError
    from modwsgi_tel.options import read
    try:
        return collect(read("serve", []))
    except TelError as error:
        complain(error)
        return error.exit_status


def main():
    # a graceful restart ends this as any other does; mod_wsgi's own handler would only take note of it
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    path = program()
    if path is not None:
        load(path)
        if not serve():
            return
    time.sleep(AGAIN_S)                 # SIGTERM ends it


main()
