"""Random requests, aborts, preemptions and resets with a CPU tier behind the pool: nothing is read that is
not there, nothing leaks in pool or tier, nothing hangs. With drafts, ngram's, and without.

Of each, five seeds with ``--full``, one without; in all, ten thousand requests or five hundred, and half as
many again where vLLM can load between two steps too.
"""

import random

import pool_account
import pytest
from offloading_worker import DraftingOffloadingWorker, engine_with_tier
from soaking import traffic
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import TransferJob

from milepost.vllm import TierPolicy
from milepost.vllm.leading import Leader

BLOCK = {None: 64, 64: 256}


def assert_tier_idle(scheduler):
    """No transfer is left, no request is known, and every chunk is either free or can go."""
    offloading = scheduler.connector.connector_scheduler
    manager = offloading.manager
    assert not offloading._jobs
    assert not offloading._req_status
    assert not offloading._block_id_to_pending_jobs
    assert not offloading._chunks_being_loaded
    assert manager._num_write_pending_chunks == 0
    if isinstance(manager._policy, TierPolicy):
        manager._policy.check()
    num_held = manager._num_allocated_chunks - len(manager._free_list)
    assert num_held == manager._num_evictable_cache_chunks, "a chunk leaked"


def soak(engine, *, num_requests, seed, longest):
    rng = random.Random(seed)
    scheduler, requests, recent = engine.scheduler, traffic(seed, longest=longest), []
    for number in range(1, num_requests + 1):
        recent = [*recent[-11:], engine.add(**next(requests))]
        for _ in range(rng.choice([0, 0, 1, 3, 8])):
            engine.step()
        if rng.random() < 0.15:
            engine.abort(rng.choice(recent))
        if rng.random() < 0.01:
            # A reset of what runs is refused by vLLM while anything loads.
            scheduler.reset_prefix_cache(reset_connector=rng.random() < 0.5)
        while len(scheduler.waiting) > 20:
            engine.step()
        if number % 50 == 0:
            pool_account.assert_no_orphans(scheduler)
        if number % 250 == 0 or number == num_requests:
            engine.run(most_idle_steps=30)
            pool_account.assert_idle(scheduler, most_missing=pool_account.blocks_of_a_prompt(scheduler))
            assert_tier_idle(scheduler)
    account = scheduler.checkpoint_manager.statistics()
    assert account.num_tokens == sum(
        getattr(account, name) for name in ("reused", "unseen", "alignment", "placement", "eviction", "reset")
    )
    assert engine._worker.transfers.num_loaded > 0
    assert scheduler.checkpoint_manager.counts.loaded > 0


TIERS = {
    "lru": {"eviction_policy": "lru"},
    "worth": {"eviction_policy": "TierPolicy", "cache_policy_module_path": "milepost.vllm"},
    # Loads that end before the step that they begin in computes: vLLM has them since 0.33.
    "sync-loads": {"sync_load_budget_bytes": 1 << 40},
}


def new_engine(model_folder, *, unit, **options):
    num_blocks = 120 if unit is None else 60
    engine = engine_with_tier(
        model_folder("qwen3-next"),
        scheduler_cls="milepost.vllm.Scheduler",
        num_blocks=num_blocks,
        num_chunks=2 * num_blocks,
        block_size=BLOCK[unit],
        prefix_match_unit=unit,
        seed=1,
        **options,
    )
    return engine, num_blocks * BLOCK[unit] // 3


@pytest.mark.parametrize("with_drafts", [False, True], ids=["", "ngram"])
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_nothing_leaks_hangs_or_is_read_before_it_is_there(
    is_async, unit, tier, with_drafts, model_folder, is_full, monkeypatch
):
    if tier == "sync-loads" and not hasattr(TransferJob, "sync"):
        pytest.skip("this vLLM loads between steps only")
    if tier == "worth":
        lead_by_learning(monkeypatch)
    for seed in range(5 if is_full else 1):
        engine, longest = new_engine(
            model_folder, unit=unit, is_async=is_async, with_drafts=with_drafts, extra_config=TIERS[tier]
        )
        name = "PlannedAsyncScheduler" if is_async else "PlannedScheduler"
        assert type(engine.scheduler).__name__ == name
        soak(engine, num_requests=250 if is_full else 60, seed=7 + seed, longest=longest)
        if with_drafts:
            assert min(engine.worker.num_accepted, engine.worker.num_rejected) > 0


@pytest.mark.parametrize("lost", ["_states", "_windows"])
def test_the_simulated_worker_notices_what_the_tier_loses_of_a_drafters_state(
    lost, model_folder, monkeypatch
):
    put = DraftingOffloadingWorker._put_state

    def put_half(self, block, held):
        put(self, block, held)
        getattr(self, lost)[block] = 0

    monkeypatch.setattr(DraftingOffloadingWorker, "_put_state", put_half)
    engine, longest = new_engine(model_folder, unit=None, with_drafts=True)
    with pytest.raises(AssertionError, match=f"reads a wrong {lost[1:-1]}"):
        soak(engine, num_requests=500, seed=7, longest=longest)


def lead_by_learning(monkeypatch):
    """Have the learned rule lead from the start, for good."""
    made = Leader.__init__

    def led(self, *args, **kwargs):
        made(self, *args, **kwargs)
        self.is_led_by_learning, self._rivals = True, None

    monkeypatch.setattr(Leader, "__init__", led)
