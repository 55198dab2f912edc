"""C code that computes for minutes and never lets another thread have the GIL; no regular expression this time."""


def total(most):
    return sum(range(most))                     # HERE


def application(environ, start_response):
    body = b"%d\n" % total(20000000000) if environ["PATH_INFO"] == "/total" else b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
