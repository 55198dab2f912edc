"""A strict reader of metrics as text, for tests: OpenMetrics 1.0 by its grammar, and the classic format as we write it.

    families = openmetrics(data)          # {name: Family}; AssertionError with the line that is wrong
    value = families["modwsgi_requests"].value(process_group="app")

It refuses what the format only permits and what is not written: timestamps, exemplars, unknown types.
"""
import math
import re
from collections import namedtuple

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)')
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?")
SUFFIXES = {"counter": {"_total"}, "gauge": {""}, "histogram": {"_bucket", "_sum", "_count"}, "info": {"_info"}}
BASE_UNITS = ("seconds", "bytes", "ratio")


class Family(namedtuple("Family", "name type unit help samples")):
    """samples: {(name, ((label, value), ...)): number}"""

    def series(self, suffix=None, **labels):
        """{labels as a dict's items: number} of the samples that have these labels."""
        return {own: number for (name, own), number in self.samples.items()
                if (suffix is None or name == self.name + suffix) and set(labels.items()) <= set(own)}

    def value(self, suffix=None, **labels):
        """The one number of the sample with these labels."""
        [number] = self.series(suffix, **labels).values()
        return number


def openmetrics(data):
    text = data.decode("utf-8")
    assert text.endswith("# EOF\n") and text.count("\n# EOF") + text.startswith("# EOF") == 1, text[-200:]
    return _families(text[:-len("# EOF\n")], ("TYPE", "UNIT", "HELP"), SUFFIXES)


def classic(data):
    """The same of the classic format: there a counter's family is called with _total, and an info is a gauge."""
    return _families(data.decode("utf-8"), ("HELP", "TYPE"), {**SUFFIXES, "counter": {""}})


def _families(text, kinds, suffixes):
    families, current, told = {}, None, set()
    assert not text or text.endswith("\n")
    for line in text.split("\n")[:-1]:
        assert line and not any(ord(char) < 32 or ord(char) == 127 for char in line), repr(line)
        if line.startswith("#"):
            mark, kind, name, said = line.split(" ", 3)
            assert mark == "#" and kind in kinds and NAME.fullmatch(name) and said.strip() == said, line
            if current is None or name != current.name:
                assert name not in families, f"{name} is interrupted: {line}"
                current, told = families.setdefault(name, Family(name, "", "", "", {})), set()
            assert kind not in told and not current.samples, line
            told.add(kind)
            assert kind != "TYPE" or said in suffixes, line
            assert kind != "UNIT" or said in BASE_UNITS and name.endswith("_" + said), line
            families[name] = current = current._replace(**{kind.lower(): said})
            continue
        _sample(line, current, suffixes)
    for family in families.values():
        assert family.type and family.help and family.samples, family
        if family.type == "histogram":
            _check_histogram(family)
    return families


def _sample(line, family, suffixes):
    found = SAMPLE.fullmatch(line)
    assert found and family is not None, line
    name, labels, number = found.groups()
    assert name.startswith(family.name) and name[len(family.name):] in suffixes[family.type], line
    own, at = [], 0
    while labels and at < len(labels):
        pair = LABEL.match(labels, at)
        assert pair, line
        assert pair[3] != "," or pair.end() < len(labels), line
        own.append((pair[1], re.sub(r"\\(.)", lambda escaped: "\n" if escaped[1] == "n" else escaped[1], pair[2])))
        at = pair.end()
    assert len({label for label, _ in own}) == len(own), line
    assert NUMBER.fullmatch(number), line
    assert family.type == "gauge" or float(number) >= 0, line
    assert family.type != "info" or number == "1", line
    key = name, tuple(own)
    assert key not in family.samples, f"twice: {line}"
    family.samples[key] = float(number)


def _check_histogram(family):
    """Buckets that are sorted and cumulative, with +Inf, which is the count."""
    rows = {}
    for (name, own), number in family.samples.items():
        rest = tuple(pair for pair in own if pair[0] != "le")
        row = rows.setdefault(rest, {"le": []})
        if name.endswith("_bucket"):
            [bound] = [value for label, value in own if label == "le"]
            assert bound == "+Inf" or repr(float(bound)) == bound, bound
            row["le"].append((math.inf if bound == "+Inf" else float(bound), number))
        else:
            row[name[len(family.name):]] = number
    for row in rows.values():
        bounds, counts = zip(*row["le"])
        assert list(bounds) == sorted(set(bounds)) and bounds[-1] == math.inf, bounds
        assert list(counts) == sorted(counts) and counts[-1] == row["_count"], counts
        assert "_sum" in row


def counters(families):
    """{(name, labels): number} of all that must never become less."""
    return {key: number for family in families.values() if family.type in ("counter", "histogram")
            for key, number in family.samples.items()}
