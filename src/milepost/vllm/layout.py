"""How a model's caches lie in vLLM's block pool."""

from collections.abc import Sequence
from dataclasses import dataclass

from milepost.footprint import Footprint

__all__ = ["PoolLayout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLayout:
    """One pool of equal blocks, which all cache groups of the model share.

    Memory is counted in units of which ``block_tokens`` make up one pool block, so that a token of KV weighs
    a whole number of them.

    Attributes:
        num_blocks: Blocks that can be allocated.
        block_tokens: Tokens whose KV fits one block of one attention group.
        match_tokens: Tokens of one block hash; less than a block with ``--prefix-match-unit``.
        kv_groups: The attention groups; each takes one block for every ``block_tokens`` tokens.
        state_groups: The recurrent groups; each takes one block for a state.
        hits_inside: Whether vLLM can resume inside a block, at the end of any block hash.
        scratch_blocks: Blocks that a request with drafts holds beside its running state, in all state groups.
        lookahead_tokens: Tokens after a block that its hash covers too: those that a drafter has read.
        rest_tokens: Fewest tokens of a prompt after its last state: one, to sample from, or as many as a
            drafter reads ahead.
        export_tokens: Where the model exports the state at a prompt's tail from inside its last chunk: at
            multiples of this many tokens after that has begun. None where a chunk has to end there.
    """

    num_blocks: int
    block_tokens: int
    match_tokens: int
    kv_groups: tuple[int, ...]
    state_groups: tuple[int, ...]
    hits_inside: bool = True
    scratch_blocks: int = 0
    lookahead_tokens: int = 0
    rest_tokens: int = 1
    export_tokens: int | None = None

    @property
    def grid_tokens(self) -> int:
        """Checkpoints sit at multiples of this many tokens."""
        return self.match_tokens if self.hits_inside else self.block_tokens

    @property
    def footprint(self) -> Footprint:
        """What a checkpoint and a token of KV take, in units."""
        return Footprint(
            checkpoint_bytes=len(self.state_groups) * self.block_tokens,
            kv_bytes_per_token=len(self.kv_groups),
        )

    @property
    def capacity(self) -> int:
        """All blocks, in units."""
        return self.num_blocks * self.block_tokens

    @property
    def running_blocks(self) -> int:
        """Blocks of a request's running state, with those that its drafts need."""
        return len(self.state_groups) + self.scratch_blocks

    def hashed_tokens(self, num_tokens: int) -> int:
        """Return how many of ``num_tokens`` tokens have a hash."""
        return max(0, num_tokens - self.lookahead_tokens) // self.match_tokens * self.match_tokens

    def blocks_of_state(self, position: int) -> int:
        """Return the blocks that a checkpoint takes beside the KV blocks before it: inside a block, the KV of
        the rest as well.
        """
        inside = position % self.block_tokens != 0
        return len(self.state_groups) + (len(self.kv_groups) if inside else 0)

    def blocks_of_plan(self, positions: Sequence[int], num_new_tokens: int) -> int:
        """Return the blocks that checkpoints at ``positions`` take, with the KV of ``num_new_tokens``."""
        return self.blocks_of_kv(num_new_tokens) + sum(map(self.blocks_of_state, positions))

    def blocks_of_kv(self, num_tokens: int) -> int:
        """Return the blocks that the KV of ``num_tokens`` takes."""
        return len(self.kv_groups) * -(-num_tokens // self.block_tokens)
