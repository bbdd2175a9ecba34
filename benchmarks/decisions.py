"""Every plan and every eviction of the policies, as one digest for each setting.

    python -m benchmarks.decisions --traces DIR --output before.json        # on the old build
    python -m benchmarks.decisions --traces DIR --against before.json       # on the new one

For a change that must not change a decision. Each digest goes over what a request was answered from, where
its plan put states, where each of its tokens went, and every state and KV segment that left the cache, in
that order. Two builds with equal digests decided alike all the way. With ``--against``, the exit code is 1
where a digest differs, and it is said from which request on. Without ``--traces``, synthetic workloads.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import xxhash
from rich.console import Console

from benchmarks.policies.points import CHECKPOINT_KV_TOKENS, TRACES, families, missing_traces
from milepost import PrefixCache, parse_policy
from milepost.simulator import TraceSource, nominal_footprint
from milepost.simulator.workers import available_cores, run_tasks

_SYNTHETIC = (
    ("synthetic:documents,requests=600,seed=1", 64, (100_000, 400_000)),
    ("synthetic:chat,requests=800,seed=2", 64, (50_000, 400_000)),
    ("synthetic:agents,requests=400,seed=3", 64, (100_000, 1_000_000)),
)
# What a digest goes over stays the same, whatever else a report says one day.
_account = attrgetter(
    "num_tokens", "reused", "unseen", "alignment", "placement", "eviction",
    "checkpoints_stored", "checkpoints_rejected", "reset",
)  # fmt: skip
# A digest is also kept whenever this many requests were served, to say where two builds diverge.
_STRIDE = 50


@dataclass(frozen=True, slots=True)
class _Payload:
    """What stands for a state or a KV segment: where and when it was captured."""

    num_bytes: int
    request: int
    position: int


class _Recorder:
    """A source whose payloads are known again when they are dropped."""

    def __init__(self, checkpoint_bytes: int, segment_tokens: int, kv_bytes_per_token: int) -> None:
        self._checkpoint_bytes, self._segment_tokens = checkpoint_bytes, segment_tokens
        self._segment_bytes = segment_tokens * kv_bytes_per_token
        self._digest = xxhash.xxh3_128()
        self.request = 0

    def checkpoint(self, position: int) -> _Payload:
        return _Payload(self._checkpoint_bytes, self.request, position)

    def kv_segments(self, start: int, end: int) -> Sequence[_Payload]:
        ends = range(start + self._segment_tokens, end + 1, self._segment_tokens)
        return [_Payload(self._segment_bytes, self.request, end) for end in ends]

    def dropped(self, payloads: Sequence[Any]) -> None:
        self.note("dropped", *(astuple(payload) for payload in payloads if payload is not None))

    def note(self, *what: object) -> None:
        self._digest.update(repr(what).encode())

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _decide(source: str, notation: str, grid: int | None, capacity_kv_tokens: int) -> list[str]:
    """Return the digests along the requests of one setting on one trace, and after the last."""
    requests = list(TraceSource(source).open())
    key_tokens = requests[0].key_tokens
    grid = grid or key_tokens
    footprint = nominal_footprint(float(CHECKPOINT_KV_TOKENS))
    recorder = _Recorder(footprint.checkpoint_bytes, grid, footprint.kv_bytes_per_token)
    policy = parse_policy(notation)
    if policy.prepare is not None:
        policy.prepare(requests)
    cache = PrefixCache(
        capacity_bytes=capacity_kv_tokens * footprint.kv_bytes_per_token,
        footprint=footprint,
        policy=policy,
        grid=grid,
        key_tokens=key_tokens,
        on_drop=recorder.dropped,
    )
    digests = []
    for number, asked in enumerate(requests, start=1):
        recorder.request = number
        with cache.acquire(
            asked.keys, num_tokens=asked.num_tokens, tenant=asked.tenant, breakpoints=asked.breakpoints
        ) as lease:
            placement = cache.plan(lease)
            report = cache.commit(lease, placement, recorder)
        recorder.note(lease.resume_position, placement.positions, _account(report))
        if number % _STRIDE == 0 or number == len(requests):
            digests.append(recorder.hexdigest())
    return digests


def _settings(traces: Path | None, notations: Sequence[str]) -> list[tuple[str, str, int | None, int]]:
    if traces is None:
        return [
            (source, notation, grid, capacity)
            for source, grid, capacities in _SYNTHETIC
            for capacity in capacities
            for notation in notations
        ]
    return [
        (str(trace.path_in(traces)), notation, None, capacity)
        for trace in TRACES
        for capacity in trace.capacities
        for notation in notations
    ]


def _compare(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """Return a line for each setting that decided otherwise, and for each that only one build has."""
    lines = [f"{name}: only in the older file" for name in before.keys() - after.keys()]
    for name, digests in after.items():
        if name not in before:
            lines.append(f"{name}: only in this build")
        elif digests != before[name]:
            pairs = zip(before[name], digests, strict=False)
            same = next((at for at, (old, new) in enumerate(pairs) if old != new), len(digests))
            lines.append(f"{name}: decides otherwise after request {same * _STRIDE}")
    return sorted(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decisions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--traces", type=Path, metavar="DIR", help="recorded traces, at their 15 points")
    parser.add_argument(
        "--policy", action="append", metavar="POLICY", help="one setting of each unless given"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the digests there")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with digests of another build")
    parser.add_argument("--jobs", type=int, default=available_cores(), metavar="N", help="processes at once")
    arguments = parser.parse_args()
    if arguments.traces is not None and (reason := missing_traces(arguments.traces)):
        sys.exit(f"decisions: {reason}")
    notations = arguments.policy or [
        notation for group in families(quick=True).values() for notation in group
    ]
    settings = _settings(arguments.traces, notations)
    found: dict[str, list[str]] = {}
    progress = Console(stderr=True)

    def take(index: int, digests: list[str]) -> None:
        source, notation, _, capacity = settings[index]
        found[f"{source.rpartition('/')[2]} {capacity} {notation}"] = digests
        progress.print(f"{len(found)} of {len(settings)}", end="\r")

    run_tasks(_decide, settings, jobs=arguments.jobs, take=take)
    for name in sorted(found):
        print(found[name][-1], name)
    whole = xxhash.xxh3_128_hexdigest("".join(found[name][-1] for name in sorted(found)).encode())
    print(whole, f"all {len(found)} settings")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(found, indent=1, sort_keys=True))
    if arguments.against is not None:
        lines = _compare(json.loads(arguments.against.read_text()), found)
        print("\n".join(lines) if lines else f"as {arguments.against}")
        sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
