"""The store against the obvious cache: same hits, same evictions, same bytes, after every step."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from naive_cache import NaiveCache

from milepost.errors import CacheCorruptionError
from milepost.store import (
    BranchPoint,
    Checkpoint,
    Lookup,
    PrefixStore,
    Recency,
    SeenPrompt,
    TreeMatch,
    check_store,
)
from milepost.store.neighbours import exclusive_kv_tokens
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


def remember(store: PrefixStore, tokens) -> list[Node]:
    """Add a prompt and return its path."""
    return store.remember(array(tokens), tenant="", prompt=SeenPrompt(len(tokens))).path


def locate(store: PrefixStore, tokens, *, limit: int, tenant: str = "") -> Lookup:
    return store.look_up(array(tokens), num_tokens=len(tokens), tenant=tenant, limit=limit)


def prefix_of(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The tokens before a checkpoint, from the edges up to the root."""
    edges, node = [], checkpoint.node
    while node.parent is not None:
        edges.append(node.data)
        node = node.parent
    return tuple(np.frombuffer(b"".join(reversed(edges)), np.int32)[: checkpoint.position].tolist())


def stored(store: PrefixStore) -> dict[tuple[int, ...], Checkpoint]:
    return {prefix_of(c): c for node in store.tree.nodes() for c in node.checkpoints}


