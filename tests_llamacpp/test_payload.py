"""What is not ours, or not as it was, never reaches llama.cpp."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from running import cold, keep, random_tokens, restore, run

from milepost.engines.llamacpp.context import Context
from milepost.errors import CacheCorruptionError


@pytest.fixture
def kept(open_driver):
    driver = open_driver("qwen35")
    tokens = random_tokens(300)
    live = driver.start(num_tokens=300)
    driver.advance(live, tokens[:200])
    state, kv = keep(driver, live, (64,))
    live.forget()
    driver.close(live)
    return driver, tokens, state, kv


@pytest.fixture
def seen(monkeypatch):
    """Payloads that were handed to llama.cpp."""
    handed_over = []
    load = Context.load

    def note(self, sequence, saved, *, state_alone=False):
        handed_over.append(saved)
        load(self, sequence, saved, state_alone=state_alone)

    monkeypatch.setattr(Context, "load", note)
    return handed_over


def damaged(payload):
    data = payload.data.copy()
    data[data.size // 2] ^= 1
    return replace(payload, data=data)


def shortened(payload):
    return replace(payload, data=payload.data[:-1].copy())


@pytest.mark.parametrize("spoil", [damaged, shortened, lambda each: replace(each, data=each.data[::-1])])
@pytest.mark.parametrize("part", ["state", "kv"])
def test_a_damaged_payload_is_refused(kept, seen, spoil, part):
    driver, tokens, state, kv = kept
    given = (spoil(state), kv) if part == "state" else (state, [spoil(kv[0]), *kv[1:]])

    with pytest.raises(CacheCorruptionError, match="damaged"):
        restore(driver, *given, tokens)

    spoilt = given[0].data if part == "state" else given[1][0].data
    assert not any(each is spoilt for each in seen)
    # Nothing was lost: what is whole is restored as ever.
    assert torch.equal(run(driver, restore(driver, state, kv, tokens), tokens), cold(driver, tokens))


@pytest.mark.parametrize(
    "other",
    [
        ("qwen35", {"seed": 1}),
        ("mamba2", {}),
        ("qwen35", {"key_type": "q8_0"}),
        ("qwen35", {"weights": "q8_0"}),
    ],
    ids=["other weights", "another family", "other keys", "other number format"],
)
def test_what_another_model_left_is_refused(kept, seen, open_driver, other):
    driver, tokens, state, kv = kept
    name, options = other
    foreign = open_driver(name, **options)
    live = foreign.start(num_tokens=300)
    foreign.advance(live, tokens[:200])
    foreign_state, foreign_kv = keep(foreign, live, (64,))
    seen.clear()

    with pytest.raises(CacheCorruptionError, match="another model"):
        restore(driver, foreign_state, kv, tokens)
    if foreign_kv[0].num_bytes:
        with pytest.raises(CacheCorruptionError, match="not the KV of this model"):
            restore(driver, state, foreign_kv, tokens)
    assert seen == []


@pytest.mark.parametrize("state", [None, b"GGSQ", np.zeros(8, np.uint8)])
def test_what_is_no_payload_at_all_is_refused(kept, seen, state):
    driver, tokens, _, kv = kept

    with pytest.raises(CacheCorruptionError, match="no payload"):
        driver.restore(state, kv, position=200, num_tokens=tokens.numel())
    assert seen == []


def test_a_gap_in_the_kv_is_refused(kept, seen):
    driver, tokens, state, kv = kept

    for pieces in (kv[1:], kv[:1], [], [kv[1], kv[0]], [kv[0], kv[0], kv[1]]):
        with pytest.raises(CacheCorruptionError, match="KV"):
            driver.restore(state, pieces, position=200, num_tokens=tokens.numel())
    assert seen == []


def test_a_state_of_another_position_is_refused(kept, seen):
    driver, tokens, state, kv = kept

    with pytest.raises(CacheCorruptionError, match="no state after 64"):
        driver.restore(state, kv[:1], position=64, num_tokens=tokens.numel())
    assert seen == []


def test_payloads_say_what_they_keep_alive_and_cannot_be_written(kept):
    _, _, state, kv = kept

    for payload in (state, *kv):
        assert payload.num_bytes == payload.data.nbytes > 0
        assert payload.data.base is None
        with pytest.raises(ValueError, match="read-only"):
            payload.data[0] = 1


def test_equal_runs_give_equal_payloads_and_others_do_not(open_driver):
    driver = open_driver("qwen35")
    payloads = []
    for seed in (0, 0, 1):
        live = driver.start(num_tokens=200)
        driver.advance(live, random_tokens(200, seed))
        payloads.append((driver.capture(live), driver.kv(live, 64, 200)))
    (state, kv), (same_state, same_kv), (other_state, other_kv) = payloads

    assert driver.has_same_bits(state, same_state)
    assert driver.has_same_bits(kv, same_kv)
    assert not driver.has_same_bits(state, other_state)
    assert not driver.has_same_bits(kv, other_kv)


def test_the_sign_of_a_zero_is_no_other_bit_and_any_other_is(kept):
    _, _, state, kv = kept
    data = np.zeros(64, np.uint8)
    data[8:12] = [0, 0, 1, 0x41]
    zeros = replace(state, data=data)
    for place, value, is_same in (
        (3, 0x80, True),
        (23, 0x80, True),
        (3, 0x40, False),
        (11, 0xC1, False),
        (22, 0x80, True),  # bytes do not say where a number begins
        (12, 0x80, False),
        (0, 0x80, False),
    ):
        other = data.copy()
        other[place] = value
        assert zeros.has_same_bits(replace(state, data=other)) is is_same
    assert not zeros.has_same_bits(replace(state, data=data[:-1]))
    # In KV such a byte may be a number of its own.
    other = data.copy()
    other[23] = 0x80
    assert not replace(kv[0], data=data).has_same_bits(replace(kv[0], data=other))
