"""The agent of this interpreter: joins the modules beside it.

Who calls what: threads that serve requests call `begin`, `status`, `failed` and `end`; the monitor's thread does all the rest, sends
everything and is the only one that waits.  No exception leaves any of it; `errors` counts them and keeps the last.

A process is reported on from its start where it is known to be a worker (server.is_worker), else from its first request on: a master
that imports the application and then forks has no thread of ours.  A child of a fork has its own agent, which begins when it serves a
request, or at once where its server forks it for that.
"""
import atexit
import errno
import fcntl
import os
import resource
import signal
import threading
import time
from _operator import _compare_digest      # what hmac has, without 3.6 MiB of OpenSSL
from _thread import get_ident
from collections import deque

from modwsgi_tel import __version__
from modwsgi_tel.agent import server, threads, values, waits
from modwsgi_tel.agent.control import Control
from modwsgi_tel.agent.dumps import Dumps
from modwsgi_tel.agent.emitter import Emitter
from modwsgi_tel.agent.exceptions import Exceptions, type_text
from modwsgi_tel.agent.journal import Journal
from modwsgi_tel.agent.lateness import Lateness
from modwsgi_tel.agent.locations import Locations
from modwsgi_tel.agent.long import Long, known
from modwsgi_tel.agent.memory import Memory
from modwsgi_tel.agent.middleware import Middleware
from modwsgi_tel.agent.monitor import Monitor, close_own, identity
from modwsgi_tel.agent.pauses import Pauses
from modwsgi_tel.agent.requests import KEY, Requests
from modwsgi_tel.agent.sender import Sender
from modwsgi_tel.agent.watchdog import Watchdog
from modwsgi_tel.masking import pattern
from modwsgi_tel.wire.fields import AGENT_NUMBER, AGENT_STATE

LOOK_S = 1.0                            # between two looks with a request; not more than the threshold
EARLY_MOST = 1000
DESCRIPTORS = 32                        # that are left to the application, and for the agent's own
MIDDLEWARES_MOST = 100
STATE_S = 10.0                          # between two records of the agent's own state, while it is awake anyway
SECRET_PATH = "/modwsgi-tel-stacks/"
ERROR_LENGTH = 200
DRAIN_TURN_S, DRAIN_QUIET_S = 0.005, 0.03
FINISH_S = 0.25                         # the last words wait for the collector no longer


