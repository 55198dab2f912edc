"""Judges of the side that sends: the servers, their directive, the way to the socket.  Each takes a Scene and gives [Result]."""
import json
import os
import re
import shlex

from modwsgi_tel.doctor import places
from modwsgi_tel.doctor.scene import (FOLLOWS, OK, UNKNOWN, WRONG, Folder, Result, arrives, as_root, bound, by_agent, by_agent_only, directive,
                                      expected, named, processes, reaches, run, say, tells,
                                      version_of)
from modwsgi_tel.figures import counted, duration
from modwsgi_tel.net.datagram import LONGEST_PATH

_PROGRAM = "/usr/local/bin/modwsgi-tel.pyz"
RUN_SOCKET = "/run/modwsgi-tel/telemetry.sock"
_PLAIN = re.compile(r"[\w./@:+-]+")
_EXTRAS = "/usr/local/share/modwsgi-tel"       # a folder that nobody else can put something into
_SHARED_TMP = ("/tmp/", "/var/tmp/")
_DENIALS_SHOWN, _NAMED = 3, 5


def directive_for(path):
    target = f"unix:{path}"
    return f"WSGITelemetryService {target if _PLAIN.fullmatch(path) else json.dumps(target)} interval=1.0"


# --- the servers -------------------------------------------------------------------------------------

def servers(scene):
    if not scene.servers:
        if scene.unknown.get("servers") or scene.tool.hidepid:
            why = f": /proc hides the processes of others (hidepid={scene.tool.hidepid})" if scene.tool.hidepid else ""
            return [Result(UNKNOWN, f"no server was found{why}", scene.unknown.get("servers", ()), (as_root(scene),))]
        return [Result(WRONG, "no Apache, gunicorn or uWSGI runs here: nothing sends", (), (run("apachectl configtest && systemctl start apache2"),
                       say("or start what serves here (on RHEL httpd); another Python server needs the agent in its application")))]
    return [each for server in scene.servers for each in _server(scene, server)]


def _server(scene, server):
    told_of = by_agent(scene, server)
    if server.kind != "apache":
        if told_of:
            return [Result(OK, f"{named(server)}: the agent in {processes(len(told_of))} tells of it", pid=server.pid)]
        if any(each.agent for each in server.senders):
            return [_unheard(scene, server, named(server))]
        return [Result(WRONG, f"{named(server)} sends nothing by itself, and no agent in its application does", (), _agent(scene, server),
                       server.pid)]
    if server.is_left:
        pids = [each.pid for each in server.senders] or [server.pid]
        return [Result(WRONG, f"{processes(len(pids))} of an Apache are left whose first one has ended: its error log tells why",
                       (), (run(f"kill {' '.join(map(str, pids))}"), say("then start the server: systemctl start apache2")), server.pid)]
    if server.config is None:
        return [Result(UNKNOWN, f"{named(server)}: its configuration is not known: {server.problem}", (), (as_root(scene),),
                       server.pid)]
    module = server.config.mod_wsgi
    if module is None:
        return [Result(OK, f"{named(server)} {server.config.version or ''} has no mod_wsgi: it has nothing to send".replace("  ", " "),
                       pid=server.pid)]
    told = f"{named(server)} {server.config.version or ''}, mod_wsgi {module['version'] or 'of an unknown version'}".replace(" ,", ",")
    if tells(server) is None:
        return [Result(UNKNOWN, f"{told}: whether it can send is not known; 6.0 and later can", (f"module: {module['path']}",),
                       pid=server.pid)]
    if tells(server) and not expected(server) and scene.tool.lacks:
        return [Result(UNKNOWN, f"{told}: which of its processes are to send is not seen by this user", (), (as_root(scene),), server.pid)]
    if tells(server) and not expected(server):
        return [Result(UNKNOWN, f"{told}: no process of it is there that should send; it starts, or no WSGIDaemonProcess is set up", (),
                       (run(f"sleep 2; {scene.tool.program} doctor"),), server.pid)]
    if tells(server):
        return [Result(OK, f"{told}, {processes(len(expected(server)))} that should send", pid=server.pid)]
    if told_of:
        return [Result(OK, f"{told}, too old to send by itself: the agent in {processes(len(told_of))} tells of it", pid=server.pid)]
    if any(each.agent for each in server.senders):
        return [_unheard(scene, server, told)]
    return [Result(WRONG, f"{told}: too old to send, which begins with 6.0; no agent in its application does it",
                   (f"module: {module['path']}",), _agent(scene, server), server.pid)]


