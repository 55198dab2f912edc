"""Completion for bash, zsh and fish, out of COMMANDS and OPTIONS.  Imported by docgen alone.

What a word may be is a Kind, found by `kind_of` an option's type and metavar or `kind_of_argument` a command's arguments; each
shell has its own way to complete a Kind, and that is all that these three differ in.
"""
import re
from collections import namedtuple

from modwsgi_tel.check.checks import CHECKS
from modwsgi_tel.extras.table import EXTRAS, KINDS
from modwsgi_tel.options import COMMANDS, FLAG, MANY, options_of

NAMES = ("modwsgi-tel", "modwsgi-tel.pyz")

Kind = namedtuple("Kind", "what names", defaults=((),))
Kind.__doc__ = "what: nothing, file, folder, socket (unix:PATH), pid, user, group, names (one of `names`), several (some, with commas)."

NOTHING = Kind("nothing")
_BY_METAVAR = {"FILE": "file", "FILE.prom": "file", "PATH": "file", "BEFORE": "file", "FOLDER": "folder", "unix:PATH": "socket",
               "PID": "pid", "USER": "user", "GROUP": "group"}
_EXTRAS = (*KINDS, *(extra.name for extra in EXTRAS))
_ARGUMENTS = {"PID": Kind("pid"), "FILE": Kind("file"), "SCRIPT": Kind("file"), "NAME": Kind("names", _EXTRAS),
              "WHAT": Kind("names", tuple(check.name for check in CHECKS))}
_SUMMARY_MOST = 72


def kind_of(option):
    names = getattr(option.type, "names", None)
    if names:
        return Kind("several" if getattr(option.type, "several", False) else "names", names)
    return Kind(_BY_METAVAR.get(option.metavar, "nothing"))


def kind_of_argument(command):
    """Of what stands behind a command's options."""
    return _ARGUMENTS.get(re.match(r"\[?([A-Z]*)", command.arguments).group(1), NOTHING)


def summary(option):
    """The help of an option in a few words."""
    told = re.split(r"[;:.] ", option.help)[0]
    if len(told) <= _SUMMARY_MOST:
        return told
    return told[:_SUMMARY_MOST].rpartition(" ")[0].rstrip(",") + " ..."


def names_of(option):
    """Its words on the command line, as ("--output", "-o")."""
    return ("--" + option.name, *(["-" + option.short] if option.short else []))


def _head(shell, where):
    return [f"# {shell} completion for {' and '.join(NAMES)}.  {where}", "# Generated from the tables of commands and options; do not edit.", ""]


# --- bash ---------------------------------------------------------------------------------------

_BASH = r'''# Which words a command has, and what is to stand behind an option of it, or behind the command itself ("").
_modwsgi_tel_words() {
    case $1 in
@WORDS@
    esac
}

_modwsgi_tel_kind() {
    case "$1 $2" in
@KINDS@
        *) echo flag ;;
    esac
}

_modwsgi_tel() {
    local IFS=$' \t\n' at=0 word words=() current option='' command='' value prefix='' kind offered=() each
    # bash cuts words at = and : too: put together what it has cut
    while ((at <= COMP_CWORD)); do
        word=${COMP_WORDS[at]}
        if ((at > 1 && ${#words[@]} > 1)) && [[ $word == [=:]* || ${words[${#words[@]} - 1]} == -*[=:] || ${words[${#words[@]} - 1]} == unix: ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        ((at += 1))
    done
    at=$((${#words[@]} - 1))
    current=${words[at]}

    if ((at > 1)) || [[ $current == -* ]]; then
        command=${words[1]}
        [[ $command == -* ]] && command=serve           # what runs when none is named
    else
        command='' option=''
    fi
    ((at > 1)) && option=${words[at - 1]}
    value=$current
    if [[ $current == --*=* ]]; then
        option=${current%%=*} value=${current#*=} prefix=$option=
    fi
    kind=flag
    [[ $option == -* ]] && kind=$(_modwsgi_tel_kind "$command" "$option")
    if [[ $kind == flag ]]; then
        kind=words
        [[ -n $command && $current != -* ]] && kind=$(_modwsgi_tel_kind "$command" '')
        [[ $kind == nothing && -z $current ]] && kind=words
    fi

    compopt +o default
    case $kind in
        file) compopt -o default; return ;;             # bash's own, which know how to quote
        folder) compopt -o dirnames; return ;;
        socket)
            [[ $value == unix:* ]] && { compopt -o default; return; }
            compopt -o nospace
            offered=(unix:) ;;
        pid) offered=(/proc/[0-9]*); offered=("${offered[@]#/proc/}") ;;
        user) mapfile -t offered < <(compgen -u) ;;
        group) mapfile -t offered < <(compgen -g) ;;
        words) read -ra offered <<<"$(_modwsgi_tel_words "$command")" ;;
        names:*) IFS=, read -ra offered <<<"${kind#*:}" ;;
        several:*)
            IFS=, read -ra offered <<<"${kind#*:}"
            [[ $value == *,* ]] && offered=("${offered[@]/#/${value%,*},}") ;;
        *) return ;;
    esac
    COMPREPLY=()
    for each in "${offered[@]}"; do
        [[ $each == "$value"* ]] && COMPREPLY+=("$prefix$each")
    done
    # and bash puts in only what stands behind the last of these
    for each in = :; do
        if [[ $COMP_WORDBREAKS == *"$each"* && $current == *"$each"* ]]; then
            COMPREPLY=("${COMPREPLY[@]#"${current%"$each"*}$each"}")
        fi
    done
}

complete -o default -F _modwsgi_tel @NAMES@
'''


