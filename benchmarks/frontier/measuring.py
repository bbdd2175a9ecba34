"""Every request under every policy and budget, in turns."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.frontier.workloads import FrontierWorkload
from milepost.engines.engine import Engine
from milepost.footprint import Footprint

__all__ = ["OFF", "OURS", "FrontierRun", "budgets_of", "measure_workload"]

OFF = "none"
"""No cache: the base of every ratio."""
OURS = "learned"
"""The policy that is held against the others."""


@dataclass(slots=True)
class FrontierRun:
    """One policy under one budget on one workload.

    Attributes:
        policy: Its name.
        capacity_bytes: The budget.
        total_seconds: To the first tokens of all requests, capture included; the median over turns.
        totals: The same of each turn.
        off_ratios: Of each turn, over that of the cache that is off.
        p50_seconds: To a first token, of all turns.
        p95_seconds: Likewise.
        capture_seconds: Of a turn, on taking and storing states; the median.
        saved_fraction: Prompt tokens that were not computed.
        checkpoints_per_entry: Held for each prompt that the largest budget has room for, on average.
        checkpoint_bytes: Held, on average over requests.
        kv_bytes: Likewise.
        num_different: Requests whose logits were not those of the cache that is off.
    """

    policy: str
    capacity_bytes: int
    total_seconds: float = 0.0
    totals: list[float] = field(default_factory=list)
    off_ratios: list[float] = field(default_factory=list)
    p50_seconds: float = 0.0
    p95_seconds: float = 0.0
    capture_seconds: float = 0.0
    saved_fraction: float = 0.0
    checkpoints_per_entry: float = 0.0
    checkpoint_bytes: float = 0.0
    kv_bytes: float = 0.0
    num_different: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it for a file."""
        return asdict(self)


@dataclass(slots=True)
class _Seen:
    """What one engine did in one turn."""

    seconds: list[float] = field(default_factory=list)
    capture: list[float] = field(default_factory=list)
    reused: int = 0
    held: list[int] = field(default_factory=list)
    checkpoint_bytes: list[int] = field(default_factory=list)
    kv_bytes: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)


def budgets_of(workload: FrontierWorkload, footprint: Footprint, shares: Sequence[float]) -> list[int]:
    """Return budgets: shares of what holds the workload's entries whole, with a checkpoint for each."""
    entry = workload.mean_tokens * footprint.kv_bytes_per_token + footprint.checkpoint_bytes
    return [round(share * workload.num_entries * entry) for share in shares]


def measure_workload(
    workload: FrontierWorkload,
    engine: Engine,
    *,
    policies: Sequence[str],
    budgets: Sequence[int],
    num_turns: int,
    on_request: Callable[[], None],
) -> list[FrontierRun]:
    """Return what each policy did under each budget, that of no cache first.

    Args:
        workload: Its requests.
        engine: Its model is shared by all.
        policies: Names, as ``parse_policy`` takes them.
        budgets: In bytes.
        num_turns: Each with empty caches.
        on_request: Told of every request that was computed, for a progress bar.
    """
    pairs = [(OFF, budgets[-1]), *((policy, budget) for budget in budgets for policy in policies)]
    turns = [_turn(workload, engine, pairs, on_request) for _ in range(num_turns)]
    return [
        _run(workload, pair, [turn[pair] for turn in turns], [turn[pairs[0]] for turn in turns])
        for pair in pairs
    ]


def _turn(
    workload: FrontierWorkload,
    engine: Engine,
    pairs: Sequence[tuple[str, int]],
    on_request: Callable[[], None],
) -> dict[tuple[str, int], _Seen]:
    engines = {pair: engine.sibling(capacity=pair[1], policy=pair[0]) for pair in pairs}
    seen = {pair: _Seen() for pair in pairs}
    for pair in pairs:
        for tokens in workload.warmup:
            engines[pair].generate(tokens, max_new_tokens=1, temperature=0.0)
    for number, tokens in enumerate(workload.requests):
        first = number % len(pairs)
        for pair in (*pairs[first:], *pairs[:first]):
            _compute(engines[pair], tokens, seen[pair])
            on_request()
    return seen


def _compute(engine: Engine, tokens: np.ndarray, seen: _Seen) -> None:
    started = time.perf_counter()
    completion = engine.generate(tokens, max_new_tokens=1, temperature=0.0)
    seen.seconds.append(time.perf_counter() - started)
    held = engine.cache.statistics()
    seen.capture.append(completion.capture_seconds)
    seen.reused += completion.report.reused
    seen.held.append(held.num_checkpoints)
    seen.checkpoint_bytes.append(held.checkpoint_bytes)
    seen.kv_bytes.append(held.kv_bytes)
    seen.digests.append(completion.prompt_logits_digest)


def _run(
    workload: FrontierWorkload, pair: tuple[str, int], turns: Sequence[_Seen], off: Sequence[_Seen]
) -> FrontierRun:
    policy, budget = pair
    totals = [sum(turn.seconds) for turn in turns]
    seconds = np.concatenate([turn.seconds for turn in turns])
    return FrontierRun(
        policy=policy,
        capacity_bytes=budget,
        total_seconds=statistics.median(totals),
        totals=totals,
        off_ratios=[total / sum(other.seconds) for total, other in zip(totals, off, strict=True)],
        p50_seconds=float(np.quantile(seconds, 0.5)),
        p95_seconds=float(np.quantile(seconds, 0.95)),
        capture_seconds=statistics.median(sum(turn.capture) for turn in turns),
        saved_fraction=turns[0].reused / sum(tokens.size for tokens in workload.requests),
        checkpoints_per_entry=float(np.mean(turns[0].held)) / workload.num_entries,
        checkpoint_bytes=float(np.mean(turns[0].checkpoint_bytes)),
        kv_bytes=float(np.mean(turns[0].kv_bytes)),
        num_different=sum(
            one != other
            for turn, base in zip(turns, off, strict=True)
            for one, other in zip(turn.digests, base.digests, strict=True)
        ),
    )
