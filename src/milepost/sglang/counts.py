"""What became of the checkpoints, counted."""

from dataclasses import dataclass

__all__ = ["CheckpointCounts"]


@dataclass(slots=True)
class CheckpointCounts:
    """What became of the checkpoints, since the start.

    Attributes:
        planned: States that were promised.
        stops: Those of them for which a prompt is cut into one more chunk.
        kept: Those that came into SGLang's tree.
        hits: Requests that resumed from a state.
        answers: States kept inside answers, beside those that were planned.
        off_grid: Planned positions that could not be captured, since a chunk began off the grid.
        evicted_by_sglang: States that went with their KV, or against the order of the cache.
        settled: Requests whose promises are kept or taken back.
        resets: Times that all checkpoints were forgotten at once.
    """

    planned: int = 0
    stops: int = 0
    kept: int = 0
    hits: int = 0
    answers: int = 0
    off_grid: int = 0
    evicted_by_sglang: int = 0
    settled: int = 0
    resets: int = 0
