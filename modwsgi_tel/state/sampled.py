"""What the kernel says of the processes, sampled: their descriptors, threads, switches, memory, state.

    sampling.due(fleet, now, asked) -> [[pid, whether to ask for pss]]        # who is to be looked at now
    sampling.add(fleet, pid, said, now, wall)                                   # what proc.samples said of it

Only of processes whose pid the kernel told and whose start /proc told: what is said of another start is dropped.  Of each the newest
sample is kept, and the number of its descriptors over SPAN_S; nothing is added up forever.

A round goes over all processes every ROUND_S, MOST of them at most, who was asked longest ago first: so its cost is bounded, and
each of 640 processes is looked at every 100 s.  One that falls silent is looked at as soon as that is noticed.
"""
from array import array
from collections import namedtuple

ROUND_S = 10.0                          # between two samples of a process
MOST = 64                               # processes in one look
PSS_S, PSS_REFUSED_S = 60.0, 600.0      # between two questions for pss
SPAN_S = 600.0                          # for so long the numbers of descriptors are kept
POINTS = 62
_SOON = 0.9                             # of ROUND_S: the clock of a round is not exact

Sample = namedtuple("Sample", "now wall state wait threads files files_limit voluntary involuntary")
Sample.__doc__ = """A look at a process.  now, wall: when.  state: a letter.  wait: text or None.  voluntary, involuntary: context switches
per second since the look before.  What is not known is None."""


class Kernel:
    """What is kept of one process."""

    __slots__ = ("asked_now", "pss_asked_now", "newest", "pss_bytes", "unknown", "_switches", "_files")

    def __init__(self):
        self.asked_now = self.pss_asked_now = float("-inf")
        self.newest = None              # a Sample
        self.pss_bytes = None
        self.unknown = {}               # "files" or "pss": why it could not be read
        self._switches = None           # (at, voluntary, involuntary) of the newest
        self._files = array("d")        # now, files, now, files ...

    def wants_pss(self, now):
        refused = self.pss_bytes is None and self.pss_asked_now > float("-inf")
        return now - self.pss_asked_now >= (PSS_REFUSED_S if refused else PSS_S)

    def add(self, said, now, wall):
        """Keep what proc.samples said."""
        told = said["at"], said["voluntary_switches"], said["involuntary_switches"]
        before, self._switches = self._switches, told
        self.newest = Sample(now, wall, said["state"], said["wait"], said["threads"], said["files"], said["files_limit"],
                             *(_rate(before, told, place) for place in (1, 2)))
        kept = {} if "pss_bytes" in said else {part: why for part, why in self.unknown.items() if part == "pss"}
        self.unknown = {**kept, **said["unknown"]}
        self.pss_bytes = said.get("pss_bytes", self.pss_bytes)
        if said["files"] is not None:
            self._files.extend((now, said["files"]))
            while self._files[0] < now - SPAN_S or len(self._files) > 2 * POINTS:
                del self._files[:2]

    def files(self):
        """[(now, files)] of the last SPAN_S, oldest first."""
        return list(zip(self._files[::2], map(int, self._files[1::2])))

    def grown(self):
        """(files, seconds): by how much their number has changed, since when; (None, None) where that is not known."""
        if len(self._files) < 4:
            return None, None
        return int(self._files[-1] - self._files[1]), self._files[-2] - self._files[0]


def _rate(before, after, place):
    if before is None or before[place] is None or after[place] is None or after[0] <= before[0] or after[place] < before[place]:
        return None                     # threads that have ended took theirs with them
    return (after[place] - before[place]) / (after[0] - before[0])


def may_sample(process):
    """Whether /proc/PID is this process's: by what the kernel and /proc told, not by what its datagrams say."""
    return not process.ended and process.checkable and process.trust.start is not None


class Sampling:
    """Whose turn it is.  samples: how many were kept.  problem: why something could not be read, as it was said last, or None."""

    def __init__(self):
        self.samples = 0
        self.problem = None
        self._round_now = float("-inf")

    def due(self, fleet, now, asked=()):
        """[[pid, whether to ask for its pss]] to look at now; asked: pids that /proc is asked about anyway, new ones among them."""
        found = {}
        for pid in asked:
            if any(process.kernel is None and not process.ended for process in fleet.of_sender(pid)):
                _ask(found, pid, None, now)
        for process in fleet.troubled:
            if process.silent_now is not None and may_sample(process) and (
                    process.kernel is None or process.kernel.asked_now < process.silent_now + process.silence_limit()):
                _ask(found, process.who.sender_pid, process, now)
        if now - self._round_now >= ROUND_S:
            self._round_now = now
            waiting = [process for process in fleet.processes() if may_sample(process) and (
                process.kernel is None or now - process.kernel.asked_now >= _SOON * ROUND_S)]
            waiting.sort(key=lambda process: process.kernel.asked_now if process.kernel else float("-inf"))
            for process in waiting:
                _ask(found, process.who.sender_pid, process, now)
        return [[pid, with_pss] for pid, with_pss in found.items()]

    def add(self, fleet, pid, said, now, wall):
        """Keep what was said of a pid; said: as proc.samples has it, checked to be of our helper."""
        for process in fleet.of_sender(pid):
            if may_sample(process) and said["start"] == process.trust.start:
                if process.kernel is None:
                    process.kernel = Kernel()
                process.kernel.add(said, now, wall)
                self.samples += 1
                self.problem = next(iter(said["unknown"].values()), self.problem)


def _ask(found, pid, process, now):
    if pid in found or len(found) >= MOST:
        return
    with_pss = False
    if process is not None:
        if process.kernel is None:
            process.kernel = Kernel()
        kernel = process.kernel
        with_pss = kernel.wants_pss(now)
        kernel.asked_now = now
        if with_pss:
            kernel.pss_asked_now = now
    found[pid] = with_pss


def view(process, short=False):
    """JSON of what is kept of a process, or None; short: for a row of a table."""
    kernel = process.kernel
    if kernel is None or kernel.newest is None:
        return None
    newest = kernel.newest
    row = {"sampled_at": newest.wall, "state": newest.state, "threads": newest.threads, "files": newest.files,
           "files_limit": newest.files_limit}
    if short:
        return row
    grown, seconds = kernel.grown()
    return {**row, "wait": newest.wait, "files_grown": grown, "files_grown_s": seconds, "voluntary_switches_per_s": newest.voluntary,
            "involuntary_switches_per_s": newest.involuntary, "pss_bytes": kernel.pss_bytes, "unknown": dict(kernel.unknown)}
