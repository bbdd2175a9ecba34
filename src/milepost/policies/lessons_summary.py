"""What a policy has learned of the traffic, in a handful of numbers for people."""

from dataclasses import dataclass
from typing import Self

from milepost.errors import ConfigurationError
from milepost.policies.base import CachePolicy
from milepost.policies.reuse_model import ReuseModel

__all__ = ["LessonsSummary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonsSummary:
    """See the module.

    Attributes:
        num_requests: Requests that it was learned from.
        num_overlaps: Those that told where prompts part: the others shared nothing, or parted where others
            had before them.
        sharing_rate: The share of recent requests that did.
        from_start_share: The share of recent sharings that ended where others had, counted from the prompt's
            start.
        from_end_share: The same, counted from its end.
        boundary_share: The share of recent sharings of prompts with known message ends that ended at one.
        returns_per_prompt: Requests that come back to a prompt that nobody has followed yet.
        price_per_byte: What a byte was worth that had to be evicted lately, in cost saved by each request; 0
            where none had to be.
        layouts: Tokens of the grid and bytes of a checkpoint of the caches that it was learned in.
    """

    num_requests: int
    num_overlaps: int
    sharing_rate: float
    from_start_share: float
    from_end_share: float
    boundary_share: float
    returns_per_prompt: float
    price_per_byte: float
    layouts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, policy: CachePolicy) -> Self:
        """Return the summary of what ``policy`` has learned.

        Raises:
            ConfigurationError: it learns nothing.
        """
        model = policy.lessons
        if not isinstance(model, ReuseModel):
            raise ConfigurationError("the policy learns nothing that could be told; 'learned' does")
        from_start, from_end = model.overlap.coordinate_shares
        return cls(
            num_requests=model.prompts.num_requests,
            num_overlaps=model.overlap.num_shared,
            sharing_rate=model.overlap.sharing_rate,
            from_start_share=from_start,
            from_end_share=from_end,
            boundary_share=sum(model.boundaries.shares),
            returns_per_prompt=model.expected_returns(0),
            price_per_byte=model.price,
            layouts=model.layouts,
        )
