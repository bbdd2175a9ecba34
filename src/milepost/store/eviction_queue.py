"""Which checkpoint goes next: those that may be evicted in order, those that leases pin, and those to rank.

A checkpoint whose circumstances have changed is only marked; it is ranked when somebody asks for a victim,
or a few with each request once memory runs short, so that no request pays for all of them. And what comes to
the top is ranked again first, so what became worth more in the meantime need not even be marked. Nothing here
depends on how many checkpoints are stored, but for the logarithm of the heaps.
"""

from collections.abc import Sequence, Set
from itertools import islice
from typing import final

from milepost.store.checkpoint import Checkpoint
from milepost.store.eviction_order import EvictionOrder
from milepost.store.eviction_policy import EvictionPolicy, Reranking
from milepost.store.neighbours import exclusive_kv_tokens
from milepost.store.seen import SeenPrompt

__all__ = ["EvictionQueue"]

# Where more than this many wait to be ranked, a few are with each request: a request marks about a dozen.
_MOST_MARKED = 512
_MOST_RANKED_AHEAD = 64
# What a large victim frees beyond what is wanted is used by others, or lies idle until the victim would have
# been asked for. Counted as lost in full, it has chats refused whose state is all they ask for; not at all,
# any short prompt throws a long one out. A plan of everything at once would know.
_SHARE_LOST_BEYOND = 0.5


