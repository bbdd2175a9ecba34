"""Every policy keeps the contract for any request, and each heuristic places what its docstring says."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.errors import ConfigurationError
from milepost.placement import (
    Balanced,
    Dense,
    Dyadic,
    HistogramDP,
    Junction,
    NoCheckpoints,
    Offsets,
    Periodic,
    PlacementPolicy,
    PlacementRequest,
    PromptTail,
    SquareRoot,
    TailAndJunction,
)
from milepost.policies import parse_policy

EVERY_POLICY = [
    "none",
    "dense:100",
    "periodic:300",
    "balanced:5",
    "sqrt",
    "dyadic:100",
    "tail",
    "junction",
    "tail+junction",
    "offsets:start=10+500,end=0+64+192,every=400",
    "histogram-dp:4",
    "learned",
]


@st.composite
def requests(draw):
    num_tokens = draw(st.integers(1, 3000))
    overlap_depth = draw(st.integers(0, num_tokens))
    grid = draw(st.sampled_from([1, 16, 64, 100]))
    steps = overlap_depth // grid
    stored = sorted(draw(st.sets(st.integers(1, steps), max_size=4))) if steps else []
    usable = [step * grid for step in stored if step * grid <= min(overlap_depth, num_tokens - 1)]
    return PlacementRequest(
        num_tokens=num_tokens,
        overlap_depth=overlap_depth,
        resume_position=usable[-1] if usable else 0,
        grid=grid,
        checkpoint_positions=tuple(step * grid for step in stored),
        checkpoint_bytes=draw(st.sampled_from([0, 800, 6700])),
        kv_bytes_per_token=draw(st.sampled_from([0, 1])),
        max_checkpoints=draw(st.sampled_from([0, 1, 2, 7, 1 << 30])),
        affordable_position=draw(st.none() | st.integers(0, 3000)),
        matched_num_tokens=draw(st.none() | st.integers(overlap_depth, overlap_depth + 500)),
    )


@pytest.mark.parametrize("notation", EVERY_POLICY)
@settings(deadline=None, max_examples=40)
@given(history=st.lists(requests(), max_size=12), request=requests())
def test_any_policy_keeps_the_contract_whatever_it_has_seen(notation, history, request):
    policy = parse_policy(notation).placement
    for earlier in history:
        policy.place(earlier)
        policy.observe(earlier)
    positions = policy.place(request).positions
    assert all(p % request.grid == 0 for p in positions)
    assert all(request.resume_position < p <= request.num_tokens for p in positions)
    assert list(positions) == sorted(set(positions))
    assert len(positions) <= request.max_checkpoints
    assert request.affordable_position is None or max(positions, default=0) <= request.affordable_position
    assert not set(positions) & set(request.checkpoint_positions)
    assert policy.place(request).positions == positions


def placed(policy: PlacementPolicy, num_tokens: int, **known) -> tuple[int, ...]:
    return policy.place(PlacementRequest(num_tokens=num_tokens, **known)).positions


def test_none_places_nothing():
    assert placed(NoCheckpoints(), 1000) == ()


def test_dense_places_every_block_boundary_and_periodic_the_tail_as_well():
    assert placed(Dense(every=300), 1000) == (300, 600, 900)
    assert placed(Periodic(every=300), 1000) == (300, 600, 900, 999)
    assert placed(Periodic(every=4096), 7639, grid=32) == (4096, 7616)


def test_balanced_splits_the_prompt_equally():
    assert placed(Balanced(count=3), 1000) == (250, 500, 750)


@given(st.integers(1, 5000), st.sampled_from([1, 16, 64, 512]), st.integers(1, 80))
def test_balanced_uses_its_whole_budget_wherever_the_grid_has_room(num_tokens, grid, count):
    assert len(placed(Balanced(count=count), num_tokens, grid=grid)) == min(count, num_tokens // grid)


def test_balanced_with_fewer_allowed_splits_into_fewer_parts():
    assert placed(Balanced(count=8), 1000, max_checkpoints=1) == (500,)


@pytest.mark.parametrize(
    ("num_tokens", "grid", "positions"),
    [
        (100, 1, tuple(range(10, 101, 10))),
        (120, 1, tuple(range(10, 121, 10))),
        # Every 126 tokens, and each floored: the steps of the grid alternate.
        (16_000, 64, tuple(126 * count // 64 * 64 for count in range(1, 127))),
        (16_000, 512, tuple(range(512, 15_873, 512))),
        (6_466, 64, tuple(dict.fromkeys(80 * count // 64 * 64 for count in range(1, 81)))),
        # A spacing of 63 tokens misses no step of 64 but the last.
        (4_000, 64, tuple(range(64, 3_969, 64))),
        (3, 1, (1, 2, 3)),
        (3, 64, ()),
    ],
)
def test_square_root_places_every_square_root_of_the_length_floored_to_the_grid(num_tokens, grid, positions):
    assert placed(SquareRoot(), num_tokens, grid=grid) == positions


def reference_cuts(num_tokens: int, *, every: int, grid: int) -> list[int]:
    """As the paper's code has it: multiples of a spacing, each floored; a state at 0 is of no use."""
    return sorted({multiple // grid * grid for multiple in range(every, num_tokens + 1, every)} - {0})


@given(st.integers(1, 40_000), st.sampled_from([1, 16, 64, 400, 2048]))
def test_square_root_is_the_reference_at_every_length_and_grid(num_tokens, grid):
    expected = reference_cuts(num_tokens, every=math.isqrt(num_tokens), grid=grid)
    assert list(placed(SquareRoot(), num_tokens, grid=grid)) == expected


@given(st.integers(1, 40_000), st.sampled_from([1, 16, 64, 400, 2048]), st.integers(1, 60))
def test_balanced_is_the_reference_to_rounding(num_tokens, grid, count):
    if count >= num_tokens // grid:
        return
    every = num_tokens // (count + 1)
    reference = [cut * every // grid * grid for cut in range(1, count + 1)]
    for ours, theirs in zip(placed(Balanced(count=count), num_tokens, grid=grid), reference, strict=True):
        # Their part is rounded down, so each cut is short by up to one token a part, and then floored.
        assert 0 <= ours - theirs <= -(-count // grid) * grid


def test_square_root_with_fewer_allowed_splits_into_fewer_parts():
    assert placed(SquareRoot(), 10_000, max_checkpoints=3) == placed(Balanced(count=3), 10_000)


def test_dyadic_places_the_powers_of_two_from_its_start():
    assert placed(Dyadic(start=768), 5000) == (1024, 2048, 4096)
    assert placed(Dyadic(start=1024), 1024) == (1024,)
    assert placed(Dyadic(start=1), 4) == (1, 2, 4)


def test_the_tail_leaves_one_token_to_compute():
    assert placed(PromptTail(), 129, grid=64) == (128,)
    assert placed(PromptTail(), 128, grid=64) == (64,)
    assert placed(PromptTail(), 1) == ()


def test_a_junction_is_where_the_prompt_parts_from_an_earlier_one():
    assert placed(Junction(), 1000, overlap_depth=500, grid=64) == (448,)
    assert placed(Junction(), 1000, overlap_depth=500, resume_position=448, grid=64) == ()
    assert placed(Junction(), 1000, overlap_depth=1000) == ()
    assert placed(TailAndJunction(), 1000, overlap_depth=500, grid=64) == (448, 960)


def test_with_one_checkpoint_allowed_the_deepest_is_kept():
    assert placed(TailAndJunction(), 1000, overlap_depth=500, max_checkpoints=1) == (999,)
    assert placed(Dense(every=100), 1000, max_checkpoints=2) == (900, 1000)


def test_offsets_count_from_both_ends_and_ignore_what_falls_outside():
    policy = Offsets(from_start=(128, 5000), from_end=(0, 32, 5000), every=512)
    assert placed(policy, 1200) == (128, 512, 1024, 1168, 1200)
    assert placed(Offsets(from_start=(128, 5000), from_end=(32,)), 1200) == (128, 1168)
    assert placed(Offsets(every=512), 1200) == (512, 1024)


def test_what_is_stored_already_is_not_placed_again():
    known = {"overlap_depth": 1000, "resume_position": 500, "checkpoint_positions": (500, 1000)}
    assert placed(Dense(every=250), 1000, **known) == (750,)


def seen(policy: PlacementPolicy, *overlap_depths: int) -> PlacementPolicy:
    for overlap_depth in overlap_depths:
        policy.observe(PlacementRequest(num_tokens=10_000, overlap_depth=overlap_depth))
    return policy


def test_the_histogram_is_balanced_before_it_has_seen_an_overlap():
    assert placed(HistogramDP(count=3), 1000, grid=64) == placed(Balanced(count=3), 1000, grid=64)
    assert placed(seen(HistogramDP(count=1), 0, 0), 1000, grid=64) == (448,)


def test_the_histogram_places_where_prompts_have_parted():
    policy = seen(HistogramDP(count=2, smoothing=0.0), *[1000, 1000, 4000] * 5)
    assert placed(policy, 9000, grid=64) == (960, 3968)
    assert placed(policy, 2000, grid=64) == (960,)


def test_the_histogram_forgets():
    policy = seen(HistogramDP(count=1, decay=0.5, smoothing=0.0), *[4000] * 10, *[2000] * 10)
    assert placed(policy, 9000, grid=64) == (1984,)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Dense(every=0), "every=0"),
        (lambda: Periodic(every=-1), "every=-1"),
        (lambda: Balanced(count=0), "count=0"),
        (lambda: Dyadic(start=0), "start=0"),
        (Offsets, "no offsets"),
        (lambda: Offsets(from_start=(0,)), "from_start"),
        (lambda: Offsets(from_end=(-1,)), "from_end"),
        (lambda: Offsets(every=0), "every=0"),
        (lambda: HistogramDP(count=0), "count=0"),
        (lambda: HistogramDP(count=1, decay=0.0), "decay=0.0"),
        (lambda: HistogramDP(count=1, smoothing=-1.0), "smoothing=-1.0"),
        (lambda: HistogramDP(count=1, bin_tokens=0), "bin_tokens=0"),
    ],
)
def test_an_option_outside_its_rule_is_refused_by_name(build, message):
    with pytest.raises(ConfigurationError, match=message):
        build()


def test_a_misspelt_option_is_a_type_error():
    with pytest.raises(TypeError):
        Balanced(counts=3)


def test_a_request_says_what_tokens_cost_in_its_own_unit_or_counts_them():
    seconds = PlacementRequest(num_tokens=100, cost=lambda positions: positions**2 / 2)
    assert seconds.cost_between(2, 10) == 48.0
    assert PlacementRequest(num_tokens=100).cost_between(2, 10) == 8.0


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"grid": 0}, "grid=0"),
        ({"overlap_depth": 11}, "overlap_depth=11"),
        ({"overlap_depth": 5, "resume_position": 6}, "resume_position=6"),
        ({"overlap_depth": 5, "matched_num_tokens": 4}, "matched_num_tokens=4"),
    ],
)
def test_a_request_that_cannot_be_is_refused(known, message):
    with pytest.raises(ConfigurationError, match=message):
        PlacementRequest(num_tokens=10, **known)
