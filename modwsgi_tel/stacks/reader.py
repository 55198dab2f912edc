"""A look at a process: its threads with their stacks, names, requests, and what the kernel says of them."""
import os
import struct
import time

from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import threads as kernel
from modwsgi_tel.proc.access import explain
from modwsgi_tel.stacks.compare import idle
from modwsgi_tel.stacks.held import Held
from modwsgi_tel.stacks.memory import Limited, ProcessMemory, Unreadable
from modwsgi_tel.stacks.model import MOVING, WAITING, Stacks, ThreadStack
from modwsgi_tel.stacks.objects import Objects, shown_value
from modwsgi_tel.stacks.requests import Requests
from modwsgi_tel.stacks.runtime import locate
from modwsgi_tel.stacks.sources import Rights, Sources
from modwsgi_tel.stacks.walker import HURRIED_TRIES, Walker

_TICKS = os.sysconf("SC_CLK_TCK")
_NAMES_FOR = 50                         # looks: then the names of threads are read anew
_NAME_TRIES = 5
_MOST_NAMES = 4096
_LONGEST_NAME = 100
_TID_IN_PTHREAD = (720, 208)            # struct pthread.tid of glibc on x86-64, and of others; else it is looked for
_PTHREAD = 2048
_AGREEING = 8                           # threads whose ids are known: where theirs lie, that of another one does
_C_STACK, _SMALLEST_C_STACK = 1 << 18, 1 << 12      # bytes of a thread's C stack in which a frame is looked for
_MOST_VALUES = 64                       # variables of one frame

_NOT_HERE = "cut: the core holds no whole stack of it"      # a core does not move


