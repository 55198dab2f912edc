"""What is written for people says what the program does: man pages, README, the map of the code."""
import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import running
from modwsgi_tel import agent, docgen
from modwsgi_tel.agent.settings import PREFIX as AGENT_PREFIX
from modwsgi_tel.agent.settings import SETTINGS
from modwsgi_tel.extras.table import EXTRAS
from modwsgi_tel.openmetrics.table import HISTOGRAM, METRICS, series_of
from modwsgi_tel.options import BY_COMMAND, COMMANDS, EXIT_STATUS, OPTIONS, PROGRAM, options_of, read, variable
from modwsgi_tel.web.routes import ROUTES
from modwsgi_tel.wire.fields import FIELDS, KINDS

PAGES = ("man/modwsgi-tel.1", "man/modwsgi-tel-records.5", "man/modwsgi-tel-agent.7", "man/modwsgi-tel-metrics.5")
WRITTEN = (*PAGES, "README.md", "CHANGELOG.md", "LICENSE", "modwsgi_tel/README.md", "modwsgi_tel/docgen.py", "bench/run")
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAM_WORDS = ("python3 -m modwsgi_tel", "modwsgi-tel.pyz", "modwsgi-tel")


def content(path):
    with open(os.path.join(running.ROOT, path), encoding="utf-8") as handle:
        return handle.read()


def plain(page):
    """A man page's source without its escapes, so that words can be looked for."""
    return page.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")


def needs_mandoc():
    if not shutil.which("mandoc"):
        pytest.skip("no mandoc (apt-get install mandoc)")


# --- generated ----------------------------------------------------------------------------------

def test_what_is_checked_in_is_what_the_tables_make():
    assert docgen.stale(running.ROOT) == [], "run python3 -m modwsgi_tel.docgen"


def test_check_names_what_differs_and_writes_nothing_and_a_run_mends_it(tmp_path, capsys):
    for path in docgen.documents(running.ROOT):
        os.makedirs(os.path.dirname(tmp_path / path), exist_ok=True)
        shutil.copy(os.path.join(running.ROOT, path), tmp_path / path)
    assert docgen.main(["--check"], str(tmp_path)) == 0
    spoiled = content("README.md").replace("| `serve` | ", "| `serve` | by hand: ")
    (tmp_path / "README.md").write_text(spoiled, encoding="utf-8")
    os.unlink(tmp_path / PAGES[0])
    capsys.readouterr()
    assert docgen.main(["--check"], str(tmp_path)) == 1
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == [PAGES[0], "README.md"]
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == spoiled and not (tmp_path / PAGES[0]).exists()
    assert docgen.main([], str(tmp_path)) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == content("README.md")
    assert docgen.main(["--check"], str(tmp_path)) == 0


def test_a_readme_without_a_generated_part_is_an_error_and_not_a_silence():
    broken = content("README.md").replace("<!-- generated: limits -->", "")
    with pytest.raises(docgen.TelError, match="limits"):
        docgen.with_parts(broken)


