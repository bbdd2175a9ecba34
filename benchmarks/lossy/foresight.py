"""What states of either size would reuse for one who knows all requests to come: the part of a difference
that no policy can make up for.
"""

from collections.abc import Iterable

from benchmarks.printing import Row
from milepost import Footprint
from milepost.simulator import Setting
from milepost.simulator.simulation import simulate_all
from milepost.traces import TraceRequest

__all__ = ["foresight_row"]

_POLICY = "clairvoyant"


def foresight_row(
    name: str,
    requests: Iterable[TraceRequest],
    *,
    capacity_kv_tokens: int,
    exact: Footprint,
    lossy: Footprint,
    grid: int | None = None,
) -> Row:
    """Return a row that says what exact states reuse over what ``lossy`` ones do in the same budget, both
    with perfect foresight.
    """
    settings = [
        Setting(policy=_POLICY, capacity_kv_tokens=capacity_kv_tokens, footprint=footprint)
        for footprint in (exact, lossy)
    ]
    ours, its = simulate_all(requests, settings, grid=grid)
    ratio = ours.reused_tokens / max(1, its.reused_tokens)
    return Row(
        name=f"{name}, the future known",
        measured=f"{ratio:.3f} ({ours.reused_fraction:.3f} / {its.reused_fraction:.3f})",
        target="reported",
        reached=True,
        numbers={
            "ratio": ratio,
            "exact_reused_share": ours.reused_fraction,
            "reused_share": its.reused_fraction,
        },
    )
