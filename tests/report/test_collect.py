"""Collectors: what they gather equals a recount of everything, and does not grow with the trace."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.accounting import RequestReport
from milepost.errors import ConfigurationError
from milepost.footprint import PrefillCost
from milepost.placement import Placement, PlacementRequest
from milepost.report.collect import (
    LogHistogram,
    LossWindows,
    OverlapEnd,
    OverlapEnds,
    PlacedPositions,
    PrefillEstimates,
    PromptSample,
)
from milepost.traces import TraceRequest

PARTS = ("reused", "unseen", "alignment", "placement", "eviction")


def a_report(reused=0, unseen=0, alignment=0, placement=0, eviction=0) -> RequestReport:
    return RequestReport(
        num_tokens=reused + unseen + alignment + placement + eviction,
        reused=reused,
        unseen=unseen,
        alignment=alignment,
        placement=placement,
        eviction=eviction,
        checkpoints_stored=0,
        checkpoints_rejected=0,
    )


def a_prompt(keys, key_tokens=16, tenant="") -> TraceRequest:
    return TraceRequest(
        keys=np.array(keys, np.int64),
        key_tokens=key_tokens,
        num_tokens=len(keys) * key_tokens,
        request_id="",
        tenant=tenant,
    )


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_a_quantile_is_within_a_bin_of_the_nearest_rank(amounts, share):
    histogram = LogHistogram(bins_per_octave=64)
    for amount in amounts:
        histogram.add(amount)
    rank = max(1, int(np.ceil(share * len(amounts))))
    exact = sorted(amounts)[rank - 1]
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.0109)
    assert histogram.total == sum(each.count for each in histogram.bins()) == len(amounts)


def test_amounts_that_are_all_the_same_are_told_exactly():
    histogram = LogHistogram(bins_per_octave=1)
    for _ in range(7):
        histogram.add(8_000)
    assert histogram.quantile(0.5) == histogram.quantile(0.95) == 8_000
    assert LogHistogram(bins_per_octave=1).quantile(0.5) == 0


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 5), min_size=1, max_size=300))
def test_windows_hold_every_request_once_and_stay_few(accounts):
    losses = LossWindows(max_windows=8)
    for account in accounts:
        losses.add(a_report(*account))
    windows = losses.windows
    assert len(windows) <= 8
    assert [window.first_request for window in windows] == [
        number * losses.window_requests for number in range(len(windows))
    ]
    assert all(window.num_requests == losses.window_requests for window in windows[:-1])
    for window in windows:
        inside = accounts[window.first_request : window.first_request + window.num_requests]
        assert [getattr(window, part) for part in PARTS] == [
            sum(column) for column in zip(*inside, strict=True)
        ]
    total = losses.total()
    assert total.num_requests == len(accounts)
    assert total.num_tokens == sum(map(sum, accounts))


@pytest.mark.parametrize(
    ("prompt", "depth", "earlier", "kind"),
    [
        (range(8), 64, 64, OverlapEnd.NO_PARTING),  # goes on from the whole earlier prompt
        (range(4), 64, 128, OverlapEnd.NO_PARTING),  # is the beginning of it
        (range(8), 64, 70, OverlapEnd.NO_PARTING),  # but for a part of a block
        (range(8), 64, 128, OverlapEnd.NEW_PLACE),
    ],
)
def test_an_overlap_ends_with_a_prompt_or_at_a_parting(prompt, depth, earlier, kind):
    ends = OverlapEnds()
    trace_request = a_prompt(list(prompt))
    ends.add(
        trace_request,
        PlacementRequest(
            num_tokens=trace_request.num_tokens, overlap_depth=depth, matched_num_tokens=earlier, grid=16
        ),
    )
    assert {each: ends.num_ending(each) for each in OverlapEnd} == dict.fromkeys(OverlapEnd, 0) | {kind: 1}
    assert sum(histogram.total for histogram in ends.from_end.values()) == 1


def test_a_place_is_known_from_the_second_parting_on_and_to_its_tenant_only():
    ends = OverlapEnds()
    told = PlacementRequest(num_tokens=128, overlap_depth=64, matched_num_tokens=256, grid=16)
    for tail, tenant in enumerate(["a", "a", "a", "b"]):
        ends.add(a_prompt([1, 2, 3, 4, 10 + tail, 6, 7, 8], tenant=tenant), told)
    # The same depth after another beginning is another place.
    ends.add(a_prompt([1, 2, 3, 9, 10, 6, 7, 8], tenant="a"), told)
    assert ends.ordinals == [3, 1, 1, 0, 0, 0]
    assert ends.num_ending(OverlapEnd.KNOWN_PLACE) == 2
    assert ends.num_ending(OverlapEnd.NEW_PLACE) == 3


def test_who_shares_nothing_is_counted_apart():
    ends = OverlapEnds()
    ends.add(a_prompt([1, 2]), PlacementRequest(num_tokens=32, grid=16))
    assert (ends.num_unshared, ends.num_shared) == (1, 0)


def test_a_sample_is_the_same_requests_for_every_policy_in_order_of_arrival():
    samples = [PromptSample(size=10), PromptSample(size=10)]
    for length in range(1, 501):
        request = PlacementRequest(num_tokens=length)
        samples[0].add(request, Placement(), a_report(unseen=length))
        samples[1].add(request, Placement((length,)), a_report(unseen=length))
    first, second = ([prompt.number for prompt in sample.prompts] for sample in samples)
    assert first == second == sorted(first)
    assert len(first) == 10
    assert all(prompt.num_tokens == prompt.number for prompt in samples[0].prompts)
    assert [prompt.placed for prompt in samples[1].prompts] == [(number,) for number in second]


def test_a_sampled_prompt_tells_what_was_dropped_from_what_was_never_placed():
    sample = PromptSample()
    request = PlacementRequest(num_tokens=100, overlap_depth=90, resume_position=10)
    sample.add(request, Placement(), a_report(reused=10, unseen=10, alignment=5, placement=45, eviction=30))
    (prompt,) = sample.prompts
    ends = (prompt.resume_position, prompt.reached_position, prompt.usable_position, prompt.overlap_depth)
    assert ends == (10, 40, 85, 90)


def test_placements_are_counted_by_their_place_in_the_prompt():
    placed = PlacedPositions(num_parts=4)
    placed.add(PlacementRequest(num_tokens=100), Placement((1, 25, 99, 100)))
    placed.add(PlacementRequest(num_tokens=8), Placement())
    assert placed.counts == [1, 1, 0, 2]
    assert (placed.total, placed.num_requests) == (4, 2)


def test_a_prefill_costs_what_lies_behind_the_resume_position_and_the_pass():
    cost = PrefillCost(unit="seconds", linear_per_token=0.5, attention_per_pair=1.0, fixed_per_pass=7.0)
    warm, cold = PrefillEstimates(cost), PrefillEstimates(cost, is_cold=True)
    for estimates in (warm, cold):
        estimates.add(a_report(reused=2, unseen=2))
    assert warm.summary().mean == warm.summary().p95 == 7.0 + 0.5 * 2 + 3 + 4
    assert cold.summary().p50 == 7.0 + 0.5 * 4 + 10
    assert PrefillEstimates(cost).summary().mean == 0


@pytest.mark.parametrize(
    "broken",
    [
        lambda: LogHistogram(bins_per_octave=0),
        lambda: LossWindows(max_windows=3),
        lambda: PromptSample(size=0),
        lambda: PlacedPositions(num_parts=0),
    ],
)
def test_a_collector_of_nothing_is_refused(broken):
    with pytest.raises(ConfigurationError, match=r"give|at least"):
        broken()
