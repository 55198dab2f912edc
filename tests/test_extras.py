"""extras: what lies in the program for the tools around it, and how it comes out."""
import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import sys

import pytest

import interpreters
import running
from modwsgi_tel import docgen, resources
from modwsgi_tel.check.checks import CHECKS
from modwsgi_tel.errors import TelError, UsageError
from modwsgi_tel.extras import command
from modwsgi_tel.extras.table import EXTRAS, PROGRAM_MARK, named
from modwsgi_tel.options import options_of, read

STATIC = os.path.join(running.ROOT, "modwsgi_tel", "extras", "static")
NOBODY = 65534


def extras(*words):
    return command.extras(read("extras", list(words), {}))


def files(folder):
    """{name: text} of all below a folder."""
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            with open(path, encoding="utf-8") as handle:
                found[os.path.relpath(path, folder)] = handle.read()
    return found


def run(*words, **more):
    return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60,
                          **{"env": running.clean_environment(), **more})


# --- the table ------------------------------------------------------------------------------------

def test_the_table_names_every_file_and_no_other():
    kept = [name for name in files(STATIC) if not name.split("/")[-1].startswith(".")]
    assert sorted(extra.name for extra in EXTRAS) == sorted(kept)
    assert len({extra.name for extra in EXTRAS}) == len(EXTRAS)


def test_every_file_has_a_place_and_says_in_one_line_what_to_do():
    places = [extra.place for extra in EXTRAS if extra.place]
    assert len(places) == len(set(places))
    for extra in EXTRAS:
        assert re.fullmatch(r"|/[a-zA-Z0-9_@./+-]+", extra.place), extra
        assert extra.summary and len(extra.name) + len(extra.summary) < 110 and "\n" not in extra.activate and extra.activate
        assert not extra.summary.endswith(".")


def test_nothing_in_the_files_tells_of_the_machine_that_they_were_made_on():
    for name, text in files(STATIC).items():
        assert re.findall(r"/(?:work|root|opt|tmp/w)/\S*|pypi\.\S+", text) == [], name
        assert text.endswith("\n") and "\r" not in text and "\t\n" not in text, name


def test_the_generated_files_are_as_the_tables_say():
    made = [f"modwsgi_tel/extras/static/{name}" for name in docgen.EXTRAS_MADE]
    assert len(made) > 5 and [path for path in docgen.stale(running.ROOT) if path in made] == [], "run python3 -m modwsgi_tel.docgen"


def test_a_name_means_a_file_or_all_of_a_kind():
    assert [extra.name for extra in named("prometheus/alerts.yml")] == ["prometheus/alerts.yml"]
    assert named("completion") == named("completion/") == [extra for extra in EXTRAS if extra.name.startswith("completion/")] != []
    assert named("complet") == named("") == named("/") == []


# --- listing and printing ---------------------------------------------------------------------------

def test_without_a_name_all_are_listed_with_what_they_are_and_where_they_go(capsys):
    assert extras() == 0
    lines = capsys.readouterr().out.splitlines()
    for extra in EXTRAS:
        [place] = [place for place, line in enumerate(lines) if line.split()[:1] == [extra.name]]
        assert lines[place].endswith(extra.summary)
        assert not extra.place or lines[place + 1].strip() == extra.place
    assert [line for line in lines if len(line) > 130] == []


def test_a_kind_is_listed_and_several_files_are_not_printed(capsys):
    assert extras("nagios/", "cron") == 0
    out = capsys.readouterr().out
    assert "nagios/modwsgi-tel.cfg" in out and "cron/modwsgi-tel" in out and "prometheus" not in out
    with pytest.raises(UsageError, match="--output"):
        extras("prometheus/alerts.yml", "prometheus/recording.yml")


def test_a_file_is_printed_as_it_is(capsys):
    assert extras("prometheus/alerts.yml") == 0
    with open(os.path.join(STATIC, "prometheus", "alerts.yml"), encoding="utf-8") as handle:
        assert capsys.readouterr() == (handle.read(), "")


