"""A strict reader of what a monitoring plugin says, by the grammar of the guidelines alone.

    said = parsed(stdout)
    said.status, said.text, said.data["shop"].warning

Source: Monitoring Plugins Development Guidelines, Plugin Output for Nagios, Threshold and Ranges, Performance data.
"""
import re
from collections import namedtuple

NUMBER = r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
RANGE = rf"@?(?:(?:~|{NUMBER})?:)?(?:{NUMBER})?"
DATUM = re.compile(rf"'(?P<label>(?:[^'=]|'')+)'=(?:(?P<value>{NUMBER})(?P<unit>s|us|ms|%|B|KB|MB|TB|c|)|U)"
                   rf"(?:;(?P<warning>{RANGE})(?:;(?P<critical>{RANGE})(?:;(?P<least>{NUMBER})?(?:;(?P<most>{NUMBER})?)?)?)?)?")
FIRST = re.compile(r"TEL (?P<status>OK|WARNING|CRITICAL|UNKNOWN) - (?P<text>[^|]+)(?:\|(?P<data>[^|]+))?")

Said = namedtuple("Said", "status text data details")
Datum = namedtuple("Datum", "value unit warning critical least most")


def parsed(output):
    """The Said of all that a plugin wrote; AssertionError where that is against the grammar."""
    assert output.endswith("\n") and "|" not in output.partition("\n")[2], output
    assert len(output.encode()) <= 8192, len(output.encode())
    first, *details = output[:-1].split("\n")
    assert all(line.isprintable() and line.strip() for line in (first, *details)), output
    found = FIRST.fullmatch(first)
    assert found, first
    data, rest = {}, found["data"] or ""
    while rest:
        datum = DATUM.match(rest)
        assert datum and rest[datum.end():datum.end() + 1] in ("", " "), rest
        assert datum["label"] not in data, rest
        data[datum["label"]] = Datum(*(datum[name] or None for name in Datum._fields))
        rest = rest[datum.end() + 1:]
    return Said(found["status"], found["text"], data, details)
