"""Prompts as words: each letter is a block of tokens, and a state weighs as much as so many blocks of KV."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from milepost import Footprint, PrefixCache, parse_policy
from milepost.policies import CachePolicy
from milepost.traces import TraceRequest

BLOCK = 16


@dataclass(frozen=True)
class Weight:
    num_bytes: int


@dataclass
class Source:
    """Payloads of nothing but weight; remembers which states were taken."""

    state_bytes: int

    def checkpoint(self, position: int) -> Weight:
        return Weight(self.state_bytes)

    def kv_segments(self, start: int, end: int):
        return (None,) * ((end - start) // BLOCK)


def requests_of(words: Sequence[str]) -> list[TraceRequest]:
    return [
        TraceRequest(
            keys=np.array([ord(letter) for letter in word], np.int64),
            key_tokens=BLOCK,
            num_tokens=len(word) * BLOCK,
            request_id=word,
        )
        for word in words
    ]


class Replay:
    """One policy on a small cache. A token of KV takes a byte, a block 16, a state so many blocks."""

    def __init__(self, policy: str | CachePolicy, *, capacity_blocks: int, state_blocks: int = 2) -> None:
        self.policy = parse_policy(policy) if isinstance(policy, str) else policy
        state_bytes = state_blocks * BLOCK
        self.cache = PrefixCache(
            capacity_bytes=capacity_blocks * BLOCK,
            footprint=Footprint(checkpoint_bytes=state_bytes, kv_bytes_per_token=1),
            policy=self.policy,
            grid=BLOCK,
            key_tokens=BLOCK,
        )
        self._source = Source(state_bytes)

    def serve(self, word: str) -> int:
        """Serve one prompt; return how many blocks were reused."""
        (request,) = requests_of([word])
        with self.cache.acquire(request.keys, num_tokens=request.num_tokens) as lease:
            self.cache.commit(lease, self.cache.plan(lease), self._source)
        self.cache.check()
        return lease.resume_position // BLOCK

    def run(self, words: Sequence[str]) -> list[int]:
        """Serve all; return the blocks reused by each."""
        if self.policy.prepare is not None:
            self.policy.prepare(requests_of(words))
        return [self.serve(word) for word in words]

    def states(self, word: str) -> list[int]:
        """Return where states lie along a prompt, in blocks. Reads only."""
        (request,) = requests_of([word])
        with self.cache.acquire(request.keys, num_tokens=request.num_tokens) as lease:
            return [position // BLOCK for position in lease.request.checkpoint_positions]

    def kv(self, word: str) -> int:
        """Return how many leading blocks of a prompt have their KV stored. Reads only."""
        (request,) = requests_of([word])
        with self.cache.acquire(request.keys, num_tokens=request.num_tokens) as lease:
            return lease.request.resident_kv_tokens // BLOCK
