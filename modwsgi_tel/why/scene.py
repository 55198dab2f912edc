"""A scene: what was seen of some servers during a few seconds, as plain data; and what follows from it without any judgement.

A Scene holds Processes; each Process holds its looks; out of these come its Runs, the requests as they were seen.
"""
import re
from collections import Counter, namedtuple

from modwsgi_tel.proc.roles import CHILD
from modwsgi_tel.stacks.model import RUNNING, WAITING, is_whole

SWITCHES_MOST = 4                       # of a thread between two looks: a whole request takes more
SAME_START_S = 0.001                    # two requests of one thread do not begin closer together
_LIBRARY = re.compile(r"/(site|dist)-packages/|/lib/python3[.\d]*/|/lib/pypy3[.\d]*/|^<frozen|\.zip/|^<string>$")
_SERVER = re.compile(r"/(gunicorn|waitress|cheroot|uvicorn|wsgiref)/|/(socketserver|http/server)\.py$")
_PACKAGES = re.compile(r"/(site|dist)-packages/")
_BOOTSTRAP = ("_bootstrap", "Thread._bootstrap")
_SERVERS = ("/gunicorn/workers/", "/waitress/task.py", "/wsgiref/handlers.py", "/wsgiref/simple_server.py", "/cheroot/", "/uvicorn/")

Scene = namedtuple("Scene", "at seconds since processes parents members host logs configs listeners telemetry kernel looked gone born "
                   "unknown root group imports collectors alone", defaults=(False,))
Scene.__doc__ = """What was seen.

at: wall seconds of the end.  seconds: how long it was looked at.  since: wall, from when on logs count.  processes: [Process].
parents: [Member] of Apache's, gunicorn's and uWSGI's parents.  members: of all.  host: as proc.host.between.
logs: {parent's pid: logfiles' Reading}.
configs: {parent's pid: apache.config.Config}.  listeners: [[Socket] at each look] of listening unix sockets.
telemetry: what a collector says, or None.  kernel: events of the kernel's log.  looked: how many looks were taken.
gone, born: [Member] that ended or began meanwhile.  unknown: [one line each] of what could not be looked at.
root: whether this is root.  group: the one that was asked for, or "".
imports: {a script that could not be loaded: "file:line" of the import that failed, or ""}.
collectors: [Member] of modwsgi-tel's own.  alone: whether one process was asked for, so that the others of its group are not here."""

Look = namedtuple("Look", "at stacks waits switches writers wanting", defaults=((), None))
Look.__doc__ = """One look at a process: monotonic seconds, its Stacks, {tid: what its system call waits for} and {tid: voluntary switches}
of the threads that served something.  writers: {tid: wait} of mod_wsgi's threads that hand a response on, outside of any Python frame.
wanting: the ids of all threads that wait for the GIL, also of those without frames; None where that cannot be told."""

Sample = namedtuple("Sample", "place at thread frame wait switches")
Sample.__doc__ = """A thread that serves, at one look.  place: the look's number.  frame: the innermost Frame of the application."""


class Process:
    """One process that serves, with what was read of it.  What could not be read is None, and `problem` says why there are no stacks."""

    def __init__(self, member):
        self.member = member
        self.before = self.after = self.rates = None        # proc.details
        self.limits = self.cgroup = self.descriptors = None
        self.files = []                 # open descriptors at some times
        self.rss = []
        self.looks = []
        self.locks, self.cycles = [], []
        self.grown = []                 # (Container before, after)
        self.largest = []               # Containers, where its memory is limited
        self.daemon = None              # apache.config.Daemon
        self.threads = None             # request threads, as the configuration says
        self.agent = False
        self.problem = ""
        self.lines = {}                 # (file, line) -> the source there, where it may be read

    @property
    def pid(self):
        return self.member.pid

    @property
    def group(self):
        """The group that most requests tell (one may be read while it changes), before what the title shows."""
        told = Counter(thread.request.process_group for look in self.looks for thread in look.stacks.threads
                       if thread.request is not None and thread.request.process_group)
        if told:
            return told.most_common(1)[0][0]
        return self.member.group or (self.daemon.group if self.daemon is not None else "")

    @property
    def name(self):
        return self.group or ("(embedded)" if self.member.role == CHILD else self.member.server)

    def source(self, frame):
        """The source line of a Frame, "" where it is not known."""
        return self.lines.get((frame.file, frame.line), "")

    def samples(self):
        """[Sample] of its serving threads, oldest look first."""
        out = []
        for place, look in enumerate(self.looks):
            for thread in look.stacks.threads:
                if serves(thread, self.member.server):
                    out.append(Sample(place, look.stacks.at or 0.0, thread, application_frame(thread.frames), look.waits.get(thread.tid),
                                      look.switches.get(thread.tid)))
        return out

    def runs(self):
        """[Run]: the requests that were seen."""
        found, current = [], {}
        for sample in self.samples():
            run = current.get(sample.thread.tid)
            if run is None or not run.goes_on(sample):
                run = current[sample.thread.tid] = Run(self, sample)
                found.append(run)
            else:
                run.samples.append(sample)
        return found

    def busy(self):
        """How many threads served at each look."""
        counts = Counter(sample.place for sample in self.samples())
        return [counts.get(place, 0) for place in range(len(self.looks))]


