"""The requests that are being served in this interpreter.

`begin` and `end` are called by the thread that serves a request, so they do as little as they can: what is told of a
request is read from its environ once it turns out to be slow.
"""
import itertools
import time
from _thread import get_ident, get_native_id

from modwsgi_tel.masking import MASKED, SECRET
from collections import namedtuple

KEY = "modwsgi_tel.request"             # in environ: the number of the request
TIDS_MOST = 4096
TEXT_MOST = 511                         # of a path, as mod_wsgi cuts it
ANNOTATIONS_MOST = 16
NAME_MOST, VALUE_MOST = 64, 256         # letters of an annotation

_PLAIN = (int, float, bool, type(None))
_monotonic = time.monotonic


class Request:
    """One request, from `begin` to `end`.

    number: from 1, unique in this agent, whose own number is `agent`.  ident: threading's number of the thread that serves it.
    environ: WSGI's.
    began, ended: monotonic seconds (ended: None while it is served).  began_wall: wall seconds.  status: HTTP's, 0 while not
    known.  error: the type's name of an exception that ended it, or None.  annotations: {name: text}.
    watch: what long.Long keeps of a long one, else None.
    The rest is what the server told when it ended, None where it did not: input_bytes, input_reads, input_s,
    output_bytes, output_writes, output_s, cpu_user_s, cpu_system_s; server_pid is the Apache child that accepted it.
    returned: whether the application has returned, so that what is left is its body.
    active_at_start: requests in flight when it began, this one included.

    Most requests end before anybody asks more of them: what has a default here is not set when one is made.
    """

    ended = error = None
    status = active_at_start = 0
    annotations = watch = None
    returned = False
    input_bytes = input_reads = input_s = output_bytes = output_writes = output_s = None
    cpu_user_s = cpu_system_s = server_pid = None
    _wall = None

    @property
    def began_wall(self):
        return time.time() - (_monotonic() - self.began) if self._wall is None else self._wall

    @began_wall.setter
    def began_wall(self, wall):
        self._wall = wall

    @property
    def log_id(self):
        """mod_wsgi's request id, which is Apache's log id; elsewhere one of our own, unique in the process."""
        return text_of(self.environ.get("mod_wsgi.request_id")) or f"{self.agent:x}.{self.number}"

    @property
    def thread_id(self):
        """mod_wsgi's number of the thread, or None."""
        return _number(self.environ.get("mod_wsgi.thread_id"))

    @property
    def method(self):
        return text_of(self.environ.get("REQUEST_METHOD"))[:32]

    @property
    def path(self):
        """Mount point and path."""
        return (text_of(self.environ.get("SCRIPT_NAME")) + text_of(self.environ.get("PATH_INFO")))[:TEXT_MOST]

    @property
    def origin(self):
        """(wall seconds of its start, queue_s, process group, application group), None for what is not told; the same each time."""
        environ = self.environ
        if self._wall is None:
            self._wall = self.began_wall
        began = _stamp(environ.get("mod_wsgi.request_start"))
        groups = [environ.get(f"mod_wsgi.{name}_group") for name in ("process", "application")]
        return (self._wall if began is None else began, self.phases()[1],
                *(text_of(each)[:TEXT_MOST] if isinstance(each, str) else None for each in groups))

    def duration_s(self, now):
        return (now if self.ended is None else self.ended) - self.began

    def annotate(self, values, secrets=SECRET):
        """Add what the application says of it; what is too much is left out, what its name tells to be a secret is masked."""
        held = dict(self.annotations or ())
        for name, value in values.items():
            if name in held or len(held) < ANNOTATIONS_MOST:
                held[str(name)[:NAME_MOST]] = MASKED if secrets.search(str(name)) else value[:VALUE_MOST] if isinstance(value, str) else _plain(value)
        self.annotations = held

    def phases(self):
        """(server_s, queue_s, daemon_s): before the application had it, as far as environ tells; None for what it does not.

        mod_wsgi tells stamps in microseconds; others' X-Request-Start (t=seconds, milli- or microseconds since the epoch)
        is the time at which a proxy handed it on: waiting for a worker.
        """
        environ = self.environ
        stamps = [_stamp(environ.get(f"mod_wsgi.{name}_start")) for name in ("request", "queue", "daemon")]
        if stamps[0] is not None:
            if stamps[1] is None or stamps[2] is None:          # embedded: no daemon
                return _span(stamps[0], self.began_wall), None, None
            return _span(stamps[0], stamps[1]), _span(stamps[1], stamps[2]), _span(stamps[2], self.began_wall)
        return None, _span(_stamp(environ.get("HTTP_X_REQUEST_START")), self.began_wall), None


