"""SGLang's radix cache and its component of states, with planned checkpoints."""

from typing import TYPE_CHECKING, Any, final

from sglang.srt.mem_cache.evict_policy import EvictionStrategy
from sglang.srt.mem_cache.unified_cache.components import ComponentType
from sglang.srt.mem_cache.unified_cache.components.base import EvictLayer
from sglang.srt.mem_cache.unified_cache.components.mamba import MambaComponent
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

from milepost.sglang.checkpoint_manager import CheckpointManager

if TYPE_CHECKING:
    from milepost.sglang.metrics import Metrics

__all__ = ["PlannedRadixCache", "PlannedStateComponent", "WorthOfKV"]


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


@final
class WorthOfKV(EvictionStrategy):
    """Which KV goes first, of that at the ends of SGLang's tree: what no wanted state needs, by age; then
    what is worth least for each token.
    """

    def __init__(self, manager: CheckpointManager) -> None:
        self._wanted = manager.states.wanted
        self._worth_of_kv = manager.worth_of_kv

    def get_priority(self, node: Any) -> tuple[int, float, float]:
        """Return what a node is ordered by; asked of all ends of the tree whenever KV is needed."""
        state = self._wanted.get(node.id)
        if state is None or state.checkpoint is None:
            return (0, 0.0, node.last_access_time)
        return (1, self._worth_of_kv(state.checkpoint), node.last_access_time)


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
        self.tree_core.eviction_strategy = WorthOfKV(manager)

    def checkpoint_into_tree(self, req: Any, *, up_to: int, **kwargs: Any) -> None:
        """Do as SGLang does, and take back promises once a prompt is done."""
        super().checkpoint_into_tree(req, up_to=up_to, **kwargs)
        if self.checkpoint_manager is not None:
            self.checkpoint_manager.note_prefilled(req.rid, up_to)

    def evict(self, *args: Any, **kwargs: Any) -> Any:
        """Do as SGLang does, by what has happened until now."""
        if self.checkpoint_manager is not None:
            self.checkpoint_manager.catch_up()
        return super().evict(*args, **kwargs)

    def evict_for_alloc(self, *args: Any, **kwargs: Any) -> Any:
        """Do as SGLang does, by what has happened until now."""
        if self.checkpoint_manager is not None:
            self.checkpoint_manager.catch_up()
        return super().evict_for_alloc(*args, **kwargs)

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
        if self.metrics is not None:
            # No request may come for long.
            self.metrics.update()
