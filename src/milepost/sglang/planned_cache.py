"""SGLang's radix cache and its components of states and KV, with planned checkpoints."""

from typing import TYPE_CHECKING, Any

from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from sglang.srt.mem_cache.unified_cache.components import ComponentType
from sglang.srt.mem_cache.unified_cache.components.base import EvictLayer
from sglang.srt.mem_cache.unified_cache.components.full import FullComponent
from sglang.srt.mem_cache.unified_cache.components.mamba import MambaComponent
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

from milepost.sglang.checkpoint_manager import CheckpointManager
from milepost.sglang.leaf_order import LeafOrder

if TYPE_CHECKING:
    from milepost.sglang.metrics import Metrics

__all__ = ["PlannedKVComponent", "PlannedRadixCache", "PlannedStateComponent"]


class PlannedStateComponent(MambaComponent):
    """Reports which states are in the tree, and lets the manager say which goes next."""

    #: Set by the cache, once there is one.
    checkpoint_manager: CheckpointManager | None = None
    # Whose state is being put into the tree, and how many tokens it stands for.
    _inserting: tuple[str, int] | None = None

    def prepare_for_caching_req(
        self, req: Any, insert_params: Any, token_ids_len: int, is_finished: bool
    ) -> int | None:
        """Do as SGLang does, and keep the state of an answer only where it is worth that."""
        num_tokens = super().prepare_for_caching_req(req, insert_params, token_ids_len, is_finished)
        manager = self.checkpoint_manager
        if manager is None or num_tokens is None:
            return num_tokens
        if is_finished and not manager.keeps_answer(req.rid, req.full_untruncated_fill_ids, num_tokens):
            # As where SGLang has no state to donate.
            insert_params.mamba_value = insert_params.mamba_keep_idx = None
            return 0
        self._inserting = (req.rid, num_tokens)
        return num_tokens

    def cleanup_after_caching_req(self, req: Any, *args: Any, **kwargs: Any) -> None:
        """Do as SGLang does."""
        self._inserting = None
        super().cleanup_after_caching_req(req, *args, **kwargs)

    def commit_insert_component_data(self, node: Any, *args: Any, **kwargs: Any) -> None:
        """Do as SGLang does, and report the state."""
        super().commit_insert_component_data(node, *args, **kwargs)
        if self.checkpoint_manager is not None:
            request_id, num_tokens = self._inserting or (None, 0)
            self.checkpoint_manager.enter_tree(request_id, num_tokens, node.id)

    def evict_component(self, node: Any, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Do as SGLang does, and report a state that is gone."""
        freed: tuple[int, int] = super().evict_component(node, *args, **kwargs)
        target = kwargs.get("target", EvictLayer.DEVICE)
        if self.checkpoint_manager is not None and EvictLayer.DEVICE in target:
            self.checkpoint_manager.leave_tree(node.id)
        return freed

    def _evict_device_next_node(self, tracker: Any, *args: Any, **kwargs: Any) -> Any:
        manager = self.checkpoint_manager
        if manager is not None and tracker[self.component_type] < self._evict_device_request_cnt:
            victim = manager.next_victim(self._is_locked)
            if victim is not None:
                self._evict_device_cursor = self.tree_core.node_by_id(victim)
        return super()._evict_device_next_node(tracker, *args, **kwargs)

    def _is_locked(self, node_id: int) -> bool:
        return bool(self.tree_core.node_by_id(node_id).component_data[self.component_type].lock_ref)


class PlannedKVComponent(FullComponent):
    """Gives up that KV first that no wanted state needs, the oldest of it; then what is worth least for each
    token.
    """

    # Set by the cache, once there is a manager.
    _order: LeafOrder | None = None

    def plan_with(self, manager: CheckpointManager) -> None:
        """Have the states of ``manager`` decide from now on."""
        wanted, worth_of_kv = manager.states.wanted, manager.worth_of_kv

        def priority(leaf: Any) -> tuple[float, ...]:
            state = wanted.get(leaf.id)
            if state is None or state.checkpoint is None:
                return (0, 0.0, leaf.last_access_time)
            return (1, worth_of_kv(state.checkpoint), leaf.last_access_time)

        order = self._order = LeafOrder(priority)
        manager.states.on_worthless = lambda node_id: order.forget(self.tree_core.node_by_id(node_id))

    def clear(self) -> None:
        """Forget the ends of a tree that was emptied."""
        if self._order is not None:
            self._order.clear()

    def rank_ahead(self) -> None:
        """Rank a few ends of the tree again."""
        if self._order is not None:
            self._order.rank_ahead(self.tree_core.evictable_device_leaves)

    def _evict_device_start(self, request_cnt: int) -> None:
        if self._order is None:
            super()._evict_device_start(request_cnt)
            return
        self._evict_device_request_cnt = request_cnt
        self._evict_device_last_node = None
        self._order.update(self.tree_core.evictable_device_leaves)

    def _evict_device_next_node(self, tracker: Any, *args: Any, **kwargs: Any) -> Any:
        if self._order is None:
            return super()._evict_device_next_node(tracker, *args, **kwargs)
        leaves, last = self.tree_core.evictable_device_leaves, self._evict_device_last_node
        if last is not None and last.parent in leaves:
            self._order.rank(last.parent)
        self._evict_device_last_node = None
        if tracker[self.component_type] >= self._evict_device_request_cnt:
            return None
        leaf = self._evict_device_last_node = self._order.pop(leaves)
        return None if leaf is None else leaf.id


class PlannedRadixCache(UnifiedRadixCache):
    """Tells the manager of requests that are done, and of a tree that was emptied."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self._chunked_prefill_size = params.chunked_prefill_size

    checkpoint_manager: CheckpointManager | None = None
    #: Where the server has a ``/metrics``, in the scheduler that tells of this cache.
    metrics: "Metrics | None" = None

    @property
    def chunk_tokens(self) -> int | None:
        """Most tokens of a prefill chunk; None where prompts are not cut."""
        most: int | None = self._chunked_prefill_size
        return most if most is not None and most > 0 else None

    def plan_with(self, manager: CheckpointManager) -> None:
        """Have ``manager`` decide from now on."""
        self.checkpoint_manager = manager
        self.components[ComponentType.MAMBA].checkpoint_manager = manager
        self.components[ComponentType.FULL].plan_with(manager)

    def use_free_time(self, *, coming_tokens: int = 0) -> None:
        """Do what nobody has to wait for: a batch was launched.

        Args:
            coming_tokens: Tokens of KV that the next batch will need in any case; room is made for them.
        """
        if self.checkpoint_manager is None:
            return
        self.checkpoint_manager.catch_up()
        self.components[ComponentType.FULL].rank_ahead()
        num_missing = coming_tokens - self.token_to_kv_pool_allocator.available_size()
        if num_missing > 0:
            self.evict_for_alloc(EvictParams(num_tokens=num_missing))

    def checkpoint_into_tree(self, req: Any, *, up_to: int, **kwargs: Any) -> None:
        """Do as SGLang does, and take back promises once a prompt is done."""
        super().checkpoint_into_tree(req, up_to=up_to, **kwargs)
        if self.checkpoint_manager is not None:
            self.checkpoint_manager.note_prefilled(req.rid, up_to)

    def on_release(self, req: Any, *, checkpointed: bool) -> None:
        """Do as SGLang does, and forget the request."""
        super().on_release(req, checkpointed=checkpointed)
        if self.checkpoint_manager is not None:
            self.checkpoint_manager.finish(req.rid)
        if self.metrics is not None:
            self.metrics.update()

    def reset(self) -> None:
        """Do as SGLang does, and forget all checkpoints."""
        super().reset()
        if self.checkpoint_manager is not None:
            self.checkpoint_manager.clear()
            self.components[ComponentType.FULL].clear()
        if self.metrics is not None:
            # No request may come for long.
            self.metrics.update()
