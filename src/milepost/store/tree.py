"""A radix tree over tokens: which prompts have been seen, and how far a new one follows them.

Edges are token arrays, compared by numpy; walks are loops, so depth is bounded by memory alone. Every
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

from milepost.store.node import Node
from milepost.tokens import TokenArray, common_prefix_length

__all__ = ["RadixTree", "TreeMatch"]

_EMPTY = np.empty(0, dtype=np.int32)
# A merge copies both edges. Short ones are worth it; between long ones, a walk hardly notices the seam.
_MOST_MERGED_TOKENS = 4096
_position_of = attrgetter("position")


@dataclass(frozen=True, slots=True)
class TreeMatch:
    """How far a prompt follows the tree: ``depth`` tokens, along ``path`` (no root, the last one partly)."""

    depth: int
    path: tuple[Node, ...]


class RadixTree:
    """See the module. ``segment_tokens`` is the length of a KV segment, needed to split KV with its edge."""

    def __init__(self, *, segment_tokens: int) -> None:
        self.num_tokens = 0
        self._roots: dict[str, Node] = {}
        self._tenant_of: dict[Node, str] = {}
        self._segment_tokens = segment_tokens
        # Leaves that hold nothing but history, the longest untouched first.
        self._dead_leaves: OrderedDict[Node, None] = OrderedDict()

    def match(self, tokens: TokenArray, *, tenant: str) -> TreeMatch:
        """Return the longest prefix of ``tokens`` in the tree. Reads only. O(depth + nodes on the path)."""
        path: list[Node] = []
        depth = 0
        node = self._roots.get(tenant)
        while node is not None and depth < tokens.size:
            node = node.children.get(int(tokens[depth]))
            if node is None:
                break
            shared = common_prefix_length(node.tokens, tokens[depth:])
            path.append(node)
            depth += shared
            if shared < node.tokens.size:
                break
        return TreeMatch(depth=depth, path=tuple(path))

    def insert(self, tokens: TokenArray, *, tenant: str) -> list[Node]:
        """Add ``tokens`` and return the nodes of its path from below the root; the last one ends at or after
        the prompt's end. Splits at most one node. O(num_tokens).
        """
        match = self.match(tokens, tenant=tenant)
        path = list(match.path)
        if not path:
            return [self._add_leaf(self._root(tenant), tokens, 0)]
        if match.depth < tokens.size:
            if match.depth < path[-1].end:
                path[-1] = self._split(path[-1], match.depth)
            path.append(self._add_leaf(path[-1], tokens, match.depth))
        elif path[-1] in self._dead_leaves:
            self._dead_leaves.move_to_end(path[-1])
        for node in path:
            # A prompt that ends inside an edge says nothing about tokens it does not have.
            if node.end <= tokens.size:
                node.latest_num_tokens = int(tokens.size)
        return path

    def note_death(self, node: Node) -> None:
        """Tell the tree that ``node`` lost its last checkpoint: as a leaf, it is now history."""
        if not node.children:
            self._dead_leaves[node] = None

    def note_life(self, node: Node) -> None:
        """Tell the tree that ``node`` holds a checkpoint or has a live child."""
        self._dead_leaves.pop(node, None)

    def forget(self, *, until_num_tokens: int) -> None:
        """Drop the oldest history until at most ``until_num_tokens`` tokens remain or all of it is gone."""
        while self.num_tokens > until_num_tokens and self._dead_leaves:
            leaf, _ = self._dead_leaves.popitem(last=False)
            parent = leaf.parent
            assert parent is not None
            del parent.children[int(leaf.tokens[0])]
            self.num_tokens -= int(leaf.tokens.size)
            if parent.parent is None:
                if not parent.children:
                    del self._roots[self._tenant_of.pop(parent)]
            elif not parent.children and not parent.is_live:
                self._dead_leaves[parent] = None
            elif len(parent.children) == 1:
                (child,) = parent.children.values()
                if child.end - parent.start <= _MOST_MERGED_TOKENS:
                    self._merge(parent, child)

    def nodes(self) -> Iterator[Node]:
        """Yield every node but the roots, parents first."""
        pending = [child for root in self._roots.values() for child in root.children.values()]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.children.values())

    def is_dead_leaf(self, node: Node) -> bool:
        """Return whether the tree holds ``node`` as a leaf of mere history."""
        return node in self._dead_leaves

    def _root(self, tenant: str) -> Node:
        if tenant not in self._roots:
            root = Node(parent=None, start=0, tokens=_EMPTY)
            self._roots[tenant] = root
            self._tenant_of[root] = tenant
        return self._roots[tenant]

    def _add_leaf(self, parent: Node, tokens: TokenArray, start: int) -> Node:
        edge = tokens[start:].copy()
        edge.flags.writeable = False
        leaf = Node(parent=parent, start=start, tokens=edge)
        parent.children[int(edge[0])] = leaf
        self.num_tokens += int(edge.size)
        self._dead_leaves.pop(parent, None)
        self._dead_leaves[leaf] = None
        return leaf

    def _split(self, lower: Node, at: int) -> Node:
        """Cut ``lower`` in two at position ``at``; return the new upper half. Payloads are never cut: each
        KV segment and checkpoint goes to the half that holds its last token.
        """
        parent = lower.parent
        assert parent is not None
        assert lower.start < at < lower.end
        upper = Node(parent=parent, start=lower.start, tokens=lower.tokens[: at - lower.start].copy())
        upper.latest_num_tokens = lower.latest_num_tokens
        upper.children[int(lower.tokens[at - lower.start])] = lower
        parent.children[int(upper.tokens[0])] = upper
        num_kv = upper.num_segments_to(at, self._segment_tokens)
        upper.kv, lower.kv = lower.kv[:num_kv], lower.kv[num_kv:]
        upper.num_kv_reached = min(lower.num_kv_reached, num_kv)
        lower.num_kv_reached -= upper.num_kv_reached
        cut = bisect_right(lower.checkpoints, at, key=_position_of)
        upper.checkpoints, lower.checkpoints = lower.checkpoints[:cut], lower.checkpoints[cut:]
        for checkpoint in upper.checkpoints:
            checkpoint.node = upper
        cut = bisect_right(lower.dropped, at)
        upper.dropped, lower.dropped = lower.dropped[:cut], lower.dropped[cut:]
        # A copy each, so that forgetting one half really frees its tokens.
        lower.tokens = lower.tokens[at - lower.start :].copy()
        lower.start, lower.parent = at, upper
        upper.num_live_children = int(lower.is_live)
        if not lower.is_live:
            self.note_death(lower)
        return upper

    def _merge(self, upper: Node, lower: Node) -> None:
        """Undo a split that no branch needs any more, so that walks stay as short as the branches are."""
        if upper.num_kv_reached == upper.num_segments_to(upper.end, self._segment_tokens):
            upper.num_kv_reached += lower.num_kv_reached
        upper.tokens = np.concatenate((upper.tokens, lower.tokens))
        upper.end = lower.end
        upper.children = lower.children
        for child in upper.children.values():
            child.parent = upper
        upper.kv += lower.kv
        for checkpoint in lower.checkpoints:
            checkpoint.node = upper
        upper.checkpoints += lower.checkpoints
        upper.dropped += lower.dropped
        upper.num_live_children = lower.num_live_children
        upper.latest_num_tokens = lower.latest_num_tokens
        if self._dead_leaves.pop(lower, ...) is None and not upper.is_live:
            self._dead_leaves[upper] = None
