"""No request ranks all that is stored, whatever has changed; and the victim is the right one all the same."""

import numpy as np
import pytest

from milepost.store import Checkpoint, EvictionPolicy, PrefixStore, SeenPrompt, check_store
from milepost.store.eviction_policy import Reranking

STATE_BYTES = 10
MANY = 2000


class Counting(EvictionPolicy):
    """The least recently used goes first; counts how often it is asked, and has all ranked anew on demand."""

    weighs_neighbours = True

    def __init__(self) -> None:
        self.ranked: list[int] = []
        self.everything = False

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        self.ranked.append(checkpoint.serial)
        return 0, checkpoint.last_used

    def note_request(self, inserted) -> Reranking:
        return Reranking(everything=self.everything)

    def num_ranked(self) -> int:
        """Return how often it was asked since the last time."""
        count = len(self.ranked)
        self.ranked.clear()
        return count


class State:
    num_bytes = STATE_BYTES


class Source:
    def checkpoint(self, position: int) -> State:
        return State()

    def kv_segments(self, start: int, end: int) -> list[None]:
        return [None] * ((end - start) // 4)


def new_store(policy: EvictionPolicy, *, num_states: int) -> PrefixStore:
    return PrefixStore(
        capacity_bytes=num_states * STATE_BYTES,
        segment_tokens=4,
        kv_bytes_per_token=0,
        is_stateless=False,
        eviction=policy,
        history_tokens=1_000_000,
        state_bytes=STATE_BYTES,
    )


def remember(store: PrefixStore, *tokens: int):
    keys = np.array(tokens, np.int32)
    return store.remember(keys, tenant="", prompt=SeenPrompt(keys.size)).path


def put(store: PrefixStore, *tokens: int, tick: int = 1) -> Checkpoint:
    """Store a state at the end of a prompt."""
    checkpoint = store.put(remember(store, *tokens), len(tokens), source=Source(), tick=tick)
    assert checkpoint is not None
    return checkpoint


def test_while_there_is_room_nothing_is_ranked():
    policy = Counting()
    store = new_store(policy, num_states=2 * MANY)
    for number in range(MANY):
        put(store, number, 0, 0, 0, tick=number)
    assert policy.num_ranked() == 0


def test_as_memory_runs_short_those_that_wait_are_ranked_a_few_with_each_request():
    policy = Counting()
    store = new_store(policy, num_states=MANY)
    for number in range(MANY):
        put(store, number, 0, 0, 0, tick=number)
    assert 0 < policy.num_ranked() < MANY
    policy.everything = True
    remember(store, MANY, 0, 0, 0)
    assert policy.num_ranked() < MANY / 10
    policy.everything = False
    for number in range(MANY):
        remember(store, MANY + number, 1, 1, 1)
    assert MANY / 2 < policy.num_ranked() <= MANY, "each once"
    check_store(store)
    first = store.queue.victim()[0]
    assert first.last_used == 0
    assert policy.num_ranked() < MANY / 2, "so the first eviction has little left to rank"


@pytest.mark.parametrize(("num_siblings", "are_ranked_again"), [(3, True), (200, False)])
def test_one_more_among_many_siblings_has_not_all_of_them_ranked_again(num_siblings, are_ranked_again):
    policy = Counting()
    store = new_store(policy, num_states=MANY)
    shared = put(store, 0, 0, 0, 0)
    siblings = [put(store, 0, 0, 0, 0, number, 1, 1, 1, tick=number) for number in range(num_siblings)]
    assert len(shared.below) == num_siblings
    store.queue.victim()
    policy.num_ranked()
    put(store, 0, 0, 0, 0, num_siblings, 1, 1, 1, tick=MANY)
    victim, _ = store.queue.victim()
    assert victim is siblings[0]
    again = set(policy.ranked) - {victim.serial}
    assert ({each.serial for each in siblings[1:]} <= again) == are_ranked_again
    assert len(again) <= 8
    assert shared.serial in again


class WorthOne(Counting):
    """Each byte is worth one."""

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        return 0, 1.0


@pytest.mark.parametrize(
    ("num_bytes", "worth"), [(0, 0.0), (4, 7.0), (STATE_BYTES, 10.0), (13, 16.5), (2 * STATE_BYTES, 20.0)]
)
def test_half_of_what_a_victim_frees_beyond_what_is_wanted_counts_as_lost(num_bytes, worth):
    store = new_store(WorthOne(), num_states=3)
    for number in range(3):
        put(store, number, 0, 0, 0, tick=number)
    assert store.evictor.room_worth(num_bytes) == pytest.approx(worth)
    assert store.checkpoints.count == 3, "nothing was evicted"
