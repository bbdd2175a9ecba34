"""The index of one replica's cache that routers build from KV events: the attention blocks alone.

Dynamo drops events of every kind but main attention, llm-d scores full attention, and SGLang tells of nothing
else; so to a router a prefix is cached as far as its attention blocks are. It is kept as they keep it: a set
of block hashes, where a removal removes, however many copies there were.
"""

from collections.abc import Iterable, Sequence
from typing import Any, final

__all__ = ["MAIN_ATTENTION", "AttentionIndex"]

MAIN_ATTENTION = frozenset({"full_attention", "mla_attention", "sink_full_attention"})


@final
class AttentionIndex:
    """See the module.

    Args:
        block_tokens: Tokens of a block. Events of shorter ones are dropped, as routers do.
    """

    def __init__(self, *, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._hashes: set[Any] = set()
        self._groups: set[int | None] = set()

    def apply(self, events: Iterable[Any]) -> None:
        """Take in events of the replica, in order: vLLM's own, or the same decoded from the wire."""
        for event in events:
            kind = type(event).__name__
            if kind == "AllBlocksCleared":
                self._hashes.clear()
            elif kind == "BlockStored" and event.kv_cache_spec_kind in MAIN_ATTENTION:
                # Removals do not tell their kind.
                self._groups.add(event.group_idx)
                if event.block_size == self._block_tokens:
                    self._hashes.update(event.block_hashes)
            elif kind == "BlockRemoved" and event.group_idx in self._groups:
                self._hashes.difference_update(event.block_hashes)

    def promised_tokens(self, block_hashes: Sequence[Any]) -> int:
        """Return how much of a prompt with these hashes, one for each whole block, is cached by the index."""
        num_blocks = 0
        for block_hash in block_hashes:
            if block_hash not in self._hashes:
                break
            num_blocks += 1
        return num_blocks * self._block_tokens
