"""What messages of Anthropic's API are made of, as far as a model that reads texts can be given it."""

from typing import Annotated, Any, Literal

from pydantic import Field

from milepost.server.dialects.fields import Body, WithoutEffect

__all__ = [
    "CacheControl",
    "InputBlock",
    "Message",
    "RedactedThinkingBlock",
    "TextBlock",
    "ThinkingBlock",
    "Tool",
    "ToolResultBlock",
    "ToolUseBlock",
]


class CacheControl(Body):
    """Asks that the prompt up to here is kept."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"
    scope: WithoutEffect = None


class TextBlock(Body):
    """Some text."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None
    citations: WithoutEffect = None


class ThinkingBlock(Body):
    """What an answer thought, as it was given out."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Body):
    """What an answer thought and was not shown."""

    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(Body):
    """A call of a tool that an answer made."""

    type: Literal["tool_use"]
    id: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1)]
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: WithoutEffect = None
    toolset_name: WithoutEffect = None


class ToolResultBlock(Body):
    """What a tool returned."""

    type: Literal["tool_result"]
    tool_use_id: Annotated[str, Field(min_length=1)]
    content: str | list[TextBlock] | None = None
    is_error: WithoutEffect = None
    cache_control: CacheControl | None = None
    toolset_name: WithoutEffect = None


InputBlock = Annotated[
    TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock,
    Field(discriminator="type"),
]


class Message(Body):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[InputBlock]


class Tool(Body):
    """A tool that the model may call and the client runs."""

    type: Literal["custom"] | None = Field(
        default=None, description="Tools of the service (web search, a shell ...) are not run here."
    )
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    input_schema: dict[str, Any]
    cache_control: CacheControl | None = None
    input_examples: list[dict[str, Any]] | None = Field(
        default=None, description="Shown to the model in the tool's schema."
    )
    strict: bool | None = Field(default=None, description="Accepted: no answer is held to a schema here.")
    defer_loading: Literal[False] | None = Field(
        default=None, description="Every tool is shown to the model; leave it out."
    )
    eager_input_streaming: WithoutEffect = None
    allowed_callers: WithoutEffect = None
