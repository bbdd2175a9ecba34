"""Simulations: numbers worked out by hand, and the same bytes every time."""

import json
from dataclasses import replace
from itertools import count

import pytest
from small_traces import four_requests, request

from milepost.errors import CapacityError, ConfigurationError, InvalidRequestError, TraceFormatError
from milepost.footprint import Footprint
from milepost.simulator import Setting, SimulationResult, nominal_footprint, simulate, simulate_all
from milepost.traces import open_trace

PLENTY = {"policy": "tail", "capacity_kv_tokens": 1_000, "checkpoint_kv_tokens": 10}


def test_a_result_is_what_a_person_works_out_on_paper():
    result = simulate(four_requests(), **PLENTY, name="four")
    assert json.dumps(result.as_json(), indent=1).splitlines() == [
        "{",
        ' "trace": "four",',
        ' "policy": "tail",',
        ' "capacity_kv_tokens": 1000,',
        ' "checkpoint_kv_tokens": 10,',
        ' "num_requests": 4,',
        ' "input_tokens": 248,',
        ' "reused_tokens": 96,',
        f' "reused_fraction": {96 / 248},',
        f' "ceiling_fraction": {144 / 248},',
        ' "mean_checkpoints_per_request": 0.75,',
        ' "peak_kv_tokens": 94,',
        ' "lost": {',
        '  "unseen": 88,',
        '  "placement": 48,',
        '  "eviction": 0,',
        '  "alignment": 16',
        " },",
        ' "seconds": null,',
        ' "num_warm_up_requests": 0',
        "}",
    ]


def test_a_tight_budget_loses_to_eviction_and_says_so():
    # C evicts A's state at 48, so D resumes from C's at 32; D then evicts B's at 64.
    result = simulate(four_requests(), **PLENTY | {"capacity_kv_tokens": 84})
    assert (result.reused_tokens, result.lost.eviction, result.peak_kv_tokens) == (80, 16, 84)
    assert result.mean_checkpoints_per_request == 1.0


def test_the_ceiling_is_endless_memory_with_a_checkpoint_at_every_block():
    trace = list(open_trace("synthetic:agents,requests=80,seed=5"))
    reached = simulate(trace, policy="dense:16", capacity_kv_tokens=10**9, checkpoint_kv_tokens=1)
    assert reached.reused_fraction == reached.ceiling_fraction > 0.5


def test_on_a_coarser_grid_the_ceiling_is_lower():
    fine, coarse = (simulate(four_requests(), **PLENTY, grid=grid) for grid in (16, 64))
    assert coarse.ceiling_fraction == 64 / 248
    assert coarse.ceiling_fraction < fine.ceiling_fraction


def test_token_ids_are_replayed_on_a_grid_of_64():
    prompt = [request(*range(200), block=1), request(*range(200), block=1)]
    result = simulate(prompt, **PLENTY)
    assert (result.reused_tokens, result.lost.alignment) == (192, 8)


def test_runs_together_are_runs_one_by_one():
    trace = open_trace("synthetic:documents,requests=60,seed=3")
    settings = [
        Setting(policy=policy, capacity_kv_tokens=capacity, footprint=nominal_footprint(500.0))
        for policy in ("learned", "tail+junction", "histogram-dp:3")
        for capacity in (20_000, 100_000)
    ]
    together = simulate_all(trace, settings)
    alone = [
        simulate(
            trace,
            policy=setting.policy,
            capacity_kv_tokens=setting.capacity_kv_tokens,
            checkpoint_kv_tokens=500.0,
        )
        for setting in settings
    ]
    assert together == alone


@pytest.mark.parametrize("policy", ["learned", "tail+junction", "balanced:3"])
def test_a_trace_that_streams_gives_the_same_bytes_as_a_list_twice(policy):
    trace = open_trace("synthetic:chat,requests=80,seed=1")
    options = {"policy": policy, "capacity_kv_tokens": 30_000, "checkpoint_kv_tokens": 1_536}
    first, second = (json.dumps(simulate(trace, **options).as_json()) for _ in range(2))
    assert first == second == json.dumps(simulate(list(trace), **options, name=trace.name).as_json())


def test_every_token_is_accounted_for():
    result = simulate(open_trace("synthetic:drifting,requests=100"), **PLENTY | {"capacity_kv_tokens": 9_000})
    lost = result.lost
    assert result.input_tokens == result.reused_tokens + (
        lost.unseen + lost.placement + lost.eviction + lost.alignment
    )
    assert result.peak_kv_tokens <= 9_000


def test_the_watcher_sees_every_request_as_it_is_served():
    seen = []
    result = simulate(four_requests(), **PLENTY, observe=lambda replayed: seen.append(replayed.report.reused))
    assert sum(seen) == result.reused_tokens
    assert len(seen) == 4


def test_seconds_come_from_the_clock_that_was_given():
    ticks = count()
    assert simulate(four_requests(), **PLENTY, clock=lambda: next(ticks)).seconds == 4


