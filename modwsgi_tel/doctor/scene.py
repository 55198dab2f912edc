"""What `doctor` judges: plain data, as the machine was at one look; and what a judge says of it."""
import shlex
from collections import namedtuple

from modwsgi_tel.figures import counted
from modwsgi_tel.proc.roles import CHILD, DAEMON

OK, WRONG, UNKNOWN, FOLLOWS = "ok", "wrong", "unknown", "follows"
APACHE_TELLS = (6, 0)                   # the first version of mod_wsgi that sends telemetry
_LATELY_S = 5.0
_OF_FILES = ("sed ", "printf ", "chmod ", "chgrp ", "usermod ")

Scene = namedtuple("Scene", "at tool target target_from here collectors servers summary rows asked ports policy denials qlen disk unknown unit",
                   defaults=(None,))
Scene.__doc__ = """at: wall seconds.  tool: a Tool.  target: the path where the collector listens, or is to.  target_from: how that is
known: "--listen", "collector", "directive" (of a server) or "default".  here: what is at that path.  collectors: [Collector].  servers:
[Server].  summary: a Summary or None.  rows: [Row], the processes that the collector knows.  asked: an Asked.  ports: {port: [(pid,
command)]} of who listens on the ports that matter.  policy: {"selinux": "enforcing", "permissive" or "", "apparmor": whether it is on}.
denials: [Denial], the oldest first.  qlen: net.unix.max_dgram_qlen or None.  disk: (path, free bytes, share that is free) of the
recording's, or None.  unknown: {step: [line]} on what could not be looked at.  unit: (name, path where it listens) of a collector that
systemd here could start, or None."""

Tool = namedtuple("Tool", "program version python user lacks hidepid has_proc")
Tool.__doc__ = """program: how it is started again.  lacks: as proc.access.lacking has it.  hidepid: of /proc, or "".  has_proc: whether
there is one."""

Place = namedtuple("Place", "state inode pids mode uid gid acl folders")
Place.__doc__ = """What is at a path, as one process sees it.  state: "listens", "dead" (a socket that nobody has), "absent", "denied"
(this user may not ask), "stream" (another type of socket), "file" (no socket), "unknown".  inode: of the datagram socket that a send
would reach, or None.  pids: who has that one open.  mode, uid, gid: of the file, or None.  acl: whether it has an access control list.
folders: [Folder] above it, the outermost first; the last may be missing."""

Folder = namedtuple("Folder", "path mode uid gid acl")
Folder.__doc__ = "A folder on the way to a socket.  mode: None of one that is not there.  acl: whether it has an access control list."

Bound = namedtuple("Bound", "path inode place")
Bound.__doc__ = """A datagram socket that a collector has bound.  place: the Place of its path, as
the collector sees it, or None."""

Collector = namedtuple("Collector", "pid own command user stopped sockets ports http_sockets options unit age_s powerful namespace "
                                    "helper", defaults=(None, None))
Collector.__doc__ = """A collector that runs.  own: False of the existing one, mod_wsgi-telemetry.  stopped: by a signal or a debugger.
sockets: [Bound].  ports: where it serves HTTP, as "127.0.0.1:8888".  options: {name: text} of its command line.  unit: of systemd, or "".
helper: (path, "listens", "denied" or why not) of its --stacks-helper, or None.  powerful: whether it has the right to read other users'
processes; None where that is not known.  namespace: that of its mounts, or None."""

Sender = namedtuple("Sender", "pid role uid gids mighty waits context profile age_s agent", defaults=(None, False))
Sender.__doc__ = """A process that sends, or should.  gids: its groups.  mighty: whether it may write to everything.  waits: [text] of
threads that wait in a send to the telemetry socket; None where that is not known.  context: SELinux's; profile: AppArmor's; "" where
there is none.  agent: whether an agent listens in it."""

Server = namedtuple("Server", "pid kind reload unit config problem senders path place here private mounted mentions restricted is_left "
                              "contained", defaults=(False, False))
Server.__doc__ = """A server.  kind: "apache", "gunicorn", "uwsgi".  reload: the command that makes it read its configuration again.  config: an
apache.config.Config or None; problem: why not.  senders: [Sender].  path: the socket that its configuration names, as it is written, or
None; of one that only an agent tells of the target.  place: what it sees there.  here: what this process sees there.  private: whether
its mounts are others than the collector's (this process's, where none runs); None where that is not known.  mounted: "point (what is
mounted there)" of the mount that the path is on, where it is private.  mentions: [Mention].  restricted: whether WSGIRestrictEmbedded is
on.  is_left: whether it is what is left of an Apache that has ended.  contained: whether its
configuration is another file than the one of that name here, as in a container."""

