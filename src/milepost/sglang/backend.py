"""What ``--radix-cache-backend milepost`` makes: SGLang's radix cache, with planned checkpoints or, where
they cannot work, as it is.
"""

import logging
import os
from dataclasses import replace
from typing import Any

from sglang.srt.mem_cache.registry import create_unified_radix_cache, default_radix_cache_factory
from sglang.srt.mem_cache.unified_cache.components import ComponentType
from sglang.srt.plugins.hook_registry import HookRegistry, HookType
from sglang.srt.runtime_context import mamba_checkpoint_grid

from milepost.policies import parse_policy
from milepost.sglang.checkpoint_manager import CheckpointManager
from milepost.sglang.compatibility import why_not
from milepost.sglang.hooks import HOOKS
from milepost.sglang.options import Options
from milepost.sglang.planned_cache import PlannedKVComponent, PlannedRadixCache, PlannedStateComponent
from milepost.sglang.ranks import Rank
from milepost.sglang.room import StateRoom

__all__ = ["make_cache"]

logger = logging.getLogger(__name__)


def make_cache(ctx: Any) -> Any:
    """Return the cache of one scheduler.

    Args:
        ctx: SGLang's ``TreeCacheBuildContext``.

    Raises:
        ConfigurationError: ``MILEPOST_SGLANG`` breaks a rule.
    """
    options = Options.read(os.environ)
    reason = why_not(ctx)
    if reason is not None:
        logger.warning("Milepost is not active, SGLang runs as it is: %s.", reason)
        return default_radix_cache_factory(ctx)
    params = ctx.params
    params.component_registry_override = {
        **(params.component_registry_override or {}),
        ComponentType.MAMBA: PlannedStateComponent,
        ComponentType.FULL: PlannedKVComponent,
    }
    cache = create_unified_radix_cache(ctx, cache_class=PlannedRadixCache)
    room = _room(params)
    rank = Rank.of(ctx)
    if options.learned is not None:
        options = replace(options, learned=rank.own(options.learned))
    manager = CheckpointManager(
        room=room, policy=parse_policy("learned"), options=options, saves_lessons=rank.is_first
    )
    cache.plan_with(manager)
    if ctx.server_args.enable_metrics and rank.is_first:
        # prometheus_client is not to be imported before SGLang has set up its folder.
        from milepost.sglang.metrics import Metrics

        cache.metrics = Metrics(manager)
    for target, hook in HOOKS.items():
        if not any(each is hook for _, each, _ in HookRegistry._hooks.get(target, ())):
            HookRegistry.register(target, hook, HookType.AROUND)
    HookRegistry.apply_hooks()
    logger.info(
        "Milepost plans the checkpoints: states sit at multiples of %d tokens, and there is room for %d.",
        room.grid_tokens,
        room.num_states,
    )
    return cache


def _room(params: Any) -> StateRoom:
    states, kv = params.req_to_token_pool.mamba_allocator, params.token_to_kv_pool_allocator
    return StateRoom(
        num_states=states.size,
        num_kv_tokens=kv.size,
        grid_tokens=mamba_checkpoint_grid(params.page_size),
        free_states=states.available_size,
        free_kv_tokens=kv.available_size,
    )
