"""Whether the constants of the learned policy matter: each of them halved and doubled, one at a time.

    python -m benchmarks sensitivity [--traces DIR] [--json]

First a row for each trace, replayed by the policy as it is: one capacity each, all under pressure. Then a row
for each constant in each direction: by how much that moves what is reused, over these traces. ``NO`` marks
what matters within a factor of two: the mean moves by more than 1 %, or a single trace by more than 3 %, up
or down. ``DIR`` adds recorded traces to the made-up ones. All of it takes about ten minutes of one core.

Short traces are at the mercy of chance: one eviction decided the other way moves all that follow. So every
made-up trace is drawn from several seeds and counts with its mean; the number after ``±`` is half the range
over the seeds. A move well inside its own range says little about the constant.

A whole number is halved downwards. Of a decay it is the memory that is halved and doubled, of the priors of
kinds their ratio to that of a fresh prompt, of rows their number; ``_LAST_VERSION`` is an exponent, so it
moves by much more. Constants inside compiled code (``_UNIFORM_POINTS`` in :mod:`milepost.overlap.mixture`)
cannot be changed for a run, so they are not here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby, islice
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from benchmarks.policies.points import CHECKPOINT_KV_TOKENS, TRACES
from benchmarks.printing import Row
from milepost.overlap import OverlapModel
from milepost.simulator import SimulationResult, simulate
from milepost.traces import TraceRequest, open_trace

__all__ = ["CONSTANTS", "Constant", "Point", "constant_row", "measure", "moves"]

_MOST_OF_MEAN, _MOST_OF_ONE = 0.01, 0.03
_MOST_REQUESTS = 4_000
_K = 1_000
_SEEDS = (1, 2, 3)
_MADE_UP = {
    "documents,requests=800": 80 * _K,
    "chat,requests=1000": 40 * _K,
    "agents,requests=600": 160 * _K,
    "system-prompts,requests=1000": 20 * _K,
    "uniform,requests=800": 40 * _K,
    "drifting,requests=1000": 80 * _K,
}
# Those that replay in a second or two at their smallest capacity.
_RECORDED = tuple(trace for trace in TRACES if trace.title in {"squality", "sharegpt", "agentic"})
# Labels, what other modules count on, what only a prediction for a known branch point asks for, and what
# changes the time a request takes and nothing else.
_NOT_CHOSEN = {
    *("_FRESH", "_BRANCHED", "_CONTINUED", "_NEVER", "_OUTDATED", "NUM_AGE_BINS"),
    *("_BRANCH_PRIOR_RETURNS", "_BRANCH_PRIOR_DIVERGENCES", "_EXPORTED_SUMS"),
    *("_MOST_MARKED", "_MOST_RANKED_AHEAD"),
}


@dataclass(frozen=True, slots=True)
class Constant:
    """An entry of a module or of a constructor's defaults, and the values to try instead, by what to call
    them.
    """

    name: str
    namespace: dict[str, Any]
    others: Mapping[str, Any]

    @property
    def value(self) -> Any:
        return self.namespace[self.name]

    @contextmanager
    def set_to(self, value: Any) -> Iterator[None]:
        """Let it have another value; a policy that is built meanwhile uses that."""
        before = self.namespace[self.name]
        self.namespace[self.name] = value
        try:
            yield
        finally:
            self.namespace[self.name] = before


@dataclass(frozen=True, slots=True)
class Point:
    """One trace at one capacity. Those of one title are one made-up trace, drawn from several seeds."""

    title: str
    requests: Sequence[TraceRequest]
    capacity_kv_tokens: int

    def replay(self, *, ceiling_fraction: float | None = None) -> SimulationResult:
        return simulate(
            self.requests,
            policy="learned",
            capacity_kv_tokens=self.capacity_kv_tokens,
            checkpoint_kv_tokens=float(CHECKPOINT_KV_TOKENS),
            ceiling_fraction=ceiling_fraction,
        )


def measure(folder: Path | None = None) -> list[Row]:
    """Return a row for each trace, one for each constant and direction, and one for all of these."""
    points = [*_made_up(), *(_recorded(folder) if folder else ())]
    usual = [point.replay() for point in points]
    rows = [
        constant_row(f"{constant.name} {name}", moves(constant, value, points, usual))
        for constant in CONSTANTS
        for name, value in constant.others.items()
    ]
    return [*_point_rows(points, usual), *rows, _summary_row(rows)]


def moves(
    constant: Constant, value: Any, points: Sequence[Point], usual: Sequence[SimulationResult]
) -> dict[str, list[float]]:
    """Return by which share of the usual a value of a constant changes what is reused: by title, of each
    seed.
    """
    moved: dict[str, list[float]] = {}
    with constant.set_to(value):
        for point, before in zip(points, usual, strict=True):
            result = point.replay(ceiling_fraction=before.ceiling_fraction)
            moved.setdefault(point.title, []).append(result.reused_tokens / before.reused_tokens - 1.0)
    return moved


def _made_up() -> Iterator[Point]:
    for notation, capacity in _MADE_UP.items():
        title, _, _ = notation.partition(",")
        for seed in _SEEDS:
            yield Point(title, list(open_trace(f"synthetic:{notation},seed={seed}")), capacity)


def _recorded(folder: Path) -> Iterator[Point]:
    for trace in _RECORDED:
        if not trace.path_in(folder).is_file():
            Console(stderr=True).print(f"skipped: {folder} lacks {trace.file}", markup=False)
            continue
        requests = list(islice(open_trace(trace.path_in(folder)), _MOST_REQUESTS))
        yield Point(trace.title, requests, min(trace.capacities))


def _constants() -> Iterator[Constant]:
    """Yield every number that the policy names: a new one is a new row."""
    for module in (
        *("milepost.policies.learned", "milepost.policies.bids", "milepost.store.eviction_queue"),
        *("milepost.policies.reuse_model", "milepost.policies.generations"),
        *("milepost.reuse.hazard", "milepost.overlap.model", "milepost.overlap.component"),
    ):
        # By name, since the package has the policy's constructor under the name of its module.
        namespace = vars(import_module(module))
        for name, value in namespace.items():
            if name.isupper() and name not in _NOT_CHOSEN and isinstance(value, int | float | tuple):
                yield _constant(namespace, name)
    defaults = OverlapModel.__init__.__kwdefaults__
    assert defaults is not None
    for name, value in defaults.items():
        if value is not None:
            yield _constant(defaults, name)


def _constant(namespace: dict[str, Any], name: str) -> Constant:
    usual = namespace[name]
    others = _OTHERS.get(name, _halved_and_doubled)(usual)
    return Constant(name, namespace, {f"{_shown(usual)} -> {_shown(other)}": other for other in others})


def _halved_and_doubled(value: float) -> tuple[float, float]:
    return (value // 2 if isinstance(value, int) else value / 2), 2 * value


def _scaled_kinds(priors: tuple[float, ...]) -> list[tuple[float, ...]]:
    fresh, *others = priors
    return [(fresh, *(ratio * other for other in others)) for ratio in (0.5, 2.0)]


def _fewer_and_more_rows(rows: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Two rows in one; and a row for each generation listed, as far as there are rows."""
    num_wanted = 2 * (rows[-1] + 1)
    return [tuple(row // 2 for row in rows), tuple(range(num_wanted))]


_OTHERS: Mapping[str, Callable[[Any], Sequence[Any]]] = {
    "_KIND_PRIORS": _scaled_kinds,
    "_BRANCH_PRIORS": lambda priors: [tuple(ratio * prior for prior in priors) for ratio in (0.5, 2.0)],
    "_GENERATION_ROWS": _fewer_and_more_rows,
    "decay": lambda decay: [1.0 - ratio * (1.0 - decay) for ratio in (2.0, 0.5)],
}


def _shown(value: float | tuple[float, ...]) -> str:
    if not isinstance(value, tuple):
        return f"{value:.4g}"
    return f"{value[-1] + 1} rows" if value[0] == 0 else " ".join(map(_shown, value))


CONSTANTS = tuple(_constants())


def _point_rows(points: Sequence[Point], usual: Sequence[SimulationResult]) -> Iterator[Row]:
    pairs = zip(points, usual, strict=True)
    for title, of_title in groupby(pairs, key=lambda pair: pair[0].title):
        results = [result for _, result in of_title]
        reused = fmean(result.reused_fraction for result in results)
        ceiling = fmean(result.ceiling_fraction for result in results)
        yield Row(
            name=f"sensitivity, {title} {results[0].capacity_kv_tokens // _K:,}k",
            measured=f"reused {reused:.4f} of at most {ceiling:.4f}",
            target="under pressure",
            reached=reused < ceiling,
            numbers={"reused_fraction": reused, "ceiling_fraction": ceiling, "seeds": len(results)},
        )


def constant_row(name: str, moved: Mapping[str, Sequence[float]]) -> Row:
    """Return what one change does, given the share by which it moves each trace at each seed."""
    means = {title: fmean(seeds) for title, seeds in moved.items()}
    mean = fmean(means.values())

    def shown(title: str) -> str:
        half_range = (max(moved[title]) - min(moved[title])) / 2
        chance = f" ±{half_range:.1%}" if len(moved[title]) > 1 else ""
        return f"{means[title]:+.1%}{chance} ({title})"

    least, most = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    of_seeds = {
        f"{title}, {index}": move
        for title, seeds in moved.items()
        if len(seeds) > 1
        for index, move in enumerate(seeds)
    }
    return Row(
        name=f"sensitivity, {name}",
        measured=f"mean {mean:+.1%}, {shown(least)} to {shown(most)}",
        target=f"mean within {_MOST_OF_MEAN:.0%}, each {_MOST_OF_ONE:.0%}",
        reached=abs(mean) <= _MOST_OF_MEAN and max(map(abs, means.values())) <= _MOST_OF_ONE,
        numbers={"mean": mean, **means, **of_seeds},
    )


def _summary_row(rows: Sequence[Row]) -> Row:
    matter = [row for row in rows if not row.reached]
    names = ", ".join(dict.fromkeys(row.name.split()[1] for row in matter)) or "none"
    worst = min(float(row.numbers["mean"]) for row in rows)
    return Row(
        name="sensitivity, all of them",
        measured=f"{len(matter)} of {len(rows)} matter ({names}), worst mean {worst:+.1%}",
        target="none matters",
        reached=not matter,
        numbers={"changes": len(rows), "matter": len(matter), "worst_mean": worst},
    )
