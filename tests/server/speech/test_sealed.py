import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.server.speech.sealed import seal, unseal


@given(st.text())
def test_what_is_sealed_comes_back(text):
    assert unseal(seal(text)) == text


@pytest.mark.parametrize("other", [None, "", "EqQBCgIYAhIM", "milepost1.", "milepost1.%%", "milepost1.AAAA"])
def test_what_another_server_sealed_is_none_of_ours(other):
    assert unseal(other) is None


def test_a_damaged_seal_is_none_of_ours():
    sealed = seal("some thought")

    assert all(
        unseal(sealed[:at] + "A" + sealed[at + 1 :]) in (None, "some thought") for at in range(len(sealed))
    )
    assert unseal(sealed[:-4]) is None
