"""Which plan of a prompt is worth most over what goes for it.

A plan is made at a price of memory, and memory comes in pieces: what has to go for it may be worth more than
that price said, and then a smaller plan may be better, or one that has nothing evicted at all.
"""

from collections.abc import Callable
from dataclasses import replace

from milepost.placement import Placement, PlacementRequest
from milepost.placement.worth import WorthyPlan
from milepost.policies.situation import Situation

__all__ = ["best_bid"]

# Plans tried for a prompt, each at the price that the one before it met. A smaller one may be worth more over
# what has to go for it, though a larger one is worth more than that too.
_BIDS = 3
# What a byte is worth that lies idle, over one in use: another prompt will use it, or none does before there
# would have been room for that anyway. It is what is not charged of a victim's bytes that nobody asked for.
_IDLE_WORTH = 0.5


def best_bid(
    situation: Situation, request: PlacementRequest, plan: Callable[..., WorthyPlan], *, price: float
) -> Placement:
    """Return the best plan of a prompt; none where none is worth what would have to go.

    Args:
        situation: Tells what room is worth, and how much of it is idle.
        request: The prompt.
        plan: Plans a request at a ``price_per_byte``.
        price: What a byte is worth elsewhere, to begin with.

    Complexity: that of at most four plans, and of their victims.
    """
    best, most = Placement(), 0.0
    price_now, is_short = price, False
    for _ in range(_BIDS):
        planned = plan(request, price_per_byte=price_now)
        lost = situation.room_worth(planned.num_bytes) if situation.room_worth and planned.num_bytes else 0.0
        if planned.saving - lost > most:
            best, most = planned.placement, planned.saving - lost
        if not lost:
            break
        # That is the price of what would have to go.
        price_now, is_short = max(2.0 * price_now, lost / planned.num_bytes), True
    if not is_short or situation.idle_position is None:
        return best
    last = request.num_tokens if request.affordable_position is None else request.affordable_position
    idle = replace(
        request,
        affordable_position=min(last, situation.idle_position),
        max_checkpoints=min(1, request.max_checkpoints),
    )
    planned = plan(idle, price_per_byte=_IDLE_WORTH * price)
    if planned.saving - _IDLE_WORTH * price * planned.num_bytes > most:
        return planned.placement
    return best
