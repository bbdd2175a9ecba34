"""What the store holds for a prompt: how far it is known, and from where it can be resumed. Reads only."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from milepost.store.checkpoint import Checkpoint
from milepost.store.node import Node
from milepost.store.resident_kv import ResidentKV
from milepost.store.seen import BranchPoint, SeenPrompt
from milepost.store.tree import TreeMatch

__all__ = ["Lookup", "checkpoints_beyond", "look_up"]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the store holds for a prompt.

    Attributes:
        match: Nodes of the shared part.
        num_tokens: Length of the prompt.
        overlap_depth: Leading tokens that some earlier prompt of the tenant shares.
        resume_position: The deepest position to resume from, 0 where there is none.
        checkpoint: The checkpoint at ``resume_position``; None at 0, and where KV alone is resumed from.
        reached_position: The deepest usable position that was ever stored, evicted since or not.
        cleared_position: The same, or deeper: those that went when the cache was emptied count too.
        checkpoint_positions: Every stored checkpoint along the shared part, ascending.
        earlier: The latest prompt that shares it all; None where nothing is shared.
        branch_points: Where prompts have diverged along the shared part, ascending.
        resident_kv_tokens: Leading tokens whose KV is stored.
    """

    match: TreeMatch
    num_tokens: int
    overlap_depth: int
    resume_position: int
    checkpoint: Checkpoint | None
    reached_position: int
    cleared_position: int
    checkpoint_positions: tuple[int, ...]
    earlier: SeenPrompt | None
    branch_points: tuple[BranchPoint, ...]
    resident_kv_tokens: int


def look_up(
    match: TreeMatch, kv: ResidentKV, *, num_tokens: int, limit: int, resume_limit: int, is_stateless: bool
) -> Lookup:
    """Find the deepest position of at most ``limit`` tokens that a matched prompt can resume from. O(nodes on
    the path + checkpoints on them).

    Args:
        match: The prompt, in the tree.
        kv: The KV that is stored.
        num_tokens: Length of the prompt.
        limit: The deepest position that it could use.
        resume_limit: Holds a resume back further, without a say in what counts as reached.
        is_stateless: Whether any segment boundary can be resumed from.
    """
    depth = min(match.depth, num_tokens)
    usable = min(depth, limit)
    resumable = min(usable, resume_limit)
    deepest: Checkpoint | None = None
    reached = cleared = 0
    positions: list[int] = []
    branch_points: list[BranchPoint] = []
    for node in match.path:
        if node.checkpoints:
            positions += [c.position for c in node.checkpoints if c.position <= depth and not c.is_kv_only]
            deepest = node.deepest_checkpoint(resumable) or deepest
        if node.checkpoints or node.evicted:
            reached = max(reached, _deepest_ever(node, usable))
        if node.cleared:
            cleared = max(cleared, _last_within(node.cleared, usable))
        if node.branch_point is not None and node.end <= depth:
            branch_points.append(node.branch_point)
    resume = deepest.position if deepest is not None else 0
    resident = kv.reach(match.path)
    if is_stateless:
        resume = min(kv.aligned(resumable), resident)
        reached = min(kv.aligned(usable), kv.reach_ever(match.path))
        deepest = next((c for n in match.path if (c := n.checkpoint_at(resume))), None)
    return Lookup(
        match=match,
        num_tokens=num_tokens,
        overlap_depth=depth,
        resume_position=resume,
        checkpoint=deepest,
        reached_position=max(reached, resume),
        cleared_position=max(cleared, reached, resume),
        checkpoint_positions=tuple(positions),
        earlier=match.path[-1].owner if match.path else None,
        branch_points=tuple(branch_points),
        resident_kv_tokens=min(resident, depth),
    )


def checkpoints_beyond(match: TreeMatch, position: int) -> list[Checkpoint]:
    """Return the checkpoints at ``position`` of a matched prompt and beyond, on every branch.

    Complexity: O(nodes there).
    """
    if match.depth < position:
        return []
    first = next(node for node in match.path if node.end >= position)
    found: list[Checkpoint] = []
    pending = [first]
    while pending:
        node = pending.pop()
        found += [checkpoint for checkpoint in node.checkpoints if checkpoint.position >= position]
        pending += [child for child in node.children.values() if child.is_live]
    return found


def _deepest_ever(node: Node, limit: int) -> int:
    """Return the deepest position of at most ``limit`` where this node holds or held a checkpoint, or 0."""
    stored = node.deepest_checkpoint(limit)
    return max(stored.position if stored else 0, _last_within(node.evicted, limit))


def _last_within(positions: Sequence[int], limit: int) -> int:
    """Return the last of ascending ``positions`` that is at most ``limit``, or 0."""
    num_within = bisect_right(positions, limit)
    return positions[num_within - 1] if num_within else 0
