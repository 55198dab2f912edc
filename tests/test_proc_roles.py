"""What each process of a server is for: in a made-up /proc, and of a real gunicorn."""
import os
import types

import pytest

import wsgiservers
import apache
import running
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import roles
from modwsgi_tel.proc.roles import CHILD, COLLECTOR, DAEMON, HELPER, MASTER, PARENT, PYTHON, WORKER, members

STAT = b"%d (%b) S %d 42 42 0 -1 %d 1 0 0 0 30 12 0 0 20 0 3 0 987654 1 250 1 1 1 1 0 0"
KERNEL = 0x200000
APACHE = b"/usr/sbin/apache2\0-k\0start\0"
LISTEN = b"  0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 %d 1 0 100 0 0 10 0\n"
GUNICORN = b"/usr/bin/python3\0/usr/bin/gunicorn\0--threads\0004\0shop:app\0"


UNIX = b"ffff: 00000002 00000000 00010000 0001 01 %d /var/run/wsgi.10.0.1.sock\nffff: 00000003 00000000 00000000 0001 03 %d\n"


def a_root(folder, processes, listening=(), unix=0):
    """A made-up /proc: {pid: (program, cmdline, parent, inodes of its sockets)}."""
    (folder / "self").mkdir()
    (folder / "self" / "stat").write_bytes(STAT % (1, b"x", 0, 0))
    for pid, (program, cmdline, parent, sockets) in processes.items():
        path = folder / str(pid)
        (path / "fd").mkdir(parents=True)
        (path / "net").mkdir()
        (path / "net" / "unix").write_bytes(b"head\n" + UNIX % (unix, unix + 1))
        (path / "net" / "tcp").write_bytes(b"head\n" + b"".join(LISTEN % inode for inode in listening))
        for number, inode in enumerate(sockets):
            (path / "fd" / str(number)).symlink_to("socket:[%d]" % inode)
        (path / "cmdline").write_bytes(cmdline)
        kernel = program is None
        if not kernel:
            (path / "exe").symlink_to(program)
        (path / "stat").write_bytes(STAT % (pid, b"a (b) c\n" if kernel else os.path.basename(program)[:15].encode(), parent, KERNEL if kernel else 0))
    return str(folder)


def seen(found):
    return {each.pid: (each.role, each.group, each.server) for each in found}


def test_apaches_parent_children_daemons_and_log_pipes_are_told_apart(tmp_path):
    root = a_root(tmp_path, {
        1: ("/sbin/init", b"/sbin/init\0", 0, ()),
        2: (None, b"", 0, ()),
        10: ("/usr/sbin/apache2", APACHE, 1, (70,)),
        11: ("/usr/sbin/apache2", b"(wsgi:shop)      \0-k\0start\0", 10, ()),
        12: ("/usr/sbin/apache2", APACHE, 10, (70,)),
        13: ("/usr/sbin/apache2", APACHE, 10, (80,)),
        14: ("/usr/sbin/apache2", b"blog             \0-k\0start\0", 10, ()),
        15: ("/usr/bin/rotatelogs", b"/usr/bin/rotatelogs\0/var/log/x\0", 10, ()),
        16: ("/usr/bin/convert", b"convert\0a.png\0", 11, ()),
        17: ("/usr/bin/python3.11", b"python3\0job.py\0", 16, ()),
        18: ("/usr/sbin/apache2", APACHE, 10, ()),
        19: ("/usr/sbin/apache2", APACHE, 10, (81,)),
        20: ("/usr/sbin/nginx", b"nginx\0", 1, (70,)),
    }, listening=(70,), unix=80)
    assert seen(members(root)) == {
        10: (PARENT, "", "apache"), 11: (DAEMON, "shop", "apache"), 12: (CHILD, "", "apache"), 13: (DAEMON, "", "apache"),
        14: (DAEMON, "blog", "apache"), 15: (HELPER, "", "apache"), 16: (HELPER, "shop", "apache"), 17: (HELPER, "shop", "apache"),
        18: (CHILD, "", "apache"), 19: (CHILD, "", "apache")}


def test_sockets_are_those_of_each_processs_own_network_namespace(tmp_path):
    root = a_root(tmp_path, {
        10: ("/usr/sbin/apache2", APACHE, 1, ()), 11: ("/usr/sbin/apache2", APACHE, 10, (80,)),
        20: ("/usr/sbin/apache2", APACHE, 1, ()), 21: ("/usr/sbin/apache2", APACHE, 20, (90,)),
        30: ("/usr/bin/python3.11", b"python3\0serve.py\0", 1, (70,)), 31: ("/usr/bin/python3.11", b"python3\0serve.py\0", 1, (71,))},
        listening=(70,), unix=80)
    for pid in (20, 21, 31):            # a container's
        (tmp_path / str(pid) / "net" / "unix").write_bytes(b"head\n" + UNIX % (90, 91))
        (tmp_path / str(pid) / "net" / "tcp").write_bytes(b"head\n" + LISTEN % 71)
    assert {pid: role for pid, (role, _, _) in seen(members(root)).items()} == {
        10: PARENT, 11: DAEMON, 20: PARENT, 21: DAEMON, 30: WORKER, 31: WORKER}


