"""Judges of the side that receives: this tool, the collector, its queue, what arrives, stacks, who asks.

Each takes a Scene and gives [Result].
"""
import shlex

from modwsgi_tel.doctor import places
from modwsgi_tel.doctor.scene import FOLLOWS, OK, UNKNOWN, WRONG, Result, arrives, as_root, bound, expected, named, processes, run, say, tells
from modwsgi_tel.doctor.sending import added_line, folder_of, group_of, versions
from modwsgi_tel.figures import counted, duration, percent, size

_LITTLE_BYTES, _LITTLE = 200 << 20, 0.03
_NEW_S = 5.0                            # a process, or a collector, younger than that may not have sent yet
_NAMED = 5
_SYSTEMD_QLEN = 512
_NO_STACKS = say("or, where none are wanted: serve --stacks off (MODWSGI_TEL_STACKS=off in the unit's /etc/default/modwsgi-tel)")


def tool(scene):
    own = scene.tool
    told = f"modwsgi-tel {own.version}, Python {own.python}, as {own.user}"
    if not own.has_proc:
        return [Result(UNKNOWN, f"{told}: there is no /proc here, without which hardly anything can be seen", (),
                       (run("mount -t proc proc /proc"),))]
    if own.lacks:
        hidden = f"; /proc hides the processes of others (hidepid={own.hidepid})" if own.hidepid else ""
        return [Result(UNKNOWN, f"{told}: {own.lacks}, so that open sockets, mounts and threads of others are not seen{hidden}", (),
                       (as_root(scene),))]
    return [Result(OK, told)]


# --- the collector -----------------------------------------------------------------------------------

def collector(scene):
    found = []
    if not scene.collectors:
        return [_no_collector(scene)]
    for each in scene.collectors:
        name = _name(each)
        where = ", ".join(f"unix:{own.path}" for own in each.sockets)
        if each.stopped:
            found.append(Result(WRONG, f"{name} is stopped: it takes nothing, and every process that sends to it waits, also when it is to end",
                                (), (run(f"kill -CONT {each.pid}"),), each.pid))
            continue
        lost = [own for own in each.sockets if own.place is not None and own.inode is not None
                and own.place.state in ("absent", "dead", "file", "stream", "listens")
                and own.place.inode != own.inode and not (own.place.state == "listens" and own.place.inode is None)]
        for own in lost:
            takers = [other for other in scene.collectors if not other.own and other.pid in own.place.pids]
            found.append(Result(WRONG, f"{name} has lost its socket {own.path}: {_instead(own.place)}", (),
                                (*map(_ended, takers), *_anew(each)), each.pid))
        if scene.summary is not None and scene.summary.pid == each.pid and scene.summary.trouble and not lost:
            found.append(Result(WRONG, f"{name}: {scene.summary.trouble}", (), _anew(each), each.pid))
        elif not lost:
            http = ", ".join([*each.ports, *each.http_sockets])
            found.append(Result(OK, f"{name}, for {duration(each.age_s)}, receives on {where}" + (f", answers on {http}" if http else ""),
                                pid=each.pid))
    if scene.target not in {own.path for _, own in bound(scene)}:
        found.append(Result(WRONG, f"none listens on {scene.target}", (_seen(scene.here),),
                            _started(scene, _serve(scene))))
    version = scene.summary.version if scene.summary is not None else scene.tool.version
    if version != scene.tool.version:
        found.append(Result(OK, f"the collector is of version {version}, this of {scene.tool.version}"))
    if len(scene.collectors) > 1:
        used = {server.path for server in scene.servers if server.path}
        idle = [each for each in scene.collectors if not used & {own.path for own in each.sockets}] if used else []
        names = ", ".join(map(_name, idle))
        other = next((each for each in scene.collectors if not each.own and used & {own.path for own in each.sockets}), None)
        mine = next((own for each in idle if each.own for own in each.sockets), None)
        if other and mine and not any(each.own for each in scene.collectors if each not in idle):
            found.append(Result(WRONG, f"no server sends to {names}: they send to {_name(other)}", (),
                                (run(f"{scene.tool.program} doctor --listen {shlex.quote('unix:' + mine.path)}"),), other.pid))
            return found
        found.append(Result(OK, f"{len(scene.collectors)} collectors run" + (f"; no server sends to {names}" if idle else "")))
    return found


