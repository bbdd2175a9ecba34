"""``/v1/completions``, as OpenAI has it: the text that goes on, with the prompt before it where asked.

The package's own type of an answer knows neither a choice that goes on, as streams have, nor a first token
without a log-probability, as echoes have; its clients take both.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from openai.types.completion_usage import CompletionUsage
from pydantic import BaseModel, Field
from sse_starlette import ServerSentEvent

from milepost.engines.completion import Completion
from milepost.engines.engine import Engine
from milepost.engines.sampling import TokenLogprobs
from milepost.server.dialects.fields import (
    CacheFields,
    RoutedFields,
    SamplingFields,
    StreamOptions,
    WithoutEffect,
    sampling_options,
)
from milepost.server.dialects.logprobs import PlainLogprobs, plain_logprobs
from milepost.server.documented import FAULTS, STREAMED
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

__all__ = ["CompletionBody", "router"]

_MOST_CHOICES = 128
_MOST_LOGPROBS = 20
# As OpenAI's.
_USUAL_TOKENS = 16

router = APIRouter()

_Token = Annotated[int, Field(ge=0)]
_Tokens = Annotated[list[_Token], Field(min_length=1)]


class CompletionBody(SamplingFields, CacheFields, RoutedFields):
    """A request for the text that goes on."""

    model: str = Field(description="What this server calls its model; /v1/models says it.")
    prompt: (
        Annotated[str, Field(min_length=1)]
        | _Tokens
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=_MOST_CHOICES)]
        | Annotated[list[_Tokens], Field(min_length=1, max_length=_MOST_CHOICES)]
    ) = Field(description="A text, token ids, or several of either.")
    n: Annotated[int, Field(ge=1, le=_MOST_CHOICES)] | None = None
    best_of: Annotated[int, Field(ge=1, le=_MOST_CHOICES)] | None = Field(
        default=None, description="No more than n: nothing is thrown away here."
    )
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="16 unless given; 0 only with echo, to have the prompt's logprobs."
    )
    logprobs: Annotated[int, Field(ge=0, le=_MOST_LOGPROBS)] | None = None
    echo: bool | None = Field(default=None, description="The prompt stands before the answer.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = Field(
        default=None, description="Nothing is filled in before a suffix here; leave it out."
    )
    user: WithoutEffect = None


class TextChoice(BaseModel):
    """One answer."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"] | None
    logprobs: PlainLogprobs | None


class TextAnswer(BaseModel):
    """OpenAI's ``Completion``, as it is in truth: streams have choices without an end, echoes a first token
    without a log-probability.
    """

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | None = None


def prompts_of(body: CompletionBody) -> list[Any]:
    """Return the prompts of a request, a text or token ids each."""
    if isinstance(body.prompt, str) or isinstance(body.prompt[0], int):
        return [body.prompt]
    return list(body.prompt)


def _check(body: CompletionBody, exchange: Exchange) -> None:
    """Raise ``RefusedError`` where fields do not go together."""
    if body.best_of is not None and body.best_of != (body.n or 1):
        exchange.refuse(
            "best_of", f"best_of={body.best_of} with n={body.n or 1}; every answer is given: leave it out"
        )
    if body.max_tokens == 0 and not (body.echo and body.logprobs is not None):
        exchange.refuse(
            "max_tokens", "max_tokens=0 asks for no answer; give echo and logprobs with it, or 1 or more"
        )
    if not body.echo or body.logprobs is None:
        return
    if body.logprobs > 1:
        exchange.refuse(
            "logprobs",
            f"logprobs={body.logprobs} with echo; of a prompt's tokens the likeliest is told: give 1 or 0",
        )
    if body.stream:
        exchange.refuse(
            "stream", "the prompt's logprobs are not streamed; leave out stream, echo or logprobs"
        )


@router.post("/v1/completions", response_model=TextAnswer, responses=FAULTS | STREAMED, tags=["OpenAI"])
async def complete(body: CompletionBody, exchange: HasExchange) -> Any:
    """Go on from a text."""
    exchange.require_model(body.model)
    _check(body, exchange)
    writer = CompletionWriter(body, exchange)
    if body.max_tokens == 0:
        return json_of(await writer.prompts_alone())
    options = sampling_options(body) | {
        "max_new_tokens": body.max_tokens or _USUAL_TOKENS,
        "logprobs": body.logprobs,
        "tenant": exchange.caller.tenant(body.cache_salt),
    }
    asks = [
        Ask(prompt=prompt, options=options, count=body.n or 1, request_id=exchange.request_id)
        for prompt in prompts_of(body)
    ]
    tickets = await exchange.submit_all(asks)
    if body.stream:
        return server_sent_events(writer.stream(tickets), tickets, on_fault=openai_fault_event)
    return json_of(await writer.whole(await exchange.completions(tickets)))