def test_the_group_of_express_has_no_uid_in_its_name(tmp_path):
    uid = os.getuid()
    root = a_root(tmp_path, {10: ("/usr/sbin/apache2", APACHE, 1, ()),
                             11: ("/usr/sbin/apache2", b"(wsgi:localhost:8000:%d)\0" % uid, 10, ()),
                             12: ("/usr/sbin/apache2", b"(wsgi:localhost:8000:%d)\0" % (uid + 1), 10, ())})
    assert [each.group for each in members(root)] == ["", "localhost:8000", "localhost:8000:%d" % (uid + 1)]


def test_it_may_be_the_uid_of_the_apache_above(tmp_path, monkeypatch):
    root = a_root(tmp_path, {10: ("/usr/sbin/apache2", APACHE, 1, ()), 11: ("/usr/sbin/apache2", b"(wsgi:localhost:8000:%d)\0" % os.getuid(), 10, ())})
    seen_by = os.stat
    monkeypatch.setattr(roles.os, "stat", lambda path: types.SimpleNamespace(st_uid=33) if str(path).endswith("/11") else seen_by(path))
    assert [each.group for each in members(root)] == ["", "localhost:8000"]


def test_a_daemon_whose_apache_has_died_is_a_daemon(tmp_path):
    root = a_root(tmp_path, {1: ("/sbin/init", b"/sbin/init\0", 0, ()), 11: ("/usr/sbin/apache2", b"(wsgi:shop)      \0-k\0start\0", 1, ())})
    assert seen(members(root)) == {11: (DAEMON, "shop", "apache")}


def test_gunicorn_uwsgi_other_servers_and_our_own_collector_are_told_apart(tmp_path):
    root = a_root(tmp_path, {
        30: ("/usr/bin/python3.11", GUNICORN, 1, (70,)),
        31: ("/usr/bin/python3.11", GUNICORN, 30, (70,)),
        32: ("/usr/bin/python3.11", b"gunicorn: worker [blog]\0", 1, ()),
        40: ("/usr/bin/uwsgi-core", b"uwsgi\0--master\0", 1, ()),
        41: ("/usr/bin/uwsgi-core", b"uwsgi\0--master\0", 40, ()),
        42: ("/usr/bin/uwsgi-core", b"uwsgi\0--http\0", 1, ()),
        50: ("/usr/bin/python3.9", b"python3\0-m\0waitress\0", 1, (70,)),
        51: ("/usr/bin/python3.9", b"python3\0job.py\0", 1, (71,)),
        52: ("/usr/bin/python3.9", b"python3\0/opt/modwsgi-tel.pyz\0serve\0", 1, (70,)),
    }, listening=(70,))
    assert seen(members(root)) == {
        30: (MASTER, "shop:app", "gunicorn"), 31: (WORKER, "shop:app", "gunicorn"), 32: (WORKER, "blog", "gunicorn"),
        40: (MASTER, "", "uwsgi"), 41: (WORKER, "", "uwsgi"), 42: (WORKER, "", "uwsgi"),
        50: (WORKER, "", "python"), 51: (PYTHON, "", "python"), 52: (COLLECTOR, "", "python")}


def test_a_member_says_what_the_kernel_says(tmp_path):
    root = a_root(tmp_path, {11: ("/usr/bin/python3.11", b"python3\0a  b\0\n\xff\0", 1, ())})
    assert members(root) == [roles.Member(11, 1, 987654, PYTHON, "", "python", "python3.11", "python3 a  b \n\ufffd", "", os.getuid(), "S", 3, 42,
                                          250 * os.sysconf("SC_PAGE_SIZE"))]


def test_what_ends_while_it_is_read_is_left_out(tmp_path):
    root = a_root(tmp_path, {11: ("/usr/bin/python3.11", b"python3\0", 1, ()), 12: ("/usr/bin/python3.11", b"python3\0", 1, ())})
    os.unlink(os.path.join(root, "12", "stat"))
    assert [each.pid for each in members(root)] == [11]


def test_without_proc_there_is_one_line_on_what_to_do(tmp_path):
    with pytest.raises(TelError, match="mount it"):
        members(str(tmp_path / "nothing"))


def test_a_real_gunicorn_has_a_master_and_workers():
    try:
        server = wsgiservers.Gunicorn(apache.APP, "--threads", "2", workers=2)
    except apache.Missing as error:
        pytest.skip(str(error))
    with server:
        running.wait_until(lambda: len(server.pids()) == 2, 10, "no workers")
        found = {each.pid: each.role for each in members()}
        assert [found[server.process.pid], *(found[pid] for pid in server.pids())] == [MASTER, WORKER, WORKER]
