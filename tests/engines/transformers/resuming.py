"""Runs of one prompt under chosen cuts, with what a later request would find in the store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch

from families import tiny_model, tiny_prompt
from milepost.engines.transformers.driver import LiveCache, TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.sequence_layers import plain_vars
from milepost.engines.transformers.snapshot import (
    KVSegment,
    StateSnapshot,
    build_cache,
    capture_state,
    slice_kv,
    zero_state,
)

torch.set_num_threads(1)


@dataclass(frozen=True)
class Run:
    """A prompt run through ``cuts``; logits, state and KV at and between them."""

    driver: TransformersDriver
    tokens: torch.Tensor
    cuts: tuple[int, ...]
    logits: dict[int, torch.Tensor]
    snapshots: dict[int, StateSnapshot]
    segments: list[KVSegment]
    live: LiveCache

    def segments_before(self, position: int) -> list[KVSegment]:
        return [segment for segment in self.segments if segment.end <= position]


@cache
def tiny_driver(family: str, dtype: torch.dtype) -> TransformersDriver:
    return driver_for(tiny_model(family, dtype))


def prompt(num_tokens: int, seed: int = 0) -> torch.Tensor:
    return tiny_prompt(num_tokens, seed)[0]


def grid_cuts(num_tokens: int, step: int) -> tuple[int, ...]:
    return (*range(0, num_tokens, step), num_tokens)


def run_cold(driver: TransformersDriver, tokens: torch.Tensor, cuts: Sequence[int]) -> Run:
    live = driver.start()
    logits, snapshots, segments = {}, {}, []
    for start, end in pairwise(cuts):
        logits[end] = driver.advance(live, tokens[start:end])
        snapshots[end] = capture_state(live.cache, end)
        segments.append(slice_kv(live.cache, start, end))
    return Run(driver, tokens, tuple(cuts), logits, snapshots, segments, live)


def resume(
    run: Run, position: int, tokens: torch.Tensor, cuts: Sequence[int], *, lose_state: bool = False
) -> tuple[dict[int, torch.Tensor], LiveCache]:
    """Continue ``tokens`` from what ``run`` left at ``position``, through those of ``cuts`` beyond it."""
    snapshot, segments = run.snapshots[position], run.segments_before(position)
    if lose_state and snapshot.num_bytes:
        snapshot = zero_state(snapshot)
    elif lose_state:
        segments = [
            KVSegment(piece.start, piece.end, {key: torch.zeros_like(t) for key, t in piece.tensors.items()})
            for piece in segments
        ]
    live = LiveCache(build_cache(snapshot, segments, new_cache=run.driver.new_cache), position)
    logits = {}
    for start, end in pairwise(cut for cut in cuts if cut >= position):
        logits[end] = run.driver.advance(live, tokens[start:end])
    return logits, live


def contents(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Walk everything a cache or a snapshot's frame holds, down to tensors and plain values."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from contents(item, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from contents(item, f"{path}[{index}]")
    elif hasattr(value, "layers") or type(value).__name__.endswith(("Layer", "Cache")):
        for name, item in plain_vars(value).items():
            if name != "config":
                yield from contents(item, f"{path}.{name}")
    else:
        yield path, value


def assert_same_contents(actual: Any, expected: Any) -> None:
    actual_items, expected_items = dict(contents(actual)), dict(contents(expected))
    assert actual_items.keys() == expected_items.keys()
    for path, value in expected_items.items():
        other = actual_items[path]
        if isinstance(value, torch.Tensor):
            assert value.dtype == other.dtype, path
            assert torch.equal(value, other), path
        else:
            assert value == other, path


def assert_same_logits(actual: dict[int, torch.Tensor], expected: dict[int, torch.Tensor]) -> None:
    assert actual
    for position, logits in actual.items():
        assert torch.equal(logits, expected[position]), f"logits after {position} tokens"


def distance(logits: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative distance of two rows of logits: 0 for equal, about 1.4 for unrelated ones."""
    logits, reference = logits.float(), reference.float()
    return float((logits - reference).norm() / (reference - reference.mean()).norm())
