"""What is packed, written, read and unpacked is what was there: bits, strides, and the logits that follow."""

import json

import pytest
import torch
from resuming import assert_same_logits, grid_cuts, prompt, resume, run_cold, tiny_driver
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from families import ALL_FAMILIES
from milepost.disk import Packed, PackedTensor
from milepost.disk.file_format import DamagedError, decode, encode
from milepost.engines.transformers.packing import pack, unpack
from milepost.engines.transformers.snapshot import KVSegment, StateSnapshot, capture_state
from milepost.errors import CacheCorruptionError, UnsupportedModelError

NAMES = {"key": "s" + "0" * 32, "identity": "model", "entry": "row"}


def through_a_file(driver, payload):
    """Return ``payload`` as another process reads it."""
    return driver.unpack(decode(encode(driver.pack(payload), **NAMES), **NAMES))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_run_resumed_from_a_file_cannot_be_told_from_one_resumed_from_memory(family, dtype):
    driver, tokens = tiny_driver(family, dtype), prompt(140)
    cuts = grid_cuts(140, driver.alignment)
    run = run_cold(driver, tokens, cuts)
    # One with windows that are not full yet, and one with full ones.
    for position in (cuts[1], cuts[-2]):
        state = run.snapshots[position]
        read = through_a_file(driver, state)
        assert driver.has_same_bits(read, state)
        assert read.num_bytes == state.num_bytes
        assert layouts(read.frame) == layouts(state.frame)
        run.snapshots[position] = read
    for index, piece in enumerate(run.segments):
        read = through_a_file(driver, piece)
        assert driver.has_same_bits(read, piece)
        assert (read.start, read.end, read.num_bytes) == (piece.start, piece.end, piece.num_bytes)
        run.segments[index] = read

    for position in (cuts[1], cuts[-2]):
        logits, _ = resume(run, position, tokens, cuts)
        assert_same_logits(logits, {cut: run.logits[cut] for cut in logits})


def layouts(value) -> list:
    """Where each tensor of a frame lies, how, and which of them are one."""
    found, met = [], {}

    def walk(value):
        if isinstance(value, torch.Tensor):
            number = met.setdefault(id(value), len(met))
            found.append((number, value.shape, value.stride(), value.dtype, value.device))
        elif isinstance(value, dict):
            list(map(walk, value.values()))
        elif isinstance(value, list | tuple):
            list(map(walk, value))
        elif hasattr(value, "__dict__") and not isinstance(value, PreTrainedConfig | type):
            list(map(walk, vars(value).values()))

    walk(value)
    return found


