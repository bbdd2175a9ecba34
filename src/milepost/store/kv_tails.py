"""KV beyond the last state of a path, for peers whose KV cache knows nothing of states (``keeps_kv``).

KV stays up to the prompt's end, or as far as its *KV-only checkpoint* holds it. Nothing can be resumed from
such a one; it is evicted from its end, segment by segment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from milepost.store.checkpoint import Checkpoint
from milepost.store.neighbours import exclusive_kv_tokens
from milepost.store.node import Node
from milepost.store.resident_checkpoints import ResidentCheckpoints
from milepost.store.resident_kv import ResidentKV
from milepost.store.source import PayloadSource

__all__ = ["KVOnly", "drop_shorter_tails", "trim_tail"]


@final
@dataclass(frozen=True, slots=True)
class KVOnly:
    """A source that has the KV of a prompt and no state."""

    source: PayloadSource

    def checkpoint(self, position: int) -> None:
        """Return nothing."""

    def kv_segments(self, start: int, end: int) -> Sequence[Any]:
        """Return the payloads of ``[start, end)``."""
        return self.source.kv_segments(start, end)


def drop_shorter_tails(checkpoints: ResidentCheckpoints, path: Sequence[Node], position: int) -> None:
    """Remove the KV-only checkpoints of ``path`` that one at ``position`` makes superfluous."""
    for node in path:
        for shorter in [c for c in node.checkpoints if c.is_kv_only and c.position <= position]:
            checkpoints.remove(shorter)


def trim_tail(checkpoints: ResidentCheckpoints, kv: ResidentKV, tail: Checkpoint, num_bytes: int) -> None:
    """Take back a KV-only checkpoint by as many segments as free ``num_bytes``, or remove it."""
    last_used, position = tail.last_used, tail.position
    num_segments = -(-num_bytes // kv.segment_bytes) if kv.segment_bytes else position
    shorter_position = position - num_segments * kv.segment_tokens
    kept_anyway = position - exclusive_kv_tokens(tail)
    if shorter_position > kept_anyway:
        node: Node | None = tail.node
        while node is not None and node.start >= shorter_position:
            node = node.parent
        assert node is not None
        shorter = checkpoints.add(node, shorter_position, payload=None, num_bytes=0, tick=last_used)
        checkpoints.keep_as_kv_only(shorter)
    checkpoints.remove(tail)
