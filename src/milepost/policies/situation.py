"""One request as a cache policy sees it: the plain numbers of placement, and what its cache knows beside
them.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from milepost.placement import Placement, PlacementPolicy, PlacementRequest
from milepost.store import BranchPoint, SeenPrompt

__all__ = ["SituatedPlacement", "Situation", "place"]


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
        forecast: What a policy predicted for the prompt while it placed, for the cache to remember with it.
    """

    request: PlacementRequest
    prompt: SeenPrompt
    earlier: SeenPrompt | None = None
    branch_points: tuple[BranchPoint, ...] = ()
    room_worth: Callable[[int], float] | None = None
    forecast: object | None = None


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
