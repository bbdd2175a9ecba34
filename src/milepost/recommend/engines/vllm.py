"""Stock vLLM: states at the prompt's tail and at junctions, and optionally every so many tokens.

What it has, with the source of each fact (as of vLLM 0.32):

* ``--prefix-cache-retention-interval N``: 0, the default, keeps only the latest replay boundary and
  shared-prefix junctions; N above 0 keeps a state every N tokens as well, and must be a multiple of the
  scheduler's block. Field ``prefix_cache_retention_interval`` of ``vllm/config/cache.py``, commit 002f10e;
  an argument since pull request 52216. Before, an environment variable, which recurrent layers obey since
  pull request 45845.
* ``--max-num-batched-tokens``: a state exists only where a prefill chunk ends, and chunks are not cut for the
  interval, so a chunk has to be as short as the interval: ``_mamba_block_aligned_split`` in
  ``vllm/v1/core/sched/scheduler.py``, and measured.
* ``--mamba-cache-mode align``: the only mode that keeps reusable states; the default where prefixes are
  cached.
* ``--block-size``: attention blocks are lengthened until one holds a layer's state, and positions are
  multiples of that; the log line at the start says how long ("Setting attention block size to N tokens").
  KV and states share one pool of such pages and one LRU order.
* ``--kv-cache-memory-bytes``: the pool in bytes, per GPU (the same file).

Modelled by the stock policy on a grid of such blocks; with an interval, by the one of TensorRT-LLM that
keeps the same states, the same KV and the same order: the last whole block, junctions, and every so many
tokens.
"""

from collections.abc import Iterator
from dataclasses import replace

from milepost.recommend.engine import Candidate, EngineKind, Instructions, command_line
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation
from milepost.simulator import SimulationResult

__all__ = ["VLLM"]

_INTERVAL = "--prefix-cache-retention-interval"
# Blocks between states that are tried.
_INTERVALS = (1, 2, 4, 8, 16)


def _candidates(situation: Situation, profile: TrafficProfile) -> Iterator[Candidate]:
    layout, footprint = situation.layout, situation.footprint
    # Positions of the log are blocks of its own; a position of both lies at a multiple of both.
    grid = -(-layout.block_tokens // situation.key_tokens) * situation.key_tokens
    in_pages = footprint
    if footprint.kv_bytes_per_token and not footprint.is_stateless:
        # Of KV and states, pages are made as large as either needs.
        in_pages = replace(
            footprint,
            checkpoint_bytes=layout.pages_per_state * layout.block_tokens * footprint.kv_bytes_per_token,
            windows=(),
        )
    yield Candidate(policy="vllm", grid=grid, footprint=in_pages, settings={_INTERVAL: 0})
    for blocks in _INTERVALS:
        if blocks * grid < profile.longest_tokens:
            yield Candidate(
                policy=f"tensorrt:end=1,every={blocks * grid},branch=yes",
                grid=grid,
                footprint=in_pages,
                settings={
                    _INTERVAL: blocks * layout.block_tokens,
                    "--max-num-batched-tokens": blocks * layout.block_tokens,
                },
            )


def _instructions(situation: Situation, candidate: Candidate, result: SimulationResult) -> Instructions:
    block = situation.layout.block_tokens
    memory = None if situation.memory_bytes is None else situation.memory_bytes
    flags = [word for item in candidate.settings.items() for word in item]
    notes = [
        f"block of {block} tokens, worked out; vLLM prints its own when it starts ('Setting attention block "
        "size to N tokens'): if it differs, run this again with --block-size N",
        f"{_INTERVAL} is an argument since August 2026 (pull request 52216, release 0.29); before, the "
        "variable VLLM_PREFIX_CACHE_RETENTION_INTERVAL sets it, and unset, every chunk's end is kept",
    ]
    if len(candidate.settings) > 1:
        notes.append(
            "chunks are short because a state exists only where a chunk ends; the price is more prefill steps"
        )
    if candidate.grid != block:
        notes.append(
            f"simulated with blocks of {candidate.grid} tokens, since the log has no finer common positions"
        )
    command = command_line(
        "vllm",
        "serve",
        situation.model_name,
        "--enable-prefix-caching",
        "--mamba-cache-mode",
        "align",
        *flags,
        *(() if memory is None else ("--kv-cache-memory-bytes", memory)),
    )
    return Instructions(commands=(command,), notes=tuple(notes))


VLLM = EngineKind(title="vLLM (stock)", candidates=_candidates, instructions=_instructions)
