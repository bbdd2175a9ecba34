"""The dashboard shows what is there: all metrics of ours by their names, on panels that do not overlap."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from milepost.vllm import metrics

DASHBOARD = Path(__file__).parents[2] / "examples" / "vllm" / "grafana-dashboard.json"


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(DASHBOARD.read_text())


def expressions(dashboard):
    variables = [each["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    return [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())] + variables


def exported_names():
    """Return the names of the plugin's metrics as they stand on ``/metrics``."""
    registry = CollectorRegistry()
    for name, text in metrics._COUNTERS.items():
        Counter(name, text, registry=registry)
    for name, (_, text) in metrics._GAUGES.items():
        Gauge(name, text, registry=registry)
    return set(re.findall(r"^(\w+) ", generate_latest(registry).decode(), flags=re.M))


def test_every_metric_of_ours_on_it_is_exported(dashboard):
    shown = {name for each in expressions(dashboard) for name in re.findall(r"\bmilepost_\w+", each)}
    assert shown <= exported_names()
    assert {name for name in exported_names() - shown if not name.endswith("_created")} == set()


def test_each_panel_has_a_place_of_its_own_and_asks_the_chosen_source(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    cells = []
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells.append(
            {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
        )
        if panel["type"] != "row":
            assert panel["targets"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert all(one.isdisjoint(other) for one, other in combinations(cells, 2))
