"""Every request asks a service that answers late."""

import os
import socket


def ask(question):
    with socket.create_connection(("127.0.0.1", int(os.environ["STAGE_BACKEND"]))) as connection:
        connection.sendall(question)
        return connection.recv(1000)            # HERE


def application(environ, start_response):
    body = ask(b"price?\n") if environ["PATH_INFO"] == "/price" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
