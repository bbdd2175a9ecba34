"""Many settings on many traces, over all cores, resumable.

Each trace is surveyed once (its digest, its ceiling); then each point is a run of its own in one of the
processes, begun trace by trace, the longest trace first, so that a process parses each trace at most once.
Finished points go to a file at once. A second run finds them there, and what is complete is sorted: the file
depends on what was asked for, not on the order in which it was found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from milepost.errors import ConfigurationError
from milepost.policies import parse_policy
from milepost.simulator.result import SimulationResult
from milepost.simulator.result_file import PointKey, ResultFile, footprint_digest
from milepost.simulator.setting import Setting
from milepost.simulator.simulation import simulate_all
from milepost.simulator.trace_source import (
    TraceSource,
    TraceSurvey,
    distinct_names,
    forget_requests,
    requests_of,
    survey,
)
from milepost.simulator.warm_up import WarmUp
from milepost.simulator.workers import run_tasks

__all__ = ["SweepOutcome", "SweepPoint", "SweepProgress", "sweep"]


@final
@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One setting on one trace."""

    source: TraceSource
    setting: Setting


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SweepProgress:
    """How far a sweep is.

    Attributes:
        stage: What is being done.
        done: Requests that are through, and with a survey, traces.
        total: All of them, those found in the file not counted.
    """

    stage: str
    done: int
    total: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOutcome:
    """Results in the order of the points, the surveys of their traces by source, and how many results were
    found in the file.
    """

    results: tuple[SimulationResult, ...]
    surveys: dict[TraceSource, TraceSurvey]
    num_resumed: int


def sweep(
    points: Sequence[SweepPoint],
    *,
    jobs: int = 1,
    grid: int | None = None,
    after: WarmUp | None = None,
    output: Path | None = None,
    watch: Callable[[SweepProgress], None] | None = None,
) -> SweepOutcome:
    """Replay every point that the file does not have yet.

    Args:
        points: Of traces that can be read more than once.
        jobs: Processes at once; one runs here.
        grid: Checkpoints sit at multiples of this many tokens; see :func:`milepost.simulator.simulate`.
        after: The beginning of each trace that is left out of the figures.
        output: JSON lines, appended to as points finish and sorted at the end; nothing is kept without it.
        watch: Called whenever something is done.

    Raises:
        TraceFormatError: a trace cannot be read.
        ConfigurationError: an option, a policy or the file breaks its rule. Nothing was run.
        CapacityError: a budget cannot hold one checkpoint. Nothing was run.
        MilepostError: a process died.
        OSError: the file cannot be written.
    """
    notify = watch or (lambda _: None)
    # What can be refused at once is refused before anything is read.
    file = None if output is None else ResultFile(output)
    sources = list(dict.fromkeys(point.source for point in points))
    for source in sources:
        source.require_rereadable()
    for policy in dict.fromkeys(point.setting.policy for point in points):
        parse_policy(policy)
    if any(point.setting.is_of_an_engine for point in points):
        raise ConfigurationError(
            "segment_tokens, max_checkpoints or capture_tokens is set; results are kept by policy, memory "
            "and grid alone: leave them out"
        )
    names = dict(zip(sources, distinct_names(sources), strict=True))
    surveys = _survey_all(sources, grid=grid, after=after, jobs=jobs, notify=notify)
    keys = [_key_of(point, surveys[point.source]) for point in points]
    results: dict[PointKey, SimulationResult] = {}
    for point, key in zip(points, keys, strict=True):
        found = surveys[point.source]
        point.setting.build_cache(key_tokens=found.key_tokens, grid=found.grid)
        if file is not None and (known := file.get(key)) is not None:
            results[key] = known
    num_resumed = sum(key in results for key in keys)
    missing = {key: point for key, point in zip(keys, points, strict=True) if key not in results}
    queue = sorted(missing.items(), key=lambda item: _begin_order(item[1], surveys))
    progress = SweepProgress(
        stage="replaying", done=0, total=sum(surveys[point.source].num_requests for _, point in queue)
    )
    notify(progress)

    def take(index: int, result: SimulationResult) -> None:
        nonlocal progress
        key, point = queue[index]
        results[key] = result
        if file is not None:
            file.append(key, result)
        progress = replace(progress, done=progress.done + surveys[point.source].num_requests)
        notify(progress)

    arguments = [(point, names[point.source], surveys[point.source]) for _, point in queue]
    try:
        run_tasks(_run_point, arguments, jobs=jobs, take=take)
    finally:
        forget_requests()
    if file is not None:
        file.finish()
    return SweepOutcome(
        results=tuple(
            replace(results[key], trace=names[point.source]) for point, key in zip(points, keys, strict=True)
        ),
        surveys=surveys,
        num_resumed=num_resumed,
    )


def _survey_all(
    sources: Sequence[TraceSource],
    *,
    grid: int | None,
    after: WarmUp | None,
    jobs: int,
    notify: Callable[[SweepProgress], None],
) -> dict[TraceSource, TraceSurvey]:
    surveys: dict[TraceSource, TraceSurvey] = {}

    def take(index: int, found: TraceSurvey) -> None:
        surveys[sources[index]] = found
        notify(SweepProgress(stage="reading", done=len(surveys), total=len(sources)))

    notify(SweepProgress(stage="reading", done=0, total=len(sources)))
    run_tasks(_survey, [(source, grid, after) for source in sources], jobs=jobs, take=take)
    return surveys


def _key_of(point: SweepPoint, found: TraceSurvey) -> PointKey:
    return PointKey(
        trace_digest=found.digest,
        grid=found.grid,
        footprint=footprint_digest(point.setting.footprint),
        policy=point.setting.policy,
        capacity_kv_tokens=point.setting.capacity_kv_tokens,
        num_warm_up_requests=found.num_warm_up_requests,
    )


def _begin_order(point: SweepPoint, surveys: dict[TraceSource, TraceSurvey]) -> tuple[int, str]:
    return -surveys[point.source].num_requests, point.source.path


def _survey(source: TraceSource, grid: int | None, after: WarmUp | None) -> TraceSurvey:
    return survey(source, grid=grid, after=after)


def _run_point(point: SweepPoint, name: str, found: TraceSurvey) -> SimulationResult:
    (result,) = simulate_all(
        requests_of(point.source),
        [point.setting],
        grid=found.grid,
        ceiling_fraction=found.ceiling_fraction,
        after=WarmUp(requests=found.num_warm_up_requests),
        name=name,
    )
    return result
