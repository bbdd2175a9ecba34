"""A tree as one looks at it: so many nodes and no more, however many it has.

What is shown of many children are those that came first and those that came last, and of these the ones that
hold checkpoints, the latest used first. Reads only.
"""

from collections import deque
from collections.abc import Reversible, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from milepost.store.node import Node
from milepost.store.prefix_store import PrefixStore

__all__ = ["Outline", "OutlinedCheckpoint", "OutlinedNode", "outline"]

T = TypeVar("T")

# Of the children of a node: how many are looked at from either end, and how many are shown.
_MOST_LOOKED_AT, _MOST_CHILDREN = 32, 12
# Of a node: how many checkpoints are told of, and how many of its first keys.
_MOST_CHECKPOINTS, _MOST_KEYS = 24, 48
# Longer prompts are not looked up in other tiers: to gather their keys would take long.
_MOST_KEYS_MATCHED = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlinedCheckpoint:
    """One checkpoint.

    Attributes:
        position: Tokens from the start of the prompt.
        num_bytes: Of its state.
        is_promised: Whether a client asked to have it kept.
        is_pinned: Whether a request uses it now.
    """

    position: int
    num_bytes: int
    is_promised: bool
    is_pinned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlinedNode:
    """One edge of the tree.

    Attributes:
        parent: Its parent's place in the outline; None at the top.
        tenant: Whose it is, as a number.
        start: Where the edge begins, in tokens.
        end: Where it ends.
        first_keys: The first keys of the edge.
        kv_tokens: Tokens of it whose KV is stored.
        checkpoints: The deepest of them, ascending.
        num_checkpoints: How many there are.
        lost: Positions where a checkpoint was and is no more, ascending; the deepest of them.
        elsewhere: Positions of the checkpoints of other caches, for each of those; the deepest of them.
        num_hidden: Children that are not shown.
    """

    parent: int | None
    tenant: int
    start: int
    end: int
    first_keys: tuple[int, ...]
    kv_tokens: int
    checkpoints: tuple[OutlinedCheckpoint, ...]
    num_checkpoints: int
    lost: tuple[int, ...]
    elsewhere: tuple[tuple[int, ...], ...]
    num_hidden: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """See the module.

    Attributes:
        nodes: Parents before their children.
        num_tenants: How many have prompts here.
        num_hidden: Prompts' beginnings that are not shown.
    """

    nodes: tuple[OutlinedNode, ...]
    num_tenants: int
    num_hidden: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A node that is to be shown."""

    node: Node
    parent: int | None
    tenant: int
    name: str
    # The keys of its ancestors; None where they are too many.
    before: bytes | None


def outline(store: PrefixStore, *, others: Sequence[PrefixStore], most_nodes: int) -> Outline:
    """Return the top of the tree of ``store``.

    Args:
        store: The one that requests resume from.
        others: Slower ones, which have the same prompts.
        most_nodes: Nodes shown.

    Complexity: O(most_nodes), and the lengths of the prompts shown where there are ``others``.
    """
    roots = store.tree.roots()
    shown_roots = _ends(roots.items(), len(roots))
    waiting: deque[_Place] = deque()
    num_hidden = len(roots) - len(shown_roots)
    for number, (name, root) in enumerate(shown_roots):
        chosen = _chosen(root)
        num_hidden += len(root.children) - len(chosen)
        waiting += (_Place(child, None, number, name, b"") for child in chosen)
    nodes: list[OutlinedNode] = []
    while waiting and len(nodes) < most_nodes:
        place = waiting.popleft()
        chosen = _chosen(place.node)
        keys = _joined(place, limit=_MOST_KEYS_MATCHED * store.tree.key_dtype.itemsize) if others else None
        # What would come after the last that is shown is not: it is counted where it hangs.
        chosen = chosen[: max(0, most_nodes - len(nodes) - 1 - len(waiting))]
        waiting += (_Place(child, len(nodes), place.tenant, place.name, keys) for child in chosen)
        nodes.append(_outlined(place, store, others, keys=keys, num_shown=len(chosen)))
    num_hidden += sum(place.parent is None for place in waiting)
    return Outline(nodes=tuple(nodes), num_tenants=len(roots), num_hidden=num_hidden)


def _outlined(
    place: _Place, store: PrefixStore, others: Sequence[PrefixStore], *, keys: bytes | None, num_shown: int
) -> OutlinedNode:
    node, kv = place.node, store.kv
    told = node.checkpoints[-_MOST_CHECKPOINTS:]
    lost = {*node.evicted[-_MOST_CHECKPOINTS:], *node.cleared[-_MOST_CHECKPOINTS:]}
    width = store.tree.key_dtype.itemsize
    return OutlinedNode(
        parent=place.parent,
        tenant=place.tenant,
        start=node.start,
        end=node.end,
        first_keys=tuple(node.keys(store.tree.key_dtype)[:_MOST_KEYS].tolist()),
        kv_tokens=min(len(node.kv) * kv.segment_tokens, node.end - node.start),
        checkpoints=tuple(
            OutlinedCheckpoint(
                position=each.position,
                num_bytes=each.num_bytes,
                is_promised=each in store.promises,
                is_pinned=each.num_pins > (each in store.promises),
            )
            for each in told
        ),
        num_checkpoints=len(node.checkpoints),
        lost=tuple(sorted(lost - {each.position for each in told}))[-_MOST_CHECKPOINTS:],
        elsewhere=tuple(
            () if keys is None else _positions(other, keys, place, width=width) for other in others
        ),
        num_hidden=len(node.children) - num_shown,
    )


def _positions(store: PrefixStore, keys: bytes, place: _Place, *, width: int) -> tuple[int, ...]:
    """Return where another store has checkpoints on a node, the deepest of them."""
    match = store.tree.match(np.frombuffer(keys, store.tree.key_dtype), tenant=place.name)
    node = place.node
    found = [
        checkpoint.position
        for each in match.path
        if each.end > node.start
        for checkpoint in each.checkpoints
        if node.start < checkpoint.position <= min(node.end, match.depth)
    ]
    return tuple(found[-_MOST_CHECKPOINTS:])


def _joined(place: _Place, *, limit: int) -> bytes | None:
    if place.before is None or len(place.before) + len(place.node.data) > limit:
        return None
    return place.before + place.node.data


def _chosen(node: Node) -> list[Node]:
    """Return the children that are shown: those that hold something first, the latest used before others."""
    looked_at = _ends(node.children.values(), len(node.children))
    return sorted(looked_at, key=_rank, reverse=True)[:_MOST_CHILDREN]


def _ends(values: Reversible[T], count: int) -> list[T]:
    """Return all, or the first and the last."""
    if count <= 2 * _MOST_LOOKED_AT:
        return list(values)
    last = list(islice(reversed(values), _MOST_LOOKED_AT))
    return [*islice(values, _MOST_LOOKED_AT), *reversed(last)]


def _rank(node: Node) -> tuple[bool, int]:
    return node.is_live, max((each.last_used for each in node.checkpoints[-_MOST_CHECKPOINTS:]), default=0)
