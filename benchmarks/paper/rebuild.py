"""The paper's requests as tokens again, from what its log says of them.

A line of the log gives a request's document, its length, and its overlap depth with the best of the last N
requests of that document: the cache is a FIFO of N sequences. That determines the tokens, up to renaming,
as far as a replay can tell:

* A hit shares exactly ``overlap_depth`` tokens with a cached request of its document; the rest is its own.
  Which one it shares them with is not logged. Any that is long enough gives the same overlap with all
  others, so the latest is taken.
* A miss shares nothing with what is cached. Its document may have been asked for longer ago. *As logged*,
  its tokens are written anew, so that no replay, whatever it keeps, reuses what the logged run could not.
  *By document*, it shares as much with the earlier ones as every hit on that document does, which is what
  its tokens were: then a cache that holds prompts for longer than N requests is rewarded for it.
* A hit on a document that none of the last N logged requests asked for shares its tokens with one of the
  600 requests before the log, which must have been among the last N of those: it is put back, with as many
  tokens as this hit has. What else was in the cache when the log begins was never hit and does not matter.

What cannot be had back: the other warm-up requests, and with them what had been learned when the log begins.
"""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from milepost.errors import InvalidRequestError, TraceFormatError
from milepost.tokens import TokenArray, as_tokens

__all__ = ["LoggedRequest", "RebuiltLog", "RebuiltRequest", "read_log", "rebuild"]

_NO_TOKENS: TokenArray = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One line of the log: the overlap is with the best request of the same document in the FIFO."""

    document: str
    num_tokens: int
    is_hit: bool
    overlap_depth: int

    def __post_init__(self) -> None:
        deepest = self.num_tokens if self.is_hit else 0
        if not int(self.is_hit) <= self.overlap_depth <= deepest or self.num_tokens < 1:
            raise InvalidRequestError(
                f"overlap_depth={self.overlap_depth} in a prompt of {self.num_tokens} tokens, "
                f"hit={self.is_hit}; a hit shares 1 to all of its tokens, a miss none"
            )


@dataclass(frozen=True, slots=True)
class RebuiltRequest:
    """A request as tokens of its document and tokens of its own."""

    document: str
    tokens: TokenArray


@dataclass(frozen=True, slots=True)
class RebuiltLog:
    """The logged requests, and those of the warm-up that some of them must have hit, in order of arrival."""

    warmup: tuple[RebuiltRequest, ...]
    requests: tuple[RebuiltRequest, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of the logged requests."""
        return sum(request.tokens.size for request in self.requests)


def read_log(path: Path) -> list[LoggedRequest]:
    """Return the requests of one file.

    Raises:
        TraceFormatError: a line is not a request of the log.
    """
    requests = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                requests.append(
                    LoggedRequest(
                        document=record["conv_id"],
                        num_tokens=record["seq_len"],
                        is_hit=record["hit"],
                        overlap_depth=record["prefix_match"],
                    )
                )
            except (KeyError, TypeError, ValueError) as error:
                raise TraceFormatError(
                    f"{path}, line {number}: not a request of the log ({error})"
                ) from error
    return requests


def rebuild(log: Sequence[LoggedRequest], *, num_cached: int, by_document: bool = False) -> RebuiltLog:
    """Return the requests as tokens; see the module.

    Args:
        log: In order of arrival.
        num_cached: Sequences in the FIFO.
        by_document: Whether a miss shares its document with requests that were not cached any more.

    Raises:
        InvalidRequestError: the log contradicts such a FIFO.

    Complexity: O(tokens + requests * num_cached).
    """
    fresh = _FreshTokens()
    cached: deque[RebuiltRequest] = deque(maxlen=num_cached)
    warmup: dict[str, RebuiltRequest] = {}
    # The latest request of each document, and how much of it all requests of that document share.
    latest: dict[str, RebuiltRequest] = {}
    common = _common_depths(log) if by_document else {}
    requests = []
    for index, logged in enumerate(log):
        sources = [request for request in cached if request.document == logged.document]
        before = warmup.get(logged.document) if index < num_cached else None
        if not logged.is_hit:
            if sources or before is not None:
                raise InvalidRequestError(
                    f"request {index} misses document {logged.document!r} although it is cached; "
                    f"the log is not of a FIFO of {num_cached}"
                )
            known = latest.get(logged.document)
            depth = 0 if known is None else min(common.get(logged.document, 0), logged.num_tokens)
            shared = _NO_TOKENS if known is None else known.tokens[:depth]
        else:
            source = _long_enough((*((before,) if before else ()), *sources), logged.overlap_depth)
            if source is None:
                source = before = _before_the_log(logged, index, num_cached, fresh)
            if source is before:
                # Needed still: the later, the younger it must have been.
                warmup.pop(logged.document, None)
                warmup[logged.document] = before
            shared = source.tokens[: logged.overlap_depth]
        own = fresh.take(logged.num_tokens - shared.size)
        request = RebuiltRequest(logged.document, as_tokens(np.concatenate((shared, own))))
        cached.append(request)
        latest[logged.document] = request
        requests.append(request)
    return RebuiltLog(tuple(warmup.values()), tuple(requests))


def _before_the_log(
    logged: LoggedRequest, index: int, num_cached: int, fresh: "_FreshTokens"
) -> RebuiltRequest:
    """Return the request of the warm-up that ``logged`` must have hit."""
    if index >= num_cached:
        raise InvalidRequestError(
            f"request {index} hits {logged.overlap_depth} tokens of document {logged.document!r} that no "
            f"cached request has; the log is not of a FIFO of {num_cached}"
        )
    return RebuiltRequest(logged.document, as_tokens(fresh.take(logged.num_tokens)))


def _common_depths(log: Iterable[LoggedRequest]) -> dict[str, int]:
    """Return how many tokens all hits on each document share."""
    depths: dict[str, int] = {}
    for logged in log:
        if logged.is_hit:
            depths[logged.document] = min(
                logged.overlap_depth, depths.get(logged.document, logged.num_tokens)
            )
    return depths


def _long_enough(sources: Iterable[RebuiltRequest], num_tokens: int) -> RebuiltRequest | None:
    """Return the latest of ``sources`` with at least ``num_tokens`` tokens."""
    found = [source for source in sources if source.tokens.size >= num_tokens]
    return found[-1] if found else None


class _FreshTokens:
    """Tokens that nobody has used before."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> TokenArray:
        self._next += count
        return np.arange(self._next - count, self._next, dtype=np.int32)
