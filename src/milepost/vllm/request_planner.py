"""Plans a request that vLLM is about to admit: how far it follows earlier prompts, and where it stops."""

from collections.abc import Sequence
from typing import final

from milepost.vllm.belief import acquire_as_found
from milepost.vllm.checkpoint_cache import CheckpointCache
from milepost.vllm.counts import CheckpointCounts
from milepost.vllm.layout import PoolLayout
from milepost.vllm.pool import BlockMemory
from milepost.vllm.prompt_blocks import PromptBlocks, hash_keys
from milepost.vllm.request_state import RequestState
from milepost.vllm.stops import StopPlanner

__all__ = ["RequestPlanner"]


@final
class RequestPlanner:
    """See the module.

    Args:
        cache: Of the pool's checkpoints.
        memory: The pool.
        layout: How caches lie in it.
        stops: Says where a prefill stops.
        counts: Checkpoints that were believed in and not there are counted there.
    """

    def __init__(
        self,
        cache: CheckpointCache,
        *,
        memory: BlockMemory,
        layout: PoolLayout,
        stops: StopPlanner,
        counts: CheckpointCounts,
    ) -> None:
        self._cache = cache
        self._memory = memory
        self._layout = layout
        self._stops = stops
        self._counts = counts

    def plan(
        self,
        block_hashes: Sequence[bytes],
        num_tokens: int,
        *,
        hit: int,
        shared: int,
        may_hit: bool,
        breakpoints: Sequence[int],
    ) -> RequestState | None:
        """Return a request that waits, planned; None where it is too short to keep anything of.

        Args:
            block_hashes: Of all whole blocks of ``match_tokens`` tokens of the prompt that are hashed yet.
            num_tokens: Length of the prompt.
            hit: Tokens that it will resume from.
            shared: Tokens up to which vLLM has seen that it is shared, where those are more; else 0.
            may_hit: False where the request must not read the cache, whatever is there.
            breakpoints: Positions of its messages' ends, where the client said so.
        """
        layout, match_tokens = self._layout, self._layout.match_tokens
        num_hashed = layout.hashed_tokens(num_tokens)
        is_too_short = num_hashed < layout.grid_tokens or num_tokens <= layout.grid_tokens
        if is_too_short or num_hashed > len(block_hashes) * match_tokens:
            return None
        # Depths are known in whole match units, so the length is told in them too: a rest of many tokens
        # would blur how far from its end a prompt was shared.
        num_told = min(num_tokens, num_hashed + layout.rest_tokens)
        lease, num_stale = acquire_as_found(
            self._cache.current,
            self._memory,
            hash_keys(block_hashes, num_told, match_tokens),
            num_told,
            hit=hit,
            may_hit=may_hit,
            breakpoints=[position for position in breakpoints if position <= num_told],
        )
        self._counts.stale += num_stale
        if lease.checkpoint is not None and shared < hit + layout.block_tokens:
            # Stock vLLM would keep a state here now.
            self._cache.following.note_used(lease.checkpoint)
        stops, given = self._stops.plan(lease, num_tokens, hit=hit, shared=shared)
        prompt = PromptBlocks(block_hashes, layout, self._memory)
        return RequestState(lease, prompt, hit, stops, given, shared=shared, num_untold=num_tokens - num_told)

    def plan_loaded(self, request: RequestState, position: int, *, is_kept: bool) -> None:
        """Plan a waiting request anew that resumes at ``position``, where a KV connector has brought it; the
        pool can keep the state there where ``is_kept``.
        """
        is_given = position in request.given
        request.num_loaded += position - request.hit
        self._cache.take_in_loaded(request, position, is_kept=is_kept)
        request.hit = position
        request.stops, request.given = self._stops.plan(
            request.lease, request.num_prompt_tokens, hit=position, shared=request.shared
        )
        if is_given:
            # Stock vLLM keeps what was loaded there too.
            request.given = (position, *request.given)