def _name(each):
    return f"{'modwsgi-tel' if each.own else 'the existing collector, mod_wsgi-telemetry'} (pid {each.pid}, {each.user})"


def _ended(each):
    return run(f"systemctl stop {shlex.quote(each.unit[:-len('.service')])}" if each.unit else f"kill {each.pid}")


def _anew(each):
    if each.unit:
        return (run(f"systemctl restart {shlex.quote(each.unit[:-len('.service')])}"),)
    return (run(f"kill {each.pid}"), say(f"then start it again: {each.command}"))


def _instead(place):
    others = ", ".join(f"pid {pid}" for pid in place.pids) or "an unknown process"
    return {"absent": "the file is gone", "dead": "another's socket is there, and nobody has that one open",
            "file": "something that is no socket is there", "stream": "a socket of another type is there",
            "listens": f"another socket is there, of {others}"}[place.state]


def _seen(place):
    if place is None:
        return "what is there is not known"
    others = ", ".join(f"pid {pid}" for pid in place.pids) or "one that may not be seen"
    return {"absent": "nothing is there", "dead": "a socket is there that nobody has open: a collector died",
            "denied": "what is there may not be asked by this user", "file": "something that is no socket is there",
            "stream": "a socket of another type is there", "listens": f"another program has it: {others}",
            "unknown": "what is there is not known"}[place.state]


def _serve(scene):
    """The command that starts a collector there, for Apache's user."""
    gid = group_of(scene)
    group = "" if gid is None else f" --socket-group {shlex.quote(places.group_name(gid))}"
    return f"{scene.tool.program} serve --listen {shlex.quote('unix:' + scene.target)}{group}"


def _started(scene, command, folder=""):
    """What starts a collector there.  folder: one that is not there yet."""
    if scene.unit is not None and scene.unit[1] == scene.target:
        name = shlex.quote(scene.unit[0])
        return (run(f"systemctl restart {name}"), say(f"why it does not run: journalctl -u {name} -n 20"))
    path, is_file = shlex.quote(scene.target), scene.here is not None and scene.here.state == "file"
    return (*([run(f"mkdir -p {shlex.quote(folder)}")] if folder else []), *([run(f"mv {path} {path}.away")] if is_file else []), run(command),
            say(f"or as a service: {scene.tool.program} extras systemd"))


def _no_collector(scene):
    place, taken = scene.here, []
    for port, who in scene.ports.items():
        if who:
            taken.append(f"port {port} is taken by {_who(who)}")
    listening = place is not None and place.state == "listens"
    if listening and (scene.tool.lacks or scene.tool.hidepid) and not place.pids:
        return Result(UNKNOWN, f"something listens on {scene.target}; which program is not seen", (), (as_root(scene),))
    if place is not None and place.state == "denied" and not place.inode and (scene.tool.lacks or scene.tool.hidepid):
        return Result(UNKNOWN, f"whether a collector listens on {scene.target} may not be asked by this user", (), (as_root(scene),))
    if scene.summary is not None:
        return Result(OK, f"modwsgi-tel (pid {scene.summary.pid}, as it says itself) answers on {scene.asked.where}, receives on "
                          f"unix:{scene.summary.socket}")
    if scene.tool.hidepid or not scene.tool.has_proc or scene.unknown.get("collector"):
        return Result(UNKNOWN, "no collector was seen", tuple(scene.unknown.get("collector", ())),
                      (as_root(scene),))
    missing = place is not None and any(each.mode is None for each in place.folders)
    return Result(WRONG, f"no collector runs: {scene.target}: {_seen(place)}", tuple(taken),
                  _started(scene, _serve(scene) + (" --http-port 0" if taken else ""), folder_of(scene.target) if missing else ""))


