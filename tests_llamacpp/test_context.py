"""Every refusal of llama.cpp is heard, and what would end the process is refused before."""

import logging

import numpy as np
import pytest

from milepost.engines.llamacpp.context import NUM_OUTPUTS, Context, ContextOptions, OutOfCellsError
from milepost.engines.llamacpp.library import Model
from milepost.errors import EngineError


@pytest.fixture(scope="module")
def model(gguf):
    return Model(gguf("llama"))


@pytest.fixture
def context(model):
    made = Context(model, ContextOptions(most_tokens=256), num_cells=256, num_sequences=2)
    yield made
    made.close()


def ids(number, first=300):
    return [first + index % 200 for index in range(number)]


def test_logits_are_those_of_the_last_tokens_and_owned_by_the_caller(context):
    logits = context.decode(ids(10), sequences=0, positions=range(10), num_outputs=3)
    before = logits.clone()
    context.decode(ids(10, 301), sequences=0, positions=range(10, 20))

    assert logits.shape == (3, 512)
    assert logits.equal(before)
    assert not logits[0].equal(logits[1])


def test_more_tokens_than_a_call_takes_are_refused_before_llama_cpp_sees_them(context):
    for number in (0, 257):
        with pytest.raises(EngineError, match=f"a call of {number} tokens"):
            context.decode(ids(number), sequences=0, positions=range(number))
    with pytest.raises(EngineError, match=f"{NUM_OUTPUTS + 1} outputs"):
        context.decode(ids(100), sequences=0, positions=range(100), num_outputs=NUM_OUTPUTS + 1)


def test_a_full_context_says_so_and_changes_nothing(context):
    context.decode(ids(200), sequences=0, positions=range(200))

    with pytest.raises(OutOfCellsError, match="no room for 100 tokens"):
        context.decode(ids(100), sequences=0, positions=range(200, 300))

    assert context.span(0) == (0, 199)
    assert context.decode(ids(56), sequences=0, positions=range(200, 256)).isfinite().all()


@pytest.mark.parametrize(
    ("tokens", "position"), [([300, 301], 7), ([100_000, 1], 5)], ids=["a gap", "no token of the vocabulary"]
)
def test_a_call_that_llama_cpp_refuses_is_an_error_and_not_stale_logits(context, tokens, position):
    context.decode(ids(5), sequences=0, positions=range(5))

    with pytest.raises(EngineError, match=r"code -1"):
        context.decode(tokens, sequences=0, positions=range(position, position + 2))

    assert context.span(0) == (0, 4)


def test_a_failed_load_leaves_an_empty_sequence_and_the_others_alone(context):
    context.decode(ids(50), sequences=0, positions=range(50))
    saved = context.save(0)
    cut = np.ascontiguousarray(saved[: saved.size // 2])

    with pytest.raises(EngineError, match="took 0 of a payload"):
        context.load(1, cut)

    assert context.span(1) == (-1, -1)
    assert context.span(0) == (0, 49)
    context.load(1, saved)
    assert context.span(1) == (0, 49)


def test_bytes_behind_a_payload_are_noticed(context):
    context.decode(ids(50), sequences=0, positions=range(50))

    with pytest.raises(EngineError, match="took"):
        context.load(1, np.concatenate((context.save(0), np.zeros(8, np.uint8))))
    assert context.span(1) == (-1, -1)


@pytest.mark.parametrize("sequence", [-1, 2, 300])
def test_a_sequence_that_there_is_not_is_refused(context, sequence):
    with pytest.raises(EngineError, match=f"sequence {sequence}"):
        context.remove(sequence)
    with pytest.raises(EngineError, match=f"sequence {sequence}"):
        context.copy(0, sequence)


def test_more_sequences_than_llama_cpp_has_are_refused(model):
    with pytest.raises(EngineError, match="makes no context of 256 cells for 257 sequences"):
        Context(model, ContextOptions(most_tokens=8), num_cells=256, num_sequences=257)


def test_the_log_of_llama_cpp_goes_to_logging(model, caplog, capfd):
    caplog.set_level(logging.DEBUG, "milepost.engines.llamacpp")
    Context(model, ContextOptions(most_tokens=8), num_cells=256, num_sequences=2).close()

    assert any("n_ctx" in record.message for record in caplog.records)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert capfd.readouterr().err == ""


def test_an_error_of_llama_cpp_is_logged_as_one(context, caplog):
    context.decode(ids(5), sequences=0, positions=range(5))
    with pytest.raises(EngineError):
        context.decode([300], sequences=0, positions=[2])

    assert any(record.levelno == logging.ERROR for record in caplog.records)