def _unheard(scene, server, told):
    """Of a server with agents of which nothing arrives."""
    text = f"{told}: an agent is in {processes(sum(each.agent for each in server.senders))}, and nothing of it arrives"
    if scene.summary is None or any(each.state == WRONG and each.pid == server.pid for each in permission(scene)):
        return Result(FOLLOWS, text, pid=server.pid)
    return Result(WRONG, text, (), (say(f"give agent.install the socket where the collector listens: socket={json.dumps('unix:' + scene.target)}; "
                                        "what the agent says of it is in the server's error log"),), server.pid)


def _agent(scene, server):
    """What makes the agent tell of a server that does not."""
    own = scene.tool.program
    program = own if own.endswith(".pyz") and own.startswith("/") else _PROGRAM
    found = f"import sys; sys.path.insert(0, {json.dumps(program + '/site-packages')}); from modwsgi_tel import agent; "
    socket = f"socket={json.dumps('unix:' + scene.target)}"
    if server.kind != "apache":
        return say("as the last line of the application's module, where the application has the name `application`: "
                   f"{found}application = agent.middleware(application, {socket})"), run(server.reload)
    code = f"{found}agent.install({socket})"
    daemons, file = server.config.daemons, f"{server.config.root or '/etc/apache2'}/modwsgi-tel-agent.py"
    return (run(f"printf '%s\\n' {shlex.quote(code)} > {shlex.quote(file)} && chmod 644 {shlex.quote(file)}"),
            *(directive(f"WSGIImportScript {file} process-group={each.group} application-group=%{{GLOBAL}}", each.place)
              for each in daemons[:_NAMED]),
            run(server.reload),
            say("the directive stands behind each WSGIDaemonProcess; or install mod_wsgi 6 (pip install mod_wsgi) and use WSGITelemetryService"))


# --- the directive -----------------------------------------------------------------------------------

def directives(scene):
    return [each for server in scene.servers if tells(server) for each in _directive(scene, server)]


def _directive(scene, server):
    config, found = server.config, []
    told = [each for each in config.directives if each[0] == "WSGITelemetryService"]
    place = told[-1][2] if told else ""
    refused = next((each for each in server.mentions if each.place == place and "refuses" in each.why), None)
    failing = [each for each in config.problems if "a restart would fail" in each]
    changed = _changed(config, told)
    path = server.path
    if refused:
        found.append(Result(WRONG, f"WSGITelemetryService is in the wrong place: {refused.why}", (f"{place}: {refused.line}",),
                            (*_edited(place, "s|^|#|"), *_added(scene, server)), server.pid))
    elif path is None:
        found.append(_absent(scene, server, told))
    elif not path.startswith("/"):
        found.append(Result(WRONG, f"WSGITelemetryService has a relative path, {path}: it leads elsewhere in each process", (f"{place}",),
                            _replaced(server, place, scene.target), server.pid))
    elif len(os.fsencode(path)) > LONGEST_PATH:
        found.append(Result(WRONG, f"the path of WSGITelemetryService has {len(os.fsencode(path))} bytes, a socket's has at most "
                                   f"{LONGEST_PATH}: mod_wsgi sends nothing (WSGI0132 in its log)", (f"{place}: {path}",),
                            _replaced(server, place, scene.target), server.pid))
    elif _elsewhere(scene, server):
        ours = f"the collector {'listens' if scene.target_from == 'collector' else 'is to listen'} on {scene.target}"
        found.append(Result(WRONG, f"Apache sends to another socket than the collector's: it to {path}, and {ours}", (f"{place}",),
                            (*_replaced(server, place, scene.target), say(f"or start the collector with --listen unix:{path}")),
                            server.pid))
    elif changed and not _all_arrive(scene, server):
        found.append(Result(WRONG, "the configuration was changed, and the server has not read it since",
                            (f"newer than the server: {', '.join(changed)}",), (run(server.reload),), server.pid))
    else:
        found.append(Result(OK, f"{named(server)} sends to {path} ({place})", pid=server.pid))
    if failing and not (found[0].state == WRONG and "WSGITelemetryService" in failing[0]):
        found.append(Result(WRONG, f"{named(server)}: {failing[0]}", (), (say("mend that line first: apachectl configtest shows it"),),
                            server.pid))
    return found


def _changed(config, told):
    """Files with these directives that are newer than the server."""
    files = {place.rpartition(":")[0] for _, _, place in told}
    return [path for path in config.changed if path in files]


def _all_arrive(scene, server):
    senders = expected(server)
    return bool(senders) and all(arrives(scene, each) for each in senders)


