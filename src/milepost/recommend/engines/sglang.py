"""SGLang: states where chunks and prompts end and where prompts part, in a pool of their own.

What it has (``docs/advanced_features/server_arguments.md``, commit 004813e, and the source of release
0.5.20):

* ``--mamba-radix-cache-strategy extra_buffer``: keeps states at branching points too; ``no_buffer`` does
  not. Named ``--mamba-scheduler-strategy`` in older releases, where ``auto`` means ``no_buffer``.
* ``--mamba-full-memory-ratio R``: bytes of the state pool to bytes of the KV pool (0.9 unless given). Both
  are fixed at the start.
* ``--chunked-prefill-size``: a state is kept where a chunk ends. ``--mamba-track-interval`` is about
  decoding alone.
* ``--mamba-max-states-per-path``: most states of one prompt (no limit unless given).

No flag chooses positions in a prompt. Modelled as tail and junction on a grid of 64 tokens; the two pools
by their sizes: under one order of eviction, memory divides as what is stored of each, so that ratio wastes
least.
"""

from milepost.recommend.engine import Candidate, EngineKind, Instructions, command_line
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation
from milepost.simulator import SimulationResult

__all__ = ["SGLANG"]

_CHUNK_TOKENS = 64
_STRATEGY = "--mamba-radix-cache-strategy"
_RATIO = "--mamba-full-memory-ratio"


def _candidates(situation: Situation, profile: TrafficProfile) -> tuple[Candidate, ...]:
    grid = -(-_CHUNK_TOKENS // situation.key_tokens) * situation.key_tokens
    settings = {_STRATEGY: "extra_buffer"}
    return (Candidate(policy="tail+junction", grid=grid, footprint=situation.footprint, settings=settings),)


def _instructions(situation: Situation, candidate: Candidate, result: SimulationResult) -> Instructions:
    computed = max(1, result.input_tokens - result.reused_tokens) / result.num_requests
    ratio = result.mean_checkpoints_per_request * situation.footprint.checkpoint_kv_tokens / computed
    command = command_line(
        "python",
        "-m",
        "sglang.launch_server",
        "--model-path",
        situation.model_name,
        *(word for item in candidate.settings.items() for word in item),
        _RATIO,
        f"{ratio:.2f}",
    )
    return Instructions(
        commands=(command,),
        notes=(
            f"{_STRATEGY} was named --mamba-scheduler-strategy before, with no_buffer as its default",
            "states of running requests come out of the same pool: with many of them, raise the ratio",
            "there is no flag for where in a prompt states are kept",
            "memory is what --mem-fraction-static leaves beside the weights; there is no flag in bytes",
        ),
    )


SGLANG = EngineKind(title="SGLang", candidates=_candidates, instructions=_instructions)
