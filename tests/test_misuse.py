"""The public names take what is plainly meant, and refuse the rest by name; a refusal loses nothing."""

import math
import re

import numpy as np
import pytest
import torch

from milepost import CachePolicy, Footprint, Placement, PlacementPolicy, parse_policy
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.footprint import KVWindow, PrefillCost, WindowedAttention, calibrate, fit_seconds
from milepost.hosted_cache import HostedCache
from milepost.placement import Balanced, Dense, HistogramDP, Offsets, PromptTail, plan_budgets, plan_priced
from milepost.simulator import nominal_footprint, simulate
from milepost.store import Recency
from milepost.traces import open_trace

FOOTPRINT = Footprint(checkpoint_bytes=80, kv_bytes_per_token=1)


class Source:
    def checkpoint(self, position):
        return type("State", (), {"num_bytes": 80})()

    def kv_segments(self, start, end):
        return [bytes([index]) for index in range(start // 4, end // 4)]


def new_cache(**options) -> HostedCache:
    defaults = {"capacity_bytes": 10_000, "footprint": FOOTPRINT, "policy": PromptTail(), "grid": 4}
    return HostedCache(**(defaults | options))


def serve(cache, tokens):
    with cache.acquire(tokens) as lease:
        return cache.commit(lease, cache.plan(lease), Source())


# A cache's options


@pytest.mark.parametrize(
    ("capacity", "num_bytes"),
    [
        ("8GiB", 8 << 30),
        ("512 MB", 512_000_000),
        (8e9, 8_000_000_000),
        (np.int64(10_000), 10_000),
        ("1e6", 10**6),
    ],
)
def test_a_capacity_is_read_as_people_write_it(capacity, num_bytes):
    cache = new_cache(capacity_bytes=capacity)
    assert cache.statistics().capacity_bytes == num_bytes
    cache.resize("1kB")
    assert cache.statistics().capacity_bytes == 1_000


def test_a_policy_is_read_from_its_notation():
    assert new_cache(policy="balanced:8").policy.placement == Balanced(count=8)
    cache = new_cache(policy="learned")
    serve(cache, range(30))
    assert cache.statistics().num_requests == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"capacity_bytes": True}, "bytes=True; give a whole number"),
        ({"capacity_bytes": math.nan}, "bytes=nan"),
        ({"capacity_bytes": math.inf}, "bytes=inf"),
        ({"capacity_bytes": 99.5}, "bytes=99.5"),
        ({"capacity_bytes": None}, "bytes=None"),
        ({"capacity_bytes": "a lot"}, "'a lot' is not an amount of memory; write 4GiB"),
        ({"capacity_bytes": "-4GiB"}, "'-4GiB' is not an amount of memory"),
        ({"capacity_bytes": "50"}, "give at least 84 bytes"),
        ({"policy": "balnced:8"}, "did you mean 'balanced'"),
        ({"policy": "balanced:0"}, "count=0"),
        ({"policy": None}, "policy=None; give a notation such as 'learned'"),
        ({"policy": PromptTail}, "an instance of a PlacementPolicy"),
        ({"policy": lambda request: ()}, "give a notation"),
        ({"footprint": None}, "footprint=None; give Footprint"),
        ({"footprint": {"checkpoint_bytes": 80, "kv_bytes_per_token": 1}}, "Footprint.from_config"),
        ({"grid": 4.5}, "grid=4.5; give a whole number of at least 1"),
        ({"grid": "4"}, "grid='4'"),
        ({"grid": False}, "grid=False"),
        ({"segment_tokens": math.nan}, "segment_tokens=nan"),
        ({"history_tokens": "all"}, "history_tokens='all'"),
        ({"key_tokens": 0}, "key_tokens=0"),
        ({"max_checkpoints": 1.5}, "max_checkpoints=1.5"),
        ({"capture_tokens": -1}, "capture_tokens=-1"),
    ],
)
def test_an_option_that_means_nothing_is_named_with_its_rule(options, says):
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        new_cache(**options)


def test_whole_numbers_of_any_make_are_whole_numbers():
    cache = new_cache(
        grid=4.0, segment_tokens=np.int32(4), history_tokens=np.float64(1e6), max_checkpoints=3.0
    )
    serve(cache, range(30))
    assert type(cache.grid) is int


