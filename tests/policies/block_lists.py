"""Caches of engines as a list of blocks and a dictionary, block by block: slow, and hard to get wrong."""

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass
class OneList:
    """KV blocks and states in one list, least recently used first; each is known by the prefix it ends."""

    capacity_blocks: int
    state_blocks: int
    held: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)

    def kv(self, word: str) -> int:
        depth = 0
        while depth < len(word) and ("kv", word[: depth + 1]) in self.held:
            depth += 1
        return depth

    def states(self, word: str) -> list[int]:
        return [end for end in range(1, len(word) + 1) if ("state", word[:end]) in self.held]

    def serve(self, word: str) -> int:
        """Serve one prompt that fits; return how many blocks were reused."""
        matched, tail = self.kv(word), len(word) - 1
        usable = [end for end in self.states(word) if end <= min(matched, tail)]
        resumed = max(usable, default=0)
        states = {resumed, tail} | ({matched} if resumed < matched <= tail else set())
        # The end of the prompt is the first to go.
        for end in range(len(word), 0, -1):
            if end in states and (end == resumed or end > resumed):
                self._use("state", word[:end], self.state_blocks)
            self._use("kv", word[:end], 1)
        while sum(self.held.values()) > self.capacity_blocks:
            self.held.popitem(last=False)
        return resumed

    def _use(self, kind: str, prefix: str, weight: int) -> None:
        self.held[kind, prefix] = weight
        self.held.move_to_end((kind, prefix))
