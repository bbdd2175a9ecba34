"""Prompts through a driver, cut as one likes."""

from itertools import pairwise

import numpy as np
import torch


def random_tokens(number: int, seed: int = 0, vocabulary: int = 512) -> torch.Tensor:
    """Ordinary tokens: past the bytes and what is special."""
    return torch.from_numpy(np.random.default_rng(seed).integers(290, vocabulary, number))


def run(driver, live, tokens, cuts=None) -> torch.Tensor:
    """Run ``tokens`` behind what ``live`` has computed, cut at ``cuts``; return the last logits."""
    for start, end in pairwise([live.position, *(cuts or ()), tokens.numel()]):
        logits = driver.advance(live, tokens[start:end])
    return logits


def cold(driver, tokens) -> torch.Tensor:
    """Return the logits of a run from nothing, in one go, in a place that nobody used."""
    driver.release()
    live = driver.start(num_tokens=tokens.numel())
    logits = run(driver, live, tokens)
    live.forget()
    driver.close(live)
    return logits


def keep(driver, live, boundaries):
    """Return the state of ``live``, and its KV in pieces between ``boundaries`` and where it stands."""
    ends = [*(each for each in boundaries if each < live.position), live.position]
    return driver.capture(live), [driver.kv(live, start, end) for start, end in pairwise([0, *ends])]


def restore(driver, state, kv, tokens):
    """Return a live sequence that goes on from what was kept."""
    has_state = driver.transfer.memory.has_state
    position = state.position if has_state else kv[-1].end
    return driver.restore(state if has_state else None, kv, position=position, num_tokens=tokens.numel())
