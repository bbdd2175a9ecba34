"""From a few timed prefills to F(p) in seconds on this machine.

The model is ``seconds(p) = a + b * linear(p) + c * attention(p)``, the two parts of a FLOPs cost scaled by
what this machine makes of each, plus what any pass costs. Coefficients are nonnegative, so F stays monotone
where timings are noisy. Residuals are relative: a short prefill is to be predicted as well as a long one.

With three coefficients the nonnegative least-squares problem is solved exactly by trying all seven sets of
active columns. This module knows no clock: ``measure`` is given.
"""

import dataclasses
from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
import numpy.typing as npt

from milepost.counts import as_count
from milepost.errors import ConfigurationError
from milepost.footprint.cost import PrefillCost, WindowedAttention

__all__ = ["DEFAULT_LENGTHS", "calibrate", "fit_seconds"]

DEFAULT_LENGTHS = (64, 128, 256, 512, 1024, 2048)


def calibrate(
    cost: PrefillCost,
    measure: Callable[[int], float],
    *,
    lengths: Iterable[int] = DEFAULT_LENGTHS,
    repeats: int = 3,
) -> PrefillCost:
    """Return ``cost`` in seconds, fitted to ``measure(num_tokens)``.

    Args:
        cost: The model's cost in FLOPs (or tokens, for a straight line).
        measure: Runs one cold prefill of a number of tokens and returns its seconds.
        lengths: Lengths to measure; the longest should reach the prompts that will be served.
        repeats: Runs per length. The fastest counts, since interference only ever adds.

    Raises:
        ConfigurationError: as ``fit_seconds``, or fewer than one repeat.

    """
    repeats = as_count("repeats", repeats, least=1)
    wanted = sorted({as_count("length", length) for length in lengths})
    if wanted:
        # The first pass pays for allocation and kernel selection.
        measure(wanted[0])
    return fit_seconds(cost, [(length, min(measure(length) for _ in range(repeats))) for length in wanted])


def fit_seconds(cost: PrefillCost, measurements: Iterable[tuple[int, float]]) -> PrefillCost:
    """Return ``cost`` in seconds, fitted to ``(num_tokens, seconds)`` pairs.

    Raises:
        ConfigurationError: fewer than three different lengths, a time that is not above zero, or times that
            do not grow with the length.

    Complexity: O(measurements).

    """
    pairs = [(as_count("length", length), seconds) for length, seconds in measurements]
    if len({length for length, _ in pairs if length > 0}) < 3:
        raise ConfigurationError(
            f"{len(pairs)} measurements of lengths {sorted({length for length, _ in pairs})}; three terms "
            "need at least three different lengths above 0: measure more lengths"
        )
    for length, seconds in pairs:
        if not 0 < seconds < float("inf"):
            raise ConfigurationError(
                f"{seconds} seconds for {length} tokens; a prefill takes more than 0 seconds: check the clock"
            )
    seconds_measured = np.array([seconds for _, seconds in pairs])
    columns = np.array([[1.0, cost.linear(length), cost.attention(length)] for length, _ in pairs])
    fixed, per_linear, per_attention = _nonnegative_least_squares(
        columns / seconds_measured[:, None], np.ones(len(pairs))
    )
    scaled = PrefillCost(
        unit="seconds",
        linear_per_token=per_linear * cost.linear_per_token,
        recurrent_per_token=per_linear * cost.recurrent_per_token,
        attention_per_pair=per_attention * cost.attention_per_pair,
        windows=tuple(
            WindowedAttention(window.window_tokens, per_attention * window.per_pair)
            for window in cost.windows
        ),
    )
    if scaled(max(length for length, _ in pairs)) <= 0:
        raise ConfigurationError(
            f"times {[seconds for _, seconds in pairs]} do not grow with lengths "
            f"{[length for length, _ in pairs]}: the fixed cost of a pass hides the work; "
            "measure longer prompts"
        )
    return dataclasses.replace(scaled, fixed_per_pass=fixed)


def _nonnegative_least_squares(
    columns: npt.NDArray[np.float64], target: npt.NDArray[np.float64]
) -> tuple[float, ...]:
    """Return the ``x >= 0`` that minimizes ``|columns @ x - target|``, exactly. O(2**columns) solves."""
    num_columns = columns.shape[1]
    # FLOPs and the constant differ by twelve orders of magnitude: solve on columns of length one.
    scale = np.linalg.norm(columns, axis=0)
    usable = [index for index in range(num_columns) if scale[index] > 0]
    best, best_error = np.zeros(num_columns), float(np.linalg.norm(target))
    for size in range(1, len(usable) + 1):
        for active in combinations(usable, size):
            chosen = list(active)
            solution = np.linalg.lstsq(columns[:, chosen] / scale[chosen], target, rcond=None)[0]
            if (solution < 0).any():
                continue
            candidate = np.zeros(num_columns)
            candidate[chosen] = solution / scale[chosen]
            error = float(np.linalg.norm(columns @ candidate - target))
            if error < best_error:
                best, best_error = candidate, error
    return tuple(float(value) for value in best)
