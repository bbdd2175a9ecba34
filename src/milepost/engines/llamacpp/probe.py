"""What holds for this very model, found out when it is opened.

A short prompt of ordinary tokens is run several times:

* *The same bits twice*, in two contexts.
* *Any cut.* The prompt in pieces of odd lengths, none of one token, against the prompt in one go.
* *Resumed equals uninterrupted.* The state and the KV of a cut, in two pieces, put into a place that another
  prompt has used, against the run that went on. This is also the proof that what was saved apart comes back
  whole: no layout of llama.cpp's bytes is assumed anywhere.
* *A lost state shows*, or lost KV: with that of another prompt the logits must move by more than rounding
  may. Otherwise the comparisons above could not have failed.
* *Positions are looked at*: a state and KV that do not belong together must be refused.

Strict numerics wants equal bits in all of them. Fast wants no more than rounding, which is measured: the same
prompt, its last tokens one at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch

from milepost.engines.distance import logits_distance
from milepost.engines.llamacpp.driver import LlamaDriver
from milepost.engines.llamacpp.payload import LlamaKV, LlamaState
from milepost.engines.llamacpp.places import LlamaSequence
from milepost.errors import CacheCorruptionError, EngineError, UnsupportedModelError

__all__ = ["KV_TOKENS", "LlamaProbeReport", "measure_resume", "probe"]

_NUM_TOKENS = 97
# Where the prompt is cut, with no piece of one token. What is resumed ends soon: the state of a short
# convolution is forgotten after a few tokens.
_CUTS = (0, 37, 40, 83, 93, 95, _NUM_TOKENS)
_RESUME_AT = 93
_KV_CUT = 37
# Tokens of the two pieces of KV.
KV_TOKENS = (_KV_CUT, _RESUME_AT - _KV_CUT)
# The same rules as for models of transformers.
_ROUNDING_MARGIN = 1.5
_LEAST_TOLERANCE = 5e-3
_LOST_STATE_MARGIN = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaProbeReport:
    """What was measured on one model. Distances are those of ``engines.distance``: 0 for equal bits.

    Attributes:
        family: The model's architecture.
        resume_position: Where the state was taken.
        is_repeatable: Whether the model gives the same bits twice.
        cut_distance: In pieces against in one go.
        resume_distance: Resumed against uninterrupted.
        rounding_distance: In one go against the last tokens one by one.
        lost_state_distance: Resumed from the state (or the KV) of another prompt against resumed.
        checkpoint_bytes: Size of the state.
        kv_bytes: Of two pieces of KV, of ``KV_TOKENS`` tokens.
        has_state: Whether the model keeps anything beside KV.
        verdict: Whether the model is served; undecided where what another prompt left did not show.
        refusal: Why it is not, or None where it is.
        not_tested: Parts whose loss alone could not be told: none here, since a state is one piece.
    """

    family: str
    resume_position: int
    is_repeatable: bool
    cut_distance: float
    resume_distance: float
    rounding_distance: float
    lost_state_distance: float
    checkpoint_bytes: int
    kv_bytes: tuple[int, int]
    has_state: bool
    verdict: Literal["passed", "refused", "undecided"] = "passed"
    refusal: str | None = None
    not_tested: tuple[str, ...] = ()

    @property
    def tolerance(self) -> float:
        """The most that rounding may explain."""
        return max(_ROUNDING_MARGIN * self.rounding_distance, _LEAST_TOLERANCE)


def probe(driver: LlamaDriver, *, is_strict: bool, seed: int = 0) -> LlamaProbeReport:
    """Measure ``driver`` and return what was found, if it may be trusted.

    Raises:
        UnsupportedModelError: what was asked for cannot be promised. The message says why.
    """
    report = measure_resume(driver, is_strict=is_strict, seed=seed)
    if report.refusal is not None:
        raise UnsupportedModelError(f"{report.family}: {report.refusal}")
    return report


def measure_resume(driver: LlamaDriver, *, is_strict: bool, seed: int = 0) -> LlamaProbeReport:
    """Measure how ``driver`` resumes: eight short prompts.

    Raises:
        UnsupportedModelError: llama.cpp does not take back what it gave, so nothing can be measured.
    """
    try:
        report = _measure(driver, seed)
    except (EngineError, CacheCorruptionError) as error:
        raise UnsupportedModelError(f"{driver.family}: it cannot be resumed: {error}") from error
    refusal = _refusal(report, is_strict=is_strict)
    if refusal is not None:
        return replace(report, verdict="refused", refusal=refusal)
    if report.lost_state_distance < _LOST_STATE_MARGIN * report.tolerance:
        refusal = (
            f"not tested: what another prompt left moves its logits by {report.lost_state_distance:.2g}, and "
            f"rounding may explain {report.tolerance:.2g}, so it cannot be told whether it resumes"
        )
        return replace(report, verdict="undecided", refusal=refusal)
    return report


def _refusal(report: LlamaProbeReport, *, is_strict: bool) -> str | None:
    distances = (report.cut_distance, report.resume_distance, report.lost_state_distance)
    if not np.isfinite((*distances, report.rounding_distance)).all():
        return f"its logits are not finite on {_NUM_TOKENS} random tokens"
    if is_strict and not report.is_repeatable:
        return "it gives other bits each time; open it with numerics='fast'"
    allowed = 0.0 if is_strict else report.tolerance
    for distance, what in (
        (report.cut_distance, "cut into pieces against in one go"),
        (report.resume_distance, "resumed against uninterrupted"),
    ):
        if distance > allowed:
            remedy = "; open it with numerics='fast'" if distance <= report.tolerance else ""
            return f"{what}, its logits are {distance:.2g} away, where {allowed:.2g} is allowed{remedy}"
    return None


def _measure(driver: LlamaDriver, seed: int) -> LlamaProbeReport:
    tokens, foreign = _random_tokens(driver, seed)
    whole = _run(driver, tokens, (0, _NUM_TOKENS))
    again = _run(driver, tokens, (0, _NUM_TOKENS))
    one_by_one = _run(driver, tokens, (0, _RESUME_AT, *range(_RESUME_AT + 1, _NUM_TOKENS + 1)))
    cut, state, kv = _run_and_keep(driver, tokens)
    _, foreign_state, foreign_kv = _run_and_keep(driver, foreign)

    def resumed(state: LlamaState, kv: Sequence[LlamaKV]) -> torch.Tensor:
        live = driver.restore(
            state if driver.transfer.memory.has_state else None,
            kv,
            position=_RESUME_AT,
            num_tokens=_NUM_TOKENS,
        )
        return _finish(driver, live, tokens)

    continued = resumed(state, kv)
    lost = resumed(foreign_state, kv) if driver.transfer.memory.has_state else resumed(state, foreign_kv)
    _require_checked_positions(driver, state, kv)
    return LlamaProbeReport(
        family=driver.family,
        resume_position=_RESUME_AT,
        is_repeatable=torch.equal(whole, again),
        cut_distance=logits_distance(cut, whole),
        resume_distance=logits_distance(continued, cut),
        rounding_distance=logits_distance(one_by_one, whole),
        lost_state_distance=logits_distance(lost, continued),
        checkpoint_bytes=state.num_bytes,
        kv_bytes=(kv[0].num_bytes, kv[1].num_bytes),
        has_state=driver.transfer.memory.has_state,
    )


def _run(driver: LlamaDriver, tokens: torch.Tensor, cuts: Sequence[int]) -> torch.Tensor:
    live = driver.start(num_tokens=tokens.numel())
    for start, end in pairwise(cuts):
        logits = driver.advance(live, tokens[start:end])
    driver.close(live)
    return logits


def _run_and_keep(
    driver: LlamaDriver, tokens: torch.Tensor
) -> tuple[torch.Tensor, LlamaState, list[LlamaKV]]:
    """Run to the end in pieces, keeping on the way what a resumed run is built from."""
    live = driver.start(num_tokens=tokens.numel())
    for start, end in pairwise(cut for cut in _CUTS if cut <= _RESUME_AT):
        driver.advance(live, tokens[start:end])
    state = driver.capture(live)
    kv = [driver.kv(live, 0, _KV_CUT), driver.kv(live, _KV_CUT, _RESUME_AT)]
    # Otherwise the pieces would be found where they still lie.
    return _finish(driver, live, tokens), state, kv


def _finish(driver: LlamaDriver, live: LlamaSequence, tokens: torch.Tensor) -> torch.Tensor:
    for start, end in pairwise(cut for cut in _CUTS if cut >= _RESUME_AT):
        logits = driver.advance(live, tokens[start:end])
    live.forget()
    driver.close(live)
    return logits


def _require_checked_positions(driver: LlamaDriver, state: LlamaState, kv: Sequence[LlamaKV]) -> None:
    """Put together what does not belong together, past the checks of our own: llama.cpp's word must tell."""
    live = driver.start(num_tokens=_NUM_TOKENS)
    try:
        driver.transfer.put(live.context, live.number, state, kv, spare=live.spare)
        driver.transfer.require(live.context, live.number, position=_RESUME_AT)
        for position in (_RESUME_AT - 1, _RESUME_AT + 1):
            try:
                driver.transfer.require(live.context, live.number, position=position)
            except CacheCorruptionError:
                driver.transfer.put(live.context, live.number, state, kv, spare=live.spare)
                continue
            raise EngineError(f"llama.cpp says that {_RESUME_AT} tokens are {position}")
    finally:
        live.forget()
        driver.close(live)


def _random_tokens(driver: LlamaDriver, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw two prompts of ordinary tokens: a special one may reset a state."""
    random = np.random.default_rng(seed)
    model = driver.model
    ordinary = [token for token in range(model.vocabulary_size) if not model.is_special(token)]
    drawn = random.choice(ordinary or range(model.vocabulary_size), size=(2, _NUM_TOKENS))
    return torch.from_numpy(drawn[0]), torch.from_numpy(drawn[1])
