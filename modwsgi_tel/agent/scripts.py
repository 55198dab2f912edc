"""The applications of mod_wsgi's scripts in this interpreter, watched without a change to them.

mod_wsgi's events tell of each request, but for each it makes three dictionaries: 10 us of a daemon's 75 us for a trivial
application (6.1.1, Python 3.11).  So an event is used once, to learn the application of a script that has just been loaded; there and in
the other scripts' modules it is replaced by the same in a Middleware.  Then nobody is subscribed, and mod_wsgi makes no events.
"""
import sys

from modwsgi_tel.agent import server
from modwsgi_tel.agent.middleware import Middleware
from modwsgi_tel.agent.quick import quick

SCRIPT = "_mod_wsgi_"                   # how the names of the scripts' modules begin
CALLABLE = "application"
DRAIN_S = 2.0                           # mod_wsgi waits 5 s by default, for all interpreters together
KEPT_MOST = 100                         # applications that are no attribute of a module, each wrapped once


class Scripts:
    """Subscribes when it is made, and when a script says agent.install() once more: it was loaded again."""

    def __init__(self, agent):
        self._agent, self._module = agent, server.mod_wsgi()
        self._apart = {}                # id -> Middleware, whose application keeps that id
        self._called = {CALLABLE}
        self._subscribed = False
        self._module.subscribe_shutdown(self.stopping)
        self.subscribe()

    def subscribe(self):
        if not self._subscribed:
            self._subscribed = True
            self._module.subscribe_events(self.event)

    def look(self):
        """Watch the applications of all scripts that were loaded meanwhile."""
        for name in list(sys.modules):
            if name.startswith(SCRIPT):
                module = sys.modules.get(name)
                for called in self._called:
                    application = getattr(module, called, None)
                    if callable(application) and _middleware(application) is None:
                        setattr(module, called, self._around(application))

    def _around(self, application):
        """A Middleware, or where mod_wsgi counts itself a shorter way of the same."""
        agent, watched = self._agent, self._agent.watched(application)
        return quick(watched) if agent.running and agent.emitter is None and not agent.secret else watched

    def stopping(self, *_, **event):
        """mod_wsgi's shutdown callback; a daemon's comes before it waits for requests that run."""
        self._agent.stop(event.get("shutdown_reason"), DRAIN_S if self._module.process_group else 0.0)

    def event(self, name, **event):
        """mod_wsgi's event callback: the application of a request that begins is replaced by a watched one, from now on."""
        if name != "request_started":
            return None
        try:
            environ = event.get("request_environ")
            called = environ.get("mod_wsgi.callable_object", CALLABLE) if isinstance(environ, dict) else CALLABLE
            if len(self._called) < KEPT_MOST:
                self._called.add(called)
            return {"application_object": self._watched(event.get("application_object"), called)}
        except Exception as error:
            self._agent.failed_self(error)
            return None

    def _watched(self, application, called):
        """The Middleware around an application: its script's, or one for an application that stands in no script."""
        if _middleware(application) is not None:
            self._unsubscribe()
            return application
        self.look()
        for name in list(sys.modules):
            watched = getattr(sys.modules.get(name), called, None) if name.startswith(SCRIPT) else None
            found = _middleware(watched)
            if found is not None and found.app is application:
                self._unsubscribe()
                return watched
        watched = self._apart.get(id(application)) or self._around(application)
        if len(self._apart) < KEPT_MOST:
            self._apart[id(application)] = watched      # made by a handler: its requests are seen by their events alone
        return watched

    def _unsubscribe(self):
        """No event is wanted any more, unless an application is known by its events alone."""
        if self._subscribed and not self._apart:
            self._subscribed = False
            try:
                self._module.event_callbacks.remove(self.event)
            except ValueError:
                pass                    # two requests at once: the other one has done it


def _middleware(application):
    """The Middleware that an application is, or None."""
    return application if isinstance(application, Middleware) else getattr(application, "modwsgi_tel", None)
