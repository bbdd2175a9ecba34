"""One component of the mixture: a coordinate, and what it has explained so far."""

from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

from milepost.overlap.coordinates import Coordinate
from milepost.overlap.histogram import DecayedHistogram
from milepost.overlap.mixture import weight_inside

__all__ = ["Component"]

IntArray: TypeAlias = npt.NDArray[np.int64]

# Before any evidence, prompts are thought to diverge near their end (a question, a last message): the
# distance from the end starts with this many sharings more.
_END_PRIOR = 1.5


@final
class Component:
    """One coordinate with its histogram, and how many sharings it has explained (decayed)."""

    __slots__ = ("coordinate", "explained", "histogram")

    def __init__(self, coordinate: Coordinate, *, decay: float, max_support: int) -> None:
        self.coordinate = coordinate
        self.histogram = DecayedHistogram(
            decay=decay, max_support=max_support, merge_down=coordinate.deeper_measure_is_larger
        )
        self.explained = self.prior

    @property
    def prior(self) -> float:
        """Sharings that it counts as having explained before the first one."""
        return 0.0 if self.coordinate.deeper_measure_is_larger else _END_PRIOR

    def depths(self, num_tokens: int) -> IntArray:
        """Return the depth of each bin in a prompt of this length, also of those that lie outside it."""
        return self.coordinate.depths(self.histogram.values, num_tokens)

    def likelihood(self, overlap_depth: int, num_tokens: int, num_bins: int) -> float:
        """Return the chance of this depth's bin before it was seen. O(support)."""
        weights = self.histogram.weights
        inside = weight_inside(self.depths(num_tokens), weights, 0, weights.size, num_tokens)
        measure = self.coordinate.measure(overlap_depth, num_tokens)
        prior = 1.0 / num_bins
        if not self.coordinate.deeper_measure_is_larger:
            # Equally likely in every octave of the distance.
            prior = min(1.0, num_tokens / (num_bins * max(1, measure))) / (num_bins.bit_length() + 1)
        return (self.histogram.weight_of(measure) + prior) / (inside + 1.0)
