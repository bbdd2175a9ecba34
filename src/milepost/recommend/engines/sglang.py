"""SGLang: states where chunks and prompts end and where prompts diverge, in a pool of their own.

What 0.5.23 has (read in its argument fields and its scheduler, November 2026):

* ``--mamba-radix-cache-strategy extra_buffer``: keeps states at branching points too; ``no_buffer`` does
  not. Named ``--mamba-scheduler-strategy`` in older releases, where ``auto`` means ``no_buffer``.
* ``--mamba-full-memory-ratio R``: bytes of the state pool to bytes of the KV pool (0.9 unless given). Both
  are fixed at the start, and states of running requests come out of the first.
  A family without states in its radix cache (attention alone, but also pure Mamba) is refused with a
  strategy, and one that is not listed for ``extra_buffer`` with that one (``arg_groups/overrides.py``).
* ``--chunked-prefill-size C``: each chunk of a prefill leaves one state, where it ends, or instead of that
  where the prompt diverges from an earlier one. ``--mamba-track-interval`` is about decoding alone.
* ``--mamba-max-states-per-path N``: of one path, the shallowest states beyond N go, but for forks and ends
  (-1, no limit, unless given).

Later versions (docs/advanced_features/hybrid_cache_checkpoints) have ``--hybrid-cache-checkpoints-level``:
2, their default, keeps forks and request ends alone, 3 the ends of chunks as well, as 0.5.23 does.

No flag chooses positions in a prompt. Modelled on a grid of 64 tokens, with ratios and chunks that are tried;
level 2 as forks and ends without a limit.
"""

from collections.abc import Iterator

from milepost.recommend.engine import Candidate, EngineKind, Instructions, SettingValue, command_line
from milepost.recommend.engines.kv_alone import KV_ALONE, kv_alone
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation

__all__ = [
    "CHUNK",
    "CHUNKS",
    "RATIO",
    "RATIOS",
    "SGLANG",
    "SPLIT_NOTES",
    "STRATEGY",
    "sglang_command",
    "sglang_grid",
    "state_share",
    "takes_extra_buffer",
]

_GRID_TOKENS = 64
STRATEGY = "--mamba-radix-cache-strategy"
RATIO = "--mamba-full-memory-ratio"
CHUNK = "--chunked-prefill-size"
_STATES = "--mamba-max-states-per-path"
_LEVEL = "--hybrid-cache-checkpoints-level"
# The default first.
RATIOS = (0.9, 0.1, 0.3, 3.0)
CHUNKS = (8192, 2048)
#: What else to know of how it splits its memory.
SPLIT_NOTES = (
    "states of running requests come out of the same pool: with many of them, raise the ratio",
    "memory is what --mem-fraction-static leaves beside the weights; there is no flag in bytes",
)
# 0.5.23: what takes extra_buffer; what takes no_buffer alone; pure Mamba, whose states it does not keep.
_EXTRA_BUFFER = frozenset(
    (
        *("bailing_hybrid", "falcon_h1", "granitemoehybrid", "kimi_linear", "nemotron_h", "qwen3_5"),
        *("qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"),
    )
)
_NO_BUFFER = frozenset(("lfm2", "lfm2_moe"))
_KEPT_NOWHERE = frozenset(("falcon_mamba", "mamba", "mamba2"))
_ATTENTION = frozenset(
    ("gemma3", "gemma3_text", "gpt_oss", "llama", "mistral", "qwen2", "qwen3", "qwen3_moe")
)


def _candidates(situation: Situation, profile: TrafficProfile) -> Iterator[Candidate]:
    grid = sglang_grid(situation)
    if not situation.is_recurrent:
        yield kv_alone(situation)
        return
    if not takes_extra_buffer(situation):
        return
    for chunk in (*CHUNKS, None):
        for ratio in RATIOS:
            settings: dict[str, SettingValue] = {STRATEGY: "extra_buffer", RATIO: ratio}
            policy = f"sglang:share={state_share(ratio)}"
            if chunk is None:
                settings[_STATES] = 1
            else:
                settings[CHUNK] = chunk
                policy += f",chunk={chunk},single=yes"
            yield Candidate(policy=policy, grid=grid, footprint=situation.footprint, settings=settings)


def _instructions(situation: Situation, candidate: Candidate | None) -> Instructions:
    if candidate is None or not situation.is_recurrent:
        return Instructions(commands=(sglang_command(situation, {}),), notes=(_without_states(situation),))
    settings = dict(candidate.settings)
    keeps_chunks = settings.pop(_STATES, None) is None
    return Instructions(
        commands=(sglang_command(situation, dict(candidate.settings)),),
        notes=(
            "the command is for 0.5.23; where "
            f"{_LEVEL} is known, add {_LEVEL} {3 if keeps_chunks else 2}"
            + ("" if keeps_chunks else f" and leave {_STATES} out"),
            f"{STRATEGY} was named --mamba-scheduler-strategy before, with no_buffer as its default",
            "there is no flag for where in a prompt states are kept",
            *SPLIT_NOTES,
        ),
    )


def _without_states(situation: Situation) -> str:
    if not situation.is_recurrent:
        return KV_ALONE
    if situation.family is not None and situation.family.model_type in _NO_BUFFER:
        return (
            "not simulated: 0.5.23 takes this family with the strategy no_buffer alone, its default "
            "there, which keeps no state where prompts diverge"
        )
    return (
        "not simulated: 0.5.23 keeps no states of this family, so nothing is reused and nothing is to be set"
    )


def takes_extra_buffer(situation: Situation) -> bool:
    """Return whether it keeps states of the model where prompts diverge, as far as the family is known."""
    family = situation.family
    return situation.is_recurrent and (family is None or family.model_type in _EXTRA_BUFFER)


def state_share(ratio: float) -> str:
    """Return the states' share of both pools, for a notation, where theirs has ``ratio`` times the KV's."""
    return f"{ratio / (1 + ratio):.4f}"


def sglang_grid(situation: Situation) -> int:
    """Return the tokens that states lie apart, in whole blocks of the log."""
    return -(-_GRID_TOKENS // situation.key_tokens) * situation.key_tokens


def sglang_command(situation: Situation, settings: dict[str, SettingValue]) -> str:
    """Return how it is started with ``settings``."""
    return command_line(
        "python",
        "-m",
        "sglang.launch_server",
        "--model-path",
        situation.model_name,
        *(word for item in settings.items() for word in item),
    )


SGLANG = EngineKind(
    title="SGLang",
    candidates=_candidates,
    instructions=_instructions,
    families=_EXTRA_BUFFER | _NO_BUFFER | _KEPT_NOWHERE | _ATTENTION,
)
