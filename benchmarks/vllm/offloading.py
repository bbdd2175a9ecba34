"""A CPU tier behind the pool: what is found with it, and what is loaded, beside stock vLLM with the same.

    python -m benchmarks.vllm.offloading [--workload NAME ...] [--trace LOG] [--quick] [--model NAME] [--json]

vLLM's own schedulers and its OffloadingConnector, with made-up tokens and transfers that take no time: what
is found, stored and loaded does not hang on either. Pools are from tiny to ample, the tier holds four times
the pool, and requests come one and four at a time. Four rows for each:

    reused tokens, of pool and tier together, over those of stock vLLM, both with LRU in the tier
    the same with `milepost.vllm.TierPolicy` in the tier of the plugin
    blocks loaded for each reused token, over stock's; no less is wanted, no more either
    reused tokens with TierPolicy in the tier, over the better of LRU and ARC there

With the last goes what a tier that never lets anything go would give over the same: no policy gains more.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from benchmarks.printing import Row, print_rows
from benchmarks.vllm import options
from benchmarks.vllm.child import call
from benchmarks.vllm.servers.bare_config import bare_config
from benchmarks.vllm.servers.bare_server import BareServer
from benchmarks.vllm.servers.serving import serve
from benchmarks.vllm.servers.settings import MILEPOST, STOCK, Setting
from benchmarks.vllm.servers.tier import ARC, LRU, OURS, Tier
from benchmarks.vllm.servers.watch import SchedulerWatch
from benchmarks.vllm.traffic.asks import Workload

__all__ = ["Outcome", "Question", "measure", "try_all"]

_WORKLOADS = ("documents", "chat")
_BLOCK_TOKENS = 256
# Of the workload's own pool, which counts as small.
_POOLS = {"tiny": 0.25, "tight": 0.5, "small": 1.0, "ample": 6.0}
_IS_TIGHT = ("tiny", "tight")
_TIER_POOLS = 4
_LEAST_OVER_STOCK, _LEAST_OF_DOCUMENTS_OVER_STOCK = 1.0, 1.5
_MOST_LOADED_OVER_STOCK = 1.0
_LEAST_OVER_OTHERS = 1.15
# Longest prompt that the model of these benchmarks is configured for.
_MOST_TOKENS = 32_768
# A tier that holds all there ever is.
_ENDLESS, _ENDLESS_POOLS = "endless", 1_000
_RUNS = (
    (STOCK, LRU),
    (STOCK, ARC),
    (MILEPOST, LRU),
    (MILEPOST, ARC),
    (MILEPOST, OURS),
    (MILEPOST, _ENDLESS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one run."""

    pool: str
    concurrency: int
    setting: str
    policy: str
    cached_tokens: int
    prompt_tokens: int
    num_loaded: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to try, on the configuration of which model."""

    folder: Path
    workload: Workload
    concurrencies: tuple[int, ...]


def try_all(question: Question) -> list[Outcome]:
    """Return what comes of every run. It needs a process of its own."""
    return [
        _try(question, pool, concurrency, setting, policy)
        for pool in _POOLS
        for concurrency in question.concurrencies
        for setting, policy in _RUNS
    ]


def _try(question: Question, pool: str, concurrency: int, setting: Setting, policy: str) -> Outcome:
    workload = question.workload
    vllm_config, kv_cache_config = bare_config(
        question.folder, block_tokens=_BLOCK_TOKENS, match_unit=_BLOCK_TOKENS, most_tokens=_MOST_TOKENS
    )
    num_blocks = int(workload.pool_tokens * _POOLS[pool]) // _BLOCK_TOKENS
    num_pools, kept_by = (_ENDLESS_POOLS, LRU) if policy == _ENDLESS else (_TIER_POOLS, policy)
    server = BareServer(
        vllm_config,
        kv_cache_config,
        setting=setting,
        num_blocks=num_blocks,
        block_tokens=_BLOCK_TOKENS,
        match_unit=_BLOCK_TOKENS,
        tier=Tier(num_chunks=num_pools * num_blocks, policy=kept_by),
    )
    watch = SchedulerWatch(server.scheduler)
    served = serve(workload, server, concurrency=concurrency)
    return Outcome(
        pool=pool,
        concurrency=concurrency,
        setting=setting.name,
        policy=policy,
        cached_tokens=sum(each.cached_tokens for each in served),
        prompt_tokens=sum(len(each.prompt) for each in served),
        num_loaded=server.transfers.num_loaded,
        num_steps=watch.num_steps,
    )


def measure(workload: Workload, *, folder: Path, concurrencies: Sequence[int]) -> list[Row]:
    """Return four rows for each pool and concurrency."""
    outcomes = call(
        "benchmarks.vllm.offloading:try_all",
        Question(folder=folder, workload=workload, concurrencies=tuple(concurrencies)),
    )
    return [
        row
        for pool in _POOLS
        for concurrency in concurrencies
        for row in _rows(
            workload,
            pool,
            {
                (each.setting, each.policy): each
                for each in outcomes
                if (each.pool, each.concurrency) == (pool, concurrency)
            },
        )
    ]


def _rows(workload: Workload, pool: str, found: dict[tuple[str, str], Outcome]) -> list[Row]:
    stock, plugin = found[STOCK.name, LRU], found[MILEPOST.name, LRU]
    others = [found[MILEPOST.name, policy] for policy in (LRU, ARC)]
    ours, best = found[MILEPOST.name, OURS], max(others, key=lambda each: each.cached_tokens)
    of = f"{workload.name}, {pool} pool, {stock.concurrency} at a time"
    is_for_documents = workload.name == "documents" and pool in _IS_TIGHT
    least = _LEAST_OF_DOCUMENTS_OVER_STOCK if is_for_documents else _LEAST_OVER_STOCK
    rows = [
        _at_least(f"{of}: reused / stock", plugin, stock, _LEAST_OVER_STOCK),
        _at_least(f"{of}: the same with TierPolicy", ours, stock, least),
    ]
    if stock.num_loaded:
        loaded = (plugin.num_loaded / plugin.cached_tokens) / (stock.num_loaded / stock.cached_tokens)
        rows.append(
            Row(
                name=f"{of}: blocks loaded for a reused token / stock",
                measured=f"{loaded:.2f} ({plugin.num_loaded} and {stock.num_loaded} blocks)",
                target=f"<= {_MOST_LOADED_OVER_STOCK}",
                reached=loaded <= _MOST_LOADED_OVER_STOCK,
                numbers={"loaded": plugin.num_loaded, "loaded_by_stock": stock.num_loaded},
            )
        )
    # Where the tier holds everything, nothing can be gained by choosing.
    least = _LEAST_OVER_OTHERS if pool == "tiny" else 1.0
    row = _at_least(f"{of}: TierPolicy / the better of LRU and ARC", ours, best, least)
    endless = found[MILEPOST.name, _ENDLESS].cached_tokens
    return [
        *rows,
        replace(
            row,
            measured=f"{row.measured}; {endless / max(1, best.cached_tokens):.2f} without end",
            numbers=row.numbers | {"endless": endless},
        ),
    ]


def _at_least(name: str, ours: Outcome, theirs: Outcome, least: float) -> Row:
    ratio = ours.cached_tokens / theirs.cached_tokens if theirs.cached_tokens else float("inf")
    return Row(
        name=name,
        measured=f"{ratio:.2f} ({_share(ours):.1%} and {_share(theirs):.1%} of the prompts)",
        target=f">= {least}",
        reached=ratio >= least,
        numbers={"cached_tokens": ours.cached_tokens, "of": theirs.cached_tokens, "steps": ours.num_steps},
    )


def _share(outcome: Outcome) -> float:
    return outcome.cached_tokens / outcome.prompt_tokens


def main() -> None:
    """Compare on the named workloads, or on documents and chats; exit 1 where a target is missed."""
    parser = options.new_parser("benchmarks.vllm.offloading", __doc__)
    options.take_workloads(parser)
    arguments = options.parse(parser)
    chosen = options.chosen_workloads(parser, arguments, default=_WORKLOADS)
    with options.built_model(arguments.model) as folder:
        rows = [
            row
            for workload in chosen
            for row in measure(workload, folder=folder, concurrencies=arguments.concurrency)
        ]
    print_rows(rows, as_json=arguments.json)
    sys.exit(not all(row.reached for row in rows))


if __name__ == "__main__":
    # By its name, so that the process that runs it knows the classes again.
    import_module("benchmarks.vllm.offloading").main()
