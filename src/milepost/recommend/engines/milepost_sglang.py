"""Milepost's radix cache inside SGLang: positions and evictions learned from the traffic, one state a chunk.

What there is to set (:mod:`milepost.sglang.options`, SGLang 0.5.22 and 0.5.23):

* ``--radix-cache-backend milepost``: all that is needed.
* ``--mamba-full-memory-ratio`` and ``--chunked-prefill-size``: SGLang's own
  (:mod:`milepost.recommend.engines.sglang`).

Modelled by the very policy that runs inside SGLang, with a pool for states and one for KV, one state a chunk.
Not modelled: second states of a chunk, which hardly ever pay (docs/sglang.md), requests that run at the same
time, and states in answers. Families that SGLang runs without ``extra_buffer``, and those without states, run
as in SGLang as it is.
"""

from collections.abc import Iterator

from milepost.recommend.engine import Candidate, EngineKind, Instructions, SettingValue
from milepost.recommend.engines.sglang import (
    CHUNK,
    CHUNKS,
    RATIO,
    RATIOS,
    SGLANG,
    SPLIT_NOTES,
    STRATEGY,
    sglang_command,
    sglang_grid,
    state_share,
    takes_extra_buffer,
)
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation

__all__ = ["MILEPOST_SGLANG"]

_BACKEND = "--radix-cache-backend"


def _candidates(situation: Situation, profile: TrafficProfile) -> Iterator[Candidate]:
    if not takes_extra_buffer(situation):
        return
    for chunk in CHUNKS:
        for ratio in RATIOS:
            settings: dict[str, SettingValue] = {
                _BACKEND: "milepost",
                STRATEGY: "extra_buffer",
                RATIO: ratio,
                CHUNK: chunk,
            }
            yield Candidate(
                policy=f"learned:share={state_share(ratio)},chunk={chunk}",
                grid=sglang_grid(situation),
                footprint=situation.footprint,
                settings=settings,
            )


def _instructions(situation: Situation, candidate: Candidate | None) -> Instructions:
    if candidate is None:
        return Instructions(
            notes=(
                "nothing to plan: the model has no recurrent layers, or SGLang does not run it with "
                "extra_buffer, so SGLang runs as it does without Milepost",
            )
        )
    return Instructions(
        commands=(sglang_command(situation, dict(candidate.settings)),),
        notes=(
            "install milepost beside SGLang 0.5.22 or 0.5.23; nothing else to set, the rest is learned",
            "not yet run on a GPU, but on SGLang's own cache, pools and scheduling: docs/sglang.md",
            *SPLIT_NOTES,
        ),
    )


MILEPOST_SGLANG = EngineKind(
    title="SGLang with Milepost",
    candidates=_candidates,
    instructions=_instructions,
    families=SGLANG.families,
)