def test_no_command_imports_the_generator():
    code = ("import sys; from modwsgi_tel import cli, collector, demo; from modwsgi_tel.report import dump; "
            "sys.exit('modwsgi_tel.docgen' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=running.ROOT, timeout=30).returncode == 0


# --- man pages ----------------------------------------------------------------------------------

@pytest.mark.parametrize("page", PAGES)
def test_mandoc_finds_no_fault(page):
    needs_mandoc()
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", os.path.join(running.ROOT, page)], timeout=30,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("page", PAGES)
def test_a_rendered_page_fits_80_columns(page):
    needs_mandoc()
    shown = subprocess.run(["mandoc", "-T", "ascii", os.path.join(running.ROOT, page)], timeout=30, check=True,
                           stdout=subprocess.PIPE, universal_newlines=True).stdout
    shown = re.sub(".\b", "", shown)
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    assert "\\" not in re.sub(r" \\\n|\\%", "", shown)      # no escape came through, but a shell's and cron's


def test_every_command_option_path_and_exit_status_is_in_the_man_page():
    page = plain(content(PAGES[0]))
    commands = page.split("\n.Sh COMMANDS\n")[1].split("\n.Sh ")[0]
    sections = dict(part.split("\n", 1) for part in ("\n" + commands).split("\n.Ss ")[1:])
    assert list(sections) == [command.name for command in COMMANDS]
    for option in OPTIONS:
        first = next(command.name for command in COMMANDS if command.name in option.commands)
        tag = f".It Fl -{option.name}" + (f" Ar {option.metavar}" if option.metavar else "")
        assert tag in sections[first].splitlines(), (first, option.name)
    for command in COMMANDS:
        for example, _ in command.examples:
            assert f"{PROGRAM} {example}" in page.replace(" \\\n  ", " ")
    for route in ROUTES:
        assert f"\n.It Li {route.method} {route.path}\n" in page
    for status, _ in EXIT_STATUS:
        assert f"\n.It {status}\n" in page.split(".Sh EXIT STATUS")[1]


def test_an_option_that_a_command_shares_is_named_there_too():
    shared = {("serve", "demo"), ("serve", "dump"), ("simulate", "replay"), ("simulate", "demo")}
    page = plain(content(PAGES[0]))
    for first, second in shared:
        section = page.split(f"\n.Ss {second}\n")[1].split("\n.Ss ")[0].split("\n.Sh ")[0]
        said = section.split(f".Cm {first} :\n")[1].split(".Pp")[0]
        both = {option.name for option in options_of(first) if second in option.commands}
        named = set(re.findall(r"^\.Fl -(\S+) [.,]$", said, re.MULTILINE))
        every = {option.name for option in options_of(first)}
        if said.startswith("all of its options but"):
            named = every - named
        elsewhere = {option.name for option in options_of(first) for earlier in COMMANDS
                     if earlier.name in option.commands and COMMANDS.index(earlier) < COMMANDS.index(BY_COMMAND[first])}
        assert both - elsewhere <= named <= every and named - elsewhere <= both, (first, second)


def test_every_parameter_of_a_path_is_explained_and_no_other():
    assert {name for route in ROUTES for name in route.parameters} == {name for name, _ in docgen.PARAMETERS}


def test_every_field_and_kind_is_in_the_page_on_records():
    page = plain(content(PAGES[1])).splitlines()
    assert [field.name for field in FIELDS if f".It Li {field.name}" not in page] == []
    assert [name for number, name in KINDS.items() if f".It Li {number} {name}" not in page] == []


def test_every_setting_and_function_of_the_agent_is_in_its_page_and_no_other():
    page = plain(content(PAGES[2]))
    functions, settings = (page.split(f"\n.Sh {title}\n")[1].split("\n.Sh ")[0] for title in ("FUNCTIONS", "SETTINGS"))
    assert re.findall(r"^\.It Li (\w+)$", settings, re.MULTILINE) == [setting.name for setting in SETTINGS]
    assert sorted(re.findall(r"^\.It Li agent\.(\w+)", functions, re.MULTILINE)) == agent.__all__


def test_every_metric_is_in_its_page_and_no_other():
    page = plain(content(PAGES[3]))
    assert re.findall(r"^\.It Li (modwsgi_\w+)$", page, re.MULTILINE) == [
        metric.name if metric.type == HISTOGRAM else series_of(metric)[0] for metric in METRICS]


# --- README -------------------------------------------------------------------------------------

def commands_in(text):
    """Command lines of a Markdown text that call the program: lists of words behind its name."""
    blocks = FENCED.findall(text) + re.findall(r"(?:^    .*\n)+", re.sub(FENCED, "", text), re.MULTILINE)
    blocks += re.findall(r"`([^`\n]+)`", re.sub(FENCED, "", text))
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            for name in PROGRAM_WORDS:
                found = re.search(r"(?:^|[\s/=])" + re.escape(name) + r"(?= |$)(.*)", line)
                if found:
                    yield shlex.split(found.group(1).split("|")[0].replace("\\%", "%"), comments=True)
                    break


def test_the_commands_in_the_readme_are_taken_as_they_stand(tmp_path):
    seen = set()
    for words in commands_in(content("README.md")):
        if not words or words[0] in ("COMMAND", "enable", "docgen") or not re.match(r"-|[a-z-]+$", words[0]):
            continue
        command = "serve" if words[0].startswith("-") else words[0]
        assert command in BY_COMMAND, words
        words = words if words[0].startswith("-") else words[1:]
        if "--config" in words:
            place = words.index("--config") + 1
            (tmp_path / "config.ini").write_text("[serve]\n", encoding="utf-8")
            words[place] = str(tmp_path / "config.ini")
        read(command, words, {})
        seen.add(command)
    assert seen == set(BY_COMMAND)


def test_every_flag_in_the_readme_is_an_option_here_or_in_a_named_other_program():
    others = {"--unix-socket", "--now", "--help", "--version", "--telemetry-service", "--telemetry-interval",
              "--slow-requests", "--telemetry-options", "--fetch-peer",
              "--bind", "--workers", "--threads", "--plugin", "--http-socket", "--master", "--processes", "--enable-threads", "--wsgi-file",
              "--create", "--service-script"}
    known = {"--" + option.name for option in OPTIONS}
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", content("README.md")))
    assert flags - known - others == set()


def test_every_path_and_variable_in_the_readme_exists():
    text = content("README.md")
    paths = {route.path for route in ROUTES}
    named = set(re.findall(r"(?<![\w.])(/api/[\w/]+|/healthz|/version)", text))
    assert named and named - paths == set()
    variables = {variable(option) for option in OPTIONS} | {AGENT_PREFIX + setting.name.upper() for setting in SETTINGS} | {AGENT_PREFIX}
    assert set(re.findall(r"MODWSGI_TEL_[A-Z_]+", text)) - variables == set()
    for profile in re.findall(r"--profile (\S+)", text):
        read("demo", ["--profile", profile.strip("`")], {})


def test_a_cron_line_has_no_bare_per_cent_sign():
    lines = [line for line in content("README.md").splitlines() if line.strip().startswith("*/")]
    assert lines and [line for line in lines if re.search(r"(?<!\\)%", line)] == []


def test_the_unit_says_what_the_directives_say():
    unit = content("modwsgi_tel/extras/static/systemd/modwsgi-tel.service")
    directives = re.search(r"```apache\n(.*?)```", content("README.md"), re.DOTALL).group(1)
    variables = dict(re.findall(r"^Environment=(MODWSGI_TEL_\w+)=(.*)$", unit, re.MULTILINE))
    words = shlex.split(re.search(r"^ExecStart=\S+ serve (.*)$", unit, re.MULTILINE).group(1))
    values = read("serve", words, variables)
    assert f"WSGITelemetryService {values.listen} interval=" in directives
    assert os.path.dirname(values.listen) == "unix:/run/" + re.search(r"^RuntimeDirectory=(.*)$", unit, re.MULTILINE).group(1)
    assert f"SupplementaryGroups={values.socket_group}\n" in unit
    assert values.listen[5:] in content("README.md") and values.http_socket in content("README.md")


def test_what_the_page_extracts_is_there():
    named = re.findall(r"extras ((?:[\w.$-]+/[\w.$-]+))", content("README.md"))
    known = {extra.name for extra in EXTRAS}
    assert named and [name for name in named if "$" not in name and name not in known] == []


# Runs one example after another in a process of its own, with the socket's path as its argument; then a request.
EXAMPLES = r"""
import sys, threading, time, types
import modwsgi_tel
sys.modules["shop"], sys.modules["shop.wsgi"] = types.ModuleType("shop"), types.ModuleType("shop.wsgi")
def shop(environ, start_response):
    exec(examples[-1], names)
    names["render"]("page")
    start_response("200 OK", [])
    return [b"ok"]
sys.modules["shop.wsgi"].application = shop
examples = [each.replace("unix:/run/modwsgi-tel/telemetry.sock", sys.argv[1]) for each in sys.stdin.read().split("\f")]
names = {"__name__": "shop", "database": types.SimpleNamespace(execute=lambda query: [])}
for each in examples[:-1]:
    exec(each, names)
watched = names["application"]
assert watched({"PATH_INFO": "/"}, lambda *told: None) == [b"ok"]
held = names["agent"]._agent
print(held.running, held.errors, [*filter(None, held.problems)], sorted(held.timers._timers), held.sender.path == sys.argv[1][5:])
assert watched is not shop and "/usr/local/bin/modwsgi-tel.pyz/site-packages" in sys.path
held.stop()
"""


def test_the_agents_examples_run(tmp_path):
    examples = re.findall(r"^```python\n(.*?)^```$", content("README.md").split("\n## The agent\n")[1], re.DOTALL | re.MULTILINE)
    assert examples[0].strip() == docgen.AGENT_LINE == examples[1].strip().replace("\n", "; ")
    done = subprocess.run([sys.executable, "-c", EXAMPLES, f"unix:{tmp_path}/none.sock"], input="\f".join(examples), timeout=30,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                          env=running.clean_environment(PYTHONPATH=running.ROOT))
    assert (done.stdout, done.returncode) == ("True 0 [] ['db.query', 'shop.render'] True\n", 0), done.stderr


def test_the_agents_lines_for_apache_name_one_group_and_the_file_that_is_made():
    text = content("README.md")
    lines = next(block for block in FENCED.findall(text) if "WSGIImportScript" in block).split("\n")
    words = dict((line.split(" ", 1)) for line in lines if line)
    assert words["WSGIImportScript"].split() == [
        "/etc/apache2/modwsgi-tel-agent.py", f"process-group={words['WSGIProcessGroup']}",
        f"application-group={words['WSGIApplicationGroup']}"]
    assert words["WSGIDaemonProcess"].startswith(words["WSGIProcessGroup"] + " ")
    assert "`/etc/apache2/modwsgi-tel-agent.py`" in text


# --- the map of the code --------------------------------------------------------------------------

def modules():
    """Names of all modules, without `modwsgi_tel.`; of a package that holds more than a docstring too."""
    base = os.path.join(running.ROOT, "modwsgi_tel")
    for folder, folders, names in os.walk(base):
        folders[:] = [each for each in folders if each != "static"]
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".py") and (name != "__init__.py" or (folder != base and os.path.getsize(path))):
                yield os.path.relpath(path, base)[:-3].replace(os.sep, ".").replace(".__init__", "")


