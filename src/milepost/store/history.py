"""Which leaves of the tree hold nothing but history, the longest untouched first."""

from typing import final

from milepost.store.node import Node

__all__ = ["HistoryQueue"]


@final
class HistoryQueue:
    """A queue that runs through its nodes, so that one anywhere in it goes in O(1)."""

    def __init__(self) -> None:
        self._oldest: Node | None = None
        self._newest: Node | None = None

    def __bool__(self) -> bool:
        return self._oldest is not None

    def append(self, leaf: Node) -> None:
        """Put ``leaf`` at the new end; one that is queued already stays where it is."""
        if leaf.is_queued:
            return
        leaf.is_queued = True
        leaf.older, leaf.newer = self._newest, None
        if self._newest is None:
            self._oldest = leaf
        else:
            self._newest.newer = leaf
        self._newest = leaf

    def refresh(self, leaf: Node) -> None:
        """Move ``leaf`` to the new end, if it is queued."""
        if self.remove(leaf):
            self.append(leaf)

    def remove(self, leaf: Node) -> bool:
        """Take ``leaf`` out; return whether it was queued."""
        if not leaf.is_queued:
            return False
        older, newer = leaf.older, leaf.newer
        if older is None:
            self._oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self._newest = older
        else:
            newer.older = older
        leaf.older = leaf.newer = None
        leaf.is_queued = False
        return True

    def pop(self) -> Node:
        """Take out the one that is untouched for longest."""
        leaf = self._oldest
        assert leaf is not None
        self.remove(leaf)
        return leaf
