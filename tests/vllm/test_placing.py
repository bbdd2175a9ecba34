"""A state that costs no stop has to be worth its memory, and no more."""

import pytest
from small_vllm import SmallVllm

from milepost.vllm.layout import PoolLayout
from milepost.vllm.placing import placed_positions
from milepost.vllm.prompt_blocks import hash_keys
from milepost.vllm.stock import exported_tail, full_end, stock_positions, stopless_positions

DOCUMENT = list(range(400))


@pytest.fixture
def cache():
    """A cache that has seen questions come back to a document."""
    vllm = SmallVllm(num_blocks=400)
    for number in range(12):
        vllm.serve([*DOCUMENT, *range(1000 * number, 1000 * number + 30)])
        vllm.serve([*DOCUMENT, *range(1000 * number, 1000 * number + 90)])
    return vllm.checkpoint_manager._cache.current


def placed(cache, *, free=(), stop_tokens):
    vllm = SmallVllm(num_blocks=400)
    tokens = range(50_000, 50_700)
    request = vllm.ask(tokens)
    keys = hash_keys(request.hashes, len(tokens), vllm.layout.match_tokens)
    with cache.acquire(keys, num_tokens=len(tokens)) as lease:
        return placed_positions(cache, lease, given=(), free=free, stop_tokens=stop_tokens)


def test_it_is_kept_where_no_stop_is_worth_it(cache):
    assert placed(cache, stop_tokens=10**9) == ()
    worth = placed(cache, stop_tokens=0)
    assert worth, "or nothing is shown"
    assert placed(cache, free=worth[-1:], stop_tokens=10**9) == worth[-1:]


def test_it_is_not_where_it_is_worth_nothing_even_so(cache):
    worth = placed(cache, stop_tokens=0)
    others = [position for position in range(16, 700, 16) if position not in worth]
    assert placed(cache, free=others, stop_tokens=0) == worth


def layout(**others):
    return PoolLayout(
        num_blocks=99, block_tokens=64, match_tokens=16, kv_groups=(3,), state_groups=(0,), **others
    )


@pytest.mark.parametrize(
    ("start", "num_tokens", "tail"),
    [(0, 1000, 992), (0, 100, 96), (0, 60, 0), (0, 65, 64), (8, 1000, 0), (960, 1000, 0), (976, 1100, 1088)],
)
def test_a_tail_is_exported_where_the_chunk_goes_on_past_its_column(start, num_tokens, tail):
    assert exported_tail(layout(export_tokens=16), start=start, num_tokens=num_tokens) == tail
    assert exported_tail(layout(), start=start, num_tokens=num_tokens) == 0


def test_what_a_drafter_reads_ahead_is_left_behind_the_tail():
    ahead = layout(export_tokens=16, lookahead_tokens=3, rest_tokens=3)
    assert exported_tail(ahead, start=0, num_tokens=994) == 976
    assert exported_tail(layout(export_tokens=16, rest_tokens=3), start=0, num_tokens=994) == 0


def test_where_it_is_exported_stock_vllm_keeps_no_other_tail():
    def kept(**others):
        return stock_positions(layout(**others), num_tokens=1000, resumed=0, shared=300)

    assert kept() == (256, 960, 992)
    assert kept(export_tokens=16) == (256, 992)


def test_the_end_of_whole_blocks_is_kept_without_a_stop():
    assert stock_positions(layout(), num_tokens=1024, resumed=0, shared=0) == (960, 1008, 1024)
    assert stopless_positions(layout(), num_tokens=1024, resumed=0, shared=0) == (1024,)
    exported = layout(export_tokens=16)
    assert stopless_positions(exported, num_tokens=1024, resumed=0, shared=0) == (1008, 1024)
    assert stopless_positions(layout(), num_tokens=1008, resumed=0, shared=0) == ()


def test_where_its_last_block_has_no_hash_yet_it_is_not():
    assert full_end(layout(), 1024) == 1024
    assert full_end(layout(lookahead_tokens=1), 1024) == 0