class Looker:
    """Threads out of memory alone, of a process or of a core.

    memory: `read(address, size)`, which raises Unreadable.  runtime: runtime.Runtime.
    """

    def __init__(self, memory, runtime):
        self.runtime = runtime
        self._memory = memory = Limited(memory)
        self.read = self._read = memory.read
        self.objects = Objects(memory, runtime.layout)
        self.walker = Walker(memory, runtime, self.objects)
        self._requests = Requests(self.walker, self.objects)
        self.thorough = True            # whether requests are looked for where it takes long
        self.held = {}                  # what the last look saw: {native tid: [(ThreadState, Raw), ...], innermost first}
        self.idents = {}                # {ident: native tid} of the last look
        self._names, self._named, self._looks = {}, set(), 0
        self._pthread_tid = None
        self._tasks = set()             # the process's, when they were last asked for

    def look(self, values=False, requests=True, tids=None, stop=None):
        """([(native tid or None, ThreadStack)], [interpreter ids], None or why threads are missing, ids that collect or None).

        tids: gives the ids of the process's threads, in its own namespace; asked where they are needed.  stop: gives for one
        of these, or for None, a context in which that thread stands still, if it can be; for the one with the GIL.
        Raises Unreadable where there is no Python any more.
        """
        walker = self.walker
        self.anew()
        walker.new_look()
        self._requests.new_look()
        interpreters = walker.interpreters()
        states, problem = walker.threads(interpreters)
        collecting = walker.collecting(interpreters, states)
        natives = self.idents = self.natives(states, tids)
        self.held = {}
        threads = {}
        for state in sorted(states, key=lambda each: not each.owns_gil):     # first the one that may move any moment
            threads.setdefault(state.ident or state.address, []).append(
                (state, *(self._stopped(state, natives, stop) if state.owns_gil and stop else walker.stack(state))))
        self._sorted_out(threads)
        self._name(interpreters, states)
        order = {key: place for place, state in enumerate(states) for key in (state.ident, state.address)}
        found = [(natives.get(parts[0][0].ident), self._merged(parts, values, requests, natives.get(parts[0][0].ident)))
                 for _, parts in sorted(threads.items(), key=lambda item: -order[item[0]])]
        self._looks += 1
        return found, [each.id for each in interpreters], problem, collecting

    def anew(self):
        """As much may be read again as one look may read."""
        self._memory.anew()

    def _sorted_out(self, threads):
        """Takes out of a thread's parts those that another one runs.

        Up to 3.12 a sub-interpreter's thread state that Python made itself (_xxsubinterpreters; not mod_wsgi's) has the
        ident of the thread that made it, whoever runs it.  glibc has what an ident points to at the upper end of its stack.
        """
        for key, parts in list(threads.items()):
            live = [part for part in parts if part[1] or part[2]]
            for part in live if len(live) > 1 and self.runtime.layout.version < (3, 13) else ():
                state, _, _, raw = part
                depth = raw.depth if raw is not None else 0
                if not depth and state.interpreter == min(each[0].interpreter for each in live):
                    continue
                runs = (min((ident for ident in threads if ident >= depth), default=key) if depth else
                        self._runner(raw.frames[0][0], threads) if raw is not None else 0)
                if runs == key:
                    continue
                parts.remove(part)
                if runs:
                    threads[runs].append(part)
                else:                   # up to 3.9 nothing else tells
                    threads[state.address] = [(state._replace(ident=0), *part[1:])]

    def _runner(self, frame, idents):
        """The ident of the one thread that has a frame's address on its C stack, as who runs it has; 0 where that is not one.

        With glibc an ident points to the upper end of the stack, but for the main thread, which is left out.
        """
        found, wanted = [], struct.pack("<Q", frame)
        for ident in idents:
            size = _C_STACK
            while size >= _SMALLEST_C_STACK:
                try:
                    if wanted in self._read(ident - size, size):
                        found.append(ident)
                    break
                except Unreadable:
                    size //= 2          # its stack is smaller, or lies elsewhere
        return found[0] if len(found) == 1 else 0

    def _stopped(self, state, natives, stop):
        with stop(natives.get(state.ident)):
            return self.walker.stack(state)

    def _merged(self, parts, values, requests, native):
        """One ThreadStack of the states that an OS thread has, one in each interpreter that it has been to."""
        live = [part for part in parts if part[1] or part[2]]
        if len(live) > 1:
            # the one whose frame lies lowest on the C stack runs inside of the others; else the one with the GIL, the youngest
            deep = all(raw is not None and raw.depth for _, _, _, raw in live)
            live.sort(key=lambda part: part[3].depth if deep else (not part[0].owns_gil, -part[0].interpreter))
        live = live or sorted(parts, key=lambda part: (not part[0].owns_gil, part[0].interpreter))[:1]
        problem = next((problem for _, _, problem, _ in live if problem), None)
        # where one that is too deep is cut, nothing lies further out that is known to belong there
        frames = live[0][1] if problem else tuple(frame for _, found, _, _ in live for frame in found)
        shown = request = None
        if not problem and frames:
            held = [frame for _, _, _, raw in live for frame in raw.frames]
            if native is not None:
                self.held[native] = [(state, raw) for state, _, _, raw in live]
            if values:
                shown = self._values(live, held)
            if requests:
                request = self._requests.of(held, self.thorough)
        # what sub-interpreters know of a thread that they did not begin is but a number (Dummy-1)
        states = sorted((each[0] for each in [*live, *parts]), key=lambda state: state.interpreter != 0)
        name = next((self._names[key] for key in ((state.interpreter, state.ident) for state in states) if key in self._names), None)
        return ThreadStack(name=name, interpreter=live[0][0].interpreter, owns_gil=any(part[0].owns_gil for part in parts),
                           problem=problem, frames=frames, values=shown, request=request)

    def _values(self, live, held):
        """The variables of all frames; None when the thread went on while they were read."""
        shown = []
        for frame in held:
            try:
                found = self.walker.variables(frame)[:_MOST_VALUES]
                shown.append(tuple((name, shown_value(self.objects, name, value)) for name, value in found))
            except (Unreadable, struct.error):
                shown.append((("?", "<unreadable>"),))
        return tuple(shown) if all(self.walker.still(state, raw) for state, _, _, raw in live) else None

    # --- names ------------------------------------------------------------------------------------

    def _name(self, interpreters, states):
        keys = {(state.interpreter, state.ident) for state in states}
        if self._looks % _NAMES_FOR and keys <= self._named:
            return
        self._named = keys
        self._names = {}
        for interpreter in interpreters:
            for _ in range(_NAME_TRIES):
                try:
                    self._names_of(interpreter)
                    break
                except (Unreadable, struct.error):
                    continue            # threading, or what it is looked for in, is just changing

    def _names_of(self, interpreter):
        objects = self.objects
        modules = objects.word(interpreter.address + self.runtime.layout.interp_modules)
        module = objects.lookup(modules, ("threading",)).get("threading") if modules else None
        active = objects.lookup(objects.word(module + 16), ("_active",)).get("_active") if module else None
        for key, thread in objects.entries(active, _MOST_NAMES) if active else ():
            try:
                for label, value in objects.attributes(thread):
                    if objects.string(label, 32) == "_name":
                        self._names[interpreter.id, int(objects.value(key))] = objects.string(value, _LONGEST_NAME)
                        break
            except (Unreadable, struct.error, ValueError):
                continue                # one that begins or ends at this moment

    # --- thread ids -----------------------------------------------------------------------------------

    def natives(self, states, tids):
        """{ident: native tid}, without those that are not known.  tids: as for `look`.

        What a state tells is believed only of a task that the process has: who was forked without Python's knowledge, as
        uWSGI's workers are, keeps what it was in its parent.  There, and up to 3.10, the C library's own record tells.
        """
        told = {state.native for state in states if state.native}
        if not told or not told <= self._tasks:
            self._tasks = set(tids() if tids is not None else ())
        if not self._tasks:
            return {state.ident: state.native for state in states if state.native}
        natives = {state.ident: state.native for state in states if state.native in self._tasks}
        if not told or not told <= self._tasks:
            natives.update(self._by_pthread({state.ident for state in states if state.ident} - set(natives), natives))
        return natives

    def _by_pthread(self, idents, natives):
        """{ident: native tid} by what the C library keeps where an ident points to.  natives: those of others, which must agree."""
        held = {}
        for ident in (*idents, *list(natives)[:_AGREEING]):
            try:
                held[ident] = self._read(ident, _PTHREAD)
            except Unreadable:
                continue                # it has ended, or lies at the end of its memory
        left = self._tasks - set(natives.values())

        def at(place):
            kept = {ident: struct.unpack_from("<I", data, place)[0] for ident, data in held.items()}
            found = {ident: tid for ident, tid in kept.items() if ident in idents and tid in left}
            agreed = all(kept[ident] == natives[ident] for ident in natives if ident in kept)
            return found if agreed and len(set(found.values())) == len(found) else {}

        known = _TID_IN_PTHREAD if self._pthread_tid is None else (self._pthread_tid,)
        found = max(map(at, known), key=len)
        if found:
            return found                # the others have ended: a fork leaves their states behind
        for place in range(0, _PTHREAD, 4):
            found = at(place)
            if found and len(found) == sum(ident in idents for ident in held):
                self._pthread_tid = place
                return found
        return {}


