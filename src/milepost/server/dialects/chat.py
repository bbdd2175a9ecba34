"""``/v1/chat/completions``, as OpenAI has it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ConfigDict, Field

from milepost.server.dialects.cache_points import places_in, require_few
from milepost.server.dialects.chat_answer import ChatWriter, Wanted
from milepost.server.dialects.fields import (
    CacheFields,
    Effort,
    Neutral,
    RoutedFields,
    SamplingFields,
    StreamOptions,
    TalkFields,
    TextFormat,
    WithoutEffect,
    sampling_options,
    thinks_at,
)
from milepost.server.documented import FAULTS, STREAMED
from milepost.server.exchange import (
    Exchange,
    HasExchange,
    json_of,
    openai_fault_event,
    server_sent_events,
)
from milepost.server.requests import Ask

__all__ = ["ChatBody", "ChatMessage", "router"]

_MOST_CHOICES = 128
_MOST_TOP_LOGPROBS = 20

router = APIRouter()


class ChatMessage(BaseModel):
    """A message. Beside these fields it may have others that the model's template knows."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: Annotated[str, Field(min_length=1, description="system, developer, user, assistant or tool.")]
    content: str | list[dict[str, Any]] | None = Field(
        default=None, description="A text, or parts of text, each of which may carry a cache point."
    )


class Tool(BaseModel):
    """A tool that the model may call, as its template shows it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal["function"]
    function: dict[str, Any]


class ChatBody(TalkFields, SamplingFields, CacheFields, RoutedFields):
    """A request for a chat's next message."""

    model: str = Field(description="What this server calls its model; /v1/models says it.")
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=_MOST_CHOICES)] | None = Field(
        default=None, description="Answers wanted; the prompt is computed once."
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=_MOST_TOP_LOGPROBS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = None
    continue_final_message: bool | None = Field(
        default=None, description="Whether the answer continues the last message."
    )
    response_format: TextFormat | None = Field(
        default=None, description="Answers are free text here; leave it out, or say {'type': 'text'}."
    )
    modalities: list[Literal["text"]] | None = Field(
        default=None, description="Answers are text here; leave it out."
    )
    verbosity: Literal["medium"] | None = Field(
        default=None, description="There is no such switch here; leave it out, or say 'medium'."
    )
    store: Literal[False] | None = Field(
        default=None, description="No answers are kept here; leave it out, or say false."
    )
    separate_reasoning: Literal[True] | None = Field(
        default=None, description="Reasoning stands apart from an answer's text here; leave it out."
    )
    stream_reasoning: Literal[True] | None = Field(
        default=None, description="Reasoning is streamed as it comes here; leave it out."
    )
    include_reasoning: Literal[True] | None = Field(
        default=None, description="Reasoning is given here; chat_template_kwargs may switch it off."
    )
    audio: Neutral = Field(default=None, description="Answers are text here; leave it out.")
    functions: Neutral = Field(default=None, description="An older name; give tools.")
    function_call: Neutral = Field(default=None, description="An older name; give tool_choice.")
    moderation: Neutral = Field(default=None, description="Nothing is moderated here; leave it out.")
    prediction: Neutral = Field(default=None, description="No prediction is taken here; leave it out.")
    web_search_options: Neutral = Field(
        default=None, description="Nothing is searched for here; leave it out."
    )
    user: WithoutEffect = None
    metadata: WithoutEffect = None
    safety_identifier: WithoutEffect = None
    service_tier: WithoutEffect = None
    prompt_cache_retention: WithoutEffect = None
    prompt_cache_options: WithoutEffect = None
    reasoning_effort: Effort | None = Field(
        default=None, description="Told to the model's template, where that knows it."
    )

    @property
    def used_tools(self) -> list[dict[str, Any]] | None:
        """Tools that the model may call; None for none."""
        tools = None if self.tool_choice == "none" else self.tools
        return [tool.model_dump() for tool in tools] if tools else None

    @property
    def num_top(self) -> int | None:
        """How many of the likeliest tokens are told of each; None where none at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


def ask_of_chat(body: ChatBody, exchange: Exchange) -> Ask:
    """Return what a chat request asks of the engine."""
    effort = body.reasoning_effort
    told = exchange.speech.template_options(thinks=thinks_at(effort), effort=effort)
    options = sampling_options(body) | {
        "max_new_tokens": body.max_completion_tokens
        or body.max_tokens
        or exchange.settings.max_answer_tokens,
        "logprobs": body.num_top,
        "tools": body.used_tools,
        "chat_template_kwargs": told | (body.chat_template_kwargs or {}) or None,
        "continue_final_message": body.continue_final_message,
        "tenant": exchange.caller.tenant(body.cache_salt),
    }
    messages = [message.model_dump(exclude_unset=True) for message in body.messages]
    require_few(list(places_in(messages)))
    return Ask(prompt=messages, options=options, count=body.n or 1, request_id=exchange.request_id)


@router.post(
    "/v1/chat/completions", response_model=ChatCompletion, responses=FAULTS | STREAMED, tags=["OpenAI"]
)
async def complete_chat(body: ChatBody, exchange: HasExchange) -> Any:
    """Answer a chat."""
    exchange.require_model(body.model)
    tickets = await exchange.submit(ask_of_chat(body, exchange))
    writer = ChatWriter(exchange, tickets, wanted_of(body, exchange))
    if body.stream:
        return server_sent_events(writer.stream(), tickets, on_fault=openai_fault_event)
    return json_of(writer.whole(await exchange.completions(tickets)))


def wanted_of(body: ChatBody, exchange: Exchange) -> Wanted:
    """Return what a chat's answer is to tell."""
    return Wanted(
        tools=body.used_tools,
        first_call_only=body.parallel_tool_calls is False,
        num_top=body.num_top,
        tells_usage=body.stream_options is not None and body.stream_options.include_usage,
        explains=exchange.explains(body.include_recomputed),
    )
