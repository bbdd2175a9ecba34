"""Whether the plugin ever finds less than stock vLLM: random scenarios, vLLM's own schedulers, no model.

    python -m benchmarks.vllm.scenarios [--first SEED] [--count N] [--loop LOOP] [--model NAME] [--json]

Each scenario is drawn from its seed (`traffic/scenario.py`): chats, documents, agents or some of each; blocks
of 16 to 2,048 tokens, every fourth with a match unit; pools from ample to tiny; one to four requests at a
time. Both schedulers get the same requests and make up the same answers. In total the plugin is to cache at
least what stock does; where the pool is ample and requests come one at a time, at every request. Whatever
falls short is listed by its seed. A thousand take about half an hour on a core.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.vllm import options
from benchmarks.vllm.child import call
from benchmarks.vllm.servers.bare_config import bare_config
from benchmarks.vllm.servers.bare_server import BareServer
from benchmarks.vllm.servers.serving import serve
from benchmarks.vllm.servers.settings import MILEPOST, STOCK
from benchmarks.vllm.servers.watch import SchedulerWatch
from benchmarks.vllm.traffic.scenario import KINDS, POOLS, Scenario, draw

__all__ = ["Outcome", "Question", "compare", "compare_all"]

_MOST_LISTED = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a scenario.

    Attributes:
        stock: Tokens that stock vLLM cached, ``plugin`` those of the plugin; by request in ``_by_request``.
        stock_steps: Times that the model would have run.
        num_stale: Checkpoints that the plugin believed in and that were not there.
    """

    seed: int
    kind: str
    block_tokens: int
    match_unit: int
    pool: str
    num_blocks: int
    concurrency: int
    prompt_tokens: int
    stock_by_request: tuple[int, ...]
    plugin_by_request: tuple[int, ...]
    stock_steps: int
    plugin_steps: int
    num_stale: int

    @property
    def stock(self) -> int:
        """Tokens that stock vLLM cached."""
        return sum(self.stock_by_request)

    @property
    def plugin(self) -> int:
        """Tokens that the plugin cached."""
        return sum(self.plugin_by_request)

    @property
    def must_hold_at_every_request(self) -> bool:
        """Whether there is room for everything, and nothing hangs on what runs side by side."""
        return self.pool == "ample" and self.concurrency == 1

    @property
    def falls_short(self) -> bool:
        """Whether the plugin found less than stock, in total or, where that has to hold, at a request."""
        if self.must_hold_at_every_request:
            return any(map(int.__lt__, self.plugin_by_request, self.stock_by_request))
        return self.plugin < self.stock


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which scenarios, on the configuration of which model, and whether the loop asks for the bitmask."""

    folder: Path
    seeds: tuple[int, ...]
    asks_bitmask: bool = True


def compare_all(question: Question) -> list[Outcome]:
    """Return what comes of each scenario. It needs a process of its own."""
    return [
        compare(draw(seed), folder=question.folder, asks_bitmask=question.asks_bitmask)
        for seed in question.seeds
    ]


def compare(scenario: Scenario, *, folder: Path, asks_bitmask: bool = True) -> Outcome:
    """Serve ``scenario`` under both schedulers."""
    vllm_config, kv_cache_config = bare_config(
        folder,
        block_tokens=scenario.block_tokens,
        match_unit=scenario.match_unit,
        most_tokens=scenario.most_tokens + 1,
    )
    found: dict[str, tuple[list[int], int, Any]] = {}
    for setting in (STOCK, MILEPOST):
        server = BareServer(
            vllm_config,
            kv_cache_config,
            setting=setting,
            num_blocks=scenario.num_blocks,
            block_tokens=scenario.block_tokens,
            match_unit=scenario.match_unit,
            asks_bitmask=asks_bitmask,
        )
        watch = SchedulerWatch(server.scheduler)
        served = serve(scenario.workload, server, concurrency=scenario.concurrency)
        watch.check_nothing_leaked()
        by_index = {request.index: request.cached_tokens for request in served}
        found[setting.name] = [by_index[at] for at in sorted(by_index)], watch.num_steps, server.scheduler
        prompt_tokens = sum(len(request.prompt) for request in served)
    return Outcome(
        seed=scenario.seed,
        kind=scenario.workload.name,
        block_tokens=scenario.block_tokens,
        match_unit=scenario.match_unit,
        pool=scenario.pool,
        num_blocks=scenario.num_blocks,
        concurrency=scenario.concurrency,
        prompt_tokens=prompt_tokens,
        stock_by_request=tuple(found[STOCK.name][0]),
        plugin_by_request=tuple(found[MILEPOST.name][0]),
        stock_steps=found[STOCK.name][1],
        plugin_steps=found[MILEPOST.name][1],
        num_stale=found[MILEPOST.name][2].checkpoint_manager.counts.stale,
    )


def _table(outcomes: Sequence[Outcome]) -> Table:
    """Return a row for each kind and pool, over blocks, and one for each block, over kinds."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(
        ("scenarios", "number", "stock", "plugin", "x stock", "least", "steps x", "fall short", "stale")
    ):
        shown.add_column(heading, justify="right" if number else "left")
    for name, group in _groups(outcomes):
        stock, plugin = sum(each.stock for each in group), sum(each.plugin for each in group)
        tokens = sum(each.prompt_tokens for each in group)
        ratios = [each.plugin / each.stock for each in group if each.stock]
        steps = sum(each.plugin_steps for each in group) / sum(each.stock_steps for each in group)
        shown.add_row(
            name,
            str(len(group)),
            f"{stock / tokens:.1%}",
            f"{plugin / tokens:.1%}",
            f"{plugin / stock:.3f}" if stock else "",
            f"{min(ratios):.3f}" if ratios else "",
            f"{steps:.3f}",
            str(sum(each.falls_short for each in group)),
            str(sum(each.num_stale for each in group)),
        )
    return shown