def test_the_path_of_the_program_is_filled_in_and_said(capsys):
    assert extras("cron/modwsgi-tel", "--program", "/opt/tel/modwsgi-tel.pyz") == 0
    out, err = capsys.readouterr()
    assert " /opt/tel/modwsgi-tel.pyz dump " in out and PROGRAM_MARK not in out
    assert err == "modwsgi-tel: cron/modwsgi-tel: the program is /opt/tel/modwsgi-tel.pyz (by --program)\n"
    extras("cron/modwsgi-tel")
    out, err = capsys.readouterr()
    assert " /usr/local/bin/modwsgi-tel.pyz dump " in out and "(by default; --program names another)" in err


@pytest.mark.parametrize("program", ["modwsgi-tel.pyz", "/opt/a b.pyz", "/opt/x;reboot", "/opt/$(id)", "/opt/x\nExecStart=/bin/sh", "/opt/50%.pyz", "", "/"])
def test_a_path_that_would_mean_something_else_in_a_unit_is_refused(program):
    if program == "":
        values = read("extras", [], {})
        values["program"] = ""
    else:
        values = read("extras", ["--program", program], {})
    with pytest.raises(UsageError, match="--program"):
        command.extras(values)


@pytest.mark.parametrize("name, near", [("alerts", "prometheus/alerts.yml"), ("promtheus/alert.yml", "prometheus/alerts.yml"),
                                        ("zsh", "prometheus"), ("../command.py", "completion"), ("", "nagios"), ("/etc/passwd", "extras lists all"),
                                        ("prometheus/nope.yml", "prometheus/scrape.yml")])
def test_an_unknown_name_is_answered_with_those_that_are_near(name, near):
    with pytest.raises(UsageError) as refused:
        extras(name)
    assert near in str(refused.value) and "\n" not in str(refused.value)


def test_json_lists_the_same(capsys):
    assert extras("--json", "cron", "--program", "/srv/tel.pyz") == 0
    told = json.loads(capsys.readouterr().out)
    [extra] = named("cron")
    assert told["program"] == "/srv/tel.pyz"
    assert told["extras"] == [{**extra._asdict(), "bytes": len(command.content(extra, "/srv/tel.pyz").encode())}]


# --- writing ----------------------------------------------------------------------------------------

def test_all_are_written_below_a_folder(tmp_path, capsys):
    assert extras("--output", str(tmp_path / "new" / "extras"), "--program", "/srv/tel.pyz") == 0
    assert files(tmp_path / "new" / "extras") == {extra.name: command.content(extra, "/srv/tel.pyz") for extra in EXTRAS}
    out = capsys.readouterr().out
    path = tmp_path / "new" / "extras" / "prometheus" / "alerts.yml"
    assert f"wrote {path}\n    install -D -m 644 {path} /etc/prometheus/rules/modwsgi-tel-alerts.yml\n    systemctl reload prometheus\n" in out
    assert out.endswith("\nIn these the program is /srv/tel.pyz (by --program).\n") and PROGRAM_MARK not in out


def test_some_are_written_and_what_is_there_already_stays(tmp_path, capsys):
    assert extras("--output", str(tmp_path), "completion", "prometheus/scrape.yml") == 0
    assert sorted(files(tmp_path)) == sorted([extra.name for extra in named("completion")] + ["prometheus/scrape.yml"])
    path = tmp_path / "prometheus" / "scrape.yml"
    before = os.stat(path)
    capsys.readouterr()
    assert extras("--output", str(tmp_path), "prometheus/scrape.yml") == 0
    assert capsys.readouterr().out.startswith(f"is there already: {path}\n") and os.stat(path) == before


def test_a_file_that_differs_is_never_written_over_but_by_force_and_then_nothing_is_written(tmp_path, capsys):
    (tmp_path / "prometheus").mkdir()
    own = tmp_path / "prometheus" / "scrape.yml"
    own.write_text("my own\n")
    with pytest.raises(TelError, match=re.escape(f"{own} differs from what would be written: nothing was written; --force")):
        extras("--output", str(tmp_path))
    assert files(tmp_path) == {"prometheus/scrape.yml": "my own\n"}
    capsys.readouterr()
    assert extras("--output", str(tmp_path), "--force", "--json") == 0
    states = {each["name"]: each["state"] for each in json.loads(capsys.readouterr().out)["written"]}
    assert states.pop("prometheus/scrape.yml") == "differs" and set(states.values()) == {"new"}
    assert len(files(tmp_path)) == len(EXTRAS)
    with pytest.raises(UsageError, match="--output"):
        extras("--force")


