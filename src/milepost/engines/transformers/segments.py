"""How long a segment has to be for a device: strict prefill ends a call at each, and short ones starve it.

On a CPU 256 tokens are long enough (measured, see below), so every CPU gives the same bits. Of other devices
it is measured when a model is opened: the shortest segment that costs a prefill at most 3 %.
"""

import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from milepost.engines.timing import seconds_to_prefill
from milepost.engines.transformers.driver import TransformersDriver

__all__ = ["SegmentChoice", "fitting_segment", "shortest_within"]

_log = logging.getLogger(__name__)

# By kind of device. `python -m benchmarks.capture` prints what cuts of this length cost.
_KNOWN = {"cpu": 256}
# What is tried of the others, in tokens of a prompt of the last length but for short contexts.
_CANDIDATES = (256, 512, 1024, 2048)
_PROMPT_TOKENS = 4096
_NUM_TURNS = 3
_MOST_LOSS = 0.03


@dataclass(frozen=True, slots=True)
class SegmentChoice:
    """A segment's length, and why.

    Attributes:
        num_tokens: The length.
        loss: Share of a prefill's time that cutting it costs; None where it was not measured.
    """

    num_tokens: int
    loss: float | None = None


def fitting_segment(driver: TransformersDriver) -> SegmentChoice:
    """Return the segment for the device that ``driver`` runs on: from a table, or else measured, in a dozen
    prefills of some thousand tokens.
    """
    known = _KNOWN.get(driver.device.type)
    if known is not None:
        return SegmentChoice(_aligned(known, driver.alignment))
    limit = min(_PROMPT_TOKENS, driver.context_length or _PROMPT_TOKENS)
    candidates = sorted({_aligned(each, driver.alignment) for each in _CANDIDATES})
    choice = shortest_within(
        _MOST_LOSS,
        [each for each in candidates if each <= limit] or candidates[:1],
        uncut=limit,
        seconds=lambda segment: seconds_to_prefill(driver, limit, segment_tokens=segment),
    )
    loss = 0.0 if choice.loss is None else choice.loss
    _log.info(
        "%s on %s: prompts are cut every %d tokens, which costs a prefill of %d tokens %.1f %%",
        driver.family,
        driver.device.type,
        choice.num_tokens,
        limit,
        100 * loss,
    )
    return choice


def shortest_within(
    most_loss: float, candidates: Sequence[int], *, uncut: int, seconds: Callable[[int], float]
) -> SegmentChoice:
    """Return the first of ``candidates`` that costs at most ``most_loss`` of an uncut prefill, else the last.

    Args:
        most_loss: A share of the uncut prefill's time.
        candidates: Lengths, ascending.
        uncut: The length that cuts nothing.
        seconds: Measures a prefill cut at a length. Lengths take turns, after one turn that warms up.
    """
    lengths = [uncut, *candidates]
    turns = [[seconds(length) for length in lengths] for _ in range(1 + _NUM_TURNS)][1:]
    losses = [
        statistics.median(turn[index] / turn[0] for turn in turns) - 1 for index in range(1, len(lengths))
    ]
    for length, loss in zip(candidates, losses, strict=True):
        if loss <= most_loss:
            return SegmentChoice(length, loss)
    return SegmentChoice(candidates[-1], losses[-1])


def _aligned(num_tokens: int, alignment: int) -> int:
    return -(-num_tokens // alignment) * alignment
