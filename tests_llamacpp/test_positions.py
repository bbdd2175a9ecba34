"""llama.cpp takes what does not belong together and says nothing. Its positions tell, and are looked at."""

import pytest
from running import keep, random_tokens

from milepost.engines.llamacpp.probe import probe
from milepost.engines.llamacpp.transfer import Transfer
from milepost.errors import CacheCorruptionError, UnsupportedModelError


def kept_at(driver, position, seed=0):
    live = driver.start(num_tokens=position)
    driver.advance(live, random_tokens(position, seed))
    return keep(driver, live, ())


def test_the_trap_kv_without_its_state_is_taken_and_computes_something(open_driver):
    driver = open_driver("qwen35")
    _, kv = kept_at(driver, 100)
    live = driver.start(num_tokens=200)
    live.context.load(live.spare, kv[0].data)
    live.context.copy(live.spare, live.number, start=0, end=100)
    live.context.remove(live.spare)
    live.position = 100

    assert driver.advance(live, random_tokens(20, 1)).isfinite().all()


@pytest.mark.parametrize("family", ["llama", "mamba2", "qwen35"])
def test_positions_are_what_a_run_leaves(open_driver, family):
    driver = open_driver(family)
    live = driver.start(num_tokens=100)
    driver.advance(live, random_tokens(100))

    driver.transfer.require(live.context, live.number, position=100)
    for position in (99, 101):
        with pytest.raises(CacheCorruptionError, match="are due"):
            driver.transfer.require(live.context, live.number, position=position)
        # What cannot be trusted is not left there.
        assert live.context.span(live.number) == (-1, -1)
        driver.close(live)
        live = driver.start(num_tokens=100)
        driver.advance(live, random_tokens(100))


@pytest.mark.parametrize("missing", ["state", "kv"])
def test_a_hybrid_that_lacks_a_part_is_refused(open_driver, missing):
    driver = open_driver("falcon-h1")
    state, kv = kept_at(driver, 100)
    live = driver.start(num_tokens=200)
    if missing == "state":
        live.context.load(live.spare, kv[0].data)
        live.context.copy(live.spare, live.number, start=0, end=100)
        live.context.remove(live.spare)
    else:
        live.context.load(live.number, state.data, state_alone=True)

    with pytest.raises(CacheCorruptionError, match="are due"):
        driver.transfer.require(live.context, live.number, position=100)


def test_the_control_a_transfer_that_looks_at_nothing_does_not_pass_the_probe(open_driver, monkeypatch):
    driver = open_driver("qwen35")
    monkeypatch.setattr(Transfer, "require", lambda *_, **__: None)

    with pytest.raises(UnsupportedModelError, match=r"llama\.cpp says that 93 tokens are 92"):
        probe(driver, is_strict=True)