# Prompts


@pytest.mark.parametrize(
    "tokens",
    [
        torch.arange(30),
        torch.arange(30, dtype=torch.int32),
        np.arange(30, dtype=np.uint16),
        range(30),
        tuple(np.arange(30)),
    ],
)
def test_a_prompt_may_come_as_any_list_or_array_of_integers(tokens):
    cache = new_cache()
    serve(cache, list(range(30)))
    assert serve(cache, tokens).reused == 28


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ("abc", "tokenize it first"),
        (b"abc", "tokenize it first"),
        (bytearray(b"abc"), "tokenize it first"),
        (iter([1, 2]), "one list or array"),
        ({1, 2}, "one list or array"),
        ({1: 2}, "one list or array"),
        (None, "one list or array"),
        (5, "one list or array"),
        (torch.tensor([[1, 2]]), "2 dimensions"),
        (torch.tensor([1.0, 2.0]), "dtype float32"),
        (torch.tensor([1.0], dtype=torch.bfloat16), "not a sequence of token ids"),
        (torch.tensor([True]), "dtype bool"),
        (np.array(["2026-01-01"], "datetime64[D]"), "dtype datetime64"),
        (np.array([5], "timedelta64[s]"), "dtype timedelta64"),
        ([1, True], "holds a bool"),
        ([1, None], "None at position 1"),
        ([1, 2.0], "2.0 at position 1"),
        ([1, math.nan], "nan at position 1"),
        ([1, "2"], "'2' at position 1"),
        ([2**31], "token id 2147483648"),
        ([2**63], "token id 9223372036854775808"),
        ([1, 2**70], "at position 1"),
        ([-5, 2], "token id -5 at position 0"),
    ],
)
def test_a_prompt_that_is_none_is_refused_with_what_is_wrong(tokens, says):
    cache = new_cache()
    serve(cache, range(30))
    before = cache.statistics()
    with pytest.raises(InvalidRequestError, match=re.escape(says)):
        cache.acquire(tokens)
    assert cache.statistics() == before
    cache.check()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tenant": None}, "tenant=None; give a str"),
        ({"tenant": b"a"}, "tenant=b'a'"),
        ({"tenant": 7}, "tenant=7"),
        ({"num_tokens": 29}, "num_tokens=29 of a prompt of 30 token ids"),
        ({"breakpoints": [31]}, "breakpoint at 31"),
        ({"breakpoints": [0]}, "breakpoint at 0"),
        ({"breakpoints": [-4]}, "breakpoint=-4"),
        ({"breakpoints": [4.5]}, "breakpoint=4.5"),
        ({"breakpoints": [True]}, "breakpoint=True"),
        ({"breakpoints": 12}, "breakpoints=12; give a list"),
        ({"breakpoints": "12"}, "breakpoints='12'"),
        ({"resume_limit": -1}, "resume_limit=-1"),
        ({"resume_limit": "all"}, "resume_limit='all'"),
    ],
)
def test_an_option_of_a_request_that_means_nothing_is_refused(options, says):
    cache = new_cache()
    with pytest.raises(InvalidRequestError, match=re.escape(says)):
        cache.acquire(range(30), **options)
    cache.check()


def test_breakpoints_are_taken_in_any_order_and_make():
    cache = new_cache()
    for given in ([20, 8, 8], (np.int64(8), 20.0), {8, 20}, iter([8, 20]), np.array([20, 8])):
        assert cache.acquire(range(30), breakpoints=given).request.breakpoints == (8, 20)
    assert cache.acquire(range(30), breakpoints=None).request.breakpoints == ()


def test_block_hashes_are_checked_as_tokens_are():
    cache = new_cache(grid=4, key_tokens=4)
    for bad in ("ab", [True, False], [1.5], [b"a"], iter([1]), None):
        with pytest.raises(InvalidRequestError):
            cache.acquire(bad)
    for num_tokens in ("8", 7.5, True, -8):
        with pytest.raises(InvalidRequestError, match="num_tokens"):
            cache.acquire([1, 2], num_tokens=num_tokens)
    assert cache.acquire([1, 2], num_tokens=np.int64(8)).request.num_tokens == 8