class WatchfulRecency(Recency):
    """Compares what it is told that a victim holds alone with a count over all checkpoints."""

    weighs_neighbours = True
    store: PrefixStore

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        naive = NaiveCache(0, 1, 0, held=stored(self.store))
        tokens = naive.exclusive_kv_tokens(prefix_of(checkpoint))
        assert freed_bytes == checkpoint.num_bytes + tokens * self.store.kv.bytes_per_token
        return super().rank(checkpoint, freed_bytes)


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
        policy = WatchfulRecency()
        self.store = policy.store = PrefixStore(
            capacity_bytes=capacity,
            segment_tokens=segment_tokens,
            kv_bytes_per_token=kv_bytes,
            is_stateless=False,
            eviction=policy,
            history_tokens=history,
        )
        self.naive = NaiveCache(capacity, segment_tokens, segment_tokens * kv_bytes)
        self.forgetful = history < 10_000
        self.tick = 0
        # What earlier lookups said: true of the tree as it was then.
        self.matches: dict[tuple[int, ...], TreeMatch] = {}
        self.branch_points: dict[tuple[int, ...], BranchPoint] = {}

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

    @rule(tokens=prompts)
    def look_up_for_later(self, tokens: tuple[int, ...]) -> None:
        self.matches[tokens] = locate(self.store, tokens, limit=len(tokens)).match

    def _put(self, tokens: tuple[int, ...], position: int, num_bytes: int) -> Checkpoint | None:
        self.tick += 1
        position = min(position, len(tokens))
        path = self._remember(tokens)
        source = Source(tokens, self.store.kv.segment_tokens, num_bytes)
        checkpoint = self.store.put(path, position, source=source, tick=self.tick)
        assert (checkpoint is not None) == self.naive.put(tokens, position, num_bytes, self.tick)
        self.store.forget_history()
        return checkpoint

    def _remember(self, tokens: tuple[int, ...]) -> list[Node]:
        naive, prompt = self.naive, SeenPrompt(len(tokens))
        inserted = self.store.remember(
            array(tokens), tenant="", prompt=prompt, match=self.matches.pop(tokens, None)
        )
        assert inserted.prompt is prompt
        assert inserted.path[-1].end == len(tokens)
        assert all(node.owner is prompt for node in inserted.path)
        if not self.forgetful:
            depth = naive.overlap_depth(tokens)
            assert inserted.overlap_depth == depth
            assert inserted.earlier is (naive.latest_through(tokens[:depth]) if depth else None)
            assert inserted.passed == naive.takes_from(tokens)
            assert inserted.is_diverging == naive.parts(tokens)
        naive.seen.append((tokens, prompt))
        place = tokens[: inserted.overlap_depth]
        if inserted.is_diverging:
            known = self.branch_points.setdefault(place, inserted.branch_point)
            assert self.forgetful or inserted.branch_point is known
        assert self.forgetful or inserted.branch_point is self.branch_points.get(place)
        return inserted.path

    @rule(tokens=prompts)
    def resume(self, tokens: tuple[int, ...]) -> None:
        self.tick += 1
        structure = self._structure()
        located = locate(self.store, tokens, limit=len(tokens) - 1)
        assert self._structure() == structure, "reading changes nothing"
        naive = self.naive
        assert located.resume_position == naive.resume_position(tokens, len(tokens) - 1)
        assert self.store.kv_segments(located) == Source(tokens, self.store.kv.segment_tokens, 0).kv_segments(
            0, located.resume_position // self.store.kv.segment_tokens * self.store.kv.segment_tokens
        )
        if not self.forgetful:
            self._compare(tokens, located)
        if located.checkpoint is not None:
            self.store.pin(located.checkpoint)
            self.store.touch(located.checkpoint, tick=self.tick)
            self.store.unpin(located.checkpoint)
            naive.held[tokens[: located.resume_position]].last_used = self.tick

    def _compare(self, tokens: tuple[int, ...], located: Lookup) -> None:
        naive, depth = self.naive, located.overlap_depth
        assert depth == naive.overlap_depth(tokens)
        on_path = {p for p in naive.held if tokens[: len(p)] == p and len(p) <= depth}
        assert located.checkpoint_positions == tuple(sorted(map(len, on_path)))
        usable = min(depth, len(tokens) - 1)
        assert located.reached_position == naive.reached_position(tokens, usable)
        assert located.earlier is (naive.latest_through(tokens[:depth]) if depth else None)
        passed = [(len(p), b) for p, b in self.branch_points.items() if tokens[:depth][: len(p)] == p]
        assert [(b.position, b) for b in located.branch_points] == sorted(passed, key=lambda pair: pair[0])
        resident = [len(s) for s in naive.kv_segments() if tokens[: len(s)] == s]
        if naive.kv_segment_bytes:
            # Of the segment in which it parts, it may count the tokens up to there.
            whole = located.resident_kv_tokens // naive.segment_tokens * naive.segment_tokens
            assert whole == max(resident, default=0)

    def _structure(self) -> set[tuple[int, int, int]]:
        return {(id(node), node.start, node.end) for node in self.store.tree.nodes()}

    @rule(tokens=prompts)
    def evict_what_would_be_resumed(self, tokens: tuple[int, ...]) -> None:
        located = locate(self.store, tokens, limit=len(tokens))
        if located.checkpoint is not None and not located.checkpoint.num_pins:
            assert located.checkpoint.is_stored
            self.store.evictor.evict(located.checkpoint)
            assert not located.checkpoint.is_stored
            prefix = tokens[: located.resume_position]
            del self.naive.held[prefix]
            self.naive.dropped.add(prefix)

    @rule(tokens=prompts)
    def another_tenant_sees_nothing(self, tokens: tuple[int, ...]) -> None:
        located = locate(self.store, tokens, tenant="other", limit=len(tokens))
        assert located.overlap_depth == located.resume_position == 0
        assert located.earlier is None

    @invariant()
    def both_hold_the_same(self) -> None:
        if not hasattr(self, "naive"):
            return
        check_store(self.store)
        assert self.store.budget.stored_bytes == self.naive.stored_bytes() <= self.store.budget.capacity_bytes
        found = stored(self.store)
        assert found.keys() == self.naive.held.keys()
        assert self.store.checkpoints.count == len(found)
        for prefix, checkpoint in found.items():
            above = self.naive.above(prefix)
            assert checkpoint.above is (None if above is None else found[above])
            below = {p for p in found if self.naive.above(p) == prefix}
            assert set(map(prefix_of, checkpoint.below.values())) == below
            assert exclusive_kv_tokens(checkpoint) == self.naive.exclusive_kv_tokens(prefix)
            assert checkpoint.owner.owned[checkpoint.serial] is checkpoint
            through = [prompt for tokens, prompt in self.naive.seen if tokens[: len(prefix)] == prefix]
            assert checkpoint.owner in (through if self.forgetful else through[-1:])
        assert sum(len(prompt.owned) for _, prompt in self.naive.seen) == len(found)

    @invariant()
    def there_is_room_for_all_that_nothing_pinned_takes(self) -> None:
        if not hasattr(self, "naive"):
            return
        pinned = {p: c for p, c in stored(self.store).items() if c.num_pins}
        kv = len(self.naive.kv_segments(set(pinned))) * self.naive.kv_segment_bytes
        free = self.store.budget.capacity_bytes - kv - sum(c.num_bytes for c in pinned.values())
        assert math.isfinite(self.store.evictor.room_worth(free))
        # What victims hold alone is counted in tokens, what they free in whole segments.
        rounding = self.store.checkpoints.count * self.store.kv.segment_bytes
        assert self.store.evictor.room_worth(free + rounding + 1) == math.inf
        assert (
            self.store.evictor.room_worth(self.store.budget.capacity_bytes - self.store.budget.stored_bytes)
            == 0.0
        )


StoreMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True
)
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
        step = self.store.kv.segment_tokens
        located = locate(self.store, tokens, limit=len(tokens))
        resident = self.naive.kv_segments()
        aligned = located.overlap_depth // step * step
        expected = max(end for end in range(0, aligned + 1, step) if not end or tokens[:end] in resident)
        assert located.resume_position == expected
        self.ever_resident |= resident
        assert located.reached_position == max(
            end for end in range(0, aligned + 1, step) if not end or tokens[:end] in self.ever_resident
        )
        assert self.store.kv_segments(located) == Source(tokens, step, 0).kv_segments(0, expected)
        anchor = self.store.pin_resumed(located)
        if anchor is not None:
            assert (anchor.position, anchor.num_bytes, anchor.payload) == (expected, 0, None)
            if tokens[:expected] not in self.naive.held:
                assert self.naive.put(tokens, expected, 0, 0)
            self.store.touch(anchor, tick=self.tick)
            held = self.naive.held[tokens[:expected]]
            held.num_pins, held.last_used = 1, self.tick
        if last := len(tokens) // step * step:
            path = remember(self.store, tokens)
            put = self.store.put(path, last, source=Source(tokens, step, 99), tick=self.tick)
            assert (put is not None) == self.naive.put(tokens, last, 0, self.tick)
        if anchor is not None:
            self.store.unpin(anchor)
            held.num_pins = 0

    @invariant()
    def bytes_agree(self) -> None:
        if hasattr(self, "naive"):
            check_store(self.store)
            assert self.store.budget.state_bytes == 0
            assert self.store.kv.num_bytes == self.naive.stored_bytes() <= self.store.budget.capacity_bytes


AnchorMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, derandomize=True
)
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
    """Two branches, evicted positions, a pinned checkpoint and dead history."""
    store = new_store()
    for tick, (tokens, positions) in enumerate(
        [(range(24), (4, 8, 16, 20)), ([*range(12), *range(50, 62)], (12, 20)), (range(80, 90), ())]
    ):
        path = remember(store, tokens)
        for position in positions:
            store.put(path, position, source=Source(tuple(tokens), 4, 7), tick=tick)
    store.evictor.evict(locate(store, range(24), limit=19).checkpoint)
    store.pin(locate(store, range(24), limit=8).checkpoint)
    check_store(store)
    return store


def nodes_by_span(store: PrefixStore) -> dict[tuple[int, int], Node]:
    return {(node.start, node.end): node for node in store.tree.nodes()}


def holder(store: PrefixStore, position: int) -> Node:
    return locate(store, range(24), limit=position).checkpoint.node


def deepest(store: PrefixStore) -> Checkpoint:
    return holder(store, 20).checkpoints[-1]


