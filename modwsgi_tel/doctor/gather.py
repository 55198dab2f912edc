"""Looks at everything once and makes a Scene.  Each part by itself: what fails is one line of what is not known."""
import os
import re
import sys
import time

from modwsgi_tel import __version__
from modwsgi_tel.doctor import collectors, denials, places, servers
from modwsgi_tel.doctor.scene import Asked, Row, Scene, Summary, Tool
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.inspection.further import started_as
from modwsgi_tel.net.datagram import unix_path
from modwsgi_tel.options import SOCKET, token_in
from modwsgi_tel.proc import procfs, roles
from modwsgi_tel.proc.access import lacking
from modwsgi_tel.report.client import fetch, is_summary, where_of

ANSWERS_S = 3.0                         # in which a collector that lives has answered
DENIED_S = 86400.0                      # how far back denials count
_MOST_ROWS, _MOST_TEXT = 1000, 300
_PORT = re.compile(r":(\d{1,5})(?:/|$)")
_QLEN = "sys/net/unix/max_dgram_qlen"


def scene(values, root="/proc"):
    """The Scene.  Raises UsageError for what was asked wrongly, TelError for a --pid that is no process of a server."""
    wall, unknown = time.time(), {}

    def tried(step, work, otherwise):
        try:
            return work()
        except UsageError:
            raise
        except (TelError, OSError, ValueError) as error:
            unknown.setdefault(step, []).append(str(error))
            return otherwise

    given = os.path.abspath(unix_path(values.listen)) if values.listen else ""
    where_of(values)                    # both of --url and --http-socket are nobody's wish
    tool = _tool(root)
    members = tried("servers", lambda: roles.members(root), [])
    if values.pid is not None and values.pid not in {each.pid for each in members if each.role != roles.PYTHON}:
        raise TelError(f"process {values.pid} is of no server that is known here: give a pid of Apache, gunicorn or uWSGI")
    running = tried("collector", lambda: collectors.of(members, root), [])
    policy = denials.policy()
    first = next((each.pid for each in running if each.namespace is not None), "self")
    found = tried("servers", lambda: servers.with_waits(servers.of(members, values.pid, policy, first, root), root), [])
    unit = collectors.unit_here()
    target, target_from = _target(given, running, found, unit)
    asked, summary, rows = _ask(values, running, target)
    if summary is not None and not running and not given and summary.socket:
        target, target_from = summary.socket, "collector"
    found = tried("servers", lambda: servers.with_target(found, target, root), found)
    here = tried("collector", lambda: places.look(target, root=root), None) if target.startswith("/") else None
    told, reasons = denials.read(wall - DENIED_S) if policy["selinux"] or policy["apparmor"] else ([], [])
    unknown.setdefault("policy", []).extend(reasons)
    port = _PORT.search(asked.where)
    ports = {int(port.group(1)): collectors.who_listens(int(port.group(1)), root)} if port and (asked.problem or summary is None) else {}
    return Scene(wall, tool, target, target_from, here, running, found, summary, rows, asked, ports, policy, told, _qlen(root),
                 _disk(running), unknown, unit)


def _tool(root):
    has_proc = procfs.is_visible(root)
    try:
        lacks = lacking(root)
    except (OSError, KeyError, ValueError):
        lacks = ""
    return Tool(started_as(sys.argv[0], sys.executable), __version__, "%d.%d.%d" % sys.version_info[:3],
                places.user_name(os.geteuid()), lacks, procfs.hidden(root), has_proc)


def _target(given, running, found, unit):
    """(path, how that is known)."""
    if given:
        return given, "--listen"
    bound = [own for each in running for own in each.sockets]
    paths = {server.path for server in found if server.path and server.path.startswith("/")}
    wanted = [own.path for own in bound if own.path in paths] or [own.path for own in bound]
    if wanted:
        return wanted[0], "collector"
    if len(paths) == 1:
        return paths.pop(), "directive"
    return unit[1] if unit else unix_path(SOCKET), "default"


