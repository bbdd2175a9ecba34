"""What indices of KV events promise, against what is resumed; `benchmarks.vllm.promises` counts more."""

import pytest
from benchmarks.vllm.promises import Question, compare_all
from benchmarks.vllm.routing.attention_index import AttentionIndex
from benchmarks.vllm.routing.resumable_index import ResumableIndex
from vllm.distributed.kv_events import MEDIUM_GPU, AllBlocksCleared, BlockRemoved, BlockStored

SEEDS = tuple(range(16))


@pytest.fixture(scope="module")
def outcomes(model_folder):
    return compare_all(Question(folder=model_folder("qwen3-next"), seeds=SEEDS, concurrency=1))


def total(outcomes, setting, field):
    return sum(getattr(each, field) for each in outcomes if each.setting == setting)


def test_an_index_of_attention_and_states_promises_just_what_is_resumed(outcomes):
    assert total(outcomes, "milepost", "resumed_tokens") > 10_000
    assert total(outcomes, "milepost", "exact_over_tokens") == 0
    assert total(outcomes, "milepost", "exact_under_tokens") == 0


def test_what_attention_blocks_alone_promise_too_much_never_lay_there_to_resume_from(outcomes):
    assert total(outcomes, "milepost", "parted_tokens") > 1_000
    assert total(outcomes, "milepost", "gone_tokens") == 0


def test_attention_blocks_of_stock_vllm_promise_more(outcomes):
    plugin, stock = (total(outcomes, name, "over_tokens") for name in ("milepost", "stock"))
    assert plugin < stock


def stored(*hashes, group, kind, tokens=4):
    return BlockStored(
        block_hashes=list(hashes),
        parent_block_hash=None,
        token_ids=[0] * tokens * len(hashes),
        block_size=tokens,
        lora_id=None,
        medium=MEDIUM_GPU,
        lora_name=None,
        group_idx=group,
        kv_cache_spec_kind=kind,
    )


def removed(*hashes, group):
    return BlockRemoved(block_hashes=list(hashes), medium=MEDIUM_GPU, group_idx=group)


def test_a_prefix_counts_as_far_as_its_deepest_state_in_every_group():
    index = ResumableIndex(block_tokens=4, match_unit=2)
    units = ["a2", "a4", "a6", "a8", "a10"]
    index.apply([stored("a4", "a8", group=2, kind="full_attention")])
    assert index.promised_tokens(units, num_tokens=11) == 0
    index.apply([stored("a4", "a8", group=0, kind="mamba"), stored("a4", group=1, kind="mamba")])
    assert index.promised_tokens(units, num_tokens=11) == 4
    index.apply([stored("a8", group=1, kind="mamba")])
    assert index.promised_tokens(units, num_tokens=11) == 8
    # The last token is computed whatever is there.
    assert index.promised_tokens(units[:4], num_tokens=8) == 4
    index.apply([removed("a4", group=2)])
    assert index.promised_tokens(units, num_tokens=11) == 0
    index.apply([AllBlocksCleared()])
    assert index.promised_tokens(units, num_tokens=11) == 0


def test_it_counts_copies_and_prefixes_inside_blocks():
    index = ResumableIndex(block_tokens=4, match_unit=2)
    whole, inside = stored("a4", group=1, kind="full_attention"), stored("a6", group=1, kind="full_attention")
    index.apply([whole, whole, inside, stored("a6", group=0, kind="mamba")])
    assert index.promised_tokens(["a2", "a4", "a6"], num_tokens=7) == 6
    index.apply([removed("a4", group=1)])
    assert index.promised_tokens(["a2", "a4", "a6"], num_tokens=7) == 6
    index.apply([removed("a6", group=1)])
    assert index.promised_tokens(["a2", "a4", "a6"], num_tokens=7) == 0


def test_what_a_promise_hangs_on_is_missed_when_its_last_copy_goes():
    index = ResumableIndex(block_tokens=4, match_unit=2)
    units = ["a2", "a4", "a6", "a8"]
    index.apply(
        [
            stored("a4", "a8", group=1, kind="full_attention"),
            stored("a4", "a8", group=0, kind="mamba"),
            stored("a8", group=0, kind="mamba"),
        ]
    )
    since = index.num_gone
    index.apply([removed("a4", group=0), removed("a8", group=0)])
    assert index.has_lost(units, num_tokens=4, since=since)
    assert not index.has_lost(units, num_tokens=4, since=index.num_gone)
    assert not index.has_lost(units, num_tokens=8, since=since)
    index.apply([removed("a8", group=0)])
    assert index.has_lost(units, num_tokens=8, since=since)
    since = index.num_gone
    index.apply([removed("a4", group=1)])
    assert index.has_lost(units, num_tokens=8, since=since)
    since = index.num_gone
    index.apply([AllBlocksCleared()])
    assert index.has_lost(units, num_tokens=8, since=since)
    assert not index.has_lost(units, num_tokens=0, since=0)


def test_the_index_that_routers_keep_drops_states_and_prefixes_inside_blocks():
    index = AttentionIndex(block_tokens=4)
    index.apply(
        [
            stored("a4", "a8", group=1, kind="full_attention"),
            stored("a12", group=0, kind="mamba"),
            stored("a12", group=1, kind="full_attention", tokens=2),
        ]
    )
    assert index.promised_tokens(["a4", "a8", "a12"]) == 8
