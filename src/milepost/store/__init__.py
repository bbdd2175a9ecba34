"""What is kept: a radix tree of prompts, the checkpoints on it, and the KV that they need."""

from milepost.store.checking import check_store
from milepost.store.contentless import ContentlessPayloads
from milepost.store.delivery import Collector, Delivery, require_source
from milepost.store.drops import DropReports
from milepost.store.eviction import KV_CELL, STATE_CELL, EvictionPolicy, Recency, Reranking
from milepost.store.node import Checkpoint, Node, Payload
from milepost.store.prefix_store import Located, PrefixStore
from milepost.store.source import PayloadRules, PayloadSource
from milepost.store.tree import Passage, TreeMatch

__all__ = [
    "KV_CELL",
    "STATE_CELL",
    "Checkpoint",
    "Collector",
    "ContentlessPayloads",
    "Delivery",
    "DropReports",
    "EvictionPolicy",
    "Located",
    "Node",
    "Passage",
    "Payload",
    "PayloadRules",
    "PayloadSource",
    "PrefixStore",
    "Recency",
    "Reranking",
    "TreeMatch",
    "check_store",
    "require_source",
]
