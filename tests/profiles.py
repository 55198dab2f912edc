"""Looks at processes, made by hand, for what is written of them."""
import random

from modwsgi_tel.profile.samples import Profile
from modwsgi_tel.stacks.model import MOVING, RUNNING, WAITING, Frame, Stacks, ThreadStack

START = 1700000000.0                    # 2023-11-14 22:13:20 UTC


def frames(text, interpreter=0):
    """Frames, innermost first, of "outer inner": function@file:line each; the file is app.py, the line 1, where they are not given."""
    made = []
    for each in text.split():
        function, _, where = each.partition("@")
        file, _, line = where.partition(":")
        made.append(Frame(function, file or "app.py", int(line or 1), interpreter))
    return tuple(reversed(made))


def a_thread(text="", tid=7, name="MainThread", **more):
    more.setdefault("state", RUNNING)
    return ThreadStack(tid=tid, name=name, frames=frames(text, more.get("interpreter", 0)), **more)


def a_look(*threads, pid=4711, at=START, command="python app.py"):
    return Stacks(pid=pid, start=99, command=command, python="3.11.7", interpreters=(0,), threads=threads, at=at)


def a_profile(*looks, every_s=0.02, **how):
    """A Profile of looks, each a tuple of threads, one every `every_s` seconds."""
    profile = Profile(**{"rate": 50, **how})
    for number, threads in enumerate(looks, 1):
        profile.add(a_look(*threads, at=START + number * every_s), every_s)
    return profile


REQUESTS = (                            # how often, and its calls from the outermost to the innermost with what each does besides
    (8, "product@/srv/shop/views.py:31", "Product.find@/srv/shop/models.py:80",
     "QuerySet.get@/usr/lib/python3/dist-packages/django/db/models/query.py:649",
     "QuerySet._fetch_all@/usr/lib/python3/dist-packages/django/db/models/query.py:1930",
     "Cursor.execute@/usr/lib/python3.11/sqlite3/dbapi2.py:40"),
    (5, "basket@/srv/shop/views.py:60", "Order.total@/srv/shop/models.py:31", "price@/srv/shop/prices.py:12",
     "discount@/srv/shop/prices.py:33", "round_to_cent@/srv/shop/prices.py:50"),
    (4, "search@/srv/shop/views.py:99", "match@/srv/shop/search.py:14", "compile@/usr/lib/python3.11/re/__init__.py:227",
     "parse@/usr/lib/python3.11/re/_parser.py:955"),
    (3, "product@/srv/shop/views.py:38", "dumps@/usr/lib/python3.11/json/__init__.py:231",
     "JSONEncoder.encode@/usr/lib/python3.11/json/encoder.py:200", "JSONEncoder.iterencode@/usr/lib/python3.11/json/encoder.py:258"),
    (2, "checkout@/srv/shop/views.py:140", "Order.save@/srv/shop/models.py:55", "Lock.acquire@/usr/lib/python3.11/threading.py:320"),
    (1, "login@/srv/shop/views.py:11", "User.check_password@/srv/shop/models.py:19", "pbkdf2_hmac@/usr/lib/python3.11/hashlib.py:200"),
)
HOSTILE = Frame("<script>alert(1)</script>;\x1b[31m\n\u202eevil", "/tmp/\"]]>&'<b>;.py", 3)


def busy(looks=500, threads=12, seed=5, every_s=0.02, deep=0, slow=0, **how):
    """A Profile of a server at work: requests, recursion, threads that move, one hostile name.  slow: more of REQUESTS[1]."""
    chance = random.Random(seed)
    often = [each[0] + slow * (each is REQUESTS[1]) for each in REQUESTS]
    profile = Profile(**{"rate": round(1 / every_s), **how})
    at = {}
    for number in range(1, looks + 1):
        holder = chance.randrange(threads)
        seen = []
        for index in range(threads):
            if index not in at or chance.random() < 0.4:
                calls = chance.choices(REQUESTS, often)[0][1:]
                calls = frames(" ".join(("application@/srv/shop/wsgi.py:5", "dispatch@/srv/shop/routes.py:88") +
                                        calls[:chance.randrange(2, len(calls) + 1)]))
                if chance.random() < 0.1:
                    calls = (Frame("walk", "/srv/shop/tree.py", 9),) * chance.randrange(2, 8 + deep) + calls
                if chance.random() < 0.03:
                    calls = (HOSTILE,) + calls
                at[index] = (calls[0]._replace(line=calls[0].line + chance.randrange(3)),) + calls[1:]
            running = index == holder
            seen.append(ThreadStack(tid=4711 + index, name=f"worker-{index}" if index else "MainThread", owns_gil=running,
                                    interpreter=index % 3, state=RUNNING if running else WAITING, cpu_s=every_s if running else 0.0,
                                    idle=index == threads - 1, frames=at[index],
                                    problem=MOVING if running and chance.random() < 0.2 else
                                    "cut: 3 frames could not be read" if chance.random() < 0.002 else None))
        profile.add(a_look(*seen, at=START + number * every_s, command="/usr/bin/python3 /srv/shop/wsgi.py"), every_s)
    return profile
