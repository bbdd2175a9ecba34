"""The plugin finds no less than stock vLLM in random scenarios; `benchmarks.vllm.scenarios` runs many."""

from dataclasses import replace

from benchmarks.vllm import scenarios
from benchmarks.vllm.scenario import draw

from milepost.vllm import stops

NUM_SCENARIOS = 40
AMPLE = [seed for seed in range(80) if draw(seed).pool == "ample"][:6]


def compare(seed, model_folder, **options):
    return scenarios.compare(draw(seed), folder=model_folder("qwen3-next"), **options)


def test_where_there_is_room_no_scenario_finds_less_and_in_small_pools_hardly_any_does(model_folder):
    outcomes = [compare(seed, model_folder) for seed in range(NUM_SCENARIOS)]
    short = [outcome for outcome in outcomes if outcome.falls_short]
    # A pool of a few checkpoints holds these or those, and which are asked for is a matter of luck.
    assert {outcome.pool for outcome in short} <= {"small", "tiny"}
    assert len(short) <= NUM_SCENARIOS // 20
    assert sum(outcome.plugin for outcome in outcomes) > 1.02 * sum(outcome.stock for outcome in outcomes)
    assert sum(outcome.num_stale for outcome in outcomes) == 0


def test_nor_where_the_loop_around_asks_for_no_bitmask(model_folder):
    outcomes = [compare(seed, model_folder, asks_bitmask=False) for seed in range(100, 112)]
    assert [outcome for outcome in outcomes if outcome.falls_short] == []


def test_a_scenario_is_its_seed(model_folder):
    once, again = (compare(3, model_folder) for _ in range(2))
    assert once == again
    assert once != replace(again, seed=4)


def test_without_stocks_own_positions_less_is_found_and_that_is_noticed(model_folder, monkeypatch):
    monkeypatch.setattr(stops, "stock_positions", lambda *_, **__: ())
    outcomes = [compare(seed, model_folder) for seed in AMPLE]
    assert any(outcome.falls_short for outcome in outcomes)
