"""What a conversation of OpenAI's newer API is made of, as far as a model that reads texts can take it."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from milepost.server.dialects.fields import Body, WithoutEffect

__all__ = [
    "FunctionCall",
    "FunctionCallOutput",
    "FunctionTool",
    "InputItem",
    "MessageItem",
    "Part",
    "ReasoningItem",
    "RefusalPart",
    "TextPart",
]


class CacheBreakpoint(Body):
    """Asks that the prompt up to here is kept."""

    mode: Literal["explicit"]
    ttl: Literal["30m", "12h"] | None = None


class TextPart(Body):
    """Some text."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    prompt_cache_breakpoint: CacheBreakpoint | None = None
    annotations: WithoutEffect = None
    logprobs: WithoutEffect = None


class RefusalPart(Body):
    """What an answer said in place of a text."""

    type: Literal["refusal"]
    refusal: str


def _kind_of_part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return "text" if kind in ("input_text", "output_text", "text") else str(kind)


Part = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[RefusalPart, Tag("refusal")],
    Discriminator(
        _kind_of_part,
        custom_error_type="unreadable_part",
        custom_error_message="parts here are of type input_text, output_text or refusal: this model reads "
        "texts alone",
    ),
]


class MessageItem(Body):
    """One message."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    id: WithoutEffect = None
    status: WithoutEffect = None
    phase: WithoutEffect = None


class FunctionCall(Body):
    """A call of a tool that an answer made."""

    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1)]
    arguments: str
    id: WithoutEffect = None
    status: WithoutEffect = None
    caller: WithoutEffect = None
    namespace: WithoutEffect = None


class FunctionCallOutput(Body):
    """What a tool returned."""

    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1)]
    output: str | list[Part]
    name: str | None = None
    id: WithoutEffect = None
    status: WithoutEffect = None
    caller: WithoutEffect = None
    namespace: WithoutEffect = None


class ReasoningText(Body):
    """Some of what an answer thought."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Body):
    """What an answer thought, as it was given out."""

    type: Literal["reasoning"]
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    summary: WithoutEffect = None
    id: WithoutEffect = None
    status: WithoutEffect = None


def _kind_of_item(item: Any) -> str:
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)
    return str(kind)


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(
        _kind_of_item,
        custom_error_type="unreadable_item",
        custom_error_message="items here are of type message, function_call, function_call_output or "
        "reasoning",
    ),
]


class FunctionTool(Body):
    """A tool that the model may call and the client runs."""

    type: Literal["function"] = Field(description="Tools of the service (web search ...) are not run here.")
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(default=None, description="Accepted: no answer is held to a schema here.")
    defer_loading: Literal[False] | None = Field(
        default=None, description="Every tool is shown to the model; leave it out."
    )
    output_schema: WithoutEffect = None
    allowed_callers: WithoutEffect = None
