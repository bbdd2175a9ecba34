"""Checkpoints inside blocks, in a roomy pool: what is promised there is found there, keys and states, also
when the block fills up, and when another fills up with the same.
"""

import random

import pool_account
import pytest
from bare_scheduler import BareEngine
from soaking import serve_chats

from milepost.vllm.attention_manager import PlannedAttentionManager
from milepost.vllm.stops import StopPlanner

UNIT = 16


def new_engine(model_folder, *, leads, block_size=64, **options):
    engine = BareEngine(
        model_folder("qwen3-next"),
        scheduler_cls="milepost.vllm.Scheduler",
        num_blocks=4000,
        block_size=block_size,
        prefix_match_unit=UNIT,
        **options,
    )
    leader = engine.scheduler.checkpoint_manager._cache.leader
    leader.is_led_by_learning, leader._rivals = leads, None
    return engine


def num_lost(engine) -> int:
    """Return how many checkpoints were planned and not kept, or are believed in and are not there."""
    counts = engine.scheduler.checkpoint_manager.counts
    assert counts.planned > 0
    return counts.planned - counts.kept + counts.stale + pool_account.num_missing(engine.scheduler)


@pytest.fixture
def plan_at_random(monkeypatch):
    """Have any policy be in place: prompts stop at random places, most of them inside one block and at its
    end.
    """
    chance = random.Random(7)

    def plan(self, lease, num_tokens, *, hit, shared):
        self.note_room(num_tokens - hit, running=self._layout.running_blocks)
        places = range(hit + UNIT, num_tokens - self._layout.rest_tokens + 1, UNIT)
        if chance.random() < 0.7 and places.stop > 64:
            end = chance.randrange(64, places.stop, 64)
            places = range(max(places.start, end - 64 + UNIT), end + 1, UNIT)
        placed = chance.sample(places, min(len(places), chance.randrange(1, 4)))
        return tuple(sorted({*placed, *places[-1:]})), ()

    monkeypatch.setattr(StopPlanner, "plan", plan)


def ask_side_by_side(engine, *, seed):
    """Serve prompts that share their beginnings, three at a time, so that blocks are filled twice."""
    rng = random.Random(seed)
    for _ in range(12):
        shared = [rng.randrange(512) for _ in range(rng.randrange(100, 300))]
        for _ in range(3):
            engine.add([*shared, *(rng.randrange(512) for _ in range(rng.randrange(1, 90)))], max_tokens=5)
            for _ in range(rng.choice([0, 0, 1])):
                engine.step()
        engine.run()
        # Asked again, they are found as deep as they were kept.
        pool_account.assert_idle(engine.scheduler)


@pytest.mark.parametrize("leads", [False, True], ids=["stock", "learned"])
@pytest.mark.parametrize("bitmask", ["always", "late", "never"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.usefixtures("plan_at_random")
def test_every_checkpoint_is_there_whatever_was_planned(is_async, bitmask, leads, model_folder):
    engine = new_engine(model_folder, leads=leads, is_async=is_async, bitmask=bitmask, seed=1)
    ask_side_by_side(engine, seed=2)
    assert num_lost(engine) == 0
    twice = pool_account.num_twice(engine.scheduler)
    assert twice == 0 if leads else twice > 0, "or no block was filled twice, and the test shows nothing"


@pytest.mark.usefixtures("plan_at_random")
def test_a_key_that_goes_with_the_second_copy_of_a_block_is_noticed(model_folder, monkeypatch):
    drop = PlannedAttentionManager._drop_if_twice

    def drop_all(self, request, index, block):
        with monkeypatch.context() as patch:
            patch.setattr(PlannedAttentionManager, "_positions_inside", lambda *_: [])
            drop(self, request, index, block)

    monkeypatch.setattr(PlannedAttentionManager, "_drop_if_twice", drop_all)
    engine = new_engine(model_folder, leads=True, bitmask="always", seed=1)
    ask_side_by_side(engine, seed=2)
    assert num_lost(engine) > 0


@pytest.mark.parametrize("is_forgetful", [False, True])
def test_chats_find_the_tails_of_their_prompts_after_the_answer(is_forgetful, model_folder, monkeypatch):
    if is_forgetful:
        # As vLLM does with a block that fills up.
        monkeypatch.setattr(PlannedAttentionManager, "_positions_inside", lambda *_: [])
    lost = 0
    for seed in range(2):
        engine = new_engine(model_folder, leads=False, seed=seed)
        serve_chats(engine, seed=seed)
        lost += num_lost(engine)
    assert (lost > 0) == is_forgetful
