"""Completion in the real shells: bash, zsh and fish."""
import os
import shutil
import subprocess

import pytest

import running
import terminals
from modwsgi_tel import docgen
from modwsgi_tel.extras import completion
from modwsgi_tel.extras.table import EXTRAS
from modwsgi_tel.options import COMMANDS, FLAG, PHASES, options_of

FOLDER = os.path.join(running.ROOT, "modwsgi_tel", "extras", "static", "completion")
BASH, ZSH, FISH = (os.path.join(FOLDER, name) for name in ("modwsgi-tel.bash", "_modwsgi-tel", "modwsgi-tel.fish"))

# Calls the function as bash would, for each line of stdin, whose words bash has cut (separated by \x1f); compopt works inside of a
# completion alone, so it says what it was asked for.
DRIVER = r'''
compopt() { printf '<%s>' "$*"; }
source "$1"
while IFS=$'\x1f' read -r -a COMP_WORDS; do
    COMP_WORDS[-1]=${COMP_WORDS[-1]%.}
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _modwsgi_tel
    printf '%s\x1f' "${COMPREPLY[@]}"
    echo
done
'''


def needs(program):
    if not shutil.which(program):
        pytest.skip(f"no {program} (apt-get install {program})")


def in_bash(*lines):
    """What bash's function offers for each line of words, and which of bash's own ways it asks for: (words, asked)."""
    given = "".join("\x1f".join(line) + ".\n" for line in lines)
    done = subprocess.run(["bash", "--norc", "-c", DRIVER, "driver", BASH], input=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=30, cwd="/")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found = []
    for line in done.stdout.splitlines():
        asked, _, words = line.rpartition(">")
        found.append(([word for word in words.split("\x1f") if word], (asked + ">").replace("<+o default>", "")))
    assert len(found) == len(lines)
    return found


