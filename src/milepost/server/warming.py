"""Prompts that are known to come, computed before the first client does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from milepost.engines.engine import Engine
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.tokens import TokenArray, common_prefix_length

__all__ = ["read_warm_prompts", "warm"]

# How long a prompt that was warmed is kept, whoever asks for it.
_KEPT_SECONDS = 24 * 3600


def read_warm_prompts(path: Path) -> list[tuple[Any, dict[str, Any]]]:
    """Return the prompts of a file, each with its options.

    A line is JSON: a text; a list of chat messages; or an object with ``prompt`` or ``messages``, and where
    wanted ``tools`` and ``cache_salt``. A chat that has no user's turn yet is warmed up to its end.

    Raises:
        ConfigurationError: it cannot be read; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--warm {path} cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"--warm {path}, line {number}"
        try:
            given = json.loads(line)
        except ValueError as error:
            raise ConfigurationError(f"{where} is not JSON: {error}") from error
        found.append(_read(given, where))
    if not found:
        raise ConfigurationError(f"--warm {path} has no prompt; write one a line, as JSON")
    return found


def _read(given: Any, where: str) -> tuple[Any, dict[str, Any]]:
    if isinstance(given, str | list):
        return given, {}
    if not isinstance(given, dict):
        raise ConfigurationError(f"{where} is no text, no messages and no object; write one of them")
    unknown = given.keys() - {"prompt", "messages", "tools", "cache_salt", "chat_template_kwargs"}
    prompts = [given[name] for name in ("prompt", "messages") if name in given]
    if unknown or len(prompts) != 1:
        raise ConfigurationError(
            f"{where} needs a prompt or messages, and may have tools, chat_template_kwargs and cache_salt"
            + (f"; {min(unknown)!r} is none of them" if unknown else "")
        )
    options = {name: given[name] for name in ("tools", "chat_template_kwargs") if name in given}
    return prompts[0], options | {"cache_salt": given.get("cache_salt")}


def warm(
    engine: Engine,
    prompts: list[tuple[Any, dict[str, Any]]],
    *,
    tenant_of: Callable[[str | None], str],
    on_prompt: Callable[[int, int], None],
) -> None:
    """Compute prompts, one after the other, so that their states are there for who begins so.

    Args:
        engine: Not served yet.
        prompts: As :func:`read_warm_prompts` gives them.
        tenant_of: Whose part of the cache a salt is.
        on_prompt: Told of each: its tokens, and how many of them were there already.

    Raises:
        ConfigurationError: one of them breaks a rule.
    """
    for number, (prompt, options) in enumerate(prompts, start=1):
        salt = options.pop("cache_salt", None)
        try:
            tokens, end = _read_up_to_its_end(engine, prompt, options)
            completion = engine.generate(
                tokens, max_new_tokens=1, temperature=0.0, tenant=tenant_of(salt), pins=[(end, _KEPT_SECONDS)]
            )
        except InvalidRequestError as error:
            raise ConfigurationError(f"prompt {number} of --warm: {error}") from error
        on_prompt(completion.report.num_tokens, completion.report.reused)


def _read_up_to_its_end(engine: Engine, prompt: Any, options: dict[str, Any]) -> tuple[TokenArray, int]:
    """Return a prompt's tokens, and at how many of them others go on that begin with it."""
    is_open = isinstance(prompt, list) and not any(
        isinstance(each, dict) and each.get("role") == "user" for each in prompt
    )
    if not is_open:
        request = engine.read(prompt, **options)
        return request.tokens, request.tokens.size
    # What the first user says is not known: of two that differ, what they share is.
    texts = ("?", "!")
    one, other = (
        engine.read([*prompt, {"role": "user", "content": text}], **options).tokens for text in texts
    )
    return one, common_prefix_length(one, other)
