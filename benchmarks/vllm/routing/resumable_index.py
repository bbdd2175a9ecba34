"""The index of one replica's cache that a router could build from the same KV events: attention and states.

vLLM tells of the blocks of recurrent groups too, in events of kind ``mamba``, and of prefixes that end inside
a block. Here nothing is dropped: a prefix counts where every block of KV before it is there, and the state
after it in every recurrent group.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, final

from benchmarks.vllm.routing.attention_index import MAIN_ATTENTION

__all__ = ["ResumableIndex"]

_STATES = "mamba"


@final
class ResumableIndex:
    """See the module.

    Args:
        block_tokens: Tokens of a block.
        match_unit: Tokens of a block hash.
    """

    def __init__(self, *, block_tokens: int, match_unit: int) -> None:
        self._units_per_block = block_tokens // match_unit
        self._match_unit = match_unit
        # Copies by hash, of each group that was told of.
        self._kv: dict[int | None, Counter[Any]] = {}
        self._states: dict[int | None, Counter[Any]] = {}
        # Group and hash of each last copy that has gone, in order.
        self._gone: list[tuple[int | None, Any]] = []

    @property
    def num_gone(self) -> int:
        """How often the last copy of something has gone."""
        return len(self._gone)

    def apply(self, events: Iterable[Any]) -> None:
        """Take in events of the replica, in order: vLLM's own, or the same decoded from the wire."""
        for event in events:
            kind = type(event).__name__
            if kind == "AllBlocksCleared":
                for groups in (self._kv, self._states):
                    for group_idx, held in groups.items():
                        self._gone += [(group_idx, each) for each, copies in held.items() if copies > 0]
                        held.clear()
            elif kind == "BlockStored":
                if event.kv_cache_spec_kind == _STATES:
                    self._states.setdefault(event.group_idx, Counter()).update(event.block_hashes)
                elif event.kv_cache_spec_kind in MAIN_ATTENTION:
                    self._kv.setdefault(event.group_idx, Counter()).update(event.block_hashes)
            elif kind == "BlockRemoved":
                for groups in (self._kv, self._states):
                    if event.group_idx in groups:
                        held = groups[event.group_idx]
                        held.subtract(event.block_hashes)
                        self._gone += [
                            (event.group_idx, each) for each in event.block_hashes if held[each] <= 0
                        ]

    def promised_tokens(self, unit_hashes: Sequence[Any], *, num_tokens: int) -> int:
        """Return how much of a prompt can be resumed by the index. O(tokens).

        Args:
            unit_hashes: One for each whole match unit of the prompt.
            num_tokens: Its length; the last of them is always computed.
        """
        best = 0
        for num_units, prefix_hash in enumerate(unit_hashes, start=1):
            ends_block = num_units % self._units_per_block == 0
            has_kv = _is_in_all(self._kv, prefix_hash)
            if ends_block and not has_kv:
                break
            at = num_units * self._match_unit
            if at < num_tokens and has_kv and _is_in_all(self._states, prefix_hash):
                best = at
        return best

    def has_lost(self, unit_hashes: Sequence[Any], *, num_tokens: int, since: int) -> bool:
        """Return whether anything has gone that the first ``num_tokens`` of a prompt are resumed with, since
        :attr:`num_gone` was ``since``. O(tokens, and what has gone since).
        """
        units = unit_hashes[: num_tokens // self._match_unit]
        kv = {*units[self._units_per_block - 1 :: self._units_per_block], *units[-1:]}
        return any(
            (group in self._kv and gone in kv) or (group in self._states and gone in units[-1:])
            for group, gone in self._gone[since:]
        )


def _is_in_all(groups: dict[int | None, Counter[Any]], prefix_hash: Any) -> bool:
    return bool(groups) and all(held[prefix_hash] > 0 for held in groups.values())
