"""The contract of a placement policy: which positions of a prompt deserve a checkpoint.

A policy sees one :class:`PlacementRequest` and answers with one :class:`Placement`. It knows no tensors,
no cache and no clock. A policy that learns is told of every request, after the fact, by ``observe``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from milepost.counts import as_count
from milepost.errors import ConfigurationError

__all__ = ["CostFunction", "Placement", "PlacementPolicy", "PlacementRequest", "as_placement"]

# Cost of computing the tokens before each position; monotone.
CostFunction: TypeAlias = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.floating | np.integer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRequest:
    """What is known about one prompt when its checkpoints are chosen. Positions count tokens from the start.

    Attributes:
        num_tokens: Length of the prompt.
        overlap_depth: Leading tokens that some earlier prompt shares (0 where nothing is shared). Where it
            lies inside the prompt it is a *branch point*: a place where two prompts diverge.
        resume_position: The checkpoint this request resumes from; nothing at or before it is computed, so
            nothing at or before it can be placed.
        grid: Checkpoints sit at multiples of this many tokens.
        checkpoint_positions: Checkpoints already stored along this prompt, ascending, all at most
            ``overlap_depth``.
        checkpoint_bytes: Memory of one checkpoint.
        kv_bytes_per_token: Memory of one token of KV.
        resident_kv_tokens: Leading tokens whose KV is stored already.
        fallback_position: Where this request would resume without the checkpoint it resumes from.
        branch_positions: Where prompts have diverged along this one, ascending, all at most
            ``overlap_depth``.
        breakpoints: Where the prompt's messages end, or its client asked for a cache point, ascending.
        matched_num_tokens: Length of the latest earlier prompt that shares ``overlap_depth`` tokens; None
            where nothing is shared. It tells a conversation that goes on (the whole earlier prompt is shared)
            from two prompts that diverge.
        max_checkpoints: Most checkpoints that the byte budget can hold for this prompt.
        affordable_position: The deepest position whose state and KV the budget can hold; None for no limit.
        cost: Cost of computing the first ``p`` tokens, vectorised and monotone; None for ``p`` itself.
        call_ends: Where the calls end that compute the rest of the prompt, ascending, for an engine that
            captures one state in each of them at no cost; empty for one that captures wherever it is asked.
        cut_tokens: What it costs such an engine to cut a call in two, for one state more, in tokens computed;
            None where it cannot.
    """

    num_tokens: int
    overlap_depth: int = 0
    resume_position: int = 0
    grid: int = 1
    checkpoint_positions: tuple[int, ...] = ()
    checkpoint_bytes: int = 0
    kv_bytes_per_token: int = 0
    resident_kv_tokens: int = 0
    fallback_position: int = 0
    branch_positions: tuple[int, ...] = ()
    breakpoints: tuple[int, ...] = ()
    matched_num_tokens: int | None = None
    max_checkpoints: int = 1 << 30
    affordable_position: int | None = None
    cost: CostFunction | None = None
    call_ends: tuple[int, ...] = ()
    cut_tokens: int | None = None

    def cost_between(self, start: int, end: int) -> float:
        """Return the cost of computing the tokens in ``[start, end)``."""
        if self.cost is None:
            return float(end - start)
        before, after = self.cost(np.array([start, end], np.int64))
        return float(after - before)

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ConfigurationError(f"grid={self.grid}; a grid is at least 1 token")
        if not 0 <= self.resume_position <= self.overlap_depth <= self.num_tokens:
            raise ConfigurationError(
                f"resume_position={self.resume_position}, overlap_depth={self.overlap_depth}, "
                f"num_tokens={self.num_tokens}; the rule is 0 <= resume <= overlap <= num_tokens"
            )
        if self.matched_num_tokens is not None and self.matched_num_tokens < self.overlap_depth:
            raise ConfigurationError(
                f"matched_num_tokens={self.matched_num_tokens} is below overlap_depth={self.overlap_depth}; "
                "a prompt cannot share more tokens than it has"
            )


@dataclass(frozen=True, slots=True)
class Placement:
    """The chosen positions: strictly ascending multiples of the grid, beyond the resume position."""

    positions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if type(self.positions) is not tuple or not all(type(each) is int for each in self.positions):
            object.__setattr__(self, "positions", _whole_numbers("positions", self.positions))
        ascending = all(a < b for a, b in zip(self.positions, self.positions[1:], strict=False))
        if not ascending or (self.positions and self.positions[0] <= 0):
            raise ConfigurationError(
                f"positions={self.positions}; checkpoint positions are strictly ascending and above 0"
            )


class PlacementPolicy(ABC):
    """Chooses checkpoint positions. One class per policy; options are keyword-only constructor arguments."""

    @abstractmethod
    def place(self, request: PlacementRequest) -> Placement:
        """Return positions ``p``, multiples of ``request.grid``, with ``resume_position < p <= num_tokens``.

        Reads only: the same request twice gives the same placement.
        """

    def observe(self, request: PlacementRequest) -> None:  # noqa: B027 (most policies do not learn)
        """Learn from a request that was served. Policies that do not learn ignore it."""


def as_placement(placed: Any, request: PlacementRequest, *, by: PlacementPolicy | None = None) -> Placement:
    """Return ``placed`` as a placement on the prompt of ``request``. Positions in any order are plain enough.

    Args:
        placed: What a policy returned, or what a caller says it captured.
        request: The prompt.
        by: The policy, for the message.

    Raises:
        ConfigurationError: these are no positions, or one lies where no checkpoint can.
    """
    who = "the placement" if by is None else f"the placement of policy {type(by).__name__}"
    placement = placed if isinstance(placed, Placement) else _in_order(who, placed)
    for position in placement.positions:
        if not request.resume_position < position <= request.num_tokens or position % request.grid:
            raise ConfigurationError(
                f"{who} has a checkpoint at {position} of a prompt of {request.num_tokens} resumed at "
                f"{request.resume_position}; it must lie after the resume position, inside the prompt "
                f"and on the grid of {request.grid}"
            )
    return placement


def _in_order(who: str, positions: Any) -> Placement:
    return Placement(tuple(sorted(set(_whole_numbers(who, positions)))))


def _whole_numbers(name: str, given: Any) -> tuple[int, ...]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ConfigurationError(
            f"{name} is {given!r}; give a Placement or a list of positions, an empty one for no checkpoint"
        )
    return tuple(as_count(f"a position in {name}", each) for each in given)
