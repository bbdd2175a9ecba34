"""As long as stock's rule leads, each prompt finds what stock vLLM finds, block by block."""

from random import Random

import pytest
from small_vllm import STATE_GROUPS, SmallVllm

from milepost.vllm.stock import stock_positions


class StockVllm(SmallVllm):
    """The same small vLLM, and nobody who plans: tail and junction are kept, all KV is hashed, and blocks go
    in the order of the queue.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.checkpoint_manager = _Nobody(self.layout)


class _Nobody:
    is_led_by_learning = False

    def __init__(self, layout):
        self._layout = layout
        self._stops = {}
        self._requests = {}

    def plan_request(self, name, hashes, num_tokens, *, hit, shared, **_):
        self._stops[name] = stock_positions(self._layout, num_tokens=num_tokens, resumed=hit, shared=shared)

    def next_stop(self, name, start, end):
        return next((at for at in self._stops[name] if start < at < end), end)

    def commit(self, name):
        return self._stops[name]

    def kv_limit(self, name):
        return 1 << 40

    def prepare_lookup(self):
        pass

    def use_free_time(self, num_blocks):
        pass

    def make_room(self, num_blocks):
        pass

    def on_step(self, name, num_computed):
        pass

    def finish(self, name):
        pass


def prompts(*, seed, num, longest):
    """Yield prompts about a few documents, some of them about a part of one."""
    random = Random(seed)
    documents = [[random.randrange(1000) for _ in range(longest)] for _ in range(4)]
    for _ in range(num):
        shared = random.choice([longest, random.randrange(1, longest)])
        yield [
            *random.choice(documents)[:shared],
            *(random.randrange(1000) for _ in range(random.randrange(40))),
        ]


@pytest.mark.parametrize("match", [16, 4])
def test_with_memory_to_spare_no_prompt_finds_less_than_by_stock_vllm(match):
    for seed in range(2):
        plugin = SmallVllm(num_blocks=3000, match=match, has_to_prove_itself=True)
        plugin.checkpoint_manager._cache.leader._rivals = None
        stock = StockVllm(num_blocks=3000, match=match)
        found = [
            (plugin.serve(prompt).hit, stock.serve(prompt).hit)
            for prompt in prompts(seed=seed, num=40, longest=400)
        ]
        assert sum(by_stock for _, by_stock in found) > 0
        assert [pair for pair in found if pair[0] < pair[1]] == []
        plugin.check()


@pytest.mark.parametrize("match", [16, 4])
@pytest.mark.parametrize("num_blocks", [40, 70, 140, 1000])
def test_where_no_extra_pays_the_blocks_are_the_same_and_in_the_same_order(num_blocks, match):
    options = {"num_blocks": num_blocks, "match": match, "stop_tokens": 100_000}
    plugin, stock = SmallVllm(has_to_prove_itself=True, **options), StockVllm(**options)
    plugin.checkpoint_manager._cache.leader._rivals = None
    for prompt in prompts(seed=9, num=60, longest=400):
        assert plugin.serve(prompt).hit == stock.serve(prompt).hit
        assert plugin.pool.keys == stock.pool.keys
        assert plugin.pool.free == stock.pool.free
    plugin.check()


def test_extras_go_first():
    plugin = SmallVllm(num_blocks=400, has_to_prove_itself=True)
    document = list(range(300))
    for last in range(6):
        plugin.serve([*document[:200], *range(1000 * last + 400, 1000 * last + 500)])
    extras = set(plugin.checkpoint_manager._cache.following._extras)
    assert extras
    checkpoints = plugin.checkpoint_manager.statistics().num_checkpoints
    plugin.checkpoint_manager.make_room(plugin.pool.num_clean(400) + 1)
    assert set(plugin.checkpoint_manager._cache.following._extras) < extras
    assert plugin.checkpoint_manager.statistics().num_checkpoints < checkpoints
    plugin.check()


def test_what_the_pool_has_taken_is_not_believed_in():
    plugin = SmallVllm(num_blocks=60, has_to_prove_itself=True)
    plugin.checkpoint_manager._cache.leader._rivals = None
    for prompt in prompts(seed=3, num=60, longest=400):
        plugin.serve(prompt)
    account = plugin.checkpoint_manager.statistics()
    assert account.num_evictions > 10
    states = {key for key in plugin.pool.wanted if key[1] in STATE_GROUPS}
    assert states
    assert states <= plugin.pool.found.keys()
    plugin.check()


def test_what_stocks_rule_evicts_has_a_price_too():
    plugin = SmallVllm(num_blocks=60, has_to_prove_itself=True)
    plugin.checkpoint_manager._cache.leader._rivals = None
    manager = plugin.checkpoint_manager
    assert manager.evicted_block_worth == 0
    for prompt in prompts(seed=3, num=60, longest=400):
        plugin.serve(prompt)
    assert manager.statistics().num_evictions > 10
    assert not manager.is_led_by_learning
    assert 0 < manager.evicted_block_worth < 400, "no request saves more than a prompt"


def test_where_the_learned_rule_takes_over_only_what_the_cache_keeps_is_found():
    plugin = SmallVllm(num_blocks=60, has_to_prove_itself=True)
    plugin.checkpoint_manager._cache.leader._rivals = None
    for prompt in prompts(seed=3, num=60, longest=400):
        plugin.serve(prompt)
    assert any(keys and not keys & plugin.pool.wanted for keys in plugin.pool.keys), "or nothing is shown"
    leader = plugin.checkpoint_manager._cache.leader
    leader.catch_up = lambda: not setattr(leader, "is_led_by_learning", True)
    plugin.serve(range(5000, 5100))
    plugin.check()
