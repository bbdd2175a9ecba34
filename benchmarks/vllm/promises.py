"""What KV events promise a router, and what the engine can resume: stock vLLM and the plugin, no model.

    python -m benchmarks.vllm.promises [--first SEED] [--count N] [--concurrency N] [--model NAME] [--json]

Routers that follow vLLM's KV events know its attention blocks alone. Of a hybrid model a prefix is worth
something only where its states are as well, so such an index promises more than can be resumed. Here one is
built from the events of each scheduler, over random chats, documents and agents in pools of all sizes
(`traffic/scenario.py`); before each request it is asked, and afterwards compared with what was resumed. Each
scheduler counts by itself: its own events against its own hits.

What it promises too much has two causes, which are told apart: nothing to resume from lay there even when the
request came (its prompt *parts* from the others between two states), or it has *gone* until it was admitted.
The first no index of attention blocks can avoid that is read block by block: of a prompt whose only state is
at its end, who goes on from it finds all of it, and who parts from it half way nothing, and the blocks of the
first half cannot promise both. So beside it stands the index of the same events that a router could keep,
which takes in states as well (`routing/resumable_index.py`).
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
from benchmarks.vllm.servers.serving import Served, serve
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
        parted_tokens: What the attention blocks promised beyond that, request by request, where nothing could
            be resumed from even when it came.
        gone_tokens: The same, where it could be then.
        under_tokens: What was resumed beyond the promise.
        exact_over_tokens: What attention blocks and states together promised beyond what was resumed.
        exact_under_tokens: What was resumed beyond that promise.
    """

    seed: int
    kind: str
    pool: str
    setting: str
    prompt_tokens: int
    resumed_tokens: int
    parted_tokens: int
    gone_tokens: int
    under_tokens: int
    exact_over_tokens: int
    exact_under_tokens: int

    @property
    def over_tokens(self) -> int:
        """What the attention blocks promised beyond what was resumed."""
        return self.parted_tokens + self.gone_tokens


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
        yield _outcome(scenario, setting.name, replica, served)


def _outcome(scenario: Scenario, setting: str, replica: Replica, served: Sequence[Served]) -> Outcome:
    parted = gone = under = exact_over = exact_under = 0
    for each in served:
        promised, resumed = replica.promised_tokens[each.index], each.cached_tokens
        resumable = replica.resumable_tokens[each.index]
        parted += max(0, promised - max(resumable, resumed))
        gone += max(0, min(promised, resumable) - resumed)
        under += max(0, resumed - promised)
        exact_over += max(0, resumable - resumed)
        exact_under += max(0, resumed - resumable)
    return Outcome(
        seed=scenario.seed,
        kind=scenario.workload.name,
        pool=scenario.pool,
        setting=setting,
        prompt_tokens=sum(len(each.prompt) for each in served),
        resumed_tokens=sum(each.cached_tokens for each in served),
        parted_tokens=parted,
        gone_tokens=gone,
        under_tokens=under,
        exact_over_tokens=exact_over,
        exact_under_tokens=exact_under,
    )


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    headings = (
        *("share of prompt tokens", "number", "resumed", "promised beyond", "parted", "gone", "not promised"),
        *("with states: beyond", "not promised", "beyond, x stock"),
    )
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for name, group in _groups(outcomes):
        stocks = [each for each in group if each.setting == STOCK.name]
        for setting in (STOCK.name, MILEPOST.name):
            own = [each for each in group if each.setting == setting]
            shares = (_share(own, field) for field in _FIELDS)
            stock = _share(stocks, "over_tokens")
            ratio = f"{_share(own, 'over_tokens') / stock:.2f}" if stock else ""
            table.add_row(f"{name}, {setting}", str(len(own)), *(f"{each:.2%}" for each in shares), ratio)
    return table


_FIELDS = (
    *("resumed_tokens", "over_tokens", "parted_tokens", "gone_tokens", "under_tokens"),
    *("exact_over_tokens", "exact_under_tokens"),
)


def _share(outcomes: Sequence[Outcome], field: str) -> float:
    return _total(outcomes, field) / _total(outcomes, "prompt_tokens")


def _total(outcomes: Sequence[Outcome], field: str) -> int:
    return sum(getattr(each, field) for each in outcomes)


def _groups(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.kind].append(outcome)
    for pool in POOLS:
        groups[f"{pool} pool"] += [each for each in outcomes if each.pool == pool]
    groups["all"] += outcomes
    return ((name, group) for name, group in groups.items() if group)


def main() -> None:
    """Compare, print the table; exit 1 where the plugin's attention blocks and states promise beyond what can
    be resumed more than a quarter of what stock vLLM's attention blocks do.
    """
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
    stocks = [each for each in outcomes if each.setting == STOCK.name]
    plugins = [each for each in outcomes if each.setting == MILEPOST.name]
    left, beyond = _total(plugins, "exact_over_tokens"), _total(stocks, "over_tokens")
    raise SystemExit(int(left > _MOST_OF_STOCKS * beyond))


if __name__ == "__main__":
    # By its name, so that the process that runs the scenarios knows the classes again.
    import_module("benchmarks.vllm.promises").main()
