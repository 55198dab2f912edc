"""Nothing is wrong: threads that wait for work, as many applications have them."""

import logging
import logging.handlers
import queue
import socket
import threading
import time

NEAR, FAR = socket.socketpair()
LOG, WORK, STOP = queue.Queue(), queue.Queue(), threading.Event()
logging.getLogger().addHandler(logging.handlers.QueueHandler(LOG))
logging.handlers.QueueListener(LOG, logging.NullHandler()).start()


def work():
    while True:
        WORK.get()()


def news():
    while NEAR.recv(100):
        pass


def every_second():
    while not STOP.wait(1.0):
        WORK.put(lambda: time.sleep(0.01))


def tick():
    again = threading.Timer(5.0, tick)
    again.daemon = True
    again.start()


for each in (work, every_second, news):
    threading.Thread(target=each, name=each.__name__, daemon=True).start()
tick()


def application(environ, start_response):
    logging.warning("a request")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
