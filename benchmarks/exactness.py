"""Do resumed prompts give what cold prompts give? Every family, many prompts, bit by bit.

    python -m benchmarks.exactness [--family NAME ...] [--dtype NAME ...] [--prompts 50] [--json]

Tiny random models of every supported family, run by the real library. For each family and dtype:

* *strict*: prompts that share prefixes of many depths, through two engines, one with planned checkpoints and
  one that never keeps any. The logits after the prompt must agree bit for bit, and all answer tokens.
* *odd cuts*: a state is captured at an arbitrary position, restored into a new cache and continued with
  another request's suffix; against that prompt run from its start with the same cuts. Bit for bit again.
* *control*: the same with the restored state zeroed (KV where there is no state). It must *not* agree, or the
  two comparisons above could not have failed.

The tiny models live with the tests; run it from a checkout. All families take about ten minutes.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.family_command import run_families
from benchmarks.printing import Row
from milepost.engines.engine import Engine
from milepost.engines.transformers.driver import LiveCache, TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.snapshot import (
    KVSegment,
    build_cache,
    capture_state,
    slice_kv,
    zero_state,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from families import ALL_FAMILIES, tiny_model

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_NEW_TOKENS = 6
_VOCABULARY = 250


def measure(families: list[str], dtypes: list[str], num_prompts: int) -> list[Row]:
    """Return one row for each family and dtype."""
    # Tiny matrices: more threads only wait for each other.
    torch.set_num_threads(1)
    rows = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("families", total=len(families) * len(dtypes))
        for family in families:
            for dtype in dtypes:
                progress.update(task, description=f"{family} {dtype}")
                rows.append(_measure(family, dtype, num_prompts))
                progress.advance(task)
    return rows


def _measure(family: str, dtype: str, num_prompts: int) -> Row:
    model = tiny_model(family, dtype=_DTYPES[dtype])
    strict, num_resumed = _strict_mismatches(model, num_prompts)
    odd, unharmed = _odd_mismatches(driver_for(model), num_prompts)
    return Row(
        name=f"{family}, {dtype}",
        measured=f"strict {strict}, odd cuts {odd}; {num_resumed} resumed, control unharmed {unharmed}",
        target=f"0 of {num_prompts}",
        reached=strict == 0 and odd == 0 and num_resumed >= num_prompts // 2 and unharmed == 0,
        numbers={
            "prompts": num_prompts,
            "resumed": num_resumed,
            "strict_mismatches": strict,
            "odd_mismatches": odd,
            "control_unharmed": unharmed,
        },
    )


def _strict_mismatches(model: torch.nn.Module, num_prompts: int) -> tuple[int, int]:
    """Return how many answers differ between a caching and a cold engine, and how many were resumed."""
    alignment = driver_for(model).alignment

    def engine(policy: str) -> Engine:
        return Engine.open(model, capacity="64MB", policy=policy, segment_tokens=alignment)

    warm, cold = engine(f"dense:{alignment}"), engine("none")
    mismatches = resumed = 0
    for prompt in _sharing_prompts(num_prompts, alignment):
        options = {"max_new_tokens": _NEW_TOKENS, "ignore_end_token": True}
        mine, theirs = warm.generate(prompt, **options), cold.generate(prompt, **options)
        resumed += mine.report.reused > 0
        mismatches += (mine.tokens, mine.prompt_logits_digest) != (theirs.tokens, theirs.prompt_logits_digest)
    warm.cache.check()
    return mismatches, resumed


def _sharing_prompts(count: int, alignment: int) -> list[np.ndarray]:
    """Return prompts of which most share a prefix of some depth, odd or on the grid, with an earlier one."""
    random = np.random.default_rng(1)
    prompts: list[np.ndarray] = []
    for _ in range(count):
        length = int(random.integers(alignment + 8, 4 * alignment))
        own = random.integers(1, _VOCABULARY, length, dtype=np.int32)
        if prompts and random.random() < 0.85:
            earlier = prompts[int(random.integers(len(prompts)))]
            depth = int(random.integers(alignment, len(earlier) + 1))
            own = np.concatenate([earlier[:depth], own[: max(1, length - depth)]])
        prompts.append(own)
    return prompts


def _odd_mismatches(driver: TransformersDriver, num_prompts: int) -> tuple[int, int]:
    """Return how many prompts differ when resumed at an arbitrary cut, and how many do not when zeroed."""
    random = np.random.default_rng(2)
    mismatches = unharmed = 0
    for _ in range(num_prompts):
        cut = int(random.integers(3, 200))
        prefix = torch.from_numpy(random.integers(1, _VOCABULARY, cut))
        suffix = torch.from_numpy(random.integers(1, _VOCABULARY, int(random.integers(1, 24))))
        other = torch.from_numpy(random.integers(1, _VOCABULARY, 16))
        # An earlier request of the same prefix, which goes on after the capture and must leave no trace.
        earlier = driver.start()
        driver.advance(earlier, prefix)
        snapshot, kv = capture_state(earlier.cache, cut), slice_kv(earlier.cache, 0, cut)
        driver.advance(earlier, other)
        cold = driver.start()
        driver.advance(cold, prefix)
        expected = _answer(driver, cold, suffix)
        warm = LiveCache(build_cache(snapshot, [kv], new_cache=driver.new_cache), cut)
        mismatches += _answer(driver, warm, suffix) != expected
        lost_kv = KVSegment(kv.start, kv.end, {key: torch.zeros_like(t) for key, t in kv.tensors.items()})
        lost = build_cache(
            zero_state(snapshot), [kv if snapshot.num_bytes else lost_kv], new_cache=driver.new_cache
        )
        # Right after the cut, where a lost state weighs most: a convolution forgets in a few tokens.
        near = suffix[:2]
        intact = LiveCache(build_cache(snapshot, [kv], new_cache=driver.new_cache), cut)
        unharmed += _answer(driver, LiveCache(lost, cut), near) == _answer(driver, intact, near)
    return mismatches, unharmed


def _answer(driver: TransformersDriver, live: LiveCache, suffix: torch.Tensor) -> tuple[list[int], bytes]:
    """Return greedy tokens and the bytes of the logits after the prompt."""
    logits = driver.advance(live, suffix)
    first = logits.view(torch.uint8).numpy().tobytes()
    tokens = []
    for _ in range(_NEW_TOKENS):
        tokens.append(int(logits.argmax()))
        logits = driver.advance(live, torch.tensor(tokens[-1:]))
    return tokens, first


if __name__ == "__main__":
    run_families(measure, description=__doc__, families=ALL_FAMILIES, dtypes=list(_DTYPES))
