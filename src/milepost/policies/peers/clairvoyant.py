"""Knows the future: an approximate offline bound, to measure regret against.

Placement
    Each request resumes best where it diverges from all earlier prompts; only such positions are ever placed,
    by the requests that pass them before. A state is placed while it is worth its price.
Worth
    ``saving / (bytes * requests until its next use)``: what the next use saves over the next shallower state,
    for each byte held alone and for each request that it has to be held. As Belady's rule, for things of
    different size and use. The least worth is evicted; what is never used again is worth nothing.
Price
    What a byte was worth that had to be evicted lately.

It is an approximation: the true optimum is a packing problem over all positions and times.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt

from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.placement import Placement, PlacementPolicy, PlacementRequest
from milepost.placement.admissible import admissible
from milepost.policies.base import CachePolicy, ForeseenRequest
from milepost.store import Checkpoint, EvictionPolicy, InsertResult, Reranking
from milepost.tokens import common_prefix_length

__all__ = ["Foresight", "ForesightEviction", "ForesightPlacement", "clairvoyant"]

FloatArray = npt.NDArray[np.float64]

# Next uses are told apart in this many stretches of the trace; the last cell is for never.
_NUM_CELLS = 2048
_NEVER = _NUM_CELLS - 1
_LEAST_SCALE = 1e-30
# How much each eviction says about the price.
_PRICE_WEIGHT = 0.05


@final
class _Span:
    """An edge of the tree of all prompts, those to come included; keys ``[start, end)``.

    Attributes:
        uses: Requests, by index, that diverge from all earlier ones at this span's end.
    """

    __slots__ = ("children", "end", "keys", "parent", "start", "uses")

    def __init__(self, parent: "_Span | None", start: int, keys: npt.NDArray[np.int64]) -> None:
        self.parent = parent
        self.start = start
        self.keys = keys
        self.end = start + keys.size
        self.children: dict[int, _Span] = {}
        self.uses: list[int] = []

    def cut(self, at: int) -> "_Span":
        """Cut in two and return the upper half; this one keeps the lower end. O(1)."""
        assert self.parent is not None
        upper = _Span(self.parent, self.start, self.keys[: at - self.start])
        self.parent.children[int(self.keys[0])] = upper
        self.keys, self.start, self.parent = self.keys[at - self.start :], at, upper
        upper.children[int(self.keys[0])] = self
        return upper


@final
class Foresight:
    """The requests to come, for both halves of the policy."""

    def __init__(self) -> None:
        self.scales = np.full(_NUM_CELLS, _LEAST_SCALE)
        self.scales_version = 0
        self.price = 0.0
        self.now = -1
        self._lengths: list[int] = []
        self._ends: list[_Span | None] = []
        self._key_tokens = 1
        self._cell_requests = 1
        self._middles: FloatArray = np.zeros(0)

    def read(self, requests: Sequence[ForeseenRequest]) -> None:
        """Learn all requests, in the order of service. O(keys)."""
        if self.now >= 0:
            raise ConfigurationError("the replay has begun; give each replay a clairvoyant of its own")
        self._key_tokens = requests[0].key_tokens if requests else 1
        self._lengths = [request.num_tokens for request in requests]
        roots: dict[str, _Span] = {}
        self._ends = [
            self._insert(roots.setdefault(request.tenant, _Span(None, 0, _NO_KEYS)), request, index)
            for index, request in enumerate(requests)
        ]
        self._cell_requests = max(1, -(-len(requests) // _NEVER))
        self._middles = np.arange(0.5, _NEVER) * self._cell_requests

    def advance(self, num_tokens: int) -> None:
        """Let the next request be served."""
        self.require_next(num_tokens)
        self.now += 1
        self.scales_version += 1
        self.scales[:_NEVER] = 1.0 / np.maximum(1.0, self._middles - self.now)

    def require_next(self, num_tokens: int) -> None:
        """Raise ``InvalidRequestError`` unless the next request foreseen is of this length."""
        index = self.now + 1
        foreseen = self._lengths[index] if index < len(self._lengths) else None
        if foreseen != num_tokens:
            raise InvalidRequestError(
                f"request {index} has {num_tokens} tokens, foreseen was {foreseen or 'none'}; a clairvoyant "
                "policy serves the requests that its prepare was given, in their order"
            )

    def uses(self, index: int) -> list[tuple[int, list[int]]]:
        """Return the depths of request ``index`` at which others diverge from it, ascending, and which
        requests do. O(spans of the prompt).
        """
        found: list[tuple[int, list[int]]] = []
        span = self._ends[index]
        while span is not None:
            if span.uses:
                found.append((span.end * self._key_tokens, span.uses))
            span = span.parent
        found.reverse()
        return found

    def cell(self, use: int) -> int:
        """Return the cell of things whose next use is request ``use``."""
        return use // self._cell_requests

    def _insert(self, root: _Span, request: ForeseenRequest, index: int) -> _Span:
        keys = request.keys
        span, depth = root, 0
        while depth < keys.size and (child := span.children.get(int(keys[depth]))) is not None:
            shared = common_prefix_length(child.keys, keys[depth:])
            depth += shared
            span = child if shared == child.keys.size else child.cut(depth)
            if shared < child.keys.size and span is not child:
                break
        usable = min(depth * self._key_tokens, request.num_tokens - 1) // self._key_tokens
        if usable:
            best = span
            while best.start >= usable:
                assert best.parent is not None
                best = best.parent
            (best if best.end == usable else best.cut(usable)).uses.append(index)
        if depth < keys.size:
            leaf = _Span(span, depth, keys[depth:])
            span.children[int(keys[depth])] = leaf
            span = leaf
        return span


_NO_KEYS = np.empty(0, np.int64)


@final
class _Partings:
    """Where requests diverge from one prompt: depths ascending, and the requests at each."""

    __slots__ = ("depths", "uses")

    def __init__(self, partings: list[tuple[int, list[int]]]) -> None:
        self.depths = [depth for depth, _ in partings]
        self.uses = [uses for _, uses in partings]

    def next_use(self, start: int, end: float, *, after: int) -> int | None:
        """Return the first request after ``after`` that diverges in ``[start, end)``, None if there is none.
        O(log depths), and those in between.
        """
        found: int | None = None
        for index in range(bisect_left(self.depths, start), len(self.depths)):
            if self.depths[index] >= end:
                break
            uses = self.uses[index]
            at = bisect_right(uses, after)
            if at < len(uses) and (found is None or uses[at] < found):
                found = uses[at]
        return found


@final
class ForesightPlacement(PlacementPolicy):
    """Places states where requests to come will diverge from this prompt."""

    def __init__(self, foresight: Foresight) -> None:
        self._foresight = foresight

    def place(self, request: PlacementRequest) -> Placement:
        """Return the positions that are worth their price. O(spans of the prompt)."""
        foresight = self._foresight
        foresight.require_next(request.num_tokens)
        index = foresight.now + 1
        wished = []
        above = request.resume_position
        for depth, uses in foresight.uses(index):
            position = depth // request.grid * request.grid
            next_use = bisect_right(uses, index)
            if position <= above or next_use == len(uses):
                continue
            kv_tokens = max(0, position - max(above, request.resident_kv_tokens))
            num_bytes = request.checkpoint_bytes + kv_tokens * request.kv_bytes_per_token
            worth = request.cost_between(above, position) / max(1, num_bytes) / (uses[next_use] - index)
            if worth >= foresight.price:
                wished.append(position)
                above = position
        return admissible(request, wished)


@final
class ForesightEviction(EvictionPolicy):
    """Evicts what saves least until its next use, for each byte and each request that it has to be held."""

    weighs_neighbours = True

    def __init__(self, foresight: Foresight) -> None:
        self._foresight = foresight

    @property
    def scales_version(self) -> int:  # type: ignore[override]
        """Changes with each request."""
        return self._foresight.scales_version

    @property
    def scales(self) -> FloatArray:
        """One over the requests until each cell's next uses."""
        return self._foresight.scales

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        """Return the cell of the next use, and what it saves per byte held."""
        foresight = self._foresight
        saving = checkpoint.saving / max(1, freed_bytes)
        owner = checkpoint.owner
        assert owner is not None
        partings = owner.forecast
        assert isinstance(partings, _Partings)
        # It also serves those who would resume deeper, at a state that is gone, up to the next one there is.
        next_use = partings.next_use(checkpoint.position, checkpoint.deeper_position, after=foresight.now)
        return (_NEVER if next_use is None else foresight.cell(next_use)), saving

    def note_request(self, inserted: InsertResult) -> Reranking:
        """Let the request come to pass; what it has used waits for its next use."""
        foresight = self._foresight
        foresight.advance(inserted.prompt.num_tokens)
        inserted.prompt.forecast = _Partings(foresight.uses(foresight.now))
        return Reranking([checkpoint for node in inserted.path for checkpoint in node.checkpoints])

    def note_eviction(self, checkpoint: Checkpoint, worth: float) -> None:
        """Let the price follow what is evicted."""
        foresight = self._foresight
        foresight.price += (worth - foresight.price) * _PRICE_WEIGHT


def clairvoyant() -> CachePolicy:
    """Return a new policy, whose ``prepare`` takes all requests before they are served in that order."""
    foresight = Foresight()
    return CachePolicy(ForesightPlacement(foresight), ForesightEviction(foresight), prepare=foresight.read)
