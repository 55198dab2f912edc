"""Exceptions that leave the application, counted by place: their type and the last frames that they came through.

What is no fault of the application is not counted:
- SystemExit, KeyboardInterrupt, GeneratorExit: somebody ends it, or closes a body that is not read on.
- A client that hung up.  That is told by who raised it: the server, out of a read of the request or a write of the response.  A
  ConnectionError that comes from elsewhere is a database or a service that the application has lost, and is counted.
"""
import itertools
import time
from types import TracebackType

from modwsgi_tel.agent.requests import text_of
from modwsgi_tel.wire.codec import named
from modwsgi_tel.wire.fields import APPLICATION_EXCEPTION

PLACES_MOST = 200
FRAMES_MOST = 16                        # of the innermost
WALKED_MOST = 100000
CYCLE_MOST = 4                          # lines of code that a recursion goes through in turn
A_TIME_MOST, PAUSE_S = 20, 1.0          # so many records a second
NAME_MOST, TEXT_MOST, BYTES_MOST = 200, 300, 511
SEEN_MOST = 256

_ENDS = (SystemExit, KeyboardInterrupt, GeneratorExit)
# how an OSError begins that mod_wsgi (the second: from 6 on) and uWSGI raise when the client has gone
_SERVERS_TEXTS = ("Apache/mod_wsgi ", "mod_wsgi client connection", "mod_wsgi failed to write", "mod_wsgi request data read",
                  "error during read", "timeout during read")
_SERVERS_WORDS = frozenset(("write error",))     # all that uWSGI says of a write
# in whose files a ConnectionError is the client's
_SERVERS_FILES = ("/gunicorn/http/body.py", "/gunicorn/http/unreader.py", "/gunicorn/util.py", "/waitress/channel.py",
                  "/wsgiref/handlers.py", "/socketserver.py", "/cheroot/makefile.py", "/cheroot/server.py", "/werkzeug/serving.py",
                  "/gevent/pywsgi.py", "/eventlet/wsgi.py")
_SERVERS_TYPES = frozenset(("waitress.channel.ClientDisconnected", "gunicorn.http.errors.NoMoreData",
                            "werkzeug.exceptions.ClientDisconnected", "django.http.request.UnreadablePostError"))

_module_of = type.__dict__["__module__"].__get__
_name_of = type.__dict__["__qualname__"].__get__
_args_of = BaseException.__dict__["args"].__get__


def type_text(type_):
    """Module and name of a type, as Python itself prints them; nothing of its metaclass is called."""
    module, name = _module_of(type_), _name_of(type_)
    name = name if type(name) is str else "?"
    return (name if type(module) is not str or module == "builtins" else f"{module}.{name}")[-NAME_MOST:]


def last_frames(traceback):
    """The last FRAMES_MOST (function, file, line) of a traceback, outermost first, no frame kept alive.

    Of a recursion, lines that follow one another again and again, one round is left.
    """
    found, walked = [], 0
    while type(traceback) is TracebackType and walked < WALKED_MOST:
        code = traceback.tb_frame.f_code
        place = (getattr(code, "co_qualname", code.co_name), code.co_filename, traceback.tb_lineno)    # qualified from 3.11 on
        found.append(place)
        for size in range(1, CYCLE_MOST + 1):
            if found[-1 - size:-size] == [place] and found[-2 * size:-size] == found[-size:]:
                del found[-size:]
                break
        if len(found) > 4 * FRAMES_MOST:
            del found[:-2 * FRAMES_MOST]
        traceback = traceback.tb_next
        walked += 1
    return tuple(found[-FRAMES_MOST:])


def said(value):
    """What an exception was made of, as a short text; only of Python's own plain types."""
    parts = []
    for each in _args_of(value)[:4]:
        kind = type(each)
        if kind is str:
            parts.append(each[:TEXT_MOST])
        elif kind is float or kind is bool or each is None or kind is int and each.bit_length() < 1000:   # `in` asks a metaclass
            parts.append(str(each))
        else:
            parts.append(f"<{type_text(kind)}>")
    return ", ".join(parts)[:TEXT_MOST]


def is_hung_up(type_, value, frames, name):
    """Whether the client has gone, and no more than that."""
    if name in _SERVERS_TYPES:
        return True
    if issubclass(type_, ConnectionError) and any(file.endswith(_SERVERS_FILES) for _, file, _ in frames):
        return True
    if issubclass(type_, OSError) and value is not None:
        args = _args_of(value)
        return bool(args) and type(args[0]) is str and (args[0].startswith(_SERVERS_TEXTS) or args[0] in _SERVERS_WORDS)
    return False