def bash():
    """The script for bash, 4.0 and later."""
    words = [f"        '') echo '{' '.join(command.name for command in COMMANDS)} --help --version' ;;"]
    kinds = []
    for command in COMMANDS:
        flags = [name for option in options_of(command.name) for name in names_of(option)]
        words.append(f"        {command.name}) echo '{' '.join([*flags, '--help'])}' ;;")
    cases = {}
    for command in COMMANDS:
        cases.setdefault(_bash_kind(kind_of_argument(command)), []).append(f"'{command.name} '")
        for option in options_of(command.name):
            if option.type is not FLAG:
                for name in names_of(option):
                    cases.setdefault(_bash_kind(kind_of(option)), []).append(f"'{command.name} {name}'")
    for kind, places in cases.items():
        kinds += [f"        {' | '.join(places)})", f"            echo '{kind}' ;;"]
    script = _BASH.replace("@WORDS@", "\n".join(words)).replace("@KINDS@", "\n".join(kinds)).replace("@NAMES@", " ".join(NAMES))
    return "\n".join(["# shellcheck shell=bash", *_head("bash", "Belongs into /etc/bash_completion.d, or is sourced.")]) + "\n" + script


def _bash_kind(kind):
    return kind.what + (":" + ",".join(kind.names) if kind.names else "")


# --- zsh ----------------------------------------------------------------------------------------

_ZSH = r'''
_modwsgi_tel_socket() {
    if compset -P unix:; then
        _files
    else
        compadd -S '' unix:
    fi
}

_modwsgi_tel_commands() {
    local -a commands=(
@COMMANDS@
    )
    _describe -t commands command commands
}

_modwsgi-tel() {
    local command=serve
    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
        _modwsgi_tel_commands
        return
    fi
    if [[ $words[2] != -* ]]; then
        command=$words[2]
        shift words
        (( CURRENT -= 1 ))
    fi
    case $command in
@CASES@
    esac
}

_modwsgi-tel "$@"
'''
_ZSH_ACTIONS = {"file": "_files", "folder": "_files -/", "socket": "_modwsgi_tel_socket", "pid": "_pids", "user": "_users", "group": "_groups",
                "nothing": " "}


def zsh():
    """The function for zsh's fpath."""
    commands = [f"        {_quoted(command.name + ':' + command.summary)}" for command in COMMANDS]
    cases = []
    for command in COMMANDS:
        specs = [_quoted("(- *)--help[show what it can do]")]
        for option in options_of(command.name):
            specs += _zsh_option(option)
        kind = kind_of_argument(command)
        if command.arguments:
            many = "*" if "..." in command.arguments else "1"
            specs.append(_quoted(f"{many}:{_zsh_text(command.arguments.strip('[].'))}:{_zsh_action(kind)}"))
        # what stands behind the name of a script is the script's
        own = ["-A", "'-*'"] if command.name == "sample" else []
        cases.append(f"        {command.name})")
        cases.append(" \\\n".join(["            " + " ".join(["_arguments", *own]), *("                " + spec for spec in specs)]) + " ;;")
    script = _ZSH.replace("@COMMANDS@", "\n".join(commands)).replace("@CASES@", "\n".join(cases))
    return "\n".join([f"#compdef {' '.join(NAMES)}", *_head("zsh", "Belongs into a folder of $fpath, named _modwsgi-tel.")[:-1]]) + "\n" + script


