"""Whole conversations, as ShareGPT and its many followers keep them, turned into the requests that made them.

A line is a conversation with its answers. Each answer was one request, whose prompt is all that came before
it; a turn at the end that nobody answered was one, too. When the turns of different conversations came is not
known: they follow one another as in the file.
"""

import reprlib
from typing import Any

from milepost.errors import InvalidRequestError

__all__ = ["requests_of_conversation"]

_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "claude": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function": "tool",
    "function_call": "assistant",
}


def requests_of_conversation(turns: list[Any]) -> list[list[Any]]:
    """Return the messages of each request of a conversation.

    Raises:
        InvalidRequestError: a turn says neither who speaks nor what, or there is no request in it.
    """
    messages = [_message(turn) for turn in turns]
    requests = [
        messages[:number]
        for number, message in enumerate(messages)
        if number and message["role"] == "assistant"
    ]
    if messages and messages[-1]["role"] != "assistant":
        requests.append(messages)
    if not requests:
        raise InvalidRequestError(
            f"a conversation of {len(turns)} turns has no prompt in it; it needs something before an answer"
        )
    return requests


def _message(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise InvalidRequestError(
            f"turn {reprlib.repr(turn)} is no object; write {{'from': 'human', 'value': ...}}"
        )
    speaker = turn.get("from", turn.get("role", turn.get("user")))
    said = next((turn[name] for name in ("value", "content", "text", "markdown") if name in turn), None)
    if not isinstance(speaker, str) or said is None:
        raise InvalidRequestError(
            f"turn {reprlib.repr(turn)} says not who speaks or not what; write {{'from': 'human', 'value': "
            "...}}"
        )
    role = _ROLES.get(speaker.lower())
    if role is None:
        raise InvalidRequestError(f"a turn is from {speaker!r}; it is one of {', '.join(sorted(_ROLES))}")
    kept = {name: value for name, value in turn.items() if name in ("tool_calls", "tool_call_id", "name")}
    return {"role": role, "content": said, **kept}
