"""What a scheduler without a model is configured by: a model's configuration, and blocks of any length."""

from pathlib import Path
from typing import Any

__all__ = ["bare_config"]


def bare_config(
    folder: Path,
    *,
    block_tokens: int,
    match_unit: int,
    most_tokens: int,
    num_state_groups: int = 3,
    speculative: dict[str, Any] | None = None,
) -> tuple[Any, Any]:
    """Return vLLM's configuration and that of its caches, for a pool whose size is set later. A state fills a
    block in each of its groups, and there is one attention group.

    Args:
        folder: A model, for its configuration only.
        block_tokens: Tokens of a block.
        match_unit: Tokens of a block hash, the block unless hits may lie inside it.
        most_tokens: Longest prompt with its answer.
        num_state_groups: Groups of recurrent layers.
        speculative: How tokens are drafted, None for not at all; as ``--speculative-config`` takes it.
    """
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, MambaSpec

    vllm_config = EngineArgs(
        model=str(folder),
        dtype="bfloat16",
        block_size=block_tokens,
        max_model_len=most_tokens,
        enable_prefix_caching=True,
        prefix_match_unit=match_unit,
        enforce_eager=True,
        speculative_config=speculative,
    ).create_engine_config()
    # vLLM would round it up to what the model's kernels prefer.
    vllm_config.cache_config.block_size = vllm_config.cache_config.mamba_block_size = block_tokens
    attention: Any = FullAttentionSpec(
        block_size=block_tokens, num_kv_heads=1, head_size=64, dtype=torch.bfloat16
    )
    state: Any = MambaSpec(
        block_size=block_tokens,
        shapes=((attention.page_size_bytes // 4,),),
        dtypes=(torch.float32,),
        mamba_cache_mode="align",
        num_speculative_blocks=speculative["num_speculative_tokens"] if speculative else 0,
    )
    groups = [
        *(KVCacheGroupSpec([f"state.{index}"], state) for index in range(num_state_groups)),
        KVCacheGroupSpec(["attention"], attention),
    ]
    return vllm_config, KVCacheConfig(num_blocks=1, kv_cache_tensors=[], kv_cache_groups=groups)
