"""Whether this vLLM, and what it was started with, can be planned for."""

from typing import Any

from vllm.config import CacheConfig
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager, MambaManager
from vllm.v1.kv_cache_interface import MambaSpec

from milepost.vllm.cache_kinds import unsupported_cache
from milepost.vllm.connectors import unsupported_connector
from milepost.vllm.signatures import Signature, changed_signature, installed_version
from milepost.vllm.speculation import unsupported_drafts

__all__ = ["junction_switch", "why_not"]

# What is overridden or called, by class and name, and the first arguments that must be there, in their order.
_SIGNATURES: tuple[Signature, ...] = (
    (Scheduler, "_get_local_prefix_cache_hit", ("self", "request")),
    (
        Scheduler,
        "_mamba_block_aligned_split",
        (
            "self",
            "request",
            "num_new_tokens",
            "num_new_local_computed_tokens",
            "num_external_computed_tokens",
        ),
    ),
    (Scheduler, "_update_after_schedule", ("self", "scheduler_output")),
    (Scheduler, "get_grammar_bitmask", ("self", "scheduler_output")),
    (Scheduler, "update_from_output", ("self", "scheduler_output", "model_runner_output")),
    (Scheduler, "_update_request_with_output", ("self", "request", "new_token_ids")),
    (Scheduler, "_free_request", ("self", "request")),
    (
        MambaManager,
        "cache_blocks",
        ("self", "request", "num_tokens", "retention_interval", "replay_boundaries"),
    ),
    (MambaManager, "_cache_partial_tail_block", ("self", "request", "num_tokens", "retention_interval")),
    (MambaManager, "allocate_new_blocks", ("self", "request_id", "num_tokens", "num_tokens_main_model")),
    (
        FullAttentionManager,
        "cache_blocks",
        ("self", "request", "num_tokens", "retention_interval", "replay_boundaries"),
    ),
    (FullAttentionManager, "_cache_partial_tail_block", ("self", "request", "num_tokens")),
    (
        FullAttentionManager,
        "allocate_new_blocks",
        ("self", "request_id", "num_tokens", "num_tokens_main_model"),
    ),
    (FullAttentionManager, "new_step_starts", ("self",)),
    (
        FullAttentionManager,
        "get_num_blocks_to_allocate",
        (
            "self",
            "request_id",
            "num_tokens",
            "new_computed_blocks",
            "total_computed_tokens",
            "num_local_computed_tokens",
        ),
    ),
    (
        BlockPool,
        "cache_partial_block",
        ("self", "request", "block", "num_tokens", "kv_cache_group_id", "block_size"),
    ),
    (BlockPool, "evict_blocks", ("self", "block_ids")),
)
_POOL_PARTS = ("blocks", "free_block_queue", "cached_block_hash_to_block", "cached_block_hashes_by_block")
_QUEUE_PARTS = ("fake_free_list_head", "fake_free_list_tail", "remove", "prepend_n")
# What lets a cache manager keep the state at a junction inside a block: since 0.31, and in 0.30.
_JUNCTION_SWITCHES = ("shared_prefix_checkpoint", "fine_grained_prefix_cache")


def why_not(vllm_config: Any, kv_cache_config: Any) -> str | None:
    """Return why checkpoints cannot be planned here, or None where they can."""
    return _unknown_vllm() or _unsupported_model(kv_cache_config) or _unsupported_feature(vllm_config)


def junction_switch() -> str | None:
    """Return the attribute of a cache manager that lets it keep the state at a junction inside a block; None
    where there is none.
    """
    return next((name for name in _JUNCTION_SWITCHES if hasattr(CacheConfig, f"enable_mamba_{name}")), None)


def _unknown_vllm() -> str | None:
    changed = changed_signature(_SIGNATURES)
    if changed is not None:
        return changed
    pool = BlockPool(num_gpu_blocks=2, enable_caching=True, hash_block_size=16)
    missing = [name for name in _POOL_PARTS if not hasattr(pool, name)]
    if not missing:
        missing = [name for name in _QUEUE_PARTS if not hasattr(pool.free_block_queue, name)]
    if missing:
        return f"the block pool of this vLLM has no {missing[0]} (installed: {installed_version()})"
    if junction_switch() is None:
        return f"this vLLM keeps no state inside a block (installed: {installed_version()})"
    return None


def _unsupported_model(kv_cache_config: Any) -> str | None:
    groups = kv_cache_config.kv_cache_groups
    specs = [group.kv_cache_spec for group in groups]
    if not any(isinstance(spec, MambaSpec) for spec in specs):
        return "the model has no recurrent layers, so there is nothing to plan"
    if (reason := next(filter(None, map(unsupported_cache, groups)), None)) is not None:
        return f"the model cannot be planned for: {reason}"
    if len({spec.block_size for spec in specs}) > 1:
        return "the cache groups have blocks of different lengths, which is not supported yet"
    return None


def _unsupported_feature(vllm_config: Any) -> str | None:
    cache = vllm_config.cache_config
    parallel = vllm_config.parallel_config
    connector = unsupported_connector(vllm_config)
    drafts = unsupported_drafts(vllm_config)
    reasons = {
        "prefix caching is off (--enable-prefix-caching)": not cache.enable_prefix_caching,
        f"mamba_cache_mode is {cache.mamba_cache_mode!r}, and must be 'align'": cache.mamba_cache_mode
        != "align",
        str(drafts): drafts is not None,
        str(connector): connector is not None,
        "context parallelism is not supported yet": parallel.decode_context_parallel_size > 1
        or parallel.prefill_context_parallel_size > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
