"""What became of the checkpoints, counted."""

from dataclasses import dataclass

__all__ = ["CheckpointCounts"]


@dataclass(slots=True)
class CheckpointCounts:
    """What became of the checkpoints, since the start.

    Attributes:
        planned: Positions where a prefill was to stop.
        kept: States that vLLM holds because of it.
        hits: Requests that resumed from one.
        stops: Prefill chunks that ended at a planned position.
        answers: States kept inside answers, beside those that were planned.
        loaded: Prompt tokens that a KV connector brought, of those that were not computed.
        stale: Checkpoints that vLLM had evicted by itself.
        confirmed: Requests whose checkpoints are all captured.
        resets: Times that all checkpoints were forgotten at once.
    """

    planned: int = 0
    kept: int = 0
    hits: int = 0
    stops: int = 0
    answers: int = 0
    loaded: int = 0
    stale: int = 0
    confirmed: int = 0
    resets: int = 0
