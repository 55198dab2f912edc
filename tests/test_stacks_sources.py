"""Source lines as the target sees its files: nothing leads out of its root, nothing but regular files is opened."""
import os
import subprocess
import sys

import pytest

from modwsgi_tel.stacks import sources
from modwsgi_tel.stacks.sources import FILE_MOST, FILES_MOST, LINE_MOST, Rights, Sources


@pytest.fixture
def root(tmp_path):
    """A target's root with one file in it; beside it a secret that is not."""
    (tmp_path / "secret.py").write_text("secret\n")
    (tmp_path / "root" / "srv").mkdir(parents=True)
    (tmp_path / "root" / "srv" / "app.py").write_text("one\n    two = 2\n\nfour\n")
    return tmp_path / "root"


def lines(root, file, *numbers, **more):
    found = Sources(str(root), **more)
    try:
        return [found.line(file, number) for number in numbers]
    finally:
        found.close()


def test_a_line_is_given_without_its_indentation(root):
    assert lines(root, "/srv/app.py", 1, 2, 4) == ["one", "two = 2", "four"]


@pytest.mark.parametrize("number", [3, 5, 0, -1, None, 10 ** 12])
def test_a_line_that_is_empty_or_not_there_is_none(root, number):
    assert lines(root, "/srv/app.py", number) == [None]


@pytest.mark.parametrize("file", ["", "<string>", "<frozen importlib._bootstrap>", "/srv/gone.py", "/srv", "/", "app.py",
                                  "/srv/app.py/x.py", "/srv/x.pyz/pkg/mod.py", "/srv/\0.py", "/srv/\ud800.py", "/" + "a/" * 9999,
                                  "/srv/" + "n" * 300])
def test_what_is_no_file_gives_none(root, file):
    (root / "srv" / "x.pyz").write_bytes(b"PK")
    assert lines(root, file, 1) == [None]


@pytest.mark.parametrize("path", ["/srv/../../secret.py", "/../secret.py", "/srv/up/secret.py", "/srv/out.py", "/srv/far.py"])
def test_neither_a_link_nor_dots_lead_out_of_the_root(root, path):
    (root / "srv" / "up").symlink_to("../..")
    (root / "srv" / "out.py").symlink_to("../../secret.py")
    (root / "srv" / "far.py").symlink_to(str(root.parent / "secret.py"))
    assert lines(root, path, 1) == [None]


def test_links_are_taken_as_the_target_takes_them(root):
    (root / "venv").symlink_to("/srv")
    (root / "srv" / "lib64").symlink_to(".")
    (root / "srv" / "lib64.py").symlink_to("lib64/app.py")
    (root / "srv" / "dots.py").symlink_to("../../../srv/app.py")        # above its root there is its root
    for path in ("/venv/app.py", "/srv/lib64/lib64/app.py", "/srv/lib64.py", "/srv/dots.py", "/srv/../venv/./app.py"):
        assert lines(root, path, 1) == ["one"], path


def test_a_circle_of_links_ends(root):
    (root / "a").symlink_to("/b")
    (root / "b").symlink_to("/a")
    assert lines(root, "/a", 1) == [None]


def test_a_fifo_and_a_device_are_never_opened(root):
    os.mkfifo(root / "srv" / "fifo.py")
    (root / "srv" / "null.py").symlink_to("/dev/null")
    assert lines(root, "/srv/fifo.py", 1) == [None]
    assert lines("/", "/dev/zero", 1) == [None]
    assert lines("/", "/proc/kmsg", 1) == [None]        # a regular file, that of no size


def test_relative_names_start_at_the_targets_folder(root):
    assert lines(root, "app.py", 1, cwd=str(root / "srv")) == ["one"]
    assert lines(root, "../srv/./app.py", 1, cwd=str(root / "srv")) == ["one"]
    assert lines(root, "secret.py", 1, cwd=str(root.parent)) == [None]      # outside of its root: not known
    assert lines(root, "app.py", 1, cwd=str(root / "gone")) == [None]
    (root.parent / "srv").mkdir()
    (root.parent / "cwd").symlink_to("srv")             # the same name, but another folder than the one in the root
    assert lines(root, "app.py", 1, cwd=str(root.parent / "cwd")) == [None]


