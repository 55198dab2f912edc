"""Work as web applications do it: JSON, mail, differences of texts, SQLite, hashes, generators; threads that are all busy.
Runs on Python 3.8 and later.

    python work.py [THREADS]

The first line on stdout tells which functions may be outermost in which thread (no more is known of the standard
library's own frames).  Each newline on stdin is answered with the work done so far.  It ends with its stdin, and after
ten minutes.
"""
import _thread
import difflib
import email.message
import email.parser
import email.policy
import hashlib
import json
import os
import signal
import sqlite3
import sys
import time

from truth import tell


def as_json(turn):
    data = {"turn": turn, "rows": [{"id": each, "name": "row %d" % each, "tags": ["a", "b", str(each % 7)]} for each in range(40)]}
    return len(json.loads(json.dumps(data, indent=2))["rows"])          # with indent the encoder is Python's own, of generators


def differences(turn):
    old = ["line %d of %d" % (each, each % 5) for each in range(30)]
    new = old[:turn % 20] + ["another line"] + old[turn % 20 + 2:]
    return sum(1 for _ in difflib.unified_diff(old, new))


def mail(turn):
    message = email.message.EmailMessage(policy=email.policy.default)
    message["Subject"] = "Figures of turn %d, with a long subject that has to be folded somewhere in the middle" % turn
    message["To"] = "Somebody <somebody@example.org>"
    message.set_content("One line\n" * 20)
    return len(email.parser.Parser(policy=email.policy.default).parsestr(message.as_string())["subject"])


def rows(turn):
    base = sqlite3.connect(":memory:")
    try:
        base.create_function("twice", 1, lambda value: value * 2)
        base.execute("create table figures (id integer, value text)")
        base.executemany("insert into figures values (?, ?)", ((each, str(each * turn)) for each in range(60)))
        return base.execute("select sum(twice(id)) from figures where id > ?", (turn % 60,)).fetchone()[0]
    finally:
        base.close()


def digests(turn):
    def pieces(depth):
        if depth:
            yield from pieces(depth - 1)
        for each in range(5):
            yield b"%d %d" % (turn, each)
    found = hashlib.sha256()
    for each in pieces(6):
        found.update(each)
    return sorted((found.hexdigest()[each:] for each in range(30)), key=lambda text: text[::-1])[0]


def worker(number, ids, done):
    ids[_thread.get_native_id()] = ["worker"]
    turn = number
    while True:
        for each in (as_json, differences, mail, rows, digests):
            each(turn)
            done[number] += 1
        turn += 1


def main(threads):
    done, outermost = [0] * threads, {_thread.get_native_id(): ["<module>"]}
    for number in range(threads):
        _thread.start_new_thread(worker, (number, outermost, done))
    while len(outermost) <= threads:
        time.sleep(0.001)
    tell(outermost=outermost)
    while os.read(0, 1):
        tell(done=sum(done))
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(600)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
