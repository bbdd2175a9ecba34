"""How many prefill chunks a request takes: one, and one for each checkpoint; none for nothing."""

import random

import pool_account
import pytest
from bare_scheduler import BareEngine

BLOCK = {None: 64, 64: 256}


def unshared_prompts(num):
    rng = random.Random(0)
    return [[rng.randrange(1000) for _ in range(rng.randrange(100, 3000))] for _ in range(num)]


def new_engine(model_folder, unit, scheduler_cls="milepost.vllm.Scheduler", **options):
    return BareEngine(
        model_folder("qwen3-next"),
        scheduler_cls=scheduler_cls,
        num_blocks=4000,
        block_size=BLOCK[unit],
        prefix_match_unit=unit,
        max_num_batched_tokens=8192,
        **options,
    )


def num_chunks(engine, tokens) -> int:
    """Serve one request for one token; return its steps."""
    engine.add(tokens)
    count = 0
    while engine.scheduler.has_unfinished_requests():
        count += engine.step() > 0
    engine.run()
    return count


@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
def test_a_checkpoint_costs_one_chunk(unit, model_folder):
    engine = new_engine(model_folder, unit)
    counts = engine.scheduler.checkpoint_manager.counts
    rng = random.Random(0)
    document = [rng.randrange(1000) for _ in range(1500)]
    num_stops = 0
    for _ in range(60):
        kept, stops = counts.kept, counts.stops
        shared = document[: rng.choice([700, 1100, 1500])]
        chunks = num_chunks(engine, shared + [rng.randrange(1000) for _ in range(100)])
        assert chunks <= 1 + counts.stops - stops
        assert counts.stops - stops <= counts.kept - kept
        num_stops += counts.stops - stops
    assert num_stops > 0
    assert counts.hits > 30
    pool_account.assert_idle(engine.scheduler)


@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
def test_prompts_that_nobody_shares_take_no_more_chunks_than_from_stock_vllm(unit, model_folder):
    engines = [new_engine(model_folder, unit), new_engine(model_folder, unit, scheduler_cls=None)]
    for prompt in unshared_prompts(60):
        ours, stock = (num_chunks(engine, prompt) for engine in engines)
        assert ours <= stock


def test_a_cold_policy_does_not_cut_a_lone_prompt_more_often_than_stock_vllm(model_folder):
    for num_tokens in (150, 1000, 7777):
        prompt = unshared_prompts(1)[0] * 80
        ours, stock = (
            num_chunks(new_engine(model_folder, None, scheduler_cls=scheduler), prompt[:num_tokens])
            for scheduler in ("milepost.vllm.Scheduler", None)
        )
        assert ours == stock
