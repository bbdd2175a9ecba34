"""Questions about documents as a busy server sees them, through an engine with each kind of states."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.lossy.quantised_states import QuantisingDriver
from benchmarks.lossy.quantiser import Quantiser
from benchmarks.lossy.suffix_replay import ReplayingDriver
from milepost.demo.workload import Ask
from milepost.engines.audit import Audit
from milepost.engines.completion import Completion
from milepost.engines.engine import Engine
from milepost.engines.opening import checked_policy
from milepost.engines.served_model import ServedModel

__all__ = ["Run", "exact_engine", "quantised_engine", "replaying_engine", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All requests through one engine.

    Attributes:
        completions: In order.
        cpu_seconds: All together.
        num_replayed: Tokens that were run again for the sake of a state.
    """

    completions: tuple[Completion, ...]
    cpu_seconds: float
    num_replayed: int

    @property
    def reused(self) -> int:
        """Prompt tokens that were resumed after, replayed ones among them."""
        return sum(each.report.reused for each in self.completions)

    @property
    def computed(self) -> int:
        """Prompt tokens that went through the model."""
        return sum(each.report.recomputed for each in self.completions) + self.num_replayed

    @property
    def num_hits(self) -> int:
        """Requests that resumed."""
        return sum(each.report.reused > 0 for each in self.completions)

    def num_differing(self, cold: "Run") -> int:
        """Return the greedy tokens that are not the cold run's, place by place."""
        return sum(
            sum(one != other for one, other in zip(mine.tokens, its.tokens, strict=True))
            for mine, its in zip(self.completions, cold.completions, strict=True)
        )

    def num_right(self, asks: Sequence[Ask]) -> int:
        """Return how many answers say what they should."""
        return sum(
            (ask.question.expected or "") in each.text
            for ask, each in zip(asks, self.completions, strict=True)
        )


def exact_engine(served: ServedModel, *, capacity_bytes: int, policy: str) -> Engine:
    """Return an engine as it is sold."""
    cache = served.new_cache(capacity=capacity_bytes, policy=checked_policy(policy))
    return Engine(served, cache=cache, audit=Audit(share=0.0), max_running=1)


def quantised_engine(served: ServedModel, *, bits: int, capacity_bytes: int, policy: str) -> Engine:
    """Return an engine whose states have that many bits, and are priced so."""
    driver = QuantisingDriver(served.driver, Quantiser(bits))
    live = driver.start()
    driver.advance(live, torch.zeros(served.segment_tokens, dtype=torch.int64))
    footprint = replace(served.footprint, checkpoint_bytes=driver.capture(live).num_bytes)
    changed = replace(served, driver=driver, footprint=footprint)
    return exact_engine(changed, capacity_bytes=capacity_bytes, policy=policy)


def replaying_engine(
    served: ServedModel, *, num_replayed: int, capacity_bytes: int, policy: str
) -> tuple[Engine, ReplayingDriver]:
    """Return an engine that keeps KV alone, and the driver that counts what it replays."""
    driver = ReplayingDriver(served.driver, num_replayed=num_replayed, piece_tokens=served.segment_tokens)
    footprint = replace(served.footprint, checkpoint_bytes=0, windows=())
    changed = replace(served, driver=driver, footprint=footprint)
    return exact_engine(changed, capacity_bytes=capacity_bytes, policy=policy), driver


def run(
    engine: Engine, asks: Sequence[Ask], *, answer_tokens: int, replaying: ReplayingDriver | None = None
) -> Run:
    """Answer every request greedily, an answer of ``answer_tokens`` to each."""
    started = time.process_time()
    completions = tuple(
        engine.generate(ask.tokens, max_new_tokens=answer_tokens, temperature=0.0, ignore_end_token=True)
        for ask in asks
    )
    engine.cache.check()
    return Run(
        completions=completions,
        cpu_seconds=time.process_time() - started,
        num_replayed=0 if replaying is None else replaying.num_replayed,
    )
