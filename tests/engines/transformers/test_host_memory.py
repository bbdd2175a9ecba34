"""States and KV in the host's memory, and back: the same to the bit, for every family, and bounded."""

import pytest
import torch
from resuming import prompt, run_cold, tiny_driver
from slow_device import SlowDevice

from families import ALL_FAMILIES
from milepost.engines.host_payloads import host_shelf
from milepost.engines.payloads import StoredKV, StoredState
from milepost.engines.transformers.host_memory import host_memory
from milepost.engines.transformers.snapshot import tensors_of


def memory(num_bytes: int) -> torch.Tensor:
    return torch.empty(num_bytes, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_what_comes_back_has_the_same_bits(family, dtype):
    driver = tiny_driver(family, dtype)
    run = run_cold(driver, prompt(70), (0, 64, 70))
    device = SlowDevice()
    host = host_memory(1 << 26, new_queue=lambda _: device, new_slab=memory)
    for part in (*run.snapshots.values(), *run.segments):
        held, num_bytes = host.offload(part)
        back = host.reload(held)

        assert driver.has_same_bits(back, part)
        assert part.num_bytes <= num_bytes
        # It is a copy, and the one that is held is another.
        places = [
            {each.data_ptr() for each in tensors_of(one) if each.numel()} for one in (part, back, held.part)
        ]
        assert not places[0] & places[1] | places[1] & places[2] | places[0] & places[2]


def test_a_shelf_on_the_host_holds_a_state_with_its_tail_and_lets_go_of_both():
    driver = tiny_driver("qwen3_5", torch.float32)
    run = run_cold(driver, prompt(70), (0, 64, 70))
    device = SlowDevice()
    host = host_memory(1 << 26, new_queue=lambda _: device, new_slab=memory)
    shelf = host_shelf(host)
    state = StoredState(state=run.snapshots[70], tail=run.segments[1], digest=b"state")
    piece = StoredKV(piece=run.segments[0], digest=b"piece")
    shelf.put(entry_of("state", state), state)
    shelf.put(entry_of("piece", piece), piece)
    assert shelf.stored_bytes >= shelf.raw_bytes == state.num_bytes + piece.num_bytes

    back, kv, nothing = shelf.fetch(["state", "piece", "other"])

    assert nothing is None
    assert (back.digest, kv.digest) == (b"state", b"piece")
    assert driver.has_same_bits(back.state, state.state)
    assert driver.has_same_bits(back.tail, state.tail)
    assert driver.has_same_bits(kv.piece, piece.piece)
    shelf.close()
    assert shelf.stored_bytes == shelf.raw_bytes == host._transfers._slabs.held_bytes == 0


def test_what_finds_no_room_is_lost_and_said_and_keeps_none():
    driver = tiny_driver("qwen3_5", torch.float32)
    run = run_cold(driver, prompt(70), (0, 64, 70))
    host = host_memory(1 << 17, new_queue=lambda _: SlowDevice(), new_slab=memory)
    shelf = host_shelf(host)
    # The state fits, its tail does not.
    state = StoredState(
        state=run.snapshots[70], tail=run_cold(driver, prompt(640), (0, 640)).segments[0], digest=b""
    )
    assert state.state.num_bytes < 1 << 17 < state.num_bytes

    shelf.put(entry_of("state", state), state)

    assert shelf.take_lost() == ["state"]
    assert shelf.take_lost() == []
    assert shelf.fetch(["state"]) == [None]
    assert shelf.stored_bytes == 0
    shelf.close()
    assert host._transfers._slabs.held_bytes == 0


def test_what_fails_midway_keeps_no_room():
    class Failing(SlowDevice):
        def copy(self, source, target):
            if len(self.copied) == num_tensors:
                raise RuntimeError("out of order")
            super().copy(source, target)

    driver = tiny_driver("qwen3_5", torch.float32)
    run = run_cold(driver, prompt(70), (0, 64, 70))
    num_tensors = sum(each.numel() > 0 for each in tensors_of(run.snapshots[70]))
    host = host_memory(1 << 26, new_queue=lambda _: Failing(), new_slab=memory)
    shelf = host_shelf(host)
    state = StoredState(state=run.snapshots[70], tail=run.segments[1], digest=b"state")

    with pytest.raises(RuntimeError, match="out of order"):
        shelf.put(entry_of("state", state), state)

    assert shelf.stored_bytes == 0
    shelf.close()
    assert host._transfers._slabs.held_bytes == 0


def entry_of(key, payload):
    class Named:
        num_bytes = payload.num_bytes

    Named.key = key
    return Named
