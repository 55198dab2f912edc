"""What `doctor` makes of a scene: each judge says it, and just not; parsers of logs; the text.  Scenes are made up; real ones:
test_doctor_real.py."""
import json
import os
import socket

import pytest

import running
from modwsgi_tel.apache.config import Config
from modwsgi_tel.doctor import collectors, denials, gather, mentions, places, receiving, sending, servers, steps
from modwsgi_tel.doctor.command import status
from modwsgi_tel.doctor.scene import (FOLLOWS, OK, UNKNOWN, WRONG, Asked, Bound, Collector, Denial, Folder, Mention, Place, Row, Scene,
                                      Sender, Server,
                                      Summary, Tool)
from modwsgi_tel.doctor.text import text
from modwsgi_tel.proc.roles import Member

SOCKET = "/run/modwsgi-tel/telemetry.sock"
WWW, ROOT = 33, 0


def a_place(state="listens", **more):
    told = dict(inode=500 if state == "listens" else None, pids=[70] if state == "listens" else [], mode=0o660, uid=ROOT, gid=WWW,
                acl=False,
                folders=[Folder("/", 0o755, 0, 0, False), Folder("/run", 0o755, 0, 0, False),
                         Folder("/run/modwsgi-tel", 0o755, 0, 0, False)])
    return Place(state, **{**told, **more})


def a_collector(**more):
    told = dict(pid=70, own=True, command="modwsgi-tel serve", user="root", stopped=False,
                sockets=[Bound(SOCKET, 500, a_place())],
                ports=["127.0.0.1:8888"], http_sockets=[], options={}, unit="", age_s=100.0, powerful=True, namespace=("mnt:[1]", 1, 2))
    return Collector(**{**told, **more})


def a_config(path=SOCKET, version="6.1.1", slow="2.0", **more):
    directives = [("WSGITelemetryService", [f"unix:{path}"], "/etc/apache2/apache2.conf:7")] if path else []
    directives += [("WSGISlowRequests", [slow], "/etc/apache2/apache2.conf:8")] if slow else []
    told = dict(version="2.4.57", root="/etc/apache2", file="/etc/apache2/apache2.conf", mpm="event", defines=[],
                includes=["/etc/apache2/apache2.conf"],
                error_logs=[], mod_wsgi={"version": version, "path": "/m.so"}, daemons=[], directives=directives,
                telemetry={"socket": path, "interval": 1.0, "slow": float(slow) if slow else None} if path else None, changed=[],
                asked=True, problems=[])
    return Config(**{**told, **more})


def a_sender(pid, **more):
    told = dict(role="daemon", uid=WWW, gids=[WWW], mighty=False, waits=[], context="", profile="", age_s=60.0)
    return Sender(pid, **{**told, **more})


def a_server(path=SOCKET, config=None, **more):
    told = dict(pid=10, kind="apache", reload="systemctl reload apache2", unit="apache2.service", config=config
                or a_config(path), problem="",
                senders=[a_sender(11), a_sender(12)], path=path, place=a_place(), here=a_place(), private=False, mounted=None, mentions=[],
                restricted=True)
    return Server(**{**told, **more})


def a_summary(**more):
    told = dict(version="0.1.0", pid=70, uptime_s=100.0, socket=SOCKET, trouble="", received=100, wrong={}, details=[], stacks_problem="",
                recording_trouble="",
                lost=0)
    return Summary(**{**told, **more})


def a_scene(**more):
    told = dict(at=1000.0, tool=Tool("modwsgi-tel", "0.1.0", "3.11.2", "root", "", "", True), target=SOCKET, target_from="collector",
                here=a_place(),
                collectors=[a_collector()], servers=[a_server()], summary=a_summary(), rows=[Row(11, 11, 1.0, 0.4), Row(12, 12, 1.0, 0.9)],
                asked=Asked("http://127.0.0.1:8888", "", 0.002), ports={}, policy={"selinux": "", "apparmor": False}, denials=[], qlen=10,
                disk=None, unknown={})
    return Scene(**{**told, **more})


def states(results):
    return [each.state for each in results]


def the(results, state=WRONG):
    """The only result of that state."""
    found = [each for each in results if each.state == state]
    assert len(found) == 1, results
    return found[0]


def runs(result):
    return [mend.text for mend in result.mends if mend.kind == "run"]


# --- health, and the verdict --------------------------------------------------------------------------

def test_where_all_is_right_each_step_says_so_and_the_status_is_0():
    scene = a_scene()
    judged = steps.judge(scene)
    assert {step.id: step.state for step in judged} == {step.id: OK for step in steps.STEPS}
    assert steps.verdict(scene, judged) == "telemetry arrives from 2 of 2 processes; nothing is wrong"
    assert status(scene, judged) == 0


def test_what_is_not_known_does_no_harm_while_all_arrives():
    tool = a_scene().tool._replace(lacks="no CAP_SYS_PTRACE", user="joe")
    scene = a_scene(tool=tool)
    assert status(scene, steps.judge(scene)) == 0
    scene = a_scene(tool=tool, rows=[], summary=None, asked=Asked("http://127.0.0.1:8888", "does not answer", 0.1), collectors=[],
                    here=a_place("denied"))
    judged = steps.judge(scene)
    assert (status(scene, judged), steps.verdict(scene, judged)) == (
        2, "whether telemetry arrives from 2 processes is not known; nothing is wrong, 3 things are not known")


