"""Does a token much later change what comes before it? The part of the probe that looks past its own prompt.

A probe's prompt is short, and a model whose positions hang on the length of the sequence behaves on it like
any other. So sixteen tokens are run twice, the last one close after the others and as far out as the context
goes. What is computed before it must stay as it is, without any rounding: both runs are cut alike. Where it
does not, the driver must know the rule (``positions``): the tokens before it, in two segments that were told
the length, must then agree with the far run, to rounding.
"""

from dataclasses import dataclass

import torch

from milepost.engines.distance import logits_distance
from milepost.engines.transformers.driver import TransformersDriver

__all__ = ["FarPositions", "measure_far_positions"]

_NUM_TOKENS = 16
_CUT = 8
# How far out to look where a model names no end.
_FAR = 1 << 17
# Experts that the last token is sent to may round otherwise by its company.
_LEAST_MOVED = 5e-3


@dataclass(frozen=True, slots=True)
class FarPositions:
    """What was measured.

    Attributes:
        position: Where the last token was placed.
        moved: Distance of the logits before it from those with it close by: 0 for most models.
        resumed: Distance of those logits, in segments that were told the length, from the far run.
        has_rule: Whether the driver knows how positions depend on length.
    """

    position: int
    moved: float
    resumed: float
    has_rule: bool

    def refusal(self, tolerance: float, *, is_repeatable: bool) -> str | None:
        """Return why the model cannot be used, or None. ``tolerance`` is what rounding may explain."""
        moves = self.moved > (_LEAST_MOVED if is_repeatable else tolerance)
        if not moves or (self.has_rule and self.resumed <= tolerance):
            return None
        return (
            f"a token at position {self.position:,} moves the logits before it by {self.moved:.2g}, where 0 "
            "is due: what a position means depends on the length of the sequence, by a rule that "
            f"{'is not met' if self.has_rule else 'is unknown'} in segments, so a state would be wrong for a "
            "longer prompt"
        )


def measure_far_positions(driver: TransformersDriver, tokens: torch.Tensor) -> FarPositions | None:
    """Return how ``driver``'s model looks ahead; None where its forward call is told no positions.

    Four forward calls of at most sixteen tokens.
    """
    if not driver.takes_positions:
        return None
    tokens = tokens[:_NUM_TOKENS]
    position = (driver.context_length or _FAR) - 1
    if position <= _NUM_TOKENS:
        return None
    # Neither run is without a gap: some models take one for two packed prompts, and mask otherwise.
    before = _NUM_TOKENS - 1
    near = driver.logits_after(before, tokens, last_position=_NUM_TOKENS)
    far = driver.logits_after(before, tokens, last_position=position)
    live = driver.start(num_tokens=position + 1)
    driver.advance(live, tokens[:_CUT])
    resumed = driver.advance(live, tokens[_CUT:-1])
    return FarPositions(
        position=position,
        moved=logits_distance(near, far),
        resumed=logits_distance(resumed, far),
        has_rule=driver.frequency_length(position + 1) > 0,
    )
