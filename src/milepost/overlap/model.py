"""The mixture over coordinates: see :mod:`milepost.overlap` for its law and theory."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

from milepost.errors import ConfigurationError
from milepost.overlap.component import Component
from milepost.overlap.coordinates import Coordinate, FromEnd, FromStart
from milepost.overlap.decay import merged_weight
from milepost.overlap.mixture import OverlapDistribution, mix, with_points

__all__ = ["OverlapDistribution", "OverlapModel"]

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float64]

# What each component's share of the mixture starts from, in sharings.
_SHARE_PRIOR = 0.5
# Branch points start as if another request had diverged at one in four.
_BRANCH_PRIOR_RETURNS, _BRANCH_PRIOR_DIVERGENCES = 1.0, 4.0
_REMEMBERED_BRANCH_POINTS = 64
_EXPORTED_SUMS = ("_branch_points_explained", "_uniform_explained", "_requests", "_shared", "_divergences")


@final
class OverlapModel:
    """Learns from each request where the next one will diverge. See :mod:`milepost.overlap`.

    Args:
        bin_tokens: Width of a histogram bin.
        decay: What one sharing leaves of the weight of all before it; 0.99 remembers about 100.
        max_support: Most bins a coordinate keeps.
        least_overlap_tokens: Shorter overlaps count as not sharing: every chat begins with the same few
            template tokens. Also how much of a prompt has to be left unshared to call it a divergence.
        coordinates: The coordinates of the mixture; distance from the start and from the end if None.

    >>> model = OverlapModel()
    >>> for length in (4000, 5000, 6000, 7000):  # questions of 96 tokens after documents of any length
    ...     model.observe(length - 96, length)
    >>> prediction = model.predict(9000)
    >>> int(prediction.depths[prediction.weights.argmax()])
    8896
    """

    __slots__ = (
        "_bin_depths",
        "_bin_tokens",
        "_bin_weights",
        "_branch_points_explained",
        "_components",
        "_decay",
        "_divergences",
        "_from_end",
        "_least_overlap_tokens",
        "_num_shared",
        "_recent_branch_points",
        "_requests",
        "_shared",
        "_shares",
        "_splits",
        "_uniform_explained",
    )

    def __init__(
        self,
        *,
        bin_tokens: int = 16,
        decay: float = 0.99,
        max_support: int = 64,
        least_overlap_tokens: int = 64,
        coordinates: Sequence[Coordinate] | None = None,
    ) -> None:
        if bin_tokens < 1:
            raise ConfigurationError(f"bin_tokens={bin_tokens}; a bin is at least 1 token wide")
        if least_overlap_tokens < 1:
            raise ConfigurationError(f"least_overlap_tokens={least_overlap_tokens}; give at least 1 token")
        if coordinates is None:
            coordinates = (FromStart(bin_tokens=bin_tokens), FromEnd(bin_tokens=bin_tokens))
        self._bin_tokens = bin_tokens
        self._least_overlap_tokens = least_overlap_tokens
        self._decay = decay
        self._components = tuple(Component(c, decay=decay, max_support=max_support) for c in coordinates)
        self._from_end = np.array([not c.deeper_measure_is_larger for c in coordinates])
        # What a prediction is mixed from, written anew for each.
        self._bin_depths = np.empty(len(coordinates) * (max_support + 1), np.int64)
        self._bin_weights = np.empty(self._bin_depths.size)
        self._splits = np.zeros(len(coordinates) + 1, np.int64)
        self._shares = np.empty(len(coordinates))
        self._branch_points_explained = self._uniform_explained = 0.0
        self._requests = self._shared = self._divergences = 0.0
        self._num_shared = 0
        self._recent_branch_points: dict[int, None] = {}

    @property
    def num_shared(self) -> int:
        """How many requests have shared anything so far: the evidence that predictions rest on."""
        return self._num_shared

    @property
    def sharing_rate(self) -> float:
        """Share of recent requests that shared anything; one half before any request."""
        return (self._shared + 0.5) / (self._requests + 1.0)

    @property
    def coordinate_shares(self) -> tuple[float, ...]:
        """Share of recent sharings that each coordinate explains, in their order; at most 1 together."""
        total = self._explained()
        return tuple((component.explained + _SHARE_PRIOR) / total for component in self._components)

    @property
    def branch_point_rate(self) -> float:
        """Chance that the next request diverges from a prompt at that prompt's own branch point."""
        returns = self._branch_points_explained + _BRANCH_PRIOR_RETURNS
        return returns / (self._divergences + _BRANCH_PRIOR_DIVERGENCES)

    def is_divergence(self, overlap_depth: int, num_tokens: int) -> bool:
        """Say whether a request that shares ``overlap_depth`` tokens of a prompt diverges from it, rather
        than going on.
        """
        return self._least_overlap_tokens <= overlap_depth <= num_tokens - self._least_overlap_tokens

    def observe(self, overlap_depth: int, num_tokens: int) -> None:
        """Learn from one request.

        Args:
            overlap_depth: Leading tokens that it shares with an earlier prompt; 0 where it shares nothing.
            num_tokens: Length of that earlier prompt. Where it is unknown, the request's own length stands
                in, which is as good where prompts are of one kind, but hides that a conversation went on.

        Raises:
            ConfigurationError: the overlap is negative or longer than the prompt.

        Complexity: O(max_support).
        """
        if not 0 <= overlap_depth <= num_tokens:
            raise ConfigurationError(
                f"overlap_depth={overlap_depth} is outside 0..{num_tokens}, the length of the shared prompt"
            )
        shared = overlap_depth >= self._least_overlap_tokens
        self._requests = self._requests * self._decay + 1.0
        self._shared = self._shared * self._decay + shared
        if shared:
            self._num_shared += 1
            self._assign(overlap_depth, num_tokens)

    def predict(self, num_tokens: int, *, branch_depth: int | None = None) -> OverlapDistribution:
        """Return where a later request will diverge from a prompt of ``num_tokens`` tokens.

        Args:
            num_tokens: Length of the prompt.
            branch_depth: Where this prompt has diverged from an earlier one, if it has.

        Depths end one token before the prompt's end: who shares all of it still computes the last token.
        Reads only. Complexity: O(S log S) for S = max_support.
        """
        branch_point_rate = 0.0 if branch_depth is None else self.branch_point_rate
        # What branch points explain is said by the prompt's own branch point, or by nothing.
        scale = 1.0 / (self._explained() - self._branch_points_explained - _SHARE_PRIOR)
        start = 0
        for k, component in enumerate(self._components):
            in_prompt = component.depths(num_tokens)
            end = start + in_prompt.size
            self._bin_depths[start:end] = in_prompt
            self._bin_weights[start:end] = component.histogram.weights
            self._splits[k + 1] = start = end
            self._shares[k] = scale * (component.explained + _SHARE_PRIOR)
        depths, weights = mix(
            self._bin_depths,
            self._bin_weights,
            self._splits,
            self._shares,
            self._from_end,
            scale * (self._uniform_explained + _SHARE_PRIOR),
            num_tokens,
            (-(-num_tokens // self._bin_tokens)).bit_length() + 1,
        )
        if branch_depth is not None and 0 < branch_depth < num_tokens:
            branch_point = (branch_depth, branch_point_rate)
            depths, weights = with_points(depths, weights * (1.0 - branch_point_rate), [branch_point])
        depths.flags.writeable = weights.flags.writeable = False
        return OverlapDistribution(depths, weights)

    def export(self) -> dict[str, Any]:
        """Return what was learned, as plain numbers. Branch points of late are not part of it: they belong to
        prompts that the next process has not seen.
        """
        return {
            "components": [[each.explained, each.histogram.export()] for each in self._components],
            "sums": [getattr(self, name) for name in _EXPORTED_SUMS],
            "num_shared": self._num_shared,
        }

    def restore(self, exported: dict[str, Any]) -> None:
        """Take over what :meth:`export` gave; raise ``ValueError`` where that cannot be."""
        for component, (explained, histogram) in zip(self._components, exported["components"], strict=True):
            component.explained = float(explained)
            component.histogram.restore(histogram)
        for name, value in zip(_EXPORTED_SUMS, exported["sums"], strict=True):
            setattr(self, name, float(value))
        self._num_shared = int(exported["num_shared"])

    def merge(self, exports: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return one export of several: every count added up, times what one model would remember of so many
        sharings. So each counts for what it remembers, whoever has seen more.
        """
        faded = [self._decay ** each["num_shared"] for each in exports]
        weights = [(1.0 - each) / (1.0 - self._decay) for each in faded]
        merged = merged_weight(weights, decay=self._decay)
        scale = merged / sum(weights) if merged else 1.0
        components = []
        for k, component in enumerate(self._components):
            parts = [each["components"][k] for each in exports]
            # What a component starts from fades as well, and counts once.
            explained = sum(part[0] - component.prior * each for part, each in zip(parts, faded, strict=True))
            histogram = component.histogram.merge([part[1] for part in parts], scale=scale)
            components.append([max(0.0, explained) * scale + component.prior * math.prod(faded), histogram])
        sums = dict(
            zip(_EXPORTED_SUMS, map(sum, zip(*(each["sums"] for each in exports), strict=True)), strict=True)
        )
        # These two fade with each request, the rest with each sharing.
        requests = [float(each["sums"][_EXPORTED_SUMS.index("_requests")]) for each in exports]
        merged_requests = merged_weight(requests, decay=self._decay)
        request_scale = merged_requests / sum(requests) if merged_requests else 1.0
        scales = dict.fromkeys(_EXPORTED_SUMS, scale) | dict.fromkeys(("_requests", "_shared"), request_scale)
        return {
            "components": components,
            "sums": [value * scales[name] for name, value in sums.items()],
            "num_shared": sum(each["num_shared"] for each in exports),
        }

    def _explained(self) -> float:
        """Sharings explained by all components, their priors included."""
        explained = sum(component.explained for component in self._components)
        explained += self._branch_points_explained + self._uniform_explained
        return explained + _SHARE_PRIOR * (len(self._components) + 2)

    def _assign(self, overlap_depth: int, num_tokens: int) -> None:
        num_bins = -(-num_tokens // self._bin_tokens)
        evidence = [
            (component.explained + _SHARE_PRIOR) * component.likelihood(overlap_depth, num_tokens, num_bins)
            for component in self._components
        ]
        uniform_evidence = (self._uniform_explained + _SHARE_PRIOR) / num_bins
        branch_evidence = 0.0
        diverges = self.is_divergence(overlap_depth, num_tokens)
        if diverges and overlap_depth in self._recent_branch_points:
            # One token of all that are remembered, as the chance of a bin. Half at most: where a single bin
            # says it as well, it is the coordinate's.
            chance = min(0.5, self._bin_tokens / len(self._recent_branch_points))
            branch_evidence = (self._branch_points_explained + _SHARE_PRIOR) * chance
        total = sum(evidence) + uniform_evidence + branch_evidence
        for component, each in zip(self._components, evidence, strict=True):
            component.explained = component.explained * self._decay + each / total
            component.histogram.fade()
            component.histogram.add(component.coordinate.measure(overlap_depth, num_tokens), each / total)
        self._uniform_explained = self._uniform_explained * self._decay + uniform_evidence / total
        self._branch_points_explained = self._branch_points_explained * self._decay + branch_evidence / total
        self._divergences *= self._decay
        if diverges:
            self._divergences += 1.0
            self._remember_branch_point(overlap_depth)

    def _remember_branch_point(self, overlap_depth: int) -> None:
        self._recent_branch_points.pop(overlap_depth, None)
        self._recent_branch_points[overlap_depth] = None
        if len(self._recent_branch_points) > _REMEMBERED_BRANCH_POINTS:
            del self._recent_branch_points[next(iter(self._recent_branch_points))]