def test_a_consequence_is_not_counted_as_another_thing():
    scene = a_scene(servers=[a_server(path=None)], rows=[])
    judged = steps.judge(scene)
    assert [step.id for step in judged if step.state == WRONG] == ["directive"]
    assert the(dict((step.id, step.results) for step in judged)["arrival"],
               FOLLOWS).text == "nothing arrives from 2 processes (11, 12) of Apache (pid 10)"
    assert status(scene, judged) == 1


def test_the_text_keeps_commands_whole_and_escapes_what_may_be_anything():
    path = "/run/" + 80 * "x" + "\x1b[31m.sock"
    scene = a_scene(target=path, collectors=[], here=a_place("absent", mode=None), summary=None, rows=[],
                    asked=Asked("http://x", "no\nanswer", 0.0))
    shown = text(scene, steps.judge(scene), 60)
    assert "\x1b" not in shown and f"           $ modwsgi-tel serve --listen 'unix:/run/{80 * 'x'}\\x1b[31m.sock' --socket-group www-data" in shown.split("\n")
    assert all(len(line) <= 60 or line.startswith("           $ ") or "/run/xxx" in line for line in shown.split("\n"))


# --- the collector -------------------------------------------------------------------------------------

def test_no_collector_says_what_is_at_the_path_and_how_to_start_one():
    for place, said in ((a_place("absent", mode=None), "nothing is there"),
                        (a_place("dead"), "a socket is there that nobody has open: a collector died"),
                        (a_place("file"), "something that is no socket is there")):
        found = the(receiving.collector(a_scene(collectors=[], summary=None, here=place)))
        assert found.text == f"no collector runs: {SOCKET}: {said}"
        assert runs(found) == [f"mv {SOCKET} {SOCKET}.away"] * (place.state == "file") + [f"modwsgi-tel serve --listen unix:{SOCKET} --socket-group www-data"]


def test_a_missing_folder_is_made_first_and_a_taken_port_left_alone():
    place = a_place("absent", mode=None, folders=[Folder("/", 0o755, 0, 0, False), Folder("/run/modwsgi-tel", None, None, None, False)])
    found = the(receiving.collector(a_scene(collectors=[], summary=None, here=place, servers=[], ports={8888: [(5, "other --server")]})))
    assert runs(found) == ["mkdir -p /run/modwsgi-tel", f"modwsgi-tel serve --listen unix:{SOCKET} --http-port 0"]
    assert found.evidence == ("port 8888 is taken by pid 5 (other --server)",)


def test_a_collector_that_is_not_seen_but_answers_is_no_trouble():
    assert states(receiving.collector(a_scene(collectors=[]))) == [OK]


@pytest.mark.parametrize("place, said", [
    (a_place("absent", mode=None), "the file is gone"), (a_place("dead"), "another's socket is there, and nobody has that one open"),
    (a_place(inode=501, pids=[71]), "another socket is there, of pid 71"), (a_place("file"), "something that is no socket is there")])
def test_a_socket_that_was_lost_is_told_with_what_is_there_instead(place, said):
    found = the(receiving.collector(a_scene(collectors=[a_collector(sockets=[Bound(SOCKET, 500, place)])])))
    assert found.text == f"modwsgi-tel (pid 70, root) has lost its socket {SOCKET}: {said}"
    assert runs(found) == ["kill 70"]
    assert runs(the(receiving.collector(a_scene(collectors=[a_collector(unit="modwsgi-tel.service",
                                                                        sockets=[Bound(SOCKET, 500, place)])])))) == [
        "systemctl restart modwsgi-tel"]


def test_a_socket_that_may_not_be_asked_is_not_called_lost():
    for place in (a_place("denied"), a_place("listens", inode=None), None):
        assert states(receiving.collector(a_scene(collectors=[a_collector(sockets=[Bound(SOCKET, 500, place)])]))) == [OK]


def test_a_stopped_collector_is_to_go_on():
    assert runs(the(receiving.collector(a_scene(collectors=[a_collector(stopped=True)])))) == ["kill -CONT 70"]


def test_two_collectors_are_right_where_each_has_its_socket():
    other = a_collector(pid=71, sockets=[Bound("/run/b.sock", 600, a_place(inode=600))])
    found = receiving.collector(a_scene(collectors=[a_collector(), other]))
    assert states(found) == [OK, OK, OK]
    assert found[2].text == "2 collectors run; no server sends to modwsgi-tel (pid 71, root)"


def test_none_listens_where_it_was_asked_for():
    found = the(receiving.collector(a_scene(target="/run/b.sock", target_from="--listen", here=a_place("absent"))))
    assert (found.text, found.evidence) == ("none listens on /run/b.sock", ("nothing is there",))


# --- servers and the directive ---------------------------------------------------------------------------

@pytest.mark.parametrize("version, state", [("6.0.0", OK), ("6.1.1", OK), ("10.0", OK), ("5.0.2", WRONG), ("4.9.4", WRONG),
                                            (None, UNKNOWN)])
