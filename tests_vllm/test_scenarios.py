"""The plugin finds no less than stock vLLM in random scenarios; `benchmarks.vllm.scenarios` runs many."""

from dataclasses import replace

import pytest
from benchmarks.vllm.traffic.scenario import draw

from benchmarks.vllm import scenarios
from milepost.vllm import leading, stops

NUM_SCENARIOS = 40
# Those that fell short where checkpoints were evicted whole in place of vLLM's blocks.
TINY = [18, 53, 130, 167, 185, 298, 433, 555]
AMPLE = [seed for seed in range(80) if draw(seed).pool == "ample"][:6]


def compare(seed, model_folder, **options):
    return scenarios.compare(draw(seed), folder=model_folder("qwen3-next"), **options)


def test_no_scenario_finds_less(model_folder):
    outcomes = [compare(seed, model_folder) for seed in range(NUM_SCENARIOS)]
    assert [outcome for outcome in outcomes if outcome.falls_short] == []
    assert sum(outcome.plugin for outcome in outcomes) > 1.01 * sum(outcome.stock for outcome in outcomes)
    assert sum(outcome.num_stale for outcome in outcomes) == 0


def test_nor_where_the_loop_around_asks_for_no_bitmask(model_folder):
    outcomes = [compare(seed, model_folder, asks_bitmask=False) for seed in range(100, 112)]
    assert [outcome for outcome in outcomes if outcome.falls_short] == []


@pytest.mark.parametrize("seed", TINY)
def test_until_the_learned_rule_leads_each_request_finds_what_stock_vllm_finds(
    seed, model_folder, monkeypatch
):
    monkeypatch.setattr(leading, "LEAST_LEAD_PROMPTS", float("inf"))
    outcome = compare(seed, model_folder)
    found = zip(outcome.plugin_by_request, outcome.stock_by_request, strict=True)
    assert all(plugin >= stock for plugin, stock in found)
    assert outcome.stock > 0


def test_where_the_learned_rule_leads_from_the_start_some_request_finds_less(model_folder, monkeypatch):
    monkeypatch.setattr(leading, "LEAST_LEAD_PROMPTS", float("-inf"))
    monkeypatch.setattr(leading, "LEAST_LEAD_ERRORS", float("-inf"))
    outcomes = [compare(seed, model_folder) for seed in TINY]
    assert any(outcome.plugin < outcome.stock for outcome in outcomes)


def test_a_scenario_is_its_seed(model_folder):
    once, again = (compare(3, model_folder) for _ in range(2))
    assert once == again
    assert once != replace(again, seed=4)


def test_without_stocks_own_positions_less_is_found_and_that_is_noticed(model_folder, monkeypatch):
    monkeypatch.setattr(stops, "stock_positions", lambda *_, **__: ())
    outcomes = [compare(seed, model_folder) for seed in AMPLE]
    assert any(outcome.falls_short for outcome in outcomes)