# Leases


def test_a_lease_is_planned_while_held_and_where_it_was_acquired():
    cache, other = new_cache(), new_cache()
    lease = cache.acquire(range(30))
    with pytest.raises(InvalidRequestError, match="another cache"):
        other.plan(lease)
    with pytest.raises(InvalidRequestError, match="another cache"):
        other.confirm(lease, bool)
    lease.release()
    with pytest.raises(InvalidRequestError, match="released"):
        cache.plan(lease)
    for bad in (None, 7, lease.request):
        for act in (
            cache.plan,
            lambda bad: cache.confirm(bad, bool),
            lambda bad: cache.commit(bad, Placement(), Source()),
        ):
            with pytest.raises(InvalidRequestError, match="give what acquire returned"):
                act(bad)


def test_a_prompt_goes_on_only_from_a_lease_that_was_committed_here():
    cache, other = new_cache(policy="dense:4"), new_cache()
    lease = cache.acquire(range(10))
    answer = list(range(20))
    with pytest.raises(InvalidRequestError, match="not committed"):
        cache.extend(lease, answer, Source())
    cache.commit(lease, cache.plan(lease), Source())
    before = cache.statistics()
    with pytest.raises(InvalidRequestError, match="another cache"):
        other.extend(lease, answer, Source())
    for wrong in (list(range(8)), [7, *range(1, 20)], [], "abc", [*range(19), 1.5]):
        with pytest.raises(InvalidRequestError):
            cache.extend(lease, wrong, Source())
    assert cache.statistics() == before
    assert cache.extend(lease, answer, Source()) == 20


@pytest.mark.parametrize("wrong", [lambda: None, type("Huge", (), {"num_bytes": 999})])
def test_an_answer_whose_state_is_wrong_is_not_stored_and_evicts_nothing(wrong):
    class Wrong(Source):
        def checkpoint(self, position):
            return wrong()

    cache = new_cache(policy="dense:4", capacity_bytes=300)
    lease = cache.acquire(range(10))
    cache.commit(lease, cache.plan(lease), Source())
    before = cache.statistics()
    with pytest.raises(InvalidRequestError, match="the source gave"):
        cache.extend(lease, list(range(20)), Wrong())
    after = cache.statistics()
    assert (after.num_checkpoints, after.kv_bytes) == (before.num_checkpoints, before.kv_bytes)
    assert after.num_evictions == before.num_evictions
    cache.check()


# Placements


class Returning(PlacementPolicy):
    def __init__(self, placed):
        self.placed = placed

    def place(self, request):
        return self.placed


@pytest.mark.parametrize(
    "placed",
    [
        Placement((8, 16)),
        Placement([8, 16]),
        [16, 8],
        (8, 16, 8),
        {8, 16},
        np.array([8, 16]),
        [np.int32(8), 16.0],
        (position for position in (8, 16)),
    ],
)
def test_a_policy_may_return_positions_in_any_order_and_make(placed):
    cache = new_cache(policy=Returning(placed))
    with cache.acquire(range(30)) as lease:
        placement = cache.plan(lease)
        assert placement.positions == (8, 16)
        assert all(type(position) is int for position in placement.positions)
        assert cache.commit(lease, list(placement.positions), Source()).checkpoints_stored == 2


