"""What other orders of KV would find where KV is short, and what could be won by a duel of them.

    python -m benchmarks.sglang.orders [--trace LOG] [--requests N] [--json]

Everything but the order in which ends of the tree give up their KV is as with Milepost: where states are put
and which of them go. *Next use* knows the future: what is asked for again last goes first. The *duels* play
Milepost's order and others on caches of their own, follow the one that found more lately, and pay nothing for
a switch, so no duel in one cache can do better. No model is run.
"""

import argparse
import logging
import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

from benchmarks.sglang import absent_torchvision

absent_torchvision.stand_in()

from sglang.srt.mem_cache.unified_cache.components import ComponentType

from benchmarks.printing import Row, print_rows
from benchmarks.sglang.bare_engine import BareEngine
from benchmarks.sglang.replay import POOLS, WORKLOADS, Pools, pools_of, prompts_in
from milepost.sglang.prompt_keys import UnitHash
from milepost.vllm.leading import (
    LEAD_REMEMBERED,
    LEAST_LEAD_ERRORS,
    LEAST_LEAD_PROMPTS,
    MOST_LAG_ERRORS,
)

_Priority = Callable[[Any], tuple[float, ...]]
_SHORT_OF_KV = next(pool for pool in POOLS if pool[1] < pool[0])
_OWN = "Milepost's"
_ORDERS: dict[str, _Priority] = {
    "least recently used": lambda leaf: (leaf.last_access_time,),
    "least often used": lambda leaf: (leaf.hit_count, leaf.last_access_time),
    "used twice stays": lambda leaf: (leaf.hit_count >= 2, leaf.last_access_time),
}
# Standard errors and average prompts that a lead takes, and errors that a lag takes. The careful ones are
# those that rules are changed by inside vLLM.
_DUELS = {
    "careful": (LEAST_LEAD_ERRORS, LEAST_LEAD_PROMPTS, MOST_LAG_ERRORS),
    "quick": (0.5, 0.5, 0.5),
}
# Prefixes are told apart by so many tokens.
_UNIT_TOKENS = 16


class _NextUse:
    """Which of the prompts to come goes through an end of the tree first."""

    def __init__(self, prompts: Sequence[Sequence[int]]) -> None:
        self._hash = UnitHash(_UNIT_TOKENS)
        self._uses: dict[int, list[int]] = {}
        for number, prompt in enumerate(prompts):
            for key in self._hash.keys(prompt).tolist():
                self._uses.setdefault(key, []).append(number)
        self._keys: dict[tuple[int, int], int | None] = {}
        #: The request that is served now.
        self.now = 0

    def priority(self, leaf: Any) -> tuple[float, ...]:
        uses = self._uses.get(self._key(leaf), ())
        at = bisect_right(uses, self.now)
        return (-float(uses[at]) if at < len(uses) else -math.inf, leaf.last_access_time)

    def _key(self, leaf: Any) -> int | None:
        # A node ends at the same token as long as it has this length.
        known = (leaf.id, len(leaf.key))
        if known not in self._keys:
            parts: list[int] = []
            node = leaf
            while node.parent is not None:
                parts[:0] = node.key.token_ids
                node = node.parent
            keys = self._hash.keys(parts)
            self._keys[known] = int(keys[-1]) if keys.size else None
        return self._keys[known]


def found(pools: Pools, prompts: Sequence[Sequence[int]], order: str) -> npt.NDArray[np.int64]:
    """Return the tokens of each prompt that are not computed again under an order, shape ``[requests]``."""
    engine = BareEngine(
        num_states=pools.num_states, num_kv_tokens=pools.num_kv_tokens, chunk=pools.chunk_tokens, signs=False
    )
    leaves = engine.cache.components[ComponentType.FULL]._order
    next_use = _NextUse(prompts) if order == "next use" else None
    if next_use is not None:
        leaves._priority = next_use.priority
    elif order != _OWN:
        leaves._priority = _ORDERS[order]
    reused = []
    for number, prompt in enumerate(prompts):
        if next_use is not None:
            next_use.now = number
            leaves.clear()
        reused.append(engine.serve(prompt)[0])
    return np.array(reused)


def duel(
    reused: Mapping[str, npt.NDArray[np.int64]], num_tokens: npt.NDArray[np.int64], margins: tuple[float, ...]
) -> int:
    """Return the tokens that are not computed again where the order that found more lately leads."""
    errors, least_prompts, errors_back = margins
    names = list(reused)
    leader, total = names[0], 0
    leads = dict.fromkeys(names, 0.0)
    squares = dict.fromkeys(names, 0.0)
    for number in range(num_tokens.size):
        total += int(reused[leader][number])
        for name in names:
            ahead = float(reused[name][number] - reused[leader][number])
            leads[name] = leads[name] * LEAD_REMEMBERED + ahead
            squares[name] = squares[name] * LEAD_REMEMBERED + ahead * ahead
        best = max(names, key=leads.__getitem__)
        error = math.sqrt(squares[best])
        needed = errors_back * error
        if leader == _OWN:
            needed = max(errors * error, least_prompts * float(num_tokens[: number + 1].mean()))
        if best != leader and leads[best] > needed:
            leader = best
            leads, squares = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    return total


def measure(workloads: Mapping[str, tuple[str, float]], num_requests: int) -> list[Row]:
    """Return a row for each workload."""
    return [_row(name, notation, num_requests) for name, (notation, _) in workloads.items()]


def _row(name: str, notation: str, num_requests: int) -> Row:
    prompts = prompts_in(notation, num_requests)
    pools = pools_of(prompts, _SHORT_OF_KV)
    num_tokens = np.array([len(prompt) for prompt in prompts])
    reused = {order: found(pools, prompts, order) for order in (_OWN, *_ORDERS)}
    totals = {order: int(each.sum()) for order, each in reused.items()}
    totals["next use"] = int(found(pools, prompts, "next use").sum())
    pair = {order: reused[order] for order in (_OWN, "least recently used")}
    for label, margins in _DUELS.items():
        totals[f"{label} duel of two"] = duel(pair, num_tokens, margins)
        totals[f"{label} duel of all"] = duel(reused, num_tokens, margins)
    shares = {label: total / int(num_tokens.sum()) for label, total in totals.items()}
    best = max(shares[order] for order in _ORDERS)
    return Row(
        name=f"{name}, {pools.num_states} state slots, {pools.num_kv_tokens:,} tokens of KV",
        measured="; ".join(f"{label} {share:.1%}" for label, share in shares.items()),
        target="Milepost's order >= the others",
        reached=shares[_OWN] >= best,
        numbers={**shares, "num_kv_tokens": pools.num_kv_tokens},
    )


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", help="a log in place of the made-up workloads")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    workloads = {arguments.trace: (arguments.trace, 1.0)} if arguments.trace else WORKLOADS
    print_rows(measure(workloads, arguments.requests), as_json=arguments.json)


if __name__ == "__main__":
    main()
