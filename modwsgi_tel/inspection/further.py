"""Which command would tell more of a process: the table TOOLS, and which of them fit what was found.

    commands(facts, host) -> [{"command", "answers", "costs", "needs", "installed", "lacks", "for"}]

Those that can be used here come first, of these our own, then the one that does the process least harm.  command: to be copied as it
is.  needs: a right that it takes, "" for none.  lacks: what must be installed before, "".  for: the kind of trouble (notable.KINDS)
that it looks into, "" for any.  Each was run once against a sleeping Python, but for the bcc tools, whose options are those of 0.26.
"""
import os
import re
import shlex
import shutil
import stat
import sys
from collections import namedtuple

from modwsgi_tel.inspection.network import host_of, port_of
from modwsgi_tel.inspection.notable import CHILD, CLOSED, CPU, DISK, FILES, LOCK, MEMORY, NAMES, PEER, SWITCHED, kinds, waits_for_peer
from modwsgi_tel.options import PROGRAM

FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")      # where tools are, besides PATH
BCC_FOLDER = "/usr/share/bcc/tools"
# What goes into a command that is copied to a root shell: a unix socket's path may be anything
_ADDRESS = re.compile(r"(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\]):\d{1,5}")
_PLAIN_PATH = re.compile(r"[\w./+-]+")
_PROBE_BYTES = 64 << 20                 # of a Python that are searched for probes

# How much harm a tool does to the process, the least first
OURS, KERNEL, SAMPLES, COUNTS, HANDLES, STOPS_CALLS, STOPS_ALL, BREAKS = range(8)
_ROOT, _TRACE, _NET, _PERF = "root", "root, or CAP_SYS_PTRACE", "root, or CAP_NET_RAW", "root, or CAP_PERFMON"

Tool = namedtuple("Tool", "kinds program harm command answers costs needs requires", defaults=("", ""))
Tool.__doc__ = """kinds: those of notable.KINDS that it looks into, () for any.  program: its name; "" for our own; "bcc:NAME": under
whatever name a distribution has it.  command: {program}, {pid} and the other names of `_Values` are replaced; one whose value is
not known leaves the tool out.  requires: "headers" (of the kernel), "py-bt" (gdb's extension of Python) or "probes" (a Python
that was built with USDT probes)."""

