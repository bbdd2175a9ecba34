"""vLLM's blocks, as the plugin and the stock scheduler are both simulated on them.

Attention blocks are lengthened until one holds a layer's state, states and KV share one pool of such blocks,
and a position is a block's end. With a *match unit* a hit may land inside a block; a state kept there takes
a copy of that block of KV with it.
"""

from dataclasses import replace

from milepost.footprint import Footprint
from milepost.recommend.situation import Situation

__all__ = ["block_notes", "block_tokens", "footprint_in_blocks", "match_unit_tokens"]

# A multiple of every family's kernel chunk so far: answers stay the same to the last bit.
_EXACT_UNIT_TOKENS = 64
_UNIT_STEP = 16


def block_tokens(situation: Situation) -> int:
    """Return the tokens of a block as simulated: positions of the log are blocks of its own, and a position
    of both lies at a multiple of both.
    """
    key_tokens = situation.key_tokens
    return -(-situation.layout.block_tokens // key_tokens) * key_tokens


def footprint_in_blocks(situation: Situation, *, is_inside: bool = False) -> Footprint:
    """Return what a state takes of the pool; one that may lie inside a block, a block of KV more. Where there
    is no KV, or no state, pages are as large as what there is.
    """
    footprint = situation.footprint
    if not situation.is_recurrent or not footprint.kv_bytes_per_token:
        return footprint
    num_blocks = situation.layout.pages_per_state + is_inside
    return replace(
        footprint,
        checkpoint_bytes=num_blocks * block_tokens(situation) * footprint.kv_bytes_per_token,
        windows=(),
    )


def match_unit_tokens(situation: Situation) -> int | None:
    """Return the match unit to set: 64 tokens, or the longest shorter one that divides the block, as it has
    to; None where the log tells positions no finer apart, or the block is as short.
    """
    block = situation.layout.block_tokens
    for unit in range(min(_EXACT_UNIT_TOKENS, block), 0, -_UNIT_STEP):
        if block % unit == 0:
            is_told = block_tokens(situation) == block and unit % situation.key_tokens == 0
            return unit if is_told and unit < block else None
    return None


def block_notes(situation: Situation) -> list[str]:
    """Return what to know of the block that was simulated."""
    block, simulated = situation.layout.block_tokens, block_tokens(situation)
    notes = [
        f"block of {block} tokens, worked out; vLLM prints its own when it starts ('Setting attention block "
        "size to N tokens'): if it differs, run this again with --block-size N"
    ]
    if simulated != block:
        notes.append(
            f"simulated with blocks of {simulated} tokens, since the log has no finer common positions"
        )
    return notes
