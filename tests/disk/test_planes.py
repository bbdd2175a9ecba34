"""What is compressed comes back to the byte, whatever it is, and is smaller where it can be."""

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from milepost.disk.planes import Plane, compress, decompress


def restored(data, item_bytes, *, is_opaque=False):
    stored = compress(data, item_bytes=item_bytes, is_opaque=is_opaque)
    return decompress(stored.data, width=stored.width, planes=stored.planes, num_bytes=data.size)


def as_bytes(numbers):
    return np.ascontiguousarray(numbers).reshape(-1).view(np.uint8)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        arrays(np.uint8, st.integers(0, 3000), elements=st.integers(0, 3)),
        st.binary(max_size=3000).map(lambda data: np.frombuffer(data, np.uint8)),
        arrays(np.float32, st.integers(0, 700), elements=st.floats(width=32)).map(as_bytes),
        arrays(np.int64, st.integers(0, 400)).map(as_bytes),
    ),
    st.sampled_from([1, 2, 4, 8, 16, 34, 200]),
)
def test_every_bytes_come_back(data, item_bytes):
    whole = data[: data.size // item_bytes * item_bytes]
    assert np.array_equal(restored(whole, item_bytes), whole)
    assert np.array_equal(restored(data, 1, is_opaque=True), data)


def floats(count=20_000):
    return np.random.default_rng(0).standard_normal(count).astype(np.float32)


def q8_0(numbers):
    """Blocks as llama.cpp has them: a scale in half precision, and 32 integers."""
    blocks = numbers.reshape(-1, 32)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / 127
    integers = np.round(blocks / scales).astype(np.int8)
    return np.hstack([scales.astype(np.float16).view(np.uint8), integers.view(np.uint8)])


@pytest.mark.parametrize(
    ("numbers", "item_bytes", "least", "most"),
    [
        (floats(), 4, 1.18, 1.22),
        (as_bytes(floats()).reshape(-1, 4)[:, 2:], 2, 1.42, 1.55),
        (floats().astype(np.float16), 2, 1.05, 1.2),
        (q8_0(floats()), 1, 1.0, 1.1),
        (np.zeros(4000, np.float32), 4, 100, 1e9),
        (np.frombuffer(np.random.default_rng(0).bytes(9000), np.uint8), 1, 1.0, 1.0),
        (np.arange(5000), 8, 3, 1e9),
    ],
    ids=["fp32", "bf16", "fp16", "q8_0", "zeros", "noise", "integers"],
)
def test_it_saves_what_there_is_to_save(numbers, item_bytes, least, most):
    data = as_bytes(numbers)
    saved = data.size / compress(data, item_bytes=item_bytes, is_opaque=item_bytes == 1).data.size
    assert least <= saved <= most


def test_a_memory_bomb_is_refused_before_it_is_opened():
    bomb = np.frombuffer(zstandard.compress(bytes(1 << 20)), np.uint8)
    with pytest.raises(ValueError, match="does not say that it holds"):
        decompress(bomb, width=1, planes=[Plane(bomb.size, True)], num_bytes=10)


@pytest.mark.parametrize(
    ("width", "planes", "num_bytes"),
    [
        (0, [Plane(8, False)], 8),
        (0, [], 9),
        (1, [], 8),
        (1, [Plane(9, False)], 8),
        (2, [Plane(8, False)], 8),
        (65, [Plane(8, False)], 8),
        (-1, [Plane(8, False)], 8),
        (4, [Plane(8, False)] * 5, 33),
    ],
    ids=str,
)
def test_planes_that_do_not_make_so_many_bytes_are_refused(width, planes, num_bytes):
    with pytest.raises(ValueError, match="bytes"):
        decompress(np.zeros(8, np.uint8), width=width, planes=planes, num_bytes=num_bytes)
