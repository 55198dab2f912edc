"""Reads what a scene is made of: processes again and again for some seconds, and once the machine, logs, configurations and a collector.

Whatever may not be read is said in one line each; the rest goes on.
"""
import os
import time

from modwsgi_tel import agentclient
from modwsgi_tel.apache import config, daemons, errorlog, logfiles
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import cgroups, descriptors, details, host, procfs, roles, sockets
from modwsgi_tel.stacks.reader import Reader
from modwsgi_tel.stacks.runtime import NotRunning
from modwsgi_tel.why import reading, telemetry
from modwsgi_tel.why.mistakes import mistake
from modwsgi_tel.why.scene import Process, Scene

LOOKS_S = 0.15                          # between two looks at one process, at most so often
LOOKS_MOST = 400                        # they are kept to the end
PART = 0.25                             # of one core that looking may take
PROCESSES_MOST = 64                     # whose stacks are read
CROWDED = 0.9                           # of the machine's CPU time
NEIGHBOURS_MOST, CLIENT_TRIES = 5, 3
COUNTED_S = 0.5                         # between two counts of descriptors and memory
CONTAINERS_MOST = 3                     # processes whose containers are compared
_UNKNOWN_MOST = 40


class Gathering:
    """Looks from its making on; `look()` is called again and again until `pause_s()` is None, then `scene()` once."""

    def __init__(self, values, wall=time.time, clock=time.monotonic):
        self._values, self._wall, self._clock = values, wall, clock
        self._reasons = {}
        self._readers = {}
        self._processes, self._gone, self._born = {}, [], []
        self._spent, self._looked, self._counted = 0.0, 0, float("-inf")
        self._listeners, self._seen_children = [], None
        self._numbers = {}              # of pids that show no daemon group: its place in the configuration, from 1
        self._family = set()            # pids of those that were asked for, and of their parents
        self._first_contents = {}
        self._logs = set()
        try:
            self._members = self._meant()
        except TelError:
            raise
        except Exception as error:
            raise TelError(mistake("the processes", error)) from None
        if not any(member.role in roles.SERVES or member.role in (roles.PARENT, roles.MASTER) for member in self._members):
            raise TelError("no Apache, gunicorn, uWSGI or other Python server runs here" + (
                "" if os.geteuid() == 0 else ", as far as this user can see; run as root"))
        self._host = self._asked("host", host.look)
        for member in self._members:
            self._asked(f"pid {member.pid}", self._add, member)
        self._began = clock()
        self._ends = self._began + values.duration

    # --- which processes --------------------------------------------------------------------------

    def _meant(self):
        """The Members that are meant, as they are now.  At first raises TelError where there is none of that pid or group."""
        found = roles.members()
        self._collectors = [member for member in found if member.role == roles.COLLECTOR]
        servers = {member.pid for member in found if member.role in (roles.PARENT, roles.MASTER)}
        if self._values.pid:
            self._family = self._family or self._of_pid(found)
            return [member for member in found if member.pid in self._family
                    or member.parent == self._values.pid and member.role != roles.PYTHON]
        if self._values.group:
            self._family = self._family or self._of_group(found)
            return [member for member in found if member.pid in self._family or member.group == self._values.group or
                    member.role == roles.DAEMON and not member.group and member.parent in self._family]     # its requests tell its group
        if servers or any(member.role == roles.WORKER for member in found):
            return [member for member in found if member.role not in (roles.PYTHON, roles.COLLECTOR)]
        return [member for member in found if member.role != roles.COLLECTOR]

    def _of_pid(self, found):
        """The pids of the process that was asked for and of the server's parent, where that is its parent."""
        chosen = [member for member in found if member.pid == self._values.pid]
        if not chosen:
            raise TelError(f"process {self._values.pid} is none of a Python server, or there is none of that pid; see modwsgi-tel "
                           "processes")
        if chosen[0].role == roles.HELPER:
            raise TelError(f"process {self._values.pid} serves nothing itself: process {chosen[0].parent} has started it; see modwsgi-tel "
                           f"inspect {self._values.pid}")
        parents = {member.pid for member in found if member.pid == chosen[0].parent and member.role in (roles.PARENT, roles.MASTER)}
        return {chosen[0].pid, *parents}

    def _of_group(self, found):
        """The pids of the parents of a group's processes: it need have none at this moment."""
        parents = {member.parent for member in found if member.group == self._values.group}
        for member in found if not parents else ():
            if member.role != roles.PARENT:
                continue
            told = self._asked(f"configuration of pid {member.pid}", config.of, member.pid, pid=member.pid)
            if told is not None and any(daemon.group == self._values.group for daemon in told.daemons):
                parents.add(member.pid)
        if not parents:
            names = sorted({member.group for member in found if member.group})
            raise TelError(f"no process of group {self._values.group}" + (f"; there are: {', '.join(names[:20])}" if names else ""))
        return parents

    def _add(self, member):
        if member.role not in roles.SERVES or member.pid in self._processes:
            return
        process = self._processes[member.pid] = Process(member)
        process.before = self._asked(f"pid {member.pid}", details.usage, member.pid, pid=member.pid)
        process.limits = self._asked(f"limits of pid {member.pid}", details.limits, member.pid, pid=member.pid)
        if len(self._readers) >= PROCESSES_MOST:
            process.problem = f"only {PROCESSES_MOST} processes are read at once"
            self._say("stacks", f"stacks of pid {member.pid}: {process.problem}; choose with --group or --pid")
            return
        try:
            self._readers[member.pid] = Reader(member.pid)
        except NotRunning:
            if member.role != roles.CHILD:
                process.problem = "runs no Python now"
        except TelError as error:
            self._by_agent(process, error)

    def _by_agent(self, process, error):
        """Where memory may not be read an agent inside may tell."""
        try:
            if agentclient.find(process.pid):
                self._readers[process.pid] = agentclient.AgentReader(process.pid)
                agentclient.stacks(process.pid)
                process.agent = True
                return
        except TelError:
            self._readers.pop(process.pid, None)
        process.problem = str(error)
        if reading.runs(process.pid):
            self._say("stacks", f"stacks of pid {process.pid}: {error}")

    def _say(self, kind, line):
        """Note what could not be looked at; of one kind and reason the first, and how many more."""
        reason = kind, "".join(letter for letter in line if not letter.isdigit())
        if reason in self._reasons:
            self._reasons[reason][1] += 1
        elif len(self._reasons) < _UNKNOWN_MOST:
            self._reasons[reason] = [line, 0]

    def _asked(self, what, work, *arguments, pid=None):
        """What `work` gives, or None, and the reason noted; nothing, where that is the end of the process `pid`."""
        try:
            return work(*arguments)
        except (TelError, OSError) as error:
            if pid is None or reading.runs(pid):
                self._say(what.split()[0], f"{what}: {getattr(error, 'strerror', None) or error}")
        except Exception as error:      # one part that fails does not end the others
            self._say("mistake", mistake(what, error))
        return None

    @property
    def number(self):
        return len(self._processes)

    @property
    def looked(self):
        return self._looked

    # --- looks ------------------------------------------------------------------------------------

    def pause_s(self):
        """Seconds until the next look; None when all has been seen."""
        now = self._clock()
        if now >= self._ends:
            return None
        # never more than a part of one core, whatever there is to be read
        spent = self._spent / max(1, self._looked)
        return min(max(LOOKS_S, spent / PART, self._values.duration / LOOKS_MOST), max(0.01, self._ends - now))

    def look(self):
        """One look at everything that moves."""
        began = time.process_time()
        at = self._clock()
        for pid, reader in list(self._readers.items()):
            process = self._processes[pid]
            try:
                stacks = reader.look()
            except TelError as error:
                if process.member.role != roles.CHILD and reading.runs(pid):
                    self._say("stacks", str(error))
                self._drop(pid)
                continue
            except Exception as error:
                self._say("mistake", mistake(f"stacks of pid {pid}", error))
                continue
            look = self._asked(f"pid {pid}", reading.one_look, process, reader, at, stacks, self._asked)
            if look is not None:
                process.looks.append(look)
        self._listeners.append(self._asked("listening sockets", sockets.listeners) or [])
        children = self._asked("children", self._children)
        self._looked += 1
        self._spent += time.process_time() - began
        if at - self._counted >= COUNTED_S:
            self._counted = at
            self._asked("descriptors and memory", self._amounts, at)
            self._asked("daemon groups", self._number_daemons)
            self._asked("processes", self._others)
        elif children != self._seen_children:           # one that crashes at once lives for less time
            self._asked("processes", self._others)
        self._seen_children = children

    def _children(self):
        """The pids of the children of each parent: cheap, where all processes are not."""
        return {member.pid: details.children(member.pid) for member in self._members if member.role in (roles.PARENT, roles.MASTER)}

    def _drop(self, pid):
        reader = self._readers.pop(pid, None)
        if reader is not None:
            reader.close()

    def _amounts(self, at):
        """What changes slowly: descriptors and memory."""
        for process in self._processes.values():
            number = descriptors.count(process.pid)
            if number is not None:
                process.files.append((at, number))
            try:
                process.rss.append((at, procfs.stat(process.pid).rss_pages * os.sysconf("SC_PAGE_SIZE")))
            except (OSError, ValueError):
                continue
        for pid in list(self._readers):
            if pid not in self._first_contents and len(self._first_contents) < CONTAINERS_MOST and reading.grows(self._processes[pid]):
                self._first_contents[pid] = reading.contents(pid, self._readers.get(pid), self._asked)

    def _others(self):
        """Which processes there are now."""
        now = {member.pid: member for member in self._meant()}
        held = {member.pid: member for member in self._members}
        # one that only seems to be another for a moment has not ended: tables of sockets that change while they are read may lack some
        now.update((pid, member) for pid, member in held.items() if pid not in now and reading.start_of(pid) == member.start)
        self._born += [member for pid, member in now.items() if pid not in held or held[pid].start != member.start]
        self._gone += [member for pid, member in held.items()
                       if not _is_dead(member) and (pid not in now or now[pid].start != member.start)]
        # Apache takes notice of its children once a second; until then they show no more what they were
        for member in filter(_is_dead, now.values()):
            before = held.get(member.pid)
            if before is None or before.start != member.start:
                self._gone.append(member)
            elif not _is_dead(before):
                self._gone.append(before)
        for member in now.values():
            if member.pid in held and held[member.pid].start != member.start:
                self._drop(member.pid)
                self._processes.pop(member.pid, None)
                self._numbers.pop(member.pid, None)
            self._asked(f"pid {member.pid}", self._add, member)
        self._members = list(now.values())

    # --- the rest ---------------------------------------------------------------------------------

    def scene(self):
        """The Scene; everything that was opened is closed."""
        seconds = self._clock() - self._began
        for process in self._processes.values():
            self._asked(f"pid {process.pid}", self._finish, process, pid=process.pid)
        if any(member.pid == self._values.pid for member in self._gone):
            self._say("ended", f"process {self._values.pid} ended while it was looked at")
        wall = self._wall()
        since = wall - self._values.since
        parents = [member for member in self._members if member.role in (roles.PARENT, roles.MASTER)]
        configs, logs = {}, {}
        for member in parents:
            if member.role == roles.PARENT:
                configs[member.pid] = self._asked(f"configuration of pid {member.pid}", config.of, member.pid, pid=member.pid)
            logs[member.pid] = self._asked(f"log of pid {member.pid}", self._log, member.pid, configs.get(member.pid), since)
        if self._values.log:
            logs[0] = self._asked("log", self._named_logs, since)
        self._asked("configuration", self._configured, configs)
        imports = {event.script: self._asked("imports", self._import_line, event) or ""
                   for log in logs.values() if log is not None for event in log.events
                   if event.script and "No module named" in event.text}
        kernel, reason = self._asked("kernel", host.kernel_log, since) or ([], "")
        if reason:
            self._say("kernel", f"the kernel's log: {reason}")
        others = {(process.pid, process.member.start) for process in self._processes.values()
                  if self._values.group and process.group not in ("", self._values.group)}
        processes = [process for process in self._processes.values() if (process.pid, process.member.start) not in others]
        gone, born = ([member for member in found if (member.pid, member.start) not in others] for found in (self._gone, self._born))
        found = Scene(wall, seconds, since, processes, parents, self._members,
                      self._asked("host", self._around, parents) or {}, {pid: log for pid, log in logs.items() if log is not None},
                      {pid: each for pid, each in configs.items() if each is not None}, self._listeners,
                      self._asked("collector", telemetry.ask, self._values, self._say), kernel, self._looked, gone, born, self._told(),
                      os.geteuid() == 0,
                      self._values.group or self._group_of(self._values.pid), imports, self._collectors,
                      self._values.pid in self._processes)
        self.close()
        return found

    def _group_of(self, pid):
        """The group of a process that was asked for: what logs tell of others is not about it."""
        return self._processes[pid].group if pid in self._processes else ""

    def _around(self, parents):
        """host.between; of the neighbours that take most CPU time those are marked that ask this server: "client" is True."""
        if self._host is None:
            return {}
        found = host.between(self._host, host.look())
        neighbours = (found.get("neighbours") or {}).get("cpu") or []
        if neighbours and (found.get("busy") or 0.0) >= CROWDED:
            ports = {each["local"].rpartition(":")[2] for member in parents for each in reading.connections(member.pid)
                     if each["state"] == "LISTEN" and each["local"]}
            for each in neighbours[:NEIGHBOURS_MOST]:
                each["client"] = any((other["remote"] or "").rpartition(":")[2] in ports for _ in range(CLIENT_TRIES)
                                     for other in reading.connections(each["pid"]))
        return found

    def _told(self):
        return [line + (f" (and {more:,} more like it)" if more else "") for line, more in self._reasons.values()]

    def _log(self, pid, found, since):
        files, reasons = logfiles.of(pid, found)
        for reason in reasons:
            self._say("log", reason)
        return self._read_logs(files, since)

    def _named_logs(self, since):
        return self._read_logs([logfiles.Log(path, path, "--log") for path in self._values.log], since)

    def _read_logs(self, files, since):
        """The Reading of those that were not read yet: servers share logs, and --log may name one that was found."""
        fresh = []
        for each in files:
            found = _identity(each.path)
            if found not in self._logs:
                self._logs.add(found)
                fresh.append(each)
        log = errorlog.read(fresh, since)
        for problem in log.problems:
            self._say("log", problem)
        return log

    def _finish(self, process):
        pid = process.pid
        process.after = self._asked(f"pid {pid}", details.usage, pid, pid=pid)
        if process.after is None:
            return
        if process.before:
            process.rates = self._asked(f"rates of pid {pid}", details.rates, process.before, process.after)
        process.cgroup = self._asked(f"cgroup of pid {pid}", cgroups.of, pid, pid=pid)
        process.descriptors = reading.few_descriptors(process, self._asked)
        reader = self._readers.get(pid)
        if reader is not None and process.looks and not process.agent:
            reading.more(process, reader, self._first_contents.get(pid), self._asked)

    def _configured(self, configs):
        for process in self._processes.values():
            found = configs.get(process.member.parent)
            # an Apache child that shows no group is of none
            told = found is not None and (process.group or process.member.role == roles.DAEMON)
            process.daemon = daemons.of(found.daemons, process.group, self._numbers.get(process.pid)) if told else None
            process.threads = process.daemon.threads if process.daemon is not None else None
        for found in configs.values():
            for problem in found.problems if found is not None else ():
                self._say("config", problem)

    def _number_daemons(self):
        """Note which group those daemons are of that show none."""
        unnamed = [process.pid for process in self._processes.values()
                   if process.member.role == roles.DAEMON and process.pid not in self._numbers and not process.group]
        self._numbers.update(daemons.numbers(unnamed, self._listeners[-1]))

    def _import_line(self, event):
        whose = next((process for process in self._processes.values() if process.member.role == roles.DAEMON), None)
        return "" if whose is None else reading.import_line(whose.pid, event.script, event.text)

    def close(self):
        for pid in list(self._readers):
            self._drop(pid)


def _identity(path):
    """What tells a file from others by whatever name."""
    try:
        found = os.stat(path)
    except OSError:
        return path
    return found.st_dev, found.st_ino


def _is_dead(member):
    """Whether a Member has ended, and its parent has not taken notice yet."""
    return member.state in ("Z", "X") and member.role != roles.HELPER
