"""What the learned policy bids for memory is set against all that would have to go, large victims too; and
what lies idle is used where that is too dear.
"""

from statistics import fmean

import pytest

from milepost.placement import Placement, PlacementRequest
from milepost.placement.worth import WorthyPlan
from milepost.policies import Situation
from milepost.policies.bids import best_bid
from milepost.simulator import simulate
from milepost.store import SeenPrompt, eviction_queue
from milepost.traces import open_trace

# About three sessions of many, so that a victim is often a whole one, and a large part of all.
CAPACITY = 30_000


def reused(notation, capacity):
    return simulate(
        open_trace(notation), policy="learned", capacity_kv_tokens=capacity, checkpoint_kv_tokens=1_536.0
    ).reused_fraction


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_charged_with_what_it_needs_of_a_victim_alone_a_bid_drives_out_more_than_it_brings(
    monkeypatch, share
):
    def of_seeds():
        return fmean(reused(f"synthetic:agents,requests=400,seed={seed}", CAPACITY) for seed in range(1, 9))

    charged = of_seeds()
    monkeypatch.setattr(eviction_queue, "_SHARE_LOST_BEYOND", share)
    assert charged > of_seeds() + 0.01


STATE, TOKENS, SAVED_PER_TOKEN = 100, 1000, 1.0


def planned_for(request, *, price_per_byte):
    """One state at the deepest position that there may be, if it is worth the price of it and of its KV."""
    position = min(TOKENS, request.affordable_position)
    num_bytes = STATE + max(0, position - request.resident_kv_tokens) * request.kv_bytes_per_token
    saving = SAVED_PER_TOKEN * position
    if not request.max_checkpoints or not position or saving <= price_per_byte * num_bytes:
        return WorthyPlan(Placement(), 0.0, 0)
    return WorthyPlan(Placement((position,)), saving, num_bytes)


def bid(*, idle_position, lost, price=0.0):
    request = PlacementRequest(
        num_tokens=TOKENS, checkpoint_bytes=STATE, kv_bytes_per_token=1, affordable_position=TOKENS
    )
    idle_bytes = STATE + idle_position if idle_position else 0
    situation = Situation(
        request=request,
        prompt=SeenPrompt(TOKENS),
        room_worth=lambda num_bytes: lost if num_bytes > idle_bytes else 0.0,
        idle_position=idle_position,
    )
    return best_bid(situation, request, planned_for, price=price).positions


@pytest.mark.parametrize(
    ("idle_position", "lost", "price", "positions"),
    [
        (400, 2000.0, 0.0, (400,)),  # the deepest is not worth what goes for it, the idle bytes cost nothing
        (400, 700.0, 0.0, (400,)),  # it is worth 300 more than that, and the shallower one 400
        (400, 500.0, 0.0, (1000,)),
        (400, 2000.0, 0.9, (400,)),  # 500 bytes at half of the price
        (50, 2000.0, 0.9, ()),  # others will want those 150
        (0, 2000.0, 0.0, ()),
        (1000, 2000.0, 0.0, (1000,)),  # nothing has to go for it
    ],
)
def test_what_lies_idle_is_used_where_what_would_have_to_go_is_worth_more(
    idle_position, lost, price, positions
):
    assert bid(idle_position=idle_position, lost=lost, price=price) == positions


def test_of_sessions_that_hardly_fit_more_is_reused_by_what_lies_idle(monkeypatch):
    agents = "synthetic:agents,requests=300,block=16,concurrency=6,seed=1"

    def of_capacities():
        return fmean(reused(agents, capacity) for capacity in range(60_000, 100_001, 10_000))

    used = of_capacities()
    without = Situation.of.__func__

    def nothing_idle(cls, *args, **kwargs):
        situation = without(cls, *args, **kwargs)
        situation.idle_position = 0
        return situation

    monkeypatch.setattr(Situation, "of", classmethod(nothing_idle))
    assert used > of_capacities() + 0.001
