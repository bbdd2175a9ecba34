"""Speculative decoding at the level of the scheduler, with a simulated worker that accepts drafts at random.

Soaks of ten thousand requests in all, of a thousand without ``--full``. Where vLLM drops the last block of a
hit for the sake of a drafter (before 0.33), it is told not to.
"""

import random

import drafting
import pool_account
import pytest
from benchmarks.vllm.servers.promises import PromiseWatch
from drafting import DraftingEngine, DraftingWorker
from soaking import serve_chats, soak
from vllm.config import VllmConfig

from milepost.errors import InvalidRequestError
from milepost.vllm import checkpoint_manager, scheduler
from milepost.vllm.state_manager import PlannedStateManager

PLANNED = "milepost.vllm.Scheduler"
BLOCK = {None: 64, 64: 256}
LOOKS_AHEAD = hasattr(VllmConfig, "num_hash_lookahead_tokens")
NO_DROP = {"disable_eagle_block_drop": True}
# Hashes that look ahead, where there are some; and those that do not.
KINDS = {
    "ngram": {"method": "ngram"},
    "mtp": {"method": "mtp", "speculative": {} if LOOKS_AHEAD else NO_DROP},
    "mtp-async": {"method": "mtp", "speculative": {} if LOOKS_AHEAD else NO_DROP, "is_async": True},
    "draft-async": {"method": "mtp", "speculative": NO_DROP, "is_async": True},
}


