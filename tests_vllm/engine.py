"""One vLLM engine in a process of its own: it serves rounds of requests and gives an account.

vLLM's CPU engine starts once in a process, and not at all once numba is loaded. To import it takes twice as
long as to start it, so one process does that and no more, and each engine is a fork of it.
"""

import json
import multiprocessing
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLANNED = "milepost.vllm.Scheduler"

_FORKS = multiprocessing.get_context("forkserver")
# What an engine imports as it starts, as far as no thread comes of it and nothing is registered twice.
_FORKS.set_forkserver_preload(
    [
        "vllm.entrypoints.llm",
        "vllm.v1.engine.core",
        "vllm.v1.worker.cpu_worker",
        "vllm.v1.core.sched.scheduler",
    ]
)
_MOST_SECONDS = 1500


@dataclass
class Round:
    """Requests that are served one after the other, or all at once; before it, the cache may be emptied."""

    prompts: list
    max_tokens: int = 8
    is_batched: bool = False
    is_fresh: bool = False
    salts: list | None = None
    extra_args: dict | None = None
    spoil: str | None = None
    """'zero' clears all states in the pool first, 'mix' gives each the place of another."""


@dataclass
class Job:
    """What to run; ``scheduler`` is what ``--scheduler-cls`` would name."""

    model: str
    folder: str
    rounds: list
    scheduler: str | None = None
    arguments: dict = field(default_factory=dict)


def run(job: Job, folder: Path, *, environment: dict | None = None) -> dict[str, Any]:
    """Serve ``job`` in a new process; return its answers and account."""
    folder.mkdir(parents=True, exist_ok=True)
    answer, log = folder / "answer.json", folder / "log"
    process = _FORKS.Process(target=_answer, args=(job, answer, log, environment or {}))
    process.start()
    process.join(_MOST_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    said = log.read_text(errors="replace") if log.exists() else ""
    if process.exitcode:
        raise RuntimeError(f"the engine ended with exit code {process.exitcode}; it said:\n{said[-6000:]}")
    return json.loads(answer.read_text()) | {"log": said}


def _answer(job: Job, answer: Path, log: Path, environment: dict) -> None:
    with log.open("w") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    os.environ.update(environment)
    answer.write_text(json.dumps(serve(job)))


def serve(job: Job) -> dict[str, Any]:
    import copy_kernels
    from vllm import LLM, SamplingParams

    from benchmarks.vllm import models

    if "speculative_config" in job.arguments:
        copy_kernels.install()
    under_test = models.MODELS[job.model]
    under_test.prepare_vllm()
    arguments = under_test.engine_arguments(Path(job.folder)) | {"block_size": 64, "max_model_len": 2048}
    llm = LLM(**(arguments | job.arguments), scheduler_cls=job.scheduler)
    core = llm.llm_engine.engine_core.engine_core
    scheduler = core.scheduler
    preempted, drafts = _count_preemptions(scheduler), _count_drafts(scheduler)
    answers = []
    for each in job.rounds:
        if each.is_fresh:
            assert scheduler.reset_prefix_cache()
        if each.spoil:
            _spoil_states(core, each.spoil)
        salts = each.salts or [None] * len(each.prompts)
        requests = [
            {"prompt_token_ids": tokens} | ({"cache_salt": salt} if salt else {})
            for tokens, salt in zip(each.prompts, salts, strict=True)
        ]
        sampling = SamplingParams(
            max_tokens=each.max_tokens,
            temperature=0,
            ignore_eos=True,
            detokenize=False,
            extra_args=each.extra_args,
        )
        before, steps = len(preempted), scheduler.current_step
        outputs = []
        for batch in [requests] if each.is_batched else [[request] for request in requests]:
            outputs += llm.generate(batch, sampling, use_tqdm=False)
        # vLLM hands in the last requests' ends with the next step.
        core.step_fn()
        answers.append(
            {
                "tokens": [list(output.outputs[0].token_ids) for output in outputs],
                "cached": [output.num_cached_tokens for output in outputs],
                "num_preemptions": len(preempted) - before,
                "num_steps": scheduler.current_step - steps,
                "problem": _problem(scheduler),
            }
        )
    return {
        "rounds": answers,
        "scheduler": type(scheduler).__name__,
        "block": scheduler.block_size,
        "unit": scheduler.hash_block_size,
        "num_blocks": scheduler.kv_cache_config.num_blocks,
        "drafts": drafts,
        "copies": copy_kernels.COPIES,
        **_account(scheduler),
    }


def _count_preemptions(scheduler) -> list:
    preempted, stock = [], scheduler._preempt_request

    def count(request, *args, **kwargs):
        preempted.append(request.request_id)
        return stock(request, *args, **kwargs)

    scheduler._preempt_request = count
    return preempted


def _count_drafts(scheduler) -> dict:
    drafts, stock = {"proposed": 0, "accepted": 0}, scheduler.make_spec_decoding_stats

    def count(*args, num_draft_tokens, num_accepted_tokens, **kwargs):
        drafts["proposed"] += num_draft_tokens
        drafts["accepted"] += num_accepted_tokens
        return stock(
            *args, num_draft_tokens=num_draft_tokens, num_accepted_tokens=num_accepted_tokens, **kwargs
        )

    scheduler.make_spec_decoding_stats = count
    return drafts


def _problem(scheduler) -> str | None:
    """Return what is wrong with the pool now that nothing runs."""
    import pool_account

    most_missing = (
        pool_account.blocks_of_a_prompt(scheduler) if hasattr(scheduler, "checkpoint_manager") else 0
    )
    try:
        pool_account.assert_idle(scheduler, most_missing=most_missing)
    except AssertionError as error:
        return f"{error!r}"
    return None


def _account(scheduler) -> dict[str, Any]:
    if not hasattr(scheduler, "checkpoint_manager"):
        return {}
    manager = scheduler.checkpoint_manager
    account, counts = manager.statistics(), manager.counts
    return {
        "counts": {name: getattr(counts, name) for name in counts.__slots__},
        "reused": account.reused,
        "num_evictions": account.num_evictions,
    }


def _spoil_states(core, how: str) -> None:
    from vllm.v1.kv_cache_interface import MambaSpec

    context = core.vllm_config.compilation_config.static_forward_context
    for group in core.scheduler.kv_cache_config.kv_cache_groups:
        if isinstance(group.kv_cache_spec, MambaSpec):
            for name in group.layer_names:
                for state in context[name].kv_cache:
                    state.copy_(state.roll(1, 0).clone() if how == "mix" else state * 0)
