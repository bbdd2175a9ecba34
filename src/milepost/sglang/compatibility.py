"""Whether this SGLang, and what it was started with, can be planned for."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sglang.srt import runtime_context
from sglang.srt.managers.schedule_batch import ScheduleBatch
from sglang.srt.managers.schedule_policy import PrefillAdder
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.mem_cache import registry
from sglang.srt.mem_cache.unified_cache.components.full import FullComponent
from sglang.srt.mem_cache.unified_cache.components.mamba import MambaComponent
from sglang.srt.mem_cache.unified_cache.unified_tree_core import UnifiedTreeCore
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

from milepost.hosted.signatures import Signature, changed_signature

__all__ = ["TESTED_VERSIONS", "why_not"]

TESTED_VERSIONS = "0.5.22 and 0.5.23"
# What is overridden, wrapped or called.
_SIGNATURES: tuple[Signature, ...] = (
    (ScheduleBatch, "_mamba_radix_cache_v2_req_prepare_for_extend", ("self", "req")),
    (PrefillAdder, "_select_prefill_admission", ("self", "req", "total_tokens")),
    (PrefillAdder, "_commit_prefill_admission", ("self", "req", "admission")),
    (PrefillAdder, "add_chunked_req", ("self", "req")),
    (Scheduler, "run_batch", ("self", "batch")),
    (runtime_context, "derive_attention_ranks", ("tp_rank", "attn_tp_size", "attn_cp_size")),
    (runtime_context, "get_parallel", ()),
    (registry, "create_unified_radix_cache", ("ctx", "cache_class")),
    (UnifiedRadixCache, "checkpoint_into_tree", ("self", "req", "up_to")),
    (UnifiedRadixCache, "on_release", ("self", "req", "checkpointed")),
    (UnifiedRadixCache, "reset", ("self",)),
    (
        MambaComponent,
        "prepare_for_caching_req",
        ("self", "req", "insert_params", "token_ids_len", "is_finished"),
    ),
    (MambaComponent, "cleanup_after_caching_req", ("self", "req", "is_finished")),
    (MambaComponent, "commit_insert_component_data", ("self", "node")),
    (MambaComponent, "evict_component", ("self", "node")),
    (MambaComponent, "_evict_device_start", ("self", "request_cnt")),
    (MambaComponent, "_evict_device_next_node", ("self", "tracker")),
    (FullComponent, "_evict_device_start", ("self", "request_cnt")),
    (FullComponent, "_evict_device_next_node", ("self", "tracker")),
    (UnifiedTreeCore, "node_by_id", ("self", "node_id")),
)


def why_not(ctx: Any) -> str | None:
    """Return why checkpoints cannot be planned here, or None where they can."""
    changed = changed_signature(_SIGNATURES)
    if changed is not None:
        return f"this SGLang ({_installed_version()}) has {changed}; {TESTED_VERSIONS} were tested"
    return _unsupported_model(ctx) or _unsupported_feature(ctx)


def _unsupported_model(ctx: Any) -> str | None:
    params = ctx.params
    if not ctx.is_hybrid_ssm:
        return "the model has no recurrent layers, so there is nothing to plan"
    if ctx.is_hybrid_swa:
        return "sliding windows beside recurrent layers are not supported yet"
    if not params.enable_mamba_extra_buffer:
        return (
            "the model runs with --mamba-radix-cache-strategy no_buffer, where a state exists only where a "
            "chunk ends; extra_buffer is needed"
        )
    return None


def _unsupported_feature(ctx: Any) -> str | None:
    params, args = ctx.params, ctx.server_args
    reasons = {
        "the radix cache is disabled": ctx.disable_radix_cache,
        "HiCache (--enable-hierarchical-cache) is not supported yet": ctx.enable_hierarchical_cache,
        "prefill and decode in separate servers (--disaggregation-mode) are not supported yet": _given(
            args, "disaggregation_mode", "null"
        ),
        "int8 checkpoints (--enable-int8-mamba-checkpoint) are not supported yet": _given(
            args, "enable_int8_mamba_checkpoint"
        ),
        "--mamba-radix-cache-strategy extra_buffer_lazy is not supported yet": (
            params.enable_mamba_extra_buffer_lazy
        ),
        "--enable-session-radix-cache is not supported yet": params.enable_session_radix_cache,
        "--enable-streaming-session is not supported yet": _given(args, "enable_streaming_session"),
        "LMCache (--enable-lmcache) is not supported yet": _given(args, "enable_lmcache"),
        "FlexKV (--enable-flexkv) is not supported yet": _given(args, "enable_flexkv"),
        "an external cache linker is not supported yet": _given(args, "enable_unified_cache_external_linker"),
        "context parallelism in decoding (--dcp-size) is not supported yet": _given(args, "dcp_size", 1),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _given(args: Any, name: str, default: Any = False) -> bool:
    """Return whether an option that not every version has was given."""
    value = getattr(args, name, default)
    return value is not None and value != default


def _installed_version() -> str:
    try:
        return version("sglang")
    except PackageNotFoundError:
        return "version unknown"
