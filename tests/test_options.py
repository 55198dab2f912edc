"""Options as tables: what a value may be, where it comes from, and what --help says."""
import pytest

from modwsgi_tel import options
from modwsgi_tel.errors import UsageError
from modwsgi_tel.options import (BY_COMMAND, COMMANDS, FLAG, MANY, OPTIONS, command_help, convert, mode, one_of, options_of,
                                 program_help, read, seconds, speed, variable, whole)
from modwsgi_tel.wire import fields

COMMAND_NAMES = [command.name for command in COMMANDS]


def read_refused(command, argv=(), environ=()):
    """What `read` says, which must be one line."""
    with pytest.raises(UsageError) as caught:
        read(command, list(argv), dict(environ))
    assert "\n" not in str(caught.value) and caught.value.exit_status == 2
    return str(caught.value)


@pytest.fixture
def config(tmp_path):
    """Writes a configuration file; gives its path."""
    def write(content):
        path = tmp_path / "tel.ini"
        path.write_text(content, encoding="utf-8")
        return str(path)
    return write


# --- types ------------------------------------------------------------------------------------

@pytest.mark.parametrize("type_, text, value", [
    (whole(0), "0", 0), (whole(0), "42", 42), (whole(0), "8k", 8192), (whole(0), "8K", 8192), (whole(0), "256M", 256 << 20),
    (whole(0), "2G", 2 << 30), (whole(0, 65535), "65535", 65535),
    (seconds(0.1), "0.3s", 0.3), (seconds(0.1), "0.3", 0.3), (seconds(0.1), "250ms", 0.25), (seconds(1), "10m", 600.0),
    (seconds(1), "2h", 7200.0), (seconds(1), "1d", 86400.0),
    (mode, "0660", 0o660), (mode, "660", 0o660), (mode, "0", 0), (mode, "777", 0o777),
    (one_of("INFO", "DEBUG"), "info", "INFO"), (speed, "max", None), (speed, "0.5", 0.5), (speed, "10", 10.0)])
def test_a_value_as_text_means(type_, text, value):
    assert type_(text) == value


@pytest.mark.parametrize("type_, text", [
    (whole(0), ""), (whole(0), "-1"), (whole(0), "1.5"), (whole(0), "k"), (whole(0), "1T"), (whole(0), "\u00b2"),
    (whole(0), "9" * 5000), (whole(0), "1e3"), (whole(1), "0"), (whole(0, 65535), "65536"), (whole(0), " 1"),
    (seconds(0.1), "0.05"), (seconds(0.1), "nan"), (seconds(0.1), "inf"), (seconds(0.1), "1e300"), (seconds(0.1), ""),
    (seconds(0.1), "s"), (seconds(0.1), "ten"), (seconds(0.1), "-5"),
    (mode, "rw"), (mode, "0o8"), (mode, "1777"), (mode, "-1"), (mode, ""), (mode, "888"), (one_of("a"), "b"), (one_of("a"), ""),
    (speed, "0"), (speed, "-1"), (speed, "nan"), (speed, "inf"), (speed, "fast"), (speed, "")])
def test_a_text_that_cannot_be_meant_is_a_value_error(type_, text):
    with pytest.raises(ValueError):
        type_(text)


def test_every_default_is_a_value_of_its_type():
    for option in OPTIONS:
        convert(option, option.default, "default")


# --- where a value comes from --------------------------------------------------------------------

def test_without_anything_the_defaults_of_the_existing_collector_hold():
    values = read("serve", [], {})
    assert {name: values[name] for name in ("listen", "socket_mode", "socket_group", "http_host", "http_port", "root_path",
                                            "log_level")} == {
        "listen": "unix:/tmp/mod_wsgi-telemetry.sock", "socket_mode": 0o660, "socket_group": None, "http_host": "127.0.0.1",
        "http_port": 8888, "root_path": None, "log_level": "INFO"}
    assert set(values.given.values()) == {"default"}


