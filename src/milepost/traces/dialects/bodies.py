"""Which dialect a body is written in, and the prompts in it: one, or several that were sent together."""

import reprlib
from typing import Any, TypeAlias

import orjson

from milepost.errors import InvalidRequestError
from milepost.traces.dialects.chat_body import ChatBody
from milepost.traces.dialects.content import chat_messages, chat_tools
from milepost.traces.dialects.gemini import messages_of_contents, tools_of_declarations
from milepost.traces.dialects.responses import messages_of_responses
from milepost.traces.dialects.sharegpt import requests_of_conversation
from milepost.traces.fields import Record

__all__ = ["Prompt", "prompts_of_body"]

# A conversation, a text as it is, or token ids.
Prompt: TypeAlias = ChatBody | str | list[Any]

_PLAIN_NAMES = ("prompt", "inputs", "text_input", "text")
# What gateways write where they did not want to keep a prompt, or not all of it.
_REDACTED = "redacted-by-litellm"
_TRUNCATED = "litellm_truncated"


def prompts_of_body(body: Record) -> list[Prompt]:
    """Return the prompts of a request body, in order.

    Raises:
        InvalidRequestError: the body is malformed, or does not hold its whole prompt.
    """
    if "messages" in body:
        return [_conversation(body, _messages(body["messages"]))]
    for name in ("conversations", "conversation"):
        if isinstance(body.get(name), list):
            return [_conversation(body, messages) for messages in requests_of_conversation(body[name])]
    if body.get("contents"):
        described = {**body, "tools": tools_of_declarations(body.get("tools"))}
        return [_conversation(described, messages_of_contents(body), system=None)]
    if body.get("input") is not None and not any(body.get(name) for name in _PLAIN_NAMES):
        return [_input(body)]
    return _plain(body)


def _conversation(body: Record, messages: list[Any], *, system: Any = ...) -> ChatBody:
    system = body.get("system") if system is ... else system
    if system:
        messages = [{"role": "system", "content": system}, *messages]
    options = body.get("chat_template_kwargs") or {}
    if not isinstance(options, dict):
        raise InvalidRequestError(f"chat_template_kwargs={reprlib.repr(options)}; give an object")
    tools = body.get("tools", body.get("toolConfig"))
    if not tools and body.get("functions"):
        if not isinstance(body["functions"], list):
            raise InvalidRequestError(
                f"functions={reprlib.repr(body['functions'])}; give a list of functions"
            )
        tools = [{"type": "function", "function": function} for function in body["functions"]]
    plain = chat_messages(messages)
    for message in plain:
        _refuse_cut(message.get("content") if isinstance(message, dict) else None)
    return ChatBody(plain, chat_tools(tools), options, bool(body.get("continue_final_message")))


def _messages(given: Any) -> list[Any]:
    if isinstance(given, str) and given.lstrip()[:1] in ("[", "{"):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError as error:
            raise InvalidRequestError(f"messages are a string that is not JSON: {error}") from error
    if isinstance(given, dict) and isinstance(given.get("messages"), list):
        given = given["messages"]
    if not isinstance(given, list) or not given:
        raise InvalidRequestError(
            f"messages={reprlib.repr(given)}; give a list of messages, at least one: [{{'role': ..., "
            "'content': ...}]"
        )
    return given


def _input(body: Record) -> ChatBody:
    if "instruction" in body and "instructions" not in body:
        raise InvalidRequestError(
            "'instruction' beside 'input' is a data set to train on, and no log: what prompt was made of it "
            "is unknown; write the prompts themselves as 'prompt' or 'messages'"
        )
    given = body["input"]
    if isinstance(given, str) and given.lstrip()[:2] in ("[{", "[\n"):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError:
            given = body["input"]
    if not isinstance(given, str | list) or not given:
        raise InvalidRequestError(f"input={reprlib.repr(given)}; give a text, or a list of items")
    return _conversation(body, messages_of_responses({**body, "input": given}))


def _plain(body: Record) -> list[Prompt]:
    given = prompt = next((body[name] for name in _PLAIN_NAMES if body.get(name) is not None), None)
    if isinstance(prompt, dict):
        if "id" in prompt:
            raise InvalidRequestError(
                f"prompt={reprlib.repr(prompt)} is a template kept on the server, so its text is not in the "
                "log; log the rendered prompt (prompt_token_ids, or block hashes)"
            )
        prompt = prompt.get("prompt_token_ids", prompt.get("prompt", prompt.get("text")))
    if isinstance(prompt, str):
        _refuse_cut(prompt)
        if body.get("system"):
            return [_conversation(body, [{"role": "user", "content": prompt}])]
        return [prompt]
    if isinstance(prompt, list) and prompt:
        return _listed(body, prompt)
    raise InvalidRequestError(
        f"the prompt is {reprlib.repr(given)}; give a text, a list of token ids, or messages"
    )


def _listed(body: Record, prompt: list[Any]) -> list[Prompt]:
    """A list is token ids, a batch of prompts, or messages."""
    if isinstance(prompt[0], dict):
        return [_conversation(body, prompt)]
    if not isinstance(prompt[0], str | list):
        return [prompt]
    odd = next((each for each in prompt if type(each) is not type(prompt[0]) or not each), None)
    if odd is not None:
        raise InvalidRequestError(
            f"a batch of {len(prompt)} prompts with {reprlib.repr(odd)} among them; each is a text that is "
            "not empty, or each a list of token ids"
        )
    for each in prompt:
        _refuse_cut(each)
    return list(prompt)


def _refuse_cut(content: Any) -> None:
    """Refuse a text that a gateway has replaced or cut: it would match every other one that it did so."""
    texts = (
        [content]
        if isinstance(content, str)
        else [
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        ]
        if isinstance(content, list)
        else []
    )
    for text in texts:
        if text == _REDACTED:
            raise InvalidRequestError(
                f"the prompt is {text!r}: LiteLLM was told not to log it; log prompts or block hashes "
                "(litellm_settings: turn_off_message_logging: false)"
            )
        if _TRUNCATED in text:
            raise InvalidRequestError(
                "LiteLLM has cut the prompt and left 'litellm_truncated' in it, so what it began or went on "
                "with is unknown; set MAX_STRING_LENGTH_PROMPT_IN_DB higher than any prompt, and log anew"
            )
