"""Learned distribution of where the next request will diverge from a prompt.

Law
    :meth:`OverlapModel.observe` is told of every request: how many leading tokens it shared with an earlier
    prompt, and how long that prompt was. :meth:`OverlapModel.predict` answers, for a prompt that is being
    cached now, with a pmf over the depths at which a later request that shares it will diverge from it.
    :attr:`OverlapModel.sharing_rate` is the chance that there is such a request at all.

Theory
    Overlap repeats in more than one coordinate. A shared system prompt ends at one distance from the *start*,
    whatever follows; questions about a document diverge from it at one distance from the *end*, whatever its
    length; a conversation that goes on shares the whole earlier prompt, distance 0 from the end. Each
    :class:`Coordinate` keeps a decayed histogram, and a last component, uniform over the prompt, explains
    what no coordinate does. The mixture is learned online: each sharing is assigned to the components in
    proportion to share times likelihood (one step of expectation-maximisation with forgetting), so that
    traffic of several kinds at once splits cleanly, each kind in the coordinate in which it repeats::

        likelihood[k] = (histogram[k][bin] + 1 / num_bins) / (mass[k] + 1)
        responsibility[k] = share[k] * likelihood[k] / sum over components of the same
        histogram[k][bin] += responsibility[k]

    The ``1 / num_bins`` is the prior: a coordinate that has seen little predicts uniformly.

    A *branch point* is the depth at which a prompt has diverged from an earlier one; another may do so there
    too. One more component says that a depth is one of those remembered lately, token for token. What it
    explains and the coordinates do not, per divergence, is the chance that a prompt's own branch point sees
    another.

A bin is represented by its shallow end, since a checkpoint a little too shallow costs a few tokens and one a
little too deep costs the whole hit. Memory is bounded: of more than ``max_support`` bins the lightest is
merged into its shallower neighbour. Time per event is O(max_support). There is no randomness and no clock.

This package does not know what a checkpoint is, costs or where one may sit.
"""

from milepost.overlap.boundaries import BoundaryModel
from milepost.overlap.coordinates import Coordinate, FromEnd, FromStart
from milepost.overlap.histogram import DecayedHistogram
from milepost.overlap.mixture import OverlapDistribution, with_points
from milepost.overlap.model import OverlapModel

__all__ = [
    "BoundaryModel",
    "Coordinate",
    "DecayedHistogram",
    "FromEnd",
    "FromStart",
    "OverlapDistribution",
    "OverlapModel",
    "with_points",
]
