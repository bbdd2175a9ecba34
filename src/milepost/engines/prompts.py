"""Whatever a prompt comes as, a text, chat messages or token ids, to checked tokens of one model.

Texts and messages go through ``milepost.chat``, as those of a request log do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from milepost.chat.conversation import Conversation, EncodedConversation
from milepost.chat.messages import check_texts_only, read_messages
from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.chat.template_options import check_template_options
from milepost.counts import as_count
from milepost.engines.text import Tokenizer, checked_text
from milepost.errors import ConfigurationError, ContextLengthError, InvalidRequestError
from milepost.pins import Pin, PinLike, as_pins
from milepost.tokens import TokenArray, TokenLike, as_tokens

__all__ = [
    "ChatMessages",
    "Continuation",
    "Continued",
    "EncodedPrompt",
    "Prompt",
    "PromptReader",
    "check_listed",
]

ChatMessages = Sequence[Mapping[str, Any]]
Prompt = str | ChatMessages | TokenLike
Continuation = str | TokenLike

_INTEGERS = frozenset((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt's tokens, at how many of them others may diverge from it, as far as its form says so, and what
    of it is to be kept for some time.
    """

    tokens: TokenArray
    breakpoints: tuple[int, ...] = ()
    pins: tuple[Pin, ...] = ()


class Continued(NamedTuple):
    """The tokens of a context and of what comes after it."""

    context: TokenArray
    continuation: TokenArray