def test_mod_wsgi_sends_from_6_on(version, state):
    assert states(sending.servers(a_scene(rows=[], servers=[a_server(config=a_config(version=version))]))) == [state]


def test_one_that_is_too_old_gets_the_agents_lines_until_the_agent_tells():
    from modwsgi_tel.apache.config import Daemon
    config = a_config(path=None, version="4.9.4", daemons=[Daemon("shop", {}, 2, 15, "/etc/apache2/sites-enabled/shop.conf:3")])
    server = a_server(path=None, config=config)
    found = the(sending.servers(a_scene(rows=[], servers=[server])))
    assert [(mend.text, mend.where) for mend in found.mends if mend.kind == "apache"] == [
        ("WSGIImportScript /etc/apache2/modwsgi-tel-agent.py process-group=shop application-group=%{GLOBAL}",
         "/etc/apache2/sites-enabled/shop.conf:3")]
    assert f'agent.install(socket="unix:{SOCKET}")' in runs(found)[0]
    assert states(sending.servers(a_scene(servers=[server]))) == [OK]


def test_a_server_without_mod_wsgi_need_not_send():
    assert states(sending.servers(a_scene(servers=[a_server(config=a_config(path=None, mod_wsgi=None))]))) == [OK]


def test_gunicorn_needs_the_agent():
    server = a_server(kind="gunicorn", config=None, path=None, reload="kill -HUP 10")._replace(config=None)
    assert the(sending.servers(a_scene(rows=[], servers=[server]))).text == "gunicorn (pid 10) sends nothing by itself, and no agent in its application does"
    assert states(sending.servers(a_scene(servers=[server]))) == [OK]


def test_daemons_that_a_user_cannot_tell_from_children_are_not_said_to_be_away():
    tool = a_scene().tool._replace(lacks="no CAP_SYS_PTRACE", user="joe")
    found = the(sending.servers(a_scene(tool=tool, servers=[a_server(senders=[a_sender(11, role="apache-child")])])), UNKNOWN)
    assert (found.text.split(": ")[-1], runs(found)) == ("which of its processes are to send is not seen by this user", ["sudo modwsgi-tel doctor"])


def test_the_line_for_gunicorn_watches_its_requests_too():
    server = a_server(kind="gunicorn", path=None)._replace(config=None)
    assert the(sending.servers(a_scene(rows=[], servers=[server]))).mends[0].text.endswith(
        f'from modwsgi_tel import agent; application = agent.middleware(application, socket="unix:{SOCKET}")')


def test_a_service_of_mod_wsgi_express_need_not_send():
    members = [Member(pid, 10, 1, "daemon", group, "apache", "apache2", "", "", 33, "S", 1, 0, 0)
               for pid, group in ((11, "shop"), (12, "service:telemetry"), (13, ""))]
    assert [each.pid for each in servers._serving(members, {"service:telemetry", ""})] == [11, 13]


def test_an_agent_that_is_there_is_not_asked_for_again():
    server = a_server(kind="gunicorn", path=SOCKET, senders=[a_sender(11, agent=True)], place=a_place(gid=0))._replace(config=None)
    assert states(sending.servers(a_scene(rows=[], servers=[server]))) == [FOLLOWS]         # of what the socket's mode says
    assert states(sending.servers(a_scene(rows=[], summary=None, servers=[server]))) == [FOLLOWS]
    found = the(sending.servers(a_scene(rows=[], servers=[server._replace(place=a_place())])))
    assert found.text == "gunicorn (pid 10): an agent is in 1 process, and nothing of it arrives"
    assert f"socket=\"unix:{SOCKET}\"" in found.mends[0].text


def test_no_server_is_wrong_only_where_all_can_be_seen():
    assert states(sending.servers(a_scene(servers=[]))) == [WRONG]
    assert states(sending.servers(a_scene(servers=[], tool=a_scene().tool._replace(hidepid="2")))) == [UNKNOWN]


def test_what_is_left_of_an_apache_is_told():
    assert runs(the(sending.servers(a_scene(servers=[a_server(is_left=True)._replace(config=None)]))))[0] == "kill 11 12"


def test_an_absent_directive_is_put_where_debian_has_such_files():
    config = a_config(path=None, slow=None, includes=["/etc/apache2/apache2.conf", "/etc/apache2/conf-enabled/charset.conf"])
    found = the(sending.directives(a_scene(servers=[a_server(path=None, config=config)])))
    assert runs(found) == [f"printf '%s\\n' 'WSGITelemetryService unix:{SOCKET} interval=1.0' 'WSGISlowRequests 2.0' > /etc/apache2/conf-available/telemetry.conf "
                           "&& a2enconf telemetry", "systemctl reload apache2"]


def test_express_is_to_be_started_with_its_own_options():
    config = a_config(path=None, defines=["MOD_WSGI_KEEP_ALIVE"])
    found = the(sending.directives(a_scene(servers=[a_server(path=None, config=config)])))
    assert [mend.text for mend in found.mends] == [
        f"start mod_wsgi-express anew with: --telemetry-service unix:{SOCKET} --telemetry-interval 1 --slow-requests 2"]