def _who(who):
    pid, command = who[0]
    return f"pid {pid} ({command})" if pid else command


# --- its queue ---------------------------------------------------------------------------------------

def queue(scene):
    senders = [(server, each) for server in scene.servers for each in expected(server)]
    waiting, is_hidden = [each for _, each in senders if each.waits], any(each.waits is None for _, each in senders)
    found = []
    if waiting:
        why = [each for each in scene.collectors if each.stopped]
        others = [pid for server in scene.servers if server.place is not None for pid in server.place.pids
                  if pid not in {each.pid for each in scene.collectors}]
        text = f"threads of {processes(len(waiting))} wait in their send: the socket's queue is full, and nobody takes from it"
        evidence = tuple(f"pid {each.pid}: {each.waits[0]}" for each in waiting[:_NAMED])
        if why:
            found.append(Result(FOLLOWS, text + ", since the collector is stopped", evidence))
        else:
            mends = [run(f"kill {pid}") for pid in dict.fromkeys(others)]
            seek = say(f"end whoever has the socket open and does not read it: ss -xlp | grep {shlex.quote(scene.target)}")
            found.append(Result(WRONG, text, evidence, tuple(mends or [seek])))
    if scene.qlen is None:
        return found + [Result(UNKNOWN, "net.unix.max_dgram_qlen is not known: how many datagrams may wait")]
    if len(senders) > scene.qlen:
        found.append(Result(WRONG, f"{processes(len(senders))} send into a queue of {counted(scene.qlen, 'datagram')}: while the collector "
                                   "is busy they wait for each other",
                            (f"net.unix.max_dgram_qlen is {scene.qlen}; systemd's machines have {_SYSTEMD_QLEN}",),
                            (run(f"sysctl -w net.unix.max_dgram_qlen={_SYSTEMD_QLEN}"),
                             run(f"echo net.unix.max_dgram_qlen={_SYSTEMD_QLEN} > /etc/sysctl.d/90-modwsgi-tel.conf"),
                             say("then start the collector anew: its socket keeps the length that it was made with"))))
    if not found:
        known = "" if is_hidden else ", none of their threads waits in that"
        send = counted(len(senders), "process sends", "processes send")
        found.append(Result(OK, f"{counted(scene.qlen, 'datagram')} may wait, {send}{known}"))
    if is_hidden and not waiting:
        found.append(Result(UNKNOWN, "whether threads wait in their send may not be looked at", (),
                            (as_root(scene),)))
    return found


# --- what arrives ------------------------------------------------------------------------------------

