"""One plan for a whole tree of prompts under one byte budget, solved exactly.

The model
    A frozen tree. Node ``v`` lies at a position of some prompts; ``gain(v)`` is the cost of computing the
    tokens before it, ``rate(v)`` the requests that diverge at it or after it and before its children. A
    request resumes from the deepest chosen node on its way down. So choosing the set ``S`` saves

        sum over v in S of (gain(v) - gain(a(v))) * W(v)

    where ``a(v)`` is the nearest chosen ancestor and ``W(v)`` the rate of ``v`` and all that is below it. It
    takes the bytes of the states of ``S``, and of the KV of every edge above a chosen node, once. For a tree
    that is one path this is the paper's placement problem, with the KV priced too.

The method
    At a price ``p`` of a byte the problem falls apart: ``best[v, a]``, the most that the subtree of ``v`` can
    save less its price where ``a`` is the nearest chosen ancestor, is

        max(0, -p * kv(v) + max(sum over children c of best[c, a],
                                (gain(v) - gain(a)) * W(v) - p * state(v) + sum of best[c, v]))

    in O(n d) for n nodes with at most d choosable ancestors. The price is where the bound ``best + p *
    budget`` is least (a secant on the concave frontier; each step is a vertex of it). What fits there is a
    plan, and the difference to the bound is the *gap*. Then the frontier of (bytes, saved) is made for every
    ``(v, a)`` from the bottom up, of those partial plans alone that lie within the gap of the best at the
    price: any other can be no part of a better plan. Often that is a handful; at worst it is as many as there
    are sums of bytes, O(n d b^2) for b of them, since the problem is a knapsack.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

from milepost.kernels import kernel

__all__ = ["NO_STATE", "LiveTree", "TreePlan", "plan_tree"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: In place of a state's bytes, where none can be.
NO_STATE = -1
# Relative: two sums of the same numbers in another order are equal.
_ROUNDING = 1e-9
# A way of linked choices: what it goes on from, and a node or another way.
_Way: TypeAlias = "tuple[_Way | None, int | _Way] | None"
_Option: TypeAlias = "tuple[int, float, _Way]"


@final
@dataclass(frozen=True, slots=True, eq=False)
class LiveTree:
    """Nodes, each after its parent; the first is the root, where nothing is saved.

    Attributes:
        parents: Index of each node's parent; -1 for the root. Shape ``[n]``, as all.
        gains: Cost of computing the tokens before each node.
        rates: Requests that diverge at it or after it, before its children.
        kv_bytes: KV from its parent to it.
        state_bytes: Of its state; ``NO_STATE`` where none can be.
    """

    parents: IntArray
    gains: FloatArray
    rates: FloatArray
    kv_bytes: IntArray
    state_bytes: IntArray


@final
@dataclass(frozen=True, slots=True)
class TreePlan:
    """The chosen nodes, ascending; what they save, the bytes they take, and a bound on any plan's saving."""

    chosen: tuple[int, ...]
    saved: float
    num_bytes: int
    bound: float


def plan_tree(tree: LiveTree, capacity_bytes: int, *, is_exact: bool = True) -> TreePlan:
    """Return a plan that saves most within ``capacity_bytes``; see the module. Unless it has to be exact, the
    best of those at a price, which falls short of ``bound`` by less than what comes next is worth.
    """
    problem = _Problem(tree)
    everything = problem.at_price(0.0)
    if everything.num_bytes <= capacity_bytes:
        return everything
    over, within = everything, TreePlan((), 0.0, 0, 0.0)
    while True:
        price = (over.saved - within.saved) / (over.num_bytes - within.num_bytes)
        at = problem.at_price(price)
        net = over.saved - price * over.num_bytes
        if at.saved - price * at.num_bytes <= net + _ROUNDING * over.saved:
            break
        if at.num_bytes <= capacity_bytes:
            within = at
        else:
            over = at
    bound = net + price * capacity_bytes
    if not is_exact or bound - within.saved <= _ROUNDING * bound:
        return TreePlan(within.chosen, within.saved, within.num_bytes, bound)
    return _within_gap(problem, price, capacity_bytes, within, bound)


