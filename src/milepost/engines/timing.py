"""How long an engine takes for a prompt, past its cache."""

import time

import torch

from milepost.engines.base import Driver

__all__ = ["seconds_to_prefill"]


def seconds_to_prefill(driver: Driver, num_tokens: int, *, segment_tokens: int) -> float:
    """Return the seconds of one cold prefill of ``num_tokens`` tokens, cut at every segment."""
    tokens = (torch.arange(num_tokens) % driver.vocabulary_size).to(driver.device)
    live = driver.start(num_tokens=num_tokens)
    driver.wait_for_device()
    started = time.perf_counter()
    for piece in tokens.split(segment_tokens):
        driver.advance(live, piece)
    driver.wait_for_device()
    seconds = time.perf_counter() - started
    driver.close(live)
    return seconds
