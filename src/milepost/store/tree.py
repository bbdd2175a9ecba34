"""A radix tree over keys: which prompts have been seen, and how far a new one follows them.

A key is a token, or a chained hash of a block of ``key_tokens`` tokens; positions always count tokens. Edges
are byte strings, compared by one ``memcmp`` each; walks are loops, so depth is bounded by memory alone. Every
tenant has a root of its own, so prompts of different tenants never meet. The tree remembers prompts whose
checkpoints are gone (its *history*): overlap is learned from all traffic, not only from what is cached, and
a lost hit can be told apart from a prompt never seen. Matching reads; only :meth:`RadixTree.insert` splits.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from milepost.reuse import Sighting
from milepost.store.node import Node
from milepost.tokens import KeyArray, common_prefix_length

__all__ = ["Passage", "RadixTree", "TreeMatch"]

# A merge copies both edges. Short ones are worth it; between long ones, a walk hardly notices the seam.
_MOST_MERGED_TOKENS = 4096
_position_of = attrgetter("position")


@dataclass(frozen=True, slots=True)
class TreeMatch:
    """How far a prompt follows the tree: ``depth`` tokens, along ``path`` (no root, the last one partly).

    ``version`` is the tree's when it was matched: until the tree changes, the match holds.
    """

    depth: int
    path: tuple[Node, ...]
    version: int


@dataclass(frozen=True, slots=True)
class Passage:
    """What one prompt did to the tree.

    Attributes:
        sighting: The prompt.
        path: Its nodes, from below the root; the last one ends at or after the prompt's end.
        overlap_depth: How far it followed earlier prompts.
        earlier: The latest prompt that shares all of that; None where nothing is shared.
        met: The last node that it shared; it ends at ``overlap_depth``, or behind the prompt's end.
        parted: Whether it parted there from another prompt, rather than going on from its end.
        displaced: Earlier prompts that it took the lead of -> up to which depth.
    """

    sighting: Sighting
    path: list[Node]
    overlap_depth: int
    earlier: Sighting | None
    met: Node | None
    parted: bool
    displaced: dict[Sighting, int]


class RadixTree:
    """See the module.

    Args:
        segment_tokens: Length of a KV segment, needed to split KV with its edge.
        key_tokens: Tokens that one key stands for.
    """

    def __init__(self, *, segment_tokens: int, key_tokens: int = 1) -> None:
        self.num_keys = 0
        self.version = 0
        self.key_tokens = key_tokens
        self.key_dtype = np.dtype(np.int32 if key_tokens == 1 else np.int64)
        self._key_bytes = self.key_dtype.itemsize
        self._roots: dict[str, Node] = {}
        self._tenant_of: dict[Node, str] = {}
        self._segment_tokens = segment_tokens
        # Leaves that hold nothing but history, the longest untouched first.
        self._dead_leaves: OrderedDict[Node, None] = OrderedDict()

    @property
    def num_tokens(self) -> int:
        """Tokens on all edges."""
        return self.num_keys * self.key_tokens

    def match(self, keys: KeyArray, *, tenant: str) -> TreeMatch:
        """Return the longest prefix of ``keys`` in the tree. Reads only. O(depth + nodes on the path)."""
        path: list[Node] = []
        data, width = keys.tobytes(), self._key_bytes
        offset, size = 0, len(data)
        node = self._roots.get(tenant)
        while node is not None and offset < size:
            node = node.children.get(data[offset : offset + width])
            if node is None:
                break
            path.append(node)
            edge = node.data
            if not data.startswith(edge, offset):
                offset += common_prefix_length(node.keys(self.key_dtype), keys[offset // width :]) * width
                break
            offset += len(edge)
        return TreeMatch(offset // width * self.key_tokens, tuple(path), self.version)

    def insert(
        self, keys: KeyArray, *, tenant: str, sighting: Sighting, match: TreeMatch | None = None
    ) -> Passage:
        """Add a prompt, which from now on answers for its path. Splits at most one node, where it parts or
        ends; one that goes on from a leaf makes it longer. O(num_tokens).

        Args:
            keys: The prompt.
            tenant: Whose it is.
            sighting: The prompt as it is remembered.
            match: What :meth:`match` said of it; it is matched anew where the tree has changed since.
        """
        if match is None or match.version != self.version:
            match = self.match(keys, tenant=tenant)
        path, depth = list(match.path), match.depth
        end = keys.size * self.key_tokens
        earlier = path[-1].sighting if path else None
        if path and depth < path[-1].end:
            path[-1] = self._split(path[-1], depth)
        met = path[-1] if path else None
        parted = depth < end and met is not None and bool(met.children)
        displaced: dict[Sighting, int] = {}
        for node in path:
            before = node.sighting
            if before is not sighting:
                displaced[before] = node.end
                node.sighting = sighting
                for checkpoint in node.checkpoints:
                    sighting.hold(checkpoint)
        if depth == end:
            if met is not None and met in self._dead_leaves:
                self._dead_leaves.move_to_end(met)
        elif met is None or met.children or met.junction is not None:
            path.append(self._add_leaf(met or self._root(tenant), keys, depth, sighting))
        else:
            self._extend(met, keys)
        return Passage(sighting, path, min(depth, sighting.num_tokens), earlier, met, parted, displaced)

    def note_death(self, node: Node) -> None:
        """Tell the tree that ``node`` lost its last checkpoint: as a leaf, it is now history."""
        if not node.children:
            self._dead_leaves[node] = None

    def note_life(self, node: Node) -> None:
        """Tell the tree that ``node`` holds a checkpoint or has a live child."""
        self._dead_leaves.pop(node, None)

    def forget(self, *, until_num_keys: int) -> list[Node]:
        """Drop the oldest history until at most ``until_num_keys`` keys remain or all of it is gone; return
        the nodes dropped.
        """
        forgotten: list[Node] = []
        while self.num_keys > until_num_keys and self._dead_leaves:
            leaf, _ = self._dead_leaves.popitem(last=False)
            forgotten.append(leaf)
            parent = leaf.parent
            assert parent is not None
            del parent.children[leaf.data[: self._key_bytes]]
            self.num_keys -= len(leaf.data) // self._key_bytes
            self.version += 1
            if parent.parent is None:
                if not parent.children:
                    del self._roots[self._tenant_of.pop(parent)]
            elif not parent.children and not parent.is_live:
                self._dead_leaves[parent] = None
            elif len(parent.children) == 1:
                (child,) = parent.children.values()
                if child.end - parent.start <= _MOST_MERGED_TOKENS:
                    self._merge(parent, child)
        return forgotten

    def tenants(self) -> list[str]:
        """Return whose prompts it remembers."""
        return list(self._roots)

    def forget_tenant(self, tenant: str) -> list[Node]:
        """Drop all that is remembered of a tenant, none of whose nodes is live; return the nodes dropped."""
        nodes = list(self.nodes(tenant=tenant))
        for node in nodes:
            self._dead_leaves.pop(node, None)
            self.num_keys -= len(node.data) // self._key_bytes
        del self._tenant_of[self._roots.pop(tenant)]
        self.version += 1
        return nodes

    def nodes(self, *, tenant: str | None = None) -> Iterator[Node]:
        """Yield every node but the roots, parents first; of one tenant or of all."""
        roots = self._roots.values() if tenant is None else [self._roots[tenant]]
        pending = [child for root in roots for child in root.children.values()]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.children.values())

    def is_dead_leaf(self, node: Node) -> bool:
        """Return whether the tree holds ``node`` as a leaf of mere history."""
        return node in self._dead_leaves

    def _root(self, tenant: str) -> Node:
        if tenant not in self._roots:
            root = Node(parent=None, start=0, end=0, data=b"", sighting=Sighting(0))
            self._roots[tenant] = root
            self._tenant_of[root] = tenant
        return self._roots[tenant]

    def _add_leaf(self, parent: Node, keys: KeyArray, start: int, sighting: Sighting) -> Node:
        edge = keys[start // self.key_tokens :]
        leaf = Node(
            parent=parent,
            start=start,
            end=keys.size * self.key_tokens,
            data=edge.tobytes(),
            sighting=sighting,
        )
        parent.children[leaf.data[: self._key_bytes]] = leaf
        self.num_keys += edge.size
        self.version += 1
        self._dead_leaves.pop(parent, None)
        self._dead_leaves[leaf] = None
        return leaf

    def _extend(self, leaf: Node, keys: KeyArray) -> None:
        """Make an edge longer, so that a conversation of many turns stays one node."""
        more = keys[leaf.end // self.key_tokens :]
        leaf.data += more.tobytes()
        leaf.end = keys.size * self.key_tokens
        self.num_keys += more.size
        self.version += 1
        if leaf in self._dead_leaves:
            self._dead_leaves.move_to_end(leaf)

    def _split(self, lower: Node, at: int) -> Node:
        """Cut ``lower`` in two at position ``at``; return the new upper half. Payloads are never cut: each
        KV segment and checkpoint goes to the half that holds its last token.
        """
        parent = lower.parent
        assert parent is not None
        assert lower.start < at < lower.end
        cut = (at - lower.start) // self.key_tokens * self._key_bytes
        width = self._key_bytes
        upper = Node(parent=parent, start=lower.start, end=at, data=lower.data[:cut], sighting=lower.sighting)
        upper.children[lower.data[cut : cut + width]] = lower
        parent.children[upper.data[:width]] = upper
        num_kv = upper.num_segments_to(at, self._segment_tokens)
        upper.kv, lower.kv = lower.kv[:num_kv], lower.kv[num_kv:]
        upper.num_kv_reached = min(lower.num_kv_reached, num_kv)
        lower.num_kv_reached -= upper.num_kv_reached
        half = bisect_right(lower.checkpoints, at, key=_position_of)
        upper.checkpoints, lower.checkpoints = lower.checkpoints[:half], lower.checkpoints[half:]
        for checkpoint in upper.checkpoints:
            checkpoint.node = upper
        half = bisect_right(lower.dropped, at)
        upper.dropped, lower.dropped = lower.dropped[:half], lower.dropped[half:]
        half = bisect_right(lower.cleared, at)
        upper.cleared, lower.cleared = lower.cleared[:half], lower.cleared[half:]
        # A copy each, so that forgetting one half really frees its keys.
        lower.data = lower.data[cut:]
        lower.start, lower.parent = at, upper
        upper.num_live_children = int(lower.is_live)
        self.version += 1
        if not lower.is_live:
            self.note_death(lower)
        return upper

    def _merge(self, upper: Node, lower: Node) -> None:
        """Undo a split that no branch needs any more, so that walks stay as short as the branches are."""
        if upper.num_kv_reached == upper.num_segments_to(upper.end, self._segment_tokens):
            upper.num_kv_reached += lower.num_kv_reached
        upper.data += lower.data
        upper.end = lower.end
        upper.children = lower.children
        for child in upper.children.values():
            child.parent = upper
        upper.kv += lower.kv
        for checkpoint in lower.checkpoints:
            checkpoint.node = upper
        for checkpoint in upper.checkpoints:
            lower.sighting.hold(checkpoint)
        upper.checkpoints += lower.checkpoints
        upper.dropped += lower.dropped
        upper.cleared += lower.cleared
        upper.num_live_children = lower.num_live_children
        upper.sighting, upper.junction = lower.sighting, lower.junction
        self.version += 1
        if self._dead_leaves.pop(lower, ...) is None and not upper.is_live:
            self._dead_leaves[upper] = None
