"""The plan of one prompt at a price of memory, over checkpoints and the KV before them together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from milepost.kernels import kernel
from milepost.overlap import with_points
from milepost.placement.base import Placement, PlacementRequest

__all__ = ["NOTHING_WORTHY", "WorthyPlan", "plan_worth"]

# The least price to begin with.
_TINY = 1e-12
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WorthyPlan:
    """A plan, the cost it is expected to save in each request's time, and the bytes it takes in the end."""

    placement: Placement
    saving: float
    num_bytes: int


NOTHING_WORTHY = WorthyPlan(Placement(), 0.0, 0)


def plan_worth(
    request: PlacementRequest,
    depths: IntArray,
    rates: FloatArray,
    *,
    branches: Sequence[tuple[int, float]] = (),
    price_per_byte: float = 0.0,
    least_gain: float = 0.0,
    cost_per_capture: float = 0.0,
    cost_per_cut: float = math.inf,
) -> WorthyPlan:
    """Return the positions that maximise expected saving minus the price of the memory they take.

    A plan ``p_1 < ... < p_n`` beyond the resume position ``p_0`` saves ``F(p_k) - F(p_{k-1})`` whenever a
    request diverges at ``p_k`` or deeper. Each checkpoint costs its bytes; the deepest one also the KV up to
    it that is not stored yet. The first of them may take the place of the checkpoint at ``p_0``: then what is
    lost is the saving of requests that diverge between the two, if that is less than the price of one
    checkpoint; it is captured at the same cost.

    Args:
        request: The prompt.
        depths: Where requests diverge, ascending, shape ``[K]``.
        rates: How many do in each request's time, shape ``[K]``.
        branches: Further depths and rates.
        price_per_byte: What a byte is worth elsewhere: saving in each request's time.
        least_gain: A checkpoint adds at least this share of what a checkpoint at every depth would save.
        cost_per_capture: What a capture costs in each request's time, over the life of its prompt.
        cost_per_cut: What each further one costs in one of ``request.call_ends``, likewise.

    Complexity: O(K log K).
    """
    if branches:
        depths, rates = with_points(depths, rates, branches)
    last = request.num_tokens if request.affordable_position is None else request.affordable_position
    base = request.resume_position
    deepest = min(last, request.num_tokens) // request.grid * request.grid
    # Deeper than the KV that is there already, memory costs more: to stop there may be best.
    resident = min(request.resident_kv_tokens, deepest) // request.grid * request.grid
    positions, tails, lost = _candidates(depths, rates, base, deepest, resident, request.grid)
    if positions.size == 0 or request.max_checkpoints < 1:
        return NOTHING_WORTHY
    if request.call_ends:
        ends = np.array(request.call_ends, np.int64)
        positions, tails, lost, calls = _in_calls(positions, tails, lost, ends, base, request.grid)
    else:
        calls = np.arange(positions.size, dtype=np.int64)
    if request.cost is None:
        gains = positions.astype(np.float64)
        base_gain, fallback_gain = float(base), float(request.fallback_position)
    else:
        points = np.concatenate(((request.fallback_position, base), positions))
        fallback_gain, base_gain, *_ = costs = request.cost(points).astype(np.float64)
        gains = costs[2:]
    chosen, saved, lost_rate = _best_plan_within(
        positions,
        gains,
        base_gain,
        tails,
        lost,
        base_gain - fallback_gain if base else math.inf,
        price_per_byte * request.checkpoint_bytes + cost_per_capture,
        cost_per_capture,
        calls,
        cost_per_cut,
        least_gain,
        price_per_byte * request.kv_bytes_per_token,
        request.resident_kv_tokens,
        request.max_checkpoints,
    )
    picked: list[int] = chosen.tolist()
    if not picked:
        return NOTHING_WORTHY
    new_kv = max(0, picked[-1] - request.resident_kv_tokens)
    num_bytes = len(picked) * request.checkpoint_bytes + new_kv * request.kv_bytes_per_token
    if base:
        # The checkpoint resumed from makes room, where it is worth less than the price from now on.
        replaced = lost_rate * (base_gain - fallback_gain)
        if replaced < price_per_byte * request.checkpoint_bytes:
            saved -= replaced
            num_bytes -= request.checkpoint_bytes
    return WorthyPlan(Placement(tuple(picked)), saved, num_bytes)


