"""How checkpoints lie to each other: which one a request falls back on, and what memory each holds alone."""

from collections.abc import Set

from milepost.store.checkpoint import Checkpoint
from milepost.store.node import Node
from milepost.untracked import untracked

__all__ = ["exclusive_kv_tokens", "link", "unlink"]


def link(checkpoint: Checkpoint) -> None:
    """Put a new ``checkpoint``, already on its node, between its neighbours.

    Complexity: O(nodes on the path up to the next checkpoint), and those below where others lie beyond it.
    """
    node = checkpoint.node
    at = node.checkpoints.index(checkpoint)
    above = node.checkpoints[at - 1] if at else _last_above(node)
    checkpoint.above = above
    if at + 1 < len(node.checkpoints):
        below = [node.checkpoints[at + 1]]
    elif node.num_live_children:
        below = _first_below(node)
    else:
        below = []
    for deeper in below:
        if deeper.above is not None:
            del deeper.above.below[deeper.serial]
        deeper.above = checkpoint
        checkpoint.below[deeper.serial] = deeper
    untracked(checkpoint.below)
    if above is not None:
        above.below[checkpoint.serial] = checkpoint
        untracked(above.below)


def unlink(checkpoint: Checkpoint) -> tuple[Checkpoint | None, list[Checkpoint]]:
    """Take ``checkpoint`` out from between its neighbours; return the one above and those below. O(number of
    those below).
    """
    above, below = checkpoint.above, list(checkpoint.below.values())
    if above is not None:
        del above.below[checkpoint.serial]
        above.below.update(checkpoint.below)
        untracked(above.below)
    for deeper in below:
        deeper.above = above
    checkpoint.above = None
    checkpoint.below.clear()
    return above, below


def exclusive_kv_tokens(checkpoint: Checkpoint, *, without: Set[int] = frozenset()) -> int:
    """Return the tokens whose KV only this checkpoint needs. O(nodes up to the next branch in use).

    ``without`` are serials of checkpoints to be thought away: those on the same path are, those on other
    branches still hold the KV before their branch.
    """
    if checkpoint.below and not checkpoint.below.keys() <= without:
        return 0
    shallower = checkpoint.above
    while shallower is not None and shallower.serial in without:
        shallower = shallower.above
    above = 0 if shallower is None else shallower.position
    node = checkpoint.node
    while node.start > above:
        parent = node.parent
        if parent is None or parent.num_live_children > 1:
            return checkpoint.position - node.start
        node = parent
    return checkpoint.position - above


def _last_above(node: Node) -> Checkpoint | None:
    above = node.parent
    while above is not None:
        if above.checkpoints:
            return above.checkpoints[-1]
        above = above.parent
    return None


def _first_below(node: Node) -> list[Checkpoint]:
    """Return the first checkpoint on each live branch below ``node``."""
    found: list[Checkpoint] = []
    pending = [child for child in node.children.values() if child.is_live]
    while pending:
        child = pending.pop()
        if child.checkpoints:
            found.append(child.checkpoints[0])
        else:
            pending.extend(below for below in child.children.values() if below.is_live)
    return found
