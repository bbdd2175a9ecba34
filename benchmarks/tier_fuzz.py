"""Random operations on a chain of caches, every law checked after each of them.

    python -m benchmarks.tier_fuzz --operations 1000000 --seed 1

Requests that overlap in every way, several open at once, of several tenants; pins and their time; answers;
reads that fail, writes that are refused; budgets that grow and shrink; speeds that turn over; tenants that
go; restarts in between. After each operation every budget is kept to the byte, ``check()`` is clean, the
shelves hold what the tiers know and nothing else; and whatever a request resumes from was made for exactly
its tokens and its tenant. It stops by itself, and says how far it is.
"""

import argparse
import logging
import time
from collections import Counter

import numpy as np

from benchmarks.tier_chain import (
    FOOTPRINT,
    GRID,
    STATELESS,
    FailingShelf,
    Source,
    Ticks,
    assert_made_for,
    new_chain,
)
from milepost.lease import Lease
from milepost.policies import POLICIES

_TENANTS = ("", "a", "b", "passing")
_MOST_OPEN = 3
_POLICIES = ("tail", "learned", "dense:8", "balanced:3", "tail+junction/learned", "marconi", "sglang", "none")
assert {name.split("/")[0].split(":")[0] for name in _POLICIES} <= POLICIES.keys()


