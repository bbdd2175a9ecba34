"""Ten turns of a chat: how much of it an engine computes, beside what it could not have computed before.

    python -m benchmarks.engines.chat [--json]

A system prompt of 400 tokens; each turn the client sends all that was said, with a message of 40 tokens
between 6 of a template. Answers have 60 tokens. *Ideal* is what was never said before: the new message, the
template's tokens, and the last token of an answer, said but not computed. Target: fast numerics within 1.05
of it. Strict keeps states of prompts alone (those made by decoding round otherwise), on its own grid.
"""

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.engines.mid_models import mid_model
from benchmarks.printing import Row, run_and_print
from milepost.engines.engine import Engine

_SYSTEM, _MESSAGE, _TEMPLATE, _ANSWER = 400, 40, 6, 60
_NUM_TURNS = 10
_FAMILIES = ("qwen3_5", "mamba2", "falcon_h1")
_TARGET = 1.05


def measure(families: Sequence[str] = _FAMILIES) -> list[Row]:
    """Return a row for each family and kind of numerics."""
    return [_measure(family, numerics) for family in families for numerics in ("fast", "strict")]


def _measure(family: str, numerics: str) -> Row:
    engine = Engine.open(mid_model(family, torch.float32), numerics=numerics, capacity="1GiB", max_running=1)
    random = np.random.default_rng(0)

    def tokens(count: int) -> np.ndarray:
        return random.integers(1, engine.driver.vocabulary_size, count)

    prompt = np.concatenate((tokens(_SYSTEM), tokens(_MESSAGE + _TEMPLATE)))
    computed, ideal = 0, prompt.size
    for turn in range(_NUM_TURNS):
        completion = engine.generate(prompt, max_new_tokens=_ANSWER, ignore_end_token=True)
        report = completion.report
        computed += report.num_tokens - report.reused
        if turn:
            ideal += _MESSAGE + _TEMPLATE + 1
        prompt = np.concatenate((prompt, completion.tokens, tokens(_MESSAGE + _TEMPLATE)))
    ratio = computed / ideal
    is_fast = numerics == "fast"
    return Row(
        name=f"{family}, {numerics}: prompt tokens computed over ten turns / ideal",
        measured=f"{ratio:.3f} ({computed:,} of {ideal:,})",
        target=f"{_TARGET}" if is_fast else "-",
        reached=ratio <= _TARGET or not is_fast,
        numbers={"computed": computed, "ideal": ideal, "ratio": ratio},
    )


if __name__ == "__main__":
    run_and_print(measure)