def test_a_known_ceiling_is_not_found_again():
    assert simulate(four_requests(), **PLENTY, ceiling_fraction=0.25).ceiling_fraction == 0.25


def test_a_footprint_sets_the_unit_and_the_cost():
    footprint = Footprint(checkpoint_bytes=3_293_184, kv_bytes_per_token=2_048)
    result = simulate(
        four_requests(), policy="tail", capacity_kv_tokens=10_000, checkpoint_kv_tokens=footprint
    )
    assert (result.checkpoint_kv_tokens, result.reused_tokens) == (1608.0, 96)


def test_a_model_without_kv_is_counted_in_nominal_tokens():
    footprint = Footprint(checkpoint_bytes=16_384 * 10, kv_bytes_per_token=0)
    result = simulate(four_requests(), policy="tail", capacity_kv_tokens=20, checkpoint_kv_tokens=footprint)
    assert (result.checkpoint_kv_tokens, result.peak_kv_tokens) == (10, 20)


def test_a_model_without_state_resumes_from_kv_alone():
    result = simulate(four_requests(), **PLENTY | {"checkpoint_kv_tokens": 0})
    assert result.reused_fraction == result.ceiling_fraction


def test_a_result_survives_json():
    result = simulate(four_requests(), **PLENTY)
    assert SimulationResult.from_json(json.loads(json.dumps(result.as_json()))) == result


def test_times_and_ids_change_nothing():
    plain = four_requests()
    clocks = [5.0, 1e12, 0.0, 1e-9]
    strange = [
        replace(one, arrival_seconds=at, request_id="same", session="s")
        for one, at in zip(plain, clocks, strict=True)
    ]
    assert simulate(plain, **PLENTY) == simulate(strange, **PLENTY)


def test_a_trace_of_one_request_reuses_nothing_of_nothing():
    result = simulate([request(1, 2)], **PLENTY)
    assert (result.num_requests, result.reused_tokens, result.ceiling_fraction) == (1, 0, 0.0)


def test_prompts_shorter_than_the_grid_are_counted_and_never_cached():
    result = simulate([request(1, 2, 3, block=1)] * 5, **PLENTY)
    assert (result.input_tokens, result.lost.alignment, result.peak_kv_tokens) == (15, 12, 0)


@pytest.mark.parametrize("policy", ["learned", "tail+junction", "dense:16", "balanced:4"])
def test_a_prompt_larger_than_the_budget_is_served_all_the_same(policy):
    long = request(*range(1_000))
    result = simulate(
        [long, request(1, 2, 3), long], policy=policy, capacity_kv_tokens=200, checkpoint_kv_tokens=50
    )
    assert result.num_requests == 3
    assert result.peak_kv_tokens <= 200


@pytest.mark.parametrize(("policy", "num_requests"), [("tail+junction", 20_000), ("learned", 4_000)])
def test_thousands_of_tiny_requests_stay_within_the_budget(policy, num_requests):
    tiny = (request(index % 1_000, index % 7 + 10_000, num_tokens=20) for index in range(num_requests))
    result = simulate(tiny, policy=policy, capacity_kv_tokens=2_000, checkpoint_kv_tokens=10)
    assert result.num_requests == num_requests
    assert 0 < result.peak_kv_tokens <= 2_000


def test_an_empty_trace_is_refused():
    with pytest.raises(TraceFormatError, match="holds no request"):
        simulate([], **PLENTY)


def test_a_budget_that_cannot_hold_one_checkpoint_is_refused_with_the_least_that_can():
    with pytest.raises(CapacityError, match=r"capacity_kv_tokens=1,551 .* give at least 1,552"):
        simulate(four_requests(), policy="tail", capacity_kv_tokens=1_551, checkpoint_kv_tokens=1_536)
    assert simulate(four_requests(), policy="tail", capacity_kv_tokens=1_552, checkpoint_kv_tokens=1_536)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"policy": "tale"}, "did you mean 'tail'"),
        ({"grid": 24}, "give a multiple of the block"),
        ({"checkpoint_kv_tokens": -1}, "at least 0"),
        ({"checkpoint_kv_tokens": float("nan")}, "finite"),
    ],
)
def test_options_that_break_a_rule_are_refused(change, says):
    with pytest.raises(ConfigurationError, match=says):
        simulate(four_requests(), **PLENTY | change)


def test_block_sizes_are_not_mixed():
    with pytest.raises(InvalidRequestError, match="keep requests of different block sizes apart"):
        simulate([request(1), request(1, block=32)], **PLENTY)


def test_the_clairvoyant_is_told_the_future_and_reuses_at_least_as_much():
    trace = open_trace("synthetic:chat,requests=150,seed=4")
    settings = [
        Setting(policy=policy, capacity_kv_tokens=15_000, footprint=nominal_footprint(1_000.0))
        for policy in ("clairvoyant", "vllm")
    ]
    bound, peer = simulate_all(iter(trace), settings, name="chat")
    assert bound.num_requests == peer.num_requests == 150
    assert bound.reused_tokens > peer.reused_tokens
