"""A small share of the damage that ``python -m benchmarks.disk_damage`` does, and the control."""

import logging

import pytest
import torch
from benchmarks.disk_damage import measure

from milepost.disk import file_format

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="milepost.disk")


def test_nothing_that_is_damaged_comes_back_and_nothing_is_raised():
    rows = measure(80)
    assert len(rows) == 9
    assert {row.name: (row.numbers["wrong"], row.numbers["raised"]) for row in rows} == {
        row.name: (0, 0) for row in rows
    }
    # A bit of the index may lie where nothing is written, and then nothing is lost.
    assert all(row.numbers["missed"] for row in rows if not row.name.endswith("of the index"))


def test_the_control_without_checksums_it_would(monkeypatch):
    for name in ("_checksum", "_content_checksum"):
        monkeypatch.setattr(file_format, name, lambda *_, **__: "the same for all")
    rows = measure(80)
    assert sum(row.numbers["wrong"] for row in rows) > 0
