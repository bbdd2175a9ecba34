"""What a client asks of the engine, whichever API it came by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from milepost.engines.requests import Prompt

__all__ = ["Ask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request to the engine, with as many answers as are wanted.

    Attributes:
        prompt: A text, chat messages, or token ids.
        options: Those of ``engines.requests.RequestOptions`` that the client gave; the tenant among them.
        count: Answers wanted. The second has the seed after the first one's, and so on.
        request_id: What logs, headers and the live page call it.
    """

    prompt: Prompt | Sequence[Mapping[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    count: int = 1
    request_id: str = ""
