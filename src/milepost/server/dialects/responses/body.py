"""What a request to ``/v1/responses`` may hold.

No answer is kept here: a client sends the conversation with each request, as agents do. What asks for one
that was kept is refused, and so is what would change the answer and cannot be honoured.
"""

from typing import Annotated, Literal

from pydantic import Field

from milepost.server.dialects.fields import (
    Body,
    CacheFields,
    Effort,
    Neutral,
    SamplingFields,
    StreamOptions,
    TalkFields,
    TextFormat,
    WithoutEffect,
    thinks_at,
)
from milepost.server.dialects.responses.items import FunctionTool, InputItem

__all__ = ["ReasoningOptions", "ResponsesBody"]

_KEPT = "No answers are kept here: send the conversation with each request, and leave this out."
_SEALED = "reasoning.encrypted_content"


class ReasoningOptions(Body):
    """How much the model thinks; told to its template, where that knows it."""

    effort: Effort | None = None
    summary: WithoutEffect = None
    generate_summary: WithoutEffect = None
    context: WithoutEffect = None
    mode: WithoutEffect = None

    @property
    def thinks(self) -> bool | None:
        """What the template is told; None leaves it to it."""
        return thinks_at(self.effort)


class TextOptions(Body):
    """How the answer is written."""

    format: TextFormat | None = Field(
        default=None, description="Answers are free text here; leave it out, or say {'type': 'text'}."
    )
    verbosity: Literal["medium"] | None = Field(
        default=None, description="There is no such switch here; leave it out, or say 'medium'."
    )


class ResponsesBody(TalkFields, SamplingFields, CacheFields):
    """A request for what comes next in a conversation."""

    model: str = Field(description="What this server calls its model; /v1/models says it.")
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | None = None
    tools: list[FunctionTool] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    include: (
        list[
            Literal[
                "reasoning.encrypted_content",
                "web_search_call.action.sources",
                "web_search_call.results",
                "code_interpreter_call.outputs",
                "computer_call_output.output.image_url",
                "file_search_call.results",
                "message.input_image.image_url",
            ]
        ]
        | None
    ) = Field(default=None, description="What is told beside; of what there is none here, nothing is.")
    metadata: dict[str, str] | None = Field(default=None, description="Repeated in the answer.")
    store: Literal[False] | None = Field(default=None, description=_KEPT)
    background: Literal[False] | None = Field(default=None, description=_KEPT)
    truncation: Literal["disabled"] | None = Field(
        default=None, description="No prompt is shortened here; leave it out."
    )
    top_logprobs: Literal[0] | None = Field(
        default=None, description="/v1/chat/completions tells log-probabilities; leave it out here."
    )
    previous_response_id: Neutral = Field(default=None, description=_KEPT)
    conversation: Neutral = Field(default=None, description=_KEPT)
    prompt: Neutral = Field(default=None, description=_KEPT)
    context_management: Neutral = Field(
        default=None, description="No prompt is shortened here; leave it out."
    )
    moderation: Neutral = Field(default=None, description="Nothing is moderated here; leave it out.")
    image: WithoutEffect = None
    access_programs: WithoutEffect = None
    background_options: WithoutEffect = None
    max_tool_calls: WithoutEffect = None
    prompt_cache_options: WithoutEffect = None
    prompt_cache_retention: WithoutEffect = None
    safety_identifier: WithoutEffect = None
    service_tier: WithoutEffect = None
    user: WithoutEffect = None

    @property
    def used_tools(self) -> list[FunctionTool]:
        """Tools that the model may call."""
        return [] if self.tool_choice == "none" else self.tools or []

    @property
    def seals_reasoning(self) -> bool:
        """Whether reasoning also comes sealed."""
        return _SEALED in (self.include or ())
