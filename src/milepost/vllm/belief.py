"""A lease on what vLLM has found, which is the truth: where the cache believed in more, that goes."""

from collections.abc import Sequence

from milepost.hosted_cache import HostedCache
from milepost.lease import Lease
from milepost.tokens import KeyArray
from milepost.vllm.pool import BlockMemory

__all__ = ["acquire_as_found"]


def acquire_as_found(
    cache: HostedCache,
    memory: BlockMemory,
    keys: KeyArray,
    num_tokens: int,
    *,
    hit: int,
    may_hit: bool,
    breakpoints: Sequence[int],
) -> tuple[Lease, int]:
    """Return a lease that resumes no deeper than ``hit``, and how many checkpoints were not there.

    Args:
        cache: The cache.
        memory: Its pool.
        keys: Block hashes of the prompt.
        num_tokens: Its length.
        hit: Tokens that vLLM has found.
        may_hit: False where it did not look.
        breakpoints: Positions of its messages' ends.
    """

    def acquire(resume_limit: int | None = None) -> Lease:
        return cache.acquire(keys, num_tokens=num_tokens, breakpoints=breakpoints, resume_limit=resume_limit)

    if not may_hit:
        return acquire(0), 0
    lease, num_stale = acquire(), 0
    while lease.resume_position > hit:
        believed = lease.resume_position
        # The pool has evicted it, unless another request is computing it just now and holds it.
        with memory.deferred():
            lease.discard()
        lease = acquire()
        if lease.resume_position == believed:
            lease.release()
            return acquire(hit), num_stale
        num_stale += 1
    return lease, num_stale
