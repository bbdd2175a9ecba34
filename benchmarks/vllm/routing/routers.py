"""How a router chooses among replicas: in turn, by what it sent where, or by what the replicas tell."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, final

__all__ = ["ROUTERS", "ByEvents", "InTurn", "PrefixAffinity", "Router", "SeenReplica"]

# As vllm-router's cache_aware: a shorter match is none.
_LEAST_MATCH = 0.3
# How much more than another a replica may have to do, in prompts like the one that comes.
_MOST_AHEAD_PROMPTS = 2
# Later requests of a replica over which the worth of what a prompt displaces is summed up.
_HORIZON_REQUESTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenReplica:
    """One replica as its router sees it when a request comes.

    Attributes:
        waiting_tokens: Prompt tokens that it was sent and has not computed yet.
        promised_tokens: How much of the prompt its attention blocks promise, by its KV events.
        resumable_tokens: How much can be resumed, by blocks and states.
        block_worth: What a block that was evicted there lately would have saved each later request, in
            tokens: `milepost_evicted_block_worth_tokens` of its metrics.
        block_tokens: Tokens of a block.
    """

    waiting_tokens: int
    promised_tokens: int
    resumable_tokens: int
    block_worth: float
    block_tokens: int


class Router(Protocol):
    """Chooses a replica for each request."""

    def choose(self, hashes: Sequence[Hashable], num_tokens: int, seen: Sequence[SeenReplica]) -> int:
        """Return the place of the replica that is to serve a prompt with these chained hashes."""


@final
class InTurn:
    """One after the other."""

    def __init__(self) -> None:
        self._num_sent = 0

    def choose(self, hashes: Sequence[Hashable], num_tokens: int, seen: Sequence[SeenReplica]) -> int:
        """See ``Router``."""
        self._num_sent += 1
        return self._num_sent % len(seen)


@final
class PrefixAffinity:
    """To where the longest prefix was sent before, unless that replica has much more to do than another."""

    def __init__(self) -> None:
        self._sent: dict[int, set[Hashable]] = defaultdict(set)

    def choose(self, hashes: Sequence[Hashable], num_tokens: int, seen: Sequence[SeenReplica]) -> int:
        """See ``Router``."""
        places = range(len(seen))
        least = min(places, key=lambda at: (seen[at].waiting_tokens, len(self._sent[at])))
        longest = max(places, key=lambda at: self._match(at, hashes))
        is_short = self._match(longest, hashes) < _LEAST_MATCH * len(hashes)
        chosen = least if is_short or _is_ahead(seen[longest], seen, num_tokens) else longest
        self._sent[chosen].update(hashes)
        return chosen

    def _match(self, at: int, hashes: Sequence[Hashable]) -> int:
        sent = self._sent[at]
        return next((i for i, each in enumerate(hashes) if each not in sent), len(hashes))


@final
class ByEvents:
    """To where most can be resumed, by blocks and states; with the same allowance for loads.

    Args:
        blocks_share: Of what attention blocks alone promise, how much counts as if it could be resumed: who
            parts from others there has a state kept that the next ones resume from.
        weighs_worth: Whether the worth of the blocks counts that the prompt displaces.
    """

    def __init__(self, *, blocks_share: float = 0.0, weighs_worth: bool = False) -> None:
        self._blocks_share, self._weighs_worth = blocks_share, weighs_worth
        self._sent_tokens: dict[int, int] = defaultdict(int)

    def choose(self, hashes: Sequence[Hashable], num_tokens: int, seen: Sequence[SeenReplica]) -> int:
        """See ``Router``."""
        places = range(len(seen))
        # Who is worth the same is told apart by what it has to do, and by what it has had.
        loads = [(seen[at].waiting_tokens, self._sent_tokens[at]) for at in places]
        least = min(places, key=loads.__getitem__)
        best = min(places, key=lambda at: (-self._gain(num_tokens, seen[at]), *loads[at]))
        chosen = least if _is_ahead(seen[best], seen, num_tokens) else best
        self._sent_tokens[chosen] += num_tokens - seen[chosen].resumable_tokens
        return chosen

    def _gain(self, num_tokens: int, seen: SeenReplica) -> float:
        gain = seen.resumable_tokens + self._blocks_share * max(
            0, seen.promised_tokens - seen.resumable_tokens
        )
        if self._weighs_worth:
            num_blocks = (num_tokens - seen.resumable_tokens) / seen.block_tokens
            gain -= num_blocks * seen.block_worth * _HORIZON_REQUESTS
        return gain


def _is_ahead(replica: SeenReplica, others: Sequence[SeenReplica], num_tokens: int) -> bool:
    least = min(other.waiting_tokens for other in others)
    return replica.waiting_tokens - least > _MOST_AHEAD_PROMPTS * num_tokens


ROUTERS: dict[str, Callable[[], Router]] = {
    "in turn": InTurn,
    "affinity": PrefixAffinity,
    "states": ByEvents,
    "blocks and states": lambda: ByEvents(blocks_share=0.5),
    "and worth": lambda: ByEvents(blocks_share=0.5, weighs_worth=True),
}
