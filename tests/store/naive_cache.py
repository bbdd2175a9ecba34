"""The obvious cache: a dictionary of prefixes, compared token by token. Slow, and hard to get wrong.

It keeps the same contract as the store (what to keep, what to drop first, what KV is needed) with none of its
structure: no tree, no running totals, no sharing but what set union gives.
"""

from dataclasses import dataclass, field


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
    seen: set[tuple[int, ...]] = field(default_factory=set)
    held: dict[tuple[int, ...], Held] = field(default_factory=dict)
    dropped: set[tuple[int, ...]] = field(default_factory=set)
    next_serial: int = 0

    def overlap_depth(self, tokens: tuple[int, ...]) -> int:
        return max((_shared(tokens, other) for other in self.seen), default=0)

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
