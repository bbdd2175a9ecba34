"""Copies between a device and its host: what arrives is what was computed, whatever runs first."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_device import SlowDevice

from milepost.engines.transformers.slabs import Slabs
from milepost.engines.transformers.transfers import Transfers

DEVICE = torch.device("cpu")


def memory(num_bytes: int) -> torch.Tensor:
    return torch.empty(num_bytes, dtype=torch.uint8)


def transfers_of(device: SlowDevice, *, limit_bytes: int = 1 << 16, **options) -> Transfers:
    slabs = Slabs(memory, limit_bytes=limit_bytes, slab_bytes=1 << 12)
    return Transfers(slabs, new_queue=lambda _: device, **options)


def computed_by(device: SlowDevice, value: float, *shape: int) -> torch.Tensor:
    """Return a tensor that will hold ``value`` once the device has come to it."""
    tensor = torch.full(shape or (8,), -1.0)
    device.compute(lambda: tensor.fill_(value))
    return tensor


both_orders = pytest.mark.parametrize("prefers_copies", [True, False], ids=["copies-first", "copies-last"])


@both_orders
def test_what_comes_back_is_what_the_device_had_computed(prefers_copies):
    device = SlowDevice(prefers_copies)
    transfers = transfers_of(device)
    held = transfers.offload([computed_by(device, 3.0), computed_by(device, 4.0, 2, 5)])

    three, four = transfers.reload(held)

    assert torch.equal(three, torch.full((8,), 3.0))
    assert torch.equal(four, torch.full((2, 5), 4.0))


def test_a_copy_that_does_not_wait_for_the_device_is_caught():
    """The control of the test above."""

    class Hasty(SlowDevice):
        def follow(self) -> None:
            pass

    device = Hasty()
    transfers = transfers_of(device)
    held = transfers.offload([computed_by(device, 3.0)])

    assert torch.equal(transfers.reload(held)[0], torch.full((8,), -1.0))


def test_the_device_is_not_waited_for_on_the_way_off():
    device = SlowDevice()
    transfers = transfers_of(device)

    transfers.offload([computed_by(device, 3.0)])

    assert device.num_computed == device.num_copied == 0


def test_a_source_is_held_until_it_is_copied_and_no_longer():
    device = SlowDevice()
    transfers = transfers_of(device)
    source = computed_by(device, 3.0)
    seen = weakref.ref(source)
    transfers.offload([source])
    device.computed[-1]()
    device.computed.clear()
    device.copied = [(0, work) for _, work in device.copied]
    del source
    assert seen() is not None
    assert transfers.pending_bytes == 32

    device.run()
    device.copied.clear()
    transfers.offload([])

    assert seen() is None
    assert transfers.pending_bytes == 0


@pytest.mark.parametrize("keeps_order", [True, False], ids=["as-it-is", "control"])
def test_memory_is_used_again_only_when_no_copy_touches_it(keeps_order, monkeypatch):
    one, other = SlowDevice(), SlowDevice()
    queues = {torch.device("meta"): one, DEVICE: other}
    transfers = Transfers(
        Slabs(memory, limit_bytes=256, slab_bytes=256), new_queue=lambda device: queues[device]
    )
    if not keeps_order:
        monkeypatch.setattr("milepost.engines.transformers.transfers._are_reached", lambda marks: True)
    # A copy of one device into memory that is let go of before it ran, and then given to another device.
    first = transfers.offload([computed_by(other, 1.0)])
    queues[DEVICE] = late = SlowDevice()
    transfers._queues.clear()
    transfers.discard(first)
    second = transfers.offload([computed_by(late, 2.0)])
    late.run()
    other.run()

    assert second is not None
    assert torch.equal(second.tensors[0], torch.full((8,), 2.0)) == keeps_order


def test_what_is_on_its_way_is_bounded():
    device = SlowDevice()
    transfers = transfers_of(device, most_pending_bytes=100)
    for value in range(10):
        transfers.offload([computed_by(device, float(value))])
        assert transfers.pending_bytes <= 100
    assert 0 < device.num_copied < 10
    transfers.flush()
    assert transfers.pending_bytes == 0


def test_what_does_not_fit_is_not_held_and_its_room_is_there_again_once_another_goes():
    device = SlowDevice()
    transfers = transfers_of(device, limit_bytes=1 << 12)
    held = transfers.offload([computed_by(device, 1.0, 1000)])
    assert transfers.offload([computed_by(device, 2.0, 1000)]) is None

    transfers.discard(held)

    again = transfers.offload([computed_by(device, 2.0, 1000)])
    assert torch.equal(transfers.reload(again)[0], torch.full((1000,), 2.0))


def test_a_copy_that_fails_leaves_its_room_to_others():
    class Failing(SlowDevice):
        def copy(self, source, target):
            if source.numel() == 7:
                raise RuntimeError("out of order")
            super().copy(source, target)

    device = Failing()
    transfers = transfers_of(device, limit_bytes=1 << 12)
    with pytest.raises(RuntimeError, match="out of order"):
        transfers.offload([computed_by(device, 1.0, 900), computed_by(device, 1.0, 7)])

    assert transfers.offload([computed_by(device, 1.0, 1000)]) is not None


class FailingSome(SlowDevice):
    """One that has no room for tensors of seven numbers."""

    def copy(self, source, target):
        if source.numel() == 7:
            raise RuntimeError("out of order")
        super().copy(source, target)


def test_room_of_a_copy_that_failed_is_not_written_any_more_when_others_have_it():
    queues = [FailingSome()]
    transfers = Transfers(Slabs(memory, limit_bytes=512, slab_bytes=512), new_queue=lambda _: queues[-1])
    with pytest.raises(RuntimeError, match="out of order"):
        transfers.offload([computed_by(queues[0], 1.0), computed_by(queues[0], 1.0, 7)])
    # The room goes to a device that knows nothing of the first one's copies.
    queues.append(SlowDevice())
    transfers._queues.clear()
    held = transfers.offload([computed_by(queues[1], 2.0)])
    queues[1].run()
    queues[0].run()

    assert torch.equal(held.tensors[0], torch.full((8,), 2.0))


def test_nothing_is_written_to_a_device_any_more_once_bringing_back_has_failed():
    device = FailingSome()
    transfers = transfers_of(device)
    held = transfers.offload([computed_by(device, 1.0), computed_by(device, 1.0, 6)])
    device.run()
    held.tensors[1] = torch.ones(7)

    with pytest.raises(RuntimeError, match="out of order"):
        transfers.reload(held)

    assert device.num_copied == len(device.copied) == 3


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24).view(2, 3, 4).transpose(0, 2),
        torch.zeros(0, 4),
        torch.tensor(5, dtype=torch.int64),
        torch.arange(6, dtype=torch.bfloat16).view(2, 3),
        torch.tensor([True, False]),
        torch.arange(10)[::2],
    ],
    ids=["transposed", "empty", "scalar", "bfloat16", "bool", "gaps"],
)
def test_layouts_and_types_stay(tensor):
    transfers = transfers_of(SlowDevice())

    (back,) = transfers.reload(transfers.offload([tensor]))

    assert torch.equal(back, tensor)
    assert (back.dtype, back.stride()) == (tensor.dtype, tensor.clone().stride())


def test_tensors_of_the_host_are_copied_at_once():
    transfers = Transfers(Slabs(memory, limit_bytes=1 << 12), new_queue=lambda _: None)
    tensor = torch.ones(4)

    held = transfers.offload([tensor])
    tensor.zero_()

    assert torch.equal(transfers.reload(held)[0], torch.ones(4))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_slabs_hand_out_memory_that_nobody_else_has(data):
    slabs = Slabs(memory, limit_bytes=1 << 13, slab_bytes=1 << 11)
    held = {}
    for number in range(data.draw(st.integers(1, 40))):
        if held and data.draw(st.booleans()):
            slabs.give_back(held.pop(data.draw(st.sampled_from(sorted(held)))))
        elif (region := slabs.take(data.draw(st.integers(1, 5_000)))) is not None:
            held[number] = region
            region.memory.fill_(number)
        slabs.check()
    for number, region in held.items():
        assert bool((region.memory == number).all())
        slabs.give_back(region)
    slabs.check()
    slabs.close()
    assert slabs.held_bytes == 0


def test_an_empty_slab_gives_way_to_a_piece_of_another_size():
    made = []
    slabs = Slabs(
        lambda num_bytes: made.append(num_bytes) or memory(num_bytes), limit_bytes=1 << 12, slab_bytes=1 << 10
    )
    small = [slabs.take(250) for _ in range(16)]
    assert slabs.take(2000) is None
    for each in small:
        slabs.give_back(each)

    # The slabs are used again, ...
    slabs.give_back(slabs.take(250))
    assert made == [1 << 10] * 4
    # ... and given up for what fits into none of them.
    assert slabs.take(2000) is not None
    assert made[4:] == [1 << 12]


@pytest.mark.parametrize(
    "piece_bytes", [1_000, 1_300, 2_050, 2_500, 3_000, 4_096, 4_100, 5_000, 7_000, 8_200]
)
def test_pieces_of_any_size_fill_what_there_is(piece_bytes):
    limit_bytes = 1 << 20
    slabs = Slabs(memory, limit_bytes=limit_bytes, slab_bytes=1 << 12)
    count = 0
    while slabs.take(piece_bytes) is not None:
        slabs.check()
        count += 1

    assert count * piece_bytes >= 0.75 * limit_bytes