def arrival(scene, has_cause=False):
    """has_cause: whether a step before has found something wrong."""
    if scene.summary is None:
        if any(not each.own for each in scene.collectors):
            return [Result(UNKNOWN, "the existing collector is not asked here; what it knows:", (),
                           (run("mod_wsgi-telemetry top --once"),))]
        is_told = has_cause or bool(scene.collectors)               # by the collector's step, or that of who asks it
        return [Result(FOLLOWS if is_told else UNKNOWN, "what arrives is not known: no collector answers",
                       () if is_told else (scene.asked.problem,))]
    found = []
    silent = [(server, each) for server in scene.servers for each in expected(server) if not arrives(scene, each)]
    fresh = [(server, each) for server, each in silent if not has_cause
             and ((each.age_s or 0.0) < _NEW_S or scene.summary.uptime_s < _NEW_S)]
    late = [pair for pair in silent if pair not in fresh]
    total = sum(len(expected(server)) for server in scene.servers)
    if total - len(silent):
        found.append(Result(OK, f"telemetry arrives from {total - len(silent)} of {processes(total)}"))
    if fresh:
        found.append(Result(UNKNOWN, f"{_pids(fresh)}: started less than {_NEW_S:g} s ago, or the collector was, and nothing has come yet",
                            (), (run(f"sleep 5; {scene.tool.program} doctor"),)))
    for group in _by_server(late):
        known = [row for row in scene.rows for _, each in group if each.pid in (row.pid, row.sender_pid)]
        evidence = tuple(f"pid {row.pid}: the last came {duration(row.silent_s)} ago" for row in known[:_NAMED])
        server = group[0][0]
        text = f"nothing arrives from {_pids(group)} of {named(server)}"
        if has_cause:
            found.append(Result(FOLLOWS, text, evidence, pid=server.pid))
        elif known:
            found.append(Result(WRONG, f"{text} any more: its GIL is held, or it waits", evidence,
                                (run(f"{scene.tool.program} why --pid {group[0][1].pid}"),), server.pid))
        else:
            found.append(Result(WRONG, text, ("its configuration may be newer than these processes",), (run(server.reload),), server.pid))
    if scene.summary.wrong:
        count = sum(scene.summary.wrong.values())
        reasons = ", ".join(f"{reason} {amount:,}" for reason, amount in scene.summary.wrong.items())
        senders = f"mod_wsgi {', '.join(sorted(versions(scene))) or 'there'} speaks otherwise than modwsgi-tel {scene.summary.version} knows"
        found.append(Result(WRONG, f"{counted(count, 'datagram')} of {scene.summary.received:,} could not be understood ({reasons}): another "
                                   f"program sends there, or {senders}", tuple(scene.summary.details),
                            (say("the details above name the sender: end it, or install a newer modwsgi-tel; then start the collector anew"),)))
    if scene.summary.lost:
        found.append(Result(OK, f"{counted(scene.summary.lost, 'datagram')} did not arrive since the collector started: its socket was away"))
    if not found:
        found.append(Result(FOLLOWS, "no process is there that should send") if not total else Result(OK, "all is well"))
    return found


def _pids(pairs):
    return f"{processes(len(pairs))} ({', '.join(str(each.pid) for _, each in pairs[:_NAMED])}{', ...' if len(pairs) > _NAMED else ''})"


def _by_server(pairs):
    found = {}
    for server, sender in pairs:
        found.setdefault(server.pid, []).append((server, sender))
    return list(found.values())


# --- stacks ------------------------------------------------------------------------------------------

def stacks(scene):
    found = []
    for server in scene.servers:
        if not tells(server) or not server.path:
            continue
        slow = server.config.telemetry["slow"]
        if not slow:
            found.append(Result(WRONG, f"{named(server)} tells of no slow requests: WSGISlowRequests is {'off' if slow == 0 else 'not set'}",
                                (), added_line(server, "WSGISlowRequests 2.0"), server.pid))
    ours = [each for each in scene.collectors if each.own]
    if scene.summary is not None and scene.summary.stacks_problem:
        found.append(Result(WRONG, f"the collector reads no stacks: {scene.summary.stacks_problem}", (), _helped(scene, ours)))
        return found
    for each in ours:
        if each.options.get("stacks", "").lower() == "off":
            found.append(Result(OK, "the collector is told to read no stacks (--stacks off)"))
        elif each.options.get("stacks-helper"):
            found.append(_helper(scene, each))
        elif each.powerful is False:
            found.append(Result(WRONG, f"the collector, as {each.user}, may not read the stacks of Apache's processes: it has no "
                                       "CAP_SYS_PTRACE and no --stacks-helper", (), _helped(scene, [each]), each.pid))
        elif each.powerful:
            found.append(Result(OK, "the collector may read stacks"))
    return found or [Result(FOLLOWS, "no collector reads stacks")]