def test_the_command_line_goes_before_the_environment_before_the_file_before_the_default(config):
    path = config("[serve]\nhttp-port = 1111\nmax-slow = 11\nmax-events = 12\n[dump]\nformat = csv\n")
    environ = {"MODWSGI_TEL_HTTP_PORT": "2222", "MODWSGI_TEL_MAX_SLOW": "22", "MODWSGI_TEL_ELSE": "x"}
    values = read("serve", ["--http-port", "3333", "--config", path], environ)
    assert [values.http_port, values.max_slow, values.max_events, values.max_processes] == [3333, 22, 12, 2000]
    assert [values.given[name] for name in ("http_port", "max_slow", "max_events", "max_processes")] == [
        "--http-port", "MODWSGI_TEL_MAX_SLOW", f"{path}: max-events", "default"]


def test_the_file_may_be_named_in_the_environment(config):
    path = config("[serve]\nhttp-port = 1111\n")
    assert read("serve", [], {"MODWSGI_TEL_CONFIG": path}).http_port == 1111
    assert read("serve", ["--config", config("[serve]\nhttp-port = 2222\n")], {"MODWSGI_TEL_CONFIG": "/none"}).http_port == 2222


def test_an_empty_variable_is_no_value():
    assert read("serve", [], {"MODWSGI_TEL_HTTP_PORT": "", "MODWSGI_TEL_SOCKET_GROUP": ""}).http_port == 8888


def test_flags_and_lists_may_come_from_everywhere(config):
    path = config("[serve]\nno-http-port = yes\nallow-host = a.example, b.example\n")
    values = read("serve", ["--config", path], {})
    assert (values.no_http_port, values.allow_host) == (True, ["a.example", "b.example"])
    values = read("serve", ["--config", path, "--allow-host", "c", "--allow-host", "d"], {"MODWSGI_TEL_NO_HTTP_PORT": "no"})
    assert (values.no_http_port, values.allow_host) == (False, ["c", "d"])
    assert read("serve", ["--no-http-port"], {}).no_http_port is True
    assert read("serve", [], {}).allow_host == []


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_can_be_given_in_three_ways(option, config):
    good = {FLAG: "yes", MANY: "a.example"}.get(option.type) or option.default or {
        "keep": "3", "pid": "3", "port": "3", "count": "3", "duration": "3s", "interval": "3s", "groups": "3", "view": "slow", "by": "thread",
        "format": "svg"}.get(option.name, "word")
    if option.name in ("config", "check-config"):
        return
    for command in option.commands:
        key = option.name.replace("-", "_")
        argument = [f"--{option.name}"] + ([] if option.type is FLAG else [good])
        path = config(f"[{command}]\n{option.name} = {good}\n")
        answers = [read(command, argument, {})[key], read(command, [], {variable(option): good})[key],
                   read(command, ["--config", path], {})[key]]
        assert answers == [convert(option, good, "here")] * 3


# --- what cannot be meant -------------------------------------------------------------------------

def test_a_wrong_value_names_where_it_came_from(config):
    path = config("[serve]\nhttp-port = many\n")
    wanted = "'many': a whole number from 0 to 65535"
    assert read_refused("serve", ["--http-port", "many"]) == f"--http-port {wanted}"
    assert read_refused("serve", [], {"MODWSGI_TEL_HTTP_PORT": "many"}) == f"MODWSGI_TEL_HTTP_PORT {wanted}"
    assert read_refused("serve", ["--config", path]) == f"{path}: http-port {wanted}"


