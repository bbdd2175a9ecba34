"""The store's law, recomputed: every total and every invariant, from the tree alone."""

from milepost.errors import CacheCorruptionError
from milepost.store.node import Checkpoint, Node
from milepost.store.prefix_store import PrefixStore

__all__ = ["check_store"]


def check_store(store: PrefixStore) -> None:
    """Recompute every total and invariant of ``store`` from its tree. O(everything stored).

    Raises:
        CacheCorruptionError: naming what disagrees.
    """
    num_keys = num_segments = state_bytes = num_checkpoints = 0
    for node in store.tree.nodes():
        _check_node(store, node)
        num_keys += node.keys(store.tree.key_dtype).size
        num_segments += len(node.kv)
        num_checkpoints += len(node.checkpoints)
        state_bytes += sum(c.num_bytes for c in node.checkpoints)
    for name, counted, held in (
        ("history keys", num_keys, store.tree.num_keys),
        ("KV segments", num_segments, store.kv.num_segments),
        ("checkpoints", num_checkpoints, store.num_checkpoints),
        ("checkpoint bytes", state_bytes, store.checkpoint_bytes),
        ("ranked and pinned checkpoints", num_checkpoints, sum(store.ranked_or_pinned())),
    ):
        _require(counted == held, f"{name}: counted {counted}, totals say {held}")
    _require(
        # A budget that was made smaller waits for what leases hold.
        store.stored_bytes <= store.capacity_bytes or store.ranked_or_pinned()[0] == 0,
        f"stored {store.stored_bytes} bytes, above the capacity of {store.capacity_bytes}",
    )


def _check_node(store: PrefixStore, node: Node) -> None:
    where = f"node [{node.start}, {node.end})"
    keys = node.keys(store.tree.key_dtype)
    _require(node.end - node.start == keys.size * store.tree.key_tokens > 0, f"{where} has {keys.size} keys")
    parent = node.parent
    _require(
        parent is not None and parent.end == node.start and parent.children.get(keys[:1].tobytes()) is node,
        f"{where} is not its parent's child",
    )
    positions = [c.position for c in node.checkpoints]
    _require(positions == sorted(set(positions)), f"{where} has checkpoints at {positions}")
    _require(
        all(node.start < p <= node.end for p in (*positions, *node.dropped, *node.cleared)),
        f"{where} holds positions outside itself: {positions} {node.dropped} {node.cleared}",
    )
    _require(node.dropped == sorted(set(node.dropped)), f"{where} dropped {node.dropped}")
    _require(node.cleared == sorted(set(node.cleared)), f"{where} cleared {node.cleared}")
    states = {c.position for c in node.checkpoints if not c.is_kv_only}
    _require(not states & {*node.dropped, *node.cleared}, f"{where} both holds and dropped a position")
    above = _above(node) if node.checkpoints else None
    for checkpoint in node.checkpoints:
        _require(checkpoint.node is node, f"{where} holds a checkpoint of another node")
        _require(
            checkpoint.above is above and (above is None or above.below.get(checkpoint.serial) is checkpoint),
            f"{where}: checkpoint {checkpoint.position} is not linked to the one above it",
        )
        _require(
            all(below.above is checkpoint for below in checkpoint.below.values()),
            f"{where}: checkpoint {checkpoint.position} is linked to one that is not below it",
        )
        _require(
            checkpoint.sighting is node.sighting and checkpoint.serial in node.sighting.held,
            f"{where}: nobody answers for checkpoint {checkpoint.position}",
        )
        above = checkpoint
        _require(
            store.is_ranked(checkpoint) == (checkpoint.num_pins == 0),
            f"{where}: checkpoint {checkpoint.position} with {checkpoint.num_pins} pins is misranked",
        )
    live = sum(child.is_live for child in node.children.values())
    _require(live == node.num_live_children, f"{where} has {live} live children")
    reached = -(-node.sighting.num_tokens // store.tree.key_tokens) * store.tree.key_tokens
    _require(reached >= node.end, f"{where} was reached by no prompt that long")
    needed = node.num_segments_needed(store.segment_tokens)
    _require(len(node.kv) == needed, f"{where} keeps {len(node.kv)} KV segments and needs {needed}")
    is_dead_leaf = not node.children and not node.is_live
    _require(store.tree.is_dead_leaf(node) == is_dead_leaf, f"{where} is wrongly listed as history")


def _above(node: Node) -> Checkpoint | None:
    above = node.parent
    while above is not None and not above.checkpoints:
        above = above.parent
    return None if above is None else above.checkpoints[-1]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CacheCorruptionError(f"{message}; this is a defect of Milepost, please report it")
