"""The Pythons on this machine, found when the tests start: on PATH by name, and in the user's pyenv.

A name on PATH counts only when it runs: version managers leave stubs there that do not.
"""

import functools
import glob
import importlib
import os
import shutil
import subprocess
import sys

SUPPORTED = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
TOO_OLD = ("2.7", "3.6", "3.7", "3.8")
# Whose stacks are read; those that are not found here are looked for in a root of their own
READ = ("3.8",) + SUPPORTED + ("3.15",)
CHROOT = os.environ.get("MODWSGI_TEL_TEST_CHROOT")


@functools.lru_cache(maxsize=None)
def found():
    """{"3.11": [path, ...]}: real interpreters, each once; none from a virtual environment."""
    names = ["python" + version for version in TOO_OLD + SUPPORTED] + ["python3"]
    candidates = [shutil.which(name, path=folder) for name in names for folder in os.get_exec_path()]
    candidates += sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python")))
    candidates.append(sys.executable)
    versions, seen = {}, set()
    for each in filter(None, candidates):
        try:
            told = subprocess.run([each, "-c", "import sys; print('%d.%d' % sys.version_info[:2]);"
                                   "print(getattr(sys, '_base_executable', None) or sys.executable)"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  timeout=20, universal_newlines=True)
        except (OSError, subprocess.TimeoutExpired):
            continue
        lines = told.stdout.splitlines()
        if told.returncode or len(lines) != 2:
            continue
        path = os.path.realpath(lines[1])
        if path not in seen:
            seen.add(path)
            versions.setdefault(lines[0], []).append(path)
    return versions


def of(version):
    """The first interpreter of a version; skips the test, by name, where there is none."""
    import pytest
    if version not in found():
        pytest.skip("no Python %s on this machine" % version)
    return found()[version][0]


def in_chroot(name):
    """The command that runs a program of that name in CHROOT; skips the test, by name, where that cannot be."""
    import pytest
    if not CHROOT:
        pytest.skip("no %s on this machine: MODWSGI_TEL_TEST_CHROOT names no root that has one" % name)
    if os.geteuid():
        pytest.skip("%s is in a root of its own, and this is not root" % name)
    if not os.path.exists(os.path.join(CHROOT, "usr/bin", name)):
        pytest.skip("no %s in %s" % (name, CHROOT))
    return ["chroot", CHROOT, name]


def to_read(version):
    """(command, root) of an interpreter of a version of READ, in that root; skips the test, by name, where there is none."""
    if version in found():
        return [found()[version][0]], "/"
    return in_chroot("python" + version), CHROOT


def for_user(uid):
    """A supported interpreter that an ordinary user can start (one in root's home is not)."""
    import pytest
    for version in SUPPORTED:
        for path in found().get(version, ()):
            try:
                subprocess.run([path, "-I", "-S", "-c", ""], user=uid, group=uid, extra_groups=[], cwd="/",
                               stdin=subprocess.DEVNULL, check=True, timeout=20)
            except (OSError, subprocess.SubprocessError):
                continue
            return path
    pytest.skip("no Python here that uid %d may start" % uid)


def installed(name):
    """A module that Debian has as a package, for its own Python; that of an environment made of it does not see it by itself.

    Skips the test where it is missing.
    """
    import pytest                       # a benchmark that looks for Pythons has none
    folder = "/usr/lib/python3/dist-packages"
    if sys.base_prefix == "/usr" and folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip("no %s for this Python (apt-get install python3-%s)" % (name, name.partition(".")[0]))
