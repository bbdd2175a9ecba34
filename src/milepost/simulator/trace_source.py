"""Traces that several processes read: where each comes from, what it is, and how it is kept at hand."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import final

from milepost.errors import ConfigurationError, TraceFormatError
from milepost.simulator.ceiling import Ceiling
from milepost.simulator.setting import grid_for
from milepost.simulator.warm_up import WarmUp, WarmUpEnd
from milepost.traces import LogFacts, Trace, TraceRequest, open_trace

__all__ = ["TraceSource", "TraceSurvey", "distinct_names", "forget_requests", "requests_of", "survey"]

# Parsed traces of up to 256 MiB of keys stay in memory from one run of a process to its next.
_MOST_KEYS_HELD = 1 << 25
_DIGEST_BYTES = 16
_STANDARD_INPUT = "-"


@final
@dataclass(frozen=True, slots=True)
class TraceSource:
    """Where a trace comes from, see :func:`milepost.traces.open_trace`, and how much of it counts."""

    path: str
    tokenizer: str | None = None
    skip_bad_lines: bool = False
    max_requests: int | None = None
    whole_prompts: bool = False
    image_tokens: int | None = None

    def open(self) -> Trace:
        """Return the trace.

        Raises:
            TraceFormatError: there is no such file.
            ConfigurationError: the notation of a synthetic trace has a mistake.
        """
        trace = open_trace(
            self.path,
            tokenizer=self.tokenizer,
            skip_bad_lines=self.skip_bad_lines,
            whole_prompts=self.whole_prompts,
            image_tokens=self.image_tokens,
        )
        return trace if self.max_requests is None else trace.first(self.max_requests)

    def require_rereadable(self) -> None:
        """Raise ``ConfigurationError`` where the trace can be read only once."""
        if self.path == _STANDARD_INPUT or Path(self.path).is_fifo():
            raise ConfigurationError(
                f"the pipe {self.path!r} can be read only once, and every process reads it; save it to a "
                "file first"
            )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSurvey:
    """What one reading of a trace finds.

    Attributes:
        digest: Of everything that a replay sees of its requests: equal digests, equal results.
        key_tokens: Tokens that a key stands for.
        num_requests: How many there are.
        num_warm_up_requests: How many of them only warm the cache up.
        grid: What checkpoints sit at multiples of.
        ceiling_fraction: The most that can be reused on this grid, of the requests that count.
        log: What was met beside the requests.
    """

    digest: str
    key_tokens: int
    num_requests: int
    num_warm_up_requests: int
    grid: int
    ceiling_fraction: float
    log: LogFacts


def survey(source: TraceSource, *, grid: int | None, after: WarmUp | None = None) -> TraceSurvey:
    """Read a trace once. O(keys).

    Raises:
        TraceFormatError: it cannot be read, or holds no request.
        ConfigurationError: the grid is no multiple of its blocks, or the warm-up leaves nothing to count.
    """
    trace = source.open()
    end = WarmUpEnd(after or WarmUp())
    hasher = blake2b(digest_size=_DIGEST_BYTES)
    ceiling: Ceiling | None = None
    for request in trace:
        if ceiling is None:
            key_tokens, grid = request.key_tokens, grid_for(request.key_tokens, grid=grid)
            ceiling = Ceiling(key_tokens=key_tokens, grid=grid)
        ceiling.step(request)
        end.add(request)
        facts = (request.key_tokens, request.num_tokens, request.tenant, request.breakpoints)
        hasher.update(repr(facts).encode())
        hasher.update(request.keys.astype("<i8", copy=False).tobytes())
    if ceiling is None or grid is None:
        raise TraceFormatError(f"trace {trace.name!r} holds no request; give one with at least one")
    number = end.number()
    return TraceSurvey(
        digest=hasher.hexdigest(),
        key_tokens=key_tokens,
        num_requests=ceiling.num_requests,
        num_warm_up_requests=number,
        grid=grid,
        ceiling_fraction=ceiling.fraction(after=number),
        log=trace.facts,
    )


@lru_cache(maxsize=1)
def requests_of(source: TraceSource) -> Iterable[TraceRequest]:
    """Return the requests of ``source``, to be iterated as often as needed: parsed, or read anew where that
    would take too much memory. The latest trace is kept until :func:`forget_requests`.
    """
    trace = source.open()
    requests: list[TraceRequest] = []
    num_keys = 0
    for request in trace:
        num_keys += request.keys.size
        if num_keys > _MOST_KEYS_HELD:
            return trace
        requests.append(request)
    return requests


def forget_requests() -> None:
    """Let go of the trace that :func:`requests_of` keeps."""
    requests_of.cache_clear()


def distinct_names(sources: Sequence[TraceSource]) -> list[str]:
    """Return a name for each source: the trace's own, or its path where two have the same."""
    names = [source.open().name for source in sources]
    counts = Counter(names)
    return [name if counts[name] == 1 else source.path for name, source in zip(names, sources, strict=True)]
