"""A self-probe: does this very model, as opened, continue from a restored state as if nothing had happened?

A family name proves little. Several families of transformers accept a cache, run, and return plausible but
wrong logits; a new one may do so tomorrow. So a model is asked, on a short prompt of random tokens:

* *Resumed equals uninterrupted.* A cache rebuilt from a snapshot gives the same bits as the one that lived
  on. Otherwise state hides where no snapshot reaches.
* *Resumed agrees with one-shot.* The whole prompt in one forward call, from nothing, is the truth that a
  family which ignores its state cannot reach. It is reached up to rounding only. How far rounding carries in
  this model, at this precision, is measured too: every linear layer's output is disturbed in its last bit.
* *A lost state shows.* The same state, zeroed, must change the logits by more than rounding may. Otherwise
  the comparisons above could not have failed, and say nothing: then the model is *undecided*, and no more
  served than one that failed.
* *A longer prompt is rotated alike*, or by a rule that is known (``far_positions``).

The uninterrupted run has upstream's own layers, the resumed one those that it is served with, which grow in
place (``sequence_layers``). Where the model computes other bits from them, it is served with upstream's.

The prompt is cut at the alignment, then at an odd place where the snapshot is taken, and ends in one token
and two more: near the cut, where a lost state or a lost convolution context weighs most, with both code paths
that families have, and last the one (several tokens after a past) that upstream itself hardly ever takes.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from itertools import accumulate, pairwise

import torch

from milepost.engines.distance import logits_distance
from milepost.engines.transformers.driver import LiveCache, TransformersDriver
from milepost.engines.transformers.failing_call import failing_call
from milepost.engines.transformers.far_positions import FarPositions, measure_far_positions
from milepost.engines.transformers.ordinary_tokens import ordinary_tokens
from milepost.engines.transformers.rounding import disturbed
from milepost.engines.transformers.snapshot import (
    KVSegment,
    StateSnapshot,
    build_cache,
    capture_state,
    slice_kv,
    state_parts,
    zero_state,
)
from milepost.errors import UnsupportedModelError

__all__ = ["ProbeReport", "Verdict", "measure_resume", "probe_resume"]

_log = logging.getLogger(__name__)

# Lengths of the last three segments. The snapshot is taken before the last two.
_TAIL = (37, 1, 2)
# How many times the alignment is prefilled before them, and what is added to the seed: what was undecided is
# tried on a longer prompt, and then on another one.
_TRIES = ((1, 0), (4, 0), (4, 1))
# On tiny random models of 24 families a correct one stays within 1.1 times the rounding that was measured,
# and the mildest wrong one (positions that start over, one attention layer in four) is twice as far or more.
_ROUNDING_MARGIN = 1.5
# Tokens of the probed prompt that are also run on their own, where a model is about to be refused.
_NUM_ALONE = 9
# Rounding that may pass unmeasured, such as tensor cores at work in a float32 model.
_LEAST_TOLERANCE = 5e-3
# A lost state must show this many times as clearly as the most that is tolerated.
_LOST_STATE_MARGIN = 2.0


class Verdict(StrEnum):
    """What a probe says. Only a model that passed is served."""

    PASSED = "passed"
    REFUSED = "refused"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What was measured on one model, and what follows from it.

    Distances between logits are relative: the norm of the difference over the norm of the centred logits,
    0 for equal, about 1.4 for unrelated ones.

    Attributes:
        family: The model's ``model_type``.
        positions: Cuts of the probed prompt, its length last.
        resume_position: The cut that a snapshot was taken at and resumed from.
        resume_difference: Largest difference of a logit, resumed against uninterrupted; 0 is bitwise.
        is_repeatable: Whether the model gives the same bits twice. Measured where they differed, else True.
        one_shot_distance: Resumed against one forward call over the whole prompt.
        rounding_distance: That call against itself with every linear layer disturbed in its last bit.
        lost_state_distance: Resumed against resumed from a zeroed state (zeroed keys and values where the
            model has no state).
        lost_part_distances: The same for each part of the state alone, by the name that the cache has for it.
        not_tested: Parts whose loss did not show above rounding: that they are restored as they were is
            certain, that the model goes on from them is not.
        checkpoint_bytes: Size of the snapshot.
        kv_bytes_per_token: Size of the sequence tensors over the tokens they hold.
        has_state: Whether the model keeps anything beside sequence tensors.
        far_positions: What a token much later changes; None where nobody tells the model positions, or where
            something else decided before.
        verdict: Whether the model is served. *Undecided* means that nothing was tested, since a lost state
            did not show.
        refusal: Why the model is not served, or None where it is.
    """

    family: str
    positions: tuple[int, ...]
    resume_position: int
    resume_difference: float
    is_repeatable: bool
    one_shot_distance: float
    rounding_distance: float
    lost_state_distance: float
    lost_part_distances: dict[str, float]
    not_tested: tuple[str, ...]
    checkpoint_bytes: int
    kv_bytes_per_token: float
    has_state: bool
    far_positions: FarPositions | None
    verdict: Verdict
    refusal: str | None