_READS = "nothing: memory and /proc are read, nothing is stopped"
_BCC = "little: each event is handled in the kernel"
TOOLS = (
    Tool((), "", OURS, "{own} why --pid {pid}", "what is wrong, with the evidence", _READS, _TRACE),
    Tool((), "", OURS, "{own} stacks {pid}", "the Python line that each thread is on, and which request it serves", _READS, _TRACE),
    Tool((LOCK, PEER, DISK, CHILD), "", OURS, "{own} stacks {pid} --interval 1 --count 5 --locals",
         "what stays where it is and what moves on, with the variables", _READS, _TRACE),
    Tool((CPU,), "", OURS, "{own} stacks {pid} --stop", "stacks that are whole, of a thread that moves all the time",
         "the thread with the GIL stands still for a moment (ptrace)", _TRACE),
    Tool((CPU, SWITCHED), "", OURS, "{own} hot {pid}", "the functions that the time goes into, live", _READS, _TRACE),
    Tool((CPU, SWITCHED), "", OURS, "{own} record {pid} --duration 30 -o {pid}.svg", "the same as a flame graph", _READS, _TRACE),
    Tool((CPU, LOCK), "", OURS, "{own} record {pid} --gil --duration 30 -o {pid}-gil.svg",
         "who holds the GIL while others wait", _READS, _TRACE),
    Tool((MEMORY,), "", OURS, "{own} memory {pid} --start", "which lines hold ever more memory: the same without --start says it, later",
         "allocations take longer meanwhile, up to twice; an agent must be in the application"),
    Tool((), "", OURS, "{own} inspect {pid} --watch", "what of all this grows, and how fast (nothing is kept between two runs)", _READS),
    Tool((), "", OURS, "{own} processes", "the tree of its server: who serves which request", _READS, _TRACE),

    Tool((PEER,), "ss", KERNEL, "{net}{program} -tnpio dst {peer}",
         "how the connections to {peer} are: round trip, retransmits, what is queued",
         "nothing: the kernel's tables are read", "root, to see the processes"),
    Tool((CLOSED,), "ss", KERNEL, "{net}{program} -tnpo state close-wait", "whose connections the other side has closed",
         "nothing: the kernel's tables are read", "root, to see the processes"),
    Tool((), "lsof", KERNEL, "{program} -nP -p {pid}", "each open file and connection",
         "nothing: /proc is read; hangs on a dead NFS server",
         "root, or its user"),
    Tool((FILES,), "lsof", KERNEL, "{program} -nP -a -p {pid} +L1", "the open files that have no name any more, and their size",
         "nothing: /proc is read", "root, or its user"),

    Tool((PEER,), "tcpdump", SAMPLES, "{net}{program} -ni any -s 96 -c 500 host {peer_host} and port {peer_port}",
         "what goes to and comes from {peer}, and when: who is late", "nothing to the process; headers of packets are copied", _NET),
    Tool((NAMES,), "tcpdump", SAMPLES, "{net}{program} -ni any -c 100 port 53", "which names are asked for, and what is not answered",
         "nothing to the process; packets are copied", _NET),
    Tool((CPU,), "perf", SAMPLES, "{program} top -g -p {pid}", "the C functions that the time goes into, live (Python's own with "
         "python -X perf, since 3.12)", "about 1 %", _PERF),
    Tool((CPU,), "perf", SAMPLES,
         "{program} record -F 99 -g -p {pid} -o {data} -- sleep 30 && {program} report -i {data} --stdio | head -80",
         "the same with callers, for C extensions and regular expressions", "about 1 % for 30 s, and a file", _PERF),
    Tool((SWITCHED, LOCK), "perf", SAMPLES,
         "{program} sched record -o {data} -- sleep 5 && {program} sched timehist -i {data} -p {pid} --state",
         "each time that a thread waits, and for how long until it has a CPU",
         "the whole machine is traced for 5 s: 1 to 5 %, and a file", _PERF),

    Tool((), "perf", COUNTS, "{program} trace -s -p {pid} -- sleep 10",
         "how often each thread makes each system call, and how long they take",
         "about 1 us a system call; nothing is stopped", _PERF),
    Tool((PEER, DISK, LOCK, CHILD), "perf", COUNTS, "{program} trace -p {pid} --duration 100 -- sleep 30",
         "each system call that takes more than 100 ms",
         "about 1 us a system call; nothing is stopped", _PERF),
    Tool((SWITCHED, CPU), "bpftrace", COUNTS,
         "{program} -e 'tracepoint:raw_syscalls:sys_enter /pid == {pid}/ {{ @[args->id] = count(); }}'",
         "how often each system call is made, by its number", "under 1 us a system call", _ROOT),
    Tool((LOCK, SWITCHED), "bpftrace", COUNTS,
         "{program} -e 'tracepoint:sched:sched_switch /pid == {pid}/ {{ @[kstack(4), ustack(6)] = count(); }}'",
         "where in C it gives up the CPU", "1 to 2 us each time that a thread waits", _ROOT),
    Tool((LOCK,), "bpftrace", COUNTS,
         "{program} -e 'tracepoint:syscalls:sys_enter_futex /pid == {pid}/ {{ @[tid, ustack(6)] = count(); }}'",
         "which locks are waited for, by their place in C", "1 to 2 us for each wait on a lock", _ROOT),
    Tool((CPU,), "bpftrace", HANDLES,
         "{program} -p {pid} -e 'usdt:{python}:python:function__return {{ @[str(arg0), str(arg1)] = count(); }}'",
         "how often each Python function is called", "2 us or more for each Python call: a busy process becomes several times slower",
         _ROOT, "probes"),
    Tool((MEMORY,), "bpftrace", HANDLES, "{program} -p {pid} -e 'usdt:{python}:python:gc__start {{ @[arg0] = count(); }}'",
         "garbage collections by generation", "2 us each", _ROOT, "probes"),

    Tool((CPU,), "bcc:profile", SAMPLES, "{program} -p {pid} -F 99 -f 30",
         "where the CPU time goes, as folded stacks", "about 1 %", _ROOT, "headers"),
    Tool((LOCK, PEER, DISK, SWITCHED), "bcc:offcputime", COUNTS, "{program} -p {pid} 10", "where its threads wait, and how long in all",
         "1 to 2 us each time that a thread waits", _ROOT, "headers"),
    Tool((SWITCHED,), "bcc:runqlat", COUNTS, "{program} -p {pid} 5 1", "how long it waits for a CPU, as a histogram",
         "under 1 % of the machine", _ROOT, "headers"),
    Tool((PEER, DISK, LOCK), "bcc:syscount", COUNTS, "{program} -p {pid} -L -d 10",
         "which system calls take the time", "under 1 us a system call", _ROOT, "headers"),
    Tool((PEER,), "bcc:tcplife", COUNTS, "{program} -p {pid}", "each connection that ends: how long it was, and how many bytes",
         _BCC, _ROOT, "headers"),
    Tool((PEER,), "bcc:tcpretrans", COUNTS, "{program} -l", "what has to be sent again: packets are lost", _BCC, _ROOT, "headers"),
    Tool((PEER,), "bcc:tcpconnlat", COUNTS, "{program} -p {pid}", "how long connections take to open", _BCC, _ROOT, "headers"),
    Tool((PEER, NAMES), "bcc:gethostlatency", COUNTS, "{program} -p {pid}", "how long names take to be looked up", _BCC, _ROOT, "headers"),
    Tool((DISK,), "bcc:biosnoop", COUNTS, "{program} -Q", "each access to a disk, by whom and how long", _BCC, _ROOT, "headers"),
    Tool((DISK,), "bcc:fileslower", COUNTS, "{program} -p {pid} 10", "reads and writes of files that take more than 10 ms",
         _BCC, _ROOT, "headers"),
    Tool((DISK, FILES), "bcc:opensnoop", COUNTS, "{program} -p {pid}", "which files are opened, and what fails", _BCC, _ROOT, "headers"),
    Tool((CHILD,), "bcc:execsnoop", COUNTS, "{program} -P {pid}", "which programs it starts", _BCC, _ROOT, "headers"),
    Tool((MEMORY,), "bcc:memleak", HANDLES, "{program} -p {pid} --top 10 30 2",
         "which C code holds what it allocated (Python's small objects share "
         "blocks, which come and go more seldom)", "each malloc and free takes 2 us or more: several times slower", _ROOT, "headers"),
    Tool((MEMORY,), "bcc:cobjnew", HANDLES, "{program} -S 20 {pid} 10", "allocations of C code by their size",
         "each malloc takes 2 us or more: several times slower", _ROOT, "headers"),
    Tool((CPU,), "bcc:pythoncalls", HANDLES, "{program} -L -T 20 {pid} 10", "Python functions by the time that they take",
         "2 us or more for each Python call: several times slower", _ROOT, "headers probes"),

    Tool((PEER, NAMES), "strace", STOPS_CALLS,
         "timeout 10 {program} -f -tt -T -y -s 64 -e trace=network,poll,ppoll,select,epoll_wait,read,write -p {pid}",
         "what is sent and received, byte by byte, and how long each call takes",
         "each of these calls stops its thread twice, 20 to 100 us", _TRACE),
    Tool((LOCK,), "strace", STOPS_CALLS, "timeout 10 {program} -f -tt -T -e trace=futex -p {pid}",
         "which thread waits for a lock that another one releases",
         "each wait stops its thread twice, 20 to 100 us: with threads that fight for the GIL several times slower", _TRACE),
    Tool((DISK, FILES, CLOSED), "strace", STOPS_CALLS, "timeout 10 {program} -f -tt -T -y -e trace=file,desc -p {pid}",
         "which files it opens, reads and writes, how long each "
         "call takes, and what is never closed", "each of these calls stops its thread twice, 20 to 100 us", _TRACE),
    Tool((CHILD,), "strace", STOPS_CALLS, "timeout 10 {program} -f -tt -T -e trace=process -p {pid}",
         "which children it starts and waits for",
         "starts of processes become slower", _TRACE),
    Tool((MEMORY,), "strace", STOPS_CALLS, "timeout 30 {program} -f -tt -k -e trace=brk,mmap,munmap -p {pid}",
         "when and where in C its memory grows",
         "stops at each of these calls, 1 ms and more with -k", _TRACE),
    Tool((), "strace", STOPS_CALLS, "timeout 10 {program} -f -c -p {pid}", "how often each system call is made, and how long they take",
         "every system call stops its thread twice, 20 to 100 us: requests with many of them become several times slower", _TRACE),
    Tool((), "gdb", STOPS_ALL, "{program} -p {pid} -batch -ex 'set pagination off' -ex 'thread apply all py-bt'",
         "stacks of Python, of any extension's threads too",
         "stops the whole process for seconds while symbols are read: requests run into timeouts",
         _TRACE, "py-bt"),
    Tool((), "gdb", STOPS_ALL, "{program} -p {pid} -batch -ex 'set pagination off' -ex 'thread apply all bt'",
         "the C stack of each thread: inside of which library it is",
         "stops the whole process for seconds while symbols are read: requests run into "
         "timeouts", _TRACE),
    Tool((MEMORY, CPU), "ltrace", BREAKS, "timeout 5 {program} -f -c -p {pid}", "which functions of C libraries are called how often",
         "breakpoints in its code: 100 us and more a call, and a process has been seen to die of SIGTRAP when it ended: "
         "not in production", _TRACE),
)


