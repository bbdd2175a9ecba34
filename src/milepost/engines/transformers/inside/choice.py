"""Whether states of a model are taken from inside a call, or a call ends at each: measured when it is opened.

The same prompt is run in calls that end where states are wanted, and in one call. What is compared:

* *Every part of every state* (and its plain values, such as counters): one tensor alone that is further off
  than rounding carries in this model decides against it.
* *What is resumed from such a state*: the rest of the prompt, against the call that was not interrupted.
* *The first token's state*, by itself: what a layer holds before it has seen as many tokens as it looks back
  is up to the model, and nowhere in the sequence (qwen4_exp fills its window of token ids with the end of
  text). Where it is another one, a call ends at each of the first positions.
* *The control*: states some tokens apart must differ by more than is tolerated, part by part, or the
  comparison could not have failed; then the calls end where states are wanted.

This is for numerics that promise no more than rounding. A call of another length gives other bits (measured
on a CPU, for float32 and bfloat16: ``python -m benchmarks.capture``), so strict prefill never does it.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from milepost.engines.cuts import Capture
from milepost.engines.distance import logits_distance
from milepost.engines.transformers.driver import LiveCache, TransformersDriver
from milepost.engines.transformers.inside.comparison import state_distances
from milepost.engines.transformers.ordinary_tokens import ordinary_tokens
from milepost.engines.transformers.rounding import disturbed
from milepost.engines.transformers.snapshot import StateSnapshot
from milepost.errors import UnsupportedModelError

__all__ = ["choose_capture"]

_log = logging.getLogger(__name__)

# What rounding may explain, over what one disturbance of every linear layer was seen to make.
_MARGIN = 4.0
# Rounding that may pass unmeasured, such as tensor cores at work in a float32 model.
_LEAST_TOLERANCE = 1e-5
# A state some tokens off must be this many times as far as the most that is tolerated.
_CONTROL_MARGIN = 2.0
# Where states are taken: after the first token; after the alignment, at an odd place behind it, next to that,
# and before the last token.
_FIRST, _ODD, _TAIL = 1, 21, 3


def choose_capture(driver: TransformersDriver, *, seed: int = 0) -> Capture:
    """Return how states of this model are taken, where a warm run equals a cold one to rounding.

    Complexity: four prefills of twice the driver's alignment and some tokens.
    """
    step = driver.alignment
    positions = (_FIRST, step, step + _ODD, step + _ODD + 1, 2 * step + _TAIL - 1)
    tokens = ordinary_tokens(driver, 2 * step + _TAIL, seed)
    live = driver.start(num_tokens=tokens.numel())
    try:
        logits, inside = driver.advance_through(live, tokens, positions)
    except UnsupportedModelError as error:
        return _said(driver, Capture(is_inside=False, reason=str(error)))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Kernels of others, which may bear no such pieces; calls that end at states were probed.
        reason = f"its recurrence fails in pieces: {type(error).__name__}: {error}"
        return _said(driver, Capture(is_inside=False, reason=reason))
    cut, _ = _in_calls(driver, tokens, positions)
    with disturbed(driver.model, seed):
        rounded, rounded_logits = _in_calls(driver, tokens, positions)
    tolerances = _tolerances(rounded[1:], cut[1:])
    objection = _objection_to_states(inside[1:], cut[1:], tolerances) or _not_tested(inside[1:], tolerances)
    if objection:
        return _said(driver, Capture(is_inside=False, reason=objection))
    tolerance = _tolerance(logits_distance(rounded_logits, logits))
    resumed = logits_distance(_resumed(driver, live, inside[2], tokens), logits)
    reason = f"logits are {resumed:.2g} away from uninterrupted ones, rounding explains {tolerance:.2g}"
    if not resumed <= tolerance:
        return _said(driver, Capture(is_inside=False, reason=reason))
    if early := _objection_to_states(inside[:1], cut[:1], _tolerances(rounded, cut)):
        reason = f"{reason}; after {_FIRST} token {early}"
    return _said(driver, Capture(is_inside=True, reason=reason, inside_from=step if early else 0))


def _said(driver: TransformersDriver, capture: Capture) -> Capture:
    _log.info("%s: states are taken %s", driver.family, capture)
    return capture


def _objection_to_states(
    inside: Sequence[StateSnapshot], cut: Sequence[StateSnapshot], tolerances: Mapping[str, float]
) -> str | None:
    """Return what speaks against states from ``inside`` a call, or None.

    Args:
        inside: Of some positions.
        cut: Where calls ended at each.
        tolerances: What rounding may explain of each part.
    """
    for part, distance in _furthest(inside, cut).items():
        if not distance <= tolerances.get(part, 0.0):
            return (
                f"{part} is {distance:.2g} away from that of a call that ends there, where rounding explains "
                f"{tolerances.get(part, 0.0):.2g}"
            )
    return None


def _not_tested(inside: Sequence[StateSnapshot], tolerances: Mapping[str, float]) -> str | None:
    """Return which part of a state does not move by more than rounding from the first position to the second,
    or None.
    """
    for part, distance in state_distances(inside[1], inside[0]).items():
        if distance < _CONTROL_MARGIN * tolerances.get(part, 0.0):
            return (
                f"not tested: {_ODD} tokens move {part} by {distance:.2g}, and rounding may explain "
                f"{tolerances[part]:.2g}"
            )
    return None


def _tolerances(rounded: Sequence[StateSnapshot], cut: Sequence[StateSnapshot]) -> dict[str, float]:
    """Return for each part what rounding may explain: states of a model that was disturbed in its last bits,
    and of the same calls of one that was not.
    """
    return {part: _tolerance(rounding) for part, rounding in _furthest(rounded, cut).items()}


def _tolerance(rounding: float) -> float:
    return max(_MARGIN * rounding, _LEAST_TOLERANCE)


def _in_calls(
    driver: TransformersDriver, tokens: torch.Tensor, positions: Sequence[int]
) -> tuple[list[StateSnapshot], torch.Tensor]:
    """Run ``tokens`` in calls that end at ``positions``; return the states there, and the last logits."""
    live, states = driver.start(num_tokens=tokens.numel()), []
    for start, end in pairwise((0, *positions)):
        driver.advance(live, tokens[start:end])
        states.append(driver.capture(live))
    return states, driver.advance(live, tokens[positions[-1] :])


def _resumed(
    driver: TransformersDriver, live: LiveCache, state: StateSnapshot, tokens: torch.Tensor
) -> torch.Tensor:
    """Return the last logits of ``tokens``, resumed from ``state`` and the KV of a run through all."""
    kv, position = driver.kv(live, 0, state.position), state.position
    resumed = driver.restore(state, [kv], position=position, num_tokens=tokens.numel())
    return driver.advance(resumed, tokens[position:])


def _furthest(states: Sequence[StateSnapshot], references: Sequence[StateSnapshot]) -> dict[str, float]:
    """Return for each part of a state how far that of any is from its reference at most."""
    found: dict[str, float] = {}
    for one, reference in zip(states, references, strict=True):
        for part, distance in state_distances(one, reference).items():
            found[part] = max(found.get(part, 0.0), distance)
    return found
