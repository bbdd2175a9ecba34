"""States inside answers: what is promised there is there, in whatever order the loop around calls."""

import pool_account
import pytest
from bare_scheduler import BareEngine
from soaking import serve_chats
from vllm.v1.core.sched.scheduler import Scheduler as StockScheduler

from milepost.vllm.request_state import RequestState, Stage
from milepost.vllm.scheduler import PlannedScheduler
from milepost.vllm.state_manager import PlannedStateManager

LOOPS = ["always", "late", "never", "sometimes"]


def serve(model, *, seed, block_size=16, **options):
    """Serve six chats side by side in a roomy pool; return the engine."""
    engine = BareEngine(
        model,
        scheduler_cls="milepost.vllm.Scheduler",
        num_blocks=4000,
        block_size=block_size,
        seed=seed,
        **options,
    )
    serve_chats(engine, seed=seed)
    return engine


@pytest.mark.parametrize("unit", [None, 16], ids=["blocks", "unit16"])
@pytest.mark.parametrize("bitmask", LOOPS)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_every_state_promised_in_an_answer_is_there(is_async, bitmask, unit, model_folder):
    for seed in range(2):
        engine = serve(
            model_folder("qwen3-next"),
            seed=seed,
            is_async=is_async,
            bitmask=bitmask,
            block_size=16 if unit is None else 64,
            prefix_match_unit=unit,
        )
        counts = engine.scheduler.checkpoint_manager.counts
        assert counts.answers > 0
        assert counts.stale == 0
        pool_account.assert_idle(engine.scheduler)


def test_no_loop_caches_less_than_vllms_own(model_folder):
    cached = {
        bitmask: sum(serve(model_folder("qwen3-next"), seed=3, bitmask=bitmask).num_cached_tokens.values())
        for bitmask in LOOPS
    }
    assert min(cached.values()) == max(cached.values()), cached


def test_a_promise_for_a_boundary_that_has_passed_is_noticed(model_folder, monkeypatch):
    # All that keeps it from happening is taken away.
    monkeypatch.setattr(RequestState, "is_due", False)
    monkeypatch.setattr(PlannedStateManager, "has_state", lambda *_: True)
    monkeypatch.setattr(PlannedScheduler, "update_from_output", StockScheduler.update_from_output)
    monkeypatch.setattr(
        RequestState,
        "answer_reaches",
        lambda self, boundary: self.stage is Stage.CONFIRMED and boundary > self.num_prompt_tokens,
    )
    engine = serve(model_folder("qwen3-next"), seed=0, bitmask="never")
    assert engine.scheduler.checkpoint_manager.counts.stale + pool_account.num_missing(engine.scheduler) > 0
