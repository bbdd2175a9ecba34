"""What became of requests, counted in the event loop as it happens."""

import time
from collections import Counter, deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import final

from prometheus_client import CollectorRegistry, Histogram

from milepost.engines.completion import Completion
from milepost.server.exchange import CLIENT_GONE
from milepost.server.sight.record import FINISHED_REASONS, Record, Story, finished_reason
from milepost.server.sight.timeline import Timeline
from milepost.server.ticket import Handed, Ticket

__all__ = ["CURRENT", "Tally"]

#: The request whose task this is.
CURRENT: ContextVar[Story | None] = ContextVar("milepost_request", default=None)

_PREFIX = "milepost_"
# The bounds that vLLM has, so that dashboards compare.
_TTFT_BOUNDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_TOKEN_BOUNDS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_REQUEST_BOUNDS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
)  # fmt: skip
_NUM_RECENT = 50


@final
class Tally:
    """A listener (see ``worker.Listener``) that counts. Belongs to the event loop.

    Args:
        registry: Where the histograms are.
        clock: Seconds from some start on.

    Attributes:
        prompt_tokens: Of prompts that were computed.
        generated_tokens: Of answers, so far.
        finished: Answers, by how they ended.
        refused: Requests that were answered with an error, by its status.
        recent: The last requests that came to the engine, or were refused; the newest last.
        timeline: Tokens asked for, reused and made, by when.
    """

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.finished: Counter[str] = Counter(dict.fromkeys(FINISHED_REASONS, 0))
        self.refused: Counter[int] = Counter()
        self.recent: deque[Record] = deque(maxlen=_NUM_RECENT)
        self.timeline = Timeline(clock=clock)
        self._latest_token: dict[Ticket, float] = {}
        self._ttft = _histogram(
            registry, "time_to_first_token", "From when a request was read to its first token.", _TTFT_BOUNDS
        )
        self._inter_token = _histogram(
            registry, "inter_token_latency", "From one token of an answer to the next.", _TOKEN_BOUNDS
        )
        self._latency = _histogram(
            registry,
            "e2e_request_latency",
            "From when a request was read to its answer's end.",
            _REQUEST_BOUNDS,
        )
        self._queue = _histogram(
            registry, "request_queue_time", "From when a request was read to when the engine began it.",
            _REQUEST_BOUNDS,
        )  # fmt: skip

    def submitted(self, ticket: Ticket) -> None:
        """Note which request it answers."""
        story = CURRENT.get()
        if story is not None:
            story.tickets.append(ticket)

    def handed(self, handed: Handed) -> None:
        """Count tokens, and how long they took."""
        ticket, times = handed.ticket, handed.ticket.times
        num_tokens = sum(event.token is not None for event in handed.events)
        if num_tokens:
            self.generated_tokens += num_tokens
            self.timeline.note_generated(num_tokens)
            before = self._latest_token.get(ticket)
            if before is None:
                num_prompt = int(ticket.request.tokens.size)
                self.prompt_tokens += num_prompt
                self.timeline.note_prompt(num_prompt)
                self._ttft.observe(handed.at - times.submitted)
            else:
                for _ in range(num_tokens):
                    self._inter_token.observe((handed.at - before) / num_tokens)
            self._latest_token[ticket] = handed.at
        if handed.outcome is not None:
            self._end(ticket, handed)

    def given_up(self, ticket: Ticket) -> None:
        """Count it as ended: of one that still waits, no end is handed in."""
        self.finished[finished_reason(ticket)] += 1

    def note_record(self, record: Record) -> None:
        """Count a request that was answered."""
        if record.status >= 400 and record.status != CLIENT_GONE:
            self.refused[record.status] += 1
        if record.is_generation or (record.status >= 400 and record.method == "POST"):
            self.recent.append(record)

    def _end(self, ticket: Ticket, handed: Handed) -> None:
        self._latest_token.pop(ticket, None)
        if not ticket.is_given_up:
            self.finished[finished_reason(ticket)] += 1
        if ticket.times.begun is not None:
            self._queue.observe(ticket.times.begun - ticket.times.submitted)
        if isinstance(handed.outcome, Completion):
            self._latency.observe(handed.at - ticket.times.submitted)
            report = handed.outcome.report
            self.timeline.note_prefix(queries=report.num_tokens, hits=report.reused)


def _histogram(registry: CollectorRegistry, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
    return Histogram(f"{_PREFIX}{name}_seconds", text, buckets=bounds, registry=registry)
