"""What an application imports: where its time goes, told from inside.

    import sys; sys.path.insert(0, "/usr/local/bin/modwsgi-tel.pyz/site-packages"); from modwsgi_tel import agent; agent.install()

In a WSGI script under mod_wsgi, or in a WSGIImportScript, that is all.  Under any other server:

    application = agent.middleware(application)

All that is needed is imported here, at once: the archive may be replaced while the process runs.  Nothing of this raises into
the application.  For the settings see agent.settings.
"""
from modwsgi_tel.agent import server as _server
from modwsgi_tel.agent import settings as _settings
from modwsgi_tel.agent.core import Agent as _Agent
from modwsgi_tel.agent.scripts import Scripts as _Scripts
from modwsgi_tel.agent.timers import Timers as _Timers

__all__ = ["annotate", "dump", "install", "middleware", "timed", "timer", "watch_loop"]

_timers = _Timers()
_agent = None

timer = _timers.timer
timed = _timers.timed


def install(**settings):
    """Watch this interpreter under mod_wsgi: its requests, and what else is switched on.  Twice is once.

    Returns whether the agent runs by now.  Under other servers nothing tells of requests but `middleware`, which is said in the log.
    """
    runs = _install(settings)
    try:
        if _server.mod_wsgi() is None:
            _agent.say("agent.install() sees no request under this server: use application = agent.middleware(application)")
    except Exception as error:
        _agent.failed_self(error)
    return runs


def _install(settings):
    global _agent
    if _agent is None:
        held = _Agent(_settings.read(settings))
        held.timers = _timers
        held.signal = held.take_signal()
        _agent = held
    try:
        if _server.mod_wsgi() is not None:
            if _agent.scripts is None:
                _agent.scripts = _Scripts(_agent)
            _agent.scripts.subscribe()
        return bool(_server.is_worker()) and _agent.start()
    except Exception as error:
        _agent.failed_self(error)
        return False


def middleware(application, **settings):
    """The WSGI application, watched; see `install`.  Where mod_wsgi tells its requests already, they count once."""
    _install(settings)
    return _agent.watched(application)


def annotate(**values):
    """Say something of the request that the calling thread serves: numbers and texts, shown beside its stacks."""
    if _agent is not None:
        try:
            _agent.annotate(values)
        except Exception as error:
            _agent.failed_self(error)


def dump():
    """The stacks of all threads of this interpreter as text; sent to the collector as well, or else to the log."""
    if _agent is None:
        return ""
    try:
        return _agent.dump()
    except Exception as error:
        _agent.failed_self(error)
        return ""


def watch_loop(loop=None):
    """Watch an event loop of asyncio (tornado's too), by default the running one: what holds it longer than `loop_limit`.

    Returns whether it is watched.
    """
    if _agent is None or not _agent.start():
        return False
    try:
        return not _agent.lateness.watch(loop)
    except Exception as error:
        _agent.failed_self(error)
        return False
