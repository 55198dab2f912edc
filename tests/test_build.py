"""build.sh: the same bytes from the same sources, whatever is around them; and clear words when it cannot."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import zipfile

import pytest

import interpreters
import running
from modwsgi_tel.__main__ import Archive, without_strange_folders

def build(folder, *arguments, **environment):
    environment = running.clean_environment(**environment)
    return subprocess.run(["bash", os.path.join(folder, "build.sh"), *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd="/", timeout=300,
                          universal_newlines=True, umask=environment.pop("UMASK", 0o022))


def content(path):
    with open(path, "rb") as file:
        return file.read()


def the_other_pythons():
    """The oldest and the newest supported Python here, if they are not the one that runs this."""
    versions = [each for each in interpreters.SUPPORTED if each in interpreters.found()]
    ours = "%d.%d" % sys.version_info[:2]
    return [interpreters.found()[each][0] for each in dict.fromkeys((versions[0], versions[-1])) if each != ours]


def test_the_same_sources_give_the_same_bytes_from_any_folder_umask_time_locale_and_python(pyz, sources):
    with running.short_folder() as base:
        strange = running.copy_of_the_sources(sources, os.path.join(base, "a b", "\u03b1"))
        for folder, _, names in os.walk(strange):
            for name in names:
                path = os.path.join(folder, name)
                os.chmod(path, 0o700 if name == "build.sh" else 0o640)
                os.utime(path, (1000000000, 2000000000))
        os.mkdir(os.path.join(strange, "modwsgi_tel", "__pycache__"))
        for dropping in (".cli.py.swp", "cli.py~", "cli.pyc", "__pycache__/cli.cpython-311.pyc", "notes.txt"):
            with open(os.path.join(strange, "modwsgi_tel", dropping), "w") as file:
                file.write("not for the archive")
        done = build(strange, UMASK=0o077, TZ="Asia/Kathmandu", LC_ALL="C", SOURCE_DATE_EPOCH="1700000000",
                     PYTHON=sys.executable)
        assert done.returncode == 0, done.stderr
        assert content(os.path.join(strange, "dist", "modwsgi-tel.pyz")) == content(pyz)

        for number, python in enumerate(the_other_pythons()):
            plain = running.copy_of_the_sources(sources, os.path.join(base, str(number)))
            done = build(plain, PYTHON=python)
            assert done.returncode == 0, done.stderr
            assert content(os.path.join(plain, "dist", "modwsgi-tel.pyz")) == content(pyz), python


def test_a_changed_source_gives_other_bytes(pyz, sources):
    with running.short_folder() as base:
        changed = running.copy_of_the_sources(sources, os.path.join(base, "x"))
        with open(os.path.join(changed, "modwsgi_tel", "errors.py"), "a") as file:
            file.write("\n")
        assert build(changed, PYTHON=sys.executable).returncode == 0
        assert content(os.path.join(changed, "dist", "modwsgi-tel.pyz")) != content(pyz)


def test_the_checksum_beside_it_verifies_and_the_file_may_be_executed_by_all(pyz):
    folder = os.path.dirname(pyz)
    assert sorted(os.listdir(folder)) == ["modwsgi-tel.pyz", "modwsgi-tel.pyz.sha256"]
    assert content(pyz + ".sha256").decode() == "%s  modwsgi-tel.pyz\n" % hashlib.sha256(content(pyz)).hexdigest()
    subprocess.run(["sha256sum", "-c", "--status", "modwsgi-tel.pyz.sha256"], cwd=folder, check=True, timeout=20)
    assert os.stat(pyz).st_mode & 0o777 == 0o755


def test_the_archive_has_shivs_layout_and_entry_point_our_start_up_and_exactly_the_package(pyz, sources):
    package = os.path.join(sources, "modwsgi_tel")
    wanted = set()
    for folder, _, names in os.walk(package):
        inside = os.path.relpath(folder, sources)
        if "__pycache__" not in inside:
            wanted |= {os.path.join("site-packages", inside, name) for name in names
                       if name.endswith(".py") or name == "py.typed" or "static" in inside.split(os.sep)}
    with zipfile.ZipFile(pyz) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        assert json.loads(archive.read("environment.json"))["entry_point"] == "modwsgi_tel.cli:main"
        assert archive.read("__main__.py") == content(os.path.join(package, "__main__.py"))
        assert {(each.date_time, each.external_attr, each.compress_type) for each in archive.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 0o100644 << 16, zipfile.ZIP_STORED)}
    assert names == sorted(names)
    assert {each for each in names if each.startswith("site-packages/")} == wanted
    assert "_bootstrap/__init__.py" in names
    assert content(pyz).startswith(b"#!/usr/bin/env python3\nPK")


def test_the_start_up_reads_the_archive_as_zipfile_does(pyz):
    archive = Archive(pyz, content(pyz))
    with zipfile.ZipFile(pyz) as reference:
        inside = {each: reference.read(each) for each in reference.namelist() if each.startswith("site-packages/")}
    assert {"site-packages/" + each: archive.data[span] for each, span in archive.spans.items()} == inside
    name = "site-packages/modwsgi_tel/errors.py"
    assert archive.get_data(pyz + "/" + name) == inside[name]
    assert archive.get_source("modwsgi_tel.errors").encode() == inside[name]
    assert archive.find_spec("modwsgi_tel.wire").submodule_search_locations == [pyz + "/site-packages/modwsgi_tel/wire"]
    assert archive.find_spec("modwsgi_tel.no_such") is None
    assert archive.find_spec("json") is None
    for path in (pyz, pyz + "/environment.json", pyz + "/site-packages/../environment.json", "/etc/passwd", "x"):
        with pytest.raises(OSError):
            archive.get_data(path)


def test_any_damage_to_the_archive_is_a_value_error_or_is_not_in_its_directory(pyz):
    """Invariant: whatever the bytes, Archive() returns or raises ValueError."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    whole = content(pyz)
    with pytest.raises(ValueError):
        Archive(pyz, b"")
    with pytest.raises(ValueError):
        Archive(pyz, whole[:len(whole) // 2])
    directory = whole.find(b"PK\1\2")
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            damaged[dice.randrange(directory, len(whole))] = dice.randrange(256)
        try:
            Archive(pyz, bytes(damaged[:dice.choice((None, dice.randrange(len(whole))))]))
        except ValueError:
            pass


def test_the_import_path_keeps_only_absolute_folders_that_are_not_the_current_one():
    before = ["/x.pyz", "", ".", "lib", "/tmp/here", "/tmp/here/", "/usr/lib/python3.11", "/srv/added"]
    after = without_strange_folders(before, "/x.pyz", "/tmp/here", ("/usr",))
    assert after == ["/usr/lib/python3.11", "/srv/added"]
    inside = without_strange_folders(before, "/x.pyz", "/usr/lib/python3.11", ("/usr",))
    assert "/usr/lib/python3.11" in inside          # standing in the standard library must not take it away
    assert without_strange_folders(["", "/a"], "/x.pyz", "", ()) == ["/a"]


def a_python_that(folder, script):
    path = os.path.join(folder, "python3")
    with open(path, "w") as file:
        file.write("#!/bin/sh\n%s\nexec '%s' -S \"$@\"\n" % (script, sys.executable))
    os.chmod(path, 0o755)
    return path


def only_line(done):
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_without_ensurepip_it_says_what_to_install(sources):
    with running.short_folder() as base:
        mine = running.copy_of_the_sources(sources, os.path.join(base, "x"))
        python = a_python_that(base, 'case "$*" in "-m venv "*) mkdir -p "$3"; echo "not created successfully because '
                                     'ensurepip is not available."; exit 1;; esac')
        done = build(mine, PYTHON=python)
        assert only_line(done) == ("build.sh: %s cannot make a virtual environment: apt-get install python3-venv" % python)
        assert sorted(os.listdir(mine)) == sorted(running.SOURCES)      # nothing half-made stays


def test_a_python_too_old_or_missing_is_named():
    assert only_line(build(running.ROOT, PYTHON="/no/such/python")).startswith("build.sh: no /no/such/python here")
    old = interpreters.of("2.7")
    assert only_line(build(running.ROOT, PYTHON=old)).startswith(
        "build.sh: needs Python 3.9 or newer, %s is: 2.7" % old)


def test_run_builds_once_and_shows_live_data_within_seconds(pyz, sources):
    with running.short_folder() as base, tempfile.TemporaryFile() as said:
        mine = running.copy_of_the_sources(sources, os.path.join(base, "x"))
        built = os.path.join(mine, "dist", "modwsgi-tel.pyz")
        for again in (False, True):
            if again:
                first = os.stat(built).st_mtime_ns
            said.seek(0)
            said.truncate()
            process = subprocess.Popen(["bash", os.path.join(mine, "build.sh"), "run", "--http-port", "0"], cwd="/",
                                       stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                       env=running.clean_environment(PYTHON=sys.executable))
            try:
                def url():
                    assert process.poll() is None, os.pread(said.fileno(), 1 << 16, 0)
                    return re.search(rb"http://127\.0\.0\.1:(\d+)/", os.pread(said.fileno(), 1 << 16, 0))

                def requests():
                    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                    with contextlib.closing(client):
                        client.request("GET", "/api/summary")
                        return json.loads(client.getresponse().read())["totals"]["counters"]["requests"]

                port = int(running.wait_until(url, 60, "no URL").group(1))
                running.wait_until(requests, 10, "no requests of the simulated fleet", pause=0.1)
                process.terminate()
                assert process.wait(10) == 0
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait(10)
        assert content(built) == content(pyz)
        assert os.stat(built).st_mtime_ns == first                 # the second time there was nothing to build


def test_an_unknown_command_is_refused_and_help_is_given():
    done = build(running.ROOT, "nonsense")
    assert done.returncode == 2 and "no command nonsense" in done.stderr and "usage:" in done.stderr
    done = build(running.ROOT, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: ./build.sh") and done.stderr == ""
