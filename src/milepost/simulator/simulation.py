"""Policies and capacities on one trace, in one pass.

The trace is read once and every run takes each request in turn, so memory holds the caches and one request,
never the trace, and a pipe will do. What grows with the trace is the ceiling (see its module), and a policy
that is told the future. Runs know nothing of one another: together or one by one, they give the same numbers.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TypeAlias, final

from milepost.errors import TraceFormatError
from milepost.footprint import Footprint
from milepost.prefix_cache import PrefixCache
from milepost.simulator.ceiling import Ceiling
from milepost.simulator.replay import ReplayedRequest, Replayer
from milepost.simulator.result import LostTokens, SimulationResult
from milepost.simulator.setting import Setting, grid_for, nominal_footprint
from milepost.simulator.warm_up import WarmUp, WarmUpEnd
from milepost.traces import TraceRequest

__all__ = ["Clock", "simulate", "simulate_all"]

# Returns seconds from some start on.
Clock: TypeAlias = Callable[[], float]


def simulate(
    requests: Iterable[TraceRequest],
    *,
    policy: str,
    capacity_kv_tokens: int,
    checkpoint_kv_tokens: float | Footprint,
    grid: int | None = None,
    observe: Callable[[ReplayedRequest], None] | None = None,
    clock: Clock | None = None,
    ceiling_fraction: float | None = None,
    after: WarmUp | None = None,
    name: str | None = None,
) -> SimulationResult:
    """Replay ``requests`` under one policy at one capacity.

    Args:
        requests: In order of arrival, all of one block size.
        policy: Notation of the policy (see :func:`milepost.policies.parse_policy`).
        capacity_kv_tokens: The one budget, over checkpoints and KV, in tokens of KV.
        checkpoint_kv_tokens: Price of a checkpoint in tokens of KV, or the footprint of a model.
        grid: Checkpoints sit at multiples of this many tokens; the trace's blocks, or 64 tokens where it has
            token ids, unless given.
        observe: Called with each request once it is served.
        clock: Measures the cache's own work (:func:`time.process_time`); without one, ``seconds`` is None and
            the result depends on the arguments alone.
        ceiling_fraction: What the ceiling of this trace and grid is known to be; found in the same pass
            unless given.
        after: The beginning that is replayed and left out of all figures, and of what is observed.
        name: What the result calls the trace; its own name unless given.

    Raises:
        TraceFormatError: there is no request, or the trace cannot be read on.
        InvalidRequestError: the requests have different block sizes.
        ConfigurationError: an option breaks its rule, or the warm-up leaves nothing to count.
        CapacityError: the budget cannot hold one checkpoint.

    >>> from milepost.traces import open_trace
    >>> trace = open_trace("synthetic:documents,requests=50,seed=1")
    >>> result = simulate(trace, policy="tail", capacity_kv_tokens=200_000, checkpoint_kv_tokens=1_536)
    >>> result.num_requests, result.reused_fraction <= result.ceiling_fraction
    (50, True)
    """
    priced = checkpoint_kv_tokens
    setting = Setting(
        policy=policy,
        capacity_kv_tokens=capacity_kv_tokens,
        footprint=priced if isinstance(priced, Footprint) else nominal_footprint(priced),
    )
    (result,) = simulate_all(
        requests,
        [setting],
        grid=grid,
        clock=clock,
        ceiling_fraction=ceiling_fraction,
        after=after,
        name=name,
        observe=None if observe is None else lambda _, replayed: observe(replayed),
    )
    return result


def simulate_all(
    requests: Iterable[TraceRequest],
    settings: Sequence[Setting],
    *,
    grid: int | None = None,
    observe: Callable[[Setting, ReplayedRequest], None] | None = None,
    clock: Clock | None = None,
    ceiling_fraction: float | None = None,
    after: WarmUp | None = None,
    name: str | None = None,
) -> list[SimulationResult]:
    """Replay ``requests`` under each of ``settings`` in one pass; see :func:`simulate`."""
    if name is None:
        name = str(getattr(requests, "name", "requests"))
    pending = iter(requests)
    first = next(pending, None)
    if first is None:
        raise TraceFormatError(f"trace {name!r} holds no request; give one with at least one")
    key_tokens = first.key_tokens
    grid = grid_for(key_tokens, grid=grid)
    runs = [
        _Run(setting, setting.build_cache(key_tokens=key_tokens, grid=grid), clock) for setting in settings
    ]
    served: Iterable[TraceRequest] = chain((first,), pending)
    after = after or WarmUp()
    if after.share is not None or any(run.needs_future for run in runs):
        served = everything = list(served)
        after = WarmUp(requests=after.number_of(everything))
        for run in runs:
            run.foresee(everything)
    ceiling = None if ceiling_fraction is not None else Ceiling(key_tokens=key_tokens, grid=grid)
    end, is_counted = WarmUpEnd(after), False
    for trace_request in served:
        if end.add(trace_request) and not is_counted:
            is_counted = True
            for run in runs:
                run.begin_counting()
        if ceiling is not None:
            ceiling.step(trace_request)
        for run in runs:
            replayed = run.step(trace_request)
            if is_counted and observe is not None:
                observe(run.setting, replayed)
    number = end.number()
    if ceiling is not None:
        ceiling_fraction = ceiling.fraction(after=number)
    assert ceiling_fraction is not None
    return [run.result(name=name, ceiling_fraction=ceiling_fraction) for run in runs]


@final
class _Run:
    """One setting on its way through the trace."""

    def __init__(self, setting: Setting, cache: PrefixCache, clock: Clock | None) -> None:
        self.setting = setting
        self._replayer = Replayer(cache, segment_tokens=setting.segment_tokens)
        self._prepare = cache.policy.prepare
        self._clock = clock
        self._seconds = 0.0
        self._before = cache.statistics()

    @property
    def needs_future(self) -> bool:
        return self._prepare is not None

    def foresee(self, requests: Sequence[TraceRequest]) -> None:
        """Tell a policy that knows the future what will come."""
        if self._prepare is not None:
            self._prepare(requests)

    def begin_counting(self) -> None:
        """Leave everything so far out of the result."""
        held = self._before = self._replayer.cache.statistics()
        self._replayer.peak_bytes = held.kv_bytes + held.checkpoint_bytes
        self._seconds = 0.0

    def step(self, trace_request: TraceRequest) -> ReplayedRequest:
        if self._clock is None:
            return self._replayer.step(trace_request)
        started = self._clock()
        replayed = self._replayer.step(trace_request)
        self._seconds += self._clock() - started
        return replayed

    def result(self, *, name: str, ceiling_fraction: float) -> SimulationResult:
        total, before = self._replayer.cache.statistics(), self._before
        num_requests = total.num_requests - before.num_requests
        input_tokens = total.num_tokens - before.num_tokens
        reused_tokens = total.reused - before.reused
        return SimulationResult(
            trace=name,
            policy=self.setting.policy,
            capacity_kv_tokens=self.setting.capacity_kv_tokens,
            checkpoint_kv_tokens=self.setting.checkpoint_kv_tokens,
            num_requests=num_requests,
            input_tokens=input_tokens,
            reused_tokens=reused_tokens,
            reused_fraction=reused_tokens / input_tokens,
            ceiling_fraction=ceiling_fraction,
            mean_checkpoints_per_request=(total.checkpoints_stored - before.checkpoints_stored)
            / num_requests,
            peak_kv_tokens=self._replayer.peak_bytes / self.setting.unit_bytes,
            has_kv=self.setting.footprint.kv_bytes_per_token > 0,
            lost=LostTokens(
                unseen=total.unseen - before.unseen,
                placement=total.placement - before.placement,
                eviction=total.eviction - before.eviction,
                alignment=total.alignment - before.alignment,
            ),
            seconds=None if self._clock is None else self._seconds,
            num_warm_up_requests=before.num_requests,
        )
