"""What is hooked into SGLang's scheduler, in processes whose cache is planned."""

import math
from collections.abc import Callable
from typing import Any

from sglang.srt.managers.schedule_policy import AddReqResult

from milepost.hosted.hints import breakpoints_of
from milepost.sglang.checkpoint_manager import CheckpointManager
from milepost.sglang.planned_cache import PlannedRadixCache
from milepost.sglang.prompt_keys import tenant_of

__all__ = ["HOOKS", "add_chunk", "place_state", "run_batch", "select_admission"]


def place_state(prepare: Callable[[Any, Any], Any], batch: Any, req: Any) -> Any:
    """Have the next chunk of a request capture what is planned in it, and nothing where nothing is.

    Args:
        prepare: SGLang's own method.
        batch: The ``ScheduleBatch``.
        req: The request, of which ``[prefix_len, extend_end)`` is computed next.
    """
    cache = batch.tree_cache
    manager = _manager_of(cache)
    if manager is None or req.skip_radix_cache_insert:
        return prepare(batch, req)
    start, end = req.prefix_len, req.extend_end
    if not manager.is_open(req.rid) and not req.retracted_stain:
        manager.admit(
            req.rid,
            req.origin_input_ids,
            tenant=tenant_of(req),
            hit=start,
            chunk_end=end,
            chunk_tokens=cache.chunk_tokens,
            breakpoints=breakpoints_of(
                getattr(req.sampling_params, "custom_params", None), num_tokens=len(req.origin_input_ids)
            ),
        )
    position = manager.position_in(req.rid, start, end)
    if position is None:
        return _untracked(prepare, batch, req)
    req.mamba_branching_seqlen = position
    return prepare(batch, req)


def select_admission(select: Callable[..., Any], adder: Any, req: Any, **options: Any) -> Any:
    """Have the first chunk of a prompt that is cut end on the grid: behind any other end, no state could be
    captured where it was planned.

    Args:
        select: SGLang's own method.
        adder: The ``PrefillAdder``.
        req: The request.
        options: The rest of what the method takes.
    """
    manager = _manager_of(adder.tree_cache)
    if manager is None or adder.dllm_config is not None:
        return select(adder, req, **options)
    given = options["truncation_align_size"]
    aligned = math.lcm(given or 1, manager.room.grid_tokens)
    admission = select(adder, req, **{**options, "truncation_align_size": aligned})
    if isinstance(admission, AddReqResult) and not adder.can_run_list:
        # Nothing else is in this batch, so where not even one grid step fits, it must not wait for one.
        return select(adder, req, **options)
    return admission


def add_chunk(add: Callable[[Any, Any], Any], adder: Any, req: Any) -> Any:
    """Have further chunks end on the grid as well, but for the last.

    Args:
        add: SGLang's own method.
        adder: The ``PrefillAdder``.
        req: The request whose prompt goes on.
    """
    manager = _manager_of(adder.tree_cache)
    if manager is None or adder.dllm_config is not None or adder.rem_chunk_tokens is None:
        return add(adder, req)
    start, limit = req.prefix_len, adder.chunked_req_limit
    most = adder.memory_budget.available_chunk_tokens(adder.rem_chunk_tokens)
    if most is not None and limit is not None:
        most = min(most, limit)
    if most is not None and most < len(req.full_untruncated_fill_ids) - start:
        grid_tokens = manager.room.grid_tokens
        aligned = (start + most) // grid_tokens * grid_tokens - start
        adder.chunked_req_limit = aligned if aligned > 0 else limit
    return add(adder, req)


def run_batch(run: Callable[..., Any], scheduler: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
    """Once a batch was launched, tell the cache what has happened, and make room for the next chunk of a
    prompt that goes on: while the model computes, time is free.

    Args:
        run: SGLang's own method.
        scheduler: The ``Scheduler``.
        batch: The ``ScheduleBatch``.
        args: The rest of what the method takes.
        kwargs: As well.
    """
    cache = scheduler.tree_cache
    if not isinstance(cache, PlannedRadixCache):
        return run(scheduler, batch, *args, **kwargs)
    # Before the launch: drafts may leave the batch in another mode.
    coming_tokens = _next_chunk_tokens(batch, cache.chunk_tokens)
    result = run(scheduler, batch, *args, **kwargs)
    cache.use_free_time(coming_tokens=coming_tokens)
    return result


def _next_chunk_tokens(batch: Any, chunk_tokens: int | None) -> int:
    """Return how long the next chunk is at most of the request whose prompt a batch leaves unfinished; 0
    where there is none.
    """
    req = batch.chunked_req
    # A batch that decodes may have been a prefill's, and names who was unfinished then: by now that request
    # may have been given up, or taken back and have no chunk at all.
    if req is None or not batch.forward_mode.is_extend():
        return 0
    num_left: int = len(req.full_untruncated_fill_ids) - req.extend_end
    return num_left if chunk_tokens is None else min(num_left, chunk_tokens)


def _manager_of(cache: Any) -> CheckpointManager | None:
    return cache.checkpoint_manager if isinstance(cache, PlannedRadixCache) else None


def _untracked(prepare: Callable[[Any, Any], Any], batch: Any, req: Any) -> Any:
    """Return what SGLang's method returns for a chunk that is too short to leave a state."""
    end = req.extend_end
    req.extend_end = req.prefix_len
    try:
        return prepare(batch, req)
    finally:
        req.extend_end = end


_MANAGERS = "sglang.srt.managers"
#: By the name of what is wrapped.
HOOKS: dict[str, Callable[..., Any]] = {
    f"{_MANAGERS}.schedule_batch.ScheduleBatch._mamba_radix_cache_v2_req_prepare_for_extend": place_state,
    f"{_MANAGERS}.schedule_policy.PrefillAdder._select_prefill_admission": select_admission,
    f"{_MANAGERS}.schedule_policy.PrefillAdder.add_chunked_req": add_chunk,
    f"{_MANAGERS}.scheduler.Scheduler.run_batch": run_batch,
}
