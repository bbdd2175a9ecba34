"""A run resumed from a file goes on as one from memory does, in every family and number format of keys."""

import pytest
import torch
from benchmarks.llamacpp.families import FAMILIES
from running import keep, random_tokens, restore, run

from milepost.disk import Packed
from milepost.disk.file_format import DamagedError, decode, encode
from milepost.errors import CacheCorruptionError

NAMES = {"key": "s" + "0" * 32, "identity": "model", "entry": "row"}
CASES = [*((family, "f16") for family in FAMILIES), ("qwen35", "q8_0"), ("qwen35", "f32")]


def kept_of(driver, tokens):
    live = driver.start(num_tokens=tokens.numel())
    driver.advance(live, tokens[:200])
    return keep(driver, live, (64,))


@pytest.mark.parametrize(("family", "key_type"), CASES)
def test_another_process_goes_on_from_a_file_bit_for_bit(open_driver, family, key_type):
    writer, reader = (open_driver(family, key_type=key_type) for _ in range(2))
    tokens = random_tokens(260)
    state, kv = kept_of(writer, tokens)
    read = [reader.unpack(decode(encode(writer.pack(each), **NAMES), **NAMES)) for each in (state, *kv)]

    assert all(writer.has_same_bits(one, other) for one, other in zip(read, (state, *kv), strict=True))
    warm = run(reader, restore(reader, read[0], read[1:], tokens), tokens)
    assert torch.equal(warm, run(writer, restore(writer, state, kv, tokens), tokens))


def test_one_flipped_bit_is_refused_by_the_file_and_by_the_engine(open_driver):
    driver = open_driver("qwen35")
    state, _ = kept_of(driver, random_tokens(260))
    packed = driver.pack(state)
    written = bytearray(encode(packed, **NAMES))
    written[len(written) // 2] ^= 1
    with pytest.raises(DamagedError):
        decode(bytes(written), **NAMES)

    other = decode(encode(packed, **NAMES), **NAMES)
    data = other.tensors["data"].data
    data.flags.writeable = True
    data[data.size // 2] ^= 1
    with pytest.raises(CacheCorruptionError, match="damaged"):
        driver.unpack(other)


@pytest.mark.parametrize("lost", ["kind", "position", "checksum"])
def test_a_packed_payload_without_a_word_is_refused(open_driver, lost):
    driver = open_driver("qwen35")
    packed = driver.pack(kept_of(driver, random_tokens(260))[0])
    words = {name: word for name, word in packed.words.items() if name != lost}
    with pytest.raises(CacheCorruptionError):
        driver.unpack(Packed(packed.tensors, words))