@pytest.mark.parametrize(
    ("placed", "says"),
    [
        (None, "is None; give a Placement"),
        (8, "is 8; give a Placement"),
        ("8", "is '8'"),
        ({8: 1}, "is {8: 1}"),
        ([8, None], "=None; give a whole number"),
        ([8.5], "=8.5"),
        ([True], "=True"),
        ([0, 8], "above 0"),
        ([-4], "=-4"),
        ([6], "on the grid of 4"),
        ([32], "a prompt of 30"),
        (Placement((6,)), "on the grid of 4"),
    ],
)
def test_a_policy_that_returns_no_placement_is_named(placed, says):
    cache = new_cache(policy=Returning(placed))
    with cache.acquire(range(30)) as lease:
        with pytest.raises(ConfigurationError, match=re.escape(says)) as caught:
            cache.plan(lease)
        assert "policy Returning" in str(caught.value) or "positions=" in str(caught.value)
        if not isinstance(placed, Placement):
            with pytest.raises(InvalidRequestError, match=re.escape(says)):
                cache.commit(lease, placed, Source())
    cache.check()
    assert cache.statistics().num_requests == 0


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Placement(None), "positions is None"),
        (lambda: Placement([8, 4]), "strictly ascending"),
        (lambda: Dense(every="512"), "every='512'"),
        (lambda: Dense(every=math.nan), "every=nan"),
        (lambda: Balanced(count=2.5), "count=2.5"),
        (lambda: Balanced(count=True), "count=True"),
        (lambda: Offsets(from_start=512), "from_start=512; give a tuple"),
        (lambda: Offsets(from_end=(1.5,)), "from_end=1.5"),
        (lambda: Offsets(every=True), "every=True"),
        (lambda: HistogramDP(count=4, decay=math.nan), "decay=nan"),
        (lambda: HistogramDP(count=4, decay="0.9"), "decay='0.9'"),
        (lambda: HistogramDP(count=4, smoothing=math.nan), "smoothing=nan"),
        (lambda: CachePolicy("learned"), "placement='learned'; give an instance of PlacementPolicy"),
        (lambda: CachePolicy(PromptTail), "have parse_policy make the whole policy"),
        (lambda: CachePolicy(PromptTail(), eviction="lru"), "eviction='lru'"),
        (lambda: CachePolicy(PromptTail(), Recency(), keeps_kv="no"), "keeps_kv='no'"),
        (lambda: CachePolicy(PromptTail(), state_share="half"), "state_share='half'"),
    ],
)
def test_an_option_of_a_policy_that_means_nothing_is_named(build, says):
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        build()


@pytest.mark.parametrize(
    ("notation", "placement"),
    [
        ("balanced:1e9", Balanced(count=10**9)),
        ("Balanced : 8".lower(), Balanced(count=8)),
        ("offsets:end=0+1e2", Offsets(from_end=(0, 100))),
        ("dense:every= 512", Dense(every=512)),
    ],
)
def test_a_notation_is_read_for_what_it_means(notation, placement):
    assert parse_policy(notation).placement == placement


@pytest.mark.parametrize(
    ("notation", "says"),
    [
        ("balanced:-1", "count=-1; give a whole number of at least 1"),
        ("balanced:8.5", "count='8.5' in policy 'balanced:8.5' is not a whole number; write count=8"),
        ("balanced:inf", "is not a whole number"),
        ("balanced:nan", "is not a whole number"),
        ("LEARNED", "did you mean 'learned'"),
        ("histogram_dp:4", "did you mean 'histogram-dp'"),
        ("tail-junction", "did you mean 'tail+junction' or 'junction'"),
        ("histogram-dp:4,smoothing=nan", "smoothing=nan"),
        ("histogram-dp:4,decay=2", "decay=2"),
        ("sglang:share=nan", "state_share=nan"),
        ("marconi:alpha=-1", "alpha=-1"),
        ("tensorrt:end=1,branch=true", "is not yes or no; write branch=yes"),
        ("offsets:end=1++2", "is not whole numbers joined by +"),
        (None, "policy=None; give a notation"),
        (7, "policy=7"),
    ],
)
def test_a_notation_that_means_nothing_is_refused_with_the_nearest(notation, says):
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        parse_policy(notation)


def test_more_checkpoints_than_there_are_positions_is_all_of_them():
    for notation in ("balanced:1e9", "histogram-dp:1e9"):
        with new_cache(policy=notation).acquire(range(30)) as lease:
            assert parse_policy(notation).placement.place(lease.request).positions == tuple(range(4, 29, 4))


