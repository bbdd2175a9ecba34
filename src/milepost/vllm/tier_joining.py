"""Tells the policies of CPU tiers what the scheduler knows: how caches lie, and what is asked."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from milepost.policies import CachePolicy, learned
from milepost.vllm.layout import PoolLayout
from milepost.vllm.served_prompts import ServedPrompts
from milepost.vllm.tier_index import TierIndex

__all__ = ["join_tiers"]


def join_tiers(
    policies: Sequence[Any], blocks_per_chunk: Sequence[int], *, layout: PoolLayout, policy: CachePolicy
) -> Sequence[ServedPrompts]:
    """Have policies of tiers go by worth; return where each is told of the requests that are done.

    Args:
        policies: Those of ``milepost.vllm.TierPolicy``.
        blocks_per_chunk: Blocks of the pool in a chunk of each.
        layout: How caches lie in the pool.
        policy: The pool's, not used yet; each tier begins with what that has learned elsewhere.
    """
    told = []
    for tier, num_blocks in zip(policies, blocks_per_chunk, strict=True):
        served = ServedPrompts()
        tier.join(_index_maker(layout, num_blocks, policy), served.take)
        told.append(served)
    return told


def _index_maker(
    layout: PoolLayout, num_blocks: int, policy: CachePolicy
) -> Callable[[int, Callable[[bytes], bool]], TierIndex]:
    def make(capacity: int, is_resident: Callable[[bytes], bool]) -> TierIndex:
        its_own = learned()
        if policy.lessons is not None and its_own.lessons is not None:
            its_own.lessons.restore(policy.lessons.export())
        return TierIndex(
            replace(
                layout,
                num_blocks=capacity,
                block_tokens=num_blocks * layout.block_tokens,
                # vLLM stores the rest of a prompt only where a chunk is a block.
                hits_inside=layout.hits_inside and num_blocks == 1,
            ),
            policy=its_own,
            is_resident=is_resident,
        )

    return make
