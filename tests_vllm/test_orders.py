"""In the same order replicas find the same; what was promised and not found had gone meanwhile."""

import pytest
from benchmarks.vllm.orders import Question, serve_orders

from milepost.vllm import stops


@pytest.fixture(scope="module")
def model(model_folder):
    return model_folder("qwen3-next")


def served(model, *, at_a_time, order=0):
    (outcome,) = serve_orders(Question(folder=model, orders=(order,), at_a_time=(at_a_time,)))
    return outcome


def test_one_at_a_time_the_plugin_finds_what_stock_vllm_finds_and_all_that_was_promised(model):
    outcome = served(model, at_a_time=1)
    assert outcome.plugin_share == outcome.stock_share > 0.1
    assert (outcome.num_less, outcome.num_more) == (0, 0)
    assert outcome.plugin_beyond == outcome.stock_beyond == 0


def test_a_scheduler_that_keeps_less_is_noticed(model, monkeypatch):
    monkeypatch.setattr(stops, "stock_positions", lambda *_, **__: ())
    outcome = served(model, at_a_time=1)
    assert outcome.num_less > 0


def test_what_requests_that_wait_are_promised_and_do_not_find_was_evicted_meanwhile(model):
    # One of the few orders in which a request waits for that long.
    outcome = served(model, at_a_time=4, order=18)
    assert outcome.plugin_beyond == outcome.plugin_gone > 0
