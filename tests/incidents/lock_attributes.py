"""Two locks in opposite order, as attributes of objects, and taken by acquire() far from where they are released."""

import threading
import time


class Account:
    def __init__(self):
        self.guard = threading.RLock()
        self.balance = 100

    def move(self, other, amount):
        self.guard.acquire()
        try:
            time.sleep(0.2)
            other.take(amount)
            self.balance -= amount
        finally:
            self.guard.release()

    def take(self, amount):
        self.guard.acquire()                    # HERE
        try:
            self.balance += amount
        finally:
            self.guard.release()


ALICE, BOB = Account(), Account()


def application(environ, start_response):
    if environ["PATH_INFO"] == "/to-bob":
        ALICE.move(BOB, 5)
    elif environ["PATH_INFO"] == "/to-alice":
        BOB.move(ALICE, 5)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
