"""Looks at the processes of this machine for the tree: processes, then stacks, then processes again; and joins telemetry's rows.

Whoever may not be read is asked through the agent inside of it.  Nothing is stopped or changed.
"""
import os
import time

from modwsgi_tel import agentclient
from modwsgi_tel.apache import config, daemons
from modwsgi_tel.errors import TelError
from modwsgi_tel.figures import counted
from modwsgi_tel.proc import roles, sockets, threads
from modwsgi_tel.stacks.reader import Reader
from modwsgi_tel.stacks.runtime import NotRunning
from modwsgi_tel.tree import model
from modwsgi_tel.tree.work import LOOKS, wants_another_look

READ_MOST = 512                         # processes whose stacks are read
READ_S = 10.0                           # for the stacks of all
BETWEEN_S = 0.5                         # between two looks at processes: what CPU they use is by clock ticks
CPU_MOST = 500                          # threads of one process that is looked at twice for the CPU time that they use
LOOKS_MOST = 6                          # at one process, where threads may have been left behind
PAUSE_S = 0.1                           # between them
_TICKS = os.sysconf("SC_CLK_TCK")
_BOOTED = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)     # once: who began together, began together
_OVER = ("stopped", "replaced")         # lives of processes that ended and said so


class Seen:
    """What was seen.  processes: [model.Process].  missing: [text], why something is not there."""

    def __init__(self, processes, missing):
        self.processes, self.missing = processes, missing


def look():
    """Seen, of all servers on this machine.  Raises TelError where there is no /proc."""
    before, began = roles.members(), time.monotonic()
    found = _Looks({member.pid: member.server for member in before}, began)
    try:
        for member in sorted(before, key=_importance):
            if member.role != roles.COLLECTOR:
                found.first(member)
        found.again()
    finally:
        found.close()
    after, over_s = {(each.pid, each.start): each for each in roles.members()}, max(0.001, time.monotonic() - began)
    missing = []
    if found.left_out:
        missing.append(f"the stacks of {counted(found.left_out, 'process', 'processes')} were not read: more than {READ_MOST}, or it "
                       "took too long")
    processes = [_process(member, after.pop((member.pid, member.start), None), over_s, found) for member in before]
    known = {process.pid for process in processes}
    processes += [_process(member, member, None, found)._replace(life=model.BEGUN, unread="", looks=()) for member in after.values()
                  if member.pid not in known]
    groups, unknown = _groups([process for process in processes if process.role == model.DAEMON and not process.group
                               and process.life != model.ENDED])
    return Seen([process._replace(group=groups.get(process.pid, process.group)) for process in processes], missing + unknown)


def _groups(bare):
    """({pid: group}, [why it is not known]) of daemons whose titles show no group, as without display-name.

    Only for these is a server's configuration asked for: that may take running its program.
    """
    found, missing, by_server = {}, [], {}
    for process in bare:
        by_server.setdefault(process.parent, []).append(process.pid)
    for server, pids in by_server.items():
        try:
            configured = config.of(server).daemons
        except (TelError, OSError) as error:
            missing.append(f"the groups of {counted(len(pids), 'daemon')} of server {server}, whose titles show none: {error}")
            continue
        numbers = daemons.numbers(pids, sockets.listeners(pid=server))
        told = {pid: daemons.of(configured, "", numbers.get(pid)) for pid in pids}
        found.update((pid, daemon.group) for pid, daemon in told.items() if daemon is not None)
    return found, missing


class _Looks:
    """Looks at processes.

    of: {pid: Stacks, the oldest first}.  sources: {pid: MEMORY or AGENT}.  reasons: {pid: why it could not be read}.
    left_out: how many were not looked at.
    """

    def __init__(self, servers, began):
        self.of, self.sources, self.reasons, self.left_out = {}, {}, {}, 0
        self._servers, self._began, self._readers = servers, began, {}

    def _is_late(self):
        return time.monotonic() - self._began > READ_S

    def first(self, member):
        """Look at a Member; no Python in it is no reason, nor is a child of a server that may be anything."""
        if len(self._readers) >= READ_MOST or self._is_late():
            self.left_out += 1
            return
        pid, said = member.pid, ""
        for source, made in ((model.MEMORY, Reader), (model.AGENT, _by_agent)):
            reader = None
            try:
                reader = made(pid)
                self.of[pid], self.sources[pid], self._readers[pid] = (reader.look(),), source, reader
                return
            except NotRunning:
                return
            except TelError as error:
                said = said or str(error)       # of the memory: an agent is the exception
            if reader is not None:
                reader.close()
        if member.role != roles.HELPER:
            self.reasons[pid] = said

    def again(self):
        """Look again: once at all, for the CPU time that they use, and where a thread may have been left behind as often as it takes."""
        for count in range(1, LOOKS_MOST):
            pids = [pid for pid in self._readers if count == 1 and len(self.of[pid][-1].threads) <= CPU_MOST or wants_another_look(
                model.Process(pid, server=self._servers[pid], looks=self.of[pid], source=self.sources[pid]))]
            if not pids or self._is_late():
                break
            time.sleep(PAUSE_S if count > 1 else max(0.0, BETWEEN_S - (time.monotonic() - self._began)))
            for pid in pids:
                try:
                    self.of[pid] = (*self.of[pid][1 - LOOKS:], self._readers[pid].look())
                except TelError as error:
                    self.reasons[pid] = str(error)

    def close(self):
        for reader in self._readers.values():
            reader.close()


