"""The optimum over time against a search through all that a cache can do."""

from itertools import combinations

import numpy as np
import pytest
from benchmarks.regret.packing import optimum
from benchmarks.regret.prompt_tree import PromptTree
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.policies import POLICIES
from milepost.simulator import simulate
from milepost.traces import TraceRequest, open_trace

GRID = 2
prompts = st.lists(st.integers(0, 1), min_size=2, max_size=9)


def as_requests(tokens):
    return [
        TraceRequest(
            request_id=str(number), keys=np.array(each, np.int64), num_tokens=len(each), key_tokens=1
        )
        for number, each in enumerate(tokens)
    ]


def taken(held, state_tokens):
    """States, and the KV of all prefixes that they need."""
    kv = {prefix[:end] for prefix in held for end in range(GRID, len(prefix) + 1, GRID)}
    return len(held) * state_tokens + len(kv) * GRID


def best_of_all(tokens, capacity, state_tokens):
    """Whatever is held, whichever of it is resumed from, whatever is left behind: the most of all."""
    reached = {frozenset(): 0}
    for prompt in tokens:
        after = {}
        for held, reused in reached.items():
            usable = [p for p in held if p == tuple(prompt[: len(p)]) and len(p) < len(prompt)]
            for resumed in [(), *usable]:
                computed = {
                    tuple(prompt[:end]) for end in range(GRID, len(prompt) + 1, GRID) if end > len(resumed)
                }
                at_hand = sorted(held | computed)
                for count in range(len(at_hand) + 1):
                    for kept in combinations(at_hand, count):
                        if taken(kept, state_tokens) <= capacity:
                            key = frozenset(kept)
                            after[key] = max(after.get(key, 0), reused + len(resumed))
        reached = after
    return max(reached.values())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(prompts, min_size=2, max_size=5), st.integers(0, 16), st.integers(0, 5))
def test_nothing_that_a_cache_can_do_reuses_more(tokens, capacity, state_tokens):
    best = best_of_all(tokens, capacity, state_tokens)
    memory = {"capacity_tokens": capacity, "state_tokens": state_tokens}
    everywhere = PromptTree.of(as_requests(tokens), grid=GRID, everywhere=True)
    solved = optimum(everywhere, **memory, exact=True)
    assert solved.found == pytest.approx(best, abs=1e-5)
    assert solved.bound == pytest.approx(best, abs=1e-3)
    # The bound needs no more than the nodes where anything happens.
    tree = PromptTree.of(as_requests(tokens), grid=GRID)
    relaxed = optimum(tree, **memory)
    assert relaxed.found is None
    assert relaxed.bound >= best - 1e-6
    assert optimum(tree, **memory, exact=True).found <= best + 1e-6


def test_a_state_short_of_the_use_is_worth_it_where_kv_is_what_there_is_no_room_for():
    """So the best schedule at uses alone is no optimum, and the bound has to allow for it."""
    tokens = [[1, 0, 0, 0], [1, 0, 0, 0, 0]]
    memory = {"capacity_tokens": 2, "state_tokens": 0}
    tree = PromptTree.of(as_requests(tokens), grid=GRID)
    everywhere = PromptTree.of(as_requests(tokens), grid=GRID, everywhere=True)
    assert tree.positions == (0, 4)
    assert optimum(tree, **memory, exact=True).found == pytest.approx(0.0)
    assert optimum(everywhere, **memory, exact=True).found == pytest.approx(2.0)
    assert optimum(tree, **memory).bound == pytest.approx(2.0)


def test_endless_memory_reuses_what_the_simulator_calls_the_ceiling():
    requests = list(open_trace("synthetic:chat,requests=60,seed=1,block=16"))
    tree = PromptTree.of(requests, grid=32)
    result = simulate(requests, policy="none", capacity_kv_tokens=10_000, checkpoint_kv_tokens=64.0, grid=32)
    assert tree.ceiling_tokens == pytest.approx(result.ceiling_fraction * result.input_tokens)
    assert optimum(tree, capacity_tokens=1 << 40, state_tokens=64).bound == pytest.approx(tree.ceiling_tokens)


@pytest.mark.parametrize("policy", [*(name for name in ("tail", "vllm", "learned", "clairvoyant"))])
def test_no_policy_reuses_more_than_the_bound(policy):
    assert policy in POLICIES
    requests = list(open_trace("synthetic:documents,requests=80,seed=2,block=64"))
    tree = PromptTree.of(requests, grid=64)
    result = simulate(requests, policy=policy, capacity_kv_tokens=30_000, checkpoint_kv_tokens=1_536.0)
    bound = optimum(tree, capacity_tokens=30_000, state_tokens=1_536).bound
    assert 0 < result.reused_tokens <= bound < tree.ceiling_tokens
