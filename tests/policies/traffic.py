"""Small traffic of each kind, and a cache that serves it under a policy.

A prompt is a list of segments, each a name and a length; two prompts share the segments that lead both.
A token of KV takes a byte, so every amount of memory is in tokens of KV.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from milepost.accounting import RequestReport
from milepost.footprint import Footprint
from milepost.policies import CachePolicy, parse_policy
from milepost.prefix_cache import PrefixCache
from milepost.traces import open_trace

BLOCK = 16
GRID = 64
STATE_BYTES = 1536
PLENTY = 1 << 30

Prompt = list[tuple[str, int]]


@dataclass(frozen=True)
class Payload:
    num_bytes: int


class Source:
    """Payloads of nothing but weight."""

    def checkpoint(self, position: int) -> Payload:
        return Payload(STATE_BYTES)

    def kv_segments(self, start: int, end: int) -> tuple[None, ...]:
        return (None,) * ((end - start) // GRID)


@dataclass(frozen=True)
class Served:
    """One request: what it was asked, what was placed for it, and where its tokens went."""

    prompt: Prompt
    positions: tuple[int, ...]
    report: RequestReport


class Server:
    """A cache of a given size under one policy."""

    def __init__(self, policy: str | CachePolicy, capacity: int) -> None:
        self.policy = parse_policy(policy) if isinstance(policy, str) else policy
        self.served: list[Served] = []
        self.cache = PrefixCache(
            capacity_bytes=capacity,
            footprint=Footprint(checkpoint_bytes=STATE_BYTES, kv_bytes_per_token=1),
            policy=self.policy,
            grid=GRID,
            key_tokens=BLOCK,
        )

    def serve(self, keys: np.ndarray, *, num_tokens: int, prompt: Prompt, tenant: str = "") -> RequestReport:
        with self.cache.acquire(keys, num_tokens=num_tokens, tenant=tenant) as lease:
            placement = self.cache.plan(lease)
            report = self.cache.commit(lease, placement, Source())
        self.served.append(Served(prompt, placement.positions, report))
        return report

    def second_half(self) -> list[Served]:
        return self.served[len(self.served) // 2 :]

    @property
    def reused_fraction(self) -> float:
        return self.cache.statistics().reused_fraction


def serve_all(policy: str | CachePolicy, prompts: Iterable[Prompt], *, capacity: int) -> Server:
    """Serve prompts in turn; check the cache once at the end."""
    server = Server(policy, capacity)
    for prompt in prompts:
        keys = np.concatenate([segment_keys(name, length) for name, length in prompt])
        server.serve(keys, num_tokens=keys.size * BLOCK, prompt=prompt)
    server.cache.check()
    return server


def serve_trace(policy: str | CachePolicy, name: str, *, capacity: int) -> Server:
    """Serve a synthetic trace; check the cache once at the end."""
    server = Server(policy, capacity)
    for request in open_trace(name):
        server.serve(request.keys, num_tokens=request.num_tokens, prompt=[], tenant=request.tenant)
    server.cache.check()
    return server


def segment_keys(name: str, num_tokens: int) -> np.ndarray:
    return (np.int64(zlib.crc32(name.encode())) << 20) + np.arange(num_tokens // BLOCK)


def blocks(random: np.random.Generator, low: int, high: int) -> int:
    """A length in whole blocks."""
    return int(random.integers(low, high)) // BLOCK * BLOCK


def document_questions(*, groups: int = 10, questions: int = 5, seed: int = 0) -> Iterator[Prompt]:
    """Several questions at the end of each long document, four documents at a time."""
    random = np.random.default_rng(seed)
    for group in range(groups):
        sizes = {name: blocks(random, 3000, 8000) for name in range(4 * group, 4 * group + 4)}
        for turn in range(questions):
            for name, size in sizes.items():
                yield [(f"document {name}", size), (f"question {name}.{turn}", blocks(random, 32, 160))]


def conversations(*, rounds: int = 5, together: int = 12, turns: int = 6, seed: int = 0) -> Iterator[Prompt]:
    """Conversations in turn, each prompt the one before it with a reply and a new message."""
    random = np.random.default_rng(seed)
    for start in range(0, rounds * together, together):
        prompts: dict[int, Prompt] = {name: [] for name in range(start, start + together)}
        for turn in range(turns):
            for name, prompt in prompts.items():
                prompts[name] = [*prompt, (f"turn {name}.{turn}", blocks(random, 160, 480))]
                yield prompts[name]


def shared_instructions(*, count: int = 200, seed: int = 0) -> Iterator[Prompt]:
    """One of three system prompts, then something that is never seen again."""
    random = np.random.default_rng(seed)
    for number in range(count):
        own = (f"own {number}", blocks(random, 320, 1920))
        yield [(f"instructions {random.integers(3)}", 2048), own]


def few_among_many(*, count: int = 300, seed: int = 0) -> Iterator[Prompt]:
    """Every fifth request asks about one of four documents; the others are never seen again."""
    random = np.random.default_rng(seed)
    for number in range(count):
        if number % 5 == 0:
            yield [(f"document {number // 5 % 4}", 3072), (f"question {number}", 64)]
        else:
            yield [(f"never again {number}", blocks(random, 1600, 4000))]