def probe_resume(driver: TransformersDriver, *, seed: int = 0) -> ProbeReport:
    """Measure ``driver`` and return what was found, if it may be trusted.

    Raises:
        UnsupportedModelError: The model cannot be resumed exactly. The message names its family and why.
    """
    report = measure_resume(driver, seed=seed)
    if report.refusal is not None:
        raise UnsupportedModelError(f"{report.family}: {report.refusal}")
    return report


def measure_resume(driver: TransformersDriver, *, seed: int = 0) -> ProbeReport:
    """Measure how ``driver`` resumes: fourteen forward calls, two of them over the whole prompt in one go.

    A driver whose model computes other bits from layers that grow in place is told to do without them. A
    prompt on which a lost state does not show is followed by one that is about four times as long, and that
    one by another.

    Raises:
        UnsupportedModelError: The model's forward call fails on a cache, so nothing can be measured.
    """
    for num_grid_steps, further in _TRIES:
        lengths = (num_grid_steps * driver.alignment, *_TAIL)
        try:
            report = _probe(driver, lengths, seed + further)
            if driver.has_room and report.resume_difference and report.is_repeatable:
                driver.grows_in_place = False
                report = _probe(driver, lengths, seed + further)
                if not report.resume_difference:
                    _log.info(
                        "%s: its keys and values are copied with each call, since it computes other bits "
                        "from those that grow in place",
                        driver.family,
                    )
        except torch.OutOfMemoryError:
            raise
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{driver.family}: {error}") from error
        except Exception as error:
            raise UnsupportedModelError(f"{driver.family}: {failing_call(driver, error)}") from error
        if report.verdict is not Verdict.UNDECIDED:
            break
    return report


def _probe(driver: TransformersDriver, segment_lengths: tuple[int, ...], seed: int) -> ProbeReport:
    """Return what one prompt says."""
    cuts = (0, *accumulate(segment_lengths))
    resume_position = cuts[-3]
    tokens = ordinary_tokens(driver, cuts[-1], seed)
    uninterrupted, snapshot, segments = _run_with_snapshot(driver, tokens, cuts, resume_position)
    suffix = [cut for cut in cuts if cut >= resume_position]

    room = cuts[-1] if driver.has_room else None

    def resumed_from(state: StateSnapshot, before: list[KVSegment]) -> torch.Tensor:
        cache = build_cache(state, before, new_cache=driver.new_cache, expected_tokens=room)
        return _run(driver, LiveCache(cache=cache, position=resume_position), tokens, suffix)

    resumed = resumed_from(snapshot, segments)
    is_repeatable = torch.equal(resumed, uninterrupted) or torch.equal(
        uninterrupted, _run(driver, LiveCache(cache=driver.new_cache()), tokens, cuts)
    )
    has_state = snapshot.num_bytes > 0
    lost = resumed_from(zero_state(snapshot), segments if has_state else [_zero(piece) for piece in segments])
    lost_parts = {
        part: logits_distance(resumed_from(zero_state(snapshot, part=part), segments), resumed)
        for part in (state_parts(snapshot) if has_state else ())
    }
    one_shot = _run(driver, driver.start(), tokens, (0, cuts[-1]))
    with disturbed(driver.model, seed):
        rounded = _run(driver, driver.start(), tokens, (0, cuts[-1]))
    distances = _Distances(
        resume=logits_distance(resumed, uninterrupted),
        one_shot=logits_distance(resumed, one_shot),
        rounding=logits_distance(rounded, one_shot),
        lost_state=logits_distance(lost, resumed),
    )
    verdict, refusal = _judge(distances, is_repeatable, cuts[-1])
    if verdict is Verdict.REFUSED and (reason := _company_counts(driver, tokens, distances.tolerance)):
        refusal = reason
    far_positions = measure_far_positions(driver, tokens) if verdict is Verdict.PASSED else None
    if far_positions is not None:
        refusal = far_positions.refusal(distances.tolerance, is_repeatable=is_repeatable)
    if refusal is not None and verdict is Verdict.PASSED:
        verdict = Verdict.REFUSED
    return ProbeReport(
        family=driver.family,
        positions=cuts[1:],
        resume_position=resume_position,
        resume_difference=(resumed - uninterrupted).nan_to_num().abs().max().item(),
        is_repeatable=is_repeatable,
        one_shot_distance=distances.one_shot,
        rounding_distance=distances.rounding,
        lost_state_distance=distances.lost_state,
        lost_part_distances=lost_parts,
        not_tested=tuple(part for part, lost in lost_parts.items() if lost <= distances.tolerance),
        checkpoint_bytes=snapshot.num_bytes,
        kv_bytes_per_token=sum(piece.num_bytes for piece in segments) / resume_position,
        has_state=has_state,
        far_positions=far_positions,
        verdict=verdict,
        refusal=refusal,
    )