@pytest.mark.parametrize("argv, said", [
    (["--nonsense"], "unrecognized arguments: --nonsense; see modwsgi-tel serve --help"),
    (["extra"], "unrecognized arguments: extra; see modwsgi-tel serve --help"),
    (["--http"], "unrecognized arguments: --http; see modwsgi-tel serve --help"),
    (["--http-port"], "argument --http-port: expected one argument; see modwsgi-tel serve --help"),
    (["--socket-mode", "rw-rw----"], "--socket-mode 'rw-rw----': an octal mode, as 0660"),
    (["--log-level", "LOUD"], "--log-level 'LOUD': one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    (["--request-timeout", "0"], "--request-timeout '0': seconds, at least 0.1, as 0.5, 10m or 2h"),
    (["--no-http-port=maybe"], "argument --no-http-port: ignored explicit argument 'maybe'; see modwsgi-tel serve --help")])
def test_what_cannot_be_meant_is_said(argv, said):
    assert read_refused("serve", argv) == said


def test_a_flag_in_the_environment_is_yes_or_no():
    assert read_refused("serve", [], {"MODWSGI_TEL_NO_HTTP_PORT": "maybe"}) == "MODWSGI_TEL_NO_HTTP_PORT = maybe: yes or no"


@pytest.mark.parametrize("content, said", [
    ("[nonsense]\na = 1\n", "no command [nonsense]; sections are " + ", ".join(COMMAND_NAMES)),
    ("[DEFAULT]\nhttp-port = 1\n", "no command [DEFAULT]; sections are " + ", ".join(COMMAND_NAMES)),
    ("[serve]\nportt = 1\n", "[serve] has no option portt; modwsgi-tel serve --help lists them"),
    ("[serve]\nconfig = x\n", "[serve] has no option config; modwsgi-tel serve --help lists them"),
    ("[serve]\ntarget = x\n", "[serve] has no option target; modwsgi-tel serve --help lists them"),
    ("[dump]\nportt = 1\n", "[dump] has no option portt; modwsgi-tel dump --help lists them")])
def test_a_file_with_a_wrong_name_in_it_is_refused_for_every_command(config, content, said):
    path = config(content)
    for command in ("serve", "dump"):
        assert read_refused(command, ["--config", path]) == f"--config {path}: {said}"


@pytest.mark.parametrize("content", ["http-port = 1\n", "[serve]\nhttp-port = 1\nhttp-port = 2\n", "[serve]\n[serve]\n",
                                     "[serve]\nhttp-port\n", "[serve\n"],
                         ids=["no section", "an option twice", "a section twice", "no value", "no bracket"])
def test_a_file_that_is_no_ini_file_is_said_in_one_line_with_its_name(config, content):
    path = config(content)
    assert read_refused("serve", ["--config", path]).startswith(f"--config {path}: ")


def test_a_file_that_is_missing_a_folder_or_no_text_is_said(tmp_path):
    (tmp_path / "latin").write_bytes(b"[serve]\nroot-path = /\xe9\n")
    assert read_refused("serve", ["--config", f"{tmp_path}/none"]) == f"--config {tmp_path}/none: No such file or directory"
    assert read_refused("serve", ["--config", str(tmp_path)]) == f"--config {tmp_path}: Is a directory"
    assert read_refused("serve", ["--config", f"{tmp_path}/latin"]).startswith(f"--config {tmp_path}/latin: ")


def test_percent_signs_and_umlauts_in_a_file_are_what_they_are(config):
    path = config("[dump]\noutput = /var/log/\u00fc-%Y%m%d.json\n")
    assert read("dump", ["--config", path], {}).output == "/var/log/\u00fc-%Y%m%d.json"


# --- help ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", COMMAND_NAMES)
def test_the_help_of_a_command_has_examples_and_every_option_of_it_within_80_columns(command):
    lines = command_help(command).splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert lines[0].startswith(f"usage: modwsgi-tel {command} [options]")
    shown = [line.split()[0] for line in lines if line.startswith("  --")]
    assert sorted(shown) == sorted(["--help", *("--" + option.name for option in options_of(command))])
    for example, why in BY_COMMAND[command].examples:
        assert f"  modwsgi-tel {example}" in lines and f"      {why}" in lines


def test_the_program_help_names_every_command_and_the_exit_status():
    lines = program_help().splitlines()
    assert [line for line in lines if len(line) > 80] == []
    for command in COMMANDS:
        assert [line.split(maxsplit=1) for line in lines if line.split()[:1] == [command.name]][0] == [command.name, command.summary]
    assert [line.split()[0] for line in lines[lines.index("Exit status:") + 1:]] == ["0", "1", "2", "3", "130", "141"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_example_can_be_read(command, config):
    import shlex
    for example, _ in command.examples:
        name, *argv = shlex.split(example)
        if "--config" in argv:
            argv[argv.index("--config") + 1] = config("[serve]\n")
        assert name == command.name
        read(name, argv, {})


def test_no_option_is_in_the_table_twice_for_one_command():
    for command in COMMAND_NAMES:
        names = [option.name for option in options_of(command)]
        assert len(names) == len(set(names))


def test_the_phases_of_check_are_those_of_the_wire():
    assert sorted(options.PHASES) == sorted(fields.PHASES)