def _elsewhere(scene, server):
    """Whether a server's path is none that a collector has, or is to have."""
    if server.path == scene.target or reaches(scene, server.place) or reaches(scene, server.here):
        return False
    return scene.target_from in ("--listen", "collector") and server.path not in {own.path for _, own in bound(scene)}


def _absent(scene, server, told):
    config = server.config
    changed = [path for path in config.changed if path == config.file or path.endswith(".conf")]
    evidence = [f"{each.place}: {each.line}: {each.why}" for each in server.mentions]
    if told:
        off = told[-1]
        return Result(WRONG, "WSGITelemetryService is switched off", (f"{off[2]}: WSGITelemetryService {' '.join(off[1])}",),
                      _replaced(server, off[2], scene.target), server.pid)
    if changed:
        evidence.append(f"newer than the server, so not in force yet: {', '.join(changed[:_NAMED])}")
    force = " in force" if server.mentions else ""
    return Result(WRONG, f"{named(server)} is not told to send: there is no WSGITelemetryService{force}", tuple(evidence),
                  _added(scene, server), server.pid)


def _is_express(config):
    return any(name.startswith("MOD_WSGI_") for name in config.defines)


def _added(scene, server):
    """What puts the directives into a server's configuration."""
    config, path = server.config, scene.target
    lines = [directive_for(path)] + ["WSGISlowRequests 2.0"] * all(name != "WSGISlowRequests" for name, _, _ in config.directives)
    if _is_express(config):
        return (say(f"start mod_wsgi-express anew with: --telemetry-service unix:{path} --telemetry-interval 1 --slow-requests 2"),)
    text = " ".join(shlex.quote(each) for each in lines)
    enabled = next((each for each in config.includes if "/conf-enabled/" in each or "/mods-enabled/" in each), None)
    if enabled and config.root:
        file = f"{config.root}/conf-available/telemetry.conf"
        return (*(directive(each, file) for each in lines), run(f"printf '%s\\n' {text} > {shlex.quote(file)} && a2enconf telemetry"),
                run(server.reload))
    return (*(directive(each, config.file) for each in lines), run(f"printf '%s\\n' {text} >> {shlex.quote(config.file)}"),
            run(server.reload))


def added_line(server, text):
    """What puts one more directive behind the server's WSGITelemetryService."""
    place, old = (_last_place(server, name) for name in ("WSGITelemetryService", text.split()[0]))
    if _is_express(server.config):
        return (say("start mod_wsgi-express anew with: --slow-requests 2"),)
    return (directive(text, old or place), *_edited(old or place, f"s|.*|{text}|" if old else f"a {text}"), run(server.reload))


def _last_place(server, name):
    """"file:line" of the last directive of that name in a configuration, or ""."""
    return next((place for each, _, place in reversed(server.config.directives) if each == name), "")


def _replaced(server, place, path):
    """What replaces one line of a configuration."""
    if _is_express(server.config):
        return (say(f"start mod_wsgi-express anew with: --telemetry-service unix:{path}"),)
    edit = _edited(place, f"s|.*|{directive_for(path)}|") if _PLAIN.fullmatch(path) else ()
    return (directive(directive_for(path), place), *edit, run(server.reload))


def _edited(place, how):
    """What has sed change a line, "file:line"; () where that is none of a file."""
    file, _, number = place.rpartition(":")
    return (run(f"sed -i --follow-symlinks {shlex.quote(number + how)} {shlex.quote(file)}"),) if file.startswith("/") and number.isdecimal() else ()


# --- the way to the socket ---------------------------------------------------------------------------

def permission(scene):
    found = []
    for server in scene.servers:
        if not (tells(server) or by_agent_only(server)) or not (server.path or "").startswith("/"):
            continue
        place = server.place if server.place is not None else server.here if not server.private else None
        if place is None:
            found.append(Result(UNKNOWN, f"{named(server)}: what its processes see at {server.path} may not be looked at", (),
                                (as_root(scene),), server.pid))
        else:
            found += _permission(scene, server, place)
    return found


def group_of(scene, path=None, gid=None):
    """The gid of the group that a socket is to belong to: the one that it has, where a sender is in it, else that of most senders, or None.

    path: only of the servers that send there.
    """
    all_gids = [sender.gids for server in scene.servers if path in (None, server.path) for sender in expected(server) or (
        server.senders if by_agent_only(server) else ()) if sender.uid and sender.gids]
    if any(gid in gids for gids in all_gids):
        return gid
    first = [gids[0] for gids in all_gids]
    return max(first, key=first.count) if first else None


