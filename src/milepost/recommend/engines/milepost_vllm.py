"""Milepost's scheduler inside vLLM: positions and evictions learned from the traffic, on vLLM's blocks.

What there is to set (:mod:`milepost.vllm.options`, vLLM 0.30 to 0.33):

* ``--scheduler-cls milepost.vllm.Scheduler``: all that is needed.
* ``--prefix-match-unit N``: vLLM's own, since 0.30: hits, and so states, at multiples of N tokens. It has to
  divide the block.
* ``--additional-config '{"milepost": {...}}'``: nothing in it is needed.

Modelled by the very cache that runs inside vLLM, with its stops: at most four a prompt, each at the price
that the plugin starts with. Inside vLLM that price is learned from the steps, which a replay has not; and
stock's own two positions are kept too while there is free memory. Not modelled: those, requests that run at
the same time, and states at the ends of answers. A model without recurrent layers runs as in stock vLLM.
"""

from collections.abc import Iterator

from milepost.recommend.engine import Candidate, EngineKind, Instructions, SettingValue, command_line
from milepost.recommend.engines.blocks import (
    block_notes,
    block_tokens,
    footprint_in_blocks,
    match_unit_tokens,
)
from milepost.recommend.engines.vllm import VLLM_FAMILIES
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation

__all__ = ["MILEPOST_VLLM", "MOST_STOPS", "STOP_TOKENS"]

_SCHEDULER = "--scheduler-cls"
_MATCH_UNIT = "--prefix-match-unit"
#: ``max_stops`` of :mod:`milepost.vllm.options`, and what :mod:`milepost.vllm.step_cost` takes a stop to cost
#: until it has seen steps.
MOST_STOPS, STOP_TOKENS = 4, 256


def _candidates(situation: Situation, profile: TrafficProfile) -> Iterator[Candidate]:
    if not situation.is_recurrent:
        return
    block, unit = block_tokens(situation), match_unit_tokens(situation)
    settings: dict[str, SettingValue] = {_SCHEDULER: "milepost.vllm.Scheduler"}
    yield _candidate(situation, grid=block, settings=settings)
    if unit is not None:
        yield _candidate(situation, grid=unit, settings={**settings, _MATCH_UNIT: unit})


def _candidate(situation: Situation, *, grid: int, settings: dict[str, SettingValue]) -> Candidate:
    block = block_tokens(situation)
    return Candidate(
        policy="learned",
        grid=grid,
        footprint=footprint_in_blocks(situation, is_inside=grid < block),
        segment_tokens=block,
        max_checkpoints=MOST_STOPS,
        capture_tokens=STOP_TOKENS,
        settings=settings,
    )


def _instructions(situation: Situation, candidate: Candidate | None) -> Instructions:
    if candidate is None:
        return Instructions(
            notes=(
                "nothing to plan: the model has no recurrent layers, so vLLM runs as it does "
                "without Milepost",
            )
        )
    memory = situation.memory_bytes
    command = command_line(
        "vllm",
        "serve",
        situation.model_name,
        "--enable-prefix-caching",
        *(word for item in candidate.settings.items() for word in item),
        *(() if memory is None else ("--kv-cache-memory-bytes", memory)),
    )
    notes = [
        "install milepost[vllm] beside vLLM 0.30 to 0.33; nothing else to set, the rest is learned",
        *block_notes(situation),
    ]
    unit = candidate.settings.get(_MATCH_UNIT)
    if isinstance(unit, int) and unit % 64:
        notes.append(
            f"a match unit of {unit} is no multiple of 64: near-ties between two tokens may flip, as between "
            "two sizes of prefill chunks"
        )
    if match_unit_tokens(situation) is None:
        notes.append(
            f"{_MATCH_UNIT} was not tried: the log's blocks of {situation.key_tokens} tokens do not tell "
            "positions inside vLLM's blocks apart, or no unit divides them"
        )
    notes.append(
        f"a stop is taken to cost {STOP_TOKENS} tokens of prefill, as the plugin does until its own "
        "steps have told it; cheaper steps mean more states than were simulated"
    )
    notes.append(
        "what is not supported there (speculative decoding, KV connectors, ...) runs as stock vLLM, with one "
        "warning: docs/vllm.md"
    )
    return Instructions(commands=(command,), notes=tuple(notes))


MILEPOST_VLLM = EngineKind(
    title="vLLM with Milepost",
    candidates=_candidates,
    instructions=_instructions,
    families=VLLM_FAMILIES,
)