def test_the_map_names_every_module_and_no_other():
    rows = re.findall(r"^\| `([\w.]+)` \|", content("modwsgi_tel/README.md"), re.MULTILINE)
    assert sorted(rows) == sorted(modules())


def test_every_function_that_the_map_names_exists():
    rooms = ("wire", "state", "net", "web", "proc", "report", "agent", "agentclient", "takers", "collector", "demo", "cli")
    named = set(re.findall(r"`((?:%s)\.\w+(?:\.\w+)*)`" % "|".join(rooms), content("modwsgi_tel/README.md")))
    assert len(named) > 60
    for name in sorted(named):
        attributes, module = name.split("."), "modwsgi_tel"
        while attributes and importlib.util.find_spec(f"{module}.{attributes[0]}"):
            module += "." + attributes.pop(0)
            if not hasattr(importlib.import_module(module), "__path__"):
                break
        found = importlib.import_module(module)
        for attribute in attributes:
            assert hasattr(found, attribute), name
            found = getattr(found, attribute)


# --- all that is written --------------------------------------------------------------------------

@pytest.mark.parametrize("path", WRITTEN)
def test_nothing_tells_of_the_machine_that_it_was_written_on(path):
    text = content(path)
    assert re.findall(r"/(?:work|root|home)/\S*|/opt/(?!mod_wsgi)\S*|pypi\.\S+|https?://(?!127\.0\.0\.1|localhost)\S+", text) == []


def test_the_benchmark_knows_its_place_in_the_readme():
    source = ast.parse(content("bench/run"))
    marks = [node.value for node in ast.walk(source) if isinstance(node, ast.Constant) and isinstance(node.value, str)
             and node.value.startswith("<!-- bench:")]
    text = content("README.md")
    assert len(marks) == 2 and [text.count(mark) for mark in marks] == [1, 1] and text.index(marks[0]) < text.index(marks[1])


def test_the_benchmark_says_what_it_can_do():
    done = subprocess.run([sys.executable, os.path.join(running.ROOT, "bench", "run"), "--help"], timeout=30, check=True,
                          stdout=subprocess.PIPE, universal_newlines=True)
    flags = re.findall(r"^  (--[\w-]+)", done.stdout, re.MULTILINE)
    assert flags == ["--fetch-peer", "--peer", "--ours", "--only", "--quick", "--runs", "--json"]
