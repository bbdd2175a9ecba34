"""Which caches a model may keep beside its recurrent states: those that vLLM manages as full attention.

There one block holds the KV of a block of tokens, in order, for as long as anyone asks for it. Whether as
keys and values or as what MLA compresses them to is nobody's business here.
"""

from typing import Any

from vllm.v1.kv_cache_interface import FullAttentionSpec, MambaSpec, MLAAttentionSpec

__all__ = ["ATTENTION_ROLE", "STATE_ROLE", "role_of", "unsupported_cache"]

STATE_ROLE, ATTENTION_ROLE = "milepost_state", "milepost_attention"

# Compared by exact kind: a kind that is derived from one of them is managed in a way of its own.
_ATTENTION_KINDS: tuple[type, ...] = (FullAttentionSpec, MLAAttentionSpec)
# The roles of groups that nobody has given one. Ours are there where a scheduler is made anew.
_FREE_ROLES = (None, "default", STATE_ROLE, ATTENTION_ROLE)
_WINDOW = "a checkpoint there would need the blocks of the window before it too, which others nearby share"
_ENCODER = "it holds what an encoder has seen, not the prompt"
# By name, since not every release has them all.
_WHY_NOT = {
    "SinkFullAttentionSpec": "vLLM keeps its first blocks apart for attention sinks",
    "RSWASpec": "vLLM drops blocks from the middle of what it has computed",
    "HiddenStateCacheSpec": "it is written for drafts, not read by the model",
    "SlidingWindowSpec": _WINDOW,
    "SlidingWindowMLASpec": _WINDOW,
    "ChunkedLocalAttentionSpec": "a checkpoint there would need the blocks of its chunk of attention too",
    "CrossAttentionSpec": _ENCODER,
    "EncoderOnlyAttentionSpec": _ENCODER,
    "UniformTypeKVCacheSpecs": "its layers have blocks of different sizes in one group",
}


def role_of(spec: Any) -> str:
    """Return the role that a group of this kind gets, by which vLLM makes our manager for it."""
    return STATE_ROLE if isinstance(spec, MambaSpec) else ATTENTION_ROLE


def unsupported_cache(group: Any) -> str | None:
    """Return why the caches of ``group`` cannot be planned for, or None where they can."""
    spec = group.kv_cache_spec
    kind = type(spec).__name__
    if getattr(group, "role", None) not in _FREE_ROLES:
        return f"a group of caches has the role {_plain(group.role)!r} already, and is managed by that"
    if getattr(group, "host_resident", False):
        return f"its {kind} lies in a pool of the host's memory"
    if not getattr(spec, "prefix_cacheable", True):
        return f"its {kind} cannot be found again by vLLM itself"
    if isinstance(spec, MambaSpec):
        return None
    if type(spec) not in _ATTENTION_KINDS:
        return f"its {kind} is not managed as full attention: {_WHY_NOT.get(kind, 'the kind is not known')}"
    return _compressed(spec)


def _compressed(spec: Any) -> str | None:
    """Return why not for a cache of sparse attention. Every MLA carries its fields."""
    if getattr(spec, "model_version", None) is not None:
        return (
            f"the layout of {spec.model_version} compresses several tokens into one, which is not tried yet"
        )
    if getattr(spec, "tokens_per_state", 1) != 1:
        return f"its KV holds {spec.tokens_per_state} tokens in one entry, which is not tried yet"
    if _plain(getattr(spec, "cache_role", None)) == "indexer":
        return "it has the index of a sparse attention, which is not tried yet"
    return None


def _plain(name: Any) -> Any:
    return getattr(name, "value", name)
