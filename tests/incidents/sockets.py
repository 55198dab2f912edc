"""Connections leak: what each request opens stays in an attribute of an object, though the other side has closed it."""

import os
import socket


class Service:
    def __init__(self):
        self.connections = []

    def ask(self):
        connection = socket.create_connection(("127.0.0.1", int(os.environ["STAGE_CLOSER"])))
        self.connections.append(connection)     # HERE
        return connection.recv(100)


SERVICE = Service()


def application(environ, start_response):
    if environ["PATH_INFO"] == "/page":
        SERVICE.ask()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