class Run:
    """One request as it was seen at one look or more."""

    def __init__(self, process, sample):
        self.process, self.samples = process, [sample]

    def goes_on(self, sample):
        """Whether this is the same request, still there."""
        last = self.samples[-1]
        if sample.place != last.place + 1:
            return False
        before, now = last.thread.request, sample.thread.request
        if before is not None and now is not None:
            if before.request_id is not None or now.request_id is not None:
                return before.request_id == now.request_id
            if before.started is not None and now.started is not None:
                return abs(before.started - now.started) < SAME_START_S
            if before.path != now.path:
                return False
        elif before is now and self.process.member.server == "apache":      # the body of a response: its generator holds no environ
            return _overlap(last.thread, sample.thread) and _few(last.switches, sample.switches)
        elif before is not now:
            return False
        # nothing tells them apart: the same while it has not woken up, or goes on to work in the same call
        if last.switches is not None and last.switches == sample.switches:
            return True
        return _overlap(last.thread, sample.thread) and last.thread.state == RUNNING == sample.thread.state

    @property
    def request(self):
        return next((sample.thread.request for sample in self.samples if sample.thread.request is not None), None)

    @property
    def tid(self):
        return self.samples[0].thread.tid

    @property
    def age_s(self):
        """For how long it runs at least, at the last look that saw it."""
        started = self.request.started if self.request is not None else None
        begin = self.samples[0].at if started is None else min(started, self.samples[0].at)
        return max(0.0, self.samples[-1].at - begin)

    @property
    def queued_s(self):
        return self.request.queued_s if self.request is not None else None

    @property
    def served_s(self):
        """For how long a thread serves it at least, at the last look that saw it: its age without what it waited for one."""
        return max(0.0, self.age_s - (self.queued_s or 0.0))

    @property
    def path(self):
        return (self.request.path if self.request is not None else None) or ""

    @property
    def label(self):
        """What it is, as `GET /report`."""
        request = self.request
        if request is None or not request.path:
            return "a request whose path is not known"
        return f"{request.method or '?'} {request.path}"

    @property
    def last(self):
        return self.samples[-1]

    def frame(self):
        """The Frame of the application at which it was most often, as far as it was read."""
        frames = Counter(sample.frame for sample in self.samples if sample.frame is not None)
        return frames.most_common(1)[0][0] if frames else None


def _few(before, now):
    """Whether a thread has slept so seldom between two looks that it has not ended one request and begun another."""
    return before is not None and now is not None and now - before <= SWITCHES_MOST


def _overlap(before, now):
    """Whether two stacks have the same outermost call."""
    return bool(before.frames) and bool(now.frames) and before.frames[-1].function == now.frames[-1].function


def is_library(file):
    """Whether a file is Python's own, an installed package's or a WSGI server's."""
    return _LIBRARY.search(file) is not None


def application_frame(frames):
    """The innermost Frame of the application; None of no frames.  frames: innermost first.

    Of a stack without any, as of an application that is installed as a package, the innermost of a package, else the innermost.
    """
    return next((frame for frame in frames if not is_library(frame.file)),
                next((frame for frame in frames if _PACKAGES.search(frame.file)), frames[0] if frames else None))


def serves(thread, server):
    """Whether a ThreadStack serves a request now, as far as its stack tells.

    mod_wsgi makes its threads in C and calls the application first: what has frames there, and was not begun by Python's
    threading, serves.  Elsewhere a request's environ or the server's own frames tell.
    """
    if thread.idle or not thread.frames:
        return False
    outermost = thread.frames[-1]
    if server == "apache":
        # threading's: a thread of its own, or the main one that waits for these at the process's end
        return (not outermost.file.endswith("/threading.py") and outermost.function not in _BOOTSTRAP
                and not outermost.file.startswith("<frozen importlib"))
    if thread.request is not None:
        return True
    return any(part in frame.file for frame in thread.frames for part in _SERVERS) and not _is_waiting_server(thread)


def works_behind(threads, server):
    """[ThreadStack] of those that serve nothing themselves and are in the application's code: of a pool, for one."""
    return [thread for thread in threads if thread.tid is not None and not thread.idle and thread.frames and not serves(thread, server)
            and any(not is_library(frame.file) for frame in thread.frames)]


def _is_waiting_server(thread):
    """Whether a server's thread is in its own code alone: it waits for the next connection."""
    return all(is_library(frame.file) for frame in thread.frames)


def is_server_at_work(frames):
    """Whether a stack is a Python server's own: it takes connections, parses requests or hands them to its threads.

    Nothing of the application is in it.
    """
    return all(is_library(frame.file) for frame in frames) and any(_SERVER.search(frame.file) for frame in frames)


def is_client(wait):
    """Whether a wait is for who sent the request: Apache's child, or the client itself."""
    return wait["kind"] in ("tcp", "unix") and (wait.get("service") == "mod_wsgi" or bool(wait.get("incoming")))


def wants_gil(thread, look):
    """Whether a thread wants the GIL.  Where the kernel does not tell: one with frames that is neither running nor in a wait that its
    frames tell; that may be a lock of C's too."""
    if look.wanting is not None:
        return thread.tid in look.wanting
    wait = (thread.wait or "").partition(" ")[0]
    return (bool(thread.frames) and thread.state == WAITING and not thread.owns_gil and not thread.idle and wait == "futex"
            and is_whole(thread))


def place_of(frame):
    """`file:line` of a Frame, whole."""
    return f"{frame.file}:{'?' if frame.line is None else frame.line}"


def short_place(frame):
    """The same with the last part of the path alone."""
    return f"{frame.file.rpartition('/')[2]}:{'?' if frame.line is None else frame.line}"