def _permission(scene, server, place):
    users = {}
    for sender in expected(server) or server.senders:
        users.setdefault((sender.uid, tuple(sender.gids), sender.mighty), []).append(sender)
    refused, doubts = {}, []
    if place.state in ("dead", "file"):     # its mode is of no account: a collector makes another
        place = place._replace(mode=None)
    for senders in users.values():
        stopped = places.refusal(place, senders[0])
        if stopped is None:
            continue
        seen, sure = stopped
        if not sure:
            doubts.append(seen)
            continue
        refused.setdefault(_refused(scene, server, senders, seen), []).extend(senders)
    if refused:
        return [each._replace(text=f"{_whom(senders)} {each.text}") for each, senders in refused.items()]
    if doubts:
        seen = doubts[0]
        path = seen.path if isinstance(seen, Folder) else server.path
        return [Result(UNKNOWN, f"{path} has an access control list of its own, which decides who may write there", (),
                       (run(f"getfacl {shlex.quote(path)}"),), server.pid)]
    if place.mode is None:
        told = {"absent": f"nothing is at {server.path}", "dead": f"nobody has the socket {server.path} open",
                "file": f"what is at {server.path} is no socket"}
        return [Result(FOLLOWS, told.get(place.state, f"{server.path} may not be looked at"),
                       pid=server.pid)]
    who = ", ".join(dict.fromkeys(_user(senders[0]) for senders in users.values()))
    return [Result(OK, f"{who} may write to {server.path}", pid=server.pid)] if who else []


def _user(sender):
    return places.user_name(sender.uid)


def _whom(senders):
    pids = ", ".join([str(each.pid) for each in senders[:_NAMED]] + ["..."] * (len(senders) > _NAMED))
    return f"{processes(len(senders))} of {', '.join(dict.fromkeys(map(_user, senders)))} ({pids})"


def _refused(scene, server, senders, seen):
    """The Result for the senders of one user, but for who they are: it is the same for all whom one command helps."""
    user, group = _user(senders[0]), places.group_name(senders[0].gids[0])
    if isinstance(seen, Folder):
        path = shlex.quote(seen.path)
        whose = "u" if seen.uid == senders[0].uid else "g" if seen.gid in senders[0].gids else "o"
        mends = [run(f"chmod {whose}+x {path}")]
        mends.append(say(f"for good: a folder that all may search, as {folder_of(RUN_SOCKET)} of the unit's RuntimeDirectory"))
        return Result(WRONG, f"may not search the folder {seen.path}, so that every datagram is dropped without a word",
                      (f"{seen.path}: mode {seen.mode:04o}, uid {seen.uid}, gid {seen.gid}",), tuple(mends), server.pid)
    path = shlex.quote(server.path)
    common = group_of(scene, server.path, seen.gid)
    if seen.uid == senders[0].uid:
        mends = [run(f"chmod u+rw {path}")]
    elif common is None or common in senders[0].gids:
        group = group if common is None else places.group_name(common)
        mends = [run(f"chgrp {shlex.quote(group)} {path} && chmod g+rw {path}")]
    else:                               # a file has one group: what is given to this user is not to be taken from others
        group = places.group_name(common)
        mends = [run(f"usermod -aG {shlex.quote(group)} {shlex.quote(user)}"), run(server.reload)] if not user.isdecimal() else [
            run(f"chmod o+rw {path}")]  # a user without a name, as a container's, can be in no group here
    lasting = "--socket-mode 0666" if "o+rw" in mends[0].text else f"--socket-group {group}"
    unit = _unit_group(scene, server)
    mends.append(say(f"for good: start the collector with {lasting}" + (f": {unit}" if unit else "")))
    return Result(WRONG, f"may not write to the socket {server.path}, so that every datagram is dropped without a word",
                  (f"{server.path}: mode {seen.mode:04o}, uid {seen.uid}, gid {seen.gid} ({places.group_name(seen.gid)})",),
                  tuple(mends), server.pid)


def _unit_group(scene, server):
    """How the collector there gets that option, where it is a unit's, or ""."""
    unit = next((each.unit for each, own in bound(scene) if own.path == server.path and each.unit), "")
    return f"systemd/rhel.conf of `{scene.tool.program} extras` says how {unit} does" if unit else ""


