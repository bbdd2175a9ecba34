"""Memory as peers keep it: KV to the end of every prompt, and a budget split between states and KV."""

from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from milepost.store import (
    Checkpoint,
    EvictionPolicy,
    InsertResult,
    Lookup,
    Node,
    PrefixStore,
    Recency,
    SeenPrompt,
    check_store,
)
from milepost.store.eviction_policy import KV_CELL, STATE_CELL

PLENTY = 1 << 30
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=24).map(tuple)


@dataclass(frozen=True)
class State:
    prefix: tuple[int, ...]
    num_bytes: int


class Source:
    """Payloads that say which tokens they belong to."""

    def __init__(self, tokens: tuple[int, ...], segment_tokens: int, checkpoint_bytes: int) -> None:
        self.tokens, self.segment_tokens, self.checkpoint_bytes = tokens, segment_tokens, checkpoint_bytes

    def checkpoint(self, position: int) -> State:
        return State(self.tokens[:position], self.checkpoint_bytes)

    def kv_segments(self, start: int, end: int) -> list[tuple[int, ...]]:
        step = self.segment_tokens
        return [self.tokens[:stop] for stop in range(start + step, end + 1, step)]


class TwoPools(EvictionPolicy):
    """The least recently used of states, and of what holds KV without one."""

    scales = np.ones(2)

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        return (KV_CELL if checkpoint.is_kv_only else STATE_CELL), checkpoint.last_used


class KVFirst(TwoPools):
    """Gives up what holds KV alone before any state."""

    scales = np.array([1e6, 1.0])


