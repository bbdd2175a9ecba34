"""Which KV connectors can be planned for, and why others cannot."""

from collections.abc import Iterator, Mapping
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.single_type_kv_cache_manager import SingleTypeKVCacheManager

from milepost.vllm.signatures import Signature, changed_signature

__all__ = ["unsupported_connector"]

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
    transfer = vllm_config.kv_transfer_config
    if transfer is None or transfer.kv_connector is None:
        return None
    names = _connectors(
        transfer.kv_connector, transfer.kv_connector_module_path, transfer.kv_connector_extra_config
    )
    refused = [name for name in names if name not in _SUPPORTED]
    if refused:
        return (
            f"the KV connector {', '.join(refused)} is not supported yet, only {', '.join(_SUPPORTED)} "
            f"({_COMBINED} of such too)"
        )
    return changed_signature(_SIGNATURES)


def _connectors(name: str, module_path: str | None, extra_config: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the connectors by name, those of a combined one each."""
    if module_path:
        # Somebody's own, whatever it is called.
        yield f"{name} of {module_path}"
        return
    parts = (extra_config or {}).get("connectors") if name == _COMBINED else None
    if not parts:
        yield name
        return
    for part in parts:
        yield from _connectors(
            str(part.get("kv_connector")),
            part.get("kv_connector_module_path"),
            part.get("kv_connector_extra_config"),
        )