class Host:
    """What is installed here, and what this user may do.  find: gives the path of a program, or None."""

    def __init__(self, find=None, uid=None, own=None):
        self.find = find or _find
        self.uid = os.geteuid() if uid is None else uid
        self.own = own or started_as(sys.argv[0], sys.executable)

    def program(self, name):
        """(what to call it, whether it is here); bcc's tools have three names."""
        if not name.startswith("bcc:"):
            return name, self.find(name) is not None
        name = name[len("bcc:"):]
        for each in (f"{name}-bpfcc", f"{BCC_FOLDER}/{name}", name):
            if self.find(each):
                return each, True
        return f"{name}-bpfcc", False

    def has_headers(self):
        """Whether bcc can compile for this kernel."""
        return os.path.exists(f"/lib/modules/{os.uname().release}/build") or os.path.exists("/sys/kernel/kheaders.tar.xz")


def _find(name):
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *FOLDERS]
    return shutil.which(name, path=os.pathsep.join(filter(None, folders)))


def started_as(argument, python):
    """How this program is started again, to be copied.  argument: its sys.argv[0]."""
    name = os.path.basename(argument)
    if name == "__main__.py" and os.path.isfile(argument):
        return f"{shlex.quote(python)} -m {os.path.basename(os.path.dirname(argument))}"
    if name.endswith(".pyz") and os.path.isfile(argument):
        path = argument if "/" in argument else f"./{argument}"
        return shlex.quote(path) if os.access(path, os.X_OK) else f"{shlex.quote(python)} {shlex.quote(path)}"
    return PROGRAM