class _Place:
    """One place.  tick: one more; no two threads lose any.  newest: (method, script name, path, log id, text).
    last_wall: when the newest was.  told: its count."""

    __slots__ = ("number", "type", "frames", "tick", "_read", "newest", "last_wall", "told")

    def __init__(self, number, type_, frames):
        self.number, self.type, self.frames = number, type_, frames
        self.tick = itertools.count().__next__
        self._read, self.newest, self.last_wall, self.told = 0, None, 0.0, 0

    def count(self):
        """How many; for one thread alone.  To read an itertools.count is to take one from it."""
        self._read += 1
        return self.tick() - self._read + 1


class Exceptions:
    """Counts in the threads that serve requests (`note`), tells in the monitor's (`run`)."""

    def __init__(self, send, locations, settings):
        self._send, self._locations, self._settings = send, locations, settings
        self._places = {}               # (type, frames) -> _Place
        self._numbers = itertools.count(1).__next__
        self._lost = _Place(0, "", ())  # those beyond PLACES_MOST
        self._seen = {}                 # request's number -> (id of the exception, its place)
        self._changed = False
        self._next = 0.0

    def note(self, type_, value, traceback, request):
        """Count it; whether it is the first since `run`.  Once, where a framework's hook and the server's both tell of it.

        request: a Request or None.  Neither the exception nor a frame is kept.
        """
        if value is not None:
            type_ = type(value)
        if not issubclass(type(type_), type) or not issubclass(type_, BaseException) or issubclass(type_, _ENDS):
            return False
        name, frames = type_text(type_), last_frames(traceback)
        if is_hung_up(type_, value, frames, name):
            return False
        key = (name, frames)
        if request is not None:
            # the one's traceback begins further out than the other's: they end alike
            seen = (id(value), name, frames[-1:])
            if self._seen.get(request.number) == seen:
                return False
            if len(self._seen) >= SEEN_MOST:
                self._seen.clear()
            self._seen[request.number] = seen
        place = self._places.get(key)
        if place is None:
            if len(self._places) < PLACES_MOST:
                place = self._places.setdefault(key, _Place(self._numbers(), name, frames))
            else:
                place = self._lost
        if request is not None:
            environ = request.environ
            place.newest = (request.method, text_of(environ.get("SCRIPT_NAME"))[:BYTES_MOST],
                            text_of(environ.get("PATH_INFO"))[:BYTES_MOST], request.log_id,
                            said(value) if value is not None and self._settings.exception_texts else "")
        place.last_wall = time.time()
        place.tick()
        first, self._changed = not self._changed, True
        return first

    def due(self):
        return self._next if self._changed else None

    def run(self, now):
        """Send what has changed; what nobody takes is sent with the next change, or after `again`."""
        self._changed = False           # before the counts are read: what is counted meanwhile is not forgotten
        self._next = now + PAUSE_S
        lost = self._lost.count()
        changed = [(place, count) for place, count in ((place, place.count()) for place in list(self._places.values()))
                   if count != place.told]
        if not changed and lost != self._lost.told:
            changed = [(place, place.count()) for place in list(self._places.values())[:1]]
        for place, count in changed[:A_TIME_MOST]:
            if not self._tell(place, count, lost):
                return
            place.told, self._lost.told = count, lost
        if len(changed) > A_TIME_MOST:
            self._changed = True

    def again(self):
        """A collector has come: it is to know all."""
        for place in list(self._places.values()):
            place.told = 0
        self._changed, self._next = True, 0.0

    def _tell(self, place, count, lost):
        numbers = self._locations.numbers(list(place.frames))
        if place.frames and not numbers:
            return False
        method, script, path, log_id, text = place.newest or ("",) * 5
        fields = {"exception_place": place.number, "exception_type": place.type, "exception_text": text, "exception_frames": numbers,
                  "exception_count": count, "exception_places_lost": lost,
                  "exception_last": place.last_wall or "", "slow_method": method, "slow_script_name": script,
                  "slow_path_info": path, "slow_log_id": log_id}
        return self._send(APPLICATION_EXCEPTION, named(**{
            name: value.encode("utf-8", "replace")[:BYTES_MOST] if isinstance(value, str) else value
            for name, value in fields.items() if value != ""}))
