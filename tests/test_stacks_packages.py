"""Which Python a process runs and where its packages come from: as the process itself says, or as far as /proc tells."""

import os

import pytest

import interpreters
import targets
from modwsgi_tel.errors import TelError
from modwsgi_tel.stacks import packages
from modwsgi_tel.stacks.reader import Reader

every = pytest.mark.parametrize("version", interpreters.READ)
PROGRAM = r"""
import json, os, sys, types
folder = os.path.dirname(os.path.abspath(__file__))
site = os.path.join(folder, "site-packages")
for name, text in (("flask/__init__.py", "import flask.app\n__version__ = '3.0.1'"), ("flask/app.py", ""), ("Flask-3.0.2.dist-info/METADATA", ""),
                   ("zz_rest.py", "__version__ = (1, 2)"), ("zz_rest-1.4b2.egg-info", ""), ("psycopg2/__init__.py", "__version__ = '2.9.5 (dt dec)'"),
                   ("psycopg2_binary-2.9.5.dist-info/x", ""), ("rest_framework/__init__.py", ""), ("djangorestframework-3.15.dist-info/x", ""),
                   ("untold.py", ""), ("_hidden.py", ""), ("NOT-A-VERSION.dist-info/x", ""), ("never_loaded-1.0.dist-info/x", "")):
    path = os.path.join(site, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as handle:
        handle.write(text)
sys.path[:0] = [site]
sys.path += [5, None, b"/bytes", "/a/folder/that/is/not/there/dist-packages", "/with a\nnewline"]
import flask, zz_rest, psycopg2, rest_framework, untold, _hidden
TOLD = {"executable": sys.executable, "prefix": sys.prefix, "base_prefix": sys.base_prefix, "site": site,
        "paths": [each for each in sys.path if isinstance(each, str)], "version": "%d.%d" % sys.version_info[:2],
        "site_packages": [each for each in sys.path if isinstance(each, str) and each.endswith(("site-packages", "dist-packages"))],
        "modules": len({id(each.__dict__) for each in sys.modules.values() if isinstance(each, types.ModuleType)})}
"""


def a_row(name, version, installed, file):
    return {"name": name, "version": version, "installed": installed, "file": file}


@every
def test_the_paths_and_packages_of_a_process_are_what_it_says_itself(version):
    with targets.of(version, PROGRAM) as target:
        reader = Reader(target.pid)
        try:
            found = packages.of(reader)
        finally:
            reader.close()
        told = target.told
        site = told["site"]
        mine = [row for row in found["top"] if row["file"].startswith(site)]
        python = found.pop("python")
        assert python == told["version"] or python.startswith(told["version"] + ".")
        assert {**found, "top": mine} == {
            "executable": told["executable"], "prefix": told["prefix"], "base_prefix": told["base_prefix"], "paths": told["paths"],
            "site_packages": told["site_packages"], "modules": told["modules"], "variables": {}, "interpreters": [], "unknown": {},
            "top": [a_row("rest_framework", "3.15", "3.15", site + "/rest_framework/__init__.py"),
                    a_row("flask", "3.0.1", "3.0.2", site + "/flask/__init__.py"),
                    a_row("psycopg2", "2.9.5", "2.9.5", site + "/psycopg2/__init__.py"),
                    a_row("untold", None, None, site + "/untold.py"),
                    a_row("zz_rest", "1.4b2", "1.4b2", site + "/zz_rest.py")]}


def test_where_memory_may_not_be_read_the_environment_and_the_mapped_files_tell(monkeypatch):
    def refused(pid):
        raise TelError("cannot read process %d: it belongs to somebody" % pid)
    with targets.of("3.11", PROGRAM) as target:
        monkeypatch.setattr(packages, "Reader", refused)
        found = packages.of_process(target.pid)
        reason = "cannot read process %d: it belongs to somebody" % target.pid
        assert (found["python"], found["paths"], found["modules"]) == ("3.11", None, None)
        assert found["executable"] == os.path.realpath(target.told["executable"])
        assert found["unknown"] == {"paths": reason, "modules": reason}


