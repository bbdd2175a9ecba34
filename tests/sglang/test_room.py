"""What pools and chunks leave room for."""

import pytest

from milepost.sglang.room import StateRoom


def room(*, free_states=5, free_kv=1000, **options):
    return StateRoom(
        num_states=8,
        num_kv_tokens=4096,
        free_states=lambda: free_states,
        free_kv_tokens=lambda: free_kv,
        **{"grid_tokens": 64, **options},
    )


@pytest.mark.parametrize(("grid", "unit"), [(64, 64), (128, 64), (96, 96), (256, 64)])
def test_a_key_stands_for_64_tokens_unless_the_grid_is_no_multiple_of_that(grid, unit):
    assert room(grid_tokens=grid).unit_tokens == unit


def test_no_more_is_spare_than_is_free_and_wanted():
    assert room().spare_units(500, 2, num_unwanted=0, num_promised=0) == 2
    assert room().spare_units(500, 9, num_unwanted=1, num_promised=3) == 3
    assert room().spare_units(500, 9, num_unwanted=0, num_promised=8) == 0


def test_kv_counts_where_it_has_a_price():
    assert room(kv_units=2, state_units=100).spare_units(500, 1, num_unwanted=0, num_promised=0) == 1100
    assert room(kv_units=2, free_kv=10).spare_units(500, 0, num_unwanted=0, num_promised=0) == 20


@pytest.mark.parametrize(
    ("chunk_end", "chunk_tokens", "ends"),
    [
        (3000, 2048, (3000,)),
        (2048, 2048, (2048, 3000)),
        (512, 1000, (512, 1472, 2432, 3000)),
        (2990, 10, (2990, 3000)),
        (1000, None, (1000, 3000)),
        (3000, None, (3000,)),
    ],
)
def test_chunks_after_the_first_are_as_long_as_they_may_be(chunk_end, chunk_tokens, ends):
    assert room().chunk_ends(0, 3000, chunk_end=chunk_end, chunk_tokens=chunk_tokens) == ends


def test_each_chunk_leaves_the_deepest_position_in_it():
    assert StateRoom.one_of_each((64, 512, 576, 2048), 64, (512, 1024, 2048)) == (512, 576, 2048)
    assert StateRoom.one_of_each((), 0, (512,)) == ()