CORRUPTIONS = {
    "a KV total": lambda s: setattr(s.kv, "num_segments", s.kv.num_segments + 1),
    "a byte total": lambda s: setattr(s.budget, "state_bytes", s.budget.state_bytes - 1),
    "a checkpoint total": lambda s: setattr(s.checkpoints, "count", 0),
    "a key total": lambda s: setattr(s.tree, "num_keys", 5),
    "the capacity": lambda s: s.budget.resize(s.budget.stored_bytes - 1),
    "a lost KV segment": lambda s: (
        holder(s, 20).kv.pop(),
        setattr(s.kv, "num_segments", s.kv.num_segments - 1),
    ),
    "a KV segment too many": lambda s: (
        holder(s, 20).kv.append(None),
        setattr(s.kv, "num_segments", s.kv.num_segments + 1),
    ),
    "an edge shorter than its span": lambda s: setattr(holder(s, 20), "end", 25),
    "an orphan": lambda s: setattr(holder(s, 20), "parent", None),
    "a child under the wrong token": lambda s: holder(s, 8).children.update({b"\x63\0\0\0": holder(s, 20)}),
    "a stranger's child": lambda s: holder(s, 8).children.update({b"\x0c\0\0\0": nodes_by_span(s)[0, 10]}),
    "an edge that lost a key": lambda s: setattr(holder(s, 20), "data", holder(s, 20).data[:-4]),
    "a checkpoint outside its node": lambda s: setattr(deepest(s), "position", 3),
    "checkpoints out of order": lambda s: holder(s, 8).checkpoints.reverse(),
    "a checkpoint that points elsewhere": lambda s: setattr(deepest(s), "node", holder(s, 8)),
    "evicted out of order": lambda s: setattr(holder(s, 20), "evicted", (16, 14)),
    "evicted and stored": lambda s: setattr(holder(s, 20), "evicted", (*holder(s, 20).evicted, 20)),
    "evicted outside": lambda s: setattr(holder(s, 20), "evicted", (2, *holder(s, 20).evicted)),
    "an unpinned checkpoint off the ranking": lambda s: s.queue.remove(deepest(s)),
    "a pin that nobody counted": lambda s: setattr(deepest(s), "num_pins", 1),
    "a checkpoint that is not linked to the one above": lambda s: setattr(deepest(s), "above", None),
    "a checkpoint linked to one too far above": lambda s: setattr(
        deepest(s), "above", deepest(s).above.above
    ),
    "a checkpoint that the one above forgot": lambda s: deepest(s).above.below.clear(),
    "a checkpoint above one that is not below it": lambda s: deepest(s).below.update(
        {1: holder(s, 8).checkpoints[0]}
    ),
    "a checkpoint of another prompt": lambda s: setattr(deepest(s), "owner", SeenPrompt(24)),
    "a checkpoint that its prompt forgot": lambda s: deepest(s).owner.owned.clear(),
    "a prompt too short for its node": lambda s: setattr(holder(s, 20).owner, "num_tokens", 23),
    "a pinned checkpoint on the ranking": lambda s: s.queue._stale.update(
        {s.queue.pinned[0].serial: s.queue.pinned[0]}
    ),
    "a miscounted child": lambda s: setattr(holder(s, 8), "num_live_children", 1),
    "history that is listed as alive": lambda s: s.tree.note_life(nodes_by_span(s)[0, 10]),
    "life that is listed as history": lambda s: s.tree._history.append(holder(s, 20)),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_check_finds(corruption):
    store = store_with_everything()
    CORRUPTIONS[corruption](store)
    with pytest.raises(CacheCorruptionError, match="defect of Milepost"):
        check_store(store)


def test_what_was_evicted_is_forgotten_when_it_is_stored_again():
    store = store_with_everything()
    tokens = tuple(range(24))
    assert locate(store, tokens, limit=19).resume_position == 12
    assert locate(store, tokens, limit=19).reached_position == 16
    store.put(remember(store, tokens), 16, source=Source(tokens, 4, 7), tick=9)
    assert locate(store, tokens, limit=19).resume_position == 16
    check_store(store)


def test_checkpoints_beyond_the_shared_part_of_an_edge_are_not_reported():
    store = new_store()
    tokens = tuple(range(24))
    path = remember(store, tokens)
    for position in (8, 16):
        store.put(path, position, source=Source(tokens, 4, 7), tick=1)
    located = locate(store, (*range(10), 99), limit=10)
    assert (located.overlap_depth, located.checkpoint_positions) == (10, (8,))


def test_recency_evicts_what_was_used_longest_ago_whatever_its_age():
    store = new_store(capacity_bytes=3 * 7 + 3 * 4)
    for first in (1, 2, 3):
        tokens = (first,) * 5
        store.put(remember(store, tokens), 4, source=Source(tokens, 4, 7), tick=first)
    oldest = locate(store, (1,) * 5, limit=4).checkpoint
    store.pin(oldest)
    store.touch(oldest, tick=4)
    store.unpin(oldest)
    tokens = (4,) * 5
    store.put(remember(store, tokens), 4, source=Source(tokens, 4, 7), tick=5)
    resumable = [locate(store, (n,) * 5, limit=4).resume_position for n in (1, 2, 3, 4)]
    assert resumable == [4, 0, 4, 4]
