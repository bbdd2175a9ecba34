"""Prompts become one kind of array, once, and malformed ones are refused by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import InvalidRequestError
from milepost.tokens import as_tokens, common_prefix_length

token_lists = st.lists(st.integers(0, 3), max_size=600)


@pytest.mark.parametrize("given_as", [list, tuple, np.asarray, lambda t: np.asarray(t, dtype=np.uint64)])
def test_whatever_holds_the_ids_they_end_as_read_only_int32(given_as):
    tokens = as_tokens(given_as([5, 0, 7]))
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [5, 0, 7]
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


def test_a_buffer_that_the_caller_fills_anew_does_not_change_the_prompt():
    buffer = np.array([1, 2, 3], dtype=np.int32)
    tokens = as_tokens(buffer)
    buffer[:] = 9
    assert tokens.tolist() == [1, 2, 3]


def test_checked_tokens_are_not_copied_again():
    tokens = as_tokens([1, 2, 3])
    assert as_tokens(tokens) is tokens


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([], "empty"),
        ([[1, 2]], "2 dimensions"),
        ([[1], [1, 2]], "not a sequence of token ids"),
        (7, "0 dimensions"),
        ([1.5], "dtype float64"),
        ([True], "dtype bool"),
        (["a"], "tokenize the text first"),
        ([3, -1, 3], "token id -1 at position 1"),
        ([2**31], "token id 2147483648"),
        ([2**70], "dtype object"),
    ],
)
def test_a_malformed_prompt_is_refused_with_its_reason(bad, says):
    with pytest.raises(InvalidRequestError, match=says):
        as_tokens(bad)


def test_the_first_id_outside_the_vocabulary_is_named():
    assert as_tokens([9], vocabulary_size=10).tolist() == [9]
    with pytest.raises(InvalidRequestError, match=r"token id 10 at position 2 is outside .*\[0, 10\)"):
        as_tokens([1, 2, 10, 10], vocabulary_size=10)


@given(token_lists, token_lists, token_lists)
def test_the_common_prefix_is_the_one_that_counting_finds(shared, left, right):
    left, right = shared + left, shared + right
    counted = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    counted = min(len(left), len(right)) if counted is None else counted
    arrays = (np.asarray(left, dtype=np.int32), np.asarray(right, dtype=np.int32))
    assert common_prefix_length(*arrays) == counted
