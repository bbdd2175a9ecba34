"""A request that resumes deeper than its own pool allows: a KV connector brings the rest from another tier.

vLLM looks up its own blocks first, then asks the connector what lies beyond. By then the request is planned.
So what is loaded is taken in as a checkpoint that another tier has given back, as between the tiers of the
other engines: the cache adopts it, the request resumes from it, and is planned anew from there. Its blocks
are in the pool from now on, and stay while they are worth it.
"""

from milepost.hosted_cache import HostedCache
from milepost.lease import Lease
from milepost.vllm.layout import PoolLayout
from milepost.vllm.pool import BlockMemory
from milepost.vllm.prompt_blocks import PromptBlocks

__all__ = ["acquire_loaded"]


def acquire_loaded(
    cache: HostedCache,
    lease: Lease,
    prompt: PromptBlocks,
    position: int,
    *,
    layout: PoolLayout,
    memory: BlockMemory,
) -> Lease | None:
    """Return a lease that resumes at ``position``, in place of ``lease``, which is released; or None, and
    leave that as it is, where there is no room for another checkpoint.

    Args:
        cache: The cache.
        lease: On the prompt, not committed yet.
        prompt: Its block hashes.
        position: Tokens of which a connector has brought KV and state.
        layout: How caches lie in the pool.
        memory: The pool. It has given the request its blocks already, so they count as room.
    """
    request = lease.request
    new_blocks = layout.blocks_of_kv(position) - layout.blocks_of_kv(request.resident_kv_tokens)
    room = max(0, new_blocks) + layout.blocks_of_state(position)
    keys = lease.tokens[: position // layout.match_tokens]
    with memory.deferred():
        cache.resize(cache.stored_bytes + room * layout.block_tokens)
        adopted = cache.adopt(keys, prompt, num_tokens=request.num_tokens, tenant=lease.tenant)
        if adopted is None:
            return None
        deeper = cache.acquire(
            lease.tokens,
            num_tokens=request.num_tokens,
            tenant=lease.tenant,
            breakpoints=request.breakpoints,
            resume_limit=position,
        )
        lease.release()
    return deeper
