"""A small vLLM: a pool of blocks with a hash map and a queue of free ones, and requests that go through it.

It keeps vLLM's law: new blocks come from the head of the queue and lose their hashes; freed ones go to its
end, or to its head if nothing can be found in them; a state is hashed where a chunk ends at a stop, and KV up
to a limit.
"""

import hashlib
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile

from milepost.policies import parse_policy
from milepost.vllm.checkpoint_manager import CheckpointManager
from milepost.vllm.layout import PoolLayout
from milepost.vllm.options import Options

STATE_GROUPS, KV_GROUPS = (0, 1, 2), (3,)


class Pool:
    """See ``milepost.vllm.pool.BlockMemory``."""

    def __init__(self, num_blocks):
        self.keys = [set() for _ in range(num_blocks)]
        self.found = {}
        self.free = deque(range(num_blocks))
        self.references = [0] * num_blocks
        self.wanted = set()
        self.doubtful = []

    def take(self, num):
        taken = [self.free.popleft() for _ in range(num)]
        for block in taken:
            self.wipe(block)
            self.references[block] = 1
        return taken

    def touch(self, blocks):
        for block in blocks:
            if self.references[block] == 0:
                self.free.remove(block)
            self.references[block] += 1

    def release(self, blocks):
        for block in blocks:
            self.references[block] -= 1
            if self.references[block] == 0 and self.keys[block]:
                self.free.append(block)
            elif self.references[block] == 0:
                self.free.appendleft(block)

    def hash(self, block, key):
        if key not in self.found:
            self.found[key] = block
            self.keys[block].add(key)

    def wipe(self, block):
        for key in self.keys[block]:
            del self.found[key]
        self.keys[block] = set()

    def lose(self, prefix_hash):
        """Let vLLM take the blocks of a prefix by itself."""
        for group in (*STATE_GROUPS, *KV_GROUPS):
            if (prefix_hash, group) in self.found:
                self.wipe(self.found[prefix_hash, group])

    def num_clean(self, limit):
        count = 0
        for block in self.free:
            if count == limit or self.keys[block]:
                break
            count += 1
        return count

    def retain(self, blocks):
        self.wanted.update((blocks.prefix_hash, group) for group in blocks.groups)

    def wants(self, blocks):
        return all((blocks.prefix_hash, group) in self.wanted for group in blocks.groups)

    def retain_kv(self, prefix_hashes):
        self.wanted.update((each, group) for each in prefix_hashes for group in KV_GROUPS)

    def forget(self, dropped):
        for blocks in dropped:
            is_kv = isinstance(blocks, bytes)
            prefix_hash, groups = (blocks, KV_GROUPS) if is_kv else blocks[:2]
            for key in ((prefix_hash, group) for group in groups):
                self.wanted.discard(key)
                self.doubtful.append(key)

    def leave(self, dropped):
        for blocks in dropped:
            is_kv = isinstance(blocks, bytes)
            prefix_hash, groups = (blocks, KV_GROUPS) if is_kv else blocks[:2]
            self.wanted.difference_update((prefix_hash, group) for group in groups)

    def doubt_state(self, blocks):
        self.doubtful += [(blocks.prefix_hash, group) for group in STATE_GROUPS]

    def doubt_everything(self):
        self.doubtful += list(self.found)

    def prefixes_ahead(self, num_blocks):
        ahead = list(self.free)[:num_blocks]
        return [prefix_hash for block in ahead for prefix_hash, _ in self.keys[block]]

    def doubt_kv(self, prefix_hashes):
        self.doubtful += [(prefix_hash, group) for prefix_hash in prefix_hashes for group in KV_GROUPS]

    @contextmanager
    def deferred(self):
        try:
            yield
        finally:
            self._clean()

    def _clean(self):
        for key in self.doubtful:
            block = self.found.get(key)
            if block is None or not self.wanted.isdisjoint(self.keys[block]):
                continue
            self.wipe(block)
            if self.references[block] == 0:
                self.free.remove(block)
                self.free.appendleft(block)
        self.doubtful.clear()

    def holds(self, blocks):
        return all((blocks.prefix_hash, group) in self.found for group in blocks.groups)

    def holds_kv(self, prefix_hash):
        return all((prefix_hash, group) in self.found for group in KV_GROUPS)


