"""What routing by KV events and by published worth gives over prefix affinity: two replicas, no model.

    python -m benchmarks.vllm.fleet [--first SEED] [--count N] [--model NAME] [--json]

Random chats, documents and agents (`traffic/scenario.py`) come to two replicas, twice as many requests at a
time as the scenario has; routers are those of `routing/routers.py`. `replicas.py` runs two real ones.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.vllm import options
from benchmarks.vllm.child import call
from benchmarks.vllm.routing.fleet import Fleet
from benchmarks.vllm.routing.replica import Replica, publish_events
from benchmarks.vllm.routing.routers import ROUTERS
from benchmarks.vllm.servers.bare_config import bare_config
from benchmarks.vllm.servers.bare_server import BareServer
from benchmarks.vllm.servers.serving import serve
from benchmarks.vllm.servers.settings import MILEPOST, STOCK
from benchmarks.vllm.traffic.scenario import Scenario, draw

__all__ = ["Outcome", "Question", "serve_all"]

_NUM_REPLICAS = 2
_BASELINE = "affinity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which scenarios, and the configuration of which model."""

    folder: Path
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one fleet made of a scenario; ``busiest_tokens`` is what the busiest replica computed."""

    seed: int
    kind: str
    pool: str
    setting: str
    router: str
    prompt_tokens: int
    cached_tokens: int
    busiest_tokens: int


def serve_all(question: Question) -> list[Outcome]:
    """Return what each fleet made of each scenario. It needs a process of its own."""
    return [outcome for seed in question.seeds for outcome in _serve(draw(seed), question.folder)]


def _serve(scenario: Scenario, folder: Path) -> Iterator[Outcome]:
    block_tokens, match_unit = scenario.block_tokens, scenario.match_unit
    vllm_config, kv_cache_config = bare_config(
        folder, block_tokens=block_tokens, match_unit=match_unit, most_tokens=scenario.most_tokens + 1
    )
    publish_events(vllm_config)
    for setting in (STOCK, MILEPOST):
        for name, new_router in ROUTERS.items():
            servers = [
                BareServer(
                    vllm_config,
                    kv_cache_config,
                    setting=setting,
                    num_blocks=scenario.num_blocks,
                    block_tokens=block_tokens,
                    match_unit=match_unit,
                )
                for _ in range(_NUM_REPLICAS)
            ]
            replicas = [Replica(each, block_tokens=block_tokens, match_unit=match_unit) for each in servers]
            fleet = Fleet(replicas, new_router(), block_tokens=block_tokens)
            served = serve(scenario.workload, fleet, concurrency=_NUM_REPLICAS * scenario.concurrency)
            yield Outcome(
                seed=scenario.seed,
                kind=scenario.workload.name,
                pool=scenario.pool,
                setting=setting.name,
                router=name,
                prompt_tokens=sum(len(each.prompt) for each in served),
                cached_tokens=sum(each.cached_tokens for each in served),
                busiest_tokens=max(fleet.computed_tokens),
            )


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    headings = (
        *("two replicas", "cached", "x affinity", "computed by the busier one, x affinity"),
        "cached in tiny and small pools",
    )
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for setting in (STOCK.name, MILEPOST.name):
        own = [each for each in outcomes if each.setting == setting]
        base = [each for each in own if each.router == _BASELINE]
        for name in ROUTERS:
            group = [each for each in own if each.router == name]
            short = [each for each in group if each.pool in ("tiny", "small")]
            table.add_row(
                f"{setting}, {name}",
                f"{_total(group, 'cached_tokens') / _total(group, 'prompt_tokens'):.1%}",
                f"{_total(group, 'cached_tokens') / max(1, _total(base, 'cached_tokens')):.2f}",
                f"{_total(group, 'busiest_tokens') / max(1, _total(base, 'busiest_tokens')):.2f}",
                f"{_total(short, 'cached_tokens') / max(1, _total(short, 'prompt_tokens')):.1%}",
            )
    return table


def _total(outcomes: Sequence[Outcome], field: str) -> int:
    return sum(getattr(each, field) for each in outcomes)


def main() -> None:
    """Serve, and print the table."""
    parser = options.new_parser("benchmarks.vllm.fleet", __doc__)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed: 0")
    parser.add_argument("--count", type=int, default=60, metavar="N", help="how many seeds: 60")
    arguments = options.parse(parser)
    seeds = tuple(range(arguments.first, arguments.first + arguments.count))
    with options.built_model(arguments.model) as folder:
        outcomes = call("benchmarks.vllm.fleet:serve_all", Question(folder=folder, seeds=seeds))
    if arguments.json:
        for outcome in outcomes:
            print(json.dumps(asdict(outcome)))
    else:
        Console(width=120).print(_table(outcomes))


if __name__ == "__main__":
    # By its name, so that the process that runs the schedulers knows the classes again.
    import_module("benchmarks.vllm.fleet").main()
