"""What a restart costs an engine with a folder: its first hits, a chat that it cuts in two, and opening.

    python -m benchmarks.restart [--prompts 12] [--tokens 2048] [--listed 10000] [--json]

A random Qwen3.5 of eight layers (hidden size 256, fp32), saved, opened on a folder, closed and opened again.
*First hit after a restart* is the time to the first token of a prompt that only the folder has, over the same
hit from memory a moment later; both in one process, by turns, files in the page cache. *Chat* is the prompt
tokens computed by ten turns with a restart in the middle, over those without. *Opening* is the time in which
a tier finds again the prompts of a folder that lists so many, without reading one payload.
"""

import argparse
import logging
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from benchmarks.printing import Row, print_rows
from benchmarks.ratios import ratio_row
from milepost.disk import DiskShelf, ModelFacts, Packed
from milepost.engines.engine import Engine
from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.policies import learned
from milepost.tiers import Speed, Tier, TieredCache

_VOCABULARY = 4_096
_SEGMENT_TOKENS = 256


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=2_048)
    parser.add_argument("--listed", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        model = _saved_model(Path(folder) / "model")
        rows = [
            _first_hits(model, Path(folder), count=arguments.prompts, num_tokens=arguments.tokens),
            _chat(model, Path(folder)),
            _opening(Path(folder) / "listed", count=arguments.listed),
        ]
    print_rows(rows, as_json=arguments.json)


def _saved_model(path: Path) -> Path:
    torch.manual_seed(0)
    config = Qwen3_5TextConfig(
        vocab_size=_VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=8,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64, linear_num_key_heads=4,
        linear_num_value_heads=4, linear_key_head_dim=64, linear_value_head_dim=64,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


def _open(model: Path, folder: Path, *, policy: str = "learned") -> Engine:
    return Engine.open(
        model, capacity="2GiB", policy=policy, cache_dir=folder, segment_tokens=_SEGMENT_TOKENS, audit=0
    )


def _first_hits(model: Path, folder: Path, *, count: int, num_tokens: int) -> Row:
    random = np.random.default_rng(0)
    prompts = [random.integers(0, _VOCABULARY, num_tokens, dtype=np.int32) for _ in range(count)]
    with _open(model, folder / "hits", policy="tail") as engine:
        before = [engine.generate(prompt, max_new_tokens=1) for prompt in prompts]
        warm = [engine.generate(prompt, max_new_tokens=1) for prompt in prompts]
    with _open(model, folder / "hits", policy="tail") as engine:
        first, again = [], []
        for prompt in prompts:
            first.append(engine.generate(prompt, max_new_tokens=1))
            again.append(engine.generate(prompt, max_new_tokens=1))
        disk = engine.tiers()[1]
    assert all(each.reused_by_tier["disk"] == each.report.reused > 0 for each in first[1:])
    runs = {"before": before, "warm": warm, "first": first, "again": again}
    digests = [[each.prompt_logits_digest for each in answers] for answers in runs.values()]
    assert all(each == digests[0] for each in digests), "a hit answered otherwise than a cold run"
    # The first of all compiles, and warms up.
    # The first of all compiles, and warms up.
    seconds = {name: [each.ttft_seconds for each in answers[1:]] for name, answers in runs.items()}
    return ratio_row(
        f"time to first token of {num_tokens:,} tokens, first hit after a restart / from memory",
        seconds["first"],
        seconds["again"],
        target=1.5,
        numbers={
            "before_restart_seconds": statistics.median(seconds["warm"]),
            "cold_seconds": statistics.median(seconds["before"]),
            "fetched_bytes": disk.traffic.fetched_bytes,
            "fetch_seconds": disk.traffic.fetch_seconds,
            "raw_over_stored": (disk.checkpoint_bytes + disk.kv_bytes) / disk.stored_bytes,
        },
    )


def _chat(model: Path, folder: Path) -> Row:
    computed = {
        name: _computed(model, folder / name, restarts=name == "restarted") for name in ("plain", "restarted")
    }
    ratio = computed["restarted"] / computed["plain"]
    return Row(
        name="prompt tokens computed by a chat of ten turns, with a restart / without",
        measured=f"{ratio:.3f}",
        target="<= 1.05",
        reached=ratio <= 1.05,
        numbers={"ratio": ratio, **computed},
    )


def _computed(model: Path, folder: Path, *, restarts: bool) -> int:
    random = np.random.default_rng(1)
    engine = _open(model, folder)
    chat: list[int] = []
    computed = 0
    for turn in range(10):
        if restarts and turn == 5:
            engine.close()
            engine = _open(model, folder)
        chat += random.integers(0, _VOCABULARY, 300).tolist()
        completion = engine.generate(chat, max_new_tokens=8)
        chat += completion.tokens
        computed += completion.report.recomputed
    engine.close()
    return computed


@dataclass(frozen=True, slots=True)
class _Small:
    """A payload that is nothing but a digest."""

    digest: bytes
    num_bytes: int


class _SmallCodec:
    def pack(self, payload: _Small) -> Packed:
        return Packed(tensors={}, words={"digest": payload.digest.hex(), "bytes": str(payload.num_bytes)})

    def unpack(self, packed: Packed) -> _Small:
        return _Small(bytes.fromhex(packed.words["digest"]), int(packed.words["bytes"]))


class _SmallSource:
    def __init__(self, number: int) -> None:
        self._number = number

    def checkpoint(self, position: int) -> _Small:
        return _Small(b"s%d.%d" % (self._number, position), 1)

    def kv_segments(self, start: int, end: int) -> list[_Small]:
        ends = range(start + _SEGMENT_TOKENS, end + 1, _SEGMENT_TOKENS)
        return [_Small(b"k%d.%d" % (self._number, stop), 0) for stop in ends]


def _opening(folder: Path, *, count: int) -> Row:
    """Documents of 1,024 tokens, four questions about each."""
    facts = ModelFacts(name="small", facts={"engine": "none"})
    random = np.random.default_rng(2)

    def chain() -> TieredCache:
        computing = Speed()
        shelf = DiskShelf.open(folder, facts=facts, capacity_bytes=1 << 34, codec=_SmallCodec())
        options = {
            "capacity_bytes": 1 << 34,
            "footprint": Footprint(checkpoint_bytes=1, kv_bytes_per_token=0),
            "grid": _SEGMENT_TOKENS,
            "segment_tokens": _SEGMENT_TOKENS,
        }
        tier = Tier("disk", shelf, policy=learned(), computing=computing, **options)
        return TieredCache(HostedCache(policy="tail", **options), [tier], computing=computing)

    cache = chain()
    document = random.integers(0, _VOCABULARY, 1_024, dtype=np.int32)
    for number in range(count):
        if number % 4 == 0:
            document = random.integers(0, _VOCABULARY, 1_024, dtype=np.int32)
        prompt = np.concatenate((document, random.integers(0, _VOCABULARY, 300, dtype=np.int32)))
        with cache.acquire(prompt) as lease:
            cache.commit(lease, cache.plan(lease), _SmallSource(number))
    cache.close()
    cache = chain()
    started, wall = time.process_time(), time.monotonic()
    found = cache.restore()
    seconds, wall = time.process_time() - started, time.monotonic() - wall
    cache.check()
    cache.close()
    return Row(
        name=f"finding {found:,} checkpoints of {count:,} prompts again",
        measured=f"{seconds:.2f} s of CPU",
        target="reported",
        reached=found > 0,
        numbers={"cpu_seconds": seconds, "wall_seconds": wall, "found": found},
    )


if __name__ == "__main__":
    main()
