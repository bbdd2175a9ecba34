"""One trace under every policy at every capacity, watched closely at one capacity.

All runs share one pass over the trace, so a pipe will do. The frontier needs nothing but their sums. What
happened inside is gathered at the *focus*, the middle capacity, where policies differ most: little memory
starves them all, and plenty forgives every mistake.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from milepost.errors import ConfigurationError
from milepost.footprint import Footprint, PrefillCost
from milepost.report.collect import (
    LogHistogram,
    LossWindows,
    OverlapEnds,
    PlacedPositions,
    PrefillEstimates,
    PromptSample,
)
from milepost.simulator import (
    NOMINAL_KV_BYTES_PER_TOKEN,
    ReplayedRequest,
    Setting,
    SimulationResult,
    WarmUp,
    simulate_all,
)
from milepost.traces import Trace, TraceRequest

__all__ = ["CLAIRVOYANT", "NO_CACHE", "PolicyView", "TraceStudy", "focus_of", "study_trace"]

#: Knows the future: not a competitor, and a bound but where memory holds one or two prompts.
CLAIRVOYANT = "clairvoyant"
#: Stores nothing: as good as no cache.
NO_CACHE = "none"
_BINS_PER_OCTAVE = 4


@dataclass(frozen=True, slots=True)
class PolicyView:
    """What one policy did at the focus."""

    policy: str
    losses: LossWindows
    prefill: PrefillEstimates
    sample: PromptSample = field(default_factory=PromptSample)
    placed: PlacedPositions = field(default_factory=PlacedPositions)

    def add(self, replayed: ReplayedRequest) -> None:
        """Watch one request."""
        self.losses.add(replayed.report)
        self.prefill.add(replayed.report)
        self.sample.add(replayed.request, replayed.placement, replayed.report)
        self.placed.add(replayed.request, replayed.placement)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStudy:
    """All that a report says about one trace.

    Attributes:
        trace: Its name, as its owner calls it: not to be trusted.
        footprint: What a checkpoint and a token of KV cost; None where only their ratio is known.
        policies: In the order asked for.
        capacities_kv_tokens: Ascending.
        focus_kv_tokens: The capacity of ``views``.
        results: Of every policy at every capacity, capacities within policies.
        views: One per policy, in order.
        cold: What the prompts cost without a cache.
        overlaps: Where they stop following earlier ones.
        lengths: Prompt lengths in tokens.
        notes: What the log held beside the requests, in a sentence each.
    """

    trace: str
    footprint: Footprint | None
    policies: tuple[str, ...]
    capacities_kv_tokens: tuple[int, ...]
    focus_kv_tokens: int
    results: tuple[SimulationResult, ...]
    views: tuple[PolicyView, ...]
    cold: PrefillEstimates
    overlaps: OverlapEnds
    lengths: LogHistogram
    notes: tuple[str, ...] = ()

    @property
    def kv_bytes_per_token(self) -> int | None:
        """Bytes that memory is counted in, those of a token of KV if there is any; None without a model."""
        return (
            None
            if self.footprint is None
            else self.footprint.kv_bytes_per_token or NOMINAL_KV_BYTES_PER_TOKEN
        )

    @property
    def prefills(self) -> tuple[tuple[str, PrefillEstimates], ...]:
        """What prompts cost under each policy, and first without a cache, which is what ``none`` is."""
        under = tuple((view.policy, view.prefill) for view in self.views)
        return under if NO_CACHE in self.policies else ((NO_CACHE, self.cold), *under)

    @property
    def num_requests(self) -> int:
        """Requests that the figures are about."""
        return self.results[0].num_requests

    @property
    def num_warm_up_requests(self) -> int:
        """Requests before those, which only warmed the caches up."""
        return self.results[0].num_warm_up_requests

    @property
    def input_tokens(self) -> int:
        """Prompt tokens of the trace."""
        return self.results[0].input_tokens

    @property
    def ceiling_fraction(self) -> float:
        """What endless memory with a state at every grid position would have reused."""
        return self.results[0].ceiling_fraction

    def result(self, policy: str, capacity_kv_tokens: int) -> SimulationResult:
        """Return the sums of one run."""
        at = self.policies.index(policy) * len(self.capacities_kv_tokens)
        return self.results[at + self.capacities_kv_tokens.index(capacity_kv_tokens)]

    def at_focus(self, policy: str) -> SimulationResult:
        """Return the sums of a policy's run at the focus."""
        return self.result(policy, self.focus_kv_tokens)

    def ranked(self) -> list[SimulationResult]:
        """Return the competitors' runs at the focus, the best first; those that know the future left out."""
        runs = [self.at_focus(policy) for policy in self.policies if policy != CLAIRVOYANT]
        return sorted(runs, key=lambda run: -run.reused_tokens)


