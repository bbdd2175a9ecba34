"""The states that SGLang's tree holds, by the node that each is at the end of."""

from collections.abc import Callable
from typing import final

from milepost.store import Checkpoint

__all__ = ["TreeState", "TreeStates"]


@final
class TreeState:
    """What stands for one state in a cache: planned first, and in the tree once it was captured.

    Attributes:
        node_id: The node of SGLang's tree that it is at the end of; None while it is not there.
        checkpoint: The cache's own record of it.
    """

    __slots__ = ("checkpoint", "node_id")

    #: In the units of the cache, which counts states.
    num_bytes = 1

    def __init__(self) -> None:
        self.node_id: int | None = None
        self.checkpoint: Checkpoint | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether the cache keeps it, or would."""
        return self.checkpoint is not None and self.checkpoint.is_stored


@final
class TreeStates:
    """Which states are in the tree: those that the cache wants, and those that it does not, oldest first."""

    def __init__(self) -> None:
        self.wanted: dict[int, TreeState] = {}
        self.unwanted: dict[int, None] = {}
        #: Called with each node whose state is not wanted any more, or gone.
        self.on_worthless: Callable[[int], None] = _ignore

    def enter(self, node_id: int, state: TreeState | None) -> None:
        """Note that a state is at ``node_id`` now; None for one that nobody planned."""
        if state is None or not state.is_wanted:
            if node_id not in self.wanted:
                self.unwanted.setdefault(node_id)
            return
        self.unwanted.pop(node_id, None)
        state.node_id = node_id
        self.wanted[node_id] = state

    def leave(self, node_id: int) -> TreeState | None:
        """Note that the state at ``node_id`` is gone; return it where the cache wanted it."""
        self.unwanted.pop(node_id, None)
        state = self.wanted.pop(node_id, None)
        if state is not None:
            state.node_id = None
            self.on_worthless(node_id)
        return state

    def reject(self, state: TreeState) -> None:
        """Note that the cache wants ``state`` no more; harmless where it is not in the tree."""
        node_id = state.node_id
        if node_id is not None:
            self.unwanted[node_id] = None
            del self.wanted[node_id]
            state.node_id = None
            self.on_worthless(node_id)

    def clear(self) -> None:
        """Forget all of them: the tree was emptied."""
        for state in self.wanted.values():
            state.node_id = None
        self.wanted.clear()
        self.unwanted.clear()


def _ignore(node_id: int) -> None:
    """Nobody keeps an order of what the states are worth."""