def _importance(member):
    """Servers first."""
    return (member.role not in (roles.DAEMON, roles.WORKER), member.role not in (roles.CHILD, roles.MASTER), member.pid)


def _by_agent(pid):
    if not agentclient.find(pid):
        raise TelError(f"no agent listens in process {pid}")
    return agentclient.AgentReader(pid)


def _process(member, after, over_s, looks):
    """The model.Process of a Member; after: the same one at the second look at processes, `over_s` later, or None."""
    pid, newest, found = member.pid, after or member, looks.of.get(member.pid, ())
    try:
        inner = threads.inner_pid(pid)
    except TelError:
        inner = None
    return model.Process(
        pid, inner, member.parent, _wall(member.start), member.role, member.group, member.server, "", member.name, member.command,
        member.uid, newest.state, newest.threads, newest.cpu_ticks / _TICKS,
        None if after is None or over_s is None else (after.cpu_ticks - member.cpu_ticks) / _TICKS / over_s,
        newest.rss_bytes, model.ENDED if after is None else None, None, found,
        max(0.0, time.time() - found[-1].at) if found else None, looks.sources.get(pid),
        "" if after is None or found else looks.reasons.get(pid, ""))


def _wall(start):
    return _BOOTED + start / _TICKS


# --- telemetry ------------------------------------------------------------------------------------

def joined(processes, rows, entries, local=True, host=""):
    """(processes, entries, missing): telemetry's rows and slow requests at the processes that they are of.

    rows: of /api/processes.  entries: of /api/slow.  local: whether the collector is on this machine, whose name is `host`.
    A row that fits no process is one that has vanished; of a collector elsewhere only those of this machine are taken.
    """
    by_pid, out, missing = {each.pid: each for each in processes}, [], []
    numbers, elsewhere, told = {}, 0, set()
    for row in rows:
        if row.get("life") in _OVER or not isinstance(row.get("pid"), int):
            continue
        process = _match(by_pid, row)
        if process is not None and process.row is None:
            by_pid[process.pid] = process._replace(
                row=row, life=process.life or row.get("life"), group=process.group or row.get("process_group") or "",
                inner_pid=process.inner_pid or (row["pid"] if row["pid"] != process.pid else None))
            numbers[row.get("id")] = process.pid
            told.add(process.pid)
        elif not local and row.get("hostname") != host:
            elsewhere += 1
        else:
            number = numbers[row.get("id")] = f"v{row.get('id')}"
            out.append(model.Process(row["sender_pid"] if _is_known(row) else row["pid"], parent=row.get("parent_pid"),
                                     role=row.get("role") or "", group=row.get("process_group") or "", life=model.VANISHED, row=row,
                                     number=number))
    if elsewhere:
        missing.append(f"the collector knows {counted(elsewhere, 'process', 'processes')} of other machines, which cannot be looked "
                       "at here")
    requests = []
    for entry in entries:
        at = numbers.get(entry.get("process"))
        if at is None:
            at = next((pid for pid in (entry.get("sender_pid"), entry.get("pid")) if pid in told), None)
        if at is not None:
            requests.append({**entry, "tree_pid": at})
    return [by_pid[each.pid] for each in processes] + out, requests, missing


def _is_known(row):
    """Whether the pid is the kernel's word, not only what datagrams say: then sender_pid is what it is here."""
    return row.get("pid") == row.get("sender_pid") or (row.get("namespace_pids") or [None])[-1] == row.get("pid")


def _match(by_pid, row):
    """The process that a row is of, or None."""
    process = by_pid.get(row.get("sender_pid")) if _is_known(row) else None
    start = row.get("start_ticks")
    if process is None or start is not None and process.started is not None and abs(_wall(start) - process.started) > 1.0:
        return None
    return process
