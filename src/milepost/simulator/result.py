"""What one policy made of one trace at one capacity."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["LostTokens", "SimulationResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LostTokens:
    """Prompt tokens that were computed, by reason (see :mod:`milepost.prefix_cache`)."""

    unseen: int
    placement: int
    eviction: int
    alignment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """One run: the reused and the lost tokens add up to the input tokens.

    Attributes:
        trace: Its name.
        policy: Its notation.
        capacity_kv_tokens: The one budget, in tokens of KV.
        checkpoint_kv_tokens: What a checkpoint costs of it.
        num_requests: Requests that the figures are about.
        num_warm_up_requests: Requests replayed before those, to warm the cache up.
        input_tokens: Tokens of their prompts.
        reused_tokens: Tokens that were resumed instead of computed.
        reused_fraction: Of the input tokens.
        ceiling_fraction: What endless memory with a checkpoint at every grid position would have reused.
        mean_checkpoints_per_request: Checkpoints stored for a request, on average.
        peak_kv_tokens: The most that was stored after any request, states and KV, in tokens of KV.
        lost: Why the other tokens were computed. What the cache no longer remembers counts as unseen.
        seconds: What the cache took for them; None where nobody gave a clock, so that the same input
            gives the same bytes.
    """

    trace: str
    policy: str
    capacity_kv_tokens: int
    checkpoint_kv_tokens: float
    num_requests: int
    input_tokens: int
    reused_tokens: int
    reused_fraction: float
    ceiling_fraction: float
    mean_checkpoints_per_request: float
    peak_kv_tokens: float
    lost: LostTokens
    seconds: float | None = None
    num_warm_up_requests: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the fields in their order, whole numbers as integers."""
        facts = asdict(self)
        for name in ("checkpoint_kv_tokens", "peak_kv_tokens"):
            if facts[name].is_integer():
                facts[name] = int(facts[name])
        return facts

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "SimulationResult":
        """Return what :meth:`as_json` was made of.

        Raises:
            TypeError: a field is missing or unknown.
        """
        wholes = {name: float(facts[name]) for name in ("checkpoint_kv_tokens", "peak_kv_tokens")}
        return cls(**{**facts, **wholes, "lost": LostTokens(**facts["lost"])})
