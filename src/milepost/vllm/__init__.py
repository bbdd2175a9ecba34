"""Milepost inside vLLM: checkpoints at planned positions, with one flag and no fork.

    python -m vllm.entrypoints.openai.api_server --model MODEL --scheduler-cls milepost.vllm.Scheduler

vLLM's block pool is the memory and its prefix lookup the only truth about hits. What Milepost adds is the
choice: where prefill chunks end (:mod:`~milepost.vllm.scheduler`), what is kept of them
(:mod:`~milepost.vllm.state_manager`, :mod:`~milepost.vllm.attention_manager`), and which cached blocks go
first (:mod:`~milepost.vllm.pool`). All of it is decided by one :class:`~milepost.hosted_cache.HostedCache`
over the prompts' block hashes (:mod:`~milepost.vllm.checkpoint_manager`), the same object that serves
transformers and the simulator.
Beside it, ``TierPolicy`` keeps by worth what vLLM's OffloadingConnector has in a CPU tier
(:mod:`~milepost.vllm.tier_policy`).

Only :mod:`~milepost.vllm.scheduler`, :mod:`~milepost.vllm.state_manager`,
:mod:`~milepost.vllm.attention_manager`, :mod:`~milepost.vllm.plugin`,
:mod:`~milepost.vllm.compatibility`, :mod:`~milepost.vllm.connectors`, :mod:`~milepost.vllm.tier_policy` and
:mod:`~milepost.vllm.cache_kinds` import vLLM, and nothing does before it is asked for.
"""

from typing import Any

__all__ = ["Scheduler", "TierPolicy"]


def __getattr__(name: str) -> Any:
    if name == "Scheduler":
        from milepost.vllm.scheduler import Scheduler

        return Scheduler
    if name == "TierPolicy":
        from milepost.vllm.tier_policy import TierPolicy

        return TierPolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
