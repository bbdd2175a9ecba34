"""The store against the obvious cache: same hits, same evictions, same bytes, after every step."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from naive_cache import NaiveCache

from milepost.errors import CacheCorruptionError
from milepost.store import Checkpoint, PrefixStore, Recency, check_store
from milepost.store.node import Node

# Two letters and short prompts: prefixes collide all the time.
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=24).map(tuple)


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
        capacity=st.integers(12, 40) | st.integers(40, 160),
        segment_tokens=st.integers(1, 5),
        kv_bytes=st.integers(0, 3),
        history=st.sampled_from([0, 30, 10_000, 10_000]),
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
        self.naive = NaiveCache(capacity, segment_tokens, segment_tokens * kv_bytes)
        self.forgetful = history < 10_000
        self.tick = 0

    @rule(target=leases, tokens=prompts, position=st.integers(1, 24), num_bytes=st.integers(1, 9))
    def store_and_keep_pinned(self, tokens: tuple[int, ...], position: int, num_bytes: int) -> object:
        checkpoint = self._put(tokens, position, num_bytes)
        if checkpoint is None:
            return None
        self.store.pin(checkpoint)
        self.naive.held[tokens[: checkpoint.position]].num_pins += 1
        return checkpoint, tokens[: checkpoint.position]

    @rule(lease=consumes(leases))
    def release(self, lease: tuple[Checkpoint, tuple[int, ...]] | None) -> None:
        if lease is not None:
            self.store.unpin(lease[0])
            self.naive.held[lease[1]].num_pins -= 1

    @rule(tokens=prompts, position=st.integers(1, 24), num_bytes=st.integers(1, 9))
    def store_unpinned(self, tokens: tuple[int, ...], position: int, num_bytes: int) -> None:
        self._put(tokens, position, num_bytes)

    def _put(self, tokens: tuple[int, ...], position: int, num_bytes: int) -> Checkpoint | None:
        self.tick += 1
        position = min(position, len(tokens))
        path = self.store.remember(array(tokens), tenant="")
        source = Source(tokens, self.store.segment_tokens, num_bytes)
        checkpoint = self.store.put(path, position, source=source, tick=self.tick)
        self.naive.seen.add(tokens)
        stored = self.naive.put(tokens, position, num_bytes, self.tick)
        assert (checkpoint is not None) == stored
        self.store.forget_history()
        return checkpoint

    @rule(tokens=prompts)
    def resume(self, tokens: tuple[int, ...]) -> None:
        self.tick += 1
        structure = self._structure()
        located = self.store.locate(array(tokens), tenant="", limit=len(tokens) - 1)
        assert self._structure() == structure, "reading changes nothing"
        naive = self.naive
        assert located.resume_position == naive.resume_position(tokens, len(tokens) - 1)
        assert self.store.kv_segments(located) == Source(tokens, self.store.segment_tokens, 0).kv_segments(
            0, located.resume_position // self.store.segment_tokens * self.store.segment_tokens
        )
        if not self.forgetful:
            assert located.overlap_depth == naive.overlap_depth(tokens)
            on_path = {p for p in naive.held if tokens[: len(p)] == p and len(p) <= located.overlap_depth}
            assert located.checkpoint_positions == tuple(sorted(map(len, on_path)))
            usable = min(located.overlap_depth, len(tokens) - 1)
            assert located.reached_position == naive.reached_position(tokens, usable)
        if located.checkpoint is not None:
            self.store.pin(located.checkpoint)
            self.store.touch(located.checkpoint, tick=self.tick)
            self.store.unpin(located.checkpoint)
            naive.held[tokens[: located.resume_position]].last_used = self.tick

    def _structure(self) -> set[tuple[int, int, int]]:
        return {(id(node), node.start, node.end) for node in self.store.tree.nodes()}

    @rule(tokens=prompts)
    def evict_what_would_be_resumed(self, tokens: tuple[int, ...]) -> None:
        located = self.store.locate(array(tokens), tenant="", limit=len(tokens))
        if located.checkpoint is not None and not located.checkpoint.num_pins:
            self.store.evict(located.checkpoint)
            assert not self.store.holds(located.checkpoint)
            prefix = tokens[: located.resume_position]
            del self.naive.held[prefix]
            self.naive.dropped.add(prefix)

    @rule(tokens=prompts)
    def another_tenant_sees_nothing(self, tokens: tuple[int, ...]) -> None:
        located = self.store.locate(array(tokens), tenant="other", limit=len(tokens))
        assert located.overlap_depth == located.resume_position == 0

    @invariant()
    def bytes_agree(self) -> None:
        if hasattr(self, "naive"):
            check_store(self.store)
            assert self.store.stored_bytes == self.naive.stored_bytes() <= self.store.capacity_bytes
            assert self.store.num_checkpoints == len(self.naive.held)


StoreMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
test_store_equals_the_naive_cache_after_every_step = StoreMachine.TestCase


class AnchorMachine(RuleBasedStateMachine):
    """An attention-only model: a checkpoint weighs nothing, and any whole segment can be resumed from."""

    @initialize(segments=st.integers(1, 8), segment_tokens=st.integers(1, 5))
    def build(self, segments: int, segment_tokens: int) -> None:
        self.store = new_store(
            capacity_bytes=segments * segment_tokens, segment_tokens=segment_tokens, is_stateless=True
        )
        self.naive = NaiveCache(segments * segment_tokens, segment_tokens, segment_tokens)
        self.ever_resident: set[tuple[int, ...]] = set()
        self.tick = 0

    @rule(tokens=prompts)
    def serve(self, tokens: tuple[int, ...]) -> None:
        """Resume, then keep the prompt's whole segments, as the facade does."""
        self.tick += 1
        step = self.store.segment_tokens
        located = self.store.locate(array(tokens), tenant="", limit=len(tokens))
        resident = self.naive.kv_segments()
        aligned = located.overlap_depth // step * step
        expected = max(end for end in range(0, aligned + 1, step) if not end or tokens[:end] in resident)
        assert located.resume_position == expected
        self.ever_resident |= resident
        assert located.reached_position == max(
            end for end in range(0, aligned + 1, step) if not end or tokens[:end] in self.ever_resident
        )
        assert self.store.kv_segments(located) == Source(tokens, step, 0).kv_segments(0, expected)
        anchor = self.store.anchor(located)
        if anchor is not None:
            assert (anchor.position, anchor.num_bytes, anchor.payload) == (expected, 0, None)
            if tokens[:expected] not in self.naive.held:
                assert self.naive.put(tokens, expected, 0, 0)
            self.store.pin(anchor)
            self.store.touch(anchor, tick=self.tick)
            held = self.naive.held[tokens[:expected]]
            held.num_pins, held.last_used = 1, self.tick
        if last := len(tokens) // step * step:
            path = self.store.remember(array(tokens), tenant="")
            put = self.store.put(path, last, source=Source(tokens, step, 99), tick=self.tick)
            assert (put is not None) == self.naive.put(tokens, last, 0, self.tick)
        if anchor is not None:
            self.store.unpin(anchor)
            held.num_pins = 0

    @invariant()
    def bytes_agree(self) -> None:
        if hasattr(self, "naive"):
            check_store(self.store)
            assert self.store.checkpoint_bytes == 0
            assert self.store.kv_bytes == self.naive.stored_bytes() <= self.store.capacity_bytes


AnchorMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_a_store_without_states_equals_the_naive_cache_after_every_step = AnchorMachine.TestCase


def new_store(
    *, capacity_bytes: int = 1000, segment_tokens: int = 4, is_stateless: bool = False
) -> PrefixStore:
    return PrefixStore(
        capacity_bytes=capacity_bytes,
        segment_tokens=segment_tokens,
        kv_bytes_per_token=1,
        is_stateless=is_stateless,
        eviction=Recency(),
        history_tokens=10_000,
    )


def store_with_everything() -> PrefixStore:
    """Two branches, dropped positions, a pinned checkpoint and dead history."""
    store = new_store()
    for tick, (tokens, positions) in enumerate(
        [(range(24), (4, 8, 16, 20)), ([*range(12), *range(50, 62)], (12, 20)), (range(80, 90), ())]
    ):
        path = store.remember(array(tokens), tenant="")
        for position in positions:
            store.put(path, position, source=Source(tuple(tokens), 4, 7), tick=tick)
    store.evict(store.locate(array(range(24)), tenant="", limit=19).checkpoint)
    store.pin(store.locate(array(range(24)), tenant="", limit=8).checkpoint)
    check_store(store)
    return store


def nodes_by_span(store: PrefixStore) -> dict[tuple[int, int], Node]:
    return {(node.start, node.end): node for node in store.tree.nodes()}


def holder(store: PrefixStore, position: int) -> Node:
    return store.locate(array(range(24)), tenant="", limit=position).checkpoint.node