class Reader:
    """Looks at a running process, any number of times.  Raises TelError, in one line, when that cannot be done."""

    def __init__(self, pid):
        self.pid = pid
        self._identity = kernel.identity(pid)
        try:
            self._memory = ProcessMemory(pid)
        except OSError as error:
            raise TelError(explain(pid, error)) from None
        try:
            maps, program = self._memory.maps(), self._memory.executable()
            runtime = locate(Limited(self._memory), maps, program, lambda: open(f"/proc/{pid}/exe", "rb"))
            self._looker = Looker(self._memory, runtime)
            self.command = kernel.command(pid)
            self._inner_pid = kernel.inner_pid(pid)
        except OSError as error:
            self.close()
            raise TelError(explain(pid, error)) from None
        except TelError as error:
            self.close()
            raise type(error)(f"process {pid}: {error}") from None
        self.python, self.address = runtime.python, runtime.address
        self._outer = {}                # {tid in the process's namespace: tid in ours}
        self._ticks = {}                # {tid: CPU ticks at the look before}

    def look(self, values=False, requests=True, detail=True, cpu=False, stopper=None):
        """The Stacks of now.  Raises TelError when the process has ended or become another program.

        values: with variables.  requests: with what each thread serves.  detail: with what the kernel says of each thread;
        without it, cpu: with the CPU time alone.  stopper: stop.Stopper, to hold the thread with the GIL while it is read.
        """
        at = time.time()
        if self._inner_pid is not None:
            self._outer = {task.inner_tid: tid for tid, task in kernel.threads(self.pid).items()}
        try:
            found, interpreters, problem, collecting = self._looker.look(
                values, requests, self._tids, stopper and (lambda native: stopper.stopped(self._outer.get(native, native))))
        except Unreadable as error:
            raise TelError(self._gone() or f"process {self.pid}: {error}; it may be starting or ending") from None
        if problem or any(thread.problem for _, thread in found) or not found:
            gone = self._gone()         # what was read then was no longer its memory
            if gone:
                raise TelError(gone)
        tasks = kernel.threads(self.pid) if detail else {}
        ticks = ({tid: task.cpu_ticks for tid, task in tasks.items()} if detail else
                 kernel.cpu_ticks(self.pid, [self._outer.get(native, native) for native, _ in found if native]) if cpu else {})
        threads = tuple(self._joined(native, thread, tasks, ticks) for native, thread in found)
        self._ticks = ticks
        return Stacks(self.pid, self._inner_pid, self._identity.start, self.command, self.python, tuple(interpreters), threads,
                      problem, at, collecting)

    def sources(self):
        """Sources of its files, to be closed: those alone that it may read itself.  They outlive it."""
        try:
            uid, gids = kernel.rights(self.pid)
        except TelError:
            uid, gids = None, ()
        started = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - self._identity.start / _TICKS)
        found = Sources(f"/proc/{self.pid}/root", f"/proc/{self.pid}/cwd", started, Rights(uid, frozenset(gids)))
        if self._gone():                # those were maybe another's
            found.close()
        return found

    def _tids(self):
        """The thread ids in the process's own namespace."""
        return kernel.tids(self.pid) if self._inner_pid is None else set(self._outer)

    def _joined(self, native, thread, tasks, ticks):
        tid = self._outer.get(native, None if self._outer else native)
        task = tasks.get(tid)
        used = None
        if tid in ticks and tid in self._ticks:
            used = max(0, ticks[tid] - self._ticks[tid]) / _TICKS
        thread = thread._replace(tid=tid, cpu_s=used)
        if task is not None:
            thread = thread._replace(state=kernel.state(task), wait=kernel.wait(task))
        # where the kernel was not asked, the frames alone decide
        return thread._replace(idle=True) if idle(thread if task is not None else thread._replace(state=WAITING)) else thread

    def _gone(self):
        """Why nothing can be read any more, or None."""
        try:
            if kernel.has_ended(self.pid):
                return f"process {self.pid} has ended"
            now, before = kernel.identity(self.pid), self._identity
            if now.start == before.start and before.stack and not now.stack:
                return f"process {self.pid} has ended"      # it is just ending: its memory goes first
            if now != before:
                return f"process {self.pid} has become another program (exec), or is another process now"
        except TelError:
            return f"process {self.pid} has ended"
        return None

    def held(self):
        """What its frames hold, as of the last look: a held.Held."""
        return Held(self._looker, self._outer)

    def inside(self):
        """(its memory, its runtime.Runtime), for looks at other things than stacks."""
        return self._memory, self._looker.runtime

    def hurry(self):
        """For who looks many times a second: a thread that moves is given up sooner."""
        self._looker.walker.tries = HURRIED_TRIES
        self._looker.thorough = False

    def close(self):
        self._memory.close()


def look_at_core(core, values=False):
    """The Stacks of a corefile.CoreFile: the thread that took the signal first.  Raises TelError."""
    runtime = locate(core, core.maps(), core.executable(), core.open_executable)
    looker = Looker(core, runtime)
    try:
        found, interpreters, problem, collecting = looker.look(values, True, lambda: [each.tid for each in core.threads])
    except Unreadable as error:
        raise TelError(f"no threads can be read: {error}") from None
    order = {each.tid: place for place, each in enumerate(core.threads)}
    threads = [thread._replace(tid=native, problem=_NOT_HERE if thread.problem == MOVING else thread.problem)
               for native, thread in sorted(found, key=lambda each: order.get(each[0], len(order)))]
    return Stacks(core.pid, None, None, core.command, runtime.python, tuple(interpreters), tuple(threads), problem, core.at,
                  collecting)
