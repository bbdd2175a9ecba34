"""The requests, as tokens of the model's vocabulary, shortened in proportion."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.paper.rebuild import LoggedRequest, read_log, rebuild
from milepost.errors import TraceFormatError
from milepost.tokens import TokenArray, as_tokens
from milepost.traces.synthetic import open_synthetic

__all__ = [
    "MADE_UP_WORKLOADS",
    "PAPER_WORKLOADS",
    "FrontierWorkload",
    "log_path",
    "made_up_workloads",
    "paper_workloads",
]

# Sequences that the cache of the logged runs holds.
_PAPER_ENTRIES = {"quality": 20, "system_prompts": 50}
PAPER_WORKLOADS = tuple(_PAPER_ENTRIES)
"""Names of those that are rebuilt from the paper's logs."""
MADE_UP_WORKLOADS = ("agents", "unique")
"""Names of those that need no log."""
_TITLES = {"quality": "Questions on documents", "system_prompts": "Shared system prompts"}
_SPECIAL = 3
# An odd number over the golden ratio: neighbours of a count come out far apart.
_MIX = 2_654_435_761


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierWorkload:
    """Requests in order of arrival.

    Attributes:
        name: In files and tables.
        title: For people.
        warmup: Computed before the first that is timed.
        requests: Timed.
        num_entries: How many prompts the largest budget should hold whole.
    """

    name: str
    title: str
    warmup: Sequence[TokenArray]
    requests: Sequence[TokenArray]
    num_entries: int

    @property
    def mean_tokens(self) -> float:
        """Of a prompt."""
        return float(np.mean([tokens.size for tokens in self.requests]))


def log_path(folder: Path, name: str) -> Path:
    """Return where the log of one of the paper's workloads lies."""
    return folder / f"{name}_clean_requests.jsonl"


def paper_workloads(
    folder: Path,
    *,
    names: Collection[str] = PAPER_WORKLOADS,
    shorter: int,
    num_requests: int,
    vocabulary_size: int,
) -> list[FrontierWorkload]:
    """Return the paper's two, from its logs.

    Args:
        folder: With ``quality_clean_requests.jsonl`` and ``system_prompts_clean_requests.jsonl``.
        names: Some of ``PAPER_WORKLOADS``.
        shorter: All lengths are divided by this.
        num_requests: The first so many.
        vocabulary_size: Of the model.

    Raises:
        TraceFormatError: a log is damaged, or holds nothing.
    """
    found = []
    for name, entries in _PAPER_ENTRIES.items():
        if name not in names:
            continue
        log = [_shortened(each, shorter) for each in read_log(log_path(folder, name))]
        if not log:
            raise TraceFormatError(f"{log_path(folder, name)} holds no request")
        rebuilt = rebuild(log[:num_requests], num_cached=entries, by_document=True)
        found.append(
            FrontierWorkload(
                name=name,
                title=_TITLES[name],
                warmup=[_mixed(each.tokens, vocabulary_size) for each in rebuilt.warmup],
                requests=[_mixed(each.tokens, vocabulary_size) for each in rebuilt.requests],
                num_entries=min(entries, num_requests // 2),
            )
        )
    return found


def made_up_workloads(*, shorter: int, num_requests: int, vocabulary_size: int) -> list[FrontierWorkload]:
    """Return agents' sessions, and traffic that shares nothing."""
    sizes = {"system": 10_000, "task": 400, "call": 120, "result": 600}
    options = ",".join(f"{name}={size // shorter}" for name, size in sizes.items())
    trace = open_synthetic(
        f"synthetic:agents,requests={num_requests},block=1,concurrency=6,steps=6,seed=1,{options}"
    )
    agents = [_mixed(request.keys, vocabulary_size) for request in trace]
    unique = np.random.default_rng(1).integers(
        _SPECIAL, vocabulary_size, (num_requests, 4_096 // shorter), dtype=np.int32
    )
    return [
        FrontierWorkload(
            name="agents", title="Agents", warmup=[], requests=agents, num_entries=num_requests // 4
        ),
        FrontierWorkload(
            name="unique",
            title="Nothing shared",
            warmup=[],
            requests=list(unique),
            num_entries=num_requests // 4,
        ),
    ]


def _shortened(logged: LoggedRequest, shorter: int) -> LoggedRequest:
    num_tokens = max(1, logged.num_tokens // shorter)
    depth = min(num_tokens, max(int(logged.is_hit), logged.overlap_depth // shorter))
    return replace(logged, num_tokens=num_tokens, overlap_depth=depth)


def _mixed(tokens: Iterable[int], vocabulary_size: int) -> TokenArray:
    """Return ids of a small vocabulary for ids that are counted on for ever."""
    counted = np.asarray(tokens, dtype=np.uint64)
    mixed = counted * np.uint64(_MIX) % np.uint64(1 << 32) >> np.uint64(16)
    return as_tokens(mixed % np.uint64(vocabulary_size - _SPECIAL) + np.uint64(_SPECIAL))
