"""Beside deep.py: front, rows, parse."""

import time


def front(path):
    return b"%d\n" % len(rows()) if path == "/rows" else b"ok\n"


def rows():
    return [parse(number) for number in range(5)]


def parse(number):
    time.sleep(0.5)                             # HERE
    return number