def text_of(value):
    """A text of environ as WSGI has it (latin-1) as what it stands for."""
    if not isinstance(value, str):
        return ""
    try:
        return value.encode("latin-1").decode("utf-8", "replace")
    except UnicodeError:
        return value.encode("utf-8", "replace").decode()


def _plain(value):
    """A short text of a value of which nothing of the application's is called."""
    return str(value)[:VALUE_MOST] if any(type(value) is each for each in _PLAIN) else f"<{type(value).__name__[:NAME_MOST]}>"


def _number(value):
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _stamp(value):
    """Seconds since the epoch of what a server or a proxy tells: seconds, milli- or microseconds; None for anything else.

    mod_wsgi 4 tells text, mod_wsgi 6 floats.
    """
    if type(value) is float:
        number = value
    elif isinstance(value, str):
        text = value.strip()
        try:
            number = float(text[2:] if text.startswith("t=") else text)
        except ValueError:
            return None
    else:
        return None
    for unit in (1.0, 1e3, 1e6, 1e9):
        if 1e9 <= number / unit < 1e10:
            return number / unit
    return None


def _span(begin, end):
    """end - begin in seconds; None where that is nonsense: clocks of two machines differ."""
    if begin is None or end is None:
        return None
    return max(0.0, end - begin) if -1.0 < end - begin < 86400 else None


Ended = namedtuple("Ended", "log_id thread_id method path began_wall ended_wall origin")


class Requests:
    """All that are being served now: `active` by number.  tids: {ident: the kernel's number} of threads that have served one.

    lately: {ident: Ended} of long ones: a dump that was written while the GIL was held is read when they are over.
    """

    def __init__(self, agent=0):
        self.agent = agent
        self._numbers = itertools.count(1)
        self.next = self._numbers.__next__              # one step of C: no two threads get the same
        self.active = {}                # number -> Request
        self.tids = {}
        self.lately = {}

    @property
    def begun(self):
        """How many there were."""
        return int(repr(self._numbers)[len("count("):-1]) - 1

    @property
    def of_thread(self):
        """{ident: Request}, the innermost where an application calls another.  Made anew at each call: who serves does not pay for it."""
        return {request.ident: request for request in list(self.active.values())}

    def begin(self, environ):
        """The Request that the calling thread begins to serve."""
        request = Request()
        request.number, request.ident, request.environ, request.agent = self.next(), get_ident(), environ, self.agent
        request.began = _monotonic()
        self.active[request.number] = request
        request.active_at_start = len(self.active)
        if request.ident not in self.tids:
            self.learn(request.ident)
        return request

    def learn(self, ident):
        """Note the kernel's number of the calling thread."""
        if len(self.tids) >= TIDS_MOST:
            self.tids.clear()
        self.tids[ident] = get_native_id()

    def forked(self):
        """In the child of a fork: what its parent serves is not its own."""
        self.active.clear()
        self.tids.clear()
        self.lately.clear()

    def was_long(self, request):
        """Note one that has ended, without its environ."""
        if len(self.lately) >= TIDS_MOST:
            self.lately.clear()
        began = request.began_wall
        self.lately[request.ident] = Ended(request.log_id, request.thread_id, request.method, request.path, began,
                                           began + request.ended - request.began, request.origin)

    def at(self, wall):
        """{ident: Request or Ended} of what was served at a time (wall seconds), as far as it is known."""
        found = {ident: each for ident, each in list(self.lately.items()) if each.began_wall <= wall <= each.ended_wall}
        found.update((ident, each) for ident, each in self.of_thread.items() if each.began_wall <= wall)
        return found

    def end(self, request):
        """Whether it has just ended; may be called by another thread than began it, and twice."""
        if self.active.get(request.number) is not request:
            return False                # it has ended before, or it is one of the process that this one was forked from
        del self.active[request.number]
        request.ended = _monotonic()
        return True