def test_a_process_is_read_through_its_own_root_and_folder(root):
    child = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], cwd=root / "srv", stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"1\n"
        place = f"/proc/{child.pid}"
        assert lines(f"{place}/root", "app.py", 2, cwd=f"{place}/cwd") == ["two = 2"]
        assert lines(f"{place}/root", str(root / "srv" / "app.py"), 2) == ["two = 2"]
        os.rename(root / "srv", root / "old")           # the folder's name is another's now
        (root / "srv").mkdir()
        (root / "srv" / "app.py").write_text("another\n")
        assert lines(f"{place}/root", "app.py", 1, cwd=f"{place}/cwd") == ["one"]
        os.rename(root / "old" / "app.py", root / "app.py")
        os.rmdir(root / "old")
        assert lines(f"{place}/root", "app.py", 1, cwd=f"{place}/cwd") == [None]
    finally:
        child.communicate(b"\n", timeout=20)


@pytest.mark.skipif(os.geteuid() != 0, reason="a chroot needs root")
def test_a_process_in_a_chroot_names_files_below_its_root(root):
    code = "import os, sys; os.chroot(sys.argv[1]); os.chdir('/srv'); print(1, flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"1\n"
        place = f"/proc/{child.pid}"
        assert lines(f"{place}/root", "app.py", 1, cwd=f"{place}/cwd") == ["one"]
        assert lines(f"{place}/root", "/srv/app.py", 4, cwd=f"{place}/cwd") == ["four"]
        assert lines(f"{place}/root", str(root / "srv" / "app.py"), 1) == [None]
    finally:
        child.communicate(b"\n", timeout=20)


def test_a_process_that_is_gone_has_no_lines():
    assert lines("/proc/0/root", "/etc/passwd", 1, cwd="/proc/0/cwd") == [None]


@pytest.mark.parametrize("data, expected", [
    ("é = 1\n".encode(), "é = 1"),
    (b"\xef\xbb\xbfx = 1\n", "x = 1"),
    (b"caf\xe9 = 1\n", "caf\ufffd = 1"),
    (b"a = 1\rb\r\nc", "a = 1")])
def test_the_first_line_of_a_file_without_a_cookie_is_utf_8(root, data, expected):
    (root / "x.py").write_bytes(data)
    assert lines(root, "/x.py", 1) == [expected]


@pytest.mark.parametrize("head, expected", [
    (b"# -*- coding: latin-1 -*-\n\n", "caf\xe9"), (b"#!/usr/bin/python\n# vim: set fileencoding=iso-8859-15 :\n", "caf\xe9"),
    (b"x = 1\n# coding: latin-1\n", "caf\ufffd"),       # behind code it is no cookie
    (b"#\n#\n# coding: latin-1\n", "caf\ufffd"),
    (b"# coding: nonsense\n\n", "caf\ufffd"), (b"# coding: hex\n\n", "caf\ufffd"), (b"# coding: punycode\n\n", "caf\ufffd"),
    (b"# coding: ../../x\n\n", "caf\ufffd"), (b"# coding: " + b"a" * 3000 + b"\n\n", "caf\ufffd")])
def test_the_cookie_of_a_file_is_taken_as_python_takes_it(root, head, expected):
    (root / "x.py").write_bytes(head + b"caf\xe9\n")
    assert lines(root, "/x.py", 1 + head.count(b"\n")) == [expected]


def test_all_ends_of_lines_count(root):
    (root / "x.py").write_bytes(b"a\rb\r\nc\nd\x0ce\x0bf\n\x1cg")
    assert lines(root, "/x.py", 1, 2, 3, 4, 5) == ["a", "b", "c", "d\x0ce\x0bf", "g"]


