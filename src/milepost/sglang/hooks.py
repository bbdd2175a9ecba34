"""What is hooked into SGLang's scheduler, in processes whose cache is planned."""

from collections.abc import Callable, Sequence
from typing import Any

from milepost.sglang.planned_cache import PlannedRadixCache
from milepost.sglang.prompt_keys import tenant_of

__all__ = ["HOOKS", "place_state"]

# Key in ``custom_params``: token positions where messages end.
_BREAKPOINTS_KEY = "milepost_breakpoints"


def place_state(prepare: Callable[[Any, Any], Any], batch: Any, req: Any) -> Any:
    """Have the next chunk of a request capture what is planned in it, and nothing where nothing is.

    Args:
        prepare: SGLang's own method.
        batch: The ``ScheduleBatch``.
        req: The request, of which ``[prefix_len, extend_end)`` is computed next.
    """
    cache = batch.tree_cache
    manager = cache.checkpoint_manager if isinstance(cache, PlannedRadixCache) else None
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
            breakpoints=_breakpoints(req),
        )
    position = manager.position_in(req.rid, start, end)
    if position is None:
        return _untracked(prepare, batch, req)
    req.mamba_branching_seqlen = position
    return prepare(batch, req)


def _untracked(prepare: Callable[[Any, Any], Any], batch: Any, req: Any) -> Any:
    """Return what SGLang's method returns for a chunk that is too short to leave a state."""
    end = req.extend_end
    req.extend_end = req.prefix_len
    try:
        return prepare(batch, req)
    finally:
        req.extend_end = end


def _breakpoints(req: Any) -> Sequence[int]:
    given = (getattr(req.sampling_params, "custom_params", None) or {}).get(_BREAKPOINTS_KEY)
    if not isinstance(given, list | tuple):
        return ()
    # A hint, from a client: what makes no sense is left out.
    num_tokens = len(req.origin_input_ids)
    return tuple(int(at) for at in given if isinstance(at, int | float) and 0 < at <= num_tokens)


_MANAGERS = "sglang.srt.managers"
#: By the name of what is wrapped.
HOOKS: dict[str, Callable[..., Any]] = {
    f"{_MANAGERS}.schedule_batch.ScheduleBatch._mamba_radix_cache_v2_req_prepare_for_extend": place_state,
}