@pytest.mark.parametrize("family", ["qwen3_5", "gemma3", "xlstm"])
def test_one_flipped_bit_is_refused_and_would_have_shown(family):
    driver = tiny_driver(family, torch.float32)
    state = run_cold(driver, prompt(64), (0, 64)).snapshots[64]
    packed = driver.pack(state)
    name = max(packed.tensors, key=lambda each: packed.tensors[each].num_bytes)
    tensor = packed.tensors[name]
    flipped = tensor.data.copy()
    flipped[len(flipped) // 2] ^= 1
    other = PackedTensor(tensor.dtype, tensor.shape, tensor.item_bytes, flipped)

    assert not driver.has_same_bits(
        driver.unpack(Packed({**packed.tensors, name: other}, packed.words)), state
    )

    data = bytearray(encode(packed, **NAMES))
    data[-len(data) // 3] ^= 1
    with pytest.raises(DamagedError):
        decode(bytes(data), **NAMES)


NUMBERS = torch.arange(24.0).reshape(2, 3, 4)
SHARED = torch.randn(3)


@pytest.mark.parametrize(
    "frame",
    [
        NUMBERS,
        NUMBERS.transpose(0, 2),
        NUMBERS.to(memory_format=torch.contiguous_format)[:, :1],
        NUMBERS[:, ::2],
        torch.tensor(3.0),
        torch.empty(0, 4),
        torch.empty(4, 0).T,
        torch.tensor([True, False]),
        torch.tensor([1, -(2**62)]),
        torch.tensor([float("nan"), -0.0, float("inf")], dtype=torch.float16),
        torch.tensor([1 + 2j]),
        torch.randn(4).to(torch.float8_e4m3fn),
        torch.randn(1, 1, 5).expand(2, 3, 5),
        None,
        [None, True, 7, -1.5, float("inf"), 'text with \ud7ff and "quotes"', (), [], {}],
        {0: SHARED, "0": [SHARED, (SHARED,)], None: torch.float16, True: torch.device("cpu")},
    ],
)
def test_every_kind_of_value_comes_back(frame):
    frame = clone(frame)
    state = StateSnapshot(position=5, frame=frame, num_bytes=12)
    read = unpack(pack(state, config=PreTrainedConfig()), config=PreTrainedConfig())
    assert driver_bits(read, state)
    assert layouts(read.frame) == layouts(frame)


def clone(value):
    """As a capture does: a tensor of its own."""
    return value.clone() if isinstance(value, torch.Tensor) else value


def driver_bits(one, other) -> bool:
    return tiny_driver("qwen3", torch.float32).has_same_bits(one, other)


def test_a_cycle_comes_back_as_a_cycle():
    cache = DynamicCache()
    cache.layers = [DynamicLayer()]
    cache.layers[0].owner = cache
    read = unpack(pack(StateSnapshot(0, cache, 0), config=PreTrainedConfig()), config=PreTrainedConfig())
    assert read.frame.layers[0].owner is read.frame
    assert read.frame.layer_class_to_replicate is cache.layer_class_to_replicate is not None


class OfATest:
    pass


@pytest.mark.parametrize(
    "held",
    [OfATest(), {1, 2}, b"bytes", len, torch.nn.Linear(1, 1), PreTrainedConfig(), OfATest, 1j],
    ids=lambda held: type(held).__name__,
)
def test_what_cannot_be_written_down_is_refused(held):
    state = StateSnapshot(0, [held], 0)
    with pytest.raises(UnsupportedModelError, match="cache holds a"):
        pack(state, config=PreTrainedConfig())


@pytest.mark.parametrize(
    "frame",
    [
        ["object", "os", "_Environ", []],
        ["object", "milepost.disk.packed", "Packed", []],
        ["object", "transformers.cache_utils", "nothing", []],
        ["tensor", "7", "cpu", [1]],
        ["tensor", "0", "cpu", [1 << 40]],
        ["tensor", "0", "nowhere", [1]],
        ["again", 3],
        ["dtype", "nn"],
        ["unknown", 1],
        [],
        7,
    ],
    ids=str,
)
def test_a_frame_that_was_never_packed_is_a_clear_error(frame):
    packed = pack(StateSnapshot(0, torch.arange(3.0), 12), config=PreTrainedConfig())
    words = {**packed.words, "frame": json.dumps(frame)}
    with pytest.raises(CacheCorruptionError):
        unpack(Packed(packed.tensors, words), config=PreTrainedConfig())


def test_what_is_unpacked_owns_its_memory_and_what_is_packed_is_not_copied():
    cache = DynamicCache()
    cache.update(torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4), 0)
    piece = KVSegment(0, 6, {(0, "keys"): cache.layers[0].keys})
    packed = pack(piece, config=PreTrainedConfig())
    assert packed.tensors["0"].data.ctypes.data == cache.layers[0].keys.data_ptr()
    read = unpack(packed, config=PreTrainedConfig())
    assert read.tensors[0, "keys"].data_ptr() != cache.layers[0].keys.data_ptr()
    assert read.tensors[0, "keys"].untyped_storage().nbytes() == read.num_bytes
    assert capture_state(cache, 6).num_bytes == 0
