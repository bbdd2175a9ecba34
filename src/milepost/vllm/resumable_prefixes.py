"""Which prefixes of a block pool can be resumed from, kept up block by block.

Law
    A prefix is known by its chained block hash, one for all cache groups. It has *KV* where every attention
    group holds its last block, and it is *live* where the prefix before it is live too. A live prefix whose
    state is in every recurrent group can be resumed from; it is an *anchor*. A block of KV is of use as long
    as an anchor lies at its end or behind it::

        live(p)    = kv(p) and (p is the first or live(parent(p)))
        anchor(p)  = live(p) and states(p)
        support(p) = anchor(p) + number of children c with support(c) > 0
        useful(p)  = support(p) > 0

Complexity: a block that comes or goes costs O(1) amortised, and O(blocks behind it) where what is behind it
is cut off by it or joined again; an anchor O(blocks before it back to the next useful one).
"""

from collections.abc import Hashable, Sequence
from typing import TypeAlias, final

__all__ = ["ResumablePrefixes"]

PrefixHash: TypeAlias = Hashable


@final
class _Prefix:
    """One prefix; ``parent`` is unknown, and so is None, until its KV was seen."""

    __slots__ = ("children", "is_anchor", "is_live", "kv", "parent", "prefix_hash", "states", "support")

    def __init__(self, prefix_hash: PrefixHash) -> None:
        self.prefix_hash = prefix_hash
        self.parent: _Prefix | None = None
        self.children: set[_Prefix] = set()
        # Copies by group: requests side by side may compute the same block twice.
        self.kv: dict[int, int] = {}
        self.states: dict[int, int] = {}
        self.is_live = self.is_anchor = False
        self.support = 0


@final
class ResumablePrefixes:
    """See the module.

    Args:
        kv_groups: The attention groups, at least one.
        state_groups: The recurrent groups.
    """

    def __init__(self, *, kv_groups: Sequence[int], state_groups: Sequence[int]) -> None:
        self._num_kv_groups, self._num_state_groups = len(kv_groups), len(state_groups)
        self._prefixes: dict[PrefixHash, _Prefix] = {}
        self._useful: list[PrefixHash] = []
        self._useless: list[PrefixHash] = []

    def __len__(self) -> int:
        return len(self._prefixes)

    def __contains__(self, prefix_hash: PrefixHash) -> bool:
        return prefix_hash in self._prefixes

    def store_kv(self, prefix_hash: PrefixHash, group: int, *, parent: PrefixHash | None) -> None:
        """Note that a group holds the last block of a prefix, or one more copy of it.

        Args:
            prefix_hash: The prefix.
            group: The attention group.
            parent: The prefix that ends where this block begins; None at the start of a prompt.
        """
        prefix = self._get(prefix_hash)
        if not prefix.kv and parent is not None:
            prefix.parent = self._get(parent)
            prefix.parent.children.add(prefix)
        prefix.kv[group] = prefix.kv.get(group, 0) + 1
        self._refresh(prefix)

    def remove_kv(self, prefix_hash: PrefixHash, group: int) -> bool:
        """Note that a group lost a copy of the last block of a prefix; return whether it was the last one."""
        prefix = self._prefixes.get(prefix_hash)
        if prefix is None or not _discard(prefix.kv, group):
            return False
        self._refresh(prefix)
        self._forget(prefix)
        return True

    def store_state(self, prefix_hash: PrefixHash, group: int) -> None:
        """Note that a recurrent group holds the state after a prefix, or one more copy of it."""
        prefix = self._get(prefix_hash)
        prefix.states[group] = prefix.states.get(group, 0) + 1
        self._refresh(prefix)

    def remove_state(self, prefix_hash: PrefixHash, group: int) -> None:
        """Note that a recurrent group lost a copy of the state after a prefix."""
        prefix = self._prefixes.get(prefix_hash)
        if prefix is not None and _discard(prefix.states, group):
            self._refresh(prefix)
            self._forget(prefix)

    def clear(self) -> None:
        """Forget everything, and what has changed."""
        self._prefixes.clear()
        self._useful.clear()
        self._useless.clear()

    def take_changes(self) -> tuple[list[PrefixHash], list[PrefixHash]]:
        """Return the prefixes whose last block has become useless since the last call, deepest first, and
        those whose has become useful, shallowest first.
        """
        useless, useful = self._useless, self._useful
        self._useless, self._useful = [], []
        return useless, useful

    def _get(self, prefix_hash: PrefixHash) -> _Prefix:
        prefix = self._prefixes.get(prefix_hash)
        if prefix is None:
            prefix = self._prefixes[prefix_hash] = _Prefix(prefix_hash)
        return prefix

    def _refresh(self, changed: _Prefix) -> None:
        """Bring a prefix up to date, and those behind it where that cuts them off or joins them again."""
        waiting = [changed]
        while waiting:
            prefix = waiting.pop()
            parent = prefix.parent
            is_live = len(prefix.kv) == self._num_kv_groups and (parent is None or parent.is_live)
            if is_live is not prefix.is_live:
                prefix.is_live = is_live
                waiting += prefix.children
            is_anchor = is_live and len(prefix.states) == self._num_state_groups
            if is_anchor is not prefix.is_anchor:
                prefix.is_anchor = is_anchor
                self._support(prefix, is_anchor)

    def _support(self, prefix: _Prefix | None, is_more: bool) -> None:
        """Count one support more or less, and on to the parent for as long as that decides anything."""
        changed: list[PrefixHash] = []
        while prefix is not None:
            prefix.support += 1 if is_more else -1
            if prefix.support != is_more:
                break
            changed.append(prefix.prefix_hash)
            prefix = prefix.parent
        # Shallower anchors come first, so what this one adds lies behind what is there.
        if is_more:
            self._useful += reversed(changed)
        else:
            self._useless += changed

    def _forget(self, prefix: _Prefix | None) -> None:
        """Drop a prefix of which nothing is left, and those before it that were only in its way."""
        while prefix is not None and not (prefix.kv or prefix.states or prefix.children):
            del self._prefixes[prefix.prefix_hash]
            parent, prefix.parent = prefix.parent, None
            if parent is not None:
                parent.children.discard(prefix)
            prefix = parent


def _discard(copies: dict[int, int], group: int) -> bool:
    """Take one copy of a group away; return whether that was the last one."""
    left = copies.get(group, 0) - 1
    if left > 0:
        copies[group] = left
        return False
    return copies.pop(group, None) is not None
