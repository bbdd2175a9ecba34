"""Which KV connectors can be planned for, and why others cannot."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.single_type_kv_cache_manager import SingleTypeKVCacheManager

from milepost.vllm.signatures import Signature, changed_signature

__all__ = ["blocks_per_chunk", "unsupported_connector"]

_SUPPORTED = ("OffloadingConnector",)
# Made of others, which its configuration lists.
_COMBINED = "MultiConnector"

# What is overridden for them beside what is for all, and the first arguments.
_SIGNATURES: tuple[Signature, ...] = (
    (Scheduler, "_update_waiting_for_remote_kv", ("self", "request")),
    (
        SingleTypeKVCacheManager,
        "allocate_external_computed_blocks",
        ("self", "request_id", "num_local_computed_tokens", "num_external_computed_tokens"),
    ),
)


def unsupported_connector(vllm_config: Any) -> str | None:
    """Return why the KV connectors of a configuration cannot be planned for; None where there are none, or
    they can be.
    """
    refused = [each.name for each in _connectors(vllm_config) if each.name not in _SUPPORTED]
    if refused:
        return (
            f"the KV connector {', '.join(refused)} is not supported yet, only {', '.join(_SUPPORTED)} "
            f"({_COMBINED} of such too)"
        )
    transfer = vllm_config.kv_transfer_config
    has_none = transfer is None or transfer.kv_connector is None
    return None if has_none else changed_signature(_SIGNATURES)


def blocks_per_chunk(vllm_config: Any, *, eviction_policy: str, block_tokens: int) -> list[int]:
    """Return how many blocks of the pool make up a chunk of each tier with a policy, in the order in which
    vLLM makes them.
    """
    return [
        _blocks_per_chunk(each.extra_config, block_tokens)
        for each in _connectors(vllm_config)
        if each.name in _SUPPORTED and each.extra_config.get("eviction_policy") == eviction_policy
    ]


def _blocks_per_chunk(extra_config: Mapping[str, Any], block_tokens: int) -> int:
    if extra_config.get("blocks_per_chunk") is not None:
        return int(extra_config["blocks_per_chunk"])
    return int(extra_config.get("block_size") or block_tokens) // block_tokens


class _Connector(NamedTuple):
    name: str
    extra_config: Mapping[str, Any]


def _connectors(vllm_config: Any) -> Iterator[_Connector]:
    """Yield the connectors, those of a combined one each."""
    transfer = vllm_config.kv_transfer_config
    if transfer is not None and transfer.kv_connector is not None:
        yield from _parts(
            transfer.kv_connector, transfer.kv_connector_module_path, transfer.kv_connector_extra_config
        )


def _parts(
    name: str, module_path: str | None, extra_config: Mapping[str, Any] | None
) -> Iterator[_Connector]:
    extra_config = extra_config or {}
    if module_path:
        # Somebody's own, whatever it is called.
        yield _Connector(f"{name} of {module_path}", extra_config)
        return
    parts = extra_config.get("connectors") if name == _COMBINED else None
    if not parts:
        yield _Connector(name, extra_config)
        return
    for part in parts:
        yield from _parts(
            str(part.get("kv_connector")),
            part.get("kv_connector_module_path"),
            part.get("kv_connector_extra_config"),
        )
