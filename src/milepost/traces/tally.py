"""Counts of one pass over a log, in bounded memory whatever the log holds."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from milepost.traces.facts import LogFacts
from milepost.traces.line_reading import Line
from milepost.traces.request import TraceRequest
from milepost.traces.turns import TurnWatch

__all__ = ["Tally"]

_KEPT_MESSAGES = 5
_REMEMBERED_IDS = 1 << 16
# Names, reasons and paths come from the log: their writer decides how many there are.
_MOST_NAMES = 10_000


@dataclass(slots=True)
class Tally:
    """What one pass over a trace has met so far."""

    num_requests: int = 0
    num_bad_lines: int = 0
    num_out_of_order: int = 0
    bad_lines: list[str] = field(default_factory=list)
    models: Counter[str] = field(default_factory=Counter)
    salts: Counter[str] = field(default_factory=Counter)
    num_ending_in_answer: int = 0
    is_document: bool = False
    num_repeated: int = 0
    latest_ids: OrderedDict[str, tuple[int, int, str]] = field(default_factory=OrderedDict)
    refused: Counter[str] = field(default_factory=Counter)
    other_endpoints: Counter[str] = field(default_factory=Counter)
    media: Counter[str] = field(default_factory=Counter)
    num_requests_with_media: int = 0
    image_tokens: int | None = None
    num_conversations: int = 0
    logged_tokens: int = 0
    read_tokens: int = 0
    turns: TurnWatch = field(default_factory=TurnWatch)

    def add_bad_line(self, message: str) -> None:
        """Count a line that was skipped; the first few messages are kept."""
        self.num_bad_lines += 1
        if len(self.bad_lines) < _KEPT_MESSAGES:
            self.bad_lines.append(message)

    def add_line(self, line: Line) -> None:
        """Count what was read of a line."""
        if line.refused is not None:
            self._count(self.refused, line.refused)
        if line.other_endpoint is not None:
            self._count(self.other_endpoints, line.other_endpoint)
        if line.requests:
            self._count(self.models, line.model, len(line.requests))
            self._count(self.salts, line.salt, len(line.requests))
            self.num_ending_in_answer += line.num_ending_in_answer
            for request in line.requests:
                self._watch_id(request)
            self.num_conversations += line.is_conversation
            for media in line.media:
                self.media.update(media)
                self.num_requests_with_media += bool(media)
        if line.logged_tokens is not None:
            self.logged_tokens += line.logged_tokens
            self.read_tokens += sum(request.num_tokens for request in line.requests)

    def _watch_id(self, request: TraceRequest) -> None:
        """Count requests with the id and the prompt of an earlier one."""
        seen = (request.num_tokens, int(request.keys[-1]), request.tenant)
        self.num_repeated += self.latest_ids.pop(request.request_id, None) == seen
        self.latest_ids[request.request_id] = seen
        if len(self.latest_ids) > _REMEMBERED_IDS:
            self.latest_ids.popitem(last=False)

    def _count(self, names: Counter[str], name: str, number: int = 1) -> None:
        """Count a name that the log gives, among at most ``_MOST_NAMES``."""
        names[name if name in names or len(names) < _MOST_NAMES else "others"] += number

    def facts(self) -> LogFacts:
        """Return what was met, as it stands."""
        return LogFacts(
            num_requests=self.num_requests,
            models={} if set(self.models) <= {""} else _named(self.models),
            num_salts=sum(1 for salt in self.salts if salt),
            num_repeated=self.num_repeated,
            is_document=self.is_document,
            num_ending_in_answer=self.num_ending_in_answer,
            refused=dict(self.refused),
            other_endpoints=dict(self.other_endpoints),
            num_bad_lines=self.num_bad_lines,
            bad_lines=tuple(self.bad_lines),
            num_out_of_order=self.num_out_of_order,
            media=dict(self.media),
            num_requests_with_media=self.num_requests_with_media,
            image_tokens=self.image_tokens,
            num_conversations=self.num_conversations,
            num_restarted_turns=self.turns.num_restarts,
            logged_tokens=self.logged_tokens,
            read_tokens=self.read_tokens,
        )


def _named(models: Mapping[str, int]) -> dict[str, int]:
    return {name or "(none named)": number for name, number in models.items()}
