"""Thresholds so low that garbage collections run all the time, over much that is kept."""

import gc

CACHE = [{"id": number, "tags": [number]} for number in range(200000)]
gc.set_threshold(50, 2, 1)


class Node:
    def __init__(self, before):
        self.before, self.next = before, None
        if before:
            before.next = self


def rings():
    node = None
    for _ in range(4000):
        node = Node(node)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/page":
        rings()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
