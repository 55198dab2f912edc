"""What the tree is made of, and what a reader wants of it: plain data, from /proc, from stacks, from telemetry."""
from collections import namedtuple

PARENT, CHILD, DAEMON, MASTER, WORKER = "apache-parent", "apache-child", "daemon", "master", "worker"
PYTHON, COLLECTOR, HELPER, EMBEDDED = "python", "collector", "helper", "embedded"
SORTS = ("start", "cpu", "rss", "age")
VANISHED, ENDED, BEGUN = "vanished", "ended", "begun"
MEMORY, AGENT, TAKEN = "memory", "agent", "collector"           # where stacks are from

Process = namedtuple("Process", "pid inner_pid parent started role group server host name command uid state threads cpu_s cpu "
                                "rss_bytes life row looks looked_age_s source unread number",
                     defaults=(None, None, None, *[""] * 6, *[None] * 8, (), None, None, "", None))
Process.__doc__ = """One process, as all that tells of it has it.

pid: as the reader sees it.  inner_pid: in its own namespace, where that is another.  parent: pid.  started: wall seconds.
role: as proc.roles names them; of telemetry alone daemon, embedded or apache-child.  group: its process group, or what gunicorn or
uWSGI serve; "" without.  server: apache, gunicorn, uwsgi, python, or "" where that is not known.  host: "" for this one.
state: the kernel's letter.  threads: the kernel's.  cpu_s: used since its start.  cpu: cores, lately.  life: telemetry's word
for it, VANISHED for one that /proc does not know, ENDED or BEGUN for one that went away or came meanwhile; None where no telemetry
tells of it.
row: telemetry's row of it (/api/processes), or None.  looks: model.Stacks, the oldest first.  looked_age_s: since the last of them.
source: MEMORY, AGENT or TAKEN.  unread: why there is no look, or "".  number: what tells it from others of this pid, or None."""

Ask = namedtuple("Ask", "group pid system sort stacktraces flat", defaults=(None, None, True, "start", False, False))
Ask.__doc__ = """What is wanted: only this group, only this pid (None: all), with what serves no requests, sorted by one of SORTS,
with whole stacks, as one list instead of nested."""
