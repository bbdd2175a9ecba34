"""What a reading of a log met beside its requests: models, refusals, images, lines that it skipped.

A figure about a log is worth what was counted into it, so all of this is said where figures are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LogFacts"]

_NAMED_MODELS = 5
# Chat templates and versions of tokenizers differ by a few tokens a message, never by so much.
_CREDIBLE_RATIO = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """What one reading of a trace met.

    Attributes:
        num_requests: Requests given out.
        models: Requests of each model and adapter; empty where the log names none. They share nothing.
        num_salts: Salts or tenants that the log names; they share nothing, either.
        num_repeated: Requests with the id and the prompt of one before them.
        is_document: Whether it is an array or another document that is held as a whole.
        num_ending_in_answer: Requests of which the last message is an answer.
        refused: Lines of requests that were never computed, by reason; left out.
        other_endpoints: Lines of requests that nothing is generated for, by path; left out.
        num_bad_lines: Malformed lines, left out.
        bad_lines: What was wrong with the first few.
        num_out_of_order: Requests with a time before that of the one before them.
        media: Parts of prompts that are no text, by kind.
        num_requests_with_media: Requests with any.
        image_tokens: What an image counts as; None where it is a placeholder of some thirty tokens.
        num_conversations: Whole conversations that were turned into requests.
        num_restarted_turns: Later turns that do not begin as their conversation did.
        logged_tokens: Prompt tokens of those requests of which the log counts them.
        read_tokens: The same requests' tokens as they are replayed.
    """

    num_requests: int = 0
    models: Mapping[str, int] = field(default_factory=dict)
    num_salts: int = 0
    num_repeated: int = 0
    is_document: bool = False
    num_ending_in_answer: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    other_endpoints: Mapping[str, int] = field(default_factory=dict)
    num_bad_lines: int = 0
    bad_lines: tuple[str, ...] = ()
    num_out_of_order: int = 0
    media: Mapping[str, int] = field(default_factory=dict)
    num_requests_with_media: int = 0
    image_tokens: int | None = None
    num_conversations: int = 0
    num_restarted_turns: int = 0
    logged_tokens: int = 0
    read_tokens: int = 0

    @property
    def num_models(self) -> int:
        """Models and adapters that share nothing, one where none is named."""
        return max(1, len(self.models))

    @property
    def num_refused(self) -> int:
        """Lines of requests that were never computed."""
        return sum(self.refused.values())

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "num_requests": self.num_requests,
            "num_models": self.num_models,
            "models": dict(self.models),
            "num_salts": self.num_salts,
            "num_repeated": self.num_repeated,
            "is_document": self.is_document,
            "num_ending_in_answer": self.num_ending_in_answer,
            "num_refused": self.num_refused,
            "refused": dict(self.refused),
            "other_endpoints": dict(self.other_endpoints),
            "num_bad_lines": self.num_bad_lines,
            "bad_lines": list(self.bad_lines),
            "num_out_of_order": self.num_out_of_order,
            "media": dict(self.media),
            "num_requests_with_media": self.num_requests_with_media,
            "image_tokens": self.image_tokens,
            "num_conversations": self.num_conversations,
            "num_restarted_turns": self.num_restarted_turns,
            "logged_tokens": self.logged_tokens,
            "read_tokens": self.read_tokens,
        }

    def notes(self) -> list[str]:
        """Return in a sentence each what a reader of figures has to know."""
        parts = (self._models(), self._left_out(), self._media(), self._turns(), self._doubts())
        notes = [note for note in parts if note]
        if self.num_out_of_order:
            notes.append(
                f"{_count(self.num_out_of_order, 'request')} with a time before that of the one before; the "
                "order of the lines is what is replayed: sort a log that is written newest first (tac)"
            )
        if self.is_document:
            notes.append(
                "one JSON document, held in memory as a whole; JSON lines (jq -c '.[]') are read one by one"
            )
        if self._has_other_lengths():
            notes.append(
                f"the log counts {self.logged_tokens:,} prompt tokens where {self.read_tokens:,} were read "
                "from it: another tokenizer, or prompts that it holds only a part of"
            )
        if self.num_bad_lines:
            lines = _count(self.num_bad_lines, "malformed line")
            notes.append(f"skipped {lines}; the first: {self.bad_lines[0]}")
        return notes

    def _models(self) -> str:
        parts = []
        if self.num_models > 1:
            parts.append(f"{self.num_models:,} models or adapters (requests of {_listed(self.models)})")
        if self.num_salts:
            parts.append(_count(self.num_salts, "salt or tenant", "salts or tenants"))
        shares = "shares" if self.num_models < 2 and self.num_salts == 1 else "share"
        return f"{' and '.join(parts)} {shares} the memory and nothing else" if parts else ""

    def _doubts(self) -> str:
        parts = []
        if self.num_repeated:
            parts.append(
                f"{_count(self.num_repeated, 'request')} with the id and the prompt of an earlier one, "
                "counted as reuse; leave them out if they are one request that was logged twice"
            )
        if self.num_ending_in_answer:
            parts.append(
                f"{_count(self.num_ending_in_answer, 'request')} with an answer as the last message, read as "
                "a part of the prompt; if the log adds answers to prompts, take them out"
            )
        return "; ".join(parts)

    def _left_out(self) -> str:
        parts = []
        if self.refused:
            parts.append(
                f"{_count(self.num_refused, 'request')} that failed or were refused ({_listed(self.refused)})"
            )
        if self.other_endpoints:
            others = _count(sum(self.other_endpoints.values()), "request")
            parts.append(f"{others} that nothing is generated for ({_listed(self.other_endpoints)})")
        return f"left out {' and '.join(parts)}" if parts else ""

    def _media(self) -> str:
        if not self.media:
            return ""
        found = ", ".join(
            _count(number, "other part" if kind == "other" else kind)
            for kind, number in sorted(self.media.items())
        )
        said = f"{_count(self.num_requests_with_media, 'request')} with {found}"
        if self.image_tokens is None:
            return (
                f"{said}: their tokens are not counted (a short placeholder stands for each; --image-tokens "
                "N gives each image N)"
            )
        return (
            f"{said}: an image counts as {self.image_tokens:,} tokens, anything else as a short placeholder"
        )

    def _turns(self) -> str:
        parts = []
        if self.num_conversations:
            parts.append(
                f"{_count(self.num_conversations, 'conversation')} read as a request for each answer, one "
                "conversation after the other: when their turns came is not in the log"
            )
        if self.num_restarted_turns:
            parts.append(
                f"{_count(self.num_restarted_turns, 'later turn')} that begin otherwise than their "
                "conversation; if they are only the new part of a prompt, the log understates what is shared"
            )
        return "; ".join(parts)

    def _has_other_lengths(self) -> bool:
        low, high = sorted((self.logged_tokens, self.read_tokens))
        return high > 0 and low > 0 and low < _CREDIBLE_RATIO * high


def _count(number: int, noun: str, several: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def _listed(names: Mapping[str, int]) -> str:
    ordered = sorted(names.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name}: {number:,}" for name, number in ordered[:_NAMED_MODELS]) + (
        ", ..." if len(ordered) > _NAMED_MODELS else ""
    )
