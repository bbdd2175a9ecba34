"""vLLM's manager of recurrent states, told by the checkpoint manager which to keep."""

from collections.abc import Sequence
from typing import Any

from vllm.v1.core.single_type_kv_cache_manager import MambaManager

from milepost.vllm.checkpoint_manager import CheckpointManager
from milepost.vllm.compatibility import junction_switch
from milepost.vllm.event_publisher import ResumableEvents

__all__ = ["PlannedStateManager"]

# Its name depends on the version; without one, the plugin is not active.
_JUNCTION_SWITCH = junction_switch() or ""


class PlannedStateManager(MambaManager):
    """Keeps the recurrent states at planned positions, and no others."""

    # Given once the scheduler is built: vLLM makes its managers without arguments of ours.
    checkpoint_manager: CheckpointManager | None = None
    resumable_events: ResumableEvents | None = None

    def allocate_new_blocks(self, request_id: str, num_tokens: int, num_tokens_main_model: int) -> list[Any]:
        """Have the least valuable blocks come first."""
        if self.checkpoint_manager is not None and (
            num := self._num_blocks_taken(request_id, num_tokens_main_model)
        ):
            self.checkpoint_manager.make_room(num)
        return super().allocate_new_blocks(request_id, num_tokens, num_tokens_main_model)

    def _num_blocks_taken(self, request_id: str, num_tokens: int) -> int:
        """Return how many blocks vLLM will take for the state after ``num_tokens`` tokens: one, unless it
        stays where it is, and at first those for the states of drafts; one more where it is copied on write,
        and one where the worker exports a state from inside the chunk.
        """
        copies = (request_id in self._partial_hit_reqs) + (request_id in self._checkpoints)
        required = -(-num_tokens // self.block_size) + self.num_speculative_blocks
        missing = required - len(self.req_to_blocks[request_id])
        is_new = request_id not in self._allocated_block_reqs
        return copies + max(0, min(missing, 1 + is_new * self.num_speculative_blocks))

    def has_state(self, request_id: str, position: int) -> bool:
        """Return whether the state of a request at a block boundary can be given a hash: it lies in a block
        of its own that is not passed yet. Where an answer has jumped over the boundary and the next step is
        scheduled, vLLM has let the block go.
        """
        blocks, index = self.req_to_blocks.get(request_id, ()), position // self.block_size - 1
        is_passed = self.num_cached_block.get(request_id, 0) > index
        return not is_passed and index < len(blocks) and not blocks[index].is_null

    def get_num_blocks_to_allocate(
        self,
        request_id: str,
        num_tokens: int,
        new_computed_blocks: Sequence[Any],
        total_computed_tokens: int,
        num_local_computed_tokens: int,
        num_tokens_main_model: int,
        *args: Any,
        **kwargs: Any,
    ) -> int:
        """Count the block of a state that is loaded in the very step that computes on: vLLM counts one for
        that and the next state together, admits the request, and is then a block short.
        """
        num_blocks = super().get_num_blocks_to_allocate(
            request_id,
            num_tokens,
            new_computed_blocks,
            total_computed_tokens,
            num_local_computed_tokens,
            num_tokens_main_model,
            *args,
            **kwargs,
        )
        is_loaded = total_computed_tokens > num_local_computed_tokens
        goes_on = -(-num_tokens_main_model // self.block_size) > -(-total_computed_tokens // self.block_size)
        return int(num_blocks) + (is_loaded and goes_on)

    def allocate_external_computed_blocks(
        self, request_id: str, num_local: int, num_external: int, *args: Any, **kwargs: Any
    ) -> None:
        """Do as for blocks that are computed."""
        if self.checkpoint_manager is not None:
            # All but the last were given null blocks with the hit.
            self.checkpoint_manager.make_room(1)
        super().allocate_external_computed_blocks(request_id, num_local, num_external, *args, **kwargs)

    def cache_blocks(
        self,
        request: Any,
        num_tokens: int,
        retention_interval: int | None = None,
        *,
        replay_boundaries: Sequence[int],
    ) -> None:
        """Give a hash to the states at planned positions."""
        if self.checkpoint_manager is not None:
            if not self._checkpoints and self.checkpoint_manager.rests_at(request.request_id, num_tokens):
                return
            stops = self.checkpoint_manager.on_blocks(request.request_id, request.block_hashes, num_tokens)
            retention_interval = 0
            replay_boundaries = [position for position in stops if position % self.block_size == 0]
        super().cache_blocks(request, num_tokens, retention_interval, replay_boundaries=replay_boundaries)

    def _cache_partial_tail_block(
        self, request: Any, num_tokens: int, retention_interval: int | None
    ) -> bytes | None:
        """Give a hash to a state inside a block, where one is planned."""
        if self.checkpoint_manager is None:
            return super()._cache_partial_tail_block(request, num_tokens, retention_interval)
        stops = self.checkpoint_manager.commit(request.request_id)
        is_inside = num_tokens % self.block_size != 0
        if is_inside and num_tokens == self.checkpoint_manager.loaded_position(request.request_id):
            return self._find_loaded(request, num_tokens)
        exported = self._checkpoints.get(request.request_id)
        if exported is not None:
            position, index = exported
            if position in stops:
                return super()._cache_partial_tail_block(request, num_tokens, retention_interval)
            block = self.req_to_blocks[request.request_id][index]
            self.block_pool.evict_blocks({block.block_id})
            return None
        is_new = request.num_computed_tokens < num_tokens
        if num_tokens not in stops or not is_inside or not is_new:
            return None
        # vLLM stores a state inside a block at the prompt's tail and, where it is told to, at the junction
        # with an earlier prompt. To it, a planned position is such a junction.
        setattr(self, _JUNCTION_SWITCH, True)
        request.shared_prefix_boundary = num_tokens
        try:
            return super()._cache_partial_tail_block(request, num_tokens, retention_interval)
        finally:
            setattr(self, _JUNCTION_SWITCH, False)
            request.shared_prefix_boundary = 0

    def _find_loaded(self, request: Any, position: int) -> bytes | None:
        """Let the state be found that a connector has brought into a block which is not full yet. As where
        one was computed there, the next step takes a copy along; but nobody needs to store it again.
        """
        index = position // self.block_size
        block = self.req_to_blocks[request.request_id][index]
        key: bytes | None = self.block_pool.cache_partial_block(
            request=request,
            block=block,
            num_tokens=position,
            kv_cache_group_id=self.kv_cache_group_id,
            block_size=self.block_size,
        )
        if key is not None:
            self._partial_hit_reqs[request.request_id] = (index, block)
            self.num_cached_block[request.request_id] = index
        return key
