"""What a console sees of a Fleet, without a network: its paths asked of a Site, as a collector would answer them."""
import json
import struct

from builders import a_fleet, capture
from modwsgi_tel.console import views
from modwsgi_tel.console.cells import ASCII, UNICODE, Size, plain
from modwsgi_tel.console.keys import Ui, press
from modwsgi_tel.findings import Findings
from modwsgi_tel.simulate import stream
from modwsgi_tel.state.fleet import CREDENTIALS
from modwsgi_tel.web.guard import Guard
from modwsgi_tel.web.protocol import Limits, Parser
from modwsgi_tel.web.routes import Site

NOW = 1_000_000.0                       # monotonic seconds of the first record
DESIGN, WIDE, SMALL = Size(24, 80), Size(50, 200), Size(10, 40)


def replayed(records, end=None):
    """(fleet, now, wall) after [(wall, sender's pid, datagram)], time passing once a second; `end`: stop there.

    As in a collector the findings are looked at all the while: `fleet.looked` remembers since when.
    """
    fleet, origin, second = a_fleet(), None, 0
    fleet.looked = Findings()
    for wall, pid, datagram in records:
        if origin is None:
            origin = wall
        if end is not None and wall - origin > end:
            break
        while wall - origin > second + 1:
            second += 1
            fleet.expire(NOW + second, origin + second)
            if second % 5 == 0:
                _site(fleet, NOW + second, origin + second).look()
        fleet.apply(datagram, CREDENTIALS.pack(pid, 33, 33), NOW + wall - origin, wall)
        last = wall
    last = last if end is None else origin + end
    return fleet, NOW + last - origin, last


def captured(name, end=None):
    return replayed(capture(name), end)


def simulated(profile, seconds=65.0, processes=4, groups=2, seed="1", start=1_700_000_000.0):
    def records():
        for at, datagram in stream(profile, processes, groups, 1.0, None, seed, start):
            yield start + at, struct.unpack_from("<I", datagram, 8)[0], datagram
    return replayed(records(), seconds - 0.3)


def _site(fleet, now, wall):
    return Site(fleet, Guard(("localhost",)), lambda: (now, wall), lambda: {}, lambda: [], getattr(fleet, "looked", None))


class Looking:
    """A console on a Fleet that stands still: `look()` asks, `press` presses, `screen` draws."""

    def __init__(self, fleet, now, wall, glyphs=UNICODE, size=DESIGN, **ui):
        self.site = _site(fleet, now, wall)
        self.ui = Ui(glyphs=glyphs, **ui)
        self.size = size
        self.view = {}
        self.look()

    def ask(self, path):
        """The answer to a path: (status, JSON)."""
        (request,) = Parser(Limits()).feed(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        response = self.site.answer(request)
        body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
        return response.status, json.loads(body)

    def look(self):
        view = {"source": {"name": "http://127.0.0.1:8888", "trouble": "", "age_s": 0.0, "note": "", "replay": ""},
                "errors": {}}
        for name, path in views.paths(self.ui, self.size).items():
            status, answer = self.ask(path)
            if status == 200:
                view[name] = answer
            else:
                view["errors"][name] = answer["error"]
        self.view = view

    def press(self, *keys):
        asked = ()
        for key in keys:
            self.ui = press(self.ui, key, views.context(self.view, self.ui, self.size))
            asked, self.ui = self.ui.asked, self.ui._replace(asked=())
            if ("look",) in asked:
                self.look()
        return asked

    def lines(self):
        return views.render(self.view, self.ui, self.size)

    def screen(self):
        return plain(self.lines())


def view_of(fleet, ui, size, now, wall):
    """What `views.render` needs to draw `ui`: the answers of a Site on this Fleet."""
    looking = Looking(fleet, now, wall, size=size)
    looking.ui = ui
    looking.look()
    return looking.view


__all__ = ("ASCII", "UNICODE", "Size", "Looking", "captured", "replayed", "simulated", "view_of")
