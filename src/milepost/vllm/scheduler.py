"""vLLM's schedulers with planned checkpoints; ``Scheduler`` is what ``--scheduler-cls`` names."""

from typing import TYPE_CHECKING, Any

from vllm.logger import init_logger
from vllm.v1.core.kv_cache_utils import get_block_hash, make_block_hash_with_group_id
from vllm.v1.core.sched.async_scheduler import AsyncScheduler as StockAsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler as StockScheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, MambaSpec
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry
from vllm.v1.request import RequestStatus

from milepost.hosted.hints import breakpoints_of
from milepost.policies import parse_policy
from milepost.vllm.attention_manager import PlannedAttentionManager
from milepost.vllm.cache_kinds import ATTENTION_ROLE, STATE_ROLE, role_of
from milepost.vllm.checkpoint_manager import CheckpointManager
from milepost.vllm.compatibility import why_not
from milepost.vllm.connectors import blocks_per_chunk
from milepost.vllm.event_publisher import ResumableEvents
from milepost.vllm.layout import PoolLayout
from milepost.vllm.metrics import Metrics
from milepost.vllm.options import Options
from milepost.vllm.pool import VllmMemory
from milepost.vllm.state_manager import PlannedStateManager
from milepost.vllm.stock import exported_tail
from milepost.vllm.tier_claims import claim
from milepost.vllm.tier_joining import join_tiers

__all__ = ["PlannedAsyncScheduler", "PlannedScheduler", "Scheduler"]

# Since 0.33 both schedulers give the blocks of drafts a hash when a step has come in; before, only the
# asynchronous one did, and the other when it scheduled the next.
_CACHES_DRAFTS_LATE = "_update_request_with_output" in vars(StockAsyncScheduler)

# Below vLLM's own logger: it configures no other, and lines of information would be lost.
logger = init_logger("vllm.milepost")


# A mixin, so that one text serves both of vLLM's schedulers.
_Base: Any = StockScheduler if TYPE_CHECKING else object


