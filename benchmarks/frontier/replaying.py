"""The same requests, policies and budgets without a model: what is saved, not how long it takes."""

from collections.abc import Sequence

import numpy as np

from benchmarks.frontier.measuring import OURS
from benchmarks.frontier.workloads import FrontierWorkload
from benchmarks.printing import Row
from milepost import Footprint, PrefixCache, parse_policy
from milepost.simulator.replay import Replayer
from milepost.traces import TraceRequest

__all__ = ["rows_of_replay"]


def rows_of_replay(
    workload: FrontierWorkload,
    footprint: Footprint,
    *,
    policies: Sequence[str],
    budgets: Sequence[int],
    segment_tokens: int,
) -> list[Row]:
    """Return a row for each budget: which part of the prompts ``learned`` saves, over what the best other
    policy does.

    Args:
        workload: Its requests.
        footprint: Of the model that the budgets are counted for.
        policies: Names, as ``parse_policy`` takes them, ``learned`` among them.
        budgets: In bytes.
        segment_tokens: Checkpoints lie at multiples of this many tokens, and KV is stored in such pieces.
    """
    rows = []
    for budget in budgets:
        saved = {
            policy: _saved(workload, footprint, policy, budget, segment_tokens=segment_tokens)
            for policy in policies
        }
        ours = saved.pop(OURS)
        rival = max(saved, key=lambda policy: saved[policy])
        ratio = f"{ours / saved[rival]:.3f}" if saved[rival] else "no ratio"
        rows.append(
            Row(
                name=f"{workload.name}, {budget / 1e6:,.0f} MB: saved by {OURS} / best other ({rival})",
                measured=f"{ratio} ({ours:.3f} and {saved[rival]:.3f} of the prompts)",
                target=">= 1.0",
                reached=ours >= saved[rival],
                numbers={"saved": ours, **{f"saved by {policy}": each for policy, each in saved.items()}},
            )
        )
    return rows


def _saved(
    workload: FrontierWorkload, footprint: Footprint, policy: str, budget: int, *, segment_tokens: int
) -> float:
    cache = PrefixCache(
        capacity_bytes=budget, footprint=footprint, policy=parse_policy(policy), grid=segment_tokens
    )
    replayer = Replayer(cache, segment_tokens=segment_tokens)

    def reuse(tokens: np.ndarray) -> int:
        request = TraceRequest(
            request_id="", keys=tokens.astype(np.int64), key_tokens=1, num_tokens=tokens.size
        )
        return replayer.step(request).report.reused

    for tokens in workload.warmup:
        reuse(tokens)
    return sum(map(reuse, workload.requests)) / sum(tokens.size for tokens in workload.requests)
