"""``/v1/chat/completions``, as OpenAI has it."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, ConfigDict, Field
from sse_starlette import ServerSentEvent

from milepost.engines.completion import Completion
from milepost.engines.sampling import TokenLogprobs
from milepost.server.dialects.fields import (
    Body,
    CacheFields,
    Neutral,
    SamplingFields,
    StreamOptions,
    WithoutEffect,
    sampling_options,
)
from milepost.server.dialects.logprobs import chat_logprobs
from milepost.server.documented import FAULTS
from milepost.server.exchange import (
    DONE,
    Exchange,
    HasExchange,
    event_of,
    json_of,
    merged,
    openai_fault_event,
    server_sent_events,
)
from milepost.server.requests import Ask
from milepost.server.ticket import Ticket
from milepost.server.usage import openai_usage

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


class TextFormat(Body):
    """The one form of answers."""

    type: Literal["text"]


class ChatBody(SamplingFields, CacheFields):
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
    tool_choice: Literal["auto", "none"] | None = Field(
        default=None, description="No call can be forced here; 'none' leaves the tools out of the prompt."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, description="For the model's template, as {'enable_thinking': false}."
    )
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
    parallel_tool_calls: WithoutEffect = None
    prompt_cache_retention: WithoutEffect = None
    prompt_cache_options: WithoutEffect = None
    reasoning_effort: WithoutEffect = None

    @property
    def num_top(self) -> int | None:
        """How many of the likeliest tokens are told of each; None where none at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


def ask_of_chat(body: ChatBody, exchange: Exchange) -> Ask:
    """Return what a chat request asks of the engine."""
    options = sampling_options(body) | {
        "max_new_tokens": body.max_completion_tokens
        or body.max_tokens
        or exchange.settings.max_answer_tokens,
        "logprobs": body.num_top,
        "tools": [tool.model_dump() for tool in body.tools]
        if body.tools and body.tool_choice != "none"
        else None,
        "chat_template_kwargs": body.chat_template_kwargs,
        "continue_final_message": body.continue_final_message,
        "tenant": exchange.caller.tenant(body.cache_salt),
    }
    messages = [message.model_dump(exclude_unset=True) for message in body.messages]
    return Ask(prompt=messages, options=options, count=body.n or 1, request_id=exchange.request_id)


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=FAULTS, tags=["OpenAI"])
async def complete_chat(body: ChatBody, exchange: HasExchange) -> Any:
    """Answer a chat."""
    exchange.require_model(body.model)
    tickets = await exchange.submit(ask_of_chat(body, exchange))
    writer = ChatWriter(body, exchange)
    if body.stream:
        return server_sent_events(writer.stream(tickets), tickets, on_fault=openai_fault_event)
    return json_of(writer.whole(await exchange.completions(tickets)))


class ChatWriter:
    """Writes what a chat request is answered."""

    def __init__(self, body: ChatBody, exchange: Exchange) -> None:
        self._body = body
        self._tokenizer = exchange.worker.tokenizer
        self._explains = exchange.explains(body.include_recomputed)
        self._head = {
            "id": exchange.new_id("chatcmpl-"),
            "created": exchange.now,
            "model": exchange.settings.model_name,
        }

    def whole(self, completions: Sequence[Completion]) -> ChatCompletion:
        """Return the answer in one piece."""
        choices = [
            {
                "index": index,
                "finish_reason": completion.finish_reason,
                "logprobs": self._logprobs(completion.logprobs),
                "message": {"role": "assistant", "content": completion.text, "refusal": None},
            }
            for index, completion in enumerate(completions)
        ]
        return ChatCompletion.model_validate(
            {
                **self._head,
                "object": "chat.completion",
                "choices": choices,
                "usage": openai_usage(completions, includes_recomputed=self._explains),
            }
        )

    async def stream(self, tickets: Sequence[Ticket]) -> AsyncIterator[ServerSentEvent]:
        """Yield the answer as it is made."""
        for index in range(len(tickets)):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        async for index, event in merged(tickets):
            if event is None:
                yield self._chunk(index, {}, finish_reason=tickets[index].completion_now().finish_reason)
            elif event.text or event.logprobs is not None:
                found = None if event.logprobs is None else (event.logprobs,)
                yield self._chunk(index, {"content": event.text}, logprobs=self._logprobs(found))
        options = self._body.stream_options
        if options is not None and options.include_usage:
            completions = [ticket.completion_now() for ticket in tickets]
            usage = openai_usage(completions, includes_recomputed=self._explains)
            yield self._event(choices=[], usage=usage)
        yield DONE

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> ServerSentEvent:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        return self._event(choices=[choice])

    def _event(self, **fields: Any) -> ServerSentEvent:
        whole = {**self._head, "object": "chat.completion.chunk", **fields}
        return event_of(ChatCompletionChunk.model_validate(whole))

    def _logprobs(self, found: Sequence[TokenLogprobs] | None) -> dict[str, Any] | None:
        if found is None or self._body.num_top is None:
            return None
        content = chat_logprobs(self._tokenizer, found, num_top=self._body.num_top)
        return {"content": content, "refusal": None}
