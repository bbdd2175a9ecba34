"""Which rule leads where memory is short: stock vLLM's, or what was learned.

Stock's rule keeps the tail and the junction of every prompt, and evicts the least recently used. It needs no
evidence, so it leads at first. The learned rule does better on most traffic once it has seen some, and worse
on some, above all in pools that hold only a few checkpoints. So both are played beside the real cache,
without any content and on the same prompts (:class:`Rivals`), and :class:`LedEviction` follows the one that
reuses more.
"""

import math
from collections.abc import Callable
from typing import final

import numpy as np
import numpy.typing as npt

from milepost.lease import Lease
from milepost.placement import NoCheckpoints, Placement
from milepost.policies import CachePolicy
from milepost.prefix_cache import PrefixCache
from milepost.reuse import Sighting
from milepost.store import (
    Checkpoint,
    ContentlessPayloads,
    EvictionPolicy,
    Node,
    Passage,
    Recency,
    Reranking,
)
from milepost.vllm.layout import PoolLayout
from milepost.vllm.stock import stock_positions

__all__ = ["LedEviction", "Rivals"]

# How much of the lead each request leaves: a lead of some hundred requests ago says little.
_REMEMBERED = 0.99
# The learned rule leads from when it is so many standard errors ahead, that of a sum of differences which
# might as well have gone the other way, and half an average prompt; until it is behind.
_LEAST_LEAD_ERRORS = 1.9
_LEAST_LEAD_PROMPTS = 0.5


@final
class LedEviction(EvictionPolicy):
    """Evicts by the learned rule where it leads, and the least recently used where it does not. The learned
    one learns in any case.
    """

    weighs_neighbours = True

    def __init__(self, by_learning: EvictionPolicy, *, leads: bool = False) -> None:
        self.is_led_by_learning = leads
        self._by_learning = by_learning
        self._recency = Recency()
        self._num_changes = 0
        self._is_changed = False
        self._even = np.ones(by_learning.scales.size)

    def lead(self, *, by_learning: bool) -> None:
        """Follow the one rule or the other from the next request on."""
        if by_learning != self.is_led_by_learning:
            self.is_led_by_learning = by_learning
            self._num_changes += 1
            self._is_changed = True

    @property
    def num_prompt_cells(self) -> int:  # type: ignore[override]
        """Those of the learned rule."""
        return self._by_learning.num_prompt_cells

    @property
    def scales(self) -> npt.NDArray[np.float64]:
        """Those of the learned rule where it leads; recency has no scales."""
        return self._by_learning.scales if self.is_led_by_learning else self._even

    @property
    def scales_version(self) -> int:  # type: ignore[override]
        """Changes with the learned scales and with the leader."""
        return self._by_learning.scales_version + (self._num_changes << 40)

    def rank(self, checkpoint: Checkpoint, held_bytes: int) -> tuple[int, float]:
        """Return what the leader says."""
        if self.is_led_by_learning:
            return self._by_learning.rank(checkpoint, held_bytes)
        # A cell that does not move with its prompt.
        return self.num_prompt_cells, self._recency.rank(checkpoint, held_bytes)[1] + 1.0

    def note_request(self, passage: Passage) -> Reranking:
        """Let the learned rule learn."""
        reranking = self._by_learning.note_request(passage)
        if self._is_changed:
            self._is_changed = False
            return Reranking(everything=True)
        return reranking if self.is_led_by_learning else Reranking()

    def note_prolonged(self, sighting: Sighting) -> Callable[[], None]:
        """Let the learned rule know."""
        return self._by_learning.note_prolonged(sighting)

    def note_forgotten(self, node: Node) -> None:
        """Let the learned rule know."""
        self._by_learning.note_forgotten(node)

    def note_eviction(self, checkpoint: Checkpoint, worth: float) -> None:
        """Let the learned rule know what a byte was worth, where it was the one to say so."""
        if self.is_led_by_learning:
            self._by_learning.note_eviction(checkpoint, worth)


@final
class Rivals:
    """Both rules on caches of their own without content.

    Args:
        layout: How caches lie in the pool, which all belongs to what is kept but for one running state.
        make_cache: Returns an empty cache of a capacity under a policy.
        by_learning: The learned policy, fresh.
        eviction: Follows the leader.
        stop_tokens: What a stop costs now, in tokens computed.

    Raises:
        CapacityError: not one checkpoint fits, so there is nothing to choose.
    """

    def __init__(
        self,
        layout: PoolLayout,
        make_cache: Callable[[int, CachePolicy], PrefixCache],
        *,
        by_learning: CachePolicy,
        eviction: LedEviction,
        stop_tokens: Callable[[], int],
    ) -> None:
        capacity = layout.capacity - len(layout.state_groups) * layout.block_tokens
        self._layout = layout
        self._capacity = capacity
        self._source = ContentlessPayloads(layout.footprint, segment_tokens=layout.block_tokens)
        self._by_stock = make_cache(capacity, CachePolicy(NoCheckpoints()))
        self._by_learning = make_cache(capacity, by_learning)
        self._eviction = eviction
        self._stop_tokens = stop_tokens
        self._lead_tokens = self._squares = 0.0
        self._num_prompts = self._num_tokens = 0

    def play(self, lease: Lease) -> None:
        """Serve a prompt under both rules, and let the better one lead. O(num_tokens)."""
        ahead = self._serve(self._by_learning, lease, learns=True)
        ahead -= self._serve(self._by_stock, lease, learns=False)
        self._lead_tokens = self._lead_tokens * _REMEMBERED + ahead
        self._squares = self._squares * _REMEMBERED + ahead * ahead
        self._num_prompts += 1
        self._num_tokens += lease.request.num_tokens
        least = max(
            _LEAST_LEAD_PROMPTS * self._num_tokens / self._num_prompts,
            _LEAST_LEAD_ERRORS * math.sqrt(self._squares),
        )
        is_ahead = self._lead_tokens > (0.0 if self._eviction.is_led_by_learning else least)
        self._eviction.lead(by_learning=is_ahead)

    def _serve(self, cache: PrefixCache, asked: Lease, *, learns: bool) -> int:
        """Return how many tokens of the prompt ``cache`` reuses."""
        layout, num_tokens, breakpoints = self._layout, asked.request.num_tokens, asked.request.breakpoints
        with cache.acquire(asked.tokens, num_tokens=num_tokens, breakpoints=breakpoints) as lease:
            given = stock_positions(layout, lease.request, num_tokens=num_tokens)
            placement = Placement(given)
            if learns:
                num_new_blocks = layout.blocks_of_plan(given, num_tokens - lease.resume_position)
                has_room = num_new_blocks * layout.block_tokens <= self._capacity - cache.stored_bytes
                placement = cache.plan(
                    lease, given_positions=given if has_room else (), capture_tokens=self._stop_tokens()
                )
            cache.commit(lease, placement, self._source)
            return lease.resume_position
