"""Two defects of vLLM's CPU build (0.32.0) that stand in the way of a comparison, mended at run time.

Each function is idempotent and must run in the process that holds the layers, before the engine starts: for a
``vllm.LLM`` that has no process of its own just before it, for a server in an entry point of the group
``vllm.general_plugins``.
"""

import importlib
from typing import Any

__all__ = ["rotate_whole_queries", "switch_off_internal_checkpoints"]


def switch_off_internal_checkpoints() -> None:
    """Let vLLM's Mamba-2 layers say that they cannot export a state from inside a prefill chunk.

    They claim that they can, but the CPU kernel ignores the wish, and the engine dies at the first prompt
    longer than a block. Without the claim the scheduler ends a chunk there, as it does for other families.
    """
    mixer = importlib.import_module("vllm.model_executor.layers.mamba.mamba_mixer2").MambaMixer2
    if "get_kv_cache_spec" in vars(mixer):
        del mixer.get_kv_cache_spec


def rotate_whole_queries() -> None:
    """Let the CPU kernel for rotary embeddings see queries and keys as ``[num_tokens, heads * head_dim]``.

    LFM2's MoE layers hand in ``[num_tokens, heads, head_dim]``, of which the kernel takes the heads for
    tokens: it rotates a part of them, by wrong positions, and which part hangs on what else is in the batch.
    Answers of stock vLLM then differ in a batch from those of one request after the other.
    """
    embedding = importlib.import_module("vllm.model_executor.layers.rotary_embedding").RotaryEmbedding
    stock = embedding.forward_cpu
    if stock.__name__ == "forward_cpu_flat":
        return

    def forward_cpu_flat(self: Any, positions: Any, query: Any, key: Any = None) -> Any:
        rotated, rotated_key = stock(
            self, positions, query.flatten(1), None if key is None else key.flatten(1)
        )
        return rotated.view(query.shape), None if key is None else rotated_key.view(key.shape)

    embedding.forward_cpu = forward_cpu_flat