@pytest.mark.parametrize("path, said", [
    ("t.sock", "WSGITelemetryService has a relative path, t.sock: it leads elsewhere in each process"),
    ("/run/" + 103 * "x", "the path of WSGITelemetryService has 108 bytes, a socket's has at most 107: mod_wsgi sends nothing (WSGI0132 in its log)"),
    ("/run/other.sock", f"Apache sends to another socket than the collector's: it to /run/other.sock, and the collector listens on {SOCKET}"),
])
def test_a_path_that_leads_elsewhere_is_replaced_in_its_line(path, said):
    found = the(sending.directives(a_scene(servers=[a_server(path, place=None, here=None)])))
    assert found.text == said
    assert runs(found) == [f"sed -i --follow-symlinks '7s|.*|WSGITelemetryService unix:{SOCKET} interval=1.0|' /etc/apache2/apache2.conf",
                           "systemctl reload apache2"]


def test_a_path_of_107_bytes_is_not_too_long():
    path = "/run/" + 102 * "x"
    assert states(sending.directives(a_scene(target=path, servers=[a_server(path)]))) == [OK]


def test_another_path_to_the_same_socket_is_right():
    assert states(sending.directives(a_scene(servers=[a_server("/var/run/modwsgi-tel/telemetry.sock")]))) == [OK]


def test_before_a_collector_runs_the_directive_says_where_it_is_to_listen():
    scene = a_scene(collectors=[], target_from="directive", target="/run/other.sock",
                    servers=[a_server("/run/other.sock", place=a_place("absent"))])
    assert states(sending.directives(scene)) == [OK]


def test_a_change_that_was_not_read_counts_only_where_something_is_missing():
    server = a_server(config=a_config(changed=["/etc/apache2/apache2.conf"]))
    assert states(sending.directives(a_scene(servers=[server]))) == [OK]
    assert runs(the(sending.directives(a_scene(servers=[server], rows=[])))) == ["systemctl reload apache2"]
    server = a_server(config=a_config(changed=["/etc/apache2/other.conf"]))
    assert states(sending.directives(a_scene(servers=[server], rows=[]))) == [OK]


def test_a_restart_that_would_fail_is_told():
    server = a_server(config=a_config(problems=["the configuration has an error now, so that a restart would fail: Syntax error on line 3"]))
    assert states(sending.directives(a_scene(servers=[server]))) == [OK, WRONG]


def test_lines_without_effect_are_found_with_their_reason(tmp_path):
    conf = tmp_path / "httpd.conf"
    (tmp_path / "conf-available").mkdir()
    spare = tmp_path / "conf-available" / "telemetry.conf"
    spare.write_text("WSGITelemetryService unix:/c\n")
    conf.write_text("# about WSGITelemetryService\n#WSGITelemetryService unix:/a\n<IfModule none.c>\n  WSGITelemetryService unix:/b\n</IfModule>\n"
                    "<VirtualHost *:80>\nWSGITelemetryService unix:/d\n</VirtualHost>\nWSGITelemetryService unix:/e\n")
    config = a_config(includes=[str(conf)], root=str(tmp_path), directives=[("WSGITelemetryService", ["unix:/d"], f"{conf}:7"),
                                                                          ("WSGITelemetryService", ["unix:/e"], f"{conf}:9")])
    assert mentions.of(config, os.getpid()) == [
        Mention(f"{conf}:2", "#WSGITelemetryService unix:/a", "it is commented out"),
        Mention(f"{conf}:4", "WSGITelemetryService unix:/b", "it stands in <IfModule none.c>, which does not hold here"),
        Mention(f"{conf}:7", "WSGITelemetryService unix:/d", "it stands in <VirtualHost *:80>, where Apache refuses it: it belongs outside of any section"),
        Mention(f"{spare}:1", "WSGITelemetryService unix:/c", "the file is not enabled: a2enconf telemetry")]


# --- the way to the socket -------------------------------------------------------------------------------

@pytest.mark.parametrize("mode, uid, gid, allowed", [
    (0o660, 0, WWW, True), (0o660, 0, 0, False), (0o666, 0, 0, True), (0o640, 0, WWW, False), (0o606, 0, WWW, False), (0o200, WWW, 0, True),
                                                     (0o066, WWW, WWW, False)])
def test_who_may_write_goes_by_owner_then_group_then_others(mode, uid, gid, allowed):
    found = sending.permission(a_scene(servers=[a_server(place=a_place(mode=mode, uid=uid, gid=gid))]))
    assert states(found) == [OK if allowed else WRONG]


def test_the_command_gives_the_socket_to_the_group_of_apaches_user():
    found = the(sending.permission(a_scene(servers=[a_server(place=a_place(mode=0o600, gid=0))])))
    assert runs(found) == [f"chgrp www-data {SOCKET} && chmod g+rw {SOCKET}"]
    assert found.mends[-1].text == "for good: start the collector with --socket-group www-data"


def test_a_daemon_of_another_user_is_looked_at_by_itself():
    server = a_server(senders=[a_sender(11), a_sender(12, uid=1, gids=[1])])
    assert the(sending.permission(a_scene(servers=[server]))).text.startswith("1 process of daemon (12) may not write to the socket")


