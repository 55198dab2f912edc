"""Ranges of thresholds: the guidelines' own table, units behind numbers, and what is refused."""
import math

import pytest

from modwsgi_tel.check.ranges import Range, figure, read
from modwsgi_tel.errors import UsageError


# Of the guidelines: "Generate an alert if x ...".
@pytest.mark.parametrize("given, alerts, quiet", [
    ("10", (-0.001, -5, 10.001, math.inf), (0, 0.5, 10)),
    ("10:", (9.999, 0, -math.inf), (10, 11, 1e9)),
    ("~:10", (10.001, 1e9), (10, 0, -1e9)),
    ("10:20", (9.999, 20.001, -15), (10, 15, 20)),
    ("@10:20", (10, 15, 20), (9.999, 20.001, -15)),
    ("@~:0", (0, -1), (0.001,)),
    ("0", (0.001, 1, -1), (0,)),
    (":5", (-1, 5.1), (0, 5)),
    ("-20:-10", (-21, -9, 0), (-20, -15, -10)),
    ("-5:5", (-5.1, 5.1), (-5, 0, 5)),
    ("~:", (), (-1e9, 0, 1e9)),
    ("1.5:2.5", (1.4, 2.6), (1.5, 2.5))])
def test_a_range_alerts_where_the_guidelines_say(given, alerts, quiet):
    found = read(given)
    assert ([value for value in (*alerts, *quiet) if found.alerts(value)], [value for value in quiet if found.alerts(value)]) == (
        list(alerts), [])


@pytest.mark.parametrize("given, unit, wanted", [
    ("500ms", "s", Range(0, 0.5, False)), ("1m:2h", "s", Range(60, 7200, False)), ("~:2s", "s", Range(-math.inf, 2, False)),
    ("80%", "share", Range(0, 0.8, False)), ("@0.5:90%", "share", Range(0.5, 0.9, True)), ("1", "share", Range(0, 1, False)),
    ("50%:", "share", Range(0.5, math.inf, False)),
    ("500M", "B", Range(0, 500 << 20, False)), ("1GB", "B", Range(0, 10**9, False)), ("10k:1GiB", "B", Range(10240, 1 << 30, False)),
    ("1e3", "B", Range(0, 1000, False))])
def test_a_number_may_say_its_unit(given, unit, wanted):
    assert read(given, unit) == wanted


@pytest.mark.parametrize("given", ["", "@", "abc", "1,5", "10:20:30", "nan", "inf", "1_000", "\u0661", "~", "10s", "0x10", "1 0", "--1", "1e999",
                                   ":~", "5%", "-"], ids=repr)
def test_what_is_no_range_is_refused_with_what_one_looks_like(given):
    with pytest.raises(UsageError) as caught:
        read(given)
    assert str(caught.value) == f"{given!r} is no range: 10, 10:, ~:10, 10:20 or @10:20"


def test_a_unit_that_the_value_has_not_is_refused_with_those_that_it_has():
    with pytest.raises(UsageError) as caught:
        read("5MB", "s")
    assert str(caught.value) == ("'5MB' is no range: 10, 10:, ~:10, 10:20 or @10:20, and numbers may end in us, ms, s, m, h")


@pytest.mark.parametrize("given", ["20:10", "@5:4", "1:0.5"])
def test_a_range_that_ends_before_it_begins_is_refused(given):
    with pytest.raises(UsageError, match="is no range: it ends before it begins"):
        read(given)


@pytest.mark.parametrize("given", ["80", "80:90", "~:95", "120%", "2:"])
def test_a_share_above_one_is_refused_since_it_would_never_alert(given):
    with pytest.raises(UsageError) as caught:
        read(given, "share")
    assert str(caught.value) == f"{given!r}: a share is from 0 to 1, as 0.8, or write 80%"


@pytest.mark.parametrize("given, factor, wanted", [
    ("10", 1, "10"), ("10:", 1, "10:"), ("~:10", 1, "~:10"), ("10:20", 1, "10:20"), ("@10:20", 1, "@10:20"), ("0:5", 1, "5"), ("~:", 1, "~:"),
    ("@0:1", 100, "@100"), ("0.8", 100, "80"), ("-1:", 1, "-1:"), ("0:", 1, "0:")])
def test_a_range_is_written_as_it_was_meant(given, factor, wanted):
    assert read(given).text(factor) == wanted


@pytest.mark.parametrize("value, wanted", [
    (0, "0"), (12, "12"), (0.1, "0.1"), (1 / 3, "0.333333"), (1e-9, "0.000000001"), (2e15, "2000000000000000"), (-0.0, "0"), (100.0, "100"),
    (1e-15, "0")])
def test_a_figure_has_no_exponent(value, wanted):
    assert figure(value) == wanted
