"""Tail and junction the plain way: one ordered dictionary over blocks and states, and nothing else.

What a cache costs beyond this is what its tree, its policy and its accounting cost. It knows no placement
policy, forgets what it evicts, and says nothing of why a token was lost.
"""

from collections import OrderedDict
from collections.abc import Sequence

__all__ = ["replay_dictionary"]


def replay_dictionary(
    prompts: Sequence[tuple[list[int], int]],
    *,
    block_tokens: int,
    capacity_kv_tokens: int,
    checkpoint_kv_tokens: int,
) -> int:
    """Return the tokens reused under least-recently-used eviction. O(blocks).

    Args:
        prompts: Ids of the blocks, whose equality means that all before them is equal too, with the length
            in tokens.
        block_tokens: Length of a block.
        capacity_kv_tokens: One budget for blocks and states.
        checkpoint_kv_tokens: What a state takes of it.
    """
    # A state has the inverted id of the block that it comes after.
    held: OrderedDict[int, None] = OrderedDict()
    touch = held.move_to_end
    free_tokens = capacity_kv_tokens
    reused_tokens = 0
    for block_ids, num_tokens in prompts:
        num_full = num_tokens // block_tokens
        matched = 0
        for block_id in block_ids[:num_full]:
            if block_id not in held:
                break
            matched += 1
        tail = (num_tokens - 1) // block_tokens
        resume = min(matched, tail)
        while resume and ~block_ids[resume - 1] not in held:
            resume -= 1
        reused_tokens += resume * block_tokens
        if resume:
            touch(~block_ids[resume - 1])
        # The last block first, so that a prompt is evicted from its end.
        for block_id in reversed(block_ids[:num_full]):
            if block_id in held:
                touch(block_id)
            else:
                held[block_id] = None
                free_tokens -= block_tokens
        for position in (matched, tail):
            if position > resume:
                state = ~block_ids[position - 1]
                if state in held:
                    touch(state)
                else:
                    held[state] = None
                    free_tokens -= checkpoint_kv_tokens
        while free_tokens < 0:
            evicted, _ = held.popitem(last=False)
            free_tokens += block_tokens if evicted >= 0 else checkpoint_kv_tokens
    return reused_tokens