class Agent:
    """One agent; `start` makes it report."""

    def __init__(self, settings):
        self.settings = settings
        self.errors, self.error = 0, ""
        self.threshold = settings.threshold
        self.look_s = min(LOOK_S, settings.threshold)
        self._secrets = pattern(settings.secrets)
        self.secret = settings.secret   # for the middleware: whether to ask secret_dump
        self.timers = self.scripts = None
        self.running = False            # whether the monitor runs in this very process
        self.ended = False              # whether it is stopped for good, or about to be
        self._starting = threading.Lock()
        self._again_at, self._pause_s = float("-inf"), 60.0     # after a start that failed
        self.has_quick = False          # whether an application is watched by `quick`
        self.middlewares = []           # each Middleware, for what it counts
        self.requests = Requests()
        self._clear()
        os.register_at_fork(after_in_child=self._forked)
        server.on_fork(lambda: self._forked(True))
        atexit.register(self.stop)

    def _clear(self):
        """What belongs to one process."""
        self.monitor = self.emitter = self.exceptions = self.watchdog = self.control = self.pauses = None
        self.long = self.sender = self.lateness = self.memory = None
        self._early = deque(maxlen=EARLY_MOST)      # requests that ended while the agent began
        self._lock = self._stopping = None
        self.look_at = 0.0              # from then on a request calls `look`

    # --- the life of it ---------------------------------------------------------------------

    def start(self, environ=None):
        """Begin to report, once; False where that cannot be.  environ: of the first request, where there is one: it names the server."""
        if self.running:
            return True
        if self.ended or time.monotonic() < self._again_at or not self._starting.acquire(blocking=False):
            return False                # another thread is at it
        try:
            if not self.running:
                self._check_room()
                self._start(environ)
        except Exception as error:
            self._failed_start(error)
        finally:
            self._starting.release()
        return self.running

    def _start(self, environ):
        settings, module = self.settings, server.mod_wsgi()
        self.problems = [*settings.problems, server.lacks_threads()]
        number = self._elect()
        self.requests.agent = number
        self.sender = sender = Sender(settings.socket, number)
        self.journal = Journal(settings.log)
        self.locations = locations = Locations(sender)
        self.interpreter = (getattr(module, "application_group", "") or "") if module is not None else ""
        self.identity = server.identity(settings.group)
        self._identified = environ is not None
        if environ is not None:
            server.from_request(environ, self.identity, settings.group)
        self.long = Long(self.requests, sender, locations, settings, _Tools(self), self.journal)
        self.dumps = Dumps(self.requests, sender, locations, settings, self.journal)
        parts = [self.long, self.dumps, _Linger(self)]
        emits = settings.emit == "on" or settings.emit == "auto" and not server.reports_itself(module) and not server.lacks_threads()
        if settings.gc == "on" or settings.gc == "auto" and emits:
            self.pauses = Pauses(sender.offer, self.interpreter, settings.telemetry_interval)
            self.pauses.install()
        if emits:
            self.emitter = Emitter(self.requests, sender.send, settings, self.identity, number, self.pauses)
            parts.append(self.emitter)
        elif self.pauses is not None:
            parts.append(self.pauses)
        if settings.exceptions:
            self.exceptions = Exceptions(sender.offer, locations, settings)
            parts.append(self.exceptions)
        self.timers.attach(sender.offer, self.wake, settings.telemetry_interval)
        self.lateness = Lateness(sender.send, locations, settings, self.wake)
        self.memory = Memory(sender.send, locations, settings)
        parts += [self.timers, self.lateness, self.memory]
        if settings.watchdog:
            self.watchdog = Watchdog(settings.watchdog_folder, number, settings.watchdog, self.requests)
            parts.append(_WatchdogPart(self))
        if settings.control:
            self.control = Control(f"modwsgi-tel-agent.{os.getpid()}.{number}", self._answer, sender.path)
            parts.append(self.control)
        self._told, self._told_generation, self._errors_told, self._connection_told = float("-inf"), -1, False, ""
        self.monitor = Monitor(parts, self.control, self.failed_self, self._each_turn)
        if self.monitor.patched_by:
            self.problems.append(server.UNSEEN_GREENLETS.format(self.monitor.patched_by))
        for problem in filter(None, self.problems):
            self.journal.text(problem, ())
        if self.emitter is not None:
            self.emitter.started()
            while self._early:
                self.emitter.finished(self._early.popleft())
        self.monitor.start()
        self.running = True

    @staticmethod
    def _check_room():
        """Leave the last descriptors to the application.  Raises OSError."""
        if len(os.listdir("/proc/self/fd")) + DESCRIPTORS > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def _failed_start(self, error):
        """What was begun is undone, and tried again later and later: there may be no room for a thread, or for a descriptor."""
        self.failed_self(error)
        for part in (self.watchdog, self.control, self.pauses, self.lateness, self.memory, self.monitor, self.sender):
            try:
                if part is not None:
                    part.close()
            except Exception as more:
                self.failed_self(more)
        self._unlock()
        self.timers.forked()
        self._clear()
        self._again_at, self._pause_s = time.monotonic() + self._pause_s, min(2 * self._pause_s, 3600.0)
        self.say(f"the agent cannot begin: {getattr(error, 'strerror', None) or error}: the application goes on without")

    def _elect(self):
        """The number of this agent: 0 for the first of the process, a random one for those in further interpreters.

        The interpreters of a process share nothing but the process: so they lock a file that only it has.
        """
        try:
            self._lock = os.open("/proc/self/comm", os.O_RDONLY | os.O_CLOEXEC)
            self._lock_identity = identity(self._lock)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return 1 + int.from_bytes(os.urandom(4), "little") % AGENT_NUMBER
        return 0                        # no /proc: then it cannot be told

    def _unlock(self):
        lock, self._lock = self._lock, None
        if lock is not None:
            close_own(lock, self._lock_identity)

    def stop(self, reason=None, drain_s=0.0):
        """The end of the process or the interpreter: tell it, and end the thread.

        A thread that is left when a sub-interpreter ends is fatal to the process; mod_wsgi 4 runs no atexit functions there, so this
        comes with its event, and with atexit elsewhere.  drain_s: how long to wait for requests that run, so that they count too.
        """
        if not self.running or self.ended:
            return
        self.ended = True
        try:
            self._stopping = reason or ""
            if self.emitter is not None and drain_s > 0:
                self.monitor.wake()
                self._drain(drain_s)
            self.running = False
            self.monitor.stop()
            self.sender.patience(FINISH_S)
            self._tell_stopping()
            if self.emitter is not None:
                self.emitter.stopped()
            for part in (self.watchdog, self.control, self.pauses, self.lateness, self.memory, self.monitor, self.sender):
                if part is not None:
                    part.close()
            self._unlock()
        except Exception as error:
            self.failed_self(error)

    def _drain(self, seconds):
        """Wait until the requests that run are over, those too that a thread of the server had accepted by now."""
        now = time.monotonic()
        until, quiet = now + seconds, now + DRAIN_QUIET_S
        while now < until and (self.requests.active or now < quiet):
            if self.requests.active:
                quiet = now + DRAIN_QUIET_S
            time.sleep(DRAIN_TURN_S)
            now = time.monotonic()

    def _tell_stopping(self):
        """Once, that the process is going to stop."""
        reason, self._stopping = self._stopping, None
        if reason is not None and self.emitter is not None:
            self.emitter.stopping(reason)

    def _forked(self, serves=None):
        """In the child of a fork: none of the parent's threads, sockets and locks are its own.  serves: whether it is a worker."""
        try:
            was_running = self.running
            self.running = self.ended = False
            self._starting = threading.Lock()
            held = (self.watchdog, self.control, self.pauses, self.lateness, self.memory, self.monitor, self.sender)
            for part in held if was_running else ():
                if part is not None:
                    part.forked()
            self.timers.forked()        # they count before anything runs
            self._unlock()
            self._clear()
            self.requests.forked()
            if server.forks_worker() if serves is None else serves:
                self.start()
        except Exception as error:
            self.failed_self(error)

    def failed_self(self, error):
        """An exception of our own: it is counted, and goes no further."""
        self.errors += 1
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = "" if place is None else f" at {place.tb_frame.f_code.co_filename.rpartition('/')[2]}:{place.tb_lineno}"
        self.error = f"{type(error).__name__}{where}"[:ERROR_LENGTH]

    def say(self, text):
        """A line in the log."""
        Journal(self.settings.log).text(text, ())

    def wake(self):
        if self.monitor is not None:
            self.monitor.wake()

    def watched(self, application):
        """A Middleware around a WSGI application."""
        found = Middleware(application, self)
        if len(self.middlewares) < MIDDLEWARES_MOST:
            self.middlewares.append(found)
        return found

    # --- in the threads that serve requests ------------------------------------------------------

    def begin(self, environ):
        """The Request that begins now, or None when it is being watched already."""
        if KEY in environ and environ[KEY] in self.requests.active or self.has_quick and self._is_watched(environ):
            return None
        request = self.requests.begin(environ)
        try:
            environ[KEY] = request.number
        except BaseException:           # no dictionary, which WSGI says it is
            self.requests.end(request)
            raise
        if not self.running and not self.start(environ):
            return request
        if not self._identified:
            self._identified = True
            server.from_request(environ, self.identity, self.settings.group)
        if request.began >= self.look_at:
            self.look(request.began)
        return request

    def _is_watched(self, environ):
        """Whether the calling thread serves this request already, by `quick`, which leaves no mark in environ: that costs too much."""
        ident, log_id = get_ident(), environ.get("mod_wsgi.request_id")
        return any(each.ident == ident and (each.environ is environ or log_id is not None and each.environ.get("mod_wsgi.request_id") == log_id)
                   for each in list(self.requests.active.values()))

    def look(self, now):
        """What is looked at with a request, at most once a second; the monitor does not sleep for good before that second is over."""
        try:
            self.look_at = now + self.look_s
            if self.watchdog is not None:
                self.watchdog.arm(now)
            if self.scripts is not None:
                self.scripts.look()
            if not self.monitor.alive:
                self._begin_again()
            elif self.monitor.wakes_at > self.look_at:
                self.monitor.wake()
        except Exception as error:
            self.failed_self(error)

    def _begin_again(self):
        """The monitor's thread has ended, by whatever of the application's: all begins anew, at the next request."""
        if self.running and not self.ended:
            self.running = False
            self._failed_start(RuntimeError("its thread has ended"))

    def over(self, request):
        """A long request has ended, which is in `requests` no more."""
        try:
            request.ended = time.monotonic()
            if self.long.ended(request):
                self.monitor.wake()
        except Exception as error:
            self.failed_self(error)

    def status(self, request, code):
        request.status = code

    def failed(self, request, type_, value, traceback):
        """An exception left the application."""
        request.error = type_text(type_)
        if self.exceptions is not None and self.exceptions.note(type_, value, traceback, request):
            if self.monitor.wakes_at > time.monotonic() + LOOK_S:
                self.monitor.wake()

    def end(self, request):
        """It is over: its body too."""
        if not self.requests.end(request):
            return
        if self.emitter is not None:
            self.emitter.finished(request)
        elif self._starting.locked():   # by the first request, in another thread
            self._early.append(request)
        if self.long is not None and (request.watch is not None or request.ended - request.began >= self.threshold):
            if self.long.ended(request):
                self.monitor.wake()

    def annotate(self, annotations):
        request = self.requests.of_thread.get(get_ident())
        if request is not None:
            request.annotate(annotations, self._secrets)

    # --- everything at once -----------------------------------------------------------------------

    def dump(self, reason="application"):
        """The stacks of all threads, as text; sent to the collector as well, or else written to the log."""
        if not self.start():
            return ""
        found = threads.look(self.requests, self.settings)
        self.dumps.add(found, reason)
        self.monitor.wake()
        return self.dumps.text(found)

    def secret_dump(self, environ):
        """(status, headers, body) where a URL is the secret one, else None.  Whoever tries others learns nothing by its time."""
        path = environ.get("PATH_INFO")
        if not self.secret or not isinstance(path, str) or not path.startswith(SECRET_PATH):
            return None
        given = path[len(SECRET_PATH):].encode("utf-8", "replace")
        if not _compare_digest(given, self.secret.encode()):
            return None
        body = self.dump("secret URL").encode("utf-8", "replace")
        return "200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))),
                          ("Cache-Control", "no-store")], body

    def signalled(self, *_, **more):
        """mod_wsgi's signal callback, and ours: SIGUSR2."""
        if more.get("signum", signal.SIGUSR2) != signal.SIGUSR2:
            return
        try:
            self.dump("signal")
        except Exception as error:
            self.failed_self(error)

    def take_signal(self):
        """Let SIGUSR2 send the stacks; 0 or the number of the signal."""
        module, wanted = server.mod_wsgi(), self.settings.signal
        if wanted == "off":
            return 0
        if hasattr(module, "subscribe_signals") and module.process_group:
            module.subscribe_signals(self.signalled)
            return int(signal.SIGUSR2)
        if wanted == "on" and threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGUSR2) in (signal.SIG_DFL, signal.SIG_IGN):
                signal.signal(signal.SIGUSR2, lambda number, frame: self.signalled())
                return int(signal.SIGUSR2)
        return 0

    # --- in the monitor's thread --------------------------------------------------------------------

    def _each_turn(self, now):
        """After whatever woke it: tell of itself, and again what was told to a collector that has gone."""
        sender = self.sender
        self._tell_stopping()
        if sender.generation != self._told_generation and sender.connect():
            self._told_generation = sender.generation
            self._told = float("-inf")
            for part in (self.exceptions, self.timers, self.lateness):
                if part is not None:
                    part.again()
        self._tell_of_connection()
        errors = self._errors()
        if errors and not self._errors_told:
            self._errors_told = True
            self.journal.text(f"an error of the agent's own, which the application does not see: {self.error or 'in the middleware'}", ())
        if now - self._told >= STATE_S and sender.connect():
            self._told = now
            sender.send(AGENT_STATE, known(self._state()))

    def _tell_of_connection(self):
        """Say in the log, once, that nobody takes what is told, and why; and when somebody does again."""
        sender = self.sender
        if sender.problem and not sender.connected and sender.problem != self._connection_told:
            self._connection_told = sender.problem
            self.journal.text(f"no collector takes what this tells: {sender.problem}: start modwsgi-tel serve --listen unix:{sender.path}, let "
                              "this user write to it, or set socket; until then what is slow is written here", ())
        elif self._connection_told and sender.connected:
            self._connection_told = ""
            self.journal.text(f"a collector takes it now: {sender.path}", ())

    def _state(self):
        requests, long, monitor = self.requests, self.long, self.monitor
        switched = {"locals": self.settings.locals, "telemetry": self.emitter, "gc": self.pauses, "exceptions": self.exceptions,
                    "watchdog": self.watchdog is not None and self.watchdog.path, "control": self.control, "secret": self.secret, "loops": self.lateness.watched,
                    "tracemalloc": self.memory.tracing}
        problems = [*self.problems, self.watchdog.problem if self.watchdog is not None else "",
                    self.control.problem if self.control is not None else "", self.lateness.problem,
                    f"its own error: {self.error}" if self.error else ""]
        return {"agent_version": __version__, "agent_emits": int(self.emitter is not None), "agent_server": server.name() or None,
                "interpreter_name": self.interpreter or None, "agent_threshold": self.threshold,
                "agent_interval": self.settings.interval, "agent_socket": self.control.name if self.control is not None else None,
                "agent_signal": self.signal, "agent_switches": ",".join(name for name, on in switched.items() if on),
                "agent_watchdog_file": self.watchdog.path if self.watchdog is not None else None,
                "agent_problem": "; ".join(filter(None, problems)) or None, "agent_lost": self.sender.lost,
                "agent_errors": self._errors(), "agent_wakeups": monitor.wakeups, "agent_begun": requests.begun,
                "agent_in_flight": len(requests.active), "agent_ignored": long.ignored, "agent_unwatched": long.unwatched}

    signal = 0

    def _errors(self):
        """How many, with those that others count themselves."""
        held = self.timers, self.lateness, self.emitter, self.pauses, self.control, *self.middlewares
        return self.errors + sum(each.errors for each in held if each is not None)

    def _answer(self, request):
        """What the control socket was asked; TelError and ValueError say why not."""
        what = request.get("do")
        if what == "stacks":
            if request.get("locals") and not self.settings.locals:
                return {"error": "the application does not allow variables: agent.install(locals=True)"}
            return threads.answer(self.requests, self.settings, bool(request.get("locals")))
        if what == "state":
            return {"state": {"monitor_tid": self.monitor.tid, **{name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
                              for name, value in self._state().items() if value is not None}}}
        if what == "tracemalloc":
            return self.memory.asked(request)
        return {"error": f"no such question: {str(what)[:40]}"}