# Costs, plans, replays


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Footprint(checkpoint_bytes="3MB", kv_bytes_per_token=1), "checkpoint_bytes='3MB'"),
        (lambda: Footprint(checkpoint_bytes=math.nan, kv_bytes_per_token=1), "checkpoint_bytes=nan"),
        (lambda: Footprint(checkpoint_bytes=1, kv_bytes_per_token=True), "kv_bytes_per_token=True"),
        (lambda: Footprint(checkpoint_bytes=1, kv_bytes_per_token=-2), "kv_bytes_per_token=-2"),
        (
            lambda: Footprint(checkpoint_bytes=9, kv_bytes_per_token=1, windows=(3, 4)),
            "give a tuple of KVWindow",
        ),
        (lambda: Footprint(checkpoint_bytes=9, kv_bytes_per_token=1, cost=5), "cost=5; give a PrefillCost"),
        (lambda: KVWindow(1.5, 2), "kept_tokens=1.5"),
        (lambda: PrefillCost(unit="flops", linear_per_token="1"), "linear_per_token='1'"),
        (lambda: PrefillCost(unit="flops", linear_per_token=math.inf), "linear_per_token=inf"),
        (lambda: PrefillCost(unit="flops", linear_per_token=1.0, windows=5), "windows=5"),
        (lambda: PrefillCost(unit="hours", linear_per_token=1.0), "unit='hours'"),
        (lambda: WindowedAttention(0, 1.0), "window_tokens=0"),
        (lambda: WindowedAttention(8, math.nan), "per_pair of the window of 8=nan"),
        (lambda: PrefillCost.tokens()("many"), "num_tokens='many' is no number"),
        (lambda: PrefillCost.tokens()(math.inf), "num_tokens=inf"),
        (lambda: fit_seconds(PrefillCost.tokens(), [("64", 0.1)]), "length='64'"),
        (lambda: calibrate(PrefillCost.tokens(), float, repeats=1.5), "repeats=1.5"),
        (lambda: plan_budgets([1, 2], [1.0, 1.0], max_budget=1.5), "max_budget=1.5"),
        (lambda: plan_budgets([1, 2], [1.0, 1.0], max_budget=1, grid="1"), "grid='1'"),
        (lambda: plan_budgets([1, 2], ["a", "b"], max_budget=1), "lists of numbers"),
        (lambda: plan_budgets([[1], [1, 2]], [1.0, 1.0], max_budget=1), "lists of numbers"),
        (lambda: plan_priced([1, 2], [1.0, 1.0], price_per_checkpoint=math.nan), "price_per_checkpoint=nan"),
        (lambda: plan_priced([1, 2], [1.0, 1.0], price_per_checkpoint="2"), "price_per_checkpoint='2'"),
        (lambda: nominal_footprint("1536"), "checkpoint_kv_tokens='1536'"),
        (lambda: nominal_footprint(math.inf), "checkpoint_kv_tokens=inf"),
    ],
)
def test_a_cost_or_plan_of_what_is_no_number_is_refused_by_name(build, says):
    with pytest.raises((ConfigurationError, InvalidRequestError), match=re.escape(says)):
        build()


def test_a_footprint_takes_numbers_of_any_make():
    given = Footprint(checkpoint_bytes=np.int64(80), kv_bytes_per_token=1.0, windows=[KVWindow(2, 4)])
    assert given == Footprint(checkpoint_bytes=80, kv_bytes_per_token=1, windows=(KVWindow(2, 4),))
    assert type(given.checkpoint_bytes) is int


def test_a_price_close_to_nothing_is_still_a_price():
    assert not nominal_footprint(1e-9).is_stateless
    assert nominal_footprint(0).is_stateless


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"capacity_kv_tokens": "400k"}, "capacity_kv_tokens='400k'"),
        ({"capacity_kv_tokens": math.nan}, "capacity_kv_tokens=nan"),
        ({"capacity_kv_tokens": -1}, "capacity_kv_tokens=-1"),
        ({"policy": PromptTail()}, "a replay makes its own"),
        ({"policy": "tial"}, "did you mean 'tail'"),
        ({"checkpoint_kv_tokens": None}, "checkpoint_kv_tokens=None"),
        ({"grid": 16.5}, "grid=16.5"),
        ({"grid": 0}, "grid=0"),
    ],
)
def test_a_replay_of_what_means_nothing_is_refused(options, says):
    trace = open_trace("synthetic:chat,requests=3,seed=1")
    usual = {"policy": "tail", "capacity_kv_tokens": 10_000, "checkpoint_kv_tokens": 100}
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        simulate(trace, **(usual | options))
    assert simulate(trace, **(usual | {"capacity_kv_tokens": 1e4})).capacity_kv_tokens == 10_000