def test_files_of_a_server_in_a_container_are_changed_there():
    server = a_server("/run/other.sock", place=a_place("absent"), here=None, contained=True)
    found = next(step for step in steps.judge(a_scene(servers=[server])) if step.id == "directive").results
    assert runs(the(found)) == [
        f"nsenter -t 10 -m -r sh -c 'sed -i --follow-symlinks '\"'\"'7s|.*|WSGITelemetryService unix:{SOCKET} interval=1.0|'\"'\"' "
        "/etc/apache2/apache2.conf'", "systemctl reload apache2"]


def test_a_user_without_a_name_is_let_in_by_the_mode():
    server = a_server(senders=[a_sender(11), a_sender(12, uid=54321, gids=[54321])])
    found = the(sending.permission(a_scene(servers=[server])))
    assert runs(found) == [f"chmod o+rw {SOCKET}"] and found.mends[-1].text.endswith("--socket-mode 0666")


@pytest.mark.parametrize("gid", [WWW, ROOT])
def test_what_lets_one_user_write_takes_it_from_no_other(gid):
    server = a_server(senders=[a_sender(11), a_sender(12), a_sender(13, uid=1, gids=[1])], place=a_place(gid=gid))
    found = [each for each in sending.permission(a_scene(servers=[server])) if each.state == WRONG]
    assert [runs(each) for each in found] == [[f"chgrp www-data {SOCKET} && chmod g+rw {SOCKET}"]] * (gid == ROOT) + [
        ["usermod -aG www-data daemon", "systemctl reload apache2"]]


def test_the_first_folder_that_may_not_be_searched_is_named():
    folders = [Folder("/", 0o755, 0, 0, False), Folder("/run", 0o755, 0, 0, False), Folder("/run/modwsgi-tel", 0o700, 0, 0, False)]
    found = the(sending.permission(a_scene(servers=[a_server(place=a_place(folders=folders))])))
    assert runs(found) == ["chmod o+x /run/modwsgi-tel"]
    folders[2] = folders[2]._replace(mode=0o711)
    assert states(sending.permission(a_scene(servers=[a_server(place=a_place(folders=folders))]))) == [OK]


def test_root_may_and_a_list_of_its_own_is_not_known():
    place = a_place(mode=0o600, gid=0)
    assert states(sending.permission(a_scene(servers=[a_server(senders=[a_sender(11, uid=0, mighty=True)], place=place)]))) == [OK]
    assert runs(the(sending.permission(a_scene(servers=[a_server(place=place._replace(acl=True))])), UNKNOWN)) == [f"getfacl {SOCKET}"]


def test_a_private_tmp_is_told_with_its_mount_and_a_socket_in_run():
    path = "/tmp/t.sock"
    server = a_server(path, place=a_place("absent", mode=None), private=True, mounted="/tmp (from /tmp/systemd-private-1/tmp, ext4)")
    scene = a_scene(target=path, collectors=[a_collector(sockets=[Bound(path, 500, a_place())])], servers=[server], rows=[])
    found = the(sending.namespace(scene))
    assert found.evidence[0] == "there /tmp/t.sock is on the mount /tmp (from /tmp/systemd-private-1/tmp, ext4)"
    assert f"sed -i --follow-symlinks '7s|.*|WSGITelemetryService unix:{sending.RUN_SOCKET} interval=1.0|' /etc/apache2/apache2.conf" in runs(found)
    assert states(sending.namespace(scene._replace(servers=[server._replace(place=a_place())]))) == [OK]
    assert states(sending.namespace(scene._replace(servers=[server._replace(private=None)]))) == [UNKNOWN]


# --- SELinux and AppArmor ---------------------------------------------------------------------------------

AVC = ('type=AVC msg=audit(1700000000.123:456): avc:  denied  { sendto } for  pid=11 comm="httpd" path="/run/modwsgi-tel/telemetry.sock" '
       "scontext=system_u:system_r:httpd_t:s0 tcontext=system_u:system_r:unconfined_service_t:s0 tclass=unix_dgram_socket permissive=0")
ARMOR = ('audit: type=1400 audit(1700000001.5:9): apparmor="DENIED" operation="connect" profile="/usr/sbin/apache2" '
         'name="/run/modwsgi-tel/telemetry.sock" pid=99 comm="apache2" requested_mask="wr" denied_mask="wr" fsuid=33 ouid=0')


def test_denials_are_parsed_and_others_left_out():
    assert denials.parse(AVC, 0.0) == Denial(1700000000.123, "selinux", 11, AVC, SOCKET)
    assert denials.parse(ARMOR, 0.0) == Denial(1700000001.5, "apparmor", 99, ARMOR, SOCKET)
    for other in (AVC.replace("denied", "granted"), AVC.replace("unix_dgram_socket", "tcp_socket"), ARMOR.replace("DENIED", "ALLOWED"), "",
                  "\x00\xff audit("):
        assert denials.parse(other, 0.0) is None


def test_denials_come_from_both_logs_and_a_log_that_may_not_be_read_is_told(tmp_path):
    log = tmp_path / "audit.log"
    log.write_text("x\n" + AVC + "\n" + AVC.replace("1700000000", "1600000000") + "\n")
    found, reasons = denials.read(1650000000.0, str(log), str(tmp_path / "none"))
    assert ([each.at for each in found], len(reasons)) == ([1700000000.123], 1)
    assert denials._of_kernel(b"5,1,1000000,-;" + ARMOR.encode(), 0.0)["denial"].kind == "apparmor"
    assert denials._of_kernel(b"nonsense", 0.0) is None


