"""Who sits in which slot, what joining and leaving does, and what becomes of sequences when a step fails."""

import pytest
import torch
from batching import LENGTHS, Stay, alone, answer, computed, decode
from resuming import distance, prompt, tiny_driver

from families import tiny_model
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.row_tensors import KeyRows
from milepost.engines.transformers.rows import BatchedRows
from milepost.engines.transformers.snapshot import capture_state
from milepost.errors import InvalidRequestError, UnsupportedModelError

DTYPE = torch.float32
# Full attention; states and attention in one layer; windows and full attention; states and a window alone.
FAMILIES = ("qwen3", "falcon_h1", "gemma3", "recurrent_gemma")


def rows_of(family, count=4, *, is_fixed=True):
    return BatchedRows(tiny_driver(family, DTYPE), count, is_fixed=is_fixed)


def computed_prompt(family, num_tokens):
    driver = tiny_driver(family, DTYPE)
    live = driver.start(num_tokens=num_tokens)
    driver.advance(live, prompt(num_tokens, seed=7))
    return live


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_keeps_its_bits_when_the_bucket_doubles_and_when_it_shrinks_again(family):
    expected = decode(rows_of(family), family, DTYPE, [Stay(2)])[2]
    rows = rows_of(family)
    watched, long = computed(family, DTYPE, 2), computed_prompt(family, 255)

    # The long one's third token is the 257th of a bucket of 256.
    found = [rows.advance([long, watched], [5, int(token)])[1] for token in answer(2)[:3]]
    rows.leave(long, keeps=False)
    found += rows.advance([computed(family, DTYPE, 0), watched], [5, int(answer(2)[3])])[1:]

    assert torch.equal(torch.stack(found), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_infinities_that_a_sequence_left_in_its_slot_reach_nobody(family):
    expected = decode(rows_of(family), family, DTYPE, [Stay(0)])[0]
    rows = rows_of(family)
    # One that stays, or the rows would be made anew.
    broken, staying = computed(family, DTYPE, 2), computed(family, DTYPE, 1)
    for layer in broken.cache.layers:
        if getattr(layer, "values", None) is not None:
            layer.values.fill_(float("inf"))
            layer.keys.fill_(float("nan"))
    assert not rows.advance([broken, staying], [5, 5])[0].isfinite().all()
    rows.leave(broken, keeps=False)

    live = computed(family, DTYPE, 0)
    found = [rows.advance([staying, live], [5, int(token)])[1] for token in answer(0)]

    assert torch.equal(torch.stack(found), expected)


def test_sequences_may_be_given_in_any_order():
    family = "falcon_h1"
    rows = rows_of(family)
    lives = [computed(family, DTYPE, index) for index in range(3)]
    tokens = [int(answer(index)[0]) for index in range(3)]
    expected = rows_of(family).advance([computed(family, DTYPE, index) for index in range(3)], tokens)

    found = rows.advance(lives[::-1], tokens[::-1])

    for one, other in zip(found[::-1], expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("is_fixed", [True, False], ids=["fixed", "free"])
def test_one_that_skips_a_step_waits_with_a_cache_of_its_own(is_fixed):
    family = "falcon_h1"
    rows = rows_of(family, is_fixed=is_fixed)
    first, second, third = (computed(family, DTYPE, index) for index in range(3))
    found = []
    for step, company in enumerate([(first, second), (second, third), (first, second, third)]):
        logits = rows.advance(company, [int(answer(1)[step]) if each is second else 5 for each in company])
        found.append(logits[[each is second for each in company].index(True)])
        if step == 1:
            assert capture_state(first.cache, first.position).position == LENGTHS[0] + 1

    assert first.position == LENGTHS[0] + 2
    for row, reference in zip(found, alone(family, DTYPE, 1), strict=False):
        assert distance(row, reference) < 1e-4


def test_free_rows_close_the_gap_that_one_leaves():
    family = "gemma3"
    rows = rows_of(family, is_fixed=False)
    lives = [computed(family, DTYPE, index) for index in range(3)]
    rows.advance(lives, [int(answer(index)[0]) for index in range(3)])
    rows.leave(lives[0], keeps=False)

    found = rows.advance(lives[1:], [int(answer(index)[1]) for index in (1, 2)])

    for index, row in zip((1, 2), found, strict=True):
        assert distance(row, alone(family, DTYPE, index)[1]) < 1e-4


def test_fixed_rows_are_a_power_of_two_so_that_no_row_is_left_over():
    assert [rows_of("qwen3", count).width for count in (2, 4, 5, 8, 9)] == [4, 4, 8, 8, 16]
    assert rows_of("qwen3", 5, is_fixed=False).width == 5


def test_leaving_twice_or_never_having_joined_is_harmless():
    rows = rows_of("qwen3")
    live = computed("qwen3", DTYPE, 0)
    rows.leave(live, keeps=True)
    rows.advance([live], [5])
    rows.leave(live, keeps=True)
    rows.leave(live, keeps=False)

    assert live.cache.get_seq_length() == live.position == LENGTHS[0] + 1


def test_a_sequence_that_was_given_up_is_not_computed_on_as_if_it_were_new():
    rows = rows_of("qwen3")
    live = computed("qwen3", DTYPE, 0)
    rows.advance([live], [5])
    rows.leave(live, keeps=False)

    with pytest.raises(InvalidRequestError, match="given up, or lost"):
        rows.advance([live], [6])
    with pytest.raises(UnsupportedModelError, match="cannot be cloned"):
        capture_state(live.cache, live.position)
    with pytest.raises(AttributeError):
        tiny_driver("qwen3", DTYPE).advance(live, torch.tensor([6]))


def test_a_step_that_fails_loses_its_sequences_and_says_so_and_others_can_join():
    model = tiny_model("qwen3")
    driver = driver_for(model)
    live, other = (driver.start(num_tokens=5) for _ in range(2))
    driver.advance(live, prompt(5))
    driver.advance(other, prompt(5))
    rows = BatchedRows(driver, 2, is_fixed=True)
    rows.advance([live], [5])

    def fail(*_):
        raise RuntimeError("no memory")

    hook = model.model.layers[2].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no memory"):
        rows.advance([live], [6])
    hook.remove()

    with pytest.raises(InvalidRequestError, match="lost in a step that failed"):
        rows.advance([live], [6])
    assert rows.advance([other], [5])[0].isfinite().all()


def test_calls_that_make_no_sense_are_refused_and_lose_nothing():
    rows = rows_of("qwen3")
    live, fresh = computed("qwen3", DTYPE, 0), tiny_driver("qwen3", DTYPE).start()
    expected = alone("qwen3", DTYPE, 0)[0]

    for sequences, tokens, message in (
        ([], [], "0 sequences and 0 tokens"),
        ([live], [5, 6], "1 sequences and 2 tokens"),
        ([live, live], [5, 6], "given twice"),
        ([live, fresh], [5, 6], "computed nothing"),
        ([live] * 5, [5] * 5, "1 to 4"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            rows.advance(sequences, tokens)

    assert distance(rows.advance([live], [int(answer(0)[0])])[0], expected) < 1e-4


def test_experts_meet_one_token_at_a_time_in_fixed_rows_alone_and_only_for_the_step():
    model = tiny_model("qwen3_next")
    driver = driver_for(model)
    tokens = []
    experts = model.model.layers[0].mlp.experts
    projected = experts._apply_gate
    experts._apply_gate = lambda states: tokens.append(states.shape[0]) or projected(states)

    def computed_by(rows, token=5):
        lives = [driver.start(num_tokens=5) for _ in range(2)]
        for live in lives:
            driver.advance(live, prompt(5))
        tokens.clear()
        rows.advance(lives, [token, token])
        return list(tokens)

    # Two experts of every token.
    assert computed_by(BatchedRows(driver, 2, is_fixed=True)) == [2] * 4
    assert computed_by(BatchedRows(driver, 2, is_fixed=False)) == [4]
    with pytest.raises(IndexError):
        computed_by(BatchedRows(driver, 2, is_fixed=True), token=10**6)
    assert "forward" not in vars(experts)


def test_one_that_is_interrupted_while_it_joins_is_lost_and_not_taken_for_empty(monkeypatch):
    rows = rows_of("falcon_h1")
    live = computed("falcon_h1", DTYPE, 0)
    monkeypatch.setattr(KeyRows, "seat", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))

    with pytest.raises(KeyboardInterrupt):
        rows.advance([live], [5])
    monkeypatch.undo()

    with pytest.raises(InvalidRequestError, match="lost in a step that failed"):
        rows.advance([live], [5])
    other = computed("falcon_h1", DTYPE, 1)
    assert rows.advance([other], [5])[0].isfinite().all()


def test_room_for_a_long_sequence_is_given_back_when_it_has_left():
    rows = rows_of("qwen3")
    long, short = computed_prompt("qwen3", 600), computed("qwen3", DTYPE, 0)
    rows.advance([long, short], [5, 5])
    assert rows.num_columns == 1024

    rows.leave(long, keeps=False)
    rows.advance([short], [5])
    assert rows.num_columns == 1024, "nobody joined, so nothing is moved"
    rows.advance([short, computed("qwen3", DTYPE, 1)], [5, 5])
    assert rows.num_columns == 256

    rows.leave(short, keeps=False)
    rows.advance([computed("qwen3", DTYPE, 1)], [5])
    assert rows.num_columns == 256
