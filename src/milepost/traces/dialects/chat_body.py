"""What chat templates are given, whichever API it came through."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ChatBody"]


@dataclass(frozen=True, slots=True)
class ChatBody:
    """Attributes:
    messages: In OpenAI's chat shape: a role, a content, and what else a message has.
    tools: In OpenAI's chat shape: ``{"type": "function", "function": {...}}``.
    template_options: For the chat template.
    continues_final_message: Whether the answer goes on where the last message ends.
    """

    messages: Sequence[Any]
    tools: Sequence[Any] | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict)
    continues_final_message: bool = False
