"""A running collector as a console's source, over HTTP.

Every source answers the same paths with the same JSON, so a view is drawn the same way whatever is watched:

    source.look({name: path}, done)         # later: done(answers, errors, trouble)

All are GET, but the one named "asked", which is POST.

answers: {name: JSON}.  errors: {name: text} of paths that were refused.  trouble: why there is nothing at all, as a
TelError, or None.  `busy` while one is under way; `name` and `note` are for people; `replay` says whether it has a
`player`; `log`, where not None, holds lines to show; `no_stacks` is why it has no stacks, or ""; `least_pause_s()` is how
long to leave it alone after a look.

Nothing that only a collector needs is imported here: the first screen should be there at once.
"""
import time

from modwsgi_tel.errors import Nonsense, TelError
from modwsgi_tel.report.client import Asker

STATE = "/api/state"
PEER_SHARE = 0.1                        # of its time that the existing collector may spend on answering us


class Remote:
    """A running collector over HTTP: ours, or the existing one, whose whole state is read and folded here."""

    replay = False
    log = None

    def __init__(self, loop, place, token=None, timeout_s=10.0):
        self.name = place.where
        self.note = ""
        self._asker = Asker(loop, place, token, timeout_s)
        self._clock = loop.clock
        self._peer = None               # sources.Peer, once it is known to be the existing collector
        self._took_s = 0.0
        self._turn = 0

    @property
    def busy(self):
        return self._asker.busy

    def close(self):
        self._turn += 1
        self._asker.close()

    @property
    def no_stacks(self):
        return "" if self._peer is None else "mod_wsgi-telemetry takes no stacks: modwsgi-tel serve does."

    def least_pause_s(self):
        return self._took_s / PEER_SHARE if self._peer is not None else 0.0

    def look(self, paths, done):
        self._turn += 1
        turn = self._turn
        if self._peer is not None:
            self._look_at_peer(paths, done)
            return
        left, answers, errors = list(paths.items()), {}, {}

        def step():
            if not left:
                done(answers, errors, None)
                return
            name, path = left.pop(0)
            method = "POST" if name == "asked" else "GET"
            self._asker.ask(path, lambda answer: self._turn == turn and got(name, answer), method)

        def got(name, answer):
            if isinstance(answer, TelError):
                if isinstance(answer, Nonsense) and not answers:
                    self._try_peer(paths, done, answer)         # now, or since it was started anew: another one
                elif isinstance(answer, Nonsense):
                    # it answers, only not this; to what was posted in words for who asked for it
                    errors[name] = str(name == "asked" and getattr(answer, "said", None) or answer)
                    step()
                else:
                    done(answers, errors, answer)
                return
            answers[name] = answer
            step()

        step()

    # --- the existing collector ---------------------------------------------------------

    def _try_peer(self, paths, done, refusal):
        """Something answers HTTP, but not as ours does: is it the existing collector?"""
        turn, began = self._turn, self._clock()

        def got(answer):
            if self._turn != turn:
                return
            from modwsgi_tel.collector import limits_of         # what a look at our own does not need
            from modwsgi_tel.options import read
            from modwsgi_tel.peer import is_peer
            from modwsgi_tel.sources import Peer
            if isinstance(answer, TelError) or not is_peer(answer):
                done({}, {}, answer if isinstance(answer, TelError) else refusal)
                return
            self._peer = Peer(limits_of(read("serve", [], {})), lambda: (self._clock(), time.time()), self.name)
            self.note = "mod_wsgi-telemetry"
            self._took_s = self._clock() - began
            self._peer.take(answer, paths, done)

        self._asker.ask(STATE, got)

    def _look_at_peer(self, paths, done):
        began, turn = self._clock(), self._turn

        def got(answer):
            if self._turn != turn:
                return
            self._took_s = self._clock() - began
            from modwsgi_tel.peer import is_peer
            if isinstance(answer, TelError):
                done({}, {}, answer)
            elif is_peer(answer):
                self._peer.take(answer, paths, done)
            else:
                self._peer, self.note = None, ""        # one of ours is at its place now
                self.look(paths, done)

        self._asker.ask(STATE, got)