class _Planned(_Base):
    """What both schedulers do beside vLLM's."""

    kv_event_publisher: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        vllm_config = kwargs["vllm_config"]
        kv_cache_config = kwargs["kv_cache_config"]
        options = Options.read(vllm_config.additional_config)
        KVCacheSpecRegistry.register_role_manager(STATE_ROLE, PlannedStateManager)
        KVCacheSpecRegistry.register_role_manager(ATTENTION_ROLE, PlannedAttentionManager)
        for group in kv_cache_config.kv_cache_groups:
            group.role = role_of(group.kv_cache_spec)
        # What was offered to another scheduler is none of this one's.
        claim()
        super().__init__(*args, **kwargs)
        layout = _layout(self, kv_cache_config)
        memory = VllmMemory(
            self.kv_cache_manager.block_pool,
            make_key=make_block_hash_with_group_id,
            prefix_of=get_block_hash,
            kv_groups=layout.kv_groups,
        )
        policy = parse_policy("learned")
        self.checkpoint_manager = CheckpointManager(
            layout=layout, memory=memory, policy=policy, options=options, has_state=self._has_state
        )
        self.checkpoint_manager.tiers_told = join_tiers(
            claim(),
            blocks_per_chunk(vllm_config, eviction_policy="TierPolicy", block_tokens=layout.block_tokens),
            layout=layout,
            policy=policy,
        )
        self.resumable_events: ResumableEvents | None = None
        if self.enable_kv_cache_events and options.resumable_events and layout.kv_groups:
            self.resumable_events = ResumableEvents(
                self.kv_event_publisher,
                kv_groups=layout.kv_groups,
                state_groups=layout.state_groups,
                tells_states=options.state_events,
            )
            self.kv_event_publisher = self.resumable_events
        elif not options.state_events:
            logger.warning(
                "state_events=false has no effect: it leaves states out of KV events that promise what can "
                "be resumed, and there are none (no KV events, resumable_events=false, or no attention)."
            )
        for manager in self.kv_cache_manager.coordinator.single_type_managers:
            manager.checkpoint_manager = self.checkpoint_manager
            manager.resumable_events = self.resumable_events
        self._metrics = Metrics(self.checkpoint_manager)
        # Since the last step came in.
        self._had_free_time = False
        logger.info(
            "Milepost plans the checkpoints: the smallest prefix that can be reused is %d tokens, a "
            "checkpoint takes %d of the pool's %d blocks, a block holds %d tokens of KV.%s",
            layout.grid_tokens,
            len(layout.state_groups),
            layout.num_blocks,
            layout.block_tokens,
            "" if layout.grid_tokens < layout.block_tokens or not layout.kv_groups
            else " For shorter prefixes give --prefix-match-unit 64.",
        )  # fmt: skip

    def _get_local_prefix_cache_hit(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.checkpoint_manager.prepare_lookup()
        events = self.kv_cache_manager.block_pool.kv_event_queue
        num_told = len(events)
        blocks, hit, shared, has_diverged = super()._get_local_prefix_cache_hit(request, *args, **kwargs)
        if self.resumable_events is not None:
            self.resumable_events.note_repeated(events[num_told:])
        self.checkpoint_manager.plan_request(
            request.request_id,
            request.block_hashes,
            request.num_prompt_tokens,
            hit=hit,
            shared=shared,
            may_hit=self.kv_cache_manager.prefix_cache_lookup_enabled(request),
            breakpoints=breakpoints_of(
                # ``vllm_xargs`` of a client.
                getattr(request.sampling_params, "extra_args", None),
                num_tokens=request.num_prompt_tokens,
            ),
        )
        # Where prompts diverge is planned for with the rest.
        return blocks, hit, 0, has_diverged

    def _mamba_block_aligned_split(
        self,
        request: Any,
        num_new_tokens: int,
        num_new_local_computed_tokens: int = 0,
        num_external_computed_tokens: int = 0,
    ) -> int:
        start = request.num_computed_tokens + num_new_local_computed_tokens + num_external_computed_tokens
        end = start + num_new_tokens
        if num_external_computed_tokens:
            # Loaded before this step computes; a state that does not fill its block is gone after it.
            self.checkpoint_manager.note_loaded(
                request.request_id, start, is_kept=start % self.cache_config.block_size == 0
            )
        if start >= request.num_prompt_tokens and start >= request.num_tokens - 1:
            return num_new_tokens
        # vLLM would stop at the last boundaries of the prompt too, and at the boundary after a place inside
        # a block, for states that are kept here only where they are planned.
        if end < max(request.num_prompt_tokens, request.num_tokens - 1):
            block_tokens = self.cache_config.block_size
            aligned_end = end // block_tokens * block_tokens
            end = (
                aligned_end
                if aligned_end > start
                else start
                + super()._mamba_block_aligned_split(
                    request, num_new_tokens, num_new_local_computed_tokens, num_external_computed_tokens
                )
            )
        stop = self.checkpoint_manager.next_stop(request.request_id, start, end)
        if self._is_exported(request, stop, start=start, end=end):
            # vLLM may see that otherwise; then it would end the chunk.
            stop = start + super()._mamba_block_aligned_split(
                request, num_new_tokens, num_new_local_computed_tokens, num_external_computed_tokens
            )
        return stop - start

    def _is_exported(self, request: Any, stop: int, *, start: int, end: int) -> bool:
        """Return whether the chunk that ends a prompt need not end at ``stop``, its last: the model exports
        the state there.
        """
        manager = self.checkpoint_manager
        return (
            stop < end
            and end >= max(request.num_prompt_tokens, request.num_tokens - 1)
            and stop == exported_tail(manager.layout, start=start, num_tokens=end)
            and manager.next_stop(request.request_id, stop, end) == end
        )

    def _update_waiting_for_remote_kv(self, request: Any) -> None:
        # Where the load has failed, the request is looked up and planned again.
        if request.request_id not in self.failed_recving_kv_req_ids:
            self.checkpoint_manager.note_loaded(request.request_id, request.num_computed_tokens, is_kept=True)
        super()._update_waiting_for_remote_kv(request)

    def _update_after_schedule(self, scheduler_output: Any) -> None:
        super()._update_after_schedule(scheduler_output)
        num_prefill_tokens = 0
        for request_id, num_tokens in scheduler_output.num_scheduled_tokens.items():
            request = self.requests[request_id]
            self.checkpoint_manager.on_step(request_id, request.num_computed_tokens)
            # The step counts as computed already.
            start = request.num_computed_tokens - num_tokens
            num_prefill_tokens += max(0, min(num_tokens, request.num_prompt_tokens - start))
        if scheduler_output.total_num_scheduled_tokens:
            self.checkpoint_manager.step_cost.note_schedule(num_prefill_tokens)

    def get_grammar_bitmask(self, *args: Any, **kwargs: Any) -> Any:
        # vLLM asks for it when it has sent a step to the workers: while the model computes, time is free.
        self.checkpoint_manager.use_free_time(self._num_blocks_soon())
        self._metrics.update()
        self._had_free_time = True
        return super().get_grammar_bitmask(*args, **kwargs)

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        # An embedder's loop may not ask for the bitmask, and vLLM's own asks late where one waits for tokens.
        if scheduler_output.total_num_scheduled_tokens:
            self.checkpoint_manager.step_cost.note_output()
        self.checkpoint_manager.catch_up()
        if not self._had_free_time:
            self._metrics.update()
        self._had_free_time = False
        return super().update_from_output(scheduler_output, *args, **kwargs)

    def _has_state(self, request_id: str, position: int) -> bool:
        managers = self.kv_cache_manager.coordinator.single_type_managers
        states = [manager for manager in managers if isinstance(manager, PlannedStateManager)]
        return all(manager.has_state(request_id, position) for manager in states)

    def _num_blocks_soon(self) -> int:
        """Return how many blocks the next step needs for prompts that are not computed yet. O(running)."""
        layout, budget, num_blocks = self.checkpoint_manager.layout, self.max_num_scheduled_tokens, 0
        for request in self.running:
            start = request.num_computed_tokens
            num_tokens = min(request.num_prompt_tokens - start, budget)
            if num_tokens > 0:
                held = layout.blocks_of_kv(start)
                num_blocks += layout.blocks_of_kv(start + num_tokens) - held + len(layout.state_groups)
                budget -= num_tokens
        return num_blocks

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        freed = super()._free_request(request, *args, **kwargs)
        self.checkpoint_manager.finish(request.request_id)
        return freed

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> Any:
        done = super().reset_prefix_cache(*args, **kwargs)
        if done:
            self.checkpoint_manager.clear()
        return done

    def shutdown(self) -> None:
        super().shutdown()
        self.checkpoint_manager.save()


class PlannedScheduler(_Planned, StockScheduler):
    """vLLM's scheduler with planned checkpoints."""

    def _update_request_with_output(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        was_running = request.status is RequestStatus.RUNNING
        updated = super()._update_request_with_output(request, *args, **kwargs)
        if _CACHES_DRAFTS_LATE and self.num_spec_tokens and was_running and not kwargs.get("is_stale"):
            # When the next step is scheduled, the state at a boundary that drafts have jumped over is gone.
            num_tokens = min(request.num_computed_tokens, request.num_tokens)
            self.kv_cache_manager.cache_blocks(request, num_tokens)
        return updated


class PlannedAsyncScheduler(_Planned, StockAsyncScheduler):
    """vLLM's asynchronous scheduler with planned checkpoints."""


def Scheduler(vllm_config: Any, kv_cache_config: KVCacheConfig, **kwargs: Any) -> Any:  # noqa: N802
    """Return the scheduler for an engine: with planned checkpoints, or vLLM's own where they are switched off
    or cannot work, which is said once. vLLM calls this as it would a class.

    Raises:
        ConfigurationError: ``additional_config`` breaks a rule.
    """
    options = Options.read(vllm_config.additional_config)
    is_async = bool(vllm_config.scheduler_config.async_scheduling)
    reason = why_not(vllm_config, kv_cache_config) if options.enabled else "it is switched off"
    if reason is not None:
        logger.warning("Milepost is not active, vLLM runs as it is: %s.", reason)
        stock = StockAsyncScheduler if is_async else StockScheduler
        return stock(vllm_config=vllm_config, kv_cache_config=kv_cache_config, **kwargs)
    planned = PlannedAsyncScheduler if is_async else PlannedScheduler
    return planned(vllm_config=vllm_config, kv_cache_config=kv_cache_config, **kwargs)


def _layout(scheduler: Any, kv_cache_config: KVCacheConfig) -> PoolLayout:
    groups = list(enumerate(kv_cache_config.kv_cache_groups))
    coordinator = scheduler.kv_cache_manager.coordinator
    lookahead = int(getattr(scheduler, "num_hash_lookahead_tokens", 0))
    states = [group.kv_cache_spec for _, group in groups if isinstance(group.kv_cache_spec, MambaSpec)]
    return PoolLayout(
        # One block stands for nothing.
        num_blocks=kv_cache_config.num_blocks - 1,
        block_tokens=scheduler.block_size,
        match_tokens=scheduler.hash_block_size,
        kv_groups=tuple(i for i, group in groups if isinstance(group.kv_cache_spec, FullAttentionSpec)),
        state_groups=tuple(i for i, group in groups if isinstance(group.kv_cache_spec, MambaSpec)),
        hits_inside=coordinator.enable_partial_hash_hits,
        scratch_blocks=sum(spec.num_speculative_blocks for spec in states),
        lookahead_tokens=lookahead,
        rest_tokens=max(1, lookahead, int(getattr(scheduler, "num_prefill_lookahead", 0))),
        export_tokens=_export_tokens(scheduler),
    )


def _export_tokens(scheduler: Any) -> int | None:
    # Since 0.32.
    if not getattr(scheduler, "mamba_has_prefill_checkpoint_blocks", False):
        return None
    tokens = scheduler.mamba_prefill_checkpoint_alignment
    return None if tokens is None else int(tokens)
