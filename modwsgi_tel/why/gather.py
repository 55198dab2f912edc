"""Reads what a scene is made of: processes again and again for some seconds, and once the machine, logs, configurations and a collector.

Whatever may not be read is said in one line each; the rest goes on.
"""
import os
import re
import time

from modwsgi_tel import agentclient
from modwsgi_tel.apache import config, errorlog, logfiles
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import cgroups, descriptors, details, host, procfs, roles, sockets, threads, waits
from modwsgi_tel.stacks import containers, locks
from modwsgi_tel.stacks.growers import Growers
from modwsgi_tel.stacks.model import WAITING
from modwsgi_tel.stacks.reader import Reader
from modwsgi_tel.stacks.runtime import NotRunning
from modwsgi_tel.stacks.sources import Rights, Sources
from modwsgi_tel.why import telemetry
from modwsgi_tel.why.mistakes import mistake
from modwsgi_tel.why.scene import WSGI_SOCKET, Look, Process, Scene, is_client, serves, works_behind

LOOKS_S = 0.15                          # between two looks at one process, at most so often
LOOKS_MOST = 400                        # they are kept to the end
PART = 0.25                             # of one core that looking may take
PROCESSES_MOST = 64                     # whose stacks are read
WAITS_MOST = 64                         # threads of a process whose system call is looked at
WANTING_MOST, RUNTIME_SIZE = 512, 1 << 20        # threads that are asked whether they want the GIL; bytes
LARGE, LARGEST_MOST = 4 << 20, 3         # containers that are told of where memory is limited: bytes
CROWDED = 0.9                           # of the machine's CPU time
NEIGHBOURS_MOST, DESCRIPTORS_MOST, CLIENT_TRIES = 5, 1000, 3
COUNTED_S = 0.5                         # between two counts of descriptors and memory
CONTAINERS_MOST = 3                     # processes whose containers are compared
CONTAINERS_S = 0.1                      # CPU time of one such look
GROWN_LEAST = 256 << 10                 # bytes of memory, for that
FRAMES_MOST, LINES_MOST, LINE_MOST = 60, 2000, 200      # of a stack; of a process; letters of one
IMPORT_LINES_MOST = 2000                # of a script, in search of an import
_UNKNOWN_MOST = 40
_MISSING = re.compile(r"No module named '([\w.]+)'")


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
            return [member for member in found if member.pid in self._family or member.parent == self._values.pid and member.role != roles.PYTHON]
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
            raise TelError(f"process {self._values.pid} is none of a Python server, or there is none of that pid; see modwsgi-tel processes")
        if chosen[0].role == roles.HELPER:
            raise TelError(f"process {self._values.pid} serves nothing itself: process {chosen[0].parent} has started it; see modwsgi-tel inspect {self._values.pid}")
        return {chosen[0].pid, *(member.pid for member in found if member.pid == chosen[0].parent and member.role in (roles.PARENT, roles.MASTER))}

    def _of_group(self, found):
        """The pids of the parents of a group's processes: it need have none at this moment."""
        parents = {member.parent for member in found if member.group == self._values.group}
        for member in found if not parents else ():
            told = self._asked(f"configuration of pid {member.pid}", config.of, member.pid, pid=member.pid) if member.role == roles.PARENT else None
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
        if _runs(process.pid):
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
            if pid is None or _runs(pid):
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
                if process.member.role != roles.CHILD and _runs(pid):
                    self._say("stacks", str(error))
                self._drop(pid)
                continue
            except Exception as error:
                self._say("mistake", mistake(f"stacks of pid {pid}", error))
                continue
            look = self._asked(f"pid {pid}", self._of, process, reader, at, stacks)
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

    def _of(self, process, reader, at, stacks):
        server, daemon = process.member.server, process.member.role == roles.DAEMON
        serving = [thread.tid for thread in stacks.threads if thread.tid is not None and serves(thread, server)]
        # a thread of mod_wsgi that hands on what a generator has made has no frames meanwhile
        bare = [thread.tid for thread in stacks.threads if daemon and not thread.frames and thread.tid is not None and thread.state == WAITING]
        behind = [thread.tid for thread in works_behind(stacks.threads, server)]
        found = self._asked("system calls", waits.waits, process.pid, (serving + bare + behind)[:WAITS_MOST], pid=process.pid) or {}
        writers = {tid: found[tid] for tid in bare if tid in found and found[tid]["direction"] == "write" and is_client(found[tid])}
        return Look(at, stacks, {tid: found.get(tid) for tid in serving + behind}, {tid: _switches(process.pid, tid) for tid in serving}, writers,
                    self._asked("threads that want the GIL", self._wanting, process))

    def _wanting(self, process):
        address = getattr(self._readers[process.pid], "address", None)
        return None if address is None else wanting(process.pid, address)

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
            if pid not in self._first_contents and len(self._first_contents) < CONTAINERS_MOST and _grows(self._processes[pid]):
                self._first_contents[pid] = self._contents(pid)

    def _others(self):
        """Which processes there are now."""
        now = {member.pid: member for member in self._meant()}
        held = {member.pid: member for member in self._members}
        # one that only seems to be another for a moment has not ended: tables of sockets that change while they are read may lack some
        now.update((pid, member) for pid, member in held.items() if pid not in now and _start_of(pid) == member.start)
        self._born += [member for pid, member in now.items() if pid not in held or held[pid].start != member.start]
        self._gone += [member for pid, member in held.items() if not _is_dead(member) and (pid not in now or now[pid].start != member.start)]
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

    def _contents(self, pid):
        reader = self._readers.get(pid)
        if reader is None or isinstance(reader, agentclient.AgentReader):
            return None
        return self._asked(f"containers of pid {pid}", containers.look, reader, CONTAINERS_S, pid=pid)

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
        imports = {event.script: self._asked("imports", self._import_line, event) or "" for log in logs.values() if log is not None for event in log.events
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
                      self._asked("collector", telemetry.ask, self._values, self._say), kernel, self._looked, gone, born, self._told(), os.geteuid() == 0,
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
            ports = {each["local"].rpartition(":")[2] for member in parents for each in _connections(member.pid)
                     if each["state"] == "LISTEN" and each["local"]}
            for each in neighbours[:NEIGHBOURS_MOST]:
                each["client"] = any((other["remote"] or "").rpartition(":")[2] in ports for _ in range(CLIENT_TRIES)
                                     for other in _connections(each["pid"]))
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
        reading = errorlog.read(fresh, since)
        for problem in reading.problems:
            self._say("log", problem)
        return reading

    def _finish(self, process):
        pid = process.pid
        process.after = self._asked(f"pid {pid}", details.usage, pid, pid=pid)
        if process.after is None:
            return
        if process.before:
            process.rates = self._asked(f"rates of pid {pid}", details.rates, process.before, process.after)
        process.cgroup = self._asked(f"cgroup of pid {pid}", cgroups.of, pid, pid=pid)
        process.descriptors = self._few_descriptors(process)
        reader = self._readers.get(pid)
        if reader is not None and process.looks and not process.agent:
            self._read_more(process, reader)

    def _few_descriptors(self, process):
        """All descriptors of those alone where there are many, or more and more: it takes a while."""
        counts = [number for _, number in process.files]
        limit = (process.limits or {}).get("open files", {}).get("soft")
        if not counts or not (counts[-1] > counts[0] or limit and counts[-1] >= limit / 2 or counts[-1] >= 500):
            return None
        return self._asked(f"descriptors of pid {process.pid}", descriptors.look, process.pid, pid=process.pid)

    def _read_more(self, process, reader):
        sources = reader.sources()
        try:
            for what, work in (("source lines", _source_lines), ("locks", self._read_locks), ("containers", self._read_containers)):
                self._asked(f"{what} of pid {process.pid}", work, process, reader, sources, pid=process.pid)
        finally:
            sources.close()

    def _read_locks(self, process, reader, sources):
        if any(serves(thread, process.member.server) for thread in process.looks[-1].stacks.threads):
            earlier = self._locks(process, reader, sources)
            process.locks = self._locks(process, reader, sources)
            process.cycles = locks.cycles(locks.steady(earlier, process.locks))

    def _read_containers(self, process, _reader, sources):
        first = self._first_contents.get(process.pid)
        last = self._contents(process.pid) if first is not None else None
        if last is not None:
            process.grown = containers.grown(first, last, sources=sources)
        if _is_limited(process):
            process.largest = _largest(last or self._contents(process.pid), sources)

    def _locks(self, process, reader, sources):
        """[LockWait] of now: with a look of its own, for what waits must be of the same moment."""
        stacks = self._asked(f"locks of pid {process.pid}", reader.look, pid=process.pid)
        return [] if stacks is None else self._asked(f"locks of pid {process.pid}", locks.of, stacks, sources, reader, pid=process.pid) or []

    def _configured(self, configs):
        for process in self._processes.values():
            found = configs.get(process.member.parent)
            process.daemon = _daemon(process, found, self._numbers.get(process.pid)) if found is not None else None
            process.threads = process.daemon.threads if process.daemon is not None else None
        for found in configs.values():
            for problem in found.problems if found is not None else ():
                self._say("config", problem)

    def _number_daemons(self):
        """Note which group those daemons are of that show none: each has its own group's socket alone."""
        named = {socket.inode: int(found.group(2)) for socket in self._listeners[-1] for found in [WSGI_SOCKET.search(socket.path or "")] if found}
        unnamed = [process.pid for process in self._processes.values()
                   if process.member.role == roles.DAEMON and process.pid not in self._numbers and not process.group]
        held = sockets.holders(named, pids=unnamed) if named and unnamed else {}
        self._numbers.update((pid, named[inode]) for inode, pids in held.items() for pid in pids)

    def _import_line(self, event):
        """`file:line` of an import that fails, which mod_wsgi 6's traceback leaves out; "" where it is not found."""
        missing = _MISSING.search(event.text)
        whose = next((process for process in self._processes.values() if process.member.role == roles.DAEMON), None)
        if missing is None or whose is None:
            return ""
        try:
            uid, gids = threads.rights(whose.pid)
            sources = Sources(f"/proc/{whose.pid}/root", None, None, Rights(uid, frozenset(gids)))
        except TelError:
            return ""
        name = re.escape(missing.group(1))
        importing = re.compile(rf"\s*(?:import\s+(?:.*,\s*)?{name}\b|from\s+{name}\b)")
        try:
            for number, line in enumerate(sources.content(event.script).splitlines()[:IMPORT_LINES_MOST], 1):
                if importing.match(line.decode("utf-8", "replace")):
                    return f"{event.script}:{number}"
        finally:
            sources.close()
        return ""

    def close(self):
        for pid in list(self._readers):
            self._drop(pid)


def _daemon(process, found, number):
    """The config.Daemon of a process; one that shows no group is of the one that its socket's number tells, or of the only one there is."""
    alike = [daemon for daemon in found.daemons if daemon.group == process.group]
    if not alike and not process.group and process.member.role == roles.DAEMON and len(found.daemons) == 1:
        alike = found.daemons
    elif not alike and not process.group and number is not None:
        alike = found.daemons[number - 1:number]
    return alike[0] if alike else None


def _identity(path):
    """What tells a file from others by whatever name."""
    try:
        found = os.stat(path)
    except OSError:
        return path
    return found.st_dev, found.st_ino


def _runs(pid):
    """Whether a process is there, and is more than what its parent has to take notice of."""
    return _start_of(pid) is not None


def _is_dead(member):
    """Whether a Member has ended, and its parent has not taken notice yet."""
    return member.state in ("Z", "X") and member.role != roles.HELPER


def _start_of(pid):
    """When a process that runs was started, in clock ticks since boot; else None."""
    try:
        found = procfs.stat(pid)
        return None if found.state in ("Z", "X") else found.start
    except (OSError, ValueError):
        return None


def _grows(process):
    """Whether its memory or its descriptors have grown since the first count, so that it is worth while to see what holds them."""
    rss, files = [amount for _, amount in process.rss], [number for _, number in process.files]
    return len(rss) > 1 and rss[-1] - rss[0] >= GROWN_LEAST or len(files) > 1 and files[-1] - files[0] >= 2


def _source_lines(process, _reader, sources):
    """Note the source lines of what threads of the application are at."""
    for thread in (thread for look in process.looks for thread in look.stacks.threads):
        if thread.idle:
            continue
        for frame in thread.frames[:FRAMES_MOST]:
            key = frame.file, frame.line
            if key not in process.lines and frame.line is not None and len(process.lines) < LINES_MOST:
                process.lines[key] = (sources.line(frame.file, frame.line) or "").strip()[:LINE_MOST]


def wanting(pid, address):
    """The ids of the threads of a process that wait for the GIL, None where that may not be seen.  address: of its _PyRuntime.

    take_gil() of CPython's ceval_gil waits for it again and again for the switch interval, so with a timeout, in a futex that lies in
    _PyRuntime (from 3.12 in the main interpreter, which lies in there too).
    """
    found = set()
    for tid in sorted(threads.tids(pid))[:WANTING_MOST]:
        try:
            text = procfs.read(f"/proc/{pid}/task/{tid}/syscall", 256)
        except PermissionError:
            return None
        except OSError:
            continue
        call, words = threads.parse_syscall(text), text.split()
        if call is not None and call[1] == "futex" and len(words) > 4 and 0 <= int(words[1], 16) - address < RUNTIME_SIZE and int(words[4], 16):
            found.add(tid)
    return found


def _connections(pid):
    """[a sockets.Socket as a dictionary] of a process, those of the Internet; [] where that may not be seen."""
    try:
        rows = descriptors.look(pid, DESCRIPTORS_MOST)["rows"]
    except TelError:
        return []
    return [row["socket"] for row in rows if row["socket"] and row["kind"] in ("tcp", "tcp6")]


def _is_limited(process):
    """Whether somebody has set a limit to its memory."""
    return any(((process.limits or {}).get(name) or {}).get("soft") for name in ("data", "address space"))


def _largest(contents, sources):
    """The application's Containers that hold most, with the places that fill them."""
    if contents is None:
        return []
    growers = Growers(sources, contents.files)
    rows = sorted((row for row in contents.rows if not row.library and row.bytes >= LARGE and "[" not in row.name), key=lambda row: -row.bytes)
    return [growers.placed(row) for row in rows[:LARGEST_MOST]]


def _switches(pid, tid):
    """How often a thread has gone to sleep, or None."""
    try:
        for line in procfs.read(f"/proc/{pid}/task/{tid}/status", 8192).splitlines():
            if line.startswith(b"voluntary_ctxt_switches:"):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None