def in_fish(*lines):
    script = "\n".join([f"source {FISH}", *(f"complete -C '{line}'; echo ---" for line in lines)])
    done = subprocess.run(["fish", "--no-config", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                          timeout=60, cwd="/", env=running.clean_environment(LC_ALL="C.UTF-8"))
    assert done.stderr == ""
    return [sorted(line.split("\t")[0] for line in part.splitlines()) for part in done.stdout.split("---\n")[:-1]]


def flags_of(command):
    return [name for option in options_of(command) for name in completion.names_of(option)] + ["--help"]


# --- the files -----------------------------------------------------------------------------------

def test_shellcheck_finds_no_fault_in_the_file_for_bash():
    needs("shellcheck")
    done = subprocess.run(["shellcheck", BASH], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("shell, path", [("bash", BASH), ("zsh", ZSH), ("fish", FISH)])
def test_each_shell_can_parse_its_file(shell, path):
    needs(shell)
    done = subprocess.run([shell, "-n", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_summary_is_short_and_no_part_of_a_word():
    for command in COMMANDS:
        for option in options_of(command.name):
            told = completion.summary(option)
            assert 0 < len(told) <= 76 and option.help.startswith(told.replace(" ...", "")), option


# --- bash ----------------------------------------------------------------------------------------

def test_bash_offers_each_command_and_each_option_of_it():
    lines = [["modwsgi-tel", ""], *(["modwsgi-tel", command.name, "-"] for command in COMMANDS), ["modwsgi-tel", "-"]]
    found = in_bash(*lines)
    assert found[0] == ([command.name for command in COMMANDS] + ["--help", "--version"], "")
    for command, (words, asked) in zip(COMMANDS, found[1:]):
        assert (words, asked) == (flags_of(command.name), "")
    assert found[-1] == (flags_of("serve"), "")             # what runs without a command


def test_bash_offers_the_values_of_every_option_that_has_a_few():
    told = [(command.name, option, kind) for command in COMMANDS for option in options_of(command.name) if option.type is not FLAG
            for kind in [completion.kind_of(option)] if kind.names]
    assert len(told) > 20
    found = in_bash(*(["modwsgi-tel", name, "--" + option.name, ""] for name, option, _ in told))
    assert [words for words, _ in found] == [list(kind.names) for _, _, kind in told]


@pytest.mark.parametrize("line, words, asked", [
    (["se"], ["serve"], ""),
    (["check", "la"], ["latency"], ""),
    (["check", "--phase", ""], list(PHASES), ""),
    (["check", "-w", "10", ":", "20", "cap"], ["capacity"], ""),
    (["serve", "--log-level", "=", "I"], ["INFO"], ""),                         # bash puts in what stands behind =
    (["record", "--by", "process,th"], ["process,thread"], ""),
    (["record", "--by", "=", "process,th"], ["process,thread"], ""),
    (["serve", "--listen", ""], ["unix:"], "<-o nospace>"),
    (["serve", "--listen", "unix", ":", "/ru"], [], "<-o default>"),            # files: bash's own
    (["serve", "--listen", "=", "unix", ":", "/ru"], [], "<-o default>"),
    (["record", "-o", "x"], [], "<-o default>"),
    (["replay", "x"], [], "<-o default>"),
    (["extras", "--output", "x"], [], "<-o dirnames>"),
    (["stack-helper", "--allow-uid", "roo"], ["root"], ""),
    (["serve", "--http-port", "8"], [], ""),                                    # and no files where there can be none
    (["--log-level", "WARN"], ["WARNING"], ""),
    (["extras", "prometheus/al"], ["prometheus/alerts.yml"], ""),
    (["extras", "--force", "graf"], ["grafana", "grafana/modwsgi-tel.json"], ""),
    (["no-command", "x"], [], ""),
])
def test_bash_completes_a_line(line, words, asked):
    assert in_bash(["modwsgi-tel.pyz", *line]) == [(words, asked)]


def test_bash_offers_the_names_of_all_extras_and_pids():
    (names, _), (pids, _), (again, _) = in_bash(["modwsgi-tel", "extras", ""], ["modwsgi-tel", "stacks", ""], ["modwsgi-tel", "why", "--pid", ""])
    assert set(names) >= {extra.name for extra in EXTRAS} | {extra.name.split("/")[0] for extra in EXTRAS}
    assert str(os.getpid()) in pids and str(os.getpid()) in again


def test_a_user_of_bash_presses_tab(tmp_path):
    needs("tmux")
    (tmp_path / "a file.cap").write_text("")
    with terminals.Tmux(cwd=str(tmp_path)) as terminal:
        terminal.shell_line(f"source {BASH}; bind 'set bell-style none'")
        terminal.ended()
        for typed, wanted in (("modwsgi-tel stack-h", "modwsgi-tel stack-helper "), ("modwsgi-tel serve --log-level=I", "serve --log-level=INFO "),
                              ("./modwsgi-tel.pyz replay a", "./modwsgi-tel.pyz replay a\\ file.cap "),
                              ("modwsgi-tel serve --listen u", "serve --listen unix:"), ("modwsgi-tel serve --listen unix:/et", "--listen unix:/etc/"),
                              ("modwsgi-tel extras cron/m", "extras cron/modwsgi-tel ")):
            terminal.keys("C-u", "C-l")
            terminal.type(typed)
            terminal.keys("Tab")
            terminal.type("|")                              # so that what was put in behind it is seen
            terminal.wait_for(wanted + "|")


# --- fish ----------------------------------------------------------------------------------------

def test_fish_offers_commands_options_and_values():
    needs("fish")
    lines = ["modwsgi-tel ", "modwsgi-tel serve --log-", "modwsgi-tel --http-h", "modwsgi-tel.pyz top --view s", "modwsgi-tel check -c 3 la",
             "modwsgi-tel serve --log-level=I", "modwsgi-tel serve --listen unix:/et", "modwsgi-tel serve --listen=unix:/et",
             "modwsgi-tel record --by process,th", "modwsgi-tel extras --output /et", "modwsgi-tel replay /etc/passw", "modwsgi-tel dump --timeout ",
             "modwsgi-tel extras grafana/", "modwsgi-tel check -", *(f"modwsgi-tel {command.name} --" for command in COMMANDS)]
    found = in_fish(*lines)
    assert found[0] == sorted(command.name for command in COMMANDS)
    assert found[1:10] == [["--log-file", "--log-level"], ["--http-host"], ["slow", "stacks"], ["latency"], ["--log-level=INFO"], ["unix:/etc/"],
                           ["--listen=unix:/etc/"], ["process,thread"], ["/etc/"]]
    assert "/etc/passwd" in found[10] and found[11:13] == [[], ["grafana/modwsgi-tel.json"]]
    assert {"-w", "-c", "-t", "--warning"} <= set(found[13])
    for command, words in zip(COMMANDS, found[14:]):
        assert words == sorted(name for name in flags_of(command.name) if name.startswith("--"))


# --- zsh -----------------------------------------------------------------------------------------

def test_a_user_of_zsh_presses_tab(tmp_path):
    needs("zsh")
    needs("tmux")
    (tmp_path / "capture.cap").write_text("")
    (tmp_path / ".zshrc").write_text(f"fpath=({FOLDER} $fpath)\nautoload -Uz compinit\ncompinit -u -D\nPS1='ready> '\nunsetopt beep\n"
                                     "zstyle ':completion:*' menu no\n")
    with terminals.Tmux(rows=60, cols=100, cwd=str(tmp_path), ZDOTDIR=str(tmp_path)) as terminal:
        terminal.type("clear; exec zsh -i")
        terminal.keys("Enter")
        terminal.wait_for("ready>")
        for typed, wanted in (("modwsgi-tel stack-h", "modwsgi-tel stack-helper "), ("modwsgi-tel serve --log-level I", "--log-level INFO "),
                              ("modwsgi-tel --log-level=I", "--log-level=INFO "), ("modwsgi-tel.pyz replay cap", "replay capture.cap "),
                              ("modwsgi-tel serve --listen u", "--listen unix:"), ("modwsgi-tel serve --listen unix:capt", "--listen unix:capture.cap "),
                              ("modwsgi-tel record --by process,th", "--by process,thread"), ("modwsgi-tel check -w 1 lat", "check -w 1 latency "),
                              ("modwsgi-tel record -o cap", "record -o capture.cap "), ("modwsgi-tel extras cron/m", "extras cron/modwsgi-tel ")):
            terminal.keys("C-u", "C-l")
            terminal.type(typed)
            terminal.keys("Tab")
            terminal.type("|")
            terminal.wait_for(lambda screen, wanted=wanted: wanted.strip() in screen and "|" in screen)
        for command in ("serve", "check", "hot"):           # its list: every option, each with what it is
            terminal.keys("C-u", "C-l")
            terminal.type(f"modwsgi-tel {command} --")
            terminal.keys("Tab")
            screen = terminal.wait_for(lambda screen, command=command: all(name in screen for name in flags_of(command) if name[1] == "-"))
            assert completion.summary(options_of(command)[0])[:30] in screen


def test_what_is_checked_in_is_what_the_tables_make():
    stale = [path for path in docgen.stale(running.ROOT) if "/completion/" in path]
    assert stale == [], "run python3 -m modwsgi_tel.docgen"
