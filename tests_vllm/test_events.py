"""KV events tell of attention blocks just as long as a request can resume from them."""

import random
from collections import Counter

import msgspec
import pytest
from bare_scheduler import BareEngine
from vllm.config import KVEventsConfig
from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved, KVEventBatch
from vllm.v1.core.kv_cache_utils import make_block_hash_with_group_id, maybe_convert_block_hash

PLANNED = "milepost.vllm.Scheduler"
STATES, ATTENTION = (0, 1, 2), 3


class Subscriber:
    """Counts what was published, and builds an index of attention blocks as routers do. Where it is
    ``exact``, no block is announced or taken back twice.
    """

    def __init__(self, *, exact, attention=ATTENTION):
        self.exact, self.attention = exact, attention
        self.kinds, self.blocks, self.groups = Counter(), set(), set()

    def publish(self, batch):
        # As it comes over the wire.
        batch = msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=KVEventBatch)
        for event in batch.events:
            self.kinds[type(event).__name__, getattr(event, "kv_cache_spec_kind", None)] += 1
            if isinstance(event, AllBlocksCleared):
                self.blocks.clear()
                continue
            self.groups.add(event.group_idx)
            if event.group_idx != self.attention:
                continue
            if isinstance(event, BlockRemoved):
                assert not self.exact or self.blocks.issuperset(event.block_hashes)
                self.blocks.difference_update(event.block_hashes)
            else:
                assert event.kv_cache_spec_kind == "full_attention"
                assert len(event.token_ids) == event.block_size * len(event.block_hashes)
                assert not self.exact or self.blocks.isdisjoint(event.block_hashes)
                self.blocks.update(event.block_hashes)

    def shutdown(self):
        pass


def engine_with_events(model_folder, **options):
    options = {"num_blocks": 120, "bitmask": "always", "scheduler_cls": PLANNED} | options
    engine = BareEngine(
        model_folder("qwen3-next"),
        kv_events_config=KVEventsConfig(enable_kv_cache_events=True, publisher="null"),
        **options,
    )
    subscriber = Subscriber(exact=engine.scheduler.resumable_events is not None)
    if engine.scheduler.resumable_events is None:
        engine.scheduler.kv_event_publisher = subscriber
    else:
        engine.scheduler.resumable_events.inner = subscriber
    return engine, subscriber


def held(engine, prefix_hash, groups):
    find = engine.scheduler.kv_cache_manager.block_pool.cached_block_hash_to_block.get_one_block
    return all(find(make_block_hash_with_group_id(prefix_hash, group)) is not None for group in groups)


def found_by_looking(engine, hashes_of_prompts, *, units_per_block):
    """Return the prefixes whose attention block lies at or before a place that can be resumed from."""
    useful = set()
    for hashes in hashes_of_prompts:
        ends = hashes[units_per_block - 1 :: units_per_block]
        num_live = next((i for i, end in enumerate(ends) if not held(engine, end, [ATTENTION])), len(ends))
        for at in range(1, len(hashes) + 1):
            num_blocks = at // units_per_block
            inside = [hashes[at - 1]] if at % units_per_block else []
            if num_blocks <= num_live and held(engine, hashes[at - 1], [*STATES, *[ATTENTION] * len(inside)]):
                useful.update(map(maybe_convert_block_hash, [*ends[:num_blocks], *inside]))
    return useful


def prompts(rng, *, longest):
    documents = [[rng.randrange(1000) for _ in range(longest)] for _ in range(6)]
    while True:
        shared = rng.choice(documents)[: rng.choice([longest, rng.randrange(longest)])]
        yield shared + [rng.randrange(1000) for _ in range(rng.choice([5, 64, 300]))]


def while_served(engine, *, block, unit):
    """Serve prompts, with a reset on the way; yield what can be resumed from at each."""
    rng = random.Random(1)
    traffic, hashes_of_prompts = prompts(rng, longest=10 * block), []
    for number in range(30):
        if number == 20:
            engine.run()
            assert engine.scheduler.reset_prefix_cache()
        request_id = engine.add(next(traffic), max_tokens=rng.choice([1, 2, 80]))
        # They grow with the answer.
        hashes_of_prompts.append(engine.scheduler.requests[request_id].block_hashes)
        for _ in range(rng.choice([1, 2, 6])):
            engine.step()
        yield found_by_looking(engine, hashes_of_prompts, units_per_block=block // unit)


@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
@pytest.mark.parametrize("leads", [False, True], ids=["stock leads", "learning leads"])
def test_the_index_of_a_router_holds_what_can_be_resumed_from(model_folder, unit, leads):
    block = 256 if unit else 64
    engine, subscriber = engine_with_events(model_folder, block_size=block, prefix_match_unit=unit)
    engine.scheduler.checkpoint_manager._cache.leader.is_led_by_learning = leads
    num_announced = 0
    for expected in while_served(engine, block=block, unit=unit or block):
        assert subscriber.blocks == expected
        num_announced += len(expected)
    assert num_announced > 30
    assert subscriber.kinds["BlockStored", "mamba"] > 30
    assert subscriber.kinds["AllBlocksCleared", None] == 1
    publisher = engine.scheduler.resumable_events
    engine.run()
    assert engine.scheduler.reset_prefix_cache()
    engine.add([1, 2, 3])
    engine.run()
    assert (len(publisher._prefixes), publisher._sources, publisher._block_starts) == (0, {}, {})


def test_without_events_nothing_is_kept_of_them(model_folder):
    engine = BareEngine(model_folder("qwen3-next"), scheduler_cls=PLANNED)
    engine.add(list(range(300)))
    engine.run()
    assert engine.scheduler.resumable_events is None


def test_as_vllm_publishes_them_they_promise_what_cannot_be_resumed(model_folder):
    """The control, and the switch: the same index then holds more than can be resumed from."""
    options = {"milepost": {"stop_tokens": 4, "resumable_events": False}}
    engine, subscriber = engine_with_events(model_folder, additional_config=options)
    assert engine.scheduler.resumable_events is None
    beyond = [len(subscriber.blocks - expected) for expected in while_served(engine, block=64, unit=64)]
    assert sum(beyond) > 30


def test_what_is_reported_again_on_request_passes_and_changes_nothing(model_folder):
    engine, subscriber = engine_with_events(model_folder)
    for _ in range(2):
        engine.add(list(range(640)))
        engine.run()
    before = set(subscriber.blocks)
    num_told = sum(subscriber.kinds.values())
    # Told again, these would count as announced twice.
    subscriber.blocks = set()
    engine.add(list(range(640)), extra_args={"kv_cache_report_mode": "full"})
    engine.run()
    assert subscriber.blocks
    assert subscriber.blocks <= before
    assert sum(subscriber.kinds.values()) > num_told
    subscriber.blocks = before
    assert engine.scheduler.reset_prefix_cache()
    engine.add([1, 2, 3])
    engine.run()
    assert not subscriber.blocks


def test_where_states_are_not_wanted_attention_is_told_of_all_the_same(model_folder):
    options = {"milepost": {"stop_tokens": 4, "state_events": False}}
    engine, subscriber = engine_with_events(model_folder, additional_config=options)
    # Some routers follow group 0 alone.
    subscriber.attention, num_announced = 0, 0
    for expected in while_served(engine, block=64, unit=64):
        assert subscriber.blocks == expected
        num_announced += len(expected)
    assert num_announced > 30
    assert {kind for name, kind in subscriber.kinds if name == "BlockStored"} == {"full_attention"}
    assert subscriber.groups == {0}
