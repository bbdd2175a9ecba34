"""Engines over lossy states: what they keep is priced as it is, and exact ones are exact."""

import numpy as np
import pytest
from benchmarks.lossy.traffic import exact_engine, quantised_engine, replaying_engine, run

from families import tiny_model
from milepost.demo.documents import DocumentQuestion
from milepost.demo.workload import Ask
from milepost.engines.opening import serve_model

ANSWER = 4


@pytest.fixture(scope="module")
def served():
    return serve_model(
        tiny_model("qwen3_5"), numerics="strict", segment_tokens=64, tokenizer=None, dtype="auto",
        device=None, revision=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def asks():
    rng = np.random.default_rng(0)
    documents = [rng.integers(3, 250, 256, dtype=np.int32) for _ in range(2)]
    return [
        Ask(number % 2, DocumentQuestion("?"), np.concatenate([documents[number % 2], question]))
        for number, question in enumerate(rng.integers(3, 250, (8, 9), dtype=np.int32))
    ]


def answers(run_of):
    return [(each.tokens, each.prompt_logits_digest) for each in run_of.completions]


def test_exact_states_answer_as_a_cold_engine_and_lossy_ones_do_not(served, asks) -> None:
    cold = run(exact_engine(served, capacity_bytes=2**26, policy="none"), asks, answer_tokens=ANSWER)
    exact = run(exact_engine(served, capacity_bytes=2**26, policy="learned"), asks, answer_tokens=ANSWER)
    assert cold.reused == 0
    assert exact.reused > 0
    assert answers(exact) == answers(cold)
    assert exact.num_differing(cold) == 0
    lossy = run(
        quantised_engine(served, bits=6, capacity_bytes=2**26, policy="learned"), asks, answer_tokens=ANSWER
    )
    assert lossy.reused == exact.reused
    assert answers(lossy) != answers(cold)


@pytest.mark.parametrize("bits", [6, 8])
def test_a_quantised_engine_holds_the_bytes_that_it_counts(served, asks, bits: int) -> None:
    engine = quantised_engine(served, bits=bits, capacity_bytes=2**26, policy="learned")
    assert engine.footprint.checkpoint_bytes < served.footprint.checkpoint_bytes
    run(engine, asks, answer_tokens=1)
    held = engine.cache.statistics()
    assert held.num_checkpoints > 0
    assert held.checkpoint_bytes == held.num_checkpoints * engine.footprint.checkpoint_bytes


def test_an_engine_that_replays_keeps_no_state_counts_its_work_and_is_exact_from_the_start(
    served, asks
) -> None:
    cold = run(exact_engine(served, capacity_bytes=2**26, policy="none"), asks, answer_tokens=ANSWER)
    for num_replayed, is_exact in ((64, False), (256, True)):
        engine, driver = replaying_engine(
            served, num_replayed=num_replayed, capacity_bytes=2**26, policy="learned"
        )
        warm = run(engine, asks, answer_tokens=ANSWER, replaying=driver)
        assert engine.cache.statistics().checkpoint_bytes == 0
        assert warm.num_hits == 6
        assert warm.num_replayed == 6 * num_replayed
        assert warm.computed == cold.computed - warm.reused + warm.num_replayed
        assert (answers(warm) == answers(cold)) is is_exact
