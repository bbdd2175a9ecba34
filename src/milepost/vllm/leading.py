"""Which rule leads where memory is short: stock vLLM's, or what was learned.

Stock's rule keeps the tail and the junction of every prompt, and takes the least recently used blocks. It
needs no evidence, so it leads at first, and then all is as in stock vLLM (:mod:`~milepost.vllm.following`).
The learned rule does better on most traffic once it has seen some, and worse on some, above all in pools that
hold only a few checkpoints. So the rule that does not lead is played beside the real cache, without content
and on the same prompts, and takes over where it reuses more than was really found.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import final

from milepost.hosted_cache import HostedCache
from milepost.lease import Lease
from milepost.placement import NoCheckpoints, Placement
from milepost.policies import CachePolicy, learned, load_lessons
from milepost.store import ContentlessPayloads
from milepost.vllm.layout import PoolLayout
from milepost.vllm.placing import placed_positions
from milepost.vllm.stock import seen_junction, stock_positions, stopless_positions

__all__ = ["LEAD_REMEMBERED", "LEAST_LEAD_ERRORS", "LEAST_LEAD_PROMPTS", "MOST_LAG_ERRORS", "Leader"]

# How much of the lead each request leaves: a lead of some hundred requests ago says little.
LEAD_REMEMBERED = 0.99
# The learned rule leads from when it is this many standard errors ahead, that of a sum of differences which
# might as well have gone the other way, and half an average prompt.
LEAST_LEAD_ERRORS = 1.9
LEAST_LEAD_PROMPTS = 0.5
# It leads until it is behind by more standard errors than that, by what was found since: what it would have
# found before is no credit, but tells how much is chance.
MOST_LAG_ERRORS = 1.0


@final
class Leader:
    """Says which rule leads. What was learned elsewhere, and any rule that does not learn, is what was asked
    for, and leads at first.

    Args:
        layout: How caches lie in the pool.
        policy: The policy of the real cache, not used yet.
        learned_from: File with what was learned elsewhere, if it exists.
        make_cache: Returns an empty cache of a capacity under a policy.
        stop_tokens: What a stop costs now, in tokens computed.
    """

    def __init__(
        self,
        layout: PoolLayout,
        *,
        policy: CachePolicy,
        learned_from: Path | None,
        make_cache: Callable[[int, CachePolicy], HostedCache],
        stop_tokens: Callable[[], int],
    ) -> None:
        #: Whether the learned rule leads; else all is as in stock vLLM, but for extras in spare memory.
        self.is_led_by_learning = policy.lessons is None or learned_from is not None
        self._rivals: _Rivals | None = None
        self._noted: list[tuple[Lease, int]] = []
        self._unplayed: list[tuple[Lease, int]] = []
        if policy.lessons is not None:
            rival = learned()
            if learned_from is not None:
                load_lessons(rival, learned_from)
            self._rivals = _Rivals(layout, make_cache, by_learning=rival, stop_tokens=stop_tokens)
        self._lead_tokens = self._squares = 0.0
        self._num_prompts = self._num_tokens = 0

    def note(self, lease: Lease, *, found: int) -> None:
        """Note a prompt that is being served, of which vLLM found ``found`` tokens."""
        if self._rivals is not None:
            self._noted.append((lease, found))

    def end_round(self) -> None:
        """Have what was noted be played by the next :meth:`catch_up`."""
        self._unplayed += self._noted
        self._noted.clear()

    def catch_up(self) -> bool:
        """Play the rounds that have ended, which no request should wait for; return whether the learned rule
        leads from now on and did not before.
        """
        unplayed, self._unplayed = self._unplayed, []
        did_lead = self.is_led_by_learning
        for lease, found in unplayed:
            self._play(lease, found)
        return self.is_led_by_learning and not did_lead

    def _play(self, lease: Lease, found: int) -> None:
        assert self._rivals is not None
        by_learning, by_stock = self._rivals.serve(lease)
        ahead = found - by_stock if self.is_led_by_learning else by_learning - found
        self._lead_tokens = self._lead_tokens * LEAD_REMEMBERED + ahead
        self._squares = self._squares * LEAD_REMEMBERED + ahead * ahead
        self._num_prompts += 1
        self._num_tokens += lease.request.num_tokens
        error = math.sqrt(self._squares)
        if self.is_led_by_learning:
            changes = self._lead_tokens < -MOST_LAG_ERRORS * error
        else:
            prompt_tokens = self._num_tokens / self._num_prompts
            changes = self._lead_tokens > max(LEAST_LEAD_PROMPTS * prompt_tokens, LEAST_LEAD_ERRORS * error)
        if changes:
            self.is_led_by_learning = not self.is_led_by_learning
            self._lead_tokens = 0.0


class _Rivals:
    """Both rules on caches of their own without content; see ``Leader``."""

    def __init__(
        self,
        layout: PoolLayout,
        make_cache: Callable[[int, CachePolicy], HostedCache],
        *,
        by_learning: CachePolicy,
        stop_tokens: Callable[[], int],
    ) -> None:
        self._layout = layout
        self._source = ContentlessPayloads(layout.footprint, segment_tokens=layout.block_tokens)
        self._by_stock = make_cache(layout.capacity, CachePolicy(NoCheckpoints()))
        self._by_learning = make_cache(layout.capacity, by_learning)
        self._stop_tokens = stop_tokens

    def serve(self, lease: Lease) -> tuple[int, int]:
        """Return how many tokens of a prompt the learned rule reuses, and stock's. O(num_tokens)."""
        by_learning = self._serve(self._by_learning, lease, learns=True)
        return by_learning, self._serve(self._by_stock, lease, learns=False)

    def _serve(self, cache: HostedCache, asked: Lease, *, learns: bool) -> int:
        layout, num_tokens, breakpoints = self._layout, asked.request.num_tokens, asked.request.breakpoints
        with cache.acquire(asked.tokens, num_tokens=num_tokens, breakpoints=breakpoints) as lease:
            resumed, resident = lease.resume_position, lease.request.resident_kv_tokens
            shared = seen_junction(layout, lease.request)
            given = stock_positions(layout, resumed=resumed, shared=shared, num_tokens=num_tokens)
            placement = Placement(given)
            if learns:
                num_new_blocks = layout.blocks_of_plan(given, num_tokens - resumed)
                has_room = num_new_blocks * layout.block_tokens <= layout.capacity - cache.stored_bytes
                placement = Placement(
                    placed_positions(
                        cache,
                        lease,
                        given=given if has_room else (),
                        free=stopless_positions(
                            layout, num_tokens=num_tokens, resumed=resumed, shared=shared
                        ),
                        stop_tokens=self._stop_tokens(),
                    )
                )
            # While the prompt is computed, all of its KV and two states take the place of others, and what
            # its drafts need.
            running = layout.blocks_of_kv(num_tokens) - layout.blocks_of_kv(resident)
            running += len(layout.state_groups) + layout.running_blocks
            cache.resize(max(0, layout.capacity - running * layout.block_tokens))
            cache.resize(layout.capacity)
            cache.commit(lease, placement, self._source)
            return resumed
