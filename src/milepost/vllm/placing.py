"""Where the policy places the checkpoints of a prompt, told what stops cost and which states cost none."""

from collections.abc import Sequence

from milepost.hosted_cache import HostedCache
from milepost.lease import Lease

__all__ = ["placed_positions"]


def placed_positions(
    cache: HostedCache, lease: Lease, *, given: Sequence[int], free: Sequence[int], stop_tokens: int
) -> tuple[int, ...]:
    """Return the positions that a policy chooses, ascending. One plan, two where there are free ones that the
    first does not keep.

    Args:
        cache: Whose policy.
        lease: The prompt.
        given: Where there is room for what stock vLLM keeps: those positions, which are then kept.
        free: Where no prefill has to stop for a state, so that it has to be worth its memory alone.
        stop_tokens: What a stop costs at other positions, in tokens computed.
    """
    positions = set(cache.plan(lease, given_positions=given, capture_tokens=stop_tokens).positions)
    if not positions.issuperset(free):
        positions.update(set(free).intersection(cache.plan(lease, capture_tokens=0).positions))
    return tuple(sorted(positions))
