"""What the learned policy bids for memory is set against all that would have to go, large victims too."""

from statistics import fmean

import pytest

from milepost.simulator import simulate
from milepost.store import eviction_queue
from milepost.traces import open_trace

# About nine documents of many, so that a victim is often a whole one.
CAPACITY = 80_000


def reused(seed):
    trace = open_trace(f"synthetic:documents,requests=400,seed={seed}")
    return simulate(
        trace, policy="learned", capacity_kv_tokens=CAPACITY, checkpoint_kv_tokens=1_536.0
    ).reused_fraction


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_charged_with_what_it_needs_of_a_victim_alone_a_bid_drives_out_more_than_it_brings(
    monkeypatch, share
):
    seeds = range(1, 11)
    charged = fmean(map(reused, seeds))
    monkeypatch.setattr(eviction_queue, "_SHARE_LOST_BEYOND", share)
    assert charged > fmean(map(reused, seeds)) + 0.001