def namespace(scene):
    found = []
    for server in scene.servers:
        if not tells(server) or not (server.path or "").startswith("/"):
            continue
        listening = [each for each, own in bound(scene) if own.path == server.path]
        if server.private is None:
            if server.path.startswith(_SHARED_TMP) and server.unit and not _all_arrive(scene, server):
                found.append(Result(UNKNOWN, f"whether {server.unit} has a /tmp of its own may not be looked at; Debian's apache2 has", (),
                                    (as_root(scene),), server.pid))
        elif not server.private or reaches(scene, server.place):
            found.append(Result(OK, f"{named(server)} sees the same files as the collector" if not server.private else
                                f"{named(server)} has mounts of its own, and sees the collector's socket", pid=server.pid))
        elif listening and server.place is not None and server.place.state != "unknown":
            where = f"there {server.path} is on the mount {server.mounted}" if server.mounted else "its mounts or its root are others"
            seen = {"absent": "nothing", "dead": "a socket that nobody has", "file": "a file"}.get(server.place.state, "another socket")
            text = (f"{named(server)} has a file system of its own, in which {seen} is at that path: the collector's {server.path} is out of "
                    "its sight")
            found.append(Result(WRONG, text, (where, f"seen from here: {server.here.state if server.here else 'unknown'}"), _moved(scene, server),
                                server.pid))
    return found


def _moved(scene, server):
    if server.path.startswith(_SHARED_TMP):
        return (run(f"mkdir -p {folder_of(RUN_SOCKET)}"), say(f"start the collector with --listen unix:{RUN_SOCKET}"),
                *_replaced(server, _last_place(server, "WSGITelemetryService"), RUN_SOCKET))
    folder = folder_of(server.path)
    return (say(f"give the container or the unit that folder, as docker run -v {folder}:{folder}, or BindPaths={folder} in the unit"),)


def policy(scene):
    confined = [each for server in scene.servers for each in server.senders if each.profile or ":httpd_t:" in each.context]
    pids = {each.pid for server in scene.servers for each in server.senders} | {server.pid for server in scene.servers}
    sockets = {server.path for server in scene.servers if server.path} | {scene.target}
    mine = [each for each in scene.denials if each.pid in pids or each.path in sockets]
    found = []
    for kind, name, extra in (("selinux", "SELinux", "selinux"), ("apparmor", "AppArmor", "apparmor")):
        told = [each for each in mine if each.kind == kind]
        if told and all(_all_arrive(scene, server) for server in scene.servers if tells(server)):
            found.append(Result(OK, f"{name} refused something, the last time {duration(scene.at - told[-1].at)} ago; all arrives now"))
        elif told and scene.policy[kind] != "permissive":
            found.append(Result(WRONG, f"{name} refuses it: {counted(len(told), 'denial')}, the last ones as evidence",
                                tuple(each.text for each in told[-_DENIALS_SHOWN:]), _allowed(scene, extra)))
    if found:
        return found
    on = [name for name, is_on in (("SELinux (enforcing)", scene.policy["selinux"] == "enforcing"), ("AppArmor", scene.policy["apparmor"]))
          if is_on]
    if not on:
        return [Result(OK, "SELinux is permissive" if scene.policy["selinux"] else "neither SELinux nor AppArmor is on")]
    if scene.unknown.get("policy"):
        return [Result(UNKNOWN, f"{' and '.join(on)}: what was refused may not be read", tuple(scene.unknown["policy"]),
                       (as_root(scene), *_allowed(scene, "selinux" if scene.policy["selinux"] else "apparmor")))]
    whom = f" to {processes(len(confined))} that it confines" if confined else ""
    return [Result(OK, f"{' and '.join(on)}: nothing was refused{whom}")]


def _allowed(scene, extra):
    """What allows it, by the files of `extras`."""
    unpack = run(f"{scene.tool.program} extras {extra} --output {_EXTRAS}")
    if extra == "selinux":
        return (unpack, run(f"cd {_EXTRAS}/selinux && checkmodule -M -m -o modwsgi_tel.mod modwsgi_tel.te && "
                            "semodule_package -o modwsgi_tel.pp -m modwsgi_tel.mod -f modwsgi_tel.fc && semodule -i modwsgi_tel.pp"),
                run(f"restorecon -Rv {shlex.quote(folder_of(scene.target))}"),
                say(f"its contexts are those of {folder_of(RUN_SOCKET)}: move the socket there, where it is elsewhere"))
    profile = "/etc/apparmor.d/local/usr.sbin.apache2"
    return (unpack, run(f"cat {_EXTRAS}/apparmor/apache2 >> {profile}"), run(f"echo {shlex.quote(scene.target + ' rw,')} >> {profile}"),
            run("apparmor_parser -r /etc/apparmor.d/usr.sbin.apache2"))


def folder_of(path):
    return path.rpartition("/")[0] or "/"


def versions(scene):
    """{version of mod_wsgi} of the servers that can send."""
    return {".".join(map(str, version_of(server))) for server in scene.servers if tells(server)}
