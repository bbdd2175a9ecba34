"""What stock vLLM does (0.32, ``mamba_cache_mode="align"``, default retention).

Placement
    A state at the prompt's last whole block, and one at the junction, where the match of the KV goes further
    than that of the state. So a junction is stored by the second prompt through it and used by the third.
KV
    Kept to the end of every prompt, whether or not a state needs it.
Eviction
    One pool and one list for KV blocks and states, least recently used first, the end of a request before its
    beginning. A hit refreshes the KV of the prompt and the one state that it resumes from.

Not modelled: blocks inflated to the size of a state, so that prompts shorter than one share nothing; a second
copy of the KV between the state and the end of the KV match, while the old one ages; states and KV held by
requests that run at the same time.
"""

from milepost.policies.base import CachePolicy
from milepost.policies.peers.block_recency import BlockRecency
from milepost.policies.peers.matched import TailAndMatchedJunction

__all__ = ["vllm"]


def vllm() -> CachePolicy:
    """Return a new policy. O(1) to place, O(log n) for each state or stretch of KV stored or evicted."""
    return CachePolicy(TailAndMatchedJunction(), BlockRecency(), keeps_kv=True)
