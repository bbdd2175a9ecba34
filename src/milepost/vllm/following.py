"""As long as stock vLLM's rule leads, vLLM keeps and evicts by itself, and the cache follows it.

All that stock vLLM would give a hash gets one, and blocks are taken in vLLM's own order, so what can be hit
is what stock vLLM could hit. *Extras*, the checkpoints that it would not have made, take blocks that held
nothing, and go first when blocks are needed. An extra becomes one of the others where a request has resumed
from it and shares nothing after it: there stock vLLM would have made that checkpoint by now.
"""

from collections.abc import Iterable, Sequence
from typing import Any, final

from milepost.hosted_cache import HostedCache
from milepost.store import Checkpoint
from milepost.vllm.pool import BlockMemory, PrefixBlocks

__all__ = ["Following"]

# How much each eviction says about the price, as where the learned rule leads.
_PRICE_WEIGHT = 0.05


@final
class Following:
    """Which blocks the checkpoints of a cache are in, and which of them vLLM may have taken.

    Args:
        cache: Whose checkpoints.
        memory: The pool.
    """

    def __init__(self, cache: HostedCache, memory: BlockMemory) -> None:
        self._cache = cache
        self._memory = memory
        self._kept: dict[bytes, Checkpoint] = {}
        self._extras: dict[bytes, Checkpoint] = {}
        self._at_risk: list[Checkpoint] = []
        #: What a unit of memory was worth that was evicted lately, in tokens saved by each request.
        self.price = 0.0

    def note_kept(self, checkpoint: Checkpoint, *, is_extra: bool) -> None:
        """Note a checkpoint that was promised."""
        prefix_hash = _blocks_of(checkpoint).prefix_hash
        self._kept[prefix_hash] = checkpoint
        if is_extra:
            self._extras[prefix_hash] = checkpoint

    def note_used(self, checkpoint: Checkpoint) -> None:
        """Note that stock vLLM would have ``checkpoint`` by now, which a lease holds."""
        self._extras.pop(_blocks_of(checkpoint).prefix_hash, None)

    def note_dropped(self, payloads: Iterable[Any]) -> None:
        """Note what has left the cache."""
        for payload in payloads:
            if isinstance(payload, PrefixBlocks):
                self._kept.pop(payload.prefix_hash, None)
                self._extras.pop(payload.prefix_hash, None)

    def make_room(self, num_blocks: int) -> None:
        """Have ``num_blocks`` clean blocks come next, as far as extras make them; and note what lies in the
        others, which vLLM is about to take.
        """
        for checkpoint in list(self._extras.values()):
            if self._memory.num_clean(num_blocks) >= num_blocks:
                return
            blocks = _blocks_of(checkpoint)
            with self._memory.deferred():
                if self._evict(checkpoint):
                    self._memory.doubt_state(blocks)
        self._at_risk += map(self._kept.__getitem__, self._prefixes_ahead(num_blocks))

    def catch_up(self) -> None:
        """Drop what vLLM has taken."""
        at_risk, self._at_risk = self._at_risk, []
        if not at_risk:
            return
        with self._memory.deferred():
            for checkpoint in at_risk:
                is_there = checkpoint.payload is not None
                if is_there and not self._memory.holds(_blocks_of(checkpoint)):
                    self._evict(checkpoint)

    def _evict(self, checkpoint: Checkpoint) -> bool:
        """Evict a checkpoint, unless something pins it, and note what that cost."""
        if not checkpoint.may_go:
            return False
        worth = self._cache.worth_per_byte(checkpoint)
        self.price += (worth - self.price) * (_PRICE_WEIGHT if self.price else 1.0)
        return self._cache.evict(checkpoint)

    def _prefixes_ahead(self, num_blocks: int) -> Sequence[bytes]:
        return [each for each in self._memory.prefixes_ahead(num_blocks) if each in self._kept]


def _blocks_of(checkpoint: Checkpoint) -> PrefixBlocks:
    assert isinstance(checkpoint.payload, PrefixBlocks)
    return checkpoint.payload