def _zsh_option(option):
    told = "[" + _zsh_text(summary(option)) + "]"
    if option.type is FLAG:
        return [_quoted(f"--{option.name}{told}")]
    kind = f":{_zsh_text(option.metavar)}:{_zsh_action(kind_of(option))}"
    names = names_of(option)
    if option.type is MANY:
        return [_quoted(f"*--{option.name}={told}{kind}")]
    if len(names) == 1:
        return [_quoted(f"--{option.name}={told}{kind}")]
    return [_quoted(f"({names[1]})--{option.name}={told}{kind}"), _quoted(f"(--{option.name}){names[1]}+{told}{kind}")]


def _zsh_action(kind):
    if kind.what == "names":
        return "(" + " ".join(kind.names) + ")"
    if kind.what == "several":
        return "_sequence compadd - " + " ".join(kind.names)
    return _ZSH_ACTIONS[kind.what]


def _zsh_text(text):
    return re.sub(r"([\\\[\]:])", r"\\\1", text)


def _quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


# --- fish ---------------------------------------------------------------------------------------

_FISH = r'''# The command of the line so far: serve when its first word is an option, nothing when there is none yet.
function __modwsgi_tel_command
    set -l words (commandline -opc)
    set -e words[1]
    if set -q words[1]
        string match -q -- '-*' $words[1]; and echo serve; or echo $words[1]
    else
        string match -q -- '-*' (commandline -ct); and echo serve
    end
end

function __modwsgi_tel_is
    set -l command (__modwsgi_tel_command)
    test "$command" = "$argv[1]"
end

function __modwsgi_tel_socket
    set -l given (string replace -r '^unix:' '' -- (commandline -ct | string replace -r '^--[^=]*=' ''))
    string replace -r '^' 'unix:' -- (__fish_complete_path $given)
end

complete -c @NAME@ -f
complete -c @NAME@ -n '__modwsgi_tel_is ""' -l help -d 'show what it can do'
complete -c @NAME@ -n '__modwsgi_tel_is ""' -l version -d 'show its version'
@LINES@
complete -c @OTHER@ -w @NAME@
'''
_FISH_ACTIONS = {"folder": "(__fish_complete_directories)", "socket": "(__modwsgi_tel_socket)", "pid": "(__fish_complete_pids)",
                 "user": "(__fish_complete_users)", "group": "(__fish_complete_groups)"}


def fish():
    """The file for fish, 3.0 and later."""
    name, other = NAMES
    lines = []
    for command in COMMANDS:
        lines += ["", f"complete -c {name} -n '__modwsgi_tel_is \"\"' -a {command.name} -d {_fish_text(command.summary)}"]
        here = f"complete -c {name} -n '__modwsgi_tel_is {command.name}'"
        argument = _fish_argument(kind_of_argument(command))
        if argument:
            lines.append(f"{here} {argument}")
        for option in options_of(command.name):
            short = f" -s {option.short}" if option.short else ""
            value = "" if option.type is FLAG else " " + " ".join(filter(None, ("-r", _fish_argument(kind_of(option)) or "-f")))
            lines.append(f"{here} -l {option.name}{short}{value} -d {_fish_text(summary(option))}")
        lines.append(f"{here} -l help -d 'show what it can do'")
    script = _FISH.replace("@LINES@", "\n".join(lines).strip()).replace("@NAME@", name).replace("@OTHER@", other)
    return "\n".join(_head("fish", "Belongs into /etc/fish/conf.d, or ~/.config/fish/conf.d.")) + script


def _fish_argument(kind):
    if kind.what == "nothing":
        return ""
    if kind.what == "file":
        return "-F"
    if kind.what == "several":
        return f"-f -a {_fish_text('(__fish_append , ' + ' '.join(kind.names) + ')')}"
    return "-f -a " + _fish_text(_FISH_ACTIONS.get(kind.what) or " ".join(kind.names))


def _fish_text(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