def new_engine(model_folder, kind, *, scheduler_cls=PLANNED, **options):
    engine = DraftingEngine(model_folder("qwen3-next"), scheduler_cls=scheduler_cls, **KINDS[kind] | options)
    assert type(engine.scheduler).__name__.startswith("Planned") == (scheduler_cls is not None)
    return engine


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("is_roomy", [False, True], ids=["tight", "roomy"])
@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
def test_nothing_leaks_hangs_or_is_read_before_it_is_there(kind, unit, is_roomy, model_folder, is_full):
    num_blocks = 400 if is_roomy else 140 if unit is None else 75
    engine = new_engine(
        model_folder,
        kind,
        num_drafts=2 if is_roomy else 5,
        num_blocks=num_blocks,
        block_size=BLOCK[unit],
        prefix_match_unit=unit,
        seed=1,
    )
    watch = PromiseWatch(engine.scheduler)
    soak(engine, num_requests=640 if is_full else 64, seed=num_blocks, longest=num_blocks * BLOCK[unit] // 4)
    assert watch.num_stored == watch.num_promised
    assert min(engine.worker.num_accepted, engine.worker.num_rejected) > 0
    assert sum(engine.num_cached_tokens.values()) > 0
    assert is_roomy or engine.num_preemptions > 0


def serve_roomy(model_folder, kind, *, seed=0, block_size=16, **options):
    """Serve chats in a roomy pool; return the engine and the watch on its promises."""
    engine = new_engine(model_folder, kind, num_blocks=4000, block_size=block_size, seed=seed, **options)
    watch = PromiseWatch(engine.scheduler)
    serve_chats(engine, seed=seed)
    return engine, watch


@pytest.mark.parametrize("bitmask", ["always", "late", "never"])
@pytest.mark.parametrize("unit", [None, 16], ids=["blocks", "unit16"])
def test_every_state_promised_in_an_answer_is_there(kind, unit, bitmask, model_folder):
    engine, watch = serve_roomy(
        model_folder,
        kind,
        bitmask=bitmask,
        block_size=16 if unit is None else 64,
        prefix_match_unit=unit,
    )
    assert watch.num_promised == engine.scheduler.checkpoint_manager.counts.answers > 0
    assert watch.num_stored == watch.num_promised
    assert engine.scheduler.checkpoint_manager.counts.stale == 0
    pool_account.assert_idle(engine.scheduler)


@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
def test_no_less_is_cached_than_by_stock_vllm_with_the_same_drafts(kind, unit, model_folder):
    cached = {}
    for scheduler_cls in (PLANNED, None):
        engine = new_engine(
            model_folder,
            kind,
            scheduler_cls=scheduler_cls,
            num_blocks=1000 if unit is None else 500,
            block_size=BLOCK[unit],
            prefix_match_unit=unit,
        )
        serve_chats(engine, seed=2)
        rng = random.Random(3)
        documents = [[rng.randrange(512) for _ in range(1500)] for _ in range(6)]
        for _ in range(40):
            engine.add(
                rng.choice(documents)[: rng.choice([900, 1500])] + [rng.randrange(512)] * 70, max_tokens=9
            )
            engine.run()
        cached[scheduler_cls] = sum(engine.num_cached_tokens.values())
    assert cached[PLANNED] >= cached[None] > 0


# What follows shows that the checks of the simulated worker and of the promises can fail.


def test_the_simulated_worker_notices_the_states_of_drafts_where_they_are_not_moved(
    model_folder, monkeypatch
):
    monkeypatch.setattr(DraftingWorker, "_move", lambda *_, **__: None)
    with pytest.raises(AssertionError, match=r"reads a wrong (state|window)"):
        serve_roomy(model_folder, "ngram")


@pytest.mark.parametrize(("kept", "what"), [("_windows", "state"), ("_states", "window")])
def test_the_simulated_worker_notices_what_is_moved_as_if_no_draft_were_accepted(
    kept, what, model_folder, monkeypatch
):
    move = DraftingWorker._move

    def move_half(self, *arguments, shift):
        before = getattr(self, kept).copy()
        move(self, *arguments, shift=shift)
        after = getattr(self, kept).copy()
        getattr(self, kept)[:] = before
        move(self, *arguments, shift=0)
        getattr(self, kept)[:] = after

    monkeypatch.setattr(DraftingWorker, "_move", move_half)
    with pytest.raises(AssertionError, match=f"reads a wrong {what}"):
        serve_roomy(model_folder, "ngram")


def test_the_simulated_worker_notices_a_state_in_an_answer_that_is_not_kept_at_its_boundary(
    kind, model_folder, monkeypatch
):
    monkeypatch.setattr(DraftingWorker, "_keep_boundary", lambda *_: None)
    with pytest.raises(AssertionError, match=r"reads a wrong (state|window)"):
        serve_roomy(model_folder, kind)


def test_the_simulated_worker_notices_missing_scratch_blocks(model_folder, monkeypatch):
    monkeypatch.setattr(DraftingEngine, "_caches", drafting.BareEngine._caches)
    with pytest.raises(AssertionError, match="no block for the state of a draft"):
        serve_roomy(model_folder, "ngram")


def test_the_simulated_worker_notices_rejected_drafts_that_are_not_taken_back(model_folder, monkeypatch):
    make_stats = scheduler.StockScheduler.make_spec_decoding_stats

    def take_none_back(self, *arguments, **options):
        self.requests[options["request_id"]].num_computed_tokens += (
            options["num_draft_tokens"] - options["num_accepted_tokens"]
        )
        return make_stats(self, *arguments, **options)

    monkeypatch.setattr(scheduler.StockScheduler, "make_spec_decoding_stats", take_none_back)
    with pytest.raises(AssertionError, match="drafts were rejected"):
        serve_roomy(model_folder, "ngram")


@pytest.mark.skipif(LOOKS_AHEAD, reason="since 0.33 vLLM caches what drafts have become by itself")
@pytest.mark.parametrize("kind", ["ngram", "mtp"])
def test_a_promise_is_noticed_that_is_not_stored(kind, model_folder, monkeypatch):
    # All that keeps it from happening is taken away.
    monkeypatch.setattr(scheduler, "_CACHES_DRAFTS_LATE", False)
    monkeypatch.setattr(PlannedStateManager, "has_state", lambda *_: True)
    _, watch = serve_roomy(model_folder, kind)
    assert watch.num_stored < watch.num_promised


@pytest.mark.skipif(not LOOKS_AHEAD, reason="hashes look ahead since 0.33")
@pytest.mark.parametrize("kind", ["mtp", "mtp-async"])
def test_a_promise_before_its_hash_is_there_is_an_error(kind, model_folder, monkeypatch):
    monkeypatch.setattr(checkpoint_manager, "num_hashed", lambda num_tokens, *_: num_tokens)
    with pytest.raises(InvalidRequestError, match="one key for each whole block"):
        serve_roomy(model_folder, kind)
