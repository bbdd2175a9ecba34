"""From a log to settings: replay, compare, choose."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from milepost.errors import ConfigurationError, TraceFormatError
from milepost.footprint import Footprint
from milepost.recommend.engine import Candidate, EngineKind, Instructions
from milepost.recommend.engines import ENGINES
from milepost.recommend.evaluation import Evaluator, Outcome, Watch
from milepost.recommend.families import CLAIRVOYANT, family_candidates
from milepost.recommend.profile import ProfileBuilder
from milepost.recommend.situation import ModelFamily, ModelLayout, Situation, nominal_layout
from milepost.simulator import SimulationResult, WarmUp
from milepost.simulator.setting import NOMINAL_KV_BYTES_PER_TOKEN, grid_for
from milepost.traces import TraceRequest

__all__ = ["EngineAdvice", "PolicyOutcome", "Recommendation", "recommend"]

# A setting has to reuse this much more of all tokens than a simpler one to be recommended instead.
_NOTICEABLE = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOutcome:
    """What a policy reuses and saves.

    Attributes:
        policy: Its notation.
        reused_fraction: Of the input tokens.
        saved_cost_fraction: Of the cost of prefilling them.
        mean_checkpoints_per_request: States stored for a request.
    """

    policy: str
    reused_fraction: float
    saved_cost_fraction: float
    mean_checkpoints_per_request: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAdvice:
    """The best setting of one engine, what it is worth, and how to set it.

    Attributes:
        engine: Its key in :data:`~milepost.recommend.engines.ENGINES`.
        title: Its name.
        outcome: What is to be expected; None, as all that follows from it, where the log does not tell what
            the engine goes by, so that nothing was simulated.
        reused_tokens: Tokens of the log that need not have been computed.
        prefill_cost: What is left to compute of all prompts, in the unit of the cost.
        saved_seconds: Seconds of prefill, where the cost is measured in them.
        regret_to_best: Share of the input tokens that the best policy reuses beyond this.
        regret_to_clairvoyant: The same for one that knows the future; None where none was replayed.
        grid: Positions that the engine can keep states at.
        settings: What to set, by the engine's own names.
        num_tried: Settings of the engine that were replayed.
        instructions: Command lines, files and notes.
        is_served: Whether the engine has the model's family at all.
    """

    engine: str
    title: str
    outcome: PolicyOutcome | None
    reused_tokens: int | None
    prefill_cost: float | None
    saved_seconds: float | None
    regret_to_best: float | None
    regret_to_clairvoyant: float | None
    grid: int | None
    settings: dict[str, Any]
    num_tried: int
    instructions: Instructions
    is_served: bool = True


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

    The requests are read once and held in memory, 8 bytes a key: there is one pass for each grid that an
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
        max_requests: Replay only the first so many.
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
                (_summary(outcome) for outcome in outcomes.values()), key=lambda each: -each.reused_fraction
            )
        ),
        engines=tuple(
            _advise(engine, offered[engine], evaluator, situation, best_tokens, clairvoyant)
            for engine in engines
        ),
    )


def _advise(
    engine: str,
    candidates: Sequence[Candidate],
    evaluator: Evaluator,
    situation: Situation,
    best_tokens: int,
    clairvoyant: Outcome | None,
) -> EngineAdvice:
    kind: EngineKind = ENGINES[engine]
    if not candidates:
        return EngineAdvice(
            engine=engine,
            title=kind.title,
            outcome=None,
            reused_tokens=None,
            prefill_cost=None,
            saved_seconds=None,
            regret_to_best=None,
            regret_to_clairvoyant=None,
            grid=None,
            settings={},
            num_tried=0,
            instructions=kind.instructions(situation, None)
            if kind.serves(situation)
            else _not_served(kind, situation),
            is_served=kind.serves(situation),
        )
    outcomes = [evaluator.outcome(each) for each in candidates]
    most = max(outcome.result.reused_fraction for outcome in outcomes)
    # The simplest that is as good as the best.
    chosen = next(
        index
        for index, outcome in enumerate(outcomes)
        if outcome.result.reused_fraction >= most - _NOTICEABLE
    )
    outcome, candidate = outcomes[chosen], candidates[chosen]
    result: SimulationResult = outcome.result
    known_future = None if clairvoyant is None else clairvoyant.result.reused_tokens
    return EngineAdvice(
        engine=engine,
        title=kind.title,
        outcome=_summary(outcome),
        reused_tokens=result.reused_tokens,
        prefill_cost=outcome.total_cost - outcome.saved_cost,
        saved_seconds=outcome.saved_cost if situation.footprint.cost.unit == "seconds" else None,
        regret_to_best=(best_tokens - result.reused_tokens) / result.input_tokens,
        regret_to_clairvoyant=(
            None if known_future is None else (known_future - result.reused_tokens) / result.input_tokens
        ),
        grid=candidate.grid,
        settings=dict(candidate.settings),
        num_tried=len(candidates),
        instructions=kind.instructions(situation, candidate),
    )


def _not_served(kind: EngineKind, situation: Situation) -> Instructions:
    assert situation.family is not None
    assert kind.families is not None
    return Instructions(
        notes=(
            f"not served: it has no models of type {situation.family.model_type}; of the families that are "
            f"known here, it has {', '.join(sorted(kind.families))}",
        )
    )


def _summary(outcome: Outcome) -> PolicyOutcome:
    result = outcome.result
    return PolicyOutcome(
        policy=result.policy,
        reused_fraction=result.reused_fraction,
        saved_cost_fraction=outcome.saved_cost_fraction,
        mean_checkpoints_per_request=result.mean_checkpoints_per_request,
    )
