"""A lock that nobody gives back: a request took it and left by an exception."""

import threading

price_lock = threading.Lock()
PRICES = {"tea": 3}


def price(name):
    price_lock.acquire()                        # HERE
    value = PRICES[name]
    price_lock.release()
    return value


def application(environ, start_response):
    body = b"%d\n" % price(environ["PATH_INFO"][1:]) if environ["PATH_INFO"] != "/" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
