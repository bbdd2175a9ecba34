"""Numbers in few bits: how far off, and how many bytes."""

import pytest
import torch
from benchmarks.lossy.quantiser import Quantiser
from hypothesis import given
from hypothesis import strategies as st

BITS = pytest.mark.parametrize("bits", [6, 8])


@BITS
def test_no_number_is_off_by_more_than_half_of_its_rows_scale(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    # Rows of very different sizes, as the states of heads that forget fast and slowly.
    tensor = torch.randn(2, 3, 5, 24, generator=generator) * torch.logspace(-6, 4, 5)[:, None]
    quantiser = Quantiser(bits)
    back = quantiser.decode(quantiser.encode(tensor))
    largest = tensor.abs().amax(-1, keepdim=True)
    bound = largest / (2 * quantiser.largest)
    assert ((back - tensor).abs() <= bound * (1 + 1e-5)).all()
    # And it is no copy.
    assert ((back - tensor).abs() > bound / 2).any()


@BITS
def test_the_largest_number_of_a_row_comes_back_to_rounding_and_zeros_stay_zeros(bits: int) -> None:
    tensor = torch.tensor([[0.0, -3.0, 1.0], [0.0, 0.0, 0.0]])
    quantiser = Quantiser(bits)
    back = quantiser.decode(quantiser.encode(tensor))
    assert back[0, 1].item() == pytest.approx(-3.0, rel=1e-6)
    assert back[0, 0] == 0
    assert not back[1].any()


@BITS
def test_denormal_numbers_come_back_with_their_signs(bits: int) -> None:
    tensor = torch.tensor([[2e-43, -2e-43, 1e-43], [1e-45, 0.0, -1e-45]])
    back = Quantiser(bits).decode(Quantiser(bits).encode(tensor))
    assert (back * tensor.sign() >= 0).all()
    assert ((back - tensor).abs() <= 1e-43).all()


@BITS
@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_what_is_not_finite_is_refused(bits: int, number: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        Quantiser(bits).encode(torch.tensor([[1.0, number], [0.0, 1.0]]))


def test_six_bits_take_three_quarters_of_eight() -> None:
    tensor = torch.randn(4, 16, 64)
    eight, six = (Quantiser(bits).encode(tensor) for bits in (8, 6))
    scales = 4 * 16 * 4
    assert eight.num_bytes == 4 * 16 * 64 + scales
    assert six.num_bytes == 4 * 16 * 48 + scales


@given(st.lists(st.integers(-31, 31), min_size=1, max_size=50))
def test_every_code_of_six_bits_comes_back_whatever_their_number(codes: list[int]) -> None:
    # With 31 among them the scale is one, so that codes and numbers are the same.
    tensor = torch.tensor([*codes, 31], dtype=torch.float32)
    quantiser = Quantiser(6)
    assert torch.equal(quantiser.decode(quantiser.encode(tensor)), tensor)


def test_the_type_of_a_state_comes_back_too() -> None:
    quantiser = Quantiser(8)
    assert quantiser.decode(quantiser.encode(torch.randn(3, 8).bfloat16())).dtype == torch.bfloat16


def test_other_numbers_of_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="bits=4; give 6 or 8"):
        Quantiser(4)
