"""Policies by name."""

import pytest

from milepost.errors import ConfigurationError
from milepost.placement import (
    Balanced,
    Dense,
    Dyadic,
    HistogramDP,
    NoCheckpoints,
    Offsets,
    Periodic,
    PlacementRequest,
    PromptTail,
    TailAndJunction,
)
from milepost.policies import POLICIES, CachePolicy, describe_policies, parse_policy
from milepost.policies.learned import LearnedEviction, LearnedPlacement
from milepost.store import Recency


@pytest.mark.parametrize(
    ("notation", "policy"),
    [
        ("none", NoCheckpoints()),
        ("dense:512", Dense(every=512)),
        ("dense:every=512", Dense(every=512)),
        ("periodic:8192", Periodic(every=8192)),
        (" balanced:8 ", Balanced(count=8)),
        ("dyadic", Dyadic(start=768)),
        ("dyadic:1024", Dyadic(start=1024)),
        ("tail+junction", TailAndJunction()),
        (
            "offsets:start=512+1024,end=64+192,every=4096",
            Offsets(from_start=(512, 1024), from_end=(64, 192), every=4096),
        ),
        ("offsets:end=0", Offsets(from_end=(0,))),
    ],
)
def test_a_placement_builds_its_policy_and_the_least_recently_used_goes_first(notation, policy):
    parsed = parse_policy(notation)
    assert parsed.placement == policy
    assert isinstance(parsed.eviction, Recency)
    assert (parsed.keeps_kv, parsed.state_share) == (False, None)


def test_policies_that_learn_are_new_each_time():
    assert isinstance(parse_policy("histogram-dp:4,decay=0.9").placement, HistogramDP)
    first, second = parse_policy("learned"), parse_policy("learned")
    assert isinstance(first.placement, LearnedPlacement)
    assert isinstance(first.eviction, LearnedEviction)
    assert first.placement is not second.placement
    assert first.eviction.scales is not second.eviction.scales


def test_positions_can_be_evicted_as_the_learned_policy_does():
    policy = parse_policy("balanced:8/learned")
    assert policy.placement == Balanced(count=8)
    assert isinstance(policy.eviction, LearnedEviction)
    assert policy.lessons is not None
    assert not isinstance(parse_policy("balanced:8").eviction, LearnedEviction)


@pytest.mark.parametrize(
    ("notation", "message"),
    [
        ("balnced:8", "did you mean 'balanced'"),
        ("", "it is one of none, dense"),
        ("xyzzy", "it is one of none, dense"),
        ("balanced", "lacks 'count'; write balanced:8"),
        ("balanced:eight", "count='eight' .* is not a whole number; write count=8"),
        ("balanced:", "lacks 'count'"),
        ("balanced:0", "count=0"),
        ("balanced:count=8,count=9", "given twice"),
        ("balanced:cuont=8", "did you mean 'count'"),
        ("balanced:8,9", "'9' .* has no name"),
        ("tail:3", "'3' .* has no name; write tail"),
        ("tail:x=3", "it takes none"),
        ("tail/lru", "ends in /lru; write /learned"),
        ("tail/", "ends in /; write /learned"),
        ("vllm/learned", "only after positions that come with no eviction"),
        ("offsets", "no offsets"),
        ("offsets:start=1+", "start='1\\+'"),
    ],
)
def test_a_wrong_notation_is_refused_with_the_remedy(notation, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_policy(notation)


def test_every_described_notation_builds():
    described = describe_policies()
    assert len(described) == len(POLICIES)
    for notation, summary in described:
        assert notation.partition(":")[0] in POLICIES
        assert summary
        parse_policy(notation)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_a_share_of_the_budget_lies_strictly_between_nothing_and_all_of_it(share):
    with pytest.raises(ConfigurationError, match="state_share="):
        CachePolicy(PromptTail(), state_share=share)
    assert CachePolicy(PromptTail(), state_share=0.5).state_share == 0.5


def test_learned_can_be_told_of_chunks_that_leave_one_state_and_of_a_pool_for_states():
    assert parse_policy("learned").state_share is None
    policy = parse_policy("learned:share=0.25,chunk=100")
    assert policy.state_share == 0.25
    request = PlacementRequest(num_tokens=400, grid=10)
    placed = policy.placement.place(request).positions
    assert len({(position - 1) // 100 for position in placed}) == len(placed) > 1
    with pytest.raises(ConfigurationError, match="chunk=0"):
        parse_policy("learned:chunk=0")
    with pytest.raises(ConfigurationError, match="state_share=2"):
        parse_policy("learned:share=2")
