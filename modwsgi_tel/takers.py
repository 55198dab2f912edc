"""The collector takes stacks: short-lived helper processes read, or ask the helper service to; the loop never waits.

Questions and answers are those of `onetake`.
"""
import json
import socket
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.net.helper import Helper
from modwsgi_tel.stacks.model import AWAY, DENIED, FAILED, GONE, REFUSED, stacks_of_table
from modwsgi_tel.state.taken import AGENT

LIMIT_S = 5.0                           # for one take; then the helper is killed
SERVICE_S = 4.0                         # for the helper service to answer
_ANSWER_BYTES = 1 << 20
_LOGGED_MOST = 32                       # reasons that are logged


# --- in a helper process ----------------------------------------------------------------------

def take(question):
    """Read here; an answer."""
    from modwsgi_tel import onetake     # two megabytes that a day without slow requests does not need
    return onetake.take(question)


def take_by_service(question):
    """Let the helper service read; an answer.  question: its socket's path, then as for `take`."""
    path, pid, start, uid, gid = question
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as service:
            service.settimeout(SERVICE_S)
            service.connect(path)
            service.sendall(json.dumps({"pid": pid, "start": start, "uid": uid, "gid": gid}).encode() + b"\n")
            said = b""
            while len(said) <= _ANSWER_BYTES:
                part = service.recv(65536)
                if not part:
                    break
                said += part
    except OSError as error:
        return _error(AWAY, f"the helper service does not answer at {path}: {error}; see whether modwsgi-tel stack-helper "
                               "runs, and whether its socket's group is this collector's")
    if not said:
        return _error(AWAY, f"the helper service at {path} hangs up on this user: start it with --allow-uid, and see its log")
    try:
        answer = json.loads(said)
        if "stacks" in answer or {"error", "kind"} <= set(answer):
            return answer
    except (ValueError, TypeError):
        pass
    return _error(FAILED, f"what listens at {path} is no modwsgi-tel stack-helper, or it died")


def take_by_agent(question):
    """Ask the agents inside the process; an answer.  question: where the watchdog's file may be, then as for `take`."""
    from modwsgi_tel import agentclient, onetake
    files, *process = question
    wrong = onetake.another(process)
    if wrong:
        return wrong
    try:
        stacks = agentclient.stacks(process[0], files=files)
    except agentclient.Denied as error:
        return _error(DENIED, str(error))
    except (TelError, OSError) as error:
        return onetake.another(process) or _error(FAILED, str(error))
    return onetake.another(process, stacks.start) or {"stacks": onetake.bounded(stacks)}


def _error(kind, text):
    return {"error": text, "kind": kind}


# --- in the collector -------------------------------------------------------------------------

class Taker:
    """Has the stacks of processes in trouble read, one after another, at most `taken.rate` a second."""

    def __init__(self, loop, fleet, log):
        self._loop, self._fleet, self._log = loop, fleet, log
        self._taken = fleet.taken
        self.helper = Helper(loop, LIMIT_S)
        self._free_now = float("-inf")  # from when on the rate allows the next
        self._waits = False
        self._logged = set()
        self._imports = list(_READER)
        self._taken.wake = self._wake

    def second(self):
        """About a second has passed."""
        self._go()

    def _wake(self):
        self._later(0.0)

    def _later(self, seconds):
        if not self._waits:
            self._waits = True
            self._loop.after(seconds, self._waited)

    def _waited(self):
        self._waits = False
        self._go()

    def _go(self):
        taken, now = self._taken, self._loop.clock()
        if self.helper.busy:
            return                      # when it has answered the next is looked for
        if now < self._free_now:
            if taken.waits(self._fleet):
                self._later(self._free_now - now)
            return
        found = taken.next(self._fleet, now)
        if found is None:
            return
        process, why = found
        taken.begin(process, why, now)
        self._free_now = now + 1.0 / taken.rate
        question = (process.who.sender_pid, process.trust.start, process.who.uid, process.who.gid)
        if why == AGENT:
            work, question = take_by_agent, (_files(process), *question)
        elif taken.helper is None:
            work = take
        else:
            work, question = take_by_service, (taken.helper, *question)
        self.helper.ask(work, question, lambda answer: self._took(process, why, question[-3], answer))

    def _took(self, process, why, start, answer):
        self._settle(process, why, start, answer, self._loop.clock(), time.time())
        self._go()

    def _settle(self, process, why, start, answer, now, wall):
        taken = self._taken
        if answer is None:
            self._fail(process, f"a helper that read process {process.pid} died, or took longer than {LIMIT_S:g} s")
        elif "stacks" in answer:
            if process.trust.start != start:
                return                  # it has been another one for a while
            try:
                stacks = stacks_of_table(answer["stacks"])
                taken.add(self._fleet, process, why, stacks, now, wall)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                self._fail(process, f"the stacks of process {process.pid} are not as they should be: {error!r}")
                return
            if self._imports and taken.helper is None and why != AGENT:
                self._later_import()
        else:
            self._not_taken(process, answer["kind"], answer["error"], now)

    def _not_taken(self, process, kind, problem, now):
        taken = self._taken
        if kind == REFUSED:
            problem = (f"{problem}; or let stack-helper read it (--stacks-helper)" if taken.helper is None else
                       f"stack-helper: {problem}")
            taken.refuse(process, problem, now)
        elif kind == DENIED:
            taken.deny(process, problem)
        elif kind == AWAY:
            taken.away(process, problem, now)
        else:
            taken.fail(process, problem, gone=kind == GONE)
        if kind != GONE:
            self._say(problem)

    def _fail(self, process, problem):
        self._taken.fail(process, problem)
        self._say(problem)

    def _say(self, problem):
        """Log a reason once, whichever process it is about."""
        reason = "".join(letter for letter in problem if not letter.isdigit())
        if reason not in self._logged and len(self._logged) < _LOGGED_MOST:
            self._logged.add(reason)
            self._log.warning(f"no stacks: {problem}; this is said once, /api/stacks counts on")

    def _later_import(self):
        """Stacks are read here: from now on helpers inherit the reader; a module a turn, as each takes a millisecond or two."""
        self._loop.after(0.05, self._import_next)

    def _import_next(self):
        if self._imports:
            __import__(self._imports.pop(0))
            self._later_import()

    def close(self):
        self.helper.close()


def _files(process):
    """Where the agents of a process say that their watchdogs write."""
    states = process.agents.states if process.agents is not None else {}
    return [state["agent_watchdog_file"] for state in states.values() if state.get("agent_watchdog_file")]


# in the order in which they import one another
_READER = tuple("modwsgi_tel." + name for name in (
    "proc.access", "proc.threads", "proc.find", "stacks.memory", "stacks.compare", "stacks.elf", "stacks.offsets", "stacks.lines",
    "stacks.runtime", "stacks.objects", "stacks.walker", "stacks.reader", "onetake"))