class PromptReader:
    """Encodes the prompts of one model.

    Args:
        tokenizer: The model's; None where it has none.
        vocabulary_size: Token ids that the model knows.
        context_length: Tokens that it was made for; None for no limit.
        media_tokens: Ids that stand for an image and the like, which no prompt here comes with.
        template_options: Of the chat template, for what no prompt says otherwise.

    Raises:
        ConfigurationError: these are no options by name.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | None,
        vocabulary_size: int,
        context_length: int | None,
        media_tokens: Mapping[int, str] | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        # Of Hugging Face's kind; a plain tokenizer adds nothing of its own and knows no messages.
        is_rich = hasattr(tokenizer, "apply_chat_template")
        self._prompt_tokenizer = PromptTokenizer(tokenizer) if is_rich else None
        self._vocabulary_size = vocabulary_size
        self._context_length = context_length
        self._media_tokens = media_tokens or {}
        self._template_options = _checked_options(template_options)

    def read(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        continue_final_message: bool | None = None,
        breakpoints: Sequence[int] = (),
        pins: Sequence[PinLike] = (),
    ) -> EncodedPrompt:
        """Return ``prompt`` as checked tokens, with its breakpoints.

        Args:
            prompt: A text, chat messages, or token ids.
            tools: For the template of chat messages.
            chat_template_kwargs: For the template, as ``{"enable_thinking": False}``.
            continue_final_message: Whether the answer continues the last message; where that is the
                assistant's, unless said otherwise.
            breakpoints: Positions in tokens, beside those where messages end.
            pins: Positions to keep for some seconds, beside the cache points of messages.

        Raises:
            InvalidRequestError: the prompt or an option breaks a rule.
        """
        tokens: TokenLike
        chat = EncodedConversation([])
        if _is_chat(prompt):
            chat = self._read_chat(
                prompt,  # type: ignore[arg-type]
                tools=tools,
                template_options=chat_template_kwargs,
                continues=continue_final_message,
            )
            tokens = chat.tokens
        else:
            for name, given in (
                ("tools", tools),
                ("chat_template_kwargs", chat_template_kwargs),
                ("continue_final_message", continue_final_message),
            ):
                if given is not None:
                    raise InvalidRequestError(
                        f"{name} is for the chat template, and the prompt is no chat; give messages, as "
                        "[{'role': 'user', 'content': ...}]"
                    )
            tokens = self._read_plain(prompt)
        checked = self._checked(tokens)
        return EncodedPrompt(
            checked,
            _merged(breakpoints, chat.breakpoints, num_tokens=checked.size),
            as_pins([*_listed(pins), *chat.pins], num_tokens=checked.size),
        )

    def read_continuations(self, context: Prompt, continuations: Iterable[Continuation]) -> list[Continued]:
        """Return the tokens of ``context`` and of each of its ``continuations``.

        Two texts are split where evaluation harnesses split them: spaces at the context's end belong to the
        continuation, and its tokens are what the two as one text have beyond as many as the context has.

        Raises:
            InvalidRequestError: one of them breaks a rule, or is too long.
        """
        before = self._counted(self._read_chat_or_plain(context), what="context")
        bare = before
        if isinstance(context, str) and (kept := context.rstrip()):
            bare = self._counted(self._read_plain(kept), what="context")
        found = []
        for each in continuations:
            if isinstance(each, str) and isinstance(context, str):
                whole = self._read_plain(context + checked_text(each))
                continued = Continued(bare, self._continuing(np.asarray(whole)[bare.size :]))
            else:
                continued = Continued(before, self._continuing(each))
            self._check_length(continued)
            found.append(continued)
        return found

    def _continuing(self, given: Continuation) -> TokenArray:
        if isinstance(given, str):
            tokens = self._read_bare(checked_text(given))
        else:
            tokens = _numbers_of(given) if isinstance(given, torch.Tensor) else given
        return self._counted(tokens, what="continuation")

    def _check_length(self, given: Continued) -> None:
        limit = self._context_length
        # The last token is not computed: nothing comes after it.
        if limit is not None and given.context.size + given.continuation.size - 1 > limit:
            raise ContextLengthError(
                f"the context has {given.context.size:,} tokens and its continuation "
                f"{given.continuation.size:,}, and all but the last must fit in the model's {limit:,}; "
                "shorten the context, on its left"
            )

    def _read_chat_or_plain(self, prompt: Prompt) -> TokenLike:
        if _is_chat(prompt):
            return self._read_chat(prompt, tools=None, template_options=None, continues=None).tokens  # type: ignore[arg-type]
        return self._read_plain(prompt)

    def _checked(self, tokens: TokenLike) -> TokenArray:
        checked = self._counted(tokens)
        limit = self._context_length
        if limit is not None and checked.size >= limit:
            raise ContextLengthError(
                f"the prompt has {checked.size:,} tokens and the model's context {limit:,}, of which at "
                "least one is for the answer; shorten the prompt"
            )
        return checked

    def _refuse_hopeless(self, text: str) -> None:
        """Refuse a text that could not fit if each token were the longest there is, before it is encoded:
        of ten megabytes that takes a minute.
        """
        limit, longest = self._context_length, self._longest_token
        if limit is not None and longest is not None and len(text) > limit * longest:
            raise ContextLengthError(
                f"the prompt has {len(text):,} characters, at most {longest} of them in a token, and the "
                f"model's context is {limit:,} tokens; shorten the prompt"
            )

    @cached_property
    def _longest_token(self) -> int | None:
        """Characters of the longest token, where the tokenizer says it."""
        vocabulary = getattr(self._tokenizer, "get_vocab", None)
        return None if vocabulary is None else max(map(len, vocabulary()), default=None)

    def _counted(self, tokens: TokenLike, *, what: str = "prompt") -> TokenArray:
        """Return checked tokens, however many."""
        checked = as_tokens(tokens, vocabulary_size=self._vocabulary_size, name=what)
        for token, kind in self._media_tokens.items():
            if np.any(found := checked == token):
                raise InvalidRequestError(
                    f"token {token} at position {np.argmax(found)} stands for {kind} input, and a {what} "
                    "here is text alone; leave it out"
                )
        return checked

    def _read_plain(self, prompt: Any) -> TokenLike:
        if isinstance(prompt, str):
            text = checked_text(prompt)
            self._refuse_hopeless(text)
            if self._prompt_tokenizer is not None:
                return self._prompt_tokenizer.encode(text, add_special_tokens=True).tokens
            if self._tokenizer is None:
                raise InvalidRequestError(
                    "the prompt is text and this model has no tokenizer; pass token ids"
                )
            return self._tokenizer.encode(text)
        if isinstance(prompt, Mapping):
            names = ", ".join(map(repr, list(prompt)[:3])) or "nothing in it"
            raise InvalidRequestError(
                f"the prompt is one object with {names}; give its text, its token ids, or a list of messages"
            )
        if isinstance(prompt, torch.Tensor):
            return _numbers_of(prompt)
        if isinstance(prompt, list | tuple) and prompt and isinstance(prompt[0], str):
            raise InvalidRequestError(
                "the prompt is a list of texts; give one text, messages, or use generate_many"
            )
        return prompt

    def _read_bare(self, text: str) -> TokenLike:
        """Return the tokens of a text that comes after others, without what a tokenizer puts around one."""
        if self._prompt_tokenizer is not None:
            return self._prompt_tokenizer.encode(text, add_special_tokens=False).tokens
        return self._read_plain(text)

    def _read_chat(
        self, messages: ChatMessages, *, tools: Any, template_options: Any, continues: bool | None
    ) -> EncodedConversation:
        tokenizer = self._prompt_tokenizer
        if tokenizer is None or not tokenizer.has_chat_template:
            missing = "no tokenizer" if self._tokenizer is None else "a tokenizer without a chat template"
            raise InvalidRequestError(
                f"the prompt is chat messages and this model has {missing}; open the model of a chat, give "
                "Engine.open a tokenizer that has one, set tokenizer.chat_template, or pass a text"
            )
        if tools is not None and (isinstance(tools, str | Mapping) or not isinstance(tools, Sequence)):
            raise InvalidRequestError(f"tools={tools!r}; give a list of tools")
        check_texts_only(messages)
        read = read_messages(messages, keeps_written_arguments=tokenizer.takes_written_arguments)
        for message in read:
            checked_text(message.text)
        chat = Conversation(
            tokenizer,
            read,
            tools=list(tools or ()),
            template_options=self._template_options | _named(template_options),
            continue_final_message=read[-1].fields["role"] == "assistant" if continues is None else continues,
        )
        if chat.ignores_tools():
            raise InvalidRequestError(
                "the chat template of this model has no place for tools; leave tools out, or describe them "
                "in a message"
            )
        self._refuse_hopeless(chat.text)
        return chat.encode(with_pins=True)


def _numbers_of(prompt: torch.Tensor) -> TokenLike:
    """Return the ids in a tensor, wherever it lies."""
    if prompt.dtype not in _INTEGERS:
        raise InvalidRequestError(
            f"the prompt is a tensor of {prompt.dtype}; token ids are integers: give the tokenizer's own, as "
            "torch.int64 (input_ids, not embeddings)"
        )
    try:
        return np.asarray(prompt.detach().cpu())
    except (RuntimeError, TypeError) as error:
        raise InvalidRequestError(
            f"the prompt is a tensor that numpy cannot read ({str(error).splitlines()[0]}); give a dense one "
            "with its values in memory"
        ) from error


def _is_chat(prompt: Any) -> bool:
    return isinstance(prompt, list | tuple) and bool(prompt) and isinstance(prompt[0], Mapping)


def _merged(given: Any, ends: tuple[int, ...], *, num_tokens: int) -> tuple[int, ...]:
    if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
        raise InvalidRequestError(f"breakpoints={given!r}; give a list of positions in tokens")
    positions = {
        as_count("breakpoints", each, least=1, most=num_tokens, error=InvalidRequestError) for each in given
    }
    return tuple(sorted(positions | set(ends)))


def _listed(pins: Any) -> Sequence[PinLike]:
    if isinstance(pins, str | bytes) or not isinstance(pins, Sequence):
        raise InvalidRequestError(f"pins={pins!r}; give a list of pairs, a position and its seconds to live")
    return pins


def check_listed(prompts: Any) -> None:
    """Raise ``InvalidRequestError`` unless these are several prompts, or none."""
    if isinstance(prompts, str):
        raise InvalidRequestError("prompts is one text; give a list of prompts, or use generate")
    try:
        iter(prompts)
    except TypeError:  # a tensor of one number looks as if it were several
        is_listed = False
    else:
        is_listed = not isinstance(prompts, Mapping | bytes)
    if not is_listed:
        raise InvalidRequestError(f"prompts is {type(prompts).__name__}; give a list of prompts")


def _named(template_options: Any) -> dict[str, Any]:
    if template_options is not None and not isinstance(template_options, Mapping):
        raise InvalidRequestError(
            f"chat_template_kwargs={template_options!r}; give options of the template by name, as "
            "{'enable_thinking': False}"
        )
    return dict(template_options or {})


def _checked_options(template_options: Any) -> dict[str, Any]:
    """Return options for every prompt, which are refused now and not with each of them."""
    try:
        options = _named(template_options)
        check_template_options(options)
    except InvalidRequestError as error:
        raise ConfigurationError(str(error)) from error
    return options
