"""llama.cpp: states where user messages begin and near the prompt's end, so many for a slot, so far apart.

What its server has (``tools/server/README.md``, commit 00dc805):

* ``--ctx-checkpoints N``: most checkpoints of a slot (32 unless given).
* ``--checkpoint-min-step N``: least tokens between two of them (8192 unless given; 256 when the flag was
  new). It takes the place of ``--checkpoint-every-n-tokens``, gone since build b9310. The start of the last
  user message is exempt.
* ``--cache-ram N``: MiB of host memory for prompts that no slot is busy with (8192 unless given).

Modelled as a state at the tail and one at every multiple of the step: where messages are shorter than the
step, those are as many as the server keeps, though not at the same tokens. Prompts leave in the order of
their last use.
"""

from collections.abc import Iterator

from milepost.recommend.engine import Candidate, EngineKind, Instructions, command_line
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation
from milepost.simulator import SimulationResult

__all__ = ["LLAMA_CPP"]

_COUNT, _STEP = "--ctx-checkpoints", "--checkpoint-min-step"
_DEFAULT_STEP = 8192
# The default first, since it needs the least memory.
_STEPS = (8192, 4096, 2048, 1024, 512, 256)
_DEFAULT_COUNT = 32
_MEBIBYTE = 1 << 20


def _candidates(situation: Situation, profile: TrafficProfile) -> Iterator[Candidate]:
    for step in _STEPS:
        if step % situation.grid == 0 or step == _DEFAULT_STEP:
            on_grid = -(-step // situation.grid) * situation.grid
            count = -(-profile.longest_tokens // step) + 1
            yield Candidate(
                policy=f"periodic:{on_grid}",
                grid=situation.grid,
                footprint=situation.footprint,
                settings={_COUNT: max(_DEFAULT_COUNT, count), _STEP: step},
            )


def _instructions(situation: Situation, candidate: Candidate, result: SimulationResult) -> Instructions:
    flags: list[object] = [word for item in candidate.settings.items() for word in item]
    if situation.memory_bytes is not None:
        flags += ["--cache-ram", situation.memory_bytes // _MEBIBYTE]
    return Instructions(
        commands=(command_line("llama-server", "-m", "MODEL.gguf", *flags),),
        notes=(
            "its checkpoints lie where user messages begin; simulated as if at multiples of the step",
            "--checkpoint-min-step is a flag of build b9310 and later; before, --checkpoint-every-n-tokens "
            "set a fixed interval",
            "the memory is host memory (--cache-ram), beside the slots' own",
        ),
    )


LLAMA_CPP = EngineKind(title="llama.cpp", candidates=_candidates, instructions=_instructions)
