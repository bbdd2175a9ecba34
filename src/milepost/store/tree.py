"""A radix tree over keys: which prompts have been seen, and how far a new one follows them.

A key is a token, or a chained hash of a block of ``key_tokens`` tokens; positions always count tokens. Edges
are byte strings, compared by one ``memcmp`` each; walks are loops, so depth is bounded by memory alone. Every
tenant has a root of its own, so prompts of different tenants never meet. The tree remembers prompts whose
checkpoints are gone (its *history*): overlap is learned from all traffic, not only from what is cached, and
a lost hit can be told apart from a prompt never seen. Matching reads; only :meth:`RadixTree.insert` splits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from milepost.store.history import HistoryQueue
from milepost.store.node import Node
from milepost.store.seen import BranchPoint, SeenPrompt
from milepost.tokens import KeyArray, common_prefix_length, key_dtype

__all__ = ["InsertResult", "RadixTree", "TreeMatch"]

# A merge copies both edges. Short ones are worth it; between long ones, a walk hardly notices the seam.
_MOST_MERGED_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class TreeMatch:
    """How far a prompt follows the tree: ``depth`` tokens, along ``path`` (no root, the last one partly).

    ``version`` is the tree's when it was matched: until the tree changes, the match holds.
    """

    depth: int
    path: tuple[Node, ...]
    version: int


@dataclass(frozen=True, slots=True)
class InsertResult:
    """What one prompt did to the tree.

    Attributes:
        prompt: The prompt.
        path: Its nodes, from below the root; the last one ends at or after the prompt's end.
        overlap_depth: How far it followed earlier prompts.
        earlier: The latest prompt that shares all of that; None where nothing is shared.
        branch_point: The branch point at ``overlap_depth``; None where there is none.
        is_diverging: Whether it diverged there from another prompt, rather than going on from its end.
        passed: Earlier owners of its path -> up to which depth it owns theirs now.
    """

    prompt: SeenPrompt
    path: list[Node]
    overlap_depth: int
    earlier: SeenPrompt | None
    branch_point: BranchPoint | None
    is_diverging: bool
    passed: dict[SeenPrompt, int]


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
        self.key_dtype = key_dtype(key_tokens)
        self._key_bytes = self.key_dtype.itemsize
        self._roots: dict[str, Node] = {}
        self._tenant_of: dict[Node, str] = {}
        self._segment_tokens = segment_tokens
        self._history = HistoryQueue()

    def __del__(self) -> None:
        for node in list(self.nodes()):
            node.take_apart()
        for root in self._roots.values():
            root.take_apart()

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
        self, keys: KeyArray, *, tenant: str, prompt: SeenPrompt, match: TreeMatch | None = None
    ) -> InsertResult:
        """Add a prompt, which owns its path from now on. Splits at most one node, where it diverges or ends;
        one that goes on from a leaf makes it longer. O(num_tokens).

        Args:
            keys: The prompt.
            tenant: Whose it is.
            prompt: The prompt as it is remembered.
            match: What :meth:`match` said of it; it is matched anew where the tree has changed since.
        """
        if match is None or match.version != self.version:
            match = self.match(keys, tenant=tenant)
        path, depth = list(match.path), match.depth
        end = keys.size * self.key_tokens
        earlier = path[-1].owner if path else None
        if path and depth < path[-1].end:
            path[-1] = self._split(path[-1], depth)
        last = path[-1] if path else None
        passed: dict[SeenPrompt, int] = {}
        for node in path:
            before = node.owner
            if before is not prompt:
                passed[before] = node.end
                node.owner = prompt
                for checkpoint in node.checkpoints:
                    prompt.own(checkpoint)
        overlap_depth = min(depth, prompt.num_tokens)
        is_diverging = depth < end and last is not None and bool(last.children)
        if last is not None and is_diverging and last.branch_point is None:
            last.branch_point = BranchPoint(last.end)
        branch_point = last.branch_point if last is not None and last.end == overlap_depth else None
        if depth == end:
            if last is not None:
                self._history.refresh(last)
        # Where prompts diverged before, a watched branch point keeps its place though its branches are gone.
        elif last is None or last.children or _is_watched(branch_point):
            path.append(self._add_leaf(last or self._root(tenant), keys, depth, prompt))
        else:
            self._extend(last, keys)
        return InsertResult(prompt, path, overlap_depth, earlier, branch_point, is_diverging, passed)

    def note_death(self, node: Node) -> None:
        """Tell the tree that ``node`` lost its last checkpoint: as a leaf, it is now history."""
        if not node.children:
            self._history.append(node)

    def note_life(self, node: Node) -> None:
        """Tell the tree that ``node`` holds a checkpoint or has a live child."""
        self._history.remove(node)

    def forget(self, *, until_num_keys: int) -> list[Node]:
        """Drop the oldest history until at most ``until_num_keys`` keys remain or all of it is gone; return
        the nodes dropped.
        """
        forgotten: list[Node] = []
        while self.num_keys > until_num_keys and self._history:
            leaf = self._history.pop()
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
                self._history.append(parent)
            # A watched branch point keeps its place: where its node is merged away, nothing would release it.
            elif len(parent.children) == 1 and not _is_watched(parent.branch_point):
                (child,) = parent.children.values()
                if child.end - parent.start <= _MOST_MERGED_TOKENS:
                    self._merge(parent, child)
        return forgotten

    def tenants(self) -> list[str]:
        """Return whose prompts it remembers."""
        return list(self._roots)

    def roots(self) -> dict[str, Node]:
        """Return the root of each tenant's prompts, the one seen first before others: to be looked at."""
        return self._roots

    def forget_tenant(self, tenant: str) -> list[Node]:
        """Drop all that is remembered of a tenant, none of whose nodes is live; return the nodes dropped."""
        nodes = list(self.nodes(tenant=tenant))
        root = self._roots.pop(tenant)
        del self._tenant_of[root]
        root.children.clear()
        for node in nodes:
            self._history.remove(node)
            self.num_keys -= len(node.data) // self._key_bytes
            node.children.clear()
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

    def _root(self, tenant: str) -> Node:
        if tenant not in self._roots:
            root = Node(parent=None, start=0, end=0, data=b"", owner=SeenPrompt(0))
            self._roots[tenant] = root
            self._tenant_of[root] = tenant
        return self._roots[tenant]

    def _add_leaf(self, parent: Node, keys: KeyArray, start: int, owner: SeenPrompt) -> Node:
        edge = keys[start // self.key_tokens :]
        leaf = Node(
            parent=parent,
            start=start,
            end=keys.size * self.key_tokens,
            data=edge.tobytes(),
            owner=owner,
        )
        parent.adopt(leaf, first_key=leaf.data[: self._key_bytes])
        self.num_keys += edge.size
        self.version += 1
        self._history.remove(parent)
        self._history.append(leaf)
        return leaf

    def _extend(self, leaf: Node, keys: KeyArray) -> None:
        """Make an edge longer, so that a conversation of many turns stays one node."""
        more = keys[leaf.end // self.key_tokens :]
        leaf.data += more.tobytes()
        leaf.end = keys.size * self.key_tokens
        leaf.branch_point = None
        self.num_keys += more.size
        self.version += 1
        self._history.refresh(leaf)

    def _split(self, lower: Node, at: int) -> Node:
        """Cut ``lower`` in two at position ``at``; return the new upper half."""
        parent = lower.parent
        assert parent is not None
        assert lower.start < at < lower.end
        width = self._key_bytes
        cut = (at - lower.start) // self.key_tokens * width
        upper = Node(parent=parent, start=lower.start, end=at, data=lower.data[:cut], owner=lower.owner)
        # A copy each, so that forgetting one half really frees its keys.
        lower.data = lower.data[cut:]
        parent.adopt(upper, first_key=upper.data[:width])
        upper.adopt(lower, first_key=lower.data[:width])
        lower.cut(at, upper=upper, segment_tokens=self._segment_tokens)
        self.version += 1
        if not lower.is_live:
            self.note_death(lower)
        return upper

    def _merge(self, upper: Node, lower: Node) -> None:
        """Undo a split that no branch needs any more, so that walks stay as short as the branches are."""
        upper.take_over(lower, segment_tokens=self._segment_tokens)
        self.version += 1
        if self._history.remove(lower) and not upper.is_live:
            self._history.append(upper)


def _is_watched(branch_point: BranchPoint | None) -> bool:
    return branch_point is not None and branch_point.is_tracked
