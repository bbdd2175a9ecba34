"""One plan for the whole tree at every request, by a cache that knows the requests to come.

After each request everything that is held, and everything that this request has computed, is planned anew,
exactly (:mod:`benchmarks.regret.tree_plan`): nothing is decided prompt by prompt. What is known enters as a
rate, as what is learned does in the learned policy: Gittins' index, the most uses a request over any stretch
of time from now on, which for a known future is ``max over k of k / (requests until the k-th use)``. So what
this falls short of the optimum is the price of deciding from one moment to the next by a rate; what it is
ahead of the clairvoyant policy, which has the same knowledge and takes one prompt and one victim at a time,
is the price of that.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from benchmarks.regret.prompt_tree import PromptTree
from benchmarks.regret.tree_plan import NO_STATE, LiveTree, plan_tree
from milepost.kernels import kernel

__all__ = ["replay_foreseen"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def replay_foreseen(tree: PromptTree, *, capacity_tokens: int, state_tokens: int) -> int:
    """Return the tokens reused. O(requests * (nodes + the plan of what is at hand))."""
    parents = np.array(tree.parents, np.int64)
    positions = np.array(tree.positions, np.int64)
    kv_tokens = positions - positions[np.maximum(parents, 0)]
    coming = _Coming.of(tree)
    held = np.zeros(parents.size, np.bool_)
    is_seen = np.zeros(parents.size, np.bool_)
    reused = 0
    for request, path in enumerate(tree.paths):
        usable = path[: tree.usable[request]]
        resumed = next((positions[node] for node in reversed(usable) if held[node]), 0)
        reused += int(resumed)
        at_hand = held.copy()
        for node in path:
            is_seen[node] = True
            at_hand[node] |= positions[node] > resumed
        rates = coming.rates(request, is_seen)
        nodes, live = _live(parents, positions, kv_tokens, at_hand, rates, state_tokens)
        held[:] = False
        held[nodes[list(plan_tree(live, capacity_tokens).chosen)]] = True
    return reused


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Coming:
    """The requests that resume best at each node, in order, one node after the other."""

    requests: IntArray
    ends: IntArray

    @classmethod
    def of(cls, tree: PromptTree) -> "_Coming":
        uses: list[list[int]] = [[] for _ in tree.parents]
        for request, node in enumerate(tree.uses):
            if node:
                uses[node].append(request)
        return cls(
            np.array([request for at in uses for request in at], np.int64),
            np.cumsum([len(at) for at in uses], dtype=np.int64),
        )

    def rates(self, now: int, is_seen: BoolArray) -> FloatArray:
        """Return the index of each node that some request has passed, after request ``now``."""
        return _indices(self.requests, self.ends, now, is_seen)


def _live(
    parents: IntArray,
    positions: IntArray,
    kv_tokens: IntArray,
    at_hand: BoolArray,
    rates: FloatArray,
    state_tokens: int,
) -> tuple[IntArray, LiveTree]:
    """Return the nodes that lead to what is at hand and worth something, and their tree. What would diverge
    elsewhere counts for the last of them on its way.
    """
    is_needed, gathered = _gathered(parents, at_hand, rates)
    nodes = np.flatnonzero(is_needed)
    number = np.zeros(parents.size, np.int64)
    number[nodes] = np.arange(nodes.size)
    new_parents = number[np.maximum(parents[nodes], 0)]
    new_parents[0] = -1
    return nodes, LiveTree(
        parents=new_parents,
        gains=positions[nodes].astype(np.float64),
        rates=gathered[nodes],
        kv_bytes=kv_tokens[nodes],
        state_bytes=np.where(at_hand[nodes], state_tokens, NO_STATE),
    )


@kernel(
    "float64[::1](Array(int64, 1, 'C'), Array(int64, 1, 'C'), int64, boolean[::1])",
)
def _indices(requests: IntArray, ends: IntArray, now: int, is_seen: BoolArray) -> FloatArray:
    found = np.zeros(ends.size)
    for node in range(1, ends.size):
        if is_seen[node]:
            count = 0
            for at in range(ends[node - 1], ends[node]):
                if requests[at] > now:
                    count += 1
                    found[node] = max(found[node], count / (requests[at] - now))
    return found


@kernel("Tuple((boolean[::1], float64[::1]))(int64[::1], boolean[::1], float64[::1])")
def _gathered(parents: IntArray, at_hand: BoolArray, rates: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Return which nodes lead to one at hand that somebody will come to, and the rates of the others moved up
    to those.
    """
    below = rates.copy()
    is_needed = np.zeros(parents.size, np.bool_)
    gathered = rates.copy()
    for node in range(parents.size - 1, 0, -1):
        if at_hand[node] and below[node] > 0.0:
            is_needed[node] = True
        below[parents[node]] += below[node]
        if is_needed[node]:
            is_needed[parents[node]] = True
        else:
            gathered[parents[node]] += gathered[node]
    is_needed[0] = True
    return is_needed, gathered
