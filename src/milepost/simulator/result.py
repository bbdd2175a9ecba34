"""What one policy made of one trace at one capacity."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["NOMINAL_KV_BYTES_PER_TOKEN", "LostTokens", "SimulationResult"]

# Where only ratios are known, and where a model keeps no KV. A power of two keeps byte arithmetic exact; the
# size, that of a hybrid model of some billion parameters, sets how much history a cache keeps by default.
NOMINAL_KV_BYTES_PER_TOKEN = 16_384
_AMOUNTS = ("capacity", "checkpoint", "peak")


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
        capacity_kv_tokens: The one budget, in tokens of KV. Where the model keeps no KV, this and the two
            other amounts of memory are multiples of 16 KiB, and their JSON is in bytes.
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
        has_kv: Whether the model keeps KV, so that its tokens are a measure of memory.
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
    has_kv: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return the fields in their order, whole numbers as integers."""
        facts = asdict(self)
        for name in ("checkpoint_kv_tokens", "peak_kv_tokens"):
            if facts[name].is_integer():
                facts[name] = int(facts[name])
        if facts.pop("has_kv"):
            return facts
        for name in _AMOUNTS:
            facts[f"{name}_bytes"] = round(facts[f"{name}_kv_tokens"] * NOMINAL_KV_BYTES_PER_TOKEN)
            facts[f"{name}_kv_tokens"] = None
        return facts

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "SimulationResult":
        """Return what :meth:`as_json` was made of.

        Raises:
            TypeError: a field is missing or unknown.
        """
        if "capacity_bytes" in facts:
            facts = {**facts, "has_kv": False}
            for name in _AMOUNTS:
                num_units = facts.pop(f"{name}_bytes") / NOMINAL_KV_BYTES_PER_TOKEN
                facts[f"{name}_kv_tokens"] = int(num_units) if name == "capacity" else num_units
        wholes = {name: float(facts[name]) for name in ("checkpoint_kv_tokens", "peak_kv_tokens")}
        return cls(**{**facts, **wholes, "lost": LostTokens(**facts["lost"])})
