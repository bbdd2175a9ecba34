"""Which checkpoint goes first: cells whose scales move, against a look at every checkpoint."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.store import Checkpoint, EvictionPolicy, PrefixStore, SeenPrompt, check_store
from milepost.store.eviction_order import EvictionOrder

NUM_CELLS = 3
STATE_BYTES = 10


class Scaled(EvictionPolicy):
    """Worth as it is told, by serial; remembers who was evicted and for what."""

    scales_version = 0

    def __init__(self) -> None:
        self.current = np.ones(NUM_CELLS)
        self.ranked: dict[int, tuple[int, float]] = {}
        self.evicted: list[tuple[int, float]] = []

    @property
    def scales(self):
        return self.current

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        return self.ranked[checkpoint.serial]

    def note_eviction(self, checkpoint: Checkpoint, worth: float) -> None:
        self.evicted.append((checkpoint.serial, worth))

    def rescale(self, scales) -> None:
        self.current = np.array(scales, float)
        self.scales_version += 1

    def worth(self, serial: int) -> float:
        cell, worth = self.ranked[serial]
        return worth * self.current[cell]


class State:
    num_bytes = STATE_BYTES


class Source:
    def checkpoint(self, position: int) -> State:
        return State()

    def kv_segments(self, start: int, end: int) -> tuple[None, ...]:
        return (None,) * ((end - start) // 4)


def new_store(policy: EvictionPolicy, *, num_states: int) -> PrefixStore:
    return PrefixStore(
        capacity_bytes=num_states * STATE_BYTES,
        segment_tokens=4,
        kv_bytes_per_token=0,
        is_stateless=False,
        eviction=policy,
        history_tokens=10_000,
    )


def put(store: PrefixStore, policy: Scaled, number: int, cell: int, worth: float) -> Checkpoint:
    """Store the state of a prompt of its own. Serials count the checkpoints in their order."""
    policy.ranked[number] = cell, worth
    keys = np.full(4, number, np.int32)
    path = store.remember(keys, tenant="", prompt=SeenPrompt(4)).path
    checkpoint = store.put(path, 4, source=Source(), tick=1)
    assert checkpoint.serial == number
    return checkpoint


cells = st.integers(0, NUM_CELLS - 1)
worths = st.sampled_from([0.5, 1.0, 2.0, 3.0, 8.0])
events = st.lists(
    st.one_of(
        st.tuples(st.just("put"), cells, worths),
        st.tuples(st.just("rank"), st.integers(0, 9), st.tuples(cells, worths)),
        st.tuples(st.just("change cell"), st.integers(0, 9), cells),
        st.tuples(st.just("scale"), st.tuples(*[st.sampled_from([0.25, 1.0, 4.0])] * NUM_CELLS)),
        st.tuples(st.just("pin"), st.integers(0, 9)),
        st.tuples(st.just("unpin"), st.integers(0, 9)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(events, st.integers(1, 5))
def test_the_victim_is_worth_least_of_all_at_the_scales_of_the_moment(sequence, num_states):
    policy = Scaled()
    store = new_store(policy, num_states=num_states)
    held: dict[int, Checkpoint] = {}
    for event, *arguments in sequence:
        if event == "scale":
            policy.rescale(*arguments)
            continue
        if event == "put":
            evictable = [serial for serial, checkpoint in held.items() if not checkpoint.num_pins]
            if len(held) == num_states and not evictable:
                continue
            number = len(policy.ranked)
            if len(held) == num_states:
                least = min(evictable, key=lambda serial: (policy.worth(serial), serial))
                held[number] = put(store, policy, number, *arguments)
                victim, worth = policy.evicted[-1]
                assert worth == policy.worth(victim) == policy.worth(least)
                cell_of = {serial: policy.ranked[serial][0] for serial in (victim, least)}
                assert victim == least or cell_of[victim] != cell_of[least], "ties go to the oldest"
                del held[victim]
            else:
                held[number] = put(store, policy, number, *arguments)
        elif arguments[0] in held:
            checkpoint = held[arguments[0]]
            if event == "rank":
                policy.ranked[arguments[0]] = arguments[1]
                store.queue.mark_stale(checkpoint)
            elif event == "change cell":
                policy.ranked[arguments[0]] = arguments[1], policy.ranked[arguments[0]][1]
                store.queue.mark_stale(checkpoint)
            elif event == "pin":
                store.pin(checkpoint)
            elif checkpoint.num_pins:
                store.unpin(checkpoint)
        check_store(store)
        assert {serial for serial, c in held.items() if c.is_stored} == held.keys()
        assert len(policy.evicted) == store.evictor.num_evictions


def test_scales_alone_turn_the_order_around():
    policy = Scaled()
    store = new_store(policy, num_states=2)
    put(store, policy, 0, 0, 1.0)
    put(store, policy, 1, 1, 2.0)
    policy.rescale([9.0, 1.0, 1.0])
    put(store, policy, 2, 2, 5.0)
    assert policy.evicted == [(1, 2.0)]
    policy.rescale([1.0, 1.0, 1.0])
    put(store, policy, 3, 2, 5.0)
    assert policy.evicted[1:] == [(0, 1.0)]


def test_the_same_worth_in_a_cell_of_another_scale_is_another_worth():
    policy = Scaled()
    store = new_store(policy, num_states=2)
    policy.rescale([1.0, 1.0, 4.0])
    put(store, policy, 0, 0, 1.0)
    second = put(store, policy, 1, 1, 2.0)
    put(store, policy, 2, 1, 3.0)
    assert policy.evicted == [(0, 1.0)]
    policy.ranked[1] = 2, 2.0
    store.queue.mark_stale(second)
    put(store, policy, 3, 0, 9.0)
    assert policy.evicted[1:] == [(2, 3.0)]


class Aging(Scaled):
    """What is in a cell loses worth as that cell ages, which no scale could say."""

    def __init__(self) -> None:
        super().__init__()
        self.age = np.zeros(NUM_CELLS)

    def worths(self, least):
        return least - self.age


def test_a_policy_may_say_itself_what_the_first_of_each_cell_is_worth():
    policy = Aging()
    store = new_store(policy, num_states=3)
    for number, (cell, worth) in enumerate([(0, 5.0), (0, 6.0), (1, 7.0)]):
        put(store, policy, number, cell, worth)
    policy.age[1] = 3.0
    put(store, policy, 3, 2, 5.5)
    assert policy.evicted == [(2, 4.0)], "at once, without a new version of the scales"
    policy.age[0] = 1.0
    put(store, policy, 4, 2, 9.0)
    put(store, policy, 5, 2, 9.0)
    assert policy.evicted[1:] == [(0, 4.0), (1, 5.0)]


def test_what_is_pinned_is_never_the_victim():
    policy = Scaled()
    store = new_store(policy, num_states=1)
    first = put(store, policy, 0, 0, 1.0)
    store.pin(first)
    keys = np.full(4, 9, np.int32)
    path = store.remember(keys, tenant="", prompt=SeenPrompt(4)).path
    assert store.put(path, 4, source=Source(), tick=2) is None
    assert policy.evicted == []
    store.unpin(first)
    put(store, policy, 1, 0, 100.0)
    assert policy.evicted == [(0, 1.0)]


# Prompts, which move with all that they answer for

NUM_PROMPT_CELLS, NUM_PROMPTS, NUM_CHECKPOINTS = 3, 3, 6


class ByPrompt(EvictionPolicy):
    """Ranks in the cell of the prompt, except for what has a cell of its own behind those."""

    num_prompt_cells = NUM_PROMPT_CELLS
    scales_version = 0

    def __init__(self) -> None:
        self.current = np.ones(NUM_PROMPT_CELLS + 2)
        self.prompt_cells: dict[SeenPrompt, int] = {}
        self.own_cells: dict[int, int] = {}
        self.worths_of: dict[int, float] = {}

    @property
    def scales(self):
        return self.current

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        serial = checkpoint.serial
        cell = self.own_cells.get(serial, self.prompt_cells[checkpoint.owner])
        return cell, self.worths_of[serial]


class NaiveOrder:
    """A rank for every checkpoint: all are looked at for the least, and those held are moved one by one."""

    def __init__(self, policy: ByPrompt) -> None:
        self.policy = policy
        self.ranks: dict[int, tuple[int, float]] = {}

    def move(self, prompt: SeenPrompt, cell: int) -> None:
        for serial in prompt.owned:
            if self.ranks.get(serial, (NUM_PROMPT_CELLS, 0.0))[0] < NUM_PROMPT_CELLS:
                self.ranks[serial] = cell, self.ranks[serial][1]

    def first(self) -> tuple[int, float] | None:
        scales = self.policy.current
        keys = [(worth * scales[cell], cell, worth, serial) for serial, (cell, worth) in self.ranks.items()]
        return (min(keys)[3], min(keys)[0]) if keys else None


order_events = st.lists(
    st.one_of(
        st.tuples(
            st.just("enter"),
            st.integers(0, NUM_CHECKPOINTS - 1),
            worths,
            st.none() | st.integers(NUM_PROMPT_CELLS, NUM_PROMPT_CELLS + 1),
        ),
        st.tuples(st.just("leave"), st.integers(0, NUM_CHECKPOINTS - 1)),
        st.tuples(st.just("hold"), st.integers(0, NUM_CHECKPOINTS - 1), st.integers(0, NUM_PROMPTS - 1)),
        st.tuples(st.just("move"), st.integers(0, NUM_PROMPTS - 1), st.integers(0, NUM_PROMPT_CELLS - 1)),
        st.tuples(st.just("scale"), st.integers(0, NUM_PROMPT_CELLS + 1), st.sampled_from([0.25, 1.0, 4.0])),
    ),
    max_size=60,
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(order_events)
def test_prompts_move_with_all_that_they_answer_for(sequence):
    policy = ByPrompt()
    order, naive = EvictionOrder(policy), NaiveOrder(policy)
    prompts = [SeenPrompt(9) for _ in range(NUM_PROMPTS)]
    policy.prompt_cells = dict.fromkeys(prompts, 0)
    checkpoints = [
        Checkpoint(node=None, position=1, payload=None, num_bytes=0, serial=serial, tick=0)
        for serial in range(NUM_CHECKPOINTS)
    ]
    for checkpoint in checkpoints:
        prompts[0].own(checkpoint)
    for event, number, *arguments in sequence:
        if event == "enter":
            policy.worths_of[number], cell = arguments
            policy.own_cells.pop(number, None)
            if cell is not None:
                policy.own_cells[number] = cell
            rank = policy.rank(checkpoints[number], 0)
            before = naive.ranks.get(number)
            naive.ranks[number] = rank
            assert order.enter(checkpoints[number], 0) or before == rank
            assert order.rank_of(checkpoints[number]) == rank
            assert not order.enter(checkpoints[number], 0)
        elif event == "leave":
            order.leave(checkpoints[number])
            naive.ranks.pop(number, None)
        elif event == "hold" and prompts[arguments[0]] is not checkpoints[number].owner:
            prompts[arguments[0]].own(checkpoints[number])
            order.detach(checkpoints[number])
        elif event == "move":
            policy.prompt_cells[prompts[number]] = arguments[0]
            order.move(prompts[number], arguments[0])
            naive.move(prompts[number], arguments[0])
        elif event == "scale":
            policy.current[number] = arguments[0]
            policy.scales_version += 1
        top = order.first()
        assert (None if top is None else (top[0].serial, top[1])) == naive.first()
        assert {c.serial for c in order.checkpoints()} == naive.ranks.keys()
    while (top := order.first()) is not None:
        assert (top[0].serial, top[1]) == naive.first()
        order.leave(top[0])
        del naive.ranks[top[0].serial]
    assert len(order) == 0
    assert not naive.ranks


def test_what_has_left_or_moved_does_not_pile_up():
    policy = ByPrompt()
    order = EvictionOrder(policy)
    prompts = [SeenPrompt(9) for _ in range(50)]
    for serial, prompt in enumerate(prompts):
        checkpoint = Checkpoint(node=None, position=1, payload=None, num_bytes=0, serial=serial, tick=0)
        prompt.own(checkpoint)
        policy.prompt_cells[prompt] = 0
        policy.worths_of[serial] = 1.0
        order.enter(checkpoint, 0)
    for turn in range(1, 101):
        for prompt in prompts:
            order.move(prompt, turn % NUM_PROMPT_CELLS)
    assert sum(len(heap) for heap in order._heaps) < 1000
