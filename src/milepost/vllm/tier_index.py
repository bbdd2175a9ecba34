"""What a tier behind the pool holds, as checkpoints: a cache of its own, as of every slower tier.

vLLM's connector stores single chunks: the KV of every block of a prompt, and states where the plan keeps
some. A chunk alone is worth nothing: a state needs all KV before it, and KV is needed by the states after it.
So once a prompt is served, the checkpoints of it that are whole in the tier are committed here, by the same
policy and at the same price as those in the pool. What this cache drops, nobody needs any more.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

from milepost.hosted_cache import HostedCache
from milepost.placement import Placement
from milepost.policies import CachePolicy
from milepost.vllm.layout import PoolLayout
from milepost.vllm.pool import PrefixBlocks
from milepost.vllm.prompt_blocks import PromptBlocks, hash_keys

__all__ = ["ServedPrompt", "TierIndex", "make_key"]

# As in the pool: a hash for each unit is next to nothing beside what it stands for.
_HISTORY_PER_TIER = 10


@dataclass(frozen=True, slots=True)
class ServedPrompt:
    """A request that is done.

    Attributes:
        hashes: Block hashes of its prompt and its answer.
        num_tokens: Length of the prompt, as caches are told.
        breakpoints: Where its messages end.
    """

    hashes: Sequence[bytes]
    num_tokens: int
    breakpoints: Sequence[int] = ()


def make_key(prefix_hash: bytes, group: int) -> bytes:
    """Return what vLLM's connector calls the chunk of a group that ends with a prefix."""
    return prefix_hash + group.to_bytes(4, "big")


@final
class TierIndex:
    """See the module. To ``PromptBlocks`` it is a pool, which notes what the cache wants.

    Args:
        layout: How caches lie in the tier; its blocks are chunks.
        policy: Which checkpoint goes first; its own, since it learns.
        is_resident: Whether the tier has a chunk.
    """

    def __init__(
        self, layout: PoolLayout, *, policy: CachePolicy, is_resident: Callable[[bytes], bool]
    ) -> None:
        self._layout = layout
        self._is_resident = is_resident
        self._wanted: set[bytes] = set()
        self._dropped: list[bytes] = []
        self._cache = HostedCache(
            capacity_bytes=layout.capacity,
            footprint=layout.footprint,
            policy=policy,
            grid=layout.grid_tokens,
            segment_tokens=layout.block_tokens,
            key_tokens=layout.match_tokens,
            history_tokens=_HISTORY_PER_TIER * layout.capacity,
            on_drop=self._forget,
        )

    def note_served(self, served: ServedPrompt) -> None:
        """Take in what the tier has of a prompt, and learn from it. O(tokens)."""
        layout, match_tokens = self._layout, self._layout.match_tokens
        prompt = PromptBlocks(served.hashes, layout, self)
        whole = self._whole_checkpoints(prompt)
        keys = hash_keys(served.hashes, served.num_tokens, match_tokens)
        with self._cache.acquire(keys, num_tokens=served.num_tokens, breakpoints=served.breakpoints) as lease:
            new = [each for each in whole if lease.resume_position < each <= served.num_tokens]
            self._cache.commit(lease, Placement(tuple(new)), prompt)
            if whole and whole[-1] > served.num_tokens:
                # It exists anyway, and who asks on resumes there.
                answered = hash_keys(served.hashes, whole[-1], match_tokens)
                self._cache.extend(lease, answered, prompt, unasked=True)

    def wants(self, key: bytes) -> bool:
        """Return whether a chunk is part of a checkpoint that is kept."""
        return key in self._wanted

    def drop_least(self) -> bool:
        """Drop the checkpoint that is worth least; return whether there was one."""
        return self._cache.evict_least()

    def take_dropped(self) -> list[bytes]:
        """Return the chunks that nobody needs since the last call, those of states first."""
        dropped, self._dropped = self._dropped, []
        return [key for key in dropped if key not in self._wanted]

    def note_lost(self, key: bytes) -> None:
        """Note that the tier has lost a chunk. Which checkpoints need it is not known, so none is believed in
        until its prompt is served again; nor are the chunks of the others lost by that.
        """
        if key in self._wanted:
            self._cache.clear()

    def clear(self) -> None:
        """Forget all checkpoints; what was learned stays."""
        self._cache.clear()
        self._dropped.clear()

    def check(self) -> None:
        """Recompute what must hold: all that is wanted is there; raise ``CacheCorruptionError`` or
        ``AssertionError`` where it is not.
        """
        self._cache.check()
        assert all(map(self._is_resident, self._wanted)), "a checkpoint has lost a chunk"
        held = self._cache.statistics()
        assert len(self._wanted) * self._layout.block_tokens == held.checkpoint_bytes + held.kv_bytes

    def retain(self, blocks: PrefixBlocks) -> None:
        """Note that the cache keeps a state."""
        self._wanted.update(_keys(blocks))

    def retain_kv(self, prefix_hashes: Sequence[bytes]) -> None:
        """Note that the cache keeps the KV chunk at the end of each prefix."""
        self._wanted.update(self._kv_keys(prefix_hashes))

    def _whole_checkpoints(self, prompt: PromptBlocks) -> list[int]:
        """Return the positions of which the tier has every state, and all KV before, ascending."""
        layout, is_resident = self._layout, self._is_resident
        chunk, step = layout.block_tokens, layout.grid_tokens
        end = len(prompt.hashes) * layout.match_tokens
        num_whole = 0
        for prefix_hash in prompt.block_ends(0, end):
            if not all(map(is_resident, self._kv_keys((prefix_hash,)))):
                break
            num_whole += 1
        # A checkpoint inside the next chunk has a chunk of its own for the rest.
        limit = min(end, (num_whole + 1) * chunk - 1)
        return [
            position
            for position in range(step, limit + 1, step)
            if all(map(is_resident, _keys(prompt.blocks(position))))
        ]

    def _forget(self, dropped: Sequence[Any]) -> None:
        for payload in dropped:
            if isinstance(payload, PrefixBlocks):
                gone = _keys(payload)
            elif payload is not None:
                gone = self._kv_keys((payload,))
            else:
                continue
            self._wanted.difference_update(gone)
            self._dropped += gone

    def _kv_keys(self, prefix_hashes: Iterable[bytes]) -> list[bytes]:
        return [make_key(each, group) for each in prefix_hashes for group in self._layout.kv_groups]


def _keys(blocks: PrefixBlocks) -> list[bytes]:
    return [make_key(blocks.prefix_hash, group) for group in blocks.groups]
