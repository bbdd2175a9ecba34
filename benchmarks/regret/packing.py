"""What the best of all caches reuses that knows every request to come: a packing of states over time.

The model
    Between two requests the cache holds states at nodes of the prompt tree, and the KV of every edge above
    them, in one budget. A request may resume at any state on its way that is held, and reuses the tokens
    before it. What it computes, all beyond that, it may leave behind: states at any of its nodes, and the KV
    to them. Nothing is moved at other times, and what is held through a request that resumed deeper stays
    what it is. This is all that a cache of this project's law can do, and nothing more; how the plan is found
    is not limited.

The program
    Only at requests that pass a node anything about it can change or be used, so it is held from one passer
    to the next or not at all: ``held[v, i]``, and ``kv[v, i]`` for the edge to it. ``resume[j, v]`` says
    where request ``j`` resumes. Then

        most  sum of position(v) * resume[j, v]
        with  sum over v of resume[j, v] <= 1,  resume[j, v] <= held[v, just before j]
              held[v, after j] <= held[v, before j] + 1 - sum over w at v or deeper of resume[j, w]
              held[v, i] <= kv[v, i] <= kv[parent of v, each of its intervals in that time]
              bytes held after each request <= budget

    Intervals of a parent that a child's covers are joined in a binary tree, so a shared beginning of all
    prompts costs O(log) rows a child, not one for each request. Relaxed to fractions it bounds all that any
    cache can do (see :mod:`benchmarks.regret.prompt_tree` for why these nodes are enough), and HiGHS finds it
    in seconds; it has a price of a byte at every moment, at which the trees of prompts fall apart into plans
    of their own. In whole numbers it is the best schedule with states at these nodes, and of a tree with
    nodes ``everywhere`` the best of all; that is a knapsack (several, over time), and as hard.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from benchmarks.regret.prompt_tree import ROOT, PromptTree
from milepost.errors import MilepostError

__all__ = ["Optimum", "optimum"]

_NO_LIMIT = np.inf
_EXACT_GAP = 1e-6


@final
@dataclass(frozen=True, slots=True)
class Optimum:
    """Reused tokens. Relaxed, no cache reaches more than ``bound``, and ``found`` is None. Exact, no schedule
    with states at the nodes does, and ``found`` is the best one met; solved, both are equal, to rounding.
    """

    bound: float
    found: float | None


def optimum(
    tree: PromptTree,
    *,
    capacity_tokens: int,
    state_tokens: int,
    exact: bool = False,
    time_limit_seconds: float = 600.0,
) -> Optimum:
    """Return the most that can be reused of a trace. Amounts of memory are in tokens of KV.

    Raises:
        MilepostError: the solver found nothing within the time.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    if not tree.ceiling_tokens:
        return Optimum(0.0, 0.0 if exact else None)
    program = _Program()
    _Packing(tree, program, capacity_tokens, state_tokens).fill()
    solved = milp(
        -np.array(program.values),
        constraints=LinearConstraint(
            program.matrix(), np.array(program.row_least), np.array(program.row_most)
        ),
        bounds=Bounds(0.0, np.array(program.most)),
        integrality=np.array(program.is_whole) if exact else None,
        options={"time_limit": time_limit_seconds, "mip_rel_gap": _EXACT_GAP},
    )
    if solved.fun is None:
        raise MilepostError(f"HiGHS stopped without a schedule ({solved.message}); give it more time")
    found = -float(solved.fun)
    if not exact:
        if solved.status:
            raise MilepostError(f"HiGHS stopped before the bound was known ({solved.message})")
        return Optimum(found, None)
    return Optimum(-float(solved.mip_dual_bound), found)


