"""A cache policy for the CPU tier of vLLM's OffloadingConnector: what is worth least goes first.

    --kv-transfer-config '{"kv_connector": "OffloadingConnector", "kv_role": "kv_both",
      "kv_connector_extra_config": {"cpu_bytes_to_use": 10000000000,
        "eviction_policy": "TierPolicy", "cache_policy_module_path": "milepost.vllm"}}'

vLLM asks it which chunks go. It is told of single chunks, not what they are for. Under the planned scheduler,
which runs in the same process, it learns that: each request that is done says which prompt it was, and the
checkpoints of it that are whole in the tier are kept by worth (:mod:`~milepost.vllm.tier_index`). Under
another scheduler it goes by recency, and says so once.
"""

from collections.abc import Sequence
from typing import Any, final

from vllm.logger import init_logger
from vllm.v1.kv_offload.cpu.policies.base import CachePolicy

from milepost.vllm.tier_chunks import TierChunks
from milepost.vllm.tier_claims import offer

__all__ = ["TierPolicy"]

# Below vLLM's own logger: it configures no other.
logger = init_logger("vllm.milepost")


@final
class TierPolicy(TierChunks, CachePolicy):
    """See the module.

    Args:
        cache_capacity: Chunks that the tier holds.
    """

    def __init__(self, cache_capacity: int) -> None:
        super().__init__(cache_capacity)
        self._has_said = False
        offer(self)

    def on_request_finished(
        self,
        key_groups: Sequence[Sequence[bytes]],
        insertion_only_keys: set[bytes],
        reused_keys: set[bytes],
        req_context: Any,
    ) -> None:
        """Learn from a request that is done."""
        if not self.is_joined and not self._has_said:
            self._has_said = True
            logger.warning(
                "TierPolicy is not told of the prompts, since the scheduler is not milepost.vllm.Scheduler "
                "(or has stepped aside, and said why): the CPU tier goes by recency."
            )
        super().on_request_finished(key_groups, insertion_only_keys, reused_keys, req_context)