def focus_of(capacities_kv_tokens: Sequence[int]) -> int:
    """Return the middle capacity, the smaller of two.

    >>> focus_of([400, 100, 200])
    200
    """
    ordered = sorted(capacities_kv_tokens)
    return ordered[(len(ordered) - 1) // 2]


def study_trace(
    requests: Iterable[TraceRequest],
    settings: Sequence[Setting],
    *,
    cost: PrefillCost,
    footprint: Footprint | None = None,
    grid: int | None = None,
    after: WarmUp | None = None,
    name: str | None = None,
    on_request: Callable[[], None] | None = None,
) -> TraceStudy:
    """Replay a trace and gather what its report needs.

    Args:
        requests: In order of arrival, all of one block size; read once.
        settings: Every policy at every capacity, in any order, of one footprint.
        cost: F(p), for the estimates of prefills.
        footprint: Of the model, so that memory is told in bytes; None where only the ratio is known.
        grid: Checkpoints sit at multiples of this many tokens; see :func:`milepost.simulator.simulate`.
        after: The beginning of the trace that is left out of all figures.
        name: What the report calls the trace; its own name unless given.
        on_request: Called after each request was served by all.

    Raises:
        MilepostError: an option breaks its rule, or the trace cannot be read.

    Complexity: as that many simulations; memory holds one cache each, and a fixed amount for all views.
    """
    policies = tuple(dict.fromkeys(setting.policy for setting in settings))
    capacities = tuple(sorted({setting.capacity_kv_tokens for setting in settings}))
    by_place = {(setting.policy, setting.capacity_kv_tokens): setting for setting in settings}
    if not settings or len(by_place) != len(policies) * len(capacities):
        raise ConfigurationError(
            f"{len(by_place)} settings of {len(policies)} policies at {len(capacities)} capacities; a report "
            "needs at least one, and every policy at every capacity"
        )
    focus = focus_of(capacities)
    views = {policy: PolicyView(policy, LossWindows(), PrefillEstimates(cost)) for policy in policies}
    cold, overlaps = PrefillEstimates(cost, is_cold=True), OverlapEnds()
    lengths = LogHistogram(bins_per_octave=_BINS_PER_OCTAVE)

    def watch(setting: Setting, replayed: ReplayedRequest) -> None:
        if setting.capacity_kv_tokens != focus:
            return
        views[setting.policy].add(replayed)
        if setting.policy == policies[0]:
            # Where prompts overlap is a fact of the trace: any policy's cache can tell.
            overlaps.add(replayed.trace_request, replayed.request)
            cold.add(replayed.report)
            lengths.add(replayed.report.num_tokens)

    named = name if name is not None else str(getattr(requests, "name", "requests"))
    ordered = [by_place[policy, capacity] for policy in policies for capacity in capacities]
    results = simulate_all(
        _counted(requests, on_request), ordered, grid=grid, observe=watch, after=after, name=named
    )
    return TraceStudy(
        trace=named,
        footprint=footprint,
        policies=policies,
        capacities_kv_tokens=capacities,
        focus_kv_tokens=focus,
        results=tuple(results),
        views=tuple(views.values()),
        cold=cold,
        overlaps=overlaps,
        lengths=lengths,
        notes=tuple(requests.facts.notes()) if isinstance(requests, Trace) else (),
    )


def _counted(
    requests: Iterable[TraceRequest], on_request: Callable[[], None] | None
) -> Iterator[TraceRequest]:
    for request in requests:
        yield request
        if on_request is not None:
            on_request()
