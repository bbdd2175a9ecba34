"""The block hashes of a prompt: what the cache tells prompts apart by, and what stands for its payloads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from milepost.tokens import KeyArray
from milepost.vllm.layout import PoolLayout
from milepost.vllm.pool import KeptBlocks, PrefixBlocks

__all__ = ["PromptBlocks", "hash_keys", "num_hashed"]

_KEY_BYTES = 8


@final
@dataclass(frozen=True, slots=True)
class PromptBlocks:
    """Block hashes of a prompt; also where the payloads of its checkpoints come from."""

    hashes: Sequence[bytes]
    layout: PoolLayout
    memory: KeptBlocks

    def checkpoint(self, position: int) -> PrefixBlocks:
        """Return the blocks of a checkpoint, which the pool is to keep from now on."""
        blocks = self.blocks(position)
        self.memory.retain(blocks)
        return blocks

    def blocks(self, position: int) -> PrefixBlocks:
        """Return the blocks of a checkpoint."""
        layout = self.layout
        inside = position % layout.block_tokens != 0
        groups = layout.state_groups + (layout.kv_groups if inside else ())
        return PrefixBlocks(self.ending(position), groups, len(groups) * layout.block_tokens)

    def kv_segments(self, start: int, end: int) -> Sequence[bytes]:
        """Return what stands for the KV blocks in ``(start, end]``, which the pool is to keep."""
        prefix_hashes = self.block_ends(start, end)
        self.memory.retain_kv(prefix_hashes)
        return prefix_hashes

    def ending(self, position: int) -> bytes:
        """Return the hash of the prefix that ends there."""
        return self.hashes[position // self.layout.match_tokens - 1]

    def block_ends(self, start: int, end: int) -> Sequence[bytes]:
        """Return the hashes of the prefixes that end at a block boundary in ``(start, end]``."""
        block_tokens, match_tokens = self.layout.block_tokens, self.layout.match_tokens
        first = start // block_tokens * block_tokens + block_tokens
        return self.hashes[first // match_tokens - 1 : end // match_tokens : block_tokens // match_tokens]


def num_hashed(num_tokens: int, block_hashes: Sequence[bytes], match_tokens: int) -> int:
    """Return how many of ``num_tokens`` tokens have a hash: one that looks ahead is there only when the
    tokens after its block are.
    """
    return min(num_tokens, len(block_hashes) * match_tokens)


def hash_keys(block_hashes: Sequence[bytes], num_tokens: int, match_tokens: int) -> KeyArray:
    """Return the first eight bytes of each hash, shape ``[num_tokens // match_tokens]``. They tell prompts
    apart well enough to plan by; what is resumed from, vLLM decides by whole hashes.
    """
    num_whole = num_tokens // match_tokens
    stride = len(block_hashes[0]) // _KEY_BYTES
    return np.frombuffer(b"".join(block_hashes[:num_whole]), np.int64)[::stride]