def commands(facts, host):
    """See above."""
    found, values = kinds(facts), _Values(facts)
    rows = []
    for place, tool in enumerate(TOOLS):
        why = [kind for kind in found if kind in tool.kinds]
        if tool.kinds and not why or "probes" in tool.requires and not values.has_probes():
            continue                    # a Python without probes is not to be helped by installing anything
        program, is_here = (host.own, True) if not tool.program else host.program(tool.program)
        values.names.update(program=program, own=host.own)
        try:
            command, answers = tool.command.format_map(values.names), tool.answers.format_map(values.names)
        except KeyError:
            continue                    # nothing is known of what it would look at
        lacks = _lacks(tool, facts, values, host)
        sudo = "sudo " if host.uid and tool.needs.startswith("root") else ""
        order = (not is_here or bool(lacks), tool.harm, place)
        rows.append((order, {"command": _with_sudo(sudo, command), "answers": answers, "costs": tool.costs, "needs": tool.needs,
                             "installed": is_here, "lacks": lacks if is_here else f"{os.path.basename(program)} is not installed",
                             "for": why[0] if why else ""}))
    return [row for _, row in sorted(rows, key=lambda each: each[0])]


def _with_sudo(sudo, command):
    return " && ".join(sudo + part for part in command.split(" && ")) if sudo else command


