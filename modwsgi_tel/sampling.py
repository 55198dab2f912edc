"""Looks at running processes again and again, inside of a loop: what `record` and `hot` are made of."""
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import find
from modwsgi_tel.stacks.reader import Reader

RESCAN_S = 1.0                          # between two searches for new subprocesses
TRIES = 5                               # searches at which one that is no Python yet is tried again: it may be before its exec()
GAP_S = 5.0                             # a longer silence between two looks is not a function's doing


class _Process:
    """One that is looked at.  looked: when it was last, or None."""

    def __init__(self, reader, stopper):
        self.reader, self.stopper, self.looked = reader, stopper, None

    def close(self):
        self.reader.close()
        if self.stopper is not None:
            self.stopper.close()


class Sampler:
    """Looks at all processes `rate` times a second, as far as there is time.

    loop: net.loop.Loop.  readers: of the processes.  took(stacks, weight_s, now) gets each look: weight_s is the time that it
    stands for, since the look before at that process, GAP_S at most; now: the loop's clock.  gone(why) is told of a process that
    cannot be read any more, ended() when that was the last one.
    stop: hold the thread with the GIL at each look.  cpu: looks tell the CPU time of threads.  subprocesses: take up new ones,
    for as long as any process is left.

    missed: how often `stop` held nobody, of processes that are no longer looked at.

    A turn that comes late is not made up for; and there is at least as much rest between two turns as the first one took.
    """

    def __init__(self, loop, readers, rate, took, gone, ended, stop=False, cpu=False, subprocesses=False):
        self.loop, self.interval_s, self.cpu = loop, 1.0 / rate, cpu
        self.took, self.gone, self.ended = took, gone, ended
        self.paused = False
        self.missed = 0
        self._stopper = _stopper if stop else lambda pid: None
        self.processes = {}             # pid -> _Process
        self._tries = {}                # pid of a subprocess that could not be read -> searches at which it was seen
        self._due = loop.clock()
        for reader in readers:
            self._add(reader)
        loop.after(0.0, self._turn)
        if subprocesses:
            loop.every(RESCAN_S, self._rescan, slack_s=RESCAN_S / 2)

    def _add(self, reader):
        reader.hurry()
        self.processes[reader.pid] = _Process(reader, self._stopper(reader.pid))

    def pause(self, paused):
        """Take no looks for a while; that time counts for nothing."""
        self.paused = paused
        for process in self.processes.values():
            process.looked = None

    def _turn(self):
        began = self.loop.clock()
        if not self.paused:
            for process in list(self.processes.values()):
                self._look(process)
            if not self.processes:
                self.ended()
                return
        now = self.loop.clock()
        self._due += self.interval_s
        rest_s = now - began if self._due > now else max(now - began, self.interval_s)
        self._due = max(self._due, now + rest_s)
        self.loop.after(self._due - now, self._turn)

    def _look(self, process):
        now = self.loop.clock()
        try:
            stacks = process.reader.look(requests=False, detail=False, cpu=self.cpu, stopper=process.stopper)
        except TelError as error:
            self._leave(process)
            del self.processes[process.reader.pid]
            self.gone(str(error))
            return
        weight_s = self.interval_s if process.looked is None else min(now - process.looked, GAP_S)
        process.looked = now
        self.took(stacks, weight_s, now)

    def _rescan(self):
        if self.paused or not self.processes:
            return
        try:
            found = [pid for pid in find.subprocesses(list(self.processes)) if pid not in self.processes]
        except TelError:
            return                      # too many, or /proc has gone: those that are known stay
        self._tries = {pid: self._tries[pid] for pid in found if pid in self._tries}
        for pid in found:
            if self._tries.get(pid, 0) >= TRIES:
                continue
            try:
                self._add(Reader(pid))
            except TelError:
                self._tries[pid] = self._tries.get(pid, 0) + 1

    def _leave(self, process):
        process.close()
        if process.stopper is not None:
            self.missed += process.stopper.missed

    def close(self):
        for process in self.processes.values():
            self._leave(process)
        self.processes = {}


def _stopper(pid):
    from modwsgi_tel.stacks.stop import Stopper
    return Stopper(pid)
