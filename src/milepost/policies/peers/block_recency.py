"""One list of blocks for KV and states: the least recently used goes first, within a request its end."""

from typing import final

from milepost.store import Checkpoint, EvictionPolicy

__all__ = ["BlockRecency"]

# Positions below this many tokens order what one request used, without reaching into the next request.
_TICK = float(1 << 31)


@final
class BlockRecency(EvictionPolicy):
    """Least recently used over KV blocks and states alike, as in engines with one pool of blocks.

    A block of KV was last used by the last prompt through it. As far as the path goes on that is also its
    deepest prompt, whose KV-only checkpoint stands for all blocks that no later prompt has passed through, so
    taking that back from its end frees blocks in the order of a list of blocks. A request refreshes the state
    it resumes from and the KV of its whole prompt, but not the states that it passes. O(1).
    """

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        """Return the tick of the last use; of one tick, the deepest first."""
        return 0, checkpoint.last_used * _TICK - checkpoint.position