@pytest.mark.parametrize("how", ["link", "folder", "fifo", "linked folder", "no folder"])
def test_what_is_no_file_is_left_alone(how, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "modwsgi-tel").write_text("mine\n")
    out = tmp_path / "out"
    (out / "cron").mkdir(parents=True)
    path = out / "cron" / "modwsgi-tel"
    if how == "link":
        path.symlink_to(victim / "modwsgi-tel")
    elif how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "linked folder":
        (out / "cron").rmdir()
        (out / "cron").symlink_to(victim)
    else:
        out = victim / "modwsgi-tel"
    for force in ((), ("--force",)):
        with pytest.raises(TelError, match="--output"):
            extras("--output", str(out), "cron", *force)
    assert (victim / "modwsgi-tel").read_text() == "mine\n" and os.listdir(victim) == ["modwsgi-tel"]


# --- from the .pyz -----------------------------------------------------------------------------------

def test_a_resource_that_is_not_there_is_an_oserror():
    assert resources.read("modwsgi_tel.extras", "static/cron/modwsgi-tel").startswith(b"#")
    with pytest.raises(OSError):
        resources.read("modwsgi_tel.extras", "static/none")


@pytest.mark.pyz
@pytest.mark.parametrize("release", ["3.9", "3.13", "of an ordinary user"])
def test_all_comes_out_of_the_pyz_alone(pyz, sources, release):
    kept = files(os.path.join(sources, "modwsgi_tel", "extras", "static"))
    who = {}
    if release[0] == "3":
        python = interpreters.of(release)
    elif os.geteuid():
        pytest.skip("changes to another user: needs root")
    else:
        python, who = interpreters.for_user(NOBODY), dict(user=NOBODY, group=NOBODY, extra_groups=[])
    with running.short_folder(0o777) as folder:
        done = run(python, "-I", "-S", pyz, "extras", "--output", folder + "/all", cwd="/", **who)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert files(folder + "/all") == {name: text.replace(PROGRAM_MARK, os.path.realpath(pyz)) for name, text in kept.items()}
        assert f"In these the program is {os.path.realpath(pyz)} (this one; --program names another), where a service may not see it" in done.stdout
        done = run(python, pyz, "extras", "completion/modwsgi-tel.bash", cwd="/", **who)
        assert done.stdout == kept["completion/modwsgi-tel.bash"]
        done = run(python, pyz, "extras", "alerts", cwd="/", **who)
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1


@pytest.mark.pyz
def test_the_archive_can_be_asked_as_a_library_too(pyz, sources):
    code = "from modwsgi_tel import resources; print(len(resources.read('modwsgi_tel.extras', 'static/cron/modwsgi-tel')))"
    done = run(sys.executable, "-c", code, cwd="/", env=running.clean_environment(PYTHONPATH=pyz + "/site-packages"))
    assert done.stdout == f"{os.path.getsize(os.path.join(sources, 'modwsgi_tel/extras/static/cron/modwsgi-tel'))}\n", done.stderr


# --- what the other tools say -------------------------------------------------------------------------

# What a Nagios has before ours: what Debian's templates define, in short.
NAGIOS = """
define timeperiod {\n timeperiod_name always\n alias always\n monday 00:00-24:00\n}
define command {\n command_name none\n command_line /bin/true\n}
define contact {\n contact_name me\n service_notification_commands none\n host_notification_commands none
 service_notification_period always\n host_notification_period always\n}
define host {\n host_name localhost\n address 127.0.0.1\n max_check_attempts 3\n check_period always\n notification_period always
 contacts me\n check_command none\n}
define service {\n name generic-service\n check_period always\n notification_period always\n contacts me\n register 0\n}
"""


