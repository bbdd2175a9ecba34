"""Stock vLLM: states at the prompt's tail and at branch points, and optionally at an interval of tokens.

What it has (0.32, read in its parser and run; 0.33 the same by reading), with the source of each fact:

* ``--prefix-cache-retention-interval N``: 0, the default, keeps only the latest replay boundary and
  shared-prefix junctions; N above 0 keeps a state every N tokens as well, and must be a multiple of the
  scheduler's block. Field ``prefix_cache_retention_interval`` of ``vllm/config/cache.py``; an argument since
  pull request 52216. Before, an environment variable, which recurrent layers obey since pull request 45845.
* ``--max-num-batched-tokens``: a state exists only where a prefill chunk ends, and chunks are not cut for the
  interval, so a chunk has to be as short as the interval: ``_mamba_block_aligned_split`` in
  ``vllm/v1/core/sched/scheduler.py``, and measured. It is the budget of a whole step, and less than
  ``--max-num-seqs`` (up to 1,024 by default) is refused at the start; so shorter intervals than the least
  budget that servers run with, 2,048, are not tried.
* Both are for models with recurrent layers; one of attention alone has no use for them, and an interval is
  refused there (``_validate_prefix_cache_retention_interval``).
* ``--mamba-cache-mode`` is not printed: ``align`` is what prefix caching means for these models, and since
  0.33 the flag does nothing but warn.
* ``--block-size``: attention blocks are lengthened until one holds a layer's state, and positions are
  multiples of that; the log line at the start says how long ("Setting attention block size to N tokens").
  KV and states share one pool of such pages and one LRU order.
* ``--kv-cache-memory-bytes``: the pool in bytes, per GPU (the same file).

Modelled by the stock policy on a grid of such blocks; with an interval, by the one of TensorRT-LLM that
keeps the same states, the same KV and the same order: the last whole block, branch points, and an interval.
"""

from collections.abc import Iterator

from milepost.recommend.engine import Candidate, EngineKind, Instructions, command_line
from milepost.recommend.engines.blocks import block_notes, block_tokens, footprint_in_blocks
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation

__all__ = ["VLLM", "VLLM_FAMILIES"]

_INTERVAL = "--prefix-cache-retention-interval"
# Tokens between states that are tried, each rounded up to whole blocks: budgets of a step that people run.
_INTERVALS = (2048, 4096, 8192, 16_384)
#: What its registry of models has, 0.32.
VLLM_FAMILIES = frozenset(
    (
        *("bailing_hybrid", "falcon_h1", "falcon_mamba", "gemma3", "gemma3_text", "gpt_oss"),
        *("granitemoehybrid", "jamba", "kimi_linear", "lfm2", "lfm2_moe", "llama", "mamba", "mamba2"),
        *("mistral", "nemotron_h", "olmo_hybrid", "qwen2", "qwen3", "qwen3_5", "qwen3_5_moe"),
        *("qwen3_5_moe_text", "qwen3_5_text", "qwen3_moe", "qwen3_next", "zamba2"),
    )
)


def _candidates(situation: Situation, profile: TrafficProfile) -> Iterator[Candidate]:
    grid, in_blocks = block_tokens(situation), footprint_in_blocks(situation)
    if not situation.is_recurrent:
        yield Candidate(policy="vllm", grid=grid, footprint=in_blocks)
        return
    yield Candidate(policy="vllm", grid=grid, footprint=in_blocks, settings={_INTERVAL: 0})
    block = situation.layout.block_tokens
    for blocks in dict.fromkeys(-(-tokens // block) for tokens in _INTERVALS):
        if blocks * grid < profile.longest_tokens:
            interval = blocks * block
            yield Candidate(
                policy=f"tensorrt:end=1,every={blocks * grid},branch=yes",
                grid=grid,
                footprint=in_blocks,
                settings={_INTERVAL: interval, "--max-num-batched-tokens": interval},
            )


def _instructions(situation: Situation, candidate: Candidate | None) -> Instructions:
    assert candidate is not None
    memory = situation.memory_bytes
    if situation.is_recurrent:
        notes = [
            *block_notes(situation),
            f"{_INTERVAL} is an argument since August 2026 (pull request 52216, release 0.29); before, the "
            "variable VLLM_PREFIX_CACHE_RETENTION_INTERVAL sets it, and unset, every chunk's end is kept",
        ]
    else:
        notes = ["nothing to set: the model has no recurrent states, and KV is reused block by block"]
    if len(candidate.settings) > 1:
        notes.append(
            "chunks are short because a state exists only where a chunk ends; the price is more prefill "
            "steps, which the figures do not know"
        )
    command = command_line(
        "vllm",
        "serve",
        situation.model_name,
        "--enable-prefix-caching",
        *(word for item in candidate.settings.items() for word in item),
        *(() if memory is None else ("--kv-cache-memory-bytes", memory)),
    )
    return Instructions(commands=(command,), notes=tuple(notes))


VLLM = EngineKind(
    title="vLLM (stock)", candidates=_candidates, instructions=_instructions, families=VLLM_FAMILIES
)
