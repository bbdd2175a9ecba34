"""From a log to settings: replay, compare, choose."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from milepost.errors import ConfigurationError, TraceFormatError
from milepost.footprint import Footprint
from milepost.recommend.engine_advice import EngineAdvice, PolicyOutcome, advise
from milepost.recommend.engines import ENGINES
from milepost.recommend.evaluation import Evaluator, Watch
from milepost.recommend.families import CLAIRVOYANT, family_candidates
from milepost.recommend.profile import ProfileBuilder
from milepost.recommend.situation import ModelFamily, ModelLayout, Situation, nominal_layout
from milepost.simulator import WarmUp
from milepost.simulator.setting import NOMINAL_KV_BYTES_PER_TOKEN, grid_for
from milepost.traces import TraceRequest

__all__ = ["Recommendation", "recommend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What was replayed, and what follows for each engine.

    Attributes:
        trace: Name of the log.
        model: As named in command lines, None where only costs are known.
        num_requests: Requests that the figures are about.
        num_warm_up_requests: Requests replayed before those.
        capacity_kv_tokens: Memory for states and KV in tokens of KV; None where the model keeps no KV.
        memory_bytes: The same in bytes; None where only tokens are known.
        checkpoint_bytes: What a checkpoint takes; None where only tokens are known.
        checkpoint_kv_tokens: The same in tokens of KV; None where the model keeps no KV.
        cost_unit: What costs are counted in: tokens, FLOPs or seconds.
        total_cost: Of prefilling the whole log.
        ceiling_fraction: What endless memory would reuse.
        clairvoyant_fraction: What knowing the future would, in this memory; None where it was not replayed.
        policies: Every policy that was compared, the best first.
        engines: The best setting of each engine, in the table's order.
    """

    trace: str
    model: str | None
    num_requests: int
    num_warm_up_requests: int
    input_tokens: int
    capacity_kv_tokens: int | None
    memory_bytes: int | None
    checkpoint_bytes: int | None
    checkpoint_kv_tokens: float | None
    cost_unit: str
    total_cost: float
    ceiling_fraction: float
    clairvoyant_fraction: float | None
    policies: tuple[PolicyOutcome, ...]
    engines: tuple[EngineAdvice, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        facts = asdict(self)
        for advice in facts["engines"]:
            advice["instructions"]["files"] = dict(advice["instructions"]["files"])
        return facts


def recommend(
    requests: Iterable[TraceRequest],
    *,
    footprint: Footprint,
    capacity_kv_tokens: int,
    model: str | None = None,
    memory_bytes: int | None = None,
    layout: ModelLayout | None = None,
    family: ModelFamily | None = None,
    engines: Sequence[str] = tuple(ENGINES),
    max_requests: int | None = None,
    after: WarmUp | None = None,
    name: str | None = None,
    watch: Watch | None = None,
) -> Recommendation:
    """Replay ``requests`` under the settings of ``engines``, and return the best of each.

    The requests are read once and held in memory, 8 bytes per key: there is one pass for each grid that an
    engine keeps states on.

    Args:
        requests: In order of arrival, all of one block size.
        footprint: What a checkpoint and a token of KV cost; its cost says what is saved.
        capacity_kv_tokens: Memory for states and KV, in tokens of KV (of 16 KiB where the model keeps none).
        model: As named in command lines.
        memory_bytes: The memory in bytes, for command lines.
        layout: What vLLM makes of the model; that of a usual hybrid unless given.
        family: What the model is, which not every engine serves; a hybrid that all of them do unless given.
        engines: Which to advise on.
        max_requests: Replay only this many, the first.
        after: The beginning of the log that is replayed and left out of the figures.
        name: What the log is called; its own name unless given.
        watch: Wraps the requests of each pass, to show progress.

    Raises:
        ConfigurationError: an engine is unknown, or an option breaks its rule.
        CapacityError: the memory cannot hold one state.
        TraceFormatError: there is no request, or the log cannot be read on.

    Complexity: some fifty replays.
    """
    if unknown := [engine for engine in engines if engine not in ENGINES]:
        raise ConfigurationError(f"engine {unknown[0]!r} is unknown; it is one of {', '.join(ENGINES)}")
    if max_requests is not None and max_requests < 1:
        raise ConfigurationError(f"max_requests={max_requests}; replay at least 1")
    if name is None:
        name = str(getattr(requests, "name", "requests"))
    if memory_bytes is None and not footprint.kv_bytes_per_token:
        memory_bytes = capacity_kv_tokens * NOMINAL_KV_BYTES_PER_TOKEN
    held = list(islice(requests, max_requests))
    if not held:
        raise TraceFormatError(f"trace {name!r} holds no request; give one with at least one")
    situation = Situation(
        model=model,
        footprint=footprint,
        layout=layout or nominal_layout(footprint),
        capacity_kv_tokens=capacity_kv_tokens,
        memory_bytes=memory_bytes,
        key_tokens=held[0].key_tokens,
        grid=grid_for(held[0].key_tokens, grid=None),
        family=family,
    )
    num_warm_up_requests = (after or WarmUp()).number_of(held)
    evaluator = Evaluator(
        held,
        name=name,
        capacity_bytes=situation.capacity_bytes,
        watch=watch,
        num_warm_up_requests=num_warm_up_requests,
    )
    builder = ProfileBuilder()
    policies = family_candidates(situation)
    evaluator.evaluate(policies, label="policies", observer=lambda replayed: builder.add(replayed.request))
    profile = builder.build()
    offered = {
        engine: list(ENGINES[engine].candidates(situation, profile))
        if ENGINES[engine].serves(situation)
        else []
        for engine in engines
    }
    evaluator.evaluate((each for every in offered.values() for each in every), label="engines")
    outcomes = {each.policy: evaluator.outcome(each) for each in policies}
    clairvoyant = outcomes.get(CLAIRVOYANT)
    known = [outcome for policy, outcome in outcomes.items() if policy != CLAIRVOYANT]
    known += [evaluator.outcome(each) for every in offered.values() for each in every]
    best_tokens = max(outcome.result.reused_tokens for outcome in known)
    reference = outcomes["learned"]
    return Recommendation(
        trace=name,
        model=model,
        num_requests=len(held) - num_warm_up_requests,
        num_warm_up_requests=num_warm_up_requests,
        input_tokens=reference.result.input_tokens,
        capacity_kv_tokens=capacity_kv_tokens if footprint.kv_bytes_per_token else None,
        memory_bytes=memory_bytes,
        checkpoint_bytes=None if memory_bytes is None else footprint.checkpoint_bytes,
        checkpoint_kv_tokens=footprint.checkpoint_kv_tokens,
        cost_unit=footprint.cost.unit,
        total_cost=reference.total_cost,
        ceiling_fraction=reference.result.ceiling_fraction,
        clairvoyant_fraction=None if clairvoyant is None else clairvoyant.result.reused_fraction,
        policies=tuple(
            sorted(
                (PolicyOutcome.of(outcome) for outcome in outcomes.values()),
                key=lambda each: -each.reused_fraction,
            )
        ),
        engines=tuple(
            advise(engine, offered[engine], evaluator, situation, best_tokens, clairvoyant)
            for engine in engines
        ),
    )
