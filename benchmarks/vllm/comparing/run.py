"""One run: a workload, a setting and a model, from a cold start to numbers. It needs a process of its own."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.vllm.models import MODELS
from benchmarks.vllm.servers.serving import Served, serve, warm_up
from benchmarks.vllm.servers.settings import Setting
from benchmarks.vllm.servers.watch import SchedulerWatch
from benchmarks.vllm.traffic.asks import Workload, shareable_tokens

__all__ = ["WARM_UP_TOKENS", "Measurement", "RunSpec", "engine_arguments", "measure"]

# Longer than any prompt of the workloads; a longer context needs a larger pool to be accepted.
_CONTEXT_TOKENS = 12_288
_MOST_REQUESTS = 8
WARM_UP_TOKENS = 1_500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunSpec:
    """What to run.

    Args:
        model: A name in ``MODELS``.
        folder: Where that model lies.
        workload: What to ask.
        setting: How vLLM keeps states.
        concurrency: Requests at a time.
        block_tokens: Tokens of a block that vLLM will choose for the model and the workload.
    """

    model: str
    folder: Path
    workload: Workload
    setting: Setting
    concurrency: int
    block_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What came of a run.

    Attributes:
        num_steps: Times that the model ran.
        num_prefill_chunks: Pieces that the prompts were computed in.
        least_prefill_chunks: As many are needed by the chunk budget, for prompts that come one at a time.
        num_states_kept: States that were given a hash.
        states_held: States with a hash after each request.
        cpu_seconds: Of the process, from the first request to the last answer, as is ``wall_seconds``.
        answers: By request, a digest of its prompt and the generated tokens. In a conversation the prompt
            hangs on the answers before it.
        plugin: What the plugin counts itself; empty for stock vLLM.
    """

    workload: str
    setting: str
    concurrency: int
    block_tokens: int
    num_blocks: int
    num_requests: int
    prompt_tokens: int
    cached_tokens: int
    shareable_tokens: int
    num_steps: int
    num_prefill_chunks: int
    least_prefill_chunks: int
    num_states_kept: int
    mean_states_held: float
    max_states_held: int
    ttft_p50_seconds: float
    ttft_p95_seconds: float
    wall_seconds: float
    cpu_seconds: float
    answers: dict[int, tuple[str, list[int]]] = field(repr=False)
    plugin: dict[str, float] = field(default_factory=dict)

    @property
    def cached_fraction(self) -> float:
        """Of the tokens that an earlier request had computed, those that were not computed again."""
        return self.cached_tokens / self.shareable_tokens if self.shareable_tokens else 0.0

    def flips_from(self, other: "Measurement") -> tuple[int, int]:
        """Return how many answers differ from another run's, and how many prompts were the same in both."""
        pairs = [(answer, other.answers[index]) for index, answer in self.answers.items()]
        same_prompt = [(ours, theirs) for (asked, ours), (prompt, theirs) in pairs if asked == prompt]
        return sum(ours != theirs for ours, theirs in same_prompt), len(same_prompt)

    @property
    def tokens_per_cpu_second(self) -> float:
        """Prompt tokens, cached or not."""
        return self.prompt_tokens / self.cpu_seconds


def engine_arguments(spec: RunSpec) -> dict[str, Any]:
    """Return the arguments of ``vllm.LLM`` for a run; the pool is the same in every setting."""
    workload = spec.workload
    arguments = MODELS[spec.model].engine_arguments(spec.folder) | spec.setting.engine_arguments(
        spec.block_tokens
    )
    arguments["max_model_len"] = _CONTEXT_TOKENS
    arguments["max_num_seqs"] = _MOST_REQUESTS
    arguments["num_gpu_blocks_override"] = workload.pool_tokens // spec.block_tokens
    if workload.block_tokens is not None:
        arguments["block_size"] = workload.block_tokens
    if workload.prefix_match_unit is not None:
        arguments["prefix_match_unit"] = workload.prefix_match_unit
    return arguments


def measure(spec: RunSpec) -> Measurement:
    """Load the model, warm up, forget, and run the workload once."""
    from benchmarks.vllm.servers.model_server import ModelServer

    MODELS[spec.model].prepare_vllm()
    server = ModelServer(engine_arguments(spec))
    if server.scheduler.block_size != spec.block_tokens:
        raise RuntimeError(
            f"vLLM chose blocks of {server.scheduler.block_size} tokens, not {spec.block_tokens}"
        )
    if spec.setting.scheduler is not None and not hasattr(server.scheduler, "checkpoint_manager"):
        raise RuntimeError(f"{spec.setting.scheduler} has fallen back to stock vLLM; its warning says why")
    warm_up(server, num_tokens=WARM_UP_TOKENS)
    watch = SchedulerWatch(server.scheduler)
    wall_started, cpu_started = time.perf_counter(), time.process_time()
    served = serve(spec.workload, server, concurrency=spec.concurrency, after_request=watch.sample)
    wall_seconds, cpu_seconds = time.perf_counter() - wall_started, time.process_time() - cpu_started
    watch.check_nothing_leaked()
    ttft_seconds = [request.ttft_seconds for request in served]
    return Measurement(
        workload=spec.workload.name,
        setting=spec.setting.label,
        concurrency=spec.concurrency,
        block_tokens=spec.block_tokens,
        num_blocks=watch.pool.num_gpu_blocks,
        num_requests=len(served),
        prompt_tokens=sum(len(request.prompt) for request in served),
        cached_tokens=sum(request.cached_tokens for request in served),
        shareable_tokens=sum(_shareable(served)),
        num_steps=watch.num_steps,
        num_prefill_chunks=watch.num_prefill_chunks,
        least_prefill_chunks=_least_chunks(served, spec.setting.budget_tokens(spec.block_tokens)),
        num_states_kept=watch.num_states_kept,
        mean_states_held=float(np.mean(watch.states_held)),
        max_states_held=max(watch.states_held),
        ttft_p50_seconds=float(np.percentile(ttft_seconds, 50)),
        ttft_p95_seconds=float(np.percentile(ttft_seconds, 95)),
        wall_seconds=wall_seconds,
        cpu_seconds=cpu_seconds,
        answers={
            request.index: (sha256(request.prompt.tobytes()).hexdigest(), request.answer)
            for request in served
        },
        plugin=_plugin_counts(server.scheduler),
    )


def _shareable(served: Sequence[Served]) -> list[int]:
    return shareable_tokens([request.prompt for request in served], [request.answer for request in served])


def _least_chunks(served: Sequence[Served], budget_tokens: int) -> int:
    return sum(math.ceil((len(request.prompt) - request.cached_tokens) / budget_tokens) for request in served)


def _plugin_counts(scheduler: Any) -> dict[str, float]:
    manager = getattr(scheduler, "checkpoint_manager", None)
    if manager is None:
        return {}
    return asdict(manager.counts) | asdict(manager.statistics())
