"""A pool of two connections for eight threads, and a service behind it that is late: most wait for a connection."""

import os
import queue
import socket

POOL = queue.Queue()
for each in range(2):
    POOL.put(each)


def ask(question):
    connection = POOL.get()                     # WAITS
    try:
        with socket.create_connection(("127.0.0.1", int(os.environ["STAGE_BACKEND"]))) as service:
            service.sendall(question)
            return service.recv(1000)           # HERE
    finally:
        POOL.put(connection)


def application(environ, start_response):
    body = ask(b"price?\n") if environ["PATH_INFO"] == "/price" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
