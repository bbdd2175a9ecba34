"""Where the model exports the state at a prompt's tail from inside its last chunk, the plugin stops for it no
more than stock vLLM, and finds it again.

The simulated worker writes what vLLM's own workers would, by vLLM's own rule, and where they would.
"""

import random

import pool_account
import pytest
from bare_scheduler import BareEngine
from simulated_worker import SimulatedWorker
from soaking import serve_chats, soak
from vllm.v1.kv_cache_interface import MambaSpec

from milepost.vllm.layout import PoolLayout
from milepost.vllm.stock import exported_tail

pytestmark = pytest.mark.skipif(
    not hasattr(MambaSpec, "prefill_checkpoint_alignment"), reason="vLLM exports states since 0.32"
)

PLANNED = "milepost.vllm.Scheduler"
UNITS = pytest.mark.parametrize("unit", [None, 16], ids=["blocks", "unit16"])


def new_engine(model_folder, scheduler_cls=PLANNED, *, unit=None, num_blocks=4000, **options):
    return BareEngine(
        model_folder("qwen3-next"),
        scheduler_cls=scheduler_cls,
        num_blocks=num_blocks,
        prefix_match_unit=unit,
        **{"max_num_batched_tokens": 4096, "exports": True} | options,
    )


def serve(engine, tokens, *, max_tokens=1) -> tuple[int, int]:
    """Serve one request alone; return how many steps its prompt took and what was cached of it."""
    before = engine.scheduler.current_step
    request_id = engine.add(tokens, max_tokens=max_tokens)
    engine.run()
    # Steps that compute nothing end a run.
    return engine.scheduler.current_step - before, engine.num_cached_tokens[request_id]


@UNITS
def test_a_first_prompt_takes_one_step_as_in_stock_vllm(unit, model_folder):
    tail = 960 if unit is None else 992
    for scheduler_cls in (PLANNED, None):
        engine = new_engine(model_folder, scheduler_cls, unit=unit)
        one_step, _ = serve(engine, range(40_000, 40_002))
        assert serve(engine, range(1000)) == (one_step, 0)
        assert serve(engine, range(1000))[1] == tail
        if scheduler_cls is not None:
            assert engine.scheduler.checkpoint_manager.counts.stops == 0
            assert engine.scheduler.checkpoint_manager.counts.kept > 0


@UNITS
def test_prompts_of_all_lengths_take_no_more_steps_and_find_no_less_than_with_stock_vllm(unit, model_folder):
    # So that no stop is worth it but those of stock vLLM.
    no_extras = {"milepost": {"stop_tokens": 100_000}}
    engines = [
        new_engine(model_folder, scheduler_cls, unit=unit, additional_config=no_extras)
        for scheduler_cls in (PLANNED, None)
    ]
    rng = random.Random(1)
    # Whole blocks among them: there stock vLLM keeps the state at the very end of a prompt, exported or not.
    for length in (*range(180, 330, 7), 192, 256, 320):
        prompt = [length, *(rng.randrange(500) for _ in range(length - 1))]
        longer = prompt + [rng.randrange(500) for _ in range(rng.randrange(1, 200))]
        for asked in (prompt, prompt, longer):
            (our_steps, ours), (stock_steps, stocks) = (serve(engine, asked) for engine in engines)
            assert ours >= stocks, (length, len(asked))
            assert our_steps <= stock_steps, (length, len(asked))
    pool_account.assert_idle(engines[0].scheduler)
    assert engines[0].scheduler.checkpoint_manager.counts.stale == 0


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("num_blocks", [120, 400])
@UNITS
def test_nothing_leaks_or_is_read_before_it_is_there(unit, num_blocks, is_async, model_folder):
    engine = new_engine(
        model_folder,
        unit=unit,
        num_blocks=num_blocks,
        max_num_batched_tokens=512,
        is_async=is_async,
        seed=num_blocks,
    )
    soak(engine, num_requests=60, seed=num_blocks, longest=num_blocks * 16)
    # In so small a pool hardly anything survives.
    assert num_blocks < 400 or sum(engine.num_cached_tokens.values()) > 0


@UNITS
def test_it_is_exported_where_vllm_says(unit):
    from vllm.v1.kv_cache_interface import is_mamba_prefill_checkpoint_valid

    layout = PoolLayout(
        num_blocks=9,
        block_tokens=64,
        match_tokens=unit or 64,
        kv_groups=(3,),
        state_groups=(0,),
        export_tokens=unit or 64,
    )
    num_exported = 0
    for start in range(0, 300, 4):
        for num_tokens in range(start + 1, start + 200):
            tail = (num_tokens - 1) // layout.grid_tokens * layout.grid_tokens
            is_exported = is_mamba_prefill_checkpoint_valid(
                start, num_tokens, tail, layout.match_tokens, layout.block_tokens, layout.export_tokens
            )
            assert exported_tail(layout, start=start, num_tokens=num_tokens) == (tail if is_exported else 0)
            num_exported += is_exported
    assert num_exported > 100


# What follows shows that a state which is not where it is believed to be is noticed.


@UNITS
@pytest.mark.parametrize("fault", ["nothing is exported", "the last state is", "into another column"])
def test_the_simulated_worker_notices_a_wrong_state_at_the_tail(fault, unit, model_folder, monkeypatch):
    export = SimulatedWorker._export

    def export_wrongly(self, running, position, column):
        if position and fault == "the last state is":
            for group in self._state_groups:
                self._states[running.blocks[group][column]] = running.prefixes[running.num_known]
        elif position and fault == "into another column":
            export(self, running, position, column - 1)

    monkeypatch.setattr(SimulatedWorker, "_export", export_wrongly)
    with pytest.raises(AssertionError, match="reads a wrong state"):
        serve_chats(new_engine(model_folder, unit=unit), seed=0)
