"""Does a row hang on its prompt and the number of rows alone? Every family, many prompts, bit by bit.

    python -m benchmarks.engines.row_exactness [--family NAME ...] [--dtype NAME ...] [--prompts 50] [--json]

Tiny random models of every family in fixed rows of eight. Prompts of 3 to 300 tokens join as places become
free, get an answer of a few greedy tokens each, and leave:

* *company*: all of them twice, in two orders and with other comings and goings, so that every prompt has
  other neighbours, another slot and other widths of attention; some also by themselves among dummies. All
  tokens must be the same, and the logits behind each bit for bit.
* *control*: the logits of another prompt instead. They must *not* be the same.

Families whose sequences are advanced one by one are listed with the reason. The tiny models live with the
tests; run it from a checkout. All families take about ten minutes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash

from benchmarks.family_command import run_families
from benchmarks.printing import Row
from milepost.engines.transformers.driver import LiveCache, TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.row_probe import measure_rows
from milepost.engines.transformers.rows import BatchedRows

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from families import ALL_FAMILIES, tiny_model

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_NUM_ROWS, _NEW_TOKENS = 8, 6
_NUM_BY_THEMSELVES = 8
_LONGEST = 300
_VOCABULARY = 250

# Of one answer: each token, with a digest of the logits that it was chosen from.
_Answer = list[tuple[int, str]]
# What a prompt leaves behind, and the token that its last logits choose.
_Computed = tuple[LiveCache, int]


def measure(families: Sequence[str], dtypes: Sequence[str], num_prompts: int) -> list[Row]:
    """Return one row for each family and dtype."""
    # Tiny matrices: more threads only wait for each other.
    torch.set_num_threads(1)
    return [_measure(family, dtype, num_prompts) for family in families for dtype in dtypes]


def _measure(family: str, dtype: str, num_prompts: int) -> Row:
    driver = driver_for(tiny_model(family, _DTYPES[dtype]))
    name = f"{family}, {dtype}, rows of {_NUM_ROWS}"
    report = measure_rows(driver, _NUM_ROWS, is_fixed=True)
    if report.refusal is not None:
        return Row(
            name=name,
            measured=f"one by one: {report.refusal}",
            target="equal, or the reason",
            reached=True,
            numbers={"refusal": report.refusal},
        )
    random = np.random.default_rng(3)
    # Most are short; a few make the others' attention wider, and the bucket double.
    lengths = np.minimum(3 + random.geometric(1 / 60, num_prompts), _LONGEST)
    lengths[:4] = 3, 250, 255, _LONGEST
    prompts = [torch.from_numpy(random.integers(3, _VOCABULARY, length)) for length in lengths]
    computed = [_computed(driver, prompt) for prompt in prompts]
    expected = _answers(driver, computed, seed=1)
    others = _answers(driver, computed, seed=2)
    by_themselves = [_answers(driver, [each], seed=0)[0] for each in computed[:_NUM_BY_THEMSELVES]]
    pairs = [*zip(expected, others, strict=True), *zip(expected, by_themselves, strict=False)]
    tokens = sum(_tokens(one) != _tokens(other) for one, other in pairs)
    bits = sum(one != other for one, other in pairs)
    swapped = zip(expected, [*expected[1:], expected[0]], strict=True)
    unharmed = sum(one[0] == other[0] for one, other in swapped)
    return Row(
        name=name,
        measured=f"answers with other tokens {tokens}, with other bits {bits}; control unharmed {unharmed}",
        target=f"0 of {num_prompts}",
        reached=bits == 0 and unharmed == 0,
        numbers={
            "prompts": num_prompts,
            "token_mismatches": tokens,
            "bit_mismatches": bits,
            "control_unharmed": unharmed,
        },
    )


def _computed(driver: TransformersDriver, prompt: torch.Tensor) -> _Computed:
    live = driver.start(num_tokens=prompt.numel())
    token = int(driver.advance(live, prompt).argmax())
    return live, token


def _answers(driver: TransformersDriver, computed: Sequence[_Computed], *, seed: int) -> list[_Answer]:
    """Answer all prompts in rows, which join in the order and at the times that ``seed`` draws."""
    random = np.random.default_rng(seed)
    waiting = list(random.permutation(len(computed)))
    rows = BatchedRows(driver, _NUM_ROWS, is_fixed=True)
    running: dict[int, LiveCache] = {}
    next_tokens = [token for _, token in computed]
    answers: list[_Answer] = [[] for _ in computed]
    while waiting or running:
        while waiting and len(running) < _NUM_ROWS and (not running or random.random() < 0.7):
            index = int(waiting.pop())
            running[index] = driver.branch(computed[index][0])
        found = rows.advance(list(running.values()), [next_tokens[index] for index in running])
        for index, logits in zip(list(running), found, strict=True):
            next_tokens[index] = int(logits.argmax())
            answers[index].append((next_tokens[index], _digest(logits)))
            if len(answers[index]) == _NEW_TOKENS:
                rows.leave(running.pop(index), keeps=False)
    return answers


def _tokens(answer: _Answer) -> list[int]:
    return [token for token, _ in answer]


def _digest(logits: torch.Tensor) -> str:
    return xxhash.xxh3_128_hexdigest(logits.contiguous().view(torch.uint8).numpy().tobytes())


if __name__ == "__main__":
    run_families(measure, description=__doc__, families=ALL_FAMILIES, dtypes=list(_DTYPES))
