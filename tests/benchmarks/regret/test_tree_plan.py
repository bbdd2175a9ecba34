"""The plan of a whole tree against every set of nodes there is."""

from itertools import combinations

import numpy as np
import pytest
from benchmarks.regret.tree_plan import NO_STATE, LiveTree, plan_tree
from hypothesis import example, given, settings
from hypothesis import strategies as st

from milepost.placement import plan_budgets

MOST_NODES = 8


@st.composite
def trees(draw):
    size = draw(st.integers(2, MOST_NODES))
    parents = [-1] + [draw(st.integers(0, node - 1)) for node in range(1, size)]
    steps = [0] + [draw(st.integers(1, 9)) for _ in range(1, size)]
    gains = [0.0] * size
    for node in range(1, size):
        gains[node] = gains[parents[node]] + steps[node]
    state = st.one_of(st.integers(0, 12), st.just(NO_STATE))
    return LiveTree(
        np.array(parents, np.int64),
        np.array(gains),
        np.array([draw(st.integers(0, 5)) for _ in range(size)], np.float64),
        np.array([0, *(draw(st.integers(0, 6)) for _ in range(1, size))], np.int64),
        np.array([NO_STATE, *(draw(state) for _ in range(1, size))], np.int64),
    )


# A leaf that takes nothing beside a path of which only the beginning fits.
FREE_STATE = LiveTree(
    np.array([-1, 0, 0, 1], np.int64),
    np.array([0.0, 1.0, 1.0, 2.0]),
    np.array([0.0, 0.0, 1.0, 1.0]),
    np.array([0, 1, 0, 1], np.int64),
    np.array([NO_STATE, 0, 0, 0], np.int64),
)


def what_it_saves_and_takes(tree, chosen):
    """By the definition: each request resumes at the deepest chosen node on its way."""
    parents = tree.parents.tolist()
    saved = 0.0
    for node, rate in enumerate(tree.rates.tolist()):
        at = node
        while at > 0 and at not in chosen:
            at = parents[at]
        saved += rate * float(tree.gains[max(0, at)])
    edges = set()
    for at in chosen:
        node = at
        while node > 0:
            edges.add(node)
            node = parents[node]
    num_bytes = sum(int(tree.state_bytes[node]) for node in chosen)
    return saved, num_bytes + sum(int(tree.kv_bytes[node]) for node in edges)


def best_of_all(tree, capacity):
    nodes = [node for node, state in enumerate(tree.state_bytes.tolist()) if state != NO_STATE]
    found = 0.0
    for count in range(len(nodes) + 1):
        for chosen in combinations(nodes, count):
            saved, num_bytes = what_it_saves_and_takes(tree, set(chosen))
            if num_bytes <= capacity:
                found = max(found, saved)
    return found


@settings(max_examples=150, deadline=None)
@given(trees(), st.integers(0, 60))
@example(FREE_STATE, 1)
def test_no_set_of_nodes_that_fits_saves_more(tree, capacity):
    plan = plan_tree(tree, capacity)
    saved, num_bytes = what_it_saves_and_takes(tree, set(plan.chosen))
    assert (plan.saved, plan.num_bytes) == (pytest.approx(saved), num_bytes)
    assert num_bytes <= capacity
    assert plan.saved == pytest.approx(best_of_all(tree, capacity))
    assert plan.bound >= plan.saved - 1e-9


def test_a_path_is_the_paper_s_problem():
    depths, rates = [16, 48, 64, 128], [3.0, 1.0, 5.0, 2.0]
    tree = LiveTree(
        np.arange(-1, 4, dtype=np.int64),
        np.array([0.0, *depths]),
        np.array([0.0, *rates]),
        np.zeros(5, np.int64),
        np.array([NO_STATE, 1, 1, 1, 1], np.int64),
    )
    plans = plan_budgets(depths, rates, max_budget=4)
    for count in range(1, 5):
        chosen = [depths[node - 1] for node in plan_tree(tree, count).chosen]
        assert tuple(chosen) == plans.placement(count).positions


def test_the_relaxed_price_alone_would_not_do():
    """A budget between two vertices of the frontier: what fits at the price is not the best that fits."""
    tree = LiveTree(
        np.array([-1, 0, 0, 0], np.int64),
        np.array([0.0, 10.0, 9.0, 4.0]),
        np.array([0.0, 1.0, 1.0, 1.0]),
        np.zeros(4, np.int64),
        np.array([NO_STATE, 5, 6, 3], np.int64),
    )
    plan = plan_tree(tree, 9)
    assert (plan.chosen, plan.saved) == ((1, 3), 14.0)
    assert plan_tree(tree, 11).chosen == (1, 2)
