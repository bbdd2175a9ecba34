"""What a cache holds, and what a request at hand could add, as one tree to be planned."""

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np

from benchmarks.regret.tree_plan import NO_STATE, LiveTree
from milepost.footprint import Footprint
from milepost.store import Checkpoint, Node, SeenPrompt
from milepost.store.tree import RadixTree, TreeMatch

__all__ = ["Place", "as_tree", "places_of"]

# At one position: what could be added, then what is held there, then the branch below.
_NEW, _HELD, _BRANCH = 0, 1, 2


@final
class Place:
    """A position where a state is, or could be, or where ways part.

    Attributes:
        parent: The place above it; None for the root.
        position: Tokens before it.
        checkpoint: What is held there.
        is_new: Whether the request at hand could add a state.
        owner: The latest prompt through it, the one at hand included.
        children: The places right below.
        rate: Requests that diverge there or after it, before its children.
    """

    __slots__ = ("checkpoint", "children", "is_new", "owner", "parent", "position", "rate")

    def __init__(
        self,
        parent: "Place | None",
        position: int,
        owner: SeenPrompt,
        *,
        checkpoint: Checkpoint | None = None,
        is_new: bool = False,
    ) -> None:
        self.parent = parent
        self.position = position
        self.owner = owner
        self.checkpoint = checkpoint
        self.is_new = is_new
        self.rate = 0.0
        self.children: list[Place] = []
        if parent is not None:
            parent.children.append(self)

    @property
    def can_hold(self) -> bool:
        """Whether a state can be there."""
        return self.is_new or self.checkpoint is not None


def places_of(
    tree: RadixTree, match: TreeMatch, wished: Sequence[int], prompt: SeenPrompt
) -> tuple[list[Place], list[Place]]:
    """Return all places, parents first, and those along the prompt at hand, in order.

    Args:
        tree: The cache's.
        match: How far the prompt follows it.
        wished: Positions of the prompt where a state could be added, ascending.
        prompt: The prompt at hand, which owns its path from now on.
    """
    root = Place(None, 0, prompt)
    found, along = [root], [root]
    on_path = set(map(id, match.path))
    last = root
    pending = [
        (child, root)
        for top in tree.roots().values()
        for child in top.children.values()
        if child.is_live or id(child) in on_path
    ]
    while pending:
        node, at = pending.pop()
        shared = min(node.end, match.depth) if id(node) in on_path else 0
        for position, kind, checkpoint in _marks(node, shared, wished):
            is_shared = position <= shared
            owner = prompt if is_shared else node.owner
            at = Place(at, position, owner, checkpoint=checkpoint, is_new=kind == _NEW)
            found.append(at)
            if is_shared:
                along.append(at)
                last = at
        pending += [(child, at) for child in node.children.values() if child.is_live or id(child) in on_path]
    for position in wished:
        if position > match.depth:
            last = Place(last, position, prompt, is_new=True)
            found.append(last)
            along.append(last)
    return found, sorted(along, key=lambda place: place.position)


def as_tree(places: Sequence[Place], footprint: Footprint) -> LiveTree:
    """Return ``places`` as numbers."""
    number = {id(place): index for index, place in enumerate(places)}
    parents = np.array([-1 if each.parent is None else number[id(each.parent)] for each in places], np.int64)
    positions = np.array([each.position for each in places], np.int64)
    above = positions[np.maximum(parents, 0)]
    return LiveTree(
        parents=parents,
        gains=positions.astype(np.float64),
        rates=np.array([each.rate for each in places]),
        kv_bytes=(positions - above) * footprint.kv_bytes_per_token,
        state_bytes=np.array(
            [footprint.checkpoint_bytes if each.can_hold else NO_STATE for each in places], np.int64
        ),
    )


def _marks(node: Node, shared: int, wished: Iterable[int]) -> list[tuple[int, int, Checkpoint | None]]:
    """Return the positions of a node that matter, in order. ``shared`` is where the prompt at hand leaves it;
    0 where it never comes there.
    """
    marks: list[tuple[int, int, Checkpoint | None]] = [
        (checkpoint.position, _HELD, checkpoint) for checkpoint in node.checkpoints
    ]
    if shared:
        marks += [(position, _NEW, None) for position in wished if node.start < position <= shared]
        marks.append((shared, _BRANCH, None))
    if node.num_live_children > 1 and shared != node.end:
        marks.append((node.end, _BRANCH, None))
    return sorted(marks, key=lambda mark: mark[:2])
