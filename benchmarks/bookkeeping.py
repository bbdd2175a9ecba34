"""What the cache itself costs a request: acquire, plan and commit, with no model.

    python -m benchmarks.bookkeeping [--json]
    python -m benchmarks.bookkeeping --scale [--against FOLDER] [--requests 100000] [--figure FILE] [--json]

Prompts of 32,768 tokens on a grid of 64 against 10,000 cached ones: 200 documents that diverge at random
depths, so walks are deep, splits are common and every request adds checkpoints. Target: median within 1 ms.
With ``--scale``, how the cost of a request grows with the cache: :mod:`benchmarks.scale`.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks import scale
from benchmarks.printing import Row, print_rows
from milepost.footprint import Footprint
from milepost.policies import parse_policy
from milepost.prefix_cache import PrefixCache
from milepost.store import ContentlessPayloads

_NUM_CACHED, _NUM_MEASURED = 10_000, 1_000
_NUM_TOKENS, _NUM_DOCUMENTS = 32_768, 200
_SEGMENT_TOKENS = 256
_FOOTPRINT = Footprint(checkpoint_bytes=3_293_184, kv_bytes_per_token=2_048)
# With room for all, nothing is evicted; with room for a quarter, every request evicts.
_CAPACITIES = {"ample memory": 1 << 40, "evicting": 80 << 30}


def measure() -> list[Row]:
    """Return a row for each policy and amount of memory."""
    return [
        _measure(name, capacity, policy) for name, capacity in _CAPACITIES.items() for policy in _POLICIES
    ]


_POLICIES = ("learned", "balanced:8")


def _measure(name: str, capacity_bytes: int, policy: str) -> Row:
    cache = PrefixCache(
        capacity_bytes=capacity_bytes,
        footprint=_FOOTPRINT,
        policy=parse_policy(policy),
        grid=64,
        segment_tokens=_SEGMENT_TOKENS,
    )
    payloads = ContentlessPayloads(_FOOTPRINT, segment_tokens=_SEGMENT_TOKENS)
    random = np.random.default_rng(0)
    documents = [random.integers(0, 50_000, _NUM_TOKENS, dtype=np.int32) for _ in range(_NUM_DOCUMENTS)]
    seconds = []
    for _ in range(_NUM_CACHED + _NUM_MEASURED):
        document = documents[int(random.integers(_NUM_DOCUMENTS))]
        depth = int(random.integers(1, _NUM_TOKENS))
        own = random.integers(0, 50_000, _NUM_TOKENS - depth, dtype=np.int32)
        prompt = np.concatenate([document[:depth], own])
        started = time.perf_counter()
        with cache.acquire(prompt) as lease:
            cache.commit(lease, cache.plan(lease), payloads)
        seconds.append(time.perf_counter() - started)
    cache.check()
    milliseconds = np.array(seconds[_NUM_CACHED:]) * 1e3
    median, slowest = (float(np.percentile(milliseconds, at)) for at in (50, 99))
    held = cache.statistics()
    return Row(
        name=f"bookkeeping, {policy}, {name}",
        measured=f"p50 {median:.2f} ms, p99 {slowest:.2f} ms",
        target="p50 <= 1 ms",
        reached=median <= 1.0,
        numbers={
            "p50_ms": median,
            "p99_ms": slowest,
            "num_checkpoints": held.num_checkpoints,
            "num_evictions": held.num_evictions,
        },
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    parser.add_argument("--scale", action="store_true", help="how the cost grows with the cache")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="with --scale: another checkout")
    parser.add_argument("--requests", type=int, default=100_000, metavar="N", help="with --scale: how many")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="with --scale: draw the growth")
    arguments = parser.parse_args()
    if arguments.scale:
        scale.main(arguments)
    else:
        print_rows(measure(), as_json=arguments.json)


if __name__ == "__main__":
    main()