@final
class _Program:
    """Columns between 0 and their most, and rows over them."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.most: list[float] = []
        self.is_whole: list[bool] = []
        self.row_least: list[float] = []
        self.row_most: list[float] = []
        self._cells: tuple[list[int], list[int], list[float]] = [], [], []

    def column(self, *, value: float = 0.0, most: float = 1.0, is_whole: bool = True) -> int:
        """Add a column; return its number."""
        self.values.append(value)
        self.most.append(most)
        self.is_whole.append(is_whole)
        return len(self.values) - 1

    def row(self, terms: Sequence[tuple[int, float]], *, most: float, least: float = -_NO_LIMIT) -> None:
        """Ask that ``least <= sum of terms <= most``."""
        rows, columns, numbers = self._cells
        for column, number in terms:
            rows.append(len(self.row_most))
            columns.append(column)
            numbers.append(number)
        self.row_least.append(least)
        self.row_most.append(most)

    def matrix(self):  # type: ignore[no-untyped-def]
        """Return the rows as a sparse matrix."""
        from scipy.sparse import csr_matrix

        rows, columns, numbers = self._cells
        return csr_matrix((numbers, (rows, columns)), shape=(len(self.row_most), len(self.values)))


@final
class _Packing:
    """Writes the program of the module. An interval ``i`` of a node is from its passer ``i`` to the next."""

    def __init__(self, tree: PromptTree, program: _Program, capacity_tokens: int, state_tokens: int) -> None:
        self._tree, self._program = tree, program
        self._capacity, self._state = capacity_tokens, state_tokens
        self._passers = tree.passers()
        self._index = [{request: i for i, request in enumerate(at)} for at in self._passers]
        self._kv: dict[int, list[int]] = {}
        self._held: dict[int, list[int]] = {}
        self._joined: dict[tuple[int, int, int], int] = {}

    def fill(self) -> None:
        """Write it all."""
        program, tree = self._program, self._tree
        for node in range(1, len(tree.parents)):
            intervals = range(len(self._passers[node]) - 1)
            self._kv[node] = [program.column() for _ in intervals]
            self._held[node] = [program.column() for _ in intervals]
            for held, kv in zip(self._held[node], self._kv[node], strict=True):
                program.row([(held, 1.0), (kv, -1.0)], most=0.0)
        for request in range(len(tree.paths)):
            self._resume(request)
        for node, kv in self._kv.items():
            if tree.parents[node] != ROOT:
                self._carry(node, kv)
        self._budget()

    def _resume(self, request: int) -> None:
        # Beyond what it can resume from, it computes everything, and may leave any state behind.
        tree, program = self._tree, self._program
        path = tree.paths[request]
        resumed: list[tuple[int, float]] = []
        for node in reversed(path[: tree.usable[request]]):
            interval = self._index[node][request] - 1
            if interval >= 0:
                column = program.column(value=float(tree.positions[node]))
                program.row([(column, 1.0), (self._held[node][interval], -1.0)], most=0.0)
                resumed.append((column, 1.0))
            self._keep(node, interval, resumed)
        if resumed:
            program.row(resumed, most=1.0)

    def _keep(self, node: int, interval: int, resumed: list[tuple[int, float]]) -> None:
        """Let a state be held after a request where it was before, or where it was computed."""
        held = self._held[node]
        if 0 <= interval < len(held) - 1:
            self._program.row([(held[interval + 1], 1.0), (held[interval], -1.0), *resumed], most=1.0)

    def _carry(self, node: int, kv: Sequence[int]) -> None:
        """Have the KV of the parent's edge wherever there is that of a child."""
        parent = self._tree.parents[node]
        index, passers = self._index[parent], self._passers[node]
        for interval, column in enumerate(kv):
            start, end = index[passers[interval]], index[passers[interval + 1]]
            for covered in self._cover(parent, 0, len(self._kv[parent]), start, end):
                self._program.row([(column, 1.0), (covered, -1.0)], most=0.0)

    def _cover(self, node: int, first: int, last: int, start: int, end: int) -> Iterator[int]:
        """Yield the columns that stand for a node's KV in its intervals ``[start, end)``."""
        if first >= end or last <= start:
            return
        if start <= first and last <= end:
            yield self._all_of(node, first, last)
            return
        middle = (first + last) // 2
        yield from self._cover(node, first, middle, start, end)
        yield from self._cover(node, middle, last, start, end)

    def _all_of(self, node: int, first: int, last: int) -> int:
        """Return the column that is at most a node's KV in each of its intervals ``[first, last)``."""
        if last - first == 1:
            return self._kv[node][first]
        known = self._joined.get((node, first, last))
        if known is None:
            known = self._joined[node, first, last] = self._program.column()
            middle = (first + last) // 2
            for part in (self._all_of(node, first, middle), self._all_of(node, middle, last)):
                self._program.row([(known, 1.0), (part, -1.0)], most=0.0)
        return known

    def _budget(self) -> None:
        """Have what is held after each request be what was held before, and what has changed by it."""
        tree, program = self._tree, self._program
        changes: list[list[tuple[int, float]]] = [[] for _ in tree.paths]
        for columns in (self._kv, self._held):
            for node, intervals in columns.items():
                size = float(self._state)
                if columns is self._kv:
                    size = float(tree.positions[node] - tree.positions[tree.parents[node]])
                passers = self._passers[node]
                for interval, column in enumerate(intervals):
                    changes[passers[interval]].append((column, -size))
                    changes[passers[interval + 1]].append((column, size))
        before: int | None = None
        for change in changes:
            stored = program.column(most=float(self._capacity), is_whole=False)
            terms = [(stored, 1.0), *_summed(change)]
            if before is not None:
                terms.append((before, -1.0))
            program.row(terms, most=0.0, least=0.0)
            before = stored


def _summed(terms: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    total: dict[int, float] = {}
    for column, number in terms:
        total[column] = total.get(column, 0.0) + number
    return list(total.items())
