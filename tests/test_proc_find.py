"""Which processes are found: in a made-up /proc, and for real."""
import os
import subprocess
import sys

import pytest

import running
from modwsgi_tel.errors import TelError
from modwsgi_tel.proc import find, procfs
from modwsgi_tel.proc.find import group_of, is_apache, is_of_group, is_python, maps_python, title

STAT = b"%d (%b) S %d 42 42 0 -1 4194368 1 0 0 0 30 12 0 0 20 0 2 0 987654 1 1 1 1 1 1 0 0"
MAP = b"7fe2f2a00000-7fe2f2a28000 r--p 00000000 fe:00 1234    %b\n"
LIBPYTHON = MAP % b"/usr/lib/x86_64-linux-gnu/libc.so.6" + MAP % b"/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0"
APACHE = b"/usr/sbin/apache2\0-k\0start\0"


def a_root(folder, processes, mounts=b"proc /proc proc rw,relatime 0 0\n"):
    """A made-up /proc: {pid: (exe or None, cmdline, maps or None, parent)}; None is what may not be read."""
    (folder / "self").mkdir()
    (folder / "self" / "stat").write_bytes(STAT % (1, b"x", 0))
    (folder / "self" / "mounts").write_bytes(mounts.replace(b" /proc ", b" %b " % os.fsencode(folder)))
    for pid, (exe, cmdline, maps, parent) in processes.items():
        path = folder / str(pid)
        path.mkdir()
        name = os.path.basename(exe or cmdline.split(b"\0")[0].decode())[:15].encode()
        if exe is not None:
            (path / "exe").symlink_to(exe)
        if maps is not None:
            (path / "maps").write_bytes(maps)
        (path / "cmdline").write_bytes(cmdline)
        (path / "comm").write_bytes(name + b"\n")
        (path / "stat").write_bytes(STAT % (pid, name, parent))
    return str(folder)


SERVER = {
    1: ("/sbin/init", b"/sbin/init\0", b"", 0),
    10: ("/usr/sbin/apache2", APACHE, LIBPYTHON, 1),
    11: ("/usr/sbin/apache2", b"(wsgi:shop)      \0-k\0start\0", LIBPYTHON, 10),
    12: ("/usr/sbin/apache2", b"(wsgi:shopping-ca\0-k\0start\0", LIBPYTHON, 10),
    13: ("/usr/sbin/apache2", b"blog             \0-k\0start\0", LIBPYTHON, 10),
    20: ("/usr/sbin/httpd", b"/usr/sbin/httpd\0", MAP % b"/usr/lib/libc.so.6", 1),
    30: ("/opt/venv/bin/python3.9 (deleted)", b"gunicorn: master\0", b"", 1),
    31: (None, b"/usr/bin/python3\0-m\0http.server\0", None, 30),
    40: ("/usr/bin/uwsgi", b"uwsgi\0", LIBPYTHON, 31),
    50: (None, b"/usr/bin/postgres\0", None, 1),
    99: ("/usr/bin/python3.11", b"python3\0", b"", 10),            # ourselves
    100: ("/usr/bin/sleep", b"sleep\0", b"", 99),
}


@pytest.fixture(autouse=True)
def ourselves(request, monkeypatch):
    """Who looks at a made-up /proc is 99 there."""
    if "tmp_path" in request.fixturenames:
        monkeypatch.setattr(os, "getpid", lambda: 99)


def test_python_is_seen_in_what_a_process_has_mapped():
    assert maps_python(LIBPYTHON)
    assert maps_python(MAP % b"/usr/lib/libpython3.11.so.1.0 (deleted)")
    assert maps_python(MAP % b"/usr/lib/apache2/modules/mod_wsgi.so")
    assert maps_python(MAP % b"/v/mod_wsgi/server/mod_wsgi-py311.cpython-311-x86_64-linux-gnu.so")
    assert not maps_python(MAP % b"/usr/lib/libc.so.6" + MAP % b"/srv/libpython3.11.so/readme" + MAP % b"[heap]")


