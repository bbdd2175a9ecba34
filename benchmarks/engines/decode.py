"""Eight requests decoded together: rows that come and go, beside transformers' own batched ``generate``.

    python -m benchmarks.engines.decode [--family NAME ...] [--dtype NAME ...] [--json]

Models of a middle size (hidden size 512, 8 layers, random weights). Eight prompts of 64 to 300 tokens are
prefilled, and a number of tokens of each is decoded greedily, in four ways that take turns: *generate* on the
left-padded batch, its decode steps alone; *free* and *fixed* rows (see ``engines/transformers/rows``); and
one by one. CPU seconds of the process, one thread, medians of the ratios within a turn. Target: free rows
within 1.15 of generate.
"""

import argparse
import logging
import time
from collections.abc import Callable, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from benchmarks.engines.mid_models import MID_FAMILIES, mid_model
from benchmarks.printing import Row, print_rows
from benchmarks.ratios import ratio_row
from milepost.engines.transformers.driver import LiveCache, TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.rows import BatchedRows

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PROMPT_LENGTHS = (64, 97, 131, 165, 199, 233, 266, 300)
_NUM_STEPS, _NUM_TURNS = 24, 3
_TARGET = 1.15


def measure(families: Sequence[str] = MID_FAMILIES, dtypes: Sequence[str] = tuple(_DTYPES)) -> list[Row]:
    """Return one row for each family, type and way."""
    torch.set_num_threads(1)
    return [row for family in families for dtype in dtypes for row in _measure(family, dtype)]


def _measure(family: str, dtype: str) -> list[Row]:
    model = mid_model(family, _DTYPES[dtype])
    driver = driver_for(model)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 8_000, (length,), generator=generator) for length in _PROMPT_LENGTHS]
    computed = [_computed(driver, prompt) for prompt in prompts]
    ways: dict[str, Callable[[], float]] = {
        "generate": lambda: _generate_seconds(model, prompts),
        "free": lambda: _rows_seconds(driver, computed, is_fixed=False),
        "fixed": lambda: _rows_seconds(driver, computed, is_fixed=True),
        "one by one": lambda: _single_seconds(driver, computed),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(_NUM_TURNS + 1):
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(ways[name]())
    # The first turn warms up.
    times = {name: values[1:] for name, values in seconds.items()}
    what = f"8 requests, decode, {family}, {dtype}"
    return [
        ratio_row(
            f"{what}: {name} / generate",
            times[name],
            times["generate"],
            target=_TARGET if name == "free" else None,
        )
        for name in ways
        if name != "generate"
    ]


def _computed(driver: TransformersDriver, prompt: torch.Tensor) -> tuple[LiveCache, int]:
    """Return what a prompt leaves behind, and the first token of its answer."""
    live = driver.start(num_tokens=prompt.numel())
    token = int(driver.advance(live, prompt).argmax())
    return live, token


def _lives(driver: TransformersDriver, computed: Sequence[tuple[LiveCache, int]]) -> list[LiveCache]:
    return [driver.branch(live) for live, _ in computed]


def _rows_seconds(
    driver: TransformersDriver, computed: Sequence[tuple[LiveCache, int]], *, is_fixed: bool
) -> float:
    lives = _lives(driver, computed)
    tokens = [token for _, token in computed]
    rows = BatchedRows(driver, len(lives), is_fixed=is_fixed)
    start = time.process_time()
    for _ in range(_NUM_STEPS):
        tokens = torch.stack(list(rows.advance(lives, tokens))).argmax(dim=-1).tolist()
    return time.process_time() - start


def _single_seconds(driver: TransformersDriver, computed: Sequence[tuple[LiveCache, int]]) -> float:
    lives = _lives(driver, computed)
    tokens = [token for _, token in computed]
    start = time.process_time()
    for _ in range(_NUM_STEPS):
        tokens = [
            int(driver.advance(live, torch.tensor([token])).argmax())
            for live, token in zip(lives, tokens, strict=True)
        ]
    return time.process_time() - start


class _Clock(StoppingCriteria):
    """Notes the time behind every token, and stops nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:  # type: ignore[override]
        self.times.append(time.process_time())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def _generate_seconds(model: PreTrainedModel, prompts: Sequence[torch.Tensor]) -> float:
    """Return the seconds of the decode steps: from the first token, which the prefill gave, to the last."""
    longest = max(prompt.numel() for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - prompt.numel() :] = prompt
        mask[row, longest - prompt.numel() :] = 1
    clock = _Clock()
    config = GenerationConfig(
        do_sample=False, max_new_tokens=_NUM_STEPS + 1, pad_token_id=0, eos_token_id=None
    )
    model.generate(
        ids,
        attention_mask=mask,
        generation_config=config,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    assert len(clock.times) == _NUM_STEPS + 1
    return clock.times[-1] - clock.times[0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", action="append", choices=MID_FAMILIES, help="one of several")
    parser.add_argument("--dtype", action="append", choices=tuple(_DTYPES), help="one of several")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows = measure(arguments.family or MID_FAMILIES, arguments.dtype or tuple(_DTYPES))
    print_rows(rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
