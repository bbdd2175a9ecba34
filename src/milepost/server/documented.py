"""The errors of every path operation, as its schema tells them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = ["ANTHROPIC_FAULTS", "FAULTS", "STREAMED", "FaultBody"]


class FaultDetails(BaseModel):
    """What is wrong."""

    message: str = Field(description="The value, the rule, and the remedy.")
    type: str
    param: str | None
    code: str | None


class FaultBody(BaseModel):
    """An error in OpenAI's shape."""

    error: FaultDetails


FAULTS: dict[int | str, dict[str, Any]] = {
    400: {"model": FaultBody, "description": "The request breaks a rule; the message says which."},
    401: {"model": FaultBody, "description": "No API key, or a wrong one."},
    404: {"model": FaultBody, "description": "There is no such model."},
    413: {"model": FaultBody, "description": "The body is larger than --max-body."},
    429: {"model": FaultBody, "description": "The queue is full; Retry-After says when to ask again."},
    500: {"model": FaultBody, "description": "The server failed at this request, and goes on."},
    503: {"model": FaultBody, "description": "Nothing is served just now."},
}


_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
# What a path says beside that may tell its answer as it is made.
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"schema": _EVENT}},
        "description": "The answer; event by event, where 'stream' is true.",
    }
}


class AnthropicFaultDetails(BaseModel):
    """What is wrong."""

    type: str
    message: str = Field(description="The value, the rule, and the remedy.")


class AnthropicFaultBody(BaseModel):
    """An error in Anthropic's shape."""

    type: Literal["error"]
    error: AnthropicFaultDetails
    request_id: str


ANTHROPIC_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {**told, "model": AnthropicFaultBody} for status, told in FAULTS.items()
}
