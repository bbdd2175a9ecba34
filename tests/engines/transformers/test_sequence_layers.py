"""Layers that grow in place: the bits of upstream's, and each byte copied once."""

import copy
from itertools import pairwise

import pytest
import torch
from copying import CopiedBytes
from hypothesis import given, settings
from hypothesis import strategies as st
from resuming import assert_same_contents, prompt, run_cold, tiny_driver
from transformers import DynamicCache
from transformers.cache_utils import (
    DynamicIndexedLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
)

from families import ALL_FAMILIES
from milepost.engines.transformers.driver import LiveCache
from milepost.engines.transformers.packing import pack
from milepost.engines.transformers.sequence_layers import plain_class, with_room
from milepost.engines.transformers.snapshot import build_cache, capture_state, copy_cache, slice_kv

SEQUENCE_LAYERS = [DynamicLayer, LinearAttentionAndFullAttentionLayer, DynamicIndexedLayer]
HEADS, WIDTH = 2, 4
TOKEN_BYTES = 2 * HEADS * WIDTH * 4


def cache_of(*layers) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache


def rows(num_tokens: int) -> torch.Tensor:
    return torch.randn(1, HEADS, num_tokens, WIDTH)


def is_roomy(layer) -> bool:
    return plain_class(type(layer)) is not type(layer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_family_computes_the_bits_that_it_computes_from_upstreams_layers(family, dtype):
    driver, tokens = tiny_driver(family, dtype), prompt(290)
    cuts = (0, 64, 128, 165, *range(166, 173), 230, 290)
    upstreams = LiveCache(driver.new_cache())
    # One outgrows its buffer on the way, and one never does.
    roomy = [LiveCache(with_room(driver.new_cache(), expected)) for expected in (1, 290)]
    kinds = {type(layer) for layer in getattr(upstreams.cache, "layers", ())}

    for start, end in pairwise(cuts):
        expected = driver.advance(upstreams, tokens[start:end])
        for live in roomy:
            assert torch.equal(driver.advance(live, tokens[start:end]), expected), f"after {end} tokens"

    for live in roomy:
        if upstreams.cache is not None:
            assert_same_contents(live.cache, upstreams.cache)
        # The control: it is not upstream's layers again that were compared.
        assert any(map(is_roomy, getattr(live.cache, "layers", ()))) == bool(kinds & set(SEQUENCE_LAYERS))


@pytest.mark.parametrize("kind", SEQUENCE_LAYERS)
@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=8), expected=st.integers(1, 900))
@settings(max_examples=25, deadline=None)
def test_a_layer_holds_what_upstreams_holds_whatever_its_room(kind, lengths, expected):
    upstreams, roomy = cache_of(kind()), with_room(cache_of(kind()), expected)
    for length in lengths:
        keys, values = rows(length), rows(length)
        for one, other in zip(upstreams.update(keys, values, 0), roomy.update(keys, values, 0), strict=True):
            assert torch.equal(one, other)
        if kind is DynamicIndexedLayer:
            index = torch.randn(1, length, 3)
            assert torch.equal(upstreams.update_indexer(index, 0), roomy.update_indexer(index, 0))
    assert roomy.get_seq_length() == upstreams.get_seq_length() == sum(lengths)


def test_a_restored_byte_is_copied_once_however_many_calls_follow():
    whole = cache_of(DynamicLayer())
    whole.update(rows(600), rows(600), 0)
    state, pieces = capture_state(whole, 600), [slice_kv(whole, 0, 256), slice_kv(whole, 256, 600)]
    more = [(rows(count), rows(count)) for count in (100, 64, *[1] * 20)]

    def copied(expected_tokens: int | None) -> int:
        with CopiedBytes() as copies:
            cache = build_cache(state, pieces, new_cache=DynamicCache, expected_tokens=expected_tokens)
            for keys, values in more:
                cache.update(keys, values, 0)
        assert cache.get_seq_length() == 784
        return copies.num_bytes

    assert copied(700) == 784 * TOKEN_BYTES
    # The control, upstream's layers: all that is there is copied with each call.
    assert copied(None) == (600 + 700 + sum(range(764, 785))) * TOKEN_BYTES


