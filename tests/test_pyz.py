"""The built file, as a user has it on a server: any Python from 3.9, any user, any HOME, and nothing but the file."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

import interpreters
import running
from modwsgi_tel import __version__

pytestmark = pytest.mark.pyz

NOBODY = 65534
ROUTES = ("/", "/api/state", "/api/summary", "/api/slow", "/api/lifecycle", "/api/processes",
          "/api/histogram?phase=request", "/healthz", "/version")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user: needs root")


def run(*command, **more):
    environment = running.clean_environment(**more.pop("environment", {}))
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=60, env=environment, **more)


def as_nobody(home=None):
    """How to start something as an ordinary user who owns nothing."""
    return dict(user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", environment={"HOME": home, "TMPDIR": None})


def copy(pyz, folder, name="modwsgi-tel.pyz"):
    return shutil.copy(pyz, os.path.join(folder, name))


def works(collector):
    """It answers, and it ends well."""
    for route in ROUTES:
        status, _, body = collector.get(route)
        assert status == 200 and body, (route, status, body, collector.said())
    assert collector.stop() == 0, collector.said()
    assert not os.path.lexists(collector.socket)


@pytest.mark.parametrize("release", interpreters.SUPPORTED)
def test_it_runs_bare_on_every_supported_python(pyz, serve, release):
    python = interpreters.of(release)
    told = run(python, "-I", "-S", pyz, "--version")
    assert (told.returncode, told.stderr) == (0, "") and __version__ in told.stdout
    told = run(python, "-I", "-S", pyz, "--help")
    assert (told.returncode, told.stderr) == (0, "") and "serve" in told.stdout
    works(serve(program=[python, "-I", "-S", "-W", "error", pyz]))


@pytest.mark.parametrize("release", interpreters.TOO_OLD)
def test_a_python_too_old_is_told_so_in_one_line(pyz, release):
    python = interpreters.of(release)
    for command, again in (([python, pyz, "serve"], pyz), ([python, "-m", "modwsgi_tel", "serve"], "-m modwsgi_tel")):
        told = run(*command, cwd=running.ROOT, environment={"PYTHONDONTWRITEBYTECODE": "1"})
        assert told.returncode == 2 and told.stdout == ""
        line, = told.stderr.splitlines()
        assert line.startswith("modwsgi-tel needs Python 3.9 or newer, this is %s." % release)
        assert line.endswith(": try python3.11 " + again)


def test_the_checkout_runs_bare_too(serve):
    told = run(sys.executable, "-S", "-m", "modwsgi_tel", "--version", cwd=running.ROOT)
    assert (told.returncode, told.stderr) == (0, "") and __version__ in told.stdout
    told = run(sys.executable, os.path.join(running.ROOT, "modwsgi_tel"), "--version", cwd="/")
    assert (told.returncode, told.stderr) == (0, "") and __version__ in told.stdout
    works(serve(program=[sys.executable, "-S", "-m", "modwsgi_tel"]))


def test_it_can_be_executed_as_it_is(pyz):
    told = run(pyz, "--version", cwd="/")
    assert (told.returncode, told.stderr) == (0, "") and __version__ in told.stdout


@needs_root
def test_an_ordinary_user_can_run_it(pyz, serve):
    works(serve(program=[interpreters.for_user(NOBODY), pyz], **as_nobody()))


@pytest.mark.parametrize("home", ["unset", "empty", "missing", "unwritable"])
def test_it_does_not_care_about_home_and_tmpdir(pyz, serve, home, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    value = {"unset": None, "empty": "", "missing": "/no/such/home", "unwritable": str(closed)}[home]
    environment = {"HOME": value, "TMPDIR": value, "XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None}
    if os.geteuid() == 0:                       # nothing is unwritable for root
        if home == "unwritable":
            environment["HOME"] = environment["TMPDIR"] = "/"
        how = dict(as_nobody(), environment=environment)
        python = interpreters.for_user(NOBODY)
    else:
        how, python = dict(environment=environment, cwd=str(closed)), sys.executable
    works(serve(program=[python, pyz], **how))


@needs_root
def test_it_runs_where_home_and_tmpdir_are_read_only_and_noexec(pyz, serve, tmp_path):
    mounting = ["unshare", "--mount", "sh", "-c",
                'mount -t tmpfs -o ro,noexec,nodev none "$0" && cd "$0" && exec "$@"', str(tmp_path)]
    if run(*mounting, "true").returncode:
        pytest.skip("cannot mount in a namespace of its own here")
    works(serve(program=[*mounting, sys.executable, pyz], environment={"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}))


def plant(folder, pyz):
    """Code that a stranger could leave lying about: where imports look first, and where shiv unpacks to."""
    shout = "import os, sys\nos.write(2, b'PLANTED ' + __file__.encode())\nos._exit(99)\n"
    names = ["json.py", "zlib.py", "struct.py", "socket.py", "select.py", "argparse.py", "signal.py", "sitecustomize.py",
             "modwsgi_tel/__init__.py", "_bootstrap/__init__.py", "site-packages/modwsgi_tel/__init__.py"]
    with zipfile.ZipFile(pyz) as archive:
        build_id = json.loads(archive.read("environment.json"))["build_id"]
    for stem in ("modwsgi-tel.pyz_", "modwsgi-tel_"):
        names.append(".shiv/%s%s/site-packages/modwsgi_tel/__init__.py" % (stem, build_id))
        names.append(".shiv/%s%s/site-packages/modwsgi_tel/cli.py" % (stem, build_id))
    for name in names:
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(shout)


@pytest.mark.parametrize("home", ["there", "elsewhere", "empty", "unset"])
def test_code_planted_in_the_current_folder_or_in_home_does_not_run(pyz, serve, home, tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
        plant(str(folder), pyz)
    value = {"there": str(here), "elsewhere": str(elsewhere), "empty": "", "unset": None}[home]
    oldest = next(each for each in interpreters.SUPPORTED if each in interpreters.found())
    for python in {interpreters.of(oldest), sys.executable}:        # an empty HOME is "." to 3.9 and "/" to later ones
        collector = serve(program=[python, pyz], cwd=str(here), environment={"HOME": value})
        works(collector)
        assert "PLANTED" not in collector.said()


def test_an_import_path_with_the_current_folder_in_it_is_cleaned(pyz, serve, tmp_path):
    plant(str(tmp_path), pyz)
    (tmp_path / "sitecustomize.py").unlink()    # this one runs before any of our code could
    for path in ("", ":", ".", ".:/usr/no", str(tmp_path)):
        collector = serve(program=[sys.executable, pyz], cwd=str(tmp_path), environment={"PYTHONPATH": path})
        works(collector)
        assert "PLANTED" not in collector.said()


@pytest.mark.parametrize("how", ["overwritten", "exchanged", "shortened", "removed"])
def test_it_goes_on_when_its_file_is_replaced(pyz, serve, how, tmp_path):
    mine = copy(pyz, str(tmp_path))
    collector = serve(program=[sys.executable, mine])
    if how == "overwritten":
        with open(mine, "r+b") as file:
            file.write(b"garbage " * (os.path.getsize(mine) // 8 + 1))
    elif how == "exchanged":
        other = tmp_path / "other"
        other.write_bytes(b"garbage")
        os.replace(str(other), mine)
    elif how == "shortened":
        os.truncate(mine, 0)
    else:
        os.unlink(mine)
    works(collector)


def test_two_copies_run_side_by_side(pyz, serve, tmp_path):
    first = serve(program=[sys.executable, copy(pyz, str(tmp_path), "one.pyz")])
    second = serve(program=[sys.executable, copy(pyz, str(tmp_path), "two.pyz")])
    works(first)
    works(second)


def test_a_link_to_it_and_a_path_with_spaces_work(pyz, serve, tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    mine = copy(pyz, str(folder), "the tool \u03b1.pyz")
    link = tmp_path / "tool"
    link.symlink_to(mine)
    works(serve(program=[sys.executable, mine]))
    works(serve(program=[sys.executable, str(link)]))
    works(serve(program=[sys.executable, "tool"], cwd=str(tmp_path)))


def test_it_works_without_curses_and_sqlite3(pyz, serve, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('curses', '_curses', 'sqlite3', '_sqlite3'):\n    sys.modules[name] = None\n")
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    told = run(sys.executable, "-c", "import sqlite3", environment=environment)
    assert told.returncode == 1                 # it is really gone
    told = run(sys.executable, pyz, "--help", environment=environment)
    assert (told.returncode, told.stderr) == (0, "")
    works(serve(program=[sys.executable, pyz], environment=environment))


def test_nothing_is_written_but_what_it_was_told_to(pyz, serve, tmp_path):
    folders = {name: tmp_path / name for name in ("home", "cwd", "tmp", "xdg", "file")}
    for each in folders.values():
        each.mkdir()
    mine = copy(pyz, str(folders["file"]))
    environment = {"HOME": str(folders["home"]), "TMPDIR": str(folders["tmp"]), "XDG_CACHE_HOME": str(folders["xdg"]),
                   "XDG_CONFIG_HOME": str(folders["xdg"]), "XDG_RUNTIME_DIR": str(folders["xdg"])}
    for argument in ("--help", "--version"):
        assert run(sys.executable, mine, argument, cwd=str(folders["cwd"]), environment=environment).returncode == 0
    collector = serve(program=[sys.executable, mine], cwd=str(folders["cwd"]), environment=environment)
    works(collector)
    left = {name: os.listdir(str(each)) for name, each in folders.items()}
    assert left == {"home": [], "cwd": [], "tmp": [], "xdg": [], "file": ["modwsgi-tel.pyz"]}
    assert os.listdir(collector.folder) == []
