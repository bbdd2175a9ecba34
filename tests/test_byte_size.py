"""Amounts of memory, read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.byte_size import format_bytes, parse_bytes
from milepost.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("4GiB", 4 << 30),
        ("512 mb", 512_000_000),
        (" 1.5 KiB ", 1536),
        (".5kB", 500),
        ("1e9", 10**9),
        ("1e+09", 10**9),
        ("7", 7),
        ("7B", 7),
        ("0", 0),
        (10**15 + 1, 10**15 + 1),
    ],
)
def test_an_amount_is_read_with_its_unit(text, num_bytes):
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1GB", "4 GiB and more", "4 potatoes", "1_000", "inf", "nan", "1e400", "1e", "4GiBB"]
)
def test_what_is_no_amount_is_refused_with_an_example(text):
    with pytest.raises(ConfigurationError, match="write 4GiB"):
        parse_bytes(text)


@given(st.integers(0, 2**80))
def test_a_whole_number_of_bytes_is_never_rounded(num_bytes):
    assert parse_bytes(num_bytes) == parse_bytes(str(num_bytes)) == num_bytes


@given(st.integers(1, 10**17))
def test_what_is_written_reads_back_to_three_digits(num_bytes):
    written = format_bytes(num_bytes)
    assert "e" not in written
    assert parse_bytes(written.replace(",", "")) == pytest.approx(num_bytes, rel=5.1e-3)


@pytest.mark.parametrize(
    ("num_bytes", "written"),
    [(0, "0 B"), (999.4, "999 B"), (999.9, "1 kB"), (18_900_000, "18.9 MB"), (3e15, "3,000 TB")],
)
def test_sizes_are_written_with_decimal_units(num_bytes, written):
    assert format_bytes(num_bytes) == written
