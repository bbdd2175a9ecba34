"""Does this very model, as opened, compute the same for a row whatever its company?

Some families stack silently wrong: positions that are counted in columns, a mask that is multiplied into
states, an index that mixes rows. And where answers are promised to hang on a prompt and the number of rows
alone, a kernel may still look at the rows together. So a few random prompts of different lengths are decoded
for a few tokens, and compared:

* *Against the same prompt alone*: equal up to rounding, which is measured (see ``probe``).
* *In every slot at once, and in another company, at another width, joined later*: equal in bits, where rows
  are fixed.
* *Control*: the rows of two prompts, swapped. They must be further apart than rounding explains, or none of
  this could have failed.

A choice of experts that rounding turns over moves single steps far; what is stacked wrongly is wrong in
nearly all. So a row's distance is the median of its steps.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from milepost.engines.distance import logits_distance
from milepost.engines.transformers.driver import LiveCache, TransformersDriver
from milepost.engines.transformers.ordinary_tokens import ordinary_tokens
from milepost.engines.transformers.rounding import disturbed
from milepost.engines.transformers.rows import BatchedRows
from milepost.errors import UnsupportedModelError

__all__ = ["RowReport", "measure_rows"]

# The last is longer than the fewest columns that attention reads.
_PROMPT_LENGTHS = (5, 23, 260)
_NUM_STEPS = 4
# Of each prompt, the step at which it joins the others and the one at which it has left them.
_STAYS = ((0, 3), (1, 5), (3, 7))
# The prompt that is compared from one company to another.
_COMPARED = 1
# As in ``probe``: how much farther than the measured rounding a correct row may be, what may pass unmeasured;
# and how clearly a swapped row must show, beside either.
_ROUNDING_MARGIN = 1.5
_LEAST_TOLERANCE = 5e-3
_SWAPPED_MARGIN = 4.0
# Attention that takes a mask of any shape.
_ATTENTION = frozenset({"sdpa", "eager"})


@dataclass(frozen=True, slots=True)
class RowReport:
    """What was measured on one model, and what follows from it. Distances as in ``ProbeReport``.

    Attributes:
        family: The model's ``model_type``.
        count: Most rows; in *fixed*, all of them are computed in every step.
        is_fixed: See ``rows``.
        alone_distance: The farthest row from its prompt alone; NaN where nothing was measured.
        rounding_distance: The prompts alone, with every linear layer disturbed in its last bit.
        swapped_distance: A row from the prompt of another.
        num_differences: Rows of one prompt, in all steps, whose bits were others in another slot or company.
        refusal: Why the model's sequences are advanced one by one; None where they are batched.
    """

    family: str
    count: int
    is_fixed: bool
    alone_distance: float = float("nan")
    rounding_distance: float = float("nan")
    swapped_distance: float = float("nan")
    num_differences: int = 0
    refusal: str | None = None


def measure_rows(driver: TransformersDriver, count: int, *, is_fixed: bool, seed: int = 0) -> RowReport:
    """Measure how ``driver`` computes ``count`` rows: a hundred tokens of prompts, then some thirty
    single tokens and a dozen steps.
    """
    refusal = driver.reason_against_rows or _known_reason(driver)
    if refusal is None:
        try:
            return _measure(driver, count, is_fixed=is_fixed, seed=seed)
        except torch.OutOfMemoryError:
            raise
        except UnsupportedModelError as error:
            refusal = str(error)
        except Exception as error:
            refusal = f"its forward call fails on rows: {type(error).__name__}: {error}"
    return RowReport(driver.family, count, is_fixed, refusal=refusal)


def _known_reason(driver: TransformersDriver) -> str | None:
    """Return why a model cannot be batched that a short prompt would not show."""
    config = driver.model.config.get_text_config(decoder=True)
    if driver.rotates_by_length:
        return "its positions hang on the length of a sequence, and upstream takes the longest row's for all"
    if config._attn_implementation not in _ATTENTION:
        return f"its attention is {config._attn_implementation!r}; rows need one of {sorted(_ATTENTION)}"
    if getattr(config, "attention_chunk_size", None) is not None:
        return "it attends within chunks, which no row was tried with"
    return None


def _measure(driver: TransformersDriver, count: int, *, is_fixed: bool, seed: int) -> RowReport:
    prompts = [_Prompt.computed(driver, length, seed + index) for index, length in enumerate(_PROMPT_LENGTHS)]
    alone = [_alone(driver, prompt) for prompt in prompts]
    with disturbed(driver.model, seed):
        rounded = [_alone(driver, prompt) for prompt in prompts]
    batch = BatchedRows(driver, count, is_fixed=is_fixed)
    rows = _together(batch, driver, prompts, _STAYS)
    compared = rows[_COMPARED]
    copies: list[torch.Tensor] = []
    if is_fixed:
        same = [prompts[_COMPARED]] * batch.width
        stays = [(0, _NUM_STEPS)] * batch.width
        copies = _together(BatchedRows(driver, count, is_fixed=True), driver, same, stays)
    report = RowReport(
        family=driver.family,
        count=batch.width,
        is_fixed=is_fixed,
        alone_distance=_farthest(rows, alone),
        rounding_distance=_farthest(rounded, alone),
        swapped_distance=_farthest([compared], [alone[0]]),
        num_differences=sum(
            not torch.equal(one, other) for copy in copies for one, other in zip(copy, compared, strict=True)
        ),
    )
    return replace(report, refusal=_judge(report))


def _judge(report: RowReport) -> str | None:
    """Return why the model's sequences are advanced one by one."""
    if not report.swapped_distance >= _SWAPPED_MARGIN * _LEAST_TOLERANCE:
        return f"not tested: swapped rows differ by no more than {report.swapped_distance:.2g}"
    explained = max(_ROUNDING_MARGIN * report.rounding_distance, _LEAST_TOLERANCE)
    tolerance = min(explained, report.swapped_distance / _SWAPPED_MARGIN)
    if not report.alone_distance <= tolerance:
        return (
            f"logits of rows are {report.alone_distance:.2g} away from those of the same prompts alone, "
            f"where {tolerance:.2g} is due at most and swapped rows make {report.swapped_distance:.2g}"
        )
    if report.num_differences:
        return f"the bits of one prompt differ from slot to slot or company to company of {report.count} rows"
    return None


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt that was computed, and the answer that it is made to have."""

    live: LiveCache
    answer: torch.Tensor

    @classmethod
    def computed(cls, driver: TransformersDriver, num_tokens: int, seed: int) -> "_Prompt":
        tokens = ordinary_tokens(driver, num_tokens + _NUM_STEPS, seed)
        live = driver.start(num_tokens=num_tokens)
        driver.advance(live, tokens[:num_tokens])
        return cls(live, tokens[num_tokens:])


def _alone(driver: TransformersDriver, prompt: _Prompt) -> torch.Tensor:
    """Return the logits of each step of the answer, shape ``[steps, vocabulary_size]``."""
    live = driver.branch(prompt.live)
    return torch.stack([driver.advance(live, token[None]) for token in prompt.answer])


def _together(
    rows: BatchedRows,
    driver: TransformersDriver,
    prompts: Sequence[_Prompt],
    stays: Sequence[tuple[int, int]],
) -> list[torch.Tensor]:
    """Return the logits of the steps of each prompt, which stays as long as is given with it."""
    lives = [driver.branch(prompt.live) for prompt in prompts]
    logits: list[list[torch.Tensor]] = [[] for _ in prompts]
    for step in range(max(end for _, end in stays)):
        present = [index for index, (start, end) in enumerate(stays) if start <= step < end]
        tokens = [int(prompts[index].answer[step - stays[index][0]]) for index in present]
        for index, row in zip(
            present, rows.advance([lives[index] for index in present], tokens), strict=True
        ):
            logits[index].append(row.clone())
    return [torch.stack(steps) for steps in logits]


def _farthest(some: Iterable[torch.Tensor], others: Iterable[torch.Tensor]) -> float:
    """Return the largest of the median distances of the steps that two rows have in common."""
    medians = [
        torch.tensor([logits_distance(one, other) for one, other in zip(ones, theirs, strict=False)]).median()
        for ones, theirs in zip(some, others, strict=True)
    ]
    return float(torch.stack(medians).max())
