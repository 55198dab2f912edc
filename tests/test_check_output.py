"""What check prints: by the guidelines' grammar, whatever the servers call themselves."""
import json
import random

from modwsgi_tel.check.output import CRITICAL, FIGURES, LARGEST, OK, UNKNOWN, WARNING, Figure, Outcome, as_json, as_text, worst
from modwsgi_tel.check.ranges import read
from plugins import Datum, parsed

GUNK = ("a|b", "it's", "x=1", "two words", "line\nend", "tab\t", "\x1b[31mred", "\u202eleft", "", " ", "'", "=", "|",
        "\\n", "\ud800", "1;2;3", "d\u00e9j\u00e0",
        "x" * 300, "%s{}", "$USER1$", "<b>")


def test_one_line_says_it_with_performance_data_and_details_follow():
    outcome = Outcome(WARNING, "capacity: shop: 84 % busy", ("WARNING: shop: 84 % busy", "OK: api: 3 % busy"), (
        Figure("shop", 0.84, "%", read("0.8"), read("@0.9:1"), 0, 1), Figure("api", None, "%", read("0.8"), None, 0, 1),
        Figure("seen", 12, "c")))
    assert as_text(outcome) == ("TEL WARNING - capacity: shop: 84 % busy|'shop'=84%;80;@90:100;0;100 'api'=U;80;;0;100 'seen'=12c\n"
                                "WARNING: shop: 84 % busy\nOK: api: 3 % busy\n")


def test_without_figures_there_is_no_bar():
    assert as_text(Outcome(UNKNOWN, "no data")) == "TEL UNKNOWN - no data\n"


def test_what_servers_call_themselves_makes_neither_lines_nor_values():
    said = parsed(as_text(Outcome(OK, " and ".join(GUNK[:-6]), tuple(f"OK: {name}" for name in GUNK), tuple(Figure(name, 1, "s") for name in GUNK))))
    assert (said.status, len(said.data), len(said.details)) == ("OK", len(GUNK), len(GUNK))
    assert set(said.data.values()) == {Datum("1", "s", None, None, None, None)}


def test_names_that_look_the_same_keep_values_of_their_own():
    names = ["a|b", "a/b", "a/b", "x" * 200, "x" * 201]
    said = parsed(as_text(Outcome(OK, "x", (), tuple(Figure(name, place) for place, name in enumerate(names)))))
    assert {label: datum.value for label, datum in said.data.items()} == {
        "a/b": "0", "a/b#2": "1", "a/b#3": "2", "x" * 64: "3", "x" * 58 + "#2": "4"}


def test_any_text_keeps_to_the_grammar():
    # For any texts and numbers the output parses, and is no larger than Nagios reads.
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)

    def text(most):
        return "".join(rng.choice("ab |'=;\n\\\x00\u00e9\u2028\U0001f600%") for _ in range(rng.randrange(most)))

    for _ in range(100):
        figures = tuple(Figure(text(90), rng.choice((None, 0, 1.5, 1e12, 1e-7)), rng.choice(("", "s", "B", "c", "%")), rng.choice((None, read("5"))),
                               rng.choice((None, read("@1:2"))), rng.choice((None, 0)), rng.choice((None, 1))) for _ in range(rng.randrange(80)))
        outcome = Outcome(rng.randrange(4), "x" + text(600), tuple("x" + text(300) for _ in range(rng.randrange(60))), figures)
        output = as_text(outcome)
        said = parsed(output)
        assert len(output.encode("ascii", "backslashreplace")) <= LARGEST
        assert len(said.data) <= FIGURES
        if len(said.data) < len(figures):
            assert said.details[0] == f"{len(figures) - len(said.data)} more values have no performance data"


def test_more_than_nagios_reads_is_cut_and_said():
    details = tuple("d" * 230 for _ in range(100))
    said = parsed(as_text(Outcome(CRITICAL, "t" * 999, details, tuple(Figure(f"group{n}", n) for n in range(60)))))
    assert said.text == "t" * 237 + "..."
    assert list(said.data) == [f"group{n}" for n in range(FIGURES)]
    shown = len(said.details) - 2
    assert (said.details[0], said.details[-1]) == ("10 more values have no performance data", f"... and {100 - shown} more lines")


def test_the_same_as_json_is_strict_and_ascii():
    outcome = Outcome(CRITICAL, "d\u00e9j\u00e0\n|", ("one",), (Figure("it's|", 0.84, "%", read("0.8"), None, 0, 1), Figure("b", None, "s")))
    text = as_json(outcome, "capacity")
    assert text.isascii() and json.loads(text) == {
        "check": "capacity", "status": "CRITICAL", "exit_status": 2, "text": "d\u00e9j\u00e0\n|", "details": ["one"], "figures": [
            {"label": "it's|", "value": 0.84, "unit": "", "warning": "0.8", "critical": None},
            {"label": "b", "value": None, "unit": "s", "warning": None, "critical": None}]}


def test_what_is_known_to_be_bad_counts_before_what_is_not_known():
    assert [worst(case) for case in ((), (OK,), (OK, UNKNOWN), (UNKNOWN, WARNING), iter((WARNING, UNKNOWN, CRITICAL, OK)))] == [
        OK, OK, UNKNOWN, WARNING, CRITICAL]