def _lacks(tool, facts, values, host):
    if "headers" in tool.requires and not host.has_headers():
        return f"the kernel's headers are not installed (linux-headers-{os.uname().release})"
    if tool.requires == "py-bt" and not _has_py_bt(facts["identity"]["program"], values.library):
        return "gdb has no py-bt: install python3-dbg, or debuginfo of this Python"
    return ""


def _has_py_bt(*programs):
    """gdb takes the script of a program's own name from there.  Source: gdb's manual, "The -gdb.py file"."""
    return any(os.path.exists(f"{folder}{os.path.realpath(program)}-gdb.py") or os.path.exists(f"{program}-gdb.py")
               for program in programs if program for folder in ("/usr/share/gdb/auto-load", "/usr/lib/debug"))


class _Values:
    """What stands for the names in a tool's command.  names: {name: text}."""

    def __init__(self, facts):
        pid = facts["pid"]
        self.library, self._probes = _library(facts), None
        self.names = {"pid": pid, "net": "" if _same_network(pid) else f"nsenter -t {pid} -n ", "data": f"perf-{pid}.data"}
        if self.library:
            self.names["python"] = f"/proc/{pid}/root{self.library}"
        peer = _peer(facts)
        if peer:
            self.names.update(peer=peer, peer_host=host_of(peer).strip("[]"), peer_port=port_of(peer))

    def has_probes(self):
        """Whether the Python in the process has the probes of --with-dtrace: a note in its file names them."""
        if self._probes is None:
            self._probes = _has_note(self.names.get("python"))
        return self._probes


def _has_note(path):
    if path is None or not _PLAIN_PATH.fullmatch(path):
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)      # in another's folder it may be a FIFO by now
        with open(handle, "rb") as file:
            return stat.S_ISREG(os.fstat(handle).st_mode) and b"stapsdt\0" in file.read(_PROBE_BYTES)
    except OSError:
        return False


def _library(facts):
    """The file that Python's code is in: libpython, or the program itself; None where that is not known."""
    names = [row["name"] for row in (facts["memory"] or {}).get("largest") or ()]
    for name in [*names, facts["identity"]["program"] or ""]:
        base = os.path.basename(name)
        if base.startswith("libpython") or base.startswith("python"):
            return name
    return None


def _peer(facts):
    """The "host:port" that is waited for, or that does not answer; else the one with most connections."""
    waited = [row["waits_on"]["target"] for row in facts["threads"] if waits_for_peer(row) and row["idle"] is not True]
    groups = [group for group in facts["network"] or () if group["kind"] == "tcp" and group["direction"] == "out"]
    groups.sort(key=lambda group: -group["states"].get("SYN_SENT", 0))
    for place in [*sorted(set(waited), key=lambda target: -waited.count(target)), *(group["place"] for group in groups)]:
        if _ADDRESS.fullmatch(place):
            return place
    return None


def _same_network(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return True
