"""Options that clients pass on to a chat template, and names among them that are not the template's.

``apply_chat_template`` takes the template's variables beside arguments of its own. One of those among a
client's options would replace the template, contradict the request, or be lost without a word.
"""

from collections.abc import Mapping
from typing import Any

from milepost.errors import InvalidRequestError

__all__ = ["check_template_options"]

_PROMPT = "they are the prompt: give them there"
_REQUEST = "it is an option of the request: give it there"
_TOKENS = "a template writes text, of which the tokens are made here: leave it out"
_RESERVED = {
    "chat_template": "the model's own is used: to have another, set tokenizer.chat_template, or give a "
    "tokenizer that has it",
    "messages": _PROMPT,
    "conversation": _PROMPT,
    "conversations": _PROMPT,
    "tools": _REQUEST,
    "continue_final_message": _REQUEST,
    "add_generation_prompt": "an answer is begun unless the request has continue_final_message: leave it out",
    **dict.fromkeys(
        (
            *("tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
            *("return_assistant_tokens_mask", "sanitize_control_tokens", "tokenizer_kwargs"),
        ),
        _TOKENS,
    ),
    # Our own, of the step before.
    "as_parts": "whether contents are parts is found out from the template: leave it out",
    "self": "no template has a variable of that name: leave it out",
}


def check_template_options(options: Mapping[str, Any]) -> None:
    """Check that ``options`` are variables for a template.

    Raises:
        InvalidRequestError: one has a name that is not the template's to use, or none at all.
    """
    for name in options:
        if not isinstance(name, str):
            raise InvalidRequestError(f"chat_template_kwargs has the name {name!r}; names are texts")
        if (remedy := _RESERVED.get(name)) is not None:
            raise InvalidRequestError(
                f"chat_template_kwargs has {name!r}, which is no variable of a template; {remedy}"
            )
