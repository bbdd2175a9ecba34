"""Seeded traffic of token ids, by name: the same tokens on every machine.

* ``documents-ample`` and ``documents``: questions about documents of about 6,000 tokens, in random order. A
  question shares the first 1,400, 3,900 or 5,300 tokens of its document, give or take a few. The first has
  memory for all.
* ``chat``: conversations that grow by the model's own answers and the next message.
* ``system-prompt``: 600 tokens before all messages, shorter than a block, with ``prefix_match_unit`` at 64.
* ``unique``: nothing is shared.
* ``trace``: the beginning of a log of block hashes, each block cut down to a few tokens that derive from
  its hash.
"""

import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.vllm.traffic.asks import FIRST_TOKEN, LAST_TOKEN, Ask, TokenArray, Workload
from milepost.traces import TraceRequest, open_trace

__all__ = ["WORKLOADS", "build", "replay_trace"]

_DOCUMENT_TOKENS = 6_000
_SHARED_DEPTHS = (1_400, 3_900, 5_300)
_SYSTEM_PROMPT_TOKENS = 600
_TRACE_REQUESTS = 400
_TRACE_MEAN_TOKENS, _TRACE_MOST_TOKENS = 4_000, 8_000
_TRACE_TOTAL_TOKENS = 600_000


def documents(
    *, name: str, num_documents: int, num_questions: int, pool_tokens: int, seed: int = 1
) -> Workload:
    """Return questions about documents, shuffled; each diverges from its document at a depth of its own."""
    random = np.random.default_rng(seed)
    asks = []
    for document in [_draw(random, _DOCUMENT_TOKENS) for _ in range(num_documents)]:
        for depth in random.choice(_SHARED_DEPTHS, num_questions):
            shared = document[: int(depth + random.integers(-100, 101))]
            own = _DOCUMENT_TOKENS + int(random.integers(-200, 201)) - len(shared)
            asks.append(Ask(tokens=np.concatenate([shared, _draw(random, own)])))
    order = random.permutation(len(asks))
    return Workload(
        name=name,
        asks=tuple(asks[index] for index in order),
        answer_tokens=4,
        pool_tokens=pool_tokens,
        shares_prefixes=True,
    )


def chat(*, num_conversations: int, num_turns: int, pool_tokens: int, seed: int = 2) -> Workload:
    """Return conversations that take turns in random order; the first message of each is long."""
    random = np.random.default_rng(seed)
    asks: list[Ask] = []
    latest: dict[int, int] = {}
    for conversation in random.permutation(np.repeat(np.arange(num_conversations), num_turns)).tolist():
        follows = latest.get(conversation)
        least, most = (400, 1_600) if follows is None else (100, 700)
        latest[conversation] = len(asks)
        asks.append(Ask(tokens=_draw(random, int(random.integers(least, most))), follows=follows))
    return Workload(
        name="chat",
        asks=tuple(asks),
        answer_tokens=48,
        pool_tokens=pool_tokens,
        shares_prefixes=False,
    )


def system_prompt(*, num_requests: int, pool_tokens: int, seed: int = 3) -> Workload:
    """Return messages after one system prompt that does not fill a block."""
    random = np.random.default_rng(seed)
    shared = _draw(random, _SYSTEM_PROMPT_TOKENS)
    messages = [_draw(random, int(random.integers(200, 1_400))) for _ in range(num_requests)]
    return Workload(
        name="system-prompt",
        asks=tuple(Ask(tokens=np.concatenate([shared, message])) for message in messages),
        answer_tokens=8,
        pool_tokens=pool_tokens,
        shares_prefixes=True,
        block_tokens=640,
        prefix_match_unit=64,
    )


def unique(*, num_requests: int, pool_tokens: int, seed: int = 4) -> Workload:
    """Return prompts of 500 to 9,000 tokens, short ones as likely as long ones, that share nothing."""
    random = np.random.default_rng(seed)
    lengths = np.exp(random.uniform(np.log(500), np.log(9_000), num_requests)).astype(int)
    return Workload(
        name="unique",
        asks=tuple(Ask(tokens=_draw(random, length)) for length in lengths.tolist()),
        answer_tokens=8,
        pool_tokens=pool_tokens,
        shares_prefixes=False,
    )


