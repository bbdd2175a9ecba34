"""Replays of many settings, each once: what they reuse, and what that saves of the cost of prefilling."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np

from milepost.recommend.engine import Candidate
from milepost.simulator import ReplayedRequest, Setting, SimulationResult, WarmUp, simulate_all
from milepost.simulator.setting import NOMINAL_KV_BYTES_PER_TOKEN
from milepost.traces import TraceRequest

__all__ = ["Evaluator", "Outcome", "Watch"]

# Wraps the requests of one pass, to show how far it is; told what the pass is about.
Watch: TypeAlias = Callable[[Sequence[TraceRequest], str], Iterable[TraceRequest]]
Observer: TypeAlias = Callable[[ReplayedRequest], None]
_Key: TypeAlias = tuple[Setting, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one setting did.

    Attributes:
        result: As of any simulation.
        saved_cost: Cost of prefilling that was not paid, in the unit of the footprint's cost.
        total_cost: Cost of prefilling everything.
    """

    result: SimulationResult
    saved_cost: float
    total_cost: float

    @property
    def saved_cost_fraction(self) -> float:
        """Share of the cost that was saved."""
        return self.saved_cost / self.total_cost if self.total_cost else 0.0


@final
class Evaluator:
    """Replays candidates on one trace, one pass for each grid, never the same setting twice.

    Args:
        requests: The trace.
        name: Its name.
        capacity_bytes: The memory of every candidate.
        watch: Shows progress.
        num_warm_up_requests: Requests at the beginning that are left out of the figures.
    """

    def __init__(
        self,
        requests: Sequence[TraceRequest],
        *,
        name: str,
        capacity_bytes: int,
        watch: Watch | None,
        num_warm_up_requests: int = 0,
    ) -> None:
        self._requests = requests
        self._num_warm_up_requests = num_warm_up_requests
        self._name = name
        self._capacity_bytes = capacity_bytes
        self._watch: Watch = watch or (lambda requests, label: requests)
        self._outcomes: dict[_Key, Outcome] = {}
        self._ceilings: dict[int, float] = {}

    def evaluate(
        self, candidates: Iterable[Candidate], *, label: str, observer: Observer | None = None
    ) -> None:
        """Replay those of ``candidates`` that were not replayed yet.

        Args:
            candidates: Settings to try.
            label: What the pass is about, for who watches.
            observer: Told of every request, as the first candidate met it.

        Raises:
            ConfigurationError: a policy's notation has a mistake.
            CapacityError: the memory cannot hold one state of a candidate.
        """
        by_grid: dict[int, dict[Setting, None]] = {}
        for candidate in candidates:
            setting = self._setting(candidate)
            if (setting, candidate.grid) not in self._outcomes:
                by_grid.setdefault(candidate.grid, {})[setting] = None
        for grid, settings in by_grid.items():
            self._replay(list(settings), grid, label, observer)

    def outcome(self, candidate: Candidate) -> Outcome:
        """Return what a candidate did that was replayed before."""
        return self._outcomes[self._setting(candidate), candidate.grid]

    def _setting(self, candidate: Candidate) -> Setting:
        unit_bytes = candidate.footprint.kv_bytes_per_token or NOMINAL_KV_BYTES_PER_TOKEN
        return Setting(
            policy=candidate.policy,
            capacity_kv_tokens=self._capacity_bytes // unit_bytes,
            footprint=candidate.footprint,
            segment_tokens=candidate.segment_tokens,
            max_checkpoints=candidate.max_checkpoints,
            capture_tokens=candidate.capture_tokens,
        )

    def _replay(self, settings: list[Setting], grid: int, label: str, observer: Observer | None) -> None:
        lengths = array("q", (request.num_tokens for request in self._requests[self._num_warm_up_requests :]))
        resumed = {setting: array("q") for setting in settings}

        def observe(setting: Setting, replayed: ReplayedRequest) -> None:
            resumed[setting].append(replayed.report.reused)
            if observer is not None and setting is settings[0]:
                observer(replayed)

        results = simulate_all(
            self._watch(self._requests, label),
            settings,
            grid=grid,
            observe=observe,
            name=self._name,
            ceiling_fraction=self._ceilings.get(grid),
            after=WarmUp(requests=self._num_warm_up_requests),
        )
        for setting, result in zip(settings, results, strict=True):
            self._ceilings[grid] = result.ceiling_fraction
            cost = setting.footprint.cost
            self._outcomes[setting, grid] = Outcome(
                result,
                saved_cost=float(cost(np.array(resumed[setting], np.int64)).sum()),
                total_cost=float(cost(np.array(lengths, np.int64)).sum()),
            )
