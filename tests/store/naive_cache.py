"""The obvious cache: a dictionary of prefixes, compared token by token. Slow, and hard to get wrong.

It keeps the same contract as the store (what to keep, what to drop first, what KV is needed) with none of its
structure: no tree, no running totals, no sharing but what set union gives.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Held:
    num_bytes: int
    last_used: int
    serial: int
    num_pins: int = 0


@dataclass
class NaiveCache:
    capacity_bytes: int
    segment_tokens: int
    kv_segment_bytes: int
    seen: list[tuple[tuple[int, ...], Any]] = field(default_factory=list)
    held: dict[tuple[int, ...], Held] = field(default_factory=dict)
    dropped: set[tuple[int, ...]] = field(default_factory=set)
    next_serial: int = 0

    def overlap_depth(self, tokens: tuple[int, ...]) -> int:
        return max((_shared(tokens, other) for other, _ in self.seen), default=0)

    def latest_through(self, prefix: tuple[int, ...]) -> Any:
        """Who is responsible for the last token of ``prefix``: the latest prompt that has it all."""
        return next((name for other, name in reversed(self.seen) if other[: len(prefix)] == prefix), None)

    def takes_from(self, tokens: tuple[int, ...]) -> dict[Any, int]:
        """Whose part a new prompt takes over, and how deep each."""
        depths = range(1, self.overlap_depth(tokens) + 1)
        return {self.latest_through(tokens[:depth]): depth for depth in depths}

    def parts(self, tokens: tuple[int, ...]) -> bool:
        """Whether a new prompt parts from another, rather than going on from its end or repeating it."""
        depth = self.overlap_depth(tokens)
        rest = (other for other, _ in self.seen if len(other) > depth and _shared(tokens, other) == depth)
        return 0 < depth < len(tokens) and any(True for _ in rest)

    def above(self, prefix: tuple[int, ...]) -> tuple[int, ...] | None:
        """The deepest checkpoint that is shallower on the same path."""
        shorter = [p for p in self.held if len(p) < len(prefix) and prefix[: len(p)] == p]
        return max(shorter, key=len, default=None)

    def exclusive_kv_tokens(self, prefix: tuple[int, ...]) -> int:
        """Tokens of ``prefix`` that no other checkpoint's prefix begins with."""
        return len(prefix) - max((_shared(prefix, p) for p in self.held if p != prefix), default=0)

    def resume_position(self, tokens: tuple[int, ...], limit: int) -> int:
        return max((len(p) for p in self.held if len(p) <= limit and tokens[: len(p)] == p), default=0)

    def reached_position(self, tokens: tuple[int, ...], limit: int) -> int:
        usable = {*self.held, *self.dropped}
        return max((len(p) for p in usable if len(p) <= limit and tokens[: len(p)] == p), default=0)

    def kv_segments(self, prefixes: "set[tuple[int, ...]] | None" = None) -> set[tuple[int, ...]]:
        chosen = self.held if prefixes is None else prefixes
        return {
            prefix[:end]
            for prefix in chosen
            for end in range(self.segment_tokens, len(prefix) + 1, self.segment_tokens)
        }

    def stored_bytes(self) -> int:
        return sum(h.num_bytes for h in self.held.values()) + len(self.kv_segments()) * self.kv_segment_bytes

    def put(self, tokens: tuple[int, ...], position: int, num_bytes: int, tick: int) -> bool:
        prefix = tokens[:position]
        if prefix in self.held:
            return True
        pinned = {p: h for p, h in self.held.items() if h.num_pins}
        least = (
            sum(h.num_bytes for h in pinned.values())
            + num_bytes
            + len(self.kv_segments({*pinned, prefix})) * self.kv_segment_bytes
        )
        if least > self.capacity_bytes:
            return False
        while True:
            with_new = len(self.kv_segments({*self.held, prefix})) * self.kv_segment_bytes
            if sum(h.num_bytes for h in self.held.values()) + num_bytes + with_new <= self.capacity_bytes:
                break
            victims = [p for p, h in self.held.items() if not h.num_pins]
            victim = min(victims, key=lambda p: (self.held[p].last_used, self.held[p].serial))
            del self.held[victim]
            self.dropped.add(victim)
        self.held[prefix] = Held(num_bytes=num_bytes, last_used=tick, serial=self.next_serial)
        self.next_serial += 1
        self.dropped.discard(prefix)
        return True


def _shared(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))