def replay_trace(
    path: str | Path, *, num_requests: int, pool_tokens: int, most_tokens: int = _TRACE_TOTAL_TOKENS
) -> Workload:
    """Return the first requests of a log, scaled down until they are 4,000 tokens long on average.

    A block of the log becomes the same few tokens wherever it stands, so prompts share what they shared
    there. A prompt ends at 8,000 tokens, and all together at ``most_tokens``.

    Raises:
        TraceFormatError: the log cannot be read.
    """
    requests = list(islice(open_trace(path), num_requests))
    mean_tokens = sum(request.num_tokens for request in requests) / len(requests)
    prompts = [_scaled_down(request, min(1.0, _TRACE_MEAN_TOKENS / mean_tokens)) for request in requests]
    last = int(np.searchsorted(np.cumsum([len(prompt) for prompt in prompts]), most_tokens, side="right"))
    return Workload(
        name="trace",
        asks=tuple(Ask(tokens=prompt) for prompt in prompts[:last]),
        answer_tokens=4,
        pool_tokens=pool_tokens,
        shares_prefixes=True,
    )


WORKLOADS: dict[str, Callable[[bool], Workload]] = {
    "documents-ample": lambda quick: documents(
        name="documents-ample",
        num_documents=8 if quick else 24,
        num_questions=3,
        pool_tokens=360_000 if quick else 1_100_000,
    ),
    "documents": lambda quick: documents(
        name="documents",
        num_documents=6 if quick else 20,
        num_questions=4,
        pool_tokens=40_000 if quick else 110_000,
        seed=5,
    ),
    "chat": lambda quick: chat(
        num_conversations=4 if quick else 16, num_turns=6, pool_tokens=24_000 if quick else 72_000
    ),
    "system-prompt": lambda quick: system_prompt(num_requests=20 if quick else 80, pool_tokens=64_000),
    "unique": lambda quick: unique(num_requests=16 if quick else 80, pool_tokens=110_000),
}
"""Synthetic workloads by name, at full size or ``quick``. A trace is ``build(..., trace=path)``."""


def build(name: str, *, quick: bool = False, trace: str | Path | None = None) -> Workload:
    """Return the workload ``name``: one of ``WORKLOADS``, or ``trace`` where a path is given.

    Raises:
        ValueError: there is no such workload, or no trace.
    """
    if name == "trace":
        if trace is None:
            raise ValueError("the workload 'trace' replays a log of block hashes; give its path")
        return replay_trace(trace, num_requests=40 if quick else _TRACE_REQUESTS, pool_tokens=110_000)
    if name not in WORKLOADS:
        raise ValueError(f"no workload named {name!r}; there are {', '.join([*WORKLOADS, 'trace'])}")
    return WORKLOADS[name](quick)


def _draw(random: np.random.Generator, num_tokens: int) -> TokenArray:
    return random.integers(FIRST_TOKEN, LAST_TOKEN + 1, num_tokens, dtype=np.int32)


def _scaled_down(request: TraceRequest, scale: float) -> TokenArray:
    block_tokens = max(1, round(request.key_tokens * scale))
    num_tokens = max(
        1, min(round(request.num_tokens * scale), request.keys.size * block_tokens, _TRACE_MOST_TOKENS)
    )
    keys = request.keys[: -(-num_tokens // block_tokens)].astype(np.uint64)
    # Prompts of different tenants share nothing.
    keys ^= np.uint64(zlib.crc32(request.tenant.encode()))
    return _tokens_of(keys, block_tokens)[:num_tokens]


def _tokens_of(keys: npt.NDArray[np.uint64], block_tokens: int) -> TokenArray:
    """Return ``block_tokens`` tokens a key: the splitmix64 sequence that the key is the seed of."""
    mixed = keys[:, None] + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, block_tokens + 1, dtype=np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    tokens: TokenArray = (mixed % np.uint64(LAST_TOKEN + 1 - FIRST_TOKEN)).astype(np.int32) + FIRST_TOKEN
    return tokens.reshape(-1)