class CompletionWriter:
    """Writes what a completion request is answered."""

    def __init__(self, body: CompletionBody, exchange: Exchange) -> None:
        self._body, self._exchange = body, exchange
        self._tokenizer = exchange.worker.tokenizer
        self._explains = exchange.explains(body.include_recomputed)
        self._head = {
            "id": exchange.new_id("cmpl-"),
            "object": "text_completion",
            "created": exchange.now,
            "model": exchange.settings.model_name,
        }

    async def whole(self, completions: Sequence[Completion]) -> dict[str, Any]:
        """Return the answers in one piece, each prompt's in turn."""
        echoes = await self._echoes()
        per_prompt = self._body.n or 1
        choices = []
        for index, completion in enumerate(completions):
            text, logprobs = echoes[index // per_prompt]
            choices.append(
                {
                    "index": index,
                    "text": text + completion.text,
                    "finish_reason": completion.finish_reason,
                    "logprobs": _joined(logprobs, self._logprobs(completion.logprobs, offset=len(text))),
                }
            )
        return self._completion(
            choices=choices,
            usage=self._usage(completions),
        )

    async def prompts_alone(self) -> dict[str, Any]:
        """Return the prompts with the log-probabilities of their tokens, and no answer."""
        echoes = await self._echoes()
        num_tokens = sum(len(logprobs["tokens"]) for _, logprobs in echoes if logprobs is not None)
        return self._completion(
            choices=[
                {"index": index, "text": text, "finish_reason": "length", "logprobs": logprobs}
                for index, (text, logprobs) in enumerate(echoes)
            ],
            usage={"prompt_tokens": num_tokens, "completion_tokens": 0, "total_tokens": num_tokens},
        )

    async def stream(self, tickets: Sequence[Ticket]) -> AsyncIterator[ServerSentEvent]:
        """Yield the answers as they are made."""
        echoes, per_prompt = await self._echoes(), self._body.n or 1
        offsets = [len(echoes[index // per_prompt][0]) for index in range(len(tickets))]
        if self._body.echo:
            for index in range(len(tickets)):
                yield self._chunk(index, echoes[index // per_prompt][0])
        async for index, portion in merged(tickets):
            if portion is None:
                yield self._chunk(index, "", finish_reason=tickets[index].completion_now().finish_reason)
            elif portion.text or portion.logprobs:
                logprobs = self._logprobs(portion.logprobs, offset=offsets[index])
                yield self._chunk(index, portion.text, logprobs=logprobs)
                offsets[index] += len(portion.text)
        options = self._body.stream_options
        if options is not None and options.include_usage:
            usage = self._usage([ticket.completion_now() for ticket in tickets])
            yield event_of(self._completion(choices=[], usage=usage))
        yield DONE

    def _chunk(
        self,
        index: int,
        text: str,
        *,
        finish_reason: str | None = None,
        logprobs: PlainLogprobs | None = None,
    ) -> ServerSentEvent:
        choice = {"index": index, "text": text, "finish_reason": finish_reason, "logprobs": logprobs}
        return event_of(self._completion(choices=[choice]))

    def _completion(self, **fields: Any) -> dict[str, Any]:
        return self._head | fields

    def _usage(self, completions: Sequence[Completion]) -> dict[str, Any]:
        usage = openai_usage(
            completions, answers_per_prompt=self._body.n or 1, includes_recomputed=self._explains
        )
        return usage.model_dump(exclude_unset=True)

    def _logprobs(self, found: Sequence[TokenLogprobs] | None, *, offset: int) -> PlainLogprobs | None:
        if not found or self._body.logprobs is None:
            return None
        return plain_logprobs(self._tokenizer, found, offset=offset, num_top=self._body.logprobs)

    async def _echoes(self) -> list[tuple[str, PlainLogprobs | None]]:
        """Return what stands before each prompt's answers: nothing, unless it is asked for."""
        prompts = prompts_of(self._body)
        if not self._body.echo:
            return [("", None)] * len(prompts)
        texts = [prompt if isinstance(prompt, str) else self._tokenizer.decode(prompt) for prompt in prompts]
        if self._body.logprobs is None:
            return [(text, None) for text in texts]
        tenant = self._exchange.caller.tenant(self._body.cache_salt)
        found = await self._exchange.unless_gone(
            self._exchange.worker.call(lambda engine: _prompt_logprobs(engine, prompts, tenant=tenant))
        )
        return [(text, self._prompt_logprobs(each)) for text, each in zip(texts, found, strict=True)]

    def _prompt_logprobs(self, found: Sequence[TokenLogprobs]) -> PlainLogprobs:
        logprobs = plain_logprobs(self._tokenizer, found, offset=0, num_top=self._body.logprobs or 0)
        # Nothing comes before the first token, so nothing says how likely it is.
        logprobs["token_logprobs"][0] = logprobs["top_logprobs"][0] = None
        return logprobs


def _prompt_logprobs(engine: Engine, prompts: Sequence[Any], *, tenant: str) -> list[list[TokenLogprobs]]:
    """Return the log-probabilities of each prompt's tokens; of the first one there is none."""
    found = []
    for prompt in prompts:
        tokens = engine.encode(prompt)
        scored: list[TokenLogprobs] = [TokenLogprobs(int(tokens[0]), 0.0, ())]
        if tokens.size > 1:
            (score,) = engine.score(tokens[:1], [tokens[1:]], tenant=tenant)
            scored += [
                TokenLogprobs(int(token), logprob, (likeliest,))
                for token, logprob, likeliest in zip(
                    np.asarray(tokens[1:]), score.token_logprobs, score.likeliest, strict=True
                )
            ]
        found.append(scored)
    return found


def _joined(one: PlainLogprobs | None, other: PlainLogprobs | None) -> PlainLogprobs | None:
    """Return the log-probabilities of a prompt and of its answer."""
    if one is None or other is None:
        return one or other
    return {name: one[name] + other[name] for name in one}  # type: ignore[literal-required,return-value]
