"""No recurrent state is kept: the last tokens before a resume position are run again from zeros.

In the spirit of SuffixReplay and Tail-Replay, from their descriptions. The KV of the prefix is kept, and is
what a resumed prompt attends to; recurrent and convolution states begin at zero ``num_replayed`` tokens
before the resume position, and are what the model makes of those tokens. The papers also keep hidden states
of some layers, so that the layers after them have exact inputs; that takes bytes for every token and is left
out here, so this replay is cheaper in memory than theirs, and less exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from milepost.engines.transformers.driver import LiveCache, TransformersDriver
from milepost.engines.transformers.snapshot import KVSegment, StateSnapshot, zero_state

__all__ = ["ReplayingDriver", "advance_in_pieces", "replayed_state"]


def advance_in_pieces(
    driver: Any, live: LiveCache, tokens: torch.Tensor, *, piece_tokens: int
) -> torch.Tensor:
    """Run ``tokens`` with a cut at every multiple of ``piece_tokens`` of the sequence; return the last
    logits.
    """
    done = 0
    while done < tokens.numel():
        end = min(tokens.numel(), done + piece_tokens - live.position % piece_tokens)
        logits: torch.Tensor = driver.advance(live, tokens[done:end])
        done = end
    return logits


def replayed_state(
    driver: TransformersDriver,
    tokens: torch.Tensor,
    kv: Sequence[KVSegment],
    *,
    num_replayed: int,
    piece_tokens: int,
) -> StateSnapshot:
    """Return the state after ``tokens`` that the last ``num_replayed`` of them make from zeros; the exact one
    where these are all.

    Args:
        driver: Runs the model.
        tokens: The prefix, shape ``[num_tokens]``.
        kv: Its keys and values, in order.
        num_replayed: How many of its tokens are run again.
        piece_tokens: In what pieces; as the cold run is cut, where the result is to be exact.
    """
    start = max(0, tokens.numel() - num_replayed)
    live = driver.start(num_tokens=tokens.numel())
    if start:
        blank = _blank_state(driver, tokens.numel())
        whole = driver.restore(blank, kv, position=tokens.numel(), num_tokens=tokens.numel())
        before = driver.kv(whole, 0, start)
        live = driver.restore(
            replace(blank, position=start), [before], position=start, num_tokens=tokens.numel()
        )
    if num_replayed:
        advance_in_pieces(driver, live, tokens[start:], piece_tokens=piece_tokens)
        return driver.capture(live)
    return _blank_state(driver, tokens.numel())


def _blank_state(driver: TransformersDriver, position: int) -> StateSnapshot:
    """Return zeros in place of a state."""
    live = driver.start()
    driver.advance(live, torch.zeros(1, dtype=torch.int64))
    return replace(zero_state(driver.capture(live)), position=position)


@dataclass(slots=True)
class _RecordedCache(LiveCache):
    """A sequence that knows its tokens: without states, they are what a resumed one is made from."""

    tokens: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


@dataclass(frozen=True, slots=True)
class _RecordedSegment(KVSegment):
    """Keys and values, and the tokens that they are of: those are a cache's key, and take no more bytes."""

    tokens: torch.Tensor


class ReplayingDriver:
    """A driver that keeps KV alone and replays; in all else it is the one that it is given.

    Attributes:
        num_replayed: Tokens that were run again so far.
    """

    def __init__(self, driver: TransformersDriver, *, num_replayed: int, piece_tokens: int) -> None:
        self._driver = driver
        self._tokens_per_hit = num_replayed
        self._piece_tokens = piece_tokens
        self.num_replayed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def start(self, *, num_tokens: int = 1) -> LiveCache:
        """Return a sequence that has computed nothing."""
        return _recorded(self._driver.start(num_tokens=num_tokens), torch.empty(0, dtype=torch.int64))

    def advance(self, live: _RecordedCache, tokens: torch.Tensor) -> torch.Tensor:
        """Run ``tokens``, and remember them."""
        logits = self._driver.advance(live, tokens)
        live.tokens = torch.cat((live.tokens, tokens))
        return logits

    def kv(self, live: _RecordedCache, start: int, end: int) -> KVSegment:
        """Return the KV of ``[start, end)``, with the tokens that a replay needs."""
        piece = self._driver.kv(live, start, end)
        return _RecordedSegment(piece.start, piece.end, piece.tensors, live.tokens[start:end])

    def restore(
        self, state: None, kv: Sequence[_RecordedSegment], *, position: int, num_tokens: int
    ) -> LiveCache:
        """Return a sequence that goes on from a replayed state."""
        del state
        tokens = torch.cat([piece.tokens for piece in kv])
        made = replayed_state(
            self._driver, tokens, kv, num_replayed=self._tokens_per_hit, piece_tokens=self._piece_tokens
        )
        self.num_replayed += min(self._tokens_per_hit, position)
        live = self._driver.restore(made, kv, position=position, num_tokens=num_tokens)
        return _recorded(live, tokens)


def _recorded(live: LiveCache, tokens: torch.Tensor) -> _RecordedCache:
    return _RecordedCache(live.cache, live.position, live.frequency_length, tokens)
