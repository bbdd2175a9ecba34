"""What is kept: a radix tree of prompts, the checkpoints on it, and the KV that they need."""

from milepost.store.checking import check_store
from milepost.store.eviction import EvictionPolicy, Recency
from milepost.store.node import Checkpoint, Payload
from milepost.store.prefix_store import Located, PayloadSource, PrefixStore

__all__ = [
    "Checkpoint",
    "EvictionPolicy",
    "Located",
    "Payload",
    "PayloadSource",
    "PrefixStore",
    "Recency",
    "check_store",
]
