"""The store's law, recomputed: every total and every invariant, from the tree alone."""

from milepost.errors import CacheCorruptionError
from milepost.store.checkpoint import Checkpoint
from milepost.store.node import Node
from milepost.store.prefix_store import PrefixStore

__all__ = ["check_store"]


def check_store(store: PrefixStore) -> None:
    """Recompute every total and invariant of ``store`` from its tree. O(everything stored).

    Raises:
        CacheCorruptionError: naming what disagrees.
    """
    _check_promises(store)
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
        ("checkpoints", num_checkpoints, store.checkpoints.count),
        ("bytes of states", state_bytes, store.budget.state_bytes),
        ("ranked and pinned checkpoints", num_checkpoints, len(store.queue) + len(store.queue.pinned)),
    ):
        _require(counted == held, f"{name}: counted {counted}, totals say {held}")
    _require(
        # A budget that was made smaller waits for what leases hold.
        store.budget.stored_bytes <= store.budget.capacity_bytes or not store.queue,
        f"stored {store.budget.stored_bytes} bytes, above the capacity of {store.budget.capacity_bytes}",
    )


def _check_promises(store: PrefixStore) -> None:
    promises = store.promises
    for checkpoint in promises.checkpoints:
        _require(
            checkpoint.is_stored and checkpoint.num_pins > 0,
            f"checkpoint {checkpoint.position} is promised and not kept",
        )
    _require(
        promises.num_bytes <= promises.most_bytes,
        f"promises take {promises.num_bytes} bytes of at most {promises.most_bytes}",
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
        all(node.start < p <= node.end for p in (*positions, *node.evicted, *node.cleared)),
        f"{where} holds positions outside itself: {positions} {node.evicted} {node.cleared}",
    )
    _require(list(node.evicted) == sorted(set(node.evicted)), f"{where} evicted {node.evicted}")
    _require(list(node.cleared) == sorted(set(node.cleared)), f"{where} cleared {node.cleared}")
    states = {c.position for c in node.checkpoints if not c.is_kv_only}
    _require(not states & {*node.evicted, *node.cleared}, f"{where} both stores a position and misses it")
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
            checkpoint.owner is node.owner and checkpoint.serial in node.owner.owned,
            f"{where}: nobody owns checkpoint {checkpoint.position}",
        )
        above = checkpoint
        _require(
            (checkpoint in store.queue) == (checkpoint.num_pins == 0),
            f"{where}: checkpoint {checkpoint.position} with {checkpoint.num_pins} pins is misranked",
        )
    live = sum(child.is_live for child in node.children.values())
    _require(live == node.num_live_children, f"{where} has {live} live children")
    reached = -(-node.owner.num_tokens // store.tree.key_tokens) * store.tree.key_tokens
    _require(reached >= node.end, f"{where} was reached by no prompt that long")
    needed = node.num_segments_needed(store.kv.segment_tokens)
    _require(len(node.kv) == needed, f"{where} keeps {len(node.kv)} KV segments and needs {needed}")
    is_dead_leaf = not node.children and not node.is_live
    _require(node.is_queued == is_dead_leaf, f"{where} is wrongly queued as history")
    branch_point = node.branch_point
    _require(
        branch_point is None or branch_point.position == node.end,
        f"{where} has a branch point of another place",
    )


def _above(node: Node) -> Checkpoint | None:
    above = node.parent
    while above is not None and not above.checkpoints:
        above = above.parent
    return None if above is None else above.checkpoints[-1]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CacheCorruptionError(f"{message}; this is a defect of Milepost, please report it")
