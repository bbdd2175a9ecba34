"""What is kept: a radix tree of prompts, the checkpoints on it, and the KV that they need."""

from milepost.store.checking import check_store
from milepost.store.checkpoint import Checkpoint, Payload
from milepost.store.contentless import ContentlessPayloads
from milepost.store.delivery import Collector, Delivery, require_source
from milepost.store.drops import DropReports
from milepost.store.eviction_policy import KV_CELL, STATE_CELL, EvictionPolicy, Recency, Reranking
from milepost.store.known_prompts import know_prompt
from milepost.store.lookup import Lookup, checkpoints_beyond
from milepost.store.neighbours import exclusive_kv_tokens
from milepost.store.node import Node
from milepost.store.outline import Outline, OutlinedCheckpoint, OutlinedNode, outline
from milepost.store.prefix_store import PrefixStore
from milepost.store.seen import BranchPoint, SeenPrompt
from milepost.store.source import PayloadRules, PayloadSource
from milepost.store.tree import InsertResult, TreeMatch

__all__ = [
    "KV_CELL",
    "STATE_CELL",
    "BranchPoint",
    "Checkpoint",
    "Collector",
    "ContentlessPayloads",
    "Delivery",
    "DropReports",
    "EvictionPolicy",
    "InsertResult",
    "Lookup",
    "Node",
    "Outline",
    "OutlinedCheckpoint",
    "OutlinedNode",
    "Payload",
    "PayloadRules",
    "PayloadSource",
    "PrefixStore",
    "Recency",
    "Reranking",
    "SeenPrompt",
    "TreeMatch",
    "check_store",
    "checkpoints_beyond",
    "exclusive_kv_tokens",
    "know_prompt",
    "outline",
    "require_source",
]
