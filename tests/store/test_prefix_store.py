"""The store against the obvious cache: same hits, same evictions, same bytes, after every step."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from naive_cache import NaiveCache

from milepost.errors import CacheCorruptionError
from milepost.store import Checkpoint, PrefixStore, Recency

# Two letters and short prompts: prefixes collide all the time.
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=24).map(tuple)
tenants = st.sampled_from(["", "other"])


@dataclass(frozen=True)
class Bytes:
    num_bytes: int


class Source:
    """Payloads that remember which tokens they belong to."""

    def __init__(self, tokens: tuple[int, ...], segment_tokens: int, checkpoint_bytes: int) -> None:
        self.tokens, self.segment_tokens, self.checkpoint_bytes = tokens, segment_tokens, checkpoint_bytes

    def checkpoint(self, position: int) -> Bytes:
        return Bytes(self.checkpoint_bytes)

    def kv_segments(self, start: int, end: int) -> list[tuple[int, ...]]:
        ends = range(start + self.segment_tokens, end + 1, self.segment_tokens)
        return [self.tokens[:stop] for stop in ends]


def array(tokens: tuple[int, ...]) -> np.ndarray:
    return np.asarray(tokens, dtype=np.int32)


class StoreMachine(RuleBasedStateMachine):
    """Drives both caches with the same events. A lease is a pinned checkpoint."""

    leases = Bundle("leases")

    @initialize(
        capacity=st.integers(12, 160),
        segment_tokens=st.integers(1, 5),
        kv_bytes=st.integers(0, 3),
        history=st.sampled_from([0, 30, 10_000]),
    )
    def build(self, capacity: int, segment_tokens: int, kv_bytes: int, history: int) -> None:
        self.store = PrefixStore(
            capacity_bytes=capacity,
            segment_tokens=segment_tokens,
            kv_bytes_per_token=kv_bytes,
            is_stateless=False,
            eviction=Recency(),
            history_tokens=history,
        )
        self.naive = {
            tenant: NaiveCache(capacity, segment_tokens, segment_tokens * kv_bytes) for tenant in ["", "other"]
        }
        self.forgetful = history < 10_000
        self.tick = 0

    @rule(target=leases, tokens=prompts, position=st.integers(1, 24), num_bytes=st.integers(1, 9))
    def store_and_keep_pinned(self, tokens: tuple[int, ...], position: int, num_bytes: int) -> object:
        checkpoint = self._put(tokens, position, num_bytes)
        if checkpoint is None:
            return None
        self.store.pin(checkpoint)
        self.naive[""].held[tokens[: checkpoint.position]].num_pins += 1
        return checkpoint, tokens[: checkpoint.position]

    @rule(lease=consumes(leases))
    def release(self, lease: tuple[Checkpoint, tuple[int, ...]] | None) -> None:
        if lease is not None:
            self.store.unpin(lease[0])
            self.naive[""].held[lease[1]].num_pins -= 1

    @rule(tokens=prompts, position=st.integers(1, 24), num_bytes=st.integers(1, 9))
    def store(self, tokens: tuple[int, ...], position: int, num_bytes: int) -> None:
        self._put(tokens, position, num_bytes)

    def _put(self, tokens: tuple[int, ...], position: int, num_bytes: int) -> Checkpoint | None:
        self.tick += 1
        position = min(position, len(tokens))
        path = self.store.remember(array(tokens), tenant="")
        source = Source(tokens, self.store.segment_tokens, num_bytes)
        checkpoint = self.store.put(path, position, source=source, tick=self.tick)
        self.naive[""].seen.add(tokens)
        stored = self.naive[""].put(tokens, position, num_bytes, self.tick)
        assert (checkpoint is not None) == stored
        self.store.forget_history()
        return checkpoint

    @rule(tokens=prompts)
    def resume(self, tokens: tuple[int, ...]) -> None:
        self.tick += 1
        located = self.store.locate(array(tokens), tenant="", limit=len(tokens) - 1)
        naive = self.naive[""]
        assert located.resume_position == naive.resume_position(tokens, len(tokens) - 1)
        assert self.store.kv_segments(located) == Source(tokens, self.store.segment_tokens, 0).kv_segments(
            0, located.resume_position // self.store.segment_tokens * self.store.segment_tokens
        )
        if not self.forgetful:
            assert located.overlap_depth == naive.overlap_depth(tokens)
            usable = min(located.overlap_depth, len(tokens) - 1)
            assert located.reached_position == naive.reached_position(tokens, usable)
        if located.checkpoint is not None:
            self.store.pin(located.checkpoint)
            self.store.touch(located.checkpoint, tick=self.tick)
            self.store.unpin(located.checkpoint)
            naive.held[tokens[: located.resume_position]].last_used = self.tick

    @rule(tokens=prompts)
    def another_tenant_sees_nothing(self, tokens: tuple[int, ...]) -> None:
        located = self.store.locate(array(tokens), tenant="other", limit=len(tokens))
        assert located.overlap_depth == located.resume_position == 0

    @invariant()
    def bytes_agree(self) -> None:
        if hasattr(self, "naive"):
            self.store.check()
            assert self.store.stored_bytes == self.naive[""].stored_bytes()
            assert self.store.num_checkpoints == len(self.naive[""].held)


StoreMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_store_equals_the_naive_cache_after_every_step = StoreMachine.TestCase