def test_programs_are_known_by_their_names():
    assert [name for name in ("python", "python3", "python3.14-dbg", "pythonw", "bpython", "pypy3", "") if is_python(name)] == [
        "python", "python3", "python3.14-dbg", "pythonw"]
    assert [name for name in ("apache2", "httpd", "httpd.worker", "lighttpd", "apache2ctl") if is_apache(name)] == [
        "apache2", "httpd", "httpd.worker"]


def test_a_zombie_is_not_found():
    child, other = (subprocess.Popen([sys.executable, "-I", "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2))
    try:
        assert child.pid in find.pythons()
        child.kill()
        running.wait_until(lambda: procfs.stat(child.pid).state == "Z", 10, "it is no zombie")
        assert child.pid not in find.pythons()
    finally:
        for each in (child, other):
            each.kill()
            each.communicate(timeout=10)


def test_a_process_of_which_one_thread_runs_on_is_found(tmp_path):
    root = a_root(tmp_path, {7: ("/usr/bin/python3", b"python3\0", b"", 1), 8: ("/usr/bin/python3", b"python3\0", b"", 1)})
    for pid, states in ((7, b"ZS"), (8, b"ZZ")):
        for number, state in enumerate(states):
            told = (STAT % (pid, b"x", 1)).replace(b") S", b") %c" % state)
            folder = tmp_path / str(pid) / "task" / str(pid + 100 * number)
            folder.mkdir(parents=True)
            (folder / "stat").write_bytes(told)
        (tmp_path / str(pid) / "stat").write_bytes((STAT % (pid, b"x", 1)).replace(b") S", b") Z"))
    assert find.pythons(root) == [7]


def test_a_title_is_cut_where_it_fills_the_word_it_was_written_over():
    assert title(b"(wsgi:shop)      \0-k\0") == ("(wsgi:shop)", False)
    assert title(b"(wsgi:shopping-ca\0-k\0") == ("(wsgi:shopping-ca", True)
    assert title(b"") == ("", True)


@pytest.mark.parametrize("name, cmdline, wanted", [
    ("shop", b"(wsgi:shop)      \0", True),
    ("shop", b"(wsgi:shop)\0", True),
    ("shop", b"(wsgi:shopping)  \0", False),
    ("shopping", b"(wsgi:shop)      \0", False),
    ("shopping-cart", b"(wsgi:shopping-ca\0", True),
    ("shopping-mall", b"(wsgi:shopping-ca\0", False),
    ("shopping-cart", b"(wsgi:shopping-ca \0", False),              # it had room for more
    ("shopping-car", b"(wsgi:shopping-car\0", True),                # the bracket alone is cut
    ("shop", b"(wsgi:\0", False),
    ("shop", b"", False),
    ("localhost:8000", b"(wsgi:localhost:8000:1000)    \0", True),
    ("localhost:8000:1000", b"(wsgi:localhost:8000:1000)    \0", True),
    ("localhost:8000", b"(wsgi:localhost:8000:10\0", True),
    ("localhost", b"(wsgi:localhost:8000:1000)    \0", False),
    ("blog", b"blog             \0", True),
    ("(wsgi:shop)", b"(wsgi:shop)      \0", True),
])
def test_a_daemon_is_of_the_group_that_its_title_shows(name, cmdline, wanted):
    assert is_of_group(name, cmdline) is wanted


def test_the_group_is_what_the_title_shows():
    assert [group_of(each) for each in (b"(wsgi:shop)    \0", b"(wsgi:shopping-ca\0")] == ["shop", "shopping-ca"]


def test_processes_are_found_by_program_and_by_library(tmp_path):
    root = a_root(tmp_path, SERVER)
    assert find.pythons(root) == [10, 11, 12, 13, 30, 31, 40]
    assert find.apache(root) == [10, 11, 12, 13]
    assert find.group("shop", root) == [11]
    assert find.group("shopping-cart", root) == [12]
    assert find.group("blog", root) == [13]
    assert find.subprocesses([10], root) == [11, 12, 13, 100]
    assert find.subprocesses([1, 30], root) == [10, 11, 12, 13, 20, 31, 40, 50, 100]
    assert find.subprocesses([40], root) == []


def test_an_apache_that_may_not_be_looked_into_is_among_apaches(tmp_path):
    root = a_root(tmp_path, {10: (None, APACHE, None, 1), 11: (None, b"(wsgi:shop)      \0", None, 10)})
    assert find.apache(root) == [10, 11]
    assert find.pythons(root) == [11]


def test_an_unknown_group_is_answered_with_those_there_are(tmp_path):
    root = a_root(tmp_path, SERVER)
    with pytest.raises(TelError, match="^no process of group shops; there are: shop, shopping-ca$"):
        find.group("shops", root)


def test_no_titled_daemon_at_all_is_answered_with_how_to_title_them(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(TelError) as caught:
        find.group("shop", a_root(tmp_path, {1: SERVER[1]}))
    assert str(caught.value) == ("no process of group shop: no daemon shows a group; give WSGIDaemonProcess "
                                 "display-name=%{GROUP}, or use --apache")


@pytest.mark.parametrize("uid, mounts, advice", [
    (0, b"", ""), (1000, b"", "; run as root to see into those of others"),
    (1000, b"proc /proc proc rw,hidepid=invisible 0 0\n", "; /proc hides those of others (hidepid=invisible): run as root")])
def test_finding_none_says_what_might_hide_them(tmp_path, monkeypatch, uid, mounts, advice):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    root = a_root(tmp_path, {1: SERVER[1]}, mounts)
    with pytest.raises(TelError) as caught:
        find.pythons(root)
    assert str(caught.value) == "no process of Python was found" + advice
    with pytest.raises(TelError) as caught:
        find.apache(root)
    assert str(caught.value) == "no process of Apache (apache2, httpd) with Python in it was found" + advice


def test_a_proc_that_is_not_there_is_said_plainly(tmp_path):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "none", tmp_path / "empty"):
        for ask in (find.pythons, find.apache, lambda root: find.group("x", root), lambda root: find.subprocesses([1], root)):
            with pytest.raises(TelError, match="^there is no /proc here: mount it"):
                ask(str(root))


def test_more_processes_than_the_bound_are_refused_not_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(find, "MOST", 3)
    root = a_root(tmp_path, SERVER)
    with pytest.raises(TelError, match="^7 processes are more than the 3 that can be read at once: name them by pid$"):
        find.pythons(root)


def test_who_descends_from_one_that_descends_from_itself_is_found_in_bounded_time(tmp_path):
    root = a_root(tmp_path, {5: ("/x", b"x\0", b"", 6), 6: ("/x", b"x\0", b"", 5)})
    assert find.subprocesses([5], root) == [6]


@pytest.mark.parametrize("text, wanted", [
    (b"proc /proc proc rw,relatime,hidepid=2 0 0\n", "2"), (b"proc /proc proc rw,hidepid=invisible,gid=4 0 0\n", "invisible"),
    (b"proc /proc proc rw,hidepid=off 0 0\n", ""), (b"proc /x/proc proc rw,hidepid=2 0 0\n", ""), (b"", ""),
    (b"proc /proc proc rw,hidepid=2 0 0\nproc /proc proc rw 0 0\n", "")])
def test_what_proc_hides_is_read_from_its_last_mount(text, wanted):
    assert procfs.hides(text) == wanted


def test_real_pythons_are_found_without_our_own_and_with_their_children():
    code = "import subprocess, sys; c = subprocess.Popen(['sleep', '600']); print(c.pid, flush=True); sys.stdin.read(); c.kill()"
    child = subprocess.Popen([sys.executable, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        sleeper = int(child.stdout.readline())
        found = find.pythons()
        assert child.pid in found and sleeper not in found and os.getpid() not in found
        assert find.subprocesses([child.pid]) == [sleeper]
        assert {child.pid, sleeper} <= set(find.subprocesses([os.getppid()]))
    finally:
        child.stdin.close()
        child.wait(timeout=10)
        child.stdout.close()
    running.wait_until(lambda: child.pid not in procfs.pids(), 10, "it is still there")
