"""SGLang: states where chunks and prompts end and where prompts part, in a pool of their own.

What it has (``docs/advanced_features/server_arguments.md``, commit 004813e, and the source of release
0.5.20):

* ``--mamba-radix-cache-strategy extra_buffer``: keeps states at branching points too; ``no_buffer`` does
  not. Named ``--mamba-scheduler-strategy`` in older releases, where ``auto`` means ``no_buffer``.
* ``--mamba-full-memory-ratio R``: bytes of the state pool to bytes of the KV pool (0.9 unless given). Both
  are fixed at the start, and states of running requests come out of the first.
* ``--chunked-prefill-size``: a state is kept where a chunk ends. ``--mamba-track-interval`` is about decoding
  alone.
* ``--mamba-max-states-per-path``: most states of one prompt (no limit unless given); not modelled.

No flag chooses positions in a prompt. Modelled on a grid of 64 tokens, with ratios and chunks that are tried.
"""

from collections.abc import Iterator

from milepost.recommend.engine import Candidate, EngineKind, Instructions, SettingValue, command_line
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation
from milepost.simulator import SimulationResult

__all__ = ["SGLANG"]

_GRID_TOKENS = 64
_STRATEGY = "--mamba-radix-cache-strategy"
_RATIO = "--mamba-full-memory-ratio"
_CHUNK = "--chunked-prefill-size"
# The default first.
_RATIOS = (0.9, 0.1, 0.3, 3.0)
_CHUNKS = (None, 8192, 2048)


def _candidates(situation: Situation, profile: TrafficProfile) -> Iterator[Candidate]:
    grid = -(-_GRID_TOKENS // situation.key_tokens) * situation.key_tokens
    for chunk in _CHUNKS:
        if chunk is not None and chunk >= profile.longest_tokens:
            continue
        for ratio in _RATIOS:
            settings: dict[str, SettingValue] = {_STRATEGY: "extra_buffer", _RATIO: ratio}
            if chunk is not None:
                settings[_CHUNK] = chunk
            yield Candidate(
                policy=f"sglang:share={ratio / (1 + ratio):.4f}" + (f",chunk={chunk}" if chunk else ""),
                grid=grid,
                footprint=situation.footprint,
                settings=settings,
            )


def _instructions(situation: Situation, candidate: Candidate, result: SimulationResult) -> Instructions:
    command = command_line(
        "python",
        "-m",
        "sglang.launch_server",
        "--model-path",
        situation.model_name,
        *(word for item in candidate.settings.items() for word in item),
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
