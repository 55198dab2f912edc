"""One path whose every request ends in an exception."""

PRICES = {"tea": 3}


def price(name):
    return PRICES[name]                         # HERE


def application(environ, start_response):
    body = b"%d\n" % price(environ["PATH_INFO"][1:]) if environ["PATH_INFO"] != "/" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
