"""vLLM's manager of attention KV, told by the checkpoint manager which to keep."""

from collections.abc import Iterable, Sequence
from typing import Any

from vllm.v1.core.kv_cache_utils import make_block_hash_with_group_id
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager

from milepost.vllm.checkpoint_manager import CheckpointManager
from milepost.vllm.event_publisher import ResumableEvents

__all__ = ["PlannedAttentionManager"]


class PlannedAttentionManager(FullAttentionManager):
    """Keeps the KV before the last checkpoint of a prompt, and no other."""

    checkpoint_manager: CheckpointManager | None = None
    resumable_events: ResumableEvents | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Blocks that were given a hash in this step, for what will only be in them after it.
        self._filled_this_step: set[int] = set()

    def new_step_starts(self) -> None:
        """Forget the last step."""
        super().new_step_starts()
        self._filled_this_step.clear()

    def get_num_blocks_to_allocate(
        self,
        request_id: str,
        num_tokens: int,
        new_computed_blocks: Sequence[Any],
        total_computed_tokens: int,
        num_local_computed_tokens: int,
        *args: Any,
        **kwargs: Any,
    ) -> int:
        """Have a request wait for the next step where it would copy a block that is filled in this one, since
        the worker copies before it computes. To ask for more blocks than there are is vLLM's own way.
        """
        is_copied = new_computed_blocks and num_local_computed_tokens % self.block_size
        if is_copied and new_computed_blocks[-1].block_id in self._filled_this_step:
            return int(self.block_pool.num_gpu_blocks) + 1
        return super().get_num_blocks_to_allocate(
            request_id,
            num_tokens,
            new_computed_blocks,
            total_computed_tokens,
            num_local_computed_tokens,
            *args,
            **kwargs,
        )

    def allocate_new_blocks(self, request_id: str, num_tokens: int, num_tokens_main_model: int) -> list[Any]:
        """Have the least valuable blocks come first."""
        if self.checkpoint_manager is not None:
            held = len(self.req_to_blocks[request_id])
            is_copied = request_id in self._partial_hit_reqs
            if num := max(0, -(-num_tokens // self.block_size) - held) + is_copied:
                self.checkpoint_manager.make_room(num)
        return super().allocate_new_blocks(request_id, num_tokens, num_tokens_main_model)

    def allocate_external_computed_blocks(
        self, request_id: str, num_local: int, num_external: int, *args: Any, **kwargs: Any
    ) -> None:
        """Do as for blocks that are computed."""
        if self.checkpoint_manager is not None:
            held = len(self.req_to_blocks[request_id])
            self.checkpoint_manager.make_room(
                max(0, -(-(num_local + num_external) // self.block_size) - held)
            )
        super().allocate_external_computed_blocks(request_id, num_local, num_external, *args, **kwargs)

    def cache_blocks(
        self,
        request: Any,
        num_tokens: int,
        retention_interval: int | None = None,
        *,
        replay_boundaries: Sequence[int],
    ) -> None:
        """Give a hash to the blocks that some checkpoint needs."""
        request_id = request.request_id
        if self.checkpoint_manager is None:
            super().cache_blocks(request, num_tokens, retention_interval, replay_boundaries=replay_boundaries)
            return
        if self.checkpoint_manager.rests_at(request_id, num_tokens):
            return
        self.checkpoint_manager.on_blocks(request_id, request.block_hashes, num_tokens)
        before = self.num_cached_block.get(request_id, 0)
        num_tokens = min(num_tokens, self.checkpoint_manager.kv_limit(request_id))
        blocks = self.req_to_blocks[request_id]
        inside = [
            (index, self._positions_inside(request, index, blocks[index]))
            for index in range(before, min(len(blocks), num_tokens // self.block_size))
            if blocks[index].block_hash is not None
        ]
        super().cache_blocks(request, num_tokens, retention_interval, replay_boundaries=replay_boundaries)
        # vLLM takes from a block that is full now the keys of the prefixes that end inside it.
        for index, positions in inside:
            self._find_inside(request, positions, blocks[index])
        filled = range(before, self.num_cached_block.get(request_id, 0))
        self._filled_this_step.update(blocks[index].block_id for index in filled)
        if self.checkpoint_manager.is_led_by_learning:
            for index in filled:
                self._drop_if_twice(request, index, blocks[index])

    def _positions_inside(self, request: Any, index: int, block: Any) -> list[int]:
        """Return the prefixes of a request that end inside its block of that ``index``, which ``block`` is
        found by, and somebody wants. O(match units of a block).
        """
        unit, start = self.block_pool.hash_block_size, index * self.block_size
        is_found_by = self.block_pool.cached_block_hash_to_block.contain
        hashes, manager = request.block_hashes, self.checkpoint_manager
        return [
            position
            for position in range(start + unit, start + self.block_size, unit)
            if is_found_by(
                make_block_hash_with_group_id(hashes[position // unit - 1], self.kv_cache_group_id),
                block.block_id,
            )
            and manager is not None
            and manager.wants(request.request_id, position)
        ]

    def _drop_if_twice(self, request: Any, index: int, block: Any) -> None:
        """Take the hash from a full block of a request where another one has the same: requests side by side
        compute the same prefix twice, and one copy is enough. What ends inside it is found there from now on.
        """
        key = block.block_hash
        if key is None:
            return
        other = self.block_pool.cached_block_hash_to_block.get_one_block(key)
        if other is not block:
            positions = self._positions_inside(request, index, block)
            self.block_pool.evict_blocks({block.block_id})
            self._find_inside(request, positions, other)

    def _cache_partial_tail_block(self, request: Any, num_tokens: int) -> None:
        """Let the KV inside a block be found where a checkpoint is planned there."""
        if self.checkpoint_manager is None:
            super()._cache_partial_tail_block(request, num_tokens)
            return
        blocks = self.req_to_blocks[request.request_id]
        # Deepest first: a longer prefix in the same block replaces a shorter one, not the other way round.
        for position in reversed(self.checkpoint_manager.commit(request.request_id)):
            index = position // self.block_size
            if position % self.block_size != 0 and position <= num_tokens and index < len(blocks):
                self._find_inside(request, (position,), blocks[index])

    def _find_inside(self, request: Any, positions: Iterable[int], block: Any) -> None:
        """Let the KV before each of ``positions``, which end inside ``block``, be found."""
        is_once = self.checkpoint_manager is not None and self.checkpoint_manager.is_led_by_learning
        for position in positions:
            if is_once and self._is_elsewhere(request, position, block):
                continue
            if self.resumable_events is not None:
                hashes, unit = request.block_hashes, self.block_pool.hash_block_size
                num_before = position // self.block_size * self.block_size // unit
                self.resumable_events.note_inside(
                    hashes[position // unit - 1], hashes[num_before - 1] if num_before else None
                )
            self.block_pool.cache_partial_block(
                request=request,
                block=block,
                num_tokens=position,
                kv_cache_group_id=self.kv_cache_group_id,
                block_size=self.block_size,
            )
            self._filled_this_step.add(block.block_id)

    def _is_elsewhere(self, request: Any, position: int, block: Any) -> bool:
        """Return whether another block than ``block`` has the same KV: once more would be once too often."""
        prefix_hash = request.block_hashes[position // self.block_pool.hash_block_size - 1]
        found = self.block_pool.get_cached_block(prefix_hash, [self.kv_cache_group_id])
        return found is not None and found[0] is not block
