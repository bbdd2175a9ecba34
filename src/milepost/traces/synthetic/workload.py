"""What all made-up traffic has in common: options, sessions in parallel, arrival times.

A workload describes one session after the other as turns; ``generate`` keeps ``concurrency`` of them open,
takes the next request from one at random, and replaces a session that has ended. Everything is drawn from
one seeded generator, in integers, so the same options give the same requests on every machine. Memory is
that of the open sessions.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from milepost.errors import ConfigurationError
from milepost.traces.request import TraceRequest
from milepost.traces.synthetic.tokens import Segment, block_keys, prompt_tokens

__all__ = ["Session", "Turn", "Workload", "generate"]

_MILLISECONDS_PER_SECOND = 1000


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session."""

    prompt: tuple[Segment, ...]
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation, or whatever asks several times about the same."""

    kind: str
    turns: Iterator[Turn]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload(ABC):
    """The options of every workload. Lengths are medians in tokens, counts of turns are means.

    Args:
        requests: Requests in the trace.
        seed: Another seed, another trace.
        block: Tokens per key; with 1, keys are token ids.
        concurrency: Sessions open at the same time.
        rate: Requests a second.
        context: A session ends before its prompt grows longer than this.

    Raises:
        ConfigurationError: an option is not positive (``seed``: negative).
    """

    requests: int = 2_000
    seed: int = 0
    block: int = 16
    concurrency: int = 16
    rate: float = 1.0
    context: int = 128_000

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            is_valid = value >= 0 if option.name == "seed" else 0 < value < math.inf
            if not is_valid:
                rule = "0 or more" if option.name == "seed" else "a positive number"
                raise ConfigurationError(f"{option.name}={value}; give {rule}")

    @abstractmethod
    def sessions(self, random: np.random.Generator, progress: Callable[[], float]) -> Iterator[Session]:
        """Yield sessions without end, each with at least one turn.

        Args:
            random: The trace's only source of chance.
            progress: Tells which fraction of the requests has been given out.
        """


def generate(workload: Workload) -> Iterator[TraceRequest]:
    """Yield the requests of a workload. O(num_tokens) per request."""
    random = np.random.Generator(np.random.PCG64(workload.seed))
    num_given = 0
    sessions = enumerate(workload.sessions(random, lambda: num_given / workload.requests))
    slots: list[tuple[str, Iterator[Turn]]] = [("", iter(()))] * workload.concurrency
    arrival_milliseconds = 0
    while num_given < workload.requests:
        slot = int(random.integers(workload.concurrency))
        name, turns = slots[slot]
        turn = next(turns, None)
        if turn is None or (name and _length(turn) > workload.context):
            index, session = next(sessions)
            name, turns = slots[slot] = (f"{session.kind}-{index}", session.turns)
            turn = next(turns)
        # Whole milliseconds: the last bit of a logarithm may differ between machines.
        gap_seconds = random.exponential() / workload.rate
        arrival_milliseconds += round(gap_seconds * _MILLISECONDS_PER_SECOND)
        yield _request(turn, workload, str(num_given), name, arrival_milliseconds / _MILLISECONDS_PER_SECOND)
        num_given += 1


def _request(
    turn: Turn, workload: Workload, request_id: str, session: str, arrival_seconds: float
) -> TraceRequest:
    tokens = prompt_tokens(turn.prompt)
    keys = tokens if workload.block == 1 else block_keys(tokens, block_tokens=workload.block)
    keys.flags.writeable = False
    ends = np.cumsum([part.num_tokens for part in turn.prompt]).tolist()
    return TraceRequest(
        keys=keys,
        key_tokens=workload.block,
        num_tokens=tokens.size,
        request_id=request_id,
        output_tokens=turn.output_tokens,
        arrival_seconds=arrival_seconds,
        session=session,
        breakpoints=tuple(end for part, end in zip(turn.prompt, ends, strict=True) if part.ends_message),
    )


def _length(turn: Turn) -> int:
    return sum(part.num_tokens for part in turn.prompt)