def test_sizes_are_bounded(root, monkeypatch):
    (root / "long.py").write_text("x" * 10000)
    (root / "big.py").write_bytes(b"a\n" * (FILE_MOST // 2))
    (root / "bigger.py").write_bytes(b"a\n" * (FILE_MOST // 2) + b"a")
    assert lines(root, "/long.py", 1) == ["x" * LINE_MOST]
    assert lines(root, "/big.py", FILE_MOST // 2) == ["a"]
    assert lines(root, "/bigger.py", 1) == [None]
    monkeypatch.setattr(sources, "BYTES_MOST", FILE_MOST)
    found = Sources(str(root))
    assert [found.line(file, 1) for file in ("/big.py", "/srv/app.py")] == ["a", None]
    found.close()


def test_no_more_files_are_kept_than_the_bound(root):
    for number in range(FILES_MOST + 1):
        (root / f"{number}.py").write_text(f"line {number}\n")
    found = Sources(str(root))
    told = [found.line(f"/{number}.py", 1) for number in range(FILES_MOST + 1)]
    assert told == [f"line {number}" for number in range(FILES_MOST)] + [None]
    assert found.line("/0.py", 1) == "line 0"
    found.close()


def test_a_file_is_read_once(root):
    found = Sources(str(root))
    assert found.line("/srv/app.py", 1) == "one"
    (root / "srv" / "app.py").write_text("another\n")
    assert found.line("/srv/app.py", 1) == "one"
    found.close()


def test_a_file_that_is_newer_than_the_process_is_told():
    own = os.path.abspath(__file__)
    written = os.stat(own).st_mtime
    for started, expected in ((written - 10, True), (written - 1, False), (written + 10, False), (None, False)):
        found = Sources(started=started)
        assert found.changed(own) is expected, started
        assert found.changed("/gone.py") is False and found.changed("<string>") is False
        found.close()


UID, GID = os.getuid(), os.getgid()
OTHER, MEMBER = Rights(UID + 1, frozenset((GID + 1,))), Rights(UID + 1, frozenset((GID + 1, GID)))


@pytest.mark.parametrize("path", ["/srv/app.py", "/lib/linked.py", "app.py"])
@pytest.mark.parametrize("what, mode, who, shown", [
    ("srv/app.py", 0o644, OTHER, True), ("srv/app.py", 0o640, OTHER, False), ("srv/app.py", 0o640, MEMBER, True),
    ("srv/app.py", 0o604, MEMBER, False), ("srv/app.py", 0o600, MEMBER, False), ("srv/app.py", 0o600, Rights(0, frozenset()), True),
    ("srv/app.py", 0o640, Rights(None, frozenset()), False), ("srv/app.py", 0o644, Rights(None, frozenset()), True),
    ("srv", 0o755, OTHER, True), ("srv", 0o750, OTHER, False), ("srv", 0o750, MEMBER, True), ("srv", 0o754, OTHER, False),
    (".", 0o700, OTHER, False), ("srv/app.py", 0o600, None, True)])
def test_only_files_that_the_target_may_read_itself_are_shown(root, path, what, mode, who, shown):
    (root / "lib").mkdir()
    (root / "lib" / "linked.py").symlink_to("../srv/app.py")
    os.chmod(root / what, mode)
    found = lines(root, path, 1, cwd=str(root / "srv"), who=who)
    os.chmod(root / what, 0o755)
    assert found == ["one" if shown else None]


def test_the_owner_of_a_file_may_read_it_by_the_owner_s_bits():
    class Owned:
        st_mode, st_uid, st_gid = 0o100604, 1000, 100
    assert [sources._may(Rights(uid, {100}), 4, Owned) for uid in (1000, 1001, 0, None)] == [True, False, True, False]
    Owned.st_mode = 0o100044
    assert not sources._may(Rights(1000, {100}), 4, Owned)


def test_no_descriptor_is_left_open(root):
    (root / "srv" / "up").symlink_to("../..")
    before = os.listdir("/proc/self/fd")
    for path in ("/srv/app.py", "/srv/gone.py", "/srv/up/srv/app.py", "/srv/app.py/x", "/" + "a/" * 9999, "/\0"):
        for who in (None, OTHER):
            lines(root, path, 1, cwd=str(root / "srv"), who=who)
    (root / "srv").chmod(0o700)
    lines(root, "/srv/app.py", 1, who=OTHER)
    assert os.listdir("/proc/self/fd") == before
