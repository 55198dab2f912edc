"""Where a console's answers come from when they are made in this process: a collector of its own, a recording, or the
existing collector's state, folded here.  See `remote` for what a source is.
"""
import json

from modwsgi_tel.errors import TelError
from modwsgi_tel.findings import Findings
from modwsgi_tel.peer import PeerState
from modwsgi_tel.web.guard import Guard
from modwsgi_tel.web.protocol import Request, parse_query, percent_decoded
from modwsgi_tel.web.routes import Site

_OPEN = Guard((), unix=True)
FINDINGS_S = 5.0                        # between two looks at what is wrong, when nobody asks
STEP_S = 0.004                          # of playing a recording, between two looks at the keyboard


def answered(site, path, method="GET"):
    """(status, JSON) of a path, from a Site in this process."""
    place, _, query = path.partition("?")
    request = Request(method, path, percent_decoded(place.encode()), parse_query(query.encode()), {}, (1, 1), b"", True, False,
                      None)
    response = site.answer(request, _OPEN)          # who is in this process need not show a token
    body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
    return response.status, json.loads(body)


def _site(fleet, clocks, own=lambda: {}, health=lambda: []):
    return Site(fleet, _OPEN, clocks, own, health)


class Local:
    """Answers of a Site in this process, at once."""

    replay = False
    note = ""
    no_stacks = ""

    def __init__(self, site, name):
        self.site, self.name, self.busy = site, name, False
        self.log = None                 # a Ring of lines, where the collector in this process logs

    def look(self, paths, done):
        answers, errors = {}, {}
        for name, path in paths.items():
            status, answer = answered(self.site, path, "POST" if name == "asked" else "GET")
            if status in (200, 202):
                answers[name] = answer
            else:
                errors[name] = str(answer.get("error"))
        done(answers, errors, None)

    def close(self):
        pass

    def least_pause_s(self):
        """Seconds to leave the collector alone after a look."""
        return 0.0


class Peer:
    """The existing collector, mod_wsgi-telemetry: its whole state is read and folded here."""

    def __init__(self, limits, clocks, name):
        self._state, self._clocks = PeerState(limits), clocks
        self._local = Local(_site(self._state.fleet, clocks), name)

    def take(self, answer, paths, done):
        """Fold an answer of STATE in, and answer the paths by it."""
        now, wall = self._clocks()
        try:
            self._state.take(answer, now, wall)
        except TelError as error:
            done({}, {}, error)
            return
        self._state.fleet.expire(now, wall)
        self._local.look(paths, lambda answers, errors, trouble: done(_without_losses(answers), errors, trouble))


def _without_losses(answers):
    """What the existing collector does not know is not 0."""
    summary, table = answers.get("summary") or {}, answers.get("processes") or {}
    for row in (summary.get("totals") or {}, *(summary.get("groups") or ()), *(table.get("processes") or ())):
        row["lost"] = row["lost_uncertain"] = None
    return answers


class Recording(Local):
    """A recording, played by `play` in the rhythm of a loop."""

    replay = True
    no_stacks = "Stacks are of a running server: a recording has none."

    def __init__(self, loop, player, name):
        self.player = player
        self._loop = loop
        self._steps = None              # under way: a generator of the player
        self._finished = lambda: None
        super().__init__(_site(player.fleet, lambda: (player.now, player.wall)), name)
        self.site.findings = Findings()
        player.each_second = self._second
        self._judged = 0.0
        self._told = ""                 # of the player's trouble, in `log`

    @property
    def note(self):
        return self.player.trouble

    def look(self, paths, done):
        if self.note != self._told and self.log is not None:
            self._told = self.note
            self.log.append(self.note)
        super().look(paths, done)

    def _second(self, now, wall):
        if self.site.fleet is not self.player.fleet:
            self.site.fleet = self.player.fleet         # it went back, and began anew
        if not 0 <= now - self._judged < FINDINGS_S:
            self._judged = now
            self.site.look()

    @property
    def playing(self):
        """Whether the player is at work on a stretch."""
        return self._steps is not None

    def play(self, steps, finished):
        """Do the steps of a player (advance, seek) a few milliseconds at a time, then call `finished`."""
        busy = self._steps is not None
        self._steps, self._finished = steps, finished
        if not busy:
            self._loop.after(0.0, self._go_on)

    def _go_on(self):
        until = self._loop.clock() + STEP_S
        for _ in self._steps:
            if self._loop.clock() > until:
                self._loop.after(0.0, self._go_on)
                return
        self._steps = None
        self.site.fleet = self.player.fleet
        self._finished()

    def close(self):
        self.player.close()


