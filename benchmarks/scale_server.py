"""Serves the workload of ``benchmarks.scale`` in blocks, on whatever build of Milepost is installed.

Run as a file by ``benchmarks.scale``. Each line of standard input is a number of requests to serve; each is
answered by one line of JSON: the CPU seconds of every request of the block, and what is stored after it.
"""

import gc
import json
import resource
import sys
import time

import numpy as np

from milepost import Footprint, PrefixCache, parse_policy
from milepost.store import ContentlessPayloads

NUM_DOCUMENTS, DOCUMENT_TOKENS, OWN_TOKENS = 2_000, 2_000, 48
GRID = 64
FOOTPRINT = Footprint(checkpoint_bytes=3_293_184, kv_bytes_per_token=2_048)
CAPACITY_BYTES = 200 << 30


def main() -> None:
    """Serve until standard input ends."""
    cache = PrefixCache(
        capacity_bytes=CAPACITY_BYTES,
        footprint=FOOTPRINT,
        policy=parse_policy("learned"),
        grid=GRID,
        history_tokens=1 << 40,
    )
    payloads = ContentlessPayloads(FOOTPRINT, segment_tokens=GRID)
    random = np.random.default_rng(0)
    documents = [random.integers(0, 150_000, DOCUMENT_TOKENS) for _ in range(NUM_DOCUMENTS)]
    resident_bytes = _peak_bytes()
    # What the libraries hold is no business of the cache's; servers freeze it as well.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            # Popularity is skewed towards the first documents.
            document = documents[int(random.integers(NUM_DOCUMENTS) * random.random())]
            depth = random.integers(500, DOCUMENT_TOKENS)
            prompt = np.concatenate([document[:depth], random.integers(0, 150_000, OWN_TOKENS)])
            started = time.process_time()
            with cache.acquire(prompt) as lease:
                cache.commit(lease, cache.plan(lease), payloads)
            seconds.append(time.process_time() - started)
        now = cache.statistics()
        answer = {
            "seconds": seconds,
            "num_checkpoints": now.num_checkpoints,
            "num_evictions": now.num_evictions,
            "history_tokens": now.history_tokens,
            "reused_fraction": now.reused_fraction,
            "resident_bytes": _peak_bytes() - resident_bytes,
        }
        print(json.dumps(answer), flush=True)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
