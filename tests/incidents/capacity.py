"""Nothing is wrong but that there is more to do than threads to do it: requests of 0.1 to 0.3 s, each spent in several places."""

import time


def query():
    time.sleep(0.05)


def price():
    time.sleep(0.04)


def stock():
    time.sleep(0.06)


def page():
    return "".join("<li>%d</li>" % number for number in range(2000)).encode()


def search():
    query()
    time.sleep(0.08)
    stock()


def basket():
    price()
    stock()
    time.sleep(0.03)


def account():
    query()
    price()
    time.sleep(0.07)


def application(environ, start_response):
    {"/search": search, "/basket": basket, "/account": account}.get(environ["PATH_INFO"], page)()
    start_response("200 OK", [("Content-Type", "text/html")])
    return [page()]