def _qlen(root):
    try:
        return int(procfs.read(f"{root}/{_QLEN}", 64))
    except (OSError, ValueError):
        return None


def _disk(running):
    """(path, free bytes, share that is free) of the first recording that is written, or None."""
    path = next((each.options["record"] for each in running if each.options.get("record")), None)
    try:
        seen = os.statvfs(os.path.dirname(os.path.abspath(path))) if path else None
    except (OSError, ValueError):
        return None
    return (path, seen.f_bavail * seen.f_frsize, seen.f_bavail / seen.f_blocks) if seen and seen.f_blocks else None


# --- the collector by HTTP --------------------------------------------------------------------------

def _ask(values, running, target):
    """(Asked, Summary or None, [Row])."""
    chosen = next((each for each in running if any(own.path == target for own in each.sockets)), running[0] if running else None)
    place, token_file = _where(values, chosen)
    where = place["http_socket"] or place["url"]
    began = time.monotonic()
    if chosen is not None and chosen.stopped:
        return Asked(where, f"the collector (pid {chosen.pid}) is stopped", 0.0), None, []

    def got(path):
        return fetch(path, **place, token=token_in(token_file), timeout_s=min(values.timeout, ANSWERS_S))

    try:
        summary = got("/api/summary?parts=collector,totals,groups,agent")
        if not isinstance(summary, dict) or not is_summary({**summary, "processes": []}):
            raise TelError(f"what answers at {where} is no collector of modwsgi-tel")
        rows = got(f"/api/processes?limit={_MOST_ROWS}")
        took_s = time.monotonic() - began
        return Asked(where, "", took_s), summary_of(summary), rows_of(rows, summary["time"])
    except TelError as error:
        return Asked(where, str(error), time.monotonic() - began), None, []
    except (AttributeError, KeyError, TypeError, ValueError):
        return Asked(where, f"{where} does not answer as a collector of this version of modwsgi-tel does",
                     time.monotonic() - began), None, []


def _where(values, chosen):
    """({"url", "http_socket"}, token file): what was asked for, else where the collector that was found answers."""
    if chosen is None or values.meant("url") or values.meant("http_socket") or values.given["url"] != "default" or values.http_socket:
        return where_of(values), values.token_file
    token_file = values.token_file or chosen.options.get("token-file", "")
    token_file = token_file if token_file and os.access(token_file, os.R_OK) else values.token_file
    if chosen.ports:
        host, _, port = chosen.ports[0].rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        return {"url": f"http://{host}:{port}{chosen.options.get('root-path', '')}", "http_socket": None}, token_file
    if chosen.http_sockets:
        return {"url": values.url, "http_socket": chosen.http_sockets[0]}, token_file
    return where_of(values), token_file


def _text(value):
    return str(value)[:_MOST_TEXT] if value else ""


def summary_of(told):
    """The Summary of the JSON of /api/summary; raises KeyError, TypeError and the like for another shape."""
    own = told["collector"]
    return Summary(_text(own["version"]), int(own["pid"]), float(own["uptime_s"]), _text(own["socket"]), _text(own["socket_trouble"]),
                   int(own["received"]),
                   {_text(reason): int(count) for reason, count in own["wrong"].items()},
                   [f"from pid {each['sender_pid']}: {_text(each['detail'])}" for each in own["wrong_last"][-3:]],
                   _text(own["stacks"]["problem"]),
                   _text((own["recording"] or {}).get("trouble")), int(told["totals"]["lost"]))


def rows_of(told, now):
    """[Row] of the JSON of /api/processes."""
    found = []
    for each in told["processes"][:_MOST_ROWS]:
        pids = [int(pid) for pid in (each["pid"], each["sender_pid"])]
        found.append(Row(*pids, float(each["interval"] or 1.0), max(0.0, now - each["last_seen"])))
    return found
