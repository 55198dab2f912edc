"""A name server that does not answer."""

import socket


def look_up():
    try:
        return socket.getaddrinfo("prices.example.com", 80)     # HERE
    except socket.gaierror:
        return []


def application(environ, start_response):
    if environ["PATH_INFO"] == "/price":
        look_up()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
