"""What is hooked into SGLang's scheduler, in processes whose cache is planned."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sglang.srt.managers.schedule_policy import CLIP_MAX_NEW_TOKENS, AddReqResult

from milepost.hosted.hints import breakpoints_of
from milepost.sglang.checkpoint_manager import CheckpointManager
from milepost.sglang.planned_cache import PlannedRadixCache
from milepost.sglang.prompt_keys import tenant_of

__all__ = [
    "HOOKS",
    "add_chunk",
    "commit_admission",
    "place_state",
    "plan_request",
    "run_batch",
    "select_admission",
]

# What the hook on an admission tells the one on its commitment, which SGLang does not tell.
_MAY_CUT = "milepost_may_cut"
# Room is made ahead for a request that waits where the pool of KV holds so many times as much.
_POOL_PER_WAITING = 64


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
    plan_request(cache, req, end)
    position = manager.position_in(req.rid, start, end)
    if position is None:
        return _untracked(prepare, batch, req)
    req.mamba_branching_seqlen = position
    return prepare(batch, req)


def plan_request(cache: PlannedRadixCache, req: Any, end: int, *, may_stop: bool = False) -> None:
    """Plan a request whose first chunk is to end at ``end``. One that is planned is left as it is, and one
    that was retracted was seen before.

    Args:
        cache: The cache.
        req: The request.
        end: See above.
        may_stop: Whether its chunks may be cut before where they end by themselves.
    """
    manager = cache.checkpoint_manager
    if manager is None or manager.is_open(req.rid) or req.retracted_stain or req.skip_radix_cache_insert:
        return
    manager.admit(
        req.rid,
        req.origin_input_ids,
        tenant=tenant_of(req),
        hit=req.prefix_len,
        chunk_end=end,
        chunk_tokens=cache.chunk_tokens,
        may_stop=may_stop,
        breakpoints=breakpoints_of(
            getattr(req.sampling_params, "custom_params", None), num_tokens=len(req.origin_input_ids)
        ),
    )


def select_admission(select: Callable[..., Any], adder: Any, req: Any, **options: Any) -> Any:
    """Have the first chunk of a prompt that is cut end on the grid: behind any other end, no state could be
    captured where it was planned. Where a prompt is unfinished that SGLang might forget, no other is cut.

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
        admission = select(adder, req, **options)
    is_another_cut = options["has_chunked_req"] or adder.new_chunked_req is not None
    may_cut = given is None and adder.rem_chunk_tokens is not None and not is_another_cut
    setattr(adder, _MAY_CUT, may_cut)
    if is_another_cut and not isinstance(admission, AddReqResult) and admission.is_chunked:
        # SGLang knows one unfinished prompt. The first took less than its chunk, so this one is not the whole
        # rest of a batch, as without stops, and would take the first one's place.
        return AddReqResult.OTHER
    return admission


def commit_admission(
    commit: Callable[..., Any], adder: Any, req: Any, admission: Any, *args: Any, **kwargs: Any
) -> Any:
    """Plan a request that joins a batch, and cut its chunk where that is worth one more.

    Args:
        commit: SGLang's own method.
        adder: The ``PrefillAdder``.
        req: The request.
        admission: How much of it is to be computed.
        args: The rest of what the method takes.
        kwargs: As well.
    """
    cache = adder.tree_cache
    manager = _manager_of(cache)
    if manager is None or adder.dllm_config is not None:
        return commit(adder, req, admission, *args, **kwargs)
    start, end = admission.prefix_len, admission.prefix_len + admission.extend_len
    may_cut = getattr(adder, _MAY_CUT, False)
    plan_request(cache, req, end, may_stop=may_cut)
    stop = manager.stop_in(req.rid, start, end) if may_cut else None
    if stop is not None:
        admission = replace(admission, extend_len=stop - start, max_new_tokens=0, is_chunked=True)
    committed = commit(adder, req, admission, *args, **kwargs)
    _reserve_rest(adder, req)
    return committed


def add_chunk(add: Callable[[Any, Any], Any], adder: Any, req: Any) -> Any:
    """Have further chunks end on the grid as well, but for the last, and before that where it is worth one
    more.

    Args:
        add: SGLang's own method.
        adder: The ``PrefillAdder``.
        req: The request whose prompt goes on.
    """
    manager = _manager_of(adder.tree_cache)
    if manager is None or adder.dllm_config is not None or adder.rem_chunk_tokens is None:
        return add(adder, req)
    _limit_chunk(manager, adder, req)
    unfinished = add(adder, req)
    if unfinished is not None:
        _reserve_rest(adder, req)
    return unfinished


def run_batch(run: Callable[..., Any], scheduler: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
    """Once a batch was launched, tell the cache what has happened, and make room for the next chunk of a
    prompt that goes on, or for who waits: while the model computes, time is free.

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
    coming_tokens = _next_chunk_tokens(batch, cache.chunk_tokens) or _waiting_tokens(scheduler, cache)
    result = run(scheduler, batch, *args, **kwargs)
    cache.use_free_time(coming_tokens=coming_tokens)
    return result


def _limit_chunk(manager: CheckpointManager, adder: Any, req: Any) -> None:
    start, limit = req.prefix_len, adder.chunked_req_limit
    most = adder.memory_budget.available_chunk_tokens(adder.rem_chunk_tokens)
    if most is None:
        return
    if limit is not None:
        most = min(most, limit)
    num_left = len(req.full_untruncated_fill_ids) - start
    if most < num_left:
        grid_tokens = manager.room.grid_tokens
        aligned = (start + most) // grid_tokens * grid_tokens - start
        if aligned > 0:
            adder.chunked_req_limit = most = aligned
    stop = manager.stop_in(req.rid, start, start + min(most, num_left))
    if stop is not None:
        adder.chunked_req_limit = stop - start


def _reserve_rest(adder: Any, req: Any) -> None:
    """Keep the memory that an unfinished prompt still needs from those behind it in its batch. SGLang leaves
    nothing of a batch behind such a prompt, so it does not; and it goes on with the prompt whether or not
    there is memory, and ends where there is none.
    """
    num_left = len(req.full_untruncated_fill_ids) - req.extend_end
    if num_left > 0:
        most_new = min(max(req.sampling_params.max_new_tokens - len(req.output_ids), 0), CLIP_MAX_NEW_TOKENS)
        adder.memory_budget.total_offset += adder.ceil_paged_tokens(num_left) + most_new


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


def _waiting_tokens(scheduler: Any, cache: PlannedRadixCache) -> int:
    """Return how long the first chunk is at most of who waits first; 0 where nobody does, or where that is
    more than a small part of the pool: what it will find there could be what has to go.
    """
    if not scheduler.waiting_queue or cache.checkpoint_manager is None:
        return 0
    length = len(scheduler.waiting_queue[0].origin_input_ids)
    num_tokens = length if cache.chunk_tokens is None else min(length, cache.chunk_tokens)
    return num_tokens if num_tokens * _POOL_PER_WAITING <= cache.checkpoint_manager.room.num_kv_tokens else 0


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
    f"{_MANAGERS}.schedule_policy.PrefillAdder._commit_prefill_admission": commit_admission,
    f"{_MANAGERS}.schedule_policy.PrefillAdder.add_chunked_req": add_chunk,
    f"{_MANAGERS}.scheduler.Scheduler.run_batch": run_batch,
}