def test_nagios_finds_no_fault_in_its_configuration():
    if not shutil.which("nagios4"):
        pytest.skip("no nagios4 (apt-get install nagios4-core)")
    [extra] = named("nagios")
    with running.short_folder(0o777) as folder:         # it reads them as a user of its own
        kept = {"ours.cfg": command.content(extra, "/usr/local/bin/modwsgi-tel.pyz"), "theirs.cfg": NAGIOS,
                "nagios.cfg": f"cfg_file={folder}/theirs.cfg\ncfg_file={folder}/ours.cfg\nlog_file={folder}/log\ncheck_result_path={folder}\n"
                              "illegal_macro_output_chars=`~$&|'\"<>\n"}
        for name, text in kept.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as handle:
                handle.write(text)
        done = run("nagios4", "-v", folder + "/nagios.cfg")
    assert done.returncode == 0 and "Checked 7 services" in done.stdout and "Total Warnings: 0" in done.stdout, done.stdout


ICINGA = """\
include <itl>
object Endpoint NodeName {}
object Zone "master" { endpoints = [ NodeName ] }
object Host "web1" { check_command = "dummy", address = "127.0.0.1", vars.modwsgi_tel = true }
object Host "web2" { check_command = "dummy", address = "127.0.0.1" }
include "%s"
"""


def test_icinga_makes_a_service_of_each_check_for_the_hosts_that_want_it():
    if not shutil.which("icinga2"):
        pytest.skip("no icinga2 (apt-get install icinga2-bin icinga2-common)")
    [extra] = named("icinga2")
    text = command.content(extra, "/usr/local/bin/modwsgi-tel.pyz")
    with running.short_folder(0o777) as folder:
        for name, content in (("ours.conf", text), ("icinga2.conf", ICINGA % (folder + "/ours.conf"))):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as handle:
                handle.write(content)
        user = [f"-DRunAsUser={pwd.getpwuid(os.geteuid()).pw_name}", f"-DRunAsGroup={grp.getgrgid(os.getegid()).gr_name}"]
        done = run("icinga2", "daemon", "-C", "-c", folder + "/icinga2.conf", *user,
                   *(f"-D{name}Dir={folder}" for name in ("Cache", "Data", "Log", "InitRun")))
    assert done.returncode == 0 and "Instantiated 7 Services." in done.stdout, done.stdout
    flags = set(re.findall(r'"(--[\w-]+)" =', text))
    assert flags and flags <= {"--" + option.name for option in options_of("check")}
    assert re.search(r"for \(what in \[ (.*?) \]", text).group(1) == ", ".join(f'"{check.name}"' for check in CHECKS)


def test_the_lines_in_nagios_and_cron_are_taken_as_they_stand():
    for extra in named("nagios") + named("cron"):
        text = command.content(extra, "/srv/tel.pyz")
        lines = re.findall(r"/srv/tel\.pyz (.*)", text)
        assert lines
        for line in lines:
            which, *words = line.replace("\\%", "%").replace("$ARG1$", "").replace("$HOSTADDRESS$", "web1").split()
            read(which, words, {})
    [extra] = named("nagios")
    asked = re.findall(r"check_command\s+modwsgi_tel!(.*)", command.raw(extra))
    from modwsgi_tel.check.checks import BY_NAME
    assert [line.split()[0] for line in asked] == list(BY_NAME)
    for line in asked:
        read("check", line.split(), {})


def test_logrotate_finds_no_fault_in_its_configuration(tmp_path):
    if not shutil.which("logrotate"):
        pytest.skip("no logrotate (apt-get install logrotate)")
    [extra] = named("logrotate")
    text = command.raw(extra).replace("/var/log/modwsgi-tel/", f"{tmp_path}/").replace("create 0640 modwsgi-tel modwsgi-tel", "create 0640")
    (tmp_path / "conf").write_text(text)
    (tmp_path / "conf").chmod(0o644)
    (tmp_path / "collector.log").write_text("a line\n")
    done = run("logrotate", "--force", "--state", str(tmp_path / "state"), str(tmp_path / "conf"), cwd=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "collector.log.1").read_text() == "a line\n" and (tmp_path / "collector.log").read_text() == ""
