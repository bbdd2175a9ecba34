"""What capturing states adds to a cold prefill, and what cutting it into segments does.

    python -m benchmarks.capture [--json]

One layer group of Qwen3.5-0.8B in bf16, 2,048 tokens a prompt, through the real engine: cache, plan,
prefill, commit. Three ways take turns, so that whatever else the machine does falls on all alike: one
forward call (*one-shot*), strict segments without checkpoints (*segments*), and strict segments with
checkpoints captured and stored (*captured*). Ratios are medians of the ratios within a turn. Target: captured
within 1.05 of segments.
"""

import statistics
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.layer_group import build_layer_group
from benchmarks.printing import Row, run_and_print
from milepost.engines.engine import Engine
from milepost.placement import Balanced, NoCheckpoints, PlacementPolicy

_NUM_TOKENS, _NUM_TURNS = 2_048, 15
_SEGMENT_TOKENS = 256
_COUNTS = (1, 4, 8)


def measure() -> list[Row]:
    """Return the ratios of the three ways."""
    model = build_layer_group(torch.bfloat16)
    random = np.random.default_rng(0)

    def engine(policy: PlacementPolicy) -> Engine:
        return Engine.open(model, capacity="2GiB", policy=policy, segment_tokens=_SEGMENT_TOKENS)

    plain = engine(NoCheckpoints())
    captured = {count: engine(Balanced(count=count)) for count in _COUNTS}

    def one_shot(prompt: np.ndarray) -> float:
        return plain.measure_prefill(len(prompt), segment_tokens=len(prompt))

    def through(each: Engine) -> Callable[[np.ndarray], float]:
        return lambda prompt: each.generate(prompt, max_new_tokens=1).ttft_seconds

    ways = {"one-shot": one_shot, "segments": through(plain)}
    ways |= {f"captured {count}": through(each) for count, each in captured.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(_NUM_TURNS + 1):
        # A prompt of its own every time: nothing may be reused here.
        prompt = random.integers(0, 1024, _NUM_TOKENS, dtype=np.int32)
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(ways[name](prompt))
    # The first turn warms up.
    times = {name: values[1:] for name, values in seconds.items()}
    rows = [_row(f"captured {count}", "segments", times, target=1.05) for count in _COUNTS]
    rows.append(_row(f"captured {_COUNTS[-1]}", "one-shot", times, target=None))
    rows.append(_row("segments", "one-shot", times, target=None))
    return rows


def _row(name: str, base: str, times: dict[str, list[float]], *, target: float | None) -> Row:
    ratios = [a / b for a, b in zip(times[name], times[base], strict=True)]
    ratio = statistics.median(ratios)
    return Row(
        name=f"cold prefill, {name} / {base}",
        measured=f"{ratio:.3f}",
        target="reported" if target is None else f"<= {target}",
        reached=target is None or ratio <= target,
        numbers={
            "ratio": ratio,
            "seconds": statistics.median(times[name]),
            "base_seconds": statistics.median(times[base]),
        },
    )


if __name__ == "__main__":
    run_and_print(measure)