Mention = namedtuple("Mention", "place line why")
Mention.__doc__ = "A line that names WSGITelemetryService and has no effect.  place: \"file:line\".  why: in words."

Asked = namedtuple("Asked", "where problem took_s")
Asked.__doc__ = "Where the collector was asked by HTTP; why it did not answer, or \"\"; how long that took."

Summary = namedtuple("Summary", "version pid uptime_s socket trouble received wrong details stacks_problem recording_trouble lost")
Summary.__doc__ = """What a collector of ours says of itself.  trouble: with its socket, or "".  wrong: {reason: datagrams}.  details:
[text] of the last wrong ones.  stacks_problem: why it reads none, or "".  recording_trouble: text.  lost: datagrams that did not arrive."""

Row = namedtuple("Row", "pid sender_pid interval silent_s")
Row.__doc__ = """A process as the collector knows it.  silent_s: since its last datagram."""

Denial = namedtuple("Denial", "at kind pid text path")
Denial.__doc__ = """What a policy refused.  at: wall seconds.  kind: "selinux" or "apparmor".  pid: or None.  text: the log's line, masked.
path: or ""."""

Mend = namedtuple("Mend", "kind text where", defaults=("",))
Mend.__doc__ = """How to mend it.  kind: "run" of a shell command; "apache" of a directive; "say" of words.  where: "file:line" or the file
that a directive belongs into."""

Result = namedtuple("Result", "state text evidence mends pid", defaults=((), (), None))
Result.__doc__ = """One answer of a step.  state: OK, WRONG, UNKNOWN, or FOLLOWS: not right, and no cause of its own.  evidence: [text].
mends: [Mend], in order.  pid: of the server or process that it is about."""


def run(text):
    return Mend("run", text)


def directive(text, where=""):
    return Mend("apache", text, where)


def say(text):
    return Mend("say", text)


def inside(scene, result):
    """The same Result, with the commands that change files of a server in a container run where these files are."""
    if not any(server.contained and server.pid == result.pid for server in scene.servers):
        return result
    return result._replace(mends=tuple(
        run(f"nsenter -t {result.pid} -m -r sh -c {shlex.quote(mend.text)}") if mend.kind == "run" and mend.text.startswith(_OF_FILES) else mend
        for mend in result.mends))


def as_root(scene):
    return run(f"sudo {scene.tool.program} doctor")


def version_of(server):
    """The version of its mod_wsgi as (6, 1), or None."""
    told = server.config.mod_wsgi if server.config is not None else None
    words = (told or {}).get("version")
    parts = words.split(".")[:2] if words else []
    return tuple(int(part) for part in parts) if len(parts) == 2 and all(part.isdecimal() for part in parts) else None


def tells(server):
    """Whether its mod_wsgi can send: True, False, or None where that is not known."""
    if server.kind != "apache" or server.config is not None and server.config.mod_wsgi is None:
        return False
    version = version_of(server)
    return None if version is None else version >= APACHE_TELLS


def by_agent_only(server):
    """Whether it serves Python, and nothing but an agent in its application can tell of it."""
    return tells(server) is False and not server.is_left and not (server.kind == "apache"
                                                                  and (server.config is None or server.config.mod_wsgi is None))


def expected(server):
    """Its Senders that should tell telemetry by themselves: the daemons, and the children unless they run no Python."""
    if not tells(server):
        return []
    return [each for each in server.senders if each.role == DAEMON or each.role == CHILD and not server.restricted]


def arrives(scene, sender):
    """Whether what a Sender sends, or an agent in it, arrived lately."""
    return any(sender.pid in (row.pid, row.sender_pid) and row.silent_s < max(_LATELY_S, 3.5 * row.interval) for row in scene.rows)


def by_agent(scene, server):
    """The Senders of a server that does not tell by itself, of which an agent does."""
    return [each for each in server.senders if arrives(scene, each)] if tells(server) is False else []


def named(server):
    return f"{server.kind if server.kind != 'apache' else 'Apache'} (pid {server.pid})"


def processes(amount):
    return counted(amount, "process", "processes")


def bound(scene):
    """[(Collector, Bound)] of all that run."""
    return [(each, own) for each in scene.collectors for own in each.sockets]


def reaches(scene, place):
    """The Collector whose socket a send to that Place reaches, or None."""
    if place is None or place.inode is None:
        return None
    return next((each for each, own in bound(scene) if own.inode == place.inode), None) or next(
        (each for each in scene.collectors if each.pid in place.pids), None)
