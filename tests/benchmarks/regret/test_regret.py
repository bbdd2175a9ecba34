"""The parts of the regret, on made-up traffic."""

import numpy as np
import pytest
from benchmarks.regret.figure import draw_regret
from benchmarks.regret.foreseen import replay_foreseen
from benchmarks.regret.learned_jointly import replay_learned_jointly
from benchmarks.regret.live_tree import as_tree, places_of
from benchmarks.regret.prompt_tree import PromptTree
from benchmarks.regret.tree_plan import NO_STATE

from benchmarks.regret import regret_of, row
from milepost.prefix_cache import PrefixCache
from milepost.simulator import Replayer, nominal_footprint
from milepost.traces import TraceRequest, open_trace

CAPACITY = 30_000


@pytest.fixture(scope="module")
def requests():
    return list(open_trace("synthetic:documents,requests=40,seed=2,block=64"))


@pytest.fixture(scope="module")
def regret(requests):
    tree = PromptTree.of(requests, grid=64)
    return regret_of("documents", requests, tree, CAPACITY, exact=True)


def test_the_parts_add_up(regret):
    parts = regret.not_knowing + regret.one_prompt_at_a_time + regret.approximation
    assert parts == pytest.approx(regret.total)
    assert row(regret).numbers["bound"] == regret.bound


def test_nobody_is_beyond_the_bound_and_memory_is_short(regret):
    reused = (regret.learned, regret.jointly, regret.clairvoyant, regret.foreseen, regret.schedule)
    assert min(reused) > 0
    assert max(reused) <= regret.bound + 1e-9 < regret.ceiling


def test_who_knows_the_future_and_plans_jointly_is_near_the_best_schedule(regret):
    assert regret.foreseen > 0.8 * regret.schedule
    assert regret.foreseen > regret.learned


def test_the_figure_is_one_small_file(regret, tmp_path):
    path = draw_regret([regret], folder=tmp_path / "images")
    assert [each.name for each in path.parent.iterdir()] == ["regret.png"]
    assert path.stat().st_size < 150_000


def test_with_plenty_of_memory_all_is_reused(requests):
    tree = PromptTree.of(requests, grid=64)
    reused = replay_foreseen(tree, capacity_tokens=1 << 30, state_tokens=1_536)
    assert reused == tree.ceiling_tokens


def test_joint_planning_makes_room_within_the_budget(requests):
    reused = replay_learned_jointly(requests, grid=64, capacity_tokens=CAPACITY, state_tokens=1_536)
    ample = replay_learned_jointly(requests, grid=64, capacity_tokens=1 << 24, state_tokens=1_536)
    assert 0 < reused < ample


def test_the_tree_of_a_cache_takes_the_bytes_that_the_cache_counts(requests):
    """With every state chosen, what the tree adds up to is what the store says that it holds."""
    footprint = nominal_footprint(1_536.0)
    cache = PrefixCache(
        capacity_bytes=CAPACITY * footprint.kv_bytes_per_token,
        footprint=footprint,
        policy="tail+junction",
        grid=64,
        key_tokens=64,
    )
    replayer = Replayer(cache)
    for number, request in enumerate(requests):
        with cache.acquire(request.keys, num_tokens=request.num_tokens) as lease:
            places, along = places_of(cache._store.tree, lease.found.match, [], lease.situation.prompt)
        tree = as_tree(places, footprint)
        needed = np.zeros(len(places), bool)
        for index in range(len(places) - 1, 0, -1):
            needed[index] |= places[index].checkpoint is not None
            needed[tree.parents[index]] |= needed[index]
        states = tree.state_bytes[tree.state_bytes != NO_STATE].sum()
        held = cache.statistics()
        assert states == held.checkpoint_bytes
        assert tree.kv_bytes[needed].sum() == held.kv_bytes
        assert [place.position for place in along] == sorted(place.position for place in along), number
        replayer.step(request)


def test_tenants_and_grids_are_kept_apart():
    def request(tenant):
        return TraceRequest(
            keys=np.arange(8, dtype=np.int64), key_tokens=1, num_tokens=8, request_id="", tenant=tenant
        )

    tree = PromptTree.of([request("a"), request("b"), request("b")], grid=3)
    # The third shares all of the second, and computes its last token: it resumes at 6.
    assert [tree.positions[use] for use in tree.uses] == [0, 0, 6]