@pytest.mark.parametrize("kind, line, extra", [("selinux", AVC, "selinux"), ("apparmor", ARMOR, "apparmor")])
def test_a_denial_names_the_files_that_allow_it(kind, line, extra):
    policy = {"selinux": "enforcing" if kind == "selinux" else "", "apparmor": kind == "apparmor"}
    found = the(sending.policy(a_scene(policy=policy, denials=[denials.parse(line, 0.0)], rows=[])))
    assert runs(found)[0] == f"modwsgi-tel extras {extra} --output /usr/local/share/modwsgi-tel"
    assert found.evidence == (line,)
    assert states(sending.policy(a_scene(policy=policy, denials=[denials.parse(line, 0.0)]))) == [OK]       # it was mended
    other = denials.parse(line, 0.0)._replace(pid=4000, path="/elsewhere")
    assert states(sending.policy(a_scene(policy=policy, denials=[other], rows=[]))) == [OK]
    assert states(sending.policy(a_scene(policy=policy, rows=[], unknown={"policy": ["/dev/kmsg: Operation not permitted"]}))) == [UNKNOWN]


def test_permissive_selinux_refuses_nothing():
    assert states(sending.policy(a_scene(policy={"selinux": "permissive", "apparmor": False}, denials=[denials.parse(AVC, 0.0)]))) == [OK]


# --- the queue, and what arrives ---------------------------------------------------------------------------

def test_the_queue_is_too_short_for_more_processes_than_it_has_places():
    senders = [a_sender(pid) for pid in range(11, 22)]
    assert runs(the(receiving.queue(a_scene(servers=[a_server(senders=senders)]))))[0] == "sysctl -w net.unix.max_dgram_qlen=512"
    assert states(receiving.queue(a_scene(servers=[a_server(senders=senders[:10])]))) == [OK]
    assert states(receiving.queue(a_scene(qlen=None))) == [UNKNOWN]


def test_threads_that_wait_follow_from_a_stopped_collector_and_are_wrong_else():
    server = a_server(senders=[a_sender(11, waits=[f"sendto on unix {SOCKET}"]), a_sender(12)], place=a_place(inode=900, pids=[90]))
    assert runs(the(receiving.queue(a_scene(servers=[server])))) == ["kill 90"]
    assert states(receiving.queue(a_scene(servers=[server], collectors=[a_collector(stopped=True)]))) == [FOLLOWS]
    assert states(receiving.queue(a_scene(servers=[a_server(senders=[a_sender(11, waits=None)])]))) == [OK, UNKNOWN]


def test_a_process_that_does_not_send_is_named():
    found = receiving.arrival(a_scene(rows=[Row(11, 11, 1.0, 0.4)]))
    assert found[0].text == "telemetry arrives from 1 of 2 processes"
    assert the(found).text == "nothing arrives from 1 process (12) of Apache (pid 10)"


@pytest.mark.parametrize("silent_s, interval, arrives", [(4.9, 1.0, True), (5.1, 1.0, False), (34.0, 10.0, True), (36.0, 10.0, False)])
def test_silence_is_more_than_three_intervals(silent_s, interval, arrives):
    found = receiving.arrival(a_scene(rows=[Row(11, 11, interval, silent_s), Row(12, 12, interval, 0.1)]))
    assert states(found) == ([OK] if arrives else [OK, WRONG])
    if not arrives:
        assert runs(the(found)) == ["modwsgi-tel why --pid 11"]


def test_one_that_has_just_started_gets_its_time():
    server = a_server(senders=[a_sender(11), a_sender(12, age_s=1.0)])
    assert states(receiving.arrival(a_scene(servers=[server], rows=[Row(11, 11, 1.0, 0.4)]))) == [OK, UNKNOWN]


def test_datagrams_that_could_not_be_understood_name_their_sender():
    found = the(receiving.arrival(a_scene(summary=a_summary(wrong={"version": 3}, details=["from pid 5: version 2"]))))
    assert found.text.startswith("3 datagrams of 100 could not be understood (version 3)") and found.evidence == ("from pid 5: version 2",)


def test_processes_in_a_container_are_known_by_either_pid():
    assert states(receiving.arrival(a_scene(rows=[Row(7, 11, 1.0, 0.4), Row(8, 12, 1.0, 0.4)]))) == [OK]


def test_the_existing_collector_that_took_the_socket_is_ended_first():
    peer = a_collector(pid=90, own=False, sockets=[Bound(SOCKET, 900, a_place(inode=900, pids=[90]))])
    lost = a_collector(sockets=[Bound(SOCKET, 500, a_place(inode=900, pids=[90]))])
    found = the(receiving.collector(a_scene(collectors=[lost, peer])))
    assert runs(found) == ["kill 90", "kill 70"]


