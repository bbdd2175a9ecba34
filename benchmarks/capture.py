"""What capturing states adds to a cold prefill, and what calls of a length cost.

    python -m benchmarks.capture [--tokens 8192] [--states 32] [--dtype float32] [--turns 3]
                                 [--part engine|driver] [--json]

One layer group of Qwen3.5-0.8B. Through the real engine, cache, plan, prefill and commit: *strict* without
checkpoints, and with them captured and stored where its segments end. Through the driver alone: *one call*
over the whole prompt, the same call with the states taken from inside of it, and calls that end at each.
All take turns, so that whatever else the machine does falls on all alike; ratios are medians of the ratios
within a turn, of processor time (on a GPU, of a clock's). It also says whether calls of another length give
other bits: why strict prefill never takes a state from inside a call.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.layer_group import build_layer_group
from benchmarks.printing import Row, print_rows
from benchmarks.ratios import ratio_row
from milepost.engines.engine import Engine
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.placement import Balanced, NoCheckpoints, PlacementPolicy

_SEGMENT_TOKENS = 256
_MOST = 1.02


def measure(
    *, num_tokens: int, num_states: int, dtype: torch.dtype, num_turns: int, part: str | None = None
) -> list[Row]:
    """Return the ratios of the ways.

    Args:
        num_tokens: Of the prompt.
        num_states: Captured on its way.
        dtype: Of the model.
        num_turns: After one that warms up.
        part: ``engine`` or ``driver`` for what goes through that; both unless given.
    """
    has_gpu = torch.cuda.is_available()
    model = build_layer_group(dtype).to("cuda" if has_gpu else "cpu")
    # Processor time where a processor computes: what else the machine does is then not in it.
    clock = time.perf_counter if has_gpu else time.process_time
    random = np.random.default_rng(0)

    def engine(policy: PlacementPolicy) -> Engine:
        return Engine.open(model, capacity="4GiB", policy=policy, segment_tokens=_SEGMENT_TOKENS)

    def through(each: Engine) -> Callable[[np.ndarray], object]:
        return lambda prompt: each.generate(prompt, max_new_tokens=1)

    driver = driver_for(model)
    positions = [num_tokens * (index + 1) // num_states for index in range(num_states)]
    through_engine: dict[str, Callable[[np.ndarray], object]] = {
        "strict": through(engine(NoCheckpoints())),
        "strict with states": through(engine(Balanced(count=num_states))),
    }
    through_driver: dict[str, Callable[[np.ndarray], object]] = {
        "one call": lambda prompt: _in_calls(driver, prompt, [num_tokens]),
        "one call with states": lambda prompt: _inside(driver, prompt, positions),
        "a call for each state": lambda prompt: _in_calls(driver, prompt, positions),
    }
    ways = (through_engine if part != "driver" else {}) | (through_driver if part != "engine" else {})
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(num_turns + 1):
        # A prompt of its own every time: nothing may be reused here.
        prompt = random.integers(0, 1024, num_tokens, dtype=np.int32)
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = clock()
            ways[name](prompt)
            driver.wait_for_device()
            seconds[name].append(clock() - started)
    # The first turn warms up.
    times = {name: values[1:] for name, values in seconds.items()}
    what = f"{num_tokens:,} tokens, {num_states} states"
    pairs = (
        ("strict with states", "strict", _MOST),
        ("one call with states", "one call", _MOST),
        ("a call for each state", "one call", None),
        ("strict", "one call", None),
    )
    rows = [
        ratio_row(f"{what}: {name} / {base}", times[name], times[base], target=target)
        for name, base, target in pairs
        if name in times and base in times
    ]
    if part != "engine":
        rows.append(_bits(driver, random.integers(0, 1024, 4 * _SEGMENT_TOKENS, dtype=np.int32)))
    return rows


def _in_calls(driver: TransformersDriver, prompt: np.ndarray, ends: Sequence[int]) -> list[object]:
    live, tokens = driver.start(num_tokens=prompt.size), _on_device(driver, prompt)
    states = []
    for end in ends:
        driver.advance(live, tokens[live.position : end])
        states.append(driver.capture(live))
    return states


def _inside(driver: TransformersDriver, prompt: np.ndarray, positions: Sequence[int]) -> list[object]:
    live, tokens = driver.start(num_tokens=prompt.size), _on_device(driver, prompt)
    _, states = driver.advance_through(live, tokens, positions[:-1])
    return [*states, driver.capture(live)]


def _on_device(driver: TransformersDriver, prompt: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(prompt.astype("int64")).to(driver.device)


def _bits(driver: TransformersDriver, prompt: np.ndarray) -> Row:
    """Compare the KV of one call over a prompt with that of calls of a segment."""
    tokens, found = _on_device(driver, prompt), []
    for step in (_SEGMENT_TOKENS, prompt.size):
        live = driver.start(num_tokens=prompt.size)
        for piece in tokens.split(step):
            driver.advance(live, piece)
        found.append((driver.kv(live, 0, prompt.size), driver.capture(live)))
    (kv, state), (other_kv, other_state) = found
    is_same = driver.has_same_bits(kv, other_kv) and driver.has_same_bits(state, other_state)
    return Row(
        name=f"calls of {_SEGMENT_TOKENS} tokens and one of {prompt.size:,}: state and KV",
        measured="the same bits" if is_same else "other bits",
        target="reported",
        reached=True,
        numbers={"is_same": int(is_same)},
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=2_048, help="length of the prompt")
    parser.add_argument("--states", type=int, default=8, help="states captured on its way")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--turns", type=int, default=5, help="turns after the one that warms up")
    parser.add_argument("--part", choices=("engine", "driver"), help="both unless given")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    options = parser.parse_args()
    for name in ("states", "turns"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)}; give at least 1")
    # Fewer would be captured than the table says.
    least = options.states * (1 if options.part == "driver" else _SEGMENT_TOKENS)
    if options.tokens < least:
        parser.error(f"--tokens={options.tokens}; {options.states} states take at least {least:,}")
    rows = measure(
        num_tokens=options.tokens,
        num_states=options.states,
        dtype=getattr(torch, options.dtype),
        num_turns=options.turns,
        part=options.part,
    )
    print_rows(rows, as_json=options.json)


if __name__ == "__main__":
    main()