@final
class _Problem:
    """A tree laid out for the recurrence: row ``first[v] + k`` is node ``v`` with its ``k``-th choosable
    ancestor chosen, 0 for none.
    """

    def __init__(self, tree: LiveTree) -> None:
        self.tree = tree
        self.rates_below = _rates_below(tree.parents, tree.rates)
        self.first, self.ancestor_gains = _rows(tree.parents, tree.gains, tree.state_bytes)
        self.best: FloatArray = np.zeros(self.ancestor_gains.size)

    def at_price(self, price: float) -> TreePlan:
        """Return the best plan at a price of a byte, and leave ``best`` behind."""
        tree = self.tree
        is_chosen = _best_at_price(
            tree.parents,
            tree.gains,
            self.rates_below,
            tree.kv_bytes,
            tree.state_bytes,
            self.first,
            self.ancestor_gains,
            price,
            self.best,
        )
        chosen = np.flatnonzero(is_chosen)
        saved, num_bytes = _measured(
            tree.parents, tree.gains, self.rates_below, tree.kv_bytes, tree.state_bytes, is_chosen
        )
        return TreePlan(tuple(chosen.tolist()), saved, num_bytes, saved)


def _within_gap(
    problem: _Problem, price: float, capacity_bytes: int, found: TreePlan, bound: float
) -> TreePlan:
    """Return the best plan, of which ``found`` is known; ``problem.best`` has to be that of ``price``."""
    tree, first, best = problem.tree, problem.first.tolist(), problem.best.tolist()
    gap = bound - found.saved + _ROUNDING * bound
    children: list[list[int]] = [[] for _ in first]
    for node, parent in enumerate(tree.parents.tolist()[1:], 1):
        children[parent].append(node)
    frontiers: list[list[_Option]] = [[] for _ in best]

    def merged(node: int, row: int) -> list[_Option]:
        """Return the frontier of all children of ``node`` together."""
        options: list[_Option] = [(0, 0.0, None)]
        least = -gap
        for child in children[node]:
            at = first[child] + row
            least += best[at]
            theirs = frontiers[at]
            if len(theirs) == 1 and theirs[0][2] is None:
                continue
            options = _undominated(
                (
                    (a_bytes + b_bytes, a_saved + b_saved, (a_way, b_way) if b_way else a_way)
                    for a_bytes, a_saved, a_way in options
                    for b_bytes, b_saved, b_way in theirs
                ),
                capacity_bytes,
                price,
                least,
            )
        return options

    for node in range(len(first) - 1, 0, -1):
        state, kv = int(tree.state_bytes[node]), int(tree.kv_bytes[node])
        rate, gain = float(problem.rates_below[node]), float(tree.gains[node])
        num_rows = (first[node + 1] if node + 1 < len(first) else len(best)) - first[node]
        chosen_below = merged(node, num_rows) if state != NO_STATE else []
        for row in range(num_rows):
            at = first[node] + row
            options = [(num + kv, saved, way) for num, saved, way in merged(node, row)]
            if chosen_below:
                alone = (gain - float(problem.ancestor_gains[at])) * rate
                options += [
                    (num + kv + state, saved + alone, (way, node)) for num, saved, way in chosen_below
                ]
            options.append((0, 0.0, None))
            frontiers[at] = _undominated(options, capacity_bytes, price, best[at] - gap)
    options = merged(0, 0)
    num_bytes, saved, way = max(options, key=lambda option: option[1], default=(0, 0.0, None))
    if saved <= found.saved:
        return TreePlan(found.chosen, found.saved, found.num_bytes, bound)
    return TreePlan(tuple(sorted(_nodes(way))), saved, num_bytes, saved)


def _undominated(
    options: Iterable[_Option], capacity_bytes: int, price: float, least_net: float
) -> list[_Option]:
    """Return those that fit, are worth ``least_net`` at the price, and save more than any that is smaller."""
    fitting = [
        option
        for option in options
        if option[0] <= capacity_bytes and option[1] - price * option[0] >= least_net
    ]
    fitting.sort(key=lambda option: (option[0], -option[1]))
    kept: list[_Option] = []
    most = -1.0
    for option in fitting:
        if option[1] > most:
            kept.append(option)
            most = option[1]
    return kept


def _nodes(way: _Way) -> list[int]:
    found: list[int] = []
    pending: list[_Way] = [way]
    while pending:
        at = pending.pop()
        if at is not None:
            before, this = at
            pending.append(before)
            if isinstance(this, int):
                found.append(this)
            else:
                pending.append(this)
    return found


@kernel("float64[::1](int64[::1], float64[::1])")
def _rates_below(parents: IntArray, rates: FloatArray) -> FloatArray:
    below = rates.copy()
    for node in range(parents.size - 1, 0, -1):
        below[parents[node]] += below[node]
    return below


