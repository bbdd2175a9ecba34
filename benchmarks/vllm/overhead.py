"""What the plugin costs vLLM's scheduler: the work for a request of 32,000 tokens, with it and without.

    python -m benchmarks.vllm.overhead [--json]

No model runs: the schedulers are driven with made-up tokens, by turns with the same requests. Prompts of
100 documents diverge at random depths, so that every request is looked up, planned, cut and stored; in the
small pool every request evicts too. A block has 512 tokens, a state takes the place of 1,536 tokens of KV.
What counts is all that the scheduler does for a request, from its arrival to its last token; its hashes,
which vLLM computes elsewhere, do not. What it does while the model computes, between the dispatch of a step
and its outcome, keeps nobody waiting and is told apart. Part of the rest is vLLM's own work for the steps
that checkpoints take, by what a step of stock vLLM takes on average. Target: a request waits at most 100
microseconds longer than with vLLM's own.

The last rows are of the asynchronous scheduler, vLLM's default, which schedules while the model computes:
see ``benchmarks.vllm.hidden_overhead``.
"""

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.printing import Row, print_rows
from benchmarks.vllm import options
from benchmarks.vllm.child import call
from benchmarks.vllm.servers.bare_config import bare_config
from benchmarks.vllm.servers.bare_server import BareServer
from benchmarks.vllm.servers.settings import MILEPOST, STOCK, Setting
from benchmarks.vllm.traffic.asks import TokenArray

__all__ = ["bare_server", "diverging_prompts", "measure"]

FloatArray = npt.NDArray[np.float64]

_PROMPT_TOKENS = 32_000
_BLOCK_TOKENS = 512
_NUM_STATE_GROUPS = 3
_NUM_DOCUMENTS = 100
_NUM_WARM, _NUM_MEASURED = 400, 400
_ANSWER_TOKENS = 4
_POOLS = {"ample pool": 60_000, "small pool": 2_500}
_MATCH_UNITS = (512, 64)
_MOST_MICROSECONDS = 100.0


def measure(folder: Path) -> list[Row]:
    """Return a row for each pool and unit of matching. It needs a process of its own.

    Args:
        folder: A model, for its configuration only.
    """
    return [
        _row(f"{name}, matches of {match_unit} tokens", *_spent(folder, num_blocks, match_unit))
        for name, num_blocks in _POOLS.items()
        for match_unit in _MATCH_UNITS
    ]


def _spent(folder: Path, num_blocks: int, match_unit: int) -> tuple[FloatArray, FloatArray]:
    """Return of each request, for stock and for the plugin, how many microseconds are waited for and how many
    pass while the model computes, and its steps; each ``[requests, 3]``.
    """
    servers = [bare_server(folder, setting, num_blocks, match_unit) for setting in (STOCK, MILEPOST)]
    spent: tuple[list[tuple[float, float, int]], ...] = ([], [])
    gc.freeze()
    for index, prompt in enumerate(diverging_prompts(_NUM_WARM + _NUM_MEASURED)):
        for server, of_server in zip(servers, spent, strict=True):
            waited, meanwhile, num_steps = _serve(server, index, prompt)
            if index >= _NUM_WARM:
                of_server.append((waited * 1e6, meanwhile * 1e6, num_steps))
    stock, plugin = (np.array(of_server) for of_server in spent)
    return stock, plugin


def diverging_prompts(num_prompts: int) -> Iterator[TokenArray]:
    """Yield prompts of 32,000 tokens, the beginnings of 100 documents and something of their own."""
    random = np.random.default_rng(0)
    documents = [random.integers(16, 512, _PROMPT_TOKENS, dtype=np.int32) for _ in range(_NUM_DOCUMENTS)]
    for _ in range(num_prompts):
        depth = int(random.integers(1, _PROMPT_TOKENS))
        own = random.integers(16, 512, _PROMPT_TOKENS - depth, dtype=np.int32)
        yield np.concatenate([documents[int(random.integers(_NUM_DOCUMENTS))][:depth], own])


def _serve(server: BareServer, index: int, prompt: TokenArray) -> tuple[float, float, int]:
    scheduler = server.scheduler
    request = server.request(index, prompt, answer_tokens=_ANSWER_TOKENS)
    started = time.thread_time()
    scheduler.add_request(request)
    waited, meanwhile, num_steps = time.thread_time() - started, 0.0, 0
    while not request.is_finished():
        started = time.thread_time()
        scheduled = scheduler.schedule()
        dispatched = time.thread_time()
        scheduler.get_grammar_bitmask(scheduled)
        waited += dispatched - started
        meanwhile += time.thread_time() - dispatched
        num_steps += 1
        made_up = server.make_up(scheduled)
        started = time.thread_time()
        scheduler.update_from_output(scheduled, made_up)
        waited += time.thread_time() - started
    return waited, meanwhile, num_steps


def bare_server(
    folder: Path, setting: Setting, num_blocks: int, match_unit: int, *, is_async: bool = False
) -> BareServer:
    """Return a server for those prompts, with blocks of 512 tokens."""
    vllm_config, kv_cache_config = bare_config(
        folder,
        block_tokens=_BLOCK_TOKENS,
        match_unit=match_unit,
        most_tokens=_PROMPT_TOKENS + _BLOCK_TOKENS,
        num_state_groups=_NUM_STATE_GROUPS,
    )
    vllm_config.scheduler_config.async_scheduling = is_async
    return BareServer(
        vllm_config,
        kv_cache_config,
        setting=setting,
        num_blocks=num_blocks,
        block_tokens=_BLOCK_TOKENS,
        match_unit=match_unit,
    )


def _row(name: str, stock: FloatArray, plugin: FloatArray) -> Row:
    # Of each request, for the two do not do the same for every one.
    extras = plugin[:, 0] - stock[:, 0]
    extra_steps = float((plugin[:, 2] - stock[:, 2]).mean())
    of_steps = extra_steps * float(np.median(stock[:, 0] / stock[:, 2]))
    extra = float(np.median(extras))
    meanwhile = float(np.median(plugin[:, 1] - stock[:, 1]))
    return Row(
        name=f"scheduler, {name}",
        measured=f"{extra:+.0f} us a request "
        f"({np.median(stock[:, 0]):.0f} -> {np.median(plugin[:, 0]):.0f}), "
        f"{of_steps:.0f} of them for {extra_steps:.1f} steps more; "
        f"{meanwhile:+.0f} us while the model computes",
        target=f"<= {_MOST_MICROSECONDS:.0f} us more than stock",
        reached=extra <= _MOST_MICROSECONDS,
        numbers={
            "extra_p50_us": extra,
            "extra_mean_us": float(np.mean(extras)),
            "extra_p99_us": float(np.percentile(extras, 99)),
            "meanwhile_p50_us": meanwhile,
            "extra_steps": extra_steps,
            "extra_steps_us": of_steps,
            "stock_p50_us": float(np.median(stock[:, 0])),
            "plugin_p50_us": float(np.median(plugin[:, 0])),
        },
    )


def main() -> None:
    """Measure, and print the rows."""
    arguments = options.parse(options.new_parser("benchmarks.vllm.overhead", __doc__))
    with options.built_model(arguments.model) as folder:
        modules = ("overhead", "hidden_overhead")
        rows = [row for name in modules for row in call(f"benchmarks.vllm.{name}:measure", folder)]
        print_rows(rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
