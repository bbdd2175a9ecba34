"""docs/watching.md says what there is."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

import milepost
from milepost.server.sight.metrics import METRICS
from milepost.server.sight.record import Record
from milepost.server.sight.tally import Tally

PAGE = Path(milepost.__file__).parents[2] / "docs" / "watching.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="an installed package has no docs")


def test_the_table_has_every_metric_with_its_labels_and_text():
    rows = re.findall(r"^\| `(milepost_\w+)` \| (.*?) \| (.*) \|$", PAGE.read_text(), flags=re.M)
    told = {name: (labels, text) for name, labels, text in rows}
    registry = CollectorRegistry()
    Tally(registry)
    expected = {
        metric.name: (", ".join(f"`{label}`" for label in metric.labels) or "–", metric.text)
        for metric in METRICS
    } | {family.name: ("histogram", family.documentation) for family in registry.collect()}
    assert told == expected
    assert len(rows) == len(told)


def test_the_line_of_log_has_the_fields_of_a_record():
    (line,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), flags=re.S)
    fields = set(re.findall(r'"(\w+)":', line))
    record = Record(request_id="r", at=0.0, method="POST", path="/", status=200).as_json()
    assert set(record) - {"at", "answers"} < fields