def test_servers_that_send_to_the_existing_collector_and_not_to_ours_are_told():
    peer, mine = a_collector(pid=90, own=False), a_collector(sockets=[Bound("/run/two.sock", 800, a_place(inode=800))])
    scene = a_scene(collectors=[mine, peer], summary=None, asked=Asked("http://127.0.0.1:8888", "answers 404", 0.1))
    found = the(receiving.collector(scene))
    assert found.text.startswith("no server sends to modwsgi-tel (pid 70, root): they send to the existing collector")
    assert runs(found) == ["modwsgi-tel doctor --listen unix:/run/two.sock"]
    assert states(receiving.readers(scene)) == [FOLLOWS]
    assert OK in states(receiving.collector(scene._replace(collectors=[mine, peer, a_collector(pid=71)])))


def test_a_socket_that_nobody_has_is_not_complained_of_for_its_mode():
    for state in ("dead", "file"):
        assert states(sending.permission(a_scene(servers=[a_server(place=a_place(state, mode=0o600))]))) == [FOLLOWS]


def test_users_who_are_stopped_by_one_folder_are_told_at_once():
    place = a_place(folders=[Folder("/run/modwsgi-tel", 0o700, 0, 0, False)])
    server = a_server(senders=[a_sender(11), a_sender(12, uid=1, gids=[1])], place=place)
    assert the(sending.permission(a_scene(servers=[server]))).text.startswith("2 processes of www-data, daemon (11, 12) may not search the folder")


def test_a_collector_for_servers_of_several_users_gets_the_group_of_most_also_where_agents_send():
    senders = [a_sender(11, uid=7, gids=[1]), a_sender(12, gids=[WWW]), a_sender(13, gids=[WWW])]
    old = a_server(config=a_config(path=None, version="4.9.4"), senders=senders)
    for server in (a_server(senders=senders), old):
        found = the(receiving.collector(a_scene(collectors=[], summary=None, here=a_place("absent"), servers=[server])))
        assert runs(found) == [f"modwsgi-tel serve --listen unix:{SOCKET} --socket-group www-data"]


def test_an_apache_of_no_unit_gets_the_signal_only_where_its_files_are_right(tmp_path):
    def reload(*words, file="/srv/httpd.conf", kind="apache"):
        process = tmp_path / "7"
        for name in ("ns", "root"):
            (process / name).mkdir(parents=True, exist_ok=True)
        (process / "cmdline").write_bytes(b"\0".join(map(os.fsencode, words)) + b"\0")
        for path, target in (("exe", "/bin/sh"), ("ns/mnt", "mnt:[1]")):
            if not os.path.lexists(process / path):
                os.symlink(target, process / path)
        if not os.path.lexists(tmp_path / "self"):
            os.symlink("7", tmp_path / "self")
        return servers.reload_of(7, kind, a_config(file=file, root="/srv"), str(tmp_path))

    assert reload("apache2", "-f", "/srv/a b", "-k", "start") == "/bin/sh -f '/srv/a b' -t && kill -USR1 7"
    assert reload("httpd", "-DFOREGROUND") == "/bin/sh -DFOREGROUND -t && kill -USR1 7"
    assert reload("gunicorn", kind="gunicorn") == "kill -HUP 7"
    (tmp_path / "8" / "ns").mkdir(parents=True)
    (tmp_path / "8" / "root").mkdir()
    os.symlink("mnt:[2]", tmp_path / "8" / "ns" / "mnt")
    os.unlink(tmp_path / "self")
    os.symlink("8", tmp_path / "self")
    assert reload("httpd") == "kill -USR1 7"             # its files are others than these


def test_a_collector_that_systemd_can_start_is_started_by_it():
    scene = a_scene(collectors=[], summary=None, here=a_place("absent", folders=[Folder("/run/modwsgi-tel", None, None, None, False)]))
    assert runs(the(receiving.collector(scene._replace(unit=("modwsgi-tel", SOCKET))))) == ["systemctl restart modwsgi-tel"]
    assert runs(the(receiving.collector(scene._replace(unit=("modwsgi-tel", "/run/other.sock")))))[0] == "mkdir -p /run/modwsgi-tel"


def test_the_unit_says_where_its_collector_is_to_listen(tmp_path):
    path = os.path.join(running.ROOT, "modwsgi_tel", "extras", "static", "systemd")
    assert collectors.unit_here([str(tmp_path), path], str(tmp_path)) == ("modwsgi-tel", SOCKET)
    assert collectors.unit_here([path], str(tmp_path / "nothing")) is None                  # no systemd runs
    assert gather._target("", [], [], ("modwsgi-tel", SOCKET)) == (SOCKET, "default")


# --- stacks, readers, machine --------------------------------------------------------------------------------

def test_slow_requests_that_are_off_get_their_line():
    found = the(receiving.stacks(a_scene(servers=[a_server(config=a_config(slow=None))])))
    assert runs(found) == ["sed -i --follow-symlinks '7a WSGISlowRequests 2.0' /etc/apache2/apache2.conf", "systemctl reload apache2"]
    found = the(receiving.stacks(a_scene(servers=[a_server(config=a_config(slow="0"))])))
    assert runs(found)[0] == "sed -i --follow-symlinks '8s|.*|WSGISlowRequests 2.0|' /etc/apache2/apache2.conf"