def _helped(scene, ours):
    user = ours[0].user if ours else "modwsgi-tel"
    if user == "root":
        return ()
    unit = ours[0].unit if ours else ""
    if unit:
        own, more = (shlex.quote(f"/etc/systemd/system/{name}") for name in ("modwsgi-tel-stacks.service", f"{unit}.d"))
        return (run(f"{scene.tool.program} extras systemd/modwsgi-tel-stacks.service > {own}"),
                run(f"mkdir -p {more} && {scene.tool.program} extras systemd/stacks.conf > {more}/stacks.conf"),
                run(f"systemctl daemon-reload && systemctl enable --now modwsgi-tel-stacks && systemctl restart {shlex.quote(unit)}"), _NO_STACKS)
    return (run(f"{scene.tool.program} stack-helper --allow-uid {shlex.quote(user)} --socket-mode 0666"),
            say("and start the collector with --stacks-helper /run/modwsgi-tel-stacks.sock; as a service: modwsgi-tel-stacks of "
                f"{scene.tool.program} extras systemd"), _NO_STACKS)


def _helper(scene, each):
    path, state = each.helper
    if state == "denied":
        return Result(UNKNOWN, f"whether a stack helper answers on {path} may not be asked by this user", (), (as_root(scene),))
    if state != "listens":
        return Result(WRONG, f"no stack helper answers on {path}: {state}", (),
                      (run(f"{scene.tool.program} stack-helper --listen {shlex.quote('unix:' + path)} --allow-uid {shlex.quote(each.user)}"),
                       say("or as a service: systemctl start modwsgi-tel-stacks")), each.pid)
    return Result(OK, f"a stack helper listens on {path}")


# --- who asks, and the machine -------------------------------------------------------------------------

def readers(scene):
    asked = scene.asked
    if not asked.problem:
        return [Result(OK, f"{asked.where} answers, in {duration(asked.took_s)}")]
    if not scene.collectors:
        return [Result(FOLLOWS, asked.problem)]
    if not any(each.own for each in [each for each, own in bound(scene) if own.path == scene.target] or scene.collectors):
        return [Result(FOLLOWS, "the existing collector has other answers; its own console reads it")]
    if any(each.stopped for each in scene.collectors):
        return [Result(FOLLOWS, asked.problem)]
    evidence = tuple(f"port {port} is that of {_who(who)}" for port, who in scene.ports.items() if who)
    own = next((each for each in scene.collectors if each.own), None)
    mends = []
    if "token" in asked.problem:
        mends.append(run(f"{scene.tool.program} doctor --token-file {shlex.quote(own.options.get('token-file') or 'FILE')}"))
    elif "421" in asked.problem or "host" in asked.problem.lower() and "allow" in asked.problem:
        mends.append(say("start the collector with --allow-host NAME for the name that is asked for"))
    elif own is not None and (own.ports or own.http_sockets):
        mends.append(run(f"{scene.tool.program} doctor " + (f"--url http://{own.ports[0]}" if own.ports
                                                            else f"--http-socket {shlex.quote(own.http_sockets[0])}")))
    elif own is not None and any(each.inode is None for each in own.sockets):
        return [Result(UNKNOWN, f"the collector's port may not be seen by this user, and {asked.problem}", evidence,
                       (run(f"{scene.tool.program} doctor --url http://127.0.0.1:PORT"), as_root(scene)))]
    return [Result(WRONG, f"the collector does not answer: {asked.problem}", evidence, tuple(mends))]


def machine(scene):
    found = []
    if scene.summary is not None and scene.summary.recording_trouble:
        found.append(Result(WRONG, f"the recording: {scene.summary.recording_trouble}", (),
                            (say("make room, or give --record another place"),)))
    if scene.disk is not None:
        path, free, share = scene.disk
        if free < _LITTLE_BYTES or share < _LITTLE:
            found.append(Result(WRONG, f"{size(free)} ({percent(share)}) are free where the recording is written", (path,),
                                (run(f"df -h {shlex.quote(path)}"), say("make room, or give a smaller --record-size"))))
    return found or [Result(OK, "nothing is recorded" if scene.disk is None else f"{size(scene.disk[1])} are free for the recording")]

