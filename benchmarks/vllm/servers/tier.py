"""A CPU tier behind the pool: vLLM's OffloadingConnector, and what decides there what goes."""

import mmap
from dataclasses import dataclass
from typing import Any

__all__ = ["ARC", "LRU", "OURS", "Tier"]

LRU, ARC, OURS = "lru", "arc", "TierPolicy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """See the module.

    Args:
        num_chunks: Blocks that it holds.
        policy: ``LRU``, ``ARC`` or ``OURS``.
    """

    num_chunks: int
    policy: str = LRU

    def transfer_config(self, kv_cache_config: Any) -> Any:
        """Return the configuration that makes it."""
        from vllm.config import KVTransferConfig

        page_bytes = sum(group.kv_cache_spec.page_size_bytes for group in kv_cache_config.kv_cache_groups)
        # vLLM makes each chunk as large as a block of all groups together, in whole pages of memory.
        chunk_bytes = -(-page_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        extra: dict[str, Any] = {
            "cpu_bytes_to_use": self.num_chunks * chunk_bytes,
            "eviction_policy": self.policy,
        }
        if self.policy == OURS:
            extra["cache_policy_module_path"] = "milepost.vllm"
        return KVTransferConfig(
            kv_connector="OffloadingConnector", kv_role="kv_both", kv_connector_extra_config=extra
        )
