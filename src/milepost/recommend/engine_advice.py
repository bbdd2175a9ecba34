"""What one engine does best on a log: its settings compared, and the simplest of the best chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from milepost.recommend.engine import Candidate, EngineKind, Instructions
from milepost.recommend.engines import ENGINES
from milepost.recommend.evaluation import Evaluator, Outcome
from milepost.recommend.situation import Situation
from milepost.simulator import SimulationResult

__all__ = ["EngineAdvice", "PolicyOutcome", "advise"]

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

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """Return what is said of ``outcome``."""
        result = outcome.result
        return cls(
            policy=result.policy,
            reused_fraction=result.reused_fraction,
            saved_cost_fraction=outcome.saved_cost_fraction,
            mean_checkpoints_per_request=result.mean_checkpoints_per_request,
        )


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


def advise(
    engine: str,
    candidates: Sequence[Candidate],
    evaluator: Evaluator,
    situation: Situation,
    best_tokens: int,
    clairvoyant: Outcome | None,
) -> EngineAdvice:
    """Return what to set in ``engine``.

    Args:
        engine: Its key.
        candidates: Its settings, the simplest first; none where it cannot be simulated.
        evaluator: Has replayed all of them.
        situation: What the engine has to serve.
        best_tokens: What the best of all policies and engines reused.
        clairvoyant: How one did that knows the future; None where none was replayed.
    """
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
        outcome=PolicyOutcome.of(outcome),
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