def test_a_hit_copies_its_keys_and_values_once_and_its_state_once():
    driver, tokens = tiny_driver("qwen3_5", torch.float32), prompt(330)
    run = run_cold(driver, tokens, (0, 128, 256))
    state, pieces = run.snapshots[256], run.segments

    def copied(grows_in_place: bool) -> int:
        # Of what has as many rows as the prefix, in as many heads as it is stored in.
        heads = next(iter(pieces[0].tensors.values())).shape[1]
        driver.grows_in_place = grows_in_place
        try:
            with CopiedBytes(
                lambda each: each.ndim == 4 and each.shape[1] == heads and each.shape[2] >= 256
            ) as copies:
                live = driver.restore(state, pieces, position=256, num_tokens=330)
                for start, end in pairwise((256, 320, 327, 328, 329, 330)):
                    driver.advance(live, tokens[start:end])
        finally:
            driver.grows_in_place = True
        return copies.num_bytes

    stored = sum(piece.num_bytes for piece in pieces)
    assert copied(grows_in_place=True) == stored
    assert copied(grows_in_place=False) > 5 * stored
    with CopiedBytes() as copies:
        driver.restore(state, pieces, position=256, num_tokens=330)
    assert copies.num_bytes == stored + state.num_bytes


def test_a_long_answer_outgrows_its_room_seldom():
    cache = with_room(cache_of(DynamicLayer()), 1)
    with CopiedBytes() as copies:
        for _ in range(5_000):
            cache.update(rows(1), rows(1), 0)

    assert copies.num_bytes < 9 * 5_000 * TOKEN_BYTES


def test_a_copy_goes_its_own_way_and_costs_one_copy():
    run = run_cold(tiny_driver("qwen3_5", torch.float32), prompt(128), (0, 128))
    one = run.live.cache
    before = capture_state(one, 128), slice_kv(one, 0, 128)
    with CopiedBytes() as copies:
        other = copy_cache(one, expected_tokens=128)
    assert copies.num_bytes == before[0].num_bytes + before[1].num_bytes

    run.driver.advance(LiveCache(other, 128), prompt(7, seed=3))

    driver = run.driver
    assert driver.has_same_bits(capture_state(one, 128), before[0])
    assert driver.has_same_bits(slice_kv(one, 0, 128), before[1])


def test_what_was_cropped_is_not_written_over():
    cache = with_room(cache_of(DynamicLayer()), 64)
    keys, _ = cache.update(rows(10), rows(10), 0)
    kept = keys.clone()
    cache.crop(-4)
    cache.update(rows(3), rows(3), 0)

    assert cache.get_seq_length() == 9
    assert torch.equal(keys, kept)


def test_two_copies_of_a_live_cache_do_not_write_into_one_buffer():
    cache = with_room(cache_of(DynamicLayer()), 64)
    cache.update(rows(10), rows(10), 0)
    other = copy.deepcopy(cache)
    keys, more = rows(2), rows(2)
    cache.update(keys, keys, 0)
    other.update(more, more, 0)

    assert torch.equal(cache.layers[0].keys[:, :, 10:], keys)
    assert torch.equal(other.layers[0].keys[:, :, 10:], more)


def test_other_numbers_are_not_written_behind_these():
    cache = with_room(cache_of(DynamicLayer()), 64)
    cache.update(rows(2), rows(2), 0)

    with pytest.raises(TypeError, match=r"torch.bfloat16 on cpu cannot be written behind torch.float32"):
        cache.update(rows(1).bfloat16(), rows(1).bfloat16(), 0)


def test_keys_without_values_grow_too():
    cache, upstreams = with_room(cache_of(DynamicLayer()), 64), cache_of(DynamicLayer())
    for length in (5, 1):
        keys = rows(length)
        for each in (cache, upstreams):
            _, values = each.update(keys, keys[..., :0], 0)
            assert values.shape == (1, HEADS, each.get_seq_length(), 0)


def test_values_without_width_stay_those_of_their_layers():
    cache = with_room(cache_of(*(DynamicLayer() for _ in range(6))), 64)
    for index in range(6):
        keys = torch.randn(1, index + 1, 10, WIDTH)
        cache.update(keys, keys[..., :0], index)

    layers = capture_state(cache, 10).frame.layers

    assert [layer.values.shape[1] for layer in layers] == [1, 2, 3, 4, 5, 6]
    assert len({id(layer.values) for layer in layers}) == 6


@pytest.mark.parametrize("family", ["qwen3_5", "falcon_h1", "qwen4_exp", "zaya"])
def test_what_is_captured_is_of_upstreams_classes_and_written_down_alike(family):
    driver, tokens = tiny_driver(family, torch.float32), prompt(70)
    config = driver.model.config
    packed = []
    for cache in (driver.new_cache(), with_room(driver.new_cache(), 70)):
        live = LiveCache(cache)
        driver.advance(live, tokens)
        packed.append(pack(capture_state(live.cache, 70), config=config))

    assert packed[0].words == packed[1].words
    assert "milepost" not in packed[1].words["frame"]


def test_layers_that_do_not_grow_stay_as_they_are():
    class Secretive(DynamicLayer):
        pass

    layers = [DynamicSlidingWindowLayer(sliding_window=4), Secretive()]

    assert with_room(cache_of(*layers), 9).layers == layers
    assert with_room([1, 2], 9) == [1, 2]
