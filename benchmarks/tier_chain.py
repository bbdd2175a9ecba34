"""Chains of small caches whose payloads say which tokens they were made for, on shelves that can fail."""

import math
from dataclasses import dataclass
from hashlib import sha256

from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.policies import learned, parse_policy
from milepost.tiers import HeldShelf, Speed, Tier, TieredCache

GRID, SEGMENT = 4, 8
FOOTPRINT = Footprint(checkpoint_bytes=100, kv_bytes_per_token=1)
STATELESS = Footprint(checkpoint_bytes=0, kv_bytes_per_token=1)


@dataclass(frozen=True, eq=False)
class Payload:
    """A state or a piece of KV, and the tenant and tokens that it was made for."""

    prefix: tuple
    num_bytes: int

    @property
    def digest(self) -> bytes:
        return sha256(repr(self.prefix).encode()).digest()[:16]


class Source:
    """What an engine hands out for one prompt."""

    def __init__(self, tokens, tenant="", footprint=FOOTPRINT):
        self.tokens, self.tenant, self.footprint = tuple(tokens), tenant, footprint

    def checkpoint(self, position):
        # Off the segments, the KV since the last one comes on top.
        tail = position % SEGMENT * self.footprint.kv_bytes_per_token
        return Payload((self.tenant, *self.tokens[:position]), self.footprint.checkpoint_bytes + tail)

    def kv_segments(self, start, end):
        size = SEGMENT * self.footprint.kv_bytes_per_token
        return [
            Payload((self.tenant, *self.tokens[:stop]), size)
            for stop in range(start + SEGMENT, end + 1, SEGMENT)
        ]


class FailingShelf:
    """A shelf some of whose payloads cannot be read, and which may refuse what is put."""

    def __init__(self, *, compression=1.0):
        self.held = HeldShelf(
            offload=lambda payload: (payload, math.ceil(payload.num_bytes / compression)),
            reload=lambda payload: payload,
        )
        self.damaged: set[str] = set()
        self.refuses = False
        self.lost: list[str] = []
        self.num_fetches = 0
        self.fetch_seconds = 0.0

    def __getattr__(self, name):
        return getattr(self.held, name)

    def put(self, entry, payload):
        if self.refuses:
            self.lost.append(entry.key)
        else:
            self.damaged.discard(entry.key)
            self.held.put(entry, payload)

    def fetch(self, keys):
        self.num_fetches += 1
        return [
            None if key in self.damaged else payload
            for key, payload in zip(keys, self.held.fetch(keys), strict=True)
        ]

    def take_lost(self):
        lost, self.lost = self.lost, []
        return lost


class Ticks:
    """A clock that moves on by a set time whenever it is looked at."""

    def __init__(self, step=0.0):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def new_chain(
    shelves,
    *,
    memory=1_000,
    below=100_000,
    policy="tail",
    footprint=FOOTPRINT,
    clock=None,
    is_lasting=lambda tenant: True,
    pin_clock=None,
) -> TieredCache:
    computing = Speed()
    options = {"footprint": footprint, "grid": GRID, "segment_tokens": SEGMENT}
    tiers = [
        Tier(
            f"tier {number}",
            shelf,
            capacity_bytes=below,
            policy=learned(),
            computing=computing,
            clock=clock or Ticks(),
            **options,
        )
        for number, shelf in enumerate(shelves, start=1)
    ]
    memory_cache = HostedCache(
        capacity_bytes=memory, policy=parse_policy(policy), clock=pin_clock or Ticks(), **options
    )
    return TieredCache(memory_cache, tiers, is_lasting=is_lasting, computing=computing)


def assert_made_for(lease, tokens, tenant=""):
    """What a request resumes from was made for exactly its tokens."""
    position = lease.resume_position
    assert len(lease.kv_segments) == position // SEGMENT
    for number, payload in enumerate(lease.kv_segments, start=1):
        assert payload.prefix == (tenant, *tokens[: number * SEGMENT])
    if lease.state is not None:
        assert lease.state.prefix == (tenant, *tokens[:position])


def serve(chain, tokens, *, tenant="", pins=()):
    tokens = list(tokens)
    with chain.acquire(tokens, tenant=tenant, pins=pins) as lease:
        assert_made_for(lease, tokens, tenant)
        report = chain.commit(lease, chain.plan(lease), Source(tokens, tenant, chain.footprint))
    chain.check()
    return report


def prompt(number, length=40):
    return [number] * length
