"""Prompts that are remembered without a request: of an earlier process, or of another tier."""

from collections.abc import Sequence

from milepost.store.eviction_queue import EvictionQueue
from milepost.store.node import Node
from milepost.store.resident_kv import node_at
from milepost.store.seen import SeenPrompt
from milepost.store.tree import RadixTree
from milepost.tokens import KeyArray

__all__ = ["know_prompt"]


def know_prompt(
    tree: RadixTree,
    queue: EvictionQueue,
    keys: KeyArray,
    *,
    tenant: str,
    num_tokens: int,
    had: Sequence[int] = (),
) -> list[Node]:
    """Return the path of a prompt. Where the tree does not know it, it is history from now on.

    Args:
        tree: What is known.
        queue: What is stored.
        keys: As much of the prompt as is known.
        tenant: Whose it is.
        num_tokens: Length of the whole prompt.
        had: Positions of its checkpoints that went with an earlier process, ascending.

    Complexity: O(num_tokens).
    """
    match = tree.match(keys, tenant=tenant)
    path = list(match.path)
    end = keys.size * tree.key_tokens
    if match.depth < end:
        prompt = SeenPrompt(max(num_tokens, end))
        path = tree.insert(keys, tenant=tenant, prompt=prompt, match=match).path
        queue.note_restored(prompt)
    for position in had:
        node = node_at(path, position)
        if node.checkpoint_at(position) is None:
            node.cleared = tuple(sorted({*node.cleared, position}))
    return path
