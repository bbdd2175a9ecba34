"""How much of what replicas find hangs on who comes first: both schedulers in the same orders, no model.

    python -m benchmarks.vllm.orders [--orders N] [--requests N] [--model NAME] [--json]

The sessions that `replicas.py` asks of running servers, in random orders: of four sessions at a time, any
goes on next. In turn they go to two replicas, of the same blocks and pools as there, and each replica serves
its own in that order, once with stock vLLM's scheduler and once with the plugin's. So nothing differs between
the two but the scheduler: neither who serves what, nor in which order. What differs from one order to the
next is what who comes first is worth. Beside it stands what blocks and states promised when a request came,
beyond what it found, and how much of that had been evicted until it was admitted.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from statistics import mean, median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.vllm import options
from benchmarks.vllm.child import call
from benchmarks.vllm.routing.replica import Replica, publish_events
from benchmarks.vllm.servers.bare_config import bare_config
from benchmarks.vllm.servers.bare_server import BareServer
from benchmarks.vllm.servers.serving import serve
from benchmarks.vllm.servers.settings import MILEPOST, STOCK, Setting
from benchmarks.vllm.traffic.asks import Ask, TokenArray, Workload
from benchmarks.vllm.traffic.sessions import Session, draw_sessions, order_of

__all__ = ["Outcome", "Question", "serve_orders"]

# As `replicas.py` starts its servers; vLLM makes blocks of 192 tokens of 64 for that model.
_NUM_REPLICAS, _NUM_BLOCKS, _BLOCK_TOKENS, _MATCH_UNIT = 2, 120, 192, 64
_MOST_TOKENS, _ANSWER_TOKENS = 8192, 16
_AT_A_TIME = (1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which orders of how many requests, how many of them a replica works on at most, at a time; and the
    configuration of which model.
    """

    folder: Path
    orders: tuple[int, ...]
    num_requests: int = 48
    at_a_time: tuple[int, ...] = _AT_A_TIME


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What both schedulers found in one order, in shares of the prompt tokens.

    Attributes:
        order: Its seed.
        at_a_time: Most requests that a replica works on.
        num_less: Requests of which the plugin found less than stock vLLM; ``num_more`` of which more.
        stock_beyond: What was promised beyond what was found; ``stock_gone`` of that, what was evicted while
            the request waited. Likewise of the plugin.
    """

    order: int
    at_a_time: int
    stock_share: float
    plugin_share: float
    num_less: int
    num_more: int
    stock_beyond: float
    stock_gone: float
    plugin_beyond: float
    plugin_gone: float


def serve_orders(question: Question) -> list[Outcome]:
    """Return what comes of each order. It needs a process of its own."""
    sessions = draw_sessions(question.num_requests)
    prompts = _prompts(sessions, question.folder)
    num_tokens = sum(map(len, prompts.values()))
    outcomes = []
    for at_a_time in question.at_a_time:
        for seed in question.orders:
            order = order_of(sessions, random.Random(seed))
            (stock, *of_stock), (plugin, *of_plugin) = (
                _found(question.folder, setting, [prompts[each] for each in order], at_a_time)
                for setting in (STOCK, MILEPOST)
            )
            stock_beyond, stock_gone, plugin_beyond, plugin_gone = (
                tokens / num_tokens for tokens in (*of_stock, *of_plugin)
            )
            outcomes.append(
                Outcome(
                    order=seed,
                    at_a_time=at_a_time,
                    stock_share=sum(stock) / num_tokens,
                    plugin_share=sum(plugin) / num_tokens,
                    num_less=sum(map(int.__lt__, plugin, stock)),
                    num_more=sum(map(int.__gt__, plugin, stock)),
                    stock_beyond=stock_beyond,
                    stock_gone=stock_gone,
                    plugin_beyond=plugin_beyond,
                    plugin_gone=plugin_gone,
                )
            )
    return outcomes


def _prompts(sessions: Sequence[Session], folder: Path) -> dict[tuple[int, int], TokenArray]:
    """Return the tokens of each turn of each session, whatever was answered before it made up."""
    import numpy as np
    from transformers import AutoTokenizer

    encode, drawn = AutoTokenizer.from_pretrained(folder), random.Random(0)
    prompts = {}
    for number, session in enumerate(sessions):
        text = ""
        for turn, said in enumerate(session.prompts):
            text = text + said if session.goes_on else said
            prompts[number, turn] = np.array(encode(text)["input_ids"], np.int32)
            text += "".join(drawn.choice("abcdefghij ") for _ in range(_ANSWER_TOKENS))
    return prompts


def _found(
    folder: Path, setting: Setting, prompts: Sequence[TokenArray], at_a_time: int
) -> tuple[list[int], int, int]:
    """Return how many tokens were found of each prompt, those of the first replica first; how many were
    promised beyond that; and how many of those were evicted meanwhile.
    """
    vllm_config, kv_cache_config = bare_config(
        folder, block_tokens=_BLOCK_TOKENS, match_unit=_MATCH_UNIT, most_tokens=_MOST_TOKENS
    )
    publish_events(vllm_config)
    found, num_beyond, num_gone = [], 0, 0
    for first in range(_NUM_REPLICAS):
        server = BareServer(
            vllm_config,
            kv_cache_config,
            setting=setting,
            num_blocks=_NUM_BLOCKS,
            block_tokens=_BLOCK_TOKENS,
            match_unit=_MATCH_UNIT,
        )
        workload = Workload(
            name="sessions",
            asks=tuple(Ask(tokens=each) for each in prompts[first::_NUM_REPLICAS]),
            answer_tokens=_ANSWER_TOKENS,
            pool_tokens=0,
            shares_prefixes=True,
        )
        replica = Replica(server, block_tokens=_BLOCK_TOKENS, match_unit=_MATCH_UNIT)
        for each in serve(workload, replica, concurrency=at_a_time):
            found.append(each.cached_tokens)
            num_beyond += max(0, replica.resumable_tokens[each.index] - each.cached_tokens)
            num_gone += replica.gone_tokens[each.index]
    return found, num_beyond, num_gone


def _table(outcomes: Sequence[Outcome]) -> Table:
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    headings = (
        *("requests of a replica at a time", "orders", "stock", "plugin", "plugin less, more", "requests"),
        *("stock promised beyond, evicted", "plugin"),
    )
    for number, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if number else "left")
    for at_a_time in _AT_A_TIME:
        own = [each for each in outcomes if each.at_a_time == at_a_time]
        stock, plugin = [each.stock_share for each in own], [each.plugin_share for each in own]
        num_less, num_more = (sum(map(compared, plugin, stock)) for compared in (float.__lt__, float.__gt__))
        shown.add_row(
            str(at_a_time),
            str(len(own)),
            *(f"{median(each):.1%} ({min(each):.1%} to {max(each):.1%})" for each in (stock, plugin)),
            f"{num_less}, {num_more}",
            f"{sum(each.num_less for each in own)}, {sum(each.num_more for each in own)}",
            f"{mean(each.stock_beyond for each in own):.2%}, {mean(each.stock_gone for each in own):.2%}",
            f"{mean(each.plugin_beyond for each in own):.2%}, {mean(each.plugin_gone for each in own):.2%}",
        )
    return shown


def main() -> None:
    """Serve the orders, and print the table."""
    parser = options.new_parser("benchmarks.vllm.orders", __doc__)
    parser.add_argument("--orders", type=int, default=20, metavar="N", help="how many: 20")
    parser.add_argument("--requests", type=int, default=48, metavar="N", help="about how many: 48")
    arguments = options.parse(parser)
    with options.built_model(arguments.model) as folder:
        outcomes = call(
            "benchmarks.vllm.orders:serve_orders",
            Question(folder=folder, orders=tuple(range(arguments.orders)), num_requests=arguments.requests),
        )
    if arguments.json:
        for outcome in outcomes:
            print(json.dumps(asdict(outcome)))
    else:
        Console(width=170).print(_table(outcomes))


if __name__ == "__main__":
    # By its name, so that the process that runs the schedulers knows the classes again.
    import_module("benchmarks.vllm.orders").main()
