"""The prompts of a whole trace as one tree, with the positions that can matter to anybody who knows it all.

A request resumes best where it diverges from all earlier ones, floored to the grid and short of its last
token: its *use*. The nodes are the uses, and where the ways to them part. The same requests pass all
positions between two nodes. So a state there is worth moving down to the next node, but for the KV on the
way; and since cost and KV both grow with the position, it is worth what a mixture of states at both nodes
is. So a bound that allows mixtures needs no other position. Where it has to be exact, ``everywhere`` makes
every position a node that two requests pass.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from milepost.traces import TraceRequest

__all__ = ["PromptTree"]

ROOT = 0


@final
@dataclass(frozen=True, slots=True, eq=False)
class PromptTree:
    """Nodes, each after its parent; the first is the root of all tenants.

    Attributes:
        parents: Of each node; -1 for the root.
        positions: Tokens before each node.
        paths: Of each request: its nodes in order, without the root.
        uses: Of each request: the node where it resumes best; the root where nothing can be reused.
        usable: Of each request: how many of its nodes it can resume from; its last token is computed anyway.
        num_tokens: Of each request.
    """

    parents: tuple[int, ...]
    positions: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    uses: tuple[int, ...]
    usable: tuple[int, ...]
    num_tokens: tuple[int, ...]

    @property
    def ceiling_tokens(self) -> int:
        """What endless memory would reuse."""
        return sum(self.positions[use] for use in self.uses)

    def passers(self) -> list[list[int]]:
        """Return the requests that pass each node, in order; none for the root. O(size of all paths)."""
        found: list[list[int]] = [[] for _ in self.parents]
        for request, path in enumerate(self.paths):
            for node in path:
                found[node].append(request)
        return found

    @classmethod
    def of(cls, requests: Sequence[TraceRequest], *, grid: int, everywhere: bool = False) -> "PromptTree":
        """Return the tree of ``requests``, in order of arrival. O(keys) in time and memory."""
        blocks = _Blocks()
        ways = [blocks.way(request, grid) for request in requests]
        marked = _shared(ways) if everywhere else _uses_and_partings(ways)
        return _compressed(ways, marked, requests, grid)


@dataclass(frozen=True, slots=True)
class _Way:
    """The blocks of a prompt, one a grid step, and how many of them it can resume after."""

    blocks: list[int]
    num_shared: int


class _Blocks:
    """Numbers every prefix that is a multiple of the grid."""

    def __init__(self) -> None:
        self._number: dict[tuple[int | str, tuple[int, ...]], int] = {}

    def way(self, request: TraceRequest, grid: int) -> _Way:
        """Return the prefixes of a prompt, and note them."""
        keys, step = request.keys.tolist(), grid // request.key_tokens
        at: int | str = request.tenant
        numbers: list[int] = []
        num_shared = 0
        for block in range(request.num_tokens // grid):
            here = at, tuple(keys[block * step : (block + 1) * step])
            known = self._number.get(here)
            if known is None:
                known = self._number[here] = len(self._number)
            elif num_shared == block:
                num_shared += 1
            at = known
            numbers.append(known)
        return _Way(numbers, min(num_shared, (request.num_tokens - 1) // grid))


def _shared(ways: Sequence[_Way]) -> set[int]:
    passed = Counter(block for way in ways for block in way.blocks)
    return {block for block, count in passed.items() if count > 1}


def _uses_and_partings(ways: Sequence[_Way]) -> set[int]:
    uses = {way.blocks[way.num_shared - 1] for way in ways if way.num_shared}
    # The first block beyond each, of the ways to uses alone.
    onwards: dict[int, set[int]] = {}
    for way in ways:
        depth = max((index + 1 for index, block in enumerate(way.blocks) if block in uses), default=0)
        for above, below in pairwise(way.blocks[:depth]):
            onwards.setdefault(above, set()).add(below)
    return uses | {block for block, below in onwards.items() if len(below) > 1}


def _compressed(
    ways: Sequence[_Way], marked: set[int], requests: Sequence[TraceRequest], grid: int
) -> PromptTree:
    node_of: dict[int, int] = {}
    parents, positions = [-1], [0]
    paths: list[tuple[int, ...]] = []
    for way in ways:
        path = [ROOT]
        for index, block in enumerate(way.blocks):
            if block not in marked:
                continue
            if block not in node_of:
                node_of[block] = len(parents)
                parents.append(path[-1])
                positions.append((index + 1) * grid)
            path.append(node_of[block])
        paths.append(tuple(path[1:]))
    usable = [
        sum(positions[node] < request.num_tokens for node in path)
        for path, request in zip(paths, requests, strict=True)
    ]
    uses = [node_of[way.blocks[way.num_shared - 1]] if way.num_shared else ROOT for way in ways]
    return PromptTree(
        parents=tuple(parents),
        positions=tuple(positions),
        paths=tuple(paths),
        uses=tuple(uses),
        usable=tuple(usable),
        num_tokens=tuple(request.num_tokens for request in requests),
    )
