"""The one rule of snapshots: listed sequence tensors are sliced, everything else is cloned or refused."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
from resuming import assert_same_contents, prompt, run_cold, tiny_driver
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicIndexedLayer, DynamicLayer, DynamicSlidingWindowLayer

from families import ALL_FAMILIES
from milepost.engines.transformers.frames import Cloner
from milepost.engines.transformers.snapshot import (
    KVSegment,
    build_cache,
    capture_state,
    slice_kv,
    zero_state,
)
from milepost.errors import CacheCorruptionError, UnsupportedModelError


def cache_of(*layers, num_tokens=6):
    cache = DynamicCache()
    cache.layers = list(layers)
    for index in range(len(layers)):
        cache.update(torch.randn(1, 2, num_tokens, 4), torch.randn(1, 2, num_tokens, 4), index)
    return cache


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_bytes_are_counted_as_they_are_held(family):
    run = run_cold(tiny_driver(family, torch.float32), prompt(140), (0, 64, 128, 140))
    held = {id(item): item.nbytes for item in _walk(run.snapshots[140].frame)}

    assert run.snapshots[140].num_bytes == sum(held.values())
    # A checkpoint costs the same wherever it is taken, once windows are full; KV costs the same every token.
    assert run.snapshots[140].num_bytes == run.snapshots[128].num_bytes
    assert run.segments[0].num_bytes * 12 == run.segments[2].num_bytes * 64


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_what_is_captured_keeps_no_more_memory_alive_than_it_reports(family):
    run = run_cold(tiny_driver(family, torch.float32), prompt(140), (0, 64, 128, 140))
    for snapshot in run.snapshots.values():
        assert pinned_bytes(_walk(snapshot.frame)) == snapshot.num_bytes
    for segment in run.segments:
        assert pinned_bytes(segment.tensors.values()) == segment.num_bytes
    # The control: a view of twice the rows reports the same, and holds more.
    frame = Cloner(copy_tensor=lambda tensor: torch.stack((tensor, tensor))[0]).clone(
        run.snapshots[140].frame
    )
    views = list(_walk(frame))
    assert pinned_bytes(views) == 2 * sum({id(each): each.nbytes for each in views}.values())


def pinned_bytes(tensors) -> int:
    """Bytes of the storages that tensors hold, each counted once."""
    return sum({each.data_ptr(): each.nbytes() for each in (t.untyped_storage() for t in tensors)}.values())


@pytest.mark.parametrize("family", ["qwen3", "falcon_h1"])
def test_segments_own_their_bytes_and_join_to_what_they_were_cut_from(family):
    run = run_cold(tiny_driver(family, torch.float32), prompt(140), (0, 64, 128, 140))
    whole = slice_kv(run.live.cache, 0, 140)

    for key, tensor in whole.tensors.items():
        pieces = [segment.tensors[key] for segment in run.segments]
        assert torch.equal(torch.cat(pieces, dim=-2), tensor)
        assert all(piece.untyped_storage().nbytes() == piece.nbytes for piece in pieces)


def test_a_model_without_state_is_rebuilt_from_segments_alone():
    driver = tiny_driver("qwen3", torch.float32)
    run = run_cold(driver, prompt(140), (0, 64, 140))

    cache = build_cache(None, run.segments, new_cache=driver.new_cache)

    assert_same_contents(cache, run.live.cache)


def test_an_indexed_layer_rebuilt_from_segments_alone_goes_on_growing():
    def new_cache():
        cache = DynamicCache()
        cache.layers = [DynamicIndexedLayer()]
        return cache

    cache = cache_of(DynamicIndexedLayer())
    cache.update_indexer(torch.randn(1, 6, 3), 0)
    restored = build_cache(None, [slice_kv(cache, 0, 4), slice_kv(cache, 4, 6)], new_cache=new_cache)

    more = torch.randn(1, 1, 3)

    assert torch.equal(restored.update_indexer(more, 0), cache.update_indexer(more, 0))


def test_a_sliding_window_is_state_and_its_constants_cost_nothing():
    cache = cache_of(DynamicSlidingWindowLayer(sliding_window=4))

    assert slice_kv(cache, 0, 6).tensors == {}
    assert capture_state(cache, 6).num_bytes == cache.layers[0].keys.nbytes * 2


def test_a_class_nobody_listed_is_all_state():
    class Secretive(DynamicLayer):
        pass

    cache = cache_of(Secretive())

    assert slice_kv(cache, 0, 6).tensors == {}
    assert capture_state(cache, 6).num_bytes == cache.layers[0].keys.nbytes * 2


def test_tensors_that_are_one_stay_one():
    cache = cache_of(DynamicSlidingWindowLayer(sliding_window=4))
    cache.layers[0].again = cache.layers[0].keys
    snapshot = capture_state(cache, 6)

    layer = build_cache(snapshot, [], new_cache=DynamicCache).layers[0]

    assert layer.again is layer.keys
    assert snapshot.num_bytes == 2 * layer.keys.nbytes


def test_an_object_graph_may_have_cycles():
    cache = cache_of(DynamicSlidingWindowLayer(sliding_window=4))
    cache.layers[0].owner = cache

    restored = build_cache(capture_state(cache, 6), [], new_cache=DynamicCache)

    assert restored.layers[0].owner is restored


def test_zeroing_a_state_leaves_the_snapshot_as_it_was():
    snapshot = capture_state(cache_of(DynamicSlidingWindowLayer(sliding_window=4)), 6)

    zeroed = zero_state(snapshot)

    assert not zeroed.frame.layers[0].keys.any()
    assert snapshot.frame.layers[0].keys.any()


@pytest.mark.parametrize("position", [5, 7])
def test_a_cache_that_does_not_hold_the_position_is_refused(position):
    with pytest.raises(UnsupportedModelError, match=f"holds 6 tokens in 'keys' after a prompt of {position}"):
        capture_state(cache_of(DynamicLayer()), position)


@pytest.mark.parametrize(
    "value",
    [OrderedDict(a=torch.ones(1)), {torch.ones(1)}, iter([1]), partial(print)],
    ids=lambda v: type(v).__name__,
)
def test_what_cannot_be_cloned_safely_is_refused_by_name(value):
    cache = cache_of(DynamicLayer())
    cache.layers[0].oddity = value

    with pytest.raises(UnsupportedModelError, match=type(value).__qualname__):
        capture_state(cache, 6)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([(0, 2), (3, 6)], "starts at token 3 where 2 was due"),
        ([(1, 6)], "starts at token 1 where 0 was due"),
        ([(0, 4)], "segments end at token 4, the snapshot stands at 6"),
        ([], "segments end at token 0, the snapshot stands at 6"),
    ],
)
def test_segments_with_a_gap_are_refused(bounds, message):
    cache = cache_of(DynamicLayer())
    segments = [slice_kv(cache, start, end) for start, end in bounds]

    with pytest.raises(CacheCorruptionError, match=message):
        build_cache(capture_state(cache, 6), segments, new_cache=DynamicCache)


def test_a_model_without_sequences_needs_no_segments():
    driver = tiny_driver("mamba2", torch.float32)
    run = run_cold(driver, prompt(100), (0, 64, 100))

    for segments in ([], run.segments[:1], [KVSegment(0, 64, {})]):
        cache = build_cache(run.snapshots[100], segments, new_cache=driver.new_cache)
        assert_same_contents(cache, run.live.cache)


def _walk(value):
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        for name, item in vars(value).items():
            if name not in ("config", "_sliding_window_tensor"):
                yield from _walk(item)