def a_proc(folder, maps="", environ=b"", executable="/usr/bin/python3.11", files=()):
    """A made-up /proc with process 7."""
    place = folder / "7"
    for name in files:
        path = place / "root" / name
        path.mkdir(parents=True)
    place.mkdir(exist_ok=True)
    (place / "stat").write_text("7 (a b) (c) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0 0 0 0 0")
    (place / "maps").write_text(maps)
    (place / "environ").write_bytes(environ)
    os.symlink(executable, str(place / "exe"))
    return str(folder)


def test_what_proc_alone_tells(tmp_path):
    maps = "".join("7f%010x-7f%010x r-xp 00000000 00:00 1  %s\n" % (index << 12, index + 1 << 12, path) for index, path in enumerate((
        "/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", "/srv/venv/lib/python3.11/site-packages/psycopg2/_psycopg.cpython-311-x86_64-linux-gnu.so",
        "/srv/venv/lib/python3.11/site-packages/yaml/_yaml.so", "/usr/lib/python3/dist-packages/odd name/x.so",
        "/srv/venv/lib/python3.11/site-packages/alone.abi3.so", "/usr/lib/libc.so.6", "[heap]")))
    root = a_proc(tmp_path, maps, b"VIRTUAL_ENV=/srv/venv\0SECRET_KEY=x\0PYTHONPATH=/srv/app:/b\0broken", "/usr/sbin/apache2",
                  ["srv/venv/lib/python3.11/site-packages/PyYAML-6.0.1.dist-info", "srv/venv/lib/python3.11/site-packages/psycopg2-2.9.9-py3.11.egg-info"])
    assert packages.from_proc(7, "its memory is closed", root) == {
        "python": "3.11", "executable": "/usr/sbin/apache2", "prefix": "/srv/venv", "base_prefix": None, "paths": None,
        "site_packages": ["/srv/venv/lib/python3.11/site-packages", "/usr/lib/python3/dist-packages"], "modules": None,
        "variables": {"VIRTUAL_ENV": "/srv/venv", "PYTHONPATH": "/srv/app:/b"}, "interpreters": [],
        "top": [a_row("psycopg2", "2.9.9", "2.9.9", "/srv/venv/lib/python3.11/site-packages/psycopg2/_psycopg.cpython-311-x86_64-linux-gnu.so"),
                a_row("alone", None, None, "/srv/venv/lib/python3.11/site-packages/alone.abi3.so"),
                a_row("yaml", "6.0.1", "6.0.1", "/srv/venv/lib/python3.11/site-packages/yaml/_yaml.so")],
        "unknown": {"paths": "its memory is closed", "modules": "its memory is closed"}}


def test_a_version_is_known_by_the_program_where_no_library_is_mapped(tmp_path):
    assert packages.from_proc(7, "closed", a_proc(tmp_path))["python"] == "3.11"


def test_what_is_no_python_says_so(tmp_path):
    found = packages.from_proc(7, "no Python is in it", a_proc(tmp_path, executable="/usr/bin/sleep"))
    assert found["python"] is None and found["unknown"]["python"] == "no Python is in it"


def test_a_part_that_may_not_be_read_says_why_and_the_rest_goes_on(tmp_path):
    root = a_proc(tmp_path, environ=b"PYTHONHOME=/opt/python")
    os.remove(os.path.join(root, "7", "maps"))
    os.mkdir(os.path.join(root, "7", "maps"))
    found = packages.from_proc(7, "closed", root)
    assert found["prefix"] == "/opt/python" and sorted(found["unknown"]) == ["modules", "paths", "site_packages"]


def test_no_such_process_is_one_line():
    with pytest.raises(TelError) as raised:
        packages.of_process(1 << 22)
    assert str(raised.value).startswith("there is no process %d" % (1 << 22))


def test_a_sys_path_that_is_none_is_unknown_and_the_modules_are_told():
    with targets.of("3.11", PROGRAM + "\nsys.path = 5\n") as target:
        reader = Reader(target.pid)
        try:
            found = packages.of(reader)
        finally:
            reader.close()
        assert found["unknown"] == {"paths": "sys.path of interpreter 0 cannot be read: sys.path is no list"}
        assert found["modules"] == target.told["modules"] and "flask" in [row["name"] for row in found["top"]]
