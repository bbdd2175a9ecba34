"""The KV segments that are stored: how many, how far they reach along a path, and which ones are needed.

A segment lies on the node that holds its last token. On every path the stored segments are the first ones,
without a gap.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, final

from milepost.store.node import Node

__all__ = ["ResidentKV", "node_at"]

_end_of = attrgetter("end")


@final
class ResidentKV:
    """See the module.

    Args:
        segment_tokens: Tokens of a segment.
        bytes_per_token: What a token takes.
        drop: Told of the payloads that are not needed any more.

    Attributes:
        num_segments: How many are stored.
    """

    def __init__(
        self, *, segment_tokens: int, bytes_per_token: int, drop: Callable[[Sequence[Any]], None]
    ) -> None:
        self.segment_tokens = segment_tokens
        self.bytes_per_token = bytes_per_token
        self.segment_bytes = segment_tokens * bytes_per_token
        self.num_segments = 0
        self._drop = drop
        # The path last asked for, and how far its KV reaches, until KV comes or goes.
        self._path: Sequence[Node] | None = None
        self._reach = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of all segments."""
        return self.num_segments * self.segment_bytes

    def aligned(self, position: int) -> int:
        """Return the last segment boundary at or before ``position``."""
        return position // self.segment_tokens * self.segment_tokens

    def bytes_before(self, position: int) -> int:
        """Return the bytes of the whole segments before ``position``."""
        return position // self.segment_tokens * self.segment_bytes

    def reach(self, path: Sequence[Node]) -> int:
        """Return how many leading tokens of ``path`` have their KV stored."""
        if path is not self._path:
            self._reach = self._leading_tokens(path, _num_stored)
            self._path = path
        return self._reach

    def reach_ever(self, path: Iterable[Node]) -> int:
        """Return how many leading tokens of ``path`` have or had their KV stored."""
        return self._leading_tokens(path, _num_ever)

    def missing_bytes(self, path: Sequence[Node], position: int) -> int:
        """Return the bytes of the KV before ``position`` that are not stored."""
        num_missing = position // self.segment_tokens - self.reach(path) // self.segment_tokens
        return max(0, num_missing) * self.segment_bytes

    def needed_bytes(self, places: Iterable[tuple[Node, int]]) -> int:
        """Return the bytes of the KV before positions on nodes, what they share counted once."""
        needed: dict[Node, int] = {}
        for place, position in places:
            node = place
            while node.parent is not None:
                segments = node.num_segments_to(min(position, node.end), self.segment_tokens)
                if needed.get(node, -1) >= segments:
                    break
                needed[node] = segments
                node = node.parent
        return sum(needed.values()) * self.segment_bytes

    def payloads(self, path: Iterable[Node], position: int) -> list[Any]:
        """Return the payloads of the whole segments before ``position``, in order."""
        needed = position // self.segment_tokens
        segments: list[Any] = []
        for node in path:
            segments += node.kv
            if len(segments) >= needed:
                break
        return segments[:needed]

    def fill(self, path: Sequence[Node], payloads: Sequence[Any]) -> None:
        """Store ``payloads``, the first segments of ``path`` that are missing."""
        reach = self.reach(path)
        at = _index_at(path, reach + self.segment_tokens)
        taken = 0
        while taken < len(payloads):
            node = path[at]
            room = node.num_segments_to(node.end, self.segment_tokens) - len(node.kv)
            node.kv += payloads[taken : taken + room]
            node.num_kv_reached = max(node.num_kv_reached, len(node.kv))
            taken += room
            at += 1
        self.num_segments += len(payloads)
        self._reach = reach + len(payloads) * self.segment_tokens

    def trim(self, node: Node) -> None:
        """Free the segments of ``node`` that no checkpoint needs."""
        needed = node.num_segments_needed(self.segment_tokens)
        if len(node.kv) > needed:
            self.num_segments -= len(node.kv) - needed
            self._drop(node.kv[needed:])
            del node.kv[needed:]
            if self._path is not None and node in self._path:
                self._path = None

    def _leading_tokens(self, path: Iterable[Node], count: Callable[[Node], int]) -> int:
        segments = 0
        for node in path:
            counted = count(node)
            segments += counted
            if counted < node.num_segments_to(node.end, self.segment_tokens):
                break
        return segments * self.segment_tokens


def node_at(path: Sequence[Node], position: int) -> Node:
    """Return the node of ``path`` whose edge covers ``position``. O(log nodes)."""
    return path[_index_at(path, position)]


def _index_at(path: Sequence[Node], position: int) -> int:
    return bisect_left(path, position, key=_end_of)


def _num_stored(node: Node) -> int:
    return len(node.kv)


def _num_ever(node: Node) -> int:
    return node.num_kv_reached
