"""What is compared: five traces at three capacities each, and every policy in every setting worth a try."""

from dataclasses import dataclass
from pathlib import Path

from milepost.policies import POLICIES

__all__ = ["CHECKPOINT_KV_TOKENS", "FLOORS", "TRACES", "BenchmarkTrace", "families", "missing_traces"]

CHECKPOINT_KV_TOKENS = 1_536
_K, _M = 1_000, 1_000_000


@dataclass(frozen=True, slots=True)
class BenchmarkTrace:
    """One trace, its blocks, its capacities in tokens of KV, and what a sketch of the learned policy reuses
    at each.
    """

    title: str
    file: str
    block_tokens: int
    capacities: tuple[int, ...]
    floors: tuple[float, ...]

    def path_in(self, folder: Path) -> Path:
        return folder / self.file


TRACES = (
    BenchmarkTrace(
        "squality", "squality_b16.jsonl.zst", 16, (100 * _K, 200 * _K, 400 * _K), (0.49, 0.76, 0.79)
    ),
    BenchmarkTrace("sharegpt", "sharegpt_b16.jsonl.zst", 16, (100 * _K, 400 * _K, _M), (0.44, 0.66, 0.67)),
    BenchmarkTrace(
        "codefile",
        "codefile_revisions_mooncake_b16.jsonl.zst",
        16,
        (200 * _K, 600 * _K, 2 * _M),
        (0.14, 0.20, 0.26),
    ),
    BenchmarkTrace(
        "mooncake",
        "mooncake_conversation_first30min.jsonl.zst",
        512,
        (3 * _M, 10 * _M, 30 * _M),
        (0.116, 0.255, 0.33),
    ),
    BenchmarkTrace(
        "agentic", "agentic_coding_dev_b64.jsonl.zst", 64, (500 * _K, _M, 2 * _M), (0.85, 0.93, 0.95)
    ),
)
FLOORS = {
    (trace.title, capacity): floor
    for trace in TRACES
    for capacity, floor in zip(trace.capacities, trace.floors, strict=True)
}

# Distances from the ends, as an operator who knows the traffic might choose them.
_OFFSETS = (
    "end=0",
    "end=64",
    "end=192",
    "end=512",
    "end=64+192+1024",
    "start=512+1024,end=64+192",
    "start=1024,end=64,every=4096",
    "end=64,every=16384",
)
# These go by the ends of messages, which traces of block hashes do not know.
_BY_MESSAGES = {"llamacpp", "mlx"}
# A policy that is not named here runs as its bare name; what it learns, it learns by itself.
_SETTINGS = {
    "dense": ("512", "1024", "2048", "4096", "8192", "16384"),
    "periodic": ("1024", "4096", "16384"),
    "balanced": ("1", "2", "3", "4", "8", "16"),
    "dyadic": ("", "start=128", "start=4096"),
    "offsets": _OFFSETS,
    "tensorrt": (*_OFFSETS, *(f"{offsets},branch=yes" for offsets in _OFFSETS)),
    "sglang": ("", "share=0.2", "share=0.7", "chunk=8192"),
    "marconi": ("", "alpha=0", "alpha=0.5", "alpha=2"),
    "histogram-dp": ("1", "2", "3", "4", "6", "8", "12", "16"),
}


def families(*, quick: bool = False) -> dict[str, tuple[str, ...]]:
    """Return the notations of every policy that there is, by name; one setting of each if ``quick``."""
    found = {}
    for name in POLICIES:
        if name in _BY_MESSAGES:
            continue
        values = _SETTINGS.get(name, ("",))
        notations = tuple(f"{name}:{value}" if value else name for value in values)
        found[name] = notations[len(notations) // 2 :][:1] if quick else notations
    return found


def missing_traces(folder: Path) -> str | None:
    """Return why the traces cannot be replayed, None if they can."""
    missing = [trace.file for trace in TRACES if not trace.path_in(folder).is_file()]
    return f"{folder} lacks {', '.join(missing)}" if missing else None
