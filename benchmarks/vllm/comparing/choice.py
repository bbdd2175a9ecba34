"""What each setting would cache, and for each way of stock vLLM to retain states the one that suits best.

Every candidate runs with vLLM's own scheduler and no model: it decides as it would with one, in no time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.vllm.comparing.run import WARM_UP_TOKENS, RunSpec, engine_arguments
from benchmarks.vllm.servers.bare_server import BareServer
from benchmarks.vllm.servers.serving import serve, warm_up
from benchmarks.vllm.servers.settings import Setting
from benchmarks.vllm.servers.watch import SchedulerWatch
from benchmarks.vllm.traffic.asks import Workload, shareable_tokens

__all__ = ["BareResult", "Question", "best_of_each", "try_all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BareResult:
    """What a setting would cache."""

    setting: Setting
    concurrency: int
    pool_tokens: int
    cached_tokens: int
    shareable_tokens: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to try: ``spec`` with every setting, concurrency and pool. Its block size is only a guess."""

    spec: RunSpec
    settings: tuple[Setting, ...]
    concurrencies: tuple[int, ...]
    pools_tokens: tuple[int, ...]


def try_all(question: Question) -> tuple[int, list[BareResult]]:
    """Return the block size that vLLM chooses, and what each setting caches. Needs a process of its own."""
    from benchmarks.vllm.servers.model_server import ModelServer

    spec = question.spec
    like = ModelServer(engine_arguments(spec)).scheduler
    results = [
        _try(like, spec.workload, setting, concurrency, pool_tokens)
        for pool_tokens in question.pools_tokens
        for concurrency in question.concurrencies
        for setting in question.settings
    ]
    return like.block_size, results


def _try(like: Any, workload: Workload, setting: Setting, concurrency: int, pool_tokens: int) -> BareResult:
    server = BareServer(
        like.vllm_config,
        like.kv_cache_config,
        setting=setting,
        num_blocks=pool_tokens // like.block_size,
        block_tokens=like.block_size,
        match_unit=like.hash_block_size,
    )
    # As in a run with the model: a policy that learns has seen one prompt.
    warm_up(server, num_tokens=WARM_UP_TOKENS)
    watch = SchedulerWatch(server.scheduler)
    served = serve(workload, server, concurrency=concurrency)
    watch.check_nothing_leaked()
    return BareResult(
        setting=setting,
        concurrency=concurrency,
        pool_tokens=pool_tokens,
        cached_tokens=sum(request.cached_tokens for request in served),
        shareable_tokens=sum(
            shareable_tokens([request.prompt for request in served], [request.answer for request in served])
        ),
        num_steps=watch.num_steps,
    )


def best_of_each(results: Sequence[BareResult]) -> list[BareResult]:
    """Return the best setting of each family: most tokens, and of those that cache as many, fewest steps."""
    best: dict[str, BareResult] = {}
    for result in results:
        incumbent = best.get(result.setting.family)
        if incumbent is None or _merit(result) > _merit(incumbent):
            best[result.setting.family] = result
    return list(best.values())


def _merit(result: BareResult) -> tuple[int, int]:
    return result.cached_tokens, -result.num_steps
