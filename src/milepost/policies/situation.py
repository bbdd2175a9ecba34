"""One request as a cache policy sees it: the plain numbers of placement, and what its cache knows beside
them.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, final

from milepost.footprint import Footprint
from milepost.placement import Placement, PlacementPolicy, PlacementRequest
from milepost.store import BranchPoint, Lookup, PrefixStore, SeenPrompt

__all__ = ["PlacementLimits", "SituatedPlacement", "Situation", "place"]


@final
@dataclass(frozen=True, slots=True)
class PlacementLimits:
    """What bounds the checkpoints of every prompt of a cache.

    Attributes:
        footprint: What a checkpoint and a token of KV cost.
        grid: Checkpoints sit at multiples of this many tokens.
        max_checkpoints: Most checkpoints on one prompt.
    """

    footprint: Footprint
    grid: int
    max_checkpoints: int

    def affordable(self, store: PrefixStore, num_tokens: int, *, beside_bytes: int = 0) -> tuple[int, int]:
        """Return the deepest grid position of a prompt where the budget could hold a checkpoint, KV included,
        beside ``beside_bytes`` of the state that it resumes from; and how many fit beside that KV.
        """
        position, num_states = store.budget.affordable(
            num_tokens // self.grid * self.grid,
            state_bytes=self.footprint.checkpoint_bytes,
            beside_bytes=beside_bytes,
        )
        return position, min(self.max_checkpoints, num_states)


@dataclass(slots=True, kw_only=True)
class Situation:
    """See the module.

    Attributes:
        request: The numbers, which are all that most policies need.
        prompt: This prompt as it will be remembered.
        earlier: The latest earlier prompt that shares ``overlap_depth`` tokens; None where nothing is shared.
        branch_points: Where prompts have diverged along this one, ascending.
        room_worth: Returns what has to be evicted to store that many bytes more is worth, in cost saved per
            request; None where that is unknown.
        idle_position: The deepest position where a state and its KV would fit in memory that lies idle; None
            where that is unknown.
        forecast: What a policy predicted for the prompt while it placed, for the cache to remember with it.
    """

    request: PlacementRequest
    prompt: SeenPrompt
    earlier: SeenPrompt | None = None
    branch_points: tuple[BranchPoint, ...] = ()
    room_worth: Callable[[int], float] | None = None
    idle_position: int | None = None
    forecast: object | None = None

    @classmethod
    def of(cls, found: Lookup, prompt: SeenPrompt, *, store: PrefixStore, limits: PlacementLimits) -> Self:
        """Return the situation of a prompt, of which ``found`` is stored."""
        footprint, checkpoint, earlier = limits.footprint, found.checkpoint, found.earlier
        affordable_position, max_checkpoints = limits.affordable(
            store, found.num_tokens, beside_bytes=0 if checkpoint is None else checkpoint.num_bytes
        )
        request = PlacementRequest(
            num_tokens=found.num_tokens,
            overlap_depth=found.overlap_depth,
            resume_position=found.resume_position,
            grid=limits.grid,
            checkpoint_positions=found.checkpoint_positions,
            checkpoint_bytes=footprint.checkpoint_bytes,
            kv_bytes_per_token=footprint.kv_bytes_per_token,
            resident_kv_tokens=found.resident_kv_tokens,
            fallback_position=0 if checkpoint is None else checkpoint.above_position,
            branch_positions=tuple(point.position for point in found.branch_points),
            breakpoints=prompt.breakpoints,
            matched_num_tokens=None if earlier is None else max(earlier.num_tokens, found.overlap_depth),
            max_checkpoints=max_checkpoints,
            affordable_position=affordable_position,
            # Only ratios of costs matter, so where every token costs the same, tokens will do.
            cost=None if footprint.cost.is_linear else footprint.cost,
        )
        return cls(
            request=request,
            prompt=prompt,
            earlier=earlier,
            branch_points=found.branch_points,
            room_worth=store.evictor.room_worth,
            idle_position=store.budget.idle_position(
                found.num_tokens,
                resident_kv_tokens=found.resident_kv_tokens,
                state_bytes=footprint.checkpoint_bytes,
            ),
        )


class SituatedPlacement(PlacementPolicy):
    """Chooses positions by more than the plain numbers."""

    @abstractmethod
    def place_in(
        self, situation: Situation, *, given_positions: Sequence[int] = (), capture_tokens: int = 0
    ) -> Placement:
        """Return positions, as :meth:`place` does. Reads only, but for ``situation.forecast``.

        Args:
            situation: The request.
            given_positions: Where the engine captures a state in any case, at no cost, ascending.
            capture_tokens: What one capture costs the engine, once, in tokens computed.
        """

    def place(self, request: PlacementRequest) -> Placement:
        """Return positions by the numbers alone."""
        prompt = SeenPrompt(request.num_tokens, breakpoints=request.breakpoints)
        return self.place_in(Situation(request=request, prompt=prompt))


def place(
    policy: PlacementPolicy, situation: Situation, *, given_positions: Sequence[int], capture_tokens: int
) -> Placement:
    """Return where ``policy`` places checkpoints, told of as much as it can use."""
    if isinstance(policy, SituatedPlacement):
        return policy.place_in(situation, given_positions=given_positions, capture_tokens=capture_tokens)
    return policy.place(situation.request)
