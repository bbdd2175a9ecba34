"""What KV events promise a router, and what the engine can resume: stock vLLM and the plugin, no model.

    python -m benchmarks.vllm.promises [--first SEED] [--count N] [--concurrency N] [--model NAME] [--json]

Routers that follow vLLM's KV events know its attention blocks alone. Of a hybrid model a prefix is worth
something only where its states are as well, so such an index promises more than can be resumed. Here one is
built from the events of each scheduler, over random chats, documents and agents in pools of all sizes
(`traffic/scenario.py`); before each request it is asked, and afterwards compared with what was resumed. Each
scheduler counts by itself: its own events against its own hits.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.vllm import options
from benchmarks.vllm.child import call
from benchmarks.vllm.routing.replica import Replica, publish_events
from benchmarks.vllm.servers.bare_config import bare_config
from benchmarks.vllm.servers.bare_server import BareServer
from benchmarks.vllm.servers.serving import serve
from benchmarks.vllm.servers.settings import MILEPOST, STOCK
from benchmarks.vllm.traffic.scenario import POOLS, Scenario, draw

__all__ = ["Outcome", "Question", "compare_all"]

_MOST_OF_STOCKS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one scheduler promised in a scenario, in tokens of all requests.

    Attributes:
        prompt_tokens: Of all prompts.
        resumed_tokens: Of those, what was resumed.
        over_tokens: What was promised beyond that, request by request.
        under_tokens: What was resumed beyond the promise.
    """

    seed: int
    kind: str
    pool: str
    setting: str
    prompt_tokens: int
    resumed_tokens: int
    over_tokens: int
    under_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which scenarios, the configuration of which model, and how many requests at a time if not its own."""

    folder: Path
    seeds: tuple[int, ...]
    concurrency: int | None = None


def compare_all(question: Question) -> list[Outcome]:
    """Return what comes of each scenario under each scheduler. It needs a process of its own."""
    return [outcome for seed in question.seeds for outcome in _compare(draw(seed), question)]


def _compare(scenario: Scenario, question: Question) -> Iterator[Outcome]:
    vllm_config, kv_cache_config = bare_config(
        question.folder,
        block_tokens=scenario.block_tokens,
        match_unit=scenario.match_unit,
        most_tokens=scenario.most_tokens + 1,
    )
    publish_events(vllm_config)
    for setting in (STOCK, MILEPOST):
        server = BareServer(
            vllm_config,
            kv_cache_config,
            setting=setting,
            num_blocks=scenario.num_blocks,
            block_tokens=scenario.block_tokens,
            match_unit=scenario.match_unit,
        )
        replica = Replica(server, block_tokens=scenario.block_tokens, match_unit=scenario.match_unit)
        served = serve(scenario.workload, replica, concurrency=question.concurrency or scenario.concurrency)
        gaps = [replica.promised_tokens[each.index] - each.cached_tokens for each in served]
        yield Outcome(
            seed=scenario.seed,
            kind=scenario.workload.name,
            pool=scenario.pool,
            setting=setting.name,
            prompt_tokens=sum(len(each.prompt) for each in served),
            resumed_tokens=sum(each.cached_tokens for each in served),
            over_tokens=sum(max(0, gap) for gap in gaps),
            under_tokens=sum(max(0, -gap) for gap in gaps),
        )


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(
        ("share of prompt tokens", "number", "stock: resumed", "promised beyond", "plugin: resumed",
         "promised beyond", "not promised", "beyond, x stock")
    ):  # fmt: skip
        table.add_column(heading, justify="right" if number else "left")
    for name, group in _groups(outcomes):
        shares = {
            (setting, field): sum(getattr(each, field) for each in group if each.setting == setting)
            / sum(each.prompt_tokens for each in group if each.setting == setting)
            for setting in (STOCK.name, MILEPOST.name)
            for field in ("resumed_tokens", "over_tokens", "under_tokens")
        }
        stock, plugin = shares[STOCK.name, "over_tokens"], shares[MILEPOST.name, "over_tokens"]
        table.add_row(
            name,
            str(len(group) // 2),
            f"{shares[STOCK.name, 'resumed_tokens']:.1%}",
            f"{stock:.1%}",
            f"{shares[MILEPOST.name, 'resumed_tokens']:.1%}",
            f"{plugin:.1%}",
            f"{shares[MILEPOST.name, 'under_tokens']:.1%}",
            f"{plugin / stock:.2f}" if stock else "",
        )
    return table


def _groups(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.kind].append(outcome)
    for pool in POOLS:
        groups[f"{pool} pool"] += [each for each in outcomes if each.pool == pool]
    groups["all"] += outcomes
    return ((name, group) for name, group in groups.items() if group)


def main() -> None:
    """Compare, print the table; exit 1 where the plugin promises more than a quarter of what stock does."""
    parser = options.new_parser("benchmarks.vllm.promises", __doc__)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed: 0")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="how many seeds: 100")
    parser.add_argument("--concurrency", type=int, metavar="N", help="requests at a time: the scenario's")
    arguments = options.parse(parser)
    seeds = tuple(range(arguments.first, arguments.first + arguments.count))
    with options.built_model(arguments.model) as folder:
        outcomes = call(
            "benchmarks.vllm.promises:compare_all",
            Question(folder=folder, seeds=seeds, concurrency=arguments.concurrency),
        )
    if arguments.json:
        for outcome in outcomes:
            print(json.dumps(asdict(outcome)))
    else:
        Console(width=150).print(_table(outcomes))
    over = {
        name: sum(o.over_tokens for o in outcomes if o.setting == name)
        for name in (STOCK.name, MILEPOST.name)
    }
    raise SystemExit(int(over[MILEPOST.name] > _MOST_OF_STOCKS * over[STOCK.name]))


if __name__ == "__main__":
    # By its name, so that the process that runs the scenarios knows the classes again.
    import_module("benchmarks.vllm.promises").main()
