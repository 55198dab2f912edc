"""SELinux and AppArmor: what extras has for them compiles.  Nothing here has met a host that enforces it."""
import os
import shutil
import subprocess

import pytest

import running
from modwsgi_tel.extras.command import content
from modwsgi_tel.extras.table import EXTRAS, named

PROGRAM = "/opt/tools/modwsgi-tel.pyz"
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def tool(name, package):
    return shutil.which(name, path=PATH) or pytest.skip(f"no {name} (apt-get install {package})")


def written(name, folder):
    extra, = named(name)
    path = os.path.join(folder, os.path.basename(name))
    with open(path, "w") as file:
        file.write(content(extra, PROGRAM))
    return path


def run(*command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, universal_newlines=True, **more)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_selinux_module_compiles_as_its_own_comment_says():
    for name, package in (("checkmodule", "checkpolicy"), ("semodule_package", "semodule-utils")):
        tool(name, package)
    with running.short_folder() as folder:
        te = written("selinux/modwsgi_tel.te", folder)
        written("selinux/modwsgi_tel.fc", folder)
        with open(te) as file:
            told = [line[1:].strip() for line in file if line.startswith(("#   checkmodule", "#   semodule_package"))]
        assert len(told) == 2
        for command in told:
            run(*command.split(), cwd=folder, env=running.clean_environment(PATH=PATH))
        with open(folder + "/modwsgi_tel.pp", "rb") as file:
            package = file.read()
        assert b"modwsgi_tel_var_run_t" in package and b"/run/modwsgi-tel(/.*)?" in package and PROGRAM.encode() in package
        if shutil.which("semodule_unpackage", path=PATH):
            run("semodule_unpackage", "modwsgi_tel.pp", "m", "f", cwd=folder, env=running.clean_environment(PATH=PATH))
            with open(folder + "/f") as file:
                assert [line.split()[0] for line in file if line.strip()] == [PROGRAM, "/run/modwsgi-tel(/.*)?", "/var/run/modwsgi-tel(/.*)?"]


@pytest.mark.parametrize("name, around", [("apparmor/modwsgi-tel", "{}"), ("apparmor/apache2", "profile apache2 /usr/sbin/apache2 {{\n{}\n}}\n")])
def test_the_apparmor_profiles_parse(name, around):
    parser = tool("apparmor_parser", "apparmor")
    with running.short_folder() as folder:
        path = written(name, folder)
        with open(path) as file:
            text = around.format(file.read())
        with open(path, "w") as file:
            file.write(text)
        run(parser, "--skip-kernel-load", "--skip-cache", "--abort-on-error", path)


def test_what_was_never_enforced_says_so_and_forbids_nothing_of_the_collectors_own():
    rows = [extra for extra in EXTRAS if extra.name.startswith(("selinux/modwsgi_tel.te", "apparmor/"))]
    assert len(rows) == 3
    assert all("NOT TRIED ON AN ENFORCING HOST" in content(extra, PROGRAM) and "not tried on an enforcing host" in extra.summary for extra in rows)
    profile, = named("apparmor/modwsgi-tel")
    module, = named("selinux/modwsgi_tel.te")
    assert "flags=(complain" in content(profile, PROGRAM) and "\npermissive modwsgi_tel_t;\n" in content(module, PROGRAM)
