"""How states and KV lie in SGLang's two pools, and where a prompt's chunks can leave a state.

The cache is given the pool of states alone: a state takes one unit of memory there, and a token of KV none.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

__all__ = ["StateRoom"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StateRoom:
    """See the module.

    Attributes:
        num_states: Slots of the pool of states.
        num_kv_tokens: Tokens that the pool of KV holds.
        grid_tokens: States sit at multiples of this many tokens.
        free_states: Returns how many slots are free now.
        free_kv_tokens: Returns how many tokens of KV are free now.
    """

    num_states: int
    num_kv_tokens: int
    grid_tokens: int
    free_states: Callable[[], int]
    free_kv_tokens: Callable[[], int]

    @property
    def unit_tokens(self) -> int:
        """Tokens of one key of a prompt: 64, or the grid where that is no multiple of it."""
        return self.grid_tokens if self.grid_tokens % 64 else 64

    def chunk_ends(
        self, start: int, num_tokens: int, *, chunk_end: int, chunk_tokens: int | None
    ) -> tuple[int, ...]:
        """Return where the chunks of a prompt are expected to end, ascending, the last at ``num_tokens``.

        >>> room = StateRoom(
        ...     num_states=8, num_kv_tokens=4096, grid_tokens=64, free_states=int, free_kv_tokens=int
        ... )
        >>> room.chunk_ends(0, 3000, chunk_end=1024, chunk_tokens=1500)
        (1024, 2496, 3000)
        """
        if chunk_tokens is None or chunk_end >= num_tokens:
            return (*((chunk_end,) if start < chunk_end < num_tokens else ()), num_tokens)
        step = max(self.grid_tokens, chunk_tokens // self.grid_tokens * self.grid_tokens)
        return (*range(chunk_end, num_tokens, step), num_tokens)

    def with_chunk_ends(self, positions: Sequence[int], start: int, ends: Sequence[int]) -> tuple[int, ...]:
        """Return ``positions`` and, of each chunk without any, where its last whole grid step ends, which is
        what SGLang captures by itself.

        >>> room = StateRoom(
        ...     num_states=8, num_kv_tokens=4096, grid_tokens=64, free_states=int, free_kv_tokens=int
        ... )
        >>> room.with_chunk_ends((64,), 0, (2048, 3000))
        (64, 2944)
        """
        filled = list(positions)
        for end in ends:
            last = end // self.grid_tokens * self.grid_tokens
            if last > start and not any(start < position <= end for position in positions):
                filled.append(last)
            start = end
        return tuple(sorted(filled))

    @staticmethod
    def num_stops(positions: Sequence[int], ends: Sequence[int]) -> int:
        """Return how many of ``positions`` are not the only ones in their chunk: each takes one more.

        >>> StateRoom.num_stops((64, 128, 2112), (2048, 3000))
        1
        """
        chunks = {bisect_left(ends, position) for position in positions}
        return len(positions) - len(chunks)
