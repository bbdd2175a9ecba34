"""What pools and chunks leave room for."""

import pytest

from milepost.sglang.room import StateRoom


def room(grid_tokens=64):
    return StateRoom(
        num_states=8, num_kv_tokens=4096, grid_tokens=grid_tokens, free_states=int, free_kv_tokens=int
    )


@pytest.mark.parametrize(("grid", "unit"), [(64, 64), (128, 64), (96, 96), (256, 64)])
def test_a_key_stands_for_64_tokens_unless_the_grid_is_no_multiple_of_that(grid, unit):
    assert room(grid_tokens=grid).unit_tokens == unit


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


@pytest.mark.parametrize(
    ("positions", "start", "filled"),
    [((), 0, (2048, 2944)), ((1024,), 0, (1024, 2944)), ((2112,), 2048, (2112,)), ((), 2980, ())],
)
def test_with_room_to_spare_a_chunk_without_a_plan_leaves_what_sglang_would(positions, start, filled):
    ends = (2048, 3000) if start < 2048 else (3000,)
    assert room().with_chunk_ends(positions, start, ends) == filled


def test_each_position_but_one_of_a_chunk_takes_one_more_chunk():
    assert StateRoom.num_stops((64, 512, 576, 1024, 2048), (512, 1024, 2048)) == 2
    assert StateRoom.num_stops((512, 1024), (512, 1024)) == 0
    assert StateRoom.num_stops((), (512,)) == 0
