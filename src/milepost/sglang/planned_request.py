"""One request on its way through SGLang, and the states that are promised of it."""

from dataclasses import dataclass, field
from typing import final

from milepost.lease import Lease
from milepost.sglang.states import TreeState
from milepost.tokens import KeyArray

__all__ = ["PlannedRequest", "PlannedStates"]


@final
@dataclass(slots=True, eq=False)
class PlannedRequest:
    """See the module.

    Attributes:
        lease: What the cache holds for it.
        keys: Its prompt.
        num_tokens: Length of its prompt.
        hit: Tokens that it resumed from.
        planned: Positions to keep, ascending, until the cache is told of them.
        states: Those promised that are not in the tree yet, by position, ascending.
        may_stop: Whether its chunks are cut so that all of its states are captured.
        is_settled: Whether its promises are kept or taken back; then its answer goes on.
    """

    lease: Lease
    keys: KeyArray
    num_tokens: int
    hit: int
    planned: tuple[int, ...] = ()
    states: dict[int, TreeState] = field(default_factory=dict)
    may_stop: bool = False
    is_settled: bool = False

    def position_in(self, start: int, end: int, grid_tokens: int) -> int | None:
        """Return the deepest promised position that a chunk of ``[start, end)`` can capture; None where there
        is none.
        """
        inside = self._capturable(start, end, grid_tokens)
        return inside[-1] if inside else None

    def stop_in(self, start: int, end: int, grid_tokens: int) -> int | None:
        """Return where a chunk of ``[start, end)`` has to end so that it captures the first of several
        promised positions, and the next chunk another; None where it has not several, or may not be cut.

        As late as can be, which takes the fewest chunks: a step of the grid before the second of them.
        """
        inside = self._capturable(start, end, grid_tokens)
        return inside[1] - grid_tokens if self.may_stop and len(inside) > 1 else None

    def _capturable(self, start: int, end: int, grid_tokens: int) -> list[int]:
        """SGLang captures where whole grid steps of a chunk end, and ignores any other position."""
        return [
            position
            for position in self.awaited
            if start < position <= end and (position - start) % grid_tokens == 0
        ]

    @property
    def awaited(self) -> list[int]:
        """Promised positions that are still to be captured, ascending: not those that another request was
        first at, or whose room has gone.
        """
        if self.planned:
            return list(self.planned)
        return [at for at, state in self.states.items() if state.is_wanted and state.node_id is None]


@final
class PlannedStates:
    """Where the payloads of a prompt's checkpoints come from: nothing but their size is known yet."""

    def checkpoint(self, position: int) -> TreeState:
        """Return what stands for a state until it is captured."""
        return TreeState()

    def kv_segments(self, start: int, end: int) -> tuple[()]:
        """Return no KV: a segment is longer than any prompt, since SGLang's tree holds all of it."""
        return ()
