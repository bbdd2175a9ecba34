"""The token counts that a log has of its own: of the answer, and of the prompt as the server saw it."""

from collections.abc import Sequence
from contextlib import suppress

from milepost.errors import InvalidRequestError
from milepost.traces.fields import Record, whole_number

__all__ = ["logged_output_tokens", "logged_prompt_tokens"]

_PROMPT_NAMES = ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_eval_count", "inputTokens")
# Anthropic's input_tokens leave out what came from its cache or went into it.
_CACHED_NAMES = ("cache_read_input_tokens", "cache_creation_input_tokens")


def logged_output_tokens(response: Record | None) -> int | None:
    """Return the output tokens that an answer counts, under either dialect's name.

    Raises:
        InvalidRequestError: it is no count.
    """
    usage = response.get("usage") if response is not None else None
    if not isinstance(usage, dict):
        return None
    completion_tokens = whole_number(usage, "completion_tokens")
    return whole_number(usage, "output_tokens") if completion_tokens is None else completion_tokens


def logged_prompt_tokens(layers: Sequence[Record], response: Record | None) -> int | None:
    """Return the prompt tokens that the log counts, None where it does not or not understandably."""
    for record in (*layers, *([] if response is None else [response])):
        for usage in (record.get("usage"), record.get("usageMetadata"), record):
            if isinstance(usage, dict) and not usage.keys().isdisjoint(_PROMPT_NAMES):
                with suppress(InvalidRequestError):
                    for name in _PROMPT_NAMES:
                        if (count := whole_number(usage, name, least=1)) is not None:
                            return count + sum(whole_number(usage, each) or 0 for each in _CACHED_NAMES)
    return None
