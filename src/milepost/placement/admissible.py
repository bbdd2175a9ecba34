"""What every policy does with the positions it wishes for: keep those that the contract allows."""

from collections.abc import Iterable

from milepost.placement.base import Placement, PlacementRequest

__all__ = ["admissible", "deepest_reusable"]


def admissible(request: PlacementRequest, wished: Iterable[int]) -> Placement:
    """Return the placement nearest to ``wished`` that keeps the contract.

    Positions are floored to the grid, and those too deep for the budget to the deepest that it can hold.
    Dropped are those at or before the resume position, beyond the prompt, repeated, or stored. Of more
    than ``max_checkpoints``, the *shallowest* go, since a deep position saves most where it can
    be used.

    Complexity: O(w log w) for w wishes.
    """
    stored = set(request.checkpoint_positions)
    deepest = request.num_tokens if request.affordable_position is None else request.affordable_position
    floored = {
        min(position, deepest) // request.grid * request.grid
        for position in wished
        if position <= request.num_tokens
    }
    allowed = sorted(
        position
        for position in floored
        if request.resume_position < position <= request.num_tokens and position not in stored
    )
    surplus = max(0, len(allowed) - max(0, request.max_checkpoints))
    return Placement(tuple(allowed[surplus:]))


def deepest_reusable(request: PlacementRequest) -> int:
    """Return the deepest grid position that the same prompt, asked again, can resume from.

    At least one token is left to compute, since its output is what a request is for.
    """
    return (request.num_tokens - 1) // request.grid * request.grid
