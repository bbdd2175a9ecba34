"""Segments are as short as the device bears: known for a CPU, measured elsewhere."""

import logging
from types import SimpleNamespace

import pytest
import torch
from resuming import tiny_driver

from milepost.engines.transformers import segments as segments_module
from milepost.engines.transformers.segments import fitting_segment, shortest_within


class Device:
    """A device that a call costs so much beside its tokens; the first call of all is slow."""

    def __init__(self, per_call: float, per_token: float = 1.0) -> None:
        self.per_call, self.per_token, self.warm_up = per_call, per_token, 1e6

    def seconds(self, num_tokens: int, segment_tokens: int) -> float:
        extra, self.warm_up = self.warm_up, 0.0
        return extra + num_tokens * self.per_token + -(-num_tokens // segment_tokens) * self.per_call


@pytest.mark.parametrize(("per_call", "chosen"), [(0, 256), (7, 256), (10, 512), (20, 1024), (900, 2048)])
def test_the_shortest_that_costs_little_is_chosen(per_call, chosen):
    device = Device(per_call)
    choice = shortest_within(
        0.03, (256, 512, 1024, 2048), uncut=4096, seconds=lambda length: device.seconds(4096, length)
    )
    assert choice.num_tokens == chosen
    assert (choice.loss <= 0.03) == (per_call < 900)


@pytest.mark.parametrize(("family", "length"), [("qwen3_5", 256), ("mamba2", 256)])
def test_on_a_cpu_it_is_known_and_aligned(family, length):
    driver = tiny_driver(family, torch.float32)
    choice = fitting_segment(driver)
    assert choice.num_tokens == -(-length // driver.alignment) * driver.alignment
    assert choice.loss is None


def test_on_another_device_it_is_measured_and_said(monkeypatch, caplog):
    device = Device(per_call=20)
    monkeypatch.setattr(
        segments_module,
        "seconds_to_prefill",
        lambda driver, num_tokens, *, segment_tokens: device.seconds(num_tokens, segment_tokens),
    )
    driver = SimpleNamespace(
        device=torch.device("cuda"), alignment=64, context_length=None, family="some_family"
    )
    with caplog.at_level(logging.INFO, logger="milepost"):
        choice = fitting_segment(driver)
    assert choice.num_tokens == 1024
    assert "some_family on cuda: prompts are cut every 1024 tokens" in caplog.text


def test_a_short_context_is_measured_at_its_own_length(monkeypatch):
    asked = []

    def seconds(driver, num_tokens, *, segment_tokens):
        asked.append((num_tokens, segment_tokens))
        return 1.0

    monkeypatch.setattr(segments_module, "seconds_to_prefill", seconds)
    driver = SimpleNamespace(device=torch.device("xpu"), alignment=64, context_length=600, family="short")
    assert fitting_segment(driver).num_tokens == 256
    assert {num_tokens for num_tokens, _ in asked} == {600}
    assert max(segment for _, segment in asked) == 600