class FuzzedChain:
    """A chain of caches, and what may happen to it."""

    def __init__(self, *, num_shelves=1, policy="learned", is_stateless=False, compression=1.0, memory=600):
        self.shelves = [FailingShelf(compression=compression) for _ in range(num_shelves)]
        self.policy = policy
        self.footprint = STATELESS if is_stateless else FOOTPRINT
        self.pin_clock = Ticks()
        self.memory, self.below = memory, 2_000
        self.open: list[tuple[Lease, list[int], str]] = []
        self.done: Counter[str] = Counter()
        self.chain = self._new_chain()

    def _new_chain(self):
        return new_chain(
            self.shelves,
            memory=self.memory,
            below=self.below,
            policy=self.policy,
            footprint=self.footprint,
            is_lasting=lambda tenant: tenant != "passing",
            pin_clock=self.pin_clock,
        )

    def begin(self, tokens, tenant, pins):
        """A request is looked up, and stays open."""
        if len(self.open) >= _MOST_OPEN:
            self.finish(0, keeps=True)
        tokens = [int(token) for token in tokens]
        pins = [(min(position, len(tokens)), seconds) for position, seconds in pins]
        lease = self.chain.acquire(tokens, tenant=tenant, pins=pins)
        assert_made_for(lease, tokens, tenant)
        sources = self.chain.reused_by_tier(lease)
        assert sum(sources.values()) == lease.resume_position
        self.done["requests"] += 1
        self.done["resumed"] += lease.resume_position > 0
        self.done["fetched"] += len(sources) > 1
        self.open.append((lease, tokens, tenant))

    def finish(self, index, *, keeps, answer=(), is_trusted=True):
        """One of the open requests is committed, its answer after it, or given up."""
        if not self.open:
            return
        lease, tokens, tenant = self.open.pop(index % len(self.open))
        assert_made_for(lease, tokens, tenant)
        if not is_trusted:
            lease.discard()
            return
        if keeps:
            planned = self.chain.plan(lease)
            self.chain.commit(lease, planned, Source(tokens, tenant, self.footprint))
        lease.release()
        if keeps and answer:
            answered = [*tokens, *(int(token) for token in answer)]
            answered = answered[: len(answered) // GRID * GRID]
            if len(answered) >= len(tokens):
                source = Source(answered, tenant, self.footprint)
                self.chain.extend(lease, answered, source, unasked=bool(len(answer) % 2))

    def damage(self, which, share):
        """Some of what lies on a shelf cannot be read any more."""
        shelf = self.shelves[which % len(self.shelves)]
        keys = sorted(entry.key for entry in shelf.entries())
        shelf.damaged = set(keys[:: max(1, round(1 / share))]) if share > 0 else set()

    def refuse(self, which, refuses):
        """A shelf takes nothing in for a while."""
        self.shelves[which % len(self.shelves)].refuses = refuses

    def resize(self, memory, below):
        """Budgets grow or shrink."""
        self.memory, self.below = memory, below
        self.chain.fastest.resize(memory)
        for tier in self.chain.slower:
            tier.resize(below)

    def pass_time(self, seconds):
        """Pins come of age."""
        self.pin_clock.now += seconds

    def measure(self, computing, reading):
        """Computing and reading are as fast as said."""
        if self.open:
            self.chain.note_computed(self.open[-1][0], computing)
        for number, tier in enumerate(self.chain.slower):
            tier.speed.note(1e4, reading * (number + 1))

    def forget(self, tenant):
        """A tenant goes from this process, or everybody from everywhere."""
        if tenant == "b":
            self.chain.forget_everything()
        else:
            self.chain.forget_tenants(lambda name: name == tenant)

    def restart(self):
        """The process ends in the middle of everything, and another one begins."""
        self.open.clear()
        before = [{entry.key for entry in shelf.entries()} for shelf in self.shelves]
        self.chain = self._new_chain()
        num_found = self.chain.restore()
        after = [{entry.key for entry in shelf.entries()} for shelf in self.shelves]
        assert all(left <= had for left, had in zip(after, before, strict=True))
        self.done["restarts"] += 1
        self.done["found again"] += num_found

    def check(self):
        """Every law."""
        chain = self.chain
        chain.check()
        fastest = chain.fastest
        # A budget that was made smaller waits for what leases hold, and for nothing else.
        assert fastest.stored_bytes <= self.memory or self.open
        for tier, shelf in zip(chain.slower, self.shelves, strict=True):
            known, num_bytes = self._known(tier)
            lying = {entry.key for entry in shelf.entries()}
            assert lying <= known, "the shelf holds what the tier does not know"
            assert shelf.raw_bytes == sum(entry.num_bytes for entry in shelf.entries())
            assert num_bytes >= shelf.raw_bytes
            assert shelf.stored_bytes <= self.below or self.open

    @staticmethod
    def _known(tier):
        nodes = list(tier.cache._store.tree.nodes())
        segments = {handle.key for node in nodes for handle in node.kv}
        states = {each.payload.key for node in nodes for each in node.checkpoints if each.payload is not None}
        return segments | states, tier.cache.stored_bytes


class RandomOperations:
    """Operations drawn at random."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        rng = self._rng
        self.fuzzed = FuzzedChain(
            num_shelves=int(rng.integers(1, 3)),
            policy=str(rng.choice(_POLICIES)),
            is_stateless=bool(rng.random() < 0.2),
            compression=float(rng.choice([1.0, 1.5, 3.0])),
            memory=int(rng.integers(250, 2_000)),
        )

    def step(self) -> None:
        """Do one."""
        rng, fuzzed = self._rng, self.fuzzed
        which = rng.random()
        if which < 0.45:
            pins = [(int(rng.integers(1, 60)), float(rng.integers(1, 90)))] if rng.random() < 0.2 else []
            fuzzed.begin(self._prompt(), str(rng.choice(_TENANTS)), pins)
        elif which < 0.90:
            answer = rng.integers(0, 3, rng.integers(0, 20)).tolist() if rng.random() < 0.3 else ()
            keeps, is_trusted = bool(rng.random() < 0.9), bool(rng.random() < 0.97)
            fuzzed.finish(int(rng.integers(_MOST_OPEN)), keeps=keeps, answer=answer, is_trusted=is_trusted)
        elif which < 0.92:
            fuzzed.damage(int(rng.integers(2)), float(rng.choice([0.0, 0.1, 0.5, 1.0])))
        elif which < 0.93:
            fuzzed.refuse(int(rng.integers(2)), bool(rng.random() < 0.3))
        elif which < 0.95:
            # A cache that splits its budget would not open again, after a restart, with less.
            fuzzed.resize(int(rng.integers(250, 2_500)), int(rng.integers(150, 6_000)))
        elif which < 0.97:
            fuzzed.pass_time(float(rng.integers(1, 60)))
        elif which < 0.985:
            fuzzed.measure(float(rng.choice([1e-3, 1.0])), float(rng.choice([1e-3, 1.0, 1e3])))
        elif which < 0.995:
            fuzzed.restart()
        else:
            fuzzed.forget(str(rng.choice(_TENANTS)))
        fuzzed.check()

    def _prompt(self) -> list[int]:
        """A prompt that follows others for a while: few beginnings, few ways to go on."""
        rng = self._rng
        prompt: list[int] = []
        while len(prompt) < 4 or (len(prompt) < 64 and rng.random() < 0.75):
            prompt += [int(rng.integers(3))] * int(rng.integers(1, 12))
        return prompt


def main() -> None:
    """Run as many operations as asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chain", type=int, default=500, help="operations on one chain, before a new one")
    arguments = parser.parse_args()
    logging.getLogger("milepost").setLevel(logging.ERROR)
    started, reported = time.monotonic(), 0.0
    done: Counter[str] = Counter()
    for number in range(arguments.operations):
        if number % arguments.chain == 0:
            operations = RandomOperations(arguments.seed + number // arguments.chain)
        try:
            operations.step()
        except BaseException:
            print(f"failed at operation {number:,} of seed {arguments.seed}")
            raise
        if (number + 1) % arguments.chain == 0 or number + 1 == arguments.operations:
            done += operations.fuzzed.done
        elapsed = time.monotonic() - started
        if elapsed - reported > 30 or number + 1 == arguments.operations:
            reported = elapsed
            counts = ", ".join(f"{count:,} {name}" for name, count in done.items())
            print(f"{number + 1:,} operations, {(number + 1) / elapsed:,.0f} a second: {counts}", flush=True)
    print("every budget kept, every check clean, no payload of another prompt")


if __name__ == "__main__":
    main()