@dataclass(frozen=True, slots=True)
class _Distances:
    resume: float
    one_shot: float
    rounding: float
    lost_state: float

    @property
    def tolerance(self) -> float:
        """The most that rounding may explain."""
        return max(_ROUNDING_MARGIN * self.rounding, _LEAST_TOLERANCE)


def _judge(distances: _Distances, is_repeatable: bool, num_tokens: int) -> tuple[Verdict, str | None]:
    """Return what the distances say, and why, where the model is not to be served."""
    if not all(math.isfinite(distance) for distance in astuple(distances)):
        return Verdict.REFUSED, f"its logits are not finite on {num_tokens} random tokens"
    tolerance = distances.tolerance
    if distances.resume > (0.0 if is_repeatable else tolerance):
        return Verdict.REFUSED, (
            f"resumed logits are {distances.resume:.2g} away from uninterrupted ones, where 0 is due: "
            "it keeps state where no snapshot of its cache reaches"
        )
    if distances.one_shot > tolerance:
        return Verdict.REFUSED, (
            f"resumed logits are {distances.one_shot:.2g} away from those of one forward call over the whole "
            f"prompt, where rounding explains {tolerance:.2g} and a lost state makes "
            f"{distances.lost_state:.2g}: its code does not continue from the state it is given"
        )
    if distances.lost_state < _LOST_STATE_MARGIN * tolerance:
        return Verdict.UNDECIDED, (
            f"not tested: zeroing its state moves the logits by {distances.lost_state:.2g} after "
            f"{num_tokens} tokens, and rounding may explain {tolerance:.2g}, so it cannot be told whether it "
            "resumes"
        )
    return Verdict.PASSED, None


def _company_counts(driver: TransformersDriver, tokens: torch.Tensor, tolerance: float) -> str | None:
    """Say so if what is computed for a token depends on those after it in the same call: then no cut prompt
    agrees with a whole one, and the state is not to blame.
    """
    alone = driver.advance(driver.start(), tokens[:_NUM_ALONE])
    distance = logits_distance(alone, driver.logits_after(_NUM_ALONE, tokens))
    if not distance > tolerance:
        return None
    return (
        f"the logits after {_NUM_ALONE} tokens move by {distance:.2g} when {tokens.numel() - _NUM_ALONE} "
        f"more follow in the same call, where rounding explains {tolerance:.2g}: what it computes for one "
        "depends on the company, as where activations are quantised by a scale that a whole call shares; "
        "quantise weights alone, or activations token by token"
    )


def _run_with_snapshot(
    driver: TransformersDriver, tokens: torch.Tensor, cuts: Sequence[int], position: int
) -> tuple[torch.Tensor, StateSnapshot, list[KVSegment]]:
    """Run to the end in one go, keeping at ``position`` what a resumed request is built from."""
    live = LiveCache(cache=driver.new_cache())
    _run(driver, live, tokens, [cut for cut in cuts if cut <= position])
    snapshot = capture_state(live.cache, position)
    segments = [
        slice_kv(live.cache, start, end) for start, end in pairwise(cut for cut in cuts if cut <= position)
    ]
    return _run(driver, live, tokens, [cut for cut in cuts if cut >= position]), snapshot, segments


def _run(
    driver: TransformersDriver, live: LiveCache, tokens: torch.Tensor, cuts: Sequence[int]
) -> torch.Tensor:
    """Advance ``live`` through the segments between ``cuts``; return the last logits in float32."""
    for start, end in pairwise(cuts):
        logits = driver.advance(live, tokens[start:end])
    return logits.float()


def _zero(segment: KVSegment) -> KVSegment:
    tensors = {key: torch.zeros_like(tensor) for key, tensor in segment.tensors.items()}
    return KVSegment(start=segment.start, end=segment.end, tensors=tensors)
