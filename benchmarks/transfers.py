"""What keeping states in the host's memory costs a prefill on a GPU, and whether what comes back is the same.

    python -m benchmarks.transfers [--tokens 8192] [--states 32] [--turns 5] [--json]

One layer group of Qwen3.5-0.8B in bf16 on a CUDA device, states taken where segments end. Takes turns:

* *none*: the states are taken and let go of.
* *beside*: each is copied to pinned memory by a stream of its own, while the prefill goes on.
* *waited for*: each is copied as bytes while the prefill waits, which is what other devices do.

Then every state is fetched, and compared bit for bit with the one that was taken; the control is a queue of
copies that does not wait for what the device is at. It ends at once where there is no CUDA device.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.layer_group import build_layer_group
from benchmarks.printing import Row, print_rows
from benchmarks.ratios import ratio_row
from milepost.engines.host_memory import HostMemory, PackedParts
from milepost.engines.transformers.cuda_copies import CudaCopies, pinned_memory
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.host_memory import host_memory, pinned_host_memory

_HOST_BYTES = 2 << 30
_MOST = 1.02


class _Hasty(CudaCopies):
    """Copies that wait for nothing."""

    def follow(self) -> None:
        """See ``CopyQueue``."""


def measure(*, num_tokens: int, num_states: int, num_turns: int) -> list[Row]:
    """Return the ratios of the ways, and what came back."""
    driver = driver_for(build_layer_group(torch.bfloat16).to("cuda"))
    ways: dict[str, Callable[[], HostMemory | None]] = {
        "none": lambda: None,
        "beside": lambda: pinned_host_memory(_HOST_BYTES),
        "waited for": lambda: PackedParts(driver.pack, driver.unpack),
    }
    memories = {name: new() for name, new in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens = torch.randint(0, 1024, (num_tokens,), device="cuda")
    for _ in range(num_turns + 1):
        for name, memory in memories.items():
            driver.wait_for_device()
            started = time.perf_counter()
            held = _prefill(driver, tokens, num_states, memory)
            driver.wait_for_device()
            seconds[name].append(time.perf_counter() - started)
            for each in held:
                assert memory is not None
                memory.discard(each)
    base = seconds["none"][1:]
    what = f"{num_tokens:,} tokens, {num_states} states to the host"
    rows = [
        ratio_row(f"{what}: {name} / none", seconds[name][1:], base, target=target)
        for name, target in (("beside", _MOST), ("waited for", None))
    ]
    hasty = host_memory(_HOST_BYTES, new_queue=_Hasty, new_slab=pinned_memory)
    rows.append(_fetched(driver, tokens, num_states, pinned_host_memory(_HOST_BYTES), is_control=False))
    rows.append(_fetched(driver, tokens, num_states, hasty, is_control=True))
    return rows


def _prefill(
    driver: TransformersDriver, tokens: torch.Tensor, num_states: int, memory: HostMemory | None
) -> list[Any]:
    live, held = driver.start(num_tokens=tokens.numel()), []
    for piece in tokens.split(tokens.numel() // num_states):
        driver.advance(live, piece)
        state = driver.capture(live)
        if memory is not None:
            offloaded = memory.offload(state)
            assert offloaded is not None, "there is room for all of them"
            held.append(offloaded[0])
    return held


def _fetched(
    driver: TransformersDriver, tokens: torch.Tensor, num_states: int, memory: HostMemory, *, is_control: bool
) -> Row:
    live, wrong = driver.start(num_tokens=tokens.numel()), 0
    for piece in tokens.split(tokens.numel() // num_states):
        driver.advance(live, piece)
        state = driver.capture(live)
        offloaded = memory.offload(state)
        assert offloaded is not None
        wrong += not driver.has_same_bits(memory.reload(offloaded[0]), state)
        memory.discard(offloaded[0])
    name = (
        "states fetched with other bits, copies that wait for nothing"
        if is_control
        else "states fetched with other bits"
    )
    return Row(
        name=name,
        measured=f"{wrong} of {num_states}",
        target="above 0" if is_control else "0",
        reached=(wrong > 0) == is_control,
        numbers={"wrong": wrong},
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=8_192, help="length of the prompt")
    parser.add_argument("--states", type=int, default=32, help="states taken on its way")
    parser.add_argument("--turns", type=int, default=5, help="turns after the one that warms up")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.transfers: there is no CUDA device here, and nothing else to measure")
    rows = measure(num_tokens=options.tokens, num_states=options.states, num_turns=options.turns)
    print_rows(rows, as_json=options.json)


if __name__ == "__main__":
    main()
