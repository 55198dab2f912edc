"""What the application may set: as arguments of agent.install() and agent.middleware(), or in the environment.

An argument counts before the environment's MODWSGI_TEL_AGENT_NAME.  A value that is none never reaches the application as an
exception: the default stays, and it is told in `problems`.
"""
import os
import sys
from collections import namedtuple
from fnmatch import translate
from re import compile as regex

PREFIX = "MODWSGI_TEL_AGENT_"
SOCKET = "unix:/tmp/mod_wsgi-telemetry.sock"
WATCHDOG_S = 5.0
# faulthandler walks the frames of threads that may run when the whole process was stopped for the time: a bare program under load died of it
# in 1 of 45 stops on 3.9.18 and in 1 of 46 on 3.13.0, in none of 153 on 3.11.2 and 3.14.10.
FATAL = ((3, 9), (3, 13))
SECRET_LEAST = 16                       # letters of the secret in a URL: a shorter one can be tried out

Setting = namedtuple("Setting", "name type default help")
Setting.__doc__ = "type: a function from an argument, or from text, to the value; ValueError says what is wanted."


def _text(value):
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


def _switch(value):
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("1", "on", "yes", "true"):
        return True
    if isinstance(value, str) and value.lower() in ("", "0", "off", "no", "false"):
        return False
    raise ValueError("on or off")


def _number(low, high, of=float):
    def convert(value):
        try:
            number = of(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if isinstance(value, bool) or number is None or not low <= number <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return number
    return convert


def _off_or(low, high):
    number = _number(0, high)

    def convert(value):
        found = number(value)
        if 0 < found < low:
            raise ValueError(f"0, or a number from {low:g} to {high:g}")
        return found
    return convert


def _or(word, type_):
    return lambda value: word if value == word else type_(value)


def _one_of(*names):
    def convert(value):
        value = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
        if value not in names:
            raise ValueError("one of " + ", ".join(names))
        return value
    return convert


def _words(value):
    """A tuple of words: of a sequence, or of text with commas."""
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, (tuple, list, set, frozenset)) or not all(isinstance(each, str) for each in words):
        raise ValueError("texts, or one text with commas")
    return tuple(each.strip() for each in words if each.strip())[:100]


def _patterns(value):
    """Shell patterns (* ? [..]) as one compiled pattern, or None for none."""
    words = _words(value)
    return regex("|".join(translate(each) for each in words)) if words else None


def _secret(value):
    if value and (not isinstance(value, str) or len(value) < SECRET_LEAST or "/" in value or not value.isascii()):
        raise ValueError(f"at least {SECRET_LEAST} ASCII letters without a slash")
    return value or ""


SETTINGS = (
    Setting("socket", _text, SOCKET, "the collector's telemetry socket, as mod_wsgi's WSGITelemetryService names it"),
    Setting("log", _text, "stderr", "where that is written which no collector took: stderr (Apache's error log), a file, or off"),
    Setting("threshold", _number(0.01, 86400), 2.0, "a request that takes longer has its stacks taken, in seconds"),
    Setting("interval", _number(0.05, 3600), 1.0, "between two stacks of one request, in seconds; it grows by a quarter each time, up to a minute"),
    Setting("stacks", _number(1, 1000, int), 30, "stacks taken of one request, at most"),
    Setting("watched", _number(1, 10000, int), 100, "long requests whose stacks are taken at once, at most"),
    Setting("ignore", _patterns, None, "paths to leave alone (long polling, streaming), as shell patterns: /events/*"),
    Setting("ignore_functions", _patterns, None, "functions to leave alone: a long request in which one is called; by name, or as */views.py:wait_*"),
    Setting("locals", _switch, False, "stacks with the values of arguments and variables"),
    Setting("reprs", _switch, False, "call the application's own __repr__ for these"),
    Setting("secrets", _words, (), "words in a name that tell of a secret, besides password, token, key and the like"),
    Setting("emit", _one_of("auto", "on", "off"), "auto", "send the standard telemetry too; auto: where mod_wsgi does not report itself"),
    Setting("telemetry_interval", _number(0.5, 3600), 1.0, "between two ticks of that, in seconds"),
    Setting("group", _text, "", "the process group to report as, where mod_wsgi names none"),
    Setting("user_agents", _switch, False, "send the user agent of slow requests"),
    Setting("gc", _one_of("auto", "on", "off"), "auto", "garbage collections; auto: with the standard telemetry"),
    Setting("exceptions", _switch, True, "count exceptions that leave the application"),
    Setting("exception_texts", _switch, False, "with what they say, which may tell secrets"),
    Setting("loop_limit", _number(0.001, 3600), 0.1, "an event loop is late when a callback holds it longer, in seconds"),
    Setting("memory_most_s", _number(1, 86400), 600.0, "tracing of memory ends by itself after so many seconds"),
    Setting("control", _switch, True, "answer on a socket of its own: modwsgi-tel stacks PID --agent"),
    Setting("signal", _one_of("auto", "on", "off"), "auto", "SIGUSR2 sends the stacks of all threads; auto: where mod_wsgi delivers it; on: elsewhere too, from the main thread"),
    Setting("secret", _secret, "", "GET /modwsgi-tel-stacks/SECRET answers with the stacks of all threads (middleware); off without"),
    Setting("watchdog", _or("auto", _off_or(2, 3600)), "auto", "write the stacks to a file when the GIL is held so long, in seconds, at least 2; 0: off; "
            "auto: 5, but off on Python 3.9 and 3.13, where it can crash a process that was stopped for as long"),
    Setting("watchdog_folder", _text, "", "where that file is; without it the folder for temporary files"),
)

Settings = namedtuple("Settings", [each.name for each in SETTINGS] + ["problems"])


def read(given, environment=None):
    """The Settings of arguments {name: value} and of the environment; `problems` are sentences about what was not taken."""
    environment = os.environ if environment is None else environment
    known, problems, values = {each.name: each for each in SETTINGS}, [], {}
    for name in list(environment):
        if name.startswith(PREFIX) and name[len(PREFIX):].lower() not in known:
            problems.append(f"agent: there is no setting {name[:80]!r}")
    for name in given:
        if name not in known:
            problems.append(f"agent: there is no setting {str(name)[:40]!r}")
    for name, setting in known.items():
        values[name] = setting.default
        sources = ((environment.get(PREFIX + name.upper()), PREFIX + name.upper()), (given.get(name), name))
        for value, source in sources:
            if value is not None:
                try:
                    values[name] = setting.type(value)
                except ValueError as error:
                    problems.append(f"agent: {source}: wants {error}")
                except Exception as error:      # of an argument's own methods: whatever it is, it is none
                    problems.append(f"agent: {source}: {type(error).__name__}")
    if values["watchdog"] == "auto":
        values["watchdog"] = 0.0 if sys.version_info[:2] in FATAL else WATCHDOG_S
    return Settings(**values, problems=tuple(problems))
