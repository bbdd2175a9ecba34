"""A tokenizer as prompts need it: texts to token ids, messages to a text.

A position in a text becomes a position in its tokens through the offsets of one encoding of the whole.

Some tokenizers put special tokens before every text (``<s>``, ``[gMASK]<sop>``). A text that a chat template
rendered begins with them already; it is the same prompt whether it comes as messages or as that text, so what
is there is not put there again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from milepost.chat.heads import HeadMemory
from milepost.chat.opening import open_tokenizer
from milepost.chat.template_options import check_template_options
from milepost.errors import ConfigurationError, InvalidRequestError

__all__ = ["PROBE", "EncodedText", "PromptTokenizer"]

# Stands for a text that is not known yet; templates trim and split texts, so it is one plain word.
PROBE = "milepostxprobexmilepost"


@dataclass(frozen=True, slots=True)
class EncodedText:
    """The tokens of a text, and at which character each of them ends, ascending; shape ``[num_tokens]``.

    ``end_characters`` is None where the tokenizer does not say where its tokens lie.
    """

    tokens: list[int]
    end_characters: npt.NDArray[np.int64] | None

    def position_of(self, character: int) -> int:
        """Return how many tokens lie wholly before ``character``. O(log num_tokens)."""
        if self.end_characters is None:
            raise InvalidRequestError("this tokenizer does not say where its tokens lie; use a fast one")
        return int(np.searchsorted(self.end_characters, character, side="right"))


class PromptTokenizer:
    """A tokenizer of Hugging Face's kind; one that is named is opened at its first use.

    Args:
        source: An open tokenizer, or the name of one: a Hugging Face name, a folder, or a ``tokenizer.json``.
            None is an error at the first use.
    """

    def __init__(self, source: Any | str | Path | None) -> None:
        is_name = source is None or isinstance(source, str | Path)
        self.name = str(source) if is_name else getattr(source, "name_or_path", "") or type(source).__name__
        self._source = source if is_name else None
        self._opened: Any = None if is_name else source
        self._num_leading: int | None = None
        self._parts_of: tuple[Any, bool] | None = None
        self._arguments_of: tuple[Any, bool] | None = None
        self.heads = HeadMemory()

    @property
    def chat_template(self) -> Any:
        """The template of chats as it is now, or several by name; None where there is none."""
        return getattr(self._tokenizer(), "chat_template", None)

    @property
    def has_chat_template(self) -> bool:
        """Whether messages can be rendered."""
        return bool(self.chat_template)

    @property
    def response_template(self) -> Any:
        """How answers are marked, in transformers' form, where the tokenizer comes with it; else None."""
        return getattr(self._tokenizer(), "response_template", None)

    @property
    def takes_written_arguments(self) -> bool:
        """Whether the template shows the arguments of a call that come as a text as they are, blanks and all.
        Others go through them, and need them read.
        """
        template = self.chat_template
        if self._arguments_of is None or self._arguments_of[0] != template:
            self._arguments_of = template, self._shows_written_arguments()
        return self._arguments_of[1]

    def encode(self, text: str, *, add_special_tokens: bool) -> EncodedText:
        """Return the tokens of ``text``.

        Args:
            text: A prompt.
            add_special_tokens: Whether the tokenizer puts its own around it, those before it only where the
                text does not begin with them. A template writes its own.

        Raises:
            ConfigurationError: no tokenizer was named, or it cannot be opened.
        """
        encoded = self._encode(text, add_special_tokens=add_special_tokens)
        if not add_special_tokens:
            return encoded
        leading = self._num_leading_tokens()
        if leading and encoded.tokens[leading : 2 * leading] == encoded.tokens[:leading]:
            ends = encoded.end_characters
            return EncodedText(encoded.tokens[leading:], None if ends is None else ends[leading:])
        return encoded

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Any = None,
        options: Mapping[str, Any],
        add_generation_prompt: bool,
        continue_final_message: bool = False,
    ) -> str:
        """Return the text that the chat template makes of ``messages``, whose contents are texts.

        Raises:
            ConfigurationError: there is no tokenizer, or it has no chat template.
            InvalidRequestError: the template refuses these messages, or an option is none of a template.
        """
        check_template_options(options)
        if not self.has_chat_template:
            raise ConfigurationError(
                f"the tokenizer {self.name} has no chat template, and the log has messages; give the "
                "tokenizer of a chat model (--tokenizer), as a folder with its chat_template.jinja or "
                "tokenizer_config.json"
            )
        try:
            return self._render(
                messages,
                as_parts=self._wants_parts(),
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **options,
            )
        except Exception as error:  # templates are programs, and fail as programs do
            raise InvalidRequestError(
                f"the chat template of {self.name} refuses these messages: {error}"
            ) from error

    def _encode(self, text: str, *, add_special_tokens: bool) -> EncodedText:
        tokenizer = self._tokenizer()
        is_fast = bool(getattr(tokenizer, "is_fast", False))
        encoded = tokenizer(
            text, add_special_tokens=add_special_tokens, return_offsets_mapping=is_fast, verbose=False
        )
        if not is_fast or encoded["offset_mapping"] is None:
            return EncodedText(list(encoded["input_ids"]), None)
        ends = np.fromiter((end for _, end in encoded["offset_mapping"]), dtype=np.int64)
        # Special tokens at the end have no text and say that they end at character 0.
        return EncodedText(encoded["input_ids"], np.maximum.accumulate(ends) if ends.size else ends)

    def _num_leading_tokens(self) -> int:
        """Return how many special tokens the tokenizer puts before a text."""
        if self._num_leading is None:
            bare = self._encode(PROBE, add_special_tokens=False).tokens
            whole = self._encode(PROBE, add_special_tokens=True).tokens
            starts = range(len(whole) - len(bare) + 1)
            self._num_leading = next((n for n in starts if whole[n : n + len(bare)] == bare), 0)
        return self._num_leading

    def _wants_parts(self) -> bool:
        """Return whether the template shows a text only where it comes as a part of a list."""
        template = self.chat_template
        if self._parts_of is None or self._parts_of[0] != template:
            self._parts_of = (
                template,
                not self._shows_probe(as_parts=False) and self._shows_probe(as_parts=True),
            )
        return self._parts_of[1]

    def _shows_probe(self, *, as_parts: bool) -> bool:
        messages = [{"role": "user", "content": PROBE}]
        try:
            return PROBE in self._render(messages, as_parts=as_parts, add_generation_prompt=False)
        except Exception:  # as a template that wants something else of a message may
            return False

    def _shows_written_arguments(self) -> bool:
        written = f'{{"{PROBE}":  1}}'
        function = {"name": PROBE, "arguments": written}
        messages: list[Mapping[str, Any]] = [
            {"role": "user", "content": PROBE},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "id": PROBE, "function": function}],
            },
        ]
        try:
            return written in self._render(
                messages, as_parts=self._wants_parts(), add_generation_prompt=False
            )
        except Exception:  # as a template that wants them read may
            return False

    def _render(self, messages: Sequence[Mapping[str, Any]], *, as_parts: bool, **options: Any) -> str:
        given = [_with_parts(message) if as_parts else dict(message) for message in messages]
        rendered: str = self._tokenizer().apply_chat_template(given, tokenize=False, **options)
        return rendered

    def _tokenizer(self) -> Any:
        if self._opened is None:
            self._opened = open_tokenizer(self._source)
        return self._opened


def _with_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}
