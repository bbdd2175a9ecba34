"""A client that looks at the clock: when the first token came, and each of the others."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from httpx import AsyncClient

__all__ = ["Answered", "ask", "tokens_per_second"]


@dataclass(slots=True)
class Answered:
    """What came of one request.

    Attributes:
        status: Of HTTP; 0 where the client left on purpose.
        text: The answer.
        started: When it was asked, in seconds of ``time.monotonic``.
        times: When each piece of text came.
        usage: As the server told it.
        error: What it told of an error.
    """

    started: float
    status: int = 0
    text: str = ""
    times: list[float] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def ttft_seconds(self) -> float:
        """From the request to the first text."""
        return self.times[0] - self.started

    @property
    def num_cached(self) -> int:
        """Prompt tokens that were resumed."""
        return int(self.usage["prompt_tokens_details"]["cached_tokens"])


async def ask(
    client: AsyncClient,
    messages: Sequence[dict[str, Any]],
    *,
    model: str,
    leaves_after: int | None = None,
    **options: Any,
) -> Answered:
    """Ask, and read the answer as it comes.

    Args:
        client: Of HTTP, with the server's address.
        messages: The chat.
        model: What the server calls its model.
        leaves_after: Go away after so many pieces of the answer.
        options: Of the request.
    """
    body = {
        "model": model,
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }
    answered = Answered(time.monotonic())
    async with client.stream("POST", "/v1/chat/completions", json=body | options) as answer:
        if answer.status_code != 200:
            answered.status, answered.error = answer.status_code, (await answer.aread()).decode()
            return answered
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = orjson.loads(line[6:])
            if "error" in chunk:
                answered.status, answered.error = 500, line
                return answered
            answered.usage = chunk.get("usage") or answered.usage
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    answered.times.append(time.monotonic())
                    answered.text += text
            if leaves_after is not None and len(answered.times) >= leaves_after:
                return answered
    answered.status = 200
    return answered


async def tokens_per_second(
    client: AsyncClient, chats: Sequence[Sequence[dict[str, Any]]], *, model: str, max_tokens: int
) -> float:
    """Return the rate at which all of several chats, asked at once, are answered at their full length."""
    started = time.monotonic()
    answers = await asyncio.gather(
        *(ask(client, each, model=model, max_tokens=max_tokens, ignore_eos=True) for each in chats)
    )
    seconds = time.monotonic() - started
    return sum(int(each.usage["completion_tokens"]) for each in answers) / seconds
