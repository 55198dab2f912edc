"""SQLite, and another process that has begun to write and does not end."""

import os
import sqlite3


def count():
    database = sqlite3.connect(os.environ["STAGE_DATABASE"], timeout=60.0)
    try:
        with database:
            database.execute("UPDATE visits SET number = number + 1")       # HERE
    finally:
        database.close()


def application(environ, start_response):
    if environ["PATH_INFO"] == "/count":
        count()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok\n"]