class _Tools:
    """What Long uses of other modules; see there."""

    def __init__(self, agent):
        self._agent = agent
        self._secrets = pattern(agent.settings.secrets)

    kernel = staticmethod(threads.kernel)
    stack = staticmethod(threads.stack)
    waits = staticmethod(waits.waits)

    def tids(self):
        return threads.tids(self._agent.requests)

    def values(self, frame):
        settings = self._agent.settings
        return values.frame_values(frame, self._secrets, settings.reprs)


class _Linger:
    """Keeps the monitor from sleeping for good while requests may begin that do not wake it."""

    def __init__(self, agent):
        self._agent = agent

    def due(self):
        return self._agent.look_at if self._agent.look_at > time.monotonic() else None

    def run(self, now):
        pass                            # that it is awake is enough: the other parts are asked when they are due


class _WatchdogPart:
    """The watchdog in the monitor: pushed back each second while requests are in flight; what it wrote is sent."""

    def __init__(self, agent):
        self._agent = agent

    def due(self):
        return self._agent.watchdog.due(bool(self._agent.requests.active))

    def run(self, now):
        agent = self._agent
        agent.watchdog.run(now, bool(agent.requests.active))
        found = agent.watchdog.picked()
        if found:
            agent.dumps.add(found, "watchdog")
