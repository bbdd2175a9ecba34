"""Where a planned scheduler meets the policies of its tiers: vLLM makes both, in one process, one inside the
other, and hands neither to the other. A policy offers itself when it is made; the scheduler that is being
made then takes what was offered since it began.
"""

from typing import Any

__all__ = ["claim", "offer"]

_offered: list[Any] = []


def offer(policy: Any) -> None:
    """Offer a policy to the scheduler that is being made."""
    _offered.append(policy)


def claim() -> list[Any]:
    """Return the policies that were offered since the last call, in their order."""
    offered = list(_offered)
    _offered.clear()
    return offered