class KeptKVMachine(RuleBasedStateMachine):
    """Serves prompts as the facade does, whatever the budget."""

    share: float | None = None

    @initialize(
        capacity=st.integers(20, 60) | st.integers(60, 200) | st.just(PLENTY),
        segment_tokens=st.integers(1, 5),
        kv_bytes=st.integers(0, 3),
        state_bytes=st.integers(1, 9),
        history=st.sampled_from([0, 30, 10_000, 10_000]),
    )
    def build(
        self, capacity: int, segment_tokens: int, kv_bytes: int, state_bytes: int, history: int
    ) -> None:
        self.store = PrefixStore(
            capacity_bytes=capacity,
            segment_tokens=segment_tokens,
            kv_bytes_per_token=kv_bytes,
            is_stateless=False,
            eviction=Recency() if self.share is None else TwoPools(),
            history_tokens=history,
            state_bytes=state_bytes,
            keeps_kv=True,
            state_share=self.share,
        )
        self.state_bytes = state_bytes
        self.remembers_all = history == 10_000
        self.ever: set[tuple[int, ...]] = set()
        self.seen: set[tuple[int, ...]] = set()
        self.tick = 0

    @rule(tokens=prompts, positions=st.sets(st.integers(1, 24), max_size=3))
    def serve(self, tokens: tuple[int, ...], positions: set[int]) -> None:
        store, step = self.store, self.store.kv.segment_tokens
        self.tick += 1
        located = self._locate(tokens, limit=len(tokens) - 1)
        held = []
        if located.checkpoint is not None:
            assert not located.checkpoint.is_kv_only
            assert located.checkpoint.payload.prefix == tokens[: located.resume_position]
            store.pin(located.checkpoint)
            store.touch(located.checkpoint, tick=self.tick)
            held.append(located.checkpoint)
        usable = range(1, min(located.overlap_depth, len(tokens) - 1) + 1)
        if self.remembers_all:
            reached = max((p for p in usable if tokens[:p] in self.ever), default=0)
            assert located.reached_position == reached
        source = Source(tokens, step, self.state_bytes)
        resident = located.resident_kv_tokens
        assert store.kv_segments(located) == source.kv_segments(0, located.resume_position // step * step)
        passage = self._remember(tokens, located)
        self._compare_idle(passage.path, len(tokens), resident)
        for position in sorted(p for p in positions if located.resume_position < p <= len(tokens)):
            checkpoint = store.put(passage.path, position, source=source, tick=self.tick)
            if checkpoint is not None:
                assert (checkpoint.is_kv_only, checkpoint.payload.prefix) == (False, tokens[:position])
                self.ever.add(tokens[:position])
                store.pin(checkpoint)
                held.append(checkpoint)
        store.keep_kv(passage.path, len(tokens), source=source, tick=self.tick)
        after = self._locate(tokens, limit=len(tokens)).resident_kv_tokens
        whole = len(tokens) // step * step
        if store.budget.capacity_bytes == PLENTY:
            assert after == max(whole, resident // step * step)
        assert after >= max((c.position for c in held), default=0) // step * step
        store.forget_history()
        self.seen.add(tokens)
        for checkpoint in held:
            store.unpin(checkpoint)

    def _compare_idle(self, path: list[Node], num_tokens: int, resident_kv_tokens: int) -> None:
        """It is the deepest position for which nothing is short."""
        budget = self.store.budget
        idle = budget.idle_position(
            num_tokens, resident_kv_tokens=resident_kv_tokens, state_bytes=self.state_bytes
        )
        fits = [
            position
            for position in range(1, num_tokens + 1)
            if budget.shortage(path, position, self.state_bytes).num_bytes <= 0
        ]
        assert idle == max(fits, default=0)

    @rule(tokens=prompts)
    def evicting_a_state_leaves_its_kv(self, tokens: tuple[int, ...]) -> None:
        located = self._locate(tokens, limit=len(tokens))
        if located.checkpoint is None:
            return
        num_segments, num_checkpoints = self.store.kv.num_segments, self.store.budget.state_bytes
        self.store.evictor.evict(located.checkpoint)
        assert self.store.kv.num_segments == num_segments
        assert self.store.budget.state_bytes == num_checkpoints - self.state_bytes
        assert self._locate(tokens, limit=len(tokens)).resume_position < located.resume_position

    def _locate(self, tokens: tuple[int, ...], *, limit: int) -> Lookup:
        keys = np.asarray(tokens, np.int32)
        return self.store.look_up(keys, num_tokens=len(tokens), tenant="", limit=limit)

    def _remember(self, tokens: tuple[int, ...], located: Lookup) -> InsertResult:
        keys = np.asarray(tokens, np.int32)
        return self.store.remember(keys, tenant="", prompt=SeenPrompt(len(tokens)), match=located.match)

    @invariant()
    def the_budget_holds(self) -> None:
        if not hasattr(self, "store"):
            return
        store = self.store
        check_store(store)
        assert store.budget.stored_bytes <= store.budget.capacity_bytes
        if store.budget.capacity_bytes == PLENTY:
            step = store.kv.segment_tokens
            every = {t[:end] for t in self.seen for end in range(step, len(t) + 1, step)}
            assert store.kv.num_segments == len(every)
        for node in store.tree.nodes():
            for checkpoint in node.checkpoints:
                assert (checkpoint.payload is None) == checkpoint.is_kv_only == (checkpoint.num_bytes == 0)
        if self.share is not None:
            states = int(self.share * store.budget.capacity_bytes)
            assert store.budget.state_bytes <= states
            assert store.kv.num_bytes <= store.budget.capacity_bytes - states


class SplitBudgetMachine(KeptKVMachine):
    share = 0.4


bounded = settings(max_examples=80, stateful_step_count=25, deadline=None, derandomize=True)
KeptKVMachine.TestCase.settings = SplitBudgetMachine.TestCase.settings = bounded
test_kv_is_kept_to_the_prompts_end_as_far_as_there_is_room = KeptKVMachine.TestCase
test_neither_half_of_a_split_budget_takes_more_than_its_part = SplitBudgetMachine.TestCase


def new_store(*, capacity_bytes: int, policy: EvictionPolicy | None = None, **options) -> PrefixStore:
    return PrefixStore(
        capacity_bytes=capacity_bytes,
        segment_tokens=4,
        is_stateless=False,
        eviction=Recency() if policy is None else policy,
        history_tokens=10_000,
        **{"kv_bytes_per_token": 1, "state_bytes": 10, "keeps_kv": True} | options,
    )


def serve(store: PrefixStore, tokens, position: int | None, *, tick: int) -> Checkpoint | None:
    """Store one state, and the KV of the whole prompt."""
    tokens = tuple(tokens)
    keys, source = np.asarray(tokens, np.int32), Source(tokens, 4, 10)
    path = store.remember(keys, tenant="", prompt=SeenPrompt(len(tokens))).path
    checkpoint = None if position is None else store.put(path, position, source=source, tick=tick)
    if store.evictor.keeps_kv:
        store.keep_kv(path, len(tokens), source=source, tick=tick)
    check_store(store)
    return checkpoint


def located(store: PrefixStore, tokens) -> Lookup:
    tokens = tuple(tokens)
    keys = np.asarray(tokens, np.int32)
    return store.look_up(keys, num_tokens=len(tokens), tenant="", limit=len(tokens))


def test_kv_behind_the_last_state_is_kept_and_is_no_place_to_resume_from():
    store = new_store(capacity_bytes=PLENTY)
    serve(store, range(22), 8, tick=1)
    found = located(store, range(22))
    assert (found.resume_position, found.resident_kv_tokens, found.checkpoint_positions) == (8, 20, (8,))
    assert store.kv_segments(found) == [tuple(range(4)), tuple(range(8))]


def test_a_store_that_does_not_keep_it_has_kv_for_its_states_alone():
    store = new_store(capacity_bytes=PLENTY, keeps_kv=False)
    serve(store, range(22), 8, tick=1)
    state = located(store, range(22)).checkpoint
    store.evictor.evict(state)
    assert store.kv.num_bytes == 0


def test_under_pressure_kept_kv_is_taken_back_from_its_end_and_no_further_than_needed():
    store = new_store(capacity_bytes=10 + 20 + 10, policy=KVFirst())
    serve(store, range(22), 8, tick=1)
    for num_tokens, left in ((10, 20), (15, 16), (19, 12), (23, 8)):
        serve(store, range(100, 100 + num_tokens), None, tick=num_tokens)
        kept = located(store, range(22))
        assert (kept.resume_position, kept.resident_kv_tokens) == (8, left)
        assert located(store, range(100, 100 + num_tokens)).resident_kv_tokens == num_tokens // 4 * 4
    serve(store, range(100, 132), None, tick=40)
    assert located(store, range(22)).resume_position == 0, "then the state goes too"


def test_a_state_can_be_stored_where_only_kv_was_and_counts_as_dropped_once_it_is():
    store = new_store(capacity_bytes=PLENTY)
    serve(store, range(20), None, tick=1)
    assert located(store, range(20)).reached_position == 0, "there was never a state"
    serve(store, range(20), 20, tick=2)
    assert located(store, range(20)).resume_position == 20
    store.evictor.evict(located(store, range(20)).checkpoint)
    serve(store, range(20), None, tick=3)
    found = located(store, range(20))
    assert (found.resume_position, found.reached_position, found.resident_kv_tokens) == (0, 20, 20)


def test_where_kv_weighs_nothing_states_are_evicted_all_the_same():
    store = new_store(capacity_bytes=20, kv_bytes_per_token=0)
    for number in range(8):
        serve(store, [number] * 10, 8, tick=number)
    assert store.budget.state_bytes == 20
    assert located(store, [7] * 10).resume_position == 8
    assert located(store, [0] * 10).resume_position == 0


def split_store() -> PrefixStore:
    """Room for two states, and for 40 tokens of KV."""
    return new_store(capacity_bytes=60, policy=TwoPools(), state_share=1 / 3)


def test_a_state_makes_room_for_a_state_and_not_for_kv():
    store = split_store()
    for number in range(3):
        serve(store, [number] * 10, 8, tick=number)
    assert [located(store, [n] * 10).resume_position for n in range(3)] == [0, 8, 8]
    assert [located(store, [n] * 10).resident_kv_tokens for n in range(3)] == [8, 8, 8]
    serve(store, [9] * 40, None, tick=9)
    assert store.kv.num_bytes <= 40
    assert store.budget.state_bytes <= 20


def test_what_another_request_holds_leaves_less_of_each_half():
    store = split_store()
    held = [serve(store, [number] * 10, 8, tick=number) for number in range(2)]
    for checkpoint in held:
        store.pin(checkpoint)
    assert serve(store, [5] * 10, 8, tick=5) is None, "both places for states are in use"
    assert located(store, [5] * 10).resident_kv_tokens == 8
    for checkpoint in held:
        store.unpin(checkpoint)
    assert serve(store, [6] * 10, 8, tick=6) is not None