@kernel("Tuple((int64[::1], float64[::1]))(int64[::1], float64[::1], int64[::1])")
def _rows(parents: IntArray, gains: FloatArray, state_bytes: IntArray) -> tuple[IntArray, FloatArray]:
    """Return where each node's rows begin, and the gain of the chosen ancestor of each row."""
    size = parents.size
    first = np.zeros(size, np.int64)
    count = np.ones(size, np.int64)
    total = 1
    for node in range(1, size):
        parent = parents[node]
        first[node] = total
        count[node] = count[parent] + (1 if parent > 0 and state_bytes[parent] >= 0 else 0)
        total += count[node]
    ancestor_gains = np.zeros(total)
    for node in range(1, size):
        parent = parents[node]
        for row in range(count[parent]):
            ancestor_gains[first[node] + row] = ancestor_gains[first[parent] + row]
        if count[node] > count[parent]:
            ancestor_gains[first[node] + count[parent]] = gains[parent]
    return first, ancestor_gains


@kernel(
    "boolean[::1](int64[::1], float64[::1], float64[::1], int64[::1], int64[::1], int64[::1], float64[::1], "
    "float64, float64[::1])"
)
def _best_at_price(
    parents: IntArray,
    gains: FloatArray,
    rates_below: FloatArray,
    kv_bytes: IntArray,
    state_bytes: IntArray,
    first: IntArray,
    ancestor_gains: FloatArray,
    price: float,
    best: FloatArray,
) -> npt.NDArray[np.bool_]:
    """Fill ``best`` and return which nodes the plan chooses. Of equal plans, one with the fewest bytes."""
    size, num_rows = parents.size, best.size
    # Sums over the children: where the node is not chosen, by row, and where it is.
    skipped, taken = np.zeros(num_rows), np.zeros(size)
    # 0 for nothing below, 1 for something below, 2 for this one.
    choice = np.zeros(num_rows, np.int8)
    for node in range(size - 1, 0, -1):
        parent = parents[node]
        end = first[node + 1] if node + 1 < size else num_rows
        parent_rows = first[parent + 1] - first[parent]
        for at in range(first[node], end):
            value = skipped[at]
            choice[at] = 1
            if state_bytes[node] >= 0:
                alone = (gains[node] - ancestor_gains[at]) * rates_below[node]
                chosen = alone - price * state_bytes[node] + taken[node]
                if chosen > value:
                    value = chosen
                    choice[at] = 2
            value -= price * kv_bytes[node]
            if value <= 0.0:
                value = 0.0
                choice[at] = 0
            best[at] = value
            row = at - first[node]
            if row < parent_rows:
                skipped[first[parent] + row] += value
            else:
                taken[parent] += value
    best[0] = skipped[0]
    # From the root down: the row that each node is in.
    row_of = np.zeros(size, np.int64)
    is_live = np.zeros(size, np.bool_)
    is_chosen = np.zeros(size, np.bool_)
    is_live[0] = True
    for node in range(1, size):
        parent = parents[node]
        if not is_live[parent]:
            continue
        row = row_of[parent] if not is_chosen[parent] else first[parent + 1] - first[parent]
        row_of[node] = row
        made = choice[first[node] + row]
        is_live[node] = made > 0
        is_chosen[node] = made == 2
    return is_chosen


@kernel(
    "Tuple((float64, int64))(int64[::1], float64[::1], float64[::1], int64[::1], int64[::1], boolean[::1])"
)
def _measured(
    parents: IntArray,
    gains: FloatArray,
    rates_below: FloatArray,
    kv_bytes: IntArray,
    state_bytes: IntArray,
    is_chosen: npt.NDArray[np.bool_],
) -> tuple[float, int]:
    """Return what the chosen nodes save and take."""
    size = parents.size
    needs_kv = is_chosen.copy()
    chosen_gain = np.zeros(size)
    saved, num_bytes = 0.0, 0
    for node in range(1, size):
        parent = parents[node]
        chosen_gain[node] = chosen_gain[parent]
        if is_chosen[node]:
            saved += (gains[node] - chosen_gain[parent]) * rates_below[node]
            num_bytes += state_bytes[node]
            chosen_gain[node] = gains[node]
    for node in range(size - 1, 0, -1):
        if needs_kv[node]:
            needs_kv[parents[node]] = True
            num_bytes += kv_bytes[node]
    return saved, num_bytes
