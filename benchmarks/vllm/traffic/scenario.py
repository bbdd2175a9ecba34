"""Random scenarios: what is asked of a server, in which blocks, and how much room there is. A seed is one.

* ``chats``: conversations that take turns; now and then an answer is asked for again, or a message edited.
* ``documents``: questions about documents, some about a part of one.
* ``agents``: sessions that begin with one system prompt that grow by tool outputs, and fork.
* ``mixed``: some of each.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from benchmarks.vllm.traffic.asks import FIRST_TOKEN, LAST_TOKEN, Ask, TokenArray, Workload

__all__ = ["KINDS", "POOLS", "Scenario", "draw"]

# Tokens of a block, and of a match unit: every fourth scenario has one, a quarter of the block.
_BLOCKS = (16, 32, 64, 128, 256, 512, 1024, 2048)
_LEAST_UNIT_TOKENS = 16
# Of the blocks that would hold everything. A tiny pool runs the longest request, and little else.
POOLS = {"ample": 4.0, "roomy": 1.0, "half": 0.5, "small": 0.2, "tiny": 0.0}
_STATE_GROUPS = 3
# Blocks of a running request beside its KV: two states in each group, and a copy where it resumes inside one.
_RUNNING_BLOCKS = 3 * _STATE_GROUPS + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario.

    Attributes:
        seed: Which.
        workload: What is asked; its name is its kind.
        block_tokens: Tokens of a block.
        match_unit: Tokens of a block hash.
        pool: A name in ``POOLS``.
        num_blocks: Size of the pool.
        concurrency: Most requests at a time.
        most_tokens: Longest prompt with its answer.
    """

    seed: int
    workload: Workload
    block_tokens: int
    match_unit: int
    pool: str
    num_blocks: int
    concurrency: int
    most_tokens: int


def draw(seed: int) -> Scenario:
    """Return the scenario of ``seed``."""
    random = np.random.default_rng(seed)
    kind = str(random.choice(list(KINDS)))
    block_tokens = int(random.choice(_BLOCKS))
    has_unit = random.random() < 0.25 and block_tokens // 4 >= _LEAST_UNIT_TOKENS
    pool = str(random.choice(list(POOLS)))
    concurrency = int(random.choice([1, 1, 1, 2, 4]))
    answer_tokens = int(random.integers(1, 24))
    asks = _merged(random, KINDS[kind](random))
    lengths = _prompt_lengths(asks, answer_tokens)
    most_tokens = max(lengths) + answer_tokens
    own_blocks = sum(-(-(len(ask.tokens) + answer_tokens) // block_tokens) for ask in asks)
    everything = own_blocks + 3 * _STATE_GROUPS * len(asks)
    least = concurrency * (-(-most_tokens // block_tokens) + _RUNNING_BLOCKS) + 2
    return Scenario(
        seed=seed,
        workload=Workload(
            name=kind,
            asks=tuple(asks),
            answer_tokens=answer_tokens,
            pool_tokens=0,
            shares_prefixes=True,
        ),
        block_tokens=block_tokens,
        match_unit=block_tokens // 4 if has_unit else block_tokens,
        pool=pool,
        num_blocks=least + int(POOLS[pool] * everything),
        concurrency=concurrency,
        most_tokens=most_tokens,
    )


def _chats(random: np.random.Generator) -> Iterator[list[Ask]]:
    for _ in range(int(random.integers(2, 7))):
        asks = [Ask(tokens=_draw(random, 100, 3000))]
        for _ in range(int(random.integers(1, 6))):
            follows = len(asks) - 1
            if random.random() < 0.1:
                # Asked again, or edited: it goes on from where the last one did.
                last = asks[-1]
                is_edited = random.random() < 0.5
                asks.append(
                    Ask(tokens=_draw(random, 20, 600) if is_edited else last.tokens, follows=last.follows)
                )
                continue
            asks.append(Ask(tokens=_draw(random, 20, 600), follows=follows))
        yield asks


def _documents(random: np.random.Generator) -> Iterator[list[Ask]]:
    for _ in range(int(random.integers(1, 6))):
        document = _draw(random, 500, 8000)
        asks = []
        for _ in range(int(random.integers(2, 7))):
            is_whole = random.random() < 0.6
            shared = document if is_whole else document[: int(random.integers(1, len(document)))]
            asks.append(Ask(tokens=np.concatenate([shared, _draw(random, 10, 500)])))
        yield asks


def _agents(random: np.random.Generator) -> Iterator[list[Ask]]:
    system = _draw(random, 200, 3000)
    for _ in range(int(random.integers(2, 5))):
        asks = [Ask(tokens=np.concatenate([system, _draw(random, 20, 400)]))]
        for step in range(int(random.integers(2, 7))):
            forks = random.random() < 0.15
            follows = int(random.integers(0, step + 1)) if forks else step
            asks.append(Ask(tokens=_draw(random, 20, 1200), follows=follows))
        yield asks


def _mixed(random: np.random.Generator) -> Iterator[list[Ask]]:
    for make in (_chats, _documents, _agents):
        yield from list(make(random))[:2]


KINDS: dict[str, Callable[[np.random.Generator], Iterator[list[Ask]]]] = {
    "chats": _chats,
    "documents": _documents,
    "agents": _agents,
    "mixed": _mixed,
}


def _merged(random: np.random.Generator, groups: Iterator[list[Ask]]) -> list[Ask]:
    """Return the requests of all groups, taking turns at random; each group stays in its order."""
    waiting = list(groups)
    turns = random.permutation(np.repeat(np.arange(len(waiting)), [len(group) for group in waiting]))
    numbers, merged = [count() for _ in waiting], []
    places: dict[tuple[int, int], int] = {}
    for group in turns.tolist():
        number = next(numbers[group])
        ask = waiting[group][number]
        places[group, number] = len(merged)
        follows = None if ask.follows is None else places[group, ask.follows]
        merged.append(Ask(tokens=ask.tokens, follows=follows))
    return merged


def _prompt_lengths(asks: list[Ask], answer_tokens: int) -> list[int]:
    lengths: list[int] = []
    for ask in asks:
        before = 0 if ask.follows is None else lengths[ask.follows] + answer_tokens
        lengths.append(before + len(ask.tokens))
    return lengths


def _draw(random: np.random.Generator, least: int, most: int) -> TokenArray:
    """Return tokens, short stretches as likely as long ones."""
    num_tokens = int(np.exp(random.uniform(np.log(least), np.log(most))))
    return random.integers(FIRST_TOKEN, LAST_TOKEN + 1, num_tokens, dtype=np.int32)
