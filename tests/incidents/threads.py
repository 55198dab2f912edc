"""Each request starts a thread that never ends."""

import threading

NEVER = threading.Event()


def send_mail():
    NEVER.wait()                                # HERE


def application(environ, start_response):
    if environ["PATH_INFO"] == "/order":
        threading.Thread(target=send_mail, daemon=True).start()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
