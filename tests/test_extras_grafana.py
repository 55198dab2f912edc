"""The dashboard for Grafana names only metrics that there are, and all of them."""
import json
import os
import re
import shutil
import subprocess

import pytest

import running
from modwsgi_tel.extras import grafana, prometheus
from modwsgi_tel.openmetrics.table import BY_METRIC, COLLECTOR, METRICS, labels_of, series_of
from modwsgi_tel.wire.fields import PHASES

PATH = os.path.join(running.ROOT, "modwsgi_tel", "extras", "static", "grafana", "modwsgi-tel.json")
# What Grafana puts in for its variables.
CHOSEN = {"$__rate_interval": "1m", "$job": ".*", "$instance": "web1:8888|web2:8888", "$process_group": ".*"}


@pytest.fixture(scope="module")
def dashboard():
    with open(PATH, encoding="utf-8") as handle:
        return json.load(handle)


def panels(dashboard):
    """All that draw, those in a row that is folded too."""
    for panel in dashboard["panels"]:
        yield from ([panel] if panel["type"] != "row" else panel["panels"])


def expressions(dashboard):
    """Each expression of a panel as it is asked: with values for the variables, for each phase."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            for phase in PHASES if "${phase}" in target["expr"] else PHASES[:1]:
                asked = target["expr"].replace("${phase}", phase)
                for name, value in CHOSEN.items():
                    asked = asked.replace(name, value)
                assert "$" not in asked, asked
                yield asked


def names_in(expr):
    """The metrics of an expression with the labels that it asks for."""
    for name, selector in re.findall(r"(modwsgi_[a-z0-9_]+)(?:\{([^}]*)\})?", expr):
        yield name, re.findall(r"(\w+)[=!]~?\"", selector)


def test_it_names_only_metrics_that_there_are_with_labels_that_they_have(dashboard):
    known = {name: metric for metric in METRICS for name in series_of(metric)}
    recorded = {each.name for each in prometheus.recordings()}
    for expr in expressions(dashboard):
        found = list(names_in(expr))
        assert found or re.search(r"\b(up\{|ALERTS\{)", expr), expr
        for name, labels in found:
            assert name in known or name in recorded, name
            assert set(labels) <= {"job", "instance", "le", *labels_of(known[name])}, (name, labels)


def test_every_family_is_shown_and_every_series_is_chosen_by_the_variables(dashboard):
    shown = set()
    for expr in expressions(dashboard):
        for name, labels in names_in(expr):
            metric = next(metric for metric in METRICS if name in series_of(metric))
            shown.add(metric.name)
            wanted = {"job", "instance"} | ({"process_group"} if metric.scope != COLLECTOR else set())
            assert wanted <= set(labels), expr
    assert shown == set(BY_METRIC)


def test_the_labels_that_are_summed_by_and_shown_are_labels_that_there_are(dashboard):
    for panel in panels(dashboard):
        for target in panel["targets"]:
            metrics = [metric for name, _ in names_in(target["expr"].replace("${phase}", "request")) for metric in METRICS if name in series_of(metric)]
            known = {"instance", "job", "le"} | {label for metric in metrics for label in labels_of(metric)}
            by = {label.strip() for found in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for label in found.split(",")}
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert by <= known and legend <= known, (panel["title"], by, legend)
            aggregated = target["expr"].startswith(("sum", "histogram_quantile"))
            assert not aggregated or legend <= by, (panel["title"], "is summed away")


def test_promtool_parses_every_expression(dashboard, tmp_path):
    if not shutil.which("promtool"):
        pytest.skip("no promtool (apt-get install prometheus)")
    every = list(dict.fromkeys(expressions(dashboard)))
    rules = [{"record": f"panel:number:{number}", "expr": expr} for number, expr in enumerate(every)]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.json")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True, timeout=60)
    assert done.returncode == 0 and f"SUCCESS: {len(every)} rules found" in done.stdout, done.stdout
    assert len(every) > 100


def test_every_panel_says_what_it_shows_has_a_place_of_its_own_and_asks_the_chosen_prometheus(dashboard):
    numbers, taken = [], set()
    for panel in [*dashboard["panels"], *panels(dashboard)]:
        numbers.append(panel["id"]) if panel not in dashboard["panels"] or panel["type"] == "row" else None
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == grafana.DATASOURCE and all(target["datasource"] == grafana.DATASOURCE for target in panel["targets"])
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH")[:len(panel["targets"])]
        assert panel["description"] or "${phase}" in panel["targets"][0]["expr"], panel["title"]
    for panel in panels(dashboard):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= grafana.WIDTH
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    every = [panel["id"] for panel in dashboard["panels"]] + [panel["id"] for row in dashboard["panels"] if row["type"] == "row" for panel in row["panels"]]
    assert len(set(every)) == len(every)


def test_its_variables_are_those_that_it_uses_and_are_asked_of_metrics_that_there_are(dashboard):
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z_]+)\}?", json.dumps(dashboard))) - {"__rate_interval", "__all"}
    assert set(variables) == used
    for each in variables.values():
        if each["type"] == "query":
            name, label = re.fullmatch(r"label_values\((modwsgi_\w+)(?:\{[^}]*\})?, (\w+)\)", each["definition"]).groups()
            assert label in ("job", "instance", *labels_of(BY_METRIC[name])) and each["allValue"] == ".*"
    assert variables["phase"]["query"].split(",") == list(PHASES)
