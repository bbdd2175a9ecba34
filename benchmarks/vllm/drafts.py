"""Speculative decoding: what stock vLLM and the plugin cache with the same drafts, and which of the states
that are promised inside answers are stored. vLLM's own schedulers, no model.

    python -m benchmarks.vllm.drafts [--model NAME] [--full] [--json]

Run it with vLLM 0.32 and 0.33; since 0.33 a hash looks ahead (method mtp), and before, vLLM is told not to
drop the last block of a hit. With asynchronous scheduling the drafts are placeholders. Four drafts of five
are right. A minute on a core, with all requests five.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.printing import Row, print_rows
from benchmarks.vllm import options
from benchmarks.vllm.servers.bare_config import bare_config
from benchmarks.vllm.servers.drafting_server import DraftingServer
from benchmarks.vllm.servers.promises import PromiseWatch
from benchmarks.vllm.servers.serving import serve
from benchmarks.vllm.servers.settings import MILEPOST, STOCK
from benchmarks.vllm.traffic.asks import Workload
from benchmarks.vllm.traffic.workloads import build

__all__ = ["measure"]

_BLOCK_TOKENS, _ANSWER_TOKENS, _NUM_DRAFTS, _CONCURRENCY = 64, 80, 3, 2
_POOLS = {"tight": 1.0, "ample": 6.0}
_LEAST_ON_TIGHT_DOCUMENTS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drafts:
    name: str
    speculative: dict[str, Any] | None
    is_async: bool = False


def _ways() -> Iterator[_Drafts]:
    from vllm.config import VllmConfig

    mtp: dict[str, Any] = {"method": "mtp", "num_speculative_tokens": _NUM_DRAFTS}
    if not hasattr(VllmConfig, "num_hash_lookahead_tokens"):
        mtp["disable_eagle_block_drop"] = True
    ngram = {"method": "ngram", "num_speculative_tokens": _NUM_DRAFTS, "prompt_lookup_max": 3}
    yield _Drafts(name="no drafts", speculative=None)
    yield _Drafts(name="no drafts, async", speculative=None, is_async=True)
    yield _Drafts(name="ngram", speculative=ngram)
    yield _Drafts(name="mtp", speculative=mtp)
    yield _Drafts(name="mtp, async", speculative=mtp, is_async=True)


def measure(*, folder: Path, quick: bool) -> list[Row]:
    """Return a row for each way to draft, workload and pool."""
    rows = []
    for name in ("documents", "chat"):
        workload = replace(build(name, quick=quick), answer_tokens=_ANSWER_TOKENS)
        rows += [_row(drafts, workload, pool, folder=folder) for drafts in _ways() for pool in _POOLS]
    return rows


def _row(drafts: _Drafts, workload: Workload, pool: str, *, folder: Path) -> Row:
    cached: dict[str, int] = {}
    for setting in (STOCK, MILEPOST):
        vllm_config, kv_cache_config = bare_config(
            folder,
            block_tokens=_BLOCK_TOKENS,
            match_unit=_BLOCK_TOKENS,
            most_tokens=16_384,
            speculative=drafts.speculative,
        )
        vllm_config.scheduler_config.async_scheduling = drafts.is_async
        server = DraftingServer(
            vllm_config,
            kv_cache_config,
            setting=setting,
            num_blocks=int(workload.pool_tokens * _POOLS[pool]) // _BLOCK_TOKENS,
            block_tokens=_BLOCK_TOKENS,
            match_unit=_BLOCK_TOKENS,
            num_drafts=_NUM_DRAFTS if drafts.speculative else 0,
            is_async=drafts.is_async,
        )
        watch = PromiseWatch(server.scheduler) if setting is MILEPOST else None
        served = serve(workload, server, concurrency=_CONCURRENCY)
        cached[setting.name] = sum(request.cached_tokens for request in served)
    assert watch is not None
    ratio = cached[MILEPOST.name] / cached[STOCK.name] if cached[STOCK.name] else float("inf")
    wanted = _LEAST_ON_TIGHT_DOCUMENTS if (workload.name, pool) == ("documents", "tight") else 1.0
    return Row(
        name=f"{drafts.name}: {workload.name}, {pool} pool",
        measured=f"{ratio:.2f} of stock's {cached[STOCK.name]:,} cached tokens; {watch.num_stored} of "
        f"{watch.num_promised} promises in answers stored",
        target=f">= {wanted}, and all",
        reached=ratio >= wanted and watch.num_stored == watch.num_promised,
        numbers={
            "stock_cached_tokens": cached[STOCK.name],
            "plugin_cached_tokens": cached[MILEPOST.name],
            "promised": watch.num_promised,
            "stored": watch.num_stored,
        },
    )


def main() -> None:
    """Compare with and without drafts; exit 1 where a target is missed."""
    parser = options.new_parser("benchmarks.vllm.drafts", __doc__)
    parser.add_argument("--full", action="store_true", help="all requests of the workloads, not a quarter")
    arguments = options.parse(parser)
    with options.built_model(arguments.model) as folder:
        rows = measure(folder=folder, quick=not arguments.full)
    print_rows(rows, as_json=arguments.json)
    sys.exit(not all(row.reached for row in rows))


if __name__ == "__main__":
    main()
