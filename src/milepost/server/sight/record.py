"""One request of HTTP as an operator is told of it: what it took, what it reused, and why the rest was lost.

It says nothing that a client wrote but the request's id.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from milepost.engines.completion import Completion
from milepost.server.ticket import Ticket
from milepost.server.usage import CAUSES, recomputed_by_cause

__all__ = ["ABORT", "ERROR", "FINISHED_REASONS", "Record", "Story", "finished_reason"]

# How an answer ends, in vLLM's words: its client went away; it broke.
ABORT, ERROR = "abort", "error"
FINISHED_REASONS = ("stop", "length", ABORT, ERROR)


def finished_reason(ticket: Ticket) -> str:
    """Return how an answer ended. One that nobody waits for any more has ended."""
    if ticket.is_given_up:
        return ABORT
    return ticket.outcome.finish_reason if isinstance(ticket.outcome, Completion) else ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """See the module. Tokens are those of all answers together.

    Attributes:
        request_id: What it is called.
        at: When it ended, in seconds since 1970.
        method: Of HTTP.
        path: The path's pattern, not what the client wrote.
        status: What it was answered.
        answers: How many answers it had.
        prompt_tokens: Of its prompts.
        cached_tokens: Those that were not computed, by the tier that had them.
        recomputed: Those that were, by cause; of answers that came to their end.
        generated_tokens: Of its answers.
        queue_seconds: Until the first answer was begun.
        ttft_seconds: Until the first token, from when it was read.
        total_seconds: From its first byte to its last.
        finish_reasons: How its answers ended.
    """

    request_id: str
    at: float
    method: str
    path: str
    status: int
    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: Mapping[str, int] = field(default_factory=dict)
    recomputed: Mapping[str, int] = field(default_factory=dict)
    generated_tokens: int = 0
    queue_seconds: float | None = None
    ttft_seconds: float | None = None
    total_seconds: float = 0.0
    finish_reasons: tuple[str, ...] = ()

    @property
    def is_generation(self) -> bool:
        """Whether it came to the engine at all."""
        return self.answers > 0

    def as_json(self) -> dict[str, Any]:
        """Return all fields as plain values, times to the tenth of a millisecond."""
        fields = asdict(self)
        return {name: round(each, 4) if isinstance(each, float) else each for name, each in fields.items()}


@dataclass(slots=True, kw_only=True)
class Story:
    """A request that goes on.

    Attributes:
        request_id: What it is called.
        method: Of HTTP.
        started: When it came, in seconds of ``time.monotonic``.
        tickets: Its answers.
    """

    request_id: str
    method: str
    started: float
    tickets: list[Ticket] = field(default_factory=list)

    def end(self, *, path: str, status: int, now: float) -> Record:
        """Return what is told of it."""
        cached: Counter[str] = Counter()
        recomputed = dict.fromkeys(CAUSES, 0)
        num_generated = 0
        for ticket in self.tickets:
            if isinstance(ticket.outcome, Completion):
                num_generated += len(ticket.outcome.tokens)
                cached.update(ticket.outcome.reused_by_tier)
                for cause, count in recomputed_by_cause(ticket.outcome.report).items():
                    recomputed[cause] += count
        begun = [each.times.begun - each.times.submitted for each in self.tickets if each.times.begun]
        first = [
            each.times.first_token - each.times.submitted for each in self.tickets if each.times.first_token
        ]
        return Record(
            request_id=self.request_id,
            at=time.time(),
            method=self.method,
            path=path,
            status=status,
            answers=len(self.tickets),
            prompt_tokens=sum(int(each.request.tokens.size) for each in self.tickets),
            cached_tokens=dict(cached),
            recomputed=recomputed if self.tickets else {},
            generated_tokens=num_generated,
            queue_seconds=min(begun, default=None),
            ttft_seconds=min(first, default=None),
            total_seconds=now - self.started,
            finish_reasons=tuple(finished_reason(each) for each in self.tickets),
        )
