"""Counts what vLLM's scheduler does, from outside: steps, prefill chunks, states kept and held.

A state is one block in every group of recurrent layers. It is *kept* when it gets a hash, so that a later
request can find it, and *held* until its blocks are taken for something else.
"""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["SchedulerWatch"]


@dataclass(slots=True, eq=False)
class SchedulerWatch:
    """What ``scheduler`` has done since; its methods are wrapped on the one instance."""

    scheduler: Any
    num_steps: int = 0
    num_prefill_chunks: int = 0
    num_states_kept: int = 0
    states_held: list[int] = field(default_factory=list)
    _state_groups: list[int] = field(init=False)

    def __post_init__(self) -> None:
        from vllm.v1.kv_cache_interface import MambaSpec

        self._state_groups = [
            index
            for index, group in enumerate(self.scheduler.kv_cache_config.kv_cache_groups)
            if isinstance(group.kv_cache_spec, MambaSpec)
        ]
        self._count_chunks()
        self._count_kept_states()

    @property
    def pool(self) -> Any:
        """The blocks that everything is made of."""
        return self.scheduler.kv_cache_manager.block_pool

    def sample(self) -> None:
        """Note how many states are held now. O(blocks of the pool)."""
        from vllm.v1.core.kv_cache_utils import get_group_id

        group = self._state_groups[0] if self._state_groups else None
        self.states_held.append(
            sum(
                block.block_hash is not None and get_group_id(block.block_hash) == group
                for block in self.pool.blocks
            )
        )

    def check_nothing_leaked(self) -> None:
        """Raise if, with nothing running, a block is neither free nor the one that stands for nothing."""
        free, blocks = self.pool.get_num_free_blocks(), self.pool.num_gpu_blocks
        if free != blocks - 1:
            raise RuntimeError(f"{blocks - 1 - free} of {blocks} blocks have leaked")

    def _count_chunks(self) -> None:
        schedule = self.scheduler.schedule

        def counted(*args: Any, **kwargs: Any) -> Any:
            output = schedule(*args, **kwargs)
            self.num_steps += output.total_num_scheduled_tokens > 0
            for request_id, num_tokens in output.num_scheduled_tokens.items():
                request = self.scheduler.requests[request_id]
                # Counted as computed already, before the model has run.
                self.num_prefill_chunks += (
                    request.num_computed_tokens - num_tokens < request.num_prompt_tokens
                )
            return output

        self.scheduler.schedule = counted

    def _count_kept_states(self) -> None:
        from vllm.v1.core.kv_cache_utils import get_group_id

        pool, by_hash = self.pool, self.pool.cached_block_hash_to_block
        insert, move = by_hash.insert, pool.move_block_hashes

        def counted(key: Any, block: Any) -> None:
            self.num_states_kept += self._state_groups[:1] == [get_group_id(key)]
            insert(key, block)

        def not_counted(*args: Any, **kwargs: Any) -> None:
            # A request that resumes inside a block takes the block and leaves its content behind in another.
            by_hash.insert = insert
            move(*args, **kwargs)
            by_hash.insert = counted

        by_hash.insert, pool.move_block_hashes = counted, not_counted