@final
class EvictionQueue:
    """See the module.

    Args:
        policy: Ranks the checkpoints.
        kv_bytes_per_token: Of what an eviction frees beside the state.
    """

    def __init__(self, policy: EvictionPolicy, *, kv_bytes_per_token: int) -> None:
        self.policy = policy
        self._kv_bytes_per_token = kv_bytes_per_token
        self._order = EvictionOrder(policy)
        # By serial: marked to be ranked before the next eviction, and pinned.
        self._stale: dict[int, Checkpoint] = {}
        self._pinned: dict[int, Checkpoint] = {}
        # As a list, since they are looked up one at a time.
        self._scales_version, self._scales = policy.scales_version, policy.scales.tolist()

    def __bool__(self) -> bool:
        """Whether there is anything that may be evicted."""
        return bool(self._stale) or len(self._order) > 0

    def __contains__(self, checkpoint: Checkpoint) -> bool:
        """Whether ``checkpoint`` may be evicted."""
        return checkpoint in self._order or checkpoint.serial in self._stale

    def __len__(self) -> int:
        return len(self._order) + sum(each not in self._order for each in self._stale.values())

    @property
    def pinned(self) -> Sequence[Checkpoint]:
        """What leases pin."""
        return list(self._pinned.values())

    def checkpoints(self) -> list[Checkpoint]:
        """Return all that may be evicted. O(n)."""
        return [*self._order.checkpoints(), *(c for c in self._stale.values() if c not in self._order)]

    def pin(self, checkpoint: Checkpoint) -> None:
        """Protect ``checkpoint`` and its KV from eviction until as many :meth:`unpin` calls."""
        if checkpoint.num_pins == 0:
            self.remove(checkpoint)
            self._pinned[checkpoint.serial] = checkpoint
        checkpoint.num_pins += 1

    def unpin(self, checkpoint: Checkpoint) -> bool:
        """Undo one :meth:`pin`; return whether that was the last."""
        checkpoint.num_pins -= 1
        if checkpoint.num_pins:
            return False
        del self._pinned[checkpoint.serial]
        self._stale[checkpoint.serial] = checkpoint
        return True

    def mark_stale(self, checkpoint: Checkpoint) -> None:
        """Have ``checkpoint`` ranked again before the next eviction: its circumstances have changed. O(1)
        now, O(log n) then.
        """
        if checkpoint.may_go:
            self._stale[checkpoint.serial] = checkpoint

    def rank_ahead(self) -> None:
        """Rank a few of those marked, the longest marked first, where many are. O(log n) each."""
        if len(self._stale) <= _MOST_MARKED:
            return
        for checkpoint in list(islice(self._stale.values(), _MOST_RANKED_AHEAD)):
            del self._stale[checkpoint.serial]
            self._rank(checkpoint)

    def remove(self, checkpoint: Checkpoint) -> None:
        """Take ``checkpoint`` from those that may be evicted."""
        self._stale.pop(checkpoint.serial, None)
        self._order.leave(checkpoint)

    def note_new_owner(self, prompt: SeenPrompt) -> None:
        """Keep what ``prompt`` has come to own where it ranks, until it is ranked again or moved."""
        for checkpoint in prompt.owned.values():
            self._order.detach(checkpoint)

    def note_restored(self, prompt: SeenPrompt) -> None:
        """Tell the policy of a prompt that is no request, and keep what it owns where that ranks."""
        self.note_new_owner(prompt)
        self.policy.note_restored(prompt)

    def rerank(self, reranking: Reranking) -> None:
        """Move what prompts own to other cells, at its worth, and mark what is to be ranked again."""
        for prompt, cell in reranking.moved:
            self._order.move(prompt, cell)
        for checkpoint in self.checkpoints() if reranking.everything else reranking.changed:
            self.mark_stale(checkpoint)

    def victim(self, cell: int | None = None) -> tuple[Checkpoint, float]:
        """Return the checkpoint that is worth least, and what it is worth; of one ``cell``, if that has any.
        There has to be one.
        """
        self._rank_stale()
        while True:
            first = self._order.first(cell)
            assert first is not None
            if not self._rank(first[0]):
                return first

    def worth_of_kv(self, checkpoint: Checkpoint) -> float:
        """Return about what a stored ``checkpoint`` is worth for each token of KV that only it needs: as
        :meth:`worth_per_byte`; what stands below it may have gone since, and then that was another number.
        """
        # First of all: where it is ranked, what only it needs is counted anew.
        worth = self.worth_per_byte(checkpoint)
        kv_tokens = checkpoint.kv_tokens
        # Its rank is per byte that it frees.
        freed_bytes = checkpoint.num_bytes + kv_tokens * self._kv_bytes_per_token
        return worth * freed_bytes / (kv_tokens or 1)

    def worth_per_byte(self, checkpoint: Checkpoint) -> float:
        """Return about what a stored ``checkpoint`` is worth for each byte that it frees: as it was ranked
        last. It is ranked anew only where it is marked for that, or something pins it. O(1), or O(log n).
        """
        if self._scales_version != self.policy.scales_version:
            self._scales_version, self._scales = self.policy.scales_version, self.policy.scales.tolist()
        if checkpoint.serial in self._stale:
            del self._stale[checkpoint.serial]
            self._rank(checkpoint)
        group, worth = checkpoint.group, checkpoint.worth
        if group is not None:
            cell = group.cell
        else:
            # Pinned, and not to be ranked among others.
            cell, worth = self.policy.rank(checkpoint, self._note_freed_bytes(checkpoint))
        scale: float = self._scales[cell]
        return scale * worth

    def worth_of(self, num_bytes: int) -> tuple[float, bool]:
        """Return what is lost to free ``num_bytes``, the worth of its victims but for some of what they free
        beyond that; and whether all of it would do. Evicts nothing, and leaves the order as it was.
        O(victims · log n).
        """
        total = 0.0
        victims: dict[int, tuple[Checkpoint, int, float]] = {}
        while num_bytes > 0 and self:
            checkpoint, worth = self.victim()
            freed_bytes = self.freed_bytes(checkpoint, without=victims.keys())
            beyond_bytes = max(0, freed_bytes - num_bytes)
            total += worth * (freed_bytes - (1.0 - _SHARE_LOST_BEYOND) * beyond_bytes)
            num_bytes -= freed_bytes
            victims[checkpoint.serial] = checkpoint, *self._order.rank_of(checkpoint)
            self._order.leave(checkpoint)
        for victim in victims.values():
            self._order.place(*victim)
        return total, num_bytes <= 0

    def freed_bytes(self, checkpoint: Checkpoint, *, without: Set[int] = frozenset()) -> int:
        """Return the bytes that its eviction frees, after that of others, where the policy asks for them."""
        return checkpoint.num_bytes + self._kv_tokens(checkpoint, without) * self._kv_bytes_per_token

    def _rank(self, checkpoint: Checkpoint) -> bool:
        return self._order.enter(checkpoint, self._note_freed_bytes(checkpoint))

    def _note_freed_bytes(self, checkpoint: Checkpoint) -> int:
        checkpoint.kv_tokens = self._kv_tokens(checkpoint)
        return checkpoint.num_bytes + checkpoint.kv_tokens * self._kv_bytes_per_token

    def _kv_tokens(self, checkpoint: Checkpoint, without: Set[int] = frozenset()) -> int:
        return exclusive_kv_tokens(checkpoint, without=without) if self.policy.weighs_neighbours else 0

    def _rank_stale(self) -> None:
        for checkpoint in self._stale.values():
            self._rank(checkpoint)
        self._stale.clear()