def deepest(store: PrefixStore) -> Checkpoint:
    return holder(store, 20).checkpoints[-1]


CORRUPTIONS = {
    "a KV total": lambda s: setattr(s, "num_kv_segments", s.num_kv_segments + 1),
    "a byte total": lambda s: setattr(s, "checkpoint_bytes", s.checkpoint_bytes - 1),
    "a checkpoint total": lambda s: setattr(s, "num_checkpoints", 0),
    "a token total": lambda s: setattr(s.tree, "num_tokens", 5),
    "the capacity": lambda s: setattr(s, "capacity_bytes", s.stored_bytes - 1),
    "a lost KV segment": lambda s: (
        holder(s, 20).kv.pop(),
        setattr(s, "num_kv_segments", s.num_kv_segments - 1),
    ),
    "a KV segment too many": lambda s: (
        holder(s, 20).kv.append(None),
        setattr(s, "num_kv_segments", s.num_kv_segments + 1),
    ),
    "an edge shorter than its span": lambda s: setattr(holder(s, 20), "end", 25),
    "an orphan": lambda s: setattr(holder(s, 20), "parent", None),
    "a child under the wrong token": lambda s: holder(s, 8).children.update({99: holder(s, 20)}),
    "a stranger's child": lambda s: holder(s, 8).children.update({12: nodes_by_span(s)[0, 10]}),
    "a checkpoint outside its node": lambda s: setattr(deepest(s), "position", 3),
    "checkpoints out of order": lambda s: holder(s, 8).checkpoints.reverse(),
    "a checkpoint that points elsewhere": lambda s: setattr(deepest(s), "node", holder(s, 8)),
    "dropped out of order": lambda s: setattr(holder(s, 20), "dropped", [16, 14]),
    "dropped and held": lambda s: holder(s, 20).dropped.append(20),
    "dropped outside": lambda s: holder(s, 20).dropped.insert(0, 2),
    "an unpinned checkpoint off the ranking": lambda s: s._order.leave(deepest(s)),
    "a pin that nobody counted": lambda s: setattr(deepest(s), "num_pins", 1),
    "a miscounted child": lambda s: setattr(holder(s, 8), "num_live_children", 1),
    "history that is listed as alive": lambda s: s.tree.note_life(nodes_by_span(s)[0, 10]),
    "life that is listed as history": lambda s: s.tree._dead_leaves.update({holder(s, 20): None}),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_check_finds(corruption):
    store = store_with_everything()
    CORRUPTIONS[corruption](store)
    with pytest.raises(CacheCorruptionError, match="defect of Milepost"):
        check_store(store)


def test_what_was_dropped_is_forgotten_when_it_is_stored_again():
    store = store_with_everything()
    tokens = tuple(range(24))
    assert store.locate(array(tokens), tenant="", limit=19).resume_position == 12
    assert store.locate(array(tokens), tenant="", limit=19).reached_position == 16
    store.put(store.remember(array(tokens), tenant=""), 16, source=Source(tokens, 4, 7), tick=9)
    assert store.locate(array(tokens), tenant="", limit=19).resume_position == 16
    check_store(store)


def test_checkpoints_beyond_the_shared_part_of_an_edge_are_not_reported():
    store = new_store()
    tokens = tuple(range(24))
    path = store.remember(array(tokens), tenant="")
    for position in (8, 16):
        store.put(path, position, source=Source(tokens, 4, 7), tick=1)
    located = store.locate(array((*range(10), 99)), tenant="", limit=10)
    assert (located.overlap_depth, located.checkpoint_positions) == (10, (8,))


def test_recency_evicts_what_was_used_longest_ago_whatever_its_age():
    store = new_store(capacity_bytes=3 * 7 + 3 * 4)
    for first in (1, 2, 3):
        tokens = (first,) * 5
        store.put(store.remember(array(tokens), tenant=""), 4, source=Source(tokens, 4, 7), tick=first)
    oldest = store.locate(array((1,) * 5), tenant="", limit=4).checkpoint
    store.pin(oldest)
    store.touch(oldest, tick=4)
    store.unpin(oldest)
    tokens = (4,) * 5
    store.put(store.remember(array(tokens), tenant=""), 4, source=Source(tokens, 4, 7), tick=5)
    resumable = [store.locate(array((n,) * 5), tenant="", limit=4).resume_position for n in (1, 2, 3, 4)]
    assert resumable == [4, 0, 4, 4]