@dataclass(eq=False)
class Running:
    """One request; ``kv`` and ``state`` are its blocks, ``computed`` how far it has come, ``hashed`` how many
    tokens before it have KV blocks that were given their hashes.
    """

    name: str
    tokens: list
    hashes: list
    may_hit: bool = True
    breakpoints: tuple = ()
    computed: int = 0
    hashed: int = 0
    hit: int = 0
    overlap: int = 0
    shared: int = 0
    is_admitted: bool = False
    kv: list = field(default_factory=list)
    state: list = field(default_factory=list)
    ends: list = field(default_factory=list)


class SmallVllm:
    """See the module. The model computes, and the cache catches up, after each batch of so many chunks;
    with 0, it does so at once, before a block is given a hash. The learned rule leads from the start unless
    it has to prove itself.
    """

    def __init__(
        self,
        num_blocks=200,
        *,
        block=16,
        match=16,
        chunk=64,
        policy="learned",
        stop_tokens=0,
        batch=1,
        has_to_prove_itself=False,
        **options,
    ):
        self.pool = Pool(num_blocks)
        self.layout = PoolLayout(
            num_blocks=num_blocks,
            block_tokens=block,
            match_tokens=match,
            kv_groups=KV_GROUPS,
            state_groups=STATE_GROUPS,
        )
        self.checkpoint_manager = CheckpointManager(
            layout=self.layout,
            memory=self.pool,
            policy=parse_policy(policy),
            options=Options(stop_tokens=stop_tokens, **options),
        )
        if not has_to_prove_itself:
            (
                self.checkpoint_manager._cache.leader.is_led_by_learning,
                self.checkpoint_manager._cache.leader._rivals,
            ) = True, None
        self.chunk = chunk
        self.batch = batch
        self.num_chunks = 0
        self.num_asked = 0

    def ask(self, tokens, **options) -> Running:
        """Let a request wait."""
        self.num_asked += 1
        return Running(f"r{self.num_asked}", list(tokens), self.hashes(tokens), **options)

    def hashes(self, tokens):
        step = self.layout.match_tokens
        ends = range(step, len(tokens) + 1, step)
        return [hashlib.sha256(repr(list(tokens[:end])).encode()).digest() for end in ends]

    def plan_request(self, request):
        """Return how many tokens can be found for it, and tell the manager."""
        self.checkpoint_manager.prepare_lookup()
        hit = self._hit(request) if request.may_hit else 0
        request.hit, request.shared = hit, self._shared(request) if request.may_hit else 0
        self.checkpoint_manager.plan_request(
            request.name,
            request.hashes,
            len(request.tokens),
            hit=hit,
            shared=request.shared if request.shared > hit else 0,
            may_hit=request.may_hit,
            breakpoints=request.breakpoints,
        )
        state = self.checkpoint_manager._requests.get(request.name)
        request.overlap = 0 if state is None else state.lease.request.overlap_depth
        return hit

    def step(self, request) -> bool:
        """Compute the next chunk of ``request``, admitting it first; False where there is no room."""
        if not request.is_admitted:
            self.plan_request(request)
        start = request.computed if request.is_admitted else request.hit
        end = min(start + self.chunk, len(request.tokens))
        end = self.checkpoint_manager.next_stop(request.name, start, end)
        assert start < end <= len(request.tokens)
        hit_blocks = [] if request.is_admitted else self._hit_blocks(request)
        held = len(request.kv) if request.is_admitted else -(-start // self.layout.block_tokens)
        num_kv = -(-end // self.layout.block_tokens) - held
        needed = num_kv + len(STATE_GROUPS)
        evictable = sum(self.pool.references[block] == 0 for block in set(hit_blocks))
        if len(self.pool.free) - evictable < needed:
            return False
        if not request.is_admitted:
            self.pool.touch(hit_blocks)
            request.kv, request.is_admitted, request.computed = hit_blocks, True, start
            request.hashed = start // self.layout.block_tokens * self.layout.block_tokens
        self.checkpoint_manager.make_room(needed)
        request.kv += self.pool.take(num_kv)
        previous, request.state = request.state, self.pool.take(len(STATE_GROUPS))
        self._hash(request, end)
        self.pool.release(previous)
        request.computed = end
        request.ends.append(end)
        self.checkpoint_manager.on_step(request.name, end)
        self.num_chunks += 1
        if self.batch == 0 or self.num_chunks % self.batch == 0:
            self.checkpoint_manager.use_free_time(0)
        return True

    def finish(self, request):
        """Free its blocks: it is answered or aborted."""
        self._free(request)
        self.checkpoint_manager.finish(request.name)

    def preempt(self, request):
        """Free its blocks; it waits again."""
        self._free(request)
        request.kv, request.state, request.is_admitted, request.computed = [], [], False, 0

    def serve(self, tokens, **options) -> Running:
        """Ask, compute, finish."""
        request = self.ask(tokens, **options)
        while request.computed < len(request.tokens):
            assert self.step(request)
        self.finish(request)
        return request

    def check(self, *, is_idle=True):
        """What must hold whenever; and more where nothing runs."""
        self.checkpoint_manager.catch_up()
        self.checkpoint_manager.check()
        account, pool = self.checkpoint_manager.statistics(), self.pool
        for request in self.checkpoint_manager._requests.values():
            assert list(request.stops) == sorted(request.stops), "a prefill comes to them in this order"
        assert len(pool.wanted) * self.layout.block_tokens == account.checkpoint_bytes + account.kv_bytes
        for keys in pool.keys if self.checkpoint_manager.is_led_by_learning else ():
            assert not keys or keys & pool.wanted, "a block nobody wants can be found"
        if is_idle:
            assert self.checkpoint_manager.num_open == 0
            assert sorted(pool.free) == list(range(len(pool.keys)))
            is_found = [bool(pool.keys[block]) for block in pool.free]
            assert is_found == sorted(is_found), "a clean block lies behind one that can be found"

    def kept(self, tokens) -> list:
        """Return the positions of a prompt whose states can be found."""
        step = self.layout.match_tokens
        hashes = enumerate(self.hashes(tokens), 1)
        return [
            i * step for i, each in hashes if all((each, group) in self.pool.found for group in STATE_GROUPS)
        ]

    def _hit(self, request) -> int:
        step, block = self.layout.match_tokens, self.layout.block_tokens
        for end in range((len(request.tokens) - 1) // step * step, 0, -step):
            needed = [(request.hashes[end // step - 1], group) for group in STATE_GROUPS]
            needed += [(request.hashes[at // step - 1], 3) for at in range(block, end + 1, block)]
            needed += [(request.hashes[end // step - 1], 3)]
            if all(key in self.pool.found for key in needed):
                return end
        return 0

    def _shared(self, request) -> int:
        """Return up to where there is KV of the prompt, in whole blocks."""
        step, block = self.layout.match_tokens, self.layout.block_tokens
        ends = range(block, len(request.hashes) * step + 1, block)
        held = takewhile(lambda end: (request.hashes[end // step - 1], 3) in self.pool.found, ends)
        return max(held, default=0)

    def _hit_blocks(self, request) -> list:
        step, block = self.layout.match_tokens, self.layout.block_tokens
        ends = [*range(block, request.hit + 1, block)]
        if request.hit % block:
            ends.append(request.hit)
        return [self.pool.found[request.hashes[end // step - 1], 3] for end in ends]

    def _hash(self, request, end):
        step, block = self.layout.match_tokens, self.layout.block_tokens
        stops = self.checkpoint_manager.commit(request.name)
        if self.batch == 0:
            self.checkpoint_manager.catch_up()
            stops = self.checkpoint_manager.commit(request.name)
        if end in stops:
            for group, state in zip(STATE_GROUPS, request.state, strict=True):
                self.pool.hash(state, (request.hashes[end // step - 1], group))
        limit = min(end, self.checkpoint_manager.kv_limit(request.name))
        for at in range(request.hashed + block, limit + 1, block):
            self.pool.hash(request.kv[at // block - 1], (request.hashes[at // step - 1], 3))
            request.hashed = at
        for stop in stops:
            if stop % block and stop <= end:
                self.pool.hash(request.kv[stop // block], (request.hashes[stop // step - 1], 3))

    def _free(self, request):
        self.pool.release([*reversed(request.kv), *request.state])
