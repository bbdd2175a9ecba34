"""mlx-lm's server: whole caches, kept where the system message, the prompt and the answer end.

What it has (``mlx_lm/server.py`` and ``models/cache.py`` of 0.32.2, read, and seen running):

* A cache is stored at the end of the system message, at the prompt's end minus one token, and at the
  answer's end. Caches of recurrent models cannot be trimmed, so a request that diverges inside a message
  reuses nothing of it.
* ``--prompt-cache-size N``: most caches, a count (10 unless given). ``--prompt-cache-bytes SIZE``: their
  bytes; no limit unless given; ``K``, ``M``, ``G`` are powers of ten.
* Each holds a copy of everything, KV included; they go in the order in which they were stored, those of
  answers before those of system messages.

Modelled as such copies, in the order of storing, on multiples of 16 tokens or the log's blocks. Not modelled:
ends of answers, and the favour for system messages. Where messages end is what it goes by: a log of block
hashes does not tell, so nothing is simulated on one.
"""

from collections.abc import Iterator
from dataclasses import replace

from milepost.footprint import Footprint, KVWindow
from milepost.recommend.engine import Candidate, EngineKind, Instructions, SettingValue, command_line
from milepost.recommend.engines.messages import NOT_SIMULATED, token_grid
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation

__all__ = ["MLX"]

_SIZE, _BYTES = "--prompt-cache-size", "--prompt-cache-bytes"
_DEFAULT_SIZE = 10


def _candidates(situation: Situation, profile: TrafficProfile) -> Iterator[Candidate]:
    if profile.has_boundaries and situation.is_recurrent:
        # As many as could ever fit, so that it is the bytes that limit them: of the shortest prompt, each.
        shortest = int(profile.num_tokens.min())
        least_bytes = situation.footprint.checkpoint_bytes_at(shortest)
        least_bytes += shortest * situation.footprint.kv_bytes_per_token
        yield Candidate(
            policy="mlx",
            grid=token_grid(situation),
            footprint=_whole_copies(situation, profile.longest_tokens),
            settings={_SIZE: max(_DEFAULT_SIZE, situation.capacity_bytes // max(1, least_bytes))},
        )


def _whole_copies(situation: Situation, longest_tokens: int) -> Footprint:
    """Return the footprint of a checkpoint that holds its KV as well, shared with nobody."""
    footprint = situation.footprint
    per_token = footprint.kv_bytes_per_token
    room = max(0, situation.capacity_bytes - footprint.checkpoint_bytes)
    # Longer ones do not fit at all.
    kept_tokens = min(longest_tokens, room // per_token) if per_token else 0
    return replace(
        footprint,
        checkpoint_bytes=footprint.checkpoint_bytes + kept_tokens * per_token,
        kv_bytes_per_token=0,
        windows=(*footprint.windows, KVWindow(kept_tokens, per_token)),
    )


def _instructions(situation: Situation, candidate: Candidate | None) -> Instructions:
    settings = {} if candidate is None else dict(candidate.settings)
    if situation.memory_bytes is not None:
        settings[_BYTES] = situation.memory_bytes
    notes = [f"flags of mlx-lm 0.32.2; without {_SIZE} it keeps {_DEFAULT_SIZE} caches, whatever the memory"]
    if not situation.is_recurrent:
        notes.insert(
            0,
            "not simulated: caches without recurrent states are trimmed to whatever is shared, and each is a "
            "copy of its own",
        )
        return _run(situation, settings, notes)
    notes.append(
        "a request that diverges inside a message reuses nothing of that message: there is no flag for it"
    )
    if candidate is None:
        notes.insert(0, NOT_SIMULATED)
    else:
        notes.append("the first message is taken for the system's; answers' ends are not in the figures")
    return _run(situation, settings, notes)


def _run(situation: Situation, settings: dict[str, SettingValue], notes: list[str]) -> Instructions:
    return Instructions(
        commands=(
            command_line(
                "mlx_lm.server",
                "--model",
                situation.model_name,
                *(word for item in settings.items() for word in item),
            ),
        ),
        notes=tuple(notes),
    )


# Modules of ``mlx_lm/models`` and names that are mapped to one; its minimax is MiniMax-M2.
_FAMILIES = frozenset(
    (
        *("bailing_hybrid", "falcon_h1", "falcon_mamba", "gemma3", "gemma3_text", "gpt_oss"),
        *("granitemoehybrid", "jamba", "kimi_linear", "lfm2", "lfm2_moe", "llama", "mamba", "mamba2"),
        *("mistral", "nemotron_h", "olmo_hybrid", "qwen2", "qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_moe"),
        *("qwen3_next", "recurrent_gemma"),
    )
)
MLX = EngineKind(title="mlx-lm", candidates=_candidates, instructions=_instructions, families=_FAMILIES)