def test_a_collector_without_the_right_needs_a_helper():
    weak = a_collector(user="modwsgi-tel", powerful=False)
    assert runs(the(receiving.stacks(a_scene(collectors=[weak])))) == ["modwsgi-tel stack-helper --allow-uid modwsgi-tel --socket-mode 0666"]
    assert states(receiving.stacks(a_scene(collectors=[weak._replace(options={"stacks": "off"})]))) == [OK]
    assert states(receiving.stacks(a_scene(collectors=[weak._replace(powerful=None)]))) == [FOLLOWS]
    assert the(receiving.stacks(a_scene(summary=a_summary(stacks_problem="ptrace_scope is 3")))).text == "the collector reads no stacks: ptrace_scope is 3"


def test_a_unit_without_the_right_gets_the_helpers_unit():
    found = the(receiving.stacks(a_scene(collectors=[a_collector(user="modwsgi-tel", powerful=False, unit="modwsgi-tel.service")])))
    assert [text.split(" ")[0] for text in runs(found)] == ["modwsgi-tel", "mkdir", "systemctl"]
    assert runs(found)[-1].endswith("restart modwsgi-tel.service") and "--stacks off" in found.mends[-1].text


def test_options_that_a_unit_gives_by_the_environment_count(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "environ").write_bytes(b"PATH=/bin\0MODWSGI_TEL_STACKS_HELPER=/run/s.sock\0MODWSGI_TEL_STACKS=\0MODWSGI_TEL_ELSE=1\0")
    assert collectors._by_environment(7, str(tmp_path)) == {"stacks-helper": "/run/s.sock"}
    assert collectors._by_environment(8, str(tmp_path)) == {}


def test_a_helper_that_does_not_answer_is_told():
    with running.short_folder() as folder:
        path = os.path.join(folder, "s.sock")
        def scene():
            return a_scene(collectors=[a_collector(user="tel", options={"stacks-helper": path}, helper=(path, places.answers(path)))])

        found = the(receiving.stacks(scene()))
        assert (found.text, runs(found)[0]) == (f"no stack helper answers on {path}: No such file or directory",
                                                f"modwsgi-tel stack-helper --listen unix:{path} --allow-uid tel")
        with socket.socket(socket.AF_UNIX) as helper:
            helper.bind(path)
            helper.listen(1)
            assert states(receiving.stacks(scene())) == [OK]


def test_a_token_or_another_port_is_named_to_who_asks():
    asked = Asked("http://127.0.0.1:8888", "http://127.0.0.1:8888 asks for a token: give --token-file", 0.1)
    scene = a_scene(asked=asked, summary=None, collectors=[a_collector(options={"token-file": "/etc/token"})])
    assert runs(the(receiving.readers(scene))) == ["modwsgi-tel doctor --token-file /etc/token"]
    asked = Asked("http://127.0.0.1:8888", "does not answer", 0.1)
    scene = a_scene(asked=asked, summary=None, collectors=[a_collector(ports=["127.0.0.1:9999"])], ports={8888: [(5, "other")]})
    found = the(receiving.readers(scene))
    assert (runs(found), found.evidence) == (["modwsgi-tel doctor --url http://127.0.0.1:9999"], ("port 8888 is that of pid 5 (other)",))
    assert states(receiving.readers(scene._replace(collectors=[]))) == [FOLLOWS]


@pytest.mark.parametrize("free, share, state", [(300 << 20, 0.5, OK), (100 << 20, 0.5, WRONG), (300 << 20, 0.01, WRONG)])
def test_little_room_for_the_recording_is_told(free, share, state):
    assert states(receiving.machine(a_scene(disk=("/var/r.cap", free, share)))) == [state]


# --- looking -------------------------------------------------------------------------------------------------

def test_a_place_is_asked_without_sending_anything():
    with running.short_folder() as folder:
        path = os.path.join(folder, "t.sock")
        assert (places.look(path).state, places.look(path).mode) == ("absent", None)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bound:
            bound.bind(path)
            place = places.look(path)
            assert (place.state, place.inode, place.pids) == ("listens", os.fstat(bound.fileno()).st_ino, [os.getpid()])
            os.symlink(path, path + ".link")
            assert places.look(path + ".link").inode == place.inode
            with pytest.raises(BlockingIOError):
                bound.recv(10)
        assert (places.look(path).state, places.look(path).inode) == ("dead", None)
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as stream:
            stream.bind(path)
            stream.listen(1)
            assert places.look(path).state == "stream"
        assert [each.path for each in places.look(path).folders][-1] == folder
        assert (places.look(folder).state, places.look(path + "/x").state, places.look("/x\0y").state) == ("file", "absent", "unknown")


def test_options_are_read_off_a_command_line():
    words = ["python3", "modwsgi-tel.pyz", "serve", "--listen", "unix:/a b", "--http-port=0", "--stacks-helper", "/s", "--no-http-port"]
    assert collectors.options_of(words) == {"listen": "unix:/a b", "http-port": "0", "stacks-helper": "/s", "no-http-port": ""}


@pytest.mark.parametrize("told", [{}, {"collector": 3}, {"collector": {"version": 1}, "totals": {}}, {"collector": None}])
def test_an_answer_of_another_shape_is_no_summary(told):
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        gather.summary_of(told)


def test_json_of_a_scene_is_strict():
    judged = steps.judge(a_scene(servers=[a_server(path=None)], rows=[]))
    assert json.loads(json.dumps([each._asdict() for step in judged for each in step.results], allow_nan=False))
