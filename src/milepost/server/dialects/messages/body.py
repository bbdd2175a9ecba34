"""What a request to ``/v1/messages`` may hold.

What agents send and no answer depends on here is accepted; what would change the answer and cannot be
honoured is refused by its name.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from milepost.server.dialects.fields import Body, DrawFields, Neutral, SaltFields, WithoutEffect
from milepost.server.dialects.messages.blocks import CacheControl, Message, TextBlock, Tool

__all__ = ["CountBody", "MessagesBody", "PromptFields", "Thinking", "ToolChoice"]

_MOST_STOPS = 64


class Thinking(Body):
    """Whether the model thinks before it answers; told to its template, where that has a switch."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Accepted: a model here thinks for as long as it does."
    )
    display: Literal["summarized", "omitted"] | None = Field(
        default=None, description="'omitted' leaves the thoughts out and gives their signature alone."
    )

    @property
    def thinks(self) -> bool | None:
        """What the template is told; None leaves it to it."""
        return {"enabled": True, "disabled": False}.get(self.type)


class ToolChoice(Body):
    """Whether tools may be called. None can be forced here."""

    type: Literal["auto", "none"]
    disable_parallel_tool_use: bool | None = Field(
        default=None, description="Of several calls the first one is given."
    )


class OutputConfig(Body):
    """How the answer is made."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None, description="Told to the model's template, where that knows it."
    )
    format: Neutral = Field(default=None, description="No answer is held to a schema here; leave it out.")
    task_budget: WithoutEffect = None


class ThinkingTurns(Body):
    """All of them."""

    type: Literal["all"]


class ClearThinking(Body):
    """Which past thoughts stay in the prompt: all that the model's template shows."""

    type: Literal["clear_thinking_20251015"]
    keep: Literal["all"] | ThinkingTurns


class ContextManagement(Body):
    """What the service may leave out of a prompt; here, nothing."""

    edits: list[ClearThinking] = Field(default_factory=list)


class PromptFields(Body):
    """What the prompt is made of."""

    model: str = Field(description="What this server calls its model; /v1/models says it.")
    messages: Annotated[list[Message], Field(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = Field(
        default=None, description="Asks that the whole prompt is kept."
    )
    context_management: ContextManagement | None = None
    mcp_servers: Annotated[list[Any], Field(max_length=0)] | None = Field(
        default=None, description="No other servers are called from here; leave it out."
    )
    speed: WithoutEffect = None
    user_profile_id: WithoutEffect = None
    workspace_id: WithoutEffect = None

    @property
    def used_tools(self) -> list[Tool]:
        """Tools that the model may call."""
        is_off = self.tool_choice is not None and self.tool_choice.type == "none"
        return [] if is_off else self.tools or []

    def cache_controls(self) -> Iterator[tuple[str, CacheControl]]:
        """Yield every cache point, with the name of where it is."""
        if self.cache_control is not None:
            yield "cache_control", self.cache_control
        places: list[tuple[str, Any]] = [(f"tools.{at}", tool) for at, tool in enumerate(self.tools or [])]
        if isinstance(self.system, list):
            places += [(f"system.{at}", block) for at, block in enumerate(self.system)]
        for at, message in enumerate(self.messages):
            if isinstance(message.content, list):
                for inner, block in enumerate(message.content):
                    place = f"messages.{at}.content.{inner}"
                    places.append((place, block))
                    content = getattr(block, "content", None)
                    if isinstance(content, list):
                        places += [(f"{place}.content.{each}", part) for each, part in enumerate(content)]
        for place, holder in places:
            control = getattr(holder, "cache_control", None)
            if control is not None:
                yield f"{place}.cache_control", control


class CountBody(PromptFields):
    """A request for the number of tokens of a prompt."""


class MessagesBody(PromptFields, DrawFields, SaltFields):
    """A request for a chat's next message."""

    max_tokens: Annotated[int, Field(ge=0)] = Field(
        description="Most tokens of the answer; 0 computes the prompt and keeps what the cache keeps of it."
    )
    stream: bool | None = None
    stop_sequences: (
        Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=_MOST_STOPS)] | None
    ) = Field(default=None, description="What ends the answer and is no part of it.")
    container: Neutral = Field(default=None, description="Nothing is run here; leave it out.")
    thread: Neutral = Field(default=None, description="No chats are kept here; leave it out.")
    compaction: Neutral = Field(default=None, description="No prompt is shortened here; leave it out.")
    metadata: WithoutEffect = None
    diagnostics: WithoutEffect = None
    service_tier: WithoutEffect = None
    inference_geo: WithoutEffect = None
    fallbacks: WithoutEffect = None
    fallback_credit_token: WithoutEffect = None
    billing_policy: WithoutEffect = None
