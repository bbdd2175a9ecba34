"""llama.cpp: states where user messages begin and at the prompt's end, some for each slot, at a distance.

What its server has (``tools/server/README.md``, commit 00dc805, November 2026):

* ``--ctx-checkpoints N``: most checkpoints of a slot (32 unless given).
* ``--checkpoint-min-step N``: least tokens between two of them (8192 unless given; 0 for no minimum). It
  takes the place of ``--checkpoint-every-n-tokens``, gone since build b9310. Checkpoints lie where user
  messages begin (pull request 24176); the start of the last message is exempt from the step.
* ``--cache-ram N``: MiB of host memory for prompts that no slot is busy with (8192 unless given).

Modelled at the ends of messages that far apart, on multiples of 16 tokens or the log's blocks. Prompts leave
in the order of their last use. Not modelled: that KV is copied for each prompt, that only users' messages
count, and the slots' own memory. Where messages begin is what it goes by: a log of block hashes does not
tell, so nothing is simulated on one.
"""

from collections.abc import Iterator

from milepost.recommend.engine import Candidate, EngineKind, Instructions, command_line
from milepost.recommend.engines.kv_alone import KV_ALONE, kv_alone
from milepost.recommend.engines.messages import NOT_SIMULATED, token_grid
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation

__all__ = ["LLAMA_CPP"]

_COUNT, _STEP = "--ctx-checkpoints", "--checkpoint-min-step"
# The default first, since it needs the least memory.
_STEPS = (8192, 4096, 2048, 1024, 512, 256, 0)
_DEFAULT_COUNT = 32
_MEBIBYTE = 1 << 20


def _candidates(situation: Situation, profile: TrafficProfile) -> Iterator[Candidate]:
    if not situation.is_recurrent:
        yield kv_alone(situation)
    elif profile.has_boundaries:
        for step in _STEPS:
            yield Candidate(
                policy=f"llamacpp:step={step},count={_DEFAULT_COUNT}",
                grid=token_grid(situation),
                footprint=situation.footprint,
                settings={_COUNT: _DEFAULT_COUNT, _STEP: step},
            )


def _instructions(situation: Situation, candidate: Candidate | None) -> Instructions:
    settings = {} if candidate is None else dict(candidate.settings)
    if situation.memory_bytes is not None:
        # 0 would switch it off.
        settings["--cache-ram"] = max(1, situation.memory_bytes // _MEBIBYTE)
    notes = [
        f"{_STEP} is a flag of build b9310 and later; before, --checkpoint-every-n-tokens set an interval"
        if situation.is_recurrent
        else KV_ALONE,
        "the memory is host memory (--cache-ram), beside the slots' own; each prompt has its own copy of the "
        "KV there, so less fits than was simulated where prompts share much",
    ]
    if candidate is None:
        notes.insert(0, NOT_SIMULATED)
    return Instructions(
        commands=(
            command_line(
                "llama-server", "-m", "MODEL.gguf", *(word for item in settings.items() for word in item)
            ),
        ),
        notes=tuple(notes),
    )


# What its converter takes (``conversion``), and what it has a graph for (``src/models``), November 2026.
_FAMILIES = frozenset(
    (
        *("bailing_hybrid", "bamba", "falcon_h1", "falcon_mamba", "gemma3", "gemma3_text", "gpt_oss"),
        *(
            "granitemoehybrid",
            "jamba",
            "kimi_linear",
            "lfm2",
            "lfm2_moe",
            "llama",
            "mamba",
            "mamba2",
            "minimax",
        ),
        *("mistral", "nemotron_h", "qwen2", "qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text"),
        *("qwen3_5_text", "qwen3_moe", "qwen3_next"),
    )
)
LLAMA_CPP = EngineKind(
    title="llama.cpp", candidates=_candidates, instructions=_instructions, families=_FAMILIES
)
