"""What states and KV take of one pool of equal blocks."""

import pytest

from milepost.vllm.layout import PoolLayout


def layout(**others):
    given = {
        "num_blocks": 100,
        "block_tokens": 320,
        "match_tokens": 64,
        "kv_groups": (3,),
        "state_groups": (0, 1, 2),
    }
    return PoolLayout(**given | others)


def test_all_blocks_are_the_capacity():
    hybrid = layout()
    assert hybrid.capacity == 100 * 320
    # A hundred blocks hold 25 states of three groups with a block of KV each.
    one = hybrid.footprint.checkpoint_bytes + 320 * hybrid.footprint.kv_bytes_per_token
    assert hybrid.capacity // one == 25


@pytest.mark.parametrize(("position", "blocks"), [(320, 3), (640, 3), (64, 4), (384, 4)])
def test_a_state_inside_a_block_takes_the_kv_of_the_rest_as_well(position, blocks):
    assert layout().blocks_of_state(position) == blocks


@pytest.mark.parametrize(("num_tokens", "blocks"), [(0, 0), (1, 1), (320, 1), (321, 2)])
def test_kv_takes_whole_blocks(num_tokens, blocks):
    assert layout().blocks_of_kv(num_tokens) == blocks
    assert layout(kv_groups=(3, 4)).blocks_of_kv(num_tokens) == 2 * blocks


@pytest.mark.parametrize(
    ("lookahead", "num_tokens", "hashed"),
    [(0, 640, 640), (1, 640, 576), (1, 641, 640), (0, 63, 0), (3, 2, 0)],
)
def test_a_hash_that_looks_ahead_comes_with_the_tokens_after_its_block(lookahead, num_tokens, hashed):
    assert layout(lookahead_tokens=lookahead).hashed_tokens(num_tokens) == hashed


def test_a_request_with_drafts_takes_blocks_for_their_states():
    assert layout().running_blocks == 3
    assert layout(scratch_blocks=6).running_blocks == 9


def test_a_model_of_states_alone_has_no_kv():
    alone = layout(kv_groups=(), state_groups=(0,))
    assert alone.footprint.kv_bytes_per_token == 0
    assert (alone.blocks_of_state(64), alone.blocks_of_kv(1000)) == (1, 0)
