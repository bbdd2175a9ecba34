"""KV beyond the last state of a path, for peers whose KV cache knows nothing of states (``keeps_kv``).

KV stays up to the prompt's end, or as far as its *KV-only checkpoint* holds it. Nothing can be resumed from
such a one; it is evicted from its end, segment by segment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from milepost.store.checkpoint import Checkpoint
from milepost.store.neighbours import exclusive_kv_tokens
from milepost.store.node import Node
from milepost.store.resident_kv import node_at
from milepost.store.source import PayloadSource

if TYPE_CHECKING:
    from milepost.store.prefix_store import PrefixStore

__all__ = ["keep_tail", "strip_state", "trim_tail"]


def keep_tail(
    store: "PrefixStore", path: list[Node], num_tokens: int, *, source: PayloadSource, tick: int
) -> None:
    """Keep the KV of a whole prompt, as far as there is room, whether or not a state needs it."""
    position = store.kv.aligned(num_tokens)
    for node in path:
        for shorter in [c for c in node.checkpoints if c.is_kv_only and c.position <= position]:
            store.remove(shorter)
    if position == 0:
        return
    node = node_at(path, position)
    if node.checkpoint_at(position) is None:
        # Also where the KV is kept by longer prompts: it is not as old as theirs.
        checkpoint = store.put(path, position, source=_KVOnly(source), tick=tick)
        if checkpoint is not None:
            _become_kv_only(store, checkpoint)


def strip_state(store: "PrefixStore", checkpoint: Checkpoint) -> bool:
    """Let go of the state of ``checkpoint``, but keep the KV that only it needs, if there is any."""
    if not exclusive_kv_tokens(checkpoint):
        return False
    store.drop((checkpoint.payload,))
    store.budget.state_bytes -= checkpoint.num_bytes
    checkpoint.payload, checkpoint.num_bytes = None, 0
    _become_kv_only(store, checkpoint)
    return True


def trim_tail(store: "PrefixStore", checkpoint: Checkpoint, num_bytes: int) -> None:
    """Take back a KV-only checkpoint by as many segments as free ``num_bytes``, or remove it."""
    kv, last_used, position = store.kv, checkpoint.last_used, checkpoint.position
    num_segments = -(-num_bytes // kv.segment_bytes) if kv.segment_bytes else position
    shorter_position = position - num_segments * kv.segment_tokens
    kept_anyway = position - exclusive_kv_tokens(checkpoint)
    if shorter_position > kept_anyway:
        node: Node | None = checkpoint.node
        while node is not None and node.start >= shorter_position:
            node = node.parent
        assert node is not None
        if node.checkpoint_at(shorter_position) is None:
            shorter = store.add(node, shorter_position, payload=None, num_bytes=0, tick=last_used)
            _become_kv_only(store, shorter)
    store.remove(checkpoint)


def _become_kv_only(store: "PrefixStore", checkpoint: Checkpoint) -> None:
    checkpoint.is_kv_only = True
    store.queue.mark_stale(checkpoint)


@final
@dataclass(frozen=True, slots=True)
class _KVOnly:
    """A source that has the KV of a prompt and no state."""

    source: PayloadSource

    def checkpoint(self, position: int) -> None:
        return None

    def kv_segments(self, start: int, end: int) -> Sequence[Any]:
        return self.source.kv_segments(start, end)
