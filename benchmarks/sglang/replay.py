"""Replays a trace through SGLang's cache: as it is, at its settings, and with Milepost."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.sglang.bare_engine import BareEngine
from milepost.traces import TraceRequest, open_trace

__all__ = [
    "MILEPOST",
    "POOLS",
    "STOCK_SETTINGS",
    "WORKLOADS",
    "Pools",
    "Reuse",
    "Setting",
    "pools_of",
    "prompts_in",
    "prompts_of",
    "replay",
]


@dataclass(frozen=True, slots=True)
class Setting:
    """How SGLang is started.

    Attributes:
        label: What reports call it.
        backend: Of the radix cache; None for SGLang's own.
        eviction_policy: Of the KV.
        states_per_path: Most states of a path; -1 for no limit.
    """

    label: str
    backend: str | None = None
    eviction_policy: str = "lru"
    states_per_path: int = -1


@dataclass(frozen=True, slots=True)
class Pools:
    """Slots for states, three of them for the request that runs, and tokens of KV."""

    num_states: int
    num_kv_tokens: int
    chunk_tokens: int


@dataclass(frozen=True, slots=True)
class Reuse:
    """Which share of the prompts' tokens was not computed again, and how many chunks more that took."""

    fraction: float
    num_stops: int


MILEPOST = Setting("milepost", backend="milepost")
STOCK_SETTINGS = (
    Setting("as it is"),
    *(
        Setting(f"--radix-eviction-policy {name}", eviction_policy=name)
        for name in ("lfu", "slru", "fifo", "mru")
    ),
    *(Setting(f"--mamba-max-states-per-path {most}", states_per_path=most) for most in (1, 2, 4)),
)

# What they are called, how they are made, and what is wanted of Milepost where states are short: so many
# times what SGLang reuses at its best.
WORKLOADS = {
    "documents": ("synthetic:documents,requests={},seed=1", 1.3),
    "chat": ("synthetic:chat,requests={},seed=1", 1.0),
    "agents": ("synthetic:agents,requests={},seed=1", 1.0),
}
CHUNK_TOKENS = 8192
# Slots for states; KV for so many average prompts.
POOLS = ((10, 60), (24, 60), (60, 8), (90, 200))


def prompts_of(requests: Sequence[TraceRequest]) -> list[array]:
    """Return prompts as token ids; where a key stands for a block, ids that only this block has."""
    return [array("q", _tokens(request).tobytes()) for request in requests]


def prompts_in(notation: str, num_requests: int) -> list[array]:
    """Return the first prompts of a workload or a log."""
    return prompts_of([*open_trace(notation.format(num_requests)).first(num_requests)])


def pools_of(prompts: Sequence[array], pool: tuple[int, int]) -> Pools:
    """Return pools of so many slots for states, and KV for so many average prompts."""
    num_states, num_prompts = pool
    average = sum(map(len, prompts)) // len(prompts)
    # The longest prompt has to fit.
    least_kv = max(map(len, prompts)) + 1024
    return Pools(num_states, max(least_kv, num_prompts * average), CHUNK_TOKENS)


def replay(setting: Setting, pools: Pools, prompts: Sequence[array]) -> Reuse:
    """Serve prompts, one at a time."""
    engine = BareEngine(
        setting.backend,
        num_states=pools.num_states,
        num_kv_tokens=pools.num_kv_tokens,
        chunk=pools.chunk_tokens,
        eviction_policy=setting.eviction_policy,
        options={"mamba_max_states_per_path": setting.states_per_path},
        signs=False,
    )
    reused = sum(engine.serve(prompt)[0] for prompt in prompts)
    engine.check_leaks()
    num_stops = 0 if engine.manager is None else engine.manager.counts.stops
    return Reuse(reused / sum(map(len, prompts)), num_stops)


def _tokens(request: TraceRequest) -> np.ndarray:
    if request.key_tokens == 1:
        return request.keys
    inside = np.arange(request.key_tokens, dtype=np.int64)
    ids = (request.keys.astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)).view(np.int64)
    return (ids + inside).reshape(-1)[: request.num_tokens]
