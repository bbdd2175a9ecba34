"""Marconi: junction and last, evicted by recency and by what a byte saves (MLSys 2025, arXiv 2411.19379).

Admission
    At most two states per prompt: at its end, and where it branches off from what is stored, at the second
    sighting. KV ends at the last state of each path.
Eviction
    The least ``recency + alpha * efficiency``. Recency is one over the time since the last use; efficiency is
    the cost saved over the next shallower state, per byte that the eviction frees. Both are normalised to
    0..1 over all candidates, which are the states with at most one other below them. A use refreshes one
    state, not those before it; one that is evicted hands the time of its last use to the one below it.
Tuning
    ``alpha`` is 0 until the first eviction, after ``n`` requests. After ``5 n`` requests, all of them are
    replayed on an empty cache under each ``alpha`` of a grid; the one that reuses most is kept for good.

Efficiency is told apart in steps of 4 %, so that the least is found without looking at every state: O(log n)
to rank, O(cells) to evict. The tuning keeps the prompts of the window, and serves ``5 n`` requests for each
``alpha`` of the grid, once.

Unlike theirs, the state at the end is that of the prompt, not of the answer, which a replay does not know;
and the memory in efficiency is what an eviction frees, where their code counts the KV of the whole
prefix. Their code spaces the grid by 0.1; here it is 0.2, in half the time.
"""

import math
from typing import final

import numpy as np
import numpy.typing as npt

from milepost.errors import ConfigurationError
from milepost.policies.base import CachePolicy, PromptRecord, ReplayPrompts
from milepost.policies.peers.matched import TailAndMatchedJunction
from milepost.store import Checkpoint, EvictionPolicy, InsertResult, Reranking

__all__ = ["MarconiEviction", "marconi"]

FloatArray = npt.NDArray[np.float64]

_WINDOW_MULTIPLE = 5
_ALPHAS = tuple(step / 5 for step in range(11))
# Efficiencies from 2**-16 to 2**16 times the first one seen.
_CELLS_PER_OCTAVE = 16
_NUM_EFFICIENCIES = 32 * _CELLS_PER_OCTAVE + 1
# States with several others below them are no candidates: they go when nothing else is left.
_KEPT = _NUM_EFFICIENCIES
_NUM_CELLS = _NUM_EFFICIENCIES + 1
_KEPT_WORTH = 1e9
_EFFICIENCIES = 2.0 ** ((np.arange(_NUM_EFFICIENCIES) - _NUM_EFFICIENCIES // 2) / _CELLS_PER_OCTAVE)


@final
class MarconiEviction(EvictionPolicy):
    """Ranks by the time of the last use within cells of like efficiency. See the module.

    Args:
        alpha: Weight of efficiency; tuned if None.
    """

    weighs_neighbours = True

    def __init__(self, alpha: float | None = None) -> None:
        self.alpha = 0.0 if alpha is None else alpha
        self._tick = 0
        self._unit = 0.0
        self._window: int | None = None
        self._history: list[PromptRecord] = []
        self._is_tuned = alpha is not None
        self._replay: ReplayPrompts | None = None

    @property
    def scales(self) -> FloatArray:
        """Unused: worths are sums."""
        return np.ones(_NUM_CELLS)

    def attach(self, replay: ReplayPrompts) -> None:
        """Take what replays prompts on a cache like the one that is served."""
        self._replay = replay

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        """Return the cell of its efficiency, and the tick of its last use."""
        if len(checkpoint.below) > 1:
            return _KEPT, checkpoint.last_used
        efficiency = max(checkpoint.saving, 1e-9) / max(1, freed_bytes)
        self._unit = self._unit or efficiency
        cell = _NUM_EFFICIENCIES // 2 + round(_CELLS_PER_OCTAVE * math.log2(efficiency / self._unit))
        return min(max(0, cell), _NUM_EFFICIENCIES - 1), checkpoint.last_used

    def worths(self, least: FloatArray) -> FloatArray:
        """Return the utility of the first of each cell, in any unit. O(cells)."""
        if not self.alpha:
            # Recency alone: the order of the ticks.
            worths = least.copy()
            worths[_KEPT] += _KEPT_WORTH
            return worths
        worths = np.full(_NUM_CELLS, np.inf)
        worths[_KEPT] = least[_KEPT] + _KEPT_WORTH
        taken = np.flatnonzero(least[:_KEPT] < np.inf)
        if taken.size:
            recency = 1.0 / np.maximum(1.0, self._tick - least[taken])
            worths[taken] = _normalised(recency) + self.alpha * _normalised(_EFFICIENCIES[taken])
        return worths

    def note_request(self, inserted: InsertResult) -> Reranking:
        """Keep the prompt until alpha is tuned."""
        self._tick += 1
        if not self._is_tuned:
            self._history.append(PromptRecord.of(inserted))
            if self._window is not None and len(self._history) >= self._window:
                self._tune()
        return Reranking()

    def note_eviction(self, checkpoint: Checkpoint, worth: float) -> None:
        """Hand its last use to the state below it, and begin the window at the first eviction."""
        if self._window is None:
            self._window = _WINDOW_MULTIPLE * len(self._history)
        if len(checkpoint.below) == 1:
            (deeper,) = checkpoint.below.values()
            deeper.last_used = max(deeper.last_used, checkpoint.last_used)

    def _tune(self) -> None:
        self._is_tuned = True
        if self._replay is not None:
            reused = [self._replay(marconi(alpha=alpha), self._history) for alpha in _ALPHAS]
            self.alpha = _ALPHAS[int(np.argmax(reused))]
        self._history = []


def marconi(*, alpha: float | None = None) -> CachePolicy:
    """Return a new policy.

    Args:
        alpha: Weight of efficiency against recency; tuned online unless given.

    Raises:
        ConfigurationError: ``alpha`` is negative or not finite.
    """
    if alpha is not None and not (math.isfinite(alpha) and alpha >= 0.0):
        raise ConfigurationError(f"alpha={alpha}; give a weight of 0 or more")
    eviction = MarconiEviction(alpha)
    return CachePolicy(TailAndMatchedJunction(), eviction, attach=eviction.attach if alpha is None else None)


def _normalised(values: FloatArray) -> FloatArray:
    least, most = values.min(), values.max()
    normalised: FloatArray = (values - least) / (most - least) if most > least else np.zeros_like(values)
    return normalised