def _groups(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for kind in KINDS:
        for pool in POOLS:
            groups[f"{kind}, {pool} pool"] += [o for o in outcomes if (o.kind, o.pool) == (kind, pool)]
    for block in sorted({outcome.block_tokens for outcome in outcomes}):
        groups[f"blocks of {block:,} tokens"] += [o for o in outcomes if o.block_tokens == block]
    groups["one at a time"] += [o for o in outcomes if o.concurrency == 1]
    groups["side by side"] += [o for o in outcomes if o.concurrency > 1]
    groups["all"] += outcomes
    return ((name, group) for name, group in groups.items() if group)


def main() -> None:
    """Compare, print the table and the seeds that fall short; exit 1 where there are any."""
    parser = options.new_parser("benchmarks.vllm.scenarios", __doc__)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed: 0")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="how many seeds: 1000")
    parser.add_argument(
        "--loop", choices=("vllm", "embedder"), default="vllm", help="an embedder's asks for no bitmask"
    )
    arguments = options.parse(parser)
    seeds = tuple(range(arguments.first, arguments.first + arguments.count))
    with options.built_model(arguments.model) as folder:
        outcomes = call(
            "benchmarks.vllm.scenarios:compare_all",
            Question(folder=folder, seeds=seeds, asks_bitmask=arguments.loop == "vllm"),
        )
    short = [outcome for outcome in outcomes if outcome.falls_short]
    if arguments.json:
        for outcome in outcomes:
            print(json.dumps(asdict(outcome) | {"falls_short": outcome.falls_short}))
    else:
        console = Console()
        console.print(f"seeds {seeds[0]} to {seeds[-1]}")
        console.print(_table(outcomes))
        for outcome in short[:_MOST_LISTED]:
            console.print(
                f"seed {outcome.seed}: {outcome.kind}, {outcome.pool} pool, blocks of "
                f"{outcome.block_tokens}, unit {outcome.match_unit}, {outcome.concurrency} at a time: "
                f"{outcome.plugin:,} of stock's {outcome.stock:,}"
            )
        console.print(f"{len(short)} of {len(outcomes)} scenarios fall short of stock vLLM")
    raise SystemExit(int(bool(short)))


if __name__ == "__main__":
    # By its name, so that the process that runs the scenarios knows the classes again.
    import_module("benchmarks.vllm.scenarios").main()
