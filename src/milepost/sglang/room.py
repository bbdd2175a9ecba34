"""How states and KV lie in SGLang's two pools, and where a prompt's chunks can leave a state.

Memory is counted in units: a token of KV is ``kv_units`` of them and a state ``state_units``.
"""

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
        state_units: What a state takes.
        kv_units: What a token of KV takes.
    """

    num_states: int
    num_kv_tokens: int
    grid_tokens: int
    free_states: Callable[[], int]
    free_kv_tokens: Callable[[], int]
    state_units: int = 1
    kv_units: int = 0

    @property
    def unit_tokens(self) -> int:
        """Tokens of one key of a prompt: 64, or the grid where that is no multiple of it."""
        return self.grid_tokens if self.grid_tokens % 64 else 64

    def spare_units(
        self, num_new_tokens: int, most_states: int, *, num_unwanted: int, num_promised: int
    ) -> int:
        """Return what ``most_states`` states and the KV of ``num_new_tokens`` could take without evicting
        any: free slots and those of states that nobody wants, without those that are promised; and free KV.
        """
        states = min(most_states, max(0, self.free_states() + num_unwanted - num_promised))
        kv = min(num_new_tokens, self.free_kv_tokens()) if self.kv_units else 0
        return states * self.state_units + kv * self.kv_units

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

    @staticmethod
    def one_of_each(positions: Sequence[int], start: int, ends: Sequence[int]) -> tuple[int, ...]:
        """Return the deepest of ``positions`` in each chunk: it leaves one state.

        >>> StateRoom.one_of_each((64, 128, 2112), 0, (2048, 3000))
        (128, 2112)
        """
        chosen: list[int] = []
        for end in ends:
            inside = [position for position in positions if start < position <= end]
            chosen += inside[-1:]
            start = end
        return tuple(chosen)