@kernel(
    "Tuple((int64[::1], float64[::1], float64[::1]))"
    "(Array(int64, 1, 'C', readonly=True), float64[::1], int64, int64, int64, int64)"
)
def _candidates(
    depths: IntArray, rates: FloatArray, base: int, last: int, resident: int, grid: int
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return the grid positions in ``(base, last]`` below some depth, and ``resident``; the rate of requests
    that diverge at each or deeper, and the rate of those that do in ``[base, position)``.
    """
    size = depths.size
    positions = np.empty(size + 1, np.int64)
    before = np.empty(size + 1)
    is_resident_due = resident > base
    total = 0.0
    count = 0
    for k in range(size):
        if depths[k] < base:
            continue
        position = min(depths[k] // grid * grid, last)
        if is_resident_due and position >= resident:
            is_resident_due = False
            if position > resident:
                positions[count] = resident
                before[count] = total
                count += 1
        if position > base and rates[k] > 0.0 and (count == 0 or position > positions[count - 1]):
            positions[count] = position
            before[count] = total
            count += 1
        total += rates[k]
    tails = np.empty(count)
    for k in range(count):
        tails[k] = total - before[k]
    return positions[:count], tails, before[:count]


@kernel(
    "Tuple((int64[::1], float64[::1], float64[::1], int64[::1]))"
    "(int64[::1], float64[::1], float64[::1], int64[::1], int64, int64)"
)
def _in_calls(
    positions: IntArray, tails: FloatArray, lost: FloatArray, ends: IntArray, base: int, grid: int
) -> tuple[IntArray, FloatArray, FloatArray, IntArray]:
    """Return candidates and, among them, the last grid positions of calls; and which call each is in.

    Short of where requests diverge a state saves less, but takes no cut where the next call leaves another.
    """
    size = positions.size + ends.size
    all_positions, calls = np.empty(size, np.int64), np.empty(size, np.int64)
    all_tails, all_lost = np.empty(size), np.empty(size)
    count, call, above = 0, 0, base
    for k in range(positions.size):
        while call < ends.size and ends[call] < positions[k]:
            end = ends[call] // grid * grid
            if end > above:
                # Nobody diverges between it and the candidate.
                all_positions[count], all_tails[count], all_lost[count] = end, tails[k], lost[k]
                calls[count] = call
                count += 1
                above = end
            call += 1
        all_positions[count], all_tails[count], all_lost[count] = positions[k], tails[k], lost[k]
        calls[count] = call
        count += 1
        above = positions[k]
    return all_positions[:count], all_tails[:count], all_lost[:count], calls[:count]


@kernel(
    "Tuple((int64[::1], float64, float64))(int64[::1], float64[::1], float64, float64[::1], float64[::1], "
    "float64, float64, float64, int64[::1], float64, float64, float64, int64, int64)"
)
def _best_plan_within(
    positions: IntArray,
    costs: FloatArray,
    base_cost: float,
    tails: FloatArray,
    lost: FloatArray,
    saved_by_base: float,
    per_checkpoint: float,
    per_capture: float,
    calls: IntArray,
    per_cut: float,
    least_gain: float,
    per_kv_token: float,
    resident: int,
    max_checkpoints: int,
) -> tuple[IntArray, float, float]:
    """Return the positions of the best plan of at most ``max_checkpoints``, what it saves, and the rate of
    requests that diverge between the base and the first of them.
    """
    while True:
        chosen, saved = _best_plan(
            positions,
            costs,
            base_cost,
            tails,
            lost,
            saved_by_base,
            per_checkpoint,
            per_capture,
            calls,
            per_cut,
            least_gain,
            per_kv_token,
            resident,
        )
        if chosen.size <= max_checkpoints:
            lost_rate = lost[chosen[0]] if chosen.size else 0.0
            for k in range(chosen.size):
                chosen[k] = positions[chosen[k]]
            return chosen, saved, lost_rate
        # More than the budget can hold beside the KV: ask more for each, until few enough are worth it. The
        # first may cost nothing more than what it replaces, any other costs the price, so one is the least.
        per_checkpoint = 1.5 * max(per_checkpoint, least_gain * costs[-1] * tails[0], _TINY)


@kernel(
    "Tuple((int64[::1], float64))(int64[::1], float64[::1], float64, float64[::1], float64[::1], "
    "float64, float64, float64, int64[::1], float64, float64, float64, int64)"
)
def _best_plan(  # noqa: PLR0912, PLR0915 (in kernels of their own, lines would take longer than all of it)
    positions: IntArray,
    costs: FloatArray,
    base_cost: float,
    tails: FloatArray,
    lost: FloatArray,
    saved_by_base: float,
    per_checkpoint: float,
    per_capture: float,
    calls: IntArray,
    per_cut: float,
    least_gain: float,
    per_kv_token: float,
    resident: int,
) -> tuple[IntArray, float]:
    """Return the indices of the best plan and what it saves, by an upper envelope of lines: O(K).

    ``value[j]`` is the best plan whose deepest checkpoint is ``j``. Going on from ``i`` it is ``value[i] +
    (gains[j] - gains[i]) * tails[j]``: lines in ``tails[j]``, which falls while the slopes fall. Those of the
    same call have an envelope of their own, since going on from one of them takes a cut.
    """
    count = positions.size
    gains = np.empty(count)
    for j in range(count):
        gains[j] = costs[j] - base_cost
    densest = gains[count - 1] * tails[count - 1]
    for j in range(count - 1):
        densest += gains[j] * (tails[j] - tails[j + 1])
    per_checkpoint = max(per_checkpoint, least_gain * densest)
    value = np.empty(count)
    parent = np.empty(count, np.int64)
    # Envelopes of the calls before this one, and of this one: `envelope[k, first[k] : end[k]]`.
    envelope = np.empty((2, count), np.int64)
    first, end = np.zeros(2, np.int64), np.zeros(2, np.int64)
    first_of_call = 0
    best, deepest = 0.0, -1
    for j in range(count):
        tail = tails[j]
        into, new = 1, max(0, j - 1)
        if calls[j] != calls[first_of_call]:
            into, new = 0, first_of_call
            first_of_call = j
            first[1] = end[1] = 0
        if into == 0 or per_cut < np.inf:
            for i in range(new, j):
                if end[into] > first[into] and gains[envelope[into, end[into] - 1]] == gains[i]:
                    # Of parallel lines the upper one counts.
                    if value[envelope[into, end[into] - 1]] >= value[i]:
                        continue
                    end[into] -= 1
                while end[into] - first[into] > 1:
                    a, b = envelope[into, end[into] - 2], envelope[into, end[into] - 1]
                    # Line b is nowhere on top once i overtakes it before it overtakes a.
                    over, under = (value[i] - value[b]) * (gains[b] - gains[a]), value[b] - value[a]
                    if over < under * (gains[i] - gains[b]):
                        break
                    end[into] -= 1
                envelope[into, end[into]] = i
                end[into] += 1
        replaced = lost[j] * saved_by_base + per_capture if saved_by_base < np.inf else np.inf
        parent[j] = -1
        value[j] = gains[j] * tail - min(per_checkpoint, replaced)
        for k in range(2):
            while end[k] - first[k] > 1:
                a, b = envelope[k, first[k]], envelope[k, first[k] + 1]
                if value[b] - gains[b] * tail < value[a] - gains[a] * tail:
                    break
                first[k] += 1
            if end[k] > first[k]:
                i = envelope[k, first[k]]
                onwards = value[i] + (gains[j] - gains[i]) * tail - per_checkpoint - (per_cut if k else 0.0)
                if onwards > value[j]:
                    value[j] = onwards
                    parent[j] = i
        total = value[j] - per_kv_token * max(0, positions[j] - resident)
        if total > best:
            best, deepest = total, j
    chosen = _trace_back(parent, deepest)
    saved, above = 0.0, base_cost
    for k in range(chosen.size):
        deeper = chosen[k]
        saved += (costs[deeper] - above) * tails[deeper]
        above = costs[deeper]
    return chosen, saved


@kernel("int64[::1](int64[::1], int64)")
def _trace_back(parent: IntArray, last: int) -> IntArray:
    """Return the way from the first to ``last``, ascending; nothing where it is negative."""
    size = 0
    at = last
    while at >= 0:
        size += 1
        at = parent[at]
    way = np.empty(size, np.int64)
    while last >= 0:
        size -= 1
        way[size] = last
        last = parent[last]
    return way
