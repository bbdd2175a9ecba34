"""How far from the best of all caches, and why: what is lost to not knowing the future, to planning prompt by
prompt, and to approximation.

    python -m benchmarks.regret --traces DIR [--full] [--exact] [--figure FOLDER] [--json]

For each trace and budget, what is reused by

    learned        the default policy
    jointly        its rates, but one plan for the whole tree of live prompts at each request
                   (:mod:`benchmarks.regret.learned_jointly`)
    clairvoyant    the future known; one prompt and one victim at a time (:mod:`milepost.policies.peers`)
    foreseen       the future known; one exact plan for the whole tree at each request
                   (:mod:`benchmarks.regret.foreseen`)
    bound          no schedule over time, whoever makes it (:mod:`benchmarks.regret.packing`)

and from these the regret, bound less learned, in parts that add up to it:

    not knowing    clairvoyant - learned: the same way of planning, but for what is known
    one prompt     foreseen - clairvoyant: the same knowledge, planned jointly
    approximation  bound - foreseen: deciding from request to request by a rate, and what a mixture of states
                   in the bound is above any schedule (``--exact`` looks for one in whole numbers)

Beside them, what joint planning is worth to who does not know the future: jointly - learned. That alone could
be had. Without ``--full``, the first requests of each trace at budgets that press on them as the budgets of
other pages do on whole traces: some minutes of one core; with it, an hour. ``--exact`` looks for the best
schedule in whole numbers as well, for at most a minute a point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.policies.points import CHECKPOINT_KV_TOKENS, TRACES
from benchmarks.printing import Row
from benchmarks.regret.foreseen import replay_foreseen
from benchmarks.regret.learned_jointly import replay_learned_jointly
from benchmarks.regret.packing import Optimum, optimum
from benchmarks.regret.prompt_tree import PromptTree
from milepost.simulator import Setting, nominal_footprint, simulate_all
from milepost.traces import TraceRequest, open_trace

__all__ = ["Regret", "measure", "regret_of", "row"]

_K, _M = 1_000, 1_000_000
# Of each trace: requests, and budgets in tokens of KV.
_SAMPLES = {
    "squality": (635, (100 * _K, 200 * _K)),
    "sharegpt": (1_500, (50 * _K, 100 * _K)),
    "codefile": (800, (100 * _K, 200 * _K)),
    "mooncake": (1_500, (_M, 3 * _M)),
    "agentic": (500, (250 * _K, 500 * _K)),
}
# More is worth a place in the online policy.
_WORTH_IT = 0.01
_EXACT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """One trace at one budget; everything in shares of the input tokens.

    Attributes:
        trace: Its name.
        capacity_kv_tokens: The budget.
        num_requests: How many were replayed.
        learned, jointly, clairvoyant, foreseen: What each reuses; see the module.
        bound: What no cache can reuse more than.
        schedule: What the best schedule reuses that was found in whole numbers, ``foreseen`` being one; None
            where none was looked for.
        ceiling: What endless memory reuses.
    """

    trace: str
    capacity_kv_tokens: int
    num_requests: int
    learned: float
    jointly: float
    clairvoyant: float
    foreseen: float
    bound: float
    schedule: float | None
    ceiling: float

    @property
    def total(self) -> float:
        """What the learned policy lacks to the bound."""
        return self.bound - self.learned

    @property
    def not_knowing(self) -> float:
        """The part that the requests to come would be needed for."""
        return self.clairvoyant - self.learned

    @property
    def one_prompt_at_a_time(self) -> float:
        """The part that is lost to planning prompt by prompt, the future known."""
        return self.foreseen - self.clairvoyant

    @property
    def approximation(self) -> float:
        """The part that is lost to deciding from request to request, the future known."""
        return self.bound - self.foreseen

    @property
    def to_be_had(self) -> float:
        """What planning jointly is worth without knowing the future."""
        return self.jointly - self.learned


def measure(
    folder: Path, *, full: bool = False, exact: bool = False, watch: Callable[[Regret], None] | None = None
) -> list[Regret]:
    """Return all points, trace by trace, from the traces in ``folder``."""
    found = []
    for trace in TRACES:
        num_requests, capacities = (None, trace.capacities) if full else _SAMPLES[trace.title]
        requests = list(islice(open_trace(trace.path_in(folder)), num_requests))
        tree = PromptTree.of(requests, grid=trace.block_tokens)
        for capacity in capacities:
            found.append(regret_of(trace.title, requests, tree, capacity, exact=exact))
            if watch is not None:
                watch(found[-1])
    return found


def regret_of(
    title: str, requests: Sequence[TraceRequest], tree: PromptTree, capacity: int, *, exact: bool = False
) -> Regret:
    """Return one point. The tree is that of the requests at their own blocks."""
    total = sum(tree.num_tokens)
    memory = {"capacity_tokens": capacity, "state_tokens": CHECKPOINT_KV_TOKENS}
    footprint = nominal_footprint(float(CHECKPOINT_KV_TOKENS))
    learned, clairvoyant = simulate_all(
        requests,
        [
            Setting(policy=policy, capacity_kv_tokens=capacity, footprint=footprint)
            for policy in ("learned", "clairvoyant")
        ],
        ceiling_fraction=tree.ceiling_tokens / total,
    )
    relaxed = optimum(tree, **memory)
    whole = Optimum(relaxed.bound, None)
    if exact:
        # Its own bound is one on states at the nodes alone, so it is no bound on all caches.
        whole = optimum(tree, **memory, exact=True, time_limit_seconds=_EXACT_SECONDS)
    foreseen = replay_foreseen(tree, **memory)
    jointly = replay_learned_jointly(requests, grid=requests[0].key_tokens, **memory)
    return Regret(
        trace=title,
        capacity_kv_tokens=capacity,
        num_requests=len(requests),
        learned=learned.reused_fraction,
        jointly=jointly / total,
        clairvoyant=clairvoyant.reused_fraction,
        foreseen=foreseen / total,
        bound=relaxed.bound / total,
        schedule=None if whole.found is None else max(whole.found, foreseen) / total,
        ceiling=tree.ceiling_tokens / total,
    )


def row(regret: Regret) -> Row:
    """Return the row of one point."""
    return Row(
        name=f"regret, {regret.trace} {regret.capacity_kv_tokens // _K:,}k, {regret.num_requests:,} requests",
        measured=f"{regret.total:.3f} = not knowing {regret.not_knowing:+.3f}, one prompt at a time "
        f"{regret.one_prompt_at_a_time:+.3f}, approximation {regret.approximation:+.3f}; jointly without "
        f"knowing {regret.to_be_had:+.3f}",
        target=f"jointly without knowing <= {_WORTH_IT:+}",
        reached=regret.to_be_had <= _WORTH_IT,
        numbers={
            "learned": regret.learned,
            "jointly": regret.jointly,
            "clairvoyant": regret.clairvoyant,
            "foreseen": regret.foreseen,
            "bound": regret.bound,
            **({} if regret.schedule is None else {"schedule": regret.schedule}),
            "ceiling": regret.ceiling,
        },
    )
