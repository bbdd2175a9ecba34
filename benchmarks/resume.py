"""What a hit costs beyond the tokens it has to compute.

    python -m benchmarks.resume [--json]

One layer group of Qwen3.5-0.8B in bf16. A prompt shares a stored prefix and adds a suffix. Its time to first
token (find, pin, restore, prefill, capture, store, sample) stands beside two others of the same turn:

* *the suffix alone*: the same tokens at the same positions, run on a cache that already stands there, with
  nothing to find, restore or store. This is the work that a hit cannot avoid. Target: at most 1.10 times it.
* *the suffix as a prompt*: from position 0 on an empty cache. Its tokens attend to no prefix, so it is less
  work by the model's own arithmetic; the ratio of FLOPs is printed beside the measured one.

Then answers: tokens one by one after a prompt, from layers that grow in place over the same from upstream's,
which copy all keys and values with each token. Processor time (on a GPU, a clock's).

Ratios are medians of the ratios within a turn.
"""

import time

import numpy as np
import torch

from benchmarks.layer_group import build_layer_group
from benchmarks.printing import Row, run_and_print
from benchmarks.ratios import ratio_row
from milepost.engines.engine import Engine
from milepost.engines.transformers.driver import LiveCache
from milepost.engines.transformers.snapshot import (
    KVSegment,
    StateSnapshot,
    build_cache,
    capture_state,
    slice_kv,
)

_PREFIX_TOKENS = (512, 2_048, 4_096)
_SUFFIX_TOKENS = (128, 256, 512)
_NUM_TURNS = 9
_ANSWER_TOKENS = 32


def measure() -> list[Row]:
    """Return two rows for every length of prefix and suffix, and one of answers for every prefix."""
    model = build_layer_group(torch.bfloat16).to("cuda" if torch.cuda.is_available() else "cpu")
    engine = Engine.open(model, capacity="2GiB", policy="tail+junction")
    random = np.random.default_rng(0)
    rows = []
    for num_prefix in _PREFIX_TOKENS:
        prefix = random.integers(0, 1024, num_prefix, dtype=np.int32)
        # Stored with one token after it, so that the state lies exactly at the prefix's end.
        engine.generate(np.append(prefix, 7), max_new_tokens=1)
        standing = _stand_behind(engine, prefix)
        for num_suffix in _SUFFIX_TOKENS:
            hits, alone, as_prompt = [], [], []
            for _ in range(_NUM_TURNS + 1):
                suffix = random.integers(0, 1024, num_suffix, dtype=np.int32)
                alone.append(_seconds_alone(engine, standing, suffix))
                answer = engine.generate(np.concatenate([prefix, suffix]), max_new_tokens=1)
                assert answer.report.reused == num_prefix, answer.report
                hits.append(answer.ttft_seconds)
                as_prompt.append(engine.measure_prefill(num_suffix))
            cost = engine.footprint.cost
            flops = cost.between(num_prefix, num_prefix + num_suffix) / cost(num_suffix)
            name = f"TTFT of a hit at {num_prefix:,} + {num_suffix}"
            # The first turn warms up.
            rows.append(ratio_row(f"{name} / suffix alone", hits[1:], alone[1:], target=1.1))
            note = f"; FLOPs {flops:.3f}"
            rows.append(ratio_row(f"{name} / as a prompt", hits[1:], as_prompt[1:], note=note))
        rows.append(_answers(engine, standing))
    return rows


def _stand_behind(engine: Engine, prefix: np.ndarray) -> tuple[StateSnapshot, KVSegment]:
    """Compute ``prefix`` as the engine does, outside its cache."""
    live = engine.driver.start()
    for begin in range(0, len(prefix), engine.segment_tokens):
        engine.driver.advance(live, torch.tensor(prefix[begin : begin + engine.segment_tokens]))
    return capture_state(live.cache, len(prefix)), slice_kv(live.cache, 0, len(prefix))


def _answers(engine: Engine, standing: tuple[StateSnapshot, KVSegment]) -> Row:
    """Compare answers after a prefix from layers of both kinds."""
    snapshot, segment = standing
    has_gpu = engine.driver.device.type == "cuda"
    clock = time.perf_counter if has_gpu else time.process_time
    tokens = torch.arange(_ANSWER_TOKENS, device=engine.driver.device)
    seconds: dict[int | None, list[float]] = {snapshot.position: [], None: []}
    for _ in range(_NUM_TURNS + 1):
        for room, spent in seconds.items():
            cache = build_cache(snapshot, [segment], new_cache=engine.driver.new_cache, expected_tokens=room)
            live = LiveCache(cache=cache, position=snapshot.position)
            engine.driver.wait_for_device()
            started = clock()
            for token in tokens.split(1):
                engine.driver.advance(live, token)
            engine.driver.wait_for_device()
            spent.append(clock() - started)
    name = f"{_ANSWER_TOKENS} tokens of an answer after {snapshot.position:,}: keys in place / copied"
    return ratio_row(name, seconds[snapshot.position][1:], seconds[None][1:])


def _seconds_alone(engine: Engine, standing: tuple[StateSnapshot, KVSegment], suffix: np.ndarray) -> float:
    snapshot, segment = standing
    live = engine.driver.restore(
        snapshot, [segment], position=snapshot.position, num_tokens=snapshot.position + len(suffix)
    )
    tokens = torch.tensor(suffix, device=engine.driver.device)
    engine.driver.wait_for_device()
    started = time.perf_counter()
    for begin in range(0, len(suffix), engine.segment_tokens):
        engine.driver.advance(live, tokens[begin : begin + engine.segment_tokens])
    engine.driver.wait_for_device()
    return time.perf_counter() - started


if __name__ == "__main__":
    run_and_print(measure)
